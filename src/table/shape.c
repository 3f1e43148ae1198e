/*
 * shape.c - shapes of rows behind 32-bit handles.
 *
 * A row without dims, and a row with one dim below 2^31, need no record: the handle encodes them. So ragged columns of
 * one dim, the usual ones, cost nothing per length. Other shapes are kept once per value, reference-counted. A row
 * whose type differs from its field's has a record that says so, so that a cell needs no room for its type.
 */
#include "base/buf.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/type.h"
#include "table/field.h"

#define SHAPE_INLINE_MAX 0x7fffffffu

/* Number of elements of a shape; false if it overflows. */
static bool shape_count(uint32_t ndim, const uint64_t *dims, uint64_t *elements)
{
    bool fits = true;

    *elements = 1;
    for (uint32_t i = 0; i < ndim; i++) {
        fits = !__builtin_mul_overflow(*elements, dims[i], elements) && fits;
    }
    /* An empty row is empty, however large its other dims are. */
    for (uint32_t i = 0; i < ndim; i++) {
        if (dims[i] == 0) {
            *elements = 0;
            return true;
        }
    }
    return fits;
}

/* A free slot in the table of records, with room in the free list for all of them. */
static int shape_place(tqi_table *table, uint32_t *place)
{
    if (table->n_shape_free > 0) {
        *place = table->shape_free[--table->n_shape_free];
        return TQ_OK;
    }
    if (table->shape_places >= SHAPE_INLINE_MAX - TQI_TABLE_SHAPE_FIRST ||
        tqi_grow(&table->shape_table, &table->shape_capacity, (size_t)table->shape_places + 1,
                 sizeof(tqi_table_shape *)) != TQ_OK ||
        tqi_grow(&table->shape_free, &table->shape_free_capacity, (size_t)table->shape_places + 1,
                 sizeof(*table->shape_free)) != TQ_OK) {
        return TQ_ENOMEM;
    }
    *place = table->shape_places++;
    return TQ_OK;
}

static tqi_table_shape *shape_make(tqi_table *table, uint32_t type, uint32_t ndim, const uint64_t *dims,
                                   uint64_t elements)
{
    tqi_table_shape *shape = calloc(1, sizeof(*shape) + ndim * sizeof(*dims));
    uint32_t place;

    if (shape == NULL) {
        return NULL;
    }
    shape->elements = elements;
    shape->ndim = ndim;
    shape->type = type;
    if (ndim > 0) {
        memcpy(shape->dims, dims, ndim * sizeof(*dims));
    }
    if (shape_place(table, &place) != TQ_OK) {
        free(shape);
        return NULL;
    }
    if (type == 0 ? !TQI_HASH_ADD_KEYPTR(table->shapes, shape->dims, ndim * sizeof(*dims), shape)
                  : !TQI_HASH_ADD_KEYPTR(table->typed, &shape->type, (1 + ndim) * sizeof(*dims), shape)) {
        table->shape_free[table->n_shape_free++] = place;
        free(shape);
        return NULL;
    }
    table->shape_table[place] = shape;
    shape->handle = TQI_TABLE_SHAPE_FIRST + place;
    return shape;
}

int tqi_t_shape_get(tqi_table *table, uint32_t ndim, const uint64_t *dims, uint32_t *handle, tq_error *err)
{
    uint64_t elements;
    tqi_table_shape *shape;

    if (ndim == 0) {
        *handle = TQI_TABLE_SHAPE_SCALAR;
        return TQ_OK;
    }
    if (ndim == 1 && dims[0] <= SHAPE_INLINE_MAX) {
        *handle = TQI_TABLE_SHAPE_INLINE | (uint32_t)dims[0];
        return TQ_OK;
    }
    if (ndim > TQ_NDIM_MAX) {
        return tqi_error_set(err, TQ_EINVAL, "a row has %u dims, at most %d are possible", ndim, TQ_NDIM_MAX);
    }
    HASH_FIND(hh, table->shapes, dims, ndim * sizeof(*dims), shape);
    if (shape == NULL) {
        if (!shape_count(ndim, dims, &elements)) {
            return tqi_error_set(err, TQ_EINVAL, "a row has too many elements");
        }
        shape = shape_make(table, 0, ndim, dims, elements);
        if (shape == NULL) {
            return tqi_error_nomem(err, "shape");
        }
    }
    shape->refs++;
    *handle = shape->handle;
    return TQ_OK;
}

int tqi_t_shape_get_typed(tqi_table *table, uint32_t type, uint32_t ndim, const uint64_t *dims, uint32_t *handle,
                          tq_error *err)
{
    uint64_t key[1 + TQ_NDIM_MAX] = {type};
    uint64_t elements;
    tqi_table_shape *shape;

    if (type == 0) {
        return tqi_t_shape_get(table, ndim, dims, handle, err);
    }
    if (ndim > TQ_NDIM_MAX) {
        return tqi_error_set(err, TQ_EINVAL, "a row has %u dims, at most %d are possible", ndim, TQ_NDIM_MAX);
    }
    if (ndim > 0) {
        memcpy(key + 1, dims, ndim * sizeof(*dims));
    }
    HASH_FIND(hh, table->typed, key, (1 + ndim) * sizeof(*key), shape);
    if (shape == NULL) {
        if (!shape_count(ndim, dims, &elements)) {
            return tqi_error_set(err, TQ_EINVAL, "a row has too many elements");
        }
        shape = shape_make(table, type, ndim, dims, elements);
        if (shape == NULL) {
            return tqi_error_nomem(err, "shape");
        }
    }
    shape->refs++;
    *handle = shape->handle;
    return TQ_OK;
}

static tqi_table_shape *shape_record(const tqi_table *table, uint32_t handle)
{
    if (handle < TQI_TABLE_SHAPE_FIRST || (handle & TQI_TABLE_SHAPE_INLINE) != 0) {
        return NULL;
    }
    return table->shape_table[handle - TQI_TABLE_SHAPE_FIRST];
}

uint32_t tqi_t_relative_type(uint32_t own, uint32_t type, uint32_t ndim, const uint64_t *dims)
{
    bool tensors = tqi_type_kind(own) == TQ_TENSOR && tqi_type_kind(type) == TQ_TENSOR;

    if (type == own) {
        return 0;
    }
    for (uint32_t d = 0; tensors && d < ndim; d++) {
        if (dims[d] == 0) {
            return 0;
        }
    }
    return type;
}

uint32_t tqi_t_shape_type(const tqi_table *table, uint32_t handle)
{
    const tqi_table_shape *shape = shape_record(table, handle);

    return shape != NULL ? (uint32_t)shape->type : 0;
}

void tqi_t_shape_ref(tqi_table *table, uint32_t handle, uint64_t n)
{
    tqi_table_shape *shape = shape_record(table, handle);

    if (shape != NULL) {
        shape->refs += n;
    }
}

void tqi_t_shape_unref(tqi_table *table, uint32_t handle, uint64_t n)
{
    tqi_table_shape *shape = shape_record(table, handle);

    if (shape == NULL) {
        return;
    }
    shape->refs -= n;
    if (shape->refs == 0) {
        if (shape->type == 0) {
            HASH_DEL(table->shapes, shape);
        } else {
            HASH_DEL(table->typed, shape);
        }
        table->shape_table[handle - TQI_TABLE_SHAPE_FIRST] = NULL;
        table->shape_free[table->n_shape_free++] = handle - TQI_TABLE_SHAPE_FIRST;
        free(shape);
    }
}

uint64_t tqi_t_shape_elements(const tqi_table *table, uint32_t handle)
{
    const tqi_table_shape *shape;

    if ((handle & TQI_TABLE_SHAPE_INLINE) != 0) {
        return handle & SHAPE_INLINE_MAX;
    }
    shape = shape_record(table, handle);
    return shape != NULL ? shape->elements : handle == TQI_TABLE_SHAPE_SCALAR;
}

const uint64_t *tqi_t_shape_dims(const tqi_table *table, uint32_t handle, uint64_t *room, uint32_t *ndim)
{
    const tqi_table_shape *shape = shape_record(table, handle);

    if (shape != NULL) {
        *ndim = shape->ndim;
        return shape->dims;
    }
    *ndim = (handle & TQI_TABLE_SHAPE_INLINE) != 0;
    *room = handle & SHAPE_INLINE_MAX;
    return room;
}

void tqi_t_shape_vary(const tqi_table *table, uint32_t handle, uint32_t *like, uint8_t *dim)
{
    const tqi_table_shape *shape = shape_record(table, handle);
    const tqi_table_shape *other;

    if (shape == NULL || shape->ndim < 2 || *like == handle || *dim == TQ_RAGGED_MANY) {
        return;
    }
    other = shape_record(table, *like);
    if (other == NULL) {
        *like = handle;
        return;
    }
    for (uint32_t d = 0; shape->ndim == other->ndim && d < shape->ndim; d++) {
        if (shape->dims[d] != other->dims[d]) {
            *dim = tqi_ragged_dim_join(*dim, (uint8_t)(d + 1));
        }
    }
}

void tqi_t_shapes_fini(tqi_table *table)
{
    tqi_table_shape *shape, *next;

    HASH_ITER (hh, table->shapes, shape, next) {
        HASH_DEL(table->shapes, shape);
        free(shape);
    }
    HASH_ITER (hh, table->typed, shape, next) {
        HASH_DEL(table->typed, shape);
        free(shape);
    }
    free(table->shape_table);
    free(table->shape_free);
}
