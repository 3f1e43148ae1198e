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
/* Whether the seed has the fault. */
void disk_testkit_may(sim_fault fault, bool may);
/* As by a program that ends: closes every descriptor. */
void disk_testkit_close_all(void);

#endif
