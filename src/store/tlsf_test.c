/*
 * tlsf_test.c - the allocator against a naive model: no overlap, full coalescing, low addresses first.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "store/tlsf.h"

#include <tq/errors.h>

#define CAPACITY (UINT64_C(1) << 20)
#define UNITS    (CAPACITY / TQI_STORE_TLSF_UNIT)

static uint32_t seed = 12345;

static uint32_t rnd(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 17;
    seed ^= seed << 5;
    return seed;
}

static void random_against_model(void **state)
{
    static uint8_t owner[UNITS]; /* 1: taken */
    struct {
        uint32_t chunk;
        uint64_t offset, size;
    } live[512];
    size_t n = 0;
    tqi_store_tlsf tlsf;
    uint64_t used, sum = 0;

    (void)state;
    memset(owner, 0, sizeof(owner));
    assert_int_equal(tqi_store_tlsf_init(&tlsf, CAPACITY), TQ_OK);
    for (int step = 0; step < 20000; step++) {
        if (n < 512 && (n == 0 || rnd() % 100 < 55)) {
            uint64_t size = rnd() % 8 == 0 ? rnd() % 40000 : rnd() % 3000;
            uint32_t chunk;
            int rc = tqi_store_tlsf_take(&tlsf, size, &chunk);
            if (rc == TQ_EFULL) {
                /* True only if there is no run of free units that would hold it. */
                uint64_t run = 0, best = 0, need = tqi_store_tlsf_round(size) / TQI_STORE_TLSF_UNIT;
                for (uint64_t i = 0; i < UNITS; i++) {
                    run = owner[i] ? 0 : run + 1;
                    best = run > best ? run : best;
                }
                assert_true(best < need);
                continue;
            }
            assert_int_equal(rc, TQ_OK);
            live[n].chunk = chunk;
            live[n].offset = tlsf.chunks[chunk].offset;
            live[n].size = tlsf.chunks[chunk].size;
            assert_true(live[n].size >= size);
            assert_int_equal(live[n].offset % TQI_STORE_TLSF_UNIT, 0);
            assert_true(live[n].offset + live[n].size <= CAPACITY);
            for (uint64_t u = 0; u < live[n].size / TQI_STORE_TLSF_UNIT; u++) {
                assert_int_equal(owner[live[n].offset / TQI_STORE_TLSF_UNIT + u], 0);
                owner[live[n].offset / TQI_STORE_TLSF_UNIT + u] = 1;
            }
            sum += live[n].size;
            n++;
        } else {
            size_t i = rnd() % n;
            memset(owner + live[i].offset / TQI_STORE_TLSF_UNIT, 0, live[i].size / TQI_STORE_TLSF_UNIT);
            sum -= live[i].size;
            tqi_store_tlsf_give(&tlsf, live[i].chunk);
            live[i] = live[--n];
        }
        if (step % 64 == 0) {
            assert_true(tqi_store_tlsf_check(&tlsf, &used));
            assert_int_equal(used, sum);
        }
    }
    while (n > 0) {
        tqi_store_tlsf_give(&tlsf, live[--n].chunk);
    }
    /* Everything has coalesced into the top, and the whole arena can be allocated in one piece. */
    assert_true(tqi_store_tlsf_check(&tlsf, &used));
    assert_int_equal(used, 0);
    assert_int_equal(tqi_store_tlsf_top(&tlsf), 0);
    uint32_t chunk;
    assert_int_equal(tqi_store_tlsf_take(&tlsf, CAPACITY, &chunk), TQ_OK);
    assert_int_equal(tqi_store_tlsf_take(&tlsf, 1, &chunk), TQ_EFULL);
    tqi_store_tlsf_fini(&tlsf);
}

static void coalesces_both_sides(void **state)
{
    tqi_store_tlsf tlsf;
    uint32_t a, b, c, d, e;
    uint64_t used;

    (void)state;
    assert_int_equal(tqi_store_tlsf_init(&tlsf, 5 * 4096), TQ_OK);
    assert_int_equal(tqi_store_tlsf_take(&tlsf, 4096, &a), TQ_OK);
    assert_int_equal(tqi_store_tlsf_take(&tlsf, 4096, &b), TQ_OK);
    assert_int_equal(tqi_store_tlsf_take(&tlsf, 4096, &c), TQ_OK);
    assert_int_equal(tqi_store_tlsf_take(&tlsf, 4096, &d), TQ_OK);
    tqi_store_tlsf_give(&tlsf, a);
    tqi_store_tlsf_give(&tlsf, c);
    assert_int_equal(tqi_store_tlsf_take(&tlsf, 3 * 4096, &e), TQ_EFULL);
    tqi_store_tlsf_give(&tlsf, b);
    assert_int_equal(tqi_store_tlsf_take(&tlsf, 3 * 4096, &e), TQ_OK);
    assert_int_equal(tlsf.chunks[e].offset, 0);
    assert_true(tqi_store_tlsf_check(&tlsf, &used));
    assert_int_equal(used, 4 * 4096);
    tqi_store_tlsf_fini(&tlsf);
}

static void prefers_used_memory(void **state)
{
    tqi_store_tlsf tlsf;
    uint32_t chunk[8], again;

    (void)state;
    assert_int_equal(tqi_store_tlsf_init(&tlsf, CAPACITY), TQ_OK);
    for (int i = 0; i < 8; i++) {
        assert_int_equal(tqi_store_tlsf_take(&tlsf, 1000, &chunk[i]), TQ_OK);
    }
    uint64_t top = tqi_store_tlsf_top(&tlsf);
    uint64_t low = tlsf.chunks[chunk[1]].offset;
    tqi_store_tlsf_give(&tlsf, chunk[5]);
    tqi_store_tlsf_give(&tlsf, chunk[1]);
    tqi_store_tlsf_give(&tlsf, chunk[3]);
    assert_int_equal(tqi_store_tlsf_take(&tlsf, 1000, &again), TQ_OK);
    assert_int_equal(tlsf.chunks[again].offset, low);
    assert_int_equal(tqi_store_tlsf_take(&tlsf, 1000, &again), TQ_OK);
    assert_int_equal(tqi_store_tlsf_take(&tlsf, 1000, &again), TQ_OK);
    assert_int_equal(tqi_store_tlsf_top(&tlsf), top);
    assert_int_equal(tqi_store_tlsf_take(&tlsf, 1000, &again), TQ_OK);
    assert_true(tqi_store_tlsf_top(&tlsf) > top);
    tqi_store_tlsf_fini(&tlsf);
}

static void sizes_at_the_edges(void **state)
{
    tqi_store_tlsf tlsf;
    uint32_t chunk;

    (void)state;
    assert_int_equal(tqi_store_tlsf_round(0), TQI_STORE_TLSF_UNIT);
    assert_int_equal(tqi_store_tlsf_round(64), 64);
    assert_int_equal(tqi_store_tlsf_round(65), 128);
    assert_true(tqi_store_tlsf_round(UINT64_MAX) == UINT64_MAX);
    assert_int_equal(tqi_store_tlsf_init(&tlsf, UINT64_C(1) << 47), TQ_OK);
    assert_int_equal(tqi_store_tlsf_take(&tlsf, UINT64_MAX, &chunk), TQ_EFULL);
    assert_int_equal(tqi_store_tlsf_take(&tlsf, (UINT64_C(1) << 47) + 1, &chunk), TQ_EFULL);
    assert_int_equal(tqi_store_tlsf_take(&tlsf, UINT64_C(1) << 47, &chunk), TQ_OK);
    tqi_store_tlsf_give(&tlsf, chunk);
    assert_int_equal(tqi_store_tlsf_take(&tlsf, UINT64_C(1) << 56, &chunk), TQ_EFULL);
    assert_int_equal(tqi_store_tlsf_take(&tlsf, 0, &chunk), TQ_OK);
    assert_int_equal(tlsf.chunks[chunk].size, TQI_STORE_TLSF_UNIT);
    tqi_store_tlsf_fini(&tlsf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_against_model),
        cmocka_unit_test(coalesces_both_sides),
        cmocka_unit_test(prefers_used_memory),
        cmocka_unit_test(sizes_at_the_edges),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
