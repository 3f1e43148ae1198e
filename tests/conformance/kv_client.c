/*
 * kv_client.c - what every client of a key-value store (tq/kv.h) must do, tried on one of them.
 *
 *     kv_client TYPE LIBRARY CONFIG
 *
 * LIBRARY is a plug-in, or "-" for a built-in client. The store must be empty; it is left empty.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tq/kv.h>

#include "base/clock.h"
#include "manager/kv/kv.h"

#define KEYS    64u
#define THREADS 4u

static const tq_kv_client *client;
static const char *config;
static void *store;

/* --- the client ----------------------------------------------------------- */

static const tq_kv_client *load(const char *type, const char *library)
{
    const tq_kv_client *(*plugin)(uint32_t abi);

    if (strcmp(library, "-") == 0) {
        const tq_storage_manager *manager = NULL;
        tq_error err = {0};
        if (tq_manager_find(type, &manager, &err) != TQ_OK) {
            fprintf(stderr, "%s\n", err.message);
            return NULL;
        }
        return ((const tqi_kv_type *)manager)->client;
    }
    void *handle = dlopen(library, RTLD_NOW);
    if (handle == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        return NULL;
    }
    *(void **)&plugin = dlsym(handle, "tq_kv_client_plugin");
    return plugin != NULL ? plugin(TQ_KV_ABI) : NULL;
}

static void *opened(void)
{
    void *state = calloc(1, client->state_size);
    tq_error err = {0};

    assert_non_null(state);
    if (client->open(state, client, config, &err) != TQ_OK) {
        fail_msg("open: %s", err.message);
    }
    return state;
}

static void closed(void *state)
{
    client->close(state);
    free(state);
}

static int setup(void **state)
{
    (void)state;
    store = opened();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    closed(store);
    return 0;
}

/* --- values --------------------------------------------------------------- */

/* A value of which every byte tells its key and its place. */
static uint8_t *bytes_of(unsigned key, uint64_t size)
{
    uint8_t *bytes = malloc(size);

    assert_non_null(bytes);
    for (uint64_t i = 0; i < size; i++) {
        bytes[i] = (uint8_t)(i * 7 + (i >> 8) + key * 131);
    }
    return bytes;
}

static void key_of(char out[TQ_KV_KEY_MAX + 1], unsigned key)
{
    snprintf(out, TQ_KV_KEY_MAX + 1, "tq/c0ffee/%x", key);
}

static void put_one(void *state, const char *key, const uint8_t *bytes, uint64_t size)
{
    /* In three slices, one of which may be empty. */
    tq_slice slices[3] = {
        {bytes, size / 3}, {bytes + size / 3, size / 2 - size / 3}, {bytes + size / 2, size - size / 2}};
    tq_kv_value value = {.key = key, .slices = slices, .n_slices = 3, .size = size};
    tq_error err = {0};

    if (client->put(state, &value, 1, UINT64_MAX, &err) != TQ_OK) {
        fail_msg("put of %llu bytes: %s", (unsigned long long)size, err.message);
    }
}

static bool get_range(void *state, const char *key, uint64_t whole, uint64_t offset, uint64_t size, uint8_t *dest)
{
    tq_kv_read read = {.key = key, .value_size = whole, .offset = offset, .size = size, .dest = dest};
    tq_error err = {0};

    if (client->get(state, &read, 1, UINT64_MAX, &err) != TQ_OK) {
        fail_msg("get of %llu bytes: %s", (unsigned long long)size, err.message);
    }
    return !read.missing;
}

static bool remove_one(void *state, const char *key)
{
    tq_kv_key gone = {.key = key};
    tq_error err = {0};

    if (client->remove(state, &gone, 1, UINT64_MAX, &err) != TQ_OK) {
        fail_msg("remove: %s", err.message);
    }
    return !gone.missing;
}

/* --- the contract --------------------------------------------------------- */

static void says_what_it_is(void **state)
{
    void *other = opened();
    const char *name = client->name(store);

    (void)state;
    assert_int_equal(client->abi, TQ_KV_ABI);
    assert_non_null(name);
    assert_in_range(strlen(name), 1, 200);
    assert_string_equal(name, client->name(other)); /* for it is the same store */
    closed(other);
}

static void keeps_values_of_every_size(void **state)
{
    static const uint64_t sizes[] = {1, 2, 7, 4096, 65535, 65536, 262144, 262145, 1000003, 5000000};
    char key[TQ_KV_KEY_MAX + 1];

    (void)state;
    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        if (client->value_max != 0 && sizes[i] > client->value_max) {
            continue;
        }
        uint8_t *bytes = bytes_of(i, sizes[i]), *got = calloc(1, sizes[i] + 1);
        key_of(key, i);
        put_one(store, key, bytes, sizes[i]);
        put_one(store, key, bytes, sizes[i]); /* a repeat is no error */
        got[sizes[i]] = 77;
        assert_true(get_range(store, key, sizes[i], 0, sizes[i], got));
        assert_memory_equal(got, bytes, sizes[i]);
        assert_int_equal(got[sizes[i]], 77); /* nothing is written after it */
        assert_true(remove_one(store, key));
        assert_false(remove_one(store, key));
        assert_false(get_range(store, key, sizes[i], 0, sizes[i], got));
        free(bytes);
        free(got);
    }
}

static void reads_ranges_if_it_says_so(void **state)
{
    const uint64_t size = 300000;
    uint8_t *bytes = bytes_of(3, size), *got = calloc(1, size);
    const uint64_t ranges[][2] = {{0, 1}, {0, 100}, {7, 4096}, {size - 1, 1}, {1, size - 1}};

    (void)state;
    put_one(store, "tq/c0ffee/range.0", bytes, size);
    for (size_t i = 0; client->partial && i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        assert_true(get_range(store, "tq/c0ffee/range.0", size, ranges[i][0], ranges[i][1], got));
        assert_memory_equal(got, bytes + ranges[i][0], ranges[i][1]);
    }
    assert_true(get_range(store, "tq/c0ffee/range.0", size, 0, size, got));
    assert_memory_equal(got, bytes, size);
    assert_true(remove_one(store, "tq/c0ffee/range.0"));
    if (client->partial) {
        assert_false(get_range(store, "tq/c0ffee/range.0", size, 5, 10, got));
    }
    free(bytes);
    free(got);
}

static void takes_long_keys(void **state)
{
    char key[TQ_KV_KEY_MAX + 1];
    uint8_t byte = 5, got = 0;

    (void)state;
    memset(key, 'k', TQ_KV_KEY_MAX);
    memcpy(key, "tq/", 3);
    key[20] = '.';
    key[TQ_KV_KEY_MAX] = 0;
    put_one(store, key, &byte, 1);
    assert_true(get_range(store, key, 1, 0, 1, &got));
    assert_int_equal(got, 5);
    key[TQ_KV_KEY_MAX - 1] = 'l'; /* another key */
    assert_false(get_range(store, key, 1, 0, 1, &got));
    key[TQ_KV_KEY_MAX - 1] = 'k';
    assert_true(remove_one(store, key));
}

/* Many values in one call: all of them, some of them, and some that do not exist. */
static void moves_many(void *state, unsigned first)
{
    char keys[KEYS][TQ_KV_KEY_MAX + 1];
    uint8_t *bytes[KEYS], *got[KEYS];
    tq_slice slices[KEYS];
    tq_kv_value values[KEYS];
    tq_kv_read reads[KEYS];
    tq_kv_key gone[KEYS];
    tq_error err = {0};

    for (unsigned i = 0; i < KEYS; i++) {
        uint64_t size = 1 + i * 997u;
        key_of(keys[i], first + i);
        bytes[i] = bytes_of(first + i, size);
        got[i] = calloc(1, size);
        slices[i] = (tq_slice){bytes[i], size};
        values[i] = (tq_kv_value){.key = keys[i], .slices = &slices[i], .n_slices = 1, .size = size};
        reads[i] = (tq_kv_read){.key = keys[i], .value_size = size, .size = size, .dest = got[i]};
        gone[i] = (tq_kv_key){.key = keys[i]};
    }
    assert_int_equal(client->put(state, values, KEYS, UINT64_MAX, &err), TQ_OK);
    assert_int_equal(client->get(state, reads, KEYS, UINT64_MAX, &err), TQ_OK);
    for (unsigned i = 0; i < KEYS; i++) {
        assert_false(reads[i].missing);
        assert_memory_equal(got[i], bytes[i], values[i].size);
    }
    assert_int_equal(client->remove(state, gone, KEYS / 2, UINT64_MAX, &err), TQ_OK);
    assert_int_equal(client->get(state, reads, KEYS, UINT64_MAX, &err), TQ_OK);
    for (unsigned i = 0; i < KEYS; i++) {
        assert_int_equal(reads[i].missing, i < KEYS / 2);
    }
    assert_int_equal(client->remove(state, gone, KEYS, UINT64_MAX, &err), TQ_OK);
    for (unsigned i = 0; i < KEYS; i++) {
        assert_int_equal(gone[i].missing, i < KEYS / 2);
        free(bytes[i]);
        free(got[i]);
    }
}

static void moves_many_at_a_time(void **state)
{
    (void)state;
    moves_many(store, 1000);
}

static void nothing_is_no_error(void **state)
{
    tq_kv_value value = {0};
    tq_kv_read read = {0};
    tq_kv_key key = {0};
    tq_error err = {0};

    (void)state;
    assert_int_equal(client->put(store, &value, 0, UINT64_MAX, &err), TQ_OK);
    assert_int_equal(client->get(store, &read, 0, UINT64_MAX, &err), TQ_OK);
    assert_int_equal(client->remove(store, &key, 0, UINT64_MAX, &err), TQ_OK);
}

static void is_seen_by_other_clients(void **state)
{
    void *other = opened();
    uint8_t *bytes = bytes_of(9, 70000), *got = calloc(1, 70000);

    (void)state;
    put_one(store, "tq/c0ffee/shared", bytes, 70000);
    assert_true(get_range(other, "tq/c0ffee/shared", 70000, 0, 70000, got));
    assert_memory_equal(got, bytes, 70000);
    assert_true(remove_one(other, "tq/c0ffee/shared"));
    assert_false(get_range(store, "tq/c0ffee/shared", 70000, 0, 70000, got));
    closed(other);
    free(bytes);
    free(got);
}

static void *thread_run(void *arg)
{
    for (unsigned turn = 0; turn < 5; turn++) {
        moves_many(store, 10000 * (1 + *(unsigned *)arg) + turn * KEYS);
    }
    return NULL;
}

static void is_called_from_several_threads(void **state)
{
    pthread_t threads[THREADS];
    unsigned numbers[THREADS];

    (void)state;
    for (unsigned i = 0; i < THREADS; i++) {
        numbers[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, thread_run, &numbers[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
}

/* With a deadline that has passed, a call does its work or reports that it is late; either way the client stays
 * usable. */
static void is_told_the_deadline(void **state)
{
    uint8_t byte = 1, got = 0;
    tq_slice slice = {&byte, 1};
    tq_kv_value value = {.key = "tq/c0ffee/late", .slices = &slice, .n_slices = 1, .size = 1};
    tq_error err = {0};
    uint64_t start = tqi_now();

    (void)state;
    int rc = client->put(store, &value, 1, start > 1 ? start - 1 : 0, &err);
    if (rc != TQ_OK) {
        assert_int_equal(rc, TQ_ETIMEDOUT);
        assert_true(err.message[0] != 0);
    }
    assert_true(tqi_now() - start < UINT64_C(5000000000));
    put_one(store, "tq/c0ffee/late", &byte, 1);
    assert_true(get_range(store, "tq/c0ffee/late", 1, 0, 1, &got));
    assert_int_equal(got, 1);
    assert_true(remove_one(store, "tq/c0ffee/late"));
}

static void opens_again(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 5; i++) {
        void *other = opened();
        moves_many(other, 2000);
        closed(other);
    }
}

static void names_what_is_wrong_in_its_config(void **state)
{
    void *other = calloc(1, client->state_size);
    tq_error err = {0};

    (void)state;
    assert_int_equal(client->open(other, client, "{\"nothing\": true}", &err), TQ_ECONFIG);
    assert_non_null(strstr(err.message, client->type));
    free(other);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(says_what_it_is, setup, teardown),
        cmocka_unit_test_setup_teardown(keeps_values_of_every_size, setup, teardown),
        cmocka_unit_test_setup_teardown(reads_ranges_if_it_says_so, setup, teardown),
        cmocka_unit_test_setup_teardown(takes_long_keys, setup, teardown),
        cmocka_unit_test_setup_teardown(moves_many_at_a_time, setup, teardown),
        cmocka_unit_test_setup_teardown(nothing_is_no_error, setup, teardown),
        cmocka_unit_test_setup_teardown(is_seen_by_other_clients, setup, teardown),
        cmocka_unit_test_setup_teardown(is_called_from_several_threads, setup, teardown),
        cmocka_unit_test_setup_teardown(is_told_the_deadline, setup, teardown),
        cmocka_unit_test(opens_again),
        cmocka_unit_test(names_what_is_wrong_in_its_config),
    };

    if (argc != 4 || (client = load(argv[1], argv[2])) == NULL) {
        fprintf(stderr, "usage: kv_client TYPE LIBRARY CONFIG\n");
        return 2;
    }
    config = argv[3];
    printf("partial %d, value_max %llu\n", client->partial, (unsigned long long)client->value_max);
    return cmocka_run_group_tests_name(client->type, tests, NULL, NULL);
}
