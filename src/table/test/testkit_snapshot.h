/*
 * testkit_snapshot.h - taking and restoring whole tables, for tests: a snapshot whose arrays may be changed.
 */
#ifndef TQI_TABLE_TEST_TESTKIT_SNAPSHOT_H
#define TQI_TABLE_TEST_TESTKIT_SNAPSHOT_H

#include "table/snapshot.h"
#include "table/test/testkit.h"

#define KIT_PARTITIONS 8
#define KIT_PIECES     64

/* The first piece of a partition, as something to be changed. */
typedef struct kit_partition {
    uint32_t *indexes;
    uint64_t *ordinals;
    const char **keys;
    tqi_table_batch_field *fields;
    tqi_table_run *runs; /* of the first field */
    tqi_table_batch_block *blocks;
} kit_partition;

typedef struct kit_snapshot {
    tqi_table_snap_partition heads[KIT_PARTITIONS];
    tqi_table_snap_rows rows[KIT_PARTITIONS][KIT_PIECES];
    kit_partition partitions[KIT_PARTITIONS];
    tqi_table_snap_cached_pick *slot; /* the first one */
    size_t n;
    tqi_table_result results[KIT_PARTITIONS][KIT_PIECES + 1];
} kit_snapshot;

static int kit_moves;
static tqi_table_view *kit_moved_to;

static inline void kit_moved(tqi_table_view *from, tqi_table_view *to, void *arg)
{
    (void)arg;
    tqi_table_view_set_user(to, tqi_table_view_user(from));
    kit_moved_to = to;
    kit_moves++;
}

/* Tests own the snapshots they take, and may change them. */
#define KIT_MUTABLE(type, pointer) ((type *)(uintptr_t)(pointer))

static inline void kit_expose(kit_snapshot *snap, size_t p)
{
    const tqi_table_batch *batch = &snap->rows[p][0].batch;
    kit_partition *out = &snap->partitions[p];

    out->indexes = KIT_MUTABLE(uint32_t, batch->indexes);
    out->ordinals = KIT_MUTABLE(uint64_t, batch->ordinals);
    out->keys = KIT_MUTABLE(const char *, batch->keys);
    out->fields = KIT_MUTABLE(tqi_table_batch_field, batch->fields);
    out->runs = batch->n_fields > 0 ? KIT_MUTABLE(tqi_table_run, batch->fields[0].runs) : NULL;
    out->blocks = KIT_MUTABLE(tqi_table_batch_block, batch->blocks);
}

/* All partitions, or one; in pieces of `piece` samples. */
static inline void kit_take_pieces(table *t, const char *only, size_t piece, kit_snapshot *snap)
{
    tqi_table_partition *partition = NULL;

    memset(snap, 0, sizeof(*snap));
    while ((partition = tqi_table_next_partition(t->table, partition)) != NULL) {
        size_t p = snap->n;
        tqi_table_snap_partition *head = &snap->heads[p];
        uint64_t next = 0;
        size_t k = 0;

        if (only != NULL && strcmp(only, tqi_table_partition_name(partition)) != 0) {
            continue;
        }
        snap->n++;
        assert_true(snap->n <= KIT_PARTITIONS);
        assert_int_equal(tqi_table_snapshot_head(partition, head, &snap->results[p][KIT_PIECES], &t->err), TQ_OK);
        for (;; k++) {
            assert_true(k < KIT_PIECES);
            assert_int_equal(
                tqi_table_snapshot_rows(partition, &next, piece, &snap->rows[p][k], &snap->results[p][k], &t->err),
                TQ_OK);
            if (snap->rows[p][k].batch.n == 0) {
                break;
            }
        }
        head->rows = snap->rows[p];
        head->n_rows = k;
        if (k > 0) {
            kit_expose(snap, p);
        }
        if (head->n_tasks > 0 && head->tasks[0].n_cached_picks > 0) {
            snap->slot = KIT_MUTABLE(tqi_table_snap_cached_pick, head->tasks[0].cached_picks);
        }
    }
}

static inline void kit_take(table *t, const char *only, kit_snapshot *snap)
{
    kit_take_pieces(t, only, 100, snap);
}

static inline void kit_free(kit_snapshot *snap)
{
    for (size_t p = 0; p < KIT_PARTITIONS; p++) {
        for (size_t k = 0; k <= KIT_PIECES; k++) {
            tqi_table_result_fini(&snap->results[p][k]);
        }
    }
}

/* Gives the snapshot's blocks fresh ids of the table, as if their bytes had been written there. */
static inline void kit_adopt(table *t, kit_snapshot *snap)
{
    uint64_t was[256], is[256];
    size_t n = 0;

    for (size_t p = 0; p < snap->n; p++) {
        for (size_t k = 0; k < snap->heads[p].n_rows; k++) {
            const tqi_table_batch *batch = &snap->rows[p][k].batch;
            for (size_t i = 0; i < batch->n_blocks; i++) {
                tqi_table_batch_block *block = KIT_MUTABLE(tqi_table_batch_block, &batch->blocks[i]);
                size_t at = 0;
                while (at < n && was[at] != block->id) {
                    at++;
                }
                if (at == n) {
                    assert_true(n < 256);
                    was[n] = block->id;
                    assert_int_equal(tqi_table_grant(t->table, SESSION, t->owner, 1, &is[n++], &t->err), TQ_OK);
                }
                block->id = is[at];
            }
        }
    }
}

static inline int kit_restore(table *t, const kit_snapshot *snap, bool partial, bool relink, tqi_table_restored *out)
{
    tqi_table_restore_state ask = {
        .partitions = snap->heads,
        .n = snap->n,
        .partial = partial,
        .relink = relink,
        .session = SESSION,
        .moved = kit_moved,
    };

    return tqi_table_restore(t->table, &ask, out, &t->err);
}

static inline void kit_print_tasks(FILE *out, table *t, const char *partition)
{
    const char *task;
    uint32_t count;

    for (size_t i = 0; tqi_table_partition_task(tqi_table_find_partition(t->table, partition), i, &task, &count); i++) {
        bool known;
        uint32_t *index;
        uint8_t *consumed;
        const uint32_t *slot;
        static const char *const fields[] = {"b"};
        tqi_table_view *view;
        uint32_t in_slot;
        size_t n;

        assert_int_equal(tqi_table_consumption(t->table, partition, task, &known, &index, &consumed, &n, &t->err),
                         TQ_OK);
        (void)fprintf(out, "task %s (%u):", task, count);
        for (size_t s = 0; s < n; s++) {
            (void)fprintf(out, " %u=%u", index[s], consumed[s]);
        }
        free(index);
        free(consumed);
        assert_int_equal(tqi_table_view_get(t->table, partition, fields, 1, task, &view, &t->err), TQ_OK);
        slot = tqi_table_view_cache_get(view, "slot", &in_slot);
        (void)fprintf(out, " ready %u slot:", tqi_table_view_ready(view));
        for (uint32_t s = 0; slot != NULL && s < in_slot; s++) {
            (void)fprintf(out, " %u", slot[s]);
        }
        (void)fputc('\n', out);
        tqi_table_view_unref(view);
    }
}

static inline void kit_print_field(FILE *out, const tqi_table_batch *batch, const tqi_table_batch_field *field)
{
    (void)fprintf(out, "field %s kind=%u dtype=%u/%u ragged=%d/%u ndim=%u:", field->name, field->kind,
                  field->dtype.code, field->dtype.bits, field->ragged, field->ragged_dim, field->ndim);
    for (size_t i = 0; i < field->n_dims; i++) {
        (void)fprintf(out, " %llu", (unsigned long long)field->dims[i]);
    }
    for (size_t i = 0; i < field->n_runs; i++) {
        uint32_t block = field->runs[i].block;
        bool placed = block > 0 && block <= batch->n_blocks;
        (void)fprintf(out, " [%u@%u size %llu +%llu]", field->runs[i].rows, block,
                      placed ? (unsigned long long)batch->blocks[block - 1].size : 0,
                      (unsigned long long)field->runs[i].offset);
    }
    (void)fputc('\n', out);
}

/* What queries tell about a table, but for incarnations and block ids; text to be freed. */
static inline char *kit_describe(table *t)
{
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    tqi_table_partition *partition = NULL;

    assert_non_null(out);
    while ((partition = tqi_table_next_partition(t->table, partition)) != NULL) {
        const char *name = tqi_table_partition_name(partition);
        tqi_table_resolve_args ask = {.partition = name, .tags = true};
        tqi_table_result result = {0};
        tqi_table_result named = {0};
        const tqi_table_batch *batch = &result.batch;

        assert_int_equal(tqi_table_resolve(t->table, &ask, &result, &t->err), TQ_OK);
        (void)fprintf(out, "partition %s: %u samples, %llu bytes\n", name, tqi_table_partition_samples(partition),
                      (unsigned long long)tqi_table_partition_bytes(partition));
        for (size_t i = 0; i < batch->n; i++) {
            (void)fprintf(out, "%u@%llu key=%s group=%s\n", batch->indexes[i], (unsigned long long)batch->ordinals[i],
                          batch->keys != NULL && batch->keys[i] != NULL ? batch->keys[i] : "-",
                          batch->groups != NULL && batch->groups[i] != NULL ? batch->groups[i] : "-");
        }
        for (size_t i = 0; i < batch->n_tags; i++) {
            (void)fprintf(out, "tag %s:", batch->tags[i].name);
            for (size_t b = 0; b < batch->tags[i].values_size; b++) {
                (void)fprintf(out, " %02x", batch->tags[i].values[b]);
            }
            (void)fputc('\n', out);
        }
        for (size_t f = 0; f < batch->n_fields; f++) {
            kit_print_field(out, batch, &batch->fields[f]);
        }
        assert_int_equal(tqi_table_partition_keys_for_tests(t->table, partition, &named, &t->err), TQ_OK);
        for (size_t i = 0; i < named.batch.n; i++) {
            (void)fprintf(out, "key %s = %u\n", named.batch.keys[i], named.batch.indexes[i]);
        }
        tqi_table_result_fini(&named);
        tqi_table_result_fini(&result);
        kit_print_tasks(out, t, name);
    }
    assert_int_equal(fclose(out), 0);
    return text;
}

#endif
