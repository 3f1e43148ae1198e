/*
 * gather.h - rows of parts, which are metas or some rows of them, gathered column by column into a new meta. A
 * selection of 100,000 samples is a few array copies. All functions return TQ_OK or TQ_ENOMEM, and have no error to
 * fill.
 */
#ifndef TQI_CLIENT_META_GATHER_H
#define TQI_CLIENT_META_GATHER_H

#include "client/meta/meta.h"

/* Rows of one source, in the order of the result. */
typedef struct tqi_client_part {
    const tq_meta *meta;
    const uint32_t *rows; /* NULL: all */
    size_t n;
    uint32_t shift; /* added to places of blocks */
} tqi_client_part;

static inline size_t tqi_client_part_row(const tqi_client_part *part, size_t i)
{
    return part->rows != NULL ? part->rows[i] : i;
}

/* Indexes, keys, groups; tags of any part. `out` has room for the tags of all parts together. */
int tqi_client_gather_names(tq_meta *out, const tqi_client_part *parts, size_t n_parts);
/* The keys of the parts, or their groups; *to stays as it was if no part has any. */
int tqi_client_gather_texts(tq_meta *out, const tqi_client_part *parts, size_t n_parts, bool groups, const char ***to);
/* The place of a tag in a meta; -1: it has none of that name. */
ptrdiff_t tqi_client_gather_find_tag(const tq_meta *meta, const char *name);
/* Tag t of `out`; rows of parts without it have no value. */
int tqi_client_gather_tag(tq_meta *out, size_t t, const char *name, const tqi_client_part *parts, size_t n_parts);
/* Merges a tag of `other` (given by its index there) into tag t of `out`, for the same samples: a sample that lacks it
 * in `other` keeps its own. */
int tqi_client_gather_merge_tag(tq_meta *out, size_t t, const tq_meta *other, size_t from);
/* A field, from[p] in part p. */
int tqi_client_gather_field(tq_meta *out, tqi_client_cells *to, const tqi_client_part *parts,
                            const tqi_client_cells *const *from, size_t n_parts);

#endif
