/*
 * testkit_publish.h - publishes of one field, on which a test changes what it is about.
 */
#ifndef TQI_TABLE_TEST_TESTKIT_PUBLISH_H
#define TQI_TABLE_TEST_TESTKIT_PUBLISH_H

#include "table/test/testkit.h"

/* One field of n rows in one block of `size` bytes; a test changes what it is about. */
typedef struct one_field {
    const char *partition;
    tqi_table_naming naming;
    size_t n;
    const uint32_t *indexes;
    const char *const *keys;
    const char *const *groups;
    const tqi_table_batch_tag *tags;
    size_t n_tags;
    tqi_table_batch_field field;
    tqi_table_run run;
    uint64_t size;
    size_t locator_size;
} one_field;

static const uint64_t pair[] = {2, 3};

/* n rows of float32[2][3] in partition "p". */
static inline one_field make(size_t n)
{
    return (one_field){
        .naming = TQI_TABLE_NEW,
        .partition = "p",
        .n = n,
        .field = {.name = "a", .dtype = {TQ_FLOAT, 32}, .ndim = 2, .shape = pair},
        .run = {1, (uint32_t)n, 0},
        .size = n * 24,
    };
}

static inline int publish(table *t, one_field *o, tqi_table_result *result)
{
    static const uint8_t locator[TQ_LOCATOR_MAX + 1] = {1};
    tqi_table_batch_block block = {
        .size = o->size,
        .owner = "unit",
        .owner_incarnation = 7,
        .locator = locator,
        .locator_size = o->locator_size,
    };
    tqi_table_batch batch = {
        .partition = o->partition,
        .n = o->n,
        .indexes = o->indexes,
        .keys = o->keys,
        .groups = o->groups,
        .tags = o->tags,
        .n_tags = o->n_tags,
        .fields = &o->field,
        .n_fields = o->field.name != NULL,
        .blocks = &block,
        .n_blocks = 1,
    };
    tqi_table_publish_args p = {.batch = &batch, .naming = o->naming, .create = true, .session = SESSION};
    int rc;

    assert_int_equal(tqi_table_grant(t->table, SESSION, t->owner, 1, &block.id, &t->err), TQ_OK);
    if (o->field.runs == NULL) {
        o->field.runs = &o->run;
        o->field.n_runs = 1;
    }
    rc = tqi_table_publish(t->table, &p, result, &t->err);
    if (rc != TQ_OK) {
        tq_error ignored;
        assert_null(result->region.chunks);
        assert_int_equal(tqi_table_abandon(t->table, SESSION, &block.id, 1, true, &ignored), TQ_OK);
    }
    return rc;
}

static inline int publish_only(table *t, one_field o)
{
    tqi_table_result r = {0};
    int rc = publish(t, &o, &r);

    tqi_table_result_fini(&r);
    return rc;
}

static inline tqi_table_field_info field_info(table *t, size_t i)
{
    tqi_table_field_info info = {0};

    assert_true(tqi_table_partition_field(tqi_table_find_partition(t->table, "p"), i, &info));
    return info;
}

static inline void close_empty(table *t)
{
    table_clear(t, "p");
    table_assert_empty(t);
    table_close(t);
}

static inline void table_open_strict(table *t)
{
    tqi_table_options options = {.epoch = 99, .strict_schema = true};

    table_open_with(t, &options);
}

#endif
