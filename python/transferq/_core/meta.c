/*
 * meta.c - Meta: which samples, and where their cells are stored; immutable, as in C.
 *
 * Columns (indexes, shapes, readiness) are exposed as Buffers over the meta's memory, never as one object per cell.
 */
#include "core.h"

PyObject *core_meta_wrap(core_state *state, const tq_meta *meta)
{
    if (meta == NULL) {
        Py_RETURN_NONE;
    }
    core_meta *self = PyObject_New(core_meta, state->meta);
    if (self == NULL) {
        return NULL;
    }
    core_count(CORE_META, 1);
    self->meta = tq_meta_ref(meta);
    return (PyObject *)self;
}

/* Takes over the reference to a meta created by a call. */
static PyObject *meta_take(core_state *state, tq_meta *meta)
{
    PyObject *self = core_meta_wrap(state, meta);

    tq_meta_unref(meta);
    return self;
}

static void meta_dealloc(core_meta *self)
{
    PyTypeObject *type = Py_TYPE(self);

    tq_meta_unref(self->meta);
    core_count(CORE_META, -1);
    PyObject_Free(self);
    Py_DECREF(type);
}

static Py_ssize_t meta_length(core_meta *self)
{
    return (Py_ssize_t)tq_meta_sample_count(self->meta);
}

/* --- making and combining ------------------------------------------------- */

PyDoc_STRVAR(meta_make_doc, "make($cls, /, partition, indexes, fields=(), incarnations=None)\n--\n\n"
                            "A Meta made by hand, without placements: a read asks the controller for them.");

static PyObject *meta_make(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"partition", "indexes", "fields", "incarnations", NULL};
    core_state *state = PyType_GetModuleState(type);
    const char *partition;
    PyObject *indexes, *fields = NULL, *incarnations = NULL, *result = NULL;
    core_arena arena = {0};
    const uint32_t *index, *incarnation;
    const char *const *field;
    size_t n, n_incarnations, n_fields;
    tq_meta *meta;
    tq_error err = {0};

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "sO|OO:make", names, &partition, &indexes, &fields, &incarnations)) {
        return NULL;
    }
    if (core_u32s(&arena, indexes, "indexes", &index, &n) ||
        core_u32s(&arena, incarnations, "incarnations", &incarnation, &n_incarnations) ||
        core_strings(&arena, fields, "fields", false, &field, &n_fields)) {
        goto out;
    }
    if (incarnation != NULL && n_incarnations != n) {
        PyErr_SetString(PyExc_ValueError, "incarnations: expected one per index");
        goto out;
    }
    result = tq_meta_make(partition, index, incarnation, n, field, n_fields, &meta, &err) ? core_raise(state, &err)
                                                                                          : meta_take(state, meta);
out:
    core_arena_free(&arena);
    return result;
}

PyDoc_STRVAR(meta_select_doc, "select($self, /, rows=None, fields=None)\n--\n\n"
                              "A Meta of these rows (positions, in any order, repeats allowed; None: all) and these\n"
                              "fields (None: all).");

static PyObject *meta_select(core_meta *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"rows", "fields", NULL};
    core_state *state = core_state_of((PyObject *)self);
    PyObject *rows = Py_None, *fields = Py_None, *result = NULL;
    core_arena arena = {0};
    const uint32_t *row;
    const char *const *field;
    size_t n, n_fields;
    tq_meta *meta;
    tq_error err = {0};

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OO:select", names, &rows, &fields)) {
        return NULL;
    }
    if (core_u32s(&arena, rows, "rows", &row, &n) || core_strings(&arena, fields, "fields", false, &field, &n_fields)) {
        goto out;
    }
    if (rows == Py_None) {
        n = tq_meta_sample_count(self->meta);
        uint32_t *all = core_arena_alloc(&arena, n + 1, sizeof(*all));
        if (all == NULL) {
            goto out;
        }
        for (size_t i = 0; i < n; i++) {
            all[i] = (uint32_t)i;
        }
        row = all;
    }
    result = tq_meta_select(self->meta, row, n, field, n_fields, &meta, &err) ? core_raise(state, &err)
                                                                              : meta_take(state, meta);
out:
    core_arena_free(&arena);
    return result;
}

PyDoc_STRVAR(meta_concat_doc,
             "concat($cls, metas, /)\n--\n\n"
             "A Meta of all rows, one Meta after the other. Partitions, fields and dtypes must agree.");

static PyObject *meta_concat(PyTypeObject *type, PyObject *list)
{
    core_state *state = PyType_GetModuleState(type);
    PyObject *items = PySequence_Fast(list, "concat: expected a list of Meta");
    PyObject *result = NULL;
    core_arena arena = {0};
    tq_meta *meta;
    tq_error err = {0};

    if (items == NULL) {
        return NULL;
    }
    size_t n = (size_t)PySequence_Fast_GET_SIZE(items);
    tq_meta **metas = core_arena_alloc(&arena, n + 1, sizeof(*metas));
    for (size_t i = 0; metas != NULL && i < n; i++) {
        PyObject *item = PySequence_Fast_GET_ITEM(items, (Py_ssize_t)i);
        if (!Py_IS_TYPE(item, state->meta)) {
            PyErr_SetString(PyExc_TypeError, "concat: expected a list of Meta");
            metas = NULL;
            break;
        }
        metas[i] = ((core_meta *)item)->meta;
    }
    if (metas != NULL) {
        result = tq_meta_concat(metas, n, &meta, &err) ? core_raise(state, &err) : meta_take(state, meta);
    }
    core_arena_free(&arena);
    Py_DECREF(items);
    return result;
}

PyDoc_STRVAR(meta_union_doc,
             "union($self, other, /)\n--\n\n"
             "A Meta of the same samples with the fields of both. A field that both have is taken from\n"
             "`other`.");

static PyObject *meta_union(core_meta *self, PyObject *other)
{
    core_state *state = core_state_of((PyObject *)self);
    tq_meta *meta;
    tq_error err = {0};

    if (!Py_IS_TYPE(other, state->meta)) {
        PyErr_SetString(PyExc_TypeError, "union: expected a Meta");
        return NULL;
    }
    if (tq_meta_union(self->meta, ((core_meta *)other)->meta, &meta, &err)) {
        return core_raise(state, &err);
    }
    return meta_take(state, meta);
}

PyDoc_STRVAR(meta_pack_doc, "pack($self, /)\n--\n\n"
                            "The Meta as bytes, for another process.");

static PyObject *meta_pack(core_meta *self, PyObject *Py_UNUSED(ignored))
{
    tq_error err = {0};
    uint8_t *bytes;
    size_t size;

    if (tq_meta_pack(self->meta, &bytes, &size, &err)) {
        return core_raise(core_state_of((PyObject *)self), &err);
    }
    PyObject *result = PyBytes_FromStringAndSize((const char *)bytes, (Py_ssize_t)size);
    free(bytes);
    return result;
}

PyDoc_STRVAR(meta_unpack_doc, "unpack($cls, bytes, /)\n--\n\n"
                              "The Meta that these bytes, made by pack, describe. They are checked.");

static PyObject *meta_unpack(PyTypeObject *type, PyObject *bytes)
{
    core_state *state = PyType_GetModuleState(type);
    tq_error err = {0};
    tq_meta *meta;
    Py_buffer view;

    if (PyObject_GetBuffer(bytes, &view, PyBUF_SIMPLE)) {
        return NULL;
    }
    int rc = tq_meta_unpack(view.buf, (size_t)view.len, &meta, &err);
    PyBuffer_Release(&view);
    return rc ? core_raise(state, &err) : meta_take(state, meta);
}

/* --- looking inside ------------------------------------------------------- */

static PyObject *meta_partition(core_meta *self, void *Py_UNUSED(closure))
{
    return core_text(tq_meta_partition(self->meta));
}

static PyObject *meta_epoch(core_meta *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(tq_meta_epoch(self->meta));
}

static PyObject *meta_claim(core_meta *self, void *Py_UNUSED(closure))
{
    return PyLong_FromUnsignedLongLong(tq_meta_claim(self->meta));
}

static PyObject *meta_indexes(core_meta *self, void *Py_UNUSED(closure))
{
    return core_buffer_make(core_state_of((PyObject *)self), (PyObject *)self, tq_meta_indexes(self->meta),
                            tq_meta_sample_count(self->meta), 'I', false);
}

static PyObject *meta_incarnations(core_meta *self, void *Py_UNUSED(closure))
{
    const uint32_t *incarnations = tq_meta_incarnations(self->meta);

    return core_buffer_make(core_state_of((PyObject *)self), (PyObject *)self, incarnations,
                            incarnations != NULL ? tq_meta_sample_count(self->meta) : 0, 'I', false);
}

static PyObject *meta_texts(core_meta *self, const char *(*text)(const tq_meta *meta, size_t i))
{
    size_t n = tq_meta_sample_count(self->meta);
    PyObject *list = PyList_New((Py_ssize_t)n);

    for (size_t i = 0; list != NULL && i < n; i++) {
        PyObject *item = core_text(text(self->meta, i));
        if (item == NULL) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, (Py_ssize_t)i, item);
    }
    return list;
}

static PyObject *meta_keys(core_meta *self, void *Py_UNUSED(closure))
{
    return meta_texts(self, tq_meta_key);
}

static PyObject *meta_groups(core_meta *self, void *Py_UNUSED(closure))
{
    return meta_texts(self, tq_meta_group);
}

static PyObject *meta_field(core_meta *self, const tq_meta_field *field)
{
    core_state *state = core_state_of((PyObject *)self);
    PyObject *owner = (PyObject *)self;
    size_t n = tq_meta_sample_count(self->meta), n_dims = 0;
    bool shapes = field->ragged && field->ndims != NULL;

    for (size_t i = 0; shapes && i < n; i++) {
        n_dims += field->ndims[i];
    }
    PyObject *items[] = {
        core_text(field->name),
        PyLong_FromLong(field->kind),
        PyLong_FromLong(field->dtype.code),
        PyLong_FromLong(field->dtype.bits),
        PyBool_FromLong(field->ragged),
        field->ragged ? Py_NewRef(Py_None) : core_shape(field->shape, field->ndim),
        shapes ? core_buffer_make(state, owner, field->ndims, n, 'I', false) : Py_NewRef(Py_None),
        shapes ? core_buffer_make(state, owner, field->dims, n_dims, 'Q', false) : Py_NewRef(Py_None),
        core_buffer_make(state, owner, field->ready, field->ready != NULL ? n : 0, 'B', false),
        PyLong_FromLong(field->ragged_dim),
        core_types(field->types, n),
    };
    return core_tuple(state->meta_field, items, sizeof(items) / sizeof(items[0]));
}

static PyObject *meta_fields(core_meta *self, void *Py_UNUSED(closure))
{
    size_t n = tq_meta_field_count(self->meta);
    PyObject *list = PyList_New((Py_ssize_t)n);

    for (size_t f = 0; list != NULL && f < n; f++) {
        PyObject *row = meta_field(self, tq_meta_field_at(self->meta, f));
        if (row == NULL) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, (Py_ssize_t)f, row);
    }
    return list;
}

static PyObject *meta_field_names(core_meta *self, void *Py_UNUSED(closure))
{
    size_t n = tq_meta_field_count(self->meta);
    PyObject *list = PyList_New((Py_ssize_t)n);

    for (size_t f = 0; list != NULL && f < n; f++) {
        PyObject *name = core_text(tq_meta_field_at(self->meta, f)->name);
        if (name == NULL) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, (Py_ssize_t)f, name);
    }
    return list;
}

static PyObject *meta_tags(core_meta *self, void *Py_UNUSED(closure))
{
    core_state *state = core_state_of((PyObject *)self);
    size_t n = tq_meta_tag_count(self->meta), samples = tq_meta_sample_count(self->meta);
    PyObject *list = PyList_New((Py_ssize_t)n);

    for (size_t t = 0; list != NULL && t < n; t++) {
        const tq_meta_tag *tag = tq_meta_tag_at(self->meta, t);
        size_t size = 0;
        for (size_t i = 0; i < samples; i++) {
            size += tag->sizes[i];
        }
        PyObject *name = core_text(tag->name);
        PyObject *values = core_buffer_make(state, (PyObject *)self, tag->values, size, 'B', false);
        PyObject *sizes = core_buffer_make(state, (PyObject *)self, tag->sizes, samples, 'I', false);
        PyObject *row = name != NULL && values != NULL && sizes != NULL ? PyTuple_Pack(3, name, values, sizes) : NULL;
        Py_XDECREF(name);
        Py_XDECREF(values);
        Py_XDECREF(sizes);
        if (row == NULL) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, (Py_ssize_t)t, row);
    }
    return list;
}

/* First byte of the name of a tag whose key is no ordinary text; see transferq._impl.tag_names.tag_name. */
#define NAME_MARK 0x1f

PyDoc_STRVAR(meta_tag_maps_doc, "tag_maps($self, decode, decode_name, /)\n--\n\n"
                                "The tags of each sample as a dict. `decode` is called for values that are not plain,\n"
                                "`decode_name` for names that begin with the byte 0x1f, which stand for other keys.");

static int meta_tag_into(const tq_meta_tag *tag, PyObject *maps, PyObject *decode, PyObject *decode_name)
{
    PyObject *name = tag->name[0] == NAME_MARK ? PyObject_CallFunction(decode_name, "s", tag->name)
                                               : PyUnicode_InternFromString(tag->name);
    const uint8_t *at = tag->values;
    Py_ssize_t n = PyList_GET_SIZE(maps);
    int rc = name != NULL ? 0 : -1;

    for (Py_ssize_t i = 0; !rc && i < n; i++) {
        size_t size = tag->sizes[i];
        if (size == 0) {
            continue;
        }
        PyObject *value = core_unpack(at, size, NULL, decode);
        rc = value != NULL ? PyDict_SetItem(PyList_GET_ITEM(maps, i), name, value) : -1;
        Py_XDECREF(value);
        at += size;
    }
    Py_XDECREF(name);
    return rc;
}

static PyObject *meta_tag_maps(core_meta *self, PyObject *args)
{
    PyObject *decode, *decode_name;

    if (!PyArg_ParseTuple(args, "OO:tag_maps", &decode, &decode_name)) {
        return NULL;
    }
    size_t n = tq_meta_sample_count(self->meta);
    PyObject *maps = PyList_New((Py_ssize_t)n);
    int collects = PyGC_Disable(); /* this many new objects would make it scan all others in vain */

    for (size_t i = 0; maps != NULL && i < n; i++) {
        PyObject *map = PyDict_New();
        if (map == NULL) {
            Py_CLEAR(maps);
            break;
        }
        PyList_SET_ITEM(maps, (Py_ssize_t)i, map);
    }
    for (size_t t = 0; maps != NULL && t < tq_meta_tag_count(self->meta); t++) {
        if (meta_tag_into(tq_meta_tag_at(self->meta, t), maps, decode, decode_name)) {
            Py_CLEAR(maps);
        }
    }
    if (collects) {
        PyGC_Enable();
    }
    return maps;
}

PyDoc_STRVAR(meta_notes_doc, "notes($self, field, /)\n--\n\n"
                             "The notes of a field's cells, one per sample (empty: none); None for a field that no\n"
                             "storage manager in Python keeps.");

static PyObject *meta_notes(core_meta *self, PyObject *name)
{
    const char *wanted;
    size_t n = tq_meta_field_count(self->meta);

    if (core_string(name, "field", &wanted)) {
        return NULL;
    }
    for (size_t f = 0; wanted != NULL && f < n; f++) {
        const tq_slice *notes = tq_meta_notes(self->meta, f);
        if (notes != NULL && strcmp(tq_meta_field_at(self->meta, f)->name, wanted) == 0) {
            return core_notes(notes, tq_meta_sample_count(self->meta));
        }
    }
    Py_RETURN_NONE;
}

static PyMethodDef meta_methods[] = {
    {"make", (PyCFunction)(void (*)(void))meta_make, METH_VARARGS | METH_KEYWORDS | METH_CLASS, meta_make_doc},
    {"select", (PyCFunction)(void (*)(void))meta_select, METH_VARARGS | METH_KEYWORDS, meta_select_doc},
    {"concat", (PyCFunction)(void (*)(void))meta_concat, METH_O | METH_CLASS, meta_concat_doc},
    {"union", (PyCFunction)meta_union, METH_O, meta_union_doc},
    {"notes", (PyCFunction)meta_notes, METH_O, meta_notes_doc},
    {"tag_maps", (PyCFunction)meta_tag_maps, METH_VARARGS, meta_tag_maps_doc},
    {"pack", (PyCFunction)meta_pack, METH_NOARGS, meta_pack_doc},
    {"unpack", (PyCFunction)(void (*)(void))meta_unpack, METH_O | METH_CLASS, meta_unpack_doc},
    {0},
};

static PyGetSetDef meta_getset[] = {
    {"partition", (getter)meta_partition, NULL, "Name of the partition.", NULL},
    {"epoch", (getter)meta_epoch, NULL, "Epoch of the controller that made it; 0: made by hand.", NULL},
    {"claim", (getter)meta_claim, NULL, "Id of the claim that it answered; 0 without one.", NULL},
    {"indexes", (getter)meta_indexes, NULL, "Global index of each sample.", NULL},
    {"incarnations", (getter)meta_incarnations, NULL, "Incarnation of each sample; 0: any.", NULL},
    {"keys", (getter)meta_keys, NULL, "Key of each sample, or None.", NULL},
    {"groups", (getter)meta_groups, NULL, "Group of each sample, or None.", NULL},
    {"fields", (getter)meta_fields, NULL, "A MetaField for each field.", NULL},
    {"field_names", (getter)meta_field_names, NULL, "Names of the fields.", NULL},
    {"tags", (getter)meta_tags, NULL, "(name, msgpack-encoded values, their sizes) of each tag.", NULL},
    {0},
};

static PyType_Slot meta_slots[] = {
    {Py_tp_doc, "Which samples, and where their cells lie; immutable."},
    {Py_tp_dealloc, meta_dealloc},
    {Py_tp_methods, meta_methods},
    {Py_tp_getset, meta_getset},
    {Py_sq_length, meta_length},
    {0, NULL},
};

static PyType_Spec meta_spec = {
    .name = "transferq._core.Meta",
    .basicsize = sizeof(core_meta),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = meta_slots,
};

PyTypeObject *core_meta_type(PyObject *module)
{
    return (PyTypeObject *)PyType_FromModuleAndSpec(module, &meta_spec, NULL);
}
