/*
 * select.c - metas made from other metas: select, concat, union.
 *
 * All three gather rows of parts column by column; a selection of 100,000 samples is a few array
 * copies.
 */
#include "client/meta/meta.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/type.h"

/* Rows of one source, in the order of the result. */
typedef struct sel_part {
    const tq_meta *meta;
    const uint32_t *rows; /* NULL: all */
    size_t n;
    uint32_t shift; /* added to places of blocks */
} sel_part;

static size_t sel_row(const sel_part *part, size_t i)
{
    return part->rows ? part->rows[i] : i;
}

/* --- shapes --------------------------------------------------------------- */

static bool sel_same_shape(const tqi_client_cells *a, const tqi_client_cells *b)
{
    return !a->pub.ragged && !b->pub.ragged && a->pub.ndim == b->pub.ndim &&
           memcmp(a->pub.shape, b->pub.shape, a->pub.ndim * sizeof *a->pub.shape) == 0;
}

/* Dims of a row for a ragged result: none for cells that were not produced. */
static const uint64_t *sel_dims(const tqi_client_cells *cells, size_t row, uint32_t *ndim)
{
    if (!cells->ready[row] || !tqi_client_cells_shaped(cells)) {
        *ndim = 0;
        return NULL;
    }
    return tqi_client_cells_dims(cells, row, ndim);
}

static int sel_ragged(tq_meta *out, tqi_client_cells *to, const sel_part *parts, const tqi_client_cells *const *from,
                      size_t n_parts)
{
    size_t total = 0;
    size_t row = 0;
    uint64_t *dims;
    uint32_t *ndims = tqi_region_array(&out->region, out->n, sizeof *ndims);
    uint32_t ndim;

    to->starts = tqi_region_array(&out->region, out->n + 1, sizeof *to->starts);
    if (!ndims || !to->starts) {
        return TQ_ENOMEM;
    }
    for (size_t p = 0; p < n_parts; p++) {
        for (size_t i = 0; i < parts[p].n; i++) {
            sel_dims(from[p], sel_row(&parts[p], i), &ndim);
            ndims[row] = ndim;
            to->starts[row++] = total;
            total += ndim;
        }
    }
    to->starts[row] = total;
    dims = tqi_region_array(&out->region, total, sizeof *dims);
    if (!dims) {
        return TQ_ENOMEM;
    }
    row = 0;
    for (size_t p = 0; p < n_parts; p++) {
        for (size_t i = 0; i < parts[p].n; i++, row++) {
            const uint64_t *source = sel_dims(from[p], sel_row(&parts[p], i), &ndim);
            for (uint32_t d = 0; d < ndim; d++) {
                dims[to->starts[row] + d] = source[d];
            }
        }
    }
    to->pub.ragged = true;
    to->pub.ndims = ndims;
    to->pub.dims = dims;
    return TQ_OK;
}

/* Types of the rows, if they may differ: within one part, or between two parts. */
static int sel_types(tq_meta *out, tqi_client_cells *to, const sel_part *parts, const tqi_client_cells *const *from,
                     size_t n_parts)
{
    const tqi_client_cells *first = NULL;
    bool differ = false;
    size_t row = 0;

    for (size_t p = 0; p < n_parts; p++) {
        if (!tqi_client_cells_shaped(from[p])) {
            continue; /* nothing is known of it */
        }
        first = first ? first : from[p];
        differ = differ || from[p]->types || from[p]->pub.kind != first->pub.kind ||
                 from[p]->pub.dtype.code != first->pub.dtype.code || from[p]->pub.dtype.bits != first->pub.dtype.bits;
    }
    if (first) {
        to->pub.kind = first->pub.kind;
        to->pub.dtype = first->pub.dtype;
    }
    if (!differ || out->n == 0) {
        return TQ_OK;
    }
    to->types = tqi_region_array(&out->region, out->n, sizeof *to->types);
    if (!to->types) {
        return TQ_ENOMEM;
    }
    for (size_t p = 0; p < n_parts; p++) {
        for (size_t i = 0; i < parts[p].n; i++, row++) {
            to->types[row] = tqi_client_cells_shaped(from[p]) ? tqi_client_cells_type(from[p], sel_row(&parts[p], i))
                                                              : (tq_type){(uint8_t)to->pub.kind, to->pub.dtype};
        }
    }
    return TQ_OK;
}

static int sel_shape(tq_meta *out, tqi_client_cells *to, const sel_part *parts, const tqi_client_cells *const *from,
                     size_t n_parts)
{
    bool uniform = !to->types;
    bool shaped = false;
    for (size_t p = 0; p < n_parts; p++) {
        uniform = uniform && sel_same_shape(from[0], from[p]);
        shaped = shaped || tqi_client_cells_shaped(from[p]);
    }
    if (uniform) {
        to->pub.ragged = false;
        to->pub.ndim = from[0]->pub.ndim;
        to->pub.shape = tqi_region_copy(&out->region, from[0]->pub.shape, to->pub.ndim, sizeof *to->pub.shape);
        return to->pub.shape ? TQ_OK : TQ_ENOMEM;
    }
    if (!shaped) {
        to->pub.ragged = true;
        return TQ_OK;
    }
    return sel_ragged(out, to, parts, from, n_parts);
}

/* --- cells ---------------------------------------------------------------- */

static int sel_opaque(tq_meta *out, tqi_client_cells *to, const sel_part *parts, const tqi_client_cells *const *from,
                      size_t n_parts)
{
    size_t row = 0;
    bool any = false;
    for (size_t p = 0; p < n_parts; p++) {
        any = any || from[p]->opaque;
    }
    if (!any) {
        return TQ_OK;
    }
    to->opaque = tqi_region_zero(&out->region, out->n, sizeof *to->opaque);
    if (!to->opaque) {
        return TQ_ENOMEM;
    }
    for (size_t p = 0; p < n_parts; p++) {
        for (size_t i = 0; i < parts[p].n; i++, row++) {
            const tq_slice *source = from[p]->opaque ? &from[p]->opaque[sel_row(&parts[p], i)] : NULL;
            if (source && source->size > 0) {
                to->opaque[row].size = source->size;
                to->opaque[row].data = tqi_region_copy(&out->region, source->data, source->size, 1);
                if (!to->opaque[row].data) {
                    return TQ_ENOMEM;
                }
            }
        }
    }
    return TQ_OK;
}

static int sel_field(tq_meta *out, tqi_client_cells *to, const sel_part *parts, const tqi_client_cells *const *from,
                     size_t n_parts)
{
    size_t row = 0;
    int code;

    to->pub.name = tqi_region_string(&out->region, from[0]->pub.name);
    to->pub.kind = from[0]->pub.kind;
    to->pub.dtype = from[0]->pub.dtype;
    /* Parts may be from different times: what any of them knows holds. */
    for (size_t p = 0; p < n_parts; p++) {
        to->pub.ragged_dim = tqi_ragged_dim_join(to->pub.ragged_dim, from[p]->pub.ragged_dim);
    }
    to->block = tqi_region_array(&out->region, out->n, sizeof *to->block);
    to->offset = tqi_region_array(&out->region, out->n, sizeof *to->offset);
    to->ready = tqi_region_array(&out->region, out->n, 1);
    if (!to->pub.name || !to->block || !to->offset || !to->ready) {
        return TQ_ENOMEM;
    }
    to->pub.ready = to->ready;
    for (size_t p = 0; p < n_parts; p++) {
        for (size_t i = 0; i < parts[p].n; i++, row++) {
            size_t source = sel_row(&parts[p], i);
            uint32_t block = from[p]->block[source];
            if (tqi_block_named(block)) {
                block += parts[p].shift;
            }
            to->block[row] = block;
            to->offset[row] = from[p]->offset[source];
            to->ready[row] = from[p]->ready[source];
        }
    }
    code = sel_types(out, to, parts, from, n_parts);
    code = code ? code : sel_shape(out, to, parts, from, n_parts);
    if (code == TQ_OK) {
        tqi_client_cells_agree(to, out->n);
    }
    return code ? code : sel_opaque(out, to, parts, from, n_parts);
}

/* --- names and tags ------------------------------------------------------- */

static int sel_texts(tq_meta *out, const sel_part *parts, size_t n_parts, bool groups, const char ***to)
{
    size_t row = 0;
    bool any = false;
    for (size_t p = 0; p < n_parts; p++) {
        any = any || (groups ? parts[p].meta->groups : parts[p].meta->keys);
    }
    if (!any) {
        return TQ_OK;
    }
    *to = tqi_region_zero(&out->region, out->n, sizeof **to);
    if (!*to) {
        return TQ_ENOMEM;
    }
    for (size_t p = 0; p < n_parts; p++) {
        const char **from = groups ? parts[p].meta->groups : parts[p].meta->keys;
        for (size_t i = 0; i < parts[p].n; i++, row++) {
            const char *text = from ? from[sel_row(&parts[p], i)] : NULL;
            if (text && !((*to)[row] = tqi_region_string(&out->region, text))) {
                return TQ_ENOMEM;
            }
        }
    }
    return TQ_OK;
}

static ptrdiff_t sel_find_tag(const tq_meta *meta, const char *name)
{
    for (size_t t = 0; t < meta->n_tags; t++) {
        if (strcmp(meta->tags[t].name, name) == 0) {
            return (ptrdiff_t)t;
        }
    }
    return -1;
}

static int sel_tag(tq_meta *out, size_t t, const char *name, const sel_part *parts, size_t n_parts)
{
    uint32_t *sizes = tqi_region_zero(&out->region, out->n, sizeof *sizes);
    uint64_t *starts = tqi_region_array(&out->region, out->n + 1, sizeof *starts);
    uint64_t total = 0;
    uint8_t *values = NULL;
    size_t row = 0;

    if (!sizes || !starts) {
        return TQ_ENOMEM;
    }
    for (int pass = 0; pass < 2; pass++) {
        row = 0;
        for (size_t p = 0; p < n_parts; p++) {
            const tq_meta *meta = parts[p].meta;
            ptrdiff_t from = sel_find_tag(meta, name);
            for (size_t i = 0; i < parts[p].n; i++, row++) {
                size_t source = sel_row(&parts[p], i);
                if (pass == 0) {
                    sizes[row] = from < 0 ? 0 : meta->tags[from].sizes[source];
                    starts[row] = total;
                    total += sizes[row];
                } else if (sizes[row] > 0) {
                    memcpy(values + starts[row], meta->tags[from].values + meta->tag_starts[from][source], sizes[row]);
                }
            }
        }
        starts[row] = total;
        if (pass == 0 && !(values = tqi_region_array(&out->region, total, 1))) {
            return TQ_ENOMEM;
        }
    }
    out->tags[t].name = tqi_region_string(&out->region, name);
    out->tags[t].sizes = sizes;
    out->tags[t].values = values;
    out->tag_starts[t] = starts;
    return out->tags[t].name ? TQ_OK : TQ_ENOMEM;
}

/* Merges a tag of `other` (given by its index there) into tag t of `out`, for the same samples: a sample that lacks it
 * in `other` keeps its own. */
static int sel_merge_tag(tq_meta *out, size_t t, const tq_meta *other, size_t from)
{
    const tq_meta_tag mine = out->tags[t];
    const tq_meta_tag *theirs = &other->tags[from];
    const uint64_t *my_starts = out->tag_starts[t];
    uint32_t *sizes = tqi_region_array(&out->region, out->n, sizeof *sizes);
    uint64_t *starts = tqi_region_array(&out->region, out->n + 1, sizeof *starts);
    uint64_t total = 0;
    uint8_t *values;

    if (!sizes || !starts) {
        return TQ_ENOMEM;
    }
    for (size_t i = 0; i < out->n; i++) {
        sizes[i] = theirs->sizes[i] > 0 ? theirs->sizes[i] : mine.sizes[i];
        starts[i] = total;
        total += sizes[i];
    }
    starts[out->n] = total;
    values = tqi_region_array(&out->region, total, 1);
    if (!values) {
        return TQ_ENOMEM;
    }
    for (size_t i = 0; i < out->n; i++) {
        const uint8_t *value =
            theirs->sizes[i] > 0 ? theirs->values + other->tag_starts[from][i] : mine.values + my_starts[i];
        memcpy(values + starts[i], value, sizes[i]);
    }
    out->tags[t].sizes = sizes;
    out->tags[t].values = values;
    out->tag_starts[t] = starts;
    return TQ_OK;
}

/* Indexes, keys, groups; tags of any part. out has room for the tags of all parts together. */
static int sel_names(tq_meta *out, const sel_part *parts, size_t n_parts)
{
    size_t row = 0;
    size_t n_tags = 0;
    int code;

    for (size_t p = 0; p < n_parts; p++) {
        for (size_t i = 0; i < parts[p].n; i++, row++) {
            out->indexes[row] = parts[p].meta->indexes[sel_row(&parts[p], i)];
            out->incarnations[row] = parts[p].meta->incarnations[sel_row(&parts[p], i)];
        }
    }
    code = sel_texts(out, parts, n_parts, false, &out->keys);
    code = code ? code : sel_texts(out, parts, n_parts, true, &out->groups);
    out->n_tags = 0;
    for (size_t p = 0; p < n_parts && code == TQ_OK; p++) {
        for (size_t t = 0; t < parts[p].meta->n_tags && code == TQ_OK; t++) {
            const char *name = parts[p].meta->tags[t].name;
            if (sel_find_tag(out, name) < 0) {
                code = sel_tag(out, n_tags, name, parts, n_parts);
                out->n_tags = code == TQ_OK ? ++n_tags : n_tags;
            }
        }
    }
    return code;
}

/* --- select --------------------------------------------------------------- */

int tq_meta_select(const tq_meta *meta, const uint32_t *rows, size_t n_rows, const char *const *fields, size_t n_fields,
                   tq_meta **out, tq_error *err)
{
    tq_meta *made;
    int code = TQ_OK;

    if (!meta || !out) {
        return tqi_error_null(err, !meta ? "tq_meta_select: meta" : "tq_meta_select: out");
    }
    sel_part part = {.meta = meta, .rows = rows, .n = rows ? n_rows : meta->n};
    *out = NULL;
    for (size_t i = 0; rows && i < n_rows; i++) {
        if (rows[i] >= meta->n) {
            return tqi_error_set(err, TQ_EINVAL, "row %u of metadata of %zu samples", rows[i], meta->n);
        }
    }
    for (size_t f = 0; fields && f < n_fields; f++) {
        if (!fields[f]) {
            return tqi_error_set(err, TQ_EINVAL, "tq_meta_select: fields[%zu] is NULL", f);
        }
        if (tqi_client_meta_find(meta, fields[f]) < 0) {
            return tqi_error_set(err, TQ_EFIELD, "field '%s' is not in the metadata of partition '%s'", fields[f],
                                 meta->partition);
        }
    }
    made = tqi_client_meta_alloc(meta->partition, part.n, fields ? n_fields : meta->n_fields, meta->n_tags);
    if (!made) {
        return tqi_error_nomem(err, "metadata");
    }
    made->epoch = meta->epoch;
    made->claim = meta->claim;
    if (meta->blocks) {
        made->blocks = meta->blocks;
        atomic_fetch_add_explicit(&made->blocks->refs, 1, memory_order_relaxed);
    }
    code = sel_names(made, &part, 1);
    for (size_t f = 0; f < made->n_fields && code == TQ_OK; f++) {
        const tqi_client_cells *from = &meta->fields[fields ? (size_t)tqi_client_meta_find(meta, fields[f]) : f];
        code = sel_field(made, &made->fields[f], &part, &from, 1);
    }
    if (code != TQ_OK) {
        tq_meta_unref(made);
        return tqi_error_nomem(err, "metadata");
    }
    *out = made;
    return TQ_OK;
}

/* --- concat --------------------------------------------------------------- */

static int sel_blocks(tq_meta *out, sel_part *parts, size_t n_parts)
{
    size_t total = 0;
    size_t tables = 0;
    tqi_client_meta_blocks *only = NULL;

    for (size_t p = 0; p < n_parts; p++) {
        tqi_client_meta_blocks *blocks = parts[p].meta->blocks;
        size_t q = 0;
        while (q < p && parts[q].meta->blocks != blocks) {
            q++;
        }
        if (blocks && q == p) {
            parts[p].shift = (uint32_t)total;
            total += blocks->n;
            tables++;
            only = blocks;
        } else {
            parts[p].shift = blocks ? parts[q].shift : 0;
        }
        if (total >= TQI_BLOCK_MARKS) {
            return TQ_ENOMEM;
        }
    }
    if (tables <= 1) {
        out->blocks = only;
        if (only) {
            atomic_fetch_add_explicit(&only->refs, 1, memory_order_relaxed);
        }
        return TQ_OK;
    }
    out->blocks = tqi_client_meta_blocks_alloc(total);
    if (!out->blocks) {
        return TQ_ENOMEM;
    }
    for (size_t p = 0; p < n_parts; p++) {
        const tqi_client_meta_blocks *blocks = parts[p].meta->blocks;
        const char *owner = NULL;
        const char *copy = NULL;
        if (!blocks || out->blocks->blocks[parts[p].shift].owner) {
            continue;
        }
        for (uint32_t b = 0; b < blocks->n; b++) {
            tq_block *to = &out->blocks->blocks[parts[p].shift + b];
            *to = blocks->blocks[b];
            if (to->owner != owner) {
                owner = to->owner;
                copy = tqi_region_string(&out->blocks->region, owner);
                if (!copy) {
                    return TQ_ENOMEM;
                }
            }
            to->owner = copy;
        }
    }
    return TQ_OK;
}

static int sel_agree(const tq_meta *a, const tq_meta *b, tq_error *err)
{
    if (strcmp(a->partition, b->partition) != 0) {
        return tqi_error_set(err, TQ_EINVAL, "metadata of partitions '%s' and '%s' cannot be joined", a->partition,
                             b->partition);
    }
    if (a->epoch && b->epoch && a->epoch != b->epoch) {
        return tqi_error_set(err, TQ_ESTALE, "metadata of two runs of the controller cannot be joined");
    }
    return TQ_OK;
}

static int sel_agree_fields(const tq_meta *a, const tq_meta *b, tq_error *err)
{
    if (a->n_fields != b->n_fields) {
        return tqi_error_set(err, TQ_EFIELD, "metadata with %zu and with %zu fields cannot be joined", a->n_fields,
                             b->n_fields);
    }
    for (size_t f = 0; f < a->n_fields; f++) {
        const char *name = a->fields[f].pub.name;
        if (tqi_client_meta_find(b, name) < 0) {
            return tqi_error_set(err, TQ_EFIELD, "field '%s' is only in some of the metadata", name);
        }
    }
    return TQ_OK;
}

/* Fields of all parts, in the order of the first part; the schema comes from a part that knows it. */
static int sel_concat_fields(tq_meta *out, const sel_part *parts, size_t n_parts)
{
    const tqi_client_cells **from = calloc(n_parts, sizeof *from);
    int code = from ? TQ_OK : TQ_ENOMEM;

    for (size_t f = 0; f < out->n_fields && code == TQ_OK; f++) {
        tqi_client_cells *to = &out->fields[f];
        for (size_t p = 0; p < n_parts; p++) {
            from[p] = &parts[p].meta->fields[tqi_client_meta_find(parts[p].meta, parts[0].meta->fields[f].pub.name)];
        }
        code = sel_field(out, to, parts, from, n_parts);
    }
    free(from);
    return code;
}

static int sel_join(const sel_part *given, size_t n_parts, tq_meta **out, tq_error *err)
{
    sel_part *parts = malloc(n_parts * sizeof *parts);
    size_t rows = 0;
    size_t tags = 0;
    tq_meta *made = NULL;
    int code = parts ? TQ_OK : TQ_ENOMEM;

    for (size_t p = 0; p < n_parts && code == TQ_OK; p++) {
        parts[p] = given[p];
        rows += given[p].n;
        tags += given[p].meta->n_tags;
    }
    if (code == TQ_OK) {
        made = tqi_client_meta_alloc(parts[0].meta->partition, rows, parts[0].meta->n_fields, tags);
        code = made ? TQ_OK : TQ_ENOMEM;
    }
    if (code == TQ_OK) {
        made->claim = parts[0].meta->claim;
        for (size_t p = 0; p < n_parts; p++) {
            made->epoch = made->epoch ? made->epoch : parts[p].meta->epoch;
            made->claim = made->claim == parts[p].meta->claim ? made->claim : 0;
        }
        code = sel_blocks(made, parts, n_parts);
    }
    code = code ? code : sel_names(made, parts, n_parts);
    code = code ? code : sel_concat_fields(made, parts, n_parts);
    free(parts);
    if (code != TQ_OK) {
        tq_meta_unref(made);
        return tqi_error_nomem(err, "metadata");
    }
    *out = made;
    return TQ_OK;
}

int tq_meta_concat(tq_meta *const *metas, size_t n, tq_meta **out, tq_error *err)
{
    sel_part *parts;
    size_t used = 0;
    int code = TQ_OK;

    if (!out) {
        return tqi_error_null(err, "tq_meta_concat: out");
    }
    *out = NULL;
    if (n == 0) {
        return tqi_error_set(err, TQ_EINVAL, "no metadata to join");
    }
    for (size_t i = 0; i < n; i++) {
        if (!metas || !metas[i]) {
            return tqi_error_set(err, TQ_EINVAL, "tq_meta_concat: metas[%zu] is NULL", i);
        }
    }
    parts = calloc(n, sizeof *parts);
    if (!parts) {
        return tqi_error_nomem(err, "metadata");
    }
    for (size_t i = 0; i < n; i++) {
        if (metas[i]->n > 0) { /* empty parts say nothing about fields */
            parts[used].meta = metas[i];
            parts[used++].n = metas[i]->n;
        }
    }
    if (used == 0) {
        parts[used++].meta = metas[0];
    }
    for (size_t p = 1; p < used && code == TQ_OK; p++) {
        code = sel_agree(parts[0].meta, parts[p].meta, err);
        code = code ? code : sel_agree_fields(parts[0].meta, parts[p].meta, err);
    }
    code = code ? code : sel_join(parts, used, out, err);
    free(parts);
    return code;
}

/* --- union ---------------------------------------------------------------- */

/* Identity and tags of both, fields of `meta` that `other` does not have, then those of `other`. */
static int sel_union(tq_meta *made, const tq_meta *meta, const tq_meta *other)
{
    sel_part parts[2] = {{.meta = meta, .n = meta->n}, {.meta = other, .n = other->n}};
    size_t n_fields = 0;
    size_t n_tags;
    int code = sel_blocks(made, parts, 2);

    code = code ? code : sel_names(made, parts, 1);
    if (code == TQ_OK && other->keys) {
        code = sel_texts(made, parts + 1, 1, false, &made->keys);
    }
    if (code == TQ_OK && other->groups) {
        code = sel_texts(made, parts + 1, 1, true, &made->groups);
    }
    n_tags = made->n_tags;
    for (size_t t = 0; t < other->n_tags && code == TQ_OK; t++) {
        ptrdiff_t at = sel_find_tag(made, other->tags[t].name);
        code = at < 0 ? sel_tag(made, n_tags++, other->tags[t].name, parts + 1, 1)
                      : sel_merge_tag(made, (size_t)at, other, t);
        made->n_tags = n_tags;
    }
    for (size_t f = 0; f < meta->n_fields && code == TQ_OK; f++) {
        const tqi_client_cells *from = &meta->fields[f];
        if (tqi_client_meta_find(other, from->pub.name) < 0) {
            code = sel_field(made, &made->fields[n_fields++], parts, &from, 1);
        }
    }
    for (size_t f = 0; f < other->n_fields && code == TQ_OK; f++) {
        const tqi_client_cells *from = &other->fields[f];
        code = sel_field(made, &made->fields[n_fields++], parts + 1, &from, 1);
    }
    made->n_fields = n_fields;
    return code;
}

int tq_meta_union(const tq_meta *meta, const tq_meta *other, tq_meta **out, tq_error *err)
{
    tq_meta *made;
    int code;

    if (!meta || !other || !out) {
        return tqi_error_null(err, !meta    ? "tq_meta_union: meta"
                                   : !other ? "tq_meta_union: other"
                                            : "tq_meta_union: out");
    }
    *out = NULL;
    code = sel_agree(meta, other, err);
    if (code != TQ_OK) {
        return code;
    }
    if (meta->n != other->n || (meta->n > 0 && memcmp(meta->indexes, other->indexes, meta->n * sizeof *meta->indexes))) {
        return tqi_error_set(err, TQ_EINVAL, "metadata of different samples cannot be united");
    }
    for (size_t i = 0; i < meta->n; i++) {
        uint32_t a = meta->incarnations[i];
        uint32_t b = other->incarnations[i];
        if (a && b && a != b) {
            return tqi_error_set(err, TQ_EINVAL, "sample %u was cleared between the two metadata", meta->indexes[i]);
        }
    }
    made =
        tqi_client_meta_alloc(meta->partition, meta->n, meta->n_fields + other->n_fields, meta->n_tags + other->n_tags);
    if (!made) {
        return tqi_error_nomem(err, "metadata");
    }
    made->epoch = meta->epoch ? meta->epoch : other->epoch;
    made->claim = meta->claim ? meta->claim : other->claim;
    code = sel_union(made, meta, other);
    if (code != TQ_OK) {
        tq_meta_unref(made);
        return tqi_error_nomem(err, "metadata");
    }
    for (size_t i = 0; i < meta->n; i++) {
        made->incarnations[i] = made->incarnations[i] ? made->incarnations[i] : other->incarnations[i];
    }
    *out = made;
    return TQ_OK;
}
