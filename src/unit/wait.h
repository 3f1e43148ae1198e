/*
 * wait.h - reserves that wait for room.
 */
#ifndef TQI_UNIT_WAIT_H
#define TQI_UNIT_WAIT_H

#include "net/waiters.h"
#include "unit/unit.h"
#include "wire/methods.h"

typedef struct tqi_unit_wait {
    tqi_net_waiter base; /* first: waits are known by it */
    tqi_unit *unit;
    const Tq__UnitReserve *message; /* lives as long as the request */
    tqi_store_place *places;
    uint64_t since;
    uint64_t number; /* ascending */
    struct tqi_unit_wait *prev, *next;
} tqi_unit_wait;

/* First come, first served, in two queues: reserves that add columns may use the store's last tenth and must not queue
 * behind those that may not. */
typedef struct tqi_unit_waits {
    tqi_unit_wait *row[2]; /* [adds_samples] */
    tqi_net_waiters waiters;
    uint64_t last; /* number */
} tqi_unit_waits;

/* Reserves at once, lets the request wait, or fails it. */
void tqi_unit_reserve(tqi_unit *unit, tqi_net_request *request, const Tq__UnitReserve *message);
/* Room was made. */
void tqi_unit_wake(tqi_unit *unit);
/* Fails all that wait. */
void tqi_unit_waits_fail(tqi_unit *unit, int rc, const char *why);
/* What waiting needs before the first reserve; its timer is the unit's to start and close. */
void tqi_unit_waits_init(tqi_unit *unit);

#endif
