/*
 * memory_testkit.h - what stands in for the scheduler, the faults and the descriptors in the tests of memory.
 */
#ifndef TQ_SIM_MEMORY_TESTKIT_H
#define TQ_SIM_MEMORY_TESTKIT_H

#include <setjmp.h>

#include "sim.h"

extern bool memory_test_may_fail, memory_test_fails;
/* Called when a fiber is preempted; NULL: none is. */
extern void (*memory_test_preempts)(void);
/* What sim_found was called with, and where it returns to. */
extern char memory_test_found[256];
extern jmp_buf memory_test_back;

/* A process of number 0 or 1, which runs now. */
sim_process *memory_test_start(unsigned i);
void memory_test_enter(sim_process *process);
void memory_test_end(sim_process *process);

#endif
