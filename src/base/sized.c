/*
 * sized.c - see sized.h.
 */
#include "base/sized.h"

#include <string.h>

#include "base/error.h"

#define SIZED_MAX ((size_t)1 << 16)

static size_t sized_of(const void *given)
{
    size_t size;

    memcpy(&size, given, sizeof(size));
    return size;
}

int tqi_sized_check(const char *type, const void *given, size_t size, tq_error *err)
{
    size_t has = sized_of(given);

    /* Not even one member (the size of a pointer, say), or no size that a struct has: it was not set. */
    if (has <= sizeof(has) || has % sizeof(has) != 0 || has > SIZED_MAX) {
        return tqi_error_set(err, TQ_EINVAL,
                             "%s.size is %zu, this library expects %zu: set it to sizeof(%s), or begin with %s_init()",
                             type, has, size, type, type);
    }
    return TQ_OK;
}

void tqi_sized_give(const void *full, void *out)
{
    size_t has = sized_of(full);
    size_t room = sized_of(out);

    memcpy(out, full, has < room ? has : room);
    if (room > has) {
        memset((char *)out + has, 0, room - has);
    }
    memcpy(out, &room, sizeof(room));
}

int tqi_sized_copy(const char *type, const void *given, void *out, size_t size, tq_error *err)
{
    size_t has = sized_of(given);
    int rc = tqi_sized_check(type, given, size, err);

    if (rc != TQ_OK) {
        return rc;
    }
    memcpy(out, given, has < size ? has : size);
    if (has < size) {
        memset((char *)out + has, 0, size - has);
    }
    memcpy(out, &size, sizeof(size));
    for (size_t i = size; i < has; i++) {
        if (((const unsigned char *)given)[i] != 0) {
            return tqi_error_set(
                err, TQ_EINVAL,
                "%s.size is %zu, and byte %zu of it is set; this library knows its first %zu bytes: it "
                "is older than the program, and lacks what the program asks for",
                type, has, i, size);
        }
    }
    return TQ_OK;
}
