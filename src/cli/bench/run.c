/*
 * run.c - how a run of tq bench goes from call to call, and how it ends when a signal comes.
 *
 * SIGINT, SIGTERM and SIGHUP are blocked in every thread and handled by a dedicated one, the guard. The first signal
 * marks the run as stopped and cancels the call in flight; a call begins under the same lock, so that none begins
 * after that. The run then clears its partition and ends. A second signal, or one that arrives before anything was
 * put, ends the process at once.
 */
#include "cli/bench/bench.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define PROGRESS_WIDTH 24
#define LEFT_BEHIND    "tq: the partition %s may be left behind; `tq clear %s --all' removes it"

double bench_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
}

static int run_compare(const void *left, const void *right)
{
    double one = *(const double *)left;
    double other = *(const double *)right;

    return (one > other) - (one < other);
}

double bench_percentile(double *values, size_t n, double share)
{
    size_t place = (size_t)(share * (double)n);

    qsort(values, n, sizeof(*values), run_compare);
    return values[place < n ? place : n - 1];
}

/* --- signals -------------------------------------------------------------- */

/* A hang-up that is ignored (nohup) stays so. */
static void guard_set(sigset_t *out)
{
    struct sigaction hangup = {0};

    sigemptyset(out);
    sigaddset(out, SIGINT);
    sigaddset(out, SIGTERM);
    sigaction(SIGHUP, NULL, &hangup);
    if (hangup.sa_handler != SIG_IGN) {
        sigaddset(out, SIGHUP);
    }
}

static void guard_leave(const bench *run, int number)
{
    if (run->holding) {
        fprintf(stderr, "\n" LEFT_BEHIND "\n", run->partition, run->partition);
    }
    _exit(128 + number);
}

static void *guard_main(void *arg)
{
    bench *run = arg;
    bool over = false;
    sigset_t set;

    guard_set(&set);
    while (!over) {
        int number = 0;
        sigwait(&set, &number);
        pthread_mutex_lock(&run->lock);
        over = run->over;
        if (!over && (!run->holding || run->stopped)) {
            guard_leave(run, number);
        }
        if (!over) {
            run->stopped = number;
            tq_op_cancel(run->session.op);
        }
        pthread_mutex_unlock(&run->lock);
    }
    return NULL;
}

int bench_guard_start(bench *run)
{
    sigset_t set;

    guard_set(&set);
    pthread_mutex_init(&run->lock, NULL);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    int failed = pthread_create(&run->guard, NULL, guard_main, run);
    return failed ? cli_fail("cannot start a thread: %s", strerror(failed)) : 0;
}

void bench_guard_stop(bench *run)
{
    sigset_t set;

    guard_set(&set);
    pthread_mutex_lock(&run->lock);
    run->over = true;
    pthread_mutex_unlock(&run->lock);
    pthread_kill(run->guard, SIGINT); /* it waits for one */
    pthread_join(run->guard, NULL);
    pthread_mutex_destroy(&run->lock);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

void bench_hold(bench *run)
{
    pthread_mutex_lock(&run->lock);
    run->holding = true;
    pthread_mutex_unlock(&run->lock);
}

bool bench_stopped(bench *run)
{
    pthread_mutex_lock(&run->lock);
    bool stopped = run->stopped != 0;
    pthread_mutex_unlock(&run->lock);
    return stopped;
}

/* --- calls ---------------------------------------------------------------- */

int bench_begin(bench *run)
{
    pthread_mutex_lock(&run->lock);
    if (run->stopped) {
        pthread_mutex_unlock(&run->lock);
        return 1;
    }
    return 0;
}

int bench_end(bench *run, int started)
{
    pthread_mutex_unlock(&run->lock);
    if (started == TQ_OK && tq_op_wait(run->session.op) == TQ_OK) {
        return 0;
    }
    bench_progress_end(run);
    return bench_stopped(run) ? 1 : cli_fail("%s", tq_op_error(run->session.op)->message);
}

int bench_renew(bench *run)
{
    pthread_mutex_lock(&run->lock);
    tq_op_free(run->session.op);
    run->session.op = tq_op_alloc(run->session.client, NULL, NULL);
    pthread_mutex_unlock(&run->lock);
    return run->session.op != NULL ? 0 : cli_fail("out of memory");
}

int bench_empty(bench *run)
{
    return bench_begin(run) || bench_end(run, tq_clear_partition(run->session.op, run->partition));
}

/* Works even after a signal or an error: the op's call has completed. */
int bench_clean(bench *run)
{
    tq_op *op = run->holding ? tq_op_alloc(run->session.client, NULL, NULL) : NULL;

    if (!run->holding) {
        return 0;
    }
    int rc = op != NULL ? tq_clear_partition(op, run->partition) : TQ_ENOMEM;
    rc = rc ? rc : tq_op_wait(op);
    if (rc) {
        cli_fail("%s\n" LEFT_BEHIND, op != NULL ? tq_op_error(op)->message : "out of memory", run->partition,
                 run->partition);
    }
    tq_op_free(op);
    return rc ? 1 : 0;
}

/* --- progress ------------------------------------------------------------- */

void bench_progress(bench *run, const char *format, ...)
{
    char bar[PROGRESS_WIDTH + 1];
    size_t full = run->steps ? run->step * PROGRESS_WIDTH / run->steps : 0;
    va_list args;

    run->step++;
    if (!run->shown) {
        return;
    }
    for (size_t i = 0; i < PROGRESS_WIDTH; i++) {
        bar[i] = i < full ? '#' : '.';
    }
    bar[PROGRESS_WIDTH] = 0;
    fprintf(stderr, "\r\033[K[%s] %zu/%zu  ", bar, run->step, run->steps);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fflush(stderr);
}

void bench_progress_end(bench *run)
{
    if (run->shown) {
        fputs("\r\033[K", stderr);
        fflush(stderr);
    }
}
