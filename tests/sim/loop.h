/*
 * loop.h - libuv in the simulation: the functions that the product calls are defined in loop.c, over the structs of the
 * real <uv.h>.
 */
#ifndef TQ_SIM_LOOP_H
#define TQ_SIM_LOOP_H

#include "sim.h"

/* The process ends: drops what its loops have in the simulator's memory. */
void sim_loops_end(sim_process *process);
/* Number of loops that are open in the process, and of handles in them. */
uint32_t sim_loops_count(const sim_process *process, uint32_t *handles);
/* Whether timers run after the poll phase, as in libuv 1.45 and later, or before it. Drawn per seed. */
void sim_loops_start(bool timers_last);

#endif
