/*
 * testkit_batch.h - batches of columns for the tests of the simple manager, and a system of one unit with a manager to
 * put them.
 */
#ifndef TQ_TESTS_STORAGE_TESTKIT_BATCH_H
#define TQ_TESTS_STORAGE_TESTKIT_BATCH_H

#include "testkit_host.h"

#define BATCH_COLUMNS 8
#define MIB           (UINT64_C(1) << 20)

/* A batch of columns with bytes that tell column and place, in slices of odd sizes. */
typedef struct batch {
    uint32_t n;
    tq_put_column columns[BATCH_COLUMNS];
    tq_slice *slices[BATCH_COLUMNS];
    uint8_t *bytes[BATCH_COLUMNS];
    tq_put_job job;
} batch;

/* Column c has `rows` rows of row_size + c bytes. */
void batch_make(batch *b, uint32_t n, uint32_t rows, uint64_t row_size, size_t slice, uint8_t seed);
void batch_free(batch *b);
/* Puts it, which succeeds. */
void batch_put(host *h, batch *b, host_end *end);
/* Reads every `step`-th row of a stored batch and compares. */
void batch_check(host *h, const batch *b, const host_end *put, uint32_t step);
/* Reads all columns, whatever comes of it. */
void batch_get(host *h, const batch *b, const host_end *put, double seconds, host_end *end);

/* A controller, unit 0 of that size, by shared memory or over TCP, and a manager. */
void batch_system_open(kit *k, host *h, uint64_t capacity, bool tcp);
void batch_system_close(kit *k, host *h);

#endif
