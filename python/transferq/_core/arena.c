/*
 * arena.c - memory, references and buffers of one call, and conversion of its arguments to plain C.
 */
#include "core.h"

typedef struct core_chunk {
    struct core_chunk *next;
    size_t used, size;
    _Alignas(16) char memory[];
} core_chunk;

#define ARENA_CHUNK 2000

void *core_arena_alloc(core_arena *arena, size_t n, size_t size)
{
    if (size && n > (size_t)PY_SSIZE_T_MAX / 2 / size) {
        PyErr_NoMemory();
        return NULL;
    }
    size_t bytes = (n * size + 15) & ~(size_t)15;
    core_chunk *chunk = arena->chunks;
    if (chunk == NULL || chunk->size - chunk->used < bytes) {
        size_t room = bytes > ARENA_CHUNK ? bytes : ARENA_CHUNK;
        chunk = PyMem_Malloc(sizeof(*chunk) + room);
        if (chunk == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
        *chunk = (core_chunk){.next = arena->chunks, .size = room};
        arena->chunks = chunk;
    }
    void *memory = chunk->memory + chunk->used;
    chunk->used += bytes;
    memset(memory, 0, bytes);
    return memory;
}

/* Room for one more pointer in a growing array. */
static void *arena_grow(void *array, size_t n, size_t *cap)
{
    if (n < *cap) {
        return array;
    }
    size_t more = *cap ? *cap * 2 : 8;
    void *grown = PyMem_Realloc(array, more * sizeof(void *));
    if (grown == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    *cap = more;
    return grown;
}

int core_arena_hold(core_arena *arena, PyObject *object)
{
    PyObject **held = arena_grow(arena->held, arena->n_held, &arena->cap_held);

    if (held == NULL) {
        return -1;
    }
    arena->held = held;
    arena->held[arena->n_held++] = Py_NewRef(object);
    return 0;
}

const Py_buffer *core_arena_view(core_arena *arena, PyObject *object)
{
    Py_buffer **views = arena_grow(arena->views, arena->n_views, &arena->cap_views);

    if (views == NULL) {
        return NULL;
    }
    arena->views = views;
    Py_buffer *view = core_arena_alloc(arena, 1, sizeof(*view));
    if (view == NULL || PyObject_GetBuffer(object, view, PyBUF_C_CONTIGUOUS)) {
        return NULL;
    }
    arena->views[arena->n_views++] = view;
    return view;
}

void core_arena_free(core_arena *arena)
{
    for (size_t i = 0; i < arena->n_views; i++) {
        PyBuffer_Release(arena->views[i]);
    }
    for (size_t i = 0; i < arena->n_held; i++) {
        Py_DECREF(arena->held[i]);
    }
    PyMem_Free(arena->views);
    PyMem_Free(arena->held);
    while (arena->chunks != NULL) {
        core_chunk *next = arena->chunks->next;
        PyMem_Free(arena->chunks);
        arena->chunks = next;
    }
    *arena = (core_arena){0};
}

int core_string(PyObject *object, const char *what, const char **out)
{
    Py_ssize_t size;

    *out = NULL;
    if (object == NULL || object == Py_None) {
        return 0;
    }
    if (!PyUnicode_Check(object)) {
        PyErr_Format(PyExc_TypeError, "%s: expected str, got %.100s", what, Py_TYPE(object)->tp_name);
        return -1;
    }
    *out = PyUnicode_AsUTF8AndSize(object, &size);
    if (*out == NULL) {
        return -1;
    }
    if (strlen(*out) != (size_t)size) {
        PyErr_Format(PyExc_ValueError, "%s: %R has a null character in it", what, object);
        return -1;
    }
    return 0;
}

int core_strings(core_arena *arena, PyObject *object, const char *what, bool optional_items, const char *const **out,
                 size_t *n)
{
    *out = NULL;
    *n = 0;
    if (object == NULL || object == Py_None) {
        return 0;
    }
    if (!PyList_Check(object) && !PyTuple_Check(object)) {
        PyErr_Format(PyExc_TypeError, "%s: expected a list of str, got %.100s", what, Py_TYPE(object)->tp_name);
        return -1;
    }
    /* A copy: other code may change the list while the call runs. */
    PyObject *items = PySequence_Tuple(object);
    if (items == NULL) {
        return -1;
    }
    size_t count = (size_t)PyTuple_GET_SIZE(items);
    const char **strings = core_arena_alloc(arena, count + 1, sizeof(*strings));
    if (strings == NULL || core_arena_hold(arena, items)) {
        Py_DECREF(items);
        return -1;
    }
    Py_DECREF(items); /* held by the arena */
    for (size_t i = 0; i < count; i++) {
        PyObject *item = PyTuple_GET_ITEM(items, i);
        if (item == Py_None && !optional_items) {
            PyErr_Format(PyExc_TypeError, "%s: expected str, got None", what);
            return -1;
        }
        if (core_string(item, what, &strings[i])) {
            return -1;
        }
    }
    *out = strings;
    *n = count;
    return 0;
}

/* Integers of `size` bytes each, from a buffer with items of that size or from a sequence. */
static int arena_integers(core_arena *arena, PyObject *object, const char *what, size_t size, const void **out,
                          size_t *n)
{
    *out = NULL;
    *n = 0;
    if (object == NULL || object == Py_None) {
        return 0;
    }
    if (PyObject_CheckBuffer(object)) {
        const Py_buffer *view = core_arena_view(arena, object);
        if (view == NULL) {
            return -1;
        }
        if (view->itemsize != (Py_ssize_t)size || (view->len && (uintptr_t)view->buf % size)) {
            PyErr_Format(PyExc_TypeError, "%s: expected aligned integers of %zu bytes, got items of %zd", what, size,
                         view->itemsize);
            return -1;
        }
        *n = (size_t)view->len / size;
        *out = *n ? view->buf : core_arena_alloc(arena, 1, size);
        return *out ? 0 : -1;
    }
    PyObject *items = PySequence_Fast(object, "expected a sequence of integers");
    if (items == NULL) {
        return -1;
    }
    size_t count = (size_t)PySequence_Fast_GET_SIZE(items);
    char *integers = core_arena_alloc(arena, count + 1, size);
    for (size_t i = 0; integers != NULL && i < count; i++) {
        PyObject *number = PyNumber_Index(PySequence_Fast_GET_ITEM(items, i));
        unsigned long long value = number != NULL ? PyLong_AsUnsignedLongLong(number) : 0;
        Py_XDECREF(number);
        if (PyErr_Occurred() != NULL || (size == 4 && value > UINT32_MAX)) {
            if (PyErr_Occurred() == NULL || PyErr_ExceptionMatches(PyExc_OverflowError)) {
                PyErr_Clear();
                PyErr_Format(PyExc_ValueError, "%s: %R is out of range", what, PySequence_Fast_GET_ITEM(items, i));
            }
            integers = NULL;
        } else if (size == 4) {
            ((uint32_t *)(void *)integers)[i] = (uint32_t)value;
        } else {
            ((uint64_t *)(void *)integers)[i] = value;
        }
    }
    Py_DECREF(items);
    if (integers == NULL) {
        return -1;
    }
    *out = integers;
    *n = count;
    return 0;
}

int core_u32s(core_arena *arena, PyObject *object, const char *what, const uint32_t **out, size_t *n)
{
    const void *integers;
    int rc = arena_integers(arena, object, what, sizeof(**out), &integers, n);

    *out = integers;
    return rc;
}

int core_u64s(core_arena *arena, PyObject *object, const char *what, const uint64_t **out, size_t *n)
{
    const void *integers;
    int rc = arena_integers(arena, object, what, sizeof(**out), &integers, n);

    *out = integers;
    return rc;
}
