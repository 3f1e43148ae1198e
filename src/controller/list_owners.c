/*
 * list_owners.c - answers requests for the list of owners, whole or what has changed (owner_list.c), and lets a put
 * wait until storage has joined.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/text.h"
#include "controller/controller.h"
#include "controller/controller_state.h"
#include "controller/convert.h"
#include "controller/handlers.h"
#include "controller/owners.h"
#include "controller/reply.h"
#include "controller/wake.h"

/* --- list ----------------------------------------------------------------- */

static bool owner_matches(const tqi_ctl_owner *owner, const char *manager)
{
    return manager[0] == 0 || strcmp(owner->manager, manager) == 0;
}

static void list_describe(const tqi_ctl_owner *owner, bool brief, Tq__OwnerInfo *item)
{
    tq__owner_info__init(item);
    item->name = owner->name;
    item->incarnation = tqi_table_owner_incarnation(owner->table_owner);
    item->info = tqi_ctl_conv_bytes(owner->info, owner->info_size);
    item->present = owner->servers != NULL;
    item->capacity_bytes = owner->capacity;
    item->used_bytes = owner->used;
    if (brief) {
        return;
    }
    item->manager = owner->manager;
    item->blocks = tqi_table_owner_blocks(owner->table_owner);
    item->bytes = tqi_table_owner_bytes(owner->table_owner);
    item->counter = owner->counters;
    item->value = owner->values;
    item->n_counter = item->n_value = owner->n_counters;
    if (owner->told != NULL && owner->servers != NULL) {
        item->pin = owner->told->pin;
        item->n_pin = owner->told->n_pin;
    }
}

/* Room for n owners. */
static int list_items(tqi_region *conv, size_t n, Tq__OwnerInfo **items, Tq__OwnerInfo ***list, tq_error *err)
{
    *list = tqi_ctl_conv_pointers(conv, n, err);
    *items = tqi_ctl_conv_alloc(conv, n, sizeof(**items), err);
    return *list && *items ? TQ_OK : TQ_ENOMEM;
}

static int list_all(tqi_controller *ctl, tqi_region *conv, const char *manager, bool brief, Tq__OwnerInfo ***out,
                    size_t *n, tq_error *err)
{
    Tq__OwnerInfo *items = NULL;
    int rc = list_items(conv, HASH_COUNT(ctl->owners), &items, out, err);

    *n = 0;
    for (const tqi_ctl_owner *owner = ctl->owners; owner != NULL && rc == TQ_OK; owner = owner->hh.next) {
        if (owner_matches(owner, manager)) {
            list_describe(owner, brief, &items[*n]);
            (*out)[*n] = &items[*n];
            ++*n;
        }
    }
    return rc;
}

int tqi_ctl_owners_describe(tqi_controller *ctl, tqi_region *conv, const char *manager, Tq__OwnerInfo ***out, size_t *n,
                            tq_error *err)
{
    return list_all(ctl, conv, manager, false, out, n, err);
}

/* Those that the message names. */
static int list_named(tqi_controller *ctl, tqi_region *conv, const Tq__ListOwners *msg, Tq__ListOwnersReply *reply,
                      tq_error *err)
{
    Tq__OwnerInfo *items = NULL;
    int rc = list_items(conv, msg->n_name, &items, &reply->owner, err);

    for (size_t i = 0; i < msg->n_name && rc == TQ_OK; i++) {
        const tqi_ctl_owner *owner = tqi_ctl_owner_find(ctl, msg->name[i]);
        if (owner != NULL && owner_matches(owner, msg->manager)) {
            list_describe(owner, msg->brief, &items[reply->n_owner]);
            reply->owner[reply->n_owner] = &items[reply->n_owner];
            reply->n_owner++;
        }
    }
    return rc;
}

/* The changes since a version, newest first. */
static int list_since(tqi_controller *ctl, tqi_region *conv, const Tq__ListOwners *msg, Tq__ListOwnersReply *reply,
                      tq_error *err)
{
    const tqi_ctl_list *list = &ctl->list;
    tqi_ctl_owner *last = list->row != NULL ? list->row->older : NULL; /* the row's last */
    tqi_ctl_gone *lost = list->gone != NULL ? list->gone->prev : NULL;
    Tq__OwnerInfo *items = NULL;
    size_t n = 0, n_gone = 0;

    for (tqi_ctl_owner *at = last; at != NULL && at->changed > msg->since; n++) {
        at = at == list->row ? NULL : at->older;
    }
    for (tqi_ctl_gone *at = lost; at != NULL && at->version > msg->since; n_gone++) {
        at = at == list->gone ? NULL : at->prev;
    }
    int rc = list_items(conv, n, &items, &reply->owner, err);
    reply->gone = tqi_ctl_conv_pointers(conv, n_gone, err);
    if (rc != TQ_OK || reply->gone == NULL) {
        return TQ_ENOMEM;
    }
    for (tqi_ctl_owner *at = last; n > 0; n--, at = at->older) {
        Tq__OwnerInfo *item = &items[reply->n_owner];
        if (owner_matches(at, msg->manager)) {
            list_describe(at, msg->brief, item);
            item->same = at->info_changed <= msg->since;
            item->info.len = item->same ? 0 : item->info.len;
            reply->owner[reply->n_owner++] = item;
        }
    }
    for (; n_gone > 0; n_gone--, lost = lost->prev) {
        reply->gone[reply->n_gone++] = lost->name;
    }
    return TQ_OK;
}

/* Answers with the owners; on an error nothing was sent. */
static int owners_reply(tqi_controller *ctl, tqi_net_request *request, const Tq__ListOwners *msg, tq_error *err)
{
    Tq__ListOwnersReply reply = TQ__LIST_OWNERS_REPLY__INIT;
    tqi_region conv = {.next = TQI_CTL_CONV_FIRST};
    int rc;

    reply.epoch = tqi_table_epoch(ctl->table);
    reply.changes = msg->since > 0 && msg->since >= ctl->list.forgot && msg->since <= ctl->list.version &&
                    msg->epoch == reply.epoch;
    if (msg->n_name > 0) {
        reply.changes = false;
        rc = list_named(ctl, &conv, msg, &reply, err);
    } else {
        reply.version = ctl->list.version;
        rc = reply.changes ? list_since(ctl, &conv, msg, &reply, err)
                           : list_all(ctl, &conv, msg->manager, msg->brief, &reply.owner, &reply.n_owner, err);
    }
    if (rc == TQ_OK) {
        tqi_ctl_reply(request, &reply.base);
    }
    tqi_region_fini(&conv);
    return rc;
}

/* --- waiting for one ------------------------------------------------------ */

static bool owners_present(tqi_controller *ctl, const char *manager)
{
    for (tqi_ctl_owner *owner = ctl->owners; owner != NULL; owner = owner->hh.next) {
        if (owner->servers != NULL && owner_matches(owner, manager)) {
            return true;
        }
    }
    return false;
}

static void owners_leave(tqi_net_waiter *base)
{
    tqi_ctl_owner_wait *wait = (tqi_ctl_owner_wait *)base;

    DL_DELETE(tqi_ctl_of(base->waiters)->owner_waits, wait);
}

static void owners_answer(tqi_net_waiter *base)
{
    tq_error err = {0};

    if (owners_reply(tqi_ctl_of(base->waiters), base->request, ((tqi_ctl_owner_wait *)base)->msg, &err) != TQ_OK) {
        tqi_net_request_fail(base->request, &err);
    }
}

void tqi_ctl_owners_missing(const tqi_ctl_owner_wait *wait, char *out, size_t size)
{
    const tqi_controller *ctl = tqi_ctl_of(wait->base.waiters);
    const char *manager = wait->msg->manager, *address = tqi_controller_endpoint(ctl);
    const tqi_ctl_left *left = tqi_ctl_left_find(ctl, manager);
    char text[32];

    if (left != NULL) {
        int64_t ago = (tqi_wall_us() - left->us) / 1000000;
        snprintf(out, size,
                 "all storage of manager '%s' that had joined the system at %s is gone; the last "
                 "one was '%s', which left at %s (%lld s ago): start it again, or another one (tqd "
                 "storage --join), the put goes on then",
                 manager, address, left->name, tqi_text_time(left->us, text, sizeof(text)),
                 (long long)(ago > 0 ? ago : 0));
    } else {
        snprintf(out, size,
                 "no storage of manager '%s' has joined the system at %s, which has been up for "
                 "%s: start a storage unit (tqd storage --join)",
                 manager, address, tqi_ctl_uptime(ctl, text));
    }
}

static void owners_describe(const tqi_net_waiter *base, tq_error *err)
{
    char missing[sizeof(err->message)];

    tqi_ctl_owners_missing((const tqi_ctl_owner_wait *)base, missing, sizeof(missing));
    tqi_error_set(err, TQ_ETIMEDOUT, "%s", missing);
}

static const tqi_net_waiter_type owners_wait_type = {
    .leave = owners_leave,
    .answer = owners_answer,
    .describe = owners_describe,
};

void tqi_ctl_owners_gather(tqi_controller *ctl)
{
    tqi_ctl_owner_wait *wait = NULL;

    if (ctl->list.gathered == ctl->list.version) {
        return; /* nobody has come since */
    }
    ctl->list.gathered = ctl->list.version;
    DL_FOREACH (ctl->owner_waits, wait) {
        if (!wait->base.ready && owners_present(ctl, wait->msg->manager)) {
            tqi_net_waiter_ready(&wait->base);
        }
    }
}

int tqi_ctl_on_list_owners(tqi_controller *ctl, tqi_net_request *request, const Tq__ListOwners *msg, tq_error *err)
{
    if (!msg->wait || owners_present(ctl, msg->manager)) {
        return owners_reply(ctl, request, msg, err);
    }
    tqi_ctl_owner_wait *wait = calloc(1, sizeof(*wait));
    if (wait == NULL) {
        return tqi_error_nomem(err, "a waiting list of owners");
    }
    wait->msg = msg;
    wait->number = ++ctl->last_wait;
    wait->since = tqi_now();
    DL_APPEND(ctl->owner_waits, wait);
    tqi_net_waiter_add(&ctl->waiters, &wait->base, &owners_wait_type, request, msg->timeout_ms);
    return TQ_OK;
}
