/*
 * testkit.c - a real controller, real storage units and clients of them on one loop (see testkit.h).
 */
#include "testkit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/error.h"
#include "net/calling.h"

void kit_until(kit *k, const bool *flag)
{
    while (!*flag) {
        uv_run(&k->loop, UV_RUN_ONCE);
    }
}

static void kit_set(void *arg)
{
    *(bool *)arg = true;
}

/* --- servers -------------------------------------------------------------- */

void kit_controller_start(kit *k)
{
    const char *listen[] = {k->controller_at};
    tqi_controller_options options = {
        .listen = listen,
        .n_listen = 1,
        .token = &k->token,
        .grace_ms = 5000,
        .owner_timeout_ms = 60000,
    };
    tq_error err = {0};

    assert_int_equal(tqi_controller_alloc(&k->loop, &options, &k->controller, &err), TQ_OK);
}

void kit_controller_stop(kit *k)
{
    bool closed = false;

    tqi_controller_close(k->controller, kit_set, &closed);
    kit_until(k, &closed);
    k->controller = NULL;
}

void kit_unit_start(kit *k, int i, uint64_t capacity, bool tcp)
{
    char name[32], at[128];
    const char *listen[] = {at};
    tqi_unit_options options = {
        .name = name,
        .controller = k->controller_at,
        .listen = listen,
        .n_listen = 1,
        .token = &k->token,
        .store = {.capacity = capacity},
        .grace_ms = k->grace_ms,
        .keep_ms = 5000,
    };
    tq_error err = {0};

    snprintf(name, sizeof(name), "unit-%d", i);
    if (tcp) {
        snprintf(at, sizeof(at), "tcp:127.0.0.1:0");
    } else {
        snprintf(at, sizeof(at), "unix:%s/unit-%d", k->dir, i);
    }
    int rc = tqi_unit_alloc(&k->loop, &options, &k->units[i], &err);
    if (rc != TQ_OK) {
        print_error("unit: %s\n", err.message);
    }
    assert_int_equal(rc, TQ_OK);
    k->ready[i] = false;
    tqi_unit_on_ready(k->units[i], kit_set, &k->ready[i]);
    kit_until(k, &k->ready[i]);
}

void kit_unit_stop(kit *k, int i)
{
    bool closed = false;

    tqi_unit_set_goodbye(k->units[i], TQI_NET_ENDS_SERVER, "the test ends it");
    tqi_unit_close(k->units[i], kit_set, &closed);
    kit_until(k, &closed);
    k->units[i] = NULL;
}

void kit_open(kit *k)
{
    memset(k, 0, sizeof(*k));
    k->grace_ms = 5000;
    assert_int_equal(uv_loop_init(&k->loop), 0);
    snprintf(k->dir, sizeof(k->dir), "/tmp/tq-test-XXXXXX");
    assert_non_null(mkdtemp(k->dir));
    snprintf(k->controller_at, sizeof(k->controller_at), "unix:%s/controller", k->dir);
    memset(k->token.bytes, 't', 32);
    k->token.size = 32;
    kit_controller_start(k);
}

void kit_close(kit *k)
{
    for (int i = 0; i < KIT_UNITS; i++) {
        if (k->units[i] != NULL) {
            kit_unit_stop(k, i);
        }
    }
    if (k->controller != NULL) {
        kit_controller_stop(k);
    }
    uv_run(&k->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&k->loop), 0);
    assert_int_equal(rmdir(k->dir), 0); /* no socket is left */
}

/* --- clients -------------------------------------------------------------- */

void kit_client_open(kit *k, kit_client *client, int unit)
{
    tqi_net_connector_options options = {.token = &k->token, .name = "test"};
    tq_error err = {0};

    memset(client, 0, sizeof(*client));
    client->kit = k;
    assert_int_equal(tqi_net_connector_alloc(&k->loop, &options, &client->connector, &err), TQ_OK);
    assert_int_equal(tqi_net_channel_get(client->connector, k->controller_at, &client->controller, &err), TQ_OK);
    if (unit >= 0) {
        assert_int_equal(
            tqi_net_channel_get(client->connector, tqi_unit_endpoint_for_tests(k->units[unit]), &client->unit, &err),
            TQ_OK);
    }
}

void kit_client_cut(kit_client *client)
{
    tq_error why = {0};

    tqi_error_set(&why, TQ_EIO, "the test breaks it");
    tqi_net_channel_failed(client->unit, &why);
}

void kit_client_close(kit_client *client)
{
    bool closed = false;

    tqi_net_connector_close(client->connector, kit_set, &closed);
    kit_until(client->kit, &closed);
    client->connector = NULL;
}

static void kit_done(tqi_net_call *made, tqi_net_answer *answer, void *arg)
{
    kit_call *call = arg;

    (void)made;
    call->done = true;
    call->call = NULL;
    call->status = answer->status;
    call->payload = answer->payload;
    if (answer->status != TQ_OK) {
        call->error = *answer->error;
        return;
    }
    size_t size = protobuf_c_message_get_packed_size(answer->reply);
    uint8_t *bytes = malloc(size + 1);
    assert_non_null(bytes);
    protobuf_c_message_pack(answer->reply, bytes);
    call->reply = protobuf_c_message_unpack(answer->reply->descriptor, NULL, size, bytes);
    assert_non_null(call->reply);
    free(bytes);
    call->n_fds = answer->n_fds;
    for (int i = 0; i < answer->n_fds; i++) {
        call->fds[i] = answer->fds[i];
        answer->fds[i] = -1;
    }
}

static int kit_sink(const ProtobufCMessage *reply, uint64_t size, struct iovec *iov, int max, int *count, void *arg)
{
    kit_call *call = arg;

    (void)reply;
    (void)max;
    iov[0].iov_base = call->into;
    iov[0].iov_len = size;
    *count = 1;
    return TQ_OK;
}

void kit_start(kit_client *client, tqi_net_channel *channel, uint16_t kind, const void *message,
               const struct iovec *payload, int n_payload, void *into, double seconds, kit_call *call)
{
    tqi_net_call_args args = {
        .kind = kind,
        .message = message,
        .payload = payload,
        .n_payload = n_payload,
        .deadline = tqi_deadline(seconds),
        .done = kit_done,
        .sink = into != NULL ? kit_sink : NULL,
        .arg = call,
    };
    tq_error err = {0};

    (void)client;
    memset(call, 0, sizeof(*call));
    call->into = into;
    assert_int_equal(tqi_net_call_start(channel, &args, &call->call, &err), TQ_OK);
}

void kit_end(kit_client *client, kit_call *call)
{
    kit_until(client->kit, &call->done);
}

void kit_call_free(kit_call *call)
{
    if (call->reply != NULL) {
        protobuf_c_message_free_unpacked(call->reply, NULL);
        call->reply = NULL;
    }
    for (int i = 0; i < call->n_fds; i++) {
        close(call->fds[i]);
    }
    call->n_fds = 0;
}

uint64_t kit_grant(kit_client *client, int unit, uint32_t count, uint64_t *incarnation)
{
    Tq__GrantBlocks message;
    char name[32];
    kit_call call;

    tq__grant_blocks__init(&message);
    snprintf(name, sizeof(name), "unit-%d", unit);
    message.owner = name;
    message.count = count;
    kit_start(client, client->controller, TQI_GRANT_BLOCKS, &message, NULL, 0, NULL, KIT_LONG, &call);
    kit_end(client, &call);
    if (call.status != TQ_OK) {
        print_error("grant: %s\n", call.error.message);
    }
    assert_int_equal(call.status, TQ_OK);
    const Tq__GrantBlocksReply *reply = (const Tq__GrantBlocksReply *)call.reply;
    uint64_t first = reply->first;
    if (incarnation != NULL) {
        *incarnation = reply->incarnation;
    }
    assert_int_equal(reply->grant.len, TQI_NET_GRANT);
    unsigned at = client->n_grants++ % KIT_GRANTS;
    client->grants[at].first = first;
    client->grants[at].count = count;
    memcpy(client->grants[at].proof, reply->grant.data, TQI_NET_GRANT);
    kit_call_free(&call);
    return first;
}

void kit_abandon(kit_client *client, const uint64_t *ids, size_t n, bool writing)
{
    Tq__AbandonBlocks message;
    kit_call call;

    tq__abandon_blocks__init(&message);
    message.id = (uint64_t *)(uintptr_t)ids;
    message.n_id = n;
    message.writing = writing;
    kit_start(client, client->controller, TQI_ABANDON_BLOCKS, &message, NULL, 0, NULL, KIT_LONG, &call);
    kit_end(client, &call);
    assert_int_equal(call.status, TQ_OK);
    kit_call_free(&call);
}

void kit_reserve_start(kit_client *client, uint64_t id, uint64_t size, bool adds, bool wait, uint64_t timeout_ms,
                       uint64_t incarnation, kit_call *call)
{
    Tq__UnitReserve message;
    Tq__Grant grant, *grants = &grant;

    tq__unit_reserve__init(&message);
    tq__grant__init(&grant);
    for (unsigned i = 0; i < KIT_GRANTS; i++) {
        if (id - client->grants[i].first < client->grants[i].count) {
            grant.first = client->grants[i].first;
            grant.count = client->grants[i].count;
            grant.proof = (ProtobufCBinaryData){TQI_NET_GRANT, client->grants[i].proof};
            message.grant = &grants;
            message.n_grant = 1;
        }
    }
    message.id = &id;
    message.n_id = 1;
    message.size = &size;
    message.n_size = 1;
    message.adds_samples = adds;
    message.wait = wait;
    message.timeout_ms = timeout_ms;
    message.incarnation = incarnation;
    kit_start(client, client->unit, TQI_UNIT_RESERVE, &message, NULL, 0, NULL, KIT_LONG, call);
}

int kit_reserve(kit_client *client, uint64_t id, uint64_t size, bool adds, uint32_t *slot, uint64_t *offset,
                tq_error *err)
{
    kit_call call;

    kit_reserve_start(client, id, size, adds, false, 0, 0, &call);
    kit_end(client, &call);
    if (call.status == TQ_OK) {
        const Tq__UnitReserveReply *reply = (const Tq__UnitReserveReply *)call.reply;
        assert_int_equal(reply->n_offset, 1);
        assert_int_equal(reply->n_slot, 1);
        *slot = reply->slot[0];
        *offset = reply->offset[0];
    } else {
        *err = call.error;
    }
    kit_call_free(&call);
    return call.status;
}

int kit_write(kit_client *client, uint64_t id, uint32_t slot, const void *data, uint64_t size, tq_error *err)
{
    struct iovec iov = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
    Tq__UnitWrite message;
    kit_call call;

    tq__unit_write__init(&message);
    message.id = &id;
    message.n_id = 1;
    message.slot = &slot;
    message.n_slot = 1;
    message.size = &size;
    message.n_size = 1;
    kit_start(client, client->unit, TQI_UNIT_WRITE, &message, &iov, 1, NULL, KIT_LONG, &call);
    kit_end(client, &call);
    if (call.status != TQ_OK) {
        *err = call.error;
    }
    kit_call_free(&call);
    return call.status;
}

int kit_read(kit_client *client, uint64_t id, uint32_t slot, uint64_t offset, uint64_t size, void *into, bool *gone,
             tq_error *err)
{
    Tq__UnitRead message;
    kit_call call;

    tq__unit_read__init(&message);
    message.id = &id;
    message.n_id = 1;
    message.slot = &slot;
    message.n_slot = 1;
    message.offset = &offset;
    message.n_offset = 1;
    message.size = &size;
    message.n_size = 1;
    kit_start(client, client->unit, TQI_UNIT_READ, &message, NULL, 0, into, KIT_LONG, &call);
    kit_end(client, &call);
    if (call.status == TQ_OK) {
        *gone = ((const Tq__UnitReadReply *)call.reply)->n_gone > 0;
        assert_int_equal(call.payload, *gone ? 0 : size);
    } else {
        *err = call.error;
    }
    kit_call_free(&call);
    return call.status;
}

void kit_stat(kit_client *client, uint64_t *used, uint64_t *blocks)
{
    Tq__UnitStat message;
    kit_call call;

    tq__unit_stat__init(&message);
    kit_start(client, client->unit, TQI_UNIT_STAT, &message, NULL, 0, NULL, KIT_LONG, &call);
    kit_end(client, &call);
    assert_int_equal(call.status, TQ_OK);
    *used = ((const Tq__UnitStatReply *)call.reply)->used;
    *blocks = ((const Tq__UnitStatReply *)call.reply)->blocks;
    kit_call_free(&call);
}

void kit_map(kit_client *client, tqi_store_map *map, uint64_t *incarnation)
{
    Tq__UnitMap message;
    kit_call call;
    tq_error err = {0};

    tq__unit_map__init(&message);
    kit_start(client, client->unit, TQI_UNIT_MAP, &message, NULL, 0, NULL, 20, &call);
    kit_end(client, &call);
    assert_int_equal(call.status, TQ_OK);
    const Tq__UnitMapReply *reply = (const Tq__UnitMapReply *)call.reply;
    assert_int_equal(call.n_fds, 2);
    assert_int_equal(tqi_store_map_init(map, call.fds[0], call.fds[1], reply->arena_bytes, reply->slots, &err), TQ_OK);
    if (incarnation != NULL) {
        *incarnation = reply->incarnation;
    }
    kit_call_free(&call);
}

uint64_t kit_reported(kit_client *client, const char *name)
{
    Tq__ListOwners message;
    kit_call call;
    uint64_t value = UINT64_MAX;

    tq__list_owners__init(&message);
    kit_start(client, client->controller, TQI_LIST_OWNERS, &message, NULL, 0, NULL, KIT_LONG, &call);
    kit_end(client, &call);
    assert_int_equal(call.status, TQ_OK);
    const Tq__ListOwnersReply *reply = (const Tq__ListOwnersReply *)call.reply;
    assert_int_equal(reply->n_owner, 1);
    for (size_t i = 0; i < reply->owner[0]->n_counter; i++) {
        if (strcmp(reply->owner[0]->counter[i], name) == 0) {
            value = reply->owner[0]->value[i];
        }
    }
    kit_call_free(&call);
    return value;
}

void kit_until_reported(kit_client *client, const char *name, uint64_t value)
{
    while (kit_reported(client, name) != value) {
        /* A report in flight may be handled right after the request. */
        if (kit_reported(client, name) == value) {
            break;
        }
        uv_run(&client->kit->loop, UV_RUN_ONCE);
    }
}
