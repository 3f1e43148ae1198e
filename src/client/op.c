/*
 * op.c - operations: how a call starts, is cancelled and completes; wait.c implements waiting for it.
 *
 * Rules
 *   - A started op ends exactly once. Only the loop thread ends ops; cancel and close only ask it
 *     to.
 *   - state goes DONE -> BUSY (caller's thread, when it is queued), BUSY -> DONE (no callback) or BUSY -> ENDING ->
 *     DONE (around the callback). Results and error are written before state leaves BUSY (release) and read after it
 *     (acquire). Sleepers set WAITED and sleep on the word itself; the thread that makes it DONE wakes them, and does
 *     not touch the op after that, because its owner may free it at once.
 *   - Callbacks do not run where an op completes, but when the loop is between two events (tqi_client_op_flush), with
 *     no lock held and no network code below them on the stack: they may start, cancel and free ops, and may fork.
 *   - tq_op_free in the op's own callback frees it there; the loop thread sees op->freed and forgets the op. On
 *     another thread it waits until the callback has returned. In a callback of another op it cannot wait: the op is
 *     cancelled and freed once it has ended, and its callback is never called.
 *   - A cancel is a link in the client's list, guarded by the client's lock. The loop thread unlinks it under the
 *     lock and touches the op only if it is BUSY then, which only the loop thread can change. Freeing unlinks it
 *     under the lock.
 *   - An op with a queue (queue.c) is put there instead, also between two events: the ops that one event completes then
 *     cost the program one wake-up. It is DONE at once, for no code of the program runs here.
 *   - An op that was BUSY when the process forked belongs to an older generation than the child's: in the child it is
 *     never done.
 */
#include "client/runtime.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/pointer.h"
#include "client/queue.h"

static void op_free_results(tqi_client_results *results)
{
    tq_meta_unref(results->meta);
    tq_data_unref(results->data);
    for (size_t i = 0; i < results->n_clearings; i++) {
        tq_meta_unref(tqi_unconst(results->clearings[i]->meta));
    }
    tqi_region_fini(&results->region);
}

/* Drops the previous call's results, and hands over the memory that holds them. */
static tqi_client_results op_take_results(tq_op *op)
{
    tqi_client_results taken = {
        .meta = op->meta,
        .data = op->data,
        .clearings = op->clearings,
        .n_clearings = op->n_clearings,
        .region = op->results,
    };

    memset(&op->results, 0, sizeof(op->results));
    op->clearings = NULL;
    op->n_clearings = 0;
    op->meta = NULL;
    op->data = NULL;
    op->count = 0;
    op->progress = NULL;
    op->names = NULL;
    op->n_names = 0;
    op->status = NULL;
    op->events = NULL;
    op->n_events = 0;
    op->next_event = 0;
    op->checkpoint = NULL;
    op->error.code = TQ_OK;
    op->error.message[0] = 0;
    return taken;
}

static void op_clear(tq_op *op)
{
    tqi_client_results results = op_take_results(op);

    op_free_results(&results);
}

tq_op *tq_op_alloc(tq_client *client, tq_done_fn done, void *arg)
{
    tq_op *op = client != NULL ? calloc(1, sizeof(*op)) : NULL;

    if (op == NULL) {
        return NULL;
    }
    op->client = client;
    op->done = done;
    op->arg = arg;
    atomic_fetch_add_explicit(&client->refs, 1, memory_order_relaxed);
    return op;
}

static void op_unlink_cancel(tq_op *op)
{
    tq_client *client = op->client;

    if (!op->cancel_queued) {
        return;
    }
    if (op->cancel_prev != NULL) {
        op->cancel_prev->cancel_next = op->cancel_next;
    } else {
        client->cancel_first = op->cancel_next;
    }
    if (op->cancel_next != NULL) {
        op->cancel_next->cancel_prev = op->cancel_prev;
    }
    op->cancel_prev = NULL;
    op->cancel_next = NULL;
    op->cancel_queued = false;
}

static void op_dispose(tq_op *op)
{
    tq_client *client = op->client;

    tq_op_set_queue(op, NULL);
    pthread_mutex_lock(&client->lock);
    op_unlink_cancel(op);
    pthread_mutex_unlock(&client->lock);
    op_clear(op);
    free(op);
    tqi_client_unref(client);
}

void tq_op_free(tq_op *op)
{
    uint32_t state;

    if (op == NULL) {
        return;
    }
    state = atomic_load_explicit(&op->state, memory_order_acquire);
    if (tqi_client_op_in_own_callback(op, state)) {
        *op->freed = true;
    } else if (state != TQI_CLIENT_OP_DONE && !tqi_client_op_foreign(op)) {
        tq_op_cancel(op);
        if (tqi_client_on_loop(op->client)) {
            op->free_when_done = true;
            return;
        }
        tqi_client_op_settle(op);
    }
    op_dispose(op);
}

void *tq_op_arg(const tq_op *op)
{
    return op != NULL ? op->arg : NULL;
}

void tq_op_set_timeout(tq_op *op, double seconds)
{
    if (op != NULL) {
        op->timeout = seconds;
    }
}

void tq_op_cancel(tq_op *op)
{
    tq_client *client = op != NULL ? op->client : NULL;

    if (client == NULL) {
        return;
    }
    pthread_mutex_lock(&client->lock);
    if ((atomic_load(&op->state) & ~TQI_CLIENT_OP_WAITED) == TQI_CLIENT_OP_BUSY && !tqi_client_op_foreign(op) &&
        client->runtime != NULL && !op->cancel_queued) {
        op->cancel_queued = true;
        op->cancel_prev = NULL;
        op->cancel_next = client->cancel_first;
        if (client->cancel_first != NULL) {
            client->cancel_first->cancel_prev = op;
        }
        client->cancel_first = op;
        tqi_client_wake(client);
    }
    pthread_mutex_unlock(&client->lock);
}

bool tqi_client_op_canceled(tq_op *op)
{
    tq_client *client = op->client;
    bool canceled;

    pthread_mutex_lock(&client->lock);
    canceled = op->cancel_queued || op->task->canceled;
    pthread_mutex_unlock(&client->lock);
    return canceled;
}

bool tq_op_done(const tq_op *op)
{
    if (op == NULL) {
        return true;
    }
    uint32_t state = atomic_load_explicit(&op->state, memory_order_acquire) & ~TQI_CLIENT_OP_WAITED;
    return state != TQI_CLIENT_OP_BUSY;
}

const tq_error *tq_op_error(const tq_op *op)
{
    static const tq_error none = {TQ_EINVAL, "op is NULL"};

    return op != NULL ? &op->error : &none;
}

const tq_meta *tq_op_meta(const tq_op *op)
{
    return op != NULL ? op->meta : NULL;
}

const tq_data *tq_op_data(const tq_op *op)
{
    return op != NULL ? op->data : NULL;
}

uint64_t tq_op_count(const tq_op *op)
{
    return op != NULL ? op->count : 0;
}

const tq_progress *tq_op_progress(const tq_op *op)
{
    return op != NULL ? op->progress : NULL;
}

const tq_clearing *const *tq_op_clearings(const tq_op *op, size_t *n)
{
    if (n != NULL) {
        *n = op != NULL ? op->n_clearings : 0;
    }
    return op != NULL ? op->clearings : NULL;
}

const char *const *tq_op_names(const tq_op *op, size_t *n)
{
    if (n != NULL) {
        *n = op != NULL ? op->n_names : 0;
    }
    return op != NULL ? op->names : NULL;
}

const tq_system_status *tq_op_status(const tq_op *op)
{
    return op != NULL ? op->status : NULL;
}

const tq_event *const *tq_op_events(const tq_op *op, size_t *n, uint64_t *next)
{
    if (n != NULL) {
        *n = op != NULL ? op->n_events : 0;
    }
    if (next != NULL) {
        *next = op != NULL ? op->next_event : 0;
    }
    return op != NULL ? op->events : NULL;
}

/* --- start ---------------------------------------------------------------- */

/* The results stay until the call is submitted: its arguments may lie in them. */
tqi_client_task *tqi_client_task_make(tq_op *op, const tqi_client_task_type *type, int *rc)
{
    if (op == NULL) {
        *rc = TQ_EINVAL; /* and there is no op to hold the error */
        return NULL;
    }
    uint32_t state = atomic_load_explicit(&op->state, memory_order_acquire);
    tqi_client_task *task;

    if (tqi_client_op_in_own_callback(op, state) || (state & ~TQI_CLIENT_OP_WAITED) == TQI_CLIENT_OP_BUSY) {
        *rc = TQ_EINVAL; /* in progress: we must not set its error */
        return NULL;
    }
    if (state != TQI_CLIENT_OP_DONE) {
        tqi_client_op_settle(op); /* its callback is about to return on the loop thread */
    }
    tqi_client_queue_leave(op);
    task = calloc(1, type->size);
    if (task == NULL) {
        op_clear(op);
        *rc = tqi_error_nomem(&op->error, "a call");
        return NULL;
    }
    task->type = type;
    task->deadline = tqi_deadline(op->timeout != 0 ? op->timeout : op->client->options.timeout);
    *rc = TQ_OK;
    return task;
}

static void task_destroy(tqi_client_task *task)
{
    if (task->type->fini != NULL) {
        task->type->fini(task);
    }
    op_free_results(&task->former);
    tqi_region_fini(&task->region);
    free(task);
}

static int op_enqueue(tq_op *op, tqi_client_task *task, tq_error *err)
{
    tq_client *client = op->client;
    int rc = TQ_OK;

    pthread_mutex_lock(&client->lock);
    op_unlink_cancel(op); /* of the call before */
    if (client->closing) {
        rc = tqi_error_set(err, TQ_ECLOSED, "the client is closed: open another one");
        goto done;
    }
    if (client->runtime != NULL && client->runtime->state == TQI_CLIENT_RUNTIME_DEAD) {
        tqi_client_runtime_free(client->runtime);
        client->runtime = NULL;
    }
    if (client->runtime != NULL && client->runtime->state == TQI_CLIENT_RUNTIME_FAILED) {
        *err = client->runtime->error;
        rc = err->code;
        goto done;
    }
    if (client->runtime == NULL) {
        rc = tqi_client_runtime_start(client, err);
        if (rc != TQ_OK) {
            goto done;
        }
    }
    op->task = task;
    task->op = op;
    op->generation = atomic_load(&client->generation);
    op->next = NULL;
    atomic_store_explicit(&op->state, TQI_CLIENT_OP_BUSY, memory_order_release);
    if (client->submit_last != NULL) {
        client->submit_last->next = op;
    } else {
        client->submit_first = op;
    }
    client->submit_last = op;
    tqi_client_wake(client);
done:
    pthread_mutex_unlock(&client->lock);
    return rc;
}

int tqi_client_task_submit(tq_op *op, tqi_client_task *task, int rc, tq_error *err)
{
    if (task->type->takes_slices && rc == TQ_OK) {
        task->former = op_take_results(op);
    } else {
        op_clear(op);
    }
    if (rc == TQ_OK) {
        rc = op_enqueue(op, task, err);
    }
    if (rc != TQ_OK) {
        task_destroy(task);
        op->error = *err;
        op->error.code = rc;
    }
    return rc;
}

void tqi_client_task_begin(tqi_client_runtime *rt, tqi_client_task *task)
{
    if (task->rt == NULL) {
        task->rt = rt;
        task->next = rt->tasks;
        if (rt->tasks != NULL) {
            rt->tasks->prev = task;
        }
        rt->tasks = task;
    }
    if (rt->stopping) {
        tqi_client_task_finish(task, NULL); /* the runtime's reason takes its place */
    } else if (task->canceled) {
        tq_error err = {0};
        tqi_error_set(&err, TQ_ECANCELED, "cancelled");
        tqi_client_task_finish(task, &err);
    } else if (rt->state == TQI_CLIENT_RUNTIME_OPEN) {
        task->begun = true;
        task->type->begin(task);
    } else {
        tqi_client_runtime_expect(rt, task->deadline);
    }
}

/* --- end ------------------------------------------------------------------ */

void tqi_client_task_end(tqi_client_task *task, const tq_error *err)
{
    tqi_client_runtime *rt = task->rt;
    tq_op *op = task->op;

    if (op == NULL) {
        return;
    }
    task->op = NULL;
    if (rt->stopping && (err != NULL || !task->begun)) {
        err = &rt->error;
    } else if (task->over && err != NULL && rt->client->ended.code != TQ_OK) {
        err = &rt->client->ended;
    }
    if (err != NULL && err->code != TQ_OK) {
        op_clear(op);
        op->error = *err;
    }
    op->task = NULL;
    if (op->done == NULL && op->queue == NULL && !op->free_when_done) {
        tqi_client_op_release(op);
        return;
    }
    op->next = NULL;
    if (rt->ended_last != NULL) {
        rt->ended_last->next = op;
    } else {
        rt->ended_first = op;
    }
    rt->ended_last = op;
}

void tqi_client_task_free(tqi_client_task *task)
{
    tqi_client_runtime *rt = task->rt;

    if (task->prev != NULL) {
        task->prev->next = task->next;
    } else {
        rt->tasks = task->next;
    }
    if (task->next != NULL) {
        task->next->prev = task->prev;
    }
    task_destroy(task);
}

void tqi_client_task_finish(tqi_client_task *task, const tq_error *err)
{
    tqi_client_task_end(task, err);
    tqi_client_task_free(task);
}

static void op_call_back(tqi_client_runtime *rt, tq_op *op)
{
    tq_client *client = rt->client;
    bool freed = false;
    bool dispose = op->free_when_done;

    pthread_mutex_lock(&client->lock);
    rt->quiet = true;
    pthread_cond_broadcast(&client->changed);
    pthread_mutex_unlock(&client->lock);

    op->ender = pthread_self();
    op->freed = &freed;
    atomic_fetch_xor_explicit(&op->state, TQI_CLIENT_OP_BUSY | TQI_CLIENT_OP_ENDING, memory_order_acq_rel);
    if (op->done != NULL && !op->free_when_done) {
        op->done(op, op->arg);
    }
    if (!freed) {
        dispose = dispose || op->free_when_done;
        tqi_client_op_release(op);
        if (dispose) {
            op_dispose(op);
        }
    }

    pthread_mutex_lock(&client->lock);
    while (client->pause) {
        pthread_cond_wait(&client->changed, &client->lock);
    }
    rt->quiet = false;
    pthread_mutex_unlock(&client->lock);
}

void tqi_client_op_flush(tqi_client_runtime *rt)
{
    while (rt->ended_first != NULL) {
        tq_op *op = rt->ended_first;
        rt->ended_first = op->next;
        if (rt->ended_first == NULL) {
            rt->ended_last = NULL;
        }
        op->next = NULL;
        if (op->queue != NULL && !op->free_when_done) {
            tqi_client_queue_push(op);
        } else {
            op_call_back(rt, op);
        }
    }
}

/* --- requests and cancel -------------------------------------------------- */

static void task_answered(tqi_net_call *call, tqi_net_answer *answer, void *arg)
{
    tqi_client_task *task = arg;

    (void)call;
    task->call = NULL;
    task->answered(task, answer);
}

int tqi_client_task_call_args(tqi_client_task *task, tqi_net_call_args *args,
                              void (*answered)(tqi_client_task *task, tqi_net_answer *answer), tq_error *err)
{
    if (task->rt->stopping) {
        return tqi_error_set(err, TQ_ECLOSED, "the client is closed: open another one");
    }
    task->answered = answered;
    args->done = task_answered;
    args->arg = task;
    return tqi_net_call_start(task->rt->controller, args, &task->call, err);
}

int tqi_client_task_call(tqi_client_task *task, uint16_t kind, const ProtobufCMessage *message,
                         void (*answered)(tqi_client_task *task, tqi_net_answer *answer), tq_error *err)
{
    tqi_net_call_args args = {.kind = kind, .message = message, .deadline = task->deadline};

    return tqi_client_task_call_args(task, &args, answered, err);
}

void tqi_client_task_cancel(tqi_client_task *task)
{
    tq_error err = {0};

    task->canceled = true;
    if (!task->begun) {
        if (task->rt != NULL) {
            tqi_error_set(&err, TQ_ECANCELED, "cancelled");
            tqi_client_task_finish(task, &err);
        }
        return; /* else it is still queued, and tqi_client_task_begin ends it */
    }
    if (task->type->cancel != NULL) {
        task->type->cancel(task);
    } else if (task->call != NULL) {
        tqi_net_call_cancel(task->call);
    }
}
