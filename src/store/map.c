/*
 * map.c - a reader's or writer's mapping of a store in another process, and the reader's half of the seqlock.
 *
 * Everything that comes from messages (slot, offset, size) is checked against the mapping: a wrong locator must not
 * make a client read outside of it.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "base/pointer.h"
#include "store/fence.h"
#include "store/huge.h"
#include "store/store.h"

void tqi_store_locator_make(uint8_t locator[TQI_STORE_LOCATOR], uint32_t slot, uint64_t offset)
{
    for (unsigned k = 0; k < 4; k++) {
        locator[k] = (uint8_t)(slot >> (8 * k));
    }
    for (unsigned k = 0; k < 8; k++) {
        locator[4 + k] = (uint8_t)(offset >> (8 * k));
    }
}

uint32_t tqi_store_locator_read(const uint8_t locator[TQI_STORE_LOCATOR], uint64_t *offset)
{
    uint32_t slot = 0;

    *offset = 0;
    for (unsigned k = 0; k < 4; k++) {
        slot |= (uint32_t)locator[k] << (8 * k);
    }
    for (unsigned k = 0; k < 8; k++) {
        *offset |= (uint64_t)locator[4 + k] << (8 * k);
    }
    return slot;
}

/* The file must be as large as claimed: reading beyond its end would raise SIGBUS. */
static int map_check(int fd, uint64_t bytes, const char *what, tq_error *err)
{
    struct stat st;

    if (bytes == 0 || bytes > SIZE_MAX / 2) {
        return tqi_error_set(err, TQ_EPROTO, "%s of %llu bytes", what, (unsigned long long)bytes);
    }
    if (fstat(fd, &st) != 0) {
        return tqi_error_errno(err, errno, what);
    }
    if (st.st_size < 0 || (uint64_t)st.st_size < bytes) {
        return tqi_error_set(err, TQ_EPROTO, "%s has %lld bytes, %llu were announced", what, (long long)st.st_size,
                             (unsigned long long)bytes);
    }
    return TQ_OK;
}

int tqi_store_map_init(tqi_store_map *map, int arena_fd, int slots_fd, uint64_t arena_bytes, uint64_t slots,
                       tq_error *err)
{
    void *arena = MAP_FAILED, *words = MAP_FAILED;
    int rc;

    memset(map, 0, sizeof(*map));
    map->arena_fd = -1;
    if (slots > UINT32_MAX) {
        return tqi_error_set(err, TQ_EPROTO, "a slot table of %llu slots", (unsigned long long)slots);
    }
    rc = map_check(arena_fd, arena_bytes, "arena of a storage unit", err);
    if (rc == TQ_OK) {
        rc = map_check(slots_fd, slots * sizeof(uint64_t), "slot table of a storage unit", err);
    }
    if (rc != TQ_OK) {
        return rc;
    }
    arena = tqi_store_huge_map(arena_bytes, PROT_READ | PROT_WRITE, arena_fd);
    if (arena == MAP_FAILED) {
        rc = tqi_error_errno(err, errno, "mapping the arena of a storage unit");
        goto fail;
    }
    /* A forked child must not be able to write after the unit has seen its parent exit. */
    if (madvise(arena, arena_bytes, MADV_DONTFORK) != 0) {
        rc = tqi_error_errno(err, errno, "MADV_DONTFORK of a storage unit's arena");
        goto fail;
    }
    words = mmap(NULL, slots * sizeof(uint64_t), PROT_READ, MAP_SHARED, slots_fd, 0);
    if (words == MAP_FAILED) {
        rc = tqi_error_errno(err, errno, "mapping the slot table of a storage unit");
        goto fail;
    }
    map->arena = arena;
    map->arena_bytes = arena_bytes;
    map->slots = words;
    map->n_slots = slots;
    /* Without it, blocks are copied, not mapped. */
    map->arena_fd = fcntl(arena_fd, F_DUPFD_CLOEXEC, 0);
    return TQ_OK;

fail:
    if (arena != MAP_FAILED) {
        munmap(arena, arena_bytes);
    }
    return rc;
}

/* The part that a child inherits, too. */
static void map_drop_rest(tqi_store_map *map)
{
    if (map->arena_fd >= 0) {
        close(map->arena_fd);
    }
    if (map->slots != NULL) {
        munmap(tqi_unconst(map->slots), map->n_slots * sizeof(uint64_t));
    }
}

void tqi_store_map_fini(tqi_store_map *map)
{
    if (map->arena != NULL) {
        munmap(map->arena, map->arena_bytes);
    }
    map_drop_rest(map);
    memset(map, 0, sizeof(*map));
    map->arena_fd = -1;
}

void tqi_store_map_forked(tqi_store_map *map)
{
    map_drop_rest(map);
    memset(map, 0, sizeof(*map));
    map->arena_fd = -1;
}

void tqi_store_map_warm(const tqi_store_map *map, const uint8_t *at, size_t size)
{
    const uint8_t *end = at + size;

    while (at < end) {
        uint64_t window = (uint64_t)(at - map->arena) / TQI_STORE_HUGE * TQI_STORE_HUGE;
        if (window + TQI_STORE_HUGE > map->arena_bytes) {
            return;
        }
        /* Reading a byte of our own makes a page there. */
        (void)*(const volatile uint8_t *)at;
        if (!tqi_store_huge_collapse(map->arena + window)) {
            return;
        }
        at = map->arena + window + TQI_STORE_HUGE;
    }
}

uint8_t *tqi_store_map_borrow(const tqi_store_map *map, uint64_t offset, uint64_t size, void **base, size_t *bytes)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

    if (map->arena_fd < 0 || size == 0 || offset > map->arena_bytes || size > map->arena_bytes - offset) {
        return NULL;
    }
    uint64_t begin = offset / page * page;
    uint64_t length = (offset + size + page - 1) / page * page - begin;
    uint8_t *memory = tqi_store_huge_borrow(length, map->arena_fd, begin);
    if (memory == MAP_FAILED) {
        return NULL;
    }
    *base = memory;
    *bytes = length;
    return memory + (offset - begin);
}

const _Atomic uint64_t *tqi_store_map_look(const tqi_store_map *map, uint64_t id, uint32_t slot, uint64_t offset,
                                           uint64_t size, uint8_t **at)
{
    *at = NULL;
    if (slot >= map->n_slots || offset > map->arena_bytes || size > map->arena_bytes - offset || id == 0 ||
        atomic_load_explicit(&map->slots[slot], memory_order_relaxed) != id) {
        return NULL;
    }
    *at = map->arena + offset;
    return &map->slots[slot];
}

bool tqi_store_map_read(const tqi_store_map *map, uint64_t id, uint32_t slot, uint64_t offset, void *dest, size_t size,
                        bool streaming)
{
    if (slot >= map->n_slots || offset > map->arena_bytes || size > map->arena_bytes - offset) {
        return false;
    }
    /* Acquire: the copy does not begin before the id was seen. */
    if (id == 0 || atomic_load_explicit(&map->slots[slot], memory_order_acquire) != id) {
        return false;
    }
    tqi_store_racy_copy(dest, map->arena + offset, size, streaming);
    /* Acquire fence: if the copy saw a byte written after the block was freed, the load below sees the slot emptied
     * before (tqi_store_slots_give has the release fence). Ids are never reused, so an equal id means the same block. */
    TQI_FENCE(memory_order_acquire);
    return atomic_load_explicit(&map->slots[slot], memory_order_relaxed) == id;
}
