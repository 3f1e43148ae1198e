/*
 * name_table_test.c - names are found with and without a table.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tq/tq.h>

#include "base/name_table.h"

typedef struct named {
    int before;
    const char *name;
    char text[12];
} named;

static named *some(size_t n)
{
    named *all = calloc(n, sizeof(*all));

    assert_non_null(all);
    for (size_t i = 0; i < n; i++) {
        snprintf(all[i].text, sizeof(all[i].text), "f%zu", i * 7);
        all[i].name = all[i].text;
    }
    return all;
}

static void finds_each_name_at_its_place(void **state)
{
    const size_t counts[] = {1, TQI_NAMES_FEW, TQI_NAMES_FEW + 1, 33, 1000, 70000};

    (void)state;
    for (size_t c = 0; c < sizeof(counts) / sizeof(*counts); c++) {
        size_t n = counts[c];
        named *all = some(n);
        tqi_name_array names = TQI_NAMES(all, name, n);
        uint32_t *table = tqi_name_table(names);
        tq_error err = {0};

        assert_true((table != NULL) == (n > TQI_NAMES_FEW));
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(tqi_name_find(names, table, all[i].text), i);
        }
        assert_int_equal(tqi_name_find(names, table, "f1"), -1);
        assert_int_equal(tqi_name_find(names, table, ""), -1);
        assert_int_equal(tqi_check_distinct("field", names, &err), TQ_OK);
        all[n - 1].name = all[n / 2].text;
        assert_int_equal(tqi_check_distinct("field", names, &err), n == 1 ? TQ_OK : TQ_EINVAL);
        if (n > 1) {
            char want[64];
            snprintf(want, sizeof(want), "field '%s' is given twice", all[n / 2].text);
            assert_string_equal(err.message, want);
            /* The first occurrence of a name is the one found. */
            uint32_t *again = tqi_name_table(names);
            assert_int_equal(tqi_name_find(names, again, all[n / 2].text), n / 2);
            free(again);
        }
        free(table);
        free(all);
    }
}

static void no_names_are_distinct(void **state)
{
    tqi_name_array none = {NULL, sizeof(char *), 0};
    tq_error err = {0};

    (void)state;
    assert_null(tqi_name_table(none));
    assert_int_equal(tqi_name_find(none, NULL, "a"), -1);
    assert_int_equal(tqi_check_distinct("field", none, &err), TQ_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_each_name_at_its_place),
        cmocka_unit_test(no_names_are_distinct),
    };

    return cmocka_run_group_tests_name("name_table", tests, NULL, NULL);
}
