/*
 * op.c - Op: one operation, used by both the sync and the asyncio calls.
 *
 * Rules.
 *   - From start to completion an operation owns a reference to itself, and the call's arguments (names, buffers,
 *     tensors). Both are dropped with the GIL held: by the event loop that drains its queue, or by core_reap, which
 *     runs whenever something is started, waited for or closed.
 *   - The callback runs on a thread of libtq without the GIL. It marks the operation completed and hands the
 *     reference to a queue or to the list of completed operations; after that it no longer uses the operation.
 *   - core_lock guards the mark, the list and the queues. It is never held while Python code runs.
 *   - After a fork the child has no thread that could complete an operation of the parent: waiting for one is an
 *     error.
 */
#include "core.h"

#include <math.h>
#include <time.h>
#include <unistd.h>

/* Seconds after which a waiting thread checks for signals, the first time and the longest: a signal that arrived just
 * before the thread fell asleep did not wake it. */
#define OP_NAP_MIN 0.01
#define OP_NAP_MAX 1.0

pthread_mutex_t core_lock = PTHREAD_MUTEX_INITIALIZER;
static core_op *op_finished; /* under core_lock */

static void op_fork_prepare(void)
{
    pthread_mutex_lock(&core_lock);
}

static void op_fork_after(void)
{
    pthread_mutex_unlock(&core_lock);
}

int core_fork_init(void)
{
    static bool done;

    if (!done && pthread_atfork(op_fork_prepare, op_fork_after, op_fork_after)) {
        PyErr_NoMemory();
        return -1;
    }
    done = true;
    return 0;
}

void core_leave(core_op *op)
{
    op->next = op_finished;
    op_finished = op;
}

static void op_on_done(tq_op *tqop, void *arg)
{
    core_op *self = arg;

    (void)tqop;
    pthread_mutex_lock(&core_lock);
    self->done = true;
    if (self->queue == NULL || !core_queue_push(self->queue, self)) {
        core_leave(self);
    }
    pthread_mutex_unlock(&core_lock);
}

void core_op_settle(core_op *op)
{
    core_queue *queue;

    pthread_mutex_lock(&core_lock);
    queue = op->queue;
    op->queue = NULL;
    pthread_mutex_unlock(&core_lock);
    core_arena_free(&op->args);
    Py_CLEAR(op->future);
    Py_XDECREF(queue);
    Py_DECREF(op);
}

void core_reap(void)
{
    core_get_reap();
    pthread_mutex_lock(&core_lock);
    core_op *op = op_finished;
    op_finished = NULL;
    pthread_mutex_unlock(&core_lock);
    while (op != NULL) {
        core_op *next = op->next;
        core_op_settle(op);
        op = next;
    }
}

core_op *core_op_new(core_client *client, core_result gives, double timeout)
{
    core_state *state = core_state_of((PyObject *)client);

    core_reap();
    if (client->client == NULL) {
        tq_error err = {.code = TQ_ECLOSED, .message = "the client is closed: open another one, or call init()"};
        core_raise(state, &err);
        return NULL;
    }
    core_op *self = PyObject_GC_New(core_op, state->op);
    if (self == NULL) {
        return NULL;
    }
    memset((char *)self + sizeof(PyObject), 0, sizeof(*self) - sizeof(PyObject));
    core_count(CORE_OP, 1);
    self->client = Py_NewRef((PyObject *)client);
    self->gives = gives;
    self->pid = getpid();
    self->done = true; /* until it is started */
    self->op = tq_op_alloc(client->client, op_on_done, self);
    PyObject_GC_Track(self);
    if (self->op == NULL) {
        Py_DECREF(self);
        PyErr_NoMemory();
        return NULL;
    }
    tq_op_set_timeout(self->op, timeout);
    return self;
}

void core_op_begin(core_op *op)
{
    op->done = false;
    Py_INCREF(op);
}

PyObject *core_op_finish(core_op *op, int rc)
{
    if (rc == TQ_OK) {
        return (PyObject *)op;
    }
    op->done = true;
    core_raise(core_state_of((PyObject *)op), tq_op_error(op->op));
    core_op_settle(op);
    Py_DECREF(op);
    return NULL;
}

static int op_traverse(core_op *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->client);
    Py_VISIT(self->future);
    return 0;
}

static int op_clear(core_op *self)
{
    Py_CLEAR(self->future);
    return 0;
}

/* Only reached when it is done, was never started, or (never) started by another process. */
static void op_dealloc(core_op *self)
{
    PyTypeObject *type = Py_TYPE(self);

    PyObject_GC_UnTrack(self);
    tq_op *op = self->op;
    if (op != NULL) {
        Py_BEGIN_ALLOW_THREADS
        tq_op_free(op);
        Py_END_ALLOW_THREADS
    }
    core_arena_free(&self->args);
    Py_XDECREF(self->future);
    Py_XDECREF(self->queue);
    Py_XDECREF(self->client);
    core_count(CORE_OP, -1);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

/* Metadata together with the operation's other result; takes over the reference. */
static PyObject *op_with_meta(core_state *state, core_op *op, PyObject *other)
{
    PyObject *meta = other != NULL ? core_meta_wrap(state, tq_op_meta(op->op)) : NULL;
    PyObject *both = meta != NULL ? PyTuple_Pack(2, meta, other) : NULL;

    Py_XDECREF(meta);
    Py_XDECREF(other);
    return both;
}

PyObject *core_op_result(core_op *op)
{
    core_state *state = core_state_of((PyObject *)op);
    const tq_error *err = tq_op_error(op->op);
    size_t n;

    if (err->code) {
        return core_raise(state, err);
    }
    switch (op->gives) {
    case CORE_NOTHING:
        break;
    case CORE_GIVES_META:
        return core_meta_wrap(state, tq_op_meta(op->op));
    case CORE_GIVES_META_NAMES: {
        const char *const *names = tq_op_names(op->op, &n);
        return op_with_meta(state, op, core_names(names, n));
    }
    case CORE_GIVES_META_COUNT:
        return op_with_meta(state, op, PyLong_FromUnsignedLongLong(tq_op_count(op->op)));
    case CORE_GIVES_META_DATA: {
        const tq_data *data = tq_op_data(op->op);
        return op_with_meta(state, op, data != NULL ? core_data_wrap(state, data) : Py_NewRef(Py_None));
    }
    case CORE_GIVES_DATA:
        return core_data_wrap(state, tq_op_data(op->op));
    case CORE_GIVES_COUNT:
        return PyLong_FromUnsignedLongLong(tq_op_count(op->op));
    case CORE_GIVES_PROGRESS:
        return core_progress(state, tq_op_progress(op->op));
    case CORE_GIVES_NAMES: {
        const char *const *names = tq_op_names(op->op, &n);
        return core_names(names, n);
    }
    case CORE_GIVES_STATUS:
        return core_status(tq_op_status(op->op));
    case CORE_GIVES_CHECKPOINT:
        return core_checkpoint(tq_op_checkpoint(op->op));
    case CORE_GIVES_CLEARINGS: {
        const tq_clearing *const *clearings = tq_op_clearings(op->op, &n);
        return core_clearings(state, clearings, n);
    }
    case CORE_GIVES_EVENTS: {
        uint64_t next;
        const tq_event *const *events = tq_op_events(op->op, &n, &next);
        return core_events(events, n, next);
    }
    }
    Py_RETURN_NONE;
}

static bool op_is_done(core_op *self)
{
    pthread_mutex_lock(&core_lock);
    bool done = self->done;
    pthread_mutex_unlock(&core_lock);
    return done;
}

static int op_check_process(core_op *self)
{
    if (self->pid == getpid()) {
        return 0;
    }
    tq_error err = {.code = TQ_ECLOSED};
    snprintf(err.message, sizeof(err.message),
             "the operation belongs to the parent process %d: start one in this process", (int)self->pid);
    core_raise(core_state_of((PyObject *)self), &err);
    return -1;
}

/* Monotonic, in seconds. */
static double op_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* Waits without the GIL until the operation has completed. A signal handler that raises ends the wait: the operation is
 * then cancelled. 1: completed; 0: the time is up; -1: an exception is set. */
static int op_await(core_op *self, double timeout)
{
    double until = timeout < 0 ? HUGE_VAL : op_now() + timeout, nap = OP_NAP_MIN;
    bool ended;

    for (;;) {
        double left = until - op_now();
        double seconds = left > 0 ? left : 0;
        seconds = seconds < nap ? seconds : nap;
        Py_BEGIN_ALLOW_THREADS
        ended = tq_op_wait_for(self->op, seconds);
        Py_END_ALLOW_THREADS
        if (ended) {
            return 1;
        }
        if (PyErr_CheckSignals()) {
            tq_op_cancel(self->op);
            return -1;
        }
        if (op_check_process(self)) { /* a handler that forked */
            return -1;
        }
        if (!(op_now() < until)) {
            return 0;
        }
        nap = nap * 2 < OP_NAP_MAX ? nap * 2 : OP_NAP_MAX;
    }
}

PyDoc_STRVAR(op_result_doc, "result($self, /, timeout=None)\n--\n\n"
                            "Wait for the operation; return its result or raise its error.\n\n"
                            "Raises TimedOutError after `timeout` seconds; the operation continues.");

static PyObject *op_result(core_op *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"timeout", NULL};
    PyObject *limit = Py_None;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:result", names, &limit)) {
        return NULL;
    }
    double timeout = limit == Py_None ? -1 : PyFloat_AsDouble(limit);
    if (PyErr_Occurred() != NULL || op_check_process(self)) {
        return NULL;
    }
    if (!op_is_done(self)) {
        int ended = op_await(self, timeout < 0 && limit != Py_None ? 0 : timeout);
        if (ended < 0) {
            return NULL;
        }
        if (!ended) {
            tq_error err = {.code = TQ_ETIMEDOUT, .message = "the operation has not ended yet"};
            return core_raise(core_state_of((PyObject *)self), &err);
        }
    }
    core_reap();
    return core_op_result(self);
}

PyDoc_STRVAR(op_attach_doc, "attach($self, queue, future, /)\n--\n\n"
                            "Let the event loop of the queue resolve the future when the operation ends.\n\n"
                            "Returns False if it has ended already; the future is then left alone. Another call\n"
                            "replaces the future.");

static PyObject *op_attach(core_op *self, PyObject *const *args, Py_ssize_t nargs)
{
    core_state *state = core_state_of((PyObject *)self);

    if (nargs != 2 || !Py_IS_TYPE(args[0], state->queue)) {
        PyErr_SetString(PyExc_TypeError, "attach(queue, future)");
        return NULL;
    }
    if (op_check_process(self)) {
        return NULL;
    }
    core_queue *queue = (core_queue *)args[0];
    PyObject *future = Py_NewRef(args[1]);
    Py_INCREF(queue);
    pthread_mutex_lock(&core_lock);
    bool done = self->done;
    bool usable = queue->fd >= 0;
    if (!done && usable) {
        /* An earlier future was abandoned. */
        core_queue *old_queue = self->queue;
        PyObject *old_future = self->future;
        self->queue = queue;
        self->future = future;
        queue = old_queue;
        future = old_future;
    }
    pthread_mutex_unlock(&core_lock);
    Py_XDECREF(future);
    Py_XDECREF(queue);
    if (!done && !usable) {
        PyErr_SetString(PyExc_RuntimeError, "the queue is closed");
        return NULL;
    }
    return PyBool_FromLong(!done);
}

PyDoc_STRVAR(op_cancel_doc,
             "cancel($self, /)\n--\n\n"
             "Ask the operation to end early: with CanceledError, or with its result if that is already\n"
             "on its way.");

static PyObject *op_cancel(core_op *self, PyObject *Py_UNUSED(ignored))
{
    if (self->pid == getpid() && !op_is_done(self)) {
        tq_op_cancel(self->op);
    }
    Py_RETURN_NONE;
}

PyDoc_STRVAR(op_done_doc, "done($self, /)\n--\n\n"
                          "Whether the operation has ended.");

static PyObject *op_done(core_op *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(op_is_done(self));
}

static PyMethodDef op_methods[] = {
    {"result", (PyCFunction)(void (*)(void))op_result, METH_VARARGS | METH_KEYWORDS, op_result_doc},
    {"attach", (PyCFunction)(void (*)(void))op_attach, METH_FASTCALL, op_attach_doc},
    {"cancel", (PyCFunction)op_cancel, METH_NOARGS, op_cancel_doc},
    {"done", (PyCFunction)op_done, METH_NOARGS, op_done_doc},
    {0},
};

static PyType_Slot op_slots[] = {
    {Py_tp_doc, "One operation; made by the methods of Client."},
    {Py_tp_dealloc, op_dealloc},
    {Py_tp_traverse, op_traverse},
    {Py_tp_clear, op_clear},
    {Py_tp_methods, op_methods},
    {0, NULL},
};

static PyType_Spec op_spec = {
    .name = "transferq._core.Op",
    .basicsize = sizeof(core_op),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = op_slots,
};

PyTypeObject *core_op_type(PyObject *module)
{
    return (PyTypeObject *)PyType_FromModuleAndSpec(module, &op_spec, NULL);
}
