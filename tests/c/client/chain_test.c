/*
 * chain_test.c - an op's results are passed to its next call: metadata, data, keys, names, tags, notes, texts of
 * errors. Made to be run under AddressSanitizer: each of these once read memory that the call had just freed.
 */
#include "testkit_usual.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *const x = "x";

/* Samples with keys "k0", "k1", ..., groups, a tag "n" and a field "x"; the op has their metadata. */
static void put_keyed(const char *partition, size_t n)
{
    static const uint32_t sizes[4] = {1, 1, 1, 1};
    static const uint8_t values[4] = {0, 1, 2, 3};
    static const char *const keys[4] = {"k0", "k1", "k2", "k3"};
    static const char *const groups[4] = {"g", "g", "h", "h"};
    static const int64_t numbers[4] = {10, 11, 12, 13};
    const tq_slice slice = {(void *)(uintptr_t)numbers, n * sizeof(numbers[0])};
    const tq_column column = {.name = x, .dtype = {TQ_INT, 64}, .rows = n, .slices = &slice, .n_slices = 1};
    const tq_tag tag = {.name = "n", .values = values, .sizes = sizes};
    const tq_put_args args = {
        .size = sizeof(args),
        .partition = partition,
        .keys = keys,
        .groups = groups,
        .n = n,
        .columns = &column,
        .n_columns = 1,
        .tags = &tag,
        .n_tags = 1,
    };

    assert_true(n <= 4);
    expect_ok(op, tq_put(op, &args));
}

static void claim_all(const char *partition, const char *task, size_t n)
{
    const tq_claim_args claim = {
        .size = sizeof(claim),
        .partition = partition,
        .fields = &x,
        .n_fields = 1,
        .batch_size = (int64_t)n,
        .task = task,
        .tags = true,
    };

    expect_ok(op, tq_claim(op, &claim));
}

static void check_data(const char *field, size_t n, int64_t base)
{
    const tq_data *data = tq_op_data(op);

    assert_int_equal(tq_data_row_count(data), n);
    assert_string_equal(tq_data_column_at(data, 0)->name, field);
    const int64_t *numbers = tq_data_column_at(data, 0)->data;
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(numbers[i], base + (int64_t)i);
    }
}

static void a_claim_is_read_and_cleared_by_one_op(void **state)
{
    (void)state;
    put_keyed("p", 4);
    claim_all("p", "t", 4);
    expect_ok(op, tq_get(op, tq_op_meta(op), NULL, 0, NULL));
    check_data(x, 4, 10);
    claim_all("p", "u", 4);
    const char *name = tq_meta_field_at(tq_op_meta(op), 0)->name;
    const tq_get_field wanted = {.name = name};
    const tq_get_options options = {.size = sizeof(options), .fields = &wanted, .n_fields = 1};
    expect_ok(op, tq_get(op, tq_op_meta(op), &name, 1, &options));
    check_data(x, 4, 10);
    claim_all("p", "v", 4);
    expect_ok(op, tq_clear_meta(op, tq_op_meta(op)));
    assert_int_equal(tq_op_count(op), 4);
}

/* A put writes what the op has just read, while it waits for nothing but the storage. */
static void data_that_was_read_is_put_again(void **state)
{
    (void)state;
    put_keyed("p", 4);
    tq_meta *meta = tq_meta_ref(tq_op_meta(op));
    for (int round = 0; round < 20; round++) {
        expect_ok(op, tq_get(op, meta, NULL, 0, NULL));
        const tq_data_column *read = tq_data_column_at(tq_op_data(op), 0);
        const tq_slice slice = {read->data, read->offsets[4]};
        const tq_column column = {.name = "copy", .dtype = read->dtype, .rows = 4, .slices = &slice, .n_slices = 1};
        const tq_put_args args = {.size = sizeof(args), .meta = meta, .columns = &column, .n_columns = 1};
        expect_ok(op, tq_put(op, &args));
        assert_null(tq_op_data(op));
        const char *copy = "copy";
        expect_ok(op, tq_get(op, tq_op_meta(op), &copy, 1, NULL));
        check_data("copy", 4, 10);
    }
    tq_meta_unref(meta);
    expect_ok(op, tq_clear_partition(op, "p"));
}

static void metadata_names_what_is_put(void **state)
{
    static const int64_t numbers[4] = {20, 21, 22, 23};
    const tq_slice slice = {(void *)(uintptr_t)numbers, sizeof(numbers)};
    tq_column column = {.name = "y", .dtype = {TQ_INT, 64}, .rows = 4, .slices = &slice, .n_slices = 1};

    (void)state;

    put_keyed("p", 4);
    tq_put_args args = {.size = sizeof(args), .meta = tq_op_meta(op), .columns = &column, .n_columns = 1};
    expect_ok(op, tq_put(op, &args));
    /* Keys, groups, tags and the partition of one are those of another partition. */
    claim_all("p", "t", 4);
    const tq_meta *meta = tq_op_meta(op);
    const char *keys[4], *groups[4];
    for (size_t i = 0; i < 4; i++) {
        keys[i] = tq_meta_key(meta, i);
        groups[i] = tq_meta_group(meta, i);
    }
    const tq_meta_tag *from = tq_meta_tag_at(meta, 0);
    const tq_tag tag = {.name = from->name, .values = from->values, .sizes = from->sizes};
    column.name = tq_meta_field_at(meta, 0)->name;
    args = (tq_put_args){
        .size = sizeof(tq_put_args),
        .partition = "q",
        .keys = keys,
        .groups = groups,
        .n = 4,
        .columns = &column,
        .n_columns = 1,
        .tags = &tag,
        .n_tags = 1,
    };
    expect_ok(op, tq_put(op, &args));
    claim_all("q", "t", 4);
    assert_string_equal(tq_meta_key(tq_op_meta(op), 3), "k3");
    assert_string_equal(tq_meta_group(tq_op_meta(op), 3), "h");
    assert_int_equal(tq_meta_tag_at(tq_op_meta(op), 0)->values[3], 3);
    expect_ok(op, tq_get(op, tq_op_meta(op), NULL, 0, NULL));
    check_data(x, 4, 20);
    expect_ok(op, tq_clear_partition(op, "p"));
    expect_ok(op, tq_clear_partition(op, "q"));
}

static void keys_and_indexes_of_a_result_are_used(void **state)
{
    const char *keys[2];
    const char *partition;

    (void)state;

    put_keyed("p", 4);
    expect_ok(op, tq_list_keys(op, "p"));
    keys[0] = tq_meta_key(tq_op_meta(op), 1);
    keys[1] = tq_meta_key(tq_op_meta(op), 3);
    partition = tq_meta_partition(tq_op_meta(op));
    const tq_get_by_key_args by_key = {
        .size = sizeof(tq_get_by_key_args),
        .partition = partition,
        .keys = keys,
        .n = 2,
    };

    expect_ok(op, tq_get_by_key(op, &by_key));
    assert_int_equal(((const int64_t *)tq_data_column_at(tq_op_data(op), 0)->data)[1], 13);
    partition = tq_meta_partition(tq_op_meta(op));
    expect_ok(op, tq_keys_of(op, partition, tq_meta_indexes(tq_op_meta(op)), 2));
    const tq_resolve_args by_name = {
        .size = sizeof(tq_resolve_args),
        .partition = "p",
        .keys = tq_op_names(op, NULL),
        .n = 2,
        .tags = true,
    };

    expect_ok(op, tq_resolve(op, &by_name));
    assert_string_equal(tq_meta_key(tq_op_meta(op), 0), "k1");
    const tq_resolve_args by_index = {
        .size = sizeof(tq_resolve_args),
        .partition = tq_meta_partition(tq_op_meta(op)),
        .indexes = tq_meta_indexes(tq_op_meta(op)),
        .n = 2,
        .tags = true,
    };

    expect_ok(op, tq_resolve(op, &by_index));
    keys[0] = tq_meta_key(tq_op_meta(op), 0);
    keys[1] = tq_meta_key(tq_op_meta(op), 1);
    expect_ok(op, tq_reserve(op, "q", 2, keys, keys));
    assert_string_equal(tq_meta_key(tq_op_meta(op), 1), "k3");
    const tq_keys_page first = {.size = sizeof(first), .limit = 1};
    expect_ok(op, tq_list_keys_page(op, "q", &first));
    const tq_keys_page next = {
        .size = sizeof(next),
        .limit = 1,
        .after = tq_meta_key(tq_op_meta(op), 0),
        .mark = tq_op_count(op),
    };
    expect_ok(op, tq_list_keys_page(op, tq_meta_partition(tq_op_meta(op)), &next));
    keys[0] = tq_meta_key(tq_op_meta(op), 0);
    assert_string_equal(keys[0], "k3");
    expect_ok(op, tq_clear_keys(op, tq_meta_partition(tq_op_meta(op)), keys, 1));
    assert_int_equal(tq_op_count(op), 1);
    expect_ok(op, tq_query_consumption(op, "p", "t"));
    const tq_progress *progress = tq_op_progress(op);
    expect_ok(op, tq_clear_indexes(op, "p", progress->indexes, progress->n));
    assert_int_equal(tq_op_count(op), 4);
    expect_ok(op, tq_clear_partition(op, "q"));
}

static void names_of_the_system_are_used(void **state)
{
    (void)state;
    put_keyed("p", 4);
    claim_all("p", "t", 2);
    expect_ok(op, tq_list_partitions(op));
    expect_ok(op, tq_list_keys(op, tq_op_names(op, NULL)[0]));
    expect_ok(op, tq_query_status(op));
    const tq_status_partition *found = tq_op_status(op)->partitions[0];
    expect_ok(op, tq_query_consumption(op, found->name, found->tasks[0]->name));
    assert_int_equal(tq_op_progress(op)->n, 4);
    expect_ok(op, tq_query_status(op));
    found = tq_op_status(op)->partitions[0];
    const char *field = found->fields[0]->name;
    expect_ok(op, tq_query_production(op, found->name, &field, 1));
    expect_ok(op, tq_query_events(op, 0, 0, false));
    size_t n;
    uint64_t next;
    const tq_event *const *events = tq_op_events(op, &n, &next);
    const char *partition = "", *task = "";
    for (size_t i = 0; i < n; i++) {
        partition = events[i]->task[0] ? events[i]->partition : partition;
        task = events[i]->task[0] ? events[i]->task : task;
    }
    expect_ok(op, tq_reset_consumption(op, partition, task));
    expect_ok(op, tq_query_events(op, next, 0, true));
    events = tq_op_events(op, NULL, &next);
    assert_string_equal(events[0]->kind, "reset");
    const tq_claim_args claim = {
        .size = sizeof(tq_claim_args),
        .partition = events[0]->partition,
        .fields = &x,
        .n_fields = 1,
        .batch_size = 4,
        .task = events[0]->task,
    };

    expect_ok(op, tq_claim(op, &claim));
    expect_ok(op, tq_list_partitions(op));
    expect_ok(op, tq_clear_partition(op, tq_op_names(op, NULL)[0]));
    assert_int_equal(tq_op_count(op), 4);
}

static void a_clear_in_two_halves_is_chained(void **state)
{
    const uint64_t shape = 2;
    const tq_column column = {.name = x, .dtype = {TQ_INT, 64}, .rows = 4, .ndim = 1, .shape = &shape};
    const tq_slice notes[4] = {{"a", 1}, {"bb", 2}, {"", 0}, {"ccc", 3}};
    const tq_slice *opaque = notes;
    size_t n;

    (void)state;

    expect_ok(op, tq_reserve(op, "p", 4, NULL, NULL));
    tq_put_args args = {.size = sizeof(args), .meta = tq_op_meta(op), .columns = &column, .n_columns = 1};
    expect_ok(op, tq_notify(op, &args, &opaque));
    /* The notes of what was notified are notes again. */
    expect_ok(op, tq_resolve(op, &(tq_resolve_args){.size = sizeof(tq_resolve_args), .partition = "p"}));
    opaque = tq_meta_notes(tq_op_meta(op), 0);
    assert_non_null(opaque);
    args.meta = tq_op_meta(op);
    args.remover = "Mine";
    expect_ok(op, tq_notify(op, &args, &opaque));
    const tq_clearing *const *clearings = tq_op_clearings(op, &n);
    assert_int_equal(n, 1);
    expect_ok(op, tq_end_clear(op, clearings[0]->id, true));
    expect_ok(op, tq_resolve(op, &(tq_resolve_args){.size = sizeof(tq_resolve_args), .partition = "p"}));
    assert_memory_equal(tq_meta_notes(tq_op_meta(op), 0)[3].data, "ccc", 3);
    const tq_begin_clear_args first = {
        .size = sizeof(tq_begin_clear_args),
        .remover = "Mine",
        .meta = tq_op_meta(op),
    };

    expect_ok(op, tq_begin_clear(op, &first));
    clearings = tq_op_clearings(op, &n);
    assert_int_equal(n, 1);
    /* Its samples are gone: nothing more is cleared, but this clear is named again. */
    const tq_begin_clear_args again = {
        .size = sizeof(tq_begin_clear_args),
        .remover = "Mine",
        .meta = clearings[0]->meta,
    };

    expect_ok(op, tq_begin_clear(op, &again));
    assert_int_equal(tq_op_count(op), 0);
    expect_ok(op, tq_clear_partition(op, "p"));
}

static void checkpoints_are_chained(void **state)
{
    char folder[] = "/tmp/tq-chain-XXXXXX";
    char path[64], again[64], command[128];

    (void)state;

    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/a", folder);
    snprintf(again, sizeof(again), "%s/b", folder);
    put_keyed("p", 4);
    expect_ok(op, tq_save(op, &(tq_save_args){.size = sizeof(tq_save_args), .path = path, .metadata = "{\"step\": 7}"}));
    const tq_save_args args = {
        .size = sizeof(tq_save_args),
        .path = again,
        .metadata = tq_op_checkpoint(op)->metadata,
    };

    expect_ok(op, tq_save(op, &args));
    expect_ok(op, tq_load(op, again));
    assert_non_null(strstr(tq_op_checkpoint(op)->metadata, "7"));
    /* A file is named by what a call has returned. */
    expect_ok(op, tq_list_partitions(op));
    expect_error(op, tq_load(op, tq_op_names(op, NULL)[0]), TQ_EIO, "opening p");
    expect_ok(op, tq_clear_partition(op, "p"));
    snprintf(command, sizeof(command), "rm -r %s", folder);
    assert_int_equal(system(command), 0);
}

/* A tensor without elements is a cell like any other. */
static void a_checkpoint_without_a_byte_of_data(void **state)
{
    const uint64_t none = 0;
    const tq_column column = {.name = "x", .dtype = {TQ_INT, 64}, .rows = 2, .ndim = 1, .shape = &none};
    const tq_put_args put = {.size = sizeof(put), .partition = "empty", .n = 2, .columns = &column, .n_columns = 1};
    char folder[] = "/tmp/tq-chain-XXXXXX";
    char path[64], command[128];
    tq_save_args args = {.size = sizeof(args), .path = path, .partition = "empty"};

    (void)state;
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof(path), "%s/a", folder);
    expect_ok(op, tq_put(op, &put));
    expect_ok(op, tq_save(op, &args));
    assert_int_equal(tq_op_checkpoint(op)->bytes, 0);
    expect_ok(op, tq_load(op, path));
    assert_int_equal(tq_op_checkpoint(op)->samples, 2);
    assert_int_equal(tq_op_checkpoint(op)->lost, 0);
    expect_ok(op, tq_clear_partition(op, "empty"));
    snprintf(command, sizeof(command), "rm -r %s", folder);
    assert_int_equal(system(command), 0);
}

static void an_op_is_used_again_after_a_failure(void **state)
{
    const char *unknown = "nobody has this";

    (void)state;

    put_keyed("p", 4);
    expect_error(op, tq_get(op, tq_op_meta(op), &unknown, 1, NULL), TQ_EFIELD, unknown);
    /* It is over with the failed call, and nothing is left of it. */
    assert_null(tq_op_meta(op));
    expect_error(op, tq_get(op, tq_op_meta(op), NULL, 0, NULL), TQ_EINVAL, "meta");
    expect_error(op, tq_clear_meta(op, tq_op_meta(op)), TQ_EINVAL, "meta");
    /* Texts of the error are arguments like others. */
    expect_error(op, tq_list_keys(op, ""), TQ_ENAME, "partition");
    expect_ok(op, tq_list_keys(op, tq_op_error(op)->message));
    assert_string_equal(tq_meta_partition(tq_op_meta(op)), "partition name is empty");
    expect_ok(op, tq_clear_partition(op, tq_meta_partition(tq_op_meta(op))));
    expect_ok(op, tq_clear_partition(op, "p"));
}

static void an_op_is_used_again_after_a_cancel(void **state)
{
    const tq_claim_args never = {
        .size = sizeof(never),
        .partition = "p",
        .fields = &x,
        .n_fields = 1,
        .batch_size = 100,
        .task = "t",
    };

    (void)state;

    put_keyed("p", 4);
    for (int round = 0; round < 50; round++) {
        assert_int_equal(tq_claim(op, &never), TQ_OK);
        tq_op_cancel(op);
        assert_int_equal(tq_op_wait(op), TQ_ECANCELED);
        assert_null(tq_op_meta(op));
        claim_all("p", "u", 4);
        expect_ok(op, tq_get(op, tq_op_meta(op), NULL, 0, NULL));
        const tq_data_column *read = tq_data_column_at(tq_op_data(op), 0);
        const tq_slice slice = {read->data, read->offsets[4]};
        const tq_column column = {.name = x, .dtype = read->dtype, .rows = 4, .slices = &slice, .n_slices = 1};
        /* The bytes stay valid until the put ends, whenever that is. */
        const tq_put_args args = {.size = sizeof(args), .partition = "q", .n = 4, .columns = &column, .n_columns = 1};
        assert_int_equal(tq_put(op, &args), TQ_OK);
        if (round % 2 == 0) {
            tq_op_cancel(op);
        }
        (void)tq_op_wait(op);
        expect_ok(op, tq_reset_consumption(op, "p", "u"));
    }
    expect_ok(op, tq_clear_partition(op, "p"));
    expect_ok(op, tq_clear_partition(op, "q"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_claim_is_read_and_cleared_by_one_op, usual_setup, usual_teardown),
        cmocka_unit_test_setup_teardown(data_that_was_read_is_put_again, usual_setup, usual_teardown),
        cmocka_unit_test_setup_teardown(metadata_names_what_is_put, usual_setup, usual_teardown),
        cmocka_unit_test_setup_teardown(keys_and_indexes_of_a_result_are_used, usual_setup, usual_teardown),
        cmocka_unit_test_setup_teardown(names_of_the_system_are_used, usual_setup, usual_teardown),
        cmocka_unit_test_setup_teardown(a_clear_in_two_halves_is_chained, usual_setup, usual_teardown),
        cmocka_unit_test_setup_teardown(checkpoints_are_chained, usual_setup, usual_teardown),
        cmocka_unit_test_setup_teardown(a_checkpoint_without_a_byte_of_data, usual_setup, usual_teardown),
        cmocka_unit_test_setup_teardown(an_op_is_used_again_after_a_failure, usual_setup, usual_teardown),
        cmocka_unit_test_setup_teardown(an_op_is_used_again_after_a_cancel, usual_setup, usual_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
