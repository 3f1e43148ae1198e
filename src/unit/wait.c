/*
 * wait.c - reserves: answered at once, or waiting until room is made or their deadline passes.
 *
 * Waiting is state: a waiting request is a record in a queue, and the free that makes room completes it.
 */
#include "unit/wait.h"

#include <stdlib.h>

#include <utlist.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/heap.h"
#include "base/text.h"
#include "unit/compact.h"
#include "unit/memory.h"
#include "unit/report.h"
#include "unit/room.h"
#include "unit/tombs.h"
#include "unit/unit_state.h"
#include "unit/writers.h"

/* Answers with the places. */
static void wait_answer(tqi_unit *unit, tqi_net_request *request, const tqi_store_place *places, size_t n)
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
    int code = wait_check_grants(unit, writer, message, err);
    code = code != TQ_OK ? code : wait_check_fresh(unit, message, err);
    return code != TQ_OK ? code : wait_check_ids(unit, message, err);
}

/* Whether other puts have precedence: those that came earlier in the same queue, and, for new samples, those that add
 * columns to existing ones (they let samples be consumed, and so make room). */
static bool wait_behind(const tqi_unit *unit, bool adds_samples)
{
    return unit->waits.row[0] != NULL || (adds_samples && unit->waits.row[1] != NULL);
}

/* If the unit is full, says why in words; else names it in the store's message. */
static void wait_fail(tqi_unit *unit, tqi_net_request *request, const Tq__UnitReserve *message, const tq_error *why,
                      const char *what)
{
    char room[TQI_UNIT_ROOM_TEXT];
    tq_error err;

    if (why->code == TQ_EFULL) {
        tqi_unit_describe_room(unit, tqi_unit_wanted(message), message->adds_samples,
                               wait_behind(unit, message->adds_samples), room, sizeof(room));
        tqi_error_set(&err, TQ_EFULL, "unit '%s' %s: %s", unit->name, what, room);
    } else {
        tqi_error_set(&err, why->code, "unit '%s': %s", unit->name, why->message);
    }
    tqi_net_request_fail(request, &err);
}

static void wait_arm(tqi_unit *unit)
{
    const tqi_heap_node *top = unit->waits.timed.top;

    if (top == NULL) {
        uv_timer_stop(&unit->waits.timer);
        return;
    }
    uint64_t now = tqi_now();
    uint64_t ms = top->key > now ? (top->key - now + 999999) / 1000000 : 0;
    uv_update_time(unit->loop);
    uv_timer_start(&unit->waits.timer, tqi_unit_waits_timer, ms, 0);
}

/* Removes a waiting reserve from its queue; the caller must complete its request. */
static void wait_remove(tqi_unit_wait *wait)
{
    tqi_unit_wait **row = &wait->unit->waits.row[wait->message->adds_samples ? 1 : 0];

    DL_DELETE(*row, wait);
    tqi_heap_remove(&wait->unit->waits.timed, &wait->timed);
    tqi_net_request_on_cancel(wait->request, NULL, NULL);
    tqi_unit_reportable(wait->unit);
    free(wait->places);
    free(wait);
}

static void wait_cancel(tqi_net_request *request, void *arg)
{
    tqi_unit_wait *wait = arg;
    tqi_unit *unit = wait->unit;
    tq_error err;

    wait_remove(wait);
    tqi_error_set(&err, TQ_ECANCELED, "waiting for room in unit '%s' was cancelled", unit->name);
    tqi_net_request_fail(request, &err);
    wait_arm(unit);
    /* It may have blocked others that fit. */
    tqi_unit_wake(unit);
}

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
    wait->request = request;
    wait->message = message;
    wait->places = places;
    wait->since = tqi_now();
    wait->number = ++unit->waits.last;
    if (message->timeout_ms != 0 && message->timeout_ms <= UINT64_MAX / 2000000) {
        tqi_heap_add(&unit->waits.timed, &wait->timed, wait->since + message->timeout_ms * 1000000);
    }
    DL_APPEND(unit->waits.row[message->adds_samples ? 1 : 0], wait);
    tqi_net_request_on_cancel(request, wait_cancel, wait);
    wait_arm(unit);
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
    if (wait_behind(unit, message->adds_samples)) {
        tqi_error_set(&err, TQ_EFULL, "others wait for room");
    } else {
        tqi_store_reserve(unit->store, places, message->n_id, message->adds_samples, &err);
    }
    if (err.code == TQ_OK) {
        wait_answer(unit, request, places, message->n_id);
    } else if (err.code == TQ_EFULL && message->wait) {
        wait_add(unit, request, message, places);
        return;
    } else {
        wait_fail(unit, request, message, &err, "is full");
    }
    free(places);
}

/* Tries the first of a queue; false if it must keep waiting. */
static bool wait_try(tqi_unit *unit, tqi_unit_wait *wait)
{
    tqi_net_request *request = wait->request;
    const Tq__UnitReserve *message = wait->message;
    tq_error err = {0};

    if (wait_check_ids(unit, message, &err) == TQ_OK) {
        tqi_store_reserve(unit->store, wait->places, message->n_id, message->adds_samples, &err);
    }
    if (err.code == TQ_EFULL) {
        return false;
    }
    tqi_store_place *places = wait->places;
    wait->places = NULL;
    wait_remove(wait);
    if (err.code == TQ_OK) {
        wait_answer(unit, request, places, message->n_id);
    } else {
        wait_fail(unit, request, message, &err, "is full");
    }
    free(places);
    return true;
}

void tqi_unit_wake(tqi_unit *unit)
{
    bool any = false;

    if (unit->closing) {
        return;
    }
    while (unit->waits.row[0] != NULL && wait_try(unit, unit->waits.row[0])) {
        any = true;
    }
    while (unit->waits.row[0] == NULL && unit->waits.row[1] != NULL && wait_try(unit, unit->waits.row[1])) {
        any = true;
    }
    if (any) {
        wait_arm(unit);
    }
    tqi_unit_compact_room(unit);
}

void tqi_unit_waits_timer(uv_timer_t *timer)
{
    tqi_unit *unit = timer->data;
    uint64_t now = tqi_now();
    const tq_error full = {.code = TQ_EFULL};

    while (unit->waits.timed.top != NULL && unit->waits.timed.top->key <= now) {
        tqi_unit_wait *wait = TQI_HEAP_ENTRY(unit->waits.timed.top, tqi_unit_wait, timed);
        tqi_net_request *request = wait->request;
        const Tq__UnitReserve *message = wait->message;
        wait_remove(wait);
        wait_fail(unit, request, message, &full, "stayed full until the deadline");
    }
    wait_arm(unit);
    tqi_unit_wake(unit);
}

void tqi_unit_waits_fail(tqi_unit *unit, int code, const char *why)
{
    for (int i = 0; i < 2; i++) {
        while (unit->waits.row[i] != NULL) {
            tqi_net_request *request = unit->waits.row[i]->request;
            tq_error err;
            tqi_error_set(&err, code, "unit '%s' %s", unit->name, why);
            wait_remove(unit->waits.row[i]);
            tqi_net_request_fail(request, &err);
        }
    }
    uv_timer_stop(&unit->waits.timer);
}
