/*
 * owners.c - owners of blocks and the sessions that serve them.
 *
 * An owner is registered by the session that serves it and survives that session for owner_timeout: if it is
 * registered again with the same incarnation, it continues as if nothing had happened; otherwise all its blocks are
 * lost. A mortal one, whose storage is memory of its process, is lost at once when its session is closed or its
 * process is dead. A shared owner has any number of serving sessions and never times out. Every holder of the token
 * may register an owner, so owners are protected from other holders. An owner that gave a key can be registered again
 * only with that key; one without a key, only while no other connected session serves it.
 */
#include "controller/owners.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/crypto.h>
#include <utlist.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/pointer.h"
#include "base/text.h"
#include "controller/controller_state.h"
#include "controller/events.h"
#include "controller/handlers.h"
#include "controller/reply.h"
#include "controller/session.h"
#include "controller/wake.h"

/* Most counters in a report. */
#define OWNER_COUNTERS_MAX 64u
/* Number of managers for which the last storage to leave is remembered. */
#define OWNER_LEFT_MAX 64u
/* Most waits, and most pins, in one report: one bit each. */
#define OWNER_TOLD_MAX 64u
/* Milliseconds between two reports of an owner: the minimum, and the time added per owner. */
#define OWNER_REPORT_LEAST_MS 200u
#define OWNER_REPORT_EACH_MS  5u

/* --- owners --------------------------------------------------------------- */

tqi_ctl_owner *tqi_ctl_owner_find(tqi_controller *ctl, const char *name)
{
    tqi_ctl_owner *owner = NULL;

    HASH_FIND_STR(ctl->owners, name, owner);
    return owner;
}

static tqi_ctl_server *owner_server(const tqi_ctl_owner *owner, const tqi_ctl_session *session)
{
    tqi_ctl_server *server = NULL;

    DL_SEARCH_SCALAR(owner->servers, server, session, session);
    return server;
}

bool tqi_ctl_owner_serves(const tqi_ctl_owner *owner, const tqi_ctl_session *session)
{
    return session != NULL && owner_server(owner, session) != NULL;
}

static void owner_drop_counters(tqi_ctl_owner *owner)
{
    for (size_t i = 0; i < owner->n_counters; i++) {
        free(owner->counters[i]);
    }
    free(owner->counters);
    free(owner->values);
    owner->counters = NULL;
    owner->values = NULL;
    owner->n_counters = 0;
}

static void owner_drop_told(tqi_ctl_owner *owner)
{
    if (owner->told != NULL) {
        tq__report_owner__free_unpacked(owner->told, NULL);
        owner->told = NULL;
        owner->passed_on = 0;
    }
}

/* Copies the waits and pins that the owner reports; *out NULL: none. */
static int owner_copy_told(const Tq__ReportOwner *msg, Tq__ReportOwner **out, tq_error *err)
{
    Tq__ReportOwner part;
    uint8_t *bytes = NULL;

    tq__report_owner__init(&part);
    *out = NULL;
    if (!msg->n_wait && !msg->n_pin) {
        return TQ_OK;
    }
    part.wait = msg->wait;
    part.n_wait = msg->n_wait;
    part.pin = msg->pin;
    part.n_pin = msg->n_pin;
    size_t size = tq__report_owner__get_packed_size(&part);
    bytes = malloc(size);
    if (bytes != NULL) {
        tq__report_owner__pack(&part, bytes);
        *out = tq__report_owner__unpack(NULL, size, bytes);
        free(bytes);
    }
    return *out ? TQ_OK : tqi_error_nomem(err, "a report");
}

/* Stores what the owner reports, and which of its waits were known before. */
static void owner_tell(tqi_ctl_owner *owner, Tq__ReportOwner *told)
{
    uint64_t passed_on = 0;

    for (size_t i = 0; told != NULL && owner->passed_on && i < told->n_wait; i++) {
        for (size_t old = 0; old < owner->told->n_wait; old++) {
            if ((owner->passed_on >> old & 1) && owner->told->wait[old]->number == told->wait[i]->number) {
                passed_on |= UINT64_C(1) << i;
            }
        }
    }
    owner_drop_told(owner);
    owner->told = told;
    owner->told_at = tqi_now();
    owner->passed_on = passed_on;
}

static void owner_remove_server(tqi_ctl_owner *owner, tqi_ctl_server *server)
{
    if (owner->collector == server->session) {
        owner->collector = NULL;
    }
    DL_DELETE(owner->servers, server);
    DL_DELETE2(server->session->serves, server, before, behind);
    free(server);
}

/* Frees an owner that nobody waits for any more; its part in the table has been dropped before. */
static void owner_free(tqi_ctl_owner *owner)
{
    while (owner->servers != NULL) {
        owner_remove_server(owner, owner->servers);
    }
    owner_drop_counters(owner);
    owner_drop_told(owner);
    OPENSSL_cleanse(owner->key, sizeof(owner->key));
    free(owner->doubted);
    free(owner->name);
    free(owner->manager);
    free(owner->info);
    free(owner);
}

/* The owner's data is lost, and nobody serves it any more. */
static void owner_lost(tqi_controller *ctl, tqi_ctl_owner *owner, const char *by)
{
    tqi_ctl_loser loser = {.ctl = ctl, .name = by};

    HASH_DEL(ctl->owners, owner);
    tqi_net_timed_remove(&owner->gone);
    tqi_net_timed_remove(&owner->late);
    tqi_ctl_collects_drop(owner, NULL);
    tqi_ctl_list_lost(ctl, owner);
    tqi_table_owner_set_user(owner->table_owner, NULL);
    tqi_table_owner_lost(ctl->table, owner->table_owner, tqi_ctl_lost, &loser);
    tqi_log(TQI_INFO, "controller", "owner '%s' is gone, its blocks are lost", owner->name);
    owner_free(owner);
}

static void owner_gone(tqi_net_timed *timed)
{
    tqi_ctl_owner *owner = TQI_CONTAINER(timed, tqi_ctl_owner, gone);

    owner_lost(tqi_ctl_of(timed->waiters), owner, owner->name);
}

tqi_ctl_left *tqi_ctl_left_find(const tqi_controller *ctl, const char *manager)
{
    tqi_ctl_left *left = NULL;

    DL_FOREACH (ctl->left, left) {
        if (!manager[0] || strcmp(left->manager, manager) == 0) {
            break;
        }
    }
    return left;
}

static void left_drop(tqi_controller *ctl, tqi_ctl_left *left)
{
    DL_DELETE(ctl->left, left);
    free(left->manager);
    free(left->name);
    free(left);
}

/* The error of a client that finds no storage says what there was. With too many managers, or too little memory, the
 * oldest are forgotten. */
static void owner_note_left(tqi_controller *ctl, const tqi_ctl_owner *owner)
{
    tqi_ctl_left *last = tqi_ctl_left_find(ctl, owner->manager);
    tqi_ctl_left *left = calloc(1, sizeof(*left));
    unsigned n = 0;

    if (last != NULL) {
        left_drop(ctl, last);
    }
    if (left == NULL) {
        return;
    }
    left->manager = strdup(owner->manager);
    left->name = strdup(owner->name);
    left->us = tqi_wall_us();
    DL_PREPEND(ctl->left, left);
    DL_COUNT(ctl->left, last, n);
    if (left->manager == NULL || left->name == NULL) {
        left_drop(ctl, left);
    } else if (n > OWNER_LEFT_MAX) {
        left_drop(ctl, ctl->left->prev); /* the list's last */
    }
}

void tqi_ctl_owners_leave(tqi_controller *ctl, tqi_ctl_session *session, bool gone)
{
    while (session->serves != NULL) {
        tqi_ctl_owner *owner = session->serves->owner;
        tqi_ctl_collects_drop(owner, session);
        owner_remove_server(owner, session->serves);
        if (owner->servers != NULL) {
            tqi_ctl_collects_gather(owner);
            continue;
        }
        if (!owner->shared) {
            owner_note_left(ctl, owner);
        }
        tqi_ctl_list_changed(ctl, owner, false);
        if (owner->mortal && gone && !ctl->closing) {
            owner_lost(ctl, owner, owner->name); /* it does not come back: nobody has to wait for it */
        } else if (!owner->shared && !ctl->closing) {
            tqi_net_timed_add(&ctl->waiters, &owner->gone, tqi_net_after_ms(ctl->owner_timeout_ms));
        }
    }
}

void tqi_ctl_owners_free(tqi_controller *ctl)
{
    tqi_ctl_owner *owner = NULL;
    tqi_ctl_owner *next = NULL;

    HASH_ITER (hh, ctl->owners, owner, next) {
        HASH_DEL(ctl->owners, owner);
        tqi_net_timed_remove(&owner->gone);
        tqi_net_timed_remove(&owner->late);
        owner_free(owner);
    }
    while (ctl->left != NULL) {
        left_drop(ctl, ctl->left);
    }
    tqi_ctl_list_fini(ctl);
}

/* --- register ------------------------------------------------------------- */

static int owner_check(const Tq__RegisterOwner *msg, tq_error *err)
{
    int rc = tqi_check_size("owner", msg->name, TQ_NAME_MAX, err);

    rc = rc ? rc : tqi_check_name("manager", msg->manager, TQ_NAME_MAX, err);
    if (rc == TQ_OK && msg->incarnation == 0) {
        rc = tqi_error_set(err, TQ_EINVAL, "owner '%s': incarnation 0", msg->name);
    }
    if (rc == TQ_OK && msg->info.len > TQI_CTL_OWNER_INFO_MAX) {
        rc = tqi_error_set(err, TQ_EINVAL, "owner '%s': %zu bytes of info, at most %u are possible", msg->name,
                           msg->info.len, TQI_CTL_OWNER_INFO_MAX);
    }
    if (rc == TQ_OK && msg->key.len && (msg->key.len != TQI_NET_GRANT_KEY || msg->shared)) {
        rc = tqi_error_set(err, TQ_EINVAL,
                           "owner '%s': a key of %zu bytes; one that is not shared may have one "
                           "of %u",
                           msg->name, msg->key.len, (unsigned)TQI_NET_GRANT_KEY);
    }
    return rc;
}

/* Whether the message shows the key of the owner. */
static bool owner_key_shown(const tqi_ctl_owner *owner, const Tq__RegisterOwner *msg)
{
    return owner->keyed && msg->key.len == TQI_NET_GRANT_KEY && tqi_net_grant_key_equal(owner->key, msg->key.data);
}

/* Whether the message may take over the owner of that name. Data that a connected server holds is not given up for
 * another incarnation: a server of a shared owner that arrives with an old incarnation asks its manager again and
 * finds the new one. The same incarnation with a different key, or without one, belongs to somebody else. */
static int owner_check_known(const tqi_ctl_owner *owner, const tqi_ctl_session *session, const Tq__RegisterOwner *msg,
                             bool same, tq_error *err)
{
    const tqi_ctl_server *server = NULL;

    if (same && (owner->shared != (msg->shared != 0) || strcmp(owner->manager, msg->manager) != 0)) {
        return tqi_error_set(err, TQ_EINVAL, "owner '%s' is registered as %s of '%s', not as %s of '%s'", msg->name,
                             owner->shared ? "shared" : "the storage", owner->manager,
                             msg->shared ? "shared" : "the storage", msg->manager);
    }
    if (owner_key_shown(owner, msg) || (same && owner->shared)) {
        return TQ_OK;
    }
    if (same && owner->keyed) {
        return tqi_error_set(err, TQ_EEXIST, "owner '%s' is registered with another key", msg->name);
    }
    DL_FOREACH (owner->servers, server) {
        if (server->session != session && tqi_net_session_connected(server->session->net)) {
            return tqi_error_set(err, TQ_EEXIST, "owner '%s' is served by '%s', which is connected", msg->name,
                                 tqi_net_session_name(server->session->net));
        }
    }
    return TQ_OK;
}

/* Makes an owner with its part in the table. */
static int owner_make(tqi_controller *ctl, const Tq__RegisterOwner *msg, tqi_ctl_owner **out, tq_error *err)
{
    tqi_ctl_owner *owner = calloc(1, sizeof(*owner));

    if (owner == NULL) {
        return tqi_error_nomem(err, "an owner");
    }
    owner->gone.due = owner_gone;
    owner->late.due = tqi_ctl_late_due;
    owner->name = strdup(msg->name);
    owner->manager = strdup(msg->manager);
    owner->shared = msg->shared != 0;
    owner->mortal = msg->mortal != 0 && !owner->shared;
    owner->keyed = msg->key.len == TQI_NET_GRANT_KEY;
    if (owner->keyed) {
        memcpy(owner->key, msg->key.data, TQI_NET_GRANT_KEY);
    }
    if (owner->name == NULL || owner->manager == NULL) {
        owner_free(owner);
        return tqi_error_nomem(err, "an owner");
    }
    int rc = tqi_table_owner_register(ctl->table, msg->name, msg->incarnation, &owner->table_owner, err);
    if (rc) {
        owner_free(owner);
        return rc;
    }
    if (!TQI_HASH_ADD_KEYPTR(ctl->owners, owner->name, strlen(owner->name), owner)) {
        tqi_table_owner_lost(ctl->table, owner->table_owner, NULL, NULL);
        owner_free(owner);
        return tqi_error_nomem(err, "an owner");
    }
    tqi_table_owner_set_user(owner->table_owner, owner);
    if (owner->shared) {
        tqi_table_owner_set_outlives(owner->table_owner);
    }
    *out = owner;
    return TQ_OK;
}

/* Makes the session the owner's server, or one of its servers. Takes ownership of `server`. */
static void owner_serve(tqi_ctl_owner *owner, tqi_ctl_session *session, tqi_ctl_server *server)
{
    tqi_ctl_server *old = NULL;
    tqi_ctl_server *next = NULL;

    DL_FOREACH_SAFE (owner->servers, old, next) {
        if (old->session == session || !owner->shared) {
            if (old->session != session) {
                tqi_ctl_collects_drop(owner, old->session);
                owner_remove_server(owner, old);
            } else {
                free(server);
                return;
            }
        }
    }
    server->session = session;
    server->owner = owner;
    DL_APPEND(owner->servers, server);
    DL_APPEND2(session->serves, server, before, behind);
    tqi_net_timed_remove(&owner->gone);
}

/* How often an owner may report, so that the reports of all owners together always take the same share of the
 * controller's time. */
static uint64_t owner_report_ms(const tqi_controller *ctl)
{
    uint64_t ms = (uint64_t)HASH_COUNT(ctl->owners) * OWNER_REPORT_EACH_MS;

    return ms < OWNER_REPORT_LEAST_MS ? OWNER_REPORT_LEAST_MS : ms;
}

/* Takes over `info`, which has room for the registered bytes; a change of it, and the owner's return, are changes of
 * the list. */
static void owner_set_info(tqi_controller *ctl, tqi_ctl_owner *owner, uint8_t *info, const ProtobufCBinaryData *from,
                           bool same)
{
    if (from->len) {
        memcpy(info, from->data, from->len);
    }
    bool told = same && owner->info_size == from->len && memcmp(owner->info, info, from->len) == 0;
    if (!told || owner->servers == NULL) {
        tqi_ctl_list_changed(ctl, owner, !told);
    }
    free(owner->info);
    owner->info = info;
    owner->info_size = from->len;
}

int tqi_ctl_on_register_owner(tqi_controller *ctl, tqi_net_request *request, const Tq__RegisterOwner *msg, tq_error *err)
{
    Tq__RegisterOwnerReply reply = TQ__REGISTER_OWNER_REPLY__INIT;
    tqi_ctl_session *session = tqi_ctl_session_of(request);
    tqi_ctl_server *server = NULL;
    uint8_t *info = NULL;
    tqi_ctl_owner *owner = tqi_ctl_owner_find(ctl, msg->name);
    bool same = owner != NULL && tqi_table_owner_incarnation(owner->table_owner) == msg->incarnation;
    int rc = owner_check(msg, err);

    if (rc == TQ_OK && owner != NULL) {
        rc = owner_check_known(owner, session, msg, same, err);
    }
    if (rc) {
        return rc;
    }
    server = calloc(1, sizeof(*server));
    info = malloc(msg->info.len ? msg->info.len : 1);
    if (server == NULL || info == NULL) {
        rc = tqi_error_nomem(err, "an owner");
        goto fail;
    }
    if (owner != NULL && !same) {
        owner_lost(ctl, owner, tqi_ctl_session_name(request));
        owner = NULL;
    }
    if (owner == NULL && HASH_COUNT(ctl->owners) >= tqi_limits.owners) {
        tqi_limit_reached(TQI_LIMIT_owners);
        rc = tqi_error_set(err, TQ_EINVAL,
                           "owner '%s': there are %llu owners, which is the most (limits.owners): "
                           "start the system with more",
                           msg->name, (unsigned long long)tqi_limits.owners);
        goto fail;
    }
    if (owner == NULL) {
        rc = owner_make(ctl, msg, &owner, err);
        if (rc) {
            goto fail;
        }
    }
    owner_set_info(ctl, owner, info, &msg->info, same);
    owner_serve(owner, session, server);
    tqi_ctl_event_add(ctl, &(tqi_ctl_happened){.kind = "owner", .session = tqi_ctl_session_name(request)});
    reply.epoch = tqi_table_epoch(ctl->table);
    reply.fresh = !same;
    reply.report_ms = owner_report_ms(ctl);
    tqi_ctl_reply(request, &reply.base);
    return TQ_OK;

fail:
    free(server);
    free(info);
    return rc;
}

static uint64_t owner_counter(const Tq__ReportOwner *msg, const char *name)
{
    for (size_t i = 0; i < msg->n_counter; i++) {
        if (strcmp(msg->counter[i], name) == 0) {
            return msg->value[i];
        }
    }
    return 0;
}

int tqi_ctl_on_report_owner(tqi_controller *ctl, tqi_net_request *request, const Tq__ReportOwner *msg, tq_error *err)
{
    Tq__ReportOwnerReply reply = TQ__REPORT_OWNER_REPLY__INIT;
    tqi_ctl_owner *owner = tqi_ctl_owner_find(ctl, msg->name);

    if (owner == NULL || !tqi_ctl_owner_serves(owner, tqi_ctl_session_of(request))) {
        return tqi_error_set(err, TQ_ESTALE, "owner '%s' is not served by this session", msg->name);
    }
    if (msg->n_counter != msg->n_value || msg->n_counter > OWNER_COUNTERS_MAX) {
        return tqi_error_set(err, TQ_EINVAL, "report of owner '%s': %zu counters, %zu values, at most %u", msg->name,
                             msg->n_counter, msg->n_value, OWNER_COUNTERS_MAX);
    }
    if (msg->n_wait > OWNER_TOLD_MAX || msg->n_pin > OWNER_TOLD_MAX) {
        return tqi_error_set(err, TQ_EINVAL, "report of owner '%s': %zu waits and %zu pins, at most %u of each",
                             msg->name, msg->n_wait, msg->n_pin, OWNER_TOLD_MAX);
    }
    tqi_ctl_owner fresh = {0};
    fresh.counters = calloc(msg->n_counter + 1, sizeof(*fresh.counters));
    fresh.values = calloc(msg->n_counter + 1, sizeof(*fresh.values));
    for (size_t i = 0; fresh.counters != NULL && fresh.values != NULL && i < msg->n_counter; i++) {
        fresh.counters[i] = strdup(msg->counter[i]);
        fresh.values[i] = msg->value[i];
        if (fresh.counters[i] == NULL) {
            break;
        }
        fresh.n_counters++;
    }
    if (fresh.counters == NULL || fresh.values == NULL || fresh.n_counters != msg->n_counter) {
        owner_drop_counters(&fresh);
        return tqi_error_nomem(err, "counters");
    }
    if (owner_copy_told(msg, &fresh.told, err) != TQ_OK) {
        owner_drop_counters(&fresh);
        return TQ_ENOMEM;
    }
    owner_drop_counters(owner);
    owner_tell(owner, fresh.told);
    owner->counters = fresh.counters;
    owner->values = fresh.values;
    owner->n_counters = fresh.n_counters;
    tqi_ctl_list_filled(ctl, owner, owner_counter(msg, "capacity_bytes"), owner_counter(msg, "used_bytes"));
    reply.report_ms = owner_report_ms(ctl);
    tqi_ctl_reply(request, &reply.base);
    return TQ_OK;
}
