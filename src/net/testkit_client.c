/*
 * testkit_client.c - the client of the tests: channels, and calls that record how they end.
 */
#include "net/testkit.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"

tqi_net_connector *testing_connector(const tqi_net_token *token, uint64_t first_request)
{
    tqi_net_connector *connector = NULL;
    tq_error err = {0};
    tqi_net_connector_options options = {.token = token, .name = "tester", .first_request = first_request};

    assert_int_equal(tqi_net_connector_alloc(&testing_loop, &options, &connector, &err), TQ_OK);
    return connector;
}

void testing_connector_stop(tqi_net_connector *connector)
{
    int closed = 0;

    tqi_net_connector_close(connector, testing_on_closed, &closed);
    testing_until(&closed, 1);
}

tqi_net_channel *testing_channel(tqi_net_connector *connector, const char *endpoint)
{
    tqi_net_channel *channel = NULL;
    tq_error err = {0};

    assert_int_equal(tqi_net_channel_get(connector, endpoint, &channel, &err), TQ_OK);
    return channel;
}

static void testing_release(tqi_net_channel *channel, uint64_t claim);

static void testing_on_done(tqi_net_call *handle, tqi_net_answer *answer, void *arg)
{
    testing_call *call = arg;

    assert_ptr_equal(handle, call->call);
    assert_int_equal(call->done, 0);
    call->done++;
    call->status = answer->status;
    call->payload = answer->payload;
    if (answer->status != TQ_OK) {
        assert_non_null(answer->error);
        assert_int_equal(answer->error->code, answer->status);
        call->error = *answer->error;
        return;
    }
    if (answer->reply->descriptor == &tq__reserve_reply__descriptor) {
        call->index = ((const Tq__ReserveReply *)answer->reply)->batch->index[0];
    } else if (answer->reply->descriptor == &tq__claim_reply__descriptor) {
        call->claim = ((const Tq__ClaimReply *)answer->reply)->claim;
        if (call->undo) {
            testing_release(call->release_on, call->claim);
        }
    }
    if (answer->n_fds > 0) {
        call->fd = answer->fds[0];
        answer->fds[0] = -1;
    }
}

static int testing_sink(const ProtobufCMessage *reply, uint64_t size, struct iovec *iov, int max, int *count, void *arg)
{
    testing_call *call = arg;

    assert_non_null(reply);
    if (size > call->buffer_size) {
        return TQ_EFULL;
    }
    int pieces = call->pieces ? call->pieces : 1;
    assert_true(pieces <= max);
    uint8_t *at = call->buffer;
    for (int i = 0; i < pieces; i++) {
        size_t n = i + 1 < pieces ? size / (uint64_t)pieces : size - (uint64_t)(at - call->buffer);
        iov[i] = (struct iovec){at, n};
        at += n;
    }
    *count = pieces;
    return TQ_OK;
}

static bool testing_on_orphan(tqi_net_channel *channel, const ProtobufCMessage *reply, void *arg);

static void testing_on_orphan_free(void *arg)
{
    ((testing_call *)arg)->orphans_freed++;
}

static void testing_start(tqi_net_channel *channel, testing_call *call, uint16_t kind, ProtobufCMessage *message,
                          const struct iovec *payload, int n_payload, double seconds)
{
    tq_error err = {0};
    tqi_net_call_args args = {
        .kind = kind,
        .message = message,
        .payload = payload,
        .n_payload = n_payload,
        .deadline = tqi_deadline(seconds),
        .done = testing_on_done,
        .arg = call,
    };

    if (call->buffer != NULL) {
        args.sink = testing_sink;
    }
    if (kind == TQI_CLAIM) {
        args.orphan = testing_on_orphan;
        args.orphan_free = testing_on_orphan_free;
        args.orphan_arg = call;
    }
    call->fd = -1;
    int rc = tqi_net_call_start(channel, &args, &call->call, &err);
    if (rc != TQ_OK) {
        fail_msg("%s", err.message);
    }
    assert_int_equal(call->done, 0);
}

static testing_call testing_release_call;

static void testing_release(tqi_net_channel *channel, uint64_t claim)
{
    Tq__Release release;

    tq__release__init(&release);
    release.claim = claim;
    memset(&testing_release_call, 0, sizeof(testing_release_call));
    testing_start(channel, &testing_release_call, TQI_RELEASE, &release.base, NULL, 0, 10);
}

static bool testing_on_orphan(tqi_net_channel *channel, const ProtobufCMessage *reply, void *arg)
{
    testing_call *call = arg;

    call->orphans++;
    call->orphan_claim = ((const Tq__ClaimReply *)reply)->claim;
    if (call->release_on != NULL) {
        assert_ptr_equal(call->release_on, channel);
        testing_release(channel, call->orphan_claim);
    }
    if (call->closes != NULL) {
        tqi_net_connector_close(call->closes, testing_on_closed, &call->closed);
    }
    return !call->stuck;
}

void testing_reserve(tqi_net_channel *channel, testing_call *call, uint32_t number, double seconds)
{
    Tq__Reserve message;

    tq__reserve__init(&message);
    message.samples = number;
    testing_start(channel, call, TQI_RESERVE, &message.base, NULL, 0, seconds);
}

void testing_claim(tqi_net_channel *channel, testing_call *call, bool poll, double seconds)
{
    Tq__Claim message;

    tq__claim__init(&message);
    message.poll = poll;
    testing_start(channel, call, TQI_CLAIM, &message.base, NULL, 0, seconds);
}

void testing_events(tqi_net_channel *channel, testing_call *call, double seconds)
{
    Tq__Events message;

    tq__events__init(&message);
    testing_start(channel, call, TQI_EVENTS, &message.base, NULL, 0, seconds);
}

void testing_write(tqi_net_channel *channel, testing_call *call, uint16_t kind, const uint8_t *data, size_t size,
                   double seconds)
{
    union {
        const uint8_t *in;
        uint8_t *out;
    } bytes = {data};
    struct iovec pieces[2] = {{bytes.out, size / 3}, {bytes.out != NULL ? bytes.out + size / 3 : NULL, size - size / 3}};
    Tq__UnitWrite write;

    tq__unit_write__init(&write);
    Tq__Publish publish;
    tq__publish__init(&publish);
    testing_start(channel, call, kind, kind == TQI_PUBLISH ? &publish.base : &write.base, pieces, 2, seconds);
}

void testing_read(tqi_net_channel *channel, testing_call *call, size_t size, double seconds)
{
    uint64_t sizes[1] = {size};
    Tq__UnitRead message;

    tq__unit_read__init(&message);
    message.n_size = 1;
    message.size = sizes;
    testing_start(channel, call, TQI_UNIT_READ, &message.base, NULL, 0, seconds);
}

void testing_map(tqi_net_channel *channel, testing_call *call)
{
    Tq__UnitMap message;

    tq__unit_map__init(&message);
    testing_start(channel, call, TQI_UNIT_MAP, &message.base, NULL, 0, 10);
}
