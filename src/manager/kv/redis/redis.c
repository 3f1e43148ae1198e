/*
 * redis.c - the Redis client of the KV storage manager: a single server or a cluster (see redis.h).
 */
#include "manager/kv/redis/redis.h"
#include "manager/kv/kv.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "config_backends.h"

static void redis_close(void *state)
{
    tqi_redis *redis = state;

    tqi_redis_nodes_fini(redis);
    pthread_mutex_destroy(&redis->lock);
}

static int redis_open(void *state, const tq_kv_client *client, const char *config, tq_error *err)
{
    tqi_redis *redis = state;
    const tqi_redis_config *made = &redis->config;
    tqi_redis_link *link;
    unsigned first;
    int rc = tqi_redis_config_read(&redis->config, config, err);

    (void)client;
    if (rc != TQ_OK) {
        return rc;
    }
    if (made->host[0] == 0) {
        snprintf(redis->name, sizeof(redis->name), "%.180s/%d", made->path, made->db);
    } else {
        snprintf(redis->name, sizeof(redis->name), "%.180s:%d/%d", made->host, made->port, made->db);
    }
    if (pthread_mutex_init(&redis->lock, NULL) != 0) {
        return tqi_error_nomem(err, "the Redis client");
    }
    uint64_t deadline = tqi_deadline(made->timeout);
    rc = tqi_redis_node_get(redis, made->host, made->host[0] != 0 ? made->port : 0, &first, err);
    if (rc == TQ_OK && made->cluster) {
        rc = tqi_redis_slots_load(redis, first, deadline, err);
    } else if (rc == TQ_OK) {
        rc = tqi_redis_take(redis, first, true, deadline, &link, err);
        if (rc == TQ_OK) {
            tqi_redis_give(redis, first, link);
        }
    }
    if (rc != TQ_OK) {
        redis_close(redis);
    }
    return rc;
}

static const char *redis_name(void *state)
{
    return ((const tqi_redis *)state)->name;
}

static int redis_run(tqi_redis *redis, tqi_redis_command *commands, size_t n, uint64_t deadline, tq_error *err)
{
    if (commands == NULL) {
        return tqi_error_nomem(err, "a row of Redis commands");
    }
    int rc = tqi_redis_run(redis, commands, n, deadline, err);
    free(commands);
    return rc;
}

static int redis_put(void *state, const tq_kv_value *values, size_t n, uint64_t deadline_ns, tq_error *err)
{
    tqi_redis_command *commands = calloc(n + 1, sizeof(*commands));

    for (size_t i = 0; commands != NULL && i < n; i++) {
        commands[i] = (tqi_redis_command){.verb = TQI_REDIS_SET, .key = values[i].key, .value = &values[i]};
    }
    return redis_run(state, commands, n, deadline_ns, err);
}

static int redis_get(void *state, tq_kv_read *reads, size_t n, uint64_t deadline_ns, tq_error *err)
{
    tqi_redis_command *commands = calloc(n + 1, sizeof(*commands));

    for (size_t i = 0; commands != NULL && i < n; i++) {
        commands[i] = (tqi_redis_command){.verb = TQI_REDIS_GET, .key = reads[i].key, .read = &reads[i]};
    }
    return redis_run(state, commands, n, deadline_ns, err);
}

static int redis_remove(void *state, tq_kv_key *keys, size_t n, uint64_t deadline_ns, tq_error *err)
{
    tqi_redis_command *commands = calloc(n + 1, sizeof(*commands));

    for (size_t i = 0; commands != NULL && i < n; i++) {
        commands[i] = (tqi_redis_command){.verb = TQI_REDIS_UNLINK, .key = keys[i].key, .removed = &keys[i]};
    }
    return redis_run(state, commands, n, deadline_ns, err);
}

static int redis_keepalive(void *state, const char *key, double seconds, uint64_t deadline_ns, tq_error *err)
{
    tq_kv_key known = {.key = key};
    uint64_t ms = (uint64_t)(seconds * 1000) + 1;
    tqi_redis_command renew = {.verb = TQI_REDIS_RENEW, .key = key, .removed = &known, .keepalive_ms = ms};
    tqi_redis_command make = {.verb = TQI_REDIS_KEEPALIVE, .key = key, .keepalive_ms = ms};
    int rc = tqi_redis_run(state, &renew, 1, deadline_ns, err);

    return rc == TQ_OK && known.missing ? tqi_redis_run(state, &make, 1, deadline_ns, err) : rc;
}

static int redis_list(void *state, const char *prefix, bool (*each)(const char *key, void *arg), void *arg,
                      uint64_t deadline_ns, tq_error *err)
{
    return tqi_redis_list(state, prefix, each, arg, deadline_ns, err);
}

/* Only the descriptors go; the memory is the parent's copy, and its locks may have been held. */
static void redis_forked(void *state)
{
    tqi_redis *redis = state;

    for (size_t i = 0; i < redis->n_nodes; i++) {
        for (const tqi_redis_link *link = redis->nodes[i]->idle; link != NULL; link = link->next) {
            close(link->context->fd);
        }
    }
}

static const tq_kv_client redis_client = {
    .abi = TQ_KV_ABI,
    .type = TQI_BACKEND_REDIS,
    .state_size = sizeof(tqi_redis),
    .partial = true,
    .value_max = TQI_REDIS_VALUE_MAX,
    .open = redis_open,
    .close = redis_close,
    .name = redis_name,
    .put = redis_put,
    .get = redis_get,
    .remove = redis_remove,
    .forked = redis_forked,
    .keepalive = redis_keepalive,
    .list = redis_list,
};

const tqi_kv_type tqi_redis_type = TQI_KV_TYPE(&redis_client, TQI_BACKEND_REDIS, sizeof(tqi_redis));
