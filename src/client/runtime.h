/*
 * runtime.h - the loop thread of a client: how it opens and stops, what it offers its storage manager, and what tasks
 * with a part of their work at the manager need from it. All functions are for the loop thread unless they say
 * otherwise.
 */
#ifndef TQI_CLIENT_RUNTIME_H
#define TQI_CLIENT_RUNTIME_H

#include <uv.h>

#include "client/client.h"
#include "client/op.h"
#include "manager/manager.h"

#include <tq/manager.h>

typedef struct tqi_client_collector tqi_client_collector;

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
    bool quiet; /* the loop thread runs no code of ours: it is paused, or in a user's callback */
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
    uv_timer_t keep_timer;                       /* of `kept` */
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
    struct tqi_client_ckpt_kept *kept; /* checkpoint/keep.c: snapshots */
    char *manager_config;              /* what the manager was opened with */
};

/* --- runtime.c ------------------------------------------------------------ */

/* Starts a runtime for the client; with the client's lock held, any thread. */
int tqi_client_runtime_start(tq_client *client, tq_error *err);
/* Joins a dead runtime and frees it; any thread. */
void tqi_client_runtime_free(tqi_client_runtime *rt);
/* Ends everything and lets the thread exit, once the loop is between two events. */
void tqi_client_runtime_stop(tqi_client_runtime *rt, const tq_error *err);
/* The opening has finished: begins the tasks that were waiting for it. */
void tqi_client_runtime_ready(tqi_client_runtime *rt);
/* Notes that a task with that deadline is waiting for the opening. */
void tqi_client_runtime_expect(tqi_client_runtime *rt, uint64_t deadline);
/* Whether `rt` has a storage manager; TQ_EMANAGER names what was requested without one. */
int tqi_client_runtime_check_manager(const tqi_client_runtime *rt, const char *what, tq_error *err);

/* --- open.c --------------------------------------------------------------- */

/* Connects to the controller, asks how the system stores data and opens the manager; finishes with
 * tqi_client_runtime_ready or _stop. */
void tqi_client_runtime_open(tqi_client_runtime *rt);

/* --- handle.c ------------------------------------------------------------- */

/* Milliseconds from now to a deadline, for the wire: at least 1; 0 for none. Any thread. */
uint64_t tqi_client_remaining_ms(uint64_t deadline);

/* --- ops, from below: op.c ------------------------------------------------ */

/* Called for queued ops and cancels. */
void tqi_client_task_begin(tqi_client_runtime *rt, tqi_client_task *task);
void tqi_client_task_cancel(tqi_client_task *task);
/* Runs the callbacks that are due. */
void tqi_client_op_flush(tqi_client_runtime *rt);

/* --- ops, from below: wait.c ---------------------------------------------- */

/* Sleeps until it is DONE, which is imminent; any thread but this one. */
void tqi_client_op_settle(tq_op *op);
/* Makes it DONE and wakes its waiters. After that the op is no longer ours. */
void tqi_client_op_release(tq_op *op);

/* --- ops, from below: inline ---------------------------------------------- */

/* Whether it was started in the parent, before a fork; any thread. */
static inline bool tqi_client_op_foreign(const tq_op *op)
{
    return op->generation != atomic_load_explicit(&op->client->generation, memory_order_relaxed);
}

/* Whether the caller is its callback; `state` as just read. */
static inline bool tqi_client_op_in_own_callback(const tq_op *op, uint32_t state)
{
    return (state & ~TQI_CLIENT_OP_WAITED) == TQI_CLIENT_OP_ENDING && pthread_equal(op->ender, pthread_self());
}

/* --- the storage manager: manager_host.c ---------------------------------- */

/* Fills rt->host. */
void tqi_client_manager_host_init(tqi_client_runtime *rt);

/* A job of the manager, as part of the task that waits for it. The manager knows it by `job`, and when it has finished,
 * `written` or `got` is called, once. */
typedef struct tqi_client_put_job {
    tq_put_job job; /* first: found by its address */
    tqi_client_task *task;
    void (*written)(tqi_client_task *task, const tq_error *err, const tq_block *blocks, uint32_t n_blocks,
                    const tq_extent *extents, uint32_t n_extents);
} tqi_client_put_job;

typedef struct tqi_client_get_job {
    tq_get_job job; /* as above */
    tqi_client_task *task;
    void (*got)(tqi_client_task *task, const tq_error *err, const uint32_t *gone, uint32_t n_gone);
} tqi_client_get_job;

/* Gives ids back to the controller; no result is reported. */
void tqi_client_abandon(tqi_client_runtime *rt, const uint64_t *ids, size_t n, bool done);
/* Reports to the controller that published blocks are gone from their store. */
void tqi_client_report_lost(tqi_client_runtime *rt, const uint64_t *ids, size_t n);
/* Those of the given owners of the runtime's manager that exist now. */
void tqi_client_owners(tqi_client_runtime *rt, const char *const *names, size_t n, uint64_t deadline,
                       void (*done)(const tq_error *err, const tq_owner_info *owners, size_t n, void *arg), void *arg);

/* --- collector.c ---------------------------------------------------------- */

/* Registers the manager's shared owner and removes its dead blocks, until stopped. */
int tqi_client_collector_start(tqi_client_runtime *rt, tq_error *err);
void tqi_client_collector_rejoin(tqi_client_runtime *rt);
void tqi_client_collector_stop(tqi_client_runtime *rt);

/* --- long waits: notice.c ------------------------------------------------- */

/* How long a call may wait before it is logged; `config` is the system's. */
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

#endif
