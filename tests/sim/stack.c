/*
 * stack.c - stacks of fibers. They lie at the same addresses in every run, and are zero when a fiber starts: what an
 * earlier fiber left there would otherwise show in a variable without a value. They are never given back to the kernel.
 */
#include <string.h>
#include <sys/mman.h>

#include "heap.h"
#include "memory.h"

#ifdef SIM_ASAN
#include <sanitizer/asan_interface.h>
#endif

#define STACK_SLOT   (UINT64_C(1) << 20) /* with the page in front of it */
#define STACK_SLOTS  2048u
#define STACK_GUARD  4096u
#define STACK_PAGE   4096
#define STACK_HOLE   (64 << 10)
#define STACK_OFFSET (UINT64_C(96) << 30) /* from the base of the memory of processes */

static struct {
    uint8_t *base;
    uint32_t made;                   /* slots that have their guard */
    uint64_t used[STACK_SLOTS / 64]; /* the lowest free one is taken */
    uint32_t sizes[STACK_SLOTS];
} stacks;

void *sim_stack_alloc(size_t size)
{
    uint32_t word = 0, slot;

    sim_check(size <= STACK_SLOT - STACK_GUARD && size % STACK_PAGE == 0, "simulator", "a stack of %zu bytes", size);
    if (stacks.base == NULL) {
        stacks.base = memory_region(sim_memory_base + STACK_OFFSET, STACK_SLOTS * STACK_SLOT);
    }
    while (word < STACK_SLOTS / 64 && stacks.used[word] == UINT64_MAX) {
        word++;
    }
    sim_check(word < STACK_SLOTS / 64, "simulator", "more than %u fibers", STACK_SLOTS);
    slot = word * 64 + (uint32_t)__builtin_ctzll(~stacks.used[word]);
    stacks.used[word] |= UINT64_C(1) << (slot % 64);
    stacks.sizes[slot] = (uint32_t)size;
    uint8_t *at = stacks.base + slot * STACK_SLOT;
    for (; stacks.made <= slot; stacks.made++) {
        mprotect(stacks.base + stacks.made * STACK_SLOT, STACK_GUARD, PROT_NONE);
    }
    return at + STACK_GUARD;
}

__attribute__((no_sanitize("address"))) static bool stack_is_zero(const uint8_t *page)
{
    const uint64_t *at = (const uint64_t *)(const void *)page, *end = at + STACK_PAGE / sizeof(*at);

    while (at < end && (at[0] | at[1] | at[2] | at[3] | at[4] | at[5] | at[6] | at[7]) == 0) {
        at += 8;
    }
    return at == end;
}

/* The lowest page that was written: no function leaves more than STACK_HOLE of its variables unwritten and calls
 * others. */
static uint8_t *stack_depth(uint8_t *stack, size_t size)
{
    uint8_t *page = stack + size, *depth = page;

    while (page > stack && depth - page < STACK_HOLE) {
        page -= STACK_PAGE;
        if (!stack_is_zero(page)) {
            depth = page;
        }
    }
    return depth;
}

void sim_stack_free(void *stack)
{
    uint32_t slot = (uint32_t)((uint64_t)((uint8_t *)stack - stacks.base) / STACK_SLOT);
    size_t size = stacks.sizes[slot];

#ifdef SIM_ASAN
    __asan_unpoison_memory_region(stack, size);
#endif
    uint8_t *depth = stack_depth(stack, size);

    memset(depth, 0, size - (size_t)(depth - (uint8_t *)stack));
    stacks.used[slot / 64] &= ~(UINT64_C(1) << (slot % 64));
}
