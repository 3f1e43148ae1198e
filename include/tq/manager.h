/*
 * manager.h - the seam where storage plugs in: the storage-manager interface.
 *
 * A storage manager moves bytes between the memory of a client and a store.  It is given the columns of a batch and
 * answers with blocks (write-once pieces of storage, each with a locator that only the manager understands) and
 * with extents that say where each column's rows lie in them.  The client publishes those at the controller, which
 * keeps them without looking inside, and hands them to readers, whose managers fetch byte ranges of blocks into
 * places the client has prepared.  A manager therefore never sees a shape, a dtype or a sample.
 *
 * One client has one manager, made by tq_manager_find(type) and opened with the config of its type.  All functions of
 * the table are called on the client's loop thread and must not block; work that blocks goes through host->work.
 * Every put, get and remove is ended exactly once by its done function, from the loop thread, possibly before the
 * starting call returns.
 *
 * A plug-in is a shared library that exports `const tq_storage_manager *tq_storage_manager_plugin(uint32_t abi)`; it
 * returns NULL when it cannot serve that ABI.
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
/** Most block ids of one lease. */
#define TQ_LEASE_MAX 256

/** A piece of storage, as its manager describes it. */
typedef struct tq_block {
    uint64_t id;       /**< From host->lease. */
    uint64_t size;     /**< Bytes. */
    const char *owner; /**< Name of the owner it was leased under; copied by tq_put_finish. */
    uint64_t owner_incarnation;      /**< From the lease. */
    uint8_t locator[TQ_LOCATOR_MAX]; /**< Opaque: whatever get needs to find it. */
    uint8_t locator_size;            /**< Bytes used of it. */
} tq_block;

/** Rows [row, row + rows) of a column lie end to end in blocks[block], from byte `offset`. */
typedef struct tq_extent {
    uint32_t column; /**< Place of the column in the job. */
    uint32_t row;    /**< First row. */
    uint32_t rows;   /**< How many. */
    uint32_t block;  /**< Place of the block in the answer. */
    uint64_t offset; /**< Byte in the block. */
} tq_extent;

/** One field of a batch on its way into storage: the bytes of its rows end to end, in any number of slices. */
typedef struct tq_put_column {
    const char *name;          /**< Field name, for messages. */
    uint32_t rows;             /**< Rows, at least 1. */
    uint64_t size;             /**< Bytes of all rows together. */
    uint64_t row_size;         /**< Bytes of each row; meaningless when row_sizes is set. */
    const uint64_t *row_sizes; /**< NULL, or bytes of each row. */
    const tq_slice *slices;    /**< The bytes. */
    size_t n_slices;           /**< How many slices. */
} tq_put_column;

/** A batch to store.  Valid until the job is finished. */
typedef struct tq_put_job {
    const tq_put_column *columns; /**< What to write. */
    uint32_t n_columns;           /**< At least 1. */
    bool
        adds_samples; /**< New samples: a full store may keep its last tenth for columns of old ones. */
    bool wait_when_full;  /**< Wait for room until the deadline; else TQ_EFULL at once. */
    uint64_t deadline_ns; /**< CLOCK_MONOTONIC; UINT64_MAX = none. */
    void *user;           /**< For the manager. */
} tq_put_job;

/** A byte range of a block and where it is to go. */
typedef struct tq_get_range {
    uint32_t block;  /**< Place in the job's blocks. */
    uint64_t offset; /**< Byte in the block. */
    uint64_t size;   /**< Bytes, at least 1. */
    void *dest;      /**< Filled by the manager. */
} tq_get_range;

/** Blocks and ranges to read.  Valid until the job is finished. */
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
    uint64_t incarnation;    /**< Drawn when it started empty. */
    const void *info;        /**< What its server registered (endpoints, say). */
    size_t info_size;        /**< Bytes of it. */
    bool present;            /**< A session serves it now. */
    uint64_t capacity_bytes; /**< As reported; 0 = unknown. */
    uint64_t used_bytes;     /**< As reported. */
} tq_owner_info;

typedef struct tq_manager_host tq_manager_host; /**< The client, as a manager sees it. */

/** What the client offers its manager.  Call only on the loop thread. */
struct tq_manager_host {
    uint32_t abi; /**< TQ_MANAGER_ABI of the client. */
    /** Leases 1 to TQ_LEASE_MAX block ids [first, first + count) under an owner. The callback comes from the loop. */
    void (*lease)(tq_manager_host *host, const char *owner, uint32_t count, uint64_t deadline_ns,
                  void (*done)(const tq_error *err, uint64_t first, uint64_t incarnation,
                               void *arg),
                  void *arg);
    /** Leased ids that will not be published (their write failed).  `done`: nothing is written to them any more; else what
     * was sent may still arrive, and they are removed now and again later. */
    void (*abandon)(tq_manager_host *host, const uint64_t *ids, size_t n, bool done);
    /** Owners of this manager's type; `wait`: until there is at least one.  The array is valid in the callback only. */
    void (*owners)(tq_manager_host *host, bool wait, uint64_t deadline_ns,
                   void (*done)(const tq_error *err, const tq_owner_info *owners, size_t n,
                                void *arg),
                   void *arg);
    /** Ends a put.  err NULL: stored; blocks and extents are copied. */
    void (*put_finish)(tq_manager_host *host, tq_put_job *job, const tq_error *err,
                       const tq_block *blocks, uint32_t n_blocks, const tq_extent *extents,
                       uint32_t n_extents);
    /** Ends a get.  err NULL: all ranges are filled, but those of the `gone` blocks (places), which are not in the store
     * any more: the client asks the controller where they are now. */
    void (*get_finish)(tq_manager_host *host, tq_get_job *job, const tq_error *err,
                       const uint32_t *gone, uint32_t n_gone);
    /** Runs `work` on a thread of a pool, then `done` on the loop thread.  TQ_OK, or TQ_ENOMEM. */
    int (*work)(tq_manager_host *host, void (*work)(void *arg), void (*done)(void *arg), void *arg);
    uint64_t epoch; /**< Of the controller. */
    void *internal; /**< For managers inside libtq. */
    /** The table that the client opened: how functions shared by several tables know for which they are called. */
    const struct tq_storage_manager *manager;
};

/** The table of one storage manager. */
typedef struct tq_storage_manager {
    uint32_t abi;      /**< TQ_MANAGER_ABI it was made for; another one is refused. */
    const char *type;  /**< Name it is chosen by: "SimpleStorage", "Redis", ... */
    size_t state_size; /**< Bytes of private state, allocated and zeroed by the client. */
    /** Opens with the JSON object of its config ("{}" when none).  `opened` is called once, possibly at once; on error
     * close is not called.  Required. */
    void (*open)(void *state, tq_manager_host *host, const char *config,
                 void (*opened)(const tq_error *err, void *arg), void *arg);
    /** Closes; all jobs were finished before.  `closed` is called once, possibly at once.  Required. */
    void (*close)(void *state, void (*closed)(void *arg), void *arg);
    /** Stores a batch.  Required. */
    void (*put)(void *state, tq_put_job *job);
    /** Asks to end a put early.  It still ends exactly once by put_finish, possibly before this returns: with
     * TQ_ECANCELED when it stopped, else as if nobody had asked.  May be called again.  NULL: puts run to their end. */
    void (*cancel)(void *state, tq_put_job *job);
    /** Reads ranges.  Required. */
    void (*get)(void *state, tq_get_job *job);
    /** For a store without a process of its own: name of the shared owner that this client serves, with its incarnation
     * in *incarnation: the same for all clients of the same store, not 0, and another one for every host->epoch, for
     * block ids begin again with it.  Asked again whenever the client registers.  NULL slot: owners register
     * themselves. */
    const char *(*owner)(void *state, uint64_t *incarnation);
    /** Removes dead blocks that were leased under that incarnation, idempotently; required with `owner`. */
    void (*remove)(void *state, uint64_t incarnation, const uint64_t *ids, size_t n,
                   void (*done)(const tq_error *err, void *arg), void *arg);
    /** Called in the child after fork, before a new client is made: closes inherited descriptors.  May be NULL. */
    void (*forked)(void *state);
} tq_storage_manager;

/** Registers a manager by its type for clients of this process; TQ_EEXIST for a type that is taken. */
TQ_API int tq_manager_register(const tq_storage_manager *manager, tq_error *err);
/** Loads a plug-in library and registers what it exports.  Loading the same one again is no error. */
TQ_API int tq_manager_load(const char *path, tq_error *err);
/** The manager of a type; TQ_EMANAGER lists the known ones. */
TQ_API int tq_manager_find(const char *type, const tq_storage_manager **out, tq_error *err);

#ifdef __cplusplus
}
#endif
#endif
