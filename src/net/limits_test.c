/*
 * limits_test.c - what the server keeps for a client is bounded, and a client of this library never reaches the bounds.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/limits.h"
#include "net/calling.h"
#include "net/serving.h"
#include "net/testkit.h"

#include <tq/errors.h>

/* Runs the loop until the condition holds; the test fails after 10 s. */
#define UNTIL(condition)                  \
    do {                                  \
        int turns = 0;                    \
        while (!(condition)) {            \
            assert_true(turns++ < 10000); \
            testing_run_ms(1);            \
        }                                 \
    } while (0)

static tqi_limits_table saved;
static testing_server server;
static tqi_net_connector *connector;
static tqi_net_channel *channel;

static void start(const char *endpoint)
{
    testing_server_start(&server, endpoint, 100, 60000);
    connector = testing_connector(&testing_token, 0);
    channel = testing_channel(connector, server.endpoint);
}

static int setup(void **state)
{
    saved = tqi_limits;
    return testing_setup(state);
}

static int teardown(void **state)
{
    tqi_limits = saved;
    return testing_teardown(state);
}

static void stop(void)
{
    testing_connector_stop(connector);
    testing_server_stop(&server);
}

/* A RESERVE that has to be answered. */
static void reserve(uint32_t number)
{
    testing_call call = {0};

    testing_reserve(channel, &call, number, 20);
    testing_until(&call.done, 1);
    if (call.status != TQ_OK) {
        fail_msg("request %u: %s", number, call.error.message);
    }
}

/* One claim waits for a long time, and the replies to calls made meanwhile are large. */
static void large_replies_pass_beside_a_waiting_claim(void **state)
{
    enum {
        REPLY = 300000,
        CALLS = 250
    };

    (void)state;
    testing_call claim = {0};
    tqi_limits.kept_reply_bytes = UINT64_C(32) << 20;
    start(testing_unix_endpoint());
    server.partition = malloc(REPLY + 1);
    assert_non_null(server.partition);
    memset(server.partition, 'p', REPLY);
    server.partition[REPLY] = '\0';
    testing_claim(channel, &claim, false, -1);
    testing_until(&server.n_waiting, 1);
    for (uint32_t i = 0; i < CALLS; i++) {
        reserve(i);
        assert_true(server.session->kept_bytes < (17 << 20));
    }
    testing_answer(&server);
    testing_until(&claim.done, 1);
    assert_int_equal(claim.status, TQ_OK);
    testing_until(&server.settled_acked, CALLS + 1);
    free(server.partition);
    server.partition = NULL;
    stop();
}

/* Very many claims wait: naming them all takes a large frame, and yet it is sent in time. */
static void many_replies_pass_beside_many_claims(void **state)
{
    enum {
        CALLS = 21000
    };

    (void)state;
    testing_call *claims = calloc(TESTING_WAITING, sizeof(*claims));
    assert_non_null(claims);
    tqi_limits.kept_replies = 17000;
    start(testing_unix_endpoint());
    for (int i = 0; i < TESTING_WAITING; i++) {
        testing_claim(channel, &claims[i], false, -1);
    }
    testing_until(&server.n_waiting, TESTING_WAITING);
    for (uint32_t i = 0; i < CALLS; i++) {
        reserve(i % TESTING_MATCH);
    }
    while (server.n_waiting > 0) {
        testing_answer_at(&server, server.n_waiting - 1);
    }
    for (int i = 0; i < TESTING_WAITING; i++) {
        testing_until(&claims[i].done, 1);
        assert_int_equal(claims[i].status, TQ_OK);
    }
    testing_until(&server.settled_acked, CALLS + TESTING_WAITING);
    free(claims);
    stop();
}

/* --- a client without acks ------------------------------------------------ */

static uint64_t raw_requests;

static void raw_send(testing_raw *raw, uint16_t kind)
{
    testing_raw_frame(
        raw, &(tqi_frame){.version = TQI_PROTOCOL_VERSION, .kind = kind, .request = ++raw_requests, .ack = 1}, NULL);
}

/* Sends `n` requests and waits until they are kept. */
static void raw_kept(testing_raw *raw, uint16_t kind, size_t n)
{
    size_t before = server.session->kept;

    for (size_t i = 0; i < n; i++) {
        raw_send(raw, kind);
    }
    UNTIL(server.session->kept >= before + n);
}

/* Sends one request, which must be refused because of exactly that limit. */
static void raw_refused(testing_raw *raw, uint16_t kind, tqi_limit limit)
{
    uint64_t before[TQI_LIMIT_NUMBER];
    int handled = server.handled;

    for (int i = 0; i < TQI_LIMIT_NUMBER; i++) {
        before[i] = tqi_limit_times((tqi_limit)i);
    }
    raw_send(raw, kind);
    UNTIL(tqi_limit_times(limit) > before[limit]);
    for (int i = 0; i < TQI_LIMIT_NUMBER; i++) {
        assert_int_equal(tqi_limit_times((tqi_limit)i), before[i] + (i == (int)limit));
    }
    assert_int_equal(server.handled, handled);
}

/* Requests that give something back are still admitted, up to twice the limit. */
static void giving_back_goes_on_at_the_limit(void **state)
{
    (void)state;
    testing_raw raw;
    start(testing_unix_endpoint());
    testing_raw_connect(&raw, server.endpoint);
    testing_raw_login(&raw);
    raw_requests = 0;
    tqi_limits.kept_replies = 8;
    raw_kept(&raw, TQI_RESERVE, 8);
    raw_refused(&raw, TQI_RESERVE, TQI_LIMIT_kept_replies);
    raw_kept(&raw, TQI_RELEASE, 8);
    assert_int_equal(server.released, 8);
    raw_refused(&raw, TQI_RELEASE, TQI_LIMIT_kept_replies);
    tqi_limits.kept_replies = 1000;
    tqi_limits.kept_reply_bytes = 1;
    raw_refused(&raw, TQI_RESERVE, TQI_LIMIT_kept_reply_bytes);
    raw_kept(&raw, TQI_RELEASE, 1);
    testing_raw_close(&raw);
    stop();
}

static void the_limit_that_is_reached_counts(void **state)
{
    (void)state;
    testing_raw raw;
    start(testing_unix_endpoint());
    testing_raw_connect(&raw, server.endpoint);
    testing_raw_login(&raw);
    raw_requests = 0;
    tqi_limits.waiting = 1;
    raw_send(&raw, TQI_EVENTS);
    testing_until(&server.n_waiting, 1);
    raw_refused(&raw, TQI_EVENTS, TQI_LIMIT_waiting);
    raw_kept(&raw, TQI_RELEASE, 1);
    tqi_limits.waiting = 100;
    server.session->running_bytes += 2;
    tqi_limits.waiting_bytes = 1;
    raw_refused(&raw, TQI_EVENTS, TQI_LIMIT_waiting_bytes);
    server.session->running_bytes -= 2;
    testing_raw_close(&raw);
    stop();
}

/* --- incoming ------------------------------------------------------------- */

enum {
    LARGE = 70000
};

/* Sends a write with a large message, but none of its payload. */
static void raw_begin(testing_raw *raw)
{
    static uint8_t bytes[TQI_FRAME_HEADER + LARGE] = {0};
    uint8_t *body = bytes + TQI_FRAME_HEADER;
    const size_t head = 5, size = LARGE - head;
    tqi_frame frame = {
        .version = TQI_PROTOCOL_VERSION,
        .kind = TQI_UNIT_WRITE,
        .request = ++raw_requests,
        .body = LARGE,
        .payload = 1000,
    };

    tqi_frame_encode(&frame, bytes);
    body[0] = 0xa2; /* a field of a newer version: bytes, number 100 */
    body[1] = 0x06;
    body[2] = (uint8_t)(size & 0x7F) | 0x80;
    body[3] = (uint8_t)(size >> 7 & 0x7F) | 0x80;
    body[4] = (uint8_t)(size >> 14);
    testing_raw_send(raw, bytes, sizeof(bytes));
}

/* Messages that wait for their payloads count like incoming bodies, and no longer once the frame is done. */
static void slow_payloads_are_bounded(void **state)
{
    (void)state;
    static const uint8_t payload[1000];
    testing_raw raws[3];
    char message[TQ_ERROR_MESSAGE_MAX];
    uint64_t before = tqi_limit_times(TQI_LIMIT_incoming_bytes);
    start(testing_unix_endpoint());
    tqi_limits.incoming_bytes = 3 * LARGE;
    for (int i = 0; i < 3; i++) {
        testing_raw_connect(&raws[i], server.endpoint);
        testing_raw_login(&raws[i]);
    }
    raw_requests = 0;
    raw_begin(&raws[0]);
    testing_until(&server.sinks, 1);
    raw_begin(&raws[1]);
    testing_until(&server.sinks, 2);
    assert_int_equal(tqi_limit_times(TQI_LIMIT_incoming_bytes), before);
    testing_raw_send(&raws[0], payload, sizeof(payload));
    UNTIL(server.handled == 1);
    raw_begin(&raws[0]); /* it is the younger one now */
    testing_until(&server.sinks, 3);
    assert_int_equal(tqi_limit_times(TQI_LIMIT_incoming_bytes), before);
    raw_begin(&raws[2]);
    testing_until(&server.sinks, 4);
    assert_int_equal(tqi_limit_times(TQI_LIMIT_incoming_bytes), before + 1);
    assert_int_equal(testing_raw_refusal(&raws[1], message, sizeof message), TQ_OK);
    assert_int_equal(server.sinks_failed, 1);
    testing_raw_send(&raws[0], payload, sizeof(payload));
    testing_raw_send(&raws[2], payload, sizeof(payload));
    UNTIL(server.handled == 3);
    for (int i = 0; i < 3; i++) {
        testing_raw_close(&raws[i]);
    }
    stop();
}

/* --- held ----------------------------------------------------------------- */

/* Sends on the client's own socket, after what the client has sent, in small pieces: with the large segments of the
 * loopback, a socket becomes readable before the amount it was set to wait for has arrived. */
static void send_all(const uint8_t *data, size_t size)
{
    while (size > 0) {
        ssize_t n = send(channel->conn->fd, data, size < 8000 ? size : 8000, MSG_NOSIGNAL);
        if (n > 0) {
            data += n;
            size -= (size_t)n;
        } else {
            assert_int_equal(errno, EAGAIN);
            testing_run_ms(1);
        }
    }
}

/* Much of a payload is missing when the connection is held; when it resumes, less is missing than the socket was set
 * to wait for. */
static void a_held_connection_goes_on_over_tcp(void **state)
{
    enum {
        SIZE = 256 << 10,
        FIRST = TQI_FRAME_HEADER + 60000
    };

    (void)state;
    uint8_t *data = calloc(1, TQI_FRAME_HEADER + SIZE);
    assert_non_null(data);
    start("tcp:127.0.0.1:0");
    reserve(0);
    /* With this limit, a connection with anything in its queue is held; here it is the refusal of this payload. */
    server.refuse_sink = SIZE;
    tqi_limits.queued_replies = 0;
    uint64_t before = tqi_limit_times(TQI_LIMIT_queued_replies);
    tqi_frame frame = {
        .version = TQI_PROTOCOL_VERSION,
        .kind = TQI_UNIT_WRITE,
        .request = channel->next_request++,
        .payload = SIZE,
    };
    tqi_frame_encode(&frame, data);
    send_all(data, FIRST);
    const tqi_net_conn *conn = server.session->peer->conn;
    bool held = false;
    UNTIL((held = held || tqi_limit_times(TQI_LIMIT_queued_replies) > before) && !conn->held);
    assert_true(server.session->held_told);
    send_all(data + FIRST, TQI_FRAME_HEADER + SIZE - FIRST);
    reserve(1);
    free(data);
    stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(large_replies_pass_beside_a_waiting_claim, setup, teardown),
        cmocka_unit_test_setup_teardown(many_replies_pass_beside_many_claims, setup, teardown),
        cmocka_unit_test_setup_teardown(giving_back_goes_on_at_the_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(the_limit_that_is_reached_counts, setup, teardown),
        cmocka_unit_test_setup_teardown(slow_payloads_are_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(a_held_connection_goes_on_over_tcp, setup, teardown),
    };

    return cmocka_run_group_tests_name("net_limits", tests, NULL, NULL);
}
