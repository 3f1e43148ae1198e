/*
 * testkit_batch.c - see testkit_batch.h.
 */
#include "testkit_batch.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

void batch_system_open(kit *k, host *h, uint64_t capacity, bool tcp)
{
    kit_open(k);
    kit_unit_start(k, 0, capacity, tcp);
    host_open(k, h, "SimpleStorage", "{}");
}

void batch_system_close(kit *k, host *h)
{
    host_close(h);
    kit_close(k);
}

void batch_make(batch *b, uint32_t n, uint32_t rows, uint64_t row_size, size_t slice, uint8_t seed)
{
    static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g", "h"};

    memset(b, 0, sizeof(*b));
    b->n = n;
    for (uint32_t c = 0; c < n; c++) {
        uint64_t size = rows * (row_size + c); /* sizes differ, and are no multiples of 64 */
        size_t count = size / slice + 1;
        b->bytes[c] = malloc(size + 1);
        b->slices[c] = calloc(count, sizeof(*b->slices[c]));
        for (uint64_t i = 0; i < size; i++) {
            b->bytes[c][i] = (uint8_t)((i * 7 >> 2) + c * 31 + seed);
        }
        for (size_t s = 0; s < count; s++) {
            b->slices[c][s].data = b->bytes[c] + s * slice;
            b->slices[c][s].size = s + 1 < count ? slice : size - s * slice;
        }
        b->columns[c] = (tq_put_column){
            .name = names[c],
            .rows = rows,
            .size = size,
            .row_size = row_size + c,
            .slices = b->slices[c],
            .n_slices = count,
        };
    }
    b->job = (tq_put_job){
        .columns = b->columns,
        .n_columns = n,
        .adds_samples = true,
        .wait_when_full = true,
        .deadline_ns = tqi_deadline(KIT_LONG),
    };
}

void batch_free(batch *b)
{
    for (uint32_t c = 0; c < b->n; c++) {
        free(b->bytes[c]);
        free(b->slices[c]);
    }
}

void batch_check(host *h, const batch *b, const host_end *put, uint32_t step)
{
    uint32_t n = 0, rows = b->columns[0].rows;
    tq_get_range *ranges = calloc((size_t)b->n * rows, sizeof(*ranges));
    uint8_t *out[BATCH_COLUMNS];
    host_end end;

    assert_non_null(ranges);
    for (uint32_t c = 0; c < b->n; c++) {
        const tq_extent *extent = &put->extents[c];
        assert_int_equal(extent->column, c);
        assert_int_equal(extent->rows, rows);
        out[c] = calloc(1, b->columns[c].size + 1);
        for (uint32_t r = 0; r < rows; r += step) {
            ranges[n++] = (tq_get_range){
                .block = extent->block,
                .offset = extent->offset + r * b->columns[c].row_size,
                .size = b->columns[c].row_size,
                .dest = out[c] + r * b->columns[c].row_size,
            };
        }
    }
    tq_get_job job = {
        .blocks = put->blocks,
        .n_blocks = put->n_blocks,
        .ranges = ranges,
        .n_ranges = n,
        .deadline_ns = tqi_deadline(KIT_LONG),
    };
    host_get_start(h, &job, &end);
    host_wait(h, &end);
    if (end.err.code != TQ_OK) {
        print_error("get: %s\n", end.err.message);
    }
    assert_int_equal(end.err.code, TQ_OK);
    assert_int_equal(end.n_gone, 0);
    for (uint32_t c = 0; c < b->n; c++) {
        uint64_t size = b->columns[c].row_size;
        for (uint32_t r = 0; r < rows; r += step) {
            assert_memory_equal(out[c] + r * size, b->bytes[c] + r * size, size);
        }
        free(out[c]);
    }
    free(ranges);
    host_end_free(&end);
}

void batch_put(host *h, batch *b, host_end *end)
{
    host_put_start(h, &b->job, end);
    host_wait(h, end);
    if (end->err.code != TQ_OK) {
        print_error("put: %s\n", end->err.message);
    }
    assert_int_equal(end->err.code, TQ_OK);
    assert_int_equal(end->n_extents, b->n);
}

void batch_get(host *h, const batch *b, const host_end *put, double seconds, host_end *end)
{
    tq_get_range ranges[BATCH_COLUMNS];
    uint8_t *out = malloc(b->n * (b->columns[b->n - 1].size + 1));

    for (uint32_t c = 0; c < b->n; c++) {
        ranges[c] = (tq_get_range){
            .block = put->extents[c].block,
            .offset = put->extents[c].offset,
            .size = b->columns[c].size,
            .dest = out + c * b->columns[b->n - 1].size,
        };
    }
    tq_get_job job = {
        .blocks = put->blocks,
        .n_blocks = put->n_blocks,
        .ranges = ranges,
        .n_ranges = b->n,
        .deadline_ns = tqi_deadline(seconds),
    };
    host_get_start(h, &job, end);
    host_wait(h, end);
    free(out);
}
