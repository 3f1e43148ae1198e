/*
 * steps.h - what several workloads do: draws, and short sequences of calls.
 */
#ifndef TQ_SIM_STEPS_H
#define TQ_SIM_STEPS_H

#include "load/call.h"

/* Whether the client still has a budget for an op, and takes it; lets a drawn time pass now and then. */
bool load_next(load_call *call);
/* Draws n different of the names; they keep their order. */
uint32_t load_draw_names(sim_chance *chance, const char *const *names, uint32_t of, uint32_t n, const char **out);
/* A key of a small space, so that clients meet: "key-0" to "key-(space - 1)". n different ones; the texts last. */
void load_draw_keys(sim_chance *chance, uint32_t space, uint32_t n, const char **out);
/* Timeout of a claim that may wait in vain: 10 ms to 3 s. */
double load_draw_wait(sim_chance *chance);

/* Looks at a partition in one of the ways that change nothing. */
void load_look_around(load_call *call, const char *partition, const char *task);
/* Reads the meta, in a drawn way. */
int load_read(load_call *call, const load_meta *meta, const char *const *fields, uint32_t n_fields);
/* Clears a part of the partition, oldest samples first: storage is full. */
void load_make_room(load_call *call, const char *partition);

#endif
