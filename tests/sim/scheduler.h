/*
 * scheduler.h - the scheduler, for the parts of the simulation that run it: main.c and world.c.
 */
#ifndef TQ_SIM_SCHED_H
#define TQ_SIM_SCHED_H

#include "sim.h"

typedef struct sim_sched {
    uint64_t now;
    uint64_t hash;   /* of the trace */
    uint64_t events; /* that happened */
    uint64_t pids;   /* handed out */
    uint64_t points_to_kill, points_to_preempt;
    sim_chance chance;
    sim_process *doomed; /* it killed itself */
} sim_sched;

extern sim_sched sim_scheduler;

/* A process with what only the scheduler knows of it. */
typedef struct sched_process {
    sim_process process; /* first: found by its address */
    bool ending;
    sim_fiber *fibers;
    sim_fiber *first; /* main */
    uint64_t stopped_at;
} sched_process;

sched_process *sched_of(sim_process *process);
/* The next process that is alive; NULL: the first, and none. */
sim_process *sched_each(sim_process *before);
/* Whether it has no other fiber than that of its main function. */
bool sched_alone(sim_process *process);
void sched_process_end(sim_process *process, bool killed);
void sched_reap(void);
uint64_t sched_mix(uint64_t hash, uint64_t value);

/* There is no event any more. */
void sched_events_clear(void);
/* Everything is as at the start of a program: no event, time 0. */
void sched_start(uint64_t seed);
/* Runs the next event, if it is not later than that; false: there is none. */
bool sched_step(uint64_t until);

void sim_process_stop(sim_process *process);     /* SIGSTOP */
void sim_process_continue(sim_process *process); /* SIGCONT */
/* world_faults.c: whether a process may be killed by a fault: not the one that counts at the end, for example. */
bool sched_may_kill(const sim_process *process);

#endif
