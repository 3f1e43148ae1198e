/*
 * disk_calls.c - wrapped calls on descriptors. Those of other kinds of files are handed to their functions, and real
 * descriptors to the C library. See disk_tree.h.
 */
#include "disk_tree.h"

#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/file.h>
#include <sys/uio.h>
#include <unistd.h>

int __real_open64(const char *path, int flags, ...);
int __real_openat64(int dir, const char *path, int flags, ...);
ssize_t __real_read(int fd, void *bytes, size_t size);
ssize_t __real_write(int fd, const void *bytes, size_t size);
ssize_t __real_pread64(int fd, void *bytes, size_t size, off_t offset);
ssize_t __real_pwrite64(int fd, const void *bytes, size_t size, off_t offset);
ssize_t __real_writev(int fd, const struct iovec *part, int n);
off_t __real_lseek64(int fd, off_t offset, int whence);
int __real_fsync(int fd);
int __real_fdatasync(int fd);
int __real_ftruncate64(int fd, off_t size);
int __real_fstat64(int fd, struct stat *out);
int __real_flock(int fd, int operation);

int __wrap_open64(const char *path, int flags, ...);
int __wrap_openat64(int dir, const char *path, int flags, ...);
ssize_t __wrap_read(int fd, void *bytes, size_t size);
ssize_t __wrap_write(int fd, const void *bytes, size_t size);
ssize_t __wrap_pread64(int fd, void *bytes, size_t size, off_t offset);
ssize_t __wrap_pwrite64(int fd, const void *bytes, size_t size, off_t offset);
ssize_t __wrap_writev(int fd, const struct iovec *part, int n);
off_t __wrap_lseek64(int fd, off_t offset, int whence);
int __wrap_fsync(int fd);
int __wrap_fdatasync(int fd);
int __wrap_ftruncate64(int fd, off_t size);
int __wrap_fstat64(int fd, struct stat *out);
int __wrap_flock(int fd, int operation);

/* --- opened files ------------------------------------------------------------- */

static bool disk_may_read(const disk_open *open)
{
    return (open->flags & O_ACCMODE) != O_WRONLY && !(open->flags & O_PATH);
}

static bool disk_may_write(const disk_open *open)
{
    return (open->flags & O_ACCMODE) != O_RDONLY && !(open->flags & O_PATH);
}

static void disk_unlock(disk_open *open)
{
    if (open->lock == LOCK_EX) {
        open->node->exclusive = NULL;
    } else if (open->lock == LOCK_SH) {
        open->node->shared--;
    }
    open->lock = 0;
}

static void disk_destroy(sim_file *file)
{
    disk_open *open = (disk_open *)file;

    disk_unlock(open);
    open->node->writers -= disk_may_write(open);
    disk_unref(open->node);
    sim_free(open);
}

static ssize_t disk_read_at(const disk_open *open, void *bytes, size_t size, uint64_t at)
{
    const disk_node *node = open->node;
    size_t n;

    if (!disk_may_read(open)) {
        return disk_fail(EBADF);
    }
    if (node->kind == DISK_DIR) {
        return disk_fail(EISDIR);
    }
    n = at < node->now.size ? node->now.size - at : 0;
    n = n < size ? n : size;
    if (n > 0) {
        memcpy(bytes, node->now.bytes + at, n);
    }
    return (ssize_t)n;
}

/* A full disk takes a part first, and nothing of the rest. */
static ssize_t disk_write_at(disk_open *open, const void *bytes, size_t size, uint64_t at, int error)
{
    disk_node *node = open->node;
    size_t n = size;

    if (!disk_may_write(open)) {
        return disk_fail(EBADF);
    }
    if (error == 0 && node->full) {
        node->full = false;
        error = ENOSPC;
    } else if (error == ENOSPC && size > 1 && sim_one_in(&disk_chance, 2)) {
        n = sim_between(&disk_chance, 1, size - 1);
        node->full = true;
        error = 0;
    }
    if (error) {
        return disk_fail(error);
    }
    disk_write_back(node->host);
    disk_node_write(node, at, bytes, n);
    return (ssize_t)n;
}

static ssize_t disk_read(sim_file *file, void *bytes, size_t size)
{
    disk_open *open = (disk_open *)file;
    ssize_t n = disk_read_at(open, bytes, size, open->at);

    open->at += n > 0 ? (uint64_t)n : 0;
    return n;
}

static int disk_stat(sim_file *file, struct stat *out)
{
    disk_stat_node(((disk_open *)file)->node, out);
    return 0;
}

static int disk_truncate(sim_file *file, off_t size)
{
    disk_open *open = (disk_open *)file;

    if (!disk_may_write(open) || size < 0) {
        return disk_fail(open->flags & O_PATH ? EBADF : EINVAL);
    }
    disk_write_back(open->node->host);
    disk_node_resize(open->node, (size_t)size);
    return 0;
}

static sim_file *disk_reopen(sim_file *file, int flags)
{
    return disk_open_node(((disk_open *)file)->node, flags);
}

/* Writing is not here because its faults are drawn before the file is looked up. */
const sim_file_ops disk_ops = {
    .name = "disk",
    .destroy = disk_destroy,
    .read = disk_read,
    .stat = disk_stat,
    .truncate = disk_truncate,
    .reopen = disk_reopen,
};

/* The opened file, if it is of the disk; otherwise NULL, with errno if there is none. */
static disk_open *disk_opened(int fd)
{
    sim_file *file = sim_fd_file(fd);

    return file != NULL && file->ops == &disk_ops ? (disk_open *)file : NULL;
}

/* --- open ----------------------------------------------------------------------- */

sim_file *disk_open_node(disk_node *node, int flags)
{
    bool writes = (flags & O_ACCMODE) != O_RDONLY && !(flags & O_PATH);
    disk_open *open;
    int error = 0;

    if ((flags & O_DIRECTORY) && node->kind != DISK_DIR) {
        error = ENOTDIR;
    } else if (node->kind == DISK_DIR && (writes || (flags & O_CREAT))) {
        error = EISDIR;
    } else if (node->kind == DISK_SOCKET && !(flags & O_PATH)) {
        error = ENXIO;
    }
    if (error) {
        (void)disk_fail(error);
        return NULL;
    }
    if (writes && (flags & O_TRUNC)) {
        disk_node_resize(node, 0);
    }
    if (!writes && !(flags & O_PATH)) {
        disk_may_flip(node);
    }
    open = sim_alloc(sizeof(*open));
    sim_file_init(&open->file, &disk_ops);
    open->node = node;
    open->flags = flags;
    open->file.flags = flags & ~(O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_CLOEXEC);
    node->writers += writes;
    disk_ref(node);
    return &open->file;
}

static disk_node *disk_create(disk_place *place, mode_t mode)
{
    disk_node *node;

    if (place->dir == NULL || place->dir->links == 0) {
        (void)disk_fail(ENOENT);
        return NULL;
    }
    disk_write_back(place->dir->host);
    node = disk_node_make(place->dir->host, DISK_FILE, mode & 0777);
    disk_change_names(&(disk_part){.dir = place->dir, .name = place->name, .node = node}, 1);
    disk_unref(node);
    return node;
}

static sim_file *disk_open_path(int dir, const char *path, int flags, mode_t mode, int error)
{
    disk_place place;

    if (disk_find_place(dir, path, &place) != 0) {
        return NULL;
    }
    if (place.slash && !place.dots && ((flags & O_CREAT) || (place.node != NULL && place.node->kind != DISK_DIR))) {
        (void)disk_fail(flags & O_CREAT ? EISDIR : ENOTDIR);
        return NULL;
    }
    if (place.file != NULL) {
        (void)disk_fail(ENXIO);
        return place.file->ops->reopen != NULL ? place.file->ops->reopen(place.file, flags) : NULL;
    }
    if (place.node != NULL && (flags & O_CREAT) && (flags & O_EXCL)) {
        (void)disk_fail(EEXIST);
        return NULL;
    }
    if (place.node == NULL && !(flags & O_CREAT)) {
        (void)disk_fail(ENOENT);
        return NULL;
    }
    if (error == EIO || (error != 0 && place.node == NULL)) {
        (void)disk_fail(error);
        return NULL;
    }
    if (place.node == NULL) {
        place.node = disk_create(&place, mode);
        flags &= ~O_TRUNC;
    }
    return place.node != NULL ? disk_open_node(place.node, flags) : NULL;
}

static int disk_open_at(int dir, const char *path, int flags, mode_t mode)
{
    int error;
    sim_file *file;

    if (flags & O_PATH) {
        flags &= O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC; /* the others have no meaning */
    }
    disk_point();
    error = flags & (O_PATH | O_DIRECTORY) ? 0 : disk_fault((flags & O_CREAT) != 0);
    file = disk_open_path(dir, path, flags, mode, error);
    return file != NULL ? sim_fd_open(file) : -1;
}

int __wrap_open64(const char *path, int flags, ...)
{
    mode_t mode = 0;
    va_list args;

    va_start(args, flags);
    mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
    va_end(args);
    return disk_is_path(AT_FDCWD, path) ? disk_open_at(AT_FDCWD, path, flags, mode) : __real_open64(path, flags, mode);
}

int __wrap_openat64(int dir, const char *path, int flags, ...)
{
    mode_t mode = 0;
    va_list args;

    va_start(args, flags);
    mode = flags & O_CREAT ? va_arg(args, mode_t) : 0;
    va_end(args);
    return disk_is_path(dir, path) ? disk_open_at(dir, path, flags, mode) : __real_openat64(dir, path, flags, mode);
}

/* --- reading and writing ---------------------------------------------------------- */

ssize_t __wrap_read(int fd, void *bytes, size_t size)
{
    const disk_open *open;
    sim_file *file;
    int error;

    if (!sim_fd_is(fd)) {
        return __real_read(fd, bytes, size);
    }
    disk_point();
    open = disk_opened(fd);
    error = open != NULL && open->node->kind == DISK_FILE ? disk_fault(false) : 0;
    file = sim_fd_file(fd);
    if (error || file == NULL || file->ops->read == NULL) {
        return disk_fail(error ? error : file == NULL ? EBADF : EINVAL);
    }
    return file->ops->read(file, bytes, size);
}

ssize_t __wrap_pread64(int fd, void *bytes, size_t size, off_t offset)
{
    const disk_open *open;
    int error;

    if (!sim_fd_is(fd)) {
        return __real_pread64(fd, bytes, size, offset);
    }
    disk_point();
    error = disk_fault(false);
    open = disk_opened(fd);
    if (error || open == NULL) {
        return disk_fail(error ? error : sim_fd_file(fd) != NULL ? ESPIPE : EBADF);
    }
    return disk_read_at(open, bytes, size, (uint64_t)offset);
}

ssize_t __wrap_write(int fd, const void *bytes, size_t size)
{
    disk_open *open;
    sim_file *file;
    int error;
    ssize_t n;

    if (!sim_fd_is(fd)) {
        return __real_write(fd, bytes, size);
    }
    disk_point();
    error = disk_opened(fd) != NULL ? disk_fault(true) : 0;
    file = sim_fd_file(fd);
    if (file == NULL) {
        return -1;
    }
    open = disk_opened(fd);
    if (open == NULL) {
        return file->ops->write != NULL ? file->ops->write(file, bytes, size) : disk_fail(EINVAL);
    }
    if ((open->flags & O_APPEND) && size > 0 && disk_may_write(open)) {
        open->at = open->node->now.size;
    }
    n = disk_write_at(open, bytes, size, open->at, error);
    open->at += n > 0 ? (uint64_t)n : 0;
    return n;
}

ssize_t __wrap_pwrite64(int fd, const void *bytes, size_t size, off_t offset)
{
    disk_open *open;
    int error;

    if (!sim_fd_is(fd)) {
        return __real_pwrite64(fd, bytes, size, offset);
    }
    disk_point();
    error = disk_fault(true);
    open = disk_opened(fd);
    if (open == NULL) {
        return disk_fail(sim_fd_file(fd) != NULL ? ESPIPE : EBADF);
    }
    return disk_write_at(open, bytes, size, open->flags & O_APPEND ? open->node->now.size : (uint64_t)offset, error);
}

/* Each part is a write of its own: after the first one that is cut short, no more. */
ssize_t __wrap_writev(int fd, const struct iovec *part, int n)
{
    ssize_t all = 0;

    if (!sim_fd_is(fd)) {
        return __real_writev(fd, part, n);
    }
    for (int i = 0; i < n; i++) {
        ssize_t written = __wrap_write(fd, part[i].iov_base, part[i].iov_len);
        if (written < 0) {
            return all > 0 ? all : -1;
        }
        all += written;
        if ((size_t)written < part[i].iov_len) {
            break;
        }
    }
    return all;
}

off_t __wrap_lseek64(int fd, off_t offset, int whence)
{
    disk_open *open;
    off_t to;

    if (!sim_fd_is(fd)) {
        return __real_lseek64(fd, offset, whence);
    }
    disk_point();
    open = disk_opened(fd);
    if (open == NULL || (open->flags & O_PATH)) {
        return disk_fail(open == NULL && sim_fd_file(fd) != NULL ? ESPIPE : EBADF);
    }
    to = whence == SEEK_CUR   ? (off_t)open->at + offset
         : whence == SEEK_END ? (off_t)open->node->now.size + offset
                              : offset;
    if (to < 0 || (whence != SEEK_SET && whence != SEEK_CUR && whence != SEEK_END)) {
        return disk_fail(EINVAL);
    }
    open->at = (uint64_t)to;
    return to;
}

/* --- the rest ------------------------------------------------------------------------ */

static int disk_fsync(int fd)
{
    const disk_open *open;
    int error;

    disk_point();
    open = disk_opened(fd);
    error = open != NULL && !(open->flags & O_PATH) ? disk_fault(open->node->kind == DISK_FILE) : 0;
    open = disk_opened(fd);
    if (open == NULL || (open->flags & O_PATH)) {
        return disk_fail(open == NULL && sim_fd_file(fd) != NULL ? EINVAL : EBADF);
    }
    return disk_sync(open->node, error);
}

int __wrap_fsync(int fd)
{
    return sim_fd_is(fd) ? disk_fsync(fd) : __real_fsync(fd);
}

int __wrap_fdatasync(int fd)
{
    return sim_fd_is(fd) ? disk_fsync(fd) : __real_fdatasync(fd);
}

int __wrap_ftruncate64(int fd, off_t size)
{
    sim_file *file;

    if (!sim_fd_is(fd)) {
        return __real_ftruncate64(fd, size);
    }
    disk_point();
    file = sim_fd_file(fd);
    if (file == NULL || file->ops->truncate == NULL) {
        return disk_fail(file == NULL ? EBADF : EINVAL);
    }
    return file->ops->truncate(file, size);
}

int __wrap_fstat64(int fd, struct stat *out)
{
    sim_file *file;

    if (!sim_fd_is(fd)) {
        return __real_fstat64(fd, out);
    }
    disk_point();
    file = sim_fd_file(fd);
    if (file == NULL) {
        return -1;
    }
    memset(out, 0, sizeof(*out));
    return file->ops->stat != NULL ? file->ops->stat(file, out) : 0;
}

/* 0, or an errno: EWOULDBLOCK if somebody else has it. As in the kernel, a lock is given up before it is changed. */
static int disk_lock(disk_open *open, int operation)
{
    disk_node *node = open->node;
    int how = operation & (LOCK_SH | LOCK_EX | LOCK_UN);

    if (open->flags & O_PATH) {
        return EBADF;
    }
    if (how != LOCK_SH && how != LOCK_EX && how != LOCK_UN) {
        return EINVAL;
    }
    if (how == open->lock) {
        return 0;
    }
    disk_unlock(open);
    if (how == LOCK_UN) {
        return 0;
    }
    if (node->exclusive != NULL || (how == LOCK_EX && node->shared > 0)) {
        return EWOULDBLOCK;
    }
    open->lock = how;
    node->exclusive = how == LOCK_EX ? open : NULL;
    node->shared += how == LOCK_SH;
    return 0;
}

int __wrap_flock(int fd, int operation)
{
    disk_open *open;
    int error;

    if (!sim_fd_is(fd)) {
        return __real_flock(fd, operation);
    }
    for (;;) {
        disk_point();
        open = disk_opened(fd);
        error = open != NULL ? disk_lock(open, operation) : EBADF;
        if (error != EWOULDBLOCK || (operation & LOCK_NB) || sim_self == NULL) {
            return error ? disk_fail(error) : 0;
        }
        sim_pass(SIM_MS);
    }
}
