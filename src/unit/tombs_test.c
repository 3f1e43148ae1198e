/*
 * tombs_test.c - ids that ended before their reserve arrived: against a naive model, at the limits, and across the
 * wrap.
 */
#include "unit/tombs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static tqi_unit_tombs tombs;

static void against_model(void **state)
{
    static uint8_t dead[4000];
    uint32_t seed = 7;

    (void)state;
    memset(dead, 0, sizeof(dead));
    tqi_unit_tombs_clear(&tombs);
    for (int step = 0; step < 3000; step++) {
        seed = seed * 1664525u + 1013904223u;
        uint64_t first = (seed >> 8) % 3900;
        uint64_t count = step % 3 == 0 ? (seed >> 20) % 50 : 1;
        tqi_unit_tombs_add(&tombs, first, count);
        memset(dead + first, 1, count);
        if (step % 100 == 0) {
            size_t ranges = 0;
            for (uint64_t id = 0; id < 4000; id++) {
                assert_int_equal(tqi_unit_tombs_has(&tombs, id), dead[id]);
                ranges += dead[id] && (id == 0 || !dead[id - 1]);
            }
            assert_int_equal(tombs.n, ranges);
        }
    }
}

static void stays_bounded(void **state)
{
    (void)state;
    tqi_unit_tombs_clear(&tombs);
    for (uint64_t i = 1; i < 100000; i++) {
        tqi_unit_tombs_add(&tombs, i * 10, 1);
        assert_true(tombs.n <= TQI_UNIT_TOMBS_MAX);
        assert_true(tqi_unit_tombs_has(&tombs, i * 10));
    }
    /* Old ids stay dead; some live ones are refused too; new ones never. */
    assert_true(tqi_unit_tombs_has(&tombs, 10));
    assert_true(tqi_unit_tombs_has(&tombs, 11));
    assert_true(tqi_unit_tombs_has(&tombs, 99999 * 10));
    assert_false(tqi_unit_tombs_has(&tombs, 99999 * 10 - 1));
    assert_false(tqi_unit_tombs_has(&tombs, 99999 * 10 + 1));
    tqi_unit_tombs_clear(&tombs);
    assert_false(tqi_unit_tombs_has(&tombs, 10));
}

static void numbers_wrap(void **state)
{
    (void)state;
    tqi_unit_tombs_clear(&tombs);
    tqi_unit_tombs_add(&tombs, UINT64_MAX - 3, 8);
    assert_false(tqi_unit_tombs_has(&tombs, UINT64_MAX - 4));
    assert_true(tqi_unit_tombs_has(&tombs, UINT64_MAX - 3));
    assert_true(tqi_unit_tombs_has(&tombs, UINT64_MAX));
    assert_true(tqi_unit_tombs_has(&tombs, 0));
    assert_true(tqi_unit_tombs_has(&tombs, 3));
    assert_false(tqi_unit_tombs_has(&tombs, 4));
    tqi_unit_tombs_add(&tombs, 4, 0);
    assert_false(tqi_unit_tombs_has(&tombs, 4));
    /* A floor before the wrap does not refuse the ids after it. */
    tqi_unit_tombs_clear(&tombs);
    for (uint64_t i = 0; i <= TQI_UNIT_TOMBS_MAX; i++) {
        tqi_unit_tombs_add(&tombs, UINT64_MAX - 100000 + i * 10, 1);
    }
    assert_true(tombs.has_floor);
    assert_true(tqi_unit_tombs_has(&tombs, UINT64_MAX - 100000));
    assert_false(tqi_unit_tombs_has(&tombs, 5));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(against_model),
        cmocka_unit_test(stays_bounded),
        cmocka_unit_test(numbers_wrap),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
