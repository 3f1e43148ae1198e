/*
 * request.c - requests of a session, from handle to reply and, for KEEP ones, to the acknowledgement of the reply.
 */
#include "net/serving.h"

#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "base/error.h"
#include "base/log.h"

bool tqi_net_request_below(uint64_t number, uint64_t ack)
{
    /* Numbers may wrap around; those in use are always close to each other. */
    return ack != 0 && (int64_t)(number - ack) < 0;
}

tqi_net_request *tqi_net_request_make(tqi_net_session *session, uint16_t kind, bool keep, uint64_t number)
{
    tqi_net_request *request = calloc(1, sizeof(*request));

    if (request != NULL) {
        request->number = number;
        request->kind = kind;
        request->keep = keep;
        request->session = session;
    }
    return request;
}

static int request_order(const tqi_net_request *left, const tqi_net_request *right)
{
    return tqi_net_request_below(left->number, right->number) ? -1 : 1;
}

/* In the order of the numbers, on which acknowledgements depend: one that failed kept nothing, and may be sent again
 * after later ones. */
static void request_keep(tqi_net_session *session, tqi_net_request *request)
{
    if (session->keeps == NULL || tqi_net_request_below(session->keeps->prev->number, request->number)) {
        DL_APPEND(session->keeps, request);
    } else {
        DL_INSERT_INORDER(session->keeps, request, request_order);
    }
}

int tqi_net_request_list(tqi_net_request *request)
{
    tqi_net_session *session = request->session;

    if (!TQI_HASH_ADD(session->requests, number, request)) {
        return TQ_ENOMEM;
    }
    if (request->keep) {
        request_keep(session, request);
    }
    request->listed = true;
    session->running++;
    session->running_bytes += request->memory;
    session->server->running_bytes += request->memory;
    return TQ_OK;
}

void tqi_net_request_stopped(tqi_net_request *request)
{
    request->session->running--;
    request->session->running_bytes -= request->memory;
    request->session->server->running_bytes -= request->memory;
    request->memory = 0;
}

void tqi_net_request_unlist(tqi_net_request *request)
{
    if (request->listed) {
        request->listed = false;
        if (request->answered) {
            request->session->kept--;
            request->session->kept_bytes -= request->kept;
        }
        HASH_DEL(request->session->requests, request);
        if (request->keep) {
            DL_DELETE(request->session->keeps, request);
        }
    }
}

/* Frees what is no longer needed once the request is answered. */
static void request_strip(tqi_net_request *request)
{
    if (request->message != NULL) {
        protobuf_c_message_free_unpacked(request->message, NULL);
        request->message = NULL;
    }
    free(request->iov);
    request->iov = NULL;
    request->n_iov = 0;
    request->cancel = NULL;
    if (request->room != NULL) {
        tqi_net_out_frame_unref(request->room);
        request->room = NULL;
    }
}

void tqi_net_request_free(tqi_net_request *request)
{
    tqi_net_request_unlist(request);
    request_strip(request);
    if (request->reply != NULL) {
        tqi_net_out_frame_unref(request->reply);
    }
    free(request);
}

void tqi_net_request_settle(tqi_net_request *request, bool acked)
{
    void (*settled)(bool, void *) = request->settled;

    request->settled = NULL;
    if (settled != NULL) {
        settled(acked, request->settled_arg);
    }
}

int tqi_net_request_prepare(tqi_net_request *request, size_t bytes, tq_error *err)
{
    if (request->room != NULL && request->room->room >= bytes) {
        return TQ_OK;
    }
    tqi_net_out_frame *room = tqi_net_out_frame_room(bytes);
    if (room == NULL) {
        return tqi_error_nomem(err, "a reply");
    }
    if (request->room != NULL) {
        tqi_net_out_frame_unref(request->room);
    }
    request->room = room;
    return TQ_OK;
}

/* Makes its frame, in the reserved room if it fits. NULL: out of memory. */
static tqi_net_out_frame *request_frame(tqi_net_request *request, const tqi_frame *frame,
                                        const ProtobufCMessage *message, const struct iovec *payload, int count)
{
    tqi_net_out_frame *tx = request->room;

    if (tx == NULL || count > 0 || !tqi_net_out_frame_fill(tx, frame, message)) {
        return tqi_net_out_frame_make(frame, message, payload, count);
    }
    request->room = NULL;
    return tx;
}

static tqi_net_out_frame *request_failure(tqi_net_request *request, int rc, const char *message)
{
    Tq__Error error;

    tq__error__init(&error);
    union {
        const char *in;
        char *out;
    } text = {message}; /* packing does not write to it */
    error.code = rc;
    error.message = text.out;
    tqi_frame frame = {.kind = TQI_FAILED, .request = request->number, .flags = TQI_FRAME_REPLY};
    return request_frame(request, &frame, &error.base, NULL, 0);
}

/* Sends the frame on the session's connection, if it has one. Takes over a reference. */
static void request_send(tqi_net_session *session, tqi_net_out_frame *tx)
{
    if (session->peer != NULL) {
        tqi_net_conn_send(session->peer->conn, tx);
    } else {
        tqi_net_out_frame_settle(tx);
        tqi_net_out_frame_unref(tx);
    }
}

void tqi_net_request_repeat(tqi_net_request *request)
{
    tqi_net_out_frame *tx = request->reply;

    if (tx == NULL) {
        tx = request_failure(request, TQ_ENOMEM, "out of memory for the reply");
        if (tx == NULL) {
            /* The client asks again on its next connection. */
            tqi_net_conn_finish(request->session->peer->conn);
            return;
        }
        request->reply = tx;
    }
    if (!tx->queued) {
        tqi_net_out_frame_rewind(tx);
        tx->refs++;
        request_send(request->session, tx);
    }
}

/* Completes a request with a reply, which may be NULL if there was no memory for it. */
static void request_end(tqi_net_request *request, tqi_net_out_frame *tx)
{
    tqi_net_session *session = request->session;

    if (request->listed) {
        tqi_net_request_stopped(request);
    }
    if (tx == NULL) {
        tqi_log(TQI_ERROR, session->server->service->name, "out of memory for a reply to %s", session->name);
        tqi_net_request_settle(request, false);
        if (session->peer != NULL) {
            tqi_net_conn_finish(session->peer->conn);
        }
    }
    bool keep = request->keep && request->listed;
    if (keep && tqi_net_request_below(request->number, session->acked)) {
        /* The client gave up on it without waiting for the reply: nobody will ask again. */
        keep = false;
    }
    if (!keep) {
        if (tx != NULL) {
            request_send(session, tx);
        }
        tqi_net_request_settle(request, true);
        tqi_net_request_free(request);
        return;
    }
    request->answered = true;
    request->reply = tx;
    request->kept = tx != NULL ? tx->size : 0;
    session->kept++;
    session->kept_bytes += request->kept;
    request_strip(request);
    if (tx != NULL) {
        tx->refs++;
        request_send(session, tx);
    }
}

/* Ends a request whose session is gone. */
static void request_drop(tqi_net_request *request, void (*sent)(void *arg), void *arg)
{
    if (request->listed) {
        tqi_net_request_stopped(request);
    }
    if (sent != NULL) {
        sent(arg);
    }
    tqi_net_request_settle(request, false);
    tqi_net_request_free(request);
}

static bool request_is_orphan(const tqi_net_request *request)
{
    return request->session == NULL || request->session->ended;
}

bool tqi_net_request_reply(tqi_net_request *request, const ProtobufCMessage *reply, const struct iovec *payload,
                           int count, void (*sent)(void *arg), void *arg)
{
    if (request_is_orphan(request)) {
        request_drop(request, sent, arg);
        return false;
    }
    tqi_frame frame = {.kind = request->kind, .request = request->number, .flags = TQI_FRAME_REPLY};
    tqi_net_out_frame *tx = request_frame(request, &frame, reply, payload, count);
    /* A kept reply needs its payload for longer than its maker has to provide it. */
    bool own = request->keep;
    if (tx != NULL && own && tqi_net_out_frame_own(tx) != TQ_OK) {
        tqi_net_out_frame_unref(tx);
        tx = NULL;
    }
    bool payload_out = tx != NULL && count > 0 && !own;
    if (payload_out) {
        tx->sent = sent;
        tx->arg = arg;
    }
    bool made = tx != NULL;
    if (tx == NULL) {
        tqi_net_request_settle(request, false);
        tx = request_failure(request, TQ_ENOMEM, "out of memory for the reply");
    }
    request_end(request, tx);
    if (!payload_out && sent != NULL) {
        sent(arg);
    }
    return made;
}

void tqi_net_request_reply_fds(tqi_net_request *request, const ProtobufCMessage *reply, const int *fds, int count,
                               void (*sent)(void *arg), void *arg)
{
    if (request_is_orphan(request)) {
        request_drop(request, sent, arg);
        return;
    }
    const tqi_net_peer *peer = request->session->peer;
    if (request->keep || peer == NULL || !peer->conn->unix_socket || count < 0 || count > TQI_NET_FDS_MAX) {
        tq_error err;
        tqi_error_set(&err, TQ_EUNSUPPORTED, "descriptors cannot be passed on this connection");
        tqi_net_request_fail(request, &err);
        sent(arg);
        return;
    }
    tqi_frame frame = {
        .kind = request->kind,
        .request = request->number,
        .flags = TQI_FRAME_REPLY | (uint32_t)count << TQI_FRAME_FDS_SHIFT,
    };
    tqi_net_out_frame *tx = tqi_net_out_frame_make(&frame, reply, NULL, 0);
    if (tx == NULL) {
        tqi_net_request_settle(request, false);
        request_end(request, request_failure(request, TQ_ENOMEM, "out of memory for the reply"));
        sent(arg);
        return;
    }
    memcpy(tx->fds, fds, (size_t)count * sizeof(*fds));
    tx->n_fds = count;
    tx->sent = sent;
    tx->arg = arg;
    request_end(request, tx);
}

void tqi_net_request_fail(tqi_net_request *request, const tq_error *err)
{
    request->settled = NULL; /* it is for successful replies */
    if (request_is_orphan(request)) {
        request_drop(request, NULL, NULL);
        return;
    }
    int rc = err->code != TQ_OK ? err->code : TQ_EINTERNAL;
    request_end(request, request_failure(request, rc, err->message));
}

uint16_t tqi_net_request_kind(const tqi_net_request *request)
{
    return request->kind;
}

tqi_net_session *tqi_net_request_session(const tqi_net_request *request)
{
    return request->session;
}

void tqi_net_request_set_user(tqi_net_request *request, void *user)
{
    request->user = user;
}

void *tqi_net_request_user(const tqi_net_request *request)
{
    return request->user;
}

int tqi_net_request_payload_for_tests(const tqi_net_request *request, const struct iovec **iov)
{
    if (iov != NULL) {
        *iov = request->iov;
    }
    return request->n_iov;
}

void tqi_net_request_on_cancel(tqi_net_request *request, void (*fn)(tqi_net_request *request, void *arg), void *arg)
{
    request->cancel = fn;
    request->cancel_arg = arg;
}

void tqi_net_request_on_settled(tqi_net_request *request, void (*fn)(bool acked, void *arg), void *arg)
{
    request->settled = fn;
    request->settled_arg = arg;
}
