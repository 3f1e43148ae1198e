/*
 * meta.c - tq_meta: creation, reference counting, access. Immutable once published, so threads share only the count.
 */
#include "client/meta/meta.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/name_table.h"
#include "base/pointer.h"
#include "client/args.h"

/* --- dtypes and shapes ---------------------------------------------------- */

bool tqi_client_dtype_known(tq_dtype dtype)
{
    switch (dtype.code) {
    case TQ_INT:
    case TQ_UINT:
        return dtype.bits == 8 || dtype.bits == 16 || dtype.bits == 32 || dtype.bits == 64;
    case TQ_FLOAT:
        return dtype.bits == 16 || dtype.bits == 32 || dtype.bits == 64 || dtype.bits == 128;
    case TQ_BFLOAT:
        return dtype.bits == 16;
    case TQ_COMPLEX:
        return dtype.bits == 32 || dtype.bits == 64 || dtype.bits == 128;
    case TQ_BOOL:
    case TQ_FLOAT8_E4M3FN:
    case TQ_FLOAT8_E4M3FNUZ:
    case TQ_FLOAT8_E5M2:
    case TQ_FLOAT8_E5M2FNUZ:
    case TQ_FLOAT8_E8M0FNU:
    case TQ_FLOAT4_E2M1FN:
        return dtype.bits == 8;
    default:
        return false;
    }
}

bool tqi_client_row_size(tq_dtype dtype, const uint64_t *dims, uint32_t ndim, uint64_t *out)
{
    uint64_t size = dtype.bits / 8u;
    bool empty = false;

    for (uint32_t i = 0; i < ndim; i++) {
        if (dims[i] == 0) {
            empty = true;
        } else if (__builtin_mul_overflow(size, dims[i], &size)) {
            return false;
        }
    }
    *out = empty ? 0 : size;
    return size <= INT64_MAX;
}

bool tqi_client_cells_shaped(const tqi_client_cells *cells)
{
    return !cells->pub.ragged || cells->pub.ndims != NULL;
}

const uint64_t *tqi_client_cells_dims(const tqi_client_cells *cells, size_t row, uint32_t *ndim)
{
    if (!cells->pub.ragged) {
        *ndim = cells->pub.ndim;
        return cells->pub.shape;
    }
    *ndim = cells->pub.ndims[row];
    return cells->pub.dims + cells->starts[row];
}

uint64_t tqi_client_cells_size(const tqi_client_cells *cells, size_t row)
{
    uint32_t ndim;
    const uint64_t *dims = tqi_client_cells_dims(cells, row, &ndim);
    uint64_t size = 0;

    tqi_client_row_size(tqi_client_cells_type(cells, row).dtype, dims, ndim, &size);
    return size;
}

void tqi_client_cells_agree(tqi_client_cells *cells, size_t n)
{
    ptrdiff_t filled = -1, empty = -1;
    bool agree = true;

    for (size_t i = 0; cells->types != NULL && i < n; i++) {
        tq_type type = cells->types[i];
        if (!cells->ready[i]) {
            continue;
        }
        if (type.kind == TQ_TENSOR && tqi_client_cells_size(cells, i) == 0) {
            empty = empty < 0 ? (ptrdiff_t)i : empty;
            continue;
        }
        filled = filled < 0 ? (ptrdiff_t)i : filled;
        agree = agree && tqi_client_type_same(type, cells->types[filled]);
    }
    agree = agree && (filled < 0 || empty < 0 || cells->types[filled].kind == TQ_TENSOR);
    if (cells->types != NULL && n > 0) {
        tq_type type = cells->types[!agree ? 0 : filled >= 0 ? filled : empty >= 0 ? empty : 0];
        cells->pub.kind = (tq_kind)type.kind;
        cells->pub.dtype = type.dtype;
    }
    cells->types = agree ? NULL : cells->types;
    cells->pub.types = cells->types;
}

/* --- blocks --------------------------------------------------------------- */

static void meta_blocks_unref(tqi_client_meta_blocks *blocks)
{
    if (blocks != NULL && atomic_fetch_sub_explicit(&blocks->refs, 1, memory_order_acq_rel) == 1) {
        tqi_region_fini(&blocks->region);
        free(blocks);
    }
}

tqi_client_meta_blocks *tqi_client_meta_blocks_alloc(size_t n)
{
    tqi_client_meta_blocks *blocks;

    if (n >= TQI_BLOCK_MARKS) {
        return NULL;
    }
    blocks = calloc(1, sizeof(*blocks));
    if (blocks == NULL) {
        return NULL;
    }
    atomic_init(&blocks->refs, 1);
    blocks->n = (uint32_t)n;
    blocks->blocks = tqi_region_zero(&blocks->region, n, sizeof(*blocks->blocks));
    if (blocks->blocks == NULL) {
        meta_blocks_unref(blocks);
        return NULL;
    }
    return blocks;
}

/* --- meta ----------------------------------------------------------------- */

tq_meta *tqi_client_meta_alloc(const char *partition, size_t n, size_t n_fields, size_t n_tags)
{
    tq_meta *meta = calloc(1, sizeof(*meta));

    if (meta == NULL) {
        return NULL;
    }
    atomic_init(&meta->refs, 1);
    meta->n = n;
    meta->n_fields = n_fields;
    meta->n_tags = n_tags;
    meta->partition = tqi_region_string(&meta->region, partition);
    meta->indexes = tqi_region_zero(&meta->region, n, sizeof(*meta->indexes));
    meta->incarnations = tqi_region_zero(&meta->region, n, sizeof(*meta->incarnations));
    meta->fields = tqi_region_zero(&meta->region, n_fields, sizeof(*meta->fields));
    meta->tags = tqi_region_zero(&meta->region, n_tags, sizeof(*meta->tags));
    meta->tag_starts = tqi_region_zero(&meta->region, n_tags, sizeof(*meta->tag_starts));
    if (meta->partition == NULL || meta->indexes == NULL || meta->incarnations == NULL || meta->fields == NULL ||
        meta->tags == NULL || meta->tag_starts == NULL) {
        tq_meta_unref(meta);
        return NULL;
    }
    return meta;
}

tq_meta *tq_meta_ref(const tq_meta *meta)
{
    tq_meta *held = tqi_unconst(meta); /* counted, not changed */

    if (held != NULL) {
        atomic_fetch_add_explicit(&held->refs, 1, memory_order_relaxed);
    }
    return held;
}

void tq_meta_unref(tq_meta *meta)
{
    if (meta != NULL && atomic_fetch_sub_explicit(&meta->refs, 1, memory_order_acq_rel) == 1) {
        meta_blocks_unref(meta->blocks);
        tqi_region_fini(&meta->region);
        free(atomic_load_explicit(&meta->table, memory_order_relaxed));
        free(meta);
    }
}

ptrdiff_t tqi_client_meta_find(const tq_meta *meta, const char *field)
{
    tqi_name_array names = TQI_NAMES(meta->fields, pub.name, meta->n_fields);
    _Atomic(uint32_t *) *kept = (_Atomic(uint32_t *) *)(uintptr_t)&meta->table;
    uint32_t *table = atomic_load_explicit(kept, memory_order_acquire);

    if (table == NULL && meta->n_fields > TQI_NAMES_FEW) {
        /* Other threads may be building it too: the first one is kept. */
        uint32_t *made = tqi_name_table(names);
        if (made != NULL && !atomic_compare_exchange_strong(kept, &table, made)) {
            free(made);
        } else {
            table = made;
        }
    }
    return tqi_name_find(names, table, field);
}

/* A field of which only the name is known. */
static int meta_unknown_field(tq_meta *meta, size_t f, const char *name)
{
    tqi_client_cells *cells = &meta->fields[f];

    cells->pub.name = tqi_region_string(&meta->region, name);
    cells->block = tqi_region_array(&meta->region, meta->n, sizeof(*cells->block));
    cells->offset = tqi_region_zero(&meta->region, meta->n, sizeof(*cells->offset));
    cells->ready = tqi_region_zero(&meta->region, meta->n, 1);
    if (cells->pub.name == NULL || cells->block == NULL || cells->offset == NULL || cells->ready == NULL) {
        return TQ_ENOMEM;
    }
    for (size_t i = 0; i < meta->n; i++) {
        cells->block[i] = TQI_BLOCK_UNKNOWN;
    }
    cells->pub.dtype = (tq_dtype){TQ_UINT, 8};
    cells->pub.ragged = true;
    cells->pub.ready = cells->ready;
    return TQ_OK;
}

int tq_meta_make(const char *partition, const uint32_t *indexes, const uint32_t *incarnations, size_t n,
                 const char *const *fields, size_t n_fields, tq_meta **out, tq_error *err)
{
    tq_meta *meta;
    int rc;

    if (out == NULL) {
        return tqi_error_null(err, "tq_meta_make: out");
    }
    *out = NULL;
    if (partition == NULL) {
        return tqi_error_null(err, "partition");
    }
    rc = tqi_check_name("partition", partition, TQ_NAME_MAX, err);
    rc = rc ? rc : tqi_client_check_array("indexes", indexes, n, err);
    rc = rc ? rc : tqi_client_check_array("fields", fields, n_fields, err);
    for (size_t f = 0; fields != NULL && f < n_fields && rc == TQ_OK; f++) {
        rc = fields[f] != NULL ? tqi_check_name("field", fields[f], TQ_NAME_MAX, err)
                               : tqi_error_set(err, TQ_EINVAL, "fields[%zu] is NULL", f);
    }
    if (fields != NULL && rc == TQ_OK) {
        rc = tqi_check_distinct("field", (tqi_name_array){fields, sizeof(*fields), n_fields}, err);
    }
    if (rc != TQ_OK) {
        return rc;
    }
    meta = tqi_client_meta_alloc(partition, n, n_fields, 0);
    if (meta == NULL) {
        return tqi_error_nomem(err, "metadata");
    }
    if (n > 0 && indexes != NULL) {
        memcpy(meta->indexes, indexes, n * sizeof(*indexes));
        if (incarnations != NULL) {
            memcpy(meta->incarnations, incarnations, n * sizeof(*incarnations));
        }
    }
    for (size_t f = 0; fields != NULL && f < n_fields; f++) {
        if (meta_unknown_field(meta, f, fields[f]) != TQ_OK) {
            tq_meta_unref(meta);
            return tqi_error_nomem(err, "metadata");
        }
    }
    *out = meta;
    return TQ_OK;
}

size_t tq_meta_sample_count(const tq_meta *meta)
{
    return meta != NULL ? meta->n : 0;
}

const char *tq_meta_partition(const tq_meta *meta)
{
    return meta != NULL ? meta->partition : NULL;
}

uint64_t tq_meta_epoch(const tq_meta *meta)
{
    return meta != NULL ? meta->epoch : 0;
}

uint64_t tq_meta_claim(const tq_meta *meta)
{
    return meta != NULL ? meta->claim : 0;
}

const uint32_t *tq_meta_indexes(const tq_meta *meta)
{
    return meta != NULL ? meta->indexes : NULL;
}

const uint32_t *tq_meta_incarnations(const tq_meta *meta)
{
    return meta != NULL ? meta->incarnations : NULL;
}

const char *tq_meta_key(const tq_meta *meta, size_t i)
{
    return meta != NULL && meta->keys != NULL && i < meta->n ? meta->keys[i] : NULL;
}

const char *tq_meta_group(const tq_meta *meta, size_t i)
{
    return meta != NULL && meta->groups != NULL && i < meta->n ? meta->groups[i] : NULL;
}

size_t tq_meta_field_count(const tq_meta *meta)
{
    return meta != NULL ? meta->n_fields : 0;
}

const tq_meta_field *tq_meta_field_at(const tq_meta *meta, size_t f)
{
    return meta != NULL && f < meta->n_fields ? &meta->fields[f].pub : NULL;
}

const tq_slice *tq_meta_notes(const tq_meta *meta, size_t f)
{
    return meta != NULL && f < meta->n_fields ? meta->fields[f].opaque : NULL;
}

size_t tq_meta_tag_count(const tq_meta *meta)
{
    return meta != NULL ? meta->n_tags : 0;
}

const tq_meta_tag *tq_meta_tag_at(const tq_meta *meta, size_t t)
{
    return meta != NULL && t < meta->n_tags ? &meta->tags[t] : NULL;
}

const tq_meta_field *tq_meta_find_field(const tq_meta *meta, const char *name)
{
    ptrdiff_t f = meta != NULL && name != NULL ? tqi_client_meta_find(meta, name) : -1;

    return f >= 0 ? &meta->fields[f].pub : NULL;
}

const tq_meta_tag *tq_meta_find_tag(const tq_meta *meta, const char *name)
{
    for (size_t t = 0; meta != NULL && name != NULL && t < meta->n_tags; t++) {
        if (strcmp(meta->tags[t].name, name) == 0) {
            return &meta->tags[t];
        }
    }
    return NULL;
}

bool tq_meta_find_key(const tq_meta *meta, const char *key, size_t *row)
{
    for (size_t i = 0; meta != NULL && key != NULL && meta->keys != NULL && i < meta->n; i++) {
        if (meta->keys[i] != NULL && strcmp(meta->keys[i], key) == 0) {
            if (row != NULL) {
                *row = i;
            }
            return true;
        }
    }
    return false;
}
