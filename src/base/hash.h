/*
 * hash.h - hash tables: uthash, with one way to learn that an element was not added.
 *
 * Only this file includes uthash.h and only this file names HASH_ADD; tools/check_includes.py sees to both. Without
 * memory for a table, uthash would end the process, or, with HASH_NONFATAL_OOM, say nothing: TQI_HASH_ADD returns
 * false. The element then belongs to the caller as before, and the table is as it was. HASH_FIND, HASH_DEL, HASH_ITER
 * and HASH_COUNT need no memory, and are used as they are. An element has one handle, `UT_hash_handle hh`.
 */
#ifndef TQI_BASE_HASH_H
#define TQI_BASE_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#define HASH_NONFATAL_OOM 1
#include <uthash.h>

/* Adds `element` under its member `field`, all bytes of it; false if out of memory. */
#define TQI_HASH_ADD(head, field, element)                            \
    __extension__({                                                   \
        HASH_ADD(hh, head, field, sizeof((element)->field), element); \
        TQI_HASH_HAS(element);                                        \
    })

/* Adds `element` under the `size` bytes at `key`, which stay where they are for as long as it is in the table; false
 * if out of memory. */
#define TQI_HASH_ADD_KEYPTR(head, key, size, element)  \
    __extension__({                                    \
        HASH_ADD_KEYPTR(hh, head, key, size, element); \
        TQI_HASH_HAS(element);                         \
    })

/* Whether an element, zero-initialised, was added. HASH_DEL leaves it true. */
#define TQI_HASH_HAS(element) ((element)->hh.tbl != NULL)

#endif
