/*
 * waits.h - liveness of what waits in a server: no put waits for a second although there is room for it, and no claim
 * that the controller could try. Faults are no excuse: nothing outside of the server is needed.
 */
#ifndef TQ_SIM_ORACLE_WAITS_H
#define TQ_SIM_ORACLE_WAITS_H

/* Per seed. */
void waits_start(void);

#endif
