/*
 * ranges.c - the byte ranges of a read: those to copy, where rows that lie end to end are one range, in the order of
 * the store; and those to borrow.
 */
#include "client/get/get.h"

#include <stdlib.h>

#include "base/buf.h"
#include "base/error.h"

const tqi_client_cells *tqi_client_get_cells(const tqi_client_get *get, size_t column)
{
    return &get->meta->fields[tqi_client_meta_find(get->meta, get->fields[column])];
}

bool tqi_client_get_note(tqi_client_get *get, size_t c, const tqi_manager_borrow_range *range)
{
    size_t n = get->borrow.n;

    if (tqi_grow(&get->borrow.ranges, &get->max_borrow_ranges, n + 1, sizeof(*range)) != TQ_OK ||
        tqi_grow(&get->borrow_column, &get->max_borrow_columns, n + 1, sizeof(c)) != TQ_OK) {
        return false;
    }
    get->borrow_column[n] = c;
    get->borrow.ranges[n] = *range;
    get->borrow.n++;
    return true;
}

/* --- to copy -------------------------------------------------------------- */

int tqi_client_get_plan_ranges(tqi_client_get *get, size_t c, tq_error *err)
{
    const tqi_client_cells *cells = tqi_client_get_cells(get, c);
    const tq_data_column *column = &get->data->columns[c];
    tq_get_range *last = NULL;

    for (size_t i = 0; i < get->meta->n; i++) {
        uint64_t size = tqi_client_cells_size(cells, i);
        uint8_t *dest = (uint8_t *)column->data + column->offsets[i];
        uint32_t block = cells->block[i] - 1;
        if (size == 0) {
            continue;
        }
        if (last != NULL && last->block == block && last->offset + last->size == cells->offset[i] &&
            (uint8_t *)last->dest + last->size == dest) {
            last->size += size;
            continue;
        }
        if (tqi_grow(&get->ranges, &get->max_ranges, get->n_ranges + 1, sizeof(*get->ranges)) != TQ_OK) {
            return tqi_error_nomem(err, "the ranges of a read");
        }
        last = &get->ranges[get->n_ranges++];
        last->block = block;
        last->offset = cells->offset[i];
        last->size = size;
        last->dest = dest;
    }
    return TQ_OK;
}

static int ranges_order(const void *left, const void *right)
{
    const tq_get_range *a = left;
    const tq_get_range *b = right;

    if (a->block != b->block) {
        return a->block < b->block ? -1 : 1;
    }
    return a->offset < b->offset ? -1 : a->offset > b->offset;
}

static void ranges_sort(tqi_client_get *get)
{
    for (size_t i = 1; i < get->n_ranges; i++) {
        if (ranges_order(&get->ranges[i - 1], &get->ranges[i]) > 0) {
            qsort(get->ranges, get->n_ranges, sizeof(*get->ranges), ranges_order);
            return;
        }
    }
}

/* Keeps only the blocks that are read, in the order of the ranges, and renumbers the ranges. */
static int ranges_blocks(tqi_client_get *get, tq_error *err)
{
    size_t n = 0;
    uint32_t before = 0;

    for (size_t i = 0; i < get->n_ranges; i++) {
        n += i == 0 || get->ranges[i].block != get->ranges[i - 1].block;
    }
    free(get->blocks);
    get->blocks = malloc((n + 1) * sizeof(*get->blocks));
    if (get->blocks == NULL || n > UINT32_MAX || get->n_ranges > UINT32_MAX) {
        return tqi_error_nomem(err, "the blocks of a read");
    }
    n = 0;
    for (size_t i = 0; i < get->n_ranges; i++) {
        uint32_t block = get->ranges[i].block;
        if (i == 0 || block != before) {
            get->blocks[n++] = get->meta->blocks->blocks[block];
        }
        before = block;
        get->ranges[i].block = (uint32_t)(n - 1);
    }
    get->read.job.blocks = get->blocks;
    get->read.job.n_blocks = (uint32_t)n;
    get->read.job.ranges = get->ranges;
    get->read.job.n_ranges = (uint32_t)get->n_ranges;
    get->read.job.deadline_ns = get->task.deadline;
    return TQ_OK;
}

int tqi_client_get_plan_end(tqi_client_get *get, tq_error *err)
{
    ranges_sort(get);
    return ranges_blocks(get, err);
}
