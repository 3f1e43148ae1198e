/*
 * partition.c - partitions: their life cycle, their rows, and their status. A partition exists from the first write to
 * it until it is cleared. Its record may begin earlier or live longer: while a view of it is held, or a publish to it
 * is being planned.
 */
#include <utlist.h>

#include "base/error.h"
#include "base/hash.h"
#include "base/limits.h"
#include "base/type.h"
#include "table/claim.h"
#include "table/field.h"
#include "table/sample.h"

tqi_table_partition *tqi_t_partition_lookup(const tqi_table *table, const char *name)
{
    tqi_table_partition *partition;

    HASH_FIND(hh, table->partitions, name, strlen(name), partition);
    return partition;
}

int tqi_t_partition_make(tqi_table *table, const char *name, tqi_table_partition **out, tq_error *err)
{
    tqi_table_partition *partition;
    size_t size;
    int rc = tqi_check_name("partition", name, TQ_NAME_MAX, err);

    if (rc != TQ_OK) {
        return rc;
    }
    if (HASH_COUNT(table->partitions) >= tqi_limits.partitions) {
        tqi_limit_reached(TQI_LIMIT_partitions);
        return tqi_error_set(err, TQ_EINVAL,
                             "partition '%s': there are %llu partitions, which is the most "
                             "(limits.partitions): clear some, or start the system with more",
                             name, (unsigned long long)tqi_limits.partitions);
    }
    size = strlen(name);
    partition = calloc(1, sizeof(*partition) + size + 1);
    if (partition == NULL) {
        return tqi_error_nomem(err, "partition");
    }
    partition->table = table;
    partition->number = ++table->last_partition;
    memcpy(partition->name, name, size);
    partition->members = roaring_bitmap_create();
    partition->lost = roaring_bitmap_create();
    if (partition->members != NULL && partition->lost != NULL &&
        TQI_HASH_ADD_KEYPTR(table->partitions, partition->name, size, partition)) {
        *out = partition;
        return TQ_OK;
    }
    if (partition->members != NULL) {
        roaring_bitmap_free(partition->members);
    }
    if (partition->lost != NULL) {
        roaring_bitmap_free(partition->lost);
    }
    free(partition);
    return tqi_error_nomem(err, "partition");
}

int tqi_t_partition_get(tqi_table *table, const char *name, tqi_table_partition **out, tq_error *err)
{
    int rc = tqi_check_name("partition", name, TQ_NAME_MAX, err);

    if (rc != TQ_OK) {
        return rc;
    }
    *out = tqi_t_partition_lookup(table, name);
    return *out != NULL ? TQ_OK : tqi_t_partition_make(table, name, out, err);
}

void tqi_t_partition_born(tqi_table_partition *partition)
{
    if (!partition->exists) {
        partition->exists = true;
        partition->loaded_us = 0;
        partition->next_ordinal = partition->table->first_ordinal;
        DL_APPEND(partition->table->existing, partition);
    }
}

void tqi_t_partition_gc(tqi_table_partition *partition)
{
    if (partition->exists || partition->plans > 0 || partition->views != NULL) {
        return;
    }
    HASH_DEL(partition->table->partitions, partition);
    roaring_bitmap_free(partition->members);
    roaring_bitmap_free(partition->lost);
    free(partition->free_rows);
    free(partition);
}

/* --- rows ----------------------------------------------------------------- */

int tqi_t_rows_reserve(tqi_table_partition *partition, size_t n, tq_error *err)
{
    size_t fresh = n > partition->n_free_rows ? n - partition->n_free_rows : 0;
    size_t need = partition->rows + fresh;
    tqi_table_set *set;
    int rc;

    if (need > partition->row_capacity) {
        /* Half as much again, so that a field's array wastes little. */
        size_t capacity = partition->row_capacity + partition->row_capacity / 2;
        uint32_t *rows;

        capacity = need > capacity ? need : capacity;
        rows = realloc(partition->free_rows, capacity * sizeof(*rows));
        if (rows == NULL) {
            return tqi_error_nomem(err, "rows");
        }
        partition->free_rows = rows;
        partition->row_capacity = capacity;
    }
    for (set = partition->sets; set != NULL; set = set->hh.next) {
        rc = tqi_t_set_reserve(set, need, err);
        if (rc != TQ_OK) {
            return rc;
        }
    }
    return TQ_OK;
}

uint32_t tqi_t_row_peek(const tqi_table_partition *partition, uint32_t i)
{
    if (i < partition->n_free_rows) {
        return partition->free_rows[partition->n_free_rows - 1 - i];
    }
    return partition->rows + (i - partition->n_free_rows);
}

uint32_t tqi_t_row_take(tqi_table_partition *partition)
{
    if (partition->n_free_rows > 0) {
        return partition->free_rows[--partition->n_free_rows];
    }
    return partition->rows++;
}

void tqi_t_row_free(tqi_table_partition *partition, uint32_t row)
{
    partition->free_rows[partition->n_free_rows++] = row;
    if (partition->samples == 0) {
        partition->rows = 0;
        partition->n_free_rows = 0;
    }
}

/* --- clearing ------------------------------------------------------------- */

static void part_clear_samples(tqi_table_partition *partition)
{
    roaring_uint32_iterator_t it;
    uint32_t indexes[256];
    uint32_t n;

    while (partition->samples > 0) {
        roaring_init_iterator(partition->members, &it);
        n = roaring_read_uint32_iterator(&it, indexes, 256);
        for (uint32_t i = 0; i < n; i++) {
            tqi_t_sample_clear(partition, indexes[i]);
        }
    }
}

static void part_end(tqi_table_partition *partition)
{
    part_clear_samples(partition);
    free(partition->free_rows);
    partition->free_rows = NULL;
    partition->row_capacity = 0;
    if (partition->exists) {
        partition->exists = false;
        DL_DELETE(partition->table->existing, partition);
    }
}

int tqi_table_clear_partition(tqi_table *table, const char *name, uint32_t *cleared, tq_error *err)
{
    tqi_table_partition *partition;
    int rc = tqi_check_name("partition", name, TQ_NAME_MAX, err);

    *cleared = 0;
    if (rc != TQ_OK) {
        return rc;
    }
    table->operation++;
    partition = tqi_table_find_partition(table, name);
    if (partition != NULL) {
        *cleared = partition->samples;
        part_end(partition);
        tqi_t_views_reset(partition);
        tqi_t_partition_gc(partition);
    }
    return TQ_OK;
}

void tqi_t_partition_destroy(tqi_table_partition *partition)
{
    part_end(partition);
    tqi_t_views_destroy(partition);
    tqi_t_partition_gc(partition);
}

int tqi_table_clear_indexes(tqi_table *table, const char *name, const uint32_t *indexes, const uint32_t *incarnations,
                            size_t n, uint32_t *cleared, tq_error *err)
{
    tqi_table_partition *partition;
    int rc = tqi_check_name("partition", name, TQ_NAME_MAX, err);

    *cleared = 0;
    if (rc != TQ_OK) {
        return rc;
    }
    table->operation++;
    partition = tqi_table_find_partition(table, name);
    for (size_t i = 0; partition != NULL && i < n; i++) {
        if (tqi_t_member(partition, indexes[i], incarnations != NULL ? incarnations[i] : 0) != NULL) {
            tqi_t_sample_clear(partition, indexes[i]);
            ++*cleared;
        }
    }
    return TQ_OK;
}

int tqi_table_clear_keys(tqi_table *table, const char *name, const char *const *keys, size_t n, uint32_t *cleared,
                         tq_error *err)
{
    tqi_table_partition *partition;
    int rc = tqi_check_name("partition", name, TQ_NAME_MAX, err);

    *cleared = 0;
    if (rc != TQ_OK) {
        return rc;
    }
    table->operation++;
    partition = tqi_table_find_partition(table, name);
    for (size_t i = 0; partition != NULL && i < n; i++) {
        const tqi_table_extras *extras = keys[i] != NULL ? tqi_t_key_find(partition, keys[i]) : NULL;
        if (extras != NULL) {
            tqi_t_sample_clear(partition, extras->index);
            ++*cleared;
        }
    }
    return TQ_OK;
}

/* --- reading -------------------------------------------------------------- */

tqi_table_partition *tqi_table_next_partition(tqi_table *table, const tqi_table_partition *after)
{
    return after == NULL ? table->existing : after->next;
}

tqi_table_partition *tqi_table_find_partition(tqi_table *table, const char *name)
{
    tqi_table_partition *partition = name != NULL ? tqi_t_partition_lookup(table, name) : NULL;

    return partition != NULL && partition->exists ? partition : NULL;
}

const char *tqi_table_partition_name(const tqi_table_partition *partition)
{
    return partition->name;
}

uint32_t tqi_table_partition_samples(const tqi_table_partition *partition)
{
    return partition->samples;
}

uint64_t tqi_table_partition_bytes(const tqi_table_partition *partition)
{
    return partition->bytes;
}

uint32_t tqi_table_partition_lost(const tqi_table_partition *partition, uint32_t *out, uint32_t max)
{
    roaring_uint32_iterator_t it;

    if (max > 0) {
        roaring_init_iterator(partition->lost, &it);
        roaring_read_uint32_iterator(&it, out, max);
    }
    return (uint32_t)roaring_bitmap_get_cardinality(partition->lost);
}

/* Kind and dtype of the existing rows; if some have their own types, only a walk can tell. */
static void part_types(const tqi_table_field *field, tqi_table_field_info *out)
{
    uint32_t found = 0;

    for (uint32_t row = 0; field->foreign > 0 && row < field->capacity && !out->mixed; row++) {
        const tqi_table_cell *cell = &field->cells[row];
        uint32_t type;
        if (!tqi_t_produced(cell->block) || !tqi_t_cell_filled(field, cell)) {
            continue;
        }
        type = tqi_t_cell_type(field, cell);
        out->mixed = found != 0 && type != found;
        found = type;
    }
    if (found != 0 && !out->mixed) {
        out->kind = tqi_type_kind(found);
        out->dtype = tqi_type_dtype(found);
    }
}

bool tqi_table_partition_field(const tqi_table_partition *partition, size_t i, tqi_table_field_info *out)
{
    const tqi_table_field *field = partition->known;
    uint64_t room;

    for (; field != NULL && i > 0; i--) {
        field = field->next;
    }
    if (field == NULL) {
        return false;
    }
    *out = (tqi_table_field_info){
        .name = field->name,
        .kind = field->kind,
        .dtype = field->dtype,
        .ragged = field->ragged,
        .ragged_dim = field->ragged_dim,
        .produced = field->produced,
        .lost = field->lost,
    };
    part_types(field, out);
    if (!field->ragged) {
        out->shape = tqi_t_shape_dims(partition->table, field->shape, &room, &out->ndim);
        out->shape = out->shape == &room ? &field->dim : out->shape;
    }
    return true;
}

void tqi_table_partition_each_task(const tqi_table_partition *partition,
                                   void (*fn)(const tqi_table_task_info *info, void *arg), void *arg)
{
    const tqi_table_task *task;

    for (task = partition->tasks; task != NULL; task = task->hh.next) {
        tqi_table_task_info info = {.name = task->name, .consumed = task->n_consumed};
        const tqi_table_view *view;
        for (view = task->views; view != NULL; view = view->task_next) {
            info.ready = view->count > info.ready ? view->count : info.ready;
        }
        fn(&info, arg);
    }
}

bool tqi_table_partition_task(const tqi_table_partition *partition, size_t i, const char **name, uint32_t *consumed)
{
    const tqi_table_task *task = partition->tasks;

    for (; task != NULL && i > 0; i--) {
        task = task->hh.next;
    }
    if (task == NULL) {
        return false;
    }
    *name = task->name;
    *consumed = task->n_consumed;
    return true;
}
