/*
 * reply.c - frames that arrive at a channel: the handshake, then replies to its calls.
 */
#include "net/calling.h"

#include <string.h>

#include <utlist.h>

#include "base/clock.h"
#include "base/error.h"

#define REPLY_GOODBYE_MAX 4096 /* bytes of its body */

static void reply_on_opened(tqi_net_conn *conn, int errnum)
{
    tqi_net_channel *channel = conn->owner;

    if (errnum != 0) {
        tq_error err;
        tqi_net_channel_refused(channel, errnum);
        tqi_error_errno(&err, errnum, "connect");
        tqi_net_channel_failed(channel, &err);
        return;
    }
    channel->state = TQI_NET_CHANNEL_GREET;
}

static int reply_on_head(tqi_net_conn *conn, const tqi_frame *frame, tq_error *err)
{
    const tqi_net_channel *channel = conn->owner;

    if (channel->state != TQI_NET_CHANNEL_OPEN) {
        return tqi_net_client_handshake_head(frame, err);
    }
    bool park = frame->kind == TQI_PARK && frame->body == 0 && frame->payload == 0;
    bool goodbye =
        frame->kind == TQI_GOODBYE && frame->body <= REPLY_GOODBYE_MAX && frame->payload == 0 && frame->flags == 0;
    if (!park && !goodbye && (!(frame->flags & TQI_FRAME_REPLY) || frame->request == 0)) {
        return tqi_error_set(err, TQ_EPROTO, "malformed frame: kind %u, request %llu, flags 0x%x is no reply",
                             (unsigned)frame->kind, (unsigned long long)frame->request, (unsigned)frame->flags);
    }
    return TQ_OK;
}

static int reply_failed(tqi_net_channel *channel, const uint8_t *body, size_t size, tq_error *err)
{
    ProtobufCMessage *message = tqi_message_decode(&tq__error__descriptor, body, size, err);

    if (message == NULL) {
        return err->code;
    }
    const Tq__Error *error = (const Tq__Error *)message;
    int rc = TQ_OK;
    if (error->code >= 0) {
        rc = tqi_error_set(err, TQ_EPROTO, "malformed message: an Error with code %d", (int)error->code);
    } else {
        tqi_error_set(&channel->rx_error, error->code, "%s", error->message);
    }
    protobuf_c_message_free_unpacked(message, NULL);
    return rc;
}

/* Says where the payload of a reply goes; *count 0: it is dropped. */
static void reply_sink(tqi_net_channel *channel, const tqi_net_call *call, uint64_t size, struct iovec *iov, int *count)
{
    int rc = TQ_OK;

    if (call->ended) {
        return;
    }
    if (call->args.sink == NULL) {
        tqi_error_set(&channel->rx_error, TQ_EPROTO, "the reply to %s came with a payload of %llu bytes",
                      call->method->name, (unsigned long long)size);
        return;
    }
    rc = call->args.sink(channel->rx_reply, size, iov, TQI_NET_SINK_MAX, count, call->args.arg);
    uint64_t sum = 0;
    for (int i = 0; rc == TQ_OK && i < *count && i < TQI_NET_SINK_MAX; i++) {
        sum += iov[i].iov_len;
    }
    if (rc == TQ_OK && sum != size) {
        rc = TQ_EPROTO;
    }
    if (rc != TQ_OK) {
        *count = 0;
        tqi_error_set(&channel->rx_error, rc, "there is no place for the %llu bytes that answer %s",
                      (unsigned long long)size, call->method->name);
    }
}

static int reply_on_body(tqi_net_conn *conn, const tqi_frame *frame, const uint8_t *body, struct iovec *iov, int *count,
                         tq_error *err)
{
    tqi_net_channel *channel = conn->owner;

    if (channel->state != TQI_NET_CHANNEL_OPEN) {
        return tqi_net_client_handshake_body(channel, frame, body, err);
    }
    tqi_net_channel_reset_rx(channel);
    if (frame->kind == TQI_PARK) {
        return TQ_OK;
    }
    if (frame->kind == TQI_GOODBYE) {
        channel->goodbye = (Tq__Goodbye *)tqi_message_decode(&tq__goodbye__descriptor, body, frame->body, err);
        return channel->goodbye != NULL ? TQ_OK : err->code;
    }
    tqi_net_call *call;
    HASH_FIND(hh, channel->calls, &frame->request, sizeof frame->request, call);
    if (call == NULL) {
        return TQ_OK; /* given up meanwhile */
    }
    if (frame->kind == TQI_FAILED) {
        int rc = reply_failed(channel, body, frame->body, err);
        call->garbled = rc == TQ_EPROTO;
        channel->rx_call = rc == TQ_OK ? call : NULL;
        return rc;
    }
    if (frame->kind != call->method->kind) {
        call->garbled = true;
        return tqi_error_set(err, TQ_EPROTO, "malformed frame: a reply of kind %u to a request of kind %u",
                             (unsigned)frame->kind, (unsigned)call->method->kind);
    }
    channel->rx_reply = tqi_reply_decode(call->method->reply, body, frame->body, err);
    if (channel->rx_reply == NULL && err->code == TQ_ENOMEM) {
        /* Work that was done must not end in an error: the reply is requested again, on a new connection. */
        return TQ_ENOMEM;
    }
    if (channel->rx_reply == NULL && err->code != TQ_EPROTO) {
        tqi_error_set(&channel->rx_error, err->code, "the reply to %s: %s", call->method->name, err->message);
        channel->rx_call = call;
        return TQ_OK;
    }
    if (channel->rx_reply == NULL) {
        call->garbled = true;
        return TQ_EPROTO;
    }
    channel->rx_call = call;
    if (frame->payload > 0) {
        reply_sink(channel, call, frame->payload, iov, count);
    }
    return TQ_OK;
}

static int reply_on_done(tqi_net_conn *conn, const tqi_frame *frame, tq_error *err)
{
    tqi_net_channel *channel = conn->owner;
    tqi_net_call *call = channel->rx_call;

    (void)err;
    if (frame->kind == TQI_PARK && channel->conn == conn) {
        channel->connector->crowded_at = tqi_now();
        tqi_net_channel_park(channel);
        return TQ_OK;
    }
    if (channel->goodbye != NULL && channel->conn == conn) {
        tqi_net_channel_goodbye(channel);
        return TQ_OK;
    }
    if (call == NULL) {
        return TQ_OK;
    }
    /* Removed from the channel first, because the callbacks may start, end and close anything. */
    tq_error failed = channel->rx_error;
    ProtobufCMessage *reply = channel->rx_reply;
    channel->rx_call = NULL;
    channel->rx_reply = NULL;
    channel->proto_errors = 0;
    channel->backoff_ms = TQI_NET_BACKOFF_MIN_MS;
    tqi_net_answer answer = {.status = failed.code, .told = true, .epoch = channel->epoch, .n_fds = conn->n_frame_fds};
    if (failed.code == TQ_OK) {
        answer.reply = reply;
        answer.payload = frame->payload;
    } else {
        answer.error = &failed;
    }
    memcpy(answer.fds, conn->frame_fds, sizeof(answer.fds));
    if (call->kept) {
        channel->arrived_bytes += TQI_FRAME_HEADER + frame->body + frame->payload;
    }
    tqi_net_call_answered(call, &answer);
    memcpy(conn->frame_fds, answer.fds, sizeof(answer.fds));
    if (reply != NULL) {
        protobuf_c_message_free_unpacked(reply, NULL);
    }
    return TQ_OK;
}

static void reply_on_finished(tqi_net_conn *conn)
{
    const tqi_net_channel *channel = conn->owner;

    if (channel->state != TQI_NET_CHANNEL_CLOSED) {
        /* It was given up for want of memory. */
        tq_error err;
        tqi_error_nomem(&err, "a frame");
        tqi_net_channel_broken(conn, &err);
    }
}

static void reply_on_freed(tqi_net_conn *conn)
{
    tqi_net_channel *channel = conn->owner;

    channel->conns--;
    if (channel->conn == conn) {
        channel->conn = NULL;
    }
    if (channel->state == TQI_NET_CHANNEL_CLOSED) {
        tqi_net_channel_close(channel);
    }
}

const tqi_net_conn_ops tqi_net_channel_ops = {
    .opened = reply_on_opened,
    .head = reply_on_head,
    .body = reply_on_body,
    .done = reply_on_done,
    .broken = tqi_net_channel_broken,
    .finished = reply_on_finished,
    .freed = reply_on_freed,
};
