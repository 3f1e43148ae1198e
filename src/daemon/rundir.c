/*
 * rundir.c - see rundir.h.
 */
#include "daemon/rundir.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <libgen.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <tq/tq.h>
#include <unistd.h>

#define RUNDIR_TOKEN_BYTES 32

/* Writes a file whole: others see the old one or the new one. */
static int rundir_write(const char *path, const char *text, size_t size, tq_error *err)
{
    char temporary[512];
    snprintf(temporary, sizeof(temporary), "%s.new", path);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) {
        return tqi_error_errno(err, errno, temporary);
    }
    ssize_t written = write(fd, text, size);
    int failed = written == (ssize_t)size ? 0 : (written < 0 ? errno : ENOSPC);
    if (close(fd) && !failed) {
        failed = errno;
    }
    if (!failed && rename(temporary, path)) {
        failed = errno;
    }
    if (failed) {
        unlink(temporary);
        return tqi_error_errno(err, failed, path);
    }
    return TQ_OK;
}

static int64_t rundir_changed(const struct stat *status)
{
    return (int64_t)status->st_ctim.tv_sec * 1000000000 + status->st_ctim.tv_nsec;
}

static int rundir_make_token(tqd_rundir *dir, tqi_token *token, tq_error *err)
{
    uint8_t secret[RUNDIR_TOKEN_BYTES];
    char text[TQI_TOKEN_MAX + 1];

    if (token->size == 0) {
        tqi_random(secret, sizeof(secret));
        for (size_t i = 0; i < sizeof(secret); i++) {
            snprintf((char *)token->bytes + 2 * i, 3, "%02x", secret[i]);
        }
        token->size = 2 * sizeof(secret);
    }
    memcpy(text, token->bytes, token->size);
    text[token->size] = '\n';
    snprintf(dir->token_file, sizeof(dir->token_file), "%s/token", dir->path);
    int rc = rundir_write(dir->token_file, text, token->size + 1, err);
    struct stat status;
    if (rc == TQ_OK && stat(dir->token_file, &status)) {
        rc = tqi_error_errno(err, errno, dir->token_file);
    }
    if (rc == TQ_OK) {
        dir->device = status.st_dev;
        dir->inode = status.st_ino;
        dir->changed_ns = rundir_changed(&status);
    }
    return rc;
}

/*
 * Whether a handle is there whose daemon lives.  One that was killed leaves its files behind; the next one clears them.
 * Its socket tells: a number of a process says nothing, for the handle may be of another container, or of the one that
 * this daemon was restarted in, where it has the same number as its predecessor.
 */
static bool rundir_in_use(const char *path)
{
    json_t *handle = json_load_file(path, 0, NULL);
    json_int_t pid = json_integer_value(json_object_get(handle, "pid"));
    const char *address = json_string_value(json_object_get(handle, "address"));
    bool in_use = false;

    if (address && strncmp(address, "unix:", 5) == 0) {
        char first[512];
        snprintf(first, sizeof(first), "%.*s", (int)strcspn(address, ","), address);
        in_use = tqi_endpoint_alive(first);
    } else if (address) {
        in_use = pid > 0 && pid != getpid() && (kill((pid_t)pid, 0) == 0 || errno == EPERM);
    }
    json_decref(handle);
    return in_use;
}

int tqd_rundir_init(tqd_rundir *dir, const char *path, const char *name, tqi_token *token,
                    tq_error *err)
{
    char handle[512];
    struct stat status;

    memset(dir, 0, sizeof(*dir));
    if (strlen(path) >= sizeof(dir->path) - 1 || strlen(name) >= sizeof(dir->name)) {
        return tqi_error_set(err, TQ_ENAME, "runtime directory %s: path or system name is too long",
                             path);
    }
    snprintf(dir->path, sizeof(dir->path), "%s", path);
    snprintf(dir->name, sizeof(dir->name), "%s", name);
    if (mkdir(path, 0700) && errno != EEXIST) {
        return tqi_error_errno(err, errno, path);
    }
    if (lstat(path, &status)) {
        return tqi_error_errno(err, errno, path);
    }
    if (!S_ISDIR(status.st_mode) || status.st_uid != geteuid() || (status.st_mode & 077)) {
        return tqi_error_set(err, TQ_EAUTH,
                             "runtime directory %s must be a directory of this user with mode 0700",
                             path);
    }
    snprintf(handle, sizeof(handle), "%s/handle.json", path);
    if (rundir_in_use(handle)) {
        return tqi_error_set(
            err, TQ_EEXIST,
            "runtime directory %s belongs to a running system (handle.json): name another one with "
            "--runtime-dir (for tq serve another system: --name NAME, or TQ_SYSTEM), or end that "
            "system first",
            path);
    }
    dir->made = true;
    return rundir_make_token(dir, token, err);
}

int tqd_rundir_publish(const tqd_rundir *dir, const char *address, uint64_t owner_pid,
                       tq_error *err)
{
    const struct passwd *user = getpwuid(geteuid());
    char path[512];
    json_t *handle =
        json_pack("{s:s, s:s, s:I, s:I, s:s, s:s, s:f, s:s}", "address", address, "token_file",
                  dir->token_file, "pid", (json_int_t)getpid(), "owner_pid", (json_int_t)owner_pid,
                  "name", dir->name, "user", user ? user->pw_name : "", "created",
                  (double)tqi_wall_us() / 1e6, "version", TQI_VERSION);
    char *text = handle ? json_dumps(handle, JSON_INDENT(2)) : NULL;
    int rc;

    json_decref(handle);
    if (!text) {
        return tqi_error_nomem(err, "handle.json");
    }
    snprintf(path, sizeof(path), "%s/handle.json", dir->path);
    rc = rundir_write(path, text, strlen(text), err);
    free(text);
    return rc;
}

/* The directory of all systems of this user goes with the last of them; any other parent is not ours. */
static void rundir_remove_base(const tqd_rundir *dir)
{
    char parent[256];
    char base[512];

    snprintf(parent, sizeof(parent), "%s", dir->path);
    if (tq_runtime_dir(base, sizeof(base), NULL) == TQ_OK && strcmp(dirname(parent), base) == 0 &&
        rmdir(base) && errno != ENOTEMPTY && errno != ENOENT && errno != EEXIST) {
        tqi_log(TQI_WARN, "tqd", "cannot remove %s: %s", base, strerror(errno));
    }
}

/* Whether the token in the directory is the one that we wrote.  If it could not be written, nobody else uses the directory. */
static bool rundir_is_ours(const tqd_rundir *dir)
{
    struct stat status;
    return dir->inode == 0 ||
           (stat(dir->token_file, &status) == 0 && status.st_dev == dir->device &&
            status.st_ino == dir->inode && rundir_changed(&status) == dir->changed_ns);
}

void tqd_rundir_withdraw(const tqd_rundir *dir)
{
    char path[512];

    if (dir->made && rundir_is_ours(dir)) {
        snprintf(path, sizeof(path), "%s/handle.json", dir->path);
        unlink(path);
    }
}

void tqd_rundir_fini(tqd_rundir *dir)
{
    char path[768];

    if (!dir->made) {
        return;
    }
    /* A client that was told of our end may have started the next system of the name already: it cleared the directory. */
    if (!rundir_is_ours(dir)) {
        dir->made = false;
        return;
    }
    /* The handle goes first, so that nobody finds a system that is half gone. */
    tqd_rundir_withdraw(dir);
    DIR *stream = opendir(dir->path);
    for (struct dirent *entry; stream && (entry = readdir(stream));) {
        snprintf(path, sizeof(path), "%s/%s", dir->path, entry->d_name);
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 && unlink(path) &&
            errno != ENOENT) {
            tqi_log(TQI_WARN, "tqd", "cannot remove %s: %s", path, strerror(errno));
        }
    }
    if (stream) {
        closedir(stream);
    }
    if (rmdir(dir->path) && errno != ENOENT) {
        tqi_log(TQI_WARN, "tqd", "cannot remove %s: %s", dir->path, strerror(errno));
    }
    rundir_remove_base(dir);
    dir->made = false;
}
