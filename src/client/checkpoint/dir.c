/*
 * dir.c - see dir.h.
 */
#include "client/checkpoint/dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"

#define DIR_DEPTH 16 /* directories held open at once while a tree is removed */
/* Where the former checkpoint is for a moment; unlike any name a user would give to a copy to keep. */
#define DIR_FORMER ".tq-former"

static int dir_errno(tq_error *err, const char *what, const char *path)
{
    int rc = errno;

    return tqi_error_set(err, TQ_EIO, "checkpoint: %s %s: %s", what, path, strerror(rc));
}

static int dir_remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st;
    (void)flag;
    (void)ftw;
    return remove(path) == 0 || errno == ENOENT ? 0 : -1; /* another writer removes it as well */
}

/* Removes a directory and everything in it; logs what could not be removed. */
static void dir_remove(const char *path)
{
    if (nftw(path, dir_remove_one, DIR_DEPTH, FTW_DEPTH | FTW_PHYS) != 0 && errno != ENOENT) {
        tqi_log(TQI_WARN, "checkpoint", "%s could not be removed: %s", path, strerror(errno));
    }
}

static char *dir_text(const char *path, const char *suffix)
{
    char *text = NULL;

    return asprintf(&text, "%s%s", path, suffix) < 0 ? NULL : text;
}

/* The path without slashes at its end. */
static char *dir_trim(const char *path)
{
    char *copy = strdup(path);
    size_t size = copy != NULL ? strlen(copy) : 0;

    while (size > 1 && copy[size - 1] == '/') {
        copy[--size] = 0;
    }
    return copy;
}

/* The directory that the path lies in. */
static char *dir_parent(const char *path)
{
    const char *slash = strrchr(path, '/');

    if (slash == NULL) {
        return strdup(".");
    }
    return slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
}

/* Brings the names in the directory that the path lies in to disk: 0, or an errno. */
static int dir_sync_names(const char *path)
{
    char *parent = dir_parent(path);
    int fd = parent != NULL ? open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    int rc = fd >= 0 && fsync(fd) == 0 ? 0 : errno;

    if (fd >= 0) {
        close(fd);
    }
    free(parent);
    return rc;
}

static int dir_sync_parent(const char *path, tq_error *err)
{
    errno = dir_sync_names(path);
    return errno == 0 ? TQ_OK : dir_errno(err, "syncing the directory of", path);
}

/* Makes a directory, if it is not there. Its name is then on disk, even if somebody else made it, and was killed before
 * it was; but one that was always there may lie in a directory that this user cannot open. */
static int dir_make_one(const char *path, tq_error *err)
{
    bool made = mkdir(path, 0777) == 0;

    if (!made && errno != EEXIST) {
        return dir_errno(err, "making", path);
    }
    errno = dir_sync_names(path);
    return errno == EIO || (made && errno != 0) ? dir_errno(err, "syncing the directory of", path) : TQ_OK;
}

static int dir_make_parents(const char *parent, tq_error *err)
{
    char *copy = strdup(parent);
    int rc = copy != NULL ? TQ_OK : tqi_error_nomem(err, "a checkpoint");
    char *slash = copy;

    while (rc == TQ_OK && slash != NULL) {
        slash = strchr(slash + 1, '/');
        if (slash != NULL) {
            *slash = 0;
        }
        rc = dir_make_one(copy, err);
        if (slash != NULL) {
            *slash = '/';
        }
    }
    free(copy);
    return rc;
}

/* Whether a directory is a checkpoint: even a damaged one, or one made by the Python system, which has the same
 * metadata.json. */
static bool dir_is_checkpoint(const char *path)
{
    static const char start[] = "tq-checkpoint ";
    char found[sizeof(start) - 1];
    char *manifest = dir_text(path, "/MANIFEST");
    char *metadata = dir_text(path, "/metadata.json");
    FILE *file = manifest != NULL ? fopen(manifest, "re") : NULL;
    json_t *about = metadata != NULL ? json_load_file(metadata, 0, NULL) : NULL;
    bool known =
        (file != NULL && fread(found, sizeof(found), 1, file) == 1 && memcmp(found, start, sizeof(found)) == 0) ||
        json_is_boolean(json_object_get(about, "storage_saved"));

    if (file != NULL) {
        (void)fclose(file);
    }
    json_decref(about);
    free(manifest);
    free(metadata);
    return known;
}

/* Only a checkpoint, or an empty directory, may be replaced. */
static int dir_check_place(const char *path, tq_error *err)
{
    struct stat st;
    const struct dirent *entry;
    bool empty = true;
    DIR *dir;

    if (lstat(path, &st) != 0) {
        return errno == ENOENT ? TQ_OK : dir_errno(err, "looking at", path);
    }
    dir = S_ISDIR(st.st_mode) ? opendir(path) : NULL;
    if (dir == NULL) {
        return tqi_error_set(err, TQ_EEXIST, "checkpoint: %s is there and no directory", path);
    }
    while ((entry = readdir(dir))) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            empty = false;
        }
    }
    closedir(dir);
    return empty || dir_is_checkpoint(path)
               ? TQ_OK
               : tqi_error_set(err, TQ_EEXIST,
                               "checkpoint: directory %s has files that are not a checkpoint's: "
                               "name one that "
                               "is empty, new, or a checkpoint to replace",
                               path);
}

/* Puts back a former checkpoint whose successor was never placed. */
static void dir_recover(const char *path)
{
    char *old = dir_text(path, DIR_FORMER);

    if (old != NULL && access(path, F_OK) != 0 && access(old, F_OK) == 0 && rename(old, path) == 0) {
        tqi_log(TQI_WARN, "checkpoint", "%s was being replaced: the former one is back", path);
    }
    free(old);
}

/* Removes what dead writers left behind: nobody holds its lock. */
static void dir_remove_stale(const char *path, const char *parent)
{
    const char *name = strrchr(path, '/') != NULL ? strrchr(path, '/') + 1 : path;
    size_t size = strlen(name);
    DIR *dir = opendir(parent);
    const struct dirent *entry;

    while (dir != NULL && (entry = readdir(dir))) {
        char *stale = NULL;
        int fd = -1;
        if (strncmp(entry->d_name, name, size) != 0 || strncmp(entry->d_name + size, ".tmp-", 5) != 0 ||
            asprintf(&stale, "%s/%s", parent, entry->d_name) < 0) {
            continue;
        }
        fd = open(stale, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0) {
            dir_remove(stale);
        }
        if (fd >= 0) {
            close(fd);
        }
        free(stale);
    }
    if (dir != NULL) {
        closedir(dir);
    }
}

/* Makes a directory for this writer and locks it. Tries again if somebody took it for a leftover before it was locked. */
static int dir_make_temp(tqi_client_ckpt_out *out, tq_error *err)
{
    struct stat st = {0};

    for (;;) {
        free(out->temp);
        out->temp = NULL;
        if (asprintf(&out->temp, "%s.tmp-%016" PRIx64, out->path, tqi_random_id()) < 0) {
            out->temp = NULL;
            return tqi_error_nomem(err, "a checkpoint");
        }
        if (mkdir(out->temp, 0777) != 0) {
            int rc = dir_errno(err, "making", out->temp);
            free(out->temp);
            out->temp = NULL;
            return rc;
        }
        out->dir = open(out->temp, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (out->dir < 0 && errno != ENOENT) {
            return dir_errno(err, "opening", out->temp);
        }
        if (out->dir >= 0 && flock(out->dir, LOCK_EX | LOCK_NB) == 0 && fstat(out->dir, &st) == 0 && st.st_nlink > 0) {
            return TQ_OK;
        }
        if (out->dir >= 0) {
            close(out->dir);
            out->dir = -1;
        }
    }
}

int tqi_client_ckpt_dir_make(tqi_client_ckpt_out *out, const char *path, tq_error *err)
{
    char *parent;
    int rc;

    out->dir = -1;
    out->path = dir_trim(path);
    parent = out->path != NULL ? dir_parent(out->path) : NULL;
    if (parent == NULL) {
        return tqi_error_nomem(err, "a checkpoint");
    }
    rc = dir_make_parents(parent, err);
    if (rc == TQ_OK) {
        dir_recover(out->path);
        rc = dir_check_place(out->path, err);
    }
    /* What a writer has replaced that was killed then may still have the name on disk: that must not be before this. */
    rc = rc ? rc : dir_sync_parent(out->path, err);
    if (rc == TQ_OK) {
        dir_remove_stale(out->path, parent);
        rc = dir_make_temp(out, err);
    }
    free(parent);
    return rc;
}

/* Takes the checkpoint out of its place again, because nobody knows whether that is on disk. If it cannot be known of
 * the former one either, nothing is removed: after a loss of power the name may be that of any of the two. */
static void dir_unplace(tqi_client_ckpt_out *out, bool exchanged)
{
    bool back = exchanged ? renameat2(AT_FDCWD, out->temp, AT_FDCWD, out->path, RENAME_EXCHANGE) == 0
                          : rename(out->path, out->temp) == 0;

    dir_recover(out->path);
    if (!back || dir_sync_names(out->path) != 0) {
        tqi_log(TQI_WARN, "checkpoint", "%s was not saved, and %s stays there until the next one is", out->path,
                out->temp);
        free(out->temp);
        out->temp = NULL;
    }
}

/* For file systems that cannot exchange two names atomically. TQ_EAGAIN: another writer did so at the same time. */
static int dir_replace(tqi_client_ckpt_out *out, tq_error *err)
{
    char *old = dir_text(out->path, DIR_FORMER);
    int rc;

    if (old == NULL) {
        return tqi_error_nomem(err, "a checkpoint");
    }
    dir_remove(old);
    if (rename(out->path, old) != 0) {
        rc = errno == ENOENT ? TQ_EAGAIN : dir_errno(err, "moving", out->path);
    } else if (rename(out->temp, out->path) != 0) {
        rc = errno == ENOTEMPTY || errno == EEXIST ? TQ_EAGAIN : dir_errno(err, "moving", out->temp);
        dir_recover(out->path);
    } else {
        rc = dir_sync_parent(out->path, err);
        if (rc == TQ_OK) {
            dir_remove(old);
        } else {
            dir_unplace(out, false);
        }
    }
    free(old);
    return rc;
}

int tqi_client_ckpt_dir_place(tqi_client_ckpt_out *out, tq_error *err)
{
    int rc = fsync(out->dir) == 0 ? TQ_OK : dir_errno(err, "syncing", out->temp);
    bool exchanged = false;
    bool moved = false;

    while (rc == TQ_OK && !exchanged && !moved) {
        rc = dir_check_place(out->path, err);
        if (rc) {
            return rc;
        }
        exchanged = renameat2(AT_FDCWD, out->temp, AT_FDCWD, out->path, RENAME_EXCHANGE) == 0;
        if (!exchanged && errno != ENOENT) {
            rc = dir_replace(out, err);
            if (rc == TQ_EAGAIN) {
                rc = TQ_OK;
                continue;
            }
            break;
        }
        moved = !exchanged && rename(out->temp, out->path) == 0;
        /* Tries again if another writer placed its checkpoint there first. */
        if (!exchanged && !moved && errno != ENOTEMPTY && errno != EEXIST) {
            rc = dir_errno(err, "moving", out->temp);
        }
    }
    if (exchanged || moved) {
        rc = dir_sync_parent(out->path, err);
        if (rc) {
            dir_unplace(out, exchanged);
        } else if (exchanged) {
            dir_remove(out->temp); /* the former one */
        }
    }
    if (rc == TQ_OK) {
        free(out->temp);
        out->temp = NULL;
    }
    return rc;
}

void tqi_client_ckpt_dir_drop(tqi_client_ckpt_out *out)
{
    if (out->temp != NULL) {
        dir_remove(out->temp);
    }
    if (out->path != NULL && out->dir >= 0) {
        close(out->dir);
    }
    free(out->temp);
    free(out->path);
    out->temp = NULL;
    out->path = NULL;
    out->dir = -1;
}

int tqi_client_ckpt_dir_open(const char *path, int *dir, tq_error *err)
{
    char *trimmed = dir_trim(path);
    int rc;

    if (trimmed == NULL) {
        return tqi_error_nomem(err, "a checkpoint");
    }
    dir_recover(trimmed);
    *dir = open(trimmed, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    rc = *dir >= 0 ? TQ_OK : dir_errno(err, "opening", trimmed);
    free(trimmed);
    return rc;
}
