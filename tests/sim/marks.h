/*
 * marks.h - events that must have happened in a run over many seeds (sim_mark).
 *
 * marks.c has the table. An event is counted where it happens: in files of the simulator and of the workloads, in
 * wrappers of functions of the product that are called exactly then (marks_wraps.c, wrap_marks.txt), and, for what only
 * the whole history tells, at the end of the seed (marks_of_seed).
 */
#ifndef TQ_SIM_MARKS_H
#define TQ_SIM_MARKS_H

#include "sim.h"

#define MARKS_MAX 256

/* Where sim_mark counts: one number for each line of the table in marks.c, and for names that are not in it the rest. */
extern uint64_t *marks_counts;
/* The marks that the histories of the clients and of the table show; before they are freed. */
void marks_of_seed(void);
/* Prints the marks of the table that never happened, if there were enough seeds to expect them (all of them with their
 * counts if `all`); returns how many are missing. */
uint64_t marks_report(const uint64_t *counts, uint64_t seeds, bool all);

#endif
