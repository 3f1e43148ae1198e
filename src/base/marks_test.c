/*
 * marks_test.c - the numbers for cells without a block, in memory and in messages (marks.h).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/marks.h"

/* The wire format: protocol/tq.proto says "1 + blocks.count" and "2 + blocks.count". */
static void marks_follow_the_blocks_in_a_message(void **state)
{
    (void)state;
    assert_int_equal(tqi_mark_pack(TQI_BLOCK_NONE, 7), 0);
    assert_int_equal(tqi_mark_pack(1, 7), 1);
    assert_int_equal(tqi_mark_pack(7, 7), 7);
    assert_int_equal(tqi_mark_pack(TQI_BLOCK_LOST, 7), 8);
    assert_int_equal(tqi_mark_pack(TQI_BLOCK_OPAQUE, 7), 9);
    assert_int_equal(tqi_mark_pack(TQI_BLOCK_LOST, 0), 1);
    assert_int_equal(7 + TQI_MARK_UNKNOWN, 10);
    assert_int_equal(7 + TQI_MARK_UNKNOWN_READY, 11);
}

static void every_number_has_one_meaning(void **state)
{
    (void)state;
    static const uint32_t counts[] = {0, 1, 7, 1u << 20};

    for (size_t c = 0; c < sizeof(counts) / sizeof(counts[0]); c++) {
        uint32_t n = counts[c];
        for (uint32_t number = 0; number <= n + 2; number += number == 0 || number + 9 > n ? 1 : n - 8) {
            uint32_t block = tqi_mark_unpack(number, n);
            assert_int_equal(tqi_mark_pack(block, n), number);
            assert_int_equal(tqi_block_named(block), number >= 1 && number <= n);
        }
        assert_int_equal(tqi_mark_unpack((uint64_t)n + 3, n), TQI_BLOCK_UNKNOWN);
        assert_int_equal(tqi_mark_unpack(UINT64_MAX, n), TQI_BLOCK_UNKNOWN);
        assert_int_equal(tqi_mark_unpack(UINT32_MAX, n), TQI_BLOCK_UNKNOWN);
    }
}

static void marks_are_no_blocks(void **state)
{
    (void)state;
    assert_false(tqi_block_named(TQI_BLOCK_NONE));
    assert_false(tqi_block_named(TQI_BLOCK_LOST));
    assert_false(tqi_block_named(TQI_BLOCK_OPAQUE));
    assert_false(tqi_block_named(TQI_BLOCK_UNKNOWN));
    assert_true(tqi_block_named(TQI_BLOCK_MARKS - 1));
    assert_true(tqi_block_named(1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(marks_follow_the_blocks_in_a_message),
        cmocka_unit_test(every_number_has_one_meaning),
        cmocka_unit_test(marks_are_no_blocks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
