/*
 * buffer.c - Buffer: memory of a Meta or Data, through the buffer protocol; the last view keeps its owner alive.
 */
#include "core.h"

typedef struct core_buffer {
    PyObject_HEAD
    PyObject *owner;
    void *memory;
    Py_ssize_t n; /* items */
    Py_ssize_t itemsize;
    char format[2];
    bool writable;
} core_buffer;

static char buffer_empty[16];

PyObject *core_buffer_make(core_state *state, PyObject *owner, const void *memory, size_t n, char format, bool writable)
{
    core_buffer *self = PyObject_New(core_buffer, state->buffer);

    if (self == NULL) {
        return NULL;
    }
    core_count(CORE_BUFFER, 1);
    self->owner = Py_NewRef(owner);
    /* The library owns the memory; the view is read-only if the library's is. */
    self->memory = n ? (void *)(uintptr_t)memory : buffer_empty;
    self->n = (Py_ssize_t)n;
    self->itemsize = format == 'Q' ? 8 : format == 'I' ? 4 : 1;
    self->format[0] = format;
    self->format[1] = 0;
    self->writable = writable;
    return (PyObject *)self;
}

static void buffer_dealloc(core_buffer *self)
{
    PyTypeObject *type = Py_TYPE(self);

    Py_DECREF(self->owner);
    core_count(CORE_BUFFER, -1);
    PyObject_Free(self);
    Py_DECREF(type);
}

static int buffer_get(core_buffer *self, Py_buffer *view, int flags)
{
    if ((flags & PyBUF_WRITABLE) && !self->writable) {
        PyErr_SetString(PyExc_BufferError, "this memory is read-only");
        return -1;
    }
    view->obj = Py_NewRef((PyObject *)self);
    view->buf = self->memory;
    view->len = self->n * self->itemsize;
    view->readonly = !self->writable;
    view->itemsize = self->itemsize;
    view->format = flags & PyBUF_FORMAT ? self->format : NULL;
    view->ndim = 1;
    view->shape = flags & PyBUF_ND ? &self->n : NULL;
    view->strides = (flags & PyBUF_STRIDES) == PyBUF_STRIDES ? &self->itemsize : NULL;
    view->suboffsets = NULL;
    view->internal = NULL;
    return 0;
}

static Py_ssize_t buffer_length(core_buffer *self)
{
    return self->n;
}

static PyObject *buffer_repr(core_buffer *self)
{
    return PyUnicode_FromFormat("<transferq._core.Buffer of %zd items '%s'>", self->n, self->format);
}

static PyType_Slot buffer_slots[] = {
    {Py_tp_doc, "Memory of the library, for the buffer protocol."},
    {Py_tp_dealloc, buffer_dealloc},
    {Py_tp_repr, buffer_repr},
    {Py_sq_length, buffer_length},
    {Py_bf_getbuffer, buffer_get},
    {0, NULL},
};

static PyType_Spec buffer_spec = {
    .name = "transferq._core.Buffer",
    .basicsize = sizeof(core_buffer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = buffer_slots,
};

PyTypeObject *core_buffer_type(PyObject *module)
{
    return (PyTypeObject *)PyType_FromModuleAndSpec(module, &buffer_spec, NULL);
}
