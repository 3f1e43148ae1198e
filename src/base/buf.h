/*
 * buf.h - a growable byte buffer. Zero-initialised is empty.
 */
#ifndef TQI_BASE_BUF_H
#define TQI_BASE_BUF_H

#include <stddef.h>
#include <stdint.h>

typedef struct tqi_buf {
    uint8_t *data;
    size_t size;
    size_t capacity;
} tqi_buf;

void tqi_buf_fini(tqi_buf *buf);
/* Reserves room for `more` bytes after size; TQ_OK or TQ_ENOMEM (buffer unchanged). */
int tqi_buf_reserve(tqi_buf *buf, size_t more);
int tqi_buf_append(tqi_buf *buf, const void *data, size_t size);
/* Appends formatted text; size does not count the terminating 0, but one follows. */
int tqi_buf_printf(tqi_buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Grows an array of `item` bytes each to hold at least `need`: doubles *capacity. TQ_OK or TQ_ENOMEM (unchanged). */
int tqi_grow(void *array_ptr, size_t *capacity, size_t need, size_t item);

#endif
