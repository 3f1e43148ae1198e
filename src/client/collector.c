/*
 * collector.c - serving a store that has no server process of ours: registers the manager's shared owner at the
 * controller and removes dead blocks. One Collect request at a time waits at the controller; its answer names dead
 * ids, which the manager removes, and the next Collect confirms that. If a write to an id may still arrive, the
 * controller names the id once more when none can, to whichever client collects then; so nothing is remembered here.
 * After an error the loop waits and registers again.
 *
 * Block ids start over with every epoch of the controller, and so does the store's incarnation: the manager is asked
 * for it at every registration. Blocks of an earlier epoch that are still to be removed are forgotten, because they
 * went with that epoch.
 */
#include "client/runtime.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/pointer.h"
#include "base/text.h"

#define COLLECT_RETRY_MS 1000
#define COLLECT_IDS_MAX  (1u << 24)

struct tqi_client_collector {
    tqi_client_runtime *rt;
    const char *owner;
    uint64_t incarnation; /* registered, or being so */
    uint64_t epoch;       /* in which it was asked for */
    uint64_t done;        /* everything up to this notice was removed */
    uint64_t notice;      /* being removed */
    bool calling;         /* a request is in flight */
    bool removing;
    uint64_t *ids; /* being removed */
    size_t n_ids;
    bool rejoin;         /* the session is new: register again before the next Collect */
    unsigned announcing; /* registrations of a new session in flight */
    bool stopping;
    int handles;
    uv_timer_t retry;
};

static void collect_register(tqi_client_collector *c);
static void collect_next(tqi_client_collector *c);

static void collect_release(tqi_client_collector *c)
{
    if (!c->stopping || c->calling || c->removing || c->handles > 0 || c->announcing > 0) {
        return;
    }
    c->rt->collector = NULL;
    free(c);
}

static void collect_on_retry(uv_timer_t *timer)
{
    collect_register(timer->data);
}

static void collect_fail(tqi_client_collector *c, const tq_error *err)
{
    if (c->stopping) {
        collect_release(c);
        return;
    }
    /* An orderly end is not a failure. */
    tqi_log(err->code == TQ_EENDED ? TQI_INFO : TQI_WARN, "client", "collecting for %s: %s; trying again", c->owner,
            err->message);
    uv_timer_start(&c->retry, collect_on_retry, COLLECT_RETRY_MS, 0);
}

/* ---------------------------------------------------------------------------------------- dead
 * blocks */

static void collect_removed(const tq_error *err, void *arg)
{
    tqi_client_collector *c = arg;

    c->removing = false;
    free(c->ids);
    c->ids = NULL;
    if (err != NULL && err->code != TQ_OK) {
        if (c->stopping) {
            tqi_log(TQI_WARN, "client",
                    "closing: %zu dead block%s may be left in %s, for other clients of the system, or, "
                    "after its end, for the next one to remove: %s",
                    c->n_ids, tqi_text_s(c->n_ids), c->owner, err->message);
        }
        collect_fail(c, err);
        return;
    }
    c->done = c->notice; /* in another epoch: registering again starts over */
    collect_next(c);
}

/* The last *n_late ids are those that will be named once more. */
static int collect_ids(const Tq__CollectDeadReply *reply, uint64_t **out, size_t *n_out, size_t *n_late, tq_error *err)
{
    size_t n = 0;
    size_t done = 0;
    uint64_t *ids;

    if (reply->n_count != reply->n_first || reply->writer_done.len != reply->n_first) {
        return tqi_error_set(err, TQ_EPROTO, "dead blocks: %zu ranges with %zu counts and %zu flags", reply->n_first,
                             reply->n_count, reply->writer_done.len);
    }
    for (size_t i = 0; i < reply->n_first; i++) {
        n += reply->count[i];
        if (n > COLLECT_IDS_MAX) {
            return tqi_error_set(err, TQ_EPROTO, "dead blocks: more than %u ids", COLLECT_IDS_MAX);
        }
    }
    ids = malloc((n + 1) * sizeof(*ids));
    if (ids == NULL) {
        return tqi_error_nomem(err, "dead blocks");
    }
    *n_out = n;
    for (size_t i = 0; i < reply->n_first; i++) {
        for (uint32_t k = 0; k < reply->count[i]; k++) {
            ids[reply->writer_done.data[i] ? done++ : --n] = reply->first[i] + k;
        }
    }
    *out = ids;
    *n_late = *n_out - n;
    return TQ_OK;
}

static void collect_answered(tqi_net_call *call, tqi_net_answer *answer, void *arg)
{
    tqi_client_collector *c = arg;
    const Tq__CollectDeadReply *reply = (const Tq__CollectDeadReply *)answer->reply;
    tq_error err = {0};
    size_t n = 0;
    size_t n_late = 0;

    (void)call;

    c->calling = false;
    if (answer->status != TQ_OK) {
        collect_fail(c, answer->error);
        return;
    }
    if (c->stopping) {
        collect_release(c);
        return;
    }
    if (answer->epoch != c->epoch || c->epoch != c->rt->host.epoch) {
        c->rejoin = true; /* ids of a different epoch than the incarnation we have */
        collect_next(c);
        return;
    }
    if (collect_ids(reply, &c->ids, &n, &n_late, &err) != TQ_OK) {
        collect_fail(c, &err);
        return;
    }
    c->notice = reply->notice;
    if (n == 0) {
        free(c->ids);
        c->ids = NULL;
        c->done = c->notice;
        collect_next(c);
        return;
    }
    c->removing = true;
    c->n_ids = n;
    c->rt->internal.n_late = n_late;
    c->rt->manager->remove(c->rt->manager_state, c->incarnation, c->ids, n, collect_removed, c);
    c->rt->internal.n_late = 0;
}

static void collect_next(tqi_client_collector *c)
{
    Tq__CollectDead message;
    tqi_net_call_args args = {
        .kind = TQI_COLLECT_DEAD,
        .message = &message.base,
        .deadline = TQI_NEVER,
        .done = collect_answered,
        .arg = c,
    };
    tqi_net_call *call;
    tq_error err = {0};

    tq__collect_dead__init(&message);
    if (c->stopping) {
        collect_release(c);
        return;
    }
    if (c->rejoin) {
        collect_register(c);
        return;
    }
    if (c->calling || c->removing) {
        return;
    }
    message.owner = tqi_unconst(c->owner);
    message.done = c->done;
    c->calling = true;
    if (tqi_net_call_start(c->rt->controller, &args, &call, &err) != TQ_OK) {
        c->calling = false;
        collect_fail(c, &err);
    }
}

/* ---------------------------------------------------------------------------------------- joining
 * */

static void collect_registered(tqi_net_call *call, tqi_net_answer *answer, void *arg)
{
    tqi_client_collector *c = arg;

    (void)call;
    c->calling = false;
    if (answer->status != TQ_OK) {
        collect_fail(c, answer->error);
        return;
    }
    if (answer->epoch != c->epoch) {
        /* It was resent to a different controller than it was made for. */
        c->rejoin = true;
    }
    c->done = 0;
    collect_next(c);
}

/* The manager's owner in the current epoch. */
static int collect_ask(tqi_client_collector *c, tq_error *err)
{
    tqi_client_runtime *rt = c->rt;
    uint64_t incarnation = 0;
    const char *owner = rt->manager->owner(rt->manager_state, &incarnation);

    if (owner == NULL || !owner[0] || rt->manager->remove == NULL) {
        return tqi_error_set(err, TQ_EINTERNAL, "storage manager %s names no owner or cannot remove", rt->manager->type);
    }
    c->owner = owner;
    c->incarnation = incarnation;
    c->epoch = rt->host.epoch;
    return TQ_OK;
}

static void collect_describe(const tqi_client_collector *c, uint64_t incarnation, Tq__RegisterOwner *message)
{
    tq__register_owner__init(message);
    message->name = tqi_unconst(c->owner);
    message->incarnation = incarnation;
    message->manager = tqi_unconst(c->rt->manager->type);
    message->shared = true;
}

static void collect_register(tqi_client_collector *c)
{
    Tq__RegisterOwner message;
    tqi_net_call_args args = {
        .kind = TQI_REGISTER_OWNER,
        .message = &message.base,
        .deadline = TQI_NEVER,
        .done = collect_registered,
        .arg = c,
    };
    tqi_net_call *call;
    tq_error err = {0};

    if (c->stopping || c->calling || c->removing) {
        return;
    }
    if (collect_ask(c, &err) != TQ_OK) {
        collect_fail(c, &err);
        return;
    }
    c->rejoin = false;
    collect_describe(c, c->incarnation, &message);
    c->calling = true;
    if (tqi_net_call_start(c->rt->controller, &args, &call, &err) != TQ_OK) {
        c->calling = false;
        collect_fail(c, &err);
    }
}

int tqi_client_collector_start(tqi_client_runtime *rt, tq_error *err)
{
    tqi_client_collector *c = calloc(1, sizeof(*c));

    if (c == NULL) {
        return tqi_error_nomem(err, "the collector");
    }
    c->rt = rt;
    int rc = collect_ask(c, err);
    if (rc != TQ_OK) {
        free(c);
        return rc;
    }
    uv_timer_init(&rt->loop, &c->retry);
    c->retry.data = c;
    c->handles = 1;
    rt->collector = c;
    collect_register(c);
    return TQ_OK;
}

static void collect_announced(tqi_net_call *call, tqi_net_answer *answer, void *arg)
{
    tqi_client_collector *c = arg;

    (void)call;
    (void)answer; /* the collector registers again */
    c->announcing--;
    collect_release(c);
}

/* The new session serves the owner before anything else is requested: a put that takes new block ids because its
 * session was lost will find the owner. */
static void collect_announce(tqi_client_collector *c)
{
    Tq__RegisterOwner message;
    tqi_net_call_args args = {
        .kind = TQI_REGISTER_OWNER,
        .message = &message.base,
        .deadline = TQI_NEVER,
        .done = collect_announced,
        .arg = c,
    };
    tqi_net_call *call;
    tq_error err = {0};
    uint64_t incarnation = 0;
    const char *owner = c->rt->manager->owner(c->rt->manager_state, &incarnation);

    if (owner == NULL) {
        return;
    }
    collect_describe(c, incarnation, &message);
    if (tqi_net_call_start(c->rt->controller, &args, &call, &err) == TQ_OK) {
        c->announcing++;
    }
}

void tqi_client_collector_rejoin(tqi_client_runtime *rt)
{
    tqi_client_collector *c = rt->collector;

    if (c != NULL && !c->stopping) {
        c->rejoin = true;
        collect_announce(c);
    }
}

static void collect_closed(uv_handle_t *handle)
{
    tqi_client_collector *c = handle->data;

    c->handles--;
    collect_release(c);
}

void tqi_client_collector_stop(tqi_client_runtime *rt)
{
    tqi_client_collector *c = rt->collector;

    if (c == NULL || c->stopping) {
        return;
    }
    c->stopping = true;
    uv_close((uv_handle_t *)&c->retry, collect_closed);
}
