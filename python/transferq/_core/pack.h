/*
 * pack.h - shared by pack.c (single values) and pack_rows.c (columns of values).
 */
#ifndef CORE_PACK_H
#define CORE_PACK_H

#include "core.h"

#define CORE_PACK_DEPTH 500
#define CORE_PACK_OPEN  16

/* More bytes than this are packed into the library's warm memory, and put directly from it. */
#define CORE_PACK_WARM ((size_t)64 << 10)

/* Memory that is put without a copy, placed before byte `at` of the packed bytes. */
typedef struct core_pack_cut {
    size_t at;
    const void *data;
    size_t size;
} core_pack_cut;

/* Where the lengths of open extensions are written. */
typedef struct core_pack_open {
    size_t at[CORE_PACK_OPEN];
    unsigned n;
} core_pack_open;

typedef struct core_packer {
    char *bytes; /* warm memory if `room` is more than CORE_PACK_WARM */
    size_t size, room;
    core_pack_cut *cuts;
    size_t n_cuts, room_cuts, cut_bytes;
    PyObject *convert, *keep; /* borrowed; keep: NULL if everything is copied */
    size_t row;               /* where the row starts, in bytes of the column */
    core_pack_open open;
    size_t buffers;      /* extensions of type CORE_BUFFER in the row */
    core_pack_open last; /* the extensions open in the last of them */
    size_t last_end, last_cut;
} core_packer;

/* Bytes of the row so far. */
static inline size_t core_pack_at(const core_packer *p)
{
    return p->size + p->cut_bytes - p->row;
}

/* pack.c: appends one value to the packed bytes. */
int core_pack_value(core_packer *p, PyObject *value, unsigned depth);
/* Makes the size of a row with large memory a multiple of CORE_ALIGN, with more zeros after the last memory. */
int core_pack_fill(core_packer *p);
/* Grows the room; false with an exception if there is no memory. */
bool core_pack_grow(core_packer *p, size_t room);
void core_pack_free(core_packer *p);

#endif
