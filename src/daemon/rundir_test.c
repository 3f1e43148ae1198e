/*
 * rundir_test.c - somebody moves a runtime directory away and puts another in its place.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <tq/tq.h>
#include <unistd.h>

#include "daemon/rundir.h"

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof(folder), "/tmp/tq-rundir-XXXXXX");
    return mkdtemp(folder) != NULL && setenv("XDG_RUNTIME_DIR", folder, 1) == 0 ? 0 : -1;
}

static const char *in_folder(const char *name)
{
    static char paths[2][128];
    static unsigned turn;
    char *path = paths[turn++ % 2];

    snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
    return path;
}

static void a_runtime_directory_is_found_while_its_daemon_lives(void **state)
{
    tqd_rundir dir;
    tqi_net_token token = {0};
    tq_location found = {.size = sizeof(found)};
    tq_error err = {0};

    (void)state;

    /* A trailing slash changes nothing. */
    assert_int_equal(tqd_rundir_init(&dir, in_folder("ctq/one/"), "one", &token, &err), TQ_OK);
    assert_int_equal(token.size, 64);
    assert_int_equal(tq_discover("one", &found, &err), TQ_EUNREACHABLE);
    assert_int_equal(tqd_rundir_publish(&dir, "tcp:127.0.0.1:1", 0, "/opt/x.so", "x", &err), TQ_OK);
    assert_int_equal(tq_discover("one", &found, &err), TQ_OK);
    assert_string_equal(found.address, "tcp:127.0.0.1:1");
    assert_string_equal(found.library, "/opt/x.so");
    assert_string_equal(found.token_file, in_folder("ctq/one/token"));
    tqd_rundir_fini(&dir);
    tqd_rundir_fini(&dir);
    assert_int_equal(access(in_folder("ctq"), F_OK), -1); /* the last one takes it along */
}

static void a_moved_runtime_directory_is_noticed(void **state)
{
    tqd_rundir dir;
    tqi_net_token token = {0};
    tq_error err = {0};

    (void)state;

    assert_int_equal(tqd_rundir_init(&dir, in_folder("ctq/one"), "one", &token, &err), TQ_OK);
    assert_int_equal(rename(in_folder("ctq"), in_folder("moved")), 0);
    assert_int_equal(mkdir(in_folder("ctq"), 0700), 0);
    assert_int_equal(mkdir(in_folder("ctq/one"), 0700), 0);
    assert_int_equal(tqd_rundir_publish(&dir, "tcp:127.0.0.1:1", 0, NULL, NULL, &err), TQ_ECONFIG);
    assert_non_null(strstr(err.message, "somebody has moved or replaced it"));
    assert_int_equal(access(in_folder("ctq/one/handle.json"), F_OK), -1);
    tqd_rundir_fini(&dir);
    assert_int_equal(rmdir(in_folder("moved/one")), 0); /* empty */
    assert_int_equal(rmdir(in_folder("moved")), 0);
    assert_int_equal(rmdir(in_folder("ctq/one")), 0); /* still there */
    assert_int_equal(rmdir(in_folder("ctq")), 0);
}

static int remove_folder(void **state)
{
    (void)state;
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_runtime_directory_is_found_while_its_daemon_lives),
        cmocka_unit_test(a_moved_runtime_directory_is_noticed),
    };

    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
