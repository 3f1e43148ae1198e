/*
 * slots.c - the slot table: which block's bytes a place of the arena holds, readable by every client.
 *
 * Clients must not be able to write it, because a forged id would make readers take foreign bytes for a block's. Two
 * things ensure that: the descriptor handed out is a second, read-only opening of the memfd (a mapping made from it
 * cannot be made writable), and F_SEAL_FUTURE_WRITE, set after the owner's own mapping was made, refuses every later
 * write or writable mapping, even to a process that reopens the memfd through /proc. A kernel before 5.1 lacks the
 * seal, which leaves the first protection; without /proc, the second remains.
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
#include "base/pointer.h"
#include "store/arena.h"
#include "store/fence.h"

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

/*
 * A descriptor that does not allow writing: a second, read-only opening, or else the first one if the seal forbids
 * writing (there may be no /proc through which to reopen it). -1 with `why` if neither is possible.
 */
static int slots_read_only(int fd, bool sealed, char why[TQI_STORE_WHY])
{
    char path[64], reason[96];

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    int reader = open(path, O_RDONLY | O_CLOEXEC);
    if (reader >= 0) {
        close(fd);
        return reader;
    }
    if (sealed) {
        return fd;
    }
    snprintf(why, TQI_STORE_WHY, "opening a slot table read-only: %s", strerror_r(errno, reason, sizeof(reason)));
    close(fd);
    return -1;
}

int tqi_store_slots_init(tqi_store_slot_table *slots, uint32_t count, char why[TQI_STORE_WHY], tq_error *err)
{
    size_t bytes = (size_t)count * sizeof(uint64_t);
    int fd = why[0] ? -1 : tqi_store_arena_memfd("tq-slots", bytes, why, err);

    memset(slots, 0, sizeof(*slots));
    slots->fd = -1;
    if (fd < -1) {
        return TQ_EIO;
    }
    void *words = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                       (fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED) | MAP_NORESERVE, fd, 0);
    if (words == MAP_FAILED) {
        int rc = tqi_error_errno(err, errno, "mapping a slot table");
        if (fd >= 0) {
            close(fd);
        }
        return rc;
    }
    /* A refusal does no harm: a daemon's children do not write. */
    madvise(words, bytes, MADV_DONTFORK);
    if (fd >= 0) {
        bool sealed = fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) == 0;
        slots->fd = slots_read_only(fd, sealed, why);
    }
    slots->words = words;
    slots->count = count;
    return TQ_OK;
}

void tqi_store_slots_fini(tqi_store_slot_table *slots)
{
    if (slots->words != NULL) {
        munmap(tqi_unconst(slots->words), (size_t)slots->count * sizeof(uint64_t));
        if (slots->fd >= 0) {
            close(slots->fd);
        }
    }
    free(slots->spares);
    memset(slots, 0, sizeof(*slots));
    slots->fd = -1;
}

int tqi_store_slots_take(tqi_store_slot_table *slots, uint64_t id, uint32_t *slot)
{
    uint32_t at;

    if (slots->n_spares > 0) {
        at = slots->spares[slots->n_spares - 1];
    } else if (slots->fresh < slots->count) {
        /* Reserves room to give it back later, so that giving cannot fail. */
        if (tqi_grow(&slots->spares, &slots->spares_capacity, (size_t)slots->fresh + 1, sizeof(uint32_t)) != TQ_OK) {
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
    /* Nobody has the locator before the block is published through messages; this store needs no ordering. */
    atomic_store_explicit(&slots->words[at], id, memory_order_relaxed);
    *slot = at;
    return TQ_OK;
}

void tqi_store_slots_give(tqi_store_slot_table *slots, uint32_t slot)
{
    /*
     * The writer's half of the seqlock. The release fence orders the store of 0 before all later writes into the
     * block's memory. A reader whose copy saw one of those writes has an acquire fence after the copy and therefore
     * sees the 0 (or a later id) when it loads the slot again.
     */
    atomic_store_explicit(&slots->words[slot], 0, memory_order_relaxed);
    TQI_FENCE(memory_order_release);
    slots->spares[slots->n_spares++] = slot;
}
