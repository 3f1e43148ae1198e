/*
 * controller_fuzz.c - sequences of requests into a controller, through the real server over socket pairs.
 *
 * An input is a list of steps: an op byte, a length (16 bits, little-endian) and that many bytes. Most ops send the
 * bytes as the body of a request; the others acknowledge, cancel, reconnect, close the session or switch to the other
 * of two clients. The controller is restarted for every input, with epoch 1 and block ids from 1, so that inputs can
 * name them.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/sockios.h>

#include "base/log.h"
#include "controller/controller.h"
#include "controller/controller_state.h"
#include "net/serving.h"

#define FUZZ_SAMPLES_MAX 1000u /* more in one request only cost time */
#define FUZZ_CLIENTS     2

enum {
    FUZZ_ACK = 0xFB,
    FUZZ_CANCEL,
    FUZZ_RECONNECT,
    FUZZ_BYE,
    FUZZ_OTHER
};

typedef struct fuzz_client {
    int fd;
    uint8_t session[TQI_NET_SESSION_ID];
    uint64_t requests;
} fuzz_client;

typedef struct fuzz {
    uv_loop_t loop;
    tqi_net_token token;
    tqi_controller *controller;
    fuzz_client clients[FUZZ_CLIENTS];
    int active;
} fuzz;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_silent(tq_log_level level, const char *component, const char *text, void *arg)
{
    (void)level;
    (void)component;
    (void)text;
    (void)arg;
}

static void fuzz_must(bool fine)
{
    if (!fine) {
        abort();
    }
}

static bool fuzz_write(const fuzz_client *client, const void *data, size_t size)
{
    return send(client->fd, data, size, MSG_NOSIGNAL) == (ssize_t)size;
}

/* Sends a frame; the server may have closed the connection. */
static bool fuzz_frame(fuzz_client *client, uint16_t kind, uint64_t request, uint64_t ack, const uint8_t *body,
                       size_t size)
{
    uint8_t header[TQI_FRAME_HEADER];
    tqi_frame frame = {
        .version = TQI_PROTOCOL_VERSION,
        .kind = kind,
        .request = request,
        .ack = ack,
        .body = (uint32_t)size,
    };

    tqi_frame_encode(&frame, header);
    return fuzz_write(client, header, sizeof(header)) && fuzz_write(client, body, size);
}

/* Turns the loop until the server has read what was sent and answered; false when it closed the connection. */
static bool fuzz_turn(fuzz *f, fuzz_client *client)
{
    uint8_t drop[4096];
    int unread = 1;

    while (unread > 0) {
        ssize_t n = 1;
        uv_run(&f->loop, UV_RUN_NOWAIT);
        while (n > 0) {
            n = recv(client->fd, drop, sizeof(drop), MSG_DONTWAIT);
        }
        if (n == 0 || ioctl(client->fd, SIOCOUTQ, &unread) != 0) {
            return false;
        }
    }
    uv_run(&f->loop, UV_RUN_NOWAIT);
    return true;
}

static void fuzz_read(fuzz *f, fuzz_client *client, void *out, size_t size)
{
    uint8_t *at = out;

    for (int turns = 0; size; turns++) {
        ssize_t n = recv(client->fd, at, size, MSG_DONTWAIT);
        if (n > 0) {
            at += n;
            size -= (size_t)n;
        } else {
            fuzz_must(turns < 100);
            uv_run(&f->loop, UV_RUN_NOWAIT);
        }
    }
}

/* Connects and authenticates. */
static void fuzz_connect(fuzz *f, fuzz_client *client)
{
    int pair[2];
    uint8_t header[TQI_FRAME_HEADER], body[256], nonce[TQI_NET_NONCE] = {1}, proof[TQI_NET_PROOF];
    tqi_frame frame;
    Tq__Hello hello;
    tq_error err;

    fuzz_must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    fuzz_must(ioctl(pair[1], FIONBIO, &(int){1}) == 0);
    tqi_net_server_adopt_for_tests(f->controller->server, pair[1], true, "fuzz");
    client->fd = pair[0];
    fuzz_read(f, client, header, sizeof(header));
    fuzz_must(tqi_frame_decode(header, &frame, &err) == TQ_OK && frame.body <= sizeof(body));
    fuzz_read(f, client, body, frame.body);
    Tq__Challenge *challenge = (Tq__Challenge *)tqi_message_decode(&tq__challenge__descriptor, body, frame.body, &err);
    fuzz_must(challenge != NULL);
    fuzz_must(tqi_net_auth_proof(&f->token, "tq-client", challenge->nonce.data, nonce, client->session, proof) == TQ_OK);
    protobuf_c_message_free_unpacked(&challenge->base, NULL);
    tq__hello__init(&hello);
    hello.nonce = (ProtobufCBinaryData){sizeof(nonce), nonce};
    hello.proof = (ProtobufCBinaryData){sizeof(proof), proof};
    hello.session = (ProtobufCBinaryData){sizeof(client->session), client->session};
    size_t size = tq__hello__pack(&hello, body);
    fuzz_must(fuzz_frame(client, TQI_HELLO, 0, 0, body, size) && fuzz_turn(f, client));
}

static void fuzz_reconnect(fuzz *f, fuzz_client *client)
{
    close(client->fd);
    uv_run(&f->loop, UV_RUN_NOWAIT);
    fuzz_connect(f, client);
}

/* Whether a request only costs time and memory. */
static bool fuzz_too_large(uint16_t kind, const uint8_t *body, size_t size)
{
    const tqi_method *method = tqi_method_find(kind);
    bool large = false;

    if (method != NULL && (kind == TQI_PUBLISH || kind == TQI_RESERVE)) {
        ProtobufCMessage *message = protobuf_c_message_unpack(method->request, NULL, size, body);
        if (message != NULL) {
            uint32_t samples =
                kind == TQI_PUBLISH ? ((Tq__Publish *)message)->samples : ((Tq__Reserve *)message)->samples;
            large = samples > FUZZ_SAMPLES_MAX && samples <= TQI_CTL_SAMPLES_MAX;
            protobuf_c_message_free_unpacked(message, NULL);
        }
    }
    return large;
}

static void fuzz_request(fuzz *f, fuzz_client *client, uint16_t kind, const uint8_t *body, size_t size)
{
    if (fuzz_too_large(kind, body, size)) {
        return;
    }
    if (!fuzz_frame(client, kind, ++client->requests, 0, body, size) || !fuzz_turn(f, client)) {
        fuzz_reconnect(f, client);
    }
}

static void fuzz_cancel(fuzz *f, fuzz_client *client, const uint8_t *data, size_t size)
{
    Tq__Cancel cancel = TQ__CANCEL__INIT;
    uint8_t body[16];

    cancel.request = client->requests - (size ? data[0] : 0);
    size_t n = tq__cancel__pack(&cancel, body);
    if (!fuzz_frame(client, TQI_CANCEL, 0, 0, body, n) || !fuzz_turn(f, client)) {
        fuzz_reconnect(f, client);
    }
}

/* Without data: acknowledges everything. Otherwise everything before the last few, except some of it. */
static void fuzz_ack(fuzz *f, fuzz_client *client, const uint8_t *data, size_t size)
{
    Tq__Ack ack = TQ__ACK__INIT;
    uint64_t waiting[8];
    uint8_t body[128];
    size_t n = 0;

    if (size > 0) {
        ack.below = client->requests + 1 - data[0];
        ack.waiting = waiting;
        uint64_t number = ack.below - 16;
        for (; ack.n_waiting < 8 && ack.n_waiting + 1 < size; ack.n_waiting++) {
            number += data[ack.n_waiting + 1] % 8;
            waiting[ack.n_waiting] = number;
        }
        n = tq__ack__pack(&ack, body);
    }
    if (!fuzz_frame(client, TQI_ACK, 0, size > 0 ? 1 : client->requests + 1, body, n) || !fuzz_turn(f, client)) {
        fuzz_reconnect(f, client);
    }
}

static void fuzz_step(fuzz *f, uint8_t op, const uint8_t *data, size_t size)
{
    fuzz_client *client = &f->clients[f->active];

    switch (op) {
    case FUZZ_ACK:
        fuzz_ack(f, client, data, size);
        break;
    case FUZZ_CANCEL:
        fuzz_cancel(f, client, data, size);
        break;
    case FUZZ_RECONNECT:
        fuzz_reconnect(f, client);
        break;
    case FUZZ_BYE:
        fuzz_frame(client, TQI_BYE, 0, 0, NULL, 0);
        fuzz_turn(f, client);
        client->session[1]++;
        fuzz_reconnect(f, client);
        break;
    case FUZZ_OTHER:
        f->active = (f->active + 1) % FUZZ_CLIENTS;
        break;
    default:
        fuzz_request(f, client, (uint16_t)(TQI_PUBLISH + op % 24), data, size);
        break;
    }
}

static void fuzz_closed(void *arg)
{
    *(bool *)arg = true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz f = {.token = {.size = 4, .bytes = "fuzz"}};
    tqi_controller_options options = {
        .token = &f.token,
        .grace_ms = 60000,
        .owner_timeout_ms = 60000,
        .events = 32,
        .epoch = 1,
    };
    bool closed = false;

    tq_log_set_sink(fuzz_silent, NULL);
    fuzz_must(uv_loop_init(&f.loop) == 0);
    fuzz_must(tqi_controller_alloc(&f.loop, &options, &f.controller, NULL) == TQ_OK);
    for (int i = 0; i < FUZZ_CLIENTS; i++) {
        f.clients[i].session[0] = (uint8_t)(i + 1);
        fuzz_connect(&f, &f.clients[i]);
    }
    while (size >= 3) {
        size_t length = data[1] | (size_t)data[2] << 8;
        length = length < size - 3 ? length : size - 3;
        fuzz_step(&f, data[0], data + 3, length);
        data += 3 + length;
        size -= 3 + length;
    }
    tqi_controller_close(f.controller, fuzz_closed, &closed);
    for (int i = 0; i < FUZZ_CLIENTS; i++) {
        close(f.clients[i].fd);
    }
    fuzz_must(uv_run(&f.loop, UV_RUN_DEFAULT) == 0 && closed);
    fuzz_must(uv_loop_close(&f.loop) == 0);
    return 0;
}
