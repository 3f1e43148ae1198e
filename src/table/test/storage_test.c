/*
 * storage_test.c - blocks, grants, owners, dead queues, lost cells.
 */
#include "table/test/testkit.h"

static const char *const ab[] = {"a", "b"};

static size_t dead(table *t, tqi_table_dead *out, size_t max, uint64_t *notice)
{
    return tqi_table_owner_dead(t->owner, out, max, notice);
}

static void dead_blocks_are_delivered_until_done(void **state)
{
    table t;
    tqi_table_dead got[4], again[4];
    uint64_t notice, later;
    uint32_t cleared;

    (void)state;
    table_open(&t);
    assert_int_equal(dead(&t, got, 4, &notice), 0);
    assert_int_equal(notice, 0);
    table_new(&t, "p", 1, ab, 2, NULL); /* blocks 1, 2 */
    table_new(&t, "p", 1, ab, 2, NULL); /* 3, 4 */
    table_new(&t, "p", 1, ab, 2, NULL); /* 5, 6 */
    assert_null(tqi_table_next_dead(t.table));
    assert_int_equal(tqi_table_clear_indexes(t.table, "p", (const uint32_t[]){0}, NULL, 1, &cleared, &t.err), TQ_OK);
    assert_ptr_equal(tqi_table_next_dead(t.table), t.owner);
    assert_null(tqi_table_next_dead(t.table));
    assert_int_equal(dead(&t, got, 4, &notice), 1);
    assert_int_equal(got[0].first, 1);
    assert_int_equal(got[0].count, 2);
    assert_true(got[0].writer_done);
    /* Adjacent ids do not join a range that was handed out. */
    assert_int_equal(tqi_table_clear_indexes(t.table, "p", (const uint32_t[]){1, 2}, NULL, 2, &cleared, &t.err), TQ_OK);
    assert_null(tqi_table_next_dead(t.table)); /* it was not empty */
    assert_int_equal(dead(&t, again, 4, &later), 2);
    assert_int_equal(again[0].first, 1);
    assert_int_equal(again[0].count, 2);
    assert_int_equal(again[1].first, 3);
    assert_int_equal(again[1].count, 4);
    assert_true(later > notice);
    tqi_table_owner_done(t.owner, notice, 0);
    tqi_table_owner_done(t.owner, notice, 0);
    assert_int_equal(dead(&t, again, 4, &later), 1);
    assert_int_equal(again[0].first, 3);
    tqi_table_owner_done(t.owner, later + 5, 0);
    assert_int_equal(dead(&t, again, 4, &later), 0);
    table_clear(&t, "p");
    table_assert_empty(&t);
    table_close(&t);
}

static void overwriting_kills_blocks(void **state)
{
    table t;
    uint32_t indexes[2];
    tqi_table_dead got[4];
    uint64_t notice;
    tqi_table_result r = {0};

    (void)state;
    table_open(&t);
    table_new(&t, "p", 2, ab, 1, indexes); /* block 1 */
    put p = {.partition = "p", .n = 1, .naming = TQI_TABLE_BY_INDEX, .indexes = indexes, .fields = ab, .n_fields = 1};
    assert_int_equal(table_put(&t, &p, &r), TQ_OK); /* 2 */
    tqi_table_result_fini(&r);
    assert_int_equal(dead(&t, got, 4, &notice), 0);
    p.indexes = indexes + 1;
    assert_int_equal(table_put(&t, &p, &r), TQ_OK); /* 3 */
    tqi_table_result_fini(&r);
    assert_int_equal(dead(&t, got, 4, &notice), 1);
    assert_int_equal(got[0].first, 1);
    assert_int_equal(got[0].count, 1);
    assert_int_equal(tqi_table_owner_blocks(t.owner), 2);
    /* The same sample twice: the first row's cell is gone at once, its block lives on the other sample. */
    p.n = 3;
    p.indexes = (const uint32_t[]){indexes[0], indexes[1], indexes[0]};
    assert_int_equal(table_put(&t, &p, &r), TQ_OK);
    tqi_table_result_fini(&r);
    assert_int_equal(tqi_table_owner_blocks(t.owner), 1);
    table_clear(&t, "p");
    table_assert_empty(&t);
    table_close(&t);
}

/* Asking in between changes nothing: the same operations make the same notices. */
static void notices_do_not_depend_on_when_they_are_asked_for(void **state)
{
    table t[2];
    tqi_table_dead got[2][4];
    uint64_t notice[2];
    size_t n[2];

    (void)state;
    for (uint32_t k = 0; k < 2; k++) {
        table_open(&t[k]);
        table_new(&t[k], "p", 1, ab, 2, NULL); /* blocks 1, 2 */
        table_new(&t[k], "p", 1, ab, 2, NULL); /* 3, 4 */
        for (uint32_t i = 0; i < 2; i++) {
            uint32_t cleared;
            assert_int_equal(tqi_table_clear_indexes(t[k].table, "p", &i, NULL, 1, &cleared, &t[k].err), TQ_OK);
            if (k == 1) {
                dead(&t[k], got[k], 4, &notice[k]);
            }
        }
        n[k] = dead(&t[k], got[k], 4, &notice[k]);
    }
    assert_int_equal(n[0], n[1]);
    assert_int_equal(notice[0], notice[1]);
    for (size_t i = 0; i < n[0]; i++) {
        assert_int_equal(got[0][i].first, got[1][i].first);
        assert_int_equal(got[0][i].count, got[1][i].count);
    }
    for (size_t k = 0; k < 2; k++) {
        table_clear(&t[k], "p");
        table_assert_empty(&t[k]);
        table_close(&t[k]);
    }
}

static void grants_are_checked(void **state)
{
    table t;
    uint64_t first, next;
    uint64_t ids[3];
    tqi_table_dead got[8];
    uint64_t notice;

    (void)state;
    table_open(&t);
    assert_int_equal(tqi_table_grant(t.table, SESSION, t.owner, 0, &first, &t.err), TQ_EINVAL);
    assert_int_equal(tqi_table_grant(t.table, SESSION, t.owner, 257, &first, &t.err), TQ_EINVAL);
    assert_int_equal(tqi_table_grant(t.table, SESSION, t.owner, 256, &first, &t.err), TQ_OK);
    assert_int_equal(tqi_table_grant(t.table, SESSION + 1, t.owner, 1, &next, &t.err), TQ_OK);
    assert_int_equal(next, first + 256);
    ids[0] = first + 7;
    ids[1] = first + 255;
    ids[2] = first + 7;
    assert_int_equal(tqi_table_abandon(t.table, SESSION, ids, 3, true, &t.err), TQ_EINVAL);
    assert_int_equal(tqi_table_abandon(t.table, SESSION + 1, ids, 1, true, &t.err), TQ_EINVAL);
    assert_int_equal(tqi_table_abandon(t.table, SESSION, &next, 1, true, &t.err), TQ_EINVAL);
    assert_int_equal(tqi_table_abandon(t.table, SESSION + 5, ids, 1, true, &t.err), TQ_EINVAL);
    assert_int_equal(dead(&t, got, 8, &notice), 0);
    assert_int_equal(tqi_table_abandon(t.table, SESSION, ids, 2, true, &t.err), TQ_OK);
    assert_int_equal(tqi_table_abandon(t.table, SESSION, ids, 1, true, &t.err), TQ_EINVAL);
    assert_int_equal(dead(&t, got, 8, &notice), 2);
    tqi_table_owner_done(t.owner, notice, 0);
    /* The rest dies with the session: three runs, not known to be written no more. */
    tqi_table_session_end(t.table, SESSION, false);
    assert_int_equal(dead(&t, got, 8, &notice), 2);
    assert_int_equal(got[0].first, first);
    assert_int_equal(got[0].count, 7);
    assert_false(got[0].writer_done);
    assert_int_equal(got[1].first, first + 8);
    assert_int_equal(got[1].count, 247);
    tqi_table_session_end(t.table, SESSION, true);
    tqi_table_owner_done(t.owner, notice, 0);
    /* A writer that is gone no longer writes, except to a store that has yet to execute its requests. */
    tqi_table_owner_set_outlives(t.owner);
    tqi_table_session_end(t.table, SESSION + 1, true);
    assert_int_equal(dead(&t, got, 8, &notice), 1);
    assert_int_equal(got[0].first, next);
    assert_false(got[0].writer_done);
    table_assert_empty(&t);
    table_close(&t);
}

static void ids_skip_zero_at_the_wrap(void **state)
{
    tqi_table_options options = {.epoch = 1, .first_block = UINT64_MAX - 2};
    table t;
    uint64_t first;

    (void)state;
    table_open_with(&t, &options);
    assert_int_equal(tqi_table_grant(t.table, SESSION, t.owner, 2, &first, &t.err), TQ_OK);
    assert_true(first == UINT64_MAX - 2);
    assert_int_equal(tqi_table_grant(t.table, SESSION, t.owner, 2, &first, &t.err), TQ_OK);
    assert_true(first == 1);
    table_new(&t, "p", 3, ab, 2, NULL);
    table_clear(&t, "p");
    table_assert_empty(&t);
    table_close(&t);
}

static void no_grant_ends_where_the_numbers_do(void **state)
{
    tqi_table_options options = {.epoch = 1, .first_block = UINT64_MAX - 2};
    table t;
    uint64_t first;

    (void)state;
    table_open_with(&t, &options);
    assert_int_equal(tqi_table_grant(t.table, SESSION, t.owner, 3, &first, &t.err), TQ_OK);
    assert_true(first == 1);
    table_close(&t);
}

static void lost_cells_are_listed_and_healed(void **state)
{
    table t;
    uint32_t indexes[3];
    uint32_t lost[4];
    tqi_table_view *view;
    tqi_table_result r = {0};
    tqi_table_field_info info;
    tqi_table_partition *partition;
    uint64_t notice;
    tqi_table_dead got[4];
    bool known;
    uint32_t *index;
    uint8_t *bits;
    size_t n;

    (void)state;
    table_open(&t);
    table_new(&t, "p", 3, ab, 2, indexes); /* blocks 1: a, 2: b */
    partition = tqi_table_find_partition(t.table, "p");
    assert_int_equal(tqi_table_view_get(t.table, "p", ab, 2, "train", &view, &t.err), TQ_OK);
    assert_int_equal(tqi_table_blocks_lost(t.table, (const uint64_t[]){2, 99}, 2, NULL, NULL, &t.err), TQ_OK);
    assert_int_equal(tqi_table_view_ready(view), 0);
    assert_int_equal(tqi_table_partition_lost(partition, lost, 2), 3);
    assert_int_equal(lost[1], indexes[1]);
    assert_true(tqi_table_partition_field(partition, 1, &info));
    assert_int_equal(info.lost, 3);
    assert_int_equal(info.produced, 0);
    assert_int_equal(dead(&t, got, 4, &notice), 1); /* its storage may forget it */
    assert_int_equal(got[0].first, 2);
    assert_int_equal(tqi_table_production(t.table, "p", ab, 2, &known, &index, &bits, &n, &t.err), TQ_OK);
    assert_memory_equal(bits, "\1\0\1\0\1\0", 6);
    free(index);
    free(bits);

    tqi_table_resolve_args ask = {.partition = "p", .fields = ab + 1, .n_fields = 1};
    assert_int_equal(tqi_table_resolve(t.table, &ask, &r, &t.err), TQ_OK);
    assert_int_equal(r.batch.fields[0].n_runs, 1);
    assert_int_equal(r.batch.fields[0].runs[0].block, TQI_BLOCK_LOST);
    assert_int_equal(r.batch.fields[0].runs[0].rows, 3);
    assert_int_equal(r.bytes, 0);
    tqi_table_result_fini(&r);

    put p = {
        .partition = "p",
        .n = 2,
        .naming = TQI_TABLE_BY_INDEX,
        .indexes = indexes + 1,
        .fields = ab + 1,
        .n_fields = 1,
    };
    assert_int_equal(table_put(&t, &p, &r), TQ_OK);
    tqi_table_result_fini(&r);
    assert_int_equal(tqi_table_view_ready(view), 2);
    assert_int_equal(tqi_table_partition_lost(partition, lost, 4), 1);
    assert_int_equal(lost[0], indexes[0]);
    tqi_table_view_unref(view);
    table_clear(&t, "p");
    table_assert_empty(&t);
    table_close(&t);
}

static void count_lost(const char *partition, const uint32_t *indexes, size_t n, void *arg)
{
    size_t *sum = arg;

    assert_string_equal(partition, "p");
    assert_int_equal(indexes[0], 0);
    *sum += n;
}

static void an_owner_that_returns_empty_loses_all(void **state)
{
    table t;
    uint64_t first;
    size_t lost = 0;
    tqi_table_owner *owner;
    uint32_t few[1];

    (void)state;
    table_open(&t);
    table_new(&t, "p", 100, ab, 2, NULL);
    assert_int_equal(tqi_table_grant(t.table, SESSION, t.owner, 4, &first, &t.err), TQ_OK);
    assert_int_equal(tqi_table_owner_register(t.table, "unit", 7, &owner, &t.err), TQ_OK);
    assert_ptr_equal(owner, t.owner);
    assert_int_equal(tqi_table_owner_blocks(owner), 2);
    tqi_table_owner_lost(t.table, t.owner, count_lost, &lost);
    assert_int_equal(lost, 100);
    assert_null(tqi_table_owner_find(t.table, "unit"));
    /* Its ids are void. */
    assert_int_equal(tqi_table_abandon(t.table, SESSION, &first, 1, true, &t.err), TQ_EINVAL);
    assert_int_equal(tqi_table_partition_lost(tqi_table_find_partition(t.table, "p"), few, 1), 100);
    assert_int_equal(tqi_table_owner_register(t.table, "unit", 7, &t.owner, &t.err), TQ_OK);
    table_new(&t, "q", 1, ab, 2, NULL);
    assert_int_equal(tqi_table_owner_register(t.table, "unit", 8, &t.owner, &t.err), TQ_OK);
    assert_int_equal(tqi_table_owner_incarnation(t.owner), 8);
    assert_int_equal(tqi_table_owner_blocks(t.owner), 0);
    assert_ptr_equal(tqi_table_owner_find(t.table, "unit"), t.owner);
    assert_int_equal(tqi_table_partition_lost(tqi_table_find_partition(t.table, "q"), few, 1), 1);
    table_clear(&t, "p");
    table_clear(&t, "q");
    table_assert_empty(&t);
    table_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dead_blocks_are_delivered_until_done),
        cmocka_unit_test(overwriting_kills_blocks),
        cmocka_unit_test(notices_do_not_depend_on_when_they_are_asked_for),
        cmocka_unit_test(grants_are_checked),
        cmocka_unit_test(ids_skip_zero_at_the_wrap),
        cmocka_unit_test(no_grant_ends_where_the_numbers_do),
        cmocka_unit_test(lost_cells_are_listed_and_healed),
        cmocka_unit_test(an_owner_that_returns_empty_loses_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
