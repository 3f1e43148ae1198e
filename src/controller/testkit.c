/*
 * testkit.c - see testkit.h.
 */
#include "controller/testkit.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/pointer.h"
#include "net/internal.h"

#define KIT_DEADLINE 20.0

/* --- the controller ------------------------------------------------------- */

void kit_start(kit *k, const tqi_controller_options *options)
{
    tqi_controller_options own = {.grace_ms = 60000, .owner_timeout_ms = 60000};
    const char *listen = NULL;
    tq_error err = {0};

    memset(k, 0, sizeof(*k));
    snprintf(k->folder, sizeof(k->folder), "%s", "/tmp/tq-controller-XXXXXX");
    assert_non_null(mkdtemp(k->folder));
    snprintf(k->listen, sizeof(k->listen), "unix:%s/c.sock", k->folder);
    k->token.size = 16;
    memcpy(k->token.bytes, "a token of tests", 16);
    assert_int_equal(uv_loop_init(&k->loop), 0);
    if (options != NULL) {
        own = *options;
    }
    listen = k->listen;
    own.listen = &listen;
    own.n_listen = 1;
    own.token = &k->token;
    assert_int_equal(tqi_controller_alloc(&k->loop, &own, &k->controller, &err), TQ_OK);
    assert_string_equal(tqi_controller_endpoint(k->controller), k->listen);
    assert_true(tqi_controller_epoch(k->controller) != 0);
}

static void kit_closed(void *arg)
{
    kit *k = arg;

    k->closing--;
}

void kit_stop(kit *k)
{
    k->closing++;
    tqi_controller_close(k->controller, kit_closed, k);
    assert_int_equal(uv_run(&k->loop, UV_RUN_DEFAULT), 0);
    assert_int_equal(k->closing, 0);
    assert_int_equal(uv_loop_close(&k->loop), 0);
    assert_int_equal(rmdir(k->folder), 0);
}

/* --- clients -------------------------------------------------------------- */

void kit_connect(kit *k, kit_client *client, const char *name)
{
    tqi_net_connector_options options = {.token = &k->token, .name = name};
    tq_error err = {0};
    Tq__ListPartitions hello = TQ__LIST_PARTITIONS__INIT;

    client->kit = k;
    assert_int_equal(tqi_net_connector_alloc(&k->loop, &options, &client->connector, &err), TQ_OK);
    assert_int_equal(tqi_net_channel_get(client->connector, k->listen, &client->channel, &err), TQ_OK);
    kit_free(kit_ok(client, TQI_LIST_PARTITIONS, &hello));
}

void kit_disconnect(kit_client *client)
{
    kit *k = client->kit;

    k->closing++;
    tqi_net_channel_unref(client->channel);
    tqi_net_connector_close(client->connector, kit_closed, k);
    while (k->closing) {
        uv_run(&k->loop, UV_RUN_ONCE);
    }
}

static void kit_done(tqi_net_call *call, tqi_net_answer *answer, void *arg)
{
    kit_call *c = arg;

    (void)call;
    assert_false(c->done);
    c->done = true;
    c->status = answer->status;
    c->epoch = answer->epoch;
    c->call = NULL;
    if (answer->status == TQ_OK) {
        /* The answer's reply ends with this call. */
        size_t size = protobuf_c_message_get_packed_size(answer->reply);
        uint8_t *bytes = malloc(size + 1);
        assert_non_null(bytes);
        protobuf_c_message_pack(answer->reply, bytes);
        c->reply = protobuf_c_message_unpack(answer->reply->descriptor, NULL, size, bytes);
        assert_non_null(c->reply);
        free(bytes);
    } else {
        assert_non_null(answer->error);
        assert_int_equal(answer->error->code, answer->status);
        c->error = *answer->error;
    }
}

void kit_send(kit_client *client, uint16_t kind, const void *message, kit_call *call)
{
    tq_error err = {0};

    memset(call, 0, sizeof(*call));
    call->client = client;
    tqi_net_call_args args = {
        .kind = kind,
        .message = message,
        .deadline = tqi_deadline(KIT_DEADLINE),
        .done = kit_done,
        .arg = call,
    };
    assert_int_equal(tqi_net_call_start(client->channel, &args, &call->call, &err), TQ_OK);
}

int kit_wait(kit_call *call)
{
    while (!call->done) {
        uv_run(&call->client->kit->loop, UV_RUN_ONCE);
    }
    return call->status;
}

void kit_end(kit_call *call)
{
    assert_true(call->done);
    kit_free(call->reply);
    call->reply = NULL;
}

void *kit_ok(kit_client *client, uint16_t kind, const void *message)
{
    kit_call call;

    kit_send(client, kind, message, &call);
    kit_wait(&call);
    if (call.status != TQ_OK) {
        print_error("request %u failed: %s\n", (unsigned)kind, call.error.message);
    }
    assert_int_equal(call.status, TQ_OK);
    assert_true(call.epoch == tqi_controller_epoch(client->kit->controller));
    return call.reply;
}

void kit_fails(kit_client *client, uint16_t kind, const void *message, int rc, const char *text)
{
    kit_call call;

    kit_send(client, kind, message, &call);
    assert_int_equal(kit_wait(&call), rc);
    bool says = strstr(call.error.message, text) != NULL;
    if (!says) {
        print_error("request %u failed otherwise: %s\n", (unsigned)kind, call.error.message);
    }
    assert_true(says);
    kit_end(&call);
}

void kit_free(void *reply)
{
    if (reply != NULL) {
        protobuf_c_message_free_unpacked(reply, NULL);
    }
}

void kit_until_waiting(kit_client *client, uint32_t claims)
{
    uint32_t waiting = UINT32_MAX;

    while (waiting != claims) {
        Tq__SystemStatus ask = TQ__SYSTEM_STATUS__INIT;
        Tq__SystemStatusReply *status = kit_ok(client, TQI_SYSTEM_STATUS, &ask);
        waiting = status->waiting;
        kit_free(status);
    }
}

/* --- owners and puts ------------------------------------------------------ */

void kit_register(kit_client *unit, const char *owner, uint64_t incarnation, bool shared)
{
    Tq__RegisterOwner msg;

    tq__register_owner__init(&msg);
    msg.name = tqi_unconst(owner);
    msg.incarnation = incarnation;
    msg.manager = tqi_unconst("test");
    msg.shared = shared;
    uint8_t key[TQI_NET_GRANT_KEY];
    memset(key, 'k', sizeof(key));
    if (!shared) {
        msg.key = (ProtobufCBinaryData){sizeof(key), key};
    }
    Tq__RegisterOwnerReply *reply = kit_ok(unit, TQI_REGISTER_OWNER, &msg);
    assert_true(reply->epoch == tqi_controller_epoch(unit->kit->controller));
    kit_free(reply);
}

kit_usual_clients kit_usual;

int kit_usual_start(void **state)
{
    (void)state;
    kit_start(&kit_usual.k, NULL);
    kit_connect(&kit_usual.k, &kit_usual.unit, "unit");
    kit_connect(&kit_usual.k, &kit_usual.producer, "producer");
    kit_connect(&kit_usual.k, &kit_usual.consumer, "consumer");
    kit_register(&kit_usual.unit, "unit", 77, false);
    return 0;
}

int kit_usual_stop(void **state)
{
    (void)state;
    kit_disconnect(&kit_usual.unit);
    kit_disconnect(&kit_usual.producer);
    kit_disconnect(&kit_usual.consumer);
    kit_stop(&kit_usual.k);
    return 0;
}

uint64_t kit_grant(kit_client *client, const char *owner, uint32_t count)
{
    Tq__GrantBlocks msg;

    tq__grant_blocks__init(&msg);
    msg.owner = tqi_unconst(owner);
    msg.count = count;
    Tq__GrantBlocksReply *reply = kit_ok(client, TQI_GRANT_BLOCKS, &msg);
    uint64_t first = reply->first;
    assert_int_equal(reply->count, count);
    assert_true(reply->incarnation != 0);
    kit_free(reply);
    return first;
}

/* The message of a put; its parts live as long as it does. */
typedef struct kit_message {
    Tq__Publish publish;
    Tq__Batch batch;
    Tq__Field field, *fields[1];
    Tq__Block block, *blocks[1];
    Tq__Owner owner, *owners[1];
    uint32_t run_block[1], run_rows[1];
    uint64_t run_offset[1];
} kit_message;

static void kit_compose(kit_client *client, kit_put *put, kit_message *m)
{
    Tq__GrantBlocks grant;
    const char *owner = put->owner != NULL ? put->owner : "unit";

    tq__grant_blocks__init(&grant);
    grant.owner = tqi_unconst(owner);
    grant.count = 1;
    Tq__GrantBlocksReply *granted = kit_ok(client, TQI_GRANT_BLOCKS, &grant);
    tq__publish__init(&m->publish);
    tq__batch__init(&m->batch);
    tq__field__init(&m->field);
    tq__block__init(&m->block);
    tq__owner__init(&m->owner);
    m->owner.name = tqi_unconst(owner);
    m->owner.incarnation = granted->incarnation;
    m->block.id = put->block = granted->first;
    m->block.size = put->rows * 8u;
    m->block.locator.data = tqi_unconst("here");
    m->block.locator.len = 4;
    kit_free(granted);
    m->field.name = tqi_unconst(put->field);
    m->field.dtype = TQ_INT | 64 << 8;
    m->run_block[0] = 1;
    m->run_rows[0] = put->rows;
    m->run_offset[0] = 0;
    m->field.run_block = m->run_block;
    m->field.run_rows = m->run_rows;
    m->field.run_offset = m->run_offset;
    m->field.n_run_block = m->field.n_run_rows = m->field.n_run_offset = 1;
    m->batch.partition = tqi_unconst(put->partition);
    m->batch.epoch = put->epoch;
    m->fields[0] = &m->field;
    m->blocks[0] = &m->block;
    m->owners[0] = &m->owner;
    m->batch.field = m->fields;
    m->batch.block = m->blocks;
    m->batch.owner = m->owners;
    m->batch.n_field = m->batch.n_block = m->batch.n_owner = 1;
    m->publish.batch = &m->batch;
    if (put->indexes != NULL) {
        m->batch.index = tqi_unconst(put->indexes);
        m->batch.n_index = put->rows;
    } else if (put->keys != NULL) {
        m->batch.key = put->keys;
        m->batch.n_key = put->rows;
        m->publish.create = true;
    } else {
        m->publish.samples = put->rows;
    }
}

Tq__PublishReply *kit_publish(kit_client *client, kit_put *put)
{
    kit_message m;

    kit_compose(client, put, &m);
    Tq__PublishReply *reply = kit_ok(client, TQI_PUBLISH, &m.publish);
    assert_non_null(reply->batch);
    assert_int_equal(reply->batch->n_index, put->rows);
    assert_int_equal(reply->batch->n_incarnation, put->rows);
    assert_true(reply->batch->epoch == tqi_controller_epoch(client->kit->controller));
    return reply;
}

void kit_publish_fails(kit_client *client, kit_put *put, int rc, const char *text)
{
    kit_message m;

    kit_compose(client, put, &m);
    kit_fails(client, TQI_PUBLISH, &m.publish, rc, text);
}

/* --- claims --------------------------------------------------------------- */

void kit_claim(Tq__Claim *claim, const char *partition, char **field, int64_t size, const char *task)
{
    tq__claim__init(claim);
    claim->partition = tqi_unconst(partition);
    claim->field = field;
    claim->n_field = 1;
    claim->batch_size = size;
    claim->task = tqi_unconst(task);
}

size_t kit_poll(kit_client *client, const char *partition, const char *field, int64_t size, const char *task)
{
    Tq__Claim claim;
    char *fields[] = {tqi_unconst(field)};
    kit_call call;
    size_t n = 0;

    kit_claim(&claim, partition, fields, size, task);
    claim.poll = true;
    kit_send(client, TQI_CLAIM, &claim, &call);
    if (kit_wait(&call) == TQ_OK) {
        n = ((Tq__ClaimReply *)call.reply)->batch->n_index;
    } else {
        assert_int_equal(call.status, TQ_EAGAIN);
    }
    kit_end(&call);
    return n;
}

/* --- by hand -------------------------------------------------------------- */

static void raw_on_readable(uv_poll_t *poll, int status, int events)
{
    kit_raw *raw = poll->data;

    (void)status;
    (void)events;
    raw->readable = true;
    uv_poll_stop(poll);
}

/* Reads exactly `size` bytes while running the loop. */
static void raw_read(kit_raw *raw, void *out, size_t size)
{
    uint8_t *at = out;

    while (size) {
        ssize_t n = recv(raw->fd, at, size, MSG_DONTWAIT);
        if (n > 0) {
            at += n;
            size -= (size_t)n;
            continue;
        }
        assert_true(n < 0 && errno == EAGAIN);
        raw->readable = false;
        uv_poll_start(&raw->poll, UV_READABLE, raw_on_readable);
        while (!raw->readable) {
            uv_run(&raw->kit->loop, UV_RUN_ONCE);
        }
    }
}

static void raw_write(kit_raw *raw, uint16_t kind, uint64_t request, uint64_t ack, const ProtobufCMessage *message)
{
    uint8_t header[TQI_FRAME_HEADER];
    size_t size = message != NULL ? protobuf_c_message_get_packed_size(message) : 0;
    uint8_t *body = malloc(size + 1);

    assert_non_null(body);
    if (message != NULL) {
        protobuf_c_message_pack(message, body);
    }
    tqi_frame frame = {
        .version = TQI_PROTOCOL_VERSION,
        .kind = kind,
        .request = request,
        .ack = ack,
        .body = (uint32_t)size,
    };
    tqi_frame_encode(&frame, header);
    assert_int_equal(send(raw->fd, header, sizeof(header), MSG_NOSIGNAL), sizeof(header));
    assert_int_equal(send(raw->fd, body, size, MSG_NOSIGNAL), size);
    free(body);
}

static void *raw_message(kit_raw *raw, tqi_frame *frame)
{
    uint8_t header[TQI_FRAME_HEADER];
    tq_error err = {0};

    raw_read(raw, header, sizeof(header));
    assert_int_equal(tqi_frame_decode(header, frame, &err), TQ_OK);
    uint8_t *body = malloc(frame->body + 1u);
    assert_non_null(body);
    raw_read(raw, body, frame->body);
    const tqi_method *method = tqi_method_find(frame->kind);
    const ProtobufCMessageDescriptor *type = frame->kind == TQI_CHALLENGE ? &tq__challenge__descriptor
                                             : frame->kind == TQI_WELCOME ? &tq__welcome__descriptor
                                             : method != NULL             ? method->reply
                                                                          : &tq__error__descriptor;
    ProtobufCMessage *message = tqi_message_decode(type, body, frame->body, &err);
    assert_non_null(message);
    free(body);
    return message;
}

void kit_raw_open(kit *k, kit_raw *raw)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    tqi_frame frame;
    uint8_t nonce[32], proof[32], session[TQI_NET_SESSION_ID];
    Tq__Hello hello;

    memset(raw, 0, sizeof(*raw));
    raw->kit = k;
    raw->fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_true(raw->fd >= 0);
    assert_true(strlen(k->listen + 5) < sizeof(address.sun_path));
    snprintf(address.sun_path, sizeof(address.sun_path), "%s", k->listen + 5);
    assert_int_equal(connect(raw->fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(uv_poll_init(&k->loop, &raw->poll, raw->fd), 0);
    raw->poll.data = raw;
    tqi_random(nonce, sizeof(nonce));
    tqi_random(session, sizeof(session));
    Tq__Challenge *challenge = raw_message(raw, &frame);
    assert_int_equal(frame.kind, TQI_CHALLENGE);
    assert_int_equal(tqi_net_auth_proof(&k->token, "tq-client", challenge->nonce.data, nonce, session, proof), TQ_OK);
    kit_free(challenge);
    tq__hello__init(&hello);
    hello.nonce = (ProtobufCBinaryData){sizeof(nonce), nonce};
    hello.proof = (ProtobufCBinaryData){sizeof(proof), proof};
    hello.session = (ProtobufCBinaryData){sizeof(session), session};
    hello.name = tqi_unconst("raw");
    raw_write(raw, TQI_HELLO, 0, 0, &hello.base);
    kit_free(raw_message(raw, &frame));
    assert_int_equal(frame.kind, TQI_WELCOME);
}

uint64_t kit_raw_send(kit_raw *raw, uint16_t kind, uint64_t ack, const void *message)
{
    bool control = kind < TQI_PUBLISH;

    raw_write(raw, kind, control ? 0 : ++raw->requests, ack, message);
    return raw->requests;
}

void *kit_raw_receive(kit_raw *raw, tqi_frame *frame)
{
    return raw_message(raw, frame);
}

static void raw_closed(uv_handle_t *handle)
{
    kit_raw *raw = handle->data;

    raw->kit->closing--;
}

void kit_raw_close(kit_raw *raw)
{
    raw->kit->closing++;
    uv_close((uv_handle_t *)&raw->poll, raw_closed);
    while (raw->kit->closing) {
        uv_run(&raw->kit->loop, UV_RUN_ONCE);
    }
    close(raw->fd);
}
