/*
 * objects.h - where the controllers, units and servers of the simulated processes are.
 */
#ifndef TQ_SIM_ORACLE_OBJECTS_H
#define TQ_SIM_ORACLE_OBJECTS_H

#include "sim.h"

typedef enum objects_kind {
    OBJECTS_CONTROLLER, /* tqi_controller */
    OBJECTS_UNIT        /* tqi_unit */
} objects_kind;

typedef struct objects_item {
    objects_kind kind;
    uint64_t pid;
    void *object;
    bool rested;               /* it was at rest before, when its process had: */
    uint32_t fds;              /* descriptors */
    uint64_t live, live_bytes; /* allocations */
} objects_item;

void objects_start(void);
void objects_end(void);
/* Those of processes that are alive, and that are not being closed: the first one after that; NULL: the first, none. */
objects_item *objects_next(const objects_item *after);

#endif
