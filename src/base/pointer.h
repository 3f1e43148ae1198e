/*
 * pointer.h - two conversions of pointers that C has no word for.
 */
#ifndef TQI_BASE_POINTER_H
#define TQI_BASE_POINTER_H

#include <stddef.h>
#include <stdint.h>

/* Without const: for interfaces that lack it but do not write, such as protobuf-c's messages and struct iovec, and for
 * what is freed by whoever made it and shows it to others as const. */
static inline void *tqi_unconst(const void *pointer)
{
    return (void *)(uintptr_t)pointer;
}

/* The struct that has `pointer`, not NULL, as its `member`. */
#define TQI_CONTAINER(pointer, type, member) ((type *)(void *)((char *)tqi_unconst(pointer) - offsetof(type, member)))

#endif
