/*
 * view.c - making and freeing views, and the field sets below them. ready.c keeps both up to date.
 */
#include <utlist.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/limits.h"
#include "table/claim.h"
#include "table/field.h"
#include "table/sample.h"

/* --- touched views -------------------------------------------------------- */

static void view_untouch(tqi_table_view *view)
{
    if (view->touched) {
        DL_DELETE2(view->key.set->partition->table->touched, view, touched_prev, touched_next);
        view->touched = false;
    }
}

/* --- field sets ----------------------------------------------------------- */

int tqi_t_set_reserve(tqi_table_set *set, size_t rows, tq_error *err)
{
    size_t capacity = set->partition->row_capacity;
    uint16_t *missing;

    if (rows <= set->capacity) {
        return TQ_OK;
    }
    capacity = capacity < rows ? rows : capacity;
    missing = realloc(set->missing, capacity * sizeof(*missing));
    if (missing == NULL) {
        return tqi_error_nomem(err, "field set");
    }
    set->missing = missing;
    set->capacity = capacity;
    return TQ_OK;
}

static void set_gc(tqi_table_set *set)
{
    if (set->views != NULL) {
        return;
    }
    if (TQI_HASH_HAS(set)) {
        HASH_DEL(set->partition->sets, set);
    }
    for (uint32_t i = 0; i < set->n_fields; i++) {
        tqi_table_field *field = set->fields[i];
        for (size_t j = 0; j < field->n_sets; j++) {
            if (field->sets[j] == set) {
                field->sets[j] = field->sets[--field->n_sets];
                break;
            }
        }
        tqi_t_field_gc(field);
    }
    if (set->ready != NULL) {
        roaring_bitmap_free(set->ready);
    }
    free(set->fields);
    free(set->missing);
    free(set);
}

/* Adds the fields to a new set and the set to them. */
static int set_link(tqi_table_set *set, const char *const *names, tq_error *err)
{
    for (uint32_t i = 0; names[i] != NULL; i++) {
        tqi_table_field *field;
        int rc = tqi_t_field_get(set->partition, names[i], &field, err);

        if (rc != TQ_OK) {
            return rc;
        }
        if (tqi_grow(&field->sets, &field->sets_capacity, field->n_sets + 1, sizeof(tqi_table_set *)) != TQ_OK) {
            tqi_t_field_gc(field);
            return tqi_error_nomem(err, "field set");
        }
        field->sets[field->n_sets++] = set;
        set->fields[set->n_fields++] = field;
    }
    return TQ_OK;
}

/* `names`: sorted, each once, NULL-terminated. */
static int set_make(tqi_table_partition *partition, const char *const *names, size_t n, size_t key_size,
                    tqi_table_set **out, tq_error *err)
{
    tqi_table_set *set = calloc(1, sizeof(*set) + key_size);
    size_t at = 0;
    int rc;

    if (set == NULL) {
        return tqi_error_nomem(err, "field set");
    }
    set->partition = partition;
    set->number = ++partition->table->last_number;
    set->key_size = key_size;
    for (size_t i = 0; i < n; i++) {
        memcpy(set->key + at, names[i], strlen(names[i]) + 1);
        at += strlen(names[i]) + 1;
    }
    set->ready = roaring_bitmap_create();
    set->fields = calloc(n + 1, sizeof(tqi_table_field *));
    if (set->ready == NULL || set->fields == NULL) {
        rc = tqi_error_nomem(err, "field set");
        goto fail;
    }
    rc = tqi_t_set_reserve(set, partition->rows, err);
    if (rc == TQ_OK) {
        rc = set_link(set, names, err);
    }
    if (rc != TQ_OK) {
        goto fail;
    }
    if (!TQI_HASH_ADD_KEYPTR(partition->sets, set->key, key_size, set)) {
        rc = tqi_error_nomem(err, "field set");
        goto fail;
    }
    tqi_t_set_fill(set);
    *out = set;
    return TQ_OK;

fail:
    set_gc(set);
    return rc;
}

static int set_compare(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int set_get(tqi_table_partition *partition, const char *const *fields, size_t n_fields, tqi_table_set **out,
                   tq_error *err)
{
    const char **names = calloc(n_fields + 1, sizeof(*names));
    char *key = NULL;
    size_t key_size = 0;
    size_t n = 0;
    int rc = TQ_OK;

    if (names == NULL) {
        return tqi_error_nomem(err, "field set");
    }
    memcpy(names, fields, n_fields * sizeof(*names));
    qsort(names, n_fields, sizeof(*names), set_compare);
    for (size_t i = 0; i < n_fields; i++) {
        if (n == 0 || strcmp(names[n - 1], names[i]) != 0) {
            names[n++] = names[i];
            key_size += strlen(names[i]) + 1;
        }
    }
    names[n] = NULL;
    key = malloc(key_size);
    if (key == NULL) {
        rc = tqi_error_nomem(err, "field set");
        goto done;
    }
    key_size = 0;
    for (size_t i = 0; i < n; i++) {
        memcpy(key + key_size, names[i], strlen(names[i]) + 1);
        key_size += strlen(names[i]) + 1;
    }
    HASH_FIND(hh, partition->sets, key, key_size, *out);
    if (*out == NULL) {
        rc = set_make(partition, names, n, key_size, out, err);
    }

done:
    free(key);
    free(names);
    return rc;
}

/* --- views ---------------------------------------------------------------- */

static void view_free(tqi_table_view *view)
{
    tqi_table_set *set = view->key.set;
    tqi_table_task *task = view->key.task;

    view_untouch(view);
    HASH_DEL(set->partition->views, view);
    DL_DELETE2(set->views, view, set_prev, set_next);
    DL_DELETE2(task->views, view, task_prev, task_next);
    roaring_bitmap_free(view->avail);
    free(view->list);
    free(view);
    set_gc(set);
    tqi_t_task_gc(task);
}

static int view_make(tqi_table_partition *partition, tqi_table_set *set, tqi_table_task *task, tqi_table_view **out,
                     tq_error *err)
{
    tqi_table_view *view = calloc(1, sizeof(*view));

    if (view == NULL) {
        return tqi_error_nomem(err, "view");
    }
    view->key.set = set;
    view->key.task = task;
    view->numbers[0] = set->number;
    view->numbers[1] = task->number;
    view->avail = roaring_bitmap_andnot(set->ready, task->consumed);
    if (view->avail == NULL || !TQI_HASH_ADD(partition->views, numbers, view)) {
        if (view->avail != NULL) {
            roaring_bitmap_free(view->avail);
        }
        free(view);
        return tqi_error_nomem(err, "view");
    }
    view->count = (uint32_t)roaring_bitmap_get_cardinality(view->avail);
    DL_APPEND2(set->views, view, set_prev, set_next);
    DL_APPEND2(task->views, view, task_prev, task_next);
    *out = view;
    return TQ_OK;
}

static int view_check(const char *const *fields, size_t n_fields, const char *task, tq_error *err)
{
    int rc = tqi_check_name("task", task, TQ_NAME_MAX, err);

    if (rc == TQ_OK && (n_fields == 0 || n_fields > UINT16_MAX)) {
        rc = tqi_error_set(err, TQ_EINVAL, "a claim names 1 to %d fields, not %zu", UINT16_MAX, n_fields);
    }
    for (size_t i = 0; rc == TQ_OK && i < n_fields; i++) {
        rc = tqi_check_name("field", fields[i], TQ_NAME_MAX, err);
    }
    return rc;
}

int tqi_table_view_get(tqi_table *table, const char *partition_name, const char *const *fields, size_t n_fields,
                       const char *task_name, tqi_table_view **out, tq_error *err)
{
    tqi_table_partition *partition;
    tqi_table_view_key key = {NULL, NULL};
    tqi_table_view *view = NULL;
    int rc = view_check(fields, n_fields, task_name, err);

    if (rc == TQ_OK) {
        rc = tqi_t_partition_get(table, partition_name, &partition, err);
    }
    if (rc != TQ_OK) {
        return rc;
    }
    rc = set_get(partition, fields, n_fields, &key.set, err);
    if (rc == TQ_OK && tqi_t_task_find(partition, task_name) == NULL &&
        HASH_COUNT(partition->tasks) >= tqi_limits.tasks) {
        tqi_limit_reached(TQI_LIMIT_tasks);
        rc = tqi_error_set(err, TQ_EINVAL,
                           "partition '%s': task '%s': it has %llu tasks, which is the most "
                           "(limits.tasks): use fewer, or start the system with more",
                           partition_name, task_name, (unsigned long long)tqi_limits.tasks);
    }
    if (rc == TQ_OK && tqi_t_task_get(partition, task_name, &key.task) != TQ_OK) {
        rc = tqi_error_nomem(err, "task");
    }
    if (rc == TQ_OK) {
        uint64_t numbers[2];
        /* They are hashed by their bytes. */
        memset(numbers, 0, sizeof(numbers));
        numbers[0] = key.set->number;
        numbers[1] = key.task->number;
        HASH_FIND(hh, partition->views, numbers, sizeof(numbers), view);
        if (view == NULL) {
            rc = view_make(partition, key.set, key.task, &view, err);
        }
    }
    if (rc != TQ_OK) {
        if (key.task != NULL) {
            tqi_t_task_gc(key.task);
        }
        if (key.set != NULL) {
            set_gc(key.set);
        }
        tqi_t_partition_gc(partition);
        return rc;
    }
    view->refs++;
    *out = view;
    return TQ_OK;
}

void tqi_table_view_unref(tqi_table_view *view)
{
    tqi_table_partition *partition;

    if (view == NULL || --view->refs > 0) {
        return;
    }
    view_untouch(view);
    view->user = NULL;
    partition = view->key.set->partition;
    if (!partition->exists) {
        view_free(view);
        tqi_t_partition_gc(partition);
    }
}

/* Frees the tasks without views of a partition that no longer exists. */
static void view_end_tasks(tqi_table_partition *partition)
{
    tqi_table_task *task, *next;

    HASH_ITER (hh, partition->tasks, task, next) {
        tqi_t_task_gc(task);
    }
}

void tqi_t_views_reset(tqi_table_partition *partition)
{
    tqi_table_view *view, *next_view;
    tqi_table_task *task;
    tqi_table_set *set;

    HASH_ITER (hh, partition->views, view, next_view) {
        if (view->refs == 0) {
            view_free(view);
        } else {
            free(view->list);
            view->list = NULL;
            view->list_capacity = 0;
            view->list_valid = false;
        }
    }
    view_end_tasks(partition);
    for (task = partition->tasks; task != NULL; task = task->hh.next) {
        tqi_t_task_reset(task);
    }
    for (set = partition->sets; set != NULL; set = set->hh.next) {
        free(set->missing);
        set->missing = NULL;
        set->capacity = 0;
    }
}

void tqi_t_views_destroy(tqi_table_partition *partition)
{
    tqi_table_view *view, *next;

    HASH_ITER (hh, partition->views, view, next) {
        view_free(view);
    }
    view_end_tasks(partition);
}

int tqi_t_view_twin(const tqi_table_view *view, tqi_table_partition *partition, tqi_table_view **out, tq_error *err)
{
    const tqi_table_set *like = view->key.set;
    const char **names = calloc(like->n_fields + (size_t)1, sizeof(*names));
    tqi_table_view_key key = {NULL, NULL};
    tqi_table_view *twin = NULL;
    int rc;

    if (names == NULL) {
        return tqi_error_nomem(err, "view");
    }
    for (uint32_t i = 0; i < like->n_fields; i++) {
        names[i] = like->fields[i]->name;
    }
    rc = set_get(partition, names, like->n_fields, &key.set, err);
    free(names);
    if (rc == TQ_OK && tqi_t_task_get(partition, view->key.task->name, &key.task) != TQ_OK) {
        rc = tqi_error_nomem(err, "task");
    }
    if (rc == TQ_OK) {
        rc = view_make(partition, key.set, key.task, &twin, err);
    }
    if (rc != TQ_OK && key.set != NULL) {
        set_gc(key.set);
    }
    *out = twin;
    return rc;
}

uint32_t tqi_table_view_ready(const tqi_table_view *view)
{
    return view->count;
}

void tqi_table_view_set_user(tqi_table_view *view, void *user)
{
    view->user = user;
}

void *tqi_table_view_user(const tqi_table_view *view)
{
    return view->user;
}
