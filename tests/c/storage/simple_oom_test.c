/*
 * simple_oom_test.c - every allocation of a small put fails once: it is stored, or fails for lack of memory.
 */
#include "testkit_batch.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/testkit_oom.h"

static void quiet(tq_log_level level, const char *component, const char *text, void *arg)
{
    (void)level;
    (void)component;
    (void)text;
    (void)arg;
}

/* A put of one small block, of which the n-th allocation fails; returns whether one did. */
static bool put_without(host *h, uint8_t seed, long n)
{
    batch b;
    host_end end;
    bool failed;

    batch_make(&b, 1, 1, 8, 100, seed);
    b.job.wait_when_full = true;
    b.job.deadline_ns = tqi_deadline(KIT_LONG);
    oom_one_after(n);
    host_put_start(h, &b.job, &end);
    host_wait(h, &end);
    failed = oom_end() > 0;
    assert_true(end.err.code == TQ_OK || (failed && end.err.code == TQ_ENOMEM));
    if (end.err.code == TQ_OK) {
        batch_check(h, &b, &end, 1);
    }
    host_end_free(&end);
    batch_free(&b);
    return failed;
}

static void a_put_into_room_reserved_ahead_is_stored_or_lacks_memory(void **state)
{
    kit k;
    host h;
    bool failed = true;

    (void)state;
    batch_system_open(&k, &h, 64 * MIB, false);
    for (long n = 0; failed; n++) {
        assert_true(n < 1000);
        /* The first ones reserve room for the next ones. */
        for (int i = 0; i < 4; i++) {
            batch b;
            host_end end;
            batch_make(&b, 1, 1, 8, 100, (uint8_t)i);
            batch_put(&h, &b, &end);
            host_end_free(&end);
            batch_free(&b);
        }
        failed = put_without(&h, (uint8_t)n, n);
    }
    batch_system_close(&k, &h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_put_into_room_reserved_ahead_is_stored_or_lacks_memory),
    };

    tq_log_set_sink(quiet, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
