/*
 * put.c - Client.put and Client.notify: convert columns of Python buffers to tq_column, without copying their bytes.
 *
 * A column is a transferq._impl.column.Column, which names and explains its entries. A slice is an object with the
 * buffer protocol, or (address, bytes) of memory that `keep` keeps alive (torch tensors). Rows of other values give
 * one slice each and neither shape nor dims: their sizes are the dims.
 */
#include "core.h"

static int put_slice(core_arena *arena, const char *column, PyObject *object, tq_slice *out)
{
    if (PyBytes_Check(object)) {
        out->data = PyBytes_AS_STRING(object);
        out->size = (size_t)PyBytes_GET_SIZE(object);
        return 0; /* held by the list of slices */
    }
    if (PyTuple_Check(object)) {
        unsigned long long address;
        Py_ssize_t size;
        if (!PyArg_ParseTuple(object, "Kn;a slice is (address, bytes)", &address, &size)) {
            return -1;
        }
        if (size < 0) {
            PyErr_Format(PyExc_ValueError, "column %s: a slice of negative size", column);
            return -1;
        }
        out->data = (const void *)(uintptr_t)address;
        out->size = (size_t)size;
        return 0;
    }
    const Py_buffer *view = core_arena_view(arena, object);
    if (view == NULL) {
        return -1;
    }
    out->data = view->buf;
    out->size = (size_t)view->len;
    return 0;
}

static int put_slices(core_arena *arena, PyObject *object, tq_column *column)
{
    PyObject *items = PySequence_Tuple(object);

    if (items == NULL) {
        return -1;
    }
    size_t n = (size_t)PyTuple_GET_SIZE(items);
    tq_slice *slices = core_arena_alloc(arena, n + 1, sizeof(*slices));
    int rc = slices != NULL ? core_arena_hold(arena, items) : -1;
    Py_DECREF(items); /* held by the arena */
    for (size_t i = 0; !rc && i < n; i++) {
        rc = put_slice(arena, column->name, PyTuple_GET_ITEM(items, (Py_ssize_t)i), &slices[i]);
    }
    column->slices = slices;
    column->n_slices = n;
    return rc;
}

/* Shapes of the rows of other values: one dim, their encoded size. */
static int put_value_shapes(core_arena *arena, tq_column *column)
{
    uint64_t *dims = core_arena_alloc(arena, column->rows + 1, sizeof(*dims));

    if (dims == NULL) {
        return -1;
    }
    if (column->n_slices != column->rows) {
        PyErr_Format(PyExc_ValueError, "column %s: %zu values for %zu rows", column->name, column->n_slices,
                     column->rows);
        return -1;
    }
    for (size_t i = 0; i < column->rows; i++) {
        dims[i] = column->slices[i].size;
    }
    column->dtype = (tq_dtype){TQ_UINT, 8};
    column->ndim = 1;
    column->dims = dims;
    return 0;
}

/* Kind and dtype of each row, if rows differ. */
static int put_types(core_arena *arena, PyObject *object, tq_column *column)
{
    const uint32_t *packed;
    size_t n;

    if (object == Py_None) {
        return 0;
    }
    tq_type *types = core_arena_alloc(arena, column->rows + 1, sizeof(*types));
    if (types == NULL || core_u32s(arena, object, "types", &packed, &n)) {
        return -1;
    }
    if (n != column->rows) {
        PyErr_Format(PyExc_ValueError, "column %s: %zu types for %zu rows", column->name, n, column->rows);
        return -1;
    }
    for (size_t i = 0; i < n; i++) {
        types[i] =
            (tq_type){(uint8_t)(packed[i] >> 16), {(uint8_t)(packed[i] & 0xffu), (uint8_t)(packed[i] >> 8 & 0xffu)}};
    }
    column->types = types;
    return 0;
}

static int put_column(core_arena *arena, PyObject *tuple, tq_column *column)
{
    PyObject *name, *shape, *ndims, *dims, *slices, *types = Py_None;
    int kind, rc, bits, ragged_dim = 0;
    Py_ssize_t rows;
    size_t n_shape, n_ndims, n_dims;

    if (!PyTuple_Check(tuple)) {
        PyErr_SetString(PyExc_TypeError, "a column is a tuple");
        return -1;
    }
    if (!PyArg_ParseTuple(tuple,
                          "OiiinOOOO|iO;a column is (name, kind, code, bits, rows, shape, ndims, dims, slices, "
                          "ragged dim, types)",
                          &name, &kind, &rc, &bits, &rows, &shape, &ndims, &dims, &slices, &ragged_dim, &types)) {
        return -1;
    }
    column->kind = kind == TQ_VALUE ? TQ_VALUE : TQ_TENSOR;
    column->dtype = (tq_dtype){(uint8_t)rc, (uint8_t)bits};
    column->rows = rows < 0 ? 0 : (size_t)rows;
    column->ragged_dim = (uint8_t)ragged_dim;
    if (core_string(name, "column name", &column->name) || core_u64s(arena, shape, "shape", &column->shape, &n_shape) ||
        core_u32s(arena, ndims, "ndims", &column->ndims, &n_ndims) ||
        core_u64s(arena, dims, "dims", &column->dims, &n_dims) || put_slices(arena, slices, column) ||
        put_types(arena, types, column)) {
        return -1;
    }
    if (column->name == NULL) {
        PyErr_SetString(PyExc_TypeError, "a field's name must be a str, not None");
        return -1;
    }
    if (column->kind == TQ_VALUE && slices != Py_None && column->dims == NULL) {
        return put_value_shapes(arena, column);
    }
    size_t needed = 0;
    for (size_t i = 0; column->ndims != NULL && i < n_ndims; i++) {
        needed += column->ndims[i];
    }
    if (column->dims != NULL && column->ndims == NULL && column->rows) {
        column->ndim = (uint32_t)(n_dims / column->rows);
        needed = (size_t)column->ndim * column->rows;
    } else {
        column->ndim = (uint32_t)n_shape;
    }
    if ((column->ndims != NULL && n_ndims != column->rows) || (column->dims != NULL && needed != n_dims)) {
        PyErr_Format(PyExc_ValueError, "column %s: shapes do not fit its %zu rows", column->name, column->rows);
        return -1;
    }
    return 0;
}

static int put_tag(core_arena *arena, PyObject *tuple, size_t n, tq_tag *tag)
{
    PyObject *name, *values, *sizes;
    size_t n_sizes, total = 0;

    if (!PyTuple_Check(tuple) || !PyArg_ParseTuple(tuple, "OOO;a tag is (name, values, sizes)", &name, &values, &sizes)) {
        if (PyErr_Occurred() == NULL) {
            PyErr_SetString(PyExc_TypeError, "a tag is a tuple");
        }
        return -1;
    }
    const Py_buffer *view = core_arena_view(arena, values);
    if (view == NULL || core_string(name, "tag name", &tag->name) ||
        core_u32s(arena, sizes, "sizes", &tag->sizes, &n_sizes)) {
        return -1;
    }
    for (size_t i = 0; i < n_sizes; i++) {
        total += tag->sizes[i];
    }
    if (tag->name == NULL || n_sizes != n || total != (size_t)view->len) {
        PyErr_Format(PyExc_ValueError, "tag %R: expected %zu values", name, n);
        return -1;
    }
    tag->values = view->buf;
    return 0;
}

/* Arguments of both put and notify. */
typedef struct put_call {
    PyObject *meta, *keys, *groups, *columns, *tags, *keep;
    Py_ssize_t n;
    int must_exist;
    double timeout;
    tq_put_args args;
} put_call;

static int put_parse(core_op *op, put_call *call)
{
    core_arena *arena = &op->args;
    tq_put_args *args = &call->args;
    size_t n_keys, n_groups;

    if ((call->keep != NULL && core_arena_hold(arena, call->keep)) ||
        core_strings(arena, call->keys, "keys", false, &args->keys, &n_keys) ||
        core_strings(arena, call->groups, "groups", true, &args->groups, &n_groups)) {
        return -1;
    }
    args->n = args->keys != NULL ? n_keys : (size_t)(call->n < 0 ? 0 : call->n);
    if (call->meta != NULL && call->meta != Py_None) {
        if (!Py_IS_TYPE(call->meta, core_state_of((PyObject *)op)->meta)) {
            PyErr_Format(PyExc_TypeError, "meta: expected a Meta, got %.100s", Py_TYPE(call->meta)->tp_name);
            return -1;
        }
        if (core_arena_hold(arena, call->meta)) {
            return -1;
        }
        args->meta = ((core_meta *)call->meta)->meta;
        args->n = tq_meta_sample_count(args->meta);
    }
    if (args->groups != NULL && n_groups != args->n) {
        PyErr_Format(PyExc_ValueError, "groups: expected %zu, got %zu", args->n, n_groups);
        return -1;
    }
    args->must_exist = call->must_exist;

    PyObject *columns = call->columns != NULL ? PySequence_Tuple(call->columns) : PyTuple_New(0);
    PyObject *tags = call->tags != NULL ? PySequence_Tuple(call->tags) : PyTuple_New(0);
    int rc = columns != NULL && tags != NULL ? 0 : -1;
    if (!rc) {
        /* The arena keeps the tuples, because names point into their strings. */
        rc = core_arena_hold(arena, columns) || core_arena_hold(arena, tags) ? -1 : 0;
        args->n_columns = (size_t)PyTuple_GET_SIZE(columns);
        args->n_tags = (size_t)PyTuple_GET_SIZE(tags);
    }
    tq_column *column = rc ? NULL : core_arena_alloc(arena, args->n_columns + 1, sizeof(*column));
    tq_tag *tag = rc ? NULL : core_arena_alloc(arena, args->n_tags + 1, sizeof(*tag));
    rc = column != NULL && tag != NULL ? 0 : -1;
    for (size_t i = 0; !rc && i < args->n_columns; i++) {
        rc = put_column(arena, PyTuple_GET_ITEM(columns, (Py_ssize_t)i), &column[i]);
    }
    for (size_t i = 0; !rc && i < args->n_tags; i++) {
        rc = put_tag(arena, PyTuple_GET_ITEM(tags, (Py_ssize_t)i), args->n, &tag[i]);
    }
    args->columns = column;
    args->tags = tag;
    Py_XDECREF(columns);
    Py_XDECREF(tags);
    return rc;
}

PyObject *core_client_put(core_client *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"partition", "meta",           "keys", "n",       "must_exist",   "groups", "columns",
                            "tags",      "fail_when_full", "keep", "timeout", "other_fields", NULL};
    put_call call = {.args = {.size = sizeof(tq_put_args)}};
    int fail_when_full = 0, other_fields = 0;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$zOOnpOOOpOdp:put", names, &call.args.partition, &call.meta,
                                     &call.keys, &call.n, &call.must_exist, &call.groups, &call.columns, &call.tags,
                                     &fail_when_full, &call.keep, &call.timeout, &other_fields)) {
        return NULL;
    }
    core_op *op = core_op_new(self, other_fields ? CORE_GIVES_META_NAMES : CORE_GIVES_META, call.timeout);
    if (op == NULL) {
        return NULL;
    }
    call.args.fail_when_full = fail_when_full;
    call.args.other_fields = other_fields;
    if (put_parse(op, &call)) {
        Py_DECREF(op);
        return NULL;
    }
    core_op_begin(op);
    return core_op_finish(op, tq_put(op->op, &call.args));
}

/* Notes: one list per column, of one bytes-like object per row. */
static const tq_slice *const *put_notes(core_arena *arena, PyObject *object, const tq_put_args *args)
{
    PyObject *lists = object != NULL ? PySequence_Tuple(object) : PyTuple_New(0);
    const tq_slice **notes = lists != NULL ? core_arena_alloc(arena, args->n_columns + 1, sizeof(*notes)) : NULL;
    int rc = notes != NULL ? core_arena_hold(arena, lists) : -1;

    if (!rc && (size_t)PyTuple_GET_SIZE(lists) != args->n_columns) {
        PyErr_SetString(PyExc_ValueError, "notes: expected one list per column");
        rc = -1;
    }
    for (size_t c = 0; !rc && c < args->n_columns; c++) {
        tq_column holder = {.name = args->columns[c].name};
        rc = put_slices(arena, PyTuple_GET_ITEM(lists, (Py_ssize_t)c), &holder);
        if (!rc && holder.n_slices != args->n) {
            PyErr_Format(PyExc_ValueError, "notes of %s: expected %zu, got %zu", holder.name, args->n, holder.n_slices);
            rc = -1;
        }
        notes[c] = holder.slices;
    }
    Py_XDECREF(lists);
    return rc ? NULL : notes;
}

PyObject *core_client_notify(core_client *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"partition", "meta",  "keys", "n",       "must_exist", "groups", "columns",
                            "tags",      "notes", "keep", "remover", "timeout",    NULL};
    put_call call = {.args = {.size = sizeof(tq_put_args)}};
    PyObject *lists = NULL;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|$zOOnpOOOOOzd:notify", names, &call.args.partition, &call.meta,
                                     &call.keys, &call.n, &call.must_exist, &call.groups, &call.columns, &call.tags,
                                     &lists, &call.keep, &call.args.remover, &call.timeout)) {
        return NULL;
    }
    core_op *op = core_op_new(self, call.args.remover != NULL ? CORE_GIVES_CLEARINGS : CORE_GIVES_META, call.timeout);
    if (op == NULL) {
        return NULL;
    }
    const tq_slice *const *notes = put_parse(op, &call) ? NULL : put_notes(&op->args, lists, &call.args);
    if (notes == NULL) {
        Py_DECREF(op);
        return NULL;
    }
    core_op_begin(op);
    return core_op_finish(op, tq_notify(op->op, &call.args, notes));
}
