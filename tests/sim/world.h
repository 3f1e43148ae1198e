/*
 * world.h - one simulated system: what a seed draws, its processes, and its phases.
 *
 * First the safety phase: clients work, and faults happen. Then faults are over (sim_is_calm), and everything must end:
 * the liveness phase. Then one more client drains and clears everything, the servers come to rest and are looked at,
 * and they end.
 */
#ifndef TQ_SIM_WORLD_H
#define TQ_SIM_WORLD_H

#include "load/load.h"
#include "sim.h"

#define WORLD_UNITS   4
#define WORLD_CLIENTS 6
#define WORLD_HOSTS   4

typedef struct world_options {
    const char *load;    /* --load: the only workload; NULL: drawn */
    uint32_t budget;     /* --budget: operations per client; 0: drawn */
    uint32_t operations; /* --operations: of each client only the first that many; 0: all (for --shrink) */
} world_options;

/* Where the system keeps its data. */
typedef enum world_storage {
    WORLD_SIMPLE = 0, /* units */
    WORLD_KV,         /* the KV manager over the store of store.h */
    WORLD_KEYED       /* a storage manager with keys of its own */
} world_storage;

/* What the seed drew. */
typedef struct world_draws {
    world_storage storage;
    const char *manager;
    uint32_t hosts, units, clients;
    uint64_t grace_ms, owner_timeout_ms, write_deadline_ms;
    uint64_t first_counters;
    uint64_t capacity; /* of a unit */
    bool timers_last;
    bool tcp_only; /* no unix sockets */
    bool controller_dies;
    uint64_t safety_ns;
} world_draws;

extern world_draws world_drawn;

/* Of the seed that ran last. */
typedef struct world_summary {
    uint64_t hash, events, time, ops;
} world_summary;
extern world_summary world_finished;
/* Whether what the product logs is printed. */
extern bool world_logs;

/* Called at the end of a seed in which nothing was found, before its history is freed; NULL: nothing is. */
extern void (*world_ending)(void);

/* Runs a seed from start to end; ends with sim_found if something is wrong. */
void world_run(uint64_t seed, const world_options *options);
/* The client options of a process that runs: address, token, name, manager and timeouts. The strings stay. */
void world_client_options(tq_client_options *out);
/* An address at which the running process can reach a server: the controller is 0, units are numbered from 1 on; NULL:
 * there is no such unit. */
const char *world_address(uint32_t server);
/* Requests that clients have sent, in this process of the program. */
extern uint64_t world_requests;
/* The units' and the controller's processes that run now; NULL: that one does not. */
sim_process *world_controller(void);
sim_process *world_unit(uint32_t number);

#endif
