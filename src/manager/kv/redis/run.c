/*
 * run.c - a list of commands: distributed among nodes, pipelined on one connection each, redirected and retried. Every
 * command may be repeated, because no key is ever written with two values. So if an idle connection turns out to be
 * closed, the rest is resent on a new one, and a command that a node redirects (MOVED, ASK) is sent there.
 */
#include "manager/kv/redis/redis.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How often commands may be redirected before the cluster is considered unstable. */
#define RUN_ROUNDS 16

/* "MOVED 3999 127.0.0.1:6381": the node it names. */
static int run_target(tqi_redis *redis, const tqi_redis_command *command, const char *text, unsigned *out, tq_error *err)
{
    char host[256] = "";
    int port = 0;
    const char *space = strchr(text, ' ');
    const char *at = space != NULL ? strchr(space + 1, ' ') : NULL;
    const char *colon = at != NULL ? strrchr(at, ':') : NULL;

    if (colon != NULL && (size_t)(colon - at) < sizeof(host)) {
        memcpy(host, at + 1, (size_t)(colon - at - 1));
        port = (int)strtol(colon + 1, NULL, 10);
    }
    if (port <= 0 || port > 65535) {
        return tqi_error_set(err, TQ_EPROTO, "Redis sent '%s', expected SLOT HOST:PORT", text);
    }
    if (host[0] == 0) { /* the node that said so, with another port */
        pthread_mutex_lock(&redis->lock);
        memcpy(host, redis->nodes[command->node]->host, sizeof(host));
        pthread_mutex_unlock(&redis->lock);
    }
    return tqi_redis_node_get(redis, host, port, out, err);
}

static int run_refused(tqi_redis *redis, tqi_redis_command *command, const char *text, tq_error *err)
{
    static const struct {
        const char *begin;
        int code;
    } known[] = {
        {"OOM", TQ_EFULL},
        {"NOAUTH", TQ_EAUTH},
        {"WRONGPASS", TQ_EAUTH},
        {"NOPERM", TQ_EAUTH},
        {"LOADING", TQ_EUNREACHABLE},
        {"CLUSTERDOWN", TQ_EUNREACHABLE},
        {"MASTERDOWN", TQ_EUNREACHABLE},
        {"TRYAGAIN", TQ_EUNREACHABLE},
    };
    bool moved = strncmp(text, "MOVED ", 6) == 0;
    unsigned node = 0;

    if (moved || strncmp(text, "ASK ", 4) == 0) {
        int code = run_target(redis, command, text, &node, err);
        if (code == TQ_OK) {
            command->node = node;
            command->asking = !moved;
            if (moved) {
                tqi_redis_slot_moved(redis, command->slot, node);
            }
        }
        return code;
    }
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (strncmp(text, known[i].begin, strlen(known[i].begin)) == 0) {
            return tqi_error_set(err, known[i].code, "Redis at %s %s %s: %s%s", redis->name,
                                 known[i].code == TQ_EFULL ? "is full and refused" : "refused", command->key, text,
                                 known[i].code == TQ_EFULL ? "; clear samples, or raise the server's maxmemory" : "");
        }
    }
    return tqi_error_set(err, TQ_EIO, "Redis at %s refused %s: %s", redis->name, command->key, text);
}

/* Handles the reply to a command. */
static int run_answered(tqi_redis *redis, tqi_redis_command *command, const tqi_redis_reply *reply, tq_error *err)
{
    if (reply->type == REDIS_REPLY_ERROR) {
        return run_refused(redis, command, reply->text, err);
    }
    command->done = true;
    switch (command->verb) {
    case TQI_REDIS_SET:
    case TQI_REDIS_KEEPALIVE:
        break;
    case TQI_REDIS_UNLINK:
    case TQI_REDIS_RENEW:
        command->removed->missing = reply->integer == 0;
        break;
    case TQI_REDIS_GET:
        /* A range of a key that does not exist is an empty string. */
        command->read->missing =
            reply->type == REDIS_REPLY_NIL || (reply->size == 0 && command->read->size != command->read->value_size);
        if (!command->read->missing && reply->size != command->read->size) {
            return tqi_error_set(err, TQ_EPROTO,
                                 "Redis at %s: %s has %zu bytes in the range, expected %llu: somebody "
                                 "else has written it",
                                 redis->name, command->key, reply->size, (unsigned long long)command->read->size);
        }
        break;
    }
    return TQ_OK;
}

/* The oldest command in flight was answered. `broken` says whether the connection is no longer usable. */
static int run_receive(tqi_redis *redis, tqi_redis_link *link, tqi_redis_command *command, bool *broken, tq_error *err)
{
    int rc = TQ_OK;

    if (command->asking) {
        rc = tqi_redis_link_receive(link, NULL, err);
        command->asking = false;
    }
    if (rc == TQ_OK) {
        rc = tqi_redis_link_receive(link, command->verb == TQI_REDIS_GET ? command->read : NULL, err);
    }
    if (rc != TQ_OK) {
        *broken = true;
        return rc;
    }
    return run_answered(redis, command, &link->reply, err);
}

/* Sends the unfinished commands of one node, and reads the answers. */
static int run_pipeline(tqi_redis *redis, tqi_redis_link *link, tqi_redis_command *const *commands, size_t n,
                        bool *broken, tq_error *err)
{
    size_t sent = 0, received = 0;
    int code = TQ_OK;

    /* After a refusal the remaining answers are still read, so that the connection can be reused. */
    while (received < n && !*broken && (code == TQ_OK || received < sent)) {
        if (code == TQ_OK && sent < n && sent - received < TQI_REDIS_WINDOW) {
            code = tqi_redis_link_send(link, commands[sent], err);
            *broken = code != TQ_OK;
            sent++;
            continue;
        }
        tq_error inner = {0};
        int rc = run_receive(redis, link, commands[received++], broken, &inner);
        if (rc != TQ_OK && code == TQ_OK) {
            code = tqi_error_set(err, rc, "%s", inner.message);
        }
    }
    return code;
}

/* The commands of one node. */
static int run_node(tqi_redis *redis, unsigned node, tqi_redis_command **commands, size_t n, uint64_t deadline,
                    tq_error *err)
{
    bool fresh = false;

    for (;;) {
        tqi_redis_link *link;
        bool broken = false;
        int rc = tqi_redis_take(redis, node, fresh, deadline, &link, err);
        if (rc != TQ_OK) {
            return rc;
        }
        rc = run_pipeline(redis, link, commands, n, &broken, err);
        if (rc == TQ_EFULL && !broken && err != NULL && !tqi_redis_link_room(link, err)) {
            tqi_redis_link_close(link);
            return rc;
        }
        if (!broken) {
            tqi_redis_give(redis, node, link);
            return rc;
        }
        bool again = link->used && rc == TQ_EUNREACHABLE;
        tqi_redis_link_close(link);
        if (!again) {
            return rc;
        }
        fresh = true; /* the server had closed an idle connection */
        if (err != NULL) {
            *err = (tq_error){0};
        }
        size_t left = 0;
        for (size_t i = 0; i < n; i++) {
            if (!commands[i]->done) {
                commands[left++] = commands[i];
            }
        }
        n = left;
    }
}

/* The unfinished commands that go to the same node as the first of them. */
static size_t run_group(tqi_redis_command *commands, size_t n, tqi_redis_command **out)
{
    size_t found = 0;

    for (size_t i = 0; i < n; i++) {
        if (!commands[i].done && (found == 0 || commands[i].node == out[0]->node)) {
            out[found++] = &commands[i];
        }
    }
    return found;
}

int tqi_redis_run(tqi_redis *redis, tqi_redis_command *commands, size_t n, uint64_t deadline, tq_error *err)
{
    tqi_redis_command **group = calloc(n + 1, sizeof(*group));
    int rc = TQ_OK;
    size_t found;
    size_t groups = 0, limit;

    if (group == NULL) {
        return tqi_error_nomem(err, "a row of Redis commands");
    }
    for (size_t i = 0; i < n && redis->config.cluster; i++) {
        commands[i].slot = tqi_redis_slot(commands[i].key);
        commands[i].node = tqi_redis_slot_node(redis, commands[i].slot);
    }
    limit = RUN_ROUNDS;
    while (rc == TQ_OK && (found = run_group(commands, n, group)) > 0) {
        /* A node that answered all of its commands leaves only redirected ones. */
        pthread_mutex_lock(&redis->lock);
        size_t nodes = redis->n_nodes;
        pthread_mutex_unlock(&redis->lock);
        if (groups++ > limit * nodes) {
            rc = tqi_error_set(err, TQ_EUNREACHABLE, "the Redis cluster at %s keeps sending %s elsewhere", redis->name,
                               group[0]->key);
            break;
        }
        rc = run_node(redis, group[0]->node, group, found, deadline, err);
    }
    free(group);
    return rc;
}
