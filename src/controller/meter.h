/*
 * meter.h - what the controller counts for its metrics while it works. NULL if metrics are off: every function then
 * does nothing, and the request path reads no clock.
 */
#ifndef TQI_CONTROLLER_METER_H
#define TQI_CONTROLLER_METER_H

#include "base/hash.h"
#include "metrics/metrics.h"
#include "table/table.h"
#include "wire/methods.h"

typedef struct tqi_ctl_happened tqi_ctl_happened;

#define TQI_CTL_METER_EVENTS_MAX 32u
/* Kinds of requests of a controller, and one slot for a clear of a whole partition. */
#define TQI_CTL_METER_OPS (TQI_UNIT_MAP - TQI_PUBLISH + 1)

/* Requests of one kind. */
typedef struct tqi_ctl_meter_op {
    const char *name;  /* as served; NULL: no such request */
    const char *event; /* counter of the samples it concerned; NULL: none */
    uint64_t errors;
    uint64_t samples;
    tqi_histogram duration; /* its count is that of the requests */
} tqi_ctl_meter_op;

/* Counters of a task or a field. */
typedef struct tqi_ctl_meter_name {
    UT_hash_handle hh;
    uint64_t claims; /* of a task */
    uint64_t items;  /* samples of a task, cells of a field */
    uint64_t bytes;
    uint32_t waiting; /* claims of a task */
    tqi_histogram wait;
    uint64_t ready; /* these two: scratch of a snapshot */
    uint64_t unconsumed;
    char name[];
} tqi_ctl_meter_name;

typedef struct tqi_ctl_meter {
    tqi_ctl_meter_op ops[TQI_CTL_METER_OPS]; /* by kind, from the first */
    tqi_ctl_meter_name *tasks;
    tqi_ctl_meter_name *fields;
    struct {
        const char *kind; /* static */
        uint64_t count;
    } events[TQI_CTL_METER_EVENTS_MAX];
} tqi_ctl_meter;

/* NULL: out of memory. */
tqi_ctl_meter *tqi_ctl_meter_alloc(void);
void tqi_ctl_meter_free(tqi_ctl_meter *meter);

/* 0 where metrics are off. */
uint64_t tqi_ctl_meter_now(const tqi_ctl_meter *meter);
/* Where a request is counted; NULL if metrics are off. */
tqi_ctl_meter_op *tqi_ctl_meter_op_of(tqi_ctl_meter *meter, uint16_t kind, const ProtobufCMessage *message);
/* A request that began at `since` has finished, or waits from now on. */
void tqi_ctl_meter_handled(tqi_ctl_meter_op *op, uint64_t since);
/* It was refused, now or after waiting. Too few ready samples count as an answer. */
void tqi_ctl_meter_failed(tqi_ctl_meter_op *op, int rc);
/* Counters of a task, for claims that wait; never NULL if metrics are on. */
tqi_ctl_meter_name *tqi_ctl_meter_task(tqi_ctl_meter *meter, const char *task);
/* A claim that arrived at `since` is answered. */
void tqi_ctl_meter_claimed(tqi_ctl_meter *meter, const char *task, uint64_t since);
void tqi_ctl_meter_event(tqi_ctl_meter *meter, const tqi_ctl_happened *what);
/* A batch was published. */
void tqi_ctl_meter_published(tqi_ctl_meter *meter, const tqi_table_batch *batch);

#endif
