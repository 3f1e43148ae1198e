/*
 * drain.c - draining before a system ends: data in stores that only clients can reach is removed by the clients.
 * Snapshots are closed, because they hold back dead blocks, and all samples are cleared, so that all blocks are dead
 * and their collectors remove them as usual (see blocks.c), late ones for the second time (see late.c). Nobody else is
 * served meanwhile: for them, the system has ended. Draining finishes when no dead block is left that a connected
 * collector could remove, or when the time is up.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "controller/controller.h"
#include "controller/controller_state.h"
#include "controller/owners.h"
#include "controller/snapshots.h"
#include "controller/wake.h"

#define DRAIN_RANGES  4096u
#define DRAIN_UNKNOWN UINT64_MAX

tqi_controller_stored tqi_controller_stored_elsewhere(const tqi_controller *ctl)
{
    tqi_controller_stored stored = {.stays = ctl->data_stays};

    for (const tqi_ctl_owner *owner = ctl->owners; owner != NULL; owner = owner->hh.next) {
        if (owner->shared) {
            stored.blocks += tqi_table_owner_blocks(owner->table_owner);
            stored.bytes += tqi_table_owner_bytes(owner->table_owner);
            stored.dead = stored.dead || tqi_table_owner_has_dead(owner->table_owner);
        }
    }
    stored.left = stored.blocks;
    return stored;
}

/* Blocks of an owner that have not been removed yet. */
static uint64_t drain_blocks(tqi_table_owner *owner, tqi_table_dead *dead)
{
    uint64_t notice = 0, blocks = tqi_table_owner_blocks(owner);
    size_t n = tqi_table_owner_dead(owner, dead, DRAIN_RANGES, &notice);

    for (size_t i = 0; i < n; i++) {
        blocks += dead[i].count;
    }
    return blocks;
}

/* Whether any session of the owner can be asked to remove them. */
static bool drain_reached(const tqi_ctl_owner *owner)
{
    const tqi_ctl_server *server = NULL;

    DL_FOREACH (owner->servers, server) {
        if (tqi_net_session_connected(server->session->net)) {
            return true;
        }
    }
    return false;
}

/* Counts the blocks in stores that have no server process; with `reached`, only those that a session can remove.
 * DRAIN_UNKNOWN: a snapshot holds back dead ones, or memory is short. */
static uint64_t drain_left(tqi_controller *ctl, bool reached)
{
    tqi_table_dead *dead = ctl->snapshots != NULL ? NULL : calloc(DRAIN_RANGES, sizeof(*dead));
    uint64_t blocks = 0;

    if (dead == NULL) {
        return DRAIN_UNKNOWN;
    }
    for (tqi_ctl_owner *owner = ctl->owners; owner != NULL; owner = owner->hh.next) {
        if (owner->shared && (!reached || drain_reached(owner))) {
            blocks += drain_blocks(owner->table_owner, dead);
        }
    }
    free(dead);
    return blocks;
}

static void drain_clear(tqi_controller *ctl)
{
    tqi_table_partition *partition = NULL;
    char name[TQ_NAME_MAX + 1];
    uint32_t cleared = 0;
    tq_error err = {0};

    ctl->held++;
    while ((partition = tqi_table_next_partition(ctl->table, NULL)) != NULL) {
        snprintf(name, sizeof(name), "%s", tqi_table_partition_name(partition));
        if (tqi_table_clear_partition(ctl->table, name, &cleared, &err) != TQ_OK) {
            tqi_log(TQI_WARN, "controller", "clearing partition '%s': %s", name, err.message);
            break;
        }
    }
    ctl->held--;
    ctl->wake(ctl);
}

static void drain_end(tqi_net_timed *timed)
{
    tqi_controller *ctl = tqi_ctl_of(timed->waiters);
    uint64_t left = drain_left(ctl, false);

    ctl->drain.over = true;
    /* If the number is unknown, all of them may be left. */
    ctl->drain.drained(left == DRAIN_UNKNOWN ? ctl->drain.blocks : left, ctl->drain.arg);
}

/* Not at once: a handler may be running, and the controller is closed next. */
static void drain_end_soon(tqi_controller *ctl)
{
    ctl->drain.over = true;
    tqi_net_timed_remove(&ctl->drain.end);
    tqi_net_timed_add(&ctl->waiters, &ctl->drain.end, tqi_now());
}

void tqi_ctl_drain_look(tqi_controller *ctl)
{
    if (ctl->drain.begun && !ctl->drain.over && !ctl->closing && drain_left(ctl, true) == 0) {
        drain_end_soon(ctl);
    }
}

int tqi_ctl_drain_refuse(const tqi_controller *ctl, uint16_t kind, tq_error *err)
{
    return !ctl->drain.begun || kind == TQI_COLLECT_DEAD || kind == TQI_ABANDON_BLOCKS || kind == TQI_SNAPSHOT_CLOSE
               ? TQ_OK
               : tqi_error_set(err, TQ_EENDED, "the system at %s is ending", tqi_controller_endpoint(ctl));
}

void tqi_controller_drain(tqi_controller *ctl, uint64_t ms, void (*drained)(uint64_t left, void *arg), void *arg)
{
    ctl->drain.begun = true;
    ctl->drain.blocks = tqi_controller_stored_elsewhere(ctl).blocks;
    ctl->drain.drained = drained;
    ctl->drain.arg = arg;
    ctl->drain.end.due = drain_end;
    tqi_net_timed_add(&ctl->waiters, &ctl->drain.end, tqi_net_after_ms(ms));
    if (!ctl->data_stays) {
        tqi_ctl_snapshots_free(ctl); /* their readers are no longer served */
    }
    tqi_ctl_late_end(ctl);
    if (drain_left(ctl, true) > 0) {
        drain_clear(ctl);
    }
    tqi_ctl_drain_look(ctl);
}
