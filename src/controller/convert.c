/*
 * convert.c - see convert.h. Relies on protobuf-c keeping repeated scalars as plain arrays, and on decoded strings and
 * sub-messages of repeated fields never being NULL.
 */
#include "controller/convert.h"

#include <string.h>

#include "base/error.h"
#include "base/pointer.h"
#include "base/type.h"

/* --- memory --------------------------------------------------------------- */

void *tqi_ctl_conv_alloc(tqi_region *conv, size_t n, size_t item, tq_error *err)
{
    void *out = tqi_region_zero(conv, n, item);

    if (out == NULL) {
        tqi_error_nomem(err, "a message");
    }
    return out;
}

void *tqi_ctl_conv_pointers(tqi_region *conv, size_t n, tq_error *err)
{
    return tqi_ctl_conv_alloc(conv, n, sizeof(void *), err);
}

int tqi_ctl_conv_check_count(const char *what, size_t given, size_t n, tq_error *err)
{
    if (given != 0 && given != n) {
        return tqi_error_set(err, TQ_EINVAL, "%s: %zu given for %zu samples", what, given, n);
    }
    return TQ_OK;
}

/* --- received ------------------------------------------------------------- */

/* Shapes of a ragged field: one count of dims per row, or one for all; together they must match the number of dims. */
static int conv_ragged_in(const Tq__Field *in, size_t n, tq_error *err)
{
    uint64_t dims = 0;

    if (in->n_shape != 0) {
        return tqi_error_set(err, TQ_EINVAL, "field '%s': ragged, yet it has a shape", in->name);
    }
    if (in->n_ndims != 1 && in->n_ndims != n) {
        return tqi_error_set(err, TQ_EINVAL, "field '%s': %zu ndims given for %zu samples", in->name, in->n_ndims, n);
    }
    for (size_t i = 0; i < in->n_ndims; i++) {
        if (in->ndims[i] > TQ_NDIM_MAX) {
            return tqi_error_set(err, TQ_EINVAL, "field '%s': a row of %u dimensions, at most %d are possible",
                                 in->name, (unsigned)in->ndims[i], TQ_NDIM_MAX);
        }
        dims += in->ndims[i];
    }
    if (in->n_ndims == 1) {
        dims = (uint64_t)in->ndims[0] * n;
    }
    if (dims != in->n_dims) {
        return tqi_error_set(err, TQ_EINVAL, "field '%s': %zu dims given, its ndims say %llu", in->name, in->n_dims,
                             (unsigned long long)dims);
    }
    return TQ_OK;
}

/* Type of each row, if they differ. */
static int conv_types_in(tqi_region *conv, const Tq__Field *in, size_t n, tqi_table_batch_field *out, tq_error *err)
{
    uint32_t *types;

    if (in->n_type == 0 && in->n_row_type == 0) {
        return TQ_OK;
    }
    if (in->n_row_type != n || !in->ragged) {
        return tqi_error_set(err, TQ_EINVAL, "field '%s': types of %zu rows given for %zu samples", in->name,
                             in->n_row_type, n);
    }
    types = tqi_ctl_conv_alloc(conv, n, sizeof(*types), err);
    if (types == NULL) {
        return TQ_ENOMEM;
    }
    for (size_t i = 0; i < n; i++) {
        if (in->row_type[i] >= in->n_type || in->type[in->row_type[i]] >> 16 > TQ_VALUE) {
            return tqi_error_set(err, TQ_EINVAL, "field '%s': the type of row %zu is malformed", in->name, i);
        }
        types[i] = in->type[in->row_type[i]];
    }
    out->types = types;
    return TQ_OK;
}

static int conv_shape_in(const Tq__Field *in, size_t n, tq_error *err)
{
    if (in->kind > TQ_VALUE) {
        return tqi_error_set(err, TQ_EINVAL, "field '%s': unknown kind %u", in->name, (unsigned)in->kind);
    }
    if (in->dtype > UINT16_MAX) {
        return tqi_error_set(err, TQ_EINVAL, "field '%s': malformed dtype 0x%x", in->name, (unsigned)in->dtype);
    }
    if (!tqi_ctl_conv_ragged_dim_ok(in->ragged_dim)) {
        return tqi_error_set(err, TQ_EINVAL, "field '%s': dim %u cannot be the ragged one", in->name,
                             (unsigned)in->ragged_dim);
    }
    if (in->ragged) {
        return conv_ragged_in(in, n, err);
    }
    if (in->n_ndims != 0 || in->n_dims != 0) {
        return tqi_error_set(err, TQ_EINVAL, "field '%s': uniform, yet it has shapes per row", in->name);
    }
    if (in->n_shape > TQ_NDIM_MAX) {
        return tqi_error_set(err, TQ_EINVAL, "field '%s': %zu dimensions, at most %d are possible", in->name,
                             in->n_shape, TQ_NDIM_MAX);
    }
    return TQ_OK;
}

/* Fills runs. */
static int conv_runs_in(const Tq__Field *in, size_t n, size_t n_blocks, tqi_table_run *runs, bool *opaque, tq_error *err)
{
    uint64_t rows = 0;

    for (size_t i = 0; i < in->n_run_block; i++) {
        uint64_t block = in->run_block[i];
        runs[i].rows = in->run_rows[i];
        runs[i].offset = in->run_offset[i];
        rows += in->run_rows[i];
        if (in->run_rows[i] == 0) {
            return tqi_error_set(err, TQ_EINVAL, "field '%s': run %zu has no rows", in->name, i);
        }
        runs[i].block = tqi_mark_unpack(block, n_blocks);
        *opaque = *opaque || runs[i].block == TQI_BLOCK_OPAQUE;
        if (runs[i].block == TQI_BLOCK_UNKNOWN) {
            return tqi_error_set(err, TQ_EINVAL, "field '%s': run %zu names block %u of %zu", in->name, i,
                                 (unsigned)block, n_blocks);
        }
    }
    if (rows != n) {
        return tqi_error_set(err, TQ_EINVAL, "field '%s': its runs cover %llu rows of %zu samples", in->name,
                             (unsigned long long)rows, n);
    }
    return TQ_OK;
}

static int conv_field_in(tqi_region *conv, const Tq__Field *in, size_t n, size_t n_blocks, tqi_table_batch_field *out,
                         tq_error *err)
{
    bool opaque = false;
    int rc = conv_shape_in(in, n, err);

    if (rc) {
        return rc;
    }
    if (in->n_run_offset != in->n_run_block || in->n_run_rows != in->n_run_block) {
        return tqi_error_set(err, TQ_EINVAL, "field '%s': %zu run_block, %zu run_offset and %zu run_rows", in->name,
                             in->n_run_block, in->n_run_offset, in->n_run_rows);
    }
    tqi_table_run *runs = tqi_ctl_conv_alloc(conv, in->n_run_block, sizeof(*runs), err);
    if (runs == NULL) {
        return TQ_ENOMEM;
    }
    rc = conv_runs_in(in, n, n_blocks, runs, &opaque, err);
    if (rc) {
        return rc;
    }
    if (in->n_opaque != (opaque ? n : 0)) {
        return tqi_error_set(err, TQ_EINVAL, "field '%s': %zu opaque cells given for %zu samples", in->name,
                             in->n_opaque, opaque ? n : 0);
    }
    *out = (tqi_table_batch_field){
        .name = in->name,
        .kind = (uint8_t)in->kind,
        .dtype = tqi_type_dtype(in->dtype),
        .ragged = in->ragged,
        .ragged_dim = (uint8_t)in->ragged_dim,
        .ndim = (uint32_t)in->n_shape,
        .shape = in->shape,
        .ndims = in->ndims,
        .n_ndims = in->n_ndims,
        .dims = in->dims,
        .n_dims = in->n_dims,
        .runs = runs,
        .n_runs = in->n_run_block,
    };
    if (opaque) {
        tq_slice *slices = tqi_ctl_conv_alloc(conv, n, sizeof(*slices), err);
        if (slices == NULL) {
            return TQ_ENOMEM;
        }
        for (size_t i = 0; i < n; i++) {
            slices[i] = (tq_slice){.data = in->opaque[i].data, .size = in->opaque[i].len};
        }
        out->opaque = slices;
    }
    return conv_types_in(conv, in, n, out, err);
}

static int conv_tag_in(const Tq__Tag *in, size_t n, tqi_table_batch_tag *out, tq_error *err)
{
    uint64_t size = 0;

    if (in->n_size != n) {
        return tqi_error_set(err, TQ_EINVAL, "tag '%s': %zu sizes given for %zu samples", in->name, in->n_size, n);
    }
    for (size_t i = 0; i < n; i++) {
        size += in->size[i];
    }
    if (size != in->values.len) {
        return tqi_error_set(err, TQ_EINVAL, "tag '%s': %zu bytes of values, its sizes say %llu", in->name,
                             in->values.len, (unsigned long long)size);
    }
    *out = (tqi_table_batch_tag){
        .name = in->name,
        .values = in->values.data,
        .values_size = in->values.len,
        .sizes = in->size,
    };
    return TQ_OK;
}

int tqi_ctl_conv_block_in(const Tq__Block *in, const Tq__Owner *owner, tqi_table_batch_block *out, tq_error *err)
{
    if (in->locator.len > TQ_LOCATOR_MAX) {
        return tqi_error_set(err, TQ_EINVAL, "block %llu: locator of %zu bytes, at most %d are possible",
                             (unsigned long long)in->id, in->locator.len, TQ_LOCATOR_MAX);
    }
    *out = (tqi_table_batch_block){
        .id = in->id,
        .size = in->size,
        .owner = owner->name,
        .owner_incarnation = owner->incarnation,
        .locator = in->locator.data,
        .locator_size = in->locator.len,
    };
    return TQ_OK;
}

static int conv_blocks_in(tqi_region *conv, const Tq__Batch *in, tqi_table_batch *out, tq_error *err)
{
    tqi_table_batch_block *blocks = tqi_ctl_conv_alloc(conv, in->n_block, sizeof(*blocks), err);

    if (blocks == NULL) {
        return TQ_ENOMEM;
    }
    for (size_t i = 0; i < in->n_block; i++) {
        const Tq__Block *block = in->block[i];
        if (block->owner >= in->n_owner) {
            return tqi_error_set(err, TQ_EINVAL, "block %llu: owner %u of %zu", (unsigned long long)block->id,
                                 (unsigned)block->owner, in->n_owner);
        }
        int rc = tqi_ctl_conv_block_in(block, in->owner[block->owner], &blocks[i], err);
        if (rc) {
            return rc;
        }
    }
    out->blocks = blocks;
    out->n_blocks = in->n_block;
    return TQ_OK;
}

/* Counts of the arrays that name samples. */
static int conv_names_in(const Tq__Batch *in, size_t n, tq_error *err)
{
    int rc = tqi_ctl_conv_check_count("index", in->n_index, n, err);

    rc = rc ? rc : tqi_ctl_conv_check_count("incarnation", in->n_incarnation, in->n_index, err);
    rc = rc ? rc : tqi_ctl_conv_check_count("key", in->n_key, n, err);
    rc = rc ? rc : tqi_ctl_conv_check_count("group", in->n_group, n, err);
    return rc;
}

int tqi_ctl_conv_batch_in(tqi_region *conv, const Tq__Batch *in, size_t samples, tqi_table_batch *out, tq_error *err)
{
    int rc = conv_names_in(in, samples, err);

    if (rc) {
        return rc;
    }
    *out = (tqi_table_batch){
        .partition = in->partition,
        .n = samples,
        .indexes = in->n_index ? in->index : NULL,
        .incarnations = in->n_incarnation ? in->incarnation : NULL,
        .keys = in->n_key ? (const char *const *)in->key : NULL,
        .groups = in->n_group ? (const char *const *)in->group : NULL,
    };
    rc = conv_blocks_in(conv, in, out, err);
    if (rc) {
        return rc;
    }
    tqi_table_batch_tag *tags = tqi_ctl_conv_alloc(conv, in->n_tag, sizeof(*tags), err);
    tqi_table_batch_field *fields = tqi_ctl_conv_alloc(conv, in->n_field, sizeof(*fields), err);
    if (tags == NULL || fields == NULL) {
        return TQ_ENOMEM;
    }
    for (size_t i = 0; i < in->n_tag && rc == TQ_OK; i++) {
        rc = conv_tag_in(in->tag[i], samples, &tags[i], err);
    }
    for (size_t i = 0; i < in->n_field && rc == TQ_OK; i++) {
        rc = conv_field_in(conv, in->field[i], samples, in->n_block, &fields[i], err);
    }
    out->tags = tags;
    out->n_tags = in->n_tag;
    out->fields = fields;
    out->n_fields = in->n_field;
    return rc;
}

/* --- to send -------------------------------------------------------------- */

/* Splits runs into their three columns, and opaque cells into protobuf-c's bytes. */
static int conv_runs_out(tqi_region *conv, const tqi_table_batch_field *in, const tqi_table_batch *batch,
                         Tq__Field *out, tq_error *err)
{
    uint32_t *blocks = tqi_ctl_conv_alloc(conv, in->n_runs, sizeof(*blocks), err);
    uint32_t *rows = tqi_ctl_conv_alloc(conv, in->n_runs, sizeof(*rows), err);
    uint64_t *offsets = tqi_ctl_conv_alloc(conv, in->n_runs, sizeof(*offsets), err);

    if (blocks == NULL || rows == NULL || offsets == NULL) {
        return TQ_ENOMEM;
    }
    for (size_t i = 0; i < in->n_runs; i++) {
        blocks[i] = tqi_mark_pack(in->runs[i].block, (uint32_t)batch->n_blocks);
        rows[i] = in->runs[i].rows;
        offsets[i] = in->runs[i].offset;
    }
    out->run_block = blocks;
    out->run_rows = rows;
    out->run_offset = offsets;
    out->n_run_block = out->n_run_rows = out->n_run_offset = in->n_runs;
    if (in->opaque != NULL) {
        out->opaque = tqi_ctl_conv_alloc(conv, batch->n, sizeof(*out->opaque), err);
        if (out->opaque == NULL) {
            return TQ_ENOMEM;
        }
        out->n_opaque = batch->n;
        for (size_t i = 0; i < batch->n; i++) {
            out->opaque[i] = tqi_ctl_conv_bytes(in->opaque[i].data, in->opaque[i].size);
        }
    }
    return TQ_OK;
}

/* Makes a table of the distinct types, and each row's index in it. */
static int conv_types_out(tqi_region *conv, const tqi_table_batch_field *in, size_t n, Tq__Field *out, tq_error *err)
{
    if (in->types == NULL || n == 0) {
        return TQ_OK;
    }
    out->type = tqi_ctl_conv_alloc(conv, n, sizeof(*out->type), err);
    out->row_type = tqi_ctl_conv_alloc(conv, n, sizeof(*out->row_type), err);
    if (out->type == NULL || out->row_type == NULL) {
        return TQ_ENOMEM;
    }
    for (size_t i = 0; i < n; i++) {
        out->row_type[i] = tqi_type_place(out->type, &out->n_type, in->types[i]);
    }
    out->n_row_type = n;
    return TQ_OK;
}

static int conv_fields_out(tqi_region *conv, const tqi_table_batch *in, Tq__Batch *out, tq_error *err)
{
    Tq__Field *fields = tqi_ctl_conv_alloc(conv, in->n_fields, sizeof(*fields), err);

    out->field = tqi_ctl_conv_pointers(conv, in->n_fields, err);
    if (fields == NULL || out->field == NULL) {
        return TQ_ENOMEM;
    }
    out->n_field = in->n_fields;
    for (size_t i = 0; i < in->n_fields; i++) {
        const tqi_table_batch_field *from = &in->fields[i];
        Tq__Field *to = &fields[i];
        tq__field__init(to);
        to->name = tqi_ctl_conv_text(from->name);
        to->kind = from->kind;
        to->dtype = tqi_type_pack(0, from->dtype);
        to->ragged = from->ragged;
        to->ragged_dim = from->ragged_dim;
        to->shape = tqi_unconst(from->shape);
        to->n_shape = from->ragged ? 0 : from->ndim;
        to->ndims = tqi_unconst(from->ndims);
        to->n_ndims = from->n_ndims;
        to->dims = tqi_unconst(from->dims);
        to->n_dims = from->n_dims;
        out->field[i] = to;
        int rc = conv_runs_out(conv, from, in, to, err);
        rc = rc ? rc : conv_types_out(conv, from, in->n, to, err);
        if (rc) {
            return rc;
        }
    }
    return TQ_OK;
}

static int conv_tags_out(tqi_region *conv, const tqi_table_batch *in, Tq__Batch *out, tq_error *err)
{
    Tq__Tag *tags = tqi_ctl_conv_alloc(conv, in->n_tags, sizeof(*tags), err);

    out->tag = tqi_ctl_conv_pointers(conv, in->n_tags, err);
    if (tags == NULL || out->tag == NULL) {
        return TQ_ENOMEM;
    }
    out->n_tag = in->n_tags;
    for (size_t i = 0; i < in->n_tags; i++) {
        const tqi_table_batch_tag *from = &in->tags[i];
        tq__tag__init(&tags[i]);
        tags[i].name = tqi_ctl_conv_text(from->name);
        tags[i].values = tqi_ctl_conv_bytes(from->values, from->values_size);
        tags[i].size = tqi_unconst(from->sizes);
        tags[i].n_size = in->n;
        out->tag[i] = &tags[i];
    }
    return TQ_OK;
}

/* Index of a block's owner in the message; the owner is added if it is not there yet. */
static uint32_t conv_owner_place(const tqi_table_batch_block *block, Tq__Owner *owners, Tq__Batch *out)
{
    /* Blocks of one owner mostly follow each other: look from the newest. */
    for (size_t i = out->n_owner; i > 0; i--) {
        const Tq__Owner *owner = &owners[i - 1];
        if (owner->incarnation == block->owner_incarnation && strcmp(owner->name, block->owner) == 0) {
            return (uint32_t)(i - 1);
        }
    }
    Tq__Owner *owner = &owners[out->n_owner];
    tq__owner__init(owner);
    owner->name = tqi_ctl_conv_text(block->owner);
    owner->incarnation = block->owner_incarnation;
    out->owner[out->n_owner] = owner;
    return (uint32_t)out->n_owner++;
}

static int conv_blocks_out(tqi_region *conv, const tqi_table_batch *in, Tq__Batch *out, tq_error *err)
{
    Tq__Block *blocks = tqi_ctl_conv_alloc(conv, in->n_blocks, sizeof(*blocks), err);
    Tq__Owner *owners = tqi_ctl_conv_alloc(conv, in->n_blocks, sizeof(*owners), err);

    out->block = tqi_ctl_conv_pointers(conv, in->n_blocks, err);
    out->owner = tqi_ctl_conv_pointers(conv, in->n_blocks, err);
    if (blocks == NULL || owners == NULL || out->block == NULL || out->owner == NULL) {
        return TQ_ENOMEM;
    }
    out->n_block = in->n_blocks;
    for (size_t i = 0; i < in->n_blocks; i++) {
        const tqi_table_batch_block *from = &in->blocks[i];
        tq__block__init(&blocks[i]);
        blocks[i].id = from->id;
        blocks[i].size = from->size;
        blocks[i].locator = tqi_ctl_conv_bytes(from->locator, from->locator_size);
        blocks[i].owner = conv_owner_place(from, owners, out);
        out->block[i] = &blocks[i];
    }
    return TQ_OK;
}

/* Optional strings, with NULL as ""; protobuf-c does not accept NULL inside an array. NULL: out of memory. */
static char **conv_texts_out(tqi_region *conv, const char *const *texts, size_t n, tq_error *err)
{
    size_t i = 0;

    while (i < n && texts[i] != NULL) {
        i++;
    }
    if (i == n) {
        return tqi_unconst(texts);
    }
    char **out = tqi_ctl_conv_pointers(conv, n, err);
    for (i = 0; out != NULL && i < n; i++) {
        out[i] = tqi_ctl_conv_text(texts[i]);
    }
    return out;
}

static int conv_names_out(tqi_region *conv, const tqi_table_batch *in, Tq__Batch *out, tq_error *err)
{
    if (in->keys != NULL && in->n) {
        out->key = conv_texts_out(conv, in->keys, in->n, err);
        out->n_key = out->key != NULL ? in->n : 0;
    }
    if (in->groups != NULL && in->n) {
        out->group = conv_texts_out(conv, in->groups, in->n, err);
        out->n_group = out->group != NULL ? in->n : 0;
    }
    return (in->keys != NULL && in->n && out->key == NULL) || (in->groups != NULL && in->n && out->group == NULL)
               ? TQ_ENOMEM
               : TQ_OK;
}

int tqi_ctl_conv_batch_out(tqi_region *conv, const tqi_table_batch *in, uint64_t epoch, Tq__Batch *out, tq_error *err)
{
    tq__batch__init(out);
    out->partition = tqi_ctl_conv_text(in->partition);
    out->epoch = epoch;
    out->index = tqi_unconst(in->indexes);
    out->n_index = in->indexes != NULL ? in->n : 0;
    out->incarnation = tqi_unconst(in->incarnations);
    out->n_incarnation = in->incarnations != NULL ? in->n : 0;
    out->ordinal = tqi_unconst(in->ordinals);
    out->n_ordinal = in->ordinals != NULL ? in->n : 0;
    int rc = conv_names_out(conv, in, out, err);
    rc = rc ? rc : conv_tags_out(conv, in, out, err);
    rc = rc ? rc : conv_fields_out(conv, in, out, err);
    rc = rc ? rc : conv_blocks_out(conv, in, out, err);
    return rc;
}
