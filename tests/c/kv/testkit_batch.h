/*
 * testkit_batch.h - batches of ragged byte columns, put and read through the real client with a manager of choice.
 */
#ifndef TEST_KV_TESTKIT_BATCH_H
#define TEST_KV_TESTKIT_BATCH_H

#include "tests/c/client/testkit.h"

#define COLUMNS_MAX 4

/* Ragged columns of bytes that tell column and place. */
typedef struct batch {
    size_t rows;
    size_t n_columns;
    uint64_t *sizes[COLUMNS_MAX];
    uint8_t *bytes[COLUMNS_MAX];
    tq_slice slices[COLUMNS_MAX][3];
    tq_column columns[COLUMNS_MAX];
    tq_put_args args;
} batch;

/* A system without storage units, and a client of it with that manager. */
typedef struct bench {
    test_system sys;
    tq_client *client;
    tq_op *op;
} bench;

/* Opens a client with a manager; a failure's error goes to `err`, if that is not NULL, and fails the test otherwise. */
void bench_start(bench *b);
int bench_open(bench *b, const char *type, const char *config, tq_error *err);
void bench_stop(bench *b);

/* Row r of column c has (r * step + c) % (size + 1) bytes, or `size` ones with step 0. */
void batch_make(batch *b, const char *partition, size_t columns, size_t rows, size_t size, size_t step);
void batch_free(batch *b);
/* Puts it; the meta is the caller's. */
tq_meta *batch_put(const bench *on, const batch *b);
/* Reads rows of a meta that was made of the batch, and compares. */
void batch_check(const bench *on, const batch *b, const tq_meta *meta, const uint32_t *rows, size_t n);
/* Puts batches of many shapes, reads all and some of their rows in several orders, and clears them: `cleared` is called
 * after each. */
void batches_move(const bench *on, void (*cleared)(void));

#endif
