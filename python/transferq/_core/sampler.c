/*
 * sampler.c - functions of libtq for samplers written in Python.
 */
#include "core.h"

#include <tq/sampler.h>

/* The part of each item, as a list of ints. */
static PyObject *sampler_parts(const uint32_t *part, Py_ssize_t n)
{
    PyObject *list = PyList_New(n);

    for (Py_ssize_t i = 0; list != NULL && i < n; i++) {
        PyObject *number = PyLong_FromUnsignedLong(part[i]);
        if (number == NULL) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, i, number);
    }
    return list;
}

PyObject *core_balance(PyObject *module, PyObject *args)
{
    PyObject *list;
    unsigned int k;
    int equal;
    tq_error err = {0};
    core_arena arena = {0};
    PyObject *result = NULL;

    if (!PyArg_ParseTuple(args, "O!Ip:balance", &PyList_Type, &list, &k, &equal)) {
        return NULL;
    }
    Py_ssize_t n = PyList_GET_SIZE(list);
    double *weights = core_arena_alloc(&arena, (size_t)n + 1, sizeof(*weights));
    uint32_t *part = core_arena_alloc(&arena, (size_t)n + 1, sizeof(*part));
    if (weights == NULL || part == NULL) {
        goto done;
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        weights[i] = PyFloat_AsDouble(PyList_GET_ITEM(list, i));
        if (weights[i] == -1.0 && PyErr_Occurred() != NULL) {
            goto done;
        }
    }
    if (n > UINT32_MAX) {
        PyErr_SetString(PyExc_OverflowError, "too many things to split");
    } else if (tq_balance(weights, (uint32_t)n, k, equal != 0, part, &err)) {
        core_raise(PyModule_GetState(module), &err);
    } else {
        result = sampler_parts(part, n);
    }
done:
    core_arena_free(&arena);
    return result;
}
