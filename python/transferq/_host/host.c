/*
 * host.c - the module transferq._host: a daemon in this process whose controller picks with a Python sampler.
 *
 * The daemon runs without the GIL; its loop holds it only while the sampler is called. Each call goes to an object made
 * by transferq.host, which passes plain values and checks the result:
 *
 *   name, the sampler's
 *   pick(view, ready, size, partition, task, config) -> (sampled, consumed, slot or None)
 *   kept(partition, task, config) -> bool
 *   forget(partition)
 *
 * `view` is a capsule for view_sample; it is invalid after the call.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <tq/daemon.h>
#include <tq/sampler.h>

#define HOST_VIEW      "transferq.view"
#define HOST_VIEW_OVER "transferq.view.over"

/* --- errors --------------------------------------------------------------- */

/* Converts the pending exception to an error: our own keep their code, a ValueError is TQ_EINVAL, others are `code`. */
static int host_error(int rc, tq_error *err)
{
    PyObject *type, *value, *traceback;
    const char *text = NULL;

    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (type != NULL && PyErr_GivenExceptionMatches(type, PyExc_ValueError)) {
        rc = TQ_EINVAL;
    } else if (type != NULL && PyErr_GivenExceptionMatches(type, PyExc_MemoryError)) {
        rc = TQ_ENOMEM;
    }
    PyObject *message = value != NULL ? PyObject_Str(value) : NULL;
    text = message != NULL ? PyUnicode_AsUTF8(message) : NULL;
    if (err != NULL) {
        err->code = rc;
        snprintf(err->message, sizeof(err->message), "%s", text != NULL ? text : "the sampler failed");
    }
    Py_XDECREF(message);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    PyErr_Clear();
    return rc;
}

/* --- the view ------------------------------------------------------------- */

static PyObject *host_view_sample(PyObject *module, PyObject *args)
{
    PyObject *capsule;
    unsigned int place;
    const char *name;
    tq_slice value;

    (void)module;
    if (!PyArg_ParseTuple(args, "OI:view_sample", &capsule, &place)) {
        return NULL;
    }
    const tq_sampler_view *view = PyCapsule_GetPointer(capsule, HOST_VIEW);
    if (view == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "samples can only be looked at during the pick");
        return NULL;
    }
    if (place >= tq_view_count(view)) {
        PyErr_Format(PyExc_IndexError, "there are %u samples", tq_view_count(view));
        return NULL;
    }
    PyObject *tags = PyList_New(0);
    for (uint32_t i = 0; tags != NULL && tq_view_tag(view, place, i, &name, &value); i++) {
        PyObject *tag = Py_BuildValue("(sy#)", name, (const char *)value.data, (Py_ssize_t)value.size);
        if (tag == NULL || PyList_Append(tags, tag)) {
            Py_CLEAR(tags);
        }
        Py_XDECREF(tag);
    }
    return tags != NULL ? Py_BuildValue("(zKN)", tq_view_group(view, place),
                                        (unsigned long long)tq_view_ordinal(view, place), tags)
                        : NULL;
}

static PyObject *host_ready(const tq_sampler_view *view)
{
    uint32_t n = tq_view_count(view);
    const uint32_t *indexes = tq_view_indexes(view);
    PyObject *list = PyList_New(n);

    for (uint32_t i = 0; list != NULL && i < n; i++) {
        PyObject *index = PyLong_FromUnsignedLong(indexes[i]);
        if (index == NULL) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, i, index);
    }
    return list;
}

/* --- the pick ------------------------------------------------------------- */

/* Place of an index in the view, which is in ascending order; -1 if it is not in it. */
static int64_t host_place(const tq_sampler_view *view, uint32_t index)
{
    const uint32_t *indexes = tq_view_indexes(view);
    uint32_t low = 0;
    uint32_t high = tq_view_count(view);

    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (indexes[middle] < index) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < tq_view_count(view) && indexes[low] == index ? (int64_t)low : -1;
}

/* One returned index; -1 with an error for anything that cannot be an index. */
static int64_t host_index(PyObject *list, Py_ssize_t i)
{
    long long index = PyLong_AsLongLong(PyList_GET_ITEM(list, i));

    PyErr_Clear();
    return index >= 0 && index < (long long)TQ_NO_INDEX ? index : -1;
}

static int host_apply_sampled(const tq_sampler_view *view, PyObject *name, PyObject *sampled, tq_pick *pick)
{
    int rc = TQ_OK;

    for (Py_ssize_t i = 0; rc == TQ_OK && i < PyList_GET_SIZE(sampled); i++) {
        int64_t index = host_index(sampled, i);
        int64_t place = index < 0 ? -1 : host_place(view, (uint32_t)index);
        if (place >= 0) {
            rc = tq_pick_add(pick, (uint32_t)place, false);
        } else if (index >= 0 && tq_view_had(view, (uint32_t)index)) {
            rc = tq_pick_again(pick, (uint32_t)index);
        } else {
            PyErr_Format(PyExc_RuntimeError, "sampler %R returned sample %S, which is not ready", name,
                         PyList_GET_ITEM(sampled, i));
            rc = TQ_EPICK;
        }
    }
    return rc;
}

static int host_apply_consumed(const tq_sampler_view *view, PyObject *name, PyObject *consumed, tq_pick *pick)
{
    int rc = TQ_OK;

    for (Py_ssize_t i = 0; rc == TQ_OK && i < PyList_GET_SIZE(consumed); i++) {
        int64_t index = host_index(consumed, i);
        int64_t place = index < 0 ? -1 : host_place(view, (uint32_t)index);
        if (place >= 0) {
            rc = tq_pick_consume(pick, (uint32_t)place);
        } else if (index < 0 || !tq_view_had(view, (uint32_t)index)) {
            PyErr_Format(PyExc_RuntimeError, "sampler %R consumed sample %S, which is not ready", name,
                         PyList_GET_ITEM(consumed, i));
            rc = TQ_EPICK;
        }
    }
    return rc;
}

/* Stores the sampler's result in the pick; on an error an exception may be set. */
static int host_apply(const tq_sampler_view *view, PyObject *name, PyObject *result, tq_pick *pick)
{
    PyObject *sampled, *consumed;
    const char *slot;
    int rc;

    if (!PyArg_ParseTuple(result, "O!O!z", &PyList_Type, &sampled, &PyList_Type, &consumed, &slot)) {
        return TQ_EPICK;
    }
    if (PyList_GET_SIZE(sampled) == 0) {
        return TQ_EAGAIN;
    }
    rc = host_apply_sampled(view, name, sampled, pick);
    if (rc == TQ_OK) {
        rc = host_apply_consumed(view, name, consumed, pick);
    }
    return rc == TQ_OK && slot != NULL ? tq_pick_slot(pick, slot) : rc;
}

static int host_pick(const tq_sampler_view *view, const tq_pick_request *request, tq_pick *pick, tq_error *err)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *capsule = PyCapsule_New((void *)(uintptr_t)view, HOST_VIEW, NULL);
    PyObject *ready = host_ready(view);
    PyObject *name = PyObject_GetAttrString(request->user, "name");
    PyObject *result = NULL;
    int rc;

    if (capsule != NULL && ready != NULL && name != NULL) {
        result = PyObject_CallMethod(request->user, "pick", "OOIsss", capsule, ready, request->batch_size,
                                     request->partition, request->task, request->config);
    }
    rc = result != NULL ? host_apply(view, name, result, pick) : TQ_EPICK;
    if (PyErr_Occurred() != NULL) {
        rc = host_error(TQ_EPICK, err);
    }
    /* If the sampler keeps the view, its later use is an error instead of an access to freed memory. */
    if (capsule != NULL && PyCapsule_SetName(capsule, HOST_VIEW_OVER)) {
        PyErr_Clear();
    }
    Py_XDECREF(result);
    Py_XDECREF(name);
    Py_XDECREF(ready);
    Py_XDECREF(capsule);
    PyGILState_Release(gil);
    return rc;
}

static uint32_t host_need(const tq_pick_request *request)
{
    return request->batch_size;
}

static bool host_kept(const tq_pick_request *request)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *result =
        PyObject_CallMethod(request->user, "kept", "sss", request->partition, request->task, request->config);
    int kept = result != NULL ? PyObject_IsTrue(result) : -1;

    if (kept < 0) {
        PyErr_WriteUnraisable(request->user);
    }
    Py_XDECREF(result);
    PyGILState_Release(gil);
    return kept > 0;
}

static void host_forget(const char *partition, void *user)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *result = PyObject_CallMethod(user, "forget", "s", partition);

    if (result == NULL) {
        PyErr_WriteUnraisable(user);
    }
    Py_XDECREF(result);
    PyGILState_Release(gil);
}

/* --- the daemon ----------------------------------------------------------- */

/* Called for a sampler that libtq does not have: creates and registers it, for the lifetime of the process. */
static int host_load(const char *name, void *user, tq_error *err)
{
    PyGILState_STATE gil = PyGILState_Ensure();
    PyObject *sampler = PyObject_CallFunction(user, "s", name);
    size_t size = strlen(name) + 1;
    tq_sampler *table = NULL;
    int rc;

    if (sampler == NULL) {
        rc = host_error(TQ_ECONFIG, err);
        goto done;
    }
    table = calloc(1, sizeof(*table) + size);
    if (table == NULL) {
        PyErr_NoMemory();
        rc = host_error(TQ_ENOMEM, err);
        goto done;
    }
    memcpy(table + 1, name, size);
    *table = (tq_sampler){
        .abi = TQ_SAMPLER_ABI,
        .name = (const char *)(table + 1),
        .need = host_need,
        .pick = host_pick,
        .user = sampler,
        .kept = host_kept,
        .forget = host_forget,
    };
    rc = tq_sampler_register(table, err);
    if (rc == TQ_OK) {
        sampler = NULL; /* kept by the table for the lifetime of the process */
        table = NULL;
    }
done:
    free(table);
    Py_XDECREF(sampler);
    PyGILState_Release(gil);
    return rc;
}

static PyObject *host_run_daemon(PyObject *module, PyObject *args)
{
    tq_daemon_hooks hooks = {.size = sizeof(hooks), .sampler = host_load};
    PyObject *list, *load;
    int status = 0;

    (void)module;
    if (!PyArg_ParseTuple(args, "O!O:run_daemon", &PyList_Type, &list, &load)) {
        return NULL;
    }
    hooks.user = load; /* kept alive by the caller's arguments, like the strings */
    Py_ssize_t n = PyList_GET_SIZE(list);
    const char **argv = PyMem_Calloc((size_t)n + 2, sizeof(*argv));
    if (argv == NULL) {
        return PyErr_NoMemory();
    }
    argv[0] = "tqd";
    for (Py_ssize_t i = 0; i < n; i++) {
        argv[i + 1] = PyUnicode_AsUTF8(PyList_GET_ITEM(list, i));
        if (argv[i + 1] == NULL) {
            PyMem_Free(argv);
            return NULL;
        }
    }
    Py_BEGIN_ALLOW_THREADS
    /* The parser reorders the pointers, but does not change the strings. */
    status = tq_daemon_run((int)n + 1, (char **)(uintptr_t)argv, &hooks);
    Py_END_ALLOW_THREADS
    PyMem_Free(argv);
    return PyLong_FromLong(status);
}

/* --- module --------------------------------------------------------------- */

PyDoc_STRVAR(host_run_daemon_doc,
             "run_daemon(arguments, load) -> int: runs a daemon like tqd until a signal or its parent's\n"
             "end.\n\n"
             "load(name) returns the object whose pick, kept and forget are called for the sampler of\n"
             "that name.");
PyDoc_STRVAR(host_view_sample_doc,
             "view_sample(view, place) -> (group or None, ordinal, [(tag, encoded), ...]): one sample of\n"
             "the view, during a pick.");

static PyMethodDef host_functions[] = {
    {"run_daemon", host_run_daemon, METH_VARARGS, host_run_daemon_doc},
    {"view_sample", host_view_sample, METH_VARARGS, host_view_sample_doc},
    {0},
};

static struct PyModuleDef host_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "transferq._host",
    .m_doc = "A daemon inside a Python process; use the module transferq.host instead.",
    .m_size = -1,
    .m_methods = host_functions,
};

PyMODINIT_FUNC PyInit__host(void);

PyMODINIT_FUNC PyInit__host(void)
{
    return PyModule_Create(&host_module);
}
