/*
 * waits.c - see waits.h.
 */
#include "oracle/waits.h"

#include <inttypes.h>

#include "controller/controller_state.h"
#include "controller/queue.h"
#include "oracle/objects.h"
#include "table/records.h"
#include "unit/unit_state.h"

#define WAITS_EVERY (250 * SIM_MS)
#define WAITS_LATE  SIM_S

/* What each server could have served: the same thing for a second is too long. */
static struct {
    uint64_t pid;
    uint64_t number; /* of the wait; 0: none */
    uint64_t since;
} waits_of[SIM_PROCESSES];

/* `number`: what the server could serve now; 0: nothing. */
static void waits_note(const sim_process *process, uint64_t number, const char *what)
{
    uint64_t now = sim_time();

    if (process->stopped || number == 0 || waits_of[process->id].pid != process->pid ||
        waits_of[process->id].number != number) {
        waits_of[process->id].pid = process->pid;
        waits_of[process->id].number = process->stopped ? 0 : number;
        waits_of[process->id].since = now;
    }
    sim_check(now - waits_of[process->id].since < WAITS_LATE, "liveness", "%s has not served %s %" PRIu64 " for %.1f s",
              process->name, what, number, (double)(now - waits_of[process->id].since) / 1e9);
}

/* The first put of a unit's queues, if all of it fits into one free piece with room to spare. */
static uint64_t waits_put(const tqi_unit *unit)
{
    const tqi_unit_wait *wait = unit->waits.row[0] != NULL ? unit->waits.row[0] : unit->waits.row[1];
    uint64_t bytes = 0;

    if (wait == NULL) {
        return 0;
    }
    for (size_t i = 0; i < wait->message->n_size; i++) {
        bytes += wait->message->size[i] + 64; /* blocks begin at a cache line */
    }
    bool fits = tqi_store_used(unit->store) + bytes <= tqi_store_limit(unit->store, wait->message->adds_samples) &&
                2 * bytes <= tqi_store_longest(unit->store);
    return fits ? wait->number : 0;
}

/* The first claim of a view that its controller would try, if anything made it look, because there are as many samples
 * as it needs. One that has only been hinted at may still have nothing to take. */
static uint64_t waits_claim(const tqi_controller *ctl)
{
    for (const tqi_table_partition *partition = ctl->table->partitions; partition != NULL;
         partition = partition->hh.next) {
        for (tqi_table_view *view = partition->views; view != NULL; view = view->hh.next) {
            const tqi_ctl_claim_place *place = tqi_ctl_claim_queue_next(view);
            if (place != NULL && !tqi_heap_has(&place->hint)) {
                return place->number;
            }
        }
    }
    return 0;
}

static void waits_look(void *arg)
{
    for (const objects_item *item = objects_next(NULL); item != NULL; item = objects_next(item)) {
        const sim_process *process = sim_process_of(item->pid);
        if (process == NULL) {
            continue;
        }
        if (item->kind == OBJECTS_UNIT) {
            waits_note(process, waits_put(item->object), "the waiting put");
        } else {
            waits_note(process, waits_claim(item->object), "the waiting claim");
        }
    }
    sim_at(sim_time() + WAITS_EVERY, waits_look, arg);
}

void waits_start(void)
{
    memset(waits_of, 0, sizeof(waits_of));
    sim_at(sim_time() + WAITS_EVERY, waits_look, NULL);
}
