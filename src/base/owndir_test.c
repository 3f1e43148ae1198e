/*
 * owndir_test.c - directories that are refused, and files that are written whole.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/owndir.h"

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof(folder), "/tmp/tq-owndir-XXXXXX");
    return mkdtemp(folder) != NULL ? 0 : -1;
}

static const char *in_folder(const char *name)
{
    static char path[128];

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    return path;
}

static int open_at(const char *path, bool make, int *fd, tq_error *err)
{
    const tqi_owndir which = {.at = AT_FDCWD, .name = path, .shown = path, .remedy = "move it"};

    return tqi_owndir_open(&which, make, fd, err);
}

static void only_a_directory_of_ones_own_is_opened(void **state)
{
    struct stat status;
    tq_error err = {0};
    int fd = -1;

    (void)state;

    assert_int_equal(open_at(in_folder("own"), false, &fd, &err), TQ_EUNREACHABLE);
    assert_int_equal(open_at(in_folder("own"), true, &fd, &err), TQ_OK);
    assert_int_equal(fstat(fd, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0700);
    close(fd);
    assert_int_equal(symlinkat("own", AT_FDCWD, in_folder("link")), 0);
    for (int make = 0; make < 2; make++) {
        fd = -1;
        assert_int_equal(open_at(in_folder("link"), make, &fd, &err), TQ_ECONFIG);
        assert_non_null(strstr(err.message, "link is a symbolic link"));
        assert_non_null(strstr(err.message, "move it"));
        assert_int_equal(fd, -1);
    }
    assert_int_equal(chmod(in_folder("own"), 0750), 0);
    assert_int_equal(open_at(in_folder("own"), true, &fd, &err), TQ_ECONFIG);
    assert_non_null(strstr(err.message, "mode 0750"));
    assert_int_equal(unlink(in_folder("link")), 0);
    assert_int_equal(rmdir(in_folder("own")), 0);
}

static void expect_file(int dir, const char *name, const char *text)
{
    tq_error err = {0};
    char *found = NULL;
    size_t size = 0;

    assert_int_equal(tqi_owndir_read(dir, name, name, 100, &found, &size, &err), TQ_OK);
    assert_string_equal(found, text);
    assert_int_equal(size, strlen(text));
    free(found);
}

static void files_are_written_whole_and_no_link_is_followed(void **state)
{
    struct stat status;
    tq_error err = {0};
    char *text = NULL;
    size_t size = 0;
    int dir = -1;

    (void)state;

    assert_int_equal(open_at(in_folder("own"), true, &dir, &err), TQ_OK);
    /* Links replace the file and its temporary file: neither link is followed. */
    int other = openat(dir, "other", O_WRONLY | O_CREAT, 0600);
    assert_int_equal(write(other, "old", 3), 3);
    close(other);
    assert_int_equal(symlinkat("other", dir, "token"), 0);
    assert_int_equal(symlinkat("other", dir, "token.new"), 0);
    assert_int_equal(tqi_owndir_read(dir, "token", "token", 100, &text, &size, &err), TQ_EIO);
    assert_int_equal(tqi_owndir_write(dir, "token", "token", "secret", 6, &err), TQ_OK);
    expect_file(dir, "token", "secret");
    expect_file(dir, "other", "old");
    assert_int_equal(fstatat(dir, "token", &status, AT_SYMLINK_NOFOLLOW), 0);
    assert_int_equal(status.st_mode, S_IFREG | 0600);
    assert_int_equal(tqi_owndir_read(dir, "token", "token", 5, &text, &size, &err), TQ_ECONFIG);
    assert_int_equal(mkfifoat(dir, "fifo", 0600), 0);
    assert_int_equal(tqi_owndir_read(dir, "fifo", "fifo", 100, &text, &size, &err), TQ_ECONFIG);
    assert_int_equal(tqi_owndir_read(dir, "none", "none", 100, &text, &size, &err), TQ_EUNREACHABLE);
    tqi_owndir_clear(dir);
    assert_int_equal(faccessat(dir, "token", F_OK, AT_SYMLINK_NOFOLLOW), -1);
    assert_int_equal(faccessat(dir, "token.new", F_OK, AT_SYMLINK_NOFOLLOW), -1);
    expect_file(dir, "other", "old");
    assert_int_equal(unlinkat(dir, "other", 0), 0);
    assert_int_equal(unlinkat(dir, "fifo", 0), 0);
    assert_int_equal(rmdir(in_folder("own")), 0); /* nothing else is left */
    close(dir);
}

static int remove_folder(void **state)
{
    (void)state;
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_a_directory_of_ones_own_is_opened),
        cmocka_unit_test(files_are_written_whole_and_no_link_is_followed),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
