/*
 * clock.h - time and randomness, from the system.
 */
#ifndef TQI_BASE_CLOCK_H
#define TQI_BASE_CLOCK_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

/* Monotonic time in nanoseconds. */
uint64_t tqi_now(void);
/* Unix time in microseconds. */
int64_t tqi_wall_us(void);
/* "2026-11-30 22:10:05", in local time, of a Unix time in microseconds; "" of 0. Returns out. */
const char *tqi_text_time(int64_t us, char *out, size_t size);
/* A deadline never reached. */
#define TQI_NEVER UINT64_MAX
/* now + seconds as a monotonic time; negative seconds: TQI_NEVER. Saturates. */
uint64_t tqi_deadline(double seconds);
/* A condition whose timed waits follow the monotonic clock: a step of the wall clock must not lengthen a wait. Every
 * condition with timed waits is made by this function. */
void tqi_cond_init(pthread_cond_t *cond);
/* Waits until it is signalled or the deadline has passed (ETIMEDOUT); returns what pthread_cond_timedwait does. */
int tqi_cond_wait_until(pthread_cond_t *cond, pthread_mutex_t *lock, uint64_t deadline);
/* Cryptographically random bytes (getrandom); aborts only if the kernel has none. */
void tqi_random(void *out, size_t size);
/* A random non-zero number: for epochs and incarnations. */
uint64_t tqi_random_id(void);

#endif
