/*
 * wait_test.c - whether who waits looks for the end first: what is faster lately, whatever it was before.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "client/client.h"

#define WAITS 1600

/* How many of so many waits look, where looking makes them take `looked` and sleeping `slept` nanoseconds. */
static int looks(tqi_waits *waits, int n, uint64_t looked, uint64_t slept)
{
    int sum = 0;

    for (int i = 0; i < n; i++) {
        bool look = tqi_waits_look(waits);
        tqi_waits_learn(waits, look, look ? looked : slept);
        sum += look;
    }
    return sum;
}

static void what_is_faster_is_done(void **state)
{
    tqi_waits waits;

    (void)state;
    tqi_waits_init(&waits);
    /* From the first one on; some sleep, to see what that takes. */
    assert_in_range(looks(&waits, 64, 60000, 120000), 56, 63);
    assert_in_range(looks(&waits, WAITS, 60000, 120000), WAITS * 14 / 16, WAITS - WAITS / 32);
    /* Others came, who want the core; and went. */
    looks(&waits, WAITS, 250000, 120000);
    assert_in_range(looks(&waits, WAITS, 250000, 120000), WAITS / 32, WAITS * 2 / 16);
    looks(&waits, WAITS, 60000, 120000);
    assert_in_range(looks(&waits, WAITS, 60000, 120000), WAITS * 14 / 16, WAITS - WAITS / 32);
}

static void what_does_not_help_is_rare(void **state)
{
    tqi_waits waits;

    (void)state;
    tqi_waits_init(&waits);
    looks(&waits, WAITS, 100000, 100000);
    assert_in_range(looks(&waits, WAITS, 100000, 100000), WAITS / 32, WAITS / 2);
    /* Of what takes much longer than looking can help. */
    looks(&waits, WAITS, UINT64_C(5000000000), UINT64_C(5000000000));
    assert_in_range(looks(&waits, WAITS, UINT64_C(5000000000), UINT64_C(5000000000)), WAITS / 32,
                    WAITS * 2 / 16);
    /* As quick as no wait is. */
    looks(&waits, WAITS, 0, 0);
    assert_in_range(looks(&waits, WAITS, 0, 0), WAITS / 32, WAITS / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_faster_is_done),
        cmocka_unit_test(what_does_not_help_is_rare),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
