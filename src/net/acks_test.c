/*
 * acks_test.c - when replies are acknowledged to a server.
 */
#include "net/calling.h"
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

/* A publish: nothing depends on its acknowledgement. */
static void publish(tqi_net_channel *on)
{
    testing_call call = {0};
    uint8_t byte = testing_byte(0);

    testing_write(on, &call, TQI_PUBLISH, &byte, 1, 20);
    testing_until(&call.done, 1);
    assert_int_equal(call.status, TQ_OK);
}

/* The answer to a publish is acknowledged by the next request, or when the session closes, not by a separate frame. */
static void an_answer_is_acknowledged_by_the_next_request(void **state)
{
    (void)state;
    testing_call claim = {0};
    publish(channel);
    testing_run_ms(20);
    assert_int_equal(server.settled_acked, 0);
    publish(channel);
    assert_int_equal(server.settled_acked, 1);
    testing_run_ms(20);
    assert_int_equal(server.settled_acked, 1);
    /* What the server must know is sent at once, and acknowledges everything. */
    testing_claim(channel, &claim, true, 20);
    testing_until(&claim.done, 1);
    testing_until(&server.settled_acked, 3);
    tqi_net_connector *own = testing_connector(&testing_token, 0);
    publish(testing_channel(own, server.endpoint));
    assert_int_equal(server.settled_acked, 3);
    testing_connector_stop(own);
    testing_until(&server.ended, 1);
    assert_int_equal(server.settled_acked, 4);
    assert_int_equal(server.settled_lost, 0);
}

/* Large answers are acknowledged at once, and so is one of very many. */
static void large_or_many_answers_are_acknowledged_at_once(void **state)
{
    (void)state;
    int n = 0;
    while (channel->ack_sent == 0 && n < 400) {
        publish(channel);
        uv_run(&testing_loop, UV_RUN_NOWAIT);
        n++;
    }
    assert_in_range(n, 10, 399);
    testing_until(&server.settled_acked, n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_answer_is_acknowledged_by_the_next_request, setup, teardown),
        cmocka_unit_test_setup_teardown(large_or_many_answers_are_acknowledged_at_once, setup, teardown),
    };

    return cmocka_run_group_tests_name("net_acks", tests, NULL, NULL);
}
