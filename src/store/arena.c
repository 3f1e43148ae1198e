/*
 * arena.c - the arena's memfd: sealed, sparse, mapped once (see arena.h).
 *
 * Relies on Linux memfds: sealing against shrinking is what lets clients map the arena without fear of SIGBUS, and
 * sealing against growing is what keeps a client that got the descriptor from enlarging it.
 */
#include "store/arena.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "store/huge.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

int tqi_arena_init(tqi_arena *arena, uint64_t size, tq_error *err)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    void *base = MAP_FAILED;
    int code;

    memset(arena, 0, sizeof(*arena));
    arena->fd = -1;
    if (size == 0 || size > (UINT64_C(1) << 47)) {
        return tqi_error_set(err, TQ_EINVAL, "a store of %llu bytes is not possible",
                             (unsigned long long)size);
    }
    size = (size + page - 1) / page * page;
    int fd = memfd_create("tq-arena", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) {
        return tqi_error_errno(err, errno, "memfd_create of a store's arena");
    }
    if (ftruncate(fd, (off_t)size) != 0) {
        code = tqi_error_errno(err, errno, "sizing a store's arena");
        goto fail;
    }
    if (fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
        code = tqi_error_errno(err, errno, "sealing a store's arena");
        goto fail;
    }
    base = tqi_huge_map(size, PROT_READ | PROT_WRITE, fd);
    if (base == MAP_FAILED) {
        code = tqi_error_errno(err, errno, "mapping a store's arena");
        goto fail;
    }
    /* No writable mapping in a forked child: a writer must be gone when its process is. */
    if (madvise(base, size, MADV_DONTFORK) != 0) {
        code = tqi_error_errno(err, errno, "MADV_DONTFORK of a store's arena");
        goto fail;
    }
    arena->fd = fd;
    arena->base = base;
    arena->size = size;
    arena->page = page;
    return TQ_OK;

fail:
    if (base != MAP_FAILED) {
        munmap(base, size);
    }
    close(fd);
    return code;
}

void tqi_arena_fini(tqi_arena *arena)
{
    if (arena->base != NULL) {
        munmap(arena->base, arena->size);
        close(arena->fd);
    }
    memset(arena, 0, sizeof(*arena));
    arena->fd = -1;
}

/* Pages of [offset, end), both of whole pages. */
static int arena_populate_pages(tqi_arena *arena, uint64_t offset, uint64_t end)
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
    /* An older kernel.  Writing into the pages could undo a writer's byte; fallocate adds the missing pages to the file
     * and leaves the others alone, so that a first touch only has to map them. */
    do {
        rc = fallocate(arena->fd, FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)(end - offset));
    } while (rc != 0 && errno == EINTR);
    return rc == 0 ? TQ_OK : TQ_ENOMEM;
}

int tqi_arena_populate(tqi_arena *arena, uint64_t offset, uint64_t size)
{
    uint64_t end = offset + size;
    int code = TQ_OK;

    offset = offset / arena->page * arena->page;
    end = (end + arena->page - 1) / arena->page * arena->page;
    end = end > arena->size ? arena->size : end;
    while (offset < end && code == TQ_OK) {
        uint64_t next = (offset / TQI_HUGE + 1) * TQI_HUGE;
        next = next < end ? next : end;
        if (next - offset == TQI_HUGE) {
            /* One page of it must be there, then the kernel makes the rest. */
            code = arena_populate_pages(arena, offset, offset + arena->page);
            if (code == TQ_OK && tqi_huge_collapse(arena->base + offset)) {
                offset = next;
                continue;
            }
        }
        code = code == TQ_OK ? arena_populate_pages(arena, offset, next) : code;
        offset = next;
    }
    return code;
}

int tqi_arena_punch(tqi_arena *arena, uint64_t offset, uint64_t size)
{
    uint64_t begin = (offset + arena->page - 1) / arena->page * arena->page;
    uint64_t end = (offset + size) / arena->page * arena->page;
    int rc = 0;

    if (end <= begin) {
        return TQ_OK;
    }
    do {
        rc = fallocate(arena->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)begin,
                       (off_t)(end - begin));
    } while (rc != 0 && errno == EINTR);
    return rc == 0 ? TQ_OK : TQ_EIO;
}

uint64_t tqi_arena_resident(const tqi_arena *arena)
{
    struct stat st;

    return fstat(arena->fd, &st) == 0 ? (uint64_t)st.st_blocks * 512 : 0;
}
