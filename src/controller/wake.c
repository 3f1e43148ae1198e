/*
 * wake.c - after a change: finds the waits that it satisfied, of every kind, and answers them. It calls all that have
 * waits, so nothing calls it by name but the dispatch of requests; what changes the table elsewhere calls ctl->wake.
 */
#include "controller/wake.h"
#include "controller/claims.h"
#include "controller/controller_state.h"
#include "controller/events.h"
#include "controller/owners.h"

void tqi_ctl_wake(tqi_controller *ctl)
{
    if (ctl->held || ctl->closing) {
        return;
    }
    ctl->held++;
    for (;;) {
        tqi_table_view *view = NULL;
        tqi_table_owner *owner = NULL;
        while ((view = tqi_table_next_touched(ctl->table)) != NULL) {
            tqi_ctl_claims_gather(view);
        }
        while ((owner = tqi_table_next_dead(ctl->table)) != NULL) {
            if (tqi_table_owner_user(owner) != NULL) {
                tqi_ctl_collects_gather(tqi_table_owner_user(owner));
            }
        }
        tqi_ctl_owners_gather(ctl);
        tqi_ctl_events_gather(ctl);
        if (ctl->waiters.ready == NULL) {
            break;
        }
        tqi_net_waiters_answer(&ctl->waiters);
    }
    ctl->held--;
}
