/*
 * tlsf.c - two-level segregated fit (see tlsf.h).
 */
#include "store/tlsf.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

#include <tq/errors.h>

#define TLSF_STEPS_LOG 5
/* Chunks of the size's own class that are examined before untouched memory is taken. */
#define TLSF_LOOK 16

static void tlsf_class(uint64_t size, uint32_t *first, uint32_t *step)
{
    uint64_t units = size / TQI_STORE_TLSF_UNIT;

    if (units < TQI_STORE_TLSF_STEPS) {
        *first = 0;
        *step = (uint32_t)units;
        return;
    }
    uint32_t log = 63u - (uint32_t)__builtin_clzll(units);
    *first = log - TLSF_STEPS_LOG + 1;
    *step = (uint32_t)(units >> (log - TLSF_STEPS_LOG)) - TQI_STORE_TLSF_STEPS;
}

/* Smallest class whose chunks all hold `size` bytes. */
static void tlsf_class_above(uint64_t size, uint32_t *first, uint32_t *step)
{
    uint64_t units = size / TQI_STORE_TLSF_UNIT;

    if (units >= TQI_STORE_TLSF_STEPS) {
        uint32_t log = 63u - (uint32_t)__builtin_clzll(units);
        units += (UINT64_C(1) << (log - TLSF_STEPS_LOG)) - 1;
    }
    tlsf_class(units * TQI_STORE_TLSF_UNIT, first, step);
}

uint64_t tqi_store_tlsf_round(uint64_t size)
{
    if (size > (UINT64_C(1) << 56)) {
        return UINT64_MAX;
    }
    if (size == 0) {
        size = 1;
    }
    return (size + TQI_STORE_TLSF_UNIT - 1) / TQI_STORE_TLSF_UNIT * TQI_STORE_TLSF_UNIT;
}

/* Makes sure that one more record can be taken without failing. */
static int tlsf_prepare(tqi_store_tlsf *tlsf)
{
    if (tlsf->spare != TQI_STORE_TLSF_NONE || tlsf->n_chunks < tlsf->capacity) {
        return TQ_OK;
    }
    if (tlsf->n_chunks == TQI_STORE_TLSF_NONE) {
        return TQ_ENOMEM;
    }
    return tqi_grow(&tlsf->chunks, &tlsf->capacity, (size_t)tlsf->n_chunks + 1, sizeof(tqi_store_chunk));
}

static uint32_t tlsf_record(tqi_store_tlsf *tlsf)
{
    uint32_t at = tlsf->spare;

    if (at != TQI_STORE_TLSF_NONE) {
        tlsf->spare = tlsf->chunks[at].next;
    } else {
        at = tlsf->n_chunks++;
    }
    memset(&tlsf->chunks[at], 0, sizeof(tqi_store_chunk));
    tlsf->chunks[at].prev = TQI_STORE_TLSF_NONE;
    tlsf->chunks[at].next = TQI_STORE_TLSF_NONE;
    return at;
}

static void tlsf_record_free(tqi_store_tlsf *tlsf, uint32_t at)
{
    tlsf->chunks[at].size = 0;
    tlsf->chunks[at].next = tlsf->spare;
    tlsf->spare = at;
}

static void tlsf_link(tqi_store_tlsf *tlsf, uint32_t at)
{
    tqi_store_chunk *chunk = &tlsf->chunks[at];
    uint32_t first, step;

    tlsf_class(chunk->size, &first, &step);
    uint32_t head = tlsf->heads[first][step];
    chunk->prev = TQI_STORE_TLSF_NONE;
    chunk->next = head;
    if (head == TQI_STORE_TLSF_NONE || chunk->offset < tlsf->chunks[head].offset) {
        if (head != TQI_STORE_TLSF_NONE) {
            tlsf->chunks[head].prev = at;
        }
        tlsf->heads[first][step] = at;
    } else {
        chunk->prev = head;
        chunk->next = tlsf->chunks[head].next;
        tlsf->chunks[head].next = at;
        if (chunk->next != TQI_STORE_TLSF_NONE) {
            tlsf->chunks[chunk->next].prev = at;
        }
    }
    tlsf->second_level[first] |= 1u << step;
    tlsf->first_level |= UINT64_C(1) << first;
}

static void tlsf_unlink(tqi_store_tlsf *tlsf, uint32_t at)
{
    tqi_store_chunk *chunk = &tlsf->chunks[at];
    uint32_t first, step;

    tlsf_class(chunk->size, &first, &step);
    if (chunk->next != TQI_STORE_TLSF_NONE) {
        tlsf->chunks[chunk->next].prev = chunk->prev;
    }
    if (chunk->prev != TQI_STORE_TLSF_NONE) {
        tlsf->chunks[chunk->prev].next = chunk->next;
    } else {
        tlsf->heads[first][step] = chunk->next;
        if (chunk->next == TQI_STORE_TLSF_NONE) {
            tlsf->second_level[first] &= ~(1u << step);
            if (tlsf->second_level[first] == 0) {
                tlsf->first_level &= ~(UINT64_C(1) << first);
            }
        }
    }
    chunk->prev = TQI_STORE_TLSF_NONE;
    chunk->next = TQI_STORE_TLSF_NONE;
}

int tqi_store_tlsf_init(tqi_store_tlsf *tlsf, uint64_t capacity)
{
    memset(tlsf, 0, sizeof(*tlsf));
    memset(tlsf->heads, 0xff, sizeof(tlsf->heads));
    tlsf->spare = TQI_STORE_TLSF_NONE;
    if (tlsf_prepare(tlsf) != TQ_OK) {
        return TQ_ENOMEM;
    }
    tlsf->top = tlsf_record(tlsf);
    tlsf->first = tlsf->top;
    tlsf->chunks[tlsf->top].size = capacity;
    tlsf->chunks[tlsf->top].before = TQI_STORE_TLSF_NONE;
    tlsf->chunks[tlsf->top].after = TQI_STORE_TLSF_NONE;
    return TQ_OK;
}

void tqi_store_tlsf_fini(tqi_store_tlsf *tlsf)
{
    free(tlsf->chunks);
    memset(tlsf, 0, sizeof(*tlsf));
}

/* A chunk of a class that surely fits, or NONE. */
static uint32_t tlsf_find_above(const tqi_store_tlsf *tlsf, uint64_t size)
{
    uint32_t first, step;

    tlsf_class_above(size, &first, &step);
    if (first >= TQI_STORE_TLSF_FIRST) {
        return TQI_STORE_TLSF_NONE;
    }
    uint32_t steps = tlsf->second_level[first] & (~0u << step);
    if (steps == 0) {
        uint64_t firsts = first + 1 < 64 ? tlsf->first_level & (~UINT64_C(0) << (first + 1)) : 0;
        if (firsts == 0) {
            return TQI_STORE_TLSF_NONE;
        }
        first = (uint32_t)__builtin_ctzll(firsts);
        steps = tlsf->second_level[first];
    }
    return tlsf->heads[first][__builtin_ctz(steps)];
}

/* A chunk of the size's own class that happens to be large enough, examining at most `limit` of them. */
static uint32_t tlsf_find_own(const tqi_store_tlsf *tlsf, uint64_t size, uint32_t limit)
{
    uint32_t first, step;

    tlsf_class(size, &first, &step);
    uint32_t at = tlsf->heads[first][step];
    while (at != TQI_STORE_TLSF_NONE && limit-- > 0) {
        if (tlsf->chunks[at].size >= size) {
            return at;
        }
        at = tlsf->chunks[at].next;
    }
    return TQI_STORE_TLSF_NONE;
}

/* Cuts `size` bytes from the low side of a chunk that is in no list; the record `at` keeps the high side, and the
 * returned new record is the low side. */
static uint32_t tlsf_cut(tqi_store_tlsf *tlsf, uint32_t at, uint64_t size)
{
    uint32_t low = tlsf_record(tlsf);
    tqi_store_chunk *chunk = &tlsf->chunks[at];
    tqi_store_chunk *cut = &tlsf->chunks[low];

    cut->offset = chunk->offset;
    cut->size = size;
    cut->before = chunk->before;
    cut->after = at;
    if (cut->before != TQI_STORE_TLSF_NONE) {
        tlsf->chunks[cut->before].after = low;
    } else {
        tlsf->first = low;
    }
    chunk->before = low;
    chunk->offset += size;
    chunk->size -= size;
    chunk->warm -= chunk->warm < size ? chunk->warm : size;
    return low;
}

int tqi_store_tlsf_take(tqi_store_tlsf *tlsf, uint64_t size, uint32_t *chunk)
{
    uint64_t need = tqi_store_tlsf_round(size);

    if (need == UINT64_MAX) {
        return TQ_EFULL;
    }
    if (tlsf_prepare(tlsf) != TQ_OK) {
        return TQ_ENOMEM;
    }
    uint32_t at = tlsf_find_own(tlsf, need, TLSF_LOOK);
    if (at == TQI_STORE_TLSF_NONE) {
        at = tlsf_find_above(tlsf, need);
    }
    if (at == TQI_STORE_TLSF_NONE && tlsf->chunks[tlsf->top].size >= need) {
        at = tlsf->top;
    }
    if (at == TQI_STORE_TLSF_NONE) {
        at = tlsf_find_own(tlsf, need, UINT32_MAX);
    }
    if (at == TQI_STORE_TLSF_NONE) {
        return TQ_EFULL;
    }
    if (at == tlsf->top) {
        at = tlsf_cut(tlsf, at, need);
    } else {
        tlsf_unlink(tlsf, at);
        if (tlsf->chunks[at].size > need) {
            uint32_t rest = at;
            at = tlsf_cut(tlsf, rest, need);
            tlsf_link(tlsf, rest);
        }
    }
    tlsf->chunks[at].used = true;
    *chunk = at;
    return TQ_OK;
}

/* Merges the chunk after `at` into it. */
static void tlsf_join(tqi_store_tlsf *tlsf, uint32_t at)
{
    uint32_t behind = tlsf->chunks[at].after;
    uint32_t after = tlsf->chunks[behind].after;

    if (tlsf->chunks[behind].warm > 0) {
        tlsf->chunks[at].warm = tlsf->chunks[at].size + tlsf->chunks[behind].warm;
    }
    tlsf->chunks[at].size += tlsf->chunks[behind].size;
    tlsf->chunks[at].after = after;
    if (after != TQI_STORE_TLSF_NONE) {
        tlsf->chunks[after].before = at;
    }
    if (behind == tlsf->top) {
        tlsf->top = at;
    }
    tlsf_record_free(tlsf, behind);
}

void tqi_store_tlsf_give(tqi_store_tlsf *tlsf, uint32_t chunk)
{
    uint32_t at = chunk;

    tlsf->chunks[at].used = false;
    tlsf->chunks[at].warm = tlsf->chunks[at].size;
    uint32_t after = tlsf->chunks[at].after;
    if (after != TQI_STORE_TLSF_NONE && !tlsf->chunks[after].used) {
        if (after != tlsf->top) {
            tlsf_unlink(tlsf, after);
        }
        tlsf_join(tlsf, at);
    }
    uint32_t before = tlsf->chunks[at].before;
    if (before != TQI_STORE_TLSF_NONE && !tlsf->chunks[before].used) {
        tlsf_unlink(tlsf, before);
        tlsf_join(tlsf, before);
        at = before;
    }
    if (at != tlsf->top) {
        tlsf_link(tlsf, at);
    }
}

uint64_t tqi_store_tlsf_top(const tqi_store_tlsf *tlsf)
{
    return tlsf->chunks[tlsf->top].offset;
}

/* Whether `at` is in the list of its class. */
static bool tlsf_listed(const tqi_store_tlsf *tlsf, uint32_t at)
{
    uint32_t first, step;

    tlsf_class(tlsf->chunks[at].size, &first, &step);
    if (!(tlsf->first_level >> first & 1) || !(tlsf->second_level[first] >> step & 1)) {
        return false;
    }
    uint32_t prev = TQI_STORE_TLSF_NONE;
    for (uint32_t i = tlsf->heads[first][step]; i != TQI_STORE_TLSF_NONE; i = tlsf->chunks[i].next) {
        if (tlsf->chunks[i].prev != prev) {
            return false;
        }
        if (i == at) {
            return true;
        }
        prev = i;
    }
    return false;
}

bool tqi_store_tlsf_check(const tqi_store_tlsf *tlsf, uint64_t *used)
{
    uint64_t offset = 0;
    uint32_t before = TQI_STORE_TLSF_NONE;
    bool before_free = false;

    *used = 0;
    for (uint32_t at = tlsf->first; at != TQI_STORE_TLSF_NONE; at = tlsf->chunks[at].after) {
        const tqi_store_chunk *chunk = &tlsf->chunks[at];
        if (chunk->offset != offset || chunk->before != before || chunk->size % TQI_STORE_TLSF_UNIT != 0) {
            return false;
        }
        if (chunk->used) {
            *used += chunk->size;
        } else if (before_free) {
            return false;
        } else if (at != tlsf->top && !tlsf_listed(tlsf, at)) {
            return false;
        }
        if (chunk->after == TQI_STORE_TLSF_NONE && at != tlsf->top) {
            return false;
        }
        before_free = !chunk->used;
        before = at;
        offset += chunk->size;
    }
    return true;
}
