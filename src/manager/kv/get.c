/*
 * get.c - reads ranges of rows from values. Adjacent ranges are merged. If only a little of a value is needed, it is
 * read in parts, if the store can do that; otherwise it is read completely: straight to its destination if all of it
 * is needed in one piece, else into a buffer from which the needed ranges are copied.
 */
#include "manager/kv/kv.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

/* The cost of a separate request, in bytes that could be read in the same time. */
#define GET_REQUEST_BYTES 8192u
/* Most bytes of whole values in buffers at a time, per task. */
#define GET_BUFFERED (16u << 20)

typedef struct get_task get_task;

typedef struct get_run {
    tqi_kv *kv;
    tq_get_job *job;
    get_task *tasks;
    unsigned n_tasks;
    unsigned running;
    bool *gone; /* per block; each block belongs to one task */
} get_run;

/* A range to copy from a value that was read completely. */
typedef struct get_copy {
    const uint8_t *from;
    void *dest;
    uint64_t size;
    size_t read; /* whose value it is */
} get_copy;

/* Ranges [first, end) of the job. */
struct get_task {
    get_run *run;
    uint32_t first, end;
    tq_error err;
    /* on the pool */
    tq_kv_read *reads;
    tqi_kv_key_text *keys; /* of the reads; a value's key is written again for each of its reads */
    uint32_t *blocks;      /* of the reads: places in the job */
    uint8_t **buffers;     /* of the reads: NULL, or the value */
    size_t n_reads;
    size_t reads_capacity, keys_capacity, blocks_capacity, buffers_capacity;
    get_copy *copies;
    size_t n_copies, copies_capacity;
    uint64_t buffered;
};

/* --- planning ------------------------------------------------------------- */

static int get_add_read(get_task *task, uint32_t b, uint64_t part, tq_kv_read read, uint8_t *buffer)
{
    const tq_block *block = &task->run->job->blocks[b];
    size_t n = task->n_reads + 1;

    if (tqi_grow(&task->reads, &task->reads_capacity, n, sizeof(*task->reads)) != TQ_OK ||
        tqi_grow(&task->keys, &task->keys_capacity, n, sizeof(*task->keys)) != TQ_OK ||
        tqi_grow(&task->blocks, &task->blocks_capacity, n, sizeof(*task->blocks)) != TQ_OK ||
        tqi_grow(&task->buffers, &task->buffers_capacity, n, sizeof(*task->buffers)) != TQ_OK) {
        return TQ_ENOMEM;
    }
    tqi_kv_key_of(&task->keys[n - 1], block->owner_incarnation, block->id, part);
    task->reads[n - 1] = read; /* its key is set once the keys are at their final address */
    task->blocks[n - 1] = b;
    task->buffers[n - 1] = buffer;
    task->n_reads = n;
    return TQ_OK;
}

/* Ranges [first, end) of the job that touch bytes [at, at + size) of their block, which are one value; merged in `out`,
 * relative to the value. Returns how many remain. */
static size_t get_merge(const tq_get_job *job, uint32_t first, uint32_t end, uint64_t at, uint64_t size,
                        tq_get_range *out)
{
    size_t n = 0;

    for (uint32_t r = first; r < end; r++) {
        tq_get_range range = job->ranges[r];
        uint64_t from = range.offset > at ? range.offset : at;
        uint64_t to = range.offset + range.size < at + size ? range.offset + range.size : at + size;
        if (from >= to) {
            continue;
        }
        range.dest = (uint8_t *)range.dest + (from - range.offset);
        range.offset = from - at;
        range.size = to - from;
        tq_get_range *last = n > 0 ? &out[n - 1] : NULL;
        if (last != NULL && last->offset + last->size == range.offset &&
            (uint8_t *)last->dest + last->size == range.dest) {
            last->size += range.size;
        } else {
            out[n++] = range;
        }
    }
    return n;
}

/* Plans the reads of one value. */
static int get_value(get_task *task, uint32_t b, uint64_t part, uint64_t size, const tq_get_range *ranges, size_t n)
{
    const tq_kv_client *client = task->run->kv->client;
    uint64_t wanted = 0;
    int rc = TQ_OK;

    for (size_t r = 0; r < n; r++) {
        wanted += ranges[r].size;
    }
    bool all = n == 1 && ranges[0].size == size;
    if (all || (client->partial && wanted + n * GET_REQUEST_BYTES < size + GET_REQUEST_BYTES)) {
        for (size_t r = 0; r < n && rc == TQ_OK; r++) {
            tq_kv_read read = {
                .value_size = size,
                .offset = ranges[r].offset,
                .size = ranges[r].size,
                .dest = ranges[r].dest,
            };
            rc = get_add_read(task, b, part, read, NULL);
        }
        return rc;
    }
    uint8_t *buffer = malloc(size);
    tq_kv_read read = {.value_size = size, .size = size, .dest = buffer};
    if (buffer == NULL || get_add_read(task, b, part, read, buffer) != TQ_OK) {
        free(buffer);
        return TQ_ENOMEM;
    }
    task->buffered += size;
    if (tqi_grow(&task->copies, &task->copies_capacity, task->n_copies + n, sizeof(*task->copies)) != TQ_OK) {
        return TQ_ENOMEM;
    }
    for (size_t r = 0; r < n; r++) {
        task->copies[task->n_copies++] = (get_copy){
            .from = buffer + ranges[r].offset,
            .dest = ranges[r].dest,
            .size = ranges[r].size,
            .read = task->n_reads - 1,
        };
    }
    return TQ_OK;
}

/* --- reading -------------------------------------------------------------- */

static void get_forget(get_task *task)
{
    for (size_t r = 0; r < task->n_reads; r++) {
        free(task->buffers[r]);
    }
    task->n_reads = 0;
    task->n_copies = 0;
    task->buffered = 0;
}

/* Performs the planned reads, and copies from the buffers. */
static int get_flush(get_task *task)
{
    const tqi_kv *kv = task->run->kv;
    int rc = TQ_OK;

    for (size_t r = 0; r < task->n_reads; r++) {
        task->reads[r].key = task->keys[r].text;
    }
    if (task->n_reads > 0) {
        rc = kv->client->get(kv->store, task->reads, task->n_reads, task->run->job->deadline_ns, &task->err);
    }
    for (size_t r = 0; r < task->n_reads && rc == TQ_OK; r++) {
        if (task->reads[r].missing) {
            task->run->gone[task->blocks[r]] = true;
        }
    }
    for (size_t c = 0; c < task->n_copies && rc == TQ_OK; c++) {
        const get_copy *copy = &task->copies[c];
        if (!task->reads[copy->read].missing) {
            memcpy(copy->dest, copy->from, copy->size);
        }
    }
    get_forget(task);
    return rc;
}

/* Ranges [first, end) are those of one block. */
static int get_block(get_task *task, uint32_t first, uint32_t end, tq_get_range *merged)
{
    const tq_get_job *job = task->run->job;
    uint32_t b = job->ranges[first].block;
    const tq_block *block = &job->blocks[b];
    uint64_t part_size;
    int rc = tqi_kv_part_size(block, &part_size, &task->err);

    if (rc != TQ_OK) {
        return rc;
    }
    bool whole = part_size == 0;
    part_size = whole ? block->size : part_size;
    for (uint64_t at = 0, part = 0; at < block->size && rc == TQ_OK; at += part_size, part++) {
        uint64_t size = block->size - at < part_size ? block->size - at : part_size;
        size_t n = get_merge(job, first, end, at, size, merged);
        if (n > 0) {
            rc = get_value(task, b, whole ? TQI_KV_WHOLE : part, size, merged, n);
        }
        if (rc == TQ_OK && task->buffered > GET_BUFFERED) {
            rc = get_flush(task);
        }
    }
    return rc;
}

static void get_work(void *arg)
{
    get_task *task = arg;
    const tq_get_job *job = task->run->job;
    tq_get_range *merged = calloc(task->end - task->first + 1, sizeof(*merged));
    int rc = merged != NULL ? TQ_OK : TQ_ENOMEM;

    for (uint32_t r = task->first; r < task->end && rc == TQ_OK;) {
        uint32_t end = r;
        while (end < task->end && job->ranges[end].block == job->ranges[r].block) {
            end++;
        }
        rc = get_block(task, r, end, merged);
        r = end;
    }
    if (rc == TQ_OK) {
        rc = get_flush(task);
    }
    if (rc == TQ_ENOMEM && task->err.code == TQ_OK) {
        tqi_error_nomem(&task->err, "reading values");
    } else if (rc != TQ_OK && task->err.code == TQ_OK) {
        tqi_error_set(&task->err, rc, "storage %s: reading failed", task->run->kv->owner);
    } else if (rc == TQ_OK) {
        task->err.code = TQ_OK; /* a client may have left an error that it recovered from */
    }
    get_forget(task);
    free(merged);
    free(task->reads);
    free(task->keys);
    free(task->blocks);
    free(task->buffers);
    free(task->copies);
}

/* --- the job -------------------------------------------------------------- */

static void get_end(get_run *run, const tq_error *err)
{
    tq_manager_host *host = run->kv->host;
    uint32_t *gone = calloc((size_t)run->job->n_blocks + 1, sizeof(*gone));
    uint32_t n = 0;
    tq_error nomem = {0};

    if (gone == NULL && err == NULL) {
        tqi_error_nomem(&nomem, "the end of a get");
        err = &nomem;
    }
    for (uint32_t b = 0; gone != NULL && run->gone != NULL && b < run->job->n_blocks; b++) {
        if (run->gone[b]) {
            gone[n++] = b;
        }
    }
    host->get_finish(host, run->job, err, gone, err != NULL ? 0 : n);
    free(gone);
    free(run->gone);
    free(run->tasks);
    free(run);
}

static void get_done(void *arg)
{
    get_task *task = arg;
    get_run *run = task->run;
    const tq_error *err = NULL;

    if (--run->running > 0) {
        return;
    }
    for (unsigned t = 0; t < run->n_tasks; t++) {
        err = run->tasks[t].err.code != TQ_OK ? &run->tasks[t].err : err;
    }
    get_end(run, err);
}

/* Divides the ranges into tasks of similar size, at block boundaries. */
static void get_share(get_run *run)
{
    const tq_get_job *job = run->job;
    uint64_t total = 0, bytes = 0;
    uint32_t first = 0;

    for (uint32_t r = 0; r < job->n_ranges; r++) {
        total += job->ranges[r].size;
    }
    uint64_t share = total / TQI_KV_TASKS + 1;
    share = share < TQI_KV_TASK_BYTES ? TQI_KV_TASK_BYTES : share;
    for (uint32_t r = 0; r < job->n_ranges; r++) {
        bool last = r + 1 == job->n_ranges;
        bytes += job->ranges[r].size;
        if (last ||
            (bytes >= share && run->n_tasks + 1 < TQI_KV_TASKS && job->ranges[r + 1].block != job->ranges[r].block)) {
            run->tasks[run->n_tasks++] = (get_task){.run = run, .first = first, .end = r + 1};
            first = r + 1;
            bytes = 0;
        }
    }
}

void tqi_kv_get_start(void *state, tq_get_job *job)
{
    tqi_kv *kv = state;
    get_run *run = calloc(1, sizeof(*run));
    tq_error err = {0};

    tqi_error_nomem(&err, "a get");
    if (run == NULL) {
        kv->host->get_finish(kv->host, job, &err, NULL, 0);
        return;
    }
    run->kv = kv;
    run->job = job;
    run->gone = calloc((size_t)job->n_blocks + 1, sizeof(*run->gone));
    run->tasks = calloc(TQI_KV_TASKS, sizeof(*run->tasks));
    if (run->gone == NULL || run->tasks == NULL) {
        get_end(run, &err);
        return;
    }
    get_share(run);
    if (run->n_tasks == 0) {
        get_end(run, NULL);
        return;
    }
    run->running = run->n_tasks + 1;
    for (unsigned t = 0; t < run->n_tasks; t++) {
        if (kv->host->work(kv->host, get_work, get_done, &run->tasks[t]) != TQ_OK) {
            run->tasks[t].err = err;
            run->running--;
        }
    }
    get_done(&run->tasks[0]);
}
