/*
 * waiters.h - requests that wait: records with a deadline, completed by the change that satisfies them. Also other
 * things that become due at a point in time, under the same timer.
 *
 * Waiting is state. States of a waiter:
 *
 *   waiting -> ready -> answered      a change satisfied it, and tqi_net_waiters_answer sends the answer
 *   waiting -> answered               its owner answers it at once
 *   waiting -> failed                 its deadline passed, its client cancelled it, or its session ended
 *
 * A cancel that finds it ready is too late: the answer is sent. However it ends, it leaves the lists of its kind first,
 * then the request is answered or failed, then it is freed.
 *
 * Everything runs on the loop's thread. Nothing here needs memory.
 */
#ifndef TQI_NET_WAITERS_H
#define TQI_NET_WAITERS_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/heap.h"
#include "net/net.h"

typedef struct tqi_net_timed tqi_net_timed;
typedef struct tqi_net_waiter tqi_net_waiter;

/* Part of the server's own struct, which starts and closes the timer. */
typedef struct tqi_net_waiters {
    uv_timer_t timer;      /* of the nearest deadline */
    tqi_heap timed;        /* tqi_net_timed */
    tqi_net_waiter *ready; /* in the order in which they became so */
    /* Deadlines have passed, or a waiter that others queue behind was cancelled: looks whom that satisfies. */
    void (*wake)(struct tqi_net_waiters *waiters);
    bool queue;   /* waiters queue behind others: a cancel wakes too */
    bool closing; /* set by the server: the timer is not started any more */
} tqi_net_waiters;

/* --- deadlines ------------------------------------------------------------ */

/* A point in time (monotonic ns) at which something is due. */
struct tqi_net_timed {
    void (*due)(tqi_net_timed *timed);
    tqi_net_waiters *waiters;
    tqi_heap_node node;
};

/* Takes O(1); the timer is set only for the nearest one. */
void tqi_net_timed_add(tqi_net_waiters *waiters, tqi_net_timed *timed, uint64_t deadline);
/* Does nothing if it was not added, or was due. */
void tqi_net_timed_remove(tqi_net_timed *timed);
/* Now plus milliseconds, saturating. */
uint64_t tqi_net_after_ms(uint64_t ms);

/* --- waiters -------------------------------------------------------------- */

/* What a kind of waiter does. */
typedef struct tqi_net_waiter_type {
    /* Takes it out of the lists of its kind. */
    void (*leave)(tqi_net_waiter *waiter);
    /* Sends the reply. */
    void (*answer)(tqi_net_waiter *waiter);
    /* Its deadline passed: says so. It is still in its lists. */
    void (*describe)(const tqi_net_waiter *waiter, tq_error *err);
    /* It was cancelled: says so. NULL: the same words for all. */
    void (*cancelled)(const tqi_net_waiter *waiter, tq_error *err);
    /* It is about to be failed with this. NULL: of no interest. */
    void (*failed)(const tqi_net_waiter *waiter, const tq_error *err);
    /* Frees it and what it owns. NULL: free(). */
    void (*dispose)(tqi_net_waiter *waiter);
} tqi_net_waiter_type;

/* The first member of each kind's own struct, which is malloc'ed. */
struct tqi_net_waiter {
    const tqi_net_waiter_type *type;
    tqi_net_waiters *waiters;
    tqi_net_request *request;
    tqi_net_timed timed;
    bool ready;                  /* in waiters->ready */
    tq_error *failure;           /* ready with an error; owned */
    tqi_net_waiter *prev, *next; /* of waiters->ready */
};

/* Lets a request wait; timeout_ms 0: for ever. From here on its client can cancel it. */
void tqi_net_waiter_add(tqi_net_waiters *waiters, tqi_net_waiter *waiter, const tqi_net_waiter_type *type,
                        tqi_net_request *request, uint64_t timeout_ms);
/* Marks it to be answered by the next tqi_net_waiters_answer. */
void tqi_net_waiter_ready(tqi_net_waiter *waiter);
/* Answers those that are ready; an answer may end others. */
void tqi_net_waiters_answer(tqi_net_waiters *waiters);
/* Ends it now with its answer, or with an error. */
void tqi_net_waiter_answer(tqi_net_waiter *waiter);
void tqi_net_waiter_fail(tqi_net_waiter *waiter, const tq_error *err);

#endif
