/*
 * rundir.c - see rundir.h.
 */
#include "daemon/rundir.h"

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/owndir.h"

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
#define RUNDIR_TRIES       100

#define RUNDIR_HANDLE_MAX  (64u << 10)

static int64_t rundir_changed(const struct stat *status)
{
    return (int64_t)status->st_ctim.tv_sec * 1000000000 + status->st_ctim.tv_nsec;
}

static int rundir_make_token(tqd_rundir *dir, tqi_net_token *token, tq_error *err)
{
    uint8_t secret[RUNDIR_TOKEN_BYTES];
    char text[TQI_NET_TOKEN_MAX + 1];

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
    int rc = tqi_owndir_write(dir->fd, "token", dir->token_file, text, token->size + 1, err);
    struct stat status;
    if (rc == TQ_OK && fstatat(dir->fd, "token", &status, AT_SYMLINK_NOFOLLOW)) {
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
 * Whether there is a handle whose daemon is alive. A killed daemon leaves its files behind, and the next one clears
 * them. The socket decides: a process number proves nothing, because the handle may be from another container, or from
 * the container in which this daemon was restarted with the same number as its predecessor.
 */
static bool rundir_in_use(const tqd_rundir *dir)
{
    char *text = NULL;
    size_t size = 0;

    if (tqi_owndir_read(dir->fd, "handle.json", "handle.json", RUNDIR_HANDLE_MAX, &text, &size, NULL)) {
        return false;
    }
    json_t *handle = json_loadb(text, size, 0, NULL);
    json_int_t pid = json_integer_value(json_object_get(handle, "pid"));
    const char *address = json_string_value(json_object_get(handle, "address"));
    bool in_use = false;

    if (address != NULL && strncmp(address, "unix:", 5) == 0) {
        char first[512];
        snprintf(first, sizeof(first), "%.*s", (int)strcspn(address, ","), address);
        in_use = tqi_net_endpoint_alive(first);
    } else if (address != NULL) {
        in_use = pid > 0 && pid != getpid() && (kill((pid_t)pid, 0) == 0 || errno == EPERM);
    }
    json_decref(handle);
    free(text);
    return in_use;
}

/* Opens the directory and its parent, which must belong to the user if it is the directory of all systems of this
 * user. */
static int rundir_open(tqd_rundir *dir, tq_error *err)
{
    char parent[sizeof(dir->path)];
    char base[512];
    int rc;

    snprintf(parent, sizeof(parent), "%s", dir->path);
    const char *above = dirname(parent);
    for (int i = 0;; i++) {
        dir->in_base = tq_runtime_dir(base, sizeof(base), NULL) == TQ_OK && strcmp(above, base) == 0;
        if (dir->in_base) {
            rc = tq_runtime_open(NULL, true, &dir->parent, err);
            if (rc) {
                return rc;
            }
        } else {
            dir->parent = open(above, O_PATH | O_DIRECTORY | O_CLOEXEC);
            if (dir->parent < 0) {
                return tqi_error_errno(err, errno, dir->path);
            }
        }
        const tqi_owndir which = {
            .at = dir->parent,
            .name = dir->last,
            .shown = dir->path,
            .remedy = "name another directory by --runtime-dir",
        };
        rc = tqi_owndir_open(&which, true, &dir->fd, err);
        struct stat status;
        /* The last system of this user has just ended and removed the directory of all systems. */
        bool gone = rc && dir->in_base && fstat(dir->parent, &status) == 0 && status.st_nlink == 0;
        if (rc) {
            close(dir->parent);
            dir->parent = -1;
        }
        if (!gone || i >= RUNDIR_TRIES) {
            return rc;
        }
    }
}

int tqd_rundir_init(tqd_rundir *dir, const char *path, const char *name, tqi_net_token *token, tq_error *err)
{
    size_t size = strlen(path);

    memset(dir, 0, sizeof(*dir));
    dir->fd = dir->parent = -1;
    /* With a trailing slash, a link there would be followed. */
    while (size > 1 && path[size - 1] == '/') {
        size--;
    }
    if (size >= sizeof(dir->path) - 1 || strlen(name) >= sizeof(dir->name)) {
        return tqi_error_set(err, TQ_ENAME, "runtime directory %s: path or system name is too long", path);
    }
    snprintf(dir->path, sizeof(dir->path), "%.*s", (int)size, path);
    snprintf(dir->name, sizeof(dir->name), "%s", name);
    const char *slash = strrchr(dir->path, '/');
    dir->last = slash != NULL && slash[1] ? slash + 1 : dir->path;
    int rc = rundir_open(dir, err);
    if (rc) {
        return rc;
    }
    if (rundir_in_use(dir)) {
        close(dir->fd);
        close(dir->parent);
        dir->fd = dir->parent = -1;
        return tqi_error_set(err, TQ_EEXIST,
                             "runtime directory %s belongs to a running system (handle.json): name another one with "
                             "--runtime-dir (for tq serve another system: --name NAME, or TQ_SYSTEM), or end that "
                             "system first",
                             path);
    }
    dir->made = true;
    tqi_owndir_clear(dir->fd);
    return rundir_make_token(dir, token, err);
}

/* Whether its path still leads to it, because others use the path. */
static bool rundir_in_place(const tqd_rundir *dir)
{
    struct stat ours;
    struct stat there;

    return fstat(dir->fd, &ours) == 0 && lstat(dir->path, &there) == 0 && ours.st_dev == there.st_dev &&
           ours.st_ino == there.st_ino;
}

int tqd_rundir_publish(const tqd_rundir *dir, const char *address, uint64_t parent_pid, const char *library,
                       const char *module, tq_error *err)
{
    const struct passwd *user = getpwuid(geteuid());
    char path[512];

    if (!rundir_in_place(dir)) {
        return tqi_error_set(err, TQ_ECONFIG,
                             "%s is not the directory any more that this system has made: somebody "
                             "has moved or replaced it; use a directory that only this user can "
                             "change",
                             dir->path);
    }
    json_t *handle =
        json_pack("{s:s, s:s, s:I, s:I, s:s, s:s, s:f, s:s, s:s*, s:s*}", "address", address, "token_file",
                  dir->token_file, "pid", (json_int_t)getpid(), "owner_pid", (json_int_t)parent_pid, "name", dir->name,
                  "user", user != NULL ? user->pw_name : "", "created", (double)tqi_wall_us() / 1e6, "version",
                  TQI_VERSION, "library", library, "module", module);
    char *text = handle != NULL ? json_dumps(handle, JSON_INDENT(2)) : NULL;
    int rc;

    json_decref(handle);
    if (text == NULL) {
        return tqi_error_nomem(err, "handle.json");
    }
    snprintf(path, sizeof(path), "%s/handle.json", dir->path);
    rc = tqi_owndir_write(dir->fd, "handle.json", path, text, strlen(text), err);
    free(text);
    return rc;
}

/* Whether the token in the directory is the one we wrote. If it could not be written, nobody else uses the directory. */
static bool rundir_is_ours(const tqd_rundir *dir)
{
    struct stat status;

    return dir->inode == 0 ||
           (fstatat(dir->fd, "token", &status, AT_SYMLINK_NOFOLLOW) == 0 && status.st_dev == dir->device &&
            status.st_ino == dir->inode && rundir_changed(&status) == dir->changed_ns);
}

static void rundir_unlink(const tqd_rundir *dir, const char *name)
{
    if (unlinkat(dir->fd, name, 0) && errno != ENOENT) {
        tqi_log(TQI_WARN, "tqd", "cannot remove %s/%s: %s", dir->path, name, strerror(errno));
    }
}

void tqd_rundir_withdraw(const tqd_rundir *dir)
{
    if (dir->made && rundir_is_ours(dir)) {
        rundir_unlink(dir, "handle.json");
    }
}

/* Removes the directory and, with the last system of this user, the directory of all systems; any other parent is not
 * ours. */
static void rundir_remove(const tqd_rundir *dir)
{
    char base[512];

    if (rundir_in_place(dir) && unlinkat(dir->parent, dir->last, AT_REMOVEDIR) && errno != ENOENT) {
        tqi_log(TQI_WARN, "tqd", "cannot remove %s: %s", dir->path, strerror(errno));
    }
    /* By its path, because its parent is not held open; a link, or a directory that is not empty, is not removed. */
    if (dir->in_base && tq_runtime_dir(base, sizeof(base), NULL) == TQ_OK && rmdir(base) && errno != ENOTEMPTY &&
        errno != ENOENT && errno != EEXIST) {
        tqi_log(TQI_WARN, "tqd", "cannot remove %s: %s", base, strerror(errno));
    }
}

void tqd_rundir_fini(tqd_rundir *dir)
{
    char name[64];

    if (!dir->made) {
        return;
    }
    dir->made = false;
    /* A client that learned of our shutdown may already have started the next system of that name, which cleared the
     * directory. */
    if (rundir_is_ours(dir)) {
        /* The handle goes first, so that nobody finds a half-removed system. */
        rundir_unlink(dir, "handle.json");
        /* A server removes its own socket; these still exist if it did not get that far. */
        rundir_unlink(dir, "controller.sock");
        for (size_t i = 0; i < dir->n_units; i++) {
            snprintf(name, sizeof(name), "unit-%zu.sock", i);
            rundir_unlink(dir, name);
        }
        rundir_unlink(dir, "redis.sock");
        rundir_unlink(dir, "token");
        rundir_remove(dir);
    }
    close(dir->fd);
    close(dir->parent);
    dir->fd = dir->parent = -1;
}
