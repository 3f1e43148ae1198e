/*
 * stores.h - the end of data in stores that are no units of ours.
 */
#ifndef TQ_SIM_STORES_H
#define TQ_SIM_STORES_H

#include "load/load.h"

/* All is cleared: waits until the clients (this one, the last) have removed all values of this run of the controller,
 * and checks that they have, those included that arrived late. */
void load_drain_stores(const load_client *self);

#endif
