/*
 * field.c - fields: their schemas and their cells.
 *
 * Everything that counts cells goes through tqi_t_cell_link and tqi_t_cell_unlink: produced and lost counts, bytes,
 * blocks, shapes, readiness. A schema lasts from the first cell to the last.
 */
#include "table/field.h"

#include <utlist.h>

#include "base/error.h"
#include "base/hash.h"
#include "base/limits.h"
#include "base/type.h"
#include "table/block.h"
#include "table/claim.h"

tqi_table_field *tqi_t_field_find(const tqi_table_partition *partition, const char *name)
{
    tqi_table_field *field;

    HASH_FIND(hh, partition->fields, name, strlen(name), field);
    return field;
}

int tqi_t_field_get(tqi_table_partition *partition, const char *name, tqi_table_field **out, tq_error *err)
{
    tqi_table_field *field;
    size_t size;
    int rc = tqi_check_name("field", name, TQ_NAME_MAX, err);

    if (rc != TQ_OK) {
        return rc;
    }
    *out = tqi_t_field_find(partition, name);
    if (*out != NULL) {
        return TQ_OK;
    }
    if (HASH_COUNT(partition->fields) >= tqi_limits.fields) {
        tqi_limit_reached(TQI_LIMIT_fields);
        return tqi_error_set(err, TQ_EINVAL,
                             "partition '%s': field '%s': it has %llu fields, which is the most "
                             "(limits.fields): use several partitions, or start the system with "
                             "more",
                             partition->name, name, (unsigned long long)tqi_limits.fields);
    }
    size = strlen(name);
    field = calloc(1, sizeof(*field) + size + 1);
    if (field == NULL) {
        return tqi_error_nomem(err, "field");
    }
    field->partition = partition;
    memcpy(field->name, name, size);
    if (!TQI_HASH_ADD_KEYPTR(partition->fields, field->name, size, field)) {
        free(field);
        return tqi_error_nomem(err, "field");
    }
    *out = field;
    return TQ_OK;
}

void tqi_t_field_gc(tqi_table_field *field)
{
    if (field->known || field->n_sets > 0 || field->plans > 0) {
        return;
    }
    HASH_DEL(field->partition->fields, field);
    free(field->cells);
    free(field->sets);
    free(field);
}

int tqi_t_field_reserve(tqi_table_field *field, size_t rows, tq_error *err)
{
    size_t capacity = field->partition->row_capacity;
    tqi_table_cell *cells;

    if (rows <= field->capacity) {
        return TQ_OK;
    }
    capacity = capacity < rows ? rows : capacity;
    cells = realloc(field->cells, capacity * sizeof(*cells));
    if (cells == NULL) {
        return tqi_error_nomem(err, "cells");
    }
    memset(cells + field->capacity, 0, (capacity - field->capacity) * sizeof(*cells));
    field->cells = cells;
    field->capacity = (uint32_t)capacity;
    return TQ_OK;
}

void tqi_t_field_learn(tqi_table_field *field, uint8_t kind, tq_dtype dtype, uint32_t shape)
{
    uint32_t ndim;

    field->known = true;
    field->kind = kind;
    field->dtype = dtype;
    field->ragged = shape == TQI_TABLE_SHAPE_NONE;
    field->shape = shape;
    field->dim = 0;
    field->like = TQI_TABLE_SHAPE_NONE;
    field->ragged_dim = 0;
    field->foreign = 0;
    field->filled = 0;
    if (!field->ragged) {
        (void)tqi_t_shape_dims(field->partition->table, shape, &field->dim, &ndim);
    }
    DL_APPEND(field->partition->known, field);
}

void tqi_t_field_set_ragged_dim(tqi_table_field *field, uint8_t dim, uint32_t like)
{
    field->ragged_dim = dim;
    if (like != field->like) {
        tqi_t_shape_ref(field->partition->table, like, 1);
        tqi_t_shape_unref(field->partition->table, field->like, 1);
        field->like = like;
    }
}

void tqi_t_field_make_ragged(tqi_table_field *field)
{
    tqi_t_shape_unref(field->partition->table, field->shape, 1);
    field->shape = TQI_TABLE_SHAPE_NONE;
    field->ragged = true;
}

void tqi_t_field_forget(tqi_table_field *field)
{
    DL_DELETE(field->partition->known, field);
    tqi_t_shape_unref(field->partition->table, field->shape, 1);
    tqi_t_shape_unref(field->partition->table, field->like, 1);
    field->shape = TQI_TABLE_SHAPE_NONE;
    field->like = TQI_TABLE_SHAPE_NONE;
    field->known = false;
    free(field->cells);
    field->cells = NULL;
    field->capacity = 0;
}

void tqi_t_field_set_type(tqi_table_field *field, uint32_t type)
{
    field->kind = tqi_type_kind(type);
    field->dtype = tqi_type_dtype(type);
}

uint64_t tqi_t_cell_bytes(const tqi_table_field *field, const tqi_table_cell *cell)
{
    uint64_t elements = tqi_t_shape_elements(field->partition->table, cell->shape);

    return field->foreign == 0 ? elements * (field->dtype.bits / 8u)
                               : elements * tqi_type_size(tqi_t_cell_type(field, cell));
}

/* Whether the cell is empty: see tqi_t_cell_blank. */
static bool field_is_blank(const tqi_table_cell *cell)
{
    return cell->block == TQI_BLOCK_OPAQUE && cell->offset == 0;
}

bool tqi_t_cell_filled(const tqi_table_field *field, const tqi_table_cell *cell)
{
    return tqi_type_kind(tqi_t_cell_type(field, cell)) == TQ_VALUE ||
           tqi_t_shape_elements(field->partition->table, cell->shape) > 0;
}

/* Counts or uncounts a produced cell by its type; returns its bytes. */
static uint64_t field_count(tqi_table_field *field, const tqi_table_cell *cell, uint32_t by)
{
    const tqi_table_shape *shape;
    uint64_t elements = cell->shape & ~TQI_TABLE_SHAPE_INLINE;

    if ((cell->shape & TQI_TABLE_SHAPE_INLINE) == 0 && cell->shape >= TQI_TABLE_SHAPE_FIRST) {
        shape = field->partition->table->shape_table[cell->shape - TQI_TABLE_SHAPE_FIRST];
        elements = shape->elements;
        if (shape->type != 0) {
            field->foreign += by;
            return elements * tqi_type_size((uint32_t)shape->type);
        }
    }
    if ((elements > 0 || field->kind == TQ_VALUE) && !field_is_blank(cell)) {
        field->filled += by;
    }
    return elements * (field->dtype.bits / 8u);
}

void tqi_t_cell_count(tqi_table_field *field, const tqi_table_cell *cell)
{
    (void)field_count(field, cell, 1);
}

/* One lost cell less in the row. */
static void field_found(tqi_table_field *field, uint32_t index, uint32_t row)
{
    const tqi_table_field *other;

    field->lost--;
    for (other = field->partition->known; other != NULL; other = other->next) {
        if (other != field && tqi_t_cell(other, row).block == TQI_BLOCK_LOST) {
            return;
        }
    }
    roaring_bitmap_remove(field->partition->lost, index);
}

/* Gives back what a produced cell holds. */
static void field_release(tqi_table_field *field, const tqi_table_cell *cell)
{
    tqi_table *table = field->partition->table;
    uint64_t bytes = field_count(field, cell, UINT32_MAX);

    field->partition->bytes -= bytes;
    tqi_t_shape_unref(table, cell->shape, 1);
    if (cell->block == TQI_BLOCK_OPAQUE) {
        free((void *)(uintptr_t)cell->offset);
    } else {
        tqi_t_block_unlink(table, cell->block, bytes);
    }
}

void tqi_t_cell_link(tqi_table_field *field, uint32_t index, uint32_t row, tqi_table_cell cell)
{
    tqi_table_cell old = field->cells[row];
    uint64_t bytes = field_count(field, &cell, 1);

    if (cell.block != TQI_BLOCK_OPAQUE) {
        tqi_t_block_link(tqi_t_block(field->partition->table, cell.block), row, bytes);
    }
    field->partition->bytes += bytes;
    field->cells[row] = cell;
    if (tqi_t_produced(old.block)) {
        field_release(field, &old);
        return;
    }
    field->produced++;
    field->partition->live_cells++;
    if (old.block == TQI_BLOCK_LOST) {
        field_found(field, index, row);
    }
    tqi_t_ready_gain(field, index, row);
}

void tqi_t_cell_blank(tqi_table_field *field, uint32_t row)
{
    tqi_table_cell old = tqi_t_cell(field, row);

    if (tqi_t_produced(old.block)) {
        field_release(field, &old);
        field->cells[row] = (tqi_table_cell){TQI_BLOCK_OPAQUE, TQI_TABLE_SHAPE_INLINE, 0};
    }
}

void tqi_t_cell_unlink(tqi_table_field *field, uint32_t index, uint32_t row, uint32_t mark)
{
    tqi_table_cell old = tqi_t_cell(field, row);

    if (old.block == mark) {
        return;
    }
    if (old.block == TQI_BLOCK_NONE) {
        return; /* what was never produced cannot be lost */
    }
    field->cells[row] = (tqi_table_cell){.block = mark};
    if (tqi_t_produced(old.block)) {
        field_release(field, &old);
        field->produced--;
        field->partition->live_cells--;
        tqi_t_ready_lose(field, index, row);
    } else {
        field_found(field, index, row);
    }
    if (mark == TQI_BLOCK_LOST) {
        field->lost++;
        roaring_bitmap_add(field->partition->lost, index);
    }
    if (field->produced == 0 && field->lost == 0) {
        tqi_t_field_forget(field);
    }
}
