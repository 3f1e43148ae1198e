/*
 * session.c - sessions of a server: their table, the death of their process, their kept replies, and how they end.
 */
#include "net/serving.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/pointer.h"

/* --- the process of a session --------------------------------------------- */

static void session_on_exit(tqi_net_exit *exit, const char *failed)
{
    tqi_net_session *session = TQI_CONTAINER(exit, tqi_net_session, exit);
    const char *component = session->server->service->name;
    unsigned long long pid = session->process->pid;

    if (failed != NULL) {
        /* Its session ends like one without a process. */
        tqi_log(TQI_WARN, component, "the end of process %llu of session %s cannot be watched for any more: %s", pid,
                tqi_net_session_name(session), failed);
        return;
    }
    tqi_log(TQI_DEBUG, component, "process %llu of session %s has ended", pid, tqi_net_session_name(session));
    if (session->peer != NULL && !session->peer->conn->closed && !session->peer->conn->finishing) {
        /* What it sent before is still read: it may acknowledge a claim, or send a goodbye. */
        tqi_net_conn_receive(session->peer->conn, true);
    }
    tqi_net_session_end(session, true);
}

/* Watches the process behind a unix socket; a session without one simply is not local. */
static void session_watch(tqi_net_session *session, const tqi_net_peer *peer)
{
    if (session->process != NULL || !peer->conn->unix_socket) {
        return;
    }
    session->pid = peer->pid;
    if (peer->pid == 0) {
        snprintf(session->remote, sizeof(session->remote),
                 "it runs in another pid namespace, where its end is not seen");
        return;
    }
    int errnum = 0;
    session->process = tqi_net_process_get(session->server, peer->conn->fd, peer->pid, &errnum);
    if (session->process == NULL) {
        char reason[64];
        snprintf(session->remote, sizeof(session->remote), "its end cannot be watched, for there is no pidfd: %s",
                 strerror_r(errnum, reason, sizeof(reason)));
        tqi_log(TQI_DEBUG, session->server->service->name, "session %s: %s", tqi_net_session_name(session),
                session->remote);
        return;
    }
    session->exit.fn = session_on_exit;
    tqi_net_process_on_exit(session->process, &session->exit);
}

/* --- the table ------------------------------------------------------------ */

tqi_net_session *tqi_net_session_find(tqi_net_server *server, const uint8_t *id)
{
    tqi_net_session *session;

    HASH_FIND(hh, server->sessions, id, TQI_NET_SESSION_ID, session);
    return session;
}

/* A copy fit for a log line. */
static char *session_text(const char *text)
{
    char *copy = strdup(text);

    for (char *at = copy; at != NULL && *at; at++) {
        if ((unsigned char)*at < 0x20 || *at == 0x7F) {
            *at = '?';
        }
    }
    return copy;
}

static void session_free(tqi_net_session *session)
{
    free(session->name);
    free(session->host);
    free(session);
}

tqi_net_session *tqi_net_session_make(tqi_net_server *server, const uint8_t *id, const char *name, const char *host,
                                      uint64_t pid)
{
    tqi_net_session *session = calloc(1, sizeof(*session));

    if (session == NULL) {
        return NULL;
    }
    session->name = session_text(name);
    session->host = session_text(host);
    if (session->name == NULL || session->host == NULL) {
        session_free(session);
        return NULL;
    }
    memcpy(session->id, id, TQI_NET_SESSION_ID);
    session->server = server;
    session->pid = pid;
    session->instance = tqi_random_id();
    session->opened = tqi_now();
    if (!TQI_HASH_ADD(server->sessions, id, session)) {
        session_free(session);
        return NULL;
    }
    return session;
}

void tqi_net_session_attach(tqi_net_session *session, tqi_net_peer *peer)
{
    tqi_net_server *server = session->server;

    if (session->peer != NULL) {
        /* The client came back before the server noticed that its old connection had ended. */
        tqi_net_peer *old = session->peer;
        session->peer = NULL;
        tqi_net_peer_close(old);
    } else if (session->deadline != 0) {
        DL_DELETE(server->lost, session);
        session->deadline = 0;
    }
    session->peer = peer;
    peer->session = session;
    memcpy(session->endpoint, peer->conn->peer, sizeof(session->endpoint));
    session_watch(session, peer);
}

void tqi_net_session_detach(tqi_net_session *session)
{
    tqi_net_server *server = session->server;

    session->peer = NULL;
    if (server->grace_ns == 0) {
        tqi_net_session_end(session, false);
        return;
    }
    session->deadline = tqi_now() + server->grace_ns;
    DL_APPEND(server->lost, session);
    tqi_net_server_arm_timer(server);
}

void tqi_net_session_ack_but(tqi_net_session *session, uint64_t below, const uint64_t *waiting, size_t n)
{
    tqi_net_request *request, *next, *arrived = NULL;
    size_t at = 0;

    for (request = session->keeps; request != NULL && tqi_net_request_below(request->number, below); request = next) {
        next = request->next;
        while (at < n && tqi_net_request_below(waiting[at], request->number)) {
            at++;
        }
        /* Running ones are passed over. */
        if (request->answered && (at == n || waiting[at] != request->number)) {
            tqi_net_request_unlist(request);
            DL_APPEND(arrived, request);
        }
    }
    while (arrived != NULL) {
        request = arrived;
        DL_DELETE(arrived, request);
        tqi_net_request_settle(request, true);
        tqi_net_request_free(request);
    }
}

void tqi_net_session_ack(tqi_net_session *session, uint64_t ack)
{
    if (ack == 0 || (session->acked != 0 && !tqi_net_request_below(session->acked, ack))) {
        return;
    }
    session->acked = ack;
    tqi_net_session_ack_but(session, ack, NULL, 0);
}

static void session_cancel_running(tqi_net_session *session)
{
    tqi_net_request *request, *next;

    for (request = session->requests; request != NULL; request = next) {
        next = request->hh.next;
        if (request->answered || request->cancel != NULL) {
            continue;
        }
        /* It ends by itself, without a session. */
        HASH_DEL(session->requests, request);
        if (request->keep) {
            DL_DELETE(session->keeps, request);
        }
        request->listed = false;
        tqi_net_request_stopped(request);
        request->session = NULL;
    }
    while (session->running > 0) {
        request = session->requests;
        while (request != NULL && request->answered) {
            request = request->hh.next;
        }
        if (request == NULL || request->cancel == NULL) {
            break; /* never happens: sessions without one were removed above */
        }
        size_t before = session->running;
        void (*cancel)(tqi_net_request *, void *) = request->cancel;
        request->cancel = NULL;
        cancel(request, request->cancel_arg);
        if (session->running >= before) {
            tqi_log(TQI_ERROR, session->server->service->name, "a cancelled request of kind %u was not ended",
                    (unsigned)request->kind);
            abort();
        }
    }
}

static void session_unlist(tqi_net_session *session)
{
    HASH_DEL(session->server->sessions, session);
    if (session->process != NULL) {
        tqi_net_process_off_exit(session->process, &session->exit);
        tqi_net_process_unref(session->process);
        session->process = NULL;
    }
}

void tqi_net_session_unmake(tqi_net_session *session)
{
    session_unlist(session);
    session->peer->session = NULL;
    session_free(session);
}

void tqi_net_session_end(tqi_net_session *session, bool dead)
{
    tqi_net_server *server = session->server;

    if (session->ended) {
        return;
    }
    session->ended = true;
    session_unlist(session);
    if (session->deadline != 0) {
        DL_DELETE(server->lost, session);
        session->deadline = 0;
    }
    if (session->peer != NULL) {
        tqi_net_peer *peer = session->peer;
        session->peer = NULL;
        tqi_net_peer_close(peer);
    }
    session_cancel_running(session);
    while (session->requests != NULL) {
        tqi_net_request *request = session->requests;
        tqi_net_request_settle(request, false);
        tqi_net_request_free(request);
    }
    if (server->service->session_end != NULL) {
        server->service->session_end(session, dead, server->ctx);
    }
    DL_APPEND(server->ended, session);
}

void tqi_net_session_reap(tqi_net_server *server)
{
    while (server->ended != NULL) {
        tqi_net_session *session = server->ended;
        DL_DELETE(server->ended, session);
        session_free(session);
    }
}

/* --- what others ask ------------------------------------------------------ */

const uint8_t *tqi_net_session_id(const tqi_net_session *session)
{
    return session->id;
}

const char *tqi_net_session_name(const tqi_net_session *session)
{
    return session->name;
}

uint64_t tqi_net_session_pid(const tqi_net_session *session)
{
    return session->pid;
}

bool tqi_net_session_left(const tqi_net_session *session)
{
    return session->left;
}

bool tqi_net_session_finished(const tqi_net_session *session)
{
    return session->finished;
}

int tqi_net_session_pidfd_for_tests(const tqi_net_session *session)
{
    return session->process != NULL ? tqi_net_process_fd(session->process) : -1;
}

tqi_net_process *tqi_net_session_process(const tqi_net_session *session)
{
    return session->process;
}

const char *tqi_net_session_host(const tqi_net_session *session)
{
    return session->host;
}

const char *tqi_net_session_endpoint(const tqi_net_session *session)
{
    return session->endpoint;
}

bool tqi_net_session_connected(const tqi_net_session *session)
{
    return session->peer != NULL;
}

uint64_t tqi_net_session_age_ms(const tqi_net_session *session)
{
    return (tqi_now() - session->opened) / 1000000;
}

bool tqi_net_session_local(const tqi_net_session *session)
{
    return session->process != NULL && session->peer != NULL && session->peer->same_user &&
           session->peer->pid == session->process->pid;
}

const char *tqi_net_session_remote(const tqi_net_session *session)
{
    if (session->peer == NULL || !session->peer->conn->unix_socket) {
        return "it did not come over a unix socket";
    }
    if (!session->peer->same_user) {
        return "it is of another user";
    }
    return session->remote[0] ? session->remote : "its end cannot be watched";
}

void tqi_net_session_set_user(tqi_net_session *session, void *user)
{
    session->user = user;
}

void *tqi_net_session_user(const tqi_net_session *session)
{
    return session->user;
}
