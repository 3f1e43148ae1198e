/*
 * name_table.h - finding one of many names: a table made for an array of structs (or of pointers) that hold them.
 *
 * Few names are compared one by one, without a table.
 */
#ifndef TQI_BASE_NAME_TABLE_H
#define TQI_BASE_NAME_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <tq/types.h>

/* n names: their pointers lie `stride` bytes apart, and none is NULL. */
typedef struct tqi_name_array {
    const void *first; /* of the pointers */
    size_t stride;
    size_t n;
} tqi_name_array;

/* Of an array of structs with the member; the array may be NULL when n is 0. */
#define TQI_NAMES(array, member, n) ((tqi_name_array){(n) > 0 ? &(array)->member : NULL, sizeof *(array), (n)})

/* Up to here a search is as fast without a table. */
#define TQI_NAMES_FEW 16u

/* Makes a table of the names, to be freed with free(); NULL: there are only a few, or no memory. */
uint32_t *tqi_name_table(tqi_name_array names);
/* Index of a name, or -1. table: made from the same names, or NULL. */
ptrdiff_t tqi_name_find(tqi_name_array names, const uint32_t *table, const char *name);
/* TQ_EINVAL if one of the names occurs twice. */
int tqi_check_distinct(const char *what, tqi_name_array names, tq_error *err);

#endif
