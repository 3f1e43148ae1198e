/*
 * internal.h - shared by the files of src/net, below servers and channels: endpoints, authentication, outgoing frames
 * (tx), and framed non-blocking connections (conn).
 *
 * Rules that the code above relies on:
 *   - Nothing is sent from within a call of the owner: frames are queued, and sent when the loop is about to wait
 *     (flusher). So sending never calls back into the sender.
 *   - A connection's memory is freed only from a closing callback of the loop: it stays valid during every callback,
 *     whatever that closes. After a callback, code must check `closed`.
 */
#ifndef TQI_NET_INTERNAL_H
#define TQI_NET_INTERNAL_H

#include <netinet/in.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/buf.h"
#include "net/net.h"

/* --- endpoints ------------------------------------------------------------ */

#define TQI_NET_ENDPOINT_MAX 300 /* bytes of one endpoint's text, including the terminating 0 */
#define TQI_NET_PEER_MAX     80  /* of the text of a peer's address */
#define TQI_NET_REASON_MAX   200 /* of a reason to end */
#define TQI_NET_SYSTEM_MAX   256 /* of a system's name */

typedef struct tqi_net_endpoint {
    bool unix_socket;
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
    char host[TQI_NET_HOST_MAX];
    char port[16];
    /* last port of a range to listen in, which begins at `port`; 0: no range */
    unsigned last_port;
} tqi_net_endpoint;

/* Parses one endpoint ("unix:/path", "tcp:host:port", "tcp:[v6]:port", "tcp:host:first-last") of `size` bytes.
 * TQ_EINVAL names it. */
int tqi_net_endpoint_parse(const char *text, size_t size, tqi_net_endpoint *endpoint, tq_error *err);
/* Parses a comma-separated list of at least one endpoint. The caller frees the array. */
int tqi_net_endpoint_parse_list(const char *text, tqi_net_endpoint **out, size_t *count, tq_error *err);
/* "unix:/path", "tcp:host:port" */
void tqi_net_endpoint_format(const tqi_net_endpoint *endpoint, char *out, size_t size);
void tqi_net_endpoint_sockaddr_un(const tqi_net_endpoint *endpoint, struct sockaddr_un *addr, socklen_t *size);
/* Name of a unix socket in its directory. */
const char *tqi_net_endpoint_name(const tqi_net_endpoint *endpoint);
/* Opens a listening non-blocking socket, for a range at the first free port; `bound` gets the endpoint with its actual
 * port. *dir_out (unless NULL) is the directory in which a unix socket was made and from which it must be removed; -1
 * for tcp. */
int tqi_net_endpoint_listen(const tqi_net_endpoint *endpoint, int *fd_out, int *dir_out, char *bound, size_t bound_size,
                            tq_error *err);
/* Address of the other end: "unix" or "tcp:1.2.3.4:5". */
void tqi_net_peer_format(const struct sockaddr *addr, char *out, size_t size);
/* Sets the options of a connected tcp socket: no delay, detection of dead peers. */
void tqi_net_socket_tune(int fd, bool unix_socket);

/* --- authentication ------------------------------------------------------- */

#define TQI_NET_NONCE 32
#define TQI_NET_PROOF 32

/* HMAC-SHA256(token, role | first nonce | second nonce | session). */
int tqi_net_auth_proof(const tqi_net_token *token, const char *role, const uint8_t first[TQI_NET_NONCE],
                       const uint8_t second[TQI_NET_NONCE], const uint8_t session[TQI_NET_SESSION_ID],
                       uint8_t proof[TQI_NET_PROOF]);
/* Compares in constant time. */
bool tqi_net_auth_equal(const uint8_t *a, const uint8_t *b, size_t size);

/* --- frames out ----------------------------------------------------------- */

/*
 * An outgoing frame, reference-counted: held by the queue of a connection, and perhaps by a call that may have to be
 * resent or by a kept reply. It is in at most one queue.
 */
typedef struct tqi_net_out_frame {
    struct tqi_net_out_frame *prev, *next;
    unsigned refs;
    bool queued;
    bool touched;  /* some of its bytes were sent, ever */
    int segment;   /* first segment not completely sent */
    size_t offset; /* bytes of it that are sent */
    int n_fds;
    int fds[TQI_NET_FDS_MAX]; /* owned by the party that `sent` notifies */
    void (*sent)(void *arg);  /* called once: sent, or connection lost */
    void *arg;
    size_t size;   /* bytes of it that are its own */
    uint8_t *copy; /* own copy of the payload, or NULL */
    size_t room;   /* bytes that the body may have */
    uint8_t header[TQI_FRAME_HEADER];
    int n;              /* segments: header, body, payload */
    struct iovec iov[]; /* then the body's bytes */
} tqi_net_out_frame;

/* A frame with its message packed (message may be NULL) and borrowed payload; refs is 1. NULL: out of memory. */
tqi_net_out_frame *tqi_net_out_frame_make(const tqi_frame *frame, const ProtobufCMessage *message,
                                          const struct iovec *payload, int count);
/* An empty frame with room for a body of that size, to be filled later; refs is 1. NULL: out of memory. */
tqi_net_out_frame *tqi_net_out_frame_room(size_t body);
/* Packs a message without payload into it; false, with nothing changed, if there is not enough room. */
bool tqi_net_out_frame_fill(tqi_net_out_frame *tx, const tqi_frame *frame, const ProtobufCMessage *message);
/* Changes the ack of a frame that has not been sent yet. */
void tqi_net_out_frame_set_ack(tqi_net_out_frame *tx, uint64_t ack);
/* Copies the payload into the frame, so that the original memory may be freed; TQ_OK or TQ_ENOMEM. */
int tqi_net_out_frame_own(tqi_net_out_frame *tx);
/* Sendable from its beginning again. */
void tqi_net_out_frame_rewind(tqi_net_out_frame *tx);
/* Calls `sent` if it was not called yet. */
void tqi_net_out_frame_settle(tqi_net_out_frame *tx);
void tqi_net_out_frame_unref(tqi_net_out_frame *tx);

/* --- connections ---------------------------------------------------------- */

#define TQI_NET_CONN_INPUT 65536 /* bytes read ahead */
#define TQI_NET_SINK_MAX   4096  /* pieces that a sink may give */

typedef struct tqi_net_conn tqi_net_conn;

/* Events of a connection. `conn->owner` is for the owner's use. */
typedef struct tqi_net_conn_ops {
    /* The outgoing connect finished: 0 or an errno. */
    void (*opened)(tqi_net_conn *conn, int errnum);
    /* A header has arrived. An error ends the connection through `broken`. */
    int (*head)(tqi_net_conn *conn, const tqi_frame *frame, tq_error *err);
    /* The body has arrived (valid during the call), the payload has not. Also called for a frame without payload. With
     * a payload, fills iov (at most TQI_NET_SINK_MAX) with destinations that add up to frame->payload bytes, or leaves
     * *count at 0: the payload is dropped. */
    int (*body)(tqi_net_conn *conn, const tqi_frame *frame, const uint8_t *body, struct iovec *iov, int *count,
                tq_error *err);
    /* The frame is complete. */
    int (*done)(tqi_net_conn *conn, const tqi_frame *frame, tq_error *err);
    /* The connection ended or broke the protocol; the owner must close it. err->code is TQ_EPROTO, TQ_EVERSION, TQ_EIO
     * or what an operation above returned. */
    void (*broken)(tqi_net_conn *conn, const tq_error *err);
    /* Everything queued was sent after tqi_net_conn_finish; the connection is already closed. May be NULL. */
    void (*finished)(tqi_net_conn *conn);
    /* Called from the loop after tqi_net_conn_close; the memory is freed right after it. */
    void (*freed)(tqi_net_conn *conn);
} tqi_net_conn_ops;

enum {
    TQI_NET_RX_HEAD,
    TQI_NET_RX_BODY,
    TQI_NET_RX_PAYLOAD
};

/* Sends the frames queued on its connections before the loop waits. */
typedef struct tqi_net_flusher {
    uv_prepare_t prepare;
    uv_check_t check;
    /* active for one round after callbacks in prepare: a caller may be waiting for them with UV_RUN_ONCE */
    uv_idle_t wake;
    bool called_out;
    size_t queued;        /* of all connections */
    size_t incoming;      /* memory of large incoming frames, of all connections */
    tqi_net_conn *larges; /* connections with such a frame, the one that began first at the front */
    tqi_net_conn *dirty;
    /* lent to the receiving connection, like the payload destinations; NULL while lent */
    uint8_t *input;
    struct iovec *sink;
    void (*tick)(void *owner); /* before each round; may be NULL */
    void *owner;
    void (*freed)(void *owner); /* after stop, when the handles are closed */
    int open;
} tqi_net_flusher;

struct tqi_net_conn {
    uv_poll_t poll;
    const tqi_net_conn_ops *ops;
    void *owner;
    tqi_net_flusher *flusher;
    int fd;
    /* where the owner recorded fd for a forked child, or NULL; reset to -1 before fd is closed */
    atomic_int *fd_slot;
    int armed; /* events polled for */
    bool unix_socket;
    bool connecting;
    bool closed;
    bool finishing;
    bool tx_broken; /* sending failed; reading will give the reason */
    bool want_fds;
    char peer[TQI_NET_PEER_MAX];

    /* in */
    int state;
    tqi_frame frame;
    uint8_t *input; /* NULL while nothing is read ahead */
    size_t head, tail;
    tqi_buf big;     /* a body that does not fit in input */
    size_t incoming; /* memory of the current frame, if large: its body, then the message */
    tqi_net_conn *large_prev, *large_next;
    struct iovec *sink; /* NULL between payloads */
    int sink_at, sink_count;
    bool drop;
    uint64_t payload_left;
    /* the socket becomes readable only when much has arrived (SO_RCVLOWAT) */
    bool much;
    int fds[2 * TQI_NET_FDS_MAX]; /* received, not taken by a frame yet */
    int n_fds;
    int frame_fds[TQI_NET_FDS_MAX]; /* of the current frame; the owner takes one by setting it to -1 */
    int n_frame_fds;

    /* out */
    tqi_net_out_frame *queue;
    size_t queued; /* bytes of its frames that are their own */
    bool limited;  /* not read while too much is queued */
    bool held;     /* too much is queued now */
    void (*on_held)(tqi_net_conn *conn);
    bool dirty;
    tqi_net_conn *dirty_prev, *dirty_next;

    tqi_net_conn *prev, *next; /* the owner's */
};

void tqi_net_flusher_init(tqi_net_flusher *flusher, uv_loop_t *loop, void (*tick)(void *owner), void *owner);
/* Closes the handles; `freed` is called from the loop. */
void tqi_net_flusher_stop(tqi_net_flusher *flusher, void (*freed)(void *owner));

/* The current frame takes `memory` bytes; 0 when it is done. While all of the server's frames take more than
 * limits.incoming_bytes, the connection whose frame began first is closed; if it is this one, TQ_EAGAIN. A lone
 * connection may continue. */
int tqi_net_conn_incoming(tqi_net_conn *conn, size_t memory, tq_error *err);

/* Takes ownership of a connected socket, or of one whose connect is in progress. On failure the caller keeps the
 * socket. */
int tqi_net_conn_open(uv_loop_t *loop, tqi_net_flusher *flusher, int fd, bool unix_socket, bool connecting,
                      const tqi_net_conn_ops *ops, void *owner, tqi_net_conn **out, tq_error *err);
/* Queues; takes over one reference of tx. */
void tqi_net_conn_send(tqi_net_conn *conn, tqi_net_out_frame *tx);
/* Queues a frame without payload that nobody resends. If there is no memory for it, the connection is finished: the
 * other end makes a new one. */
void tqi_net_conn_send_message(tqi_net_conn *conn, const tqi_frame *frame, const ProtobufCMessage *message);
/* Removes a queued frame of which nothing was sent from the queue and drops the queue's reference. */
void tqi_net_conn_unsend(tqi_net_conn *conn, tqi_net_out_frame *tx);
/* Drops the rest of the payload being received instead of writing it to its destinations. */
void tqi_net_conn_drop_payload(tqi_net_conn *conn);
/* Stops reading; closes once the queue is sent. */
void tqi_net_conn_finish(tqi_net_conn *conn);
/* Closes now. Queued frames are settled. May be called again. */
void tqi_net_conn_close(tqi_net_conn *conn);

/* Between the files of the connection: sends what the socket takes; reads what has arrived; sets the events to poll
 * for. */
void tqi_net_conn_flush(tqi_net_conn *conn);
void tqi_net_conn_receive(tqi_net_conn *conn, bool last);
/* Processes bytes that were read ahead, but not while too much is queued. */
void tqi_net_conn_resume(tqi_net_conn *conn);
void tqi_net_conn_arm(tqi_net_conn *conn);
/* Takes a frame out of the queue. */
void tqi_net_conn_unqueue(tqi_net_conn *conn, tqi_net_out_frame *tx);
/* Whether too much is queued for the connection to be read. */
bool tqi_net_conn_stuffed(const tqi_net_conn *conn);
/* Accounts for the memory of the current frame, if large. */
void tqi_net_conn_take(tqi_net_conn *conn, size_t memory);

/* --- admit.c ------------------------------------------------------------- */

/* Whether such a request gives something back, with an empty reply. What follows on the connection may acknowledge the
 * claim that it gives back, so it must not be refused for want of memory, nor be withdrawn: a server closes the
 * connection instead, and the client sends the request again. */
bool tqi_net_gives_back(uint16_t kind);

#endif
