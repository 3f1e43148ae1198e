/*
 * arena.c - the arena's memfd: sealed, sparse, mapped once (see arena.h).
 *
 * Relies on Linux memfds: sealing against shrinking is what lets clients map the arena without fear of SIGBUS, and
 * sealing against growing is what keeps a client that has the descriptor from enlarging it. Without memfds the memory
 * is anonymous and not shared.
 */
#include "store/arena.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "store/huge.h"

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U /* Linux 6.3 */
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

/* Whether the system refuses such calls altogether, not just this one. */
static bool arena_refused(int errnum)
{
    return errnum == ENOSYS || errnum == EPERM || errnum == EACCES || errnum == EINVAL || errnum == EOPNOTSUPP;
}

static void arena_why(char why[TQI_STORE_WHY], const char *what)
{
    char reason[96];

    snprintf(why, TQI_STORE_WHY, "%s: %s", what, strerror_r(errno, reason, sizeof(reason)));
}

int tqi_store_arena_memfd(const char *name, uint64_t size, char why[TQI_STORE_WHY], tq_error *err)
{
    /* Kernels that know MFD_NOEXEC_SEAL may be set to refuse memfds without it, older ones do not know it. */
    int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL);

    if (fd < 0 && errno == EINVAL) {
        fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    }
    if (fd < 0 && arena_refused(errno)) {
        arena_why(why, "memfd_create");
        return -1;
    }
    if (fd < 0) {
        tqi_error_errno(err, errno, "memfd_create of a store");
        return -2;
    }
    if (ftruncate(fd, (off_t)size) != 0) {
        tqi_error_errno(err, errno, "sizing the memory of a store");
        close(fd);
        return -2;
    }
    /* F_SEAL_SEAL comes last and is left to the caller. */
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) != 0) {
        arena_why(why, "sealing a memfd");
        close(fd);
        return -1;
    }
    return fd;
}

int tqi_store_arena_init(tqi_store_arena *arena, uint64_t size, tq_error *err)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);

    memset(arena, 0, sizeof(*arena));
    arena->fd = -1;
    if (size == 0 || size > (UINT64_C(1) << 47)) {
        return tqi_error_set(err, TQ_EINVAL, "a store of %llu bytes is not possible", (unsigned long long)size);
    }
    size = (size + page - 1) / page * page;
    int fd = tqi_store_arena_memfd("tq-arena", size, arena->why, err);
    if (fd < -1) {
        return TQ_EIO;
    }
    if (fd >= 0 && fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL) != 0) {
        arena_why(arena->why, "sealing a memfd");
        close(fd);
        fd = -1;
    }
    void *base = tqi_store_huge_map(size, PROT_READ | PROT_WRITE, fd);
    if (base == MAP_FAILED) {
        int rc = tqi_error_errno(err, errno, "mapping a store's arena");
        if (fd >= 0) {
            close(fd);
        }
        return rc;
    }
    /* No writable mapping in a forked child. A daemon's children do not write, so a refusal is tolerated here; a client
     * that is refused it does not map. */
    if (madvise(base, size, MADV_DONTFORK) != 0 && !arena_refused(errno)) {
        int rc = tqi_error_errno(err, errno, "MADV_DONTFORK of a store's arena");
        munmap(base, size);
        if (fd >= 0) {
            close(fd);
        }
        return rc;
    }
    arena->fd = fd;
    arena->base = base;
    arena->size = size;
    arena->page = page;
    return TQ_OK;
}

void tqi_store_arena_fini(tqi_store_arena *arena)
{
    if (arena->base != NULL) {
        munmap(arena->base, arena->size);
        if (arena->fd >= 0) {
            close(arena->fd);
        }
    }
    memset(arena, 0, sizeof(*arena));
    arena->fd = -1;
}

/* Makes the pages of [offset, end), both page-aligned. */
static int arena_populate_pages(tqi_store_arena *arena, uint64_t offset, uint64_t end)
{
    int rc;

    do {
        rc = madvise(arena->base + offset, end - offset, MADV_POPULATE_WRITE);
    } while (rc != 0 && (errno == EINTR || errno == EAGAIN));
    if (rc == 0) {
        return TQ_OK;
    }
    if (errno == ENOMEM || errno == EFAULT || errno == EHWPOISON) {
        return TQ_ENOMEM;
    }
    /* An older kernel, or a sandbox. Writing into the pages could undo a writer's byte; fallocate adds the missing
     * pages to the file and leaves the others alone, so that a first touch only has to map them. */
    if (arena->fd < 0) {
        return TQ_ENOMEM; /* then nothing is warm, and each first touch makes its page */
    }
    do {
        rc = fallocate(arena->fd, FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)(end - offset));
    } while (rc != 0 && errno == EINTR);
    return rc == 0 ? TQ_OK : TQ_ENOMEM;
}

int tqi_store_arena_populate(tqi_store_arena *arena, uint64_t offset, uint64_t size)
{
    uint64_t end = offset + size;
    int rc = TQ_OK;

    offset = offset / arena->page * arena->page;
    end = (end + arena->page - 1) / arena->page * arena->page;
    end = end > arena->size ? arena->size : end;
    while (offset < end && rc == TQ_OK) {
        uint64_t next = (offset / TQI_STORE_HUGE + 1) * TQI_STORE_HUGE;
        next = next < end ? next : end;
        if (next - offset == TQI_STORE_HUGE) {
            /* One of its pages must exist, then the kernel makes the rest. */
            rc = arena_populate_pages(arena, offset, offset + arena->page);
            if (rc == TQ_OK && tqi_store_huge_collapse(arena->base + offset)) {
                offset = next;
                continue;
            }
        }
        rc = rc == TQ_OK ? arena_populate_pages(arena, offset, next) : rc;
        offset = next;
    }
    return rc;
}

int tqi_store_arena_punch(tqi_store_arena *arena, uint64_t offset, uint64_t size)
{
    uint64_t begin = (offset + arena->page - 1) / arena->page * arena->page;
    uint64_t end = (offset + size) / arena->page * arena->page;
    int rc = 0;

    if (end <= begin) {
        return TQ_OK;
    }
    if (arena->fd < 0) {
        return madvise(arena->base + begin, end - begin, MADV_DONTNEED) == 0 ? TQ_OK : TQ_EIO;
    }
    do {
        rc = fallocate(arena->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)begin, (off_t)(end - begin));
    } while (rc != 0 && errno == EINTR);
    if (rc != 0) {
        /* The same by another name, for processes that may not call fallocate. */
        rc = madvise(arena->base + begin, end - begin, MADV_REMOVE);
    }
    return rc == 0 ? TQ_OK : TQ_EIO;
}

/* For memory without a file: counts the resident pages, window by window. */
static uint64_t arena_resident_pages(const tqi_store_arena *arena)
{
    unsigned char there[TQI_STORE_HUGE / 4096];
    uint64_t pages = 0;

    for (uint64_t at = 0; at < arena->size; at += TQI_STORE_HUGE) {
        uint64_t size = arena->size - at < TQI_STORE_HUGE ? arena->size - at : TQI_STORE_HUGE;
        if (mincore(arena->base + at, size, there) != 0) {
            return 0;
        }
        for (uint64_t i = 0; i < size / arena->page; i++) {
            pages += there[i] & 1;
        }
    }
    return pages * arena->page;
}

uint64_t tqi_store_arena_resident(const tqi_store_arena *arena)
{
    struct stat st;

    if (arena->fd < 0) {
        return arena_resident_pages(arena);
    }
    return fstat(arena->fd, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}
