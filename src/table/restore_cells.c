/*
 * restore_cells.c - the storage of a restore being prepared: blocks, schemas and cells. See restore.h.
 */
#include "base/error.h"
#include "base/type.h"
#include "table/block.h"
#include "table/field.h"
#include "table/publish_plan.h"
#include "table/restore.h"

/* --- blocks --------------------------------------------------------------- */

static int restore_block_order(const void *left, const void *right)
{
    uint64_t a = ((const tqi_table_restore_block *)left)->in->id;
    uint64_t b = ((const tqi_table_restore_block *)right)->in->id;

    return a < b ? -1 : a > b;
}

static bool restore_block_same(const tqi_table_batch_block *a, const tqi_table_batch_block *b)
{
    return a->size == b->size && a->owner_incarnation == b->owner_incarnation && strcmp(a->owner, b->owner) == 0;
}

/* The block still exists where the snapshot says: its cells are relinked to it. */
static void restore_block_live(const tqi_table_restoring *run, const tqi_table_restore_part *part,
                               tqi_table_restore_block *block)
{
    uint32_t handle = tqi_t_block_find(run->table, block->in->id);
    const tqi_table_block *live = handle != 0 ? tqi_t_block(run->table, handle) : NULL;

    if (live != NULL && live->partition == part->old && live->size == block->in->size &&
        live->owner->incarnation == block->in->owner_incarnation && strcmp(live->owner->name, block->in->owner) == 0) {
        block->handle = handle;
    }
}

static int restore_block_fresh(const tqi_table_restoring *run, const tqi_table_session *session,
                               tqi_table_restore_block *block, tq_error *err)
{
    const tqi_table_batch_block *in = block->in;
    tqi_table_range *range = session != NULL ? tqi_t_range_find(session, in->id) : NULL;

    if (range == NULL) {
        return tqi_t_block_refuse(run->table, in, err); /* perhaps it ended with its owner */
    }
    if (strcmp(range->owner->name, in->owner) != 0 || range->owner->incarnation != in->owner_incarnation) {
        return tqi_error_set(err, TQ_EINVAL, "block %llu is not an unpublished block of this session and owner '%s'",
                             (unsigned long long)in->id, in->owner);
    }
    if (in->locator_size > TQ_LOCATOR_MAX) {
        return tqi_error_set(err, TQ_EINVAL, "locator of block %llu has %zu bytes, at most %d are possible",
                             (unsigned long long)in->id, in->locator_size, TQ_LOCATOR_MAX);
    }
    tqi_t_range_mark(range, in->id, true);
    block->range = range;
    return TQ_OK;
}

/* Each block once; a block is named by every piece of the samples that lie in it. */
static int restore_collect(tqi_table_restore_part *part, tq_error *err)
{
    size_t n = 0;
    size_t kept = 0;

    for (size_t r = 0; r < part->in->n_rows; r++) {
        n += part->in->rows[r].batch.n_blocks;
    }
    part->blocks = calloc(n > 0 ? n : 1, sizeof(*part->blocks));
    if (part->blocks == NULL) {
        return tqi_error_nomem(err, "blocks");
    }
    n = 0;
    for (size_t r = 0; r < part->in->n_rows; r++) {
        const tqi_table_batch *batch = &part->in->rows[r].batch;
        for (size_t i = 0; i < batch->n_blocks; i++) {
            if (batch->blocks[i].owner == NULL) {
                return tqi_error_set(err, TQ_EINVAL, "block %llu has no owner", (unsigned long long)batch->blocks[i].id);
            }
            part->blocks[n++].in = &batch->blocks[i];
        }
    }
    qsort(part->blocks, n, sizeof(*part->blocks), restore_block_order);
    for (size_t i = 0; i < n; i++) {
        const tqi_table_batch_block *in = part->blocks[i].in;
        if (kept > 0 && part->blocks[kept - 1].in->id == in->id) {
            if (!restore_block_same(part->blocks[kept - 1].in, in)) {
                return tqi_error_set(err, TQ_EINVAL, "block %llu is described in two ways", (unsigned long long)in->id);
            }
            continue;
        }
        part->blocks[kept++].in = in;
    }
    part->n_blocks = kept;
    return kept < TQI_BLOCK_OPAQUE - 1 ? TQ_OK : tqi_error_set(err, TQ_EFULL, "too many blocks");
}

int tqi_t_restore_blocks(const tqi_table_restoring *run, tqi_table_restore_part *part, tq_error *err)
{
    const tqi_table_session *session = tqi_t_session_find(run->table, run->ask->session);
    int rc = restore_collect(part, err);

    for (size_t i = 0; rc == TQ_OK && i < part->n_blocks; i++) {
        if (part->blocks[i].in == NULL) {
            continue; /* never: all are filled in */
        }
        if (run->ask->relink) {
            restore_block_live(run, part, &part->blocks[i]);
        } else {
            rc = restore_block_fresh(run, session, &part->blocks[i], err);
        }
    }
    return rc;
}

/* --- schemas -------------------------------------------------------------- */

static int restore_schema(tqi_table_restore_part *part, const tqi_table_field_info *in, tq_error *err)
{
    tqi_table *table = part->made->table;
    uint32_t shape = TQI_TABLE_SHAPE_NONE;
    tqi_table_field *field;
    int rc = tqi_t_field_get(part->made, in->name, &field, err);

    if (rc != TQ_OK) {
        return rc;
    }
    if (field->known || in->kind > TQ_VALUE || in->dtype.bits == 0 || in->dtype.bits % 8 != 0 ||
        (!in->ragged && in->ndim > TQ_NDIM_MAX) ||
        (in->kind == TQ_VALUE && (!in->ragged || in->dtype.code != TQ_UINT || in->dtype.bits != 8))) {
        rc = tqi_error_set(err, TQ_EINVAL, "partition '%s': the schema of field '%s' is malformed", part->made->name,
                           in->name);
    }
    if (rc == TQ_OK && !in->ragged) {
        rc = tqi_t_shape_get(table, in->ndim, in->shape, &shape, err);
    }
    if (rc != TQ_OK) {
        tqi_t_field_gc(field);
        return rc;
    }
    tqi_t_field_learn(field, in->kind, in->dtype, shape);
    tqi_t_field_set_ragged_dim(field, in->ragged_dim, TQI_TABLE_SHAPE_NONE);
    return part->n > 0 ? tqi_t_field_reserve(field, part->n, err) : TQ_OK;
}

/* --- cells ---------------------------------------------------------------- */

/* A walk over the rows of one field of one piece. */
typedef struct restore_walk {
    tqi_table_restoring *run;
    tqi_table_restore_part *part;
    const tqi_table_batch *batch;
    const tqi_table_batch_field *in;
    tqi_table_field *field;
    size_t base; /* row of the piece's first sample */
    size_t dims; /* place in in->dims */
} restore_walk;

static int restore_bad(const restore_walk *walk, const char *what, tq_error *err)
{
    return tqi_error_set(err, TQ_EINVAL, "partition '%s', field '%s': %s", walk->part->made->name, walk->field->name,
                         what);
}

static void restore_lose(const restore_walk *walk, size_t row)
{
    walk->field->cells[row] = (tqi_table_cell){.block = TQI_BLOCK_LOST};
    walk->field->lost++;
    walk->run->out.lost++;
    roaring_bitmap_add(walk->part->made->lost, walk->part->indexes[row]);
}

static uint32_t restore_type(const tqi_table_batch_field *in, size_t i)
{
    return in->types != NULL ? in->types[i] : tqi_type_pack(in->kind, in->dtype);
}

/* Dims of row i of the piece; NULL if there are too few. */
static const uint64_t *restore_dims(restore_walk *walk, size_t i, uint32_t *ndim)
{
    static const uint64_t none[1];
    const tqi_table_batch_field *in = walk->in;
    const uint64_t *dims;

    *ndim = in->ragged ? in->ndims[in->n_ndims == 1 ? 0 : i] : in->ndim;
    if (*ndim == 0) {
        return none;
    }
    if (!in->ragged) {
        return in->shape;
    }
    if (*ndim > in->n_dims - walk->dims) {
        return NULL;
    }
    dims = in->dims + walk->dims;
    walk->dims += *ndim;
    return dims;
}

/* The block of a run, NULL: its cells are lost. */
static tqi_table_restore_block *restore_block_of(const restore_walk *walk, uint32_t place)
{
    tqi_table_restore_block key = {.in = &walk->batch->blocks[place - 1]};
    tqi_table_restore_block *block =
        bsearch(&key, walk->part->blocks, walk->part->n_blocks, sizeof(*walk->part->blocks), restore_block_order);

    return block->range != NULL || block->handle != 0 ? block : NULL;
}

/* Counts an existing cell; its shape has already been counted. */
static void restore_link(const restore_walk *walk, size_t row, tqi_table_cell cell)
{
    tqi_table_partition *made = walk->part->made;

    walk->field->cells[row] = cell;
    walk->field->produced++;
    tqi_t_cell_count(walk->field, &cell);
    if (walk->field->kind == TQ_TENSOR) {
        uint32_t like = walk->field->like;
        uint8_t dim = walk->field->ragged_dim; /* checkpoints of old versions do not have it */
        tqi_t_shape_vary(made->table, cell.shape, &like, &dim);
        tqi_t_field_set_ragged_dim(walk->field, dim, like);
    }
    made->live_cells++;
    made->bytes += tqi_t_cell_bytes(walk->field, &cell);
}

static int restore_opaque(const restore_walk *walk, size_t i, uint32_t shape, tq_error *err)
{
    const tq_slice *slice = walk->in->opaque != NULL ? &walk->in->opaque[i] : NULL;
    tqi_table_opaque *opaque;

    if (slice == NULL) {
        tqi_t_shape_unref(walk->run->table, shape, 1);
        return restore_bad(walk, "a cell of a manager that keys by index has no note", err);
    }
    if (walk->run->out.renumbered) {
        /* The manager keeps the data under the sample's former index. */
        tqi_t_shape_unref(walk->run->table, shape, 1);
        restore_lose(walk, walk->base + i);
        return TQ_OK;
    }
    opaque = malloc(sizeof(*opaque) + slice->size);
    if (opaque == NULL) {
        tqi_t_shape_unref(walk->run->table, shape, 1);
        return tqi_error_nomem(err, "cells");
    }
    opaque->size = slice->size;
    if (slice->size > 0) {
        memcpy(opaque->data, slice->data, slice->size);
    }
    restore_link(walk, walk->base + i, (tqi_table_cell){TQI_BLOCK_OPAQUE, shape, (uint64_t)(uintptr_t)opaque});
    return TQ_OK;
}

/* One produced cell; advances *offset past it. */
static int restore_cell(restore_walk *walk, size_t i, const tqi_table_run *run, tqi_table_restore_block *block,
                        uint64_t *offset, tq_error *err)
{
    const tqi_table_field *field = walk->field;
    uint64_t bytes = 0;
    uint32_t ndim, shape;
    const uint64_t *dims = restore_dims(walk, i, &ndim);
    uint32_t type = restore_type(walk->in, i);
    uint32_t own = tqi_t_field_type(field);
    int rc;

    if (dims == NULL || (tqi_type_kind(type) == TQ_VALUE && ndim != 1)) {
        return restore_bad(walk, "the shape of a row is malformed", err);
    }
    rc = tqi_t_shape_get_typed(walk->run->table, tqi_t_relative_type(own, type, ndim, dims), ndim, dims, &shape, err);
    if (rc != TQ_OK) {
        return rc;
    }
    if (run->block == TQI_BLOCK_OPAQUE) {
        rc = restore_opaque(walk, i, shape, err);
    } else if (__builtin_mul_overflow(tqi_t_shape_elements(walk->run->table, shape), (uint64_t)tqi_type_size(type),
                                      &bytes) ||
               bytes > walk->batch->blocks[run->block - 1].size ||
               *offset > walk->batch->blocks[run->block - 1].size - bytes) {
        tqi_t_shape_unref(walk->run->table, shape, 1);
        rc = restore_bad(walk, "a row does not fit into its block", err);
    } else if (block == NULL) {
        tqi_t_shape_unref(walk->run->table, shape, 1);
        restore_lose(walk, walk->base + i);
    } else {
        uint32_t row = (uint32_t)(walk->base + i);
        block->row_first = block->cells == 0 || row < block->row_first ? row : block->row_first;
        block->row_last = row > block->row_last ? row : block->row_last;
        block->cells++;
        block->bytes += bytes;
        restore_link(walk, walk->base + i, (tqi_table_cell){(uint32_t)(block - walk->part->blocks) + 1, shape, *offset});
    }
    *offset += bytes;
    if (rc == TQ_OK && !field->ragged && field->cells[walk->base + i].block != TQI_BLOCK_LOST && shape != field->shape) {
        rc = restore_bad(walk, "a row has another shape than the schema says", err);
    }
    return rc;
}

static int restore_run(restore_walk *walk, size_t first, const tqi_table_run *run, tq_error *err)
{
    tqi_table_restore_block *block = NULL;
    uint64_t offset = run->offset;
    bool there = run->block != TQI_BLOCK_NONE && run->block != TQI_BLOCK_LOST;
    uint32_t ndim;
    int rc = TQ_OK;

    if (there && run->block != TQI_BLOCK_OPAQUE) {
        if (run->block > walk->batch->n_blocks) {
            return restore_bad(walk, "a run names a block that is not there", err);
        }
        block = restore_block_of(walk, run->block);
    }
    for (size_t i = first; rc == TQ_OK && i < first + run->rows; i++) {
        if (there) {
            rc = restore_cell(walk, i, run, block, &offset, err);
        } else if (restore_dims(walk, i, &ndim) == NULL) {
            rc = restore_bad(walk, "the shape of a row is malformed", err);
        } else if (run->block == TQI_BLOCK_LOST) {
            restore_lose(walk, walk->base + i);
        }
    }
    return rc;
}

static int restore_column(restore_walk *walk, tq_error *err)
{
    const tqi_table_batch_field *in = walk->in;
    const tqi_table_field *field = walk->field;
    size_t row = 0;
    int rc = TQ_OK;

    if (in->ragged != field->ragged || (in->types != NULL && !in->ragged) ||
        (in->ragged && in->n_ndims != 1 && in->n_ndims != walk->batch->n)) {
        return restore_bad(walk, "its samples contradict its schema", err);
    }
    for (size_t i = 0; i < (in->types != NULL ? walk->batch->n : 1); i++) {
        uint32_t type = restore_type(in, i);
        tq_dtype dtype = tqi_type_dtype(type);
        /* Rows with their own types occur only in ragged fields. */
        if (type >> 16 > TQ_VALUE || dtype.bits == 0 || dtype.bits % 8 != 0 ||
            (!in->ragged && type != tqi_t_field_type(field)) ||
            (tqi_type_kind(type) == TQ_VALUE && (dtype.code != TQ_UINT || dtype.bits != 8))) {
            return restore_bad(walk, "its samples contradict its schema", err);
        }
    }
    for (size_t i = 0; rc == TQ_OK && i < in->n_runs; i++) {
        if (in->runs[i].rows > walk->batch->n - row) {
            return restore_bad(walk, "it has more rows than there are samples", err);
        }
        rc = restore_run(walk, row, &in->runs[i], err);
        row += in->runs[i].rows;
    }
    if (rc == TQ_OK && row != walk->batch->n) {
        rc = restore_bad(walk, "it has fewer rows than there are samples", err);
    }
    return rc;
}

static int restore_piece(tqi_table_restoring *run, tqi_table_restore_part *part, const tqi_table_batch *batch,
                         size_t base, tq_error *err)
{
    uint64_t stamp = ++run->table->stamp;
    int rc = TQ_OK;

    for (size_t f = 0; rc == TQ_OK && f < batch->n_fields; f++) {
        restore_walk walk = {.run = run, .part = part, .batch = batch, .in = &batch->fields[f]};
        walk.base = base;
        walk.field = walk.in->name != NULL ? tqi_t_field_find(part->made, walk.in->name) : NULL;
        if (walk.field == NULL || !walk.field->known || walk.field->stamp == stamp) {
            return tqi_error_set(err, TQ_EINVAL, "partition '%s': field '%s' is %s", part->made->name,
                                 walk.in->name != NULL ? walk.in->name : "",
                                 walk.field == NULL || !walk.field->known ? "not among its schemas"
                                                                          : "twice in one piece");
        }
        walk.field->stamp = stamp;
        rc = restore_column(&walk, err);
    }
    return rc;
}

int tqi_t_restore_fields(tqi_table_restoring *run, tqi_table_restore_part *part, tq_error *err)
{
    tqi_table_field *field, *next;
    size_t base = 0;
    int rc = TQ_OK;

    for (size_t f = 0; rc == TQ_OK && f < part->in->n_fields; f++) {
        rc = restore_schema(part, &part->in->fields[f], err);
    }
    for (size_t r = 0; rc == TQ_OK && r < part->in->n_rows; r++) {
        rc = restore_piece(run, part, &part->in->rows[r].batch, base, err);
        base += part->in->rows[r].batch.n;
    }
    for (field = part->made->known; rc == TQ_OK && field != NULL; field = next) {
        next = field->next;
        if (field->produced == 0 && field->lost == 0) {
            tqi_t_field_forget(field);
            tqi_t_field_gc(field);
        }
    }
    return rc;
}

void tqi_t_restore_undo_fields(tqi_table_restore_part *part)
{
    tqi_table *table = part->made->table;
    tqi_table_field *field;

    while ((field = part->made->known) != NULL) {
        for (uint32_t row = 0; row < field->capacity; row++) {
            tqi_table_cell cell = field->cells[row];
            if (tqi_t_produced(cell.block)) {
                tqi_t_shape_unref(table, cell.shape, 1);
            }
            if (cell.block == TQI_BLOCK_OPAQUE) {
                free((void *)(uintptr_t)cell.offset);
            }
        }
        tqi_t_field_forget(field);
        tqi_t_field_gc(field);
    }
    for (size_t i = 0; i < part->n_blocks; i++) {
        if (part->blocks[i].range != NULL) {
            tqi_t_range_mark(part->blocks[i].range, part->blocks[i].in->id, false);
        }
    }
}
