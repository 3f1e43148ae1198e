/*
 * testkit_map_store.c - a KV store in memory (see testkit_map_store.h), and what a KV client has to do: little.
 */
#include "testkit_map_store.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <uthash.h>

#include <tq/kv.h>

typedef struct map_entry {
    UT_hash_handle hh;
    uint64_t size;
    uint8_t *data;
    char key[TQ_KV_KEY_MAX + 1];
} map_entry;

static pthread_mutex_t map_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t map_changed = PTHREAD_COND_INITIALIZER;
static map_entry *map;
static uint64_t map_bytes, map_capacity = UINT64_MAX;
static unsigned map_fail_after, map_delay_after;
static map_entry *map_delayed; /* on its way */
static bool map_was_full;
static bool map_delays_removal;
static char (*map_removals)[TQ_KV_KEY_MAX + 1]; /* on their way */
static size_t map_n_removals;

static int map_open(void *state, const tq_kv_client *client, const char *config, tq_error *err)
{
    (void)state;
    (void)client;
    (void)config;
    (void)err;
    return TQ_OK;
}

static void map_close(void *state)
{
    (void)state;
}

static const char *map_name(void *state)
{
    (void)state;
    return "memory";
}

static void map_drop(map_entry *entry)
{
    HASH_DEL(map, entry);
    map_bytes -= entry->size;
    free(entry->data);
    free(entry);
}

static void map_add(map_entry *entry)
{
    map_bytes += entry->size;
    HASH_ADD_STR(map, key, entry);
}

/* Nothing was found under a key: what is on its way there arrives. */
static void map_missed(const char *key)
{
    if (map_delayed != NULL && strcmp(key, map_delayed->key) == 0) {
        map_add(map_delayed);
        map_delayed = NULL;
        pthread_cond_broadcast(&map_changed);
    }
}

/* A removal that got no answer is executed. */
static void map_remove_late(void)
{
    for (size_t i = 0; i < map_n_removals; i++) {
        map_entry *entry;
        HASH_FIND_STR(map, map_removals[i], entry);
        if (entry != NULL) {
            map_drop(entry);
        }
    }
    free(map_removals);
    map_removals = NULL;
    map_n_removals = 0;
}

static int map_put_one(const tq_kv_value *value, tq_error *err)
{
    map_entry *entry;

    HASH_FIND_STR(map, value->key, entry);
    if (entry != NULL) {
        map_drop(entry);
    }
    if (map_fail_after > 0 && --map_fail_after == 0) {
        err->code = TQ_EIO;
        strcpy(err->message, "the store is broken");
        return TQ_EIO;
    }
    if (map_bytes + value->size > map_capacity) {
        map_was_full = true;
        err->code = TQ_EFULL;
        strcpy(err->message, "the store has no room");
        return TQ_EFULL;
    }
    entry = calloc(1, sizeof(*entry));
    entry->data = malloc(value->size);
    strcpy(entry->key, value->key);
    for (size_t s = 0; s < value->n_slices; s++) {
        memcpy(entry->data + entry->size, value->slices[s].data, value->slices[s].size);
        entry->size += value->slices[s].size;
    }
    assert_int_equal(entry->size, value->size);
    if (map_delay_after > 0 && --map_delay_after == 0) {
        map_delayed = entry;
        err->code = TQ_ETIMEDOUT;
        strcpy(err->message, "the store did not answer");
        return TQ_ETIMEDOUT;
    }
    map_add(entry);
    return TQ_OK;
}

static int map_put(void *state, const tq_kv_value *values, size_t n, uint64_t deadline_ns, tq_error *err)
{
    int rc = TQ_OK;

    (void)state;
    (void)deadline_ns;
    pthread_mutex_lock(&map_lock);
    for (size_t i = 0; i < n && rc == TQ_OK; i++) {
        assert_true(values[i].size > 0);
        rc = map_put_one(&values[i], err);
    }
    if (rc == TQ_OK) {
        map_remove_late();
    }
    pthread_cond_broadcast(&map_changed);
    pthread_mutex_unlock(&map_lock);
    return rc;
}

static int small_put(void *state, const tq_kv_value *values, size_t n, uint64_t deadline_ns, tq_error *err)
{
    for (size_t i = 0; i < n; i++) {
        assert_true(values[i].size <= MAP_SMALL);
    }
    return map_put(state, values, n, deadline_ns, err);
}

static int map_get(void *state, tq_kv_read *reads, size_t n, uint64_t deadline_ns, tq_error *err)
{
    (void)state;
    (void)deadline_ns;
    (void)err;
    pthread_mutex_lock(&map_lock);
    for (size_t i = 0; i < n; i++) {
        map_entry *entry;
        HASH_FIND_STR(map, reads[i].key, entry);
        reads[i].missing = entry == NULL;
        if (entry != NULL) {
            assert_int_equal(entry->size, reads[i].value_size);
            assert_true(reads[i].offset + reads[i].size <= entry->size);
            memcpy(reads[i].dest, entry->data + reads[i].offset, reads[i].size);
        } else {
            map_missed(reads[i].key);
        }
    }
    pthread_mutex_unlock(&map_lock);
    return TQ_OK;
}

static int small_get(void *state, tq_kv_read *reads, size_t n, uint64_t deadline_ns, tq_error *err)
{
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(reads[i].offset, 0);
        assert_int_equal(reads[i].size, reads[i].value_size);
    }
    return map_get(state, reads, n, deadline_ns, err);
}

static int map_remove(void *state, tq_kv_key *keys, size_t n, uint64_t deadline_ns, tq_error *err)
{
    (void)state;
    (void)deadline_ns;
    pthread_mutex_lock(&map_lock);
    if (map_delays_removal) {
        map_delays_removal = false;
        map_removals = calloc(n, sizeof(*map_removals));
        for (size_t i = 0; i < n; i++) {
            strcpy(map_removals[i], keys[i].key);
        }
        map_n_removals = n;
        pthread_cond_broadcast(&map_changed);
        pthread_mutex_unlock(&map_lock);
        err->code = TQ_ETIMEDOUT;
        strcpy(err->message, "the store did not answer");
        return TQ_ETIMEDOUT;
    }
    for (size_t i = 0; i < n; i++) {
        map_entry *entry;
        HASH_FIND_STR(map, keys[i].key, entry);
        keys[i].missing = entry == NULL;
        if (entry != NULL) {
            map_drop(entry);
        } else {
            map_missed(keys[i].key);
        }
    }
    pthread_cond_broadcast(&map_changed);
    pthread_mutex_unlock(&map_lock);
    return TQ_OK;
}

static const tq_kv_client map_client = {
    .abi = TQ_KV_ABI,
    .type = "MapStore",
    .state_size = 1,
    .partial = true,
    .open = map_open,
    .close = map_close,
    .name = map_name,
    .put = map_put,
    .get = map_get,
    .remove = map_remove,
};

static const tq_kv_client small_client = {
    .abi = TQ_KV_ABI,
    .type = "SmallStore",
    .value_max = MAP_SMALL,
    .open = map_open,
    .close = map_close,
    .name = map_name,
    .put = small_put,
    .get = small_get,
    .remove = map_remove,
};

void map_store_register(void)
{
    tq_error err = {0};

    assert_int_equal(tq_kv_register(&map_client, &err), TQ_OK);
    assert_int_equal(tq_kv_register(&small_client, &err), TQ_OK);
}

void map_store_evict(void)
{
    map_entry *entry, *next;

    pthread_mutex_lock(&map_lock);
    HASH_ITER (hh, map, entry, next) {
        map_drop(entry);
    }
    pthread_cond_broadcast(&map_changed);
    pthread_mutex_unlock(&map_lock);
}

void map_store_reset(void)
{
    map_store_evict();
    pthread_mutex_lock(&map_lock);
    map_capacity = UINT64_MAX;
    map_fail_after = 0;
    map_was_full = false;
    pthread_mutex_unlock(&map_lock);
}

void map_store_set_capacity(uint64_t bytes)
{
    pthread_mutex_lock(&map_lock);
    map_capacity = bytes;
    pthread_mutex_unlock(&map_lock);
}

void map_store_fail_after(unsigned n)
{
    pthread_mutex_lock(&map_lock);
    map_fail_after = n;
    pthread_mutex_unlock(&map_lock);
}

void map_store_delay(unsigned n)
{
    pthread_mutex_lock(&map_lock);
    map_delay_after = n;
    pthread_mutex_unlock(&map_lock);
}

void map_store_delay_removal(void)
{
    pthread_mutex_lock(&map_lock);
    map_delays_removal = true;
    pthread_mutex_unlock(&map_lock);
}

void map_store_wait_removal(void)
{
    pthread_mutex_lock(&map_lock);
    while (map_delays_removal) {
        pthread_cond_wait(&map_changed, &map_lock);
    }
    pthread_mutex_unlock(&map_lock);
}

void map_store_wait_arrived(void)
{
    pthread_mutex_lock(&map_lock);
    while (map_delayed != NULL) {
        pthread_cond_wait(&map_changed, &map_lock);
    }
    pthread_mutex_unlock(&map_lock);
}

void map_store_wait(size_t values)
{
    pthread_mutex_lock(&map_lock);
    while (HASH_COUNT(map) != values) {
        pthread_cond_wait(&map_changed, &map_lock);
    }
    pthread_mutex_unlock(&map_lock);
}

void map_store_wait_full(void)
{
    pthread_mutex_lock(&map_lock);
    while (!map_was_full) {
        pthread_cond_wait(&map_changed, &map_lock);
    }
    pthread_mutex_unlock(&map_lock);
}

void map_store_reset_full(void)
{
    pthread_mutex_lock(&map_lock);
    map_was_full = false;
    pthread_mutex_unlock(&map_lock);
}

const tq_kv_client *map_store_client(void)
{
    return &map_client;
}

size_t map_store_values(void)
{
    pthread_mutex_lock(&map_lock);
    size_t n = HASH_COUNT(map);
    pthread_mutex_unlock(&map_lock);
    return n;
}

uint64_t map_store_bytes(void)
{
    pthread_mutex_lock(&map_lock);
    uint64_t bytes = map_bytes;
    pthread_mutex_unlock(&map_lock);
    return bytes;
}
