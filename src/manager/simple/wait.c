/*
 * wait.c - waiting: rows of those that wait for one thing, pauses between two tries of a unit that cannot be reached,
 * and how long a try may take.
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
#define PAUSE_NS_IN_MS   UINT64_C(1000000)

#define WAIT_PACE        16u
#define WAIT_PACE_MAX_NS UINT64_C(5000000000)

/* --- rows ----------------------------------------------------------------- */

void tqi_simple_wait_end(tqi_simple_pending **row, const tq_error *err)
{
    tqi_simple_pending *list = *row;

    *row = NULL; /* a callback may wait again, in a new list */
    while (list != NULL) {
        tqi_simple_pending *wait = list;
        DL_DELETE(list, wait);
        wait->fn(wait, err);
    }
}

bool tqi_simple_wait_leave(tqi_simple_pending **row, tqi_simple_pending *wait)
{
    tqi_simple_pending *at;

    DL_FOREACH (*row, at) {
        if (at == wait) {
            DL_DELETE(*row, wait);
            return true;
        }
    }
    return false;
}

/* --- pauses --------------------------------------------------------------- */

static void pause_due(uv_timer_t *timer);

/* Lets the timer run to the nearest end. */
static void pause_start(tqi_simple *simple)
{
    uint64_t now = tqi_now(), next = TQI_NEVER;
    tqi_simple_pending *wait;

    DL_FOREACH (simple->pauses, wait) {
        next = wait->due < next ? wait->due : next;
    }
    if (next != TQI_NEVER) {
        uint64_t left = next > now ? next - now : 0;
        uv_timer_start(&simple->pause_timer, pause_due, left / PAUSE_NS_IN_MS + 1, 0);
    }
}

static void pause_due(uv_timer_t *timer)
{
    tqi_simple *simple = timer->data;
    uint64_t now = tqi_now();
    tqi_simple_pending *due = NULL, *wait, *next;

    DL_FOREACH_SAFE (simple->pauses, wait, next) {
        if (wait->due <= now) {
            DL_DELETE(simple->pauses, wait);
            DL_APPEND(due, wait);
        }
    }
    tqi_simple_wait_end(&due, NULL); /* new pauses begin in here */
    pause_start(simple);
}

static const tq_error *pause_closed(tq_error *err)
{
    tqi_error_set(err, TQ_ECLOSED, "the client is closed: open another one");
    return err;
}

void tqi_simple_pause(tqi_simple *simple, unsigned k, uint64_t deadline, tqi_simple_pending *wait)
{
    uint64_t ms = k < 6 ? PAUSE_FIRST_MS << k : PAUSE_MAX_MS;
    uint64_t due = tqi_now() + ms * PAUSE_NS_IN_MS;

    if (simple->stopped) {
        tq_error err = {0};
        wait->fn(wait, pause_closed(&err));
        return;
    }
    wait->due = due < deadline ? due : deadline;
    DL_APPEND(simple->pauses, wait);
    pause_start(simple);
}

void tqi_simple_stop(void *state)
{
    tqi_simple *simple = state;
    tq_error err = {0};

    simple->stopped = true;
    uv_timer_stop(&simple->pause_timer);
    tqi_simple_wait_end(&simple->pauses, pause_closed(&err));
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
