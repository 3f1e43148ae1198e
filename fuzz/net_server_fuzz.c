/*
 * net_server_fuzz.c - arbitrary bytes into a connection of a server.
 *
 * The first byte of an input: bit 0 logs in first, bit 1 says that it is a unix socket, the others are the size of the
 * pieces the rest is written in. The service answers some requests at once, some when they are cancelled, refuses some,
 * and takes payloads up to a limit.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "net/serving.h"

#define FUZZ_PAYLOAD_MAX 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static tqi_net_token fuzz_token = {.bytes = {'t', 'o', 'k', 'e', 'n'}, .size = 5};

/* --- the service ---------------------------------------------------------- */

static bool fuzz_serves(uint16_t kind, void *ctx)
{
    (void)ctx;
    return kind != TQI_COMPACT_MOVE;
}

static void fuzz_fail(tqi_net_request *request, int rc)
{
    tq_error err = {.code = rc, .message = "fuzz"};

    free(tqi_net_request_user(request));
    tqi_net_request_fail(request, &err);
}

static void fuzz_cancel(tqi_net_request *request, void *arg)
{
    (void)arg;
    fuzz_fail(request, TQ_ECANCELED);
}

static void fuzz_settled(bool acked, void *arg)
{
    (void)acked;
    free(arg);
}

static void fuzz_sent(void *arg)
{
    free(arg);
}

/* Answers with an empty message of the right type. */
static void fuzz_reply(tqi_net_request *request)
{
    const tqi_method *method = tqi_method_find(tqi_net_request_kind(request));
    ProtobufCMessage *reply = malloc(method->reply->sizeof_message);
    char *memory = malloc(16);

    if (reply == NULL || memory == NULL) {
        abort();
    }
    protobuf_c_message_init(method->reply, reply);
    free(tqi_net_request_user(request));
    tqi_net_request_on_settled(request, fuzz_settled, method->keep ? malloc(1) : NULL);
    memset(memory, 'x', 16);
    struct iovec payload = {memory, 16};
    if (tqi_net_request_kind(request) == TQI_UNIT_READ || tqi_net_request_kind(request) == TQI_PUBLISH) {
        tqi_net_request_reply(request, reply, &payload, 1, fuzz_sent, memory);
    } else {
        tqi_net_request_reply(request, reply, NULL, 0, fuzz_sent, memory);
    }
    free(reply);
}

static void fuzz_handle(tqi_net_request *request, const ProtobufCMessage *message, void *ctx)
{
    const struct iovec *iov = NULL;
    int n = tqi_net_request_payload_for_tests(request, &iov);

    (void)message;
    (void)ctx;
    for (int i = 0; i < n; i++) {
        memset(iov[i].iov_base, 0, iov[i].iov_len);
    }
    switch (tqi_net_request_kind(request)) {
    case TQI_CLAIM:
    case TQI_EVENTS:
        tqi_net_request_on_cancel(request, fuzz_cancel, NULL);
        break;
    case TQI_CLEAR:
    case TQI_RESOLVE:
        fuzz_fail(request, TQ_EKEY);
        break;
    default:
        fuzz_reply(request);
    }
}

static int fuzz_sink(tqi_net_request *request, const ProtobufCMessage *message, uint64_t size, struct iovec *iov,
                     int max, int *count, void *ctx, tq_error *err)
{
    (void)message;
    (void)max;
    (void)ctx;
    if (size > FUZZ_PAYLOAD_MAX) {
        err->code = TQ_EFULL;
        return TQ_EFULL;
    }
    uint8_t *bytes = malloc(size);
    if (bytes == NULL) {
        abort();
    }
    tqi_net_request_set_user(request, bytes);
    iov[0] = (struct iovec){bytes, size / 3};
    iov[1] = (struct iovec){bytes + size / 3, size - size / 3};
    *count = 2;
    return TQ_OK;
}

static void fuzz_sink_failed(tqi_net_request *request, void *ctx)
{
    (void)ctx;
    free(tqi_net_request_user(request));
}

static const tqi_net_service fuzz_service = {
    .name = "fuzz",
    .serves = fuzz_serves,
    .handle = fuzz_handle,
    .sink = fuzz_sink,
    .sink_failed = fuzz_sink_failed,
};

/* --- the client ----------------------------------------------------------- */

static void fuzz_drain(int fd, uint8_t *out, size_t size)
{
    uint8_t scrap[4096];
    ssize_t n = recv(fd, out != NULL ? out : scrap, out != NULL ? size : sizeof(scrap), MSG_DONTWAIT);

    while (out == NULL && n > 0) {
        n = recv(fd, scrap, sizeof(scrap), MSG_DONTWAIT);
    }
}

static void fuzz_send(uv_loop_t *loop, int fd, const uint8_t *data, size_t size)
{
    while (size > 0) {
        ssize_t n = send(fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0) {
            data += n;
            size -= (size_t)n;
        }
        uv_run(loop, UV_RUN_NOWAIT);
        fuzz_drain(fd, NULL, 0);
        if (n < 0) {
            return; /* closed by the server */
        }
    }
}

static void fuzz_login(uv_loop_t *loop, int fd)
{
    uint8_t bytes[TQI_FRAME_HEADER + 256] = {0};
    uint8_t nonce[TQI_NET_NONCE] = {1}, session[TQI_NET_SESSION_ID] = {2}, proof[TQI_NET_PROOF];

    uv_run(loop, UV_RUN_NOWAIT);
    fuzz_drain(fd, bytes, sizeof(bytes));
    /* The nonce is the only field: 32 bytes behind a tag and a length. */
    if (tqi_net_auth_proof(&fuzz_token, "tq-client", bytes + TQI_FRAME_HEADER + 2, nonce, session, proof) != TQ_OK) {
        abort();
    }
    Tq__Hello hello;
    tq__hello__init(&hello);
    hello.nonce = (ProtobufCBinaryData){sizeof(nonce), nonce};
    hello.proof = (ProtobufCBinaryData){sizeof(proof), proof};
    hello.session = (ProtobufCBinaryData){sizeof(session), session};
    tqi_frame frame = {.version = TQI_PROTOCOL_VERSION, .kind = TQI_HELLO};
    frame.body = (uint32_t)tq__hello__pack(&hello, bytes + TQI_FRAME_HEADER);
    tqi_frame_encode(&frame, bytes);
    fuzz_send(loop, fd, bytes, TQI_FRAME_HEADER + frame.body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uv_loop_t loop;
    tqi_net_server *server = NULL;
    tqi_net_server_options options = {.epoch = 1, .token = &fuzz_token};
    int fds[2];

    if (size < 1) {
        return 0;
    }
    tq_log_set_level(TQI_ERROR);
    if (uv_loop_init(&loop) != 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) != 0 ||
        tqi_net_server_alloc(&loop, &fuzz_service, NULL, &options, &server, NULL) != TQ_OK) {
        abort();
    }
    tqi_net_server_adopt_for_tests(server, fds[0], (data[0] & 2) != 0, "fuzz");
    if (data[0] & 1) {
        fuzz_login(&loop, fds[1]);
        if (HASH_COUNT(server->sessions) != 1) {
            abort();
        }
    }
    size_t piece = data[0] >> 2 ? data[0] >> 2 : size;
    for (size_t at = 1; at < size; at += piece) {
        fuzz_send(&loop, fds[1], data + at, size - at < piece ? size - at : piece);
    }
    close(fds[1]);
    for (int i = 0; i < 3; i++) {
        uv_run(&loop, UV_RUN_NOWAIT);
    }
    if (server->sessions != NULL) {
        abort(); /* no grace: it ends with its connection */
    }
    tqi_net_server_close(server, NULL, NULL);
    uv_run(&loop, UV_RUN_DEFAULT);
    if (uv_loop_close(&loop) != 0) {
        abort();
    }
    return 0;
}
