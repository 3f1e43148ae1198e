/*
 * region_test.c - memory that is freed as a whole: growth, alignment, overflow, no memory (region.h).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/region.h"
#include "base/testkit_oom.h"

/* Allocations that one call makes. */
static long allocations(tqi_region *region, size_t n)
{
    oom_all_after(1000);
    assert_non_null(tqi_region_array(region, n, 1));
    long made = 1000 - oom.left;
    oom_end();
    return made;
}

static void chunks_double_from_a_kibibyte_to_a_mebibyte(void **state)
{
    (void)state;
    tqi_region region = {0};

    for (size_t size = 1024; size <= (size_t)1 << 20; size *= 2) {
        assert_int_equal(allocations(&region, size - 16), 1);
        assert_int_equal(allocations(&region, 16), 0);
    }
    for (int i = 0; i < 3; i++) {
        assert_int_equal(allocations(&region, (size_t)1 << 20), 1);
    }
    /* What is larger has a chunk of its own. */
    assert_int_equal(allocations(&region, (size_t)3 << 20), 1);
    tqi_region_fini(&region);
    assert_null(region.chunks);
    assert_int_equal(allocations(&region, 1024), 1);
    tqi_region_fini(&region);
}

static void every_address_is_aligned_and_its_own(void **state)
{
    (void)state;
    tqi_region region = {0};
    uint8_t *at[600];

    for (size_t i = 0; i < 600; i++) {
        at[i] = i % 2 ? tqi_region_zero(&region, i, 1) : tqi_region_array(&region, i, 1);
        assert_non_null(at[i]);
        assert_int_equal((uintptr_t)at[i] % 16, 0);
        for (size_t k = 0; i % 2 && k < i; k++) {
            assert_int_equal(at[i][k], 0);
        }
        if (i > 0) {
            memset(at[i], (int)(i % 251), i);
        }
    }
    for (size_t i = 0; i < 600; i++) {
        for (size_t k = 0; k < i; k++) {
            assert_int_equal(at[i][k], i % 251);
        }
    }
    tqi_region_fini(&region);
}

static void a_product_that_overflows_is_no_memory(void **state)
{
    (void)state;
    tqi_region region = {0};

    assert_null(tqi_region_array(&region, SIZE_MAX / 4, 8));
    assert_null(tqi_region_array(&region, SIZE_MAX, 1));
    assert_null(tqi_region_zero(&region, SIZE_MAX / 2 + 1, 1));
    assert_null(region.chunks);
}

static void without_memory_what_was_made_stays(void **state)
{
    (void)state;
    tqi_region region = {0};
    const char *const texts[] = {"one", NULL, "", "three"};

    oom_all_after(0);
    assert_null(tqi_region_string(&region, "one"));
    assert_null(tqi_region_strings(&region, texts, 4, NULL));
    assert_int_equal(oom_end(), 2);

    char **copies = tqi_region_strings(&region, texts, 4, NULL);
    assert_non_null(copies);
    oom_all_after(0);
    assert_null(tqi_region_array(&region, 4096, 1));
    /* What fits into the chunk at hand needs no memory. */
    assert_non_null(tqi_region_copy(&region, "abc", 4, 1));
    assert_int_equal(oom_end(), 1);
    assert_string_equal(copies[0], "one");
    assert_null(copies[1]);
    assert_null(copies[2]);
    assert_string_equal(copies[3], "three");
    assert_ptr_not_equal(copies[0], texts[0]);
    tqi_region_fini(&region);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunks_double_from_a_kibibyte_to_a_mebibyte),
        cmocka_unit_test(every_address_is_aligned_and_its_own),
        cmocka_unit_test(a_product_that_overflows_is_no_memory),
        cmocka_unit_test(without_memory_what_was_made_stays),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
