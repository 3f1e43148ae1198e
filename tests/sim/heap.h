/*
 * heap.h - the heaps under memory.c: one per simulated process and one of the simulator. heap.c has its own allocator;
 * under AddressSanitizer heap_asan.c keeps a list of what each process got from the sanitizer's.
 */
#ifndef TQ_SIM_HEAP_H
#define TQ_SIM_HEAP_H

#include "sim.h"

#if defined(__SANITIZE_ADDRESS__)
#define SIM_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define SIM_ASAN 1
#endif
#endif

#define HEAP_CLASSES 256

struct sim_heap {
    uint8_t *base; /* of its addresses; NULL: not mapped yet */
    uint8_t *low;  /* what was ever handed out since the start of the process is in [low, high) */
    uint8_t *high;
    uint8_t *end;
    uint8_t *big, *big_high; /* large blocks are in [big, big_high), behind `end` */
    uint64_t live_bytes, live_count;
    uint32_t free[HEAP_CLASSES]; /* the first free block of each size: its offset in units of 16 bytes, plus 1 */
    /* Allocations until one may fail; 0: none may. */
    uint64_t until_failure;
    uint64_t failing; /* so many more fail in a row */
    sim_chance chance;
    const char *name;
    struct heap_entry *entries; /* heap_asan.c: what is live */
};
typedef struct sim_heap sim_heap;

/* The heap from which malloc serves now. */
extern sim_heap *heap_current;
/* That of the simulator: what sim_alloc gives, and what is allocated outside of any process. */
extern sim_heap heap_of_simulator;

/* Makes the heap of that place (SIM_PROCESSES places) empty. */
sim_heap *heap_open(uint32_t place, const char *name);
/* Everything in it is gone. */
void heap_close(sim_heap *heap);
/* Memory whose bytes are poison, or zero; `align` is a power of two. NULL: there is no room. `caller` is kept for
 * heap_report. */
void *heap_take(sim_heap *heap, size_t size, size_t align, bool zero, const void *caller);
/* Whether the address was given by heap_take, of any heap; those of the C library go back to it. */
bool heap_owns(const void *memory);
/* Finds fault with memory that is not live, and with that of another process. */
void heap_give(void *memory);
/* The size that was asked for, rounded up to 16. */
size_t heap_size(const void *memory);
/* Calls fn for each live block. */
void heap_each(const sim_heap *heap, void (*fn)(const void *memory, size_t size, const void *caller, void *arg),
               void *arg);

#endif
