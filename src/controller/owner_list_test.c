/*
 * owner_list_test.c - the list of owners as clients follow it: they get what has changed and nothing else, however many
 * owners there are.
 */
#include "controller/testkit.h"

#define MANY 300u
/* More than the number of names of lost owners that are kept. */
#define LOST 1100u

static kit k;
static kit_client unit, client;

static char *text(const char *s)
{
    return (char *)(uintptr_t)s;
}

static int setup(void **state)
{
    tqi_controller_options options = {.grace_ms = 60000, .owner_timeout_ms = 60000};

    (void)state;
    kit_start(&k, &options);
    kit_connect(&k, &unit, "unit");
    kit_connect(&k, &client, "client");
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    kit_disconnect(&unit);
    kit_disconnect(&client);
    kit_stop(&k);
    return 0;
}

static uint64_t add(const char *name, uint64_t incarnation, const char *info)
{
    Tq__RegisterOwner msg;

    tq__register_owner__init(&msg);
    msg.name = text(name);
    msg.incarnation = incarnation;
    msg.manager = text("test");
    msg.info = (ProtobufCBinaryData){strlen(info), (uint8_t *)text(info)};
    Tq__RegisterOwnerReply *reply = kit_ok(&unit, TQI_REGISTER_OWNER, &msg);
    uint64_t ms = reply->report_ms;
    kit_free(reply);
    return ms;
}

static void add_many(unsigned n)
{
    char name[32];

    for (unsigned i = 0; i < n; i++) {
        snprintf(name, sizeof(name), "many-%u", i);
        add(name, 5, "info");
    }
}

static uint64_t report(const char *name, uint64_t capacity, uint64_t used)
{
    char *names[] = {text("used_bytes"), text("capacity_bytes")};
    uint64_t values[] = {used, capacity};
    Tq__ReportOwner msg;

    tq__report_owner__init(&msg);
    msg.name = text(name);
    msg.counter = names;
    msg.value = values;
    msg.n_counter = msg.n_value = 2;
    Tq__ReportOwnerReply *reply = kit_ok(&unit, TQI_REPORT_OWNER, &msg);
    uint64_t ms = reply->report_ms;
    kit_free(reply);
    return ms;
}

/* The last version of the list, as a client keeps it. */
static uint64_t epoch, version;

static Tq__ListOwnersReply *ask(void)
{
    Tq__ListOwners msg;

    tq__list_owners__init(&msg);
    msg.manager = text("test");
    msg.brief = true;
    msg.since = version;
    msg.epoch = epoch;
    Tq__ListOwnersReply *reply = kit_ok(&client, TQI_LIST_OWNERS, &msg);
    assert_true(reply->epoch == tqi_controller_epoch(k.controller));
    epoch = reply->epoch;
    version = reply->version;
    return reply;
}

static void expect_nothing(void)
{
    Tq__ListOwnersReply *reply = ask();

    assert_true(reply->changes);
    assert_int_equal(reply->n_owner, 0);
    assert_int_equal(reply->n_gone, 0);
    kit_free(reply);
}

static void expect_all(unsigned n)
{
    Tq__ListOwnersReply *reply = ask();

    assert_false(reply->changes);
    assert_int_equal(reply->n_owner, n);
    assert_int_equal(reply->n_gone, 0);
    kit_free(reply);
}

/* One owner has changed; with an info: that, too. */
static void expect_one(const char *name, const char *info, bool present, uint64_t used)
{
    Tq__ListOwnersReply *reply = ask();

    assert_true(reply->changes);
    assert_int_equal(reply->n_owner, 1);
    assert_int_equal(reply->n_gone, 0);
    assert_string_equal(reply->owner[0]->name, name);
    assert_int_equal(reply->owner[0]->same, info == NULL);
    assert_int_equal(reply->owner[0]->info.len, info ? strlen(info) : 0);
    assert_int_equal(reply->owner[0]->present, present);
    assert_int_equal(reply->owner[0]->used_bytes, used);
    assert_int_equal(reply->owner[0]->n_counter, 0);
    kit_free(reply);
}

static void tells_what_has_changed(void **state)
{
    kit_client other;

    (void)state;
    add_many(3);
    epoch = version = 0;
    expect_all(3);
    expect_nothing();
    add("new", 7, "place");
    expect_one("new", "place", true, 0);
    expect_nothing();
    add("new", 7, "place"); /* again, as after a lost connection */
    expect_nothing();
    add("new", 7, "other place");
    expect_one("new", "other place", true, 0);
    report("new", 1000, 1);
    expect_one("new", NULL, true, 1);
    /* It starts over: its former state is gone. */
    add("new", 8, "other place");
    Tq__ListOwnersReply *reply = ask();
    assert_int_equal(reply->n_gone, 1);
    assert_string_equal(reply->gone[0], "new");
    assert_int_equal(reply->n_owner, 1);
    assert_int_equal(reply->owner[0]->incarnation, 8);
    assert_int_equal(reply->owner[0]->info.len, 11);
    kit_free(reply);
    /* Its server leaves. */
    kit_connect(&k, &other, "other");
    kit_register(&other, "theirs", 9, false);
    expect_one("theirs", "", true, 0);
    kit_disconnect(&other);
    kit_call call;
    Tq__Events wait = TQ__EVENTS__INIT;
    Tq__EventsReply *events = NULL;
    bool left = false;
    while (!left) { /* until the controller has seen it leave */
        wait.wait = true;
        kit_send(&client, TQI_EVENTS, &wait, &call);
        assert_int_equal(kit_wait(&call), TQ_OK);
        events = (Tq__EventsReply *)call.reply;
        for (size_t i = 0; i < events->n_event; i++) {
            left = left || strcmp(events->event[i]->kind, "leave") == 0;
        }
        wait.since = events->next;
        kit_end(&call);
    }
    expect_one("theirs", NULL, false, 0);
    expect_nothing();
}

static void knows_versions_of_its_own_only(void **state)
{
    (void)state;
    add_many(3);
    epoch = version = 0;
    expect_all(3);
    epoch++; /* of another controller */
    expect_all(3);
    version += 100;
    expect_all(3);
    expect_nothing();
}

static void forgets_old_losses(void **state)
{
    uint64_t old;

    (void)state;
    add_many(3);
    add("one", 1, "");
    epoch = version = 0;
    expect_all(4);
    old = version;
    for (unsigned i = 2; i < LOST; i++) {
        add("one", i, "");
    }
    uint64_t now = version;
    version = old;
    expect_all(4); /* not every loss is known any more */
    assert_true(version > now);
    add("one", 1, "");
    Tq__ListOwnersReply *reply = ask();
    assert_true(reply->changes);
    assert_int_equal(reply->n_gone, 1);
    kit_free(reply);
}

static void free_bytes_in_steps(void **state)
{
    (void)state;
    add("one", 1, "");
    assert_int_equal(report("one", 1000, 0), 200);
    epoch = version = 0;
    expect_all(1);
    report("one", 1000, 1);
    expect_one("one", NULL, true, 1); /* if there are few, each change is sent */
    report("one", 1000, 1);
    expect_nothing();
    add_many(MANY);
    assert_int_equal(report("one", 1000, 1), 5 * (MANY + 1));
    kit_free(ask());
    report("one", 1000, 125);
    expect_nothing();
    report("one", 1000, 126);
    expect_one("one", NULL, true, 126);
    report("one", 1000, 880);
    expect_one("one", NULL, true, 880);
    report("one", 1000, 900);
    expect_nothing();
    report("one", 1000, 901); /* new samples do not fit any more */
    expect_one("one", NULL, true, 901);
    report("one", 2000, 901);
    expect_one("one", NULL, true, 901);
}

static void those_that_are_named(void **state)
{
    Tq__ListOwners msg;
    char *names[] = {text("many-7"), text("nobody"), text("many-1")};

    (void)state;
    add_many(MANY);
    report("many-1", 10, 3);
    tq__list_owners__init(&msg);
    msg.manager = text("test");
    msg.name = names;
    msg.n_name = 3;
    Tq__ListOwnersReply *reply = kit_ok(&client, TQI_LIST_OWNERS, &msg);
    assert_int_equal(reply->n_owner, 2);
    assert_string_equal(reply->owner[0]->name, "many-7");
    assert_string_equal(reply->owner[1]->name, "many-1");
    assert_int_equal(reply->owner[1]->n_counter, 2);
    assert_int_equal(reply->owner[1]->used_bytes, 3);
    kit_free(reply);
    msg.manager = text("other");
    reply = kit_ok(&client, TQI_LIST_OWNERS, &msg);
    assert_int_equal(reply->n_owner, 0);
    kit_free(reply);
}

/* The size of the answers does not grow with the number of owners, nor does the load from reports. */
static void costs_what_has_changed(void **state)
{
    size_t sizes[2];

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        add("one", 1, "");
        add_many(i * MANY);
        epoch = version = 0;
        kit_free(ask());
        add("one", 1, "moved");
        Tq__ListOwnersReply *reply = ask();
        sizes[i] = tq__list_owners_reply__get_packed_size(reply);
        kit_free(reply);
    }
    assert_true(sizes[1] <= sizes[0] + 2); /* the number of the version may take a byte more */
    assert_int_equal(report("one", 1, 1), 5 * (MANY + 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(tells_what_has_changed, setup, teardown),
        cmocka_unit_test_setup_teardown(knows_versions_of_its_own_only, setup, teardown),
        cmocka_unit_test_setup_teardown(forgets_old_losses, setup, teardown),
        cmocka_unit_test_setup_teardown(free_bytes_in_steps, setup, teardown),
        cmocka_unit_test_setup_teardown(those_that_are_named, setup, teardown),
        cmocka_unit_test_setup_teardown(costs_what_has_changed, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
