/*
 * publish.c - publishing and reserving: plan, describe, commit.
 */
#include <utlist.h>

#include "base/error.h"
#include "table/block.h"
#include "table/claim.h"
#include "table/field.h"
#include "table/publish_plan.h"
#include "table/result.h"
#include "table/sample.h"

static void publish_join(tqi_table_plan *plan)
{
    tqi_table_partition *partition = plan->partition;

    for (uint32_t k = 0; k < plan->n_fresh; k++) {
        tqi_table_extras *extras = plan->rows[plan->fresh_row[k]].extras;
        uint32_t index;
        tqi_table_sample *sample = tqi_t_sample_take(plan->table, &index);

        sample->partition = partition;
        sample->extras = extras;
        sample->ordinal = partition->next_ordinal++;
        sample->row = tqi_t_row_take(partition);
        if (extras != NULL) {
            extras->index = index;
        }
        roaring_bitmap_add(partition->members, index);
        partition->samples++;
        tqi_t_ready_join(partition, sample->row);
    }
}

/* Makes the plan real. Cannot fail. */
static void publish_commit(tqi_table_plan *plan)
{
    tqi_t_partition_born(plan->partition);
    publish_join(plan);
    for (size_t i = 0; i < plan->n_ranges; i++) {
        const tqi_table_batch_block *block = &plan->batch->blocks[i];
        plan->handles[i] = tqi_t_block_add(plan->table, block, plan->ranges[i]->owner, plan->partition);
    }
    tqi_t_plan_link(plan);
    /* Blocks without a linked cell are dead now, and the ranges may end. */
    for (size_t i = 0; i < plan->n_ranges; i++) {
        tqi_t_block_unref(plan->table, plan->handles[i]);
        tqi_t_range_use(plan->table, plan->ranges[i]);
    }
    plan->committed = true;
}

static int publish_describe(tqi_table_plan *plan, tqi_table_result *result, tq_error *err)
{
    int rc = tqi_t_describe_samples(plan->partition, plan->rows, plan->n, true, true, result, err);

    return rc == TQ_OK ? tqi_t_plan_describe(plan, result, err) : rc;
}

/* Whether all samples have (or had, and lost) the field, which is not published now. */
static bool publish_is_other(const tqi_table_plan *plan, const tqi_table_field *field)
{
    for (size_t i = 0; i < plan->n_fields; i++) {
        if (plan->fields[i].field == field) {
            return false;
        }
    }
    for (size_t i = 0; i < plan->n; i++) {
        if (tqi_t_cell(field, plan->rows[i].row).block == TQI_BLOCK_NONE) {
            return false;
        }
    }
    return true;
}

/* New samples have no other fields. */
static int publish_others(const tqi_table_plan *plan, tqi_table_result *result, tq_error *err)
{
    const tqi_table_field *field;
    size_t n = 0;

    if (plan->n_fresh > 0) {
        return TQ_OK;
    }
    DL_FOREACH (plan->partition->known, field) {
        n += publish_is_other(plan, field);
    }
    result->other_fields = tqi_region_zero(&result->region, n, sizeof(*result->other_fields));
    if (result->other_fields == NULL) {
        return tqi_error_nomem(err, "reply");
    }
    DL_FOREACH (plan->partition->known, field) {
        if (result->n_other_fields == n || !publish_is_other(plan, field)) {
            continue;
        }
        const char *name = tqi_region_string(&result->region, field->name);
        if (name == NULL) {
            return tqi_error_nomem(err, "reply");
        }
        result->other_fields[result->n_other_fields++] = name;
    }
    return TQ_OK;
}

int tqi_table_publish(tqi_table *table, const tqi_table_publish_args *publish, tqi_table_result *result, tq_error *err)
{
    tqi_table_plan plan;
    int rc = tqi_t_plan_begin(&plan, table, publish->batch, publish->naming, err);

    table->operation++;
    if (rc == TQ_OK) {
        rc = tqi_t_plan_samples(&plan, publish->create, err);
    }
    if (rc == TQ_OK) {
        rc = tqi_t_plan_tags(&plan, err);
    }
    if (rc == TQ_OK) {
        rc = tqi_t_plan_blocks(&plan, publish->session, err);
    }
    if (rc == TQ_OK) {
        rc = tqi_t_plan_fields(&plan, err);
    }
    if (rc == TQ_OK) {
        rc = publish_describe(&plan, result, err);
    }
    if (rc == TQ_OK && publish->other_fields) {
        rc = publish_others(&plan, result, err);
    }
    if (rc == TQ_OK && publish->accept != NULL) {
        rc = publish->accept(result, publish->accept_arg, err);
    }
    if (rc != TQ_OK) {
        tqi_table_result_fini(result);
    } else if (plan.n > 0 || plan.n_ranges > 0) {
        publish_commit(&plan);
    }
    tqi_t_plan_fini(&plan);
    return rc;
}

int tqi_table_reserve_for_tests(tqi_table *table, const char *partition, size_t n, const char *const *keys,
                                const char *const *groups, tqi_table_result *result, tq_error *err)
{
    tqi_table_batch batch = {.partition = partition, .n = n, .keys = keys, .groups = groups};
    tqi_table_publish_args publish = {
        .batch = &batch,
        .naming = keys != NULL ? TQI_TABLE_BY_KEY : TQI_TABLE_NEW,
        .create = true,
    };

    return tqi_table_publish(table, &publish, result, err);
}
