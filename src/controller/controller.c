/*
 * controller.c - life cycle of the controller, its sessions, and dispatch of requests to their handlers.
 */
#include "controller/controller.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/error.h"
#include "config_keys.h"
#include "controller/controller_state.h"
#include "controller/events.h"
#include "controller/handlers.h"
#include "controller/meter.h"
#include "controller/owners.h"
#include "controller/session.h"
#include "controller/snapshots.h"
#include "controller/two_phase_clear.h"
#include "controller/wake.h"
#include "sampler/sampler.h"

#define CTL_FIRST_KIND TQI_PUBLISH

/* --- requests ------------------------------------------------------------- */

/* Wraps a handler in the signature that all of them share. */
typedef int (*ctl_handler)(tqi_controller *ctl, tqi_net_request *request, const ProtobufCMessage *message,
                           tq_error *err);

#define CTL_ENTRY(number, NAME, method, Message, reply, Reply, mode)                                              \
    static int ctl_entry_##method(tqi_controller *ctl, tqi_net_request *request, const ProtobufCMessage *message, \
                                  tq_error *err)                                                                  \
    {                                                                                                             \
        return tqi_ctl_on_##method(ctl, request, (const Tq__##Message *)message, err);                            \
    }
TQI_METHODS_CONTROLLER(CTL_ENTRY)
#undef CTL_ENTRY

#define CTL_ROW(number, NAME, method, Message, reply, Reply, mode) [(number)-CTL_FIRST_KIND] = ctl_entry_##method,
static const ctl_handler ctl_handlers[] = {TQI_METHODS_CONTROLLER(CTL_ROW)};
#undef CTL_ROW

static ctl_handler ctl_find(uint16_t kind)
{
    size_t place = (size_t)kind - CTL_FIRST_KIND;

    return kind >= CTL_FIRST_KIND && place < sizeof(ctl_handlers) / sizeof(*ctl_handlers) ? ctl_handlers[place] : NULL;
}

static bool ctl_serves(uint16_t kind, void *ctx)
{
    (void)ctx;
    return ctl_find(kind) != NULL;
}

static void ctl_handle(tqi_net_request *request, const ProtobufCMessage *message, void *ctx)
{
    tqi_controller *ctl = ctx;
    tq_error err = {0};
    uint64_t since = tqi_ctl_meter_now(ctl->meter);
    tqi_ctl_meter_op *op = tqi_ctl_meter_op_of(ctl->meter, tqi_net_request_kind(request), message);

    ctl->held++;
    int rc = tqi_ctl_drain_refuse(ctl, tqi_net_request_kind(request), &err);
    if (rc == TQ_OK) {
        rc = ctl_find(tqi_net_request_kind(request))(ctl, request, message, &err);
    }
    if (rc) {
        if (err.code == TQ_OK) {
            tqi_error_set(&err, rc, "request failed");
        }
        tqi_net_request_fail(request, &err);
        tqi_ctl_meter_failed(op, rc);
    }
    ctl->held--;
    tqi_ctl_wake(ctl);
    tqi_ctl_meter_handled(op, since);
    tqi_ctl_drain_look(ctl);
}

/* --- sessions ------------------------------------------------------------- */

static int ctl_session_open(tqi_net_session *net, void *ctx)
{
    tqi_controller *ctl = ctx;
    tqi_ctl_session *session = calloc(1, sizeof(*session));

    if (session == NULL) {
        return TQ_ENOMEM;
    }
    session->number = ++ctl->last_session;
    session->net = net;
    tqi_net_session_set_user(net, session);
    tqi_ctl_event_add(ctl, &(tqi_ctl_happened){.kind = "join", .session = tqi_net_session_name(net)});
    tqi_ctl_wake(ctl);
    return TQ_OK;
}

static void ctl_session_end(tqi_net_session *net, bool dead, void *ctx)
{
    tqi_controller *ctl = ctx;
    tqi_ctl_session *session = tqi_net_session_user(net);

    tqi_ctl_snapshots_leave(ctl, session);
    tqi_ctl_restores_leave(ctl, session);
    tqi_ctl_clearings_leave(ctl, session);
    tqi_ctl_owners_leave(ctl, session, dead || tqi_net_session_left(net));
    tqi_table_session_end(ctl->table, session->number, dead);
    /* How the session ended, as far as known: it was closed, its process exited without closing it, or it fell silent. */
    const char *kind = tqi_net_session_left(net) ? "leave" : dead ? "died" : "silent";
    tqi_ctl_event_add(ctl, &(tqi_ctl_happened){.kind = kind, .session = tqi_net_session_name(net)});
    tqi_net_session_set_user(net, NULL);
    free(session);
    tqi_ctl_wake(ctl);
    tqi_ctl_drain_look(ctl);
}

static const tqi_net_service ctl_service = {
    .name = "controller",
    .session_open = ctl_session_open,
    .session_end = ctl_session_end,
    .serves = ctl_serves,
    .handle = ctl_handle,
};

/* --- lifecycle ------------------------------------------------------------ */

static void ctl_free(tqi_controller *ctl)
{
    tqi_ctl_snapshots_free(ctl);
    tqi_ctl_restores_free(ctl);
    tqi_ctl_clearings_free(ctl);
    tqi_ctl_owners_free(ctl);
    tqi_ctl_events_fini(&ctl->events);
    if (ctl->table != NULL) {
        tqi_table_free(ctl->table);
    }
    tqi_ctl_meter_free(ctl->meter);
    tqi_buf_fini(&ctl->endpoint);
    free(ctl->sampler);
    free(ctl->manager);
    free(ctl->manager_config);
    free(ctl->config);
    free(ctl);
}

static void ctl_timer_closed(uv_handle_t *handle)
{
    tqi_controller *ctl = handle->data;
    void (*closed)(void *arg) = ctl->closed;
    void *arg = ctl->closed_arg;

    ctl_free(ctl);
    if (closed != NULL) {
        closed(arg);
    }
}

static void ctl_server_closed(void *arg)
{
    tqi_controller *ctl = arg;

    uv_close((uv_handle_t *)&ctl->waiters.timer, ctl_timer_closed);
}

void tqi_controller_close(tqi_controller *ctl, void (*done)(void *arg), void *arg)
{
    ctl->closing = ctl->waiters.closing = true;
    ctl->closed = done;
    ctl->closed_arg = arg;
    if (ctl->server != NULL) {
        tqi_net_server_close(ctl->server, ctl_server_closed, ctl);
    } else {
        ctl_server_closed(ctl);
    }
}

void tqi_controller_set_goodbye(tqi_controller *ctl, tqi_net_ending ending, const char *reason)
{
    tqi_net_server_set_goodbye(ctl->server, ending, "the controller", reason);
}

/* Makes the table, with its counters close to wrapping around if a test wants that. */
static int ctl_make_table(tqi_controller *ctl, const tqi_controller_options *options, tq_error *err)
{
    uint64_t below = options->first_counters;
    tqi_table_options table = {
        .epoch = options->epoch ? options->epoch : tqi_random_id(),
        .strict_schema = options->strict_schema,
    };

    if (below) {
        table.first_index = (uint32_t)(0u - below);
        table.first_incarnation = (uint32_t)(0u - below);
        table.first_block = 0u - below;
        table.first_ordinal = 0u - below;
        table.first_claim = 0u - below;
    }
    return tqi_table_alloc(&table, &ctl->table, err);
}

/* Everything but sockets. */
static int ctl_make(tqi_controller *ctl, const tqi_controller_options *options, tq_error *err)
{
    const tq_sampler *sampler = NULL;
    int rc = tqi_sampler_find(options->sampler, &sampler, err);

    if (rc) {
        return rc;
    }
    ctl->replaced_max = TQI_FRAME_BODY_MAX / 4;
    ctl->sampler = strdup(sampler->name);
    ctl->manager = strdup(options->manager != NULL ? options->manager : "");
    ctl->manager_config = strdup(options->manager_config != NULL ? options->manager_config : "");
    ctl->config = strdup(options->config != NULL ? options->config : "");
    if (ctl->sampler == NULL || ctl->manager == NULL || ctl->manager_config == NULL || ctl->config == NULL) {
        return tqi_error_nomem(err, "a controller");
    }
    if (options->metrics && (ctl->meter = tqi_ctl_meter_alloc()) == NULL) {
        return tqi_error_nomem(err, "metrics");
    }
    ctl->polling = options->polling;
    ctl->owner_timeout_ms = options->owner_timeout_ms;
    ctl->write_deadline_ms = options->write_deadline_ms ? options->write_deadline_ms
                                                        : TQI_CONFIG_CONTROLLER_WRITE_DEADLINE_DEFAULT * UINT64_C(1000);
    ctl->started = tqi_now();
    rc = tqi_ctl_events_init(&ctl->events, options->events ? options->events : TQI_CONFIG_CONTROLLER_EVENTS_DEFAULT,
                             err);
    return rc ? rc : ctl_make_table(ctl, options, err);
}

static int ctl_listen(tqi_controller *ctl, const tqi_controller_options *options, tq_error *err)
{
    tqi_net_server_options server = {
        .epoch = tqi_table_epoch(ctl->table),
        .token = options->token,
        .grace_ms = options->grace_ms,
        .system = options->system,
    };
    int rc = tqi_net_server_alloc(ctl->loop, &ctl_service, ctl, &server, &ctl->server, err);

    for (size_t i = 0; i < options->n_listen && rc == TQ_OK; i++) {
        char bound[512] = "";
        rc = tqi_net_server_listen(ctl->server, options->listen[i], bound, sizeof(bound), err);
        if (rc == TQ_OK && tqi_buf_printf(&ctl->endpoint, "%s%s", i ? "," : "", bound) != TQ_OK) {
            rc = tqi_error_nomem(err, "an endpoint");
        }
    }
    return rc;
}

static void ctl_wake(tqi_net_waiters *waiters)
{
    tqi_ctl_wake(tqi_ctl_of(waiters));
}

int tqi_controller_alloc(uv_loop_t *loop, const tqi_controller_options *options, tqi_controller **out, tq_error *err)
{
    tqi_controller *ctl = calloc(1, sizeof(*ctl));

    if (ctl == NULL) {
        return tqi_error_nomem(err, "a controller");
    }
    ctl->loop = loop;
    ctl->wake = tqi_ctl_wake;
    ctl->waiters.wake = ctl_wake;
    int rc = ctl_make(ctl, options, err);
    if (rc) {
        ctl_free(ctl);
        return rc;
    }
    uv_timer_init(loop, &ctl->waiters.timer);
    ctl->waiters.timer.data = ctl;
    rc = ctl_listen(ctl, options, err);
    if (rc) {
        tqi_controller_close(ctl, NULL, NULL);
        return rc;
    }
    *out = ctl;
    return TQ_OK;
}

uint64_t tqi_controller_epoch(const tqi_controller *ctl)
{
    return tqi_table_epoch(ctl->table);
}
