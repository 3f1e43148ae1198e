/*
 * unit.h - the storage unit: serves one store to readers and writers, and joins a controller as an owner of blocks.
 *
 * A unit runs on one loop and owns everything on it. A daemon hosts several, each on a thread of its own.
 */
#ifndef TQI_UNIT_UNIT_H
#define TQI_UNIT_UNIT_H

#include "net/net.h"
#include "store/store.h"

typedef struct tqi_unit tqi_unit;

typedef struct tqi_unit_options {
    const char *name;       /* owner name, unique in the system: "unit-0" */
    const char *controller; /* endpoint list to join */
    /* the controller is in this process, which itself reports that it ends */
    bool own_controller;
    const char *const *listen; /* endpoints to listen on: unix and/or tcp */
    size_t n_listen;
    const char *advertise_host; /* host by which others reach the tcp endpoints; NULL: as bound */
    /* Without that: the addresses by which others reach an endpoint bound to all addresses; NULL: determined
     * automatically. */
    const tqi_net_addresses *reach;
    /* by which clients on the same node recognise it; NULL: only by the machine */
    const char *node;
    const tqi_net_token *token;
    /* The token's file: read again if the controller has a different token, for example after it was restarted with a
     * new file. NULL: the token never changes. */
    const char *token_file;
    tqi_store_options store;
    uint64_t grace_ms;
    uint64_t keep_ms; /* memory in use within this time (at most twice this) stays warm */
} tqi_unit_options;

/* Listens, then joins: registers with the controller (again after every reconnect), collects dead blocks and reports
 * its counters (report.c). When the controller has a new epoch, the unit drops all blocks. */
int tqi_unit_alloc(uv_loop_t *loop, const tqi_unit_options *options, tqi_unit **out, tq_error *err);
/* Called (on the loop) whenever the unit has registered and is serving. */
void tqi_unit_on_ready(tqi_unit *unit, void (*fn)(void *arg), void *arg);
/* Called (on the loop) if the controller refuses the unit before it was ever registered: a different token or version.
 * The unit then does not retry; without this callback it does. */
void tqi_unit_on_refused(tqi_unit *unit, void (*fn)(const tq_error *err, void *arg), void *arg);
/* Its endpoint list, as registered with the controller. */
const char *tqi_unit_endpoint_for_tests(const tqi_unit *unit);
/* Sets what its goodbye to clients says when it is closed: that it ends, or only this run of it (TQI_NET_ENDS_RUN),
 * and why. */
void tqi_unit_set_goodbye(tqi_unit *unit, tqi_net_ending ending, const char *reason);
void tqi_unit_close(tqi_unit *unit, void (*done)(void *arg), void *arg);

#endif
