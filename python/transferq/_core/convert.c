/*
 * convert.c - small values of C as Python objects.
 */
#include "core.h"

PyObject *core_text(const char *text)
{
    if (text == NULL) {
        Py_RETURN_NONE;
    }
    return PyUnicode_DecodeUTF8(text, (Py_ssize_t)strlen(text), "backslashreplace");
}

PyObject *core_shape(const uint64_t *shape, uint32_t ndim)
{
    PyObject *tuple = PyTuple_New(ndim);

    for (uint32_t i = 0; tuple != NULL && i < ndim; i++) {
        PyObject *dim = PyLong_FromUnsignedLongLong(shape[i]);
        if (dim == NULL) {
            Py_CLEAR(tuple);
            break;
        }
        PyTuple_SET_ITEM(tuple, i, dim);
    }
    return tuple;
}

PyObject *core_notes(const tq_slice *notes, size_t n)
{
    PyObject *list = PyList_New((Py_ssize_t)n);

    for (size_t i = 0; list != NULL && i < n; i++) {
        PyObject *note = PyBytes_FromStringAndSize(notes[i].data, (Py_ssize_t)notes[i].size);
        if (note == NULL) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, (Py_ssize_t)i, note);
    }
    return list;
}

PyObject *core_types(const tq_type *types, size_t n)
{
    if (types == NULL) {
        Py_RETURN_NONE;
    }
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(n * sizeof(uint32_t)));
    for (size_t i = 0; bytes != NULL && i < n; i++) {
        uint32_t type = (uint32_t)types[i].kind << 16 | (uint32_t)types[i].dtype.bits << 8 | types[i].dtype.code;
        memcpy(PyBytes_AS_STRING(bytes) + i * sizeof(type), &type, sizeof(type));
    }
    return bytes;
}
