/*
 * snapshot_test.c - a table that is saved and restored answers all queries the same; inconsistent snapshots are
 * refused.
 */
#include "table/test/testkit_snapshot.h"

static const char *const ab[] = {"a", "b"};
static const char *const b_only[] = {"b"};
static const char *const keys[] = {"k0", "k1", "k2"};
static const char *const groups[] = {"x", NULL, "y"};

/* Two partitions: keys, groups, tags, holes in the indexes, a task with a cached pick. */
static void scene_fill(table *t)
{
    static const uint32_t sizes[] = {1, 0, 2};
    tqi_table_batch_tag tag = {.name = "tag", .values = (const uint8_t *)"\x01\xa1z", .values_size = 3, .sizes = sizes};
    put named = {
        .partition = "p",
        .n = 3,
        .naming = TQI_TABLE_BY_KEY,
        .create = true,
        .keys = keys,
        .groups = groups,
        .tags = &tag,
        .n_tags = 1,
        .fields = ab,
        .n_fields = 2,
    };
    tqi_table_result result = {0};
    uint32_t first[4], taken[2];
    tqi_table_view *view;

    table_new(t, "p", 4, ab, 2, first);
    assert_int_equal(table_put(t, &named, &result), TQ_OK);
    tqi_table_result_fini(&result);
    table_new(t, "q", 2, b_only, 1, NULL);
    assert_int_equal(tqi_table_clear_indexes(t->table, "p", &first[1], NULL, 1, &taken[0], &t->err), TQ_OK);
    table_new(t, "p", 1, b_only, 1, NULL);
    assert_int_equal(tqi_table_view_get(t->table, "p", ab, 2, "train", &view, &t->err), TQ_OK);
    tqi_table_claim_settle(t->table, table_take(t, view, 2, taken));
    assert_int_equal(tqi_table_view_cache_set(view, "slot", taken, 2, &t->err), TQ_OK);
    tqi_table_view_unref(view);
}

static void a_restored_table_answers_as_before(void **state)
{
    table from, to;
    kit_snapshot snap;
    tqi_table_restored out;
    char *before, *after;

    (void)state;
    table_open(&from);
    table_open(&to);
    scene_fill(&from);
    before = kit_describe(&from);
    kit_take(&from, NULL, &snap);
    kit_adopt(&to, &snap);
    table_new(&to, "gone", 3, ab, 2, NULL);
    assert_int_equal(kit_restore(&to, &snap, false, false, &out), TQ_OK);
    after = kit_describe(&to);
    assert_string_equal(before, after);
    assert_int_equal(out.samples, 9);
    assert_int_equal(out.lost, 0);
    assert_false(out.renumbered);
    free(before);
    free(after);
    kit_free(&snap);
    table_clear(&to, "p");
    table_clear(&to, "q");
    table_assert_empty(&to);
    table_close(&to);
    table_close(&from);
}

static void new_samples_go_on_where_the_old_table_was(void **state)
{
    table from, to;
    kit_snapshot snap;
    tqi_table_restored out;
    uint32_t a[2], b[2];
    char *one, *two;

    (void)state;
    table_open(&from);
    table_open(&to);
    scene_fill(&from);
    kit_take(&from, NULL, &snap);
    kit_adopt(&to, &snap);
    assert_int_equal(kit_restore(&to, &snap, false, false, &out), TQ_OK);
    table_new(&from, "p", 2, ab, 2, a);
    table_new(&to, "p", 2, ab, 2, b);
    assert_memory_equal(a, b, sizeof(a));
    one = kit_describe(&from);
    two = kit_describe(&to);
    assert_string_equal(one, two);
    free(one);
    free(two);
    kit_free(&snap);
    table_close(&to);
    table_close(&from);
}

static void metadata_from_before_is_refused(void **state)
{
    table t;
    kit_snapshot snap;
    tqi_table_restored out;
    tqi_table_resolve_args ask = {.partition = "p"};
    tqi_table_result old = {0}, result = {0};

    (void)state;
    table_open(&t);
    scene_fill(&t);
    assert_int_equal(tqi_table_resolve(t.table, &ask, &old, &t.err), TQ_OK);
    kit_take(&t, NULL, &snap);
    assert_int_equal(kit_restore(&t, &snap, false, true, &out), TQ_OK);
    ask.indexes = old.batch.indexes;
    ask.incarnations = old.batch.incarnations;
    ask.n = old.batch.n;
    assert_int_equal(tqi_table_resolve(t.table, &ask, &result, &t.err), TQ_ECLEARED);
    ask.incarnations = NULL; /* made by hand: any */
    assert_int_equal(tqi_table_resolve(t.table, &ask, &result, &t.err), TQ_OK);
    tqi_table_result_fini(&result);
    tqi_table_result_fini(&old);
    kit_free(&snap);
    table_close(&t);
}

static void blocks_that_live_are_linked_again_and_others_are_lost(void **state)
{
    table t;
    kit_snapshot snap;
    tqi_table_restored out;
    char *before, *after;
    uint32_t cleared;

    (void)state;
    table_open(&t);
    scene_fill(&t);
    before = kit_describe(&t);
    kit_take(&t, NULL, &snap);
    assert_int_equal(kit_restore(&t, &snap, false, true, &out), TQ_OK);
    after = kit_describe(&t);
    assert_string_equal(before, after);
    assert_int_equal(out.lost, 0);
    free(before);
    free(after);
    assert_int_equal(tqi_table_clear_partition(t.table, "q", &cleared, &t.err), TQ_OK);
    assert_int_equal(kit_restore(&t, &snap, false, true, &out), TQ_OK);
    assert_int_equal(out.lost, 2);
    assert_int_equal(tqi_table_partition_lost(tqi_table_find_partition(t.table, "q"), NULL, 0), 2);
    table_clear(&t, "p");
    table_clear(&t, "q");
    table_assert_empty(&t);
    kit_free(&snap);
    table_close(&t);
}

static void a_partial_restore_leaves_the_rest(void **state)
{
    table from, to;
    kit_snapshot snap;
    tqi_table_restored out;
    tqi_table_resolve_args ask = {.partition = "p"};
    tqi_table_result result = {0};

    (void)state;
    table_open(&from);
    table_open(&to);
    scene_fill(&from);
    table_new(&to, "mine", 5, ab, 2, NULL);
    kit_take(&from, "p", &snap);
    kit_adopt(&to, &snap);
    assert_int_equal(kit_restore(&to, &snap, true, false, &out), TQ_OK);
    /* Its indexes are taken: it gets others, in the same order. */
    assert_true(out.renumbered);
    assert_int_equal(tqi_table_partition_samples(tqi_table_find_partition(to.table, "mine")), 5);
    assert_int_equal(tqi_table_resolve(to.table, &ask, &result, &to.err), TQ_OK);
    assert_int_equal(result.batch.n, 7);
    for (size_t i = 0; i < result.batch.n; i++) {
        assert_int_equal(result.batch.indexes[i], 5 + i);
    }
    tqi_table_result_fini(&result);
    kit_free(&snap);
    /* Restored in the same place again: now they are free, because the partition is being replaced. */
    kit_take(&to, "p", &snap);
    assert_int_equal(kit_restore(&to, &snap, true, true, &out), TQ_OK);
    assert_false(out.renumbered);
    kit_free(&snap);
    table_close(&to);
    table_close(&from);
}

/* A clear that has begun survives a restore, which does not reuse the indexes it holds. */
static void indexes_of_a_clear_stay_held(void **state)
{
    const tqi_table_clear clear = {.partition = "p", .all = true};
    table t;
    kit_snapshot snap;
    tqi_table_restored out;
    tqi_table_clearing *clearing;
    tqi_table_counts counts;

    (void)state;
    table_open(&t);
    scene_fill(&t);
    kit_take(&t, NULL, &snap);
    assert_int_equal(tqi_table_clearing_begin(t.table, &clear, &clearing, &t.err), TQ_OK);
    assert_int_equal(kit_restore(&t, &snap, false, true, &out), TQ_OK);
    assert_true(out.renumbered);
    tqi_table_count(t.table, &counts);
    assert_int_equal(counts.held, tqi_table_clearing_samples(clearing));
    tqi_table_clearing_end(t.table, clearing);
    assert_int_equal(kit_restore(&t, &snap, false, true, &out), TQ_OK);
    assert_false(out.renumbered);
    tqi_table_count(t.table, &counts);
    assert_int_equal(counts.held, 0);
    kit_free(&snap);
    table_close(&t);
}

static void held_views_go_over_and_are_touched(void **state)
{
    table from, to;
    kit_snapshot snap;
    tqi_table_restored out;
    tqi_table_view *view;
    int user = 0;

    (void)state;
    table_open(&from);
    table_open(&to);
    scene_fill(&from);
    kit_take(&from, NULL, &snap);
    kit_adopt(&to, &snap);
    assert_int_equal(tqi_table_view_get(to.table, "p", ab, 2, "other", &view, &to.err), TQ_OK);
    tqi_table_view_set_user(view, &user);
    kit_moves = 0;
    assert_int_equal(kit_restore(&to, &snap, false, false, &out), TQ_OK);
    assert_int_equal(kit_moves, 1);
    assert_ptr_equal(tqi_table_next_touched(to.table), kit_moved_to);
    assert_ptr_equal(tqi_table_view_user(kit_moved_to), &user);
    assert_int_equal(tqi_table_view_ready(kit_moved_to), 6);
    tqi_table_view_unref(kit_moved_to);
    kit_free(&snap);
    table_clear(&to, "p");
    table_clear(&to, "q");
    table_assert_empty(&to);
    table_close(&to);
    table_close(&from);
}

static void a_freeze_keeps_dead_blocks_back(void **state)
{
    table t;
    tqi_table_freeze *freeze, *second;
    tqi_table_dead dead[8];
    uint64_t notice;
    uint32_t index[4];
    uint32_t cleared;

    (void)state;
    table_open(&t);
    for (int i = 0; i < 4; i++) {
        table_new(&t, "p", 1, b_only, 1, &index[i]);
    }
    assert_int_equal(tqi_table_clear_indexes(t.table, "p", &index[0], NULL, 1, &cleared, &t.err), TQ_OK);
    assert_int_equal(tqi_table_freeze_open(t.table, &freeze, &t.err), TQ_OK);
    /* Its neighbour: merged with the first it would go out with it. */
    assert_int_equal(tqi_table_clear_indexes(t.table, "p", &index[1], NULL, 1, &cleared, &t.err), TQ_OK);
    assert_int_equal(tqi_table_freeze_open(t.table, &second, &t.err), TQ_OK);
    assert_int_equal(tqi_table_clear_indexes(t.table, "p", &index[2], NULL, 1, &cleared, &t.err), TQ_OK);
    assert_int_equal(tqi_table_owner_dead(t.owner, dead, 8, &notice), 1);
    assert_int_equal(dead[0].count, 1);
    tqi_table_owner_done(t.owner, notice, 0);
    assert_int_equal(tqi_table_owner_dead(t.owner, dead, 8, &notice), 0);
    while (tqi_table_next_dead(t.table) != NULL) {
    }
    tqi_table_freeze_close(t.table, freeze);
    assert_ptr_equal(tqi_table_next_dead(t.table), t.owner);
    assert_int_equal(tqi_table_owner_dead(t.owner, dead, 8, &notice), 1);
    tqi_table_owner_done(t.owner, notice, 0);
    tqi_table_freeze_close(t.table, second);
    assert_int_equal(tqi_table_owner_dead(t.owner, dead, 8, &notice), 1);
    tqi_table_owner_done(t.owner, notice, 0);
    table_clear(&t, "p");
    table_assert_empty(&t);
    table_close(&t);
}

/* --- lies ----------------------------------------------------------------- */

/* A good snapshot with one thing changed. */
static void lie_index_twice(kit_snapshot *s)
{
    s->partitions[0].indexes[1] = s->partitions[0].indexes[0];
}

static void lie_two_partitions(kit_snapshot *s)
{
    s->partitions[1].indexes[0] = s->partitions[0].indexes[0];
}

static void lie_ordinal(kit_snapshot *s)
{
    s->partitions[0].ordinals[0] = s->partitions[0].ordinals[1];
}

static void lie_next_ordinal(kit_snapshot *s)
{
    s->heads[0].next_ordinal = 1;
}

static void lie_last_ordinal(kit_snapshot *s)
{
    s->heads[0].next_ordinal = UINT64_MAX; /* the samples that join would wrap */
}

static void lie_same_name(kit_snapshot *s)
{
    s->heads[1].name = s->heads[0].name;
}

static void lie_no_name(kit_snapshot *s)
{
    s->heads[1].name = "";
}

static void lie_key_twice(kit_snapshot *s)
{
    s->partitions[0].keys[4] = s->partitions[0].keys[5];
}

static void lie_run_too_long(kit_snapshot *s)
{
    s->partitions[0].runs[0].rows += 1;
}

static void lie_run_block(kit_snapshot *s)
{
    s->partitions[0].runs[0].block = 77;
}

static void lie_run_offset(kit_snapshot *s)
{
    s->partitions[0].runs[0].offset = UINT64_MAX - 3;
}

static void lie_field(kit_snapshot *s)
{
    s->partitions[0].fields[0].name = "else";
}

static void lie_field_twice(kit_snapshot *s)
{
    s->partitions[0].fields[0].name = s->partitions[0].fields[1].name;
}

static void lie_dtype(kit_snapshot *s)
{
    s->partitions[0].fields[0].dtype.bits = 64;
}

static void lie_shape(kit_snapshot *s)
{
    static const uint64_t other[] = {2};

    s->partitions[0].fields[0].shape = other;
}

static void lie_block_id(kit_snapshot *s)
{
    s->partitions[0].blocks[0].id = 123456;
}

static void lie_block_owner(kit_snapshot *s)
{
    s->partitions[0].blocks[0].owner = "nobody";
}

static void lie_block_size(kit_snapshot *s)
{
    s->partitions[0].blocks[0].size = 4;
}

static void lie_slot(kit_snapshot *s)
{
    static const uint32_t indexes[] = {0, 4000};

    s->slot[0].indexes = indexes;
}

static void snapshots_that_lie_are_refused(void **state)
{
    static void (*const lies[])(kit_snapshot *) = {
        lie_index_twice, lie_two_partitions, lie_ordinal,      lie_next_ordinal, lie_same_name,
        lie_no_name,     lie_key_twice,      lie_run_too_long, lie_run_block,    lie_run_offset,
        lie_field,       lie_field_twice,    lie_dtype,        lie_shape,        lie_block_id,
        lie_block_owner, lie_block_size,     lie_slot,         lie_last_ordinal,
    };
    table from, to;
    char *before, *after;

    (void)state;
    table_open(&from);
    table_open(&to);
    scene_fill(&from);
    table_new(&to, "p", 3, ab, 2, NULL);
    before = kit_describe(&to);
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        kit_snapshot snap;
        tqi_table_restored out;
        int rc;

        kit_take(&from, NULL, &snap);
        kit_adopt(&to, &snap);
        lies[i](&snap);
        memset(&to.err, 0, sizeof(to.err));
        rc = kit_restore(&to, &snap, false, false, &out);
        if (rc != TQ_EINVAL && rc != TQ_ENAME) {
            fail_msg("lie %zu: %d %s", i, rc, to.err.message);
        }
        assert_true(to.err.message[0] != '\0');
        after = kit_describe(&to);
        assert_string_equal(before, after);
        free(after);
        kit_free(&snap);
    }
    free(before);
    tqi_table_session_end(to.table, SESSION, true);
    table_clear(&to, "p");
    table_assert_empty(&to);
    table_close(&to);
    table_close(&from);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_restored_table_answers_as_before),
        cmocka_unit_test(new_samples_go_on_where_the_old_table_was),
        cmocka_unit_test(metadata_from_before_is_refused),
        cmocka_unit_test(blocks_that_live_are_linked_again_and_others_are_lost),
        cmocka_unit_test(a_partial_restore_leaves_the_rest),
        cmocka_unit_test(indexes_of_a_clear_stay_held),
        cmocka_unit_test(held_views_go_over_and_are_touched),
        cmocka_unit_test(a_freeze_keeps_dead_blocks_back),
        cmocka_unit_test(snapshots_that_lie_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
