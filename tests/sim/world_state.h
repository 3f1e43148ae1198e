/*
 * world_state.h - the state of the simulated system, for world.c and world_faults.c only.
 */
#ifndef TQ_SIM_WORLD_STATE_H
#define TQ_SIM_WORLD_STATE_H

#include <uv.h>

#include "controller/controller.h"
#include "unit/unit.h"
#include "world.h"

/* A server: its process, and what ends it. */
typedef struct world_server {
    uint32_t number; /* 0: the controller; from 1: units */
    uint32_t host;
    char name[32];
    char listen_unix[64], listen_tcp[64];
    sim_process *process;
    uv_loop_t *loop; /* in the process */
    uv_async_t *stop;
    tqi_controller *controller;
    tqi_unit *unit;
    bool serves;
    bool ends; /* it was asked to end */
} world_server;

typedef struct world_client {
    load_client load;
    uint32_t host;
    char name[32];
    sim_process *process;
} world_client;

typedef struct world_state {
    world_options options;
    sim_chance chance;
    world_server servers[1 + WORLD_UNITS];
    world_client clients[WORLD_CLIENTS + 1]; /* the last one drains */
    char address[WORLD_HOSTS][256];
    bool ending; /* servers are not started again */
} world_state;

extern world_state world;

/* The first of the faults that come from outside; each one plans the next. */
void world_faults_start(void);
/* Faults are over: nothing is stopped any more. */
void world_calm(void);

#endif
