/*
 * report.c - results converted to plain Python objects immediately: progress, names, status, events.
 */
#include "core.h"

PyObject *core_progress(core_state *state, const tq_progress *progress)
{
    (void)state;
    if (progress == NULL || !progress->known) {
        Py_RETURN_NONE;
    }
    /* Copied: the memory belongs to the operation, which the views may outlive. */
    return Py_BuildValue("(y#ny#)", (const char *)progress->indexes,
                         (Py_ssize_t)(progress->n * sizeof(*progress->indexes)), (Py_ssize_t)progress->columns,
                         (const char *)progress->flags, (Py_ssize_t)(progress->n * progress->columns));
}

PyObject *core_names(const char *const *names, size_t n)
{
    PyObject *list = PyList_New((Py_ssize_t)n);

    for (size_t i = 0; list != NULL && i < n; i++) {
        PyObject *name = core_text(names[i]);
        if (name == NULL) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, (Py_ssize_t)i, name);
    }
    return list;
}

/* A list of unsigned integers. */
static PyObject *report_indexes(const uint32_t *indexes, size_t n)
{
    PyObject *list = PyList_New((Py_ssize_t)n);

    for (size_t i = 0; list != NULL && i < n; i++) {
        PyObject *index = PyLong_FromUnsignedLong(indexes[i]);
        if (index == NULL) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, (Py_ssize_t)i, index);
    }
    return list;
}

/* Appends an item and drops its reference; NULL clears the list. */
static PyObject *report_add(PyObject *list, PyObject *item)
{
    if (list != NULL && (item == NULL || PyList_Append(list, item))) {
        Py_CLEAR(list);
    }
    Py_XDECREF(item);
    return list;
}

static PyObject *report_fields(const tq_status_partition *partition)
{
    PyObject *list = PyList_New(0);

    for (size_t i = 0; list != NULL && i < partition->n_fields; i++) {
        const tq_status_field *field = partition->fields[i];
        PyObject *shape = field->ragged ? Py_NewRef(Py_None) : core_shape(field->shape, field->ndim);
        PyObject *item =
            shape != NULL
                ? Py_BuildValue("{s:N,s:N,s:(ii),s:N,s:O,s:I,s:I,s:N}", "name", core_text(field->name), "is_tensor",
                                PyBool_FromLong(field->kind == TQ_TENSOR && !field->mixed), "dtype", field->dtype.code,
                                field->dtype.bits, "ragged", PyBool_FromLong(field->ragged), "shape", shape, "produced",
                                field->produced, "lost", field->lost, "mixed", PyBool_FromLong(field->mixed))
                : NULL;
        Py_XDECREF(shape);
        list = report_add(list, item);
    }
    return list;
}

static PyObject *report_partition(const tq_status_partition *partition)
{
    PyObject *fields = report_fields(partition);
    PyObject *tasks = fields != NULL ? PyList_New(0) : NULL;
    PyObject *lost = tasks != NULL ? report_indexes(partition->lost, partition->n_lost) : NULL;
    PyObject *result = NULL;

    for (size_t i = 0; tasks != NULL && i < partition->n_tasks; i++) {
        tasks = report_add(tasks, Py_BuildValue("{s:N,s:I}", "name", core_text(partition->tasks[i]->name), "consumed",
                                                partition->tasks[i]->consumed));
    }
    if (fields != NULL && tasks != NULL && lost != NULL) {
        result = Py_BuildValue("{s:N,s:I,s:K,s:O,s:O,s:O}", "name", core_text(partition->name), "samples",
                               partition->samples, "bytes", (unsigned long long)partition->bytes, "fields", fields,
                               "tasks", tasks, "lost", lost);
    }
    Py_XDECREF(fields);
    Py_XDECREF(tasks);
    Py_XDECREF(lost);
    return result;
}

static PyObject *report_pin(const tq_status_pin *pin)
{
    return Py_BuildValue("{s:N,s:N,s:K,s:K,s:K}", "client", core_text(pin->client), "host", core_text(pin->host), "pid",
                         (unsigned long long)pin->pid, "pins", (unsigned long long)pin->pins, "bytes",
                         (unsigned long long)pin->bytes);
}

static PyObject *report_owner(const tq_status_owner *owner)
{
    PyObject *holders = PyList_New(0);

    for (size_t i = 0; holders != NULL && i < owner->n_holders; i++) {
        holders = report_add(holders, report_pin(owner->holders[i]));
    }
    /* The N takes over the reference, even if it is NULL. */
    return Py_BuildValue("{s:N,s:N,s:N,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:N}", "name", core_text(owner->name), "manager",
                         core_text(owner->manager), "present", PyBool_FromLong(owner->present), "blocks",
                         (unsigned long long)owner->blocks, "bytes", (unsigned long long)owner->bytes, "used_bytes",
                         (unsigned long long)owner->used_bytes, "capacity_bytes",
                         (unsigned long long)owner->capacity_bytes, "pins", (unsigned long long)owner->pins,
                         "pinned_bytes", (unsigned long long)owner->pinned_bytes, "waiting_puts",
                         (unsigned long long)owner->waiting_puts, "holders", holders);
}

static PyObject *report_session(const tq_status_session *session)
{
    return Py_BuildValue("{s:N,s:N,s:N,s:K,s:N,s:d}", "name", core_text(session->name), "host", core_text(session->host),
                         "endpoint", core_text(session->endpoint), "pid", (unsigned long long)session->pid, "connected",
                         PyBool_FromLong(session->connected), "age", session->age);
}

static PyObject *report_wait(const tq_status_wait *wait)
{
    return Py_BuildValue("{s:N,s:N,s:N,s:K,s:N,s:N,s:N,s:N,s:K,s:K,s:d,s:N,s:N}", "kind", core_text(wait->kind),
                         "client", core_text(wait->client), "host", core_text(wait->host), "pid",
                         (unsigned long long)wait->pid, "task", core_text(wait->task), "partition",
                         core_text(wait->partition), "fields", core_names(wait->fields, wait->n_fields), "unit",
                         core_text(wait->owner), "wanted", (unsigned long long)wait->wanted, "ready",
                         (unsigned long long)wait->ready, "age", wait->age, "missing", core_text(wait->missing),
                         "suspect", PyBool_FromLong(wait->suspect));
}

PyObject *core_status(const tq_system_status *status)
{
    PyObject *partitions, *owners, *sessions, *waits, *result = NULL;

    if (status == NULL) {
        Py_RETURN_NONE;
    }
    partitions = PyList_New(0);
    for (size_t i = 0; partitions != NULL && i < status->n_partitions; i++) {
        partitions = report_add(partitions, report_partition(status->partitions[i]));
    }
    owners = PyList_New(0);
    for (size_t i = 0; owners != NULL && i < status->n_owners; i++) {
        owners = report_add(owners, report_owner(status->owners[i]));
    }
    sessions = PyList_New(0);
    for (size_t i = 0; sessions != NULL && i < status->n_sessions; i++) {
        sessions = report_add(sessions, report_session(status->sessions[i]));
    }
    waits = PyList_New(0);
    for (size_t i = 0; waits != NULL && i < status->n_waits; i++) {
        waits = report_add(waits, report_wait(status->waits[i]));
    }
    if (partitions != NULL && owners != NULL && sessions != NULL && waits != NULL) {
        /* owners and sessions: older names of the two entries before them. */
        result =
            Py_BuildValue("{s:K,s:d,s:N,s:I,s:K,s:O,s:O,s:O,s:O,s:O,s:O}", "epoch", (unsigned long long)status->epoch,
                          "uptime", status->uptime, "version", core_text(status->version), "waiting", status->waiting,
                          "requests", (unsigned long long)status->requests, "partitions", partitions, "storage", owners,
                          "clients", sessions, "waits", waits, "owners", owners, "sessions", sessions);
    }
    Py_XDECREF(partitions);
    Py_XDECREF(owners);
    Py_XDECREF(sessions);
    Py_XDECREF(waits);
    return result;
}

PyObject *core_events(const tq_event *const *events, size_t n, uint64_t next)
{
    PyObject *list = PyList_New(0), *result = NULL;

    for (size_t i = 0; list != NULL && i < n; i++) {
        const tq_event *event = events[i];
        PyObject *item = Py_BuildValue(
            "{s:K,s:d,s:N,s:N,s:N,s:N,s:I,s:K}", "seq", (unsigned long long)event->seq, "time", event->time, "kind",
            core_text(event->kind), "session", core_text(event->session), "partition", core_text(event->partition),
            "task", core_text(event->task), "samples", event->samples, "bytes", (unsigned long long)event->bytes);
        if (item != NULL && event->n_indexes) {
            PyObject *indexes = report_indexes(event->indexes, event->n_indexes);
            if (indexes == NULL || PyDict_SetItemString(item, "indexes", indexes)) {
                Py_CLEAR(item);
            }
            Py_XDECREF(indexes);
        }
        list = report_add(list, item);
    }
    if (list != NULL) {
        result = Py_BuildValue("(OK)", list, (unsigned long long)next);
        Py_DECREF(list);
    }
    return result;
}

PyObject *core_checkpoint(const tq_checkpoint *checkpoint)
{
    return Py_BuildValue("{sK sK sK sK sK sN ss}", "samples", (unsigned long long)checkpoint->samples, "partitions",
                         (unsigned long long)checkpoint->partitions, "blocks", (unsigned long long)checkpoint->blocks,
                         "bytes", (unsigned long long)checkpoint->bytes, "lost", (unsigned long long)checkpoint->lost,
                         "storage_saved", PyBool_FromLong(checkpoint->storage_saved), "metadata", checkpoint->metadata);
}

PyObject *core_clearings(core_state *state, const tq_clearing *const *clearings, size_t n)
{
    PyObject *list = PyList_New((Py_ssize_t)n);

    for (size_t i = 0; list != NULL && i < n; i++) {
        /* The N takes over the reference, even if it is NULL. */
        PyObject *item = Py_BuildValue("(KNN)", (unsigned long long)clearings[i]->id,
                                       PyBool_FromLong(clearings[i]->begun), core_meta_wrap(state, clearings[i]->meta));
        if (item == NULL) {
            Py_CLEAR(list);
            break;
        }
        PyList_SET_ITEM(list, (Py_ssize_t)i, item);
    }
    return list;
}
