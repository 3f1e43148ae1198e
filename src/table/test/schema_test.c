/*
 * schema_test.c - what publishes may contain: schemas, shapes, values, tags, groups, keys; and how bad ones are
 * refused. The types of rows are in row_types_test.c.
 */
#include "table/test/testkit_publish.h"

static void a_schema_turns_ragged_and_is_forgotten(void **state)
{
    static const uint64_t other[] = {2, 4};
    static const uint64_t scalar[] = {1};
    table t;
    tqi_table_result r = {0};
    uint32_t cleared;
    one_field o = make(2);

    (void)state;
    table_open_strict(&t);
    assert_int_equal(publish(&t, &o, &r), TQ_OK);
    assert_false(r.batch.fields[0].ragged);
    assert_int_equal(r.batch.fields[0].ndim, 2);
    assert_memory_equal(r.batch.fields[0].shape, pair, sizeof(pair));
    tqi_table_result_fini(&r);
    assert_int_equal(publish_only(&t, make(1)), TQ_OK);
    assert_false(field_info(&t, 0).ragged);

    o = make(1);
    o.field.shape = other;
    o.size = 32;
    assert_int_equal(publish(&t, &o, &r), TQ_OK);
    assert_true(r.batch.fields[0].ragged);
    tqi_table_result_fini(&r);
    assert_true(field_info(&t, 0).ragged);
    tqi_table_resolve_args ask = {.partition = "p"};
    assert_int_equal(tqi_table_resolve(t.table, &ask, &r, &t.err), TQ_OK);
    assert_true(r.batch.fields[0].ragged);
    assert_int_equal(r.batch.fields[0].n_ndims, 1);
    assert_int_equal(r.batch.fields[0].n_dims, 8);
    assert_int_equal(r.batch.fields[0].dims[7], 4);
    assert_int_equal(r.bytes, 3 * 24 + 32);
    tqi_table_result_fini(&r);

    /* A dtype that contradicts a strict schema changes nothing. */
    o = make(1);
    o.field.dtype = (tq_dtype){TQ_INT, 64};
    o.field.ndim = 0;
    o.field.shape = scalar;
    assert_int_equal(publish_only(&t, o), TQ_EDTYPE);
    assert_non_null(strstr(t.err.message, "'a'"));
    assert_non_null(strstr(t.err.message, "float32"));
    assert_non_null(strstr(t.err.message, "int64"));
    assert_int_equal(tqi_table_partition_samples(tqi_table_find_partition(t.table, "p")), 4);
    /* With the last row the schema goes. */
    assert_int_equal(tqi_table_clear_indexes(t.table, "p", (const uint32_t[]){0, 1, 2, 3}, NULL, 4, &cleared, &t.err),
                     TQ_OK);
    assert_int_equal(publish_only(&t, o), TQ_OK);
    assert_int_equal(field_info(&t, 0).dtype.bits, 64);
    assert_int_equal(field_info(&t, 0).ndim, 0);
    assert_false(field_info(&t, 0).ragged);
    close_empty(&t);
}

static void values_are_ragged_bytes(void **state)
{
    static const uint32_t ndims[] = {1};
    static const uint64_t dims[] = {5, 0, 5};
    table t;
    tqi_table_result r = {0};
    one_field o = make(3);

    (void)state;
    table_open_strict(&t);
    o.field = (tqi_table_batch_field){
        .name = "v",
        .kind = TQ_VALUE,
        .dtype = {TQ_UINT, 8},
        .ragged = true,
        .ndims = ndims,
        .n_ndims = 1,
        .dims = dims,
        .n_dims = 3,
    };
    o.size = 10;
    assert_int_equal(publish_only(&t, o), TQ_OK);
    assert_true(field_info(&t, 0).ragged);
    assert_int_equal(field_info(&t, 0).kind, TQ_VALUE);
    tqi_table_resolve_args ask = {.partition = "p", .indexes = (const uint32_t[]){2, 1, 0}, .n = 3};
    assert_int_equal(tqi_table_resolve(t.table, &ask, &r, &t.err), TQ_OK);
    assert_int_equal(r.batch.fields[0].runs[0].offset, 5);
    assert_int_equal(r.batch.fields[0].dims[0], 5);
    assert_int_equal(r.batch.fields[0].dims[1], 0);
    tqi_table_result_fini(&r);
    /* A single value is ragged, too; another kind is refused. */
    o.field.ragged = false;
    o.field.ndim = 1;
    o.field.shape = dims;
    o.n = 1;
    o.run.rows = 1;
    assert_int_equal(publish_only(&t, o), TQ_OK);
    assert_true(field_info(&t, 0).ragged);
    o.field.ndim = 2;
    assert_int_equal(publish_only(&t, o), TQ_EINVAL);
    o.field.ndim = 1;
    o.field.kind = TQ_TENSOR;
    assert_int_equal(publish_only(&t, o), TQ_EDTYPE);
    o.field.kind = TQ_VALUE;
    o.field.dtype = (tq_dtype){TQ_INT, 8};
    assert_int_equal(publish_only(&t, o), TQ_EINVAL);
    close_empty(&t);
}

static void malformed_batches_are_refused(void **state)
{
    static const uint64_t huge[] = {UINT64_MAX / 2, 3};
    static const uint32_t ndims[] = {2, 2};
    static const uint64_t dims[] = {2, 3, 2};
    static const tqi_table_run holes[] = {{1, 1, 0}, {1, 0, 0}, {0, 1, 0}};
    static const tqi_table_run lost[] = {{TQI_BLOCK_LOST, 2, 0}};
    static const tqi_table_run opaque[] = {{TQI_BLOCK_OPAQUE, 2, 0}};
    static const tqi_table_run ahead[] = {{2, 2, 0}};
    char name[TQ_NAME_MAX + 2];
    table t;
    one_field o;

    (void)state;
    memset(name, 'n', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    table_open(&t);
#define REFUSED(code, change)                                \
    do {                                                     \
        o = make(2);                                         \
        change;                                              \
        assert_int_equal(publish_only(&t, o), code);         \
        assert_null(tqi_table_find_partition(t.table, "p")); \
    } while (0)
    REFUSED(TQ_EROWS, o.run.rows = 1);
    REFUSED(TQ_EROWS, o.run.rows = 3);
    REFUSED(TQ_EINVAL, o.size = 47);
    REFUSED(TQ_EINVAL, o.run.offset = 1);
    REFUSED(TQ_EINVAL, o.run.offset = UINT64_MAX - 8);
    REFUSED(TQ_EINVAL, o.field.shape = huge);
    REFUSED(TQ_EINVAL, o.field.ndim = TQ_NDIM_MAX + 1);
    REFUSED(TQ_EINVAL, o.field.kind = 2);
    REFUSED(TQ_EINVAL, o.field.dtype.bits = 12);
    REFUSED(TQ_EINVAL, o.field.dtype.bits = 0);
    REFUSED(TQ_EINVAL, (o.field.runs = holes, o.field.n_runs = 3));
    REFUSED(TQ_EINVAL, (o.field.runs = lost, o.field.n_runs = 1));
    REFUSED(TQ_EINVAL, (o.field.runs = opaque, o.field.n_runs = 1));
    REFUSED(TQ_EINVAL, (o.field.runs = ahead, o.field.n_runs = 1));
    REFUSED(TQ_EINVAL, o.locator_size = TQ_LOCATOR_MAX + 1);
    REFUSED(TQ_ENAME, o.field.name = "");
    REFUSED(TQ_ENAME, o.field.name = name);
    REFUSED(TQ_ENAME, o.groups = ((const char *const[]){"", name}));
    REFUSED(TQ_EINVAL, o.naming = TQI_TABLE_BY_INDEX);
    REFUSED(TQ_EINVAL, o.naming = TQI_TABLE_BY_KEY);
    REFUSED(TQ_ENAME, (o.naming = TQI_TABLE_BY_KEY, o.keys = (const char *const[]){"k", ""}));
    REFUSED(TQ_EEXIST, o.keys = ((const char *const[]){"k", "k"}));
    REFUSED(TQ_ECLEARED, (o.naming = TQI_TABLE_BY_INDEX, o.indexes = (const uint32_t[]){0, 1}));
    REFUSED(TQ_EROWS, (o.field.ragged = true, o.field.ndims = ndims, o.field.n_ndims = 3));
    REFUSED(TQ_EINVAL, (o.field.ragged = true, o.field.ndims = ndims, o.field.n_ndims = 2, o.field.dims = dims,
                        o.field.n_dims = 3));
    REFUSED(TQ_EINVAL, (o.field.ragged = true, o.field.ndims = ndims, o.field.n_ndims = 1, o.field.dims = dims,
                        o.field.n_dims = 3));
#undef REFUSED
    o = make(1);
    o.partition = "";
    assert_int_equal(publish_only(&t, o), TQ_ENAME);
    o.partition = name;
    assert_int_equal(publish_only(&t, o), TQ_ENAME);
    close_empty(&t);
}

/* A unit is taken for lost and comes back as the same run: what was granted before has ended, which nobody did wrong. */
static void a_block_ends_with_the_record_of_its_owner(void **state)
{
    static const uint64_t firsts[] = {0, UINT64_MAX - 2}; /* of the ids: also across their wrap */

    (void)state;
    for (size_t i = 0; i < 2; i++) {
        table t;
        tqi_table_options options = {.epoch = 99, .first_block = firsts[i]};
        tqi_table_result r = {0};
        tqi_table_run run = {1, 1, 0};
        tqi_table_batch_block block = {.size = 8, .owner = "unit", .owner_incarnation = 7};
        tqi_table_batch_field field = {.name = "a", .dtype = {TQ_INT, 8}, .runs = &run, .n_runs = 1};
        tqi_table_batch batch = {
            .partition = "p",
            .n = 1,
            .fields = &field,
            .n_fields = 1,
            .blocks = &block,
            .n_blocks = 1,
        };
        tqi_table_publish_args p = {.batch = &batch, .naming = TQI_TABLE_NEW, .session = SESSION};
        uint64_t first;

        table_open_with(&t, &options);
        assert_int_equal(tqi_table_grant(t.table, SESSION, t.owner, 2, &block.id, &t.err), TQ_OK);
        tqi_table_owner_lost(t.table, t.owner, NULL, NULL);
        assert_int_equal(tqi_table_owner_register(t.table, "unit", 7, &t.owner, &t.err), TQ_OK);
        assert_int_equal(tqi_table_publish(t.table, &p, &r, &t.err), TQ_ESTALE);
        assert_int_equal(tqi_table_grant(t.table, SESSION, t.owner, 2, &first, &t.err), TQ_OK);
        assert_int_equal(tqi_table_publish(t.table, &p, &r, &t.err), TQ_ESTALE);
        block.id = first;
        assert_int_equal(tqi_table_publish(t.table, &p, &r, &t.err), TQ_OK);
        tqi_table_result_fini(&r);
        assert_int_equal(tqi_table_publish(t.table, &p, &r, &t.err), TQ_EINVAL); /* published already */
        close_empty(&t);
    }
}

static void a_field_may_not_be_there_twice_nor_an_unknown_block(void **state)
{
    table t;
    tqi_table_result r = {0};
    tqi_table_batch_field fields[2];
    tqi_table_batch_block blocks[2];
    tqi_table_run run = {1, 1, 0};
    tqi_table_batch batch = {.partition = "p", .n = 1, .fields = fields, .n_fields = 2, .blocks = blocks, .n_blocks = 2};
    tqi_table_publish_args p = {.batch = &batch, .naming = TQI_TABLE_NEW, .session = SESSION};
    uint64_t first;

    (void)state;
    table_open(&t);
    assert_int_equal(tqi_table_grant(t.table, SESSION, t.owner, 2, &first, &t.err), TQ_OK);
    for (size_t i = 0; i < 2; i++) {
        fields[i] = (tqi_table_batch_field){.name = "a", .dtype = {TQ_INT, 8}, .runs = &run, .n_runs = 1};
        blocks[i] = (tqi_table_batch_block){.id = first, .size = 8, .owner = "unit", .owner_incarnation = 7};
    }
    assert_int_equal(tqi_table_publish(t.table, &p, &r, &t.err), TQ_EINVAL); /* the block twice */
    blocks[1].id = first + 1;
    assert_int_equal(tqi_table_publish(t.table, &p, &r, &t.err), TQ_EINVAL); /* the field twice */
    fields[1].name = "b";
    blocks[1].owner_incarnation = 8;
    assert_int_equal(tqi_table_publish(t.table, &p, &r, &t.err), TQ_ESTALE);
    blocks[1].owner_incarnation = 7;
    blocks[1].owner = "nobody";
    assert_int_equal(tqi_table_publish(t.table, &p, &r, &t.err), TQ_ESTALE);
    blocks[1].owner = "unit";
    p.session = SESSION + 1;
    assert_int_equal(tqi_table_publish(t.table, &p, &r, &t.err), TQ_EINVAL);
    p.session = SESSION;
    assert_null(tqi_table_find_partition(t.table, "p"));
    assert_int_equal(tqi_table_publish(t.table, &p, &r, &t.err), TQ_OK);
    tqi_table_result_fini(&r);
    assert_int_equal(tqi_table_publish(t.table, &p, &r, &t.err), TQ_EINVAL); /* published already */
    /* The second block carried no cell. */
    assert_int_equal(tqi_table_owner_blocks(t.owner), 1);
    close_empty(&t);
}

static void tags_merge_by_name(void **state)
{
    static const char *const keys[] = {"k", "l", "k"};
    static const uint8_t first[] = {1, 2, 2, 3};
    static const uint32_t first_sizes[] = {1, 2, 1};
    static const uint8_t second[] = {9};
    static const uint32_t second_sizes[] = {0, 1, 0};
    tqi_table_batch_tag tags[] = {{"t", first, 4, first_sizes}, {"u", second, 1, second_sizes}};
    table t;
    tqi_table_result r = {0};
    one_field o = make(3);

    (void)state;
    table_open(&t);
    o.naming = TQI_TABLE_BY_KEY;
    o.keys = keys;
    o.tags = tags;
    o.n_tags = 2;
    o.field.name = NULL;
    assert_int_equal(publish(&t, &o, &r), TQ_OK);
    assert_int_equal(r.batch.n_tags, 2);
    assert_memory_equal(r.batch.tags[0].sizes, ((uint32_t[]){1, 2, 1}), 12);
    assert_memory_equal(r.batch.tags[0].values, ((uint8_t[]){3, 2, 2, 3}), 4);
    tqi_table_result_fini(&r);
    /* Other names stay. */
    o.n = 2;
    tags[0] = (tqi_table_batch_tag){"u", second, 1, (const uint32_t[]){1, 0}};
    o.n_tags = 1;
    assert_int_equal(publish_only(&t, o), TQ_OK);
    /* And are there when a put brings none. */
    o.n_tags = 0;
    assert_int_equal(publish(&t, &o, &r), TQ_OK);
    assert_int_equal(r.batch.n_tags, 2);
    tqi_table_result_fini(&r);
    assert_int_equal(tqi_table_partition_keys_for_tests(t.table, tqi_table_find_partition(t.table, "p"), &r, &t.err),
                     TQ_OK);
    assert_int_equal(r.batch.n, 2);
    assert_string_equal(r.batch.keys[0], "k");
    assert_string_equal(r.batch.keys[1], "l");
    assert_int_equal(r.batch.n_tags, 2);
    for (size_t i = 0; i < 2; i++) {
        bool is_t = strcmp(r.batch.tags[i].name, "t") == 0;
        assert_memory_equal(r.batch.tags[i].sizes, (is_t ? (uint32_t[]){1, 2} : (uint32_t[]){1, 1}), 8);
        assert_memory_equal(r.batch.tags[i].values, (is_t ? (uint8_t[]){3, 2, 2} : (uint8_t[]){9, 9}), is_t ? 3 : 2);
    }
    tqi_table_result_fini(&r);
    /* Values that do not fit their sizes. */
    tags[0] = (tqi_table_batch_tag){"u", first, 3, (const uint32_t[]){1, 1}};
    o.n_tags = 1;
    assert_int_equal(publish_only(&t, o), TQ_EINVAL);
    tags[0].values_size = 1;
    assert_int_equal(publish_only(&t, o), TQ_EINVAL);
    assert_int_equal(tqi_table_partition_keys_for_tests(t.table, tqi_table_find_partition(t.table, "p"), &r, &t.err),
                     TQ_OK);
    assert_int_equal(r.batch.tags[0].values_size + r.batch.tags[1].values_size, 5);
    tqi_table_result_fini(&r);
    close_empty(&t);
}

static void groups_are_given_once(void **state)
{
    static const char *const keys[] = {"k", "l", "k"};
    table t;
    tqi_table_result r = {0};
    one_field o = make(3);

    (void)state;
    table_open(&t);
    o.naming = TQI_TABLE_BY_KEY;
    o.keys = keys;
    o.groups = (const char *const[]){"g", NULL, "h"};
    assert_int_equal(publish_only(&t, o), TQ_EINVAL);
    assert_null(tqi_table_find_partition(t.table, "p"));
    o.groups = (const char *const[]){NULL, NULL, "g"};
    assert_int_equal(publish(&t, &o, &r), TQ_OK);
    assert_string_equal(r.batch.groups[0], "g");
    assert_null(r.batch.groups[1]);
    tqi_table_result_fini(&r);
    o.groups = (const char *const[]){"g", "", "g"};
    assert_int_equal(publish_only(&t, o), TQ_OK);
    o.groups = (const char *const[]){"g", "g", "g"};
    assert_int_equal(publish_only(&t, o), TQ_EINVAL);
    assert_non_null(strstr(t.err.message, "'g'"));
    o.groups = (const char *const[]){"h", NULL, NULL};
    assert_int_equal(publish_only(&t, o), TQ_EINVAL);
    close_empty(&t);
}

static void reserving_joins_without_cells(void **state)
{
    static const char *const keys[] = {"x", "y", "x"};
    table t;
    tqi_table_result r = {0};
    uint32_t cleared;

    (void)state;
    table_open(&t);
    assert_int_equal(tqi_table_reserve_for_tests(t.table, "p", 0, NULL, NULL, &r, &t.err), TQ_OK);
    tqi_table_result_fini(&r);
    assert_null(tqi_table_find_partition(t.table, "p"));
    assert_int_equal(tqi_table_reserve_for_tests(t.table, "p", 3, keys, NULL, &r, &t.err), TQ_OK);
    assert_int_equal(r.batch.indexes[0], r.batch.indexes[2]);
    tqi_table_result_fini(&r);
    assert_int_equal(tqi_table_reserve_for_tests(t.table, "p", 2, NULL, NULL, &r, &t.err), TQ_OK);
    assert_int_equal(r.batch.indexes[0], 2);
    assert_int_equal(r.batch.ordinals[1], 3);
    tqi_table_result_fini(&r);
    assert_int_equal(tqi_table_partition_samples(tqi_table_find_partition(t.table, "p")), 4);
    assert_string_equal(tqi_table_partition_key(tqi_table_find_partition(t.table, "p"), 1), "y");
    assert_null(tqi_table_partition_key(tqi_table_find_partition(t.table, "p"), 2));
    assert_null(tqi_table_partition_key(tqi_table_find_partition(t.table, "p"), 99));
    /* First freed, first used; never seen in the old partition. */
    assert_int_equal(tqi_table_clear_indexes(t.table, "p", (const uint32_t[]){3, 0, 3}, NULL, 3, &cleared, &t.err),
                     TQ_OK);
    assert_int_equal(cleared, 2);
    assert_int_equal(tqi_table_reserve_for_tests(t.table, "q", 3, NULL, NULL, &r, &t.err), TQ_OK);
    assert_int_equal(r.batch.indexes[0], 3);
    assert_int_equal(r.batch.indexes[1], 0);
    assert_int_equal(r.batch.indexes[2], 4);
    assert_int_equal(r.batch.incarnations[0], 2);
    tqi_table_result_fini(&r);
    tqi_table_resolve_args ask = {.partition = "p", .indexes = (const uint32_t[]){3}, .n = 1};
    assert_int_equal(tqi_table_resolve(t.table, &ask, &r, &t.err), TQ_ECLEARED);
    assert_int_equal(tqi_table_clear_indexes(t.table, "p", (const uint32_t[]){3}, NULL, 1, &cleared, &t.err), TQ_OK);
    assert_int_equal(cleared, 0);
    /* Partitions come in order of creation. */
    assert_string_equal(tqi_table_partition_name(tqi_table_next_partition(t.table, NULL)), "p");
    table_clear(&t, "q");
    close_empty(&t);
}

static void resolving_names_what_is_missing(void **state)
{
    static const char *const fields[] = {"none", "a"};
    table t;
    tqi_table_result r = {0};
    tqi_table_view *view;

    (void)state;
    table_open(&t);
    assert_int_equal(publish_only(&t, make(2)), TQ_OK);
    /* A field that only a claim has named is unknown. */
    assert_int_equal(tqi_table_view_get(t.table, "p", fields, 1, "train", &view, &t.err), TQ_OK);
    tqi_table_resolve_args ask = {.partition = "p", .fields = fields, .n_fields = 2};
    assert_int_equal(tqi_table_resolve(t.table, &ask, &r, &t.err), TQ_EFIELD);
    assert_non_null(strstr(t.err.message, "'none'"));
    ask.lenient = true;
    assert_int_equal(tqi_table_resolve(t.table, &ask, &r, &t.err), TQ_OK);
    assert_int_equal(r.batch.n_fields, 1);
    assert_int_equal(r.batch.n, 2);
    tqi_table_result_fini(&r);
    tqi_table_view_unref(view);
    close_empty(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_schema_turns_ragged_and_is_forgotten),
        cmocka_unit_test(values_are_ragged_bytes),
        cmocka_unit_test(malformed_batches_are_refused),
        cmocka_unit_test(a_field_may_not_be_there_twice_nor_an_unknown_block),
        cmocka_unit_test(a_block_ends_with_the_record_of_its_owner),
        cmocka_unit_test(tags_merge_by_name),
        cmocka_unit_test(groups_are_given_once),
        cmocka_unit_test(reserving_joins_without_cells),
        cmocka_unit_test(resolving_names_what_is_missing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
