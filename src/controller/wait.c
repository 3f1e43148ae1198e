/*
 * wait.c - waiting is state: deadlines under one timer, and waiting requests. wake.c finds those that a change
 * satisfies.
 *
 * States of a wait:
 *
 *   waiting -> ready -> answered      a change satisfied it, and tqi_ctl_wake sends the answer
 *   waiting -> failed                 its deadline passed, its client cancelled it, or its session ended
 *
 * A cancel that finds it ready is too late: the answer is sent. Every end is wait_end, which leaves the lists of the
 * kind, then answers or fails the request, then frees the wait.
 */
#include "controller/wait.h"

#include <stdlib.h>

#include <utlist.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/heap.h"
#include "base/pointer.h"
#include "controller/controller_state.h"
#include "controller/meter.h"

/* --- deadlines ------------------------------------------------------------ */

static void timed_due(uv_timer_t *timer);

/* Sets the timer to the nearest deadline. */
static void timed_arm(tqi_controller *ctl)
{
    if (ctl->closing || !ctl->timed.top) {
        uv_timer_stop(&ctl->timer);
        return;
    }
    uint64_t now = tqi_now();
    uint64_t nearest = ctl->timed.top->key;
    uint64_t left = nearest > now ? nearest - now : 0;
    uv_update_time(ctl->loop);
    uv_timer_start(&ctl->timer, timed_due, left / 1000000u + (left % 1000000u != 0), 0);
}

static void timed_due(uv_timer_t *timer)
{
    tqi_controller *ctl = timer->data;
    uint64_t now = tqi_now();
    while (ctl->timed.top && ctl->timed.top->key <= now) {
        tqi_ctl_timed *timed = TQI_HEAP_ENTRY(ctl->timed.top, tqi_ctl_timed, node);
        tqi_heap_remove(&ctl->timed, &timed->node);
        timed->due(timed);
    }
    timed_arm(ctl);
    ctl->wake(ctl);
}

void tqi_ctl_timed_add(tqi_controller *ctl, tqi_ctl_timed *timed, uint64_t deadline)
{
    timed->ctl = ctl;
    tqi_heap_add(&ctl->timed, &timed->node, deadline);
    if (ctl->timed.top == &timed->node) {
        timed_arm(ctl);
    }
}

void tqi_ctl_timed_remove(tqi_ctl_timed *timed)
{
    if (tqi_heap_has(&timed->node)) {
        bool nearest = timed->ctl->timed.top == &timed->node;
        tqi_heap_remove(&timed->ctl->timed, &timed->node);
        if (nearest) {
            timed_arm(timed->ctl);
        }
    }
}

uint64_t tqi_ctl_after_ms(uint64_t ms)
{
    uint64_t now = tqi_now();
    uint64_t ns = 0;
    if (__builtin_mul_overflow(ms, 1000000u, &ns) || ns > TQI_NEVER - 1 - now) {
        return TQI_NEVER - 1;
    }
    return now + ns;
}

/* --- waits ---------------------------------------------------------------- */

/* Ends a wait with its answer, or with an error. */
static void wait_end(tqi_ctl_wait *wait, const tq_error *err)
{
    const tqi_ctl_wait_type *type = wait->type;
    tqi_ctl_timed_remove(&wait->timed);
    if (wait->ready) {
        DL_DELETE(wait->ctl->ready, wait);
        wait->ready = false;
    }
    type->leave(wait);
    tqi_net_request_on_cancel(wait->request, NULL, NULL);
    if (err) {
        tqi_ctl_meter_failed(wait->op, err->code);
        tqi_net_request_fail(wait->request, err);
    } else {
        type->answer(wait);
    }
    free(wait->failure);
    if (type->dispose) {
        type->dispose(wait);
    } else {
        free(wait);
    }
}

static void wait_due(tqi_ctl_timed *timed)
{
    tqi_ctl_wait *wait = TQI_CONTAINER(timed, tqi_ctl_wait, timed);
    tq_error err = {0};
    wait->type->describe(wait, &err);
    wait_end(wait, &err);
}

static void wait_cancelled(tqi_net_request *request, void *arg)
{
    tqi_ctl_wait *wait = arg;
    (void)request;
    if (wait->ready) {
        wait_end(wait, wait->failure);
        return;
    }
    tq_error err = {0};
    tqi_error_set(&err, TQ_ECANCELED, "the waiting request was cancelled");
    wait_end(wait, &err);
}

void tqi_ctl_wait_add(tqi_controller *ctl, tqi_ctl_wait *wait, const tqi_ctl_wait_type *type, tqi_net_request *request,
                      uint64_t timeout_ms)
{
    wait->type = type;
    wait->ctl = ctl;
    wait->request = request;
    wait->timed.due = wait_due;
    if (timeout_ms) {
        tqi_ctl_timed_add(ctl, &wait->timed, tqi_ctl_after_ms(timeout_ms));
    }
    tqi_net_request_on_cancel(request, wait_cancelled, wait);
}

void tqi_ctl_wait_ready(tqi_ctl_wait *wait)
{
    if (!wait->ready) {
        wait->ready = true;
        tqi_ctl_timed_remove(&wait->timed);
        DL_APPEND(wait->ctl->ready, wait);
    }
}

void tqi_ctl_waits_answer(tqi_controller *ctl)
{
    /* An answer may end a session and with it other waits, even ready ones: always take the first. */
    while (ctl->ready) {
        wait_end(ctl->ready, ctl->ready->failure);
    }
}

void tqi_ctl_wait_fail(tqi_ctl_wait *wait, const tq_error *err)
{
    wait_end(wait, err);
}
