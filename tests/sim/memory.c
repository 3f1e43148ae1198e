/*
 * memory.c - the memory of simulated processes: what their code, and the libraries that work on their behalf, get from
 * malloc comes from the heap of the process (heap.c).
 *
 * Calls of the product are replaced when the program is linked, those of the libraries that keep its data when it
 * starts (memory_libraries.c). The C library and OpenSSL go on with the C library's own malloc, because what they
 * allocate may be theirs (caches, the state of the thread) and outlive the process in which it was made. So memory of
 * both kinds goes through free: it is told apart by its address.
 *
 * Allocations fail (SIM_OOM) for code of the product only. CRoaring, for one, does not survive that.
 */
#include "memory.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "heap.h"

#define MEMORY_DOUBLINGS    12           /* of the allocations until one may fail */
#define MEMORY_FAILING_MOST UINT64_C(40) /* that fail in a row */
#define MEMORY_CALLER       __builtin_return_address(0)

void *__real_malloc(size_t size);
void *__real_realloc(void *old, size_t size);
void __real_free(void *memory);
size_t __real_malloc_usable_size(void *memory);
void *__real_mmap64(void *at, size_t size, int prot, int flags, int fd, off_t offset);
void *mmap(void *at, size_t size, int prot, int flags, int fd, off_t offset);

void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_reallocarray(void *old, size_t n, size_t size);
int __wrap_posix_memalign(void **out, size_t align, size_t size);
void *__wrap_aligned_alloc(size_t align, size_t size);
void *__wrap_memalign(size_t align, size_t size);
void *__wrap_valloc(size_t size);
char *__wrap_strdup(const char *text);
char *__wrap_strndup(const char *text, size_t most);

/* --- regions and places --------------------------------------------------- */

void *memory_region(uint64_t base, uint64_t bytes)
{
    void *at = __real_mmap64((void *)(uintptr_t)base, bytes, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);

    if (at != (void *)(uintptr_t)base) {
        fprintf(stderr, "sim: no %llu MiB of addresses at %#llx: %s; raise ulimit -v, or try another --base\n",
                (unsigned long long)(bytes >> 20), (unsigned long long)base, strerror(errno));
        exit(2);
    }
    return at;
}

const char *memory_place(const void *code)
{
    static char text[256];
    Dl_info info;

    if (code == NULL || dladdr(code, &info) == 0 || info.dli_fname == NULL) {
        return "?";
    }
    const char *slash = strrchr(info.dli_fname, '/');
    /* A return address: the call is before it. */
    snprintf(text, sizeof(text), "%s+%#lx", slash != NULL ? slash + 1 : info.dli_fname,
             (unsigned long)((uintptr_t)code - (uintptr_t)info.dli_fbase - 1));
    return text;
}

static _Noreturn void memory_none(size_t size)
{
    fprintf(stderr, "sim: no memory for %zu bytes\n", size);
    exit(2);
}

/* --- the simulator's own --------------------------------------------------- */

void *sim_alloc(size_t size)
{
    void *memory = heap_take(&heap_of_simulator, size, 1, true, MEMORY_CALLER);

    if (memory == NULL) {
        memory_none(size);
    }
    return memory;
}

void *sim_realloc(void *old, size_t size)
{
    size_t had = old != NULL ? heap_size(old) : 0;

    if (old != NULL && size <= had) {
        return old;
    }
    void *memory = heap_take(&heap_of_simulator, size, 1, true, MEMORY_CALLER);
    if (memory == NULL) {
        memory_none(size);
    }
    if (old != NULL) {
        memcpy(memory, old, had);
        heap_give(old);
    }
    return memory;
}

void sim_free(void *memory)
{
    if (memory != NULL) {
        heap_give(memory);
    }
}

char *sim_strdup(const char *text)
{
    size_t size = strlen(text) + 1;

    return memcpy(sim_alloc(size), text, size);
}

/* --- heaps of processes ---------------------------------------------------- */

void sim_heap_start(sim_process *process)
{
    process->heap = heap_open(process->id, process->name);
}

void sim_heap_end(sim_process *process)
{
    if (heap_current == process->heap) {
        heap_current = &heap_of_simulator;
    }
    heap_close(process->heap);
    process->heap = NULL;
}

void sim_heap_enter(sim_process *process)
{
    heap_current = process != NULL ? process->heap : &heap_of_simulator;
}

uint64_t sim_heap_live(const sim_process *process, uint64_t *count)
{
    if (count != NULL) {
        *count = process->heap->live_count;
    }
    return process->heap->live_bytes;
}

#define MEMORY_CALLERS 256

typedef struct {
    const void *caller;
    uint64_t count, bytes;
} memory_caller;

typedef struct {
    memory_caller callers[MEMORY_CALLERS];
    size_t n;
} memory_report;

static void memory_count(const void *memory, size_t size, const void *caller, void *arg)
{
    memory_report *report = arg;
    size_t i = 0;

    (void)memory;
    while (i < report->n && report->callers[i].caller != caller) {
        i++;
    }
    if (i == report->n) {
        if (i == MEMORY_CALLERS) {
            return;
        }
        report->callers[report->n++] = (memory_caller){.caller = caller};
    }
    report->callers[i].count++;
    report->callers[i].bytes += size;
}

void sim_heap_report(const sim_process *process)
{
    static memory_report report;

    report.n = 0;
    heap_each(process->heap, memory_count, &report);
    for (size_t i = 0; i < report.n; i++) {
        fprintf(stderr, "  %llu bytes in %llu blocks of %s, allocated by %s\n",
                (unsigned long long)report.callers[i].bytes, (unsigned long long)report.callers[i].count, process->name,
                memory_place(report.callers[i].caller));
    }
}

/* --- failures ------------------------------------------------------------- */

/* Allocations until one may fail: evenly over orders of magnitude. */
static uint64_t memory_countdown(sim_heap *heap)
{
    return sim_between(&heap->chance, 1, UINT64_C(8) << sim_below(&heap->chance, MEMORY_DOUBLINGS));
}

void sim_heap_may_fail(sim_process *process, bool may)
{
    sim_heap *heap = process->heap;

    heap->failing = heap->until_failure = 0;
    if (may && sim_may(SIM_OOM)) {
        sim_chance_init(&heap->chance, sim_next(&sim_fault_chance), "memory");
        heap->until_failure = memory_countdown(heap);
    }
}

/* The countdown has ended: whether this allocation fails, and how long until the next. */
static bool memory_fails_now(sim_heap *heap)
{
    bool fails = heap->failing > 0;

    if (fails) {
        heap->failing--;
    } else if (sim_happens(SIM_OOM)) {
        sim_mark("an allocation failed");
        fails = true;
        heap->failing = sim_one_in(&heap->chance, 4) ? sim_between(&heap->chance, 1, MEMORY_FAILING_MOST) : 0;
    }
    heap->until_failure = heap->failing > 0 ? 1 : memory_countdown(heap);
    return fails;
}

static inline bool memory_fails_here(void)
{
    sim_heap *heap = heap_current;

    return __builtin_expect(heap->until_failure != 0, 0) && --heap->until_failure == 0 && memory_fails_now(heap);
}

bool memory_fails(void)
{
    return memory_fails_here();
}

static inline void *memory_take(size_t size, size_t align, bool zero, const void *caller)
{
    void *memory = memory_fails_here() ? NULL : heap_take(heap_current, size, align, zero, caller);

    if (__builtin_expect(memory == NULL, 0)) {
        errno = ENOMEM;
    }
    return memory;
}

/* --- what the product calls ------------------------------------------------ */

void *__wrap_malloc(size_t size)
{
    return memory_take(size, 1, false, MEMORY_CALLER);
}

void *__wrap_calloc(size_t n, size_t size)
{
    size_t bytes;

    if (__builtin_mul_overflow(n, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    return memory_take(bytes, 1, true, MEMORY_CALLER);
}

static void *memory_resize(void *old, size_t size, const void *caller)
{
    if (old == NULL) {
        return memory_take(size, 1, false, caller);
    }
    if (!heap_owns(old)) {
        return __real_realloc(old, size);
    }
    if (size == 0) {
        heap_give(old);
        return NULL;
    }
    void *memory = memory_take(size, 1, false, caller);
    if (memory != NULL) {
        size_t had = heap_size(old);
        memcpy(memory, old, had < size ? had : size);
        heap_give(old);
    }
    return memory;
}

void *__wrap_realloc(void *old, size_t size)
{
    return memory_resize(old, size, MEMORY_CALLER);
}

void *__wrap_reallocarray(void *old, size_t n, size_t size)
{
    size_t bytes;

    if (__builtin_mul_overflow(n, size, &bytes)) {
        errno = ENOMEM;
        return NULL;
    }
    return memory_resize(old, bytes, MEMORY_CALLER);
}

void __wrap_free(void *memory)
{
    if (memory == NULL) {
        return;
    }
    if (__builtin_expect(!heap_owns(memory), 0)) {
        __real_free(memory);
        return;
    }
    heap_give(memory);
}

int __wrap_posix_memalign(void **out, size_t align, size_t size)
{
    void *memory;

    if (align < sizeof(void *) || (align & (align - 1)) != 0) {
        return EINVAL;
    }
    memory = memory_take(size, align, false, MEMORY_CALLER);
    if (memory == NULL) {
        return ENOMEM;
    }
    *out = memory;
    return 0;
}

static void *memory_aligned(size_t align, size_t size, const void *caller)
{
    if (align == 0 || (align & (align - 1)) != 0) {
        errno = EINVAL;
        return NULL;
    }
    return memory_take(size, align, false, caller);
}

void *__wrap_aligned_alloc(size_t align, size_t size)
{
    return memory_aligned(align, size, MEMORY_CALLER);
}

void *__wrap_memalign(size_t align, size_t size)
{
    return memory_aligned(align, size, MEMORY_CALLER);
}

void *__wrap_valloc(size_t size)
{
    return memory_aligned(4096, size, MEMORY_CALLER);
}

size_t __wrap_malloc_usable_size(void *memory)
{
    if (memory == NULL) {
        return 0;
    }
    return heap_owns(memory) ? heap_size(memory) : __real_malloc_usable_size(memory);
}

static char *memory_copy(const char *text, size_t size, const void *caller)
{
    char *copy = memory_take(size + 1, 1, false, caller);

    if (copy != NULL) {
        memcpy(copy, text, size);
        copy[size] = 0;
    }
    return copy;
}

char *__wrap_strdup(const char *text)
{
    return memory_copy(text, strlen(text), MEMORY_CALLER);
}

char *__wrap_strndup(const char *text, size_t most)
{
    return memory_copy(text, strnlen(text, most), MEMORY_CALLER);
}
