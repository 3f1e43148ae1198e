/*
 * restore.c - restoring a snapshot: its parts are kept as they arrive; the commit checks them and puts them into the
 * table.
 */
#include <stddef.h>
#include <stdlib.h>

#include <utlist.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/pointer.h"
#include "controller/claims.h"
#include "controller/controller_state.h"
#include "controller/events.h"
#include "controller/handlers.h"
#include "controller/reply.h"
#include "controller/session.h"
#include "controller/snapshot_parts.h"
#include "controller/snapshots.h"
#include "controller/wake.h"

struct tqi_ctl_restore {
    uint64_t id;
    const tqi_ctl_session *session;
    tqi_ctl_parts parts;
    uint64_t bytes;
    tqi_net_timed idle; /* runs from the last part on */
    tqi_ctl_restore *prev, *next;
};

static void restore_end(tqi_controller *ctl, tqi_ctl_restore *restore)
{
    DL_DELETE(ctl->restores, restore);
    tqi_net_timed_remove(&restore->idle);
    tqi_ctl_parts_fini(&restore->parts);
    free(restore);
}

void tqi_ctl_restores_leave(tqi_controller *ctl, const tqi_ctl_session *session)
{
    tqi_ctl_restore *restore = NULL;
    tqi_ctl_restore *next = NULL;

    DL_FOREACH_SAFE (ctl->restores, restore, next) {
        if (restore->session == session) {
            restore_end(ctl, restore);
        }
    }
}

void tqi_ctl_restores_free(tqi_controller *ctl)
{
    while (ctl->restores != NULL) {
        restore_end(ctl, ctl->restores);
    }
}

static tqi_ctl_restore *restore_find(tqi_controller *ctl, const tqi_net_request *request, uint64_t id)
{
    tqi_ctl_restore *restore = NULL;

    DL_SEARCH_SCALAR(ctl->restores, restore, id, id);
    return restore != NULL && restore->session == tqi_ctl_session_of(request) ? restore : NULL;
}

static int restore_unknown(uint64_t id, tq_error *err)
{
    return tqi_error_set(err, TQ_ESTALE,
                         "this session has no restore %llu; one ends with its session, or when it gets "
                         "nothing for %.1f s (limits.restore_idle): load again, or start the system with a "
                         "longer time",
                         (unsigned long long)id, (double)tqi_limits.restore_idle / 1e3);
}

static void restore_due(tqi_net_timed *timed)
{
    tqi_ctl_restore *restore = TQI_CONTAINER(timed, tqi_ctl_restore, idle);

    tqi_log(TQI_WARN, "controller", "restore %llu of '%s' got nothing for %llu s and is dropped (limits.restore_idle)",
            (unsigned long long)restore->id, tqi_net_session_name(restore->session->net),
            (unsigned long long)(tqi_limits.restore_idle / 1000));
    tqi_limit_reached(TQI_LIMIT_restore_idle);
    restore_end(tqi_ctl_of(timed->waiters), restore);
}

/* Whether the part, and all that will follow it, are allowed; into a new restore if `into` is NULL. */
static int restore_check(tqi_controller *ctl, const tqi_ctl_session *session, const tqi_ctl_restore *into,
                         const Tq__RestorePart *msg, tq_error *err)
{
    const tqi_ctl_restore *restore = NULL;
    unsigned n = 0, own = 0;
    uint64_t size = msg->part.len + (into != NULL ? into->bytes : 0), others = 0;

    size = size > msg->total ? size : msg->total;
    DL_FOREACH (ctl->restores, restore) {
        n++;
        own += restore->session == session;
        others += restore == into ? 0 : restore->bytes;
    }
    uint64_t share = tqi_ctl_share(tqi_limits.restores);
    if (into == NULL && (n >= tqi_limits.restores || own >= share)) {
        tqi_limit_reached(TQI_LIMIT_restores);
        return tqi_error_set(err, TQ_EINVAL,
                             "this session has %u of %u open restores; at most %llu may be open, "
                             "%llu of one session (limits.restores): wait until one is loaded, or "
                             "start the system with more",
                             own, n, (unsigned long long)tqi_limits.restores, (unsigned long long)share);
    }
    if (size > tqi_limits.restore_bytes || others > tqi_limits.restore_bytes - size) {
        const uint64_t needed = (uint64_t)others + size;
        tqi_limit_reached(TQI_LIMIT_restore_bytes);
        return tqi_error_set(err, TQ_EINVAL,
                             "a table of %llu bytes cannot be loaded: restores may have %llu bytes "
                             "of tables, and others have %llu; start the system with "
                             "limits.restore_bytes of at least %llu",
                             (unsigned long long)size, (unsigned long long)tqi_limits.restore_bytes,
                             (unsigned long long)others, (unsigned long long)needed);
    }
    return TQ_OK;
}

int tqi_ctl_on_restore_part(tqi_controller *ctl, tqi_net_request *request, const Tq__RestorePart *msg, tq_error *err)
{
    Tq__RestorePartReply reply = TQ__RESTORE_PART_REPLY__INIT;
    tqi_ctl_restore *restore = msg->id ? restore_find(ctl, request, msg->id) : NULL;

    if (msg->id && restore == NULL) {
        return restore_unknown(msg->id, err);
    }
    if (restore_check(ctl, tqi_ctl_session_of(request), restore, msg, err) != TQ_OK) {
        return TQ_EINVAL;
    }
    if (msg->ask) {
        tqi_ctl_reply(request, &reply.base);
        return TQ_OK;
    }
    if (restore == NULL) {
        restore = calloc(1, sizeof(*restore));
        if (restore == NULL) {
            return tqi_error_nomem(err, "a restore");
        }
        restore->id = ++ctl->last_snapshot;
        restore->session = tqi_ctl_session_of(request);
        restore->idle.due = restore_due;
        DL_APPEND(ctl->restores, restore);
    }
    int rc = msg->part.len ? tqi_ctl_parts_add(&restore->parts, msg->part.data, msg->part.len, err)
                           : TQ_OK; /* of an empty table */
    if (rc) {
        if (!msg->id) {
            restore_end(ctl, restore);
        }
        return rc;
    }
    restore->bytes += msg->part.len;
    tqi_net_timed_remove(&restore->idle);
    tqi_net_timed_add(&ctl->waiters, &restore->idle, tqi_net_after_ms(tqi_limits.restore_idle));
    reply.id = restore->id;
    tqi_ctl_reply(request, &reply.base);
    return TQ_OK;
}

int tqi_ctl_on_restore_drop(tqi_controller *ctl, tqi_net_request *request, const Tq__RestoreDrop *msg, tq_error *err)
{
    tqi_ctl_restore *restore = restore_find(ctl, request, msg->id);

    (void)err;
    if (restore != NULL) {
        restore_end(ctl, restore);
    }
    tqi_ctl_reply_empty(request);
    return TQ_OK;
}

/* --- commit --------------------------------------------------------------- */

int tqi_ctl_on_restore_commit(tqi_controller *ctl, tqi_net_request *request, const Tq__RestoreCommit *msg, tq_error *err)
{
    Tq__RestoreCommitReply reply = TQ__RESTORE_COMMIT_REPLY__INIT;
    tqi_ctl_restore *restore = restore_find(ctl, request, msg->id);
    tqi_ctl_reading reading = {.strange = msg->relink && msg->epoch != tqi_table_epoch(ctl->table)};
    tqi_table_restored done = {0};

    if (restore == NULL) {
        return restore_unknown(msg->id, err);
    }
    int rc = tqi_ctl_parts_read(&restore->parts, &reading, err);
    if (rc == TQ_OK) {
        tqi_table_restore_state ask = {
            .partitions = reading.partitions,
            .n = reading.n_partitions,
            .partial = msg->partial,
            .relink = msg->relink,
            .session = tqi_ctl_session_number(request),
            .now_us = tqi_wall_us(),
            .moved = tqi_ctl_claims_move,
        };
        rc = tqi_table_restore(ctl->table, &ask, &done, err);
    }
    if (rc == TQ_OK) {
        tqi_ctl_event_add(
            ctl, &(tqi_ctl_happened){
                     .kind = "load",
                     .session = tqi_ctl_session_name(request),
                     .partition = msg->partial && reading.n_partitions == 1 ? reading.partitions[0].name : NULL,
                     .samples = (uint32_t)done.samples,
                 });
        reply.samples = done.samples;
        reply.lost = done.lost;
        tqi_ctl_reply(request, &reply.base);
    }
    tqi_ctl_reading_fini(&reading);
    restore_end(ctl, restore);
    return rc;
}
