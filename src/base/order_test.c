/*
 * order_test.c - the heap and the tree of waiters, each against a plain list.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <time.h>

#include <tq/tq.h>

#include "base/fit.h"
#include "base/heap.h"

static uint32_t order_random(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

static double order_cpu(void)
{
    struct timespec now;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

typedef struct timed {
    int number;
    tqi_heap_node node;
} timed;

#define TIMED 400u

static void heap_is_a_sorted_list(void **state)
{
    timed all[TIMED] = {0};
    tqi_heap heap = {0};
    uint32_t seed = 5;
    size_t inside = 0;

    (void)state;
    for (int step = 0; step < 40000; step++) {
        timed *one = &all[order_random(&seed) % TIMED];
        const timed *top = TQI_HEAP_ENTRY(heap.top, timed, node);
        uint64_t least = UINT64_MAX;

        for (size_t i = 0; step % 16 == 0 && i < TIMED; i++) {
            if (tqi_heap_has(&all[i].node) && all[i].node.key < least) {
                least = all[i].node.key;
            }
        }
        assert_true((top != NULL) == (inside > 0));
        assert_true(step % 16 != 0 || top == NULL || top->node.key == least);
        if (order_random(&seed) % 8 == 0 && top != NULL) {
            tqi_heap_remove(&heap, heap.top);
            inside--;
        } else if (tqi_heap_has(&one->node)) {
            tqi_heap_remove(&heap, &one->node);
            tqi_heap_remove(&heap, &one->node); /* in none */
            inside--;
        } else {
            tqi_heap_add(&heap, &one->node, order_random(&seed) % 50);
            inside++;
        }
    }
    while (heap.top != NULL) {
        uint64_t key = heap.top->key;
        tqi_heap_remove(&heap, heap.top);
        assert_true(heap.top == NULL || heap.top->key >= key);
        inside--;
    }
    assert_int_equal(inside, 0);
    assert_null(TQI_HEAP_ENTRY(heap.top, timed, node));
}

#define MANY 40000u

/* Ascending, descending, from both ends, and at random; half of them are taken out from the middle. */
static void heap_takes_any_order(void **state)
{
    timed *all = calloc(MANY, sizeof(*all));
    uint32_t seed = 9;

    (void)state;
    assert_non_null(all);
    for (int order = 0; order < 4; order++) {
        tqi_heap heap = {0};
        double began = order_cpu();
        for (uint32_t i = 0; i < MANY; i++) {
            const uint64_t keys[] = {i, MANY - i, i % 2 ? i : 2 * MANY - i, order_random(&seed)};
            tqi_heap_add(&heap, &all[i].node, keys[order]);
        }
        for (uint32_t i = 0; i < MANY; i += 2) {
            tqi_heap_remove(&heap, &all[i].node);
        }
        while (heap.top != NULL) {
            tqi_heap_remove(&heap, heap.top);
        }
        /* It takes about 10 ms; a sorted list took 13 s. */
        assert_true(order_cpu() - began < 0.2);
    }
    free(all);
}

typedef struct waiter {
    tqi_fit_node node;
    uint64_t number; /* of arrival; 0: not there */
} waiter;

#define WAITERS 300u

static void fit_finds_the_oldest_that_fits(void **state)
{
    waiter all[WAITERS] = {0};
    tqi_fit fit = {0};
    uint32_t seed = 3;
    uint64_t number = 0;

    (void)state;
    assert_null(tqi_fit_first(&fit, UINT32_MAX));
    for (int step = 0; step < 30000; step++) {
        waiter *one = &all[order_random(&seed) % WAITERS];
        uint32_t room = order_random(&seed) % 70;
        const waiter *want = NULL;

        if (one->number == 0) {
            assert_int_equal(tqi_fit_add(&fit, &one->node, 1 + order_random(&seed) % 64), TQ_OK);
            one->number = ++number;
        } else {
            tqi_fit_remove(&fit, &one->node);
            tqi_fit_remove(&fit, &one->node); /* in none */
            one->number = 0;
        }
        for (size_t i = 0; i < WAITERS; i++) {
            if (all[i].number != 0 && all[i].node.need <= room && (want == NULL || all[i].number < want->number)) {
                want = &all[i];
            }
        }
        assert_ptr_equal(tqi_fit_first(&fit, room), want != NULL ? &want->node : NULL);
    }
    for (size_t i = 0; i < WAITERS; i++) {
        tqi_fit_remove(&fit, &all[i].node);
    }
    assert_int_equal(fit.count, 0);
    assert_null(tqi_fit_first(&fit, UINT32_MAX));
    tqi_fit_fini(&fit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(heap_is_a_sorted_list),
        cmocka_unit_test(heap_takes_any_order),
        cmocka_unit_test(fit_finds_the_oldest_that_fits),
    };

    return cmocka_run_group_tests_name("order", tests, NULL, NULL);
}
