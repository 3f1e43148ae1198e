/*
 * wire.c - a tq_meta from a Batch message. Nothing in the message is trusted: counts, sizes, indexes and sums are
 * checked before they are used, here and nowhere else.
 */
#include "client/meta/meta.h"

#include <string.h>

#include "base/error.h"
#include "base/pointer.h"
#include "base/type.h"

/* What is being decoded, for messages and checks. */
typedef struct wire_in {
    const Tq__Batch *names;  /* partition, indexes, keys, tags */
    const Tq__Batch *fields; /* fields, owners, blocks */
    bool packed;
    tq_meta *meta;
    tq_error *err;
} wire_in;

static int wire_bad(wire_in *in, const char *what, const char *name, uint64_t given, uint64_t expected)
{
    return tqi_error_set(in->err, TQ_EPROTO, "metadata: %s '%s': %llu, expected %llu", what, name,
                         (unsigned long long)given, (unsigned long long)expected);
}

static int wire_nomem(wire_in *in)
{
    return tqi_error_nomem(in->err, "metadata");
}

/* --- blocks --------------------------------------------------------------- */

static int wire_block(wire_in *in, const Tq__Block *from, char **owners, tq_block *to)
{
    if (from->owner >= in->fields->n_owner) {
        return wire_bad(in, "owner of a block", "", from->owner, in->fields->n_owner);
    }
    if (from->locator.len > TQ_LOCATOR_MAX) {
        return wire_bad(in, "bytes of a locator", "", from->locator.len, TQ_LOCATOR_MAX);
    }
    to->id = from->id;
    to->size = from->size;
    to->owner = owners[from->owner];
    to->owner_incarnation = in->fields->owner[from->owner]->incarnation;
    to->locator_size = (uint8_t)from->locator.len;
    if (from->locator.len > 0) {
        memcpy(to->locator, from->locator.data, from->locator.len);
    }
    return TQ_OK;
}

static int wire_blocks(wire_in *in)
{
    const Tq__Batch *batch = in->fields;
    tqi_client_meta_blocks *blocks;
    char **owners;

    if (batch->n_block == 0) {
        return TQ_OK;
    }
    blocks = tqi_client_meta_blocks_alloc(batch->n_block);
    if (blocks == NULL) {
        return wire_nomem(in);
    }
    in->meta->blocks = blocks;
    owners = tqi_region_array(&blocks->region, batch->n_owner, sizeof(*owners));
    if (owners == NULL) {
        return wire_nomem(in);
    }
    for (size_t i = 0; i < batch->n_owner; i++) {
        owners[i] = tqi_region_string(&blocks->region, batch->owner[i]->name);
        if (owners[i] == NULL) {
            return wire_nomem(in);
        }
    }
    for (size_t i = 0; i < batch->n_block; i++) {
        int rc = wire_block(in, batch->block[i], owners, &blocks->blocks[i]);
        if (rc != TQ_OK) {
            return rc;
        }
    }
    return TQ_OK;
}

/* --- shapes --------------------------------------------------------------- */

static int wire_uniform(wire_in *in, const Tq__Field *from, tqi_client_cells *to)
{
    uint64_t size;

    if (from->n_shape > TQ_NDIM_MAX) {
        return wire_bad(in, "dims of field", from->name, from->n_shape, TQ_NDIM_MAX);
    }
    if (!tqi_client_row_size(to->pub.dtype, from->shape, (uint32_t)from->n_shape, &size)) {
        return wire_bad(in, "bytes of a row of field", from->name, UINT64_MAX, INT64_MAX);
    }
    to->pub.ndim = (uint32_t)from->n_shape;
    to->pub.shape = tqi_region_copy(&in->meta->region, from->shape, from->n_shape, sizeof(*from->shape));
    return to->pub.shape != NULL ? TQ_OK : wire_nomem(in);
}

/* ndims: one per row, one for all, or none if only the schema is given. */
static int wire_ragged(wire_in *in, const Tq__Field *from, tqi_client_cells *to)
{
    size_t n = in->meta->n;
    uint32_t *ndims;
    uint64_t *starts;
    uint64_t start = 0;

    if (from->n_ndims == 0 && from->n_dims == 0) {
        return TQ_OK;
    }
    if (from->n_ndims != n && from->n_ndims != 1) {
        return wire_bad(in, "ndims of field", from->name, from->n_ndims, n);
    }
    ndims = tqi_region_array(&in->meta->region, n, sizeof(*ndims));
    starts = tqi_region_array(&in->meta->region, n + 1, sizeof(*starts));
    to->pub.dims = tqi_region_copy(&in->meta->region, from->dims, from->n_dims, sizeof(*from->dims));
    if (ndims == NULL || starts == NULL || to->pub.dims == NULL) {
        return wire_nomem(in);
    }
    for (size_t i = 0; i < n; i++) {
        uint64_t size;
        uint32_t ndim = from->ndims[from->n_ndims == 1 ? 0 : i];
        if (ndim > TQ_NDIM_MAX || ndim > from->n_dims - start) {
            return wire_bad(in, "dims of a row of field", from->name, ndim, from->n_dims - start);
        }
        if (!tqi_client_row_size(tqi_client_cells_type(to, i).dtype, to->pub.dims + start, ndim, &size)) {
            return wire_bad(in, "bytes of a row of field", from->name, UINT64_MAX, INT64_MAX);
        }
        ndims[i] = ndim;
        starts[i] = start;
        start += ndim;
    }
    starts[n] = start;
    if (start != from->n_dims) {
        return wire_bad(in, "dims of field", from->name, from->n_dims, start);
    }
    to->pub.ndims = ndims;
    to->starts = starts;
    return TQ_OK;
}

/* --- runs ----------------------------------------------------------------- */

static int wire_run_cells(wire_in *in, const Tq__Field *from, tqi_client_cells *to, size_t row, size_t run)
{
    const tq_block *block = &in->meta->blocks->blocks[from->run_block[run] - 1];
    uint64_t offset = from->run_offset[run];

    if (!tqi_client_cells_shaped(to)) {
        return wire_bad(in, "placements without shapes of field", from->name, 1, 0);
    }
    for (size_t i = row; i < row + from->run_rows[run]; i++) {
        uint64_t size = tqi_client_cells_size(to, i);
        to->block[i] = from->run_block[run];
        to->offset[i] = offset;
        to->ready[i] = 1;
        if (offset > block->size || size > block->size - offset) {
            return wire_bad(in, "end of a row in its block, field", from->name, offset, block->size);
        }
        offset += size;
    }
    return TQ_OK;
}

static int wire_run(wire_in *in, const Tq__Field *from, tqi_client_cells *to, size_t row, size_t run)
{
    uint64_t n_blocks = in->fields->n_block;
    uint64_t place = from->run_block[run];
    uint32_t mark = TQI_BLOCK_NONE;
    uint8_t ready = 0;

    if (place >= 1 && place <= n_blocks) {
        return wire_run_cells(in, from, to, row, run);
    }
    if (place == n_blocks + TQI_MARK_LOST) {
        mark = TQI_BLOCK_LOST;
        ready = 2;
    } else if (place == n_blocks + TQI_MARK_OPAQUE && to->opaque != NULL) {
        mark = TQI_BLOCK_OPAQUE;
        ready = 1;
    } else if (in->packed && (place == n_blocks + TQI_MARK_UNKNOWN || place == n_blocks + TQI_MARK_UNKNOWN_READY)) {
        mark = TQI_BLOCK_UNKNOWN;
        ready = place == n_blocks + TQI_MARK_UNKNOWN_READY;
    } else if (place != 0) {
        return wire_bad(in, "block of a run of field", from->name, place, n_blocks);
    }
    for (size_t i = row; i < row + from->run_rows[run]; i++) {
        to->block[i] = mark;
        to->offset[i] = 0;
        to->ready[i] = ready;
    }
    return TQ_OK;
}

static int wire_runs(wire_in *in, const Tq__Field *from, tqi_client_cells *to)
{
    size_t n = in->meta->n;
    size_t row = 0;

    if (from->n_run_block != from->n_run_rows || from->n_run_block != from->n_run_offset) {
        return wire_bad(in, "runs of field", from->name, from->n_run_rows, from->n_run_block);
    }
    if (from->n_run_block == 0) {
        for (size_t i = 0; i < n; i++) {
            to->block[i] = TQI_BLOCK_UNKNOWN;
            to->offset[i] = 0;
            to->ready[i] = in->names != in->fields || !in->packed;
        }
        return TQ_OK;
    }
    for (size_t run = 0; run < from->n_run_block; run++) {
        int rc;
        if (from->run_rows[run] > n - row) {
            return wire_bad(in, "rows of the runs of field", from->name, row + from->run_rows[run], n);
        }
        rc = wire_run(in, from, to, row, run);
        if (rc != TQ_OK) {
            return rc;
        }
        row += from->run_rows[run];
    }
    return row == n ? TQ_OK : wire_bad(in, "rows of the runs of field", from->name, row, n);
}

static int wire_opaque(wire_in *in, const Tq__Field *from, tqi_client_cells *to)
{
    size_t n = in->meta->n;

    if (from->n_opaque == 0) {
        return TQ_OK;
    }
    if (from->n_opaque != n) {
        return wire_bad(in, "opaque cells of field", from->name, from->n_opaque, n);
    }
    to->opaque = tqi_region_zero(&in->meta->region, n, sizeof(*to->opaque));
    if (to->opaque == NULL) {
        return wire_nomem(in);
    }
    for (size_t i = 0; i < n; i++) {
        to->opaque[i].size = from->opaque[i].len;
        to->opaque[i].data = tqi_region_copy(&in->meta->region, from->opaque[i].data, from->opaque[i].len, 1);
        if (to->opaque[i].data == NULL) {
            return wire_nomem(in);
        }
    }
    return TQ_OK;
}

/* Type of each row, if they differ; `from` may be the reply to a publish, which says what rows are stored as. */
static int wire_types(wire_in *in, const Tq__Field *from, tqi_client_cells *to)
{
    size_t n = in->meta->n;

    if (from->n_type == 0 && from->n_row_type == 0) {
        return TQ_OK;
    }
    if (from->n_row_type != n) {
        return wire_bad(in, "types of rows of field", from->name, from->n_row_type, n);
    }
    for (size_t t = 0; t < from->n_type; t++) {
        if (from->type[t] >> 16 > TQ_VALUE || !tqi_client_dtype_known(tqi_type_dtype(from->type[t]))) {
            return wire_bad(in, "type of rows of field", from->name, from->type[t], 0);
        }
    }
    to->types = tqi_region_array(&in->meta->region, n, sizeof(*to->types));
    if (to->types == NULL) {
        return wire_nomem(in);
    }
    for (size_t i = 0; i < n; i++) {
        if (from->row_type[i] >= from->n_type) {
            return wire_bad(in, "type of a row of field", from->name, from->row_type[i], from->n_type);
        }
        uint32_t type = from->type[from->row_type[i]];
        to->types[i] = (tq_type){tqi_type_kind(type), tqi_type_dtype(type)};
    }
    to->pub.types = to->types;
    return TQ_OK;
}

static int wire_field(wire_in *in, const Tq__Field *from, const Tq__Field *known, tqi_client_cells *to)
{
    uint32_t ragged_dim = known->ragged_dim;
    tqi_region *region = &in->meta->region;
    size_t n = in->meta->n;
    int rc;

    if (known->kind > TQ_VALUE || known->dtype > UINT16_MAX || (known->n_type > 0 && !from->ragged)) {
        return wire_bad(in, "kind or dtype of field", from->name, known->kind, TQ_VALUE);
    }
    to->pub.kind = (tq_kind)known->kind;
    to->pub.dtype = tqi_type_dtype(known->dtype);
    to->pub.ragged = from->ragged;
    if (ragged_dim > TQ_NDIM_MAX && ragged_dim != TQ_RAGGED_MANY) {
        return wire_bad(in, "ragged dim of field", from->name, ragged_dim, TQ_NDIM_MAX);
    }
    to->pub.ragged_dim = (uint8_t)ragged_dim;
    if (!tqi_client_dtype_known(to->pub.dtype)) {
        return wire_bad(in, "dtype of field", from->name, from->dtype, 0);
    }
    rc = tqi_check_name("field", from->name, TQ_NAME_MAX, NULL);
    if (rc != TQ_OK) {
        return wire_bad(in, "bytes of the name of field", from->name, strlen(from->name), TQ_NAME_MAX);
    }
    to->pub.name = tqi_region_string(region, from->name);
    to->block = tqi_region_array(region, n, sizeof(*to->block));
    to->offset = tqi_region_array(region, n, sizeof(*to->offset));
    to->ready = tqi_region_array(region, n, 1);
    if (to->pub.name == NULL || to->block == NULL || to->offset == NULL || to->ready == NULL) {
        return wire_nomem(in);
    }
    to->pub.ready = to->ready;
    rc = wire_types(in, known, to);
    if (rc != TQ_OK) {
        return rc;
    }
    rc = from->ragged ? wire_ragged(in, from, to) : wire_uniform(in, from, to);
    rc = rc ? rc : wire_opaque(in, from, to);
    return rc ? rc : wire_runs(in, from, to);
}

/* --- names and tags ------------------------------------------------------- */

static int wire_tag(wire_in *in, const Tq__Tag *from, tq_meta_tag *to, uint64_t **starts)
{
    tqi_region *region = &in->meta->region;
    size_t n = in->meta->n;
    uint64_t start = 0;

    if (from->n_size != n) {
        return wire_bad(in, "sizes of tag", from->name, from->n_size, n);
    }
    *starts = tqi_region_array(region, n + 1, sizeof(**starts));
    to->name = tqi_region_string(region, from->name);
    to->sizes = tqi_region_copy(region, from->size, n, sizeof(*from->size));
    to->values = tqi_region_copy(region, from->values.data, from->values.len, 1);
    if (*starts == NULL || to->name == NULL || to->sizes == NULL || to->values == NULL) {
        return wire_nomem(in);
    }
    for (size_t i = 0; i < n; i++) {
        (*starts)[i] = start;
        start += from->size[i];
    }
    (*starts)[n] = start;
    return start == from->values.len ? TQ_OK : wire_bad(in, "bytes of tag", from->name, from->values.len, start);
}

static int wire_texts(wire_in *in, const char *what, char **texts, size_t given, const char ***out)
{
    size_t n = in->meta->n;

    if (given == 0) {
        return TQ_OK;
    }
    if (given != n) {
        return wire_bad(in, what, in->names->partition, given, n);
    }
    *out = tqi_unconst(tqi_region_strings(&in->meta->region, (const char *const *)texts, n, NULL));
    return *out ? TQ_OK : wire_nomem(in);
}

static int wire_names(wire_in *in)
{
    const Tq__Batch *batch = in->names;
    tq_meta *meta = in->meta;
    int rc;

    if (batch->n_incarnation != 0 && batch->n_incarnation != meta->n) {
        return wire_bad(in, "incarnations of partition", batch->partition, batch->n_incarnation, meta->n);
    }
    if (meta->n > 0) {
        memcpy(meta->indexes, batch->index, meta->n * sizeof(*batch->index));
    }
    if (batch->n_incarnation > 0) {
        memcpy(meta->incarnations, batch->incarnation, meta->n * sizeof(*batch->incarnation));
    }
    rc = wire_texts(in, "keys of partition", batch->key, batch->n_key, &meta->keys);
    rc = rc ? rc : wire_texts(in, "groups of partition", batch->group, batch->n_group, &meta->groups);
    for (size_t t = 0; t < batch->n_tag && rc == TQ_OK; t++) {
        rc = wire_tag(in, batch->tag[t], &meta->tags[t], &meta->tag_starts[t]);
    }
    return rc;
}

int tqi_client_meta_decode(const Tq__Batch *batch, const Tq__Batch *fields_of, uint64_t claim, bool packed,
                           tq_meta **out, tq_error *err)
{
    wire_in in = {.names = batch, .fields = fields_of != NULL ? fields_of : batch, .packed = packed, .err = err};
    int rc;

    *out = NULL;
    in.meta = tqi_client_meta_alloc(batch->partition, batch->n_index, in.fields->n_field, batch->n_tag);
    if (in.meta == NULL) {
        return wire_nomem(&in);
    }
    in.meta->epoch = batch->epoch;
    in.meta->claim = claim;
    rc = wire_names(&in);
    rc = rc ? rc : wire_blocks(&in);
    for (size_t f = 0; f < in.fields->n_field && rc == TQ_OK; f++) {
        /* The reply to a publish knows more of the field than what was published. */
        const Tq__Field *from = in.fields->field[f];
        bool told = fields_of != NULL && batch->n_field == in.fields->n_field;
        rc = wire_field(&in, from, told ? batch->field[f] : from, &in.meta->fields[f]);
    }
    if (rc != TQ_OK) {
        tq_meta_unref(in.meta);
        return rc;
    }
    *out = in.meta;
    return TQ_OK;
}

int tqi_client_clearings_decode(Tq__Clearing *const *from, size_t n, tqi_region *region, const tq_clearing ***out,
                                size_t *n_out, tq_error *err)
{
    tq_clearing *to = tqi_region_array(region, n, sizeof(*to));

    *out = tqi_region_array(region, n, sizeof(**out));
    if (to == NULL || *out == NULL) {
        return tqi_error_nomem(err, "clears");
    }
    for (size_t i = 0; i < n; i++) {
        tq_meta *meta = NULL;
        Tq__Batch *batch =
            (Tq__Batch *)tqi_reply_decode(&tq__batch__descriptor, from[i]->batch.data, from[i]->batch.len, err);
        int rc = batch != NULL ? tqi_client_meta_decode(batch, NULL, 0, false, &meta, err) : err->code;
        if (batch != NULL) {
            protobuf_c_message_free_unpacked(&batch->base, NULL);
        }
        if (rc != TQ_OK) {
            return rc;
        }
        to[i] = (tq_clearing){.id = from[i]->id, .begun = from[i]->begun, .meta = meta};
        (*out)[(*n_out)++] = &to[i];
    }
    return TQ_OK;
}
