/*
 * kv.h - the seam where key-value stores plug in: the little that the general KV storage manager needs of a store.
 *
 * A KV client puts, gets and removes values by key, many at a time.  All else is done above it, once for all stores
 * (src/manager/kv): cutting batches into values, reading rows out of them, values beyond the store's limit, waiting for
 * room, removing what nobody refers to any more.
 *
 * Keys are short texts of letters, digits, '/' and '.', made by the manager; no key is ever written with two different
 * values, so every function may be repeated after a failure.  Values are raw bytes, of known size: nothing is put before
 * or behind them.
 *
 * All functions may block, and are called on threads of a pool, several at a time; a store that has no connections that
 * threads can share keeps a pool of them.  A deadline is a CLOCK_MONOTONIC time in nanoseconds, UINT64_MAX for none; a
 * function that passes it ends with TQ_ETIMEDOUT.
 *
 * A plug-in is a shared library that exports `const tq_kv_client *tq_kv_client_plugin(uint32_t abi)`; it returns NULL when
 * it cannot serve that ABI.  It is named by "library" in the config of its type, like a storage manager's.
 */
#ifndef TQ_KV_H
#define TQ_KV_H

#include <tq/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Version of this interface. 1: all up to forked; 2: lease, list. */
#define TQ_KV_ABI 2
/** Longest key, in bytes, without its closing 0. */
#define TQ_KV_KEY_MAX 63

/** A value to put. */
typedef struct tq_kv_value {
    const char *key;        /**< Its key. */
    const tq_slice *slices; /**< Its bytes. */
    size_t n_slices;        /**< How many slices. */
    uint64_t size;          /**< Bytes of all slices together; at least 1. */
} tq_kv_value;

/** A range of a value to get. */
typedef struct tq_kv_read {
    const char *key;     /**< Its key. */
    uint64_t value_size; /**< Bytes of the whole value, as it was put. */
    uint64_t offset;     /**< First byte; 0 unless the client is `partial`. */
    uint64_t size;       /**< Bytes; the whole value unless the client is `partial`. */
    void *dest;          /**< Where they go. */
    bool missing; /**< Set by the client: the store has no such key; dest is then undefined. */
} tq_kv_read;

/** A key to remove. */
typedef struct tq_kv_key {
    const char *key; /**< The key. */
    bool missing;    /**< Set by the client: there was no such key; no error. */
} tq_kv_key;

/** The table of one KV client. */
typedef struct tq_kv_client {
    uint32_t abi;       /**< TQ_KV_ABI it was made for; another one is refused. */
    const char *type;   /**< Name it is chosen by: "Redis", ... */
    size_t state_size;  /**< Bytes of private state, allocated and zeroed by the manager. */
    bool partial;       /**< get can read a part of a value. */
    uint64_t value_max; /**< Largest value of the store, in bytes; 0: no limit. */
    /** Opens with the JSON object of its config and checks that the store is there.  `client` is the table itself, for
     * functions that serve several.  Required. */
    int (*open)(void *state, const struct tq_kv_client *client, const char *config, tq_error *err);
    /** Closes; no other function is running.  Required. */
    void (*close)(void *state);
    /** Name of the store, the same for all its clients and at most 200 bytes; valid until close.  Required. */
    const char *(*name)(void *state);
    /** Puts values.  TQ_EFULL when the store has no room.  After an error any of them may be there.  Required. */
    int (*put)(void *state, const tq_kv_value *values, size_t n, uint64_t deadline_ns,
               tq_error *err);
    /** Gets ranges of values; keys that are not there are marked and are no error.  Required. */
    int (*get)(void *state, tq_kv_read *reads, size_t n, uint64_t deadline_ns, tq_error *err);
    /** Removes keys; those that are not there are marked and are no error.  Required. */
    int (*remove)(void *state, tq_kv_key *keys, size_t n, uint64_t deadline_ns, tq_error *err);
    /** Called in the child after fork: closes inherited descriptors.  May be NULL. */
    void (*forked)(void *state);
    /** Puts a key with a value of one byte that the store forgets by itself after so many seconds, or renews it.  With
     * this and `list`, values that a system left behind are removed by a later one.  May be NULL. */
    int (*lease)(void *state, const char *key, double seconds, uint64_t deadline_ns, tq_error *err);
    /** Calls `each` for the keys that begin with a prefix, until it returns false: in any order, some perhaps twice; those
     * that come or go meanwhile may be missed.  `each` may call other functions of the client.  Where finding the next
     * key may take long, `each` is called with NULL in between, several times a second.  May be NULL. */
    int (*list)(void *state, const char *prefix, bool (*each)(const char *key, void *arg),
                void *arg, uint64_t deadline_ns, tq_error *err);
} tq_kv_client;

/** Registers a KV client by its type, as a storage manager of that type; TQ_EEXIST for a type that is taken. */
TQ_API int tq_kv_register(const tq_kv_client *client, tq_error *err);

#ifdef __cplusplus
}
#endif
#endif
