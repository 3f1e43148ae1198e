/*
 * waiters.c - see waiters.h. Every end is waiter_end.
 */
#include "net/waiters.h"

#include <stdlib.h>

#include <utlist.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/pointer.h"

/* --- deadlines ------------------------------------------------------------ */

static void timed_due(uv_timer_t *timer);

/* Sets the timer to the nearest deadline. */
static void timed_arm(tqi_net_waiters *waiters)
{
    if (waiters->closing || waiters->timed.top == NULL) {
        uv_timer_stop(&waiters->timer);
        return;
    }
    uint64_t now = tqi_now();
    uint64_t nearest = waiters->timed.top->key;
    uint64_t left = nearest > now ? nearest - now : 0;
    uv_update_time(waiters->timer.loop);
    uv_timer_start(&waiters->timer, timed_due, left / 1000000u + (left % 1000000u != 0), 0);
}

static void timed_due(uv_timer_t *timer)
{
    tqi_net_waiters *waiters = TQI_CONTAINER(timer, tqi_net_waiters, timer);
    uint64_t now = tqi_now();

    while (waiters->timed.top != NULL && waiters->timed.top->key <= now) {
        tqi_net_timed *timed = TQI_HEAP_ENTRY(waiters->timed.top, tqi_net_timed, node);
        tqi_heap_remove(&waiters->timed, &timed->node);
        timed->due(timed);
    }
    timed_arm(waiters);
    waiters->wake(waiters);
}

void tqi_net_timed_add(tqi_net_waiters *waiters, tqi_net_timed *timed, uint64_t deadline)
{
    timed->waiters = waiters;
    tqi_heap_add(&waiters->timed, &timed->node, deadline);
    if (waiters->timed.top == &timed->node) {
        timed_arm(waiters);
    }
}

void tqi_net_timed_remove(tqi_net_timed *timed)
{
    if (tqi_heap_has(&timed->node)) {
        bool nearest = timed->waiters->timed.top == &timed->node;
        tqi_heap_remove(&timed->waiters->timed, &timed->node);
        if (nearest) {
            timed_arm(timed->waiters);
        }
    }
}

uint64_t tqi_net_after_ms(uint64_t ms)
{
    uint64_t now = tqi_now();
    uint64_t ns = 0;

    if (__builtin_mul_overflow(ms, 1000000u, &ns) || ns > TQI_NEVER - 1 - now) {
        return TQI_NEVER - 1;
    }
    return now + ns;
}

/* --- waiters -------------------------------------------------------------- */

/* Ends a waiter with its answer, or with an error. */
static void waiter_end(tqi_net_waiter *waiter, const tq_error *err)
{
    const tqi_net_waiter_type *type = waiter->type;

    tqi_net_timed_remove(&waiter->timed);
    if (waiter->ready) {
        DL_DELETE(waiter->waiters->ready, waiter);
        waiter->ready = false;
    }
    type->leave(waiter);
    tqi_net_request_on_cancel(waiter->request, NULL, NULL);
    if (err != NULL) {
        if (type->failed != NULL) {
            type->failed(waiter, err);
        }
        tqi_net_request_fail(waiter->request, err);
    } else {
        type->answer(waiter);
    }
    free(waiter->failure);
    if (type->dispose != NULL) {
        type->dispose(waiter);
    } else {
        free(waiter);
    }
}

static void waiter_due(tqi_net_timed *timed)
{
    tqi_net_waiter *waiter = TQI_CONTAINER(timed, tqi_net_waiter, timed);
    tq_error err = {0};

    waiter->type->describe(waiter, &err);
    waiter_end(waiter, &err);
}

static void waiter_cancelled(tqi_net_request *request, void *arg)
{
    tqi_net_waiter *waiter = arg;
    tqi_net_waiters *waiters = waiter->waiters;
    tq_error err = {0};

    (void)request;

    if (waiter->ready) {
        waiter_end(waiter, waiter->failure);
        return;
    }
    if (waiter->type->cancelled != NULL) {
        waiter->type->cancelled(waiter, &err);
    } else {
        tqi_error_set(&err, TQ_ECANCELED, "the waiting request was cancelled");
    }
    waiter_end(waiter, &err);
    if (waiters->queue) {
        waiters->wake(waiters);
    }
}

void tqi_net_waiter_add(tqi_net_waiters *waiters, tqi_net_waiter *waiter, const tqi_net_waiter_type *type,
                        tqi_net_request *request, uint64_t timeout_ms)
{
    waiter->type = type;
    waiter->waiters = waiters;
    waiter->request = request;
    waiter->timed.due = waiter_due;
    if (timeout_ms > 0) {
        tqi_net_timed_add(waiters, &waiter->timed, tqi_net_after_ms(timeout_ms));
    }
    tqi_net_request_on_cancel(request, waiter_cancelled, waiter);
}

void tqi_net_waiter_ready(tqi_net_waiter *waiter)
{
    if (!waiter->ready) {
        waiter->ready = true;
        tqi_net_timed_remove(&waiter->timed);
        DL_APPEND(waiter->waiters->ready, waiter);
    }
}

void tqi_net_waiters_answer(tqi_net_waiters *waiters)
{
    /* An answer may end a session and with it other waiters, even ready ones: always take the first. */
    while (waiters->ready != NULL) {
        waiter_end(waiters->ready, waiters->ready->failure);
    }
}

void tqi_net_waiter_answer(tqi_net_waiter *waiter)
{
    waiter_end(waiter, NULL);
}

void tqi_net_waiter_fail(tqi_net_waiter *waiter, const tq_error *err)
{
    waiter_end(waiter, err);
}
