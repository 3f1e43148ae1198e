/*
 * client.h - types and functions shared by the files of the client: client, runtime (its loop thread), operations,
 * tasks.
 *
 * Threads. A tq_client has at most one runtime: a thread that runs a libuv loop, and everything that talks to the
 * system runs there. Calls are prepared on the caller's thread as a task (checked, copied), then queued. One lock per
 * client guards its queue, its cancel list and the pointer to its runtime; it is never held during a callback, and no
 * other lock is taken while it is held.
 *
 * A task is one started call. It belongs to the loop thread from the moment it is queued, is
 * linked in runtime->tasks until it is freed, and may live longer than its op (a cancelled read
 * whose manager still writes).
 */
#ifndef TQI_CLIENT_CLIENT_H
#define TQI_CLIENT_CLIENT_H

#include <pthread.h>
#include <stdatomic.h>
#include <uv.h>

#include "base/region.h"
#include "manager/manager.h"
#include "net/net.h"

#include <tq/manager.h>
#include <tq/tq.h>

typedef struct tqi_client_runtime tqi_client_runtime;
typedef struct tqi_client_task tqi_client_task;
typedef struct tqi_client_collector tqi_client_collector;
typedef struct tqi_client_side_job tqi_client_side_job;
typedef struct tqi_client_borrows tqi_client_borrows;

/* --- client --------------------------------------------------------------- */

/* Options of tq_client_open, copied; a forked child reopens with them. */
typedef struct tqi_client_saved_options {
    tqi_region region;
    const char *address;
    const char *name;           /* NULL: program and pid */
    const char *manager;        /* NULL: the system's */
    const char *manager_config; /* NULL: the system's */
    const char *libraries;      /* that the system's config may name; NULL: none */
    const char *node;           /* NULL: the machine */
    double timeout;             /* not 0 */
    bool own_timeout;           /* else the system's client.timeout, once known */
    double notice;              /* 0: the system's */
    uint64_t first_request;
    tqi_net_token token;
} tqi_client_saved_options;

/* wait.c: approximate medians of how long recent waits for ops took. */
typedef struct tqi_client_waits {
    _Atomic uint32_t looked_ns; /* of those that spun first */
    _Atomic uint32_t slept_ns;  /* of those that slept at once */
    _Atomic uint32_t interval;  /* number of waits between two that try the other kind */
    _Atomic uint32_t left;      /* until the next of these */
} tqi_client_waits;

void tqi_client_waits_init(tqi_client_waits *waits);
/* Whether the next wait should spin first. */
bool tqi_client_waits_look(tqi_client_waits *waits);
/* Records how long a wait took; crowded: another thread had the core while this one was spinning. */
void tqi_client_waits_learn(tqi_client_waits *waits, bool looked, bool crowded, uint64_t ns);

struct tq_client {
    /* list of all clients of the process, for fork; under the lock of fork.c */
    tq_client *prev, *next;
    _Atomic uint32_t refs; /* the user's, and one per op */
    tqi_client_saved_options options;
    _Atomic uint64_t epoch;
    _Atomic uint64_t events_epoch; /* of the events that it had last; 0: none */
    char *config;                  /* set once, when the first runtime has opened */

    pthread_mutex_t lock;
    pthread_cond_t changed;      /* runtime's state, pause and quiet */
    tqi_client_runtime *runtime; /* NULL after fork until the first call */
    _Atomic uint32_t generation; /* raised in every forked child */
    /* code 0, or why its system has ended; kept so that a forked child knows it at once */
    tq_error ended;
    bool closing;
    bool woken; /* the async was sent and the queue has not been drained since */
    bool pause; /* a fork is waiting for the loop thread to pause */
    tq_op *submit_first, *submit_last;
    tq_op *cancel_first;
    tqi_client_borrows *views;       /* get/borrows.h: in use, with pins of the runtime */
    tqi_client_borrows *views_ended; /* whose pins the loop thread is to end */

    tqi_client_waits waits;
};

void tqi_client_unref(tq_client *client);
/* Wakes the loop thread; with the lock held. */
void tqi_client_wake(tq_client *client);

/* --- runtime -------------------------------------------------------------- */

typedef enum tqi_client_runtime_state {
    TQI_CLIENT_RUNTIME_OPENING = 0,
    TQI_CLIENT_RUNTIME_OPEN,
    TQI_CLIENT_RUNTIME_FAILED, /* could not open, or is shutting down */
    TQI_CLIENT_RUNTIME_DEAD    /* set as the thread's last action: it can be joined without further
                           waiting */
} tqi_client_runtime_state;

struct tqi_client_runtime {
    tq_client *client;
    pthread_t thread;
    uv_loop_t loop;

    /* under the client's lock */
    tqi_client_runtime_state state;
    bool quiet; /* the loop thread runs no code of ours: it is parked, or in a user's callback */
    bool deaf;  /* the async must not be sent any more */
    /* closed in its own callback, or not waited for: the thread frees the runtime and client */
    bool self_free;
    tq_error error; /* why it failed; written once, before state becomes FAILED */

    /* loop thread only */
    uv_async_t async;
    uv_prepare_t prepare;
    uv_check_t check;
    uv_timer_t open_timer;
    uv_timer_t wait_timer; /* earliest deadline of tasks that are waiting for the opening */
    uv_timer_t notice_timer;
    uv_timer_t save_timer;                       /* of `saves` */
    uint64_t notice_ms;                          /* 0: no notices */
    bool noticing;                               /* the timer runs */
    uint64_t next_claim_notice, next_put_notice; /* not before, when nothing looks wrong */
    bool stop_due;                               /* stop once no network code is on the stack */
    bool stopping;
    bool connector_closed;
    bool manager_opening;
    bool manager_open;
    bool manager_closing;
    bool handles_closing;
    tqi_client_task *tasks;          /* all tasks that have begun or are waiting for the opening */
    _Atomic unsigned works;          /* in the thread pool; closing reads it */
    unsigned host_calls;             /* grant, owners, abandon */
    uint64_t sessions;               /* at the controller, so far */
    tq_op *ended_first, *ended_last; /* ops whose callback is due */
    uint64_t open_deadline;

    tqi_net_connector *connector;
    tqi_net_channel *controller;
    const tq_storage_manager *manager;
    void *manager_state;
    tq_manager_host host;
    tqi_manager_internal internal;
    tqi_client_collector *collector;
    tqi_client_side_job *side_jobs; /* checkpoint/checkpoint.h: at the manager */
    struct save_task *saves;        /* checkpoint/save.c: those with a snapshot */
    char *manager_config;           /* what the manager was opened with */
};

/* Starts a runtime for the client; with the client's lock held. */
int tqi_client_runtime_start(tq_client *client, tq_error *err);
/* Joins a dead runtime and frees it. */
void tqi_client_runtime_free(tqi_client_runtime *rt);
/* Ends everything and lets the thread exit, once the loop is between two events; loop thread. */
void tqi_client_runtime_stop(tqi_client_runtime *rt, const tq_error *err);
/* The opening has finished: begins the tasks that were waiting for it. */
void tqi_client_runtime_ready(tqi_client_runtime *rt);
/* Notes that a task with that deadline is waiting for the opening. */
void tqi_client_runtime_expect(tqi_client_runtime *rt, uint64_t deadline);
/* open.c: connects to the controller, asks how the system stores data and opens the manager; finishes with
 * tqi_client_runtime_ready or _stop. */
void tqi_client_runtime_open(tqi_client_runtime *rt);
/* Whether the caller is the client's loop thread. */
bool tqi_client_on_loop(tq_client *client);

/* Whether `rt` has a storage manager; TQ_EMANAGER names what was requested without one. */
int tqi_client_runtime_check_manager(const tqi_client_runtime *rt, const char *what, tq_error *err);

/* calls/status.c: a counter that an owner reported; 0 if it did not. */
uint64_t tqi_client_owner_counter(const Tq__OwnerInfo *info, const char *name);

/* manager_host.c: fills rt->host. */
void tqi_client_manager_host_init(tqi_client_runtime *rt);
/* collector.c: registers the manager's shared owner and removes its dead blocks, until stopped. */
int tqi_client_collector_start(tqi_client_runtime *rt, tq_error *err);
void tqi_client_collector_rejoin(tqi_client_runtime *rt);
void tqi_client_collector_stop(tqi_client_runtime *rt);

/* fork.c */
int tqi_client_fork_register(tq_client *client, tq_error *err);
void tqi_client_fork_unregister(tq_client *client);
/* Called before libuv's thread pool is used: a forked child must not wait on exit for threads that it does not have. */
void tqi_client_fork_uses_threads(void);
/* get/pool.c: taken around a fork. */
void tqi_client_pool_lock(void);
void tqi_client_pool_unlock(void);
void tqi_client_pool_forked(void);

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

    tq_error error;
    tqi_region results;
    tq_meta *meta;
    tq_data *data;
    uint64_t count;
    const tq_progress *progress;
    const char *const *names;
    size_t n_names;
    const tq_system_status *status;
    const tq_event *events;
    size_t n_events;
    uint64_t next_event;
    const tq_checkpoint *checkpoint;
    tq_clearing *clearings;
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
    tq_clearing *clearings;
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

/* notice.c: how long a call may wait before it is logged; `config` is the system's. */
void tqi_client_notice_init(tqi_client_runtime *rt, const char *config);
void tqi_client_notice_start(tqi_client_runtime *rt);
/* A task that may wait for a long time has begun. */
static inline void tqi_client_notice_watch(tqi_client_task *task)
{
    tqi_client_runtime *rt = task->rt;
    if (rt->notice_ms) {
        task->waits_since = uv_now(&rt->loop);
        if (!rt->noticing) {
            tqi_client_notice_start(rt);
        }
    }
}

/* Prepares a call on an op and checks that the op is not in progress. The op's results stay until the call is
 * submitted, because they may be its arguments. NULL with *code set on failure. */
tqi_client_task *tqi_client_task_make(tq_op *op, const tqi_client_task_type *type, int *code);
/* Forgets the op's results, then queues the task, or frees it and gives the op the error. Returns what the call
 * returns. */
int tqi_client_task_submit(tq_op *op, tqi_client_task *task, int code, tq_error *err);
/* Completes the op of a task (the task itself lives on); its results are in place. err NULL or code 0: success.
 * */
void tqi_client_task_end(tqi_client_task *task, const tq_error *err);
/* Frees a task that has ended its op. */
void tqi_client_task_free(tqi_client_task *task);
/* Both. */
void tqi_client_task_finish(tqi_client_task *task, const tq_error *err);
/* Sends a request to the controller; `answered` is called with its answer. On an error nothing was
 * started. */
int tqi_client_task_call(tqi_client_task *task, uint16_t kind, const ProtobufCMessage *message,
                         void (*answered)(tqi_client_task *task, tqi_net_answer *answer), tq_error *err);
/* The same with all arguments; sets done and arg itself. */
int tqi_client_task_call_args(tqi_client_task *task, tqi_net_call_args *args,
                              void (*answered)(tqi_client_task *task, tqi_net_answer *answer), tq_error *err);
/* Called by the loop thread for queued ops and cancels. */
void tqi_client_task_begin(tqi_client_runtime *rt, tqi_client_task *task);
void tqi_client_task_cancel(tqi_client_task *task);
/* Whether a busy op was cancelled, even if the loop has not handled that yet; loop thread.
 */
bool tqi_client_op_canceled(tq_op *op);
/* wait.c: sleeps until it is DONE, which is imminent. */
void tqi_client_op_settle(tq_op *op);
/* Whether it was started in the parent, before a fork. */
bool tqi_client_op_foreign(const tq_op *op);
/* Whether the caller is its callback; `state` as just read. */
bool tqi_client_op_in_own_callback(const tq_op *op, uint32_t state);
/* Runs the callbacks that are due. */
void tqi_client_op_flush(tqi_client_runtime *rt);
/* Milliseconds from now to a deadline, for the wire: at least 1; 0 for none. */
uint64_t tqi_client_remaining_ms(uint64_t deadline);
/* Gives ids back to the controller; no result is reported. */
void tqi_client_abandon(tqi_client_runtime *rt, const uint64_t *ids, size_t n, bool done);

/* --- plain requests ------------------------------------------------------- */

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

/* calls/clear.c: clears that have begun, as the op's result. */
int tqi_client_clearings_decode(tq_op *op, Tq__Clearing *const *from, size_t n, tq_error *err);

/* Makes one with an empty message; NULL with *code set, which the call then returns. */
tqi_client_request_task *tqi_client_request_make(tq_op *op, uint16_t kind, const ProtobufCMessageDescriptor *type,
                                                 tqi_client_decode_fn decode, int *code);

#endif
