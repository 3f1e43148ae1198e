/*
 * pack.c - metas as bytes: a short header, then a ClaimReply message with runs, of the blocks
 * that are used.
 *
 * The header is "TQM" and the version of this format. Decoding uses the same code as for a controller's answer
 * (wire.c), so it is checked in the same way.
 */
#include "client/meta/meta.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/pointer.h"
#include "base/type.h"

#define PACK_HEADER 4u
static const uint8_t pack_magic[PACK_HEADER] = {'T', 'Q', 'M', 1};

typedef struct pack_out {
    tqi_region region;
    const tq_meta *meta;
    uint32_t *places; /* index in the message of each of the meta's blocks, plus 1; 0: unused */
    uint32_t n_blocks;
} pack_out;

static int pack_owner(Tq__Batch *batch, const tq_block *block, Tq__Owner *owners, uint32_t *place)
{
    for (size_t i = batch->n_owner; i > 0; i--) {
        const Tq__Owner *owner = &owners[i - 1];
        if (owner->incarnation == block->owner_incarnation && strcmp(owner->name, block->owner) == 0) {
            *place = (uint32_t)(i - 1);
            return TQ_OK;
        }
    }
    *place = (uint32_t)batch->n_owner;
    tq__owner__init(&owners[*place]);
    owners[*place].name = tqi_unconst(block->owner);
    owners[*place].incarnation = block->owner_incarnation;
    batch->owner[batch->n_owner++] = &owners[*place];
    return TQ_OK;
}

static int pack_blocks(pack_out *out, Tq__Batch *batch)
{
    const tq_meta *meta = out->meta;
    size_t n = meta->blocks != NULL ? meta->blocks->n : 0;
    Tq__Block *blocks;
    Tq__Owner *owners;

    out->places = tqi_region_zero(&out->region, n, sizeof(*out->places));
    if (out->places == NULL) {
        return TQ_ENOMEM;
    }
    for (size_t f = 0; f < meta->n_fields; f++) {
        for (size_t i = 0; i < meta->n; i++) {
            uint32_t block = meta->fields[f].block[i];
            if (tqi_block_named(block) && !out->places[block - 1]) {
                out->places[block - 1] = ++out->n_blocks;
            }
        }
    }
    blocks = tqi_region_array(&out->region, out->n_blocks, sizeof(*blocks));
    owners = tqi_region_array(&out->region, out->n_blocks, sizeof(*owners));
    batch->block = tqi_region_array(&out->region, out->n_blocks, sizeof(*batch->block));
    batch->owner = tqi_region_array(&out->region, out->n_blocks, sizeof(*batch->owner));
    if (blocks == NULL || owners == NULL || batch->block == NULL || batch->owner == NULL) {
        return TQ_ENOMEM;
    }
    batch->n_block = out->n_blocks;
    for (size_t b = 0; b < n; b++) {
        const tq_block *from = &meta->blocks->blocks[b];
        Tq__Block *to;
        if (!out->places[b]) {
            continue;
        }
        to = &blocks[out->places[b] - 1];
        tq__block__init(to);
        to->id = from->id;
        to->size = from->size;
        to->locator.data = tqi_unconst(from->locator);
        to->locator.len = from->locator_size;
        pack_owner(batch, from, owners, &to->owner);
        batch->block[out->places[b] - 1] = to;
    }
    return TQ_OK;
}

static uint32_t pack_mark(const pack_out *out, const tqi_client_cells *cells, size_t i)
{
    uint32_t block = cells->block[i];

    if (block == TQI_BLOCK_UNKNOWN) {
        return out->n_blocks + (cells->ready[i] ? TQI_MARK_UNKNOWN_READY : TQI_MARK_UNKNOWN);
    }
    return tqi_block_named(block) ? out->places[block - 1] : tqi_mark_pack(block, out->n_blocks);
}

static int pack_runs(pack_out *out, const tqi_client_cells *cells, Tq__Field *to)
{
    size_t n = out->meta->n;
    size_t runs = 0;
    uint64_t next = 0;

    to->run_block = tqi_region_array(&out->region, n, sizeof(*to->run_block));
    to->run_rows = tqi_region_array(&out->region, n, sizeof(*to->run_rows));
    to->run_offset = tqi_region_array(&out->region, n, sizeof(*to->run_offset));
    if (to->run_block == NULL || to->run_rows == NULL || to->run_offset == NULL) {
        return TQ_ENOMEM;
    }
    for (size_t i = 0; i < n; i++) {
        uint32_t mark = pack_mark(out, cells, i);
        bool placed = mark != 0 && mark <= out->n_blocks;
        if (runs > 0 && to->run_block[runs - 1] == mark && (!placed || next == cells->offset[i])) {
            to->run_rows[runs - 1]++;
        } else {
            to->run_block[runs] = mark;
            to->run_rows[runs] = 1;
            to->run_offset[runs++] = placed ? cells->offset[i] : 0;
        }
        next = placed ? cells->offset[i] + tqi_client_cells_size(cells, i) : 0;
    }
    to->n_run_block = runs;
    to->n_run_rows = runs;
    to->n_run_offset = runs;
    return TQ_OK;
}

static int pack_types(pack_out *out, const tqi_client_cells *cells, Tq__Field *to)
{
    size_t n = out->meta->n;

    if (cells->types == NULL || n == 0) {
        return TQ_OK;
    }
    to->type = tqi_region_array(&out->region, n, sizeof(*to->type));
    to->row_type = tqi_region_array(&out->region, n, sizeof(*to->row_type));
    if (to->type == NULL || to->row_type == NULL) {
        return TQ_ENOMEM;
    }
    for (size_t i = 0; i < n; i++) {
        uint32_t type = tqi_type_pack(cells->types[i].kind, cells->types[i].dtype);
        to->row_type[i] = tqi_type_place(to->type, &to->n_type, type);
    }
    to->n_row_type = n;
    return TQ_OK;
}

static int pack_field(pack_out *out, const tqi_client_cells *cells, Tq__Field *to)
{
    size_t n = out->meta->n;

    tq__field__init(to);
    to->name = tqi_unconst(cells->pub.name);
    to->kind = cells->pub.kind;
    to->dtype = tqi_type_pack(0, cells->pub.dtype);
    to->ragged = cells->pub.ragged;
    to->ragged_dim = cells->pub.ragged_dim;
    if (!cells->pub.ragged) {
        to->shape = tqi_unconst(cells->pub.shape);
        to->n_shape = cells->pub.ndim;
    } else if (cells->pub.ndims != NULL && n > 0) {
        to->ndims = tqi_unconst(cells->pub.ndims);
        to->n_ndims = n;
        to->dims = tqi_unconst(cells->pub.dims);
        to->n_dims = cells->starts[n];
    }
    if (cells->opaque != NULL) {
        to->opaque = tqi_region_array(&out->region, n, sizeof(*to->opaque));
        if (to->opaque == NULL) {
            return TQ_ENOMEM;
        }
        to->n_opaque = n;
        for (size_t i = 0; i < n; i++) {
            to->opaque[i].data = tqi_unconst(cells->opaque[i].data);
            to->opaque[i].len = cells->opaque[i].size;
        }
    }
    return pack_types(out, cells, to) ? TQ_ENOMEM : pack_runs(out, cells, to);
}

static int pack_texts(pack_out *out, const char **texts, char ***to, size_t *n)
{
    if (texts == NULL) {
        return TQ_OK;
    }
    *to = tqi_region_array(&out->region, out->meta->n, sizeof(**to));
    if (*to == NULL) {
        return TQ_ENOMEM;
    }
    *n = out->meta->n;
    for (size_t i = 0; i < *n; i++) {
        (*to)[i] = tqi_unconst(texts[i] != NULL ? texts[i] : "");
    }
    return TQ_OK;
}

static int pack_tags(pack_out *out, Tq__Batch *batch)
{
    const tq_meta *meta = out->meta;
    Tq__Tag *tags = tqi_region_array(&out->region, meta->n_tags, sizeof(*tags));

    batch->tag = tqi_region_array(&out->region, meta->n_tags, sizeof(*batch->tag));
    if (tags == NULL || batch->tag == NULL) {
        return TQ_ENOMEM;
    }
    batch->n_tag = meta->n_tags;
    for (size_t t = 0; t < meta->n_tags; t++) {
        tq__tag__init(&tags[t]);
        tags[t].name = tqi_unconst(meta->tags[t].name);
        tags[t].values.data = tqi_unconst(meta->tags[t].values);
        tags[t].values.len = meta->tag_starts[t][meta->n];
        tags[t].size = tqi_unconst(meta->tags[t].sizes);
        tags[t].n_size = meta->n;
        batch->tag[t] = &tags[t];
    }
    return TQ_OK;
}

static int pack_batch(pack_out *out, Tq__Batch *batch)
{
    const tq_meta *meta = out->meta;
    Tq__Field *fields = tqi_region_array(&out->region, meta->n_fields, sizeof(*fields));
    int rc;

    batch->partition = tqi_unconst(meta->partition);
    batch->epoch = meta->epoch;
    batch->index = meta->indexes;
    batch->n_index = meta->n;
    batch->incarnation = meta->incarnations;
    batch->n_incarnation = meta->n;
    batch->field = tqi_region_array(&out->region, meta->n_fields, sizeof(*batch->field));
    if (fields == NULL || batch->field == NULL) {
        return TQ_ENOMEM;
    }
    batch->n_field = meta->n_fields;
    rc = pack_texts(out, meta->keys, &batch->key, &batch->n_key);
    rc = rc ? rc : pack_texts(out, meta->groups, &batch->group, &batch->n_group);
    rc = rc ? rc : pack_tags(out, batch);
    rc = rc ? rc : pack_blocks(out, batch);
    for (size_t f = 0; f < meta->n_fields && rc == TQ_OK; f++) {
        batch->field[f] = &fields[f];
        rc = pack_field(out, &meta->fields[f], &fields[f]);
    }
    return rc;
}

int tq_meta_pack(const tq_meta *meta, uint8_t **out, size_t *size, tq_error *err)
{
    pack_out pack = {.meta = meta};
    Tq__ClaimReply message;
    Tq__Batch batch;
    uint8_t *bytes = NULL;
    size_t body;

    if (meta == NULL || out == NULL || size == NULL) {
        return tqi_error_null(err, meta == NULL  ? "tq_meta_pack: meta"
                                   : out == NULL ? "tq_meta_pack: out"
                                                 : "tq_meta_pack: size");
    }
    tq__claim_reply__init(&message);
    tq__batch__init(&batch);
    *out = NULL;
    if (pack_batch(&pack, &batch) == TQ_OK) {
        message.batch = &batch;
        message.claim = meta->claim;
        body = tq__claim_reply__get_packed_size(&message);
        bytes = malloc(PACK_HEADER + body);
    }
    if (bytes == NULL) {
        tqi_region_fini(&pack.region);
        return tqi_error_nomem(err, "packed metadata");
    }
    memcpy(bytes, pack_magic, PACK_HEADER);
    tq__claim_reply__pack(&message, bytes + PACK_HEADER);
    tqi_region_fini(&pack.region);
    *out = bytes;
    *size = PACK_HEADER + body;
    return TQ_OK;
}

int tq_meta_unpack(const uint8_t *bytes, size_t size, tq_meta **out, tq_error *err)
{
    Tq__ClaimReply *message;
    tq_error malformed = {0};
    int rc;

    if (bytes == NULL || out == NULL) {
        return tqi_error_null(err, bytes == NULL ? "tq_meta_unpack: bytes" : "tq_meta_unpack: out");
    }
    *out = NULL;
    if (size < PACK_HEADER || memcmp(bytes, pack_magic, PACK_HEADER) != 0) {
        return tqi_error_set(err, TQ_EPROTO, "packed metadata: not of this format or version");
    }
    message = (Tq__ClaimReply *)tqi_reply_decode(&tq__claim_reply__descriptor, bytes + PACK_HEADER, size - PACK_HEADER,
                                                 &malformed);
    if (message == NULL) {
        return tqi_error_set(err, malformed.code, "packed metadata: %.200s", malformed.message);
    }
    if (message->batch == NULL) {
        rc = tqi_error_set(err, TQ_EPROTO, "packed metadata: no batch");
    } else {
        rc = tqi_client_meta_decode(message->batch, NULL, message->claim, true, out, err);
    }
    protobuf_c_message_free_unpacked(&message->base, NULL);
    return rc;
}
