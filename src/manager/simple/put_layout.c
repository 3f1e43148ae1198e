/*
 * put_layout.c - how a batch is laid out in blocks. A block costs a grant, a slot, an allocation and its record in the
 * table, however small it is, so small columns share blocks. A column larger than TQI_SIMPLE_SHARED has its own block:
 * zero-copy reads map it, and it dies as a whole when the column is rewritten. Dead parts of a shared block are
 * reclaimed by compaction.
 */
#include <stdlib.h>

#include "manager/simple/put.h"

static uint64_t layout_aligned(uint64_t size)
{
    return (size + TQI_SIMPLE_ALIGN - 1) / TQI_SIMPLE_ALIGN * TQI_SIMPLE_ALIGN;
}

/* Assigns columns to blocks, one after another while there is room. The block with the most room left is filled next,
 * so a column too large for it does not close it. */
static int layout_share(tqi_simple_put_op *op, tq_error *err)
{
    const tq_put_job *job = op->job;
    uint64_t filled = TQI_SIMPLE_SHARED + 1; /* there is none yet */
    uint32_t shared = 0;

    op->block_of = malloc(job->n_columns * sizeof(*op->block_of));
    if (op->block_of == NULL) {
        return tqi_error_nomem(err, "a put");
    }
    op->n_blocks = 0;
    for (uint32_t i = 0; i < job->n_columns; i++) {
        uint64_t size = layout_aligned(job->columns[i].size);
        if (filled + size <= TQI_SIMPLE_SHARED) {
            op->block_of[i] = shared;
            filled += size;
            continue;
        }
        op->block_of[i] = op->n_blocks++;
        if (size < filled) {
            shared = op->block_of[i];
            filled = size;
        }
    }
    return TQ_OK;
}

/* Where each column begins in its block, and how large the blocks are. */
static void layout_place(tqi_simple_put_op *op)
{
    for (uint32_t i = 0; i < op->job->n_columns; i++) {
        uint32_t block = tqi_simple_put_block_of(op, i);
        op->starts[i] = layout_aligned(op->sizes[block]);
        op->sizes[block] = op->starts[i] + op->job->columns[i].size;
    }
}

int tqi_simple_put_order(tqi_simple_put_op *op)
{
    uint32_t n = op->job->n_columns;

    if (op->block_of == NULL || op->order != NULL) {
        return TQ_OK;
    }
    uint32_t *order = malloc(n * sizeof(*order));
    uint32_t *next = calloc((size_t)op->n_blocks + 1, sizeof(*next)); /* per block: its place in it */
    if (order == NULL || next == NULL) {
        free(order);
        free(next);
        return TQ_ENOMEM;
    }
    for (uint32_t i = 0; i < n; i++) {
        next[op->block_of[i] + 1]++;
    }
    for (uint32_t i = 1; i < op->n_blocks; i++) {
        next[i] += next[i - 1];
    }
    for (uint32_t i = 0; i < n; i++) {
        order[next[op->block_of[i]]++] = i;
    }
    free(next);
    op->order = order;
    return TQ_OK;
}

int tqi_simple_put_layout(tqi_simple_put_op *op, tq_error *err)
{
    const tq_put_job *job = op->job;

    if (job->n_columns == 0) {
        return tqi_error_set(err, TQ_EINVAL, "a put without columns");
    }
    for (uint32_t i = 0; i < job->n_columns; i++) {
        op->total += layout_aligned(job->columns[i].size);
    }
    op->n_blocks = 1;
    if (op->total > TQI_SIMPLE_SHARED && job->n_columns > 1 && layout_share(op, err) != TQ_OK) {
        return TQ_ENOMEM;
    }
    size_t room = op->n_blocks + (tqi_simple_stock_suits(op) ? TQI_SIMPLE_STOCK_MAX : 0);
    op->sizes = calloc(room, sizeof(*op->sizes));
    op->ids = calloc(room, sizeof(*op->ids));
    op->offsets = calloc(room, sizeof(*op->offsets));
    op->slots = calloc(room, sizeof(*op->slots));
    op->starts = calloc(job->n_columns, sizeof(*op->starts));
    if (op->sizes == NULL || op->ids == NULL || op->offsets == NULL || op->slots == NULL || op->starts == NULL) {
        return tqi_error_nomem(err, "a put");
    }
    layout_place(op);
    return TQ_OK;
}
