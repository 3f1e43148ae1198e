/*
 * waiters_test.c - deadlines under one timer, and requests that wait (waiters.h), with a real client and server.
 */
#include <stdlib.h>
#include <string.h>

#include <uv.h>

#include <utlist.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/pointer.h"
#include "net/testkit.h"
#include "net/waiters.h"

#define N 4

/* A request that waits, in the one list of its kind. */
typedef struct kept {
    tqi_net_waiter base;
    int number;
    struct kept *prev, *next;
} kept;

static tqi_net_waiters waiters;
static testing_server server;
static tqi_net_connector *connector;
static tqi_net_channel *channel;
static testing_call calls[N];
static kept *list;
static int left, answered, failed, disposed, woken;

static void kept_leave(tqi_net_waiter *base)
{
    kept *it = (kept *)base;

    DL_DELETE(list, it);
    left++;
}

static void kept_answer(tqi_net_waiter *base)
{
    Tq__EventsReply reply = TQ__EVENTS_REPLY__INIT;

    assert_int_equal(left, disposed + 1); /* it has left its list, and is still there */
    answered++;
    tqi_net_request_reply(base->request, &reply.base, NULL, 0, NULL, NULL);
}

static void kept_describe(const tqi_net_waiter *base, tq_error *err)
{
    assert_ptr_not_equal(list, NULL); /* it is still in its list */
    tqi_error_set(err, TQ_ETIMEDOUT, "number %d waited long enough", ((const kept *)base)->number);
}

static void kept_cancelled(const tqi_net_waiter *base, tq_error *err)
{
    tqi_error_set(err, TQ_ECANCELED, "number %d was cancelled", ((const kept *)base)->number);
}

static void kept_failed(const tqi_net_waiter *base, const tq_error *err)
{
    assert_non_null(base->request);
    assert_int_not_equal(err->code, TQ_OK);
    failed++;
}

static void kept_dispose(tqi_net_waiter *base)
{
    disposed++;
    free(base);
}

static const tqi_net_waiter_type kept_type = {
    .leave = kept_leave,
    .answer = kept_answer,
    .describe = kept_describe,
    .cancelled = kept_cancelled,
    .failed = kept_failed,
    .dispose = kept_dispose,
};

static void wake(tqi_net_waiters *of)
{
    assert_ptr_equal(of, &waiters);
    woken++;
}

static int setup(void **state)
{
    testing_setup(state);
    memset(&waiters, 0, sizeof(waiters));
    memset(calls, 0, sizeof(calls));
    left = answered = failed = disposed = woken = 0;
    uv_timer_init(&testing_loop, &waiters.timer);
    waiters.wake = wake;
    testing_server_start(&server, testing_unix_endpoint(), 1, 1000);
    connector = testing_connector(&testing_token, 0);
    channel = testing_channel(connector, server.endpoint);
    return 0;
}

static int teardown(void **state)
{
    tqi_net_channel_unref(channel);
    testing_connector_stop(connector);
    testing_until(&server.ended, 1);
    /* The session took with it what waited. */
    assert_null(list);
    assert_null(waiters.ready);
    assert_null(waiters.timed.top);
    assert_int_equal(left, disposed);
    testing_server_stop(&server);
    uv_close((uv_handle_t *)&waiters.timer, NULL);
    return testing_teardown(state);
}

/* N calls wait, each for its time in ms; 0: for ever. */
static kept *keep(int number, uint64_t timeout_ms)
{
    testing_events(channel, &calls[number], 20);
    testing_until(&server.n_waiting, number + 1);
    kept *made = calloc(1, sizeof(*made));
    assert_non_null(made);
    made->number = number;
    DL_APPEND(list, made);
    tqi_net_waiter_add(&waiters, &made->base, &kept_type, server.waiting[number], timeout_ms);
    return made;
}

static void a_waiter_fails_at_its_deadline(void **state)
{
    (void)state;
    keep(0, 0);
    keep(1, 60000);
    uint64_t begun = tqi_now();
    keep(2, 20);
    testing_until(&calls[2].done, 1);
    assert_true(tqi_now() - begun >= UINT64_C(20000000));
    assert_int_equal(calls[2].status, TQ_ETIMEDOUT);
    assert_non_null(strstr(calls[2].error.message, "number 2 waited long enough"));
    assert_int_equal(woken, 1);
    assert_int_equal(failed, 1);
    assert_int_equal(calls[0].done + calls[1].done, 0);
    /* The timer is set to the next one. */
    assert_true(uv_is_active((uv_handle_t *)&waiters.timer));
    assert_true(uv_timer_get_due_in(&waiters.timer) > 30000);
}

static void those_that_are_ready_are_answered_in_order(void **state)
{
    (void)state;
    kept *first = keep(0, 60000);
    kept *second = keep(1, 0);
    kept *third = keep(2, 60000);
    tqi_net_waiter_ready(&third->base);
    tqi_net_waiter_ready(&first->base);
    tqi_net_waiter_ready(&third->base);
    assert_ptr_equal(waiters.ready, third);
    assert_ptr_equal(waiters.ready->next, first);
    /* A deadline no longer matters to them. */
    assert_null(waiters.timed.top);
    assert_false(uv_is_active((uv_handle_t *)&waiters.timer));
    second->base.failure = calloc(1, sizeof(tq_error));
    assert_non_null(second->base.failure);
    tqi_error_set(second->base.failure, TQ_EINVAL, "it cannot be served");
    tqi_net_waiter_ready(&second->base);
    tqi_net_waiters_answer(&waiters);
    assert_int_equal(answered, 2);
    assert_int_equal(failed, 1);
    testing_until(&calls[1].done, 1);
    testing_until(&calls[2].done, 1);
    assert_int_equal(calls[0].status, TQ_OK);
    assert_int_equal(calls[1].status, TQ_EINVAL);
    assert_int_equal(calls[2].status, TQ_OK);
    assert_int_equal(woken, 0);
}

static void one_is_answered_or_failed_at_once(void **state)
{
    (void)state;
    kept *first = keep(0, 60000);
    kept *second = keep(1, 60000);
    const tq_error err = {.code = TQ_ESTALE, .message = "begun anew"};
    tqi_net_waiter_answer(&first->base);
    tqi_net_waiter_fail(&second->base, &err);
    assert_null(waiters.timed.top);
    assert_int_equal(disposed, 2);
    testing_until(&calls[1].done, 1);
    assert_int_equal(calls[0].status, TQ_OK);
    assert_int_equal(calls[1].status, TQ_ESTALE);
}

static void a_cancel_wakes_those_that_queue_behind(void **state)
{
    (void)state;
    for (int queue = 0; queue < 2; queue++) {
        waiters.queue = queue;
        keep(queue, 60000);
        tqi_net_call_cancel(calls[queue].call);
        testing_until(&calls[queue].done, 1);
        assert_int_equal(calls[queue].status, TQ_ECANCELED);
        assert_int_equal(failed, queue + 1);
        assert_int_equal(woken, queue);
    }
}

/* The client cancels while the answer is due: the answer is sent, or the error that it was ready with. */
static void a_cancel_is_too_late_for_one_that_is_ready(void **state)
{
    (void)state;
    kept *waiting = keep(0, 0);
    tqi_net_waiter_ready(&waiting->base);
    tqi_net_call_cancel(calls[0].call);
    testing_until(&calls[0].done, 1);
    testing_until(&disposed, 1);
    assert_int_equal(answered, 1);
    assert_int_equal(failed, 0);
    assert_null(waiters.ready);
}

static void closing_stops_the_timer(void **state)
{
    (void)state;
    kept *waiting = keep(0, 60000);
    assert_true(uv_is_active((uv_handle_t *)&waiters.timer));
    waiters.closing = true;
    keep(1, 10);
    assert_false(uv_is_active((uv_handle_t *)&waiters.timer));
    tqi_net_waiter_answer(&waiting->base);
    assert_false(uv_is_active((uv_handle_t *)&waiters.timer));
}

/* --- deadlines ------------------------------------------------------------ */

typedef struct timed_item {
    tqi_net_timed timed;
    int number;
} timed_item;

static int due_count;
static uint64_t due_last;

static void item_due(tqi_net_timed *timed)
{
    assert_true(timed->node.key >= due_last);
    assert_true(timed->node.key <= tqi_now());
    assert_false(tqi_heap_has(&timed->node));
    due_last = timed->node.key;
    due_count++;
}

static void deadlines_pass_in_their_order(void **state)
{
    (void)state;
    static timed_item items[200];
    keep(0, 0);
    uint64_t now = tqi_now();
    memset(items, 0, sizeof(items));
    due_count = 0;
    due_last = 0;
    for (int i = 0; i < 200; i++) {
        items[i].timed.due = item_due;
        tqi_net_timed_add(&waiters, &items[i].timed, now + (uint64_t)(i * 73 % 200) * 200000);
    }
    for (int i = 0; i < 200; i += 2) {
        tqi_net_timed_remove(&items[i].timed);
        tqi_net_timed_remove(&items[i].timed);
    }
    testing_until(&due_count, 100);
    assert_int_equal(due_count, 100);
    assert_true(woken >= 1);
    assert_null(waiters.timed.top);
    tqi_net_timed_remove(&items[1].timed);
    assert_true(tqi_net_after_ms(UINT64_MAX) == TQI_NEVER - 1);
    assert_true(tqi_net_after_ms(1) > now);
}

/* Of many with one deadline, one that is due takes out the next one and adds one that is due at once. */
#define EQUALS 300

static timed_item equals[EQUALS], later;

static void equal_due(tqi_net_timed *timed)
{
    timed_item *item = TQI_CONTAINER(timed, timed_item, timed);

    item_due(timed);
    if (item->number + 1 < EQUALS) {
        tqi_net_timed_remove(&equals[item->number + 1].timed);
    }
    if (item->number == 0) {
        later.timed.due = item_due;
        tqi_net_timed_add(&waiters, &later.timed, timed->node.key);
    }
}

static void equal_deadlines_pass_together(void **state)
{
    (void)state;
    keep(0, 0);
    uint64_t deadline = tqi_now() + UINT64_C(20000000);
    memset(equals, 0, sizeof(equals));
    memset(&later, 0, sizeof(later));
    due_count = 0;
    due_last = 0;
    for (int i = 0; i < EQUALS; i++) {
        equals[i].number = i;
        equals[i].timed.due = equal_due;
        tqi_net_timed_add(&waiters, &equals[i].timed, deadline);
    }
    testing_until(&due_count, 1); /* all in one round */
    assert_null(waiters.timed.top);
    assert_false(uv_is_active((uv_handle_t *)&waiters.timer));
    /* Each takes out at most one neighbour, and nothing comes twice. */
    assert_in_range(due_count, EQUALS / 2 + 1, EQUALS + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_waiter_fails_at_its_deadline, setup, teardown),
        cmocka_unit_test_setup_teardown(those_that_are_ready_are_answered_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(one_is_answered_or_failed_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(a_cancel_wakes_those_that_queue_behind, setup, teardown),
        cmocka_unit_test_setup_teardown(a_cancel_is_too_late_for_one_that_is_ready, setup, teardown),
        cmocka_unit_test_setup_teardown(closing_stops_the_timer, setup, teardown),
        cmocka_unit_test_setup_teardown(deadlines_pass_in_their_order, setup, teardown),
        cmocka_unit_test_setup_teardown(equal_deadlines_pass_together, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
