/*
 * place.c - checks a manager's answer to a put and converts it to the owners, blocks and runs of the publish
 * message.
 */
#include "client/put/put.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"

static int place_nomem(tq_error *err)
{
    return tqi_error_nomem(err, "a put's placements");
}

static int place_bad(const tqi_client_put *put, uint32_t column, const char *what, tq_error *err)
{
    return tqi_error_set(err, TQ_EINTERNAL, "storage manager %s, field '%s': %s", put->task.rt->manager->type,
                         put->columns[column].name, what);
}

static int place_blocks(tqi_client_put *put, const tq_block *blocks, uint32_t n, tq_error *err)
{
    tqi_region *region = &put->task.region;
    Tq__Batch *batch = &put->batch;
    Tq__Block *out = tqi_region_array(region, n, sizeof(*out));
    Tq__Owner *owners = tqi_region_array(region, n, sizeof(*owners));

    batch->block = tqi_region_array(region, n, sizeof(*batch->block));
    batch->owner = tqi_region_array(region, n, sizeof(*batch->owner));
    if (out == NULL || owners == NULL || batch->block == NULL || batch->owner == NULL) {
        return place_nomem(err);
    }
    for (uint32_t b = 0; b < n; b++) {
        size_t o = batch->n_owner;
        while (o > 0 && (owners[o - 1].incarnation != blocks[b].owner_incarnation ||
                         strcmp(owners[o - 1].name, blocks[b].owner) != 0)) {
            o--;
        }
        if (o == 0) {
            o = ++batch->n_owner;
            tq__owner__init(&owners[o - 1]);
            owners[o - 1].incarnation = blocks[b].owner_incarnation;
            owners[o - 1].name = tqi_region_string(region, blocks[b].owner);
            batch->owner[o - 1] = &owners[o - 1];
        }
        tq__block__init(&out[b]);
        out[b].id = blocks[b].id;
        out[b].size = blocks[b].size;
        out[b].owner = (uint32_t)(o - 1);
        out[b].locator.len = blocks[b].locator_size;
        out[b].locator.data = tqi_region_copy(region, blocks[b].locator, blocks[b].locator_size, 1);
        batch->block[b] = &out[b];
        batch->n_block = b + 1;
        if (owners[o - 1].name == NULL || out[b].locator.data == NULL) {
            return place_nomem(err);
        }
    }
    return TQ_OK;
}

static int place_order(const void *left, const void *right)
{
    const tq_extent *a = left;
    const tq_extent *b = right;

    if (a->column != b->column) {
        return a->column < b->column ? -1 : 1;
    }
    return a->row < b->row ? -1 : a->row > b->row;
}

static uint64_t place_size(const tq_put_column *column, uint32_t row, uint32_t rows)
{
    uint64_t size = 0;

    if (column->row_sizes == NULL) {
        return column->row_size * rows;
    }
    for (uint32_t i = row; i < row + rows; i++) {
        size += column->row_sizes[i];
    }
    return size;
}

/* Runs of one column from its extents, in order of rows; returns how many extents were used. */
static int place_column(tqi_client_put *put, uint32_t c, const tq_extent *extents, size_t n, tq_error *err)
{
    tqi_region *region = &put->task.region;
    Tq__Field *field = put->batch.field[c];
    uint32_t row = 0;

    field->run_block = tqi_region_array(region, n, sizeof(*field->run_block));
    field->run_rows = tqi_region_array(region, n, sizeof(*field->run_rows));
    field->run_offset = tqi_region_array(region, n, sizeof(*field->run_offset));
    if (field->run_block == NULL || field->run_rows == NULL || field->run_offset == NULL) {
        return place_nomem(err);
    }
    for (size_t i = 0; i < n; i++) {
        const tq_extent *extent = &extents[i];
        uint64_t size;
        if (extent->row != row || extent->rows == 0 || extent->rows > put->columns[c].rows - row) {
            return place_bad(put, c, "its extents do not cover the rows", err);
        }
        size = place_size(&put->columns[c], row, extent->rows);
        if (extent->block >= put->batch.n_block || extent->offset > put->batch.block[extent->block]->size ||
            size > put->batch.block[extent->block]->size - extent->offset) {
            return place_bad(put, c, "an extent lies outside of its block", err);
        }
        field->run_block[i] = extent->block + 1;
        field->run_rows[i] = extent->rows;
        field->run_offset[i] = extent->offset;
        row += extent->rows;
    }
    field->n_run_block = n;
    field->n_run_rows = n;
    field->n_run_offset = n;
    return row == put->columns[c].rows ? TQ_OK : place_bad(put, c, "its extents do not cover the rows", err);
}

int tqi_client_put_place(tqi_client_put *put, const tq_block *blocks, uint32_t n_blocks, const tq_extent *extents,
                         uint32_t n_extents, tq_error *err)
{
    tq_extent *sorted;
    size_t from = 0;
    int rc;

    put->ids = tqi_region_array(&put->task.region, n_blocks, sizeof(*put->ids));
    sorted = tqi_region_copy(&put->task.region, extents, n_extents, sizeof(*extents));
    if (put->ids == NULL || sorted == NULL) {
        return place_nomem(err);
    }
    for (uint32_t b = 0; b < n_blocks; b++) {
        put->ids[put->n_ids++] = blocks[b].id;
    }
    if (n_extents > 1) {
        qsort(sorted, n_extents, sizeof(*sorted), place_order);
    }
    rc = place_blocks(put, blocks, n_blocks, err);
    for (uint32_t c = 0; c < put->write.job.n_columns && rc == TQ_OK; c++) {
        size_t to = from;
        while (to < n_extents && sorted[to].column == c) {
            to++;
        }
        rc = place_column(put, c, sorted + from, to - from, err);
        from = to;
    }
    if (rc == TQ_OK && from != n_extents) {
        rc = place_bad(put, 0, "an extent names a column that is not there", err);
    }
    return rc;
}
