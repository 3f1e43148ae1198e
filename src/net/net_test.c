/*
 * net_test.c - requests and replies between a client and a server on one loop, over unix and tcp sockets.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "net/serving.h"
#include "net/testkit.h"

static void round_trip(const char *endpoint)
{
    testing_server server;

    testing_server_start(&server, endpoint, 7, 1000);
    tqi_net_connector *connector = testing_connector(&testing_token, 0);
    tqi_net_channel *channel = testing_channel(connector, server.endpoint);
    testing_call call = {0};
    testing_reserve(channel, &call, 42, 10);
    testing_until(&call.done, 1);
    assert_int_equal(call.status, TQ_OK);
    assert_int_equal(call.index, 42);
    assert_int_equal(server.executed[42], 1);
    assert_int_equal(tqi_net_channel_epoch_for_tests(channel), 7);
    testing_until(&server.settled_acked, 1);
    assert_int_equal(server.opened, 1);
    tqi_net_channel_unref(channel);
    testing_connector_stop(connector);
    testing_until(&server.ended, 1);
    assert_int_equal(server.settled_lost, 0);
    testing_server_stop(&server);
}

static void requests_are_answered_over_unix(void **state)
{
    (void)state;
    round_trip(testing_unix_endpoint());
}

static void requests_are_answered_over_tcp(void **state)
{
    (void)state;
    round_trip("tcp:127.0.0.1:0");
    round_trip("tcp:localhost:0");
}

static void payloads(const char *endpoint)
{
    static const size_t sizes[] = {0,     1,     39,     40,     41,     1000,   65495,   65496,
                                   65536, 70000, 262143, 262144, 262145, 524327, 1 << 20, 8 << 20};
    testing_server server;

    testing_server_start(&server, endpoint, 1, 1000);
    tqi_net_connector *connector = testing_connector(&testing_token, 0);
    tqi_net_channel *channel = testing_channel(connector, server.endpoint);
    size_t most = sizes[sizeof(sizes) / sizeof(*sizes) - 1];
    uint8_t *data = malloc(most);
    uint8_t *back = malloc(most);
    assert_non_null(data);
    assert_non_null(back);
    for (size_t i = 0; i < most; i++) {
        data[i] = testing_byte(i);
    }
    uint64_t total = 0;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        testing_call writing = {0}, publishing = {0}, reading = {0};
        testing_write(channel, &writing, TQI_UNIT_WRITE, data, sizes[i], 10);
        testing_write(channel, &publishing, TQI_PUBLISH, data, sizes[i], 10);
        reading.buffer = back;
        reading.buffer_size = most;
        reading.pieces = i % 2 ? 3 : 700;
        memset(back, 0xEE, most);
        testing_read(channel, &reading, sizes[i], 10);
        testing_until(&reading.done, 1);
        assert_int_equal(writing.status, TQ_OK);
        assert_int_equal(publishing.status, TQ_OK);
        assert_int_equal(reading.status, TQ_OK);
        assert_int_equal(reading.payload, sizes[i]);
        assert_memory_equal(back, data, sizes[i]);
        total += 2 * sizes[i];
    }
    assert_int_equal(server.received, total);
    assert_int_equal(server.bad_payloads, 0);
    testing_until(&server.sent, (int)(sizeof(sizes) / sizeof(*sizes)));
    tqi_net_channel_unref(channel);
    testing_connector_stop(connector);
    testing_server_stop(&server);
    free(data);
    free(back);
}

static void payloads_arrive_over_unix(void **state)
{
    (void)state;
    payloads(testing_unix_endpoint());
}

static void payloads_arrive_over_tcp(void **state)
{
    (void)state;
    payloads("tcp:[::1]:0");
}

static void pipelined_requests_run_once_each(void **state)
{
    (void)state;
    enum {
        N = 1000
    };
    testing_server server;
    testing_server_start(&server, testing_unix_endpoint(), 1, 1000);
    tqi_net_connector *connector = testing_connector(&testing_token, 0);
    tqi_net_channel *channel = testing_channel(connector, server.endpoint);
    testing_call *calls = calloc(N, sizeof(*calls));
    assert_non_null(calls);
    for (uint32_t i = 0; i < N; i++) {
        testing_reserve(channel, &calls[i], i, 10);
    }
    testing_until(&calls[N - 1].done, 1);
    for (uint32_t i = 0; i < N; i++) {
        assert_int_equal(calls[i].done, 1);
        assert_int_equal(calls[i].status, TQ_OK);
        assert_int_equal(calls[i].index, i);
        assert_int_equal(server.executed[i], 1);
    }
    testing_until(&server.settled_acked, N);
    assert_int_equal(tqi_net_server_requests(server.server), N);
    free(calls);
    testing_connector_stop(connector);
    testing_server_stop(&server);
}

static void descriptors_are_passed_over_unix(void **state)
{
    (void)state;
    enum {
        N = 20
    };
    testing_server server;
    testing_server_start(&server, testing_unix_endpoint(), 1, 1000);
    tqi_net_connector *connector = testing_connector(&testing_token, 0);
    tqi_net_channel *channel = testing_channel(connector, server.endpoint);
    /* Mixed with other replies, so that one read gets frames with and without descriptors. */
    testing_call calls[N] = {0}, others[N] = {0};
    for (uint32_t i = 0; i < N; i++) {
        testing_reserve(channel, &others[i], i, 10);
        testing_map(channel, &calls[i]);
    }
    testing_until(&calls[N - 1].done, 1);
    assert_true(tqi_net_channel_local(channel));
    assert_true(server.local);
    assert_int_equal(tqi_net_session_pid(server.session), getpid());
    /* Losing the watch on a process does not mean that it has ended. */
    uv_poll_t *watch = &server.session->process->poll;
    watch->poll_cb(watch, UV_EBADF, 0);
    assert_false(uv_is_active((uv_handle_t *)watch));
    assert_int_equal(server.ended, 0);
    assert_true(tqi_net_session_pidfd_for_tests(server.session) >= 0);
    assert_string_equal(tqi_net_session_name(server.session), "tester");
    assert_string_equal(tqi_net_session_endpoint(server.session), "unix");
    for (uint32_t i = 0; i < N; i++) {
        char text[8] = "";
        assert_int_equal(calls[i].status, TQ_OK);
        assert_int_equal(others[i].index, i);
        assert_true(calls[i].fd >= 0);
        assert_int_equal(pread(calls[i].fd, text, 6, 0), 6);
        assert_string_equal(text, "shared");
        close(calls[i].fd);
    }
    testing_connector_stop(connector);
    testing_server_stop(&server);
}

static void descriptors_are_not_passed_over_tcp(void **state)
{
    (void)state;
    testing_server server;
    testing_server_start(&server, "tcp:127.0.0.1:0", 1, 1000);
    tqi_net_connector *connector = testing_connector(&testing_token, 0);
    tqi_net_channel *channel = testing_channel(connector, server.endpoint);
    testing_call call = {0};
    testing_map(channel, &call);
    testing_until(&call.done, 1);
    assert_int_equal(call.status, TQ_EUNSUPPORTED);
    assert_false(server.local);
    assert_false(tqi_net_channel_local(channel));
    assert_memory_equal(tqi_net_session_endpoint(server.session), "tcp:127.0.0.1:", 14);
    testing_connector_stop(connector);
    testing_server_stop(&server);
}

static void plain_done(tqi_net_call *handle, tqi_net_answer *answer, void *arg)
{
    testing_call *call = arg;

    (void)handle;
    call->done++;
    call->status = answer->status;
    if (answer->error != NULL) {
        call->error = *answer->error;
    }
}

static void start_plain(tqi_net_channel *channel, testing_call *call, uint16_t kind, ProtobufCMessage *message)
{
    tq_error err = {0};
    tqi_net_call_args args = {.kind = kind, .message = message, .deadline = UINT64_MAX, .done = plain_done, .arg = call};

    assert_int_equal(tqi_net_call_start(channel, &args, &call->call, &err), TQ_OK);
}

static void a_failed_request_leaves_the_connection_usable(void **state)
{
    (void)state;
    testing_server server;
    testing_server_start(&server, testing_unix_endpoint(), 1, 1000);
    server.refuse_sink = 5000;
    tqi_net_connector *connector = testing_connector(&testing_token, 0);
    tqi_net_channel *channel = testing_channel(connector, server.endpoint);
    testing_call failing = {0}, unserved = {0}, refused = {0}, narrow = {0}, without = {0}, after = {0};
    Tq__Clear clear;
    tq__clear__init(&clear);
    start_plain(channel, &failing, TQI_CLEAR, &clear.base);
    Tq__CollectDead collect;
    tq__collect_dead__init(&collect);
    start_plain(channel, &unserved, TQI_COLLECT_DEAD, &collect.base);
    uint8_t data[5000];
    memset(data, 1, sizeof(data));
    testing_write(channel, &refused, TQI_UNIT_WRITE, data, sizeof(data), 10);
    narrow.buffer = data;
    narrow.buffer_size = 10;
    testing_read(channel, &narrow, 100000, 10);
    testing_read(channel, &without, 100, 10);
    testing_reserve(channel, &after, 5, 10);
    testing_until(&after.done, 1);
    assert_int_equal(failing.status, TQ_EPARTITION);
    assert_string_equal(failing.error.message, "unknown partition 'p'");
    assert_int_equal(unserved.status, TQ_EUNSUPPORTED);
    assert_int_equal(refused.status, TQ_EFULL);
    assert_string_equal(refused.error.message, "no room for 5000 bytes");
    assert_int_equal(narrow.status, TQ_EFULL);
    assert_int_equal(without.status, TQ_EPROTO);
    assert_int_equal(after.status, TQ_OK);
    assert_int_equal(server.opened, 1);
    /* A message of another type is refused before anything is sent. */
    tq_error err = {0};
    tqi_net_call_args args = {.kind = TQI_CLAIM, .message = &clear.base, .done = plain_done};
    assert_int_equal(tqi_net_call_start(channel, &args, NULL, &err), TQ_EINVAL);
    testing_connector_stop(connector);
    testing_server_stop(&server);
}

static void messages_larger_than_the_buffer_arrive(void **state)
{
    (void)state;
    testing_server server;
    testing_server_start(&server, testing_unix_endpoint(), 1, 1000);
    tqi_net_connector *connector = testing_connector(&testing_token, 0);
    tqi_net_channel *channel = testing_channel(connector, server.endpoint);
    /* Bodies around the size of the input buffer, and one far above it. */
    static const size_t sizes[] = {65400, 65480, 65496, 65530, 65536, 65537, 66000, 5u << 20};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        testing_call call = {0}, after = {0};
        char *text = malloc(sizes[i] + 1);
        assert_non_null(text);
        memset(text, 'k', sizes[i]);
        text[sizes[i]] = 0;
        Tq__Reserve message;
        tq__reserve__init(&message);
        message.partition = text;
        message.samples = 9;
        start_plain(channel, &call, TQI_RESERVE, &message.base);
        free(text);
        testing_reserve(channel, &after, 10, 10);
        testing_until(&after.done, 1);
        assert_int_equal(call.status, TQ_OK);
        assert_int_equal(after.status, TQ_OK);
        assert_int_equal(server.executed[9], (int)i + 1);
    }
    testing_connector_stop(connector);
    testing_server_stop(&server);
}

typedef struct chain {
    tqi_net_channel *channel;
    tqi_net_connector *connector;
    int left;
    int done;
} chain;

static void chain_closed(void *arg)
{
    ((chain *)arg)->done = 1;
}

/* Starts the next call from within the callback of the previous one, and closes the client in the last callback. */
static void chain_next(tqi_net_call *handle, tqi_net_answer *answer, void *arg)
{
    chain *c = arg;

    (void)handle;
    assert_int_equal(answer->status, TQ_OK);
    if (c->left-- == 0) {
        tqi_net_connector_close(c->connector, chain_closed, c);
        return;
    }
    Tq__Reserve message;
    tq__reserve__init(&message);
    tqi_net_call_args args = {
        .kind = TQI_RESERVE,
        .message = &message.base,
        .deadline = UINT64_MAX,
        .done = chain_next,
        .arg = c,
    };
    assert_int_equal(tqi_net_call_start(c->channel, &args, NULL, NULL), TQ_OK);
}

static void calls_are_made_from_the_ends_of_calls(void **state)
{
    (void)state;
    testing_server server;
    testing_server_start(&server, testing_unix_endpoint(), 1, 1000);
    chain c = {.left = 100};
    c.connector = testing_connector(&testing_token, UINT64_MAX - 40);
    c.channel = testing_channel(c.connector, server.endpoint);
    tqi_net_answer first = {.status = TQ_OK};
    chain_next(NULL, &first, &c);
    testing_until(&c.done, 1);
    testing_until(&server.ended, 1);
    assert_int_equal(server.executions, 100);
    assert_int_equal(server.settled_acked, 100);
    assert_int_equal(server.settled_lost, 0);
    testing_server_stop(&server);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(requests_are_answered_over_unix, testing_setup, testing_teardown),
        cmocka_unit_test_setup_teardown(requests_are_answered_over_tcp, testing_setup, testing_teardown),
        cmocka_unit_test_setup_teardown(payloads_arrive_over_unix, testing_setup, testing_teardown),
        cmocka_unit_test_setup_teardown(payloads_arrive_over_tcp, testing_setup, testing_teardown),
        cmocka_unit_test_setup_teardown(pipelined_requests_run_once_each, testing_setup, testing_teardown),
        cmocka_unit_test_setup_teardown(descriptors_are_passed_over_unix, testing_setup, testing_teardown),
        cmocka_unit_test_setup_teardown(descriptors_are_not_passed_over_tcp, testing_setup, testing_teardown),
        cmocka_unit_test_setup_teardown(a_failed_request_leaves_the_connection_usable, testing_setup, testing_teardown),
        cmocka_unit_test_setup_teardown(messages_larger_than_the_buffer_arrive, testing_setup, testing_teardown),
        cmocka_unit_test_setup_teardown(calls_are_made_from_the_ends_of_calls, testing_setup, testing_teardown),
    };

    return cmocka_run_group_tests_name("net", tests, NULL, NULL);
}
