/*
 * testkit.h - a controller and its clients on one loop, for tests: the real server, the real channels, no threads.
 *
 * Calls are started and then completed by running the loop. Every function asserts by itself.
 */
#ifndef TQI_CONTROLLER_TESTKIT_H
#define TQI_CONTROLLER_TESTKIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/error.h"
#include "controller/controller.h"

#include <tq/types.h>

typedef struct kit {
    uv_loop_t loop;
    char folder[64];
    char listen[96];
    tqi_net_token token;
    tqi_controller *controller;
    int closing; /* closes in progress */
} kit;

typedef struct kit_client {
    kit *kit;
    tqi_net_connector *connector;
    tqi_net_channel *channel;
} kit_client;

/* A call in flight or completed. */
typedef struct kit_call {
    kit_client *client;
    tqi_net_call *call;
    bool done;
    int status;
    tq_error error;
    uint64_t epoch;
    ProtobufCMessage *reply; /* a copy; NULL on error */
} kit_call;

/* Starts a controller; options may be NULL; listen, token and grace are filled in if absent. */
void kit_start(kit *k, const tqi_controller_options *options);
void kit_stop(kit *k);

/* Set-up and tear-down of most tests: a unit with owner "unit", a client that puts and one that claims. */
typedef struct kit_usual_clients {
    kit k;
    kit_client unit, producer, consumer;
} kit_usual_clients;

extern kit_usual_clients kit_usual;
int kit_usual_start(void **state);
int kit_usual_stop(void **state);

void kit_connect(kit *k, kit_client *client, const char *name);
/* Closes the client; the server sees it when the loop continues. */
void kit_disconnect(kit_client *client);

/* Starts a request. */
void kit_send(kit_client *client, uint16_t kind, const void *message, kit_call *call);
/* Runs the loop until the call has completed. */
int kit_wait(kit_call *call);
void kit_end(kit_call *call);
/* Runs the loop until the controller's status shows this many waiting claims. */
void kit_until_waiting(kit_client *client, uint32_t claims);
/* One request that succeeds; the caller frees the reply with kit_free. */
void *kit_ok(kit_client *client, uint16_t kind, const void *message);
/* One request that fails with `code` and a message that contains `text`. */
void kit_fails(kit_client *client, uint16_t kind, const void *message, int rc, const char *text);
void kit_free(void *reply);

/* Registers an owner of manager "test" under the client's session. */
void kit_register(kit_client *unit, const char *owner, uint64_t incarnation, bool shared);
uint64_t kit_grant(kit_client *client, const char *owner, uint32_t count);

/* Publishes rows of one int64 field in one block of their own under owner "unit". keys NULL: new samples. */
typedef struct kit_put {
    const char *partition;
    const char *field;
    uint32_t rows;
    char **keys;
    const uint32_t *indexes;
    uint64_t epoch;
    uint64_t block;    /* filled: the block that was used */
    const char *owner; /* NULL: "unit" */
} kit_put;
Tq__PublishReply *kit_publish(kit_client *client, kit_put *put);
/* The same, refused. */
void kit_publish_fails(kit_client *client, kit_put *put, int rc, const char *text);

/* Fills a fetch claim of field `field`. */
void kit_claim(Tq__Claim *claim, const char *partition, char **field, int64_t size, const char *task);
/* The number of samples of a poll claim; 0 if it was refused with TQ_EAGAIN. */
size_t kit_poll(kit_client *client, const char *partition, const char *field, int64_t size, const char *task);

/* --- by hand -------------------------------------------------------------- */

/* A client that speaks frames itself: it acknowledges only what a test wants. */
typedef struct kit_raw {
    kit *kit;
    int fd;
    uint64_t requests;
    bool readable;
    uv_poll_t poll;
} kit_raw;

void kit_raw_open(kit *k, kit_raw *raw);
uint64_t kit_raw_send(kit_raw *raw, uint16_t kind, uint64_t ack, const void *message);
/* The reply, of the type of that kind, or an Error for TQI_FAILED. */
void *kit_raw_receive(kit_raw *raw, tqi_frame *frame);
void kit_raw_close(kit_raw *raw);

#endif
