/*
 * batches.c - a workload as one batch: put, list, get and clear it by keys, and copy as many bytes in memory.
 */
#include "cli/bench/bench.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Whether what was read is what was put. */
static int batch_check(bench *run, const bench_batch *batch)
{
    const tq_data *data = tq_op_data(run->session.op);
    size_t found = 0;

    for (size_t c = 0; data != NULL && c < tq_data_column_count(data); c++) {
        const tq_data_column *column = tq_data_column_at(data, c);
        for (size_t f = 0; f < batch->workload->n_fields; f++) {
            const tq_slice *put = &batch->slices[f];
            if (strcmp(batch->columns[f].name, column->name) == 0) {
                found += tq_data_row_count(data) == batch->rows && column->offsets[batch->rows] == put->size &&
                         column->data != NULL && memcmp(column->data, put->data, put->size) == 0;
            }
        }
    }
    if (found != batch->workload->n_fields) {
        bench_progress_end(run);
        return cli_fail("workload %s: what was read is not what was put", batch->workload->name);
    }
    return 0;
}

static int batch_step(bench *run, const bench_batch *batch, int step, double *seconds)
{
    tq_op *op = run->session.op;
    tq_put_args put = {
        .size = sizeof(put),
        .partition = run->partition,
        .keys = batch->keys,
        .n = batch->rows,
        .columns = batch->columns,
        .n_columns = batch->workload->n_fields,
    };
    tq_get_by_key_args get = {.size = sizeof(get), .partition = run->partition, .keys = batch->keys, .n = batch->rows};
    int rc = TQ_OK;

    if (bench_begin(run)) {
        return 1;
    }
    double started = bench_now();
    switch (step) {
    case BENCH_PUT:
        rc = tq_put(op, &put);
        break;
    case BENCH_LIST:
        rc = tq_list_keys(op, run->partition);
        break;
    case BENCH_GET:
        rc = tq_get_by_key(op, &get);
        break;
    default:
        rc = tq_clear_keys(op, run->partition, batch->keys, batch->rows);
        break;
    }
    int failed = bench_end(run, rc);
    *seconds = bench_now() - started;
    return failed;
}

/* One round; `check`: verifies what is listed and read. */
static int batch_round(bench *run, const bench_batch *batch, bool check, double seconds[BENCH_STEPS])
{
    int failed = 0;

    for (int step = BENCH_PUT; step <= BENCH_CLEAR && !failed; step++) {
        failed = batch_step(run, batch, step, &seconds[step]);
        if (!failed && step == BENCH_LIST && tq_meta_sample_count(tq_op_meta(run->session.op)) != batch->rows) {
            bench_progress_end(run);
            failed = cli_fail("workload %s: %zu of %zu keys are listed", batch->workload->name,
                              tq_meta_sample_count(tq_op_meta(run->session.op)), batch->rows);
        }
        if (!failed && step == BENCH_GET) {
            failed = check ? batch_check(run, batch) : 0;
            failed = failed ? failed : bench_renew(run);
        }
    }
    return failed;
}

static double batch_copy(const bench_batch *batch, uint8_t *memory)
{
    double started = bench_now();

    for (size_t f = 0; f < batch->workload->n_fields; f++) {
        memcpy(memory, batch->slices[f].data, batch->slices[f].size);
        memory += batch->slices[f].size;
    }
    return bench_now() - started;
}

/* A batch lies in one piece of storage as a whole. */
static int batch_fits(bench *run, const bench_batch *batch)
{
    uint64_t need = batch->bytes + batch->bytes / 10;
    uint64_t most = 0;
    bool told = false;
    char texts[2][32];

    if (bench_begin(run) || bench_end(run, tq_query_status(run->session.op))) {
        return 1;
    }
    const tq_system_status *status = tq_op_status(run->session.op);
    for (size_t i = 0; i < status->n_owners; i++) {
        const tq_status_owner *owner = status->owners[i];
        /* It reports its usage only now and then; published blocks are known at once. */
        uint64_t used = owner->used_bytes > owner->bytes ? owner->used_bytes : owner->bytes;
        uint64_t room = owner->capacity_bytes > used ? owner->capacity_bytes - used : 0;
        if (owner->present && owner->capacity_bytes > 0) {
            told = true;
            most = room > most ? room : most;
        }
    }
    if (!told || need <= most) {
        return 0;
    }
    bench_progress_end(run);
    return cli_fail("the workload %s needs %s in one piece of storage, the one with most room has "
                    "%s left: choose a smaller --scale, or other workloads (--workload)",
                    batch->workload->name, cli_bytes(need, texts[0]), cli_bytes(most, texts[1]));
}

static int batch_rounds(bench *run, const bench_batch *batch, uint8_t *memory, bench_moved *out)
{
    double seconds[BENCH_STEPS];
    int failed = batch_fits(run, batch);

    bench_hold(run);
    batch_copy(batch, memory);
    for (size_t round = 0; round < BENCH_WARM && !failed; round++) {
        bench_progress(run, "%s, warming", batch->workload->name);
        failed = batch_round(run, batch, true, seconds);
    }
    for (size_t round = 0; round < run->settings->rounds && !failed; round++) {
        bench_progress(run, "%s, round %zu", batch->workload->name, round + 1);
        failed = batch_round(run, batch, false, seconds);
        seconds[BENCH_COPY] = batch_copy(batch, memory);
        for (int step = 0; step < BENCH_STEPS && !failed; step++) {
            out->seconds[step][round] = seconds[step];
        }
    }
    return failed;
}

int bench_move(bench *run, const bench_workload *workload, bench_moved *out)
{
    bench_batch batch;
    int failed = bench_batch_make(workload, run->settings->scale, &batch);

    if (failed) {
        return failed;
    }
    uint8_t *memory = malloc(batch.bytes);
    out->workload = workload;
    out->samples = batch.rows;
    out->bytes = batch.bytes;
    for (int step = 0; step < BENCH_STEPS; step++) {
        out->seconds[step] = calloc(run->settings->rounds, sizeof(double));
        failed = failed || out->seconds[step] == NULL;
    }
    if (failed || memory == NULL) {
        failed = cli_fail("no memory for %" PRIu64 " bytes of the workload %s", batch.bytes, workload->name);
    } else {
        failed = batch_rounds(run, &batch, memory, out);
    }
    /* The next workload may have the same fields with other types. */
    if (!failed) {
        failed = bench_empty(run);
    }
    free(memory);
    bench_batch_free(&batch);
    return failed;
}
