/*
 * pipeline.c - a producer and a consumer that meet only in the queue.
 *
 * Against a running system: TQ_ADDRESS=unix:/path TQ_TOKEN_FILE=/path ./pipeline The producer puts batches of rows; the
 * consumer waits for rows, reads them straight from storage, and clears them.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include <tq/tq.h>

enum {
    BATCHES = 8,
    ROWS = 16,
    WIDTH = 256
};

static const char *const partition = "pipeline";
static const char *const field = "numbers";

/* Waits for an op; if it failed, exits with the error. */
static void check(tq_op *op, int started, const char *what)
{
    if (started != TQ_OK || tq_op_wait(op) != TQ_OK) {
        const tq_error *err = tq_op_error(op);
        fprintf(stderr, "%s: %s: %s\n", what, tq_error_name(err->code), err->message);
        exit(1);
    }
}

static void *produce(void *client)
{
    static float rows[ROWS][WIDTH];
    const uint64_t shape[1] = {WIDTH};
    const tq_slice bytes = {rows, sizeof(rows)};
    const tq_column column = {
        .name = field,
        .dtype = {TQ_FLOAT, 32},
        .rows = ROWS,
        .ndim = 1,
        .shape = shape,
        .slices = &bytes,
        .n_slices = 1,
    };
    const tq_put_args put = {.size = sizeof(put), .partition = partition, .n = ROWS, .columns = &column, .n_columns = 1};
    tq_op *op = tq_op_alloc(client, NULL, NULL);

    for (int batch = 0; batch < BATCHES; batch++) {
        for (int row = 0; row < ROWS; row++) {
            for (int i = 0; i < WIDTH; i++) {
                rows[row][i] = (float)(batch * ROWS + row);
            }
        }
        check(op, tq_put(op, &put), "put");
        printf("produced %d rows\n", ROWS);
    }
    tq_op_free(op);
    return NULL;
}

/* Claims, reads and clears one batch; returns the sum of the first numbers of all rows. */
static double consume(tq_op *op)
{
    const tq_claim_args claim = {
        .size = sizeof(claim),
        .partition = partition,
        .fields = &field,
        .n_fields = 1,
        .batch_size = ROWS,
        .task = "example",
    };
    double sum = 0;

    check(op, tq_claim(op, &claim), "claim"); /* waits for enough rows */
    tq_meta *meta = tq_meta_ref(tq_op_meta(op));
    check(op, tq_get(op, meta, NULL, 0, NULL), "get");
    const float *rows = tq_data_column_at(tq_op_data(op), 0)->data;
    for (size_t i = 0; i < tq_meta_sample_count(meta); i++) {
        sum += (double)rows[i * WIDTH];
    }
    check(op, tq_clear_meta(op, meta), "clear");
    tq_meta_unref(meta);
    return sum;
}

int main(void)
{
    const tq_client_options options = {.size = sizeof(options), .name = "pipeline"};
    const int n = BATCHES * ROWS;
    tq_client *client;
    tq_error err;
    pthread_t producer;
    double sum = 0;

    if (tq_client_open(&options, &client, &err) != TQ_OK) {
        fprintf(stderr, "%s: %s\n", tq_error_name(err.code), err.message);
        return 1;
    }
    tq_op *op = tq_op_alloc(client, NULL, NULL);
    if (op == NULL || pthread_create(&producer, NULL, produce, client) != 0) {
        return 1;
    }
    for (int batch = 0; batch < BATCHES; batch++) {
        sum += consume(op);
        printf("consumed %d rows\n", ROWS);
    }
    pthread_join(producer, NULL);
    tq_op_free(op);
    tq_client_close(client);
    printf("sum of %d rows: %.0f, expected %.0f\n", n, sum, n * (n - 1) / 2.0);
    return sum == n * (n - 1) / 2.0 ? 0 : 1;
}
