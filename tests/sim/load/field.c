/*
 * field.c - see field.h.
 */
#include "load/field.h"

#include "load/cell.h"

#include <stdlib.h>
#include <string.h>

#define FIELD_BIN   5 /* bytes before a cell in a row of values: bin 32 */
#define FIELD_LARGE (64u << 10)

/* clang-format off */
const load_field load_fields[] = {
    {.name = "prompt", .types = {{TQ_TENSOR, {TQ_INT, 64}}}, .n_types = 1, .ndim = 1, .ragged = true, .least = 1, .most = 64},
    {.name = "response", .types = {{TQ_TENSOR, {TQ_INT, 32}}}, .n_types = 1, .ndim = 1, .ragged = true, .most = 512},
    {.name = "reward", .types = {{TQ_TENSOR, {TQ_FLOAT, 32}}}, .n_types = 1},
    {.name = "score", .types = {{TQ_TENSOR, {TQ_FLOAT, 64}}}, .n_types = 1},
    {.name = "mask", .types = {{TQ_TENSOR, {TQ_BOOL, 8}}}, .n_types = 1, .ndim = 1, .ragged = true, .most = 512},
    {.name = "hidden", .types = {{TQ_TENSOR, {TQ_BFLOAT, 16}}}, .n_types = 1, .ndim = 2, .most = 12, .inner = 8},
    {.name = "frames", .types = {{TQ_TENSOR, {TQ_UINT, 8}}}, .n_types = 1, .ndim = 2, .ragged = true, .least = 1, .most = 40, .inner = 48},
    {.name = "text", .types = {{TQ_VALUE, {TQ_UINT, 8}}}, .n_types = 1, .ndim = 1, .ragged = true, .most = 4096},
    {.name = "blob", .types = {{TQ_TENSOR, {TQ_UINT, 8}}}, .n_types = 1, .ndim = 1, .ragged = true, .most = 4096},
    {.name = "page", .types = {{TQ_TENSOR, {TQ_UINT, 8}}}, .n_types = 1, .ndim = 1, .most = 16384},
    {.name = "tiny", .types = {{TQ_TENSOR, {TQ_UINT, 8}}}, .n_types = 1},
    {.name = "any", .types = {{TQ_TENSOR, {TQ_INT, 64}}, {TQ_TENSOR, {TQ_FLOAT, 32}}, {TQ_VALUE, {TQ_UINT, 8}}},
     .n_types = 3, .ndim = 1, .ragged = true, .least = 8, .most = 128,},
};
/* clang-format on */
const uint32_t load_fields_count = sizeof(load_fields) / sizeof(load_fields[0]);

const load_field *load_field_of(const char *name)
{
    for (uint32_t i = 0; i < load_fields_count; i++) {
        if (strcmp(load_fields[i].name, name) == 0) {
            return &load_fields[i];
        }
    }
    return NULL;
}

/* Elements of the first dim of a row. */
static uint32_t field_draw(const load_field *field, uint32_t element, load_size size, sim_chance *chance)
{
    uint32_t most = field->most;

    if (field->ndim == 0 || !field->ragged) {
        return field->most;
    }
    if (size == LOAD_LARGE) {
        return FIELD_LARGE / (element * (field->inner != 0 ? field->inner : 1));
    }
    if (size == LOAD_SMALL || (size == LOAD_USUAL && sim_one_in(chance, 2))) {
        most = most < field->least + 16 ? most : field->least + 16;
    }
    return (uint32_t)sim_between(chance, field->least, most);
}

static uint32_t field_row_bytes(const load_field *field, uint32_t element, uint32_t first)
{
    const uint32_t inner = field->ndim == 2 ? field->inner : 1;

    return field->ndim == 0 ? element : element * inner * first;
}

/* Cuts the column's bytes into up to three slices. */
static void field_slices(load_column *out, size_t total, sim_chance *chance)
{
    const size_t n = total < 3 ? 1 : 1 + sim_below(chance, 3);
    size_t at = 0;

    for (size_t i = 0; i < n; i++) {
        const size_t end = i + 1 == n ? total : at + sim_below(chance, total - at + 1);

        out->slices[i] = (tq_slice){.data = out->bytes + at, .size = end - at};
        at = end;
    }
    out->column.slices = out->slices;
    out->column.n_slices = n;
}

static void field_shapes(load_column *out, const load_field *field, const load_type *type, const uint32_t *lengths,
                         uint32_t n)
{
    uint64_t dims[2] = {0, 0};

    out->column.ndim = field->ndim;
    if (type->kind == TQ_VALUE || field->ragged) {
        for (uint32_t i = 0; i < n; i++) {
            (void)load_row_shape(field, type, lengths[i], dims);
            memcpy(out->dims + (size_t)i * field->ndim, dims, field->ndim * sizeof(dims[0]));
        }
        out->column.dims = out->dims;
    } else if (field->ndim > 0) {
        (void)load_row_shape(field, type, n > 0 ? lengths[0] : 0, out->shape);
        out->column.shape = out->shape;
    }
}

void load_column_make(load_column *out, history_op *put, uint32_t f, const uint64_t *rows, load_size size,
                      sim_chance *chance)
{
    const load_field *field = load_field_of(put->fields[f]);
    const uint8_t t = (uint8_t)sim_below(chance, field->n_types);
    const load_type *type = &field->types[t];
    const uint32_t element = type->dtype.bits / 8;
    const uint32_t head = type->kind == TQ_VALUE ? FIELD_BIN : 0;
    uint32_t *lengths = put->lengths + (size_t)f * put->n;
    size_t total = 0;
    uint8_t *to;

    size = size == LOAD_LARGE && !sim_one_in(chance, 4) ? LOAD_USUAL : size;
    memset(out, 0, sizeof(*out));
    for (uint32_t i = 0; i < put->n; i++) {
        lengths[i] = field_row_bytes(field, element, field_draw(field, element, size, chance));
        total += head + lengths[i];
    }
    put->types[f] = t;
    out->bytes = load_memory(total + 1);
    out->slices = load_memory(3 * sizeof(*out->slices));
    out->dims = load_memory(((size_t)put->n * field->ndim + 1) * sizeof(*out->dims));
    to = out->bytes;
    for (uint32_t i = 0; i < put->n; i++) {
        const cell_id id = {
            .writer = put->number,
            .partition = cell_hash(put->partition),
            .row = rows[i],
            .field = cell_hash(field->name),
        };

        if (head != 0) {
            to[0] = 0xc6;
            to[1] = (uint8_t)(lengths[i] >> 24);
            to[2] = (uint8_t)(lengths[i] >> 16);
            to[3] = (uint8_t)(lengths[i] >> 8);
            to[4] = (uint8_t)lengths[i];
        }
        cell_fill(to + head, lengths[i], &id);
        to += head + lengths[i];
    }
    out->column.name = field->name;
    out->column.kind = type->kind;
    out->column.dtype = type->dtype;
    out->column.rows = put->n;
    field_slices(out, total, chance);
    field_shapes(out, field, type, lengths, put->n);
}

void load_column_free(load_column *column)
{
    free(column->bytes);
    free(column->slices);
    free(column->dims);
}

bool load_row_cell(tq_kind kind, const uint8_t *row, size_t size, const uint8_t **cell, size_t *length)
{
    if (kind != TQ_VALUE) {
        *cell = row;
        *length = size;
        return true;
    }
    if (size < FIELD_BIN || row[0] != 0xc6) {
        return false;
    }
    *cell = row + FIELD_BIN;
    *length = (size_t)row[1] << 24 | (size_t)row[2] << 16 | (size_t)row[3] << 8 | row[4];
    return *length == size - FIELD_BIN;
}

uint32_t load_row_shape(const load_field *field, const load_type *type, uint32_t length, uint64_t dims[2])
{
    const uint32_t element = type->dtype.bits / 8;

    if (type->kind == TQ_VALUE) {
        dims[0] = (uint64_t)length + FIELD_BIN;
        return 1;
    }
    if (field->ndim == 1) {
        dims[0] = length / element;
    } else if (field->ndim == 2) {
        dims[0] = length / (element * field->inner);
        dims[1] = field->inner;
    }
    return field->ndim;
}
