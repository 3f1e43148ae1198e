/*
 * store.c - blocks by id: places in the arena, slots, holds, quotas (see store.h).
 *
 * Relies on tlsf.c for which bytes are free, on arena.c for memory and on slots.c for the table that readers see.
 */
#include "store/store.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/hash.h"
#include "base/text.h"
#include "store/arena.h"
#include "store/huge.h"
#include "store/tlsf.h"

/* Warm memory kept ahead of the high-water mark: a sixteenth of it, within these bounds. */
#define STORE_AHEAD_MIN (UINT64_C(4) << 20)
#define STORE_AHEAD_MAX (UINT64_C(256) << 20)

typedef struct store_block {
    uint64_t id; /* key */
    uint64_t size;
    uint64_t offset;
    uint32_t chunk;
    uint32_t slot;
    uint32_t holds; /* pins included */
    uint32_t pins;
    bool dead; /* freed while held: no longer found, memory still taken */
    void *user;
    UT_hash_handle hh;
} store_block;

struct tqi_store {
    tqi_store_arena arena;
    tqi_store_slot_table slots;
    tqi_store_tlsf tlsf;
    store_block *blocks; /* by id */
    uint64_t n_blocks;   /* not dead */
    uint64_t used;
    uint64_t held_dead;  /* bytes of dead blocks */
    uint64_t join_limit; /* limit in bytes for blocks that add samples */
    /* Shared with the one thread that warms; everything else belongs to the owner. They are hints: relaxed. */
    _Atomic uint64_t high; /* end of the memory ever given out */
    _Atomic uint64_t warm; /* pages below exist */
    _Atomic bool cold;     /* the system refused more pages: no use in continuing */
};

int tqi_store_alloc(const tqi_store_options *options, tqi_store **out, tq_error *err)
{
    uint32_t slots = options->max_blocks;
    uint32_t percent = options->join_percent == 0 ? 90 : options->join_percent;
    int rc;

    if (percent > 100) {
        return tqi_error_set(err, TQ_EINVAL, "join_percent is %u, at most 100 is possible", percent);
    }
    tqi_store *store = calloc(1, sizeof(*store));
    if (store == NULL) {
        return tqi_error_nomem(err, "a store");
    }
    store->slots.fd = -1;
    rc = tqi_store_arena_init(&store->arena, options->capacity, err);
    if (rc != TQ_OK) {
        goto fail;
    }
    if (slots == 0) {
        uint64_t many = store->arena.size / 4096;
        slots = many < 4096 ? 4096 : many > (1u << 22) ? 1u << 22 : (uint32_t)many;
    }
    rc = tqi_store_slots_init(&store->slots, slots, store->arena.why, err);
    if (rc != TQ_OK) {
        goto fail;
    }
    rc = tqi_store_tlsf_init(&store->tlsf, store->arena.size);
    if (rc != TQ_OK) {
        tqi_error_nomem(err, "a store's table of chunks");
        goto fail;
    }
    store->join_limit = store->arena.size / 100 * percent + store->arena.size % 100 * percent / 100;
    *out = store;
    return TQ_OK;

fail:
    tqi_store_free(store);
    return rc;
}

void tqi_store_free(tqi_store *store)
{
    store_block *block, *next;

    if (store == NULL) {
        return;
    }
    HASH_ITER (hh, store->blocks, block, next) {
        HASH_DEL(store->blocks, block);
        free(block);
    }
    tqi_store_tlsf_fini(&store->tlsf);
    tqi_store_slots_fini(&store->slots);
    tqi_store_arena_fini(&store->arena);
    free(store);
}

const char *tqi_store_unshared(const tqi_store *store)
{
    return store->arena.why[0] ? store->arena.why : NULL;
}

int tqi_store_arena_fd(const tqi_store *store)
{
    return store->arena.fd;
}

int tqi_store_slots_fd(const tqi_store *store)
{
    return store->slots.fd;
}

uint64_t tqi_store_capacity(const tqi_store *store)
{
    return store->arena.size;
}

uint64_t tqi_store_used(const tqi_store *store)
{
    return store->used;
}

uint64_t tqi_store_limit(const tqi_store *store, bool adds_samples)
{
    return adds_samples ? store->join_limit : store->arena.size;
}

uint64_t tqi_store_held_dead(const tqi_store *store)
{
    return store->held_dead;
}

uint64_t tqi_store_longest(const tqi_store *store)
{
    uint64_t longest = 0;

    for (uint32_t i = store->tlsf.first; i != TQI_STORE_TLSF_NONE; i = store->tlsf.chunks[i].after) {
        const tqi_store_chunk *chunk = &store->tlsf.chunks[i];
        if (!chunk->used && chunk->size > longest) {
            longest = chunk->size;
        }
    }
    return longest;
}

uint64_t tqi_store_blocks(const tqi_store *store)
{
    return store->n_blocks;
}

uint32_t tqi_store_slots(const tqi_store *store)
{
    return store->slots.count;
}

uint64_t tqi_store_resident_for_tests(const tqi_store *store)
{
    return tqi_store_arena_resident(&store->arena);
}

/* The block with that id, including dead ones. */
static store_block *store_any(const tqi_store *store, uint64_t id)
{
    store_block *block;

    HASH_FIND(hh, store->blocks, &id, sizeof(id), block);
    return block;
}

static store_block *store_live(const tqi_store *store, uint64_t id)
{
    store_block *block = store_any(store, id);

    return block != NULL && !block->dead ? block : NULL;
}

/* Gives the memory of a block back and forgets it. */
static void store_forget(tqi_store *store, store_block *block)
{
    store->used -= store->tlsf.chunks[block->chunk].size;
    tqi_store_tlsf_give(&store->tlsf, block->chunk);
    HASH_DEL(store->blocks, block);
    free(block);
}

static void store_drop(tqi_store *store, store_block *block)
{
    /* Before the memory can be given to anybody: see tqi_store_slots_give. */
    tqi_store_slots_give(&store->slots, block->slot);
    store->n_blocks--;
    block->dead = true;
    if (block->holds == 0) {
        store_forget(store, block);
    } else {
        store->held_dead += store->tlsf.chunks[block->chunk].size;
    }
}

/* Places one block. */
static int store_place(tqi_store *store, tqi_store_place *place, tq_error *err)
{
    if (place->id == 0) {
        return tqi_error_set(err, TQ_EINVAL, "a block has id 0");
    }
    if (store_any(store, place->id) != NULL) {
        return tqi_error_set(err, TQ_EINVAL, "block %llu is there already", (unsigned long long)place->id);
    }
    store_block *block = calloc(1, sizeof(*block));
    if (block == NULL) {
        return tqi_error_nomem(err, "a block");
    }
    block->id = place->id;
    block->size = place->size;
    int rc = tqi_store_tlsf_take(&store->tlsf, place->size, &block->chunk);
    if (rc != TQ_OK) {
        free(block);
        return rc == TQ_EFULL ? tqi_error_set(err, rc, "no %llu bytes in one piece", (unsigned long long)place->size)
                              : tqi_error_nomem(err, "a chunk");
    }
    rc = tqi_store_slots_take(&store->slots, block->id, &block->slot);
    if (rc != TQ_OK) {
        tqi_store_tlsf_give(&store->tlsf, block->chunk);
        free(block);
        return rc == TQ_EFULL ? tqi_error_set(err, rc, "all %u slots are taken", store->slots.count)
                              : tqi_error_nomem(err, "a slot");
    }
    if (!TQI_HASH_ADD(store->blocks, id, block)) {
        tqi_store_slots_give(&store->slots, block->slot);
        tqi_store_tlsf_give(&store->tlsf, block->chunk);
        free(block);
        return tqi_error_nomem(err, "the table of blocks");
    }
    block->offset = store->tlsf.chunks[block->chunk].offset;
    place->offset = block->offset;
    place->slot = block->slot;
    store->used += store->tlsf.chunks[block->chunk].size;
    store->n_blocks++;
    return TQ_OK;
}

/* Total bytes that the sizes take, saturated. */
static uint64_t store_sum(uint64_t sum, uint64_t size)
{
    uint64_t rounded = tqi_store_tlsf_round(size);

    return sum > UINT64_MAX - rounded ? UINT64_MAX : sum + rounded;
}

static bool store_possible(const tqi_store *store, uint64_t sum, size_t n, bool adds_samples)
{
    return sum <= (adds_samples ? store->join_limit : store->arena.size) && n <= store->slots.count;
}

int tqi_store_reserve(tqi_store *store, tqi_store_place *places, size_t n, bool adds_samples, tq_error *err)
{
    uint64_t limit = adds_samples ? store->join_limit : store->arena.size;
    uint64_t sum = 0;

    for (size_t i = 0; i < n; i++) {
        sum = store_sum(sum, places[i].size);
    }
    if (!store_possible(store, sum, n, adds_samples)) {
        return tqi_error_set(err, TQ_EINVAL,
                             "%zu block%s of %llu bytes together can never fit: %llu bytes and %u "
                             "blocks are the most",
                             n, tqi_text_s(n), (unsigned long long)sum, (unsigned long long)limit, store->slots.count);
    }
    if (sum > limit || store->used > limit - sum) {
        return tqi_error_set(err, TQ_EFULL, "%llu bytes wanted, %llu of %llu are used", (unsigned long long)sum,
                             (unsigned long long)store->used, (unsigned long long)limit);
    }
    for (size_t i = 0; i < n; i++) {
        int rc = store_place(store, &places[i], err);
        if (rc != TQ_OK) {
            while (i-- > 0) {
                store_drop(store, store_live(store, places[i].id));
            }
            return rc;
        }
    }
    uint64_t top = tqi_store_tlsf_top(&store->tlsf);
    if (top > atomic_load_explicit(&store->high, memory_order_relaxed)) {
        atomic_store_explicit(&store->high, top, memory_order_relaxed);
    }
    return TQ_OK;
}

bool tqi_store_fits(const tqi_store *store, const uint64_t *sizes, size_t n, bool adds_samples)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < n; i++) {
        sum = store_sum(sum, sizes[i]);
    }
    return store_possible(store, sum, n, adds_samples);
}

bool tqi_store_free_block(tqi_store *store, uint64_t id)
{
    store_block *block = store_live(store, id);

    if (block == NULL) {
        return false;
    }
    store_drop(store, block);
    return true;
}

uint8_t *tqi_store_block(tqi_store *store, uint64_t id, uint64_t *size)
{
    const store_block *block = store_live(store, id);

    if (block == NULL) {
        return NULL;
    }
    *size = block->size;
    return store->arena.base + block->offset;
}

uint8_t *tqi_store_find(tqi_store *store, uint64_t id, uint32_t slot, uint64_t *size)
{
    store_block *block = store_live(store, id);

    if (block == NULL || block->slot != slot) {
        return NULL;
    }
    if (size != NULL) {
        *size = block->size;
    }
    return store->arena.base + block->offset;
}

void tqi_store_set_user(tqi_store *store, uint64_t id, void *user)
{
    store_block *block = store_live(store, id);

    if (block != NULL) {
        block->user = user;
    }
}

void *tqi_store_user(const tqi_store *store, uint64_t id)
{
    store_block *block = store_live(store, id);

    return block != NULL ? block->user : NULL;
}

void tqi_store_each(tqi_store *store, void (*fn)(uint64_t id, void *user, void *arg), void *arg)
{
    store_block *block, *next;

    HASH_ITER (hh, store->blocks, block, next) {
        if (!block->dead) {
            fn(block->id, block->user, arg);
        }
    }
}

bool tqi_store_has(const tqi_store *store, uint64_t id)
{
    return store_live(store, id) != NULL;
}

uint64_t tqi_store_slot_id(const tqi_store *store, uint32_t slot)
{
    return atomic_load_explicit(&store->slots.words[slot], memory_order_relaxed);
}

uint32_t tqi_store_slots_used(const tqi_store *store)
{
    return store->slots.fresh;
}

void tqi_store_ref(tqi_store *store, uint64_t id)
{
    store_block *block = store_live(store, id);

    if (block != NULL) {
        block->holds++;
    }
}

void tqi_store_unref(tqi_store *store, uint64_t id)
{
    store_block *block = store_any(store, id);

    if (block != NULL && block->holds > 0 && --block->holds == 0 && block->dead) {
        store->held_dead -= store->tlsf.chunks[block->chunk].size;
        store_forget(store, block);
    }
}

void tqi_store_pin(tqi_store *store, uint64_t id)
{
    store_block *block = store_live(store, id);

    if (block != NULL) {
        block->holds++;
        block->pins++;
    }
}

bool tqi_store_unpin(tqi_store *store, uint64_t id)
{
    store_block *block = store_any(store, id);

    if (block == NULL || block->pins == 0) {
        return false;
    }
    bool last = --block->pins == 0 && !block->dead;
    tqi_store_unref(store, id);
    return last;
}

bool tqi_store_pinned(const tqi_store *store, uint64_t id)
{
    const store_block *block = store_live(store, id);

    return block != NULL && block->pins > 0;
}

void tqi_store_drop_all(tqi_store *store)
{
    store_block *block, *next;

    HASH_ITER (hh, store->blocks, block, next) {
        if (!block->dead) {
            store_drop(store, block);
        }
    }
}

static uint64_t store_ahead(uint64_t high)
{
    uint64_t ahead = high / 16;

    return ahead < STORE_AHEAD_MIN ? STORE_AHEAD_MIN : ahead > STORE_AHEAD_MAX ? STORE_AHEAD_MAX : ahead;
}

uint64_t tqi_store_keeps(uint64_t used)
{
    return used + store_ahead(used);
}

uint64_t tqi_store_warm(tqi_store *store, uint64_t max_bytes)
{
    uint64_t high = atomic_load_explicit(&store->high, memory_order_relaxed);
    uint64_t warm = atomic_load_explicit(&store->warm, memory_order_relaxed);
    uint64_t ahead = store_ahead(high);

    if (atomic_load_explicit(&store->cold, memory_order_relaxed)) {
        return 0;
    }
    uint64_t goal = ahead < store->arena.size - high ? high + ahead : store->arena.size;
    if (warm < high) {
        warm = high; /* memory below it was touched by its users, or is about to be */
    }
    if (warm >= goal) {
        return 0;
    }
    uint64_t bytes = goal - warm < max_bytes ? goal - warm : max_bytes;
    if (tqi_store_arena_populate(&store->arena, warm, bytes) != TQ_OK) {
        atomic_store_explicit(&store->cold, true, memory_order_relaxed);
        return 0;
    }
    atomic_store_explicit(&store->warm, warm + bytes, memory_order_relaxed);
    return goal - warm - bytes;
}

/* Gives back up to `want` bytes of the free end, starting from the top; returns how many. */
static uint64_t store_give_end(tqi_store *store, uint64_t want)
{
    uint64_t top = tqi_store_tlsf_top(&store->tlsf);
    uint64_t high = atomic_load_explicit(&store->high, memory_order_relaxed);
    uint64_t warm = atomic_load_explicit(&store->warm, memory_order_relaxed);
    uint64_t end = warm > high ? warm : high;

    end = end < store->arena.size ? end : store->arena.size;
    if (end <= top) {
        return 0;
    }
    uint64_t from = end - top > want ? (end - want) / TQI_STORE_HUGE * TQI_STORE_HUGE : top;
    from = from < top ? top : from;
    if (tqi_store_arena_punch(&store->arena, from, end - from) != TQ_OK) {
        return 0;
    }
    atomic_store_explicit(&store->high, top, memory_order_relaxed);
    atomic_store_explicit(&store->warm, from, memory_order_relaxed);
    atomic_store_explicit(&store->cold, false, memory_order_relaxed);
    return end - from;
}

/* The same for a free chunk. A reader of punched memory once had a block there, whose slot was emptied, with the fence,
 * when it was freed. */
static uint64_t store_give_chunk(tqi_store *store, tqi_store_chunk *chunk, uint64_t want)
{
    uint64_t end = chunk->offset + chunk->warm;
    uint64_t from = chunk->warm > want ? (end - want) / TQI_STORE_HUGE * TQI_STORE_HUGE : chunk->offset;

    from = from < chunk->offset ? chunk->offset : from;
    if (tqi_store_arena_punch(&store->arena, from, end - from) != TQ_OK) {
        return 0;
    }
    chunk->warm = from - chunk->offset;
    return end - from;
}

uint64_t tqi_store_give_back(tqi_store *store, uint64_t keep, uint64_t max_bytes)
{
    uint64_t resident = tqi_store_arena_resident(&store->arena);

    if (resident <= keep) {
        return 0;
    }
    uint64_t want = resident - keep < max_bytes ? resident - keep : max_bytes;
    uint64_t given = store_give_end(store, want);
    for (uint32_t i = store->tlsf.chunks[store->tlsf.top].before; i != TQI_STORE_TLSF_NONE && given < want;
         i = store->tlsf.chunks[i].before) {
        tqi_store_chunk *chunk = &store->tlsf.chunks[i];
        if (!chunk->used && chunk->warm > 0) {
            given += store_give_chunk(store, chunk, want - given);
        }
    }
    return given;
}

uint64_t tqi_store_trim(tqi_store *store)
{
    uint64_t before = tqi_store_arena_resident(&store->arena);
    uint64_t top = tqi_store_tlsf_top(&store->tlsf);

    tqi_store_give_back(store, 0, UINT64_MAX);
    /* Warming may populate pages beyond what it has reported. */
    tqi_store_arena_punch(&store->arena, top, store->arena.size - top);
    atomic_store_explicit(&store->high, top, memory_order_relaxed);
    atomic_store_explicit(&store->warm, top, memory_order_relaxed);
    atomic_store_explicit(&store->cold, false, memory_order_relaxed);
    uint64_t after = tqi_store_arena_resident(&store->arena);
    return before > after ? before - after : 0;
}

bool tqi_store_check_for_tests(const tqi_store *store)
{
    uint64_t used, live = 0, taken = 0, held_dead = 0;
    store_block *block, *next;

    HASH_ITER (hh, store->blocks, block, next) {
        const tqi_store_chunk *chunk = &store->tlsf.chunks[block->chunk];
        taken += chunk->size;
        live += block->dead ? 0 : 1;
        held_dead += block->dead ? chunk->size : 0;
        if (!chunk->used || chunk->offset != block->offset || chunk->size < block->size) {
            return false;
        }
        uint64_t word = atomic_load_explicit(&store->slots.words[block->slot], memory_order_relaxed);
        if (!block->dead && word != block->id) {
            return false;
        }
    }
    return tqi_store_tlsf_check(&store->tlsf, &used) && used == store->used && taken == used &&
           held_dead == store->held_dead && live == store->n_blocks &&
           live == store->slots.fresh - store->slots.n_spares;
}
