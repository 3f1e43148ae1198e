/*
 * unshared_test.c - a store on a system without memfds: it works, and shares its memory with nobody.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "base/testkit_oom.h"
#include "store/store.h"

#define MIB (UINT64_C(1) << 20)

int __real_memfd_create(const char *name, unsigned flags);
int __wrap_memfd_create(const char *name, unsigned flags);

static int refuse;          /* errno of every call, 0: none is refused */
static unsigned unknown;    /* flags that the kernel does not know */
static const char *refused; /* only memfds of that name; NULL: all */

int __wrap_memfd_create(const char *name, unsigned flags)
{
    if ((flags & unknown) != 0) {
        errno = EINVAL;
        return -1;
    }
    if (refuse != 0 && (refused == NULL || strcmp(name, refused) == 0)) {
        errno = refuse;
        return -1;
    }
    return __real_memfd_create(name, flags);
}

static int reset(void **state)
{
    (void)state;
    refuse = 0;
    unknown = 0;
    refused = NULL;
    return 0;
}

static tqi_store *make(uint64_t capacity)
{
    tqi_store_options options = {.capacity = capacity};
    tqi_store *store = NULL;
    tq_error err = {0};

    assert_int_equal(tqi_store_alloc(&options, &store, &err), TQ_OK);
    return store;
}

static void says_why(void **state)
{
    static const int reasons[] = {ENOSYS, EPERM, EACCES};

    (void)state;
    for (size_t i = 0; i < sizeof(reasons) / sizeof(*reasons); i++) {
        refuse = reasons[i];
        tqi_store *store = make(4 * MIB);
        assert_non_null(strstr(tqi_store_unshared(store), "memfd_create: "));
        assert_non_null(strstr(tqi_store_unshared(store), strerror(reasons[i])));
        assert_int_equal(tqi_store_arena_fd(store), -1);
        assert_int_equal(tqi_store_slots_fd(store), -1);
        tqi_store_free(store);
    }
}

/* If the slot table cannot be shared, neither is the arena. */
static void shares_all_or_nothing(void **state)
{
    (void)state;
    refuse = EPERM;
    refused = "tq-slots";
    tqi_store *store = make(4 * MIB);
    assert_non_null(tqi_store_unshared(store));
    assert_int_equal(tqi_store_slots_fd(store), -1);
    tqi_store_free(store);
}

/* Anything but a refusal is an error: a temporary failure must not make a store permanently slow. */
static void other_failures_are_errors(void **state)
{
    tqi_store_options options = {.capacity = MIB};
    tqi_store *store = NULL;
    tq_error err = {0};

    (void)state;
    refuse = EMFILE;
    assert_int_equal(tqi_store_alloc(&options, &store, &err), TQ_EIO);
    assert_non_null(strstr(err.message, strerror(EMFILE)));
    assert_null(store);
}

/* Before Linux 6.3 there is no MFD_NOEXEC_SEAL. */
static void older_kernels_share(void **state)
{
    (void)state;
    unknown = 0x8;
    tqi_store *store = make(4 * MIB);
    assert_null(tqi_store_unshared(store));
    assert_true(tqi_store_arena_fd(store) >= 0);
    assert_true(tqi_store_slots_fd(store) >= 0);
    tqi_store_free(store);
}

static void keeps_blocks(void **state)
{
    tq_error err = {0};
    tqi_store_place places[3];

    (void)state;
    refuse = ENOSYS;
    tqi_store *store = make(64 * MIB);
    for (uint64_t i = 0; i < 3; i++) {
        places[i] = (tqi_store_place){.id = i + 1, .size = 5 * MIB};
    }
    assert_int_equal(tqi_store_reserve(store, places, 3, true, &err), TQ_OK);
    for (uint64_t i = 0; i < 3; i++) {
        uint64_t size = 0;
        uint8_t *at = tqi_store_find(store, i + 1, places[i].slot, &size);
        assert_non_null(at);
        assert_int_equal(size, 5 * MIB);
        memset(at, (int)i + 1, size);
    }
    assert_true(tqi_store_check_for_tests(store));
    assert_true(tqi_store_resident_for_tests(store) >= 15 * MIB);
    const uint8_t *second = tqi_store_find(store, 2, places[1].slot, NULL);
    assert_true(tqi_store_free_block(store, 1));
    assert_true(tqi_store_free_block(store, 3));
    /* Idle memory goes back, that of blocks stays. */
    assert_true(tqi_store_trim(store) >= 9 * MIB);
    assert_true(tqi_store_resident_for_tests(store) <= 6 * MIB);
    for (uint64_t i = 0; i < 5 * MIB; i++) {
        assert_int_equal(second[i], 2);
    }
    while (tqi_store_warm(store, 4 * MIB) > 0) {
    }
    assert_true(tqi_store_check_for_tests(store));
    tqi_store_drop_all(store);
    assert_int_equal(tqi_store_used(store), 0);
    tqi_store_free(store);
}

static void alloc_fails_cleanly(void **state)
{
    tqi_store_options options = {.capacity = MIB};
    tqi_store *store = NULL;
    tq_error err;
    long n = 0;
    int rc;

    (void)state;
    refuse = ENOSYS;
    do {
        oom_all_after(n++);
        rc = tqi_store_alloc(&options, &store, &err);
        oom_end();
        assert_true(rc == TQ_OK || (rc == TQ_ENOMEM && store == NULL));
    } while (rc != TQ_OK);
    tqi_store_free(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(says_why, reset),
        cmocka_unit_test_setup(shares_all_or_nothing, reset),
        cmocka_unit_test_setup(other_failures_are_errors, reset),
        cmocka_unit_test_setup(older_kernels_share, reset),
        cmocka_unit_test_setup(keeps_blocks, reset),
        cmocka_unit_test_setup(alloc_fails_cleanly, reset),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
