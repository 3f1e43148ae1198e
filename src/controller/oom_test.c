/*
 * oom_test.c - every allocation of a starting controller, and of converting a batch, fails once: the call says so and
 * nothing leaks.
 */
#include "controller/test_kit.h"

#include "base/oom.h"
#include "controller/convert.h"

static void closed(void *arg)
{
    *(bool *)arg = true;
}

static void a_controller_starts_or_says_why(void **state)
{
    tqi_token token = {.size = 5, .bytes = "token"};
    const char *listen[] = {"tcp:127.0.0.1:0"};
    tqi_controller_options options = {
        .token = &token, .listen = listen, .n_listen = 1, .events = 16};
    uv_loop_t loop;
    bool done = false;
    int rc = TQ_ENOMEM;
    (void)state;
    assert_int_equal(uv_loop_init(&loop), 0);
    for (long n = 0; rc != TQ_OK; n++) {
        tqi_controller *controller = NULL;
        tq_error err = {0};
        assert_true(n < 1000);
        oom_all_after(n);
        rc = tqi_controller_alloc(&loop, &options, &controller, &err);
        oom_end();
        if (rc == TQ_OK) {
            assert_true(n > 4);
            tqi_controller_close(controller, closed, &done);
        } else {
            assert_int_equal(rc, err.code);
            assert_true(err.message[0] != 0);
            assert_null(controller);
        }
        assert_int_equal(uv_run(&loop, UV_RUN_DEFAULT), 0);
    }
    assert_true(done);
    assert_int_equal(uv_loop_close(&loop), 0);
}

static void batches_convert_or_say_why(void **state)
{
    enum {
        ROWS = 3000
    };
    static uint32_t indexes[ROWS];
    static tqi_run runs[ROWS];
    for (uint32_t i = 0; i < ROWS; i++) {
        indexes[i] = i;
        runs[i] = (tqi_run){.block = i % 3 ? 1 + i % 2 : TQI_RUN_LOST, .rows = 1, .offset = i};
    }
    tqi_batch_field fields[] = {{.name = "x", .dtype = {TQ_INT, 8}, .runs = runs, .n_runs = ROWS}};
    tqi_batch_block blocks[] = {{.id = 1, .owner = "a", .owner_incarnation = 1, .size = ROWS},
                                {.id = 2, .owner = "a", .owner_incarnation = 2, .size = ROWS}};
    tqi_batch batch = {.partition = "p",
                       .n = ROWS,
                       .indexes = indexes,
                       .fields = fields,
                       .n_fields = 1,
                       .blocks = blocks,
                       .n_blocks = 2};
    int rc = TQ_ENOMEM;
    (void)state;
    for (long n = 0; rc != TQ_OK; n++) {
        tqi_conv conv = {0};
        Tq__Batch message;
        tqi_batch back = {0};
        tq_error err = {0};
        oom_all_after(n);
        rc = tqi_conv_batch_out(&conv, &batch, 9, &message, &err);
        if (rc == TQ_OK) {
            rc = tqi_conv_batch_in(&conv, &message, ROWS, &back, &err);
        }
        oom_end();
        assert_int_equal(rc, err.code);
        if (rc == TQ_OK) {
            assert_true(n > 2);
            assert_int_equal(message.n_owner, 2);
            assert_int_equal(message.field[0]->run_block[0], 3);
            assert_int_equal(back.n, ROWS);
            assert_memory_equal(back.fields[0].runs, runs, sizeof(runs));
            assert_int_equal(back.blocks[1].owner_incarnation, 2);
        }
        tqi_conv_fini(&conv);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_controller_starts_or_says_why),
        cmocka_unit_test(batches_convert_or_say_why),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
