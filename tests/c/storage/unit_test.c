/*
 * unit_test.c - a storage unit with a real controller: reserve, write, read, map, report.
 */
#include <stdio.h>
#include <string.h>

#include "testkit.h"

#include "unit/unit_state.h"

#define MIB (UINT64_C(1) << 20)

static void writes_and_reads(void **state)
{
    static uint8_t data[100000], out[100000];
    bool tcp = *(const bool *)*state;
    kit k;
    kit_client client, other;
    uint64_t offset, used, blocks;
    uint32_t slot;
    bool gone = true;
    tq_error err = {0};

    kit_open(&k);
    kit_unit_start(&k, 0, 8 * MIB, tcp);
    kit_client_open(&k, &client, 0);
    kit_client_open(&k, &other, 0);
    for (size_t i = 0; i < sizeof(data); i++) {
        data[i] = (uint8_t)(i * 31 >> 3);
    }
    uint64_t id = kit_grant(&client, 0, 4, NULL);
    assert_int_equal(kit_reserve(&client, id, sizeof(data), true, &slot, &offset, &err), TQ_OK);
    assert_int_equal(kit_write(&client, id, slot, data, sizeof(data), &err), TQ_OK);
    assert_int_equal(kit_write(&client, id, slot, data, sizeof(data), &err), TQ_OK); /* harmless */
    assert_int_equal(kit_read(&other, id, slot, 0, sizeof(data), out, &gone, &err), TQ_OK);
    assert_false(gone);
    assert_memory_equal(out, data, sizeof(data));
    assert_int_equal(kit_read(&other, id, slot, 99990, 10, out, &gone, &err), TQ_OK);
    assert_memory_equal(out, data + 99990, 10);
    /* Only complete blocks of the writer's own can be written. */
    assert_int_equal(kit_write(&client, id, slot, data, 10, &err), TQ_EINVAL);
    assert_int_equal(kit_write(&client, id, slot + 1, data, sizeof(data), &err), TQ_ESTALE);
    assert_int_equal(kit_write(&other, id, slot, data, sizeof(data), &err), TQ_ESTALE);
    /* Ranges outside the block, and blocks that do not exist. */
    assert_int_equal(kit_read(&other, id, slot, 99990, 11, out, &gone, &err), TQ_EINVAL);
    assert_int_equal(kit_read(&other, id, slot, UINT64_MAX, 2, out, &gone, &err), TQ_EINVAL);
    assert_int_equal(kit_read(&other, id + 1, slot, 0, 10, out, &gone, &err), TQ_OK);
    assert_true(gone);
    assert_int_equal(kit_read(&other, id, slot + 1, 0, 10, out, &gone, &err), TQ_OK);
    assert_true(gone);
    /* The same id twice, no ids at all. */
    assert_int_equal(kit_reserve(&client, id, 10, true, &slot, &offset, &err), TQ_ESTALE);
    kit_stat(&client, &used, &blocks);
    assert_int_equal(blocks, 1);
    assert_int_equal(used, (sizeof(data) + 63) / 64 * 64);
    kit_client_close(&client);
    kit_client_close(&other);
    kit_close(&k);
}

static void many_ranges_in_one_read(void **state)
{
    kit k;
    kit_client client;
    uint64_t ids[40], offsets[40], sizes[40], offset;
    uint32_t slots[40], slot[20];
    uint8_t out[40 * 100];
    tq_error err = {0};
    Tq__UnitRead message;
    kit_call call;

    (void)state;
    kit_open(&k);
    kit_unit_start(&k, 0, MIB, false);
    kit_client_open(&k, &client, 0);
    uint64_t first = kit_grant(&client, 0, 20, NULL);
    for (uint64_t i = 0; i < 20; i++) {
        uint8_t data[200];
        memset(data, (int)i, 100);
        memset(data + 100, (int)i + 100, 100);
        assert_int_equal(kit_reserve(&client, first + i, 200, true, &slot[i], &offset, &err), TQ_OK);
        assert_int_equal(kit_write(&client, first + i, slot[i], data, 200, &err), TQ_OK);
    }
    for (uint64_t i = 0; i < 40; i++) {
        ids[i] = first + i / 2 + (i % 7 == 3 ? 1000 : 0); /* some do not exist */
        slots[i] = slot[i / 2];
        offsets[i] = i % 2 * 100;
        sizes[i] = 100;
    }
    tq__unit_read__init(&message);
    message.id = ids;
    message.slot = slots;
    message.offset = offsets;
    message.size = sizes;
    message.n_id = message.n_slot = message.n_offset = message.n_size = 40;
    kit_start(&client, client.unit, TQI_UNIT_READ, &message, NULL, 0, out, 20, &call);
    kit_end(&client, &call);
    assert_int_equal(call.status, TQ_OK);
    const Tq__UnitReadReply *reply = (const Tq__UnitReadReply *)call.reply;
    assert_int_equal(reply->n_gone, 6);
    size_t at = 0;
    for (uint64_t i = 0; i < 40; i++) {
        if (i % 7 == 3) {
            assert_int_equal(reply->gone[i / 7], i);
            continue;
        }
        assert_int_equal(out[at], i / 2 + i % 2 * 100);
        assert_int_equal(out[at + 99], i / 2 + i % 2 * 100);
        at += 100;
    }
    assert_int_equal(call.payload, at);
    kit_call_free(&call);
    /* Arrays that disagree are refused. */
    message.n_slot = 39;
    kit_start(&client, client.unit, TQI_UNIT_READ, &message, NULL, 0, out, 20, &call);
    kit_end(&client, &call);
    assert_int_equal(call.status, TQ_EINVAL);
    kit_call_free(&call);
    kit_client_close(&client);
    kit_close(&k);
}

static void shares_its_memory(void **state)
{
    kit k;
    kit_client client;
    tqi_store_map map;
    uint64_t offset, incarnation, granted;
    uint32_t slot;
    uint8_t out[5000];
    bool gone;
    tq_error err = {0};
    Tq__UnitMap message;
    kit_call call;

    (void)state;
    kit_open(&k);
    kit_unit_start(&k, 0, 8 * MIB, false);
    kit_unit_start(&k, 1, 8 * MIB, true);
    kit_client_open(&k, &client, 0);
    kit_map(&client, &map, &incarnation);
    uint64_t id = kit_grant(&client, 0, 1, &granted);
    assert_true(incarnation == granted);
    assert_int_equal(kit_reserve(&client, id, 5000, true, &slot, &offset, &err), TQ_OK);
    memset(map.arena + offset, 0x77, 5000);
    assert_int_equal(kit_read(&client, id, slot, 0, 5000, out, &gone, &err), TQ_OK);
    assert_false(gone);
    assert_int_equal(out[0], 0x77);
    assert_int_equal(out[4999], 0x77);
    assert_true(tqi_store_map_read(&map, id, slot, offset, out, 5000, false));
    tqi_store_map_fini(&map);
    kit_client_close(&client);
    /* Over tcp nothing is shared. */
    kit_client_open(&k, &client, 1);
    tq__unit_map__init(&message);
    kit_start(&client, client.unit, TQI_UNIT_MAP, &message, NULL, 0, NULL, 20, &call);
    kit_end(&client, &call);
    assert_int_equal(call.status, TQ_EUNSUPPORTED);
    kit_call_free(&call);
    kit_client_close(&client);
    kit_close(&k);
}

static void reports_its_requests(void **state)
{
    kit k;
    kit_client client;
    uint64_t offset;
    uint32_t slot;
    uint8_t byte;
    bool gone;
    tq_error err = {0};
    kit_call waiting;

    (void)state;
    kit_open(&k);
    kit_unit_start(&k, 0, MIB, false);
    kit_client_open(&k, &client, 0);
    kit_until_reported(&client, "capacity_bytes", MIB);
    assert_int_equal(kit_reported(&client, "put_requests"), 0);
    uint64_t id = kit_grant(&client, 0, 4, NULL);
    assert_int_equal(kit_reserve(&client, id, MIB, false, &slot, &offset, &err), TQ_OK);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(kit_read(&client, id, slot, 0, 1, &byte, &gone, &err), TQ_OK);
    }
    kit_until_reported(&client, "get_requests", 3);
    assert_int_equal(kit_reported(&client, "put_requests"), 1);
    assert_int_equal(kit_reported(&client, "used_bytes"), MIB);
    assert_int_equal(kit_reported(&client, "blocks"), 1);
    assert_true(kit_reported(&client, "put_p99_ns") > 0);
    assert_true(kit_reported(&client, "put_avg_ns") > 0);
    assert_true(kit_reported(&client, "rss_bytes") > 0);
    assert_true(kit_reported(&client, "arrived") >= 4);
    /* One that waits for room, and the notice that makes it. */
    kit_reserve_start(&client, id + 1, MIB, false, true, 0, 0, &waiting);
    kit_until_reported(&client, "waiting_puts", 1);
    kit_abandon(&client, &id, 1, false);
    kit_end(&client, &waiting);
    assert_int_equal(waiting.status, TQ_OK);
    kit_call_free(&waiting);
    kit_until_reported(&client, "clear_requests", 1);
    assert_int_equal(kit_reported(&client, "waiting_puts"), 0);
    kit_client_close(&client);
    kit_close(&k);
}

static void finish(kit_client *client, const uint64_t *ids, size_t n, bool others)
{
    Tq__UnitFinish message;
    kit_call call;

    tq__unit_finish__init(&message);
    message.id = (uint64_t *)(uintptr_t)ids;
    message.n_id = n;
    message.others = others;
    kit_start(client, client->unit, TQI_UNIT_FINISH, &message, NULL, 0, NULL, KIT_LONG, &call);
    kit_end(client, &call);
    assert_int_equal(call.status, TQ_OK);
    kit_call_free(&call);
}

/* Waits until the unit has that many blocks, which its next dead notice changes. */
static void until_blocks(kit_client *client, uint64_t wanted)
{
    uint64_t used, blocks;

    do {
        kit_stat(client, &used, &blocks);
    } while (blocks != wanted);
}

/* Blocks whose end is announced while their writer is alive are freed once it says that it has finished. */
static void a_writer_that_lives_finishes_blocks(void **state)
{
    kit k;
    kit_client client, other;
    tqi_store_map map;
    uint64_t ids[4], offset, used, blocks;
    uint32_t slot;
    tq_error err = {0};

    (void)state;
    kit_open(&k);
    kit_unit_start(&k, 0, 8 * MIB, false);
    kit_client_open(&k, &client, 0);
    kit_client_open(&k, &other, 0);
    kit_map(&client, &map, NULL);
    ids[0] = kit_grant(&client, 0, 5, NULL);
    for (uint64_t i = 0; i < 4; i++) {
        ids[i] = ids[0] + i;
        assert_int_equal(kit_reserve(&client, ids[i], 100, true, &slot, &offset, &err), TQ_OK);
    }
    /* The end of three is announced as that of blocks whose writer may still write; one is not dead yet. */
    kit_abandon(&client, ids, 3, true);
    /* A block that its writer has finished with is freed by its notice, which comes after those of the three. */
    uint64_t last = ids[0] + 4;
    assert_int_equal(kit_reserve(&client, last, 100, true, &slot, &offset, &err), TQ_OK);
    kit_abandon(&client, &last, 1, false);
    until_blocks(&client, 4);
    finish(&other, ids, 3, false); /* they are not its own */
    finish(&other, NULL, 0, true);
    kit_stat(&client, &used, &blocks);
    assert_int_equal(blocks, 4);
    finish(&client, ids, 1, true);
    kit_stat(&client, &used, &blocks);
    assert_int_equal(blocks, 2); /* the one that was named, and the one that has not ended */
    finish(&client, ids, 1, false);
    kit_stat(&client, &used, &blocks);
    assert_int_equal(blocks, 1);
    kit_abandon(&client, &ids[3], 1, true);
    until_blocks(&client, 0);
    tqi_store_map_fini(&map);
    kit_client_close(&client);
    kit_client_close(&other);
    kit_close(&k);
}

/* The session at the unit was lost, too: the client's next one speaks for the same process. */
static void the_next_session_finishes_blocks_of_a_lost_one(void **state)
{
    kit k;
    kit_client client, other;
    tqi_store_map map;
    uint64_t ids[3], offset, used, blocks;
    uint32_t slot;
    tq_error err = {0};

    (void)state;
    kit_open(&k);
    k.grace_ms = 0;
    kit_unit_start(&k, 0, 8 * MIB, false);
    kit_client_open(&k, &client, 0);
    kit_client_open(&k, &other, 0);
    kit_map(&client, &map, NULL);
    ids[0] = kit_grant(&client, 0, 3, NULL);
    for (uint64_t i = 0; i < 3; i++) {
        ids[i] = ids[0] + i;
        assert_int_equal(kit_reserve(&client, ids[i], 100, true, &slot, &offset, &err), TQ_OK);
    }
    kit_client_cut(&client);
    kit_abandon(&client, ids, 1, true);
    kit_abandon(&client, &ids[2], 1, false);
    until_blocks(&client, 2); /* in the next session; the notice of the first came before */
    finish(&other, NULL, 0, true);
    kit_stat(&client, &used, &blocks);
    assert_int_equal(blocks, 2);
    finish(&client, ids, 1, true);
    kit_stat(&client, &used, &blocks);
    assert_int_equal(blocks, 2); /* the one that was named, and the one that has not ended */
    finish(&client, NULL, 0, true);
    kit_stat(&client, &used, &blocks);
    assert_int_equal(blocks, 1);
    kit_abandon(&client, &ids[1], 1, true);
    until_blocks(&client, 0);
    tqi_store_map_fini(&map);
    kit_client_close(&client);
    kit_client_close(&other);
    kit_close(&k);
}

static void closed_flag(void *arg)
{
    *(bool *)arg = true;
}

static void refuses_bad_options(void **state)
{
    kit k;
    const char *listen[] = {"nonsense:1"};
    tqi_unit *unit = NULL;
    tq_error err = {0};
    bool closed = false;

    (void)state;
    kit_open(&k);
    tqi_unit_options options = {
        .name = "",
        .controller = k.controller_at,
        .listen = listen,
        .n_listen = 1,
        .token = &k.token,
        .store = {.capacity = MIB},
        .grace_ms = 1000,
        .keep_ms = 5000,
    };
    assert_int_equal(tqi_unit_alloc(&k.loop, &options, &unit, &err), TQ_ENAME);
    options.name = "u";
    assert_int_equal(tqi_unit_alloc(&k.loop, &options, &unit, &err), TQ_EINVAL);
    options.n_listen = 0;
    assert_int_equal(tqi_unit_alloc(&k.loop, &options, &unit, &err), TQ_EINVAL);
    options.store.capacity = 0;
    assert_int_equal(tqi_unit_alloc(&k.loop, &options, &unit, &err), TQ_EINVAL);
    assert_null(unit);
    /* A unit whose controller does not run yet can be closed. */
    char at[160];
    snprintf(at, sizeof(at), "unix:%s/lonely", k.dir);
    listen[0] = at;
    options.n_listen = 1;
    options.store.capacity = MIB;
    options.controller = "unix:/nonexistent/controller";
    assert_int_equal(tqi_unit_alloc(&k.loop, &options, &unit, &err), TQ_OK);
    assert_string_equal(tqi_unit_endpoint_for_tests(unit), at);
    tqi_unit_close(unit, closed_flag, &closed);
    kit_until(&k, &closed);
    kit_close(&k);
}

static void register_others(kit_client *client, unsigned first, unsigned n)
{
    char name[32], manager[] = "other";

    for (unsigned i = first; i < first + n; i++) {
        Tq__RegisterOwner message;
        kit_call call;
        tq__register_owner__init(&message);
        snprintf(name, sizeof(name), "other-%u", i);
        message.name = name;
        message.incarnation = 1;
        message.manager = manager;
        kit_start(client, client->controller, TQI_REGISTER_OWNER, &message, NULL, 0, NULL, KIT_LONG, &call);
        kit_end(client, &call);
        assert_int_equal(call.status, TQ_OK);
        kit_call_free(&call);
    }
}

/* 200 ms apart among few owners; else the time for each of them, as it is when the unit registers or reports. */
static void reports_less_often_beside_many(void **state)
{
    kit k;
    kit_client client;

    (void)state;
    kit_open(&k);
    kit_client_open(&k, &client, -1);
    kit_unit_start(&k, 0, MIB, false);
    assert_int_equal(k.units[0]->report_ms, 200);
    register_others(&client, 0, 99);
    kit_unit_start(&k, 1, MIB, false);
    assert_int_equal(k.units[1]->report_ms, 101 * 5);
    tqi_unit_reportable(k.units[0]);
    while (k.units[0]->report_ms == 200) {
        uv_run(&k.loop, UV_RUN_ONCE);
    }
    assert_int_equal(k.units[0]->report_ms, 101 * 5);
    kit_client_close(&client);
    kit_close(&k);
}

/* However rarely a unit reports, it soon reports a waiting put, because the put's client asks the controller. */
static void reports_that_puts_wait(void **state)
{
    kit k;
    kit_client client;
    kit_call call;
    uint64_t offset, incarnation;
    uint32_t slot;
    tq_error err = {0};

    (void)state;
    kit_open(&k);
    kit_unit_start(&k, 0, MIB, false);
    kit_client_open(&k, &client, 0);
    tqi_unit *unit = k.units[0];
    while (unit->reporting != NULL) {
        uv_run(&k.loop, UV_RUN_ONCE);
    }
    unit->report_ms = 3600 * 1000; /* as beside 720,000 others */
    uint64_t id = kit_grant(&client, 0, 2, &incarnation);
    assert_int_equal(kit_reserve(&client, id, MIB, false, &slot, &offset, &err), TQ_OK);
    assert_true(unit->dirty);
    assert_true(uv_timer_get_due_in(&unit->report) > 3000 * 1000);
    kit_reserve_start(&client, id + 1, MIB, false, true, 0, incarnation, &call);
    while (!tqi_unit_waited_for(unit)) {
        uv_run(&k.loop, UV_RUN_ONCE);
    }
    assert_true(uv_timer_get_due_in(&unit->report) <= 2000);
    kit_abandon(&client, &id, 1, false);
    kit_end(&client, &call);
    assert_int_equal(call.status, TQ_OK);
    kit_call_free(&call);
    kit_client_close(&client);
    kit_close(&k);
}

int main(void)
{
    static bool over_unix = false, over_tcp = true;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(writes_and_reads, &over_unix),
        cmocka_unit_test_prestate(writes_and_reads, &over_tcp),
        cmocka_unit_test(many_ranges_in_one_read),
        cmocka_unit_test(shares_its_memory),
        cmocka_unit_test(reports_its_requests),
        cmocka_unit_test(reports_less_often_beside_many),
        cmocka_unit_test(reports_that_puts_wait),
        cmocka_unit_test(a_writer_that_lives_finishes_blocks),
        cmocka_unit_test(the_next_session_finishes_blocks_of_a_lost_one),
        cmocka_unit_test(refuses_bad_options),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
