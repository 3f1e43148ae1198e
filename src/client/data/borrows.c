/*
 * borrows.c - store memory that a read has borrowed: it is read in place, through private mappings. The manager keeps
 * the store from reusing that memory until it is given back, so its bytes do not change. The client's lock guards the
 * list of borrows in use, and the list of those that the loop thread must give back. When a borrow cannot last (the
 * client is closed, or the process forks: a child has no claim on the store) it is first turned into a copy: writing
 * to every page of a private mapping gives it pages of its own, at the same addresses and with the same bytes. What a
 * read has left in the store (look.c) is in the same list, and becomes a copy elsewhere.
 */
#include "client/data/borrows.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <utlist.h>

#include "base/log.h"
#include "client/runtime.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

tqi_client_borrows *tqi_client_borrows_make(size_t n)
{
    tqi_client_borrows *borrows =
        calloc(1, sizeof(*borrows) + n * (sizeof(*borrows->maps) + sizeof(*borrows->left) + sizeof(*borrows->handles)));

    if (borrows != NULL && pthread_rwlock_init(&borrows->moved, NULL) != 0) {
        free(borrows);
        return NULL;
    }
    if (borrows != NULL) {
        borrows->maps = (tqi_client_borrow_map *)(void *)(borrows + 1);
        borrows->left = (tqi_client_left *)(void *)(borrows->maps + n);
        borrows->handles = (void **)(void *)(borrows->left + n);
    }
    return borrows;
}

static void borrows_free(tqi_client_borrows *borrows)
{
    pthread_rwlock_destroy(&borrows->moved);
    free(borrows->copy);
    free(borrows);
}

void tqi_client_borrows_attach(tqi_client_borrows *borrows, tqi_client_runtime *rt)
{
    borrows->client = rt->client;
    atomic_fetch_add_explicit(&rt->client->refs, 1, memory_order_relaxed);
    pthread_mutex_lock(&rt->client->lock);
    DL_APPEND(rt->client->borrows, borrows);
    atomic_store(&borrows->attached, true);
    pthread_mutex_unlock(&rt->client->lock);
}

void tqi_client_borrows_release(tqi_client_borrows *borrows)
{
    tq_client *client = borrows->client;
    bool ends = false;

    /* Unlinked first, so that no thread that makes copies finds one that is being unmapped. */
    if (atomic_load(&borrows->attached)) {
        pthread_mutex_lock(&client->lock);
        ends = atomic_load(&borrows->attached);
        if (ends) {
            DL_DELETE(client->borrows, borrows);
        }
        pthread_mutex_unlock(&client->lock);
    }
    for (size_t i = 0; i < borrows->n_maps; i++) {
        munmap(borrows->maps[i].base, borrows->maps[i].size);
    }
    if (ends) {
        pthread_mutex_lock(&client->lock);
        /* If no runtime is open, all was given back, or was borrowed by another process. */
        ends = client->runtime != NULL && client->runtime->state == TQI_CLIENT_RUNTIME_OPEN;
        if (ends) {
            DL_APPEND(client->borrows_ended, borrows);
            tqi_client_wake(client);
        }
        pthread_mutex_unlock(&client->lock);
    }
    if (!ends) {
        borrows_free(borrows);
    }
    if (client != NULL) {
        tqi_client_unref(client);
    }
}

void tqi_client_borrows_give_back(tqi_client_runtime *rt, tqi_client_borrows *ended)
{
    tqi_client_borrows *borrows, *next;

    DL_FOREACH_SAFE (ended, borrows, next) {
        for (size_t i = 0; i < borrows->n_handles && rt->manager_open && !rt->stopping; i++) {
            rt->internal.give_back(rt->manager_state, borrows->handles[i]);
        }
        borrows_free(borrows);
    }
}

/* Writes a byte of every page, on a kernel that cannot do it for us; this undoes nobody's write. */
static void borrows_touch(const tqi_client_borrow_map *map)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);

    for (size_t at = 0; at < map->size; at += page) {
        __atomic_fetch_or((uint8_t *)map->base + at, 0, __ATOMIC_RELAXED);
    }
}

static void borrows_copy(const tqi_client_borrow_map *map)
{
    int rc;

    do {
        rc = madvise(map->base, map->size, MADV_POPULATE_WRITE);
    } while (rc != 0 && (errno == EINTR || errno == EAGAIN));
    if (rc != 0 && errno != EINVAL && errno != EPERM && errno != ENOSYS) {
        tqi_log(TQI_ERROR, "client",
                "no memory for a copy of %zu bytes that a read with zero_copy shows: they may "
                "change now",
                map->size);
    } else if (rc != 0) {
        borrows_touch(map);
    }
}

void tqi_client_borrows_own(tq_client *client)
{
    tqi_client_borrows *borrows;

    DL_FOREACH (client->borrows, borrows) {
        for (size_t i = 0; i < borrows->n_maps; i++) {
            borrows_copy(&borrows->maps[i]);
        }
        tqi_client_left_own(borrows);
    }
}

static void borrows_detach(tq_client *client)
{
    while (client->borrows != NULL) {
        tqi_client_borrows *borrows = client->borrows;
        DL_DELETE(client->borrows, borrows);
        atomic_store(&borrows->attached, false);
    }
    while (client->borrows_ended != NULL) {
        tqi_client_borrows *borrows = client->borrows_ended;
        DL_DELETE(client->borrows_ended, borrows);
        borrows_free(borrows);
    }
}

void tqi_client_borrows_forked(tq_client *client)
{
    borrows_detach(client);
}

void tqi_client_borrows_stop(tqi_client_runtime *rt)
{
    tq_client *client = rt->client;

    pthread_mutex_lock(&client->lock);
    tqi_client_borrows_own(client);
    borrows_detach(client);
    pthread_mutex_unlock(&client->lock);
}
