/*
 * rest.c - what must be gone when everything has ended and all data is cleared: no leak.
 */
#include "oracle/guard.h"
#include "oracle/objects.h"

#include <stdio.h>

#include "controller/controller_state.h"
#include "net/serving.h"
#include "store.h"
#include "table/records.h"
#include "unit/unit_state.h"
#include "world.h"

/* What a server may keep for a client that is idle: see ACKS_LATE_BYTES in src/net/acks.c. */
#define REST_KEPT            8192u

#define REST(condition, ...) sim_check((condition), "no leak", "at rest: " __VA_ARGS__)

/* --- the controller --------------------------------------------------------- */

static const char *rest_name(const objects_item *item)
{
    const sim_process *process = item->pid != 0 ? sim_process_of(item->pid) : NULL;

    return process != NULL ? process->name : "a process";
}

/* Whether the session is of a server of ours, which stays. */
static bool rest_is_server(const tqi_net_session *session)
{
    for (const objects_item *item = objects_next(NULL); item != NULL; item = objects_next(item)) {
        if (item->kind == OBJECTS_UNIT && strcmp(((const tqi_unit *)item->object)->name, session->name) == 0) {
            return true;
        }
    }
    return false;
}

static void rest_server(const tqi_net_server *server, const char *name)
{
    for (const tqi_net_session *session = server->sessions; session != NULL; session = session->hh.next) {
        REST(rest_is_server(session), "%s has a session of '%s'", name, session->name);
        /* Some acknowledgements wait for the next request, and one for which there was no memory does. */
        REST(session->kept_bytes <= REST_KEPT || sim_may(SIM_OOM), "%s keeps %zu replies of %zu bytes for '%s'", name,
             session->kept, session->kept_bytes, session->name);
        REST(session->peer != NULL, "%s has no connection to '%s'", name, session->name);
    }
    REST(server->ended == NULL && server->lost == NULL, "%s has sessions that have ended", name);
}

/* With a keyed storage manager the drain ends all clears; elsewhere a client may leave one to nobody. */
static bool rest_keyed(void)
{
    return world_drawn.storage == WORLD_KEYED;
}

/* A unit holds ids for blocks to which it will move others. */
static void rest_ranges(const tqi_table *table, const char *name)
{
    for (const tqi_table_session *session = table->sessions; session != NULL; session = session->hh.next) {
        for (size_t i = 0; i < session->n_ranges; i++) {
            bool unit = false;
            for (const objects_item *item = objects_next(NULL); item != NULL; item = objects_next(item)) {
                unit = unit || (item->kind == OBJECTS_UNIT &&
                                strcmp(((const tqi_unit *)item->object)->name, session->ranges[i]->owner->name) == 0);
            }
            REST(unit, "%s has %u blocks that session %llu never published", name, session->ranges[i]->left,
                 (unsigned long long)session->id);
        }
    }
}

static void rest_table(const tqi_table *table, const char *name)
{
    tqi_table_counts counts;

    tqi_table_count(table, &counts);
    REST(counts.partitions == 0 && counts.samples == 0 && counts.live_cells == 0 && counts.keys == 0 &&
             counts.shapes == 0 && counts.blocks == 0,
         "%s has %llu partitions, %llu samples, %llu cells, %llu keys, %llu shapes, %llu blocks", name,
         (unsigned long long)counts.partitions, (unsigned long long)counts.samples,
         (unsigned long long)counts.live_cells, (unsigned long long)counts.keys, (unsigned long long)counts.shapes,
         (unsigned long long)counts.blocks);
    REST(counts.held == 0 || !rest_keyed(), "%s holds %llu indexes for clears", name, (unsigned long long)counts.held);
    REST(counts.claims == 0 && counts.views == 0, "%s has %llu claims and %llu views", name,
         (unsigned long long)counts.claims, (unsigned long long)counts.views);
    REST(table->freezes == NULL, "%s has an open snapshot", name);
    rest_ranges(table, name);
}

static void rest_controller(const tqi_controller *ctl, const char *name)
{
    rest_table(ctl->table, name);
    rest_server(ctl->server, name);
    REST(ctl->waiting == 0, "%s has %u waiting claims", name, ctl->waiting);
    REST(ctl->owner_waits == NULL, "%s has puts that wait for a unit", name);
    REST(ctl->snapshots == NULL && ctl->restores == NULL, "%s has open snapshots or restores", name);
    REST(ctl->clearings == NULL || !rest_keyed(), "%s has clears that have not ended", name);
    for (const tqi_ctl_owner *owner = ctl->owners; owner != NULL; owner = owner->hh.next) {
        REST(owner->shared || owner->servers != NULL, "%s still knows owner '%s'", name, owner->name);
        /* Ids that the last client never used die when it has gone, and then nobody is left to hear of them. */
        REST(owner->servers == NULL || !tqi_table_owner_has_dead(owner->table_owner),
             "%s has dead blocks of '%s', which has not collected them", name, owner->name);
        REST(owner->n_doubted == 0, "%s doubts %zu blocks of owner '%s'", name, owner->n_doubted, owner->name);
    }
}

/* --- units ----------------------------------------------------------------- */

static const char *rest_state(const char *owner, uint64_t incarnation, uint64_t id)
{
    static const char *const states[] = {
        [LEDGER_FREE] = "free", [LEDGER_GRANTED] = "granted", [LEDGER_LIVE] = "live",
        [LEDGER_DEAD] = "dead", [LEDGER_LATE] = "late",
    };
    ledger_block_state state = witness_block(owner, incarnation, id);

    return state < sizeof(states) / sizeof(*states) ? states[state] : "unknown";
}

static void rest_block(uint64_t id, uint64_t size, bool published, void *arg)
{
    const tqi_unit *unit = arg;
    const tqi_unit_writer *writer = tqi_unit_writer_of(arg, id);

    fprintf(stderr, "%s: block %llu of %llu bytes, %s, for the controller it is %s; its writer is %llu\n", unit->name,
            (unsigned long long)id, (unsigned long long)size, published ? "was published" : "was not published",
            rest_state(unit->name, unit->incarnation, id), writer != NULL ? (unsigned long long)writer->number : 0);
}

/* For people: what is left in a unit, and why. */
static void rest_tell(tqi_unit *unit)
{
    guard_each(unit->store, rest_block, unit);
    fprintf(stderr, "%s: moves %s, %llu ids from %llu on, %zu blocks to move\n", unit->name,
            unit->compact.now != NULL ? "blocks now" : "nothing", (unsigned long long)unit->compact.n_ids,
            (unsigned long long)unit->compact.first_id, unit->compact.n);
    for (const tqi_unit_writer *writer = unit->writers; writer != NULL; writer = writer->hh.next) {
        fprintf(stderr, "%s: writer %llu: session %s, %llu blocks reserved, %zu deferred, pid %llu%s%s, %zu pinned\n",
                unit->name, (unsigned long long)writer->number,
                writer->session != NULL ? writer->session->name : "ended", (unsigned long long)writer->reserved,
                writer->n_deferred, (unsigned long long)writer->pid, writer->mapped ? ", mapped" : "",
                writer->left ? ", left" : "", writer->pinned);
    }
}

static void rest_unit(tqi_unit *unit, const char *name)
{
    if (tqi_store_blocks(unit->store) > 0 || unit->writers != NULL) {
        rest_tell(unit);
    }
    REST(tqi_store_used(unit->store) == 0 && tqi_store_blocks(unit->store) == 0 && tqi_store_held_dead(unit->store) == 0,
         "%s has %llu blocks in %llu bytes", name, (unsigned long long)tqi_store_blocks(unit->store),
         (unsigned long long)tqi_store_used(unit->store));
    REST(tqi_store_check_for_tests(unit->store), "the books of %s do not agree", name);
    guard_check_empty(unit->store);
    REST(unit->held->refs == 1, "%s has %u references to its store", name, unit->held->refs);
    REST(unit->pins == 0 && unit->pinned_bytes == 0, "%s has %llu pins", name, (unsigned long long)unit->pins);
    REST(!tqi_unit_waited_for(unit), "%s has puts that wait for room", name);
    REST(unit->compact.now == NULL, "%s is moving blocks", name);
    for (const tqi_unit_writer *writer = unit->writers; writer != NULL; writer = writer->hh.next) {
        REST(false, "%s remembers a writer of %llu blocks", name, (unsigned long long)writer->reserved);
    }
    REST(unit->left == NULL, "%s waits for the end of a process", name);
    REST(unit->registered, "%s is not registered", name);
    rest_server(unit->server, name);
}

/* What a process has when it is at rest for the first time, and what it must not exceed later. */
static void rest_process(objects_item *item, const char *name)
{
    const sim_process *process = sim_process_of(item->pid);
    uint64_t live = 0;

    if (process == NULL) {
        return;
    }
    uint64_t bytes = sim_heap_live(process, &live);
    uint32_t fds = sim_fds_count(process);
    if (item->rested) {
        if (live > item->live) {
            sim_heap_report(process);
        }
        REST(fds == item->fds, "%s has %u descriptors, %u when it was at rest before", name, fds, item->fds);
        REST(live <= item->live, "%s has %llu bytes in %llu allocations, %llu in %llu when it was at rest before", name,
             (unsigned long long)bytes, (unsigned long long)live, (unsigned long long)item->live_bytes,
             (unsigned long long)item->live);
    }
    item->rested = true;
    item->fds = fds;
    item->live = live;
    item->live_bytes = bytes;
}

void rest_check(void)
{
    guard_look();
    for (objects_item *item = objects_next(NULL); item != NULL; item = objects_next(item)) {
        const char *name = rest_name(item);
        if (item->kind == OBJECTS_CONTROLLER) {
            rest_controller(item->object, name);
        } else {
            rest_unit(item->object, name);
        }
        rest_process(item, name);
    }
    REST(store_values(0) == 0 && store_pending() == 0, "the KV store has %zu values of %llu bytes, such as '%s'",
         store_values(0), (unsigned long long)store_bytes(0), store_any_key(0));
}
