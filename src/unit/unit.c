/*
 * unit.c - life of a storage unit: its store, its server, its memory (see internal.h for the parts).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "unit/internal.h"

/* As much memory stays warm as was in use recently: in this interval or the previous one. The rest goes back to the
 * system, in steps that hold up nobody for long. */
#define UNIT_GIVE_STEP (UINT64_C(8) << 20)
#define UNIT_GIVE_MS   5u
/* Bytes warmed in one piece of work. */
#define UNIT_WARM_STEP (UINT64_C(16) << 20)

/* --- stores --------------------------------------------------------------- */

/* NULL with err set if there is no memory for it. */
static tqi_unit_store *unit_store_make(tqi_unit *unit, tq_error *err)
{
    tqi_unit_store *held = calloc(1, sizeof(*held));

    if (held == NULL) {
        tqi_error_nomem(err, "a store");
        return NULL;
    }
    if (tqi_store_alloc(&unit->store_options, &held->store, err) != TQ_OK) {
        free(held);
        return NULL;
    }
    held->unit = unit;
    held->refs = 1;
    if (tqi_store_unshared(held->store) != NULL) {
        tqi_log(TQI_WARN, "unit", "%s: memory cannot be shared here, all data goes over the stream: %s", unit->name,
                tqi_store_unshared(held->store));
    }
    return held;
}

void tqi_unit_store_unref(tqi_unit_store *held)
{
    if (--held->refs == 0) {
        tqi_store_free(held->store);
        free(held);
    }
}

/*
 * A new store, with its own memfds, rather than an emptied one: a writer of the old epoch in the middle of a copy then
 * writes into memory that nobody reads any more, and a reader with old locators finds an empty slot table, whatever
 * ids the new epoch hands out.
 */
int tqi_unit_renew(tqi_unit *unit, tq_error *err)
{
    tq_error why = {0};
    tqi_unit_store *fresh = unit_store_make(unit, &why);

    if (fresh == NULL) {
        return tqi_error_set(err, why.code, "%s", why.message);
    }
    tqi_unit_waits_fail(unit, TQ_ESTALE, "has started anew");
    tqi_unit_writers_forget(unit);
    tqi_store_drop_all(unit->store);
    tqi_store_trim(unit->store);
    tqi_unit_store_unref(unit->held);
    unit->held = fresh;
    unit->store = fresh->store;
    unit->incarnation = tqi_random_id();
    tqi_unit_tombs_clear(&unit->tombs);
    tqi_unit_compact_forget(unit);
    return TQ_OK;
}

/* --- warm memory ---------------------------------------------------------- */

static void unit_warm_start(tqi_unit *unit);

static void unit_warm_work(uv_work_t *work)
{
    tqi_unit *unit = work->data;

    unit->warm_left = tqi_store_warm(unit->warming->store, UNIT_WARM_STEP);
}

static void unit_warm_done(uv_work_t *work, int status)
{
    tqi_unit *unit = work->data;

    (void)status;
    tqi_unit_store_unref(unit->warming);
    unit->warming = NULL;
    if (unit->warm_left > 0 && !unit->closing) {
        unit_warm_start(unit);
    }
    tqi_unit_close_step(unit);
}

static void unit_warm_start(tqi_unit *unit)
{
    if (unit->warming != NULL || unit->closing || tqi_store_warm(unit->store, 0) == 0) {
        return;
    }
    unit->warm.data = unit;
    unit->warming = unit->held;
    unit->warming->refs++;
    unit->warm_left = 0;
    unit->open++;
    if (uv_queue_work(unit->loop, &unit->warm, unit_warm_work, unit_warm_done) != 0) {
        /* Warming only saves time. */
        tqi_unit_store_unref(unit->warming);
        unit->warming = NULL;
        unit->open--;
    }
}

static void unit_trim(uv_timer_t *timer)
{
    tqi_unit *unit = timer->data;
    uint64_t used = tqi_store_used(unit->store);
    uint64_t age = (tqi_now() - unit->peak_since) / 1000000;

    if (age >= unit->keep_ms) {
        unit->peak_before = unit->peak;
        unit->peak = used;
        unit->peak_since = tqi_now();
        age = 0;
    }
    uint64_t peak = unit->peak > unit->peak_before ? unit->peak : unit->peak_before;
    uint64_t given = 0;
    if (unit->warming == NULL) {
        given = tqi_store_give_back(unit->store, tqi_store_keeps(peak), UNIT_GIVE_STEP);
    }
    if (given > 0 || unit->warming != NULL) {
        uv_timer_start(timer, unit_trim, UNIT_GIVE_MS, 0);
    } else if (peak > used) {
        uv_timer_start(timer, unit_trim, unit->keep_ms - age, 0);
    }
}

void tqi_unit_changed(tqi_unit *unit)
{
    uint64_t used = tqi_store_used(unit->store);

    if (unit->closing) {
        return;
    }
    tqi_unit_reportable(unit);
    unit->peak = used > unit->peak ? used : unit->peak;
    if (!uv_is_active((uv_handle_t *)&unit->trim)) {
        unit->peak_since = tqi_now();
        uv_timer_start(&unit->trim, unit_trim, unit->keep_ms, 0);
    }
    unit_warm_start(unit);
}

/* --- open ----------------------------------------------------------------- */

/* Appends an endpoint as others reach it. */
static int unit_advertise(tqi_buf *list, const char *bound, const tqi_unit_options *options, tq_error *err)
{
    tqi_net_addresses found;
    char text[512];

    if (options->reach == NULL) {
        tqi_net_address_default(&found);
    }
    int code = tqi_net_endpoint_advertise(bound, options->advertise_host,
                                          options->reach != NULL ? options->reach : &found, text, sizeof(text), err);
    if (code == TQ_OK && tqi_buf_printf(list, "%s%s", list->size > 0 ? "," : "", text) != TQ_OK) {
        code = tqi_error_nomem(err, "an endpoint");
    }
    return code;
}

static int unit_listen(tqi_unit *unit, const tqi_unit_options *options, tq_error *err)
{
    tqi_net_server_options server = {.epoch = unit->incarnation, .token = options->token, .grace_ms = options->grace_ms};
    char machine[TQI_STORE_MACHINE], marks[64];
    const char *node = options->node != NULL ? options->node : "";
    uint64_t device = 0, inode = 0;
    tqi_buf list = {0};
    int code = tqi_net_server_alloc(unit->loop, &tqi_unit_service, unit, &server, &unit->server, err);

    if (code != TQ_OK) {
        return code;
    }
    unit->open++;
    for (size_t i = 0; i < options->n_listen; i++) {
        char bound[512];
        code = tqi_net_server_listen(unit->server, options->listen[i], bound, sizeof(bound), err);
        if (code == TQ_OK) {
            code = unit_advertise(&list, bound, options, err);
        }
        if (code != TQ_OK) {
            goto out;
        }
    }
    if (list.data == NULL || list.size == 0) {
        code = tqi_error_set(err, TQ_EINVAL, "unit '%s' has nothing to listen on", unit->name);
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
        code = tqi_error_nomem(err, "an endpoint");
        goto out;
    }
    unit->info = (char *)list.data;
    unit->info_size = list.size;
    memset(&list, 0, sizeof(list));

out:
    tqi_buf_fini(&list);
    return code;
}

static void unit_timer_init(tqi_unit *unit, uv_timer_t *timer)
{
    uv_timer_init(unit->loop, timer);
    timer->data = unit;
    unit->open++;
}

static void unit_free(tqi_unit *unit)
{
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
    int code = tqi_check_name("unit", options->name, TQ_NAME_MAX, err);

    if (code != TQ_OK) {
        return code;
    }
    tqi_unit *unit = calloc(1, sizeof(*unit));
    if (unit == NULL) {
        return tqi_error_nomem(err, "a storage unit");
    }
    unit->loop = loop;
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
    unit->held = unit_store_make(unit, &why);
    if (unit->held == NULL) {
        unit_free(unit);
        return tqi_error_set(err, why.code, "unit '%s': %s", options->name, why.message);
    }
    unit->store = unit->held->store;
    unit_timer_init(unit, &unit->retry);
    unit_timer_init(unit, &unit->report);
    unit_timer_init(unit, &unit->trim);
    unit_timer_init(unit, &unit->waits.timer);
    unit_timer_init(unit, &unit->compact.timer);
    unit_timer_init(unit, &unit->sift.timer);
    code = unit_listen(unit, options, err);
    if (code == TQ_OK) {
        code = tqi_unit_join(unit, options, err);
    }
    if (code != TQ_OK) {
        tqi_unit_close(unit, NULL, NULL);
        return code;
    }
    unit_warm_start(unit);
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

const char *tqi_unit_endpoint(const tqi_unit *unit)
{
    return unit->endpoint;
}

/* --- close ---------------------------------------------------------------- */

void tqi_unit_close_step(tqi_unit *unit)
{
    if (--unit->open > 0 || !unit->closing) {
        return;
    }
    void (*closed)(void *arg) = unit->closed;
    void *arg = unit->closed_arg;
    unit_free(unit);
    if (closed != NULL) {
        closed(arg);
    }
}

void tqi_unit_handle_closed(uv_handle_t *handle)
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
    unit->closed = done;
    unit->closed_arg = arg;
    unit->ready = NULL;
    tqi_unit_waits_fail(unit, TQ_ECANCELED, "is closing");
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
    uv_close((uv_handle_t *)&unit->retry, tqi_unit_handle_closed);
    uv_close((uv_handle_t *)&unit->report, tqi_unit_handle_closed);
    uv_close((uv_handle_t *)&unit->trim, tqi_unit_handle_closed);
    uv_close((uv_handle_t *)&unit->waits.timer, tqi_unit_handle_closed);
    uv_close((uv_handle_t *)&unit->compact.timer, tqi_unit_handle_closed);
    uv_close((uv_handle_t *)&unit->sift.timer, tqi_unit_handle_closed);
}
