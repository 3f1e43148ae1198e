/*
 * late_test.c - blocks that were freed while a write to their ids could still arrive.
 */
#include "base/limits.h"
#include "table/test/testkit.h"

/* Grants ids and abandons them while they are being written; returns the first. */
static uint64_t give_up(table *t, uint32_t n)
{
    uint64_t ids[8], first;

    assert_int_equal(tqi_table_grant(t->table, SESSION, t->owner, n, &first, &t->err), TQ_OK);
    for (uint32_t i = 0; i < n; i++) {
        ids[i] = first + i;
    }
    assert_int_equal(tqi_table_abandon(t->table, SESSION, ids, n, false, &t->err), TQ_OK);
    return first;
}

/* The only dead range; confirms that it was freed. */
static void expect_dead(table *t, uint64_t first, uint32_t count, bool writer_done, uint64_t due)
{
    tqi_table_dead got[4];
    uint64_t notice;

    assert_int_equal(tqi_table_owner_dead(t->owner, got, 4, &notice), 1);
    assert_true(got[0].first == first);
    assert_int_equal(got[0].count, count);
    assert_int_equal(got[0].writer_done, writer_done);
    tqi_table_owner_done(t->owner, notice, due);
}

static void expect_none_dead(table *t)
{
    tqi_table_dead got;
    uint64_t notice;

    assert_int_equal(tqi_table_owner_dead(t->owner, &got, 1, &notice), 0);
}

static uint64_t late(const table *t)
{
    tqi_table_counts counts;

    tqi_table_count(t->table, &counts);
    return counts.late;
}

static void late_blocks_die_twice_in_order(void **state)
{
    table t;
    uint64_t first[3];

    (void)state;
    table_open(&t);
    for (uint32_t i = 0; i < 3; i++) {
        first[i] = give_up(&t, 2 + i);
        expect_dead(&t, first[i], 2 + i, false, 100 + 10 * i);
    }
    expect_none_dead(&t);
    assert_int_equal(late(&t), 3);
    assert_true(tqi_table_owner_late(t.owner) == 100);
    tqi_table_owner_late_die(t.owner, 99);
    expect_none_dead(&t);
    assert_ptr_equal(tqi_table_next_dead(t.table), t.owner); /* of the first time */
    for (uint32_t i = 0; i < 3; i++) {
        assert_null(tqi_table_next_dead(t.table));
        tqi_table_owner_late_die(t.owner, 109 + 10 * i);
        assert_ptr_equal(tqi_table_next_dead(t.table), t.owner);
        /* Handed out until confirmed, like everything dead, and then gone. */
        assert_true(tqi_table_owner_has_dead(t.owner));
        expect_dead(&t, first[i], 2 + i, true, 200);
        expect_none_dead(&t);
        assert_int_equal(late(&t), 2 - i);
    }
    assert_true(tqi_table_owner_late(t.owner) == UINT64_MAX);
    assert_false(tqi_table_owner_has_dead(t.owner));
    table_assert_empty(&t);
    table_close(&t);
}

/* Blocks that die meanwhile are not held up, and unconfirmed ones are not late. */
static void late_blocks_do_not_hold_others_up(void **state)
{
    table t;
    tqi_table_dead got[4];
    uint64_t notice;

    (void)state;
    table_open(&t);
    uint64_t first = give_up(&t, 1);
    expect_dead(&t, first, 1, false, 100);
    uint64_t second = give_up(&t, 1);
    tqi_table_owner_late_die(t.owner, 100);
    assert_int_equal(tqi_table_owner_dead(t.owner, got, 4, &notice), 2);
    assert_true(got[0].first == second && !got[0].writer_done);
    assert_true(got[1].first == first && got[1].writer_done);
    /* The collector ended without confirming: the next one gets the same. */
    assert_int_equal(tqi_table_owner_dead(t.owner, got, 4, &notice), 2);
    assert_int_equal(late(&t), 0);
    tqi_table_owner_done(t.owner, notice, 200);
    assert_int_equal(late(&t), 1);
    tqi_table_owner_late_die(t.owner, 200);
    expect_dead(&t, second, 1, true, 300);
    table_assert_empty(&t);
    table_close(&t);
}

static void late_blocks_are_bounded(void **state)
{
    uint64_t before = tqi_limits.late_ranges;
    uint64_t times = tqi_limit_times(TQI_LIMIT_late_ranges);
    table t;
    uint64_t first[5];

    (void)state;
    tqi_limits.late_ranges = 3;
    table_open(&t);
    for (uint32_t i = 0; i < 3; i++) {
        first[i] = give_up(&t, 1);
        expect_dead(&t, first[i], 1, false, 100);
    }
    expect_none_dead(&t);
    /* One more: the oldest stops being late before its time. */
    for (uint32_t i = 3; i < 5; i++) {
        first[i] = give_up(&t, 1);
        expect_dead(&t, first[i], 1, false, 100);
        expect_dead(&t, first[i - 3], 1, true, 100);
        assert_int_equal(late(&t), 3);
    }
    assert_true(tqi_limit_times(TQI_LIMIT_late_ranges) == times + 2);
    tqi_limits.late_ranges = before;
    tqi_table_owner_late_die(t.owner, 100);
    table_assert_empty(&t);
    table_close(&t);
}

/* While a snapshot is being read nothing is freed, not even for the second time. */
static void late_blocks_wait_for_freezes(void **state)
{
    table t;
    tqi_table_freeze *freeze;

    (void)state;
    table_open(&t);
    uint64_t first = give_up(&t, 1);
    expect_dead(&t, first, 1, false, 100);
    assert_int_equal(tqi_table_freeze_open(t.table, &freeze, &t.err), TQ_OK);
    tqi_table_owner_late_die(t.owner, 100);
    expect_none_dead(&t);
    assert_true(tqi_table_owner_has_dead(t.owner));
    tqi_table_freeze_close(t.table, freeze);
    expect_dead(&t, first, 1, true, 200);
    table_assert_empty(&t);
    table_close(&t);
}

static void late_blocks_go_with_their_owner(void **state)
{
    tqi_table_counts counts;
    table t;

    (void)state;
    table_open(&t);
    expect_dead(&t, give_up(&t, 3), 3, false, 100);
    tqi_table_owner_lost(t.table, t.owner, NULL, NULL);
    tqi_table_session_end(t.table, SESSION, true);
    tqi_table_count(t.table, &counts);
    assert_memory_equal(&counts, &(tqi_table_counts){0}, sizeof(counts));
    table_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(late_blocks_die_twice_in_order),  cmocka_unit_test(late_blocks_do_not_hold_others_up),
        cmocka_unit_test(late_blocks_are_bounded),         cmocka_unit_test(late_blocks_wait_for_freezes),
        cmocka_unit_test(late_blocks_go_with_their_owner),
    };

    return cmocka_run_group_tests_name("late blocks", tests, NULL, NULL);
}
