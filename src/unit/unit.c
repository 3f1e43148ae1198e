/*
 * unit.c - life of a storage unit: what it opens, and what closing waits for (see unit_state.h for the parts).
 */
#include "unit/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/error.h"
#include "unit/compact.h"
#include "unit/memory.h"
#include "unit/unit_state.h"
#include "unit/wait.h"
#include "unit/writers.h"

#include <tq/types.h>

/* --- open ----------------------------------------------------------------- */

/* Appends an endpoint as others reach it. */
static int unit_advertise(tqi_buf *list, const char *bound, const tqi_unit_options *options, tq_error *err)
{
    tqi_net_addresses found;
    char text[512];

    if (options->reach == NULL) {
        tqi_net_address_default(&found);
    }
    int rc = tqi_net_endpoint_advertise(bound, options->advertise_host,
                                        options->reach != NULL ? options->reach : &found, text, sizeof(text), err);
    if (rc == TQ_OK && tqi_buf_printf(list, "%s%s", list->size > 0 ? "," : "", text) != TQ_OK) {
        rc = tqi_error_nomem(err, "an endpoint");
    }
    return rc;
}

static int unit_listen(tqi_unit *unit, const tqi_unit_options *options, tq_error *err)
{
    tqi_net_server_options server = {.epoch = unit->incarnation, .token = options->token, .grace_ms = options->grace_ms};
    char machine[TQI_STORE_MACHINE], marks[64];
    const char *node = options->node != NULL ? options->node : "";
    uint64_t device = 0, inode = 0;
    tqi_buf list = {0};
    int rc = tqi_net_server_alloc(unit->loop, &tqi_unit_service, unit, &server, &unit->server, err);

    if (rc != TQ_OK) {
        return rc;
    }
    unit->open++;
    for (size_t i = 0; i < options->n_listen; i++) {
        char bound[512];
        rc = tqi_net_server_listen(unit->server, options->listen[i], bound, sizeof(bound), err);
        if (rc == TQ_OK) {
            rc = unit_advertise(&list, bound, options, err);
        }
        if (rc != TQ_OK) {
            goto out;
        }
    }
    if (list.data == NULL || list.size == 0) {
        rc = tqi_error_set(err, TQ_EINVAL, "unit '%s' has nothing to listen on", unit->name);
        goto out;
    }
    /* These tell a client whether a path or an address leads to this unit. */
    tqi_net_server_socket(unit->server, &device, &inode);
    snprintf(marks, sizeof(marks), "%llx %llx %llx", (unsigned long long)tqi_net_server_id(unit->server),
             (unsigned long long)device, (unsigned long long)inode);
    tqi_store_machine(machine);
    unit->endpoint = strdup((const char *)list.data);
    if (unit->endpoint == NULL || tqi_buf_append(&list, "", 1) != TQ_OK ||
        tqi_buf_append(&list, machine, strlen(machine) + 1) != TQ_OK ||
        tqi_buf_append(&list, marks, strlen(marks) + 1) != TQ_OK || tqi_buf_append(&list, node, strlen(node)) != TQ_OK) {
        rc = tqi_error_nomem(err, "an endpoint");
        goto out;
    }
    unit->info = (char *)list.data;
    unit->info_size = list.size;
    memset(&list, 0, sizeof(list));

out:
    tqi_buf_fini(&list);
    return rc;
}

static void unit_timer_init(tqi_unit *unit, uv_timer_t *timer)
{
    uv_timer_init(unit->loop, timer);
    timer->data = unit;
    unit->open++;
}

static void unit_free(tqi_unit *unit)
{
    tqi_unit_compact_close(unit);
    if (unit->held != NULL) {
        tqi_unit_store_unref(unit->held);
    }
    tqi_unit_compact_fini(unit);
    free(unit->name);
    free(unit->endpoint);
    free(unit->info);
    free(unit->token_file);
    free(unit);
}

int tqi_unit_alloc(uv_loop_t *loop, const tqi_unit_options *options, tqi_unit **out, tq_error *err)
{
    if (options->name == NULL) {
        return tqi_error_set(err, TQ_ENAME, "a storage unit needs a name");
    }
    int rc = tqi_check_name("unit", options->name, TQ_NAME_MAX, err);

    if (rc != TQ_OK) {
        return rc;
    }
    tqi_unit *unit = calloc(1, sizeof(*unit));
    if (unit == NULL) {
        return tqi_error_nomem(err, "a storage unit");
    }
    unit->loop = loop;
    unit->compact.begin = tqi_unit_compact_timer;
    unit->store_options = options->store;
    unit->incarnation = tqi_random_id();
    unit->keep_ms = options->keep_ms;
    tqi_random(unit->key, sizeof(unit->key));
    unit->name = strdup(options->name);
    unit->token = options->token != NULL ? *options->token : (tqi_net_token){0};
    unit->token_file = options->token_file != NULL ? strdup(options->token_file) : NULL;
    if (unit->name == NULL || (options->token_file != NULL && unit->token_file == NULL)) {
        unit_free(unit);
        return tqi_error_nomem(err, "a storage unit");
    }
    tq_error why = {0};
    unit->held = tqi_unit_store_make(unit, &why);
    if (unit->held == NULL) {
        unit_free(unit);
        return tqi_error_set(err, why.code, "unit '%s': %s", options->name, why.message);
    }
    unit->store = unit->held->store;
    unit_timer_init(unit, &unit->retry);
    unit_timer_init(unit, &unit->report);
    unit_timer_init(unit, &unit->trim);
    unit_timer_init(unit, &unit->waits.waiters.timer);
    tqi_unit_waits_init(unit);
    unit_timer_init(unit, &unit->compact.timer);
    unit_timer_init(unit, &unit->sift.timer);
    rc = unit_listen(unit, options, err);
    if (rc == TQ_OK) {
        rc = tqi_unit_join(unit, options, err);
    }
    if (rc != TQ_OK) {
        tqi_unit_close(unit, NULL, NULL);
        return rc;
    }
    tqi_unit_warm(unit);
    *out = unit;
    return TQ_OK;
}

void tqi_unit_on_ready(tqi_unit *unit, void (*fn)(void *arg), void *arg)
{
    unit->ready = fn;
    unit->ready_arg = arg;
}

void tqi_unit_on_refused(tqi_unit *unit, void (*fn)(const tq_error *err, void *arg), void *arg)
{
    unit->refused = fn;
    unit->refused_arg = arg;
}

const char *tqi_unit_endpoint_for_tests(const tqi_unit *unit)
{
    return unit->endpoint;
}

/* --- close ---------------------------------------------------------------- */

/* The last of its parts has been closed. */
static void unit_end(tqi_unit *unit)
{
    void (*closed)(void *arg) = unit->closed;
    void *arg = unit->closed_arg;

    unit_free(unit);
    if (closed != NULL) {
        closed(arg);
    }
}

static void unit_handle_closed(uv_handle_t *handle)
{
    tqi_unit_close_step(handle->data);
}

static void unit_part_closed(void *arg)
{
    tqi_unit_close_step(arg);
}

void tqi_unit_set_goodbye(tqi_unit *unit, tqi_net_ending ending, const char *reason)
{
    char who[TQ_NAME_MAX + 32];

    snprintf(who, sizeof(who), "storage unit '%s'", unit->name);
    tqi_net_server_set_goodbye(unit->server, ending, who, reason);
}

void tqi_unit_close(tqi_unit *unit, void (*done)(void *arg), void *arg)
{
    unit->closing = true;
    unit->end = unit_end;
    unit->closed = done;
    unit->closed_arg = arg;
    unit->ready = NULL;
    tqi_unit_waits_fail(unit, TQ_EUNREACHABLE, "is closing"); /* its clients go elsewhere */
    if (unit->controller != NULL) {
        tqi_net_channel_unref(unit->controller);
        unit->controller = NULL;
    }
    if (unit->connector != NULL) {
        unit->open++;
        tqi_net_connector_close(unit->connector, unit_part_closed, unit);
    }
    if (unit->server != NULL) {
        tqi_net_server_close(unit->server, unit_part_closed, unit);
    }
    tqi_unit_writers_close(unit);
    uv_close((uv_handle_t *)&unit->retry, unit_handle_closed);
    uv_close((uv_handle_t *)&unit->report, unit_handle_closed);
    uv_close((uv_handle_t *)&unit->trim, unit_handle_closed);
    uv_close((uv_handle_t *)&unit->waits.waiters.timer, unit_handle_closed);
    uv_close((uv_handle_t *)&unit->compact.timer, unit_handle_closed);
    uv_close((uv_handle_t *)&unit->sift.timer, unit_handle_closed);
}
