/*
 * type.h - what a row is, as one number: kind << 16 | bits << 8 | code; never 0.
 */
#ifndef TQI_BASE_TYPE_H
#define TQI_BASE_TYPE_H

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

#endif
