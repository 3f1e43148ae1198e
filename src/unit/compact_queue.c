/*
 * compact_queue.c - which blocks to move, and when to move the next ones (compact.c moves them). Newly named blocks
 * are appended, and so are those that cannot be moved now: if only those are left, nothing is done until something
 * changes that may help.
 */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "unit/compact.h"
#include "unit/unit_state.h"

void tqi_unit_compact_arm(tqi_unit *unit)
{
    tqi_unit_compact *compact = &unit->compact;
    uint64_t now = tqi_now(), at;

    if (compact->full >= compact->n || compact->now != NULL || unit->closing || !unit->registered) {
        return;
    }
    at = tqi_unit_waited_for(unit) ? compact->urged_before : compact->not_before;
    uv_update_time(unit->loop);
    uv_timer_start(&compact->timer, compact->begin, at > now ? (at - now + 999999) / 1000000 : 0, 0);
}

/* Makes room for n more; if out of memory, they are forgotten, and named again when more of them is dead. */
static bool compact_grow(tqi_unit_compact *compact, size_t n)
{
    return n > 0 && tqi_grow(&compact->queue, &compact->capacity, compact->n + n, sizeof(uint64_t)) == TQ_OK;
}

void tqi_unit_compact_append(tqi_unit *unit, const uint64_t *ids, size_t n)
{
    tqi_unit_compact *compact = &unit->compact;

    if (compact_grow(compact, n)) {
        memcpy(compact->queue + compact->n, ids, n * sizeof(*ids));
        compact->n += n;
    }
}

void tqi_unit_compact_prepend(tqi_unit *unit, const uint64_t *ids, size_t n)
{
    tqi_unit_compact *compact = &unit->compact;

    if (compact_grow(compact, n)) {
        memmove(compact->queue + n, compact->queue, compact->n * sizeof(*ids));
        memcpy(compact->queue, ids, n * sizeof(*ids));
        compact->n += n;
    }
}

void tqi_unit_compact_refuse(tqi_unit *unit, uint64_t id)
{
    tqi_unit_compact *compact = &unit->compact;

    if (compact_grow(compact, 1)) {
        compact->queue[compact->n++] = id;
        compact->full++;
        compact->full_used = tqi_store_used(unit->store);
        compact->full_unpins = unit->unpins;
        compact->full_urged = tqi_unit_waited_for(unit);
    }
}

void tqi_unit_compact_add(tqi_unit *unit, const uint64_t *ids, size_t n)
{
    tqi_unit_compact *compact = &unit->compact;
    uint64_t soon = tqi_now() + TQI_UNIT_COMPACT_PAUSE_MS * UINT64_C(1000000);

    tqi_unit_compact_append(unit, ids, n);
    /* The first of what may be many. */
    if (!uv_is_active((uv_handle_t *)&compact->timer) && compact->not_before < soon) {
        compact->not_before = soon;
    }
    tqi_unit_compact_go(unit);
}

void tqi_unit_compact_go(tqi_unit *unit)
{
    unit->compact.full = 0;
    tqi_unit_compact_arm(unit);
}

void tqi_unit_compact_room(tqi_unit *unit)
{
    const tqi_unit_compact *compact = &unit->compact;

    if (compact->full > 0 && (tqi_store_used(unit->store) < compact->full_used || unit->unpins != compact->full_unpins)) {
        tqi_unit_compact_go(unit);
    }
}

void tqi_unit_compact_urge(tqi_unit *unit)
{
    /* More room may be taken now. */
    if (!unit->compact.full_urged) {
        unit->compact.full = 0;
    }
    tqi_unit_compact_arm(unit);
}

void tqi_unit_compact_forget_ids(tqi_unit *unit)
{
    unit->compact.n_ids = 0;
    unit->compact.grant++;
}

void tqi_unit_compact_forget(tqi_unit *unit)
{
    unit->compact.n = 0;
    unit->compact.full = 0;
    tqi_unit_compact_forget_ids(unit);
}

void tqi_unit_compact_fini(tqi_unit *unit)
{
    free(unit->compact.queue);
}
