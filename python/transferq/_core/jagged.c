/*
 * jagged.c - jagged_rows: converts the shapes of a column's rows to torch's jagged layout: offsets along the one dim
 * that may vary, with the least and the greatest length, and the other dims, which must agree.
 *
 * A small read has several such columns; in NumPy this conversion would take longer than the rest of the read.
 */
#include "core.h"

typedef struct jagged_shapes {
    const uint64_t *dims; /* of all rows, end to end */
    size_t rows, ndim;
} jagged_shapes;

/* Writes the rows + 1 offsets along a dim to `ends`; false: the rows differ in another dim, or the sum is too large. */
static bool jagged_offsets(const jagged_shapes *shapes, size_t ragged, int64_t *ends, uint64_t *least, uint64_t *most)
{
    const uint64_t *first = shapes->dims;
    uint64_t end = 0;

    *least = *most = first[ragged];
    ends[0] = 0;
    for (size_t row = 0; row < shapes->rows; row++) {
        const uint64_t *dims = first + row * shapes->ndim;
        for (size_t dim = 0; dim < shapes->ndim; dim++) {
            if (dim != ragged && dims[dim] != first[dim]) {
                return false;
            }
        }
        uint64_t length = dims[ragged];
        if (__builtin_add_overflow(end, length, &end) || end > INT64_MAX) {
            return false;
        }
        *least = length < *least ? length : *least;
        *most = length > *most ? length : *most;
        ends[row + 1] = (int64_t)end;
    }
    return true;
}

/* Whether all rows have the same number of dims, including `ragged`; false with an exception for inconsistent sizes. */
static bool jagged_regular(const Py_buffer *ndims, const Py_buffer *dims, Py_ssize_t ragged, jagged_shapes *shapes)
{
    const uint32_t *depths = ndims->buf;
    size_t n = (size_t)ndims->len / sizeof(*depths), sum = 0;
    bool regular = n > 0 && ragged >= 0 && (size_t)ragged < depths[0];

    for (size_t row = 0; row < n; row++) {
        regular = regular && depths[row] == depths[0];
        sum += depths[row];
    }
    if (sum * sizeof(uint64_t) != (size_t)dims->len) {
        PyErr_SetString(PyExc_ValueError, "jagged_rows: the number of dims does not match the rows");
        return false;
    }
    *shapes = (jagged_shapes){dims->buf, n, n ? depths[0] : 0};
    return regular;
}

/* (offsets, least, greatest, shape of all rows end to end), or None. */
static PyObject *jagged_make(const jagged_shapes *shapes, size_t ragged)
{
    Py_ssize_t size = (Py_ssize_t)((shapes->rows + 1) * sizeof(int64_t));
    PyObject *offsets = PyBytes_FromStringAndSize(NULL, size);
    PyObject *shape = PyTuple_New((Py_ssize_t)shapes->ndim);
    uint64_t least, most;

    if (offsets == NULL || shape == NULL) {
        goto failed;
    }
    int64_t *ends = (int64_t *)(void *)PyBytes_AS_STRING(offsets);
    if (!jagged_offsets(shapes, ragged, ends, &least, &most)) {
        Py_DECREF(offsets);
        Py_DECREF(shape);
        Py_RETURN_NONE;
    }
    for (size_t dim = 0; dim < shapes->ndim; dim++) {
        uint64_t whole = dim == ragged ? (uint64_t)ends[shapes->rows] : shapes->dims[dim];
        PyObject *number = PyLong_FromUnsignedLongLong(whole);
        if (number == NULL) {
            goto failed;
        }
        PyTuple_SET_ITEM(shape, (Py_ssize_t)dim, number);
    }
    return Py_BuildValue("(NKKN)", offsets, (unsigned long long)least, (unsigned long long)most, shape);

failed:
    Py_XDECREF(offsets);
    Py_XDECREF(shape);
    return NULL;
}

PyObject *core_jagged_rows(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *result = NULL;
    Py_buffer ndims, dims;
    Py_ssize_t ragged;
    jagged_shapes shapes;

    if (!PyArg_ParseTuple(args, "y*y*n:jagged_rows", &ndims, &dims, &ragged)) {
        return NULL;
    }
    if (jagged_regular(&ndims, &dims, ragged, &shapes)) {
        result = jagged_make(&shapes, (size_t)ragged);
    } else if (PyErr_Occurred() == NULL) {
        result = Py_NewRef(Py_None);
    }
    PyBuffer_Release(&ndims);
    PyBuffer_Release(&dims);
    return result;
}
