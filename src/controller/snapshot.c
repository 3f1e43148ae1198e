/*
 * snapshot.c - snapshots of the table: taken at one instant, read part by part, closed.
 *
 * One handler takes it, so nothing changes meanwhile, and packs it at once: from then on it costs memory (about ten
 * bytes per cell) and keeps dead blocks from being freed, but holds nobody up. Therefore a snapshot that is not read
 * for some time is closed.
 */
#include <stddef.h>
#include <stdlib.h>

#include <utlist.h>

#include "base/error.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/pointer.h"
#include "controller/controller_state.h"
#include "controller/events.h"
#include "controller/handlers.h"
#include "controller/reply.h"
#include "controller/session.h"
#include "controller/snapshot_parts.h"
#include "controller/snapshots.h"
#include "controller/wake.h"

struct tqi_ctl_snapshot {
    uint64_t id;
    const tqi_ctl_session *session;
    tqi_table_freeze *freeze;
    tqi_ctl_parts parts;
    tqi_net_timed idle; /* runs from the last read on */
    tqi_ctl_snapshot *prev, *next;
};

static void snapshot_free(tqi_controller *ctl, tqi_ctl_snapshot *snapshot)
{
    tqi_table_freeze_close(ctl->table, snapshot->freeze);
    tqi_ctl_parts_fini(&snapshot->parts);
    free(snapshot);
}

static void snapshot_close(tqi_controller *ctl, tqi_ctl_snapshot *snapshot)
{
    DL_DELETE(ctl->snapshots, snapshot);
    tqi_net_timed_remove(&snapshot->idle);
    snapshot_free(ctl, snapshot);
}

static void snapshot_due(tqi_net_timed *timed)
{
    tqi_controller *ctl = tqi_ctl_of(timed->waiters);
    tqi_ctl_snapshot *snapshot = TQI_CONTAINER(timed, tqi_ctl_snapshot, idle);

    tqi_log(TQI_WARN, "controller", "snapshot %llu of '%s' was not read for %llu s and is closed (limits.snapshot_idle)",
            (unsigned long long)snapshot->id, tqi_net_session_name(snapshot->session->net),
            (unsigned long long)(tqi_limits.snapshot_idle / 1000));
    tqi_limit_reached(TQI_LIMIT_snapshot_idle);
    snapshot_close(ctl, snapshot);
}

/* Its reader has come. */
static void snapshot_used(tqi_controller *ctl, tqi_ctl_snapshot *snapshot)
{
    tqi_net_timed_remove(&snapshot->idle);
    tqi_net_timed_add(&ctl->waiters, &snapshot->idle, tqi_net_after_ms(tqi_limits.snapshot_idle));
}

static int snapshot_check(tqi_controller *ctl, const tqi_ctl_session *session, tq_error *err)
{
    const tqi_ctl_snapshot *snapshot = NULL;
    unsigned n = 0, own = 0;

    DL_FOREACH (ctl->snapshots, snapshot) {
        n++;
        own += snapshot->session == session;
    }
    uint64_t share = tqi_ctl_share(tqi_limits.snapshots);
    if (n >= tqi_limits.snapshots || own >= share) {
        tqi_limit_reached(TQI_LIMIT_snapshots);
        return tqi_error_set(err, TQ_EINVAL,
                             "this session has %u of %u open snapshots; at most %llu may be open, "
                             "%llu of one session (limits.snapshots): wait until one is saved, or start "
                             "the system with more",
                             own, n, (unsigned long long)tqi_limits.snapshots, (unsigned long long)share);
    }
    return TQ_OK;
}

void tqi_ctl_snapshots_leave(tqi_controller *ctl, const tqi_ctl_session *session)
{
    tqi_ctl_snapshot *snapshot = NULL;
    tqi_ctl_snapshot *next = NULL;

    DL_FOREACH_SAFE (ctl->snapshots, snapshot, next) {
        if (snapshot->session == session) {
            snapshot_close(ctl, snapshot);
        }
    }
}

void tqi_ctl_snapshots_free(tqi_controller *ctl)
{
    while (ctl->snapshots != NULL) {
        snapshot_close(ctl, ctl->snapshots);
    }
}

/* --- handlers ------------------------------------------------------------- */

/* Warns about a table that this system would refuse to load again. */
static void snapshot_measure(const tqi_net_request *request, const tqi_ctl_parts *parts)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < parts->n; i++) {
        bytes += parts->parts[i].len;
    }
    if (bytes > tqi_limits.restore_bytes) {
        tqi_log(TQI_WARN, "controller",
                "the table that '%s' saves has %llu bytes, and no more than %llu can be loaded: a "
                "system that is to load it needs limits.restore_bytes of at least %llu",
                tqi_ctl_session_name(request), (unsigned long long)bytes, (unsigned long long)tqi_limits.restore_bytes,
                (unsigned long long)bytes);
    }
}

int tqi_ctl_on_snapshot(tqi_controller *ctl, tqi_net_request *request, const Tq__Snapshot *msg, tq_error *err)
{
    Tq__SnapshotReply reply = TQ__SNAPSHOT_REPLY__INIT;

    if (snapshot_check(ctl, tqi_ctl_session_of(request), err) != TQ_OK) {
        return TQ_EINVAL;
    }
    tqi_ctl_snapshot *snapshot = calloc(1, sizeof(*snapshot));
    if (snapshot == NULL) {
        return tqi_error_nomem(err, "a snapshot");
    }
    snapshot->session = tqi_ctl_session_of(request);
    int rc = tqi_table_freeze_open(ctl->table, &snapshot->freeze, err);
    rc = rc ? rc : tqi_ctl_parts_take(ctl->table, msg->partition, &snapshot->parts, err);
    if (rc) {
        snapshot_free(ctl, snapshot);
        return rc;
    }
    snapshot->id = ++ctl->last_snapshot;
    snapshot_measure(request, &snapshot->parts);
    ctl->data_stays = ctl->data_stays || msg->data_stays;
    snapshot->idle.due = snapshot_due;
    snapshot_used(ctl, snapshot);
    DL_APPEND(ctl->snapshots, snapshot);
    const tqi_ctl_happened event = {
        .kind = "save",
        .session = tqi_ctl_session_name(request),
        .partition = msg->partition,
        .samples = (uint32_t)snapshot->parts.samples,
    };

    tqi_ctl_event_add(ctl, &event);
    reply.id = snapshot->id;
    reply.parts = (uint32_t)snapshot->parts.n;
    reply.samples = snapshot->parts.samples;
    reply.epoch = tqi_table_epoch(ctl->table);
    tqi_ctl_reply(request, &reply.base);
    return TQ_OK;
}

static tqi_ctl_snapshot *snapshot_find(tqi_controller *ctl, const tqi_net_request *request, uint64_t id)
{
    tqi_ctl_snapshot *snapshot = NULL;

    DL_SEARCH_SCALAR(ctl->snapshots, snapshot, id, id);
    return snapshot != NULL && snapshot->session == tqi_ctl_session_of(request) ? snapshot : NULL;
}

int tqi_ctl_on_snapshot_read(tqi_controller *ctl, tqi_net_request *request, const Tq__SnapshotRead *msg, tq_error *err)
{
    Tq__SnapshotReadReply reply = TQ__SNAPSHOT_READ_REPLY__INIT;
    tqi_ctl_snapshot *snapshot = snapshot_find(ctl, request, msg->id);

    if (snapshot == NULL) {
        return tqi_error_set(err, TQ_ESTALE,
                             "snapshot %llu: this session has no such snapshot; one ends with its session, "
                             "or when it is not read for %.1f s (limits.snapshot_idle): save again, or start "
                             "the system with a longer time",
                             (unsigned long long)msg->id, (double)tqi_limits.snapshot_idle / 1e3);
    }
    if (!msg->keep && msg->part >= snapshot->parts.n) {
        return tqi_error_set(err, TQ_EINVAL, "part %u of snapshot %llu: it has fewer", (unsigned)msg->part,
                             (unsigned long long)msg->id);
    }
    snapshot_used(ctl, snapshot);
    if (msg->keep) {
        tqi_ctl_reply(request, &reply.base);
        return TQ_OK;
    }
    reply.part = snapshot->parts.parts[msg->part];
    tqi_ctl_reply(request, &reply.base);
    return TQ_OK;
}

int tqi_ctl_on_snapshot_close(tqi_controller *ctl, tqi_net_request *request, const Tq__SnapshotClose *msg, tq_error *err)
{
    tqi_ctl_snapshot *snapshot = snapshot_find(ctl, request, msg->id);

    (void)err;
    if (snapshot != NULL) {
        snapshot_close(ctl, snapshot);
    }
    tqi_ctl_reply_empty(request);
    return TQ_OK;
}
