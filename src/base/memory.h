/*
 * memory.h - how much memory this process may use: all of the machine's, or less if its control group limits it.
 */
#ifndef TQI_BASE_MEMORY_H
#define TQI_BASE_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

typedef struct tqi_memory {
    uint64_t bytes;
    bool of_cgroup; /* a limit of the control group; else the machine's memory */
} tqi_memory;

tqi_memory tqi_memory_limit(void);
/* The same for a machine with `machine` bytes of memory whose /proc and /sys lie below `root`. */
tqi_memory tqi_memory_limit_at(const char *root, uint64_t machine);

#endif
