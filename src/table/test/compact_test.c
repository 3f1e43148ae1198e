/*
 * compact_test.c - compaction: live bytes of blocks, moves, sparse blocks.
 */
#include "table/test/testkit.h"

static const char *const ab[] = {"a", "b"};

static size_t dead(table *t, tqi_table_dead *out, size_t max, uint64_t *notice)
{
    return tqi_table_owner_dead(t->owner, out, max, notice);
}

/* One move of one stretch. */
static int move_one(table *t, uint64_t session, uint64_t from, const tqi_table_batch_block *to,
                    tqi_table_stretch stretch)
{
    tqi_table_move move = {.from = from, .to = *to, .stretches = &stretch, .n = 1};

    return tqi_table_compact_move(t->table, session, &move, 1, &t->err);
}

static void clear_one(table *t, uint32_t index)
{
    uint32_t cleared;

    assert_int_equal(tqi_table_clear_indexes(t->table, "p", &index, NULL, 1, &cleared, &t->err), TQ_OK);
    assert_int_equal(cleared, 1);
}

/* The order of notices is that in which partitions were made, wherever their memory lies. */
static void moved_blocks_die_in_order_of_their_partitions(void **state)
{
    table t;
    uint64_t first, notice;
    tqi_table_dead got[4];

    (void)state;
    table_open(&t);
    table_new(&t, "o", 1, ab, 1, NULL); /* block 1 */
    table_new(&t, "p", 1, ab, 1, NULL); /* 2 */
    table_new(&t, "p", 1, ab, 1, NULL); /* 3, so that those that die are no neighbours */
    table_clear(&t, "o");
    assert_int_equal(dead(&t, got, 4, &notice), 1);
    tqi_table_owner_done(t.owner, notice, 0);
    table_new(&t, "q", 1, ab, 1, NULL); /* 4, where the memory of the first partition was */
    assert_int_equal(tqi_table_grant(t.table, SESSION, t.owner, 2, &first, &t.err), TQ_OK);
    tqi_table_stretch all = {0, ROW * 4, 0};
    tqi_table_batch_block to = {.size = ROW * 4, .owner = "unit", .owner_incarnation = 7};
    tqi_table_move moves[] = {{2, to, &all, 1}, {4, to, &all, 1}};
    moves[0].to.id = first;
    moves[1].to.id = first + 1;
    assert_int_equal(tqi_table_compact_move(t.table, SESSION, moves, 2, &t.err), TQ_OK);
    assert_int_equal(dead(&t, got, 4, &notice), 2);
    assert_int_equal(got[0].first, 2);
    assert_int_equal(got[1].first, 4);
    table_clear(&t, "p");
    table_clear(&t, "q");
    table_assert_empty(&t);
    table_close(&t);
}

static void a_move_relinks_what_is_still_there(void **state)
{
    table t;
    uint64_t first;
    tqi_table_result r = {0};
    tqi_table_dead got[4];
    uint64_t notice;

    (void)state;
    table_open(&t);
    table_new(&t, "p", 3, ab, 1, NULL); /* block 1 */
    assert_int_equal(tqi_table_grant(t.table, SESSION, t.owner, 3, &first, &t.err), TQ_OK);
    clear_one(&t, 0);
    tqi_table_batch_block to = {.id = first, .size = 2 * ROW * 4, .owner = "unit", .owner_incarnation = 7};
    tqi_table_stretch rest = {ROW * 4, 2 * ROW * 4, 0};
    tqi_table_stretch behind = {ROW * 4, 2 * ROW * 4, 1};
    assert_int_equal(move_one(&t, SESSION, 1, &to, behind), TQ_EINVAL);
    assert_int_equal(move_one(&t, SESSION + 1, 1, &to, rest), TQ_EINVAL);
    /* The same new block twice, and stretches out of order. */
    tqi_table_stretch both[] = {{ROW * 4, 4, 0}, {ROW * 4 + 3, 4, 4}};
    tqi_table_move moves[] = {{1, to, &rest, 1}, {1, to, &rest, 1}};
    assert_int_equal(tqi_table_compact_move(t.table, SESSION, moves, 2, &t.err), TQ_EINVAL);
    moves[0] = (tqi_table_move){1, to, both, 2};
    assert_int_equal(tqi_table_compact_move(t.table, SESSION, moves, 1, &t.err), TQ_EINVAL);
    assert_int_equal(move_one(&t, SESSION, 1, &to, rest), TQ_OK);
    tqi_table_resolve_args ask = {.partition = "p"};
    assert_int_equal(tqi_table_resolve(t.table, &ask, &r, &t.err), TQ_OK);
    assert_int_equal(r.batch.n_blocks, 1);
    assert_int_equal(r.batch.blocks[0].id, first);
    assert_int_equal(r.batch.fields[0].runs[0].offset, 0);
    tqi_table_result_fini(&r);
    assert_int_equal(dead(&t, got, 4, &notice), 1);
    assert_int_equal(got[0].first, 1);
    /* Nothing left of it: the copy is dead at once. */
    to.id = first + 1;
    assert_int_equal(move_one(&t, SESSION, 1, &to, rest), TQ_OK);
    assert_int_equal(dead(&t, got, 4, &notice), 2);
    assert_int_equal(got[1].first, first + 1);
    /* Nor does a move take cells outside its stretches. */
    to.id = first + 2;
    assert_int_equal(move_one(&t, SESSION, first, &to, (tqi_table_stretch){0, ROW * 4 + 1, 0}), TQ_OK);
    assert_int_equal(tqi_table_resolve(t.table, &ask, &r, &t.err), TQ_OK);
    assert_int_equal(r.batch.n_blocks, 2);
    tqi_table_result_fini(&r);
    table_clear(&t, "p");
    table_assert_empty(&t);
    table_close(&t);
}

static void live_bytes_are_listed_end_to_end(void **state)
{
    table t;
    uint64_t ids[] = {1, 99, 2};
    tqi_table_live live;

    (void)state;
    table_open(&t);
    table_new(&t, "p", 6, ab, 2, NULL); /* blocks 1 and 2 */
    clear_one(&t, 0);
    clear_one(&t, 3);
    assert_int_equal(tqi_table_compact_live(t.table, ids, 3, &live, &t.err), TQ_OK);
    assert_int_equal(live.n, 3);
    assert_int_equal(live.counts[0], 2);
    assert_int_equal(live.counts[1], 0);
    assert_int_equal(live.counts[2], 2);
    assert_int_equal(live.n_stretches, 4);
    for (int i = 0; i < 4; i += 2) {
        const tqi_table_stretch *two = &live.stretches[i];
        assert_int_equal(two[0].begin, ROW * 4);
        assert_int_equal(two[0].bytes, 2 * ROW * 4);
        assert_int_equal(two[0].place, 0);
        assert_int_equal(two[1].begin, 4 * ROW * 4);
        assert_int_equal(two[1].bytes, 2 * ROW * 4);
        assert_int_equal(two[1].place, 2 * ROW * 4);
        assert_int_equal(live.sizes[i], 4 * ROW * 4);
    }
    tqi_table_live_fini(&live);
    table_clear(&t, "p");
    table_assert_empty(&t);
    table_close(&t);
}

/* Blocks of other rows are answered another time when that takes long; a move finds the cells of all of them. */
static void a_walk_is_bounded(void **state)
{
    enum {
        ROWS = 5000,
        BLOCKS = 32 /* 320,000 cells in all */
    };
    static uint32_t indexes[BLOCKS][ROWS];
    table t;
    uint64_t ids[2 * BLOCKS], ends[2] = {1, 2 * BLOCKS - 1}, first;
    tqi_table_live live;

    (void)state;
    table_open(&t);
    for (uint32_t i = 0; i < BLOCKS; i++) {
        table_new(&t, "p", ROWS, ab, 2, indexes[i]); /* two blocks each */
        ids[2 * i] = 2 * i + 1;
        ids[2 * i + 1] = 2 * i + 2;
    }
    for (uint32_t i = 0; i < BLOCKS; i++) {
        for (uint32_t k = 0; k < ROWS - 1; k++) {
            clear_one(&t, indexes[i][k]);
        }
    }
    assert_int_equal(tqi_table_compact_live(t.table, ids, 2 * BLOCKS, &live, &t.err), TQ_OK);
    assert_true(live.n >= 1 && live.n < 2 * BLOCKS);
    for (size_t i = 0; i < live.n; i++) {
        assert_int_equal(live.counts[i], 1);
        assert_int_equal(live.stretches[i].begin, (ROWS - 1) * ROW * 4);
        assert_int_equal(live.sizes[i], ROW * 4);
    }
    tqi_table_live_fini(&live);
    /* The first and the last: the rows between them are none of theirs. */
    assert_int_equal(tqi_table_compact_live(t.table, ends, 2, &live, &t.err), TQ_OK);
    assert_int_equal(live.n, 2);
    assert_int_equal(tqi_table_grant(t.table, SESSION, t.owner, 2, &first, &t.err), TQ_OK);
    tqi_table_move moves[2];
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(live.counts[i], 1);
        moves[i] = (tqi_table_move){
            .from = ends[i],
            .to = {.id = first + i, .size = live.sizes[i], .owner = "unit", .owner_incarnation = 7},
            .stretches = &live.stretches[i],
            .n = 1,
        };
    }
    assert_int_equal(tqi_table_compact_move(t.table, SESSION, moves, 2, &t.err), TQ_OK);
    tqi_table_live_fini(&live);
    assert_int_equal(tqi_table_compact_live(t.table, ends, 2, &live, &t.err), TQ_OK);
    assert_int_equal(live.n_stretches, 0);
    tqi_table_live_fini(&live);
    table_clear(&t, "p");
    table_assert_empty(&t);
    table_close(&t);
}

/* Blocks of rows that were used again lie all over the table: one walk finds the cells of all. */
static void a_walk_is_for_all_that_share_its_rows(void **state)
{
    enum {
        ROWS = 5000,
        BATCHES = 32, /* 320,000 cells in all */
        AGAIN = 4
    };
    static uint32_t indexes[BATCHES][ROWS];
    table t;
    uint64_t ids[2 * AGAIN];
    uint32_t again[BATCHES];
    tqi_table_live live;

    (void)state;
    table_open(&t);
    for (uint32_t i = 0; i < BATCHES; i++) {
        table_new(&t, "p", ROWS, ab, 2, indexes[i]); /* two blocks each */
    }
    for (uint32_t k = 0; k < AGAIN; k++) {
        for (uint32_t i = 0; i < BATCHES; i++) {
            clear_one(&t, indexes[i][ROWS - 1 - k]);
        }
        table_new(&t, "p", BATCHES, ab, 2, again);
        ids[2 * k] = 2 * (BATCHES + k) + 1;
        ids[2 * k + 1] = 2 * (BATCHES + k) + 2;
    }
    assert_int_equal(tqi_table_compact_live(t.table, ids, 2 * AGAIN, &live, &t.err), TQ_OK);
    assert_int_equal(live.n, 2 * AGAIN);
    for (size_t i = 0; i < live.n; i++) {
        assert_int_equal(live.counts[i], 1);
        assert_int_equal(live.sizes[i], BATCHES * ROW * 4);
    }
    tqi_table_live_fini(&live);
    table_clear(&t, "p");
    table_assert_empty(&t);
    table_close(&t);
}

static void sparse_blocks_are_named_once(void **state)
{
    enum {
        ROWS = 1024
    };
    table t;
    uint32_t indexes[ROWS];
    uint64_t ids[4], number, last;
    tqi_table_freeze *freeze;

    (void)state;
    table_open(&t);
    table_new(&t, "p", ROWS, ab, 2, indexes); /* blocks 1 and 2 */
    for (uint32_t i = 0; i < ROWS / 4 - 1; i++) {
        clear_one(&t, indexes[i]);
    }
    assert_false(tqi_table_owner_has_sparse(t.owner));
    assert_null(tqi_table_next_dead(t.table));
    clear_one(&t, indexes[ROWS / 4]);
    assert_ptr_equal(tqi_table_next_dead(t.table), t.owner);
    assert_true(tqi_table_owner_has_sparse(t.owner));
    assert_int_equal(tqi_table_owner_sparse(t.owner, ids, 1, &number), 1);
    assert_int_equal(ids[0], 1);
    /* Not while the old blocks would be kept. */
    assert_int_equal(tqi_table_freeze_open(t.table, &freeze, &t.err), TQ_OK);
    assert_int_equal(tqi_table_owner_sparse(t.owner, ids, 4, &last), 0);
    tqi_table_live live;
    assert_int_equal(tqi_table_compact_live(t.table, ids, 1, &live, &t.err), TQ_EAGAIN);
    tqi_table_live_fini(&live);
    while (tqi_table_next_dead(t.table) != NULL) {
    }
    tqi_table_freeze_close(t.table, freeze);
    assert_ptr_equal(tqi_table_next_dead(t.table), t.owner);
    assert_int_equal(tqi_table_compact_live(t.table, ids, 1, &live, &t.err), TQ_OK);
    tqi_table_live_fini(&live);
    /* Repeated, with more, until its owner has confirmed it. */
    assert_int_equal(tqi_table_owner_sparse(t.owner, ids, 4, &last), 2);
    assert_int_equal(ids[0], 1);
    assert_int_equal(ids[1], 2);
    assert_true(last > number);
    tqi_table_owner_sparse_done(t.owner, number);
    assert_true(tqi_table_owner_has_sparse(t.owner));
    tqi_table_owner_sparse_done(t.owner, last);
    assert_false(tqi_table_owner_has_sparse(t.owner));
    assert_int_equal(tqi_table_owner_sparse(t.owner, ids, 4, &number), 0);
    assert_int_equal(number, 0);
    /* Again when another half is dead. */
    for (uint32_t i = ROWS / 4 + 1; i < ROWS - ROWS * 3 / 8; i++) {
        assert_false(tqi_table_owner_has_sparse(t.owner));
        clear_one(&t, indexes[i]);
    }
    assert_false(tqi_table_owner_has_sparse(t.owner));
    clear_one(&t, indexes[ROWS - 1]);
    assert_true(tqi_table_owner_has_sparse(t.owner));
    /* Blocks that died since are not listed. */
    table_clear(&t, "p");
    assert_false(tqi_table_owner_has_sparse(t.owner));
    table_assert_empty(&t);
    table_close(&t);
}

static void a_copy_of_dead_bytes_is_sparse(void **state)
{
    enum {
        ROWS = 1024
    };
    table t;
    uint32_t indexes[ROWS];
    uint64_t ids[2], number, first;

    (void)state;
    table_open(&t);
    table_new(&t, "p", ROWS, ab, 1, indexes); /* block 1 */
    assert_int_equal(tqi_table_grant(t.table, SESSION, t.owner, 2, &first, &t.err), TQ_OK);
    tqi_table_batch_block to = {.id = first, .size = ROWS * ROW * 4, .owner = "unit", .owner_incarnation = 7};
    tqi_table_stretch all = {0, ROWS * ROW * 4, 0};
    /* All was live when it was copied; half was left when the copy arrived. */
    for (uint32_t i = 0; i < ROWS / 2; i++) {
        clear_one(&t, indexes[i]);
    }
    assert_int_equal(move_one(&t, SESSION, 1, &to, all), TQ_OK);
    assert_true(tqi_table_owner_has_sparse(t.owner));
    assert_int_equal(tqi_table_owner_sparse(t.owner, ids, 2, &number), 1);
    assert_int_equal(ids[0], first);
    tqi_table_owner_sparse_done(t.owner, number);
    /* A copy without dead bytes is none, nor is one of which nothing is left. */
    to.id = first + 1;
    to.size /= 2;
    assert_int_equal(move_one(&t, SESSION, first, &to, (tqi_table_stretch){to.size, to.size, 0}), TQ_OK);
    assert_false(tqi_table_owner_has_sparse(t.owner));
    assert_int_equal(tqi_table_grant(t.table, SESSION, t.owner, 1, &first, &t.err), TQ_OK);
    table_clear(&t, "p");
    to.id = first;
    assert_int_equal(move_one(&t, SESSION, first - 1, &to, (tqi_table_stretch){0, to.size, 0}), TQ_OK);
    assert_false(tqi_table_owner_has_sparse(t.owner));
    table_assert_empty(&t);
    table_close(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(moved_blocks_die_in_order_of_their_partitions),
        cmocka_unit_test(a_move_relinks_what_is_still_there),
        cmocka_unit_test(live_bytes_are_listed_end_to_end),
        cmocka_unit_test(a_walk_is_bounded),
        cmocka_unit_test(a_walk_is_for_all_that_share_its_rows),
        cmocka_unit_test(sparse_blocks_are_named_once),
        cmocka_unit_test(a_copy_of_dead_bytes_is_sparse),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
