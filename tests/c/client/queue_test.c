/*
 * queue_test.c - completed ops in a queue with a descriptor: for programs with an event loop of their own.
 */
#include "testkit.h"

#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static test_system sys;
static tq_client *client;
static tq_op *op;
static tq_queue *queue;

static int set_up(void **state)
{
    tq_error err = {0};

    (void)state;
    system_begin(&sys, 1, 1 << 20, 30, &client, &op);
    assert_int_equal(tq_queue_alloc(&queue, &err), TQ_OK);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    tq_queue_free(queue);
    system_end(&sys, client, op);
    return 0;
}

/* Whether there is something in it, within `timeout` milliseconds. */
static bool readable(tq_queue *in, int timeout)
{
    struct pollfd fd = {.fd = tq_queue_fd(in), .events = POLLIN};

    return poll(&fd, 1, timeout) == 1 && fd.revents == POLLIN;
}

static void called(tq_op *done, void *arg)
{
    (void)done;
    (void)arg;
    fail_msg("an op with a queue was called back");
}

static void completed_ops_are_taken_in_batches(void **state)
{
    enum {
        N = 8
    };
    tq_op *ops[N], *taken[N];
    int numbers[N], seen = 0;

    (void)state;
    assert_false(readable(queue, 0));
    assert_int_equal(tq_queue_take(queue, taken, N), 0);
    for (int i = 0; i < N; i++) {
        numbers[i] = i;
        ops[i] = tq_op_alloc(client, called, &numbers[i]);
        tq_op_set_queue(ops[i], queue);
        assert_int_equal(tq_list_partitions(ops[i]), TQ_OK);
    }
    for (int i = 0; i < N; i++) {
        assert_int_equal(tq_op_wait(ops[i]), TQ_OK); /* it can be waited for as well */
    }
    for (int n = 0; n < N; n += 3) {
        assert_true(readable(queue, 10000));
        size_t got = tq_queue_take(queue, taken, 3);
        assert_int_equal(got, N - n < 3 ? N - n : 3);
        for (size_t i = 0; i < got; i++) {
            seen |= 1 << *(int *)tq_op_arg(taken[i]);
            assert_int_equal(tq_op_error(taken[i])->code, TQ_OK);
        }
    }
    assert_int_equal(seen, (1 << N) - 1);
    assert_false(readable(queue, 0));
    for (int i = 0; i < N; i++) {
        tq_op_free(ops[i]);
    }
}

/* An op that is used again, or freed, before it is taken is in the queue once, or not at all. */
static void an_op_that_is_used_again_or_freed_is_not_taken(void **state)
{
    tq_op *again = tq_op_alloc(client, NULL, NULL), *gone = tq_op_alloc(client, NULL, NULL), *taken[4];

    (void)state;
    tq_op_set_queue(again, queue);
    tq_op_set_queue(gone, queue);
    expect_ok(again, tq_list_partitions(again));
    expect_ok(gone, tq_list_partitions(gone));
    expect_ok(again, tq_list_partitions(again));
    tq_op_free(gone);
    assert_true(readable(queue, 10000));
    assert_int_equal(tq_queue_take(queue, taken, 4), 1);
    assert_ptr_equal(taken[0], again);
    assert_false(readable(queue, 0));
    expect_ok(again, tq_list_partitions(again));
    tq_op_set_queue(again, NULL);
    assert_false(readable(queue, 0));
    tq_op_free(again);
}

static void a_cancelled_op_is_taken(void **state)
{
    const char *field = "x";
    const tq_claim_args claim = {
        .size = sizeof(claim),
        .partition = "nothing",
        .fields = &field,
        .n_fields = 1,
        .batch_size = 1,
        .task = "t",
    };
    tq_op *waits = tq_op_alloc(client, NULL, NULL), *taken;

    (void)state;
    tq_op_set_queue(waits, queue);
    assert_int_equal(tq_claim(waits, &claim), TQ_OK);
    assert_false(readable(queue, 0));
    tq_op_cancel(waits);
    assert_true(readable(queue, 10000));
    assert_int_equal(tq_queue_take(queue, &taken, 1), 1);
    assert_int_equal(tq_op_error(taken)->code, TQ_ECANCELED);
    tq_op_free(taken);
}

/* The program frees the queue first: its ops complete without it. */
static void ops_complete_without_a_queue_that_is_freed(void **state)
{
    tq_op *busy = tq_op_alloc(client, NULL, NULL), *done = tq_op_alloc(client, NULL, NULL);
    tq_queue *other;
    tq_error err = {0};

    (void)state;
    assert_int_equal(tq_queue_alloc(&other, &err), TQ_OK);
    tq_op_set_queue(busy, other);
    tq_op_set_queue(done, other);
    expect_ok(done, tq_list_partitions(done));
    assert_int_equal(tq_list_partitions(busy), TQ_OK);
    tq_queue_free(other);
    assert_int_equal(tq_op_wait(busy), TQ_OK);
    tq_op_free(busy);
    expect_ok(done, tq_list_partitions(done));
    tq_op_free(done);
}

/* Closing a client ends its ops; they can still be taken. */
static void ops_of_a_closed_client_are_taken(void **state)
{
    const char *field = "x";
    const tq_claim_args claim = {
        .size = sizeof(claim),
        .partition = "nothing",
        .fields = &field,
        .n_fields = 1,
        .batch_size = 1,
        .task = "t",
    };
    tq_client *other = system_open(&sys, 30);
    tq_op *waits = tq_op_alloc(other, NULL, NULL), *taken = NULL;

    (void)state;
    tq_op_set_queue(waits, queue);
    assert_int_equal(tq_claim(waits, &claim), TQ_OK);
    tq_client_close(other);
    assert_true(readable(queue, 10000));
    assert_int_equal(tq_queue_take(queue, &taken, 1), 1);
    assert_ptr_equal(taken, waits);
    assert_int_equal(tq_op_error(taken)->code, TQ_ECLOSED);
    tq_op_free(taken);
}

/* One thread takes and frees, as fast as it can, what others start. */
static void *take_all(void *arg)
{
    unsigned *left = arg;
    tq_op *taken[16];

    while (*left > 0) {
        if (readable(queue, 30000)) {
            size_t n = tq_queue_take(queue, taken, 16);
            for (size_t i = 0; i < n; i++) {
                tq_op_free(taken[i]);
            }
            *left -= (unsigned)n;
        }
    }
    return NULL;
}

static void one_thread_takes_and_frees_what_another_starts(void **state)
{
    unsigned left = 500;
    pthread_t taker;

    (void)state;
    assert_int_equal(pthread_create(&taker, NULL, take_all, &left), 0);
    for (int i = 0; i < 500; i++) {
        tq_op *made = tq_op_alloc(client, NULL, NULL);
        tq_op_set_queue(made, queue);
        assert_int_equal(tq_list_partitions(made), TQ_OK);
    }
    pthread_join(taker, NULL);
    assert_false(readable(queue, 0));
}

#ifndef TEST_NO_FORK
/* A child has a descriptor of its own: it neither sees nor takes the parent's wake-ups. */
static void a_child_has_its_own_descriptor(void **state)
{
    tq_op *before = tq_op_alloc(client, NULL, NULL), *taken[2];
    int status = -1, fd = tq_queue_fd(queue);

    (void)state;
    tq_op_set_queue(before, queue);
    expect_ok(before, tq_list_partitions(before));
    pid_t pid = fork();
    if (pid == 0) {
        alarm(30);
        tq_op *own = tq_op_alloc(client, NULL, NULL);
        int failed = !readable(queue, 10000) || tq_queue_take(queue, taken, 2) != 1 || readable(queue, 0);
        tq_op_set_queue(own, queue);
        failed = failed || tq_list_partitions(own) != TQ_OK || !readable(queue, 10000) ||
                 tq_queue_take(queue, taken, 2) != 1 || taken[0] != own || tq_op_error(own)->code != TQ_OK;
        tq_op_free(own);
        tq_client_close(client);
        tq_queue_free(queue);
        _exit(failed);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(tq_queue_fd(queue), fd);
    assert_true(readable(queue, 0)); /* as it was */
    assert_int_equal(tq_queue_take(queue, taken, 2), 1);
    assert_ptr_equal(taken[0], before);
    tq_op_free(before);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(completed_ops_are_taken_in_batches),
        cmocka_unit_test(an_op_that_is_used_again_or_freed_is_not_taken),
        cmocka_unit_test(a_cancelled_op_is_taken),
        cmocka_unit_test(ops_complete_without_a_queue_that_is_freed),
        cmocka_unit_test(ops_of_a_closed_client_are_taken),
        cmocka_unit_test(one_thread_takes_and_frees_what_another_starts),
#ifndef TEST_NO_FORK
        cmocka_unit_test(a_child_has_its_own_descriptor),
#endif
    };

    return cmocka_run_group_tests_name("queue", tests, set_up, tear_down);
}
