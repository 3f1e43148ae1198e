/*
 * put.h - a put, shared by the files that implement it: put_layout.c divides it into blocks, put_choose.c chooses
 * units, put.c reserves, put_wait.c waits for room, put_write.c moves the bytes.
 */
#ifndef TQI_MANAGER_SIMPLE_PUT_H
#define TQI_MANAGER_SIMPLE_PUT_H

#include "manager/simple/simple.h"

typedef struct tqi_simple_put_op {
    tqi_simple_pending wait; /* first: waits are known by it */
    tqi_simple *simple;
    tq_put_job *job;
    uint64_t total;
    uint32_t n_blocks;
    uint64_t *sizes; /* of blocks */
    uint64_t *ids;
    uint64_t *offsets;
    uint32_t *slots;
    uint64_t *starts;   /* per column: byte in its block */
    uint32_t *block_of; /* per column; NULL: all are in the first */
    uint32_t *order;    /* columns by block; NULL: as they are */

    tqi_simple_link **units; /* in the order they are tried */
    size_t n_units, at;
    bool all;                 /* the rest is among them */
    bool last;                /* waits at this one until the deadline */
    tqi_simple_link *fullest; /* of the units that reported being full, the one with the most room */
    unsigned restarts;
    unsigned rounds; /* in which no unit answered in time */
    unsigned remaps;
    tq_error why; /* of the last unit that failed */

    tqi_simple_link *unit;
    uint64_t asked_at;        /* when room was asked for */
    uint32_t extra;           /* blocks reserved ahead, after the put's own */
    bool no_stock;            /* there was no room for them */
    tqi_simple_ids_from from; /* the ids */
    tqi_simple_grants grants; /* of the ids that are asked to be reserved */
    tqi_net_call *reserving;  /* the request for room */
    bool waits;               /* for that */
    bool leaves;              /* it no longer waits there: there is room elsewhere */
    unsigned believed;        /* how often that was assumed of a unit without news */
    uint64_t believes_at;     /* when it is the next time */
    bool cancelled;
    tqi_simple_mapping *mapping;
    tqi_simple_piece *pieces;
    size_t n_pieces;
    uint32_t written;                      /* blocks in transit over the socket */
    struct tqi_simple_put_op *prev, *next; /* all of the manager, for cancel */
} tqi_simple_put_op;

/* Whether a put at that unit writes to it, or is about to. */
static inline bool tqi_simple_put_at(const tqi_simple_link *link)
{
    const tqi_simple_put_op *op = link->simple->puts;

    while (op != NULL && (op->unit != link || op->n_blocks + op->extra == 0)) {
        op = op->next;
    }
    return op != NULL;
}

static inline uint32_t tqi_simple_put_block_of(const tqi_simple_put_op *op, uint32_t column)
{
    return op->block_of != NULL ? op->block_of[column] : 0;
}

/* --- put_layout.c --------------------------------------------------------- */

/* Decides which columns go where in which blocks; once per put. */
int tqi_simple_put_layout(tqi_simple_put_op *op, tq_error *err);
/* Makes op->order, for sending block by block. */
int tqi_simple_put_order(tqi_simple_put_op *op);

/* --- put_choose.c --------------------------------------------------------- */

/* Sets op->units to those to try first, which may be none. */
int tqi_simple_put_choose(tqi_simple_put_op *op, tq_error *err);
/* Adds the remaining units that are worth a try, those with the most room first. */
int tqi_simple_put_choose_rest(tqi_simple_put_op *op, tq_error *err);
uint64_t tqi_simple_put_free_bytes(const tqi_simple_link *link);
/* Whether there is room for the batch in addition to `taken` bytes, as far as is known. */
bool tqi_simple_put_fits(const tqi_simple_put_op *op, const tqi_simple_link *link, uint64_t taken);
/* The unit has refused the batch for lack of room: similar batches are assumed not to fit either. */
void tqi_simple_put_note_full(const tqi_simple_put_op *op, tqi_simple_link *link);
/* Whether there is room, as far as is known, at a unit other than its own; if there are many elsewhere, only some are
 * checked. */
bool tqi_simple_put_elsewhere(tqi_simple_put_op *op);
/* Whether the batch can ever fit in the unit. */
bool tqi_simple_put_possible(const tqi_simple_put_op *op, const tqi_simple_link *link);

/* --- put_wait.c ----------------------------------------------------------- */

/* Its request for room waits at the unit. */
void tqi_simple_put_wait_begin(tqi_simple_put_op *op);
/* That wait has ended. true: it was given up because there is room elsewhere. */
bool tqi_simple_put_wait_end(tqi_simple_put_op *op);
/* The list is up to date: waiting puts move to where there is room for them now. */
void tqi_simple_puts_listed(tqi_simple *simple, const tqi_manager_owner_changes *changes);

/* --- stock.c -------------------------------------------------------------- */

/* Whether a put is small enough for room that was reserved ahead. */
bool tqi_simple_stock_suits(const tqi_simple_put_op *op);
/* Takes such room at the put's unit, if there is any. */
bool tqi_simple_stock_take(tqi_simple_put_op *op);
/* How many more blocks the put should reserve; their sizes are set after its own. */
uint32_t tqi_simple_stock_want(tqi_simple_put_op *op);
/* They are reserved. */
void tqi_simple_stock_fill(tqi_simple_put_op *op);

/* --- put_write.c ---------------------------------------------------------- */

/* The room is reserved: copies or streams the batch there, then finishes the job, or calls
 * tqi_simple_put_failed_at or tqi_simple_put_fail. */
void tqi_simple_put_write(tqi_simple_put_op *op);

/* --- put.c ---------------------------------------------------------------- */

/* Gives up the first n ids, which are or may be reserved, and to which this put no longer writes. */
void tqi_simple_put_abandon(tqi_simple_put_op *op, uint32_t n);
/* The session at the controller is new: tells the units which blocks reserved in the former one are not being written. */
void tqi_simple_puts_new_session(tqi_simple *simple);
/* A step at the unit failed; its ids are abandoned. Continues elsewhere, starts over, or ends the job. */
void tqi_simple_put_failed_at(tqi_simple_put_op *op, const tq_error *err);
/* Ends the job with an error. */
void tqi_simple_put_fail(tqi_simple_put_op *op, const tq_error *err);
void tqi_simple_put_free(tqi_simple_put_op *op);

#endif
