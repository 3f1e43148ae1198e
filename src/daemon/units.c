/*
 * units.c - see units.h.
 *
 * The starting thread and a unit's thread share only: the unit's options (read-only while it runs), `stop` (an async
 * handle of the unit's loop) the counter of units that are ready, and, under a lock, why one was refused. Their
 * closing message is set before `stop` is sent.
 */
#include "daemon/units.h"

#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "unit/unit.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tq/types.h>
#include <unistd.h>

typedef struct units_one {
    tqd_units *all;
    char name[TQ_NAME_MAX + 1];
    tqd_listen listen;
    uv_thread_t thread;
    uv_loop_t loop;
    uv_async_t stop;
    tqi_unit *unit;
    bool started;
    bool was_ready;
} units_one;

struct tqd_units {
    tqd_units_options options;
    tqi_store_options store;
    uint64_t grace_ms;
    uint64_t keep_ms;
    bool says_goodbye;
    tqi_net_ending ending;
    char reason[256];
    size_t n;
    units_one *units;
    atomic_size_t n_ready;
    uv_async_t *ready_async; /* on the daemon's loop; freed by its own close callback */
    uv_mutex_t lock;
    tq_error refused; /* under the lock: the first one's */
    bool told;
    void (*ready)(const tq_error *err, void *arg);
    void *ready_arg;
};

static void units_run(void *arg)
{
    units_one *one = arg;

    uv_run(&one->loop, UV_RUN_DEFAULT);
}

static void units_closed(void *arg)
{
    (void)arg;
}

static void units_on_stop(uv_async_t *stop)
{
    units_one *one = stop->data;

    uv_close((uv_handle_t *)stop, NULL);
    if (one->unit != NULL) {
        if (one->all->says_goodbye) {
            tqi_unit_set_goodbye(one->unit, one->all->ending, one->all->reason);
        }
        tqi_unit_close(one->unit, units_closed, NULL);
        one->unit = NULL;
    }
}

static void units_on_unit_ready(void *arg)
{
    units_one *one = arg;

    if (!one->was_ready) {
        one->was_ready = true;
        if (atomic_fetch_add(&one->all->n_ready, 1) + 1 == one->all->n) {
            uv_async_send(one->all->ready_async);
        }
    }
}

static void units_on_refused(const tq_error *err, void *arg)
{
    units_one *one = arg;
    tqd_units *all = one->all;

    uv_mutex_lock(&all->lock);
    if (!all->refused.code) {
        tqi_error_set(&all->refused, err->code, "storage unit %s: %s", one->name, err->message);
    }
    uv_mutex_unlock(&all->lock);
    uv_async_send(all->ready_async);
}

static void units_on_all_ready(uv_async_t *async)
{
    tqd_units *all = async->data;

    uv_mutex_lock(&all->lock);
    tq_error err = all->refused;
    uv_mutex_unlock(&all->lock);
    if (!all->told) {
        all->told = true;
        all->ready(err.code ? &err : NULL, all->ready_arg);
    }
}

static void units_free_async(uv_handle_t *handle)
{
    free(handle);
}

static int units_start_one(tqd_units *all, size_t i, const char *prefix, tq_error *err)
{
    units_one *one = &all->units[i];
    int rc;

    one->all = all;
    snprintf(one->name, sizeof(one->name), "%s-%zu", prefix, i);
    rc = tqd_net_unit(all->options.net, all->options.runtime_dir, i, all->n, &one->listen, err);
    if (rc) {
        return rc;
    }
    if (uv_loop_init(&one->loop)) {
        return tqi_error_nomem(err, "storage unit");
    }
    const char *host = tqd_config_string(all->options.config, "storage.advertise_host");
    tqi_unit_options options = {
        .name = one->name,
        .controller = all->options.controller,
        .own_controller = all->options.net->join == NULL,
        .listen = one->listen.list,
        .n_listen = one->listen.n,
        .advertise_host = host != NULL ? host : all->options.net->advertise,
        .reach = &all->options.net->reach,
        .node = tqd_config_string(all->options.config, "storage.node"),
        .token = all->options.token,
        .token_file = all->options.token_file,
        .store = all->store,
        .grace_ms = all->grace_ms,
        .keep_ms = all->keep_ms,
    };
    rc = tqi_unit_alloc(&one->loop, &options, &one->unit, err);
    if (rc) {
        uv_run(&one->loop, UV_RUN_DEFAULT);
        uv_loop_close(&one->loop);
        return rc;
    }
    tqi_unit_on_ready(one->unit, units_on_unit_ready, one);
    tqi_unit_on_refused(one->unit, units_on_refused, one);
    uv_async_init(&one->loop, &one->stop, units_on_stop);
    one->stop.data = one;
    if (uv_thread_create(&one->thread, units_run, one)) {
        units_on_stop(&one->stop);
        uv_run(&one->loop, UV_RUN_DEFAULT);
        uv_loop_close(&one->loop);
        return tqi_error_set(err, TQ_EIO, "storage unit %s: cannot start its thread", one->name);
    }
    one->started = true;
    return TQ_OK;
}

/* "2.9 GiB" */
static const char *units_size(uint64_t bytes, char out[32])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double size = (double)bytes;
    size_t unit = 0;

    while (size >= 1024 && unit + 1 < sizeof(units) / sizeof(units[0])) {
        size /= 1024;
        unit++;
    }
    snprintf(out, 32, "%.*f %s", unit > 0, size, units[unit]);
    return out;
}

/* The most that storage may take, and of what: a pod's limit may be far below its host's memory. */
static void units_log_size(const tqd_units *all)
{
    tqi_memory memory = tqi_memory_limit();
    double share = 100.0 * (double)all->store.capacity * (double)all->n / (double)memory.bytes;
    char each[32], of[32];

    tqi_log(TQI_INFO, "tqd", "storage: %zu x %s (%.3g %% of %s, the %s)", all->n, units_size(all->store.capacity, each),
            share, units_size(memory.bytes, of), memory.of_cgroup ? "cgroup's limit" : "machine's memory");
    if (share > 100) {
        tqi_log(TQI_WARN, "tqd",
                "storage: %zu x %s are more than the %s of %s: backend.SimpleStorage."
                "total_storage_size should be less, or the kernel ends processes when it fills up",
                all->n, each, memory.of_cgroup ? "cgroup's limit" : "machine's memory", of);
    }
}

int tqd_units_start(uv_loop_t *loop, const tqd_units_options *options, void (*ready)(const tq_error *err, void *arg),
                    void *arg, tqd_units **out, tq_error *err)
{
    size_t n = (size_t)tqd_config_count(options->config, "backend.SimpleStorage.num_data_storage_units");
    tqd_units *all = calloc(1, sizeof(*all));
    char host[64] = "host";
    char prefix[TQ_NAME_MAX - 16];
    int rc;

    if (all == NULL || (all->units = calloc(n, sizeof(*all->units))) == NULL ||
        (all->ready_async = calloc(1, sizeof(uv_async_t))) == NULL || uv_mutex_init(&all->lock)) {
        free(all != NULL ? all->units : NULL);
        free(all != NULL ? all->ready_async : NULL);
        free(all);
        return tqi_error_nomem(err, "storage units");
    }
    all->options = *options;
    all->n = n;
    all->ready = ready;
    all->ready_arg = arg;
    all->store.capacity = tqd_config_bytes(options->config, "backend.SimpleStorage.total_storage_size") / n;
    all->grace_ms = (uint64_t)(tqd_config_seconds(options->config, "controller.session_grace") * 1000);
    all->keep_ms = (uint64_t)(tqd_config_seconds(options->config, "backend.SimpleStorage.keep_warm") * 1000);
    units_log_size(all);
    uv_async_init(loop, all->ready_async, units_on_all_ready);
    all->ready_async->data = all;
    uv_unref((uv_handle_t *)all->ready_async);

    const char *name = tqd_config_string(options->config, "storage.name");
    gethostname(host, sizeof(host) - 1);
    if (name != NULL) {
        snprintf(prefix, sizeof(prefix), "%s", name);
    } else if (options->alone) {
        snprintf(prefix, sizeof(prefix), "unit-%s-%d", host, (int)getpid());
    } else {
        snprintf(prefix, sizeof(prefix), "unit");
    }
    for (size_t i = 0; i < n; i++) {
        rc = units_start_one(all, i, prefix, err);
        if (rc) {
            tqd_units_stop(all);
            return rc;
        }
    }
    *out = all;
    return TQ_OK;
}

void tqd_units_set_goodbye(tqd_units *all, tqi_net_ending ending, const char *reason)
{
    all->says_goodbye = true;
    all->ending = ending;
    snprintf(all->reason, sizeof(all->reason), "%s", reason);
}

void tqd_units_stop(tqd_units *all)
{
    if (all == NULL) {
        return;
    }
    for (size_t i = 0; i < all->n; i++) {
        if (all->units[i].started) {
            uv_async_send(&all->units[i].stop);
        }
    }
    for (size_t i = 0; i < all->n; i++) {
        units_one *one = &all->units[i];
        if (!one->started) {
            continue;
        }
        uv_thread_join(&one->thread);
        if (uv_loop_close(&one->loop)) {
            tqi_log(TQI_WARN, "tqd", "storage unit %s left handles open", one->name);
        }
    }
    uv_close((uv_handle_t *)all->ready_async, units_free_async);
    uv_mutex_destroy(&all->lock);
    free(all->units);
    free(all);
}
