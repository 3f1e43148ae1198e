/*
 * acks.c - what a channel sends on its own: frames without a call, and acknowledgements of replies.
 */
#include "net/calling.h"

#include <stdlib.h>

#include <utlist.h>

void tqi_net_channel_send(tqi_net_channel *channel, uint16_t kind, uint64_t ack, const ProtobufCMessage *message)
{
    /* If out of memory, the frame is lost; a new connection resends what matters. */
    tqi_net_conn_send_message(channel->conn, &(tqi_frame){.kind = kind, .ack = ack}, message);
}

void tqi_net_channel_send_control(tqi_net_channel *channel, uint16_t kind, const ProtobufCMessage *message)
{
    tqi_net_channel_send(channel, kind, kind == TQI_HELLO ? 0 : tqi_net_call_ack(channel), message);
}

/* The server may keep this many replies that `ack` cannot acknowledge, plus two for each waiting call (which the frame
 * that acknowledges them must name), but never more than ACKS_KEPT_MAX or TQI_NET_KEPT_BYTES. The smallest limits that
 * a server accepts are twice that (limits.kept_replies, limits.kept_reply_bytes). */
#define ACKS_KEPT     1024u
#define ACKS_KEPT_MAX 16384u

/* The acknowledgement cannot pass a call that waits, maybe for hours, and the server would keep the replies to all
 * later calls. So when there are many, and when the session closes, the client tells it which calls are waiting; then
 * it knows which replies were received. */
static void acks_send_waiting(tqi_net_channel *channel, bool last_time)
{
    uint64_t beyond = channel->next_request - tqi_net_call_ack(channel);
    uint64_t enough = ACKS_KEPT + 2 * (uint64_t)channel->n_keeps;

    enough = enough < ACKS_KEPT_MAX ? enough : ACKS_KEPT_MAX;
    if (channel->keeps == NULL) {
        channel->arrived_bytes = 0; /* `ack` says all */
    }
    if (last_time || channel->arrived_bytes >= TQI_NET_KEPT_BYTES) {
        enough = 1;
    }
    if (channel->arrived < enough || beyond < enough) {
        return;
    }
    Tq__Ack ack;
    tq__ack__init(&ack);
    ack.below = channel->next_request;
    ack.waiting = malloc(channel->n_keeps * sizeof(*ack.waiting));
    if (ack.waiting == NULL) {
        return; /* another time */
    }
    const tqi_net_call *call;
    DL_FOREACH (channel->keeps, call) {
        ack.waiting[ack.n_waiting++] = call->number;
    }
    tqi_net_channel_send_control(channel, TQI_ACK, &ack.base);
    free(ack.waiting);
    channel->arrived = 0;
    channel->arrived_bytes = 0;
}

void tqi_net_channel_acknowledge(tqi_net_channel *channel, bool last_time)
{
    uint64_t ack = tqi_net_call_ack(channel);

    channel->ack_due = false;
    if (channel->state != TQI_NET_CHANNEL_OPEN || channel->conn->closed) {
        return;
    }
    if (ack != channel->ack_sent) {
        tqi_net_out_frame *last = channel->conn->queue != NULL ? channel->conn->queue->prev : NULL;
        if (last != NULL && !last->touched && !channel->ack_hold) {
            tqi_net_out_frame_set_ack(last, ack);
        } else {
            tqi_net_channel_send_control(channel, TQI_ACK, NULL);
        }
        channel->ack_sent = ack;
        /* Not earlier: until then, the next ack cannot pass this reply. */
        channel->ack_hold = false;
    }
    acks_send_waiting(channel, last_time);
}

/* Most bytes of such replies that a server keeps until the next request. */
#define ACKS_LATE_BYTES 4096u

/* Whether nothing at the server depends on the acknowledgement, so that it can travel with the next request: a separate
 * frame would wake the server and cost it half as much as a request. */
static bool acks_can_wait(uint16_t kind)
{
    switch (kind) {
    case TQI_PUBLISH:
    case TQI_CLEAR:
    case TQI_GRANT_BLOCKS:
    case TQI_ABANDON_BLOCKS:
    case TQI_UNIT_RESERVE:
    case TQI_UNIT_UNPIN:
    case TQI_UNIT_FINISH:
        return true;
    default:
        return false;
    }
}

void tqi_net_channel_arrived(const tqi_net_call *call)
{
    tqi_net_channel *channel = call->channel;
    /* While an earlier call waits, the next request could not acknowledge it. */
    bool alone = channel->n_keeps == 1 && !call->ended && call->args.orphan == NULL;

    channel->arrived++;
    if (!alone || !acks_can_wait(call->method->kind) || channel->arrived_bytes > ACKS_LATE_BYTES) {
        channel->ack_due = true;
        channel->connector->acks_due = true;
    }
}

void tqi_net_channel_send_ack(tqi_net_channel *channel)
{
    tqi_net_channel_acknowledge(channel, false);
}
