/*
 * tlsf.h - which bytes of an arena are free: two-level segregated fit, with its records outside the arena.
 *
 * M. Masmano, I. Ripoll, A. Crespo, J. Real: "TLSF: a new dynamic memory allocator for real-time systems", ECRTS 2004:
 * free chunks are kept in lists by size class (a power of two, split into 32 linear steps), and two levels of bitmaps
 * find a class that surely fits in constant time. Three things differ from the paper:
 *
 *   - Chunk records lie in an array of this process, not in front of the chunks: clients can write the arena, so the
 *     arena must not hold anything that its owner trusts.
 *   - The free end of the arena (the top) is in no list and is used last, from its low side; in a list, the chunk with
 *     the lowest address seen is kept at the front. That way, memory whose pages already exist is reused.
 *   - When no class that surely fits has a chunk, the list of the size's own class is searched: a full store must not
 *     be called full while a chunk fits.
 *
 * It works on offsets only and never touches memory.
 */
#ifndef TQI_STORE_TLSF_H
#define TQI_STORE_TLSF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Alignment and smallest size of a chunk: a cache line. */
#define TQI_STORE_TLSF_UNIT  64u
#define TQI_STORE_TLSF_FIRST 56
#define TQI_STORE_TLSF_STEPS 32
/* No chunk. */
#define TQI_STORE_TLSF_NONE UINT32_MAX

/* A stretch of the arena. Neighbours and list links are indexes into the array of chunks. */
typedef struct tqi_store_chunk {
    uint64_t offset;
    uint64_t size;
    uint32_t before; /* neighbour at the lower address */
    uint32_t after;
    uint32_t prev; /* in its free list */
    uint32_t next;
    uint64_t warm; /* while free: no page is left after this many of its bytes; not kept for the top */
    bool used;
} tqi_store_chunk;

typedef struct tqi_store_tlsf {
    tqi_store_chunk *chunks;
    size_t capacity;      /* of chunks */
    uint32_t n_chunks;    /* records ever made */
    uint32_t spare;       /* list of unused records, by next */
    uint32_t top;         /* the free end; may be of size 0 */
    uint32_t first;       /* the chunk at offset 0 */
    uint64_t first_level; /* bit: some step of it has a chunk */
    uint32_t second_level[TQI_STORE_TLSF_FIRST];
    uint32_t heads[TQI_STORE_TLSF_FIRST][TQI_STORE_TLSF_STEPS];
} tqi_store_tlsf;

/* Size that a block of that many bytes takes; UINT64_MAX if it exceeds any arena. */
uint64_t tqi_store_tlsf_round(uint64_t size);
/* An arena of `capacity` bytes (a multiple of the unit), all free. TQ_OK or TQ_ENOMEM. */
int tqi_store_tlsf_init(tqi_store_tlsf *tlsf, uint64_t capacity);
void tqi_store_tlsf_fini(tqi_store_tlsf *tlsf);
/* Takes a chunk of at least `size` bytes. TQ_OK, TQ_EFULL or TQ_ENOMEM. */
int tqi_store_tlsf_take(tqi_store_tlsf *tlsf, uint64_t size, uint32_t *chunk);
/* Frees it and merges it with its free neighbours. */
void tqi_store_tlsf_give(tqi_store_tlsf *tlsf, uint32_t chunk);
/* Where the free end begins. */
uint64_t tqi_store_tlsf_top(const tqi_store_tlsf *tlsf);
/* Checks every link and class, for tests; false when something is wrong. */
bool tqi_store_tlsf_check(const tqi_store_tlsf *tlsf, uint64_t *used);

#endif
