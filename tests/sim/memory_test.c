/*
 * The memory of simulated processes: the tests stand in for the scheduler.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>
#include <jansson.h>
#include <roaring/roaring.h>

#include "heap.h"
#include "memory_testkit.h"
#include "sim.h"

/* --- heaps ----------------------------------------------------------------- */

static void a_process_gets_the_same_addresses_in_each_run(void **state)
{
#ifndef SIM_ASAN
    void *first[200];

#endif

    (void)state;
    for (unsigned round = 0; round < 3; round++) {
        sim_process *one = memory_test_start(0);
        for (unsigned i = 0; i < 200; i++) {
            void *memory = malloc(i * 37 % 3000);
            assert_non_null(memory);
#ifndef SIM_ASAN
            first[i] = round == 0 ? memory : first[i];
            assert_ptr_equal(memory, first[i]);
            for (unsigned k = 0; k < i * 37 % 3000; k++) {
                assert_int_equal(((uint8_t *)memory)[k], 0xa5);
            }
#endif
            memset(memory, (int)round, i * 37 % 3000);
        }
        memory_test_end(one);
    }
}

static void every_allocation_function_returns_what_it_promises(void **state)
{
    sim_process *one = memory_test_start(0);
    uint64_t count;
    void *aligned = NULL;

    (void)state;
    char *zero = calloc(100, 70);
    for (unsigned i = 0; i < 7000; i++) {
        assert_int_equal(zero[i], 0);
    }
    char *text = strdup("text");
    assert_string_equal(text, "text");
    zero = realloc(zero, 100000);
    assert_int_equal(zero[6999], 0);
    assert_int_equal(posix_memalign(&aligned, 64, 1000), 0);
    assert_int_equal((uintptr_t)aligned % 64, 0);
    assert_true(sim_heap_live(one, &count) == 100000 + 5 + 1000);
    assert_int_equal(count, 3);
    sim_heap_report(one);
    free(aligned);
    assert_int_equal(posix_memalign(&aligned, 2 << 20, 3 << 20), 0);
    assert_int_equal((uintptr_t)aligned % (2 << 20), 0);
    free(aligned);
    free(zero);
    free(text);
    assert_int_equal(sim_heap_live(one, &count), 0);
    assert_int_equal(count, 0);
    memory_test_end(one);
}

/* All sizes: each block is as large as it says, and no two overlap. */
static void blocks_of_all_sizes_do_not_overlap(void **state)
{
    sim_process *one = memory_test_start(0);
    uint64_t seed = 7;
    static struct {
        uint8_t *memory;
        size_t size;
    } live[512];

    (void)state;
    memset(live, 0, sizeof(live));
    for (uint32_t i = 0; i < 100000; i++) {
        seed = seed * UINT64_C(6364136223846793005) + 1;
        uint32_t k = seed >> 55;
        if (live[k].memory != NULL) {
            assert_int_equal(live[k].memory[0], k & 0xff);
            assert_int_equal(live[k].memory[live[k].size - 1], k & 0xff);
            free(live[k].memory);
        }
        live[k].size = 1 + (seed >> 20) % (UINT64_C(16) << (seed >> 40) % 11);
        live[k].memory = malloc(live[k].size);
        assert_true(malloc_usable_size(live[k].memory) >= live[k].size);
        memset(live[k].memory, (int)k, live[k].size);
    }
    for (uint32_t k = 0; k < 512; k++) {
        free(live[k].memory);
    }
    memory_test_end(one);
}

/* Zero at first, also when they are used again. */
static void large_blocks_are_zero_also_when_used_again(void **state)
{
    sim_process *one = memory_test_start(0);
    const size_t size = 3 << 20;
    uint8_t *memory;

    (void)state;
    for (unsigned round = 0; round < 3; round++) {
        memory = malloc(size);
#ifndef SIM_ASAN
        for (size_t i = 0; i < size; i++) {
            assert_int_equal(memory[i], 0);
        }
#endif
        memset(memory, 1, size);
        if (round == 1) {
            memory_test_end(one);
            one = memory_test_start(0);
        } else {
            free(memory);
        }
    }
    memory = realloc(malloc(size), 2 * size);
    memset(memory, 1, 2 * size);
    sim_heap_report(one);
    free(memory);
    memory_test_end(one);
}

#ifndef SIM_ASAN
static void freeing_twice_writing_freed_memory_and_freeing_memory_of_others_is_found(void **state)
{
    sim_process *one = memory_test_start(0);
    /* What is wrong here is what is tested. */
    void *volatile memory = malloc(100);
    uint8_t *volatile written = memory;

    (void)state;
    free(memory);
    if (setjmp(memory_test_back) == 0) {
        free(memory);
        fail();
    }
    assert_non_null(strstr(memory_test_found, "freed twice; it was allocated by "));
    written[3] = 1;
    if (setjmp(memory_test_back) == 0) {
        memory = malloc(100);
        fail();
    }
    assert_non_null(strstr(memory_test_found, "freed memory was written"));
    memory_test_end(one);
    one = memory_test_start(0);
    memory = malloc(100);
    sim_process *two = memory_test_start(1);
    if (setjmp(memory_test_back) == 0) {
        free(memory);
        fail();
    }
    assert_string_equal(memory_test_found, "two frees memory of one");
    memory_test_end(two);
    memory_test_end(one);
}
#endif

static void allocations_fail_only_where_they_may(void **state)
{
    uint32_t failed = 0;

    (void)state;
    sim_chance_init(&sim_fault_chance, 5, "");
    memory_test_may_fail = memory_test_fails = true;
    sim_process *one = memory_test_start(0);
    for (uint32_t i = 0; i < 100000; i++) {
        void *memory = malloc(10);
        failed += memory == NULL;
        free(memory);
    }
    assert_int_equal(failed, 0);
    sim_heap_may_fail(one, true);
    for (uint32_t i = 0; i < 100000; i++) {
        void *memory = malloc(10);
        failed += memory == NULL;
        free(memory);
    }
    assert_in_range(failed, 2, 2000);
    /* Libraries do not know it. */
    memory_test_fails = false;
    memory_test_end(one);
    memory_test_may_fail = false;
}

static void allocations_of_libraries_belong_to_the_process(void **state)
{
    sim_process *one = memory_test_start(0);
    uint64_t count;
    roaring_bitmap_t *bitmap = roaring_bitmap_create();

    (void)state;
    for (uint32_t i = 0; i < 100000; i += 3) {
        roaring_bitmap_add(bitmap, i);
    }
    json_t *json = json_loads("{\"a\": [1, 2, {\"b\": \"c\"}]}", 0, NULL);
    assert_non_null(json);
    assert_true(sim_heap_live(one, &count) > 8192);
    assert_true(count > 10);
    char *text = json_dumps(json, 0);
    free(text);
    json_decref(json);
    roaring_bitmap_free(bitmap);
    assert_int_equal(sim_heap_live(one, &count), 0);
    memory_test_end(one);
}

static void a_stack_is_used_again_and_zero(void **state)
{
    uint8_t *a = sim_stack_alloc(256 << 10), *b = sim_stack_alloc(256 << 10);

    (void)state;
    assert_ptr_not_equal(a, b);
    memset(a + 10000, 1, (256 << 10) - 10000);
    sim_stack_free(a);
    assert_ptr_equal(sim_stack_alloc(256 << 10), a);
    for (uint32_t i = 0; i < 256 << 10; i++) {
        assert_int_equal(a[i], 0);
    }
    sim_stack_free(a);
    sim_stack_free(b);
}

/* Not a measurement: it finds a mistake that makes each allocation slow. */
static void malloc_and_free_of_many_blocks_end_soon(void **state)
{
    sim_process *one = memory_test_start(0);
    struct timespec begin, now;
    void *volatile memory[16];

    (void)state;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    for (uint32_t i = 0; i < 100000; i++) {
        for (uint32_t k = 0; k < 16; k++) {
            memory[k] = malloc(k * 16);
        }
        for (uint32_t k = 0; k < 16; k++) {
            free(memory[k]);
        }
    }
    clock_gettime(CLOCK_MONOTONIC, &now);
    print_message("%.1f ns per malloc and free\n",
                  (double)((now.tv_sec - begin.tv_sec) * 1000000000 + now.tv_nsec - begin.tv_nsec) / 1600000);
    memory_test_end(one);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_process_gets_the_same_addresses_in_each_run),
        cmocka_unit_test(every_allocation_function_returns_what_it_promises),
        cmocka_unit_test(blocks_of_all_sizes_do_not_overlap),
        cmocka_unit_test(large_blocks_are_zero_also_when_used_again),
#ifndef SIM_ASAN
        cmocka_unit_test(freeing_twice_writing_freed_memory_and_freeing_memory_of_others_is_found),
#endif
        cmocka_unit_test(allocations_fail_only_where_they_may),
        cmocka_unit_test(allocations_of_libraries_belong_to_the_process),
        cmocka_unit_test(a_stack_is_used_again_and_zero),
        cmocka_unit_test(malloc_and_free_of_many_blocks_end_soon),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
