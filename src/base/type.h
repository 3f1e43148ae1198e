/*
 * type.h - kind and dtype of a row as one number: kind << 16 | bits << 8 | code; never 0.
 */
#ifndef TQI_BASE_TYPE_H
#define TQI_BASE_TYPE_H

#include <stddef.h>

#include <tq/types.h>

static inline uint32_t tqi_type_pack(uint32_t kind, tq_dtype dtype)
{
    return kind << 16 | (uint32_t)dtype.bits << 8 | dtype.code;
}

static inline tq_dtype tqi_type_dtype(uint32_t type)
{
    return (tq_dtype){(uint8_t)(type & 0xffu), (uint8_t)(type >> 8 & 0xffu)};
}

static inline uint8_t tqi_type_kind(uint32_t type)
{
    return (uint8_t)(type >> 16);
}

/* Bytes of one element. */
static inline uint32_t tqi_type_size(uint32_t type)
{
    return (type >> 8 & 0xffu) / 8u;
}

/* Index of a type in a list of *n types. A new one is added: there is room for one type per row. */
static inline uint32_t tqi_type_place(uint32_t *types, size_t *n, uint32_t type)
{
    size_t at = 0;

    while (at < *n && types[at] != type) {
        at++;
    }
    if (at == *n) {
        types[(*n)++] = type;
    }
    return (uint32_t)at;
}

/* Combines the ragged dims of two sets of rows: 0 is neutral, two different dims are TQ_RAGGED_MANY. */
static inline uint8_t tqi_ragged_dim_join(uint8_t one, uint8_t other)
{
    return one == 0 || one == other ? other : other == 0 ? one : TQ_RAGGED_MANY;
}

#endif
