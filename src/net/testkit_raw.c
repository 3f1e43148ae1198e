/*
 * testkit_raw.c - bare sockets for tests that speak the protocol by hand.
 */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "net/internal.h"
#include "net/testkit.h"

static void raw_on_event(uv_poll_t *poll, int status, int events)
{
    testing_raw *raw = poll->data;

    (void)status;
    (void)events;
    ssize_t n = recv(raw->fd, raw->bytes + raw->size, sizeof(raw->bytes) - (size_t)raw->size, MSG_DONTWAIT);
    if (n > 0) {
        raw->size += (int)n;
    } else {
        raw->eof = 1;
        uv_poll_stop(poll);
    }
}

void testing_raw_connect(testing_raw *raw, const char *endpoint)
{
    tqi_net_endpoint parsed;
    struct sockaddr_un addr;
    socklen_t size;

    memset(raw, 0, sizeof(*raw));
    assert_int_equal(tqi_net_endpoint_parse(endpoint, strlen(endpoint), &parsed, NULL), TQ_OK);
    tqi_net_endpoint_sockaddr_un(&parsed, &addr, &size);
    raw->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(raw->fd >= 0);
    assert_int_equal(connect(raw->fd, (const struct sockaddr *)&addr, size), 0);
    assert_int_equal(uv_poll_init(&testing_loop, &raw->poll, raw->fd), 0);
    raw->poll.data = raw;
    uv_poll_start(&raw->poll, UV_READABLE, raw_on_event);
}

void testing_raw_send(testing_raw *raw, const void *data, size_t size)
{
    /* The server may already have closed: the test sees that when it reads. */
    ssize_t n = send(raw->fd, data, size, MSG_NOSIGNAL);

    assert_true(n == (ssize_t)size || n < 0);
}

void testing_raw_frame(testing_raw *raw, const tqi_frame *frame, const void *body)
{
    uint8_t bytes[TQI_FRAME_HEADER + 512];

    assert_true(frame->body <= 512 || !body);
    tqi_frame_encode(frame, bytes);
    if (body != NULL) {
        memcpy(bytes + TQI_FRAME_HEADER, body, frame->body);
    }
    testing_raw_send(raw, bytes, TQI_FRAME_HEADER + (body != NULL ? frame->body : 0));
}

bool testing_raw_hello(testing_raw *raw, const uint8_t *session, uint64_t *instance)
{
    uint8_t nonce[TQI_NET_NONCE] = {1}, proof[TQI_NET_PROOF], id[TQI_NET_SESSION_ID], body[512];

    memcpy(id, session, sizeof(id));
    testing_until(&raw->size, TQI_FRAME_HEADER + 34);
    Tq__Challenge *challenge = tq__challenge__unpack(NULL, 34, raw->bytes + TQI_FRAME_HEADER);
    assert_non_null(challenge);
    assert_int_equal(tqi_net_auth_proof(&testing_token, "tq-client", challenge->nonce.data, nonce, id, proof), TQ_OK);
    tq__challenge__free_unpacked(challenge, NULL);
    Tq__Hello hello;
    tq__hello__init(&hello);
    hello.nonce = (ProtobufCBinaryData){sizeof(nonce), nonce};
    hello.session = (ProtobufCBinaryData){sizeof(id), id};
    hello.proof = (ProtobufCBinaryData){sizeof(proof), proof};
    hello.instance = *instance;
    hello.goodbyes = raw->goodbyes;
    tqi_frame frame = {.version = TQI_PROTOCOL_VERSION, .kind = TQI_HELLO};
    frame.body = (uint32_t)tq__hello__pack(&hello, body);
    raw->size = 0;
    testing_raw_frame(raw, &frame, body);
    testing_until(&raw->size, TQI_FRAME_HEADER + 34);
    assert_int_equal(tqi_frame_decode(raw->bytes, &frame, NULL), TQ_OK);
    assert_int_equal(frame.kind, TQI_WELCOME);
    assert_int_equal(raw->size, TQI_FRAME_HEADER + (int)frame.body);
    Tq__Welcome *welcome = tq__welcome__unpack(NULL, frame.body, raw->bytes + TQI_FRAME_HEADER);
    assert_non_null(welcome);
    bool resumed = welcome->resumed;
    *instance = welcome->instance;
    tq__welcome__free_unpacked(welcome, NULL);
    raw->size = 0;
    return resumed;
}

void testing_raw_login(testing_raw *raw)
{
    uint8_t session[TQI_NET_SESSION_ID];
    uint64_t instance = 0;

    tqi_random(session, sizeof(session));
    assert_false(testing_raw_hello(raw, session, &instance));
}

int testing_raw_refusal(testing_raw *raw, char *message, size_t size)
{
    testing_until(&raw->eof, 1);
    const uint8_t *at = raw->bytes;
    const uint8_t *end = raw->bytes + raw->size;
    tqi_frame frame = {0};
    while ((size_t)(end - at) >= TQI_FRAME_HEADER) {
        assert_int_equal(tqi_frame_decode(at, &frame, NULL), TQ_OK);
        at += TQI_FRAME_HEADER;
        assert_true(frame.body <= (size_t)(end - at));
        if (frame.kind == TQI_FAILED) {
            Tq__Error *error = tq__error__unpack(NULL, frame.body, at);
            assert_non_null(error);
            int rc = error->code;
            snprintf(message, size, "%s", error->message);
            tq__error__free_unpacked(error, NULL);
            return rc;
        }
        at += frame.body;
    }
    return TQ_OK;
}

static void raw_on_closed(uv_handle_t *handle)
{
    ((testing_raw *)handle->data)->closed = 1;
}

void testing_raw_close(testing_raw *raw)
{
    uv_close((uv_handle_t *)&raw->poll, raw_on_closed);
    close(raw->fd);
    testing_until(&raw->closed, 1);
}
