/*
 * owner_test.c - owners over the real connection: grant, collect and redelivery, shared owners, what they know, moves.
 */
#include "controller/testkit_owner.h"

static void clear(const char *partition)
{
    Tq__Clear msg;

    tq__clear__init(&msg);
    msg.partition = kit_text(partition);
    msg.all = true;
    kit_free(kit_ok(&client, TQI_CLEAR, &msg));
}

/* Waits for a notice of exactly one block and returns its number. */
static uint64_t expect_notice(kit_call *call, uint64_t block)
{
    assert_int_equal(kit_wait(call), TQ_OK);
    Tq__CollectDeadReply *reply = (Tq__CollectDeadReply *)call->reply;
    uint64_t notice = reply->notice;
    assert_true(notice != 0);
    assert_int_equal(reply->n_first, 1);
    assert_true(reply->first[0] == block);
    assert_int_equal(reply->count[0], 1);
    assert_int_equal(reply->writer_done.data[0], 1);
    kit_end(call);
    return notice;
}

static void grants_under_known_owners(void **state)
{
    Tq__GrantBlocks msg;

    (void)state;
    uint64_t first = kit_grant(&client, "unit", 256);
    uint64_t second = kit_grant(&client, "unit", 1);
    assert_true(second >= first + 256 || second < first);
    tq__grant_blocks__init(&msg);
    msg.owner = kit_text("nobody");
    msg.count = 1;
    kit_fails(&client, TQI_GRANT_BLOCKS, &msg, TQ_EUNREACHABLE, "nobody");
    msg.owner = kit_text("unit");
    msg.incarnation = 78;
    kit_fails(&client, TQI_GRANT_BLOCKS, &msg, TQ_ESTALE, "unit");
    msg.incarnation = 77;
    msg.count = 0;
    kit_fails(&client, TQI_GRANT_BLOCKS, &msg, TQ_EINVAL, "0 blocks");
    msg.count = 257;
    kit_fails(&client, TQI_GRANT_BLOCKS, &msg, TQ_EINVAL, "257 blocks");
}

static void collects_until_it_is_done(void **state)
{
    kit_call call;
    uint64_t first = 0, second = 0;
    Tq__AbandonBlocks abandon = TQ__ABANDON_BLOCKS__INIT;

    (void)state;
    owner_collect(&client, "unit", 0, &call);
    assert_int_equal(kit_wait(&call), TQ_ESTALE);
    kit_end(&call);
    owner_collect(&unit, "unit", 0, &call);
    owner_put("p", 2, NULL, &first);
    assert_false(call.done);
    clear("p");
    expect_notice(&call, first);
    /* Not done: it comes again. */
    owner_collect(&unit, "unit", 0, &call);
    uint64_t notice = expect_notice(&call, first);
    owner_collect(&unit, "unit", notice, &call);
    second = kit_grant(&client, "unit", 1);
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
    owner_put("p", 1, NULL, &block);
    clear("p");
    owner_collect(&unit, "unit", 0, &call);
    expect_notice(&call, block);
    owner_collect(&unit, "unit", 0, &call);
    expect_notice(&call, block);
    /* The same storage comes back under a new session while the old one has not ended. */
    kit_connect(&k, &next, "unit again");
    kit_register(&next, "unit", 77, false);
    owner_collect(&unit, "unit", 0, &call);
    assert_int_equal(kit_wait(&call), TQ_ESTALE);
    kit_end(&call);
    owner_collect(&next, "unit", 0, &call);
    uint64_t notice = expect_notice(&call, block);
    owner_collect(&next, "unit", notice, &call);
    /* And back: a request that still waits under the replaced session is answered. */
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
    owner_collect(&unit, "store", 0, &first);
    kit_until_waiting(&unit, 0);
    owner_collect(&other, "store", 0, &second);
    owner_put("p", 1, "store", &block);
    clear("p");
    expect_notice(&first, block);
    kit_until_waiting(&other, 0);
    assert_false(second.done);
    /* The collector goes without being done: the other one gets the same notice. */
    kit_disconnect(&unit);
    uint64_t notice = expect_notice(&second, block);
    owner_collect(&other, "store", notice, &second);
    owner_put("p", 1, "store", &block);
    clear("p");
    expect_notice(&second, block);
    kit_disconnect(&other);
}

/* A write to an external store may arrive after the first removal. */
static void says_what_may_still_be_written(void **state)
{
    kit_call call;
    Tq__AbandonBlocks msg;

    (void)state;
    kit_register(&unit, "store", 5, true);
    uint64_t id = kit_grant(&client, "store", 1);
    tq__abandon_blocks__init(&msg);
    msg.id = &id;
    msg.n_id = 1;
    msg.writing = true;
    kit_free(kit_ok(&client, TQI_ABANDON_BLOCKS, &msg));
    owner_collect(&unit, "store", 0, &call);
    assert_int_equal(kit_wait(&call), TQ_OK);
    const Tq__CollectDeadReply *reply = (const Tq__CollectDeadReply *)call.reply;
    assert_int_equal(reply->n_first, 1);
    assert_true(reply->first[0] == id);
    assert_int_equal(reply->writer_done.data[0], 0);
    uint64_t done = reply->notice;
    kit_end(&call);
    /* The same of a writer that has gone. */
    id = kit_grant(&client, "store", 1);
    kit_disconnect(&client);
    kit_connect(&k, &client, "client");
    owner_collect(&unit, "store", done, &call);
    assert_int_equal(kit_wait(&call), TQ_OK);
    reply = (const Tq__CollectDeadReply *)call.reply;
    assert_true(reply->n_first == 1 && reply->first[0] == id);
    assert_int_equal(reply->writer_done.data[0], 0);
    kit_end(&call);
}

/* What an owner need not keep: ids that were never granted, or are dead and confirmed. */
static void says_which_blocks_it_knows(void **state)
{
    Tq__UnknownBlocks ask;
    Tq__AbandonBlocks abandon = TQ__ABANDON_BLOCKS__INIT;
    kit_call call;
    uint64_t published = 0, other = 0, ids[6];

    (void)state;
    owner_put("p", 2, NULL, &published);
    kit_register(&unit, "store", 5, true);
    owner_put("p", 2, "store", &other);
    uint64_t granted = kit_grant(&client, "unit", 3);
    uint64_t given_up = granted + 1;
    abandon.id = &given_up;
    abandon.n_id = 1;
    kit_free(kit_ok(&client, TQI_ABANDON_BLOCKS, &abandon));
    for (int i = 0; i < 6; i++) {
        ids[i] = (uint64_t[]){123456, granted + 2, other, given_up, granted, published}[i];
    }
    tq__unknown_blocks__init(&ask);
    ask.owner = kit_text("unit");
    ask.incarnation = 77;
    ask.id = ids;
    ask.n_id = 6;
    Tq__UnknownBlocksReply *reply = kit_ok(&unit, TQI_UNKNOWN_BLOCKS, &ask);
    assert_int_equal(reply->n_id, 2);
    assert_true(reply->id[0] == other && reply->id[1] == 123456);
    kit_free(reply);
    owner_collect(&unit, "unit", 0, &call);
    uint64_t notice = expect_notice(&call, given_up);
    owner_collect(&unit, "unit", notice, &call);
    reply = kit_ok(&unit, TQI_UNKNOWN_BLOCKS, &ask);
    assert_int_equal(reply->n_id, 3);
    kit_free(reply);
    ask.n_id = 0; /* a session that asks for none gets none */
    reply = kit_ok(&unit, TQI_UNKNOWN_BLOCKS, &ask);
    assert_int_equal(reply->n_id, 0);
    kit_free(reply);
    ask.n_id = 6;
    kit_fails(&client, TQI_UNKNOWN_BLOCKS, &ask, TQ_ESTALE, "not served by this session");
    ask.incarnation = 78;
    kit_fails(&unit, TQI_UNKNOWN_BLOCKS, &ask, TQ_ESTALE, "not served by this session");
    abandon.id = &granted;
    kit_free(kit_ok(&client, TQI_ABANDON_BLOCKS, &abandon));
    expect_notice(&call, granted);
}

static void moves_blocks(void **state)
{
    Tq__CompactMove move = TQ__COMPACT_MOVE__INIT;
    Tq__Owner owner;
    Tq__Block block, *blocks = &block;
    Tq__Resolve resolve;
    Tq__CompactLive live = TQ__COMPACT_LIVE__INIT;
    kit_call call;
    uint64_t from = 0, begin = 0, bytes = 0, place = 100;
    uint32_t pieces = 1;

    (void)state;
    owner_put("p", 2, NULL, &from);
    live.id = &from;
    live.n_id = 1;
    Tq__CompactLiveReply *told = kit_ok(&unit, TQI_COMPACT_LIVE, &live);
    assert_int_equal(told->n_size, 1);
    assert_int_equal(told->n_begin, 1);
    assert_int_equal(told->begin[0], 0);
    assert_int_equal(told->place[0], 0);
    assert_int_equal(told->bytes[0], told->size[0]);
    bytes = told->bytes[0];
    kit_free(told);
    move.from = &from;
    move.n_from = 1;
    kit_fails(&unit, TQI_COMPACT_MOVE, &move, TQ_EINVAL, "owner is missing");
    tq__owner__init(&owner);
    tq__block__init(&block);
    owner.name = kit_text("unit");
    owner.incarnation = 77;
    move.owner = &owner;
    kit_fails(&unit, TQI_COMPACT_MOVE, &move, TQ_EINVAL, "missing");
    block.id = kit_grant(&unit, "unit", 1);
    block.size = 100 + bytes;
    uint8_t locator[TQ_LOCATOR_MAX + 1] = {0};
    block.locator = (ProtobufCBinaryData){sizeof(locator), locator};
    move.to = &blocks;
    move.n_to = 1;
    move.pieces = &pieces;
    move.n_pieces = 1;
    kit_fails(&unit, TQI_COMPACT_MOVE, &move, TQ_EINVAL, "pieces are missing");
    move.begin = &begin;
    move.n_begin = 1;
    kit_fails(&unit, TQI_COMPACT_MOVE, &move, TQ_EINVAL, "missing");
    move.bytes = &bytes;
    move.place = &place;
    move.n_bytes = move.n_place = 1;
    kit_fails(&unit, TQI_COMPACT_MOVE, &move, TQ_EINVAL, "locator");
    block.locator.len = 1;
    uint64_t own = block.id;
    block.id = kit_grant(&client, "unit", 1);
    kit_fails(&client, TQI_COMPACT_MOVE, &move, TQ_ESTALE, "not served by this session");
    kit_register(&client, "mine", 5, false);
    owner.name = kit_text("mine");
    owner.incarnation = 5;
    block.id = kit_grant(&client, "mine", 1);
    kit_fails(&client, TQI_COMPACT_MOVE, &move, TQ_EINVAL, "not of owner 'mine'");
    owner.name = kit_text("unit");
    owner.incarnation = 77;
    block.id = own;
    kit_free(kit_ok(&unit, TQI_COMPACT_MOVE, &move));
    tq__resolve__init(&resolve);
    resolve.partition = kit_text("p");
    Tq__ResolveReply *reply = kit_ok(&client, TQI_RESOLVE, &resolve);
    assert_int_equal(reply->batch->n_block, 1);
    assert_true(reply->batch->block[0]->id == block.id);
    assert_int_equal(reply->batch->field[0]->run_offset[0], 100);
    kit_free(reply);
    owner_collect(&unit, "unit", 0, &call);
    expect_notice(&call, from);
}

/* A session that asks for sparse blocks gets their ids; one that does not ask does not. */
static void tells_of_sparse_blocks(void **state)
{
    Tq__CollectDead ask;
    Tq__Clear some;
    kit_call call;
    uint64_t from = 0;
    uint32_t indexes[1024];

    (void)state;
    owner_put("p", 2048, NULL, &from);
    tq__collect_dead__init(&ask);
    tq__clear__init(&some);
    ask.owner = kit_text("unit");
    ask.sparse = true;
    kit_send(&unit, TQI_COLLECT_DEAD, &ask, &call);
    for (uint32_t i = 0; i < 1024; i++) {
        indexes[i] = i;
    }
    some.partition = kit_text("p");
    some.index = indexes;
    some.n_index = 1024;
    kit_free(kit_ok(&client, TQI_CLEAR, &some));
    assert_int_equal(kit_wait(&call), TQ_OK);
    Tq__CollectDeadReply *reply = (Tq__CollectDeadReply *)call.reply;
    assert_int_equal(reply->n_first, 0);
    assert_int_equal(reply->n_sparse, 1);
    assert_true(reply->sparse[0] == from);
    kit_end(&call);
    /* Repeated until it confirms: the answer may have been lost. */
    reply = kit_ok(&unit, TQI_COLLECT_DEAD, &ask);
    assert_int_equal(reply->n_sparse, 1);
    assert_true(reply->sparse[0] == from);
    ask.named = reply->named;
    kit_free(reply);
    /* It still gets the dead blocks. */
    kit_send(&unit, TQI_COLLECT_DEAD, &ask, &call);
    clear("p");
    expect_notice(&call, from);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(grants_under_known_owners, owner_setup, owner_teardown_unit),
        cmocka_unit_test_setup_teardown(collects_until_it_is_done, owner_setup, owner_teardown_unit),
        cmocka_unit_test_setup_teardown(redelivers_to_the_next_session, owner_setup, owner_teardown_unit),
        cmocka_unit_test_setup_teardown(one_session_of_a_shared_owner_collects, owner_setup, owner_teardown),
        cmocka_unit_test_setup_teardown(says_what_may_still_be_written, owner_setup, owner_teardown_unit),
        cmocka_unit_test_setup_teardown(says_which_blocks_it_knows, owner_setup, owner_teardown_unit),
        cmocka_unit_test_setup_teardown(moves_blocks, owner_setup, owner_teardown_unit),
        cmocka_unit_test_setup_teardown(tells_of_sparse_blocks, owner_setup, owner_teardown_unit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
