/*
 * tq.h - the public C API of the transfer queue: a client of a running system.
 *
 * One growing table per partition: rows are samples, columns are fields, cells are tensors or other values. Producers
 * put cells in any order; consumers claim samples whose fields are ready and read them straight from storage.
 *
 * Operations. Every call that talks to the system is an operation: allocate a tq_op, start a call on it, and either
 * wait for it (tq_op_wait) or get a callback. Once an op is done it may be used again, for any call.
 *
 * Completion contract:
 *   - A call that returns TQ_OK has started and completes exactly once. One that returns an error has not started:
 *     the op holds the error, and the callback is not called.
 *   - The callback runs on the client's own thread, or on the thread that cancels or closes. It must not block. It
 *     may start other operations, but not on its own op (free that op, or reuse it once the callback has returned).
 *   - tq_op_cancel may be called at any time from any thread, and repeated. The op still completes exactly once: with
 *     TQ_ECANCELED, or with its result if that was already on its way. A claim that was cancelled before its answer
 *     arrived returns the samples and completes with TQ_ECANCELED; one that completes with TQ_OK has its samples.
 *   - tq_op_free on an op that is not done cancels it and waits for it. It may be called in the op's own callback.
 *     In the callback of another op it does not wait: the op is freed once it has completed, and its callback is not
 *     called.
 *   - Data given to a call (tensors, slices) is not copied and must stay unchanged until the op is done; everything
 *     else (names, keys, shapes, meta) is copied before the call returns.
 *   - An op's results may be passed to its next call: tq_get(op, tq_op_meta(op), NULL, 0, NULL), or bytes of
 *     tq_op_data(op) as slices of a tq_put. The library keeps them for as long as the call needs them; the caller
 *     must not use them after making that call, even if the call fails to start. Only memory to read into
 *     (tq_get_field.dest) must not be a result of the op.
 *
 * Sizes. A struct that the program fills and that can grow (tq_client_options, tq_put_args, ...) begins with `size`:
 * set it to the struct's sizeof, or begin with its init function, and leave what you do not need zero:
 *
 *     tq_put_args put = {.size = sizeof(put), .partition = "p"};            C
 *     tq_put_args put = tq_put_args_init(); put.partition = "p";            C and C++
 *
 * So a program runs with a later library as it is. With an earlier one it runs as long as it leaves zero what that
 * library lacks; otherwise the call fails with TQ_EINVAL. New members are added at the end only. Structs that are
 * elements of the program's arrays (tq_column, tq_tag, tq_get_field, tq_slice) do not change; if one ever has to, the
 * struct with the array gets a member for the size of an element, and 0 means what it is now. Structs that the library
 * returns may grow at the end: go from one to the next with the array of pointers or the function that gives them, do
 * not copy them, and do not take their sizeof. tq_error, tq_dtype, tq_type and tq_value do not change.
 *
 * NULL. If a required argument is NULL, the call fails with TQ_EINVAL and a message that names the argument (no
 * message if the op itself is NULL). Functions that only read an op, a meta or data accept NULL and return 0, NULL or
 * nothing; but tq_op_error(NULL) returns an error (TQ_EINVAL), and tq_op_done(NULL) is true. `err` may be NULL.
 *
 * Threads: clients and metas are safe to use from any thread; an op is used by one thread at a time (except for
 * cancelling and waiting).
 * Fork: in a child process, a client inherited from the parent becomes a new one with its own session, created at the
 * first call. Operations that were in flight stay the parent's: in the child they never complete and may only be
 * freed.
 */
#ifndef TQ_TQ_H
#define TQ_TQ_H

#include <string.h>

#include <tq/errors.h>
#include <tq/log.h>
#include <tq/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Version of these headers: what a program is built with. */
#define TQ_VERSION_MAJOR 0
/** Its second number. */
#define TQ_VERSION_MINOR 2
/** Its third number. */
#define TQ_VERSION_PATCH 0
/** All three in one number, to compare: #if TQ_VERSION >= TQ_VERSION_NUMBER(0, 3, 0). */
#define TQ_VERSION TQ_VERSION_NUMBER(TQ_VERSION_MAJOR, TQ_VERSION_MINOR, TQ_VERSION_PATCH)
/** The number of a version. */
#define TQ_VERSION_NUMBER(major, minor, patch) ((major)*10000 + (minor)*100 + (patch))

/** Version of the library that the program runs with, "major.minor.patch". */
TQ_API const char *tq_version(void);
/** Text of an error code. */
TQ_API const char *tq_strerror(int rc);
/** Name of an error code, "TQ_EFULL". */
TQ_API const char *tq_error_name(int rc);

/* --- client --------------------------------------------------------------- */

/** A connection to one system. */
typedef struct tq_client tq_client;

/** Where a system is. */
typedef struct tq_location {
    size_t size;           /**< Set by the caller: sizeof(tq_location). */
    char address[1024];    /**< Endpoints of the controller. */
    char token_file[1024]; /**< File with the secret; "" when TQ_TOKEN_FILE is not set. */
    char name[256];        /**< Of the system; "" if found by TQ_ADDRESS. */
    uint64_t pid;          /**< Of its daemon; 0 if found by TQ_ADDRESS. */
    double created;        /**< Unix time of its start; 0 if found by TQ_ADDRESS. */
    char library[1024];    /**< Storage-backend library that its handle names, or "". */
} tq_location;
/** Zero, except for `size`. */
TQ_DEFINE_INIT(tq_location);

/** Directory that holds the handles of this user's systems on this machine: $XDG_RUNTIME_DIR/ctq if that exists, else
 * <tmp>/ctq-UID. It need not exist. TQ_ENAME if it does not fit into `out`. */
TQ_API int tq_runtime_dir(char *out, size_t size, tq_error *err);

/** Opens that directory (name NULL) or a system's directory in it. Links are not followed, and both must belong to
 * this user with mode 0700, because their contents are trusted: otherwise TQ_ECONFIG, with a message that names the
 * directory and the remedy. `make` creates them; without it, TQ_EUNREACHABLE if one does not exist. On success the
 * caller owns *fd. */
TQ_API int tq_runtime_open(const char *name, bool make, int *fd, tq_error *err);

/** Removes what a killed daemon left behind in a system's directory: files and sockets with the names that daemons use,
 * nothing else. */
TQ_API void tq_runtime_clear(int fd);

/** Memory that this process may use, in bytes: all of the machine's, or less if its control groups (version 1 or 2)
 * limit it; *of_cgroup (unless NULL) is then true. Sizes such as "25%" in the configuration are fractions of this. */
TQ_API uint64_t tq_memory_limit(bool *of_cgroup);

/** Finds a system: by TQ_ADDRESS (and TQ_TOKEN_FILE) if set, else by the handle of a local system of that name (NULL:
 * TQ_SYSTEM, else "default") in tq_runtime_dir. If there is none, TQ_EUNREACHABLE with a message that says where it
 * looked. */
TQ_API int tq_discover(const char *name, tq_location *out, tq_error *err);

/** How to reach a system: set whatever differs from the default. */
typedef struct tq_client_options {
    size_t size; /**< sizeof(tq_client_options). */
    /** Controller: "unix:/path" or "tcp:host:port", alternatives separated by commas; NULL: found by tq_discover. */
    const char *address;
    const char *token;      /**< The system's secret, or NULL to read token_file. */
    const char *token_file; /**< File that holds it. */
    const char *name;       /**< Session name shown to people; NULL: program and pid. */
    /** Type of storage manager; NULL: the system's; "": none (metadata only). */
    const char *manager;
    const char *manager_config; /**< Its config, a JSON object; NULL: the system's. */
    /** Timeout in seconds for opening, and for calls that do not set their own. Negative: none. 0: 60 s for opening;
     * for calls, the system's client.timeout (60 s if that is not set). */
    double timeout;
    uint64_t first_request; /**< For tests: number of the first request; 0: 1. */
    /** Node this process is on, named as units name theirs (storage.node); NULL: TQ_NODE, else the machine. */
    const char *node;
    /** Seconds after which a claim or put that is still waiting logs what it is waiting for. 0: the system's
     * client.wait_notice (5 by default); negative: never. */
    double notice;
    /** Libraries that the system's configuration may name for its storage backend: paths separated by colons. Their
     * code runs in this process. NULL: the library that the handle names, if the address was found through one.
     * TQ_LIBRARIES allows more; a library in `manager_config` needs no permission. */
    const char *libraries;
} tq_client_options;
/** Zero, except for `size`. */
TQ_DEFINE_INIT(tq_client_options);

/** Connects, authenticates and opens the storage manager, within the timeout. On success the caller owns *out. */
TQ_API int tq_client_open(const tq_client_options *options, tq_client **out, tq_error *err);
/** Ends all operations with TQ_ECLOSED, closes the session and frees the client. Calls on other threads must have
 * returned. Waits a few seconds for storage work that cannot be stopped; if it is still running, this returns, and
 * the rest is freed in the background when that work ends. */
TQ_API void tq_client_close(tq_client *client);
/** Epoch of the controller; it changes when the controller restarts. */
TQ_API uint64_t tq_client_epoch(const tq_client *client);
/** The system's complete configuration, a JSON object; valid as long as the client. */
TQ_API const char *tq_client_config(const tq_client *client);

/* --- operations ----------------------------------------------------------- */

/** One operation. */
typedef struct tq_op tq_op;
/** Called once when an operation has completed. */
typedef void (*tq_done_fn)(tq_op *op, void *arg);

/** Allocates an op of the client; done may be NULL (then wait for the op). NULL when out of memory. */
TQ_API tq_op *tq_op_alloc(tq_client *client, tq_done_fn done, void *arg);
/** Frees the op; see the contract above. NULL is allowed. */
TQ_API void tq_op_free(tq_op *op);
/** Timeout of calls started from now on, in seconds from their start; 0: the client's; negative: none. */
TQ_API void tq_op_set_timeout(tq_op *op, double seconds);
/** Waits until the op is done and returns its code. Must not be called from a callback. */
TQ_API int tq_op_wait(tq_op *op);
/** Waits up to `seconds` (negative: no limit) for the op to complete and returns whether it has. Returns early if a
 *  signal handler runs while it sleeps (with no limit: only one installed without SA_RESTART). An op that was in
 *  progress when the process forked never completes in the child. Must not be called from a callback. */
TQ_API bool tq_op_wait_for(tq_op *op, double seconds);
/** Cancels the op; see the contract above. */
TQ_API void tq_op_cancel(tq_op *op);
/** Whether it has completed (or was never started). */
TQ_API bool tq_op_done(const tq_op *op);
/** How it completed: code TQ_OK, or the error with its message; valid until the op is used again. */
TQ_API const tq_error *tq_op_error(const tq_op *op);

/* --- completion queues ---------------------------------------------------- */

/** Completed ops, for a program that has an event loop of its own (epoll, poll, libuv, ...). Thread-safe. */
typedef struct tq_queue tq_queue;

/** Makes a queue; the caller owns *out. TQ_EIO if the process has no descriptor left. */
TQ_API int tq_queue_alloc(tq_queue **out, tq_error *err);
/** Frees it; NULL is allowed. Ops that have it complete without it from now on. */
TQ_API void tq_queue_free(tq_queue *queue);
/** The queue's descriptor, which is readable as long as there are ops to take. It belongs to the queue: do not read
 * from it or close it. A child of fork has another one: ask again there. */
TQ_API int tq_queue_fd(tq_queue *queue);
/** Takes up to n completed ops, in the order in which they completed, and returns how many. They may be used again or
 * freed at once. A program that watches the descriptor edge-triggered takes until there are none. */
TQ_API size_t tq_queue_take(tq_queue *queue, tq_op **ops, size_t n);
/** Lets the op's calls complete into a queue (NULL: as before), instead of calling back. Not while a call is in
 * progress. An op that is waited for, used again or freed need not be taken. */
TQ_API void tq_op_set_queue(tq_op *op, tq_queue *queue);
/** What the op was allocated with (`arg`). */
TQ_API void *tq_op_arg(const tq_op *op);

/* --- metadata ------------------------------------------------------------- */

/** A set of samples and where their cells lie: returned by a claim, passed to a read. Immutable; reference-counted. */
typedef struct tq_meta tq_meta;

/** A field of a meta. */
typedef struct tq_meta_field {
    const char *name;      /**< Name. */
    tq_kind kind;          /**< Tensor or other value. */
    tq_dtype dtype;        /**< Element type; {TQ_UINT, 8} for values. */
    bool ragged;           /**< Rows differ in shape: see dims. */
    uint32_t ndim;         /**< Dims of shape, when not ragged. */
    const uint64_t *shape; /**< Of every row, when not ragged. */
    /** Ragged: dims of each row (one number per sample); NULL if nothing is known yet. */
    const uint32_t *ndims;
    const uint64_t *dims; /**< Ragged: dims of all rows end to end. */
    const uint8_t *ready; /**< One byte per sample: 1 produced, 0 not, 2 lost. */
    /** The dim in which rows of the field differ, as known when the meta was made: 1 is the first dim of a row; 0:
     * none; TQ_RAGGED_MANY: several. */
    uint8_t ragged_dim;
    /** Kind and dtype of each row if rows differ in them, else NULL. If set, the field is ragged, and `kind` and
     * `dtype` are those of the first row. */
    const tq_type *types;
} tq_meta_field;

/** A tag of a meta's samples: msgpack-encoded values end to end. */
typedef struct tq_meta_tag {
    const char *name;      /**< Name. */
    const uint8_t *values; /**< Encoded values of all samples, end to end. */
    const uint32_t *sizes; /**< Bytes of each sample's value; 0 = not set. */
} tq_meta_tag;

/** Takes another reference: the caller owns what is returned (the same meta), and releases it with tq_meta_unref. */
TQ_API tq_meta *tq_meta_ref(const tq_meta *meta);
/** Releases a reference; NULL is allowed. */
TQ_API void tq_meta_unref(tq_meta *meta);
/** Makes a meta by hand, without placements: a read looks them up. incarnations NULL: any. */
TQ_API int tq_meta_make(const char *partition, const uint32_t *indexes, const uint32_t *incarnations, size_t n,
                        const char *const *fields, size_t n_fields, tq_meta **out, tq_error *err);
TQ_API size_t tq_meta_sample_count(const tq_meta *meta);     /**< Samples. */
TQ_API const char *tq_meta_partition(const tq_meta *meta);   /**< Name of the partition. */
TQ_API uint64_t tq_meta_epoch(const tq_meta *meta);          /**< Of the controller that made it; 0: made by hand. */
TQ_API uint64_t tq_meta_claim(const tq_meta *meta);          /**< Id of the claim that returned it, or 0. */
TQ_API const uint32_t *tq_meta_indexes(const tq_meta *meta); /**< Global index of each sample. */
TQ_API const uint32_t *tq_meta_incarnations(const tq_meta *meta); /**< Of each sample; 0 = any. */
TQ_API const char *tq_meta_key(const tq_meta *meta, size_t i);    /**< Key of sample i, or NULL. */
TQ_API const char *tq_meta_group(const tq_meta *meta, size_t i);  /**< Group of sample i, or NULL. */
TQ_API size_t tq_meta_field_count(const tq_meta *meta);           /**< Number of fields. */
/** The f-th field; valid as long as the meta. */
TQ_API const tq_meta_field *tq_meta_field_at(const tq_meta *meta, size_t f);
/** The field of that name, or NULL. */
TQ_API const tq_meta_field *tq_meta_find_field(const tq_meta *meta, const char *name);
/** Notes of the f-th field's cells, one per sample (size 0: none), if a custom manager keeps them by index and the
 * meta has placements; else NULL. Valid as long as the meta. */
TQ_API const tq_slice *tq_meta_notes(const tq_meta *meta, size_t f);
TQ_API size_t tq_meta_tag_count(const tq_meta *meta); /**< Number of tags. */
/** The t-th tag; valid as long as the meta. */
TQ_API const tq_meta_tag *tq_meta_tag_at(const tq_meta *meta, size_t t);
/** The tag of that name, or NULL. */
TQ_API const tq_meta_tag *tq_meta_find_tag(const tq_meta *meta, const char *name);
/** Finds a sample by its key, which a meta has if keys were asked for: true, and its row in *row. */
TQ_API bool tq_meta_find_key(const tq_meta *meta, const char *key, size_t *row);
/** Selects rows (by position, in any order, repeats allowed) and fields (NULL: all) of a meta. TQ_EFIELD for an unknown
 * field. */
TQ_API int tq_meta_select(const tq_meta *meta, const uint32_t *rows, size_t n_rows, const char *const *fields,
                          size_t n_fields, tq_meta **out, tq_error *err);
/** Concatenates metas; their partitions and fields must agree (TQ_EINVAL, TQ_EFIELD). */
TQ_API int tq_meta_concat(tq_meta *const *metas, size_t n, tq_meta **out, tq_error *err);
/** Fields of both metas, which must have the same samples; if both have a field, `other` wins. */
TQ_API int tq_meta_union(const tq_meta *meta, const tq_meta *other, tq_meta **out, tq_error *err);
/** Serialises a meta, to send it to another process; *out is malloc'ed. */
TQ_API int tq_meta_pack(const tq_meta *meta, uint8_t **out, size_t *size, tq_error *err);
/** Makes a meta from bytes made by tq_meta_pack. They are validated (TQ_EPROTO), so they need not be trusted. */
TQ_API int tq_meta_unpack(const uint8_t *bytes, size_t size, tq_meta **out, tq_error *err);

/* --- put ------------------------------------------------------------------ */

/** One field of a batch to put. The bytes of its rows lie end to end in `slices`. */
typedef struct tq_column {
    const char *name;      /**< Field. */
    tq_kind kind;          /**< Tensor or other value. */
    tq_dtype dtype;        /**< Element type; {TQ_UINT, 8} for values. */
    size_t rows;           /**< Rows. */
    uint32_t ndim;         /**< Dims of shape; 0 with dims NULL: one element per row. */
    const uint64_t *shape; /**< Shape of every row, if all agree. */
    const uint32_t *ndims; /**< Ragged: dims of each row (`rows` of them). */
    /** Ragged (not NULL): dims of all rows end to end; ndims NULL: ndim each. */
    const uint64_t *dims;
    const tq_slice *slices; /**< Their bytes; the total must match dtype and shapes (TQ_EROWS). */
    size_t n_slices;        /**< How many. */
    /** The dim that the caller declares ragged, 2 or more: rows are read as ragged in it even if they all agree. 0 or
     * 1: the library finds the dim in which rows differ. */
    uint8_t ragged_dim;
    /** Kind and dtype of each of the `rows` rows, if they differ; `kind` and `dtype` above are then ignored, and
     * `dims` must hold the shapes: for a value one dim, its encoded size. NULL: all rows have `kind` and `dtype`.
     * Every row is stored as given, except that a tensor without elements takes the dtype of its field. */
    const tq_type *types;
} tq_column;

/** A column of `rows` tensors of one element each, whose bytes are `slice`, which must stay valid as long as the
 * column. For rows with more elements, set ndim and shape. */
static inline tq_column tq_column_make(const char *name, enum tq_type_code code, uint8_t bits, size_t rows,
                                       const tq_slice *slice)
{
    tq_column column;

    memset(&column, 0, sizeof(column));
    column.name = name;
    column.dtype.code = (uint8_t)code;
    column.dtype.bits = bits;
    column.rows = rows;
    column.slices = slice;
    column.n_slices = 1;
    return column;
}

/** A tag to put: as in tq_meta_tag. */
typedef struct tq_tag {
    const char *name;      /**< Name. */
    const uint8_t *values; /**< msgpack-encoded values end to end. */
    const uint32_t *sizes; /**< Bytes of each sample's; 0 = leave as it is. */
} tq_tag;

/** A put. Its samples are given by `meta` or by `keys`, or are new. */
typedef struct tq_put_args {
    size_t size;               /**< sizeof(tq_put_args). */
    const char *partition;     /**< Partition; NULL with meta: the meta's. */
    const tq_meta *meta;       /**< Existing samples, or NULL. */
    const char *const *keys;   /**< n keys, or NULL. */
    size_t n;                  /**< Samples; 0 without keys and meta: as many as the columns have rows. */
    bool must_exist;           /**< With keys: an unknown key is TQ_EKEY, not a new sample. */
    const char *const *groups; /**< n group ids for new samples, or NULL; NULL elements: none. */
    const tq_column *columns;  /**< Fields; none is allowed (tags only). */
    size_t n_columns;          /**< How many. */
    const tq_tag *tags;        /**< Tags, merged by name. */
    size_t n_tags;             /**< How many. */
    bool other_fields;         /**< tq_put: tq_op_names lists the other fields that all samples have. */
    bool fail_when_full;       /**< TQ_EFULL at once, instead of waiting for room until the deadline. */
    /** tq_notify with meta: the storage manager that must remove the replaced data (see tq_begin_clear); NULL: data
     * is replaced in place. */
    const char *remover;
} tq_put_args;
/** Zero, except for `size`. */
TQ_DEFINE_INIT(tq_put_args);

/** Stores the columns and publishes them, all or nothing. Result: tq_op_meta, and with other_fields tq_op_names. */
TQ_API int tq_put(tq_op *op, const tq_put_args *args);

/** Reserves samples: n new ones, or one for each key that does not exist yet. Result: tq_op_meta of all of them. */
TQ_API int tq_reserve(tq_op *op, const char *partition, size_t n, const char *const *keys, const char *const *groups);

/** Publishes cells that a custom manager keeps by index (see StorageManager in Python): columns without bytes (slices
 * are ignored), and for each column and sample a small opaque note that readers get back. Result: tq_op_meta, and
 * with a remover tq_op_clearings: the data that was replaced. */
TQ_API int tq_notify(tq_op *op, const tq_put_args *args, const tq_slice *const *opaque);

/* --- claim ---------------------------------------------------------------- */

/** How a claim picks. */
typedef enum tq_claim_mode {
    TQ_CLAIM_FETCH = 0,      /**< Ready samples new to the task, picked by its sampler and consumed. */
    TQ_CLAIM_FORCE_FETCH = 1 /**< All samples with the fields they have; none are consumed. */
} tq_claim_mode;

/** A claim. */
typedef struct tq_claim_args {
    size_t size;                /**< sizeof(tq_claim_args). */
    const char *partition;      /**< Partition; it need not exist yet. */
    const char *const *fields;  /**< Fields that must be ready. */
    size_t n_fields;            /**< How many; at least 1 for TQ_CLAIM_FETCH. */
    int64_t batch_size;         /**< Samples; TQ_ESIZE below 1. */
    const char *task;           /**< The consumer. */
    tq_claim_mode mode;         /**< How. */
    bool poll;                  /**< TQ_EAGAIN at once if too few are ready. */
    bool tags;                  /**< Include keys, groups and tags. */
    const char *sampler;        /**< NULL: the controller's. */
    const char *sampler_config; /**< A JSON object; NULL: {}. */
} tq_claim_args;
/** Zero, except for `size`. */
TQ_DEFINE_INIT(tq_claim_args);

/** Claims samples; waits at the controller until the op's deadline (TQ_ETIMEDOUT). Result: tq_op_meta. */
TQ_API int tq_claim(tq_op *op, const tq_claim_args *args);

/** Which samples to look up: by keys, by indexes, or all of the partition. */
typedef struct tq_resolve_args {
    size_t size;               /**< sizeof(tq_resolve_args). */
    const char *partition;     /**< Partition; TQ_EPARTITION. */
    const char *const *keys;   /**< n keys, or NULL. */
    const uint32_t *indexes;   /**< n indexes, or NULL. */
    size_t n;                  /**< How many; 0 with both NULL: all samples. */
    bool lenient;              /**< Skip unknown keys and fields instead of TQ_EKEY, TQ_EFIELD. */
    bool tags;                 /**< Include keys, groups and tags. */
    const char *const *fields; /**< Fields, or NULL: all. */
    size_t n_fields;           /**< How many. */
} tq_resolve_args;
/** Zero, except for `size`. */
TQ_DEFINE_INIT(tq_resolve_args);

/** Looks up samples and where they lie now. Result: tq_op_meta. */
TQ_API int tq_resolve(tq_op *op, const tq_resolve_args *args);

/* --- get ------------------------------------------------------------------ */

/** The result of a read: columns in the library's memory. Reference-counted. */
typedef struct tq_data tq_data;

/** One field as read: rows end to end in one buffer. */
typedef struct tq_data_column {
    const char *name;        /**< Field. */
    tq_kind kind;            /**< Tensor or other value. */
    tq_dtype dtype;          /**< Element type. */
    bool ragged;             /**< Rows (as read) differ in shape. */
    uint32_t ndim;           /**< Dims of shape, when not ragged. */
    const uint64_t *shape;   /**< Of every row, when not ragged. */
    const uint32_t *ndims;   /**< Dims of each row, always set. */
    const uint64_t *dims;    /**< Dims of all rows end to end, always set. */
    const uint64_t *offsets; /**< rows + 1 byte offsets into data. */
    /** Rows lie at equal distances, the shorter ones followed by a gap; dims give their true shapes. */
    bool padded;
    uint64_t length; /**< Padded: size of the first dim that each row has room for. */
    /** The bytes, writable and 64-byte aligned; valid as long as the tq_data, unless they are in the caller's memory
     * (tq_get_field.dest). */
    void *data;
    /** Notes of a manager that keeps data by index, one per row; else NULL (and data is set). */
    const tq_slice *opaque;
    uint8_t ragged_dim; /**< As in tq_meta_field: does not depend on the rows read. */
    /** Kind and dtype of each row if the rows read differ in them, else NULL. If set, `kind` and `dtype` are those of
     * the first row, the column is neither padded nor read in place, even if requested, and each row begins at a
     * multiple of 16 bytes: its dims and its type say how many bytes belong to it. */
    const tq_type *types;
    /** The rows were left in the store (tq_get_options.leave_values): data is NULL, and tq_data_look gives access to
     * them. */
    bool left;
} tq_data_column;

/** How, and where, to lay out one field of a read in memory. Zero-initialise. */
typedef struct tq_get_field {
    const char *name; /**< One of the fields being read, else TQ_EFIELD. */
    /** Place rows at equal distances, like a dense tensor with room for the longest row. Only for tensors whose rows
     * have a first dim and agree in all others; otherwise rows are not padded, and tq_data_column.padded is false. */
    bool padded;
    uint64_t length;    /**< Make room for a first dim of at least this. */
    uint64_t multiple;  /**< Round the room up to a multiple of this; 0: 1. */
    tq_dtype pad_dtype; /**< Type of pad; must be the field's (TQ_EDTYPE); {0, 0}: zeros. */
    uint8_t pad[16];    /**< The element to fill gaps with. */
    void *dest;         /**< The caller's memory to read into; NULL: the library's. */
    size_t dest_size;   /**< Its size in bytes; TQ_EROWS if rows need more. */
} tq_get_field;

/** Options of tq_get. */
typedef struct tq_get_options {
    size_t size;                /**< sizeof(tq_get_options). */
    const tq_get_field *fields; /**< Fields that differ from the default; copied. */
    size_t n_fields;            /**< How many. */
    /** Do not copy columns that can be read in place, in memory shared by a storage unit on this machine: tensors of
     * 64 KiB or more whose rows lie end to end in one block, in order, and that are neither padded nor read into
     * `dest`. Everything else is copied as usual. The caller borrows that memory, as a private mapping: its bytes
     * stay the same whatever happens to the samples, and writes to it affect nobody else. The unit cannot reuse the
     * memory until the data is released, so do not keep it for long. A fork, and closing the client, turn borrowed
     * memory into copies. */
    bool zero_copy;
    /** Leave large columns of values in the store if their rows are long texts, bytes, or lists and maps of those, and
     * lie in memory shared by a storage unit on this machine: for readers that will copy the bytes anyway when they
     * decode them. Nothing keeps the rows there: see tq_data_look. */
    bool leave_values;
    /** Called exactly once, on any thread, even if the call fails (unless `size` was not set), when the library no
     * longer uses `dest` memory. A cancelled read may write to it until then. May be NULL. */
    void (*release)(void *arg);
    void *release_arg; /**< Its argument. */
} tq_get_options;
/** Zero, except for `size`. */
TQ_DEFINE_INIT(tq_get_options);

/** Reads the given fields of a meta's samples (NULL: all of it), straight into place: laid out and placed as the
 * options say (NULL: rows end to end, in the library's memory). Fails with TQ_ENOTREADY if samples lack a field,
 * TQ_ECLEARED if they were cleared, TQ_ELOST if their data was lost; the message names the samples and fields.
 * Result: tq_op_data. */
TQ_API int tq_get(tq_op *op, const tq_meta *meta, const char *const *fields, size_t n_fields,
                  const tq_get_options *options);

/** Which samples and fields tq_get_by_key reads. */
typedef struct tq_get_by_key_args {
    size_t size;             /**< sizeof(tq_get_by_key_args). */
    const char *partition;   /**< Partition; an unknown one has no samples. */
    const char *const *keys; /**< n keys; unknown ones are left out. */
    size_t n;                /**< How many. */
    bool zero_copy;          /**< As in tq_get_options. */
    bool leave_values;       /**< As in tq_get_options. */
    /** Fields, in this order; those that some of the samples lack are left out. NULL: all. */
    const char *const *fields;
    size_t n_fields; /**< How many. */
} tq_get_by_key_args;
/** Zero, except for `size`. */
TQ_DEFINE_INIT(tq_get_by_key_args);

/** Looks samples up by key and reads them, in one call. Result: tq_op_meta of the samples found, with all fields that
 * any of them has, and tq_op_data, which is NULL if no field is left to read. */
TQ_API int tq_get_by_key(tq_op *op, const tq_get_by_key_args *args);

TQ_API tq_data *tq_data_ref(const tq_data *data);        /**< Takes another reference, as tq_meta_ref. */
TQ_API void tq_data_unref(tq_data *data);                /**< Releases a reference; NULL is allowed. */
TQ_API size_t tq_data_row_count(const tq_data *data);    /**< Rows. */
TQ_API size_t tq_data_column_count(const tq_data *data); /**< Columns. */
/** The c-th column; valid as long as the data. */
TQ_API const tq_data_column *tq_data_column_at(const tq_data *data, size_t c);
/** The column of that field, or NULL. */
TQ_API const tq_data_column *tq_data_find_column(const tq_data *data, const char *name);

/** Calls `look` for each of the rows [row, row + n) of a column that was left in the store. TQ_OK: `look` saw the
 * bytes that were put. TQ_ELOST: it may not have, because the rows were cleared, overwritten or moved meanwhile;
 * discard what `look` produced and read the rows again, without leave_values. `look` must therefore tolerate
 * arbitrary bytes, which may even change while it reads them. It must not call the library or wait for another
 * thread. Thread-safe. Closing the client and forking first turn the rows into copies, so this still works
 * afterwards. */
TQ_API int tq_data_look(const tq_data *data, size_t c, size_t row, size_t n,
                        void (*look)(void *arg, size_t row, const void *bytes, size_t size), void *arg);

/** Takes memory from the pool that backs tq_data, for callers that prepare bytes to put: 64-byte aligned, contents
 * undefined. Most of its pages are already mapped; copying into memory that was never touched is several times slower.
 * Thread-safe. NULL when out of memory. */
TQ_API void *tq_buffer_take(size_t size);
/** Returns it to the pool. `size` is the size it was taken with; another one makes the pool less useful, and nothing
 * worse. NULL is allowed. */
TQ_API void tq_buffer_give(void *buffer, size_t size);

/* --- clear, reset --------------------------------------------------------- */

/** Clears the meta's samples; those already cleared are skipped. Result: tq_op_count. */
TQ_API int tq_clear_meta(tq_op *op, const tq_meta *meta);
/** Clears samples by index, whatever their incarnation. Result: tq_op_count. */
TQ_API int tq_clear_indexes(tq_op *op, const char *partition, const uint32_t *indexes, size_t n);
/** Clears samples by key; unknown ones are skipped. Result: tq_op_count. */
TQ_API int tq_clear_keys(tq_op *op, const char *partition, const char *const *keys, size_t n);
/** Clears a partition with everything in it; an unknown one is no error. Result: tq_op_count. */
TQ_API int tq_clear_partition(tq_op *op, const char *partition);
/** What to clear in two phases: one of meta, keys and a whole partition, or nothing. */
typedef struct tq_begin_clear_args {
    size_t size;             /**< sizeof(tq_begin_clear_args). */
    const char *remover;     /**< What removes the data: the type of a custom storage manager. */
    const char *partition;   /**< Partition; NULL with meta: the meta's; NULL without: nothing. */
    const tq_meta *meta;     /**< Samples, or NULL. */
    const char *const *keys; /**< n keys, or NULL; with neither, the whole partition is cleared. */
    size_t n;                /**< Keys. */
} tq_begin_clear_args;
/** Zero, except for `size`. */
TQ_DEFINE_INIT(tq_begin_clear_args);

/** A clear that has begun, whose data must be removed. */
typedef struct tq_clearing {
    uint64_t id; /**< For tq_end_clear. */
    bool begun;  /**< By this call; else it was left over from another one. */
    /** The samples as they were, with all fields and notes; owned by the op. */
    const tq_meta *meta;
} tq_clearing;

/** Clears samples whose data a custom manager keeps (see StorageManager in Python), in two phases. This call is the
 * first: the samples are gone, but their indexes are not reused yet. Then the caller removes the data of every clear
 * that the call returns, including those taken over from others, whose data may already be partly removed, and ends
 * each with tq_end_clear. If the session ends before a clear does, the clear is handed to the next caller with the
 * same remover.
 * Result: tq_op_clearings, and tq_op_count (samples cleared by this call). */
TQ_API int tq_begin_clear(tq_op *op, const tq_begin_clear_args *args);
/** Ends a clear that this client has begun or taken over. If not `removed`, it is left to the next caller. TQ_ESTALE if
 * the client's session was lost since: the clear is then left to the next caller in any case. */
TQ_API int tq_end_clear(tq_op *op, uint64_t id, bool removed);

/** Makes consumed samples claimable again for a task (NULL: all tasks). */
TQ_API int tq_reset_consumption(tq_op *op, const char *partition, const char *task);

/* --- status --------------------------------------------------------------- */

/** Consumption or production of a partition's samples. Result of the two calls below, by tq_op_progress. */
typedef struct tq_progress {
    bool known;              /**< The partition exists. */
    size_t n;                /**< Samples. */
    const uint32_t *indexes; /**< Ascending. */
    size_t columns;          /**< 1 for consumption, number of fields for production. */
    const uint8_t *flags;    /**< n x columns, row-major: 1 consumed / produced. */
} tq_progress;

/** Which samples a task has consumed. */
TQ_API int tq_query_consumption(tq_op *op, const char *partition, const char *task);
/** Which samples have which fields. */
TQ_API int tq_query_production(tq_op *op, const char *partition, const char *const *fields, size_t n_fields);
/** Lists the names of the partitions, in order of creation. Result: tq_op_names. */
TQ_API int tq_list_partitions(tq_op *op);
/** Lists the keys of a partition with their tags, in the order in which samples were added. Result: tq_op_meta (empty
 * for an unknown partition). */
TQ_API int tq_list_keys(tq_op *op, const char *partition);

/** One page of a list of keys; empty for the first page. */
typedef struct tq_keys_page {
    size_t size;       /**< sizeof(tq_keys_page). */
    uint32_t limit;    /**< Most keys in the page; 0: all. */
    const char *after; /**< Last key of the previous page. */
    uint64_t mark;     /**< tq_op_count of the previous page; 0: the first page. */
} tq_keys_page;
/** Zero, except for `size`. */
TQ_DEFINE_INIT(tq_keys_page);

/** Like tq_list_keys, one page at a time, so that the controller can serve others in between. Keys that are added or
 * cleared meanwhile may or may not be listed (a key that is cleared and put again may be listed twice), but a key that
 * exists throughout is never left out. tq_op_count is not 0 if there is another page. */
TQ_API int tq_list_keys_page(tq_op *op, const char *partition, const tq_keys_page *page);
/** Looks up the keys of samples by index. Result: tq_op_names ("" = none). */
TQ_API int tq_keys_of(tq_op *op, const char *partition, const uint32_t *indexes, size_t n);

/** A field as the status shows it. */
typedef struct tq_status_field {
    const char *name;      /**< Name. */
    tq_kind kind;          /**< Tensor or other value. */
    tq_dtype dtype;        /**< Element type. */
    bool ragged;           /**< Rows differ in shape. */
    uint32_t ndim;         /**< Dims of shape. */
    const uint64_t *shape; /**< When not ragged. */
    uint32_t produced;     /**< Samples that have it. */
    uint32_t lost;         /**< Samples that lost it. */
    uint8_t ragged_dim;    /**< As in tq_meta_field. */
    bool mixed;            /**< Rows differ in kind or dtype; `kind` and `dtype` are the field's own. */
} tq_status_field;

/** A task as the status shows it. */
typedef struct tq_status_task {
    const char *name;  /**< Name. */
    uint32_t consumed; /**< Samples it has consumed. */
} tq_status_task;

/** A partition as the status shows it. */
typedef struct tq_status_partition {
    const char *name;                     /**< Name. */
    uint32_t samples;                     /**< Rows. */
    uint64_t bytes;                       /**< Of its cells. */
    const tq_status_field *const *fields; /**< Columns. */
    size_t n_fields;                      /**< How many. */
    const tq_status_task *const *tasks;   /**< Consumers. */
    size_t n_tasks;                       /**< How many. */
    const uint32_t *lost;                 /**< Samples with lost cells, at most 1000. */
    size_t n_lost;                        /**< How many are listed. */
} tq_status_partition;

/** A client that reads blocks in place (tq_get_options.zero_copy), as the status shows it. Until it releases them,
 * their memory cannot be reused, even if they were cleared. */
typedef struct tq_status_pin {
    const char *client; /**< Name of the session; "" if it has ended but its process still runs. */
    const char *host;   /**< Its host. */
    uint64_t pid;       /**< Its process. */
    uint64_t pins;      /**< Reads that it holds. */
    uint64_t bytes;     /**< Of the blocks. */
} tq_status_pin;

/** A storage owner (unit or store) as the status shows it. */
typedef struct tq_status_owner {
    const char *name;                    /**< Name. */
    const char *manager;                 /**< Type of storage manager. */
    bool present;                        /**< Served by a session now. */
    uint64_t blocks;                     /**< Live blocks. */
    uint64_t bytes;                      /**< In them. */
    uint64_t used_bytes;                 /**< As it reports. */
    uint64_t capacity_bytes;             /**< As it reports. */
    uint64_t pins;                       /**< Reads in place of its memory (zero_copy). */
    uint64_t pinned_bytes;               /**< Of the blocks they pin, counted once per pin. */
    uint64_t waiting_puts;               /**< Puts that are waiting for room in it. */
    const tq_status_pin *const *holders; /**< The clients with those reads; only the largest, if many. */
    size_t n_holders;                    /**< How many are listed. */
} tq_status_owner;

/** A session as the status shows it. */
typedef struct tq_status_session {
    const char *name;     /**< Name it gave. */
    const char *host;     /**< Host it gave. */
    const char *endpoint; /**< Where it connected from. */
    uint64_t pid;         /**< Process id it gave. */
    bool connected;       /**< Now. */
    double age;           /**< Seconds. */
} tq_status_session;

/** A waiting call: a claim that waits for samples, or a put that waits for room. */
typedef struct tq_status_wait {
    const char *kind;          /**< "claim" or "put". */
    const char *client;        /**< Name of the session. */
    const char *host;          /**< Its host. */
    uint64_t pid;              /**< Its process. */
    const char *task;          /**< Of a claim; else "". */
    const char *partition;     /**< Of a claim; else "". */
    const char *const *fields; /**< Of a claim. */
    size_t n_fields;           /**< How many. */
    const char *owner;         /**< Of a put: the storage unit that is full; else "". */
    uint64_t wanted;           /**< Samples that a claim, or bytes that a put, asks for. */
    uint64_t ready;            /**< Samples ready for the claim, or bytes free for the put. */
    double age;                /**< Seconds it has been waiting. */
    const char *missing;       /**< What it is waiting for, in words. */
    bool suspect;              /**< It will probably wait in vain; `missing` says why. */
} tq_status_wait;

/** The state of a system. Result of tq_query_status, by tq_op_status. */
typedef struct tq_system_status {
    uint64_t epoch;                               /**< Of the controller. */
    double uptime;                                /**< Seconds. */
    const char *version;                          /**< Of the controller. */
    uint32_t waiting;                             /**< Waiting claims. */
    uint64_t requests;                            /**< Handled since the start. */
    const tq_status_partition *const *partitions; /**< In order of creation. */
    size_t n_partitions;                          /**< How many. */
    const tq_status_owner *const *owners;         /**< Storage. */
    size_t n_owners;                              /**< How many. */
    const tq_status_session *const *sessions;     /**< Clients and units. */
    size_t n_sessions;                            /**< How many. */
    const tq_status_wait *const *waits;           /**< Waiting calls, at most 1000. */
    size_t n_waits;                               /**< How many are listed. */
} tq_system_status;

/** Gets the state of the system, for people and tools. */
TQ_API int tq_query_status(tq_op *op);

/** Something that happened. */
typedef struct tq_event {
    uint64_t seq; /**< Number, ascending. */
    double time;  /**< Unix time in seconds. */
    /** put, claim, clear, reserve, reset, lost, owner, join; wait (a call has waited for a long time); and how a
     * session ended: leave (the client closed it), died (its process exited without closing it), silent (not heard
     * from for the grace time). */
    const char *kind;
    const char *session;     /**< Name of the session that caused it. */
    const char *partition;   /**< "" if none; for a waiting put: the storage unit. */
    const char *task;        /**< "" if none. */
    uint32_t samples;        /**< Rows it was about. */
    uint64_t bytes;          /**< Moved by it. */
    const uint32_t *indexes; /**< Kind lost: the samples, at most 1000. */
    size_t n_indexes;        /**< How many are listed. */
} tq_event;

/** Gets events with numbers above `since`, oldest first, at most `limit` (0: as many as fit into one answer). `wait`:
 * waits until there is one or the deadline passes (then the answer has none). Result: tq_op_events.
 *
 * One answer holds about 16 MiB of events. To read everything that is kept, call again with the number that the
 * answer gives, until an answer has none.
 *
 * Each run of the controller numbers its events from 1. If `since` comes from an earlier run, from which this client
 * has received events, it stands for the start of the current run, so a follower does not miss the first events after
 * a restart. If it comes from the current run and exceeds the last event, it waits for the next one. The client takes
 * `since` to be from the run whose events it received last: if several callers follow events on one client, each
 * should start again at 0 when the numbers it gets go down. */
TQ_API int tq_query_events(tq_op *op, uint64_t since, uint32_t limit, bool wait);

/* --- checkpoints ---------------------------------------------------------- */

/** What to save. */
typedef struct tq_save_args {
    size_t size;           /**< sizeof(tq_save_args). */
    const char *path;      /**< Directory; created, or replaces an earlier checkpoint. */
    const char *partition; /**< Only this partition; NULL: all. TQ_EPARTITION. */
    /** Without the data: on loading, cells are linked to blocks that still exist. If much of a block has been cleared
     * or overwritten, storage units move the rest of it elsewhere: that data is then lost on loading, too. */
    bool state_only;
    const char *metadata; /**< A JSON object for the reader that loads it; NULL: {}. */
} tq_save_args;
/** Zero, except for `size`. */
TQ_DEFINE_INIT(tq_save_args);

/** What was saved or loaded. Result of the two calls below, by tq_op_checkpoint. */
typedef struct tq_checkpoint {
    uint64_t samples;     /**< Rows. */
    uint64_t partitions;  /**< How many. */
    uint64_t blocks;      /**< Pieces of storage. */
    uint64_t bytes;       /**< Of data, in the checkpoint. */
    uint64_t lost;        /**< Loading: cells whose data no longer exists. */
    bool storage_saved;   /**< The data is in it. */
    const char *metadata; /**< The JSON object saved with it. */
} tq_checkpoint;

/** Saves a consistent snapshot of the table, with its data, while other clients continue. The directory appears
 * complete or not at all, and an earlier checkpoint stays until then. When the op is done, the checkpoint is complete
 * and on disk. The op has no deadline unless one is set; its individual steps have the client's. TQ_EEXIST if the
 * directory exists and is not a checkpoint; TQ_EIO. Result: tq_op_checkpoint. */
TQ_API int tq_save(tq_op *op, const tq_save_args *args);
/** Replaces the table with that of a checkpoint (or only one partition, if the checkpoint is of one partition), all or
 * nothing. Data is written into the present storage, however many units it has. TQ_ECHECKPOINT says what is missing
 * or was altered, TQ_EFULL that there is no room; the table is then unchanged. Afterwards, metadata from before is
 * refused (TQ_ECLEARED), but a read with it may still get the former data until storage has freed that. Waiting claims
 * get the samples that are ready. Deadline and result as for tq_save. */
TQ_API int tq_load(tq_op *op, const char *path);

/* --- results -------------------------------------------------------------- */

/* Results belong to the op and are valid until it is used again or freed; take a reference (tq_meta_ref, tq_data_ref)
 * to keep a reference-counted one. */

TQ_API const tq_meta *tq_op_meta(const tq_op *op);         /**< Meta, or NULL. */
TQ_API const tq_data *tq_op_data(const tq_op *op);         /**< Data, or NULL. */
TQ_API uint64_t tq_op_count(const tq_op *op);              /**< Count. */
TQ_API const tq_progress *tq_op_progress(const tq_op *op); /**< Progress, or NULL. */
/** Clears to end, n of them. */
TQ_API const tq_clearing *const *tq_op_clearings(const tq_op *op, size_t *n);
/** Names, n of them: of tq_list_partitions the partitions; of tq_keys_of the keys, one per index; of tq_put with
 * other_fields the other fields that all of its samples have. */
TQ_API const char *const *tq_op_names(const tq_op *op, size_t *n);
TQ_API const tq_system_status *tq_op_status(const tq_op *op);  /**< Status, or NULL. */
TQ_API const tq_checkpoint *tq_op_checkpoint(const tq_op *op); /**< Checkpoint, or NULL. */
/** Bytes of data that a save or load has moved so far, out of *total (may be NULL). May be called at any time, from any
 * thread. */
TQ_API uint64_t tq_op_moved(const tq_op *op, uint64_t *total);
/** Events, n of them; *next is the `since` of the next call. */
TQ_API const tq_event *const *tq_op_events(const tq_op *op, size_t *n, uint64_t *next);

#ifdef __cplusplus
}
#endif
#endif
