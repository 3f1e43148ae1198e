/*
 * queue.c - tq_queue: completed ops for a program with an event loop of its own.
 *
 * Rules
 *   - The loop thread links an op and makes it DONE under the queue's lock, so that the thread that takes it may use or
 *     free it at once.
 *   - The eventfd is readable as long as the list is not empty. It is written when the first op comes and read when the
 *     last one is taken, both under the lock: a burst of completions costs one wake-up.
 *   - A queue lives as long as the program or an op refers to it. After tq_queue_free, ops complete without it.
 *   - A child of fork shares no descriptor with its parent: one of them would take the other's wake-ups. It gets a new
 *     one, and keeps the ops that were in the list.
 */
#include "client/queue.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/error.h"
#include "client/op.h"
#include "client/runtime.h"

struct tq_queue {
    _Atomic uint32_t refs; /* the program's, and one per op */
    pthread_mutex_t lock;
    int fd;    /* -1: freed by the program, or a child that could not make one */
    pid_t pid; /* whose descriptor it is */
    bool freed;
    tq_op *first, *last;
    tq_queue *prev, *next; /* of all queues; under queues_lock */
};

static pthread_mutex_t queues_lock = PTHREAD_MUTEX_INITIALIZER;
static tq_queue *queues;

int tq_queue_alloc(tq_queue **out, tq_error *err)
{
    if (out == NULL) {
        return tqi_error_null(err, "tq_queue_alloc: out");
    }
    *out = NULL;
    tq_queue *queue = calloc(1, sizeof(*queue));
    if (queue == NULL) {
        return tqi_error_nomem(err, "a queue");
    }
    queue->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (queue->fd < 0) {
        int rc = tqi_error_errno(err, errno, "eventfd");
        free(queue);
        return rc;
    }
    queue->pid = getpid();
    atomic_init(&queue->refs, 1);
    pthread_mutex_init(&queue->lock, NULL);
    pthread_mutex_lock(&queues_lock);
    queue->next = queues;
    if (queues != NULL) {
        queues->prev = queue;
    }
    queues = queue;
    pthread_mutex_unlock(&queues_lock);
    *out = queue;
    return TQ_OK;
}

static void queue_unref(tq_queue *queue)
{
    if (atomic_fetch_sub_explicit(&queue->refs, 1, memory_order_acq_rel) != 1) {
        return;
    }
    pthread_mutex_lock(&queues_lock);
    if (queue->prev != NULL) {
        queue->prev->next = queue->next;
    } else {
        queues = queue->next;
    }
    if (queue->next != NULL) {
        queue->next->prev = queue->prev;
    }
    pthread_mutex_unlock(&queues_lock);
    pthread_mutex_destroy(&queue->lock);
    free(queue);
}

/* A child of fork gets a descriptor of its own. */
static void queue_own(tq_queue *queue)
{
    if (queue->pid != getpid() && queue->fd >= 0) {
        close(queue->fd);
        queue->fd = eventfd(queue->first != NULL, EFD_CLOEXEC | EFD_NONBLOCK);
    }
    queue->pid = getpid();
}

/* With the lock held. */
static void queue_unlink(tq_queue *queue, tq_op *op)
{
    eventfd_t count;

    if (op->queue_prev != NULL) {
        op->queue_prev->queue_next = op->queue_next;
    } else {
        queue->first = op->queue_next;
    }
    if (op->queue_next != NULL) {
        op->queue_next->queue_prev = op->queue_prev;
    } else {
        queue->last = op->queue_prev;
    }
    op->queue_prev = op->queue_next = NULL;
    op->queued = false;
    if (queue->first == NULL && queue->fd >= 0) {
        (void)eventfd_read(queue->fd, &count);
    }
}

void tq_queue_free(tq_queue *queue)
{
    if (queue == NULL) {
        return;
    }
    pthread_mutex_lock(&queue->lock);
    while (queue->first != NULL) {
        queue_unlink(queue, queue->first);
    }
    if (queue->fd >= 0) {
        close(queue->fd);
    }
    queue->fd = -1;
    queue->freed = true;
    pthread_mutex_unlock(&queue->lock);
    queue_unref(queue);
}

int tq_queue_fd(tq_queue *queue)
{
    if (queue == NULL) {
        return -1;
    }
    pthread_mutex_lock(&queue->lock);
    queue_own(queue); /* in a child that was forked before the process had a client */
    int fd = queue->fd;
    pthread_mutex_unlock(&queue->lock);
    return fd;
}

size_t tq_queue_take(tq_queue *queue, tq_op **ops, size_t n)
{
    size_t taken = 0;

    if (queue == NULL || ops == NULL) {
        return 0;
    }
    pthread_mutex_lock(&queue->lock);
    while (taken < n && queue->first != NULL) {
        ops[taken] = queue->first;
        queue_unlink(queue, queue->first);
        taken++;
    }
    pthread_mutex_unlock(&queue->lock);
    return taken;
}

/* --- ops ------------------------------------------------------------------ */

void tq_op_set_queue(tq_op *op, tq_queue *queue)
{
    if (op == NULL) {
        return;
    }
    tqi_client_queue_leave(op);
    if (queue != NULL) {
        atomic_fetch_add_explicit(&queue->refs, 1, memory_order_relaxed);
        pthread_mutex_lock(&queue->lock);
        queue_own(queue);
        pthread_mutex_unlock(&queue->lock);
    }
    if (op->queue != NULL) {
        queue_unref(op->queue);
    }
    op->queue = queue;
}

void tqi_client_queue_leave(tq_op *op)
{
    if (op->queue != NULL) {
        pthread_mutex_lock(&op->queue->lock);
        if (op->queued) {
            queue_unlink(op->queue, op);
        }
        pthread_mutex_unlock(&op->queue->lock);
    }
}

void tqi_client_queue_push(tq_op *op)
{
    tq_queue *queue = op->queue;

    pthread_mutex_lock(&queue->lock);
    if (!queue->freed) {
        op->queued = true;
        op->queue_prev = queue->last;
        if (queue->last != NULL) {
            queue->last->queue_next = op;
        } else {
            queue->first = op;
            (void)eventfd_write(queue->fd, 1); /* cannot block: the counter was 0 */
        }
        queue->last = op;
    }
    tqi_client_op_release(op);
    pthread_mutex_unlock(&queue->lock);
}

/* --- fork ----------------------------------------------------------------- */

void tqi_client_queues_lock(void)
{
    pthread_mutex_lock(&queues_lock);
    for (tq_queue *queue = queues; queue != NULL; queue = queue->next) {
        pthread_mutex_lock(&queue->lock);
    }
}

void tqi_client_queues_unlock(void)
{
    for (tq_queue *queue = queues; queue != NULL; queue = queue->next) {
        pthread_mutex_unlock(&queue->lock);
    }
    pthread_mutex_unlock(&queues_lock);
}

void tqi_client_queues_forked(void)
{
    for (tq_queue *queue = queues; queue != NULL; queue = queue->next) {
        pthread_mutex_init(&queue->lock, NULL);
        queue_own(queue);
    }
    pthread_mutex_init(&queues_lock, NULL);
}
