/*
 * meter.h - what the controller counts for its metrics while it works.  NULL if metrics are off: every function then does
 * nothing, and the request path reads no clock.
 */
#ifndef TQI_CONTROLLER_METER_H
#define TQI_CONTROLLER_METER_H

#include <uthash.h>

#include "meta/meta.h"
#include "metrics/metrics.h"
#include "wire/methods.h"

typedef struct tqi_ctl_happened tqi_ctl_happened;

#define TQI_METER_EVENTS_MAX 32u
/* Kinds of requests of a controller, and one slot for a clear of a whole partition. */
#define TQI_METER_OPS (TQI_UNIT_MAP - TQI_PUBLISH + 1)

/* Requests of one kind. */
typedef struct tqi_meter_op {
    const char *name;  /* as served; NULL: no such request */
    const char *event; /* counter of the samples it concerned; NULL: none */
    uint64_t errors;
    uint64_t samples;
    tqi_histogram duration; /* its count is that of the requests */
} tqi_meter_op;

/* Counters of a task or a field. */
typedef struct tqi_meter_name {
    UT_hash_handle hh;
    uint64_t claims; /* of a task */
    uint64_t items;  /* samples of a task, cells of a field */
    uint64_t bytes;
    uint32_t waiting; /* claims of a task */
    tqi_histogram wait;
    uint64_t ready; /* these two: scratch of a snapshot */
    uint64_t unconsumed;
    char name[];
} tqi_meter_name;

typedef struct tqi_meter {
    tqi_meter_op ops[TQI_METER_OPS]; /* by kind, from the first */
    tqi_meter_name *tasks;
    tqi_meter_name *fields;
    struct {
        const char *kind; /* static */
        uint64_t count;
    } events[TQI_METER_EVENTS_MAX];
} tqi_meter;

/* NULL: out of memory. */
tqi_meter *tqi_meter_alloc(void);
void tqi_meter_free(tqi_meter *meter);

/* 0 where metrics are off. */
uint64_t tqi_meter_now(const tqi_meter *meter);
/* Where a request is counted; NULL if metrics are off. */
tqi_meter_op *tqi_meter_op_of(tqi_meter *meter, uint16_t kind, const ProtobufCMessage *message);
/* A request that began at `since` has finished, or waits from now on. */
void tqi_meter_handled(tqi_meter_op *op, uint64_t since);
/* It was refused, now or after waiting.  Too few ready samples count as an answer. */
void tqi_meter_failed(tqi_meter_op *op, int code);
/* Counters of a task, for claims that wait; never NULL if metrics are on. */
tqi_meter_name *tqi_meter_task(tqi_meter *meter, const char *task);
/* A claim that arrived at `since` is answered. */
void tqi_meter_claimed(tqi_meter *meter, const char *task, uint64_t since);
void tqi_meter_event(tqi_meter *meter, const tqi_ctl_happened *what);
/* A batch was published. */
void tqi_meter_published(tqi_meter *meter, const tqi_batch *batch);

#endif
