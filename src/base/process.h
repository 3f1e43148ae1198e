/*
 * process.h - what the kernel knows of this process.
 */
#ifndef TQI_BASE_PROCESS_H
#define TQI_BASE_PROCESS_H

#include <stdint.h>

/* Resident memory in bytes; 0 if unknown. */
uint64_t tqi_process_rss(void);

#endif
