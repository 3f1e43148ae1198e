/*
 * client_test.c - the client against a real controller and real storage units: what is put is what
 * is read, claims wait.
 */
#include "testkit_usual.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const tq_dtype f32 = {TQ_FLOAT, 32};
static const tq_dtype i64 = {TQ_INT, 64};

/* --- round trips ---------------------------------------------------------- */

static void a_client_has_the_configuration(void **state)
{
    (void)state;
    assert_string_equal(tq_client_config(client), "{\"test\": true}");
    assert_true(tq_client_epoch(client) != 0);
}

static void uniform_rows_are_read_back(void **state)
{
    float data[4][2][3];
    tq_slice slices[2] = {{data[0], sizeof(data[0])}, {data[1], 3 * sizeof(data[0])}};
    uint64_t shape[2] = {2, 3};
    tq_column column = {.name = "x", .dtype = f32, .rows = 4, .ndim = 2, .shape = shape, .slices = slices, .n_slices = 2};
    tq_put_args args = {.size = sizeof(args), .partition = "uniform", .n = 4, .columns = &column, .n_columns = 1};
    uint32_t order[5] = {3, 1, 0, 2, 1};
    tq_meta *meta;
    tq_meta *chosen;
    const tq_data_column *read;

    (void)state;

    for (size_t i = 0; i < 24; i++) {
        ((float *)data)[i] = (float)i * 0.5f;
    }
    expect_ok(op, tq_put(op, &args));
    meta = tq_meta_ref(tq_op_meta(op));
    assert_int_equal(tq_meta_sample_count(meta), 4);
    assert_int_equal(tq_meta_epoch(meta), tq_client_epoch(client));
    assert_int_equal(tq_meta_field_at(meta, 0)->ready[3], 1);
    assert_int_equal(tq_meta_select(meta, order, 5, NULL, 0, &chosen, NULL), TQ_OK);
    expect_ok(op, tq_get(op, chosen, NULL, 0, NULL));
    read = tq_data_column_at(tq_op_data(op), 0);
    assert_ptr_equal(tq_data_find_column(tq_op_data(op), read->name), read);
    assert_null(tq_data_find_column(tq_op_data(op), "no such field"));
    assert_ptr_equal(tq_meta_find_field(meta, read->name), tq_meta_field_at(meta, 0));
    assert_null(tq_meta_find_field(meta, "no such field"));
    assert_int_equal(read->dtype.code, TQ_FLOAT);
    assert_int_equal(read->dtype.bits, 32);
    assert_false(read->ragged);
    assert_int_equal(read->ndim, 2);
    assert_int_equal(read->shape[0], 2);
    assert_int_equal(read->shape[1], 3);
    assert_int_equal((uintptr_t)read->data % 64, 0);
    for (size_t i = 0; i < 5; i++) {
        assert_memory_equal((const float *)read->data + 6 * i, data[order[i]], sizeof data[0]);
        assert_int_equal(read->offsets[i], i * sizeof data[0]);
    }
    tq_meta_unref(chosen);
    tq_meta_unref(meta);
}

static void ragged_rows_are_read_back(void **state)
{
    int64_t data[9] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    tq_slice slice = {data, sizeof(data)};
    uint32_t ndims[4] = {1, 0, 2, 1};
    uint64_t dims[4] = {2, 2, 3, 0}; /* [1 2], 3, [[4 5 6] [7 8 9]], [] */
    tq_column column = {
        .name = "x",
        .dtype = i64,
        .rows = 4,
        .ndims = ndims,
        .dims = dims,
        .slices = &slice,
        .n_slices = 1,
    };
    tq_put_args args = {.size = sizeof(args), .partition = "ragged", .n = 4, .columns = &column, .n_columns = 1};
    const char *field = "x";
    tq_claim_args claim = {
        .size = sizeof(claim),
        .partition = "ragged",
        .fields = &field,
        .n_fields = 1,
        .batch_size = 4,
        .task = "t",
    };
    const tq_data_column *read;
    tq_meta *meta;

    (void)state;

    expect_ok(op, tq_put(op, &args));
    expect_ok(op, tq_claim(op, &claim));
    meta = tq_meta_ref(tq_op_meta(op));
    assert_true(tq_meta_claim(meta) != 0);
    assert_true(tq_meta_field_at(meta, 0)->ragged);
    expect_ok(op, tq_get(op, meta, NULL, 0, NULL));
    read = tq_data_column_at(tq_op_data(op), 0);
    assert_true(read->ragged);
    assert_memory_equal(read->ndims, ndims, sizeof ndims);
    assert_memory_equal(read->dims, dims, sizeof dims);
    assert_int_equal(read->offsets[4], sizeof data);
    assert_memory_equal(read->data, data, sizeof data);
    tq_meta_unref(meta);
}

static void values_are_read_back(void **state)
{
    const char *bytes = "helloworld!";
    tq_slice slice = {bytes, 11};
    uint64_t sizes[4] = {5, 0, 5, 1};
    tq_column column = {
        .name = "v",
        .kind = TQ_VALUE,
        .rows = 4,
        .ndim = 1,
        .dims = sizes,
        .slices = &slice,
        .n_slices = 1,
    };
    const char *keys[4] = {"a", "b", "c", "d"};
    tq_put_args args = {
        .size = sizeof(args),
        .partition = "values",
        .keys = keys,
        .n = 4,
        .columns = &column,
        .n_columns = 1,
    };
    const char *some[2] = {"d", "a"};
    tq_resolve_args resolve = {.size = sizeof(resolve), .partition = "values", .keys = some, .n = 2, .tags = true};
    const tq_data_column *read;
    tq_meta *meta;

    (void)state;

    expect_ok(op, tq_put(op, &args));
    expect_ok(op, tq_resolve(op, &resolve));
    meta = tq_meta_ref(tq_op_meta(op));
    assert_string_equal(tq_meta_key(meta, 0), "d");
    expect_ok(op, tq_get(op, meta, NULL, 0, NULL));
    read = tq_data_column_at(tq_op_data(op), 0);
    assert_int_equal(read->kind, TQ_VALUE);
    assert_int_equal(read->offsets[1], 1);
    assert_memory_equal(read->data, "!hello", 6);
    tq_meta_unref(meta);
}

static void empty_rows_are_read_back(void **state)
{
    uint64_t shape[2] = {0, 7};
    tq_column column = {.name = "x", .dtype = f32, .rows = 3, .ndim = 2, .shape = shape};
    tq_put_args args = {.size = sizeof(args), .partition = "empty", .n = 3, .columns = &column, .n_columns = 1};
    const tq_data_column *read;
    tq_meta *meta;

    (void)state;

    expect_ok(op, tq_put(op, &args));
    meta = tq_meta_ref(tq_op_meta(op));
    expect_ok(op, tq_get(op, meta, NULL, 0, NULL));
    read = tq_data_column_at(tq_op_data(op), 0);
    assert_int_equal(read->ndim, 2);
    assert_int_equal(read->shape[1], 7);
    assert_int_equal(read->offsets[3], 0);
    assert_non_null(read->data);
    tq_meta_unref(meta);
}

static void large_rows_are_read_back(void **state)
{
    size_t bytes = 3u << 20;
    uint8_t *data = malloc(bytes);
    uint64_t shape = bytes / 4;
    tq_slice slice = {data, bytes};
    tq_column column = {
        .name = "x",
        .dtype = {TQ_UINT, 8},
        .rows = 4,
        .ndim = 1,
        .shape = &shape,
        .slices = &slice,
        .n_slices = 1,
    };
    tq_put_args args = {.size = sizeof(args), .partition = "large", .n = 4, .columns = &column, .n_columns = 1};
    tq_data *kept;
    tq_meta *meta;

    (void)state;

    for (size_t i = 0; i < bytes; i++) {
        data[i] = (uint8_t)(i * 31 + (i >> 12));
    }
    expect_ok(op, tq_put(op, &args));
    meta = tq_meta_ref(tq_op_meta(op));
    expect_ok(op, tq_get(op, meta, NULL, 0, NULL));
    kept = tq_data_ref(tq_op_data(op));
    expect_ok(op, tq_clear_meta(op, meta));
    assert_int_equal(tq_op_count(op), 4);
    assert_memory_equal(tq_data_column_at(kept, 0)->data, data, bytes);
    tq_data_unref(kept);
    tq_meta_unref(meta);
    free(data);
}

/* Placements that are out of date give the old rows until the unit has freed their block, then the new ones: never a
 * mixture of both. */
static void check_old_or_new(tq_op *reader, const tq_meta *meta, const char *field, size_t n, int64_t old, int64_t new)
{
    expect_ok(reader, tq_get(reader, meta, &field, 1, NULL));
    const int64_t *values = tq_data_column_at(tq_op_data(reader), 0)->data;
    int64_t base = values[0];
    assert_true(base == old || base == new);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(values[i], base + (int64_t)i);
    }
}

static void fields_are_overwritten_and_added(void **state)
{
    tq_meta *first = put_numbers(op, "over", "x", 10, 100, NULL);
    tq_meta *second = put_numbers(op, "over", "x", 10, 200, first);
    tq_meta *other = put_numbers(op, "over", "y", 10, 300, first);
    tq_meta *both;
    uint32_t indexes[10];
    const char *fields[2] = {"x", "y"};

    (void)state;

    memcpy(indexes, tq_meta_indexes(first), sizeof(indexes));
    assert_memory_equal(tq_meta_indexes(second), indexes, sizeof indexes);
    check_numbers(op, second, "x", 10, 200);
    check_old_or_new(op, first, "x", 10, 100, 200);
    assert_int_equal(tq_meta_union(second, other, &both, NULL), TQ_OK);
    check_numbers(op, both, "x", 10, 200);
    check_numbers(op, both, "y", 10, 300);
    tq_meta_unref(both);
    assert_int_equal(tq_meta_make("over", indexes, NULL, 10, fields, 2, &both, NULL), TQ_OK);
    check_numbers(op, both, "x", 10, 200); /* without placements: where they are now */
    check_numbers(op, both, "y", 10, 300);
    tq_meta_unref(both);
    tq_meta_unref(first);
    tq_meta_unref(second);
    tq_meta_unref(other);
}

static void tags_are_read_back(void **state)
{
    const uint8_t values[] = {0x01, 0xcd, 0x01, 0x00}; /* 1, 256 */
    const uint32_t sizes[2] = {1, 3};
    tq_tag tag = {.name = "version", .values = values, .sizes = sizes};
    const char *keys[2] = {"k1", "k2"};
    tq_put_args args = {.size = sizeof(args), .partition = "tags", .keys = keys, .n = 2, .tags = &tag, .n_tags = 1};
    const char *field = "x";
    const tq_meta_tag *read;

    (void)state;

    expect_ok(op, tq_put(op, &args));
    expect_ok(op, tq_list_keys(op, "tags"));
    assert_int_equal(tq_meta_sample_count(tq_op_meta(op)), 2);
    assert_string_equal(tq_meta_key(tq_op_meta(op), 1), "k2");
    read = tq_meta_tag_at(tq_op_meta(op), 0);
    assert_string_equal(read->name, "version");
    assert_ptr_equal(tq_meta_find_tag(tq_op_meta(op), "version"), read);
    assert_null(tq_meta_find_tag(tq_op_meta(op), "versio"));
    size_t row = 7;
    assert_true(tq_meta_find_key(tq_op_meta(op), "k2", &row));
    assert_int_equal(row, 1);
    assert_false(tq_meta_find_key(tq_op_meta(op), "k3", &row));
    assert_int_equal(row, 1);
    assert_memory_equal(read->sizes, sizes, sizeof sizes);
    assert_memory_equal(read->values, values, sizeof values);
    tq_meta *meta = tq_meta_ref(tq_op_meta(op));
    expect_error(op, tq_get(op, meta, &field, 1, NULL), TQ_EFIELD, "'x'");
    tq_meta_unref(meta);
    expect_ok(op, tq_list_keys(op, "nowhere"));
    assert_int_equal(tq_meta_sample_count(tq_op_meta(op)), 0);
}

/* Expects a page: its keys, and whether another one follows. */
static void check_page(const tq_keys_page *page, const char *const *keys, size_t n, bool more)
{
    expect_ok(op, tq_list_keys_page(op, "pages", page));
    assert_int_equal(tq_meta_sample_count(tq_op_meta(op)), n);
    for (size_t i = 0; i < n; i++) {
        assert_string_equal(tq_meta_key(tq_op_meta(op), i), keys[i]);
    }
    assert_int_equal(tq_op_count(op) != 0, more);
}

static void keys_are_listed_in_pages(void **state)
{
    const char *keys[5] = {"a", "b", "c", "d", "e"};
    const tq_put_args args = {.size = sizeof(args), .partition = "pages", .keys = keys, .n = 5};
    const char *again = "b";
    const tq_put_args back = {.size = sizeof(back), .partition = "pages", .keys = &again, .n = 1};
    tq_keys_page page = {.size = sizeof(page), .limit = 2};

    (void)state;

    expect_ok(op, tq_put(op, &args));
    check_page(&page, keys, 2, true);
    page.after = "b";
    page.mark = tq_op_count(op);
    check_page(&page, &keys[2], 2, true);
    /* The key that the page was to begin behind is gone, and then there again, at the end. */
    expect_ok(op, tq_clear_keys(op, "pages", &again, 1));
    check_page(&page, &keys[2], 2, true);
    expect_ok(op, tq_put(op, &back));
    check_page(&page, &keys[2], 2, true);
    page.after = "d";
    page.mark = tq_op_count(op);
    check_page(&page, (const char *const[]){"e", "b"}, 2, false);
    page.limit = 0;
    check_page(&page, (const char *const[]){"e", "b"}, 2, false);
    expect_ok(op, tq_clear_partition(op, "pages"));
    check_page(&page, NULL, 0, false);
    page.after = "";
    assert_int_equal(tq_list_keys_page(op, "pages", &page), TQ_ENAME);
}

/* --- claims --------------------------------------------------------------- */

static void a_claim_waits_for_samples(void **state)
{
    const char *field = "x";
    tq_claim_args claim = {
        .size = sizeof(claim),
        .partition = "wait",
        .fields = &field,
        .n_fields = 1,
        .batch_size = 5,
        .task = "t",
    };
    tq_op *waiting = tq_op_alloc(client, NULL, NULL);
    tq_meta *meta;

    (void)state;

    claim.poll = true;
    expect_error(op, tq_claim(op, &claim), TQ_EAGAIN, "");
    claim.poll = false;
    assert_int_equal(tq_claim(waiting, &claim), TQ_OK);
    meta = put_numbers(op, "wait", "x", 3, 0, NULL);
    assert_false(tq_op_done(waiting));
    tq_meta_unref(meta);
    meta = put_numbers(op, "wait", "x", 2, 3, NULL);
    tq_meta_unref(meta);
    expect_ok(waiting, TQ_OK);
    meta = tq_meta_ref(tq_op_meta(waiting));
    assert_int_equal(tq_meta_sample_count(meta), 5);
    check_numbers(op, meta, "x", 5, 0);
    expect_ok(op, tq_query_consumption(op, "wait", "t"));
    assert_int_equal(tq_op_progress(op)->n, 5);
    assert_int_equal(tq_op_progress(op)->flags[4], 1);
    expect_ok(op, tq_reset_consumption(op, "wait", "t"));
    expect_ok(op, tq_query_consumption(op, "wait", "t"));
    assert_int_equal(tq_op_progress(op)->flags[4], 0);
    tq_meta_unref(meta);
    tq_op_free(waiting);
}

static void a_waiting_claim_is_cancelled_or_times_out(void **state)
{
    const char *field = "x";
    tq_claim_args claim = {
        .size = sizeof(claim),
        .partition = "ends",
        .fields = &field,
        .n_fields = 1,
        .batch_size = 5,
        .task = "t",
    };

    (void)state;

    assert_int_equal(tq_claim(op, &claim), TQ_OK);
    tq_op_cancel(op);
    tq_op_cancel(op);
    assert_int_equal(tq_op_wait(op), TQ_ECANCELED);
    tq_op_set_timeout(op, 0.05);
    assert_int_equal(tq_claim(op, &claim), TQ_OK);
    assert_int_equal(tq_op_wait(op), TQ_ETIMEDOUT);
    tq_op_set_timeout(op, 0);
    expect_ok(op, tq_query_status(op));
    assert_int_equal(tq_op_status(op)->waiting, 0);
}

/* --- opaque cells, lists -------------------------------------------------- */

static void opaque_cells_are_announced(void **state)
{
    uint64_t shape = 4;
    tq_column column = {.name = "x", .dtype = f32, .rows = 2, .ndim = 1, .shape = &shape};
    tq_put_args args = {.size = sizeof(args), .partition = "opaque", .n = 2, .columns = &column, .n_columns = 1};
    const tq_slice notes[2] = {{"one", 3}, {"", 0}};
    const tq_slice *opaque = notes;
    const tq_data_column *read;
    tq_meta *meta;

    (void)state;

    expect_ok(op, tq_notify(op, &args, &opaque));
    meta = tq_meta_ref(tq_op_meta(op));
    expect_ok(op, tq_get(op, meta, NULL, 0, NULL));
    read = tq_data_column_at(tq_op_data(op), 0);
    assert_null(read->data);
    assert_int_equal(read->opaque[0].size, 3);
    assert_memory_equal(read->opaque[0].data, "one", 3);
    assert_int_equal(read->opaque[1].size, 0);
    tq_meta_unref(meta);
}

static void partitions_keys_and_groups_are_listed(void **state)
{
    const char *keys[3] = {"a", "b", "c"};
    const char *groups[3] = {"g", NULL, "g"};
    const char *fields[1] = {"x"};
    uint32_t indexes[3];
    size_t n;
    const char *const *names;
    tq_meta *meta;

    (void)state;

    expect_ok(op, tq_reserve(op, "lists", 3, keys, groups));
    assert_int_equal(tq_meta_sample_count(tq_op_meta(op)), 3);
    memcpy(indexes, tq_meta_indexes(tq_op_meta(op)), sizeof(indexes));
    meta = tq_meta_ref(tq_op_meta(op));
    expect_ok(op, tq_keys_of(op, "lists", indexes, 3));
    names = tq_op_names(op, &n);
    assert_int_equal(n, 3);
    assert_string_equal(names[2], "c");
    tq_meta_unref(put_numbers(op, NULL, "x", 3, 5, meta));
    expect_ok(op, tq_query_production(op, "lists", fields, 1));
    assert_true(tq_op_progress(op)->known);
    assert_int_equal(tq_op_progress(op)->flags[2], 1);
    expect_ok(op, tq_list_partitions(op));
    names = tq_op_names(op, &n);
    assert_int_equal(n, 1);
    assert_string_equal(names[0], "lists");
    expect_ok(op, tq_clear_keys(op, "lists", keys, 2));
    assert_int_equal(tq_op_count(op), 2);
    expect_ok(op, tq_clear_indexes(op, "lists", indexes, 3));
    assert_int_equal(tq_op_count(op), 1);
    expect_ok(op, tq_query_events(op, 0, 0, false));
    tq_op_events(op, &n, NULL);
    assert_true(n >= 3);
    tq_meta_unref(meta);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_client_has_the_configuration, usual_setup, usual_teardown),
        cmocka_unit_test_setup_teardown(uniform_rows_are_read_back, usual_setup, usual_teardown),
        cmocka_unit_test_setup_teardown(ragged_rows_are_read_back, usual_setup, usual_teardown),
        cmocka_unit_test_setup_teardown(values_are_read_back, usual_setup, usual_teardown),
        cmocka_unit_test_setup_teardown(empty_rows_are_read_back, usual_setup, usual_teardown),
        cmocka_unit_test_setup_teardown(large_rows_are_read_back, usual_setup, usual_teardown),
        cmocka_unit_test_setup_teardown(fields_are_overwritten_and_added, usual_setup, usual_teardown),
        cmocka_unit_test_setup_teardown(tags_are_read_back, usual_setup, usual_teardown),
        cmocka_unit_test_setup_teardown(keys_are_listed_in_pages, usual_setup, usual_teardown),
        cmocka_unit_test_setup_teardown(a_claim_waits_for_samples, usual_setup, usual_teardown),
        cmocka_unit_test_setup_teardown(a_waiting_claim_is_cancelled_or_times_out, usual_setup, usual_teardown),
        cmocka_unit_test_setup_teardown(opaque_cells_are_announced, usual_setup, usual_teardown),
        cmocka_unit_test_setup_teardown(partitions_keys_and_groups_are_listed, usual_setup, usual_teardown),
    };

    return cmocka_run_group_tests_name("client", tests, NULL, NULL);
}
