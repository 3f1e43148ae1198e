/*
 * peer.c - the server's side of one connection: handshake, then the frames of its session.
 */
#include "net/serving.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <utlist.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/text.h"

static void peer_send(tqi_net_peer *peer, uint16_t kind, const ProtobufCMessage *message)
{
    tqi_net_conn_send_message(peer->conn, &(tqi_frame){.kind = kind}, message);
}

static void peer_discard_incoming(tqi_net_peer *peer)
{
    tqi_net_request *request = peer->incoming;

    peer->incoming = NULL;
    if (request == NULL) {
        return;
    }
    if (request->n_iov > 0 && peer->server->service->sink_failed != NULL) {
        peer->server->service->sink_failed(request, peer->server->ctx);
    }
    tqi_net_request_free(request);
}

void tqi_net_peer_close(tqi_net_peer *peer)
{
    if (peer->conn->closed) {
        return;
    }
    tqi_net_conn_close(peer->conn);
    peer_discard_incoming(peer);
    tqi_net_greeting_remove(peer);
    tqi_net_session *session = peer->session;
    peer->session = NULL;
    if (session != NULL && session->peer == peer) {
        tqi_net_session_detach(session);
    }
}

void tqi_net_peer_goodbye(tqi_net_peer *peer, const Tq__Goodbye *goodbye)
{
    peer_discard_incoming(peer);
    if (peer->session != NULL) {
        peer->session->peer = NULL;
        peer->session = NULL;
    }
    peer_send(peer, TQI_GOODBYE, &goodbye->base);
    tqi_net_conn_finish(peer->conn);
}

/* Whether this client with a wrong token was already logged: it may keep trying. */
static bool peer_refused_before(tqi_net_server *server, const uint8_t *session)
{
    unsigned n = server->n_refused < TQI_NET_REFUSED_MAX ? server->n_refused : TQI_NET_REFUSED_MAX;

    for (unsigned i = 0; i < n; i++) {
        if (memcmp(server->refused[i], session, TQI_NET_SESSION_ID) == 0) {
            return true;
        }
    }
    memcpy(server->refused[server->n_refused++ % TQI_NET_REFUSED_MAX], session, TQI_NET_SESSION_ID);
    return false;
}

/* Tells the client why, then closes. Logged as a warning only if `aloud`. */
static void peer_refuse(tqi_net_peer *peer, int rc, char *text, bool aloud)
{
    Tq__Error error;

    tq__error__init(&error);
    error.code = rc;
    error.message = text;
    if (aloud) {
        char what[TQ_ERROR_MESSAGE_MAX + 16];
        snprintf(what, sizeof(what), "refused: %s", text);
        tqi_net_server_warn(peer->server, peer->conn->peer, what);
    } else {
        tqi_log(TQI_DEBUG, peer->server->service->name, "connection from %s refused again: %s", peer->conn->peer, text);
    }
    peer_send(peer, TQI_FAILED, &error.base);
    tqi_net_conn_finish(peer->conn);
}

/* --- handshake ------------------------------------------------------------ */

static int peer_check_hello(const Tq__Hello *hello, tq_error *err)
{
    if (hello->nonce.len != TQI_NET_NONCE || hello->proof.len != TQI_NET_PROOF ||
        hello->session.len != TQI_NET_SESSION_ID) {
        return tqi_error_set(err, TQ_EPROTO, "malformed message: a Hello with parts of a wrong size");
    }
    if (strlen(hello->name) > 255 || strlen(hello->host) > 255) {
        return tqi_error_set(err, TQ_EPROTO, "malformed message: a Hello with a name that is too long");
    }
    /* They are shown to people, in the status, in events and in logs. */
    if (tqi_text_plain(hello->name, strlen(hello->name)) != strlen(hello->name) ||
        tqi_text_plain(hello->host, strlen(hello->host)) != strlen(hello->host)) {
        return tqi_error_set(err, TQ_EPROTO,
                             "malformed message: a Hello with a name that has control characters, "
                             "or is not UTF-8");
    }
    return TQ_OK;
}

/* Opens or resumes the session of an authenticated client. */
static int peer_welcome(tqi_net_peer *peer, const Tq__Hello *hello, tq_error *err)
{
    tqi_net_server *server = peer->server;
    uint8_t proof[TQI_NET_PROOF];
    Tq__Welcome welcome;

    tq__welcome__init(&welcome);
    if (tqi_net_auth_proof(&server->token, "tq-server", hello->nonce.data, peer->nonce, hello->session.data, proof) !=
        TQ_OK) {
        return tqi_error_set(err, TQ_EINTERNAL, "no proof could be computed");
    }
    tqi_net_session *session = tqi_net_session_find(server, hello->session.data);
    bool known = session != NULL;
    if (!known && HASH_COUNT(server->sessions) >= tqi_limits.sessions) {
        tqi_limit_reached(TQI_LIMIT_sessions);
        if (server->lost == NULL) {
            char text[192];
            snprintf(text, sizeof(text),
                     "the server has %llu sessions, which is its most (limits.sessions): close "
                     "clients that are not used, or start the system with more",
                     (unsigned long long)tqi_limits.sessions);
            peer_refuse(peer, TQ_EIO, text, true);
            return TQ_OK;
        }
        tqi_net_session_end(server->lost, false);
    }
    if (!known) {
        session = tqi_net_session_make(server, hello->session.data, hello->name, hello->host, hello->pid);
        if (session == NULL) {
            return tqi_error_nomem(err, "a session");
        }
    }
    tqi_net_greeting_remove(peer);
    tqi_net_session_attach(session, peer);
    if (!known && server->service->session_open != NULL && server->service->session_open(session, server->ctx) != TQ_OK) {
        /* A half-made session would be resumed, and stay half-made for as long as its client lives. */
        tqi_net_session_unmake(session);
        return tqi_error_nomem(err, "a session");
    }
    welcome.proof = (ProtobufCBinaryData){sizeof(proof), proof};
    welcome.epoch = server->epoch;
    welcome.resumed = known && hello->instance == session->instance;
    welcome.instance = session->instance;
    welcome.server = server->id;
    welcome.system = server->system;
    welcome.started_us = server->started_us;
    welcome.crowded = (unsigned)peer->conn->fd >= server->descriptors / TQI_NET_CROWDED_SHARE;
    peer->goodbyes = hello->goodbyes;
    peer_send(peer, TQI_WELCOME, &welcome.base);
    tqi_log(TQI_DEBUG, server->service->name, "session %s %s from %s", session->name, known ? "resumed" : "opened",
            peer->conn->peer);
    return TQ_OK;
}

static int peer_hello(tqi_net_peer *peer, const uint8_t *body, size_t size, tq_error *err)
{
    uint8_t proof[TQI_NET_PROOF];
    ProtobufCMessage *message = tqi_message_decode(&tq__hello__descriptor, body, size, err);

    if (message == NULL) {
        return err->code;
    }
    const Tq__Hello *hello = (const Tq__Hello *)message;
    int rc = peer_check_hello(hello, err);
    if (rc == TQ_OK) {
        rc = tqi_net_auth_proof(&peer->server->token, "tq-client", peer->nonce, hello->nonce.data, hello->session.data,
                                proof);
        if (rc != TQ_OK) {
            tqi_error_set(err, rc, "no proof could be computed");
        } else if (!tqi_net_auth_equal(proof, hello->proof.data, sizeof(proof))) {
            char text[] = "authentication failed: the token is not the server's; use the token "
                          "file of the system that runs now, for one that is started again has a "
                          "new token";
            peer_refuse(peer, TQ_EAUTH, text, !peer_refused_before(peer->server, hello->session.data));
        } else {
            rc = peer_welcome(peer, hello, err);
        }
    }
    protobuf_c_message_free_unpacked(message, NULL);
    return rc;
}

/* --- requests ------------------------------------------------------------- */

static int peer_cancel(tqi_net_peer *peer, const uint8_t *body, size_t size, tq_error *err)
{
    ProtobufCMessage *message = tqi_message_decode(&tq__cancel__descriptor, body, size, err);

    if (message == NULL) {
        return err->code;
    }
    uint64_t number = ((const Tq__Cancel *)message)->request;
    protobuf_c_message_free_unpacked(message, NULL);
    tqi_net_request *request;
    HASH_FIND(hh, peer->session->requests, &number, sizeof number, request);
    if (request != NULL && !request->answered && request->cancel != NULL) {
        void (*cancel)(tqi_net_request *, void *) = request->cancel;
        request->cancel = NULL;
        cancel(request, request->cancel_arg);
    }
    return TQ_OK;
}

static int peer_ack(tqi_net_peer *peer, const uint8_t *body, size_t size, tq_error *err)
{
    if (size == 0) {
        return TQ_OK;
    }
    ProtobufCMessage *message = tqi_message_decode(&tq__ack__descriptor, body, size, err);
    if (message == NULL) {
        return err->code;
    }
    const Tq__Ack *ack = (const Tq__Ack *)message;
    int rc = TQ_OK;
    for (size_t i = 1; i < ack->n_waiting && rc == TQ_OK; i++) {
        if (!tqi_net_request_below(ack->waiting[i - 1], ack->waiting[i])) {
            rc = tqi_error_set(err, TQ_EPROTO, "malformed Ack: request %llu is before %llu",
                               (unsigned long long)ack->waiting[i - 1], (unsigned long long)ack->waiting[i]);
        }
    }
    if (rc == TQ_OK) {
        tqi_net_session_ack_but(peer->session, ack->below, ack->waiting, ack->n_waiting);
    }
    protobuf_c_message_free_unpacked(message, NULL);
    return rc;
}

static int peer_bye(tqi_net_peer *peer, const uint8_t *body, size_t size, tq_error *err)
{
    ProtobufCMessage *message = tqi_message_decode(&tq__bye__descriptor, body, size, err);

    if (message == NULL) {
        return TQ_EPROTO;
    }
    peer->session->left = true;
    peer->session->finished = ((const Tq__Bye *)message)->finished;
    protobuf_c_message_free_unpacked(message, NULL);
    tqi_net_session_end(peer->session, false);
    return TQ_OK;
}

/* Asks the service where the payload goes, and keeps the destinations for the handler. */
static int peer_places(const tqi_net_peer *peer, uint64_t size, struct iovec *iov, int *count, tq_error *err)
{
    const tqi_net_server *server = peer->server;
    tqi_net_request *request = peer->incoming;

    if (server->service->sink == NULL) {
        return tqi_error_set(err, TQ_EUNSUPPORTED, "requests of kind %u take no payload", (unsigned)request->kind);
    }
    int rc = server->service->sink(request, request->message, size, iov, TQI_NET_SINK_MAX, count, server->ctx, err);
    if (rc != TQ_OK) {
        return rc;
    }
    uint64_t sum = 0;
    for (int i = 0; i < *count && i < TQI_NET_SINK_MAX; i++) {
        sum += iov[i].iov_len;
    }
    if (sum != size || *count > TQI_NET_SINK_MAX) {
        rc = tqi_error_set(err, TQ_EINTERNAL, "the places for a payload are not of its size");
    } else {
        request->iov = malloc((size_t)*count * sizeof(*iov));
        rc = request->iov != NULL ? TQ_OK : tqi_error_nomem(err, "places of a payload");
    }
    if (rc != TQ_OK || request->iov == NULL) {
        if (server->service->sink_failed != NULL) {
            server->service->sink_failed(request, server->ctx);
        }
        return rc;
    }
    memcpy(request->iov, iov, (size_t)*count * sizeof(*iov));
    request->n_iov = *count;
    return TQ_OK;
}

/* If the payload cannot be taken, the request fails, *count is 0, and the payload is dropped. */
static void peer_sink(tqi_net_peer *peer, uint64_t size, struct iovec *iov, int *count)
{
    tq_error refused = {0};
    int rc = peer_places(peer, size, iov, count, &refused);

    if (rc != TQ_OK) {
        tqi_net_request *request = peer->incoming;
        refused.code = rc;
        *count = 0;
        peer->incoming = NULL;
        tqi_net_request_fail(request, &refused);
    }
}

/* A request that is already known: either it is running (its reply will go to this connection) or its reply is kept. */
static int peer_repeated(tqi_net_request *request, const tqi_frame *frame, tq_error *err)
{
    if (request->kind != frame->kind) {
        return tqi_error_set(err, TQ_EPROTO, "malformed frame: request %llu is of kind %u, not %u",
                             (unsigned long long)frame->request, (unsigned)request->kind, (unsigned)frame->kind);
    }
    if (request->answered) {
        tqi_net_request_repeat(request);
    }
    return TQ_OK;
}

static int peer_request(tqi_net_peer *peer, const tqi_frame *frame, const uint8_t *body, struct iovec *iov, int *count,
                        tq_error *err)
{
    tqi_net_server *server = peer->server;
    tqi_net_session *session = peer->session;
    const tqi_method *method = tqi_method_find(frame->kind);
    bool keep = method != NULL && method->keep;
    tqi_net_request *request;

    HASH_FIND(hh, session->requests, &frame->request, sizeof frame->request, request);
    if (request != NULL) {
        return peer_repeated(request, frame, err);
    }
    if (keep && tqi_net_request_below(frame->request, session->acked)) {
        return TQ_OK;
    }
    request = tqi_net_request_make(session, frame->kind, keep, frame->request);
    if (request == NULL) {
        return tqi_error_nomem(err, "a request");
    }
    if (method == NULL || !server->service->serves(frame->kind, server->ctx)) {
        tq_error refused;
        tqi_error_set(&refused, TQ_EUNSUPPORTED, "%s does not answer requests of kind %u (%s)", server->service->name,
                      (unsigned)frame->kind, method != NULL ? method->name : "unknown");
        tqi_net_request_fail(request, &refused);
        return TQ_OK;
    }
    tq_error full = {0};
    if (tqi_net_session_admit(session, frame->kind, keep, &full) != TQ_OK) {
        tqi_net_request_fail(request, &full);
        return TQ_OK;
    }
    request->message = tqi_request_decode(method->request, body, frame->body, &request->memory, err);
    if (request->message == NULL && err->code != TQ_EPROTO &&
        !(err->code == TQ_ENOMEM && tqi_net_gives_back(frame->kind))) {
        /* The frame arrived completely, so the connection can continue without it. */
        tq_error refused = *err;
        tqi_net_request_fail(request, &refused);
        return TQ_OK;
    }
    if (request->message == NULL) {
        tqi_net_request_free(request);
        return err->code;
    }
    peer->incoming = request;
    if (frame->payload > 0) {
        peer_sink(peer, frame->payload, iov, count);
    }
    /* While it waits for the payload, it holds the message but no longer the body. */
    bool large = *count > 0 && request->memory > TQI_NET_CONN_INPUT;
    return tqi_net_conn_incoming(peer->conn, large ? request->memory : 0, err);
}

/* --- the ops -------------------------------------------------------------- */

static int peer_on_head(tqi_net_conn *conn, const tqi_frame *frame, tq_error *err)
{
    const tqi_net_peer *peer = conn->owner;

    if (peer->session == NULL) {
        if (frame->kind != TQI_HELLO || frame->body > TQI_NET_HELLO_MAX || frame->payload > 0) {
            return tqi_error_set(err, TQ_EPROTO, "malformed frame: kind %u, %u + %llu bytes, before a Hello",
                                 (unsigned)frame->kind, (unsigned)frame->body, (unsigned long long)frame->payload);
        }
        return TQ_OK;
    }
    bool control = frame->kind == TQI_ACK || frame->kind == TQI_CANCEL || frame->kind == TQI_BYE;
    if (frame->flags != 0 || (control && frame->payload > 0) || (!control && frame->kind < TQI_PUBLISH) ||
        (!control && frame->request == 0)) {
        return tqi_error_set(err, TQ_EPROTO,
                             "malformed frame: kind %u, request %llu, flags 0x%x is no frame of a client",
                             (unsigned)frame->kind, (unsigned long long)frame->request, (unsigned)frame->flags);
    }
    return TQ_OK;
}

static int peer_on_body(tqi_net_conn *conn, const tqi_frame *frame, const uint8_t *body, struct iovec *iov, int *count,
                        tq_error *err)
{
    tqi_net_peer *peer = conn->owner;

    if (peer->session == NULL) {
        return peer_hello(peer, body, frame->body, err);
    }
    tqi_net_session_ack(peer->session, frame->ack);
    tqi_net_peer_not_idle(peer);
    if (conn->closed) {
        return TQ_OK;
    }
    switch (frame->kind) {
    case TQI_ACK:
        return peer_ack(peer, body, frame->body, err);
    case TQI_CANCEL:
        return peer_cancel(peer, body, frame->body, err);
    case TQI_BYE:
        return peer_bye(peer, body, frame->body, err);
    default:
        return peer_request(peer, frame, body, iov, count, err);
    }
}

static int peer_on_done(tqi_net_conn *conn, const tqi_frame *frame, tq_error *err)
{
    tqi_net_peer *peer = conn->owner;
    tqi_net_server *server = peer->server;
    tqi_net_request *request = peer->incoming;

    (void)frame;
    if (request == NULL) {
        return TQ_OK;
    }
    tq_error nomem = {0};
    if (request->keep && tqi_net_request_prepare(request, TQI_NET_REPLY_ROOM, &nomem) != TQ_OK &&
        tqi_net_gives_back(request->kind)) {
        return tqi_error_nomem(err, "a request");
    }
    if (tqi_net_request_list(request) != TQ_OK) {
        return tqi_error_nomem(err, "a request");
    }
    peer->incoming = NULL;
    server->requests++;
    if (nomem.code != TQ_OK) {
        if (request->n_iov > 0 && server->service->sink_failed != NULL) {
            server->service->sink_failed(request, server->ctx);
        }
        tqi_net_request_fail(request, &nomem);
        return TQ_OK;
    }
    server->service->handle(request, request->message, server->ctx);
    return TQ_OK;
}

static void peer_on_broken(tqi_net_conn *conn, const tq_error *err)
{
    tqi_net_peer *peer = conn->owner;
    const char *component = peer->server->service->name;

    if (err->code == TQ_EVERSION && peer->session == NULL) {
        tq_error why = {0};
        tqi_frame_version_error(&why, "the client", conn->frame.version, "this server");
        peer_refuse(peer, TQ_EVERSION, why.message, true);
        return;
    }
    if (err->code == TQ_EIO) {
        tqi_log(TQI_DEBUG, component, "%s: %s", conn->peer, err->message);
    } else if (peer->session != NULL) {
        tqi_log(TQI_WARN, component, "connection of %s (%s) closed: %s", tqi_net_session_name(peer->session),
                conn->peer, err->message);
    } else {
        char what[TQ_ERROR_MESSAGE_MAX + 16];
        snprintf(what, sizeof(what), "closed: %s", err->message);
        tqi_net_server_warn(peer->server, conn->peer, what);
    }
    tqi_net_peer_close(peer);
}

/* The connection closed itself after its last frame. */
static void peer_on_finished(tqi_net_conn *conn)
{
    tqi_net_peer *peer = conn->owner;

    peer_discard_incoming(peer);
    tqi_net_greeting_remove(peer);
    tqi_net_session *session = peer->session;
    peer->session = NULL;
    if (session != NULL && session->peer == peer) {
        tqi_net_session_detach(session);
    }
}

static void peer_on_freed(tqi_net_conn *conn)
{
    tqi_net_peer *peer = conn->owner;
    tqi_net_server *server = peer->server;

    tqi_net_peer_set_parked(peer, false);
    DL_DELETE(server->peers, peer);
    free(peer);
    tqi_net_server_handle_closed(server);
}

static void peer_on_held(tqi_net_conn *conn)
{
    const tqi_net_peer *peer = conn->owner;
    tqi_net_session *session = peer->session;
    bool own = conn->queued > tqi_limits.queued_replies;

    tqi_limit_reached(own ? TQI_LIMIT_queued_replies : TQI_LIMIT_all_queued_replies);
    if (session != NULL && !session->held_told) {
        session->held_told = true;
        tqi_log(TQI_WARN, peer->server->service->name,
                "%s does not take its replies: %zu bytes wait, and it is not read from until it "
                "does (limits.%s)",
                tqi_net_session_name(session), conn->queued, own ? "queued_replies" : "all_queued_replies");
    }
}

static const tqi_net_conn_ops peer_ops = {
    .head = peer_on_head,
    .body = peer_on_body,
    .done = peer_on_done,
    .broken = peer_on_broken,
    .finished = peer_on_finished,
    .freed = peer_on_freed,
};

/* Finds out which process is at the other end of a unix socket. */
static void peer_credentials(tqi_net_peer *peer, int fd)
{
    struct ucred cred;
    socklen_t size = sizeof(cred);

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &size) == 0) {
        /* The number is 0 for a process of a namespace that is not visible from here. */
        peer->pid = cred.pid > 0 ? (uint64_t)cred.pid : 0;
        peer->same_user = cred.uid == peer->server->user;
    }
}

int tqi_net_peer_open(tqi_net_server *server, int fd, const struct sockaddr *addr, const char *peer_name, tq_error *err)
{
    bool unix_socket = addr == NULL;
    tqi_net_peer *peer = calloc(1, sizeof(*peer));

    if (peer == NULL) {
        return tqi_error_nomem(err, "a connection");
    }
    peer->server = server;
    if (unix_socket) {
        peer_credentials(peer, fd);
    }
    int rc =
        tqi_net_conn_open(server->loop, &server->flusher, fd, unix_socket, false, &peer_ops, peer, &peer->conn, err);
    if (rc != TQ_OK) {
        free(peer);
        return rc;
    }
    snprintf(peer->conn->peer, sizeof(peer->conn->peer), "%s", peer_name);
    peer->conn->limited = true;
    peer->conn->on_held = peer_on_held;
    DL_APPEND(server->peers, peer);
    server->handles++;
    peer->deadline = tqi_now() + server->handshake_ns;
    if (tqi_net_greeting_add(peer, addr) != TQ_OK) {
        peer->greeted = true;
        tqi_net_peer_close(peer); /* with its socket */
        return TQ_OK;
    }
    tqi_random(peer->nonce, sizeof(peer->nonce));
    Tq__Challenge challenge;
    tq__challenge__init(&challenge);
    challenge.nonce = (ProtobufCBinaryData){sizeof(peer->nonce), peer->nonce};
    if (unix_socket) {
        /* This tells a client with the token of a former system of that name that a different system now runs here. */
        challenge.system = server->system;
        challenge.started_us = server->started_us;
    }
    peer_send(peer, TQI_CHALLENGE, &challenge.base);
    tqi_net_server_arm_timer(server);
    return TQ_OK;
}
