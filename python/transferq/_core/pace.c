/*
 * pace.c - threads that encode and decode beside an event loop release the GIL about once a millisecond.
 *
 * A C function that holds the GIL for long blocks the loop as surely as one that runs in it: CPython asks for the GIL
 * only after its switch interval, and only between bytecodes. A paced thread therefore sleeps briefly now and then, so
 * that a thread waiting for the GIL gets it at once. Other threads never pause here.
 */
#include "core.h"

#include <time.h>

#define PACE_STEPS 1000u            /* small values between two checks of the clock */
#define PACE_NS    UINT64_C(700000) /* how long the GIL is held */
#define PACE_NAP   20000L           /* how long it is released; the kernel adds its slack */

static _Thread_local bool pace_on;
static _Thread_local size_t pace_steps;
static _Thread_local uint64_t pace_since;

static uint64_t pace_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

PyObject *core_pace(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    pace_on = true;
    pace_since = pace_now();
    Py_RETURN_NONE;
}

void core_pace_step(size_t steps)
{
    if (!pace_on) {
        return;
    }
    pace_steps += steps;
    if (pace_steps < PACE_STEPS) {
        return;
    }
    pace_steps = 0;
    if (pace_now() - pace_since < PACE_NS) {
        return;
    }
    Py_BEGIN_ALLOW_THREADS
    nanosleep(&(struct timespec){.tv_nsec = PACE_NAP}, NULL);
    Py_END_ALLOW_THREADS
    pace_since = pace_now();
}

PyObject *core_pause(PyObject *Py_UNUSED(module), PyObject *Py_UNUSED(ignored))
{
    core_pace_step(PACE_STEPS);
    Py_RETURN_NONE;
}

void core_copy(void *to, const void *from, size_t size)
{
    if (size < CORE_COPY_ALONE) {
        memcpy(to, from, size);
        return;
    }
    Py_BEGIN_ALLOW_THREADS
    memcpy(to, from, size);
    Py_END_ALLOW_THREADS
}
