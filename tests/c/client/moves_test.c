/*
 * moves_test.c - compaction in a real system: the live bytes of sparse blocks move, memory use follows the live bytes,
 * and reads with older metadata find the same values, even while blocks are being moved.
 */
#include "testkit.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "net/net.h"

#define BATCHES 12
#define ROWS    8
#define WIDTH   1024 /* numbers of a row: 8 KiB */

static test_system sys;
static tq_client *client;
static tq_op *op;

/* --- calls of units that fail ---------------------------------------------- */

static atomic_int refused_moves, refused_abandons; /* the next ones */

int __real_tqi_net_call_start(tqi_net_channel *channel, const tqi_net_call_args *args, tqi_net_call **out,
                              tq_error *err);
int __wrap_tqi_net_call_start(tqi_net_channel *channel, const tqi_net_call_args *args, tqi_net_call **out,
                              tq_error *err);

static bool take(atomic_int *left)
{
    int n = atomic_load(left);

    while (n > 0 && !atomic_compare_exchange_weak(left, &n, n - 1)) {
    }
    return n > 0;
}

int __wrap_tqi_net_call_start(tqi_net_channel *channel, const tqi_net_call_args *args, tqi_net_call **out, tq_error *err)
{
    if (args->kind == TQI_COMPACT_MOVE && take(&refused_moves)) {
        Tq__CompactMove bad = *(const Tq__CompactMove *)args->message; /* which the controller does not accept */
        tqi_net_call_args call = *args;
        bad.n_to = 0;
        call.message = &bad.base;
        return __real_tqi_net_call_start(channel, &call, out, err);
    }
    if (args->kind == TQI_ABANDON_BLOCKS && take(&refused_abandons)) {
        return tqi_error_nomem(err, "a request");
    }
    return __real_tqi_net_call_start(channel, args, out, err);
}

/* --- a system ---------------------------------------------------------------- */

static int setup(void **state)
{
    (void)state;
    system_begin(&sys, 2, 8u << 20, 60, &client, &op);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    system_end(&sys, client, op);
    return 0;
}

/* Rows of WIDTH times the same number: base, base + 1, ...; over the samples of meta, if there is one. */
static tq_meta *put_wide(size_t n, int64_t base, const tq_meta *meta)
{
    const uint64_t width = WIDTH;
    int64_t *values = malloc(n * WIDTH * sizeof(*values));
    tq_slice slice = {values, n * WIDTH * sizeof(*values)};
    tq_column column = {
        .name = "x",
        .dtype = {TQ_INT, 64},
        .rows = n,
        .ndim = 1,
        .shape = &width,
        .slices = &slice,
        .n_slices = 1,
    };
    tq_put_args args = {
        .size = sizeof(args),
        .partition = meta != NULL ? NULL : "p",
        .meta = meta,
        .n = n,
        .columns = &column,
        .n_columns = 1,
    };

    assert_non_null(values);
    for (size_t i = 0; i < n * WIDTH; i++) {
        values[i] = base + (int64_t)(i / WIDTH);
    }
    expect_ok(op, tq_put(op, &args));
    free(values);
    return tq_meta_ref(tq_op_meta(op));
}

static void check_wide(const tq_meta *meta, size_t n, const int64_t *expected)
{
    const char *field = "x";
    const tq_data_column *column;

    expect_ok(op, tq_get(op, meta, &field, 1, NULL));
    column = tq_data_column_at(tq_op_data(op), 0);
    for (size_t i = 0; i < n * WIDTH; i++) {
        assert_int_equal(((const int64_t *)column->data)[i], expected[i / WIDTH]);
    }
}

/* Bytes of the blocks that the controller knows. */
static uint64_t block_bytes(void)
{
    uint64_t sum = 0;

    expect_ok(op, tq_query_status(op));
    for (size_t i = 0; i < tq_op_status(op)->n_owners; i++) {
        sum += tq_op_status(op)->owners[i]->bytes;
    }
    return sum;
}

static tq_meta *chosen(const tq_meta *meta, const uint32_t *rows, size_t n)
{
    tq_meta *some;

    assert_int_equal(tq_meta_select(meta, rows, n, NULL, 0, &some, NULL), TQ_OK);
    return some;
}

static void clear_rows(const tq_meta *meta, const uint32_t *rows, size_t n)
{
    tq_meta *some = chosen(meta, rows, n);

    expect_ok(op, tq_clear_meta(op, some));
    tq_meta_unref(some);
}

static void memory_follows_what_is_live(void **state)
{
    const uint32_t kept[] = {1, 6}, first[] = {0, 2, 5}, then[] = {3, 4, 7};
    tq_meta *metas[BATCHES], *rest[BATCHES], *newer[BATCHES] = {NULL};
    int64_t expected[BATCHES][2];
    uint64_t live = (uint64_t)BATCHES * 2 * WIDTH * sizeof(int64_t);

    (void)state;
    for (int b = 0; b < BATCHES; b++) {
        metas[b] = put_wide(ROWS, 100 * b, NULL);
        rest[b] = chosen(metas[b], kept, 2);
        expected[b][0] = 100 * b + 1;
        expected[b][1] = 100 * b + 6;
    }
    for (int b = 0; b < BATCHES; b++) {
        clear_rows(metas[b], first, 3);
        check_wide(rest[b], 2, expected[b]);
    }
    /* Overwritten while the rest of its block moves: not undone by that. */
    for (int b = 0; b < BATCHES; b += 3) {
        tq_meta *one = chosen(metas[b], kept, 1);
        newer[b] = put_wide(1, -b - 1, one);
        tq_meta_unref(one);
        tq_meta_unref(rest[b]);
        rest[b] = chosen(metas[b], kept + 1, 1);
        expected[b][0] = expected[b][1];
    }
    for (int b = 0; b < BATCHES; b++) {
        clear_rows(metas[b], then, 3);
    }
    do {
        for (int b = 0; b < BATCHES; b++) {
            check_wide(rest[b], newer[b] != NULL ? 1 : 2, expected[b]);
        }
    } while (block_bytes() * 10 > live * 13);
    for (int b = 0; b < BATCHES; b++) {
        const int64_t overwritten = -b - 1;
        check_wide(rest[b], newer[b] != NULL ? 1 : 2, expected[b]);
        if (newer[b] != NULL) {
            check_wide(newer[b], 1, &overwritten);
            tq_meta_unref(newer[b]);
        }
        tq_meta_unref(rest[b]);
        tq_meta_unref(metas[b]);
    }
    expect_ok(op, tq_clear_partition(op, "p"));
    assert_int_equal(block_bytes(), 0);
}

/* Room that only a move can make: the unit has little beside what is mostly dead. */
static void a_full_unit_makes_room(void **state)
{
    const uint32_t most[] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14,
                             15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29};
    const uint32_t last[] = {30, 31};
    tq_meta *metas[64], *rest;
    size_t n = 0;

    (void)state;
    for (; n < 52; n++) { /* 256 KiB each, of 14.4 MiB for new samples in both units */
        metas[n] = put_wide(32, 1000 * (int64_t)n, NULL);
    }
    for (size_t i = 0; i < n; i++) {
        clear_rows(metas[i], most, 30);
    }
    for (; n < 64; n++) {
        metas[n] = put_wide(32, 1000 * (int64_t)n, NULL);
    }
    for (size_t i = 0; i < 64; i++) {
        int64_t expected[] = {1000 * (int64_t)i + 30, 1000 * (int64_t)i + 31};
        rest = chosen(metas[i], last, 2);
        check_wide(rest, 2, expected);
        tq_meta_unref(rest);
        tq_meta_unref(metas[i]);
    }
    expect_ok(op, tq_clear_partition(op, "p"));
}

/* Bytes that units say are in use. */
static uint64_t used_bytes(void)
{
    uint64_t sum = 0;

    expect_ok(op, tq_query_status(op));
    for (size_t i = 0; i < tq_op_status(op)->n_owners; i++) {
        sum += tq_op_status(op)->owners[i]->used_bytes;
    }
    return sum;
}

/* New blocks that the controller did not accept are freed, even if the first requests to free them fail. */
static void a_move_that_fails_leaves_nothing(void **state)
{
    const uint32_t most[] = {0, 1, 2, 3, 4, 5};
    tq_meta *meta;

    (void)state;
    atomic_store(&refused_moves, 1);
    atomic_store(&refused_abandons, 2);
    meta = put_wide(ROWS, 0, NULL);
    clear_rows(meta, most, 6);
    while (atomic_load(&refused_abandons) > 0) {
        used_bytes();
    }
    expect_ok(op, tq_clear_partition(op, "p"));
    while (used_bytes() > 0) {
    }
    tq_meta_unref(meta);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(memory_follows_what_is_live, setup, teardown),
        cmocka_unit_test_setup_teardown(a_full_unit_makes_room, setup, teardown),
        cmocka_unit_test_setup_teardown(a_move_that_fails_leaves_nothing, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
