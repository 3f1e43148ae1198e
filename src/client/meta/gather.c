/*
 * gather.c - see gather.h.
 */
#include "client/meta/gather.h"

#include <string.h>

#include "base/type.h"

/* --- shapes --------------------------------------------------------------- */

static bool gather_same_shape(const tqi_client_cells *a, const tqi_client_cells *b)
{
    return !a->pub.ragged && !b->pub.ragged && a->pub.ndim == b->pub.ndim &&
           memcmp(a->pub.shape, b->pub.shape, a->pub.ndim * sizeof(*a->pub.shape)) == 0;
}

/* Dims of a row for a ragged result: none for cells that were not produced. */
static const uint64_t *gather_dims(const tqi_client_cells *cells, size_t row, uint32_t *ndim)
{
    if (!cells->ready[row] || !tqi_client_cells_shaped(cells)) {
        *ndim = 0;
        return NULL;
    }
    return tqi_client_cells_dims(cells, row, ndim);
}

static int gather_ragged(tq_meta *out, tqi_client_cells *to, const tqi_client_part *parts,
                         const tqi_client_cells *const *from, size_t n_parts)
{
    size_t total = 0;
    size_t row = 0;
    uint64_t *dims;
    uint32_t *ndims = tqi_region_array(&out->region, out->n, sizeof(*ndims));
    uint32_t ndim;

    to->starts = tqi_region_array(&out->region, out->n + 1, sizeof(*to->starts));
    if (ndims == NULL || to->starts == NULL) {
        return TQ_ENOMEM;
    }
    for (size_t p = 0; p < n_parts; p++) {
        for (size_t i = 0; i < parts[p].n; i++) {
            gather_dims(from[p], tqi_client_part_row(&parts[p], i), &ndim);
            ndims[row] = ndim;
            to->starts[row++] = total;
            total += ndim;
        }
    }
    to->starts[row] = total;
    dims = tqi_region_array(&out->region, total, sizeof(*dims));
    if (dims == NULL) {
        return TQ_ENOMEM;
    }
    row = 0;
    for (size_t p = 0; p < n_parts; p++) {
        for (size_t i = 0; i < parts[p].n; i++, row++) {
            const uint64_t *source = gather_dims(from[p], tqi_client_part_row(&parts[p], i), &ndim);
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
static int gather_types(tq_meta *out, tqi_client_cells *to, const tqi_client_part *parts,
                        const tqi_client_cells *const *from, size_t n_parts)
{
    const tqi_client_cells *first = NULL;
    bool differ = false;
    size_t row = 0;

    for (size_t p = 0; p < n_parts; p++) {
        if (!tqi_client_cells_shaped(from[p])) {
            continue; /* nothing is known of it */
        }
        first = first != NULL ? first : from[p];
        differ = differ || from[p]->types != NULL || from[p]->pub.kind != first->pub.kind ||
                 from[p]->pub.dtype.code != first->pub.dtype.code || from[p]->pub.dtype.bits != first->pub.dtype.bits;
    }
    if (first != NULL) {
        to->pub.kind = first->pub.kind;
        to->pub.dtype = first->pub.dtype;
    }
    if (!differ || out->n == 0) {
        return TQ_OK;
    }
    to->types = tqi_region_array(&out->region, out->n, sizeof(*to->types));
    if (to->types == NULL) {
        return TQ_ENOMEM;
    }
    for (size_t p = 0; p < n_parts; p++) {
        for (size_t i = 0; i < parts[p].n; i++, row++) {
            to->types[row] = tqi_client_cells_shaped(from[p])
                                 ? tqi_client_cells_type(from[p], tqi_client_part_row(&parts[p], i))
                                 : (tq_type){(uint8_t)to->pub.kind, to->pub.dtype};
        }
    }
    return TQ_OK;
}

static int gather_shape(tq_meta *out, tqi_client_cells *to, const tqi_client_part *parts,
                        const tqi_client_cells *const *from, size_t n_parts)
{
    bool uniform = to->types == NULL;
    bool shaped = false;

    for (size_t p = 0; p < n_parts; p++) {
        uniform = uniform && gather_same_shape(from[0], from[p]);
        shaped = shaped || tqi_client_cells_shaped(from[p]);
    }
    if (uniform) {
        to->pub.ragged = false;
        to->pub.ndim = from[0]->pub.ndim;
        to->pub.shape = tqi_region_copy(&out->region, from[0]->pub.shape, to->pub.ndim, sizeof(*to->pub.shape));
        return to->pub.shape != NULL ? TQ_OK : TQ_ENOMEM;
    }
    if (!shaped) {
        to->pub.ragged = true;
        return TQ_OK;
    }
    return gather_ragged(out, to, parts, from, n_parts);
}

/* --- cells ---------------------------------------------------------------- */

static int gather_opaque(tq_meta *out, tqi_client_cells *to, const tqi_client_part *parts,
                         const tqi_client_cells *const *from, size_t n_parts)
{
    size_t row = 0;
    bool any = false;

    for (size_t p = 0; p < n_parts; p++) {
        any = any || from[p]->opaque != NULL;
    }
    if (!any) {
        return TQ_OK;
    }
    to->opaque = tqi_region_zero(&out->region, out->n, sizeof(*to->opaque));
    if (to->opaque == NULL) {
        return TQ_ENOMEM;
    }
    for (size_t p = 0; p < n_parts; p++) {
        for (size_t i = 0; i < parts[p].n; i++, row++) {
            const tq_slice *source =
                from[p]->opaque != NULL ? &from[p]->opaque[tqi_client_part_row(&parts[p], i)] : NULL;
            if (source != NULL && source->size > 0) {
                to->opaque[row].size = source->size;
                to->opaque[row].data = tqi_region_copy(&out->region, source->data, source->size, 1);
                if (to->opaque[row].data == NULL) {
                    return TQ_ENOMEM;
                }
            }
        }
    }
    return TQ_OK;
}

int tqi_client_gather_field(tq_meta *out, tqi_client_cells *to, const tqi_client_part *parts,
                            const tqi_client_cells *const *from, size_t n_parts)
{
    size_t row = 0;
    int rc;

    to->pub.name = tqi_region_string(&out->region, from[0]->pub.name);
    to->pub.kind = from[0]->pub.kind;
    to->pub.dtype = from[0]->pub.dtype;
    /* Parts may be from different times: what any of them knows holds. */
    for (size_t p = 0; p < n_parts; p++) {
        to->pub.ragged_dim = tqi_ragged_dim_join(to->pub.ragged_dim, from[p]->pub.ragged_dim);
    }
    to->block = tqi_region_array(&out->region, out->n, sizeof(*to->block));
    to->offset = tqi_region_array(&out->region, out->n, sizeof(*to->offset));
    to->ready = tqi_region_array(&out->region, out->n, 1);
    if (to->pub.name == NULL || to->block == NULL || to->offset == NULL || to->ready == NULL) {
        return TQ_ENOMEM;
    }
    to->pub.ready = to->ready;
    for (size_t p = 0; p < n_parts; p++) {
        for (size_t i = 0; i < parts[p].n; i++, row++) {
            size_t source = tqi_client_part_row(&parts[p], i);
            uint32_t block = from[p]->block[source];
            if (tqi_block_named(block)) {
                block += parts[p].shift;
            }
            to->block[row] = block;
            to->offset[row] = from[p]->offset[source];
            to->ready[row] = from[p]->ready[source];
        }
    }
    rc = gather_types(out, to, parts, from, n_parts);
    rc = rc ? rc : gather_shape(out, to, parts, from, n_parts);
    if (rc == TQ_OK) {
        tqi_client_cells_agree(to, out->n);
    }
    return rc ? rc : gather_opaque(out, to, parts, from, n_parts);
}

/* --- names and tags ------------------------------------------------------- */

int tqi_client_gather_texts(tq_meta *out, const tqi_client_part *parts, size_t n_parts, bool groups, const char ***to)
{
    size_t row = 0;
    bool any = false;

    for (size_t p = 0; p < n_parts; p++) {
        any = any || (groups ? parts[p].meta->groups : parts[p].meta->keys);
    }
    if (!any) {
        return TQ_OK;
    }
    *to = tqi_region_zero(&out->region, out->n, sizeof(**to));
    if (*to == NULL) {
        return TQ_ENOMEM;
    }
    for (size_t p = 0; p < n_parts; p++) {
        const char **from = groups ? parts[p].meta->groups : parts[p].meta->keys;
        for (size_t i = 0; i < parts[p].n; i++, row++) {
            const char *text = from != NULL ? from[tqi_client_part_row(&parts[p], i)] : NULL;
            if (text != NULL && ((*to)[row] = tqi_region_string(&out->region, text)) == NULL) {
                return TQ_ENOMEM;
            }
        }
    }
    return TQ_OK;
}

ptrdiff_t tqi_client_gather_find_tag(const tq_meta *meta, const char *name)
{
    for (size_t t = 0; t < meta->n_tags; t++) {
        if (strcmp(meta->tags[t].name, name) == 0) {
            return (ptrdiff_t)t;
        }
    }
    return -1;
}

int tqi_client_gather_tag(tq_meta *out, size_t t, const char *name, const tqi_client_part *parts, size_t n_parts)
{
    uint32_t *sizes = tqi_region_zero(&out->region, out->n, sizeof(*sizes));
    uint64_t *starts = tqi_region_array(&out->region, out->n + 1, sizeof(*starts));
    uint64_t total = 0;
    uint8_t *values = NULL;
    size_t row = 0;

    if (sizes == NULL || starts == NULL) {
        return TQ_ENOMEM;
    }
    for (int pass = 0; pass < 2; pass++) {
        row = 0;
        for (size_t p = 0; p < n_parts; p++) {
            const tq_meta *meta = parts[p].meta;
            ptrdiff_t from = tqi_client_gather_find_tag(meta, name);
            for (size_t i = 0; i < parts[p].n; i++, row++) {
                size_t source = tqi_client_part_row(&parts[p], i);
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
        if (pass == 0 && (values = tqi_region_array(&out->region, total, 1)) == NULL) {
            return TQ_ENOMEM;
        }
    }
    out->tags[t].name = tqi_region_string(&out->region, name);
    out->tags[t].sizes = sizes;
    out->tags[t].values = values;
    out->tag_starts[t] = starts;
    return out->tags[t].name != NULL ? TQ_OK : TQ_ENOMEM;
}

int tqi_client_gather_merge_tag(tq_meta *out, size_t t, const tq_meta *other, size_t from)
{
    const tq_meta_tag mine = out->tags[t];
    const tq_meta_tag *theirs = &other->tags[from];
    const uint64_t *my_starts = out->tag_starts[t];
    uint32_t *sizes = tqi_region_array(&out->region, out->n, sizeof(*sizes));
    uint64_t *starts = tqi_region_array(&out->region, out->n + 1, sizeof(*starts));
    uint64_t total = 0;
    uint8_t *values;

    if (sizes == NULL || starts == NULL) {
        return TQ_ENOMEM;
    }
    for (size_t i = 0; i < out->n; i++) {
        sizes[i] = theirs->sizes[i] > 0 ? theirs->sizes[i] : mine.sizes[i];
        starts[i] = total;
        total += sizes[i];
    }
    starts[out->n] = total;
    values = tqi_region_array(&out->region, total, 1);
    if (values == NULL) {
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

int tqi_client_gather_names(tq_meta *out, const tqi_client_part *parts, size_t n_parts)
{
    size_t row = 0;
    size_t n_tags = 0;
    int rc;

    for (size_t p = 0; p < n_parts; p++) {
        for (size_t i = 0; i < parts[p].n; i++, row++) {
            out->indexes[row] = parts[p].meta->indexes[tqi_client_part_row(&parts[p], i)];
            out->incarnations[row] = parts[p].meta->incarnations[tqi_client_part_row(&parts[p], i)];
        }
    }
    rc = tqi_client_gather_texts(out, parts, n_parts, false, &out->keys);
    rc = rc ? rc : tqi_client_gather_texts(out, parts, n_parts, true, &out->groups);
    out->n_tags = 0;
    for (size_t p = 0; p < n_parts && rc == TQ_OK; p++) {
        for (size_t t = 0; t < parts[p].meta->n_tags && rc == TQ_OK; t++) {
            const char *name = parts[p].meta->tags[t].name;
            if (tqi_client_gather_find_tag(out, name) < 0) {
                rc = tqi_client_gather_tag(out, n_tags, name, parts, n_parts);
                out->n_tags = rc == TQ_OK ? ++n_tags : n_tags;
            }
        }
    }
    return rc;
}
