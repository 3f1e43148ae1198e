/*
 * metrics_test.c - what a controller's metrics say after known puts, claims, clears and losses.
 */
#include "controller/testkit.h"

static kit k;
static kit_client unit, client;

static int setup(void **state)
{
    tqi_controller_options options = {
        .grace_ms = 60000,
        .owner_timeout_ms = 60000,
        .events = 64,
        .epoch = 4711,
        .metrics = true,
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

static void put(const char *partition, const char *field, uint32_t rows)
{
    kit_put what = {.partition = partition, .field = field, .rows = rows};

    kit_free(kit_publish(&client, &what));
}

/* The metrics of now as text. */
static tqi_buf metrics(uint32_t max_partitions)
{
    tqi_metric_set *set = NULL;
    tqi_buf text = {0};
    tq_error err = {0};

    assert_int_equal(tqi_controller_metrics(k.controller, max_partitions, &set, &err), TQ_OK);
    assert_int_equal(tqi_metric_render(set, &text), TQ_OK);
    tqi_metric_set_free(set);
    return text;
}

static void has(const tqi_buf *text, const char *line)
{
    char wanted[256];

    snprintf(wanted, sizeof(wanted), "\n%s\n", line);
    if (strstr((const char *)text->data, wanted) == NULL) {
        fail_msg("no line '%s' in:\n%s", line, (const char *)text->data);
    }
}

static void has_not(const tqi_buf *text, const char *part)
{
    assert_null(strstr((const char *)text->data, part));
}

static void puts_and_claims_are_counted(void **state)
{
    (void)state;
    put("p", "x", 4);
    put("q", "x", 2);
    assert_int_equal(kit_poll(&client, "p", "x", 1, "t"), 1);
    assert_int_equal(kit_poll(&client, "p", "x", 9, "t"), 0); /* too few: an answer, not an error */
    tqi_buf text = metrics(8);
    has(&text, "tq_partitions_total 2");
    has(&text, "tq_partition_samples_total{partition_id=\"p\"} 4");
    has(&text, "tq_partition_bytes{partition_id=\"p\"} 32");
    has(&text, "tq_partition_production_progress{partition_id=\"p\",task_name=\"all\"} 1");
    has(&text, "tq_partition_production_progress{partition_id=\"p\",task_name=\"t\"} 1");
    has(&text, "tq_partition_consumption_progress{partition_id=\"p\",task_name=\"t\"} 0.25");
    has(&text, "tq_global_index_allocated_total 6");
    has(&text, "tq_global_index_reusable_total 0");
    has(&text, "tq_controller_request_total{op_type=\"NOTIFY_DATA_UPDATE\"} 2");
    has(&text, "tq_controller_request_samples_total{op_type=\"NOTIFY_DATA_UPDATE\"} 6");
    has(&text, "tq_controller_request_total{op_type=\"GET_META\"} 2");
    has(&text, "tq_controller_request_samples_total{op_type=\"GET_META\"} 1");
    has(&text, "tq_controller_request_errors_total{op_type=\"GET_META\"} 0");
    has(&text, "tq_controller_request_duration_seconds_count{op_type=\"GET_META\"} 2");
    has(&text, "tq_task_ready_samples{task=\"t\"} 3");
    has(&text, "tq_task_unconsumed_samples{task=\"t\"} 3");
    has(&text, "tq_task_claims_total{task=\"t\"} 1");
    has(&text, "tq_task_samples_total{task=\"t\"} 1");
    has(&text, "tq_task_bytes_total{task=\"t\"} 8");
    has(&text, "tq_task_claim_wait_seconds_count{task=\"t\"} 1");
    has(&text, "tq_field_cells_total{field=\"x\"} 6");
    has(&text, "tq_field_bytes_total{field=\"x\"} 48");
    has(&text, "tq_events_total{kind=\"put\"} 2");
    has(&text, "tq_sessions{state=\"connected\"} 2");
    has(&text, "tq_owner_up{owner=\"unit\"} 1");
    has(&text, "tq_owner_blocks{owner=\"unit\"} 2");
    has(&text, "tq_samples 6");
    has(&text, "tq_build_info{version=\"" TQI_VERSION "\",epoch=\"0000000000001267\"} 1");
    has_not(&text, "(other)");
    tqi_buf_fini(&text);
}

static void clears_and_refusals_are_counted(void **state)
{
    Tq__Clear clear;
    Tq__Claim claim;
    char *field[] = {(char *)(uintptr_t) "x"};

    (void)state;
    tq__claim__init(&claim);
    tq__clear__init(&clear);
    tq__claim__init(&claim);
    put("p", "x", 3);
    clear.partition = (char *)(uintptr_t) "p";
    uint32_t one[] = {0};
    clear.index = one;
    clear.n_index = 1;
    kit_free(kit_ok(&client, TQI_CLEAR, &clear));
    kit_claim(&claim, "p", field, 0, "t");
    kit_fails(&client, TQI_CLAIM, &claim, TQ_ESIZE, "size");
    tqi_buf text = metrics(8);
    has(&text, "tq_partition_samples_total{partition_id=\"p\"} 2");
    has(&text, "tq_global_index_reusable_total 1");
    has(&text, "tq_controller_request_samples_total{op_type=\"CLEAR_META\"} 1");
    has(&text, "tq_controller_request_errors_total{op_type=\"GET_META\"} 1");
    tqi_buf_fini(&text);
    clear.n_index = 0;
    clear.all = true;
    kit_free(kit_ok(&client, TQI_CLEAR, &clear));
    text = metrics(8);
    has(&text, "tq_controller_request_total{op_type=\"CLEAR_META\"} 1");
    has(&text, "tq_controller_request_total{op_type=\"CLEAR_PARTITION\"} 1");
    has(&text, "tq_partitions_total 0");
    has_not(&text, "partition_id=");
    tqi_buf_fini(&text);
}

static void claims_that_wait_are_shown_by_task(void **state)
{
    Tq__Claim claim;
    char *field[] = {(char *)(uintptr_t) "x"};
    kit_call call = {0};

    (void)state;
    tq__claim__init(&claim);
    kit_claim(&claim, "p", field, 2, "t");
    claim.poll = false;
    kit_send(&client, TQI_CLAIM, &claim, &call);
    kit_until_waiting(&unit, 1);
    tqi_buf text = metrics(8);
    has(&text, "tq_waiting_claims 1");
    has(&text, "tq_task_waiting_claims{task=\"t\"} 1");
    has(&text, "tq_task_claims_total{task=\"t\"} 0");
    tqi_buf_fini(&text);
    kit_put what = {.partition = "p", .field = "x", .rows = 2};
    kit_free(kit_publish(&client, &what));
    assert_int_equal(kit_wait(&call), TQ_OK);
    kit_end(&call);
    text = metrics(8);
    has(&text, "tq_waiting_claims 0");
    has(&text, "tq_task_waiting_claims{task=\"t\"} 0");
    has(&text, "tq_task_claim_wait_seconds_count{task=\"t\"} 1");
    tqi_buf_fini(&text);
}

static void only_the_newest_partitions_have_series(void **state)
{
    char name[32];

    (void)state;
    for (int i = 0; i < 5; i++) {
        snprintf(name, sizeof(name), "step-%d", i);
        put(name, "x", 1);
    }
    tqi_buf text = metrics(2);
    has(&text, "tq_partitions_total 5");
    has(&text, "tq_partitions_without_series 3");
    has(&text, "tq_samples 5");
    has(&text, "tq_partition_samples_total{partition_id=\"step-3\"} 1");
    has(&text, "tq_partition_samples_total{partition_id=\"step-4\"} 1");
    has_not(&text, "step-2");
    tqi_buf_fini(&text);
    text = metrics(0);
    has(&text, "tq_samples 5");
    has_not(&text, "step-");
    tqi_buf_fini(&text);
}

static void names_are_bounded(void **state)
{
    char name[32];

    (void)state;
    for (int i = 0; i < (int)TQI_METRIC_NAMES_MAX + 3; i++) {
        snprintf(name, sizeof(name), "f%d", i);
        put("p", name, 1);
    }
    tqi_buf text = metrics(1);
    has(&text, "tq_field_cells_total{field=\"f0\"} 1");
    has(&text, "tq_field_cells_total{field=\"f255\"} 1");
    has(&text, "tq_field_cells_total{field=\"(other)\"} 3");
    has_not(&text, "field=\"f256\"");
    tqi_buf_fini(&text);
}

static void lost_cells_are_shown(void **state)
{
    Tq__ReportLost report;
    kit_put what = {.partition = "p", .field = "x", .rows = 3};

    (void)state;
    tq__report_lost__init(&report);
    kit_free(kit_publish(&client, &what));
    report.id = &what.block;
    report.n_id = 1;
    kit_free(kit_ok(&unit, TQI_REPORT_LOST, &report));
    tqi_buf text = metrics(1);
    has(&text, "tq_lost_samples 3");
    has(&text, "tq_lost_cells 3");
    has(&text, "tq_events_total{kind=\"lost\"} 1");
    has(&text, "tq_owner_blocks{owner=\"unit\"} 0");
    tqi_buf_fini(&text);
}

static void reports_of_owners_are_shown(void **state)
{
    char *names[] = {(char *)(uintptr_t) "used_bytes", (char *)(uintptr_t) "hits"};
    uint64_t values[] = {11, 22};
    Tq__ReportOwner report;

    (void)state;
    tq__report_owner__init(&report);
    report.name = (char *)(uintptr_t) "unit";
    report.counter = names;
    report.value = values;
    report.n_counter = report.n_value = 2;
    kit_free(kit_ok(&unit, TQI_REPORT_OWNER, &report));
    tqi_buf text = metrics(1);
    has(&text, "tq_owner_used_bytes{owner=\"unit\"} 11");
    has(&text, "tq_owner_counter{owner=\"unit\",counter=\"hits\"} 22");
    has_not(&text, "tq_storage_active_keys_total{");
    tqi_buf_fini(&text);
}

/* Known counters have dedicated metrics, whatever storage manager the owner belongs to. */
static void known_counters_have_their_own_metrics(void **state)
{
    static const char *const names[] = {"capacity_bytes", "used_bytes", "rss_bytes", "put_p99_ns", "blocks"};
    uint64_t values[] = {100, 25, 4096, 2000000, 7};
    char *counters[5];
    Tq__ReportOwner report;

    (void)state;
    for (int i = 0; i < 5; i++) {
        counters[i] = (char *)(uintptr_t)names[i];
    }
    tq__report_owner__init(&report);
    report.name = (char *)(uintptr_t) "unit";
    report.counter = counters;
    report.value = values;
    report.n_counter = report.n_value = 5;
    kit_free(kit_ok(&unit, TQI_REPORT_OWNER, &report));
    tqi_buf text = metrics(1);
    has(&text, "tq_owner_capacity_bytes{owner=\"unit\"} 100");
    has(&text, "tq_storage_memory_rss_bytes{storage_unit_id=\"unit\"} 4096");
    has(&text, "tq_storage_utilization_ratio{storage_unit_id=\"unit\"} 0.25");
    has(&text, "tq_storage_request_latency_p99{storage_unit_id=\"unit\",op_type=\"PUT_DATA\"} 0.002");
    has(&text, "tq_owner_counter{owner=\"unit\",counter=\"blocks\"} 7");
    has_not(&text, "counter=\"put_p99_ns\"");
    tqi_buf_fini(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(puts_and_claims_are_counted, setup, teardown),
        cmocka_unit_test_setup_teardown(clears_and_refusals_are_counted, setup, teardown),
        cmocka_unit_test_setup_teardown(claims_that_wait_are_shown_by_task, setup, teardown),
        cmocka_unit_test_setup_teardown(only_the_newest_partitions_have_series, setup, teardown),
        cmocka_unit_test_setup_teardown(names_are_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(lost_cells_are_shown, setup, teardown),
        cmocka_unit_test_setup_teardown(reports_of_owners_are_shown, setup, teardown),
        cmocka_unit_test_setup_teardown(known_counters_have_their_own_metrics, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
