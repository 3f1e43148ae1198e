/*
 * loop_test.c - the simulated libuv calls back in the same order as libuv does.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <uv.h>

#include "../chance.h"
#include "../loop.h"
#include "../scheduler.h"
#include "loop_script.h"

static char simulated[1 << 16], real[1 << 16];

static void script_main(void *arg)
{
    (void)arg;
    loop_script(simulated, sizeof(simulated));
}

static void callbacks_come_in_the_order_of_libuv(void **state)
{
    FILE *out = popen(getenv("SIM_LOOP_REAL"), "r");

    (void)state;
    assert_non_null(out);
    size_t n = fread(real, 1, sizeof(real) - 1, out);
    assert_int_equal(pclose(out), 0);
    assert_true(n > 500);
    sched_start(1);
    sim_faults_draw(1);
    sim_faults_drawn.calm = true;
    sim_loops_start(uv_version() >= (1 << 16 | 45 << 8));
    sim_net_start();
    sim_disk_start();
    sim_process_start("program", 0, script_main, NULL);
    while (sched_step(SIM_NEVER)) {
    }
    sim_disk_end();
    sim_net_end();
    assert_string_equal(simulated, real);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(callbacks_come_in_the_order_of_libuv),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
