/*
 * calls.c - small calls: how long one takes, alone and with others in flight on the same connection. A single
 * caller waits for each call, like a program that has nothing else to do. Several callers are driven by their
 * callbacks: each has two ops that take turns, because an op cannot be restarted in its own callback.
 */
#include "cli/bench/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CLAIMED   64
#define FILL_ROWS 65536
/* Fewest calls of each caller: with fewer, start-up and shutdown would dominate. */
#define CALLS_EACH 8

typedef enum call_kind {
    CALL_TRIP, /* the smallest request: the minimum that any call takes */
    CALL_PUT,
    CALL_TAG,
    CALL_CLAIM,
    CALL_GET,
    CALL_KINDS
} call_kind;

static const char *const call_names[CALL_KINDS] = {"round trip", "put", "tag", "claim of 64", "get"};
static const char *const call_claimed[] = {"reward"};

/* Calls of one kind; what the callers share is under the lock. */
typedef struct call_run {
    bench *run;
    const bench_batch *tiny;
    call_kind kind;
    char task[32];
    size_t count;
    double *seconds; /* of each call */

    pthread_mutex_t lock;
    pthread_cond_t ended;
    size_t next;
    size_t running;
    bool failed;
    tq_error err;
} call_run;

typedef struct call_caller {
    call_run *calls;
    tq_op *ops[2];
    size_t place; /* of the call in flight */
    double started;
} call_caller;

static int call_put(const call_run *calls, tq_op *op, const char *key)
{
    tq_put_args put = {
        .size = sizeof(put),
        .partition = calls->run->partition,
        .keys = &key,
        .n = 1,
        .columns = calls->tiny->columns,
        .n_columns = calls->tiny->workload->n_fields,
    };

    return tq_put(op, &put);
}

static int call_start(const call_run *calls, tq_op *op, size_t place)
{
    const char *partition = calls->run->partition;
    char key[24] = "k";
    const char *keys[] = {key};
    /* msgpack: a 32-bit unsigned integer. */
    uint8_t version[5] = {0xce, (uint8_t)(place >> 24), (uint8_t)(place >> 16), (uint8_t)(place >> 8), (uint8_t)place};
    uint32_t size = sizeof(version);
    tq_tag tag = {.name = "version", .values = version, .sizes = &size};
    tq_put_args put = {.size = sizeof(put), .partition = partition, .keys = keys, .n = 1, .tags = &tag, .n_tags = 1};
    tq_get_by_key_args get = {.size = sizeof(get), .partition = partition, .keys = keys, .n = 1};
    tq_claim_args claim = {
        .size = sizeof(claim),
        .partition = partition,
        .fields = call_claimed,
        .n_fields = 1,
        .batch_size = CLAIMED,
        .task = calls->task,
        .sampler = "SequentialSampler",
    };

    switch (calls->kind) {
    case CALL_PUT:
        snprintf(key, sizeof(key), "k%zu", place);
        return call_put(calls, op, key);
    case CALL_TAG:
        return tq_put(op, &put);
    case CALL_CLAIM:
        return tq_claim(op, &claim);
    case CALL_GET:
        return tq_get_by_key(op, &get);
    default:
        return tq_list_keys(op, partition);
    }
}

/* --- what calls need ------------------------------------------------------ */

/* The sample of tags and reads. */
static int call_put_one(const call_run *calls)
{
    return bench_begin(calls->run) || bench_end(calls->run, call_put(calls, calls->run->session.op, "k"));
}

/* Makes samples ready for that many claims. */
static int call_fill(const call_run *calls)
{
    size_t left = calls->count * CLAIMED;
    float *values = calloc(left < FILL_ROWS ? left : FILL_ROWS, sizeof(*values));
    int failed = values != NULL ? 0 : cli_fail("out of memory");

    while (left > 0 && !failed) {
        size_t rows = left < FILL_ROWS ? left : FILL_ROWS;
        tq_slice bytes = {values, rows * sizeof(*values)};
        tq_column column = {
            .name = call_claimed[0],
            .dtype = {TQ_FLOAT, 32},
            .rows = rows,
            .slices = &bytes,
            .n_slices = 1,
        };
        tq_put_args put = {
            .size = sizeof(put),
            .partition = calls->run->partition,
            .n = rows,
            .columns = &column,
            .n_columns = 1,
        };
        failed = bench_begin(calls->run) || bench_end(calls->run, tq_put(calls->run->session.op, &put));
        left -= rows;
    }
    free(values);
    return failed;
}

static int call_prepare(const call_run *calls)
{
    switch (calls->kind) {
    case CALL_TAG:
    case CALL_GET:
        return call_put_one(calls);
    case CALL_CLAIM:
        return call_fill(calls);
    default:
        return 0;
    }
}

/* --- one at a time -------------------------------------------------------- */

static int call_one_by_one(call_run *calls)
{
    int failed = 0;

    for (size_t place = 0; place < calls->count && !failed; place++) {
        if (bench_begin(calls->run)) {
            return 1;
        }
        double started = bench_now();
        failed = bench_end(calls->run, call_start(calls, calls->run->session.op, place));
        calls->seconds[place] = bench_now() - started;
    }
    return failed;
}

/* --- many at a time ------------------------------------------------------- */

static void call_fail(call_run *calls, const tq_error *err)
{
    if (!calls->failed) {
        calls->err = *err;
    }
    calls->failed = true;
}

/* The caller's next call, on that op, or its end. */
static void call_go_on(call_caller *caller, tq_op *op)
{
    call_run *calls = caller->calls;
    bool stopped = bench_stopped(calls->run);

    pthread_mutex_lock(&calls->lock);
    bool more = !stopped && !calls->failed && calls->next < calls->count;
    caller->place = more ? calls->next++ : 0;
    pthread_mutex_unlock(&calls->lock);
    caller->started = bench_now();
    if (more && call_start(calls, op, caller->place) == TQ_OK) {
        return;
    }
    pthread_mutex_lock(&calls->lock);
    if (more) {
        call_fail(calls, tq_op_error(op));
    }
    if (--calls->running == 0) {
        pthread_cond_signal(&calls->ended);
    }
    pthread_mutex_unlock(&calls->lock);
}

static void call_done(tq_op *op, void *arg)
{
    call_caller *caller = arg;
    call_run *calls = caller->calls;

    calls->seconds[caller->place] = bench_now() - caller->started;
    if (tq_op_error(op)->code != TQ_OK) {
        pthread_mutex_lock(&calls->lock);
        call_fail(calls, tq_op_error(op));
        pthread_mutex_unlock(&calls->lock);
    }
    call_go_on(caller, caller->ops[op == caller->ops[0]]);
}

static int call_at_once(call_run *calls, size_t n)
{
    call_caller *callers = calloc(n, sizeof(*callers));
    bool made = callers != NULL;

    for (size_t i = 0; i < n && made; i++) {
        callers[i].calls = calls;
        callers[i].ops[0] = tq_op_alloc(calls->run->session.client, call_done, &callers[i]);
        callers[i].ops[1] = tq_op_alloc(calls->run->session.client, call_done, &callers[i]);
        made = callers[i].ops[0] != NULL && callers[i].ops[1] != NULL;
    }
    calls->running = made ? n : 0;
    for (size_t i = 0; i < n && made; i++) {
        call_go_on(&callers[i], callers[i].ops[0]);
    }
    pthread_mutex_lock(&calls->lock);
    while (calls->running > 0) {
        pthread_cond_wait(&calls->ended, &calls->lock);
    }
    pthread_mutex_unlock(&calls->lock);
    for (size_t i = 0; i < n && callers != NULL; i++) {
        tq_op_free(callers[i].ops[0]);
        tq_op_free(callers[i].ops[1]);
    }
    free(callers);
    if (made && !calls->failed) {
        return bench_stopped(calls->run) ? 1 : 0;
    }
    bench_progress_end(calls->run);
    return cli_fail("%s", made ? calls->err.message : "out of memory");
}

/* --- rounds of them ------------------------------------------------------- */

static int call_round(call_run *calls, size_t round, size_t callers, double *rate)
{
    bench *run = calls->run;

    snprintf(calls->task, sizeof(calls->task), "tq-bench-%zu-%zu", callers, round);
    calls->next = 0;
    bench_hold(run);
    int failed = call_prepare(calls);
    double started = bench_now();
    if (!failed) {
        failed = callers == 1 ? call_one_by_one(calls) : call_at_once(calls, callers);
    }
    *rate = (double)calls->count / (bench_now() - started);
    if (!failed && calls->kind != CALL_TRIP) {
        failed = bench_empty(run);
    }
    return failed;
}

static int call_rounds(bench *run, const bench_batch *tiny, call_kind kind, size_t callers)
{
    size_t rounds = run->settings->rounds;
    size_t least = callers * CALLS_EACH;
    bench_called *out = &run->called[run->n_called];
    call_run calls = {.run = run, .tiny = tiny, .kind = kind};
    double *rates = calloc(rounds, sizeof(*rates));
    int failed = 0;

    calls.count = run->settings->calls > least || callers == 1 ? run->settings->calls : least;
    double *seconds = calloc(rounds * calls.count, sizeof(*seconds));
    pthread_mutex_init(&calls.lock, NULL);
    pthread_cond_init(&calls.ended, NULL);
    if (rates == NULL || seconds == NULL) {
        failed = cli_fail("out of memory");
    }
    for (size_t round = 0; round < rounds && !failed; round++) {
        bench_progress(run, "%s, %zu at once", call_names[kind], callers);
        calls.seconds = seconds + round * calls.count;
        failed = call_round(&calls, round, callers, &rates[round]);
    }
    if (!failed) {
        *out = (bench_called){
            .name = call_names[kind],
            .callers = callers,
            .calls = rounds * calls.count,
            .p50 = bench_percentile(seconds, rounds * calls.count, 0.5),
            .p99 = bench_percentile(seconds, rounds * calls.count, 0.99),
            .rate = bench_percentile(rates, rounds, 0.5),
        };
        run->n_called++;
    }
    pthread_cond_destroy(&calls.ended);
    pthread_mutex_destroy(&calls.lock);
    free(seconds);
    free(rates);
    return failed;
}

size_t bench_count_calls(const cli_bench_options *settings)
{
    return settings->rounds * (1 + (CALL_KINDS - 1) * settings->n_callers);
}

int bench_call(bench *run)
{
    const cli_bench_options *settings = run->settings;
    bench_batch tiny;

    run->called = calloc(1 + (CALL_KINDS - 1) * settings->n_callers, sizeof(*run->called));
    if (run->called == NULL) {
        return cli_fail("out of memory");
    }
    int failed = bench_batch_make(bench_find("tiny"), 1, &tiny);
    if (failed) {
        return failed;
    }
    failed = call_rounds(run, &tiny, CALL_TRIP, 1);
    for (int kind = CALL_TRIP + 1; kind < CALL_KINDS && !failed; kind++) {
        for (size_t i = 0; i < settings->n_callers && !failed; i++) {
            failed = call_rounds(run, &tiny, (call_kind)kind, settings->callers[i]);
        }
    }
    bench_batch_free(&tiny);
    return failed;
}
