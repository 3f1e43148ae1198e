/*
 * stores.c - see stores.h.
 */
#include "load/stores.h"

#include "shelf.h"
#include "sim.h"
#include "store.h"
#include "world.h"

/* For what begins only after the write deadline: a round of the collector, and its retries. */
#define STORES_SPARE (60 * SIM_S)
#define STORES_STEP  (100 * SIM_MS)

void load_drain_stores(const load_client *self)
{
    const uint64_t epoch = tq_client_epoch(self->client);
    const uint64_t until = sim_time() + 2 * world_drawn.write_deadline_ms * SIM_MS + STORES_SPARE;

    if (world_drawn.storage == WORLD_SIMPLE) {
        return;
    }
    while (store_values(epoch) + store_pending() + shelf_blocks(epoch) > 0 && sim_time() < until) {
        sim_pass(STORES_STEP);
    }
    sim_check(store_values(epoch) == 0, "no late value stays in a store", "%zu values of %llu bytes are left, one is %s",
              store_values(epoch), (unsigned long long)store_bytes(epoch), store_any_key(epoch));
    sim_check(shelf_blocks(epoch) == 0, "no leak", "%zu blocks are left on the shelf", shelf_blocks(epoch));
}
