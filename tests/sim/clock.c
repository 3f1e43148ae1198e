/*
 * clock.c - the clocks of simulated processes, what sleeps by them, and random numbers: see thread.h.
 */
#include "thread.h"

#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "scheduler.h"

/* 2026-01-01, the wall clock at the start of a seed. */
#define CLOCK_EPOCH_US INT64_C(1767225600000000)

uint64_t sim_clock(const sim_process *process, uint64_t time)
{
    return process->clock_offset + time + (uint64_t)((__int128)time * process->clock_rate / 1000000);
}

uint64_t sim_clock_reaches(const sim_process *process, uint64_t clock)
{
    if (clock == SIM_NEVER || clock <= process->clock_offset) {
        return clock == SIM_NEVER ? SIM_NEVER : 0;
    }
    unsigned __int128 passed = (unsigned __int128)(clock - process->clock_offset) * 1000000;
    uint64_t time = (uint64_t)(passed / (uint64_t)(1000000 + process->clock_rate));

    while (sim_clock(process, time) < clock) {
        time++;
    }
    return time;
}

int64_t sim_wall(const sim_process *process)
{
    return CLOCK_EPOCH_US + (int64_t)(sim_time() / 1000) + process->wall_offset;
}

static void clock_timespec(struct timespec *ts, uint64_t ns)
{
    ts->tv_sec = (time_t)(ns / SIM_S);
    ts->tv_nsec = (long)(ns % SIM_S);
}

int __wrap_clock_gettime(clockid_t clock, struct timespec *ts);
int __real_clock_gettime(clockid_t clock, struct timespec *ts);
int __wrap_clock_gettime(clockid_t clock, struct timespec *ts)
{
    if (sim_self == NULL) {
        clock_timespec(ts, sim_time());
        return 0;
    }
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) {
        clock_timespec(ts, (uint64_t)sim_wall(sim_self) * 1000);
    } else {
        clock_timespec(ts, sim_clock(sim_self, sim_time()));
    }
    return 0;
}

static sim_chance *clock_random(void)
{
    return &sim_scheduler.chance;
}

ssize_t __wrap_getrandom(void *out, size_t size, unsigned flags);
ssize_t __wrap_getrandom(void *out, size_t size, unsigned flags)
{
    uint8_t *at = out;

    (void)flags;
    for (size_t i = 0; i < size; i += 8) {
        uint64_t bits = sim_next(clock_random());
        memcpy(at + i, &bits, size - i < 8 ? size - i : 8);
    }
    return (ssize_t)size;
}

int __wrap_nanosleep(const struct timespec *wanted, struct timespec *left);
int __wrap_nanosleep(const struct timespec *wanted, struct timespec *left)
{
    uint64_t until = sim_clock_reaches(sim_self, sim_clock(sim_self, sim_time()) + (uint64_t)wanted->tv_sec * SIM_S +
                                                     (uint64_t)wanted->tv_nsec);

    (void)left;
    while (sim_time() < until) {
        sim_sleep(until);
    }
    return 0;
}

int __wrap_usleep(useconds_t us);
int __wrap_usleep(useconds_t us)
{
    struct timespec wanted = {.tv_sec = us / 1000000, .tv_nsec = (long)(us % 1000000) * 1000};

    return __wrap_nanosleep(&wanted, NULL);
}

int __wrap_sched_yield(void);
int __wrap_sched_yield(void)
{
    sim_point();
    /* A spinning thread reads the clock, so time must pass. */
    sim_pass(200 + sim_below(clock_random(), 2000));
    return 0;
}
