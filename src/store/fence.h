/*
 * fence.h - the racing copy of the seqlock between a store and its readers (base/fence.h says why it may race).
 *
 * The bytes of a block are plain memory that its owner may reuse while a reader copies: the reader detects this by the
 * slot and discards the copy. The slot words are atomics, and all other memory of a store is checked completely.
 */
#ifndef TQI_STORE_FENCE_H
#define TQI_STORE_FENCE_H

#include <stdbool.h>
#include <string.h>

#include "base/fence.h"
#include "store/stream.h"

static inline void tqi_store_copy_bytes(void *dest, const void *from, size_t size, bool streaming)
{
    if (streaming) {
        tqi_store_stream_copy(dest, from, size);
    } else {
        memcpy(dest, from, size);
    }
}

/* Copies bytes that the owner may be changing. */
static inline void tqi_store_racy_copy(void *dest, const void *from, size_t size, bool streaming)
{
    TQI_RACY_BEGIN();
    tqi_store_copy_bytes(dest, from, size, streaming);
    TQI_RACY_END();
}

#endif
