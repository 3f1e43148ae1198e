/*
 * read_test.c - reads whose columns are laid out and placed as the caller asks, from a real system.
 */
#include "testkit.h"
#include "tests/c/testkit_wait.h"

#include <semaphore.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <tq/value.h>

static test_system sys;
static tq_client *client;
static tq_op *op;

static const tq_dtype i32 = {TQ_INT, 32};

static int setup(void **state)
{
    (void)state;
    system_begin(&sys, 2, 16u << 20, 10, &client, &op);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    system_end(&sys, client, op);
    return 0;
}

static _Atomic int released;
static sem_t release; /* posted with each */

static void on_release(void *arg)
{
    atomic_fetch_add((_Atomic int *)arg, 1);
    sem_post(&release);
}

/* Rows of lengths[i] numbers: 1000 * i, 1000 * i + 1, ... */
static tq_meta *put_rows(const char *partition, const uint64_t *lengths, size_t n)
{
    tq_column column = {.name = "x", .dtype = i32, .rows = n, .ndim = 1, .dims = lengths, .n_slices = 1};
    tq_put_args args = {.size = sizeof(args), .partition = partition, .n = n, .columns = &column, .n_columns = 1};
    size_t total = 0, at = 0;
    int32_t *numbers;
    tq_slice slice;

    for (size_t i = 0; i < n; i++) {
        total += lengths[i];
    }
    numbers = malloc((total + 1) * sizeof(*numbers));
    assert_non_null(numbers);
    for (size_t i = 0; i < n; i++) {
        for (uint64_t k = 0; k < lengths[i]; k++) {
            numbers[at++] = (int32_t)(1000 * i + k);
        }
    }
    slice = (tq_slice){numbers, total * sizeof(*numbers)};
    column.slices = &slice;
    expect_ok(op, tq_put(op, &args));
    free(numbers);
    return tq_meta_ref(tq_op_meta(op));
}

static void check_row(const int32_t *at, size_t row, uint64_t used, uint64_t length, int32_t pad)
{
    for (uint64_t k = 0; k < length; k++) {
        assert_int_equal(at[k], k < used ? (int32_t)(1000 * row + k) : pad);
    }
}

static tq_get_field padded(int32_t pad, uint64_t multiple)
{
    tq_get_field field = {.name = "x", .padded = true, .multiple = multiple, .pad_dtype = i32};

    memcpy(field.pad, &pad, sizeof(pad));
    return field;
}

static void ragged_rows_are_padded(void **state)
{
    const uint64_t lengths[4] = {3, 0, 5, 1};
    const uint32_t order[6] = {2, 2, 0, 1, 3, 2};
    tq_get_field field = padded(-9, 4);
    tq_get_options options = {.size = sizeof(options), .fields = &field, .n_fields = 1};
    tq_meta *meta = put_rows("padded", lengths, 4), *chosen;
    const tq_data_column *read;

    (void)state;

    assert_int_equal(tq_meta_select(meta, order, 6, NULL, 0, &chosen, NULL), TQ_OK);
    expect_ok(op, tq_get(op, chosen, NULL, 0, &options));
    read = tq_data_column_at(tq_op_data(op), 0);
    assert_true(read->padded && read->ragged);
    assert_int_equal(read->length, 8);
    for (size_t i = 0; i < 6; i++) {
        assert_int_equal(read->offsets[i], i * 8 * sizeof(int32_t));
        assert_int_equal(read->dims[i], lengths[order[i]]);
        check_row((const int32_t *)read->data + 8 * i, order[i], lengths[order[i]], 8, -9);
    }
    tq_meta_unref(chosen);

    /* No rows at all. */
    assert_int_equal(tq_meta_select(meta, order, 0, NULL, 0, &chosen, NULL), TQ_OK);
    expect_ok(op, tq_get(op, chosen, NULL, 0, &options));
    assert_int_equal(tq_data_row_count(tq_op_data(op)), 0);
    assert_false(tq_data_column_at(tq_op_data(op), 0)->padded);
    tq_meta_unref(chosen);
    tq_meta_unref(meta);
}

/* Rows of one length lie end to end: they are still read as one range. */
static void rows_of_one_length_are_read_as_one_range(void **state)
{
    const uint64_t lengths[3] = {4, 4, 4};
    tq_get_field field = padded(-1, 1);
    tq_get_options options = {.size = sizeof(options), .fields = &field, .n_fields = 1};
    tq_meta *meta = put_rows("uniform", lengths, 3);
    const tq_data_column *read;

    (void)state;

    expect_ok(op, tq_get(op, meta, NULL, 0, &options));
    read = tq_data_column_at(tq_op_data(op), 0);
    assert_true(read->padded && !read->ragged);
    for (size_t i = 0; i < 3; i++) {
        check_row((const int32_t *)read->data + 4 * i, i, 4, 4, -1);
    }
    tq_meta_unref(meta);
}

/* Enough gaps for another thread to fill them. */
static void another_thread_fills_large_gaps(void **state)
{
    uint64_t lengths[64] = {0};
    tq_get_field field = padded(77, 1);
    tq_get_options options = {
        .size = sizeof(options),
        .fields = &field,
        .n_fields = 1,
        .release = on_release,
        .release_arg = &released,
    };
    const tq_data_column *read;
    tq_meta *meta;

    (void)state;

    lengths[3] = 20000;
    lengths[63] = 1;
    meta = put_rows("large", lengths, 64);
    atomic_store(&released, 0);
    expect_ok(op, tq_get(op, meta, NULL, 0, &options));
    read = tq_data_column_at(tq_op_data(op), 0);
    for (size_t i = 0; i < 64; i++) {
        check_row((const int32_t *)read->data + 20000 * i, i, lengths[i], 20000, 77);
    }
    tq_meta_unref(meta);
}

static void rows_are_read_into_own_memory(void **state)
{
    const uint64_t lengths[2] = {2, 3};
    int32_t memory[6] = {0};
    tq_get_field field = padded(5, 1);
    tq_get_options options = {
        .size = sizeof(options),
        .fields = &field,
        .n_fields = 1,
        .release = on_release,
        .release_arg = &released,
    };
    tq_meta *meta = put_rows("own", lengths, 2);
    tq_op *other = tq_op_alloc(client, NULL, NULL);

    (void)state;

    field.dest = memory;
    field.dest_size = sizeof(memory);
    atomic_store(&released, 0);
    expect_ok(other, tq_get(other, meta, NULL, 0, &options));
    assert_ptr_equal(tq_data_column_at(tq_op_data(other), 0)->data, memory);
    check_row(memory, 0, 2, 3, 5);
    check_row(memory + 3, 1, 3, 3, 5);
    field.dest_size--;
    expect_error(other, tq_get(other, meta, NULL, 0, &options), TQ_EROWS, "'x'");
    field.name = "y";
    expect_error(other, tq_get(other, meta, NULL, 0, &options), TQ_EFIELD, "'y'");
    field.name = "x";
    field.pad_dtype.bits = 16;
    expect_error(other, tq_get(other, meta, NULL, 0, &options), TQ_EDTYPE, "'x'");
    options.size = 3;
    expect_error(other, tq_get(other, meta, NULL, 0, &options), TQ_EINVAL, "tq_get_options");
    tq_op_free(other);
    tq_meta_unref(meta);
    tq_client_close(client); /* all its tasks are over */
    assert_int_equal(atomic_load(&released), 4);
    client = system_open(&sys, 10);
    tq_op_free(op);
    op = tq_op_alloc(client, NULL, NULL);
    assert_non_null(op);
}

/* Cancelled reads: each ends once, and gives the memory back once. */
static void cancelled_reads_give_memory_back_once(void **state)
{
    enum {
        READS = 50
    };
    uint64_t lengths[32];
    tq_get_field field = padded(0, 1);
    tq_get_options options = {
        .size = sizeof(options),
        .fields = &field,
        .n_fields = 1,
        .release = on_release,
        .release_arg = &released,
    };
    tq_client *own = system_open(&sys, 10);
    tq_meta *meta;
    int32_t *memory;

    (void)state;

    for (size_t i = 0; i < 32; i++) {
        lengths[i] = i == 31 ? 30000 : i;
    }
    meta = put_rows("cancel", lengths, 32);
    field.dest_size = 32 * 30000 * sizeof(int32_t);
    memory = malloc(field.dest_size);
    assert_non_null(memory);
    field.dest = memory;
    atomic_store(&released, 0);
    sem_init(&release, 0, 0);
    for (int i = 0; i < READS; i++) {
        tq_op *reader = tq_op_alloc(own, NULL, NULL);
        int rc;
        assert_non_null(reader);
        assert_int_equal(tq_get(reader, meta, NULL, 0, &options), TQ_OK);
        if (i % 2) {
            tq_op_cancel(reader);
        }
        rc = tq_op_wait(reader);
        assert_true(rc == TQ_OK || (i % 2 && rc == TQ_ECANCELED));
        tq_op_free(reader);
        sem_wait(&release); /* before that the memory is still written to */
    }
    tq_client_close(own);
    assert_int_equal(atomic_load(&released), READS);
    free(memory);
    tq_meta_unref(meta);
}

/* A sample with key and one number per name. */
static void put_key(const char *key, const char *const *names, size_t n, int32_t number)
{
    const tq_slice slice = {&number, sizeof(number)};
    tq_column columns[2];
    const tq_put_args args = {
        .size = sizeof(args),
        .partition = "keyed",
        .keys = &key,
        .n = 1,
        .columns = columns,
        .n_columns = n,
    };

    for (size_t c = 0; c < n; c++) {
        columns[c] = (tq_column){.name = names[c], .dtype = i32, .rows = 1, .slices = &slice, .n_slices = 1};
    }
    expect_ok(op, tq_put(op, &args));
}

static void read_keys(const char *const *keys, size_t n, const char *const *fields, size_t n_fields)
{
    const tq_get_by_key_args args = {
        .size = sizeof(args),
        .partition = "keyed",
        .keys = keys,
        .n = n,
        .fields = fields,
        .n_fields = n_fields,
    };

    expect_ok(op, tq_get_by_key(op, &args));
}

static void rows_are_read_by_keys(void **state)
{
    const char *const both[] = {"x", "y"};
    const char *const asked[] = {"no", "y", "x"};
    const char *const keys[] = {"b", "nobody", "a"};
    const tq_data *data;

    (void)state;

    read_keys(keys, 3, NULL, 0); /* no such partition */
    assert_int_equal(tq_meta_sample_count(tq_op_meta(op)), 0);
    assert_null(tq_op_data(op));
    put_key("a", both, 2, 1);
    put_key("b", both, 1, 2);

    read_keys(keys, 3, NULL, 0);
    assert_int_equal(tq_meta_sample_count(tq_op_meta(op)), 2);
    assert_int_equal(tq_meta_field_count(tq_op_meta(op)), 2);
    data = tq_op_data(op);
    assert_int_equal(tq_data_column_count(data), 1); /* b has no y */
    assert_string_equal(tq_data_column_at(data, 0)->name, "x");
    assert_int_equal(((const int32_t *)tq_data_column_at(data, 0)->data)[0], 2);
    assert_int_equal(((const int32_t *)tq_data_column_at(data, 0)->data)[1], 1);

    read_keys(&keys[2], 1, asked, 3);
    data = tq_op_data(op);
    assert_int_equal(tq_data_column_count(data), 2);
    assert_string_equal(tq_data_column_at(data, 0)->name, "y");
    read_keys(keys, 1, &asked[1], 1);
    assert_int_equal(tq_meta_sample_count(tq_op_meta(op)), 1);
    assert_null(tq_op_data(op));

    const tq_get_by_key_args none = {.size = sizeof(none), .partition = "keyed"};
    assert_int_equal(tq_get_by_key(op, &none), TQ_EINVAL);
    const tq_get_by_key_args empty = {
        .size = sizeof(empty),
        .partition = "keyed",
        .keys = (const char *const[]){""},
        .n = 1,
    };
    assert_int_equal(tq_get_by_key(op, &empty), TQ_ENAME);
}

/* What is shown outlives the samples and the client, and is written to by nobody else. */
static void what_is_borrowed_outlives_samples_and_client(void **state)
{
    uint64_t lengths[8], small = 10;
    tq_get_options options = {.size = sizeof(options), .zero_copy = true};
    tq_client *own = system_open(&sys, 10);
    tq_op *reader = tq_op_alloc(own, NULL, NULL);
    tq_data *data, *copied;
    tq_meta *meta, *tiny;
    int32_t *x;

    (void)state;

    for (size_t i = 0; i < 8; i++) {
        lengths[i] = 10000 + i;
    }
    meta = put_rows("shown", lengths, 8);
    tiny = put_rows("tiny", &small, 1);
    expect_ok(reader, tq_get(reader, meta, NULL, 0, &options));
    data = tq_data_ref(tq_op_data(reader));
    x = tq_data_column_at(data, 0)->data;
    expect_ok(op, tq_get(op, meta, NULL, 0, NULL));
    copied = tq_data_ref(tq_op_data(op));
    assert_memory_equal(x, tq_data_column_at(copied, 0)->data, 8 * 10000 * sizeof *x);
    x[5] = -1; /* the view's own */
    expect_ok(op, tq_get(op, meta, NULL, 0, NULL));
    assert_int_equal(((int32_t *)tq_data_column_at(tq_op_data(op), 0)->data)[5], 5);
    expect_ok(op, tq_clear_meta(op, meta));
    for (int i = 0; i < 40; i++) {
        tq_meta *other = put_rows("others", lengths, 8);
        expect_ok(op, tq_clear_meta(op, other));
        tq_meta_unref(other);
    }
    assert_int_equal(x[4], 4);
    assert_int_equal(x[5], -1);
    assert_int_equal(x[10000], 1000);
    /* Too small to be worth a mapping: copied. */
    expect_ok(reader, tq_get(reader, tiny, NULL, 0, &options));
    assert_int_equal(*(int32_t *)tq_data_column_at(tq_op_data(reader), 0)->data, 0);
    tq_op_free(reader);
    tq_client_close(own);
    assert_int_equal(x[5], -1);
    x[5] = 5;
    assert_memory_equal(x, tq_data_column_at(copied, 0)->data, 8 * 10000 * sizeof *x);
    tq_data_unref(data);
    tq_data_unref(copied);
    tq_meta_unref(meta);
    tq_meta_unref(tiny);
}

#define TEXTS 16u
#define TEXT  30000u

/* Rows of one text each, all of one letter. */
static tq_meta *put_texts(const char *partition)
{
    static char text[TEXT];
    tq_values *values = tq_values_alloc();
    tq_column column;
    const tq_put_args args = {
        .size = sizeof(args),
        .partition = partition,
        .n = TEXTS,
        .columns = &column,
        .n_columns = 1,
    };

    assert_non_null(values);
    for (unsigned i = 0; i < TEXTS; i++) {
        memset(text, 'a' + (int)i, sizeof(text));
        assert_int_equal(tq_values_str(values, text, sizeof text), TQ_OK);
    }
    assert_int_equal(tq_values_column(values, "text", &column, NULL), TQ_OK);
    expect_ok(op, tq_put(op, &args));
    tq_values_free(values);
    return tq_meta_ref(tq_op_meta(op));
}

/* Counts in *arg the rows that are as they were put. */
static void look_right(void *arg, size_t row, const void *bytes, size_t size)
{
    const char *text = bytes;

    *(size_t *)arg += size == TEXT + 3 && text[3] == 'a' + (int)row && text[size - 1] == text[3];
}

/* Rows left in the store can be read there for as long as they exist, and become a copy when the client is closed. */
static void values_left_in_the_store_are_read_there(void **state)
{
    tq_get_options options = {.size = sizeof(options), .leave_values = true};
    tq_client *own = system_open(&sys, 10);
    tq_op *reader = tq_op_alloc(own, NULL, NULL);
    tq_meta *meta = put_texts("left"), *others = put_texts("others");
    tq_data *data, *gone;
    size_t right = 0;

    (void)state;

    expect_ok(reader, tq_get(reader, meta, NULL, 0, &options));
    data = tq_data_ref(tq_op_data(reader));
    assert_true(tq_data_column_at(data, 0)->left);
    assert_null(tq_data_column_at(data, 0)->data);
    assert_int_equal(tq_data_look(data, 0, 0, TEXTS, look_right, &right), TQ_OK);
    assert_int_equal(right, TEXTS);
    assert_int_equal(tq_data_look(data, 0, 5, 2, look_right, &right), TQ_OK);
    assert_int_equal(right, TEXTS + 2);
    assert_int_equal(tq_data_look(data, 0, TEXTS, 0, look_right, &right), TQ_OK);
    assert_int_equal(tq_data_look(data, 0, 1, TEXTS, look_right, &right), TQ_EINVAL);
    assert_int_equal(tq_data_look(data, 1, 0, 1, look_right, &right), TQ_EINVAL);
    assert_int_equal(tq_data_look(data, 0, 0, 1, NULL, &right), TQ_EINVAL);

    expect_ok(reader, tq_get(reader, others, NULL, 0, &options));
    gone = tq_data_ref(tq_op_data(reader));
    expect_ok(op, tq_clear_meta(op, others));
    TESTKIT_WAIT_UNTIL("the unit to free the block", /* it hears of the clear a little later */
                       tq_data_look(gone, 0, 0, TEXTS, look_right, &right) != TQ_OK);
    assert_int_equal(tq_data_look(gone, 0, 0, 1, look_right, &right), TQ_ELOST);

    /* Without asking for it all is copied. */
    expect_ok(op, tq_get(op, meta, NULL, 0, NULL));
    assert_false(tq_data_column_at(tq_op_data(op), 0)->left);
    assert_int_equal(tq_data_look(tq_op_data(op), 0, 0, 1, look_right, &right), TQ_EINVAL);

    tq_op_free(reader);
    tq_client_close(own);
    expect_ok(op, tq_clear_meta(op, meta));
    tq_meta_unref(put_texts("again"));
    right = 0;
    assert_int_equal(tq_data_look(data, 0, 0, TEXTS, look_right, &right), TQ_OK);
    assert_int_equal(right, TEXTS);
    assert_int_equal(tq_data_look(gone, 0, 0, 1, look_right, &right), TQ_ELOST);
    tq_data_unref(data);
    tq_data_unref(gone);
    tq_meta_unref(meta);
    tq_meta_unref(others);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ragged_rows_are_padded),
        cmocka_unit_test(rows_of_one_length_are_read_as_one_range),
        cmocka_unit_test(another_thread_fills_large_gaps),
        cmocka_unit_test(rows_are_read_into_own_memory),
        cmocka_unit_test(cancelled_reads_give_memory_back_once),
        cmocka_unit_test(rows_are_read_by_keys),
        cmocka_unit_test(what_is_borrowed_outlives_samples_and_client),
        cmocka_unit_test(values_left_in_the_store_are_read_there),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
