/*
 * controller.h - the controller: handlers over the table (src/table), waiting claims, events, owners' sessions.
 *
 * Runs on one loop and owns everything on it. It knows nothing of how data is stored.
 */
#ifndef TQI_CONTROLLER_CONTROLLER_H
#define TQI_CONTROLLER_CONTROLLER_H

#include "metrics/metrics.h"
#include "net/net.h"

typedef struct tqi_controller tqi_controller;

typedef struct tqi_controller_options {
    const char *const *listen; /* endpoints */
    size_t n_listen;
    const tqi_net_token *token;
    const char *sampler;       /* default for claims without one; NULL or "": sequential */
    bool polling;              /* claims answer at once by default */
    bool strict_schema;        /* a field has one kind and dtype */
    uint64_t grace_ms;         /* of sessions */
    uint64_t owner_timeout_ms; /* an owner gone for longer has lost its blocks */
    /* A store executes a request within this time; 0: the default of controller.write_deadline. */
    uint64_t write_deadline_ms;
    uint32_t events;    /* events kept; 0: the default of controller.events */
    uint64_t epoch;     /* 0: random */
    const char *system; /* name of the system; NULL = "" */
    /* Handed to clients that ask (SYSTEM_CONFIG), never interpreted; copied; NULL = "". */
    const char *manager;        /* type of the system's storage manager */
    const char *manager_config; /* its config, a JSON object */
    const char *config;         /* whole configuration, a JSON object */
    bool metrics;               /* counts what tqi_controller_metrics reports */
    /* Tests: 0 = usual; else indexes, incarnations, ordinals and ids start this far below their wrap. */
    uint64_t first_counters;
} tqi_controller_options;

int tqi_controller_alloc(uv_loop_t *loop, const tqi_controller_options *options, tqi_controller **out, tq_error *err);
/* Bound endpoints, separated by commas (port 0 is replaced by the actual port). */
const char *tqi_controller_endpoint(const tqi_controller *controller);
uint64_t tqi_controller_epoch(const tqi_controller *controller);
/* Data in stores that have no server process in the system. */
typedef struct tqi_controller_stored {
    uint64_t blocks, bytes;
    uint64_t left; /* of the blocks left after the clients removed what they could */
    bool removed;  /* they have removed all of it */
    /* something else is being removed at the moment, or will be removed once more later */
    bool dead;
    bool stays; /* a checkpoint refers to it: it must not be removed when the system ends */
} tqi_controller_stored;

tqi_controller_stored tqi_controller_stored_elsewhere(const tqi_controller *controller);
/* The current state as metrics, which any thread may render; call on the loop thread only. Only the `max_partitions`
 * newest partitions have separate series. TQ_EUNSUPPORTED without the option `metrics`. */
int tqi_controller_metrics(tqi_controller *controller, uint32_t max_partitions, tqi_metric_set **out, tq_error *err);
/* Called before the system ends: has the connected clients remove the data in stores that have no server process, and
 * serves nobody else from now on. Snapshots are closed, except those whose data stays. `drained` is called once from
 * the loop, after `ms` at the latest, with the number of blocks that are left; the controller must then be closed. */
void tqi_controller_drain(tqi_controller *controller, uint64_t ms, void (*drained)(uint64_t left, void *arg), void *arg);
/* Sets what its goodbye to clients says when it is closed: whether the system ends or only this run of it
 * (TQI_NET_ENDS_RUN), and why. */
void tqi_controller_set_goodbye(tqi_controller *controller, tqi_net_ending ending, const char *reason);
void tqi_controller_close(tqi_controller *controller, void (*done)(void *arg), void *arg);

#endif
