/*
 * snapshot_test.c - snapshots and restores over the real connection: which session they belong to, what they hold,
 * when they end.
 */
#include <stdio.h>

#include "base/limits.h"
#include "controller/testkit.h"

static kit k;
static kit_client unit, client, other;

static int setup(void **state)
{
    tqi_controller_options options = {.grace_ms = 60000, .owner_timeout_ms = 60000, .epoch = 4711};

    (void)state;
    kit_start(&k, &options);
    kit_connect(&k, &unit, "unit");
    kit_connect(&k, &client, "client");
    kit_connect(&k, &other, "other");
    kit_register(&unit, "unit", 77, false);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    kit_disconnect(&unit);
    kit_disconnect(&client);
    kit_disconnect(&other);
    kit_stop(&k);
    return 0;
}

static void put(const char *partition, uint32_t rows)
{
    kit_put what = {.partition = partition, .field = "x", .rows = rows};

    kit_free(kit_publish(&client, &what));
}

static void clear(const char *partition)
{
    Tq__Clear ask;

    tq__clear__init(&ask);
    ask.partition = (char *)(uintptr_t)partition;
    ask.all = true;
    kit_free(kit_ok(&client, TQI_CLEAR, &ask));
}

static Tq__SnapshotReply *take(const char *partition)
{
    Tq__Snapshot ask;

    tq__snapshot__init(&ask);
    ask.partition = (char *)(uintptr_t)partition;
    return kit_ok(&client, TQI_SNAPSHOT, &ask);
}

static void close_snapshot(uint64_t id)
{
    Tq__SnapshotClose ask = TQ__SNAPSHOT_CLOSE__INIT;

    ask.id = id;
    kit_free(kit_ok(&client, TQI_SNAPSHOT_CLOSE, &ask));
}

/* Sends all parts of a snapshot back; the restore's number. */
static uint64_t send_back(const Tq__SnapshotReply *snapshot)
{
    uint64_t id = 0;

    for (uint32_t i = 0; i < snapshot->parts; i++) {
        Tq__SnapshotRead read = TQ__SNAPSHOT_READ__INIT;
        Tq__RestorePart part = TQ__RESTORE_PART__INIT;
        read.id = snapshot->id;
        read.part = i;
        Tq__SnapshotReadReply *bytes = kit_ok(&client, TQI_SNAPSHOT_READ, &read);
        part.id = id;
        part.part = bytes->part;
        Tq__RestorePartReply *kept = kit_ok(&client, TQI_RESTORE_PART, &part);
        id = kept->id;
        assert_int_not_equal(id, 0);
        kit_free(kept);
        kit_free(bytes);
    }
    return id;
}

static uint32_t samples(const char *partition)
{
    Tq__ConsumptionQuery ask;

    tq__consumption_query__init(&ask);
    ask.partition = (char *)(uintptr_t)partition;
    ask.task = (char *)(uintptr_t) "any";
    Tq__ConsumptionReply *reply = kit_ok(&client, TQI_CONSUMPTION, &ask);
    uint32_t n = (uint32_t)reply->n_index;
    kit_free(reply);
    return n;
}

static void what_was_taken_is_put_back(void **state)
{
    (void)state;
    put("p", 3);
    put("q", 2);
    Tq__SnapshotReply *snapshot = take("");
    assert_int_equal(snapshot->samples, 5);
    assert_int_equal(snapshot->parts, 4);
    assert_int_equal(snapshot->epoch, 4711);
    put("p", 1);
    Tq__RestoreCommit commit = TQ__RESTORE_COMMIT__INIT;
    commit.id = send_back(snapshot);
    commit.relink = true;
    commit.epoch = 4711;
    Tq__RestoreCommitReply *done = kit_ok(&client, TQI_RESTORE_COMMIT, &commit);
    assert_int_equal(done->samples, 5);
    assert_int_equal(done->lost, 0);
    kit_free(done);
    assert_int_equal(samples("p"), 3);
    kit_fails(&client, TQI_RESTORE_COMMIT, &commit, TQ_ESTALE, "no restore");
    /* Of another epoch no block is here. */
    commit.id = send_back(snapshot);
    commit.epoch = 4712;
    done = kit_ok(&client, TQI_RESTORE_COMMIT, &commit);
    assert_int_equal(done->lost, 5);
    kit_free(done);
    kit_free(snapshot);
}

static void one_partition_replaces_only_itself(void **state)
{
    (void)state;
    put("p", 3);
    put("q", 2);
    Tq__SnapshotReply *snapshot = take("p");
    assert_int_equal(snapshot->samples, 3);
    Tq__RestoreCommit commit = TQ__RESTORE_COMMIT__INIT;
    commit.id = send_back(snapshot);
    commit.partial = true;
    commit.relink = true;
    commit.epoch = 4711;
    clear("p");
    put("q", 2);
    kit_free(kit_ok(&client, TQI_RESTORE_COMMIT, &commit));
    assert_int_equal(samples("p"), 3);
    assert_int_equal(samples("q"), 4);
    kit_free(snapshot);
    Tq__Snapshot ask;
    tq__snapshot__init(&ask);
    ask.partition = (char *)(uintptr_t) "nowhere";
    kit_fails(&client, TQI_SNAPSHOT, &ask, TQ_EPARTITION, "'nowhere'");
}

static void dead_blocks_wait_for_the_end_of_a_snapshot(void **state)
{
    Tq__CollectDead ask;

    tq__collect_dead__init(&ask);
    kit_call collect;
    (void)state;
    ask.owner = (char *)(uintptr_t) "unit";
    put("p", 3);
    Tq__SnapshotReply *first = take("");
    Tq__SnapshotReply *second = take("");
    clear("p");
    kit_send(&unit, TQI_COLLECT_DEAD, &ask, &collect);
    close_snapshot(second->id);
    assert_int_equal(samples("p"), 0);
    assert_false(collect.done);
    close_snapshot(first->id);
    assert_int_equal(kit_wait(&collect), TQ_OK);
    assert_int_equal(((Tq__CollectDeadReply *)collect.reply)->n_first, 1);
    kit_end(&collect);
    kit_free(first);
    kit_free(second);
}

static void note_drained(uint64_t left, void *arg)
{
    *(uint64_t *)arg = left;
}

/* No client that could close it is served any more. */
static void the_end_of_the_system_closes_them(void **state)
{
    Tq__CollectDead ask;
    kit_call collect;
    uint64_t left = 1234;
    kit_put what = {.partition = "p", .field = "x", .rows = 3, .owner = "store"};

    (void)state;
    kit_register(&unit, "store", 5, true);
    kit_free(kit_publish(&client, &what));
    Tq__SnapshotReply *snapshot = take("");
    tq__collect_dead__init(&ask);
    ask.owner = (char *)(uintptr_t) "store";
    kit_send(&unit, TQI_COLLECT_DEAD, &ask, &collect);
    tqi_controller_drain(k.controller, 60000, note_drained, &left);
    assert_int_equal(kit_wait(&collect), TQ_OK);
    assert_int_equal(((Tq__CollectDeadReply *)collect.reply)->n_first, 1);
    ask.done = ((Tq__CollectDeadReply *)collect.reply)->notice;
    kit_end(&collect);
    close_snapshot(snapshot->id); /* it is already closed, and its client need not know */
    assert_int_equal(left, 1234);
    kit_send(&unit, TQI_COLLECT_DEAD, &ask, &collect);
    while (left == 1234) {
        uv_run(&k.loop, UV_RUN_ONCE);
    }
    assert_int_equal(left, 0);
    tqi_net_call_cancel(collect.call);
    kit_wait(&collect);
    kit_end(&collect);
    kit_free(snapshot);
}

/* With a checkpoint that refers to the data, the number removed is unknown: all of it may be left. */
static void what_nobody_can_tell_counts_as_left(void **state)
{
    kit_put what = {.partition = "p", .field = "x", .rows = 3, .owner = "store"};
    uint64_t left = 1234;
    Tq__Snapshot ask;

    (void)state;
    kit_register(&unit, "store", 5, true);
    kit_free(kit_publish(&client, &what));
    kit_free(kit_publish(&client, &what));
    tq__snapshot__init(&ask);
    ask.data_stays = true;
    kit_free(kit_ok(&client, TQI_SNAPSHOT, &ask));
    tqi_controller_drain(k.controller, 1, note_drained, &left);
    while (left == 1234) {
        uv_run(&k.loop, UV_RUN_ONCE);
    }
    assert_int_equal(left, 2);
}

/* Its table is too large for this system: the client gets the error, and what would help, before the data comes. */
static void a_table_that_is_too_large_is_refused_with_a_remedy(void **state)
{
    const uint64_t limit = tqi_limits.restore_bytes;
    Tq__RestorePart ask = TQ__RESTORE_PART__INIT;

    (void)state;
    tqi_limits.restore_bytes = 1000;
    ask.ask = true;
    ask.total = 1001;
    kit_fails(&client, TQI_RESTORE_PART, &ask, TQ_EINVAL,
              "a table of 1001 bytes cannot be loaded: restores may have 1000 bytes of tables, and "
              "others have 0; start the system with limits.restore_bytes of at least 1001");
    ask.total = 1000;
    Tq__RestorePartReply *reply = kit_ok(&client, TQI_RESTORE_PART, &ask);
    assert_int_equal(reply->id, 0);
    kit_free(reply);
    ask.ask = false;
    ask.total = 1001;
    kit_fails(&client, TQI_RESTORE_PART, &ask, TQ_EINVAL, "at least 1001");
    tqi_limits.restore_bytes = limit;
}

static void a_session_takes_its_snapshots_along(void **state)
{
    Tq__CollectDead ask;

    tq__collect_dead__init(&ask);
    kit_call collect;
    (void)state;
    ask.owner = (char *)(uintptr_t) "unit";
    put("p", 3);
    Tq__Snapshot all;
    tq__snapshot__init(&all);
    Tq__SnapshotReply *snapshot = kit_ok(&other, TQI_SNAPSHOT, &all);
    Tq__RestorePart part = TQ__RESTORE_PART__INIT;
    kit_free(kit_ok(&other, TQI_RESTORE_PART, &part));
    clear("p");
    kit_send(&unit, TQI_COLLECT_DEAD, &ask, &collect);
    kit_disconnect(&other);
    assert_int_equal(kit_wait(&collect), TQ_OK);
    kit_end(&collect);
    kit_free(snapshot);
    kit_connect(&k, &other, "other");
}

static void they_belong_to_their_session(void **state)
{
    (void)state;
    put("p", 1);
    Tq__SnapshotReply *snapshot = take("");
    Tq__SnapshotRead read = TQ__SNAPSHOT_READ__INIT;
    read.id = snapshot->id;
    kit_fails(&other, TQI_SNAPSHOT_READ, &read, TQ_ESTALE, "no such snapshot");
    read.part = 99;
    kit_fails(&client, TQI_SNAPSHOT_READ, &read, TQ_EINVAL, "fewer");
    Tq__RestorePart part = TQ__RESTORE_PART__INIT;
    Tq__RestoreCommit commit = TQ__RESTORE_COMMIT__INIT;
    part.id = commit.id = send_back(snapshot);
    kit_fails(&other, TQI_RESTORE_PART, &part, TQ_ESTALE, "no restore");
    kit_fails(&other, TQI_RESTORE_COMMIT, &commit, TQ_ESTALE, "no restore");
    Tq__RestoreDrop drop = TQ__RESTORE_DROP__INIT;
    drop.id = commit.id;
    kit_free(kit_ok(&other, TQI_RESTORE_DROP, &drop));
    /* Blocks that were published long ago are not new: refused, and nothing changes. */
    kit_fails(&client, TQI_RESTORE_COMMIT, &commit, TQ_EINVAL, "not an unpublished block");
    assert_int_equal(samples("p"), 1);
    kit_free(kit_ok(&client, TQI_RESTORE_DROP, &drop));
    close_snapshot(snapshot->id);
    kit_free(snapshot);
}

/* A storage unit ends while a checkpoint is loaded into it: the load says so, and nothing changes. */
static void blocks_of_a_unit_that_has_ended_are_not_restored(void **state)
{
    (void)state;
    put("p", 1);
    Tq__SnapshotReply *snapshot = take("");
    Tq__RestoreCommit commit = TQ__RESTORE_COMMIT__INIT;
    commit.id = send_back(snapshot);
    close_snapshot(snapshot->id);
    kit_free(snapshot);
    kit_register(&unit, "unit", 78, false);
    kit_fails(&client, TQI_RESTORE_COMMIT, &commit, TQ_ESTALE, "owner 'unit' has ended since it was granted");
    assert_int_equal(samples("p"), 1);
}

static void parts_that_make_no_sense_are_refused(void **state)
{
    static uint8_t garbage[] = {0x0a, 0xff, 0x01};

    (void)state;
    Tq__RestorePart part = TQ__RESTORE_PART__INIT;
    part.part = (ProtobufCBinaryData){.data = garbage, .len = sizeof(garbage)};
    Tq__RestorePartReply *kept = kit_ok(&client, TQI_RESTORE_PART, &part);
    Tq__RestoreCommit commit = TQ__RESTORE_COMMIT__INIT;
    commit.id = kept->id;
    put("p", 2);
    kit_fails(&client, TQI_RESTORE_COMMIT, &commit, TQ_EPROTO, "SnapshotPart");
    assert_int_equal(samples("p"), 2);
    kit_free(kept);
}

/* A session may open a quarter of the allowed snapshots and restores, and always at least one. */
static void a_session_may_have_a_quarter(void **state)
{
    static const struct {
        uint64_t limit, share;
    } cases[] = {{8, 2}, {3, 1}};
    const tqi_limits_table saved = tqi_limits;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t ids[2];
        char text[128];
        Tq__Snapshot ask;
        Tq__RestorePart part = TQ__RESTORE_PART__INIT;
        unsigned share = (unsigned)cases[i].share;
        tqi_limits.snapshots = tqi_limits.restores = cases[i].limit;
        tq__snapshot__init(&ask);
        for (unsigned n = 0; n < share; n++) {
            Tq__SnapshotReply *snapshot = take("");
            ids[n] = snapshot->id;
            kit_free(snapshot);
        }
        snprintf(text, sizeof(text),
                 "this session has %u of %u open snapshots; at most %u may be open, %u of one "
                 "session (limits.snapshots): wait until one is saved",
                 share, share, (unsigned)cases[i].limit, share);
        kit_fails(&client, TQI_SNAPSHOT, &ask, TQ_EINVAL, text);
        kit_free(kit_ok(&other, TQI_SNAPSHOT, &ask));
        snprintf(text, sizeof(text), "has %u of %u open snapshots", share, share + 1);
        kit_fails(&client, TQI_SNAPSHOT, &ask, TQ_EINVAL, text);
        for (unsigned n = 0; n < share; n++) {
            close_snapshot(ids[n]);
        }
        for (unsigned n = 0; n < share; n++) {
            Tq__RestorePartReply *kept = kit_ok(&client, TQI_RESTORE_PART, &part);
            ids[n] = kept->id;
            kit_free(kept);
        }
        snprintf(text, sizeof(text), "this session has %u of %u open restores", share, share);
        kit_fails(&client, TQI_RESTORE_PART, &part, TQ_EINVAL, text);
        for (unsigned n = 0; n < share; n++) {
            Tq__RestoreDrop drop = TQ__RESTORE_DROP__INIT;
            drop.id = ids[n];
            kit_free(kit_ok(&client, TQI_RESTORE_DROP, &drop));
        }
        kit_disconnect(&other);
        kit_connect(&k, &other, "other");
    }
    tqi_limits = saved;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_was_taken_is_put_back, setup, teardown),
        cmocka_unit_test_setup_teardown(one_partition_replaces_only_itself, setup, teardown),
        cmocka_unit_test_setup_teardown(dead_blocks_wait_for_the_end_of_a_snapshot, setup, teardown),
        cmocka_unit_test_setup_teardown(the_end_of_the_system_closes_them, setup, teardown),
        cmocka_unit_test_setup_teardown(what_nobody_can_tell_counts_as_left, setup, teardown),
        cmocka_unit_test_setup_teardown(a_table_that_is_too_large_is_refused_with_a_remedy, setup, teardown),
        cmocka_unit_test_setup_teardown(a_session_takes_its_snapshots_along, setup, teardown),
        cmocka_unit_test_setup_teardown(they_belong_to_their_session, setup, teardown),
        cmocka_unit_test_setup_teardown(blocks_of_a_unit_that_has_ended_are_not_restored, setup, teardown),
        cmocka_unit_test_setup_teardown(parts_that_make_no_sense_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(a_session_may_have_a_quarter, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
