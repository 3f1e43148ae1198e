/*
 * arena.h - the two memfds of a store: the arena that holds the bytes, and the slot table that says which block they
 * belong to.
 */
#ifndef TQI_STORE_ARENA_H
#define TQI_STORE_ARENA_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <tq/errors.h>

/* Why memory cannot be shared, as text; "" when it can. */
#define TQI_STORE_WHY 160

/*
 * A sparse memfd, sealed against resizing and mapped once. Not inherited by a forked child. If the system refuses
 * memfds (a sandbox, an old kernel), the memory is private to this process and fd is -1: all data then goes over the
 * socket. A file in /dev/shm would not do: it cannot be sealed, so anyone who has it could truncate it under its
 * readers, and if /dev/shm is small, the first touch of a page kills the process.
 */
typedef struct tqi_store_arena {
    int fd;
    uint8_t *base;
    uint64_t size;
    uint64_t page;
    char why[TQI_STORE_WHY];
} tqi_store_arena;

/* `size` is rounded up to a page. */
int tqi_store_arena_init(tqi_store_arena *arena, uint64_t size, tq_error *err);
/* Makes a sealable memfd: returns its descriptor, -1 with `why` if the system has none, -2 with err on failure. */
int tqi_store_arena_memfd(const char *name, uint64_t size, char why[TQI_STORE_WHY], tq_error *err);
void tqi_store_arena_fini(tqi_store_arena *arena);
/* Populates the pages of [offset, offset + size) without changing a byte: safe while others write. TQ_OK, or TQ_ENOMEM
 * if the system has none left. */
int tqi_store_arena_populate(tqi_store_arena *arena, uint64_t offset, uint64_t size);
/* Gives back the whole pages inside [offset, offset + size); their bytes are zero afterwards. */
int tqi_store_arena_punch(tqi_store_arena *arena, uint64_t offset, uint64_t size);
/* Bytes of memory the arena takes now. */
uint64_t tqi_store_arena_resident(const tqi_store_arena *arena);

/* Slot -> block id; only the owner can write it. */
typedef struct tqi_store_slot_table {
    int fd; /* to hand out: does not allow writing; -1: memory private to this process */
    _Atomic uint64_t *words;
    uint32_t count;
    uint32_t fresh;   /* slots from here on were never used */
    uint32_t *spares; /* used before and free now */
    size_t spares_capacity;
    uint32_t n_spares;
} tqi_store_slot_table;

/* `why`: like tqi_store_arena.why; if it is already set, the table must not be shared. */
int tqi_store_slots_init(tqi_store_slot_table *slots, uint32_t count, char why[TQI_STORE_WHY], tq_error *err);
void tqi_store_slots_fini(tqi_store_slot_table *slots);
/* A free slot, set to id. TQ_OK, TQ_EFULL or TQ_ENOMEM. */
int tqi_store_slots_take(tqi_store_slot_table *slots, uint64_t id, uint32_t *slot);
/* Empties a slot. After it returns, any reader that sees a byte written to the block's memory from now on also sees the
 * slot empty. Cannot fail. */
void tqi_store_slots_give(tqi_store_slot_table *slots, uint32_t slot);

#endif
