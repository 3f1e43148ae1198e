/*
 * witness_request.c - whose request a commit comes from: the controller's service is wrapped when its server is made.
 */
#include "oracle/ledger.h"

#include "controller/controller_state.h"
#include "controller/reply.h"
#include "controller/session.h"
#include "net/serving.h"

#include <tq/tq.h>

static const tqi_net_service *request_service; /* the controller's own */

static uint64_t request_number(const tqi_net_session *net)
{
    const tqi_ctl_session *session = net != NULL ? net->user : NULL;

    return session != NULL ? session->number : 0;
}

static ledger_request request_of(const tqi_net_request *request)
{
    return (ledger_request){request_number(request->session), request->number, request->kind};
}

static void request_handle(tqi_net_request *request, const ProtobufCMessage *message, void *ctx)
{
    const tqi_table *table = ((const tqi_controller *)ctx)->table;
    ledger *l = witness_look(table);

    if (l != NULL) {
        l->handled = request_of(request);
    }
    request_service->handle(request, message, ctx);
    if (l != NULL) {
        l->handled = (ledger_request){0};
    }
}

static int request_session_open(tqi_net_session *net, void *ctx)
{
    ledger *l = witness_look(((const tqi_controller *)ctx)->table);
    int rc;

    sim_trace("session begins", ((const tqi_controller *)ctx)->last_session + 1, net->pid);
    /* Its number is known only afterwards, but commits may follow within the call. */
    if (l != NULL) {
        LEDGER_GROW(l->sessions, l->sessions_capacity, l->n_sessions + 1);
        l->sessions[l->n_sessions++] = (ledger_session){
            .number = ((const tqi_controller *)ctx)->last_session + 1,
            .name = ledger_name(net->name),
            .pid = net->pid,
        };
    }
    rc = request_service->session_open(net, ctx);
    return rc;
}

WITNESS_WRAP(int, tqi_net_server_alloc, uv_loop_t *loop, const tqi_net_service *service, void *ctx,
             const tqi_net_server_options *options, tqi_net_server **out, tq_error *err)
{
    static tqi_net_service wrapped;

    if (strcmp(service->name, "controller") != 0) {
        return __real_tqi_net_server_alloc(loop, service, ctx, options, out, err);
    }
    request_service = service;
    wrapped = *service;
    wrapped.handle = request_handle;
    wrapped.session_open = request_session_open;
    return __real_tqi_net_server_alloc(loop, &wrapped, ctx, options, out, err);
}

/* The controller asks for it right before it takes samples for a request, even one that has waited. */
WITNESS_WRAP(uint64_t, tqi_ctl_session_number, const tqi_net_request *request)
{
    if (request->session != NULL) {
        ledger *l = witness_look(((const tqi_controller *)request->session->server->ctx)->table);
        if (l != NULL) {
            l->asked = request_of(request);
        }
    }
    return __real_tqi_ctl_session_number(request);
}

/* What a claim took must be given back before the claim is answered with an error: nobody else would. */
WITNESS_WRAP(void, tqi_net_request_fail, tqi_net_request *request, const tq_error *err)
{
    const tqi_net_session *net = request->session;

    if (net != NULL && net->server->service->handle == request_handle && request->kind == TQI_CLAIM) {
        const ledger *l = witness_look(((const tqi_controller *)net->server->ctx)->table);
        for (uint32_t i = 0; l != NULL && i < l->n_claims; i++) {
            const ledger_claim *claim = &l->claims[i];
            sim_check(claim->id == 0 || claim->session != request_number(net) || claim->request != request->number,
                      "none lost", "claim %llu of task '%s' keeps its %u samples, but it is answered with %s: %s",
                      (unsigned long long)claim->id, claim->task, claim->n, tq_error_name(err->code), err->message);
        }
    }
    __real_tqi_net_request_fail(request, err);
}
