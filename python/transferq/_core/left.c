/*
 * left.c - Left: a column of values that a read left in the store; its rows become objects straight from there.
 *
 * Long texts and bytes are copied once (texts.c). Any other row is copied unchanged, in one look, and unpacked from
 * that copy, which is small enough to stay in cache: unpacking calls Python, and reads bytes more than once.
 */
#include "core.h"

#include <string.h>

typedef struct core_left {
    PyObject_HEAD
    tq_data *data;
    size_t column;
} core_left;

PyObject *core_left_make(core_state *state, tq_data *data, size_t column)
{
    core_left *self = PyObject_New(core_left, state->left);

    if (self == NULL) {
        return NULL;
    }
    core_count(CORE_LEFT, 1);
    self->data = tq_data_ref(data);
    self->column = column;
    return (PyObject *)self;
}

static void left_dealloc(core_left *self)
{
    PyTypeObject *type = Py_TYPE(self);

    tq_data_unref(self->data);
    core_count(CORE_LEFT, -1);
    PyObject_Free(self);
    Py_DECREF(type);
}

static const uint64_t *left_offsets(const core_left *self)
{
    return tq_data_column_at(self->data, self->column)->offsets;
}

static Py_ssize_t left_length(core_left *self)
{
    return (Py_ssize_t)left_offsets(self)[tq_data_row_count(self->data)];
}

static void left_look(void *arg, size_t row, const void *bytes, size_t size)
{
    (void)row;
    memcpy(arg, bytes, size);
}

/* Rows already in the list stay unchanged. 1: the column is no longer there. */
static int left_fill(core_left *self, PyObject *list, PyObject *build, PyObject *decode)
{
    const uint64_t *offsets = left_offsets(self);
    uint8_t *scratch = NULL;
    size_t room = 0;
    int rc = 0;

    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list) && rc == 0; i++) {
        size_t size = (size_t)(offsets[i + 1] - offsets[i]);
        if (PyList_GET_ITEM(list, i)) {
            continue;
        }
        if (size > room) {
            PyMem_RawFree(scratch);
            room = size;
            scratch = PyMem_RawMalloc(room);
            if (scratch == NULL) {
                PyErr_NoMemory();
                return -1;
            }
        }
        int seen;
        core_pace_step(size >> 10);
        if (size < CORE_COPY_ALONE) {
            seen = tq_data_look(self->data, self->column, (size_t)i, 1, left_look, scratch);
        } else {
            Py_BEGIN_ALLOW_THREADS
            seen = tq_data_look(self->data, self->column, (size_t)i, 1, left_look, scratch);
            Py_END_ALLOW_THREADS
        }
        PyObject *value = seen == TQ_OK ? core_unpack(scratch, size, build, decode) : NULL;
        rc = seen != TQ_OK ? 1 : value != NULL ? 0 : -1;
        PyList_SET_ITEM(list, i, value);
    }
    PyMem_RawFree(scratch);
    return rc;
}

PyObject *core_left_rows(PyObject *object, PyObject *build, PyObject *decode)
{
    core_left *self = (core_left *)object;
    PyObject *list = PyList_New((Py_ssize_t)tq_data_row_count(self->data));

    if (list == NULL) {
        return NULL;
    }
    int rc = core_texts_left(self->data, self->column, list);
    if (rc == 0) {
        rc = left_fill(self, list, build, decode);
    }
    if (rc == 0) {
        return list;
    }
    Py_DECREF(list);
    return rc > 0 ? Py_NewRef(Py_None) : NULL;
}

static PyType_Slot left_slots[] = {
    {Py_tp_doc, "A column of values that was left in the store; len() is its bytes."},
    {Py_tp_dealloc, left_dealloc},
    {Py_sq_length, left_length},
    {0, NULL},
};

static PyType_Spec left_spec = {
    .name = "transferq._core.Left",
    .basicsize = sizeof(core_left),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = left_slots,
};

PyTypeObject *core_left_type(PyObject *module)
{
    return (PyTypeObject *)PyType_FromModuleAndSpec(module, &left_spec, NULL);
}
