/*
 * late.c - blocks that may be written once more after they were removed. A store that has no server process of ours
 * executes requests in its own time, even those of a client that has ended since or got no answer. Blocks of such a
 * writer are removed at once, and again after the write deadline. In between the table keeps their ids, so the second
 * removal does not depend on any particular client: whichever session is then the collector does it. When the system
 * ends, it is done at once.
 */
#include <stddef.h>

#include "base/clock.h"
#include "base/pointer.h"
#include "controller/controller_state.h"
#include "controller/owners.h"
#include "controller/wake.h"

/* Wakes the owner when its first late block is due. */
static void late_arm(tqi_controller *ctl, tqi_ctl_owner *owner)
{
    uint64_t due = tqi_table_owner_late(owner->table_owner);

    if (due != TQI_NEVER && !tqi_heap_has(&owner->late.node)) {
        tqi_net_timed_add(&ctl->waiters, &owner->late, due);
    }
}

void tqi_ctl_late_due(tqi_net_timed *timed)
{
    tqi_ctl_owner *owner = TQI_CONTAINER(timed, tqi_ctl_owner, late);

    tqi_table_owner_late_die(owner->table_owner, tqi_now());
    late_arm(tqi_ctl_of(timed->waiters), owner);
}

void tqi_ctl_late_done(tqi_controller *ctl, tqi_ctl_owner *owner, uint64_t notice)
{
    tqi_table_owner_done(owner->table_owner, notice, owner->shared ? tqi_net_after_ms(ctl->write_deadline_ms) : 0);
    if (ctl->drain.begun) {
        tqi_table_owner_late_die(owner->table_owner, TQI_NEVER);
    }
    late_arm(ctl, owner);
}

void tqi_ctl_late_end(tqi_controller *ctl)
{
    for (tqi_ctl_owner *owner = ctl->owners; owner != NULL; owner = owner->hh.next) {
        tqi_net_timed_remove(&owner->late);
        tqi_table_owner_late_die(owner->table_owner, TQI_NEVER);
    }
}
