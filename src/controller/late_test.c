/*
 * late_test.c - over the real connection: what a store may still write is removed twice, whichever session collects.
 */
#include "controller/testkit.h"

static kit k;
static kit_client collector, other, writer;

static int setup_with(uint64_t write_deadline_ms)
{
    tqi_controller_options options = {
        .grace_ms = 60000,
        .owner_timeout_ms = 60000,
        .write_deadline_ms = write_deadline_ms,
    };

    kit_start(&k, &options);
    kit_connect(&k, &collector, "collector");
    kit_connect(&k, &other, "other");
    kit_connect(&k, &writer, "writer");
    kit_register(&collector, "store", 5, true);
    kit_register(&other, "store", 5, true);
    return 0;
}

/* The second removal comes soon. */
static int setup_soon(void **state)
{
    (void)state;
    return setup_with(20);
}

/* It does not come while the test runs. */
static int setup_usual(void **state)
{
    (void)state;
    return setup_with(0);
}

static int teardown(void **state)
{
    (void)state;
    kit_disconnect(&writer);
    kit_stop(&k);
    return 0;
}

static void collect(kit_client *who, uint64_t done, kit_call *call)
{
    Tq__CollectDead msg;

    tq__collect_dead__init(&msg);
    msg.owner = (char *)(uintptr_t) "store";
    msg.done = done;
    kit_send(who, TQI_COLLECT_DEAD, &msg, call);
}

/* The first one to ask is the collector. */
static void begin(kit_call *call)
{
    collect(&collector, 0, call);
    kit_until_waiting(&collector, 0);
}

/* Waits for a notice of one range and returns its number. */
static uint64_t expect_notice(kit_call *call, uint64_t first, uint32_t count, bool writer_done)
{
    assert_int_equal(kit_wait(call), TQ_OK);
    const Tq__CollectDeadReply *reply = (const Tq__CollectDeadReply *)call->reply;
    uint64_t notice = reply->notice;
    assert_int_equal(reply->n_first, 1);
    assert_true(reply->first[0] == first);
    assert_int_equal(reply->count[0], count);
    assert_int_equal(reply->writer_done.data[0], writer_done);
    kit_end(call);
    return notice;
}

/* A put that the store did not answer. */
static uint64_t give_up(uint32_t n)
{
    uint64_t ids[8], first = kit_grant(&writer, "store", n);
    Tq__AbandonBlocks msg;

    for (uint32_t i = 0; i < n; i++) {
        ids[i] = first + i;
    }
    tq__abandon_blocks__init(&msg);
    msg.id = ids;
    msg.n_id = n;
    msg.writing = true;
    kit_free(kit_ok(&writer, TQI_ABANDON_BLOCKS, &msg));
    return first;
}

static void the_collector_of_then_removes_again(void **state)
{
    kit_call call, waiting;

    (void)state;
    begin(&call);
    collect(&other, 0, &waiting);
    uint64_t first = give_up(3);
    collect(&collector, expect_notice(&call, first, 3, false), &call);
    kit_until_waiting(&collector, 0); /* it is done, and asks for more */
    kit_disconnect(&collector);       /* if the notice came before that, it comes again */
    kit_end(&call);
    uint64_t notice = expect_notice(&waiting, first, 3, true);
    /* Redelivered until confirmed, and then no more. */
    collect(&other, 0, &waiting);
    assert_true(expect_notice(&waiting, first, 3, true) == notice);
    collect(&other, notice, &waiting);
    uint64_t next = give_up(1);
    collect(&other, expect_notice(&waiting, next, 1, false), &waiting);
    collect(&other, expect_notice(&waiting, next, 1, true), &waiting);
    kit_until_waiting(&other, 0);
    assert_false(waiting.done);
    kit_disconnect(&other);
    kit_end(&waiting);
}

static void a_writer_that_ended_is_removed_again(void **state)
{
    kit_call call;

    (void)state;
    begin(&call);
    uint64_t first = kit_grant(&writer, "store", 2);
    kit_disconnect(&writer);
    kit_connect(&k, &writer, "writer");
    collect(&collector, expect_notice(&call, first, 2, false), &call);
    collect(&collector, expect_notice(&call, first, 2, true), &call);
    kit_until_waiting(&collector, 0);
    assert_false(call.done);
    kit_disconnect(&other);
    kit_disconnect(&collector);
    kit_end(&call);
}

/* No session is connected when the time comes: the next one to connect gets the notice. */
static void nobody_has_to_be_there(void **state)
{
    kit_call call;

    (void)state;
    kit_disconnect(&other);
    begin(&call);
    uint64_t first = give_up(1);
    collect(&collector, expect_notice(&call, first, 1, false), &call);
    kit_until_waiting(&collector, 0);
    kit_disconnect(&collector); /* if the notice came before that, it comes again */
    kit_end(&call);
    kit_connect(&k, &other, "other");
    kit_register(&other, "store", 5, true);
    collect(&other, 0, &call);
    collect(&other, expect_notice(&call, first, 1, true), &call);
    kit_until_waiting(&other, 0);
    assert_false(call.done);
    kit_disconnect(&other);
    kit_end(&call);
}

static void drained(uint64_t left, void *arg)
{
    uint64_t *out = arg;

    *out = left;
}

/* When the system ends it is done at once, even for blocks that die only then. */
static void the_end_does_not_wait(void **state)
{
    kit_call call, waiting;
    uint64_t left = 77;

    (void)state;
    begin(&call);
    collect(&other, 0, &waiting);
    uint64_t first = give_up(2);
    collect(&collector, expect_notice(&call, first, 2, false), &call);
    kit_until_waiting(&collector, 0);
    kit_disconnect(&collector);
    kit_end(&call);
    uint64_t lost = give_up(1);
    uint64_t notice = expect_notice(&waiting, lost, 1, false);
    assert_true(tqi_controller_stored_elsewhere(k.controller).dead);
    tqi_controller_drain(k.controller, 60000, drained, &left);
    collect(&other, 0, &waiting);
    assert_int_equal(kit_wait(&waiting), TQ_OK);
    const Tq__CollectDeadReply *reply = (const Tq__CollectDeadReply *)waiting.reply;
    assert_int_equal(reply->n_first, 2);
    assert_true(reply->first[0] == lost && reply->writer_done.data[0] == 0);
    assert_true(reply->first[1] == first && reply->writer_done.data[1] == 1);
    assert_true(reply->notice > notice);
    notice = reply->notice;
    kit_end(&waiting);
    collect(&other, notice, &waiting);
    collect(&other, expect_notice(&waiting, lost, 1, true), &waiting);
    while (left == 77) {
        uv_run(&k.loop, UV_RUN_ONCE);
    }
    assert_int_equal(left, 0);
    assert_false(tqi_controller_stored_elsewhere(k.controller).dead);
    kit_disconnect(&other);
    kit_end(&waiting);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_collector_of_then_removes_again, setup_soon, teardown),
        cmocka_unit_test_setup_teardown(a_writer_that_ended_is_removed_again, setup_soon, teardown),
        cmocka_unit_test_setup_teardown(nobody_has_to_be_there, setup_soon, teardown),
        cmocka_unit_test_setup_teardown(the_end_does_not_wait, setup_usual, teardown),
    };

    return cmocka_run_group_tests_name("late blocks, over the wire", tests, NULL, NULL);
}
