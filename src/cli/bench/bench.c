/*
 * bench.c - tq bench: how fast a running system is from here, in a partition of its own.
 *
 * Nothing else in the system is touched, and the partition is cleared however the run ends; others only notice its
 * traffic, and the room that one batch at a time takes in the storage.
 */
#include "cli/bench/bench.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define BENCH_ROUNDS_MAX  1000
#define BENCH_CALLS_MAX   1000000
#define BENCH_CALLERS_MAX 4096

/* --- options -------------------------------------------------------------- */

enum {
    BENCH_OPT_WORKLOAD = 512,
    BENCH_OPT_SCALE,
    BENCH_OPT_ROUNDS,
    BENCH_OPT_CALLS,
    BENCH_OPT_CALLERS,
    BENCH_OPT_LIST
};

static const struct argp_option bench_argp_options[] = {
    {"workload", BENCH_OPT_WORKLOAD, "NAME", 0, "only this workload; may be given more than once (all)", 0},
    {"scale", BENCH_OPT_SCALE, "FACTOR", 0, "of the samples of a workload (1)", 0},
    {"rounds", BENCH_OPT_ROUNDS, "N", 0, "of everything; results are medians (5)", 0},
    {"calls", BENCH_OPT_CALLS, "N", 0, "small calls in a round (1000)", 0},
    {"callers", BENCH_OPT_CALLERS, "N", 0, "small calls at once; may be given more than once (1, 16, 256)", 0},
    {"list-workloads", BENCH_OPT_LIST, NULL, 0, "say what the workloads are, and end", 0},
    {0},
};

static size_t bench_number(struct argp_state *state, const char *option, const char *text, size_t most)
{
    char *end = NULL;

    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (*text == '-' || end == text || *end || errno || value < 1 || value > most) {
        argp_error(state, "--%s: expected 1 to %zu, got '%s'", option, most, text);
    }
    return value;
}

static double bench_factor(struct argp_state *state, const char *text)
{
    char *end = NULL;
    double value = strtod(text, &end);

    if (end == text || *end || !(value > 0) || value > 1000) {
        argp_error(state, "--scale: expected a factor up to 1000, got '%s'", text);
    }
    return value;
}

static void bench_add_workload(struct argp_state *state, cli_bench_options *settings, const char *name)
{
    if (bench_find(name) == NULL) {
        argp_error(state, "--workload: there is no '%s', see --list-workloads", name);
    }
    for (size_t i = 0; i < settings->n_workloads; i++) {
        if (strcmp(settings->workloads[i], name) == 0) {
            return;
        }
    }
    settings->workloads[settings->n_workloads++] = name;
}

static error_t bench_parse_option(int key, char *arg, struct argp_state *state)
{
    cli_bench_options *settings = state->input;

    switch (key) {
    case BENCH_OPT_WORKLOAD:
        bench_add_workload(state, settings, arg);
        break;
    case BENCH_OPT_SCALE:
        settings->scale = bench_factor(state, arg);
        break;
    case BENCH_OPT_ROUNDS:
        settings->rounds = bench_number(state, "rounds", arg, BENCH_ROUNDS_MAX);
        break;
    case BENCH_OPT_CALLS:
        settings->calls = bench_number(state, "calls", arg, BENCH_CALLS_MAX);
        break;
    case BENCH_OPT_CALLERS:
        if (settings->n_callers == BENCH_LISTED_MAX) {
            argp_error(state, "--callers: at most %d times", BENCH_LISTED_MAX);
        }
        settings->callers[settings->n_callers++] = bench_number(state, "callers", arg, BENCH_CALLERS_MAX);
        break;
    case BENCH_OPT_LIST:
        settings->list = true;
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

const struct argp cli_bench_argp = {.options = bench_argp_options, .parser = bench_parse_option};

/* --- what is run ---------------------------------------------------------- */

static bool bench_chosen(const cli_bench_options *settings, const char *name)
{
    for (size_t i = 0; i < settings->n_workloads; i++) {
        if (strcmp(settings->workloads[i], name) == 0) {
            return true;
        }
    }
    return settings->n_workloads == 0;
}

static int bench_measure(bench *run)
{
    const cli_bench_options *settings = run->settings;
    size_t chosen = settings->n_workloads ? settings->n_workloads : bench_n_workloads;
    int failed = 0;

    run->shown = isatty(STDERR_FILENO);
    run->steps = chosen * (settings->rounds + BENCH_WARM) + bench_count_calls(settings);
    run->moved = calloc(chosen, sizeof(*run->moved));
    if (run->moved == NULL) {
        return cli_fail("out of memory");
    }
    for (size_t i = 0; i < bench_n_workloads && !failed; i++) {
        if (bench_chosen(settings, bench_workloads[i].name)) {
            failed = bench_move(run, &bench_workloads[i], &run->moved[run->n_moved++]);
        }
    }
    failed = failed ? failed : bench_call(run);
    bench_progress_end(run);
    return failed;
}

/* A name that nobody else has. */
static int bench_name(bench *run)
{
    uint64_t number = 0;

    if (getrandom(&number, sizeof(number), 0) != (ssize_t)sizeof(number)) {
        return cli_fail("no random number: %s", strerror(errno));
    }
    snprintf(run->partition, sizeof(run->partition), "tq-bench-%016" PRIx64, number);
    return 0;
}

static int bench_look(bench *run)
{
    if (bench_begin(run) || bench_end(run, tq_query_status(run->session.op))) {
        return 1;
    }
    return bench_about(run, tq_op_status(run->session.op));
}

static void bench_free(bench *run)
{
    for (size_t i = 0; i < run->n_moved; i++) {
        for (int step = 0; step < BENCH_STEPS; step++) {
            free(run->moved[i].seconds[step]);
        }
    }
    free(run->moved);
    free(run->called);
    free(run->system);
    json_decref(run->about);
}

/* Connects, measures, and leaves nothing behind. */
static int bench_run(bench *run)
{
    int status = bench_guard_start(run);

    if (status) {
        return status;
    }
    status = cli_connect(run->options, true, &run->session);
    if (!status) {
        status = bench_look(run);
        status = status ? status : bench_measure(run);
        int left = bench_clean(run);
        if (run->stopped && !left) {
            cli_fail("interrupted; nothing is left behind");
        }
        status = status ? status : left;
    }
    bench_guard_stop(run);
    cli_disconnect(&run->session);
    return run->stopped ? 128 + run->stopped : status;
}

static int bench_list(const cli_options *options)
{
    static const char *const columns[] = {"WORKLOAD", ">SAMPLES", ">SIZE", "WHAT"};
    json_t *list = bench_describe(options->bench);
    json_t *each;
    size_t i;
    char bytes[32];

    if (options->json) {
        return cli_print_json(list);
    }
    cli_table *table = cli_table_new(columns, 4);
    if (table == NULL) {
        json_decref(list);
        return cli_fail("out of memory");
    }
    json_array_foreach(list, i, each)
    {
        cli_table_row(table);
        cli_table_cell(table, "%s", json_string_value(json_object_get(each, "name")));
        cli_table_cell(table, "%" JSON_INTEGER_FORMAT, json_integer_value(json_object_get(each, "samples")));
        cli_table_cell(table, "%s", cli_bytes((uint64_t)json_integer_value(json_object_get(each, "bytes")), bytes));
        cli_table_cell(table, "%s", json_string_value(json_object_get(each, "about")));
    }
    cli_table_print(table);
    json_decref(list);
    return 0;
}

int cli_bench(cli_options *options)
{
    static const size_t callers[] = {1, 16, 256};
    cli_bench_options *settings = options->bench;
    bench run = {.options = options, .settings = settings};

    if (options->n_args) {
        return cli_usage("bench takes no arguments");
    }
    if (settings->list) {
        return bench_list(options);
    }
    if (settings->n_callers == 0) {
        settings->n_callers = sizeof(callers) / sizeof(callers[0]);
        memcpy(settings->callers, callers, sizeof(callers));
    }
    double started = bench_now();
    int status = bench_name(&run);
    status = status ? status : bench_run(&run);
    status = status ? status : bench_print(&run, bench_now() - started);
    bench_free(&run);
    return status;
}
