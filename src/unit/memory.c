/*
 * memory.c - a unit's stores, which of their memory stays warm, and what follows when something was reserved or freed.
 */
#include "unit/memory.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "unit/report.h"
#include "unit/unit_state.h"

/* As much memory stays warm as was in use recently: in this interval or the previous one. The rest goes back to the
 * system, in steps that hold up nobody for long. */
#define MEMORY_GIVE_STEP (UINT64_C(8) << 20)
#define MEMORY_GIVE_MS   5u
/* Bytes warmed in one piece of work. */
#define MEMORY_WARM_STEP (UINT64_C(16) << 20)

/* --- stores --------------------------------------------------------------- */

tqi_unit_store *tqi_unit_store_make(tqi_unit *unit, tq_error *err)
{
    tqi_unit_store *held = calloc(1, sizeof(*held));

    if (held == NULL) {
        tqi_error_nomem(err, "a store");
        return NULL;
    }
    if (tqi_store_alloc(&unit->store_options, &held->store, err) != TQ_OK) {
        free(held);
        return NULL;
    }
    held->unit = unit;
    held->refs = 1;
    if (tqi_store_unshared(held->store) != NULL) {
        tqi_log(TQI_WARN, "unit", "%s: memory cannot be shared here, all data goes over the stream: %s", unit->name,
                tqi_store_unshared(held->store));
    }
    return held;
}

void tqi_unit_store_unref(tqi_unit_store *held)
{
    if (--held->refs == 0) {
        tqi_store_free(held->store);
        free(held);
    }
}

/* --- warm memory ---------------------------------------------------------- */

static void memory_warm_work(uv_work_t *work)
{
    tqi_unit *unit = work->data;

    unit->warm_left = tqi_store_warm(unit->warming->store, MEMORY_WARM_STEP);
}

static void memory_warm_done(uv_work_t *work, int status)
{
    tqi_unit *unit = work->data;

    (void)status;
    tqi_unit_store_unref(unit->warming);
    unit->warming = NULL;
    if (unit->warm_left > 0 && !unit->closing) {
        tqi_unit_warm(unit);
    }
    tqi_unit_close_step(unit);
}

void tqi_unit_warm(tqi_unit *unit)
{
    if (unit->warming != NULL || unit->closing || tqi_store_warm(unit->store, 0) == 0) {
        return;
    }
    unit->warm.data = unit;
    unit->warming = unit->held;
    unit->warming->refs++;
    unit->warm_left = 0;
    unit->open++;
    if (uv_queue_work(unit->loop, &unit->warm, memory_warm_work, memory_warm_done) != 0) {
        /* Warming only saves time. */
        tqi_unit_store_unref(unit->warming);
        unit->warming = NULL;
        unit->open--;
    }
}

static void memory_trim(uv_timer_t *timer)
{
    tqi_unit *unit = timer->data;
    uint64_t used = tqi_store_used(unit->store);
    uint64_t age = (tqi_now() - unit->peak_since) / 1000000;

    if (age >= unit->keep_ms) {
        unit->peak_before = unit->peak;
        unit->peak = used;
        unit->peak_since = tqi_now();
        age = 0;
    }
    uint64_t peak = unit->peak > unit->peak_before ? unit->peak : unit->peak_before;
    uint64_t given = 0;
    if (unit->warming == NULL) {
        given = tqi_store_give_back(unit->store, tqi_store_keeps(peak), MEMORY_GIVE_STEP);
    }
    if (given > 0 || unit->warming != NULL) {
        uv_timer_start(timer, memory_trim, MEMORY_GIVE_MS, 0);
    } else if (peak > used) {
        uv_timer_start(timer, memory_trim, unit->keep_ms - age, 0);
    }
}

void tqi_unit_changed(tqi_unit *unit)
{
    uint64_t used = tqi_store_used(unit->store);

    if (unit->closing) {
        return;
    }
    tqi_unit_reportable(unit);
    unit->peak = used > unit->peak ? used : unit->peak;
    if (!uv_is_active((uv_handle_t *)&unit->trim)) {
        unit->peak_since = tqi_now();
        uv_timer_start(&unit->trim, memory_trim, unit->keep_ms, 0);
    }
    tqi_unit_warm(unit);
}
