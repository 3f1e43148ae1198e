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
        cmocka_unit_test(dead_blocks_are_delivered_until_done),
        cmocka_unit_test(overwriting_kills_blocks),
        cmocka_unit_test(notices_do_not_depend_on_when_they_are_asked_for),
        cmocka_unit_test(grants_are_checked),
        cmocka_unit_test(ids_skip_zero_at_the_wrap),
        cmocka_unit_test(lost_cells_are_listed_and_healed),
        cmocka_unit_test(an_owner_that_returns_empty_loses_all),
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
