/*
 * publish_plan.c - the samples, groups, tags and blocks of a planned publish; see publish_plan.h.
 */
#include "table/publish_plan.h"

#include "base/buf.h"
#include "base/error.h"
#include "table/block.h"
#include "table/missing.h"
#include "table/result.h"
#include "table/sample.h"

static bool plan_given(const char *const *texts, size_t i)
{
    return texts != NULL && texts[i] != NULL && texts[i][0] != '\0';
}

int tqi_t_plan_begin(tqi_table_plan *plan, tqi_table *table, const tqi_table_batch *batch, tqi_table_naming naming,
                     tq_error *err)
{
    int rc;

    memset(plan, 0, sizeof(*plan));
    plan->table = table;
    plan->batch = batch;
    plan->naming = naming;
    plan->n = batch->n;
    if (plan->n > UINT32_MAX / 2) {
        return tqi_error_set(err, TQ_EINVAL, "%zu samples are too many for one batch", plan->n);
    }
    rc = tqi_t_partition_get(table, batch->partition, &plan->partition, err);
    if (rc != TQ_OK) {
        return rc;
    }
    plan->partition->plans++;
    plan->rows = calloc(plan->n > 0 ? plan->n : 1, sizeof(*plan->rows));
    plan->fresh = calloc(plan->n > 0 ? plan->n : 1, sizeof(*plan->fresh));
    plan->fresh_row = calloc(plan->n > 0 ? plan->n : 1, sizeof(*plan->fresh_row));
    if (plan->rows == NULL || plan->fresh == NULL || plan->fresh_row == NULL) {
        return tqi_error_nomem(err, "publish");
    }
    return TQ_OK;
}

/* --- samples -------------------------------------------------------------- */

static int plan_old_index(tqi_table_plan *plan, size_t i, tq_error *err)
{
    const tqi_table_batch *batch = plan->batch;
    uint32_t incarnation = batch->incarnations != NULL ? batch->incarnations[i] : 0;
    const tqi_table_sample *sample = tqi_t_member(plan->partition, batch->indexes[i], incarnation);

    if (sample == NULL) {
        return tqi_t_cleared(plan->partition, batch->indexes, batch->incarnations, batch->n, err);
    }
    plan->rows[i] = tqi_t_row_of(batch->indexes[i], sample);
    return TQ_OK;
}

/* Extras of a row, made if it has none. */
static tqi_table_extras *plan_extras(tqi_table_plan *plan, size_t i)
{
    tqi_table_sample *sample = tqi_t_member(plan->partition, plan->rows[i].index, 0);
    tqi_table_extras *extras = plan->rows[i].extras;

    if (extras == NULL && sample != NULL) {
        extras = sample->extras; /* made for an earlier row of the same sample */
    }
    if (extras == NULL) {
        extras = tqi_t_extras_alloc(NULL);
        if (extras != NULL && sample != NULL) {
            extras->index = plan->rows[i].index;
            sample->extras = extras;
        }
    }
    plan->rows[i].extras = extras;
    return extras;
}

/* A new sample for row i; its index is known later. */
static int plan_new(tqi_table_plan *plan, size_t i, const char *key, tq_error *err)
{
    plan->rows[i] = (tqi_table_row){.index = TQ_NO_INDEX, .row = plan->n_fresh};
    if (key != NULL) {
        tqi_table_extras *extras = tqi_t_extras_alloc(key);
        if (extras == NULL) {
            return tqi_error_nomem(err, "sample");
        }
        plan->rows[i].extras = extras;
        if (tqi_t_key_add(plan->partition, extras) != TQ_OK) {
            plan->rows[i].extras = NULL;
            tqi_t_extras_free(plan->partition, extras);
            return tqi_error_nomem(err, "sample");
        }
        extras->index = TQ_NO_INDEX;
        extras->fresh = plan->n_fresh;
    }
    plan->fresh_row[plan->n_fresh++] = i;
    return TQ_OK;
}

static int plan_key(tqi_table_plan *plan, size_t i, bool create, tq_error *err)
{
    const char *key = plan_given(plan->batch->keys, i) ? plan->batch->keys[i] : NULL;
    const tqi_table_extras *known;
    int rc;

    if (key == NULL && plan->naming == TQI_TABLE_NEW) {
        return plan_new(plan, i, NULL, err);
    }
    rc = tqi_check_name("key", key, TQ_KEY_MAX, err);
    if (rc != TQ_OK) {
        return rc;
    }
    known = tqi_t_key_find(plan->partition, key);
    if (known == NULL) {
        if (!create) {
            return tqi_t_unknown_key(plan->partition, key, err);
        }
        return plan_new(plan, i, key, err);
    }
    if (plan->naming == TQI_TABLE_NEW) {
        return tqi_error_set(err, TQ_EEXIST, "key '%.200s' is in partition '%s' already", key, plan->partition->name);
    }
    if (known->index == TQ_NO_INDEX) {
        plan->rows[i] = plan->rows[plan->fresh_row[known->fresh]]; /* made by an earlier row */
    } else {
        plan->rows[i] = tqi_t_row_of(known->index, tqi_t_sample(plan->table, known->index));
    }
    return TQ_OK;
}

/* Gives the new samples their indexes, rows and ordinals. */
static int plan_place(tqi_table_plan *plan, tq_error *err)
{
    tqi_table_partition *partition = plan->partition;
    uint64_t ordinal = partition->exists ? partition->next_ordinal : plan->table->first_ordinal;
    int rc = tqi_t_samples_plan(plan->table, plan->n_fresh, plan->fresh, err);

    if (rc == TQ_OK) {
        rc = tqi_t_rows_reserve(partition, plan->n_fresh, err);
    }
    if (rc != TQ_OK) {
        return rc;
    }
    for (size_t i = 0; i < plan->n; i++) {
        tqi_table_row *row = &plan->rows[i];
        if (row->index == TQ_NO_INDEX) {
            uint32_t k = row->row; /* index among the new samples, from plan_new and plan_key */
            uint32_t place = plan->fresh[k] - plan->table->first_index;
            row->index = plan->fresh[k];
            row->incarnation = tqi_t_place(plan->table, place)->incarnation;
            row->ordinal = ordinal + k;
            row->row = tqi_t_row_peek(partition, k);
        }
        plan->max_row = row->row + 1 > plan->max_row ? row->row + 1 : plan->max_row;
    }
    return TQ_OK;
}

/* Groups: only new samples get one; naming the one that a sample has already is fine. */
static int plan_group(tqi_table_plan *plan, size_t i, tq_error *err)
{
    const char *name = plan->batch->groups[i];
    bool old = tqi_t_member(plan->partition, plan->rows[i].index, 0) != NULL;
    tqi_table_extras *extras = plan->rows[i].extras;
    int rc = tqi_check_name("group", name, TQ_NAME_MAX, err);

    if (rc != TQ_OK) {
        return rc;
    }
    if (extras != NULL && extras->group != NULL && strcmp(extras->group->name, name) == 0) {
        return TQ_OK;
    }
    if (old || (extras != NULL && extras->group != NULL)) {
        return tqi_error_set(err, TQ_EINVAL, "sample %u of partition '%s' is in %s%s%s, not in group '%s'",
                             plan->rows[i].index, plan->partition->name,
                             extras != NULL && extras->group != NULL ? "group '" : "no group",
                             extras != NULL && extras->group != NULL ? extras->group->name : "",
                             extras != NULL && extras->group != NULL ? "'" : "", name);
    }
    extras = plan_extras(plan, i);
    if (extras == NULL || tqi_t_group_join(plan->partition, extras, name) != TQ_OK) {
        return tqi_error_nomem(err, "group");
    }
    return TQ_OK;
}

int tqi_t_plan_samples(tqi_table_plan *plan, bool create, tq_error *err)
{
    const tqi_table_batch *batch = plan->batch;
    int rc = TQ_OK;

    if ((plan->naming == TQI_TABLE_BY_INDEX && batch->indexes == NULL && plan->n > 0) ||
        (plan->naming == TQI_TABLE_BY_KEY && batch->keys == NULL && plan->n > 0)) {
        return tqi_error_set(err, TQ_EINVAL, "the batch does not name its samples");
    }
    for (size_t i = 0; rc == TQ_OK && i < plan->n; i++) {
        rc = plan->naming == TQI_TABLE_BY_INDEX ? plan_old_index(plan, i, err) : plan_key(plan, i, create, err);
    }
    if (rc == TQ_OK) {
        rc = plan_place(plan, err);
    }
    for (size_t i = 0; rc == TQ_OK && i < plan->n; i++) {
        if (plan_given(batch->groups, i)) {
            rc = plan_group(plan, i, err);
        }
    }
    return rc;
}

/* --- tags ----------------------------------------------------------------- */

static int plan_tag(tqi_table_plan *plan, size_t i, const char *name, const uint8_t *value, uint32_t size, tq_error *err)
{
    tqi_table_extras *extras = plan_extras(plan, i);
    tqi_table_tag *tag;
    size_t before;

    if (extras == NULL || tqi_grow(&plan->tags, &plan->tags_capacity, plan->n_tags + 1, sizeof(*plan->tags)) != TQ_OK) {
        return tqi_error_nomem(err, "tag");
    }
    tag = tqi_t_tag_alloc(plan->partition, name, value, size);
    if (tag == NULL) {
        return tqi_error_nomem(err, "tag");
    }
    tqi_table_tag *old = tqi_t_tag_set(extras, tag, &before);
    plan->tags[plan->n_tags++] = (tqi_table_plan_tag){extras, tag, old};
    /* They are in a list, which is fine because they are few, and bounded. */
    if (before >= TQ_TAGS_MAX) {
        return tqi_error_set(err, TQ_EINVAL, "tag '%s': a sample has at most %d tags", name, TQ_TAGS_MAX);
    }
    return TQ_OK;
}

int tqi_t_plan_tags(tqi_table_plan *plan, tq_error *err)
{
    for (size_t t = 0; t < plan->batch->n_tags; t++) {
        const tqi_table_batch_tag *tag = &plan->batch->tags[t];
        size_t at = 0;
        int rc = tqi_check_size("tag", tag->name, TQ_NAME_MAX, err);

        for (size_t i = 0; rc == TQ_OK && i < plan->n; i++) {
            if (tag->sizes[i] > tag->values_size - at) {
                return tqi_error_set(err, TQ_EINVAL, "tag '%s': the values end before sample %zu", tag->name, i);
            }
            if (tag->sizes[i] > 0) {
                rc = plan_tag(plan, i, tag->name, tag->values + at, tag->sizes[i], err);
                at += tag->sizes[i];
            }
        }
        if (rc != TQ_OK) {
            return rc;
        }
        if (at != tag->values_size) {
            return tqi_error_set(err, TQ_EINVAL, "tag '%s': %zu bytes of values are left over", tag->name,
                                 tag->values_size - at);
        }
    }
    /* All rows of a sample see what a later one of them made. */
    for (size_t i = 0; plan->n_tags > 0 && i < plan->n; i++) {
        const tqi_table_sample *sample = tqi_t_member(plan->partition, plan->rows[i].index, 0);
        if (plan->rows[i].extras == NULL && sample != NULL) {
            plan->rows[i].extras = sample->extras;
        }
    }
    return TQ_OK;
}

/* --- blocks --------------------------------------------------------------- */

int tqi_t_block_refuse(tqi_table *table, const tqi_table_batch_block *block, tq_error *err)
{
    const tqi_table_owner *owner = tqi_table_owner_find(table, block->owner);

    /* A unit that was taken for lost comes back as the same run, but what was granted before ended with its record. */
    if (block->owner != NULL && (owner == NULL || owner->incarnation != block->owner_incarnation ||
                                 (int64_t)(block->id - owner->first_block) < 0)) {
        return tqi_error_set(err, TQ_ESTALE,
                             "block %llu: owner '%s' has ended since it was granted, or is another "
                             "run of it now",
                             (unsigned long long)block->id, block->owner);
    }
    return tqi_error_set(err, TQ_EINVAL, "block %llu is not an unpublished block of this session and owner '%s'",
                         (unsigned long long)block->id, block->owner != NULL ? block->owner : "");
}

static int plan_block(tqi_table_plan *plan, const tqi_table_session *session, const tqi_table_batch_block *block,
                      tq_error *err)
{
    tqi_table_range *range = session != NULL ? tqi_t_range_find(session, block->id) : NULL;

    if (range == NULL || block->owner == NULL || strcmp(range->owner->name, block->owner) != 0 ||
        range->owner->incarnation != block->owner_incarnation) {
        return tqi_t_block_refuse(plan->table, block, err);
    }
    if (block->locator_size > TQ_LOCATOR_MAX) {
        return tqi_error_set(err, TQ_EINVAL, "locator of block %llu has %zu bytes, at most %d are possible",
                             (unsigned long long)block->id, block->locator_size, TQ_LOCATOR_MAX);
    }
    /* Marking it detects a block that is named twice. */
    tqi_t_range_mark(range, block->id, true);
    plan->ranges[plan->n_ranges++] = range;
    return TQ_OK;
}

int tqi_t_plan_blocks(tqi_table_plan *plan, uint64_t session_id, tq_error *err)
{
    size_t n = plan->batch->n_blocks;
    const tqi_table_session *session = tqi_t_session_find(plan->table, session_id);
    int rc = TQ_OK;

    if (n == 0) {
        return TQ_OK;
    }
    plan->ranges = calloc(n, sizeof(tqi_table_range *));
    plan->handles = calloc(n, sizeof(*plan->handles));
    if (plan->ranges == NULL || plan->handles == NULL) {
        return tqi_error_nomem(err, "blocks");
    }
    for (size_t i = 0; rc == TQ_OK && i < n; i++) {
        rc = plan_block(plan, session, &plan->batch->blocks[i], err);
    }
    return rc == TQ_OK ? tqi_t_blocks_reserve(plan->table, n, err) : rc;
}

/* --- end ------------------------------------------------------------------ */

static void plan_undo_samples(tqi_table_plan *plan)
{
    for (uint32_t k = 0; k < plan->n_fresh; k++) {
        tqi_table_row *row = &plan->rows[plan->fresh_row[k]];
        if (row->extras != NULL) {
            tqi_t_extras_free(plan->partition, row->extras);
            row->extras = NULL;
        }
    }
    /* Extras made for samples that had none. */
    for (size_t i = 0; i < plan->n; i++) {
        tqi_table_sample *sample = tqi_t_member(plan->partition, plan->rows[i].index, 0);
        tqi_table_extras *extras = sample != NULL ? sample->extras : NULL;
        if (extras != NULL && extras->key_size == 0 && extras->group == NULL && extras->tags == NULL) {
            tqi_t_extras_free(plan->partition, extras);
            sample->extras = NULL;
        }
    }
}

static void plan_undo(tqi_table_plan *plan)
{
    while (plan->n_tags > 0) {
        const tqi_table_plan_tag *tag = &plan->tags[--plan->n_tags];
        tqi_t_tag_unset(tag->extras, tag->tag, tag->old);
        tqi_t_tag_free(plan->partition, tag->tag);
    }
    if (plan->rows != NULL) {
        plan_undo_samples(plan);
    }
    while (plan->n_ranges > 0) {
        plan->n_ranges--;
        tqi_t_range_mark(plan->ranges[plan->n_ranges], plan->batch->blocks[plan->n_ranges].id, false);
    }
}

void tqi_t_plan_fini(tqi_table_plan *plan)
{
    if (plan->partition == NULL) {
        return;
    }
    if (!plan->committed) {
        plan_undo(plan);
    }
    for (size_t i = 0; i < plan->n_tags; i++) {
        if (plan->tags[i].old != NULL) {
            tqi_t_tag_free(plan->partition, plan->tags[i].old);
        }
    }
    tqi_t_plan_fields_fini(plan);
    free(plan->rows);
    free(plan->fresh);
    free(plan->fresh_row);
    free(plan->tags);
    free(plan->ranges);
    free(plan->handles);
    plan->partition->plans--;
    tqi_t_partition_gc(plan->partition);
}
