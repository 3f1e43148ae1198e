/*
 * stream.h - copies that bypass the caches.
 *
 * A store to memory that is not in the cache first reads the line that it is about to overwrite: a large plain copy
 * moves three bytes over the memory bus for each byte copied. Streaming stores move two. The C library does the same,
 * but only for single copies larger than about the last-level cache, and a batch is many copies.
 */
#ifndef TQI_STORE_STREAM_H
#define TQI_STORE_STREAM_H

#include <stddef.h>

/* Like memcpy, for bytes that nobody will read soon (so many that the first ones would have left the cache before the
 * last ones are copied). Complete when it returns: later stores become visible later. */
void tqi_store_stream_copy(void *dest, const void *from, size_t size);

#endif
