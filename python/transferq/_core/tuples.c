/*
 * tuples.c - the named tuples that describe columns: DataColumn, of a read, and MetaField, of a meta.
 */
#include "core.h"

static PyStructSequence_Field tuples_data_column_fields[] = {
    {"name", "Name of the field."},
    {"kind", "TENSOR or VALUE; that of the first row if rows differ."},
    {"code", "Code of the dtype, as in DLPack."},
    {"bits", "Bits of an element."},
    {"ragged", "Whether rows differ in shape."},
    {"shape", "Shape of every row; None if rows differ."},
    {"ndims", "Number of dims of each row, as 32-bit integers."},
    {"dims", "The dims of all rows, one row after another, as 64-bit integers."},
    {"offsets", "Where each row begins in `data`, in bytes, and where the last one ends: rows + 1 64-bit integers."},
    {"data", "The bytes of the rows; a Left for values that were left in the store."},
    {"notes", "What a storage manager that keeps data by index noted for each row; None for the others."},
    {"length", "Rows lie at equal distances, with room for a first dim of this length; None: end to end."},
    {"ragged_dim", "Dim of a row, counted from 1, in which rows of the field differ; 0: none; 255: several."},
    {"types", "Kind and dtype of each row, as 32-bit integers (kind << 16 | bits << 8 | code); None if rows agree."},
    {NULL, NULL},
};

static PyStructSequence_Field tuples_meta_field_fields[] = {
    {"name", "Name of the field."},
    {"kind", "TENSOR or VALUE; that of the first row if rows differ."},
    {"code", "Code of the dtype, as in DLPack."},
    {"bits", "Bits of an element; 0: nothing is known about the field yet."},
    {"ragged", "Whether rows differ in shape."},
    {"shape", "Shape of every row; None if rows differ."},
    {"ndims", "Number of dims of each row, as 32-bit integers; None unless rows differ and their shapes are known."},
    {"dims", "The dims of all rows, one row after another, as 64-bit integers; None like `ndims`."},
    {"ready", "One byte per row: 1 produced, 0 not, 2 lost; empty if nothing is known."},
    {"ragged_dim", "Dim of a row, counted from 1, in which rows of the field differ; 0: none; 255: several."},
    {"types", "Kind and dtype of each row, as 32-bit integers (kind << 16 | bits << 8 | code); None if rows agree."},
    {NULL, NULL},
};

#define TUPLES_SIZE(fields) ((int)(sizeof(fields) / sizeof(fields[0])) - 1)

PyTypeObject *core_data_column_type(PyObject *Py_UNUSED(module))
{
    static PyStructSequence_Desc description = {
        .name = "transferq._core.DataColumn",
        .doc = "A column that was read.",
        .fields = tuples_data_column_fields,
        .n_in_sequence = TUPLES_SIZE(tuples_data_column_fields),
    };

    return PyStructSequence_NewType(&description);
}

PyTypeObject *core_meta_field_type(PyObject *Py_UNUSED(module))
{
    static PyStructSequence_Desc description = {
        .name = "transferq._core.MetaField",
        .doc = "A field of a meta: what is known about it, and which rows are ready.",
        .fields = tuples_meta_field_fields,
        .n_in_sequence = TUPLES_SIZE(tuples_meta_field_fields),
    };

    return PyStructSequence_NewType(&description);
}

PyObject *core_tuple(PyTypeObject *type, PyObject *const *items, size_t n)
{
    PyObject *tuple = NULL;
    bool whole = true;

    for (size_t i = 0; i < n; i++) {
        whole = whole && items[i] != NULL;
    }
    if (whole) {
        tuple = PyStructSequence_New(type);
    }
    for (size_t i = 0; i < n; i++) {
        if (tuple != NULL) {
            PyStructSequence_SetItem(tuple, (Py_ssize_t)i, items[i]);
        } else {
            Py_XDECREF(items[i]);
        }
    }
    return tuple;
}
