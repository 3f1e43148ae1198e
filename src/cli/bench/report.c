/*
 * report.c - the output of tq bench: two tables for people, or JSON with every number in seconds and bytes.
 */
#include "cli/bench/bench.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

/* Below this a copy is too short for the clock. */
#define COPY_LEAST (UINT64_C(1) << 20)

static const char *const report_steps[BENCH_STEPS] = {"put", "list", "get", "clear", "copy"};

/* --- about ---------------------------------------------------------------- */

static json_t *about_machine(void)
{
    struct utsname kernel = {0};

    uname(&kernel);
    return json_pack("{s:o, s:s, s:s, s:I}", "host", cli_json_text(kernel.nodename), "machine", kernel.machine,
                     "kernel", kernel.release, "cores", (json_int_t)sysconf(_SC_NPROCESSORS_ONLN));
}

int bench_about(bench *run, const tq_system_status *status)
{
    json_t *storage = json_array();
    uint64_t capacity = 0;
    uint64_t used = 0;
    size_t present = 0;
    char texts[2][32];

    for (size_t i = 0; i < status->n_owners; i++) {
        const tq_status_owner *owner = status->owners[i];
        if (owner->present) {
            present++;
            capacity += owner->capacity_bytes;
            used += owner->used_bytes;
            json_array_append_new(storage,
                                  json_pack("{s:o, s:o, s:I, s:I}", "name", cli_json_text(owner->name), "manager",
                                            cli_json_text(owner->manager), "used_bytes", (json_int_t)owner->used_bytes,
                                            "capacity_bytes", (json_int_t)owner->capacity_bytes));
        }
    }
    run->about = json_pack("{s:s, s:s, s:f, s:o, s:o}", "version", status->version, "tq", tq_version(), "uptime",
                           status->uptime, "machine", about_machine(), "storage", storage);
    int size = asprintf(&run->system, "system %s, up %.0f s, %zu part%s of storage", status->version, status->uptime,
                        present, present == 1 ? "" : "s");
    if (size >= 0 && capacity > 0) {
        char *before = run->system;
        size = asprintf(&run->system, "%s, %s of %s used", before, cli_bytes(used, texts[0]),
                        cli_bytes(capacity, texts[1]));
        free(before);
    }
    if (size < 0) {
        run->system = NULL;
    }
    return size < 0 || run->about == NULL ? cli_fail("out of memory") : 0;
}

/* --- numbers -------------------------------------------------------------- */

static double report_median(const bench *run, const bench_moved *moved, int step)
{
    size_t n = run->settings->rounds;
    double *values = calloc(n, sizeof(*values));
    double median = 0;

    if (values != NULL) {
        memcpy(values, moved->seconds[step], n * sizeof(*values));
        median = bench_percentile(values, n, 0.5);
    }
    free(values);
    return median;
}

static json_t *json_step(const bench *run, const bench_moved *moved, int step)
{
    double median = report_median(run, moved, step);
    json_t *rounds = json_array();

    for (size_t i = 0; i < run->settings->rounds; i++) {
        json_array_append_new(rounds, json_real(moved->seconds[step][i]));
    }
    json_t *out = json_pack("{s:f, s:o}", "median", median, "seconds", rounds);
    if (step == BENCH_PUT || step == BENCH_GET || step == BENCH_COPY) {
        json_object_set_new(out, "bytes_per_second", json_real((double)moved->bytes / median));
    }
    return out;
}

static json_t *json_moved(const bench *run)
{
    json_t *list = json_array();

    for (size_t i = 0; i < run->n_moved; i++) {
        const bench_moved *moved = &run->moved[i];
        json_t *one = json_pack("{s:s, s:I, s:I}", "name", moved->workload->name, "samples", (json_int_t)moved->samples,
                                "bytes", (json_int_t)moved->bytes);
        for (int step = 0; step < BENCH_STEPS; step++) {
            if (step != BENCH_COPY || moved->bytes >= COPY_LEAST) {
                json_object_set_new(one, report_steps[step], json_step(run, moved, step));
            }
        }
        json_array_append_new(list, one);
    }
    return list;
}

static json_t *json_called(const bench *run)
{
    json_t *list = json_array();

    for (size_t i = 0; i < run->n_called; i++) {
        const bench_called *called = &run->called[i];
        json_array_append_new(list, json_pack("{s:s, s:I, s:I, s:f, s:f, s:f}", "name", called->name, "callers",
                                              (json_int_t)called->callers, "calls", (json_int_t)called->calls, "p50",
                                              called->p50, "p99", called->p99, "per_second", called->rate));
    }
    return list;
}

static int report_json(bench *run, double elapsed)
{
    json_t *settings = json_pack("{s:f, s:I, s:I}", "scale", run->settings->scale, "rounds",
                                 (json_int_t)run->settings->rounds, "calls", (json_int_t)run->settings->calls);

    return cli_print_json(json_pack("{s:O, s:s, s:o, s:f, s:o, s:o}", "about", run->about, "partition", run->partition,
                                    "settings", settings, "elapsed", elapsed, "workloads", json_moved(run), "calls",
                                    json_called(run)));
}

/* --- tables --------------------------------------------------------------- */

static void table_moved(const bench *run)
{
    static const char *const columns[] = {"WORKLOAD",   ">SAMPLES", ">SIZE",    ">PUT GB/s", ">GET GB/s",
                                          ">COPY GB/s", ">PUT ms",  ">LIST ms", ">GET ms",   ">CLEAR ms"};
    static const int rates[] = {BENCH_PUT, BENCH_GET, BENCH_COPY};
    cli_table *table = cli_table_new(columns, sizeof(columns) / sizeof(columns[0]));
    char size[32];

    for (size_t i = 0; table != NULL && i < run->n_moved; i++) {
        const bench_moved *moved = &run->moved[i];
        cli_table_row(table);
        cli_table_cell(table, "%s", moved->workload->name);
        cli_table_cell(table, "%zu", moved->samples);
        cli_table_cell(table, "%s", cli_bytes(moved->bytes, size));
        for (size_t k = 0; k < sizeof(rates) / sizeof(rates[0]); k++) {
            if (moved->bytes < COPY_LEAST) {
                cli_table_cell(table, "%s", "-");
            } else {
                cli_table_cell(table, "%.2f", (double)moved->bytes / report_median(run, moved, rates[k]) / 1e9);
            }
        }
        for (int step = BENCH_PUT; step <= BENCH_CLEAR; step++) {
            cli_table_cell(table, "%.2f", 1e3 * report_median(run, moved, step));
        }
    }
    if (table != NULL) {
        cli_table_print(table);
    }
}

static void table_called(const bench *run)
{
    static const char *const columns[] = {"CALL", ">AT ONCE", ">P50 us", ">P99 us", ">PER SECOND"};
    cli_table *table = cli_table_new(columns, sizeof(columns) / sizeof(columns[0]));

    for (size_t i = 0; table != NULL && i < run->n_called; i++) {
        const bench_called *called = &run->called[i];
        cli_table_row(table);
        cli_table_cell(table, "%s", called->name);
        cli_table_cell(table, "%zu", called->callers);
        cli_table_cell(table, "%.0f", 1e6 * called->p50);
        cli_table_cell(table, "%.0f", 1e6 * called->p99);
        cli_table_cell(table, "%.0f", called->rate);
    }
    if (table != NULL) {
        cli_table_print(table);
    }
}

int bench_print(bench *run, double elapsed)
{
    if (run->options->json) {
        return report_json(run, elapsed);
    }
    printf("%s\n%zu rounds in %.1f s; medians\n\n", run->system, run->settings->rounds, elapsed);
    table_moved(run);
    puts("COPY: as many bytes from memory to memory, warm, by one thread\n");
    table_called(run);
    return 0;
}
