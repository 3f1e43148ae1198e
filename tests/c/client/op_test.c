/*
 * op_test.c - the completion contract of operations under races: every started op completes exactly once, whatever is
 * cancelled, freed or closed meanwhile. Made to be run under ThreadSanitizer.
 */
#include "testkit.h"

#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

#include "client/client.h"

#define ROUNDS 200

static test_system sys;
static tq_client *client;

static int setup(void **state)
{
    (void)state;
    system_start(&sys, 1, 8u << 20);
    client = system_open(&sys, 10);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    tq_client_close(client);
    system_stop(&sys);
    return 0;
}

static const char *const field = "x";

static int start_claim(tq_op *op)
{
    tq_claim_args claim = {
        .size = sizeof(claim),
        .partition = "p",
        .fields = &field,
        .n_fields = 1,
        .batch_size = 1,
        .task = "t",
    };

    return tq_claim(op, &claim);
}

static int start_put(tq_op *op, const int64_t *value, const tq_slice *slice)
{
    tq_column column = {.name = "x", .dtype = {TQ_INT, 64}, .rows = 1, .slices = slice, .n_slices = 1};
    tq_put_args args = {.size = sizeof(args), .partition = "p", .n = 1, .columns = &column, .n_columns = 1};

    (void)value;
    return tq_put(op, &args);
}

/* Counts the calls of a callback, and wakes threads that wait for them. */
typedef struct tally {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int calls;
    int codes_ok;
    int codes_canceled;
    int codes_closed;
    bool free_in_callback;
} tally;

static void tally_init(tally *t, bool free_in_callback)
{
    memset(t, 0, sizeof(*t));
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->changed, NULL);
    t->free_in_callback = free_in_callback;
}

static void tally_done(tq_op *op, void *arg)
{
    tally *t = arg;
    int rc = tq_op_error(op)->code;
    bool done = tq_op_done(op);

    if (t->free_in_callback) {
        tq_op_free(op);
    }
    pthread_mutex_lock(&t->lock);
    t->calls += done ? 1 : 1000;
    t->codes_ok += rc == TQ_OK;
    t->codes_canceled += rc == TQ_ECANCELED;
    t->codes_closed += rc == TQ_ECLOSED;
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->lock);
}

static void tally_wait(tally *t, int calls)
{
    pthread_mutex_lock(&t->lock);
    while (t->calls < calls) {
        pthread_cond_wait(&t->changed, &t->lock);
    }
    pthread_mutex_unlock(&t->lock);
}

static void *cancel_thread(void *arg)
{
    tq_op_cancel(arg);
    tq_op_cancel(arg);
    return NULL;
}

/* A cancel races with the put that satisfies the claim. */
static void an_op_is_cancelled_or_completes(void **state)
{
    int64_t value = 7;
    tq_slice slice = {&value, sizeof(value)};
    tq_op *put = tq_op_alloc(client, NULL, NULL);
    tally t;

    (void)state;

    tally_init(&t, false);
    for (int i = 0; i < ROUNDS; i++) {
        tq_op *claim = tq_op_alloc(client, i % 2 ? tally_done : NULL, &t);
        pthread_t thread;
        int rc;
        assert_int_equal(start_claim(claim), TQ_OK);
        assert_int_equal(start_put(put, &value, &slice), TQ_OK);
        assert_int_equal(pthread_create(&thread, NULL, cancel_thread, claim), 0);
        rc = tq_op_wait(claim);
        assert_true(rc == TQ_OK || rc == TQ_ECANCELED);
        assert_true((rc == TQ_OK) == (tq_op_meta(claim) != NULL));
        pthread_join(thread, NULL);
        assert_int_equal(tq_op_wait(put), TQ_OK);
        tq_op_free(claim);
    }
    assert_int_equal(t.calls, ROUNDS / 2);
    tq_op_free(put);
}

/* A callback that holds the loop thread up until it is let go. */
typedef struct gate {
    sem_t entered;
    sem_t open;
} gate;

static void gate_done(tq_op *op, void *arg)
{
    gate *g = arg;

    (void)op;
    sem_post(&g->entered);
    sem_wait(&g->open);
}

/* Whether the only sample of the partition was consumed by the task. */
static bool is_consumed(tq_op *op)
{
    expect_ok(op, tq_query_consumption(op, "p", "t"));
    assert_int_equal(tq_op_progress(op)->n, 1);
    return tq_op_progress(op)->flags[0];
}

/* A claim is cancelled when its answer is on its way, or was received: the samples go back. */
static void a_cancelled_claim_gives_its_samples_back(void **state)
{
    int64_t value = 7;
    tq_slice slice = {&value, sizeof(value)};
    tq_client *other = system_open(&sys, 10);
    tq_op *theirs = tq_op_alloc(other, NULL, NULL);
    tq_op *claim = tq_op_alloc(client, NULL, NULL);
    tq_op *holder;
    gate g;

    (void)state;

    sem_init(&g.entered, 0, 0);
    sem_init(&g.open, 0, 0);
    holder = tq_op_alloc(client, gate_done, &g);
    assert_int_equal(start_claim(claim), TQ_OK);
    assert_int_equal(tq_list_partitions(holder), TQ_OK);
    sem_wait(&g.entered); /* the claim waits at the controller, and the loop thread here */
    expect_ok(theirs, start_put(theirs, &value, &slice));
    assert_true(is_consumed(theirs));
    tq_op_cancel(claim);
    sem_post(&g.open);
    assert_int_equal(tq_op_wait(claim), TQ_ECANCELED);
    assert_null(tq_op_meta(claim));
    tq_op_free(holder);

    /* In order after what gave it back. */
    assert_false(is_consumed(claim));
    expect_ok(theirs, start_claim(theirs));
    assert_true(is_consumed(claim));
    tq_op_free(claim);
    tq_op_free(theirs);
    tq_client_close(other);
    sem_destroy(&g.entered);
    sem_destroy(&g.open);
}

/* Claims are freed at any moment while samples are published: each sample is claimed once in the
 * end. */
static void freed_claims_lose_no_samples(void **state)
{
    int64_t value = 7;
    tq_slice slice = {&value, sizeof(value)};
    tq_op *put = tq_op_alloc(client, NULL, NULL);
    bool seen[ROUNDS] = {0};
    tally t;

    (void)state;

    tally_init(&t, false);
    for (int i = 0; i < ROUNDS; i++) {
        tq_op *claim = tq_op_alloc(client, tally_done, &t);
        assert_int_equal(start_put(put, &value, &slice), TQ_OK);
        assert_int_equal(start_claim(claim), TQ_OK);
        if (i % 3 == 0) {
            tq_op_wait(put);
        }
        tq_op_free(claim);
        assert_int_equal(tq_op_wait(put), TQ_OK);
    }
    assert_int_equal(t.calls, ROUNDS);
    for (int left = ROUNDS - t.codes_ok; left > 0; left--) {
        const uint32_t *indexes;
        expect_ok(put, start_claim(put));
        indexes = tq_meta_indexes(tq_op_meta(put));
        assert_true(indexes[0] < ROUNDS);
        assert_false(seen[indexes[0]]);
        seen[indexes[0]] = true;
    }
    tq_op_set_timeout(put, 0.05);
    expect_error(put, start_claim(put), TQ_ETIMEDOUT, "");
    tq_op_free(put);
}

/* Nothing is lost between a cancelled claim and the table: each sample is claimed once, or still
 * there. */
static void cancelled_claims_lose_no_samples(void **state)
{
    int64_t value = 7;
    tq_slice slice = {&value, sizeof(value)};
    tq_op *put = tq_op_alloc(client, NULL, NULL);
    tq_op *claim = tq_op_alloc(client, NULL, NULL);
    int claimed = 0;
    int left = 0;

    (void)state;

    for (int i = 0; i < ROUNDS; i++) {
        assert_int_equal(start_claim(claim), TQ_OK);
        assert_int_equal(start_put(put, &value, &slice), TQ_OK);
        tq_op_cancel(claim);
        claimed += tq_op_wait(claim) == TQ_OK;
        assert_int_equal(tq_op_wait(put), TQ_OK);
    }
    expect_ok(put, tq_query_consumption(put, "p", "t"));
    assert_int_equal(tq_op_progress(put)->n, ROUNDS);
    for (size_t i = 0; i < ROUNDS; i++) {
        left += !tq_op_progress(put)->flags[i];
    }
    assert_int_equal(claimed + left, ROUNDS);
    tq_op_free(claim);
    tq_op_free(put);
}

static void an_op_is_freed_in_its_callback(void **state)
{
    tally t;

    (void)state;
    tally_init(&t, true);
    for (int i = 0; i < ROUNDS; i++) {
        tq_op *op = tq_op_alloc(client, tally_done, &t);
        assert_int_equal(tq_list_partitions(op), TQ_OK);
    }
    tally_wait(&t, ROUNDS);
    assert_int_equal(t.calls, ROUNDS);
    assert_int_equal(t.codes_ok, ROUNDS);
}

/* Freeing an op that is not done cancels it, calls back once, and waits. */
static void an_op_in_flight_is_freed(void **state)
{
    tally t;

    (void)state;
    tally_init(&t, false);
    for (int i = 0; i < ROUNDS; i++) {
        tq_op *op = tq_op_alloc(client, tally_done, &t);
        assert_int_equal(start_claim(op), TQ_OK);
        tq_op_free(op);
        assert_int_equal(t.calls, i + 1);
    }
    assert_int_equal(t.codes_canceled, ROUNDS);
}

/* A chain: each callback starts another op, and the last one frees an op that waits, whose own
 * callback is then not called any more. */
typedef struct chain {
    tally t;
    int left;
    tq_client *client;
    tq_op *other;
} chain;

static void chain_done(tq_op *op, void *arg)
{
    chain *c = arg;

    if (c->left-- > 0) {
        tq_op *next = tq_op_alloc(c->client, chain_done, c);
        assert_int_equal(tq_list_partitions(next), TQ_OK);
        tq_op_free(op);
    } else {
        tq_op_free(c->other);
        tally_done(op, &c->t);
    }
}

static void an_op_is_started_in_its_callback(void **state)
{
    chain c;
    tq_op *op;

    (void)state;
    tally_init(&c.t, true);
    c.left = 50;
    c.client = system_open(&sys, 10);
    c.other = tq_op_alloc(c.client, tally_done, &c.t);
    assert_int_equal(start_claim(c.other), TQ_OK);
    op = tq_op_alloc(c.client, chain_done, &c);
    assert_int_equal(tq_list_partitions(op), TQ_OK);
    tally_wait(&c.t, 1);
    tq_client_close(c.client); /* ends all */
    assert_int_equal(c.t.calls, 1);
    assert_int_equal(c.t.codes_ok, 1);
}

static void a_busy_op_refuses_calls(void **state)
{
    tq_op *op = tq_op_alloc(client, NULL, NULL);

    (void)state;
    assert_true(tq_op_done(op));
    assert_int_equal(start_claim(op), TQ_OK);
    assert_false(tq_op_done(op));
    assert_int_equal(tq_list_partitions(op), TQ_EINVAL);
    assert_false(tq_op_done(op));
    tq_op_cancel(op);
    assert_int_equal(tq_op_wait(op), TQ_ECANCELED);
    tq_op_cancel(op); /* nothing to end: changes nothing */
    assert_int_equal(tq_op_wait(op), TQ_ECANCELED);
    expect_ok(op, tq_list_partitions(op));
    tq_op_free(op);
}

static void *wait_thread(void *arg)
{
    return (void *)(intptr_t)tq_op_wait(arg);
}

static void on_signal(int number)
{
    (void)number;
}

/* A signal ends a wait of the one kind, and not of the other; time ends it; several threads wait for one op. */
static void a_wait_ends_by_a_signal_or_in_time(void **state)
{
    struct sigaction ours = {.sa_handler = on_signal}, old;
    struct itimerval soon = {.it_interval.tv_usec = 20000, .it_value.tv_usec = 20000}, none = {0};
    int64_t value = 7;
    tq_slice slice = {&value, sizeof(value)};
    tq_op *claim = tq_op_alloc(client, NULL, NULL), *put = tq_op_alloc(client, NULL, NULL);
    pthread_t threads[4];
    void *code;

    (void)state;
    assert_true(tq_op_wait_for(claim, -1)); /* not started */
    assert_int_equal(start_claim(claim), TQ_OK);
    assert_false(tq_op_wait_for(claim, 0));
    assert_false(tq_op_wait_for(claim, 0.0001));
    assert_int_equal(sigaction(SIGALRM, &ours, &old), 0);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, wait_thread, claim), 0);
    }
    for (int round = 0; round < 20; round++) {
        assert_false(tq_op_wait_for(claim, 0.002));
        for (int i = 0; i < 4; i++) {
            assert_int_equal(pthread_kill(threads[i], SIGALRM), 0);
        }
    }
    assert_int_equal(setitimer(ITIMER_REAL, &soon, NULL), 0); /* for this thread */
    assert_false(tq_op_wait_for(claim, -1));
    assert_false(tq_op_wait_for(claim, 1000));
    assert_int_equal(setitimer(ITIMER_REAL, &none, NULL), 0);
    assert_int_equal(sigaction(SIGALRM, &old, NULL), 0);
    assert_false(tq_op_done(claim));
    assert_int_equal(start_put(put, &value, &slice), TQ_OK);
    assert_true(tq_op_wait_for(claim, 1000));
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], &code), 0);
        assert_int_equal((intptr_t)code, TQ_OK);
    }
    expect_ok(put, TQ_OK);
    tq_op_free(claim);
    tq_op_free(put);
}

/* Both kinds of waits are made, and learned from. */
static void waits_are_measured(void **state)
{
    tq_client *other = system_open(&sys, 10);
    tq_op *op = tq_op_alloc(other, NULL, NULL);
    tqi_client_waits first;

    (void)state;
    tqi_client_waits_init(&first);
    for (int i = 0; i < 10000 && (other->waits.spun_ns == first.spun_ns || other->waits.slept_ns == first.slept_ns);
         i++) {
        expect_ok(op, tq_list_partitions(op));
    }
    assert_int_not_equal(other->waits.spun_ns, first.spun_ns);
    assert_int_not_equal(other->waits.slept_ns, first.slept_ns);
    tq_op_free(op);
    tq_client_close(other);
}

/* Closing ends what waits, once, with TQ_ECLOSED; ops may be freed after their client. */
static void closing_ends_what_waits_once(void **state)
{
    enum {
        N = 64
    };

    (void)state;
    for (int round = 0; round < 10; round++) {
        tq_client *other = system_open(&sys, 10);
        tq_op *waiting[N];
        tally t;
        tally_init(&t, false);
        for (int i = 0; i < N; i++) {
            waiting[i] = tq_op_alloc(other, i % 2 ? tally_done : NULL, &t);
            assert_int_equal(start_claim(waiting[i]), TQ_OK);
        }
        tq_client_close(other);
        for (int i = 0; i < N; i++) {
            assert_true(tq_op_done(waiting[i]));
            assert_int_equal(tq_op_wait(waiting[i]), TQ_ECLOSED);
            assert_int_equal(tq_list_partitions(waiting[i]), TQ_ECLOSED);
            tq_op_free(waiting[i]);
        }
        assert_int_equal(t.calls, N / 2);
        assert_int_equal(t.codes_closed, N / 2);
    }
}

static void close_done(tq_op *op, void *arg)
{
    tally *t = arg;
    tq_client *other = *(tq_client **)(t + 1);

    tq_op_free(op);
    tq_client_close(other);
    pthread_mutex_lock(&t->lock);
    t->calls++;
    pthread_cond_broadcast(&t->changed);
    pthread_mutex_unlock(&t->lock);
}

static void a_client_is_closed_in_a_callback(void **state)
{
    struct {
        tally t;
        tq_client *other;
    } c;
    tq_op *op;

    (void)state;
    tally_init(&c.t, false);
    c.other = system_open(&sys, 10);
    op = tq_op_alloc(c.other, close_done, &c);
    assert_int_equal(tq_list_partitions(op), TQ_OK);
    tally_wait(&c.t, 1);
}

/* Many threads put, claim and cancel over one client. */
static void *worker_thread(void *arg)
{
    int64_t value = (int64_t)(intptr_t)arg;
    tq_slice slice = {&value, sizeof(value)};
    tq_op *op = tq_op_alloc(client, NULL, NULL);
    intptr_t claimed = 0;

    for (int i = 0; i < 50; i++) {
        assert_int_equal(start_put(op, &value, &slice), TQ_OK);
        assert_int_equal(tq_op_wait(op), TQ_OK);
        assert_int_equal(start_claim(op), TQ_OK);
        if (i % 5 == 4) {
            tq_op_cancel(op);
        }
        if (tq_op_wait(op) == TQ_OK) {
            tq_meta *meta = tq_meta_ref(tq_op_meta(op));
            expect_ok(op, tq_get(op, meta, NULL, 0, NULL));
            tq_meta_unref(meta);
            claimed++;
        }
    }
    tq_op_free(op);
    return (void *)claimed;
}

static void threads_share_a_client(void **state)
{
    enum {
        N = 8
    };
    pthread_t threads[N];
    intptr_t claimed = 0;
    tq_op *op = tq_op_alloc(client, NULL, NULL);

    (void)state;
    for (intptr_t i = 0; i < N; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, worker_thread, (void *)i), 0);
    }
    for (int i = 0; i < N; i++) {
        void *result;
        pthread_join(threads[i], &result);
        claimed += (intptr_t)result;
    }
    expect_ok(op, tq_query_consumption(op, "p", "t"));
    for (size_t i = 0; i < tq_op_progress(op)->n; i++) {
        claimed -= tq_op_progress(op)->flags[i];
    }
    assert_int_equal(claimed, 0);
    tq_op_free(op);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(an_op_is_cancelled_or_completes, setup, teardown),
        cmocka_unit_test_setup_teardown(a_cancelled_claim_gives_its_samples_back, setup, teardown),
        cmocka_unit_test_setup_teardown(cancelled_claims_lose_no_samples, setup, teardown),
        cmocka_unit_test_setup_teardown(freed_claims_lose_no_samples, setup, teardown),
        cmocka_unit_test_setup_teardown(an_op_is_freed_in_its_callback, setup, teardown),
        cmocka_unit_test_setup_teardown(an_op_in_flight_is_freed, setup, teardown),
        cmocka_unit_test_setup_teardown(an_op_is_started_in_its_callback, setup, teardown),
        cmocka_unit_test_setup_teardown(a_busy_op_refuses_calls, setup, teardown),
        cmocka_unit_test_setup_teardown(a_wait_ends_by_a_signal_or_in_time, setup, teardown),
        cmocka_unit_test_setup_teardown(waits_are_measured, setup, teardown),
        cmocka_unit_test_setup_teardown(closing_ends_what_waits_once, setup, teardown),
        cmocka_unit_test_setup_teardown(a_client_is_closed_in_a_callback, setup, teardown),
        cmocka_unit_test_setup_teardown(threads_share_a_client, setup, teardown),
    };

    return cmocka_run_group_tests_name("client_op", tests, NULL, NULL);
}
