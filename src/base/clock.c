/*
 * clock.c - time and randomness from the kernel.
 */
#include "base/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

uint64_t tqi_now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

int64_t tqi_wall_us(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}

const char *tqi_text_time(int64_t us, char *out, size_t size)
{
    time_t seconds = (time_t)(us / 1000000);
    struct tm local;

    if (us <= 0 || localtime_r(&seconds, &local) == NULL || strftime(out, size, "%Y-%m-%d %H:%M:%S", &local) == 0) {
        out[0] = 0;
    }
    return out;
}

uint64_t tqi_deadline(double seconds)
{
    if (!(seconds >= 0)) {
        return TQI_NEVER;
    }
    uint64_t now = tqi_now();
    double ns = seconds * 1e9;
    /* Compared as doubles first: a conversion out of range is undefined. */
    if (ns >= 1.8e19 || (uint64_t)ns >= TQI_NEVER - now) {
        return TQI_NEVER;
    }
    return now + (uint64_t)ns;
}

void tqi_cond_init(pthread_cond_t *cond)
{
    pthread_condattr_t clock;

    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &clock);
    pthread_condattr_destroy(&clock);
}

int tqi_cond_wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t deadline)
{
    struct timespec until = {.tv_sec = (time_t)(deadline / 1000000000u), .tv_nsec = (long)(deadline % 1000000000u)};

    return pthread_cond_timedwait(cond, lock, &until);
}

void tqi_random(void *out, size_t size)
{
    unsigned char *at = out;

    while (size > 0) {
        ssize_t n = getrandom(at, size, 0);
        if (n < 0) {
            if (errno == EINTR) {
                continue;
            }
            abort();
        }
        at += n;
        size -= (size_t)n;
    }
}

uint64_t tqi_random_id(void)
{
    uint64_t id = 0;

    while (id == 0) {
        tqi_random(&id, sizeof(id));
    }
    return id;
}
