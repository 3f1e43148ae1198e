/*
 * map_test.c - the reader's side: descriptors cannot be misused, and a reader never takes torn bytes for a block.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "store/store.h"

static tqi_store *make(uint64_t capacity)
{
    tqi_store_options options = {.capacity = capacity, .max_blocks = 64};
    tqi_store *store = NULL;
    tq_error err;

    assert_int_equal(tqi_store_alloc(&options, &store, &err), TQ_OK);
    return store;
}

static void map_it(tqi_store *store, tqi_store_map *map)
{
    tq_error err = {0};

    assert_int_equal(tqi_store_map_init(map, tqi_store_arena_fd(store), tqi_store_slots_fd(store),
                                        tqi_store_capacity(store), tqi_store_slots(store), &err),
                     TQ_OK);
}

static void reads_and_checks(void **state)
{
    tqi_store *store = make(1 << 20);
    tqi_store_place place = {.id = 5, .size = 1000};
    tqi_store_map map;
    uint8_t out[1000];
    tq_error err;

    (void)state;
    assert_int_equal(tqi_store_reserve(store, &place, 1, false, &err), TQ_OK);
    map_it(store, &map);
    memset(map.arena + place.offset, 0x42, 1000); /* a client writes */
    assert_true(tqi_store_map_read(&map, 5, place.slot, place.offset, out, 1000, false));
    assert_int_equal(out[999], 0x42);
    assert_false(tqi_store_map_read(&map, 6, place.slot, place.offset, out, 1000, false));
    assert_false(tqi_store_map_read(&map, 5, place.slot + 1, place.offset, out, 1000, false));
    assert_false(tqi_store_map_read(&map, 0, place.slot + 1, place.offset, out, 1000, false));
    assert_false(tqi_store_map_read(&map, 5, 64, place.offset, out, 1000, false));
    assert_false(tqi_store_map_read(&map, 5, place.slot, (1 << 20) - 10, out, 1000, false));
    assert_false(tqi_store_map_read(&map, 5, place.slot, UINT64_MAX, out, 1000, false));
    tqi_store_free_block(store, 5);
    assert_false(tqi_store_map_read(&map, 5, place.slot, place.offset, out, 1000, false));
    tqi_store_map_fini(&map);
    tqi_store_free(store);
}

static void descriptors_are_safe(void **state)
{
    tqi_store *store = make(1 << 20);
    int slots = tqi_store_slots_fd(store);
    int arena = tqi_store_arena_fd(store);
    tqi_store_map map;
    tq_error err;
    char path[64];

    (void)state;
    /* Nobody can write the slot table, not even by opening it again. */
    assert_true(mmap(NULL, 512, PROT_READ | PROT_WRITE, MAP_SHARED, slots, 0) == MAP_FAILED);
    assert_int_equal(write(slots, "x", 1), -1);
    snprintf(path, sizeof(path), "/proc/self/fd/%d", slots);
    int again = open(path, O_RDWR | O_CLOEXEC);
    if (again >= 0) {
        assert_true(mmap(NULL, 512, PROT_READ | PROT_WRITE, MAP_SHARED, again, 0) == MAP_FAILED);
        assert_int_equal(write(again, "x", 1), -1);
        assert_int_equal(errno, EPERM);
        close(again);
    }
    /* Nobody can resize the arena. */
    assert_int_equal(ftruncate(arena, 4096), -1);
    assert_int_equal(ftruncate(arena, 2 << 20), -1);
    /* A mapping larger than the file is refused. */
    assert_int_equal(tqi_store_map_init(&map, arena, slots, 2 << 20, 64, &err), TQ_EPROTO);
    assert_int_equal(tqi_store_map_init(&map, arena, slots, 1 << 20, 65, &err), TQ_EPROTO);
    assert_int_equal(tqi_store_map_init(&map, arena, slots, 0, 64, &err), TQ_EPROTO);
    assert_int_equal(tqi_store_map_init(&map, arena, slots, 1 << 20, UINT64_MAX / 8, &err), TQ_EPROTO);
    assert_int_equal(tqi_store_map_init(&map, -1, slots, 1 << 20, 64, &err), TQ_EIO);
    tqi_store_free(store);
}

static void child_inherits_nothing(void **state)
{
    tqi_store *store = make(1 << 20);
    tqi_store_map map;

    (void)state;
    map_it(store, &map);
    uint8_t *arena = map.arena;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        unsigned char vec[1];
        bool gone = mincore(arena, 4096, vec) != 0 && errno == ENOMEM;
        tqi_store_map_forked(&map);
        _exit(gone && map.arena == NULL && map.slots == NULL ? 0 : 1);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    tqi_store_map_fini(&map);
    tqi_store_free(store);
}

/* ---- a reader against an owner that frees and reuses the same memory ---- */

#define ROUNDS 5000
#define BLOCK  4096

struct race {
    tqi_store_map map;
    _Atomic uint64_t published; /* id << 8 | slot */
    _Atomic uint64_t offset;
    _Atomic bool stop;
    sem_t begun; /* posted after the first read */
    uint64_t good, gone, torn;
};

static void *race_read(void *arg)
{
    struct race *race = arg;
    uint8_t out[BLOCK];

    while (!atomic_load(&race->stop)) {
        uint64_t word = atomic_load(&race->published);
        uint64_t offset = atomic_load(&race->offset);
        if (word == 0) {
            continue;
        }
        if (race->good + race->gone == 1) {
            sem_post(&race->begun);
        }
        uint64_t id = word >> 8;
        if (!tqi_store_map_read(&race->map, id, (uint32_t)(word & 0xff), offset, out, BLOCK, id % 2 == 0)) {
            race->gone++;
            continue;
        }
        bool torn = false;
        for (int i = 1; i < BLOCK; i++) {
            torn |= out[i] != (uint8_t)id;
        }
        race->torn += torn || out[0] != (uint8_t)id;
        race->good++;
    }
    return NULL;
}

static void never_torn(void **state)
{
    tqi_store *store = make(1 << 20);
    static struct race race;
    pthread_t thread;
    tq_error err;

    (void)state;
    memset(&race, 0, sizeof(race));
    assert_int_equal(sem_init(&race.begun, 0, 0), 0);
    map_it(store, &race.map);
    assert_int_equal(pthread_create(&thread, NULL, race_read, &race), 0);
    for (uint64_t id = 1; id <= ROUNDS; id++) {
        tqi_store_place place = {.id = id, .size = BLOCK};
        assert_int_equal(tqi_store_reserve(store, &place, 1, false, &err), TQ_OK);
        assert_int_equal(place.offset, 0); /* always the same memory */
        memset(race.map.arena + place.offset, (int)(id & 0xff), BLOCK);
        atomic_store(&race.offset, place.offset);
        atomic_store(&race.published, id << 8 | place.slot);
        if (id % 16 == 0) {
            sched_yield();
        }
        tqi_store_free_block(store, id);
    }
    /* A block that stays: the reader certainly gets it. */
    tqi_store_place last = {.id = ROUNDS + 1, .size = BLOCK};
    uint8_t out[BLOCK];
    assert_int_equal(tqi_store_reserve(store, &last, 1, false, &err), TQ_OK);
    memset(race.map.arena + last.offset, (ROUNDS + 1) & 0xff, BLOCK);
    atomic_store(&race.published, (uint64_t)(ROUNDS + 1) << 8 | last.slot);
    assert_int_equal(sem_wait(&race.begun), 0);
    atomic_store(&race.stop, true);
    pthread_join(thread, NULL);
    assert_true(tqi_store_map_read(&race.map, ROUNDS + 1, last.slot, last.offset, out, BLOCK, false));
    assert_int_equal(race.torn, 0);
    print_message("reads: %llu good, %llu gone\n", (unsigned long long)race.good, (unsigned long long)race.gone);
    sem_destroy(&race.begun);
    tqi_store_map_fini(&race.map);
    tqi_store_free(store);
}

struct warming {
    tqi_store *store;
    uint64_t calls;
};

static void *warm_all(void *arg)
{
    struct warming *warming = arg;

    do {
        warming->calls++;
    } while (tqi_store_warm(warming->store, 1 << 20) > 0);
    return NULL;
}

static void warming_changes_nothing(void **state)
{
    tqi_store *store = make(32 << 20);
    struct warming warming = {.store = store};
    tqi_store_place place[32];
    tq_error err;
    pthread_t thread;

    (void)state;
    assert_int_equal(pthread_create(&thread, NULL, warm_all, &warming), 0);
    for (uint64_t i = 0; i < 32; i++) {
        place[i] = (tqi_store_place){.id = i + 1, .size = 1 << 20};
        assert_int_equal(tqi_store_reserve(store, &place[i], 1, false, &err), TQ_OK);
        memset(tqi_store_find(store, i + 1, place[i].slot, NULL), (int)i, 1 << 20);
    }
    pthread_join(thread, NULL);
    assert_true(warming.calls >= 1);
    for (uint64_t i = 0; i < 32; i++) {
        uint8_t *at = tqi_store_find(store, i + 1, place[i].slot, NULL);
        for (size_t k = 0; k < 1 << 20; k += 512) {
            assert_int_equal(at[k], i);
        }
    }
    tqi_store_free(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_and_checks),        cmocka_unit_test(descriptors_are_safe),
        cmocka_unit_test(child_inherits_nothing),  cmocka_unit_test(never_torn),
        cmocka_unit_test(warming_changes_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
