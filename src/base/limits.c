/*
 * limits.c - the limits of this process, and how often each was reached.
 */
#include "base/limits.h"

#include <stdatomic.h>

tqi_limits_table tqi_limits = {
#define LIMITS_DEFAULT(kind, name, value) .name = (value),
    TQI_LIMITS(LIMITS_DEFAULT)
#undef LIMITS_DEFAULT
};

static const char *const limits_names[TQI_LIMIT_NUMBER] = {
#define LIMITS_NAME(kind, name, value) #name,
    TQI_LIMITS(LIMITS_NAME)
#undef LIMITS_NAME
};

/* Counted by loops of several threads, read for people: relaxed. */
static _Atomic uint64_t limits_times[TQI_LIMIT_NUMBER];

void tqi_limit_reached(tqi_limit limit)
{
    atomic_fetch_add_explicit(&limits_times[limit], 1, memory_order_relaxed);
}

uint64_t tqi_limit_times(tqi_limit limit)
{
    return atomic_load_explicit(&limits_times[limit], memory_order_relaxed);
}

const char *tqi_limit_name(tqi_limit limit)
{
    return limits_names[limit];
}
