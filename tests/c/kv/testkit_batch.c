/*
 * testkit_batch.c - see testkit_batch.h.
 */
#include "testkit_batch.h"

#include <stdlib.h>
#include <string.h>

void bench_start(bench *b)
{
    memset(b, 0, sizeof(*b));
    system_start(&b->sys, 0, 0);
}

int bench_open(bench *b, const char *type, const char *config, tq_error *err)
{
    tq_error own = {0};
    tq_client_options options = {
        .size = sizeof(options),
        .address = b->sys.address,
        .token = SYSTEM_TOKEN,
        .name = "kv test",
        .manager = type,
        .manager_config = config,
        .timeout = 60,
    };
    int rc = tq_client_open(&options, &b->client, err != NULL ? err : &own);

    if (rc != TQ_OK && err == NULL) {
        fail_msg("%s", own.message);
    }
    if (rc == TQ_OK) {
        b->op = tq_op_alloc(b->client, NULL, NULL);
        assert_non_null(b->op);
    }
    return rc;
}

void bench_stop(bench *b)
{
    tq_op_free(b->op);
    if (b->client != NULL) {
        tq_client_close(b->client);
    }
    system_stop(&b->sys);
}

static const char *const names[COLUMNS_MAX] = {"a", "b", "c", "d"};

void batch_make(batch *b, const char *partition, size_t columns, size_t rows, size_t size, size_t step)
{
    memset(b, 0, sizeof(*b));
    b->rows = rows;
    b->n_columns = columns;
    for (size_t c = 0; c < columns; c++) {
        uint64_t total = 0;
        b->sizes[c] = calloc(rows, sizeof(*b->sizes[c]));
        for (size_t r = 0; r < rows; r++) {
            b->sizes[c][r] = step == 0 ? size : (r * step + c) % (size + 1);
            total += b->sizes[c][r];
        }
        b->bytes[c] = malloc(total + 1);
        for (uint64_t i = 0; i < total; i++) {
            b->bytes[c][i] = (uint8_t)((i * 7 >> 3) + i * 3 + c * 31);
        }
        /* Slices that begin and end inside of rows. */
        uint64_t cut = total / 3;
        b->slices[c][0] = (tq_slice){b->bytes[c], cut};
        b->slices[c][1] = (tq_slice){b->bytes[c] + cut, total - 2 * cut};
        b->slices[c][2] = (tq_slice){b->bytes[c] + total - cut, cut};
        b->columns[c] = (tq_column){
            .name = names[c],
            .dtype = {TQ_UINT, 8},
            .rows = rows,
            .ndim = 1,
            .dims = b->sizes[c],
            .slices = b->slices[c],
            .n_slices = 3,
        };
    }
    b->args = (tq_put_args){
        .size = sizeof(tq_put_args),
        .partition = partition,
        .n = rows,
        .columns = b->columns,
        .n_columns = columns,
    };
}

void batch_free(batch *b)
{
    for (size_t c = 0; c < b->n_columns; c++) {
        free(b->sizes[c]);
        free(b->bytes[c]);
    }
}

tq_meta *batch_put(const bench *on, const batch *b)
{
    expect_ok(on->op, tq_put(on->op, &b->args));
    return tq_meta_ref(tq_op_meta(on->op));
}

void batch_check(const bench *on, const batch *b, const tq_meta *meta, const uint32_t *rows, size_t n)
{
    tq_meta *chosen;

    assert_int_equal(tq_meta_select(meta, rows, n, NULL, 0, &chosen, NULL), TQ_OK);
    expect_ok(on->op, tq_get(on->op, chosen, NULL, 0, NULL));
    assert_int_equal(tq_data_column_count(tq_op_data(on->op)), b->n_columns);
    for (size_t c = 0; c < b->n_columns; c++) {
        const tq_data_column *read = tq_data_column_at(tq_op_data(on->op), c);
        for (size_t i = 0; i < n; i++) {
            uint64_t at = 0;
            for (uint32_t r = 0; r < rows[i]; r++) {
                at += b->sizes[c][r];
            }
            assert_int_equal(read->offsets[i + 1] - read->offsets[i], b->sizes[c][rows[i]]);
            assert_memory_equal((uint8_t *)read->data + read->offsets[i], b->bytes[c] + at, b->sizes[c][rows[i]]);
        }
    }
    tq_meta_unref(chosen);
}

void batches_move(const bench *on, void (*cleared)(void))
{
    static const struct {
        size_t columns, rows, size, step;
    } cases[] = {
        {1, 1, 1, 0},           {3, 10, 8, 0},     {4, 16, 100, 3},    {2, 5, 0, 0},       {2, 300, 1000, 0},
        {3, 64, 5000, 77},      {1, 3, 400000, 0}, {4, 40, 100000, 0}, {2, 1, 3000000, 0}, {1, 2000, 300, 11},
        {2, 7, 900001, 123456}, {4, 16, 2000, 0},  {4, 30, 2500, 77},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        batch b;
        batch_make(&b, "moves", cases[i].columns, cases[i].rows, cases[i].size, cases[i].step);
        tq_meta *meta = batch_put(on, &b);
        uint32_t *rows = calloc(cases[i].rows * 2, sizeof(*rows));
        for (uint32_t r = 0; r < cases[i].rows; r++) {
            rows[r] = r;
        }
        batch_check(on, &b, meta, rows, cases[i].rows); /* all, */
        for (uint32_t r = 0; r < cases[i].rows; r++) {
            rows[r] = (uint32_t)cases[i].rows - 1 - r;
        }
        batch_check(on, &b, meta, rows, cases[i].rows); /* the other way around, */
        size_t n = 0;
        for (uint32_t r = 0; r < cases[i].rows; r += 5) {
            rows[n++] = r;
            rows[n++] = r;
        }
        batch_check(on, &b, meta, rows, n); /* a few of them, twice each */
        free(rows);
        tq_meta_unref(meta);
        batch_free(&b);
        expect_ok(on->op, tq_clear_partition(on->op, "moves"));
        cleared();
    }
}
