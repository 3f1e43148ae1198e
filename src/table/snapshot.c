/*
 * snapshot.c - splits the state of a partition into the parts of a snapshot.
 */
#include "table/snapshot.h"

#include <utlist.h>

#include "base/error.h"
#include "table/result.h"
#include "table/sample.h"

/* --- head ----------------------------------------------------------------- */

static int snap_fields(const tqi_table_partition *partition, tqi_table_snap_partition *out, tqi_table_result *result)
{
    const tqi_table_field *field;
    tqi_table_field_info *fields;
    size_t n = 0;

    DL_COUNT(partition->known, field, n);
    fields = tqi_region_zero(&result->region, n, sizeof(*fields));
    if (fields == NULL) {
        return TQ_ENOMEM;
    }
    for (field = partition->known; field != NULL; field = field->next) {
        tqi_table_field_info *info = &fields[out->n_fields];
        uint64_t *shape;

        (void)tqi_table_partition_field(partition, out->n_fields, info);
        info->name = tqi_region_string(&result->region, info->name);
        shape = tqi_region_zero(&result->region, info->ndim, sizeof(*shape));
        if (info->name == NULL || shape == NULL) {
            return TQ_ENOMEM;
        }
        if (info->ndim > 0) {
            memcpy(shape, info->shape, info->ndim * sizeof(*shape));
        }
        info->shape = shape;
        out->n_fields++;
    }
    out->fields = fields;
    return TQ_OK;
}

/* Whether all samples of the pick still exist; otherwise it is void. */
static bool snap_pick_valid(const tqi_table_task *task, const tqi_table_cached_pick *pick)
{
    for (uint32_t i = 0; i < pick->n; i++) {
        if (tqi_t_member(task->partition, pick->indexes[i], pick->incarnations[i]) == NULL) {
            return false;
        }
    }
    return true;
}

static int snap_cached_picks(const tqi_table_task *task, tqi_table_snap_task *out, tqi_table_result *result)
{
    tqi_table_snap_cached_pick *cached_picks =
        tqi_region_zero(&result->region, HASH_COUNT(task->cached_picks), sizeof(*cached_picks));
    const tqi_table_cached_pick *pick;

    if (cached_picks == NULL) {
        return TQ_ENOMEM;
    }
    out->cached_picks = cached_picks;
    for (pick = task->cached_picks; pick != NULL; pick = pick->hh.next) {
        uint32_t *indexes;

        if (!snap_pick_valid(task, pick)) {
            continue;
        }
        indexes = tqi_region_zero(&result->region, pick->n, sizeof(*indexes));
        cached_picks->name = tqi_region_string(&result->region, pick->name);
        if (indexes == NULL || cached_picks->name == NULL) {
            return TQ_ENOMEM;
        }
        memcpy(indexes, pick->indexes, pick->n * sizeof(*indexes));
        cached_picks->indexes = indexes;
        cached_picks->n = pick->n;
        cached_picks++;
        out->n_cached_picks++;
    }
    return TQ_OK;
}

int tqi_table_snapshot_head(tqi_table_partition *partition, tqi_table_snap_partition *out, tqi_table_result *result,
                            tq_error *err)
{
    tqi_table_snap_task *tasks = tqi_region_zero(&result->region, HASH_COUNT(partition->tasks), sizeof(*tasks));
    const tqi_table_task *task;
    int rc = tasks != NULL ? TQ_OK : TQ_ENOMEM;

    *out = (tqi_table_snap_partition){
        .next_ordinal = partition->next_ordinal - partition->table->first_ordinal,
        .tasks = tasks,
    };
    out->name = tqi_region_string(&result->region, partition->name);
    if (rc == TQ_OK && out->name != NULL) {
        rc = snap_fields(partition, out, result);
    }
    for (task = partition->tasks; rc == TQ_OK && task != NULL; task = task->hh.next) {
        tasks[out->n_tasks].name = tqi_region_string(&result->region, task->name);
        rc = tasks[out->n_tasks].name != NULL ? snap_cached_picks(task, &tasks[out->n_tasks], result) : TQ_ENOMEM;
        out->n_tasks++;
    }
    if (rc != TQ_OK || out->name == NULL) {
        tqi_table_result_fini(result);
        return tqi_error_nomem(err, "snapshot");
    }
    return TQ_OK;
}

/* --- samples -------------------------------------------------------------- */

static int snap_describe(tqi_table_partition *partition, const tqi_table_row *rows, size_t n, tqi_table_result *result,
                         tq_error *err)
{
    size_t n_fields = 0;
    tqi_table_field *field, **fields;
    int rc;

    DL_COUNT(partition->known, field, n_fields);
    fields = tqi_region_zero(&result->region, n_fields, sizeof(tqi_table_field *));
    if (fields == NULL) {
        return tqi_error_nomem(err, "snapshot");
    }
    n_fields = 0;
    DL_FOREACH (partition->known, field) {
        fields[n_fields++] = field;
    }
    rc = tqi_t_describe_samples(partition, rows, n, true, true, result, err);
    if (rc == TQ_OK) {
        rc = tqi_t_describe_fields(partition, rows, n, fields, n_fields, result, err);
    }
    return rc;
}

/* Ordinals count from 0; consumption of all tasks. */
static int snap_finish(const tqi_table_partition *partition, const tqi_table_row *rows, size_t n,
                       tqi_table_snap_rows *out, tqi_table_result *result, tq_error *err)
{
    size_t n_tasks = HASH_COUNT(partition->tasks);
    uint64_t *ordinals = tqi_region_zero(&result->region, n, sizeof(*ordinals));
    uint8_t *consumed = tqi_region_zero(&result->region, n * n_tasks, 1);
    const tqi_table_task *task;

    if (ordinals == NULL || consumed == NULL) {
        return tqi_error_nomem(err, "snapshot");
    }
    for (size_t i = 0; i < n; i++) {
        ordinals[i] = rows[i].ordinal - partition->table->first_ordinal;
    }
    out->consumed = consumed;
    out->n_consumed = n * n_tasks;
    for (task = partition->tasks; task != NULL; task = task->hh.next) {
        for (size_t i = 0; i < n; i++) {
            *consumed++ = roaring_bitmap_contains(task->consumed, rows[i].index);
        }
    }
    out->batch = result->batch;
    out->batch.ordinals = ordinals;
    return TQ_OK;
}

int tqi_table_snapshot_rows(tqi_table_partition *partition, uint64_t *next, size_t max, tqi_table_snap_rows *out,
                            tqi_table_result *result, tq_error *err)
{
    tqi_table_row *rows = calloc(max > 0 ? max : 1, sizeof(*rows));
    roaring_uint32_iterator_t it;
    size_t n = 0;
    int rc = TQ_OK;

    memset(out, 0, sizeof(*out));
    if (rows == NULL) {
        return tqi_error_nomem(err, "snapshot");
    }
    roaring_init_iterator(partition->members, &it);
    if (*next <= UINT32_MAX && roaring_move_uint32_iterator_equalorlarger(&it, (uint32_t)*next)) {
        for (; it.has_value && n < max; roaring_advance_uint32_iterator(&it)) {
            rows[n++] = tqi_t_row_of(it.current_value, tqi_t_sample(partition->table, it.current_value));
            *next = (uint64_t)it.current_value + 1;
        }
    }
    if (n > 0) {
        rc = snap_describe(partition, rows, n, result, err);
        if (rc == TQ_OK) {
            rc = snap_finish(partition, rows, n, out, result, err);
        }
    }
    if (rc != TQ_OK) {
        tqi_table_result_fini(result);
    }
    free(rows);
    return rc;
}
