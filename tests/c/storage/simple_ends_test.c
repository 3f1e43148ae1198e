/*
 * simple_ends_test.c - puts and reads of the simple manager while something ends: units, the controller, grants, the
 * process.
 */
#include "testkit_batch.h"

#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "manager/simple/simple.h"

static void outlives_a_restarted_unit(void **state)
{
    bool tcp = *(const bool *)*state;
    kit k;
    host h;
    batch b;
    host_end put, again, end;

    batch_system_open(&k, &h, 8 * MIB, tcp);
    batch_make(&b, 3, 100, 1000, 5000, 1);
    batch_put(&h, &b, &put);
    kit_unit_stop(&k, 0);
    if (tcp) {
        /* It left in order, so its blocks are known to be gone, and the read does not wait for it until the deadline.
         * (What is mapped can still be read.) */
        uint64_t deadline = tqi_deadline(KIT_LONG / 2);
        batch_get(&h, &b, &put, KIT_LONG, &end);
        assert_int_equal(end.err.code, TQ_OK);
        assert_int_equal(end.n_gone, 3);
        assert_true(tqi_now() < deadline);
        host_end_free(&end);
    } else {
        batch_get(&h, &b, &put, 0.5, &end);
        assert_int_equal(end.err.code, TQ_OK);
        assert_int_equal(end.n_gone, 0);
        host_end_free(&end);
    }
    b.job.deadline_ns = tqi_deadline(0.5);
    host_put_start(&h, &b.job, &again);
    host_wait(&h, &again);
    assert_true(again.err.code == TQ_EUNREACHABLE || again.err.code == TQ_ETIMEDOUT);
    kit_unit_start(&k, 0, 8 * MIB, tcp);
    b.job.deadline_ns = tqi_deadline(KIT_LONG);
    batch_put(&h, &b, &again);
    assert_true(again.blocks[0].owner_incarnation != put.blocks[0].owner_incarnation);
    batch_check(&h, &b, &again, 1);
    batch_get(&h, &b, &put, KIT_LONG, &end);
    assert_int_equal(end.err.code, TQ_OK);
    assert_int_equal(end.n_gone, 3);
    host_end_free(&end);
    host_end_free(&put);
    host_end_free(&again);
    batch_free(&b);
    batch_system_close(&k, &h);
}

static void outlives_a_restarted_controller(void **state)
{
    bool tcp = *(const bool *)*state;
    kit k;
    host h;
    batch b;
    host_end put, again, end;

    batch_system_open(&k, &h, 8 * MIB, tcp);
    batch_make(&b, 3, 100, 1000, 5000, 1);
    batch_put(&h, &b, &put);
    k.ready[0] = false;
    kit_controller_stop(&k);
    kit_controller_start(&k);
    kit_until(&k, &k.ready[0]);
    batch_put(&h, &b, &again);
    assert_true(again.blocks[0].owner_incarnation != put.blocks[0].owner_incarnation);
    batch_check(&h, &b, &again, 1);
    batch_get(&h, &b, &put, KIT_LONG, &end);
    assert_int_equal(end.err.code, TQ_OK);
    assert_int_equal(end.n_gone, 3);
    host_end_free(&end);
    host_end_free(&put);
    host_end_free(&again);
    batch_free(&b);
    batch_system_close(&k, &h);
}

static void waits_for_the_first_unit(void **state)
{
    kit k;
    host h;
    batch b;
    host_end end;

    (void)state;
    kit_open(&k);
    host_open(&k, &h, "SimpleStorage", "{}");
    batch_make(&b, 1, 10, 100, 100, 1);
    b.job.deadline_ns = tqi_deadline(0.2);
    host_put_start(&h, &b.job, &end);
    host_wait(&h, &end);
    assert_true(end.err.code < 0);
    b.job.deadline_ns = tqi_deadline(KIT_LONG);
    host_put_start(&h, &b.job, &end);
    kit_unit_start(&k, 1, MIB, false);
    host_wait(&h, &end);
    assert_int_equal(end.err.code, TQ_OK);
    batch_check(&h, &b, &end, 1);
    host_end_free(&end);
    /* Closing a client ends its put in progress. */
    host_put_start(&h, &b.job, &end);
    host_close(&h);
    assert_true(end.done);
    assert_true(end.err.code == TQ_OK || end.err.code == TQ_ECLOSED);
    host_end_free(&end);
    batch_free(&b);
    kit_close(&k);
}

static void cancels_where_it_waits(void **state)
{
    kit k;
    host h;
    batch b, other;
    host_end first, end;

    (void)state;
    kit_open(&k);
    host_open(&k, &h, "SimpleStorage", "{}");
    batch_make(&b, 1, 6, MIB, MIB, 1);
    batch_make(&other, 1, 1, 1000, 1000, 2);
    /* For the first unit. */
    host_put_start(&h, &b.job, &end);
    assert_false(end.done);
    h.manager->cancel(h.state, &b.job);
    host_wait(&h, &end);
    assert_int_equal(end.err.code, TQ_ECANCELED);
    /* For its memory or for ids. */
    kit_unit_start(&k, 0, 8 * MIB, false);
    host_put_start(&h, &b.job, &end);
    h.manager->cancel(h.state, &b.job);
    host_wait(&h, &end);
    assert_int_equal(end.err.code, TQ_ECANCELED);
    batch_put(&h, &b, &first);
    h.manager->cancel(h.state, &b.job); /* too late, and no harm */
    /* Waits for room. It was ahead of one that fits. */
    unsigned before = (unsigned)h.abandoned;
    host_put_start(&h, &b.job, &end);
    for (int i = 0; i < 50 && !end.done; i++) {
        uv_run(&k.loop, UV_RUN_NOWAIT);
    }
    assert_false(end.done);
    h.manager->cancel(h.state, &b.job);
    h.manager->cancel(h.state, &b.job);
    host_wait(&h, &end);
    assert_int_equal(end.err.code, TQ_ECANCELED);
    assert_int_equal(h.abandoned, before + 1);
    batch_put(&h, &other, &end);
    batch_check(&h, &other, &end, 1);
    host_end_free(&end);
    host_end_free(&first);
    batch_free(&b);
    batch_free(&other);
    batch_system_close(&k, &h);
}

/* The unit at which a put waits for room ends: the store is not full, and the put goes to the next unit. */
static void waits_elsewhere_when_its_unit_ends(void **state)
{
    kit k;
    host h;
    batch first, second;
    host_end end, waiting;

    (void)state;
    kit_open(&k);
    kit_unit_start(&k, 0, 8 * MIB, false);
    host_open(&k, &h, "SimpleStorage", "{}");
    batch_make(&first, 1, 6, MIB, MIB, 1);
    batch_make(&second, 1, 5, MIB, MIB, 2);
    batch_put(&h, &first, &end);
    second.job.wait_when_full = true;
    host_put_start(&h, &second.job, &waiting);
    for (int i = 0; i < 50 && !waiting.done; i++) {
        uv_run(&k.loop, UV_RUN_NOWAIT);
    }
    assert_false(waiting.done);
    kit_unit_stop(&k, 0);
    kit_unit_start(&k, 1, 8 * MIB, false);
    host_wait(&h, &waiting);
    assert_int_equal(waiting.err.code, TQ_OK);
    batch_check(&h, &second, &waiting, 1);
    host_end_free(&end);
    host_end_free(&waiting);
    batch_free(&first);
    batch_free(&second);
    batch_system_close(&k, &h);
}

static void forgets_ids_of_another_grant(void **state)
{
    kit k;
    host h;
    batch b;
    host_end end;
    uint64_t ids[3];
    tqi_simple_ids_from from, old;
    tqi_simple_grants grants = {0};
    tqi_simple_pending wait;

    (void)state;
    batch_system_open(&k, &h, 8 * MIB, false);
    batch_make(&b, 1, 1, 8, 100, 1);
    batch_put(&h, &b, &end);
    host_end_free(&end);
    tqi_simple_link *link = tqi_simple_find(h.state, "unit-0");
    assert_non_null(link);
    uint64_t had = link->ids_total, abandoned = h.abandoned;
    assert_int_equal(tqi_simple_link_take(link, ids, 3, &grants, &from, TQI_NEVER, &wait), TQ_OK);
    tqi_simple_link_put_back(link, ids, 3, &grants, &from);
    assert_int_equal(link->ids_total, had);
    assert_int_equal(tqi_simple_link_take(link, ids, 3, &grants, &from, TQI_NEVER, &wait), TQ_OK);
    old = from;
    old.epoch++;
    tqi_simple_link_put_back(link, ids, 3, &grants, &old);
    old = from;
    old.session--;
    tqi_simple_link_put_back(link, ids, 3, &grants, &old);
    assert_int_equal(link->ids_total, had - 3);
    assert_int_equal(h.abandoned, abandoned); /* they may be somebody else's */
    old = from;
    old.incarnation++;
    tqi_simple_link_put_back(link, ids, 3, &grants, &old);
    assert_int_equal(link->ids_total, had - 3);
    assert_int_equal(h.abandoned, abandoned + 3);
    free(grants.grants);
    batch_free(&b);
    batch_system_close(&k, &h);
}

/* Ids that the unit refuses cost a request, not the put. */
static void grants_anew_when_ids_are_refused(void **state)
{
    kit k;
    host h;
    batch b;
    host_end end;

    (void)state;
    batch_system_open(&k, &h, 8 * MIB, false);
    batch_make(&b, 1, 1, 8, 100, 1);
    batch_put(&h, &b, &end);
    host_end_free(&end);
    batch_free(&b);
    tqi_simple_link *link = tqi_simple_find(h.state, "unit-0");
    assert_non_null(link);
    for (size_t i = 0; i < link->n_ids; i++) {
        memset(link->ids[i].grant.proof, 0, TQI_NET_GRANT);
    }
    uint32_t grants = h.grants;
    batch_make(&b, 3, 4, 70000, 1000, 2); /* too large for room that was reserved ahead */
    batch_put(&h, &b, &end);
    batch_check(&h, &b, &end, 1);
    assert_true(h.grants > grants);
    host_end_free(&end);
    batch_free(&b);
    batch_system_close(&k, &h);
}

static void closes_in_the_child(void **state)
{
    kit k;
    host h;
    batch b;
    host_end end;

    (void)state;
    batch_system_open(&k, &h, 8 * MIB, false);
    batch_make(&b, 1, 10, 100, 100, 1);
    batch_put(&h, &b, &end);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        h.manager->forked(h.state);
        tqi_net_connector_forked(h.client.connector);
        _exit(((tqi_simple *)h.state)->mappings->map.arena == NULL ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    batch_check(&h, &b, &end, 1); /* the parent continues */
    host_end_free(&end);
    batch_free(&b);
    batch_system_close(&k, &h);
}

int main(void)
{
    static bool shared = false, stream = true;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(outlives_a_restarted_unit, &shared),
        cmocka_unit_test_prestate(outlives_a_restarted_unit, &stream),
        cmocka_unit_test_prestate(outlives_a_restarted_controller, &shared),
        cmocka_unit_test_prestate(outlives_a_restarted_controller, &stream),
        cmocka_unit_test(waits_for_the_first_unit),
        cmocka_unit_test(cancels_where_it_waits),
        cmocka_unit_test(waits_elsewhere_when_its_unit_ends),
        cmocka_unit_test(forgets_ids_of_another_grant),
        cmocka_unit_test(grants_anew_when_ids_are_refused),
        cmocka_unit_test(closes_in_the_child),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
