/*
 * end.c - the clean shutdown of a system: its daemon removes the stored data, because there may be no client left to
 * do it. The controller no longer serves anybody. Data that a client was writing when it ended may still arrive, so
 * the store is scanned until nothing new is found. The keepalives and the mark go last: a daemon that is killed before
 * that leaves them, and the next system removes the rest (see sweep.c).
 */
#include "manager/kv/kv.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

#define END_KEYS 1024u

typedef struct end_batch {
    const tq_kv_client *client;
    void *store;
    uint64_t deadline;
    char prefix[TQ_KV_KEY_MAX + 1];
    uint64_t removed; /* values, in all */
    size_t n;
    int code;
    tq_error err;
    tqi_kv_key_text keys[END_KEYS];
} end_batch;

static void end_flush(end_batch *batch)
{
    tq_kv_key gone[END_KEYS];

    for (size_t i = 0; i < batch->n; i++) {
        gone[i] = (tq_kv_key){.key = batch->keys[i].text};
    }
    if (batch->n > 0 && batch->code == TQ_OK) {
        batch->code = batch->client->remove(batch->store, gone, batch->n, batch->deadline, &batch->err);
    }
    for (size_t i = 0; i < batch->n && batch->code == TQ_OK; i++) {
        batch->removed += !gone[i].missing;
    }
    batch->n = 0;
}

/* Whether a key is a sign that the system is alive, rather than a value. */
static bool end_is_sign(const end_batch *batch, const char *key)
{
    const char *name = key + strlen(batch->prefix);

    return strcmp(name, TQI_KV_KEEPALIVE) == 0 || strcmp(name, TQI_KV_SEARCHER) == 0 || strcmp(name, TQI_KV_MARK) == 0;
}

static bool end_take(const char *key, void *arg)
{
    end_batch *batch = arg;

    if (key != NULL && strlen(key) <= TQ_KV_KEY_MAX && !end_is_sign(batch, key)) {
        snprintf(batch->keys[batch->n].text, sizeof(batch->keys[0].text), "%s", key);
        batch->n++;
    }
    if (batch->n == END_KEYS) {
        end_flush(batch);
    }
    return batch->code == TQ_OK && tqi_now() < batch->deadline;
}

static int end_values(end_batch *batch)
{
    uint64_t before;

    do {
        before = batch->removed;
        int rc = batch->client->list(batch->store, batch->prefix, end_take, batch, batch->deadline, &batch->err);
        end_flush(batch);
        batch->code = batch->code == TQ_OK ? rc : batch->code;
        if (batch->code == TQ_OK && tqi_now() >= batch->deadline) {
            batch->code = tqi_error_set(&batch->err, TQ_ETIMEDOUT, "there was no time to remove all of it");
        }
    } while (batch->code == TQ_OK && batch->removed > before);
    return batch->code;
}

static void end_signs(end_batch *batch)
{
    static const char *const names[] = {TQI_KV_KEEPALIVE, TQI_KV_SEARCHER, TQI_KV_MARK};
    uint64_t values = batch->removed;

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        snprintf(batch->keys[batch->n++].text, sizeof(batch->keys[0].text), "%s%s", batch->prefix, names[i]);
    }
    end_flush(batch);
    batch->removed = values;
}

int tqi_kv_end(const tq_kv_client *client, const char *config, uint64_t epoch, double seconds, uint64_t *removed,
               tq_error *err)
{
    end_batch *batch = calloc(1, sizeof(*batch));
    void *store = calloc(1, client->state_size + 1);

    *removed = 0;
    if (batch == NULL || store == NULL) {
        free(batch);
        free(store);
        return tqi_error_nomem(err, "removing values");
    }
    batch->client = client;
    batch->store = store;
    batch->deadline = tqi_deadline(seconds);
    snprintf(batch->prefix, sizeof(batch->prefix), "tq/%016" PRIx64 "/", epoch);
    int rc = client->open(store, client, config, &batch->err);
    if (rc == TQ_OK) {
        rc = end_values(batch);
        if (rc == TQ_OK) {
            end_signs(batch);
            rc = batch->code;
        }
        client->close(store);
    }
    *removed = batch->removed;
    if (rc != TQ_OK) {
        tqi_error_set(err, rc, "%s", batch->err.message[0] ? batch->err.message : "the store refused it");
    }
    free(store);
    free(batch);
    return rc;
}
