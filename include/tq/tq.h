/*
 * tq.h - the public C API of the transfer queue: a client of a running system.
 *
 * One growing table per partition: rows are samples, columns are fields, cells are tensors or other values.  Producers
 * put cells in any order, consumers claim samples whose fields are ready, and read them from where they lie.
 *
 * Operations.  Every call that talks to the system is an operation: allocate a tq_op, start a call on it, and either
 * wait for it (tq_op_wait) or be called back.  An op may be used again, for any call, once it is done.
 *
 * Completion contract:
 *   - A call that returns TQ_OK has started and ends exactly once; one that returns an error has not started, the op
 *     holds the error, and the callback is not called.
 *   - The callback runs on the client's own thread, or on the thread that cancels or closes; it must not block, and may
 *     start other operations, but not on the op that it ends (free it, or start it again after the callback).
 *   - tq_op_cancel may be called at any time from any thread, and repeated.  The op still ends exactly once: with
 *     TQ_ECANCELED, or with its result when that was already on its way.  A claim that was cancelled before its answer
 *     was there gives the samples back and ends with TQ_ECANCELED; one that ends with TQ_OK has its samples.
 *   - tq_op_free on an op that is not done cancels it and waits for it; in its own callback it is allowed.  In the
 *     callback of another op it does not wait: the op is freed once it has ended, and its callback is not called.
 *   - Data given to a call (tensors, slices) is not copied and must stay unchanged until the op is done; everything else
 *     (names, keys, shapes, meta) is copied before the call returns.
 *   - What an op has returned may be given to its next call: tq_get(op, tq_op_meta(op), NULL, 0), or bytes of tq_op_data(op)
 *     as slices of a tq_put.  The library keeps it as long as the call needs it; the caller must not use it after making that
 *     call, even if the call fails to start.  Only memory to read into (tq_get_field.dest) must not be a result of the op.
 *
 * NULL.  A required argument that is NULL gives TQ_EINVAL with a message that names it (no message if the op itself is NULL).
 * Functions that only read an op, a meta or data accept NULL and return 0, NULL or nothing.  `err` may be NULL.
 *
 * Threads: clients and metas are safe to use from any thread; one op is used by one thread at a time (but for cancel and
 * waiting).
 * Fork: in a child a client inherited from the parent works as a new one (a session of its own), made at the first
 * call; operations that were in flight stay the parent's: in the child they are never done and may only be freed.
 */
#ifndef TQ_TQ_H
#define TQ_TQ_H

#include <tq/errors.h>
#include <tq/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Version of the library, "major.minor.patch". */
TQ_API const char *tq_version(void);
/** Text of an error code. */
TQ_API const char *tq_strerror(int code);
/** Name of an error code, "TQ_EFULL". */
TQ_API const char *tq_error_name(int code);

/* ------------------------------------------------------------------------------------------------ client */

/** A connection to one system. */
typedef struct tq_client tq_client;

/** Where a system is. */
typedef struct tq_location {
    char address[1024];    /**< Endpoints of the controller. */
    char token_file[1024]; /**< File with the secret; "" when TQ_TOKEN_FILE is not set. */
    char name[256];        /**< Of the system; "" when it was found by TQ_ADDRESS. */
    uint64_t pid;          /**< Of its daemon; 0 when it was found by TQ_ADDRESS. */
    double created;        /**< Unix time of its start; 0 likewise. */
    char
        library[1024]; /**< That its handle names for its storage backend; "" when there is none. */
} tq_location;

/** Directory that holds the handles of this user's systems on this machine: $XDG_RUNTIME_DIR/ctq if that exists, else
 * <tmp>/ctq-UID.  It need not exist.  TQ_ENAME when it does not fit. */
TQ_API int tq_runtime_dir(char *out, size_t size, tq_error *err);

/** Opens that directory (name NULL), or the one of a system in it.  Neither is reached through a link, and both must belong to
 * this user with mode 0700, for what lies in them is trusted: else TQ_ECONFIG, whose message names the directory and the
 * remedy.  `make` makes them; without it TQ_EUNREACHABLE when one is not there.  On success *fd is the caller's. */
TQ_API int tq_runtime_open(const char *name, bool make, int *fd, tq_error *err);

/** Removes from the directory of a system what a daemon that was killed has left there: files and sockets by the names that
 * daemons give them, nothing else. */
TQ_API void tq_runtime_clear(int fd);

/** Memory that this process may use, in bytes: the machine's, or less where its control groups (version 1 or 2) say so;
 * *of_cgroup (unless NULL) is then true.  Sizes such as "25%" in the configuration are shares of this. */
TQ_API uint64_t tq_memory_limit(bool *of_cgroup);

/** Finds a system: TQ_ADDRESS (+ TQ_TOKEN_FILE), else the handle of a local one by name (NULL: TQ_SYSTEM, else
 * "default") in tq_runtime_dir.  TQ_EUNREACHABLE says where it looked. */
TQ_API int tq_discover(const char *name, tq_location *out, tq_error *err);

/** How to reach a system.  Zero-initialise, set `size`, then what differs from the default. */
typedef struct tq_client_options {
    size_t size; /**< sizeof(tq_client_options). */
    const char
        *address; /**< Controller: "unix:/path" or "tcp:host:port", alternatives joined by commas;
                                     NULL: as tq_discover finds it. */
    const char *token;      /**< The system's secret, or NULL to read token_file. */
    const char *token_file; /**< File that holds it. */
    const char *name;       /**< Session name that people see; NULL: program and pid. */
    const char *
        manager; /**< Type of storage manager; NULL: what the system says; "": none (metadata only). */
    const char *manager_config; /**< Its config, a JSON object; NULL: what the system says. */
    /** Deadline in seconds for opening, and for calls that set none of their own.  Negative: no deadline.  0: 60 for opening,
     * and for calls what the system's client.timeout says (60 if it says nothing). */
    double timeout;
    uint64_t first_request; /**< For tests: number of the first request; 0: 1. */
    const char *
        node; /**< Node that this process is on, as units name theirs (storage.node); NULL: TQ_NODE,
                                     else the machine. */
    /** After so many seconds a claim or put that still waits logs what it waits for.  0: after the time that the system's
     * client.wait_notice names (5 by default); negative: never. */
    double notice;
    /** Libraries that the system's configuration may name for its storage backend: paths joined by colons.  Their code runs in
     * this process.  NULL: the one of the handle, when the address was found by one.  TQ_LIBRARIES allows more; a library in
     * `manager_config` needs no permission. */
    const char *libraries;
} tq_client_options;

/** Connects, authenticates and opens the storage manager, within the timeout.  On success *out is the caller's. */
TQ_API int tq_client_open(const tq_client_options *options, tq_client **out, tq_error *err);
/** Ends all operations with TQ_ECLOSED, says goodbye and frees.  Calls on other threads must have returned.  Work of the
 * storage that cannot be stopped is waited for a few seconds; then closing goes on by itself, and what is freed last is
 * freed when that work ends. */
TQ_API void tq_client_close(tq_client *client);
/** Epoch of the controller: another number means that it was restarted. */
TQ_API uint64_t tq_client_epoch(const tq_client *client);
/** Whole configuration of the system, a JSON object; valid as long as the client. */
TQ_API const char *tq_client_config(const tq_client *client);

/* ------------------------------------------------------------------------------------------------ operations */

/** One operation. */
typedef struct tq_op tq_op;
/** Called once when an operation has ended. */
typedef void (*tq_done_fn)(tq_op *op, void *arg);

/** An op of the client; done may be NULL (then wait).  NULL when out of memory. */
TQ_API tq_op *tq_op_alloc(tq_client *client, tq_done_fn done, void *arg);
/** Frees; see the contract above.  NULL is allowed. */
TQ_API void tq_op_free(tq_op *op);
/** Deadline of the calls started from now on, in seconds from their start; 0: the client's; negative: none. */
TQ_API void tq_op_set_timeout(tq_op *op, double seconds);
/** Waits for the end; returns the op's code.  Not from a callback. */
TQ_API int tq_op_wait(tq_op *op);
/** Waits for the end, for `seconds` at most (negative: without limit), or until a signal handler has run (without limit: one
 *  without SA_RESTART) while it slept; whether the op has ended.  Never so for one that was in progress when the process
 *  forked.  Not from a callback. */
TQ_API bool tq_op_wait_for(tq_op *op, double seconds);
/** Asks for an early end. */
TQ_API void tq_op_cancel(tq_op *op);
/** Whether it has ended (or was never started). */
TQ_API bool tq_op_done(const tq_op *op);
/** How it ended: code TQ_OK, or the error with its message; valid until the op is used again. */
TQ_API const tq_error *tq_op_error(const tq_op *op);

/* ------------------------------------------------------------------------------------------------ metadata */

/** Which samples, and where their cells lie: what a claim returns and a read takes.  Immutable; counted. */
typedef struct tq_meta tq_meta;

/** A field of a meta. */
typedef struct tq_meta_field {
    const char *name;      /**< Name. */
    tq_kind kind;          /**< Tensor or other value. */
    tq_dtype dtype;        /**< Element type; {TQ_UINT, 8} for values. */
    bool ragged;           /**< Rows differ in shape: see dims. */
    uint32_t ndim;         /**< Dims of shape, when not ragged. */
    const uint64_t *shape; /**< Of every row, when not ragged. */
    const uint32_t *
        ndims; /**< Ragged: dims of each row (meta size of them); NULL when nothing is known yet. */
    const uint64_t *dims; /**< Ragged: dims of all rows end to end. */
    const uint8_t *ready; /**< One byte per sample: 1 produced, 0 not, 2 lost. */
    /** The dim in which rows of the field differ, as far as it was known when the meta was made: 1 is the first dim of a row;
     * 0: none; TQ_RAGGED_MANY: several. */
    uint8_t ragged_dim;
    /** Kind and dtype of each row, if rows differ in them; else NULL.  If not NULL, the field is ragged, and `kind` and
     * `dtype` are those of the first row. */
    const tq_type *types;
} tq_meta_field;

/** A tag of a meta's samples: msgpack-encoded values end to end. */
typedef struct tq_meta_tag {
    const char *name;      /**< Name. */
    const uint8_t *values; /**< Encoded values of all samples, end to end. */
    const uint32_t *sizes; /**< Bytes of each sample's value; 0 = not set. */
} tq_meta_tag;

/** Another reference. */
TQ_API tq_meta *tq_meta_hold(tq_meta *meta);
/** Gives a reference back; NULL is allowed. */
TQ_API void tq_meta_rele(tq_meta *meta);
/** Makes one by hand, without placements: a read resolves them.  incarnations NULL: any. */
TQ_API int tq_meta_make(const char *partition, const uint32_t *indexes,
                        const uint32_t *incarnations, size_t n, const char *const *fields,
                        size_t n_fields, tq_meta **out, tq_error *err);
TQ_API size_t tq_meta_size(const tq_meta *meta);           /**< Samples. */
TQ_API const char *tq_meta_partition(const tq_meta *meta); /**< Name of the partition. */
TQ_API uint64_t
tq_meta_epoch(const tq_meta *meta); /**< Of the controller that made it; 0: by hand. */
TQ_API uint64_t
tq_meta_claim(const tq_meta *meta); /**< Id of the claim it answered, 0 without one. */
TQ_API const uint32_t *tq_meta_indexes(const tq_meta *meta); /**< Global index of each sample. */
TQ_API const uint32_t *tq_meta_incarnations(const tq_meta *meta); /**< Of each sample; 0 = any. */
TQ_API const char *tq_meta_key(const tq_meta *meta, size_t i);    /**< Key of sample i, or NULL. */
TQ_API const char *tq_meta_group(const tq_meta *meta, size_t i); /**< Group of sample i, or NULL. */
TQ_API size_t tq_meta_fields(const tq_meta *meta);               /**< Number of fields. */
/** The f-th field; valid as long as the meta. */
TQ_API const tq_meta_field *tq_meta_field_at(const tq_meta *meta, size_t f);
/** Notes of the f-th field's cells, one per sample (size 0: none), if a manager of one's own keeps them and the meta knows
 * where they are; else NULL.  Valid as long as the meta. */
TQ_API const tq_slice *tq_meta_notes(const tq_meta *meta, size_t f);
TQ_API size_t tq_meta_tags(const tq_meta *meta); /**< Number of tags. */
/** The t-th tag; valid as long as the meta. */
TQ_API const tq_meta_tag *tq_meta_tag_at(const tq_meta *meta, size_t t);
/** Rows (places, in any order, repeats allowed) and fields (NULL: all) of a meta.  TQ_EFIELD for an unknown field. */
TQ_API int tq_meta_select(const tq_meta *meta, const uint32_t *rows, size_t n_rows,
                          const char *const *fields, size_t n_fields, tq_meta **out, tq_error *err);
/** One after the other; partitions and fields must agree (TQ_EINVAL, TQ_EFIELD). */
TQ_API int tq_meta_concat(tq_meta *const *metas, size_t n, tq_meta **out, tq_error *err);
/** Fields of both for the same samples; where both have a field, that of `other`. */
TQ_API int tq_meta_union(const tq_meta *meta, const tq_meta *other, tq_meta **out, tq_error *err);
/** As bytes, to send to another process; *out is malloc'ed. */
TQ_API int tq_meta_pack(const tq_meta *meta, uint8_t **out, size_t *size, tq_error *err);
/** From bytes made by tq_meta_pack; checked, so they may come from anywhere: TQ_EPROTO. */
TQ_API int tq_meta_unpack(const uint8_t *bytes, size_t size, tq_meta **out, tq_error *err);

/* ------------------------------------------------------------------------------------------------ put */

/** One field of a batch to put. The bytes of its rows lie end to end in `slices`. */
typedef struct tq_column {
    const char *name;      /**< Field. */
    tq_kind kind;          /**< Tensor or other value. */
    tq_dtype dtype;        /**< Element type; {TQ_UINT, 8} for values. */
    size_t rows;           /**< Rows. */
    uint32_t ndim;         /**< Dims of shape; 0 with dims NULL: one element per row. */
    const uint64_t *shape; /**< Shape of each row, when all agree. */
    const uint32_t *ndims; /**< Ragged: dims of each row (`rows` of them). */
    const uint64_t
        *dims; /**< Ragged (not NULL): dims of all rows end to end; ndims NULL: ndim each. */
    const tq_slice
        *slices;     /**< Their bytes; sizes must add up to what dtype and shapes say (TQ_EROWS). */
    size_t n_slices; /**< How many. */
    /** The dim that the caller declares ragged, 2 or more: rows are read as ragged in it even if they all agree.  0 or 1: the
     * library goes by where the rows differ. */
    uint8_t ragged_dim;
    /** Kind and dtype of each of the `rows` rows, if they differ; `kind` and `dtype` above are then ignored, and `dims` must give
     * the shapes: one dim for a value, its encoded size.  NULL: all rows are of `kind` and `dtype`.  Every row is stored as it
     * is given, except that a tensor without elements takes the dtype of its field. */
    const tq_type *types;
} tq_column;

/** A tag to put: as in tq_meta_tag. */
typedef struct tq_tag {
    const char *name;      /**< Name. */
    const uint8_t *values; /**< msgpack-encoded values end to end. */
    const uint32_t *sizes; /**< Bytes of each sample's; 0 = leave as it is. */
} tq_tag;

/** A put.  Samples are named by `meta`, or by `keys`, or are new. */
typedef struct tq_put_args {
    const char *partition;   /**< Partition; NULL with meta: the meta's. */
    const tq_meta *meta;     /**< Existing samples, or NULL. */
    const char *const *keys; /**< n keys, or NULL. */
    size_t n;                /**< Samples. */
    bool
        must_exist; /**< With keys: an unknown key is an error (TQ_EKEY) instead of a new sample. */
    const char *const *groups; /**< n group ids of new samples, or NULL; NULL elements: none. */
    const tq_column *columns;  /**< Fields; may be none (tags only). */
    size_t n_columns;          /**< How many. */
    const tq_tag *tags;        /**< Tags, merged by name. */
    size_t n_tags;             /**< How many. */
    bool fail_when_full; /**< TQ_EFULL at once instead of waiting for room until the deadline. */
    const char *remover; /**< tq_notify with meta: who removes what the cells were before (see
                            tq_begin_clear); NULL: data is replaced in place. */
    bool
        other_fields; /**< tq_put: tq_op_names tells the fields that all of these samples have besides the columns. */
} tq_put_args;

/** Stores the columns and publishes them, all or nothing.  Result: tq_op_meta, and tq_op_names if asked for. */
TQ_API int tq_put(tq_op *op, const tq_put_args *args);

/** Reserves samples: n new ones, or those of the keys that do not exist.  Result: tq_op_meta of all. */
TQ_API int tq_reserve(tq_op *op, const char *partition, size_t n, const char *const *keys,
                      const char *const *groups);

/** Says that cells are ready which a manager of one's own keeps by index (see StorageManager in Python): columns without
 * bytes (slices ignored), and per column and sample a small opaque note that readers get back.  Result: tq_op_meta, and with
 * a remover tq_op_clearings: what was replaced. */
TQ_API int tq_notify(tq_op *op, const tq_put_args *args, const tq_slice *const *opaque);

/* ------------------------------------------------------------------------------------------------ claim */

/** How a claim picks. */
typedef enum tq_claim_mode {
    TQ_FETCH =
        0, /**< Ready samples the task has not had, as its sampler picks; they count as consumed. */
    TQ_FORCE_FETCH = 1 /**< All samples of the partition with what they have; nothing is marked. */
} tq_claim_mode;

/** A claim. */
typedef struct tq_claim_args {
    const char *partition;      /**< Partition; it need not exist yet. */
    const char *const *fields;  /**< Fields that must be ready. */
    size_t n_fields;            /**< How many; at least 1 for TQ_FETCH. */
    int64_t batch_size;         /**< Samples; TQ_ESIZE below 1. */
    const char *task;           /**< Who consumes. */
    tq_claim_mode mode;         /**< How. */
    const char *sampler;        /**< NULL: the controller's. */
    const char *sampler_config; /**< A JSON object; NULL: {}. */
    bool poll;                  /**< TQ_EAGAIN at once when too few are ready. */
    bool tags;                  /**< With keys, groups and tags in the result. */
} tq_claim_args;

/** Claims; waits at the controller until the op's deadline (TQ_ETIMEDOUT).  Result: tq_op_meta. */
TQ_API int tq_claim(tq_op *op, const tq_claim_args *args);

/** Looks samples up by keys, by indexes, or all of the partition. */
typedef struct tq_resolve_args {
    const char *partition;     /**< Partition; TQ_EPARTITION. */
    const char *const *keys;   /**< n keys, or NULL. */
    const uint32_t *indexes;   /**< n indexes, or NULL. */
    size_t n;                  /**< How many; 0 with both NULL: all samples. */
    const char *const *fields; /**< Fields, or NULL: all. */
    size_t n_fields;           /**< How many. */
    bool lenient; /**< Leave out unknown keys and fields instead of TQ_EKEY, TQ_EFIELD. */
    bool tags;    /**< With keys, groups and tags. */
} tq_resolve_args;

/** Where samples lie now.  Result: tq_op_meta. */
TQ_API int tq_resolve(tq_op *op, const tq_resolve_args *args);

/* ------------------------------------------------------------------------------------------------ get */

/** What a read returns: columns in memory of the library.  Counted. */
typedef struct tq_data tq_data;

/** One field that was read: rows end to end in one buffer. */
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
    bool padded;     /**< Rows lie at equal distances, with gaps behind the shorter ones; their dims
                        say what is theirs. */
    uint64_t length; /**< Padded: the first dim that every row has room for. */
    void *data; /**< The bytes, writable; 64-byte aligned, and they live as long as the tq_data,
                        but for memory of the caller's own (tq_get_field). */
    const tq_slice *
        opaque; /**< Notes of a manager that keys by index, one per row; else NULL (and data is set). */
    uint8_t ragged_dim; /**< As in tq_meta_field: the same whichever rows of the field are read. */
    /** Kind and dtype of each row, if the rows that were read differ in them; else NULL.  If not NULL, `kind` and `dtype` are
     * those of the first row, the column is neither padded nor read in place, whatever was asked for, and each row begins at a
     * multiple of 16 bytes: its dims and its type say how many bytes belong to it. */
    const tq_type *types;
    /** The rows were left in the store, as tq_get_options.leave_values asked for: data is NULL, and tq_data_look shows them. */
    bool left;
} tq_data_column;

/** Reads the given fields of a meta's samples (NULL: all of it).  TQ_ENOTREADY names samples and fields that are not
 * produced, TQ_ECLEARED those that were cleared, TQ_ELOST those that were lost.  Result: tq_op_data. */
TQ_API int tq_get(tq_op *op, const tq_meta *meta, const char *const *fields, size_t n_fields);

/** How one field of a read is to lie in memory, and where.  Zero-initialise. */
typedef struct tq_get_field {
    const char *name; /**< One of the fields that are read, or TQ_EFIELD. */
    /** Place rows at equal distances, as a dense tensor with room for the longest row has them.  For tensors whose rows
     * have a first dim and agree in all others; else this is not done, and the column says so (tq_data_column.padded). */
    bool padded;
    uint64_t length;   /**< Room for at least this first dim. */
    uint64_t multiple; /**< Room for a multiple of this; 0: 1. */
    tq_dtype
        pad_dtype;    /**< Type of pad: that of the field, or TQ_EDTYPE; {0, 0}: fill with zeros. */
    uint8_t pad[16];  /**< One element, to fill the gaps with. */
    void *dest;       /**< Memory of the caller's to read into, or NULL: the library's. */
    size_t dest_size; /**< Its bytes; TQ_EROWS when the rows need more. */
} tq_get_field;

/** Options of tq_get_as.  Zero-initialise, set `size`. */
typedef struct tq_get_options {
    size_t size;                /**< sizeof(tq_get_options). */
    const tq_get_field *fields; /**< Fields that differ from the default; copied. */
    size_t n_fields;            /**< How many. */
    /** Called exactly once, on any thread, also when the call fails: the library has done with `dest` memory.  A read
     * that was cancelled may write to it until then. May be NULL. */
    void (*release)(void *arg);
    void *release_arg; /**< Its argument. */
    /** Do not copy what can be seen where it lies, in memory that a storage unit of this machine shares: tensors of 64 KiB
     * or more whose rows lie end to end in one block, in order, and that are neither padded nor read into `dest`.  The
     * rest is copied as always.  What is shown is a private view: it keeps its bytes whatever becomes of the samples, and
     * what is written to it stays in it.  The unit cannot use that memory anew before the data is released, so it is not
     * to be kept for long.  A fork, and closing the client, turn views that are in use into copies. */
    bool zero_copy;
    /** Leave columns of values in the store that are large, whose rows are long texts, bytes, or lists and maps of
     * such, and that lie in memory which a storage unit of this machine shares: for readers that copy them anyway, into
     * what they make of them.  Nothing keeps them there: see tq_data_look. */
    bool leave_values;
} tq_get_options;

/** As tq_get, with columns laid out and placed as asked: rows are read straight into their places. */
TQ_API int tq_get_as(tq_op *op, const tq_meta *meta, const char *const *fields, size_t n_fields,
                     const tq_get_options *options);

/** Which samples and fields tq_get_keys reads. */
typedef struct tq_get_keys_args {
    const char *partition;   /**< Partition; an unknown one has no samples. */
    const char *const *keys; /**< n keys; unknown ones are left out. */
    size_t n;                /**< How many. */
    const char *const *
        fields; /**< Fields, in this order; those that not all of the samples have are left out.  NULL: all. */
    size_t n_fields;   /**< How many. */
    bool zero_copy;    /**< As in tq_get_options. */
    bool leave_values; /**< As in tq_get_options. */
} tq_get_keys_args;

/** Looks samples up by key and reads them, in one call.  Result: tq_op_meta of the samples that were found, with all fields
 * that some of them have, and tq_op_data: NULL when no field is left to read. */
TQ_API int tq_get_keys(tq_op *op, const tq_get_keys_args *args);

TQ_API tq_data *tq_data_hold(tq_data *data);        /**< Another reference. */
TQ_API void tq_data_rele(tq_data *data);            /**< Gives one back; NULL is allowed. */
TQ_API size_t tq_data_rows(const tq_data *data);    /**< Rows. */
TQ_API size_t tq_data_columns(const tq_data *data); /**< Columns. */
/** The c-th column; valid as long as the data. */
TQ_API const tq_data_column *tq_data_column_at(const tq_data *data, size_t c);

/** Shows rows [row, row + n) of a column that was left in the store to `look`, one after the other.  TQ_OK: what it has seen was
 * what was put.  TQ_ELOST: it was not, for the rows were cleared, overwritten or moved meanwhile; read them again, without
 * leaving them.  So `look` must take any bytes, which may even change while it reads them, and what it has made of them is
 * to be thrown away.  It must not call the library, nor wait for another thread.  Thread-safe.  Closing the client
 * and forking turn what is there into copies first, so looking goes on. */
TQ_API int tq_data_look(tq_data *data, size_t c, size_t row, size_t n,
                        void (*look)(void *arg, size_t row, const void *bytes, size_t size),
                        void *arg);

/** Memory from the pool behind tq_data, for who prepares bytes to put: 64-byte aligned, contents undefined.  Its pages are
 * mostly there already; a copy into memory that was never touched is several times slower.  Thread-safe.  NULL: no memory. */
TQ_API void *tq_buffer_take(size_t size);
/** Gives it back, with the size it was taken with; NULL is allowed. */
TQ_API void tq_buffer_give(void *buffer, size_t size);

/* ------------------------------------------------------------------------------------------------ clear, reset */

/** Clears the meta's samples (those cleared meanwhile are skipped).  Result: tq_op_count. */
TQ_API int tq_clear_meta(tq_op *op, const tq_meta *meta);
/** Clears samples by index, whatever their incarnation.  Result: tq_op_count. */
TQ_API int tq_clear_indexes(tq_op *op, const char *partition, const uint32_t *indexes, size_t n);
/** Clears samples by key; unknown ones are skipped.  Result: tq_op_count. */
TQ_API int tq_clear_keys(tq_op *op, const char *partition, const char *const *keys, size_t n);
/** Clears a partition with everything in it; an unknown one is no error.  Result: tq_op_count. */
TQ_API int tq_clear_partition(tq_op *op, const char *partition);
/** What to clear in two halves: one of meta, keys and a whole partition, or nothing. */
typedef struct tq_begin_clear_args {
    const char *remover;   /**< Who removes the data: the type of a storage manager of one's own. */
    const char *partition; /**< Partition; NULL with meta: the meta's; NULL alone: nothing. */
    const tq_meta *meta;   /**< Samples, or NULL. */
    const char *const *keys; /**< n keys, or NULL; with neither the whole partition is cleared. */
    size_t n;                /**< Keys. */
} tq_begin_clear_args;

/** A clear that has begun: data to be removed. */
typedef struct tq_clearing {
    uint64_t id; /**< For tq_end_clear. */
    bool begun;  /**< By this call; else another one left it behind. */
    const tq_meta
        *meta; /**< The samples as they were, with all fields and notes; belongs to the op. */
} tq_clearing;

/** Clears samples whose data a manager of one's own keeps (see StorageManager in Python), in two halves.  It begins: they are
 * gone, but nobody gets their indexes.  Then the caller removes the data of all clears that the call returns, those that it
 * takes over from others included, which may be removed in part already, and ends each with tq_end_clear.  One that is not
 * ended when the session ends is handed to the next caller with the same remover.  Result: tq_op_clearings, and tq_op_count
 * (samples cleared by this call). */
TQ_API int tq_begin_clear(tq_op *op, const tq_begin_clear_args *args);
/** Ends a clear that this client has begun or taken over; not `removed`: it is left for the next caller. */
TQ_API int tq_end_clear(tq_op *op, uint64_t id, bool removed);

/** Makes consumed samples claimable again for a task (NULL: all tasks). */
TQ_API int tq_reset_consumption(tq_op *op, const char *partition, const char *task);

/* ------------------------------------------------------------------------------------------------ status */

/** Consumption or production of a partition's samples.  Result of the two calls below, by tq_op_progress. */
typedef struct tq_progress {
    bool known;              /**< The partition exists. */
    size_t n;                /**< Samples. */
    const uint32_t *indexes; /**< Ascending. */
    size_t columns;          /**< 1 for consumption, number of fields for production. */
    const uint8_t *flags;    /**< n x columns, row-major: 1 consumed / produced. */
} tq_progress;

/** Which samples a task has consumed. */
TQ_API int tq_consumption(tq_op *op, const char *partition, const char *task);
/** Which samples have which fields. */
TQ_API int tq_production(tq_op *op, const char *partition, const char *const *fields,
                         size_t n_fields);
/** Names of the partitions, in order of creation.  Result: tq_op_names. */
TQ_API int tq_list_partitions(tq_op *op);
/** Keys with tags of a partition, in order of joining.  Result: tq_op_meta (empty for an unknown partition). */
TQ_API int tq_list_keys(tq_op *op, const char *partition);

/** A page of a list of keys.  Zero-initialise for the first one. */
typedef struct tq_keys_page {
    uint32_t limit;    /**< Most keys of the page; 0: all. */
    const char *after; /**< Last key of the page before. */
    uint64_t mark;     /**< tq_op_count of the page before; 0: the first page. */
} tq_keys_page;

/** As tq_list_keys, a page at a time, between which the controller serves others: what changes meanwhile may be in it or
 * not (a key that is cleared and put again may come twice), but none that is there all the time is left out.  tq_op_count: not 0 when there is another page. */
TQ_API int tq_list_keys_page(tq_op *op, const char *partition, const tq_keys_page *page);
/** Keys of samples given by index.  Result: tq_op_names ("" = none). */
TQ_API int tq_retrieve_keys(tq_op *op, const char *partition, const uint32_t *indexes, size_t n);

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
    bool mixed; /**< Rows differ in kind or dtype; `kind` and `dtype` are the field's own. */
} tq_status_field;

/** A task as the status shows it. */
typedef struct tq_status_task {
    const char *name;  /**< Name. */
    uint32_t consumed; /**< Samples it has had. */
} tq_status_task;

/** A partition as the status shows it. */
typedef struct tq_status_partition {
    const char *name;              /**< Name. */
    uint32_t samples;              /**< Rows. */
    uint64_t bytes;                /**< Of its cells. */
    const tq_status_field *fields; /**< Columns. */
    size_t n_fields;               /**< How many. */
    const tq_status_task *tasks;   /**< Consumers. */
    size_t n_tasks;                /**< How many. */
    const uint32_t *lost;          /**< Samples with lost cells, at most 1000. */
    size_t n_lost;                 /**< How many are listed. */
} tq_status_partition;

/** A client that reads blocks in place (tq_get_options.zero_copy), as the status shows it.  Until it lets go of them their
 * memory cannot be reused, even if they were cleared. */
typedef struct tq_status_pin {
    const char *client; /**< Name of the session; "" if it has ended but its process still runs. */
    const char *host;   /**< Its host. */
    uint64_t pid;       /**< Its process. */
    uint64_t pins;      /**< Reads that it holds. */
    uint64_t bytes;     /**< Of the blocks. */
} tq_status_pin;

/** A storage owner (unit or store) as the status shows it. */
typedef struct tq_status_owner {
    const char *name;        /**< Name. */
    const char *manager;     /**< Type of storage manager. */
    bool present;            /**< Served by a session now. */
    uint64_t blocks;         /**< Live blocks. */
    uint64_t bytes;          /**< In them. */
    uint64_t used_bytes;     /**< As it reports. */
    uint64_t capacity_bytes; /**< As it reports. */
    uint64_t pins;           /**< Reads that show its memory (tq_get_options.zero_copy). */
    uint64_t pinned_bytes;   /**< Of the blocks that they pin, each counted as often as it is. */
    uint64_t waiting_puts;   /**< Puts that wait for room in it. */
    const tq_status_pin
        *holders;     /**< The clients with those reads; the largest, if there are many. */
    size_t n_holders; /**< How many are listed. */
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

/** A call that waits: a claim for samples, or a put for room. */
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
    uint64_t wanted;           /**< Samples that a claim, or bytes that a put asks for. */
    uint64_t ready;            /**< Samples that are ready for it, or bytes that are free for it. */
    double age;                /**< Seconds that it has waited. */
    const char *missing;       /**< What it waits for, in words. */
    bool suspect;              /**< It will probably wait in vain; `missing` says why. */
} tq_status_wait;

/** The state of a system.  Result of tq_status, by tq_op_status. */
typedef struct tq_system_status {
    uint64_t epoch;                        /**< Of the controller. */
    double uptime;                         /**< Seconds. */
    const char *version;                   /**< Of the controller. */
    uint32_t waiting;                      /**< Claims that wait. */
    uint64_t requests;                     /**< Handled since the start. */
    const tq_status_partition *partitions; /**< In order of creation. */
    size_t n_partitions;                   /**< How many. */
    const tq_status_owner *owners;         /**< Storage. */
    size_t n_owners;                       /**< How many. */
    const tq_status_session *sessions;     /**< Clients and units. */
    size_t n_sessions;                     /**< How many. */
    const tq_status_wait *waits;           /**< What waits, at most 1000 calls. */
    size_t n_waits;                        /**< How many are listed. */
} tq_system_status;

/** State of the system, for people and tools. */
TQ_API int tq_status(tq_op *op);

/** Something that happened. */
typedef struct tq_event {
    uint64_t seq;            /**< Number, ascending. */
    double time;             /**< Unix time in seconds. */
    const char *kind;        /**< put, claim, clear, reserve, reset, lost, owner, join; wait (a
                                  call waits for long); and how a session ended: leave (the client said goodbye), died (its process
                                  ended without one), silent (not heard of for the grace time). */
    const char *session;     /**< Name of the session that caused it. */
    const char *partition;   /**< "" without one; of a put that waits: the storage unit. */
    const char *task;        /**< "" without one. */
    uint32_t samples;        /**< Rows it was about. */
    uint64_t bytes;          /**< Moved by it. */
    const uint32_t *indexes; /**< Kind lost: the samples, at most 1000. */
    size_t n_indexes;        /**< How many are listed. */
} tq_event;

/** Events with numbers above `since`, the oldest first, at most `limit` (0: as many as one answer holds); wait: until
 * there is one or the deadline passes (then none).  Result: tq_op_events.
 *
 * One answer holds some 16 MiB of them.  All that are kept are read by asking again from the number that it gives, until
 * it has none.
 *
 * Each run of the controller numbers its events from 1.  A `since` from before a restart, of which this client has had
 * events, stands for the start of the run that answers, so nobody who follows misses the first ones; of the run that
 * answers a number beyond its last event waits for the next one.  The run is that of the events that the client had last:
 * where several follow on one client, each is to begin at 0 when the numbers that it gets go down. */
TQ_API int tq_events(tq_op *op, uint64_t since, uint32_t limit, bool wait);

/* ------------------------------------------------------------------------------------------------ checkpoints */

/** What to save. */
typedef struct tq_save_args {
    const char *path;      /**< Directory; it is made, or replaces a former checkpoint. */
    const char *partition; /**< Only this partition; NULL: all. TQ_EPARTITION. */
    bool
        state_only; /**< Without the data: loaded cells are linked to blocks that still live.  Storage units move
                      * what is left of blocks of which much was cleared, or overwritten: the rest of such a block is
                      * lost on loading, too. */
    const char *metadata; /**< A JSON object for whoever loads it; NULL: {}. */
} tq_save_args;

/** What was saved or loaded.  Result of the two calls below, by tq_op_checkpoint. */
typedef struct tq_checkpoint {
    uint64_t samples;     /**< Rows. */
    uint64_t partitions;  /**< How many. */
    uint64_t blocks;      /**< Pieces of storage. */
    uint64_t bytes;       /**< Of data, in the checkpoint. */
    uint64_t lost;        /**< Loading: cells whose data is not there any more. */
    bool storage_saved;   /**< The data is in it. */
    const char *metadata; /**< The JSON object that was saved with it. */
} tq_checkpoint;

/** Saves the table as it is at one instant, with its data, while others go on.  The directory appears whole, or not at
 * all: a former checkpoint stays until then.  It is complete and on disk when the op is done.  The op has no deadline
 * unless one is set; its steps have the client's.  TQ_EEXIST for a directory that is no checkpoint, TQ_EIO.  Result:
 * tq_op_checkpoint. */
TQ_API int tq_save(tq_op *op, const tq_save_args *args);
/** Replaces the table by that of a checkpoint (or, when it has one partition only, that partition), all or nothing; data
 * is written into the storage there is now, however many units it has.  TQ_ECHECKPOINT tells what is missing or was
 * altered, TQ_EFULL that there is no room; the table is as it was then.  Metadata from before is refused from then on
 * (TQ_ECLEARED); claims that wait get the samples that are ready.  Deadline and result as of tq_save. */
TQ_API int tq_load(tq_op *op, const char *path);

/* ------------------------------------------------------------------------------------------------ results */

/* Results belong to the op and are valid until it is used again or freed; those that are counted may be held. */

TQ_API tq_meta *tq_op_meta(const tq_op *op);               /**< Meta, or NULL. */
TQ_API tq_data *tq_op_data(const tq_op *op);               /**< Data, or NULL. */
TQ_API uint64_t tq_op_count(const tq_op *op);              /**< Count. */
TQ_API const tq_progress *tq_op_progress(const tq_op *op); /**< Progress, or NULL. */
/** Clears to be ended, n of them. */
TQ_API const tq_clearing *tq_op_clearings(const tq_op *op, size_t *n);
/** Names, n of them. */
TQ_API const char *const *tq_op_names(const tq_op *op, size_t *n);
TQ_API const tq_system_status *tq_op_status(const tq_op *op);  /**< Status, or NULL. */
TQ_API const tq_checkpoint *tq_op_checkpoint(const tq_op *op); /**< Checkpoint, or NULL. */
/** Bytes of data that a save or load has moved so far, of *total (may be NULL); at any time, from any thread. */
TQ_API uint64_t tq_op_moved(const tq_op *op, uint64_t *total);
/** Events, n of them; *next is the `since` of the next call. */
TQ_API const tq_event *tq_op_events(const tq_op *op, size_t *n, uint64_t *next);

#ifdef __cplusplus
}
#endif
#endif
