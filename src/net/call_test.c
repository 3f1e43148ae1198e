/*
 * call_test.c - how calls end early: cancelled, past the deadline, or with no server; and what happens to their
 * answers.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "net/calling.h"
#include "net/serving.h"
#include "net/testkit.h"

static testing_server server;
static tqi_net_connector *connector;
static tqi_net_channel *channel;

static int setup(void **state)
{
    testing_setup(state);
    testing_server_start(&server, testing_unix_endpoint(), 100, 5000);
    connector = testing_connector(&testing_token, 0);
    channel = testing_channel(connector, server.endpoint);
    return 0;
}

static int teardown(void **state)
{
    testing_connector_stop(connector);
    testing_server_stop(&server);
    return testing_teardown(state);
}

static void cut(void)
{
    tqi_net_peer_close(server.session->peer);
}

/* Its deadline is now. */
static void expire(tqi_net_call *call)
{
    tqi_net_channel *there = call->channel;

    tqi_heap_remove(&there->deadlines, &call->timed);
    tqi_heap_add(&there->deadlines, &call->timed, 0);
    tqi_net_call_timeouts(there);
}

static void a_call_is_cancelled_before_it_is_sent(void **state)
{
    (void)state;
    testing_call call = {0}, other = {0};
    testing_claim(channel, &call, false, -1);
    tqi_net_call_cancel(call.call);
    tqi_net_call_cancel(call.call);
    assert_int_equal(call.done, 0); /* it ends from the loop */
    testing_reserve(channel, &other, 1, 10);
    testing_until(&other.done, 1);
    assert_int_equal(call.done, 1);
    assert_int_equal(call.status, TQ_ECANCELED);
    assert_int_equal(call.orphans, 0);
    assert_int_equal(call.orphans_freed, 1);
    /* With an open connection, before the loop had a chance to send. */
    testing_call queued = {0};
    testing_claim(channel, &queued, false, 10);
    tqi_net_call_cancel(queued.call);
    testing_until(&queued.done, 1);
    assert_int_equal(queued.status, TQ_ECANCELED);
    assert_int_equal(server.handled, 1);
    testing_until(&server.settled_acked, 1);
}

static void a_waiting_call_is_cancelled_at_the_server(void **state)
{
    (void)state;
    testing_call calls[3] = {0};
    testing_claim(channel, &calls[0], false, -1);
    testing_claim(channel, &calls[1], false, -1);
    testing_events(channel, &calls[2], -1);
    testing_until(&server.n_waiting, 3);
    tqi_net_call_cancel(calls[1].call);
    tqi_net_call_cancel(calls[1].call);
    tqi_net_call_cancel(calls[2].call);
    testing_until(&calls[2].done, 1);
    assert_int_equal(calls[1].status, TQ_ECANCELED);
    assert_int_equal(calls[2].status, TQ_ECANCELED);
    assert_int_equal(server.cancelled, 2);
    assert_int_equal(calls[0].done, 0);
    testing_answer(&server);
    testing_until(&calls[0].done, 1);
    assert_int_equal(calls[0].status, TQ_OK);
}

/* The answer was already in flight: it wins. */
static void an_answer_in_flight_wins_over_a_cancel(void **state)
{
    (void)state;
    testing_call call = {0};
    testing_claim(channel, &call, false, -1);
    testing_until(&server.n_waiting, 1);
    testing_answer(&server);
    tqi_net_call_cancel(call.call);
    testing_until(&call.done, 1);
    assert_int_equal(call.status, TQ_OK);
    assert_int_equal(server.cancelled, 0);
    assert_int_equal(call.orphans, 0);
    testing_until(&server.settled_acked, 1);
}

/* Cancelled without a connection: after reconnecting, the request is found still waiting and is cancelled. */
static void a_cancel_without_a_connection_is_sent_after_it(void **state)
{
    (void)state;
    testing_call call = {0};
    testing_claim(channel, &call, false, -1);
    testing_until(&server.n_waiting, 1);
    cut();
    while (channel->state == TQI_NET_CHANNEL_OPEN) {
        uv_run(&testing_loop, UV_RUN_ONCE);
    }
    tqi_net_call_cancel(call.call);
    testing_until(&call.done, 1);
    assert_int_equal(call.status, TQ_ECANCELED);
    assert_int_equal(server.cancelled, 1);
    assert_int_equal(server.handled, 1);
}

static void waiting_calls_end_at_their_deadlines(void **state)
{
    (void)state;
    testing_call first = {0}, call = {0}, events = {0};
    testing_reserve(channel, &first, 1, 20);
    testing_until(&first.done, 1);
    uint64_t start = tqi_now();
    testing_claim(channel, &call, false, 0.1);
    testing_events(channel, &events, 0.05);
    testing_until(&call.done, 1);
    assert_true(tqi_now() - start >= 100000000u);
    assert_int_equal(call.status, TQ_ETIMEDOUT);
    assert_int_equal(events.status, TQ_ETIMEDOUT);
    assert_non_null(strstr(call.error.message, "CLAIM"));
    assert_non_null(strstr(call.error.message, server.endpoint));
    testing_until(&call.orphans_freed, 1);
    assert_int_equal(call.orphans, 0);
}

/* A request that was sent is cancelled at the server, and its refusal advances the acknowledgement. */
static void a_deadline_cancels_at_the_server(void **state)
{
    (void)state;
    testing_call call = {0}, events = {0}, after = {0};
    testing_claim(channel, &call, false, 20);
    testing_events(channel, &events, 20);
    testing_until(&server.n_waiting, 2);
    expire(call.call);
    expire(events.call);
    assert_int_equal(call.status, TQ_ETIMEDOUT);
    assert_int_equal(events.status, TQ_ETIMEDOUT);
    testing_until(&server.cancelled, 2);
    testing_until(&call.orphans_freed, 1);
    assert_int_equal(call.orphans, 0);
    testing_reserve(channel, &after, 1, 20);
    testing_until(&after.done, 1);
    testing_until(&server.settled_acked, 1);
    assert_null(channel->calls);
    assert_null(channel->keeps);
}

/* The deadline passes while the answer is in flight: it is undone before it is acknowledged. */
static void an_answer_after_the_deadline_is_undone(void **state)
{
    (void)state;
    testing_call call = {0};
    call.release_on = channel;
    testing_claim(channel, &call, false, 20);
    testing_until(&server.n_waiting, 1);
    /* This one cannot be cancelled: it finishes at its own pace. */
    tqi_net_request_on_cancel(server.waiting[0], NULL, NULL);
    expire(call.call);
    assert_int_equal(call.status, TQ_ETIMEDOUT);
    testing_answer(&server);
    testing_until(&server.released, 1);
    assert_int_equal(server.acked_at_release, 0);
    assert_int_equal(call.orphans, 1);
    assert_int_not_equal(call.orphan_claim, 0);
    testing_until(&server.settled_acked, 1);
    assert_int_equal(call.orphans_freed, 1);
}

/* There is no memory to undo an answer: it is not acknowledged, nor passed by later acknowledgements, so the end of the
 * session undoes it. */
static void an_answer_that_cannot_be_undone_is_never_acknowledged(void **state)
{
    (void)state;
    tqi_net_connector *own = testing_connector(&testing_token, 0);
    tqi_net_channel *there = testing_channel(own, server.endpoint);
    testing_call call = {.stuck = true}, next = {0};
    testing_claim(there, &call, false, 20);
    testing_until(&server.n_waiting, 1);
    tqi_net_request_on_cancel(server.waiting[0], NULL, NULL);
    expire(call.call);
    assert_int_equal(call.status, TQ_ETIMEDOUT);
    testing_answer(&server);
    testing_until(&call.orphans, 1);
    testing_reserve(there, &next, 1, 20);
    testing_until(&next.done, 1);
    assert_int_equal(next.status, TQ_OK);
    assert_int_equal(server.settled_acked, 0);
    assert_int_equal(call.orphans_freed, 0);
    testing_connector_stop(own);
    assert_int_equal(call.orphans_freed, 1);
    testing_until(&server.settled_lost, 1);
}

/* The client is closed before the request that undoes an answer was sent: it is sent before the goodbye, which
 * acknowledges the answer. */
static void an_answer_is_undone_although_its_client_is_closed(void **state)
{
    (void)state;
    tqi_net_connector *own = testing_connector(&testing_token, 0);
    testing_call call = {.closes = own};
    tqi_net_channel *there = testing_channel(own, server.endpoint);
    call.release_on = there;
    testing_claim(there, &call, false, 20);
    testing_until(&server.n_waiting, 1);
    tqi_net_request_on_cancel(server.waiting[0], NULL, NULL);
    expire(call.call);
    assert_int_equal(call.status, TQ_ETIMEDOUT);
    testing_answer(&server);
    testing_until(&call.closed, 1);
    testing_until(&server.released, 1);
    assert_int_equal(server.acked_at_release, 0);
}

/* The same, but the connection breaks while the answer is in flight: the kept reply is fetched so that it can be
 * undone. */
static void an_answer_after_the_deadline_is_fetched_and_undone(void **state)
{
    (void)state;
    testing_call call = {0};
    call.release_on = channel;
    testing_claim(channel, &call, false, 20);
    testing_until(&server.n_waiting, 1);
    cut();
    testing_answer(&server);
    while (channel->state == TQI_NET_CHANNEL_OPEN) {
        uv_run(&testing_loop, UV_RUN_ONCE);
    }
    expire(call.call);
    assert_int_equal(call.status, TQ_EUNREACHABLE);
    testing_until(&server.released, 1);
    assert_int_equal(server.acked_at_release, 0);
    testing_until(&server.settled_acked, 1);
    assert_int_equal(call.orphans, 1);
    assert_int_equal(server.opened, 1);
}

/* The connection breaks when the answer has been undone but the undoing request has not arrived, while another call
 * that was given up is not answered: neither what is sent again nor the cancel in between acknowledges the answer. */
static void an_undoing_request_that_is_sent_again_comes_before_the_acknowledgement(void **state)
{
    (void)state;
    testing_call late = {0}, other = {0};
    late.release_on = channel;
    testing_claim(channel, &late, false, 20);
    testing_claim(channel, &other, false, 20);
    testing_until(&server.n_waiting, 2);
    tqi_net_request_on_cancel(server.waiting[0], NULL, NULL);
    tqi_net_request_on_cancel(server.waiting[1], NULL, NULL);
    expire(late.call);
    expire(other.call);
    testing_run_ms(10);
    uv_poll_stop(&server.session->peer->conn->poll);
    testing_answer(&server);
    testing_until(&late.orphans, 1);
    testing_run_ms(10);
    cut();
    testing_until(&server.released, 1);
    assert_int_equal(server.acked_at_release, 0);
    testing_until(&server.settled_acked, 1);
    testing_answer(&server);
    testing_until(&other.orphans_freed, 1);
}

/* A call that was given up is answered while an earlier one is waiting, so the acknowledgement does not advance. */
static void begin_orphan_behind(testing_call *waits, testing_call *late)
{
    testing_call first = {0};

    testing_reserve(channel, &first, 1, 20);
    testing_until(&first.done, 1);
    testing_until(&server.settled_acked, 1);
    late->release_on = channel;
    testing_claim(channel, waits, false, -1);
    testing_claim(channel, late, false, 20);
    testing_until(&server.n_waiting, 2);
    tqi_net_request_on_cancel(server.waiting[1], NULL, NULL);
    expire(late->call);
    testing_run_ms(10);
}

/* The undoing request is stuck behind a full socket when the acknowledgement advances: it must not carry it. */
static void an_undoing_request_behind_a_full_socket_acknowledges_nothing(void **state)
{
    (void)state;
    const size_t size = 16u << 20;
    uint8_t *data = malloc(size);
    testing_call waits = {0}, late = {0}, large = {0};
    assert_non_null(data);
    for (size_t i = 0; i < size; i++) {
        data[i] = testing_byte(i);
    }
    begin_orphan_behind(&waits, &late);
    tqi_net_conn *conn = server.session->peer->conn;
    uv_poll_stop(&conn->poll);
    testing_write(channel, &large, TQI_PUBLISH, data, size, 20);
    testing_run_ms(10);
    testing_answer_at(&server, 1);
    testing_until(&late.orphans, 1);
    testing_run_ms(5);
    testing_answer(&server);
    testing_until(&waits.done, 1);
    testing_run_ms(5);
    conn->armed = 0;
    tqi_net_conn_arm(conn);
    testing_until(&server.released, 1);
    assert_int_equal(server.acked_at_release, 1);
    testing_until(&large.done, 1);
    testing_until(&server.settled_acked, 4);
    free(data);
}

/* The frame that names the waiting calls comes in the same round. */
static void an_undoing_request_behind_many_acknowledges_nothing(void **state)
{
    (void)state;
    testing_call waits = {0}, late = {0};
    begin_orphan_behind(&waits, &late);
    channel->arrived = 5000;
    channel->next_request += 5000;
    testing_answer_at(&server, 1);
    testing_until(&server.released, 1);
    assert_int_equal(server.acked_at_release, 1);
    testing_until(&server.settled_acked, 2);
    assert_true(channel->arrived < 5000);
    testing_answer(&server);
    testing_until(&waits.done, 1);
    testing_until(&server.settled_acked, 3);
    assert_int_equal(channel->n_keeps, 0);
}

/* Each round of puts ends with the oldest waiting claim: the acknowledgement advances each time, but never passes the
 * puts. */
static void no_acknowledgement_passes_the_puts(void **state)
{
    (void)state;
    enum {
        CLAIMS = 60,
        PUTS = 100
    };
    static testing_call claims[CLAIMS], puts[CLAIMS][PUTS];
    memset(claims, 0, sizeof(claims));
    memset(puts, 0, sizeof(puts));
    for (int i = 0; i < CLAIMS; i++) {
        testing_claim(channel, &claims[i], false, -1);
    }
    testing_until(&server.n_waiting, CLAIMS);
    for (int i = 0; i < CLAIMS; i++) {
        for (int j = 0; j < PUTS; j++) {
            testing_reserve(channel, &puts[i][j], j == 0 ? TESTING_MATCH : (uint32_t)j, 20);
        }
        testing_until(&puts[i][PUTS - 1].done, 1);
        assert_true(HASH_COUNT(server.session->requests) <= 1024 + 4 * (CLAIMS + PUTS));
    }
    testing_until(&server.settled_acked, CLAIMS * (PUTS + 1));
    assert_int_equal(channel->n_keeps, 0);
}

/* The owner cannot use the answer and undoes it at once: that request, too, precedes the acknowledgement. */
static void an_answer_that_the_owner_undoes_is_acknowledged_afterwards(void **state)
{
    (void)state;
    for (int poll = 0; poll < 2; poll++) {
        testing_call call = {.release_on = channel, .undo = true};
        testing_claim(channel, &call, poll, 20);
        if (!poll) {
            testing_until(&server.n_waiting, 1);
            testing_answer(&server);
        }
        testing_until(&server.released, poll + 1);
        /* The claim and the release of the first round were acknowledged. */
        assert_int_equal(server.acked_at_release, poll);
        testing_until(&server.settled_acked, poll + 1);
        assert_int_equal(call.status, TQ_OK);
        assert_int_equal(call.orphans, 0);
        assert_int_equal(call.orphans_freed, 1);
    }
    assert_null(channel->calls);
    assert_null(channel->keeps);
}

/* A fatal error ends the calls, but the next connection fetches what the server did for them, and it is undone. */
static void answers_after_a_fatal_error_are_undone(void **state)
{
    (void)state;
    testing_call call = {.release_on = channel}, events = {0}, unsent = {0}, after = {0};
    tq_error err = {0};
    testing_claim(channel, &call, false, -1);
    testing_events(channel, &events, -1);
    testing_until(&server.n_waiting, 2);
    testing_claim(channel, &unsent, false, -1);
    tqi_error_set(&err, TQ_EAUTH, "the token is not the server's");
    tqi_net_channel_fatal(channel, &err);
    assert_int_equal(call.status, TQ_EAUTH);
    assert_int_equal(events.status, TQ_EAUTH);
    assert_int_equal(unsent.status, TQ_EAUTH);
    assert_int_equal(unsent.orphans_freed, 1);
    assert_int_equal(call.orphans_freed, 0);
    testing_answer(&server);
    testing_reserve(channel, &after, 1, 20);
    testing_until(&server.released, 1);
    assert_int_equal(server.acked_at_release, 0);
    testing_until(&after.done, 1);
    assert_int_equal(after.status, TQ_OK);
    testing_until(&server.settled_acked, 2);
    assert_int_equal(call.done, 1);
    assert_int_equal(call.orphans, 1);
    assert_int_equal(call.orphans_freed, 1);
    assert_int_equal(server.opened, 1);
    assert_null(channel->calls);
    /* The same when nobody holds the channel: it closes, and nothing is left. */
    tqi_net_connector *own = testing_connector(&testing_token, 0);
    tqi_net_channel *other = testing_channel(own, server.endpoint);
    testing_call last = {0}, garbled = {0};
    testing_claim(other, &last, false, -1);
    testing_claim(other, &garbled, false, -1);
    testing_until(&server.n_waiting, 2);
    garbled.call->garbled = true; /* its answer could not be decoded: it is not requested again */
    tqi_net_channel_fatal(other, &err);
    assert_int_equal(garbled.status, TQ_EAUTH);
    assert_int_equal(garbled.orphans_freed, 1);
    assert_int_equal(last.status, TQ_EAUTH);
    assert_int_equal(last.orphans_freed, 0);
    tqi_net_channel_unref(other);
    assert_int_equal(last.orphans_freed, 1);
    testing_connector_stop(own);
}

/* The owner's memory is freed when the call ends, in the middle of sending and of receiving. */
static void a_call_may_end_in_the_middle_of_its_payload(void **state)
{
    (void)state;
    enum {
        SIZE = 8 << 20
    };
    static const uint16_t kinds[] = {TQI_UNIT_WRITE, TQI_PUBLISH, TQI_UNIT_READ};
    testing_call first = {0};
    testing_reserve(channel, &first, 1, 10);
    testing_until(&first.done, 1);
    for (int i = 0; i < 3; i++) {
        testing_call call = {0}, after = {0};
        uint8_t *data = malloc(SIZE);
        assert_non_null(data);
        for (size_t at = 0; at < SIZE; at++) {
            data[at] = testing_byte(at);
        }
        if (kinds[i] != TQI_UNIT_READ) {
            testing_write(channel, &call, kinds[i], data, SIZE, 20);
            while (!call.call->tx->touched) {
                uv_run(&testing_loop, UV_RUN_ONCE);
            }
            assert_true(call.call->tx->queued);
        } else {
            call.buffer = data;
            call.buffer_size = SIZE;
            call.pieces = 11;
            memset(data, 0, SIZE);
            testing_read(channel, &call, SIZE, 20);
            while (channel->rx_call != call.call) {
                uv_run(&testing_loop, UV_RUN_ONCE);
            }
            assert_int_equal(channel->conn->state, TQI_NET_RX_PAYLOAD);
        }
        expire(call.call);
        assert_int_equal(call.done, 1);
        assert_int_equal(call.status, TQ_ETIMEDOUT);
        memset(data, 0, SIZE);
        testing_reserve(channel, &after, 2, 20);
        testing_until(&after.done, 1);
        assert_int_equal(after.status, TQ_OK);
        for (size_t at = 0; at < SIZE; at++) {
            assert_int_equal(data[at], 0);
        }
        free(data);
    }
    assert_int_equal(server.received, 2 * (uint64_t)SIZE);
    assert_int_equal(server.bad_payloads, 0);
    assert_int_equal(server.opened, 1);
}

/* Everything is closed in the middle of payloads in both directions. */
static void a_client_may_close_in_the_middle_of_payloads(void **state)
{
    (void)state;
    enum {
        SIZE = 8 << 20
    };
    tqi_net_connector *own = testing_connector(&testing_token, 0);
    tqi_net_channel *other = testing_channel(own, server.endpoint);
    uint8_t *data = calloc(2, SIZE);
    assert_non_null(data);
    testing_call writing = {0}, reading = {.buffer = data + SIZE, .buffer_size = SIZE};
    testing_read(other, &reading, SIZE, -1);
    testing_write(other, &writing, TQI_UNIT_WRITE, data, SIZE, -1);
    while (other->rx_call != reading.call) {
        uv_run(&testing_loop, UV_RUN_ONCE);
    }
    testing_connector_stop(own);
    free(data);
    assert_int_equal(reading.status, TQ_ECLOSED);
    assert_int_equal(writing.status, TQ_ECLOSED);
    testing_until(&server.ended, 1);
    testing_until(&server.sent, 1);
}

static void calls_to_nobody_end_at_their_deadlines(void **state)
{
    (void)state;
    char endpoint[400];
    snprintf(endpoint, sizeof(endpoint), "unix:/nonexistent/tq.sock,tcp:127.0.0.1:1");
    tqi_net_channel *nowhere = testing_channel(connector, endpoint);
    testing_call call = {0}, at_once = {0};
    uint64_t start = tqi_now();
    testing_reserve(nowhere, &call, 1, 0.1);
    testing_reserve(nowhere, &at_once, 1, 0);
    testing_until(&at_once.done, 1);
    assert_int_equal(at_once.status, TQ_EUNREACHABLE);
    testing_until(&call.done, 1);
    assert_true(tqi_now() - start >= 100000000u && tqi_now() - start < 3000000000u);
    assert_int_equal(call.status, TQ_EUNREACHABLE);
    assert_non_null(strstr(call.error.message, endpoint));
    /* Of the one that was tried last. */
    const char *refused = strstr(call.error.message, "tcp:127.0.0.1:1: connect: Connection refused");
    const char *missing = strstr(call.error.message, "unix:/nonexistent/tq.sock: connect: No such file or directory");
    assert_true((refused != NULL) != (missing != NULL));
    tqi_net_channel_unref(nowhere);
}

static void a_later_endpoint_is_tried(void **state)
{
    (void)state;
    char endpoint[700];
    snprintf(endpoint, sizeof(endpoint), "unix:/nonexistent/tq.sock,tcp:localhost:1,%s", server.endpoint);
    tqi_net_connector *own = testing_connector(&testing_token, 0);
    tqi_net_channel *list = testing_channel(own, endpoint);
    testing_call call = {0};
    testing_reserve(list, &call, 1, 15);
    testing_until(&call.done, 1);
    assert_int_equal(call.status, TQ_OK);
    testing_connector_stop(own);
}

/* Closed at every moment of connecting, including in the middle of a name look-up. */
static void a_client_may_close_at_every_moment_of_connecting(void **state)
{
    (void)state;
    for (int rounds = 0; rounds < 20; rounds++) {
        tqi_net_connector *own = testing_connector(&testing_token, 0);
        tqi_net_channel *unreachable = testing_channel(own, rounds % 2 ? "tcp:localhost:1" : server.endpoint);
        testing_call call = {0};
        testing_claim(unreachable, &call, false, -1);
        for (int i = 0; i < rounds / 2; i++) {
            uv_run(&testing_loop, UV_RUN_NOWAIT);
        }
        testing_connector_stop(own);
        assert_int_equal(call.done, 1);
        assert_int_equal(call.status, TQ_ECLOSED);
    }
}

/* --- deadlines ------------------------------------------------------------ */

static void many_calls_end_at_their_deadlines(void **state)
{
    (void)state;
    enum {
        N = 3000
    };
    testing_call *calls = calloc(N, sizeof(*calls));
    assert_non_null(calls);
    tqi_net_channel *nowhere = testing_channel(connector, "unix:/nonexistent/tq.sock");
    for (int i = 0; i < N; i++) {
        testing_reserve(nowhere, &calls[i], (uint32_t)i, 0.02 + (i * 7919 % N) * 1e-5);
    }
    for (int i = 0; i < N; i++) {
        testing_until(&calls[i].done, 1);
        assert_int_equal(calls[i].status, TQ_EUNREACHABLE);
    }
    assert_null(nowhere->calls);
    tqi_net_channel_unref(nowhere);
    free(calls);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_call_is_cancelled_before_it_is_sent, setup, teardown),
        cmocka_unit_test_setup_teardown(a_waiting_call_is_cancelled_at_the_server, setup, teardown),
        cmocka_unit_test_setup_teardown(an_answer_in_flight_wins_over_a_cancel, setup, teardown),
        cmocka_unit_test_setup_teardown(a_cancel_without_a_connection_is_sent_after_it, setup, teardown),
        cmocka_unit_test_setup_teardown(waiting_calls_end_at_their_deadlines, setup, teardown),
        cmocka_unit_test_setup_teardown(a_deadline_cancels_at_the_server, setup, teardown),
        cmocka_unit_test_setup_teardown(an_answer_after_the_deadline_is_undone, setup, teardown),
        cmocka_unit_test_setup_teardown(an_answer_that_cannot_be_undone_is_never_acknowledged, setup, teardown),
        cmocka_unit_test_setup_teardown(an_answer_is_undone_although_its_client_is_closed, setup, teardown),
        cmocka_unit_test_setup_teardown(an_answer_after_the_deadline_is_fetched_and_undone, setup, teardown),
        cmocka_unit_test_setup_teardown(an_undoing_request_that_is_sent_again_comes_before_the_acknowledgement, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(an_undoing_request_behind_a_full_socket_acknowledges_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(an_undoing_request_behind_many_acknowledges_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(no_acknowledgement_passes_the_puts, setup, teardown),
        cmocka_unit_test_setup_teardown(an_answer_that_the_owner_undoes_is_acknowledged_afterwards, setup, teardown),
        cmocka_unit_test_setup_teardown(answers_after_a_fatal_error_are_undone, setup, teardown),
        cmocka_unit_test_setup_teardown(a_call_may_end_in_the_middle_of_its_payload, setup, teardown),
        cmocka_unit_test_setup_teardown(a_client_may_close_in_the_middle_of_payloads, setup, teardown),
        cmocka_unit_test_setup_teardown(calls_to_nobody_end_at_their_deadlines, setup, teardown),
        cmocka_unit_test_setup_teardown(a_later_endpoint_is_tried, setup, teardown),
        cmocka_unit_test_setup_teardown(a_client_may_close_at_every_moment_of_connecting, setup, teardown),
        cmocka_unit_test_setup_teardown(many_calls_end_at_their_deadlines, setup, teardown),
    };

    return cmocka_run_group_tests_name("net_call", tests, NULL, NULL);
}
