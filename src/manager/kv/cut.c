/*
 * cut.c - how a batch becomes values: which rows go into which block, and which bytes into which value.
 *
 * The bytes of a batch are treated as one stream: its columns one after the other, each with its rows in order. Blocks
 * are consecutive pieces of that stream, values are consecutive pieces of a block: so one walk along the caller's
 * slices gives the slices of all values, and nothing is copied.
 */
#include "manager/kv/kv.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"

typedef struct cut_state {
    const tq_put_job *job;
    tqi_kv_cut *cut;
    size_t blocks_capacity;
    size_t extents_capacity;
    size_t values_capacity;
} cut_state;

static int cut_block(cut_state *state, uint64_t size)
{
    tqi_kv_cut *cut = state->cut;

    if (tqi_grow(&cut->blocks, &state->blocks_capacity, (size_t)cut->n_blocks + 1, sizeof(*cut->blocks)) != TQ_OK) {
        return TQ_ENOMEM;
    }
    cut->blocks[cut->n_blocks++] = (tq_block){.size = size, .locator_size = TQI_KV_LOCATOR};
    return TQ_OK;
}

/* Rows of a column at `offset` in the newest block. */
static int cut_extent(cut_state *state, uint32_t column, uint32_t row, uint32_t rows, uint64_t offset)
{
    tqi_kv_cut *cut = state->cut;

    if (tqi_grow(&cut->extents, &state->extents_capacity, (size_t)cut->n_extents + 1, sizeof(*cut->extents)) != TQ_OK) {
        return TQ_ENOMEM;
    }
    cut->extents[cut->n_extents++] =
        (tq_extent){.column = column, .row = row, .rows = rows, .block = cut->n_blocks - 1, .offset = offset};
    return TQ_OK;
}

/* Puts columns from `c` on that together fit into one value into one block; *end: the first column not included. */
static int cut_shared(cut_state *state, uint32_t c, uint32_t *end)
{
    const tq_put_job *job = state->job;
    uint64_t size = 0, offset = 0;

    for (*end = c; *end < job->n_columns; (*end)++) {
        if (size + job->columns[*end].size > TQI_KV_ONE_VALUE) {
            break;
        }
        size += job->columns[*end].size;
    }
    int rc = *end > c ? cut_block(state, size) : TQ_OK;
    for (; c < *end && rc == TQ_OK; c++) {
        rc = cut_extent(state, c, 0, job->columns[c].rows, offset);
        offset += job->columns[c].size;
    }
    return rc;
}

/* One column in blocks of whole rows, each of `target` bytes or a little less, or of one larger row. */
static int cut_column(cut_state *state, uint32_t c, uint64_t target)
{
    const tq_put_column *column = &state->job->columns[c];
    int rc = TQ_OK;

    for (uint32_t row = 0; row < column->rows && rc == TQ_OK;) {
        uint64_t size = 0;
        uint32_t end = row;
        while (end < column->rows) {
            uint64_t more = column->row_sizes != NULL ? column->row_sizes[end] : column->row_size;
            if (end > row && size + more > target) {
                break;
            }
            size += more;
            end++;
        }
        rc = cut_block(state, size);
        if (rc == TQ_OK) {
            rc = cut_extent(state, c, row, end - row, 0);
        }
        row = end;
    }
    return rc;
}

/* Values of all blocks, without their slices. An empty block has none. */
static int cut_values(cut_state *state, uint64_t value_max)
{
    tqi_kv_cut *cut = state->cut;

    for (uint32_t b = 0; b < cut->n_blocks; b++) {
        tq_block *block = &cut->blocks[b];
        bool whole = value_max == 0 || block->size <= value_max;
        uint64_t part_size = whole ? block->size : value_max;
        tqi_kv_le64(block->locator, whole ? 0 : value_max);
        for (uint64_t at = 0, part = 0; at < block->size; at += part_size, part++) {
            uint64_t left = block->size - at;
            if (tqi_grow(&cut->values, &state->values_capacity, cut->n_values + 1, sizeof(*cut->values)) != TQ_OK) {
                return TQ_ENOMEM;
            }
            cut->values[cut->n_values++] = (tqi_kv_cut_value){
                .block = b,
                .part = whole ? TQI_KV_WHOLE : part,
                .size = left < part_size ? left : part_size,
            };
        }
    }
    return TQ_OK;
}

/* Gives each value its slices, in one walk. */
static int cut_slices(cut_state *state)
{
    tqi_kv_cut *cut = state->cut;
    const tq_put_job *job = state->job;
    size_t n = cut->n_values + 1, used = 0, slice = 0, at = 0;
    uint32_t column = 0;

    for (uint32_t c = 0; c < job->n_columns; c++) {
        n += job->columns[c].n_slices;
    }
    cut->slices = calloc(n, sizeof(*cut->slices));
    if (cut->slices == NULL) {
        return TQ_ENOMEM;
    }
    for (size_t v = 0; v < cut->n_values; v++) {
        tqi_kv_cut_value *value = &cut->values[v];
        value->slices = cut->slices + used;
        for (uint64_t left = value->size; left > 0;) {
            while (slice == job->columns[column].n_slices) {
                column++;
                slice = 0;
            }
            const tq_slice *from = &job->columns[column].slices[slice];
            size_t take = from->size - at < left ? from->size - at : (size_t)left;
            if (take > 0) {
                cut->slices[used++] = (tq_slice){.data = (const char *)from->data + at, .size = take};
                value->n_slices++;
            }
            at += take;
            left -= take;
            if (at == from->size) {
                slice++;
                at = 0;
            }
        }
    }
    return TQ_OK;
}

int tqi_kv_cut_make(const tq_put_job *job, uint64_t value_max, tqi_kv_cut *out, tq_error *err)
{
    cut_state state = {.job = job, .cut = out};
    int rc = TQ_OK;

    *out = (tqi_kv_cut){0};
    for (uint32_t c = 0; c < job->n_columns; c++) {
        out->bytes += job->columns[c].size;
    }
    uint64_t target = out->bytes / (TQ_GRANT_MAX / 2) + 1;
    target = target < TQI_KV_VALUE ? TQI_KV_VALUE : target;
    target = value_max != 0 && target > value_max ? value_max : target;
    for (uint32_t c = 0; c < job->n_columns && rc == TQ_OK;) {
        uint32_t end;
        rc = cut_shared(&state, c, &end);
        if (rc == TQ_OK && end == c) {
            rc = cut_column(&state, c, target);
            end = c + 1;
        }
        c = end;
    }
    if (rc == TQ_OK) {
        rc = cut_values(&state, value_max);
    }
    if (rc == TQ_OK) {
        rc = cut_slices(&state);
    }
    if (rc != TQ_OK) {
        tqi_kv_cut_fini(out);
        return tqi_error_nomem(err, "cutting a batch into values");
    }
    return TQ_OK;
}

void tqi_kv_cut_fini(tqi_kv_cut *cut)
{
    free(cut->blocks);
    free(cut->extents);
    free(cut->values);
    free(cut->slices);
    *cut = (tqi_kv_cut){0};
}
