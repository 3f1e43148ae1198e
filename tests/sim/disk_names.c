/*
 * disk_names.c - wrapped calls on names, and the paths of unix sockets. The order of the checks is the kernel's, so the
 * errnos are its, too. See disk_tree.h.
 */
#include "disk_tree.h"

#include "disk.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

int __real_mkdir(const char *path, mode_t mode);
int __real_mkdirat(int dir, const char *path, mode_t mode);
int __real_rename(const char *from, const char *to);
int __real_renameat(int from_dir, const char *from, int to_dir, const char *to);
int __real_renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags);
int __real_unlink(const char *path);
int __real_unlinkat(int dir, const char *path, int flags);
int __real_rmdir(const char *path);
int __real_remove(const char *path);
int __real_access(const char *path, int mode);
int __real_stat64(const char *path, struct stat *out);
int __real_lstat64(const char *path, struct stat *out);
int __real_fstatat64(int dir, const char *path, struct stat *out, int flags);

int __wrap_mkdir(const char *path, mode_t mode);
int __wrap_mkdirat(int dir, const char *path, mode_t mode);
int __wrap_rename(const char *from, const char *to);
int __wrap_renameat(int from_dir, const char *from, int to_dir, const char *to);
int __wrap_renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags);
int __wrap_unlink(const char *path);
int __wrap_unlinkat(int dir, const char *path, int flags);
int __wrap_rmdir(const char *path);
int __wrap_remove(const char *path);
int __wrap_access(const char *path, int mode);
int __wrap_stat64(const char *path, struct stat *out);
int __wrap_lstat64(const char *path, struct stat *out);
int __wrap_fstatat64(int dir, const char *path, struct stat *out, int flags);

/* --- making and removing ---------------------------------------------------------- */

static int disk_mkdir(int dir, const char *path, mode_t mode)
{
    disk_place place;
    disk_node *node;
    int error;

    disk_point();
    error = disk_fault(true);
    if (disk_find_place(dir, path, &place) != 0) {
        return -1;
    }
    if (place.node != NULL || place.file != NULL || place.dir == NULL) {
        return disk_fail(EEXIST);
    }
    if (place.dir->links == 0) {
        return disk_fail(ENOENT);
    }
    if (error) {
        return disk_fail(error);
    }
    disk_write_back(place.dir->host);
    node = disk_node_make(place.dir->host, DISK_DIR, mode & 0777);
    disk_change_names(&(disk_part){.dir = place.dir, .name = place.name, .node = node}, 1);
    disk_unref(node);
    return 0;
}

/* 0, or why the last component of a path names nothing that can be removed. */
static int disk_unlink_refused(const disk_place *place, bool is_rmdir)
{
    if (place->dir == NULL) {
        return !is_rmdir ? EISDIR : !place->dots ? EBUSY : strcmp(place->name, ".") == 0 ? EINVAL : ENOTEMPTY;
    }
    if (place->node == NULL) {
        return ENOENT;
    }
    if (is_rmdir) {
        return place->node->kind != DISK_DIR ? ENOTDIR : place->node->names.n > 0 ? ENOTEMPTY : 0;
    }
    return place->node->kind == DISK_DIR ? EISDIR : 0;
}

static int disk_unlink(int dir, const char *path, bool is_rmdir)
{
    disk_place place;
    int error;

    disk_point();
    if (disk_find(dir, path, &place) != 0) {
        return -1;
    }
    error = disk_unlink_refused(&place, is_rmdir);
    if (error) {
        return disk_fail(error);
    }
    /* A socket's name is removed in a loop, where a slow disk would hold up everything. */
    error = place.node->kind != DISK_SOCKET ? disk_fault(false) : 0;
    if (disk_find(dir, path, &place) != 0) {
        return -1;
    }
    error = error ? error : disk_unlink_refused(&place, is_rmdir);
    if (error) {
        return disk_fail(error);
    }
    disk_write_back(place.dir->host);
    disk_change_names(&(disk_part){.dir = place.dir, .name = place.name}, 1);
    return 0;
}

/* --- renaming ------------------------------------------------------------------------ */

static bool disk_is_above(const disk_node *above, const disk_node *node)
{
    while (node != above && node->parent != NULL && node->parent != node) {
        node = node->parent;
    }
    return node == above;
}

/* Whether what is at the new place may be replaced: 0 or an errno. */
static int disk_may_replace(const disk_node *node, const disk_node *former)
{
    if (node->kind == DISK_DIR && former->kind != DISK_DIR) {
        return ENOTDIR;
    }
    if (node->kind != DISK_DIR && former->kind == DISK_DIR) {
        return EISDIR;
    }
    return former->kind == DISK_DIR && former->names.n > 0 ? ENOTEMPTY : 0;
}

static int disk_rename_check(const disk_place *from, const disk_place *to, unsigned flags)
{
    bool exchange = flags & RENAME_EXCHANGE;

    if (from->dir == NULL || to->dir == NULL) {
        return (flags & RENAME_NOREPLACE) && from->dir != NULL ? EEXIST : EBUSY;
    }
    if (from->dir->host != to->dir->host) {
        return EXDEV;
    }
    if (from->node == NULL || to->dir->links == 0 || (exchange && to->node == NULL)) {
        return ENOENT;
    }
    if ((flags & RENAME_NOREPLACE) && to->node != NULL) {
        return EEXIST;
    }
    if (exchange && to->node->kind != DISK_DIR && to->slash) {
        return ENOTDIR;
    }
    if (from->node->kind != DISK_DIR && (from->slash || (!exchange && to->slash))) {
        return ENOTDIR;
    }
    if (disk_is_above(from->node, to->dir)) {
        return EINVAL;
    }
    if (to->node != NULL && disk_is_above(to->node, from->dir)) {
        return exchange ? EINVAL : ENOTEMPTY;
    }
    if (exchange && from->dir->host->no_exchange) {
        return EINVAL;
    }
    return to->node != NULL && to->node != from->node && !exchange ? disk_may_replace(from->node, to->node) : 0;
}

static int disk_rename(int from_dir, const char *from_path, int to_dir, const char *to_path, unsigned flags)
{
    disk_place from, to;
    disk_part part[2];
    int error;
    int fault;

    disk_point();
    if (flags != 0 && flags != RENAME_NOREPLACE && flags != RENAME_EXCHANGE) {
        return disk_fail(EINVAL);
    }
    if (!disk_is_path(from_dir, from_path) || !disk_is_path(to_dir, to_path)) {
        return disk_fail(EXDEV);
    }
    fault = disk_fault(true);
    if (disk_find_place(from_dir, from_path, &from) != 0 || disk_find_place(to_dir, to_path, &to) != 0) {
        return -1;
    }
    error = disk_rename_check(&from, &to, flags);
    error = error ? error : fault;
    if (error) {
        return disk_fail(error);
    }
    if (from.node == to.node) {
        return 0;
    }
    disk_write_back(from.dir->host);
    part[0] = (disk_part){.dir = from.dir, .name = from.name, .node = flags & RENAME_EXCHANGE ? to.node : NULL};
    part[1] = (disk_part){.dir = to.dir, .name = to.name, .node = from.node};
    disk_change_names(part, 2);
    return 0;
}

/* --- looking ---------------------------------------------------------------------------- */

void disk_stat_node(const disk_node *node, struct stat *out)
{
    static const mode_t kinds[] = {S_IFREG, S_IFDIR, S_IFSOCK};

    memset(out, 0, sizeof(*out));
    out->st_dev = 256 + node->host->host;
    out->st_ino = node->number;
    out->st_mode = kinds[node->kind] | node->mode;
    out->st_nlink = node->links;
    out->st_uid = SIM_USER;
    out->st_gid = SIM_USER;
    out->st_blksize = 4096;
    if (node->kind == DISK_FILE) {
        out->st_size = (off_t)node->now.size;
        out->st_blocks = (blkcnt_t)((node->now.size + DISK_SECTOR - 1) / DISK_SECTOR);
    } else if (node->kind == DISK_DIR && node->links > 0) {
        out->st_nlink = 2;
        for (size_t i = 0; i < node->names.n; i++) {
            out->st_nlink += node->names.name[i].node->kind == DISK_DIR;
        }
    }
}

static int disk_stat_path(int dir, const char *path, struct stat *out, int flags)
{
    disk_place place;

    disk_point();
    if (path[0] == 0 && (flags & AT_EMPTY_PATH)) {
        return fstat(dir, out);
    }
    if (disk_find(dir, path, &place) != 0) {
        return -1;
    }
    if (place.file != NULL) {
        memset(out, 0, sizeof(*out));
        return place.file->ops->stat != NULL ? place.file->ops->stat(place.file, out) : 0;
    }
    if (place.node == NULL) {
        return disk_fail(ENOENT);
    }
    disk_stat_node(place.node, out);
    return 0;
}

static int disk_access(const char *path)
{
    disk_place place;

    disk_point();
    if (disk_find(AT_FDCWD, path, &place) != 0) {
        return -1;
    }
    return place.node != NULL || place.file != NULL ? 0 : disk_fail(ENOENT);
}

/* --- sockets ------------------------------------------------------------------------------- */

int sim_disk_socket_bind(const char *path, void *listener)
{
    disk_place place;
    disk_node *node;

    if (!disk_is_path(AT_FDCWD, path)) {
        return disk_fail(EACCES); /* outside of the simulated tree */
    }
    if (disk_find_place(AT_FDCWD, path, &place) != 0) {
        return -1;
    }
    if (place.node != NULL || place.dir == NULL) {
        return disk_fail(EADDRINUSE);
    }
    if (place.slash || place.dir->links == 0) {
        return disk_fail(ENOENT);
    }
    disk_write_back(place.dir->host);
    node = disk_node_make(place.dir->host, DISK_SOCKET, 0777);
    node->socket = listener;
    disk_change_names(&(disk_part){.dir = place.dir, .name = place.name, .node = node}, 1);
    disk_unref(node);
    return 0;
}

void *sim_disk_socket_find(const char *path)
{
    const disk_node *node;

    if (!disk_is_path(AT_FDCWD, path)) {
        (void)disk_fail(ENOENT);
        return NULL;
    }
    node = disk_find_node(AT_FDCWD, path);
    if (node != NULL && node->socket == NULL) {
        (void)disk_fail(ECONNREFUSED);
    }
    return node != NULL ? node->socket : NULL;
}

/* --- wrappers ------------------------------------------------------------------------------ */

int __wrap_mkdir(const char *path, mode_t mode)
{
    return disk_is_path(AT_FDCWD, path) ? disk_mkdir(AT_FDCWD, path, mode) : __real_mkdir(path, mode);
}

int __wrap_mkdirat(int dir, const char *path, mode_t mode)
{
    return disk_is_path(dir, path) ? disk_mkdir(dir, path, mode) : __real_mkdirat(dir, path, mode);
}

int __wrap_unlink(const char *path)
{
    return disk_is_path(AT_FDCWD, path) ? disk_unlink(AT_FDCWD, path, false) : __real_unlink(path);
}

int __wrap_rmdir(const char *path)
{
    return disk_is_path(AT_FDCWD, path) ? disk_unlink(AT_FDCWD, path, true) : __real_rmdir(path);
}

int __wrap_unlinkat(int dir, const char *path, int flags)
{
    return disk_is_path(dir, path) ? disk_unlink(dir, path, flags & AT_REMOVEDIR) : __real_unlinkat(dir, path, flags);
}

int __wrap_remove(const char *path)
{
    if (!disk_is_path(AT_FDCWD, path)) {
        return __real_remove(path);
    }
    return disk_unlink(AT_FDCWD, path, false) == 0 ? 0 : errno == EISDIR ? disk_unlink(AT_FDCWD, path, true) : -1;
}

int __wrap_renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags)
{
    return disk_is_path(from_dir, from) || disk_is_path(to_dir, to)
               ? disk_rename(from_dir, from, to_dir, to, flags)
               : __real_renameat2(from_dir, from, to_dir, to, flags);
}

int __wrap_renameat(int from_dir, const char *from, int to_dir, const char *to)
{
    return disk_is_path(from_dir, from) || disk_is_path(to_dir, to) ? disk_rename(from_dir, from, to_dir, to, 0)
                                                                    : __real_renameat(from_dir, from, to_dir, to);
}

int __wrap_rename(const char *from, const char *to)
{
    return disk_is_path(AT_FDCWD, from) || disk_is_path(AT_FDCWD, to) ? disk_rename(AT_FDCWD, from, AT_FDCWD, to, 0)
                                                                      : __real_rename(from, to);
}

/* There are no permissions. */
int __wrap_access(const char *path, int mode)
{
    return disk_is_path(AT_FDCWD, path) ? disk_access(path) : __real_access(path, mode);
}

int __wrap_stat64(const char *path, struct stat *out)
{
    return disk_is_path(AT_FDCWD, path) ? disk_stat_path(AT_FDCWD, path, out, 0) : __real_stat64(path, out);
}

int __wrap_lstat64(const char *path, struct stat *out)
{
    return disk_is_path(AT_FDCWD, path) ? disk_stat_path(AT_FDCWD, path, out, 0) : __real_lstat64(path, out);
}

int __wrap_fstatat64(int dir, const char *path, struct stat *out, int flags)
{
    return disk_is_path(dir, path) ? disk_stat_path(dir, path, out, flags) : __real_fstatat64(dir, path, out, flags);
}
