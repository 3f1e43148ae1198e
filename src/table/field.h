/*
 * field.h - fields, their cells, and the shapes of rows.
 */
#ifndef TQI_TABLE_FIELD_H
#define TQI_TABLE_FIELD_H

#include "table/records.h"

/* --- field.c -------------------------------------------------------------- */

tqi_table_field *tqi_t_field_find(const tqi_table_partition *partition, const char *name); /* known or not */
int tqi_t_field_get(tqi_table_partition *partition, const char *name, tqi_table_field **out, tq_error *err);
/* Frees it if it has neither schema nor field set nor plan. */
void tqi_t_field_gc(tqi_table_field *field);
int tqi_t_field_reserve(tqi_table_field *field, size_t rows, tq_error *err);
/* Gives the field a schema; takes over the reference to the shape (none: ragged). Cannot fail. */
void tqi_t_field_learn(tqi_table_field *field, uint8_t kind, tq_dtype dtype, uint32_t shape);
/* Notes which dim of its rows is ragged, and the shape that they are compared with. */
void tqi_t_field_set_ragged_dim(tqi_table_field *field, uint8_t dim, uint32_t like);
/* Sets the type of its rows from now on, except those with their own types. No row of the old type with bytes may be
 * left. */
void tqi_t_field_set_type(tqi_table_field *field, uint32_t type);
static inline uint32_t tqi_t_field_type(const tqi_table_field *field)
{
    return tqi_type_pack(field->kind, field->dtype);
}
static inline uint32_t tqi_t_cell_type(const tqi_table_field *field, const tqi_table_cell *cell);
/* Whether the row has a say in its field's type: a tensor without elements does not. */
bool tqi_t_cell_filled(const tqi_table_field *field, const tqi_table_cell *cell);
/* Counts a produced cell by its type. */
void tqi_t_cell_count(tqi_table_field *field, const tqi_table_cell *cell);
/* Removes what the row has before its field's type changes; a cell that counts as produced takes its place until
 * another one is linked. */
void tqi_t_cell_blank(tqi_table_field *field, uint32_t row);
/* From now on its rows have their own shapes. */
void tqi_t_field_make_ragged(tqi_table_field *field);
/* Sets the cell of a row to a block or opaque bytes. Takes over the counted shape (and the bytes); counts the block;
 * releases what was there; updates readiness. Cannot fail. */
void tqi_t_cell_link(tqi_table_field *field, uint32_t index, uint32_t row, tqi_table_cell cell);
/* Sets the cell of a row to `mark` (TQI_BLOCK_NONE or TQI_BLOCK_LOST). The field may lose its schema with
 * its last cell, but it is not freed: call gc. Cannot fail. */
void tqi_t_cell_unlink(tqi_table_field *field, uint32_t index, uint32_t row, uint32_t mark);
uint64_t tqi_t_cell_bytes(const tqi_table_field *field, const tqi_table_cell *cell);
/* The schema and the cells go; the field stays. */
void tqi_t_field_forget(tqi_table_field *field);
static inline tqi_table_cell tqi_t_cell(const tqi_table_field *field, uint32_t row)
{
    return row < field->capacity ? field->cells[row] : (tqi_table_cell){0, 0, 0};
}

/* --- shape.c -------------------------------------------------------------- */

/* Handle of a shape, with one reference. TQ_EINVAL if the number of elements overflows. */
int tqi_t_shape_get(tqi_table *table, uint32_t ndim, const uint64_t *dims, uint32_t *handle, tq_error *err);
/* The same for a row whose type differs from its field's; type 0: it does not. */
int tqi_t_shape_get_typed(tqi_table *table, uint32_t type, uint32_t ndim, const uint64_t *dims, uint32_t *handle,
                          tq_error *err);
/* The type that a row's shape must record if its field's type is `own`: 0 if it has that type, or is a tensor without
 * elements, which takes the dtype of its field. */
uint32_t tqi_t_relative_type(uint32_t own, uint32_t type, uint32_t ndim, const uint64_t *dims);
/* A row's own type, else 0. */
uint32_t tqi_t_shape_type(const tqi_table *table, uint32_t handle);
void tqi_t_shape_ref(tqi_table *table, uint32_t handle, uint64_t n);
void tqi_t_shape_unref(tqi_table *table, uint32_t handle, uint64_t n);
uint64_t tqi_t_shape_elements(const tqi_table *table, uint32_t handle);
/* Dims of a handle; `room` holds the one dim of those without a record. */
const uint64_t *tqi_t_shape_dims(const tqi_table *table, uint32_t handle, uint64_t *room, uint32_t *ndim);
/* Compares a row's shape with *like (which it becomes if there is none) and notes in *dim where they differ. Rows of
 * one dim or none, and those of another number of dims, say nothing. */
void tqi_t_shape_vary(const tqi_table *table, uint32_t handle, uint32_t *like, uint8_t *dim);
void tqi_t_shapes_fini(tqi_table *table);
static inline uint32_t tqi_t_cell_type(const tqi_table_field *field, const tqi_table_cell *cell)
{
    uint32_t type = field->foreign > 0 ? tqi_t_shape_type(field->partition->table, cell->shape) : 0;

    return type != 0 ? type : tqi_t_field_type(field);
}

#endif
