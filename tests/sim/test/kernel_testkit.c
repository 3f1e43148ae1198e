/*
 * kernel_testkit.c - what the simulation's kernel needs of the program, for tests of the kernel alone.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "../marks.h"
#include "../scheduler.h"

void sim_trace(const char *what, uint64_t a, uint64_t b)
{
    (void)what;
    sim_scheduler.hash = sched_mix(sim_scheduler.hash, a * 31 + b);
}

_Noreturn void sim_found(const char *invariant, const char *format, ...)
{
    va_list list;

    sim_self = NULL;
    sim_heap_enter(NULL);
    va_start(list, format);
    fprintf(stderr, "%s: ", invariant);
    vfprintf(stderr, format, list);
    fputs("\n", stderr);
    va_end(list);
    abort();
}

void sim_mark(const char *name)
{
    (void)name;
}

bool sched_may_kill(const sim_process *process)
{
    (void)process;
    return false;
}
