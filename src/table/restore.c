/*
 * restore.c - restoring a snapshot: samples, tasks, views, and the order of the steps. See restore.h.
 */
#include "table/restore.h"

#include "base/error.h"
#include "table/block.h"
#include "table/claim.h"
#include "table/sample.h"
#include "table/snapshot.h"

/* Indexes up to this are kept even if the table has never had that many. */
#define RESTORE_PLACES (UINT64_C(1) << 24)
/* More ordinals are left for new samples than will ever be needed, so they do not wrap. */
#define RESTORE_ORDINALS (UINT64_MAX / 2)

/* --- which samples -------------------------------------------------------- */

static int restore_gather(tqi_table_restore_part *part, tq_error *err)
{
    const tqi_table_snap_partition *in = part->in;
    size_t at = 0;

    for (size_t r = 0; r < in->n_rows; r++) {
        part->n += in->rows[r].batch.n;
    }
    if (part->n > UINT32_MAX / 2) {
        return tqi_error_set(err, TQ_EINVAL, "partition '%s': %zu samples are too many", in->name, part->n);
    }
    part->saved = calloc(part->n + 1, sizeof(*part->saved));
    part->indexes = calloc(part->n + 1, sizeof(*part->indexes));
    part->ordinals = calloc(part->n + 1, sizeof(*part->ordinals));
    part->extras = calloc(part->n + 1, sizeof(tqi_table_extras *));
    part->members = roaring_bitmap_create();
    if (part->saved == NULL || part->indexes == NULL || part->ordinals == NULL || part->extras == NULL ||
        part->members == NULL) {
        return tqi_error_nomem(err, "samples");
    }
    for (size_t r = 0; r < in->n_rows; r++) {
        const tqi_table_batch *batch = &in->rows[r].batch;
        if (batch->n > 0 && (batch->indexes == NULL || batch->ordinals == NULL)) {
            return tqi_error_set(err, TQ_EINVAL, "partition '%s': samples without %s", in->name,
                                 batch->indexes == NULL ? "indexes" : "ordinals");
        }
        for (size_t i = 0; i < batch->n; i++, at++) {
            part->saved[at] = batch->indexes[i];
            part->ordinals[at] = batch->ordinals[i];
            if (batch->indexes[i] == TQ_NO_INDEX || (at > 0 && part->saved[at - 1] >= batch->indexes[i])) {
                return tqi_error_set(err, TQ_EINVAL, "partition '%s': its samples do not ascend at %u", in->name,
                                     batch->indexes[i]);
            }
        }
    }
    return TQ_OK;
}

/* Position of a saved index in the part; -1: no such sample. */
static ptrdiff_t restore_find(const tqi_table_restore_part *part, uint32_t saved)
{
    size_t low = 0;
    size_t high = part->n;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (part->saved[middle] < saved) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < part->n && part->saved[low] == saved ? (ptrdiff_t)low : -1;
}

static bool restore_replaces(const tqi_table_restoring *run, const tqi_table_partition *partition)
{
    if (!run->ask->partial) {
        return true;
    }
    for (size_t p = 0; p < run->ask->n; p++) {
        if (run->parts[p].old == partition) {
            return true;
        }
    }
    return false;
}

/* Whether the index of a sample (NULL: never used) is free, or will be once the replaced partitions are gone. */
static bool restore_may_take(const tqi_table_restoring *run, const tqi_table_sample *sample)
{
    if (sample == NULL || sample->partition == NULL) {
        return sample == NULL || tqi_t_index_free(sample);
    }
    return restore_replaces(run, sample->partition);
}

/* Whether all samples can keep their indexes; TQ_EINVAL if two have the same one. */
static int restore_may_keep(tqi_table_restoring *run, uint64_t total, bool *keep, tq_error *err)
{
    const tqi_table *table = run->table;
    uint64_t most = total * 4 > RESTORE_PLACES ? total * 4 : RESTORE_PLACES;
    roaring_bitmap_t *all = roaring_bitmap_create();
    int rc = all != NULL ? TQ_OK : tqi_error_nomem(err, "samples");

    most = most > table->places ? most : table->places;
    *keep = true;
    for (size_t p = 0; rc == TQ_OK && p < run->ask->n; p++) {
        const tqi_table_restore_part *part = &run->parts[p];
        for (size_t i = 0; rc == TQ_OK && i < part->n; i++) {
            const tqi_table_sample *sample = tqi_t_sample(table, part->saved[i]);
            uint32_t place = part->saved[i] - table->first_index;
            *keep = *keep && place < most && restore_may_take(run, sample);
            run->end = place >= run->end ? (uint64_t)place + 1 : run->end;
            if (!roaring_bitmap_add_checked(all, part->saved[i])) {
                rc = tqi_error_set(err, TQ_EINVAL, "sample %u is in two partitions", part->saved[i]);
            }
        }
    }
    if (all != NULL) {
        roaring_bitmap_free(all);
    }
    return rc;
}

/* Gives each sample its index here. */
static int restore_number(tqi_table_restoring *run, tq_error *err)
{
    const tqi_table *table = run->table;
    uint64_t total = 0;
    uint64_t next = table->places;
    bool keep;
    int rc;

    for (size_t p = 0; p < run->ask->n; p++) {
        total += run->parts[p].n;
    }
    rc = restore_may_keep(run, total, &keep, err);
    if (rc != TQ_OK) {
        return rc;
    }
    if (!keep && next + total + 1 >= UINT32_MAX) {
        return tqi_error_set(err, TQ_EFULL, "no %llu sample indexes are left", (unsigned long long)total);
    }
    run->out.renumbered = !keep;
    for (size_t p = 0; p < run->ask->n; p++) {
        tqi_table_restore_part *part = &run->parts[p];
        for (size_t i = 0; i < part->n; i++) {
            next += !keep && table->first_index + (uint32_t)next == TQ_NO_INDEX;
            part->indexes[i] = keep ? part->saved[i] : table->first_index + (uint32_t)next++;
            roaring_bitmap_add(part->members, part->indexes[i]);
        }
    }
    run->end = keep ? run->end : next;
    run->out.samples = total;
    return TQ_OK;
}

/* --- keys, groups, tags --------------------------------------------------- */

static bool restore_given(const char *const *texts, size_t i)
{
    return texts != NULL && texts[i] != NULL && texts[i][0] != '\0';
}

/* The extras of a sample, made if it has none yet. */
static tqi_table_extras *restore_extras(tqi_table_restore_part *part, size_t row, const char *key)
{
    if (part->extras[row] == NULL) {
        part->extras[row] = tqi_t_extras_alloc(key);
        if (part->extras[row] != NULL) {
            part->extras[row]->index = part->indexes[row];
        }
    }
    return part->extras[row];
}

static int restore_names(tqi_table_restore_part *part, const tqi_table_batch *batch, size_t base, tq_error *err)
{
    for (size_t i = 0; i < batch->n; i++) {
        int rc = TQ_OK;
        if (restore_given(batch->keys, i)) {
            rc = tqi_check_name("key", batch->keys[i], TQ_KEY_MAX, err);
            if (rc == TQ_OK && restore_extras(part, base + i, batch->keys[i]) == NULL) {
                rc = tqi_error_nomem(err, "keys");
            }
        }
        if (rc == TQ_OK && restore_given(batch->groups, i)) {
            tqi_table_extras *extras = restore_extras(part, base + i, NULL);
            rc = tqi_check_name("group", batch->groups[i], TQ_NAME_MAX, err);
            if (rc == TQ_OK && (extras == NULL || tqi_t_group_join(part->made, extras, batch->groups[i]) != TQ_OK)) {
                rc = tqi_error_nomem(err, "groups");
            }
        }
        if (rc != TQ_OK) {
            return rc;
        }
    }
    return TQ_OK;
}

static int restore_tag(tqi_table_restore_part *part, size_t row, const tqi_table_batch_tag *in, const uint8_t *value,
                       uint32_t size, tq_error *err)
{
    tqi_table_extras *extras = restore_extras(part, row, NULL);
    tqi_table_tag *tag = extras != NULL ? tqi_t_tag_alloc(part->made, in->name, value, size) : NULL;
    tqi_table_tag *old;
    size_t before;

    if (tag == NULL) {
        return tqi_error_nomem(err, "tags");
    }
    old = tqi_t_tag_set(extras, tag, &before);
    if (old != NULL) {
        tqi_t_tag_free(part->made, old);
    }
    if (old != NULL || before >= TQ_TAGS_MAX) {
        return tqi_error_set(err, TQ_EINVAL, "partition '%s': tag '%s' %s", part->made->name, in->name,
                             old != NULL ? "is set twice" : "is one tag too many");
    }
    return TQ_OK;
}

static int restore_tags(tqi_table_restore_part *part, const tqi_table_batch *batch, size_t base, tq_error *err)
{
    for (size_t t = 0; t < batch->n_tags; t++) {
        const tqi_table_batch_tag *tag = &batch->tags[t];
        size_t at = 0;
        int rc = tqi_check_size("tag", tag->name, TQ_NAME_MAX, err);

        for (size_t i = 0; rc == TQ_OK && i < batch->n; i++) {
            if (tag->sizes[i] > tag->values_size - at) {
                return tqi_error_set(err, TQ_EINVAL,
                                     "partition '%s': the values of tag '%s' end "
                                     "early",
                                     part->made->name, tag->name);
            }
            if (tag->sizes[i] > 0) {
                rc = restore_tag(part, base + i, tag, tag->values + at, tag->sizes[i], err);
                at += tag->sizes[i];
            }
        }
        if (rc != TQ_OK) {
            return rc;
        }
    }
    return TQ_OK;
}

/* A sample with the place it joined in. */
typedef struct restore_joined {
    uint64_t ordinal;
    size_t row;
} restore_joined;

static int restore_joined_order(const void *left, const void *right)
{
    uint64_t a = ((const restore_joined *)left)->ordinal;
    uint64_t b = ((const restore_joined *)right)->ordinal;

    return a < b ? -1 : a > b;
}

/* Keys are listed in the order in which samples joined, so they are added in it. */
static int restore_keys(tqi_table_restore_part *part, tq_error *err)
{
    restore_joined *order = calloc(part->n + 1, sizeof(*order));
    int rc = TQ_OK;

    if (order == NULL) {
        return tqi_error_nomem(err, "keys");
    }
    if (part->in->next_ordinal > RESTORE_ORDINALS) {
        rc = tqi_error_set(err, TQ_EINVAL, "partition '%s': next ordinal %llu is out of range", part->made->name,
                           (unsigned long long)part->in->next_ordinal);
    }
    for (size_t i = 0; rc == TQ_OK && i < part->n; i++) {
        order[i] = (restore_joined){part->ordinals[i], i};
        part->ordinals[i] += part->made->table->first_ordinal;
    }
    if (rc == TQ_OK) {
        qsort(order, part->n, sizeof(*order), restore_joined_order);
    }
    for (size_t i = 0; rc == TQ_OK && i < part->n; i++) {
        tqi_table_extras *extras = part->extras[order[i].row];
        if (order[i].ordinal >= part->in->next_ordinal || (i > 0 && order[i - 1].ordinal == order[i].ordinal)) {
            rc = tqi_error_set(err, TQ_EINVAL, "partition '%s': ordinal %llu is %s", part->made->name,
                               (unsigned long long)order[i].ordinal,
                               order[i].ordinal >= part->in->next_ordinal ? "out of range" : "there twice");
        } else if (extras != NULL && extras->key_size > 0) {
            if (tqi_t_key_find(part->made, extras->key) != NULL) {
                rc = tqi_error_set(err, TQ_EINVAL, "partition '%s': key '%.200s' is there twice", part->made->name,
                                   extras->key);
            } else if (tqi_t_key_add(part->made, extras) != TQ_OK) {
                rc = tqi_error_nomem(err, "keys");
            }
        }
    }
    free(order);
    return rc;
}

/* --- tasks, views --------------------------------------------------------- */

static int restore_cached_pick(const tqi_table_restore_part *part, tqi_table_task *task,
                               const tqi_table_snap_cached_pick *in, tq_error *err)
{
    tqi_table_cached_pick *pick;
    int rc = tqi_check_size("cache slot", in->name, TQ_NAME_MAX, err);

    if (rc == TQ_OK && (in->n == 0 || in->n > part->n)) {
        rc = tqi_error_set(err, TQ_EINVAL, "task '%s': a cached pick of %zu samples", task->name, in->n);
    }
    if (rc == TQ_OK) {
        rc = tqi_t_cached_pick_make(task, in->name, (uint32_t)in->n, &pick, err);
    }
    for (size_t i = 0; rc == TQ_OK && i < in->n; i++) {
        ptrdiff_t row = restore_find(part, in->indexes[i]);
        if (row < 0) {
            return tqi_error_set(err, TQ_EINVAL, "task '%s': cached pick '%s' has sample %u, which is not there",
                                 task->name, in->name, in->indexes[i]);
        }
        pick->indexes[i] = part->indexes[row];
    }
    return rc;
}

static int restore_task(const tqi_table_restore_part *part, size_t t, tq_error *err)
{
    const tqi_table_snap_task *in = &part->in->tasks[t];
    tqi_table_task *task;
    size_t row = 0;
    int rc = tqi_check_name("task", in->name, TQ_NAME_MAX, err);

    if (rc != TQ_OK) {
        return rc;
    }
    if (tqi_t_task_find(part->made, in->name) != NULL) {
        return tqi_error_set(err, TQ_EINVAL, "partition '%s': task '%s' is there twice", part->made->name, in->name);
    }
    if (tqi_t_task_get(part->made, in->name, &task) != TQ_OK) {
        return tqi_error_nomem(err, "task");
    }
    task->kept = true;
    for (size_t r = 0; r < part->in->n_rows; r++) {
        const tqi_table_snap_rows *rows = &part->in->rows[r];
        for (size_t i = 0; i < rows->batch.n; i++, row++) {
            if (rows->n_consumed > 0 && rows->consumed[t * rows->batch.n + i] != 0) {
                roaring_bitmap_add(task->consumed, part->indexes[row]);
                task->n_consumed++;
            }
        }
    }
    for (size_t s = 0; rc == TQ_OK && s < in->n_cached_picks; s++) {
        rc = restore_cached_pick(part, task, &in->cached_picks[s], err);
    }
    return rc;
}

static int restore_views(tqi_table_restore_part *part, tq_error *err)
{
    tqi_table_view *view;
    int rc = TQ_OK;

    part->views = calloc((part->old != NULL ? HASH_COUNT(part->old->views) : 0) + (size_t)1, sizeof(*part->views));
    if (part->views == NULL) {
        return tqi_error_nomem(err, "views");
    }
    for (view = part->old != NULL ? part->old->views : NULL; rc == TQ_OK && view != NULL; view = view->hh.next) {
        if (view->refs > 0) {
            part->views[part->n_views].from = view;
            rc = tqi_t_view_twin(view, part->made, &part->views[part->n_views].to, err);
            part->n_views++;
        }
    }
    return rc;
}

/* --- all of it ------------------------------------------------------------ */

static int restore_name_order(const void *left, const void *right)
{
    const tqi_table_restore_part *const *a = left;
    const tqi_table_restore_part *const *b = right;

    return strcmp((*a)->in->name, (*b)->in->name);
}

static int restore_check_names(const tqi_table_restoring *run, tq_error *err)
{
    const tqi_table_restore_part **order = calloc(run->ask->n + 1, sizeof(tqi_table_restore_part *));
    int rc = TQ_OK;

    if (order == NULL) {
        return tqi_error_nomem(err, "partitions");
    }
    for (size_t p = 0; rc == TQ_OK && p < run->ask->n; p++) {
        rc = tqi_check_name("partition", run->parts[p].in->name, TQ_NAME_MAX, err);
        order[p] = &run->parts[p];
    }
    if (rc == TQ_OK) {
        qsort(order, run->ask->n, sizeof(tqi_table_restore_part *), restore_name_order);
    }
    for (size_t p = 1; rc == TQ_OK && p < run->ask->n; p++) {
        if (strcmp(order[p - 1]->in->name, order[p]->in->name) == 0) {
            rc = tqi_error_set(err, TQ_EINVAL, "partition '%s' is there twice", order[p]->in->name);
        }
    }
    free(order);
    return rc;
}

/* Makes the partition with everything that it will have. */
static int restore_make(tqi_table_restoring *run, tqi_table_restore_part *part, tq_error *err)
{
    size_t base = 0;
    int rc = tqi_t_partition_make(run->table, part->in->name, &part->made, err);

    if (rc == TQ_OK) {
        rc = tqi_t_rows_reserve(part->made, part->n, err);
    }
    if (rc != TQ_OK) {
        return rc;
    }
    part->made->rows = (uint32_t)part->n;
    part->made->samples = (uint32_t)part->n;
    for (size_t r = 0; rc == TQ_OK && r < part->in->n_rows; r++) {
        rc = restore_names(part, &part->in->rows[r].batch, base, err);
        if (rc == TQ_OK) {
            rc = restore_tags(part, &part->in->rows[r].batch, base, err);
        }
        base += part->in->rows[r].batch.n;
    }
    rc = rc == TQ_OK ? restore_keys(part, err) : rc;
    for (size_t t = 0; rc == TQ_OK && t < part->in->n_tasks; t++) {
        rc = restore_task(part, t, err);
    }
    rc = rc == TQ_OK ? tqi_t_restore_blocks(run, part, err) : rc;
    rc = rc == TQ_OK ? tqi_t_restore_fields(run, part, err) : rc;
    return rc == TQ_OK ? restore_views(part, err) : rc;
}

static int restore_plan(tqi_table_restoring *run, tq_error *err)
{
    size_t n_blocks = 0;
    int rc = restore_check_names(run, err);

    for (size_t p = 0; rc == TQ_OK && p < run->ask->n; p++) {
        run->parts[p].old = tqi_t_partition_lookup(run->table, run->parts[p].in->name);
        rc = restore_gather(&run->parts[p], err);
    }
    rc = rc == TQ_OK ? restore_number(run, err) : rc;
    for (size_t p = 0; rc == TQ_OK && p < run->ask->n; p++) {
        rc = restore_make(run, &run->parts[p], err);
        n_blocks += run->ask->relink ? 0 : run->parts[p].n_blocks;
    }
    rc = rc == TQ_OK ? tqi_t_samples_reserve(run->table, run->end, err) : rc;
    return rc == TQ_OK ? tqi_t_blocks_reserve(run->table, n_blocks, err) : rc;
}

static void restore_undo(tqi_table_restore_part *part)
{
    if (part->made == NULL) {
        return;
    }
    tqi_t_restore_undo_fields(part);
    for (size_t i = 0; i < part->n; i++) {
        if (part->extras[i] != NULL) {
            tqi_t_extras_free(part->made, part->extras[i]);
        }
    }
    tqi_t_views_destroy(part->made);
    tqi_t_partition_gc(part->made);
}

int tqi_table_restore(tqi_table *table, const tqi_table_restore_state *restore, tqi_table_restored *out, tq_error *err)
{
    tqi_table_restoring run = {.table = table, .ask = restore};
    size_t n = restore->n;
    int rc;

    table->operation++;
    run.parts = calloc(n + 1, sizeof(*run.parts));
    if (run.parts == NULL) {
        return tqi_error_nomem(err, "restore");
    }
    for (size_t p = 0; p < n; p++) {
        run.parts[p].in = &restore->partitions[p];
    }
    rc = restore_plan(&run, err);
    if (rc == TQ_OK) {
        tqi_t_restore_commit(&run);
        *out = run.out;
    }
    for (size_t p = 0; p < n; p++) {
        tqi_table_restore_part *part = &run.parts[p];
        if (rc != TQ_OK) {
            restore_undo(part);
        }
        if (part->members != NULL) {
            roaring_bitmap_free(part->members);
        }
        free(part->saved);
        free(part->indexes);
        free(part->ordinals);
        free(part->extras);
        free(part->blocks);
        free(part->views);
    }
    free(run.parts);
    return rc;
}
