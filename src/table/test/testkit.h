/*
 * testkit.h - shared by the tests of the table: a table with one owner, and short calls to put samples into it.
 */
#ifndef TQI_TABLE_TEST_TESTKIT_H
#define TQI_TABLE_TEST_TESTKIT_H

#include "table/table.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SESSION 11u
#define ROW     4u /* float32 elements of a row */

typedef struct table {
    tqi_table *table;
    tqi_table_owner *owner;
    tq_error err;
} table;

static inline void table_open_with(table *t, const tqi_table_options *options)
{
    memset(t, 0, sizeof(*t));
    assert_int_equal(tqi_table_alloc(options, &t->table, &t->err), TQ_OK);
    assert_int_equal(tqi_table_owner_register(t->table, "unit", 7, &t->owner, &t->err), TQ_OK);
}

static inline void table_open(table *t)
{
    tqi_table_options options = {.epoch = 99};

    table_open_with(t, &options);
}

static inline void table_close(table *t)
{
    tqi_table_free(t->table);
    t->table = NULL;
}

/* Checks that a cleared table has given everything back; collects dead blocks first. */
static inline void table_assert_empty(table *t)
{
    tqi_table_counts counts;
    uint64_t notice;
    tqi_table_dead dead[8];

    while (tqi_table_owner_dead(t->owner, dead, 8, &notice) > 0) {
        tqi_table_owner_done(t->owner, notice, 0);
    }
    tqi_table_session_end(t->table, SESSION, true);
    while (tqi_table_owner_dead(t->owner, dead, 8, &notice) > 0) {
        tqi_table_owner_done(t->owner, notice, 0);
    }
    tqi_table_count(t->table, &counts);
    assert_int_equal(counts.partitions, 0);
    assert_int_equal(counts.samples, 0);
    assert_int_equal(counts.live_cells, 0);
    assert_int_equal(counts.blocks, 0);
    assert_int_equal(counts.ranges, 0);
    assert_int_equal(counts.keys, 0);
    assert_int_equal(counts.claims, 0);
    assert_int_equal(counts.shapes, 0);
    assert_int_equal(counts.dead, 0);
    assert_int_equal(counts.late, 0);
    assert_int_equal(tqi_table_owner_blocks(t->owner), 0);
    assert_int_equal(tqi_table_owner_bytes(t->owner), 0);
}

/* One put: n rows of float32[ROW] in each of the fields, one block per field. */
typedef struct put {
    const char *partition;
    size_t n;
    tqi_table_naming naming;
    bool create;
    const uint32_t *indexes;
    const uint32_t *incarnations;
    const char *const *keys;
    const char *const *groups;
    const tqi_table_batch_tag *tags;
    size_t n_tags;
    const char *const *fields;
    size_t n_fields;
    uint64_t first_block; /* out */
} put;

static inline int table_put(table *t, put *p, tqi_table_result *result)
{
    static const uint64_t shape[] = {ROW};
    tqi_table_batch_block blocks[32];
    tqi_table_batch_field fields[32];
    tqi_table_run runs[32];
    tqi_table_batch batch = {
        .partition = p->partition,
        .n = p->n,
        .indexes = p->indexes,
        .incarnations = p->incarnations,
        .keys = p->keys,
        .groups = p->groups,
        .tags = p->tags,
        .n_tags = p->n_tags,
        .fields = fields,
        .n_fields = p->n_fields,
        .blocks = blocks,
        .n_blocks = p->n_fields,
    };
    tqi_table_publish_args publish = {.batch = &batch, .naming = p->naming, .create = p->create, .session = SESSION};
    uint64_t first = 0;
    int rc;

    assert_true(p->n_fields <= 32);
    if (p->n_fields > 0) {
        assert_int_equal(tqi_table_grant(t->table, SESSION, t->owner, (uint32_t)p->n_fields, &first, &t->err), TQ_OK);
    }
    p->first_block = first;
    for (size_t i = 0; i < p->n_fields; i++) {
        runs[i] = (tqi_table_run){(uint32_t)i + 1, (uint32_t)p->n, 0};
        blocks[i] = (tqi_table_batch_block){
            .id = first + i,
            .size = p->n * ROW * 4,
            .owner = "unit",
            .owner_incarnation = 7,
            .locator = (const uint8_t *)"here",
            .locator_size = 4,
        };
        fields[i] = (tqi_table_batch_field){
            .name = p->fields[i],
            .kind = TQ_TENSOR,
            .dtype = {TQ_FLOAT, 32},
            .ndim = 1,
            .shape = shape,
            .runs = &runs[i],
            .n_runs = 1,
        };
    }
    rc = tqi_table_publish(t->table, &publish, result, &t->err);
    if (rc != TQ_OK) {
        tq_error ignored;
        for (size_t i = 0; i < p->n_fields; i++) {
            uint64_t id = first + i;
            assert_int_equal(tqi_table_abandon(t->table, SESSION, &id, 1, true, &ignored), TQ_OK);
        }
    }
    return rc;
}

/* n new samples of partition "p" with the field, each in its group ("" none; groups NULL: none of them is in one). */
static inline void table_new_in_groups(table *t, size_t n, const char *field, const char *const *groups)
{
    put p = {.partition = "p", .n = n, .naming = TQI_TABLE_NEW, .groups = groups, .fields = &field, .n_fields = 1};
    tqi_table_result result = {0};

    assert_int_equal(table_put(t, &p, &result), TQ_OK);
    tqi_table_result_fini(&result);
}

/* n new samples with the fields; their indexes go to `indexes` when it is not NULL. */
static inline void table_new(table *t, const char *partition, size_t n, const char *const *fields, size_t n_fields,
                             uint32_t *indexes)
{
    put p = {.partition = partition, .n = n, .naming = TQI_TABLE_NEW, .fields = fields, .n_fields = n_fields};
    tqi_table_result result = {0};

    assert_int_equal(table_put(t, &p, &result), TQ_OK);
    assert_int_equal(result.batch.n, n);
    if (indexes != NULL) {
        memcpy(indexes, result.batch.indexes, n * sizeof(*indexes));
    }
    tqi_table_result_fini(&result);
}

static inline void table_clear(table *t, const char *partition)
{
    uint32_t cleared;

    assert_int_equal(tqi_table_clear_partition(t->table, partition, &cleared, &t->err), TQ_OK);
}

/* Takes the first n ready samples of a view; returns the claim. */
static inline uint64_t table_take(table *t, tqi_table_view *view, uint32_t n, uint32_t *out)
{
    const uint32_t *list;
    tqi_table_result result = {0};
    uint64_t claim;

    assert_int_equal(tqi_table_view_list_first(view, n, &list, &t->err), n);
    memcpy(out, list, n * sizeof(*out));
    assert_int_equal(tqi_table_view_take(view, out, n, out, n, SESSION, false, &result, &t->err), TQ_OK);
    claim = result.claim;
    assert_int_not_equal(claim, 0);
    tqi_table_result_fini(&result);
    return claim;
}

#endif
