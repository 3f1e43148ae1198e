/*
 * keyed.h - what keyed.c does in the drain.
 */
#ifndef TQ_SIM_KEYED_H
#define TQ_SIM_KEYED_H

#include "load/call.h"

/* Whether a partition's values are kept by the workload itself: it must be cleared in two phases. */
bool load_keyed_owns(const char *partition);
/* Clears it. */
void load_keyed_drain(load_call *call, const char *partition);
/* All is cleared: ends the clears that others have begun and left; then no value is left whose client knows that it was
 * stored. */
void load_keyed_check(load_call *call);

#endif
