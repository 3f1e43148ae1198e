/*
 * status_test.c - events and status over the real connection, and what a controller refuses to start with.
 */
#include <unistd.h>

#include "base/limits.h"
#include "controller/testkit.h"

static kit k;
static kit_client unit, client;

static char *text(const char *s)
{
    return (char *)(uintptr_t)s;
}

static int setup(void **state)
{
    tqi_controller_options options = {
        .grace_ms = 60000,
        .owner_timeout_ms = 60000,
        .events = 8,
        .epoch = 4711,
        .manager = "test",
        .manager_config = "{\"a\": 1}",
    };

    (void)state;
    kit_start(&k, &options);
    kit_connect(&k, &unit, "unit");
    kit_connect(&k, &client, "client");
    kit_register(&unit, "unit", 77, false);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    kit_disconnect(&unit);
    kit_disconnect(&client);
    kit_stop(&k);
    return 0;
}

static void put(uint32_t rows)
{
    kit_put what = {.partition = "p", .field = "x", .rows = rows};

    kit_free(kit_publish(&client, &what));
}

static void events_tell_what_happened(void **state)
{
    Tq__Events ask = TQ__EVENTS__INIT;

    (void)state;
    put(2);
    assert_int_equal(kit_poll(&client, "p", "x", 1, "t"), 1);
    Tq__EventsReply *reply = kit_ok(&client, TQI_EVENTS, &ask);
    const char *kinds[] = {"join", "join", "owner", "put", "claim"};
    assert_int_equal(reply->n_event, 5);
    assert_int_equal(reply->next, 5);
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(reply->event[i]->seq, i + 1);
        assert_string_equal(reply->event[i]->kind, kinds[i]);
        assert_true(reply->event[i]->time_us > 0);
    }
    assert_string_equal(reply->event[3]->session, "client");
    assert_string_equal(reply->event[3]->partition, "p");
    assert_int_equal(reply->event[3]->samples, 2);
    assert_int_equal(reply->event[3]->bytes, 16);
    assert_string_equal(reply->event[4]->task, "t");
    assert_int_equal(reply->event[4]->samples, 1);
    kit_free(reply);
    ask.since = 3;
    ask.limit = 1;
    reply = kit_ok(&client, TQI_EVENTS, &ask);
    assert_int_equal(reply->n_event, 1);
    assert_int_equal(reply->event[0]->seq, 4);
    assert_int_equal(reply->next, 4);
    kit_free(reply);
}

static void the_ring_keeps_the_newest(void **state)
{
    Tq__Events ask = TQ__EVENTS__INIT;

    (void)state;
    for (int i = 0; i < 10; i++) {
        put(1);
    }
    Tq__EventsReply *reply = kit_ok(&client, TQI_EVENTS, &ask);
    assert_int_equal(reply->n_event, 8);
    assert_int_equal(reply->event[0]->seq, 6);
    assert_int_equal(reply->next, 13);
    kit_free(reply);
}

/* The byte limit is exceeded just when the ring has filled up: the newest event stays, and only what is dropped
 * counts. */
static void the_newest_event_stays_in_few_bytes(void **state)
{
    Tq__Events ask = TQ__EVENTS__INIT;
    const tqi_limits_table saved = tqi_limits;
    uint64_t before = tqi_limit_times(TQI_LIMIT_event_bytes);

    (void)state;
    for (int i = 0; i < 4; i++) {
        put(1); /* numbers 4 to 7 */
    }
    tqi_limits.event_bytes = 1;
    put(1);
    Tq__EventsReply *reply = kit_ok(&client, TQI_EVENTS, &ask);
    assert_int_equal(reply->n_event, 1);
    assert_int_equal(reply->event[0]->seq, 8);
    assert_int_equal(reply->next, 8);
    kit_free(reply);
    assert_int_equal(tqi_limit_times(TQI_LIMIT_event_bytes), before + 7);
    put(1);
    reply = kit_ok(&client, TQI_EVENTS, &ask);
    assert_int_equal(reply->n_event, 1);
    assert_int_equal(reply->event[0]->seq, 9);
    kit_free(reply);
    assert_int_equal(tqi_limit_times(TQI_LIMIT_event_bytes), before + 8);
    tqi_limits = saved;
}

static void readers_wait_for_the_next_event(void **state)
{
    Tq__Events ask = TQ__EVENTS__INIT;
    kit_call call;

    (void)state;
    /* From another run, with a larger number: continues with the events that follow. */
    ask.since = 1000;
    ask.wait = true;
    kit_send(&unit, TQI_EVENTS, &ask, &call);
    kit_until_waiting(&unit, 0);
    assert_false(call.done);
    put(3);
    assert_int_equal(kit_wait(&call), TQ_OK);
    Tq__EventsReply *reply = (Tq__EventsReply *)call.reply;
    assert_int_equal(reply->n_event, 1);
    assert_string_equal(reply->event[0]->kind, "put");
    ask.since = reply->next;
    kit_end(&call);
    ask.timeout_ms = 5;
    kit_fails(&unit, TQI_EVENTS, &ask, TQ_ETIMEDOUT, "no event");
    ask.timeout_ms = 0;
    kit_send(&unit, TQI_EVENTS, &ask, &call);
    kit_until_waiting(&unit, 0);
    tqi_net_call_cancel(call.call);
    assert_int_equal(kit_wait(&call), TQ_ECANCELED);
    kit_end(&call);
}

/* A number of an earlier run is not one of this run, however large that was. */
static void readers_of_an_earlier_run_begin_anew(void **state)
{
    Tq__Events ask = TQ__EVENTS__INIT;

    (void)state;
    put(1);
    ask.since = 1000;
    ask.wait = true;
    ask.epoch = 4712;
    Tq__EventsReply *reply = kit_ok(&client, TQI_EVENTS, &ask);
    assert_int_equal(reply->n_event, 4);
    assert_int_equal(reply->event[0]->seq, 1);
    assert_true(reply->epoch == 4711);
    ask.epoch = reply->epoch;
    ask.since = 2;
    kit_free(reply);
    reply = kit_ok(&client, TQI_EVENTS, &ask);
    assert_int_equal(reply->n_event, 2);
    kit_free(reply);
}

static void status_shows_all_of_it(void **state)
{
    Tq__SystemStatus ask = TQ__SYSTEM_STATUS__INIT;
    Tq__Claim claim;
    char *fields[] = {text("x")};
    kit_call call;

    (void)state;
    put(3);
    assert_int_equal(kit_poll(&client, "p", "x", 2, "t"), 2);
    kit_claim(&claim, "p", fields, 9, "u");
    kit_send(&client, TQI_CLAIM, &claim, &call);
    kit_until_waiting(&client, 1);
    Tq__SystemStatusReply *reply = kit_ok(&client, TQI_SYSTEM_STATUS, &ask);
    assert_true(reply->epoch == 4711);
    assert_string_equal(reply->version, TQI_VERSION);
    assert_int_equal(reply->waiting, 1);
    assert_true(reply->requests >= 6);
    assert_int_equal(reply->n_partition, 1);
    const Tq__PartitionInfo *partition = reply->partition[0];
    assert_string_equal(partition->name, "p");
    assert_int_equal(partition->samples, 3);
    assert_int_equal(partition->bytes, 24);
    assert_int_equal(partition->n_field, 1);
    assert_string_equal(partition->field[0]->name, "x");
    assert_int_equal(partition->field[0]->produced, 3);
    assert_int_equal(partition->field[0]->dtype, TQ_INT | 64 << 8);
    bool found = false;
    for (size_t i = 0; i < partition->n_task; i++) {
        if (strcmp(partition->task[i]->name, "t") == 0) {
            assert_int_equal(partition->task[i]->consumed, 2);
            found = true;
        }
    }
    assert_true(found);
    assert_int_equal(reply->n_owner, 1);
    assert_string_equal(reply->owner[0]->name, "unit");
    assert_true(reply->owner[0]->present);
    assert_int_equal(reply->n_session, 2);
    for (size_t i = 0; i < reply->n_session; i++) {
        assert_true(reply->session[i]->connected);
        assert_int_equal(reply->session[i]->pid, getpid());
        assert_true(reply->session[i]->name[0] != 0);
    }
    kit_free(reply);
    tqi_net_call_cancel(call.call);
    assert_int_equal(kit_wait(&call), TQ_ECANCELED);
    kit_end(&call);
}

static void hands_out_its_config(void **state)
{
    Tq__SystemConfig ask = TQ__SYSTEM_CONFIG__INIT;

    (void)state;
    Tq__SystemConfigReply *reply = kit_ok(&client, TQI_SYSTEM_CONFIG, &ask);
    assert_string_equal(reply->manager, "test");
    assert_string_equal(reply->manager_config, "{\"a\": 1}");
    assert_string_equal(reply->config, "");
    kit_free(reply);
}

static void answers_no_requests_of_units(void **state)
{
    Tq__UnitStat ask = TQ__UNIT_STAT__INIT;

    (void)state;
    kit_fails(&client, TQI_UNIT_STAT, &ask, TQ_EUNSUPPORTED, "");
}

static void refuses_to_start_with_bad_options(void **state)
{
    uv_loop_t loop;
    tqi_net_token token = {.size = 5, .bytes = "token"};
    const char *listen[] = {"unix:/nonexistent-folder/c.sock"};
    tqi_controller_options options = {.token = &token, .sampler = "roulette", .listen = listen, .n_listen = 1};
    tqi_controller *controller = NULL;
    tq_error err = {0};

    (void)state;
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(tqi_controller_alloc(&loop, &options, &controller, &err), TQ_ESAMPLER);
    assert_non_null(strstr(err.message, "roulette"));
    options.sampler = NULL;
    assert_true(tqi_controller_alloc(&loop, &options, &controller, &err) < 0);
    assert_non_null(strstr(err.message, "nonexistent-folder"));
    options.token = NULL;
    assert_int_equal(tqi_controller_alloc(&loop, &options, &controller, &err), TQ_EINVAL);
    assert_null(controller);
    /* What was opened closes itself. */
    assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(uv_loop_close(&loop), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(events_tell_what_happened, setup, teardown),
        cmocka_unit_test_setup_teardown(the_ring_keeps_the_newest, setup, teardown),
        cmocka_unit_test_setup_teardown(the_newest_event_stays_in_few_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(readers_wait_for_the_next_event, setup, teardown),
        cmocka_unit_test_setup_teardown(readers_of_an_earlier_run_begin_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(status_shows_all_of_it, setup, teardown),
        cmocka_unit_test_setup_teardown(hands_out_its_config, setup, teardown),
        cmocka_unit_test_setup_teardown(answers_no_requests_of_units, setup, teardown),
        cmocka_unit_test(refuses_to_start_with_bad_options),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
