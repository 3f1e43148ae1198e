/*
 * wait_test.c - whether a waiting thread spins first: it does what has recently been faster, whatever was faster
 * before.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "client/client.h"

#define WAITS 4000

/* How long spinning and sleeping take, in nanoseconds; one spin in `of` loses the core to another thread. */
typedef struct machine {
    uint64_t spun, slept;
    int of;
} machine;

/* How many of that many waits spin. */
static int spins(tqi_client_waits *waits, int n, machine m)
{
    int sum = 0;

    for (int i = 0; i < n; i++) {
        bool spin = tqi_client_waits_spin(waits);
        sum += spin;
        bool crowded = spin && m.of > 0 && sum % m.of == 0;
        tqi_client_waits_learn(waits, spin, crowded, crowded ? 3500000 : spin ? m.spun : m.slept);
    }
    return sum;
}

static const machine quiet = {.spun = 60000, .slept = 120000};

static void what_is_faster_is_done(void **state)
{
    tqi_client_waits waits;

    (void)state;
    tqi_client_waits_init(&waits);
    /* Spins from the first wait on; a few waits sleep, to measure that. */
    assert_in_range(spins(&waits, 100, quiet), 90, 99);
    assert_in_range(spins(&waits, 4 * WAITS, quiet), 4 * WAITS - 40, 4 * WAITS - 1);
    /* Spinning gets in the way of others for a while, and then no longer. */
    spins(&waits, WAITS, (machine){.spun = 250000, .slept = 120000});
    assert_in_range(spins(&waits, 4 * WAITS, (machine){.spun = 250000, .slept = 120000}), 1, 40);
    spins(&waits, 4 * WAITS, quiet);
    assert_in_range(spins(&waits, WAITS, quiet), WAITS - 40, WAITS);
}

static void what_does_not_help_is_rare(void **state)
{
    /* No difference; too small a difference; long waits, of which spinning is a small part; as fast as not waiting at
     * all. */
    static const machine machines[] = {{.spun = 100000, .slept = 100000},
                                       {.spun = 114000, .slept = 120000},
                                       {.spun = 5000000000, .slept = 5000000000},
                                       {.spun = 0, .slept = 0}};

    (void)state;
    for (size_t i = 0; i < sizeof(machines) / sizeof(machines[0]); i++) {
        tqi_client_waits waits;
        tqi_client_waits_init(&waits);
        spins(&waits, WAITS, machines[i]);
        assert_in_range(spins(&waits, WAITS, machines[i]), 1, WAITS / 3);
        spins(&waits, 4 * WAITS, quiet);
        assert_in_range(spins(&waits, WAITS, quiet), WAITS - 40, WAITS);
    }
}

static void spins_rarely_lose_the_core(void **state)
{
    /* Every spin, every second one, every tenth one. */
    static const machine machines[] = {{.spun = 40000, .slept = 80000, .of = 1},
                                       {.spun = 40000, .slept = 80000, .of = 2},
                                       {.spun = 40000, .slept = 80000, .of = 10}};

    (void)state;
    for (size_t i = 0; i < sizeof(machines) / sizeof(machines[0]); i++) {
        const machine *m = &machines[i];
        tqi_client_waits waits;
        tqi_client_waits_init(&waits);
        /* Each costs 3.5 ms: fewer than a hundredth of all waits lose the core. */
        assert_in_range(spins(&waits, 100 * WAITS, *m) / m->of, 1, WAITS);
        /* And they are found out to be gone. */
        spins(&waits, 10 * WAITS, quiet);
        assert_in_range(spins(&waits, WAITS, quiet), WAITS - 40, WAITS);
    }
}

/* A try of the other kind that ends without a result is repeated. */
static void a_lost_try_is_made_again(void **state)
{
    tqi_client_waits waits;
    int n = 0;

    (void)state;
    tqi_client_waits_init(&waits);
    while (tqi_client_waits_spin(&waits)) {
        assert_true(++n < 64);
    }
    assert_false(tqi_client_waits_spin(&waits));
    assert_false(tqi_client_waits_spin(&waits));
    tqi_client_waits_learn(&waits, false, false, quiet.slept);
    assert_true(tqi_client_waits_spin(&waits));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_faster_is_done),
        cmocka_unit_test(what_does_not_help_is_rare),
        cmocka_unit_test(spins_rarely_lose_the_core),
        cmocka_unit_test(a_lost_try_is_made_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
