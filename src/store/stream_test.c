/*
 * stream_test.c - copies that bypass the caches copy exactly the requested bytes, wherever they begin and end.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "store/stream.h"

#define ROOM  8192u
#define GUARD 0xeeu

static void copies_any_bytes(void **state)
{
    static const size_t sizes[] = {0, 1, 63, 64, 65, 1023, 1024, 1025, 1088, 1151, 4096, 8000};
    uint8_t *from = malloc(ROOM + 64), *to = malloc(ROOM + 64);

    (void)state;
    assert_non_null(from);
    assert_non_null(to);
    for (size_t i = 0; i < ROOM + 64; i++) {
        from[i] = (uint8_t)(i * 7 + i / 251);
    }
    for (size_t k = 0; k < sizeof(sizes) / sizeof(*sizes); k++) {
        for (size_t shift = 0; shift < 64; shift += 7) {
            memset(to, GUARD, ROOM + 64);
            tqi_store_stream_copy(to + shift, from + 63 - shift, sizes[k]);
            assert_memory_equal(to + shift, from + 63 - shift, sizes[k]);
            for (size_t i = 0; i < shift; i++) {
                assert_int_equal(to[i], GUARD);
            }
            for (size_t i = shift + sizes[k]; i < ROOM + 64; i++) {
                assert_int_equal(to[i], GUARD);
            }
        }
    }
    free(from);
    free(to);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(copies_any_bytes)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
