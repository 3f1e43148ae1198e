/*
 * testkit.h - a small service and a client for the tests of this folder, on one loop.
 *
 * The service: RESERVE counts how often each `samples` number was executed and answers it as a sample's index, after
 * the first CLAIM that waits if it is TESTING_MATCH; CLAIM waits until the test answers it (poll: answers at once);
 * RELEASE counts; EVENTS waits; UNIT_WRITE and PUBLISH take payloads; UNIT_READ answers size[0] bytes of a pattern;
 * UNIT_MAP passes a memfd.
 */
#ifndef TQI_NET_TESTKIT_H
#define TQI_NET_TESTKIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "net/net.h"

#define TESTING_NUMBERS 4096
#define TESTING_MATCH   4095u
#define TESTING_WAITING 10000

typedef struct testing_server {
    tqi_net_server *server;
    char endpoint[300];
    uint64_t epoch;
    int opened, ended, ended_dead;
    int executed[TESTING_NUMBERS]; /* RESERVE, by number */
    int executions;
    int settled_acked, settled_lost;
    int released;
    int acked_at_release; /* settled_acked when the last RELEASE came */
    int sinks, sinks_failed;
    uint64_t refuse_sink; /* payloads of that size are refused */
    uint64_t received;    /* bytes of payloads that all matched the pattern */
    int bad_payloads;
    char *partition;                           /* of the batch that answers RESERVE, or NULL */
    int sent;                                  /* calls of `sent` of payload replies */
    tqi_net_request *waiting[TESTING_WAITING]; /* CLAIM and EVENTS */
    int n_waiting;
    int cancelled;
    int handled;
    bool stay;  /* no session may be asked to give up its connection */
    bool local; /* of the session that came last */
    tqi_net_session *session;
    bool closed;
} testing_server;

/* One call and how it ended. */
typedef struct testing_call {
    tqi_net_call *call;
    int done;
    int status;
    tq_error error;
    uint32_t index; /* RESERVE's */
    uint64_t claim; /* CLAIM's */
    uint64_t payload;
    uint8_t *buffer; /* where the payload went; free it */
    size_t buffer_size;
    int pieces; /* the sink gives that many destinations; 0 = one */
    int fd;     /* UNIT_MAP's */
    int orphans;
    uint64_t orphan_claim;
    int orphans_freed;
    tqi_net_channel *release_on; /* the orphan releases its claim there */
    bool stuck;                  /* the orphan cannot release it */
    tqi_net_connector *closes;   /* the orphan closes it then */
    int closed;
    bool undo; /* done does so */
} testing_call;

extern const tqi_net_service testing_service; /* its ctx is a testing_server */
extern uv_loop_t testing_loop;
extern tqi_net_token testing_token;

int testing_setup(void **state);    /* loop and token */
int testing_teardown(void **state); /* fails when a handle was left */

/* Runs the loop until *flag is at least `value`; the test fails after 20 s. */
void testing_until(const int *flag, int value);
/* Runs the loop for a time. */
void testing_run_ms(unsigned ms);
uint8_t testing_byte(uint64_t at);

/* To be called when something is closed: sets the int that `arg` points to. */
void testing_on_closed(void *arg);
void testing_server_start(testing_server *server, const char *endpoint, uint64_t epoch, uint64_t grace_ms);
void testing_server_stop(testing_server *server);
/* A unique path under the temporary directory, as an endpoint. */
const char *testing_unix_endpoint(void);

tqi_net_connector *testing_connector(const tqi_net_token *token, uint64_t first_request);
void testing_connector_stop(tqi_net_connector *connector);
tqi_net_channel *testing_channel(tqi_net_connector *connector, const char *endpoint);

/* Start calls; `seconds` is the deadline. */
void testing_reserve(tqi_net_channel *channel, testing_call *call, uint32_t number, double seconds);
void testing_claim(tqi_net_channel *channel, testing_call *call, bool poll, double seconds);
void testing_events(tqi_net_channel *channel, testing_call *call, double seconds);
void testing_write(tqi_net_channel *channel, testing_call *call, uint16_t kind, const uint8_t *data, size_t size,
                   double seconds);
void testing_read(tqi_net_channel *channel, testing_call *call, size_t size, double seconds);
void testing_map(tqi_net_channel *channel, testing_call *call);
/* Answers the first waiting request of the server. */
void testing_answer(testing_server *server);
/* Answers one, by its place. */
void testing_answer_at(testing_server *server, int at);

/* A bare socket: what it receives is collected. */
typedef struct testing_raw {
    uv_poll_t poll;
    int fd;
    uint8_t bytes[4096];
    int size;
    int eof;
    int closed;
    bool goodbyes; /* its Hello announces support for them */
} testing_raw;

void testing_raw_connect(testing_raw *raw, const char *endpoint);
void testing_raw_send(testing_raw *raw, const void *data, size_t size);
/* A frame with a body. */
void testing_raw_frame(testing_raw *raw, const tqi_frame *frame, const void *body);
/* Handshake by hand, as a client of a new session. */
void testing_raw_login(testing_raw *raw);
/* The same for a session with that id (16 bytes) and instance; returns whether it was resumed, and its instance. */
bool testing_raw_hello(testing_raw *raw, const uint8_t *session, uint64_t *instance);
void testing_raw_close(testing_raw *raw);
/* Waits for the answer FAILED; its code. */
int testing_raw_refusal(testing_raw *raw, char *message, size_t size);

#endif
