/*
 * unpack.c - unpack_rows: decodes MessagePack to columns of values; the inverse of pack.c.
 *
 * `build(code, value)` creates the object that an extension type stands for; value is the decoded payload, or the
 * payload itself as bytes (UNPACK_NESTED lists the former). For a CORE_BUFFER it is build(code, parts, memory), where
 * memory is a writable view of the given data if it is aligned and large enough, otherwise a bytearray: a small value
 * must not keep the memory of the whole read alive.
 *
 * A row that is not understood here (malformed bytes, deep nesting) is passed to `decode` as a whole, so it is never
 * an error here.
 */
#include "core.h"

#define UNPACK_DEPTH 500

/* Codes whose payload is a value (encoding.py): tensor, array, scalar, TensorDict, complex, nested, out of band,
 * image, raw. */
#define UNPACK_NESTED (1u << 1 | 1u << 2 | 1u << 3 | 1u << 6 | 1u << 8 | 1u << 10 | 1u << 12 | 1u << 13 | 1u << 14)

typedef struct unpacker {
    const uint8_t *at, *end;
    PyObject *build; /* borrowed; NULL: extension types are passed to `decode` */
    PyObject *whole; /* borrowed memoryview of the data being unpacked, or NULL */
    const uint8_t *base;
} unpacker;

/* Reads a big-endian number of `n` bytes; false if fewer are left. */
static bool unpack_number(unpacker *in, unsigned n, uint64_t *number)
{
    if ((size_t)(in->end - in->at) < n) {
        return false;
    }
    *number = 0;
    while (n-- > 0) {
        *number = *number << 8 | *in->at++;
    }
    return true;
}

/* Values are returned as new references; NULL without an exception: this row is for `decode`. */
static PyObject *unpack_value(unpacker *in, unsigned depth);

/* Whether all characters are ASCII; may run without the GIL. */
static bool unpack_is_ascii(const uint8_t *text, size_t size)
{
    uint64_t bits = 0, word;
    size_t i = 0;

    for (; i + 8 <= size; i += 8) {
        memcpy(&word, text + i, 8);
        bits |= word;
    }
    for (; i < size; i++) {
        bits |= (uint64_t)text[i] << 56;
    }
    return !(bits & UINT64_C(0x8080808080808080));
}

static PyObject *unpack_text(const uint8_t *from, size_t size)
{
    bool ascii = false;

    if (size >= CORE_COPY_ALONE) {
        PyThreadState *thread = PyEval_SaveThread();
        ascii = unpack_is_ascii(from, size);
        PyEval_RestoreThread(thread);
    }
    if (ascii) {
        PyObject *made = PyUnicode_New((Py_ssize_t)size, 127);
        if (made != NULL) {
            core_copy(PyUnicode_1BYTE_DATA(made), from, size);
        }
        return made;
    }
    PyObject *made = PyUnicode_DecodeUTF8((const char *)from, (Py_ssize_t)size, NULL);
    if (made == NULL && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
        PyErr_Clear();
        made = PyUnicode_DecodeUTF8((const char *)from, (Py_ssize_t)size, "surrogatepass");
        if (made == NULL && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
            PyErr_Clear();
        }
    }
    return made;
}

static PyObject *unpack_bytes(unpacker *in, uint64_t size, bool text)
{
    const uint8_t *from = in->at;

    if ((uint64_t)(in->end - in->at) < size) {
        return NULL;
    }
    in->at += size;
    core_pace_step((size_t)size >> 10);
    if (text) {
        return unpack_text(from, (size_t)size);
    }
    PyObject *made = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (made != NULL) {
        core_copy(PyBytes_AS_STRING(made), from, (size_t)size);
    }
    return made;
}

static PyObject *unpack_list(unpacker *in, uint64_t n, unsigned depth)
{
    /* Every item takes at least one byte. */
    PyObject *list = depth < UNPACK_DEPTH && n <= (uint64_t)(in->end - in->at) ? PyList_New((Py_ssize_t)n) : NULL;

    for (uint64_t i = 0; list != NULL && i < n; i++) {
        PyObject *item = unpack_value(in, depth + 1);
        if (item == NULL) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, (Py_ssize_t)i, item);
    }
    return list;
}

/* A key of a map: lists, once tuples, are tuples again. */
static PyObject *unpack_key(PyObject *key)
{
    if (!PyList_CheckExact(key)) {
        return Py_NewRef(key);
    }
    PyObject *tuple = PyTuple_New(PyList_GET_SIZE(key));
    for (Py_ssize_t i = 0; tuple != NULL && i < PyList_GET_SIZE(key); i++) {
        PyObject *item = unpack_key(PyList_GET_ITEM(key, i));
        if (item == NULL) {
            Py_CLEAR(tuple);
            break;
        }
        PyTuple_SET_ITEM(tuple, i, item);
    }
    return tuple;
}

static PyObject *unpack_map(unpacker *in, uint64_t n, unsigned depth)
{
    PyObject *map = depth < UNPACK_DEPTH && n <= (uint64_t)(in->end - in->at) / 2 ? PyDict_New() : NULL;

    for (uint64_t i = 0; map != NULL && i < n; i++) {
        PyObject *key = unpack_value(in, depth + 1);
        if (key != NULL && PyUnicode_CheckExact(key)) {
            PyUnicode_InternInPlace(&key);
        } else if (key != NULL) {
            Py_SETREF(key, unpack_key(key));
        }
        PyObject *value = key != NULL ? unpack_value(in, depth + 1) : NULL;
        if (value == NULL || PyDict_SetItem(map, key, value)) {
            Py_CLEAR(map);
            if (value != NULL && PyErr_ExceptionMatches(PyExc_TypeError)) {
                PyErr_Clear(); /* an unhashable key */
            }
        }
        Py_XDECREF(key);
        Py_XDECREF(value);
    }
    return map;
}

static PyObject *unpack_float(unpacker *in, unsigned n)
{
    uint64_t bits;
    double number;

    if (!unpack_number(in, n, &bits)) {
        return NULL;
    }
    if (n == 4) {
        uint32_t half = (uint32_t)bits;
        float small;
        memcpy(&small, &half, sizeof(small));
        number = (double)small;
    } else {
        memcpy(&number, &bits, sizeof(number));
    }
    return PyFloat_FromDouble(number);
}

static PyObject *unpack_int(unpacker *in, uint8_t type)
{
    unsigned n = 1u << (type & 3);
    uint64_t bits;

    if (!unpack_number(in, n, &bits)) {
        return NULL;
    }
    if (type < 0xd0) {
        return PyLong_FromUnsignedLongLong(bits);
    }
    /* The sign is in the first byte. */
    unsigned spare = 64 - (8u << (type & 3));
    return PyLong_FromLongLong((long long)(bits << spare) >> spare);
}

/* --- extensions ----------------------------------------------------------- */

/* Part of the data, as a view or a copy. */
static PyObject *unpack_memory(const unpacker *in, const uint8_t *from, size_t size)
{
    if (in->whole != NULL && size >= CORE_VIEW && (uintptr_t)from % CORE_ALIGN == 0) {
        Py_ssize_t start = from - in->base;
        return PySequence_GetSlice(in->whole, start, start + (Py_ssize_t)size);
    }
    PyObject *copy = PyByteArray_FromStringAndSize(NULL, (Py_ssize_t)size);
    if (copy != NULL) {
        core_copy(PyByteArray_AS_STRING(copy), from, size);
        core_pace_step(size >> 10);
    }
    return copy;
}

/* A small number in MessagePack's short form. */
static bool unpack_size(unpacker *in, uint64_t *number)
{
    if (in->at == in->end) {
        return false;
    }
    uint8_t type = *in->at++;
    if (type < 0x80) {
        *number = type;
        return true;
    }
    return type >= 0xcc && type <= 0xcf && unpack_number(in, 1u << (type & 3), number);
}

/* Memory with a description, see pack.c; the payload is at the end of `in`. */
static PyObject *unpack_buffer(unpacker *in, unsigned depth)
{
    uint64_t code, size, lead;

    if (in->at == in->end || *in->at++ != 0x94 || !unpack_size(in, &code) || code > INT8_MAX) {
        return NULL;
    }
    PyObject *parts = unpack_value(in, depth + 1);
    PyObject *memory = NULL, *made = NULL;
    if (parts != NULL && unpack_size(in, &size) && unpack_size(in, &lead) && lead <= (uint64_t)(in->end - in->at) &&
        size <= (uint64_t)(in->end - in->at) - lead) {
        memory = unpack_memory(in, in->at + lead, (size_t)size);
    }
    if (memory != NULL) {
        made = PyObject_CallFunction(in->build, "iOO", (int)code, parts, memory);
    }
    Py_XDECREF(parts);
    Py_XDECREF(memory);
    return made;
}

static PyObject *unpack_extension(unpacker *in, uint64_t size, unsigned depth)
{
    if ((uint64_t)(in->end - in->at) < 1 || (uint64_t)(in->end - in->at) - 1 < size || in->build == NULL ||
        depth >= UNPACK_DEPTH) {
        return NULL;
    }
    uint8_t code = *in->at++;
    unpacker payload = *in;
    payload.end = in->at += size;
    if (code > INT8_MAX) {
        return NULL; /* reserved by MessagePack */
    }
    core_pace_step(20);
    if (code == CORE_BUFFER) {
        return unpack_buffer(&payload, depth);
    }
    PyObject *value;
    if (code < 32 && UNPACK_NESTED & 1u << code) {
        value = unpack_value(&payload, depth + 1);
        if (value != NULL && payload.at != payload.end) {
            Py_CLEAR(value);
        }
    } else {
        value = unpack_bytes(&payload, size, false);
    }
    PyObject *made = value != NULL ? PyObject_CallFunction(in->build, "iO", (int)code, value) : NULL;
    Py_XDECREF(value);
    return made;
}

/* --- values --------------------------------------------------------------- */

/* Types preceded by a length of 1 << `power` bytes. */
static PyObject *unpack_long(unpacker *in, uint8_t type, unsigned power, unsigned depth)
{
    uint64_t length;

    if (!unpack_number(in, 1u << power, &length)) {
        return NULL;
    }
    switch (type) {
    case 0xc4:
    case 0xc5:
    case 0xc6:
        return unpack_bytes(in, length, false);
    case 0xc7:
    case 0xc8:
    case 0xc9:
        return unpack_extension(in, length, depth);
    case 0xdc:
    case 0xdd:
        return unpack_list(in, length, depth);
    case 0xde:
    case 0xdf:
        return unpack_map(in, length, depth);
    default:
        return unpack_bytes(in, length, true);
    }
}

static PyObject *unpack_value(unpacker *in, unsigned depth)
{
    core_pace_step(1);
    if (in->at == in->end) {
        return NULL;
    }
    uint8_t type = *in->at++;
    if (type < 0x80 || type >= 0xe0) {
        return PyLong_FromLong((int8_t)type);
    }
    if (type < 0x90) {
        return unpack_map(in, type & 0x0f, depth);
    }
    if (type < 0xa0) {
        return unpack_list(in, type & 0x0f, depth);
    }
    if (type < 0xc0) {
        return unpack_bytes(in, type & 0x1f, true);
    }
    switch (type) {
    case 0xc0:
        return Py_NewRef(Py_None);
    case 0xc2:
    case 0xc3:
        return PyBool_FromLong(type == 0xc3);
    case 0xc4:
    case 0xc5:
    case 0xc6:
        return unpack_long(in, type, type - 0xc4u, depth);
    case 0xc7:
    case 0xc8:
    case 0xc9:
        return unpack_long(in, type, type - 0xc7u, depth);
    case 0xca:
    case 0xcb:
        return unpack_float(in, type == 0xca ? 4 : 8);
    case 0xd4:
    case 0xd5:
    case 0xd6:
    case 0xd7:
    case 0xd8:
        return unpack_extension(in, 1u << (type - 0xd4u), depth);
    case 0xd9:
    case 0xda:
    case 0xdb:
        return unpack_long(in, type, type - 0xd9u, depth);
    case 0xdc:
    case 0xdd:
        return unpack_long(in, type, type - 0xdbu, depth);
    case 0xde:
    case 0xdf:
        return unpack_long(in, type, type - 0xddu, depth);
    default:
        return type >= 0xcc && type <= 0xd3 ? unpack_int(in, type) : NULL;
    }
}

PyObject *core_unpack(const uint8_t *data, size_t size, PyObject *build, PyObject *decode)
{
    unpacker in = {.at = data, .end = data + size, .build = build};
    PyObject *value = unpack_value(&in, 0);

    if (value != NULL && in.at == in.end) {
        return value;
    }
    Py_XDECREF(value);
    if (PyErr_Occurred() != NULL) {
        return NULL;
    }
    /* A copy, because a decoder may keep its argument. */
    PyObject *bytes = PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)size);
    PyObject *view = bytes != NULL ? PyMemoryView_FromObject(bytes) : NULL;
    value = view != NULL ? PyObject_CallOneArg(decode, view) : NULL;
    Py_XDECREF(view);
    Py_XDECREF(bytes);
    return value;
}

/* The row in `in`, which is part of `whole`. */
static PyObject *unpack_row(unpacker *in, PyObject *whole, PyObject *decode)
{
    const uint8_t *start = in->at;
    PyObject *value = unpack_value(in, 0);

    if (value != NULL && in->at == in->end) {
        return value;
    }
    Py_XDECREF(value);
    if (PyErr_Occurred() != NULL) {
        return NULL;
    }
    PyObject *row = PySequence_GetSlice(whole, start - in->base, in->end - in->base);
    value = row != NULL ? PyObject_CallOneArg(decode, row) : NULL;
    Py_XDECREF(row);
    return value;
}

/* The rows between the offsets, which must be ascending and within the data. */
static PyObject *unpack_all(PyObject *whole, const Py_buffer *offsets, PyObject *build, PyObject *decode)
{
    const Py_buffer *data = PyMemoryView_GET_BUFFER(whole);
    const uint64_t *bounds = offsets->buf;
    Py_ssize_t n = offsets->len / 8 - 1;
    PyObject *list = PyList_New(n < 0 ? 0 : n);
    const uint8_t *base = data->buf;

    if (list != NULL && core_texts(base, (size_t)data->len, bounds, n, list)) {
        Py_CLEAR(list);
    }
    for (Py_ssize_t i = 0; list != NULL && i < n; i++) {
        PyObject *value = NULL;
        if (PyList_GET_ITEM(list, i)) {
            continue;
        }
        if (bounds[i] > bounds[i + 1] || bounds[i + 1] > (uint64_t)data->len) {
            PyErr_SetString(PyExc_ValueError, "offsets do not fit the data");
        } else {
            unpacker in = {base + bounds[i], base + bounds[i + 1], build, data->readonly ? NULL : whole, base};
            value = unpack_row(&in, whole, decode);
        }
        if (value == NULL) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, i, value);
    }
    return list;
}

PyObject *core_unpack_rows(PyObject *object, PyObject *bounds, PyObject *build, PyObject *decode)
{
    PyObject *list = NULL;
    Py_buffer offsets;
    PyObject *whole = PyMemoryView_FromObject(object);

    if (whole != NULL && !PyBuffer_IsContiguous(PyMemoryView_GET_BUFFER(whole), 'C')) {
        PyErr_SetString(PyExc_TypeError, "the data of the rows must be contiguous");
        Py_CLEAR(whole);
    }
    if (whole != NULL && !PyObject_GetBuffer(bounds, &offsets, PyBUF_C_CONTIGUOUS)) {
        if (offsets.itemsize == 8) {
            list = unpack_all(whole, &offsets, build, decode);
        } else {
            PyErr_SetString(PyExc_TypeError, "offsets must be 64-bit integers");
        }
        PyBuffer_Release(&offsets);
    }
    Py_XDECREF(whole);
    return list;
}
