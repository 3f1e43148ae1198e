/*
 * views.h - memory of a store that the data of a read shows where it lies.
 */
#ifndef TQI_CLIENT_VIEWS_H
#define TQI_CLIENT_VIEWS_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <tq/tq.h>

struct tqi_runtime;

/* A private mapping. */
typedef struct tqi_view_map {
    void *base;
    size_t size;
} tqi_view_map;

/* Rows of a column that were left in the store, end to end; they are the block's as long as the word holds its id. */
typedef struct tqi_left {
    size_t column;
    size_t row; /* first one */
    const uint8_t *at;
    uint64_t size;
    const _Atomic uint64_t *word; /* NULL: `at` is a copy, or NULL when there could be none */
    uint64_t id;
} tqi_left;

/* What one read shows: its mappings, and the manager's pins that keep their bytes as they are (or, for what was left, keep
 * the addresses valid). */
typedef struct tqi_views {
    tq_client *client; /* counted */
    struct tqi_views *prev, *next;
    _Atomic bool attached; /* in client->views: the pins are there to be ended */
    size_t n_maps;
    tqi_view_map *maps;
    size_t n_pins;
    void **pins;
    size_t n_left;
    tqi_left *left;         /* by column, then row */
    pthread_rwlock_t moved; /* read: somebody looks at what was left; write: it becomes a copy */
    void *copy;
} tqi_views;

/* Room for n of each; NULL: out of memory. */
tqi_views *tqi_views_make(size_t n);
/* Maps and pins are filled in: links it with its client; loop thread. */
void tqi_views_attach(tqi_views *views, struct tqi_runtime *rt);
/* Nobody looks any more; any thread. */
void tqi_views_release(tqi_views *views);
/* Ends the pins of a list, and frees it; loop thread. */
void tqi_views_unpin(struct tqi_runtime *rt, tqi_views *ended);
/* Makes copies of all views in use, with the client's lock held: of those that are shown at the same addresses. */
void tqi_views_own(tq_client *client);
/* In a forked child: views are copies already, and their pins are the parent's. */
void tqi_views_forked(tq_client *client);
/* Before the connections are closed: views become copies, for the goodbye ends all pins; loop thread. */
void tqi_views_stop(struct tqi_runtime *rt);

/* look.c: what was left becomes copies, once nobody looks. */
void tqi_left_own(tqi_views *views);

#endif
