/*
 * wait.c - waiting: rows of those that wait for one thing, pauses between two tries of a unit that cannot be reached,
 * and how long a try may take. One timer ends pauses, and those in rows whose deadline passes.
 *
 * A connection to a unit that has died is refused at once, and the controller lists the unit until it counts as lost.
 * Retrying without a pause would ask the controller thousands of times a second.
 */
#include <utlist.h>

#include "base/clock.h"
#include "base/error.h"
#include "manager/simple/simple.h"

#define PAUSE_FIRST_MS   UINT64_C(10)
#define PAUSE_MAX_MS     UINT64_C(500)

#define WAIT_NS_IN_MS    UINT64_C(1000000)
#define WAIT_PACE        16u
#define WAIT_PACE_MAX_NS UINT64_C(5000000000)

static void wait_on_timer(uv_timer_t *timer);

/* Lets the timer run to the nearest end. */
static void wait_start(tqi_simple *simple)
{
    if (simple->waits.top != NULL) {
        uint64_t now = tqi_now(), next = simple->waits.top->key;
        uv_timer_start(&simple->wait_timer, wait_on_timer, (next > now ? next - now : 0) / WAIT_NS_IN_MS + 1, 0);
    }
}

static void wait_until(tqi_simple *simple, uint64_t due, tqi_simple_pending *wait)
{
    wait->simple = simple;
    tqi_heap_add(&simple->waits, &wait->timed, due);
    if (simple->waits.top == &wait->timed) {
        wait_start(simple);
    }
}

static void wait_untimed(tqi_simple_pending *wait)
{
    if (wait->simple != NULL) {
        tqi_heap_remove(&wait->simple->waits, &wait->timed);
    }
}

static void wait_unlisted(tqi_simple_pending *wait)
{
    if (wait->row != NULL) {
        DL_DELETE(*wait->row, wait);
        wait->row = NULL;
    }
}

static void wait_out(tqi_simple_pending *wait)
{
    wait_untimed(wait);
    wait_unlisted(wait);
}

static void wait_on_timer(uv_timer_t *timer)
{
    tqi_simple *simple = timer->data;
    uint64_t now = tqi_now();
    tqi_simple_pending *due = NULL, *wait;

    /* All of them first: their callbacks begin new waits. */
    while (simple->waits.top != NULL && simple->waits.top->key <= now) {
        wait = TQI_HEAP_ENTRY(simple->waits.top, tqi_simple_pending, timed);
        tqi_heap_remove(&simple->waits, &wait->timed);
        wait_unlisted(wait);
        DL_APPEND(due, wait);
        wait->row = &due; /* another one's callback may cancel it */
    }
    while (due != NULL) {
        wait = due;
        wait_out(wait);
        if (wait->what != NULL) {
            tq_error err = {0};
            tqi_error_set(&err, TQ_ETIMEDOUT, "the deadline passed before %s", wait->what);
            wait->fn(wait, &err);
        } else {
            wait->fn(wait, NULL);
        }
    }
    wait_start(simple);
}

/* --- rows ----------------------------------------------------------------- */

void tqi_simple_wait_in(tqi_simple *simple, tqi_simple_pending **row, const char *what, uint64_t deadline,
                        tqi_simple_pending *wait)
{
    DL_APPEND(*row, wait);
    wait->row = row;
    wait->what = what;
    if (deadline != TQI_NEVER) {
        wait_until(simple, deadline, wait);
    }
}

void tqi_simple_wait_end(tqi_simple_pending **row, const tq_error *err)
{
    tqi_simple_pending *list = *row, *wait;

    *row = NULL; /* a callback may wait again, in a new list */
    DL_FOREACH (list, wait) {
        wait->row = &list;
    }
    while (list != NULL) {
        wait = list;
        wait_out(wait);
        wait->fn(wait, err);
    }
}

bool tqi_simple_wait_leave(tqi_simple_pending *wait)
{
    bool waits = wait->row != NULL || tqi_heap_has(&wait->timed);

    wait_out(wait);
    return waits;
}

/* --- pauses --------------------------------------------------------------- */

static const tq_error *pause_closed(tq_error *err)
{
    tqi_error_set(err, TQ_ECLOSED, "the client is closed: open another one");
    return err;
}

void tqi_simple_pause(tqi_simple *simple, unsigned k, uint64_t deadline, tqi_simple_pending *wait)
{
    uint64_t ms = k < 6 ? PAUSE_FIRST_MS << k : PAUSE_MAX_MS;
    uint64_t due = tqi_now() + ms * WAIT_NS_IN_MS;

    if (simple->stopped) {
        tq_error err = {0};
        wait->fn(wait, pause_closed(&err));
        return;
    }
    wait->what = NULL;
    wait_until(simple, due < deadline ? due : deadline, wait);
}

void tqi_simple_stop(void *state)
{
    tqi_simple *simple = state;
    tqi_simple_pending *pauses = NULL, *wait;
    tq_error err = {0};

    simple->stopped = true;
    uv_timer_stop(&simple->wait_timer);
    while (simple->waits.top != NULL) {
        wait = TQI_HEAP_ENTRY(simple->waits.top, tqi_simple_pending, timed);
        wait_untimed(wait);
        if (wait->row == NULL) {
            DL_APPEND(pauses, wait);
            wait->row = &pauses;
        }
    }
    tqi_simple_wait_end(&pauses, pause_closed(&err));
}

/* --- times ---------------------------------------------------------------- */

uint64_t tqi_simple_try(unsigned k, uint64_t bytes, uint64_t deadline)
{
    /* 2 s, 4 s, 8 s, ...; and time for the bytes on a slow link (50 MB/s). */
    double seconds = 2.0 * (double)(1u << (k < 10 ? k : 10)) + (double)bytes / 5e7;
    uint64_t end = tqi_deadline(seconds);

    return end < deadline ? end : deadline;
}

void tqi_simple_took(tqi_simple *simple, uint64_t asked_at)
{
    uint64_t took = tqi_now() - asked_at;

    took = took < TQI_SIMPLE_ANSWER_MAX_NS ? took : TQI_SIMPLE_ANSWER_MAX_NS;
    simple->answer_ns = took > simple->answer_ns ? took : simple->answer_ns - (simple->answer_ns - took) / 4;
}

uint64_t tqi_simple_pace(const tqi_simple *simple, uint64_t least)
{
    uint64_t pace = WAIT_PACE * simple->answer_ns;

    pace = pace < WAIT_PACE_MAX_NS ? pace : WAIT_PACE_MAX_NS;
    return pace > least ? pace : least;
}
