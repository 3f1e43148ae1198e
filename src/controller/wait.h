/*
 * wait.h - deadlines under one timer, and requests that wait until a change of the table satisfies them.
 */
#ifndef TQI_CONTROLLER_WAIT_H
#define TQI_CONTROLLER_WAIT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/heap.h"
#include "controller/controller.h"
#include "controller/meter.h"
#include "net/net.h"

/* --- deadlines ------------------------------------------------------------ */

/* A point in time (monotonic ns) at which something is due; in a heap, served by one timer. */
typedef struct tqi_ctl_timed tqi_ctl_timed;
struct tqi_ctl_timed {
    void (*due)(tqi_ctl_timed *timed);
    tqi_controller *ctl;
    tqi_heap_node node;
};

void tqi_ctl_timed_add(tqi_controller *ctl, tqi_ctl_timed *timed, uint64_t deadline);
void tqi_ctl_timed_remove(tqi_ctl_timed *timed);
/* Now plus milliseconds, saturating. */
uint64_t tqi_ctl_after_ms(uint64_t ms);

/* --- waits ---------------------------------------------------------------- */

typedef struct tqi_ctl_wait tqi_ctl_wait;

/* What a kind of wait does. Each wait ends once: leave, then answer or fail, then free. */
typedef struct tqi_ctl_wait_type {
    /* Takes it out of the lists of its kind. */
    void (*leave)(tqi_ctl_wait *wait);
    /* It was marked ready: sends the reply. */
    void (*answer)(tqi_ctl_wait *wait);
    /* Its deadline passed: answers with that. */
    void (*describe)(const tqi_ctl_wait *wait, tq_error *err);
    /* Frees it and what it owns. NULL: free(). */
    void (*dispose)(tqi_ctl_wait *wait);
} tqi_ctl_wait_type;

/* A waiting request; the first member of each kind's own struct, which is malloc'ed. */
struct tqi_ctl_wait {
    const tqi_ctl_wait_type *type;
    tqi_controller *ctl;
    tqi_net_request *request;
    tqi_ctl_meter_op *op; /* where its failure is counted; NULL: nowhere */
    tqi_ctl_timed timed;
    bool ready;                /* in ctl->ready */
    tq_error *failure;         /* ready with an error; owned */
    tqi_ctl_wait *prev, *next; /* of ctl->ready */
};

/* Parks a request; timeout_ms 0: for ever. From here on its client can cancel it. */
void tqi_ctl_wait_add(tqi_controller *ctl, tqi_ctl_wait *wait, const tqi_ctl_wait_type *type, tqi_net_request *request,
                      uint64_t timeout_ms);
/* Marks it to be answered by the running or next tqi_ctl_wake. */
void tqi_ctl_wait_ready(tqi_ctl_wait *wait);
/* Answers those that are ready; an answer may end others. */
void tqi_ctl_waits_answer(tqi_controller *ctl);
/* Ends it now with an error. */
void tqi_ctl_wait_fail(tqi_ctl_wait *wait, const tq_error *err);

/* --- waking --------------------------------------------------------------- */

/* After any change: gathers satisfied waits, then answers them. Calls from inside it are folded into the outer
 * one. What lies below wake.c calls it as ctl->wake. */
void tqi_ctl_wake(tqi_controller *ctl);

#endif
