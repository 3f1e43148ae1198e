/*
 * units.h - the storage units of a daemon, each on a thread and loop of its own.
 */
#ifndef TQD_UNITS_H
#define TQD_UNITS_H

#include "daemon/endpoints.h"

typedef struct tqd_units tqd_units;

typedef struct tqd_units_options {
    const tqd_config *config;
    const tqd_net *net;
    const char *runtime_dir; /* sockets go here; NULL: none */
    const char *controller;  /* endpoint list to join */
    const tqi_token *token;
    const char *token_file; /* read again when the controller has another token; NULL: never */
    bool alone;             /* names must be unique across daemons: host and pid are part of them */
} tqd_units_options;

/* Starts all units.  `ready` is called once, on the given loop: all of them serve (err is NULL), or the controller has
 * refused one, and they are to be stopped. */
int tqd_units_start(uv_loop_t *loop, const tqd_units_options *options,
                    void (*ready)(const tq_error *err, void *arg), void *arg, tqd_units **out,
                    tq_error *err);
/* What their clients are told then: they end, or only this run of them (TQI_ENDS_RUN), and why. */
void tqd_units_set_goodbye(tqd_units *units, tqi_ending ending, const char *reason);
/* Stops them, joins the threads and frees; returns when all is gone.  NULL is allowed. */
void tqd_units_stop(tqd_units *units);

#endif
