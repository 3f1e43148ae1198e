/*
 * fence.h - the fences and the racing copy of the seqlock between a store and its readers.
 *
 * The bytes of a block are plain memory that its owner may reuse while a reader copies: the reader notices by the slot
 * and throws the copy away.  By the letter of C that is a data race, as in every seqlock over bulk data (H. Boehm, "Can
 * seqlocks get along with programming language memory models?", MSPC 2012).  It is harmless here, for the copied
 * bytes are not looked at before the check, and the fences below order the copy against the check.
 *
 * ThreadSanitizer knows no fences and would report the copy.  In its builds the reader's copy is marked with the
 * sanitizer's own annotation for "these reads are meant", and nothing else is: the slot words are atomics, and all other
 * memory of a store is checked in full.
 */
#ifndef TQI_STORE_FENCE_H
#define TQI_STORE_FENCE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include "store/stream.h"

#if defined(__SANITIZE_THREAD__)
#define TQI_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TQI_TSAN 1
#endif
#endif

#ifdef TQI_TSAN
void AnnotateIgnoreReadsBegin(const char *file, int line);
void AnnotateIgnoreReadsEnd(const char *file, int line);
#define TQI_FENCE(order) atomic_signal_fence(order)
#else
#define TQI_FENCE(order) atomic_thread_fence(order)
#endif

static inline void tqi_copy_bytes(void *dest, const void *from, size_t size, bool streaming)
{
    if (streaming) {
        tqi_stream_copy(dest, from, size);
    } else {
        memcpy(dest, from, size);
    }
}

/* Copies bytes that their owner may be changing. */
static inline void tqi_racy_copy(void *dest, const void *from, size_t size, bool streaming)
{
#ifdef TQI_TSAN
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    tqi_copy_bytes(dest, from, size, streaming);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
#else
    tqi_copy_bytes(dest, from, size, streaming);
#endif
}

#endif
