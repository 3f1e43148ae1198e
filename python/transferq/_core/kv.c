/*
 * kv.c - clients of key-value stores written in Python, used by the general KV storage manager of libtq.
 *
 * The manager calls a client on threads of libtq's pool; each call takes the GIL and calls one method of the Python
 * object with lists of keys, addresses and sizes. No byte of a value becomes a Python object: a client passes the
 * addresses to its store, or views them.
 */
#include "core.h"

#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <tq/kv.h>
#include <unistd.h>

#define KV_NAME_MAX 200

/* One registered type; never freed, like all such tables. */
typedef struct kv_type {
    tq_kv_client table;
    PyObject *make; /* makes a client from the config, a JSON text */
    core_state *state;
    char name[TQ_NAME_MAX + 1];
} kv_type;

/* The manager's state for one open client. */
typedef struct kv_state {
    const kv_type *type;
    PyObject *client;
    char name[KV_NAME_MAX + 1];
} kv_state;

/* --- errors --------------------------------------------------------------- */

/* The code for an exception: exact for our own classes, otherwise the closest. */
static int kv_code(const core_state *state, PyObject *exception)
{
    long code = TQ_EIO;

    if (PyErr_GivenExceptionMatches(exception, state->error)) {
        PyObject *number = PyObject_GetAttrString(exception, "code");
        code = number != NULL ? PyLong_AsLong(number) : 0;
        Py_XDECREF(number);
        PyErr_Clear();
        return code < 0 && code >= -CORE_N_ERRORS ? (int)code : TQ_EIO;
    }
    return PyErr_GivenExceptionMatches(exception, PyExc_MemoryError)       ? TQ_ENOMEM
           : PyErr_GivenExceptionMatches(exception, PyExc_TimeoutError)    ? TQ_ETIMEDOUT
           : PyErr_GivenExceptionMatches(exception, PyExc_PermissionError) ? TQ_EAUTH
           : PyErr_GivenExceptionMatches(exception, PyExc_ConnectionError) ? TQ_EUNREACHABLE
                                                                           : (int)code;
}

/* Converts the pending exception to an error that names store, method and exception. */
static int kv_failed(const kv_type *type, const char *method, tq_error *err)
{
    PyObject *kind, *exception, *trace;

    PyErr_Fetch(&kind, &exception, &trace);
    PyErr_NormalizeException(&kind, &exception, &trace);
    PyObject *text = exception != NULL ? PyObject_Str(exception) : NULL;
    const char *message = text != NULL ? PyUnicode_AsUTF8(text) : NULL;
    err->code = exception != NULL ? kv_code(type->state, exception) : TQ_EINTERNAL;
    snprintf(err->message, sizeof(err->message), "%s.%s: %s: %s", type->name, method,
             exception != NULL ? Py_TYPE(exception)->tp_name : "no exception", message != NULL ? message : "");
    Py_XDECREF(text);
    Py_XDECREF(kind);
    Py_XDECREF(exception);
    Py_XDECREF(trace);
    PyErr_Clear();
    return err->code;
}

/* --- calls ---------------------------------------------------------------- */

/* A call into Python from a thread of libtq's pool. The cycle collector must not run there: it may free operations and
 * clients, and freeing them would wait for loops that wait for this thread, or race with the close of their client. */
static int kv_calls; /* with the GIL held */
static int kv_collected;
/* Signalled when the last call has returned. */
static pthread_mutex_t kv_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t kv_changed = PTHREAD_COND_INITIALIZER;
static bool kv_idle = true;
static pid_t kv_pid; /* the process of these calls: threads do not survive a fork */

static void kv_set_idle(bool idle)
{
    pthread_mutex_lock(&kv_lock);
    kv_idle = idle;
    kv_pid = getpid();
    pthread_cond_broadcast(&kv_changed);
    pthread_mutex_unlock(&kv_lock);
}

static PyGILState_STATE kv_enter(void)
{
    PyGILState_STATE gil = PyGILState_Ensure();

    if (kv_calls++ == 0) {
        kv_collected = PyGC_Disable();
        kv_set_idle(false);
    }
    return gil;
}

static void kv_leave(PyGILState_STATE gil)
{
    if (--kv_calls == 0) {
        if (kv_collected) {
            PyGC_Enable();
        }
        kv_set_idle(true);
    }
    PyGILState_Release(gil);
}

/* A thread that returns from a store's library after the interpreter is finalized would end the process. */
PyObject *core_kv_wait(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    Py_BEGIN_ALLOW_THREADS
    pthread_mutex_lock(&kv_lock);
    while (!kv_idle && kv_pid == getpid()) {
        pthread_cond_wait(&kv_changed, &kv_lock);
    }
    pthread_mutex_unlock(&kv_lock);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *kv_number(uint64_t value)
{
    return PyLong_FromUnsignedLongLong(value);
}

/* A list of n items created by `item`. */
static PyObject *kv_list(size_t n, PyObject *(*item)(const void *from, size_t i), const void *from)
{
    PyObject *list = PyList_New((Py_ssize_t)n);

    for (size_t i = 0; list != NULL && i < n; i++) {
        PyObject *made = item(from, i);
        if (made == NULL) {
            Py_CLEAR(list);
        } else {
            PyList_SET_ITEM(list, (Py_ssize_t)i, made);
        }
    }
    return list;
}

/* Calls a method with keys, addresses and sizes, and takes over their references; NULL stands for an argument that
 * could not be created. */
static PyObject *kv_call(const kv_state *kv, const char *method, PyObject *keys, PyObject *pointers, PyObject *sizes)
{
    PyObject *answer = NULL;

    if (keys != NULL && pointers != NULL && sizes != NULL) {
        answer = PyObject_CallMethod(kv->client, method, "OOO", keys, pointers, sizes);
    }
    Py_XDECREF(keys);
    Py_XDECREF(pointers);
    Py_XDECREF(sizes);
    return answer;
}

/* Whether the answer for a key is True, or equal to True; -1 with an exception set if it equals neither True nor
 * False. */
static int kv_truth(PyObject *item, const char *key)
{
    int found = PyObject_RichCompareBool(item, Py_True, Py_EQ);
    int missing = found == 0 ? PyObject_RichCompareBool(item, Py_False, Py_EQ) : 0;

    if (found == 0 && missing == 0) {
        PyErr_Format(PyExc_TypeError, "expected True or False for key '%s', got %R", key, item);
        return -1;
    }
    return found < 0 || missing < 0 ? -1 : found;
}

/* Reads an answer with one truth value per key: whether the key was there. Takes over the answer. `keys` and `missing`
 * are those of the first key; the others follow every `stride` bytes. */
static int kv_found(const kv_state *kv, const char *method, PyObject *answer, size_t n, const char *const *keys,
                    bool *missing, size_t stride, tq_error *err)
{
    PyObject *items = answer != NULL ? PySequence_Fast(answer, "expected a sequence of one bool per key") : NULL;
    int rc = TQ_OK;

    if (answer != NULL && items == NULL && PyErr_ExceptionMatches(PyExc_TypeError)) {
        PyErr_Format(PyExc_TypeError, "expected one bool for each of %zu keys, got %R", n, answer);
    }
    if (items != NULL && (size_t)PySequence_Fast_GET_SIZE(items) != n) {
        PyErr_Format(PyExc_ValueError, "expected one bool for each of %zu keys, got %zd", n,
                     PySequence_Fast_GET_SIZE(items));
        Py_CLEAR(items);
    }
    for (size_t i = 0; items != NULL && i < n; i++) {
        int found = kv_truth(PySequence_Fast_GET_ITEM(items, (Py_ssize_t)i),
                             *(const char *const *)(const void *)((const char *)keys + i * stride));
        if (found < 0) {
            Py_CLEAR(items);
            break;
        }
        *(bool *)(void *)((char *)missing + i * stride) = !found;
    }
    if (items == NULL) {
        rc = kv_failed(kv->type, method, err);
    }
    Py_XDECREF(items);
    Py_XDECREF(answer);
    return rc;
}

/* --- put ------------------------------------------------------------------ */

static PyObject *kv_value_key(const void *from, size_t i)
{
    return PyUnicode_FromString(((const tq_kv_value *)from)[i].key);
}

static PyObject *kv_slice_pointer(const void *from, size_t i)
{
    return PyLong_FromVoidPtr((void *)(uintptr_t)((const tq_slice *)from)[i].data);
}

static PyObject *kv_slice_size(const void *from, size_t i)
{
    return kv_number(((const tq_slice *)from)[i].size);
}

static PyObject *kv_value_pointers(const void *from, size_t i)
{
    const tq_kv_value *value = &((const tq_kv_value *)from)[i];

    return kv_list(value->n_slices, kv_slice_pointer, value->slices);
}

static PyObject *kv_value_sizes(const void *from, size_t i)
{
    const tq_kv_value *value = &((const tq_kv_value *)from)[i];

    return kv_list(value->n_slices, kv_slice_size, value->slices);
}

static int kv_put(void *state, const tq_kv_value *values, size_t n, uint64_t deadline_ns, tq_error *err)
{
    const kv_state *kv = state;
    PyGILState_STATE gil = kv_enter();
    PyObject *answer = kv_call(kv, "put_from", kv_list(n, kv_value_key, values), kv_list(n, kv_value_pointers, values),
                               kv_list(n, kv_value_sizes, values));
    int rc = answer != NULL ? TQ_OK : kv_failed(kv->type, "put_from", err);

    (void)deadline_ns; /* the Python client handles its store's time limits */
    Py_XDECREF(answer);
    kv_leave(gil);
    return rc;
}

/* --- get ------------------------------------------------------------------ */

static PyObject *kv_read_key(const void *from, size_t i)
{
    return PyUnicode_FromString(((const tq_kv_read *)from)[i].key);
}

static PyObject *kv_read_pointer(const void *from, size_t i)
{
    return PyLong_FromVoidPtr(((const tq_kv_read *)from)[i].dest);
}

static PyObject *kv_read_size(const void *from, size_t i)
{
    return kv_number(((const tq_kv_read *)from)[i].size);
}

static int kv_get(void *state, tq_kv_read *reads, size_t n, uint64_t deadline_ns, tq_error *err)
{
    const kv_state *kv = state;
    PyGILState_STATE gil = kv_enter();
    PyObject *answer = kv_call(kv, "get_into", kv_list(n, kv_read_key, reads), kv_list(n, kv_read_pointer, reads),
                               kv_list(n, kv_read_size, reads));
    int rc = kv_found(kv, "get_into", answer, n, &reads->key, &reads->missing, sizeof(*reads), err);

    (void)deadline_ns;
    kv_leave(gil);
    return rc;
}

/* --- remove --------------------------------------------------------------- */

static PyObject *kv_key_text(const void *from, size_t i)
{
    return PyUnicode_FromString(((const tq_kv_key *)from)[i].key);
}

static int kv_remove(void *state, tq_kv_key *keys, size_t n, uint64_t deadline_ns, tq_error *err)
{
    const kv_state *kv = state;
    PyGILState_STATE gil = kv_enter();
    PyObject *texts = kv_list(n, kv_key_text, keys);
    PyObject *answer = texts != NULL ? PyObject_CallMethod(kv->client, "remove", "O", texts) : NULL;
    int rc = kv_found(kv, "remove", answer, n, &keys->key, &keys->missing, sizeof(*keys), err);

    (void)deadline_ns;
    Py_XDECREF(texts);
    kv_leave(gil);
    return rc;
}

/* --- open and close ------------------------------------------------------- */

static int kv_open(void *state, const tq_kv_client *client, const char *config, tq_error *err)
{
    kv_state *kv = state;
    PyGILState_STATE gil = kv_enter();
    PyObject *name = NULL;
    const char *text = NULL;
    int rc = TQ_OK;

    kv->type = (const kv_type *)(const void *)client;
    kv->client = PyObject_CallFunction(kv->type->make, "s", config);
    name = kv->client != NULL ? PyObject_GetAttrString(kv->client, "name") : NULL;
    text = name != NULL ? PyUnicode_AsUTF8(name) : NULL;
    if (text == NULL) {
        rc = kv_failed(kv->type, "open", err);
        Py_CLEAR(kv->client);
    } else {
        snprintf(kv->name, sizeof(kv->name), "%s", text);
    }
    Py_XDECREF(name);
    kv_leave(gil);
    return rc;
}

static void kv_close(void *state)
{
    kv_state *kv = state;
    PyGILState_STATE gil = kv_enter();
    PyObject *answer = PyObject_CallMethod(kv->client, "close", NULL);

    if (answer == NULL) {
        PyErr_WriteUnraisable(kv->client);
    }
    Py_XDECREF(answer);
    Py_CLEAR(kv->client);
    kv_leave(gil);
}

static const char *kv_store_name(void *state)
{
    return ((const kv_state *)state)->name;
}

PyObject *core_kv_register(PyObject *module, PyObject *args)
{
    const char *name;
    PyObject *make;
    unsigned long long value_max;
    tq_error err = {0};

    if (!PyArg_ParseTuple(args, "sOK:kv_register", &name, &make, &value_max)) {
        return NULL;
    }
    kv_type *type = PyMem_RawCalloc(1, sizeof(*type));
    if (type == NULL) {
        return PyErr_NoMemory();
    }
    snprintf(type->name, sizeof(type->name), "%s", name);
    type->state = PyModule_GetState(module);
    type->make = Py_NewRef(make);
    type->table = (tq_kv_client){
        .abi = TQ_KV_ABI,
        .type = type->name,
        .state_size = sizeof(kv_state),
        .value_max = value_max,
        .open = kv_open,
        .close = kv_close,
        .name = kv_store_name,
        .put = kv_put,
        .get = kv_get,
        .remove = kv_remove,
    };
    if (tq_kv_register(&type->table, &err) != TQ_OK) {
        Py_DECREF(type->make);
        PyMem_RawFree(type);
        return core_raise(PyModule_GetState(module), &err);
    }
    Py_RETURN_NONE;
}
