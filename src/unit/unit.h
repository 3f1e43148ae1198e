/*
 * unit.h - the storage unit: serves one store to readers and writers, and joins a controller as an owner of blocks.
 *
 * A unit runs on one loop and owns everything on it.  A daemon hosts several, each on a thread of its own.
 */
#ifndef TQI_UNIT_H
#define TQI_UNIT_H

#include "net/net.h"
#include "store/store.h"

typedef struct tqi_unit tqi_unit;

typedef struct tqi_unit_options {
    const char *name;          /* owner name, unique in the system: "unit-0" */
    const char *controller;    /* endpoint list to join */
    bool own_controller;       /* it is one of this process, which says itself that it ends */
    const char *const *listen; /* endpoints to listen on: unix and/or tcp */
    size_t n_listen;
    const char *advertise_host; /* host others reach the tcp endpoints by; NULL: as bound */
    /* Without that: by what others reach an endpoint that is bound to all addresses; NULL: found out. */
    const tqi_reach *reach;
    const char *node; /* which clients of the same node know it by; NULL: by the machine only */
    const tqi_token *token;
    /* Where the token is from: read again when the controller has another one, as after a restart of it with a new file.
     * NULL: it stays as it is. */
    const char *token_file;
    tqi_store_options store;
    uint64_t grace_ms;
    uint64_t keep_ms; /* memory stays warm for what was in use within this time, or twice of it */
} tqi_unit_options;

/* Listens, then joins: registers with the controller (again after every reconnect), collects dead blocks, reports its
 * counters (report.c).  A controller of a new epoch makes it drop all blocks. */
int tqi_unit_alloc(uv_loop_t *loop, const tqi_unit_options *options, tqi_unit **out, tq_error *err);
/* Called (on the loop) whenever the unit is registered and serves. */
void tqi_unit_on_ready(tqi_unit *unit, void (*fn)(void *arg), void *arg);
/* Called (on the loop) when the controller refuses it before it was ever registered: another token, or another version.  It
 * does not try again then; without this it does. */
void tqi_unit_on_refused(tqi_unit *unit, void (*fn)(const tq_error *err, void *arg), void *arg);
/* Its endpoint list, as registered with the controller. */
const char *tqi_unit_endpoint(const tqi_unit *unit);
/* What its clients are told when it is closed: it ends, or only this run of it (TQI_ENDS_RUN), and why. */
void tqi_unit_set_goodbye(tqi_unit *unit, tqi_ending ending, const char *reason);
void tqi_unit_close(tqi_unit *unit, void (*done)(void *arg), void *arg);

#endif
