/*
 * null_test.c - every public function with NULL for each required argument: TQ_EINVAL with a message that names it, or
 * nothing. tests/field/test_field_c_api.py checks that no function of the headers is missing here.
 */
#include "testkit.h"

#include <string.h>

#include <tq/daemon.h>
#include <tq/kv.h>
#include <tq/manager.h>
#include <tq/sampler.h>
#include <tq/value.h>

static test_system sys;
static tq_client *client;
static tq_op *op;
static tq_meta *meta;

static int setup(void **state)
{
    (void)state;
    system_begin(&sys, 1, 8u << 20, 10, &client, &op);
    meta = put_numbers(op, "p", "x", 2, 0, NULL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    tq_meta_unref(meta);
    system_end(&sys, client, op);
    return 0;
}

/* A call on the op that must be refused, at once, by a message with this text. */
#define REFUSED(call, text)                                                     \
    do {                                                                        \
        assert_int_equal((call), TQ_EINVAL);                                    \
        assert_int_equal(tq_op_error(op)->code, TQ_EINVAL);                     \
        if (!strstr(tq_op_error(op)->message, (text))) {                        \
            fail_msg("%s: %s, not: %s", #call, tq_op_error(op)->message, text); \
        }                                                                       \
    } while (0)

/* The same for a function that fills `err`, which may be NULL as well. */
#define REFUSED_ERR(call, text)                                      \
    do {                                                             \
        tq_error given = {0}, *err = &given;                         \
        assert_int_equal((call), TQ_EINVAL);                         \
        assert_int_equal(given.code, TQ_EINVAL);                     \
        if (!strstr(given.message, (text))) {                        \
            fail_msg("%s: %s, not: %s", #call, given.message, text); \
        }                                                            \
        err = NULL;                                                  \
        assert_int_equal((call), TQ_EINVAL);                         \
    } while (0)

static const char *const no_name[2] = {"x", NULL};

static void puts_refuse_null(void **state)
{
    int64_t numbers[2] = {0};
    tq_slice slice = {numbers, sizeof(numbers)};
    tq_column column = {.name = "x", .dtype = {TQ_INT, 64}, .rows = 2, .slices = &slice, .n_slices = 1};
    const tq_put_args good = {.size = sizeof(good), .partition = "p", .n = 2, .columns = &column, .n_columns = 1};
    const uint32_t sizes[2] = {1, 1};
    tq_tag tag = {.name = "t", .values = (const uint8_t *)"\1\2", .sizes = sizes};
    tq_put_args args = good;

    (void)state;

    assert_int_equal(tq_put(NULL, &args), TQ_EINVAL);
    REFUSED(tq_put(op, NULL), "tq_put: args is NULL");
    args.partition = NULL;
    REFUSED(tq_put(op, &args), "partition is NULL");
    args = good;
    args.columns = NULL;
    REFUSED(tq_put(op, &args), "columns is NULL");
    args = good;
    args.n_tags = 1;
    REFUSED(tq_put(op, &args), "tags is NULL");
    args.tags = &tag;
    tag.sizes = NULL;
    REFUSED(tq_put(op, &args), "tag 't': sizes is NULL");
    tag.sizes = sizes;
    tag.values = NULL;
    REFUSED(tq_put(op, &args), "tag 't': values is NULL");
    tag.name = NULL;
    REFUSED(tq_put(op, &args), "tag is NULL");
    args = good;
    args.keys = no_name;
    REFUSED(tq_put(op, &args), "keys[1] is NULL");
    args = good;
    column.name = NULL;
    REFUSED(tq_put(op, &args), "name of a column is NULL");
    column.name = "x";
    column.slices = NULL;
    REFUSED(tq_put(op, &args), "field 'x': slices is NULL, expected 1");
    column.slices = &slice;
    slice.data = NULL;
    REFUSED(tq_put(op, &args), "field 'x': slice 0 has no address");
    slice.data = numbers;
    column.ndim = 1;
    REFUSED(tq_put(op, &args), "field 'x': dimensions without their sizes");
    column.kind = TQ_VALUE;
    column.dtype = (tq_dtype){TQ_UINT, 8};
    REFUSED(tq_put(op, &args), "field 'x': dimensions without their sizes");
    column.ndim = 0;
    REFUSED(tq_put(op, &args), "field 'x': values have one dimension");
    column = (tq_column){.name = "z", .dtype = {TQ_INT, 64}, .rows = 2};
    args = (tq_put_args){.size = sizeof(tq_put_args), .meta = meta, .columns = &column, .n_columns = 1};
    assert_int_equal(tq_notify(NULL, &args, NULL), TQ_EINVAL);
    REFUSED(tq_notify(op, NULL, NULL), "tq_notify: args is NULL");
    const tq_slice notes[2] = {{"a", 1}, {NULL, 1}};
    const tq_slice *opaque = notes;
    REFUSED(tq_notify(op, &args, &opaque), "field 'z': note 1 has no address");
    /* None at all are no notes. */
    opaque = NULL;
    expect_ok(op, tq_notify(op, &args, &opaque));
    assert_int_equal(tq_reserve(NULL, "p", 1, NULL, NULL), TQ_EINVAL);
    REFUSED(tq_reserve(op, NULL, 1, NULL, NULL), "partition is NULL");
    REFUSED(tq_reserve(op, "p", 2, no_name, NULL), "keys[1] is NULL");
}

static void claims_and_reads_refuse_null(void **state)
{
    tq_claim_args claim = {
        .size = sizeof(claim),
        .partition = "p",
        .fields = no_name,
        .n_fields = 1,
        .batch_size = 1,
        .task = "t",
    };
    tq_resolve_args resolve = {.size = sizeof(resolve), .partition = "p", .n = 2};
    tq_get_by_key_args keys = {.size = sizeof(keys), .partition = "p", .n = 2};
    tq_get_field field = {.name = NULL};
    tq_get_options options = {.size = sizeof(options), .n_fields = 1};

    (void)state;

    assert_int_equal(tq_claim(NULL, &claim), TQ_EINVAL);
    REFUSED(tq_claim(op, NULL), "tq_claim: args is NULL");
    claim.n_fields = 2;
    REFUSED(tq_claim(op, &claim), "fields[1] is NULL");
    claim.fields = NULL;
    REFUSED(tq_claim(op, &claim), "no fields");
    claim.fields = no_name;
    claim.task = NULL;
    REFUSED(tq_claim(op, &claim), "task is NULL");
    claim.task = "t";
    claim.partition = NULL;
    REFUSED(tq_claim(op, &claim), "partition is NULL");
    assert_int_equal(tq_resolve(NULL, &resolve), TQ_EINVAL);
    REFUSED(tq_resolve(op, NULL), "tq_resolve: args is NULL");
    REFUSED(tq_resolve(op, &resolve), "keys and indexes are NULL");
    resolve.keys = no_name;
    REFUSED(tq_resolve(op, &resolve), "keys[1] is NULL");
    resolve.partition = NULL;
    REFUSED(tq_resolve(op, &resolve), "partition is NULL");
    /* A claim that failed has no meta. */
    assert_int_equal(tq_get(NULL, meta, NULL, 0, NULL), TQ_EINVAL);
    assert_int_equal(tq_get(NULL, meta, NULL, 0, NULL), TQ_EINVAL);
    REFUSED(tq_get(op, tq_op_meta(op), NULL, 0, NULL), "meta to read is NULL");
    REFUSED(tq_get(op, NULL, NULL, 0, NULL), "meta to read is NULL");
    REFUSED(tq_get(op, meta, no_name, 2, NULL), "fields[1] is NULL");
    REFUSED(tq_get(op, meta, NULL, 0, &options), "tq_get_options.fields is NULL");
    options.fields = &field;
    assert_int_equal(tq_get(op, meta, NULL, 0, &options), TQ_EFIELD);
    field.name = "x";
    field.dest_size = 8;
    REFUSED(tq_get(op, meta, NULL, 0, &options), "field 'x': dest is NULL");
    assert_int_equal(tq_get_by_key(NULL, &keys), TQ_EINVAL);
    REFUSED(tq_get_by_key(op, NULL), "tq_get_by_key: args is NULL");
    REFUSED(tq_get_by_key(op, &keys), "keys is NULL, expected 2");
    keys.keys = no_name;
    REFUSED(tq_get_by_key(op, &keys), "keys[1] is NULL");
    keys.partition = NULL;
    REFUSED(tq_get_by_key(op, &keys), "partition is NULL");
}

static void clears_refuse_null(void **state)
{
    tq_begin_clear_args begin = {.size = sizeof(begin), .partition = "p"};

    (void)state;

    assert_int_equal(tq_clear_meta(NULL, meta), TQ_EINVAL);
    REFUSED(tq_clear_meta(op, NULL), "tq_clear_meta: meta is NULL");
    assert_int_equal(tq_clear_indexes(NULL, "p", NULL, 0), TQ_EINVAL);
    REFUSED(tq_clear_indexes(op, NULL, NULL, 0), "partition is NULL");
    REFUSED(tq_clear_indexes(op, "p", NULL, 3), "indexes is NULL, expected 3");
    assert_int_equal(tq_clear_keys(NULL, "p", no_name, 1), TQ_EINVAL);
    REFUSED(tq_clear_keys(op, NULL, no_name, 1), "partition is NULL");
    REFUSED(tq_clear_keys(op, "p", NULL, 2), "keys is NULL, expected 2");
    REFUSED(tq_clear_keys(op, "p", no_name, 2), "keys[1] is NULL");
    assert_int_equal(tq_clear_partition(NULL, "p"), TQ_EINVAL);
    REFUSED(tq_clear_partition(op, NULL), "partition is NULL");
    assert_int_equal(tq_begin_clear(NULL, &begin), TQ_EINVAL);
    REFUSED(tq_begin_clear(op, NULL), "tq_begin_clear: args is NULL");
    REFUSED(tq_begin_clear(op, &begin), "remover is NULL");
    begin.remover = "Mine";
    begin.keys = no_name;
    begin.n = 2;
    REFUSED(tq_begin_clear(op, &begin), "keys[1] is NULL");
    assert_int_equal(tq_end_clear(NULL, 1, true), TQ_EINVAL);
    assert_int_equal(tq_reset_consumption(NULL, "p", "t"), TQ_EINVAL);
    REFUSED(tq_reset_consumption(op, NULL, "t"), "partition is NULL");
}

static void queries_refuse_null(void **state)
{
    (void)state;
    assert_int_equal(tq_query_consumption(NULL, "p", "t"), TQ_EINVAL);
    REFUSED(tq_query_consumption(op, NULL, "t"), "partition is NULL");
    REFUSED(tq_query_consumption(op, "p", NULL), "task is NULL");
    assert_int_equal(tq_query_production(NULL, "p", no_name, 1), TQ_EINVAL);
    REFUSED(tq_query_production(op, NULL, no_name, 1), "partition is NULL");
    REFUSED(tq_query_production(op, "p", NULL, 1), "fields is NULL, expected 1");
    REFUSED(tq_query_production(op, "p", no_name, 2), "fields[1] is NULL");
    assert_int_equal(tq_list_partitions(NULL), TQ_EINVAL);
    assert_int_equal(tq_list_keys(NULL, "p"), TQ_EINVAL);
    REFUSED(tq_list_keys(op, NULL), "partition is NULL");
    const tq_keys_page page = {.size = sizeof(page), .limit = 1, .mark = 1};
    assert_int_equal(tq_list_keys_page(NULL, "p", &page), TQ_EINVAL);
    REFUSED(tq_list_keys_page(op, "p", NULL), "tq_list_keys_page: page is NULL");
    REFUSED(tq_list_keys_page(op, NULL, &page), "partition is NULL");
    REFUSED(tq_list_keys_page(op, "p", &page), "keys[0] is NULL");
    assert_int_equal(tq_keys_of(NULL, "p", NULL, 0), TQ_EINVAL);
    REFUSED(tq_keys_of(op, NULL, NULL, 0), "partition is NULL");
    REFUSED(tq_keys_of(op, "p", NULL, 1), "indexes is NULL, expected 1");
    assert_int_equal(tq_query_status(NULL), TQ_EINVAL);
    assert_int_equal(tq_query_events(NULL, 0, 0, false), TQ_EINVAL);
    const tq_save_args save = {.size = sizeof(save), .partition = "p"};
    assert_int_equal(tq_save(NULL, &save), TQ_EINVAL);
    REFUSED(tq_save(op, NULL), "tq_save: args is NULL");
    REFUSED(tq_save(op, &save), "no directory");
    assert_int_equal(tq_load(NULL, "/"), TQ_EINVAL);
    REFUSED(tq_load(op, NULL), "no directory");
}

static void results_of_null_are_empty(void **state)
{
    size_t n = 7;
    uint64_t number = 7;

    (void)state;

    tq_op_free(NULL);
    tq_op_cancel(NULL);
    tq_op_set_timeout(NULL, 1);
    assert_null(tq_op_alloc(NULL, NULL, NULL));
    assert_true(tq_op_done(NULL));
    assert_true(tq_op_wait_for(NULL, 1));
    assert_int_equal(tq_op_wait(NULL), TQ_EINVAL);
    assert_int_equal(tq_op_error(NULL)->code, TQ_EINVAL);
    assert_string_equal(tq_op_error(NULL)->message, "op is NULL");
    assert_null(tq_op_meta(NULL));
    assert_null(tq_op_data(NULL));
    assert_int_equal(tq_op_count(NULL), 0);
    assert_null(tq_op_progress(NULL));
    assert_null(tq_op_clearings(NULL, &n));
    assert_int_equal(n, 0);
    n = 7;
    assert_null(tq_op_names(NULL, &n));
    assert_null(tq_op_arg(NULL));
    tq_op_set_queue(NULL, NULL);
    tq_op_set_queue(op, NULL);
    REFUSED_ERR(tq_queue_alloc(NULL, err), "out is NULL");
    assert_int_equal(tq_queue_take(NULL, NULL, 1), 0);
    assert_int_equal(tq_queue_fd(NULL), -1);
    tq_queue_free(NULL);
    assert_int_equal(n, 0);
    assert_null(tq_op_status(NULL));
    assert_null(tq_op_checkpoint(NULL));
    assert_int_equal(tq_op_moved(NULL, &number), 0);
    assert_int_equal(number, 0);
    n = number = 7;
    assert_null(tq_op_events(NULL, &n, &number));
    assert_int_equal(n + number, 0);
    assert_null(tq_op_clearings(op, NULL));
    assert_null(tq_op_names(op, NULL));
    assert_null(tq_op_events(op, NULL, NULL));
    assert_int_equal(tq_op_moved(op, NULL), 0);
    assert_null(tq_data_ref(NULL));
    tq_data_unref(NULL);
    assert_int_equal(tq_data_row_count(NULL), 0);
    assert_int_equal(tq_data_column_count(NULL), 0);
    assert_null(tq_data_column_at(NULL, 0));
    assert_null(tq_data_find_column(NULL, "x"));
    assert_int_equal(tq_data_look(NULL, 0, 0, 0, NULL, NULL), TQ_EINVAL);
    tq_buffer_give(NULL, 8);
    tq_buffer_give(tq_buffer_take(8), 8);
    assert_string_equal(tq_error_name(TQ_OK), "TQ_OK");
    assert_non_null(tq_strerror(12345));
    assert_non_null(tq_version());
    tq_log_set_sink(NULL, NULL);
    tq_log_set_level(TQ_LOG_WARN);
}

static void metadata_refuses_null(void **state)
{
    uint32_t index = 0;
    uint8_t *bytes = NULL;
    size_t size = 0;
    tq_meta *out = NULL;
    tq_meta *metas[2] = {meta, NULL};

    (void)state;

    assert_null(tq_meta_ref(NULL));
    tq_meta_unref(NULL);
    assert_int_equal(tq_meta_sample_count(NULL), 0);
    assert_null(tq_meta_partition(NULL));
    assert_int_equal(tq_meta_epoch(NULL), 0);
    assert_int_equal(tq_meta_claim(NULL), 0);
    assert_null(tq_meta_indexes(NULL));
    assert_null(tq_meta_incarnations(NULL));
    assert_null(tq_meta_key(NULL, 0));
    assert_null(tq_meta_group(NULL, 0));
    assert_int_equal(tq_meta_field_count(NULL), 0);
    assert_null(tq_meta_find_field(NULL, "x"));
    assert_null(tq_meta_find_field(meta, NULL));
    assert_null(tq_meta_find_tag(NULL, "x"));
    assert_null(tq_meta_find_tag(meta, NULL));
    assert_false(tq_meta_find_key(NULL, "x", NULL));
    assert_false(tq_meta_find_key(meta, NULL, NULL));
    assert_null(tq_meta_field_at(NULL, 0));
    assert_null(tq_meta_notes(NULL, 0));
    assert_int_equal(tq_meta_tag_count(NULL), 0);
    assert_null(tq_meta_tag_at(NULL, 0));
    REFUSED_ERR(tq_meta_make(NULL, &index, NULL, 1, no_name, 1, &out, err), "partition is NULL");
    REFUSED_ERR(tq_meta_make("p", NULL, NULL, 1, no_name, 1, &out, err), "indexes is NULL");
    REFUSED_ERR(tq_meta_make("p", &index, NULL, 1, NULL, 1, &out, err), "fields is NULL");
    REFUSED_ERR(tq_meta_make("p", &index, NULL, 1, no_name, 2, &out, err), "fields[1] is NULL");
    REFUSED_ERR(tq_meta_make("p", &index, NULL, 1, no_name, 1, NULL, err), "out is NULL");
    REFUSED_ERR(tq_meta_select(NULL, NULL, 0, NULL, 0, &out, err), "meta is NULL");
    REFUSED_ERR(tq_meta_select(meta, NULL, 0, NULL, 0, NULL, err), "out is NULL");
    REFUSED_ERR(tq_meta_select(meta, NULL, 0, no_name, 2, &out, err), "fields[1] is NULL");
    REFUSED_ERR(tq_meta_concat(NULL, 2, &out, err), "metas[0] is NULL");
    REFUSED_ERR(tq_meta_concat(metas, 2, &out, err), "metas[1] is NULL");
    REFUSED_ERR(tq_meta_concat(metas, 1, NULL, err), "out is NULL");
    REFUSED_ERR(tq_meta_union(NULL, meta, &out, err), "meta is NULL");
    REFUSED_ERR(tq_meta_union(meta, NULL, &out, err), "other is NULL");
    REFUSED_ERR(tq_meta_union(meta, meta, NULL, err), "out is NULL");
    REFUSED_ERR(tq_meta_pack(NULL, &bytes, &size, err), "meta is NULL");
    REFUSED_ERR(tq_meta_pack(meta, NULL, &size, err), "out is NULL");
    REFUSED_ERR(tq_meta_pack(meta, &bytes, NULL, err), "size is NULL");
    REFUSED_ERR(tq_meta_unpack(NULL, 8, &out, err), "bytes is NULL");
    REFUSED_ERR(tq_meta_unpack((const uint8_t *)"TQM", 3, NULL, err), "out is NULL");
    assert_null(out);
    assert_null(bytes);
}

static void clients_refuse_null(void **state)
{
    tq_client_options options = {.size = sizeof(options)};
    tq_location found = {.size = sizeof(found)};
    tq_client *none = NULL;

    (void)state;

    REFUSED_ERR(tq_runtime_dir(NULL, 10, err), "out is NULL");
    REFUSED_ERR(tq_runtime_open("nobody", false, NULL, err), "fd is NULL");
    tq_runtime_clear(-1);
    REFUSED_ERR(tq_discover("nobody", NULL, err), "out is NULL");
    assert_int_equal(tq_discover("nobody", &found, NULL), TQ_EUNREACHABLE);
    assert_true(tq_memory_limit(NULL) > 0);
    REFUSED_ERR(tq_client_open(NULL, &none, err), "options is NULL");
    REFUSED_ERR(tq_client_open(&options, NULL, err), "out is NULL");
    tq_client_close(NULL);
    assert_int_equal(tq_client_epoch(NULL), 0);
    assert_string_equal(tq_client_config(NULL), "");
}

static void plugins_refuse_null(void **state)
{
    const tq_storage_manager *manager;
    const tq_sampler unnamed = {.abi = TQ_SAMPLER_ABI};
    const tq_kv_client nothing = {.abi = TQ_KV_ABI, .type = "Nothing"};
    const double weights[2] = {1, 2};
    uint32_t part[2];
    double number;
    const char *name;
    tq_slice value;

    (void)state;

    REFUSED_ERR(tq_manager_register(NULL, err), "manager is NULL");
    REFUSED_ERR(tq_manager_load(NULL, err), "path is NULL");
    REFUSED_ERR(tq_manager_find(NULL, &manager, err), "type is NULL");
    REFUSED_ERR(tq_manager_find("SimpleStorage", NULL, err), "out is NULL");
    REFUSED_ERR(tq_kv_register(NULL, err), "client is NULL");
    REFUSED_ERR(tq_kv_register(&nothing, err), "no function 'open'");
    REFUSED_ERR(tq_sampler_register(NULL, err), "sampler is NULL");
    assert_int_equal(tq_sampler_register(&unnamed, NULL), TQ_ENAME);
    REFUSED_ERR(tq_balance(NULL, 2, 1, false, part, err), "weights is NULL");
    REFUSED_ERR(tq_balance(weights, 2, 1, false, NULL, err), "part is NULL");
    assert_int_equal(tq_view_count(NULL), 0);
    assert_null(tq_view_indexes(NULL));
    assert_null(tq_view_group(NULL, 0));
    assert_int_equal(tq_view_group_size(NULL, 0), 0);
    assert_int_equal(tq_view_ordinal(NULL, 0), 0);
    assert_false(tq_view_tag_number(NULL, 0, "n", &number));
    assert_false(tq_view_tag(NULL, 0, 0, &name, &value));
    assert_false(tq_view_had(NULL, 0));
    assert_int_equal(tq_pick_add(NULL, 0, true), TQ_EINVAL);
    assert_int_equal(tq_pick_again(NULL, 0), TQ_EINVAL);
    assert_int_equal(tq_pick_consume(NULL, 0), TQ_EINVAL);
    assert_int_equal(tq_pick_cache(NULL, "s", part, 1), TQ_EINVAL);
    assert_int_equal(tq_pick_slot(NULL, "s"), TQ_EINVAL);
    /* As a wrong command line. */
    assert_int_equal(tq_daemon_run(2, NULL, NULL), 2);
}

static void values_refuse_null(void **state)
{
    tq_values *values = tq_values_alloc();
    tq_column column;
    tq_tag tag;
    tq_value value;

    (void)state;

    tq_values_free(NULL);
    assert_int_equal(tq_values_null(NULL), TQ_EINVAL);
    assert_int_equal(tq_values_bool(NULL, true), TQ_EINVAL);
    assert_int_equal(tq_values_int(NULL, -1), TQ_EINVAL);
    assert_int_equal(tq_values_uint(NULL, 1), TQ_EINVAL);
    assert_int_equal(tq_values_float(NULL, 1), TQ_EINVAL);
    assert_int_equal(tq_values_str(NULL, "a", 1), TQ_EINVAL);
    assert_int_equal(tq_values_str(values, NULL, 1), TQ_EINVAL);
    assert_int_equal(tq_values_bytes(NULL, "a", 1), TQ_EINVAL);
    assert_int_equal(tq_values_bytes(values, NULL, 1), TQ_EINVAL);
    assert_int_equal(tq_values_list(NULL, 1), TQ_EINVAL);
    assert_int_equal(tq_values_map(NULL, 1), TQ_EINVAL);
    assert_int_equal(tq_values_count(NULL) + tq_values_count(values), 0);
    REFUSED_ERR(tq_values_column(NULL, "x", &column, err), "values is NULL");
    REFUSED_ERR(tq_values_column(values, NULL, &column, err), "name is NULL");
    REFUSED_ERR(tq_values_column(values, "x", NULL, err), "out is NULL");
    REFUSED_ERR(tq_values_tag(NULL, "x", &tag, err), "values is NULL");
    REFUSED_ERR(tq_values_tag(values, NULL, &tag, err), "name is NULL");
    REFUSED_ERR(tq_values_tag(values, "x", NULL, err), "out is NULL");
    REFUSED_ERR(tq_value_read(NULL, 1, &value, NULL, err), "bytes is NULL");
    REFUSED_ERR(tq_value_read("a", 1, NULL, NULL, err), "out is NULL");
    REFUSED_ERR(tq_value_check(NULL, 1, err), "bytes is NULL");
    tq_values_free(values);
}

/* After all of that the client works, and nothing was changed. */
static void refusing_null_changed_nothing(void **state)
{
    (void)state;
    expect_ok(op, tq_list_partitions(op));
    size_t n;
    assert_string_equal(tq_op_names(op, &n)[0], "p");
    assert_int_equal(n, 1);
    check_numbers(op, meta, "x", 2, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(puts_refuse_null),      cmocka_unit_test(claims_and_reads_refuse_null),
        cmocka_unit_test(clears_refuse_null),    cmocka_unit_test(queries_refuse_null),
        cmocka_unit_test(metadata_refuses_null), cmocka_unit_test(results_of_null_are_empty),
        cmocka_unit_test(clients_refuse_null),   cmocka_unit_test(plugins_refuse_null),
        cmocka_unit_test(values_refuse_null),    cmocka_unit_test(refusing_null_changed_nothing),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
