/*
 * types.h - the plain types shared by the user API (tq.h) and the plug-in interfaces (manager.h, sampler.h).
 */
#ifndef TQ_TYPES_H
#define TQ_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <tq/errors.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
/** Marks what libtq and libtqd export; everything else is hidden. */
#define TQ_API __attribute__((visibility("default")))
#else
#define TQ_API
#endif

/** Defines NAME_init(), which returns a struct that is zero except for its size. It suits C++, which has no designated
 * initialisers before C++20, and code that sets the members one by one. */
#define TQ_DEFINE_INIT(name)             \
    static inline name name##_init(void) \
    {                                    \
        name made;                       \
        memset(&made, 0, sizeof(made));  \
        made.size = sizeof(made);        \
        return made;                     \
    }                                    \
    struct tq_needs_semicolon

/** Longest partition, field, task, group, tag, sampler and session name in bytes; none of them may be empty. */
#define TQ_NAME_MAX 1023
/** Longest key of a sample, in bytes; a key must not be empty. */
#define TQ_KEY_MAX 16384
/** Most tags of one sample, and most different tags in one put. */
#define TQ_TAGS_MAX 1024
/** Most dimensions of one row. */
#define TQ_NDIM_MAX 16
/** Value of ragged_dim when rows differ in several dims. */
#define TQ_RAGGED_MANY 255
/** Longest locator of a block, in bytes. */
#define TQ_LOCATOR_MAX 48
/** Most block ids in one grant. */
#define TQ_GRANT_MAX 256
/** No index: no such sample. */
#define TQ_NO_INDEX UINT32_MAX
/** A deadline that never comes, in seconds. */
#define TQ_FOREVER (-1.0)

/** Type codes, with the values of DLPack's DLDataTypeCode. */
enum tq_type_code {
    TQ_INT = 0,              /**< Signed integer. */
    TQ_UINT = 1,             /**< Unsigned integer. */
    TQ_FLOAT = 2,            /**< IEEE float (16, 32, 64 bits). */
    TQ_BFLOAT = 4,           /**< Brain float (16 bits). */
    TQ_COMPLEX = 5,          /**< Complex (64, 128 bits). */
    TQ_BOOL = 6,             /**< Boolean, one byte. */
    TQ_FLOAT8_E4M3FN = 10,   /**< 8-bit float. */
    TQ_FLOAT8_E4M3FNUZ = 11, /**< 8-bit float. */
    TQ_FLOAT8_E5M2 = 12,     /**< 8-bit float. */
    TQ_FLOAT8_E5M2FNUZ = 13, /**< 8-bit float. */
    TQ_FLOAT8_E8M0FNU = 14,  /**< 8-bit exponent-only float. */
    TQ_FLOAT4_E2M1FN = 17    /**< 4-bit floats, two to an element of 8 bits. */
};

/** Type of a tensor's elements, as DLPack writes it; lanes are always 1. */
typedef struct tq_dtype {
    uint8_t code; /**< enum tq_type_code. */
    uint8_t bits; /**< Bits of one element; a multiple of 8. */
} tq_dtype;

/** What the cells of a field are. */
typedef enum tq_kind {
    TQ_TENSOR = 0, /**< A tensor of the field's dtype. */
    TQ_VALUE = 1   /**< Any other value, encoded by the library's user; a row is uint8 bytes. */
} tq_kind;

/** Kind and dtype of one row; they may differ between rows of a field. */
typedef struct tq_type {
    uint8_t kind;   /**< enum tq_kind. */
    tq_dtype dtype; /**< Element type; {TQ_UINT, 8} for values. */
} tq_type;

/** A range of memory that belongs to somebody else. */
typedef struct tq_slice {
    const void *data; /**< May be NULL when size is 0. */
    size_t size;      /**< In bytes. */
} tq_slice;

#ifdef __cplusplus
}
#endif
#endif
