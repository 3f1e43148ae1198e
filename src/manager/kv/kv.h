/*
 * kv.h - the parts of the generic KV storage manager: batches in any store that keeps values by key.
 *
 *   kv.c      the table: open, close, fork; one per registered KV client
 *   cut.c     how a batch becomes values
 *   put.c     values on their way into the store, and waiting for room
 *   get.c     ranges of rows out of values
 *   remove.c  dead blocks
 *   end.c     the clean end of a system: all of its values
 *   sweep.c   values of systems that have ended in another way
 *
 * A block is one value, under the key tq/EPOCH/ID. If it exceeds the store's largest value, it is several, ID.0, ID.1,
 * ..., with a head ID.n that holds their number (8 bytes, little-endian): the head is written first and removed last,
 * so that a block with any part left can be found by its id alone. The locator is the size of the parts (8 bytes,
 * little-endian), 0 for one value.
 *
 * Jobs begin and end on the client's loop; blocking work runs on its pool.
 */
#ifndef TQI_MANAGER_KV_KV_H
#define TQI_MANAGER_KV_KV_H

#include <pthread.h>
#include <stddef.h>

#include "base/error.h"
#include "manager/manager.h"

#include <tq/kv.h>

/* Consecutive columns share a value up to this size; a larger column is cut into values of about TQI_KV_VALUE, or
 * larger ones if there would otherwise be more than one keepalive allows. */
#define TQI_KV_ONE_VALUE (64u << 10)
#define TQI_KV_VALUE     (256u << 10)
/* Most tasks of one job on the pool, and the fewest bytes worth a task. */
#define TQI_KV_TASKS      4u
#define TQI_KV_TASK_BYTES (1u << 20)
#define TQI_KV_LOCATOR    8u

typedef struct tqi_kv_put tqi_kv_put;

/* The epoch's keepalive, and the search for epochs without one; see sweep.c. */
typedef struct tqi_kv_sweep {
    bool runs; /* the store has keepalives and lists its keys */
    double after;
    double renewal;
    pthread_t thread;
    /* of the thread */
    bool looks;          /* for ended epochs: this client holds the keepalive for searching */
    unsigned next;       /* renewals until the next search */
    unsigned second;     /* renewals until the second check of what was found; 0: nothing was */
    uint64_t first;      /* epoch when it was opened */
    uint64_t keepalived; /* epoch of the keepalive; 0: none yet */
    uint64_t due;        /* when the keepalive must be renewed, even in the middle of long work */
    uint64_t *suspects;
    size_t n_suspects;
    /* under the lock */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool closing;
    uint64_t epoch; /* of the controller */
} tqi_kv_sweep;

typedef struct tqi_kv {
    tq_manager_host *host;
    const tq_kv_client *client;
    void *store; /* the client's state */
    char owner[TQ_NAME_MAX + 1];
    uv_timer_t retry;
    tqi_kv_put *full; /* puts that wait for room */
    tqi_kv_sweep sweep;
    void (*closed)(void *arg);
    void *closed_arg;
} tqi_kv;

/* --- types ---------------------------------------------------------------- */

/* The table of a type of store, and the client that it is for. */
typedef struct tqi_kv_type {
    tq_storage_manager manager;
    const tq_kv_client *client; /* as the plug-in gave it, or `table` */
    const tq_kv_client *given;  /* what its `open` gets: the plug-in's own */
    tq_kv_client table;         /* of an older version of the interface: filled up with NULL */
} tqi_kv_type;

/* Where the client's state begins, after the manager's. */
#define TQI_KV_STATE_AT ((sizeof(tqi_kv) + _Alignof(max_align_t) - 1) / _Alignof(max_align_t) * _Alignof(max_align_t))

void tqi_kv_open(void *state, tq_manager_host *host, const char *config, void (*opened)(const tq_error *err, void *arg),
                 void *arg);
void tqi_kv_close(void *state, void (*closed)(void *arg), void *arg);
const char *tqi_kv_owner(void *state, uint64_t *incarnation);
void tqi_kv_forked(void *state);
/* Opens the store of a KV manager, without a system, and closes it; TQ_OK for other managers. */
int tqi_kv_try(const tq_storage_manager *manager, const char *config, tq_error *err);

/* Removes what the system of an epoch has stored, in the store that the config names; values in *removed, also when it
 * fails. The client lists its keys. Blocks for `seconds`, and as long as opening takes. */
int tqi_kv_end(const tq_kv_client *client, const char *config, uint64_t epoch, double seconds, uint64_t *removed,
               tq_error *err);
/* The client of a KV manager; NULL for other managers. */
const tq_kv_client *tqi_kv_client_of(const tq_storage_manager *manager);

/* Initialises a tqi_kv_type. */
#define TQI_KV_TYPE(client_, type_, state_size_)                   \
    {                                                              \
        .manager = {.abi = TQ_MANAGER_ABI,                         \
                    .type = (type_),                               \
                    .state_size = TQI_KV_STATE_AT + (state_size_), \
                    .open = tqi_kv_open,                           \
                    .close = tqi_kv_close,                         \
                    .put = tqi_kv_put_start,                       \
                    .cancel = tqi_kv_put_cancel,                   \
                    .get = tqi_kv_get_start,                       \
                    .owner = tqi_kv_owner,                         \
                    .remove = tqi_kv_remove_start,                 \
                    .forked = tqi_kv_forked},                      \
        .client = (client_), .given = (client_),                   \
    }

#ifdef TQI_WITH_REDIS
extern const tqi_kv_type tqi_redis_type; /* "Redis" */
#endif

/* --- keys ----------------------------------------------------------------- */

typedef struct tqi_kv_key_text {
    char text[TQ_KV_KEY_MAX + 1];
} tqi_kv_key_text;

/* Keys of an epoch that are not blocks: its keepalive and that of the client that searches for ended epochs, both of
 * which the store drops by itself, and the mark, which says that there may be values of the epoch. The keys of stores
 * that are in use stay as they are. */
#define TQI_KV_KEEPALIVE "lease"
#define TQI_KV_SEARCHER  "looks"
#define TQI_KV_MARK      "kept"

/* Which value of a block: a number from 0, or one of these. */
#define TQI_KV_WHOLE UINT64_MAX
#define TQI_KV_HEAD  (UINT64_MAX - 1)

void tqi_kv_key_of(tqi_kv_key_text *out, uint64_t epoch, uint64_t id, uint64_t part);
/* Size of the parts of a block; 0 if it is one value. TQ_EPROTO for a locator that is not this manager's. */
int tqi_kv_part_size(const tq_block *block, uint64_t *out, tq_error *err);
static inline uint64_t tqi_kv_parts(uint64_t size, uint64_t part_size)
{
    return size / part_size + (size % part_size != 0);
}
void tqi_kv_le64(uint8_t out[8], uint64_t value);
uint64_t tqi_kv_from_le64(const uint8_t in[8]);

/* --- cut.c ---------------------------------------------------------------- */

/* One value of a batch. Head values point to their own bytes. */
typedef struct tqi_kv_cut_value {
    uint32_t block; /* place in the blocks */
    uint64_t part;
    uint64_t size;
    const tq_slice *slices;
    size_t n_slices;
} tqi_kv_cut_value;

/* A batch as blocks and values; values of a block lie end to end, in the order of the batch's bytes. */
typedef struct tqi_kv_cut {
    tq_block *blocks; /* ids are filled in by the code that gets them granted */
    uint32_t n_blocks;
    tq_extent *extents;
    uint32_t n_extents;
    tqi_kv_cut_value *values;
    size_t n_values;
    tq_slice *slices;
    uint64_t bytes;
} tqi_kv_cut;

int tqi_kv_cut_make(const tq_put_job *job, uint64_t value_max, tqi_kv_cut *out, tq_error *err);
void tqi_kv_cut_fini(tqi_kv_cut *cut);

/* --- put.c ---------------------------------------------------------------- */

void tqi_kv_put_start(void *state, tq_put_job *job);
void tqi_kv_put_cancel(void *state, tq_put_job *job);
/* There may be room now: tries the waiting puts. */
void tqi_kv_put_retry(tqi_kv *kv);

/* --- get.c ---------------------------------------------------------------- */

void tqi_kv_get_start(void *state, tq_get_job *job);

/* --- sweep.c -------------------------------------------------------------- */

/* Checks what the config says about sweeping. */
int tqi_kv_sweep_check(const tq_kv_client *client, const char *config, tq_error *err);
/* On the opening thread: the epoch has a keepalive when it returns. */
int tqi_kv_sweep_open(tqi_kv *kv, const char *config, tq_error *err);
/* The controller's epoch is another one. */
void tqi_kv_sweep_epoch(tqi_kv *kv, uint64_t epoch);
void tqi_kv_sweep_close(tqi_kv *kv);

/* --- remove.c ------------------------------------------------------------- */

void tqi_kv_remove_start(void *state, uint64_t incarnation, const uint64_t *ids, size_t n,
                         void (*done)(const tq_error *err, void *arg), void *arg);

#endif
