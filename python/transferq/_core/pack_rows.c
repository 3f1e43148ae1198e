/*
 * pack_rows.c - pack_rows and weigh: columns of values, encoded by pack.c, and the estimated cost of encoding one.
 */
#include "pack.h"

/* Bytes needed by rows of plain text. The size of other rows is unknown before they are packed, so they count as 0. */
static size_t rows_text_room(PyObject *rows, bool cuts)
{
    size_t room = 0;

    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(rows); i++) {
        PyObject *row = PyList_GET_ITEM(rows, i);
        if (PyUnicode_CheckExact(row) && PyUnicode_IS_COMPACT_ASCII(row)) {
            size_t size = (size_t)PyUnicode_GET_LENGTH(row);
            room += 5 + (cuts && size >= CORE_LARGE ? 0 : size);
        }
    }
    return room;
}

/* The rows end to end, and the size of each. */
static int rows_each(core_packer *p, PyObject *rows, uint64_t *sizes, size_t n)
{
    size_t room = rows_text_room(rows, p->keep != NULL);
    int rc = room > CORE_PACK_WARM && !core_pack_grow(p, room) ? -1 : 0;

    for (size_t i = 0; !rc && i < n; i++) {
        if ((size_t)PyList_GET_SIZE(rows) != n) {
            PyErr_SetString(PyExc_RuntimeError, "the rows changed while they were encoded");
            return -1;
        }
        PyObject *row = Py_NewRef(PyList_GET_ITEM(rows, (Py_ssize_t)i));
        p->row = p->size + p->cut_bytes;
        p->buffers = 0;
        rc = core_pack_value(p, row, 0);
        rc = rc ? rc : core_pack_fill(p);
        Py_DECREF(row);
        sizes[i] = core_pack_at(p);
    }
    return rc;
}

static void rows_capsule_free(PyObject *capsule)
{
    size_t room = (size_t)(uintptr_t)PyCapsule_GetContext(capsule);

    tq_buffer_give(PyCapsule_GetPointer(capsule, NULL), room);
}

/* The packed bytes, as bytes, or as a Buffer over the warm memory, which then belongs to the capsule. */
static PyObject *rows_object(core_packer *p, core_state *state)
{
    PyObject *made = NULL;

    if (p->room <= CORE_PACK_WARM) {
        return PyBytes_FromStringAndSize(p->bytes, (Py_ssize_t)p->size);
    }
    PyObject *memory = PyCapsule_New(p->bytes, NULL, NULL);
    if (memory == NULL) {
        return NULL;
    }
    if (!PyCapsule_SetContext(memory, (void *)(uintptr_t)p->room) &&
        !PyCapsule_SetDestructor(memory, rows_capsule_free)) {
        made = core_buffer_make(state, memory, p->bytes, p->size, 'B', false);
        p->bytes = NULL;
        p->room = 0;
    }
    Py_DECREF(memory);
    return made;
}

static int rows_slice(PyObject *list, const void *data, size_t size)
{
    PyObject *slice = size ? Py_BuildValue("(Kn)", (unsigned long long)(uintptr_t)data, (Py_ssize_t)size) : NULL;
    int rc = size == 0 ? 0 : slice != NULL ? PyList_Append(list, slice) : -1;

    Py_XDECREF(slice);
    return rc;
}

/* The slices of a column that was cut; `packed` holds the bytes between the cuts. */
static PyObject *rows_slices(const core_packer *p, PyObject *packed)
{
    PyObject *list = PyList_New(0);
    Py_buffer view;
    size_t at = 0;

    if (list == NULL || PyObject_GetBuffer(packed, &view, PyBUF_SIMPLE)) {
        Py_XDECREF(list);
        return NULL;
    }
    const char *bytes = view.buf;
    int rc = 0;
    for (size_t i = 0; !rc && i < p->n_cuts; i++) {
        const core_pack_cut *cut = &p->cuts[i];
        rc = rows_slice(list, bytes + at, cut->at - at) || rows_slice(list, cut->data, cut->size);
        at = cut->at;
    }
    rc = rc || rows_slice(list, bytes + at, p->size - at) || PyList_Append(p->keep, packed);
    PyBuffer_Release(&view);
    if (rc) {
        Py_CLEAR(list);
    }
    return list;
}

PyObject *core_pack_rows(PyObject *module, PyObject *args)
{
    PyObject *rows, *keep = Py_None, *packed = NULL, *result = NULL;
    core_packer p = {0};

    if (!PyArg_ParseTuple(args, "O!O|O:pack_rows", &PyList_Type, &rows, &p.convert, &keep)) {
        return NULL;
    }
    if (keep != Py_None && !PyList_Check(keep)) {
        PyErr_SetString(PyExc_TypeError, "keep: expected a list or None");
        return NULL;
    }
    p.keep = keep == Py_None ? NULL : keep;
    size_t n = (size_t)PyList_GET_SIZE(rows);
    uint64_t *sizes = PyMem_Calloc(n + 1, sizeof(*sizes));
    if (sizes == NULL) {
        return PyErr_NoMemory();
    }
    if (!rows_each(&p, rows, sizes, n)) {
        packed = rows_object(&p, PyModule_GetState(module));
    }
    if (packed != NULL && p.keep != NULL) {
        Py_SETREF(packed, p.n_cuts ? rows_slices(&p, packed) : Py_BuildValue("[O]", packed));
    }
    if (packed != NULL) {
        result = Py_BuildValue("(Ny#)", packed, (const char *)sizes, (Py_ssize_t)(n * sizeof(*sizes)));
    }
    core_pack_free(&p);
    PyMem_Free(sizes);
    return result;
}

/* --- weighing ------------------------------------------------------------- */

/* Subtracts the cost of encoding a value from the remaining budget, until that is used up. */
static void rows_weigh(PyObject *value, Py_ssize_t *left, unsigned depth)
{
    PyObject *key, *item;
    Py_ssize_t at = 0;

    *left -= 1;
    if (PyUnicode_CheckExact(value)) {
        *left -= PyUnicode_GET_LENGTH(value) >> 10;
    } else if (PyList_CheckExact(value)) {
        for (Py_ssize_t i = 0; *left > 0 && depth < CORE_PACK_DEPTH && i < PyList_GET_SIZE(value); i++) {
            rows_weigh(PyList_GET_ITEM(value, i), left, depth + 1);
        }
    } else if (PyDict_CheckExact(value)) {
        while (*left > 0 && depth < CORE_PACK_DEPTH && PyDict_Next(value, &at, &key, &item)) {
            rows_weigh(key, left, depth + 1);
            rows_weigh(item, left, depth + 1);
        }
    } else if (!PyLong_CheckExact(value) && !PyFloat_CheckExact(value) && value != Py_None && !PyBool_Check(value) &&
               !PyBytes_CheckExact(value)) {
        *left -= 20;
    }
}

PyObject *core_weigh(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *value;
    Py_ssize_t limit;

    if (!PyArg_ParseTuple(args, "On:weigh", &value, &limit)) {
        return NULL;
    }
    rows_weigh(value, &limit, 0);
    return PyBool_FromLong(limit <= 0);
}
