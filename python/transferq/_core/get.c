/*
 * get.c - Client.get: reads, with columns laid out and placed as requested.
 *
 * A layout is a transferq._impl.column.Layout, which names and explains its entries; they are those of tq_get_field.
 *
 * Memory to read into is lent to the library, which may write to it even after the operation has completed (a
 * cancelled read). Therefore a loan keeps its owner alive, not the operation. The library returns the loan on any
 * thread, without the GIL, and core_reap drops it.
 */
#include "core.h"

typedef struct get_loan {
    PyObject *object;
    struct get_loan *next;
} get_loan;

static get_loan *get_returned; /* under core_lock */

static void get_release(void *arg)
{
    get_loan *loan = arg;

    pthread_mutex_lock(&core_lock);
    loan->next = get_returned;
    get_returned = loan;
    pthread_mutex_unlock(&core_lock);
}

void core_get_reap(void)
{
    pthread_mutex_lock(&core_lock);
    get_loan *loan = get_returned;
    get_returned = NULL;
    pthread_mutex_unlock(&core_lock);
    while (loan != NULL) {
        get_loan *next = loan->next;
        Py_DECREF(loan->object);
        PyMem_Free(loan);
        loan = next;
    }
}

static get_loan *get_lend(PyObject *object)
{
    get_loan *loan = PyMem_Malloc(sizeof(*loan));

    if (loan == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    loan->object = Py_NewRef(object);
    return loan;
}

tq_meta *core_call_meta(core_op *op, PyObject *object)
{
    if (!Py_IS_TYPE(object, core_state_of((PyObject *)op)->meta)) {
        PyErr_Format(PyExc_TypeError, "expected a Meta, got %.100s", Py_TYPE(object)->tp_name);
        return NULL;
    }
    return core_arena_hold(&op->args, object) ? NULL : ((core_meta *)object)->meta;
}

static int get_layout(PyObject *tuple, tq_get_field *field)
{
    PyObject *name;
    int padded, rc, bits;
    unsigned long long length, multiple, address;
    const char *pad;
    Py_ssize_t pad_size, size;

    if (!PyTuple_Check(tuple)) {
        PyErr_SetString(PyExc_TypeError, "a layout is a tuple");
        return -1;
    }
    if (!PyArg_ParseTuple(tuple, "OpKKiiy#Kn;a layout has nine entries", &name, &padded, &length, &multiple, &rc, &bits,
                          &pad, &pad_size, &address, &size) ||
        core_string(name, "field", &field->name)) {
        return -1;
    }
    if (size < 0 || pad_size > (Py_ssize_t)sizeof(field->pad) || (pad_size && pad_size != bits / 8)) {
        PyErr_Format(PyExc_ValueError, "layout of %R: malformed sizes", name);
        return -1;
    }
    field->padded = padded;
    field->length = length;
    field->multiple = multiple;
    if (pad_size) {
        field->pad_dtype = (tq_dtype){(uint8_t)rc, (uint8_t)bits};
        memcpy(field->pad, pad, (size_t)pad_size);
    }
    field->dest = (void *)(uintptr_t)address;
    field->dest_size = (size_t)size;
    return 0;
}

static int get_layouts(core_op *op, PyObject *object, tq_get_options *options)
{
    PyObject *items = object != NULL ? PySequence_Tuple(object) : PyTuple_New(0);

    if (items == NULL) {
        return -1;
    }
    size_t n = (size_t)PyTuple_GET_SIZE(items);
    tq_get_field *fields = core_arena_alloc(&op->args, n + 1, sizeof(*fields));
    int rc = fields != NULL ? core_arena_hold(&op->args, items) : -1;
    Py_DECREF(items); /* held by the arena */
    for (size_t i = 0; !rc && i < n; i++) {
        rc = get_layout(PyTuple_GET_ITEM(items, (Py_ssize_t)i), &fields[i]);
    }
    options->fields = fields;
    options->n_fields = n;
    return rc;
}

PyObject *core_client_get_keys(core_client *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"partition", "keys", "fields", "timeout", "zero_copy", "leave_values", NULL};
    tq_get_by_key_args get = {.size = sizeof(get)};
    PyObject *keys, *fields = NULL;
    double timeout = 0;
    int zero_copy = 0, leave_values = 0;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "sO|Odpp:get_keys", names, &get.partition, &keys, &fields, &timeout,
                                     &zero_copy, &leave_values)) {
        return NULL;
    }
    core_op *op = core_op_new(self, CORE_GIVES_META_DATA, timeout);
    if (op == NULL) {
        return NULL;
    }
    if (core_strings(&op->args, keys, "keys", false, &get.keys, &get.n) ||
        core_strings(&op->args, fields, "fields", false, &get.fields, &get.n_fields)) {
        Py_DECREF(op);
        return NULL;
    }
    get.zero_copy = zero_copy;
    get.leave_values = leave_values;
    core_op_begin(op);
    return core_op_finish(op, tq_get_by_key(op->op, &get));
}

PyObject *core_client_get(core_client *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"meta", "fields", "layouts", "keep", "timeout", "zero_copy", "leave_values", NULL};
    tq_get_options options = {.size = sizeof(options)};
    PyObject *object, *fields = NULL, *layouts = NULL, *keep = NULL;
    const char *const *field = NULL;
    size_t n_fields = 0;
    double timeout = 0;
    int zero_copy = 0, leave_values = 0;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|OOOdpp:get", names, &object, &fields, &layouts, &keep, &timeout,
                                     &zero_copy, &leave_values)) {
        return NULL;
    }
    core_op *op = core_op_new(self, CORE_GIVES_DATA, timeout);
    if (op == NULL) {
        return NULL;
    }
    tq_meta *meta = core_call_meta(op, object);
    if (meta == NULL || core_strings(&op->args, fields, "fields", false, &field, &n_fields) ||
        get_layouts(op, layouts, &options)) {
        Py_DECREF(op);
        return NULL;
    }
    options.zero_copy = zero_copy;
    options.leave_values = leave_values;
    if (keep != NULL && keep != Py_None) {
        options.release_arg = get_lend(keep);
        if (options.release_arg == NULL) {
            Py_DECREF(op);
            return NULL;
        }
        options.release = get_release;
    }
    core_op_begin(op);
    return core_op_finish(op, tq_get(op->op, meta, field, n_fields, &options));
}
