/*
 * borrows.h - store memory that a read exposes in place.
 */
#ifndef TQI_CLIENT_GET_BORROWS_H
#define TQI_CLIENT_GET_BORROWS_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <tq/tq.h>

struct tqi_client_runtime;

/* A private mapping. */
typedef struct tqi_client_borrow_map {
    void *base;
    size_t size;
} tqi_client_borrow_map;

/* Rows of a column that were left in the store, end to end; they are valid as long as the word holds the block's id. */
typedef struct tqi_client_left {
    size_t column;
    size_t row; /* first one */
    const uint8_t *at;
    uint64_t size;
    const _Atomic uint64_t *word; /* NULL: `at` is a copy, or NULL if none could be made */
    uint64_t id;
} tqi_client_left;

/* What one read exposes: its mappings, and the manager's pins that keep their bytes unchanged (or, for rows that were
 * left, keep the addresses valid). */
typedef struct tqi_client_borrows {
    tq_client *client; /* counted */
    struct tqi_client_borrows *prev, *next;
    _Atomic bool attached; /* in client->views: its pins must be ended */
    size_t n_maps;
    tqi_client_borrow_map *maps;
    size_t n_pins;
    void **pins;
    size_t n_left;
    tqi_client_left *left; /* by column, then row */
    /* read: a thread is reading what was left; write: it is being copied */
    pthread_rwlock_t moved;
    void *copy;
} tqi_client_borrows;

/* Room for n of each; NULL: out of memory. */
tqi_client_borrows *tqi_client_borrows_make(size_t n);
/* Links it with its client once maps and pins are filled in; loop thread. */
void tqi_client_borrows_attach(tqi_client_borrows *views, struct tqi_client_runtime *rt);
/* No thread is reading any more; any thread. */
void tqi_client_borrows_release(tqi_client_borrows *views);
/* Ends the pins of a list, and frees it; loop thread. */
void tqi_client_borrows_unpin(struct tqi_client_runtime *rt, tqi_client_borrows *ended);
/* Turns all views in use into copies, with the client's lock held; mapped ones keep their addresses. */
void tqi_client_borrows_own(tq_client *client);
/* In a forked child: views are copies already, and their pins are the parent's. */
void tqi_client_borrows_forked(tq_client *client);
/* Before the connections are closed: views become copies, because closing the session ends all pins; loop thread. */
void tqi_client_borrows_stop(struct tqi_client_runtime *rt);

/* look.c: turns what was left into copies, once no thread is reading it. */
void tqi_client_left_own(tqi_client_borrows *views);

#endif
