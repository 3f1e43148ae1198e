/*
 * get.c - tq get and tq clear: samples by key, by @index, or all of a partition.
 */
#include "cli/cli.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The samples named by the arguments after the partition: keys, or indexes if all begin with '@'. */
typedef struct get_selection {
    const char *partition;
    const char *const *keys;
    uint32_t *indexes;
    size_t n;
} get_selection;

static int get_select(const cli_options *options, get_selection *out)
{
    memset(out, 0, sizeof(*out));
    if (options->n_args < 1) {
        return cli_usage("which partition?");
    }
    out->partition = options->args[0];
    out->n = (size_t)options->n_args - 1;
    size_t at = 0;
    for (size_t i = 0; i < out->n; i++) {
        at += options->args[i + 1][0] == '@';
    }
    if (at == 0) {
        out->keys = out->n ? (const char *const *)options->args + 1 : NULL;
        return 0;
    }
    if (at != out->n) {
        return cli_usage("name the samples by keys or by @index, not both");
    }
    out->indexes = calloc(out->n, sizeof(*out->indexes));
    for (size_t i = 0; out->indexes != NULL && i < out->n; i++) {
        const char *text = options->args[i + 1] + 1;
        char *end = NULL;
        errno = 0;
        unsigned long index = strtoul(text, &end, 10);
        if (!*text || *end || errno || index >= TQ_NO_INDEX) {
            free(out->indexes);
            return cli_usage("'@%s' is not an index", text);
        }
        out->indexes[i] = (uint32_t)index;
    }
    return out->indexes != NULL ? 0 : cli_fail("out of memory");
}

/* Fields that every sample of the meta has; the caller frees the array, the names belong to the meta. */
static const char **get_ready_fields(const tq_meta *meta, size_t *n)
{
    const char **names = calloc(tq_meta_field_count(meta) + 1, sizeof(*names));

    *n = 0;
    for (size_t f = 0; names != NULL && f < tq_meta_field_count(meta); f++) {
        const tq_meta_field *field = tq_meta_field_at(meta, f);
        size_t ready = 0;
        while (ready < tq_meta_sample_count(meta) && field->ready[ready] == 1) {
            ready++;
        }
        if (ready == tq_meta_sample_count(meta)) {
            names[(*n)++] = field->name;
        }
    }
    return names;
}

/* Omitted columns are mentioned, or the table would look as if they did not exist. */
static void get_say_left(const tq_meta *meta, const char *const *ready, size_t n)
{
    size_t left = 0;

    for (size_t f = 0, at = 0; f < tq_meta_field_count(meta); f++) {
        const char *name = tq_meta_field_at(meta, f)->name;
        if (at < n && ready[at] == name) {
            at++;
            continue;
        }
        char *shown = cli_text(name, false);
        fprintf(stderr, "%s'%s'", left++ ? ", " : "tq: not all of these samples have ", shown != NULL ? shown : "");
        free(shown);
    }
    if (left) {
        fprintf(stderr, ": %s left out; name samples that have %s\n", left == 1 ? "it is" : "they are",
                left == 1 ? "it" : "them");
    }
}

static json_t *get_json(const tq_meta *meta, const tq_data *data)
{
    json_t *list = json_array();

    for (size_t i = 0; i < tq_meta_sample_count(meta); i++) {
        json_t *fields = json_object();
        for (size_t c = 0; c < tq_data_column_count(data); c++) {
            const tq_data_column *column = tq_data_column_at(data, c);
            cli_json_set(fields, column->name, column->data != NULL ? cli_row(column, i) : json_null());
        }
        json_array_append_new(list, json_pack("{s:o, s:I, s:o}", "key", cli_json_text(tq_meta_key(meta, i)), "index",
                                              (json_int_t)tq_meta_indexes(meta)[i], "fields", fields));
    }
    return list;
}

#define GET_CELL_MAX 72

static void get_table(const tq_meta *meta, const tq_data *data)
{
    static const char *const columns[] = {"KEY", ">INDEX", "FIELD", "TYPE", "VALUE"};
    cli_table *table = cli_table_new(columns, 5);
    char type[32];

    for (size_t i = 0; table != NULL && i < tq_meta_sample_count(meta); i++) {
        for (size_t c = 0; c < tq_data_column_count(data); c++) {
            const tq_data_column *column = tq_data_column_at(data, c);
            const char *key = tq_meta_key(meta, i);
            tq_type is = cli_row_type(column, i);
            json_t *value = column->data != NULL ? cli_row(column, i) : json_null();
            char *text = json_dumps(value, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
            char *shown = cli_text(text != NULL ? text : "", false);
            if (shown != NULL) {
                cli_shorten(shown, GET_CELL_MAX);
            }
            cli_table_row(table);
            cli_table_cell(table, "%s", c == 0 && key != NULL ? key : "");
            if (c == 0) {
                cli_table_cell(table, "%" PRIu32, tq_meta_indexes(meta)[i]);
            } else {
                cli_table_cell(table, "%s", "");
            }
            cli_table_cell(table, "%s", column->name);
            cli_table_cell(table, "%s", is.kind == TQ_VALUE ? "value" : cli_dtype(is.dtype, type));
            cli_table_cell(table, "%s", shown != NULL ? shown : "");
            free(shown);
            free(text);
            json_decref(value);
        }
    }
    if (table != NULL) {
        cli_table_print(table);
    }
}

static int get_read(const cli_session *session, const cli_options *options, tq_meta *meta)
{
    size_t n = options->n_fields;
    const char **ready = n ? NULL : get_ready_fields(meta, &n);
    int status = 0;

    if (n == 0) {
        free(ready);
        return cli_fail("no field is ready in all of these samples");
    }
    status = cli_wait(session, tq_get(session->op, meta, options->n_fields ? options->fields : ready, n, NULL));
    if (!status && options->json) {
        status = cli_print_json(get_json(meta, tq_op_data(session->op)));
    } else if (!status) {
        get_table(meta, tq_op_data(session->op));
    }
    if (!status && ready != NULL) {
        get_say_left(meta, ready, n);
    }
    free(ready);
    return status;
}

int cli_get(cli_options *options)
{
    get_selection selection = {0};
    cli_session session = {0};
    int status = get_select(options, &selection);

    if (status) {
        return status;
    }
    status = cli_connect(options, true, &session);
    if (!status) {
        tq_resolve_args args = {
            .size = sizeof(args),
            .partition = selection.partition,
            .keys = selection.keys,
            .indexes = selection.indexes,
            .n = selection.n,
            .fields = options->n_fields ? options->fields : NULL,
            .n_fields = options->n_fields,
            .tags = true,
        };
        status = cli_wait(&session, tq_resolve(session.op, &args));
        if (!status) {
            tq_meta *meta = tq_meta_ref(tq_op_meta(session.op));
            status = get_read(&session, options, meta);
            tq_meta_unref(meta);
        }
        cli_disconnect(&session);
    }
    free(selection.indexes);
    return status;
}

/* Whether the partition exists; reports it if not, unless that is allowed. */
static int get_known(const cli_session *session, const cli_options *options, const char *partition)
{
    size_t n = 0;
    int status = options->if_exists ? 0 : cli_wait(session, tq_list_partitions(session->op));
    const char *const *names = tq_op_names(session->op, &n);
    bool known = status || options->if_exists;

    for (size_t i = 0; i < n && !known; i++) {
        known = names[i] != NULL && partition != NULL && strcmp(names[i], partition) == 0;
    }
    return known ? status : cli_fail("there is no partition '%s' (--if-exists accepts that)", partition);
}

int cli_clear(cli_options *options)
{
    get_selection selection = {0};
    cli_session session = {0};
    int status = get_select(options, &selection);

    if (status) {
        return status;
    }
    if ((selection.n == 0) == !options->all) {
        free(selection.indexes);
        return cli_usage("name samples to clear, or give --all for the whole partition");
    }
    status = cli_connect(options, false, &session);
    if (!status) {
        status = get_known(&session, options, selection.partition);
        if (status) {
            cli_disconnect(&session);
        }
    }
    if (!status) {
        int started = options->all ? tq_clear_partition(session.op, selection.partition)
                      : selection.indexes != NULL
                          ? tq_clear_indexes(session.op, selection.partition, selection.indexes, selection.n)
                          : tq_clear_keys(session.op, selection.partition, selection.keys, selection.n);
        status = cli_wait(&session, started);
        if (!status && options->json) {
            status = cli_print_json(json_pack("{s:I}", "cleared", (json_int_t)tq_op_count(session.op)));
        } else if (!status) {
            uint64_t n = tq_op_count(session.op);
            printf("cleared %" PRIu64 " sample%s\n", n, n == 1 ? "" : "s");
        }
        cli_disconnect(&session);
    }
    free(selection.indexes);
    return status;
}
