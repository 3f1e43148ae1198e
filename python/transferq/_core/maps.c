/*
 * maps.c - copies of many small maps (tags of samples); Python's own deep copy takes a microsecond for each.
 */
#include "core.h"

/* Whether copies can share the value, because it is immutable. */
static bool maps_plain(PyObject *value)
{
    return value == Py_None || PyLong_CheckExact(value) || PyFloat_CheckExact(value) || PyUnicode_CheckExact(value) ||
           PyBool_Check(value) || PyBytes_CheckExact(value);
}

static PyObject *maps_copy(PyObject *map, PyObject *deepcopy)
{
    Py_ssize_t at = 0;
    PyObject *key, *value;

    if (!PyDict_CheckExact(map)) {
        return PyObject_CallOneArg(deepcopy, map);
    }
    while (PyDict_Next(map, &at, &key, &value)) {
        if (!maps_plain(value)) {
            return PyObject_CallOneArg(deepcopy, map);
        }
    }
    return PyDict_Copy(map);
}

PyObject *core_copy_maps(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *maps, *deepcopy, *places, *copies = NULL;
    core_arena arena = {0};
    const uint32_t *place;
    size_t n;
    int collects;

    if (!PyArg_ParseTuple(args, "O!OO:copy_maps", &PyList_Type, &maps, &places, &deepcopy) ||
        core_u32s(&arena, places, "places", &place, &n)) {
        goto out;
    }
    n = places == Py_None ? (size_t)PyList_GET_SIZE(maps) : n;
    copies = PyList_New((Py_ssize_t)n);
    collects = PyGC_Disable(); /* this many new objects would make it scan all others in vain */
    for (size_t i = 0; copies != NULL && i < n; i++) {
        Py_ssize_t from = places == Py_None ? (Py_ssize_t)i : (Py_ssize_t)place[i];
        /* Copying runs Python code, which may change the list. */
        PyObject *map = from < PyList_GET_SIZE(maps) ? Py_NewRef(PyList_GET_ITEM(maps, from)) : NULL;
        PyObject *copy = map != NULL ? maps_copy(map, deepcopy) : NULL;
        Py_XDECREF(map);
        if (map == NULL) {
            PyErr_Format(PyExc_IndexError, "place %zd is out of range", from);
        }
        if (copy == NULL) {
            Py_CLEAR(copies);
            break;
        }
        PyList_SET_ITEM(copies, (Py_ssize_t)i, copy);
    }
    if (collects) {
        PyGC_Enable();
    }
out:
    core_arena_free(&arena);
    return copies;
}
