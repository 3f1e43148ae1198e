/*
 * disk_checkpoint_test.c - the files of checkpoints on a virtual disk: every call fails once, and the power is lost.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>
#include <tq/tq.h>

#include "base/buf.h"
#include "client/checkpoint/files.h"
#include "disk_testkit.h"
#include "disk_tree.h"

#define PATH "/sim/made/for/it"

/* Saves a checkpoint whose state is that number. */
static int save(const char *path, unsigned number)
{
    tqi_client_ckpt_out out = {.dir = -1};
    tqi_client_ckpt_about about = {.epoch = 1, .data = true, .parts = 1, .samples = number};
    tq_error err = {0};
    char state[16];
    int rc = tqi_client_ckpt_out_open(&out, path, true, &err);

    snprintf(state, sizeof(state), "%u", number);
    rc = rc ? rc : tqi_client_ckpt_write_part(&out.state, state, strlen(state), &err);
    rc = rc ? rc : tqi_client_ckpt_write(&out.data, "data", 4, &err);
    rc = rc ? rc : tqi_client_ckpt_out_commit(&out, &about, "{\"storage_saved\": true, \"user_metadata\": {}}", &err);
    tqi_client_ckpt_out_fini(&out);
    return rc;
}

/* The number of the checkpoint; -1: it cannot be loaded. */
static int load(const char *path)
{
    tqi_client_ckpt_in in = {0};
    tq_error err = {0};
    char data[4];
    int number = -1;

    if (tqi_client_ckpt_in_open(&in, path, &err) == TQ_OK && tqi_client_ckpt_read(&in.data, data, 4, &err) == TQ_OK &&
        tqi_client_ckpt_check(&in.data, path, &err) == TQ_OK) {
        number = (int)in.about.samples;
    }
    tqi_client_ckpt_in_fini(&in);
    return number;
}

/* The directories that were made for it are on disk, too. */
static void a_saved_checkpoint_survives_a_loss_of_power(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 100; seed++) {
        disk_testkit_start(seed, seed % 2);
        disk_testkit_may(SIM_DISK_TORN, true);
        assert_int_equal(save(PATH, 1), TQ_OK);
        sim_disk_power_loss(0);
        assert_int_equal(load(PATH), 1);
        assert_int_equal(save(PATH, 2), TQ_OK);
        sim_disk_power_loss(0);
        assert_int_equal(load(PATH), 2);
        disk_testkit_end();
    }
}

/* Somebody else has made the directories, and was killed before they were on disk. */
static void directories_made_by_another_process_are_synced_with_the_checkpoint(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 100; seed++) {
        disk_testkit_start(seed, false);
        disk_testkit_may(SIM_DISK_TORN, true);
        assert_int_equal(mkdir("/sim/made", 0777), 0);
        assert_int_equal(mkdir("/sim/made/for", 0777), 0);
        assert_int_equal(save(PATH, 1), TQ_OK);
        sim_disk_power_loss(0);
        assert_int_equal(load(PATH), 1);
        disk_testkit_end();
    }
}

/* A save that fails leaves the former checkpoint whole, also when the power is lost then: at each call that may fail. */
static void fail_everywhere(sim_fault fault, bool exchange)
{
    bool happened = true;

    for (uint32_t nth = 1; happened; nth++) {
        for (uint64_t seed = 0; seed < 32; seed++) {
            int rc, found;
            disk_testkit_start(seed, seed % 2);
            disk_here()->no_exchange = !exchange;
            disk_testkit_may(SIM_DISK_TORN, true);
            assert_int_equal(save(PATH, 1), TQ_OK);
            disk_testkit_fault(fault, nth);
            rc = save(PATH, 2);
            happened = disk_testkit_happened(fault);
            disk_testkit_fault(fault, 0);
            found = load(PATH);
            if (rc == TQ_OK ? found != 2 : found != 1) {
                fail_msg("%s at place %u: the save ended with %s, and %d is there", sim_fault_name(fault), nth,
                         tq_error_name(rc), found);
            }
            sim_disk_power_loss(0);
            found = load(PATH);
            if (rc == TQ_OK ? found != 2 : found != 1 && found != 2) {
                fail_msg("%s at place %u: the save ended with %s, the power was lost, and %d is there",
                         sim_fault_name(fault), nth, tq_error_name(rc), found);
            }
            assert_int_equal(save(PATH, 3), TQ_OK);
            assert_int_equal(load(PATH), 3);
            disk_testkit_end();
        }
    }
}

static void a_save_with_a_disk_error_keeps_the_former_checkpoint(void **state)
{
    (void)state;
    fail_everywhere(SIM_DISK_ERROR, true);
}

static void a_save_on_a_full_disk_keeps_the_former_checkpoint(void **state)
{
    (void)state;
    fail_everywhere(SIM_DISK_FULL, true);
}

static void a_save_with_a_disk_error_keeps_the_former_checkpoint_without_exchange(void **state)
{
    (void)state;
    fail_everywhere(SIM_DISK_ERROR, false);
}

static void a_save_on_a_full_disk_keeps_the_former_checkpoint_without_exchange(void **state)
{
    (void)state;
    fail_everywhere(SIM_DISK_FULL, false);
}

static void save_number(void *arg)
{
    save(PATH, *(unsigned *)arg);
}

/* Two writers are killed one after the other, at any place, and then the power is lost: one of the checkpoints is
 * there, and as a whole. */
static void kill_everywhere(bool exchange)
{
    unsigned two = 2, three = 3;
    bool killed = true;

    for (uint32_t first = 1; killed; first++) {
        bool again = true;
        for (uint32_t second = 1; again; second += 3) {
            int found;
            disk_testkit_start(first * 1000 + second, second % 2);
            disk_here()->no_exchange = !exchange;
            disk_testkit_may(SIM_DISK_TORN, true);
            assert_int_equal(save(PATH, 1), TQ_OK);
            killed = disk_testkit_killed(first, save_number, &two);
            again = disk_testkit_killed(second, save_number, &three);
            sim_disk_power_loss(0);
            found = load(PATH);
            if (found < (!again ? 3 : !killed ? 2 : 1)) {
                fail_msg("killed at place %u, then at %u: after a loss of power, %d is there", first, second, found);
            }
            disk_testkit_end();
        }
    }
}

static void a_killed_save_leaves_a_whole_checkpoint(void **state)
{
    (void)state;
    kill_everywhere(true);
}

static void a_killed_save_leaves_a_whole_checkpoint_without_exchange(void **state)
{
    (void)state;
    kill_everywhere(false);
}

/* The n-th text from now has no memory; 0: none. */
static unsigned no_memory;

int __wrap_tqi_buf_printf(tqi_buf *buf, const char *format, ...);

int __wrap_tqi_buf_printf(tqi_buf *buf, const char *format, ...)
{
    char text[512];
    va_list args;
    int size;

    if (no_memory > 0 && --no_memory == 0) {
        return TQ_ENOMEM;
    }
    va_start(args, format);
    size = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    assert_in_range(size, 0, sizeof(text) - 1);
    return tqi_buf_append(buf, text, (size_t)size);
}

/* A manifest that could not be written as a whole is not taken for one. */
static void a_save_without_memory_for_its_manifest_keeps_the_former_checkpoint(void **state)
{
    unsigned failed = 0;

    (void)state;
    for (unsigned nth = 1; nth <= 6; nth++) {
        int rc;
        disk_testkit_start(nth, false);
        assert_int_equal(save(PATH, 1), TQ_OK);
        no_memory = nth;
        rc = save(PATH, 2);
        failed += rc != TQ_OK;
        no_memory = 0;
        assert_true(rc == TQ_OK || rc == TQ_ENOMEM);
        assert_int_equal(load(PATH), rc == TQ_OK ? 2 : 1);
        disk_testkit_end();
    }
    assert_int_equal(failed, 5);
}

/* A flipped bit is noticed, in whichever file. */
static void a_flipped_bit_in_any_file_is_noticed(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 500; seed++) {
        disk_testkit_start(seed, false);
        assert_int_equal(save(PATH, 1), TQ_OK);
        disk_testkit_fault(SIM_DISK_FLIP, 1 + (uint32_t)(seed % 4));
        assert_int_equal(load(PATH), -1);
        assert_int_equal(save(PATH, 2), TQ_OK);
        assert_int_equal(load(PATH), 2);
        disk_testkit_end();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_saved_checkpoint_survives_a_loss_of_power),
        cmocka_unit_test(directories_made_by_another_process_are_synced_with_the_checkpoint),
        cmocka_unit_test(a_save_with_a_disk_error_keeps_the_former_checkpoint),
        cmocka_unit_test(a_save_on_a_full_disk_keeps_the_former_checkpoint),
        cmocka_unit_test(a_save_with_a_disk_error_keeps_the_former_checkpoint_without_exchange),
        cmocka_unit_test(a_save_on_a_full_disk_keeps_the_former_checkpoint_without_exchange),
        cmocka_unit_test(a_killed_save_leaves_a_whole_checkpoint),
        cmocka_unit_test(a_killed_save_leaves_a_whole_checkpoint_without_exchange),
        cmocka_unit_test(a_save_without_memory_for_its_manifest_keeps_the_former_checkpoint),
        cmocka_unit_test(a_flipped_bit_in_any_file_is_noticed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
