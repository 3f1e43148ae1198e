/*
 * data.c - Data: the result of a read. Its columns are exposed as Buffers over the library's memory, so that
 * numpy.frombuffer and torch.frombuffer use them without a copy; the memory is freed with the last view.
 */
#include "core.h"

PyObject *core_data_wrap(core_state *state, const tq_data *data)
{
    if (!data) {
        Py_RETURN_NONE;
    }
    core_data *self = PyObject_New(core_data, state->data);
    if (!self) {
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
    size_t size = column->offsets && column->data ? column->offsets[rows] : 0;
    PyObject *name = core_text(column->name);
    PyObject *shape = column->ragged ? Py_NewRef(Py_None) : core_shape(column->shape, column->ndim);
    PyObject *ndims = core_buffer_make(state, owner, column->ndims, rows, 'I', false);
    PyObject *dims = core_buffer_make(state, owner, column->dims, n_dims, 'Q', false);
    PyObject *offsets = core_buffer_make(state, owner, column->offsets, column->offsets ? rows + 1 : 0, 'Q', false);
    PyObject *data = column->left ? core_left_make(state, self->data, c)
                                  : core_buffer_make(state, owner, column->data, size, 'B', true);
    PyObject *notes = column->opaque ? core_notes(column->opaque, rows) : Py_NewRef(Py_None);
    PyObject *length = column->padded ? PyLong_FromUnsignedLongLong(column->length) : Py_NewRef(Py_None);
    PyObject *types = core_types(column->types, rows);
    PyObject *row = NULL;
    if (types && length && name && shape && ndims && dims && offsets && data && notes) {
        row = Py_BuildValue("(OiiiNOOOOOOOiO)", name, (int)column->kind, column->dtype.code, column->dtype.bits,
                            PyBool_FromLong(column->ragged), shape, ndims, dims, offsets, data, notes, length,
                            (int)column->ragged_dim, types);
    }
    Py_XDECREF(types);
    Py_XDECREF(length);
    Py_XDECREF(name);
    Py_XDECREF(shape);
    Py_XDECREF(ndims);
    Py_XDECREF(dims);
    Py_XDECREF(offsets);
    Py_XDECREF(data);
    Py_XDECREF(notes);
    return row;
}

static PyObject *data_columns(core_data *self, void *Py_UNUSED(closure))
{
    size_t n = tq_data_column_count(self->data);
    PyObject *list = PyList_New((Py_ssize_t)n);

    for (size_t c = 0; list && c < n; c++) {
        PyObject *row = data_column(self, c);
        if (!row) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, (Py_ssize_t)c, row);
    }
    return list;
}

static PyGetSetDef data_getset[] = {
    {"columns", (getter)data_columns, NULL,
     "(name, kind, dtype code, dtype bits, ragged, shape, ndims, dims, offsets, data, notes, "
     "padded length or None, ragged dim, types of rows or None) of each column; data is a Left "
     "where it was left in the store.",
     NULL},
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
