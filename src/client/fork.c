/*
 * fork.c - clients in a forking process.
 *
 * - prepare: every loop thread is asked to pause where no network code is on its stack (paused in its queue, or in a
 *   user's callback), and all locks of the client are taken: list of clients, each client, buffer pool, queues.
 * - parent: everything resumes.
 * - child: the loop threads do not exist. Each runtime is abandoned: the descriptors of its connections are closed
 *   (the servers do not notice, as the parent still holds them), its manager drops what it must not share, and its
 *   memory stays as it was. The first call makes a new runtime with its own session.
 *
 * A loop thread that does not pause within FORK_WAIT_S (its manager or a callback is blocked on something that the
 * forking thread holds) is not waited for any longer. Its runtime may then be in the middle of a change, so the child
 * leaves it alone and keeps the descriptors.
 */
#include "client/data/data.h"
#include "client/queue.h"
#include "client/runtime.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"

#define FORK_WAIT_S 0.5

/* A child closes the descriptor that wakes a loop, which libuv keeps in a private field of uv_loop_t without an
 * accessor. Users embed the loop in their own structures, so its layout cannot change within a major version. */
_Static_assert(UV_VERSION_MAJOR == 1, "look where this libuv keeps the descriptor of uv_async_send");

static pthread_mutex_t fork_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;
static tq_client *fork_clients;
static int fork_rc;

static void fork_quiesce(tq_client *client)
{
    tqi_client_runtime *rt = client->runtime;
    uint64_t until;

    if (rt == NULL || rt->state == TQI_CLIENT_RUNTIME_DEAD) {
        return;
    }
    client->pause = true;
    if (pthread_equal(rt->thread, pthread_self())) {
        return; /* forking in a callback: quiet already */
    }
    tqi_client_wake(client);
    until = tqi_deadline(FORK_WAIT_S);
    /* The lock is released while waiting: another thread may have freed it. */
    while (client->runtime == rt && !rt->quiet) {
        if (tqi_cond_wait_until(&client->changed, &client->lock, until) == ETIMEDOUT) {
            break;
        }
    }
}

static void fork_prepare(void)
{
    pthread_mutex_lock(&fork_lock);
    for (tq_client *client = fork_clients; client != NULL; client = client->next) {
        pthread_mutex_lock(&client->lock);
        fork_quiesce(client);
    }
    for (tq_client *client = fork_clients; client != NULL; client = client->next) {
        tqi_client_borrows_own(client); /* a child cannot keep a unit from reusing their memory */
    }
    tqi_client_pool_lock();
    tqi_client_queues_lock();
}

static void fork_parent(void)
{
    tqi_client_queues_unlock();
    tqi_client_pool_unlock();
    for (tq_client *client = fork_clients; client != NULL; client = client->next) {
        client->pause = false;
        pthread_cond_broadcast(&client->changed);
        pthread_mutex_unlock(&client->lock);
    }
    pthread_mutex_unlock(&fork_lock);
}

static void fork_abandon(tqi_client_runtime *rt)
{
    if (!rt->quiet || rt->handles_closing) {
        return;
    }
    if (rt->manager_open && rt->manager->forked != NULL) {
        rt->manager->forked(rt->manager_state);
    }
    if (rt->connector != NULL) {
        tqi_net_connector_forked(rt->connector);
    }
    close(uv_backend_fd(&rt->loop));
    close(rt->loop.async_io_watcher.fd);
}

static void fork_child(void)
{
    tqi_client_queues_forked();
    tqi_client_pool_forked();
    for (tq_client *client = fork_clients; client != NULL; client = client->next) {
        pthread_mutex_init(&client->lock, NULL);
        tqi_cond_init(&client->changed);
        atomic_fetch_add(&client->generation, 1);
        if (client->runtime != NULL) {
            fork_abandon(client->runtime);
            client->runtime = NULL;
        }
        tqi_client_borrows_forked(client);
        client->woken = false;
        client->pause = false;
        client->submit_first = NULL;
        client->submit_last = NULL;
        while (client->cancel_first != NULL) {
            tq_op *op = client->cancel_first;
            client->cancel_first = op->cancel_next;
            op->cancel_prev = NULL;
            op->cancel_next = NULL;
            op->cancel_queued = false;
        }
    }
    pthread_mutex_init(&fork_lock, NULL);
}

/* --- libuv's pool of threads ---------------------------------------------- */

static pthread_once_t fork_threads_once = PTHREAD_ONCE_INIT;
static pid_t fork_threads_pid;

static void fork_no_work(uv_work_t *work)
{
    (void)work;
}

/* libuv's destructor joins the threads of its pool. In a child they do not exist, and joining them crashes. The first
 * work item after a fork starts new threads, so a child that exits submits an empty one. */
static void fork_at_exit(void)
{
    uv_loop_t loop;
    uv_work_t work;

    if (getpid() == fork_threads_pid || uv_loop_init(&loop) != 0) {
        return;
    }
    if (uv_queue_work(&loop, &work, fork_no_work, NULL) == 0) {
        uv_run(&loop, UV_RUN_DEFAULT);
    }
    uv_loop_close(&loop);
}

static void fork_threads_install(void)
{
    fork_threads_pid = getpid();
    if (atexit(fork_at_exit) != 0) {
        tqi_log(TQI_WARN, "client", "no memory to prepare for the exit of forked children");
    }
}

void tqi_client_fork_uses_threads(void)
{
    pthread_once(&fork_threads_once, fork_threads_install);
}

/* --- clients -------------------------------------------------------------- */

static void fork_install(void)
{
    fork_rc = pthread_atfork(fork_prepare, fork_parent, fork_child);
}

int tqi_client_fork_register(tq_client *client, tq_error *err)
{
    pthread_once(&fork_once, fork_install);
    if (fork_rc != 0) {
        return tqi_error_errno(err, fork_rc, "pthread_atfork");
    }
    pthread_mutex_lock(&fork_lock);
    client->next = fork_clients;
    if (fork_clients != NULL) {
        fork_clients->prev = client;
    }
    fork_clients = client;
    pthread_mutex_unlock(&fork_lock);
    return TQ_OK;
}

void tqi_client_fork_unregister(tq_client *client)
{
    pthread_mutex_lock(&fork_lock);
    if (client->prev != NULL) {
        client->prev->next = client->next;
    } else {
        fork_clients = client->next;
    }
    if (client->next != NULL) {
        client->next->prev = client->prev;
    }
    pthread_mutex_unlock(&fork_lock);
}
