/*
 * manager.h - the plug-in interface for storage: the storage manager.
 *
 * A storage manager moves bytes between the memory of a client and a store. It is given the columns of a batch and
 * returns blocks (write-once pieces of storage, each with a locator that only the manager understands) and extents
 * that say where each column's rows lie in them. The client publishes those at the controller, which stores them
 * without interpreting them and hands them to readers. The readers' managers fetch byte ranges of the blocks into
 * memory that the client has prepared. A manager therefore never sees a shape, a dtype or a sample.
 *
 * A client has one manager, looked up by tq_manager_find(type) and opened with the config of its type. All functions
 * of the table are called on the client's loop thread and must not block; work that blocks goes through host->work.
 * Every put, get and remove is completed exactly once by its done function, on the loop thread, possibly before the
 * call that started it returns.
 *
 * A plug-in is a shared library that exports `const tq_storage_manager *tq_storage_manager_plugin(uint32_t abi)`. It
 * is asked for the versions of this interface that the library serves, the newest first, until it returns a table;
 * NULL: not that one. Versions: a new one adds functions at the end of tq_storage_manager, all of which may be absent,
 * and members at the end of the structs that the library fills and hands over one at a time (tq_manager_host, whose
 * `abi` says how far it goes, tq_put_job, tq_get_job). Elements of arrays (tq_block, tq_extent, tq_put_column,
 * tq_get_range, tq_owner_info) are the same in all versions. A table of an older version is served, and nothing after
 * its end is read; a table of a newer version is refused with TQ_EVERSION.
 */
#ifndef TQ_MANAGER_H
#define TQ_MANAGER_H

#include <sys/uio.h>
#include <tq/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Version of this interface. 1: open, close, put, cancel, get, owner, remove, forked. */
#define TQ_MANAGER_ABI 1

/** A piece of storage, as its manager describes it. */
typedef struct tq_block {
    uint64_t id;                     /**< From host->grant. */
    uint64_t size;                   /**< Bytes. */
    const char *owner;               /**< Name of the owner it was granted under; copied by tq_put_finish. */
    uint64_t owner_incarnation;      /**< From the grant. */
    uint8_t locator[TQ_LOCATOR_MAX]; /**< Opaque: what get needs to find it. */
    uint8_t locator_size;            /**< Bytes used of it. */
} tq_block;

/** Rows [row, row + rows) of a column lie end to end in blocks[block], from byte `offset`. */
typedef struct tq_extent {
    uint32_t column; /**< Index of the column in the job. */
    uint32_t row;    /**< First row. */
    uint32_t rows;   /**< How many. */
    uint32_t block;  /**< Index of the block in the answer. */
    uint64_t offset; /**< Byte in the block. */
} tq_extent;

/** One field of a batch to store: the bytes of its rows end to end, in any number of slices. */
typedef struct tq_put_column {
    const char *name;          /**< Field name, for messages. */
    uint32_t rows;             /**< Rows, at least 1. */
    uint64_t size;             /**< Bytes of all rows together. */
    uint64_t row_size;         /**< Bytes of each row; meaningless when row_sizes is set. */
    const uint64_t *row_sizes; /**< NULL, or bytes of each row. */
    const tq_slice *slices;    /**< The bytes. */
    size_t n_slices;           /**< How many slices. */
} tq_put_column;

/** A batch to store. Valid until the job is finished. */
typedef struct tq_put_job {
    const tq_put_column *columns; /**< What to write. */
    uint32_t n_columns;           /**< At least 1. */
    /** New samples: a nearly full store may keep its last tenth for old ones. */
    bool adds_samples;
    bool wait_when_full;  /**< Wait for room until the deadline; else TQ_EFULL at once. */
    uint64_t deadline_ns; /**< CLOCK_MONOTONIC; UINT64_MAX = none. */
    void *user;           /**< For the manager. */
} tq_put_job;

/** A byte range of a block and where to put it. */
typedef struct tq_get_range {
    uint32_t block;  /**< Index in the job's blocks. */
    uint64_t offset; /**< Byte in the block. */
    uint64_t size;   /**< Bytes, at least 1. */
    void *dest;      /**< Filled by the manager. */
} tq_get_range;

/** Blocks and ranges to read. Valid until the job is finished. */
typedef struct tq_get_job {
    const tq_block *blocks;     /**< As published. */
    uint32_t n_blocks;          /**< How many. */
    const tq_get_range *ranges; /**< Ordered by block, then offset. */
    uint32_t n_ranges;          /**< How many. */
    uint64_t deadline_ns;       /**< CLOCK_MONOTONIC. */
    void *user;                 /**< For the manager. */
} tq_get_job;

/** An owner of blocks as the controller knows it. */
typedef struct tq_owner_info {
    const char *name;        /**< Name. */
    uint64_t incarnation;    /**< Random, drawn when it starts empty. */
    const void *info;        /**< What its server registered (endpoints, say). */
    size_t info_size;        /**< Bytes of it. */
    bool present;            /**< A session serves it at present. */
    uint64_t capacity_bytes; /**< As reported; 0 = unknown. */
    uint64_t used_bytes;     /**< As reported. */
} tq_owner_info;

typedef struct tq_manager_host tq_manager_host; /**< The client, as a manager sees it. */

/** What the client offers its manager. Call only on the loop thread. */
struct tq_manager_host {
    uint32_t abi; /**< TQ_MANAGER_ABI of the client. */
    /** Grants 1 to TQ_GRANT_MAX block ids [first, first + count) under an owner. The callback runs on the loop thread. */
    void (*grant)(tq_manager_host *host, const char *owner, uint32_t count, uint64_t deadline_ns,
                  void (*done)(const tq_error *err, uint64_t first, uint64_t incarnation, void *arg), void *arg);
    /** Gives up granted ids that will not be published (their write failed). `done`: nothing writes to them any more;
     * otherwise data already sent may still arrive, so they are removed now and again later. */
    void (*abandon)(tq_manager_host *host, const uint64_t *ids, size_t n, bool done);
    /** Lists the owners of this manager's type; `wait`: waits until there is at least one. The array is valid only
     * during the callback. */
    void (*owners)(tq_manager_host *host, bool wait, uint64_t deadline_ns,
                   void (*done)(const tq_error *err, const tq_owner_info *owners, size_t n, void *arg), void *arg);
    /** Completes a put. err NULL: stored; blocks and extents are copied. */
    void (*put_finish)(tq_manager_host *host, tq_put_job *job, const tq_error *err, const tq_block *blocks,
                       uint32_t n_blocks, const tq_extent *extents, uint32_t n_extents);
    /** Completes a get. err NULL: all ranges are filled, except those of the `gone` blocks (indexes into the job's
     * blocks), which are no longer in the store: the client asks the controller where that data is now. */
    void (*get_finish)(tq_manager_host *host, tq_get_job *job, const tq_error *err, const uint32_t *gone,
                       uint32_t n_gone);
    /** Runs `work` on a pool thread, then `done` on the loop thread. TQ_OK, or TQ_ENOMEM. */
    int (*work)(tq_manager_host *host, void (*work)(void *arg), void (*done)(void *arg), void *arg);
    uint64_t epoch; /**< Of the controller. */
    void *internal; /**< For managers inside libtq. */
    /** The table that the client opened: tells functions shared by several tables which one they were called for. */
    const struct tq_storage_manager *manager;
};

/** The table of one storage manager. */
typedef struct tq_storage_manager {
    uint32_t abi;      /**< TQ_MANAGER_ABI that it was built with. */
    const char *type;  /**< Name it is selected by: "SimpleStorage", "Redis", ... */
    size_t state_size; /**< Bytes of private state, allocated and zeroed by the client. */
    /** Opens with its config, a JSON object ("{}" if none). `opened` is called once, possibly before this returns;
     * after an error, close is not called. Required. */
    void (*open)(void *state, tq_manager_host *host, const char *config, void (*opened)(const tq_error *err, void *arg),
                 void *arg);
    /** Closes; all jobs have completed by then. `closed` is called once, possibly before this returns. Required. */
    void (*close)(void *state, void (*closed)(void *arg), void *arg);
    /** Stores a batch. Required. */
    void (*put)(void *state, tq_put_job *job);
    /** Asks to stop a put early. The put still completes exactly once through put_finish, possibly before this
     * returns: with TQ_ECANCELED if it was stopped, else as if cancel had not been called. May be called again. NULL:
     * puts cannot be stopped. */
    void (*cancel)(void *state, tq_put_job *job);
    /** Reads ranges. Required. */
    void (*get)(void *state, tq_get_job *job);
    /** For a store that has no server process of ours: returns the name of the shared owner that this client serves,
     * and sets *incarnation, which must be the same for all clients of the same store, not 0, and different for every
     * host->epoch, because block ids start over with the epoch. Called again whenever the client registers. NULL:
     * owners register themselves. */
    const char *(*owner)(void *state, uint64_t *incarnation);
    /** Removes dead blocks that were granted under that incarnation; must be idempotent. Required with `owner`. */
    void (*remove)(void *state, uint64_t incarnation, const uint64_t *ids, size_t n,
                   void (*done)(const tq_error *err, void *arg), void *arg);
    /** Called in the child after fork, before a new client is made: closes inherited descriptors. May be NULL. */
    void (*forked)(void *state);
} tq_storage_manager;

/** Registers a manager by its type for clients in this process; TQ_EEXIST if the type is taken. */
TQ_API int tq_manager_register(const tq_storage_manager *manager, tq_error *err);
/** Loads a plug-in library and registers what it exports. Loading the same library again is not an error. */
TQ_API int tq_manager_load(const char *path, tq_error *err);
/** Finds the manager of a type; if there is none, TQ_EMANAGER with a message that lists the known types. */
TQ_API int tq_manager_find(const char *type, const tq_storage_manager **out, tq_error *err);

#ifdef __cplusplus
}
#endif
#endif
