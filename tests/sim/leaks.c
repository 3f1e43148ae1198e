/*
 * leaks.c - what a program has left when its main function ends: every block that can be reached from the static data
 * of the product, directly or through others, is kept on purpose (registries, the pool of buffers); any other is a
 * leak.
 *
 * As in the leak checkers of compilers, what looks like an address is taken for one.
 */
#include <stdlib.h>
#include <string.h>

#include "heap.h"
#include "memory.h"

typedef struct {
    uintptr_t at;
    size_t size;
    const void *caller;
    bool reached;
} leak_block;

static struct {
    leak_block *blocks;
    uint32_t *stack; /* reached, not looked at yet */
    size_t n, room, depth;
    uintptr_t end; /* of the last block */
} leaks;

static void leak_add(const void *memory, size_t size, const void *caller, void *arg)
{
    (void)arg;
    if (leaks.n == leaks.room) {
        leaks.room = leaks.room * 2 + 256;
        leaks.blocks = sim_realloc(leaks.blocks, leaks.room * sizeof(*leaks.blocks));
        leaks.stack = sim_realloc(leaks.stack, leaks.room * sizeof(*leaks.stack));
    }
    leaks.blocks[leaks.n++] = (leak_block){(uintptr_t)memory, size, caller, false};
}

static int leak_order(const void *a, const void *b)
{
    const leak_block *x = a, *y = b;

    return x->at < y->at ? -1 : x->at > y->at;
}

/* The block with that address in it is reached. */
static void leak_reach(uintptr_t at)
{
    size_t low = 0, high = leaks.n;

    if (at < leaks.blocks[0].at || at > leaks.end) {
        return;
    }
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (leaks.blocks[middle].at <= at) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    leak_block *block = low > 0 ? &leaks.blocks[low - 1] : NULL;
    if (block != NULL && !block->reached && at - block->at <= block->size) {
        block->reached = true;
        leaks.stack[leaks.depth++] = (uint32_t)(low - 1);
    }
}

/* Between the variables lies memory that the sanitizer forbids. */
__attribute__((no_sanitize("address"))) static void leak_scan(const void *memory, size_t size, void *arg)
{
    const uintptr_t *words = memory;

    (void)arg;
    for (size_t i = 0; i < size / sizeof(*words); i++) {
        leak_reach(words[i]);
    }
}

void sim_heap_check_leaks(void)
{
    const sim_heap *heap = sim_self->heap;
    uint64_t bytes = 0, count = 0;
    const void *caller = NULL;

    if (heap->live_count == 0) {
        return;
    }
    leaks.n = leaks.depth = 0;
    heap_each(heap, leak_add, NULL);
    qsort(leaks.blocks, leaks.n, sizeof(*leaks.blocks), leak_order);
    leaks.end = leaks.blocks[leaks.n - 1].at + leaks.blocks[leaks.n - 1].size;
    memory_statics(leak_scan, NULL);
    while (leaks.depth > 0) {
        const leak_block *block = &leaks.blocks[leaks.stack[--leaks.depth]];
        leak_scan((const void *)block->at, block->size, NULL);
    }
    for (size_t i = 0; i < leaks.n; i++) {
        if (!leaks.blocks[i].reached) {
            bytes += leaks.blocks[i].size;
            caller = count++ == 0 ? leaks.blocks[i].caller : caller;
        }
    }
    sim_check(count == 0, "no leak", "%s has lost %llu bytes in %llu allocations, the first one by %s", sim_self->name,
              (unsigned long long)bytes, (unsigned long long)count, memory_place(caller));
}
