/*
 * thread.h - threads of simulated processes: pthread, futex and the clocks, replaced at link time.
 */
#ifndef TQ_SIM_THREAD_H
#define TQ_SIM_THREAD_H

#include "sim.h"

void sim_threads_start(sim_process *process);
void sim_threads_end(sim_process *process);
/* The process's monotonic clock at a time of the simulation, and the first time at which it shows a value. */
uint64_t sim_clock(const sim_process *process, uint64_t time);
uint64_t sim_clock_reaches(const sim_process *process, uint64_t clock);
/* Microseconds since 1970 by the process's wall clock. */
int64_t sim_wall(const sim_process *process);
/* The fiber ends. */
void sim_threads_forget(sim_process *process, const sim_fiber *fiber);
/* Threads that have not been joined, of a process that ends in order. */
uint32_t sim_threads_count(const sim_process *process);

#endif
