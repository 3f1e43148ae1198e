/*
 * units.h - the storage units of a daemon, each with its own thread and loop.
 */
#ifndef TQI_DAEMON_UNITS_H
#define TQI_DAEMON_UNITS_H

#include "daemon/endpoints.h"

typedef struct tqd_units tqd_units;

typedef struct tqd_units_options {
    const tqd_config *config;
    const tqd_net *net;
    const char *runtime_dir; /* sockets go here; NULL: none */
    const char *controller;  /* endpoint list to join */
    const tqi_net_token *token;
    const char *token_file; /* read again if the controller has a different token; NULL: never */
    bool alone;             /* names must be unique across daemons: they include host and pid */
} tqd_units_options;

/* Starts all units. `ready` is called once, on the given loop: all of them are serving (err is NULL), or the
 * controller has refused one, and they must be stopped. */
int tqd_units_start(uv_loop_t *loop, const tqd_units_options *options, void (*ready)(const tq_error *err, void *arg),
                    void *arg, tqd_units **out, tq_error *err);
/* Sets what their goodbye to clients says when they stop: that they end, or only this run of them (TQI_NET_ENDS_RUN),
 * and why. */
void tqd_units_set_goodbye(tqd_units *units, tqi_net_ending ending, const char *reason);
/* Stops them, joins the threads and frees everything before it returns. NULL is allowed. */
void tqd_units_stop(tqd_units *units);

#endif
