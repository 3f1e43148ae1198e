/*
 * name_table.c - see name_table.h. Open addressing; a table has at least twice as many slots as names.
 */
#include "base/name_table.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

static const char *name_at(tqi_name_array names, size_t i)
{
    const char *name = NULL;

    memcpy(&name, (const char *)names.first + i * names.stride, sizeof(name));
    return name;
}

/* Places of a table less one. */
static uint32_t name_mask(size_t n)
{
    uint32_t size = 4 * TQI_NAMES_FEW;

    while (size < 2 * n) {
        size *= 2;
    }
    return size - 1;
}

/* FNV-1a. */
static uint32_t name_hash(const char *name)
{
    uint32_t hash = 2166136261u;

    for (; *name; name++) {
        hash = (hash ^ (uint8_t)*name) * 16777619u;
    }
    return hash ^ hash >> 15;
}

/* Where the name is in the table, or belongs. */
static uint32_t name_place(tqi_name_array names, const uint32_t *table, const char *name)
{
    uint32_t mask = name_mask(names.n);
    uint32_t at = name_hash(name) & mask;

    while (table[at] != 0 && strcmp(name_at(names, table[at] - 1), name) != 0) {
        at = (at + 1) & mask;
    }
    return at;
}

/* Fills a table; returns a duplicate name, or NULL. */
static const char *name_fill(tqi_name_array names, uint32_t *table)
{
    const char *twice = NULL;

    for (size_t i = 0; i < names.n; i++) {
        uint32_t at = name_place(names, table, name_at(names, i));
        if (table[at] != 0) {
            twice = name_at(names, i);
        } else {
            table[at] = (uint32_t)i + 1;
        }
    }
    return twice;
}

static uint32_t *name_alloc(tqi_name_array names)
{
    return names.n > TQI_NAMES_FEW && names.n < UINT32_MAX / 4 ? calloc((size_t)name_mask(names.n) + 1, sizeof(uint32_t))
                                                               : NULL;
}

uint32_t *tqi_name_table(tqi_name_array names)
{
    uint32_t *table = name_alloc(names);

    if (table != NULL) {
        name_fill(names, table);
    }
    return table;
}

ptrdiff_t tqi_name_find(tqi_name_array names, const uint32_t *table, const char *name)
{
    if (table != NULL) {
        return (ptrdiff_t)table[name_place(names, table, name)] - 1;
    }
    for (size_t i = 0; i < names.n; i++) {
        if (strcmp(name_at(names, i), name) == 0) {
            return (ptrdiff_t)i;
        }
    }
    return -1;
}

int tqi_check_distinct(const char *what, tqi_name_array names, tq_error *err)
{
    uint32_t *table = name_alloc(names);
    const char *twice = NULL;

    if (table != NULL) {
        twice = name_fill(names, table);
        free(table);
    } else if (names.n > TQI_NAMES_FEW) {
        return tqi_error_nomem(err, what);
    }
    for (size_t i = 1; i < names.n && names.n <= TQI_NAMES_FEW && twice == NULL; i++) {
        tqi_name_array before = {names.first, names.stride, i};
        twice = tqi_name_find(before, NULL, name_at(names, i)) >= 0 ? name_at(names, i) : NULL;
    }
    return twice != NULL ? tqi_error_set(err, TQ_EINVAL, "%s '%s' is given twice", what, twice) : TQ_OK;
}
