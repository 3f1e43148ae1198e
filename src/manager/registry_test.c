/*
 * registry_test.c - managers by type: registering, finding, loading plug-ins, and what is refused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "manager/manager.h"

static void fake_open(void *state, tq_manager_host *host, const char *config,
                      void (*opened)(const tq_error *err, void *arg), void *arg)
{
    (void)state;
    (void)host;
    (void)config;
    opened(NULL, arg);
}

static void fake_close(void *state, void (*closed)(void *arg), void *arg)
{
    (void)state;
    closed(arg);
}

static void fake_put(void *state, tq_put_job *job)
{
    (void)state;
    (void)job;
}

static void fake_get(void *state, tq_get_job *job)
{
    (void)state;
    (void)job;
}

static const char *fake_owner(void *state, uint64_t *incarnation)
{
    (void)state;
    *incarnation = 1;
    return "fake";
}

#define FAKE(name)                                                                                      \
    {                                                                                                   \
        .abi = TQ_MANAGER_ABI, .type = (name), .state_size = 8, .open = fake_open, .close = fake_close, \
        .put = fake_put, .get = fake_get                                                                \
    }

static void registers_and_finds(void **state)
{
    static const tq_storage_manager one = FAKE("One"), other = FAKE("One"), two = FAKE("Two");
    const tq_storage_manager *found = NULL;
    tq_error err = {0};

    (void)state;
    assert_int_equal(tq_manager_find("One", &found, &err), TQ_EMANAGER);
    assert_null(found);
    assert_int_equal(tq_manager_register(&one, &err), TQ_OK);
    assert_int_equal(tq_manager_register(&one, &err), TQ_OK); /* the same once more */
    assert_int_equal(tq_manager_register(&other, &err), TQ_EEXIST);
    assert_int_equal(tq_manager_register(&two, &err), TQ_OK);
    assert_int_equal(tq_manager_find("One", &found, &err), TQ_OK);
    assert_ptr_equal(found, &one);
    assert_int_equal(tq_manager_find("Two", &found, &err), TQ_OK);
    assert_ptr_equal(found, &two);
    assert_int_equal(tq_manager_find("Three", &found, &err), TQ_EMANAGER);
    assert_non_null(strstr(err.message, "'Three'"));
    assert_non_null(strstr(err.message, "One, Two"));
    assert_int_equal(tq_manager_find("", &found, &err), TQ_EMANAGER);
    assert_non_null(strstr(err.message, "missing"));
    assert_int_equal(tq_manager_find(NULL, &found, &err), TQ_EINVAL);
#ifdef TQI_WITH_SIMPLE
    assert_int_equal(tq_manager_find("SimpleStorage", &found, &err), TQ_OK);
    assert_ptr_equal(found, &tqi_simple_manager);
    static const tq_storage_manager simple = FAKE("SimpleStorage");
    assert_int_equal(tq_manager_register(&simple, &err), TQ_EEXIST);
#endif
}

static void refuses_what_cannot_serve(void **state)
{
    tq_storage_manager table = FAKE("Bad");
    const tq_storage_manager good = table;
    tq_error err = {0};

    (void)state;
    assert_int_equal(tq_manager_register(NULL, &err), TQ_EINVAL);
    table.abi = TQ_MANAGER_ABI + 1;
    assert_int_equal(tq_manager_register(&table, &err), TQ_EVERSION);
    assert_non_null(strstr(err.message, "'Bad'"));
    table.abi = 0; /* there was no such version */
    assert_int_equal(tq_manager_register(&table, &err), TQ_EVERSION);
    table = good;
    table.type = "";
    assert_int_equal(tq_manager_register(&table, &err), TQ_ENAME);
    table.type = NULL;
    assert_int_equal(tq_manager_register(&table, &err), TQ_ENAME);
    table = good;
    table.get = NULL;
    assert_int_equal(tq_manager_register(&table, &err), TQ_EINVAL);
    assert_non_null(strstr(err.message, "'get'"));
    table = good;
    table.owner = fake_owner;
    assert_int_equal(tq_manager_register(&table, &err), TQ_EINVAL);
    assert_non_null(strstr(err.message, "'remove'"));
}

static void loads_plugins(void **state)
{
    const tq_storage_manager *found = NULL, *again = NULL;
    tq_error err = {0};

    (void)state;
    assert_int_equal(tq_manager_load(TEST_PLUGINS "/dir_store.so", &err), TQ_OK);
    assert_int_equal(tq_manager_find("DirStore", &found, &err), TQ_OK);
    assert_string_equal(found->type, "DirStore");
    assert_int_equal(tq_manager_load(TEST_PLUGINS "/dir_store.so", &err), TQ_OK);
    assert_int_equal(tq_manager_find("DirStore", &again, &err), TQ_OK);
    assert_ptr_equal(found, again);
    assert_int_equal(tq_manager_load("/nonexistent/library.so", &err), TQ_EMANAGER);
    assert_non_null(strstr(err.message, "/nonexistent/library.so"));
    assert_int_equal(tq_manager_load("libuv.so.1", &err), TQ_EMANAGER);
    assert_non_null(strstr(err.message, "tq_storage_manager_plugin"));
    assert_int_equal(tq_manager_load("", &err), TQ_EINVAL);
    assert_int_equal(tq_manager_load(TEST_PLUGINS "/old_store.so", &err), TQ_EVERSION);
}

/* A library named by the system is loaded only if this process trusts it; types it already has need no trust. */
static void loads_what_is_trusted(void **state)
{
    static const char library[] = TEST_PLUGINS "/old_store.so";
    const tqi_manager_trust none = {0};
    const tqi_manager_trust some = {.libraries = "/other.so:" TEST_PLUGINS "/old_store.so"};
    const tqi_manager_trust own = {.own_config = true};
    const tq_storage_manager *found = NULL;
    char config[512];
    tq_error err = {0};

    (void)state;
    snprintf(config, sizeof(config), "{\"library\": \"%s\"}", library);
    assert_int_equal(tqi_manager_make("OldStore", config, &none, &found, &err), TQ_ECONFIG);
    assert_non_null(strstr(err.message, library));
    assert_non_null(strstr(err.message, "TQ_LIBRARIES"));
    /* Looked at, and refused for what it is. */
    assert_int_equal(tqi_manager_make("OldStore", config, &some, &found, &err), TQ_EVERSION);
    assert_int_equal(tqi_manager_make("OldStore", config, &own, &found, &err), TQ_EVERSION);
    assert_int_equal(setenv("TQ_LIBRARIES", library, 1), 0);
    assert_int_equal(tqi_manager_make("OldStore", config, &none, &found, &err), TQ_EVERSION);
    assert_int_equal(unsetenv("TQ_LIBRARIES"), 0);
    assert_int_equal(tq_manager_load(TEST_PLUGINS "/dir_store.so", &err), TQ_OK);
    assert_int_equal(tqi_manager_make("DirStore", config, &none, &found, &err), TQ_OK);
    assert_string_equal(found->type, "DirStore");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(registers_and_finds),
        cmocka_unit_test(loads_what_is_trusted),
        cmocka_unit_test(refuses_what_cannot_serve),
        cmocka_unit_test(loads_plugins),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
