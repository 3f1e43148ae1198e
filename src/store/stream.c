/*
 * stream.c - copies that bypass the caches (see stream.h); plain ones if the processor has no such stores.
 */
#include "store/stream.h"

#include <stdint.h>
#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>

/* A cache line, which streaming stores must fill completely to be fast. */
#define STREAM_LINE 64u
/* Less than this is not worth the fence. */
#define STREAM_MIN 1024u

void tqi_store_stream_copy(void *dest, const void *from, size_t size)
{
    uint8_t *to = dest;
    const uint8_t *at = from;

    if (size < STREAM_MIN) {
        memcpy(dest, from, size);
        return;
    }
    size_t head = (size_t)(-(uintptr_t)to & (STREAM_LINE - 1));
    memcpy(to, at, head);
    to += head;
    at += head;
    size -= head;
    for (; size >= STREAM_LINE; size -= STREAM_LINE) {
        const __m128i *line = (const __m128i *)(const void *)at;
        __m128i a = _mm_loadu_si128(line), b = _mm_loadu_si128(line + 1);
        __m128i c = _mm_loadu_si128(line + 2), d = _mm_loadu_si128(line + 3);
        __m128i *out = (__m128i *)(void *)to;
        _mm_stream_si128(out, a);
        _mm_stream_si128(out + 1, b);
        _mm_stream_si128(out + 2, c);
        _mm_stream_si128(out + 3, d);
        to += STREAM_LINE;
        at += STREAM_LINE;
    }
    /* Streaming stores are not ordered with this thread's other stores. */
    _mm_sfence();
    memcpy(to, at, size);
}

#else

void tqi_store_stream_copy(void *dest, const void *from, size_t size)
{
    memcpy(dest, from, size);
}

#endif
