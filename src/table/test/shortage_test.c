/*
 * shortage_test.c - what a view reports as missing: samples, fields, complete groups.
 */
#include "table/test/testkit.h"

static const char *const ab[] = {"a", "b"};

static tqi_table_view *get(table *t, const char *partition)
{
    tqi_table_view *view = NULL;

    assert_int_equal(tqi_table_view_get(t->table, partition, ab, 2, "train", &view, &t->err), TQ_OK);
    return view;
}

static void put_group(table *t, size_t n, const char *group, uint32_t *indexes)
{
    const char *groups[8];
    put p = {
        .partition = "p",
        .n = n,
        .naming = TQI_TABLE_NEW,
        .groups = group != NULL ? groups : NULL,
        .fields = ab,
        .n_fields = 2,
    };
    tqi_table_result result = {0};

    for (size_t i = 0; i < n; i++) {
        groups[i] = group;
    }
    assert_int_equal(table_put(t, &p, &result), TQ_OK);
    memcpy(indexes, result.batch.indexes, n * sizeof(*indexes));
    tqi_table_result_fini(&result);
}

static void clear(table *t, uint32_t index)
{
    uint32_t cleared;

    assert_int_equal(tqi_table_clear_indexes(t->table, "p", &index, NULL, 1, &cleared, &t->err), TQ_OK);
    assert_int_equal(cleared, 1);
}

static void counts_samples_and_fields(void **state)
{
    table t;
    tqi_table_shortage shortage;
    const char *name;
    uint32_t produced, lost;
    uint32_t taken[1];

    (void)state;
    table_open(&t);
    tqi_table_view *view = get(&t, "p");
    tqi_table_view_shortage(view, &shortage);
    assert_false(shortage.exists);
    table_new(&t, "p", 3, ab, 2, NULL);
    table_new(&t, "p", 2, ab, 1, NULL);
    (void)table_take(&t, view, 1, taken);
    tqi_table_view_shortage(view, &shortage);
    assert_true(shortage.exists);
    assert_int_equal(shortage.samples, 5);
    assert_int_equal(shortage.consumed, 1);
    assert_true(tqi_table_view_field(view, 0, &name, &produced, &lost));
    assert_string_equal(name, "a");
    assert_int_equal(produced, 5);
    assert_true(tqi_table_view_field(view, 1, &name, &produced, &lost));
    assert_string_equal(name, "b");
    assert_int_equal(produced, 3);
    assert_int_equal(lost, 0);
    assert_false(tqi_table_view_field(view, 2, &name, &produced, &lost));
    tqi_table_view_unref(view);
    table_clear(&t, "p");
    table_assert_empty(&t);
    table_close(&t);
}

static void finds_groups_that_lack_samples(void **state)
{
    table t;
    tqi_table_short_groups found;
    uint32_t whole[4], part[4];

    (void)state;
    table_open(&t);
    tqi_table_view *view = get(&t, "p");
    put_group(&t, 4, "whole", whole);
    put_group(&t, 3, "part", part);
    assert_int_equal(tqi_table_view_short_groups(view, 4, &found, &t.err), TQ_OK);
    assert_int_equal(found.groups, 1);
    assert_int_equal(found.samples, 3);
    assert_int_equal(found.broken, 0); /* more may come */
    assert_string_equal(found.example.name, "part");
    assert_int_equal(found.example.ready, 3);
    /* A sample of the whole one goes: nothing completes it by itself. */
    clear(&t, whole[2]);
    assert_int_equal(tqi_table_view_short_groups(view, 4, &found, &t.err), TQ_OK);
    assert_int_equal(found.groups, 2);
    assert_int_equal(found.samples, 6);
    assert_int_equal(found.broken, 1);
    assert_true(found.example.broken);
    assert_string_equal(found.example.name, "whole");
    assert_int_equal(found.example.left, 3);
    tqi_table_view_unref(view);
    table_clear(&t, "p");
    table_assert_empty(&t);
    table_close(&t);
}

static void finds_groups_by_ordinal(void **state)
{
    table t;
    tqi_table_short_groups found;
    uint32_t one[8];

    (void)state;
    table_open_with(&t, &(tqi_table_options){.epoch = 99, .first_ordinal = UINT64_MAX - 2});
    tqi_table_view *view = get(&t, "p");
    put_group(&t, 6, NULL, one);
    assert_int_equal(tqi_table_view_short_groups(view, 4, &found, &t.err), TQ_OK);
    assert_int_equal(found.groups, 1);
    assert_null(found.example.name);
    assert_int_equal(found.example.ordinal, 4);
    assert_int_equal(found.example.ready, 2);
    assert_false(found.example.broken);
    clear(&t, one[1]);
    assert_int_equal(tqi_table_view_short_groups(view, 4, &found, &t.err), TQ_OK);
    assert_int_equal(found.groups, 2);
    assert_int_equal(found.broken, 1);
    assert_int_equal(found.example.ordinal, 0);
    assert_int_equal(found.example.left, 3);
    tqi_table_view_unref(view);
    table_clear(&t, "p");
    table_assert_empty(&t);
    table_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_samples_and_fields),
        cmocka_unit_test(finds_groups_that_lack_samples),
        cmocka_unit_test(finds_groups_by_ordinal),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
