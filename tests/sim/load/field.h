/*
 * field.h - the fields that workloads put: types, shapes, and columns of cells that describe themselves.
 *
 * A row of a field of values is one msgpack value: bytes (bin 32) that hold the cell.
 */
#ifndef TQ_SIM_FIELD_H
#define TQ_SIM_FIELD_H

#include "load/load.h"
#include "oracle/history.h"

typedef struct load_type {
    tq_kind kind;
    tq_dtype dtype;
} load_type;

typedef struct load_field {
    const char *name;
    load_type types[3]; /* of which a put draws one, for the whole column */
    uint32_t n_types;
    uint32_t ndim; /* of a row; dims: the first is drawn in [least, most] elements, the others are `inner` */
    bool ragged;   /* each row draws its own first dim; else the whole system has `most` */
    uint32_t least;
    uint32_t most;
    uint32_t inner;
} load_field;

/* All of them. */
extern const load_field load_fields[];
extern const uint32_t load_fields_count;
/* The field of that name; NULL: unknown. */
const load_field *load_field_of(const char *name);

/* A column with its memory, on the heap of the process. */
typedef struct load_column {
    tq_column column;
    uint8_t *bytes;
    tq_slice *slices;
    uint64_t *dims;
    uint64_t shape[2];
} load_column;

/* How large the rows of ragged fields are. */
typedef enum load_size {
    LOAD_SMALL, /* mostly a few elements */
    LOAD_USUAL, /* up to the field's most */
    LOAD_LARGE  /* usual, or 64 KiB each */
} load_size;

/* Makes the column of field number f of a put; records lengths and type in the op. rows: cell_row_* of each row. */
void load_column_make(load_column *out, history_op *put, uint32_t f, const uint64_t *rows, load_size size,
                      sim_chance *chance);
void load_column_free(load_column *column);

/* Bytes of the cell in a row of `size` bytes of that kind, and where it begins; false if the row is not as put. */
bool load_row_cell(tq_kind kind, const uint8_t *row, size_t size, const uint8_t **cell, size_t *length);
/* Shape of the i-th row of a put's field, as put. Returns ndim. */
uint32_t load_row_shape(const load_field *field, const load_type *type, uint32_t length, uint64_t dims[2]);

#endif
