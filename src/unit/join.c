/*
 * join.c - the unit at the controller: it registers as an owner of blocks and collects the dead ones. Two requests:
 * REGISTER_OWNER, repeated after every connection with a fresh session or a different epoch, and COLLECT_DEAD, which
 * waits at the controller until there are dead blocks. If either fails, it is retried after a growing pause; only a
 * unit that was refused before it was ever registered may be told to give up.
 *
 * Two things make the unit drop everything and begin a new incarnation:
 *
 *   - another epoch: no block of the old one can be named any more, and ids start again;
 *   - a controller that had forgotten the owner meanwhile (it was away for longer than the owner timeout).
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/pointer.h"
#include "base/text.h"
#include "config_backends.h"
#include "unit/compact.h"
#include "unit/memory.h"
#include "unit/report.h"
#include "unit/sift.h"
#include "unit/tombs.h"
#include "unit/unit.h"
#include "unit/unit_state.h"
#include "unit/wait.h"
#include "unit/writers.h"

#define JOIN_RETRY_MIN 50u
#define JOIN_RETRY_MAX 1000u
#define JOIN_SAY_NS    30000000000u

static void join_register(tqi_unit *unit);
static void join_collect(tqi_unit *unit);

static void join_retry(uv_timer_t *timer)
{
    tqi_unit *unit = timer->data;

    if (unit->registered) {
        join_collect(unit);
    } else {
        join_register(unit);
    }
}

static void join_later(tqi_unit *unit)
{
    if (unit->closing || uv_is_active((uv_handle_t *)&unit->retry)) {
        return;
    }
    uv_timer_start(&unit->retry, join_retry, unit->retry_ms, 0);
    unit->retry_ms = unit->retry_ms * 2 > JOIN_RETRY_MAX ? JOIN_RETRY_MAX : unit->retry_ms * 2;
}

/*
 * A new store, with its own memfds, rather than an emptied one: a writer of the old epoch in the middle of a copy then
 * writes into memory that nobody reads any more, and a reader with old locators finds an empty slot table, whatever
 * ids the new epoch hands out.
 */
static int join_renew_store(tqi_unit *unit, tq_error *err)
{
    tq_error why = {0};
    tqi_unit_store *fresh = tqi_unit_store_make(unit, &why);

    if (fresh == NULL) {
        return tqi_error_set(err, why.code, "%s", why.message);
    }
    tqi_unit_waits_fail(unit, TQ_ESTALE, "has started anew");
    tqi_unit_writers_forget(unit);
    tqi_store_drop_all(unit->store);
    tqi_store_trim(unit->store);
    tqi_unit_store_unref(unit->held);
    unit->held = fresh;
    unit->store = fresh->store;
    unit->incarnation = tqi_random_id();
    tqi_unit_tombs_clear(&unit->tombs);
    tqi_unit_compact_forget(unit);
    return TQ_OK;
}

/* Drops what was held; false if that must be retried. */
static bool join_renew(tqi_unit *unit, const char *why)
{
    tq_error err = {0};

    if (unit->collecting != NULL) {
        tqi_net_call_cancel(unit->collecting);
    }
    if (join_renew_store(unit, &err) != TQ_OK) {
        tqi_log(TQI_ERROR, "unit", "%s: cannot start anew: %s", unit->name, err.message);
        return false;
    }
    tqi_log(TQI_INFO, "unit", "%s: %s; everything stored is dropped", unit->name, why);
    unit->registered = false;
    unit->outdated = false;
    unit->notice = 0;
    unit->named = 0;
    return true;
}

/* --- register ------------------------------------------------------------- */

static void join_registered(tqi_unit *unit, const Tq__RegisterOwnerReply *reply)
{
    /* Blocks that existed when it asked belong to a registration whose reply was lost. */
    bool known = unit->registered_as == unit->incarnation || unit->registering_with_blocks;
    const char *why = NULL;

    if (unit->epoch != 0 && reply->epoch != unit->epoch) {
        why = "the controller is another one now";
    } else if (unit->outdated || (reply->fresh && known && unit->registering_as == unit->incarnation)) {
        why = "the controller had given it up";
    }
    if (why != NULL && !join_renew(unit, why)) {
        unit->outdated = true; /* the next reply will not say so again */
        join_later(unit);
        return;
    }
    unit->epoch = reply->epoch;
    if (unit->registering_as != unit->incarnation) {
        join_register(unit); /* renewed meanwhile */
        return;
    }
    unit->registered = true;
    unit->registered_as = unit->incarnation;
    unit->retry_ms = JOIN_RETRY_MIN;
    tqi_unit_report_every(unit, reply->report_ms);
    unit->last_error = TQ_OK;
    tqi_log(TQI_INFO, "unit", "%s: registered, serving %s", unit->name, unit->endpoint);
    join_collect(unit);
    tqi_unit_compact_go(unit);
    tqi_unit_sift_go(unit);
    tqi_unit_counters_reset(unit);
    if (unit->ready != NULL) {
        unit->ready(unit->ready_arg);
    }
}

/* Whether the token file has a different token by now: the controller was restarted with it. Clients will use the new
 * one, too. */
static bool join_read_token(tqi_unit *unit)
{
    tq_error err = {0};
    tqi_net_token token = {0};

    if (unit->token_file == NULL) {
        return false;
    }
    if (tqi_net_token_load(unit->token_file, &token, &err) != TQ_OK) {
        if (unit->last_error == TQ_OK) {
            tqi_log(TQI_WARN, "unit", "%s: %s", unit->name, err.message);
        }
        return false;
    }
    if (token.size == unit->token.size && memcmp(token.bytes, unit->token.bytes, token.size) == 0) {
        return false;
    }
    tqi_log(TQI_INFO, "unit", "%s: token file '%s' has another token now", unit->name, unit->token_file);
    unit->token = token;
    tqi_net_connector_set_token(unit->connector, &token);
    tqi_net_server_set_token(unit->server, &token);
    return true;
}

static void join_register_done(tqi_net_call *call, tqi_net_answer *answer, void *arg)
{
    tqi_unit *unit = arg;

    (void)call;
    unit->registering = NULL;
    if (unit->closing) {
        return;
    }
    if (answer->status == TQ_OK) {
        join_registered(unit, (const Tq__RegisterOwnerReply *)answer->reply);
        return;
    }
    /* A controller that answers with a different token means that the system the unit knew has ended. */
    if ((answer->status == TQ_EAUTH || answer->status == TQ_EENDED) && join_read_token(unit)) {
        join_register(unit);
        return;
    }
    bool refused = answer->status == TQ_EAUTH || answer->status == TQ_EVERSION;
    if (refused && unit->registered_as == 0 && unit->refused != NULL) {
        unit->refused(answer->error, unit->refused_arg);
        return;
    }
    uint64_t now = tqi_now();
    bool ended = answer->status == TQ_EENDED;
    if (answer->status != unit->last_error || (ended && now - unit->said_at >= JOIN_SAY_NS)) {
        /* An orderly shutdown is not a failure: the unit waits for the next run. */
        tqi_log(ended ? TQI_INFO : TQI_WARN, "unit", "%s: %s: %s", unit->name,
                ended ? "waits for the next run of the system" : "registering failed, will try again",
                answer->error->message);
        unit->last_error = answer->status;
        unit->said_at = now;
    }
    join_later(unit);
}

static void join_register(tqi_unit *unit)
{
    Tq__RegisterOwner message;
    tq_error err = {0};

    if (unit->registering != NULL || unit->closing) {
        return;
    }
    tq__register_owner__init(&message);
    message.name = unit->name;
    message.incarnation = unit->incarnation;
    message.manager = tqi_unconst(TQI_BACKEND_SIMPLESTORAGE);
    message.info.data = (uint8_t *)unit->info;
    message.info.len = unit->info_size;
    message.mortal = true;
    message.key = (ProtobufCBinaryData){sizeof(unit->key), unit->key};
    tqi_net_call_args args = {
        .kind = TQI_REGISTER_OWNER,
        .message = &message.base,
        .deadline = TQI_NEVER,
        .done = join_register_done,
        .arg = unit,
    };
    unit->registering_as = unit->incarnation;
    unit->registering_with_blocks = tqi_store_blocks(unit->store) > 0;
    if (tqi_net_call_start(unit->controller, &args, &unit->registering, &err) != TQ_OK) {
        tqi_log(TQI_ERROR, "unit", "%s: cannot register: %s", unit->name, err.message);
        unit->registering = NULL;
        join_later(unit);
    }
}

static void join_opened(tqi_net_channel *channel, uint64_t epoch, bool fresh, void *arg)
{
    tqi_unit *unit = arg;

    (void)channel;
    if (unit->closing) {
        return;
    }
    if (unit->epoch != 0 && epoch != unit->epoch) {
        if (!join_renew(unit, "the controller is another one now")) {
            unit->registered = false;
            join_later(unit);
            return;
        }
        unit->epoch = epoch;
    } else if (!fresh) {
        return;
    }
    tqi_unit_compact_forget_ids(unit);
    unit->registered = false;
    join_register(unit);
}

/* --- collect -------------------------------------------------------------- */

static int join_dead_all(tqi_unit *unit, const Tq__CollectDeadReply *reply, tq_error *err)
{
    if (reply->n_first != reply->n_count || reply->n_first != reply->writer_done.len) {
        return tqi_error_set(err, TQ_EPROTO, "%zu first ids, %zu counts, %zu marks", reply->n_first, reply->n_count,
                             reply->writer_done.len);
    }
    for (size_t i = 0; i < reply->n_first; i++) {
        for (uint64_t k = 0; k < reply->count[i]; k++) {
            if (tqi_unit_dead(unit, reply->first[i] + k, reply->writer_done.data[i] != 0) != TQ_OK) {
                /* The notice is not confirmed, so it comes again; blocks already freed are not freed twice. */
                return tqi_error_nomem(err, "dead blocks");
            }
        }
    }
    return TQ_OK;
}

static void join_reported(tqi_net_call *call, tqi_net_answer *answer, void *arg)
{
    (void)call;
    (void)answer; /* a reader that still misses them will report it again */
    (void)arg;
}

/* A reader reported these as gone: the controller believes only the unit. */
static void join_doubted(tqi_unit *unit, const Tq__CollectDeadReply *reply)
{
    uint64_t *lost = malloc(reply->n_doubted * sizeof(*lost) + 1);
    Tq__ReportLost message;
    tq_error err = {0};
    size_t n = 0;

    for (size_t i = 0; lost != NULL && i < reply->n_doubted; i++) {
        if (!tqi_store_has(unit->store, reply->doubted[i])) {
            lost[n++] = reply->doubted[i];
        }
    }
    tq__report_lost__init(&message);
    message.id = lost;
    message.n_id = n;
    tqi_net_call_args args = {
        .kind = TQI_REPORT_LOST,
        .message = &message.base,
        .deadline = TQI_NEVER,
        .done = join_reported,
        .arg = unit,
    };
    if (n > 0) {
        tqi_log(TQI_WARN, "unit", "%s: %zu block%s of the table %s not here", unit->name, n, tqi_text_s(n),
                n == 1 ? "is" : "are");
        if (tqi_net_call_start(unit->controller, &args, NULL, &err) != TQ_OK) {
            tqi_log(TQI_WARN, "unit", "%s: cannot report lost blocks: %s", unit->name, err.message);
        }
    }
    free(lost);
}

static void join_collect_done(tqi_net_call *call, tqi_net_answer *answer, void *arg)
{
    tqi_unit *unit = arg;
    tq_error err = {0};

    (void)call;
    unit->collecting = NULL;
    if (unit->closing || !unit->registered) {
        return; /* registering continues with it */
    }
    if (answer->status != TQ_OK) {
        /* Not served by this session (any more): registering again does no harm. */
        unit->registered = false;
        join_later(unit);
        return;
    }
    const Tq__CollectDeadReply *reply = (const Tq__CollectDeadReply *)answer->reply;
    uint64_t since = tqi_now();
    int rc = join_dead_all(unit, reply, &err);
    if (reply->n_first > 0) {
        tqi_unit_count(unit, TQI_UNIT_CLEAR, since);
        tqi_unit_changed(unit);
        tqi_unit_wake(unit);
    }
    if (reply->n_doubted > 0) {
        join_doubted(unit, reply);
    }
    if (reply->n_sparse > 0) {
        tqi_unit_compact_add(unit, reply->sparse, reply->n_sparse);
        unit->named = reply->named;
    }
    if (rc != TQ_OK) {
        tqi_log(TQI_ERROR, "unit", "%s: collecting: %s", unit->name, err.message);
        join_later(unit);
        return;
    }
    unit->notice = reply->notice;
    join_collect(unit);
}

static void join_collect(tqi_unit *unit)
{
    Tq__CollectDead message;
    tq_error err = {0};

    if (unit->collecting != NULL || unit->closing) {
        return;
    }
    tq__collect_dead__init(&message);
    message.owner = unit->name;
    message.done = unit->notice;
    message.sparse = true;
    message.named = unit->named;
    tqi_net_call_args args = {
        .kind = TQI_COLLECT_DEAD,
        .message = &message.base,
        .deadline = TQI_NEVER,
        .done = join_collect_done,
        .arg = unit,
    };
    if (tqi_net_call_start(unit->controller, &args, &unit->collecting, &err) != TQ_OK) {
        tqi_log(TQI_ERROR, "unit", "%s: cannot collect: %s", unit->name, err.message);
        unit->collecting = NULL;
        join_later(unit);
    }
}

int tqi_unit_join(tqi_unit *unit, const tqi_unit_options *options, tq_error *err)
{
    tqi_net_connector_options as = {
        .token = options->token,
        .name = unit->name,
        .part = "unit",
        .own_system = options->own_controller,
    };

    unit->retry_ms = JOIN_RETRY_MIN;
    tqi_unit_report_every(unit, 0);
    int rc = tqi_net_connector_alloc(unit->loop, &as, &unit->connector, err);
    if (rc == TQ_OK) {
        rc = tqi_net_channel_get(unit->connector, options->controller, &unit->controller, err);
    }
    if (rc == TQ_OK) {
        rc = tqi_net_channel_on_open(unit->controller, join_opened, unit, err);
    }
    if (rc == TQ_OK) {
        join_register(unit);
    }
    return rc;
}
