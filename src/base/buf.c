/*
 * buf.c - a growable byte buffer and growable arrays.
 */
#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tq/errors.h>

int tqi_grow(void *array_ptr, size_t *capacity, size_t need, size_t item)
{
    if (need <= *capacity) {
        return TQ_OK;
    }
    size_t next = *capacity ? *capacity : 8;
    while (next < need) {
        if (next > SIZE_MAX / 2) {
            return TQ_ENOMEM;
        }
        next *= 2;
    }
    if (next > PTRDIFF_MAX / item) {
        return TQ_ENOMEM;
    }
    void *old;
    memcpy(&old, array_ptr, sizeof(old));
    void *grown = realloc(old, next * item);
    if (grown == NULL) {
        return TQ_ENOMEM;
    }
    memcpy(array_ptr, &grown, sizeof(grown));
    *capacity = next;
    return TQ_OK;
}

void tqi_buf_fini(tqi_buf *buf)
{
    free(buf->data);
    memset(buf, 0, sizeof(*buf));
}

int tqi_buf_reserve(tqi_buf *buf, size_t more)
{
    if (more > PTRDIFF_MAX - buf->size) {
        return TQ_ENOMEM;
    }
    return tqi_grow(&buf->data, &buf->capacity, buf->size + more, 1);
}

int tqi_buf_append(tqi_buf *buf, const void *data, size_t size)
{
    int rc = tqi_buf_reserve(buf, size);

    if (rc == TQ_OK && size > 0) {
        memcpy(buf->data + buf->size, data, size);
        buf->size += size;
    }
    return rc;
}

int tqi_buf_printf(tqi_buf *buf, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0) {
        return TQ_EINVAL;
    }
    int rc = tqi_buf_reserve(buf, (size_t)n + 1);
    if (rc != TQ_OK) {
        return rc;
    }
    va_start(args, format);
    vsnprintf((char *)buf->data + buf->size, (size_t)n + 1, format, args);
    va_end(args);
    buf->size += (size_t)n;
    return TQ_OK;
}
