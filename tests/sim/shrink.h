/*
 * shrink.h - the smallest set of faults and operations with which a seed still fails.
 */
#ifndef TQ_SIM_SHRINK_H
#define TQ_SIM_SHRINK_H

#include "chance.h"

/* Runs the seed with what is selected in sim_faults_drawn and with that many operations per client (0: all); returns
 * whether it still fails in the same way. */
typedef bool (*shrink_trial)(uint32_t operations, void *arg);

/* Leaves the smallest selection that it found in sim_faults_drawn, and returns the number of operations (0: all of
 * them are needed). The faults that happened are `list`. */
uint32_t shrink_run(const sim_decision *list, size_t n, shrink_trial trial, void *arg);

#endif
