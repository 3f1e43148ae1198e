/*
 * stream.h - copies that go past the caches.
 *
 * A store to memory that is not in the cache first reads the line that it is about to overwrite: a plain copy of much
 * memory moves three bytes over the memory bus for each byte copied.  Streaming stores move two.  The C library does the
 * same, but only for single copies beyond about the size of the last cache, and a batch is many copies.
 */
#ifndef TQI_STORE_STREAM_H
#define TQI_STORE_STREAM_H

#include <stddef.h>

/* As memcpy, for bytes that nobody is going to read soon (there are so many that the first ones would have left the cache
 * before the last ones are copied).  Complete when it returns: what is stored afterwards is seen afterwards. */
void tqi_stream_copy(void *dest, const void *from, size_t size);

#endif
