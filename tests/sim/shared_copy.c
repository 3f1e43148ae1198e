/*
 * shared_copy.c - copies of the product to and from shared memory, in pieces: between two of them other processes run,
 * so that memory may be freed and used again in the middle of a copy, and a writer may die there.
 *
 * Only with the fault `preempt`. memcpy of the simulator itself stays whole: it must not be interrupted.
 */
#include <string.h>

#include "shared.h"
#include "store/store.h"

#define COPY_LEAST   8u /* smaller ones are not divided */
#define COPY_PIECES  3
#define COPY_READS   2  /* one in this many reads of shared memory is divided */
#define COPY_PAUSES  18 /* doublings of 1 us: the longest pause is 262 ms */
#define COPY_BETWEEN 5  /* doublings of the copies from one that is divided to the next */

/* The code of the product (image.ld). */
extern const uint8_t sim_code_low[], sim_code_high[];

void *__real_memcpy(void *to, const void *from, size_t size);
void *__wrap_memcpy(void *to, const void *from, size_t size);
bool __real_tqi_store_map_read(const tqi_store_map *map, uint64_t id, uint32_t slot, uint64_t offset, void *to,
                               size_t size, bool streaming);
bool __wrap_tqi_store_map_read(const tqi_store_map *map, uint64_t id, uint32_t slot, uint64_t offset, void *to,
                               size_t size, bool streaming);
void __real_tqi_store_stream_copy(void *to, const void *from, size_t size);
void __wrap_tqi_store_stream_copy(void *to, const void *from, size_t size);

static bool copies_pause;
static sim_chance copy_chance;
static uint64_t copies_whole; /* until one is divided */

static uint64_t copy_between(void)
{
    return sim_between(&copy_chance, 1, UINT64_C(2) << sim_below(&copy_chance, COPY_BETWEEN));
}

void shared_copy_start(void)
{
    copies_pause = sim_may(SIM_PREEMPT);
    if (copies_pause) {
        sim_chance_init(&copy_chance, sim_seed, "copies");
        copies_whole = copy_between();
    }
}

static bool copy_is_shared(const void *to, const void *from)
{
    return shared_window_has(&shared_window_of_memory, to) || shared_window_has(&shared_window_of_memory, from);
}

static void copy_pause(void)
{
    sim_point();
    if (sim_happens(SIM_PREEMPT)) {
        sim_mark("a copy was interrupted");
        sim_pass(sim_below(&copy_chance, SIM_US << sim_below(&copy_chance, COPY_PAUSES + 1)));
    }
}

static void copy_in_pieces(uint8_t *to, const uint8_t *from, size_t size)
{
    for (unsigned i = 1; i < COPY_PIECES && size > 1; i++) {
        size_t piece = sim_between(&copy_chance, 1, size - 1);
        __real_memcpy(to, from, piece);
        to += piece;
        from += piece;
        size -= piece;
        copy_pause();
    }
    __real_memcpy(to, from, size);
}

static bool copy_divides(const void *to, const void *from, size_t size)
{
    if (size <= COPY_LEAST || sim_self == NULL || sim_running == NULL || sim_self->exiting ||
        !copy_is_shared(to, from) || --copies_whole > 0) {
        return false;
    }
    copies_whole = copy_between();
    return true;
}

/* Apart, so that what is called for every copy needs no stack. */
static __attribute__((noinline)) void *copy_slowly(void *to, const void *from, size_t size)
{
    if (!copy_divides(to, from, size)) {
        return __real_memcpy(to, from, size);
    }
    copy_in_pieces(to, from, size);
    return to;
}

void *__wrap_memcpy(void *to, const void *from, size_t size)
{
    if (__builtin_expect(!copies_pause, 1) ||
        (uintptr_t)__builtin_return_address(0) - (uintptr_t)sim_code_low >= (uintptr_t)(sim_code_high - sim_code_low)) {
        return __real_memcpy(to, from, size);
    }
    return copy_slowly(to, from, size);
}

void __wrap_tqi_store_stream_copy(void *to, const void *from, size_t size)
{
    if (!copies_pause || !copy_divides(to, from, size)) {
        __real_tqi_store_stream_copy(to, from, size);
        return;
    }
    copy_in_pieces(to, from, size);
}

bool __wrap_tqi_store_map_read(const tqi_store_map *map, uint64_t id, uint32_t slot, uint64_t offset, void *to,
                               size_t size, bool streaming)
{
    bool there = slot < map->n_slots && atomic_load(&map->slots[slot]) == id;
    uint64_t began = sim_time();

    if (copies_pause && sim_self != NULL && sim_one_in(&copy_chance, COPY_READS)) {
        copies_whole = 1;
    }
    bool read = __real_tqi_store_map_read(map, id, slot, offset, to, size, streaming);

    if (sim_time() > began) {
        sim_mark("a read was interrupted");
    }
    if (there && !read) {
        sim_mark("a block was freed in the middle of a copy");
    }
    return read;
}
