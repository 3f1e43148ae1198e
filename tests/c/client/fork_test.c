/*
 * fork_test.c - a client in a process that forks: parent and child both continue, each with its own session. The child
 * reports through its exit code; it ends with _exit, because the system's threads exist only in the parent.
 */
#include "testkit.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static test_system sys;
static tq_client *client;
static tq_op *op;

static int setup(void **state)
{
    (void)state;
    system_begin(&sys, 1, 8u << 20, 10, &client, &op);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    system_end(&sys, client, op);
    return 0;
}

static const char *const field = "x";

/* 0, or the place that failed: usable in the child, where nothing may assert. */
static int put_one(tq_op *with, const char *partition, int64_t value)
{
    tq_slice slice = {&value, sizeof(value)};
    tq_column column = {.name = field, .dtype = {TQ_INT, 64}, .rows = 1, .slices = &slice, .n_slices = 1};
    tq_put_args args = {.size = sizeof(args), .partition = partition, .n = 1, .columns = &column, .n_columns = 1};

    return tq_put(with, &args) == TQ_OK && tq_op_wait(with) == TQ_OK ? 0 : 1;
}

static int take_one(tq_op *with, const char *partition, int64_t value)
{
    tq_claim_args claim = {
        .size = sizeof(claim),
        .partition = partition,
        .fields = &field,
        .n_fields = 1,
        .batch_size = 1,
        .task = "t",
    };
    tq_meta *meta;
    int rc;

    if (tq_claim(with, &claim) != TQ_OK || tq_op_wait(with) != TQ_OK) {
        return 2;
    }
    meta = tq_meta_ref(tq_op_meta(with));
    rc = tq_get(with, meta, NULL, 0, NULL) == TQ_OK && tq_op_wait(with) == TQ_OK ? 0 : 3;
    tq_meta_unref(meta);
    if (rc == 0 && *(const int64_t *)tq_data_column_at(tq_op_data(with), 0)->data != value) {
        rc = 4;
    }
    return rc;
}

static void wait_child(pid_t pid)
{
    int status;

    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void parent_and_child_go_on(void **state)
{
    (void)state;
    assert_int_equal(put_one(op, "before", 1), 0);
    for (int i = 0; i < 5; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            tq_op *mine = tq_op_alloc(client, NULL, NULL);
            int rc = put_one(mine, "child", 10 + i);
            rc = rc ? rc : take_one(mine, "child", 10 + i);
            tq_op_free(mine);
            tq_client_close(client);
            _exit(rc);
        }
        assert_int_equal(put_one(op, "parent", i), 0);
        wait_child(pid);
        assert_int_equal(take_one(op, "parent", i), 0);
    }
    assert_int_equal(take_one(op, "before", 1), 0);
}

/* An op that was in flight stays the parent's: the child may free it, and the parent gets its end.
 * */
static void an_op_in_flight_stays_the_parents(void **state)
{
    tq_claim_args claim = {
        .size = sizeof(claim),
        .partition = "flight",
        .fields = &field,
        .n_fields = 1,
        .batch_size = 1,
        .task = "t",
    };
    tq_op *waiting = tq_op_alloc(client, NULL, NULL);
    pid_t pid;

    (void)state;

    assert_int_equal(tq_claim(waiting, &claim), TQ_OK);
    pid = fork();
    if (pid == 0) {
        int rc = tq_op_done(waiting) ? 5 : 0;
        rc = rc ? rc : tq_op_wait(waiting) == TQ_ECLOSED ? 0 : 6;
        tq_op_cancel(waiting); /* must not reach the parent's claim */
        tq_op_free(waiting);
        rc = rc ? rc : put_one(op, "other", 3);
        tq_op_free(op);
        tq_client_close(client);
        _exit(rc);
    }
    wait_child(pid);
    assert_false(tq_op_done(waiting));
    assert_int_equal(put_one(op, "flight", 8), 0);
    assert_int_equal(tq_op_wait(waiting), TQ_OK);
    assert_int_equal(tq_meta_sample_count(tq_op_meta(waiting)), 1);
    tq_op_free(waiting);
}

/* Forks while other threads use the client. */
static atomic_bool stop;

static void *busy_thread(void *arg)
{
    tq_op *mine = tq_op_alloc(client, NULL, NULL);
    intptr_t failed = 0;

    while (!atomic_load(&stop)) {
        failed += put_one(mine, arg, 5) != 0;
        failed += take_one(mine, arg, 5) != 0;
    }
    tq_op_free(mine);
    return (void *)failed;
}

static void a_busy_process_forks(void **state)
{
    pthread_t threads[2];
    void *failed;

    (void)state;

    atomic_store(&stop, false);
    pthread_create(&threads[0], NULL, busy_thread, "busy-a");
    pthread_create(&threads[1], NULL, busy_thread, "busy-b");
    for (int i = 0; i < 10; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            tq_op *mine = tq_op_alloc(client, NULL, NULL);
            int rc = put_one(mine, "busy-child", i);
            rc = rc ? rc : take_one(mine, "busy-child", i);
            tq_op_free(mine);
            tq_client_close(client);
            _exit(rc);
        }
        wait_child(pid);
    }
    atomic_store(&stop, true);
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
}

/* A child that never uses the client just ends. */
static void a_child_that_uses_nothing_ends(void **state)
{
    pid_t pid;

    (void)state;
    pid = fork();
    if (pid == 0) {
        tq_client_close(client);
        _exit(0);
    }
    wait_child(pid);
    assert_int_equal(put_one(op, "unused", 1), 0);
    assert_int_equal(take_one(op, "unused", 1), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(parent_and_child_go_on, setup, teardown),
        cmocka_unit_test_setup_teardown(an_op_in_flight_stays_the_parents, setup, teardown),
        cmocka_unit_test_setup_teardown(a_busy_process_forks, setup, teardown),
        cmocka_unit_test_setup_teardown(a_child_that_uses_nothing_ends, setup, teardown),
    };

    return cmocka_run_group_tests_name("client_fork", tests, NULL, NULL);
}
