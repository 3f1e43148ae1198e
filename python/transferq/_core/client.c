/*
 * client.c - Client: a connection to one system. Its calls are in calls.c and put.c.
 *
 * The handle is only read with the GIL held, and calls are started without releasing it, so none of them is running
 * when close takes the handle. Operations hold a reference to their client.
 */
#include "core.h"

static PyObject *client_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"address", "token", "token_file", "name",      "manager", "manager_config",
                            "timeout", "node",  "notice",     "libraries", NULL};
    tq_client_options options = {.size = sizeof(options)};
    tq_error err = {0};
    int rc;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s|zzzzzdzdz:Client", names, &options.address, &options.token,
                                     &options.token_file, &options.name, &options.manager, &options.manager_config,
                                     &options.timeout, &options.node, &options.notice, &options.libraries)) {
        return NULL;
    }
    core_client *self = (core_client *)type->tp_alloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    core_count(CORE_CLIENT, 1);
    /* The strings belong to the arguments, which the caller holds. */
    Py_BEGIN_ALLOW_THREADS
    rc = tq_client_open(&options, &self->client, &err);
    Py_END_ALLOW_THREADS
    if (rc) {
        self->client = NULL;
        core_raise(PyType_GetModuleState(type), &err);
        Py_DECREF(self);
        return NULL;
    }
    return (PyObject *)self;
}

static void client_shut(core_client *self)
{
    tq_client *client = self->client;

    self->client = NULL;
    if (client != NULL) {
        Py_BEGIN_ALLOW_THREADS
        tq_client_close(client);
        Py_END_ALLOW_THREADS
    }
}

static void client_dealloc(core_client *self)
{
    PyTypeObject *type = Py_TYPE(self);

    client_shut(self);
    core_count(CORE_CLIENT, -1);
    type->tp_free(self);
    Py_DECREF(type);
}

PyDoc_STRVAR(client_close_doc, "close($self, /)\n--\n\n"
                               "End all operations with ClosedError and leave the system. May be called again.");

static PyObject *client_close(core_client *self, PyObject *Py_UNUSED(ignored))
{
    client_shut(self);
    core_reap();
    Py_RETURN_NONE;
}

static PyObject *client_closed(core_client *self, void *Py_UNUSED(closure))
{
    return PyBool_FromLong(self->client == NULL);
}

static PyObject *client_closed_error(core_client *self)
{
    tq_error err = {.code = TQ_ECLOSED, .message = "the client is closed: open another one, or call init()"};

    return core_raise(core_state_of((PyObject *)self), &err);
}

static PyObject *client_epoch(core_client *self, void *Py_UNUSED(closure))
{
    if (self->client == NULL) {
        return client_closed_error(self);
    }
    return PyLong_FromUnsignedLongLong(tq_client_epoch(self->client));
}

static PyObject *client_config(core_client *self, void *Py_UNUSED(closure))
{
    if (self->client == NULL) {
        return client_closed_error(self);
    }
    return core_text(tq_client_config(self->client));
}

static PyGetSetDef client_getset[] = {
    {"closed", (getter)client_closed, NULL, "Whether it was closed.", NULL},
    {"epoch", (getter)client_epoch, NULL, "Epoch of the controller: another number after a restart.", NULL},
    {"config", (getter)client_config, NULL, "Configuration of the system, a JSON object.", NULL},
    {0},
};

static PyMethodDef client_methods[] = {
    {"close", (PyCFunction)client_close, METH_NOARGS, client_close_doc},
    {0},
};

static PyType_Slot client_slots[] = {
    {Py_tp_doc, "Client(address, token=None, token_file=None, name=None, manager=None, "
                "manager_config=None, timeout=0.0, node=None, notice=0.0, "
                "libraries=None)\n--\n\n"
                "A connection to one system; its methods start operations."},
    {Py_tp_new, client_new},
    {Py_tp_dealloc, client_dealloc},
    {Py_tp_methods, client_methods},
    {Py_tp_getset, client_getset},
    {0, NULL},
};

static PyType_Spec client_spec = {
    .name = "transferq._core.Client",
    .basicsize = sizeof(core_client),
    .flags = Py_TPFLAGS_DEFAULT,
    .slots = client_slots,
};

/* The calls are in another file, so they are added after the type is created; then the type is made immutable. */
PyTypeObject *core_client_type(PyObject *module)
{
    PyTypeObject *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &client_spec, NULL);

    for (PyMethodDef *def = core_client_calls; type != NULL && def->ml_name != NULL; def++) {
        PyObject *method = PyDescr_NewMethod(type, def);
        if (method == NULL || PyObject_SetAttrString((PyObject *)type, def->ml_name, method)) {
            Py_CLEAR(type);
        }
        Py_XDECREF(method);
    }
    if (type != NULL) {
        type->tp_flags |= Py_TPFLAGS_IMMUTABLETYPE;
    }
    return type;
}
