/*
 * sweep.c - values of systems that have ended.
 *
 * A killed system leaves its values in the store, under keys with its epoch. There is no way to ask whether an epoch's
 * controller is alive, so each client keeps a keepalive for its own epoch: a key that the store drops by itself if
 * nobody renews it for `sweep_after` seconds. An epoch with values but without a keepalive has ended: its values are
 * removed. Two things protect the values of live systems. The keepalive is written before the first value and lasts
 * long: a system may be without any client for that time. And an epoch must be found without a keepalive twice,
 * several renewals apart: keepalives are the first thing that a store short of memory may evict, and clients restore
 * them. Everything except the first keepalive is done by one thread per client, because it may take long: listing a
 * store reads all of its keys. One client of an epoch searches for ended epochs, at once and again each time a
 * keepalive could have expired; the others only renew. The searching client holds a second, short keepalive that it
 * renews along with the first: when it has ended, the next client that renews takes that keepalive and starts over.
 */
#include "manager/kv/kv.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/text.h"
#include "config_keys.h"

/* Seconds without a client until a system counts as ended. Keepalives shorter than the minimum would expire between
 * renewals, and stores do not accept ones longer than the maximum. */
#define SWEEP_AFTER     ((double)TQI_CONFIG_BACKEND_REDIS_SWEEP_AFTER_DEFAULT)
#define SWEEP_AFTER_MIN ((double)TQI_CONFIG_BACKEND_REDIS_SWEEP_AFTER_MIN)
#define SWEEP_AFTER_MAX ((double)TQI_CONFIG_BACKEND_REDIS_SWEEP_AFTER_MAX)
/* Longest time between renewals in seconds, and how many renewals lie between the two checks. */
#define SWEEP_RENEWAL 60.0
#define SWEEP_TURNS   3u
/* Seconds that one request, and one listing, may take. Closing waits for a request. */
#define SWEEP_SECONDS      4.0
#define SWEEP_LIST_SECONDS 600.0
/* Most epochs per search; others are left for the next one. */
#define SWEEP_EPOCHS 1024u
#define SWEEP_KEYS   1024u
#define SWEEP_PREFIX "tq/"

/* Removing the values of an epoch while they are listed. */
typedef struct sweep_batch {
    tqi_kv *kv;
    size_t n;
    uint64_t removed;
    int code;
    tq_error err;
    tqi_kv_key_text keys[SWEEP_KEYS];
} sweep_batch;

/* A key of an epoch that is not a block's. */
static void sweep_key(tqi_kv_key_text *out, uint64_t epoch, const char *what)
{
    snprintf(out->text, sizeof(out->text), SWEEP_PREFIX "%016" PRIx64 "/%s", epoch, what);
}

static bool sweep_closing(tqi_kv_sweep *sweep)
{
    pthread_mutex_lock(&sweep->lock);
    bool closing = sweep->closing;
    pthread_mutex_unlock(&sweep->lock);
    return closing;
}

/* --- keepalives ----------------------------------------------------------- */

static int sweep_has(tqi_kv *kv, uint64_t epoch, const char *what, bool *out, tq_error *err)
{
    tqi_kv_key_text key;
    char value;
    tq_kv_read read = {.key = key.text, .value_size = 1, .size = 1, .dest = &value};

    sweep_key(&key, epoch, what);
    int rc = kv->client->get(kv->store, &read, 1, tqi_deadline(SWEEP_SECONDS), err);
    *out = rc == TQ_OK && !read.missing;
    return rc;
}

static int sweep_has_keepalive(tqi_kv *kv, uint64_t epoch, bool *out, tq_error *err)
{
    return sweep_has(kv, epoch, TQI_KV_KEEPALIVE, out, err);
}

/* Renews the search keepalive if this client has it, and takes it if nobody has. */
static int sweep_renew_looks(tqi_kv *kv, tq_error *err)
{
    tqi_kv_sweep *sweep = &kv->sweep;
    tqi_kv_key_text key;
    bool had = false;
    int rc = sweep->looks ? TQ_OK : sweep_has(kv, sweep->keepalived, TQI_KV_SEARCHER, &had, err);

    if (rc != TQ_OK || had) {
        return rc;
    }
    sweep_key(&key, sweep->keepalived, TQI_KV_SEARCHER);
    rc = kv->client->keepalive(kv->store, key.text, sweep->renewal * SWEEP_TURNS, tqi_deadline(SWEEP_SECONDS), err);
    if (rc == TQ_OK && !sweep->looks) {
        sweep->looks = true;
        sweep->second = 0;
        sweep->next = 0;
    }
    return rc;
}

/* The keepalive of the epoch, with its mark. */
static int sweep_renew(tqi_kv *kv, uint64_t epoch, tq_error *err)
{
    tqi_kv_key_text key, mark;
    const tq_slice one = {.data = "1", .size = 1};
    const tq_kv_value value = {.key = mark.text, .slices = &one, .n_slices = 1, .size = 1};
    bool had = false;
    int rc = sweep_has_keepalive(kv, epoch, &had, err);

    kv->sweep.due = tqi_now() + (uint64_t)(kv->sweep.renewal * 1e9);
    if (rc == TQ_OK && !had && epoch == kv->sweep.keepalived) {
        bool marked = false;
        rc = sweep_has(kv, epoch, TQI_KV_MARK, &marked, err);
        if (rc == TQ_OK && !marked) {
            return TQ_OK; /* the system has ended, and its daemon has removed everything */
        }
    }
    if (rc == TQ_OK) {
        sweep_key(&key, epoch, TQI_KV_KEEPALIVE);
        rc = kv->client->keepalive(kv->store, key.text, kv->sweep.after, tqi_deadline(SWEEP_SECONDS), err);
    }
    if (rc == TQ_OK && !had) {
        sweep_key(&mark, epoch, TQI_KV_MARK);
        rc = kv->client->put(kv->store, &value, 1, tqi_deadline(SWEEP_SECONDS), err);
    }
    if (rc == TQ_OK && epoch != kv->sweep.keepalived) {
        kv->sweep.keepalived = epoch;
        kv->sweep.looks = false;
    }
    return rc == TQ_OK ? sweep_renew_looks(kv, err) : rc;
}

/* Called throughout long work: if the keepalive expired meanwhile, others would think that we have ended. Errors here
 * are reported at the next renewal. */
static void sweep_keep(tqi_kv *kv)
{
    tq_error err = {0};

    if (kv->sweep.keepalived != 0 && tqi_now() >= kv->sweep.due) {
        sweep_renew(kv, kv->sweep.keepalived, &err);
    }
}

/* --- looking -------------------------------------------------------------- */

/* The epoch of a mark: tq/EPOCH/kept. */
static bool sweep_epoch_of(const char *key, uint64_t *out)
{
    size_t prefix = strlen(SWEEP_PREFIX);
    char *end;

    if (strncmp(key, SWEEP_PREFIX, prefix) != 0 || strspn(key + prefix, "0123456789abcdef") != 16) {
        return false;
    }
    *out = strtoull(key + prefix, &end, 16);
    return strcmp(end, "/" TQI_KV_MARK) == 0;
}

static bool sweep_note(const char *key, void *arg)
{
    tqi_kv *kv = arg;
    tqi_kv_sweep *sweep = &kv->sweep;
    uint64_t epoch;
    size_t i = 0;

    sweep_keep(kv);
    if (key != NULL && sweep_epoch_of(key, &epoch) && epoch != sweep->keepalived) {
        while (i < sweep->n_suspects && sweep->suspects[i] != epoch) {
            i++;
        }
        if (i == sweep->n_suspects && i < SWEEP_EPOCHS) {
            sweep->suspects[sweep->n_suspects++] = epoch;
        }
    }
    return !sweep_closing(sweep);
}

/* Drops those that have a keepalive. */
static int sweep_check(tqi_kv *kv, tq_error *err)
{
    tqi_kv_sweep *sweep = &kv->sweep;
    size_t left = 0;
    int rc = TQ_OK;

    for (size_t i = 0; i < sweep->n_suspects && rc == TQ_OK; i++) {
        bool keepalived;
        sweep_keep(kv);
        rc = sweep_has_keepalive(kv, sweep->suspects[i], &keepalived, err);
        if (rc == TQ_OK && !keepalived) {
            sweep->suspects[left++] = sweep->suspects[i];
        }
    }
    sweep->n_suspects = rc == TQ_OK ? left : 0;
    return rc;
}

/* Which epochs have a mark and no keepalive. */
static int sweep_look(tqi_kv *kv, tq_error *err)
{
    tqi_kv_sweep *sweep = &kv->sweep;

    sweep->n_suspects = 0;
    if (sweep->suspects == NULL) {
        sweep->suspects = calloc(SWEEP_EPOCHS, sizeof(*sweep->suspects));
    }
    if (sweep->suspects == NULL) {
        return tqi_error_nomem(err, "a sweep");
    }
    int rc = kv->client->list(kv->store, SWEEP_PREFIX, sweep_note, kv, tqi_deadline(SWEEP_LIST_SECONDS), err);
    return rc == TQ_OK ? sweep_check(kv, err) : rc;
}

/* --- removing ------------------------------------------------------------- */

static void sweep_flush(sweep_batch *batch)
{
    tq_kv_key gone[SWEEP_KEYS];

    for (size_t i = 0; i < batch->n; i++) {
        gone[i] = (tq_kv_key){.key = batch->keys[i].text};
    }
    if (batch->n > 0 && batch->code == TQ_OK) {
        const tqi_kv *kv = batch->kv;
        batch->code = kv->client->remove(kv->store, gone, batch->n, tqi_deadline(SWEEP_SECONDS), &batch->err);
    }
    for (size_t i = 0; i < batch->n && batch->code == TQ_OK; i++) {
        batch->removed += !gone[i].missing;
    }
    batch->n = 0;
}

static bool sweep_take(const char *key, void *arg)
{
    sweep_batch *batch = arg;
    uint64_t marked;

    sweep_keep(batch->kv);
    if (key != NULL && strlen(key) <= TQ_KV_KEY_MAX && !sweep_epoch_of(key, &marked) &&
        strcmp(strrchr(key, '/') + 1, TQI_KV_SEARCHER) != 0) {
        snprintf(batch->keys[batch->n].text, sizeof(batch->keys[0].text), "%s", key);
        batch->n++;
    }
    if (batch->n == SWEEP_KEYS) {
        sweep_flush(batch);
    }
    return batch->code == TQ_OK && !sweep_closing(&batch->kv->sweep);
}

/* Removes all values of an epoch, then its mark. The search keepalive expires by itself. */
static int sweep_remove_epoch(sweep_batch *batch, uint64_t epoch, tq_error *err)
{
    tqi_kv *kv = batch->kv;
    tqi_kv_key_text prefix;

    batch->removed = 0;
    sweep_key(&prefix, epoch, "");
    int rc = kv->client->list(kv->store, prefix.text, sweep_take, batch, tqi_deadline(SWEEP_LIST_SECONDS), err);
    sweep_flush(batch);
    if (batch->removed > 0) {
        tqi_log(TQI_WARN, "kv",
                "storage %s: removed %" PRIu64 " value%s of system %016" PRIx64
                ", which had no client for %g s or longer",
                kv->owner, batch->removed, tqi_text_s(batch->removed), epoch, kv->sweep.after);
    }
    if (rc == TQ_OK && batch->code == TQ_OK && !sweep_closing(&kv->sweep)) {
        sweep_key(&batch->keys[0], epoch, TQI_KV_MARK);
        batch->n = 1;
        sweep_flush(batch);
    }
    if (rc == TQ_OK && batch->code != TQ_OK) {
        rc = tqi_error_set(err, batch->code, "%s", batch->err.message);
    }
    return rc;
}

/* Removes the values of epochs that still have no keepalive at the second check. */
static int sweep_remove(tqi_kv *kv, tq_error *err)
{
    tqi_kv_sweep *sweep = &kv->sweep;
    int rc = sweep_check(kv, err);
    sweep_batch *batch = calloc(1, sizeof(*batch));

    if (batch == NULL) {
        return tqi_error_nomem(err, "a sweep");
    }
    batch->kv = kv;
    for (size_t i = 0; i < sweep->n_suspects && rc == TQ_OK && !sweep_closing(sweep); i++) {
        sweep_keep(kv);
        rc = sweep_remove_epoch(batch, sweep->suspects[i], err);
    }
    free(batch);
    return rc;
}

/* --- the thread ----------------------------------------------------------- */

/* Waits for the next renewal, or until the epoch changes. False: the client is closing. */
static bool sweep_wait(tqi_kv_sweep *sweep, uint64_t *epoch)
{
    uint64_t due = tqi_deadline(sweep->renewal);
    int rc = 0;

    pthread_mutex_lock(&sweep->lock);
    while (!sweep->closing && sweep->epoch == *epoch && rc != ETIMEDOUT) {
        rc = tqi_cond_wait_until(&sweep->changed, &sweep->lock, due);
    }
    *epoch = sweep->epoch;
    bool goes_on = !sweep->closing;
    pthread_mutex_unlock(&sweep->lock);
    return goes_on;
}

/* Does what is due at this renewal: a search, or the second check of what the last search found. */
static int sweep_turn(tqi_kv *kv, tq_error *err)
{
    tqi_kv_sweep *sweep = &kv->sweep;
    int rc = TQ_OK;

    if (!sweep->looks) {
        return TQ_OK;
    }
    if (sweep->second > 0) {
        return --sweep->second == 0 ? sweep_remove(kv, err) : TQ_OK;
    }
    if (sweep->next > 0) {
        sweep->next--;
        return TQ_OK;
    }
    sweep->next = (unsigned)(sweep->after / sweep->renewal);
    rc = sweep_look(kv, err);
    sweep->second = rc == TQ_OK && sweep->n_suspects > 0 ? SWEEP_TURNS : 0;
    return rc;
}

static void sweep_failed(tqi_kv *kv, const tq_error *err, const char *what, bool *said)
{
    if (!*said && !sweep_closing(&kv->sweep)) {
        tqi_log(TQI_WARN, "kv", "storage %s: %s: %s", kv->owner, what, err->message);
    }
    *said = true;
}

static void *sweep_main(void *arg)
{
    tqi_kv *kv = arg;
    tqi_kv_sweep *sweep = &kv->sweep;
    uint64_t epoch = sweep->first;
    bool said = sweep->keepalived == 0;
    tq_error err = {0};

    if (sweep_turn(kv, &err) != TQ_OK) {
        sweep_failed(kv, &err, "looking for systems that have ended", &said);
    }
    while (sweep_wait(sweep, &epoch)) {
        if (sweep_renew(kv, epoch, &err) != TQ_OK) {
            sweep_failed(kv, &err, "renewing the keepalive", &said);
            continue;
        }
        said = false;
        if (sweep_turn(kv, &err) != TQ_OK) {
            sweep_failed(kv, &err, "looking for systems that have ended", &said);
        }
    }
    return NULL;
}

/* --- open and close ------------------------------------------------------- */

static int sweep_config(tqi_kv_sweep *sweep, const char *config, const char *type, tq_error *err)
{
    json_t *root = json_loads(config, 0, NULL);
    const json_t *after = json_object_get(root, "sweep_after");
    int rc = TQ_OK;

    sweep->after = after != NULL && !json_is_null(after) ? json_number_value(after) : SWEEP_AFTER;
    if (!(sweep->after >= SWEEP_AFTER_MIN && sweep->after <= SWEEP_AFTER_MAX)) {
        rc = tqi_error_set(err, TQ_ECONFIG, "%s.sweep_after: expected seconds, %g to %g", type, SWEEP_AFTER_MIN,
                           SWEEP_AFTER_MAX);
    }
    sweep->renewal = sweep->after / 3 < SWEEP_RENEWAL ? sweep->after / 3 : SWEEP_RENEWAL;
    json_decref(root);
    return rc;
}

/* A thread that gets no signals: those belong to the program. */
static int sweep_thread(tqi_kv *kv)
{
    sigset_t all, before;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&kv->sweep.thread, NULL, sweep_main, kv);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

/* The first keepalive, before the first value. A store that refuses it (because it is full, say) is used anyway: an
 * epoch without a keepalive has no mark yet either, so nobody sweeps it. */
static void sweep_first(tqi_kv *kv)
{
    tqi_kv_sweep *sweep = &kv->sweep;
    tq_error err = {0};

    sweep->first = sweep->epoch = kv->host->epoch;
    if (sweep_renew(kv, sweep->first, &err) != TQ_OK) {
        tqi_log(TQI_WARN, "kv", "storage %s: making the keepalive: %s", kv->owner, err.message);
    }
}

int tqi_kv_sweep_check(const tq_kv_client *client, const char *config, tq_error *err)
{
    tqi_kv_sweep sweep;

    return client->keepalive == NULL || client->list == NULL ? TQ_OK : sweep_config(&sweep, config, client->type, err);
}

int tqi_kv_sweep_open(tqi_kv *kv, const char *config, tq_error *err)
{
    tqi_kv_sweep *sweep = &kv->sweep;

    if (kv->client->keepalive == NULL || kv->client->list == NULL) {
        return TQ_OK;
    }
    int rc = sweep_config(sweep, config, kv->client->type, err);
    if (rc != TQ_OK) {
        return rc;
    }
    sweep_first(kv);
    pthread_mutex_init(&sweep->lock, NULL);
    tqi_cond_init(&sweep->changed);
    if (sweep_thread(kv) != 0) {
        pthread_mutex_destroy(&sweep->lock);
        pthread_cond_destroy(&sweep->changed);
        return tqi_error_nomem(err, "a thread");
    }
    sweep->runs = true;
    return TQ_OK;
}

void tqi_kv_sweep_epoch(tqi_kv *kv, uint64_t epoch)
{
    tqi_kv_sweep *sweep = &kv->sweep;

    if (sweep->runs) {
        pthread_mutex_lock(&sweep->lock);
        sweep->epoch = epoch;
        pthread_cond_signal(&sweep->changed);
        pthread_mutex_unlock(&sweep->lock);
    }
}

void tqi_kv_sweep_close(tqi_kv *kv)
{
    tqi_kv_sweep *sweep = &kv->sweep;

    if (sweep->runs) {
        pthread_mutex_lock(&sweep->lock);
        sweep->closing = true;
        pthread_cond_signal(&sweep->changed);
        pthread_mutex_unlock(&sweep->lock);
        pthread_join(sweep->thread, NULL);
        pthread_mutex_destroy(&sweep->lock);
        pthread_cond_destroy(&sweep->changed);
        free(sweep->suspects);
        sweep->runs = false;
    }
}
