/*
 * memory_test.c - limits of control groups, of both versions, in trees like those of /proc and /sys.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <ftw.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <tq/tq.h>

#include "base/memory.h"

#define MACHINE (UINT64_C(2048) << 30)
#define V2_MOUNT                            \
    "22 1 0:20 / /proc rw - proc proc rw\n" \
    "35 25 0:30 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n"
#define V1_MOUNT                                                                 \
    "31 25 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"                 \
    "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"                \
    "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n" \
    "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"

/* Writes a file below the root, and the directories above it. */
static void put(const char *root, const char *name, const char *text)
{
    char path[PATH_MAX];

    snprintf(path, sizeof(path), "%s%s", root, name);
    for (char *at = strchr(path + strlen(root) + 1, '/'); at != NULL; at = strchr(at + 1, '/')) {
        *at = 0;
        assert_true(mkdir(path, 0755) == 0 || errno == EEXIST);
        *at = '/';
    }
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static int erase(const char *path, const struct stat *about, int kind, struct FTW *at)
{
    (void)about;
    (void)kind;
    (void)at;
    return remove(path);
}

static int setup(void **state)
{
    char *root = strdup("/tmp/tq-memory-XXXXXX");

    *state = root;
    return root != NULL && mkdtemp(root) != NULL ? 0 : -1;
}

static int teardown(void **state)
{
    int failed = nftw(*state, erase, 8, FTW_DEPTH | FTW_PHYS);

    free(*state);
    return failed;
}

static void expect(const char *root, uint64_t bytes, bool of_cgroup)
{
    tqi_memory found = tqi_memory_limit_at(root, MACHINE);

    assert_int_equal(found.bytes, bytes);
    assert_int_equal(found.of_cgroup, of_cgroup);
}

static void without_groups_the_machine_is_the_limit(void **state)
{
    expect(*state, MACHINE, false);
    put(*state, "/proc/self/mountinfo", "garbage\n\n1 2 3\n- - -\n");
    put(*state, "/proc/self/cgroup", "\n:\n::\nx\n");
    expect(*state, MACHINE, false);
}

static void the_smallest_limit_of_version_2_counts(void **state)
{
    put(*state, "/proc/self/mountinfo", V2_MOUNT);
    put(*state, "/proc/self/cgroup", "0::/pods/one/box\n");
    put(*state, "/sys/fs/cgroup/pods/one/box/memory.max", "max\n");
    put(*state, "/sys/fs/cgroup/pods/one/box/memory.high", "max\n");
    expect(*state, MACHINE, false);
    /* A limit applies to everything below it. */
    put(*state, "/sys/fs/cgroup/pods/memory.max", "68719476736\n");
    expect(*state, UINT64_C(64) << 30, true);
    put(*state, "/sys/fs/cgroup/pods/one/box/memory.high", "1073741824\n");
    expect(*state, UINT64_C(1) << 30, true);
    put(*state, "/sys/fs/cgroup/pods/one/memory.max", "1048576");
    expect(*state, UINT64_C(1) << 20, true);
    /* That of another group does not. */
    put(*state, "/sys/fs/cgroup/pods/two/memory.max", "4096\n");
    put(*state, "/memory.max", "4096\n");
    put(*state, "/sys/fs/memory.max", "4096\n");
    expect(*state, UINT64_C(1) << 20, true);
}

static void the_smallest_limit_of_version_1_counts(void **state)
{
    put(*state, "/proc/self/mountinfo", V1_MOUNT);
    put(*state, "/proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/a/b\n1:cpu:/c\n0::/\n");
    put(*state, "/sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "9223372036854771712\n");
    put(*state, "/sys/fs/cgroup/cpu/c/memory.limit_in_bytes", "4096\n");
    expect(*state, MACHINE, false);
    put(*state, "/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "1073741824\n");
    expect(*state, UINT64_C(1) << 30, true);
    put(*state, "/sys/fs/cgroup/memory/memory.limit_in_bytes", "536870912\n");
    expect(*state, UINT64_C(512) << 20, true);
    /* A tool that makes both of them. */
    put(*state, "/sys/fs/cgroup/unified/memory.max", "268435456\n");
    expect(*state, UINT64_C(256) << 20, true);
}

/* In a container the mount shows the container's group as its root, and /proc/self/cgroup the whole path. */
static void a_container_sees_its_group_as_the_root(void **state)
{
    put(*state, "/proc/self/mountinfo",
        "35 31 0:32 /docker/abc /sys/fs/cgroup/me\\040mory ro - cgroup cgroup rw,memory\n");
    put(*state, "/proc/self/cgroup", "4:memory:/docker/abc\n");
    put(*state, "/sys/fs/cgroup/me mory/memory.limit_in_bytes", "2147483648\n");
    expect(*state, UINT64_C(2) << 30, true);
    put(*state, "/proc/self/cgroup", "4:memory:/docker/abc/inner\n");
    put(*state, "/sys/fs/cgroup/me mory/inner/memory.limit_in_bytes", "1073741824\n");
    expect(*state, UINT64_C(1) << 30, true);
    /* A group that the mount does not show: what it shows counts. */
    put(*state, "/proc/self/cgroup", "4:memory:/docker/abcdef\n");
    expect(*state, UINT64_C(2) << 30, true);
    put(*state, "/proc/self/cgroup", "4:memory:/../../other\n");
    expect(*state, UINT64_C(2) << 30, true);
}

static void what_is_no_limit_is_passed_over(void **state)
{
    put(*state, "/proc/self/mountinfo", V2_MOUNT);
    put(*state, "/proc/self/cgroup", "0::/\n");
    static const char *const texts[] = {"", "\n", "0\n", "none", "99999999999999999999999\n"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        put(*state, "/sys/fs/cgroup/memory.max", texts[i]);
        expect(*state, MACHINE, false);
    }
}

static void this_machine_has_a_limit(void **state)
{
    bool of_cgroup = true;
    uint64_t bytes = tq_memory_limit(&of_cgroup);

    (void)state;
    assert_in_range(bytes, 1, UINT64_MAX - 1);
    assert_int_equal(tq_memory_limit(NULL), bytes);
    assert_int_equal(tqi_memory_limit().of_cgroup, of_cgroup);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(without_groups_the_machine_is_the_limit, setup, teardown),
        cmocka_unit_test_setup_teardown(the_smallest_limit_of_version_2_counts, setup, teardown),
        cmocka_unit_test_setup_teardown(the_smallest_limit_of_version_1_counts, setup, teardown),
        cmocka_unit_test_setup_teardown(a_container_sees_its_group_as_the_root, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_no_limit_is_passed_over, setup, teardown),
        cmocka_unit_test(this_machine_has_a_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
