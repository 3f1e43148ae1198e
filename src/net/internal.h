/*
 * internal.h - what the files of src/net share below servers and channels: endpoints, authentication, frames on their
 * way out (tx), and framed non-blocking connections (conn).
 *
 * Rules that the code above leans on:
 *   - Nothing is sent from within a call of the owner: frames are queued, and go out when the loop is about to wait
 *     (flusher).  So sending never calls back into the one who sends.
 *   - A connection's memory is given back from a closing callback of the loop only: it stays valid through every
 *     callback, whatever is closed inside.  After calling out, code looks at `closed`.
 */
#ifndef TQI_NET_INTERNAL_H
#define TQI_NET_INTERNAL_H

#include <netinet/in.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/buf.h"
#include "net/net.h"

/* ------------------------------------------------------------------------------------------------ endpoints */

#define TQI_ENDPOINT_MAX 300 /* bytes of one endpoint's text with its closing 0 */
#define TQI_PEER_MAX     80  /* likewise of a peer's address */
#define TQI_REASON_MAX   200 /* of a reason to end */
#define TQI_SYSTEM_MAX   256 /* of a system's name */

typedef struct tqi_endpoint {
    bool unix_socket;
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
    char host[TQI_HOST_MAX];
    char port[16];
    unsigned last_port; /* of a range to listen in, which begins at port; 0: no range */
} tqi_endpoint;

/* Parses one endpoint ("unix:/path", "tcp:host:port", "tcp:[v6]:port", "tcp:host:first-last") of `size` bytes.  TQ_EINVAL
 * names it. */
int tqi_endpoint_parse(const char *text, size_t size, tqi_endpoint *endpoint, tq_error *err);
/* Parses a list joined by commas; at least one.  The array is the caller's, to be freed. */
int tqi_endpoint_parse_list(const char *text, tqi_endpoint **out, size_t *count, tq_error *err);
/* "unix:/path", "tcp:host:port" */
void tqi_endpoint_format(const tqi_endpoint *endpoint, char *out, size_t size);
void tqi_endpoint_sockaddr_un(const tqi_endpoint *endpoint, struct sockaddr_un *addr,
                              socklen_t *size);
/* Name of a unix socket in its directory. */
const char *tqi_endpoint_name(const tqi_endpoint *endpoint);
/* A listening non-blocking socket, of a range at its first free port; `bound` gets the endpoint with its real port.  *dir_out,
 * unless NULL, is the directory in which a unix socket was made, from which it is to be removed; -1 for tcp. */
int tqi_endpoint_listen(const tqi_endpoint *endpoint, int *fd_out, int *dir_out, char *bound,
                        size_t bound_size, tq_error *err);
/* Address of the other end: "unix" or "tcp:1.2.3.4:5". */
void tqi_peer_format(const struct sockaddr *addr, char *out, size_t size);
/* Options of a connected tcp socket: no delay, dead peers are noticed. */
void tqi_socket_tune(int fd, bool unix_socket);

/* ------------------------------------------------------------------------------------------- authentication */

#define TQI_NONCE 32
#define TQI_PROOF 32

/* HMAC-SHA256(token, role | first nonce | second nonce | session). */
int tqi_auth_proof(const tqi_token *token, const char *role, const uint8_t first[TQI_NONCE],
                   const uint8_t second[TQI_NONCE], const uint8_t session[TQI_SESSION_ID],
                   uint8_t proof[TQI_PROOF]);
/* Compares in constant time. */
bool tqi_auth_equal(const uint8_t *a, const uint8_t *b, size_t size);

/* -------------------------------------------------------------------------------------------------- frames out */

/*
 * A frame to send, counted: the queue of a connection holds it, and so may a call that may have to be sent again or a
 * reply that is kept.  It is in one queue at most.
 */
typedef struct tqi_tx {
    struct tqi_tx *prev, *next;
    unsigned refs;
    bool queued;
    bool touched;  /* some of its bytes were sent, ever */
    int segment;   /* first segment that is not sent whole */
    size_t offset; /* bytes of it that are sent */
    int n_fds;
    int fds[TQI_FDS_MAX];    /* of whoever is told by `sent` */
    void (*sent)(void *arg); /* called once: sent, or connection lost */
    void *arg;
    size_t size;   /* bytes of it that are its own */
    uint8_t *copy; /* own copy of the payload, or NULL */
    size_t room;   /* bytes that the body may have */
    uint8_t header[TQI_FRAME_HEADER];
    int n;              /* segments: header, body, payload */
    struct iovec iov[]; /* then the body's bytes */
} tqi_tx;

/* A frame with its message packed (message may be NULL) and borrowed payload; refs is 1.  NULL: out of memory. */
tqi_tx *tqi_tx_make(const tqi_frame *frame, const ProtobufCMessage *message,
                    const struct iovec *payload, int count);
/* An empty frame with room for a body of so many bytes, to be filled later; refs is 1.  NULL: out of memory. */
tqi_tx *tqi_tx_room(size_t body);
/* Packs a message without payload into it; false when there is not enough room, and nothing has changed. */
bool tqi_tx_fill(tqi_tx *tx, const tqi_frame *frame, const ProtobufCMessage *message);
/* Changes the ack of a frame that is not sent yet. */
void tqi_tx_set_ack(tqi_tx *tx, uint64_t ack);
/* Makes the payload the frame's own, so that its memory may go away; TQ_OK or TQ_ENOMEM. */
int tqi_tx_own(tqi_tx *tx);
/* Sendable from its beginning again. */
void tqi_tx_rewind(tqi_tx *tx);
/* Calls `sent` if it was not called yet. */
void tqi_tx_settle(tqi_tx *tx);
void tqi_tx_rele(tqi_tx *tx);

/* ----------------------------------------------------------------------------------------------- connections */

#define TQI_CONN_INPUT 65536 /* bytes read ahead */
#define TQI_SINK_MAX   4096  /* pieces that a sink may give */

typedef struct tqi_conn tqi_conn;

/* What happens on a connection.  `conn->owner` is the owner's. */
typedef struct tqi_conn_ops {
    /* The outgoing connect ended: 0 or an errno. */
    void (*opened)(tqi_conn *conn, int errnum);
    /* A header is there.  An error ends the connection through `broken`. */
    int (*head)(tqi_conn *conn, const tqi_frame *frame, tq_error *err);
    /* The body is there (valid during the call), the payload is not.  Called also for a frame without payload; with one,
     * fills iov (at most TQI_SINK_MAX) with places of together frame->payload bytes, or leaves *count at 0: dropped. */
    int (*body)(tqi_conn *conn, const tqi_frame *frame, const uint8_t *body, struct iovec *iov,
                int *count, tq_error *err);
    /* The frame is complete. */
    int (*done)(tqi_conn *conn, const tqi_frame *frame, tq_error *err);
    /* The connection ended or broke the protocol; the owner must close it.  err->code is TQ_EPROTO, TQ_EVERSION, TQ_EIO
     * or what an operation above returned. */
    void (*broken)(tqi_conn *conn, const tq_error *err);
    /* Everything queued is sent and tqi_conn_finish was called; the connection is closed already.  May be NULL. */
    void (*finished)(tqi_conn *conn);
    /* From the loop, after tqi_conn_close: the memory is freed right after. */
    void (*freed)(tqi_conn *conn);
} tqi_conn_ops;

enum {
    TQI_RX_HEAD,
    TQI_RX_BODY,
    TQI_RX_PAYLOAD
};

/* Sends what was queued on its connections before the loop waits. */
typedef struct tqi_flusher {
    uv_prepare_t prepare;
    uv_check_t check;
    uv_idle_t
        wake; /* runs for one round after callbacks in prepare: somebody may wait for them with UV_RUN_ONCE */
    bool called_out;
    size_t queued;    /* of all connections */
    size_t incoming;  /* memory of large frames that come in, of all connections */
    tqi_conn *larges; /* those where one does, the one that began first in front */
    tqi_conn *dirty;
    uint8_t *
        input; /* lent to the connection that receives, as are the places of payloads; NULL while it is lent */
    struct iovec *sink;
    void (*tick)(void *owner); /* before each round; may be NULL */
    void *owner;
    void (*freed)(void *owner); /* after stop, when the handles are closed */
    int open;
} tqi_flusher;

struct tqi_conn {
    uv_poll_t poll;
    const tqi_conn_ops *ops;
    void *owner;
    tqi_flusher *flusher;
    int fd;
    atomic_int *
        fd_slot; /* where the owner noted fd for a forked child, or NULL; -1 again before fd is closed */
    int armed; /* events polled for */
    bool unix_socket;
    bool connecting;
    bool closed;
    bool finishing;
    bool tx_broken; /* sending failed; the reason comes with reading */
    bool want_fds;
    char peer[TQI_PEER_MAX];

    /* in */
    int state;
    tqi_frame frame;
    uint8_t *input; /* NULL while nothing is read ahead */
    size_t head, tail;
    tqi_buf big;     /* a body that does not fit in input */
    size_t incoming; /* memory of the frame at hand, if that is large: its body, then the message */
    tqi_conn *large_prev, *large_next;
    struct iovec *sink; /* NULL between payloads */
    int sink_at, sink_count;
    bool drop;
    uint64_t payload_left;
    bool much;                /* the socket is readable only when much is there (SO_RCVLOWAT) */
    int fds[2 * TQI_FDS_MAX]; /* received, not taken by a frame yet */
    int n_fds;
    int frame_fds
        [TQI_FDS_MAX]; /* of the frame at hand; the owner takes some by setting them to -1 */
    int n_frame_fds;

    /* out */
    tqi_tx *queue;
    size_t queued; /* bytes of its frames that are their own */
    bool limited;  /* it is not read from while too much is queued */
    bool held;     /* that is so */
    void (*on_held)(tqi_conn *conn);
    bool dirty;
    tqi_conn *dirty_prev, *dirty_next;

    tqi_conn *prev, *next; /* the owner's */
};

void tqi_flusher_init(tqi_flusher *flusher, uv_loop_t *loop, void (*tick)(void *owner),
                      void *owner);
/* Closes the handles; `freed` is called from the loop. */
void tqi_flusher_stop(tqi_flusher *flusher, void (*freed)(void *owner));

/* The frame at hand takes so much memory, 0 when it is done.  While all of the server's take more than limits.incoming_bytes,
 * the connection whose frame began first is closed; if that is this one it is TQ_EAGAIN.  One that is alone may go on. */
int tqi_conn_incoming(tqi_conn *conn, size_t memory, tq_error *err);

/* Takes a connected socket, or one whose connect is in progress.  On failure the socket stays the caller's. */
int tqi_conn_open(uv_loop_t *loop, tqi_flusher *flusher, int fd, bool unix_socket, bool connecting,
                  const tqi_conn_ops *ops, void *owner, tqi_conn **out, tq_error *err);
/* Queues; takes over one reference of tx. */
void tqi_conn_send(tqi_conn *conn, tqi_tx *tx);
/* Takes a frame that is queued and not touched out of the queue and drops the queue's reference. */
void tqi_conn_unsend(tqi_conn *conn, tqi_tx *tx);
/* Takes a frame out of the queue. */
void tqi_conn_unqueue(tqi_conn *conn, tqi_tx *tx);
/* The rest of the payload being received is not written to its places but dropped. */
void tqi_conn_drop_payload(tqi_conn *conn);
/* No more reading; closes when the queue is sent. */
void tqi_conn_finish(tqi_conn *conn);
/* Closes now.  Queued frames are settled.  May be repeated. */
void tqi_conn_close(tqi_conn *conn);

/* Between the files of the connection: sends what the socket takes; reads what is there; sets what is polled for. */
void tqi_conn_flush(tqi_conn *conn);
void tqi_conn_receive(tqi_conn *conn, bool last);
/* Takes what was read ahead, but not while too much is queued. */
void tqi_conn_resume(tqi_conn *conn);
/* Whether so much is queued that it is not read from. */
bool tqi_conn_stuffed(const tqi_conn *conn);
void tqi_conn_arm(tqi_conn *conn);

#endif
