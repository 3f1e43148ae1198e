/*
 * value_test.c - encoded values: encoded values can be read back, at every length where the header changes, and bytes
 * that are not a value are refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include <tq/value.h>

static tq_value read_row(const tq_column *column, size_t row)
{
    const uint8_t *at = column->slices[0].data;
    tq_value value;
    size_t used;

    for (size_t i = 0; i < row; i++) {
        at += column->dims[i];
    }
    assert_int_equal(tq_value_check(at, column->dims[row], NULL), TQ_OK);
    assert_int_equal(tq_value_read(at, column->dims[row], &value, &used, NULL), TQ_OK);
    assert_true(used <= column->dims[row]);
    return value;
}

static void numbers_are_encoded_at_every_width(void **state)
{
    static const int64_t numbers[] = {0,
                                      1,
                                      127,
                                      128,
                                      255,
                                      256,
                                      65535,
                                      65536,
                                      -1,
                                      -32,
                                      -33,
                                      -128,
                                      -129,
                                      -32768,
                                      -32769,
                                      UINT32_MAX,
                                      1LL << 32,
                                      INT32_MIN,
                                      (int64_t)INT32_MIN - 1,
                                      INT64_MAX,
                                      INT64_MIN};
    size_t n = sizeof(numbers) / sizeof(numbers[0]);
    tq_values *values = tq_values_alloc();
    tq_column column;

    (void)state;

    for (size_t i = 0; i < n; i++) {
        assert_int_equal(tq_values_int(values, numbers[i]), TQ_OK);
    }
    assert_int_equal(tq_values_uint(values, UINT64_MAX), TQ_OK);
    assert_int_equal(tq_values_float(values, -2.5), TQ_OK);
    assert_int_equal(tq_values_bool(values, true), TQ_OK);
    assert_int_equal(tq_values_null(values), TQ_OK);
    assert_int_equal(tq_values_column(values, "n", &column, NULL), TQ_OK);
    assert_int_equal(column.rows, n + 4);
    for (size_t i = 0; i < n; i++) {
        tq_value value = read_row(&column, i);
        assert_int_equal(value.type, TQ_VALUE_INT);
        assert_true(value.integer == numbers[i]);
    }
    assert_int_equal(read_row(&column, n).type, TQ_VALUE_UINT);
    assert_true(read_row(&column, n).natural == UINT64_MAX);
    assert_true(read_row(&column, n + 1).number == -2.5);
    assert_true(read_row(&column, n + 2).boolean);
    assert_int_equal(read_row(&column, n + 3).type, TQ_VALUE_NULL);
    tq_values_free(values);
}

static void texts_are_encoded_at_every_length(void **state)
{
    static const size_t sizes[] = {0, 1, 31, 32, 255, 256, 65535, 65536};
    size_t n = sizeof(sizes) / sizeof(sizes[0]);
    char *text = malloc(65536);
    tq_values *values = tq_values_alloc();
    tq_column column;

    (void)state;

    memset(text, 'x', 65536);
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(tq_values_str(values, text, sizes[i]), TQ_OK);
        assert_int_equal(tq_values_bytes(values, text, sizes[i]), TQ_OK);
    }
    assert_int_equal(tq_values_str(values, "é", 2), TQ_OK);
    /* No UTF-8: nothing is added. */
    assert_int_equal(tq_values_str(values, "\xc3", 1), TQ_EINVAL);
    assert_int_equal(tq_values_str(values, "\xff", 1), TQ_EINVAL);
    assert_int_equal(tq_values_str(values, "\xed\xa0\x80", 3), TQ_EINVAL);
    assert_int_equal(tq_values_count(values), 2 * n + 1);
    assert_int_equal(tq_values_column(values, "t", &column, NULL), TQ_OK);
    for (size_t i = 0; i < 2 * n; i++) {
        tq_value value = read_row(&column, i);
        assert_int_equal(value.type, i % 2 ? TQ_VALUE_BYTES : TQ_VALUE_STR);
        assert_int_equal(value.size, sizes[i / 2]);
        assert_memory_equal(value.bytes, text, value.size);
    }
    tq_values_free(values);
    free(text);
}

static void lists_and_maps_are_encoded(void **state)
{
    tq_values *values = tq_values_alloc();
    tq_column column;
    tq_tag tag;
    tq_error err = {0};

    (void)state;

    assert_int_equal(tq_values_map(values, 2), TQ_OK);
    assert_int_equal(tq_values_str(values, "a", 1), TQ_OK);
    assert_int_equal(tq_values_list(values, 16), TQ_OK);
    for (int i = 0; i < 16; i++) {
        assert_int_equal(tq_values_int(values, i), TQ_OK);
    }
    assert_int_equal(tq_values_column(values, "m", &column, &err), TQ_EINVAL);
    assert_non_null(strstr(err.message, "'m': value 0 is a list or map that lacks 2 items"));
    assert_int_equal(tq_values_str(values, "b", 1), TQ_OK);
    assert_int_equal(tq_values_map(values, 0), TQ_OK);
    assert_int_equal(tq_values_list(values, 0), TQ_OK);
    assert_int_equal(tq_values_count(values), 2);
    assert_int_equal(tq_values_column(values, "m", &column, &err), TQ_OK);
    assert_int_equal(read_row(&column, 0).type, TQ_VALUE_MAP);
    assert_int_equal(read_row(&column, 0).items, 2);
    assert_int_equal(read_row(&column, 1).items, 0);
    assert_int_equal(tq_values_tag(values, "m", &tag, &err), TQ_OK);
    assert_int_equal(tag.sizes[0], column.dims[0]);
    tq_values_free(values);
}

static void what_is_no_value_is_refused(void **state)
{
    static const struct {
        const char *bytes;
        size_t size;
        const char *what;
    } wrong[] = {
        {"", 0, "no bytes"},
        {"hello", 5, "more follows behind"},
        {"\xc1", 1, "193"},
        {"\xa5hell", 5, "cut off"},
        {"\xdb\xff\xff\xff\xff", 5, "cut off"},
        {"\x92\x01", 2, "cut off"},
        {"\x81\x01", 2, "cut off"},
        {"\xcb\x01", 2, "cut off"},
        {"\xdf\xff\xff\xff\xff", 5, "cut off"},
        {"\xd4", 1, "cut off"},
    };
    tq_error err = {0};
    tq_value value;

    (void)state;

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        /* Of its own size, so that a read beyond it is seen. */
        uint8_t *copy = malloc(wrong[i].size + 1);
        memcpy(copy, wrong[i].bytes, wrong[i].size);
        int rc = wrong[i].size ? tq_value_check(copy, wrong[i].size, &err) : tq_value_read(copy, 0, &value, NULL, &err);
        assert_int_equal(rc, TQ_EINVAL);
        if (strstr(err.message, wrong[i].what) == NULL) {
            fail_msg("%zu: %s", i, err.message);
        }
        free(copy);
    }
    assert_int_equal(tq_value_check("hello", 5, &err), TQ_EINVAL);
    assert_non_null(strstr(err.message, "not an encoded value (5 bytes: 104 101 108 108 111)"));
    assert_int_equal(tq_value_read("\xd4\x05z", 3, &value, NULL, &err), TQ_OK);
    assert_int_equal(value.type, TQ_VALUE_EXT);
    assert_int_equal(value.ext, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_encoded_at_every_width),
        cmocka_unit_test(texts_are_encoded_at_every_length),
        cmocka_unit_test(lists_and_maps_are_encoded),
        cmocka_unit_test(what_is_no_value_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
