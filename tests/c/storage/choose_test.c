/*
 * choose_test.c - which units a put tries: its machine's, the better of two others, and all of them only if it has to.
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "config_backends.h"
#include "manager/simple/put.h"
#include "testkit_host.h"

#define MIB  (UINT64_C(1) << 20)
#define MANY 500u
#define FAR  8u

static char *text(const char *s)
{
    return (char *)(uintptr_t)s;
}

static void call_ok(kit_client *client, uint16_t kind, const void *message)
{
    kit_call call;

    kit_start(client, client->controller, kind, message, NULL, 0, NULL, KIT_LONG, &call);
    kit_end(client, &call);
    assert_int_equal(call.status, TQ_OK);
    kit_call_free(&call);
}

/* An owner that nobody can reach. */
static void register_far(kit_client *client, unsigned i, uint64_t capacity, uint64_t used)
{
    char *names[] = {text("capacity_bytes"), text("used_bytes")};
    uint64_t values[] = {capacity, used};
    char name[32];
    Tq__RegisterOwner message;
    Tq__ReportOwner report;

    snprintf(name, sizeof(name), "far-%u", i);
    tq__register_owner__init(&message);
    message.name = name;
    message.incarnation = i + 1;
    message.manager = text(TQI_BACKEND_SIMPLESTORAGE);
    message.info.data = (uint8_t *)text("tcp:192.0.2.1:7000");
    message.info.len = strlen("tcp:192.0.2.1:7000");
    call_ok(client, TQI_REGISTER_OWNER, &message);
    if (capacity > 0) {
        tq__report_owner__init(&report);
        report.name = name;
        report.counter = names;
        report.value = values;
        report.n_counter = report.n_value = 2;
        call_ok(client, TQI_REPORT_OWNER, &report);
    }
}

static void listed(void *arg, const tq_error *err)
{
    assert_null(err);
    *(bool *)arg = true;
}

static void list(kit *k, host *h)
{
    bool done = false;

    tqi_simple_list(h->state, false, tqi_deadline(KIT_LONG), listed, &done);
    kit_until(k, &done);
}

/* A put of `bytes` bytes that has chosen its units; put_end frees it. */
static void put_chosen(host *h, tqi_simple_put_op *op, tq_put_job *job, uint64_t bytes)
{
    tq_error err = {0};

    memset(op, 0, sizeof(*op));
    memset(job, 0, sizeof(*job));
    job->adds_samples = true;
    op->simple = h->state;
    op->job = job;
    op->total = bytes;
    assert_int_equal(tqi_simple_put_choose(op, &err), TQ_OK);
}

static unsigned number(const tqi_simple_link *link)
{
    assert_memory_equal(link->name, "far-", 4);
    return (unsigned)strtoul(link->name + 4, NULL, 10);
}

static void put_one(host *h, uint64_t bytes, bool wait, host_end *end)
{
    uint8_t *data = calloc(1, bytes);
    tq_slice slice = {.data = data, .size = bytes};
    tq_put_column column = {.name = "a", .rows = 1, .size = bytes, .row_size = bytes, .slices = &slice, .n_slices = 1};
    tq_put_job job = {
        .columns = &column,
        .n_columns = 1,
        .adds_samples = true,
        .wait_when_full = wait,
        .deadline_ns = tqi_deadline(KIT_LONG),
    };

    assert_non_null(data);
    host_put_start(h, &job, end);
    host_wait(h, end);
    free(data);
}

static void near_units_beside_many_others(void **state)
{
    kit k;
    host h;
    kit_client far;
    unsigned used[2] = {0, 0};

    (void)state;
    kit_open(&k);
    kit_unit_start(&k, 0, 8 * MIB, false);
    kit_unit_start(&k, 1, 8 * MIB, false);
    kit_client_open(&k, &far, -1);
    for (unsigned i = 0; i < MANY; i++) {
        register_far(&far, i, 1024 * MIB, 0);
    }
    host_open(&k, &h, "SimpleStorage", "{}");
    for (int i = 0; i < 20; i++) {
        host_end end;
        put_one(&h, 1000, true, &end);
        assert_int_equal(end.err.code, TQ_OK);
        assert_memory_equal(end.blocks[0].owner, "unit-", 5);
        used[end.blocks[0].owner[5] - '0']++;
        host_end_free(&end);
        list(&k, &h);
    }
    assert_int_equal(used[0], 10);
    assert_int_equal(used[1], 10);
    /* All were listed once, and then what has changed: the two units, when they report. */
    assert_true(h.listed >= MANY + 2 && h.listed < MANY + 2 + 2 * 20);
    host_close(&h);
    kit_client_close(&far);
    kit_close(&k);
}

static void the_better_of_two(void **state)
{
    kit k;
    host h;
    kit_client far;
    tq_put_job job;
    tqi_simple_put_op op;
    unsigned first[FAR] = {0};

    (void)state;
    kit_open(&k);
    kit_client_open(&k, &far, -1);
    for (unsigned i = 0; i < FAR; i++) {
        register_far(&far, i, 800 * MIB, i * 100 * MIB); /* the last is nearly full */
    }
    host_open(&k, &h, "SimpleStorage", "{}");
    list(&k, &h);
    for (int i = 0; i < 1000; i++) {
        put_chosen(&h, &op, &job, MIB);
        assert_true(op.n_units == 1 || op.n_units == 2);
        assert_true(op.n_units == 1 || number(op.units[0]) < number(op.units[1]));
        first[number(op.units[0])]++;
        free(op.units);
    }
    /* Not everybody's choice is the one with the most room, but the more room the more often. */
    assert_true(first[0] > first[3] && first[3] > first[6]);
    assert_true(first[1] > 0 && first[6] > 0);
    /* Those that it does not fit into are not drawn, as long as others are. */
    for (int i = 0; i < 100; i++) {
        put_chosen(&h, &op, &job, 500 * MIB);
        for (size_t u = 0; u < op.n_units; u++) {
            assert_true(number(op.units[u]) <= 2);
        }
        free(op.units);
    }
    host_close(&h);
    kit_client_close(&far);
    kit_close(&k);
}

static void all_when_none_fits(void **state)
{
    kit k;
    host h;
    kit_client far;
    tq_put_job job;
    tqi_simple_put_op op;
    tq_error err = {0};

    (void)state;
    kit_open(&k);
    kit_unit_start(&k, 0, 8 * MIB, false);
    kit_client_open(&k, &far, -1);
    for (unsigned i = 0; i < FAR; i++) {
        register_far(&far, i, 100 * MIB, (99 - i) * MIB);
    }
    host_open(&k, &h, "SimpleStorage", "{}");
    list(&k, &h);
    put_chosen(&h, &op, &job, 50 * MIB);
    assert_int_equal(op.n_units, 1); /* the near one, which knows best */
    assert_string_equal(op.units[0]->name, "unit-0");
    assert_false(op.all);
    assert_int_equal(tqi_simple_put_choose_rest(&op, &err), TQ_OK);
    assert_true(op.all);
    assert_int_equal(op.n_units, 1 + FAR);
    for (unsigned i = 0; i < FAR; i++) {
        assert_int_equal(number(op.units[1 + i]), FAR - 1 - i);
    }
    free(op.units);
    /* One that did not answer comes last, wherever it is. */
    tqi_simple_find(h.state, "unit-0")->silent = true;
    tqi_simple_find(h.state, "unit-0")->capacity = 100 * MIB; /* so that it may take it */
    tqi_simple_find(h.state, "far-7")->silent = true;
    put_chosen(&h, &op, &job, 50 * MIB);
    assert_int_equal(op.n_units, 0);
    assert_int_equal(tqi_simple_put_choose_rest(&op, &err), TQ_OK);
    assert_int_equal(op.n_units, 1 + FAR);
    assert_int_equal(number(op.units[0]), 6);
    assert_string_equal(op.units[FAR - 1]->name, "unit-0");
    assert_int_equal(number(op.units[FAR]), 7);
    free(op.units);
    host_close(&h);
    kit_client_close(&far);
    kit_close(&k);
}

/* Of thousands that are full a put asks some. */
static void some_of_many_that_are_full(void **state)
{
    kit k;
    host h;
    kit_client far;
    tq_put_job job;
    tqi_simple_put_op op;
    tq_error err = {0};
    unsigned fits = 0;

    (void)state;
    kit_open(&k);
    kit_client_open(&k, &far, -1);
    for (unsigned i = 0; i < MANY; i++) {
        register_far(&far, i, 100 * MIB, i % 100 == 99 ? 0 : 90 * MIB);
    }
    host_open(&k, &h, "SimpleStorage", "{}");
    list(&k, &h);
    put_chosen(&h, &op, &job, 50 * MIB);
    assert_int_equal(tqi_simple_put_choose_rest(&op, &err), TQ_OK);
    assert_int_equal(op.n_units, MANY / 100 + 16);
    for (size_t i = 0; i < op.n_units; i++) {
        fits += number(op.units[i]) % 100 == 99;
    }
    assert_int_equal(fits, MANY / 100);
    free(op.units);
    host_close(&h);
    kit_client_close(&far);
    kit_close(&k);
}

/* None that a put leaves out is one that could take it. */
static void no_units_hide_others(void **state)
{
    kit k;
    host h;
    kit_client far;
    tq_put_job job;
    tqi_simple_put_op op;
    tq_error err = {0};

    (void)state;
    kit_open(&k);
    kit_client_open(&k, &far, -1);
    for (unsigned i = 0; i < 40; i++) {
        register_far(&far, i, 10 * MIB, 0); /* too small, and with much room */
    }
    register_far(&far, 40, 1000 * MIB, 1000 * MIB); /* the only one that is large enough */
    host_open(&k, &h, "SimpleStorage", "{}");
    list(&k, &h);
    put_chosen(&h, &op, &job, 50 * MIB);
    assert_int_equal(op.n_units, 0);
    assert_int_equal(tqi_simple_put_choose_rest(&op, &err), TQ_OK);
    assert_int_equal(number(op.units[0]), 40);
    free(op.units);
    /* A unit with room that did not answer lately, behind many full ones that do. */
    for (unsigned i = 0; i < 40; i++) {
        char name[32];
        snprintf(name, sizeof(name), "far-%u", i);
        tqi_simple_find(h.state, name)->used = 10 * MIB;
    }
    tqi_simple_find(h.state, "far-40")->used = 0;
    tqi_simple_find(h.state, "far-40")->silent = true;
    put_chosen(&h, &op, &job, MIB);
    assert_int_equal(op.n_units, 0);
    assert_int_equal(tqi_simple_put_choose_rest(&op, &err), TQ_OK);
    assert_int_equal(op.n_units, 16 + 1);
    assert_int_equal(number(op.units[16]), 40);
    free(op.units);
    host_close(&h);
    kit_client_close(&far);
    kit_close(&k);
}

/* A unit that refuses a put is not asked by the next one, and the bytes that this client has put there are not counted
 * for ever: the list is trusted again, because not every change is reported. */
static void what_was_seen_ends_with_the_next_list(void **state)
{
    kit k;
    host h;
    kit_client far;
    tq_put_job job;
    tqi_simple_put_op op;

    (void)state;
    kit_open(&k);
    kit_client_open(&k, &far, -1);
    register_far(&far, 0, 100 * MIB, 80 * MIB); /* 89 in truth */
    host_open(&k, &h, "SimpleStorage", "{}");
    list(&k, &h);
    tqi_simple_link *link = tqi_simple_find(h.state, "far-0");
    put_chosen(&h, &op, &job, 5 * MIB);
    assert_int_equal(op.n_units, 1);
    tqi_simple_put_note_full(&op, link);
    free(op.units);
    put_chosen(&h, &op, &job, 5 * MIB);
    assert_int_equal(op.n_units, 0);
    free(op.units);
    put_chosen(&h, &op, &job, 4 * MIB); /* which may fit */
    assert_int_equal(op.n_units, 1);
    free(op.units);
    list(&k, &h);
    put_chosen(&h, &op, &job, 5 * MIB);
    assert_int_equal(op.n_units, 1);
    free(op.units);
    tqi_simple_link_grow(link, tqi_simple_link_used(link) + 10 * MIB); /* as after puts */
    assert_int_equal(tqi_simple_put_free_bytes(link), 10 * MIB);
    list(&k, &h);
    assert_int_equal(tqi_simple_put_free_bytes(link), 20 * MIB);
    host_close(&h);
    kit_client_close(&far);
    kit_close(&k);
}

/* Units elsewhere: room that is not known of is found, and what fits nowhere is refused as ever. */
static void finds_room_that_is_not_known(void **state)
{
    kit k;
    host h;
    host_end end, refused;

    (void)state;
    kit_open(&k);
    for (int i = 0; i < 3; i++) {
        kit_unit_start(&k, i, (i == 1 ? 8 : 2) * MIB, true);
    }
    host_open(&k, &h, "SimpleStorage", "{}");
    list(&k, &h);
    for (int i = 0; i < 3; i++) {
        char name[] = "unit-0";
        name[5] = (char)('0' + i);
        tqi_simple_link *link = tqi_simple_find(h.state, name);
        assert_non_null(link);
        link->capacity = 8 * MIB;
        link->used = 8 * MIB; /* as reported before a clear */
    }
    put_one(&h, 4 * MIB, true, &end);
    assert_int_equal(end.err.code, TQ_OK);
    assert_string_equal(end.blocks[0].owner, "unit-1");
    put_one(&h, 4 * MIB, false, &refused);
    assert_int_equal(refused.err.code, TQ_EFULL);
    assert_non_null(strstr(refused.err.message, "4194304"));
    host_end_free(&refused);
    host_end_free(&end);
    host_close(&h);
    kit_close(&k);
}

/* All are full; a put waits at one of them, and room is made at another one. */
static void goes_where_room_is_made(void **state)
{
    kit k;
    host h;
    host_end full[3], end;
    static uint8_t data[6 * MIB];
    tq_slice slice = {.data = data, .size = sizeof(data)};
    tq_put_column column = {
        .name = "a",
        .rows = 1,
        .size = sizeof(data),
        .row_size = sizeof(data),
        .slices = &slice,
        .n_slices = 1,
    };
    tq_put_job job = {
        .columns = &column,
        .n_columns = 1,
        .adds_samples = true,
        .wait_when_full = true,
        .deadline_ns = tqi_deadline(KIT_LONG),
    };

    (void)state;
    kit_open(&k);
    for (int i = 0; i < 3; i++) {
        kit_unit_start(&k, i, 8 * MIB, i == 1);
    }
    host_open(&k, &h, "SimpleStorage", "{}");
    for (int i = 0; i < 3; i++) {
        put_one(&h, sizeof(data), true, &full[i]);
        assert_int_equal(full[i].err.code, TQ_OK);
    }
    const tqi_simple *simple = h.state;
    for (int round = 0; round < 2; round++) {
        host_put_start(&h, &job, &end);
        while (simple->puts == NULL || !simple->puts->last || simple->puts->reserving == NULL) {
            uv_run(&k.loop, UV_RUN_ONCE);
        }
        int other = 0;
        while (strcmp(full[other].blocks[0].owner, simple->puts->unit->name) == 0) {
            other++;
        }
        h.base.abandon(&h.base, &full[other].blocks[0].id, 1, true);
        host_wait(&h, &end);
        assert_int_equal(end.err.code, TQ_OK);
        assert_string_equal(end.blocks[0].owner, full[other].blocks[0].owner);
        host_end_free(&full[other]);
        full[other] = end;
    }
    /* A put that waits there can be cancelled as usual. */
    host_put_start(&h, &job, &end);
    while (simple->puts == NULL || !simple->puts->waits) {
        uv_run(&k.loop, UV_RUN_ONCE);
    }
    h.manager->cancel(h.state, &job);
    host_wait(&h, &end);
    assert_int_equal(end.err.code, TQ_ECANCELED);
    assert_null(simple->waits.top);
    for (int i = 0; i < 3; i++) {
        host_end_free(&full[i]);
    }
    host_end_free(&end);
    host_close(&h);
    kit_close(&k);
}

/* Before it asks units that seem to be full a put asks for the list. */
static void looks_before_it_searches(void **state)
{
    kit k;
    host h;
    kit_client far;
    host_end end;

    (void)state;
    kit_open(&k);
    kit_unit_start(&k, 0, 8 * MIB, true);
    kit_client_open(&k, &far, -1);
    for (unsigned i = 0; i < MANY; i++) {
        register_far(&far, i, 100 * MIB, 90 * MIB);
    }
    host_open(&k, &h, "SimpleStorage", "{}");
    list(&k, &h);
    tqi_simple *simple = h.state;
    tqi_simple_link *link = tqi_simple_find(simple, "unit-0");
    assert_non_null(link);
    link->used = link->capacity; /* as it was when the client last asked */
    simple->list = (tqi_manager_owners_at){0};
    simple->listed_at = 0;
    put_one(&h, 4 * MIB, false, &end);
    assert_int_equal(end.err.code, TQ_OK);
    assert_string_equal(end.blocks[0].owner, "unit-0");
    for (unsigned i = 0; i < MANY; i++) {
        char name[32];
        snprintf(name, sizeof(name), "far-%u", i);
        assert_null(tqi_simple_find(simple, name)->channel); /* none of them was asked */
    }
    host_end_free(&end);
    host_close(&h);
    kit_client_close(&far);
    kit_close(&k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(near_units_beside_many_others),
        cmocka_unit_test(the_better_of_two),
        cmocka_unit_test(all_when_none_fits),
        cmocka_unit_test(some_of_many_that_are_full),
        cmocka_unit_test(no_units_hide_others),
        cmocka_unit_test(what_was_seen_ends_with_the_next_list),
        cmocka_unit_test(finds_room_that_is_not_known),
        cmocka_unit_test(goes_where_room_is_made),
        cmocka_unit_test(looks_before_it_searches),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
