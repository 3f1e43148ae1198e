/*
 * compact.h - compaction: which blocks to move, and the batch that moves them.
 */
#ifndef TQI_UNIT_COMPACT_H
#define TQI_UNIT_COMPACT_H

#include "unit/unit.h"

typedef struct tqi_unit_compacting tqi_unit_compacting;

/* Sparse blocks, in the order in which they were named. */
typedef struct tqi_unit_compact {
    uint64_t *queue;
    size_t n, capacity;
    size_t full;          /* this many in a row found no room or were pinned */
    uint64_t full_used;   /* bytes in use when that was */
    uint64_t full_unpins; /* tqi_unit.unpins then */
    bool full_urged;      /* puts waited then */
    uint64_t first_id;    /* granted ids */
    uint32_t n_ids;
    uint64_t grant;           /* number of the grant: incremented when a session has ended, and its ids with it */
    uv_timer_t timer;         /* the pause before the next batch */
    uv_timer_cb begin;        /* tqi_unit_compact_timer, for compact_queue.c, which is below it */
    uint64_t not_before;      /* when it ends */
    uint64_t urged_before;    /* when it ends while puts wait */
    tqi_unit_compacting *now; /* the batch in progress */
    uint64_t moved, moved_bytes;
} tqi_unit_compact;

/* --- compact_queue.c ------------------------------------------------------ */

/* The controller has named them. */
void tqi_unit_compact_add(tqi_unit *unit, const uint64_t *ids, size_t n);
/* Goes on with what is in the queue. */
void tqi_unit_compact_go(tqi_unit *unit);
/* Room was made, or a pin has ended. */
void tqi_unit_compact_room(tqi_unit *unit);
/* A put waits for room. */
void tqi_unit_compact_urge(tqi_unit *unit);
/* How long names are gathered, and the shortest pause after a batch. */
#define TQI_UNIT_COMPACT_PAUSE_MS 20u
/* Starts the timer of the next batch, or makes it earlier, if a batch is due. */
void tqi_unit_compact_arm(tqi_unit *unit);
/* Puts blocks at the back or the front of the queue. */
void tqi_unit_compact_append(tqi_unit *unit, const uint64_t *ids, size_t n);
void tqi_unit_compact_prepend(tqi_unit *unit, const uint64_t *ids, size_t n);
/* It cannot be moved now: to the back, until something has changed. */
void tqi_unit_compact_refuse(tqi_unit *unit, uint64_t id);
/* The session to which the ids were granted has ended. */
void tqi_unit_compact_forget_ids(tqi_unit *unit);
/* The store was replaced. */
void tqi_unit_compact_forget(tqi_unit *unit);
void tqi_unit_compact_fini(tqi_unit *unit);

/* --- compact.c ------------------------------------------------------------ */

/* Begins a batch. */
void tqi_unit_compact_timer(uv_timer_t *timer);
/* The unit ends, and all calls have: drops a batch that was going to try again. */
void tqi_unit_compact_close(tqi_unit *unit);

#endif
