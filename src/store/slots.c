/*
 * slots.c - the slot table: which block's bytes a place of the arena holds, readable by every client.
 *
 * Clients must not be able to write it, for a forged id would make readers take foreign bytes for a block's.  Two things
 * see to that: the descriptor handed out is a second, read-only opening of the memfd (a mapping made from it cannot be
 * made writable), and F_SEAL_FUTURE_WRITE, set after the owner's own mapping was made, refuses every later write or
 * writable mapping even to who opens the memfd again through /proc.  A kernel before 5.1 lacks the seal and leaves the
 * first protection.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/error.h"
#include "store/arena.h"
#include "store/fence.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

int tqi_slots_init(tqi_slots *slots, uint32_t count, tq_error *err)
{
    size_t bytes = (size_t)count * sizeof(uint64_t);
    void *words = MAP_FAILED;
    char path[64];
    int code;

    memset(slots, 0, sizeof(*slots));
    slots->fd = -1;
    int fd = memfd_create("tq-slots", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd < 0) {
        return tqi_error_errno(err, errno, "memfd_create of a slot table");
    }
    if (ftruncate(fd, (off_t)bytes) != 0) {
        code = tqi_error_errno(err, errno, "sizing a slot table");
        goto fail;
    }
    words = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
    if (words == MAP_FAILED) {
        code = tqi_error_errno(err, errno, "mapping a slot table");
        goto fail;
    }
    if (madvise(words, bytes, MADV_DONTFORK) != 0) {
        code = tqi_error_errno(err, errno, "MADV_DONTFORK of a slot table");
        goto fail;
    }
    int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
    if (fcntl(fd, F_ADD_SEALS, seals | F_SEAL_FUTURE_WRITE) != 0 &&
        fcntl(fd, F_ADD_SEALS, seals) != 0) {
        code = tqi_error_errno(err, errno, "sealing a slot table");
        goto fail;
    }
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    slots->fd = open(path, O_RDONLY | O_CLOEXEC);
    if (slots->fd < 0) {
        code = tqi_error_errno(err, errno, "opening a slot table read-only");
        goto fail;
    }
    close(fd);
    slots->words = words;
    slots->count = count;
    return TQ_OK;

fail:
    if (words != MAP_FAILED) {
        munmap(words, bytes);
    }
    close(fd);
    return code;
}

void tqi_slots_fini(tqi_slots *slots)
{
    if (slots->words != NULL) {
        munmap((void *)(uintptr_t)slots->words, (size_t)slots->count * sizeof(uint64_t));
        close(slots->fd);
    }
    free(slots->spares);
    memset(slots, 0, sizeof(*slots));
    slots->fd = -1;
}

int tqi_slots_take(tqi_slots *slots, uint64_t id, uint32_t *slot)
{
    uint32_t at;

    if (slots->n_spares > 0) {
        at = slots->spares[slots->n_spares - 1];
    } else if (slots->fresh < slots->count) {
        /* Room to give it back later, so that giving cannot fail. */
        if (tqi_grow(&slots->spares, &slots->spares_capacity, (size_t)slots->fresh + 1,
                     sizeof(uint32_t)) != TQ_OK) {
            return TQ_ENOMEM;
        }
        at = slots->fresh;
    } else {
        return TQ_EFULL;
    }
    if (slots->n_spares > 0) {
        slots->n_spares--;
    } else {
        slots->fresh++;
    }
    /* Nobody has the locator before the block is published, through messages; no order is needed for this store. */
    atomic_store_explicit(&slots->words[at], id, memory_order_relaxed);
    *slot = at;
    return TQ_OK;
}

void tqi_slots_give(tqi_slots *slots, uint32_t slot)
{
    /*
     * The writer's half of the seqlock.  The release fence orders the store of 0 before all later writes into the
     * block's memory.  A reader whose copy saw one of those writes has an acquire fence behind the copy and therefore
     * sees the 0 (or a later id) when it loads the slot again.
     */
    atomic_store_explicit(&slots->words[slot], 0, memory_order_relaxed);
    TQI_FENCE(memory_order_release);
    slots->spares[slots->n_spares++] = slot;
}
