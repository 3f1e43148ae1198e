/*
 * errors.c - the exception classes, generated from the table in tq/errors.h, and the only place that raises them.
 *
 * Every class derives from TransferQueueError and from the built-in class that the table names, so that both `except
 * transferq.TransferQueueError` and `except ValueError` work. All are RuntimeErrors too, because programs written for
 * TransferQueue catch those: its client raises RuntimeError for any refusal by the controller. Errors about data that
 * can no longer be read (cleared, lost) are StorageKeyNotFoundErrors. A system that has ended cannot be reached
 * either, so that error is also an UnreachableError.
 */
#include "core.h"

typedef struct error_row {
    int code;
    const char *symbol; /* "TQ_EFULL" */
    const char *name;   /* "transferq.errors.StorageFullError" */
    const char *base;   /* "RuntimeError" */
    const char *text;
} error_row;

#define ERROR_ROW(code, value, py, pybase, text) {code, #code, "transferq.errors." #py, #pybase, text},
static const error_row error_rows[] = {TQ_ERRORS(ERROR_ROW)};
#undef ERROR_ROW

static PyObject *errors_make(PyObject *module, const char *name, const char *doc, PyObject *bases, long code,
                             const char *symbol)
{
    PyObject *dict = Py_BuildValue("{s:l,s:s}", "code", code, "symbol", symbol);
    PyObject *error = dict != NULL ? PyErr_NewExceptionWithDoc(name, doc, bases, dict) : NULL;

    Py_XDECREF(dict);
    if (error != NULL && PyModule_AddObjectRef(module, strrchr(name, '.') + 1, error)) {
        Py_CLEAR(error);
    }
    return error;
}

/* The base classes for one row. */
static PyObject *errors_bases(core_state *state, const error_row *row)
{
    PyObject *builtins = PyEval_GetBuiltins(); /* borrowed */
    PyObject *base = builtins != NULL ? PyMapping_GetItemString(builtins, row->base) : NULL;
    PyObject *bases = NULL;

    if (base != NULL && (row->code == TQ_ECLEARED || row->code == TQ_ELOST)) {
        bases = PyTuple_Pack(2, state->not_found, base);
    } else if (base != NULL && row->code == TQ_EENDED) {
        bases = PyTuple_Pack(1, state->errors[-TQ_EUNREACHABLE - 1]);
    } else if (base != NULL) {
        bases = PyTuple_Pack(2, state->error, base);
    }
    Py_XDECREF(base);
    return bases;
}

/* KeyError quotes its message, because it expects a key; these messages are sentences. */
static int errors_plain_text(PyObject *error)
{
    PyObject *text = PyObject_GetAttrString(PyExc_Exception, "__str__");
    int failed = text != NULL ? PyObject_SetAttrString(error, "__str__", text) : -1;

    Py_XDECREF(text);
    return failed;
}

int core_errors_init(PyObject *module, core_state *state)
{
    PyObject *bases = NULL;

    state->error = errors_make(module, "transferq.errors.TransferQueueError",
                               "Base of all errors of the transfer queue; `code` is its number and "
                               "`symbol` its name in C.",
                               PyExc_RuntimeError, 0, "");
    if (state->error == NULL) {
        return -1;
    }
    bases = PyTuple_Pack(2, state->error, PyExc_KeyError);
    state->not_found =
        bases != NULL
            ? errors_make(module, "transferq.errors.StorageKeyNotFoundError",
                          "What was to be read is not in the storage (any more): it was cleared or lost.", bases, 0, "")
            : NULL;
    Py_XDECREF(bases);
    if (state->not_found == NULL || errors_plain_text(state->not_found)) {
        return -1;
    }
    for (size_t i = 0; i < CORE_N_ERRORS; i++) {
        const error_row *row = &error_rows[i];
        char doc[160];
        snprintf(doc, sizeof(doc), "%s: %s.", row->symbol, row->text);
        bases = errors_bases(state, row);
        PyObject *error = bases != NULL ? errors_make(module, row->name, doc, bases, row->code, row->symbol) : NULL;
        Py_XDECREF(bases);
        if (error == NULL) {
            return -1;
        }
        if (-row->code < 1 || -row->code > CORE_N_ERRORS) {
            PyErr_Format(PyExc_SystemError, "error code %d is out of the table's range", row->code);
            Py_DECREF(error);
            return -1;
        }
        Py_XSETREF(state->errors[-row->code - 1], error);
    }
    return 0;
}

/* Returns the exception as a new reference; on failure NULL with an exception set. */
static PyObject *errors_exception(core_state *state, const tq_error *err)
{
    PyObject *type = err->code < 0 && err->code >= -CORE_N_ERRORS ? state->errors[-err->code - 1] : state->error;
    PyObject *message = core_text(err->message[0] ? err->message : tq_strerror(err->code));
    PyObject *exception = message != NULL ? PyObject_CallOneArg(type, message) : NULL;

    Py_XDECREF(message);
    return exception;
}

PyObject *core_raise(core_state *state, const tq_error *err)
{
    PyObject *exception = errors_exception(state, err);

    if (exception != NULL) {
        PyErr_SetObject((PyObject *)Py_TYPE(exception), exception);
        Py_DECREF(exception);
    }
    return NULL;
}
