/*
 * guard.c - see guard.h.
 */
#include "oracle/guard.h"

#include "oracle/objects.h"
#include "store/arena.h"
#include "store/store.h"
#include "store/tlsf.h"
#include "unit/unit_state.h"

/* The pattern of free bytes; memory that was never used, or that was given back to the system, is zero. */
#define GUARD_FREE 0xdbu

typedef struct guard_block {
    uint64_t id; /* 0: none */
    uint64_t offset, size;
    bool published;
    uint64_t used; /* of the bytes, from then on: a client may have reserved more */
    uint64_t hash; /* of these */
} guard_block;

/* An arena, in the process that owns it. */
typedef struct guard_arena {
    uint64_t pid;
    const void *store;
    const tqi_store_tlsf *tlsf;
    uint8_t *base;
    uint64_t size;
    guard_block *blocks;
    uint32_t n_blocks, blocks_capacity;
    ledger_map by_id, by_offset; /* place plus 1 */
    struct guard_arena *next;
} guard_arena;

static guard_arena *arenas;
bool guard_trusts = true;

static uint64_t guard_pid(void)
{
    return sim_self != NULL ? sim_self->pid : 0;
}

static void arena_free(guard_arena *arena)
{
    ledger_map_fini(&arena->by_id);
    ledger_map_fini(&arena->by_offset);
    sim_free(arena->blocks);
    sim_free(arena);
}

void guard_end(void)
{
    while (arenas != NULL) {
        guard_arena *next = arenas->next;
        arena_free(arenas);
        arenas = next;
    }
}

/* Of processes that are gone. */
static void guard_bury(void)
{
    for (guard_arena **at = &arenas; *at != NULL;) {
        guard_arena *arena = *at;
        if (arena->pid != 0 && sim_process_of(arena->pid) == NULL) {
            *at = arena->next;
            arena_free(arena);
        } else {
            at = &arena->next;
        }
    }
}

static guard_arena *arena_of(const void *store, const tqi_store_tlsf *tlsf, uint64_t pid)
{
    guard_arena *arena = arenas;

    while (arena != NULL &&
           (arena->pid != pid || (store != NULL && arena->store != store) || (tlsf != NULL && arena->tlsf != tlsf))) {
        arena = arena->next;
    }
    return arena;
}

/* --- bytes ------------------------------------------------------------------------- */

static void arena_poison(const guard_arena *arena, uint64_t offset, uint64_t size)
{
    memset(arena->base + offset, GUARD_FREE, size);
}

/* Nobody has written where nobody may. */
static void arena_check_free(const guard_arena *arena, uint64_t offset, uint64_t size, const char *when)
{
    const uint64_t free_word = UINT64_C(0x0101010101010101) * GUARD_FREE;
    uint64_t i = offset, end = offset + size, word;

    while (i < end) {
        if (end - i >= sizeof(word)) {
            memcpy(&word, arena->base + i, sizeof(word));
            if (word == 0 || word == free_word) {
                i += sizeof(word);
                continue;
            }
        }
        uint8_t byte = arena->base[i++];
        sim_check(byte == GUARD_FREE || byte == 0, "no torn memory",
                  "%s: byte %llu of an arena was written (%02x) while nobody had it", when, (unsigned long long)i - 1,
                  byte);
    }
}

static void block_check(const guard_arena *arena, const guard_block *block, const char *when)
{
    sim_check(!block->published || block->hash == ledger_hash(arena->base + block->offset, block->used),
              "no torn memory", "%s: the bytes of block %llu have changed since it was published", when,
              (unsigned long long)block->id);
}

void guard_look(void)
{
    guard_bury();
    for (const guard_arena *arena = arenas; arena != NULL; arena = arena->next) {
        for (uint32_t i = 0; i < arena->n_blocks; i++) {
            if (arena->blocks[i].id != 0) {
                block_check(arena, &arena->blocks[i], "later");
            }
        }
    }
}

void guard_each(const void *store, void (*fn)(uint64_t id, uint64_t size, bool published, void *arg), void *arg)
{
    for (const guard_arena *arena = arenas; arena != NULL; arena = arena->next) {
        for (uint32_t i = 0; arena->store == store && i < arena->n_blocks; i++) {
            if (arena->blocks[i].id != 0) {
                fn(arena->blocks[i].id, arena->blocks[i].size, arena->blocks[i].published, arg);
            }
        }
    }
}

void guard_check_empty(const void *store)
{
    for (const guard_arena *arena = arenas; arena != NULL; arena = arena->next) {
        if (arena->store == store && (arena->pid == 0 || sim_process_of(arena->pid) != NULL)) {
            for (uint32_t i = 0; i < arena->n_blocks; i++) {
                sim_check(arena->blocks[i].id == 0, "no leak", "block %llu of %llu bytes is left in a unit",
                          (unsigned long long)arena->blocks[i].id, (unsigned long long)arena->blocks[i].size);
            }
            arena_check_free(arena, 0, arena->size, "at rest");
        }
    }
}

/* --- what the store does -------------------------------------------------------------- */

WITNESS_WRAP(int, tqi_store_arena_init, tqi_store_arena *record, uint64_t size, tq_error *err)
{
    int rc = __real_tqi_store_arena_init(record, size, err);

    if (rc == TQ_OK) {
        guard_bury();
        guard_arena *arena = sim_alloc(sizeof(*arena));
        arena->pid = guard_pid();
        arena->store = record; /* its first member */
        arena->base = record->base;
        arena->size = record->size;
        arena->next = arenas;
        arenas = arena;
    }
    return rc;
}

WITNESS_WRAP(void, tqi_store_arena_fini, tqi_store_arena *record)
{
    uint64_t pid = guard_pid();

    for (guard_arena **at = &arenas; *at != NULL; at = &(*at)->next) {
        guard_arena *arena = *at;
        if (arena->pid == pid && arena->store == record) {
            for (uint32_t i = 0; i < arena->n_blocks; i++) {
                if (arena->blocks[i].id != 0) {
                    block_check(arena, &arena->blocks[i], "at the end of a store");
                }
            }
            *at = arena->next;
            arena_free(arena);
            break;
        }
    }
    __real_tqi_store_arena_fini(record);
}

/* It is made right after its arena. */
WITNESS_WRAP(int, tqi_store_tlsf_init, tqi_store_tlsf *tlsf, uint64_t capacity)
{
    guard_arena *arena = arena_of(NULL, NULL, guard_pid());

    if (arena != NULL && arena->tlsf == NULL) {
        arena->tlsf = tlsf;
    }
    return __real_tqi_store_tlsf_init(tlsf, capacity);
}

static void arena_add(guard_arena *arena, const tqi_store_place *place)
{
    uint32_t at = 0;

    sim_check(ledger_map_get(&arena->by_id, place->id) == 0, "no torn memory", "a unit has block %llu twice",
              (unsigned long long)place->id);
    sim_check(place->offset + place->size <= arena->size && ledger_map_get(&arena->by_offset, place->offset) == 0,
              "no torn memory", "a unit has two blocks at %llu", (unsigned long long)place->offset);
    arena_check_free(arena, place->offset, place->size, "reserved");
    while (at < arena->n_blocks && arena->blocks[at].id != 0) {
        at++;
    }
    LEDGER_GROW(arena->blocks, arena->blocks_capacity, at + 1);
    arena->n_blocks = at == arena->n_blocks ? at + 1 : arena->n_blocks;
    arena->blocks[at] = (guard_block){.id = place->id, .offset = place->offset, .size = place->size};
    ledger_map_set(&arena->by_id, place->id, at + 1);
    ledger_map_set(&arena->by_offset, place->offset, at + 1);
}

WITNESS_WRAP(int, tqi_store_reserve, tqi_store *store, tqi_store_place *places, size_t n, bool adds_samples,
             tq_error *err)
{
    int rc = __real_tqi_store_reserve(store, places, n, adds_samples, err);
    guard_arena *arena = arena_of(store, NULL, guard_pid());

    for (size_t i = 0; arena != NULL && rc == TQ_OK && i < n; i++) {
        arena_add(arena, &places[i]);
    }
    return rc;
}

/* A unit that closes frees everything, and nothing is written there any more: whoever borrows it keeps the bytes. */
static bool guard_closes(const guard_arena *arena)
{
    const objects_item *item = objects_next(NULL);

    while (item != NULL && (item->kind != OBJECTS_UNIT || item->pid != arena->pid)) {
        item = objects_next(item);
    }
    return item == NULL;
}

WITNESS_WRAP(void, tqi_store_tlsf_give, tqi_store_tlsf *tlsf, uint32_t chunk)
{
    guard_arena *arena = arena_of(NULL, tlsf, guard_pid());
    uint64_t offset = tlsf->chunks[chunk].offset, size = tlsf->chunks[chunk].size;

    if (arena != NULL) {
        uint32_t found = ledger_map_get(&arena->by_offset, offset);
        if (found != 0) {
            guard_block *block = &arena->blocks[found - 1];
            block_check(arena, block, "freed");
            ledger_map_drop(&arena->by_offset, offset);
            ledger_map_drop(&arena->by_id, block->id);
            *block = (guard_block){0};
        }
        if (!guard_closes(arena)) {
            arena_poison(arena, offset, size);
        }
    }
    __real_tqi_store_tlsf_give(tlsf, chunk);
}

/* --- what the controller does ------------------------------------------------------------ */

/* The block in the unit that the owner is; NULL: it is gone, or another run of it. */
static guard_block *guard_find(const char *owner, uint64_t incarnation, uint64_t id, guard_arena **in)
{
    for (const objects_item *item = objects_next(NULL); item != NULL; item = objects_next(item)) {
        const tqi_unit *unit = item->object;
        if (item->kind != OBJECTS_UNIT || unit->incarnation != incarnation || strcmp(unit->name, owner) != 0) {
            continue;
        }
        *in = arena_of(unit->store, NULL, item->pid);
        uint32_t found = *in != NULL ? ledger_map_get(&(*in)->by_id, id) : 0;
        sim_check(found != 0 || !guard_trusts, "none lost", "block %llu was published, but '%s' does not have it",
                  (unsigned long long)id, owner);
        return found != 0 ? &(*in)->blocks[found - 1] : NULL;
    }
    return NULL;
}

void guard_published(const tqi_table_batch_block *from)
{
    guard_arena *arena = NULL;
    guard_block *block = guard_find(from->owner, from->owner_incarnation, from->id, &arena);
    uint64_t offset;

    if (block == NULL || !guard_trusts) {
        return;
    }
    sim_check(!block->published && from->size <= block->size && from->locator_size == TQI_STORE_LOCATOR,
              "no torn memory", "block %llu of %llu bytes was published as one of %llu", (unsigned long long)from->id,
              (unsigned long long)block->size, (unsigned long long)from->size);
    (void)tqi_store_locator_read(from->locator, &offset);
    sim_check(offset == block->offset, "no torn memory", "block %llu was published at %llu, it is at %llu",
              (unsigned long long)from->id, (unsigned long long)offset, (unsigned long long)block->offset);
    block->published = true;
    block->used = from->size;
    block->hash = ledger_hash(arena->base + block->offset, block->used);
}

void guard_moved(const guard_cell *from, const guard_cell *to)
{
    guard_arena *old = NULL, *new = NULL;
    const guard_block *source = guard_find(from->owner, from->incarnation, from->id, &old);
    const guard_block *copy = guard_find(to->owner, to->incarnation, to->id, &new);

    sim_check(
        source == NULL || copy == NULL || !guard_trusts ||
            memcmp(old->base + source->offset + from->offset, new->base + copy->offset + to->offset, from->bytes) == 0,
        "no torn memory", "%llu bytes of block %llu are others in block %llu, to which they were moved",
        (unsigned long long)from->bytes, (unsigned long long)from->id, (unsigned long long)to->id);
}
