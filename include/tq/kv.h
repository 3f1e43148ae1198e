/*
 * kv.h - the plug-in interface for key-value stores: the few functions that the generic KV storage manager needs from
 * a store.
 *
 * A KV client puts, gets and removes values by key, many at a time. Everything else is done above it, once for all
 * stores (src/manager/kv): cutting batches into values, reading rows out of them, splitting values that exceed the
 * store's limit, waiting for room, and removing values that nothing refers to any more.
 *
 * Keys are short strings of letters, digits, '/' and '.', made by the manager. No key is ever written with two
 * different values, so every function may be repeated after a failure. Values are raw bytes of known size: no header
 * or trailer is added.
 *
 * All functions may block. They are called from the threads of a pool, several at a time; a client whose connections
 * cannot be shared between threads keeps a pool of connections. A deadline is a CLOCK_MONOTONIC time in nanoseconds,
 * UINT64_MAX for none; a function that exceeds it fails with TQ_ETIMEDOUT.
 *
 * A plug-in is a shared library that exports `const tq_kv_client *tq_kv_client_plugin(uint32_t abi)`. It is asked for
 * the versions of this interface that the library serves, the newest first, until it returns a table; NULL: not that
 * one.
 * Versions: a new one adds functions at the end of the table, and all of them may be absent. A table of an older
 * version is served without them, and nothing after its end is read; a table of a newer version is refused with
 * TQ_EVERSION. The structs that the functions are called with (tq_kv_value, ...) are the same in all versions. Like a
 * storage manager's, the library is named by "library" in the config of its type.
 */
#ifndef TQ_KV_H
#define TQ_KV_H

#include <tq/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Version of this interface. 1: everything up to forked; 2: keepalive, list. Older ones are served. */
#define TQ_KV_ABI 2
/** Longest key in bytes, without the terminating 0. */
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
    bool missing;        /**< Set by the client: no such key in the store; dest is then undefined. */
} tq_kv_read;

/** A key to remove. */
typedef struct tq_kv_key {
    const char *key; /**< The key. */
    bool missing;    /**< Set by the client: there was no such key; not an error. */
} tq_kv_key;

/** The table of one KV client. */
typedef struct tq_kv_client {
    uint32_t abi;       /**< TQ_KV_ABI that it was built with. */
    const char *type;   /**< Name it is selected by: "Redis", ... */
    size_t state_size;  /**< Bytes of private state, allocated and zeroed by the manager. */
    bool partial;       /**< get can read a part of a value. */
    uint64_t value_max; /**< Largest value the store takes, in bytes; 0: no limit. */
    /** Opens with its config, a JSON object, and checks that the store can be reached. `client` is the table itself,
     * for functions shared by several tables. Required. */
    int (*open)(void *state, const struct tq_kv_client *client, const char *config, tq_error *err);
    /** Closes; no other function is running then. Required. */
    void (*close)(void *state);
    /** Name of the store, the same for all its clients and at most 200 bytes; valid until close. Required. */
    const char *(*name)(void *state);
    /** Puts values. TQ_EFULL if the store has no room. After an error, any of them may have been stored. Required. */
    int (*put)(void *state, const tq_kv_value *values, size_t n, uint64_t deadline_ns, tq_error *err);
    /** Gets ranges of values; keys that do not exist are marked and are not an error. Required. */
    int (*get)(void *state, tq_kv_read *reads, size_t n, uint64_t deadline_ns, tq_error *err);
    /** Removes keys; those that do not exist are marked and are not an error. Required. */
    int (*remove)(void *state, tq_kv_key *keys, size_t n, uint64_t deadline_ns, tq_error *err);
    /** Called in the child after fork: closes inherited descriptors. May be NULL. */
    void (*forked)(void *state);
    /** Puts a key with a one-byte value that the store itself drops after `seconds`, or extends the lifetime of such a
     * key. With this and `list`, a later system can remove the values that an earlier one left behind. May be NULL. */
    int (*keepalive)(void *state, const char *key, double seconds, uint64_t deadline_ns, tq_error *err);
    /** Calls `each` for every key that begins with the prefix, until it returns false: in any order, perhaps twice for
     * some; keys that are added or removed meanwhile may be missed. `each` may call other functions of the client. If
     * finding the next key may take long, `each` is called with NULL several times a second in between. May be NULL. */
    int (*list)(void *state, const char *prefix, bool (*each)(const char *key, void *arg), void *arg,
                uint64_t deadline_ns, tq_error *err);
} tq_kv_client;

/** Registers a KV client as the storage manager of its type; TQ_EEXIST if the type is taken. */
TQ_API int tq_kv_register(const tq_kv_client *client, tq_error *err);

#ifdef __cplusplus
}
#endif
#endif
