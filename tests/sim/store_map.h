/*
 * store_map.h - the values of the simulated key-value store (store.c): by key, in the order in which they came, each
 * one immutable and counted by references.
 */
#ifndef TQ_SIM_STORE_MAP_H
#define TQ_SIM_STORE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sim.h"

#include <tq/kv.h>

typedef struct store_value {
    uint32_t refs;
    uint64_t size;
    uint8_t data[];
} store_value;

typedef struct store_entry {
    struct store_entry *next; /* in its bucket */
    size_t place;             /* in the list of all */
    store_value *value;
    uint64_t hash;
    uint64_t expires; /* of a keepalive; SIM_NEVER: no keepalive */
    bool late;        /* it came after its put had gone on without an answer, or after its client was killed */
    char key[TQ_KV_KEY_MAX + 1];
} store_entry;

store_value *store_value_make(uint64_t size);
store_value *store_value_ref(store_value *value);
void store_value_unref(store_value *value); /* NULL is allowed */

void store_map_clear(void);
/* NULL: there is none, or it has expired. */
store_entry *store_map_find(const char *key);
store_entry *store_map_add(const char *key, store_value *value);
void store_map_drop(store_entry *entry);
/* As drop; what can no longer be found after that is not counted by store_map_count. */
void store_map_evict(store_entry *entry);
/* Any of them; NULL: there is none. */
store_entry *store_map_any(sim_chance *chance);
uint64_t store_map_bytes(void);

/* Whether a key is a block's value, of that epoch (0: any), rather than a sign that an epoch is alive. */
bool store_map_is_value(const char *key, uint64_t epoch);
/* Values of blocks that can still be found, with their bytes, and one of them. */
size_t store_map_count(uint64_t epoch, uint64_t *bytes, const store_entry **one);
/* Keys with that prefix, in an order that changes with every removal; the caller frees the array with sim_free. */
char (*store_map_list(const char *prefix, size_t *n))[TQ_KV_KEY_MAX + 1];

#endif
