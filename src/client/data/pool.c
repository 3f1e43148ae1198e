/*
 * pool.c - buffers that were used before, so their pages are already mapped: copying into memory that was never
 * touched is several times slower than into warm memory. Sizes are rounded up to size classes, four per power of two,
 * so that reads of similar size can reuse each other's buffers. The pool keeps the newest buffers: as many bytes as
 * were ever in use at once, so that the next read of the same batch finds all it needs, but at least POOL_LEAST and at
 * most an eighth of the memory that this process may use. A buffer that was not needed for POOL_OLD_NS is freed when
 * another one is returned. Small buffers are left to malloc. One lock for the process, taken around fork.
 */
#include "client/data/data.h"

#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/memory.h"

#define POOL_SMALL   4096u
#define POOL_ALIGN   64u
#define POOL_HUGE    ((size_t)2 << 20)
#define POOL_LEAST   ((size_t)256 << 20)
#define POOL_BUFFERS 256
#define POOL_OLD_NS  UINT64_C(60000000000)

static pthread_mutex_t pool_lock = PTHREAD_MUTEX_INITIALIZER;
static tqi_client_buffer pool_kept[POOL_BUFFERS]; /* oldest first */
static uint64_t pool_since[POOL_BUFFERS];         /* when each was put here */
static int pool_count;
static size_t pool_bytes;
static size_t pool_lent;  /* bytes of buffers in use */
static size_t pool_limit; /* most bytes to keep; grows with the bytes in use at once */

/* The class of a size; 0 if it is too large for any. */
static size_t pool_class(size_t size)
{
    size_t step;

    if (size <= POOL_SMALL) {
        return size == 0 ? POOL_ALIGN : (size + POOL_ALIGN - 1) & ~(size_t)(POOL_ALIGN - 1);
    }
    if (size > SIZE_MAX / 4) {
        return 0;
    }
    step = (size_t)1 << (63 - __builtin_clzll((unsigned long long)(size - 1)) - 2);
    return (size + step - 1) & ~(step - 1);
}

/* Removes the i-th kept buffer; with the lock held. */
static tqi_client_buffer pool_take(int i)
{
    tqi_client_buffer buffer = pool_kept[i];
    size_t after = (size_t)(pool_count - i - 1);

    memmove(pool_kept + i, pool_kept + i + 1, after * sizeof(*pool_kept));
    memmove(pool_since + i, pool_since + i + 1, after * sizeof(*pool_since));
    pool_count--;
    pool_bytes -= buffer.capacity;
    return buffer;
}

static size_t pool_most(void)
{
    static size_t most; /* with the lock held */

    if (most == 0) {
        most = (size_t)(tqi_memory_limit().bytes / 8);
        most = most > POOL_LEAST ? most : POOL_LEAST;
    }
    return most;
}

/* A buffer was handed out; with the lock held. */
static void pool_lend(size_t capacity)
{
    pool_lent += capacity;
    if (pool_limit < pool_lent) {
        pool_limit = pool_lent < pool_most() ? pool_lent : pool_most();
    }
    pool_limit = pool_limit > POOL_LEAST ? pool_limit : POOL_LEAST;
}

tqi_client_buffer tqi_client_pool_get(size_t size)
{
    tqi_client_buffer buffer = {NULL, pool_class(size)};
    size_t align = buffer.capacity >= POOL_HUGE ? POOL_HUGE : POOL_ALIGN;

    if (buffer.capacity == 0) {
        return buffer;
    }
    if (buffer.capacity > POOL_SMALL) {
        pthread_mutex_lock(&pool_lock);
        for (int i = pool_count - 1; i >= 0; i--) {
            if (pool_kept[i].capacity == buffer.capacity) {
                buffer = pool_take(i);
                break;
            }
        }
        pool_lend(buffer.capacity);
        pthread_mutex_unlock(&pool_lock);
    }
    if (buffer.data != NULL) {
        return buffer;
    }
    if (posix_memalign(&buffer.data, align, buffer.capacity) != 0) {
        buffer.data = NULL;
        if (buffer.capacity > POOL_SMALL) {
            pthread_mutex_lock(&pool_lock);
            pool_lent -= buffer.capacity;
            pthread_mutex_unlock(&pool_lock);
        }
    } else if (align == POOL_HUGE) {
        madvise(buffer.data, buffer.capacity, MADV_HUGEPAGE); /* only helps */
    }
    return buffer;
}

void tqi_client_pool_put(tqi_client_buffer buffer)
{
    void *drop[POOL_BUFFERS + 1];
    int dropped = 0;

    if (buffer.capacity <= POOL_SMALL) {
        free(buffer.data);
        return;
    }
    uint64_t now = tqi_now();
    pthread_mutex_lock(&pool_lock);
    pool_lent -= buffer.capacity < pool_lent ? buffer.capacity : pool_lent;
    bool keep = buffer.capacity <= pool_limit;
    while (pool_count > 0 && (now - pool_since[0] > POOL_OLD_NS ||
                              (keep && (pool_count == POOL_BUFFERS || pool_bytes + buffer.capacity > pool_limit)))) {
        drop[dropped++] = pool_take(0).data;
    }
    if (keep) {
        pool_since[pool_count] = now;
        pool_kept[pool_count++] = buffer;
        pool_bytes += buffer.capacity;
    } else {
        drop[dropped++] = buffer.data;
    }
    pthread_mutex_unlock(&pool_lock);
    while (dropped > 0) {
        free(drop[--dropped]);
    }
}

/* The class under which a buffer that the caller had is kept; 0: it is only freed, because it does not hold the size
 * that the caller names. */
static size_t pool_returned(void *buffer, size_t size)
{
    size_t capacity = pool_class(size);
    bool whole = ((uintptr_t)buffer & (POOL_ALIGN - 1)) == 0 && capacity <= malloc_usable_size(buffer);

    return whole ? capacity : 0;
}

void *tq_buffer_take(size_t size)
{
    return tqi_client_pool_get(size).data;
}

void tq_buffer_give(void *buffer, size_t size)
{
    if (buffer != NULL) {
        tqi_client_pool_put((tqi_client_buffer){buffer, pool_returned(buffer, size)});
    }
}

void tqi_client_pool_lock(void)
{
    pthread_mutex_lock(&pool_lock);
}

void tqi_client_pool_unlock(void)
{
    pthread_mutex_unlock(&pool_lock);
}

void tqi_client_pool_forked(void)
{
    pthread_mutex_init(&pool_lock, NULL);
}
