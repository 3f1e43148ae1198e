/*
 * shared.c - shared memory: memfds and the memory behind them (shared.h).
 *
 * All of it lies in one sparse file of the real system, mapped once. Memory is taken from the lowest free address, so
 * that addresses are the same in every run, and stays with the program between the seeds: making a page is slow.
 */
#include "shared.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "memory.h"

#define SHARED_OFFSET (UINT64_C(128) << 30) /* from the base of the memory of processes */
#define SHARED_HUGE   (UINT64_C(2) << 20)
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

int __real_memfd_create(const char *name, unsigned flags);
int __wrap_memfd_create(const char *name, unsigned flags);
void *__real_mmap64(void *at, size_t size, int prot, int flags, int fd, off_t offset);
int __wrap_fallocate64(int fd, int mode, off_t offset, off_t size);
int __real_fallocate64(int fd, int mode, off_t offset, off_t size);

typedef struct {
    shared_memory *memory; /* NULL: not sized yet */
    uint64_t size;         /* in bytes */
    int seals;
    uint32_t refs; /* openings */
} shared_inode;

typedef struct {
    sim_file file;
    shared_inode *inode;
} shared_opening;

shared_window shared_window_of_memory, shared_window_of_copies;
int shared_backing = -1;
static pid_t shared_owner; /* the real process that made the backing: a child must not share it */

static const sim_file_ops shared_ops;

/* --- addresses ------------------------------------------------------------- */

static _Noreturn void shared_fail(const char *what)
{
    fprintf(stderr, "sim: %s: %s\n", what, strerror(errno));
    exit(2);
}

static void shared_begin(void)
{
    pid_t pid = gettid();
    uint64_t base = sim_memory_base + SHARED_OFFSET;

    if (shared_owner == pid) {
        return;
    }
    if (shared_owner == 0) {
        shared_window_of_memory.base = memory_region(base, SHARED_BYTES);
        shared_window_of_copies.base = memory_region(base + SHARED_BYTES, SHARED_BYTES);
    }
    shared_owner = pid;
    shared_backing = __real_memfd_create("sim", MFD_CLOEXEC);
    if (shared_backing < 0 || ftruncate(shared_backing, (off_t)SHARED_BYTES) != 0 ||
        __real_mmap64(shared_window_of_memory.base, SHARED_BYTES, PROT_READ | PROT_WRITE,
                      MAP_SHARED | MAP_FIXED | MAP_NORESERVE, shared_backing, 0) == MAP_FAILED) {
        shared_fail("shared memory");
    }
    shared_window_of_memory.ever = 0;
}

uint8_t *shared_window_take(shared_window *window, uint64_t size, uint64_t align)
{
    uint64_t units = (size + SHARED_UNIT - 1) / SHARED_UNIT, step = align > SHARED_UNIT ? align / SHARED_UNIT : 1;
    uint64_t run = 0;

    for (uint64_t first = 0; first + units <= SHARED_UNITS; first = (first + run + step) / step * step) {
        for (run = 0; run < units && !window->taken[first + run]; run++) {
        }
        if (run == units) {
            memset(window->taken + first, 1, units);
            window->ever = window->ever > first + units ? window->ever : (uint32_t)(first + units);
            return window->base + first * SHARED_UNIT;
        }
    }
    return NULL;
}

void shared_window_give(shared_window *window, const uint8_t *at, uint64_t size)
{
    uint64_t first = (uint64_t)(at - window->base) / SHARED_UNIT;

    memset(window->taken + first, 0, (size + SHARED_UNIT - 1) / SHARED_UNIT);
}

/* --- memory ------------------------------------------------------------------ */

shared_memory *shared_memory_make(uint64_t size)
{
    shared_memory *memory;
    uint8_t *at;

    shared_begin();
    uint8_t *fresh = shared_window_of_memory.base + shared_window_of_memory.ever * SHARED_UNIT;
    size = (size + SHARED_PAGE - 1) / SHARED_PAGE * SHARED_PAGE;
    /* As an arena wants it, which would otherwise try other addresses until it has the alignment. */
    at = shared_window_take(&shared_window_of_memory, size, size >= SHARED_HUGE ? SHARED_HUGE : SHARED_UNIT);
    if (at == NULL) {
        return NULL;
    }
    if (at < fresh) {
        memset(at, 0, fresh - at < (ptrdiff_t)size ? (size_t)(fresh - at) : size);
    }
    memory = sim_alloc(sizeof(*memory));
    *memory = (shared_memory){.refs = 1, .size = size, .at = at, .there = sim_alloc(size / SHARED_PAGE)};
    return memory;
}

void shared_memory_ref(shared_memory *memory)
{
    memory->refs++;
}

void shared_memory_unref(shared_memory *memory)
{
    if (--memory->refs > 0) {
        return;
    }
    shared_window_give(&shared_window_of_memory, memory->at, memory->size);
    sim_free(memory->there);
    sim_free(memory);
}

void shared_memory_populate(shared_memory *memory, uint64_t offset, uint64_t size)
{
    for (uint64_t i = offset / SHARED_PAGE; i < (offset + size + SHARED_PAGE - 1) / SHARED_PAGE; i++) {
        memory->pages_there += !memory->there[i];
        memory->there[i] = 1;
    }
}

void shared_memory_punch(shared_memory *memory, uint64_t offset, uint64_t size)
{
    memset(memory->at + offset, 0, size);
    for (uint64_t i = offset / SHARED_PAGE; i < (offset + size) / SHARED_PAGE; i++) {
        memory->pages_there -= memory->there[i];
        memory->there[i] = 0;
    }
}

static bool shared_window_free(const shared_window *window)
{
    for (uint32_t i = 0; i < window->ever; i++) {
        if (window->taken[i]) {
            return false;
        }
    }
    return true;
}

void sim_memory_start(void)
{
    sim_check(shared_window_free(&shared_window_of_memory) && shared_window_free(&shared_window_of_copies), "simulator",
              "shared memory of an earlier seed was not freed");
    shared_copy_start();
}

/* --- memfds ------------------------------------------------------------------ */

static shared_opening *shared_opening_make(shared_inode *inode, int flags)
{
    shared_opening *opening = sim_alloc(sizeof(*opening));

    sim_file_init(&opening->file, &shared_ops);
    opening->file.flags = flags;
    opening->inode = inode;
    inode->refs++;
    return opening;
}

int __wrap_memfd_create(const char *name, unsigned flags)
{
    shared_inode *inode;

    if (sim_self == NULL) {
        return __real_memfd_create(name, flags);
    }
    sim_point();
    inode = sim_alloc(sizeof(*inode));
    inode->seals = flags & MFD_ALLOW_SEALING ? 0 : F_SEAL_SEAL;
    return sim_fd_open(&shared_opening_make(inode, O_RDWR)->file);
}

static void shared_destroy(sim_file *file)
{
    shared_opening *opening = (shared_opening *)file;
    shared_inode *inode = opening->inode;

    sim_free(opening);
    if (--inode->refs > 0) {
        return;
    }
    if (inode->memory != NULL) {
        shared_memory_unref(inode->memory);
    }
    sim_free(inode);
}

static int shared_stat(sim_file *file, struct stat *out)
{
    const shared_inode *inode = ((shared_opening *)file)->inode;

    memset(out, 0, sizeof(*out));
    out->st_mode = S_IFREG | 0777;
    out->st_nlink = 1;
    out->st_uid = SIM_USER;
    out->st_size = (off_t)inode->size;
    out->st_blksize = SHARED_PAGE;
    out->st_blocks = inode->memory != NULL ? (blkcnt_t)(inode->memory->pages_there * (SHARED_PAGE / 512)) : 0;
    return 0;
}

static int shared_truncate(sim_file *file, off_t size)
{
    shared_inode *inode = ((shared_opening *)file)->inode;

    if (size < 0 || (file->flags & O_ACCMODE) == O_RDONLY) {
        errno = EINVAL;
        return -1;
    }
    if (((uint64_t)size < inode->size && (inode->seals & F_SEAL_SHRINK)) ||
        ((uint64_t)size > inode->size && (inode->seals & F_SEAL_GROW))) {
        errno = EPERM;
        return -1;
    }
    sim_check(inode->memory == NULL, "simulator", "a memfd is sized twice");
    inode->memory = memory_fails() ? NULL : shared_memory_make((uint64_t)size);
    if (inode->memory == NULL) {
        errno = ENOMEM;
        return -1;
    }
    inode->size = (uint64_t)size;
    return 0;
}

/* A second opening, through /proc. */
static sim_file *shared_reopen(sim_file *file, int flags)
{
    shared_inode *inode = ((shared_opening *)file)->inode;

    if ((flags & O_ACCMODE) != O_RDONLY && (inode->seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE))) {
        errno = EPERM;
        return NULL;
    }
    return &shared_opening_make(inode, flags & O_ACCMODE)->file;
}

static int shared_control(sim_file *file, int command, long argument)
{
    shared_inode *inode = ((shared_opening *)file)->inode;

    switch (command) {
    case F_GET_SEALS:
        return inode->seals;
    case F_ADD_SEALS:
        if ((inode->seals & F_SEAL_SEAL) || (file->flags & O_ACCMODE) == O_RDONLY) {
            errno = EPERM;
            return -1;
        }
        inode->seals |= (int)argument;
        return 0;
    default:
        errno = EINVAL;
        return -1;
    }
}

static const sim_file_ops shared_ops = {
    .name = "memfd",
    .destroy = shared_destroy,
    .stat = shared_stat,
    .truncate = shared_truncate,
    .reopen = shared_reopen,
    .control = shared_control,
};

/* The opening behind a descriptor; NULL with errno. */
static shared_opening *shared_opening_of(int fd)
{
    return (shared_opening *)sim_fd_file_of(fd, &shared_ops, ENODEV);
}

shared_memory *shared_memory_of(int fd, bool *writable)
{
    shared_opening *opening = shared_opening_of(fd);

    if (opening == NULL) {
        return NULL;
    }
    *writable = (opening->file.flags & O_ACCMODE) != O_RDONLY &&
                !(opening->inode->seals & (F_SEAL_WRITE | F_SEAL_FUTURE_WRITE));
    if (opening->inode->memory == NULL) {
        errno = EINVAL;
    }
    return opening->inode->memory;
}

int __wrap_fallocate64(int fd, int mode, off_t offset, off_t size)
{
    shared_opening *opening;

    if (!sim_fd_is(fd)) {
        return __real_fallocate64(fd, mode, offset, size);
    }
    sim_point();
    opening = shared_opening_of(fd);
    if (opening == NULL) {
        return -1;
    }
    const shared_inode *inode = opening->inode;
    if (inode->memory == NULL || offset < 0 || size <= 0 || (uint64_t)offset + (uint64_t)size > inode->memory->size ||
        !(mode & FALLOC_FL_KEEP_SIZE)) {
        errno = EINVAL;
        return -1;
    }
    if (mode & FALLOC_FL_PUNCH_HOLE) {
        shared_memory_punch(inode->memory, (uint64_t)offset, (uint64_t)size);
    } else {
        shared_memory_populate(inode->memory, (uint64_t)offset, (uint64_t)size);
    }
    return 0;
}
