/*
 * wait.c - waiting is state: deadlines under one timer, parked requests, and waking them after a change.
 *
 * A wait is parked, and then either marked ready and answered by tqi_ctl_wake, or ended by its deadline, by its
 * client's cancel or with its session. A cancel that finds it ready is too late: the answer is sent.
 */
#include <stdlib.h>

#include "controller/internal.h"

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
    tqi_ctl_wake(ctl);
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
    tqi_ctl_wait *wait = (tqi_ctl_wait *)((char *)timed - offsetof(tqi_ctl_wait, timed));
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

void tqi_ctl_wait_park(tqi_controller *ctl, tqi_ctl_wait *wait, const tqi_ctl_wait_type *type, tqi_net_request *request,
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

void tqi_ctl_wait_fail(tqi_ctl_wait *wait, const tq_error *err)
{
    wait_end(wait, err);
}

void tqi_ctl_wake(tqi_controller *ctl)
{
    if (ctl->held || ctl->closing) {
        return;
    }
    ctl->held++;
    for (;;) {
        tqi_table_view *view = NULL;
        tqi_table_owner *owner = NULL;
        while ((view = tqi_table_next_touched(ctl->table)) != NULL) {
            tqi_ctl_claims_gather(view);
        }
        while ((owner = tqi_table_next_dead(ctl->table)) != NULL) {
            if (tqi_table_owner_user(owner)) {
                tqi_ctl_metrics_gather(tqi_table_owner_user(owner));
            }
        }
        tqi_ctl_owners_gather(ctl);
        tqi_ctl_events_gather(ctl);
        if (!ctl->ready) {
            break;
        }
        /* An answer may end a session and with it other waits, even ready ones: always take the first. */
        while (ctl->ready) {
            wait_end(ctl->ready, ctl->ready->failure);
        }
    }
    ctl->held--;
}
