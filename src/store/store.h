/*
 * store.h - what a storage unit keeps: blocks of bytes in one arena of shared memory.
 *
 * A store owns two memfds: the arena (its quota's size, sparse, sealed against resizing, mapped once) and the slot
 * table (slot -> block id, ids never reused, 0 = free), which clients map read-only. It knows nothing of sessions,
 * sockets or tensors. One thread owns a store; readers and writers in other processes touch only the two memfds,
 * by the rules below.
 *
 * Reading from another process (seqlock of one word): load-acquire slots[slot], compare with the block id; copy;
 * acquire fence; load again; equal both times means that the bytes are the block's. The store therefore sets the slot
 * to 0, then a release fence, before it reuses or punches the memory.
 */
#ifndef TQI_STORE_STORE_H
#define TQI_STORE_STORE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <tq/errors.h>

typedef struct tqi_store tqi_store;

typedef struct tqi_store_options {
    uint64_t capacity;     /* bytes, rounded up to a page */
    uint32_t max_blocks;   /* slots; 0: capacity / 4096, between 4096 and 1 << 22 */
    uint32_t join_percent; /* blocks that add samples may fill this much of the capacity; 0: 90 */
} tqi_store_options;

int tqi_store_alloc(const tqi_store_options *options, tqi_store **out, tq_error *err);
void tqi_store_free(tqi_store *store);

/* Why this system does not let the store share its memory with other processes, as text; NULL if it does. */
const char *tqi_store_unshared(const tqi_store *store);
int tqi_store_arena_fd(const tqi_store *store); /* -1 when it is not shared */
int tqi_store_slots_fd(const tqi_store *store); /* to hand out: does not allow writing; -1 if not shared */
uint64_t tqi_store_capacity(const tqi_store *store);
uint64_t tqi_store_used(const tqi_store *store); /* bytes of blocks, rounding included */
/* Bytes that blocks of a kind may fill: all, or less if they add samples. */
uint64_t tqi_store_limit(const tqi_store *store, bool adds_samples);
/* How many of the used bytes belong to blocks that were freed while held. */
uint64_t tqi_store_held_dead(const tqi_store *store);
/* Bytes of the longest free piece. Walks all pieces. */
uint64_t tqi_store_longest(const tqi_store *store);
uint64_t tqi_store_blocks(const tqi_store *store);
uint32_t tqi_store_slots(const tqi_store *store);

typedef struct tqi_store_place {
    uint64_t id; /* block id, not 0 */
    uint64_t size;
    uint64_t offset; /* out: in the arena, 64-byte aligned */
    uint32_t slot;   /* out */
} tqi_store_place;
/* How others name a location: the slot and the offset, little-endian. */
#define TQI_STORE_LOCATOR 12
void tqi_store_locator_make(uint8_t locator[TQI_STORE_LOCATOR], uint32_t slot, uint64_t offset);
/* The slot. */
uint32_t tqi_store_locator_read(const uint8_t locator[TQI_STORE_LOCATOR], uint64_t *offset);
/* Reserves room for all blocks or none. TQ_EFULL if they do not fit now; TQ_EINVAL if they can never fit, or for a
 * duplicate id. The memory is readable under its id from now on: a block's bytes are undefined until it is published,
 * and nobody has its locator before. */
int tqi_store_reserve(tqi_store *store, tqi_store_place *places, size_t n, bool adds_samples, tq_error *err);
/* Whether these would fit if all held blocks were freed. */
bool tqi_store_fits(const tqi_store *store, const uint64_t *sizes, size_t n, bool adds_samples);
/* Frees a block; false if it does not exist (frees are idempotent). A held one is freed when its last hold is
 * released. */
bool tqi_store_free_block(tqi_store *store, uint64_t id);
/* Address of a block and its size (may be NULL), or NULL if it does not exist or has another slot. */
uint8_t *tqi_store_find(tqi_store *store, uint64_t id, uint32_t slot, uint64_t *size);
/* The same of a block in whatever slot. */
uint8_t *tqi_store_block(tqi_store *store, uint64_t id, uint64_t *size);
/* A word per block for the owner's use; NULL at first, and if the block does not exist. */
void tqi_store_set_user(tqi_store *store, uint64_t id, void *user);
void *tqi_store_user(const tqi_store *store, uint64_t id);
/* Calls fn for each block; fn may set the block's user word and change nothing else. */
void tqi_store_each(tqi_store *store, void (*fn)(uint64_t id, void *user, void *arg), void *arg);
/* Whether a block exists. */
bool tqi_store_has(const tqi_store *store, uint64_t id);
/* The block in a slot (0: none), and the number of slots that ever had one: to walk all blocks in steps. */
uint64_t tqi_store_slot_id(const tqi_store *store, uint32_t slot);
uint32_t tqi_store_slots_used(const tqi_store *store);
/* Keeps the memory of a block that is being sent from being reused. */
void tqi_store_ref(tqi_store *store, uint64_t id);
void tqi_store_unref(tqi_store *store, uint64_t id);
/* A hold that may last: a client reads the block in place. */
void tqi_store_pin(tqi_store *store, uint64_t id);
/* Returns whether that was the last one of a block that still exists. */
bool tqi_store_unpin(tqi_store *store, uint64_t id);
bool tqi_store_pinned(const tqi_store *store, uint64_t id);
/* Frees everything (a new epoch); held blocks are freed when released. */
void tqi_store_drop_all(tqi_store *store);
/* Off the hot path: populates the next bytes ahead of the high-water mark; returns the bytes to do next time (0 =
 * enough is warm; with max_bytes 0, does nothing). Safe to call from one helper thread at a time while the owner
 * works: it touches only page tables. */
uint64_t tqi_store_warm(tqi_store *store, uint64_t max_bytes);
/* Gives all idle pages back to the system (hole punching); returns bytes given back. */
uint64_t tqi_store_trim(tqi_store *store);
/* Gives idle pages back, highest addresses first, until at most `keep` bytes are resident, but not much more than
 * max_bytes per call. Returns the bytes that it walked; 0: there is nothing to give back. Must not run while another
 * thread is warming. */
uint64_t tqi_store_give_back(tqi_store *store, uint64_t keep, uint64_t max_bytes);
/* Bytes that a store should keep resident when `used` are in use: more than that, to be warm ahead. */
uint64_t tqi_store_keeps(uint64_t used);
/* Bytes of memory that the arena takes from the system. */
uint64_t tqi_store_resident_for_tests(const tqi_store *store);
/* Checks the allocator's and the store's books against each other. */
bool tqi_store_check_for_tests(const tqi_store *store);

/* Name of the running machine, to find out whether another process is on the same one; "" if unknown. */
#define TQI_STORE_MACHINE 64
void tqi_store_machine(char out[TQI_STORE_MACHINE]);

/* ---- the other side: a reader's or writer's mapping of a store in another process ---- */
typedef struct tqi_store_map {
    uint8_t *arena;
    uint64_t arena_bytes;
    const _Atomic uint64_t *slots;
    uint64_t n_slots;
    int arena_fd; /* for borrowing; -1: not possible */
} tqi_store_map;
/* Maps both (arena read-write, slots read-only); MADV_DONTFORK on the arena. The caller keeps the descriptors. */
int tqi_store_map_init(tqi_store_map *map, int arena_fd, int slots_fd, uint64_t arena_bytes, uint64_t slots,
                       tq_error *err);
void tqi_store_map_fini(tqi_store_map *map);
/* Borrows [offset, offset + size) of the arena, as a private mapping: it shows the present bytes, and writes to it are
 * visible to nobody else. The caller must make sure that the owner does not reuse the bytes, and must unmap [*base,
 * *base + *bytes). NULL: out of bounds, or refused by the system. */
uint8_t *tqi_store_map_borrow(const tqi_store_map *map, uint64_t offset, uint64_t size, void **base, size_t *bytes);
/* In a forked child: releases what was inherited. The arena was not: its addresses may be in use for something else by
 * now. */
void tqi_store_map_forked(tqi_store_map *map);
/* Called before copying many bytes to `at` in the arena, which belong to the caller: turns the memory there into large
 * pages, if the system can. Only saves time. Any thread. */
void tqi_store_map_warm(const tqi_store_map *map, const uint8_t *at, size_t size);
/* Where these bytes are, if the slot holds the id; NULL otherwise, or if out of bounds. They belong to the block as
 * long as the returned word holds its id, see above; nothing else is guaranteed. */
const _Atomic uint64_t *tqi_store_map_look(const tqi_store_map *map, uint64_t id, uint32_t slot, uint64_t offset,
                                           uint64_t size, uint8_t **at);
/* Copies size bytes from `offset` (in the arena) if slot holds id before and after; false: the block is gone. Checks
 * bounds. `streaming`: bypasses the caches (stream.h). */
bool tqi_store_map_read(const tqi_store_map *map, uint64_t id, uint32_t slot, uint64_t offset, void *dest, size_t size,
                        bool streaming);

#endif
