/*
 * kept_replies_test.c - replies that a server keeps for its sessions: how long, how many, and that nothing runs twice.
 */
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "net/calling.h"
#include "net/serving.h"
#include "net/testkit.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define OWN_MALLOC 1
#else
#define OWN_MALLOC 0
#endif

/* Breaks the connection of the server's only session. */
static void cut(testing_server *server)
{
    tqi_net_peer_close(server->session->peer);
}

static void kept_replies_are_freed_by_acknowledgements(void **state)
{
    (void)state;
    testing_server server;
    testing_server_start(&server, testing_unix_endpoint(), 100, 60000);
    tqi_net_connector *connector = testing_connector(&testing_token, UINT64_MAX - 3);
    tqi_net_channel *channel = testing_channel(connector, server.endpoint);
    testing_call claim = {0}, calls[10] = {0};
    testing_claim(channel, &claim, false, -1);
    for (uint32_t i = 0; i < 10; i++) {
        testing_reserve(channel, &calls[i], i, 10);
    }
    testing_until(&calls[9].done, 1);
    testing_run_ms(20);
    /* The claim has the lowest number and no answer: nothing may be dropped. */
    assert_int_equal(server.settled_acked, 0);
    assert_int_equal(HASH_COUNT(server.session->requests), 11);
    testing_answer(&server);
    testing_until(&server.settled_acked, 11);
    assert_int_equal(HASH_COUNT(server.session->requests), 0);
    assert_null(server.session->keeps);
    testing_connector_stop(connector);
    testing_server_stop(&server);
}

/* Replies that were received after a waiting request. */
static void replies_after_a_waiting_request_are_acknowledged(void **state)
{
    (void)state;
    testing_server server;
    testing_server_start(&server, testing_unix_endpoint(), 100, 60000);
    testing_raw raw;
    testing_raw_connect(&raw, server.endpoint);
    testing_raw_login(&raw);
    /* Numbers from UINT64_MAX - 2 to 4, without 0; the second and the last wait. */
    static const uint16_t kinds[] = {TQI_RESERVE, TQI_CLAIM, TQI_RESERVE, TQI_RESERVE, TQI_RESERVE, TQI_CLAIM};
    uint64_t number = UINT64_MAX - 2, numbers[6];
    for (int i = 0; i < 6; i++) {
        numbers[i] = number;
        testing_raw_frame(
            &raw, &(tqi_frame){.version = TQI_PROTOCOL_VERSION, .kind = kinds[i], .request = number, .ack = numbers[0]},
            NULL);
        number = number + 1 != 0 ? number + 1 : 1;
    }
    testing_until(&server.n_waiting, 2);
    uint64_t waiting[] = {numbers[1], numbers[3], numbers[5]};
    Tq__Ack ack;
    tq__ack__init(&ack);
    ack.below = number;
    ack.waiting = waiting;
    ack.n_waiting = 3;
    uint8_t body[64];
    tqi_frame frame = {
        .version = TQI_PROTOCOL_VERSION,
        .kind = TQI_ACK,
        .ack = numbers[0],
        .body = (uint32_t)tq__ack__pack(&ack, body),
    };
    testing_raw_frame(&raw, &frame, body);
    testing_until(&server.settled_acked, 3);
    /* Two that are running, and the one whose answer was not received. */
    assert_int_equal(HASH_COUNT(server.session->requests), 3);
    testing_raw_frame(&raw, &frame, body);
    testing_answer(&server);
    testing_answer(&server);
    testing_run_ms(10);
    assert_int_equal(server.settled_acked, 3);
    /* Out of order. */
    waiting[0] = numbers[5];
    waiting[2] = numbers[1];
    frame.body = (uint32_t)tq__ack__pack(&ack, body);
    testing_raw_frame(&raw, &frame, body);
    testing_until(&raw.eof, 1);
    testing_raw_close(&raw);
    assert_int_equal(HASH_COUNT(server.session->requests), 3);
    testing_server_stop(&server);
    assert_int_equal(server.settled_acked, 3);
    assert_int_equal(server.settled_lost, 3);
}

typedef struct stream {
    tqi_net_channel *channel;
    uint64_t started, ended;
    int over;
    size_t kept; /* most at any time */
    uint64_t cut_each;
    testing_server *server;
} stream;

enum {
    STREAM_CALLS = 100000,
    STREAM_WINDOW = 64
};

static void stream_fill(stream *s);

static void stream_done(tqi_net_call *call, tqi_net_answer *answer, void *arg)
{
    stream *s = arg;

    (void)call;
    assert_int_equal(answer->status, TQ_OK);
    s->ended++;
    if (HASH_COUNT(s->server->session->requests) > s->kept) {
        s->kept = HASH_COUNT(s->server->session->requests);
    }
    if (s->cut_each > 0 && s->ended % s->cut_each == 0 && s->server->session->peer != NULL) {
        cut(s->server);
    }
    stream_fill(s);
    s->over = s->ended == STREAM_CALLS;
}

static void stream_fill(stream *s)
{
    while (s->started < STREAM_CALLS && s->started - s->ended < STREAM_WINDOW) {
        Tq__Reserve message;
        tq__reserve__init(&message);
        message.samples = 1;
        tqi_net_call_args args = {
            .kind = TQI_RESERVE,
            .message = &message.base,
            .deadline = tqi_deadline(60),
            .done = stream_done,
            .arg = s,
        };
        assert_int_equal(tqi_net_call_start(s->channel, &args, NULL, NULL), TQ_OK);
        s->started++;
    }
}

static void memory_stays_flat(void **state)
{
    (void)state;
    testing_server server;
    testing_server_start(&server, testing_unix_endpoint(), 100, 60000);
    tqi_net_connector *connector = testing_connector(&testing_token, 0);
    stream s = {.server = &server, .channel = testing_channel(connector, server.endpoint)};
    testing_call first = {0};
    testing_reserve(s.channel, &first, 0, 10);
    testing_until(&first.done, 1);
    testing_run_ms(10);
    size_t before = mallinfo2().uordblks;
    stream_fill(&s);
    testing_until(&s.over, 1);
    testing_until(&server.settled_acked, STREAM_CALLS + 1);
    size_t after = mallinfo2().uordblks;
    assert_int_equal(server.executions, STREAM_CALLS + 1);
    assert_true(s.kept <= 3 * STREAM_WINDOW);
    assert_int_equal(HASH_COUNT(server.session->requests), 0);
    if (!OWN_MALLOC) {
        assert_true(after < before + 64 * 1024);
    }
    testing_connector_stop(connector);
    testing_server_stop(&server);
}

/* Many calls of a client beside a claim that waits for as long as no sample is ready. */
static void stream_beside_a_claim(uint64_t first_request, uint64_t cut_each)
{
    testing_server server;

    testing_server_start(&server, testing_unix_endpoint(), 100, 60000);
    tqi_net_connector *connector = testing_connector(&testing_token, first_request);
    stream s = {.server = &server, .channel = testing_channel(connector, server.endpoint), .cut_each = cut_each};
    testing_call claim = {0};
    testing_claim(s.channel, &claim, false, -1);
    testing_until(&server.n_waiting, 1);
    stream_fill(&s);
    testing_until(&s.over, 1);
    assert_int_equal(claim.done, 0);
    assert_int_equal(server.executions, STREAM_CALLS);
    assert_true(s.kept <= 1024 + 6 * STREAM_WINDOW);
    testing_answer(&server);
    testing_until(&claim.done, 1);
    assert_int_equal(claim.status, TQ_OK);
    testing_until(&server.settled_acked, STREAM_CALLS + 1);
    assert_int_equal(HASH_COUNT(server.session->requests), 0);
    assert_int_equal(s.channel->n_keeps, 0);
    testing_connector_stop(connector);
    testing_server_stop(&server);
}

/* With numbers that wrap around. */
static void memory_stays_flat_while_one_waits(void **state)
{
    (void)state;
    stream_beside_a_claim(UINT64_MAX - STREAM_CALLS / 2, 0);
}

/* When connections break, nothing is executed twice, and what was acknowledged on the last one is acknowledged again. */
static void nothing_runs_twice_on_connections_that_break(void **state)
{
    (void)state;
    stream_beside_a_claim(0, STREAM_CALLS / 40 - 3);
}

/* A client that closes has received everything that was delivered, even after a waiting claim; answers still in flight
 * are undone. */
static void a_closing_client_has_all_that_was_delivered(void **state)
{
    (void)state;
    testing_server server;
    testing_server_start(&server, testing_unix_endpoint(), 100, 60000);
    tqi_net_connector *connector = testing_connector(&testing_token, 0);
    tqi_net_channel *channel = testing_channel(connector, server.endpoint);
    testing_call waits = {0}, late = {0}, got = {0};
    testing_claim(channel, &waits, false, -1);
    testing_claim(channel, &late, false, -1);
    testing_claim(channel, &got, true, 20);
    testing_until(&got.done, 1);
    assert_int_equal(server.n_waiting, 2);
    testing_run_ms(5);
    assert_int_equal(server.settled_acked, 0);
    testing_answer_at(&server, 1);
    testing_connector_stop(connector);
    testing_until(&server.ended, 1);
    assert_int_equal(late.status, TQ_ECLOSED);
    assert_int_equal(server.settled_acked, 1);
    assert_int_equal(server.settled_lost, 1);
    testing_server_stop(&server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(kept_replies_are_freed_by_acknowledgements, testing_setup, testing_teardown),
        cmocka_unit_test_setup_teardown(replies_after_a_waiting_request_are_acknowledged, testing_setup,
                                        testing_teardown),
        cmocka_unit_test_setup_teardown(memory_stays_flat, testing_setup, testing_teardown),
        cmocka_unit_test_setup_teardown(memory_stays_flat_while_one_waits, testing_setup, testing_teardown),
        cmocka_unit_test_setup_teardown(nothing_runs_twice_on_connections_that_break, testing_setup, testing_teardown),
        cmocka_unit_test_setup_teardown(a_closing_client_has_all_that_was_delivered, testing_setup, testing_teardown),
    };

    return cmocka_run_group_tests_name("net_kept_replies", tests, NULL, NULL);
}
