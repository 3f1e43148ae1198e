/*
 * hash_test.c - additions that fail for lack of memory leave the table as it was (hash.h).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>

#include "base/hash.h"
#include "base/testkit_oom.h"

typedef struct entry {
    uint64_t id;
    char name[16];
    UT_hash_handle hh;
} entry;

#define N 4000u

static entry *entry_make(uint64_t id)
{
    entry *made = calloc(1, sizeof(*made));

    assert_non_null(made);
    made->id = id;
    snprintf(made->name, sizeof(made->name), "n%llu", (unsigned long long)id);
    return made;
}

static void expect_ids(entry *head, uint64_t n)
{
    assert_int_equal(HASH_COUNT(head), n);
    for (uint64_t id = 0; id <= n; id++) {
        entry *found = NULL;
        HASH_FIND(hh, head, &id, sizeof(id), found);
        if (id == n) {
            assert_null(found);
        } else {
            assert_non_null(found);
            assert_int_equal(found->id, id);
        }
    }
}

static void clear(entry **head)
{
    entry *each = NULL;
    entry *next = NULL;

    HASH_ITER (hh, *head, each, next) {
        HASH_DEL(*head, each);
        free(each);
    }
    assert_null(*head);
}

/* The first addition allocates the table, and about one in ten more buckets: each of these fails once. */
static void a_failed_addition_leaves_the_table_as_it_was(void **state)
{
    (void)state;
    entry *head = NULL;
    unsigned failures = 0;

    for (uint64_t id = 0; id < N; id++) {
        entry *made = entry_make(id);
        assert_false(TQI_HASH_HAS(made));
        for (long after = 0;; after++) {
            oom_one_after(after);
            bool added = TQI_HASH_ADD(head, id, made);
            long failed = oom_end();
            assert_int_equal(added, failed == 0);
            assert_int_equal(TQI_HASH_HAS(made), added);
            if (added) {
                break;
            }
            failures++;
            assert_int_equal(HASH_COUNT(head), id);
            entry *found = NULL;
            HASH_FIND(hh, head, &id, sizeof(id), found);
            assert_null(found);
            if (id < 100) {
                expect_ids(head, id);
            }
        }
    }
    /* The table, its buckets, and at least one growth. */
    assert_true(failures >= 3);
    expect_ids(head, N);
    clear(&head);
}

static void elements_are_found_by_a_key_outside_the_member(void **state)
{
    (void)state;
    entry *head = NULL;

    for (uint64_t id = 0; id < 100; id++) {
        entry *made = entry_make(id);
        assert_true(TQI_HASH_ADD_KEYPTR(head, made->name, strlen(made->name), made));
    }
    entry *made = entry_make(100);
    entry *other = NULL;
    oom_all_after(0);
    assert_false(TQI_HASH_ADD_KEYPTR(other, made->name, strlen(made->name), made));
    assert_int_equal(oom_end(), 1);
    assert_null(other);
    assert_false(TQI_HASH_HAS(made));
    free(made);
    entry *found = NULL;
    HASH_FIND(hh, head, "n42", 3, found);
    assert_non_null(found);
    assert_int_equal(found->id, 42);
    clear(&head);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failed_addition_leaves_the_table_as_it_was),
        cmocka_unit_test(elements_are_found_by_a_key_outside_the_member),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
