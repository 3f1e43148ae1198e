/*
 * ready.c - which samples are ready for a task, kept up to date by every change of a cell, a sample or a task.
 *
 * Two levels: a field set counts per row how many of its fields are missing and keeps the samples with none missing;
 * the views of it (one per task) keep those that their task has not consumed. Consumption belongs to the task, so
 * taking a sample through one view takes it from all views of that task.
 */
#include <utlist.h>

#include "base/hash.h"
#include "table/claim.h"
#include "table/field.h"
#include "table/sample.h"

/* --- changes of one view -------------------------------------------------- */

static void view_add(tqi_table_view *view, uint32_t index)
{
    tqi_table *table = view->key.set->partition->table;

    roaring_bitmap_add(view->avail, index);
    view->count++;
    view->list_valid = false;
    if (view->refs > 0 && !view->touched) {
        view->touched = true;
        DL_APPEND2(table->touched, view, touched_prev, touched_next);
    }
}

static void view_remove(tqi_table_view *view, uint32_t index)
{
    if (roaring_bitmap_remove_checked(view->avail, index)) {
        view->count--;
        view->list_valid = false;
    }
}

/* --- changes of samples --------------------------------------------------- */

void tqi_t_ready_join(tqi_table_partition *partition, uint32_t row)
{
    tqi_table_set *set;

    for (set = partition->sets; set != NULL; set = set->hh.next) {
        set->missing[row] = (uint16_t)set->n_fields;
    }
}

static void set_add(tqi_table_set *set, uint32_t index)
{
    tqi_table_view *view;

    roaring_bitmap_add(set->ready, index);
    DL_FOREACH2 (set->views, view, set_next) {
        if (!roaring_bitmap_contains(view->key.task->consumed, index)) {
            view_add(view, index);
        }
    }
}

static void set_remove(tqi_table_set *set, uint32_t index)
{
    tqi_table_view *view;

    roaring_bitmap_remove(set->ready, index);
    DL_FOREACH2 (set->views, view, set_next) {
        view_remove(view, index);
    }
}

void tqi_t_ready_leave(tqi_table_partition *partition, uint32_t index, uint32_t row)
{
    tqi_table_set *set;
    tqi_table_task *task;

    for (set = partition->sets; set != NULL; set = set->hh.next) {
        if (set->missing[row] == 0) {
            set_remove(set, index);
            /* The cells are unlinked after this, which must not look like becoming unready again. */
            set->missing[row] = 1;
        }
    }
    for (task = partition->tasks; task != NULL; task = task->hh.next) {
        if (roaring_bitmap_remove_checked(task->consumed, index)) {
            task->n_consumed--;
        }
    }
}

void tqi_t_ready_gain(tqi_table_field *field, uint32_t index, uint32_t row)
{
    for (size_t i = 0; i < field->n_sets; i++) {
        if (--field->sets[i]->missing[row] == 0) {
            set_add(field->sets[i], index);
        }
    }
}

void tqi_t_ready_lose(tqi_table_field *field, uint32_t index, uint32_t row)
{
    for (size_t i = 0; i < field->n_sets; i++) {
        if (field->sets[i]->missing[row]++ == 0) {
            set_remove(field->sets[i], index);
        }
    }
}

void tqi_t_task_consume(tqi_table_task *task, uint32_t index)
{
    tqi_table_view *view;

    if (roaring_bitmap_add_checked(task->consumed, index)) {
        task->n_consumed++;
        DL_FOREACH2 (task->views, view, task_next) {
            view_remove(view, index);
        }
    }
}

void tqi_t_task_free_sample(tqi_table_task *task, uint32_t index)
{
    tqi_table_view *view;

    if (!roaring_bitmap_remove_checked(task->consumed, index)) {
        return;
    }
    task->n_consumed--;
    DL_FOREACH2 (task->views, view, task_next) {
        if (roaring_bitmap_contains(view->key.set->ready, index)) {
            view_add(view, index);
        }
    }
}

/* --- many samples at once ------------------------------------------------- */

void tqi_t_set_fill(tqi_table_set *set)
{
    roaring_uint32_iterator_t it;

    roaring_init_iterator(set->partition->members, &it);
    for (; it.has_value; roaring_advance_uint32_iterator(&it)) {
        uint32_t row = tqi_t_sample(set->partition->table, it.current_value)->row;
        uint16_t missing = 0;
        for (uint32_t i = 0; i < set->n_fields; i++) {
            missing += !tqi_t_produced(tqi_t_cell(set->fields[i], row).block);
        }
        set->missing[row] = missing;
        if (missing == 0) {
            roaring_bitmap_add(set->ready, it.current_value);
        }
    }
}

void tqi_t_views_fill(tqi_table_partition *partition)
{
    roaring_uint32_iterator_t it;
    tqi_table_view *view;
    tqi_table_set *set;

    for (set = partition->sets; set != NULL; set = set->hh.next) {
        tqi_t_set_fill(set);
        DL_FOREACH2 (set->views, view, set_next) {
            roaring_init_iterator(set->ready, &it);
            for (; it.has_value; roaring_advance_uint32_iterator(&it)) {
                if (!roaring_bitmap_contains(view->key.task->consumed, it.current_value)) {
                    view_add(view, it.current_value);
                }
            }
        }
    }
}

/* --- tasks ---------------------------------------------------------------- */

tqi_table_task *tqi_t_task_find(const tqi_table_partition *partition, const char *name)
{
    tqi_table_task *task;

    HASH_FIND(hh, partition->tasks, name, strlen(name), task);
    return task;
}

int tqi_t_task_get(tqi_table_partition *partition, const char *name, tqi_table_task **out)
{
    size_t size = strlen(name);
    tqi_table_task *task = tqi_t_task_find(partition, name);

    if (task == NULL) {
        task = calloc(1, sizeof(*task) + size + 1);
        if (task == NULL) {
            return TQ_ENOMEM;
        }
        task->partition = partition;
        task->number = ++partition->table->last_number;
        memcpy(task->name, name, size);
        task->consumed = roaring_bitmap_create();
        if (task->consumed == NULL || !TQI_HASH_ADD_KEYPTR(partition->tasks, task->name, size, task)) {
            if (task->consumed != NULL) {
                roaring_bitmap_free(task->consumed);
            }
            free(task);
            return TQ_ENOMEM;
        }
    }
    *out = task;
    return TQ_OK;
}

void tqi_t_cached_pick_free(tqi_table_task *task, tqi_table_cached_pick *pick)
{
    HASH_DEL(task->cached_picks, pick);
    free(pick);
}

void tqi_t_task_reset(tqi_table_task *task)
{
    roaring_uint32_iterator_t it;
    tqi_table_cached_pick *pick, *next;
    uint32_t indexes[256];
    uint32_t n;

    task->generation++;
    HASH_ITER (hh, task->cached_picks, pick, next) {
        tqi_t_cached_pick_free(task, pick);
    }
    while (task->n_consumed > 0) {
        roaring_init_iterator(task->consumed, &it);
        n = roaring_read_uint32_iterator(&it, indexes, 256);
        for (uint32_t i = 0; i < n; i++) {
            tqi_t_task_free_sample(task, indexes[i]);
        }
    }
}

void tqi_t_task_gc(tqi_table_task *task)
{
    if (task->views != NULL || (task->kept && task->partition->exists)) {
        return;
    }
    tqi_t_task_reset(task);
    while (task->claims != NULL) {
        tqi_table_claim *claim = task->claims;
        DL_DELETE2(task->claims, claim, task_prev, task_next);
        claim->task = NULL;
    }
    HASH_DEL(task->partition->tasks, task);
    roaring_bitmap_free(task->consumed);
    free(task);
}
