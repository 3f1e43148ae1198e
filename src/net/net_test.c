/*
 * net_test.c - requests and replies between a client and a server on one loop, over unix and tcp sockets.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "net/testing.h"

static void round_trip(const char *endpoint)
{
    testing_server server;
    testing_server_start(&server, endpoint, 7, 1000);
    tqi_connector *connector = testing_connector(&testing_token, 0);
    tqi_channel *channel = testing_channel(connector, server.endpoint);
    testing_call call = {0};
    testing_reserve(channel, &call, 42, 10);
    testing_until(&call.done, 1);
    assert_int_equal(call.status, TQ_OK);
    assert_int_equal(call.index, 42);
    assert_int_equal(server.executed[42], 1);
    assert_int_equal(tqi_channel_epoch(channel), 7);
    testing_until(&server.settled_acked, 1);
    assert_int_equal(server.opened, 1);
    tqi_channel_rele(channel);
    testing_connector_stop(connector);
    testing_until(&server.ended, 1);
    assert_int_equal(server.settled_lost, 0);
    testing_server_stop(&server);
}

static void test_round_trip_unix(void **state)
{
    (void)state;
    round_trip(testing_unix_endpoint());
}

static void test_round_trip_tcp(void **state)
{
    (void)state;
    round_trip("tcp:127.0.0.1:0");
    round_trip("tcp:localhost:0");
}

static void payloads(const char *endpoint)
{
    static const size_t sizes[] = {0, 1, 39, 40, 41, 1000, 65495, 65496, 65536, 70000, 1 << 20, 8 << 20};
    testing_server server;
    testing_server_start(&server, endpoint, 1, 1000);
    tqi_connector *connector = testing_connector(&testing_token, 0);
    tqi_channel *channel = testing_channel(connector, server.endpoint);
    size_t most = sizes[sizeof sizes / sizeof *sizes - 1];
    uint8_t *data = malloc(most);
    uint8_t *back = malloc(most);
    assert_non_null(data);
    assert_non_null(back);
    for (size_t i = 0; i < most; i++) {
        data[i] = testing_byte(i);
    }
    uint64_t total = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
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
    testing_until(&server.sent, (int)(sizeof sizes / sizeof *sizes));
    tqi_channel_rele(channel);
    testing_connector_stop(connector);
    testing_server_stop(&server);
    free(data);
    free(back);
}

static void test_payloads_unix(void **state)
{
    (void)state;
    payloads(testing_unix_endpoint());
}

static void test_payloads_tcp(void **state)
{
    (void)state;
    payloads("tcp:[::1]:0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_round_trip_unix, testing_setup, testing_teardown),
        cmocka_unit_test_setup_teardown(test_round_trip_tcp, testing_setup, testing_teardown),
        cmocka_unit_test_setup_teardown(test_payloads_unix, testing_setup, testing_teardown),
        cmocka_unit_test_setup_teardown(test_payloads_tcp, testing_setup, testing_teardown),
    };
    return cmocka_run_group_tests_name("net", tests, NULL, NULL);
}
