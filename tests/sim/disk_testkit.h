/*
 * disk_testkit.h - as much of the simulation's kernel as the virtual file system needs, for its test: one process,
 * descriptors, and faults that happen when the test says so.
 */
#ifndef TQ_SIM_DISK_TESTKIT_H
#define TQ_SIM_DISK_TESTKIT_H

#include "sim.h"

/* An empty file system that can exchange names, whose host keeps a journal or not. */
void disk_testkit_start(uint64_t seed, bool journal);
/* Everything is closed and freed: fails if not. */
void disk_testkit_end(void);
/* Lets virtual time pass. */
void disk_testkit_pass(uint64_t ns);
/* The fault happens at the n-th place from now (1: the next one), once; 0: never. */
void disk_testkit_fault(sim_fault fault, uint32_t nth);
/* Whether that place was reached. */
bool disk_testkit_happened(sim_fault fault);
/* Runs it until the n-th place where a process may be killed, and closes its descriptors, as the kernel does. Returns
 * false if it ended before that. */
bool disk_testkit_killed(uint32_t nth, void (*run)(void *arg), void *arg);
/* Whether the seed has the fault. */
void disk_testkit_may(sim_fault fault, bool may);
/* As by a program that ends: closes every descriptor. */
void disk_testkit_close_all(void);

#endif
