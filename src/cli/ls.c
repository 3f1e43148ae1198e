/*
 * ls.c - tq ls: partitions, or keys and tags of one; tq events: what happened.
 */
#include "cli/cli.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* An answer with fewer events was not truncated: it holds 16 MiB of them, and none exceeds about 8 KiB. An empty
 * answer may never come while others are working. */
#define EVENTS_MORE 1000u

static json_t *ls_tags(const tq_meta *meta, size_t row)
{
    json_t *tags = json_object();

    for (size_t t = 0; t < tq_meta_tag_count(meta); t++) {
        const tq_meta_tag *tag = tq_meta_tag_at(meta, t);
        const uint8_t *value = tag->values;
        for (size_t i = 0; i < row; i++) {
            value += tag->sizes[i];
        }
        if (tag->sizes[row]) {
            cli_json_set(tags, tag->name, cli_msgpack(value, tag->sizes[row]));
        }
    }
    return tags;
}

static int ls_partitions(const cli_session *session, const cli_options *options)
{
    int status = cli_wait(session, tq_list_partitions(session->op));
    size_t n = 0;

    if (status) {
        return status;
    }
    const char *const *names = tq_op_names(session->op, &n);
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++) {
        if (options->json) {
            json_array_append_new(list, cli_json_text(names[i]));
        } else {
            char *text = cli_text(names[i], false);
            puts(text != NULL ? text : "out of memory");
            free(text);
        }
    }
    if (options->json) {
        return cli_print_json(list);
    }
    json_decref(list);
    return 0;
}

static int ls_keys(const cli_session *session, const cli_options *options)
{
    static const char *const columns[] = {"KEY", ">INDEX", "GROUP", "TAGS"};
    tq_resolve_args args = {.size = sizeof(args), .partition = options->args[0], .tags = true};
    int status = cli_wait(session, tq_resolve(session->op, &args));

    if (status) {
        return status;
    }
    const tq_meta *meta = tq_op_meta(session->op);
    json_t *list = json_array();
    cli_table *table = options->json ? NULL : cli_table_new(columns, 4);
    for (size_t i = 0; i < tq_meta_sample_count(meta); i++) {
        json_t *tags = ls_tags(meta, i);
        const char *key = tq_meta_key(meta, i);
        const char *group = tq_meta_group(meta, i);
        uint32_t index = tq_meta_indexes(meta)[i];
        if (table != NULL) {
            char *text = json_dumps(tags, JSON_COMPACT);
            cli_table_row(table);
            cli_table_cell(table, "%s", key != NULL ? key : "");
            cli_table_cell(table, "%" PRIu32, index);
            cli_table_cell(table, "%s", group != NULL ? group : "");
            cli_table_cell(table, "%s", text != NULL && json_object_size(tags) ? text : "");
            free(text);
            json_decref(tags);
        } else {
            json_array_append_new(list, json_pack("{s:o, s:I, s:o, s:o}", "key", cli_json_text(key), "index",
                                                  (json_int_t)index, "group", cli_json_text(group), "tags", tags));
        }
    }
    if (table != NULL) {
        cli_table_print(table);
        json_decref(list);
        return 0;
    }
    return cli_print_json(list);
}

int cli_ls(cli_options *options)
{
    cli_session session = {0};
    int status =
        options->n_args > 1 ? cli_usage("ls takes one partition at most") : cli_connect(options, false, &session);

    if (status) {
        return status;
    }
    status = options->n_args ? ls_keys(&session, options) : ls_partitions(&session, options);
    cli_disconnect(&session);
    return status;
}

/* --- events --------------------------------------------------------------- */

/* Lines are printed as events happen, so the columns have fixed widths; longer names are cut on a terminal only. */
static void events_print_row(const char *const cells[7])
{
    static const size_t widths[7] = {13, 8, 20, 16, 16, 7, 0};
    bool cut = cli_terminal() > 0;

    for (size_t c = 0; c < 7; c++) {
        char *text = cli_text(cells[c], false);
        if (text != NULL && cut && widths[c] > 0) {
            cli_shorten(text, widths[c]);
        }
        cli_pad(text != NULL ? text : "", widths[c], c == 5);
        fputs(c == 5 ? "  " : c == 6 ? "\n" : " ", stdout);
        free(text);
    }
}

static void events_print_head(void)
{
    static const char *const heads[7] = {"TIME", "KIND", "CLIENT", "PARTITION", "TASK", "SAMPLES", "SIZE"};

    events_print_row(heads);
}

/* Commands of tq that came and went are not interesting. */
static bool events_shown(const tq_event *event, const cli_options *options)
{
    return options->all || strcmp(event->session, CLI_NAME) != 0 ||
           (strcmp(event->kind, "join") != 0 && strcmp(event->kind, "leave") != 0 && strcmp(event->kind, "died") != 0 &&
            strcmp(event->kind, "silent") != 0);
}

static void events_print_line(const tq_event *event)
{
    time_t seconds = (time_t)event->time;
    struct tm local;
    char clock[16];
    char exact[32];
    char samples[16];
    char bytes[32];

    localtime_r(&seconds, &local);
    strftime(clock, sizeof(clock), "%H:%M:%S", &local);
    snprintf(exact, sizeof(exact), "%s.%03d", clock, (int)((event->time - (double)seconds) * 1000));
    snprintf(samples, sizeof(samples), "%" PRIu32, event->samples);
    const char *const cells[7] = {
        exact, event->kind, event->session, event->partition, event->task, samples, cli_bytes(event->bytes, bytes)};
    events_print_row(cells);
}

static json_t *events_json(const tq_event *event)
{
    json_t *indexes = json_array();

    for (size_t i = 0; i < event->n_indexes; i++) {
        json_array_append_new(indexes, json_integer(event->indexes[i]));
    }
    return json_pack("{s:I, s:f, s:o, s:o, s:o, s:o, s:i, s:I, s:o}", "seq", (json_int_t)event->seq, "time",
                     event->time, "kind", cli_json_text(event->kind), "session", cli_json_text(event->session),
                     "partition", cli_json_text(event->partition), "task", cli_json_text(event->task), "samples",
                     (int)event->samples, "bytes", (json_int_t)event->bytes, "indexes", indexes);
}

/* One JSON object per line when following, else they are added to the list. */
static void events_page(const tq_event *const *events, size_t n, const cli_options *options, json_t *list)
{
    for (size_t i = 0; i < n; i++) {
        if (!events_shown(events[i], options)) {
            continue;
        }
        if (!options->json) {
            events_print_line(events[i]);
        } else if (options->follow) {
            json_t *event = events_json(events[i]);
            json_dumpf(event, stdout, JSON_COMPACT);
            putchar('\n');
            json_decref(event);
        } else {
            json_array_append_new(list, events_json(events[i]));
        }
    }
    fflush(stdout);
}

#define EVENTS_FOLLOW_LAST 20

/* Finds the number after which the requested last events begin; 0: from the first one that is kept. */
static int events_begin(const cli_session *session, const cli_options *options, uint64_t *since)
{
    long last = options->last < 0 && options->follow ? EVENTS_FOLLOW_LAST : options->last;
    uint64_t *numbers = last < 0 ? NULL : calloc((size_t)last + 1, sizeof(*numbers));
    uint64_t at = 0;
    size_t shown = 0, n = 0;
    int status = 0;

    if (numbers == NULL) {
        return last < 0 ? 0 : cli_fail("out of memory");
    }
    do {
        status = cli_wait(session, tq_query_events(session->op, at, 0, false));
        const tq_event *const *events = status ? NULL : tq_op_events(session->op, &n, &at);
        for (size_t i = 0; i < n && !status && last > 0; i++) {
            if (events_shown(events[i], options)) {
                numbers[shown++ % (size_t)last] = events[i]->seq;
            }
        }
    } while (!status && n >= EVENTS_MORE);
    if (!status && last == 0) {
        *since = at;
    } else if (!status && shown > (size_t)last) {
        *since = numbers[shown % (size_t)last] - 1;
    }
    free(numbers);
    return status;
}

int cli_events(cli_options *options)
{
    cli_session session = {0};
    uint64_t since = 0;
    size_t n = 0;
    bool first = true;
    int status = options->n_args ? cli_usage("events takes no arguments") : cli_connect(options, false, &session);

    if (status) {
        return status;
    }
    status = events_begin(&session, options, &since);
    if (status) {
        cli_disconnect(&session);
        return status;
    }
    json_t *list = json_array();
    if (!options->json) {
        events_print_head();
    }
    do {
        status = cli_wait(&session, tq_query_events(session.op, since, 0, !first && options->follow));
        first = false;
        if (!status) {
            const tq_event *const *events = tq_op_events(session.op, &n, &since);
            events_page(events, n, options, list);
        }
    } while (!status && (options->follow || n >= EVENTS_MORE) && !ferror(stdout));
    if (!status && options->json && !options->follow) {
        status = cli_print_json(list);
    } else {
        json_decref(list);
    }
    cli_disconnect(&session);
    return status;
}
