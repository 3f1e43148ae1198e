/*
 * sizes_test.c - programs built with earlier and later headers: their structs are shorter or longer than the library's.
 */
#include "testkit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <tq/daemon.h>

static test_system sys;
static tq_client *client;
static tq_op *op;

static int set_up(void **state)
{
    (void)state;
    system_begin(&sys, 1, 1 << 20, 30, &client, &op);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    system_end(&sys, client, op);
    return 0;
}

/* --- what programs of other versions have --------------------------------- */

typedef struct former_client_options {
    size_t size;
    const char *address;
    const char *token;
    const char *token_file;
    const char *name;
} former_client_options;

typedef struct former_put_args {
    size_t size;
    const char *partition;
    const tq_meta *meta;
    const char *const *keys;
    size_t n;
    bool must_exist;
    const char *const *groups;
    const tq_column *columns;
    size_t n_columns;
} former_put_args;

typedef struct former_claim_args {
    size_t size;
    const char *partition;
    const char *const *fields;
    size_t n_fields;
    int64_t batch_size;
    const char *task;
} former_claim_args;

typedef struct former_get_options {
    size_t size;
    const tq_get_field *fields;
    size_t n_fields;
} former_get_options;

typedef struct later_put_args {
    tq_put_args known;
    const char *added;
} later_put_args;

typedef struct later_claim_args {
    tq_claim_args known;
    uint64_t added;
} later_claim_args;

/* A copy in memory of exactly that size, so that reading beyond it is noticed. */
static void *exactly(const void *args, size_t size)
{
    void *copy = malloc(size);

    assert_non_null(copy);
    return memcpy(copy, args, size);
}

/* A program that was built with headers that had fewer members. */
static void a_program_with_fewer_members_runs(void **state)
{
    const uint64_t numbers[2] = {7, 8};
    const tq_slice slice = {numbers, sizeof(numbers)};
    const tq_column column = {.name = "x", .dtype = {TQ_INT, 64}, .rows = 2, .slices = &slice, .n_slices = 1};
    const char *field = "x";
    uint64_t read[2] = {0};
    const tq_get_field into = {.name = "x", .dest = read, .dest_size = sizeof(read)};
    former_client_options options = {.size = sizeof(options), .address = sys.address, .token = SYSTEM_TOKEN};
    former_put_args put = {.size = sizeof(put), .partition = "former", .n = 2, .columns = &column, .n_columns = 1};
    former_claim_args claim = {sizeof(claim), "former", &field, 1, 2, "task"};
    former_get_options get = {sizeof(get), &into, 1};
    void *copies[] = {exactly(&options, sizeof(options)), exactly(&put, sizeof(put)), exactly(&claim, sizeof(claim)),
                      exactly(&get, sizeof(get))};
    tq_client *former;
    tq_error err = {0};

    (void)state;
    assert_int_equal(tq_client_open(copies[0], &former, &err), TQ_OK);
    tq_op *own = tq_op_alloc(former, NULL, NULL);
    expect_ok(own, tq_put(own, copies[1]));
    expect_ok(own, tq_claim(own, copies[2]));
    expect_ok(own, tq_get(own, tq_op_meta(own), NULL, 0, copies[3]));
    assert_memory_equal(read, numbers, sizeof numbers);
    tq_op_free(own);
    tq_client_close(former);
    for (size_t i = 0; i < 4; i++) {
        free(copies[i]);
    }
}

/* A program that was built with headers that have more members: it runs unless it uses them. */
static void a_program_with_more_members_runs_unless_it_sets_them(void **state)
{
    const uint64_t numbers[2] = {7, 8};
    const tq_slice slice = {numbers, sizeof(numbers)};
    const tq_column column = {.name = "x", .dtype = {TQ_INT, 64}, .rows = 2, .slices = &slice, .n_slices = 1};
    const char *field = "x";
    later_put_args put = {
        .known = {.size = sizeof(put), .partition = "later", .n = 2, .columns = &column, .n_columns = 1},
    };
    later_claim_args claim = {
        .known =
            {
                .size = sizeof(claim),
                .partition = "later",
                .fields = &field,
                .n_fields = 1,
                .batch_size = 2,
                .task = "task",
            },
    };
    char text[64];

    (void)state;
    expect_ok(op, tq_put(op, &put.known));
    expect_ok(op, tq_claim(op, &claim.known));
    put.added = "something";
    snprintf(text, sizeof(text), "tq_put_args.size is %zu", sizeof(put));
    expect_error(op, tq_put(op, &put.known), TQ_EINVAL, text);
    snprintf(text, sizeof(text), "its first %zu bytes", sizeof(put.known));
    expect_error(op, tq_put(op, &put.known), TQ_EINVAL, text);
    claim.added = UINT64_C(1) << 63; /* the last byte */
    expect_error(op, tq_claim(op, &claim.known), TQ_EINVAL, "tq_claim_args.size");
}

/* --- each of the structs -------------------------------------------------- */

static int call_put(const void *args)
{
    return tq_put(op, args);
}

static int call_notify(const void *args)
{
    return tq_notify(op, args, NULL);
}

static int call_claim(const void *args)
{
    return tq_claim(op, args);
}

static int call_resolve(const void *args)
{
    return tq_resolve(op, args);
}

static int call_get(const void *args)
{
    return tq_get(op, NULL, NULL, 0, args);
}

static int call_get_by_key(const void *args)
{
    return tq_get_by_key(op, args);
}

static int call_begin_clear(const void *args)
{
    return tq_begin_clear(op, args);
}

static int call_page(const void *args)
{
    return tq_list_keys_page(op, "p", args);
}

static int call_save(const void *args)
{
    return tq_save(op, args);
}

#define SIZED(type, call)         \
    {                             \
#type, sizeof(type), call \
    }

static const struct {
    const char *name;
    size_t size;
    int (*call)(const void *args);
} each[] = {
    SIZED(tq_put_args, call_put),
    SIZED(tq_put_args, call_notify),
    SIZED(tq_claim_args, call_claim),
    SIZED(tq_resolve_args, call_resolve),
    SIZED(tq_get_options, call_get),
    SIZED(tq_get_by_key_args, call_get_by_key),
    SIZED(tq_begin_clear_args, call_begin_clear),
    SIZED(tq_keys_page, call_page),
    SIZED(tq_save_args, call_save),
};

/* Calls with `has` bytes, all zero but for the size and the last; returns the error. */
static tq_error call_with(size_t i, size_t has, size_t says, unsigned char last)
{
    unsigned char *args = calloc(1, has);
    tq_error err = {0};

    assert_non_null(args);
    args[has - 1] = last;
    memcpy(args, &says, sizeof(says));
    if (each[i].call(args) != TQ_OK || tq_op_wait(op) != TQ_OK) {
        err = *tq_op_error(op);
    }
    free(args);
    return err;
}

static void each_struct_checks_its_size(void **state)
{
    char text[256];

    (void)state;
    for (size_t i = 0; i < sizeof(each) / sizeof(*each); i++) {
        const size_t size = each[i].size;
        const tq_error plain = call_with(i, size, size, 0);
        for (size_t has = 2 * sizeof(size_t); has <= size + 16; has += sizeof(size_t)) {
            const tq_error other = call_with(i, has, has, 0);
            assert_string_equal(plain.message, other.message);
        }
        assert_null(strstr(plain.message, ".size"));

        tq_error err = call_with(i, size, 0, 0);
        snprintf(text, sizeof(text),
                 "%s.size is 0, this library expects %zu: set it to sizeof(%s), or begin with %s_init()", each[i].name,
                 size, each[i].name, each[i].name);
        assert_int_equal(err.code, TQ_EINVAL);
        assert_string_equal(err.message, text);
        err = call_with(i, size, sizeof(void *), 0);
        assert_non_null(strstr(err.message, ".size is 8"));
        /* Sizes that nobody has set. */
        err = call_with(i, size, size - 1, 0);
        assert_non_null(strstr(err.message, "set it to sizeof"));
        err = call_with(i, size, SIZE_MAX / 16 * 8, 0);
        assert_non_null(strstr(err.message, "set it to sizeof"));
        err = call_with(i, size + 16, size + 16, 1);
        snprintf(text, sizeof(text), "%s.size is %zu", each[i].name, size + 16);
        assert_int_equal(err.code, TQ_EINVAL);
        assert_non_null(strstr(err.message, text));
    }
}

static void count(void *arg)
{
    ++*(int *)arg;
}

/* The caller's memory is released even if the library is older than the options. */
static void a_refused_read_releases_its_memory(void **state)
{
    int released = 0;
    struct {
        tq_get_options known;
        uint64_t added;
    } later = {.known = {.size = sizeof(later), .release = count, .release_arg = &released}, .added = 1};

    (void)state;
    expect_error(op, tq_get(op, NULL, NULL, 0, &later.known), TQ_EINVAL, "tq_get_options.size");
    assert_int_equal(released, 1);
    assert_int_equal(tq_get(NULL, NULL, NULL, 0, &later.known), TQ_EINVAL);
    assert_int_equal(released, 2);
}

static void client_options_check_their_size(void **state)
{
    tq_client_options options = tq_client_options_init();
    tq_error err = {0};
    tq_client *out = NULL;

    (void)state;
    assert_int_equal(options.size, sizeof options);
    assert_null(options.libraries);
    options.size = 0;
    assert_int_equal(tq_client_open(&options, &out, &err), TQ_EINVAL);
    assert_non_null(strstr(err.message, "tq_client_options.size is 0"));
    assert_null(out);
}

/* What the library fills: as much of it as the program has room for. */
static void a_location_is_filled_as_far_as_it_goes(void **state)
{
    struct {
        size_t size;
        char address[1024];
        char after[8];
    } former = {.size = offsetof(tq_location, token_file), .after = "as ever"};
    struct {
        tq_location known;
        uint64_t added;
    } later = {.known = {.size = sizeof(later)}, .added = 7};
    tq_error err = {0};

    (void)state;
    setenv("TQ_ADDRESS", "unix:/somewhere", 1);
    assert_int_equal(tq_discover(NULL, (tq_location *)(void *)&former, &err), TQ_OK);
    assert_string_equal(former.address, "unix:/somewhere");
    assert_string_equal(former.after, "as ever");
    assert_int_equal(former.size, offsetof(tq_location, token_file));
    assert_int_equal(tq_discover(NULL, &later.known, &err), TQ_OK);
    assert_string_equal(later.known.address, "unix:/somewhere");
    assert_int_equal(later.added, 0);
    later.known.size = 0;
    assert_int_equal(tq_discover(NULL, &later.known, &err), TQ_EINVAL);
    assert_non_null(strstr(err.message, "tq_location.size is 0"));
    unsetenv("TQ_ADDRESS");
}

/* A buffer that is returned with another size than it was taken with is not handed out as a larger one. */
static void a_buffer_given_back_with_another_size_does_no_harm(void **state)
{
    const size_t sizes[] = {0, 100, 5000, 1 << 20, 3 << 20, SIZE_MAX};

    (void)state;
    for (size_t taken = 1; taken < 5; taken++) {
        for (size_t given = 0; given < 6; given++) {
            tq_buffer_give(tq_buffer_take(sizes[taken]), sizes[given]);
            for (size_t again = 1; again < 5; again++) {
                void *buffer = tq_buffer_take(sizes[again]);
                assert_non_null(buffer);
                memset(buffer, 0x5a, sizes[again]);
                tq_buffer_give(buffer, sizes[again]);
            }
        }
    }
}

static void hooks_check_their_size(void **state)
{
    tq_daemon_hooks hooks = {.size = 0};
    char *argv[] = {"tqd", NULL};

    (void)state;
    assert_int_equal(tq_daemon_run(1, argv, &hooks), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_program_with_fewer_members_runs),
        cmocka_unit_test(a_program_with_more_members_runs_unless_it_sets_them),
        cmocka_unit_test(each_struct_checks_its_size),
        cmocka_unit_test(client_options_check_their_size),
        cmocka_unit_test(a_refused_read_releases_its_memory),
        cmocka_unit_test(a_location_is_filled_as_far_as_it_goes),
        cmocka_unit_test(hooks_check_their_size),
        cmocka_unit_test(a_buffer_given_back_with_another_size_does_no_harm),
    };

    return cmocka_run_group_tests_name("sizes", tests, set_up, tear_down);
}
