/*
 * simple_test.c - the simple manager with real units and a real controller: batches in and out, over shared memory and
 * over the stream; choice of the unit; full, restarted and vanished units.
 */
#include "host.h"

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "manager/simple/simple.h"

#define MIB (UINT64_C(1) << 20)

/* A batch of columns with bytes that tell column and place, in slices of odd sizes. */
typedef struct batch {
    uint32_t n;
    tq_put_column columns[8];
    tq_slice *slices[8];
    uint8_t *bytes[8];
    tq_put_job job;
} batch;

static void batch_make(batch *b, uint32_t n, uint32_t rows, uint64_t row_size, size_t slice,
                       uint8_t seed)
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
        b->columns[c] = (tq_put_column){.name = names[c],
                                        .rows = rows,
                                        .size = size,
                                        .row_size = row_size + c,
                                        .slices = b->slices[c],
                                        .n_slices = count};
    }
    b->job = (tq_put_job){.columns = b->columns,
                          .n_columns = n,
                          .adds_samples = true,
                          .wait_when_full = true,
                          .deadline_ns = tqi_deadline(KIT_LONG)};
}

static void batch_free(batch *b)
{
    for (uint32_t c = 0; c < b->n; c++) {
        free(b->bytes[c]);
        free(b->slices[c]);
    }
}

/* Reads every `step`-th row of a stored batch and compares. */
static void batch_check(host *h, const batch *b, const host_end *put, uint32_t step)
{
    uint32_t n = 0, rows = b->columns[0].rows;
    tq_get_range *ranges = calloc((size_t)b->n * rows, sizeof(*ranges));
    uint8_t *out[8];
    host_end end;

    assert_non_null(ranges);
    for (uint32_t c = 0; c < b->n; c++) {
        const tq_extent *extent = &put->extents[c];
        assert_int_equal(extent->column, c);
        assert_int_equal(extent->rows, rows);
        out[c] = calloc(1, b->columns[c].size + 1);
        for (uint32_t r = 0; r < rows; r += step) {
            ranges[n++] = (tq_get_range){.block = extent->block,
                                         .offset = extent->offset + r * b->columns[c].row_size,
                                         .size = b->columns[c].row_size,
                                         .dest = out[c] + r * b->columns[c].row_size};
        }
    }
    tq_get_job job = {.blocks = put->blocks,
                      .n_blocks = put->n_blocks,
                      .ranges = ranges,
                      .n_ranges = n,
                      .deadline_ns = tqi_deadline(KIT_LONG)};
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

static void put_ok(host *h, batch *b, host_end *end)
{
    host_put_start(h, &b->job, end);
    host_wait(h, end);
    if (end->err.code != TQ_OK) {
        print_error("put: %s\n", end->err.message);
    }
    assert_int_equal(end->err.code, TQ_OK);
    assert_int_equal(end->n_extents, b->n);
}

static void moves_batches(void **state)
{
    bool tcp = *(const bool *)*state;
    static const struct {
        uint32_t columns, rows, step;
        uint64_t row_size;
        size_t slice;
        uint32_t blocks;
    } cases[] = {
        {1, 1, 1, 1, 100, 1},
        {3, 10, 1, 8, 7, 1}, /* one block, columns aligned in it */
        {3, 10, 3, 100, 64, 1},
        {8, 64, 1, 1000, 999, 8},           /* two of them are too large for one block */
        {8, 16, 1, 1000, 999, 2},           /* four share a block */
        {8, 16, 3, 2000, 999, 4},           /* two */
        {2, 512, 5, 4096, 4096 * 3 + 1, 2}, /* on the pool */
        {3, 1500, 2, 4096, 100000, 3}, /* on several threads; more ranges than one request takes */
    };
    kit k;
    host h, reader;

    kit_open(&k);
    kit_unit_start(&k, 0, 64 * MIB, tcp);
    host_open(&k, &h, "SimpleStorage", "{}");
    host_open(&k, &reader, "SimpleStorage", "");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        batch b;
        host_end end;
        batch_make(&b, cases[i].columns, cases[i].rows, cases[i].row_size, cases[i].slice,
                   (uint8_t)i);
        put_ok(&h, &b, &end);
        assert_int_equal(end.n_blocks, cases[i].blocks);
        for (uint32_t c = 0; c < b.n; c++) {
            assert_string_equal(end.blocks[end.extents[c].block].owner, "unit-0");
            assert_true(end.extents[c].offset + b.columns[c].size <=
                        end.blocks[end.extents[c].block].size);
            assert_int_equal(end.extents[c].offset % 64, 0);
        }
        batch_check(&h, &b, &end, 1);
        batch_check(&reader, &b, &end, cases[i].step);
        host_end_free(&end);
        batch_free(&b);
    }
    assert_true(tcp || h.works > 3); /* large copies were not made on the loop */
    assert_int_equal(tcp ? h.works : 0, 0);
    assert_in_range(h.leases, 1, 2); /* one lease served all; the next may be on its way */
    host_close(&h);
    host_close(&reader);
    kit_close(&k);
}

/* One row per column, of such sizes. */
static void batch_make_sizes(batch *b, const uint64_t *sizes, uint32_t n)
{
    batch_make(b, n, 1, 70000, 33, 7);
    for (uint32_t c = 0; c < n; c++) {
        uint64_t left = sizes[c];
        b->columns[c].size = b->columns[c].row_size = sizes[c];
        for (size_t s = 0; s < b->columns[c].n_slices; s++) {
            uint64_t size = b->slices[c][s].size < left ? b->slices[c][s].size : left;
            b->slices[c][s].size = size;
            left -= size;
        }
    }
}

/* Small columns share blocks also where large ones, or empty ones, lie between them. */
static void small_columns_share_blocks(void **state)
{
    bool tcp = *(const bool *)*state;
    static const struct {
        uint64_t sizes[8];
        uint32_t block[8];
    } cases[] = {
        {{8, 70000, 100, 65537, 8, 0, 70000, 8}, {0, 1, 0, 2, 0, 0, 3, 0}},
        {{0, 70000, 0, 0, 70000, 0, 0, 65536}, {0, 1, 0, 0, 2, 0, 0, 0}},
        {{70000, 65536, 1, 65472, 63, 65473, 1, 1}, {0, 1, 2, 2, 3, 4, 3, 3}},
        {{40000, 40000, 20000, 8, 8, 70000, 30000, 35000}, {0, 1, 0, 0, 0, 2, 3, 3}},
    };
    kit k;
    host h;

    kit_open(&k);
    kit_unit_start(&k, 0, 64 * MIB, tcp);
    host_open(&k, &h, "SimpleStorage", "{}");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        batch b;
        host_end end;
        batch_make_sizes(&b, cases[i].sizes, 8);
        put_ok(&h, &b, &end);
        for (uint32_t c = 0; c < b.n; c++) {
            assert_int_equal(end.extents[c].block, cases[i].block[c]);
            assert_int_equal(end.extents[c].offset % 64, 0);
            assert_true(end.extents[c].offset + b.columns[c].size <=
                        end.blocks[end.extents[c].block].size);
        }
        batch_check(&h, &b, &end, 1);
        host_end_free(&end);
        batch_free(&b);
    }
    host_close(&h);
    kit_close(&k);
}

static void leases_in_ranges(void **state)
{
    kit k;
    host h;

    (void)state;
    kit_open(&k);
    kit_unit_start(&k, 0, 64 * MIB, false);
    host_open(&k, &h, "SimpleStorage", "{}");
    uint64_t last = 0;
    for (int i = 0; i < 600; i++) {
        batch b;
        host_end end;
        batch_make(&b, 1, 1, 8, 100, (uint8_t)i);
        put_ok(&h, &b, &end);
        assert_true(end.blocks[0].id > last);
        last = end.blocks[0].id;
        host_end_free(&end);
        batch_free(&b);
    }
    /* 16, 32, 64, 128, 256, 256: each is asked for when a quarter of the one before is left. */
    assert_int_equal(h.leases, 6);
    host_close(&h);
    kit_close(&k);
}

/* Small puts one soon after the other reserve room ahead, which is given back when no more of them come. */
static void reserves_ahead(void **state)
{
    kit k;
    host h;
    kit_client stat;
    uint64_t used = 0, blocks = 0;
    batch b;
    host_end end;

    (void)state;
    kit_open(&k);
    kit_unit_start(&k, 0, 64 * MIB, false);
    host_open(&k, &h, "SimpleStorage", "{}");
    kit_client_open(&k, &stat, 0);
    for (int i = 0; i < 40; i++) {
        batch_make(&b, 1, 1, 8, 100, (uint8_t)i);
        put_ok(&h, &b, &end);
        batch_check(&h, &b, &end, 1);
        host_end_free(&end);
        batch_free(&b);
    }
    kit_stat(&stat, &used, &blocks);
    assert_true(blocks >= 40);
    while (blocks != 40) {
        kit_stat(&stat, &used, &blocks);
    }
    batch_make(&b, 1, 1, 8, 100, 77);
    put_ok(&h, &b, &end);
    batch_check(&h, &b, &end, 1);
    host_end_free(&end);
    batch_free(&b);
    kit_client_close(&stat);
    host_close(&h);
    kit_close(&k);
}

static void chooses_a_unit(void **state)
{
    kit k;
    host h;
    unsigned used[3] = {0, 0, 0};

    (void)state;
    kit_open(&k);
    kit_unit_start(&k, 0, 8 * MIB, false);
    kit_unit_start(&k, 1, 8 * MIB, false);
    kit_unit_start(&k, 2, 800 * MIB, true); /* the largest, but not local */
    host_open(&k, &h, "SimpleStorage", "{}");
    for (int i = 0; i < 10; i++) {
        batch b;
        host_end end;
        batch_make(&b, 1, 4, 1000, 1000, 1);
        put_ok(&h, &b, &end);
        used[end.blocks[0].owner[5] - '0']++;
        batch_check(&h, &b, &end, 1);
        host_end_free(&end);
        batch_free(&b);
    }
    assert_int_equal(used[0], 5);
    assert_int_equal(used[1], 5);
    assert_int_equal(used[2], 0);
    /* When those here are full, the other one is used without waiting. */
    for (int i = 0; i < 3; i++) {
        batch b;
        host_end end;
        batch_make(&b, 1, 6, MIB, MIB, 1);
        put_ok(&h, &b, &end);
        assert_int_equal(end.blocks[0].owner[5] - '0' == 2, i == 2);
        host_end_free(&end);
        batch_free(&b);
    }
    host_close(&h);
    kit_close(&k);
}

static void waits_or_fails_when_full(void **state)
{
    kit k;
    host h;
    batch first, second, huge;
    host_end end, waiting;

    (void)state;
    kit_open(&k);
    kit_unit_start(&k, 0, 8 * MIB, false);
    kit_unit_start(&k, 1, 4 * MIB, false);
    host_open(&k, &h, "SimpleStorage", "{}");
    batch_make(&huge, 1, 1, 8 * MIB, MIB, 1);
    host_put_start(&h, &huge.job, &end);
    host_wait(&h, &end);
    assert_int_equal(end.err.code, TQ_EFULL);
    assert_non_null(strstr(end.err.message, "8388608"));
    batch_make(&first, 1, 7, MIB, MIB, 1);
    put_ok(&h, &first, &end);
    batch_make(&second, 1, 5, MIB, MIB, 2);
    second.job.wait_when_full = false;
    host_put_start(&h, &second.job, &waiting);
    host_wait(&h, &waiting);
    assert_int_equal(waiting.err.code, TQ_EFULL);
    /* The deadline of a wait. */
    second.job.wait_when_full = true;
    second.job.deadline_ns = tqi_deadline(1);
    host_put_start(&h, &second.job, &waiting);
    host_wait(&h, &waiting);
    assert_int_equal(waiting.err.code, TQ_EFULL);
    assert_true(tqi_now() < second.job.deadline_ns + 30 * UINT64_C(1000000000));
    /* Room is made while it waits. */
    second.job.deadline_ns = tqi_deadline(KIT_LONG);
    host_put_start(&h, &second.job, &waiting);
    for (int i = 0; i < 50 && !waiting.done; i++) {
        uv_run(&k.loop, UV_RUN_NOWAIT);
    }
    assert_false(waiting.done);
    h.base.abandon(&h.base, &end.blocks[0].id, 1, true);
    host_wait(&h, &waiting);
    assert_int_equal(waiting.err.code, TQ_OK);
    batch_check(&h, &second, &waiting, 1);
    host_end_free(&end);
    host_end_free(&waiting);
    batch_free(&huge);
    batch_free(&first);
    batch_free(&second);
    host_close(&h);
    kit_close(&k);
}

static void get_all(host *h, const batch *b, const host_end *put, double seconds, host_end *end)
{
    tq_get_range ranges[8];
    uint8_t *out = malloc(b->n * (b->columns[b->n - 1].size + 1));

    for (uint32_t c = 0; c < b->n; c++) {
        ranges[c] = (tq_get_range){.block = put->extents[c].block,
                                   .offset = put->extents[c].offset,
                                   .size = b->columns[c].size,
                                   .dest = out + c * b->columns[b->n - 1].size};
    }
    tq_get_job job = {.blocks = put->blocks,
                      .n_blocks = put->n_blocks,
                      .ranges = ranges,
                      .n_ranges = b->n,
                      .deadline_ns = tqi_deadline(seconds)};
    host_get_start(h, &job, end);
    host_wait(h, end);
    free(out);
}

static void tells_what_is_gone(void **state)
{
    bool tcp = *(const bool *)*state;
    kit k;
    host h;
    batch b;
    host_end put, end;
    kit_call call;

    kit_open(&k);
    kit_unit_start(&k, 0, 8 * MIB, tcp);
    host_open(&k, &h, "SimpleStorage", "{}");
    batch_make(&b, 4, 100, 1000, 5000, 1);
    put_ok(&h, &b, &put);
    assert_int_equal(put.n_blocks, 4);
    /* Blocks 1 and 3 die; a reserve that needs their room tells when they are freed. */
    kit_client other;
    kit_client_open(&k, &other, 0);
    uint64_t id = kit_lease(&other, 0, 1, NULL);
    kit_reserve_start(&other, id, 8 * MIB - 310000, false, true, 0, 0, &call);
    uint64_t dead[2] = {put.blocks[1].id, put.blocks[3].id};
    h.base.abandon(&h.base, dead, 2, true);
    kit_end(&other, &call);
    assert_int_equal(call.status, TQ_OK);
    kit_call_free(&call);
    get_all(&h, &b, &put, KIT_LONG, &end);
    assert_int_equal(end.err.code, TQ_OK);
    assert_int_equal(end.n_gone, 2);
    assert_int_equal(end.gone[0], 1);
    assert_int_equal(end.gone[1], 3);
    host_end_free(&end);
    /* An owner that nobody knows. */
    put.blocks[0].owner_incarnation++;
    get_all(&h, &b, &put, KIT_LONG, &end);
    assert_int_equal(end.err.code, TQ_OK);
    assert_int_equal(end.n_gone, 3);
    put.blocks[0].owner_incarnation--;
    host_end_free(&end);
    /* Locators that nobody made. */
    put.blocks[2].locator_size--;
    get_all(&h, &b, &put, KIT_LONG, &end);
    assert_int_equal(end.err.code, TQ_EINVAL);
    put.blocks[2].locator_size++;
    put.blocks[2].locator[7] ^= 0xff;
    get_all(&h, &b, &put, KIT_LONG, &end);
    assert_true(end.err.code == TQ_OK || end.err.code == TQ_EINVAL);
    host_end_free(&end);
    kit_client_close(&other);
    host_end_free(&put);
    batch_free(&b);
    host_close(&h);
    kit_close(&k);
}

static void outlives_a_restarted_unit(void **state)
{
    bool tcp = *(const bool *)*state;
    kit k;
    host h;
    batch b;
    host_end put, again, end;

    kit_open(&k);
    kit_unit_start(&k, 0, 8 * MIB, tcp);
    host_open(&k, &h, "SimpleStorage", "{}");
    batch_make(&b, 3, 100, 1000, 5000, 1);
    put_ok(&h, &b, &put);
    kit_unit_stop(&k, 0);
    if (tcp) {
        /* It left in order, so its blocks are known to be gone: nobody waits for it.  (What is mapped can still be read.) */
        uint64_t before = tqi_now();
        get_all(&h, &b, &put, KIT_LONG, &end);
        assert_int_equal(end.err.code, TQ_OK);
        assert_int_equal(end.n_gone, 3);
        assert_true(tqi_now() - before < 2 * UINT64_C(1000000000));
        host_end_free(&end);
    } else {
        get_all(&h, &b, &put, 0.5, &end);
        assert_int_equal(end.err.code, TQ_OK);
        assert_int_equal(end.n_gone, 0);
        host_end_free(&end);
    }
    b.job.deadline_ns = tqi_deadline(0.5);
    host_put_start(&h, &b.job, &again);
    host_wait(&h, &again);
    assert_true(again.err.code == TQ_EUNREACHABLE || again.err.code == TQ_ETIMEDOUT);
    kit_unit_start(&k, 0, 8 * MIB, tcp);
    b.job.deadline_ns = tqi_deadline(KIT_LONG);
    put_ok(&h, &b, &again);
    assert_true(again.blocks[0].owner_incarnation != put.blocks[0].owner_incarnation);
    batch_check(&h, &b, &again, 1);
    get_all(&h, &b, &put, KIT_LONG, &end);
    assert_int_equal(end.err.code, TQ_OK);
    assert_int_equal(end.n_gone, 3);
    host_end_free(&end);
    host_end_free(&put);
    host_end_free(&again);
    batch_free(&b);
    host_close(&h);
    kit_close(&k);
}

static void outlives_a_restarted_controller(void **state)
{
    bool tcp = *(const bool *)*state;
    kit k;
    host h;
    batch b;
    host_end put, again, end;

    kit_open(&k);
    kit_unit_start(&k, 0, 8 * MIB, tcp);
    host_open(&k, &h, "SimpleStorage", "{}");
    batch_make(&b, 3, 100, 1000, 5000, 1);
    put_ok(&h, &b, &put);
    k.ready[0] = false;
    kit_controller_stop(&k);
    kit_controller_start(&k);
    kit_until(&k, &k.ready[0]);
    put_ok(&h, &b, &again);
    assert_true(again.blocks[0].owner_incarnation != put.blocks[0].owner_incarnation);
    batch_check(&h, &b, &again, 1);
    get_all(&h, &b, &put, KIT_LONG, &end);
    assert_int_equal(end.err.code, TQ_OK);
    assert_int_equal(end.n_gone, 3);
    host_end_free(&end);
    host_end_free(&put);
    host_end_free(&again);
    batch_free(&b);
    host_close(&h);
    kit_close(&k);
}

static void waits_for_the_first_unit(void **state)
{
    kit k;
    host h;
    batch b;
    host_end end;

    (void)state;
    kit_open(&k);
    host_open(&k, &h, "SimpleStorage", "{}");
    batch_make(&b, 1, 10, 100, 100, 1);
    b.job.deadline_ns = tqi_deadline(0.2);
    host_put_start(&h, &b.job, &end);
    host_wait(&h, &end);
    assert_true(end.err.code < 0);
    b.job.deadline_ns = tqi_deadline(KIT_LONG);
    host_put_start(&h, &b.job, &end);
    kit_unit_start(&k, 1, MIB, false);
    host_wait(&h, &end);
    assert_int_equal(end.err.code, TQ_OK);
    batch_check(&h, &b, &end, 1);
    host_end_free(&end);
    /* A client that is closed with a put under way ends it. */
    host_put_start(&h, &b.job, &end);
    host_close(&h);
    assert_true(end.done);
    assert_true(end.err.code == TQ_OK || end.err.code == TQ_ECLOSED);
    host_end_free(&end);
    batch_free(&b);
    kit_close(&k);
}

static void cancels_where_it_waits(void **state)
{
    kit k;
    host h;
    batch b, other;
    host_end first, end;

    (void)state;
    kit_open(&k);
    host_open(&k, &h, "SimpleStorage", "{}");
    batch_make(&b, 1, 6, MIB, MIB, 1);
    batch_make(&other, 1, 1, 1000, 1000, 2);
    /* For the first unit. */
    host_put_start(&h, &b.job, &end);
    assert_false(end.done);
    h.manager->cancel(h.state, &b.job);
    host_wait(&h, &end);
    assert_int_equal(end.err.code, TQ_ECANCELED);
    /* For its memory or for ids. */
    kit_unit_start(&k, 0, 8 * MIB, false);
    host_put_start(&h, &b.job, &end);
    h.manager->cancel(h.state, &b.job);
    host_wait(&h, &end);
    assert_int_equal(end.err.code, TQ_ECANCELED);
    put_ok(&h, &b, &first);
    h.manager->cancel(h.state, &b.job); /* too late, and no harm */
    /* For room.  It was in front of one that fits. */
    unsigned before = (unsigned)h.abandoned;
    host_put_start(&h, &b.job, &end);
    for (int i = 0; i < 50 && !end.done; i++) {
        uv_run(&k.loop, UV_RUN_NOWAIT);
    }
    assert_false(end.done);
    h.manager->cancel(h.state, &b.job);
    h.manager->cancel(h.state, &b.job);
    host_wait(&h, &end);
    assert_int_equal(end.err.code, TQ_ECANCELED);
    assert_int_equal(h.abandoned, before + 1);
    put_ok(&h, &other, &end);
    batch_check(&h, &other, &end, 1);
    host_end_free(&end);
    host_end_free(&first);
    batch_free(&b);
    batch_free(&other);
    host_close(&h);
    kit_close(&k);
}

static void forgets_ids_of_another_lease(void **state)
{
    kit k;
    host h;
    batch b;
    host_end end;
    uint64_t ids[3];
    tqi_ids_from from, old;
    tqi_leases leases = {0};
    tqi_wait wait;

    (void)state;
    kit_open(&k);
    kit_unit_start(&k, 0, 8 * MIB, false);
    host_open(&k, &h, "SimpleStorage", "{}");
    batch_make(&b, 1, 1, 8, 100, 1);
    put_ok(&h, &b, &end);
    host_end_free(&end);
    tqi_link *link = tqi_simple_find(h.state, "unit-0");
    assert_non_null(link);
    uint64_t had = link->ids_total, abandoned = h.abandoned;
    assert_int_equal(tqi_link_take(link, ids, 3, &leases, &from, TQI_NEVER, &wait), TQ_OK);
    tqi_link_put_back(link, ids, 3, &leases, &from);
    assert_int_equal(link->ids_total, had);
    assert_int_equal(tqi_link_take(link, ids, 3, &leases, &from, TQI_NEVER, &wait), TQ_OK);
    old = from;
    old.epoch++;
    tqi_link_put_back(link, ids, 3, &leases, &old);
    old = from;
    old.session--;
    tqi_link_put_back(link, ids, 3, &leases, &old);
    assert_int_equal(link->ids_total, had - 3);
    assert_int_equal(h.abandoned, abandoned); /* they may be somebody else's */
    old = from;
    old.incarnation++;
    tqi_link_put_back(link, ids, 3, &leases, &old);
    assert_int_equal(link->ids_total, had - 3);
    assert_int_equal(h.abandoned, abandoned + 3);
    free(leases.leases);
    batch_free(&b);
    host_close(&h);
    kit_close(&k);
}

/* Ids that the unit refuses cost a request, not the put. */
static void leases_anew_when_ids_are_refused(void **state)
{
    kit k;
    host h;
    batch b;
    host_end end;

    (void)state;
    kit_open(&k);
    kit_unit_start(&k, 0, 8 * MIB, false);
    host_open(&k, &h, "SimpleStorage", "{}");
    batch_make(&b, 1, 1, 8, 100, 1);
    put_ok(&h, &b, &end);
    host_end_free(&end);
    batch_free(&b);
    tqi_link *link = tqi_simple_find(h.state, "unit-0");
    assert_non_null(link);
    for (size_t i = 0; i < link->n_ids; i++) {
        memset(link->ids[i].lease.proof, 0, TQI_GRANT);
    }
    uint32_t leases = h.leases;
    batch_make(&b, 3, 4, 70000, 1000, 2); /* too large for room that was reserved ahead */
    put_ok(&h, &b, &end);
    batch_check(&h, &b, &end, 1);
    assert_true(h.leases > leases);
    host_end_free(&end);
    batch_free(&b);
    host_close(&h);
    kit_close(&k);
}

static void closes_in_the_child(void **state)
{
    kit k;
    host h;
    batch b;
    host_end end;

    (void)state;
    kit_open(&k);
    kit_unit_start(&k, 0, 8 * MIB, false);
    host_open(&k, &h, "SimpleStorage", "{}");
    batch_make(&b, 1, 10, 100, 100, 1);
    put_ok(&h, &b, &end);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        h.manager->forked(h.state);
        tqi_connector_forked(h.client.connector);
        _exit(((tqi_simple *)h.state)->mappings->map.arena == NULL ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    batch_check(&h, &b, &end, 1); /* the parent goes on */
    host_end_free(&end);
    batch_free(&b);
    host_close(&h);
    kit_close(&k);
}

static void fails_open(const tq_error *err, void *arg)
{
    assert_non_null(err);
    *(int *)arg = err->code;
}

static void refuses_bad_config(void **state)
{
    kit k;
    host h;
    static tqi_simple simple;
    int code = 0;

    (void)state;
    kit_open(&k);
    host_open(&k, &h, "SimpleStorage", "{\"unknown\": 1}"); /* a warning */
    h.manager->open(&simple, &h.base, "{\"a\": ", fails_open, &code);
    assert_int_equal(code, TQ_ECONFIG);
    h.manager->open(&simple, &h.base, "[1]", fails_open, &code);
    assert_int_equal(code, TQ_ECONFIG);
    host_close(&h);
    kit_close(&k);
}

int main(void)
{
    static bool shared = false, stream = true;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(moves_batches, &shared),
        cmocka_unit_test_prestate(moves_batches, &stream),
        cmocka_unit_test_prestate(small_columns_share_blocks, &shared),
        cmocka_unit_test_prestate(small_columns_share_blocks, &stream),
        cmocka_unit_test(leases_in_ranges),
        cmocka_unit_test(reserves_ahead),
        cmocka_unit_test(chooses_a_unit),
        cmocka_unit_test(waits_or_fails_when_full),
        cmocka_unit_test_prestate(tells_what_is_gone, &shared),
        cmocka_unit_test_prestate(tells_what_is_gone, &stream),
        cmocka_unit_test_prestate(outlives_a_restarted_unit, &shared),
        cmocka_unit_test_prestate(outlives_a_restarted_unit, &stream),
        cmocka_unit_test_prestate(outlives_a_restarted_controller, &shared),
        cmocka_unit_test_prestate(outlives_a_restarted_controller, &stream),
        cmocka_unit_test(waits_for_the_first_unit),
        cmocka_unit_test(cancels_where_it_waits),
        cmocka_unit_test(forgets_ids_of_another_lease),
        cmocka_unit_test(leases_anew_when_ids_are_refused),
        cmocka_unit_test(closes_in_the_child),
        cmocka_unit_test(refuses_bad_config),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
