/*
 * disk_stream.c - wrapped functions of the C library, and of jansson, that open files themselves: of directories, nftw,
 * fopen, json_load_file. See disk_tree.h.
 *
 * A DIR or FILE of a virtual file is allocated by malloc, because it is memory of the process. It begins with a mark by
 * which it is told apart from a real one: a DIR of the C library begins with its descriptor, a FILE with its flags.
 */
#include "disk_tree.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

DIR *__real_opendir(const char *path);
DIR *__real_fdopendir(int fd);
struct dirent *__real_readdir64(DIR *stream);
int __real_closedir(DIR *stream);
int __real_nftw64(const char *path, __nftw_func_t fn, int depth, int flags);
FILE *__real_fopen64(const char *path, const char *mode);
size_t __real_fread(void *bytes, size_t size, size_t n, FILE *file);
int __real_fclose(FILE *file);
json_t *__real_json_load_file(const char *path, size_t flags, json_error_t *error);

DIR *__wrap_opendir(const char *path);
DIR *__wrap_fdopendir(int fd);
struct dirent *__wrap_readdir64(DIR *stream);
int __wrap_closedir(DIR *stream);
int __wrap_nftw64(const char *path, __nftw_func_t fn, int depth, int flags);
FILE *__wrap_fopen64(const char *path, const char *mode);
size_t __wrap_fread(void *bytes, size_t size, size_t n, FILE *file);
int __wrap_fclose(FILE *file);
json_t *__wrap_json_load_file(const char *path, size_t flags, json_error_t *error);

/* --- directories ------------------------------------------------------------------- */

/* Reads on after the last name it has returned, so changes meanwhile do no harm. */
typedef struct disk_stream {
    int fd; /* never one of a real stream */
    int at; /* 0: at ".", 1: at "..", 2: at the names */
    struct dirent entry;
} disk_stream;

static bool disk_is_stream(DIR *stream)
{
    int fd;

    memcpy(&fd, stream, sizeof(fd));
    return sim_fd_is(fd);
}

DIR *__wrap_fdopendir(int fd)
{
    disk_stream *stream;
    sim_file *file;

    if (!sim_fd_is(fd)) {
        return __real_fdopendir(fd);
    }
    file = sim_fd_file_of(fd, &disk_ops, ENOTDIR);
    if (file == NULL) {
        return NULL;
    }
    if (((disk_open *)file)->node->kind != DISK_DIR) {
        (void)disk_fail(ENOTDIR);
        return NULL;
    }
    stream = calloc(1, sizeof(*stream));
    if (stream != NULL) {
        stream->fd = fd;
    }
    return (DIR *)stream;
}

DIR *__wrap_opendir(const char *path)
{
    DIR *stream;
    int fd;
    int error;

    if (!disk_is_path(AT_FDCWD, path)) {
        return __real_opendir(path);
    }
    fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK);
    stream = fd >= 0 ? fdopendir(fd) : NULL;
    if (fd >= 0 && stream == NULL) {
        error = errno;
        close(fd);
        errno = error;
    }
    return stream;
}

/* The first name after that one; NULL: none. */
static const disk_name *disk_name_after(const disk_node *dir, const char *name)
{
    size_t at = disk_lower(&dir->names, name);

    at += at < dir->names.n && strcmp(dir->names.name[at].name, name) == 0;
    return at < dir->names.n ? &dir->names.name[at] : NULL;
}

static struct dirent *disk_entry(disk_stream *stream, const char *name, const disk_node *node)
{
    static const unsigned char types[] = {DT_REG, DT_DIR, DT_SOCK};

    stream->entry.d_ino = node->number;
    stream->entry.d_type = types[node->kind];
    stream->entry.d_reclen = sizeof(stream->entry);
    memcpy(stream->entry.d_name, name, strlen(name) + 1);
    return &stream->entry;
}

struct dirent *__wrap_readdir64(DIR *dir)
{
    disk_stream *stream = (disk_stream *)dir;
    const disk_node *node;
    const disk_name *next;
    const sim_file *file;

    if (!disk_is_stream(dir)) {
        return __real_readdir64(dir);
    }
    disk_point();
    file = sim_fd_file_of(stream->fd, &disk_ops, EBADF);
    if (file == NULL) {
        return NULL;
    }
    node = ((const disk_open *)file)->node;
    if (stream->at < 2) {
        stream->at++;
        return disk_entry(stream, stream->at == 1 ? "." : "..", node);
    }
    next = disk_name_after(node, stream->at++ == 2 ? "" : stream->entry.d_name);
    return next != NULL ? disk_entry(stream, next->name, next->node) : NULL;
}

int __wrap_closedir(DIR *dir)
{
    int fd;

    if (!disk_is_stream(dir)) {
        return __real_closedir(dir);
    }
    fd = ((disk_stream *)dir)->fd;
    free(dir);
    return close(fd);
}

/* --- nftw --------------------------------------------------------------------------- */

typedef struct disk_walk {
    __nftw_func_t fn;
    int flags;
    struct FTW ftw;
    char path[DISK_PATH_MAX]; /* of what is being visited */
} disk_walk;

static int disk_visit(disk_walk *walk, int what)
{
    struct stat st;

    if (lstat(walk->path, &st) != 0) {
        memset(&st, 0, sizeof(st));
        what = FTW_NS;
    }
    return walk->fn(walk->path, &st, what, &walk->ftw);
}

static int disk_walk_on(disk_walk *walk);

/* What is in the directory; it may be removed meanwhile. */
static int disk_walk_names(disk_walk *walk)
{
    size_t size = strlen(walk->path);
    char last[DISK_NAME_MAX + 1] = "";
    int base = walk->ftw.base;
    int rc = 0;

    while (rc == 0) {
        disk_place place;
        const disk_name *next = NULL;
        walk->path[size] = 0;
        if (disk_find(AT_FDCWD, walk->path, &place) == 0 && place.node != NULL && place.node->kind == DISK_DIR) {
            next = disk_name_after(place.node, last);
        }
        if (next == NULL) {
            break;
        }
        if (size + 1 + strlen(next->name) >= sizeof(walk->path)) {
            rc = disk_fail(ENAMETOOLONG);
            break;
        }
        memcpy(last, next->name, strlen(next->name) + 1);
        walk->path[size] = '/';
        memcpy(walk->path + size + 1, last, strlen(last) + 1);
        walk->ftw.base = (int)size + 1;
        walk->ftw.level++;
        rc = disk_walk_on(walk);
        walk->ftw.level--;
    }
    walk->path[size] = 0;
    walk->ftw.base = base;
    return rc;
}

static int disk_walk_on(disk_walk *walk)
{
    disk_place place;
    int rc = 0;

    if (disk_find(AT_FDCWD, walk->path, &place) != 0 || place.node == NULL) {
        return disk_visit(walk, FTW_NS); /* removed meanwhile */
    }
    if (place.node->kind != DISK_DIR) {
        return disk_visit(walk, FTW_F);
    }
    rc = walk->flags & FTW_DEPTH ? 0 : disk_visit(walk, FTW_D);
    rc = rc ? rc : disk_walk_names(walk);
    return rc || !(walk->flags & FTW_DEPTH) ? rc : disk_visit(walk, FTW_DP);
}

int __wrap_nftw64(const char *path, __nftw_func_t fn, int depth, int flags)
{
    const char *slash;
    struct stat st;
    disk_walk *walk;
    int rc;

    if (!disk_is_path(AT_FDCWD, path)) {
        return __real_nftw64(path, fn, depth, flags);
    }
    if (lstat(path, &st) != 0) {
        return -1;
    }
    walk = calloc(1, sizeof(*walk));
    if (walk == NULL) {
        return -1;
    }
    slash = strrchr(path, '/');
    walk->fn = fn;
    walk->flags = flags;
    walk->ftw.base = slash != NULL ? (int)(slash - path) + 1 : 0;
    memcpy(walk->path, path, strlen(path) + 1);
    rc = disk_walk_on(walk);
    free(walk);
    return rc;
}

/* --- files --------------------------------------------------------------------------- */

#define DISK_MARK 0x4b534944u /* the flags of a real FILE begin with 0xfbad */

typedef struct disk_reader {
    uint32_t mark;
    int fd;
} disk_reader;

static bool disk_is_reader(FILE *file)
{
    uint32_t mark;

    memcpy(&mark, file, sizeof(mark));
    return mark == DISK_MARK;
}

/* For reading only: the product writes through descriptors. */
FILE *__wrap_fopen64(const char *path, const char *mode)
{
    disk_reader *reader;
    int fd;

    if (!disk_is_path(AT_FDCWD, path)) {
        return __real_fopen64(path, mode);
    }
    if (mode[0] != 'r' || strchr(mode, '+') != NULL) {
        (void)disk_fail(EINVAL);
        return NULL;
    }
    fd = open(path, O_RDONLY | O_CLOEXEC);
    reader = fd >= 0 ? malloc(sizeof(*reader)) : NULL;
    if (reader != NULL) {
        reader->mark = DISK_MARK;
        reader->fd = fd;
    } else if (fd >= 0) {
        close(fd);
        (void)disk_fail(ENOMEM);
    }
    return (FILE *)reader;
}

size_t __wrap_fread(void *bytes, size_t size, size_t n, FILE *file)
{
    size_t done = 0;
    ssize_t got = 1;

    if (!disk_is_reader(file)) {
        return __real_fread(bytes, size, n, file);
    }
    while (done < size * n && got > 0) {
        got = read(((disk_reader *)file)->fd, (uint8_t *)bytes + done, size * n - done);
        done += got > 0 ? (size_t)got : 0;
    }
    return size > 0 ? done / size : 0;
}

int __wrap_fclose(FILE *file)
{
    int fd;

    if (!disk_is_reader(file)) {
        return __real_fclose(file);
    }
    fd = ((disk_reader *)file)->fd;
    free(file);
    return close(fd);
}

/* jansson is a shared library, of which the calls are not replaced. */
json_t *__wrap_json_load_file(const char *path, size_t flags, json_error_t *error)
{
    struct stat st;
    json_t *json = NULL;
    char *text = NULL;
    FILE *file;

    if (!disk_is_path(AT_FDCWD, path)) {
        return __real_json_load_file(path, flags, error);
    }
    file = fopen(path, "rb");
    if (file == NULL) {
        return NULL;
    }
    if (stat(path, &st) == 0 && (text = malloc((size_t)st.st_size + 1)) != NULL) {
        json = json_loadb(text, fread(text, 1, (size_t)st.st_size, file), flags, error);
    }
    free(text);
    (void)fclose(file);
    return json;
}
