/*
 * events.h - what has happened, for clients that follow it.
 */
#ifndef TQI_CONTROLLER_EVENTS_H
#define TQI_CONTROLLER_EVENTS_H

#include <stddef.h>
#include <stdint.h>

#include "controller/controller.h"
#include "controller/meter.h"

typedef struct tqi_ctl_event tqi_ctl_event;
typedef struct tqi_ctl_event_wait tqi_ctl_event_wait;
typedef struct tqi_ctl_events {
    tqi_ctl_event **slots; /* event number s is at s % capacity; NULL: no longer kept */
    uint32_t capacity;
    uint64_t bytes; /* of these */
    uint64_t first; /* all before it are gone; 1 at the start */
    uint64_t last;  /* number of the newest, 0 = none yet */
    tqi_ctl_event_wait *waits;
} tqi_ctl_events;

/* What happened; strings may be NULL. */
struct tqi_ctl_happened {
    const char *kind;
    const char *session;
    const char *partition;
    const char *task;
    uint32_t samples;
    uint64_t bytes;
    const uint32_t *indexes;
    size_t n_indexes;
};

int tqi_ctl_events_init(tqi_ctl_events *events, uint32_t capacity, tq_error *err);
void tqi_ctl_events_fini(tqi_ctl_events *events);
/* Adds an event; if there is no memory for it, it is missing from the ring and that is logged. */
void tqi_ctl_event_add(tqi_controller *ctl, const tqi_ctl_happened *what);
/* Marks the waits for events ready. */
void tqi_ctl_events_gather(tqi_controller *ctl);

#endif
