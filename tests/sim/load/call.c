/*
 * call.c - see call.h: ops, their start and their end. The calls themselves are in calls.c, reads in read.c.
 */
#include "load/call.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void call_done(tq_op *op, void *arg)
{
    load_call *call = arg;

    (void)op;
    pthread_mutex_lock(&call->lock);
    call->called = true;
    pthread_cond_signal(&call->changed);
    pthread_mutex_unlock(&call->lock);
}

void load_call_init(load_call *call, load_client *client, uint32_t thread, sim_chance *chance)
{
    memset(call, 0, sizeof(*call));
    call->client = client;
    call->thread = thread;
    call->chance = chance;
    pthread_mutex_init(&call->lock, NULL);
    pthread_cond_init(&call->changed, NULL);
}

/* Frees what the last call kept. */
static void call_clear(load_call *call)
{
    for (uint32_t i = 0; i < call->n_columns; i++) {
        load_column_free(&call->columns[i]);
    }
    free(call->columns);
    free(call->column_args);
    call->columns = NULL;
    call->column_args = NULL;
    call->n_columns = 0;
    tq_data_unref(call->data);
    call->data = NULL;
    load_dest_release(call->dest);
    call->dest = NULL;
    call->record = NULL;
}

void load_call_fini(load_call *call)
{
    tq_op_free(call->op);
    call->op = NULL;
    call_clear(call);
    pthread_cond_destroy(&call->changed);
    pthread_mutex_destroy(&call->lock);
}

bool load_call_ready(load_call *call)
{
    if (call->op != NULL && sim_one_in(call->chance, 8)) {
        tq_op_free(call->op);
        call->op = NULL;
    }
    if (call->op == NULL) {
        call->waiting = (load_waiting)sim_below(call->chance, 3);
        call->op = tq_op_alloc(call->client->client, call->waiting == LOAD_CALLBACK ? call_done : NULL, call);
    }
    return call->op != NULL;
}

/* The timeout of the call that is about to begin. */
static void call_timeout(load_call *call, history_op *op)
{
    op->timeout = call->timeout;
    if (!call->plain && sim_happens(SIM_LOAD_DEADLINE)) {
        op->timeout = (double)sim_below(call->chance, 50001) / 1e6 + 1e-9;
        sim_mark("deadline of 0 to 50 ms");
    }
    tq_op_set_timeout(call->op, op->timeout);
    op->seconds = op->timeout;
    if (op->timeout == 0) {
        op->seconds = call->client->timeout;
    }
    if (op->timeout == 0 && (op->call == HISTORY_SAVE || op->call == HISTORY_LOAD)) {
        op->seconds = -1;
    }
}

history_op *load_begin(load_call *call, history_call kind, const char *partition)
{
    history_op *op;

    call_clear(call);
    if (!load_call_ready(call)) {
        return NULL;
    }
    op = history_invoke(kind, call->client->number, call->client->life, call->thread);
    op->partition = history_text(partition);
    op->epoch_invoked = tq_client_epoch(call->client->client);
    op->epoch = op->epoch_invoked;
    call->record = op;
    call->called = false;
    call_timeout(call, op);
    return op;
}

int load_started(load_call *call, int rc)
{
    if (rc != TQ_OK) {
        history_ended(call->record, HISTORY_FAIL, rc, tq_op_error(call->op)->message);
    }
    return rc;
}

/* --- how a call has ended ------------------------------------------------------- */

/* Whether a call that ended with this code may have had its effect. */
static history_status call_status(const history_op *op, int rc)
{
    if (rc == TQ_OK) {
        return HISTORY_OK;
    }
    switch (op->call) {
    case HISTORY_PUT:
    case HISTORY_RESERVE:
    case HISTORY_CLEAR:
    case HISTORY_RESET:
    case HISTORY_NOTIFY:
    case HISTORY_BEGIN_CLEAR:
    case HISTORY_END_CLEAR:
    case HISTORY_SAVE:
    case HISTORY_LOAD:
        break;
    case HISTORY_CLAIM:
        /* Its answer may have been there already. */
        return op->freed ? HISTORY_UNKNOWN : HISTORY_FAIL;
    default:
        return HISTORY_FAIL;
    }
    switch (rc) {
    case TQ_ETIMEDOUT:
    case TQ_ECANCELED:
    case TQ_ESTALE:
    case TQ_EUNREACHABLE:
    case TQ_ECLOSED:
    case TQ_EENDED:
    case TQ_ENOMEM:
    case TQ_EIO:
        return HISTORY_UNKNOWN;
    default:
        return HISTORY_FAIL;
    }
}

/* The tag "op" of each sample, as load_put writes it, and the groups. */
static void call_take_tags(history_op *op, const tq_meta *meta)
{
    const tq_meta_tag *tag = tq_meta_find_tag(meta, "op");
    const uint8_t *value = tag != NULL ? tag->values : NULL;

    op->tag_ops = history_memory((op->n_results + 1) * sizeof(*op->tag_ops));
    op->groups_read = history_memory((op->n_results + 1) * sizeof(*op->groups_read));
    for (uint32_t i = 0; i < op->n_results; i++) {
        op->groups_read[i] = history_text(tq_meta_group(meta, i));
        if (tag == NULL || tag->sizes[i] == 0) {
            continue;
        }
        sim_check(tag->sizes[i] == 9 && value[0] == 0xcf, "data",
                  "op %llu: the tag of sample %u.%u is not as it was put", (unsigned long long)op->number,
                  op->results[i].index, op->results[i].incarnation);
        for (int k = 1; k < 9; k++) {
            op->tag_ops[i] = op->tag_ops[i] << 8 | value[k];
        }
        value += tag->sizes[i];
    }
}

/* Rows and readiness of a meta. */
static void call_take_meta(history_op *op, const tq_meta *meta)
{
    const uint32_t n = (uint32_t)tq_meta_sample_count(meta);
    const uint32_t n_fields = (uint32_t)tq_meta_field_count(meta);

    op->epoch = tq_meta_epoch(meta);
    op->results = history_memory((n + 1) * sizeof(*op->results));
    op->n_results = n;
    for (uint32_t i = 0; i < n; i++) {
        op->results[i] = (history_row){
            .index = tq_meta_indexes(meta)[i],
            .incarnation = tq_meta_incarnations(meta)[i],
            .key = history_text(tq_meta_key(meta, i)),
        };
    }
    if (op->call != HISTORY_CLAIM && op->call != HISTORY_RESOLVE) {
        return;
    }
    if (op->asks_tags) {
        call_take_tags(op, meta);
    }
    op->result_fields = history_memory((n_fields + 1) * sizeof(*op->result_fields));
    op->n_result_fields = n_fields;
    op->ready = history_memory((size_t)n * n_fields + 1);
    for (uint32_t f = 0; f < n_fields; f++) {
        const tq_meta_field *field = tq_meta_field_at(meta, f);

        op->result_fields[f] = history_text(field->name);
        if (n > 0) {
            memcpy(op->ready + (size_t)f * n, field->ready, n);
        }
    }
}

static void call_take_progress(history_op *op, const tq_progress *progress)
{
    op->known = progress->known;
    op->n_results = (uint32_t)progress->n;
    op->n_result_fields = (uint32_t)progress->columns;
    op->results = history_memory((progress->n + 1) * sizeof(*op->results));
    op->ready = history_memory(progress->n * progress->columns + 1);
    for (size_t i = 0; i < progress->n; i++) {
        op->results[i].index = progress->indexes[i];
    }
    if (progress->n * progress->columns > 0) {
        memcpy(op->ready, progress->flags, progress->n * progress->columns);
    }
}

static void call_take_results(load_call *call)
{
    history_op *op = call->record;
    const char *const *names;
    size_t n_names = 0;

    op->epoch = tq_client_epoch(call->client->client);
    op->count = op->call == HISTORY_CLAIM ? tq_meta_claim(tq_op_meta(call->op)) : tq_op_count(call->op);
    names = tq_op_names(call->op, &n_names);
    if (op->call == HISTORY_LIST_PARTITIONS || n_names > 0) {
        op->names = history_texts(names, n_names);
        op->n_names = (uint32_t)n_names;
    }
    if (tq_op_progress(call->op) != NULL) {
        call_take_progress(op, tq_op_progress(call->op));
    }
    if (op->call == HISTORY_GET) {
        op->results = op->rows;
        op->n_results = op->n;
    } else if (tq_op_meta(call->op) != NULL) {
        call_take_meta(op, tq_op_meta(call->op));
    }
    if (tq_op_data(call->op) != NULL) {
        call->data = tq_data_ref(tq_op_data(call->op));
        load_read_check(op, call->data, false);
    }
}

/* The call in flight has ended. */
static int call_ended(load_call *call)
{
    history_op *op = call->record;
    const tq_error *err = tq_op_error(call->op);
    const int code = err->code;

    if (code == TQ_OK) {
        call_take_results(call);
    } else {
        op->epoch = call->client->client != NULL ? tq_client_epoch(call->client->client) : 0;
    }
    history_ended(op, call_status(op, code), code, err->message);
    return code;
}

/* --- waiting ---------------------------------------------------------------------- */

void load_cancel_call(load_call *call)
{
    call->record->cancelled = true;
    tq_op_cancel(call->op);
    if (sim_one_in(call->chance, 4)) {
        tq_op_cancel(call->op);
    }
}

static void call_wait(load_call *call)
{
    if (call->record->local_waited == 0) {
        call->record->local_waited = history_local_time();
    }
    switch (call->waiting) {
    case LOAD_WAIT:
        (void)tq_op_wait(call->op);
        break;
    case LOAD_WAIT_FOR:
        while (!tq_op_wait_for(call->op, (double)sim_between(call->chance, 1, 500) / 1e3)) {
        }
        break;
    case LOAD_CALLBACK:
        pthread_mutex_lock(&call->lock);
        while (!call->called) {
            pthread_cond_wait(&call->changed, &call->lock);
        }
        pthread_mutex_unlock(&call->lock);
        /* Its callback may still be about to return; a wait then waits for that. */
        (void)tq_op_wait(call->op);
        break;
    }
}

int load_finish(load_call *call, int rc)
{
    if (rc != TQ_OK) {
        return rc;
    }
    call->record->local_waited = history_local_time();
    if (!call->never_cancel && sim_happens(SIM_LOAD_CANCEL)) {
        if (!tq_op_wait_for(call->op, (double)sim_below(call->chance, 20000) / 1e6)) {
            load_cancel_call(call);
            sim_mark("cancel");
        }
    }
    call_wait(call);
    return call_ended(call);
}

bool load_poll(load_call *call, int *rc)
{
    if (!tq_op_done(call->op)) {
        return false;
    }
    call_wait(call);
    *rc = call_ended(call);
    return true;
}

void load_free_running(load_call *call)
{
    history_op *op = call->record;

    op->cancelled = true;
    op->freed = true;
    op->local_waited = history_local_time();
    tq_op_free(call->op);
    call->op = NULL;
    history_ended(op, call_status(op, TQ_ECANCELED), TQ_ECANCELED, "freed");
}

/* --- metas -------------------------------------------------------------------------- */

void load_meta_take(load_call *call, load_meta *out)
{
    load_meta_drop(out);
    out->meta = tq_meta_ref(tq_op_meta(call->op));
    out->from = call->record->number;
}

void load_meta_drop(load_meta *meta)
{
    tq_meta_unref(meta->meta);
    meta->meta = NULL;
}

uint32_t load_meta_count(const load_meta *meta)
{
    return (uint32_t)tq_meta_sample_count(meta->meta);
}

bool load_meta_part(const load_meta *meta, uint32_t first, uint32_t n, load_meta *out)
{
    uint32_t *rows = load_memory((n + 1) * sizeof(*rows));
    tq_meta *part = NULL;
    tq_error err = {0};

    for (uint32_t i = 0; i < n; i++) {
        rows[i] = first + i;
    }
    if (tq_meta_select(meta->meta, rows, n, NULL, 0, &part, &err) == TQ_OK) {
        load_meta_drop(out);
        out->meta = part;
        out->from = meta->from;
    } else if (err.code != TQ_ENOMEM) {
        sim_found("legal programs get legal errors", "tq_meta_select: %s: %s", tq_error_name(err.code), err.message);
    }
    free(rows);
    return part != NULL;
}

bool load_meta_pass(load_meta *meta)
{
    uint8_t *bytes = NULL;
    size_t size = 0;
    tq_meta *copy = NULL;
    tq_error err = {0};
    int rc = tq_meta_pack(meta->meta, &bytes, &size, &err);

    rc = rc ? rc : tq_meta_unpack(bytes, size, &copy, &err);
    free(bytes);
    if (rc == TQ_OK) {
        tq_meta_unref(meta->meta);
        meta->meta = copy;
    } else if (rc != TQ_ENOMEM) {
        sim_found("legal programs get legal errors", "tq_meta_pack: %s: %s", tq_error_name(rc), err.message);
    }
    return rc == TQ_OK;
}

void load_hold(load_call *call, load_held *out)
{
    out->data = tq_data_ref(call->data);
    out->get = call->record;
}

void load_release(load_held *held)
{
    load_read_check(held->get, held->data, true);
    tq_data_unref(held->data);
    held->data = NULL;
}
