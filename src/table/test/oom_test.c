/*
 * oom_test.c - every allocation of every call fails once: the call reports it, and the table is unchanged. CRoaring's
 * own allocations never fail here.
 */
#include "base/testkit_oom.h"
#include "table/snapshot.h"
#include "table/test/testkit.h"

/* --- what can be seen ----------------------------------------------------- */

static void print_batch(FILE *out, const tqi_table_batch *batch)
{
    for (size_t i = 0; i < batch->n; i++) {
        (void)fprintf(out, "%u.%u@%llu key=%s group=%s\n", batch->indexes[i], batch->incarnations[i],
                      (unsigned long long)batch->ordinals[i],
                      batch->keys != NULL && batch->keys[i] != NULL ? batch->keys[i] : "-",
                      batch->groups != NULL && batch->groups[i] != NULL ? batch->groups[i] : "-");
    }
    for (size_t t = 0; t < batch->n_tags; t++) {
        (void)fprintf(out, "tag %s:", batch->tags[t].name);
        for (size_t i = 0; i < batch->tags[t].values_size; i++) {
            (void)fprintf(out, " %02x", batch->tags[t].values[i]);
        }
    }
    for (size_t f = 0; f < batch->n_fields; f++) {
        const tqi_table_batch_field *field = &batch->fields[f];
        (void)fprintf(out, "\nfield %s ragged=%d dims=%zu:", field->name, field->ragged, field->n_dims);
        for (size_t i = 0; i < field->n_runs; i++) {
            uint32_t block = field->runs[i].block;
            (void)fprintf(
                out, " %llu+%llu*%u",
                (unsigned long long)(block > 0 && block <= batch->n_blocks ? batch->blocks[block - 1].id : block),
                (unsigned long long)field->runs[i].offset, field->runs[i].rows);
        }
    }
}

/* Everything that the table reports, as text that the caller frees. */
static char *snapshot(table *t)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    tqi_table_partition *partition = NULL;
    tqi_table_counts c;
    uint64_t notice;
    tqi_table_dead dead[64];
    size_t n;

    assert_non_null(out);
    tqi_table_count(t->table, &c);
    (void)fprintf(out, "%llu %llu %llu %llu %llu %llu %llu %llu %llu %llu\n", (unsigned long long)c.partitions,
                  (unsigned long long)c.samples, (unsigned long long)c.live_cells, (unsigned long long)c.blocks,
                  (unsigned long long)c.ranges, (unsigned long long)c.keys, (unsigned long long)c.views,
                  (unsigned long long)c.claims, (unsigned long long)c.shapes, (unsigned long long)c.dead);
    while ((partition = tqi_table_next_partition(t->table, partition)) != NULL) {
        tqi_table_resolve_args ask = {.partition = tqi_table_partition_name(partition), .tags = true};
        tqi_table_result result = {0};
        assert_int_equal(tqi_table_resolve(t->table, &ask, &result, &t->err), TQ_OK);
        (void)fprintf(out, "partition %s %llu\n", ask.partition,
                      (unsigned long long)tqi_table_partition_bytes(partition));
        print_batch(out, &result.batch);
        tqi_table_result_fini(&result);
    }
    n = tqi_table_owner_dead(t->owner, dead, 64, &notice);
    for (size_t i = 0; i < n; i++) {
        (void)fprintf(out, "\ndead %llu*%u", (unsigned long long)dead[i].first, dead[i].count);
    }
    assert_int_equal(fclose(out), 0);
    return text;
}

/* --- the calls ------------------------------------------------------------ */

static const char *const ab[] = {"a", "b"};
static const char *const old_keys[] = {"k0", "k1", "k2"};

typedef struct scene {
    table t;
    tqi_table_view *view; /* of a, b in p for "train" */
    uint32_t indexes[3];
    uint64_t first; /* granted block ids */
    tqi_table_result result;
    uint32_t *index;
    uint8_t *bits;
} scene;

static void scene_open(scene *s)
{
    put p = {
        .partition = "p",
        .n = 3,
        .naming = TQI_TABLE_BY_KEY,
        .create = true,
        .keys = old_keys,
        .fields = ab,
        .n_fields = 2,
    };

    memset(s, 0, sizeof(*s));
    table_open(&s->t);
    assert_int_equal(table_put(&s->t, &p, &s->result), TQ_OK);
    memcpy(s->indexes, s->result.batch.indexes, sizeof(s->indexes));
    tqi_table_result_fini(&s->result);
    table_new(&s->t, "p", 2, ab, 1, NULL);
    assert_int_equal(tqi_table_view_get(s->t.table, "p", ab, 2, "train", &s->view, &s->t.err), TQ_OK);
    assert_int_equal(tqi_table_grant(s->t.table, SESSION, s->t.owner, 4, &s->first, &s->t.err), TQ_OK);
}

static void scene_close(scene *s)
{
    tqi_table_result_fini(&s->result);
    free(s->index);
    free(s->bits);
    tqi_table_view_unref(s->view);
    table_clear(&s->t, "p");
    table_clear(&s->t, "q");
    table_assert_empty(&s->t);
    table_close(&s->t);
}

/* Four rows of three fields (shapes of two dims, ragged, opaque), tags, groups; by key or index, or new. */
static int call_publish(scene *s, const char *partition, tqi_table_naming naming)
{
    static const char *const keys[] = {"k1", "n1", "n2", "n1"};
    static const char *const fresh[] = {"m0", "", "m2", NULL};
    static const char *const groups[] = {NULL, "g", "h", "g"};
    static const uint64_t shape[] = {7, 2};
    static const uint32_t ndims[] = {2, 0, 2, 2};
    static const uint64_t dims[] = {7, 3, 5, 3, 7, 3};
    static const uint8_t values[] = {1, 2, 3, 4};
    static const uint32_t sizes[] = {1, 0, 2, 1};
    const uint32_t indexes[] = {s->indexes[0], s->indexes[1], 3, 4};
    const tq_slice opaque[] = {{"x", 1}, {"yy", 2}, {NULL, 0}, {"z", 1}};
    const tqi_table_batch_tag tags[] = {{"t", values, 4, sizes}, {"u", values, 4, sizes}};
    const tqi_table_run uniform[] = {{1, 4, 0}};
    const tqi_table_run ragged[] = {{2, 1, 0}, {0, 1, 0}, {3, 2, 0}};
    const tqi_table_run kept[] = {{TQI_BLOCK_OPAQUE, 4, 0}};
    const tqi_table_batch_field fields[] = {
        {.name = "c", .dtype = {TQ_INT, 16}, .ndim = 2, .shape = shape, .runs = uniform, .n_runs = 1},
        {
            .name = "d",
            .dtype = {TQ_INT, 8},
            .ragged = true,
            .ndims = ndims,
            .n_ndims = 4,
            .dims = dims,
            .n_dims = 6,
            .runs = ragged,
            .n_runs = 3,
        },
        {.name = "e", .dtype = {TQ_INT, 8}, .ndim = 2, .shape = shape, .runs = kept, .n_runs = 1, .opaque = opaque},
    };
    tqi_table_batch_block blocks[3];
    tqi_table_batch batch = {
        .partition = partition,
        .n = 4,
        .indexes = indexes,
        .keys = naming == TQI_TABLE_NEW ? fresh : keys,
        .groups = naming == TQI_TABLE_BY_INDEX ? NULL : groups,
        .tags = tags,
        .n_tags = 2,
        .fields = fields,
        .n_fields = 3,
        .blocks = blocks,
        .n_blocks = 3,
    };
    tqi_table_publish_args publish = {.batch = &batch, .naming = naming, .create = true, .session = SESSION};

    for (size_t i = 0; i < 3; i++) {
        blocks[i] = (tqi_table_batch_block){.id = s->first + i, .size = 200, .owner = "unit", .owner_incarnation = 7};
    }
    return tqi_table_publish(s->t.table, &publish, &s->result, &s->t.err);
}

static int call_publish_new(scene *s)
{
    return call_publish(s, "p", TQI_TABLE_NEW);
}

static int call_publish_into_new_partition(scene *s)
{
    return call_publish(s, "q", TQI_TABLE_NEW);
}

static int call_publish_by_key(scene *s)
{
    return call_publish(s, "p", TQI_TABLE_BY_KEY);
}

static int call_publish_by_index(scene *s)
{
    return call_publish(s, "p", TQI_TABLE_BY_INDEX);
}

static int call_reserve(scene *s)
{
    static const char *const keys[] = {"k0", "r1", "r2"};
    static const char *const groups[] = {NULL, "g", NULL};

    return tqi_table_reserve_for_tests(s->t.table, "p", 3, keys, groups, &s->result, &s->t.err);
}

static int call_view(scene *s)
{
    static const char *const fields[] = {"b", "later", "a"};
    tqi_table_view *view;
    int rc = tqi_table_view_get(s->t.table, "p", fields, 3, "other", &view, &s->t.err);

    if (rc == TQ_OK) {
        tqi_table_view_unref(view);
    }
    return rc;
}

static int call_view_of_nothing(scene *s)
{
    tqi_table_view *view;
    int rc = tqi_table_view_get(s->t.table, "nowhere", ab, 2, "other", &view, &s->t.err);

    if (rc == TQ_OK) {
        tqi_table_view_unref(view);
    }
    return rc;
}

static int call_take(scene *s)
{
    const uint32_t *list;
    uint32_t n = tqi_table_view_list_for_tests(s->view, &list, &s->t.err);
    uint32_t chosen[3];

    if (list == NULL) {
        return TQ_ENOMEM;
    }
    assert_int_equal(n, 3);
    memcpy(chosen, list, sizeof(chosen));
    return tqi_table_view_take(s->view, chosen, 3, chosen, 3, SESSION + 1, true, &s->result, &s->t.err);
}

static int call_cache(scene *s)
{
    return tqi_table_view_cache_set(s->view, "slot", s->indexes, 3, &s->t.err);
}

static int call_resolve(scene *s)
{
    tqi_table_resolve_args ask = {.partition = "p", .keys = old_keys, .n = 3, .fields = ab, .n_fields = 2, .tags = true};

    return tqi_table_resolve(s->t.table, &ask, &s->result, &s->t.err);
}

static int call_keys(scene *s)
{
    return tqi_table_partition_keys_for_tests(s->t.table, tqi_table_find_partition(s->t.table, "p"), &s->result,
                                              &s->t.err);
}

static int call_consumption(scene *s)
{
    bool known;
    size_t n;

    return tqi_table_consumption(s->t.table, "p", "train", &known, &s->index, &s->bits, &n, &s->t.err);
}

static int call_production(scene *s)
{
    bool known;
    size_t n;

    return tqi_table_production(s->t.table, "p", ab, 2, &known, &s->index, &s->bits, &n, &s->t.err);
}

static int call_move(scene *s)
{
    tqi_table_batch_block to = {.id = s->first, .size = 200, .owner = "unit", .owner_incarnation = 7};
    tqi_table_stretch all = {0, 100, 4};
    tqi_table_move move = {.from = 1, .to = to, .stretches = &all, .n = 1};

    return tqi_table_compact_move(s->t.table, SESSION, &move, 1, &s->t.err);
}

static int call_live(scene *s)
{
    uint64_t ids[] = {1, 2};
    tqi_table_live live;
    int rc = tqi_table_compact_live(s->t.table, ids, 2, &live, &s->t.err);

    tqi_table_live_fini(&live);
    return rc;
}

static int call_blocks_lost(scene *s)
{
    uint64_t ids[] = {1, 2};

    return tqi_table_blocks_lost(s->t.table, ids, 2, NULL, NULL, &s->t.err);
}

static int call_grant(scene *s)
{
    uint64_t first;

    return tqi_table_grant(s->t.table, SESSION + 1, s->t.owner, 256, &first, &s->t.err);
}

static int call_owner(scene *s)
{
    tqi_table_owner *owner;

    return tqi_table_owner_register(s->t.table, "another", 1, &owner, &s->t.err);
}

static int call_owner_again(scene *s)
{
    return tqi_table_owner_register(s->t.table, "unit", 8, &s->t.owner, &s->t.err);
}

static void call_restored(tqi_table_view *from, tqi_table_view *to, void *arg)
{
    (void)from;
    ((scene *)arg)->view = to;
}

/* Everything is taken apart and put back, linked to the blocks that live. */
static int call_restore(scene *s)
{
    tqi_table_restore_state ask = {.relink = true, .moved = call_restored, .arg = s};
    tqi_table_snap_partition head = {0};
    tqi_table_snap_rows rows[3];
    tqi_table_result results[3];
    tqi_table_restored done;
    tqi_table_partition *partition = tqi_table_next_partition(s->t.table, NULL);
    uint64_t next = 0;
    int rc;

    memset(results, 0, sizeof(results));
    rc = tqi_table_snapshot_head(partition, &head, &results[2], &s->t.err);
    for (size_t i = 0; rc == TQ_OK && i < 2; i++) {
        rc = tqi_table_snapshot_rows(partition, &next, 3, &rows[i], &results[i], &s->t.err);
    }
    head.rows = rows;
    head.n_rows = 2;
    ask.partitions = &head;
    ask.n = 1;
    rc = rc == TQ_OK ? tqi_table_restore(s->t.table, &ask, &done, &s->t.err) : rc;
    for (size_t i = 0; i < 3; i++) {
        tqi_table_result_fini(&results[i]);
    }
    return rc;
}

static int call_freeze(scene *s)
{
    tqi_table_freeze *freeze;
    int rc = tqi_table_freeze_open(s->t.table, &freeze, &s->t.err);

    if (rc == TQ_OK) {
        tqi_table_freeze_close(s->t.table, freeze);
    }
    return rc;
}

static int call_clearing(scene *s)
{
    const tqi_table_clear clear = {.partition = "p", .indexes = s->indexes, .n = 3};
    tqi_table_clearing *clearing;
    int rc = tqi_table_clearing_begin(s->t.table, &clear, &clearing, &s->t.err);

    if (rc == TQ_OK) {
        tqi_table_clearing_end(s->t.table, clearing);
    }
    return rc;
}

static void each_failure_leaves_the_table_as_it_was(void **state)
{
    static int (*const calls[])(scene *) = {
        call_publish_new,
        call_publish_into_new_partition,
        call_publish_by_key,
        call_publish_by_index,
        call_reserve,
        call_view,
        call_view_of_nothing,
        call_take,
        call_cache,
        call_resolve,
        call_keys,
        call_consumption,
        call_production,
        call_live,
        call_move,
        call_blocks_lost,
        call_grant,
        call_owner,
        call_owner_again,
        call_restore,
        call_freeze,
        call_clearing,
    };

    uint32_t failures = 0;

    (void)state;
    for (size_t c = 0; c < sizeof(calls) / sizeof(calls[0]); c++) {
        uint32_t steps = 0;
        bool hit;

        do {
            scene s;
            char *before, *after;
            int rc;

            scene_open(&s);
            before = snapshot(&s.t);
            oom_one_after(steps++);
            rc = calls[c](&s);
            hit = oom_end() > 0;
            assert_int_equal(rc, hit ? TQ_ENOMEM : TQ_OK);
            if (hit) {
                after = snapshot(&s.t);
                assert_string_equal(before, after);
                free(after);
                /* The same call works afterwards. */
                assert_int_equal(calls[c](&s), TQ_OK);
            }
            free(before);
            tqi_table_session_end(s.t.table, SESSION + 1, true);
            scene_close(&s);
        } while (hit);
        failures += steps - 1;
    }
    /* A move finds its memory reserved by earlier calls; all others allocate. */
    assert_true(failures > sizeof(calls) / sizeof(calls[0]));
}

static void making_a_table_fails_cleanly(void **state)
{
    tqi_table_options options = {.epoch = 1};
    tqi_table *made = NULL;
    tq_error err = {0};
    uint32_t steps = 0;
    bool hit;
    int rc;

    (void)state;
    do {
        oom_one_after(steps++);
        rc = tqi_table_alloc(&options, &made, &err);
        hit = oom_end() > 0;
        assert_int_equal(rc, hit ? TQ_ENOMEM : TQ_OK);
    } while (hit);
    tqi_table_free(made);
    assert_true(steps > 1);
    options.epoch = 0;
    assert_int_equal(tqi_table_alloc(&options, &made, &err), TQ_EINVAL);
    tqi_table_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(making_a_table_fails_cleanly),
        cmocka_unit_test(each_failure_leaves_the_table_as_it_was),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
