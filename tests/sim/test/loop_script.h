/*
 * loop_script.h - sequences of calls of libuv, of which the order of callbacks is written down: once with libuv
 * (loop_real.c) and once with the simulation's (loop_test.c), which must be equal.
 */
#ifndef TQ_SIM_LOOP_SCRIPT_H
#define TQ_SIM_LOOP_SCRIPT_H

#include <stddef.h>

/* Runs all sequences; writes one line per callback. */
void loop_script(char *out, size_t size);

#endif
