/*
 * units.c - the storage units as this client knows them. The list comes from the controller: all of it once, then only
 * changes. It is updated when a unit is unknown or does not answer, and also, for the free bytes by which a put
 * chooses, in the background at most every second (less often if answers take long), even while a put waits for room.
 * Units are found by name. Those that can be written now are in one of two sets, near and far, so that a put can
 * choose without examining all of them. A set has room for every unit in advance, so moving a unit never fails.
 */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "manager/simple/simple.h"

#define UNITS_REFRESH_NS UINT64_C(1000000000)

/* --- sets ----------------------------------------------------------------- */

/* Room for one unit more. */
static int units_reserve(tqi_simple *simple)
{
    size_t n = HASH_COUNT(simple->links) + 1;
    int rc = tqi_grow(&simple->near.items, &simple->near.capacity, n, sizeof(tqi_simple_link *));

    return rc != TQ_OK ? rc : tqi_grow(&simple->far.items, &simple->far.capacity, n, sizeof(tqi_simple_link *));
}

/* --- units ---------------------------------------------------------------- */

tqi_simple_link *tqi_simple_find(tqi_simple *simple, const char *name)
{
    tqi_simple_link *link = NULL;

    HASH_FIND_STR(simple->links, name, link);
    return link;
}

static int units_add(tqi_simple *simple, const tq_owner_info *info)
{
    tqi_simple_link *link = NULL;

    if (units_reserve(simple) != TQ_OK || tqi_simple_link_make(simple, info, &link) != TQ_OK) {
        return TQ_ENOMEM;
    }
    if (!TQI_HASH_ADD_KEYPTR(simple->links, link->name, strlen(link->name), link)) {
        tqi_simple_link_free(link);
        return TQ_ENOMEM;
    }
    link->taken = simple->taken;
    return TQ_OK;
}

static int units_put_in(tqi_simple *simple, const tq_owner_info *info)
{
    tqi_simple_link *link = tqi_simple_find(simple, info->name);

    if (link == NULL) {
        return units_add(simple, info);
    }
    link->taken = simple->taken;
    return tqi_simple_link_update(link, info);
}

/* Applies the changes. Units that are no longer in the list stay as records, without an incarnation. */
static int units_take(tqi_simple *simple, const tqi_manager_owner_changes *changes)
{
    tqi_simple_link *link;
    int rc = TQ_OK;

    if (changes->at.epoch == simple->list.epoch && changes->at.version < simple->list.version) {
        return TQ_OK; /* a later answer came first */
    }
    simple->taken++;
    for (size_t i = 0; i < changes->n_gone; i++) {
        link = tqi_simple_find(simple, changes->gone[i]);
        if (link != NULL) {
            tqi_simple_link_update(link, NULL);
        }
    }
    for (size_t i = 0; i < changes->n && rc == TQ_OK; i++) {
        rc = units_put_in(simple, &changes->owners[i]);
    }
    for (link = simple->links; changes->all && rc == TQ_OK && link != NULL; link = link->hh.next) {
        if (link->taken != simple->taken) {
            tqi_simple_link_update(link, NULL);
        }
    }
    simple->list = rc == TQ_OK ? changes->at : (tqi_manager_owners_at){0}; /* else all, the next time */
    return rc;
}

static void units_listed(const tq_error *err, const tqi_manager_owner_changes *changes, void *arg)
{
    tqi_simple_query *query = arg;
    tqi_simple *simple = query->simple;
    tq_error failed = {0};

    if (tqi_simple_query_end(query)) {
        if (query->listed == NULL) {
            simple->listing = false;
        }
        if (err == NULL) {
            simple->listed_at = tqi_now();
            tqi_simple_took(simple, query->asked_at);
            if (units_take(simple, changes) != TQ_OK) {
                tqi_error_nomem(&failed, "the list of storage units");
                err = &failed;
            } else {
                simple->listed(simple, changes);
            }
        }
        if (query->listed != NULL) {
            query->listed(query->arg, err);
        }
    }
    free(query);
}

void tqi_simple_list(tqi_simple *simple, bool wait, uint64_t deadline, void (*listed)(void *arg, const tq_error *err),
                     void *arg)
{
    const tqi_manager_internal *internal = simple->host->internal;
    tqi_simple_query *query = tqi_simple_query_make(simple);
    tq_error err;

    if (query == NULL) {
        if (listed != NULL) {
            tqi_error_nomem(&err, "a list of storage units");
            listed(arg, &err);
        }
        return;
    }
    query->listed = listed;
    query->arg = arg;
    if (listed == NULL) {
        simple->listing = true;
    }
    internal->owner_changes(simple->host, &simple->list, wait, deadline, units_listed, query);
}

void tqi_simple_refresh(tqi_simple *simple)
{
    if (!simple->listing && tqi_now() - simple->listed_at > tqi_simple_pace(simple, UNITS_REFRESH_NS)) {
        tqi_simple_list(simple, false, tqi_simple_try(1, 0, TQI_NEVER), NULL, NULL);
    }
}

void tqi_simple_units_fini(tqi_simple *simple)
{
    tqi_simple_link *link, *next;

    HASH_ITER (hh, simple->links, link, next) {
        HASH_DEL(simple->links, link);
        tqi_simple_link_free(link);
    }
    free(simple->near.items);
    free(simple->far.items);
}
