/*
 * oom_test.c - every allocation of a store fails once: the call reports it, nothing leaks, and the store is unchanged.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/testkit_oom.h"
#include "store/store.h"

static void alloc_fails_cleanly(void **state)
{
    tqi_store_options options = {.capacity = 1 << 20};
    tqi_store *store = NULL;
    tq_error err;
    long n = 0;
    int rc;

    (void)state;
    do {
        oom_all_after(n++);
        rc = tqi_store_alloc(&options, &store, &err);
        oom_end();
        assert_true(rc == TQ_OK || (rc == TQ_ENOMEM && err.code == TQ_ENOMEM && store == NULL));
    } while (rc != TQ_OK);
    assert_true(n > 2);
    tqi_store_free(store);
}

static void reserve_fails_cleanly(void **state)
{
    tqi_store_options options = {.capacity = 4 << 20};
    tqi_store *store = NULL;
    tq_error err;
    long failures = 0;

    (void)state;
    assert_int_equal(tqi_store_alloc(&options, &store, &err), TQ_OK);
    for (uint64_t first = 1; first < 1000; first += 10) {
        int rc;
        long n = 0;
        do {
            tqi_store_place places[10];
            for (uint64_t i = 0; i < 10; i++) {
                places[i] = (tqi_store_place){.id = first + i, .size = 100 * i};
            }
            uint64_t used = tqi_store_used(store), blocks = tqi_store_blocks(store);
            oom_all_after(n++);
            rc = tqi_store_reserve(store, places, 10, false, &err);
            oom_end();
            assert_true(tqi_store_check_for_tests(store));
            if (rc != TQ_OK) {
                failures++;
                assert_int_equal(rc, TQ_ENOMEM);
                assert_int_equal(tqi_store_used(store), used);
                assert_int_equal(tqi_store_blocks(store), blocks);
            }
        } while (rc != TQ_OK);
    }
    assert_true(failures > 1000);
    /* Frees never fail. */
    oom_all_after(0);
    for (uint64_t id = 1; id < 1001; id++) {
        assert_true(tqi_store_free_block(store, id));
    }
    oom_end();
    assert_int_equal(tqi_store_used(store), 0);
    assert_true(tqi_store_check_for_tests(store));
    tqi_store_free(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alloc_fails_cleanly),
        cmocka_unit_test(reserve_fails_cleanly),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
