/*
 * queue.c - Queue: passes completed operations to the event loop that waits for them, in batches.
 *
 * The loop watches the queue's eventfd (fileno) and calls drain when it is readable. The callback of an operation
 * appends to the list and writes to the eventfd only if the list was empty, so a burst of results costs one wake-up.
 * When the queue is closed, because its loop is gone, operations in it or arriving later are left to core_reap.
 */
#include "core.h"

#include <sys/eventfd.h>
#include <unistd.h>

bool core_queue_push(core_queue *queue, core_op *op)
{
    if (queue->fd < 0) {
        return false;
    }
    op->next = NULL;
    if (queue->first != NULL) {
        queue->last->next = op;
    } else {
        queue->first = op;
        eventfd_write(queue->fd, 1); /* cannot fail: the counter is at most 1 here */
    }
    queue->last = op;
    return true;
}

static PyObject *queue_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {NULL};

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, ":Queue", names)) {
        return NULL;
    }
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    core_queue *self = (core_queue *)type->tp_alloc(type, 0);
    if (self == NULL) {
        close(fd);
        return NULL;
    }
    core_count(CORE_QUEUE, 1);
    self->fd = fd;
    self->pid = getpid();
    return (PyObject *)self;
}

static void queue_shut(core_queue *self)
{
    pthread_mutex_lock(&core_lock);
    int fd = self->fd;
    core_op *op = self->first;
    self->fd = -1;
    self->first = self->last = NULL;
    while (op != NULL) {
        core_op *next = op->next;
        core_leave(op);
        op = next;
    }
    pthread_mutex_unlock(&core_lock);
    if (fd >= 0) {
        close(fd);
    }
}

static void queue_dealloc(core_queue *self)
{
    PyTypeObject *type = Py_TYPE(self);

    queue_shut(self);
    core_count(CORE_QUEUE, -1);
    type->tp_free(self);
    Py_DECREF(type);
}

/* Takes the pending exception. */
static PyObject *queue_raised(void)
{
#if PY_VERSION_HEX >= 0x030C0000
    return PyErr_GetRaisedException();
#else
    PyObject *type, *value, *traceback;

    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    Py_XDECREF(type);
    Py_XDECREF(traceback);
    return value;
#endif
}

/* Resolves the future of a completed operation, unless it is already resolved (a cancelled await). */
static void queue_resolve(core_state *state, core_op *op)
{
    PyObject *future = op->future;
    PyObject *done = future != NULL ? PyObject_CallMethodNoArgs(future, state->name_done) : NULL;
    PyObject *outcome = NULL, *set = NULL;

    if (done == Py_False) {
        outcome = core_op_result(op);
        if (outcome != NULL) {
            set = PyObject_CallMethodOneArg(future, state->name_set_result, outcome);
        } else {
            outcome = queue_raised();
            set = outcome != NULL ? PyObject_CallMethodOneArg(future, state->name_set_exception, outcome) : NULL;
        }
    }
    if (PyErr_Occurred() != NULL) {
        PyErr_WriteUnraisable((PyObject *)op);
    }
    Py_XDECREF(set);
    Py_XDECREF(outcome);
    Py_XDECREF(done);
}

PyDoc_STRVAR(queue_drain_doc, "drain($self, /)\n--\n\n"
                              "Resolve the futures of all operations that have ended; return how many there were.");

static PyObject *queue_drain(core_queue *self, PyObject *Py_UNUSED(ignored))
{
    core_state *state = core_state_of((PyObject *)self);
    eventfd_t count;
    long n = 0;

    Py_INCREF(self);
    pthread_mutex_lock(&core_lock);
    if (self->fd >= 0) {
        eventfd_read(self->fd, &count); /* EAGAIN if there was nothing to read */
    }
    core_op *op = self->first;
    self->first = self->last = NULL;
    pthread_mutex_unlock(&core_lock);
    for (; op != NULL; n++) {
        core_op *next = op->next;
        queue_resolve(state, op);
        core_op_settle(op);
        op = next;
    }
    Py_DECREF(self);
    core_reap();
    return PyLong_FromLong(n);
}

PyDoc_STRVAR(queue_fileno_doc, "fileno($self, /)\n--\n\n"
                               "A descriptor that is readable when operations have ended; -1 after close.");

static PyObject *queue_fileno(core_queue *self, PyObject *Py_UNUSED(ignored))
{
    return PyLong_FromLong(self->fd);
}

PyDoc_STRVAR(queue_close_doc,
             "close($self, /)\n--\n\n"
             "Close the descriptor. Operations that end later resolve no future. May be called again.");

static PyObject *queue_close(core_queue *self, PyObject *Py_UNUSED(ignored))
{
    queue_shut(self);
    core_reap();
    Py_RETURN_NONE;
}

PyDoc_STRVAR(queue_pid_doc, "Process that made the queue. A forked child needs another queue.");

static PyObject *queue_pid(core_queue *self, void *Py_UNUSED(closure))
{
    return PyLong_FromLong(self->pid);
}

static PyMethodDef queue_methods[] = {
    {"drain", (PyCFunction)queue_drain, METH_NOARGS, queue_drain_doc},
    {"fileno", (PyCFunction)queue_fileno, METH_NOARGS, queue_fileno_doc},
    {"close", (PyCFunction)queue_close, METH_NOARGS, queue_close_doc},
    {0},
};

static PyGetSetDef queue_getset[] = {
    {"pid", (getter)queue_pid, NULL, queue_pid_doc, NULL},
    {0},
};

static PyType_Slot queue_slots[] = {
    {Py_tp_doc, "Queue()\n--\n\nFinished operations of one event loop."},
    {Py_tp_new, queue_new},
    {Py_tp_dealloc, queue_dealloc},
    {Py_tp_methods, queue_methods},
    {Py_tp_getset, queue_getset},
    {0, NULL},
};

static PyType_Spec queue_spec = {
    .name = "transferq._core.Queue",
    .basicsize = sizeof(core_queue),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = queue_slots,
};

PyTypeObject *core_queue_type(PyObject *module)
{
    return (PyTypeObject *)PyType_FromModuleAndSpec(module, &queue_spec, NULL);
}
