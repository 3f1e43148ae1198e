/*
 * meta.h - inside of tq_meta: columns of arrays, one entry per sample.
 *
 * A cell's placement is a block (place in the meta's block table plus 1, or a mark) and a byte offset in it; its size
 * is that of its shape. Metas selected from one another share block tables, so the cost of a small selection depends
 * only on its own size.
 */
#ifndef TQI_CLIENT_META_META_H
#define TQI_CLIENT_META_META_H

#include <stdatomic.h>

#include "base/marks.h"
#include "base/region.h"
#include "wire/methods.h"

#include <tq/manager.h>
#include <tq/tq.h>

/* Blocks; immutable, counted. */
typedef struct tqi_client_meta_blocks {
    _Atomic uint32_t refs;
    tqi_region region;
    tq_block *blocks; /* owner's name lies in the region */
    uint32_t n;
} tqi_client_meta_blocks;

typedef struct tqi_client_cells {
    tq_meta_field pub;
    uint64_t *starts; /* n + 1 places in dims; ragged with shapes only */
    tq_type *types;   /* n, or NULL; pub.types */
    uint32_t *block;  /* n */
    uint64_t *offset; /* n; 0 for marks */
    tq_slice *opaque; /* n, or NULL */
    uint8_t *ready;   /* n; pub.ready */
} tqi_client_cells;

struct tq_meta {
    _Atomic uint32_t refs;
    tqi_region region;
    tqi_client_meta_blocks *blocks; /* may be NULL: no blocks */
    const char *partition;
    uint64_t epoch;
    uint64_t claim;
    size_t n;
    uint32_t *indexes;
    uint32_t *incarnations;
    const char **keys;   /* NULL, or n; elements may be NULL */
    const char **groups; /* NULL, or n; elements may be NULL */
    tqi_client_cells *fields;
    size_t n_fields;
    /* index of the names, if there are many fields; made by the first search */
    _Atomic(uint32_t *) table;
    tq_meta_tag *tags;
    uint64_t **tag_starts; /* per tag: n + 1 places in values */
    size_t n_tags;
};

/* --- meta.c --------------------------------------------------------------- */

tq_meta *tqi_client_meta_alloc(const char *partition, size_t n, size_t n_fields, size_t n_tags);
tqi_client_meta_blocks *tqi_client_meta_blocks_alloc(size_t n);
/* Index of a field in a complete meta, or -1. */
ptrdiff_t tqi_client_meta_find(const tq_meta *meta, const char *field);
/* Whether the shapes of a uniform or ragged field's rows are known. */
bool tqi_client_cells_shaped(const tqi_client_cells *cells);
/* Dims and bytes of a row of a shaped field. */
const uint64_t *tqi_client_cells_dims(const tqi_client_cells *cells, size_t row, uint32_t *ndim);
uint64_t tqi_client_cells_size(const tqi_client_cells *cells, size_t row);
static inline tq_type tqi_client_cells_type(const tqi_client_cells *cells, size_t row)
{
    return cells->types != NULL ? cells->types[row] : (tq_type){(uint8_t)cells->pub.kind, cells->pub.dtype};
}
static inline bool tqi_client_type_same(tq_type a, tq_type b)
{
    return a.kind == b.kind && a.dtype.code == b.dtype.code && a.dtype.bits == b.dtype.bits;
}
/* For n rows with `types`: if all that count agree (tensors without elements do not count), the field gets that one
 * type and its types are dropped. */
void tqi_client_cells_agree(tqi_client_cells *cells, size_t n);
/* Bytes of one row of that shape; false if they overflow. */
bool tqi_client_row_size(tq_dtype dtype, const uint64_t *dims, uint32_t ndim, uint64_t *out);
/* Whether the type code exists and can have that number of bits. */
bool tqi_client_dtype_known(tq_dtype dtype);

/* --- wire.c --------------------------------------------------------------- */

/*
 * Makes a meta from a message, which is checked completely: TQ_EPROTO names what is wrong with it.
 * `packed` allows the marks that only packed metas have. fields_of: where fields, owners and blocks are taken from (a
 * publish has them, its reply does not); NULL: the batch itself.
 */
int tqi_client_meta_decode(const Tq__Batch *batch, const Tq__Batch *fields_of, uint64_t claim, bool packed,
                           tq_meta **out, tq_error *err);
/* Clears that have begun, each with its meta, in an array in the region. Those that were decoded before an error stay
 * in it: the caller unrefs their metas. */
int tqi_client_clearings_decode(Tq__Clearing *const *from, size_t n, tqi_region *region, const tq_clearing ***out,
                                size_t *n_out, tq_error *err);

#endif
