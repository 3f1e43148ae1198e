/*
 * grant_test.c - a storage unit accepts block ids only from the session to which the controller granted them; and what
 * happens to blocks that no table knows.
 */
#include "testkit.h"

#include <string.h>

#define MIB (UINT64_C(1) << 20)

static kit k;
static kit_client owner, stranger;

static int setup(void **state)
{
    (void)state;
    kit_open(&k);
    kit_unit_start(&k, 0, 8 * MIB, false);
    kit_client_open(&k, &owner, 0);
    kit_client_open(&k, &stranger, 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    if (owner.connector != NULL) {
        kit_client_close(&owner);
    }
    if (stranger.connector != NULL) {
        kit_client_close(&stranger);
    }
    kit_close(&k);
    return 0;
}

/* Reserves one block with a grant of the test's making. */
static int reserve_with(kit_client *client, uint64_t id, const Tq__Grant *grant)
{
    Tq__UnitReserve message;
    Tq__Grant copy = *grant, *grants = &copy;
    uint64_t size = 100;
    kit_call call;

    tq__unit_reserve__init(&message);
    message.id = &id;
    message.size = &size;
    message.n_id = message.n_size = 1;
    message.grant = &grants;
    message.n_grant = 1;
    kit_start(client, client->unit, TQI_UNIT_RESERVE, &message, NULL, 0, NULL, KIT_LONG, &call);
    kit_end(client, &call);
    kit_call_free(&call);
    return call.status;
}

static Tq__Grant grant_of(kit_client *client, unsigned which)
{
    Tq__Grant grant;

    tq__grant__init(&grant);
    grant.first = client->grants[which].first;
    grant.count = client->grants[which].count;
    grant.proof = (ProtobufCBinaryData){TQI_NET_GRANT, client->grants[which].proof};
    return grant;
}

/* Ids ahead of those that were granted, the ids of others, and proofs for something else. */
static void takes_only_granted_ids(void **state)
{
    uint64_t offset, used, blocks;
    uint32_t slot;
    tq_error err = {0};

    (void)state;
    uint64_t id = kit_grant(&owner, 0, 4, NULL);
    for (uint64_t ahead = 0; ahead < 64; ahead++) {
        assert_int_equal(kit_reserve(&stranger, id + ahead, 100, true, &slot, &offset, &err), TQ_ESTALE);
    }
    assert_non_null(strstr(err.message, "was not granted to this session"));
    Tq__Grant grant = grant_of(&owner, 0);
    assert_int_equal(reserve_with(&stranger, id, &grant), TQ_ESTALE); /* of another session */
    grant.count = 256;
    assert_int_equal(reserve_with(&owner, id, &grant), TQ_ESTALE);
    grant.count = 4;
    grant.first++;
    assert_int_equal(reserve_with(&owner, id + 4, &grant), TQ_ESTALE);
    grant.first--;
    assert_int_equal(reserve_with(&owner, id + 4, &grant), TQ_ESTALE);
    grant.proof.len--;
    assert_int_equal(reserve_with(&owner, id, &grant), TQ_ESTALE);
    grant.proof.len++;
    owner.grants[0].proof[3] ^= 1;
    assert_int_equal(reserve_with(&owner, id, &grant), TQ_ESTALE);
    owner.grants[0].proof[3] ^= 1;
    kit_stat(&owner, &used, &blocks);
    assert_int_equal(blocks, 0);
    assert_int_equal(reserve_with(&owner, id, &grant), TQ_OK);
    assert_int_equal(kit_reserve(&owner, id + 3, 100, true, &slot, &offset, &err), TQ_OK);
}

/* Proofs are remembered, but only the last ones. */
static void knows_many_grants(void **state)
{
    uint64_t ids[KIT_GRANTS], offset;
    uint32_t slot;
    tq_error err = {0};

    (void)state;
    for (unsigned i = 0; i < KIT_GRANTS; i++) {
        ids[i] = kit_grant(&owner, 0, 2, NULL);
        assert_int_equal(kit_reserve(&owner, ids[i], 100, true, &slot, &offset, &err), TQ_OK);
    }
    for (unsigned i = 0; i < KIT_GRANTS; i++) {
        assert_int_equal(kit_reserve(&owner, ids[i] + 1, 100, true, &slot, &offset, &err), TQ_OK);
    }
}

/* A holder takes its own ids again after their end: no table knows these blocks, so no notice comes for them. */
static void frees_what_no_table_knows(void **state)
{
    uint64_t offset, used, blocks, ids[8];
    uint32_t slot;
    tq_error err = {0};

    (void)state;
    uint64_t id = kit_grant(&owner, 0, 8, NULL);
    uint64_t kept = kit_grant(&stranger, 0, 1, NULL);
    for (uint64_t i = 0; i < 8; i++) {
        ids[i] = id + i;
        assert_int_equal(kit_reserve(&owner, id + i, MIB / 2, true, &slot, &offset, &err), TQ_OK);
    }
    assert_int_equal(kit_reserve(&stranger, kept, 100, true, &slot, &offset, &err), TQ_OK);
    kit_abandon(&owner, ids, 8, false);
    kit_until_reported(&stranger, "blocks", 1);
    for (uint64_t i = 0; i < 8; i++) {
        assert_int_equal(kit_reserve(&owner, id + i, MIB / 2, true, &slot, &offset, &err), TQ_OK);
    }
    kit_until_reported(&stranger, "blocks", 9);
    kit_client_close(&owner);
    kit_until_reported(&stranger, "blocks", 1);
    kit_stat(&stranger, &used, &blocks);
    assert_int_equal(used, 128);
    assert_int_equal(kit_reported(&stranger, "sifted"), 8);
}

/* A session of the same name and token cannot take a unit's place. */
static void keeps_its_place_at_the_controller(void **state)
{
    Tq__RegisterOwner message;
    Tq__ListOwners list;
    uint8_t key[TQI_NET_GRANT_KEY] = {0};
    kit_call call;
    uint64_t incarnation = 0;

    (void)state;
    kit_grant(&owner, 0, 1, &incarnation);
    tq__register_owner__init(&message);
    message.name = (char *)(uintptr_t) "unit-0";
    message.manager = (char *)(uintptr_t) "SimpleStorage";
    for (int turn = 0; turn < 4; turn++) {
        message.incarnation = turn < 2 ? incarnation : incarnation + 1;
        message.key = (ProtobufCBinaryData){turn % 2 ? sizeof(key) : 0, key};
        kit_start(&stranger, stranger.controller, TQI_REGISTER_OWNER, &message, NULL, 0, NULL, KIT_LONG, &call);
        kit_end(&stranger, &call);
        assert_int_equal(call.status, TQ_EEXIST);
        kit_call_free(&call);
    }
    tq__list_owners__init(&list);
    kit_start(&stranger, stranger.controller, TQI_LIST_OWNERS, &list, NULL, 0, NULL, KIT_LONG, &call);
    kit_end(&stranger, &call);
    assert_int_equal(call.status, TQ_OK);
    const Tq__ListOwnersReply *reply = (const Tq__ListOwnersReply *)call.reply;
    assert_int_equal(reply->n_owner, 1);
    assert_true(reply->owner[0]->incarnation == incarnation);
    assert_true(reply->owner[0]->present);
    kit_call_free(&call);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(takes_only_granted_ids, setup, teardown),
        cmocka_unit_test_setup_teardown(knows_many_grants, setup, teardown),
        cmocka_unit_test_setup_teardown(frees_what_no_table_knows, setup, teardown),
        cmocka_unit_test_setup_teardown(keeps_its_place_at_the_controller, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
