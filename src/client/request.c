/*
 * request.c - calls that are one request to the controller: sent, cancelled and answered alike.
 */
#include "client/runtime.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"

/* A waiting request is answered by the server at its deadline; the client gives up this much later.
 * */
#define REQUEST_SLACK_NS 100000000u

static void request_released(tqi_net_call *call, tqi_net_answer *answer, void *arg)
{
    (void)call;
    (void)answer; /* if it failed, the session is gone, and with it the claim */
    (void)arg;
}

/* Gives the samples of a claim back; false: out of memory. */
static bool request_release(tqi_net_channel *channel, const ProtobufCMessage *reply)
{
    const Tq__ClaimReply *claim = (const Tq__ClaimReply *)reply;
    Tq__Release message;
    tqi_net_call_args args = {
        .kind = TQI_RELEASE,
        .message = &message.base,
        .deadline = TQI_NEVER,
        .done = request_released,
    };
    tqi_net_call *call;

    tq__release__init(&message);
    message.claim = claim->claim;
    return claim->claim == 0 || tqi_net_call_start(channel, &args, &call, NULL) == TQ_OK;
}

/* The answer to a claim arrived after its call had ended: nobody will ever see these samples. */
static bool request_orphan(tqi_net_channel *channel, const ProtobufCMessage *reply, void *arg)
{
    (void)arg;
    return request_release(channel, reply);
}

static void request_orphan_free(void *arg)
{
    (void)arg;
}

/* The reply is acknowledged after this returns; until then, a release can find the claim. */
static void request_answered(tqi_client_task *task, tqi_net_answer *answer)
{
    tqi_client_request_task *request = (tqi_client_request_task *)task;
    tq_error err = {0};
    int rc = TQ_OK;

    if (answer->status != TQ_OK && !(request->quiet_timeout && answer->status == TQ_ETIMEDOUT)) {
        tqi_client_task_finish(task, answer->error);
        return;
    }
    if (request->claim && tqi_client_op_canceled(task->op)) {
        rc = tqi_error_set(&err, TQ_ECANCELED, "cancelled");
    } else if (request->decode != NULL) {
        rc = request->decode(task->op, task, answer->reply, &err);
    }
    if (rc != TQ_OK) {
        err.code = rc;
        if (request->claim && answer->reply != NULL) {
            answer->stuck = !request_release(task->rt->controller, answer->reply);
        }
    }
    tqi_client_task_finish(task, rc == TQ_OK ? NULL : &err);
}

static void request_begin(tqi_client_task *task)
{
    tqi_client_request_task *request = (tqi_client_request_task *)task;
    tqi_net_call_args args = {.kind = request->kind, .message = request->message, .deadline = task->deadline};
    tq_error err = {0};

    if (request->timeout_ms != NULL) {
        *request->timeout_ms = tqi_client_remaining_ms(task->deadline);
        if (args.deadline < TQI_NEVER - REQUEST_SLACK_NS) {
            args.deadline += REQUEST_SLACK_NS;
        }
    }
    if (request->claim) {
        args.orphan = request_orphan;
        args.orphan_free = request_orphan_free;
        tqi_client_notice_watch(task);
    }
    if (tqi_client_task_call_args(task, &args, request_answered, &err) != TQ_OK) {
        tqi_client_task_finish(task, &err);
    }
}

static const tqi_client_task_type request_type = {.size = sizeof(tqi_client_request_task), .begin = request_begin};

tqi_client_request_task *tqi_client_request_make(tq_op *op, uint16_t kind, const ProtobufCMessageDescriptor *type,
                                                 tqi_client_decode_fn decode, int *rc)
{
    tqi_client_request_task *request = (tqi_client_request_task *)tqi_client_task_make(op, &request_type, rc);

    if (request == NULL) {
        return NULL;
    }
    request->kind = kind;
    request->decode = decode;
    request->message = tqi_region_array(&request->task.region, 1, type->sizeof_message);
    if (request->message == NULL) {
        tq_error err = {0};
        *rc = tqi_client_task_submit(op, &request->task, tqi_error_nomem(&err, "a request"), &err);
        return NULL;
    }
    protobuf_c_message_init(type, request->message);
    return request;
}
