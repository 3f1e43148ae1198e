/*
 * room.c - why a put finds no room, in words: for its error, for the status, and for its client's log.
 */
#include "unit/room.h"

#include "base/text.h"
#include "unit/unit_state.h"
#include "unit/writers.h"

/* Clients with pins that a text names. */
#define ROOM_HOLDERS 3u

uint64_t tqi_unit_wanted(const Tq__UnitReserve *message)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < message->n_size; i++) {
        sum = sum > UINT64_MAX - message->size[i] ? UINT64_MAX : sum + message->size[i];
    }
    return sum;
}

uint64_t tqi_unit_room(const tqi_unit *unit, bool adds_samples)
{
    uint64_t limit = tqi_store_limit(unit->store, adds_samples);
    uint64_t used = tqi_store_used(unit->store);

    return used < limit ? limit - used : 0;
}

size_t tqi_unit_holders(const tqi_unit *unit, const tqi_unit_writer **out, size_t max)
{
    const tqi_unit_writer *writer;
    size_t n = 0;

    if (unit->pins == 0) {
        return 0;
    }
    for (writer = unit->writers; writer != NULL; writer = writer->hh.next) {
        if (writer->pins == NULL) {
            continue;
        }
        if (n == max && out[max - 1]->pinned_bytes >= writer->pinned_bytes) {
            continue;
        }
        size_t at = n < max ? n++ : max - 1;
        for (; at > 0 && out[at - 1]->pinned_bytes < writer->pinned_bytes; at--) {
            out[at] = out[at - 1];
        }
        out[at] = writer;
    }
    return n;
}

/* Cleared data that readers still use in place. */
static void room_pins(const tqi_unit *unit, tqi_text *text)
{
    const tqi_unit_writer *holders[ROOM_HOLDERS];
    uint64_t held = tqi_store_held_dead(unit->store);
    size_t n = tqi_unit_holders(unit, holders, ROOM_HOLDERS);

    if (held == 0 || n == 0) {
        return;
    }
    tqi_text_add(
        text, "; %llu of the used bytes were cleared, but zero-copy reads still show them: ", (unsigned long long)held);
    for (size_t i = 0; i < n; i++) {
        const tqi_net_session *session = holders[i]->session;
        tqi_text_add(text, "%s'%.64s' (process %llu) pins %llu", i > 0 ? ", " : "",
                     session != NULL ? tqi_net_session_name(session) : "a session that is over",
                     (unsigned long long)holders[i]->pid, (unsigned long long)holders[i]->pinned_bytes);
    }
    tqi_text_add(text, "; that room comes back when those tensors are deleted");
}

void tqi_unit_describe_room(const tqi_unit *unit, uint64_t wanted, bool adds_samples, bool behind, char *out,
                            size_t size)
{
    tqi_text text = tqi_text_begin(out, size);
    uint64_t capacity = tqi_store_capacity(unit->store);
    uint64_t room = tqi_unit_room(unit, adds_samples);

    tqi_text_add(&text, "%llu bytes wanted, %llu are free for it: %llu of %llu are used", (unsigned long long)wanted,
                 (unsigned long long)room, (unsigned long long)tqi_store_used(unit->store),
                 (unsigned long long)capacity);
    if (adds_samples) {
        tqi_text_add(&text, ", and the last %llu are kept for columns of existing samples",
                     (unsigned long long)(capacity - tqi_store_limit(unit->store, true)));
    }
    if (room >= wanted && behind) {
        tqi_text_add(&text, "; puts that came before it wait, too");
    } else if (room >= wanted && tqi_store_blocks(unit->store) >= tqi_store_slots(unit->store)) {
        tqi_text_add(&text, "; all of its %u blocks are in use: put more samples at once", tqi_store_slots(unit->store));
    } else if (room >= wanted) {
        tqi_text_add(&text, "; the longest free piece has %llu", (unsigned long long)tqi_store_longest(unit->store));
    }
    room_pins(unit, &text);
    tqi_text_add(&text, "; clear samples, or start the system with a larger total_storage_size");
}
