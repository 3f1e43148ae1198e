/*
 * borrows.c - store memory that a read exposes in place. A view is a private mapping; the manager has pinned the memory
 * behind it, so that its bytes do not change. The client's lock guards the list of views in use, and the list of those
 * whose pins the loop thread must end. When pins cannot be kept (the client is closed, or the process forks: a pin
 * does not belong to the child) the views are first turned into copies: writing to every page of a private mapping
 * gives it pages of its own, at the same addresses and with the same bytes. What a read has left in the store (look.c)
 * is in the same list, and becomes a copy elsewhere.
 */
#include "client/get/borrows.h"

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
    tqi_client_borrows *views =
        calloc(1, sizeof *views + n * (sizeof *views->maps + sizeof *views->left + sizeof *views->pins));

    if (views && pthread_rwlock_init(&views->moved, NULL) != 0) {
        free(views);
        return NULL;
    }
    if (views) {
        views->maps = (tqi_client_borrow_map *)(void *)(views + 1);
        views->left = (tqi_client_left *)(void *)(views->maps + n);
        views->pins = (void **)(void *)(views->left + n);
    }
    return views;
}

static void views_free(tqi_client_borrows *views)
{
    pthread_rwlock_destroy(&views->moved);
    free(views->copy);
    free(views);
}

void tqi_client_borrows_attach(tqi_client_borrows *views, tqi_client_runtime *rt)
{
    views->client = rt->client;
    atomic_fetch_add_explicit(&rt->client->refs, 1, memory_order_relaxed);
    pthread_mutex_lock(&rt->client->lock);
    DL_APPEND(rt->client->borrows, views);
    atomic_store(&views->attached, true);
    pthread_mutex_unlock(&rt->client->lock);
}

void tqi_client_borrows_release(tqi_client_borrows *views)
{
    tq_client *client = views->client;
    bool ends = false;

    /* Unlinked first, so that no thread that turns views into copies finds one that is being unmapped. */
    if (atomic_load(&views->attached)) {
        pthread_mutex_lock(&client->lock);
        ends = atomic_load(&views->attached);
        if (ends) {
            DL_DELETE(client->borrows, views);
        }
        pthread_mutex_unlock(&client->lock);
    }
    for (size_t i = 0; i < views->n_maps; i++) {
        munmap(views->maps[i].base, views->maps[i].size);
    }
    if (ends) {
        pthread_mutex_lock(&client->lock);
        /* If no runtime is open, the pins have been ended or belong to another process. */
        ends = client->runtime && client->runtime->state == TQI_CLIENT_RUNTIME_OPEN;
        if (ends) {
            DL_APPEND(client->borrows_ended, views);
            tqi_client_wake(client);
        }
        pthread_mutex_unlock(&client->lock);
    }
    if (!ends) {
        views_free(views);
    }
    if (client) {
        tqi_client_unref(client);
    }
}

void tqi_client_borrows_unpin(tqi_client_runtime *rt, tqi_client_borrows *ended)
{
    tqi_client_borrows *views, *next;

    DL_FOREACH_SAFE (ended, views, next) {
        for (size_t i = 0; i < views->n_pins && rt->manager_open && !rt->stopping; i++) {
            rt->internal.unview(rt->manager_state, views->pins[i]);
        }
        views_free(views);
    }
}

/* Writes a byte of every page, on a kernel that cannot do it for us; this undoes nobody's write. */
static void views_touch(const tqi_client_borrow_map *map)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);

    for (size_t at = 0; at < map->size; at += page) {
        __atomic_fetch_or((uint8_t *)map->base + at, 0, __ATOMIC_RELAXED);
    }
}

static void views_copy(const tqi_client_borrow_map *map)
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
        views_touch(map);
    }
}

void tqi_client_borrows_own(tq_client *client)
{
    tqi_client_borrows *views;

    DL_FOREACH (client->borrows, views) {
        for (size_t i = 0; i < views->n_maps; i++) {
            views_copy(&views->maps[i]);
        }
        tqi_client_left_own(views);
    }
}

static void views_detach(tq_client *client)
{
    while (client->borrows) {
        tqi_client_borrows *views = client->borrows;
        DL_DELETE(client->borrows, views);
        atomic_store(&views->attached, false);
    }
    while (client->borrows_ended) {
        tqi_client_borrows *views = client->borrows_ended;
        DL_DELETE(client->borrows_ended, views);
        views_free(views);
    }
}

void tqi_client_borrows_forked(tq_client *client)
{
    views_detach(client);
}

void tqi_client_borrows_stop(tqi_client_runtime *rt)
{
    tq_client *client = rt->client;

    pthread_mutex_lock(&client->lock);
    tqi_client_borrows_own(client);
    views_detach(client);
    pthread_mutex_unlock(&client->lock);
}
