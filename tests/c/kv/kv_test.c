/*
 * kv_test.c - the generic KV manager with the real client and controller, over stores that are full, fail, lose
 * values, or accept only small ones.
 */
#include "testkit_batch.h"
#include "testkit_map_store.h"

#include <string.h>

#include <tq/kv.h>
#include <tq/manager.h>

#include "base/clock.h"
#include "manager/manager.h"

static bench on;

static int open_with(const char *type)
{
    map_store_register();
    map_store_reset();
    bench_start(&on);
    return bench_open(&on, type, "{}", NULL);
}

static int setup_map(void **state)
{
    (void)state;
    return open_with("MapStore");
}

static int setup_small(void **state)
{
    (void)state;
    return open_with("SmallStore");
}

static int teardown(void **state)
{
    (void)state;
    bench_stop(&on);
    map_store_reset();
    return 0;
}

/* --- batches -------------------------------------------------------------- */

static void clear(const char *partition)
{
    expect_ok(on.op, tq_clear_partition(on.op, partition));
}

static void moved(void)
{
    map_store_wait(0);
    assert_int_equal(map_store_bytes(), 0);
}

static void moves_batches(void **state)
{
    (void)state;
    batches_move(&on, moved);
}

static void clears_what_is_not_used(void **state)
{
    batch one, two;
    uint32_t rows[2] = {0, 1};

    (void)state;
    batch_make(&one, "some", 2, 2, 100000, 0);
    batch_make(&two, "some", 2, 2, 100000, 0);
    tq_meta *first = batch_put(&on, &one), *second = batch_put(&on, &two);
    size_t values = map_store_values();
    assert_true(values >= 4 && values % 2 == 0);
    expect_ok(on.op, tq_clear_meta(on.op, first));
    map_store_wait(values / 2);
    batch_check(&on, &two, second, rows, 2);
    expect_error(on.op, tq_get(on.op, first, NULL, 0, NULL), TQ_ECLEARED, "");
    tq_meta_unref(first);
    tq_meta_unref(second);
    batch_free(&one);
    batch_free(&two);
}

/* --- full ----------------------------------------------------------------- */

/* The first batch is stored, and there is no room for the second one. */
static void fill_store(batch *first, batch *second)
{
    map_store_set_capacity(500000);
    batch_make(first, "first", 1, 4, 100000, 0);
    batch_make(second, "second", 1, 4, 100000, 0);
    tq_meta_unref(batch_put(&on, first));
}

static void waits_for_room(void **state)
{
    batch first, second;
    tq_op *waiting = tq_op_alloc(on.client, NULL, NULL);
    uint32_t rows[4] = {0, 1, 2, 3};

    (void)state;
    fill_store(&first, &second);
    size_t values = map_store_values();
    /* At once, if asked to: what it wrote is gone. */
    second.args.fail_when_full = true;
    expect_error(on.op, tq_put(on.op, &second.args), TQ_EFULL, "");
    map_store_wait(values);
    /* At its deadline. */
    second.args.fail_when_full = false;
    tq_op_set_timeout(on.op, 0.3);
    expect_error(on.op, tq_put(on.op, &second.args), TQ_EFULL, "");
    tq_op_set_timeout(on.op, 0);
    map_store_wait(values);
    /* When it is cancelled. */
    map_store_reset_full();
    assert_int_equal(tq_put(waiting, &second.args), TQ_OK);
    map_store_wait_full();
    tq_op_cancel(waiting);
    assert_int_equal(tq_op_wait(waiting), TQ_ECANCELED);
    map_store_wait(values);
    /* Waits until there is room. */
    map_store_reset_full();
    assert_int_equal(tq_put(waiting, &second.args), TQ_OK);
    map_store_wait_full();
    clear("first");
    assert_int_equal(tq_op_wait(waiting), TQ_OK);
    batch_check(&on, &second, tq_op_meta(waiting), rows, 4);
    tq_op_free(waiting);
    batch_free(&first);
    batch_free(&second);
}

/* What a put that found no room has written is removed again. If the store does not say that it has done so, it may
 * still do it later, and must not meet the values of the same put then. */
static void a_removal_that_comes_late_removes_no_value_of_a_later_try(void **state)
{
    batch first, second;
    tq_op *waiting = tq_op_alloc(on.client, NULL, NULL);
    uint32_t rows[4] = {0, 1, 2, 3};

    (void)state;
    fill_store(&first, &second);
    map_store_delay_removal();
    assert_int_equal(tq_put(waiting, &second.args), TQ_OK);
    map_store_wait_removal();
    clear("first");
    assert_int_equal(tq_op_wait(waiting), TQ_OK);
    batch_check(&on, &second, tq_op_meta(waiting), rows, 4);
    tq_op_free(waiting);
    batch_free(&first);
    batch_free(&second);
}

static void closes_while_a_put_waits(void **state)
{
    batch first, second;
    tq_op *waiting = tq_op_alloc(on.client, NULL, NULL);

    (void)state;
    fill_store(&first, &second);
    map_store_reset_full();
    assert_int_equal(tq_put(waiting, &second.args), TQ_OK); /* it has a minute */
    map_store_wait_full();
    uint64_t start = tqi_now();
    tq_client_close(on.client);
    on.client = NULL;
    assert_true(tqi_now() - start < UINT64_C(20000000000));
    assert_int_equal(tq_op_wait(waiting), TQ_ECLOSED);
    tq_op_free(waiting);
    batch_free(&first);
    batch_free(&second);
}

static void removes_orphans(void **state)
{
    batch b;
    uint32_t rows[3] = {0, 1, 2};

    (void)state;
    batch_make(&b, "orphans", 3, 3, 200000, 0);
    for (unsigned n = 1; n <= 9; n += 2) {
        map_store_fail_after(n);
        expect_error(on.op, tq_put(on.op, &b.args), TQ_EIO, "broken");
        map_store_wait(0);
    }
    map_store_fail_after(0);
    expect_ok(on.op, tq_list_partitions(on.op));
    size_t partitions;
    tq_op_names(on.op, &partitions);
    assert_int_equal(partitions, 0);
    tq_meta *meta = batch_put(&on, &b);
    batch_check(&on, &b, meta, rows, 3);
    tq_meta_unref(meta);
    batch_free(&b);
}

/* What arrives when it has been removed is found again, also when it is one of several values of a block. */
static void removes_what_arrives_late(void **state)
{
    batch b;

    (void)state;
    batch_make(&b, "late", 1, 1, 5000, 0);
    tq_meta_unref(batch_put(&on, &b));
    size_t values = map_store_values();
    clear("late");
    map_store_wait(0);
    for (unsigned n = 1; n <= values; n++) {
        map_store_delay(n);
        expect_error(on.op, tq_put(on.op, &b.args), TQ_ETIMEDOUT, "did not answer");
        map_store_wait_arrived();
        map_store_wait(0);
    }
    batch_free(&b);
}

static void names_what_the_store_forgot(void **state)
{
    batch b;
    uint32_t rows[3] = {0, 1, 2};

    (void)state;
    batch_make(&b, "forgotten", 2, 3, 50000, 0);
    tq_meta *meta = batch_put(&on, &b);
    map_store_evict();
    expect_error(on.op, tq_get(on.op, meta, NULL, 0, NULL), TQ_ELOST, "forgotten");
    /* Written again, it exists again. */
    b.args.meta = meta;
    b.args.partition = NULL;
    expect_ok(on.op, tq_put(on.op, &b.args));
    batch_check(&on, &b, tq_op_meta(on.op), rows, 3);
    tq_meta_unref(meta);
    batch_free(&b);
}

/* --- registering ---------------------------------------------------------- */

static void refuses_what_it_cannot_use(void **state)
{
    static const tq_kv_client old = {.abi = TQ_KV_ABI + 1, .type = "Old"};
    static const tq_kv_client empty = {.abi = TQ_KV_ABI, .type = "Empty"};
    const tq_storage_manager *found;
    tq_error err = {0};

    (void)state;
    assert_int_equal(tq_kv_register(NULL, &err), TQ_EINVAL);
    assert_int_equal(tq_kv_register(&old, &err), TQ_EVERSION);
    assert_non_null(strstr(err.message, "Old"));
    assert_int_equal(tq_kv_register(&empty, &err), TQ_EINVAL);
    assert_non_null(strstr(err.message, "'open'"));
    map_store_register();
    map_store_register(); /* again is no error */
    assert_int_equal(tq_manager_find("MapStore", &found, &err), TQ_OK);
    const tq_kv_client other = *map_store_client();
    assert_int_equal(tq_kv_register(&other, &err), TQ_EEXIST);
    /* With the manager's own state it would wrap around to a few bytes. */
    tq_kv_client endless = other;
    endless.type = "Endless";
    endless.state_size = SIZE_MAX - 8;
    assert_int_equal(tq_kv_register(&endless, &err), TQ_EINVAL);
    assert_non_null(strstr(err.message, "impossible"));
}

/* A plug-in of version 1 works, and lacks what version 1 lacked. */
static int setup_first(void **state)
{
    const tq_storage_manager *found = NULL;
    tq_error err = {0};

    (void)state;
    assert_int_equal(tq_manager_load(TEST_PLUGINS "/first_store.so", &err), TQ_OK);
    assert_int_equal(tq_manager_load(TEST_PLUGINS "/first_store.so", &err), TQ_OK); /* again is no error */
    assert_int_equal(tq_manager_find("FirstStore", &found, &err), TQ_OK);
    assert_false(tqi_manager_ends("FirstStore")); /* it cannot list its keys */
    assert_int_equal(tqi_manager_try("FirstStore", "{}", &err), TQ_OK);
    return open_with("FirstStore");
}

static void stays(void)
{
}

static void moves_batches_of_version_1(void **state)
{
    (void)state;
    batches_move(&on, stays);
}

static void refuses_later_plugins(void **state)
{
    tq_error err = {0};

    (void)state;
    assert_int_equal(tq_manager_load(TEST_PLUGINS "/next_store.so", &err), TQ_EVERSION);
    assert_non_null(strstr(err.message, "'NextStore' was made for version 3"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_what_it_cannot_use),
        cmocka_unit_test(refuses_later_plugins),
        cmocka_unit_test_setup_teardown(moves_batches_of_version_1, setup_first, teardown),
        cmocka_unit_test_setup_teardown(moves_batches, setup_map, teardown),
        cmocka_unit_test_setup_teardown(moves_batches, setup_small, teardown),
        cmocka_unit_test_setup_teardown(clears_what_is_not_used, setup_map, teardown),
        cmocka_unit_test_setup_teardown(clears_what_is_not_used, setup_small, teardown),
        cmocka_unit_test_setup_teardown(waits_for_room, setup_map, teardown),
        cmocka_unit_test_setup_teardown(a_removal_that_comes_late_removes_no_value_of_a_later_try, setup_map, teardown),
        cmocka_unit_test_setup_teardown(waits_for_room, setup_small, teardown),
        cmocka_unit_test_setup_teardown(closes_while_a_put_waits, setup_map, teardown),
        cmocka_unit_test_setup_teardown(removes_orphans, setup_map, teardown),
        cmocka_unit_test_setup_teardown(removes_orphans, setup_small, teardown),
        cmocka_unit_test_setup_teardown(removes_what_arrives_late, setup_map, teardown),
        cmocka_unit_test_setup_teardown(removes_what_arrives_late, setup_small, teardown),
        cmocka_unit_test_setup_teardown(names_what_the_store_forgot, setup_map, teardown),
        cmocka_unit_test_setup_teardown(names_what_the_store_forgot, setup_small, teardown),
    };

    return cmocka_run_group_tests_name("kv manager", tests, NULL, NULL);
}
