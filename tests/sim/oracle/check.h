/*
 * check.h - the checks on the history of the clients (check.c). Each ends the seed with sim_found.
 */
#ifndef TQ_SIM_CHECK_H
#define TQ_SIM_CHECK_H

#include "../sim.h"

/* All clients have ended; faults are over; nothing is drained yet. */
void check_history(void);
/* The drain has ended, too: nothing is lost. */
void check_drained(void);
/* What that client is waiting for, for the message when it does not end: its running ops. The text lasts until the
 * next call. */
const char *check_pending(uint32_t client);

#endif
