/*
 * metrics_test.c - the text of a set of metrics: numbers, labels of any bytes, histograms; and no memory for it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/testkit_oom.h"
#include "metrics/metrics.h"

static void assert_line(const tqi_buf *text, const char *line)
{
    char wanted[256];

    snprintf(wanted, sizeof(wanted), "\n%s\n", line);
    if (strstr((const char *)text->data, wanted) == NULL) {
        fail_msg("no line '%s' in:\n%s", line, (const char *)text->data);
    }
}

/* A set with one of everything. */
static tqi_metric_set *make(void)
{
    tqi_metric_set *set = tqi_metric_set_alloc();
    tqi_histogram histogram = {0};

    if (set != NULL) {
        tqi_histogram_add(&histogram, 10000);                  /* 10 us: the bound belongs to the bucket */
        tqi_histogram_add(&histogram, 2000000);                /* 2 ms */
        tqi_histogram_add(&histogram, UINT64_C(400000000000)); /* 400 s: beyond all bounds */
        tqi_metric_add(set, TQI_M_PARTITIONS, NULL, NULL, 3);
        tqi_metric_add(set, TQI_M_UPTIME, NULL, NULL, 1.5);
        tqi_metric_add(set, TQI_M_PARTITION_SAMPLES, "a\"b\\c\nd", NULL, 1e15);
        tqi_metric_add(set, TQI_M_PARTITION_SAMPLES, "caf\xC3\xA9 \xFF\xED\xA0\x80", NULL, 2);
        tqi_metric_add(set, TQI_M_PRODUCTION, "p", "t", 0.25);
        tqi_metric_add_histogram(set, TQI_M_TASK_WAIT, "train", &histogram);
    }
    return set;
}

static void text_of_a_set(void **state)
{
    tqi_metric_set *set = make();
    tqi_buf text = {0};

    (void)state;
    assert_int_equal(tqi_metric_render(set, &text), TQ_OK);
    assert_line(&text, "# TYPE tq_partitions_total gauge\ntq_partitions_total 3");
    assert_line(&text, "tq_controller_uptime_seconds 1.5");
    assert_line(&text, "tq_partition_samples_total{partition_id=\"a\\\"b\\\\c\\nd\"} 1000000000000000");
    assert_line(&text, "tq_partition_samples_total{partition_id=\"caf\xC3\xA9 ????\"} 2");
    assert_line(&text, "tq_partition_production_progress{partition_id=\"p\",task_name=\"t\"} 0.25");
    assert_line(&text, "# TYPE tq_task_claim_wait_seconds histogram");
    assert_line(&text, "tq_task_claim_wait_seconds_bucket{task=\"train\",le=\"1e-05\"} 1");
    assert_line(&text, "tq_task_claim_wait_seconds_bucket{task=\"train\",le=\"0.001\"} 1");
    assert_line(&text, "tq_task_claim_wait_seconds_bucket{task=\"train\",le=\"0.005\"} 2");
    assert_line(&text, "tq_task_claim_wait_seconds_bucket{task=\"train\",le=\"300\"} 2");
    assert_line(&text, "tq_task_claim_wait_seconds_bucket{task=\"train\",le=\"+Inf\"} 3");
    assert_line(&text, "tq_task_claim_wait_seconds_sum{task=\"train\"} 400.00201");
    assert_line(&text, "tq_task_claim_wait_seconds_count{task=\"train\"} 3");
    /* A family without a value is announced. */
    assert_line(&text, "# TYPE tq_storage_capacity_total gauge");
    assert_null(strstr((const char *)text.data, "tq_storage_capacity_total{"));
    tqi_buf_fini(&text);
    tqi_metric_set_free(set);
    tqi_metric_set_free(NULL);
}

static void quantiles(void **state)
{
    tqi_histogram histogram = {0};

    (void)state;
    assert_true(tqi_histogram_quantile(&histogram, 0.5) == 0);
    for (int i = 0; i < 98; i++) {
        tqi_histogram_add(&histogram, 20000); /* of 10 to 50 us */
    }
    tqi_histogram_add(&histogram, 40000000); /* of 25 to 50 ms */
    tqi_histogram_add(&histogram, UINT64_C(400000000000));
    assert_in_range(tqi_histogram_quantile(&histogram, 0.5), 25000, 35000);
    assert_in_range(tqi_histogram_quantile(&histogram, 0.99), 25000001, 50000000);
    assert_true(tqi_histogram_quantile(&histogram, 1) == UINT64_C(300000000000));
}

/* Whichever allocation fails, a set is rendered completely or not at all. */
static void no_memory(void **state)
{
    size_t whole = 0;
    long n = 0;
    int rc;

    (void)state;
    do {
        tqi_buf text = {0};
        oom_all_after(n++);
        tqi_metric_set *set = make();
        rc = set != NULL ? tqi_metric_render(set, &text) : TQ_ENOMEM;
        oom_end();
        assert_true(rc == TQ_OK || rc == TQ_ENOMEM);
        whole = text.size;
        tqi_buf_fini(&text);
        tqi_metric_set_free(set);
    } while (rc != TQ_OK);
    assert_true(n > 5);
    assert_true(whole > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_of_a_set),
        cmocka_unit_test(quantiles),
        cmocka_unit_test(no_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
