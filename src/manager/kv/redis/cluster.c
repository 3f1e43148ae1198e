/*
 * cluster.c - nodes with their idle connections, and which node serves which slot of a cluster.
 *
 * A server that is not a cluster counts as one node. Nodes are never removed, so an index into the list stays valid.
 */
#include "manager/kv/redis/redis.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

/* CRC-16/XMODEM, as the Redis cluster specification names it. */
static unsigned cluster_crc16(const char *data, size_t size)
{
    unsigned crc = 0;

    for (size_t i = 0; i < size; i++) {
        crc ^= (unsigned)(uint8_t)data[i] << 8;
        for (int bit = 0; bit < 8; bit++) {
            crc = crc & 0x8000u ? crc << 1 ^ 0x1021u : crc << 1;
        }
        crc &= 0xffffu;
    }
    return crc;
}

unsigned tqi_redis_slot(const char *key)
{
    const char *open = strchr(key, '{');
    const char *close = open != NULL ? strchr(open + 1, '}') : NULL;

    if (close != NULL && close > open + 1) {
        return cluster_crc16(open + 1, (size_t)(close - open - 1)) % TQI_REDIS_SLOTS;
    }
    return cluster_crc16(key, strlen(key)) % TQI_REDIS_SLOTS;
}

int tqi_redis_node_get(tqi_redis *redis, const char *host, int port, unsigned *out, tq_error *err)
{
    int rc = TQ_OK;
    unsigned at = 0;

    pthread_mutex_lock(&redis->lock);
    while (at < redis->n_nodes && (redis->nodes[at]->port != port || strcmp(redis->nodes[at]->host, host) != 0)) {
        at++;
    }
    if (at == redis->n_nodes) {
        tqi_redis_node *node = calloc(1, sizeof(*node));
        if (node == NULL || strlen(host) >= sizeof(node->host) || at >= TQI_REDIS_SLOTS ||
            tqi_grow(&redis->nodes, &redis->nodes_capacity, at + 1u, sizeof(*redis->nodes)) != TQ_OK) {
            free(node);
            rc = tqi_error_nomem(err, "a node of a Redis cluster");
        } else {
            memcpy(node->host, host, strlen(host) + 1);
            node->port = port;
            redis->nodes[redis->n_nodes++] = node;
        }
    }
    pthread_mutex_unlock(&redis->lock);
    *out = at;
    return rc;
}

unsigned tqi_redis_slot_node(tqi_redis *redis, unsigned slot)
{
    pthread_mutex_lock(&redis->lock);
    unsigned node = redis->slots[slot];
    pthread_mutex_unlock(&redis->lock);
    return node;
}

void tqi_redis_slot_moved(tqi_redis *redis, unsigned slot, unsigned node)
{
    pthread_mutex_lock(&redis->lock);
    redis->slots[slot] = (uint16_t)node;
    pthread_mutex_unlock(&redis->lock);
}

/* One row of CLUSTER SLOTS: first slot, last slot, [host, port, ...] of the master, replicas. */
static int cluster_row(tqi_redis *redis, const tqi_redis_node *asked, const redisReply *row, unsigned *covered,
                       tq_error *err)
{
    unsigned node = 0;

    if (row->type != REDIS_REPLY_ARRAY || row->elements < 3 || row->element[0]->type != REDIS_REPLY_INTEGER ||
        row->element[1]->type != REDIS_REPLY_INTEGER || row->element[2]->type != REDIS_REPLY_ARRAY ||
        row->element[2]->elements < 2 || row->element[2]->element[1]->type != REDIS_REPLY_INTEGER ||
        row->element[0]->integer < 0 || row->element[1]->integer >= (long long)TQI_REDIS_SLOTS) {
        return tqi_error_set(err, TQ_EPROTO, "Redis: CLUSTER SLOTS has an unexpected form");
    }
    const redisReply *master = row->element[2];
    /* A node that does not know its own address is at the address we asked. */
    bool known = master->element[0]->type == REDIS_REPLY_STRING && master->element[0]->len > 0;
    int rc = tqi_redis_node_get(redis, known ? master->element[0]->str : asked->host, (int)master->element[1]->integer,
                                &node, err);
    for (long long slot = row->element[0]->integer; slot <= row->element[1]->integer && rc == TQ_OK; slot++) {
        tqi_redis_slot_moved(redis, (unsigned)slot, node);
        (*covered)++;
    }
    return rc;
}

int tqi_redis_slots_load(tqi_redis *redis, unsigned node, uint64_t deadline, tq_error *err)
{
    tqi_redis_link *link;
    unsigned covered = 0;
    int rc = tqi_redis_take(redis, node, true, deadline, &link, err);

    if (rc != TQ_OK) {
        return rc;
    }
    const char *words[] = {"CLUSTER", "SLOTS"};
    redisReply *reply = NULL;
    rc = tqi_redis_link_plain(link, err);
    rc = rc ? rc : tqi_redis_link_ask(link, 2, words, &reply, err);
    if (rc == TQ_OK && reply->type != REDIS_REPLY_ARRAY) {
        rc = tqi_error_set(err, TQ_ECONFIG, "Redis.cluster: the server is no cluster: %s",
                           reply->str != NULL ? reply->str : "");
    }
    for (size_t i = 0; rc == TQ_OK && reply != NULL && i < reply->elements; i++) {
        rc = cluster_row(redis, redis->nodes[node], reply->element[i], &covered, err);
    }
    if (rc == TQ_OK && covered < TQI_REDIS_SLOTS) {
        rc = tqi_error_set(err, TQ_EUNREACHABLE, "the Redis cluster serves only %u of its %u slots", covered,
                           TQI_REDIS_SLOTS);
    }
    freeReplyObject(reply);
    tqi_redis_link_close(link);
    return rc;
}

int tqi_redis_take(tqi_redis *redis, unsigned at, bool fresh, uint64_t deadline, tqi_redis_link **out, tq_error *err)
{
    pthread_mutex_lock(&redis->lock);
    tqi_redis_node *node = redis->nodes[at];
    tqi_redis_link *link = fresh ? NULL : node->idle;
    if (link != NULL) {
        node->idle = link->next;
    }
    pthread_mutex_unlock(&redis->lock);
    if (link == NULL) {
        return tqi_redis_link_open(&redis->config, node->host, node->port, deadline, out, err);
    }
    link->used = true;
    int rc = tqi_redis_link_limit(link, &redis->config, deadline, err);
    if (rc != TQ_OK) {
        tqi_redis_link_close(link);
        return rc;
    }
    *out = link;
    return TQ_OK;
}

void tqi_redis_give(tqi_redis *redis, unsigned at, tqi_redis_link *link)
{
    pthread_mutex_lock(&redis->lock);
    link->next = redis->nodes[at]->idle;
    redis->nodes[at]->idle = link;
    pthread_mutex_unlock(&redis->lock);
}

void tqi_redis_nodes_fini(tqi_redis *redis)
{
    for (size_t i = 0; i < redis->n_nodes; i++) {
        while (redis->nodes[i]->idle != NULL) {
            tqi_redis_link *link = redis->nodes[i]->idle;
            redis->nodes[i]->idle = link->next;
            tqi_redis_link_close(link);
        }
        free(redis->nodes[i]);
    }
    free(redis->nodes);
    redis->nodes = NULL;
    redis->n_nodes = 0;
}
