/*
 * out_frame.c - outgoing frames.
 */
#include "net/internal.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include <tq/errors.h>

static tqi_net_out_frame *tx_alloc(size_t body, int count)
{
    size_t segments = 2 + (size_t)count;

    if (body > TQI_FRAME_BODY_MAX) {
        return NULL;
    }
    tqi_net_out_frame *tx = malloc(sizeof(*tx) + segments * sizeof(*tx->iov) + body);
    if (tx != NULL) {
        memset(tx, 0, sizeof(*tx));
        tx->refs = 1;
        tx->n = (int)segments;
        tx->size = sizeof(*tx) + segments * sizeof(*tx->iov) + body;
        tx->room = body;
    }
    return tx;
}

static void tx_fill(tqi_net_out_frame *tx, const tqi_frame *frame, const ProtobufCMessage *message, size_t body,
                    const struct iovec *payload)
{
    uint8_t *bytes = (uint8_t *)(tx->iov + tx->n);

    if (body > 0) {
        protobuf_c_message_pack(message, bytes);
    }
    tqi_frame head = *frame;
    head.version = TQI_PROTOCOL_VERSION;
    head.body = (uint32_t)body;
    head.payload = 0;
    tx->iov[0] = (struct iovec){tx->header, sizeof(tx->header)};
    tx->iov[1] = (struct iovec){bytes, body};
    for (int i = 2; payload != NULL && i < tx->n; i++) {
        tx->iov[i] = payload[i - 2];
        head.payload += payload[i - 2].iov_len;
    }
    tqi_frame_encode(&head, tx->header);
}

tqi_net_out_frame *tqi_net_out_frame_make(const tqi_frame *frame, const ProtobufCMessage *message,
                                          const struct iovec *payload, int count)
{
    size_t body = message != NULL ? protobuf_c_message_get_packed_size(message) : 0;
    tqi_net_out_frame *tx = tx_alloc(body, count);

    if (tx != NULL) {
        tx_fill(tx, frame, message, body, payload);
    }
    return tx;
}

tqi_net_out_frame *tqi_net_out_frame_room(size_t body)
{
    return tx_alloc(body, 0);
}

bool tqi_net_out_frame_fill(tqi_net_out_frame *tx, const tqi_frame *frame, const ProtobufCMessage *message)
{
    size_t body = message != NULL ? protobuf_c_message_get_packed_size(message) : 0;

    if (body > tx->room) {
        return false;
    }
    tx_fill(tx, frame, message, body, NULL);
    return true;
}

void tqi_net_out_frame_set_ack(tqi_net_out_frame *tx, uint64_t ack)
{
    ack = htole64(ack);
    memcpy(tx->header + 16, &ack, sizeof(ack));
}

int tqi_net_out_frame_own(tqi_net_out_frame *tx)
{
    size_t size = 0;
    size_t sent = 0; /* bytes of the payload that are sent */

    for (int i = 2; i < tx->n; i++) {
        sent += i < tx->segment ? tx->iov[i].iov_len : i == tx->segment ? tx->offset : 0;
        size += tx->iov[i].iov_len;
    }
    if (tx->copy != NULL || size == 0) {
        return TQ_OK;
    }
    tx->copy = malloc(size);
    if (tx->copy == NULL) {
        return TQ_ENOMEM;
    }
    uint8_t *at = tx->copy;
    for (int i = 2; i < tx->n; i++) {
        if (tx->iov[i].iov_len > 0) {
            memcpy(at, tx->iov[i].iov_base, tx->iov[i].iov_len);
            at += tx->iov[i].iov_len;
        }
    }
    tx->size += tx->queued ? 0 : size; /* the queue has counted it as it was */
    tx->iov[2] = (struct iovec){tx->copy, size};
    tx->n = 3;
    if (tx->segment >= 2) {
        tx->segment = 2;
        tx->offset = sent;
    }
    return TQ_OK;
}

void tqi_net_out_frame_rewind(tqi_net_out_frame *tx)
{
    tx->segment = 0;
    tx->offset = 0;
}

void tqi_net_out_frame_settle(tqi_net_out_frame *tx)
{
    void (*sent)(void *) = tx->sent;

    tx->sent = NULL;
    if (sent != NULL) {
        sent(tx->arg);
    }
}

void tqi_net_out_frame_unref(tqi_net_out_frame *tx)
{
    if (--tx->refs > 0) {
        return;
    }
    free(tx->copy);
    free(tx);
}
