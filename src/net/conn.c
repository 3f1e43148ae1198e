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

static void conn_on_event(uv_poll_t *poll, int status, int events)
{
    tqi_net_conn *conn = poll->data;

    if (conn->closed) {
        return;
    }
    if (conn->connecting) {
        int errnum = 0;
        socklen_t size = sizeof(errnum);
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
        bool full = conn->queue != NULL && !conn->tx_broken && !conn->dirty;
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
    tqi_net_conn *conn = calloc(1, sizeof(*conn));

    if (conn == NULL) {
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

void tqi_net_conn_send_message(tqi_net_conn *conn, const tqi_frame *frame, const ProtobufCMessage *message)
{
    tqi_net_out_frame *tx = tqi_net_out_frame_make(frame, message, NULL, 0);

    if (tx != NULL) {
        tqi_net_conn_send(conn, tx);
    } else {
        tqi_net_conn_finish(conn);
    }
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
    tqi_net_conn_take(conn, 0);
    if (conn->dirty) {
        DL_DELETE2(conn->flusher->dirty, conn, dirty_prev, dirty_next);
        conn->dirty = false;
    }
    uv_close((uv_handle_t *)&conn->poll, conn_on_closed);
    if (conn->fd_slot != NULL) {
        atomic_store(conn->fd_slot, -1);
    }
    close(conn->fd);
    conn->fd = -1;
    while (conn->queue != NULL) {
        tqi_net_out_frame *tx = conn->queue;
        tqi_net_conn_unqueue(conn, tx);
        tqi_net_out_frame_settle(tx);
        tqi_net_out_frame_unref(tx);
    }
}
