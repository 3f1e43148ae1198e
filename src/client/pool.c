/*
 * pool.c - buffers that were used before and whose pages are therefore there: copying into memory
 * that was never touched is several times slower than into warm memory.
 *
 * Sizes are rounded up to classes of four steps per power of two, so that reads of about the same
 * size meet again.  At most POOL_BYTES in POOL_BUFFERS buffers are kept, the newest ones; small
 * buffers are left to malloc.  One lock for the process, taken around fork.
 */
#include "client/data.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "client/client.h"

#define POOL_SMALL   4096u
#define POOL_ALIGN   64u
#define POOL_HUGE    ((size_t)2 << 20)
#define POOL_BYTES   ((size_t)256 << 20)
#define POOL_BUFFERS 64

static pthread_mutex_t pool_lock = PTHREAD_MUTEX_INITIALIZER;
static tqi_buffer pool_kept[POOL_BUFFERS]; /* oldest first */
static int pool_count;
static size_t pool_bytes;

/* The class of a size; 0 when it is too large for any. */
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

tqi_buffer tqi_pool_get(size_t size)
{
    tqi_buffer buffer = {NULL, pool_class(size)};
    size_t align = buffer.capacity >= POOL_HUGE ? POOL_HUGE : POOL_ALIGN;

    if (buffer.capacity == 0) {
        return buffer;
    }
    if (size > POOL_SMALL) {
        pthread_mutex_lock(&pool_lock);
        for (int i = pool_count - 1; i >= 0; i--) {
            if (pool_kept[i].capacity == buffer.capacity) {
                buffer = pool_kept[i];
                memmove(pool_kept + i, pool_kept + i + 1,
                        (size_t)(pool_count - i - 1) * sizeof *pool_kept);
                pool_count--;
                pool_bytes -= buffer.capacity;
                break;
            }
        }
        pthread_mutex_unlock(&pool_lock);
    }
    if (!buffer.data && posix_memalign(&buffer.data, align, buffer.capacity) != 0) {
        buffer.data = NULL;
    } else if (align == POOL_HUGE) {
        madvise(buffer.data, buffer.capacity, MADV_HUGEPAGE); /* only helps */
    }
    return buffer;
}

void tqi_pool_put(tqi_buffer buffer)
{
    void *drop[POOL_BUFFERS + 1];
    int dropped = 0;

    if (buffer.capacity <= POOL_SMALL || buffer.capacity > POOL_BYTES) {
        free(buffer.data);
        return;
    }
    pthread_mutex_lock(&pool_lock);
    while (pool_count == POOL_BUFFERS || pool_bytes + buffer.capacity > POOL_BYTES) {
        drop[dropped++] = pool_kept[0].data;
        pool_bytes -= pool_kept[0].capacity;
        pool_count--;
        memmove(pool_kept, pool_kept + 1, (size_t)pool_count * sizeof *pool_kept);
    }
    pool_kept[pool_count++] = buffer;
    pool_bytes += buffer.capacity;
    pthread_mutex_unlock(&pool_lock);
    while (dropped > 0) {
        free(drop[--dropped]);
    }
}

void tqi_pool_lock(void)
{
    pthread_mutex_lock(&pool_lock);
}

void tqi_pool_unlock(void)
{
    pthread_mutex_unlock(&pool_lock);
}

void tqi_pool_forked(void)
{
    pthread_mutex_init(&pool_lock, NULL);
}
