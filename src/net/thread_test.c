/*
 * thread_test.c - client and server on loops of two threads, for the thread sanitizer; a fork on a third.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "net/testkit.h"

typedef struct server_thread {
    uv_thread_t thread;
    uv_loop_t loop;
    uv_sem_t ready;
    uv_async_t stop;
    char endpoint[128];
    testing_server server;
} server_thread;

static void on_stop(uv_async_t *async)
{
    server_thread *t = async->data;

    uv_close((uv_handle_t *)async, NULL);
    tqi_net_server_close(t->server.server, NULL, NULL);
}

static void serve(void *arg)
{
    server_thread *t = arg;
    tqi_net_server_options options = {.epoch = 1, .token = &testing_token, .grace_ms = 1000};

    assert_int_equal(uv_loop_init(&t->loop), 0);
    uv_async_init(&t->loop, &t->stop, on_stop);
    t->stop.data = t;
    assert_int_equal(tqi_net_server_alloc(&t->loop, &testing_service, &t->server, &options, &t->server.server, NULL),
                     TQ_OK);
    assert_int_equal(tqi_net_server_listen(t->server.server, t->endpoint, NULL, 0, NULL), TQ_OK);
    uv_sem_post(&t->ready);
    uv_run(&t->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&t->loop), 0);
}

typedef struct fork_thread {
    uv_thread_t thread;
    tqi_net_connector *connector;
    int status;
} fork_thread;

static void fork_once(void *arg)
{
    fork_thread *f = arg;
    pid_t child = fork();

    if (child == 0) {
        tqi_net_connector_forked(f->connector);
        _exit(0);
    }
    f->status = -1;
    waitpid(child, &f->status, 0);
}

static void two_threads_exchange_and_a_third_forks(void **state)
{
    (void)state;
    enum {
        N = 2000,
        SIZE = 1 << 20
    };
    server_thread *t = calloc(1, sizeof(*t));
    assert_non_null(t);
    uv_sem_init(&t->ready, 0);
    snprintf(t->endpoint, sizeof(t->endpoint), "%s", testing_unix_endpoint());
    assert_int_equal(uv_thread_create(&t->thread, serve, t), 0);
    uv_sem_wait(&t->ready);
    tqi_net_connector *connector = testing_connector(&testing_token, 0);
    tqi_net_channel *channel = testing_channel(connector, t->endpoint);
    testing_call *calls = calloc(N, sizeof(*calls));
    uint8_t *bytes = malloc(SIZE);
    assert_non_null(calls);
    assert_non_null(bytes);
    fork_thread forking = {.connector = connector};
    testing_reserve(channel, &calls[0], 0, 10);
    testing_until(&calls[0].done, 1);
    assert_int_equal(uv_thread_create(&forking.thread, fork_once, &forking), 0);
    for (uint32_t i = 1; i < N; i++) {
        testing_reserve(channel, &calls[i], i, 20);
        if (i % 100 == 0) {
            testing_until(&calls[i].done, 1);
        }
    }
    testing_call reading = {.buffer = bytes, .buffer_size = SIZE};
    testing_read(channel, &reading, SIZE, 20);
    testing_until(&reading.done, 1);
    for (size_t i = 0; i < SIZE; i++) {
        assert_int_equal(bytes[i], testing_byte(i));
    }
    for (int i = 0; i < N; i++) {
        assert_int_equal(calls[i].status, TQ_OK);
    }
    uv_thread_join(&forking.thread);
    assert_int_equal(forking.status, 0);
    testing_connector_stop(connector);
    uv_async_send(&t->stop);
    uv_thread_join(&t->thread);
    assert_int_equal(t->server.executions, N);
    assert_int_equal(t->server.settled_acked, N);
    uv_sem_destroy(&t->ready);
    free(t);
    free(calls);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(two_threads_exchange_and_a_third_forks, testing_setup, testing_teardown),
    };

    return cmocka_run_group_tests_name("net_thread", tests, NULL, NULL);
}
