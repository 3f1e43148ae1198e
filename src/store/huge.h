/*
 * huge.h - shared memory in pages of 2 MiB.
 *
 * With pages of 4 KiB every process that maps an arena takes a page fault for each of them, even if the page exists: a
 * first copy into warm shared memory then runs at a fifth of the speed of the second one. MADV_COLLAPSE (Linux 6.1)
 * makes 2 MiB of a memfd one page, without changing a byte, even while others use the memory; both mappings and file
 * offsets must be aligned to it. It is not an error if the kernel cannot: pages stay small.
 */
#ifndef TQI_STORE_HUGE_H
#define TQI_STORE_HUGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TQI_STORE_HUGE (UINT64_C(2) << 20)

/* mmap of a shared file (fd -1: of private memory), aligned if it is large enough; MAP_FAILED with errno. Unmapped with
 * munmap. */
void *tqi_store_huge_map(size_t size, int prot, int fd);
/* A private mapping of [offset, offset + size) of a file that can use the file's large pages; as above. */
void *tqi_store_huge_borrow(size_t size, int fd, uint64_t offset);
/* Turns the aligned 2 MiB at `window`, of which at least one page exists, into one page. False if that is not possible
 * now. */
bool tqi_store_huge_collapse(uint8_t *window);

#endif
