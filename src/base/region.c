/*
 * region.c - a bump allocator over doubling chunks of malloc.
 */
#include "base/region.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define REGION_FIRST 1024u
#define REGION_LAST  (1u << 20)
#define REGION_ALIGN 16u

struct tqi_chunk {
    tqi_chunk *next;
    size_t used;
    size_t size;
    size_t pad; /* keeps bytes aligned */
    uint8_t bytes[];
};

void tqi_region_fini(tqi_region *region)
{
    tqi_chunk *chunk = region->chunks;

    while (chunk != NULL) {
        tqi_chunk *next = chunk->next;
        free(chunk);
        chunk = next;
    }
    memset(region, 0, sizeof(*region));
}

static tqi_chunk *region_grow(tqi_region *region, size_t need)
{
    size_t size = region->next ? region->next : REGION_FIRST;
    tqi_chunk *chunk;

    if (need > SIZE_MAX / 2) {
        return NULL;
    }
    if (need > size) {
        size = need;
    }
    chunk = malloc(sizeof(*chunk) + size);
    if (chunk == NULL) {
        return NULL;
    }
    chunk->used = 0;
    chunk->size = size;
    chunk->pad = 0;
    chunk->next = region->chunks;
    region->chunks = chunk;
    if (size < REGION_LAST) {
        region->next = size * 2;
    }
    return chunk;
}

void *tqi_region_array(tqi_region *region, size_t n, size_t item)
{
    size_t bytes;
    tqi_chunk *chunk = region->chunks;
    void *out;

    if (__builtin_mul_overflow(n, item, &bytes) || bytes > SIZE_MAX - REGION_ALIGN) {
        return NULL;
    }
    bytes = (bytes + REGION_ALIGN - 1) & ~(size_t)(REGION_ALIGN - 1);
    if (chunk == NULL || chunk->size - chunk->used < bytes) {
        chunk = region_grow(region, bytes);
        if (chunk == NULL) {
            return NULL;
        }
    }
    out = chunk->bytes + chunk->used;
    chunk->used += bytes;
    return out;
}

void *tqi_region_zero(tqi_region *region, size_t n, size_t item)
{
    void *out = tqi_region_array(region, n, item);

    if (out != NULL && n > 0) {
        memset(out, 0, n * item);
    }
    return out;
}

void *tqi_region_copy(tqi_region *region, const void *data, size_t n, size_t item)
{
    void *out = tqi_region_array(region, n, item);

    if (out != NULL && n > 0) {
        memcpy(out, data, n * item);
    }
    return out;
}

char *tqi_region_string(tqi_region *region, const char *text)
{
    return tqi_region_copy(region, text, strlen(text) + 1, 1);
}

char **tqi_region_strings(tqi_region *region, const char *const *texts, size_t n, char *empty)
{
    char **out = tqi_region_array(region, n, sizeof(*out));

    if (out == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < n; i++) {
        out[i] = empty;
        if (texts[i] != NULL && texts[i][0]) {
            out[i] = tqi_region_string(region, texts[i]);
            if (out[i] == NULL) {
                return NULL;
            }
        }
    }
    return out;
}
