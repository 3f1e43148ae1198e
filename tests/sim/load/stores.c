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

void load_drain_stores(void)
{
    const uint64_t until = sim_time() + 2 * world_drawn.write_deadline_ms * SIM_MS + STORES_SPARE;

    if (world_drawn.storage == WORLD_SIMPLE) {
        return;
    }
    while (store_values(0) + store_pending() + shelf_blocks() > 0 && sim_time() < until) {
        sim_pass(STORES_STEP);
    }
    sim_check(store_values(0) == 0, "no late value stays in a store", "%zu values of %llu bytes are left, one is %s",
              store_values(0), (unsigned long long)store_bytes(0), store_any_key(0));
    sim_check(shelf_blocks() == 0, "no leak", "%zu blocks are left on the shelf", shelf_blocks());
}
