/*
 * testkit_oom.h - for tests: allocations that fail on demand.
 *
 * Included by one source file of a test program, which is linked with tqi_oom_args (meson.build): calls of malloc,
 * calloc, realloc and posix_memalign in libtq and in the test come here. Those inside other shared libraries do not,
 * so their memory never fails. All state belongs to the thread that sets it: background threads are not affected.
 */
#ifndef TQI_BASE_TESTKIT_OOM_H
#define TQI_BASE_TESTKIT_OOM_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>

void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *old, size_t size);
int __real_posix_memalign(void **out, size_t align, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *old, size_t size);
int __wrap_posix_memalign(void **out, size_t align, size_t size);

/* Volatile: malloc is declared as a function that changes nothing of this file (`leaf`). */
static _Thread_local volatile struct {
    long left; /* allocations that still succeed */
    bool armed, once;
    long failures;
} oom;

static inline void oom_arm(long after, bool once)
{
    oom.left = after;
    oom.once = once;
    oom.failures = 0;
    oom.armed = true;
}

/* After `after` successful allocations, all fail: a retry does not succeed. */
static inline void oom_all_after(long after)
{
    oom_arm(after, false);
}

/* After `after` successful allocations, one fails: shows a failure even if the next attempt would succeed. */
static inline void oom_one_after(long after)
{
    oom_arm(after, true);
}

/* All succeed again. Returns how many have failed. */
static inline long oom_end(void)
{
    oom.armed = false;
    return oom.failures;
}

static inline bool oom_fails(void)
{
    if (!oom.armed || oom.left-- > 0) {
        return false;
    }
    oom.left = 0;
    oom.armed = !oom.once;
    oom.failures++;
    return true;
}

void *__wrap_malloc(size_t size)
{
    return oom_fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
    return oom_fails() ? NULL : __real_calloc(n, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return oom_fails() ? NULL : __real_realloc(old, size);
}

int __wrap_posix_memalign(void **out, size_t align, size_t size)
{
    return oom_fails() ? ENOMEM : __real_posix_memalign(out, align, size);
}

#endif
