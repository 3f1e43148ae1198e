/*
 * pins.c - a pin keeps the memory of blocks that a client has borrowed, that is, reads in place through private
 * mappings. A pinned block may end (be cleared, overwritten) like any other and is then no longer found, but its
 * memory is not reused until the pin has ended. A pin belongs to a session. A client that closes its session has
 * already made copies of what it still borrows. A session that ends although its process lives on (it was out of touch
 * for too long) leaves its pins to its writer's record until the process has exited: a reader must not find other
 * bytes in the memory. The client's next session may end them one by one. The reader numbers its pins, so that it can
 * end one without knowing whether it was ever made.
 */
#include <stdlib.h>

#include "base/error.h"
#include "base/hash.h"
#include "base/limits.h"
#include "base/text.h"
#include "unit/memory.h"
#include "unit/report.h"
#include "unit/unit_state.h"
#include "unit/wait.h"
#include "unit/writers.h"

static void pin_end(tqi_unit_writer *writer, tqi_unit_pinned *pin)
{
    tqi_unit *unit = writer->unit;

    HASH_DEL(writer->pins, pin);
    unit->pins--;
    unit->pinned_bytes -= pin->bytes;
    writer->pinned_bytes -= pin->bytes;
    writer->pinned -= pin->n;
    for (size_t i = 0; i < pin->n; i++) {
        unit->unpins += tqi_store_unpin(pin->held->store, pin->ids[i]);
    }
    tqi_unit_store_unref(pin->held);
    free(pin);
}

bool tqi_unit_writer_unpin(tqi_unit_writer *writer)
{
    tqi_unit_pinned *pin, *next;
    bool any = writer->pins != NULL;

    HASH_ITER (hh, writer->pins, pin, next) {
        pin_end(writer, pin);
    }
    return any;
}

static tqi_unit_pinned *pin_find(tqi_unit_writer *writer, uint64_t number)
{
    tqi_unit_pinned *pin;

    HASH_FIND(hh, writer->pins, &number, sizeof(number), pin);
    return pin;
}

/* The writer record that pins; NULL if the request makes no sense. */
static tqi_unit_writer *pin_writer(tqi_unit *unit, tqi_net_request *request, const Tq__UnitPin *message, tq_error *err)
{
    tqi_net_session *session = tqi_net_request_session(request);
    tqi_unit_writer *writer = session != NULL ? tqi_net_session_user(session) : NULL;

    if (writer == NULL) {
        tqi_error_nomem(err, "a reader");
    } else if (!writer->mapped) {
        tqi_error_set(err, TQ_EUNSUPPORTED,
                      "unit '%s' does not share memory with session '%s', which cannot see "
                      "a block in place",
                      unit->name, tqi_net_session_name(session));
    } else if (message->n_id == 0 || message->n_id != message->n_slot) {
        tqi_error_set(err, TQ_EINVAL, "pin of %zu ids with %zu slots", message->n_id, message->n_slot);
    } else if (HASH_COUNT(writer->pins) >= tqi_limits.pins || writer->pinned + message->n_id > tqi_limits.pinned_blocks) {
        tqi_limit_reached(HASH_COUNT(writer->pins) >= tqi_limits.pins ? TQI_LIMIT_pins : TQI_LIMIT_pinned_blocks);
        tqi_error_set(err, TQ_EINVAL,
                      "session '%s' has %u pin%s of %zu block%s in unit '%s', with one of %zu it would "
                      "have more than %llu, or than %llu blocks (limits.pins, limits.pinned_blocks): read a "
                      "copy, or let go of what was read",
                      tqi_net_session_name(session), HASH_COUNT(writer->pins), tqi_text_s(HASH_COUNT(writer->pins)),
                      writer->pinned, tqi_text_s(writer->pinned), unit->name, message->n_id,
                      (unsigned long long)tqi_limits.pins, (unsigned long long)tqi_limits.pinned_blocks);
    } else if (pin_find(writer, message->pin) != NULL) {
        tqi_error_set(err, TQ_EINVAL, "there is a pin %llu already", (unsigned long long)message->pin);
    } else {
        return writer;
    }
    return NULL;
}

/* Holds the blocks that exist; `gone` gets the indexes of the others. */
static void pin_hold(tqi_unit *unit, const Tq__UnitPin *message, tqi_unit_pinned *pin, uint32_t *gone, size_t *n_gone)
{
    bool same = message->incarnation == 0 || message->incarnation == unit->incarnation;

    for (size_t i = 0; i < message->n_id; i++) {
        uint64_t size = 0;
        if (!same || tqi_store_find(unit->store, message->id[i], message->slot[i], &size) == NULL) {
            gone[(*n_gone)++] = (uint32_t)i;
            continue;
        }
        tqi_store_pin(unit->store, message->id[i]);
        pin->ids[pin->n++] = message->id[i];
        pin->bytes += size;
    }
}

void tqi_unit_pin(tqi_unit *unit, tqi_net_request *request, const Tq__UnitPin *message)
{
    Tq__UnitPinReply reply = TQ__UNIT_PIN_REPLY__INIT;
    tq_error err = {0};
    tqi_unit_writer *writer = pin_writer(unit, request, message, &err);
    tqi_unit_pinned *pin = NULL;
    uint32_t *gone = NULL;
    size_t n_gone = 0;

    if (writer == NULL) {
        goto fail;
    }
    pin = calloc(1, sizeof(*pin) + message->n_id * sizeof(pin->ids[0]));
    gone = malloc(message->n_id * sizeof(*gone));
    if (pin == NULL || gone == NULL) {
        tqi_error_nomem(&err, "a pin");
        goto fail;
    }
    /* Sized as if all were gone, the largest answer; pins that the reader does not learn of would stay. */
    for (size_t i = 0; i < message->n_id; i++) {
        gone[i] = (uint32_t)i;
    }
    reply.gone = gone;
    reply.n_gone = message->n_id;
    if (tqi_net_request_prepare(request, tq__unit_pin_reply__get_packed_size(&reply), &err) != TQ_OK) {
        goto fail;
    }
    pin->number = message->pin;
    if (!TQI_HASH_ADD(writer->pins, number, pin)) {
        tqi_error_nomem(&err, "a pin");
        goto fail;
    }
    pin->held = unit->held;
    pin->held->refs++;
    pin_hold(unit, message, pin, gone, &n_gone);
    unit->pins++;
    unit->pinned_bytes += pin->bytes;
    writer->pinned_bytes += pin->bytes;
    writer->pinned += pin->n;
    if (pin->n == 0) {
        pin_end(writer, pin);
    }
    reply.n_gone = n_gone;
    tqi_net_request_reply(request, &reply.base, NULL, 0, NULL, NULL);
    tqi_unit_reportable(unit);
    free(gone);
    return;

fail:
    free(pin);
    free(gone);
    tqi_net_request_fail(request, &err);
}

/* The pin may belong to a lost session of the same client. */
static bool pin_end_number(tqi_unit_writer *writer, uint64_t number)
{
    tqi_unit_writer *of = writer;
    tqi_unit_pinned *pin = pin_find(writer, number);

    while (pin == NULL && (of = tqi_unit_writer_former(writer, of == writer ? NULL : of)) != NULL) {
        pin = pin_find(of, number);
    }
    if (pin == NULL) {
        return false;
    }
    pin_end(of, pin);
    tqi_unit_writer_settle(of);
    return true;
}

void tqi_unit_unpin(tqi_unit *unit, tqi_net_request *request, const Tq__UnitUnpin *message)
{
    Tq__Empty reply = TQ__EMPTY__INIT;
    tqi_net_session *session = tqi_net_request_session(request);
    tqi_unit_writer *writer = session != NULL ? tqi_net_session_user(session) : NULL;
    bool any = false;

    for (size_t i = 0; writer != NULL && i < message->n_pin; i++) {
        any = pin_end_number(writer, message->pin[i]) || any;
    }
    tqi_net_request_reply(request, &reply.base, NULL, 0, NULL, NULL);
    if (any) {
        tqi_unit_changed(unit);
        tqi_unit_wake(unit);
    }
}
