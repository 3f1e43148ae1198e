/*
 * arena.h - the two memfds of a store: the arena that holds the bytes, and the slot table that says whose they are.
 */
#ifndef TQI_STORE_ARENA_H
#define TQI_STORE_ARENA_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <tq/errors.h>

/* A sparse memfd, sealed against resizing and mapped once.  Not inherited by a forked child. */
typedef struct tqi_arena {
    int fd;
    uint8_t *base;
    uint64_t size;
    uint64_t page;
} tqi_arena;

/* `size` is rounded up to a page. */
int tqi_arena_init(tqi_arena *arena, uint64_t size, tq_error *err);
void tqi_arena_fini(tqi_arena *arena);
/* Makes the pages of [offset, offset + size) be there without changing a byte of them: safe while others write.
 * TQ_OK, or TQ_ENOMEM when the system has none left. */
int tqi_arena_populate(tqi_arena *arena, uint64_t offset, uint64_t size);
/* Gives back the whole pages inside [offset, offset + size); their bytes are zero afterwards. */
int tqi_arena_punch(tqi_arena *arena, uint64_t offset, uint64_t size);
/* Bytes of memory the arena takes now. */
uint64_t tqi_arena_resident(const tqi_arena *arena);

/* Slot -> block id; only the owner can write it. */
typedef struct tqi_slots {
    int fd; /* read-only, to hand out */
    _Atomic uint64_t *words;
    uint32_t count;
    uint32_t fresh;   /* slots from here on were never used */
    uint32_t *spares; /* used before and free now */
    size_t spares_capacity;
    uint32_t n_spares;
} tqi_slots;

int tqi_slots_init(tqi_slots *slots, uint32_t count, tq_error *err);
void tqi_slots_fini(tqi_slots *slots);
/* A free slot, set to id.  TQ_OK, TQ_EFULL or TQ_ENOMEM. */
int tqi_slots_take(tqi_slots *slots, uint64_t id, uint32_t *slot);
/* Empties a slot.  When it returns, whoever sees a byte written to the block's memory from now on also sees the slot
 * empty.  Cannot fail. */
void tqi_slots_give(tqi_slots *slots, uint32_t slot);

#endif
