/*
 * memory.h - what the files about memory share: heap.c, memory.c, stack.c, shared.c, image.c.
 */
#ifndef TQ_SIM_MEMORY_H
#define TQ_SIM_MEMORY_H

#include "sim.h"

/* Reserves [base, base + bytes), which is zero and takes memory only where it is touched. Ends the program if something
 * else is there. */
void *memory_region(uint64_t base, uint64_t bytes);
/* Where an address of code is, for addr2line: "program+0x12345". One text at a time. */
const char *memory_place(const void *code);

/* Calls fn for each range of the product's static data that is in place. */
void memory_statics(void (*fn)(const void *at, size_t size, void *arg), void *arg);
/* Whether an allocation of the running process fails here. */
bool memory_fails(void);

void __wrap_free(void *memory);
size_t __wrap_malloc_usable_size(void *memory);

#endif
