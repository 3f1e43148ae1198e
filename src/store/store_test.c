/*
 * store_test.c - blocks, quotas, holds, frees, trimming of one store.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "store/store.h"

static tqi_store *make(uint64_t capacity, uint32_t slots)
{
    tqi_store_options options = {.capacity = capacity, .max_blocks = slots};
    tqi_store *store = NULL;
    tq_error err = {0};

    assert_int_equal(tqi_store_alloc(&options, &store, &err), TQ_OK);
    return store;
}

static int reserve(tqi_store *store, uint64_t id, uint64_t size, bool adds, tqi_store_place *place)
{
    tq_error err = {0};

    *place = (tqi_store_place){.id = id, .size = size};
    int rc = tqi_store_reserve(store, place, 1, adds, &err);
    assert_int_equal(err.code, rc);
    assert_true(rc == TQ_OK || err.message[0] != 0);
    return rc;
}

static void keeps_bytes(void **state)
{
    tqi_store *store = make(1 << 20, 0);
    tqi_store_place places[3] = {{.id = 7, .size = 100}, {.id = 8, .size = 0}, {.id = 9, .size = 5000}};
    uint64_t size = 0;
    tq_error err;

    (void)state;
    assert_int_equal(tqi_store_reserve(store, places, 3, true, &err), TQ_OK);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(places[i].offset % 64, 0);
        uint8_t *at = tqi_store_find(store, places[i].id, places[i].slot, &size);
        assert_non_null(at);
        assert_int_equal(size, places[i].size);
        memset(at, (int)places[i].id, size);
    }
    assert_null(tqi_store_find(store, 7, places[1].slot, NULL));
    assert_null(tqi_store_find(store, 10, places[1].slot, NULL));
    uint8_t *at = tqi_store_find(store, 9, places[2].slot, NULL);
    assert_int_equal(at[0], 9);
    assert_int_equal(at[4999], 9);
    assert_int_equal(tqi_store_blocks(store), 3);
    assert_int_equal(tqi_store_used(store), 128 + 64 + 5056);
    assert_true(tqi_store_check_for_tests(store));
    /* Frees are idempotent. */
    assert_true(tqi_store_free_block(store, 7));
    assert_false(tqi_store_free_block(store, 7));
    assert_false(tqi_store_free_block(store, 1234));
    assert_null(tqi_store_find(store, 7, places[0].slot, NULL));
    assert_false(tqi_store_has(store, 7));
    tqi_store_drop_all(store);
    assert_int_equal(tqi_store_blocks(store), 0);
    assert_int_equal(tqi_store_used(store), 0);
    assert_true(tqi_store_check_for_tests(store));
    tqi_store_free(store);
}

static void all_or_none(void **state)
{
    tqi_store *store = make(64 * 1024, 8);
    tqi_store_place places[9];
    tqi_store_place one;
    tq_error err;

    (void)state;
    assert_int_equal(reserve(store, 1, 40 * 1024, false, &one), TQ_OK);
    for (int i = 0; i < 9; i++) {
        places[i] = (tqi_store_place){.id = (uint64_t)i + 10, .size = 64};
    }
    /* The third has an id that exists. */
    places[2].id = 1;
    assert_int_equal(tqi_store_reserve(store, places, 4, false, &err), TQ_EINVAL);
    assert_non_null(strstr(err.message, "block 1 "));
    places[2].id = 11; /* twice in the request */
    assert_int_equal(tqi_store_reserve(store, places, 4, false, &err), TQ_EINVAL);
    places[2].id = 0;
    assert_int_equal(tqi_store_reserve(store, places, 4, false, &err), TQ_EINVAL);
    places[2].id = 12;
    /* More slots than are left, and more than exist. */
    assert_int_equal(tqi_store_reserve(store, places, 8, false, &err), TQ_EFULL);
    assert_int_equal(tqi_store_reserve(store, places, 9, false, &err), TQ_EINVAL);
    /* No room for the last one. */
    places[3].size = 30 * 1024;
    assert_int_equal(tqi_store_reserve(store, places, 4, false, &err), TQ_EFULL);
    assert_int_equal(tqi_store_blocks(store), 1);
    assert_int_equal(tqi_store_used(store), 40 * 1024);
    assert_true(tqi_store_check_for_tests(store));
    tqi_store_free(store);
}

static void quota_for_new_samples(void **state)
{
    tqi_store *store = make(100 * 4096, 0);
    tqi_store_place place;
    uint64_t sizes[2] = {60 * 4096, 31 * 4096};

    (void)state;
    assert_false(tqi_store_fits(store, sizes, 2, true));
    assert_true(tqi_store_fits(store, sizes, 2, false));
    sizes[0] = UINT64_MAX;
    assert_false(tqi_store_fits(store, sizes, 2, false));
    assert_int_equal(reserve(store, 1, 60 * 4096, true, &place), TQ_OK);
    assert_int_equal(reserve(store, 2, 31 * 4096, true, &place), TQ_EFULL);
    assert_int_equal(reserve(store, 2, 30 * 4096, true, &place), TQ_OK);
    assert_int_equal(reserve(store, 3, 1, true, &place), TQ_EFULL);
    /* The last tenth is for columns of samples that exist. */
    assert_int_equal(reserve(store, 3, 10 * 4096, false, &place), TQ_OK);
    assert_int_equal(reserve(store, 4, 1, false, &place), TQ_EFULL);
    assert_int_equal(reserve(store, 4, 91 * 4096, true, &place), TQ_EINVAL);
    assert_int_equal(reserve(store, 4, 101 * 4096, false, &place), TQ_EINVAL);
    tqi_store_free_block(store, 1);
    assert_int_equal(reserve(store, 4, 50 * 4096, true, &place), TQ_OK);
    assert_true(tqi_store_check_for_tests(store));
    tqi_store_free(store);
}

static void holds_keep_memory(void **state)
{
    tqi_store *store = make(16 * 4096, 0);
    tqi_store_place place, other;

    (void)state;
    assert_int_equal(reserve(store, 1, 16 * 4096, false, &place), TQ_OK);
    uint8_t *at = tqi_store_find(store, 1, place.slot, NULL);
    tqi_store_ref(store, 1);
    tqi_store_ref(store, 1);
    assert_true(tqi_store_free_block(store, 1));
    assert_false(tqi_store_free_block(store, 1));
    assert_int_equal(tqi_store_blocks(store), 0);
    assert_int_equal(reserve(store, 2, 1, false, &other), TQ_EFULL);
    at[0] = 1; /* still the block's */
    tqi_store_unref(store, 1);
    assert_int_equal(reserve(store, 2, 1, false, &other), TQ_EFULL);
    assert_true(tqi_store_check_for_tests(store));
    tqi_store_unref(store, 1);
    assert_int_equal(tqi_store_used(store), 0);
    tqi_store_unref(store, 1); /* nothing to release: no harm */
    assert_int_equal(reserve(store, 2, 4096, false, &other), TQ_OK);
    /* Pins are holds of their own. */
    tqi_store_ref(store, 2);
    assert_false(tqi_store_pinned(store, 2));
    assert_false(tqi_store_unpin(store, 2)); /* none */
    tqi_store_pin(store, 2);
    tqi_store_pin(store, 2);
    assert_false(tqi_store_unpin(store, 2)); /* one is left */
    assert_true(tqi_store_unpin(store, 2));
    tqi_store_pin(store, 2);
    assert_true(tqi_store_pinned(store, 2));
    tqi_store_unref(store, 2);
    assert_true(tqi_store_pinned(store, 2));
    /* Everything is dropped but what is held. */
    assert_int_equal(reserve(store, 3, 4096, false, &other), TQ_OK);
    tqi_store_drop_all(store);
    assert_int_equal(tqi_store_used(store), 4096);
    assert_false(tqi_store_pinned(store, 2)); /* nothing that could be moved */
    assert_false(tqi_store_unpin(store, 2));
    assert_int_equal(tqi_store_used(store), 0);
    assert_true(tqi_store_check_for_tests(store));
    tqi_store_free(store);
}

static void gives_memory_back(void **state)
{
    const uint64_t size = 8 << 20;
    tqi_store *store = make(64 << 20, 0);
    tqi_store_place place[3];

    (void)state;
    for (uint64_t i = 0; i < 3; i++) {
        assert_int_equal(reserve(store, i + 1, size, false, &place[i]), TQ_OK);
        memset(tqi_store_find(store, i + 1, place[i].slot, NULL), 0x5a, size);
    }
    assert_true(tqi_store_resident_for_tests(store) >= 3 * size);
    tqi_store_free_block(store, 2);
    assert_true(tqi_store_trim(store) >= size);
    assert_int_equal(tqi_store_trim(store), 0);
    uint8_t *at = tqi_store_find(store, 3, place[2].slot, NULL);
    assert_int_equal(at[0], 0x5a);
    assert_int_equal(at[size - 1], 0x5a);
    tqi_store_free_block(store, 1);
    tqi_store_free_block(store, 3);
    assert_true(tqi_store_trim(store) >= 2 * size);
    assert_int_equal(tqi_store_resident_for_tests(store), 0);
    /* Warming populates pages without a touch: a few before the first block, then all of this small arena. */
    assert_int_equal(tqi_store_warm(store, 64 << 20), 0);
    assert_int_equal(tqi_store_resident_for_tests(store), 4 << 20);
    assert_int_equal(reserve(store, 9, 60 << 20, false, &place[0]), TQ_OK);
    assert_int_equal(tqi_store_warm(store, 0), 4 << 20);
    uint64_t left = tqi_store_warm(store, 2 << 20);
    assert_int_equal(left, 2 << 20);
    while (left > 0) {
        uint64_t next = tqi_store_warm(store, 16 << 20);
        assert_true(next < left);
        left = next;
    }
    assert_true(tqi_store_resident_for_tests(store) >= 8 << 20);
    assert_int_equal(tqi_store_warm(store, 1 << 20), 0);
    assert_true(tqi_store_check_for_tests(store));
    tqi_store_free(store);
}

static void long_run(void **state)
{
    tqi_store *store = make(4 << 20, 600);
    tqi_store_place live[600];
    size_t n = 0;
    uint64_t id = UINT64_MAX - 5000; /* ids wrap on the way */
    uint32_t seed = 99;

    (void)state;
    for (int step = 0; step < 30000; step++) {
        seed = seed * 1664525u + 1013904223u;
        uint32_t r = seed >> 8;
        if (n < 600 && r % 100 < 52) {
            id = id == UINT64_MAX ? 1 : id + 1;
            int rc = reserve(store, id, r % 20000, (r & 1) != 0, &live[n]);
            assert_true(rc == TQ_OK || rc == TQ_EFULL);
            if (rc == TQ_OK) {
                uint8_t *at = tqi_store_find(store, id, live[n].slot, NULL);
                memset(at, (int)(id & 0xff), live[n].size);
                n++;
            }
        } else if (n > 0) {
            size_t i = r % n;
            uint8_t *at = tqi_store_find(store, live[i].id, live[i].slot, NULL);
            assert_non_null(at);
            if (live[i].size > 0) {
                assert_int_equal(at[0], live[i].id & 0xff);
                assert_int_equal(at[live[i].size - 1], live[i].id & 0xff);
            }
            assert_true(tqi_store_free_block(store, live[i].id));
            live[i] = live[--n];
        }
        if (step % 1000 == 0) {
            assert_true(tqi_store_check_for_tests(store));
        }
    }
    tqi_store_drop_all(store);
    assert_true(tqi_store_check_for_tests(store));
    assert_int_equal(tqi_store_used(store), 0);
    tqi_store_free(store);
}

static void refuses_bad_options(void **state)
{
    tqi_store_options options = {.capacity = 0};
    tqi_store *store = NULL;
    tq_error err;

    (void)state;
    assert_int_equal(tqi_store_alloc(&options, &store, &err), TQ_EINVAL);
    options.capacity = UINT64_MAX;
    assert_int_equal(tqi_store_alloc(&options, &store, &err), TQ_EINVAL);
    options.capacity = 4096;
    options.join_percent = 101;
    assert_int_equal(tqi_store_alloc(&options, &store, &err), TQ_EINVAL);
    assert_null(store);
    options.join_percent = 0;
    options.capacity = 100; /* a page at least */
    assert_int_equal(tqi_store_alloc(&options, &store, &err), TQ_OK);
    assert_true(tqi_store_capacity(store) >= 4096);
    assert_int_equal(tqi_store_slots(store), 4096);
    tqi_store_free(store);
    tqi_store_free(NULL);
}

/* Only what exceeds the amount to keep, from the top, one step at a time; never a byte of a block. */
static void gives_back_in_steps(void **state)
{
    enum {
        BLOCKS = 12
    };
    const uint64_t size = (4 << 20) + 64;
    tqi_store *store = make(64 << 20, 0);
    tqi_store_place place[BLOCKS];

    (void)state;
    for (uint64_t i = 0; i < BLOCKS; i++) {
        assert_int_equal(reserve(store, i + 1, size, false, &place[i]), TQ_OK);
        memset(tqi_store_find(store, i + 1, place[i].slot, NULL), (int)i + 1, size);
    }
    uint64_t full = tqi_store_resident_for_tests(store);
    assert_true(full >= BLOCKS * size);
    assert_true(tqi_store_keeps(full) >= full + full / 16);
    for (uint64_t i = 1; i < BLOCKS; i += 2) {
        tqi_store_free_block(store, i + 1);
    }
    assert_int_equal(tqi_store_give_back(store, full, UINT64_MAX), 0);
    assert_true(tqi_store_give_back(store, 0, 2 << 20) > 0);
    uint64_t less = tqi_store_resident_for_tests(store);
    assert_in_range(less, full - (5 << 20), full - (1 << 20));
    const uint64_t keep = 36 << 20;
    while (tqi_store_give_back(store, keep, 2 << 20) > 0) {
        assert_true(tqi_store_resident_for_tests(store) >= keep - (4 << 20));
    }
    assert_in_range(tqi_store_resident_for_tests(store), keep - (4 << 20), keep);
    while (tqi_store_give_back(store, 0, 2 << 20) > 0) {
    }
    /* The blocks remain, and the pages that they share with free bytes. */
    assert_true(tqi_store_resident_for_tests(store) <= BLOCKS / 2 * (size + 2 * 4096));
    for (uint64_t i = 0; i < BLOCKS; i += 2) {
        const uint8_t *at = tqi_store_find(store, i + 1, place[i].slot, NULL);
        for (uint64_t byte = 0; byte < size; byte++) {
            assert_int_equal(at[byte], i + 1);
        }
    }
    assert_true(tqi_store_check_for_tests(store));
    /* When part of a hole is reused, only the rest of it is given back again. */
    assert_int_equal(reserve(store, 100, 1 << 20, false, &place[1]), TQ_OK);
    memset(tqi_store_find(store, 100, place[1].slot, NULL), 7, 1 << 20);
    tqi_store_free_block(store, 100);
    assert_true(tqi_store_give_back(store, 0, UINT64_MAX) > 0);
    assert_true(tqi_store_resident_for_tests(store) <= BLOCKS / 2 * (size + 2 * 4096));
    assert_int_equal(tqi_store_give_back(store, 0, UINT64_MAX), 0);
    tqi_store_free(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_bytes),
        cmocka_unit_test(all_or_none),
        cmocka_unit_test(quota_for_new_samples),
        cmocka_unit_test(holds_keep_memory),
        cmocka_unit_test(gives_memory_back),
        cmocka_unit_test(gives_back_in_steps),
        cmocka_unit_test(long_run),
        cmocka_unit_test(refuses_bad_options),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
