/*
 * call.c - one request in flight: started, resent whenever the connection breaks, and completed exactly once. A call
 * lives until its answer has arrived. If it ends early (deadline) after it was sent, a KEEP call stays as an orphan:
 * its request may have been executed, so it is resent after a reconnect like any other, the owner's orphan function
 * undoes its answer, and only then does the acknowledgement pass it.
 */
#include "net/calling.h"

#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "base/clock.h"
#include "base/error.h"

/* Numbers may wrap around; those in use are always close to each other. */
static bool call_before(uint64_t a, uint64_t b)
{
    return (int64_t)(a - b) < 0;
}

static void call_unlist(tqi_net_call *call)
{
    if (call->listed) {
        call->listed = false;
        HASH_DEL(call->channel->calls, call);
    }
    tqi_heap_remove(&call->channel->deadlines, &call->timed);
}

/* Withdraws the frame if no part of it was sent. */
static void call_unsend(tqi_net_call *call)
{
    if (call->tx->queued && !call->tx->touched) {
        tqi_net_conn_unsend(call->channel->conn, call->tx);
    }
}

/* From now on the acknowledgement may pass it. */
static void call_unkeep(tqi_net_call *call)
{
    if (call->kept) {
        call->kept = false;
        DL_DELETE(call->channel->keeps, call);
        call->channel->n_keeps--;
    }
}

static void call_free(tqi_net_call *call)
{
    call_unlist(call);
    call_unkeep(call);
    if (call->args.orphan != NULL && call->args.orphan_free != NULL) {
        call->args.orphan_free(call->args.orphan_arg);
    }
    if (call->tx != NULL) {
        tqi_net_out_frame_unref(call->tx);
    }
    free(call);
}

/* Ends a call with an error. It is unlinked first; its memory is freed after done. */
static void call_fail(tqi_net_call *call, const tq_error *why)
{
    call_unlist(call);
    if (!call->ended) {
        tqi_net_answer answer = {.status = why->code, .error = why, .epoch = call->channel->epoch};
        call->ended = true;
        call->args.done(call, &answer, call->args.arg);
    }
    call_free(call);
}

/* --- start ---------------------------------------------------------------- */

static int call_check(const tqi_net_channel *channel, const tqi_net_call_args *args, const tqi_method *method,
                      tq_error *err)
{
    if (channel->state == TQI_NET_CHANNEL_CLOSED) {
        return tqi_error_set(err, TQ_ECLOSED, "the client is closed: open another one");
    }
    if (method == NULL || args->message == NULL || args->message->descriptor != method->request || args->done == NULL) {
        return tqi_error_set(err, TQ_EINVAL, "no such request: kind %u", (unsigned)args->kind);
    }
    size_t size = protobuf_c_message_get_packed_size(args->message);
    if (size > TQI_FRAME_BODY_MAX) {
        return tqi_error_set(err, TQ_EINVAL, "a %s of %zu bytes is too large, at most %u are allowed", method->name,
                             size, (unsigned)TQI_FRAME_BODY_MAX);
    }
    return TQ_OK;
}

static uint64_t call_next_number(uint64_t number)
{
    return number + 1 != 0 ? number + 1 : 1;
}

static void call_send(tqi_net_call *call)
{
    tqi_net_out_frame_rewind(call->tx);
    call->tx->refs++;
    tqi_net_conn_send(call->channel->conn, call->tx);
}

static void call_send_cancel(tqi_net_call *call)
{
    Tq__Cancel cancel;

    tq__cancel__init(&cancel);
    cancel.request = call->number;
    tqi_net_channel_send_control(call->channel, TQI_CANCEL, &cancel.base);
}

int tqi_net_call_start(tqi_net_channel *channel, const tqi_net_call_args *args, tqi_net_call **out, tq_error *err)
{
    const tqi_method *method = tqi_method_find(args->kind);
    int rc = call_check(channel, args, method, err);

    if (rc != TQ_OK) {
        return rc;
    }
    tqi_net_call *call = calloc(1, sizeof(*call));
    if (call == NULL) {
        return tqi_error_nomem(err, "a request");
    }
    call->number = channel->next_request;
    call->channel = channel;
    call->method = method;
    call->args = *args;
    call->args.orphan = NULL; /* until nothing can fail any more */
    tqi_frame frame = {.kind = args->kind, .request = call->number, .ack = tqi_net_call_ack(channel)};
    call->tx = tqi_net_out_frame_make(&frame, args->message, args->payload, args->n_payload);
    if (call->tx == NULL) {
        goto nomem;
    }
    if (!TQI_HASH_ADD(channel->calls, number, call)) {
        goto nomem;
    }
    call->listed = true;
    if (args->deadline != TQI_NEVER) {
        tqi_heap_add(&channel->deadlines, &call->timed, args->deadline);
    }
    call->args.orphan = args->orphan;
    call->args.payload = NULL;
    call->args.message = NULL;
    channel->next_request = call_next_number(call->number);
    if (method->keep) {
        DL_APPEND(channel->keeps, call);
        channel->n_keeps++;
        call->kept = true;
    }
    if (channel->deadlines.top == &call->timed) {
        tqi_net_channel_arm_deadline(channel);
    }
    if (channel->state == TQI_NET_CHANNEL_OPEN) {
        call_send(call);
    } else {
        tqi_net_channel_kick(channel);
    }
    if (out != NULL) {
        *out = call;
    }
    return TQ_OK;
nomem:
    call_free(call);
    return tqi_error_nomem(err, "a request");
}

/* --- cancel --------------------------------------------------------------- */

void tqi_net_call_cancel(tqi_net_call *call)
{
    tqi_net_channel *channel = call->channel;

    if (call->ended || call->cancelled) {
        return;
    }
    call->cancelled = true;
    if (call->tx->touched) {
        if (channel->state == TQI_NET_CHANNEL_OPEN) {
            call_send_cancel(call);
        }
        return;
    }
    call_unsend(call);
    call_unlist(call);
    call->ending = true;
    DL_APPEND2(channel->connector->ending, call, ending_prev, ending_next);
}

void tqi_net_call_end_cancelled(tqi_net_connector *connector)
{
    while (connector->ending != NULL) {
        tqi_net_call *call = connector->ending;
        tqi_net_channel *channel = call->channel;
        connector->flusher.called_out = true;
        DL_DELETE2(connector->ending, call, ending_prev, ending_next);
        tq_error err;
        tqi_error_set(&err, TQ_ECANCELED, "%s was cancelled before it was sent", call->method->name);
        call_fail(call, &err);
        tqi_net_channel_settle(channel);
    }
}

/* --- end of the calls ----------------------------------------------------- */

/* Makes the frame of a call that ends early independent of the owner's memory. */
static void call_own_payload(tqi_net_call *call)
{
    tqi_net_channel *channel = call->channel;

    if (tqi_net_out_frame_own(call->tx) == TQ_OK) {
        return;
    }
    call->lost = true;
    if (call->tx->queued) {
        /* It is partly sent, and the rest cannot be kept: only a new connection helps. */
        tqi_net_conn_close(channel->conn);
        tq_error err;
        tqi_error_nomem(&err, "a request");
        tqi_net_channel_failed(channel, &err);
    }
}

/* The request was sent, and its owner no longer waits. */
static void call_abandon(tqi_net_call *call, const tq_error *why)
{
    tqi_net_channel *channel = call->channel;
    bool orphan = call->method->keep || call->args.orphan != NULL;

    tqi_heap_remove(&channel->deadlines, &call->timed);
    if (channel->rx_call == call && channel->conn != NULL) {
        tqi_net_conn_drop_payload(channel->conn);
    }
    call_own_payload(call);
    if (channel->state == TQI_NET_CHANNEL_OPEN) {
        call_send_cancel(call);
    } else if (!call->method->keep) {
        orphan = false;
    }
    if (!orphan) {
        if (channel->rx_call == call) {
            tqi_net_channel_reset_rx(channel);
        }
        call_fail(call, why);
        return;
    }
    call->ended = true;
    tqi_net_answer answer = {.status = why->code, .error = why, .epoch = channel->epoch};
    call->args.done(call, &answer, call->args.arg);
}

static void call_timeout(tqi_net_call *call)
{
    tqi_net_channel *channel = call->channel;
    tq_error err;

    if (channel->state == TQI_NET_CHANNEL_OPEN) {
        tqi_error_set(&err, TQ_ETIMEDOUT, "the deadline passed before %s answered (%s)", channel->endpoint,
                      call->method->name);
    } else {
        char since[48] = "";
        if (channel->failing_since) {
            snprintf(since, sizeof(since), " (it has failed for %.1f s)",
                     (double)(tqi_now() - channel->failing_since) / 1e9);
        }
        tqi_error_set(&err, TQ_EUNREACHABLE, "%s cannot be reached: %s%s", channel->endpoint,
                      channel->reason.code != TQ_OK ? channel->reason.message : "no connection was made in time", since);
    }
    if (call->tx->touched) {
        call_abandon(call, &err);
    } else {
        call_unsend(call);
        call_fail(call, &err);
    }
}

void tqi_net_call_timeouts(tqi_net_channel *channel)
{
    uint64_t now = tqi_now();

    while (channel->deadlines.top != NULL && channel->deadlines.top->key <= now) {
        call_timeout(TQI_HEAP_ENTRY(channel->deadlines.top, tqi_net_call, timed));
    }
    tqi_net_channel_settle(channel);
}

/* Whether the server may have executed it and be keeping its reply. */
static bool call_may_be_kept(const tqi_net_call *call)
{
    return call->method->keep && call->tx->touched && !call->garbled;
}

void tqi_net_call_give_up(tqi_net_channel *channel, const tq_error *why)
{
    uint64_t limit = channel->next_request;
    bool found = true;

    while (found && channel->state != TQI_NET_CHANNEL_CLOSED) {
        /* From the start again after each: its callback may end any other. */
        found = false;
        tqi_net_call *call;
        for (call = channel->calls; call != NULL && call_before(call->number, limit); call = call->hh.next) {
            if (!call->ended || !call_may_be_kept(call)) {
                found = true;
                break;
            }
        }
        if (found && call_may_be_kept(call)) {
            call_abandon(call, why);
        } else if (found) {
            call_fail(call, why);
        }
    }
}

/* The session has ended, and with it what could not be undone. */
static void call_free_stuck(tqi_net_channel *channel)
{
    tqi_net_call *call, *next;

    DL_FOREACH_SAFE (channel->keeps, call, next) {
        if (call->stuck) {
            call_free(call);
        }
    }
}

void tqi_net_call_end_all(tqi_net_channel *channel, const tq_error *why)
{
    uint64_t limit = channel->next_request;
    tqi_net_call *call;

    call_free_stuck(channel);
    while ((call = channel->calls) && call_before(call->number, limit)) {
        /* The acknowledgement that the channel sends last may pass what such a request undoes. */
        if (!tqi_net_gives_back(call->method->kind)) {
            call_unsend(call);
        }
        if (call->tx->queued && tqi_net_out_frame_own(call->tx) != TQ_OK) {
            tqi_net_conn_close(channel->conn);
        }
        call_fail(call, why);
    }
}

void tqi_net_call_stale(tqi_net_channel *channel, bool another)
{
    uint64_t limit = channel->next_request;
    char clock[32];
    tq_error err;

    if (another) {
        const char *at = tqi_text_time(channel->started_us, clock, sizeof(clock));
        tqi_error_set(&err, TQ_ESTALE,
                      "%s at %s was restarted%s%s: what was stored before that is gone; put, claim "
                      "or resolve the samples again",
                      channel->primary ? "the controller" : "the server", channel->endpoint, at[0] ? " at " : "", at);
    } else {
        tqi_error_set(&err, TQ_ESTALE,
                      "%s does not know this client any more: it did not hear of it for its grace "
                      "time, and what was asked for meanwhile may or may not have been done",
                      channel->endpoint);
    }
    call_free_stuck(channel);
    bool found = true;
    while (found && channel->state != TQI_NET_CHANNEL_CLOSED) {
        /* From the start again after each: its callback may end any other. */
        found = false;
        tqi_net_call *call;
        for (call = channel->calls; call != NULL && call_before(call->number, limit); call = call->hh.next) {
            if (call->method->keep && call->tx->touched) {
                found = true;
                call_fail(call, &err);
                break;
            }
        }
    }
}

void tqi_net_call_resend(tqi_net_channel *channel)
{
    tqi_net_call *call, *next;

    for (call = channel->calls; call != NULL; call = next) {
        next = call->hh.next;
        if (call->ended && !call->method->keep) {
            call_free(call); /* its late answer was lost with the connection */
            continue;
        }
        if (!call->tx->queued && !call->lost) {
            call_send(call);
        }
    }
    /* After all requests, because a cancel acknowledges, and one of the requests may undo what it acknowledges. */
    for (call = channel->calls; call != NULL; call = call->hh.next) {
        if ((call->cancelled || call->ended) && !call->lost) {
            call_send_cancel(call);
        }
    }
}

void tqi_net_call_answered(tqi_net_call *call, tqi_net_answer *answer)
{
    tqi_net_channel *channel = call->channel;

    call_unlist(call);
    if (call->kept) {
        tqi_net_channel_arrived(call);
    }
    if (!call->ended) {
        call->ended = true;
        if (call->args.orphan == NULL) {
            /* Nothing is sent before done returns, so a call that it starts may carry the acknowledgement. */
            call_unkeep(call);
        }
        uint64_t next = channel->next_request;
        call->args.done(call, answer, call->args.arg);
        call->stuck = answer->stuck;
        if (call->args.orphan != NULL && channel->next_request != next) {
            /* done may undo the answer, and the request that does so must reach the server before the acknowledgement. */
            channel->ack_hold = true;
        }
    } else if (call->args.orphan != NULL && answer->status == TQ_OK) {
        /* The request that undoes the answer must reach the server before the acknowledgement. */
        channel->ack_hold = true;
        call->stuck = !call->args.orphan(channel, answer->reply, call->args.orphan_arg);
    }
    if (!call->stuck || !call->kept || channel->state == TQI_NET_CHANNEL_CLOSED) {
        call_free(call);
    }
    if (channel->state != TQI_NET_CHANNEL_CLOSED) {
        tqi_net_channel_settle(channel);
    }
}
