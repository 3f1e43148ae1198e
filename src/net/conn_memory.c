/*
 * conn_memory.c - the memory that a connection takes: its queue, and its large incoming frame. With too much in its
 * queue it is not read; when the large frames of all connections take too much, the oldest of these is closed.
 */
#include "net/internal.h"

#include <utlist.h>

#include "base/error.h"
#include "base/limits.h"

/* A connection with less than this in its queue is always read. */
#define MEMORY_QUEUED_FLOOR (64u << 10)

bool tqi_net_conn_stuffed(const tqi_net_conn *conn)
{
    /* A connection that cannot be written to is read, because reading shows that it has ended. */
    return conn->limited && !conn->tx_broken &&
           (conn->queued > tqi_limits.queued_replies ||
            (conn->queued > MEMORY_QUEUED_FLOOR && conn->flusher->queued > tqi_limits.all_queued_replies));
}

void tqi_net_conn_take(tqi_net_conn *conn, size_t memory)
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
    tqi_net_conn_take(conn, memory);
    /* A slow or stopped sender began before those that do finish, so the oldest is the one to close. */
    while (flusher->incoming > tqi_limits.incoming_bytes && flusher->larges != NULL &&
           flusher->larges->large_next != NULL) {
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
