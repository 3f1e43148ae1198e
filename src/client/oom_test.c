/*
 * oom_test.c - every allocation made for metadata, and while a client opens, fails once: the call reports it, and
 * nothing leaks.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include <tq/tq.h>

#include "base/testkit_oom.h"

static const char *const fields[] = {"prompt", "answer"};
static const uint32_t indexes[] = {3, 1, 4, 5};
static const uint32_t rows[] = {2, 0, 2};

static tq_meta *make(void)
{
    tq_meta *meta = NULL;

    assert_int_equal(tq_meta_make("p", indexes, NULL, 4, fields, 2, &meta, NULL), TQ_OK);
    return meta;
}

/* One of the calls that make a meta. */
typedef int (*maker)(tq_meta *from, tq_meta **out, tq_error *err);

static int by_hand(tq_meta *from, tq_meta **out, tq_error *err)
{
    (void)from;
    return tq_meta_make("p", indexes, NULL, 4, fields, 2, out, err);
}

static int by_select(tq_meta *from, tq_meta **out, tq_error *err)
{
    return tq_meta_select(from, rows, 3, fields, 1, out, err);
}

static int by_concat(tq_meta *from, tq_meta **out, tq_error *err)
{
    tq_meta *both[] = {from, from};

    return tq_meta_concat(both, 2, out, err);
}

static int by_union(tq_meta *from, tq_meta **out, tq_error *err)
{
    return tq_meta_union(from, from, out, err);
}

static int by_bytes(tq_meta *from, tq_meta **out, tq_error *err)
{
    uint8_t *bytes = NULL;
    size_t size = 0;
    int rc = tq_meta_pack(from, &bytes, &size, err);

    rc = rc ? rc : tq_meta_unpack(bytes, size, out, err);
    free(bytes);
    return rc;
}

static void metadata_fails_cleanly(void **state)
{
    static const maker makers[] = {by_hand, by_select, by_concat, by_union, by_bytes};
    tq_meta *from = make();

    (void)state;
    for (size_t m = 0; m < sizeof(makers) / sizeof(makers[0]); m++) {
        tq_meta *out = NULL;
        long n = 0;
        int rc;
        do {
            tq_error err = {0};
            oom_all_after(n++);
            rc = makers[m](from, &out, &err);
            oom_end();
            assert_true(rc == TQ_OK || (rc == TQ_ENOMEM && err.code == TQ_ENOMEM && !out));
        } while (rc != TQ_OK);
        assert_true(n > 1);
        tq_meta_unref(out);
    }
    tq_meta_unref(from);
}

/* There is no system at that address: a client reports that if it has enough memory, and otherwise reports the lack of
 * memory. */
static void open_fails_cleanly(void **state)
{
    tq_client_options options = {
        .size = sizeof(options),
        .address = "unix:/nonexistent/tq.sock",
        .token = "secret",
        .manager = "",
        .timeout = 0.01,
    };
    long n = 0;
    int rc;

    (void)state;
    do {
        tq_client *client = NULL;
        tq_error err = {0};
        oom_all_after(n++);
        rc = tq_client_open(&options, &client, &err);
        oom_end();
        assert_true(rc == TQ_ENOMEM || rc == TQ_EUNREACHABLE || rc == TQ_ETIMEDOUT);
        assert_int_equal(err.code, rc);
        assert_null(client);
    } while (rc == TQ_ENOMEM);
    assert_true(n > 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(metadata_fails_cleanly),
        cmocka_unit_test(open_fails_cleanly),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
