/*
 * calls.c - the methods of Client that start an operation: each converts its arguments to plain C, and starts it.
 *
 * `timeout` is the time limit of the operation in seconds; 0: the client's own; negative: no limit.
 */
#include "core.h"

/* The last step of every call; `parsed`: whether its arguments were valid. */
#define START(op, parsed, call)              \
    do {                                     \
        if (!(parsed)) {                     \
            Py_DECREF(op);                   \
            return NULL;                     \
        }                                    \
        core_op_begin(op);                   \
        return core_op_finish((op), (call)); \
    } while (0)

static PyObject *call_reserve(core_client *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"partition", "n", "keys", "groups", "timeout", NULL};
    const char *partition;
    Py_ssize_t n = 0;
    PyObject *keys = NULL, *groups = NULL;
    double timeout = 0;
    const char *const *key, *const *group;
    size_t n_keys, n_groups;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s|nOOd:reserve", names, &partition, &n, &keys, &groups, &timeout)) {
        return NULL;
    }
    core_op *op = core_op_new(self, CORE_GIVES_META, timeout);
    if (op == NULL) {
        return NULL;
    }
    bool parsed = !core_strings(&op->args, keys, "keys", false, &key, &n_keys) &&
                  !core_strings(&op->args, groups, "groups", true, &group, &n_groups);
    size_t count = parsed && key != NULL ? n_keys : (size_t)n;
    if (parsed && (n < 0 || (group != NULL && n_groups != count))) {
        PyErr_SetString(PyExc_ValueError, n < 0 ? "n must not be negative" : "groups: expected one per sample");
        parsed = false;
    }
    START(op, parsed, tq_reserve(op->op, partition, count, key, group));
}

static PyObject *call_claim(core_client *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"partition",      "fields", "batch_size", "task",    "mode", "sampler",
                            "sampler_config", "poll",   "tags",       "timeout", NULL};
    tq_claim_args claim = {.size = sizeof(claim)};
    PyObject *fields = NULL;
    long long batch_size = 0;
    int mode = TQ_CLAIM_FETCH, poll = 0, tags = 0;
    double timeout = 0;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "sOL|zizzppd:claim", names, &claim.partition, &fields, &batch_size,
                                     &claim.task, &mode, &claim.sampler, &claim.sampler_config, &poll, &tags, &timeout)) {
        return NULL;
    }
    core_op *op = core_op_new(self, CORE_GIVES_META, timeout);
    if (op == NULL) {
        return NULL;
    }
    claim.batch_size = batch_size;
    claim.mode = mode == TQ_CLAIM_FORCE_FETCH ? TQ_CLAIM_FORCE_FETCH : TQ_CLAIM_FETCH;
    claim.poll = poll;
    claim.tags = tags;
    bool parsed = !core_strings(&op->args, fields, "fields", false, &claim.fields, &claim.n_fields);
    START(op, parsed, tq_claim(op->op, &claim));
}

static PyObject *call_resolve(core_client *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"partition", "keys", "indexes", "fields", "lenient", "tags", "timeout", NULL};
    tq_resolve_args resolve = {.size = sizeof(resolve)};
    PyObject *keys = NULL, *indexes = NULL, *fields = NULL;
    int lenient = 0, tags = 0;
    size_t n_keys, n_indexes;
    double timeout = 0;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s|OOOppd:resolve", names, &resolve.partition, &keys, &indexes,
                                     &fields, &lenient, &tags, &timeout)) {
        return NULL;
    }
    core_op *op = core_op_new(self, CORE_GIVES_META, timeout);
    if (op == NULL) {
        return NULL;
    }
    bool parsed = !core_strings(&op->args, keys, "keys", false, &resolve.keys, &n_keys) &&
                  !core_u32s(&op->args, indexes, "indexes", &resolve.indexes, &n_indexes) &&
                  !core_strings(&op->args, fields, "fields", false, &resolve.fields, &resolve.n_fields);
    resolve.n = parsed && resolve.keys != NULL ? n_keys : parsed ? n_indexes : 0;
    resolve.lenient = lenient;
    resolve.tags = tags;
    START(op, parsed, tq_resolve(op->op, &resolve));
}

static PyObject *call_clear_meta(core_client *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"meta", "timeout", NULL};
    PyObject *object;
    double timeout = 0;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|d:clear_meta", names, &object, &timeout)) {
        return NULL;
    }
    core_op *op = core_op_new(self, CORE_GIVES_COUNT, timeout);
    if (op == NULL) {
        return NULL;
    }
    tq_meta *meta = core_call_meta(op, object);
    START(op, meta != NULL, tq_clear_meta(op->op, meta));
}

static PyObject *call_clear_indexes(core_client *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"partition", "indexes", "timeout", NULL};
    const char *partition;
    PyObject *indexes;
    const uint32_t *index = NULL;
    size_t n = 0;
    double timeout = 0;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "sO|d:clear_indexes", names, &partition, &indexes, &timeout)) {
        return NULL;
    }
    core_op *op = core_op_new(self, CORE_GIVES_COUNT, timeout);
    if (op == NULL) {
        return NULL;
    }
    bool parsed = !core_u32s(&op->args, indexes, "indexes", &index, &n);
    START(op, parsed, tq_clear_indexes(op->op, partition, index, n));
}

static PyObject *call_clear_keys(core_client *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"partition", "keys", "timeout", NULL};
    const char *partition;
    PyObject *keys;
    const char *const *key = NULL;
    size_t n = 0;
    double timeout = 0;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "sO|d:clear_keys", names, &partition, &keys, &timeout)) {
        return NULL;
    }
    core_op *op = core_op_new(self, CORE_GIVES_COUNT, timeout);
    if (op == NULL) {
        return NULL;
    }
    bool parsed = !core_strings(&op->args, keys, "keys", false, &key, &n);
    START(op, parsed, tq_clear_keys(op->op, partition, key, n));
}

static PyObject *call_clear_partition(core_client *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"partition", "timeout", NULL};
    const char *partition;
    double timeout = 0;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s|d:clear_partition", names, &partition, &timeout)) {
        return NULL;
    }
    core_op *op = core_op_new(self, CORE_GIVES_COUNT, timeout);
    if (op == NULL) {
        return NULL;
    }
    START(op, true, tq_clear_partition(op->op, partition));
}

static PyObject *call_begin_clear(core_client *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"remover", "partition", "meta", "keys", "timeout", NULL};
    tq_begin_clear_args clear = {.size = sizeof(clear)};
    PyObject *meta = Py_None, *keys = NULL;
    double timeout = 0;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s|zOOd:begin_clear", names, &clear.remover, &clear.partition, &meta,
                                     &keys, &timeout)) {
        return NULL;
    }
    core_op *op = core_op_new(self, CORE_GIVES_CLEARINGS, timeout);
    if (op == NULL) {
        return NULL;
    }
    bool parsed = !core_strings(&op->args, keys, "keys", false, &clear.keys, &clear.n);
    if (parsed && meta != Py_None) {
        clear.meta = core_call_meta(op, meta);
        parsed = clear.meta != NULL;
    }
    START(op, parsed, tq_begin_clear(op->op, &clear));
}

static PyObject *call_end_clear(core_client *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"id", "removed", "timeout", NULL};
    unsigned long long id;
    int removed;
    double timeout = 0;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "Kp|d:end_clear", names, &id, &removed, &timeout)) {
        return NULL;
    }
    core_op *op = core_op_new(self, CORE_NOTHING, timeout);
    if (op == NULL) {
        return NULL;
    }
    START(op, true, tq_end_clear(op->op, id, removed));
}

static PyObject *call_reset_consumption(core_client *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"partition", "task", "timeout", NULL};
    const char *partition, *task = NULL;
    double timeout = 0;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s|zd:reset_consumption", names, &partition, &task, &timeout)) {
        return NULL;
    }
    core_op *op = core_op_new(self, CORE_NOTHING, timeout);
    if (op == NULL) {
        return NULL;
    }
    START(op, true, tq_reset_consumption(op->op, partition, task));
}

static PyObject *call_consumption(core_client *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"partition", "task", "timeout", NULL};
    const char *partition, *task;
    double timeout = 0;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "ss|d:consumption", names, &partition, &task, &timeout)) {
        return NULL;
    }
    core_op *op = core_op_new(self, CORE_GIVES_PROGRESS, timeout);
    if (op == NULL) {
        return NULL;
    }
    START(op, true, tq_query_consumption(op->op, partition, task));
}

static PyObject *call_production(core_client *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"partition", "fields", "timeout", NULL};
    const char *partition;
    PyObject *fields;
    const char *const *field = NULL;
    size_t n = 0;
    double timeout = 0;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "sO|d:production", names, &partition, &fields, &timeout)) {
        return NULL;
    }
    core_op *op = core_op_new(self, CORE_GIVES_PROGRESS, timeout);
    if (op == NULL) {
        return NULL;
    }
    bool parsed = !core_strings(&op->args, fields, "fields", false, &field, &n);
    START(op, parsed, tq_query_production(op->op, partition, field, n));
}

static PyObject *call_list_partitions(core_client *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"timeout", NULL};
    double timeout = 0;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|d:list_partitions", names, &timeout)) {
        return NULL;
    }
    core_op *op = core_op_new(self, CORE_GIVES_NAMES, timeout);
    if (op == NULL) {
        return NULL;
    }
    START(op, true, tq_list_partitions(op->op));
}

static PyObject *call_list_keys(core_client *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"partition", "limit", "after", "mark", "timeout", NULL};
    const char *partition;
    tq_keys_page page = {.size = sizeof(page)};
    unsigned int limit = 0;
    unsigned long long mark = 0;
    double timeout = 0;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s|IzKd:list_keys", names, &partition, &limit, &page.after, &mark,
                                     &timeout)) {
        return NULL;
    }
    core_op *op = core_op_new(self, CORE_GIVES_META_COUNT, timeout);
    if (op == NULL) {
        return NULL;
    }
    page.limit = limit;
    page.mark = mark;
    START(op, true, tq_list_keys_page(op->op, partition, &page));
}

static PyObject *call_retrieve_keys(core_client *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"partition", "indexes", "timeout", NULL};
    const char *partition;
    PyObject *indexes;
    const uint32_t *index = NULL;
    size_t n = 0;
    double timeout = 0;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "sO|d:retrieve_keys", names, &partition, &indexes, &timeout)) {
        return NULL;
    }
    core_op *op = core_op_new(self, CORE_GIVES_NAMES, timeout);
    if (op == NULL) {
        return NULL;
    }
    bool parsed = !core_u32s(&op->args, indexes, "indexes", &index, &n);
    START(op, parsed, tq_keys_of(op->op, partition, index, n));
}

static PyObject *call_status(core_client *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"timeout", NULL};
    double timeout = 0;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|d:status", names, &timeout)) {
        return NULL;
    }
    core_op *op = core_op_new(self, CORE_GIVES_STATUS, timeout);
    if (op == NULL) {
        return NULL;
    }
    START(op, true, tq_query_status(op->op));
}

static PyObject *call_events(core_client *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"since", "limit", "wait", "timeout", NULL};
    unsigned long long since = 0;
    unsigned int limit = 0;
    int wait = 0;
    double timeout = 0;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|KIpd:events", names, &since, &limit, &wait, &timeout)) {
        return NULL;
    }
    core_op *op = core_op_new(self, CORE_GIVES_EVENTS, timeout);
    if (op == NULL) {
        return NULL;
    }
    START(op, true, tq_query_events(op->op, since, limit, wait));
}

static PyObject *call_save(core_client *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"path", "partition", "state_only", "metadata", "timeout", NULL};
    tq_save_args save = {.size = sizeof(save)};
    int state_only = 0;
    double timeout = 0;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s|zpzd:save", names, &save.path, &save.partition, &state_only,
                                     &save.metadata, &timeout)) {
        return NULL;
    }
    core_op *op = core_op_new(self, CORE_GIVES_CHECKPOINT, timeout);
    if (op == NULL) {
        return NULL;
    }
    save.state_only = state_only;
    START(op, true, tq_save(op->op, &save));
}

static PyObject *call_load(core_client *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"path", "timeout", NULL};
    const char *path;
    double timeout = 0;

    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "s|d:load", names, &path, &timeout)) {
        return NULL;
    }
    core_op *op = core_op_new(self, CORE_GIVES_CHECKPOINT, timeout);
    if (op == NULL) {
        return NULL;
    }
    START(op, true, tq_load(op->op, path));
}

#define CALL(name, function, signature, text)                                        \
    {                                                                                \
        name, (PyCFunction)(void (*)(void))(function), METH_VARARGS | METH_KEYWORDS, \
            name "($self, /, " signature ")\n--\n\n" text                            \
    }
#define PUT_SIGNATURE                                                                           \
    "*, partition=None, meta=None, keys=None, n=0, must_exist=False, groups=None, columns=(), " \
    "tags=()"

PyMethodDef core_client_calls[] = {
    CALL("put", core_client_put, PUT_SIGNATURE ", fail_when_full=False, keep=None, timeout=0.0, other_fields=False",
         "Store columns and tags of samples and publish them.  Gives a Meta, or with other_fields "
         "(Meta, names of the fields that all of these samples have besides the columns)."),
    CALL("notify", core_client_notify, PUT_SIGNATURE ", notes=(), keep=None, remover=None, timeout=0.0",
         "Say that cells are ready that a manager of one's own keeps, with a note each.  Gives a "
         "Meta, or with a remover what was replaced, as begin_clear."),
    CALL("reserve", call_reserve, "partition, n=0, keys=None, groups=None, timeout=0.0",
         "Reserve n samples, or those of keys that do not exist.  Gives a Meta of all."),
    CALL("claim", call_claim,
         "partition, fields, batch_size, task=None, mode=0, sampler=None, sampler_config=None, "
         "poll=False, tags=False, "
         "timeout=0.0",
         "Claim samples whose fields are ready.  Gives a Meta."),
    CALL("resolve", call_resolve,
         "partition, keys=None, indexes=None, fields=None, lenient=False, tags=False, timeout=0.0",
         "Look samples up.  Gives a Meta."),
    CALL("get", core_client_get,
         "meta, fields=None, layouts=(), keep=None, timeout=0.0, zero_copy=False, "
         "leave_values=False",
         "Read fields of a Meta's samples, laid out and placed as asked; `keep` is kept until the "
         "library has done with the memory that layouts name.  Gives Data."),
    CALL("get_keys", core_client_get_keys,
         "partition, keys, fields=None, timeout=0.0, zero_copy=False, leave_values=False",
         "Look samples up by key and read them: fields (None: all) that all of those found have.  "
         "Gives (Meta of those found, Data or None when no field is left)."),
    CALL("clear_meta", call_clear_meta, "meta, timeout=0.0", "Clear the samples of a Meta.  Gives their number."),
    CALL("clear_indexes", call_clear_indexes, "partition, indexes, timeout=0.0",
         "Clear samples by index.  Gives their number."),
    CALL("clear_keys", call_clear_keys, "partition, keys, timeout=0.0", "Clear samples by key.  Gives their number."),
    CALL("clear_partition", call_clear_partition, "partition, timeout=0.0",
         "Clear a partition with everything in it.  Gives the number of samples."),
    CALL("begin_clear", call_begin_clear, "remover, partition=None, meta=None, keys=None, timeout=0.0",
         "Clear samples whose data the caller removes.  Gives the clears to be ended: number, begun "
         "here or taken over, Meta."),
    CALL("end_clear", call_end_clear, "id, removed, timeout=0.0",
         "End a clear: its data is removed, or it is left for another client."),
    CALL("reset_consumption", call_reset_consumption, "partition, task=None, timeout=0.0",
         "Make consumed samples claimable again.  Gives None."),
    CALL("consumption", call_consumption, "partition, task, timeout=0.0",
         "Which samples a task has had.  Gives (indexes, 1, flags), or None for an unknown "
         "partition."),
    CALL("production", call_production, "partition, fields, timeout=0.0",
         "Which samples have which fields.  Gives (indexes, columns, flags), or None for an "
         "unknown partition."),
    CALL("list_partitions", call_list_partitions, "timeout=0.0", "Names of the partitions.  Gives a list."),
    CALL("list_keys", call_list_keys, "partition, limit=0, after=None, mark=0, timeout=0.0",
         "Samples with keys, with their tags: all, or a page behind the last key of another, whose "
         "mark is given.  Gives (Meta, mark; 0: there are no more)."),
    CALL("retrieve_keys", call_retrieve_keys, "partition, indexes, timeout=0.0",
         "Keys of samples.  Gives a list, '' for none."),
    CALL("save", call_save, "path, partition=None, state_only=False, metadata=None, timeout=0.0",
         "Save a checkpoint.  Gives a dict."),
    CALL("load", call_load, "path, timeout=0.0", "Load a checkpoint.  Gives a dict."),
    CALL("status", call_status, "timeout=0.0", "State of the system.  Gives a dict."),
    CALL("events", call_events, "since=0, limit=0, wait=False, timeout=0.0",
         "What happened.  Gives (list of dicts, `since` of the next call)."),
    {0},
};
