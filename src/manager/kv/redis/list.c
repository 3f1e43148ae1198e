/*
 * list.c - listing the keys of a server, or of all nodes of a cluster: SCAN, with nested replies.
 */
#include "manager/kv/redis/redis.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One step: *cursor is where to continue; "0" when done. */
static int list_step(tqi_redis *redis, tqi_redis_link *link, const char *pattern, char cursor[32],
                     bool (*each)(const char *key, void *arg), void *arg, bool *goes_on, tq_error *err)
{
    const char *words[] = {"SCAN", cursor, "MATCH", pattern, "COUNT", "1000"};
    redisReply *reply = NULL;
    int rc = tqi_redis_link_ask(link, 6, words, &reply, err);

    if (rc != TQ_OK) {
        return rc;
    }
    if (reply->type == REDIS_REPLY_ERROR) {
        rc = tqi_error_set(err, strncmp(reply->str, "NOPERM", 6) == 0 ? TQ_EAUTH : TQ_EIO,
                           "Redis at %s refused SCAN: %s", redis->name, reply->str);
    } else if (reply->type != REDIS_REPLY_ARRAY || reply->elements != 2 ||
               reply->element[0]->type != REDIS_REPLY_STRING || reply->element[0]->len >= 32 ||
               reply->element[1]->type != REDIS_REPLY_ARRAY) {
        rc = tqi_error_set(err, TQ_EPROTO, "Redis at %s: SCAN has an unexpected form", redis->name);
    } else {
        const redisReply *keys = reply->element[1];
        snprintf(cursor, 32, "%s", reply->element[0]->str);
        /* Most steps find none of the keys that are asked for. */
        *goes_on = each(NULL, arg);
        for (size_t i = 0; *goes_on && i < keys->elements; i++) {
            *goes_on = keys->element[i]->type != REDIS_REPLY_STRING || each(keys->element[i]->str, arg);
        }
    }
    freeReplyObject(reply);
    return rc;
}

/* *goes_on: `each` wants to continue. */
static int list_node(tqi_redis *redis, unsigned node, const char *pattern, bool (*each)(const char *key, void *arg),
                     void *arg, uint64_t deadline, bool *goes_on, tq_error *err)
{
    tqi_redis_link *link;
    char cursor[32] = "0";
    int rc = tqi_redis_take(redis, node, true, deadline, &link, err);

    if (rc != TQ_OK) {
        return rc;
    }
    rc = tqi_redis_link_plain(link, err);
    if (rc == TQ_OK) {
        do {
            rc = list_step(redis, link, pattern, cursor, each, arg, goes_on, err);
        } while (rc == TQ_OK && *goes_on && strcmp(cursor, "0") != 0);
    }
    tqi_redis_link_close(link);
    return rc;
}

int tqi_redis_list(tqi_redis *redis, const char *prefix, bool (*each)(const char *key, void *arg), void *arg,
                   uint64_t deadline, tq_error *err)
{
    char pattern[TQ_KV_KEY_MAX + 2];
    bool goes_on = true;
    int rc = TQ_OK;

    snprintf(pattern, sizeof(pattern), "%.*s*", TQ_KV_KEY_MAX, prefix);
    if (!redis->config.cluster) {
        return list_node(redis, 0, pattern, each, arg, deadline, &goes_on, err);
    }
    pthread_mutex_lock(&redis->lock);
    size_t n = redis->n_nodes;
    pthread_mutex_unlock(&redis->lock);
    /* Nodes without slots are skipped: they may be gone. */
    for (unsigned node = 0; node < n && rc == TQ_OK && goes_on; node++) {
        unsigned slot = 0;
        while (slot < TQI_REDIS_SLOTS && tqi_redis_slot_node(redis, slot) != node) {
            slot++;
        }
        if (slot < TQI_REDIS_SLOTS) {
            rc = list_node(redis, node, pattern, each, arg, deadline, &goes_on, err);
        }
    }
    return rc;
}
