/*
 * huge.c - shared memory in pages of 2 MiB (see huge.h).
 */
#include "store/huge.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1 */
#endif

/* Maps [offset, offset + size) of the file at an address with the same alignment within a large page as the offset
 * has: only then can the kernel use large pages. */
static void *huge_place(size_t size, int prot, int flags, int fd, uint64_t offset)
{
    if (size < TQI_STORE_HUGE || size > SIZE_MAX - TQI_STORE_HUGE) {
        return mmap(NULL, size, prot, flags, fd, (off_t)offset);
    }
    /* Reserves enough addresses for an aligned part of that size; the file is mapped over that part, and the rest is
     * given back. */
    uint8_t *room = mmap(NULL, size + TQI_STORE_HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED) {
        return mmap(NULL, size, prot, flags, fd, (off_t)offset);
    }
    size_t before = (size_t)((offset - (uintptr_t)room) & (TQI_STORE_HUGE - 1));
    void *base = mmap(room + before, size, prot, flags | MAP_FIXED, fd, (off_t)offset);
    if (base == MAP_FAILED) {
        int errnum = errno;
        munmap(room, size + TQI_STORE_HUGE);
        errno = errnum;
        return MAP_FAILED;
    }
    size_t page = (size_t)sysconf(_SC_PAGESIZE); /* munmap wants whole ones */
    size_t end = (before + size + page - 1) / page * page;
    if (before > 0) {
        munmap(room, before);
    }
    if (end < size + TQI_STORE_HUGE) {
        munmap(room + end, size + TQI_STORE_HUGE - end);
    }
    return base;
}

void *tqi_store_huge_map(size_t size, int prot, int fd)
{
    const int flags = (fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED) | MAP_NORESERVE;

    return huge_place(size, prot, flags, fd, 0);
}

void *tqi_store_huge_borrow(size_t size, int fd, uint64_t offset)
{
    return huge_place(size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd, offset);
}

bool tqi_store_huge_collapse(uint8_t *window)
{
    /* Consecutive failures: after a few, the kernel is assumed to be unable to do this. A hint between threads. */
    static _Atomic unsigned failures;
    const unsigned enough = 32;

    if (atomic_load_explicit(&failures, memory_order_relaxed) >= enough || (uintptr_t)window % TQI_STORE_HUGE != 0) {
        return false;
    }
    if (madvise(window, TQI_STORE_HUGE, MADV_COLLAPSE) == 0) {
        atomic_store_explicit(&failures, 0, memory_order_relaxed);
        return true;
    }
    atomic_fetch_add_explicit(&failures, 1, memory_order_relaxed);
    return false;
}
