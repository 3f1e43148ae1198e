/*
 * module.c - the module transferq._core: its functions, types and constants.
 */
#include "core.h"

static const char *const core_live_names[CORE_N_KINDS] = {"client", "op", "meta", "data", "buffer", "queue", "left"};

PyDoc_STRVAR(core_live_doc, "live()\n--\n\n"
                            "How many objects of each kind are alive, for tests.");

static PyObject *core_live_counts(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    core_reap();
    PyObject *dict = PyDict_New();
    for (int i = 0; dict != NULL && i < CORE_N_KINDS; i++) {
        PyObject *count = PyLong_FromLong(core_counted((enum core_kind)i));
        if (count == NULL || PyDict_SetItemString(dict, core_live_names[i], count)) {
            Py_CLEAR(dict);
        }
        Py_XDECREF(count);
    }
    return dict;
}

PyDoc_STRVAR(core_memory_limit_doc,
             "memory_limit() -> (int, bool): bytes that this process may use, and whether its control\n"
             "group sets that limit.");

static PyObject *core_memory_limit(PyObject *module, PyObject *unused)
{
    bool of_cgroup = false;
    uint64_t bytes = tq_memory_limit(&of_cgroup);

    (void)module;
    (void)unused;
    return Py_BuildValue("KO", (unsigned long long)bytes, of_cgroup ? Py_True : Py_False);
}

PyDoc_STRVAR(core_runtime_dir_doc,
             "runtime_dir() -> str: directory that holds the directories of this user's systems.");

static PyObject *core_runtime_dir(PyObject *module, PyObject *unused)
{
    char path[4096];
    tq_error err = {0};

    (void)unused;
    if (tq_runtime_dir(path, sizeof(path), &err) != TQ_OK) {
        return core_raise(PyModule_GetState(module), &err);
    }
    return PyUnicode_DecodeFSDefault(path);
}

PyDoc_STRVAR(core_runtime_open_doc,
             "runtime_open(name, make=False, /)\n--\n\n"
             "A descriptor of runtime_dir() (name None), or of the directory of a system in it. Raises\n"
             "ConfigError unless only this user can use it.");

static PyObject *core_runtime_open(PyObject *module, PyObject *args)
{
    const char *name;
    int make = 0;
    int fd = -1;
    tq_error err = {0};

    if (!PyArg_ParseTuple(args, "z|p:runtime_open", &name, &make)) {
        return NULL;
    }
    if (tq_runtime_open(name, make, &fd, &err) != TQ_OK) {
        return core_raise(PyModule_GetState(module), &err);
    }
    return PyLong_FromLong(fd);
}

PyDoc_STRVAR(core_runtime_clear_doc, "runtime_clear(fd, /)\n--\n\n"
                                     "Remove what a killed daemon left in the directory of its system.");

static PyObject *core_runtime_clear(PyObject *module, PyObject *fd)
{
    long number = PyLong_AsLong(fd);

    (void)module;
    if (number == -1 && PyErr_Occurred() != NULL) {
        return NULL;
    }
    tq_runtime_clear((int)number);
    Py_RETURN_NONE;
}

PyDoc_STRVAR(core_balance_doc,
             "balance(weights, k, equal) -> list: the part (0 to k - 1) of each item, so that all parts\n"
             "weigh nearly the same.");

PyDoc_STRVAR(core_pack_rows_doc,
             "pack_rows(rows, convert, keep=None, /)\n--\n\n"
             "A list of values as MessagePack: their bytes end to end (bytes, or a Buffer if they are\n"
             "many), and the size of each as 64-bit integers. Values that are not plain are passed to\n"
             "`convert`. With a list `keep`, the bytes are a list of slices in which large memory is not\n"
             "copied; the objects that own that memory are appended to `keep`.");
PyDoc_STRVAR(core_unpack_rows_doc,
             "unpack_rows(data, offsets, build, decode, /)\n--\n\n"
             "The opposite of pack_rows: the values that lie between these 64-bit offsets of the data.\n"
             "The data may be a Left; then the result is None if the store does not have it any more.\n"
             "`build` makes the objects of extension types. Rows that are malformed or deeply nested are\n"
             "passed to `decode` as a memoryview.");
/* The rows come from memory, or straight from the store. */
static PyObject *core_unpack_any(PyObject *module, PyObject *args)
{
    PyObject *object, *bounds, *build, *decode;

    if (!PyArg_ParseTuple(args, "OOOO:unpack_rows", &object, &bounds, &build, &decode)) {
        return NULL;
    }
    if (Py_IS_TYPE(object, ((core_state *)PyModule_GetState(module))->left)) {
        return core_left_rows(object, build, decode);
    }
    return core_unpack_rows(object, bounds, build, decode);
}

PyDoc_STRVAR(core_weigh_doc, "weigh(value, limit, /)\n--\n\n"
                             "Whether encoding the value costs more than `limit` small values. Stops counting there.");
PyDoc_STRVAR(core_pace_doc, "pace()\n--\n\n"
                            "Make pack_rows and unpack_rows release the GIL about once a millisecond in this thread\n"
                            "from now on.");
PyDoc_STRVAR(core_jagged_rows_doc,
             "jagged_rows(ndims, dims, ragged, /)\n--\n\n"
             "For rows that agree in all dims but `ragged` (counted from 0): their offsets along it as\n"
             "64-bit integers in bytes, the least and the greatest length, and the shape of all rows end\n"
             "to end. None if they differ in other dims.");
PyDoc_STRVAR(core_kv_register_doc,
             "kv_register(type, make, value_max): registers a storage type; make(config) returns a\n"
             "client of its key-value store.");

static PyMethodDef core_functions[] = {
    {"pack_rows", core_pack_rows, METH_VARARGS, core_pack_rows_doc},
    {"unpack_rows", core_unpack_any, METH_VARARGS, core_unpack_rows_doc},
    {"jagged_rows", core_jagged_rows, METH_VARARGS, core_jagged_rows_doc},
    {"weigh", core_weigh, METH_VARARGS, core_weigh_doc},
    {"pace", core_pace, METH_NOARGS, core_pace_doc},
    {"pause", core_pause, METH_NOARGS, "pause()\n--\n\nHand the GIL over, in a thread that does so."},
    {"stamp", core_stamp, METH_VARARGS,
     "stamp(member, values, untrack, /)\n--\n\n"
     "Copies of a member of a NonTensorStack, each with one of the values; untrack: the garbage "
     "collector does not look at them."},
    {"balance", core_balance, METH_VARARGS, core_balance_doc},
    {"kv_register", core_kv_register, METH_VARARGS, core_kv_register_doc},
    {"kv_wait", core_kv_wait, METH_NOARGS,
     "kv_wait()\n--\n\nWait until no method of a client of a key-value store runs."},
    {"memory_limit", core_memory_limit, METH_NOARGS, core_memory_limit_doc},
    {"runtime_dir", core_runtime_dir, METH_NOARGS, core_runtime_dir_doc},
    {"runtime_open", core_runtime_open, METH_VARARGS, core_runtime_open_doc},
    {"runtime_clear", core_runtime_clear, METH_O, core_runtime_clear_doc},
    {"log_start", core_log_start, METH_NOARGS,
     "log_start()\n--\n\nFrom now on the library's lines wait for log_wait, in place of going to stderr."},
    {"log_stop", core_log_stop, METH_NOARGS,
     "log_stop()\n--\n\nFrom now on the library's lines go to stderr; log_wait returns what is left, then None."},
    {"log_wait", core_log_wait, METH_NOARGS,
     "log_wait()\n--\n\nWait for lines of the library, and return them (time, level from 0 = error, part, text) with\n"
     "the number of those that were dropped because too many waited; None when stopped."},
    {"live", core_live_counts, METH_NOARGS, core_live_doc},
    {"copy_maps", core_copy_maps, METH_VARARGS,
     "copy_maps(maps, places, deepcopy, /)\n--\n\n"
     "Copies of the maps in the list at these places (None: all); deepcopy copies what is not "
     "plain."},
    {0},
};

static int core_add_types(PyObject *module, core_state *state)
{
    const struct {
        PyTypeObject **slot;
        PyTypeObject *(*make)(PyObject *module);
    } types[] = {
        {&state->client, core_client_type},
        {&state->op, core_op_type},
        {&state->meta, core_meta_type},
        {&state->data, core_data_type},
        {&state->buffer, core_buffer_type},
        {&state->queue, core_queue_type},
        {&state->left, core_left_type},
        {&state->data_column, core_data_column_type},
        {&state->meta_field, core_meta_field_type},
    };

    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        *types[i].slot = types[i].make(module);
        if (*types[i].slot == NULL || PyModule_AddType(module, *types[i].slot)) {
            return -1;
        }
    }
    return 0;
}

static int core_exec(PyObject *module)
{
    core_state *state = PyModule_GetState(module);

    state->name_done = PyUnicode_InternFromString("done");
    state->name_set_result = PyUnicode_InternFromString("set_result");
    state->name_set_exception = PyUnicode_InternFromString("set_exception");
    if (state->name_done == NULL || state->name_set_result == NULL || state->name_set_exception == NULL) {
        return -1;
    }
    if (core_errors_init(module, state) || core_add_types(module, state) || core_fork_init() || core_log_init()) {
        return -1;
    }
    if (PyModule_AddStringConstant(module, "version", tq_version()) ||
        PyModule_AddIntConstant(module, "TENSOR", TQ_TENSOR) || PyModule_AddIntConstant(module, "VALUE", TQ_VALUE) ||
        PyModule_AddIntConstant(module, "FETCH", TQ_CLAIM_FETCH) ||
        PyModule_AddIntConstant(module, "FORCE_FETCH", TQ_CLAIM_FORCE_FETCH) ||
        PyModule_AddIntConstant(module, "NAME_MAX", TQ_NAME_MAX) ||
        PyModule_AddIntConstant(module, "KEY_MAX", TQ_KEY_MAX)) {
        return -1;
    }
    return 0;
}

static int core_traverse(PyObject *module, visitproc visit, void *arg)
{
    core_state *state = PyModule_GetState(module);

    Py_VISIT(state->error);
    Py_VISIT(state->not_found);
    for (size_t i = 0; i < CORE_N_ERRORS; i++) {
        Py_VISIT(state->errors[i]);
    }
    Py_VISIT(state->client);
    Py_VISIT(state->op);
    Py_VISIT(state->meta);
    Py_VISIT(state->data);
    Py_VISIT(state->buffer);
    Py_VISIT(state->queue);
    Py_VISIT(state->left);
    Py_VISIT(state->data_column);
    Py_VISIT(state->meta_field);
    return 0;
}

static int core_clear(PyObject *module)
{
    core_state *state = PyModule_GetState(module);

    Py_CLEAR(state->error);
    Py_CLEAR(state->not_found);
    for (size_t i = 0; i < CORE_N_ERRORS; i++) {
        Py_CLEAR(state->errors[i]);
    }
    Py_CLEAR(state->client);
    Py_CLEAR(state->op);
    Py_CLEAR(state->meta);
    Py_CLEAR(state->data);
    Py_CLEAR(state->buffer);
    Py_CLEAR(state->queue);
    Py_CLEAR(state->left);
    Py_CLEAR(state->data_column);
    Py_CLEAR(state->meta_field);
    Py_CLEAR(state->name_done);
    Py_CLEAR(state->name_set_result);
    Py_CLEAR(state->name_set_exception);
    return 0;
}

static void core_free(void *module)
{
    core_clear(module);
}

/* Slots hold functions as void pointers, as CPython defines them. */
static PyModuleDef_Slot core_slots[] = {
    {Py_mod_exec, core_exec},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
    {0, NULL},
};

static struct PyModuleDef core_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "transferq._core",
    .m_doc = "The transfer queue's C library as Python objects; use the package transferq instead.",
    .m_size = sizeof(core_state),
    .m_methods = core_functions,
    .m_slots = core_slots,
    .m_traverse = core_traverse,
    .m_clear = core_clear,
    .m_free = core_free,
};

PyMODINIT_FUNC PyInit__core(void);

PyMODINIT_FUNC PyInit__core(void)
{
    return PyModuleDef_Init(&core_module);
}
