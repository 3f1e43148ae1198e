/*
 * copy.c - copies of many pieces: small ones at once, large ones on the thread pool, very large ones on several
 * threads.
 *
 * One thread copies warm memory at 9 to 10 GB/s: 256 KiB hold up the loop for 25 us, about as long as a hop to the
 * pool and back takes. Work is split by bytes, not by pieces, because one piece may be the whole batch.
 */
#include <stdlib.h>
#include <string.h>

#include "manager/simple/simple.h"
#include "store/stream.h"

#define COPY_SPLIT     (UINT64_C(4) << 20)
#define COPY_ITEMS_MAX 4u
/* Pieces of this size are worth checking the pages they go to. */
#define COPY_WARM (UINT64_C(1) << 20)
/* Copies of this many bytes bypass the caches: the first bytes would have been evicted before the last ones are
 * copied. */
#define COPY_STREAM (UINT64_C(8) << 20)

typedef struct copy_job copy_job;

/* Bytes [skip, skip + bytes) of the pieces from `first` on, end to end. */
typedef struct copy_item {
    copy_job *job;
    size_t first;
    uint64_t skip;
    uint64_t bytes;
} copy_item;

struct copy_job {
    const tqi_store_map *map;
    bool write;
    bool streaming;
    tqi_simple_piece *pieces;
    void (*done)(void *arg);
    void *arg;
    unsigned left;
    copy_item items[COPY_ITEMS_MAX];
};

static void copy_piece(const tqi_store_map *map, bool write, bool streaming, tqi_simple_piece *piece, uint64_t skip,
                       uint64_t bytes)
{
    if (write) {
        if (bytes >= COPY_WARM) {
            tqi_store_map_warm(map, piece->dest + skip, bytes);
        }
        if (streaming) {
            tqi_store_stream_copy(piece->dest + skip, piece->from + skip, bytes);
        } else {
            memcpy(piece->dest + skip, piece->from + skip, bytes);
        }
        return;
    }
    if (!tqi_store_map_read(map, piece->id, piece->slot, piece->offset + skip, piece->dest + skip, bytes, streaming)) {
        /* Set by any thread that copies part of the piece; read on the loop when all are done. */
        atomic_store_explicit(&piece->gone, true, memory_order_relaxed);
    }
}

static void copy_run(void *arg)
{
    copy_item *item = arg;
    uint64_t left = item->bytes, skip = item->skip;

    for (size_t i = item->first; left > 0; i++) {
        tqi_simple_piece *piece = &item->job->pieces[i];
        uint64_t bytes = piece->size - skip < left ? piece->size - skip : left;
        copy_piece(item->job->map, item->job->write, item->job->streaming, piece, skip, bytes);
        left -= bytes;
        skip = 0;
    }
}

static void copy_ran(void *arg)
{
    copy_item *item = arg;
    copy_job *job = item->job;

    if (--job->left == 0) {
        void (*done)(void *arg) = job->done;
        void *done_arg = job->arg;
        free(job);
        done(done_arg);
    }
}

/* Divides the pieces into `n` items of similar size. */
static void copy_split(copy_job *job, uint64_t total, unsigned n)
{
    size_t piece = 0;
    uint64_t skip = 0;

    for (unsigned i = 0; i < n; i++) {
        uint64_t bytes = i + 1 < n ? total / n / 64 * 64 : total - total / n / 64 * 64 * (n - 1);
        job->items[i] = (copy_item){.job = job, .first = piece, .skip = skip, .bytes = bytes};
        skip += bytes;
        while (i + 1 < n && skip >= job->pieces[piece].size) {
            skip -= job->pieces[piece].size;
            piece++;
        }
    }
}

void tqi_simple_copy(tq_manager_host *host, const tqi_store_map *map, bool write, tqi_simple_piece *pieces, size_t n,
                     void (*done)(void *arg), void *arg)
{
    uint64_t total = 0;
    copy_job *job = NULL;

    for (size_t i = 0; i < n; i++) {
        total += pieces[i].size;
    }
    if (total >= TQI_SIMPLE_INLINE) {
        job = calloc(1, sizeof(*job));
    }
    if (job == NULL) { /* small, or no memory */
        for (size_t i = 0; i < n; i++) {
            copy_piece(map, write, false, &pieces[i], 0, pieces[i].size);
        }
        done(arg);
        return;
    }
    unsigned items = (unsigned)(total / COPY_SPLIT + 1 < COPY_ITEMS_MAX ? total / COPY_SPLIT + 1 : COPY_ITEMS_MAX);
    job->map = map;
    job->write = write;
    job->streaming = total >= COPY_STREAM;
    job->pieces = pieces;
    job->done = done;
    job->arg = arg;
    job->left = items;
    copy_split(job, total, items);
    for (unsigned i = 0; i < items; i++) {
        copy_item *item = &job->items[i];
        if (host->work(host, copy_run, copy_ran, item) != TQ_OK) {
            copy_run(item);
            copy_ran(item);
        }
    }
}
