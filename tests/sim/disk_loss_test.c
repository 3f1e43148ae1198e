/*
 * disk_loss_test.c - the state of a virtual file system after a loss of power, its faults, and what no real
 * directory can be compared with.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "disk.h"
#include "disk_testkit.h"
#include "disk_tree.h"

#define ROOT "/sim/root"

static int listener;

/* Makes or extends a file; returns its descriptor. */
static int put(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    return fd;
}

static void sync_dir(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(fsync(fd), 0);
    assert_int_equal(close(fd), 0);
}

/* What the file holds; NULL: there is none. */
static const char *contents(const char *path)
{
    static char text[1 << 16];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n;

    if (fd < 0) {
        return NULL;
    }
    n = read(fd, text, sizeof(text) - 1);
    assert_true(n >= 0);
    text[n] = 0;
    close(fd);
    return text;
}

static void make_synced(const char *path, const char *text)
{
    int fd = put(path, text);

    assert_int_equal(fsync(fd), 0);
    assert_int_equal(close(fd), 0);
}

static void lose_power(void)
{
    disk_testkit_close_all();
    sim_disk_power_loss(0);
}

/* What was synced is there, whatever was done before and after it. */
static void what_was_synced_survives_a_loss_of_power(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 300; seed++) {
        disk_testkit_start(seed, seed % 2);
        disk_testkit_may(SIM_DISK_TORN, seed % 3 > 0);
        assert_int_equal(mkdir(ROOT, 0777), 0);
        assert_int_equal(mkdir(ROOT "/d", 0777), 0);
        make_synced(ROOT "/d/file", "synced");
        sync_dir(ROOT "/d");
        sync_dir(ROOT);
        sync_dir("/sim");
        close(put(ROOT "/d/file", " and more"));
        close(put(ROOT "/d/other", "not synced"));
        lose_power();
        assert_memory_equal(contents(ROOT "/d/file"), "synced", 6);
        make_synced(ROOT "/d/again", "works");
        assert_string_equal(contents(ROOT "/d/again"), "works");
        disk_testkit_end();
    }
}

/* Each of the outcomes is drawn: nothing, everything, a part. */
static void what_was_not_synced_is_lost_in_every_way(void **state)
{
    unsigned none = 0, empty = 0, part = 0, all = 0, zeros = 0;

    (void)state;
    for (uint64_t seed = 0; seed < 600; seed++) {
        char text[3001];
        const char *found;
        disk_testkit_start(seed, false);
        disk_testkit_may(SIM_DISK_TORN, true);
        memset(text, 'x', 3000);
        text[3000] = 0;
        close(put("/sim/file", text));
        lose_power();
        found = contents("/sim/file");
        none += found == NULL;
        empty += found != NULL && found[0] == 0;
        part += found != NULL && strlen(found) > 0 && strlen(found) < 3000;
        all += found != NULL && strlen(found) == 3000;
        if (found != NULL) {
            struct stat st;
            assert_int_equal(stat("/sim/file", &st), 0);
            zeros += (size_t)st.st_size > strlen(found);
            assert_in_range(st.st_size, 0, 3000);
            assert_int_equal(strspn(found, "x"), strlen(found));
        }
        disk_testkit_end();
    }
    assert_true(none > 0 && empty > 0 && part > 0 && all > 0 && zeros > 0);
}

/* Without the fault, all of it is there or nothing. */
static void writes_are_lost_as_a_whole_without_the_fault(void **state)
{
    unsigned none = 0, all = 0;

    (void)state;
    for (uint64_t seed = 0; seed < 100; seed++) {
        const char *found;
        disk_testkit_start(seed, false);
        assert_int_equal(mkdir("/sim/d", 0777), 0);
        close(put("/sim/d/file", "one"));
        close(put("/sim/d/file", "two"));
        lose_power();
        found = contents("/sim/d/file");
        none += found == NULL && access("/sim/d", F_OK) != 0;
        all += found != NULL && strcmp(found, "onetwo") == 0;
        disk_testkit_end();
    }
    assert_int_equal(none + all, 100);
    assert_true(none > 10 && all > 10);
}

/* An exchange happens as a whole, and what was synced before is in both. */
static void an_exchange_is_lost_or_kept_as_a_whole(void **state)
{
    unsigned before = 0, after = 0;

    (void)state;
    for (uint64_t seed = 0; seed < 300; seed++) {
        const char *found;
        disk_testkit_start(seed, seed % 2);
        disk_testkit_may(SIM_DISK_TORN, true);
        assert_int_equal(mkdir("/sim/old", 0777), 0);
        make_synced("/sim/old/file", "old");
        sync_dir("/sim/old");
        sync_dir("/sim");
        assert_int_equal(mkdir("/sim/new", 0777), 0);
        make_synced("/sim/new/file", "new");
        sync_dir("/sim/new");
        assert_int_equal(renameat2(AT_FDCWD, "/sim/new", AT_FDCWD, "/sim/old", RENAME_EXCHANGE), 0);
        lose_power();
        found = contents("/sim/old/file");
        assert_non_null(found);
        before += strcmp(found, "old") == 0;
        after += strcmp(found, "new") == 0;
        disk_testkit_end();
    }
    assert_int_equal(before + after, 300);
    assert_true(before > 10 && after > 10);
}

/* fsync of a directory brings its names, and a rename out of another one as a whole; a journal brings all names. */
static void names_need_a_sync_of_their_directory(void **state)
{
    unsigned lost[2] = {0, 0};

    (void)state;
    for (uint64_t seed = 0; seed < 200; seed++) {
        bool journal = seed % 2;
        disk_testkit_start(seed, journal);
        disk_testkit_may(SIM_DISK_TORN, true);
        assert_int_equal(mkdir("/sim/a", 0777), 0);
        assert_int_equal(mkdir("/sim/b", 0777), 0);
        sync_dir("/sim");
        make_synced("/sim/a/file", "text");
        assert_int_equal(rename("/sim/a/file", "/sim/b/file"), 0);
        assert_int_equal(mkdir("/sim/c", 0777), 0);
        sync_dir("/sim/b");
        lose_power();
        assert_string_equal(contents("/sim/b/file"), "text");
        assert_null(contents("/sim/a/file"));
        lost[journal] += access("/sim/c", F_OK) != 0;
        disk_testkit_end();
    }
    assert_true(lost[0] > 0);
    assert_int_equal(lost[1], 0);
}

/* What is half a minute old is on the medium; a process that ends loses nothing. */
static void old_writes_are_on_the_medium_without_a_sync(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 50; seed++) {
        disk_testkit_start(seed, false);
        disk_testkit_may(SIM_DISK_TORN, true);
        close(put("/sim/file", "text"));
        disk_testkit_close_all();
        assert_string_equal(contents("/sim/file"), "text");
        disk_testkit_pass(31 * SIM_S);
        lose_power();
        assert_string_equal(contents("/sim/file"), "text");
        disk_testkit_end();
    }
}

/* --- faults -------------------------------------------------------------------------- */

/* After fsync has failed, a second one does not help. */
static void a_failed_fsync_loses_the_pages(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 50; seed++) {
        struct stat st;
        int fd;
        disk_testkit_start(seed, false);
        make_synced("/sim/file", "one");
        sync_dir("/sim");
        fd = put("/sim/file", "two");
        disk_testkit_fault(SIM_DISK_ERROR, 1);
        assert_int_equal(fsync(fd), -1);
        assert_int_equal(errno, EIO);
        assert_int_equal(fstat(fd, &st), 0);
        assert_int_equal(st.st_size, 6);
        assert_int_equal(fsync(fd), 0);
        lose_power();
        assert_string_equal(contents("/sim/file"), "one");
        disk_testkit_end();
    }
}

static void a_full_disk_takes_a_part_and_then_fails(void **state)
{
    unsigned parts = 0;

    (void)state;
    for (uint64_t seed = 0; seed < 50; seed++) {
        int fd;
        ssize_t n;
        disk_testkit_start(seed, false);
        fd = put("/sim/file", "one");
        disk_testkit_fault(SIM_DISK_FULL, 1);
        n = write(fd, "2345", 4);
        if (n > 0) {
            parts++;
            assert_in_range(n, 1, 3);
            assert_int_equal(write(fd, "2345", 4), -1);
        }
        assert_int_equal(errno, ENOSPC);
        assert_int_equal(write(fd, "2345", 4), 4);
        disk_testkit_fault(SIM_DISK_FULL, 1);
        assert_int_equal(mkdir("/sim/dir", 0777), -1);
        assert_int_equal(errno, ENOSPC);
        disk_testkit_fault(SIM_DISK_FULL, 1);
        assert_int_equal(open("/sim/other", O_WRONLY | O_CREAT | O_CLOEXEC, 0666), -1);
        assert_int_equal(errno, ENOSPC);
        assert_int_equal(access("/sim/other", F_OK), -1);
        close(fd);
        disk_testkit_end();
    }
    assert_true(parts > 5);
}

static void a_flip_changes_one_bit_of_a_file_that_nobody_writes(void **state)
{
    const char *found;
    unsigned different = 0;
    int fd;

    (void)state;
    disk_testkit_start(1, false);
    make_synced("/sim/file", "one");
    fd = put("/sim/file", "");
    disk_testkit_fault(SIM_DISK_FLIP, 1);
    assert_string_equal(contents("/sim/file"), "one"); /* is being written */
    close(fd);
    found = contents("/sim/file");
    for (int i = 0; i < 3; i++) {
        different += (unsigned)__builtin_popcount((unsigned char)(found[i] ^ "one"[i]));
    }
    assert_int_equal(different, 1);
    assert_true(sim_disk_is_damaged(0, "/sim"));
    assert_int_equal(unlink("/sim/file"), 0);
    assert_false(sim_disk_is_damaged(0, "/sim"));
    disk_testkit_end();
}

/* --- the rest -------------------------------------------------------------------------- */

static void an_exchange_can_be_unsupported(void **state)
{
    (void)state;
    disk_testkit_start(1, false);
    disk_here()->no_exchange = true;
    assert_int_equal(mkdir("/sim/a", 0777), 0);
    assert_int_equal(mkdir("/sim/b", 0777), 0);
    assert_int_equal(renameat2(AT_FDCWD, "/sim/a", AT_FDCWD, "/sim/b", RENAME_EXCHANGE), -1);
    assert_int_equal(errno, EINVAL);
    disk_testkit_end();
}

/* Each host has a tree of its own, and nothing crosses over to the real one. */
static void each_host_has_its_own_tree(void **state)
{
    (void)state;
    disk_testkit_start(1, false);
    close(put("/sim/file", "one"));
    sim_self->host = 1;
    assert_null(contents("/sim/file"));
    close(put("/sim/file", "two"));
    sim_self->host = 0;
    assert_string_equal(contents("/sim/file"), "one");
    assert_int_equal(rename("/sim/file", "/tmp/tq-disk-file"), -1);
    assert_int_equal(errno, EXDEV);
    sim_disk_power_loss(1);
    assert_string_equal(contents("/sim/file"), "one");
    disk_testkit_end();
}

/* A socket is found where it was bound, through a directory's descriptor as well; its file stays. */
static void a_socket_is_found_where_it_was_bound(void **state)
{
    char path[64];
    struct stat st;
    int dir;

    (void)state;
    disk_testkit_start(1, false);
    assert_int_equal(mkdir("/sim/run", 0700), 0);
    dir = open("/sim/run", O_PATH | O_DIRECTORY | O_CLOEXEC);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", dir);
    assert_int_equal(access(path, F_OK), 0);
    snprintf(path, sizeof(path), "/proc/self/fd/%d/socket", dir);
    assert_int_equal(sim_disk_socket_bind(path, &listener), 0);
    assert_int_equal(sim_disk_socket_bind("/sim/run/socket", &listener), -1);
    assert_int_equal(errno, EADDRINUSE);
    assert_ptr_equal(sim_disk_socket_find("/sim/run/socket"), &listener);
    assert_int_equal(fstatat(dir, "socket", &st, AT_SYMLINK_NOFOLLOW), 0);
    assert_true(S_ISSOCK(st.st_mode));
    sim_disk_power_loss(0);
    close(dir);
    disk_testkit_end();

    disk_testkit_start(1, false);
    close(put("/sim/file", "text"));
    assert_null(sim_disk_socket_find("/sim/file"));
    assert_int_equal(errno, ECONNREFUSED);
    assert_null(sim_disk_socket_find("/sim/none"));
    assert_int_equal(errno, ENOENT);
    assert_null(sim_disk_socket_find("/sim/file/none"));
    assert_int_equal(errno, ENOTDIR);
    disk_testkit_end();
}

static void jansson_reads_files_of_the_virtual_disk(void **state)
{
    json_t *found;

    (void)state;
    disk_testkit_start(1, false);
    close(put("/sim/file", "{\"a\": true}"));
    found = json_load_file("/sim/file", 0, NULL);
    assert_true(json_is_true(json_object_get(found, "a")));
    json_decref(found);
    assert_null(json_load_file("/sim/none", 0, NULL));
    disk_testkit_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_synced_survives_a_loss_of_power),
        cmocka_unit_test(what_was_not_synced_is_lost_in_every_way),
        cmocka_unit_test(writes_are_lost_as_a_whole_without_the_fault),
        cmocka_unit_test(an_exchange_is_lost_or_kept_as_a_whole),
        cmocka_unit_test(names_need_a_sync_of_their_directory),
        cmocka_unit_test(old_writes_are_on_the_medium_without_a_sync),
        cmocka_unit_test(a_failed_fsync_loses_the_pages),
        cmocka_unit_test(a_full_disk_takes_a_part_and_then_fails),
        cmocka_unit_test(a_flip_changes_one_bit_of_a_file_that_nobody_writes),
        cmocka_unit_test(an_exchange_can_be_unsupported),
        cmocka_unit_test(each_host_has_its_own_tree),
        cmocka_unit_test(a_socket_is_found_where_it_was_bound),
        cmocka_unit_test(jansson_reads_files_of_the_virtual_disk),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
