/*
 * testkit.h - a real controller, real storage units and clients of them on one loop, for the tests of storage.
 *
 * Everything runs on the loop of the test; what a test waits for is a flag that a callback sets, and the test runner's
 * time limit ends a test that waits for ever.
 */
#ifndef TQ_TESTS_STORAGE_KIT_H
#define TQ_TESTS_STORAGE_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "controller/controller.h"
#include "net/net.h"
#include "unit/unit.h"

#define KIT_UNITS  4
#define KIT_GRANTS 16
/* Seconds for what must succeed, however slow the machine is; only deadlines that are meant to pass are short. */
#define KIT_LONG 60.0

typedef struct kit {
    uv_loop_t loop;
    char dir[64];
    char controller_at[128]; /* endpoint */
    tqi_net_token token;
    tqi_controller *controller;
    tqi_unit *units[KIT_UNITS];
    uint64_t grace_ms;     /* of sessions at units that are started */
    bool ready[KIT_UNITS]; /* since it was last cleared */
} kit;

/* A client's session: its connector, with a channel to the controller and one to a unit. */
typedef struct kit_client {
    kit *kit;
    tqi_net_connector *connector;
    tqi_net_channel *controller;
    tqi_net_channel *unit;
    struct {
        uint64_t first;
        uint32_t count;
        uint8_t proof[TQI_NET_GRANT];
    } grants[KIT_GRANTS]; /* the last ones */
    unsigned n_grants;
} kit_client;

/* A call and its answer. */
typedef struct kit_call {
    bool done;
    int status;
    tq_error error;
    ProtobufCMessage *reply; /* a copy */
    tqi_net_call *call;
    void *into; /* where the payload goes */
    uint64_t payload;
    int fds[TQI_NET_FDS_MAX];
    int n_fds;
    uint64_t incarnation; /* of granted ids */
} kit_call;

void kit_open(kit *k);
void kit_close(kit *k);
void kit_until(kit *k, const bool *flag);
void kit_controller_start(kit *k);
void kit_controller_stop(kit *k);
/* Starts unit `i` ("unit-<i>") and waits until it serves. tcp: it has no unix socket. */
void kit_unit_start(kit *k, int i, uint64_t capacity, bool tcp);
void kit_unit_stop(kit *k, int i);

void kit_client_open(kit *k, kit_client *client, int unit);
void kit_client_close(kit_client *client);
/* Breaks the connection to the unit, whose session ends there without being closed; the next call reconnects. */
void kit_client_cut(kit_client *client);

/* Starts a call; kit_end waits for it. */
void kit_start(kit_client *client, tqi_net_channel *channel, uint16_t kind, const void *message,
               const struct iovec *payload, int n_payload, void *into, double seconds, kit_call *call);
void kit_end(kit_client *client, kit_call *call);
void kit_call_free(kit_call *call);

/* Shorthands. They assert success where they return no code. */
uint64_t kit_grant(kit_client *client, int unit, uint32_t count, uint64_t *incarnation);
/* writing: what was sent to the unit may still arrive. */
void kit_abandon(kit_client *client, const uint64_t *ids, size_t n, bool writing);
/* Reserves one block, with the grant that it is of if that is one of the client's: starts, or does it. */
void kit_reserve_start(kit_client *client, uint64_t id, uint64_t size, bool adds, bool wait, uint64_t timeout_ms,
                       uint64_t incarnation, kit_call *call);
int kit_reserve(kit_client *client, uint64_t id, uint64_t size, bool adds, uint32_t *slot, uint64_t *offset,
                tq_error *err);
int kit_write(kit_client *client, uint64_t id, uint32_t slot, const void *data, uint64_t size, tq_error *err);
/* Reads one range; *gone says whether the block does not exist. */
int kit_read(kit_client *client, uint64_t id, uint32_t slot, uint64_t offset, uint64_t size, void *into, bool *gone,
             tq_error *err);
void kit_stat(kit_client *client, uint64_t *used, uint64_t *blocks);
/* Maps the unit's memory; `incarnation` may be NULL. */
void kit_map(kit_client *client, tqi_store_map *map, uint64_t *incarnation);
/* A counter as last reported by the only unit, and a wait until it has that value. */
uint64_t kit_reported(kit_client *client, const char *name);
void kit_until_reported(kit_client *client, const char *name, uint64_t value);

#endif
