/*
 * layout_test.c - how columns are laid out when read: distances, gaps, what cannot be padded, the caller's memory,
 * lack of memory.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/testkit_oom.h"
#include "client/get/get.h"

static const tq_dtype i16 = {TQ_INT, 16};
static const char *names[] = {"x"};

/* A read of one column whose shapes are known. */
typedef struct reading {
    tqi_client_get get;
    tq_meta meta;
    uint64_t offsets[8];
} reading;

static void begin(reading *r, size_t rows, const uint32_t *ndims, const uint64_t *dims, tq_dtype dtype)
{
    tq_data_column *column;

    memset(r, 0, sizeof(*r));
    r->meta.n = rows;
    r->get.meta = &r->meta;
    r->get.fields = names;
    r->get.n_fields = 1;
    r->get.data = tqi_client_data_alloc(rows, 1);
    assert_non_null(r->get.data);
    column = &r->get.data->columns[0];
    column->name = "x";
    column->dtype = dtype;
    column->ndims = ndims;
    column->dims = dims;
    column->offsets = r->offsets;
    for (size_t i = 0; i < rows; i++) {
        uint64_t size = dtype.bits / 8;
        for (uint32_t d = 0; d < ndims[i]; d++) {
            size *= *dims++;
        }
        r->offsets[i + 1] = r->offsets[i] + size;
    }
}

static void end(reading *r)
{
    tq_data_unref(r->get.data);
    tqi_region_fini(&r->get.task.region);
}

static int ask(reading *r, const tq_get_field *field, tq_error *err)
{
    tq_get_options options = {.size = sizeof(options), .fields = field, .n_fields = 1};

    return tqi_client_get_layouts(&r->get, &options, err);
}

static const tq_data_column *column_of(const reading *r)
{
    return tq_data_column_at(r->get.data, 0);
}

static void rows_lie_at_equal_distances(void **state)
{
    static const uint32_t ndims[] = {2, 2, 2};
    static const uint64_t dims[] = {2, 3, 0, 3, 5, 3};
    tq_get_field field = {.name = "x", .padded = true, .multiple = 4, .pad_dtype = i16};
    int16_t pad = -7, *at;
    tq_error err = {0};
    reading r;

    (void)state;
    memcpy(field.pad, &pad, sizeof(pad));
    begin(&r, 3, ndims, dims, i16);
    assert_int_equal(ask(&r, &field, &err), TQ_OK);
    assert_int_equal(tqi_client_get_pad(&r.get, 0, &err), TQ_OK);
    assert_true(column_of(&r)->padded);
    assert_int_equal(column_of(&r)->length, 8);
    for (size_t i = 0; i <= 3; i++) {
        assert_int_equal(column_of(&r)->offsets[i], i * 8 * 3 * sizeof pad);
    }
    assert_int_equal(r.get.gaps, (3 * 8 - 7) * 3 * sizeof pad);
    assert_int_equal(tqi_client_get_memory(&r.get, 0, r.offsets[3], &err), TQ_OK);
    at = column_of(&r)->data;
    memset(at, 0, r.offsets[3]);
    tqi_client_get_fill(&r.get);
    for (size_t row = 0; row < 3; row++) {
        for (size_t i = 0; i < 24; i++) {
            assert_int_equal(at[row * 24 + i], i < dims[2 * row] * 3 ? 0 : pad);
        }
    }
    end(&r);
}

static void at_least_as_long_as_asked(void **state)
{
    static const uint32_t ndims[] = {1, 1};
    static const uint64_t dims[] = {2, 2};
    tq_get_field field = {.name = "x", .padded = true, .length = 5, .pad = {9, 9}};
    tq_error err = {0};
    reading r;

    (void)state;
    begin(&r, 2, ndims, dims, i16);
    assert_int_equal(ask(&r, &field, &err), TQ_OK);
    assert_int_equal(tqi_client_get_pad(&r.get, 0, &err), TQ_OK);
    assert_int_equal(column_of(&r)->length, 5);
    assert_int_equal(r.get.layouts[0].pad[0], 0); /* no dtype: zeros */
    end(&r);
}

/* What cannot be padded stays end to end. */
static void others_stay_as_they_are(void **state)
{
    static const uint32_t none[] = {0, 0}, mixed[] = {1, 2}, two[] = {2, 2};
    static const uint64_t unused[] = {0}, mixed_dims[] = {2, 2, 1}, inner[] = {2, 3, 2, 4};
    static const struct {
        const uint32_t *ndims;
        const uint64_t *dims;
        size_t rows;
        tq_kind kind;
    } cases[] = {
        {none, unused, 2, TQ_TENSOR}, {mixed, mixed_dims, 2, TQ_TENSOR}, {two, inner, 2, TQ_TENSOR},
        {none, unused, 0, TQ_TENSOR}, {mixed, mixed_dims, 1, TQ_VALUE},
    };
    tq_get_field field = {.name = "x", .padded = true, .multiple = 64};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        tq_error err = {0};
        reading r;
        uint64_t before[8];
        begin(&r, cases[i].rows, cases[i].ndims, cases[i].dims, i16);
        r.get.data->columns[0].kind = cases[i].kind;
        memcpy(before, r.offsets, sizeof(before));
        assert_int_equal(ask(&r, &field, &err), TQ_OK);
        assert_int_equal(tqi_client_get_pad(&r.get, 0, &err), TQ_OK);
        assert_false(column_of(&r)->padded);
        assert_int_equal(r.get.gaps, 0);
        assert_memory_equal(before, r.offsets, sizeof before);
        end(&r);
    }
}

static void what_is_asked_is_checked(void **state)
{
    static const uint32_t ndims[] = {1};
    static const uint64_t dims[] = {3};
    const tq_get_field wrong[] = {
        {.name = "y"}, {.name = NULL}, {.name = "x", .dest_size = 4}, {.name = "x", .pad_dtype = {2, 255}}};
    const int codes[] = {TQ_EFIELD, TQ_EFIELD, TQ_EINVAL, TQ_EDTYPE};
    const tq_get_field other = {.name = "x", .padded = true, .pad_dtype = {TQ_FLOAT, 16}};
    const tq_get_field longest[] = {{.name = "x", .padded = true, .length = UINT64_MAX, .multiple = 2},
                                    {.name = "x", .padded = true, .length = UINT64_MAX},
                                    {.name = "x", .padded = true, .length = UINT64_MAX / 2}};
    tq_error err = {0};
    reading r;

    (void)state;
    begin(&r, 1, ndims, dims, i16);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(ask(&r, &wrong[i], &err), codes[i]);
    }
    assert_int_equal(ask(&r, &other, &err), TQ_OK);
    assert_int_equal(tqi_client_get_pad(&r.get, 0, &err), TQ_EDTYPE);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(ask(&r, &longest[i], &err), TQ_OK);
        assert_int_equal(tqi_client_get_pad(&r.get, 0, &err), TQ_EINVAL);
        assert_non_null(strstr(err.message, "'x'"));
        assert_int_equal(r.offsets[1], 6); /* as it was */
    }
    end(&r);
}

static void memory_of_the_caller(void **state)
{
    static const uint32_t ndims[] = {1};
    static const uint64_t dims[] = {3};
    int16_t memory[3];
    tq_get_field field = {.name = "x", .dest = memory, .dest_size = sizeof(memory)};
    tq_error err = {0};
    reading r;

    (void)state;
    begin(&r, 1, ndims, dims, i16);
    assert_int_equal(ask(&r, &field, &err), TQ_OK);
    assert_int_equal(tqi_client_get_memory(&r.get, 0, sizeof memory, &err), TQ_OK);
    assert_ptr_equal(column_of(&r)->data, memory);
    assert_int_equal(tqi_client_get_memory(&r.get, 0, sizeof memory + 1, &err), TQ_EROWS);
    assert_non_null(strstr(err.message, "'x'"));
    end(&r); /* does not free it */
}

static void memory_that_is_not_there(void **state)
{
    static const uint32_t ndims[] = {1};
    static const uint64_t dims[] = {3};
    tq_get_field field = {.name = "x", .padded = true};
    tq_error err = {0};
    reading r;

    (void)state;
    begin(&r, 1, ndims, dims, i16);
    oom_all_after(0);
    assert_int_equal(ask(&r, &field, &err), TQ_ENOMEM);
    assert_int_equal(tqi_client_get_memory(&r.get, 0, 6, &err), TQ_ENOMEM);
    oom_end();
    assert_int_equal(ask(&r, &field, &err), TQ_OK);
    assert_int_equal(tqi_client_get_memory(&r.get, 0, 6, &err), TQ_OK);
    end(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_lie_at_equal_distances), cmocka_unit_test(at_least_as_long_as_asked),
        cmocka_unit_test(others_stay_as_they_are),     cmocka_unit_test(what_is_asked_is_checked),
        cmocka_unit_test(memory_of_the_caller),        cmocka_unit_test(memory_that_is_not_there),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
