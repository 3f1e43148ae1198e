/*
 * call.h - the calls of the public API as workloads make them: started, recorded in the history, waited for, cancelled
 * at a drawn time, and what they read compared with what was put.
 *
 *     load_call call;
 *     load_meta meta = {0};
 *
 *     load_call_init(&call, self, 0, &self->chance);
 *     if (load_finish(&call, load_claim(&call, &args)) == TQ_OK) {
 *         load_meta_take(&call, &meta);
 *         load_finish(&call, load_get(&call, &meta, &get));
 *     }
 *     load_meta_drop(&meta);
 *     load_call_fini(&call);
 *
 * Between a call and load_finish the op is in flight. One load_call is used by one thread.
 */
#ifndef TQ_SIM_CALL_H
#define TQ_SIM_CALL_H

#include "load/field.h"

#include <pthread.h>

/* Of the world (world.h): how the running process reaches the system. */
void world_client_options(tq_client_options *out);

/* The note of a cell (tq_notify): this many bytes of the workload's, then the row as a put would have stored it. */
#define LOAD_NOTE_HEAD 8u

/* How an op is waited for; drawn when the op is made. */
typedef enum load_waiting {
    LOAD_WAIT,     /* tq_op_wait */
    LOAD_WAIT_FOR, /* tq_op_wait_for, again and again */
    LOAD_CALLBACK  /* the op has a callback, which wakes the thread */
} load_waiting;

/* Memory that a read writes to; the library and the reader have it. */
typedef struct load_dest {
    _Atomic uint32_t refs;
    uint8_t *bytes;
} load_dest;
void load_dest_release(void *dest);

typedef struct load_call {
    load_client *client;
    uint32_t thread;
    sim_chance *chance;
    tq_op *op;          /* NULL: none yet, or given away */
    history_op *record; /* of the call in flight, or of the last one */
    load_waiting waiting;
    bool never_cancel; /* the workload cancels itself, or must know the outcome */
    bool plain;        /* no drawn deadline */
    double timeout;    /* of the next calls; 0: the client's */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool called; /* the callback has run; under the lock */
    /* of the call in flight */
    load_column *columns;
    uint32_t n_columns;
    tq_column *column_args;
    tq_data *data;   /* of the last read: a reference, until the next call */
    load_dest *dest; /* of the last read; NULL: none */
} load_call;

/* A meta and the op that made it. */
typedef struct load_meta {
    tq_meta *meta; /* NULL: none */
    uint64_t from; /* number of the op; 0: made by hand */
} load_meta;

/* The number of a thread appears in the history. */
void load_call_init(load_call *call, load_client *client, uint32_t thread, sim_chance *chance);
/* The call is not in flight any more, or its client is closed. */
void load_call_fini(load_call *call);
/* Gets an op for the next call; false: out of memory. */
bool load_call_ready(load_call *call);

/* --- started calls ------------------------------------------------------------ */

/* All of these return what the API's call returned; if it is not TQ_OK, the op is recorded as one that has failed. They
 * return TQ_ENOMEM without an op in the history if there was no memory to begin. */

typedef struct load_put_args {
    const char *partition;
    const load_meta *meta;     /* existing samples, or */
    const char *const *keys;   /* keys, or neither: n new samples */
    uint32_t n;                /* with a meta: its samples */
    const char *const *groups; /* n, or NULL */
    const char *const *fields; /* names of load_fields; different ones */
    uint32_t n_fields;
    load_size size;
    bool must_exist;
    bool fail_when_full;
    bool lengths;  /* tag total_lengths: a number per sample */
    bool untagged; /* without the tag "op"; then a field or more must be put */
} load_put_args;
int load_put(load_call *call, const load_put_args *args);

int load_reserve(load_call *call, const char *partition, uint32_t n, const char *const *keys, const char *const *groups);

typedef struct load_claim_args {
    const char *partition;
    const char *task;
    const char *const *fields;
    uint32_t n_fields;
    uint32_t batch;
    bool force;
    bool poll;
    bool tags;
    const char *sampler;
    const char *config;
} load_claim_args;
int load_claim(load_call *call, const load_claim_args *args);

typedef struct load_resolve_args {
    const char *partition;
    const char *const *keys; /* n keys, or */
    const uint32_t *indexes; /* n indexes, or neither: all */
    uint32_t n;
    const char *const *fields; /* NULL: all */
    uint32_t n_fields;
    bool lenient;
    bool tags;
} load_resolve_args;
int load_resolve(load_call *call, const load_resolve_args *args);

typedef struct load_get_args {
    const char *const *fields; /* NULL: all of the meta */
    uint32_t n_fields;
    bool zero_copy;
    bool leave_values;
    bool padded; /* ragged fields at equal distances, gaps filled with zeros */
    bool dest;   /* one field of fixed size into memory of ours */
} load_get_args;
int load_get(load_call *call, const load_meta *meta, const load_get_args *args);
int load_get_by_key(load_call *call, const char *partition, const char *const *keys, uint32_t n,
                    const load_get_args *args);

int load_clear_meta(load_call *call, const load_meta *meta);
int load_clear_indexes(load_call *call, const char *partition, const uint32_t *indexes, uint32_t n);
int load_clear_keys(load_call *call, const char *partition, const char *const *keys, uint32_t n);
int load_clear_partition(load_call *call, const char *partition);
int load_reset(load_call *call, const char *partition, const char *task);
int load_consumed(load_call *call, const char *partition, const char *task);
int load_produced(load_call *call, const char *partition, const char *const *fields, uint32_t n);
int load_list_keys(load_call *call, const char *partition);
int load_list_partitions(load_call *call);

/* --- for calls that are not in the list above (checkpoints, managers) --------- */

/* The record of a call that is about to be started, or NULL: out of memory. Fill in its arguments, start the call on
 * call->op, and pass what it returned to load_started, which returns it. */
history_op *load_begin(load_call *call, history_call kind, const char *partition);
int load_started(load_call *call, int rc);
/* Parts of a put, for calls like it: samples and fields into the record, then columns with their bytes into
 * call->column_args, which last until the next call. */
void load_put_record(history_op *op, const load_put_args *args);
void load_columns_make(load_call *call, const load_put_args *args);

/* --- the end -------------------------------------------------------------------- */

/* Waits for the call in flight (`rc` is what starting it returned), maybe cancels it, records its end and results, and
 * checks what was read. Returns its code. */
int load_finish(load_call *call, int rc);
/* Without waiting: whether it has ended, and then the same. */
bool load_poll(load_call *call, int *rc);
/* Cancels the call in flight. */
void load_cancel_call(load_call *call);
/* Frees the op while its call is in flight. */
void load_free_running(load_call *call);

/* The meta of the last call, which ended with TQ_OK. */
void load_meta_take(load_call *call, load_meta *out);
void load_meta_drop(load_meta *meta);
uint32_t load_meta_count(const load_meta *meta);
/* n rows of a meta from the first on; false: out of memory. */
bool load_meta_part(const load_meta *meta, uint32_t first, uint32_t n, load_meta *out);
/* Packs and unpacks it, as to another process. */
bool load_meta_pass(load_meta *meta);

/* Data that was read and is kept: its bytes must stay as they are. */
typedef struct load_held {
    tq_data *data;
    history_op *get;
    uint64_t until; /* sim_time at which the workload wants to release it */
} load_held;
void load_hold(load_call *call, load_held *out);
/* Compares the bytes again, then releases them. */
void load_release(load_held *held);

/* Compares what was read with what was put; fills op->values. Ends the run of the seed if a byte is wrong. */
void load_read_check(history_op *op, const tq_data *data, bool again);

#endif
