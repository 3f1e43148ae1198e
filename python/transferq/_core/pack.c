/*
 * pack.c - encodes values as MessagePack, without a Python call per plain value.
 *
 * Values that are not plain (tensors, arrays, objects) are passed to `convert` (encoding.py), which returns a simpler
 * value, or a tuple that becomes an extension type:
 *   (code, bytes)                        the payload itself
 *   (code, value)                        the value, encoded, is the payload
 *   (code, parts, (address, n), owner)   n bytes of memory with a description, see below; an object with the buffer
 *                                        protocol, in C order, may take the place of (address, n)
 *
 * If the caller passes a list `keep`, memory of CORE_LARGE bytes or more is not copied: the encoded bytes are cut
 * there, the memory itself becomes a slice of the column, and its owner is added to the list. Such memory, unless it
 * is text or bytes, is an extension of type CORE_BUFFER: MessagePack of [code, parts, bytes of the memory, bytes of
 * zeros before it], those zeros, the memory, and possibly more zeros. The zeros align the memory to a multiple of
 * CORE_ALIGN from the start of its row, and make the row's size such a multiple, so that all rows of the column are
 * aligned when they are read end to end. Smaller memory is encoded as MessagePack of [*parts, the memory] under its
 * own code.
 */
#include "pack.h"

static const char pack_zeros[CORE_ALIGN];

void core_pack_free(core_packer *p)
{
    if (p->room > CORE_PACK_WARM) {
        tq_buffer_give(p->bytes, p->room);
    } else {
        PyMem_Free(p->bytes);
    }
    PyMem_Free(p->cuts);
    p->bytes = NULL;
    p->cuts = NULL;
    p->size = p->room = 0;
}

bool core_pack_grow(core_packer *p, size_t room)
{
    char *bytes = room > CORE_PACK_WARM ? tq_buffer_take(room) : PyMem_Malloc(room);

    if (bytes == NULL) {
        PyErr_NoMemory();
        return false;
    }
    if (p->size > 0) {
        core_copy(bytes, p->bytes, p->size);
    }
    if (p->room > CORE_PACK_WARM) {
        tq_buffer_give(p->bytes, p->room);
    } else {
        PyMem_Free(p->bytes);
    }
    p->bytes = bytes;
    p->room = room;
    return true;
}

static char *pack_more(core_packer *p, size_t n)
{
    if (p->room - p->size < n) {
        size_t room = p->room * 2 > p->size + n ? p->room * 2 : p->size + n;
        if (!core_pack_grow(p, room)) {
            return NULL;
        }
    }
    p->size += n;
    return p->bytes + p->size - n;
}

static void pack_number(char *at, uint64_t number, unsigned n)
{
    while (n > 0) {
        *at++ = (char)(number >> (8 * --n));
    }
}

/* A type byte followed by a big-endian number of `n` bytes. */
static int pack_head(core_packer *p, uint8_t type, uint64_t number, unsigned n)
{
    char *at = pack_more(p, 1 + n);

    if (at == NULL) {
        return -1;
    }
    *at = (char)type;
    pack_number(at + 1, number, n);
    return 0;
}

static int pack_too_long(void)
{
    PyErr_SetString(PyExc_OverflowError, "a part of a value takes 4 GiB or more");
    return -1;
}

/* The head of an item with a length: the types for lengths of 1, 2 and 4 bytes (0: no type for 1). */
static int pack_length(core_packer *p, size_t length, uint8_t one, uint8_t two, uint8_t four)
{
    if (one && length <= UINT8_MAX) {
        return pack_head(p, one, length, 1);
    }
    if (length <= UINT16_MAX) {
        return pack_head(p, two, length, 2);
    }
    return length <= UINT32_MAX ? pack_head(p, four, length, 4) : pack_too_long();
}

static int pack_cut_out(core_packer *p, const void *data, size_t size)
{
    if (p->n_cuts == p->room_cuts) {
        size_t room = p->room_cuts ? p->room_cuts * 2 : 64;
        core_pack_cut *cuts = PyMem_Realloc(p->cuts, room * sizeof(*cuts));
        if (cuts == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        p->cuts = cuts;
        p->room_cuts = room;
    }
    p->cuts[p->n_cuts++] = (core_pack_cut){p->size, data, size};
    p->cut_bytes += size;
    return 0;
}

/* The bytes of `owner`, copied or made a slice. */
static int pack_memory(core_packer *p, const void *data, size_t size, PyObject *owner)
{
    if (p->keep != NULL && size >= CORE_LARGE) {
        core_pace_step(4);
        return PyList_Append(p->keep, owner) ? -1 : pack_cut_out(p, data, size);
    }
    char *at = pack_more(p, size);
    if (at == NULL) {
        return -1;
    }
    core_copy(at, data, size);
    core_pace_step(size >> 10);
    return 0;
}

static int pack_text(core_packer *p, PyObject *value)
{
    Py_ssize_t size;
    const char *text = PyUnicode_AsUTF8AndSize(value, &size);
    PyObject *bytes = NULL;

    if (text == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError)) {
            return -1;
        }
        PyErr_Clear();
        bytes = PyUnicode_AsEncodedString(value, "utf-8", "surrogatepass");
        if (bytes == NULL) {
            return -1;
        }
        text = PyBytes_AS_STRING(bytes);
        size = PyBytes_GET_SIZE(bytes);
    }
    int rc = size < 32 ? pack_head(p, (uint8_t)(0xa0 | size), 0, 0) : pack_length(p, (size_t)size, 0xd9, 0xda, 0xdb);
    rc = rc ? rc : pack_memory(p, text, (size_t)size, bytes != NULL ? bytes : value);
    Py_XDECREF(bytes);
    return rc;
}

static int pack_bytes(core_packer *p, const void *data, size_t size, PyObject *owner)
{
    int rc = pack_length(p, size, 0xc4, 0xc5, 0xc6);

    return rc ? rc : pack_memory(p, data, size, owner);
}

/* The bytes of a bytearray or memoryview; a view is kept as the owner, because it prevents resizing. */
static int pack_view(core_packer *p, PyObject *value)
{
    PyObject *view = PyMemoryView_FromObject(value);
    int rc = -1;

    if (view != NULL && !PyBuffer_IsContiguous(PyMemoryView_GET_BUFFER(view), 'C')) {
        Py_SETREF(view, PyMemoryView_GetContiguous(view, PyBUF_READ, 'C'));
    }
    if (view != NULL) {
        const Py_buffer *buffer = PyMemoryView_GET_BUFFER(view);
        rc = pack_bytes(p, buffer->buf, (size_t)buffer->len, view);
        Py_DECREF(view);
    }
    return rc;
}

static int pack_unsigned(core_packer *p, uint64_t number)
{
    return number < 128           ? pack_head(p, (uint8_t)number, 0, 0)
           : number <= UINT8_MAX  ? pack_head(p, 0xcc, number, 1)
           : number <= UINT16_MAX ? pack_head(p, 0xcd, number, 2)
           : number <= UINT32_MAX ? pack_head(p, 0xce, number, 4)
                                  : pack_head(p, 0xcf, number, 8);
}

static int pack_other(core_packer *p, PyObject *value, unsigned depth);

static int pack_int(core_packer *p, PyObject *value, unsigned depth)
{
    int overflow;
    long long number = PyLong_AsLongLongAndOverflow(value, &overflow);

    if (overflow) {
        unsigned long long large = overflow > 0 ? PyLong_AsUnsignedLongLong(value) : 0;
        if (overflow < 0 || PyErr_Occurred() != NULL) {
            PyErr_Clear();
            return pack_other(p, value, depth);
        }
        return pack_head(p, 0xcf, large, 8);
    }
    if (number == -1 && PyErr_Occurred() != NULL) {
        return -1;
    }
    if (number >= 0) {
        return pack_unsigned(p, (uint64_t)number);
    }
    uint64_t bits = (uint64_t)number;
    return number >= -32         ? pack_head(p, (uint8_t)number, 0, 0)
           : number >= INT8_MIN  ? pack_head(p, 0xd0, bits, 1)
           : number >= INT16_MIN ? pack_head(p, 0xd1, bits, 2)
           : number >= INT32_MIN ? pack_head(p, 0xd2, bits, 4)
                                 : pack_head(p, 0xd3, bits, 8);
}

static int pack_float(core_packer *p, PyObject *value)
{
    double number = PyFloat_AS_DOUBLE(value);
    uint64_t bits;

    memcpy(&bits, &number, sizeof(bits));
    return pack_head(p, 0xcb, bits, 8);
}

/* Python code that encoding calls, or another thread, may change a value while it is encoded. */
static int pack_changed(void)
{
    PyErr_SetString(PyExc_RuntimeError, "a value changed while it was encoded");
    return -1;
}

static int pack_items(core_packer *p, PyObject *list, size_t n, unsigned depth)
{
    int rc = 0;

    for (size_t i = 0; !rc && i < n; i++) {
        if ((size_t)PyList_GET_SIZE(list) != n) {
            return pack_changed();
        }
        PyObject *item = Py_NewRef(PyList_GET_ITEM(list, (Py_ssize_t)i));
        rc = core_pack_value(p, item, depth + 1);
        Py_DECREF(item);
    }
    return rc;
}

static int pack_array(core_packer *p, size_t n)
{
    return n < 16 ? pack_head(p, (uint8_t)(0x90 | n), 0, 0) : pack_length(p, n, 0, 0xdc, 0xdd);
}

static int pack_list(core_packer *p, PyObject *list, unsigned depth)
{
    size_t n = (size_t)PyList_GET_SIZE(list);
    int rc = pack_array(p, n);

    return rc ? rc : pack_items(p, list, n, depth);
}

static int pack_map(core_packer *p, PyObject *map, unsigned depth)
{
    size_t n = (size_t)PyDict_GET_SIZE(map), done = 0;
    int rc = n < 16 ? pack_head(p, (uint8_t)(0x80 | n), 0, 0) : pack_length(p, n, 0, 0xde, 0xdf);
    PyObject *key, *value;
    Py_ssize_t at = 0;

    while (!rc && PyDict_Next(map, &at, &key, &value)) {
        Py_INCREF(key);
        Py_INCREF(value);
        rc = core_pack_value(p, key, depth + 1);
        rc = rc ? rc : core_pack_value(p, value, depth + 1);
        Py_DECREF(key);
        Py_DECREF(value);
        done++;
        if (!rc && ((size_t)PyDict_GET_SIZE(map) != n || done > n)) {
            return pack_changed();
        }
    }
    return rc || done == n ? rc : pack_changed();
}

/* --- extensions ----------------------------------------------------------- */

/* The head of an extension of a known size. */
static int pack_extension_head(core_packer *p, uint8_t code, size_t size)
{
    uint8_t fixed = size == 1 ? 0xd4 : size == 2 ? 0xd5 : size == 4 ? 0xd6 : size == 8 ? 0xd7 : 0xd8;
    int rc =
        size && size <= 16 && !(size & (size - 1)) ? pack_head(p, fixed, 0, 0) : pack_length(p, size, 0xc7, 0xc8, 0xc9);

    return rc ? rc : pack_head(p, code, 0, 0);
}

/* Opens an extension whose size is filled in when it is closed. */
static int pack_open_one(core_packer *p, uint8_t code, size_t *start)
{
    if (p->open.n == CORE_PACK_OPEN) {
        PyErr_SetString(PyExc_RecursionError, "extension types are nested too deep");
        return -1;
    }
    p->open.at[p->open.n++] = p->size + 1;
    if (pack_head(p, 0xc9, 0, 4) || pack_head(p, code, 0, 0)) {
        return -1;
    }
    *start = core_pack_at(p);
    return 0;
}

static int pack_close(core_packer *p, size_t start)
{
    size_t size = core_pack_at(p) - start;

    pack_number(p->bytes + p->open.at[--p->open.n], size, 4);
    return size <= UINT32_MAX - CORE_ALIGN ? 0 : pack_too_long();
}

/* An extension whose payload is a value, or, with `data`, a list of parts and the memory. */
static int pack_nested(core_packer *p, uint8_t code, PyObject *parts, unsigned depth, const void *data, size_t size)
{
    size_t head = p->size, cuts = p->n_cuts, buffers = p->buffers, start;
    size_t n = data != NULL ? (size_t)PyList_GET_SIZE(parts) : 0;

    if (pack_open_one(p, code, &start) ||
        (data != NULL ? pack_array(p, n + 1) || pack_items(p, parts, n, depth) || pack_bytes(p, data, size, parts)
                      : core_pack_value(p, parts, depth + 1))) {
        return -1;
    }
    if (cuts != p->n_cuts || buffers != p->buffers || core_pack_at(p) - start > UINT16_MAX) {
        return pack_close(p, start);
    }
    /* The shortest head, as MessagePack requires. */
    size_t length = p->size - head - 6;
    p->open.n--;
    p->size = head;
    if (pack_extension_head(p, code, length)) {
        return -1;
    }
    memmove(p->bytes + p->size, p->bytes + head + 6, length);
    p->size += length;
    return 0;
}

/* Memory with a description. */
static int pack_buffer(core_packer *p, uint8_t code, PyObject *parts, const void *data, size_t size, PyObject *owner,
                       unsigned depth)
{
    size_t start;

    if (size < CORE_LARGE) {
        return pack_nested(p, code, parts, depth, data, size);
    }
    if (pack_open_one(p, CORE_BUFFER, &start) || pack_array(p, 4) || pack_unsigned(p, code) ||
        core_pack_value(p, parts, depth + 1) || pack_unsigned(p, size)) {
        return -1;
    }
    size_t lead = CORE_ALIGN - 1 - core_pack_at(p) % CORE_ALIGN;
    char *at = pack_more(p, 1 + lead);
    if (at == NULL) {
        return -1;
    }
    memset(at, 0, 1 + lead);
    *at = (char)lead;
    if (pack_memory(p, data, size, owner)) {
        return -1;
    }
    p->buffers++;
    p->last = p->open;
    p->last_end = p->size;
    p->last_cut = p->n_cuts;
    return pack_close(p, start);
}

int core_pack_fill(core_packer *p)
{
    size_t fill = -core_pack_at(p) % CORE_ALIGN;

    if (!p->buffers || !fill) {
        return 0;
    }
    size_t tail = p->size - p->last_end;
    for (unsigned i = 0; i < p->last.n; i++) {
        uint8_t *length = (uint8_t *)p->bytes + p->last.at[i];
        uint64_t size = (uint64_t)length[0] << 24 | (uint64_t)length[1] << 16 | (uint64_t)length[2] << 8 | length[3];
        pack_number((char *)length, size + fill, 4);
    }
    if (p->keep != NULL && tail) {
        if (pack_cut_out(p, pack_zeros, fill)) {
            return -1;
        }
        /* Texts and bytes after it may have been made slices too. */
        core_pack_cut *place = p->cuts + p->last_cut;
        memmove(place + 1, place, (p->n_cuts - 1 - p->last_cut) * sizeof(*place));
        *place = (core_pack_cut){p->last_end, pack_zeros, fill};
        return 0;
    }
    if (pack_more(p, fill) == NULL) {
        return -1;
    }
    memmove(p->bytes + p->last_end + fill, p->bytes + p->last_end, tail);
    memset(p->bytes + p->last_end, 0, fill);
    return 0;
}

/* Encodes the result of `convert`. */
static int pack_converted(core_packer *p, PyObject *made, unsigned depth)
{
    int code;
    PyObject *parts, *memory, *owner;
    unsigned long long address;
    Py_ssize_t size;

    if (!PyTuple_CheckExact(made)) {
        return core_pack_value(p, made, depth + 1);
    }
    if (PyTuple_GET_SIZE(made) == 2) {
        if (!PyArg_ParseTuple(made, "iO", &code, &parts)) {
            return -1;
        }
        if (!PyBytes_CheckExact(parts)) {
            return pack_nested(p, (uint8_t)code, parts, depth, NULL, 0);
        }
        size_t n = (size_t)PyBytes_GET_SIZE(parts);
        int rc = pack_extension_head(p, (uint8_t)code, n);
        return rc ? rc : pack_memory(p, PyBytes_AS_STRING(parts), n, parts);
    }
    if (!PyArg_ParseTuple(made, "iO!OO", &code, &PyList_Type, &parts, &memory, &owner)) {
        return -1;
    }
    if (!PyTuple_Check(memory)) {
        PyObject *view = PyMemoryView_FromObject(memory);
        const Py_buffer *buffer = view != NULL ? PyMemoryView_GET_BUFFER(view) : NULL;
        int rc =
            buffer != NULL ? pack_buffer(p, (uint8_t)code, parts, buffer->buf, (size_t)buffer->len, view, depth) : -1;
        Py_XDECREF(view);
        return rc;
    }
    if (!PyArg_ParseTuple(memory, "Kn", &address, &size)) {
        return -1;
    }
    const void *data = size ? (const void *)(uintptr_t)address : pack_zeros;
    return pack_buffer(p, (uint8_t)code, parts, data, (size_t)size, owner, depth);
}

static int pack_other(core_packer *p, PyObject *value, unsigned depth)
{
    PyObject *made = PyObject_CallOneArg(p->convert, value);
    int rc = made != NULL ? pack_converted(p, made, depth) : -1;

    Py_XDECREF(made);
    core_pace_step(20);
    return rc;
}

int core_pack_value(core_packer *p, PyObject *value, unsigned depth)
{
    core_pace_step(1);
    if (PyUnicode_CheckExact(value)) {
        return pack_text(p, value);
    }
    if (PyLong_CheckExact(value)) {
        return pack_int(p, value, depth);
    }
    if (PyFloat_CheckExact(value)) {
        return pack_float(p, value);
    }
    if (value == Py_None) {
        return pack_head(p, 0xc0, 0, 0);
    }
    if (PyBool_Check(value)) {
        return pack_head(p, value == Py_True ? 0xc3 : 0xc2, 0, 0);
    }
    if (PyBytes_CheckExact(value)) {
        return pack_bytes(p, PyBytes_AS_STRING(value), (size_t)PyBytes_GET_SIZE(value), value);
    }
    if (depth >= CORE_PACK_DEPTH) {
        PyErr_SetString(PyExc_RecursionError, "a value is nested too deep");
        return -1;
    }
    if (PyList_CheckExact(value)) {
        return pack_list(p, value, depth);
    }
    if (PyDict_CheckExact(value)) {
        return pack_map(p, value, depth);
    }
    if (PyByteArray_CheckExact(value) || PyMemoryView_Check(value)) {
        return pack_view(p, value);
    }
    return pack_other(p, value, depth);
}
