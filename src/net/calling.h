/*
 * calling.h - shared by the client's files, from the top: connector.c (identity, start and shutdown), reply.c (what
 * arrives), client_handshake.c (handshake); channel.c (its life cycle and connections), ends.c (servers that are gone,
 * and how the client knows), dial.c (resolve and connect) and call.c (requests), which need each other; acks.c
 * (acknowledgements), connector_parts.c (sockets, fork, log).
 */
#ifndef TQI_NET_CALLING_H
#define TQI_NET_CALLING_H

#include "base/hash.h"
#include "base/heap.h"
#include "base/log.h"
#include "net/internal.h"

#define TQI_NET_ATTEMPT_MS  5000         /* to connect and greet */
#define TQI_NET_GOODBYE_MS  200          /* to send what is queued when closing */
#define TQI_NET_PATIENCE_NS 2000000000u  /* without any connection; then it logs whom it waits for */
#define TQI_NET_SAY_NS      30000000000u /* and again, while that goes on */
/* Nobody has listened at an address of this machine for this long: it is given up. A controller may be restarted; what
 * a storage unit held is gone in any case, and the controller knows the other units. */
#define TQI_NET_REFUSED_NS      UINT64_C(5000000000)
#define TQI_NET_REFUSED_UNIT_NS UINT64_C(500000000)
#define TQI_NET_GONE_ATTEMPT_MS 1000 /* to connect to a server that has ended */
#define TQI_NET_BACKOFF_MIN_MS  10
#define TQI_NET_BACKOFF_MAX_MS  1000
/* How long servers are considered crowded after one has said so, or has asked for a connection back. */
#define TQI_NET_CROWDED_NS      UINT64_C(60000000000)
#define TQI_NET_BACKOFF_CALM_NS 1000000000u /* a connection that lived this long was a good one */
#define TQI_NET_PROTO_ERRORS    3           /* in a row until calls fail */

/* Bytes of replies received after a waiting call until they are acknowledged explicitly. */
#define TQI_NET_KEPT_BYTES (UINT64_C(16) << 20)

typedef struct tqi_net_fd_chunk tqi_net_fd_chunk;
typedef struct tqi_net_resolve tqi_net_resolve;
typedef struct tqi_net_open_fn tqi_net_open_fn;

/* Sockets of the process. The list can be read after a fork at any moment, because chunks are only ever added. */
struct tqi_net_fd_chunk {
    atomic_int fds[64]; /* -1: free */
    _Atomic(tqi_net_fd_chunk *) next;
};

struct tqi_net_connector {
    uv_loop_t *loop;
    tqi_net_token token;
    char *name;
    const char *part; /* NULL: a client */
    bool own_system;
    char host[256];
    uint8_t session[TQI_NET_SESSION_ID];
    uint64_t first_request;
    tqi_net_flusher flusher;
    const tqi_net_conn_ops *conn_ops; /* of the channels' connections: tqi_net_channel_ops */
    tqi_net_channel *channels;
    /* cancelled before they were sent; they end when the loop is about to wait */
    tqi_net_call *ending;
    bool acks_due;       /* a channel may have ack_due */
    uint64_t crowded_at; /* when a server last said that it is crowded; 0: never */
    tqi_net_fd_chunk fds;
    size_t open; /* channels and name look-ups not yet finished */
    bool had_channel;
    tq_error ended;                                   /* code 0, or why the system has ended */
    void (*on_ended)(const tq_error *why, void *arg); /* or NULL */
    void *on_ended_arg;
    bool finished; /* sent in Byes */
    bool closing;
    void (*done)(void *arg);
    void *done_arg;
};

enum {
    TQI_NET_CHANNEL_IDLE,    /* nothing to connect for */
    TQI_NET_CHANNEL_WAIT,    /* the retry timer runs */
    TQI_NET_CHANNEL_RESOLVE, /* these three: the retry timer bounds the attempt */
    TQI_NET_CHANNEL_CONNECT,
    TQI_NET_CHANNEL_GREET,
    TQI_NET_CHANNEL_OPEN,
    TQI_NET_CHANNEL_CLOSED
};

/* Why an attempt to connect failed, as far as it matters for the next one. */
typedef enum tqi_net_failure {
    TQI_NET_FAILURE_OTHER,
    TQI_NET_FAILURE_REFUSED, /* nobody listens at an address of this machine */
    TQI_NET_FAILURE_UNKNOWN  /* no such name */
} tqi_net_failure;

struct tqi_net_open_fn {
    void (*fn)(tqi_net_channel *channel, uint64_t epoch, bool fresh, void *arg);
    void *arg;
};

struct tqi_net_channel {
    tqi_net_connector *connector;
    char *endpoint; /* as given: the list */
    tqi_net_endpoint *endpoints;
    size_t n_endpoints, at; /* the one tried now */
    uint64_t server;        /* the only one it is for, 0 = any */
    /* the connector's first channel: if its server ends, the system has ended */
    bool primary;
    bool parkable; /* its server may ask for the connection */
    bool unwanted; /* without calls it does not reconnect when the connection is lost */
    bool other;    /* in this round of the list, an endpoint belonged to another server */
    int refs;
    int state;
    tqi_net_conn *conn;
    int conns; /* not freed yet, conn included */
    uint64_t epoch;
    uint64_t instance; /* of the session at the server */
    uint64_t lost_at;  /* when an established connection was lost; 0 = connected, or never was */
    uint64_t opened_at;
    /* of the first failed round of attempts; 0: none has failed since it was last open */
    uint64_t failing_since;
    uint64_t refused_since;        /* since when all of them found nobody listening; 0: not the case */
    uint64_t told_at;              /* when it last logged which server it is waiting for; 0: not yet */
    bool all_refused, all_unknown; /* in this round of the list, so far */
    tqi_net_failure failure;       /* of the current attempt */
    struct sockaddr_storage dialed;
    bool told_other;     /* it was logged that an endpoint belongs to somebody else */
    size_t connected_at; /* endpoint of the last connection, counted from 1; 0: none yet */

    /* the server, as it claims */
    char system[TQI_NET_SYSTEM_MAX];
    int64_t started_us;
    /* of the server that answers now, before either side is trusted */
    char challenge_system[TQI_NET_SYSTEM_MAX];
    int64_t challenge_started_us;
    Tq__Goodbye *goodbye; /* that is being received */
    bool restarting;      /* it announced a restart */
    tq_error gone;        /* code 0, or why it alone has ended */

    uv_timer_t deadline_timer;
    uv_timer_t retry_timer;
    int timers;
    unsigned backoff_ms;
    int proto_errors;
    int told_version;       /* the other protocol version that was logged, plus one */
    tq_error reason;        /* why there is no connection */
    char unix_failure[256]; /* why there is none over a unix socket */
    tqi_net_open_fn *on_open;
    size_t n_on_open, cap_on_open;

    /* dial */
    tqi_net_resolve *resolve;
    struct addrinfo *addresses, *address;

    /* handshake */
    bool challenged;
    uint8_t server_nonce[TQI_NET_NONCE];
    uint8_t client_nonce[TQI_NET_NONCE];

    /* calls */
    uint64_t next_request;
    tqi_net_call *calls; /* by number; in order of number */
    tqi_net_call *keeps; /* the KEEP ones among these, until their answer was delivered */
    size_t n_keeps;
    tqi_heap deadlines;
    uint64_t ack_sent;
    /* answers to KEEP calls since the server was last told which calls are waiting */
    uint64_t arrived;
    uint64_t arrived_bytes; /* of these */
    bool ack_due;
    bool ack_hold; /* frames queued in this round must not carry the new ack */

    /* the current reply */
    tqi_net_call *rx_call;
    ProtobufCMessage *rx_reply;
    tq_error rx_error;

    tqi_net_channel *prev, *next;
};

struct tqi_net_call {
    uint64_t number;
    UT_hash_handle hh;
    tqi_net_channel *channel;
    const tqi_method *method;
    tqi_net_out_frame *tx;
    bool listed; /* in channel->calls */
    bool kept;   /* in channel->keeps */
    bool ended;  /* done was called: only the orphan's answer is awaited */
    bool cancelled;
    bool garbled;        /* an invalid reply came: requesting it again would not help */
    bool ending;         /* in connector->ending */
    bool lost;           /* cannot be sent again */
    bool stuck;          /* answered, and kept only so that the acknowledgement does not pass it */
    tqi_heap_node timed; /* in channel->deadlines */
    tqi_net_call_args args;
    tqi_net_call *prev, *next; /* keeps */
    tqi_net_call *ending_prev, *ending_next;
};

/* All replies to KEEP calls below this number have been delivered. */
static inline uint64_t tqi_net_call_ack(const tqi_net_channel *channel)
{
    return channel->keeps != NULL ? channel->keeps->number : channel->next_request;
}

/* connector_parts.c */
/* Like tqi_log, for the part of the process that owns the connector. */
void tqi_net_connector_log(const tqi_net_connector *connector, tq_log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void tqi_net_connector_init_fds(tqi_net_connector *connector);
atomic_int *tqi_net_connector_note_fd(tqi_net_connector *connector, int fd); /* NULL: out of memory */
/* One less of those counted in `open`; the last one frees a connector that is being closed. */
void tqi_net_connector_part_closed(tqi_net_connector *connector);
void tqi_net_connector_free(tqi_net_connector *connector);

/* channel.c */
/* The connection or the attempt failed: tries the next address or endpoint, or pauses. */
void tqi_net_channel_failed(tqi_net_channel *channel, const tq_error *why);
/* Drops the connection, or the attempt. */
void tqi_net_channel_drop(tqi_net_channel *channel);
/* Retrying would not help: all calls end with the error. The next call connects again. */
void tqi_net_channel_fatal(tqi_net_channel *channel, const tq_error *why);
/* The same, with a complete error. */
void tqi_net_channel_fatal_as(tqi_net_channel *channel, const tq_error *why);
/* The handshake is over. */
void tqi_net_channel_opened(tqi_net_channel *channel, uint64_t epoch, bool resumed);
/* There is something to connect for. */
void tqi_net_channel_kick(tqi_net_channel *channel);
/* Closes the channel if nobody holds it and no call is left. */
void tqi_net_channel_settle(tqi_net_channel *channel);
void tqi_net_channel_close(tqi_net_channel *channel);
void tqi_net_channel_arm_deadline(tqi_net_channel *channel);
/* acks.c: an answer that the server keeps has arrived and is about to be delivered. */
void tqi_net_channel_arrived(const tqi_net_call *call);
void tqi_net_channel_send(tqi_net_channel *channel, uint16_t kind, uint64_t ack, const ProtobufCMessage *message);
void tqi_net_channel_send_control(tqi_net_channel *channel, uint16_t kind, const ProtobufCMessage *message);
void tqi_net_channel_send_ack(tqi_net_channel *channel);
/* The same; `last_time`: also names the waiting calls, however few replies came after them. */
void tqi_net_channel_acknowledge(tqi_net_channel *channel, bool last_time);
void tqi_net_channel_reset_rx(tqi_net_channel *channel);
/* Handles whatever breaks a connection, in any state. */
void tqi_net_channel_broken(tqi_net_conn *conn, const tq_error *err);

/* ends.c */
/* The server has sent a Goodbye; the frame is in channel->goodbye. */
void tqi_net_channel_goodbye(tqi_net_channel *channel);
/* A server with another token answers where this channel was connected, so its system has ended. False: it was never
 * connected. */
bool tqi_net_channel_replaced(tqi_net_channel *channel);
/* Records what a failed attempt says about the server. Called before the next attempt of the round begins. */
void tqi_net_channel_note_failure(tqi_net_channel *channel);
/* connect() has failed with that number. */
void tqi_net_channel_refused(tqi_net_channel *channel, int errnum);
/* All endpoints of the list have failed. True: given up, and all calls have ended. */
bool tqi_net_channel_give_up(tqi_net_channel *channel);
/* It is open again. */
void tqi_net_channel_back(tqi_net_channel *channel);

/* dial.c */
void tqi_net_dial_start(tqi_net_channel *channel);
/* Tries the next address of the endpoint; false if there is none. */
bool tqi_net_dial_next_address(tqi_net_channel *channel);
void tqi_net_dial_stop(tqi_net_channel *channel);

/* client_handshake.c */
int tqi_net_client_handshake_head(const tqi_frame *frame, tq_error *err);
int tqi_net_client_handshake_body(tqi_net_channel *channel, const tqi_frame *frame, const uint8_t *body, tq_error *err);

/* reply.c */
extern const tqi_net_conn_ops tqi_net_channel_ops;

/* call.c */
/* Resends every call that has no answer. */
void tqi_net_call_resend(tqi_net_channel *channel);
/* KEEP calls that an earlier session had sent end with TQ_ESTALE; another: the server is a different run, too. */
void tqi_net_call_stale(tqi_net_channel *channel, bool another);
/* The connection is gone and no other will be tried: ends the calls that were started before this. KEEP calls that had
 * been sent stay as orphans: the acknowledgement must not pass an answer that nobody received. */
void tqi_net_call_give_up(tqi_net_channel *channel, const tq_error *why);
/* Ends every call that was started before this, including orphans. */
void tqi_net_call_end_all(tqi_net_channel *channel, const tq_error *why);
void tqi_net_call_timeouts(tqi_net_channel *channel);
/* Delivers the answer of a call whose reply is complete, and frees the call. */
void tqi_net_call_answered(tqi_net_call *call, tqi_net_answer *answer);
void tqi_net_call_end_cancelled(tqi_net_connector *connector);

#endif
