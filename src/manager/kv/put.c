/*
 * put.c - writing values to the store, and waiting for room.
 *
 * A put grants a block id per value, and writes the values in a few tasks on the pool. When the store has no room,
 * what was written is removed again, so that two puts cannot starve each other with halves, and the put waits until
 * this client has removed something, or until a timer fires, because another client may have. If that removal got no
 * answer, it may still be executed, so the put goes on with other ids. An external store has no
 * other way to tell us; the pauses grow to a second. The controller does not know of such a wait, so it is not in the
 * status; the log names it after the notice time. A put that fails abandons its ids: they come back as dead and are
 * removed, twice if the store has not answered, because it may still execute the writes after the first removal.
 */
#include "manager/kv/kv.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

#include "base/clock.h"
#include "base/log.h"

#define PUT_PAUSE_MIN_MS 20u
#define PUT_PAUSE_MAX_MS 1000u
#define PUT_AGAIN_NS     UINT64_C(60000000000) /* until the same wait is named again */

/* Values [first, end) of a put; a block's are all in one task. */
typedef struct put_task {
    tqi_kv_put *put;
    size_t first, end;
    bool removing; /* a removal of what it wrote may still be executed */
    tq_error err;
} put_task;

struct tqi_kv_put {
    tqi_kv *kv;
    tq_put_job *job;
    tqi_kv_cut cut;
    uint32_t granted; /* blocks that have their ids */
    uint64_t epoch;   /* they were granted under */
    put_task tasks[TQI_KV_TASKS];
    unsigned n_tasks;
    unsigned running;
    bool canceled;
    bool unsure;   /* data sent to the store may still arrive there */
    bool waiting;  /* in kv->full */
    tq_error full; /* why it waits, or has waited */
    uint64_t pause_ms;
    uint64_t since;  /* it has waited */
    uint64_t say_at; /* when the log is to name it */
    tqi_kv_put *prev, *next;
};

static void put_grant(tqi_kv_put *put);
static void put_write(tqi_kv_put *put);

/* --- the end -------------------------------------------------------------- */

/* `unsure`: data sent to the store may still arrive there. */
static void put_abandon(tqi_kv_put *put, bool unsure)
{
    tq_manager_host *host = put->kv->host;
    uint64_t ids[TQ_GRANT_MAX];

    for (uint32_t b = 0; b < put->granted;) {
        size_t n = 0;
        while (b < put->granted && n < TQ_GRANT_MAX) {
            ids[n++] = put->cut.blocks[b++].id;
        }
        host->abandon(host, ids, n, !unsure);
    }
    put->granted = 0;
}

static void put_end(tqi_kv_put *put, const tq_error *err)
{
    tq_manager_host *host = put->kv->host;

    if (err != NULL) {
        put_abandon(put, put->unsure);
        host->put_finish(host, put->job, err, NULL, 0, NULL, 0);
    } else {
        host->put_finish(host, put->job, NULL, put->cut.blocks, put->cut.n_blocks, put->cut.extents, put->cut.n_extents);
    }
    tqi_kv_cut_fini(&put->cut);
    free(put);
}

/* --- room ----------------------------------------------------------------- */

static void put_on_timer(uv_timer_t *timer)
{
    tqi_kv_put_retry(timer->data);
}

/* Names a put that has waited for long. */
static void put_notice(tqi_kv_put *put, uint64_t now)
{
    const tqi_manager_internal *internal = put->kv->host->internal;

    if (put->since == 0) {
        put->since = now;
        put->say_at = internal->notice_ms > 0 ? now + internal->notice_ms * UINT64_C(1000000) : TQI_NEVER;
    }
    if (now >= put->say_at) {
        put->say_at = now + PUT_AGAIN_NS;
        tqi_log(TQI_WARN, "client", "a put of %llu bytes has waited %.1f s for room in storage %s: %s",
                (unsigned long long)put->cut.bytes, (double)(now - put->since) / 1e9, put->kv->owner, put->full.message);
    }
}

static void put_wait(tqi_kv_put *put)
{
    tqi_kv *kv = put->kv;
    uint64_t now = tqi_now(), pause = put->pause_ms == 0 ? PUT_PAUSE_MIN_MS : put->pause_ms;
    uint64_t left = put->job->deadline_ns == TQI_NEVER ? UINT64_MAX
                    : put->job->deadline_ns > now      ? (put->job->deadline_ns - now) / 1000000 + 1
                                                       : 0;

    put_notice(put, now);
    put->pause_ms = pause * 2 > PUT_PAUSE_MAX_MS ? PUT_PAUSE_MAX_MS : pause * 2;
    put->waiting = true;
    DL_APPEND(kv->full, put);
    pause = left < pause ? left : pause;
    if (!uv_is_active((uv_handle_t *)&kv->retry) || uv_timer_get_due_in(&kv->retry) > pause) {
        uv_timer_start(&kv->retry, put_on_timer, pause, 0);
    }
}

void tqi_kv_put_retry(tqi_kv *kv)
{
    tqi_kv_put *waiting = kv->full, *put, *next;

    kv->full = NULL;
    uv_timer_stop(&kv->retry);
    DL_FOREACH (waiting, put) {
        put->waiting = false; /* the end of one may cancel another, which is not in kv->full any more */
    }
    DL_FOREACH_SAFE (waiting, put, next) {
        DL_DELETE(waiting, put);
        if (tqi_now() >= put->job->deadline_ns) {
            put_end(put, &put->full);
        } else {
            put_grant(put);
        }
    }
}

void tqi_kv_put_cancel(void *state, tq_put_job *job)
{
    tqi_kv *kv = state;
    tqi_kv_put *put = job->user;
    tq_error err = {0};

    if (put == NULL) {
        return;
    }
    put->canceled = true;
    if (put->waiting) {
        DL_DELETE(kv->full, put);
        tqi_error_set(&err, TQ_ECANCELED, "the put was cancelled while the store was full");
        put_end(put, &err);
    }
}

/* --- writing -------------------------------------------------------------- */

/* Removes what a task may have written; false if the store has not said that it has. Values that cannot be removed now
 * are removed when the abandoned ids come back. */
static bool put_undo(const put_task *task, tqi_kv_key_text *keys, size_t n)
{
    const tqi_kv *kv = task->put->kv;
    tq_kv_key *gone = calloc(n + 1, sizeof(*gone));
    tq_error err = {0};

    if (gone == NULL) {
        return true; /* nothing was asked for */
    }
    for (size_t i = 0; i < n; i++) {
        gone[i].key = keys[i].text;
    }
    int rc = kv->client->remove(kv->store, gone, n, task->put->job->deadline_ns, &err);
    free(gone);
    return rc == TQ_OK;
}

/* Heads first, then the values. */
static int put_store(const tqi_kv *kv, const tq_kv_value *heads, size_t n_heads, const tq_kv_value *values,
                     size_t n_values, uint64_t deadline, tq_error *err)
{
    int rc = n_heads > 0 ? kv->client->put(kv->store, heads, n_heads, deadline, err) : TQ_OK;

    return rc == TQ_OK ? kv->client->put(kv->store, values, n_values, deadline, err) : rc;
}

/* Describes the values of a task, and the heads of its blocks of several values. Returns the number of heads. */
static size_t put_describe(const put_task *task, tqi_kv_key_text *keys, tq_kv_value *values, uint8_t (*counts)[8],
                           tq_slice *counted)
{
    const tqi_kv_put *put = task->put;
    size_t n = task->end - task->first, heads = 0;

    for (size_t i = 0; i < n; i++) {
        const tqi_kv_cut_value *value = &put->cut.values[task->first + i];
        const tq_block *block = &put->cut.blocks[value->block];
        tqi_kv_key_of(&keys[i], put->epoch, block->id, value->part);
        values[i] = (tq_kv_value){
            .key = keys[i].text,
            .slices = value->slices,
            .n_slices = value->n_slices,
            .size = value->size,
        };
        if (value->part == 0) {
            uint64_t part_size = tqi_kv_from_le64(block->locator);
            size_t at = n + heads;
            tqi_kv_key_of(&keys[at], put->epoch, block->id, TQI_KV_HEAD);
            tqi_kv_le64(counts[heads], tqi_kv_parts(block->size, part_size));
            counted[heads] = (tq_slice){.data = counts[heads], .size = 8};
            values[at] = (tq_kv_value){.key = keys[at].text, .slices = &counted[heads], .n_slices = 1, .size = 8};
            heads++;
        }
    }
    return heads;
}

static void put_work(void *arg)
{
    put_task *task = arg;
    const tqi_kv *kv = task->put->kv;
    size_t n = task->end - task->first;
    tqi_kv_key_text *keys = calloc(2 * n + 1, sizeof(*keys));
    tq_kv_value *values = calloc(2 * n + 1, sizeof(*values));
    uint8_t(*counts)[8] = calloc(n + 1, sizeof(*counts));
    tq_slice *counted = calloc(n + 1, sizeof(*counted));

    if (keys == NULL || values == NULL || counts == NULL || counted == NULL) {
        tqi_error_nomem(&task->err, "writing values");
    } else if (n > 0) {
        size_t heads = put_describe(task, keys, values, counts, counted);
        int rc = put_store(kv, values + n, heads, values, n, task->put->job->deadline_ns, &task->err);
        if (rc == TQ_OK) {
            task->err.code = TQ_OK; /* a client may have noted what it has got over */
        }
        if (rc != TQ_OK && task->err.code == TQ_OK) {
            tqi_error_set(&task->err, rc, "storage %s: writing failed", kv->owner);
        }
        if (rc == TQ_EFULL) {
            task->removing = !put_undo(task, keys, n + heads);
        }
    }
    free(keys);
    free(values);
    free(counts);
    free(counted);
}

/* A put can wait if the store is full; any other error of a task is the put's error. */
static void put_written(void *arg)
{
    put_task *task = arg;
    tqi_kv_put *put = task->put;
    const tq_error *full = NULL, *failed = NULL;
    bool removing = false;

    if (--put->running > 0) {
        return;
    }
    for (unsigned t = 0; t < put->n_tasks; t++) {
        removing = removing || put->tasks[t].removing;
        const tq_error *err = &put->tasks[t].err;
        full = err->code == TQ_EFULL ? err : full;
        failed = err->code != TQ_OK && err->code != TQ_EFULL ? err : failed;
    }
    bool late = tqi_now() >= put->job->deadline_ns;
    if (failed == NULL && full != NULL && put->job->wait_when_full && !late && !put->canceled) {
        put->full = *full;
        if (removing) {
            put_abandon(put, true);
        }
        put_wait(put);
        return;
    }
    put->unsure = failed != NULL; /* full is an answer */
    if (failed != NULL && failed->code == TQ_ETIMEDOUT && put->full.code != TQ_OK) {
        failed = &put->full; /* what the time went by with */
    }
    put_end(put, failed != NULL ? failed : full);
}

/* Divides the values into tasks of similar size, at block boundaries. */
static void put_share(tqi_kv_put *put)
{
    const tqi_kv_cut *cut = &put->cut;
    uint64_t share = cut->bytes / TQI_KV_TASKS + 1, bytes = 0;
    size_t first = 0;

    share = share < TQI_KV_TASK_BYTES ? TQI_KV_TASK_BYTES : share;
    put->n_tasks = 0;
    for (size_t v = 0; v < cut->n_values; v++) {
        bool last = v + 1 == cut->n_values;
        bytes += cut->values[v].size;
        if (last ||
            (bytes >= share && put->n_tasks + 1 < TQI_KV_TASKS && cut->values[v + 1].block != cut->values[v].block)) {
            put->tasks[put->n_tasks++] = (put_task){.put = put, .first = first, .end = v + 1};
            first = v + 1;
            bytes = 0;
        }
    }
}

static void put_write(tqi_kv_put *put)
{
    tq_manager_host *host = put->kv->host;

    put_share(put);
    if (put->n_tasks == 0) { /* a batch of empty rows */
        put_end(put, NULL);
        return;
    }
    put->running = put->n_tasks + 1;
    for (unsigned t = 0; t < put->n_tasks; t++) {
        if (host->work(host, put_work, put_written, &put->tasks[t]) != TQ_OK) {
            tqi_error_nomem(&put->tasks[t].err, "a task of the thread pool");
            put->running--;
        }
    }
    put_written(&put->tasks[0]);
}

/* --- ids ------------------------------------------------------------------ */

static void put_granted(const tq_error *err, uint64_t first, uint64_t incarnation, void *arg)
{
    tqi_kv_put *put = arg;
    tq_error stale = {0};

    if (err == NULL && put->granted > 0 && incarnation != put->epoch) {
        tqi_error_set(&stale, TQ_ESTALE, "storage %s: the controller was restarted during a put", put->kv->owner);
        put->granted = 0; /* those ids ended with their epoch */
        err = &stale;
    }
    if (err == NULL && put->canceled) {
        tqi_error_set(&stale, TQ_ECANCELED, "the put was cancelled");
        err = &stale;
    }
    if (err != NULL) {
        put_end(put, err);
        return;
    }
    put->epoch = incarnation;
    for (uint64_t i = 0; put->granted < put->cut.n_blocks && i < TQ_GRANT_MAX; i++) {
        tq_block *block = &put->cut.blocks[put->granted++];
        block->id = first + i;
        block->owner = put->kv->owner;
        block->owner_incarnation = incarnation;
    }
    put_grant(put);
}

static void put_grant(tqi_kv_put *put)
{
    tq_manager_host *host = put->kv->host;
    uint32_t left = put->cut.n_blocks - put->granted;

    if (left == 0) {
        put_write(put);
        return;
    }
    host->grant(host, put->kv->owner, left < TQ_GRANT_MAX ? left : TQ_GRANT_MAX, put->job->deadline_ns, put_granted,
                put);
}

void tqi_kv_put_start(void *state, tq_put_job *job)
{
    tqi_kv *kv = state;
    tqi_kv_put *put = calloc(1, sizeof(*put));
    tq_error err = {0};

    job->user = NULL;
    if (put == NULL) {
        tqi_error_nomem(&err, "a put");
        kv->host->put_finish(kv->host, job, &err, NULL, 0, NULL, 0);
        return;
    }
    put->kv = kv;
    put->job = job;
    if (tqi_kv_cut_make(job, kv->client->value_max, &put->cut, &err) != TQ_OK) {
        put_end(put, &err);
        return;
    }
    job->user = put;
    put_grant(put);
}
