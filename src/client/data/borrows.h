/*
 * borrows.h - store memory that a read has borrowed.
 */
#ifndef TQI_CLIENT_DATA_BORROWS_H
#define TQI_CLIENT_DATA_BORROWS_H

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

/* What one read has borrowed: its mappings, and the manager's handles, which keep their bytes unchanged (or, for rows
 * that were left, the addresses valid) until they are given back. */
typedef struct tqi_client_borrows {
    tq_client *client; /* counted */
    struct tqi_client_borrows *prev, *next;
    _Atomic bool attached; /* in client->borrows: must be given back */
    size_t n_maps;
    tqi_client_borrow_map *maps;
    size_t n_handles;
    void **handles; /* of the manager */
    size_t n_left;
    tqi_client_left *left; /* by column, then row */
    /* read: a thread is reading what was left; write: it is being copied */
    pthread_rwlock_t moved;
    void *copy;
} tqi_client_borrows;

/* Room for n of each; NULL: out of memory. */
tqi_client_borrows *tqi_client_borrows_make(size_t n);
/* Links it with its client once it is filled in; loop thread. */
void tqi_client_borrows_attach(tqi_client_borrows *borrows, struct tqi_client_runtime *rt);
/* No thread is reading any more; any thread. */
void tqi_client_borrows_release(tqi_client_borrows *borrows);
/* Gives a list back to the manager, and frees it; loop thread. */
void tqi_client_borrows_give_back(struct tqi_client_runtime *rt, tqi_client_borrows *ended);
/* Turns all borrows in use into copies, with the client's lock held; mapped ones keep their addresses. */
void tqi_client_borrows_own(tq_client *client);
/* In a forked child: borrows are copies already, and the parent gives them back. */
void tqi_client_borrows_forked(tq_client *client);
/* Before the connections are closed: borrows become copies, because the end of the session ends them; loop thread. */
void tqi_client_borrows_stop(struct tqi_client_runtime *rt);

/* look.c: turns what was left into copies, once no thread is reading it. */
void tqi_client_left_own(tqi_client_borrows *borrows);

#endif
