/*
 * stamp.c - stamp(member, values, untrack): members of a NonTensorStack of plain values, copied from one of them.
 *
 * tensordict needs about 1.5 us of Python code for each, which for a column of texts takes as long as reading them.
 * Members of plain values differ only in the value, so they are copied from one made by tensordict: the object, its
 * dict, the empty TensorDict in it, and the dict that holds the value. transferq/_impl/stacks.py makes sure that a
 * member looks like that.
 */
#include "core.h"

/* A new object of the same type with this dict, whose reference is taken over. */
static PyObject *stamp_object(PyObject *like, PyObject *dict, PyObject *none)
{
    PyObject *made = dict != NULL ? PyBaseObject_Type.tp_new(Py_TYPE(like), none, NULL) : NULL;

    if (made != NULL && PyObject_GenericSetDict(made, dict, NULL)) {
        Py_CLEAR(made);
    }
    Py_XDECREF(dict);
    return made;
}

/* A copy of a dict with one entry replaced. */
static PyObject *stamp_dict(PyObject *like, PyObject *name, PyObject *value)
{
    PyObject *made = value != NULL ? PyDict_Copy(like) : NULL;

    if (made != NULL && PyDict_SetItem(made, name, value)) {
        Py_CLEAR(made);
    }
    return made;
}

/* The objects to copy (dicts of the member, of its TensorDict, and of its values), and what is needed for that. */
typedef struct stamp_like {
    PyObject *member, *inner, *outer, *held, *values;
    PyObject *none, *name_inner, *name_values, *name_data;
} stamp_like;

static PyObject *stamp_member(const stamp_like *like, PyObject *value, bool untrack)
{
    PyObject *empty = PyDict_New();
    PyObject *held = stamp_dict(like->held, like->name_inner, empty);
    PyObject *inner = stamp_object(like->inner, Py_XNewRef(held), like->none);
    PyObject *values = stamp_dict(like->values, like->name_data, value);
    PyObject *outer = inner != NULL && values != NULL ? stamp_dict(like->outer, like->name_inner, inner) : NULL;
    PyObject *made = NULL;

    if (outer != NULL && PyDict_SetItem(outer, like->name_values, values) == 0) {
        made = stamp_object(like->member, Py_NewRef(outer), like->none);
    }
    if (made != NULL && untrack) {
        /* Not part of a cycle; to find that out, the collector would stop all threads for tens of ms. */
        PyObject_GC_UnTrack(held);
        PyObject_GC_UnTrack(inner);
        PyObject_GC_UnTrack(outer);
        PyObject_GC_UnTrack(made);
    }
    Py_XDECREF(outer);
    Py_XDECREF(values);
    Py_XDECREF(inner);
    Py_XDECREF(held);
    Py_XDECREF(empty);
    return made;
}

static PyObject *stamp_all(const stamp_like *like, PyObject *values, bool untrack)
{
    PyObject *list = PyList_New(PyList_GET_SIZE(values));

    for (Py_ssize_t i = 0; list != NULL && i < PyList_GET_SIZE(list); i++) {
        core_pace_step(8);
        if (i >= PyList_GET_SIZE(values)) {
            PyErr_SetString(PyExc_RuntimeError, "the values changed while they were copied");
            Py_CLEAR(list);
            break;
        }
        /* The garbage collector may run while a member is created, and the Python code it runs may change the list. */
        PyObject *value = Py_NewRef(PyList_GET_ITEM(values, i));
        PyObject *made = stamp_member(like, value, untrack);
        Py_DECREF(value);
        if (made == NULL) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, i, made);
    }
    return list;
}

PyObject *core_stamp(PyObject *Py_UNUSED(module), PyObject *args)
{
    stamp_like like = {0};
    PyObject *values, *list = NULL;
    int untrack;

    if (!PyArg_ParseTuple(args, "OO!p:stamp", &like.member, &PyList_Type, &values, &untrack)) {
        return NULL;
    }
    like.none = PyTuple_New(0);
    like.name_inner = PyUnicode_InternFromString("_tensordict");
    like.name_values = PyUnicode_InternFromString("_non_tensordict");
    like.name_data = PyUnicode_InternFromString("data");
    like.outer = PyObject_GenericGetDict(like.member, NULL);
    like.inner = like.outer != NULL ? PyDict_GetItemString(like.outer, "_tensordict") : NULL;
    like.values = like.outer != NULL ? PyDict_GetItemString(like.outer, "_non_tensordict") : NULL;
    like.held = like.inner != NULL ? PyObject_GenericGetDict(like.inner, NULL) : NULL;
    if (like.none != NULL && like.name_inner != NULL && like.name_values != NULL && like.name_data != NULL &&
        like.held != NULL && like.values != NULL && PyDict_Check(like.values) && PyObject_IS_GC(like.member) &&
        PyObject_IS_GC(like.inner)) {
        list = stamp_all(&like, values, untrack);
    } else if (PyErr_Occurred() == NULL) {
        PyErr_SetString(PyExc_TypeError, "stamp: expected a NonTensorData");
    }
    Py_XDECREF(like.held);
    Py_XDECREF(like.outer);
    Py_XDECREF(like.name_data);
    Py_XDECREF(like.name_values);
    Py_XDECREF(like.name_inner);
    Py_XDECREF(like.none);
    return list;
}
