/*
 * bench.h - shared by the files of tq bench. bench.c: options and sequence; data.c: workloads; batches.c,
 * calls.c: measuring; run.c: running calls, progress, and signals; report.c: the output.
 */
#ifndef TQI_CLI_BENCH_BENCH_H
#define TQI_CLI_BENCH_BENCH_H

#include <argp.h>
#include <pthread.h>

#include "cli/cli.h"

#define BENCH_LISTED_MAX 16
/* Warm-up rounds of a workload. Puts go to the storage with the most room, to equal ones in turn, and the first put
 * there touches memory that was never used. */
#define BENCH_WARM 2

/* What the command line said for bench. */
typedef struct cli_bench_options cli_bench_options;
struct cli_bench_options {
    const char *workloads[BENCH_LISTED_MAX]; /* none: all */
    size_t n_workloads;
    double scale;
    size_t rounds;
    size_t calls;
    size_t callers[BENCH_LISTED_MAX]; /* none: a few kinds */
    size_t n_callers;
    bool list; /* only list the workloads */
};

/* Of its options; the input is a cli_bench_options. */
extern const struct argp cli_bench_argp;

/* --- workloads ------------------------------------------------------------ */

/* What the rows of a field are like. */
typedef enum bench_rows {
    BENCH_FIXED,  /* tensors of one shape */
    BENCH_RAGGED, /* tensors of one dimension, each as long as the workload makes it */
    BENCH_TEXT    /* strings, each as long as the workload makes it */
} bench_rows;

typedef struct bench_field {
    const char *name;
    bench_rows rows;
    tq_dtype dtype;
    uint32_t ndim;   /* BENCH_FIXED: 0 or 1 */
    uint64_t width;  /* BENCH_FIXED: elements of a row */
    uint64_t series; /* else: fields with the same number have rows of the same lengths */
} bench_field;

typedef struct bench_workload {
    const char *name;
    const char *about;
    size_t samples;
    const bench_field *fields;
    size_t n_fields;
    uint64_t (*length)(uint64_t *random); /* of the next row that is not fixed; NULL: all are */
} bench_workload;

extern const bench_workload bench_workloads[];
extern const size_t bench_n_workloads;
const bench_workload *bench_find(const char *name); /* NULL: there is none */

/* A workload in memory, ready to be put. */
typedef struct bench_batch {
    const bench_workload *workload;
    size_t rows;
    const char **keys;
    char *names;        /* the text of the keys */
    tq_column *columns; /* one per field of the workload */
    tq_slice *slices;   /* one per column: its rows end to end */
    uint64_t **dims;    /* of each column that is not fixed */
    uint64_t bytes;
} bench_batch;

/* Makes one, the same every time; on failure prints why and returns 1. */
int bench_batch_make(const bench_workload *workload, double scale, bench_batch *out);
void bench_batch_free(bench_batch *batch);
/* What the workloads are at that scale, as JSON. */
json_t *bench_describe(const cli_bench_options *settings);

/* --- results -------------------------------------------------------------- */

enum {
    BENCH_PUT,
    BENCH_LIST,
    BENCH_GET,
    BENCH_CLEAR,
    BENCH_COPY, /* of the same bytes in memory, warm, by one thread */
    BENCH_STEPS
};

/* Seconds of the steps of a workload, rounds of each. */
typedef struct bench_moved {
    const bench_workload *workload;
    size_t samples;
    uint64_t bytes;
    double *seconds[BENCH_STEPS];
} bench_moved;

/* Calls of one kind, a given number at a time. */
typedef struct bench_called {
    const char *name;
    size_t callers;
    size_t calls; /* in all rounds */
    double p50, p99;
    double rate; /* a second; median of the rounds */
} bench_called;

/* --- a run ---------------------------------------------------------------- */

typedef struct bench {
    const cli_options *options;
    const cli_bench_options *settings;
    cli_session session;
    char partition[32]; /* of this run alone */

    /* Under the lock: a signal may arrive at any time, see run.c. */
    pthread_mutex_t lock;
    pthread_t guard;
    int stopped;  /* the signal; 0: none */
    bool holding; /* there may be something in the partition */
    bool over;

    bool shown; /* progress is */
    size_t step, steps;

    char *system; /* about the system, for people */
    json_t *about;
    bench_moved *moved;
    size_t n_moved;
    bench_called *called;
    size_t n_called;
} bench;

/* From here on, a signal ends the run in an orderly way. */
int bench_guard_start(bench *run);
void bench_guard_stop(bench *run);
/* One call on the session's op: bench_begin (returns 1 if the run must end), start the call, bench_end with the code
 * that starting returned. bench_end waits; on an error it prints it and returns 1. */
int bench_begin(bench *run);
int bench_end(bench *run, int started);
/* A new op for the session: results of the last one are freed. */
int bench_renew(bench *run);
/* From now on the partition may hold something. */
void bench_hold(bench *run);
/* Whether a signal has come. */
bool bench_stopped(bench *run);
/* One step of the run begins. */
void bench_progress(bench *run, const char *format, ...) __attribute__((format(printf, 2, 3)));
void bench_progress_end(bench *run);
/* Clears the partition, for what comes next in the run. */
int bench_empty(bench *run);
/* Clears it when the run ends, however it ends. */
int bench_clean(bench *run);

double bench_now(void);
/* The value below which that share of all lies; sorts the values. */
double bench_percentile(double *values, size_t n, double share);

int bench_move(bench *run, const bench_workload *workload, bench_moved *out);
/* Calls of all kinds; bench_count_calls is how many steps of progress they are. */
int bench_call(bench *run);
size_t bench_count_calls(const cli_bench_options *settings);

/* Notes what the system is. */
int bench_about(bench *run, const tq_system_status *status);
int bench_print(bench *run, double elapsed);

#endif
