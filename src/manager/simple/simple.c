/*
 * simple.c - the table of the simple storage manager.
 */
#include <stdlib.h>
#include <string.h>

#include <jansson.h>

#include "base/clock.h"
#include "config_backends.h"
#include "manager/simple/put.h"

/* --- open, close ---------------------------------------------------------- */

/* Keys of the daemon that runs the units. */
static const char *const simple_keys[] = {"total_storage_size", "num_data_storage_units", "keep_warm"};

static bool simple_knows(const char *key)
{
    for (size_t i = 0; i < sizeof(simple_keys) / sizeof(simple_keys[0]); i++) {
        if (strcmp(key, simple_keys[i]) == 0) {
            return true;
        }
    }
    return false;
}

static int simple_config(const char *config, tq_error *err)
{
    json_error_t where;
    json_t *root = json_loads(config != NULL && config[0] != 0 ? config : "{}", 0, &where);
    const char *key;
    json_t *value;
    int rc = TQ_OK;

    if (root == NULL) {
        return tqi_error_set(err, TQ_ECONFIG, "config of SimpleStorage: line %d: %s", where.line, where.text);
    }
    if (!json_is_object(root)) {
        rc = tqi_error_set(err, TQ_ECONFIG, "config of SimpleStorage: a JSON object is expected");
    }
    json_object_foreach(root, key, value)
    {
        if (!simple_knows(key)) {
            tqi_log(TQI_WARN, "client", "config of SimpleStorage: unknown key '%s' is ignored", key);
        }
    }
    json_decref(root);
    return rc;
}

/* A new session at the controller does not own the grants of the previous one. */
static void simple_session(tqi_net_channel *channel, uint64_t epoch, bool fresh, void *arg)
{
    tqi_simple *simple = arg;

    (void)channel;
    (void)epoch;
    if (fresh) {
        simple->session++;
        tqi_simple_puts_new_session(simple);
    }
}

static void simple_open(void *state, tq_manager_host *host, const char *config,
                        void (*opened)(const tq_error *err, void *arg), void *arg)
{
    tqi_simple *simple = state;
    tqi_manager_internal *internal = host->internal;
    tq_error err = {0};

    if (internal == NULL) {
        tqi_error_set(&err, TQ_EUNSUPPORTED, "SimpleStorage works inside libtq only");
        opened(&err, arg);
        return;
    }
    if (simple_config(config, &err) != TQ_OK) {
        opened(&err, arg);
        return;
    }
    if (internal->node != NULL && (simple->node = strdup(internal->node)) == NULL) {
        tqi_error_nomem(&err, "the storage manager");
        opened(&err, arg);
        return;
    }
    if (internal->controller != NULL &&
        tqi_net_channel_on_open(internal->controller, simple_session, simple, &err) != TQ_OK) {
        opened(&err, arg);
        return;
    }
    simple->host = host;
    simple->connector = internal->connector;
    simple->controller = internal->controller;
    simple->listed = tqi_simple_puts_listed;
    /* so that many clients do not begin at the same unit */
    simple->turn = (uint32_t)tqi_random_id();
    tqi_store_machine(simple->machine);
    uv_timer_init(internal->loop, &simple->stock_timer);
    simple->stock_timer.data = simple;
    uv_timer_init(internal->loop, &simple->wait_timer);
    simple->wait_timer.data = simple;
    internal->stop = tqi_simple_stop;
    internal->borrow = tqi_simple_borrow;
    internal->give_back = tqi_simple_give_back;
    opened(NULL, arg);
}

static void simple_stock_closed(uv_handle_t *handle)
{
    tqi_simple *simple = handle->data;

    simple->closed(simple->closed_arg);
}

static void simple_wait_closed(uv_handle_t *handle)
{
    tqi_simple *simple = handle->data;

    uv_close((uv_handle_t *)&simple->stock_timer, simple_stock_closed);
}

static void simple_close(void *state, void (*closed)(void *arg), void *arg)
{
    tqi_simple *simple = state;
    tqi_simple_query *query, *next_query;

    DL_FOREACH_SAFE (simple->queries, query, next_query) {
        DL_DELETE(simple->queries, query);
        query->simple = NULL;
    }
    tqi_simple_borrow_fini(simple);
    tqi_simple_units_fini(simple);
    free(simple->node);
    simple->closed = closed;
    simple->closed_arg = arg;
    uv_close((uv_handle_t *)&simple->wait_timer, simple_wait_closed);
}

/* The arenas were not inherited; their descriptors were. */
static void simple_forked(void *state)
{
    tqi_simple *simple = state;
    tqi_simple_mapping *mapping;

    DL_FOREACH (simple->mappings, mapping) {
        tqi_store_map_forked(&mapping->map);
    }
}

const tq_storage_manager tqi_simple_manager = {
    .abi = TQ_MANAGER_ABI,
    .type = TQI_BACKEND_SIMPLESTORAGE,
    .state_size = sizeof(tqi_simple),
    .open = simple_open,
    .close = simple_close,
    .put = tqi_simple_put,
    .cancel = tqi_simple_cancel,
    .get = tqi_simple_get,
    .forked = simple_forked,
};
