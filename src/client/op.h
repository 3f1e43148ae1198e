/*
 * op.h - what every kind of call needs: operations (the user's), tasks (one started call each) and requests.
 *
 * A task belongs to the loop thread from the moment it is queued, is linked in runtime->tasks until it is freed, and
 * may live longer than its op (a cancelled read whose manager still writes).
 */
#ifndef TQI_CLIENT_OP_H
#define TQI_CLIENT_OP_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/region.h"
#include "net/net.h"

#include <tq/tq.h>

typedef struct tqi_client_runtime tqi_client_runtime;
typedef struct tqi_client_task tqi_client_task;

/* --- operations ----------------------------------------------------------- */

/* op->state */
#define TQI_CLIENT_OP_DONE   0u /* or never started */
#define TQI_CLIENT_OP_BUSY   1u /* started */
#define TQI_CLIENT_OP_ENDING 2u /* its callback runs */
#define TQI_CLIENT_OP_WAITED 4u /* added: somebody sleeps on it */

struct tq_op {
    tq_client *client;
    tq_done_fn done;
    void *arg;
    double timeout;
    _Atomic uint32_t state;
    uint32_t generation;   /* of the client when it was started */
    pthread_t ender;       /* while ENDING */
    bool *freed;           /* while ENDING: set by tq_op_free in the callback */
    bool free_when_done;   /* freed in a callback of another op; loop thread */
    tqi_client_task *task; /* while BUSY; NULL once it has ended and its callback is due */
    tq_op *next;           /* in the client's queue or the runtime's ended list */
    tq_op *cancel_prev, *cancel_next;
    bool cancel_queued; /* under the client's lock, like the two above */
    tq_queue *queue;    /* instead of `done` */
    tq_op *queue_prev, *queue_next;
    bool queued; /* under the queue's lock, like the two above */

    tq_error error;
    tqi_region results;
    tq_meta *meta;
    tq_data *data;
    uint64_t count;
    const tq_progress *progress;
    const char *const *names;
    size_t n_names;
    const tq_system_status *status;
    const tq_event *const *events;
    size_t n_events;
    uint64_t next_event;
    const tq_checkpoint *checkpoint;
    const tq_clearing **clearings;
    size_t n_clearings;
    _Atomic uint64_t moved; /* bytes; any thread */
    _Atomic uint64_t to_move;
};

/* --- tasks ---------------------------------------------------------------- */

/* What a kind of call does. All functions run on the loop thread, except fini (any thread). */
typedef struct tqi_client_task_type {
    size_t size;
    /* Begins the task; it finishes, now or later, with tqi_client_task_end and tqi_client_task_free. */
    void (*begin)(tqi_client_task *task);
    /* The user cancelled: task->canceled is set, and the op has not ended. NULL: the request in flight is cancelled. */
    void (*cancel)(tqi_client_task *task);
    /* Frees whatever is not in the task's region; may be NULL. */
    void (*fini)(tqi_client_task *task);
    /* Its arguments point to bytes that are not copied. They may be results of the op, which the task then keeps. */
    bool takes_slices;
} tqi_client_task_type;

/* Memory of the results of a call. */
typedef struct tqi_client_results {
    tq_meta *meta;
    tq_data *data;
    const tq_clearing **clearings;
    size_t n_clearings;
    tqi_region region;
} tqi_client_results;

struct tqi_client_task {
    const tqi_client_task_type *type;
    tqi_client_runtime *rt;       /* once begun */
    tq_op *op;                    /* NULL once ended */
    tqi_client_task *prev, *next; /* runtime->tasks */
    uint64_t deadline;
    tqi_net_call *call; /* request in flight */
    void (*answered)(tqi_client_task *task, tqi_net_answer *answer);
    bool begun;
    bool canceled;
    tqi_client_results former; /* see takes_slices */
    uint64_t waits_since;      /* notice.c: loop time in ms; 0: it does not wait, or was asked about */
    uint8_t asks;              /* how often; after an empty answer it is asked again */
    bool over;                 /* cancelled because the system has ended: that is its error */
    tqi_region region;
};

/* --- op.c ----------------------------------------------------------------- */

/* Prepares a call on an op and checks that the op is not in progress. The op's results stay until the call is
 * submitted, because they may be its arguments. NULL with *code set on failure. */
tqi_client_task *tqi_client_task_make(tq_op *op, const tqi_client_task_type *type, int *rc);
/* Forgets the op's results, then queues the task, or frees it and gives the op the error. Returns what the call
 * returns. */
int tqi_client_task_submit(tq_op *op, tqi_client_task *task, int rc, tq_error *err);
/* Completes the op of a task (the task itself lives on); its results are in place. err NULL or code 0: success. */
void tqi_client_task_end(tqi_client_task *task, const tq_error *err);
/* Frees a task that has ended its op. */
void tqi_client_task_free(tqi_client_task *task);
/* Both. */
void tqi_client_task_finish(tqi_client_task *task, const tq_error *err);
/* Sends a request to the controller; `answered` is called with its answer. On an error nothing was started. */
int tqi_client_task_call(tqi_client_task *task, uint16_t kind, const ProtobufCMessage *message,
                         void (*answered)(tqi_client_task *task, tqi_net_answer *answer), tq_error *err);
/* The same with all arguments; sets done and arg itself. */
int tqi_client_task_call_args(tqi_client_task *task, tqi_net_call_args *args,
                              void (*answered)(tqi_client_task *task, tqi_net_answer *answer), tq_error *err);
/* Whether a busy op was cancelled, even if the loop has not handled that yet; loop thread. */
bool tqi_client_op_canceled(tq_op *op);

/* --- calls that are one request: request.c -------------------------------- */

/* Decodes a checked reply into the op; if that fails, the op ends with the error. */
typedef int (*tqi_client_decode_fn)(tq_op *op, const tqi_client_task *task, const ProtobufCMessage *reply,
                                    tq_error *err);

/* A call that is one request. */
typedef struct tqi_client_request_task {
    tqi_client_task task;
    uint16_t kind;
    ProtobufCMessage *message;   /* in the region */
    tqi_client_decode_fn decode; /* NULL: the reply says nothing */
    uint64_t *timeout_ms;        /* field of the message, filled in when it is sent; NULL: the server does not wait */
    const char *partition;       /* for the decoder */
    size_t n;                    /* for the decoder: rows or names requested */
    bool quiet_timeout;          /* a deadline is not an error: decode is called with NULL */
    bool claim;                  /* an answer that is no longer wanted is released */
} tqi_client_request_task;

/* Makes one with an empty message; NULL with *code set, which the call then returns. */
tqi_client_request_task *tqi_client_request_make(tq_op *op, uint16_t kind, const ProtobufCMessageDescriptor *type,
                                                 tqi_client_decode_fn decode, int *rc);

#endif
