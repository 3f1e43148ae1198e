/*
 * heap.c - the allocator of simulated processes: size classes with free lists in a region of fixed addresses.
 *
 * A process gets the same addresses in every run of a seed, whatever ran before it: its region begins empty, and what
 * malloc returns is filled with poison, since what an earlier process left there would make a read of uninitialised
 * memory depend on it. A block has a header of 16 bytes in front of it. What is freed is overwritten, and looked at
 * when it is handed out again, so that reading or writing freed memory shows. Regions are never given back to the
 * kernel.
 */
#include "heap.h"

#ifndef SIM_ASAN

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "memory.h"

#define HEAP_BYTES      (UINT64_C(1) << 30) /* half of it for large blocks */
#define HEAP_BYTES_HOST (UINT64_C(32) << 30)
#define HEAP_BASE_HOST  UINT64_C(0x018000000000)
#define HEAP_LIVE       UINT32_C(0x6c697665)
#define HEAP_FREE       UINT32_C(0x66726565)
#define HEAP_UNIT       16u
#define HEAP_ALIGNED    255u /* a class: the block begins before, `what` says how far */
#define HEAP_POISON     0xa5
#define HEAP_POISONED   4096u               /* bytes of a freed block that are overwritten */
#define HEAP_LOOKED_AT  64u                 /* bytes of them that are looked at when it is handed out again */
#define HEAP_BIG        (UINT64_C(1) << 20) /* bytes of a large block, of a process only */
#define HEAP_PAGE       4096u
#define HEAP_LINEAR     64u /* classes in steps of 16 bytes; then four per power of two */

int __real_madvise(void *at, size_t size, int advice);

typedef struct {
    uint64_t what; /* the caller << 8 | class */
    uint32_t magic;
    uint32_t size; /* asked for; of a free block: the next one */
} heap_block;

uint64_t sim_memory_base = UINT64_C(0x020000000000);
bool sim_memory_down;
sim_heap heap_of_simulator = {.name = "simulator"};
sim_heap *heap_current = &heap_of_simulator;
static sim_heap heaps[SIM_PROCESSES];

/* The class of a block of that many bytes, header included, and the bytes of a block of that class. */
static inline uint32_t heap_class(size_t bytes)
{
    size_t units = (bytes + HEAP_UNIT - 1) / HEAP_UNIT;
    uint32_t log, step;

    if (units <= HEAP_LINEAR) {
        return (uint32_t)units;
    }
    log = 63u - (uint32_t)__builtin_clzll((unsigned long long)(units - 1)); /* 2^log < units <= 2^(log + 1) */
    step = (uint32_t)((units - 1) >> (log - 2)) & 3u;
    return HEAP_LINEAR + (log - 6) * 4 + step + 1;
}

static inline size_t heap_class_bytes(uint32_t class)
{
    if (class <= HEAP_LINEAR) {
        return (size_t) class * HEAP_UNIT;
    }
    uint32_t log = (class - HEAP_LINEAR - 1) / 4 + 6, step = (class - HEAP_LINEAR - 1) % 4;
    return ((size_t)(5 + step) << (log - 2)) * HEAP_UNIT;
}

static inline heap_block *heap_block_of(const void *memory)
{
    return (heap_block *)((uintptr_t)memory - sizeof(heap_block));
}

static inline heap_block *heap_at(const sim_heap *heap, uint32_t offset)
{
    return (heap_block *)(void *)(heap->base + (uint64_t)(offset - 1) * HEAP_UNIT);
}

static inline const void *heap_caller(const heap_block *block)
{
    return (const void *)(uintptr_t)(block->what >> 8);
}

static void heap_map(sim_heap *heap, uint64_t base, uint64_t bytes)
{
    heap->base = memory_region(base, bytes);
    heap->end = heap->base + bytes;
    heap->low = heap->high = heap->base;
}

/* Whole units: nothing that an earlier process left is seen behind the size either. */
static inline size_t heap_round(size_t size)
{
    return (size + HEAP_UNIT - 1) & ~(size_t)(HEAP_UNIT - 1);
}

sim_heap *heap_open(uint32_t place, const char *name)
{
    sim_heap *heap = &heaps[place];

    if (heap->base == NULL) {
        heap_map(heap, sim_memory_base + place * HEAP_BYTES, HEAP_BYTES);
        heap->end = heap->base + HEAP_BYTES / 2;
    }
    *heap = (sim_heap){.name = name, .base = heap->base, .end = heap->end, .big = heap->end, .big_high = heap->end};
    heap->low = heap->high = sim_memory_down ? heap->end : heap->base;
    return heap;
}

void heap_close(sim_heap *heap)
{
    if (heap->big_high > heap->big) {
        __real_madvise(heap->big, (size_t)(heap->big_high - heap->big), MADV_DONTNEED);
        heap->big_high = heap->big;
    }
    heap->live_bytes = heap->live_count = 0;
    heap->low = heap->high = heap->base;
    heap->name = NULL;
}

/* A block that was never used in this process. */
static heap_block *heap_fresh(sim_heap *heap, uint32_t class)
{
    size_t bytes = heap_class_bytes(class);
    heap_block *block;

    if (heap->base == NULL) {
        heap_map(heap, HEAP_BASE_HOST, HEAP_BYTES_HOST);
    }
    if (bytes > (size_t)(heap->end - heap->base) - (size_t)(heap->high - heap->low)) {
        return NULL;
    }
    if (heap->low > heap->base || heap->high == heap->end) {
        heap->low -= bytes;
        block = (heap_block *)(void *)heap->low;
    } else {
        block = (heap_block *)(void *)heap->high;
        heap->high += bytes;
    }
    return block;
}

static void heap_was_written(const heap_block *block, size_t at)
{
    sim_found("memory", "freed memory was written: %zu bytes into a block of class %u that was allocated by %s", at,
              (unsigned)(block->what & 0xff), memory_place(heap_caller(block)));
}

/* The first bytes of a freed block must be as they were left. */
static inline void heap_look(const heap_block *block, size_t room)
{
    const uint64_t *words = (const uint64_t *)(const void *)(block + 1);
    size_t n = (room < HEAP_LOOKED_AT ? room : HEAP_LOOKED_AT) / sizeof(*words);

    for (size_t i = 0; i < n; i++) {
        if (__builtin_expect(words[i] != HEAP_POISON * UINT64_C(0x0101010101010101), 0)) {
            heap_was_written(block, i * sizeof(*words));
        }
    }
}

static inline bool heap_is_big(const sim_heap *heap, uint32_t class)
{
    return __builtin_expect(class >= heap_class(HEAP_BIG) && heap != &heap_of_simulator, 0);
}

static heap_block *heap_take_big(sim_heap *heap, uint32_t class)
{
    uint32_t first = heap->free[class];
    heap_block *block;

    if (first != 0) {
        block = heap_at(heap, first);
        heap_look(block, HEAP_PAGE - sizeof(*block));
        heap->free[class] = block->size;
        memset(block + 1, 0, HEAP_PAGE - sizeof(*block));
    } else {
        size_t bytes = heap_class_bytes(class);
        block = (heap_block *)(void *)heap->big_high;
        if (bytes > (size_t)(heap->base + HEAP_BYTES - heap->big_high)) {
            return NULL;
        }
        heap->big_high += bytes;
    }
    block->what = class;
    return block;
}

/* A block with `size` bytes after its header, as heap_take gives them; NULL: no room. */
static inline heap_block *heap_take_block(sim_heap *heap, size_t size, bool zero)
{
    uint32_t class = heap_class(size + sizeof(heap_block));
    uint32_t first = heap->free[class];
    heap_block *block;
    size_t poisoned = 0;

    if (heap_is_big(heap, class)) {
        return heap_take_big(heap, class);
    }
    if (__builtin_expect(first != 0, 1)) {
        size_t room = heap_class_bytes(class) - sizeof(heap_block);
        block = heap_at(heap, first);
        heap_look(block, room);
        heap->free[class] = block->size;
        poisoned = room < HEAP_POISONED ? room : HEAP_POISONED;
    } else {
        block = heap_fresh(heap, class);
        if (block == NULL) {
            return NULL;
        }
    }
    block->what = class;
    size = heap_round(size);
    if (zero) {
        memset(block + 1, 0, size);
    } else if (size > poisoned) {
        memset((uint8_t *)(block + 1) + poisoned, HEAP_POISON, size - poisoned);
    }
    return block;
}

/* The same for memory that begins at a multiple of `align`. */
static void *heap_take_aligned(sim_heap *heap, size_t size, size_t align, bool zero, const void *caller)
{
    heap_block *block = heap_take_block(heap, size + align, zero), *inner;

    if (block == NULL) {
        return NULL;
    }
    uintptr_t raw = (uintptr_t)(block + 1), at = (raw + align - 1) & ~(uintptr_t)(align - 1);
    inner = (heap_block *)at - 1;
    block->what |= (uint64_t)(uintptr_t)caller << 8;
    block->magic = HEAP_LIVE;
    block->size = (uint32_t)size;
    if (at != raw) {
        *inner = (heap_block){(at - raw) << 8 | HEAP_ALIGNED, HEAP_LIVE, (uint32_t)size};
    }
    return (void *)at;
}

void *heap_take(sim_heap *heap, size_t size, size_t align, bool zero, const void *caller)
{
    void *memory;

    if (__builtin_expect(size >= HEAP_BYTES / 2 || align > HEAP_BYTES / 4, 0)) {
        return NULL;
    }
    if (align > HEAP_UNIT) {
        memory = heap_take_aligned(heap, size, align, zero, caller);
        if (memory == NULL) {
            return NULL;
        }
    } else {
        heap_block *block = heap_take_block(heap, size, zero);
        if (block == NULL) {
            return NULL;
        }
        block->what |= (uint64_t)(uintptr_t)caller << 8;
        block->magic = HEAP_LIVE;
        block->size = (uint32_t)size;
        memory = block + 1;
    }
    heap->live_bytes += size;
    heap->live_count++;
    return memory;
}

static inline bool heap_has(const sim_heap *heap, const void *memory)
{
    return (uintptr_t)memory - (uintptr_t)heap->base < (uintptr_t)(heap->end - heap->base);
}

/* The heap of that address; NULL: none. */
static inline sim_heap *heap_of(const void *memory)
{
    uint64_t place = ((uintptr_t)memory - sim_memory_base) / HEAP_BYTES;

    if (heap_has(heap_current, memory)) {
        return heap_current;
    }
    if (place < SIM_PROCESSES) {
        return &heaps[place];
    }
    return heap_has(&heap_of_simulator, memory) ? &heap_of_simulator : NULL;
}

bool heap_owns(const void *memory)
{
    return heap_of(memory) != NULL;
}

static void heap_bad(const sim_heap *heap, const void *memory, const heap_block *block)
{
    if (heap != heap_current && heap != &heap_of_simulator) {
        sim_found("memory", "%s frees memory of %s", heap_current->name, heap->name != NULL ? heap->name : "a dead one");
    }
    if (((uintptr_t)memory & (HEAP_UNIT - 1)) == 0 && block->magic == HEAP_FREE) {
        sim_found("memory", "a block is freed twice; it was allocated by %s", memory_place(heap_caller(block)));
    }
    sim_found("memory", "what %s frees is not the begin of a block", heap_current->name);
}

void heap_give(void *memory)
{
    sim_heap *heap = heap_of(memory);
    heap_block *block = heap_block_of(memory);

    if (__builtin_expect((heap != heap_current && heap != &heap_of_simulator) ||
                             ((uintptr_t)memory & (HEAP_UNIT - 1)) != 0 || block->magic != HEAP_LIVE,
                         0)) {
        heap_bad(heap, memory, block);
    }
    if (__builtin_expect((block->what & 0xff) == HEAP_ALIGNED, 0)) {
        block->magic = HEAP_FREE;
        block = (heap_block *)((uintptr_t)block - (uintptr_t)(block->what >> 8));
    }
    uint32_t class = block->what & 0xff;
    size_t room = heap_class_bytes(class) - sizeof(*block);
    heap->live_bytes -= block->size;
    heap->live_count--;
    if (heap_is_big(heap, class)) {
        memset(block + 1, HEAP_POISON, HEAP_PAGE - sizeof(*block));
        __real_madvise((uint8_t *)block + HEAP_PAGE, heap_class_bytes(class) - HEAP_PAGE, MADV_DONTNEED);
    } else {
        memset(block + 1, HEAP_POISON, room < HEAP_POISONED ? room : HEAP_POISONED);
    }
    block->magic = HEAP_FREE;
    block->size = heap->free[class];
    heap->free[class] = (uint32_t)((uint64_t)((uint8_t *)block - heap->base) / HEAP_UNIT) + 1;
}

size_t heap_size(const void *memory)
{
    const heap_block *block = heap_block_of(memory);

    return block->magic == HEAP_LIVE ? heap_round(block->size) : 0;
}

static void heap_each_of(const uint8_t *at, const uint8_t *end,
                         void (*fn)(const void *memory, size_t size, const void *caller, void *arg), void *arg)
{
    while (at < end) {
        const heap_block *block = (const heap_block *)(const void *)at;
        if (block->magic == HEAP_LIVE) {
            fn(block + 1, block->size, heap_caller(block), arg);
        }
        at += heap_class_bytes(block->what & 0xff);
    }
}

void heap_each(const sim_heap *heap, void (*fn)(const void *memory, size_t size, const void *caller, void *arg),
               void *arg)
{
    heap_each_of(heap->low, heap->high, fn, arg);
    heap_each_of(heap->big, heap->big_high, fn, arg);
}

#endif
