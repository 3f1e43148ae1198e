/*
 * flush.c - the sending half of connections.
 *
 * Frames queued during one iteration of the loop are sent together, in as few sendmsg calls as their pieces allow,
 * right before the loop waits again (or right after it polled). The loop polls for writability only while the socket
 * is full.
 */
#include "net/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "base/error.h"

#define FLUSH_PIECES 256

/* Collects pieces of the queue's frames, up to a frame with descriptors that is not the first: descriptors travel with
 * a frame's first byte. */
static int flush_gather(tqi_net_conn *conn, struct iovec *vec, size_t *bytes)
{
    int n = 0;
    tqi_net_out_frame *tx;

    *bytes = 0;
    DL_FOREACH (conn->queue, tx) {
        bool begun = tx->segment > 0 || tx->offset > 0;
        if (tx->n_fds > 0 && n > 0 && !begun) {
            break;
        }
        size_t offset = tx->offset;
        for (int i = tx->segment; i < tx->n && n < FLUSH_PIECES; i++) {
            if (tx->iov[i].iov_len > offset) {
                vec[n].iov_base = (uint8_t *)tx->iov[i].iov_base + offset;
                vec[n].iov_len = tx->iov[i].iov_len - offset;
                *bytes += vec[n].iov_len;
                n++;
            }
            offset = 0;
        }
        if (n == FLUSH_PIECES) {
            break;
        }
    }
    return n;
}

static void flush_fds(struct msghdr *msg, void *control, const tqi_net_out_frame *tx)
{
    size_t size = sizeof(int) * (size_t)tx->n_fds;

    msg->msg_control = control;
    msg->msg_controllen = CMSG_SPACE(size);
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(msg);
    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(size);
    memcpy(CMSG_DATA(cmsg), tx->fds, size);
}

/* Removes `bytes` that were sent from the queue. */
static void flush_advance(tqi_net_conn *conn, size_t bytes)
{
    while (bytes > 0 && conn->queue != NULL) {
        tqi_net_out_frame *tx = conn->queue;
        tx->touched = true;
        while (tx->segment < tx->n) {
            size_t left = tx->iov[tx->segment].iov_len - tx->offset;
            if (left > bytes) {
                tx->offset += bytes;
                return;
            }
            bytes -= left;
            tx->segment++;
            tx->offset = 0;
        }
        tqi_net_conn_unqueue(conn, tx);
        conn->flusher->called_out |= tx->sent != NULL;
        tqi_net_out_frame_settle(tx);
        tqi_net_out_frame_unref(tx);
    }
}

/* Makes one sendmsg call. Returns whether it took everything. */
static bool flush_once(tqi_net_conn *conn)
{
    struct iovec vec[FLUSH_PIECES];
    union {
        char space[CMSG_SPACE(sizeof(int) * TQI_NET_FDS_MAX)];
        struct cmsghdr align;
    } control;
    struct msghdr msg = {.msg_iov = vec};
    size_t bytes;

    msg.msg_iovlen = (size_t)flush_gather(conn, vec, &bytes);
    const tqi_net_out_frame *first = conn->queue;
    if (first->n_fds > 0 && first->segment == 0 && first->offset == 0) {
        memset(&control, 0, sizeof(control));
        flush_fds(&msg, &control, first);
    }
    ssize_t sent;
    do {
        sent = sendmsg(conn->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (sent < 0 && errno == EINTR);
    if (sent < 0) {
        /* Reading will show what broke, after whatever the peer sent before it closed. */
        conn->tx_broken = errno != EAGAIN && errno != EWOULDBLOCK;
        return false;
    }
    flush_advance(conn, (size_t)sent);
    return (size_t)sent == bytes;
}

void tqi_net_conn_flush(tqi_net_conn *conn)
{
    if (conn->closed || conn->connecting) {
        return;
    }
    bool full = false;
    while (conn->queue != NULL && !conn->tx_broken && !full && !conn->closed) {
        full = !flush_once(conn);
    }
    if (conn->closed) {
        return;
    }
    if (conn->finishing && (conn->queue == NULL || conn->tx_broken)) {
        tqi_net_conn_close(conn);
        if (conn->ops->finished != NULL) {
            conn->ops->finished(conn);
        }
        return;
    }
    if (conn->held && !tqi_net_conn_stuffed(conn)) {
        tqi_net_conn_resume(conn);
        if (conn->closed) {
            return;
        }
    }
    tqi_net_conn_arm(conn);
}

static void flusher_round(tqi_net_flusher *flusher)
{
    if (flusher->tick != NULL) {
        flusher->tick(flusher->owner);
    }
    while (flusher->dirty != NULL) {
        tqi_net_conn *conn = flusher->dirty;
        DL_DELETE2(flusher->dirty, conn, dirty_prev, dirty_next);
        conn->dirty = false;
        tqi_net_conn_flush(conn);
    }
}

static void flusher_on_wake(uv_idle_t *handle)
{
    (void)handle; /* it only has to be active, so that the loop does not block */
}

static void flusher_on_prepare(uv_prepare_t *handle)
{
    tqi_net_flusher *flusher = handle->data;

    flusher->called_out = false;
    flusher_round(flusher);
    if (flusher->called_out && !uv_is_closing((uv_handle_t *)&flusher->wake)) {
        uv_idle_start(&flusher->wake, flusher_on_wake);
    }
}

static void flusher_on_check(uv_check_t *handle)
{
    tqi_net_flusher *flusher = handle->data;

    uv_idle_stop(&flusher->wake);
    flusher_round(flusher);
}

void tqi_net_flusher_init(tqi_net_flusher *flusher, uv_loop_t *loop, void (*tick)(void *owner), void *owner)
{
    memset(flusher, 0, sizeof(*flusher));
    flusher->tick = tick;
    flusher->owner = owner;
    /* Neither these nor starting them can fail; they do not keep the loop alive. */
    uv_prepare_init(loop, &flusher->prepare);
    uv_check_init(loop, &flusher->check);
    uv_idle_init(loop, &flusher->wake);
    flusher->prepare.data = flusher;
    flusher->check.data = flusher;
    flusher->wake.data = flusher;
    uv_prepare_start(&flusher->prepare, flusher_on_prepare);
    uv_check_start(&flusher->check, flusher_on_check);
    uv_unref((uv_handle_t *)&flusher->prepare);
    uv_unref((uv_handle_t *)&flusher->check);
    uv_unref((uv_handle_t *)&flusher->wake);
    flusher->open = 3;
}

static void flusher_on_closed(uv_handle_t *handle)
{
    tqi_net_flusher *flusher = handle->data;

    if (--flusher->open == 0) {
        free(flusher->input);
        free(flusher->sink);
        flusher->freed(flusher->owner);
    }
}

void tqi_net_flusher_stop(tqi_net_flusher *flusher, void (*freed)(void *owner))
{
    flusher->freed = freed;
    uv_close((uv_handle_t *)&flusher->prepare, flusher_on_closed);
    uv_close((uv_handle_t *)&flusher->check, flusher_on_closed);
    uv_close((uv_handle_t *)&flusher->wake, flusher_on_closed);
}
