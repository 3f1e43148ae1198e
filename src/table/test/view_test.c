/*
 * view_test.c - views, tasks, claims and cached picks in the cases that are easy to get wrong.
 */
#include "table/test/testkit.h"

static const char *const ab[] = {"a", "b"};

static tqi_table_view *get(table *t, const char *partition, const char *const *fields, size_t n, const char *task)
{
    tqi_table_view *view = NULL;

    assert_int_equal(tqi_table_view_get(t->table, partition, fields, n, task, &view, &t->err), TQ_OK);
    return view;
}

static uint64_t count_views(const table *t)
{
    tqi_table_counts counts;

    tqi_table_count(t->table, &counts);
    return counts.views;
}

static void unheld_views_of_nothing_go_away(void **state)
{
    table t;
    tqi_table_view *one, *two;

    (void)state;
    table_open(&t);
    one = get(&t, "later", ab, 2, "train");
    two = get(&t, "later", (const char *const[]){"b", "a", "b"}, 3, "train");
    assert_ptr_equal(one, two);
    assert_int_equal(count_views(&t), 1);
    assert_null(tqi_table_find_partition(t.table, "later"));
    assert_null(tqi_table_next_partition(t.table, NULL));
    tqi_table_view_unref(one);
    assert_int_equal(count_views(&t), 1);
    tqi_table_view_unref(two);
    assert_int_equal(count_views(&t), 0);
    /* That of a written partition stays, and is found again. */
    table_new(&t, "p", 2, ab, 2, NULL);
    one = get(&t, "p", ab, 2, "train");
    assert_int_equal(tqi_table_view_ready(one), 2);
    tqi_table_view_unref(one);
    assert_int_equal(count_views(&t), 1);
    table_clear(&t, "p");
    assert_int_equal(count_views(&t), 0);
    table_assert_empty(&t);
    table_close(&t);
}

static void a_held_view_survives_its_partition(void **state)
{
    table t;
    tqi_table_view *view;
    const char *name;
    uint32_t consumed;
    uint32_t taken[2];
    uint64_t claim;

    (void)state;
    table_open(&t);
    table_new(&t, "p", 3, ab, 2, NULL);
    view = get(&t, "p", ab, 2, "train");
    claim = table_take(&t, view, 2, taken);
    table_clear(&t, "p");
    assert_int_equal(tqi_table_view_ready(view), 0);
    assert_null(tqi_table_find_partition(t.table, "p"));
    while (tqi_table_next_touched(t.table) != NULL) {
    }
    table_new(&t, "p", 4, ab, 2, NULL);
    assert_ptr_equal(tqi_table_next_touched(t.table), view);
    assert_int_equal(tqi_table_view_ready(view), 4);
    assert_true(tqi_table_partition_task(tqi_table_find_partition(t.table, "p"), 0, &name, &consumed));
    assert_string_equal(name, "train");
    assert_int_equal(consumed, 0);
    /* The old claim has nothing to give back. */
    (void)table_take(&t, view, 4, (uint32_t[4]){0});
    tqi_table_claim_release(t.table, SESSION, claim);
    assert_int_equal(tqi_table_view_ready(view), 0);
    tqi_table_view_unref(view);
    table_clear(&t, "p");
    table_assert_empty(&t);
    table_close(&t);
}

static void views_of_a_task_share_consumption(void **state)
{
    table t;
    tqi_table_view *one, *both, *other;
    uint32_t taken[3];
    uint64_t claim;

    (void)state;
    table_open(&t);
    table_new(&t, "p", 5, ab, 2, NULL);
    one = get(&t, "p", ab, 1, "train");
    both = get(&t, "p", ab, 2, "train");
    other = get(&t, "p", ab, 2, "log");
    claim = table_take(&t, one, 3, taken);
    assert_int_equal(tqi_table_view_ready(one), 2);
    assert_int_equal(tqi_table_view_ready(both), 2);
    assert_int_equal(tqi_table_view_ready(other), 5);
    while (tqi_table_next_touched(t.table) != NULL) {
    }
    tqi_table_claim_release(t.table, SESSION + 1, claim);
    assert_int_equal(tqi_table_view_ready(both), 2);
    tqi_table_claim_release(t.table, SESSION, claim);
    assert_int_equal(tqi_table_view_ready(both), 5);
    assert_non_null(tqi_table_next_touched(t.table));
    assert_non_null(tqi_table_next_touched(t.table));
    assert_null(tqi_table_next_touched(t.table));
    tqi_table_view_unref(one);
    tqi_table_view_unref(both);
    tqi_table_view_unref(other);
    table_clear(&t, "p");
    table_assert_empty(&t);
    table_close(&t);
}

static void a_claim_gives_back_only_what_is_still_its_own(void **state)
{
    table t;
    tqi_table_view *view;
    uint32_t taken[4];
    uint32_t cleared;
    uint64_t claim, later;

    (void)state;
    table_open(&t);
    table_new(&t, "p", 4, ab, 2, NULL);
    view = get(&t, "p", ab, 2, "train");
    claim = table_take(&t, view, 4, taken);
    assert_int_equal(tqi_table_clear_indexes(t.table, "p", &taken[1], NULL, 1, &cleared, &t.err), TQ_OK);
    table_new(&t, "p", 1, ab, 2, NULL); /* the same index, not claimed */
    later = table_take(&t, view, 1, taken + 1);
    tqi_table_claim_release(t.table, SESSION, claim);
    assert_int_equal(tqi_table_view_ready(view), 3);
    tqi_table_claim_settle(t.table, later);
    /* After a reset and another claim, the first claim no longer matters. */
    claim = table_take(&t, view, 2, taken);
    assert_int_equal(tqi_table_reset_consumption(t.table, "p", "", &t.err), TQ_OK);
    assert_int_equal(tqi_table_view_ready(view), 4);
    later = table_take(&t, view, 4, taken);
    tqi_table_claim_release(t.table, SESSION, claim);
    assert_int_equal(tqi_table_view_ready(view), 0);
    tqi_table_claim_release(t.table, SESSION, later);
    assert_int_equal(tqi_table_view_ready(view), 4);
    /* When the session ends, unsettled claims are given back. */
    later = table_take(&t, view, 2, taken);
    tqi_table_claim_settle(t.table, table_take(&t, view, 1, taken));
    tqi_table_session_end(t.table, SESSION, true);
    assert_int_equal(tqi_table_view_ready(view), 3);
    tqi_table_claim_release(t.table, SESSION, later);
    tqi_table_view_unref(view);
    table_clear(&t, "p");
    table_assert_empty(&t);
    table_close(&t);
}

static void taking_checks_its_samples(void **state)
{
    table t;
    tqi_table_view *view;
    tqi_table_result r = {0};
    uint32_t index = 77;
    uint32_t ok = 0;

    (void)state;
    table_open(&t);
    table_new(&t, "p", 2, ab, 2, NULL);
    view = get(&t, "p", ab, 2, "train");
    assert_int_equal(tqi_table_view_take(view, &index, 1, &ok, 1, SESSION, false, &r, &t.err), TQ_ECLEARED);
    assert_int_equal(tqi_table_view_take(view, &ok, 1, &index, 1, SESSION, false, &r, &t.err), TQ_ECLEARED);
    assert_null(r.region.chunks);
    assert_int_equal(tqi_table_view_ready(view), 2);
    assert_int_equal(tqi_table_view_take(view, &ok, 1, NULL, 0, SESSION, false, &r, &t.err), TQ_OK);
    assert_int_equal(r.claim, 0);
    assert_int_equal(tqi_table_view_ready(view), 2);
    tqi_table_result_fini(&r);
    assert_int_equal(tqi_table_view_cache_set(view, "s", &index, 1, &t.err), TQ_ECLEARED);
    assert_int_equal(tqi_table_view_cache_set(view, "", &ok, 1, &t.err), TQ_ENAME);
    tqi_table_view_unref(view);
    table_clear(&t, "p");
    table_assert_empty(&t);
    table_close(&t);
}

static void bad_views_are_refused(void **state)
{
    table t;
    tqi_table_view *view;
    char name[TQ_NAME_MAX + 2];

    (void)state;
    table_open(&t);
    memset(name, 'x', sizeof(name));
    name[TQ_NAME_MAX + 1] = '\0';
    assert_int_equal(tqi_table_view_get(t.table, "p", ab, 0, "train", &view, &t.err), TQ_EINVAL);
    assert_int_equal(tqi_table_view_get(t.table, "p", ab, 1, "", &view, &t.err), TQ_ENAME);
    assert_int_equal(tqi_table_view_get(t.table, "", ab, 1, "train", &view, &t.err), TQ_ENAME);
    assert_int_equal(tqi_table_view_get(t.table, name, ab, 1, "train", &view, &t.err), TQ_ENAME);
    assert_int_equal(tqi_table_view_get(t.table, "p", (const char *const[]){"a", ""}, 2, "train", &view, &t.err),
                     TQ_ENAME);
    assert_int_equal(tqi_table_view_get(t.table, "p", (const char *const[]){name}, 1, "train", &view, &t.err), TQ_ENAME);
    assert_int_equal(count_views(&t), 0);
    table_assert_empty(&t);
    table_close(&t);
}

static void cached_picks_end_with_their_samples(void **state)
{
    table t;
    tqi_table_view *view, *same_task;
    uint32_t n;
    const uint32_t *got;
    uint32_t cleared;

    (void)state;
    table_open(&t);
    table_new(&t, "p", 4, ab, 2, NULL);
    view = get(&t, "p", ab, 2, "train");
    same_task = get(&t, "p", ab, 1, "train");
    assert_null(tqi_table_view_cache_get(view, "r0", &n));
    assert_int_equal(tqi_table_view_cache_set(view, "r0", (const uint32_t[]){2, 0}, 2, &t.err), TQ_OK);
    assert_int_equal(tqi_table_view_cache_set(view, "r1", (const uint32_t[]){1}, 1, &t.err), TQ_OK);
    got = tqi_table_view_cache_get(same_task, "r0", &n);
    assert_int_equal(n, 2);
    assert_int_equal(got[0], 2);
    assert_int_equal(got[1], 0);
    assert_int_equal(tqi_table_view_cache_set(view, "r0", (const uint32_t[]){3}, 1, &t.err), TQ_OK);
    got = tqi_table_view_cache_get(view, "r0", &n);
    assert_int_equal(n, 1);
    assert_int_equal(got[0], 3);
    assert_int_equal(tqi_table_clear_indexes(t.table, "p", (const uint32_t[]){3}, NULL, 1, &cleared, &t.err), TQ_OK);
    assert_null(tqi_table_view_cache_get(view, "r0", &n));
    table_new(&t, "p", 1, ab, 2, NULL);
    assert_null(tqi_table_view_cache_get(view, "r0", &n));
    assert_non_null(tqi_table_view_cache_get(view, "r1", &n));
    assert_int_equal(tqi_table_view_cache_set(view, "r1", NULL, 0, &t.err), TQ_OK);
    assert_null(tqi_table_view_cache_get(view, "r1", &n));
    tqi_table_view_unref(view);
    tqi_table_view_unref(same_task);
    table_clear(&t, "p");
    table_assert_empty(&t);
    table_close(&t);
}

static void status_of_unknown_things_is_empty(void **state)
{
    table t;
    bool known = true;
    uint32_t *index;
    uint8_t *bits;
    size_t n;
    const char *name;
    uint32_t consumed;

    (void)state;
    table_open(&t);
    assert_int_equal(tqi_table_consumption(t.table, "p", "train", &known, &index, &bits, &n, &t.err), TQ_OK);
    assert_false(known);
    assert_null(index);
    assert_null(bits);
    table_new(&t, "p", 2, ab, 1, NULL);
    assert_int_equal(tqi_table_consumption(t.table, "p", "nobody", &known, &index, &bits, &n, &t.err), TQ_OK);
    assert_true(known);
    assert_int_equal(n, 2);
    assert_memory_equal(bits, "\0\0", 2);
    free(index);
    free(bits);
    assert_int_equal(tqi_table_production(t.table, "p", ab, 2, &known, &index, &bits, &n, &t.err), TQ_OK);
    assert_memory_equal(bits, "\1\0\1\0", 4);
    free(index);
    free(bits);
    assert_false(tqi_table_partition_task(tqi_table_find_partition(t.table, "p"), 0, &name, &consumed));
    assert_int_equal(tqi_table_reset_consumption(t.table, "nowhere", "train", &t.err), TQ_OK);
    assert_int_equal(tqi_table_reset_consumption(t.table, "p", "nobody", &t.err), TQ_OK);
    table_clear(&t, "p");
    table_clear(&t, "p");
    table_assert_empty(&t);
    table_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unheld_views_of_nothing_go_away),
        cmocka_unit_test(a_held_view_survives_its_partition),
        cmocka_unit_test(views_of_a_task_share_consumption),
        cmocka_unit_test(a_claim_gives_back_only_what_is_still_its_own),
        cmocka_unit_test(taking_checks_its_samples),
        cmocka_unit_test(bad_views_are_refused),
        cmocka_unit_test(cached_picks_end_with_their_samples),
        cmocka_unit_test(status_of_unknown_things_is_empty),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
