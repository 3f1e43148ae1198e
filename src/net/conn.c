/*
 * conn.c - the life of a connection: open, poll, queue, close.
 */
#include "net/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <utlist.h>

#include "base/error.h"
#include "base/limits.h"

/* A connection with less than this in its queue is always read. */
#define CONN_QUEUED_FLOOR (64u << 10)

static void conn_on_event(uv_poll_t *poll, int status, int events)
{
    tqi_net_conn *conn = poll->data;
    if (conn->closed) {
        return;
    }
    if (conn->connecting) {
        int errnum = 0;
        socklen_t size = sizeof errnum;
        if (getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &errnum, &size) != 0) {
            errnum = errno;
        }
        if (status < 0 && errnum == 0) {
            errnum = EIO;
        }
        conn->connecting = false;
        if (errnum == 0) {
            tqi_net_conn_arm(conn);
        }
        conn->ops->opened(conn, errnum);
        return;
    }
    if (status < 0) {
        /* The socket has an error (libuv then stops polling): what arrived before it is still read. */
        conn->armed = 0;
        if (conn->finishing) {
            conn->tx_broken = true;
            tqi_net_conn_flush(conn);
        } else {
            tqi_net_conn_receive(conn, true);
        }
        return;
    }
    if (events & UV_WRITABLE) {
        tqi_net_conn_flush(conn);
    }
    if ((events & UV_READABLE) && !conn->closed && !conn->finishing) {
        tqi_net_conn_receive(conn, false);
    }
}

void tqi_net_conn_arm(tqi_net_conn *conn)
{
    int events = 0;
    if (conn->connecting) {
        events = UV_WRITABLE;
    } else {
        /* Reading reports the error of a socket that cannot be written to. */
        bool full = conn->queue && !conn->tx_broken && !conn->dirty;
        bool deaf = conn->finishing || tqi_net_conn_stuffed(conn);
        events = (deaf ? 0 : UV_READABLE) | (full || conn->finishing ? UV_WRITABLE : 0);
    }
    if (events != conn->armed && uv_poll_start(&conn->poll, events, conn_on_event) == 0) {
        conn->armed = events;
    }
}

int tqi_net_conn_open(uv_loop_t *loop, tqi_net_flusher *flusher, int fd, bool unix_socket, bool connecting,
                      const tqi_net_conn_ops *ops, void *owner, tqi_net_conn **out, tq_error *err)
{
    tqi_net_conn *conn = calloc(1, sizeof *conn);
    if (!conn) {
        return tqi_error_nomem(err, "a connection");
    }
    int rc = uv_poll_init(loop, &conn->poll, fd);
    if (rc != 0) {
        free(conn);
        return tqi_error_set(err, rc == UV_ENOMEM ? TQ_ENOMEM : TQ_EIO, "cannot poll a socket: %s", uv_strerror(rc));
    }
    conn->poll.data = conn;
    conn->ops = ops;
    conn->owner = owner;
    conn->flusher = flusher;
    conn->fd = fd;
    conn->unix_socket = unix_socket;
    conn->connecting = connecting;
    tqi_net_conn_arm(conn);
    *out = conn;
    return TQ_OK;
}

bool tqi_net_conn_stuffed(const tqi_net_conn *conn)
{
    /* A connection that cannot be written to is read, because reading shows that it has ended. */
    return conn->limited && !conn->tx_broken &&
           (conn->queued > tqi_limits.queued_replies ||
            (conn->queued > CONN_QUEUED_FLOOR && conn->flusher->queued > tqi_limits.all_queued_replies));
}

static void conn_take(tqi_net_conn *conn, size_t memory)
{
    tqi_net_flusher *flusher = conn->flusher;
    if (memory > 0 && conn->incoming == 0) {
        DL_APPEND2(flusher->larges, conn, large_prev, large_next);
    } else if (memory == 0 && conn->incoming > 0) {
        DL_DELETE2(flusher->larges, conn, large_prev, large_next);
    }
    flusher->incoming += memory;
    flusher->incoming -= conn->incoming;
    conn->incoming = memory;
}

int tqi_net_conn_incoming(tqi_net_conn *conn, size_t memory, tq_error *err)
{
    tqi_net_flusher *flusher = conn->flusher;
    if (!conn->limited || memory == conn->incoming) {
        return TQ_OK;
    }
    conn_take(conn, memory);
    /* A slow or stopped sender began before those that do finish, so the oldest is the one to close. */
    while (flusher->incoming > tqi_limits.incoming_bytes && flusher->larges && flusher->larges->large_next) {
        tqi_net_conn *oldest = flusher->larges;
        tqi_limit_reached(TQI_LIMIT_incoming_bytes);
        tq_error why;
        tqi_error_set(&why, TQ_EAGAIN,
                      "requests that come in take %zu bytes, at most %llu may be taken "
                      "(limits.incoming_bytes), and this one began first: if it was not stuck, "
                      "start the system with more",
                      flusher->incoming, (unsigned long long)tqi_limits.incoming_bytes);
        if (oldest == conn) {
            *err = why;
            return TQ_EAGAIN;
        }
        oldest->ops->broken(oldest, &why);
    }
    return TQ_OK;
}

void tqi_net_conn_unqueue(tqi_net_conn *conn, tqi_net_out_frame *tx)
{
    DL_DELETE(conn->queue, tx);
    tx->queued = false;
    conn->queued -= tx->size;
    conn->flusher->queued -= tx->size;
}

static void conn_mark_dirty(tqi_net_conn *conn)
{
    if (!conn->dirty) {
        conn->dirty = true;
        DL_APPEND2(conn->flusher->dirty, conn, dirty_prev, dirty_next);
    }
}

void tqi_net_conn_send(tqi_net_conn *conn, tqi_net_out_frame *tx)
{
    if (conn->closed || conn->finishing) {
        tqi_net_out_frame_settle(tx);
        tqi_net_out_frame_unref(tx);
        return;
    }
    tx->queued = true;
    DL_APPEND(conn->queue, tx);
    conn->queued += tx->size;
    conn->flusher->queued += tx->size;
    conn_mark_dirty(conn);
}

void tqi_net_conn_unsend(tqi_net_conn *conn, tqi_net_out_frame *tx)
{
    tqi_net_conn_unqueue(conn, tx);
    tqi_net_out_frame_unref(tx);
}

void tqi_net_conn_drop_payload(tqi_net_conn *conn)
{
    conn->drop = true;
}

void tqi_net_conn_finish(tqi_net_conn *conn)
{
    if (!conn->closed && !conn->finishing) {
        conn->finishing = true;
        conn_mark_dirty(conn);
    }
}

static void conn_on_closed(uv_handle_t *handle)
{
    tqi_net_conn *conn = handle->data;
    conn->ops->freed(conn);
    for (int i = 0; i < conn->n_fds; i++) {
        close(conn->fds[i]);
    }
    for (int i = 0; i < conn->n_frame_fds; i++) {
        if (conn->frame_fds[i] >= 0) {
            close(conn->frame_fds[i]);
        }
    }
    tqi_buf_fini(&conn->big);
    free(conn->sink);
    free(conn->input);
    free(conn);
}

void tqi_net_conn_close(tqi_net_conn *conn)
{
    if (conn->closed) {
        return;
    }
    conn->closed = true;
    conn_take(conn, 0);
    if (conn->dirty) {
        DL_DELETE2(conn->flusher->dirty, conn, dirty_prev, dirty_next);
        conn->dirty = false;
    }
    uv_close((uv_handle_t *)&conn->poll, conn_on_closed);
    if (conn->fd_slot) {
        atomic_store(conn->fd_slot, -1);
    }
    close(conn->fd);
    conn->fd = -1;
    while (conn->queue) {
        tqi_net_out_frame *tx = conn->queue;
        tqi_net_conn_unqueue(conn, tx);
        tqi_net_out_frame_settle(tx);
        tqi_net_out_frame_unref(tx);
    }
}
