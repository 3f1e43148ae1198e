/*
 * store_map.c - see store_map.h.
 */
#include "store_map.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define MAP_BUCKETS 4096u

/* A head that was evicted: "tq/EPOCH/ID." is the prefix of the parts of its block. */
typedef struct map_head {
    struct map_head *next;
    size_t size;
    char prefix[TQ_KV_KEY_MAX + 1];
} map_head;

static struct {
    store_entry *buckets[MAP_BUCKETS];
    store_entry **all;
    size_t n, room;
    uint64_t bytes;
    map_head *heads;
} map;

/* --- values -------------------------------------------------------------------- */

store_value *store_value_make(uint64_t size)
{
    store_value *value = sim_alloc(sizeof(*value) + size);

    value->refs = 1;
    value->size = size;
    return value;
}

store_value *store_value_ref(store_value *value)
{
    value->refs++;
    return value;
}

void store_value_unref(store_value *value)
{
    if (value != NULL && --value->refs == 0) {
        sim_free(value);
    }
}

/* --- the table ------------------------------------------------------------------- */

static uint64_t map_hash(const char *key)
{
    uint64_t hash = UINT64_C(14695981039346656037);

    for (; *key != 0; key++) {
        hash = (hash ^ (uint8_t)*key) * UINT64_C(1099511628211);
    }
    return hash ^ hash >> 29;
}

store_entry *store_map_find(const char *key)
{
    uint64_t hash = map_hash(key);
    store_entry *entry = map.buckets[hash % MAP_BUCKETS];

    while (entry != NULL && (entry->hash != hash || strcmp(entry->key, key) != 0)) {
        entry = entry->next;
    }
    if (entry != NULL && entry->expires <= sim_time()) {
        store_map_drop(entry);
        return NULL;
    }
    return entry;
}

store_entry *store_map_add(const char *key, store_value *value)
{
    store_entry *entry = sim_alloc(sizeof(*entry));

    if (map.n == map.room) {
        map.room = map.room == 0 ? 256 : 2 * map.room;
        map.all = sim_realloc(map.all, map.room * sizeof(store_entry *));
    }
    snprintf(entry->key, sizeof(entry->key), "%s", key);
    entry->hash = map_hash(key);
    entry->value = store_value_ref(value);
    entry->expires = SIM_NEVER;
    entry->next = map.buckets[entry->hash % MAP_BUCKETS];
    map.buckets[entry->hash % MAP_BUCKETS] = entry;
    entry->place = map.n;
    map.all[map.n++] = entry;
    map.bytes += value->size;
    return entry;
}

void store_map_drop(store_entry *entry)
{
    store_entry **at = &map.buckets[entry->hash % MAP_BUCKETS];

    while (*at != entry) {
        at = &(*at)->next;
    }
    *at = entry->next;
    map.all[entry->place] = map.all[--map.n];
    map.all[entry->place]->place = entry->place;
    map.bytes -= entry->value->size;
    store_value_unref(entry->value);
    sim_free(entry);
}

void store_map_evict(store_entry *entry)
{
    size_t size = strlen(entry->key);

    if (size > 2 && strcmp(entry->key + size - 2, ".n") == 0) {
        map_head *head = sim_alloc(sizeof(*head));
        head->size = size - 1;
        memcpy(head->prefix, entry->key, head->size);
        head->next = map.heads;
        map.heads = head;
    }
    store_map_drop(entry);
}

store_entry *store_map_any(sim_chance *chance)
{
    return map.n == 0 ? NULL : map.all[sim_below(chance, map.n)];
}

uint64_t store_map_bytes(void)
{
    return map.bytes;
}

void store_map_clear(void)
{
    while (map.n > 0) {
        store_map_drop(map.all[map.n - 1]);
    }
    while (map.heads != NULL) {
        map_head *next = map.heads->next;
        sim_free(map.heads);
        map.heads = next;
    }
    sim_free(map.all);
    map.all = NULL;
    map.room = 0;
}

/* --- what is there ------------------------------------------------------------------ */

bool store_map_is_value(const char *key, uint64_t epoch)
{
    static const char *const signs[] = {"/lease", "/looks", "/kept"};
    const char *name = strrchr(key, '/');
    char prefix[32];

    for (size_t i = 0; i < sizeof(signs) / sizeof(signs[0]) && name != NULL; i++) {
        if (strcmp(name, signs[i]) == 0) {
            return false;
        }
    }
    snprintf(prefix, sizeof(prefix), "tq/%016" PRIx64 "/", epoch);
    return epoch == 0 || strncmp(key, prefix, strlen(prefix)) == 0;
}

static bool map_is_headless(const char *key)
{
    for (const map_head *head = map.heads; head != NULL; head = head->next) {
        if (strncmp(key, head->prefix, head->size) == 0) {
            return true;
        }
    }
    return false;
}

size_t store_map_count(uint64_t epoch, uint64_t *bytes, const store_entry **one)
{
    size_t n = 0;

    *bytes = 0;
    *one = NULL;
    for (size_t i = 0; i < map.n; i++) {
        const store_entry *entry = map.all[i];
        if (store_map_is_value(entry->key, epoch) && !map_is_headless(entry->key)) {
            n++;
            *bytes += entry->value->size;
            *one = entry;
        }
    }
    return n;
}

char (*store_map_list(const char *prefix, size_t *n))[TQ_KV_KEY_MAX + 1]
{
    char(*keys)[TQ_KV_KEY_MAX + 1] = sim_alloc((map.n + 1) * sizeof(*keys));
    size_t size = strlen(prefix);

    *n = 0;
    for (size_t i = 0; i < map.n; i++) {
        if (map.all[i]->expires > sim_time() && strncmp(map.all[i]->key, prefix, size) == 0) {
            memcpy(keys[(*n)++], map.all[i]->key, sizeof(keys[0]));
        }
    }
    return keys;
}
