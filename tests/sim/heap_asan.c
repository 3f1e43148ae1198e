/*
 * heap_asan.c - under AddressSanitizer memory comes from its own allocator, which finds more than heap.c does. Here is
 * only a list of what each process has, so that all of it goes when the process ends, and so that a leak shows.
 */
#include "heap.h"

#ifdef SIM_ASAN

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memory.h"

#define HEAP_BUCKETS (1u << 18)
#define HEAP_CHUNK   1024u
#define HEAP_MOST    (UINT64_C(1) << 29)

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
int __real_posix_memalign(void **out, size_t align, size_t size);
void __real_free(void *memory);

typedef struct heap_entry {
    void *memory;
    size_t size;
    const void *caller;
    sim_heap *heap;
    struct heap_entry *prev, *next; /* of the process */
    struct heap_entry *chain;       /* of the bucket; of entries without use */
} heap_entry;

uint64_t sim_memory_base = UINT64_C(0x200000000000);
bool sim_memory_down; /* addresses are the sanitizer's */
sim_heap heap_of_simulator = {.name = "simulator"};
sim_heap *heap_current = &heap_of_simulator;
static sim_heap heaps[SIM_PROCESSES];
static heap_entry *buckets[HEAP_BUCKETS], *unused;

static heap_entry **heap_bucket(const void *memory)
{
    return &buckets[((uintptr_t)memory * UINT64_C(0x9e3779b97f4a7c15)) >> 46];
}

static heap_entry *heap_find(const void *memory)
{
    heap_entry *entry = *heap_bucket(memory);

    while (entry != NULL && entry->memory != memory) {
        entry = entry->chain;
    }
    return entry;
}

static heap_entry *heap_entry_make(void)
{
    if (unused == NULL) {
        heap_entry *chunk = __real_calloc(HEAP_CHUNK, sizeof(*chunk));
        if (chunk == NULL) {
            fprintf(stderr, "sim: no memory\n");
            exit(2);
        }
        for (uint32_t i = 0; i < HEAP_CHUNK; i++) {
            chunk[i].chain = unused;
            unused = &chunk[i];
        }
    }
    heap_entry *entry = unused;
    unused = entry->chain;
    return entry;
}

static void heap_drop(heap_entry *entry)
{
    sim_heap *heap = entry->heap;
    heap_entry **link = heap_bucket(entry->memory);

    while (*link != entry) {
        link = &(*link)->chain;
    }
    *link = entry->chain;
    if (entry->prev != NULL) {
        entry->prev->next = entry->next;
    } else {
        heap->entries = entry->next;
    }
    if (entry->next != NULL) {
        entry->next->prev = entry->prev;
    }
    heap->live_bytes -= entry->size;
    heap->live_count--;
    entry->chain = unused;
    unused = entry;
}

sim_heap *heap_open(uint32_t place, const char *name)
{
    sim_heap *heap = &heaps[place];

    *heap = (sim_heap){.name = name};
    return heap;
}

void heap_close(sim_heap *heap)
{
    while (heap->entries != NULL) {
        void *memory = heap->entries->memory;
        heap_drop(heap->entries);
        __real_free(memory);
    }
}

void *heap_take(sim_heap *heap, size_t size, size_t align, bool zero, const void *caller)
{
    heap_entry **bucket, *entry;
    void *memory = NULL;

    if (size >= HEAP_MOST || align >= HEAP_MOST) {
        return NULL;
    }
    if (align > 16) {
        memory = __real_posix_memalign(&memory, align, size) == 0 ? memory : NULL;
    } else {
        memory = zero ? __real_calloc(1, size) : __real_malloc(size);
    }
    if (memory == NULL) {
        return NULL;
    }
    if (zero && align > 16) {
        memset(memory, 0, size);
    }
    entry = heap_entry_make();
    bucket = heap_bucket(memory);
    *entry = (heap_entry){
        .memory = memory,
        .size = size,
        .caller = caller,
        .heap = heap,
        .next = heap->entries,
        .chain = *bucket,
    };
    *bucket = entry;
    if (heap->entries != NULL) {
        heap->entries->prev = entry;
    }
    heap->entries = entry;
    heap->live_bytes += size;
    heap->live_count++;
    return memory;
}

bool heap_owns(const void *memory)
{
    return heap_find(memory) != NULL;
}

void heap_give(void *memory)
{
    heap_entry *entry = heap_find(memory);

    if (entry != NULL) {
        if (entry->heap != heap_current && entry->heap != &heap_of_simulator) {
            sim_found("memory", "%s frees memory of %s", heap_current->name, entry->heap->name);
        }
        heap_drop(entry);
    }
    /* The sanitizer says what is wrong with any other. */
    __real_free(memory);
}

size_t heap_size(const void *memory)
{
    const heap_entry *entry = heap_find(memory);

    return entry != NULL ? entry->size : 0;
}

void heap_each(const sim_heap *heap, void (*fn)(const void *memory, size_t size, const void *caller, void *arg),
               void *arg)
{
    for (const heap_entry *entry = heap->entries; entry != NULL; entry = entry->next) {
        fn(entry->memory, entry->size, entry->caller, arg);
    }
}

#endif
