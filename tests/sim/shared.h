/*
 * shared.h - memory that processes map: what shared.c (memory and memfds), shared_maps.c (mappings) and shared_copy.c
 * (copies in pieces) share.
 *
 * There is one address space, so a shared mapping is the memory itself, at the same address in every process. Private
 * mappings of a memfd are real ones of the file that lies behind all shared memory, at addresses of their own: they
 * show what the others write until the process makes them a copy.
 */
#ifndef TQ_SIM_SHARED_H
#define TQ_SIM_SHARED_H

#include "sim.h"

#define SHARED_PAGE  4096u
#define SHARED_UNIT  (UINT64_C(64) << 10)
#define SHARED_UNITS 65536u /* of a window: 4 GiB */
#define SHARED_BYTES (SHARED_UNIT * SHARED_UNITS)

/* A range of addresses of which the lowest free part is taken. */
typedef struct {
    uint8_t *base;
    uint32_t ever;               /* units from here on were never used */
    uint8_t taken[SHARED_UNITS]; /* units; as many bytes, because few are in use */
} shared_window;

typedef struct {
    uint32_t refs; /* descriptors' files and mappings */
    uint64_t size; /* rounded up to pages */
    uint64_t pages_there;
    uint8_t *at;
    uint8_t *there; /* which pages were made by the kernel, as far as it was told to; a byte each */
} shared_memory;

extern shared_window shared_window_of_memory, shared_window_of_copies;
/* The file behind the first window. */
extern int shared_backing;

/* NULL: no room. Zero. */
shared_memory *shared_memory_make(uint64_t size);
void shared_memory_ref(shared_memory *memory);
void shared_memory_unref(shared_memory *memory);
/* Pages of [offset, offset + size) are there from now on, or are zero and not there. */
void shared_memory_populate(shared_memory *memory, uint64_t offset, uint64_t size);
void shared_memory_punch(shared_memory *memory, uint64_t offset, uint64_t size);

uint8_t *shared_window_take(shared_window *window, uint64_t size, uint64_t align);
void shared_window_give(shared_window *window, const uint8_t *at, uint64_t size);
static inline bool shared_window_has(const shared_window *window, const void *at)
{
    return (uintptr_t)at - (uintptr_t)window->base < SHARED_BYTES && window->base != NULL;
}

/* The memory of a virtual descriptor and whether that allows writing; NULL with errno. */
shared_memory *shared_memory_of(int fd, bool *writable);

/* shared_copy.c: per seed. */
void shared_copy_start(void);

#endif
