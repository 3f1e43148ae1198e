/*
 * simple_test.c - the simple manager with real units and a real controller: batches in and out, over shared memory and
 * over the stream; blocks and grants; choice of the unit; full units; blocks that are gone. What ends is in
 * simple_ends_test.c.
 */
#include "testkit_batch.h"

#include <string.h>

#include "base/clock.h"
#include "manager/simple/simple.h"

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
        {3, 1500, 2, 4096, 100000, 3},      /* on several threads; more ranges than one request takes */
    };
    kit k;
    host h, reader;

    batch_system_open(&k, &h, 64 * MIB, tcp);
    host_open(&k, &reader, "SimpleStorage", "");
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        batch b;
        host_end end;
        batch_make(&b, cases[i].columns, cases[i].rows, cases[i].row_size, cases[i].slice, (uint8_t)i);
        batch_put(&h, &b, &end);
        assert_int_equal(end.n_blocks, cases[i].blocks);
        for (uint32_t c = 0; c < b.n; c++) {
            assert_string_equal(end.blocks[end.extents[c].block].owner, "unit-0");
            assert_true(end.extents[c].offset + b.columns[c].size <= end.blocks[end.extents[c].block].size);
            assert_int_equal(end.extents[c].offset % 64, 0);
        }
        batch_check(&h, &b, &end, 1);
        batch_check(&reader, &b, &end, cases[i].step);
        host_end_free(&end);
        batch_free(&b);
    }
    assert_true(tcp || h.works > 3); /* large copies were not made on the loop */
    assert_int_equal(tcp ? h.works : 0, 0);
    assert_in_range(h.grants, 1, 2); /* one grant served all; the next may be in flight */
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

    batch_system_open(&k, &h, 64 * MIB, tcp);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        batch b;
        host_end end;
        batch_make_sizes(&b, cases[i].sizes, 8);
        batch_put(&h, &b, &end);
        for (uint32_t c = 0; c < b.n; c++) {
            assert_int_equal(end.extents[c].block, cases[i].block[c]);
            assert_int_equal(end.extents[c].offset % 64, 0);
            assert_true(end.extents[c].offset + b.columns[c].size <= end.blocks[end.extents[c].block].size);
        }
        batch_check(&h, &b, &end, 1);
        host_end_free(&end);
        batch_free(&b);
    }
    batch_system_close(&k, &h);
}

static void grants_in_ranges(void **state)
{
    kit k;
    host h;

    (void)state;
    batch_system_open(&k, &h, 64 * MIB, false);
    uint64_t last = 0;
    for (int i = 0; i < 600; i++) {
        batch b;
        host_end end;
        batch_make(&b, 1, 1, 8, 100, (uint8_t)i);
        batch_put(&h, &b, &end);
        assert_true(end.blocks[0].id > last);
        last = end.blocks[0].id;
        host_end_free(&end);
        batch_free(&b);
    }
    /* 16, 32, 64, 128, 256, 256: each is asked for when a quarter of the one before is left. */
    assert_int_equal(h.grants, 6);
    batch_system_close(&k, &h);
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
    batch_system_open(&k, &h, 64 * MIB, false);
    kit_client_open(&k, &stat, 0);
    for (int i = 0; i < 40; i++) {
        batch_make(&b, 1, 1, 8, 100, (uint8_t)i);
        batch_put(&h, &b, &end);
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
    batch_put(&h, &b, &end);
    batch_check(&h, &b, &end, 1);
    host_end_free(&end);
    batch_free(&b);
    kit_client_close(&stat);
    batch_system_close(&k, &h);
}

/* What saves requests lasts longer where answers take long, and as long as ever where they do not any more. */
static void paces_by_answers(void **state)
{
    const uint64_t ms = 1000000;
    tqi_simple simple = {0};

    (void)state;
    assert_int_equal(tqi_simple_pace(&simple, 50 * ms), 50 * ms);
    tqi_simple_took(&simple, tqi_now() - 100 * ms);
    assert_in_range(tqi_simple_pace(&simple, 50 * ms), 1600 * ms, 5000 * ms);
    assert_int_equal(tqi_simple_pace(&simple, 9000 * ms), 9000 * ms);
    tqi_simple_took(&simple, tqi_now() - 60000 * ms);
    assert_int_equal(simple.answer_ns, TQI_SIMPLE_ANSWER_MAX_NS);
    assert_int_equal(tqi_simple_pace(&simple, 50 * ms), 5000 * ms);
    for (int i = 0; i < 100; i++) {
        tqi_simple_took(&simple, tqi_now());
    }
    assert_int_equal(tqi_simple_pace(&simple, 50 * ms), 50 * ms);
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
        batch_put(&h, &b, &end);
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
        batch_put(&h, &b, &end);
        assert_int_equal(end.blocks[0].owner[5] - '0' == 2, i == 2);
        host_end_free(&end);
        batch_free(&b);
    }
    batch_system_close(&k, &h);
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
    batch_put(&h, &first, &end);
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
    batch_system_close(&k, &h);
}

static void tells_what_is_gone(void **state)
{
    bool tcp = *(const bool *)*state;
    kit k;
    host h;
    batch b;
    host_end put, end;
    kit_call call;

    batch_system_open(&k, &h, 8 * MIB, tcp);
    batch_make(&b, 4, 100, 1000, 5000, 1);
    batch_put(&h, &b, &put);
    assert_int_equal(put.n_blocks, 4);
    /* Blocks 1 and 3 die; a reserve that needs their room tells when they are freed. */
    kit_client other;
    kit_client_open(&k, &other, 0);
    uint64_t id = kit_grant(&other, 0, 1, NULL);
    kit_reserve_start(&other, id, 8 * MIB - 310000, false, true, 0, 0, &call);
    uint64_t dead[2] = {put.blocks[1].id, put.blocks[3].id};
    h.base.abandon(&h.base, dead, 2, true);
    kit_end(&other, &call);
    assert_int_equal(call.status, TQ_OK);
    kit_call_free(&call);
    batch_get(&h, &b, &put, KIT_LONG, &end);
    assert_int_equal(end.err.code, TQ_OK);
    assert_int_equal(end.n_gone, 2);
    assert_int_equal(end.gone[0], 1);
    assert_int_equal(end.gone[1], 3);
    host_end_free(&end);
    /* An owner that nobody knows. */
    put.blocks[0].owner_incarnation++;
    batch_get(&h, &b, &put, KIT_LONG, &end);
    assert_int_equal(end.err.code, TQ_OK);
    assert_int_equal(end.n_gone, 3);
    put.blocks[0].owner_incarnation--;
    host_end_free(&end);
    /* Locators that nobody made. */
    put.blocks[2].locator_size--;
    batch_get(&h, &b, &put, KIT_LONG, &end);
    assert_int_equal(end.err.code, TQ_EINVAL);
    put.blocks[2].locator_size++;
    put.blocks[2].locator[7] ^= 0xff;
    batch_get(&h, &b, &put, KIT_LONG, &end);
    assert_true(end.err.code == TQ_OK || end.err.code == TQ_EINVAL);
    host_end_free(&end);
    kit_client_close(&other);
    host_end_free(&put);
    batch_free(&b);
    batch_system_close(&k, &h);
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
    int rc = 0;

    (void)state;
    kit_open(&k);
    host_open(&k, &h, "SimpleStorage", "{\"unknown\": 1}"); /* a warning */
    h.manager->open(&simple, &h.base, "{\"a\": ", fails_open, &rc);
    assert_int_equal(rc, TQ_ECONFIG);
    h.manager->open(&simple, &h.base, "[1]", fails_open, &rc);
    assert_int_equal(rc, TQ_ECONFIG);
    batch_system_close(&k, &h);
}

/* A grant that was asked for and is not answered yet. */
static struct {
    unsigned n;
    const char *owner;
    uint32_t count;
    void (*done)(const tq_error *err, uint64_t first, uint64_t incarnation, void *arg);
    void *arg;
    void (*grant)(tq_manager_host *base, const char *owner, uint32_t count, uint64_t deadline_ns,
                  void (*done)(const tq_error *err, uint64_t first, uint64_t incarnation, void *arg), void *arg);
} held;

static void held_grant(tq_manager_host *base, const char *owner, uint32_t count, uint64_t deadline_ns,
                       void (*done)(const tq_error *err, uint64_t first, uint64_t incarnation, void *arg), void *arg)
{
    (void)base;
    (void)deadline_ns;
    held.n++;
    held.owner = owner;
    held.count = count;
    held.done = done;
    held.arg = arg;
}

/* A put waits for what an earlier one has asked for, but not longer than its own time. */
static void waits_behind_another_no_longer_than_its_deadline(void **state)
{
    kit k;
    host h;
    batch first, second;
    host_end end, late;

    (void)state;
    batch_system_open(&k, &h, 8 * MIB, true);
    held.n = 0;
    held.grant = h.base.grant;
    h.base.grant = held_grant;
    batch_make(&first, 1, 1, 1000, MIB, 1);
    batch_make(&second, 1, 1, 1000, MIB, 2);
    first.job.deadline_ns = TQI_NEVER;
    host_put_start(&h, &first.job, &end);
    while (held.n == 0) {
        uv_run(&k.loop, UV_RUN_ONCE);
    }
    second.job.deadline_ns = tqi_deadline(0.2);
    host_put_start(&h, &second.job, &late);
    host_wait(&h, &late);
    assert_int_equal(late.err.code, TQ_ETIMEDOUT);
    assert_non_null(strstr(late.err.message, "granted block ids"));
    assert_int_equal(held.n, 1);
    assert_false(end.done);
    /* The first one gets what it asked for. */
    h.base.grant = held.grant;
    h.base.grant(&h.base, held.owner, held.count, TQI_NEVER, held.done, held.arg);
    host_wait(&h, &end);
    assert_int_equal(end.err.code, TQ_OK);
    batch_check(&h, &first, &end, 1);
    host_end_free(&end);
    host_end_free(&late);
    batch_free(&first);
    batch_free(&second);
    batch_system_close(&k, &h);
}

int main(void)
{
    static bool shared = false, stream = true;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(moves_batches, &shared),
        cmocka_unit_test_prestate(moves_batches, &stream),
        cmocka_unit_test_prestate(small_columns_share_blocks, &shared),
        cmocka_unit_test_prestate(small_columns_share_blocks, &stream),
        cmocka_unit_test(grants_in_ranges),
        cmocka_unit_test(reserves_ahead),
        cmocka_unit_test(paces_by_answers),
        cmocka_unit_test(chooses_a_unit),
        cmocka_unit_test(waits_or_fails_when_full),
        cmocka_unit_test(waits_behind_another_no_longer_than_its_deadline),
        cmocka_unit_test_prestate(tells_what_is_gone, &shared),
        cmocka_unit_test_prestate(tells_what_is_gone, &stream),
        cmocka_unit_test(refuses_bad_config),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
