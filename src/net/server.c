/*
 * server.c - listening sockets, the timer of a server (handshakes, grace times), its start and shutdown.
 */
#include "net/serving.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/crypto.h>
#include <utlist.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/text.h"

#define SERVER_ACCEPTS     64                    /* connections accepted per event */
#define SERVER_SAY_NS      UINT64_C(10000000000) /* between two logs of a lack of descriptors */

#define SERVER_OWN_HANDLES 2 /* the timer and the flusher */

struct tqi_net_listener {
    uv_poll_t poll;
    int fd;
    tqi_net_server *server;
    tqi_net_endpoint endpoint;
    int dir;      /* in which a unix socket lies; -1 for tcp */
    dev_t device; /* of the socket's file: it is removed only if it is still this one */
    ino_t inode;
    uint64_t resume; /* accepting is paused until then; 0 = not paused */
    bool looks;      /* it was paused: there may still be no room */
    tqi_net_listener *prev, *next;
};

static void server_free(tqi_net_server *server)
{
    tqi_net_session_reap(server);
    void (*done)(void *) = server->done;
    void *arg = server->done_arg;
    tqi_net_greeting_server(-1);
    OPENSSL_cleanse(&server->token, sizeof(server->token));
    free(server->system);
    free(server);
    if (done != NULL) {
        done(arg);
    }
}

static void server_on_timer_closed(uv_handle_t *handle)
{
    tqi_net_server_handle_closed(handle->data);
}

static void server_on_flusher_freed(void *owner)
{
    tqi_net_server_handle_closed(owner);
}

/* Closes the timer and the flusher once nothing else is left, because the last connections still need them. */
static void server_close_rest(tqi_net_server *server)
{
    if (server->closing && !server->closed && server->handles == SERVER_OWN_HANDLES) {
        server->closed = true;
        uv_close((uv_handle_t *)&server->timer, server_on_timer_closed);
        tqi_net_flusher_stop(&server->flusher, server_on_flusher_freed);
    }
}

void tqi_net_server_handle_closed(tqi_net_server *server)
{
    if (--server->handles == 0) {
        server_free(server);
        return;
    }
    server_close_rest(server);
}

void tqi_net_server_warn(tqi_net_server *server, const char *peer, const char *what)
{
    const char *component = server->service->name;
    uint64_t now = tqi_now();

    if (server->warned_since == 0 || now - server->warned_since > TQI_NET_WARN_NS) {
        if (server->warned > TQI_NET_WARN_MAX) {
            tqi_log(TQI_WARN, component, "%u more connection%s like these %s closed", server->warned - TQI_NET_WARN_MAX,
                    tqi_text_s(server->warned - TQI_NET_WARN_MAX),
                    server->warned - TQI_NET_WARN_MAX == 1 ? "was" : "were");
        }
        server->warned_since = now;
        server->warned = 0;
    }
    tqi_log(server->warned++ < TQI_NET_WARN_MAX ? TQI_WARN : TQI_DEBUG, component, "connection from %s %s", peer, what);
}

/* --- time ----------------------------------------------------------------- */

static void server_on_timer(uv_timer_t *timer);

void tqi_net_server_arm_timer(tqi_net_server *server)
{
    uint64_t next = TQI_NEVER;

    if (server->closing) {
        return;
    }
    if (server->greeting != NULL && server->greeting->deadline < next) {
        next = server->greeting->deadline;
    }
    if (server->greeting_own != NULL && server->greeting_own->deadline < next) {
        next = server->greeting_own->deadline;
    }
    if (server->lost != NULL && server->lost->deadline < next) {
        next = server->lost->deadline;
    }
    tqi_net_listener *listener;
    DL_FOREACH (server->listeners, listener) {
        if (listener->resume != 0 && listener->resume < next) {
            next = listener->resume;
        }
    }
    if (next == TQI_NEVER) {
        uv_timer_stop(&server->timer);
        return;
    }
    uint64_t now = tqi_now();
    uv_timer_start(&server->timer, server_on_timer, next > now ? (next - now) / 1000000 + 1 : 0, 0);
}

static void server_on_accept(uv_poll_t *poll, int status, int events);

/* Closes the connections of a list whose handshake time is over. */
static void server_close_late(tqi_net_server *server, tqi_net_peer **greeting, uint64_t now)
{
    while (*greeting && (*greeting)->deadline <= now) {
        tqi_net_peer *peer = *greeting;
        tqi_net_server_warn(server, peer->conn->peer, "closed: it did not authenticate in time");
        tqi_net_peer_close(peer);
    }
}

static void server_on_timer(uv_timer_t *timer)
{
    tqi_net_server *server = timer->data;
    uint64_t now = tqi_now();

    server_close_late(server, &server->greeting, now);
    server_close_late(server, &server->greeting_own, now);
    while (server->lost != NULL && server->lost->deadline <= now) {
        tqi_net_session_end(server->lost, false);
    }
    tqi_net_listener *listener;
    DL_FOREACH (server->listeners, listener) {
        if (listener->resume != 0 && listener->resume <= now) {
            listener->resume = 0;
            uv_poll_start(&listener->poll, UV_READABLE, server_on_accept);
        }
    }
    tqi_net_server_arm_timer(server);
}

/* --- sockets -------------------------------------------------------------- */

/* addr NULL: a unix socket. */
static void server_adopt(tqi_net_server *server, int fd, const struct sockaddr *addr, const char *peer_name)
{
    tq_error err;

    tqi_net_socket_tune(fd, addr == NULL);
    if (tqi_net_peer_open(server, fd, addr, peer_name, &err) != TQ_OK) {
        tqi_log(TQI_WARN, server->service->name, "connection from %s closed: %s", peer_name, err.message);
        close(fd);
        return;
    }
    tqi_net_greeting_limit(server, addr);
}

void tqi_net_server_adopt_for_tests(tqi_net_server *server, int fd, bool unix_socket, const char *peer_name)
{
    const struct sockaddr_in nowhere = {.sin_family = AF_INET};

    server_adopt(server, fd, unix_socket ? NULL : (const struct sockaddr *)&nowhere, peer_name);
}

static unsigned long long server_descriptors(void)
{
    struct rlimit limit;

    return getrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur : 0;
}

static void server_say_short(tqi_net_server *server, int errnum)
{
    uint64_t now = tqi_now();
    char reason[64];

    if (server->short_since != 0 && now - server->short_since < SERVER_SAY_NS) {
        return;
    }
    server->short_since = now;
    if (errnum == EMFILE) {
        tqi_log(TQI_WARN, server->service->name,
                "descriptors run out, of %llu that this process may have: connections wait until "
                "others end; its hard limit of open files (ulimit -Hn, LimitNOFILE) can be raised",
                server_descriptors());
    } else {
        tqi_log(TQI_WARN, server->service->name, "cannot accept connections: %s",
                strerror_r(errnum, reason, sizeof(reason)));
    }
}

/* Stops accepting for a short time: the connection that cannot be accepted stays ready and would make the loop spin. */
static void server_pause(tqi_net_listener *listener, int errnum)
{
    tqi_net_server *server = listener->server;
    int over = server->full > server->crowded ? server->full - server->crowded : 0;

    server_say_short(server, errnum);
    bool room = tqi_net_peer_make_room(server, TQI_NET_PARK_FULL, (unsigned)over + TQI_NET_PARK_FULL) > 0;
    uv_poll_stop(&listener->poll);
    listener->looks = true;
    listener->resume = tqi_now() + (room ? TQI_NET_ACCEPT_SOON_NS : TQI_NET_ACCEPT_PAUSE_NS);
    tqi_net_server_arm_timer(server);
}

/* Whether one more descriptor would not be among the last ones: an accepted connection cannot be put back to wait. */
static bool server_has_room(const tqi_net_listener *listener)
{
    int fd = fcntl(listener->fd, F_DUPFD_CLOEXEC, 0);

    if (fd >= 0) {
        close(fd);
    }
    return fd >= 0 && fd < listener->server->full;
}

static void server_on_accept(uv_poll_t *poll, int status, int events)
{
    tqi_net_listener *listener = poll->data;

    (void)status;
    (void)events;
    if (listener->looks && !server_has_room(listener) && !tqi_net_greeting_give_way(listener->server)) {
        server_pause(listener, EMFILE);
        return;
    }
    listener->looks = false;
    for (int i = 0; i < SERVER_ACCEPTS && listener->fd >= 0; i++) {
        struct sockaddr_storage addr = {.ss_family = AF_UNIX};
        socklen_t size = sizeof(addr);
        int fd = accept4(listener->fd, (struct sockaddr *)&addr, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            char name[TQI_NET_PEER_MAX];
            tqi_net_peer_format((const struct sockaddr *)&addr, name, sizeof(name));
            server_adopt(listener->server, fd, listener->endpoint.unix_socket ? NULL : (const struct sockaddr *)&addr,
                         name);
            if (fd >= listener->server->full && !tqi_net_greeting_give_way(listener->server)) {
                server_pause(listener, EMFILE);
                return;
            }
            if (fd >= listener->server->crowded) {
                tqi_net_peer_make_room(listener->server, TQI_NET_PARK_EACH,
                                       (unsigned)(fd - listener->server->crowded) + TQI_NET_PARK_EACH);
            }
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            int errnum = errno;
            if (!tqi_net_greeting_give_way(listener->server)) {
                server_pause(listener, errnum);
                return;
            }
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            return;
        }
        /* Any other error concerns only one connection. */
    }
}

int tqi_net_server_listen(tqi_net_server *server, const char *endpoint, char *bound, size_t bound_size, tq_error *err)
{
    char text[TQI_NET_ENDPOINT_MAX];
    tqi_net_listener *listener = calloc(1, sizeof(*listener));

    if (listener == NULL) {
        return tqi_error_nomem(err, "a listening socket");
    }
    int rc = tqi_net_endpoint_parse(endpoint, strlen(endpoint), &listener->endpoint, err);
    if (rc != TQ_OK) {
        goto fail;
    }
    rc = tqi_net_endpoint_listen(&listener->endpoint, &listener->fd, &listener->dir, text, sizeof(text), err);
    if (rc != TQ_OK) {
        goto fail;
    }
    if (bound != NULL && strlen(text) >= bound_size) {
        rc = tqi_error_set(err, TQ_EINVAL, "no room for the text of endpoint %s", text);
        goto fail_socket;
    }
    rc = uv_poll_init(server->loop, &listener->poll, listener->fd);
    if (rc != 0) {
        rc = tqi_error_set(err, TQ_EIO, "cannot poll endpoint %s: %s", text, uv_strerror(rc));
        goto fail_socket;
    }
    struct stat st;
    if (listener->dir >= 0 &&
        fstatat(listener->dir, tqi_net_endpoint_name(&listener->endpoint), &st, AT_SYMLINK_NOFOLLOW) == 0) {
        listener->device = st.st_dev;
        listener->inode = st.st_ino;
    }
    if (bound != NULL) {
        memcpy(bound, text, strlen(text) + 1);
    }
    listener->server = server;
    listener->poll.data = listener;
    uv_poll_start(&listener->poll, UV_READABLE, server_on_accept);
    DL_APPEND(server->listeners, listener);
    server->handles++;
    tqi_log(TQI_INFO, server->service->name, "listens on %s", text);
    return TQ_OK;
fail_socket:
    close(listener->fd);
    if (listener->dir >= 0) {
        unlinkat(listener->dir, tqi_net_endpoint_name(&listener->endpoint), 0);
        close(listener->dir);
    }
fail:
    free(listener);
    return rc;
}

static void server_on_listener_closed(uv_handle_t *handle)
{
    tqi_net_listener *listener = handle->data;
    tqi_net_server *server = listener->server;

    free(listener);
    tqi_net_server_handle_closed(server);
}

static void server_close_listener(tqi_net_listener *listener)
{
    const char *name = tqi_net_endpoint_name(&listener->endpoint);
    struct stat st;

    if (listener->dir >= 0) {
        if (fstatat(listener->dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && st.st_dev == listener->device &&
            st.st_ino == listener->inode) {
            unlinkat(listener->dir, name, 0);
        }
        close(listener->dir);
        listener->dir = -1;
    }
    uv_close((uv_handle_t *)&listener->poll, server_on_listener_closed);
    close(listener->fd);
    listener->fd = -1;
}

/* --- start and end -------------------------------------------------------- */

static void server_tick(void *owner)
{
    tqi_net_session_reap(owner);
}

int tqi_net_server_alloc(uv_loop_t *loop, const tqi_net_service *service, void *ctx,
                         const tqi_net_server_options *options, tqi_net_server **out, tq_error *err)
{
    if (options->epoch == 0 || options->token == NULL || options->token->size == 0) {
        return tqi_error_set(err, TQ_EINVAL, "%s needs an epoch and a token", service->name);
    }
    tqi_net_server *server = calloc(1, sizeof(*server));
    if (server == NULL) {
        return tqi_error_nomem(err, "a server");
    }
    server->loop = loop;
    server->service = service;
    server->system = strdup(options->system != NULL ? options->system : "");
    if (server->system == NULL) {
        free(server);
        return tqi_error_nomem(err, "a server");
    }
    server->ctx = ctx;
    server->started_us = tqi_wall_us();
    server->epoch = options->epoch;
    server->id = tqi_random_id();
    server->grace_ns = options->grace_ms > UINT64_MAX / 2000000 ? UINT64_MAX / 2 : options->grace_ms * 1000000;
    server->handshake_ns = TQI_NET_HANDSHAKE_NS;
    server->user = geteuid();
    server->token = *options->token;
    unsigned long long descriptors = server_descriptors();
    descriptors = descriptors < INT_MAX ? descriptors : INT_MAX;
    server->descriptors = (unsigned)descriptors;
    server->crowded = (int)(descriptors - descriptors / 8);
    server->full = (int)(descriptors - descriptors / 16);
    uv_timer_init(loop, &server->timer);
    server->timer.data = server;
    tqi_net_flusher_init(&server->flusher, loop, server_tick, server);
    server->handles = SERVER_OWN_HANDLES;
    tqi_net_greeting_server(1);
    *out = server;
    return TQ_OK;
}

void tqi_net_server_set_token(tqi_net_server *server, const tqi_net_token *token)
{
    server->token = *token;
}

void tqi_net_server_set_goodbye(tqi_net_server *server, tqi_net_ending ending, const char *who, const char *reason)
{
    server->says_goodbye = true;
    server->ending = ending;
    snprintf(server->who, sizeof(server->who), "%s", who);
    snprintf(server->reason, sizeof(server->reason), "%s", reason);
}

int64_t tqi_net_server_started_us(const tqi_net_server *server)
{
    return server->started_us;
}

/* Clients that did not read their Goodbye: they may be stopped, and must not delay the shutdown. */
static void server_on_linger(uv_timer_t *timer)
{
    tqi_net_server *server = timer->data;
    tqi_net_peer *peer;

    DL_FOREACH (server->peers, peer) {
        tqi_net_peer_close(peer);
    }
}

static void server_say_goodbye(tqi_net_server *server)
{
    Tq__Goodbye goodbye;
    tqi_net_peer *peer;

    tq__goodbye__init(&goodbye);
    goodbye.ending = (Tq__Ending)server->ending;
    goodbye.system = server->system;
    goodbye.server = server->who;
    goodbye.reason = server->reason;
    DL_FOREACH (server->peers, peer) {
        if (peer->session != NULL && peer->goodbyes && !peer->conn->closed && !peer->conn->finishing) {
            tqi_net_peer_goodbye(peer, &goodbye);
        }
    }
    uv_timer_start(&server->timer, server_on_linger, TQI_NET_LINGER_MS, 0);
}

void tqi_net_server_close(tqi_net_server *server, void (*done)(void *arg), void *arg)
{
    server->closing = true;
    server->done = done;
    server->done_arg = arg;
    while (server->listeners != NULL) {
        tqi_net_listener *listener = server->listeners;
        DL_DELETE(server->listeners, listener);
        server_close_listener(listener);
    }
    uv_timer_stop(&server->timer);
    if (server->says_goodbye) {
        server_say_goodbye(server);
    }
    while (server->sessions != NULL) {
        tqi_net_session_end(server->sessions, false);
    }
    tqi_net_peer *peer;
    DL_FOREACH (server->peers, peer) {
        if (!peer->conn->finishing) {
            tqi_net_peer_close(peer);
        }
    }
    server_close_rest(server);
}

void tqi_net_server_each_session(tqi_net_server *server, void (*fn)(tqi_net_session *session, void *arg), void *arg)
{
    tqi_net_session *session, *next;

    HASH_ITER (hh, server->sessions, session, next) {
        fn(session, arg);
    }
}

uint64_t tqi_net_server_id(const tqi_net_server *server)
{
    return server->id;
}

bool tqi_net_server_socket(const tqi_net_server *server, uint64_t *device, uint64_t *inode)
{
    const tqi_net_listener *listener;

    DL_FOREACH (server->listeners, listener) {
        if (listener->endpoint.unix_socket && listener->inode != 0) {
            *device = listener->device;
            *inode = listener->inode;
            return true;
        }
    }
    return false;
}

uint64_t tqi_net_server_requests(const tqi_net_server *server)
{
    return server->requests;
}
