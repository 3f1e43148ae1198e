/*
 * runtime.c - the loop thread of a client: its queue, and how it stops.
 *
 * Callers link ops into the client's queue under the client's lock and send the async once per drain (`woken`); the
 * loop thread takes the whole queue at a time. Callbacks of ended ops and the steps of stopping run between two events
 * of the loop (in prepare and check handlers), so neither ever has network code below it on the stack.
 *
 * Stopping: the manager's jobs are cancelled and the connector is closed, which ends every request, and with it the
 * jobs that wait for one; when no task, no work in the thread pool and no request of the manager is left, the manager
 * is closed; then the handles.
 */
#include "client/runtime.h"
#include "client/data/borrows.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/stdio.h"

int tqi_client_runtime_check_manager(const tqi_client_runtime *rt, const char *what, tq_error *err)
{
    if (rt->manager == NULL) {
        return tqi_error_set(err, TQ_EMANAGER,
                             "%s: the client was opened without a storage manager (manager \"\"), so it only "
                             "reads metadata",
                             what);
    }
    return TQ_OK;
}

/* --- queue ---------------------------------------------------------------- */

/* Lets a fork happen while this thread is paused. */
static void rt_pause(tqi_client_runtime *rt)
{
    tq_client *client = rt->client;

    if (!client->pause) {
        return;
    }
    rt->quiet = true;
    pthread_cond_broadcast(&client->changed);
    while (client->pause) {
        pthread_cond_wait(&client->changed, &client->lock);
    }
    rt->quiet = false;
}

/* Takes one op off the cancel list; NULL if it is empty. Skips ops that are no longer BUSY. */
static tq_op *rt_next_cancel(tq_client *client)
{
    tq_op *op;

    while ((op = client->cancel_first)) {
        client->cancel_first = op->cancel_next;
        if (op->cancel_next != NULL) {
            op->cancel_next->cancel_prev = NULL;
        }
        op->cancel_next = NULL;
        op->cancel_queued = false;
        if ((atomic_load(&op->state) & ~TQI_CLIENT_OP_WAITED) == TQI_CLIENT_OP_BUSY) {
            return op;
        }
    }
    return NULL;
}

static void rt_drain(tqi_client_runtime *rt)
{
    tq_client *client = rt->client;
    tq_op *op;

    pthread_mutex_lock(&client->lock);
    rt_pause(rt);
    client->woken = false;
    op = client->submit_first;
    client->submit_first = NULL;
    client->submit_last = NULL;
    if (client->closing) {
        tqi_client_runtime_stop(rt, NULL);
    }
    tqi_client_borrows *ended = client->borrows_ended;
    client->borrows_ended = NULL;
    pthread_mutex_unlock(&client->lock);

    tqi_client_borrows_give_back(rt, ended);
    while (op != NULL) {
        tq_op *next = op->next;
        op->next = NULL;
        tqi_client_task_begin(rt, op->task);
        op = next;
    }
    for (;;) {
        pthread_mutex_lock(&client->lock);
        op = rt_next_cancel(client);
        pthread_mutex_unlock(&client->lock);
        if (op == NULL) {
            return;
        }
        if (op->task != NULL) {
            tqi_client_task_cancel(op->task);
        }
    }
}

static void rt_on_async(uv_async_t *async)
{
    rt_drain(async->data);
}

/* --- waiting for the opening ---------------------------------------------- */

static void rt_on_wait(uv_timer_t *timer)
{
    tqi_client_runtime *rt = timer->data;
    uint64_t next = TQI_NEVER;
    uint64_t now = tqi_now();
    tqi_client_task *task = rt->tasks;
    tq_error err = {0};

    tqi_error_set(&err, TQ_ETIMEDOUT, "the deadline passed before the controller at %s was reached",
                  rt->client->options.address);
    while (task != NULL) {
        tqi_client_task *after = task->next;
        if (!task->begun && task->deadline <= now) {
            tqi_client_task_finish(task, &err);
        } else if (!task->begun && task->deadline < next) {
            next = task->deadline;
        }
        task = after;
    }
    if (next != TQI_NEVER) {
        uv_timer_start(timer, rt_on_wait, tqi_client_remaining_ms(next), 0);
    }
}

void tqi_client_runtime_expect(tqi_client_runtime *rt, uint64_t deadline)
{
    uint64_t ms = tqi_client_remaining_ms(deadline);

    if (deadline != TQI_NEVER &&
        (!uv_is_active((uv_handle_t *)&rt->wait_timer) || uv_timer_get_due_in(&rt->wait_timer) > ms)) {
        uv_timer_start(&rt->wait_timer, rt_on_wait, ms, 0);
    }
}

void tqi_client_runtime_ready(tqi_client_runtime *rt)
{
    tq_client *client = rt->client;
    tqi_client_task *waiting = rt->tasks;
    tqi_client_task *order = NULL;

    pthread_mutex_lock(&client->lock);
    rt->state = TQI_CLIENT_RUNTIME_OPEN;
    pthread_cond_broadcast(&client->changed);
    pthread_mutex_unlock(&client->lock);
    uv_timer_stop(&rt->wait_timer);

    /* They were linked newest first; begin with the oldest. */
    rt->tasks = NULL;
    while (waiting != NULL) {
        tqi_client_task *next = waiting->next;
        waiting->prev = NULL;
        waiting->next = order;
        order = waiting;
        waiting = next;
    }
    while (order != NULL) {
        tqi_client_task *next = order->next;
        order->next = rt->tasks;
        order->prev = NULL;
        if (rt->tasks != NULL) {
            rt->tasks->prev = order;
        }
        rt->tasks = order;
        tqi_client_task_begin(rt, order);
        order = next;
    }
}

/* --- stop ----------------------------------------------------------------- */

void tqi_client_runtime_stop(tqi_client_runtime *rt, const tq_error *err)
{
    if (rt->stop_due) {
        return;
    }
    rt->stop_due = true;
    if (err != NULL) {
        rt->error = *err;
    } else {
        tqi_error_set(&rt->error, TQ_ECLOSED, "the client is closed: open another one");
    }
}

static void rt_connector_closed(void *arg)
{
    tqi_client_runtime *rt = arg;

    rt->connector_closed = true;
}

static void rt_manager_closed(void *arg)
{
    tqi_client_runtime *rt = arg;

    rt->manager_open = false;
    rt->manager_closing = false;
}

static void rt_stop_now(tqi_client_runtime *rt)
{
    tq_client *client = rt->client;
    tqi_client_task *task;

    rt->stopping = true;
    pthread_mutex_lock(&client->lock);
    rt->state = TQI_CLIENT_RUNTIME_FAILED; /* nothing is queued from now on */
    pthread_mutex_unlock(&client->lock);
    rt_drain(rt);
    task = rt->tasks;
    while (task != NULL) {
        tqi_client_task *next = task->next;
        if (!task->begun) {
            tqi_client_task_finish(task, NULL);
        } else if (task->call == NULL) {
            tqi_client_task_cancel(task); /* a put may wait for room without a request */
        }
        task = next;
    }
    uv_timer_stop(&rt->open_timer);
    uv_timer_stop(&rt->wait_timer);
    uv_timer_stop(&rt->notice_timer);
    uv_timer_stop(&rt->keep_timer);
    tqi_client_borrows_stop(rt);
    tqi_client_collector_stop(rt);
    if (rt->internal.stop != NULL) {
        rt->internal.stop(rt->manager_state);
    }
    if (rt->connector != NULL) {
        if (rt->works == 0) {
            tqi_net_connector_finished(rt->connector);
        }
        tqi_net_connector_close(rt->connector, rt_connector_closed, rt);
        rt->connector = NULL;
        rt->controller = NULL; /* went with it */
    } else {
        rt->connector_closed = true;
    }
}

static void rt_fini_handles(tqi_client_runtime *rt)
{
    uv_close((uv_handle_t *)&rt->async, NULL);
    uv_close((uv_handle_t *)&rt->prepare, NULL);
    uv_close((uv_handle_t *)&rt->check, NULL);
    uv_close((uv_handle_t *)&rt->open_timer, NULL);
    uv_close((uv_handle_t *)&rt->wait_timer, NULL);
    uv_close((uv_handle_t *)&rt->notice_timer, NULL);
    uv_close((uv_handle_t *)&rt->keep_timer, NULL);
}

static void rt_close_handles(tqi_client_runtime *rt)
{
    tq_client *client = rt->client;

    rt->handles_closing = true;
    pthread_mutex_lock(&client->lock);
    rt->deaf = true;
    rt->quiet = true;
    client->woken = false;
    pthread_cond_broadcast(&client->changed);
    pthread_mutex_unlock(&client->lock);
    rt_fini_handles(rt);
}

/* Between two events. */
static void rt_between(tqi_client_runtime *rt)
{
    if (rt->handles_closing) {
        return;
    }
    if (rt->stop_due && !rt->stopping) {
        rt_stop_now(rt);
    }
    tqi_client_op_flush(rt);
    if (!rt->stopping || rt->tasks != NULL || rt->works > 0 || rt->host_calls > 0 || rt->manager_opening ||
        rt->manager_closing || rt->collector != NULL || rt->ended_first != NULL) {
        return;
    }
    if (rt->manager_open) {
        rt->manager_closing = true;
        rt->manager->close(rt->manager_state, rt_manager_closed, rt);
    }
    if (!rt->manager_open && rt->connector_closed) {
        rt_close_handles(rt);
    }
}

static void rt_on_prepare(uv_prepare_t *prepare)
{
    rt_between(prepare->data);
}

static void rt_on_check(uv_check_t *check)
{
    rt_between(check->data);
}

/* --- thread --------------------------------------------------------------- */

static void *rt_main(void *arg)
{
    tqi_client_runtime *rt = arg;
    tq_client *client = rt->client;
    bool self_free;

    tqi_client_runtime_open(rt);
    uv_run(&rt->loop, UV_RUN_DEFAULT);

    pthread_mutex_lock(&client->lock);
    rt->state = TQI_CLIENT_RUNTIME_DEAD;
    self_free = rt->self_free;
    pthread_cond_broadcast(&client->changed);
    if (self_free) {
        client->runtime = NULL;
    }
    pthread_mutex_unlock(&client->lock);
    if (self_free) {
        pthread_detach(pthread_self());
        rt->thread = 0;
        tqi_client_runtime_free(rt);
        tqi_client_fork_unregister(client);
        tqi_client_unref(client);
    }
    return NULL;
}

static int rt_init_handles(tqi_client_runtime *rt)
{
    int rc = uv_async_init(&rt->loop, &rt->async, rt_on_async);

    if (rc != 0) {
        return rc;
    }
    uv_prepare_init(&rt->loop, &rt->prepare);
    uv_check_init(&rt->loop, &rt->check);
    uv_timer_init(&rt->loop, &rt->open_timer);
    uv_timer_init(&rt->loop, &rt->wait_timer);
    uv_timer_init(&rt->loop, &rt->notice_timer);
    uv_timer_init(&rt->loop, &rt->keep_timer);
    rt->async.data = rt;
    rt->prepare.data = rt;
    rt->check.data = rt;
    rt->open_timer.data = rt;
    rt->wait_timer.data = rt;
    rt->notice_timer.data = rt;
    rt->keep_timer.data = rt;
    uv_prepare_start(&rt->prepare, rt_on_prepare);
    uv_check_start(&rt->check, rt_on_check);
    return 0;
}

int tqi_client_runtime_start(tq_client *client, tq_error *err)
{
    tqi_client_runtime *rt = calloc(1, sizeof(*rt));
    sigset_t all;
    sigset_t before;
    int rc;

    if (rt == NULL) {
        return tqi_error_nomem(err, "the client's thread");
    }
    rt->client = client;
    rt->open_deadline = tqi_deadline(client->options.timeout);
    tqi_stdio_guard();
    rc = uv_loop_init(&rt->loop);
    if (rc != 0) {
        free(rt);
        return tqi_error_set(err, TQ_EIO, "event loop: %s", uv_strerror(rc));
    }
    rc = rt_init_handles(rt);
    if (rc != 0) {
        tqi_error_set(err, TQ_EIO, "event loop: %s", uv_strerror(rc));
        goto fail;
    }
    client->woken = false;
    client->runtime = rt;
    /* Signals belong to the program: its handlers run on its own threads. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(&rt->thread, NULL, rt_main, rt);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc != 0) {
        client->runtime = NULL;
        tqi_error_errno(err, rc, "starting the client's thread");
        rt_fini_handles(rt);
        uv_run(&rt->loop, UV_RUN_DEFAULT);
        goto fail;
    }
    return TQ_OK;

fail:
    uv_loop_close(&rt->loop);
    free(rt);
    return err != NULL ? err->code : TQ_EIO;
}

void tqi_client_runtime_free(tqi_client_runtime *rt)
{
    if (rt->thread) {
        pthread_join(rt->thread, NULL);
    }
    uv_loop_close(&rt->loop);
    free(rt->manager_state);
    free(rt->manager_config);
    free(rt);
}
