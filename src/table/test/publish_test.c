/*
 * publish_test.c - publish, claim, clear and resolve, as one follows the other.
 */
#include "base/error.h"
#include "table/test/testkit.h"

static const char *const ab[] = {"a", "b"};

static void new_samples_are_published(void **state)
{
    table t;
    put p = {.partition = "p", .n = 3, .naming = TQI_TABLE_NEW, .fields = ab, .n_fields = 2};
    tqi_table_result r = {0};
    tqi_table_field_info info;

    (void)state;
    table_open(&t);
    assert_int_equal(table_put(&t, &p, &r), TQ_OK);
    assert_int_equal(r.batch.n, 3);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(r.batch.indexes[i], i);
        assert_int_equal(r.batch.incarnations[i], 1);
        assert_int_equal(r.batch.ordinals[i], i);
    }
    assert_int_equal(r.batch.n_fields, 2);
    assert_string_equal(r.batch.fields[1].name, "b");
    assert_int_equal(r.batch.fields[1].ndim, 1);
    assert_int_equal(r.batch.fields[1].shape[0], ROW);
    assert_null(r.batch.keys);
    tqi_table_result_fini(&r);

    tqi_table_partition *partition = tqi_table_find_partition(t.table, "p");
    assert_non_null(partition);
    assert_int_equal(tqi_table_partition_samples(partition), 3);
    assert_int_equal(tqi_table_partition_bytes(partition), 3 * 2 * ROW * 4);
    assert_true(tqi_table_partition_field(partition, 0, &info));
    assert_string_equal(info.name, "a");
    assert_int_equal(info.produced, 3);
    assert_int_equal(info.ndim, 1);
    assert_int_equal(info.shape[0], ROW);
    assert_false(info.ragged);
    assert_false(tqi_table_partition_field(partition, 2, &info));
    assert_int_equal(tqi_table_owner_blocks(t.owner), 2);

    table_clear(&t, "p");
    assert_null(tqi_table_find_partition(t.table, "p"));
    table_assert_empty(&t);
    table_close(&t);
}

static void samples_are_published_by_index(void **state)
{
    table t;
    uint32_t indexes[4];
    tqi_table_result r = {0};
    tqi_table_batch_block const *block;

    (void)state;
    table_open(&t);
    table_new(&t, "p", 4, ab, 1, indexes);
    /* The second column, in another order. */
    uint32_t order[] = {indexes[3], indexes[1], indexes[0], indexes[2]};
    put p = {.partition = "p", .n = 4, .naming = TQI_TABLE_BY_INDEX, .indexes = order, .fields = ab + 1, .n_fields = 1};
    assert_int_equal(table_put(&t, &p, &r), TQ_OK);
    tqi_table_result_fini(&r);

    tqi_table_resolve_args ask = {.partition = "p", .indexes = order, .n = 4};
    assert_int_equal(tqi_table_resolve(t.table, &ask, &r, &t.err), TQ_OK);
    assert_int_equal(r.batch.n_fields, 2);
    assert_int_equal(r.batch.n_blocks, 2);
    assert_string_equal(r.batch.fields[0].name, "a");
    assert_int_equal(r.batch.fields[0].n_runs, 4);
    assert_int_equal(r.batch.fields[0].runs[0].offset, 3 * ROW * 4);
    assert_int_equal(r.batch.fields[1].n_runs, 1);
    assert_int_equal(r.batch.fields[1].runs[0].rows, 4);
    block = &r.batch.blocks[r.batch.fields[1].runs[0].block - 1];
    assert_int_equal(block->id, p.first_block);
    assert_string_equal(block->owner, "unit");
    assert_int_equal(block->owner_incarnation, 7);
    assert_int_equal(block->locator_size, 4);
    assert_memory_equal(block->locator, "here", 4);
    assert_int_equal(r.bytes, 4 * 2 * ROW * 4);
    tqi_table_result_fini(&r);

    /* A cleared sample refuses the whole publish. */
    uint32_t incarnations[] = {1, 1, 1, 1};
    uint32_t cleared;
    assert_int_equal(tqi_table_clear_indexes(t.table, "p", &indexes[1], NULL, 1, &cleared, &t.err), TQ_OK);
    assert_int_equal(cleared, 1);
    p.incarnations = incarnations;
    assert_int_equal(table_put(&t, &p, &r), TQ_ECLEARED);
    assert_non_null(strstr(t.err.message, "'p'"));
    assert_null(r.region.chunks);
    /* The index comes back with a new incarnation. */
    uint32_t again;
    table_new(&t, "p", 1, ab, 2, &again);
    assert_int_equal(again, indexes[1]);
    assert_int_equal(table_put(&t, &p, &r), TQ_ECLEARED);
    incarnations[1] = 2;
    assert_int_equal(table_put(&t, &p, &r), TQ_OK);
    tqi_table_result_fini(&r);

    table_clear(&t, "p");
    table_assert_empty(&t);
    table_close(&t);
}

static void what_is_ready_is_claimed_once(void **state)
{
    table t;
    tqi_table_view *view;
    uint32_t taken[4];
    uint64_t claim;
    tqi_table_result r = {0};
    const uint32_t *list;
    bool known;
    uint32_t *index;
    uint8_t *consumed;
    size_t n;

    (void)state;
    table_open(&t);
    assert_int_equal(tqi_table_view_get(t.table, "p", ab, 2, "train", &view, &t.err), TQ_OK);
    assert_int_equal(tqi_table_view_ready(view), 0);
    assert_null(tqi_table_next_touched(t.table));
    table_new(&t, "p", 4, ab, 1, NULL);
    assert_int_equal(tqi_table_view_ready(view), 0);
    assert_null(tqi_table_next_touched(t.table));
    uint32_t some[] = {2, 0, 3};
    put p = {.partition = "p", .n = 3, .naming = TQI_TABLE_BY_INDEX, .indexes = some, .fields = ab + 1, .n_fields = 1};
    assert_int_equal(table_put(&t, &p, &r), TQ_OK);
    tqi_table_result_fini(&r);
    assert_ptr_equal(tqi_table_next_touched(t.table), view);
    assert_null(tqi_table_next_touched(t.table));
    assert_int_equal(tqi_table_view_list_for_tests(view, &list, &t.err), 3);
    assert_int_equal(list[0], 0);
    assert_int_equal(list[1], 2);
    assert_int_equal(list[2], 3);

    claim = table_take(&t, view, 2, taken);
    assert_int_equal(taken[0], 0);
    assert_int_equal(taken[1], 2);
    assert_int_equal(tqi_table_view_ready(view), 1);
    assert_int_equal(tqi_table_consumption(t.table, "p", "train", &known, &index, &consumed, &n, &t.err), TQ_OK);
    assert_true(known);
    assert_int_equal(n, 4);
    assert_memory_equal(consumed, "\1\0\1\0", 4);
    free(index);
    free(consumed);

    tqi_table_claim_release(t.table, SESSION, claim);
    tqi_table_claim_release(t.table, SESSION, claim);
    assert_ptr_equal(tqi_table_next_touched(t.table), view);
    assert_int_equal(tqi_table_view_ready(view), 3);
    claim = table_take(&t, view, 3, taken);
    tqi_table_claim_settle(t.table, claim);
    tqi_table_claim_release(t.table, SESSION, claim);
    assert_int_equal(tqi_table_view_ready(view), 0);

    tqi_table_view_unref(view);
    table_clear(&t, "p");
    table_assert_empty(&t);
    table_close(&t);
}

static void samples_are_named_by_keys_and_cleared(void **state)
{
    static const char *const keys[] = {"k1", "k2", "k1"};
    table t;
    tqi_table_result r = {0};
    uint32_t cleared;
    put p = {
        .partition = "p",
        .n = 3,
        .naming = TQI_TABLE_BY_KEY,
        .create = false,
        .keys = keys,
        .fields = ab,
        .n_fields = 1,
    };

    (void)state;
    table_open(&t);
    assert_int_equal(table_put(&t, &p, &r), TQ_EKEY);
    assert_non_null(strstr(t.err.message, "'k1'"));
    assert_null(tqi_table_find_partition(t.table, "p"));
    p.create = true;
    assert_int_equal(table_put(&t, &p, &r), TQ_OK);
    assert_int_equal(r.batch.indexes[0], 0);
    assert_int_equal(r.batch.indexes[1], 1);
    assert_int_equal(r.batch.indexes[2], 0);
    assert_string_equal(r.batch.keys[2], "k1");
    tqi_table_result_fini(&r);
    assert_int_equal(tqi_table_partition_samples(tqi_table_find_partition(t.table, "p")), 2);

    /* The later row of the key won. */
    tqi_table_resolve_args ask = {.partition = "p", .keys = keys, .n = 2};
    assert_int_equal(tqi_table_resolve(t.table, &ask, &r, &t.err), TQ_OK);
    assert_int_equal(r.batch.fields[0].n_runs, 2);
    assert_int_equal(r.batch.fields[0].runs[0].offset, 2 * ROW * 4);
    assert_int_equal(r.batch.fields[0].runs[1].offset, 1 * ROW * 4);
    tqi_table_result_fini(&r);

    p.naming = TQI_TABLE_NEW;
    assert_int_equal(table_put(&t, &p, &r), TQ_EEXIST);
    assert_int_equal(tqi_table_clear_keys(t.table, "p", keys, 3, &cleared, &t.err), TQ_OK);
    assert_int_equal(cleared, 2);
    assert_non_null(tqi_table_find_partition(t.table, "p"));
    assert_int_equal(tqi_table_resolve(t.table, &ask, &r, &t.err), TQ_EKEY);
    ask.lenient = true;
    assert_int_equal(tqi_table_resolve(t.table, &ask, &r, &t.err), TQ_OK);
    assert_int_equal(r.batch.n, 0);
    tqi_table_result_fini(&r);
    table_clear(&t, "p");
    assert_int_equal(tqi_table_resolve(t.table, &ask, &r, &t.err), TQ_OK);
    tqi_table_result_fini(&r);
    ask.lenient = false;
    assert_int_equal(tqi_table_resolve(t.table, &ask, &r, &t.err), TQ_EPARTITION);
    table_assert_empty(&t);
    table_close(&t);
}

static int refuse(const tqi_table_result *result, void *arg, tq_error *err)
{
    *(size_t *)arg = result->batch.n;
    assert_non_null(result->batch.indexes);
    assert_non_null(result->batch.incarnations);
    return tqi_error_set(err, TQ_EINVAL, "refused");
}

static void a_result_that_is_not_accepted_changes_nothing(void **state)
{
    static const char *const keys[] = {"a", "b", "c"};
    table t;
    size_t seen = 0;
    tqi_table_result r = {0};
    tqi_table_batch batch = {.partition = "p", .n = 3, .keys = keys};
    tqi_table_publish_args publish = {
        .batch = &batch,
        .naming = TQI_TABLE_BY_KEY,
        .create = true,
        .session = SESSION,
        .accept = refuse,
        .accept_arg = &seen,
    };

    (void)state;
    table_open(&t);
    assert_int_equal(tqi_table_publish(t.table, &publish, &r, &t.err), TQ_EINVAL);
    assert_string_equal(t.err.message, "refused");
    assert_int_equal(seen, 3);
    assert_null(r.region.chunks);
    assert_null(tqi_table_find_partition(t.table, "p"));
    table_assert_empty(&t);
    publish.accept = NULL;
    assert_int_equal(tqi_table_publish(t.table, &publish, &r, &t.err), TQ_OK);
    assert_int_equal(r.batch.indexes[0], 0);
    tqi_table_result_fini(&r);
    table_clear(&t, "p");
    table_assert_empty(&t);
    table_close(&t);
}

/* Tags of key `key` in partition p; returns the names of its fields as the publish tells them. */
static void tag_key(table *t, const char *key, bool wanted, tqi_table_result *r)
{
    const char *const keys[] = {key};
    const uint32_t size = 1;
    const tqi_table_batch_tag tag = {.name = "t", .values = (const uint8_t *)"\x07", .values_size = 1, .sizes = &size};
    const tqi_table_batch batch = {.partition = "p", .n = 1, .keys = keys, .tags = &tag, .n_tags = 1};
    const tqi_table_publish_args publish = {
        .batch = &batch,
        .naming = TQI_TABLE_BY_KEY,
        .create = true,
        .other_fields = wanted,
    };

    assert_int_equal(tqi_table_publish(t->table, &publish, r, &t->err), TQ_OK);
}

static void a_publish_names_the_other_fields(void **state)
{
    static const char *const both[] = {"x", "y"};
    static const char *const one[] = {"x"};
    static const char *const keys[] = {"a", "b"};
    table t;
    tqi_table_result r = {0};
    put p = {
        .partition = "p",
        .n = 1,
        .naming = TQI_TABLE_BY_KEY,
        .create = true,
        .keys = keys,
        .fields = both,
        .n_fields = 2,
    };

    (void)state;
    table_open(&t);
    assert_int_equal(table_put(&t, &p, &r), TQ_OK);
    assert_int_equal(r.n_other_fields, 0); /* nobody asked */
    tqi_table_result_fini(&r);
    p.keys = &keys[1];
    p.fields = one;
    p.n_fields = 1;
    assert_int_equal(table_put(&t, &p, &r), TQ_OK);
    tqi_table_result_fini(&r);

    tag_key(&t, "a", true, &r);
    assert_int_equal(r.n_other_fields, 2);
    assert_string_equal(r.other_fields[0], "x");
    assert_string_equal(r.other_fields[1], "y");
    tqi_table_result_fini(&r);
    tag_key(&t, "b", true, &r);
    assert_int_equal(r.n_other_fields, 1);
    assert_string_equal(r.other_fields[0], "x");
    tqi_table_result_fini(&r);
    tag_key(&t, "b", false, &r);
    assert_int_equal(r.n_other_fields, 0);
    tqi_table_result_fini(&r);
    tag_key(&t, "new", true, &r);
    assert_int_equal(r.n_other_fields, 0);
    tqi_table_result_fini(&r);
    table_clear(&t, "p");
    table_assert_empty(&t);
    table_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(new_samples_are_published),
        cmocka_unit_test(samples_are_published_by_index),
        cmocka_unit_test(what_is_ready_is_claimed_once),
        cmocka_unit_test(samples_are_named_by_keys_and_cleared),
        cmocka_unit_test(a_result_that_is_not_accepted_changes_nothing),
        cmocka_unit_test(a_publish_names_the_other_fields),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
