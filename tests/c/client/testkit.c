/*
 * testkit.c - see testkit.h.
 */
#include "testkit.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#include "controller/controller.h"
#include "unit/unit.h"

struct system_thread {
    uv_thread_t thread;
    uv_loop_t loop;
    uv_async_t stop;
    tqi_controller *controller;
    tqi_unit *unit;
    pthread_mutex_t lock;
    pthread_cond_t ready;
    bool is_ready;
};

static void system_closed(void *arg)
{
    (void)arg;
}

static void system_on_stop(uv_async_t *async)
{
    system_thread *t = async->data;

    if (t->controller != NULL) {
        tqi_controller_close(t->controller, system_closed, NULL);
    }
    if (t->unit != NULL) {
        tqi_unit_close(t->unit, system_closed, NULL);
    }
    uv_close((uv_handle_t *)async, NULL);
}

static void system_on_ready(void *arg)
{
    system_thread *t = arg;

    pthread_mutex_lock(&t->lock);
    t->is_ready = true;
    pthread_cond_broadcast(&t->ready);
    pthread_mutex_unlock(&t->lock);
}

static void system_run(void *arg)
{
    system_thread *t = arg;

    uv_run(&t->loop, UV_RUN_DEFAULT);
}

static system_thread *system_thread_make(void)
{
    system_thread *t = calloc(1, sizeof(*t));

    assert_non_null(t);
    assert_int_equal(uv_loop_init(&t->loop), 0);
    assert_int_equal(uv_async_init(&t->loop, &t->stop, system_on_stop), 0);
    t->stop.data = t;
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->ready, NULL);
    return t;
}

static void system_thread_end(system_thread *t)
{
    uv_async_send(&t->stop);
    uv_thread_join(&t->thread);
    assert_int_equal(uv_loop_close(&t->loop), 0);
    pthread_mutex_destroy(&t->lock);
    pthread_cond_destroy(&t->ready);
    free(t);
}

static void system_token(tqi_net_token *token)
{
    memset(token, 0, sizeof(*token));
    token->size = strlen(SYSTEM_TOKEN);
    memcpy(token->bytes, SYSTEM_TOKEN, token->size);
}

static void system_add_unit(test_system *sys, uint64_t capacity)
{
    tq_error err = {0};
    tqi_net_token token;
    char name[32];
    char listen_on[128];
    const char *listen[1] = {listen_on};
    tqi_unit_options options = {
        .name = name,
        .controller = sys->address,
        .listen = listen,
        .n_listen = 1,
        .token = &token,
        .store = {.capacity = capacity},
        .grace_ms = 1000,
        .keep_ms = 5000,
    };
    system_thread *t = system_thread_make();

    system_token(&token);
    snprintf(name, sizeof(name), "unit-%u", sys->n_units);
    snprintf(listen_on, sizeof(listen_on), "unix:%s/unit-%u.sock", sys->dir, sys->n_units);
    assert_int_equal(tqi_unit_alloc(&t->loop, &options, &t->unit, &err), TQ_OK);
    tqi_unit_on_ready(t->unit, system_on_ready, t);
    assert_int_equal(uv_thread_create(&t->thread, system_run, t), 0);
    pthread_mutex_lock(&t->lock);
    while (!t->is_ready) {
        pthread_cond_wait(&t->ready, &t->lock);
    }
    pthread_mutex_unlock(&t->lock);
    sys->units[sys->n_units++] = t;
}

void system_start(test_system *sys, unsigned units, uint64_t capacity)
{
    tq_error err = {0};
    tqi_net_token token;
    const char *listen[1] = {sys->address};
    tqi_controller_options options = {
        .listen = listen,
        .n_listen = 1,
        .token = &token,
        .grace_ms = 1000,
        .owner_timeout_ms = 300,
        .write_deadline_ms = 50,
        .manager = "SimpleStorage",
        .manager_config = "{}",
        .config = "{\"test\": true}",
    };

    memset(sys, 0, sizeof(*sys));
    system_token(&token);
    snprintf(sys->dir, sizeof(sys->dir), "/tmp/tq-client-XXXXXX");
    assert_non_null(mkdtemp(sys->dir));
    snprintf(sys->address, sizeof(sys->address), "unix:%s/controller.sock", sys->dir);
    sys->controller = system_thread_make();
    assert_int_equal(tqi_controller_alloc(&sys->controller->loop, &options, &sys->controller->controller, &err), TQ_OK);
    assert_int_equal(uv_thread_create(&sys->controller->thread, system_run, sys->controller), 0);
    for (unsigned i = 0; i < units; i++) {
        system_add_unit(sys, capacity);
    }
}

void system_stop_unit(test_system *sys, unsigned unit)
{
    if (sys->units[unit] != NULL) {
        system_thread_end(sys->units[unit]);
        sys->units[unit] = NULL;
    }
}

void system_stop(test_system *sys)
{
    for (unsigned i = 0; i < sys->n_units; i++) {
        system_stop_unit(sys, i);
    }
    system_thread_end(sys->controller);
    rmdir(sys->dir);
}

tq_client *system_open(const test_system *sys, double timeout)
{
    tq_error err = {0};
    tq_client *client = NULL;
    tq_client_options options = {
        .size = sizeof(options),
        .address = sys->address,
        .token = SYSTEM_TOKEN,
        .timeout = timeout,
    };

    if (tq_client_open(&options, &client, &err) != TQ_OK) {
        fail_msg("open: %s: %s", tq_error_name(err.code), err.message);
    }
    return client;
}

void system_begin(test_system *sys, unsigned units, uint64_t capacity, double timeout, tq_client **client, tq_op **op)
{
    system_start(sys, units, capacity);
    *client = system_open(sys, timeout);
    *op = tq_op_alloc(*client, NULL, NULL);
    assert_non_null(*op);
}

void system_end(test_system *sys, tq_client *client, tq_op *op)
{
    tq_op_free(op);
    tq_client_close(client);
    system_stop(sys);
}

void expect_ok(tq_op *op, int started)
{
    if (started != TQ_OK || tq_op_wait(op) != TQ_OK) {
        fail_msg("%s: %s", tq_error_name(tq_op_error(op)->code), tq_op_error(op)->message);
    }
}

void expect_error(tq_op *op, int started, int rc, const char *text)
{
    if (started == TQ_OK) {
        started = tq_op_wait(op);
    }
    if (started != rc || strstr(tq_op_error(op)->message, text) == NULL) {
        fail_msg("expected %s with '%s', given %s: %s", tq_error_name(rc), text, tq_error_name(started),
                 tq_op_error(op)->message);
    }
}

tq_meta *put_numbers(tq_op *op, const char *partition, const char *field, size_t n, int64_t base, const tq_meta *meta)
{
    int64_t *values = malloc(n * sizeof(*values));
    tq_slice slice = {values, n * sizeof(*values)};
    tq_column column = {.name = field, .dtype = {TQ_INT, 64}, .rows = n, .slices = &slice, .n_slices = 1};
    tq_put_args args = {
        .size = sizeof(args),
        .partition = meta != NULL ? NULL : partition,
        .meta = meta,
        .n = n,
        .columns = &column,
        .n_columns = 1,
    };

    for (size_t i = 0; i < n; i++) {
        values[i] = base + (int64_t)i;
    }
    expect_ok(op, tq_put(op, &args));
    free(values);
    return tq_meta_ref(tq_op_meta(op));
}

void check_numbers(tq_op *op, const tq_meta *meta, const char *field, size_t n, int64_t base)
{
    const tq_data_column *column;

    expect_ok(op, tq_get(op, meta, &field, 1, NULL));
    assert_int_equal(tq_data_row_count(tq_op_data(op)), n);
    column = tq_data_column_at(tq_op_data(op), 0);
    assert_string_equal(column->name, field);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(((const int64_t *)column->data)[i], base + (int64_t)i);
    }
}
