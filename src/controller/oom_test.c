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

/* Whether a client was told that it waits, since the last time that this was asked. */
static bool was_told(kit_client *client, uint64_t *seen)
{
    Tq__Events ask = TQ__EVENTS__INIT;
    bool told = false;
    ask.since = *seen;
    Tq__EventsReply *reply = kit_ok(client, TQI_EVENTS, &ask);
    for (size_t i = 0; i < reply->n_event; i++) {
        told = told || strcmp(reply->event[i]->kind, "wait") == 0;
    }
    *seen = reply->next;
    kit_free(reply);
    return told;
}

/* A question of a client what of it waits. */
typedef struct asked {
    bool done;
    int status;
    size_t waits;
    long failures; /* allocations that failed until the answer came */
} asked;

static void asked_done(tqi_call *call, tqi_answer *answer, void *arg)
{
    asked *about = arg;
    (void)call;
    about->failures = oom_end();
    about->done = true;
    about->status = answer->status;
    about->waits = answer->status ? 0 : ((const Tq__SystemStatusReply *)answer->reply)->n_wait;
}

/* With one allocation that fails after `after` others; < 0: none. */
static asked ask_what_waits(kit_client *client, long after)
{
    Tq__SystemStatus message = TQ__SYSTEM_STATUS__INIT;
    asked about = {0};
    tq_error err = {0};
    tqi_call *call;
    message.mine = true;
    const tqi_call_args args = {.kind = TQI_SYSTEM_STATUS,
                                .message = &message.base,
                                .deadline = TQI_NEVER,
                                .done = asked_done,
                                .arg = &about};
    assert_int_equal(tqi_call_start(client->channel, &args, &call, &err), TQ_OK);
    if (after >= 0) {
        oom_one_after(after);
    }
    while (!about.done) {
        uv_run(&client->kit->loop, UV_RUN_ONCE);
    }
    return about;
}

/* A client whose question what of it waits could not be answered is told when it asks again. */
static void what_waits_is_told_after_an_answer_that_failed(void **state)
{
    kit k;
    kit_client client;
    asked first = {.failures = 1};
    long refused = 0;
    uint64_t seen = 0;
    char *field[] = {"x"};
    (void)state;
    kit_start(&k, NULL);
    kit_connect(&k, &client, "client");
    for (long n = 0; first.failures > 0; n++) {
        Tq__Claim claim;
        kit_call waiting;
        kit_claim(&claim, "p", field, 1, "t");
        kit_send(&client, TQI_CLAIM, &claim, &waiting);
        kit_until_waiting(&client, 1);
        (void)was_told(&client, &seen);
        first = ask_what_waits(&client, n);
        /* The client may have had no memory for its answer either: that one was made. */
        if (first.status != TQ_OK && !was_told(&client, &seen)) {
            assert_int_equal(first.status, TQ_ENOMEM);
            refused++;
            assert_int_equal(ask_what_waits(&client, -1).waits, 1);
        }
        tqi_call_cancel(waiting.call);
        assert_int_equal(kit_wait(&waiting), TQ_ECANCELED);
        kit_end(&waiting);
        kit_until_waiting(&client, 0);
    }
    assert_int_equal(first.waits, 1);
    assert_true(refused > 2);
    kit_disconnect(&client);
    kit_stop(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_controller_starts_or_says_why),
        cmocka_unit_test(batches_convert_or_say_why),
        cmocka_unit_test(what_waits_is_told_after_an_answer_that_failed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
