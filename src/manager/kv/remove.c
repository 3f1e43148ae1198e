/*
 * remove.c - removes dead blocks. A block is known here only by its id. Most are one value; an id without one was
 * never written, or is a block of several values, as its head says. While some of them may still arrive, the head
 * stays, so that the last removal can find them.
 */
#include "manager/kv/kv.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

/* Keys of one request to the store. */
#define REMOVE_KEYS 1024u
/* Most values of one block: a head's number is checked, because it comes from a store. */
#define REMOVE_PARTS_MAX (UINT64_C(1) << 24)
/* Seconds that a request may take; closing waits for it. After a failure the notice is redelivered. */
#define REMOVE_SECONDS 4.0

typedef struct remove_job {
    tqi_kv *kv;
    uint64_t epoch;
    uint64_t *ids;
    size_t n;
    size_t done_ids; /* number of leading ids to which no write can arrive any more */
    void (*done)(const tq_error *err, void *arg);
    void *arg;
    tq_error err;
} remove_job;

typedef struct remove_keys {
    tqi_kv_key_text text[REMOVE_KEYS];
    tq_kv_key keys[REMOVE_KEYS];
    tq_kv_read heads[REMOVE_KEYS];
    uint8_t counts[REMOVE_KEYS][8];
} remove_keys;

static int remove_now(remove_job *job, remove_keys *keys, size_t n)
{
    const tqi_kv *kv = job->kv;

    for (size_t i = 0; i < n; i++) {
        keys->keys[i] = (tq_kv_key){.key = keys->text[i].text};
    }
    return n == 0 ? TQ_OK : kv->client->remove(kv->store, keys->keys, n, tqi_deadline(REMOVE_SECONDS), &job->err);
}

/* A block of `parts` values: its head is removed last, if at all. */
static int remove_parts(remove_job *job, remove_keys *keys, uint64_t id, uint64_t parts, bool head)
{
    int rc = TQ_OK;
    size_t n = 0;

    for (uint64_t part = 0; part < parts && rc == TQ_OK; part++) {
        tqi_kv_key_of(&keys->text[n++], job->epoch, id, part);
        if (n == REMOVE_KEYS || part + 1 == parts) {
            rc = remove_now(job, keys, n);
            n = 0;
        }
    }
    if (rc == TQ_OK && head) {
        tqi_kv_key_of(&keys->text[0], job->epoch, id, TQI_KV_HEAD);
        rc = remove_now(job, keys, 1);
    }
    return rc;
}

/* Of blocks that have no value of their own, at these places. */
static int remove_headed(remove_job *job, remove_keys *keys, const size_t *places, size_t n)
{
    const tqi_kv *kv = job->kv;
    struct headed {
        size_t place;
        uint64_t parts;
    } *found = calloc(n, sizeof(*found));
    size_t n_found = 0;
    int rc;

    if (found == NULL) {
        return tqi_error_nomem(&job->err, "removing values");
    }
    for (size_t i = 0; i < n; i++) {
        tqi_kv_key_of(&keys->text[i], job->epoch, job->ids[places[i]], TQI_KV_HEAD);
        memset(keys->counts[i], 0, sizeof(keys->counts[i]));
        keys->heads[i] = (tq_kv_read){.key = keys->text[i].text, .value_size = 8, .size = 8, .dest = keys->counts[i]};
    }
    rc = kv->client->get(kv->store, keys->heads, n, tqi_deadline(REMOVE_SECONDS), &job->err);
    for (size_t i = 0; i < n && rc == TQ_OK; i++) {
        if (!keys->heads[i].missing) {
            found[n_found++] = (struct headed){.place = places[i], .parts = tqi_kv_from_le64(keys->counts[i])};
        }
    }
    for (size_t i = 0; i < n_found && rc == TQ_OK; i++) {
        uint64_t id = job->ids[found[i].place];
        if (found[i].parts == 0 || found[i].parts > REMOVE_PARTS_MAX) {
            rc = tqi_error_set(&job->err, TQ_EPROTO, "storage %s: the head of block %llu is damaged", kv->owner,
                               (unsigned long long)id);
            break;
        }
        rc = remove_parts(job, keys, id, found[i].parts, found[i].place < job->done_ids);
    }
    free(found);
    return rc;
}

/* Those from place `first` on. */
static int remove_some(remove_job *job, remove_keys *keys, size_t first, size_t n)
{
    size_t headed[REMOVE_KEYS];
    size_t n_headed = 0;
    int rc;

    for (size_t i = 0; i < n; i++) {
        tqi_kv_key_of(&keys->text[i], job->epoch, job->ids[first + i], TQI_KV_WHOLE);
    }
    rc = remove_now(job, keys, n);
    for (size_t i = 0; i < n && rc == TQ_OK; i++) {
        if (keys->keys[i].missing) {
            headed[n_headed++] = first + i;
        }
    }
    return rc == TQ_OK && n_headed > 0 ? remove_headed(job, keys, headed, n_headed) : rc;
}

static void remove_work(void *arg)
{
    remove_job *job = arg;
    remove_keys *keys = malloc(sizeof(*keys));
    int rc = TQ_OK;

    if (keys == NULL) {
        tqi_error_nomem(&job->err, "removing values");
        return;
    }
    for (size_t i = 0; i < job->n && rc == TQ_OK; i += REMOVE_KEYS) {
        size_t n = job->n - i < REMOVE_KEYS ? job->n - i : REMOVE_KEYS;
        rc = remove_some(job, keys, i, n);
    }
    if (rc != TQ_OK && job->err.code == TQ_OK) {
        tqi_error_set(&job->err, rc, "storage %s: removing failed", job->kv->owner);
    } else if (rc == TQ_OK) {
        job->err.code = TQ_OK; /* a client may have noted what it has got over */
    }
    free(keys);
}

static void remove_done(void *arg)
{
    remove_job *job = arg;
    tqi_kv *kv = job->kv;
    bool removed = job->err.code == TQ_OK;

    job->done(removed ? NULL : &job->err, job->arg);
    free(job->ids);
    free(job);
    if (removed && kv->full != NULL) {
        tqi_kv_put_retry(kv);
    }
}

void tqi_kv_remove_start(void *state, uint64_t incarnation, const uint64_t *ids, size_t n,
                         void (*done)(const tq_error *err, void *arg), void *arg)
{
    tqi_kv *kv = state;
    remove_job *job = calloc(1, sizeof(*job));
    uint64_t *copy = calloc(n + 1, sizeof(*copy));
    const tqi_manager_internal *internal = kv->host->internal;
    tq_error err = {0};

    if (job != NULL && copy != NULL) {
        memcpy(copy, ids, n * sizeof(*ids));
        *job = (remove_job){
            .kv = kv,
            .epoch = incarnation,
            .ids = copy,
            .n = n,
            .done_ids = n - internal->n_late,
            .done = done,
            .arg = arg,
        };
        if (kv->host->work(kv->host, remove_work, remove_done, job) == TQ_OK) {
            return;
        }
    }
    free(job);
    free(copy);
    tqi_error_nomem(&err, "removing values");
    done(&err, arg);
}
