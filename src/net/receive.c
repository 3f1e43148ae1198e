/*
 * receive.c - the receiving half of connections: turns bytes into frames. Small frames are read ahead into an input
 * buffer, which a connection holds only while it needs it: one buffer serves all connections of a loop, and thousands
 * of idle ones cost nothing. A payload is read by the same recvmsg straight into the owner's destinations, followed by
 * the input buffer for whatever comes after it. The buffer of a body too large for it grows as bytes arrive, so that a
 * mere length reserves nothing.
 */
#include "net/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"

/* While more than this is missing of a payload, the reader waits until at least this much has arrived: otherwise it
 * would wake up, and take a core from the sender, for every few segments. */
#define RECEIVE_AT_ONCE   (256 << 10)
#define RECEIVE_PIECES    256
#define RECEIVE_ROUNDS    8          /* reads per event, so that one peer does not starve the others */
#define RECEIVE_BODY_STEP (1u << 20) /* a large body's buffer grows at least by that */

static size_t receive_ahead(const tqi_net_conn *conn)
{
    return conn->tail - conn->head;
}

static bool receive_body_is_big(const tqi_net_conn *conn)
{
    return conn->frame.body > TQI_NET_CONN_INPUT;
}

/* Copies bytes that were read ahead to the payload's destinations. */
static void receive_payload_ahead(tqi_net_conn *conn)
{
    while (conn->payload_left > 0 && receive_ahead(conn) > 0) {
        size_t n = receive_ahead(conn);
        if (n > conn->payload_left) {
            n = (size_t)conn->payload_left;
        }
        if (!conn->drop) {
            struct iovec *place = &conn->sink[conn->sink_at];
            if (n > place->iov_len) {
                n = place->iov_len;
            }
            if (n > 0) {
                memcpy(place->iov_base, conn->input + conn->head, n);
            }
            place->iov_base = (uint8_t *)place->iov_base + n;
            place->iov_len -= n;
            if (place->iov_len == 0) {
                conn->sink_at++;
            }
        }
        conn->head += n;
        conn->payload_left -= n;
    }
}

/* Descriptors of the frame that begins. */
static int receive_take_fds(tqi_net_conn *conn, tq_error *err)
{
    int want = (int)(conn->frame.flags >> TQI_FRAME_FDS_SHIFT & TQI_FRAME_FDS_MASK);

    if (want > conn->n_fds || want > TQI_NET_FDS_MAX) {
        return tqi_error_set(err, TQ_EPROTO, "malformed frame: it announces %d descriptors, %d came", want, conn->n_fds);
    }
    memcpy(conn->frame_fds, conn->fds, (size_t)want * sizeof(int));
    conn->n_frame_fds = want;
    conn->n_fds -= want;
    memmove(conn->fds, conn->fds + want, (size_t)conn->n_fds * sizeof(int));
    return TQ_OK;
}

static void receive_close_fds(tqi_net_conn *conn)
{
    for (int i = 0; i < conn->n_frame_fds; i++) {
        if (conn->frame_fds[i] >= 0) {
            close(conn->frame_fds[i]);
        }
    }
    conn->n_frame_fds = 0;
}

static int receive_head(tqi_net_conn *conn, tq_error *err)
{
    int rc = tqi_frame_decode(conn->input + conn->head, &conn->frame, err);

    conn->head += TQI_FRAME_HEADER;
    if (rc == TQ_OK) {
        rc = receive_take_fds(conn, err);
    }
    if (rc == TQ_OK) {
        rc = conn->ops->head(conn, &conn->frame, err);
    }
    conn->big.size = 0;
    conn->state = TQI_NET_RX_BODY;
    return rc;
}

static int receive_body(tqi_net_conn *conn, const uint8_t *body, tq_error *err)
{
    int count = 0;

    if (conn->frame.payload > 0 && conn->sink == NULL) {
        tqi_net_flusher *flusher = conn->flusher;
        conn->sink = flusher->sink != NULL ? flusher->sink : malloc(TQI_NET_SINK_MAX * sizeof(*conn->sink));
        flusher->sink = NULL;
        if (conn->sink == NULL) {
            return tqi_error_nomem(err, "places of a payload");
        }
    }
    int rc = conn->ops->body(conn, &conn->frame, body, conn->sink, &count, err);
    if (rc != TQ_OK || conn->closed) {
        return rc;
    }
    conn->payload_left = conn->frame.payload;
    conn->sink_at = 0;
    conn->sink_count = count;
    conn->drop = count == 0;
    conn->state = TQI_NET_RX_PAYLOAD;
    return TQ_OK;
}

/* Takes one step with the bytes read ahead; *more is false if it needs more bytes. */
static int receive_step(tqi_net_conn *conn, bool *more, tq_error *err)
{
    if (conn->state == TQI_NET_RX_HEAD) {
        *more = receive_ahead(conn) >= TQI_FRAME_HEADER;
        return *more ? receive_head(conn, err) : TQ_OK;
    }
    if (conn->state == TQI_NET_RX_BODY && !receive_body_is_big(conn)) {
        *more = receive_ahead(conn) >= conn->frame.body;
        if (!*more) {
            return TQ_OK;
        }
        const uint8_t *body = conn->input + conn->head;
        conn->head += conn->frame.body;
        return receive_body(conn, body, err);
    }
    if (conn->state == TQI_NET_RX_BODY) {
        size_t n = conn->frame.body - conn->big.size;
        if (n > receive_ahead(conn)) {
            n = receive_ahead(conn);
        }
        if (tqi_buf_append(&conn->big, conn->input + conn->head, n) != TQ_OK) {
            return tqi_error_nomem(err, "a message");
        }
        conn->head += n;
        *more = conn->big.size == conn->frame.body;
        if (!*more) {
            return TQ_OK;
        }
        int rc = receive_body(conn, conn->big.data, err);
        tqi_buf_fini(&conn->big);
        return rc;
    }
    receive_payload_ahead(conn);
    *more = conn->payload_left == 0;
    if (!*more) {
        return TQ_OK;
    }
    conn->state = TQI_NET_RX_HEAD;
    int rc = conn->ops->done(conn, &conn->frame, err);
    receive_close_fds(conn);
    return rc == TQ_OK && !conn->closed ? tqi_net_conn_incoming(conn, 0, err) : rc;
}

/* Whether nothing is processed now, because too much is queued. */
static bool receive_hold(tqi_net_conn *conn)
{
    bool stuffed = tqi_net_conn_stuffed(conn);

    if (stuffed && !conn->held && conn->on_held != NULL) {
        conn->on_held(conn);
    }
    conn->held = stuffed;
    return stuffed;
}

static int receive_parse(tqi_net_conn *conn, tq_error *err)
{
    bool more = true;
    int rc = TQ_OK;

    while (more && rc == TQ_OK && !conn->closed && !conn->finishing && !receive_hold(conn)) {
        rc = receive_step(conn, &more, err);
    }
    return rc;
}

/* Moves the bytes read ahead to the front if the current item would not fit after them. */
static void receive_make_room(tqi_net_conn *conn)
{
    if (conn->head == conn->tail) {
        conn->head = conn->tail = 0;
        return;
    }
    size_t need = conn->state == TQI_NET_RX_BODY ? conn->frame.body : TQI_FRAME_HEADER;
    if (conn->head + need > TQI_NET_CONN_INPUT || conn->tail == TQI_NET_CONN_INPUT) {
        memmove(conn->input, conn->input + conn->head, receive_ahead(conn));
        conn->tail -= conn->head;
        conn->head = 0;
    }
}

/* Where the next bytes go: the destinations of the current frame, then the input buffer. *direct is the size of the
 * former. */
static int receive_places(tqi_net_conn *conn, struct iovec *vec, int *count, size_t *direct, tq_error *err)
{
    int n = 0;

    *direct = 0;
    if (conn->state == TQI_NET_RX_BODY && receive_body_is_big(conn)) {
        size_t left = conn->frame.body - conn->big.size;
        size_t step = conn->big.size > RECEIVE_BODY_STEP ? conn->big.size : RECEIVE_BODY_STEP;
        if (tqi_buf_reserve(&conn->big, left < step ? left : step) != TQ_OK) {
            return tqi_error_nomem(err, "a message");
        }
        int rc = tqi_net_conn_incoming(conn, conn->big.capacity, err);
        if (rc != TQ_OK) {
            return rc;
        }
        size_t room = conn->big.capacity - conn->big.size;
        vec[n++] = (struct iovec){conn->big.data + conn->big.size, left < room ? left : room};
        *direct = vec[0].iov_len;
        if (*direct < left) {
            *count = n;
            return TQ_OK; /* what follows is still the body */
        }
    } else if (conn->state == TQI_NET_RX_PAYLOAD && !conn->drop) {
        int at = conn->sink_at;
        for (; at < conn->sink_count && n < RECEIVE_PIECES - 1; at++) {
            vec[n] = conn->sink[at];
            *direct += vec[n++].iov_len;
        }
        if (at < conn->sink_count) {
            *count = n;
            return TQ_OK; /* what follows still belongs to the sinks */
        }
    }
    receive_make_room(conn);
    vec[n++] = (struct iovec){conn->input + conn->tail, TQI_NET_CONN_INPUT - conn->tail};
    *count = n;
    return TQ_OK;
}

/* Accounts for `bytes` read into the destinations. */
static void receive_account(tqi_net_conn *conn, size_t bytes, size_t direct)
{
    size_t placed = bytes < direct ? bytes : direct;

    conn->tail += bytes - placed;
    if (placed == 0) {
        return;
    }
    if (conn->state == TQI_NET_RX_BODY) {
        conn->big.size += placed;
        return;
    }
    conn->payload_left -= placed;
    while (placed > 0) {
        struct iovec *place = &conn->sink[conn->sink_at];
        size_t n = placed < place->iov_len ? placed : place->iov_len;
        place->iov_base = (uint8_t *)place->iov_base + n;
        place->iov_len -= n;
        placed -= n;
        if (place->iov_len == 0) {
            conn->sink_at++;
        }
    }
}

static int receive_control(tqi_net_conn *conn, struct msghdr *msg, tq_error *err)
{
    bool overflow = (msg->msg_flags & MSG_CTRUNC) != 0;

    for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(msg); cmsg != NULL; cmsg = CMSG_NXTHDR(msg, cmsg)) {
        if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS) {
            continue;
        }
        size_t n = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(fd), sizeof(fd));
            if (conn->n_fds < (int)(sizeof(conn->fds) / sizeof(*conn->fds))) {
                conn->fds[conn->n_fds++] = fd;
            } else {
                close(fd);
                overflow = true;
            }
        }
    }
    return overflow ? tqi_error_set(err, TQ_EPROTO, "too many descriptors came with a frame") : TQ_OK;
}

/* Makes one recvmsg call and processes the result. *drained: the socket had less than there was room for. */
static int receive_once(tqi_net_conn *conn, bool *drained, tq_error *err)
{
    struct iovec vec[RECEIVE_PIECES];
    union {
        char space[CMSG_SPACE(sizeof(int) * TQI_NET_FDS_MAX)];
        struct cmsghdr align;
    } control;
    size_t direct = 0, room = 0;
    int count = 0;
    int rc = receive_places(conn, vec, &count, &direct, err);

    if (rc != TQ_OK) {
        return rc;
    }
    for (int i = 0; i < count; i++) {
        room += vec[i].iov_len;
    }
    struct msghdr msg = {.msg_iov = vec, .msg_iovlen = (size_t)count};
    if (conn->want_fds) {
        msg.msg_control = &control;
        msg.msg_controllen = sizeof(control);
    }
    ssize_t n;
    do {
        n = recvmsg(conn->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    } while (n < 0 && errno == EINTR);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        *drained = true;
        return TQ_OK;
    }
    if (n < 0) {
        char reason[128];
        return tqi_error_set(err, TQ_EIO, "connection lost: %s", strerror_r(errno, reason, sizeof(reason)));
    }
    if (n == 0) {
        return tqi_error_set(err, TQ_EIO, "connection closed by the peer");
    }
    *drained = (size_t)n < room;
    if (conn->want_fds && (rc = receive_control(conn, &msg, err)) != TQ_OK) {
        return rc;
    }
    receive_account(conn, (size_t)n, direct);
    return receive_parse(conn, err);
}

static int receive_borrow(tqi_net_conn *conn, tq_error *err)
{
    tqi_net_flusher *flusher = conn->flusher;

    if (conn->input == NULL) {
        conn->input = flusher->input != NULL ? flusher->input : malloc(TQI_NET_CONN_INPUT);
        flusher->input = NULL;
    }
    return conn->input != NULL ? TQ_OK : tqi_error_nomem(err, "what a connection reads ahead");
}

/* Gives back empty buffers, in any state of the connection. */
static void receive_return(tqi_net_conn *conn)
{
    tqi_net_flusher *flusher = conn->flusher;

    if (conn->input != NULL && (receive_ahead(conn) == 0 || conn->closed)) {
        conn->head = conn->tail = 0;
        if (flusher->input != NULL) {
            free(conn->input);
        } else {
            flusher->input = conn->input;
        }
        conn->input = NULL;
    }
    if (conn->sink != NULL && (conn->state == TQI_NET_RX_HEAD || conn->closed)) {
        if (flusher->sink != NULL) {
            free(conn->sink);
        } else {
            flusher->sink = conn->sink;
        }
        conn->sink = NULL;
    }
}

static void receive_all(tqi_net_conn *conn, bool last, tq_error *err)
{
    bool drained = false;
    int rc = receive_borrow(conn, err);

    for (int i = 0; (last || (i < RECEIVE_ROUNDS && !drained && !conn->held)) && rc == TQ_OK; i++) {
        drained = false;
        rc = receive_once(conn, &drained, err);
        if (conn->closed || conn->finishing) {
            return;
        }
        if (last && drained && rc == TQ_OK) {
            int errnum = 0;
            socklen_t size = sizeof(errnum);
            (void)getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &errnum, &size);
            char reason[128];
            rc = tqi_error_set(err, TQ_EIO, "connection lost: %s",
                               errnum ? strerror_r(errnum, reason, sizeof(reason)) : "socket error");
        }
    }
    if (rc != TQ_OK) {
        conn->ops->broken(conn, err);
    }
}

/* Sets how many bytes make the socket readable: never more than the payload still needs, because the peer may send
 * nothing after it. The end of the connection is noticed in any case. */
static void receive_set_least(tqi_net_conn *conn)
{
    bool much = !conn->unix_socket && conn->state == TQI_NET_RX_PAYLOAD && conn->payload_left >= RECEIVE_AT_ONCE;
    int least = much ? RECEIVE_AT_ONCE : 1;

    if (much != conn->much && setsockopt(conn->fd, SOL_SOCKET, SO_RCVLOWAT, &least, sizeof(least)) == 0) {
        conn->much = much;
    }
}

void tqi_net_conn_receive(tqi_net_conn *conn, bool last)
{
    tq_error err = {0};

    receive_all(conn, last, &err);
    if (!conn->closed) {
        receive_set_least(conn);
    }
    receive_return(conn);
}

void tqi_net_conn_resume(tqi_net_conn *conn)
{
    tq_error err = {0};

    conn->held = false;
    if (conn->input != NULL && receive_ahead(conn) > 0 && receive_parse(conn, &err) != TQ_OK) {
        conn->ops->broken(conn, &err);
    }
    if (!conn->closed) {
        receive_set_least(conn); /* less may be missing of the payload than when it was held */
    }
    receive_return(conn);
}
