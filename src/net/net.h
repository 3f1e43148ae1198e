/*
 * net.h - authenticated request/reply connections on a libuv loop: the only code that opens sockets.
 *
 * Endpoints are strings: "unix:/path", "tcp:host:port", "tcp:[v6]:port". Alternatives to try in turn are separated by
 * commas ("unix:/run/x.sock,tcp:10.0.0.1:7000"). For listening, "tcp:host:first-last" means the first free port of a
 * range.
 *
 * Threads: everything here belongs to the thread that runs the loop. There are no locks.
 *
 * Sessions. A client has one random session id and uses it at every server. At a server a session outlives its
 * connections by a grace time (none if its process is known to be dead, or if it was closed). Requests of a session
 * are numbered. A KEEP request (methods.h) is executed once: while it runs, a repeat only re-attaches to it; after
 * that, a repeat gets the kept reply, until the client's `ack` passes its number.
 *
 * When a client loses its connection, unanswered calls are resent after reconnecting (back-off 10 ms to 1 s, with
 * jitter) until their deadlines. If the server no longer knows the session (it was restarted, or the grace time is
 * over), KEEP calls that had been sent fail with TQ_ESTALE, and all others are sent. A call whose deadline passes
 * without a connection fails with TQ_EUNREACHABLE and the last reason, otherwise with TQ_ETIMEDOUT. TQ_EAUTH and
 * TQ_EVERSION end the calls at once. A held channel that has been connected once reconnects by itself.
 *
 * Orderly shutdown. A server sends a Goodbye to its clients if told to (tqi_net_server_set_goodbye). That ends calls
 * at once: if only the server ends, its own calls (TQ_EUNREACHABLE); if the system ends, the calls at all of its
 * servers (TQ_EENDED). Later calls try the address once and fail with the same reason if no server answers there; if
 * one does, everything works again. A client that finds another token at an address where it was connected also
 * concludes that its system has ended. No call waits for something that is known not to come: a name that does not
 * exist fails the first connection at once, and an address of this machine where nobody has listened for some seconds
 * is given up (both TQ_EUNREACHABLE).
 *
 * A client must reach a server through a single channel (one endpoint string): request numbers belong to the channel,
 * and a second connection of a session replaces the first.
 */
#ifndef TQI_NET_NET_H
#define TQI_NET_NET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>
#include <uv.h>

#include "tq.pb-c.h"
#include "wire/frame.h"
#include "wire/methods.h"

#include <tq/errors.h>

#define TQI_NET_SESSION_ID 16
#define TQI_NET_TOKEN_MAX  256
#define TQI_NET_FDS_MAX    4
#define TQI_NET_HOST_MAX   256 /* bytes of a host's name or address, including the terminating 0 */

/* The secret shared by everybody in one system. */
typedef struct tqi_net_token {
    uint8_t bytes[TQI_NET_TOKEN_MAX];
    size_t size;
    char file[128]; /* it was read from, for messages; "": none */
} tqi_net_token;

/* Key that a storage unit draws, and with which the controller proves grants of block ids (tq.proto, Grant). */
#define TQI_NET_GRANT_KEY 32
#define TQI_NET_GRANT     16 /* bytes of a proof */
/* Computes the proof of a grant; TQ_EINTERNAL if that fails. */
int tqi_net_grant_make(const uint8_t key[TQI_NET_GRANT_KEY], const char *owner, uint64_t incarnation,
                       const uint8_t session[TQI_NET_SESSION_ID], uint64_t first, uint32_t count,
                       uint8_t proof[TQI_NET_GRANT]);
/* Whether it is that. */
bool tqi_net_grant_holds(const uint8_t key[TQI_NET_GRANT_KEY], const char *owner, uint64_t incarnation,
                         const uint8_t session[TQI_NET_SESSION_ID], uint64_t first, uint32_t count,
                         const uint8_t *proof, size_t size);
/* Compares in constant time, which reveals nothing about the keys. */
bool tqi_net_grant_key_equal(const uint8_t a[TQI_NET_GRANT_KEY], const uint8_t b[TQI_NET_GRANT_KEY]);

/* Reads a token from a file (trailing white space is dropped); TQ_EAUTH names the file. */
int tqi_net_token_load(const char *path, tqi_net_token *token, tq_error *err);
/* Warns once per process about a token that is too short; loading a token calls this. `what`: "the token in ...". */
void tqi_net_token_warn(const char *what, const tqi_net_token *token);

/* --- addresses ------------------------------------------------------------ */

/* The addresses by which other hosts reach this one. */
typedef struct tqi_net_addresses {
    char host[TQI_NET_HOST_MAX]; /* the address to give away */
    /* an IPv4 address, for sockets that listen on IPv4 only; "" if none */
    char v4[TQI_NET_HOST_MAX];
} tqi_net_addresses;

/* Finds those of a network interface; TQ_EINVAL names it and lists the existing ones. */
int tqi_net_address_of_interface(const char *interface, tqi_net_addresses *out, tq_error *err);
/* Finds those by which the first tcp endpoint of the list would see this host; the loopback address if the endpoint is
 * on this host. *elsewhere: it is on another host. A list without tcp counts as this host. Resolves names, which may
 * take time; sends nothing. */
int tqi_net_address_towards(const char *endpoints, tqi_net_addresses *out, bool *elsewhere, tq_error *err);
/* If nothing else is known: those that the default routes use, else those of any interface, else the loopback's. */
void tqi_net_address_default(tqi_net_addresses *out);
/* Whether it is the wildcard address of a host; whether no other host can reach it. */
bool tqi_net_host_is_any(const char *host);
bool tqi_net_host_is_loopback(const char *host);
/* Extracts the host of a tcp endpoint, without brackets; false for other endpoints. */
bool tqi_net_endpoint_host(const char *endpoint, char *out, size_t size);
/* Makes a bound endpoint into one that others can reach: replaces its host with `host` if given, else a wildcard
 * address with an address of `reach`. */
int tqi_net_endpoint_advertise(const char *bound, const char *host, const tqi_net_addresses *reach, char *out,
                               size_t size, tq_error *err);
/* Whether anybody accepts connections on a unix endpoint. */
bool tqi_net_endpoint_alive(const char *endpoint);

/* --- server --------------------------------------------------------------- */

typedef struct tqi_net_server tqi_net_server;
typedef struct tqi_net_session tqi_net_session;
typedef struct tqi_net_request tqi_net_request;

/* What a server does with its requests. All functions run on the loop thread. The table must outlive the server. */
typedef struct tqi_net_service {
    const char *name; /* for logs: "controller", "unit-0" */
    /* A new session (not a resumed one). TQ_OK, or an error: then no session is made, and the client tries again. */
    int (*session_open)(tqi_net_session *session, void *ctx);
    /* The session has ended; its waiting requests were cancelled before. `dead`: its process is known to have ended. */
    void (*session_end)(tqi_net_session *session, bool dead, void *ctx);
    /* Whether this server answers that kind at all; others fail with TQ_EUNSUPPORTED. */
    bool (*serves)(uint16_t kind, void *ctx);
    /* Handles a decoded request. Must be completed, now or later, by exactly one of tqi_net_request_reply / _fail.
     * `message` is valid until then. */
    void (*handle)(tqi_net_request *request, const ProtobufCMessage *message, void *ctx);
    /* Says where the payload of a request goes, called when its body has arrived but not its payload: fills iov (at
     * most max = 4096) with destinations that add up to `size` bytes and stay valid until handle. An error fails the
     * request; its payload is read and dropped. NULL: requests with payload are refused. */
    int (*sink)(tqi_net_request *request, const ProtobufCMessage *message, uint64_t size, struct iovec *iov, int max,
                int *count, void *ctx, tq_error *err);
    /* Called after sink, instead of handle, if the payload did not arrive completely (the connection broke, no memory):
     * nothing writes to the destinations any more. May be NULL. */
    void (*sink_failed)(tqi_net_request *request, void *ctx);
    /* Whether an idle session may lose its connection, and then end with its grace time. Called when descriptors run
     * short. NULL: none may. */
    bool (*parkable)(const tqi_net_session *session, void *ctx);
} tqi_net_service;

typedef struct tqi_net_server_options {
    uint64_t epoch;             /* announced to clients; not 0 */
    const tqi_net_token *token; /* copied */
    uint64_t grace_ms;          /* life of a session without connection */
    const char *system;         /* name of the system; copied; NULL = "" */
} tqi_net_server_options;

/* What ends when a server shuts down: only the server (a storage unit), its system, or only this run of the system,
 * which will soon restart at the same address. */
typedef enum tqi_net_ending {
    TQI_NET_ENDS_SERVER = TQ__ENDING__ENDS_SERVER,
    TQI_NET_ENDS_SYSTEM = TQ__ENDING__ENDS_SYSTEM,
    TQI_NET_ENDS_RUN = TQ__ENDING__ENDS_RUN
} tqi_net_ending;

int tqi_net_server_alloc(uv_loop_t *loop, const tqi_net_service *service, void *ctx,
                         const tqi_net_server_options *options, tqi_net_server **out, tq_error *err);
/* Binds and listens; may be called for several endpoints. "tcp:host:0" picks a port. An existing unix socket path is
 * replaced only if nobody accepts connections on it. The bound endpoint is written to `bound` (may be NULL). */
int tqi_net_server_listen(tqi_net_server *server, const char *endpoint, char *bound, size_t bound_size, tq_error *err);
/* A listening non-blocking socket for a server of another protocol; the caller closes it. */
int tqi_net_listen(const char *endpoint, int *fd, char *bound, size_t bound_size, tq_error *err);
/* From now on clients must know this token, which is copied; connected clients stay. */
void tqi_net_server_set_token(tqi_net_server *server, const tqi_net_token *token);
/* Sets what tqi_net_server_close tells the clients then connected: what ends, which server says so, and why, for
 * people. Without this they get no goodbye and see a lost connection. */
void tqi_net_server_set_goodbye(tqi_net_server *server, tqi_net_ending ending, const char *who, const char *reason);
/* Unix time in microseconds of its start. */
int64_t tqi_net_server_started_us(const tqi_net_server *server);
/* Stops listening, ends all sessions (session_end is called), closes connections, removes unix sockets, and calls done
 * from the loop when the last handle is closed; the server is then freed. A client that does not read its Goodbye is
 * waited for at most TQI_NET_LINGER_MS. */
void tqi_net_server_close(tqi_net_server *server, void (*done)(void *arg), void *arg);
/* Calls fn for every session. */
void tqi_net_server_each_session(tqi_net_server *server, void (*fn)(tqi_net_session *session, void *arg), void *arg);
uint64_t tqi_net_server_requests(const tqi_net_server *server);
/* A random number by which clients distinguish this server from others; not 0. */
uint64_t tqi_net_server_id(const tqi_net_server *server);
/* The file of the first unix socket that it listens on, by which another process can tell whether it sees the same
 * socket at a path; false if there is none. */
bool tqi_net_server_socket(const tqi_net_server *server, uint64_t *device, uint64_t *inode);

/* A session, valid from session_open to session_end (inclusive). */
const char *tqi_net_session_name(const tqi_net_session *session);
/* Its id of TQI_NET_SESSION_ID bytes, the same at every server. */
const uint8_t *tqi_net_session_id(const tqi_net_session *session);
/* Process id: over a unix socket, the kernel's number for the process that connected (0: not visible from here);
 * otherwise what the client claimed. */
uint64_t tqi_net_session_pid(const tqi_net_session *session);
/* Whether the client closed the session with a Bye, as closing a client does. */
bool tqi_net_session_left(const tqi_net_session *session);
/* Whether it also said that none of its threads writes into the server's memory any more. */
bool tqi_net_session_finished(const tqi_net_session *session);
/* A pidfd of that process, taken when it connected, so that it cannot refer to a later process with the same number;
 * -1 if none. Borrowed: the session closes it when it ends. */
int tqi_net_session_pidfd_for_tests(const tqi_net_session *session);

/* That process itself, shared by all its sessions at a server and watched once; NULL if none. Borrowed. */
typedef struct tqi_net_process tqi_net_process;
tqi_net_process *tqi_net_session_process(const tqi_net_session *session);
/* A watcher for the end of a process; embed it in your own struct. fn is called when the process has ended (`failed` is
 * NULL, and the record has already been removed from the list), or when it can no longer be watched, which says nothing
 * about whether it lives. */
typedef struct tqi_net_exit {
    void (*fn)(struct tqi_net_exit *exit, const char *failed);
    struct tqi_net_exit *prev, *next;
    bool listed;
} tqi_net_exit;
/* Keeps it beyond its sessions, at most until the server is closed. */
tqi_net_process *tqi_net_process_ref(tqi_net_process *process);
void tqi_net_process_unref(tqi_net_process *process);
void tqi_net_process_on_exit(tqi_net_process *process, tqi_net_exit *exit);
/* May be repeated. */
void tqi_net_process_off_exit(tqi_net_process *process, tqi_net_exit *exit);

const char *tqi_net_session_host(const tqi_net_session *session);
/* of its last connection: "unix" or "tcp:1.2.3.4:5" */
const char *tqi_net_session_endpoint(const tqi_net_session *session);
bool tqi_net_session_connected(const tqi_net_session *session);
uint64_t tqi_net_session_age_ms(const tqi_net_session *session);
/* Same user over a unix socket, with a pidfd: descriptors may be passed, and its death is detected. */
bool tqi_net_session_local(const tqi_net_session *session);
/* Why it is not, as text. */
const char *tqi_net_session_remote(const tqi_net_session *session);
void tqi_net_session_set_user(tqi_net_session *session, void *user);
void *tqi_net_session_user(const tqi_net_session *session);

/* Any reply without arrays, strings and messages is smaller than this. */
#define TQI_NET_REPLY_ROOM 128u

uint16_t tqi_net_request_kind(const tqi_net_request *request);
tqi_net_session *tqi_net_request_session(const tqi_net_request *request); /* NULL once the session has ended */
void tqi_net_request_set_user(tqi_net_request *request, void *user);
void *tqi_net_request_user(const tqi_net_request *request);
/* Payload destinations that sink gave; count 0 without a payload. */
int tqi_net_request_payload_for_tests(const tqi_net_request *request, const struct iovec **iov);

/* For a waiting request: called when the client cancels it or its session ends; the callee must then complete the
 * request (reply, or fail with TQ_ECANCELED) before it returns. A request without it finishes at its own pace, and its
 * reply is dropped if the session is gone. */
void tqi_net_request_on_cancel(tqi_net_request *request, void (*fn)(tqi_net_request *request, void *arg), void *arg);
/* For a KEEP request: called once, after its successful reply was acknowledged (acked true) or when the session ended
 * before that (false); before session_end. Never called for a request that fails. */
void tqi_net_request_on_settled(tqi_net_request *request, void (*fn)(bool acked, void *arg), void *arg);

/* Reserves room for a reply of `bytes` bytes, without payload. A KEEP request has room for TQI_NET_REPLY_ROOM bytes
 * from the start; one with a larger reply calls this before it changes anything. A reply that fits into the room
 * cannot fail for lack of memory, so work that was done is never answered with an error. */
int tqi_net_request_prepare(tqi_net_request *request, size_t bytes, tq_error *err);

/* Sends the reply and ends the request. The message is packed before the call returns. The payload's memory must stay
 * valid until `sent` is called (sent, or connection lost); without a payload it is called at once. sent may be NULL.
 * False: the reply could not be made and the request failed, or nobody is left to receive it. */
bool tqi_net_request_reply(tqi_net_request *request, const ProtobufCMessage *reply, const struct iovec *payload,
                           int count, void (*sent)(void *arg), void *arg);
/* Reply with descriptors (unix sockets and AGAIN requests only, else the request fails with TQ_EUNSUPPORTED); they
 * must stay open until `sent` is called; they are not duplicated, because when thousands of clients ask at once, the
 * copies could exceed the process's limit. */
void tqi_net_request_reply_fds(tqi_net_request *request, const ProtobufCMessage *reply, const int *fds, int count,
                               void (*sent)(void *arg), void *arg);
void tqi_net_request_fail(tqi_net_request *request, const tq_error *err);

/* --- client --------------------------------------------------------------- */

typedef struct tqi_net_connector tqi_net_connector; /* identity of a client; makes channels */
typedef struct tqi_net_channel tqi_net_channel;     /* requests to one endpoint, across broken connections */
typedef struct tqi_net_call tqi_net_call;           /* one request in flight */

typedef struct tqi_net_connector_options {
    const tqi_net_token *token; /* copied */
    const char *name;           /* session name, for people; copied */
    uint64_t first_request;     /* 0 = 1; tests start near the wrap */
    /* The part of a daemon that it belongs to, such as "unit": its log lines are of that part and begin with the name.
     * NULL: the client of a program; the error for the end of its system then says what the program can do. A literal. */
    const char *part;
    /* the first channel's server is in this process, which itself reports that it ends */
    bool own_system;
} tqi_net_connector_options;

int tqi_net_connector_alloc(uv_loop_t *loop, const tqi_net_connector_options *options, tqi_net_connector **out,
                            tq_error *err);
/* Ends all calls with TQ_ECLOSED (callbacks run before this returns), ends all channels even if held, sends a Bye on
 * open connections (queued frames get a short time to be sent), closes, then calls done from the loop and frees. */
void tqi_net_connector_close(tqi_net_connector *connector, void (*done)(void *arg), void *arg);
/* From now on, a Bye says that no thread of this client writes into a server's memory any more. */
void tqi_net_connector_finished(tqi_net_connector *connector);
/* Called with the reason when the system has ended, and with NULL when it is back. */
void tqi_net_connector_on_ended(tqi_net_connector *connector, void (*fn)(const tq_error *why, void *arg), void *arg);
/* The caller knows that its system has ended: from now on, calls that fail do so at once. */
void tqi_net_connector_set_ended(tqi_net_connector *connector, const tq_error *why);
/* The next connections are made with this token, which is copied. */
void tqi_net_connector_set_token(tqi_net_connector *connector, const tqi_net_token *token);
/* In a forked child: closes the descriptors inherited from the parent and does nothing else (async-signal-safe); the
 * connector must never be used again in this process. */
void tqi_net_connector_forked(tqi_net_connector *connector);
/* Whether servers are crowded: a client should then keep few connections, so that fewer clients have to take turns. */
bool tqi_net_connector_crowded(const tqi_net_connector *connector);

/* The channel to an endpoint list; the same one for the same string. Connects when the first call is made.
 * Reference-counted by hold/rele; at zero it closes once its calls have ended. */
int tqi_net_channel_get(tqi_net_connector *connector, const char *endpoint, tqi_net_channel **out, tq_error *err);
void tqi_net_channel_unref(tqi_net_channel *channel);
/* Called whenever a connection is established; `epoch` is the server's, and `fresh` says whether the session there is
 * new. There may be several listeners, distinguished by arg. TQ_OK or TQ_ENOMEM. */
int tqi_net_channel_on_open(tqi_net_channel *channel,
                            void (*fn)(tqi_net_channel *channel, uint64_t epoch, bool fresh, void *arg), void *arg,
                            tq_error *err);
/* Removes the listener with that arg, if there is one. */
void tqi_net_channel_off_open(tqi_net_channel *channel, const void *arg);
/* Epoch of the server when last connected, 0 before. */
uint64_t tqi_net_channel_epoch_for_tests(const tqi_net_channel *channel);
/* Restricts the channel to that server (tqi_net_server_id; 0: any): an endpoint where another server answers is
 * skipped, because a path or a loopback address may mean something else in another container. If no other endpoint
 * works, calls end with TQ_ESTALE. */
int tqi_net_channel_get_server(tqi_net_connector *connector, const char *endpoint, uint64_t server,
                               tqi_net_channel **out, tq_error *err);
/* A server that runs short of descriptors may ask for the connection back while there are no calls; the next call
 * reconnects. Whatever the session there holds must then be dispensable. */
void tqi_net_channel_set_parkable(tqi_net_channel *channel);
/* A server that no longer exists is not worth a connection: while the channel is not wanted, it connects only for
 * calls. */
void tqi_net_channel_set_wanted(tqi_net_channel *channel, bool wanted);
/* Closes the connection, not the session, if that is allowed and nothing needs it: the server wants room. */
void tqi_net_channel_park(tqi_net_channel *channel);
/* Connected now. */
bool tqi_net_channel_connected(const tqi_net_channel *channel);
/* Connected over a unix socket now. */
bool tqi_net_channel_local(const tqi_net_channel *channel);
/* Why the last attempt over a unix socket failed; "" if none did. */
const char *tqi_net_channel_unix_failure(const tqi_net_channel *channel);

/* How a call ended. */
typedef struct tqi_net_answer {
    int status;                    /* TQ_OK or an error code */
    bool told;                     /* by the server; else it may or may not have been executed */
    const tq_error *error;         /* set when status is not TQ_OK */
    const ProtobufCMessage *reply; /* set when status is TQ_OK; freed after the callback */
    uint64_t payload;              /* bytes that arrived in the sink's places */
    int fds[TQI_NET_FDS_MAX];      /* descriptors; the callee takes ownership of one by setting it to -1 */
    int n_fds;
    uint64_t epoch; /* of the server that answered */
    /* Set by the callee of a call with an orphan: it could neither use nor undo the answer, for lack of memory. */
    bool stuck;
} tqi_net_answer;

typedef struct tqi_net_call_args {
    uint16_t kind;
    const ProtobufCMessage *message; /* packed before the call returns */
    const struct iovec *payload;     /* copied array; the bytes must stay until done */
    int n_payload;
    uint64_t deadline; /* monotonic ns (clock.h); TQI_NEVER */
    /* Completes the call; called exactly once, never from within tqi_net_call_start. */
    void (*done)(tqi_net_call *call, tqi_net_answer *answer, void *arg);
    /* Gives destinations for the reply's payload, like tqi_net_service.sink; NULL: a payload is an error. */
    int (*sink)(const ProtobufCMessage *reply, uint64_t size, struct iovec *iov, int max, int *count, void *arg);
    /* The call ended early (deadline), but its successful answer arrived later: undo it (a late claim is released
     * here). Runs before the reply is acknowledged; if set, done runs before that, too, and may undo an answer it
     * cannot use. False (of done: answer->stuck): there was no memory to undo it. The reply is then not acknowledged
     * as long as the session lasts, so that the session's end undoes it. May be NULL. */
    bool (*orphan)(tqi_net_channel *channel, const ProtobufCMessage *reply, void *arg);
    void (*orphan_free)(void *arg); /* the orphan's arg is no longer needed (called once if orphan is set) */
    void *orphan_arg;
    void *arg;
} tqi_net_call_args;

/* TQ_OK: done will be called. Else nothing was started. */
int tqi_net_call_start(tqi_net_channel *channel, const tqi_net_call_args *args, tqi_net_call **out, tq_error *err);
/* Asks the server to cancel a waiting request; done is called with TQ_ECANCELED, or with the answer if it was too
 * late. A call that was never sent ends at once (done runs from the loop). May be called again. */
void tqi_net_call_cancel(tqi_net_call *call);

#endif
