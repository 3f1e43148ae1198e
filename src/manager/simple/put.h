/*
 * put.h - a put as the files that do it share it: put_layout.c cuts it into blocks, put_choose.c chooses units, put.c reserves,
 * put_wait.c waits for room, put_write.c moves the bytes.
 */
#ifndef TQI_SIMPLE_PUT_H
#define TQI_SIMPLE_PUT_H

#include "manager/simple/simple.h"

typedef struct tqi_put {
    tqi_wait wait; /* first: waits are known by it */
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

    tqi_link **units; /* in the order they are tried */
    size_t n_units, at;
    bool all;          /* the rest is among them */
    bool last;         /* waits at this one until the deadline */
    tqi_link *fullest; /* of those that said that they are full, the one with the most room */
    unsigned restarts;
    unsigned rounds; /* in which no unit answered in time */
    unsigned remaps;
    tq_error why; /* of the last unit that failed */

    tqi_link *unit;
    uint64_t asked_at;    /* when room was asked for */
    uint32_t extra;       /* blocks behind the put's own that are reserved ahead */
    bool no_stock;        /* there was no room for them */
    tqi_ids_from from;    /* the ids */
    tqi_leases leases;    /* of the ids that are asked to be reserved */
    tqi_call *reserving;  /* the request for room */
    bool waits;           /* for that */
    bool leaves;          /* it does not any more: there is room elsewhere */
    unsigned believed;    /* how often that was believed of a unit of which nothing was told */
    uint64_t believes_at; /* when it is the next time */
    bool cancelled;
    tqi_mapping *mapping;
    tqi_piece *pieces;
    size_t n_pieces;
    uint32_t written;            /* blocks that are on their way over the stream */
    struct tqi_put *prev, *next; /* all of the manager, for cancel */
} tqi_put;

static inline uint32_t tqi_put_block_of(const tqi_put *op, uint32_t column)
{
    return op->block_of != NULL ? op->block_of[column] : 0;
}

/* put_layout.c: which columns lie where in which blocks; once per put. */
int tqi_put_layout(tqi_put *op, tq_error *err);
/* Makes op->order, for what is sent block by block. */
int tqi_put_order(tqi_put *op);
/* put.c: gives up the first n ids, which are reserved or may be, and which nothing of this put writes to any more. */
void tqi_put_abandon(tqi_put *op, uint32_t n);
/* The session at the controller is a new one: tells the units of what was reserved in the former one, and is not being
 * written. */
void tqi_puts_new_session(tqi_simple *simple);

/* put_choose.c: sets op->units to those that are tried first, which may be none. */
int tqi_put_choose(tqi_put *op, tq_error *err);
/* Adds what is worth a try of the rest, those with the most room first. */
int tqi_put_choose_rest(tqi_put *op, tq_error *err);
uint64_t tqi_put_free_bytes(const tqi_link *link);
/* Whether there is room for the batch beside `taken` bytes more, as far as is known. */
bool tqi_put_fits(const tqi_put *op, const tqi_link *link, uint64_t taken);
/* The unit has refused the batch for lack of room: others like it do not fit either, as far as is known. */
void tqi_put_note_full(const tqi_put *op, tqi_link *link);
/* Whether there is, as far as is known, at another unit than its own; of many that are elsewhere some are looked at. */
bool tqi_put_elsewhere(tqi_put *op);
/* Whether the batch can ever fit in the unit. */
bool tqi_put_possible(const tqi_put *op, const tqi_link *link);

/* put_wait.c: its request for room waits at the unit. */
void tqi_put_wait_begin(tqi_put *op);
/* That has ended.  true: it was given up, for there is room elsewhere. */
bool tqi_put_wait_end(tqi_put *op);
/* The list is up to date: puts that wait go where there is room for them now. */
void tqi_puts_listed(tqi_simple *simple, const tqi_owner_changes *changes);

/* stock.c: whether a put is small enough for room that was reserved ahead. */
bool tqi_stock_suits(const tqi_put *op);
/* Takes such room at the put's unit, if there is some. */
bool tqi_stock_take(tqi_put *op);
/* How many more blocks the put is to reserve; their sizes are set behind its own. */
uint32_t tqi_stock_want(tqi_put *op);
/* They are reserved. */
void tqi_stock_fill(tqi_put *op);

/* The room is reserved: copies or streams the batch there, then finishes the job, or calls one of the two below. */
void tqi_put_write(tqi_put *op);
/* A step at the unit failed; its ids are abandoned.  Goes on elsewhere or anew, or ends the job. */
void tqi_put_failed_at(tqi_put *op, const tq_error *err);
/* Ends the job with an error. */
void tqi_put_fail(tqi_put *op, const tq_error *err);
void tqi_put_free(tqi_put *op);

#endif
