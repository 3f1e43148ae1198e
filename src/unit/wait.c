/*
 * wait.c - reserves: answered at once, or waiting until room is made or their deadline passes.
 *
 * A waiting request is a waiter (net/waiters.h) in one of two queues, and the free that makes room completes it.
 */
#include "unit/wait.h"

#include <stdlib.h>

#include <utlist.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/pointer.h"
#include "base/text.h"
#include "unit/compact.h"
#include "unit/memory.h"
#include "unit/report.h"
#include "unit/room.h"
#include "unit/tombs.h"
#include "unit/unit_state.h"
#include "unit/writers.h"

/* Answers with the places. */
static void reserve_answer(tqi_unit *unit, tqi_net_request *request, const tqi_store_place *places, size_t n)
{
    Tq__UnitReserveReply reply = TQ__UNIT_RESERVE_REPLY__INIT;
    tq_error err = {0};
    uint64_t *offsets = calloc(n, sizeof(*offsets));
    uint32_t *slots = calloc(n, sizeof(*slots));
    tqi_net_session *session = tqi_net_request_session(request);
    tqi_unit_writer *writer = session != NULL ? tqi_net_session_user(session) : NULL;

    if (offsets == NULL || slots == NULL || writer == NULL) {
        tqi_error_nomem(&err, "the answer to a reserve");
        goto fail;
    }
    for (size_t i = 0; i < n; i++) {
        offsets[i] = places[i].offset;
        slots[i] = places[i].slot;
    }
    reply.offset = offsets;
    reply.n_offset = n;
    reply.slot = slots;
    reply.n_slot = n;
    /* Otherwise, room that the writer does not learn of would stay reserved. */
    if (tqi_net_request_prepare(request, tq__unit_reserve_reply__get_packed_size(&reply), &err) != TQ_OK) {
        goto fail;
    }
    for (size_t i = 0; i < n; i++) {
        tqi_unit_writer_add(writer, places[i].id);
    }
    tqi_net_request_reply(request, &reply.base, NULL, 0, NULL, NULL);
    tqi_unit_changed(unit);
    goto out;

fail:
    for (size_t i = 0; i < n; i++) {
        tqi_store_free_block(unit->store, places[i].id);
    }
    tqi_net_request_fail(request, &err);
out:
    free(offsets);
    free(slots);
}

/* Whether one of the ids ended before its reserve arrived. */
static int wait_check_ids(const tqi_unit *unit, const Tq__UnitReserve *message, tq_error *err)
{
    for (size_t i = 0; i < message->n_id; i++) {
        if (tqi_unit_tombs_has(&unit->tombs, message->id[i])) {
            return tqi_error_set(err, TQ_ESTALE, "unit '%s': block %llu has ended already", unit->name,
                                 (unsigned long long)message->id[i]);
        }
    }
    return TQ_OK;
}

/* Whether the controller granted the ids to the session: their grants come in the order of the ids. */
static int wait_check_grants(const tqi_unit *unit, tqi_unit_writer *writer, const Tq__UnitReserve *message,
                             tq_error *err)
{
    size_t at = 0, proven = 0;

    for (size_t i = 0; i < message->n_id; i++) {
        while (at < message->n_grant && message->id[i] - message->grant[at]->first >= message->grant[at]->count) {
            at++;
        }
        if (at == message->n_grant || (proven <= at && !tqi_unit_writer_granted(writer, message->grant[at]))) {
            return tqi_error_set(err, TQ_ESTALE, "unit '%s': block %llu was not granted to this session", unit->name,
                                 (unsigned long long)message->id[i]);
        }
        proven = at + 1;
    }
    return TQ_OK;
}

/* An id that already exists here has been used: its writer has to get new ones. */
static int wait_check_fresh(const tqi_unit *unit, const Tq__UnitReserve *message, tq_error *err)
{
    for (size_t i = 0; i < message->n_id; i++) {
        if (tqi_store_has(unit->store, message->id[i])) {
            return tqi_error_set(err, TQ_ESTALE, "unit '%s': block %llu is there already", unit->name,
                                 (unsigned long long)message->id[i]);
        }
    }
    return TQ_OK;
}

static int wait_check(const tqi_unit *unit, tqi_unit_writer *writer, const Tq__UnitReserve *message, tq_error *err)
{
    if (writer == NULL) {
        return tqi_error_nomem(err, "a writer");
    }
    if (message->n_id == 0 || message->n_id != message->n_size) {
        return tqi_error_set(err, TQ_EINVAL, "reserve of %zu ids with %zu sizes", message->n_id, message->n_size);
    }
    if (message->incarnation != 0 && message->incarnation != unit->incarnation) {
        return tqi_error_set(err, TQ_ESTALE, "unit '%s' is another run of it now", unit->name);
    }
    if (!tqi_store_fits(unit->store, message->size, message->n_size, message->adds_samples)) {
        return tqi_error_set(err, TQ_EFULL,
                             "%zu block%s of %llu bytes together can never fit in unit '%s' of %llu bytes%s: put "
                             "fewer samples at once, or start the system with a larger total_storage_size",
                             message->n_id, tqi_text_s(message->n_id), (unsigned long long)tqi_unit_wanted(message),
                             unit->name, (unsigned long long)tqi_store_capacity(unit->store),
                             message->adds_samples ? ", whose last tenth is kept for columns of existing samples" : "");
    }
    int rc = wait_check_grants(unit, writer, message, err);
    rc = rc != TQ_OK ? rc : wait_check_fresh(unit, message, err);
    return rc != TQ_OK ? rc : wait_check_ids(unit, message, err);
}

/* Whether somebody other than `except` (NULL: nobody) waits in a queue. */
static bool wait_others(const tqi_unit_wait *row, const tqi_unit_wait *except)
{
    return row != NULL && (row != except || row->next != NULL);
}

/* Whether other puts have precedence: those that came earlier in the same queue, and, for new samples, those that add
 * columns to existing ones (they let samples be consumed, and so make room). */
static bool wait_behind(const tqi_unit *unit, bool adds_samples, const tqi_unit_wait *except)
{
    return wait_others(unit->waits.row[0], except) || (adds_samples && wait_others(unit->waits.row[1], except));
}

/* If the unit is full, says why in words; else names it in the store's message. */
static void wait_explain(const tqi_unit *unit, const Tq__UnitReserve *message, const tqi_unit_wait *except,
                         const char *what, const tq_error *why, tq_error *err)
{
    char room[TQI_UNIT_ROOM_TEXT];

    if (why->code == TQ_EFULL) {
        tqi_unit_describe_room(unit, tqi_unit_wanted(message), message->adds_samples,
                               wait_behind(unit, message->adds_samples, except), room, sizeof(room));
        tqi_error_set(err, TQ_EFULL, "unit '%s' %s: %s", unit->name, what, room);
    } else {
        tqi_error_set(err, why->code, "unit '%s': %s", unit->name, why->message);
    }
}

/* --- waiters -------------------------------------------------------------- */

static void wait_leave(tqi_net_waiter *base)
{
    tqi_unit_wait *wait = (tqi_unit_wait *)base;
    tqi_unit_wait **row = &wait->unit->waits.row[wait->message->adds_samples ? 1 : 0];

    DL_DELETE(*row, wait);
    tqi_unit_reportable(wait->unit);
}

static void wait_answer(tqi_net_waiter *base)
{
    tqi_unit_wait *wait = (tqi_unit_wait *)base;

    reserve_answer(wait->unit, base->request, wait->places, wait->message->n_id);
}

static void wait_describe(const tqi_net_waiter *base, tq_error *err)
{
    const tqi_unit_wait *wait = (const tqi_unit_wait *)base;
    const tq_error full = {.code = TQ_EFULL};

    wait_explain(wait->unit, wait->message, wait, "stayed full until the deadline", &full, err);
}

static void wait_cancelled(const tqi_net_waiter *base, tq_error *err)
{
    const tqi_unit_wait *wait = (const tqi_unit_wait *)base;

    tqi_error_set(err, TQ_ECANCELED, "waiting for room in unit '%s' was cancelled", wait->unit->name);
}

static void wait_dispose(tqi_net_waiter *base)
{
    tqi_unit_wait *wait = (tqi_unit_wait *)base;

    free(wait->places);
    free(wait);
}

static const tqi_net_waiter_type wait_type = {
    .leave = wait_leave,
    .answer = wait_answer,
    .describe = wait_describe,
    .cancelled = wait_cancelled,
    .dispose = wait_dispose,
};

static void wait_add(tqi_unit *unit, tqi_net_request *request, const Tq__UnitReserve *message, tqi_store_place *places)
{
    tqi_unit_wait *wait = calloc(1, sizeof(*wait));
    tq_error err;

    if (wait == NULL) {
        free(places);
        tqi_error_nomem(&err, "a waiting reserve");
        tqi_net_request_fail(request, &err);
        return;
    }
    wait->unit = unit;
    wait->message = message;
    wait->places = places;
    wait->since = tqi_now();
    wait->number = ++unit->waits.last;
    DL_APPEND(unit->waits.row[message->adds_samples ? 1 : 0], wait);
    tqi_net_waiter_add(&unit->waits.waiters, &wait->base, &wait_type, request, message->timeout_ms);
    tqi_unit_compact_urge(unit);
}

void tqi_unit_reserve(tqi_unit *unit, tqi_net_request *request, const Tq__UnitReserve *message)
{
    tqi_net_session *session = tqi_net_request_session(request);
    tqi_unit_writer *writer = session != NULL ? tqi_net_session_user(session) : NULL;
    tq_error err = {0};

    if (wait_check(unit, writer, message, &err) != TQ_OK) {
        tqi_net_request_fail(request, &err);
        return;
    }
    tqi_store_place *places = calloc(message->n_id, sizeof(*places));
    if (places == NULL) {
        tqi_error_nomem(&err, "a reserve");
        tqi_net_request_fail(request, &err);
        return;
    }
    for (size_t i = 0; i < message->n_id; i++) {
        places[i].id = message->id[i];
        places[i].size = message->size[i];
    }
    if (wait_behind(unit, message->adds_samples, NULL)) {
        tqi_error_set(&err, TQ_EFULL, "others wait for room");
    } else {
        tqi_store_reserve(unit->store, places, message->n_id, message->adds_samples, &err);
    }
    if (err.code == TQ_OK) {
        reserve_answer(unit, request, places, message->n_id);
    } else if (err.code == TQ_EFULL && message->wait) {
        wait_add(unit, request, message, places);
        return;
    } else {
        tq_error why = err;
        wait_explain(unit, message, NULL, "is full", &why, &err);
        tqi_net_request_fail(request, &err);
    }
    free(places);
}

/* Tries the first of a queue; false if it must keep waiting. */
static bool wait_try(tqi_unit *unit, tqi_unit_wait *wait)
{
    const Tq__UnitReserve *message = wait->message;
    tq_error err = {0};

    if (wait_check_ids(unit, message, &err) == TQ_OK) {
        tqi_store_reserve(unit->store, wait->places, message->n_id, message->adds_samples, &err);
    }
    if (err.code == TQ_EFULL) {
        return false;
    }
    if (err.code == TQ_OK) {
        tqi_net_waiter_answer(&wait->base);
    } else {
        tq_error why = err;
        wait_explain(unit, message, wait, "is full", &why, &err);
        tqi_net_waiter_fail(&wait->base, &err);
    }
    return true;
}

void tqi_unit_wake(tqi_unit *unit)
{
    if (unit->closing) {
        return;
    }
    while (unit->waits.row[0] != NULL && wait_try(unit, unit->waits.row[0])) {
    }
    while (unit->waits.row[0] == NULL && unit->waits.row[1] != NULL && wait_try(unit, unit->waits.row[1])) {
    }
    tqi_unit_compact_room(unit);
}

static void wait_wake(tqi_net_waiters *waiters)
{
    tqi_unit_wake(TQI_CONTAINER(waiters, tqi_unit, waits.waiters));
}

void tqi_unit_waits_init(tqi_unit *unit)
{
    unit->waits.waiters.wake = wait_wake;
    unit->waits.waiters.queue = true; /* one that is cancelled may have stood before others that fit */
}

void tqi_unit_waits_fail(tqi_unit *unit, int rc, const char *why)
{
    for (int i = 0; i < 2; i++) {
        while (unit->waits.row[i] != NULL) {
            tq_error err;
            tqi_error_set(&err, rc, "unit '%s' %s", unit->name, why);
            tqi_net_waiter_fail(&unit->waits.row[i]->base, &err);
        }
    }
}
