/*
 * calls.c - the calls of call.h: arguments into the history and into the API.
 */
#include "load/call.h"

#include "load/cell.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* --- arguments in the history -------------------------------------------------- */

static void calls_by_keys(history_op *op, const char *const *keys, uint32_t n)
{
    op->by = HISTORY_BY_KEYS;
    op->n = n;
    op->rows = history_memory((n + 1) * sizeof(*op->rows));
    for (uint32_t i = 0; i < n; i++) {
        op->rows[i].key = history_text(keys[i]);
    }
}

static void calls_by_indexes(history_op *op, const uint32_t *indexes, const uint32_t *incarnations, uint32_t n)
{
    op->by = HISTORY_BY_ROWS;
    op->n = n;
    op->rows = history_memory((n + 1) * sizeof(*op->rows));
    for (uint32_t i = 0; i < n; i++) {
        op->rows[i] = (history_row){.index = indexes[i], .incarnation = incarnations != NULL ? incarnations[i] : 0};
    }
}

static void calls_by_meta(history_op *op, const load_meta *meta)
{
    const uint32_t n = load_meta_count(meta);

    op->from = meta->from;
    calls_by_indexes(op, tq_meta_indexes(meta->meta), tq_meta_incarnations(meta->meta), n);
    for (uint32_t i = 0; i < n; i++) {
        op->rows[i].key = history_text(tq_meta_key(meta->meta, i));
    }
}

static void calls_fields(history_op *op, const char *const *fields, uint32_t n)
{
    op->all_fields = fields == NULL;
    op->fields = history_texts(fields, fields != NULL ? n : 0);
    op->n_fields = fields != NULL ? n : 0;
}

/* Those of the meta, all of which are asked for. */
static void calls_meta_fields(history_op *op, const load_meta *meta)
{
    op->n_fields = (uint32_t)tq_meta_field_count(meta->meta);
    op->fields = history_memory((op->n_fields + 1) * sizeof(*op->fields));
    for (uint32_t f = 0; f < op->n_fields; f++) {
        op->fields[f] = history_text(tq_meta_field_at(meta->meta, f)->name);
    }
}

/* --- put ------------------------------------------------------------------------- */

/* A msgpack number of 9 bytes. */
static void calls_number(uint8_t to[9], uint64_t number)
{
    to[0] = 0xcf;
    for (int i = 0; i < 8; i++) {
        to[1 + i] = (uint8_t)(number >> (56 - 8 * i));
    }
}

/* The tags of a put: "op" with its number, and a length for the sampler that balances. */
typedef struct calls_tags {
    tq_tag tags[2];
    size_t n;
    uint8_t *values[2];
    uint32_t *sizes;
} calls_tags;

static void calls_tags_make(calls_tags *out, const load_call *call, const load_put_args *args)
{
    const history_op *op = call->record;

    memset(out, 0, sizeof(*out));
    out->sizes = load_memory((op->n + 1) * sizeof(*out->sizes));
    for (uint32_t i = 0; i < op->n; i++) {
        out->sizes[i] = 9;
    }
    for (int t = 0; t < 2; t++) {
        if (t == 0 ? args->untagged : !args->lengths) {
            continue;
        }
        out->values[t] = load_memory((size_t)op->n * 9 + 1);
        for (uint32_t i = 0; i < op->n; i++) {
            calls_number(out->values[t] + (size_t)i * 9, t == 0 ? op->number : 1 + sim_below(call->chance, 100));
        }
        out->tags[out->n++] =
            (tq_tag){.name = t == 0 ? "op" : "total_lengths", .values = out->values[t], .sizes = out->sizes};
    }
}

static void calls_tags_free(calls_tags *tags)
{
    free(tags->values[0]);
    free(tags->values[1]);
    free(tags->sizes);
}

static uint64_t calls_row(const history_op *op, uint32_t i)
{
    switch (op->by) {
    case HISTORY_BY_KEYS:
        return cell_row_key(op->rows[i].key);
    case HISTORY_BY_ROWS:
        return cell_row_sample(op->rows[i].index, op->rows[i].incarnation);
    default:
        return cell_row_new(i);
    }
}

void load_columns_make(load_call *call, const load_put_args *args)
{
    history_op *op = call->record;
    uint64_t *rows = load_memory((op->n + 1) * sizeof(*rows));

    op->lengths = history_memory(((size_t)op->n * args->n_fields + 1) * sizeof(*op->lengths));
    op->types = history_memory(args->n_fields + 1);
    for (uint32_t i = 0; i < op->n; i++) {
        rows[i] = calls_row(op, i);
    }
    call->columns = load_memory((args->n_fields + 1) * sizeof(*call->columns));
    call->column_args = load_memory((args->n_fields + 1) * sizeof(*call->column_args));
    for (uint32_t f = 0; f < args->n_fields; f++) {
        load_column_make(&call->columns[f], op, f, rows, args->size, call->chance);
        call->column_args[f] = call->columns[f].column;
        call->n_columns = f + 1;
    }
    free(rows);
}

void load_put_record(history_op *op, const load_put_args *args)
{
    if (args->meta != NULL) {
        calls_by_meta(op, args->meta);
    } else if (args->keys != NULL) {
        calls_by_keys(op, args->keys, args->n);
    } else {
        op->n = args->n;
    }
    calls_fields(op, args->fields != NULL ? args->fields : (const char *const[]){NULL}, args->n_fields);
    if (args->groups != NULL) {
        op->groups = history_texts(args->groups, args->n);
    }
    op->tagged = !args->untagged;
    op->tags = args->lengths;
    op->must_exist = args->must_exist;
}

int load_put(load_call *call, const load_put_args *args)
{
    const char *partition = args->meta != NULL ? tq_meta_partition(args->meta->meta) : args->partition;
    history_op *op = load_begin(call, HISTORY_PUT, partition);
    tq_put_args put = tq_put_args_init();
    calls_tags tags;
    int rc;

    if (op == NULL) {
        return TQ_ENOMEM;
    }
    load_put_record(op, args);
    load_columns_make(call, args);
    calls_tags_make(&tags, call, args);
    put.partition = args->meta != NULL ? NULL : args->partition;
    put.meta = args->meta != NULL ? args->meta->meta : NULL;
    put.keys = args->meta != NULL ? NULL : args->keys;
    put.n = args->meta != NULL ? 0 : args->n;
    put.must_exist = args->must_exist;
    put.groups = args->groups;
    put.columns = call->column_args;
    put.n_columns = args->n_fields;
    put.tags = tags.n > 0 ? tags.tags : NULL;
    put.n_tags = tags.n;
    put.fail_when_full = args->fail_when_full;
    put.other_fields = sim_one_in(call->chance, 4);
    op->asks_others = put.other_fields;
    op->fail_when_full = put.fail_when_full;
    rc = tq_put(call->op, &put);
    calls_tags_free(&tags);
    return load_started(call, rc);
}

int load_reserve(load_call *call, const char *partition, uint32_t n, const char *const *keys, const char *const *groups)
{
    history_op *op = load_begin(call, HISTORY_RESERVE, partition);

    if (op == NULL) {
        return TQ_ENOMEM;
    }
    op->n = n;
    if (keys != NULL) {
        calls_by_keys(op, keys, n);
    }
    if (groups != NULL) {
        op->groups = history_texts(groups, n);
    }
    return load_started(call, tq_reserve(call->op, partition, n, keys, groups));
}

/* --- claim, resolve --------------------------------------------------------------- */

int load_claim(load_call *call, const load_claim_args *args)
{
    history_op *op = load_begin(call, HISTORY_CLAIM, args->partition);
    tq_claim_args claim = tq_claim_args_init();

    if (op == NULL) {
        return TQ_ENOMEM;
    }
    op->n = args->batch;
    op->task = history_text(args->task);
    op->force = args->force;
    op->by = args->force ? HISTORY_BY_ALL : HISTORY_BY_NEW;
    op->poll = args->poll;
    op->asks_tags = args->tags;
    op->sampler = history_text(args->sampler);
    op->config = history_text(args->config);
    calls_fields(op, args->fields, args->n_fields);
    claim.partition = args->partition;
    claim.fields = args->fields;
    claim.n_fields = args->n_fields;
    claim.batch_size = args->batch;
    claim.task = args->task;
    claim.mode = args->force ? TQ_CLAIM_FORCE_FETCH : TQ_CLAIM_FETCH;
    claim.poll = args->poll;
    claim.tags = args->tags;
    claim.sampler = args->sampler;
    claim.sampler_config = args->config;
    return load_started(call, tq_claim(call->op, &claim));
}

int load_resolve(load_call *call, const load_resolve_args *args)
{
    history_op *op = load_begin(call, HISTORY_RESOLVE, args->partition);
    tq_resolve_args resolve = tq_resolve_args_init();

    if (op == NULL) {
        return TQ_ENOMEM;
    }
    if (args->keys != NULL) {
        calls_by_keys(op, args->keys, args->n);
    } else if (args->indexes != NULL) {
        calls_by_indexes(op, args->indexes, NULL, args->n);
    } else {
        op->by = HISTORY_BY_ALL;
    }
    calls_fields(op, args->fields, args->n_fields);
    op->lenient = args->lenient;
    op->asks_tags = args->tags;
    resolve.partition = args->partition;
    resolve.keys = args->keys;
    resolve.indexes = args->indexes;
    resolve.n = args->keys != NULL || args->indexes != NULL ? args->n : 0;
    resolve.lenient = args->lenient;
    resolve.tags = args->tags;
    resolve.fields = args->fields;
    resolve.n_fields = args->fields != NULL ? args->n_fields : 0;
    return load_started(call, tq_resolve(call->op, &resolve));
}

/* --- get ------------------------------------------------------------------------------ */

/* The library has released the memory that it read into, or the reader has: the last one frees it. */
void load_dest_release(void *arg)
{
    load_dest *dest = arg;

    if (dest != NULL && atomic_fetch_sub(&dest->refs, 1) == 1) {
        free(dest->bytes);
        free(dest);
    }
}

static load_dest *calls_dest(size_t size)
{
    load_dest *dest = load_memory(sizeof(*dest));

    atomic_init(&dest->refs, 2);
    dest->bytes = load_memory(size + 1);
    return dest;
}

/* Options of the fields that are laid out or placed in another way; returns how many. */
static uint32_t calls_get_fields(load_call *call, const load_get_args *args, tq_get_field *out, load_dest **dest)
{
    const history_op *op = call->record;
    uint32_t n = 0;

    for (uint32_t f = 0; f < op->n_fields; f++) {
        const load_field *field = load_field_of(op->fields[f]);
        const size_t row = (size_t)field->types[0].dtype.bits / 8 * (field->ndim > 0 ? field->most : 1) *
                           (field->ndim > 1 ? field->inner : 1);

        if (args->padded && field->ragged && field->n_types == 1 && field->types[0].kind == TQ_TENSOR) {
            out[n++] = (tq_get_field){
                .name = field->name,
                .padded = true,
                .length = sim_below(call->chance, 40),
                .multiple = sim_below(call->chance, 9),
            };
        } else if (args->dest && !field->ragged && *dest == NULL) {
            *dest = calls_dest(row * op->n);
            out[n++] = (tq_get_field){.name = field->name, .dest = (*dest)->bytes, .dest_size = row * op->n};
        }
    }
    return n;
}

int load_get(load_call *call, const load_meta *meta, const load_get_args *args)
{
    history_op *op = load_begin(call, HISTORY_GET, tq_meta_partition(meta->meta));
    tq_get_options options = tq_get_options_init();
    tq_get_field *fields;
    load_dest *dest = NULL;
    int rc;

    if (op == NULL) {
        return TQ_ENOMEM;
    }
    calls_by_meta(op, meta);
    calls_fields(op, args->fields, args->n_fields);
    if (args->fields == NULL) {
        calls_meta_fields(op, meta);
    }
    fields = load_memory((op->n_fields + 1) * sizeof(*fields));
    options.n_fields = calls_get_fields(call, args, fields, &dest);
    options.fields = options.n_fields > 0 ? fields : NULL;
    options.zero_copy = args->zero_copy;
    options.leave_values = args->leave_values;
    op->padded = args->padded;
    if (dest != NULL) {
        options.release = load_dest_release;
        options.release_arg = dest;
        call->dest = dest;
    }
    rc = tq_get(call->op, meta->meta, args->fields, args->fields != NULL ? args->n_fields : 0, &options);
    free(fields);
    return load_started(call, rc);
}

int load_get_by_key(load_call *call, const char *partition, const char *const *keys, uint32_t n,
                    const load_get_args *args)
{
    history_op *op = load_begin(call, HISTORY_GET_BY_KEY, partition);
    tq_get_by_key_args get = tq_get_by_key_args_init();

    if (op == NULL) {
        return TQ_ENOMEM;
    }
    calls_by_keys(op, keys, n);
    calls_fields(op, args->fields, args->n_fields);
    get.partition = partition;
    get.keys = keys;
    get.n = n;
    get.zero_copy = args->zero_copy;
    get.leave_values = args->leave_values;
    get.fields = args->fields;
    get.n_fields = args->fields != NULL ? args->n_fields : 0;
    return load_started(call, tq_get_by_key(call->op, &get));
}

/* --- clear, reset, queries --------------------------------------------------------------- */

int load_clear_meta(load_call *call, const load_meta *meta)
{
    history_op *op = load_begin(call, HISTORY_CLEAR, tq_meta_partition(meta->meta));

    if (op == NULL) {
        return TQ_ENOMEM;
    }
    calls_by_meta(op, meta);
    return load_started(call, tq_clear_meta(call->op, meta->meta));
}

int load_clear_indexes(load_call *call, const char *partition, const uint32_t *indexes, uint32_t n)
{
    history_op *op = load_begin(call, HISTORY_CLEAR, partition);

    if (op == NULL) {
        return TQ_ENOMEM;
    }
    calls_by_indexes(op, indexes, NULL, n);
    return load_started(call, tq_clear_indexes(call->op, partition, indexes, n));
}

int load_clear_keys(load_call *call, const char *partition, const char *const *keys, uint32_t n)
{
    history_op *op = load_begin(call, HISTORY_CLEAR, partition);

    if (op == NULL) {
        return TQ_ENOMEM;
    }
    calls_by_keys(op, keys, n);
    return load_started(call, tq_clear_keys(call->op, partition, keys, n));
}

int load_clear_partition(load_call *call, const char *partition)
{
    history_op *op = load_begin(call, HISTORY_CLEAR, partition);

    if (op == NULL) {
        return TQ_ENOMEM;
    }
    op->by = HISTORY_BY_ALL;
    return load_started(call, tq_clear_partition(call->op, partition));
}

int load_reset(load_call *call, const char *partition, const char *task)
{
    history_op *op = load_begin(call, HISTORY_RESET, partition);

    if (op == NULL) {
        return TQ_ENOMEM;
    }
    op->task = history_text(task);
    return load_started(call, tq_reset_consumption(call->op, partition, task));
}

int load_consumed(load_call *call, const char *partition, const char *task)
{
    history_op *op = load_begin(call, HISTORY_CONSUMED, partition);

    if (op == NULL) {
        return TQ_ENOMEM;
    }
    op->task = history_text(task);
    return load_started(call, tq_query_consumption(call->op, partition, task));
}

int load_produced(load_call *call, const char *partition, const char *const *fields, uint32_t n)
{
    history_op *op = load_begin(call, HISTORY_PRODUCED, partition);

    if (op == NULL) {
        return TQ_ENOMEM;
    }
    calls_fields(op, fields, n);
    return load_started(call, tq_query_production(call->op, partition, fields, n));
}

int load_list_keys(load_call *call, const char *partition)
{
    history_op *op = load_begin(call, HISTORY_LIST_KEYS, partition);

    return op != NULL ? load_started(call, tq_list_keys(call->op, partition)) : TQ_ENOMEM;
}

int load_list_partitions(load_call *call)
{
    history_op *op = load_begin(call, HISTORY_LIST_PARTITIONS, NULL);

    return op != NULL ? load_started(call, tq_list_partitions(call->op)) : TQ_ENOMEM;
}
