/*
 * net_testkit.h - the network of the simulation without the rest of it: a clock, events and two processes.
 */
#ifndef TQ_SIM_NET_TESTKIT_H
#define TQ_SIM_NET_TESTKIT_H

#include "sim.h"

/* Two processes: 0 and 1 on the same host, 2 on another one. */
#define KIT_PROCESSES 3

void kit_start(uint64_t seed);
void kit_end(void);
/* From here on calls are those of that process; -1: of none, so of the real system. */
void kit_as(int process);
/* SIGKILL. */
void kit_kill(int process);
/* Runs events up to that many ns from now. */
void kit_run(uint64_t ns);
/* Runs events until none is due within a second. */
void kit_settle(void);
/* The fault happens the next n times that it is asked for. */
void kit_fault(sim_fault fault, unsigned n);
/* Faults happen once in that many questions; 0: never. */
void kit_faults(uint32_t one_in);
/* Between the hosts 0 and 1, in those directions (from 0 to 1, and back). */
void kit_partition(bool there, bool back, uint64_t ns);
bool kit_marked(const char *name);
uint64_t kit_hash(void);

#endif
