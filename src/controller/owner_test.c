/*
 * owner_test.c - owners over the real connection: lease, collect and redelivery, loss, shared owners, moves.
 */
#include "controller/test_kit.h"

static kit k;
static kit_client unit, client;

static char *text(const char *s)
{
    return (char *)(uintptr_t)s;
}

static int setup_with(uint64_t owner_timeout_ms)
{
    tqi_controller_options options = {.grace_ms = 60000, .owner_timeout_ms = owner_timeout_ms};
    kit_start(&k, &options);
    kit_connect(&k, &unit, "unit");
    kit_connect(&k, &client, "client");
    kit_register(&unit, "unit", 77, false);
    return 0;
}

static int setup(void **state)
{
    (void)state;
    return setup_with(60000);
}

static int setup_impatient(void **state)
{
    (void)state;
    return setup_with(1);
}

static int teardown(void **state)
{
    (void)state;
    kit_disconnect(&client);
    kit_stop(&k);
    return 0;
}

static int teardown_unit(void **state)
{
    kit_disconnect(&unit);
    return teardown(state);
}

static void put(const char *partition, uint32_t rows, const char *owner, uint64_t *block)
{
    kit_put what = {.partition = partition, .field = "x", .rows = rows, .owner = owner};
    kit_free(kit_publish(&client, &what));
    *block = what.block;
}

static void clear(const char *partition)
{
    Tq__Clear msg;
    tq__clear__init(&msg);
    msg.partition = text(partition);
    msg.all = true;
    kit_free(kit_ok(&client, TQI_CLEAR, &msg));
}

static void collect(kit_client *who, const char *owner, uint64_t done, kit_call *call)
{
    Tq__Collect msg;
    tq__collect__init(&msg);
    msg.owner = text(owner);
    msg.done = done;
    kit_send(who, TQI_COLLECT, &msg, call);
}

/* Waits for a notice of exactly one block and returns its number. */
static uint64_t expect_notice(kit_call *call, uint64_t block)
{
    assert_int_equal(kit_wait(call), TQ_OK);
    Tq__CollectReply *reply = (Tq__CollectReply *)call->reply;
    uint64_t notice = reply->notice;
    assert_true(notice != 0);
    assert_int_equal(reply->n_first, 1);
    assert_true(reply->first[0] == block);
    assert_int_equal(reply->count[0], 1);
    assert_int_equal(reply->writer_done.data[0], 1);
    kit_end(call);
    return notice;
}

/* Events after *since, until one is of that kind; its copy is returned and *since moves to it. */
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

static void leases_under_known_owners(void **state)
{
    Tq__LeaseBlocks msg;
    (void)state;
    uint64_t first = kit_lease(&client, "unit", 256);
    uint64_t second = kit_lease(&client, "unit", 1);
    assert_true(second >= first + 256 || second < first);
    tq__lease_blocks__init(&msg);
    msg.owner = text("nobody");
    msg.count = 1;
    kit_fails(&client, TQI_LEASE_BLOCKS, &msg, TQ_EUNREACHABLE, "nobody");
    msg.owner = text("unit");
    msg.incarnation = 78;
    kit_fails(&client, TQI_LEASE_BLOCKS, &msg, TQ_ESTALE, "unit");
    msg.incarnation = 77;
    msg.count = 0;
    kit_fails(&client, TQI_LEASE_BLOCKS, &msg, TQ_EINVAL, "0 blocks");
    msg.count = 257;
    kit_fails(&client, TQI_LEASE_BLOCKS, &msg, TQ_EINVAL, "257 blocks");
}

static void collects_until_it_is_done(void **state)
{
    kit_call call;
    uint64_t first = 0, second = 0;
    Tq__AbandonBlocks abandon = TQ__ABANDON_BLOCKS__INIT;
    (void)state;
    collect(&client, "unit", 0, &call);
    assert_int_equal(kit_wait(&call), TQ_ESTALE);
    kit_end(&call);
    collect(&unit, "unit", 0, &call);
    put("p", 2, NULL, &first);
    assert_false(call.done);
    clear("p");
    expect_notice(&call, first);
    /* Not done: it comes again. */
    collect(&unit, "unit", 0, &call);
    uint64_t notice = expect_notice(&call, first);
    collect(&unit, "unit", notice, &call);
    second = kit_lease(&client, "unit", 1);
    assert_false(call.done);
    abandon.id = &second;
    abandon.n_id = 1;
    kit_free(kit_ok(&client, TQI_ABANDON_BLOCKS, &abandon));
    assert_true(expect_notice(&call, second) > notice);
}

static void redelivers_to_the_next_session(void **state)
{
    kit_client next;
    kit_call call;
    uint64_t block = 0;
    (void)state;
    put("p", 1, NULL, &block);
    clear("p");
    collect(&unit, "unit", 0, &call);
    expect_notice(&call, block);
    collect(&unit, "unit", 0, &call);
    expect_notice(&call, block);
    /* The same storage comes back under a new session while the old one has not ended. */
    kit_connect(&k, &next, "unit again");
    kit_register(&next, "unit", 77, false);
    collect(&unit, "unit", 0, &call);
    assert_int_equal(kit_wait(&call), TQ_ESTALE);
    kit_end(&call);
    collect(&next, "unit", 0, &call);
    uint64_t notice = expect_notice(&call, block);
    collect(&next, "unit", notice, &call);
    /* And back: who still waits under the replaced session is told. */
    kit_register(&unit, "unit", 77, false);
    assert_int_equal(kit_wait(&call), TQ_ESTALE);
    kit_end(&call);
    kit_disconnect(&next);
}

static void one_session_of_a_shared_owner_collects(void **state)
{
    kit_client other;
    kit_call first, second;
    uint64_t block = 0;
    (void)state;
    kit_connect(&k, &other, "other");
    kit_register(&unit, "store", 5, true);
    kit_register(&other, "store", 5, true);
    collect(&unit, "store", 0, &first);
    kit_until_waiting(&unit, 0);
    collect(&other, "store", 0, &second);
    put("p", 1, "store", &block);
    clear("p");
    expect_notice(&first, block);
    kit_until_waiting(&other, 0);
    assert_false(second.done);
    /* The collector goes without being done: the other one gets the same notice. */
    kit_disconnect(&unit);
    uint64_t notice = expect_notice(&second, block);
    collect(&other, "store", notice, &second);
    put("p", 1, "store", &block);
    clear("p");
    expect_notice(&second, block);
    kit_disconnect(&other);
}

/* What a store that is not ours was sent may arrive after the first removal. */
static void says_what_may_still_be_written(void **state)
{
    kit_call call;
    Tq__AbandonBlocks msg;
    (void)state;
    kit_register(&unit, "store", 5, true);
    uint64_t id = kit_lease(&client, "store", 1);
    tq__abandon_blocks__init(&msg);
    msg.id = &id;
    msg.n_id = 1;
    msg.writing = true;
    kit_free(kit_ok(&client, TQI_ABANDON_BLOCKS, &msg));
    collect(&unit, "store", 0, &call);
    assert_int_equal(kit_wait(&call), TQ_OK);
    const Tq__CollectReply *reply = (const Tq__CollectReply *)call.reply;
    assert_int_equal(reply->n_first, 1);
    assert_true(reply->first[0] == id);
    assert_int_equal(reply->writer_done.data[0], 0);
    uint64_t done = reply->notice;
    kit_end(&call);
    /* The same of a writer that has gone. */
    id = kit_lease(&client, "store", 1);
    kit_disconnect(&client);
    kit_connect(&k, &client, "client");
    collect(&unit, "store", done, &call);
    assert_int_equal(kit_wait(&call), TQ_OK);
    reply = (const Tq__CollectReply *)call.reply;
    assert_true(reply->n_first == 1 && reply->first[0] == id);
    assert_int_equal(reply->writer_done.data[0], 0);
    kit_end(&call);
}

static void keeps_a_shared_owner_that_is_served(void **state)
{
    kit_client late;
    Tq__RegisterOwner msg;
    uint64_t block = 0;
    (void)state;
    kit_connect(&k, &late, "late");
    kit_register(&unit, "store", 5, true);
    put("p", 1, "store", &block);
    tq__register_owner__init(&msg);
    msg.name = (char *)(uintptr_t) "store";
    msg.incarnation = 4;
    msg.manager = (char *)(uintptr_t) "test";
    msg.shared = true;
    kit_fails(&late, TQI_REGISTER_OWNER, &msg, TQ_EEXIST, "'unit'");
    assert_int_equal(kit_poll(&client, "p", "x", 1, "t"), 1); /* nothing was lost */
    /* Once no other serves it, it may begin anew. */
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
    put("p", 3, NULL, &block);
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
    Tq__LeaseBlocks lease;
    (void)state;
    put("p", 2, NULL, &block);
    kit_disconnect(&unit);
    kit_free(wait_event(&since, "leave", &event));
    tq__list_owners__init(&list);
    list.manager = text("test");
    Tq__ListOwnersReply *owners = kit_ok(&client, TQI_LIST_OWNERS, &list);
    assert_non_null(find_owner(owners, "unit"));
    assert_false(find_owner(owners, "unit")->present);
    kit_free(owners);
    tq__lease_blocks__init(&lease);
    lease.owner = text("unit");
    lease.count = 1;
    kit_fails(&client, TQI_LEASE_BLOCKS, &lease, TQ_EUNREACHABLE, "gone");
    /* Nobody is present now: this waits for one. */
    kit_call call;
    list.wait = true;
    kit_send(&client, TQI_LIST_OWNERS, &list, &call);
    kit_connect(&k, &again, "unit again");
    assert_false(call.done);
    Tq__RegisterOwner msg;
    tq__register_owner__init(&msg);
    msg.name = text("unit");
    msg.incarnation = 77;
    msg.manager = text("test");
    msg.info = (ProtobufCBinaryData){4, (uint8_t *)text("info")};
    /* Only who knows its key goes on with what it holds. */
    kit_fails(&again, TQI_REGISTER_OWNER, &msg, TQ_EEXIST, "another key");
    uint8_t key[TQI_GRANT_KEY];
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
    put("p", 2, NULL, &block);
    tq__register_owner__init(&msg);
    msg.name = text("unit");
    msg.incarnation = 78;
    msg.manager = text("test");
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
    put("p", 1, NULL, &block);
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
    list.manager = text("other");
    list.wait = true;
    list.timeout_ms = 10;
    kit_fails(&client, TQI_LIST_OWNERS, &list, TQ_ETIMEDOUT, "other");
}

static void reports_show_in_the_list(void **state)
{
    Tq__ReportOwner report;
    Tq__ListOwners list;
    char *names[] = {text("used_bytes"), text("capacity_bytes")};
    uint64_t values[] = {10, 1000};
    (void)state;
    tq__report_owner__init(&report);
    report.name = text("unit");
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
    put("p", 2, NULL, &ids[0]);
    report.id = ids;
    report.n_id = 2;
    /* A reader may be wrong, or lie: its word is a question to the owner, asked once. */
    kit_free(kit_ok(&client, TQI_REPORT_LOST, &report));
    kit_free(kit_ok(&client, TQI_REPORT_LOST, &report));
    assert_int_equal(kit_poll(&client, "p", "x", 2, "before"), 2);
    collect(&unit, "unit", 0, &call);
    assert_int_equal(kit_wait(&call), TQ_OK);
    Tq__CollectReply *asked = (Tq__CollectReply *)call.reply;
    assert_int_equal(asked->n_doubted, 1);
    assert_true(asked->doubted[0] == ids[0]);
    assert_int_equal(asked->n_first, 0);
    kit_end(&call);
    /* One that waits for notices hears of it at once. */
    collect(&unit, "unit", 0, &call);
    kit_free(kit_ok(&client, TQI_REPORT_LOST, &report));
    assert_int_equal(kit_wait(&call), TQ_OK);
    asked = (Tq__CollectReply *)call.reply;
    assert_int_equal(asked->n_doubted, 1);
    kit_end(&call);
    kit_free(kit_ok(&unit, TQI_REPORT_LOST, &report));
    Tq__EventsReply *events = wait_event(&since, "lost", &event);
    assert_string_equal(event->session, "unit");
    assert_int_equal(event->n_index, 2);
    kit_free(events);
    assert_int_equal(kit_poll(&client, "p", "x", 1, "t"), 0);
}

/* Most that may be asked at once, each of them once, in whatever order they come. */
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
        put("p", 1, NULL, &ids[i * 7 % N]); /* 7 has no factor of N */
    }
    report.id = ids;
    report.n_id = N;
    kit_free(kit_ok(&client, TQI_REPORT_LOST, &report));
    kit_free(kit_ok(&client, TQI_REPORT_LOST, &report));
    collect(&unit, "unit", 0, &call);
    assert_int_equal(kit_wait(&call), TQ_OK);
    const Tq__CollectReply *asked = (Tq__CollectReply *)call.reply;
    assert_int_equal(asked->n_doubted, N);
    for (uint32_t i = 1; i < N; i++) {
        assert_true(asked->doubted[i - 1] < asked->doubted[i]);
    }
    kit_end(&call);
    report.n_id = TQI_REPORT_LOST_MAX + 1;
    kit_fails(&client, TQI_REPORT_LOST, &report, TQ_EINVAL,
              "4097 blocks are reported as lost, at most 4096");
    free(ids);
}

/* Each manager's storage is known by itself, whatever left after it. */
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
    other.name = text("far");
    other.incarnation = 5;
    other.manager = text("else");
    kit_free(kit_ok(&second, TQI_REGISTER_OWNER, &other));
    kit_disconnect(&second);
    kit_free(wait_event(&since, "leave", &event));
    tq__list_owners__init(&list);
    list.wait = true;
    list.timeout_ms = 10;
    list.manager = text("test");
    kit_fails(&client, TQI_LIST_OWNERS, &list, TQ_ETIMEDOUT, "the last one was 'unit'");
    list.manager = text("else");
    kit_fails(&client, TQI_LIST_OWNERS, &list, TQ_ETIMEDOUT, "the last one was 'far'");
    list.manager = text("third");
    kit_fails(&client, TQI_LIST_OWNERS, &list, TQ_ETIMEDOUT, "no storage of manager 'third'");
}

/* What an owner has not to keep: ids that were never leased, or are dead and done. */
static void says_which_blocks_it_knows(void **state)
{
    Tq__UnknownBlocks ask;
    Tq__AbandonBlocks abandon = TQ__ABANDON_BLOCKS__INIT;
    kit_call call;
    uint64_t published = 0, other = 0, ids[6];
    (void)state;
    put("p", 2, NULL, &published);
    kit_register(&unit, "store", 5, true);
    put("p", 2, "store", &other);
    uint64_t leased = kit_lease(&client, "unit", 3);
    uint64_t given_up = leased + 1;
    abandon.id = &given_up;
    abandon.n_id = 1;
    kit_free(kit_ok(&client, TQI_ABANDON_BLOCKS, &abandon));
    for (int i = 0; i < 6; i++) {
        ids[i] = (uint64_t[]){123456, leased + 2, other, given_up, leased, published}[i];
    }
    tq__unknown_blocks__init(&ask);
    ask.owner = text("unit");
    ask.incarnation = 77;
    ask.id = ids;
    ask.n_id = 6;
    Tq__UnknownBlocksReply *reply = kit_ok(&unit, TQI_UNKNOWN_BLOCKS, &ask);
    assert_int_equal(reply->n_id, 2);
    assert_true(reply->id[0] == other && reply->id[1] == 123456);
    kit_free(reply);
    collect(&unit, "unit", 0, &call);
    uint64_t notice = expect_notice(&call, given_up);
    collect(&unit, "unit", notice, &call);
    reply = kit_ok(&unit, TQI_UNKNOWN_BLOCKS, &ask);
    assert_int_equal(reply->n_id, 3);
    kit_free(reply);
    kit_fails(&client, TQI_UNKNOWN_BLOCKS, &ask, TQ_ESTALE, "not served by this session");
    ask.incarnation = 78;
    kit_fails(&unit, TQI_UNKNOWN_BLOCKS, &ask, TQ_ESTALE, "not served by this session");
    abandon.id = &leased;
    kit_free(kit_ok(&client, TQI_ABANDON_BLOCKS, &abandon));
    expect_notice(&call, leased);
}

static void moves_blocks(void **state)
{
    Tq__Move move = TQ__MOVE__INIT;
    Tq__Owner owner;
    Tq__Block block, *blocks = &block;
    Tq__Resolve resolve;
    Tq__Live live = TQ__LIVE__INIT;
    kit_call call;
    uint64_t from = 0, begin = 0, bytes = 0, place = 100;
    uint32_t pieces = 1;
    (void)state;
    put("p", 2, NULL, &from);
    live.id = &from;
    live.n_id = 1;
    Tq__LiveReply *told = kit_ok(&unit, TQI_LIVE, &live);
    assert_int_equal(told->n_size, 1);
    assert_int_equal(told->n_begin, 1);
    assert_int_equal(told->begin[0], 0);
    assert_int_equal(told->place[0], 0);
    assert_int_equal(told->bytes[0], told->size[0]);
    bytes = told->bytes[0];
    kit_free(told);
    move.from = &from;
    move.n_from = 1;
    kit_fails(&unit, TQI_MOVE, &move, TQ_EINVAL, "owner is missing");
    tq__owner__init(&owner);
    tq__block__init(&block);
    owner.name = text("unit");
    owner.incarnation = 77;
    move.owner = &owner;
    kit_fails(&unit, TQI_MOVE, &move, TQ_EINVAL, "missing");
    block.id = kit_lease(&unit, "unit", 1);
    block.size = 100 + bytes;
    uint8_t locator[TQ_LOCATOR_MAX + 1] = {0};
    block.locator = (ProtobufCBinaryData){sizeof(locator), locator};
    move.to = &blocks;
    move.n_to = 1;
    move.pieces = &pieces;
    move.n_pieces = 1;
    kit_fails(&unit, TQI_MOVE, &move, TQ_EINVAL, "pieces are missing");
    move.begin = &begin;
    move.n_begin = 1;
    kit_fails(&unit, TQI_MOVE, &move, TQ_EINVAL, "missing");
    move.bytes = &bytes;
    move.place = &place;
    move.n_bytes = move.n_place = 1;
    kit_fails(&unit, TQI_MOVE, &move, TQ_EINVAL, "locator");
    block.locator.len = 1;
    uint64_t own = block.id;
    block.id = kit_lease(&client, "unit", 1);
    kit_fails(&client, TQI_MOVE, &move, TQ_ESTALE, "not served by this session");
    kit_register(&client, "mine", 5, false);
    owner.name = text("mine");
    owner.incarnation = 5;
    block.id = kit_lease(&client, "mine", 1);
    kit_fails(&client, TQI_MOVE, &move, TQ_EINVAL, "not of owner 'mine'");
    owner.name = text("unit");
    owner.incarnation = 77;
    block.id = own;
    kit_free(kit_ok(&unit, TQI_MOVE, &move));
    tq__resolve__init(&resolve);
    resolve.partition = text("p");
    Tq__ResolveReply *reply = kit_ok(&client, TQI_RESOLVE, &resolve);
    assert_int_equal(reply->batch->n_block, 1);
    assert_true(reply->batch->block[0]->id == block.id);
    assert_int_equal(reply->batch->field[0]->run_offset[0], 100);
    kit_free(reply);
    collect(&unit, "unit", 0, &call);
    expect_notice(&call, from);
}

/* Who asks for it hears of blocks of which much is dead; who does not, does not. */
static void tells_of_thin_blocks(void **state)
{
    Tq__Collect ask;
    Tq__Clear some;
    kit_call call;
    uint64_t from = 0;
    uint32_t indexes[1024];
    (void)state;
    put("p", 2048, NULL, &from);
    tq__collect__init(&ask);
    tq__clear__init(&some);
    ask.owner = text("unit");
    ask.thin = true;
    kit_send(&unit, TQI_COLLECT, &ask, &call);
    for (uint32_t i = 0; i < 1024; i++) {
        indexes[i] = i;
    }
    some.partition = text("p");
    some.index = indexes;
    some.n_index = 1024;
    kit_free(kit_ok(&client, TQI_CLEAR, &some));
    assert_int_equal(kit_wait(&call), TQ_OK);
    Tq__CollectReply *reply = (Tq__CollectReply *)call.reply;
    assert_int_equal(reply->n_first, 0);
    assert_int_equal(reply->n_thin, 1);
    assert_true(reply->thin[0] == from);
    kit_end(&call);
    /* Again, until it says that it knows: the answer may have got lost. */
    reply = kit_ok(&unit, TQI_COLLECT, &ask);
    assert_int_equal(reply->n_thin, 1);
    assert_true(reply->thin[0] == from);
    ask.named = reply->named;
    kit_free(reply);
    /* It is told of the dead as before. */
    kit_send(&unit, TQI_COLLECT, &ask, &call);
    clear("p");
    expect_notice(&call, from);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(leases_under_known_owners, setup, teardown_unit),
        cmocka_unit_test_setup_teardown(collects_until_it_is_done, setup, teardown_unit),
        cmocka_unit_test_setup_teardown(redelivers_to_the_next_session, setup, teardown_unit),
        cmocka_unit_test_setup_teardown(one_session_of_a_shared_owner_collects, setup, teardown),
        cmocka_unit_test_setup_teardown(says_what_may_still_be_written, setup, teardown_unit),
        cmocka_unit_test_setup_teardown(keeps_a_shared_owner_that_is_served, setup, teardown),
        cmocka_unit_test_setup_teardown(lost_after_its_time, setup_impatient, teardown),
        cmocka_unit_test_setup_teardown(comes_back_in_time, setup, teardown),
        cmocka_unit_test_setup_teardown(another_incarnation_loses_what_was, setup, teardown_unit),
        cmocka_unit_test_setup_teardown(waiting_for_owners_times_out, setup, teardown_unit),
        cmocka_unit_test_setup_teardown(reports_show_in_the_list, setup, teardown_unit),
        cmocka_unit_test_setup_teardown(readers_report_lost_blocks, setup, teardown_unit),
        cmocka_unit_test_setup_teardown(many_lost_blocks_are_asked_for_once, setup, teardown_unit),
        cmocka_unit_test_setup_teardown(storage_that_left_is_known_by_manager, setup, teardown),
        cmocka_unit_test_setup_teardown(says_which_blocks_it_knows, setup, teardown_unit),
        cmocka_unit_test_setup_teardown(moves_blocks, setup, teardown_unit),
        cmocka_unit_test_setup_teardown(tells_of_thin_blocks, setup, teardown_unit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
