/*
 * query.c - queries: where samples lie, what is produced and consumed, which keys exist.
 */
#include <utlist.h>

#include "base/error.h"
#include "table/claim.h"
#include "table/field.h"
#include "table/missing.h"
#include "table/result.h"
#include "table/sample.h"

/* --- resolve -------------------------------------------------------------- */

/* The requested rows; *n is the number found (lenient: unknown keys are left out). */
static int query_rows(const tqi_table_partition *partition, const tqi_table_resolve_args *ask, tqi_table_row *rows,
                      size_t *n, tq_error *err)
{
    *n = 0;
    for (size_t i = 0; i < ask->n; i++) {
        const tqi_table_sample *sample;
        uint32_t index;

        if (ask->keys != NULL) {
            const tqi_table_extras *extras = ask->keys[i] != NULL ? tqi_t_key_find(partition, ask->keys[i]) : NULL;
            if (extras == NULL) {
                if (ask->lenient) {
                    continue;
                }
                return tqi_t_unknown_key(partition, ask->keys[i], err);
            }
            index = extras->index;
            sample = tqi_t_sample(partition->table, index);
        } else {
            uint32_t incarnation = ask->incarnations != NULL ? ask->incarnations[i] : 0;
            index = ask->indexes[i];
            sample = tqi_t_member(partition, index, incarnation);
            if (sample == NULL && ask->skip_cleared) {
                continue;
            }
            if (sample == NULL) {
                return tqi_t_cleared(partition, ask->indexes, ask->incarnations, ask->n, err);
            }
        }
        rows[(*n)++] = tqi_t_row_of(index, sample);
    }
    return TQ_OK;
}

static void query_all_rows(const tqi_table_partition *partition, tqi_table_row *rows)
{
    roaring_uint32_iterator_t it;

    for (roaring_init_iterator(partition->members, &it); it.has_value; roaring_advance_uint32_iterator(&it)) {
        *rows++ = tqi_t_row_of(it.current_value, tqi_t_sample(partition->table, it.current_value));
    }
}

/* The requested fields, malloc'ed. */
static int query_fields(const tqi_table_partition *partition, const tqi_table_resolve_args *ask, tqi_table_field ***out,
                        size_t *n, tq_error *err)
{
    tqi_table_field *field;
    tqi_table_field **fields;
    size_t count = ask->n_fields;

    *n = 0;
    *out = NULL;
    if (count == 0) {
        DL_COUNT(partition->known, field, count);
    }
    fields = calloc(count > 0 ? count : 1, sizeof(tqi_table_field *));
    if (fields == NULL) {
        return tqi_error_nomem(err, "resolve");
    }
    if (ask->n_fields == 0) {
        DL_FOREACH (partition->known, field) {
            fields[(*n)++] = field;
        }
    }
    for (size_t i = 0; i < ask->n_fields; i++) {
        field = ask->fields[i] != NULL ? tqi_t_field_find(partition, ask->fields[i]) : NULL;
        if (field != NULL && field->known) {
            fields[(*n)++] = field;
        } else if (!ask->lenient) {
            free(fields);
            return tqi_t_unknown_field(partition, ask->fields[i], err);
        }
    }
    *out = fields;
    return TQ_OK;
}

static int query_unknown(tqi_table *table, const tqi_table_resolve_args *ask, tqi_table_result *result, tq_error *err)
{
    if (!ask->lenient) {
        return tqi_table_unknown_partition(table, ask->partition, err);
    }
    result->batch.partition = tqi_region_string(&result->region, ask->partition);
    return result->batch.partition != NULL ? TQ_OK : tqi_error_nomem(err, "resolve");
}

int tqi_table_resolve(tqi_table *table, const tqi_table_resolve_args *ask, tqi_table_result *result, tq_error *err)
{
    bool all = ask->keys == NULL && ask->indexes == NULL;
    tqi_table_partition *partition;
    tqi_table_field **fields = NULL;
    tqi_table_row *rows = NULL;
    size_t n_fields = 0;
    size_t n = 0;
    int rc = tqi_check_name("partition", ask->partition, TQ_NAME_MAX, err);

    if (rc != TQ_OK) {
        return rc;
    }
    partition = tqi_table_find_partition(table, ask->partition);
    if (partition == NULL) {
        return query_unknown(table, ask, result, err);
    }
    n = all ? partition->samples : ask->n;
    rows = calloc(n > 0 ? n : 1, sizeof(*rows));
    if (rows == NULL) {
        return tqi_error_nomem(err, "resolve");
    }
    if (all) {
        query_all_rows(partition, rows);
    } else {
        rc = query_rows(partition, ask, rows, &n, err);
    }
    if (rc == TQ_OK) {
        rc = query_fields(partition, ask, &fields, &n_fields, err);
    }
    if (rc == TQ_OK) {
        rc = tqi_t_describe_samples(partition, rows, n, true, ask->tags, result, err);
    }
    if (rc == TQ_OK) {
        rc = tqi_t_describe_fields(partition, rows, n, fields, n_fields, result, err);
    }
    if (rc != TQ_OK) {
        tqi_table_result_fini(result);
    }
    free(fields);
    free(rows);
    return rc;
}

/* Where a page begins. */
static const tqi_table_extras *query_page_start(const tqi_table *table, const tqi_table_partition *partition,
                                                const tqi_table_keys_page *page)
{
    const tqi_table_extras *extras = page->mark ? tqi_t_key_find(partition, page->after) : NULL;

    /* The hash table keeps the order of insertion, which is the order of joining. */
    if (extras != NULL && tqi_t_sample(table, extras->index)->ordinal + 1 == page->mark) {
        return extras->hh.next;
    }
    extras = partition->keys;
    while (extras != NULL && tqi_t_sample(table, extras->index)->ordinal < page->mark) {
        extras = extras->hh.next;
    }
    return extras;
}

int tqi_table_partition_keys_page(tqi_table *table, tqi_table_partition *partition, tqi_table_keys_page *page,
                                  tqi_table_result *result, tq_error *err)
{
    size_t most = HASH_COUNT(partition->keys);
    const tqi_table_extras *extras = query_page_start(table, partition, page);
    size_t n = 0;
    tqi_table_row *rows;
    int rc;

    most = page->limit > 0 && page->limit < most ? page->limit : most;
    rows = calloc(most > 0 ? most : 1, sizeof(*rows));
    if (rows == NULL) {
        return tqi_error_nomem(err, "keys");
    }
    for (; extras != NULL && n < most; extras = extras->hh.next) {
        rows[n++] = tqi_t_row_of(extras->index, tqi_t_sample(table, extras->index));
    }
    page->next = extras != NULL && n > 0 ? rows[n - 1].ordinal + 1 : 0;
    rc = tqi_t_describe_samples(partition, rows, n, true, true, result, err);
    if (rc != TQ_OK) {
        tqi_table_result_fini(result);
    }
    free(rows);
    return rc;
}

int tqi_table_partition_keys_for_tests(tqi_table *table, tqi_table_partition *partition, tqi_table_result *result,
                                       tq_error *err)
{
    tqi_table_keys_page all = {.after = ""};

    return tqi_table_partition_keys_page(table, partition, &all, result, err);
}

/* --- status --------------------------------------------------------------- */

/* The partition and its indexes, ascending; NULL and TQ_OK when it is unknown. */
static int query_indexes(tqi_table *table, const char *name, bool *known, uint32_t **index, size_t *n,
                         tqi_table_partition **out, tq_error *err)
{
    int rc = tqi_check_name("partition", name, TQ_NAME_MAX, err);

    *known = false;
    *index = NULL;
    *n = 0;
    *out = NULL;
    if (rc != TQ_OK) {
        return rc;
    }
    *out = tqi_table_find_partition(table, name);
    if (*out == NULL) {
        return TQ_OK;
    }
    *known = true;
    *n = (*out)->samples;
    if (*n == 0) {
        return TQ_OK;
    }
    *index = malloc(*n * sizeof(**index));
    if (*index == NULL) {
        return tqi_error_nomem(err, "status");
    }
    roaring_bitmap_to_uint32_array((*out)->members, *index);
    return TQ_OK;
}

int tqi_table_consumption(tqi_table *table, const char *partition_name, const char *task_name, bool *known,
                          uint32_t **index, uint8_t **consumed, size_t *n, tq_error *err)
{
    tqi_table_partition *partition;
    const tqi_table_task *task;
    int rc = query_indexes(table, partition_name, known, index, n, &partition, err);

    *consumed = NULL;
    if (rc != TQ_OK || *index == NULL) {
        return rc;
    }
    *consumed = calloc(*n, 1);
    if (*consumed == NULL) {
        free(*index);
        *index = NULL;
        return tqi_error_nomem(err, "status");
    }
    task = task_name != NULL ? tqi_t_task_find(partition, task_name) : NULL;
    for (size_t i = 0; task != NULL && i < *n; i++) {
        (*consumed)[i] = roaring_bitmap_contains(task->consumed, (*index)[i]);
    }
    return TQ_OK;
}

int tqi_table_production(tqi_table *table, const char *partition_name, const char *const *fields, size_t n_fields,
                         bool *known, uint32_t **index, uint8_t **produced, size_t *n, tq_error *err)
{
    tqi_table_partition *partition;
    size_t size;
    int rc = query_indexes(table, partition_name, known, index, n, &partition, err);

    *produced = NULL;
    if (rc != TQ_OK || *index == NULL || n_fields == 0) {
        return rc;
    }
    if (!__builtin_mul_overflow(*n, n_fields, &size)) {
        *produced = calloc(size, 1);
    }
    if (*produced == NULL) {
        free(*index);
        *index = NULL;
        return tqi_error_nomem(err, "status");
    }
    for (size_t f = 0; f < n_fields; f++) {
        const tqi_table_field *field = fields[f] != NULL ? tqi_t_field_find(partition, fields[f]) : NULL;
        for (size_t i = 0; field != NULL && i < *n; i++) {
            uint32_t row = tqi_t_sample(table, (*index)[i])->row;
            (*produced)[i * n_fields + f] = tqi_t_produced(tqi_t_cell(field, row).block);
        }
    }
    return TQ_OK;
}
