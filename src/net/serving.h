/*
 * serving.h - shared by the server's files: server.c (sockets, time), crowd.c (connections in the handshake), peer.c
 * (one connection: handshake and frames), park.c (making room), session.c (sessions and kept replies), admit.c (their
 * limits), process.c (the processes behind them), request.c (requests).
 */
#ifndef TQI_NET_SERVING_H
#define TQI_NET_SERVING_H

#include "base/hash.h"
#include "net/internal.h"

#define TQI_NET_HANDSHAKE_NS    5000000000u /* for a connection to authenticate */
#define TQI_NET_HELLO_MAX       4096        /* bytes of a body before that */
#define TQI_NET_ACCEPT_PAUSE_NS 100000000u
#define TQI_NET_ACCEPT_SOON_NS  10000000u /* with idle peers leaving */
/* When this fraction (one in N) of the descriptors is in use, the server tells its clients that it is crowded. */
#define TQI_NET_CROWDED_SHARE 2
/* Idle peers asked to leave for each new connection, when descriptors run short and when none are left. */
#define TQI_NET_PARK_EACH 2u
#define TQI_NET_PARK_FULL 64u
#define TQI_NET_PARK_NS   UINT64_C(1000000000) /* a peer that has not left by then is not waited for */
/* Warnings about connections that are not authenticated: at most this many in this time. */
#define TQI_NET_WARN_MAX 10u
#define TQI_NET_WARN_NS  UINT64_C(10000000000)
/* Clients with a wrong token are logged once each, as long as they are among the last this many. */
#define TQI_NET_REFUSED_MAX 64u
/*
 * Connections in the handshake. A stranger may open them, so the servers of a process share one in
 * TQI_NET_GREETING_SHARE of its descriptors for them, and one address may use half of a server's part. When one more
 * arrives than that, the oldest is closed if its handshake has taken longer than an honest client's; with twice as
 * many it is closed in any case. Processes of this user, on a unix socket, are not strangers: thousands of clients
 * that come at once may take their time.
 */
#define TQI_NET_GREETING_SHARE    8u
#define TQI_NET_GREETING_MIN      16u
#define TQI_NET_GREETING_YOUNG_NS 250000000u
/* Time for clients to read their Goodbye at shutdown. */
#define TQI_NET_LINGER_MS 500u

typedef struct tqi_net_listener tqi_net_listener;
typedef struct tqi_net_peer tqi_net_peer;
typedef struct tqi_net_pidfd tqi_net_pidfd;

/* Origin of connections: an address without its port, or all unix sockets. */
typedef struct tqi_net_origin {
    uint8_t key[16];
    UT_hash_handle hh;
    unsigned n;          /* of its connections that greet */
    tqi_net_peer *peers; /* these, the oldest first */
} tqi_net_origin;

struct tqi_net_server {
    uv_loop_t *loop;
    const tqi_net_service *service;
    void *ctx;
    uint64_t epoch;
    uint64_t id;
    uint64_t grace_ns;
    uint64_t handshake_ns; /* TQI_NET_HANDSHAKE_NS; tests set less */
    tqi_net_token token;
    tqi_net_flusher flusher;
    uv_timer_t timer;
    tqi_net_listener *listeners;
    tqi_net_peer *peers;    /* for a service with `parkable`, those silent longest come first */
    tqi_net_peer *greeting; /* of strangers, not authenticated, by deadline */
    unsigned n_greeting;
    tqi_net_peer *greeting_own; /* the same of processes of this user */
    uid_t user;
    tqi_net_origin *origins;    /* of those */
    tqi_net_session *sessions;  /* by id */
    tqi_net_session *lost;      /* without a connection, by the end of their grace time */
    tqi_net_session *ended;     /* memory to free when none of their callbacks is running */
    tqi_net_process *processes; /* of sessions, by number */
    uint64_t requests;
    uint64_t running_bytes; /* of all sessions */
    unsigned descriptors;   /* that the process may have */
    /* and those from this one on are reserved for what connections need: pidfds, passed memory */
    int full;
    int crowded;            /* descriptors from this number on are the last eighth */
    unsigned leaving;       /* peers recently asked to leave that are still connected */
    uint64_t leaving_since; /* lately: since then */
    uint64_t short_since;   /* when a lack of descriptors was last logged; 0 = never */
    uint64_t warned_since;  /* window of tqi_net_server_warn */
    unsigned warned;        /* in it */
    uint8_t refused[TQI_NET_REFUSED_MAX][TQI_NET_SESSION_ID]; /* a ring of those that were warned of */
    unsigned n_refused;                                       /* ever */
    char *system;                                             /* "" of a unit */
    int64_t started_us;                                       /* unix time */
    bool says_goodbye;
    tqi_net_ending ending;
    char who[TQI_NET_REASON_MAX];
    char reason[TQI_NET_REASON_MAX];
    int handles; /* open handles of the loop; freed with the last */
    bool closing;
    bool closed; /* its last handles are being closed */
    void (*done)(void *arg);
    void *done_arg;
};

/* One connection of a client. */
struct tqi_net_peer {
    tqi_net_server *server;
    tqi_net_conn *conn;
    /* NULL until it is authenticated, and after the session was taken over or ended */
    tqi_net_session *session;
    uint8_t nonce[TQI_NET_NONCE];
    uint64_t deadline;
    bool greeted;  /* not in the list `greeting` */
    bool parked;   /* was asked to leave and has sent nothing since */
    bool goodbyes; /* understands a Goodbye */
    uint64_t pid;  /* unix: of the process that connected, 0 = unknown */
    bool same_user;
    tqi_net_request *incoming; /* whose payload is arriving */
    tqi_net_peer *prev, *next;
    tqi_net_peer *greet_prev, *greet_next;
    tqi_net_origin *origin; /* while it greets; NULL: a unix socket */
    tqi_net_peer *origin_prev, *origin_next;
};

/* A process, reference-counted: by its sessions, and by others that hold it beyond them. */
struct tqi_net_process {
    uv_poll_t poll;
    tqi_net_server *server;
    tqi_net_pidfd *pidfd;
    uint64_t pid;
    unsigned refs;
    bool listed;         /* in server->processes */
    tqi_net_exit *exits; /* to notify when it exits */
    UT_hash_handle hh;
};

struct tqi_net_session {
    uint8_t id[TQI_NET_SESSION_ID];
    UT_hash_handle hh;
    tqi_net_server *server;
    char *name;
    char *host;
    char endpoint[TQI_NET_PEER_MAX];
    /* sent to the client: a lost Welcome must not make it take this for an older session */
    uint64_t instance;
    uint64_t pid;
    uint64_t opened;          /* monotonic */
    uint64_t deadline;        /* end of the grace, while in server->lost */
    tqi_net_peer *peer;       /* NULL while not connected */
    tqi_net_process *process; /* NULL: its end cannot be watched */
    tqi_net_exit exit;
    char remote[96];           /* why no process is known */
    uint64_t acked;            /* replies below it were received; 0 = none acknowledged yet */
    tqi_net_request *requests; /* running, and kept, by number */
    tqi_net_request *keeps;    /* the KEEP ones among these, in order of arrival, which is the order of their numbers */
    size_t running;
    uint64_t running_bytes; /* memory of these */
    size_t kept;            /* answered and not acknowledged */
    uint64_t kept_bytes;
    void *user;
    bool held_told; /* it was logged that the client does not acknowledge its replies */
    bool left;      /* closed by the client */
    bool finished;  /* and that nothing of it writes any more */
    bool ended;
    tqi_net_session *prev, *next; /* lost or ended */
};

struct tqi_net_request {
    uint64_t number;
    UT_hash_handle hh;
    uint16_t kind;
    bool keep;
    bool listed;              /* in session->requests */
    bool answered;            /* kept for repeats */
    size_t memory;            /* of its message, while it runs */
    size_t kept;              /* bytes, while it is kept */
    tqi_net_session *session; /* NULL once it has ended */
    ProtobufCMessage *message;
    struct iovec *iov;
    int n_iov;
    void *user;
    void (*cancel)(tqi_net_request *request, void *arg);
    void *cancel_arg;
    void (*settled)(bool acked, void *arg);
    void *settled_arg;
    tqi_net_out_frame *room;      /* for the reply, or NULL; see tqi_net_request_prepare */
    tqi_net_out_frame *reply;     /* kept; NULL if there was no memory for it */
    tqi_net_request *prev, *next; /* keeps */
};

/* server.c */
void tqi_net_server_handle_closed(tqi_net_server *server);
void tqi_net_server_arm_timer(tqi_net_server *server);
/* Takes over an accepted socket, even on failure. */
void tqi_net_server_adopt_for_tests(tqi_net_server *server, int fd, bool unix_socket, const char *peer_name);

/* crowd.c: a connection begins its handshake, and its credentials are known. addr NULL: over a unix socket. TQ_OK or
 * TQ_ENOMEM. */
int tqi_net_greeting_add(tqi_net_peer *peer, const struct sockaddr *addr);
/* It does not any more. */
void tqi_net_greeting_remove(tqi_net_peer *peer);
/* Closes connections of strangers if there are too many, the oldest first. */
void tqi_net_greeting_limit(tqi_net_server *server, const struct sockaddr *addr);
/* Closes the oldest connection of a stranger if there are more than a few; false if there are not. */
bool tqi_net_greeting_give_way(tqi_net_server *server);
/* A server in this process starts, or has ended. */
void tqi_net_greeting_server(int change);

/* Logs a connection of a stranger, whom nothing keeps from opening many: the first few in each period as warnings,
 * with the number suppressed before, the rest in the debug log. */
void tqi_net_server_warn(tqi_net_server *server, const char *peer, const char *what);

/* peer.c */
int tqi_net_peer_open(tqi_net_server *server, int fd, const struct sockaddr *addr, const char *peer_name, tq_error *err);
void tqi_net_peer_close(tqi_net_peer *peer);
/* Sends the last frame and closes once that is sent; its session, if any, is then without a connection. */
void tqi_net_peer_goodbye(tqi_net_peer *peer, const Tq__Goodbye *goodbye);

/* park.c */
/* Asks up to n that are idle to close their connections, those that were silent longest first, until `enough` are
 * leaving; returns how many are. */
unsigned tqi_net_peer_make_room(tqi_net_server *server, unsigned n, unsigned enough);
/* Whether it was asked to leave; false once it is gone or has sent something since. */
void tqi_net_peer_set_parked(tqi_net_peer *peer, bool parked);
void tqi_net_peer_not_idle(tqi_net_peer *peer);

/* session.c */
tqi_net_session *tqi_net_session_find(tqi_net_server *server, const uint8_t *id);
/* NULL: out of memory. */
tqi_net_session *tqi_net_session_make(tqi_net_server *server, const uint8_t *id, const char *name, const char *host,
                                      uint64_t pid);
void tqi_net_session_attach(tqi_net_session *session, tqi_net_peer *peer);
/* Undoes a session that was just made and attached; its peer stays, without a session. */
void tqi_net_session_unmake(tqi_net_session *session);
/* The connection is gone; the grace time begins. */
void tqi_net_session_detach(tqi_net_session *session);
/* All replies below have arrived. */
void tqi_net_session_ack(tqi_net_session *session, uint64_t ack);
/* All replies below it were received except those of `waiting`, in ascending order. */
void tqi_net_session_ack_but(tqi_net_session *session, uint64_t below, const uint64_t *waiting, size_t n);
void tqi_net_session_end(tqi_net_session *session, bool dead);
/* Frees what tqi_net_session_end left. */
void tqi_net_session_reap(tqi_net_server *server);

/* admit.c: whether the session may have one more request of that kind; `keep`: its reply would be kept. */
int tqi_net_session_admit(const tqi_net_session *session, uint16_t kind, bool keep, tq_error *err);

/* process.c */
/* The process that connected to a unix socket and has that number; NULL with *errnum if it cannot be watched. */
tqi_net_process *tqi_net_process_get(tqi_net_server *server, int socket, uint64_t pid, int *errnum);
int tqi_net_process_fd(const tqi_net_process *process);

/* request.c */
tqi_net_request *tqi_net_request_make(tqi_net_session *session, uint16_t kind, bool keep, uint64_t number);
/* Adds it to the session: from now on, repeats find it. TQ_OK or TQ_ENOMEM. */
int tqi_net_request_list(tqi_net_request *request);
/* It runs no longer. */
void tqi_net_request_stopped(tqi_net_request *request);
/* Removes it from the session, if it is there. */
void tqi_net_request_unlist(tqi_net_request *request);
/* Removes an answered or never listed request from the session and frees it. */
void tqi_net_request_free(tqi_net_request *request);
/* Sends the kept reply again. */
void tqi_net_request_repeat(tqi_net_request *request);
/* Calls on_settled if that has not been done yet. */
void tqi_net_request_settle(tqi_net_request *request, bool acked);
bool tqi_net_request_below(uint64_t number, uint64_t ack);

#endif
