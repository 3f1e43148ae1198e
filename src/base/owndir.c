/*
 * owndir.c - see owndir.h.
 */
#include "base/owndir.h"

#include "base/clock.h"
#include "base/error.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* How often to remake a directory that others remove meanwhile, and to redraw a name that is taken. */
#define OWNDIR_TRIES 100

/* --- opening -------------------------------------------------------------- */

static int owndir_refuse(const tqi_owndir *which, const char *why, tq_error *err)
{
    return tqi_error_set(err, TQ_ECONFIG, "%s %s and is not used: %s", which->shown, why, which->remedy);
}

/* Checks owner and mode of the opened directory. */
static int owndir_check(const tqi_owndir *which, int fd, tq_error *err)
{
    struct stat status;
    char why[128];

    if (fstat(fd, &status)) {
        return tqi_error_errno(err, errno, which->shown);
    }
    if (status.st_uid != geteuid()) {
        snprintf(why, sizeof(why), "belongs to another user (uid %u, this one is %u)", (unsigned)status.st_uid,
                 (unsigned)geteuid());
        return owndir_refuse(which, why, err);
    }
    if (status.st_mode & 077) {
        return tqi_error_set(err, TQ_ECONFIG,
                             "%s is open to other users (mode %04o) and is not used: it must have "
                             "mode 0700; remove what others may have put there, then chmod 700 %s, "
                             "or %s",
                             which->shown, (unsigned)status.st_mode & 07777, which->shown, which->remedy);
    }
    return TQ_OK;
}

/* Why it could not be opened. */
static int owndir_failed(const tqi_owndir *which, int errnum, tq_error *err)
{
    struct stat status;

    if (errnum == ENOENT) {
        return tqi_error_set(err, TQ_EUNREACHABLE, "there is no directory %s", which->shown);
    }
    if (fstatat(which->at, which->name, &status, AT_SYMLINK_NOFOLLOW) == 0) {
        if (S_ISLNK(status.st_mode)) {
            return owndir_refuse(which, "is a symbolic link, which somebody else may have made,", err);
        }
        if (!S_ISDIR(status.st_mode)) {
            return owndir_refuse(which, "is not a directory", err);
        }
        if (status.st_uid != geteuid()) {
            return owndir_refuse(which, "belongs to another user", err);
        }
    }
    return tqi_error_set(err, TQ_ECONFIG, "cannot open %s: %s", which->shown, strerror(errnum));
}

int tqi_owndir_open(const tqi_owndir *which, bool make, int *fd, tq_error *err)
{
    int opened = -1;

    /* A system that ends removes empty directories, perhaps between our making it and opening it. */
    for (int i = 0; i < OWNDIR_TRIES; i++) {
        if (make && mkdirat(which->at, which->name, 0700) && errno != EEXIST) {
            return tqi_error_set(err, TQ_ECONFIG, "cannot make %s: %s; %s", which->shown, strerror(errno),
                                 which->remedy);
        }
        opened = openat(which->at, which->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (opened >= 0 || errno != ENOENT || !make) {
            break;
        }
    }
    if (opened < 0) {
        return owndir_failed(which, errno, err);
    }
    int rc = owndir_check(which, opened, err);
    if (rc) {
        close(opened);
        return rc;
    }
    *fd = opened;
    return TQ_OK;
}

/* --- files ---------------------------------------------------------------- */

int tqi_owndir_read(int dir, const char *name, const char *shown, size_t max, char **text, size_t *size, tq_error *err)
{
    struct stat status;
    char *bytes = NULL;
    ssize_t n = 0;
    int rc = TQ_EIO;
    /* O_NONBLOCK: opening a FIFO would wait for a writer. */
    int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

    if (fd < 0 && errno == ENOENT) {
        return tqi_error_set(err, TQ_EUNREACHABLE, "there is no %s", shown);
    }
    if (fd < 0 || fstat(fd, &status)) {
        rc = tqi_error_errno(err, errno, shown);
    } else if (!S_ISREG(status.st_mode) || (uint64_t)status.st_size > max) {
        rc = tqi_error_set(err, TQ_ECONFIG, "%s is not a file of at most %zu bytes", shown, max);
    } else if ((bytes = malloc((size_t)status.st_size + 1)) == NULL) {
        rc = tqi_error_nomem(err, shown);
    } else if ((n = read(fd, bytes, (size_t)status.st_size)) < 0) {
        rc = tqi_error_errno(err, errno, shown);
    } else {
        bytes[n] = 0;
        *text = bytes;
        *size = (size_t)n;
        bytes = NULL;
        rc = TQ_OK;
    }
    free(bytes);
    if (fd >= 0) {
        close(fd);
    }
    return rc;
}

/* Makes a file under an unused name, and returns the name. */
static int owndir_temporary(int dir, const char *name, char *out, size_t size)
{
    int fd = -1;

    for (int i = 0; fd < 0 && i < OWNDIR_TRIES; i++) {
        snprintf(out, size, "%s.new-%016" PRIx64, name, tqi_random_id());
        fd = openat(dir, out, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (fd < 0 && errno != EEXIST) {
            break;
        }
    }
    return fd;
}

int tqi_owndir_write(int dir, const char *name, const char *shown, const void *bytes, size_t size, tq_error *err)
{
    char temporary[256];
    struct stat status;
    int failed = 0;
    int fd = owndir_temporary(dir, name, temporary, sizeof(temporary));

    if (fd < 0) {
        return tqi_error_errno(err, errno, shown);
    }
    if (fstat(fd, &status)) {
        failed = errno;
    } else if (!S_ISREG(status.st_mode) || status.st_uid != geteuid() || (status.st_mode & 077)) {
        failed = EPERM;
    }
    if (!failed) {
        ssize_t written = write(fd, bytes, size);
        failed = written == (ssize_t)size ? 0 : (written < 0 ? errno : ENOSPC);
    }
    if (close(fd) && !failed) {
        failed = errno;
    }
    if (!failed && renameat(dir, temporary, dir, name)) {
        failed = errno;
    }
    if (failed) {
        unlinkat(dir, temporary, 0);
        return tqi_error_errno(err, failed, shown);
    }
    return TQ_OK;
}

/* --- leftovers ------------------------------------------------------------ */

/* Whether a name is `before`, then some of the characters, then `after`. */
static bool owndir_like(const char *name, const char *before, const char *characters, const char *after)
{
    size_t size = strlen(before);
    size_t more = strncmp(name, before, size) == 0 ? strspn(name + size, characters) : 0;

    return more > 0 && strcmp(name + size + more, after) == 0;
}

static bool owndir_is_a_daemons(const char *name)
{
    static const char *const names[] = {"handle.json",     "token",     "secret",         "redis.sock",
                                        "controller.sock", "token.new", "handle.json.new"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(name, names[i]) == 0) {
            return true;
        }
    }
    return owndir_like(name, "unit-", "0123456789", ".sock") ||
           owndir_like(name, "token.new-", "0123456789abcdef", "") ||
           owndir_like(name, "handle.json.new-", "0123456789abcdef", "");
}

void tqi_owndir_clear(int dir)
{
    int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *stream = fd < 0 ? NULL : fdopendir(fd);

    if (stream == NULL) {
        if (fd >= 0) {
            close(fd);
        }
        return;
    }
    for (struct dirent *entry; (entry = readdir(stream));) {
        if (owndir_is_a_daemons(entry->d_name)) {
            (void)unlinkat(dir, entry->d_name, 0); /* of a file or socket: never a directory */
        }
    }
    closedir(stream);
}
