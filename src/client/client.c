/*
 * client.c - opening and closing clients, and their options.
 *
 * A client is reference-counted: one reference is the user's, which tq_client_close releases, and each op holds one,
 * so that ops may be freed after their client was closed.
 */
#include "client/runtime.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/sized.h"
#include "config_keys.h"

/* How long closing waits for storage work that cannot be stopped. */
#define CLIENT_CLOSE_S 5

static int client_copy(tqi_region *region, const char *text, const char **out, tq_error *err)
{
    if (text != NULL) {
        *out = tqi_region_string(region, text);
        if (*out == NULL) {
            return tqi_error_nomem(err, "the client's options");
        }
    }
    return TQ_OK;
}

static int client_token(const tq_client_options *from, const char *token_file, tqi_net_token *out, tq_error *err)
{
    size_t size;

    if (from->token == NULL) {
        if (token_file == NULL || !token_file[0]) {
            return tqi_error_set(err, TQ_EAUTH,
                                 "neither a token nor a token file is given: set token_file or TQ_TOKEN_FILE to "
                                 "the file with the system's secret");
        }
        return tqi_net_token_load(token_file, out, err);
    }
    size = strlen(from->token);
    if (size == 0 || size > sizeof(out->bytes)) {
        return tqi_error_set(err, TQ_EAUTH, "the token has %zu bytes, expected 1 to %zu", size, sizeof(out->bytes));
    }
    memcpy(out->bytes, from->token, size);
    out->size = size;
    tqi_net_token_warn("the token that was given", out);
    return TQ_OK;
}

TQI_SIZED_ENDS_WITH(tq_client_options, libraries);

static int client_options(tqi_client_saved_options *to, const tq_client_options *from, tq_error *err)
{
    const char *address = from->address;
    const char *token_file = from->token_file;
    const char *libraries = from->libraries;
    tq_location found = {.size = sizeof(found)};
    int rc;

    if (address == NULL) {
        rc = tq_discover(NULL, &found, err);
        if (rc != TQ_OK) {
            return rc;
        }
        address = found.address;
        token_file = token_file != NULL ? token_file : found.token_file;
        libraries = libraries != NULL ? libraries : found.library;
    }
    if (from->name != NULL) {
        rc = tqi_check_name("session", from->name, TQ_NAME_MAX, err);
        if (rc != TQ_OK) {
            return rc;
        }
    }
    rc = client_copy(&to->region, address, &to->address, err);
    rc = rc ? rc : client_copy(&to->region, from->name, &to->name, err);
    rc = rc ? rc : client_copy(&to->region, from->manager, &to->manager, err);
    rc = rc ? rc : client_copy(&to->region, from->manager_config, &to->manager_config, err);
    rc = rc ? rc : client_copy(&to->region, from->node != NULL ? from->node : getenv("TQ_NODE"), &to->node, err);
    rc = rc ? rc : client_copy(&to->region, libraries, &to->libraries, err);
    to->own_timeout = from->timeout != 0;
    to->timeout = to->own_timeout ? from->timeout : TQI_CONFIG_CLIENT_TIMEOUT_DEFAULT;
    to->notice = from->notice;
    to->first_request = from->first_request;
    return rc ? rc : client_token(from, token_file, &to->token, err);
}

static int client_start(tq_client *client, tq_error *err)
{
    tqi_client_runtime *rt;
    int rc;

    pthread_mutex_lock(&client->lock);
    rc = tqi_client_runtime_start(client, err);
    rt = client->runtime;
    if (rc == TQ_OK) {
        while (rt->state != TQI_CLIENT_RUNTIME_OPEN && rt->state != TQI_CLIENT_RUNTIME_DEAD) {
            pthread_cond_wait(&client->changed, &client->lock);
        }
        if (rt->state == TQI_CLIENT_RUNTIME_DEAD) {
            if (err != NULL) {
                *err = rt->error;
            }
            rc = rt->error.code;
            client->runtime = NULL;
        }
    }
    pthread_mutex_unlock(&client->lock);
    if (rc != TQ_OK && rt != NULL) {
        tqi_client_runtime_free(rt);
    }
    return rc;
}

int tq_client_open(const tq_client_options *given, tq_client **out, tq_error *err)
{
    tq_client_options options;
    tq_client *client;
    tq_error local = {0};
    int rc;

    err = err != NULL ? err : &local;
    if (given == NULL || out == NULL) {
        return tqi_error_null(err, out == NULL ? "tq_client_open: out" : "tq_client_open: options");
    }
    *out = NULL;
    rc = tqi_sized_copy("tq_client_options", given, &options, sizeof(options), err);
    if (rc != TQ_OK) {
        return rc;
    }
    client = calloc(1, sizeof(*client));
    if (client == NULL) {
        return tqi_error_nomem(err, "a client");
    }
    atomic_init(&client->refs, 1);
    pthread_mutex_init(&client->lock, NULL);
    tqi_cond_init(&client->changed);
    tqi_client_waits_init(&client->waits);
    rc = client_options(&client->options, &options, err);
    if (rc == TQ_OK) {
        rc = tqi_client_fork_register(client, err);
    }
    if (rc != TQ_OK) {
        tqi_client_unref(client);
        return rc;
    }
    rc = client_start(client, err);
    if (rc != TQ_OK) {
        tqi_client_fork_unregister(client);
        tqi_client_unref(client);
        return rc;
    }
    *out = client;
    return TQ_OK;
}

/* Waits, with the lock held, for the loop thread to finish. Returns false if storage work takes too long: the loop
 * thread then cleans up after itself. */
static bool client_ended(tq_client *client, tqi_client_runtime *rt)
{
    uint64_t until = tqi_deadline(CLIENT_CLOSE_S);

    while (rt->state != TQI_CLIENT_RUNTIME_DEAD) {
        if (tqi_cond_wait_until(&client->changed, &client->lock, until) != ETIMEDOUT) {
            continue;
        }
        rt->self_free = rt->state != TQI_CLIENT_RUNTIME_DEAD && atomic_load(&rt->works) > 0;
        if (rt->self_free) {
            return false;
        }
        until = tqi_deadline(1); /* in a callback: no callback runs after a close */
    }
    return true;
}

void tq_client_close(tq_client *client)
{
    tqi_client_runtime *rt;
    bool on_loop, ended = true;

    if (client == NULL) {
        return;
    }
    on_loop = tqi_client_on_loop(client);
    pthread_mutex_lock(&client->lock);
    client->closing = true;
    rt = client->runtime;
    if (rt != NULL && on_loop) {
        rt->self_free = true; /* in a callback: the thread cleans up after itself */
    }
    tqi_client_wake(client);
    if (rt != NULL && !on_loop) {
        ended = client_ended(client, rt);
    }
    if (!ended) {
        /* Under the lock, because the client may be gone once it is released. */
        tqi_log(TQI_WARN, "client",
                "client of %s: its storage has not ended its work %d s after close, which goes on "
                "without being waited for; what it does not remove is left for other clients of the "
                "system, or, after its end, for the next one",
                client->options.address, CLIENT_CLOSE_S);
    }
    pthread_mutex_unlock(&client->lock);
    if (rt != NULL && (on_loop || !ended)) {
        return;
    }
    if (rt != NULL) {
        pthread_join(rt->thread, NULL);
        pthread_mutex_lock(&client->lock);
        client->runtime = NULL;
        pthread_mutex_unlock(&client->lock);
        rt->thread = 0;
        tqi_client_runtime_free(rt);
    }
    tqi_client_fork_unregister(client);
    tqi_client_unref(client);
}

uint64_t tq_client_epoch(const tq_client *client)
{
    return client != NULL ? atomic_load(&client->epoch) : 0;
}

const char *tq_client_config(const tq_client *client)
{
    return client != NULL && client->config != NULL ? client->config : "";
}
