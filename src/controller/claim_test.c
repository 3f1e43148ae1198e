/*
 * claim_test.c - claims over the real connection: taken, waiting, woken, timed out, cancelled, given back.
 */
#include "controller/testkit.h"

static char *value[] = {(char *)(uintptr_t) "value"};

static void put(const char *partition, uint32_t rows)
{
    kit_put what = {.partition = partition, .field = "value", .rows = rows};

    kit_free(kit_publish(&kit_usual.producer, &what));
}

static void gives_what_is_ready(void **state)
{
    Tq__Claim claim;
    Tq__ConsumptionQuery query;
    Tq__Clear clear;

    (void)state;
    put("p", 4);
    kit_claim(&claim, "p", value, 3, "train");
    Tq__ClaimReply *reply = kit_ok(&kit_usual.consumer, TQI_CLAIM, &claim);
    const Tq__Batch *batch = reply->batch;
    assert_true(reply->claim != 0);
    assert_string_equal(batch->partition, "p");
    assert_int_equal(batch->n_index, 3);
    assert_int_equal(batch->n_field, 1);
    assert_string_equal(batch->field[0]->name, "value");
    assert_int_equal(batch->field[0]->dtype, TQ_INT | 64 << 8);
    assert_int_equal(batch->n_block, 1);
    assert_int_equal(batch->n_owner, 1);
    assert_string_equal(batch->owner[0]->name, "unit");
    assert_int_equal(batch->owner[0]->incarnation, 77);
    assert_int_equal(batch->block[0]->locator.len, 4);
    assert_memory_equal(batch->block[0]->locator.data, "here", 4);
    uint32_t rows = 0;
    for (size_t i = 0; i < batch->field[0]->n_run_block; i++) {
        assert_int_equal(batch->field[0]->run_block[i], 1);
        assert_int_equal(batch->field[0]->run_offset[i], rows * 8);
        rows += batch->field[0]->run_rows[i];
    }
    assert_int_equal(rows, 3);
    kit_free(reply);
    assert_int_equal(kit_poll(&kit_usual.consumer, "p", "value", 2, "train"), 0);
    assert_int_equal(kit_poll(&kit_usual.consumer, "p", "value", 4, "other"), 4);
    tq__consumption_query__init(&query);
    query.partition = claim.partition;
    query.task = claim.task;
    Tq__ConsumptionReply *consumed = kit_ok(&kit_usual.producer, TQI_CONSUMPTION, &query);
    assert_true(consumed->known);
    assert_int_equal(consumed->n_index, 4);
    assert_int_equal(consumed->consumed.len, 4);
    assert_memory_equal(consumed->consumed.data, "\1\1\1\0", 4);
    kit_free(consumed);
    tq__clear__init(&clear);
    clear.partition = claim.partition;
    clear.all = true;
    Tq__ClearReply *cleared = kit_ok(&kit_usual.producer, TQI_CLEAR, &clear);
    assert_int_equal(cleared->samples, 4);
    kit_free(cleared);
    consumed = kit_ok(&kit_usual.producer, TQI_CONSUMPTION, &query);
    assert_false(consumed->known);
    kit_free(consumed);
}

static void waits_until_there_is_enough(void **state)
{
    Tq__Claim claim;
    kit_call call;

    (void)state;
    /* Neither partition nor field exist yet. */
    kit_claim(&claim, "p", value, 3, "train");
    kit_send(&kit_usual.consumer, TQI_CLAIM, &claim, &call);
    kit_until_waiting(&kit_usual.producer, 1);
    put("p", 2);
    put("elsewhere", 8);
    kit_until_waiting(&kit_usual.producer, 1);
    assert_false(call.done);
    put("p", 1);
    assert_int_equal(kit_wait(&call), TQ_OK);
    assert_int_equal(((Tq__ClaimReply *)call.reply)->batch->n_index, 3);
    kit_end(&call);
    kit_until_waiting(&kit_usual.producer, 0);
}

static void serves_the_oldest_first(void **state)
{
    Tq__Claim claim;
    kit_call first, second, large;

    (void)state;
    kit_claim(&claim, "p", value, 8, "train");
    kit_send(&kit_usual.consumer, TQI_CLAIM, &claim, &large);
    kit_until_waiting(&kit_usual.producer, 1);
    claim.batch_size = 2;
    kit_send(&kit_usual.consumer, TQI_CLAIM, &claim, &first);
    kit_until_waiting(&kit_usual.producer, 2);
    kit_send(&kit_usual.consumer, TQI_CLAIM, &claim, &second);
    kit_until_waiting(&kit_usual.producer, 3);
    put("p", 3);
    assert_int_equal(kit_wait(&first), TQ_OK);
    kit_until_waiting(&kit_usual.producer, 2);
    assert_false(second.done);
    put("p", 9);
    assert_int_equal(kit_wait(&large), TQ_OK);
    assert_int_equal(kit_wait(&second), TQ_OK);
    assert_int_equal(((Tq__ClaimReply *)large.reply)->batch->n_index, 8);
    kit_end(&first);
    kit_end(&second);
    kit_end(&large);
}

static void waits_on_when_its_partition_is_cleared(void **state)
{
    Tq__Claim claim;
    Tq__Clear clear;
    kit_call call;

    (void)state;
    put("p", 1);
    kit_claim(&claim, "p", value, 2, "train");
    kit_send(&kit_usual.consumer, TQI_CLAIM, &claim, &call);
    kit_until_waiting(&kit_usual.producer, 1);
    tq__clear__init(&clear);
    clear.partition = claim.partition;
    clear.all = true;
    kit_free(kit_ok(&kit_usual.producer, TQI_CLEAR, &clear));
    put("p", 1);
    kit_until_waiting(&kit_usual.producer, 1);
    put("p", 1);
    assert_int_equal(kit_wait(&call), TQ_OK);
    assert_int_equal(((Tq__ClaimReply *)call.reply)->batch->n_index, 2);
    kit_end(&call);
}

static void times_out_with_the_reason(void **state)
{
    Tq__Claim claim;
    kit_call call;

    (void)state;
    put("p", 2);
    kit_claim(&claim, "p", value, 5, "train");
    claim.timeout_ms = 30;
    kit_send(&kit_usual.consumer, TQI_CLAIM, &claim, &call);
    assert_int_equal(kit_wait(&call), TQ_ETIMEDOUT);
    assert_non_null(strstr(call.error.message, "5 samples"));
    assert_non_null(strstr(call.error.message, "'p'"));
    assert_non_null(strstr(call.error.message, "'train'"));
    assert_non_null(strstr(call.error.message, "value"));
    assert_non_null(strstr(call.error.message, "2 ready"));
    assert_non_null(strstr(call.error.message, "the partition has 2 samples"));
    assert_non_null(strstr(call.error.message, "asked the system at unix:"));
    assert_non_null(strstr(call.error.message, "has been up for 0 s"));
    kit_end(&call);
    kit_until_waiting(&kit_usual.producer, 0);
    assert_int_equal(kit_poll(&kit_usual.consumer, "p", "value", 2, "train"), 2);
}

/* A claim that times out at once; whether its message has the text. */
static void times_out_saying(char **fields, size_t n, const char *config, const char *text)
{
    Tq__Claim claim;
    kit_call call;

    kit_claim(&claim, "p", fields, 4, "train");
    claim.n_field = n;
    claim.timeout_ms = 1;
    if (config != NULL) {
        claim.sampler = (char *)(uintptr_t) "GRPOGroupNSampler";
        claim.config = (char *)(uintptr_t)config;
    }
    kit_send(&kit_usual.consumer, TQI_CLAIM, &claim, &call);
    assert_int_equal(kit_wait(&call), TQ_ETIMEDOUT);
    if (strstr(call.error.message, text) == NULL) {
        fail_msg("'%s' is not in: %s", text, call.error.message);
    }
    kit_end(&call);
}

static void says_what_a_claim_lacks(void **state)
{
    char *fields[] = {(char *)(uintptr_t) "extra", (char *)(uintptr_t) "value", (char *)(uintptr_t) "xtra"};
    kit_put what = {.partition = "p", .field = "extra", .rows = 1};

    (void)state;
    times_out_saying(value, 1, NULL, "there is no partition 'p' (misspelt?)");
    put("p", 3);
    kit_free(kit_publish(&kit_usual.producer, &what));
    times_out_saying(fields, 3, NULL,
                     "no sample of the partition has the fields ['xtra'] (misspelt?); the "
                     "partition has 4 samples; 'extra': 1 have it, 3 lack it; 'value': 3 have it, "
                     "1 lack it; asked");
    assert_int_equal(kit_poll(&kit_usual.consumer, "p", "value", 2, "train"), 2);
    times_out_saying(value, 1, NULL, "the partition has 4 samples, 2 of them consumed by the task");
    times_out_saying(value, 1, "{\"n_samples_per_prompt\": 2}",
                     "1 of the ready ones are in 1 incomplete groups of 2: that of put number 2 to "
                     "3 has 1 ready");
}

static void lists_the_claims_that_wait(void **state)
{
    Tq__SystemStatus ask = TQ__SYSTEM_STATUS__INIT;
    Tq__Events events = TQ__EVENTS__INIT;
    Tq__Claim claim;
    kit_call mine, other;

    (void)state;
    put("p", 2);
    kit_claim(&claim, "p", value, 5, "train");
    kit_send(&kit_usual.consumer, TQI_CLAIM, &claim, &mine);
    kit_until_waiting(&kit_usual.producer, 1);
    kit_claim(&claim, "q", value, 1, "eval");
    kit_send(&kit_usual.producer, TQI_CLAIM, &claim, &other);
    kit_until_waiting(&kit_usual.producer, 2);
    Tq__SystemStatusReply *all = kit_ok(&kit_usual.producer, TQI_SYSTEM_STATUS, &ask);
    assert_int_equal(all->n_wait, 2);
    const Tq__WaitInfo *wait = all->wait[strcmp(all->wait[0]->client, "consumer") != 0];
    assert_string_equal(wait->kind, "claim");
    assert_string_equal(wait->client, "consumer");
    assert_string_equal(wait->task, "train");
    assert_string_equal(wait->partition, "p");
    assert_int_equal(wait->n_field, 1);
    assert_string_equal(wait->field[0], "value");
    assert_int_equal(wait->wanted, 5);
    assert_int_equal(wait->ready, 2);
    assert_string_equal(wait->missing, "the partition has 2 samples");
    assert_false(wait->suspect);
    assert_int_equal(wait->session.len, 0);
    kit_free(all);
    /* A session that asks for its own waits gets a notice of each once, which is then an event. */
    ask.mine = true;
    ask.older_ms = 3600000;
    for (uint32_t i = 0; i < 3; i++) {
        all = kit_ok(&kit_usual.producer, TQI_SYSTEM_STATUS, &ask);
        assert_int_equal(all->n_wait, i == 1);
        if (i == 1) {
            assert_string_equal(all->wait[0]->task, "eval");
            assert_true(all->wait[0]->suspect);
        }
        assert_int_equal(all->n_partition, 0);
        kit_free(all);
        ask.older_ms = 0;
    }
    Tq__EventsReply *happened = kit_ok(&kit_usual.producer, TQI_EVENTS, &events);
    size_t waits = 0;
    for (size_t i = 0; i < happened->n_event; i++) {
        if (strcmp(happened->event[i]->kind, "wait") == 0) {
            waits++;
            assert_string_equal(happened->event[i]->session, "producer");
            assert_string_equal(happened->event[i]->task, "eval");
            assert_int_equal(happened->event[i]->samples, 1);
        }
    }
    assert_int_equal(waits, 1);
    kit_free(happened);
    tqi_net_call_cancel(mine.call);
    tqi_net_call_cancel(other.call);
    assert_int_equal(kit_wait(&mine), TQ_ECANCELED);
    assert_int_equal(kit_wait(&other), TQ_ECANCELED);
    kit_end(&mine);
    kit_end(&other);
    ask.mine = false;
    all = kit_ok(&kit_usual.producer, TQI_SYSTEM_STATUS, &ask);
    assert_int_equal(all->n_wait, 0);
    kit_free(all);
}

static void keeps_deadlines_in_order(void **state)
{
    Tq__Claim claim;
    kit_call late, soon, never;

    (void)state;
    kit_claim(&claim, "p", value, 5, "train");
    kit_send(&kit_usual.consumer, TQI_CLAIM, &claim, &never);
    claim.timeout_ms = 60000;
    kit_send(&kit_usual.consumer, TQI_CLAIM, &claim, &late);
    claim.timeout_ms = 20;
    kit_send(&kit_usual.consumer, TQI_CLAIM, &claim, &soon);
    assert_int_equal(kit_wait(&soon), TQ_ETIMEDOUT);
    assert_false(late.done);
    tqi_net_call_cancel(late.call);
    assert_int_equal(kit_wait(&late), TQ_ECANCELED);
    assert_false(never.done);
    put("p", 5);
    assert_int_equal(kit_wait(&never), TQ_OK);
    kit_end(&late);
    kit_end(&soon);
    kit_end(&never);
}

static void can_be_cancelled(void **state)
{
    Tq__Claim claim;
    kit_call call;

    (void)state;
    kit_claim(&claim, "p", value, 1, "train");
    kit_send(&kit_usual.consumer, TQI_CLAIM, &claim, &call);
    kit_until_waiting(&kit_usual.producer, 1);
    tqi_net_call_cancel(call.call);
    assert_int_equal(kit_wait(&call), TQ_ECANCELED);
    kit_end(&call);
    kit_until_waiting(&kit_usual.producer, 0);
    put("p", 1);
    assert_int_equal(kit_poll(&kit_usual.consumer, "p", "value", 1, "train"), 1);
}

static void goes_back_when_never_acknowledged(void **state)
{
    Tq__Claim claim;
    kit_raw raw;
    tqi_frame frame;
    kit_call call;

    (void)state;
    put("p", 2);
    kit_raw_open(&kit_usual.k, &raw);
    kit_claim(&claim, "p", value, 2, "train");
    kit_raw_send(&raw, TQI_CLAIM, 0, &claim);
    Tq__ClaimReply *reply = kit_raw_receive(&raw, &frame);
    assert_int_equal(frame.kind, TQI_CLAIM);
    assert_int_equal(reply->batch->n_index, 2);
    kit_free(reply);
    assert_int_equal(kit_poll(&kit_usual.consumer, "p", "value", 1, "train"), 0);
    /* Another claim waits for these samples, and gets them when the session ends without an ack. */
    kit_send(&kit_usual.consumer, TQI_CLAIM, &claim, &call);
    kit_until_waiting(&kit_usual.producer, 1);
    kit_raw_send(&raw, TQI_BYE, 0, NULL);
    assert_int_equal(kit_wait(&call), TQ_OK);
    assert_int_equal(((Tq__ClaimReply *)call.reply)->batch->n_index, 2);
    kit_end(&call);
    kit_raw_close(&raw);
}

static void stays_taken_once_acknowledged(void **state)
{
    Tq__Claim claim;
    Tq__Events ask;
    kit_raw raw;
    tqi_frame frame;
    kit_call call;

    (void)state;
    put("p", 2);
    tq__events__init(&ask);
    Tq__EventsReply *events = kit_ok(&kit_usual.producer, TQI_EVENTS, &ask);
    ask.since = events->next;
    kit_free(events);
    kit_raw_open(&kit_usual.k, &raw);
    kit_claim(&claim, "p", value, 2, "train");
    uint64_t number = kit_raw_send(&raw, TQI_CLAIM, 0, &claim);
    kit_free(kit_raw_receive(&raw, &frame));
    kit_raw_send(&raw, TQI_ACK, number + 1, NULL);
    kit_raw_send(&raw, TQI_BYE, 0, NULL);
    /* join and claim of the raw session, then its leave. */
    ask.wait = true;
    for (bool left = false; !left;) {
        kit_send(&kit_usual.producer, TQI_EVENTS, &ask, &call);
        assert_int_equal(kit_wait(&call), TQ_OK);
        events = (Tq__EventsReply *)call.reply;
        ask.since = events->next;
        left = events->n_event && strcmp(events->event[events->n_event - 1]->kind, "leave") == 0;
        kit_end(&call);
    }
    assert_int_equal(kit_poll(&kit_usual.consumer, "p", "value", 1, "train"), 0);
    kit_raw_close(&raw);
}

static void waiting_claims_end_with_their_session(void **state)
{
    Tq__Claim claim;
    kit_raw raw;
    kit_call call;

    (void)state;
    kit_raw_open(&kit_usual.k, &raw);
    kit_claim(&claim, "p", value, 1, "train");
    kit_raw_send(&raw, TQI_CLAIM, 0, &claim);
    kit_until_waiting(&kit_usual.producer, 1);
    kit_send(&kit_usual.consumer, TQI_CLAIM, &claim, &call);
    kit_until_waiting(&kit_usual.producer, 2);
    kit_raw_send(&raw, TQI_BYE, 0, NULL);
    kit_until_waiting(&kit_usual.producer, 1);
    put("p", 1);
    assert_int_equal(kit_wait(&call), TQ_OK);
    kit_end(&call);
    kit_raw_close(&raw);
}

static void is_given_back_by_release(void **state)
{
    Tq__Claim claim;
    Tq__Release release = TQ__RELEASE__INIT;
    kit_raw raw;
    tqi_frame frame;

    (void)state;
    put("p", 2);
    kit_raw_open(&kit_usual.k, &raw);
    kit_claim(&claim, "p", value, 2, "train");
    kit_raw_send(&raw, TQI_CLAIM, 0, &claim);
    Tq__ClaimReply *reply = kit_raw_receive(&raw, &frame);
    release.claim = reply->claim;
    kit_free(reply);
    /* Only its own session gives it back. */
    kit_free(kit_ok(&kit_usual.consumer, TQI_RELEASE, &release));
    assert_int_equal(kit_poll(&kit_usual.consumer, "p", "value", 2, "train"), 0);
    kit_raw_send(&raw, TQI_RELEASE, 0, &release);
    kit_free(kit_raw_receive(&raw, &frame));
    assert_int_equal(frame.kind, TQI_RELEASE);
    assert_int_equal(kit_poll(&kit_usual.consumer, "p", "value", 2, "train"), 2);
    kit_raw_close(&raw);
}

static void force_gives_everything(void **state)
{
    Tq__Claim claim;
    char *fields[] = {value[0], (char *)(uintptr_t) "missing"};

    (void)state;
    put("p", 3);
    assert_int_equal(kit_poll(&kit_usual.consumer, "p", "value", 2, "train"), 2);
    kit_claim(&claim, "p", fields, -1, "train");
    claim.n_field = 2;
    claim.mode = TQ__CLAIM_MODE__FORCE_FETCH;
    claim.sampler = (char *)(uintptr_t) "no such sampler";
    Tq__ClaimReply *reply = kit_ok(&kit_usual.consumer, TQI_CLAIM, &claim);
    assert_int_equal(reply->batch->n_index, 3);
    assert_int_equal(reply->batch->n_field, 1);
    assert_true(reply->claim == 0);
    kit_free(reply);
    claim.partition = (char *)(uintptr_t) "nowhere";
    reply = kit_ok(&kit_usual.consumer, TQI_CLAIM, &claim);
    assert_int_equal(reply->batch->n_index, 0);
    kit_free(reply);
    assert_int_equal(kit_poll(&kit_usual.consumer, "p", "value", 1, "train"), 1);
}

static void refuses_what_cannot_be(void **state)
{
    Tq__Claim claim;

    (void)state;
    put("p", 4);
    kit_claim(&claim, "p", value, 0, "train");
    kit_fails(&kit_usual.consumer, TQI_CLAIM, &claim, TQ_ESIZE, "0 samples");
    claim.batch_size = -3;
    kit_fails(&kit_usual.consumer, TQI_CLAIM, &claim, TQ_ESIZE, "-3 samples");
    claim.batch_size = 2;
    claim.sampler = (char *)(uintptr_t) "roulette";
    kit_fails(&kit_usual.consumer, TQI_CLAIM, &claim, TQ_ESAMPLER, "roulette");
    claim.sampler = (char *)(uintptr_t) "";
    claim.n_field = 0;
    kit_fails(&kit_usual.consumer, TQI_CLAIM, &claim, TQ_EINVAL, "no field");
    claim.n_field = 1;
    claim.task = (char *)(uintptr_t) "";
    kit_fails(&kit_usual.consumer, TQI_CLAIM, &claim, TQ_ENAME, "task");
    claim.task = (char *)(uintptr_t) "train";
    claim.partition = (char *)(uintptr_t) "";
    kit_fails(&kit_usual.consumer, TQI_CLAIM, &claim, TQ_ENAME, "partition");
    claim.partition = (char *)(uintptr_t) "p";
    claim.mode = (Tq__ClaimMode)9;
    kit_fails(&kit_usual.consumer, TQI_CLAIM, &claim, TQ_EINVAL, "mode");
    assert_int_equal(kit_poll(&kit_usual.consumer, "p", "value", 4, "train"), 4);
}

static void fails_at_once_when_the_sampler_says_so(void **state)
{
    Tq__Claim claim;

    (void)state;
    kit_claim(&claim, "p", value, 5, "train");
    claim.sampler = (char *)(uintptr_t) "grpo_group_n";
    claim.config = (char *)(uintptr_t) "{\"n_samples_per_prompt\": 2}";
    kit_fails(&kit_usual.consumer, TQI_CLAIM, &claim, TQ_EINVAL, "5");
}

static void polling_is_an_option_of_the_controller(void **state)
{
    tqi_controller_options options = {.polling = true, .grace_ms = 1000, .first_counters = 3};
    Tq__Claim claim;

    (void)state;
    kit_start(&kit_usual.k, &options);
    kit_connect(&kit_usual.k, &kit_usual.unit, "unit");
    kit_connect(&kit_usual.k, &kit_usual.producer, "producer");
    kit_connect(&kit_usual.k, &kit_usual.consumer, "consumer");
    kit_register(&kit_usual.unit, "unit", 77, false);
    kit_claim(&claim, "p", value, 8, "train");
    kit_fails(&kit_usual.consumer, TQI_CLAIM, &claim, TQ_EAGAIN, "");
    /* With counters that wrap on the way. */
    put("p", 8);
    assert_int_equal(kit_poll(&kit_usual.consumer, "p", "value", 8, "train"), 8);
    assert_int_equal(kit_poll(&kit_usual.consumer, "p", "value", 1, "train"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(gives_what_is_ready, kit_usual_start, kit_usual_stop),
        cmocka_unit_test_setup_teardown(waits_until_there_is_enough, kit_usual_start, kit_usual_stop),
        cmocka_unit_test_setup_teardown(serves_the_oldest_first, kit_usual_start, kit_usual_stop),
        cmocka_unit_test_setup_teardown(waits_on_when_its_partition_is_cleared, kit_usual_start, kit_usual_stop),
        cmocka_unit_test_setup_teardown(times_out_with_the_reason, kit_usual_start, kit_usual_stop),
        cmocka_unit_test_setup_teardown(says_what_a_claim_lacks, kit_usual_start, kit_usual_stop),
        cmocka_unit_test_setup_teardown(lists_the_claims_that_wait, kit_usual_start, kit_usual_stop),
        cmocka_unit_test_setup_teardown(keeps_deadlines_in_order, kit_usual_start, kit_usual_stop),
        cmocka_unit_test_setup_teardown(can_be_cancelled, kit_usual_start, kit_usual_stop),
        cmocka_unit_test_setup_teardown(goes_back_when_never_acknowledged, kit_usual_start, kit_usual_stop),
        cmocka_unit_test_setup_teardown(stays_taken_once_acknowledged, kit_usual_start, kit_usual_stop),
        cmocka_unit_test_setup_teardown(waiting_claims_end_with_their_session, kit_usual_start, kit_usual_stop),
        cmocka_unit_test_setup_teardown(is_given_back_by_release, kit_usual_start, kit_usual_stop),
        cmocka_unit_test_setup_teardown(force_gives_everything, kit_usual_start, kit_usual_stop),
        cmocka_unit_test_setup_teardown(refuses_what_cannot_be, kit_usual_start, kit_usual_stop),
        cmocka_unit_test_setup_teardown(fails_at_once_when_the_sampler_says_so, kit_usual_start, kit_usual_stop),
        cmocka_unit_test_teardown(polling_is_an_option_of_the_controller, kit_usual_stop),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
