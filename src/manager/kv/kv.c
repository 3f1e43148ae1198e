/*
 * kv.c - the table of the generic KV storage manager: one per registered KV client (see kv.h).
 */
#include "manager/kv/kv.h"
#include "base/pointer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const tqi_kv_type *kv_type_of(const tq_storage_manager *manager)
{
    return TQI_CONTAINER(manager, tqi_kv_type, manager);
}

/* --- open and close ------------------------------------------------------- */

typedef struct kv_opening {
    tqi_kv *kv;
    char *config;
    tq_error err;
    void (*opened)(const tq_error *err, void *arg);
    void *arg;
} kv_opening;

static void kv_open_work(void *arg)
{
    kv_opening *opening = arg;
    tqi_kv *kv = opening->kv;
    int rc = kv->client->open(kv->store, kv_type_of(kv->host->manager)->given, opening->config, &opening->err);

    if (rc != TQ_OK && opening->err.code == TQ_OK) {
        tqi_error_set(&opening->err, rc, "opening the store failed");
    }
    if (opening->err.code == TQ_OK) {
        snprintf(kv->owner, sizeof(kv->owner), "%s:%.200s", kv->client->type, kv->client->name(kv->store));
        if (tqi_kv_sweep_open(kv, opening->config, &opening->err) != TQ_OK) {
            kv->client->close(kv->store);
        } else {
            opening->err.code = TQ_OK; /* a client may have noted what it has got over */
        }
    }
}

static void kv_opened(void *arg)
{
    kv_opening opening = *(kv_opening *)arg;
    bool failed = opening.err.code != TQ_OK;

    free(opening.config);
    free(arg);
    if (!failed) {
        uv_timer_init(((tqi_manager_internal *)opening.kv->host->internal)->loop, &opening.kv->retry);
        opening.kv->retry.data = opening.kv;
    }
    opening.opened(failed ? &opening.err : NULL, opening.arg);
}

void tqi_kv_open(void *state, tq_manager_host *host, const char *config, void (*opened)(const tq_error *err, void *arg),
                 void *arg)
{
    tqi_kv *kv = state;
    kv_opening *opening = calloc(1, sizeof(*opening));
    char *copy = strdup(config != NULL && config[0] != 0 ? config : "{}");
    tq_error err = {0};

    kv->host = host;
    kv->client = kv_type_of(host->manager)->client;
    kv->store = (char *)state + TQI_KV_STATE_AT;
    if (opening != NULL && copy != NULL) {
        *opening = (kv_opening){.kv = kv, .config = copy, .opened = opened, .arg = arg};
        if (host->work(host, kv_open_work, kv_opened, opening) == TQ_OK) {
            return;
        }
    }
    free(opening);
    free(copy);
    tqi_error_nomem(&err, "opening a store");
    opened(&err, arg);
}

const tq_kv_client *tqi_kv_client_of(const tq_storage_manager *manager)
{
    return manager->open == tqi_kv_open ? kv_type_of(manager)->client : NULL;
}

int tqi_kv_try(const tq_storage_manager *manager, const char *config, tq_error *err)
{
    if (manager->open != tqi_kv_open) {
        return TQ_OK;
    }
    const tq_kv_client *client = kv_type_of(manager)->client;
    void *store = calloc(1, client->state_size + 1);
    tq_error failed = {0};
    if (store == NULL) {
        return tqi_error_nomem(err, "opening a store");
    }
    int rc = client->open(store, kv_type_of(manager)->given, config, &failed);
    if (rc == TQ_OK) {
        client->close(store);
        failed = (tq_error){0}; /* a client may have noted what it has got over */
        rc = tqi_kv_sweep_check(client, config, &failed);
    }
    free(store);
    return rc == TQ_OK ? TQ_OK
                       : tqi_error_set(err, rc, "%s", failed.message[0] ? failed.message : "opening the store failed");
}

static void kv_close_work(void *arg)
{
    tqi_kv *kv = arg;

    tqi_kv_sweep_close(kv);
    kv->client->close(kv->store);
}

static void kv_close_done(void *arg)
{
    tqi_kv *kv = arg;

    kv->closed(kv->closed_arg);
}

static void kv_timer_closed(uv_handle_t *handle)
{
    tqi_kv *kv = handle->data;

    if (kv->host->work(kv->host, kv_close_work, kv_close_done, kv) != TQ_OK) {
        /* if there is no memory for a thread it blocks the loop, which has no more jobs */
        kv_close_work(kv);
        kv_close_done(kv);
    }
}

void tqi_kv_close(void *state, void (*closed)(void *arg), void *arg)
{
    tqi_kv *kv = state;

    kv->closed = closed;
    kv->closed_arg = arg;
    uv_close((uv_handle_t *)&kv->retry, kv_timer_closed);
}

const char *tqi_kv_owner(void *state, uint64_t *incarnation)
{
    tqi_kv *kv = state;

    /* Ids start over with every epoch of the controller: each epoch is treated as a separate store. */
    *incarnation = kv->host->epoch;
    tqi_kv_sweep_epoch(kv, kv->host->epoch);
    return kv->owner;
}

void tqi_kv_forked(void *state)
{
    tqi_kv *kv = state;

    if (kv->client != NULL && kv->client->forked != NULL) {
        kv->client->forked(kv->store);
    }
}

/* --- registry ------------------------------------------------------------- */

/* Bytes of the table of each version; what comes after them is not ours to read. */
static const size_t kv_table_sizes[] = {
    [1] = offsetof(tq_kv_client, keepalive),
    [TQ_KV_ABI] = sizeof(tq_kv_client),
};

static int kv_check_version(const tq_kv_client *client, tq_error *err)
{
    if (client == NULL) {
        return tqi_error_null(err, "tq_kv_register: client");
    }
    if (client->abi < 1 || client->abi > TQ_KV_ABI) {
        return tqi_error_set(err, TQ_EVERSION,
                             "KV client '%s' was made for version %u of the interface, this is version %u",
                             client->type != NULL ? client->type : "", client->abi, TQ_KV_ABI);
    }
    return TQ_OK;
}

static int kv_check(const tq_kv_client *client, tq_error *err)
{
    const char *type = client->type != NULL ? client->type : "";
    const char *missing = client->open == NULL     ? "open"
                          : client->close == NULL  ? "close"
                          : client->name == NULL   ? "name"
                          : client->put == NULL    ? "put"
                          : client->get == NULL    ? "get"
                          : client->remove == NULL ? "remove"
                                                   : NULL;

    if (missing != NULL) {
        return tqi_error_set(err, TQ_EINVAL, "KV client '%s' has no function '%s'", type, missing);
    }
    if (client->state_size > SIZE_MAX - TQI_KV_STATE_AT) {
        return tqi_error_set(err, TQ_EINVAL, "KV client '%s': a state of %zu bytes is impossible", type,
                             client->state_size);
    }
    return TQ_OK;
}

int tq_kv_register(const tq_kv_client *client, tq_error *err)
{
    int rc = kv_check_version(client, err);
    const tq_storage_manager *known;

    if (rc != TQ_OK) {
        return rc;
    }
    if (client->type != NULL && tq_manager_find(client->type, &known, NULL) == TQ_OK && known->open == tqi_kv_open &&
        kv_type_of(known)->given == client) {
        return TQ_OK;
    }
    /* Never freed, as all tables. */
    tqi_kv_type *made = calloc(1, sizeof(*made));
    if (made == NULL) {
        return tqi_error_nomem(err, "a KV client");
    }
    *made = (tqi_kv_type)TQI_KV_TYPE(client, client->type, client->state_size);
    if (client->abi < TQ_KV_ABI) {
        memcpy(&made->table, client, kv_table_sizes[client->abi]);
        made->client = &made->table;
    }
    rc = kv_check(made->client, err);
    rc = rc != TQ_OK ? rc : tq_manager_register(&made->manager, err);
    if (rc != TQ_OK) {
        free(made);
    }
    return rc;
}
