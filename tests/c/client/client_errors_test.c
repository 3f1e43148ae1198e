/*
 * client_errors_test.c - every mistake is refused with its own error, which names it, and the state is unchanged.
 */
#include "testkit_usual.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const tq_dtype f32 = {TQ_FLOAT, 32};

static uint32_t samples_of(const char *partition)
{
    expect_ok(op, tq_query_status(op));
    for (size_t i = 0; i < tq_op_status(op)->n_partitions; i++) {
        if (strcmp(tq_op_status(op)->partitions[i]->name, partition) == 0) {
            return tq_op_status(op)->partitions[i]->samples;
        }
    }
    return 0;
}

static void bad_puts_are_refused(void **state)
{
    float data[6] = {0};
    tq_slice slice = {data, sizeof(data)};
    uint64_t shape = 2;
    char name[TQ_NAME_MAX + 2];
    const char *keys[3] = {"a", "", "c"};
    tq_column columns[2] = {
        {.name = "x", .dtype = f32, .rows = 3, .ndim = 1, .shape = &shape, .slices = &slice, .n_slices = 1},
        {.name = "y", .dtype = f32, .rows = 2, .ndim = 1, .shape = &shape, .slices = &slice, .n_slices = 1},
    };
    tq_put_args args = {.size = sizeof(args), .partition = "bad", .n = 3, .columns = columns, .n_columns = 2};

    (void)state;

    memset(name, 'n', sizeof(name) - 1);
    name[sizeof(name) - 1] = 0;
    expect_error(op, tq_put(op, &args), TQ_EROWS, "'y': expected 3 rows, given 2");
    columns[1].rows = 3;
    slice.size -= 4;
    expect_error(op, tq_put(op, &args), TQ_EROWS, "'x': expected 24 bytes for 3 rows, given 20");
    slice.size += 4;
    columns[1].name = "x";
    expect_error(op, tq_put(op, &args), TQ_EINVAL, "'x' is given twice");
    columns[1].name = "";
    expect_error(op, tq_put(op, &args), TQ_ENAME, "field");
    columns[1].name = name;
    expect_error(op, tq_put(op, &args), TQ_ENAME, "field");
    columns[1].name = "y";
    columns[1].dtype.bits = 33;
    expect_error(op, tq_put(op, &args), TQ_EDTYPE, "'y'");
    columns[1].dtype.bits = 32;
    args.keys = keys;
    expect_error(op, tq_put(op, &args), TQ_ENAME, "key 1");
    args.keys = NULL;
    args.partition = "";
    expect_error(op, tq_put(op, &args), TQ_ENAME, "partition");
    args.partition = "bad";
    args.n_columns = 0;
    args.n = 0;
    expect_error(op, tq_put(op, &args), TQ_EINVAL, "'bad': no samples");
    assert_int_equal(samples_of("bad"), 0);
}

/* Reads the partition as it is now. */
static void read_all_of(const tq_resolve_args *resolve)
{
    assert_int_equal(tq_resolve(op, resolve), TQ_OK);
    assert_int_equal(tq_op_wait(op), TQ_OK);
    tq_meta *now = tq_meta_ref(tq_op_meta(op));
    assert_int_equal(tq_get(op, now, NULL, 0, NULL), TQ_OK);
    assert_int_equal(tq_op_wait(op), TQ_OK);
    tq_meta_unref(now);
}

/* Rows that are all replaced may be of another dtype; the rest keep theirs. */
static void replaced_rows_may_have_another_dtype(void **state)
{
    tq_meta *meta = put_numbers(op, "dtype", "x", 4, 7, NULL);
    float data[4] = {0, 1.5f, 2, 3};
    tq_slice slice = {data, sizeof(data)};
    tq_column column = {.name = "x", .dtype = f32, .rows = 4, .slices = &slice, .n_slices = 1};
    tq_put_args args = {.size = sizeof(args), .meta = meta, .columns = &column, .n_columns = 1};
    const tq_resolve_args resolve = {.size = sizeof(resolve), .partition = "dtype"};
    const uint32_t some[] = {1, 2};
    tq_meta *part = NULL;
    tq_error err = {0};

    (void)state;

    assert_int_equal(tq_meta_select(meta, some, 2, NULL, 0, &part, &err), TQ_OK);
    column.rows = 2;
    slice.size = 2 * sizeof(*data);
    args.meta = part;
    assert_int_equal(tq_put(op, &args), TQ_OK);
    assert_int_equal(tq_op_wait(op), TQ_OK);
    read_all_of(&resolve);
    const tq_data_column *read = tq_data_column_at(tq_op_data(op), 0);
    assert_non_null(read->types);
    assert_int_equal(read->types[0].dtype.code, TQ_INT);
    assert_int_equal(read->types[1].dtype.code, TQ_FLOAT);
    assert_int_equal(read->offsets[3] % 16, 0);
    assert_int_equal(*(int64_t *)(void *)((char *)read->data + read->offsets[3]), 7 + 3);
    assert_true(*(float *)(void *)((char *)read->data + read->offsets[2]) == 1.5f);

    column.rows = 4;
    slice.size = sizeof(data);
    args.meta = meta;
    assert_int_equal(tq_put(op, &args), TQ_OK);
    assert_int_equal(tq_op_wait(op), TQ_OK);
    read_all_of(&resolve);
    read = tq_data_column_at(tq_op_data(op), 0);
    assert_null(read->types);
    assert_int_equal(read->dtype.code, TQ_FLOAT);
    assert_memory_equal(read->data, data, sizeof data);
    tq_meta_unref(part);
    assert_int_equal(samples_of("dtype"), 4);
    tq_meta_unref(meta);
}

static void bad_claims_are_refused(void **state)
{
    const char *field = "x";
    tq_claim_args claim = {
        .size = sizeof(claim),
        .partition = "p",
        .fields = &field,
        .n_fields = 1,
        .batch_size = 0,
        .task = "t",
    };

    (void)state;

    expect_error(op, tq_claim(op, &claim), TQ_ESIZE, "given 0");
    claim.batch_size = -3;
    expect_error(op, tq_claim(op, &claim), TQ_ESIZE, "given -3");
    claim.batch_size = 1;
    claim.sampler = "nonsense";
    expect_error(op, tq_claim(op, &claim), TQ_ESAMPLER, "nonsense");
    claim.sampler = NULL;
    claim.task = "";
    expect_error(op, tq_claim(op, &claim), TQ_ENAME, "task");
    claim.task = "t";
    claim.n_fields = 0;
    expect_error(op, tq_claim(op, &claim), TQ_EINVAL, "no fields");
}

static void bad_reads_are_refused(void **state)
{
    tq_meta *meta = put_numbers(op, "reads", "x", 3, 0, NULL);
    tq_meta *hand;
    const char *key = "nobody";
    const char *fields[2] = {"x", "y"};
    tq_resolve_args resolve = {.size = sizeof(resolve), .partition = "reads", .keys = &key, .n = 1};

    (void)state;

    expect_error(op, tq_resolve(op, &resolve), TQ_EKEY, "nobody");
    resolve.partition = "nowhere";
    expect_error(op, tq_resolve(op, &resolve), TQ_EPARTITION, "nowhere");
    assert_int_equal(tq_meta_make("reads", tq_meta_indexes(meta), NULL, 3, fields, 2, &hand, NULL), TQ_OK);
    expect_error(op, tq_get(op, hand, NULL, 0, NULL), TQ_EFIELD, "'y'");
    tq_meta *more = put_numbers(op, "reads", "y", 2, 0, NULL);
    expect_error(op, tq_get(op, hand, NULL, 0, NULL), TQ_ENOTREADY, "field 'y' of samples");
    tq_meta_unref(hand);
    /* Without placements, so that the controller is asked: a read by placements may still find the
     * bytes until the unit has freed them. */
    assert_int_equal(
        tq_meta_make("reads", tq_meta_indexes(meta), tq_meta_incarnations(meta), 3, fields, 1, &hand, NULL), TQ_OK);
    expect_ok(op, tq_clear_meta(op, meta));
    expect_error(op, tq_get(op, hand, NULL, 0, NULL), TQ_ECLEARED, "");
    expect_ok(op, tq_clear_meta(op, meta));
    assert_int_equal(tq_op_count(op), 0);
    tq_meta_unref(more);
    tq_meta_unref(hand);
    tq_meta_unref(meta);
}

static void a_full_store_refuses(void **state)
{
    size_t bytes = 6u << 20;
    uint8_t *data = calloc(1, bytes);
    uint64_t shape = bytes;
    tq_slice slice = {data, bytes};
    tq_column column = {
        .name = "x",
        .dtype = {TQ_UINT, 8},
        .rows = 1,
        .ndim = 1,
        .shape = &shape,
        .slices = &slice,
        .n_slices = 1,
    };
    tq_put_args args = {.size = sizeof(args), .partition = "full", .n = 1, .columns = &column, .n_columns = 1};
    tq_op *waiting = tq_op_alloc(client, NULL, NULL);

    (void)state;

    expect_ok(op, tq_put(op, &args));
    expect_ok(op, tq_put(op, &args)); /* the other unit */
    args.fail_when_full = true;
    expect_error(op, tq_put(op, &args), TQ_EFULL, "");
    assert_int_equal(samples_of("full"), 2);
    args.fail_when_full = false;

    /* One that waits for room ends when it is cancelled, whether it is asked early or late. */
    tq_op_set_timeout(waiting, -1);
    assert_int_equal(tq_put(waiting, &args), TQ_OK);
    tq_op_cancel(waiting);
    assert_int_equal(tq_op_wait(waiting), TQ_ECANCELED);
    assert_int_equal(tq_put(waiting, &args), TQ_OK);
    assert_int_equal(samples_of("full"), 2); /* meanwhile it may have come to a unit */
    tq_op_cancel(waiting);
    assert_int_equal(tq_op_wait(waiting), TQ_ECANCELED);
    assert_int_equal(samples_of("full"), 2);

    tq_op_set_timeout(waiting, 0);
    assert_int_equal(tq_put(waiting, &args), TQ_OK);
    expect_ok(op, tq_clear_partition(op, "full"));
    assert_int_equal(tq_op_count(op), 2);
    expect_ok(waiting, TQ_OK);
    expect_ok(op, tq_clear_partition(op, "full"));
    tq_op_free(waiting);
    free(data);
}

static void lost_samples_are_named(void **state)
{
    tq_meta *meta = put_numbers(op, "lost", "x", 3, 0, NULL);

    (void)state;

    system_stop_unit(&sys, 0);
    system_stop_unit(&sys, 1);
    /* The controller gives the units up after their timeout: wait for its word on it. */
    for (uint64_t since = 0; since != UINT64_MAX;) {
        size_t n;
        const tq_event *const *events;
        expect_ok(op, tq_query_events(op, since, 0, true));
        events = tq_op_events(op, &n, &since);
        for (size_t i = 0; i < n; i++) {
            if (strcmp(events[i]->kind, "lost") == 0 && strcmp(events[i]->partition, "lost") == 0) {
                assert_int_equal(events[i]->samples, 3);
                since = UINT64_MAX;
            }
        }
    }
    tq_meta *hand;
    const char *field = "x";
    assert_int_equal(tq_meta_make("lost", tq_meta_indexes(meta), NULL, 3, &field, 1, &hand, NULL), TQ_OK);
    expect_error(op, tq_get(op, hand, NULL, 0, NULL), TQ_ELOST, "field 'x' of samples");
    tq_meta_unref(hand);
    tq_meta_unref(meta);
}

static void what_cannot_be_opened_is_refused(void **state)
{
    tq_error err = {0};
    tq_client *other = NULL;
    tq_client_options options = {.size = sizeof(options), .address = sys.address, .token = "wrong", .timeout = 5};

    (void)state;

    assert_int_equal(tq_client_open(&options, &other, &err), TQ_EAUTH);
    assert_null(other);
    options.token = "correct-horse-battery-staple";
    options.manager = "Nonsense";
    assert_int_equal(tq_client_open(&options, &other, &err), TQ_EMANAGER);
    options.manager = NULL;
    options.address = "unix:/nonexistent/socket";
    options.timeout = 0.2;
    assert_int_equal(tq_client_open(&options, &other, &err), TQ_EUNREACHABLE);
    assert_non_null(strstr(err.message, "/nonexistent/socket"));
    options.size = 3;
    assert_int_equal(tq_client_open(&options, &other, &err), TQ_EINVAL);
    options.size = sizeof(options);
    options.address = sys.address;
    options.manager = "";
    options.timeout = 5;
    assert_int_equal(tq_client_open(&options, &other, &err), TQ_OK);
    tq_meta *meta = put_numbers(op, "plain", "x", 2, 0, NULL);
    tq_op *plain = tq_op_alloc(other, NULL, NULL);
    expect_error(plain, tq_get(plain, meta, NULL, 0, NULL), TQ_EMANAGER, "without a storage manager");
    tq_op_free(plain);
    tq_meta_unref(meta);
    tq_client_close(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(bad_puts_are_refused, usual_setup, usual_teardown),
        cmocka_unit_test_setup_teardown(replaced_rows_may_have_another_dtype, usual_setup, usual_teardown),
        cmocka_unit_test_setup_teardown(bad_claims_are_refused, usual_setup, usual_teardown),
        cmocka_unit_test_setup_teardown(bad_reads_are_refused, usual_setup, usual_teardown),
        cmocka_unit_test_setup_teardown(a_full_store_refuses, usual_setup, usual_teardown),
        cmocka_unit_test_setup_teardown(lost_samples_are_named, usual_setup, usual_teardown),
        cmocka_unit_test_setup_teardown(what_cannot_be_opened_is_refused, usual_setup, usual_teardown),
    };

    return cmocka_run_group_tests_name("client_errors", tests, NULL, NULL);
}
