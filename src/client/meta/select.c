/*
 * select.c - metas made from other metas: select, concat, union.
 */
#include "client/meta/gather.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

/* --- select --------------------------------------------------------------- */

int tq_meta_select(const tq_meta *meta, const uint32_t *rows, size_t n_rows, const char *const *fields, size_t n_fields,
                   tq_meta **out, tq_error *err)
{
    tq_meta *made;
    int rc = TQ_OK;

    if (meta == NULL || out == NULL) {
        return tqi_error_null(err, meta == NULL ? "tq_meta_select: meta" : "tq_meta_select: out");
    }
    tqi_client_part part = {.meta = meta, .rows = rows, .n = rows != NULL ? n_rows : meta->n};
    *out = NULL;
    for (size_t i = 0; rows != NULL && i < n_rows; i++) {
        if (rows[i] >= meta->n) {
            return tqi_error_set(err, TQ_EINVAL, "row %u of metadata of %zu samples", rows[i], meta->n);
        }
    }
    for (size_t f = 0; fields != NULL && f < n_fields; f++) {
        if (fields[f] == NULL) {
            return tqi_error_set(err, TQ_EINVAL, "tq_meta_select: fields[%zu] is NULL", f);
        }
        if (tqi_client_meta_find(meta, fields[f]) < 0) {
            return tqi_error_set(err, TQ_EFIELD, "field '%s' is not in the metadata of partition '%s'", fields[f],
                                 meta->partition);
        }
    }
    made = tqi_client_meta_alloc(meta->partition, part.n, fields != NULL ? n_fields : meta->n_fields, meta->n_tags);
    if (made == NULL) {
        return tqi_error_nomem(err, "metadata");
    }
    made->epoch = meta->epoch;
    made->claim = meta->claim;
    if (meta->blocks != NULL) {
        made->blocks = meta->blocks;
        atomic_fetch_add_explicit(&made->blocks->refs, 1, memory_order_relaxed);
    }
    rc = tqi_client_gather_names(made, &part, 1);
    for (size_t f = 0; f < made->n_fields && rc == TQ_OK; f++) {
        const tqi_client_cells *from = &meta->fields[fields != NULL ? (size_t)tqi_client_meta_find(meta, fields[f]) : f];
        rc = tqi_client_gather_field(made, &made->fields[f], &part, &from, 1);
    }
    if (rc != TQ_OK) {
        tq_meta_unref(made);
        return tqi_error_nomem(err, "metadata");
    }
    *out = made;
    return TQ_OK;
}

/* --- concat --------------------------------------------------------------- */

static int sel_blocks(tq_meta *out, tqi_client_part *parts, size_t n_parts)
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
        if (blocks != NULL && q == p) {
            parts[p].shift = (uint32_t)total;
            total += blocks->n;
            tables++;
            only = blocks;
        } else {
            parts[p].shift = blocks != NULL ? parts[q].shift : 0;
        }
        if (total >= TQI_BLOCK_MARKS) {
            return TQ_ENOMEM;
        }
    }
    if (tables <= 1) {
        out->blocks = only;
        if (only != NULL) {
            atomic_fetch_add_explicit(&only->refs, 1, memory_order_relaxed);
        }
        return TQ_OK;
    }
    out->blocks = tqi_client_meta_blocks_alloc(total);
    if (out->blocks == NULL) {
        return TQ_ENOMEM;
    }
    for (size_t p = 0; p < n_parts; p++) {
        const tqi_client_meta_blocks *blocks = parts[p].meta->blocks;
        const char *owner = NULL;
        const char *copy = NULL;
        if (blocks == NULL || out->blocks->blocks[parts[p].shift].owner != NULL) {
            continue;
        }
        for (uint32_t b = 0; b < blocks->n; b++) {
            tq_block *to = &out->blocks->blocks[parts[p].shift + b];
            *to = blocks->blocks[b];
            if (to->owner != owner) {
                owner = to->owner;
                copy = tqi_region_string(&out->blocks->region, owner);
                if (copy == NULL) {
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
static int sel_concat_fields(tq_meta *out, const tqi_client_part *parts, size_t n_parts)
{
    const tqi_client_cells **from = calloc(n_parts, sizeof(*from));
    int rc = from != NULL ? TQ_OK : TQ_ENOMEM;

    for (size_t f = 0; f < out->n_fields && rc == TQ_OK; f++) {
        tqi_client_cells *to = &out->fields[f];
        for (size_t p = 0; p < n_parts; p++) {
            from[p] = &parts[p].meta->fields[tqi_client_meta_find(parts[p].meta, parts[0].meta->fields[f].pub.name)];
        }
        rc = tqi_client_gather_field(out, to, parts, from, n_parts);
    }
    free(from);
    return rc;
}

static int sel_join(const tqi_client_part *given, size_t n_parts, tq_meta **out, tq_error *err)
{
    tqi_client_part *parts = malloc(n_parts * sizeof(*parts));
    size_t rows = 0;
    size_t tags = 0;
    tq_meta *made = NULL;
    int rc = parts != NULL ? TQ_OK : TQ_ENOMEM;

    for (size_t p = 0; p < n_parts && rc == TQ_OK; p++) {
        parts[p] = given[p];
        rows += given[p].n;
        tags += given[p].meta->n_tags;
    }
    if (rc == TQ_OK) {
        made = tqi_client_meta_alloc(parts[0].meta->partition, rows, parts[0].meta->n_fields, tags);
        rc = made != NULL ? TQ_OK : TQ_ENOMEM;
    }
    if (rc == TQ_OK) {
        made->claim = parts[0].meta->claim;
        for (size_t p = 0; p < n_parts; p++) {
            made->epoch = made->epoch ? made->epoch : parts[p].meta->epoch;
            made->claim = made->claim == parts[p].meta->claim ? made->claim : 0;
        }
        rc = sel_blocks(made, parts, n_parts);
    }
    rc = rc ? rc : tqi_client_gather_names(made, parts, n_parts);
    rc = rc ? rc : sel_concat_fields(made, parts, n_parts);
    free(parts);
    if (rc != TQ_OK) {
        tq_meta_unref(made);
        return tqi_error_nomem(err, "metadata");
    }
    *out = made;
    return TQ_OK;
}

int tq_meta_concat(tq_meta *const *metas, size_t n, tq_meta **out, tq_error *err)
{
    tqi_client_part *parts;
    size_t used = 0;
    int rc = TQ_OK;

    if (out == NULL) {
        return tqi_error_null(err, "tq_meta_concat: out");
    }
    *out = NULL;
    if (n == 0) {
        return tqi_error_set(err, TQ_EINVAL, "no metadata to join");
    }
    for (size_t i = 0; i < n; i++) {
        if (metas == NULL || metas[i] == NULL) {
            return tqi_error_set(err, TQ_EINVAL, "tq_meta_concat: metas[%zu] is NULL", i);
        }
    }
    parts = calloc(n, sizeof(*parts));
    if (parts == NULL) {
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
    for (size_t p = 1; p < used && rc == TQ_OK; p++) {
        rc = sel_agree(parts[0].meta, parts[p].meta, err);
        rc = rc ? rc : sel_agree_fields(parts[0].meta, parts[p].meta, err);
    }
    rc = rc ? rc : sel_join(parts, used, out, err);
    free(parts);
    return rc;
}

/* --- union ---------------------------------------------------------------- */

/* Identity and tags of both, fields of `meta` that `other` does not have, then those of `other`. */
static int sel_union(tq_meta *made, const tq_meta *meta, const tq_meta *other)
{
    tqi_client_part parts[2] = {{.meta = meta, .n = meta->n}, {.meta = other, .n = other->n}};
    size_t n_fields = 0;
    size_t n_tags;
    int rc = sel_blocks(made, parts, 2);

    rc = rc ? rc : tqi_client_gather_names(made, parts, 1);
    if (rc == TQ_OK && other->keys != NULL) {
        rc = tqi_client_gather_texts(made, parts + 1, 1, false, &made->keys);
    }
    if (rc == TQ_OK && other->groups != NULL) {
        rc = tqi_client_gather_texts(made, parts + 1, 1, true, &made->groups);
    }
    n_tags = made->n_tags;
    for (size_t t = 0; t < other->n_tags && rc == TQ_OK; t++) {
        ptrdiff_t at = tqi_client_gather_find_tag(made, other->tags[t].name);
        rc = at < 0 ? tqi_client_gather_tag(made, n_tags++, other->tags[t].name, parts + 1, 1)
                    : tqi_client_gather_merge_tag(made, (size_t)at, other, t);
        made->n_tags = n_tags;
    }
    for (size_t f = 0; f < meta->n_fields && rc == TQ_OK; f++) {
        const tqi_client_cells *from = &meta->fields[f];
        if (tqi_client_meta_find(other, from->pub.name) < 0) {
            rc = tqi_client_gather_field(made, &made->fields[n_fields++], parts, &from, 1);
        }
    }
    for (size_t f = 0; f < other->n_fields && rc == TQ_OK; f++) {
        const tqi_client_cells *from = &other->fields[f];
        rc = tqi_client_gather_field(made, &made->fields[n_fields++], parts + 1, &from, 1);
    }
    made->n_fields = n_fields;
    return rc;
}

int tq_meta_union(const tq_meta *meta, const tq_meta *other, tq_meta **out, tq_error *err)
{
    tq_meta *made;
    int rc;

    if (meta == NULL || other == NULL || out == NULL) {
        return tqi_error_null(err, meta == NULL    ? "tq_meta_union: meta"
                                   : other == NULL ? "tq_meta_union: other"
                                                   : "tq_meta_union: out");
    }
    *out = NULL;
    rc = sel_agree(meta, other, err);
    if (rc != TQ_OK) {
        return rc;
    }
    if (meta->n != other->n || (meta->n > 0 && memcmp(meta->indexes, other->indexes, meta->n * sizeof(*meta->indexes)))) {
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
    if (made == NULL) {
        return tqi_error_nomem(err, "metadata");
    }
    made->epoch = meta->epoch ? meta->epoch : other->epoch;
    made->claim = meta->claim ? meta->claim : other->claim;
    rc = sel_union(made, meta, other);
    if (rc != TQ_OK) {
        tq_meta_unref(made);
        return tqi_error_nomem(err, "metadata");
    }
    for (size_t i = 0; i < meta->n; i++) {
        made->incarnations[i] = made->incarnations[i] ? made->incarnations[i] : other->incarnations[i];
    }
    *out = made;
    return TQ_OK;
}
