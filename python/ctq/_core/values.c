/*
 * values.c - pack_rows and unpack_rows: columns of plain values (text, bytes, numbers, None, lists and maps of them) to and
 * from MessagePack, without a Python call per row.
 *
 * Everything else is left to the package's own encoder and decoder (encoding.py), a whole row at a time: values of other
 * types, extension types, text that is no UTF-8, deep nesting, malformed bytes.  So a row that is not understood here is
 * never an error here.
 */
#include "core.h"

#define VALUES_DEPTH 64

/* What a step says besides success (0) and an exception (-1): this row is not for us. */
#define VALUES_OTHER 1

/* ---------------------------------------------------------------------------------------- packing */

/* Columns of more bytes than this are packed into the library's warm memory, and put from there. */
#define VALUES_WARM ((size_t)64 << 10)

typedef struct values_out {
    char *bytes; /* warm memory when `room` is more than VALUES_WARM */
    size_t size, room;
} values_out;

static void out_free(values_out *out)
{
    if (out->room > VALUES_WARM) {
        tq_buffer_give(out->bytes, out->room);
    } else {
        PyMem_Free(out->bytes);
    }
    *out = (values_out){0};
}

/* Makes the room larger; an exception and false when there is no memory. */
static bool out_grow(values_out *out, size_t room)
{
    values_out next = {NULL, out->size, room};

    next.bytes = room > VALUES_WARM ? tq_buffer_take(room) : PyMem_Malloc(room);
    if (!next.bytes) {
        PyErr_NoMemory();
        return false;
    }
    if (out->size > 0) {
        memcpy(next.bytes, out->bytes, out->size);
    }
    out_free(out);
    *out = next;
    return true;
}

static char *out_more(values_out *out, size_t n)
{
    if (out->room - out->size < n) {
        size_t room = out->room * 2 > out->size + n ? out->room * 2 : out->size + n;
        if (!out_grow(out, room)) {
            return NULL;
        }
    }
    out->size += n;
    return out->bytes + out->size - n;
}

static void out_capsule_free(PyObject *capsule)
{
    size_t room = (size_t)(uintptr_t)PyCapsule_GetContext(capsule);

    tq_buffer_give(PyCapsule_GetPointer(capsule, NULL), room);
}

/* What was packed, as bytes, or as a Buffer on the warm memory that it lies in; `out` is empty then. */
static PyObject *out_object(values_out *out, core_state *state)
{
    PyObject *made = NULL;

    if (out->room <= VALUES_WARM) {
        made = PyBytes_FromStringAndSize(out->bytes, (Py_ssize_t)out->size);
        out_free(out);
        return made;
    }
    PyObject *memory = PyCapsule_New(out->bytes, NULL, NULL);
    if (!memory) {
        return NULL;
    }
    if (!PyCapsule_SetContext(memory, (void *)(uintptr_t)out->room) &&
        !PyCapsule_SetDestructor(memory, out_capsule_free)) {
        made = core_buffer_make(state, memory, out->bytes, out->size, 'B', false);
        *out = (values_out){0}; /* the capsule's, whether there is a view of it or not */
    }
    Py_DECREF(memory);
    return made;
}

/* A type byte with a big-endian number of `n` bytes behind it. */
static int out_head(values_out *out, uint8_t type, uint64_t number, unsigned n)
{
    char *at = out_more(out, 1 + n);

    if (!at) {
        return -1;
    }
    *at++ = (char)type;
    while (n > 0) {
        *at++ = (char)(number >> (8 * --n));
    }
    return 0;
}

/* The head of something with a length: types for 1, 2 and 4 bytes (0: there is none for 1). */
static int out_length(values_out *out, size_t length, uint8_t one, uint8_t two, uint8_t four)
{
    if (one && length <= UINT8_MAX) {
        return out_head(out, one, length, 1);
    }
    if (length <= UINT16_MAX) {
        return out_head(out, two, length, 2);
    }
    return length <= UINT32_MAX ? out_head(out, four, length, 4) : VALUES_OTHER;
}

static int out_copy(values_out *out, const char *from, size_t size)
{
    char *at = out_more(out, size);

    if (!at) {
        return -1;
    }
    memcpy(at, from, size);
    return 0;
}

static int pack_text(values_out *out, PyObject *value)
{
    Py_ssize_t size;
    const char *text = PyUnicode_AsUTF8AndSize(value, &size);

    if (!text) {
        if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) {
            return -1;
        }
        PyErr_Clear();
        return VALUES_OTHER;
    }
    int rc = size < 32 ? out_head(out, (uint8_t)(0xa0 | size), 0, 0)
                       : out_length(out, (size_t)size, 0xd9, 0xda, 0xdb);
    return rc ? rc : out_copy(out, text, (size_t)size);
}

static int pack_int(values_out *out, PyObject *value)
{
    int overflow;
    long long number = PyLong_AsLongLongAndOverflow(value, &overflow);

    if (overflow) {
        return VALUES_OTHER;
    }
    if (number == -1 && PyErr_Occurred()) {
        return -1;
    }
    uint64_t bits = (uint64_t)number;
    if (number >= -32 && number < 128) {
        return out_head(out, (uint8_t)number, 0, 0);
    }
    if (number >= 0) {
        return bits <= UINT8_MAX    ? out_head(out, 0xcc, bits, 1)
               : bits <= UINT16_MAX ? out_head(out, 0xcd, bits, 2)
               : bits <= UINT32_MAX ? out_head(out, 0xce, bits, 4)
                                    : out_head(out, 0xcf, bits, 8);
    }
    return number >= INT8_MIN    ? out_head(out, 0xd0, bits, 1)
           : number >= INT16_MIN ? out_head(out, 0xd1, bits, 2)
           : number >= INT32_MIN ? out_head(out, 0xd2, bits, 4)
                                 : out_head(out, 0xd3, bits, 8);
}

static int pack_float(values_out *out, PyObject *value)
{
    double number = PyFloat_AS_DOUBLE(value);
    uint64_t bits;

    memcpy(&bits, &number, sizeof(bits));
    return out_head(out, 0xcb, bits, 8);
}

static int pack_value(values_out *out, PyObject *value, unsigned depth);

static int pack_list(values_out *out, PyObject *list, unsigned depth)
{
    size_t n = (size_t)PyList_GET_SIZE(list);
    int rc = n < 16 ? out_head(out, (uint8_t)(0x90 | n), 0, 0) : out_length(out, n, 0, 0xdc, 0xdd);

    for (size_t i = 0; !rc && i < n; i++) {
        /* Nothing runs Python code on the way, so that the list stays as it is. */
        rc = pack_value(out, PyList_GET_ITEM(list, (Py_ssize_t)i), depth + 1);
    }
    return rc;
}

static int pack_map(values_out *out, PyObject *map, unsigned depth)
{
    size_t n = (size_t)PyDict_GET_SIZE(map);
    int rc = n < 16 ? out_head(out, (uint8_t)(0x80 | n), 0, 0) : out_length(out, n, 0, 0xde, 0xdf);
    PyObject *key, *value;
    Py_ssize_t at = 0;

    while (!rc && PyDict_Next(map, &at, &key, &value)) {
        rc = pack_value(out, key, depth + 1);
        rc = rc ? rc : pack_value(out, value, depth + 1);
    }
    return rc;
}

static int pack_value(values_out *out, PyObject *value, unsigned depth)
{
    if (PyUnicode_CheckExact(value)) {
        return pack_text(out, value);
    }
    if (PyLong_CheckExact(value)) {
        return pack_int(out, value);
    }
    if (PyFloat_CheckExact(value)) {
        return pack_float(out, value);
    }
    if (value == Py_None) {
        return out_head(out, 0xc0, 0, 0);
    }
    if (PyBool_Check(value)) {
        return out_head(out, value == Py_True ? 0xc3 : 0xc2, 0, 0);
    }
    if (PyBytes_CheckExact(value)) {
        size_t size = (size_t)PyBytes_GET_SIZE(value);
        int rc = out_length(out, size, 0xc4, 0xc5, 0xc6);
        return rc ? rc : out_copy(out, PyBytes_AS_STRING(value), size);
    }
    if (depth < VALUES_DEPTH && PyList_CheckExact(value)) {
        return pack_list(out, value, depth);
    }
    if (depth < VALUES_DEPTH && PyDict_CheckExact(value)) {
        return pack_map(out, value, depth);
    }
    return VALUES_OTHER;
}

static int pack_other(values_out *out, PyObject *value, PyObject *encode)
{
    PyObject *packed = PyObject_CallOneArg(encode, value);
    char *bytes;
    Py_ssize_t size;
    int rc = -1;

    if (packed && !PyBytes_AsStringAndSize(packed, &bytes, &size)) {
        rc = out_copy(out, bytes, (size_t)size);
    }
    Py_XDECREF(packed);
    return rc;
}

/* What rows of plain text will take; other rows count nothing, for they are known when they are packed. */
static size_t text_room(PyObject *rows)
{
    size_t room = 0;

    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(rows); i++) {
        PyObject *row = PyList_GET_ITEM(rows, i);
        if (PyUnicode_CheckExact(row) && PyUnicode_IS_COMPACT_ASCII(row)) {
            room += 5 + (size_t)PyUnicode_GET_LENGTH(row);
        }
    }
    return room;
}

/* The rows end to end, and the size of each. */
static int pack_each(values_out *out, PyObject *rows, PyObject *encode, uint64_t *sizes, size_t n)
{
    size_t room = text_room(rows);
    int rc = room > VALUES_WARM && !out_grow(out, room) ? -1 : 0;

    for (size_t i = 0; !rc && i < n; i++) {
        size_t before = out->size;
        if ((size_t)PyList_GET_SIZE(rows) != n) {
            PyErr_SetString(PyExc_RuntimeError, "the rows changed while they were encoded");
            return -1;
        }
        PyObject *row = Py_NewRef(PyList_GET_ITEM(rows, (Py_ssize_t)i));
        rc = pack_value(out, row, 0);
        if (rc == VALUES_OTHER) {
            out->size = before;
            rc = pack_other(out, row, encode);
        }
        Py_DECREF(row);
        sizes[i] = out->size - before;
    }
    return rc;
}

PyObject *core_pack_rows(PyObject *module, PyObject *args)
{
    PyObject *rows, *encode, *packed = NULL, *result = NULL;
    values_out out = {0};

    if (!PyArg_ParseTuple(args, "O!O:pack_rows", &PyList_Type, &rows, &encode)) {
        return NULL;
    }
    size_t n = (size_t)PyList_GET_SIZE(rows);
    uint64_t *sizes = PyMem_Calloc(n + 1, sizeof(*sizes));
    if (!sizes) {
        return PyErr_NoMemory();
    }
    if (!pack_each(&out, rows, encode, sizes, n)) {
        packed = out_object(&out, PyModule_GetState(module));
    }
    if (packed) {
        result =
            Py_BuildValue("(Ny#)", packed, (const char *)sizes, (Py_ssize_t)(n * sizeof(*sizes)));
    }
    out_free(&out);
    PyMem_Free(sizes);
    return result;
}

/* -------------------------------------------------------------------------------------- unpacking */

typedef struct values_in {
    const uint8_t *at, *end;
} values_in;

/* A big-endian number of `n` bytes; false when there are not as many. */
static bool in_number(values_in *in, unsigned n, uint64_t *number)
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

/* Values are returned as new references; NULL with no exception set: this row is not for us. */
static PyObject *unpack_value(values_in *in, unsigned depth);

static PyObject *unpack_bytes(values_in *in, uint64_t size, bool text)
{
    const char *from = (const char *)in->at;

    if ((uint64_t)(in->end - in->at) < size) {
        return NULL;
    }
    in->at += size;
    if (!text) {
        return PyBytes_FromStringAndSize(from, (Py_ssize_t)size);
    }
    PyObject *made = PyUnicode_DecodeUTF8(from, (Py_ssize_t)size, NULL);
    if (!made && PyErr_ExceptionMatches(PyExc_UnicodeDecodeError)) {
        PyErr_Clear();
    }
    return made;
}

static PyObject *unpack_list(values_in *in, uint64_t n, unsigned depth)
{
    /* Every item takes a byte at least. */
    PyObject *list = depth < VALUES_DEPTH && n <= (uint64_t)(in->end - in->at)
                         ? PyList_New((Py_ssize_t)n)
                         : NULL;

    for (uint64_t i = 0; list && i < n; i++) {
        PyObject *item = unpack_value(in, depth + 1);
        if (!item) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, (Py_ssize_t)i, item);
    }
    return list;
}

static PyObject *unpack_map(values_in *in, uint64_t n, unsigned depth)
{
    PyObject *map =
        depth < VALUES_DEPTH && n <= (uint64_t)(in->end - in->at) / 2 ? PyDict_New() : NULL;

    for (uint64_t i = 0; map && i < n; i++) {
        PyObject *key = unpack_value(in, depth + 1);
        if (key && PyUnicode_CheckExact(key)) {
            PyUnicode_InternInPlace(&key);
        }
        bool usable = key && !PyList_CheckExact(key) && !PyDict_CheckExact(key);
        PyObject *value = usable ? unpack_value(in, depth + 1) : NULL;
        if (!value || PyDict_SetItem(map, key, value)) {
            Py_CLEAR(map);
        }
        Py_XDECREF(key);
        Py_XDECREF(value);
    }
    return map;
}

static PyObject *unpack_float(values_in *in, unsigned n)
{
    uint64_t bits;
    double number;

    if (!in_number(in, n, &bits)) {
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

static PyObject *unpack_int(values_in *in, uint8_t type)
{
    unsigned n = 1u << (type & 3);
    uint64_t bits;

    if (!in_number(in, n, &bits)) {
        return NULL;
    }
    if (type < 0xd0) {
        return PyLong_FromUnsignedLongLong(bits);
    }
    /* The sign is that of the first of its bytes. */
    unsigned spare = 64 - (8u << (type & 3));
    return PyLong_FromLongLong((long long)(bits << spare) >> spare);
}

/* Types with a length of 1 << `power` bytes in front. */
static PyObject *unpack_long(values_in *in, uint8_t type, unsigned power, unsigned depth)
{
    uint64_t length;

    if (!in_number(in, 1u << power, &length)) {
        return NULL;
    }
    switch (type) {
    case 0xc4:
    case 0xc5:
    case 0xc6:
        return unpack_bytes(in, length, false);
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

static PyObject *unpack_value(values_in *in, unsigned depth)
{
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
    case 0xca:
    case 0xcb:
        return unpack_float(in, type == 0xca ? 4 : 8);
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
        return type >= 0xcc && type <= 0xd3 ? unpack_int(in, type) : NULL; /* NULL: extensions */
    }
}

PyObject *core_unpack(const uint8_t *data, size_t size, PyObject *decode)
{
    values_in in = {data, data + size};
    PyObject *value = unpack_value(&in, 0);

    if (value && in.at == in.end) {
        return value;
    }
    Py_XDECREF(value);
    if (PyErr_Occurred()) {
        return NULL;
    }
    /* A copy, for a decoder may keep what it was given. */
    PyObject *bytes = PyBytes_FromStringAndSize((const char *)data, (Py_ssize_t)size);
    PyObject *view = bytes ? PyMemoryView_FromObject(bytes) : NULL;
    value = view ? PyObject_CallOneArg(decode, view) : NULL;
    Py_XDECREF(view);
    Py_XDECREF(bytes);
    return value;
}

static PyObject *unpack_row(const Py_buffer *data, uint64_t start, uint64_t end, PyObject *object,
                            PyObject *decode)
{
    values_in in = {(const uint8_t *)data->buf + start, (const uint8_t *)data->buf + end};
    PyObject *value = unpack_value(&in, 0);

    if (value && in.at == in.end) {
        return value;
    }
    Py_XDECREF(value);
    if (PyErr_Occurred()) {
        return NULL;
    }
    PyObject *bytes = PyMemoryView_FromObject(object);
    PyObject *row = bytes ? PySequence_GetSlice(bytes, (Py_ssize_t)start, (Py_ssize_t)end) : NULL;
    value = row ? PyObject_CallOneArg(decode, row) : NULL;
    Py_XDECREF(row);
    Py_XDECREF(bytes);
    return value;
}

/* Rows between the offsets, which must ascend within the data. */
static PyObject *unpack_all(const Py_buffer *data, const Py_buffer *offsets, PyObject *object,
                            PyObject *decode)
{
    const uint64_t *bounds = offsets->buf;
    Py_ssize_t n = offsets->len / 8 - 1;
    PyObject *list = PyList_New(n < 0 ? 0 : n);

    for (Py_ssize_t i = 0; list && i < n; i++) {
        PyObject *value = NULL;
        if (bounds[i] > bounds[i + 1] || bounds[i + 1] > (uint64_t)data->len) {
            PyErr_SetString(PyExc_ValueError, "offsets do not fit the data");
        } else {
            value = unpack_row(data, bounds[i], bounds[i + 1], object, decode);
        }
        if (!value) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, i, value);
    }
    return list;
}

PyObject *core_unpack_rows(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *object, *bounds, *decode, *list = NULL;
    Py_buffer data, offsets;

    if (!PyArg_ParseTuple(args, "OOO:unpack_rows", &object, &bounds, &decode) ||
        PyObject_GetBuffer(object, &data, PyBUF_C_CONTIGUOUS)) {
        return NULL;
    }
    if (!PyObject_GetBuffer(bounds, &offsets, PyBUF_C_CONTIGUOUS)) {
        if (offsets.itemsize == 8) {
            list = unpack_all(&data, &offsets, object, decode);
        } else {
            PyErr_SetString(PyExc_TypeError, "offsets are integers of 64 bits");
        }
        PyBuffer_Release(&offsets);
    }
    PyBuffer_Release(&data);
    return list;
}
