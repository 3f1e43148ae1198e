/*
 * owner_loss_test.c - owners that go away: given up after the timeout, back in time, back with nothing, and how others
 * learn of it.
 */
#include "controller/testkit_owner.h"

/* Reads events after *since until one is of that kind; returns a copy of it and advances *since to it. */
static Tq__EventsReply *wait_event(uint64_t *since, const char *kind, Tq__Event **event)
{
    Tq__Events ask;

    tq__events__init(&ask);
    ask.wait = true;
    ask.limit = 1;
    for (;;) {
        ask.since = *since;
        Tq__EventsReply *reply = kit_ok(&client, TQI_EVENTS, &ask);
        *since = reply->next;
        assert_int_equal(reply->n_event, 1);
        if (strcmp(reply->event[0]->kind, kind) == 0) {
            *event = reply->event[0];
            return reply;
        }
        kit_free(reply);
    }
}

static Tq__OwnerInfo *find_owner(Tq__ListOwnersReply *reply, const char *name)
{
    for (size_t i = 0; i < reply->n_owner; i++) {
        if (strcmp(reply->owner[i]->name, name) == 0) {
            return reply->owner[i];
        }
    }
    return NULL;
}

static void keeps_a_shared_owner_that_is_served(void **state)
{
    kit_client late;
    Tq__RegisterOwner msg;
    uint64_t block = 0;

    (void)state;
    kit_connect(&k, &late, "late");
    kit_register(&unit, "store", 5, true);
    owner_put("p", 1, "store", &block);
    tq__register_owner__init(&msg);
    msg.name = (char *)(uintptr_t) "store";
    msg.incarnation = 4;
    msg.manager = (char *)(uintptr_t) "test";
    msg.shared = true;
    kit_fails(&late, TQI_REGISTER_OWNER, &msg, TQ_EEXIST, "'unit'");
    assert_int_equal(kit_poll(&client, "p", "x", 1, "t"), 1); /* nothing was lost */
    /* Once no other session serves it, it may start over. */
    kit_register(&late, "store", 5, true);
    kit_disconnect(&unit);
    kit_until_waiting(&late, 0);
    kit_register(&late, "store", 6, true);
    assert_int_equal(kit_poll(&client, "p", "x", 1, "again"), 0);
    kit_disconnect(&late);
}

static void lost_after_its_time(void **state)
{
    Tq__Event *event = NULL;
    Tq__ListOwners list;
    Tq__SystemStatus ask = TQ__SYSTEM_STATUS__INIT;
    uint64_t since = 0, block = 0;

    (void)state;
    owner_put("p", 3, NULL, &block);
    kit_disconnect(&unit);
    Tq__EventsReply *events = wait_event(&since, "lost", &event);
    assert_string_equal(event->partition, "p");
    assert_string_equal(event->session, "unit");
    assert_int_equal(event->samples, 3);
    assert_int_equal(event->n_index, 3);
    kit_free(events);
    assert_int_equal(kit_poll(&client, "p", "x", 1, "t"), 0);
    tq__list_owners__init(&list);
    Tq__ListOwnersReply *owners = kit_ok(&client, TQI_LIST_OWNERS, &list);
    assert_int_equal(owners->n_owner, 0);
    kit_free(owners);
    Tq__SystemStatusReply *status = kit_ok(&client, TQI_SYSTEM_STATUS, &ask);
    assert_int_equal(status->n_partition, 1);
    assert_int_equal(status->partition[0]->n_lost, 3);
    assert_int_equal(status->partition[0]->field[0]->lost, 3);
    kit_free(status);
}

static void comes_back_in_time(void **state)
{
    Tq__Event *event = NULL;
    Tq__ListOwners list;
    kit_client again;
    uint64_t since = 0, block = 0;
    Tq__GrantBlocks grant;

    (void)state;
    owner_put("p", 2, NULL, &block);
    kit_disconnect(&unit);
    kit_free(wait_event(&since, "leave", &event));
    tq__list_owners__init(&list);
    list.manager = kit_text("test");
    Tq__ListOwnersReply *owners = kit_ok(&client, TQI_LIST_OWNERS, &list);
    assert_non_null(find_owner(owners, "unit"));
    assert_false(find_owner(owners, "unit")->present);
    kit_free(owners);
    tq__grant_blocks__init(&grant);
    grant.owner = kit_text("unit");
    grant.count = 1;
    kit_fails(&client, TQI_GRANT_BLOCKS, &grant, TQ_EUNREACHABLE, "gone");
    /* Nobody is present now: this waits for one. */
    kit_call call;
    list.wait = true;
    kit_send(&client, TQI_LIST_OWNERS, &list, &call);
    kit_connect(&k, &again, "unit again");
    assert_false(call.done);
    Tq__RegisterOwner msg;
    tq__register_owner__init(&msg);
    msg.name = kit_text("unit");
    msg.incarnation = 77;
    msg.manager = kit_text("test");
    msg.info = (ProtobufCBinaryData){4, (uint8_t *)kit_text("info")};
    /* Only a session that knows its key can continue with what it holds. */
    kit_fails(&again, TQI_REGISTER_OWNER, &msg, TQ_EEXIST, "another key");
    uint8_t key[TQI_NET_GRANT_KEY];
    memset(key, 'x', sizeof(key));
    msg.key = (ProtobufCBinaryData){sizeof(key), key};
    kit_fails(&again, TQI_REGISTER_OWNER, &msg, TQ_EEXIST, "another key");
    memset(key, 'k', sizeof(key));
    Tq__RegisterOwnerReply *reply = kit_ok(&again, TQI_REGISTER_OWNER, &msg);
    assert_false(reply->fresh);
    kit_free(reply);
    assert_int_equal(kit_wait(&call), TQ_OK);
    Tq__OwnerInfo *info = find_owner((Tq__ListOwnersReply *)call.reply, "unit");
    assert_non_null(info);
    assert_true(info->present);
    assert_true(info->incarnation == 77);
    assert_int_equal(info->blocks, 1);
    assert_int_equal(info->bytes, 16);
    assert_int_equal(info->info.len, 4);
    kit_end(&call);
    assert_int_equal(kit_poll(&client, "p", "x", 2, "t"), 2);
    kit_disconnect(&again);
}

static void another_incarnation_loses_what_was(void **state)
{
    Tq__Event *event = NULL;
    Tq__RegisterOwner msg;
    uint64_t since = 0, block = 0;

    (void)state;
    owner_put("p", 2, NULL, &block);
    tq__register_owner__init(&msg);
    msg.name = kit_text("unit");
    msg.incarnation = 78;
    msg.manager = kit_text("test");
    kit_fails(&client, TQI_REGISTER_OWNER, &msg, TQ_EEXIST, "'unit'");
    assert_int_equal(kit_poll(&client, "p", "x", 2, "before"), 2);
    Tq__RegisterOwnerReply *reply = kit_ok(&unit, TQI_REGISTER_OWNER, &msg);
    assert_true(reply->fresh);
    kit_free(reply);
    Tq__EventsReply *events = wait_event(&since, "lost", &event);
    assert_int_equal(event->samples, 2);
    kit_free(events);
    assert_int_equal(kit_poll(&client, "p", "x", 1, "after"), 0);
    /* Writing them again heals. */
    owner_put("p", 1, NULL, &block);
    assert_int_equal(kit_poll(&client, "p", "x", 1, "after"), 1);
    msg.incarnation = 0;
    kit_fails(&unit, TQI_REGISTER_OWNER, &msg, TQ_EINVAL, "incarnation 0");
    msg.incarnation = 78;
    msg.shared = true;
    kit_fails(&unit, TQI_REGISTER_OWNER, &msg, TQ_EINVAL, "shared");
}

static void waiting_for_owners_times_out(void **state)
{
    Tq__ListOwners list;

    (void)state;
    tq__list_owners__init(&list);
    list.manager = kit_text("other");
    list.wait = true;
    list.timeout_ms = 10;
    kit_fails(&client, TQI_LIST_OWNERS, &list, TQ_ETIMEDOUT, "other");
}

static void reports_show_in_the_list(void **state)
{
    Tq__ReportOwner report;
    Tq__ListOwners list;
    char *names[] = {kit_text("used_bytes"), kit_text("capacity_bytes")};
    uint64_t values[] = {10, 1000};

    (void)state;
    tq__report_owner__init(&report);
    report.name = kit_text("unit");
    report.counter = names;
    report.n_counter = 2;
    report.value = values;
    report.n_value = 1;
    kit_fails(&unit, TQI_REPORT_OWNER, &report, TQ_EINVAL, "2 counters");
    report.n_value = 2;
    kit_fails(&client, TQI_REPORT_OWNER, &report, TQ_ESTALE, "unit");
    kit_free(kit_ok(&unit, TQI_REPORT_OWNER, &report));
    kit_free(kit_ok(&unit, TQI_REPORT_OWNER, &report));
    tq__list_owners__init(&list);
    Tq__ListOwnersReply *owners = kit_ok(&client, TQI_LIST_OWNERS, &list);
    Tq__OwnerInfo *info = find_owner(owners, "unit");
    assert_non_null(info);
    assert_int_equal(info->n_counter, 2);
    assert_string_equal(info->counter[1], "capacity_bytes");
    assert_int_equal(info->value[1], 1000);
    kit_free(owners);
}

static void readers_report_lost_blocks(void **state)
{
    Tq__ReportLost report = TQ__REPORT_LOST__INIT;
    Tq__Event *event = NULL;
    kit_call call;
    uint64_t since = 0, ids[2] = {0, 123456};

    (void)state;
    owner_put("p", 2, NULL, &ids[0]);
    report.id = ids;
    report.n_id = 2;
    /* A reader may be wrong, or lie: its report becomes a question to the owner, asked once. */
    kit_free(kit_ok(&client, TQI_REPORT_LOST, &report));
    kit_free(kit_ok(&client, TQI_REPORT_LOST, &report));
    assert_int_equal(kit_poll(&client, "p", "x", 2, "before"), 2);
    owner_collect(&unit, "unit", 0, &call);
    assert_int_equal(kit_wait(&call), TQ_OK);
    Tq__CollectDeadReply *asked = (Tq__CollectDeadReply *)call.reply;
    assert_int_equal(asked->n_doubted, 1);
    assert_true(asked->doubted[0] == ids[0]);
    assert_int_equal(asked->n_first, 0);
    kit_end(&call);
    /* A session that waits for notices gets one at once. */
    owner_collect(&unit, "unit", 0, &call);
    kit_free(kit_ok(&client, TQI_REPORT_LOST, &report));
    assert_int_equal(kit_wait(&call), TQ_OK);
    asked = (Tq__CollectDeadReply *)call.reply;
    assert_int_equal(asked->n_doubted, 1);
    kit_end(&call);
    kit_free(kit_ok(&unit, TQI_REPORT_LOST, &report));
    Tq__EventsReply *events = wait_event(&since, "lost", &event);
    assert_string_equal(event->session, "unit");
    assert_int_equal(event->n_index, 2);
    kit_free(events);
    assert_int_equal(kit_poll(&client, "p", "x", 1, "t"), 0);
}

/* As many as may be asked at once, each of them once, in any order. */
static void many_lost_blocks_are_asked_for_once(void **state)
{
    Tq__ReportLost report = TQ__REPORT_LOST__INIT;
    enum {
        N = 600
    };
    uint64_t *ids = calloc(TQI_REPORT_LOST_MAX + 1, sizeof(*ids));
    kit_call call;

    (void)state;
    assert_non_null(ids);
    for (uint32_t i = 0; i < N; i++) {
        owner_put("p", 1, NULL, &ids[i * 7 % N]); /* 7 has no factor of N */
    }
    report.id = ids;
    report.n_id = N;
    kit_free(kit_ok(&client, TQI_REPORT_LOST, &report));
    kit_free(kit_ok(&client, TQI_REPORT_LOST, &report));
    owner_collect(&unit, "unit", 0, &call);
    assert_int_equal(kit_wait(&call), TQ_OK);
    const Tq__CollectDeadReply *asked = (Tq__CollectDeadReply *)call.reply;
    assert_int_equal(asked->n_doubted, N);
    for (uint32_t i = 1; i < N; i++) {
        assert_true(asked->doubted[i - 1] < asked->doubted[i]);
    }
    kit_end(&call);
    report.n_id = TQI_REPORT_LOST_MAX + 1;
    kit_fails(&client, TQI_REPORT_LOST, &report, TQ_EINVAL, "4097 blocks are reported as lost, at most 4096");
    free(ids);
}

/* Each manager's last storage is remembered separately, whatever leaves later. */
static void storage_that_left_is_known_by_manager(void **state)
{
    Tq__RegisterOwner other;
    Tq__Event *event = NULL;
    Tq__ListOwners list;
    uint64_t since = 0;
    kit_client second;

    (void)state;
    kit_disconnect(&unit);
    kit_free(wait_event(&since, "leave", &event));
    kit_connect(&k, &second, "second");
    tq__register_owner__init(&other);
    other.name = kit_text("far");
    other.incarnation = 5;
    other.manager = kit_text("else");
    kit_free(kit_ok(&second, TQI_REGISTER_OWNER, &other));
    kit_disconnect(&second);
    kit_free(wait_event(&since, "leave", &event));
    tq__list_owners__init(&list);
    list.wait = true;
    list.timeout_ms = 10;
    list.manager = kit_text("test");
    kit_fails(&client, TQI_LIST_OWNERS, &list, TQ_ETIMEDOUT, "the last one was 'unit'");
    list.manager = kit_text("else");
    kit_fails(&client, TQI_LIST_OWNERS, &list, TQ_ETIMEDOUT, "the last one was 'far'");
    list.manager = kit_text("third");
    kit_fails(&client, TQI_LIST_OWNERS, &list, TQ_ETIMEDOUT, "no storage of manager 'third'");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(keeps_a_shared_owner_that_is_served, owner_setup, owner_teardown),
        cmocka_unit_test_setup_teardown(lost_after_its_time, owner_setup_impatient, owner_teardown),
        cmocka_unit_test_setup_teardown(comes_back_in_time, owner_setup, owner_teardown),
        cmocka_unit_test_setup_teardown(another_incarnation_loses_what_was, owner_setup, owner_teardown_unit),
        cmocka_unit_test_setup_teardown(waiting_for_owners_times_out, owner_setup, owner_teardown_unit),
        cmocka_unit_test_setup_teardown(reports_show_in_the_list, owner_setup, owner_teardown_unit),
        cmocka_unit_test_setup_teardown(readers_report_lost_blocks, owner_setup, owner_teardown_unit),
        cmocka_unit_test_setup_teardown(many_lost_blocks_are_asked_for_once, owner_setup, owner_teardown_unit),
        cmocka_unit_test_setup_teardown(storage_that_left_is_known_by_manager, owner_setup, owner_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
