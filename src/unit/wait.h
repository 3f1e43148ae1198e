/*
 * wait.h - reserves that wait for room.
 */
#ifndef TQI_UNIT_WAIT_H
#define TQI_UNIT_WAIT_H

#include "base/heap.h"
#include "unit/unit.h"
#include "wire/methods.h"

typedef struct tqi_unit_wait {
    tqi_unit *unit;
    tqi_net_request *request;
    const Tq__UnitReserve *message; /* lives as long as the request */
    tqi_store_place *places;
    tqi_heap_node timed; /* by deadline; in none without one */
    uint64_t since;
    uint64_t number; /* ascending */
    struct tqi_unit_wait *prev, *next;
} tqi_unit_wait;

/* First come, first served, in two queues: reserves that add columns may use the store's last tenth and must not queue
 * behind those that may not. */
typedef struct tqi_unit_waits {
    tqi_unit_wait *row[2]; /* [adds_samples] */
    tqi_heap timed;        /* those with a deadline */
    uv_timer_t timer;      /* nearest deadline */
    uint64_t last;         /* number */
} tqi_unit_waits;

/* Reserves at once, lets the request wait, or fails it. */
void tqi_unit_reserve(tqi_unit *unit, tqi_net_request *request, const Tq__UnitReserve *message);
/* Room was made. */
void tqi_unit_wake(tqi_unit *unit);
/* Fails all that wait. */
void tqi_unit_waits_fail(tqi_unit *unit, int code, const char *why);
void tqi_unit_waits_timer(uv_timer_t *timer);

#endif
