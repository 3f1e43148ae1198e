/*
 * disk_test.c - the virtual file system: the same calls, drawn at random, are made in a real directory and in a virtual
 * one, and must return the same and fail with the same errno.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include "disk.h"
#include "disk_testkit.h"
#include "sim.h"

#define FILES 6
#define ROOT  "/sim/root"

static char real_root[] = "/tmp/tq-disk-XXXXXX";
static sim_chance chance;

/* A path below both roots, or relative to two directories. */
typedef struct twins {
    char real[8192];
    char virtual[8192];
    int real_dir, virtual_dir;
} twins;

/* Files that are open in both worlds, -1 for none. */
static int real_fd[FILES], virtual_fd[FILES];

/* --- drawing ---------------------------------------------------------------- */

/* A path of up to three names, never above where it begins; mostly of those that often exist. */
static void draw_path(char *out)
{
    static const char *const names[] = {"a", "b", "c", "a", "b", "c", "d", "e"};
    static char longest[257];
    size_t n = 1 + sim_below(&chance, 3);
    size_t depth = 0;

    out[0] = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t kind = sim_below(&chance, 24);
        const char *name = names[sim_below(&chance, 8)];
        if (kind == 0) {
            name = ".";
        } else if (kind == 1 && depth > 0) {
            name = "..";
        } else if (kind == 2 && sim_one_in(&chance, 8)) {
            memset(longest, 'x', 256);
            longest[sim_one_in(&chance, 2) ? 256 : 255] = 0;
            name = longest;
        }
        depth += name[0] != '.' ? 1 : name[1] == '.' ? -1 : 0;
        strcat(out, i > 0 ? "/" : "");
        strcat(out, name);
    }
    strcat(out, strlen(out) < 255 && sim_one_in(&chance, 12) ? "/" : "");
}

/* Absolute, or relative to an open file. */
static void draw_twins(twins *at, bool absolute)
{
    char path[4096];
    uint64_t file = sim_below(&chance, FILES);

    draw_path(path);
    at->real_dir = AT_FDCWD;
    at->virtual_dir = AT_FDCWD;
    if (absolute || sim_one_in(&chance, 2)) {
        snprintf(at->real, sizeof(at->real), "%s/%s", real_root, path);
        snprintf(at->virtual, sizeof(at->virtual), ROOT "/%s", path);
    } else if (real_fd[file] >= 0) {
        at->real_dir = real_fd[file];
        at->virtual_dir = virtual_fd[file];
        snprintf(at->real, sizeof(at->real), "%s", path);
        snprintf(at->virtual, sizeof(at->virtual), "%s", path);
    } else {
        draw_twins(at, true);
    }
}

static void same(const char *what, const twins *at, long one, int one_errno, long other, int other_errno)
{
    if ((one < 0) != (other < 0) || (one >= 0 && one != other) || (one < 0 && one_errno != other_errno)) {
        fail_msg("%s %s: really %ld (%s), virtually %ld (%s)", what, at != NULL ? at->virtual : "", one,
                 one < 0 ? strerror(one_errno) : "", other, other < 0 ? strerror(other_errno) : "");
    }
}

/* Both calls; `real` and `virtual` are expressions. */
#define BOTH(what, at, real_call, virtual_call)              \
    do {                                                     \
        errno = 0;                                           \
        long one_ = (real_call);                             \
        int one_errno_ = errno;                              \
        errno = 0;                                           \
        long other_ = (virtual_call);                        \
        same((what), (at), one_, one_errno_, other_, errno); \
    } while (0)

/* --- calls on paths --------------------------------------------------------- */

static void same_stat(const char *what, const twins *at, int one, int one_errno, const struct stat *real, int other,
                      int other_errno, const struct stat *virtual)
{
    same(what, at, one, one_errno, other, other_errno);
    if (one == 0) {
        assert_int_equal(real->st_mode & (S_IFMT | 0777), virtual->st_mode & (S_IFMT | 0777));
        assert_true((real->st_nlink > 0) == (virtual->st_nlink > 0));
        if (S_ISREG(real->st_mode)) {
            assert_int_equal(real->st_size, virtual->st_size);
            assert_int_equal(real->st_nlink, virtual->st_nlink);
        }
    }
}

static void try_stat(const twins *at, const twins *absolute)
{
    struct stat real, virtual;
    int one, one_errno;

    errno = 0;
    one = fstatat(at->real_dir, at->real, &real, AT_SYMLINK_NOFOLLOW);
    one_errno = errno;
    same_stat("fstatat", at, one, one_errno, &real,
              fstatat(at->virtual_dir, at->virtual, &virtual, AT_SYMLINK_NOFOLLOW), errno, &virtual);
    one = stat(absolute->real, &real);
    one_errno = errno;
    same_stat("stat", absolute, one, one_errno, &real, stat(absolute->virtual, &virtual), errno, &virtual);
    one = lstat(absolute->real, &real);
    one_errno = errno;
    same_stat("lstat", absolute, one, one_errno, &real, lstat(absolute->virtual, &virtual), errno, &virtual);
    BOTH("access", absolute, access(absolute->real, F_OK), access(absolute->virtual, F_OK));
}

static int bind_real(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int rc;

    memcpy(addr.sun_path, path, strlen(path) + 1);
    rc = bind(fd, (struct sockaddr *)&addr, sizeof(addr));
    int error = errno;
    close(fd);
    errno = error;
    return rc;
}

static int bind_virtual(const char *path)
{
    struct stat st;
    int rc = sim_disk_socket_bind(path, &chance);

    if (rc == 0) {
        assert_ptr_equal(sim_disk_socket_find(path), &chance);
        assert_int_equal(stat(path, &st), 0);
        assert_true(S_ISSOCK(st.st_mode));
    }
    return rc;
}

static void try_names(const twins *at, const twins *absolute)
{
    switch (sim_below(&chance, 8)) {
    case 0:
    case 1:
        BOTH("mkdirat", at, mkdirat(at->real_dir, at->real, 0777), mkdirat(at->virtual_dir, at->virtual, 0777));
        break;
    case 2:
        BOTH("mkdir", absolute, mkdir(absolute->real, 0700), mkdir(absolute->virtual, 0700));
        break;
    case 3:
        BOTH("unlinkat", at, unlinkat(at->real_dir, at->real, 0), unlinkat(at->virtual_dir, at->virtual, 0));
        break;
    case 4:
        BOTH("rmdir", absolute, rmdir(absolute->real), rmdir(absolute->virtual));
        break;
    case 5:
        BOTH("unlinkat dir", at, unlinkat(at->real_dir, at->real, AT_REMOVEDIR),
             unlinkat(at->virtual_dir, at->virtual, AT_REMOVEDIR));
        break;
    case 6:
        BOTH("remove", absolute, remove(absolute->real), remove(absolute->virtual));
        break;
    default:
        if (strlen(absolute->real) < 100) {
            BOTH("bind", absolute, bind_real(absolute->real), bind_virtual(absolute->virtual));
        }
    }
}

static void try_rename(const twins *from, const twins *to, const twins *old, const twins *new)
{
    static const unsigned flags[] = {RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_EXCHANGE | RENAME_NOREPLACE};
    unsigned flag = flags[sim_one_in(&chance, 16) ? 2 : sim_below(&chance, 2)];

    switch (sim_below(&chance, 4)) {
    case 0:
        BOTH("renameat", from, renameat(from->real_dir, from->real, to->real_dir, to->real),
             renameat(from->virtual_dir, from->virtual, to->virtual_dir, to->virtual));
        break;
    case 1:
        BOTH("rename", old, rename(old->real, new->real), rename(old->virtual, new->virtual));
        break;
    default:
        BOTH("renameat2", from, renameat2(from->real_dir, from->real, to->real_dir, to->real, flag),
             renameat2(from->virtual_dir, from->virtual, to->virtual_dir, to->virtual, flag));
    }
}

/* --- calls on descriptors --------------------------------------------------------- */

static void close_both(uint64_t file)
{
    if (real_fd[file] >= 0) {
        BOTH("close", NULL, close(real_fd[file]), close(virtual_fd[file]));
        real_fd[file] = -1;
        virtual_fd[file] = -1;
    }
}

static void try_open(const twins *at)
{
    static const int modes[] = {O_RDONLY, O_WRONLY, O_RDWR, O_PATH};
    uint64_t file = sim_below(&chance, FILES);
    int flags = modes[sim_below(&chance, 4)] | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW;
    int one_errno;

    close_both(file);
    flags |= sim_one_in(&chance, 2) ? O_CREAT : sim_one_in(&chance, 2) ? O_DIRECTORY : 0;
    flags |= (flags & O_CREAT) && sim_one_in(&chance, 3) ? O_EXCL : 0;
    flags |= sim_one_in(&chance, 5) ? O_TRUNC : 0;
    flags |= sim_one_in(&chance, 5) ? O_APPEND : 0;
    if ((flags & O_ACCMODE) == O_RDONLY) {
        flags &= ~O_TRUNC; /* not defined */
    }
    errno = 0;
    real_fd[file] = openat(at->real_dir, at->real, flags, 0666);
    one_errno = errno;
    errno = 0;
    virtual_fd[file] = openat(at->virtual_dir, at->virtual, flags, 0666);
    same("openat", at, real_fd[file] >= 0 ? 0 : -1, one_errno, virtual_fd[file] >= 0 ? 0 : -1, errno);
}

static void try_read(int real, int virtual)
{
    uint8_t one[2048], other[2048];
    size_t size = sim_below(&chance, sizeof(one) + 1);
    off_t at = (off_t)sim_below(&chance, 3000);

    memset(one, 0, sizeof(one));
    memset(other, 0, sizeof(other));
    if (sim_one_in(&chance, 2)) {
        BOTH("read", NULL, read(real, one, size), read(virtual, other, size));
    } else {
        BOTH("pread", NULL, pread(real, one, size, at), pread(virtual, other, size, at));
    }
    assert_memory_equal(one, other, sizeof(one));
}

static void try_write(int real, int virtual)
{
    static uint8_t bytes[2048];
    size_t size = sim_below(&chance, sizeof(bytes));
    off_t at = (off_t)sim_below(&chance, 3000);
    struct iovec part[2] = {{.iov_base = bytes, .iov_len = size / 2}, {.iov_base = bytes + 7, .iov_len = size / 3}};

    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] = (uint8_t)sim_next(&chance);
    }
    switch (sim_below(&chance, 4)) {
    case 0:
        BOTH("write", NULL, write(real, bytes, size), write(virtual, bytes, size));
        break;
    case 1:
        BOTH("pwrite", NULL, pwrite(real, bytes, size, at), pwrite(virtual, bytes, size, at));
        break;
    case 2:
        BOTH("writev", NULL, writev(real, part, 2), writev(virtual, part, 2));
        break;
    default:
        BOTH("ftruncate", NULL, ftruncate(real, at), ftruncate(virtual, at));
    }
}

static void try_file(void)
{
    static const int whence[] = {SEEK_SET, SEEK_CUR, SEEK_END};
    static const int locks[] = {LOCK_SH, LOCK_EX, LOCK_UN, LOCK_EX};
    uint64_t file = sim_below(&chance, FILES);
    int real = real_fd[file], virtual = virtual_fd[file];
    int how = whence[sim_below(&chance, 3)];
    off_t by = (off_t)sim_below(&chance, 2000) - 500;
    int lock = locks[sim_below(&chance, 4)] | LOCK_NB;
    struct stat st, virtual_st;
    int one, one_errno;

    if (real < 0) {
        return;
    }
    switch (sim_below(&chance, 8)) {
    case 0:
    case 1:
        try_read(real, virtual);
        break;
    case 2:
    case 3:
        try_write(real, virtual);
        break;
    case 4:
        if (fstat(real, &st) == 0 && S_ISREG(st.st_mode)) { /* in a directory it means what its file system likes */
            BOTH("lseek", NULL, lseek(real, by, how), lseek(virtual, by, how));
        }
        break;
    case 5:
        BOTH("flock", NULL, flock(real, lock), flock(virtual, lock));
        break;
    case 6:
        BOTH("fsync", NULL, fsync(real), fsync(virtual));
        BOTH("fdatasync", NULL, fdatasync(real), fdatasync(virtual));
        break;
    default:
        one = fstat(real, &st);
        one_errno = errno;
        same_stat("fstat", NULL, one, one_errno, &st, fstat(virtual, &virtual_st), errno, &virtual_st);
    }
}

/* --- whole trees ---------------------------------------------------------------------- */

static char listing[2][1 << 16];
static int listed; /* which one is being written */
static size_t listed_root;

static int list_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    char line[8192];

    snprintf(line, sizeof(line), "%s %d %d %s %lld\n", path + listed_root, flag, ftw->level, path + ftw->base,
             S_ISREG(st->st_mode) ? (long long)st->st_size : 0LL);
    if (strlen(listing[listed]) + strlen(line) < sizeof(listing[0])) {
        strcat(listing[listed], line);
    }
    return 0;
}

static int compare_lines(const void *one, const void *other)
{
    return strcmp(*(char *const *)one, *(char *const *)other);
}

/* The order within a real directory is any. */
static void sort_lines(char *text)
{
    static char copy[1 << 16];
    static char *line[4096];
    size_t n = 0;

    strcpy(copy, text);
    for (char *at = strtok(copy, "\n"); at != NULL && n < 4096; at = strtok(NULL, "\n")) {
        line[n++] = at;
    }
    qsort(line, n, sizeof(line[0]), compare_lines);
    text[0] = 0;
    for (size_t i = 0; i < n; i++) {
        strcat(text, line[i]);
        strcat(text, "\n");
    }
}

static void same_trees(void)
{
    int flags = sim_one_in(&chance, 2) ? FTW_DEPTH | FTW_PHYS : FTW_PHYS;

    listing[0][0] = 0;
    listing[1][0] = 0;
    listed = 0;
    listed_root = strlen(real_root);
    assert_int_equal(nftw(real_root, list_one, 8, flags), 0);
    listed = 1;
    listed_root = strlen(ROOT);
    assert_int_equal(nftw(ROOT, list_one, 8, flags), 0);
    sort_lines(listing[0]);
    sort_lines(listing[1]);
    /* The roots have other names. */
    assert_string_equal(strchr(listing[0], '\n'), strchr(listing[1], '\n'));
}

/* Names of the directory, sorted, each with a space behind it; "-" and the errno if it cannot be read. */
static void list_names(const char *path, char *out, size_t size)
{
    char *name[512];
    size_t n = 0;
    const struct dirent *entry;
    DIR *dir = opendir(path);

    snprintf(out, size, "-%d", dir == NULL ? errno : 0);
    if (dir == NULL) {
        return;
    }
    out[0] = 0;
    while ((entry = readdir(dir)) != NULL && n < 512) {
        name[n++] = strdup(entry->d_name);
    }
    assert_int_equal(closedir(dir), 0);
    qsort(name, n, sizeof(name[0]), compare_lines);
    for (size_t i = 0; i < n; i++) {
        strcat(out, name[i]);
        strcat(out, " ");
        free(name[i]);
    }
}

static void try_list(const twins *absolute)
{
    char one[8192], other[8192];
    uint8_t bytes[2][512];
    FILE *file[2] = {fopen(absolute->real, "re"), fopen(absolute->virtual, "re")};
    size_t n[2] = {0, 0};

    list_names(absolute->real, one, sizeof(one));
    list_names(absolute->virtual, other, sizeof(other));
    assert_string_equal(one, other);
    assert_true((file[0] != NULL) == (file[1] != NULL));
    for (int i = 0; i < 2; i++) {
        if (file[i] != NULL) {
            n[i] = fread(bytes[i], 1, sizeof(bytes[0]), file[i]);
            assert_int_equal(fclose(file[i]), 0);
        }
    }
    assert_int_equal(n[0], n[1]);
    assert_memory_equal(bytes[0], bytes[1], n[0]);
}

static void step(void)
{
    twins at, to, absolute, new;

    draw_twins(&at, false);
    draw_twins(&to, false);
    draw_twins(&absolute, true);
    draw_twins(&new, true);
    switch (sim_below(&chance, 10)) {
    case 0:
    case 1:
        try_open(&at);
        break;
    case 2:
    case 3:
        try_names(&at, &absolute);
        break;
    case 4:
        /* A name that is too long is noticed by each call at another time, and rename has two. */
        if (strlen(at.virtual) + strlen(to.virtual) + strlen(absolute.virtual) + strlen(new.virtual) < 255) {
            try_rename(&at, &to, &absolute, &new);
        }
        break;
    case 5:
        try_stat(&at, &absolute);
        break;
    case 6:
        try_list(&absolute);
        break;
    default:
        try_file();
    }
}

static void calls_return_and_fail_as_in_a_real_directory(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(real_root));
    assert_int_equal(chmod(real_root, 0755), 0);
    for (uint64_t seed = 0; seed < 60; seed++) {
        char command[128];
        disk_testkit_start(seed, false);
        sim_chance_init(&chance, seed, "test");
        memset(real_fd, -1, sizeof(real_fd));
        memset(virtual_fd, -1, sizeof(virtual_fd));
        assert_int_equal(mkdir(ROOT, 0755), 0);
        for (int i = 0; i < 400; i++) {
            step();
            if (i % 50 == 0) {
                same_trees();
            }
        }
        for (uint64_t file = 0; file < FILES; file++) {
            close_both(file);
        }
        same_trees();
        disk_testkit_end();
        snprintf(command, sizeof(command), "rm -rf %s/*", real_root);
        assert_int_equal(system(command), 0);
    }
    assert_int_equal(rmdir(real_root), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(calls_return_and_fail_as_in_a_real_directory)};

    umask(022);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
