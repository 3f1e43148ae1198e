/*
 * result.c - batches made by the table: the description of samples and cells as columns and runs.
 */
#include "table/result.h"

#include "base/buf.h"
#include "base/error.h"
#include "base/region.h"
#include "base/type.h"
#include "table/block.h"
#include "table/field.h"

void tqi_table_result_fini(tqi_table_result *result)
{
    tqi_region_fini(&result->region);
    memset(result, 0, sizeof(*result));
}

/* --- samples -------------------------------------------------------------- */

/* Keys and groups, each only if some sample has one. */
static int result_names(const tqi_table_row *rows, size_t n, tqi_table_result *result)
{
    const char **keys = NULL;
    const char **groups = NULL;

    for (size_t i = 0; i < n; i++) {
        const tqi_table_extras *extras = rows[i].extras;
        if (extras == NULL) {
            continue;
        }
        if (extras->key_size > 0) {
            keys = keys != NULL ? keys : tqi_region_zero(&result->region, n, sizeof(*keys));
            if (keys == NULL || (keys[i] = tqi_region_string(&result->region, extras->key)) == NULL) {
                return TQ_ENOMEM;
            }
        }
        if (extras->group != NULL) {
            groups = groups != NULL ? groups : tqi_region_zero(&result->region, n, sizeof(*groups));
            if (groups == NULL || (groups[i] = tqi_region_string(&result->region, extras->group->name)) == NULL) {
                return TQ_ENOMEM;
            }
        }
    }
    result->batch.keys = keys;
    result->batch.groups = groups;
    return TQ_OK;
}

int tqi_t_describe_samples(tqi_table_partition *partition, const tqi_table_row *rows, size_t n, bool keys, bool tags,
                           tqi_table_result *result, tq_error *err)
{
    uint32_t *indexes = tqi_region_zero(&result->region, n, sizeof(*indexes));
    uint32_t *incarnations = tqi_region_zero(&result->region, n, sizeof(*incarnations));
    uint64_t *ordinals = tqi_region_zero(&result->region, n, sizeof(*ordinals));

    result->batch.partition = tqi_region_string(&result->region, partition->name);
    if (indexes == NULL || incarnations == NULL || ordinals == NULL || result->batch.partition == NULL ||
        (keys && result_names(rows, n, result) != TQ_OK)) {
        return tqi_error_nomem(err, "reply");
    }
    for (size_t i = 0; i < n; i++) {
        indexes[i] = rows[i].index;
        incarnations[i] = rows[i].incarnation;
        ordinals[i] = rows[i].ordinal;
    }
    result->batch.n = n;
    result->batch.indexes = indexes;
    result->batch.incarnations = incarnations;
    result->batch.ordinals = ordinals;
    return tags ? tqi_t_tags_describe(partition->table, rows, n, result, err) : TQ_OK;
}

/* --- fields --------------------------------------------------------------- */

/* Growing arrays shared by all fields of one description. */
typedef struct result_scratch {
    tqi_table *table;
    tqi_table_result *result;
    uint64_t stamp;
    tqi_table_batch_block *blocks;
    size_t n_blocks;
    size_t blocks_capacity;
    tqi_table_run *runs;
    size_t n_runs;
    size_t runs_capacity;
} result_scratch;

/* Index of a block in the batch plus 1; 0 if out of memory. */
static uint32_t result_block(result_scratch *scratch, uint32_t handle)
{
    tqi_table_block *block = tqi_t_block(scratch->table, handle);
    tqi_table_batch_block *out;
    uint8_t *locator;

    if (block->stamp == scratch->stamp) {
        return block->place;
    }
    if (tqi_grow(&scratch->blocks, &scratch->blocks_capacity, scratch->n_blocks + 1, sizeof(*scratch->blocks)) != TQ_OK) {
        return 0;
    }
    locator = tqi_region_zero(&scratch->result->region, block->locator_size, 1);
    if (locator == NULL) {
        return 0;
    }
    memcpy(locator, block->locator, block->locator_size);
    out = &scratch->blocks[scratch->n_blocks++];
    *out = (tqi_table_batch_block){
        .id = block->id,
        .size = block->size,
        .owner = block->owner->name,
        .owner_incarnation = block->owner->incarnation,
        .locator = locator,
        .locator_size = block->locator_size,
    };
    block->stamp = scratch->stamp;
    block->place = (uint32_t)scratch->n_blocks;
    return block->place;
}

/* The runs of a field, coalesced; counts its bytes. */
static int result_runs(result_scratch *scratch, const tqi_table_field *field, const tqi_table_row *rows, size_t n)
{
    uint32_t handle = 0;   /* of the current run */
    uint64_t expected = 0; /* offset of a next row in the run */

    scratch->n_runs = 0;
    for (size_t i = 0; i < n; i++) {
        tqi_table_cell cell = tqi_t_cell(field, rows[i].row);
        bool stored = cell.block != TQI_BLOCK_OPAQUE && tqi_t_produced(cell.block);
        uint64_t bytes = tqi_t_produced(cell.block) ? tqi_t_cell_bytes(field, &cell) : 0;
        uint32_t place = cell.block; /* the marks are the same */

        scratch->result->bytes += bytes;
        if (scratch->n_runs > 0 && cell.block == handle && (!stored || cell.offset == expected)) {
            scratch->runs[scratch->n_runs - 1].rows++;
            expected += bytes;
            continue;
        }
        if (stored && (place = result_block(scratch, cell.block)) == 0) {
            return TQ_ENOMEM;
        }
        if (tqi_grow(&scratch->runs, &scratch->runs_capacity, scratch->n_runs + 1, sizeof(*scratch->runs)) != TQ_OK) {
            return TQ_ENOMEM;
        }
        scratch->runs[scratch->n_runs++] = (tqi_table_run){place, 1, stored ? cell.offset : 0};
        handle = cell.block;
        expected = cell.offset + bytes;
    }
    return TQ_OK;
}

/* Dims of each row of a ragged field. */
static int result_dims(result_scratch *scratch, const tqi_table_field *field, const tqi_table_row *rows, size_t n,
                       tqi_table_batch_field *out)
{
    size_t n_dims = 0;
    size_t at = 0;
    uint64_t room;
    uint32_t ndim;
    uint32_t *ndims = tqi_region_zero(&scratch->result->region, n, sizeof(*ndims));
    uint64_t *dims;
    bool same = true;

    if (ndims == NULL) {
        return TQ_ENOMEM;
    }
    for (size_t i = 0; i < n; i++) {
        (void)tqi_t_shape_dims(scratch->table, tqi_t_cell(field, rows[i].row).shape, &room, &ndims[i]);
        n_dims += ndims[i];
        same = same && ndims[i] == ndims[0];
    }
    dims = tqi_region_zero(&scratch->result->region, n_dims, sizeof(*dims));
    if (dims == NULL) {
        return TQ_ENOMEM;
    }
    for (size_t i = 0; i < n; i++) {
        const uint64_t *from = tqi_t_shape_dims(scratch->table, tqi_t_cell(field, rows[i].row).shape, &room, &ndim);
        memcpy(dims + at, from, ndim * sizeof(*dims));
        at += ndim;
    }
    out->ndims = ndims;
    out->n_ndims = same && n > 0 ? 1 : n;
    out->dims = dims;
    out->n_dims = n_dims;
    return TQ_OK;
}

static int result_uniform(result_scratch *scratch, const tqi_table_field *field, tqi_table_batch_field *out)
{
    uint64_t room;
    uint32_t ndim;
    const uint64_t *from = tqi_t_shape_dims(scratch->table, field->shape, &room, &ndim);
    uint64_t *shape = tqi_region_zero(&scratch->result->region, ndim, sizeof(*shape));

    if (shape == NULL) {
        return TQ_ENOMEM;
    }
    memcpy(shape, from, ndim * sizeof(*shape));
    out->ndim = ndim;
    out->shape = shape;
    return TQ_OK;
}

/* Copies the bytes of opaque cells, if there are any. */
static int result_opaque(result_scratch *scratch, const tqi_table_field *field, const tqi_table_row *rows, size_t n,
                         tqi_table_batch_field *out)
{
    tq_slice *slices = NULL;

    for (size_t i = 0; i < n; i++) {
        tqi_table_cell cell = tqi_t_cell(field, rows[i].row);
        const tqi_table_opaque *opaque = (const tqi_table_opaque *)(uintptr_t)cell.offset;
        uint8_t *copy;

        if (cell.block != TQI_BLOCK_OPAQUE) {
            continue;
        }
        slices = slices != NULL ? slices : tqi_region_zero(&scratch->result->region, n, sizeof(*slices));
        copy = tqi_region_zero(&scratch->result->region, opaque->size, 1);
        if (slices == NULL || copy == NULL) {
            return TQ_ENOMEM;
        }
        memcpy(copy, opaque->data, opaque->size);
        slices[i] = (tq_slice){copy, opaque->size};
    }
    out->opaque = slices;
    return TQ_OK;
}

/* Types of the rows: a single kind and dtype if all rows that count agree, else one per row. */
static int result_types(result_scratch *scratch, const tqi_table_field *field, const tqi_table_row *rows, size_t n,
                        tqi_table_batch_field *out)
{
    uint32_t found = 0, any = 0, *types;
    bool agree = true;

    if (field->foreign == 0) {
        return TQ_OK;
    }
    types = tqi_region_zero(&scratch->result->region, n, sizeof(*types));
    if (types == NULL) {
        return TQ_ENOMEM;
    }
    for (size_t pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < n; i++) {
            tqi_table_cell cell = tqi_t_cell(field, rows[i].row);
            if (!tqi_t_produced(cell.block)) {
                continue;
            }
            types[i] = tqi_t_cell_type(field, &cell);
            any = any != 0 ? any : types[i];
            if (tqi_t_cell_filled(field, &cell)) {
                found = found != 0 ? found : types[i];
                agree = agree && types[i] == found;
            } else if (pass == 1) {
                agree = agree && tqi_type_kind(found) == TQ_TENSOR;
            }
        }
        found = found != 0 ? found : any;
    }
    found = found != 0 ? found : tqi_t_field_type(field);
    for (size_t i = 0; i < n; i++) {
        types[i] = types[i] != 0 ? types[i] : found;
    }
    if (!agree) {
        found = types[0];
        out->types = types;
    }
    out->kind = tqi_type_kind(found);
    out->dtype = tqi_type_dtype(found);
    return TQ_OK;
}

static int result_field(result_scratch *scratch, const tqi_table_field *field, const tqi_table_row *rows, size_t n,
                        tqi_table_batch_field *out)
{
    tqi_table_run *runs;
    bool opaque = false;
    int rc;

    out->name = tqi_region_string(&scratch->result->region, field->name);
    if (out->name == NULL) {
        return TQ_ENOMEM;
    }
    out->kind = field->kind;
    out->dtype = field->dtype;
    out->ragged = field->known && field->ragged;
    out->ragged_dim = field->known ? field->ragged_dim : 0;
    rc = out->ragged ? result_dims(scratch, field, rows, n, out) : result_uniform(scratch, field, out);
    if (rc == TQ_OK) {
        rc = result_types(scratch, field, rows, n, out);
    }
    if (rc == TQ_OK) {
        rc = result_runs(scratch, field, rows, n);
    }
    if (rc != TQ_OK) {
        return rc;
    }
    runs = tqi_region_zero(&scratch->result->region, scratch->n_runs, sizeof(*runs));
    if (runs == NULL) {
        return TQ_ENOMEM;
    }
    if (scratch->n_runs > 0) {
        memcpy(runs, scratch->runs, scratch->n_runs * sizeof(*runs));
    }
    out->runs = runs;
    out->n_runs = scratch->n_runs;
    for (size_t i = 0; i < out->n_runs; i++) {
        opaque = opaque || runs[i].block == TQI_BLOCK_OPAQUE;
    }
    return opaque ? result_opaque(scratch, field, rows, n, out) : TQ_OK;
}

/* Moves the blocks into the result, with the names of their owners. */
static int result_blocks(result_scratch *scratch)
{
    tqi_table_batch_block *blocks = tqi_region_zero(&scratch->result->region, scratch->n_blocks, sizeof(*blocks));
    const char *owner = NULL;
    const char *copy = NULL;

    if (blocks == NULL) {
        return TQ_ENOMEM;
    }
    for (size_t i = 0; i < scratch->n_blocks; i++) {
        blocks[i] = scratch->blocks[i];
        /* Adjacent blocks mostly have the same owner: they share the copy of its name. */
        if (blocks[i].owner != owner) {
            owner = blocks[i].owner;
            copy = tqi_region_string(&scratch->result->region, owner);
            if (copy == NULL) {
                return TQ_ENOMEM;
            }
        }
        blocks[i].owner = copy;
    }
    scratch->result->batch.blocks = blocks;
    scratch->result->batch.n_blocks = scratch->n_blocks;
    return TQ_OK;
}

int tqi_t_describe_fields(tqi_table_partition *partition, const tqi_table_row *rows, size_t n,
                          tqi_table_field *const *fields, size_t n_fields, tqi_table_result *result, tq_error *err)
{
    result_scratch scratch = {.table = partition->table, .result = result, .stamp = ++partition->table->stamp};
    tqi_table_batch_field *out = tqi_region_zero(&result->region, n_fields, sizeof(*out));
    int rc = out != NULL ? TQ_OK : TQ_ENOMEM;

    for (size_t i = 0; rc == TQ_OK && i < n_fields; i++) {
        rc = result_field(&scratch, fields[i], rows, n, &out[i]);
    }
    if (rc == TQ_OK) {
        rc = result_blocks(&scratch);
    }
    result->batch.fields = out;
    result->batch.n_fields = n_fields;
    free(scratch.blocks);
    free(scratch.runs);
    return rc == TQ_OK ? TQ_OK : tqi_error_nomem(err, "reply");
}
