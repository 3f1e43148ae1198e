/*
 * value.h - making and reading encoded values: rows of a TQ_VALUE column, and tags.
 *
 * Each row or tag is exactly one MessagePack value; docs/values.md has the details. The library stores the bytes
 * without inspecting them, but other readers decode them: the Python package, samplers, `tq ls` and `tq get`.
 *
 *   tq_values *texts = tq_values_alloc();
 *   tq_values_str(texts, "hello", 5);
 *   tq_values_str(texts, "world", 5);
 *   tq_column column;
 *   tq_values_column(texts, "text", &column, &err);     two rows, for tq_put_args.columns
 */
#ifndef TQ_VALUE_H
#define TQ_VALUE_H

#include <tq/tq.h>

#ifdef __cplusplus
extern "C" {
#endif

/** A list of values under construction. Not thread-safe. */
typedef struct tq_values tq_values;

/** An empty list; NULL when out of memory. */
TQ_API tq_values *tq_values_alloc(void);
/** Frees it; columns and tags made from it must no longer be in use. NULL is allowed. */
TQ_API void tq_values_free(tq_values *values);
/** Adds null (None). */
TQ_API int tq_values_null(tq_values *values);
/** Adds a truth value. */
TQ_API int tq_values_bool(tq_values *values, bool value);
/** Adds an integer. */
TQ_API int tq_values_int(tq_values *values, int64_t value);
/** Adds an integer that may be above INT64_MAX. */
TQ_API int tq_values_uint(tq_values *values, uint64_t value);
/** Adds a number. */
TQ_API int tq_values_float(tq_values *values, double value);
/** Adds text, which must be UTF-8 (else TQ_EINVAL); it is copied. */
TQ_API int tq_values_str(tq_values *values, const char *text, size_t size);
/** Adds bytes; they are copied. */
TQ_API int tq_values_bytes(tq_values *values, const void *bytes, size_t size);
/** Begins a list: the next n values become its items; the list as a whole is one value. */
TQ_API int tq_values_list(tq_values *values, uint32_t n);
/** Begins a map: the next 2 n values become its keys and values, alternating; the map as a whole is one value. */
TQ_API int tq_values_map(tq_values *values, uint32_t n);
/** Number of complete values. */
TQ_API size_t tq_values_count(const tq_values *values);
/** A column of these values; valid until more are added or they are freed. TQ_EINVAL while a list or map lacks items. */
TQ_API int tq_values_column(tq_values *values, const char *name, tq_column *out, tq_error *err);
/** A tag with these values; valid for as long as a column would be. */
TQ_API int tq_values_tag(tq_values *values, const char *name, tq_tag *out, tq_error *err);

/** What a value is. */
typedef enum tq_value_type {
    TQ_VALUE_NULL = 0,  /**< None. */
    TQ_VALUE_BOOL = 1,  /**< In `boolean`. */
    TQ_VALUE_INT = 2,   /**< In `integer`. */
    TQ_VALUE_UINT = 3,  /**< In `natural`: above INT64_MAX. */
    TQ_VALUE_FLOAT = 4, /**< In `number`. */
    TQ_VALUE_STR = 5,   /**< In `bytes` and `size`: UTF-8, without a closing 0. */
    TQ_VALUE_BYTES = 6, /**< In `bytes` and `size`. */
    TQ_VALUE_LIST = 7,  /**< `items` values follow. */
    TQ_VALUE_MAP = 8,   /**< `items` keys follow, each followed by its value. */
    TQ_VALUE_EXT = 9    /**< An extension type, `ext`, with its payload in `bytes` and `size`. */
} tq_value_type;

/** A decoded value. */
typedef struct tq_value {
    tq_value_type type;   /**< Which of the members below are set. */
    bool boolean;         /**< A truth value. */
    int64_t integer;      /**< An integer. */
    uint64_t natural;     /**< An integer that is not negative. */
    double number;        /**< A number; also set for integers. */
    const uint8_t *bytes; /**< Points into the input. */
    size_t size;          /**< Bytes. */
    size_t items;         /**< Number of items of a list or map. */
    int ext;              /**< Extension type. */
} tq_value;

/** Reads the value at the start of `bytes`. *used (may be NULL) is set to its size; for a list or map, to the size of
 * its header only: its items follow. TQ_EINVAL if the bytes are not an encoded value; the message shows the first
 * few. */
TQ_API int tq_value_read(const void *bytes, size_t size, tq_value *out, size_t *used, tq_error *err);
/** Checks that `bytes` hold exactly one value with all its items; if not, TQ_EINVAL with a message that says what is
 * wrong. */
TQ_API int tq_value_check(const void *bytes, size_t size, tq_error *err);

#ifdef __cplusplus
}
#endif
#endif
