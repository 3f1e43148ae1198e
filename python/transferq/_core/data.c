/*
 * data.c - Data: the result of a read. Its columns are exposed as Buffers over the library's memory, so that
 * numpy.frombuffer and torch.frombuffer use them without a copy; the memory is freed with the last view.
 */
#include "core.h"

PyObject *core_data_wrap(core_state *state, const tq_data *data)
{
    if (data == NULL) {
        Py_RETURN_NONE;
    }
    core_data *self = PyObject_New(core_data, state->data);
    if (self == NULL) {
        return NULL;
    }
    core_count(CORE_DATA, 1);
    self->data = tq_data_ref(data);
    return (PyObject *)self;
}

static void data_dealloc(core_data *self)
{
    PyTypeObject *type = Py_TYPE(self);

    tq_data_unref(self->data);
    core_count(CORE_DATA, -1);
    PyObject_Free(self);
    Py_DECREF(type);
}

static Py_ssize_t data_length(core_data *self)
{
    return (Py_ssize_t)tq_data_row_count(self->data);
}

static PyObject *data_column(core_data *self, size_t c)
{
    const tq_data_column *column = tq_data_column_at(self->data, c);
    core_state *state = core_state_of((PyObject *)self);
    PyObject *owner = (PyObject *)self;
    size_t rows = tq_data_row_count(self->data), n_dims = 0;

    for (size_t i = 0; i < rows; i++) {
        n_dims += column->ndims[i];
    }
    size_t size = column->offsets != NULL && column->data != NULL ? column->offsets[rows] : 0;
    PyObject *items[] = {
        core_text(column->name),
        PyLong_FromLong(column->kind),
        PyLong_FromLong(column->dtype.code),
        PyLong_FromLong(column->dtype.bits),
        PyBool_FromLong(column->ragged),
        column->ragged ? Py_NewRef(Py_None) : core_shape(column->shape, column->ndim),
        core_buffer_make(state, owner, column->ndims, rows, 'I', false),
        core_buffer_make(state, owner, column->dims, n_dims, 'Q', false),
        core_buffer_make(state, owner, column->offsets, column->offsets != NULL ? rows + 1 : 0, 'Q', false),
        column->left ? core_left_make(state, self->data, c)
                     : core_buffer_make(state, owner, column->data, size, 'B', true),
        column->opaque != NULL ? core_notes(column->opaque, rows) : Py_NewRef(Py_None),
        column->padded ? PyLong_FromUnsignedLongLong(column->length) : Py_NewRef(Py_None),
        PyLong_FromLong(column->ragged_dim),
        core_types(column->types, rows),
    };
    return core_tuple(state->data_column, items, sizeof(items) / sizeof(items[0]));
}

static PyObject *data_columns(core_data *self, void *Py_UNUSED(closure))
{
    size_t n = tq_data_column_count(self->data);
    PyObject *list = PyList_New((Py_ssize_t)n);

    for (size_t c = 0; list != NULL && c < n; c++) {
        PyObject *row = data_column(self, c);
        if (row == NULL) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, (Py_ssize_t)c, row);
    }
    return list;
}

static PyGetSetDef data_getset[] = {
    {"columns", (getter)data_columns, NULL, "A DataColumn for each column.", NULL},
    {0},
};

static PyType_Slot data_slots[] = {
    {Py_tp_doc, "What a read returned; len() is the number of rows."},
    {Py_tp_dealloc, data_dealloc},
    {Py_tp_getset, data_getset},
    {Py_sq_length, data_length},
    {0, NULL},
};

static PyType_Spec data_spec = {
    .name = "transferq._core.Data",
    .basicsize = sizeof(core_data),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = data_slots,
};

PyTypeObject *core_data_type(PyObject *module)
{
    return (PyTypeObject *)PyType_FromModuleAndSpec(module, &data_spec, NULL);
}
