/*
 * clock.h - time and randomness, from the system.
 */
#ifndef TQI_BASE_CLOCK_H
#define TQI_BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

/* Monotonic time in nanoseconds. */
uint64_t tqi_now(void);
/* Unix time in microseconds. */
int64_t tqi_wall_us(void);
/* A deadline never reached. */
#define TQI_NEVER UINT64_MAX
/* now + seconds as a monotonic time; negative seconds: TQI_NEVER.  Saturates. */
uint64_t tqi_deadline(double seconds);
/* Cryptographically random bytes (getrandom); aborts only if the kernel has none. */
void tqi_random(void *out, size_t size);
/* A random number that is not 0: epochs and incarnations. */
uint64_t tqi_random_id(void);

#endif
