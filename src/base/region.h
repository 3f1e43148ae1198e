/*
 * region.h - memory that is freed as a whole: everything that belongs to one call, request, meta or result. A bump
 * allocator over chunks that double from 1 KiB to 1 MiB.
 */
#ifndef TQI_BASE_REGION_H
#define TQI_BASE_REGION_H

#include <stddef.h>

typedef struct tqi_chunk tqi_chunk;

/* Zero-initialised is empty; `next` may be set for a larger first chunk. */
typedef struct tqi_region {
    tqi_chunk *chunks;
    size_t next; /* bytes of the next chunk */
} tqi_region;

void tqi_region_fini(tqi_region *region);
/* `n` items of `item` bytes, aligned to 16, not cleared; NULL if out of memory or if the product overflows. A length
 * of 0 gives an address that may not be used. */
void *tqi_region_array(tqi_region *region, size_t n, size_t item);
/* The same, cleared. */
void *tqi_region_zero(tqi_region *region, size_t n, size_t item);
/* A copy; NULL when out of memory. */
void *tqi_region_copy(tqi_region *region, const void *data, size_t n, size_t item);
/* A copy of a string; NULL when out of memory. */
char *tqi_region_string(tqi_region *region, const char *text);
/* Copies of n strings; NULL elements become `empty` ("" or NULL). NULL when out of memory. */
char **tqi_region_strings(tqi_region *region, const char *const *texts, size_t n, char *empty);

#endif
