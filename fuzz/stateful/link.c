/*
 * link.c - connections of the clients: handshake, frames and replies, by hand over socket pairs.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <utlist.h>

#include "base/pointer.h"
#include "net/serving.h"
#include "stateful.h"

#define LINK_IN 65536u

/* --- bytes ---------------------------------------------------------------- */

void sf_link_close(sf_link *link)
{
    sf_pending *pending;

    if (link->fd >= 0) {
        close(link->fd);
        link->fd = -1;
    }
    link->n_in = 0;
    DL_FOREACH (link->pending, pending) {
        pending->lost = true;
    }
}

static void pending_free(sf_link *link, sf_pending *pending)
{
    DL_DELETE(link->pending, pending);
    free(pending->body);
    free(pending);
}

void sf_link_forget(sf_link *link)
{
    sf_link_close(link);
    while (link->pending != NULL) {
        pending_free(link, link->pending);
    }
    free(link->in);
    link->in = NULL;
    link->capacity = 0;
    link->next = 1;
    link->instance = 0;
    link->odd = false;
}

bool sf_link_write(sf *f, sf_link *link, const void *data, size_t size)
{
    const uint8_t *at = data;

    while (size > 0 && link->fd >= 0) {
        struct iovec iov = {tqi_unconst(at), size};
        struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
        ssize_t n = sendmsg(link->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0) {
            at += n;
            size -= (size_t)n;
        } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
            sf_pause(f);
        } else {
            sf_link_close(link);
        }
    }
    return link->fd >= 0;
}

/* Reads more; false if nothing has arrived. */
static bool link_read(sf_link *link)
{
    char space[CMSG_SPACE(sizeof(int) * TQI_NET_FDS_MAX)];

    if (link->capacity - link->n_in < LINK_IN) {
        link->capacity = link->n_in + 2 * LINK_IN;
        link->in = realloc(link->in, link->capacity);
        sf_must(link->in != NULL, "memory");
    }
    struct iovec iov = {link->in + link->n_in, link->capacity - link->n_in};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof(space)};
    ssize_t n = recvmsg(link->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); n > 0 && c != NULL; c = CMSG_NXTHDR(&msg, c)) {
        for (size_t i = 0; i < (c->cmsg_len - CMSG_LEN(0)) / sizeof(int); i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
            close(fd);
        }
    }
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EWOULDBLOCK)) {
        sf_link_close(link);
        return false;
    }
    link->n_in += n > 0 ? (size_t)n : 0;
    return n > 0;
}

/* --- replies -------------------------------------------------------------- */

static void reply_failed(sf *f, const sf_link *link, const sf_pending *pending, const uint8_t *body, size_t size)
{
    /* Of an odd link it may be the answer to another one with that number. */
    bool must = pending->must && !link->odd && !f->faulty;
    Tq__Error *error = tq__error__unpack(NULL, size, body);

    if (error == NULL || error->code >= 0 || error->code < TQ_EENDED || !error->message[0]) {
        sf_fault(f, "a refusal of kind %u says nothing", pending->kind);
    }
    sf_counts[pending->kind].refused++;
    if (must || error->code == TQ_EINTERNAL || (error->code == TQ_ENOMEM && !f->faulty)) {
        sf_fault(f, "%s is refused: %s", tqi_method_find(pending->kind)->name, error->message);
    }
    tq__error__free_unpacked(error, NULL);
}

static void reply_well(sf *f, sf_client *client, const sf_pending *pending, const uint8_t *body, size_t size,
                       const uint8_t *payload, size_t payload_size)
{
    const tqi_method *method = tqi_method_find(pending->kind);
    tq_error err = {0};
    ProtobufCMessage *reply = tqi_reply_decode(method->reply, body, size, &err);

    if (reply == NULL) {
        sf_fault(f, "the reply to %s is malformed: %s", method->name, err.message);
    }
    if (pending->mutated) {
        sf_counts[pending->kind].well_mutated++;
    } else {
        sf_counts[pending->kind].well++;
    }
    sf_learn(f, client, pending, reply, payload, payload_size);
    if (f->heard != NULL) {
        f->heard(f, pending->kind, reply);
    }
    protobuf_c_message_free_unpacked(reply, NULL);
}

/* What a reply answers, or NULL. Two requests may have one number: one that waited when its connection was lost and
 * was not sent again, and a spoiled one that took its number. */
static sf_pending *link_answered(const sf_link *link, const tqi_frame *frame)
{
    sf_pending *pending, *found = NULL;

    DL_FOREACH (link->pending, pending) {
        if (pending->number == frame->request &&
            (found == NULL || (found->kind != frame->kind && pending->kind == frame->kind))) {
            found = pending;
        }
    }
    return found;
}

static void link_frame(sf *f, sf_client *client, sf_link *link, const tqi_frame *frame, const uint8_t *body)
{
    if (!(frame->flags & TQI_FRAME_REPLY)) {
        return; /* a request to leave, or the reason why it is closed */
    }
    sf_trace("    client %d hears of %llu, kind %u\n", (int)(client - f->client), (unsigned long long)frame->request,
             frame->kind);
    sf_pending *pending = link_answered(link, frame);
    if (pending == NULL) {
        if (f->clean) {
            sf_fault(f, "an answer to request %llu, which nobody made", (unsigned long long)frame->request);
        }
        return;
    }
    if (frame->kind == TQI_FAILED) {
        reply_failed(f, link, pending, body, frame->body);
    } else if (frame->kind != pending->kind) {
        if (!pending->mutated && !link->odd) {
            sf_fault(f, "an answer of kind %u to a request of kind %u", frame->kind, pending->kind);
        }
    } else {
        reply_well(f, client, pending, body, frame->body, body + frame->body, frame->payload);
    }
    pending_free(link, pending);
}

void sf_link_take(sf *f, sf_client *client, sf_link *link)
{
    if (link->fd >= 0 && link_read(link)) {
        size_t at = 0;
        while (link->fd >= 0 && link->n_in - at >= TQI_FRAME_HEADER) {
            tqi_frame frame;
            tq_error err = {0};
            if (tqi_frame_decode(link->in + at, &frame, &err) != TQ_OK) {
                sf_fault(f, "the server sends a malformed frame: %s", err.message);
            }
            size_t whole = TQI_FRAME_HEADER + frame.body + (size_t)frame.payload;
            if (link->n_in - at < whole) {
                break;
            }
            link_frame(f, client, link, &frame, link->in + at + TQI_FRAME_HEADER);
            at += whole;
        }
        if (link->fd >= 0) {
            memmove(link->in, link->in + at, link->n_in - at);
            link->n_in -= at;
        }
    }
}

uint64_t sf_link_ack(const sf_link *link)
{
    const sf_pending *pending;
    uint64_t ack = link->next;

    DL_FOREACH (link->pending, pending) {
        if (!pending->mutated && pending->number < ack) {
            ack = pending->number;
        }
    }
    return ack;
}

void sf_link_control(sf *f, sf_client *client, sf_link *link, uint16_t kind, const ProtobufCMessage *message)
{
    uint8_t bytes[TQI_FRAME_HEADER + 1024];
    size_t size = message != NULL ? protobuf_c_message_get_packed_size(message) : 0;
    tqi_frame frame = {
        .version = TQI_PROTOCOL_VERSION,
        .kind = kind,
        .ack = kind == TQI_HELLO ? 0 : sf_link_ack(link),
        .body = (uint32_t)size,
    };

    (void)client;
    sf_must(size <= 1024, "room for a control frame");
    tqi_frame_encode(&frame, bytes);
    if (message != NULL) {
        protobuf_c_message_pack(message, bytes + TQI_FRAME_HEADER);
    }
    sf_link_write(f, link, bytes, TQI_FRAME_HEADER + size);
}

/* --- handshake ------------------------------------------------------------ */

/* Turns the loop until a frame is there, and takes it from what was read. */
static bool hello_frame(sf *f, sf_link *link, tqi_frame *frame, uint8_t *body, size_t room)
{
    tq_error err = {0};

    for (int turn = 0; sf_wait(f, link, turn); turn++) {
        link_read(link);
        if (link->fd < 0) {
            return false;
        }
        if (link->n_in < TQI_FRAME_HEADER || tqi_frame_decode(link->in, frame, &err) != TQ_OK ||
            link->n_in < TQI_FRAME_HEADER + frame->body) {
            continue;
        }
        sf_must(frame->body <= room, "room for a greeting");
        memcpy(body, link->in + TQI_FRAME_HEADER, frame->body);
        link->n_in -= TQI_FRAME_HEADER + frame->body;
        memmove(link->in, link->in + TQI_FRAME_HEADER + frame->body, link->n_in);
        return true;
    }
    return false;
}

static void hello_send(sf *f, sf_client *client, sf_link *link, const uint8_t *nonce)
{
    uint8_t mine[TQI_NET_NONCE] = {1}, proof[TQI_NET_PROOF];
    Tq__Hello hello;
    char name[32];

    sf_must(tqi_net_auth_proof(&f->token, "tq-client", nonce, mine, client->session, proof) == TQ_OK, "a proof");
    tq__hello__init(&hello);
    snprintf(name, sizeof(name), "%s-%d", f->name, (int)(client - f->client));
    hello.nonce = (ProtobufCBinaryData){sizeof(mine), mine};
    hello.proof = (ProtobufCBinaryData){sizeof(proof), proof};
    hello.session = (ProtobufCBinaryData){TQI_NET_SESSION_ID, client->session};
    hello.name = name;
    hello.instance = link->instance;
    hello.goodbyes = true;
    sf_link_control(f, client, link, TQI_HELLO, &hello.base);
}

/* Asks again for what the lost connection did not answer, in the order in which it was asked. Where connections break
 * by themselves all of it is asked again, for the answers of some may be on their way. */
static void link_ask_again(sf *f, sf_link *link)
{
    uint8_t header[TQI_FRAME_HEADER];
    sf_pending *pending, *next;

    DL_FOREACH_SAFE (link->pending, pending, next) {
        tqi_frame frame = {
            .version = TQI_PROTOCOL_VERSION,
            .kind = pending->kind,
            .request = pending->number,
            .ack = sf_link_ack(link),
            .body = (uint32_t)pending->size,
        };
        if (f->faulty && pending->lost && pending->bare) {
            pending_free(link, pending);
            continue;
        }
        if (pending->lost && (f->faulty || (pending->waits && sf_pick(f, 4)))) {
            pending->lost = !f->faulty;
            tqi_frame_encode(&frame, header);
            sf_link_write(f, link, header, sizeof(header));
            sf_link_write(f, link, pending->body, pending->size);
        }
    }
}

bool sf_link_open(sf *f, sf_client *client, sf_link *link)
{
    uint8_t body[1024];
    tqi_frame frame;
    int theirs;

    if (link->fd >= 0) {
        return true;
    }
    link->fd = sf_connect(f, client, link->unit, &theirs);
    if (link->fd < 0) {
        return false;
    }
    bool fine = hello_frame(f, link, &frame, body, sizeof(body)) && frame.kind == TQI_CHALLENGE;
    Tq__Challenge *challenge = fine ? tq__challenge__unpack(NULL, frame.body, body) : NULL;
    if (challenge == NULL && f->faulty) {
        sf_link_close(link);
        return false;
    }
    if (challenge == NULL || challenge->nonce.len != TQI_NET_NONCE) {
        sf_fault(f, "the server does not challenge");
    }
    hello_send(f, client, link, challenge->nonce.data);
    tq__challenge__free_unpacked(challenge, NULL);
    fine = hello_frame(f, link, &frame, body, sizeof(body)) && frame.kind == TQI_WELCOME;
    Tq__Welcome *welcome = fine ? tq__welcome__unpack(NULL, frame.body, body) : NULL;
    sf_process_of(theirs, 0);
    if (welcome == NULL && ((f->tight && frame.kind == TQI_FAILED) || f->faulty)) {
        sf_link_close(link); /* there are too many sessions */
        return false;
    }
    if (welcome == NULL) {
        sf_fault(f, "the server does not welcome");
    }
    /* Requests of the session before are not answered any more; corrupted ones need not be. */
    sf_pending *pending, *next;
    DL_FOREACH_SAFE (link->pending, pending, next) {
        if (!welcome->resumed || pending->mutated) {
            pending_free(link, pending);
        }
    }
    if (!welcome->resumed) {
        sf_forget(f, client, link->unit);
        link->next = 1;
        link->odd = false;
    }
    sf_trace("    client %d has %s session at the %s\n", (int)(client - f->client), welcome->resumed ? "its" : "a new",
             link->unit ? "unit" : "controller");
    link->instance = welcome->instance;
    tq__welcome__free_unpacked(welcome, NULL);
    link_ask_again(f, link);
    return true;
}

void sf_client_leave(sf *f, sf_client *client, bool goodbye)
{
    Tq__Bye bye = TQ__BYE__INIT;

    bye.finished = sf_once_in(f, 2);
    sf_turn(f);
    f->behind = NULL;
    uint64_t pins = sf_pins(f, NULL);
    pins -= goodbye && client->link[1].fd >= 0 ? sf_pins(f, client) : 0;
    for (int i = 0; i < 2; i++) {
        sf_link *link = &client->link[i];
        if (goodbye && link->fd >= 0) {
            sf_link_control(f, client, link, TQI_BYE, &bye.base);
        }
    }
    sf_turn(f);
    if (sf_pins(f, NULL) != pins) {
        sf_fault(f, "a client says goodbye, and %lld pins of its stay", (long long)(sf_pins(f, NULL) - pins));
    }
    for (int i = 0; i < 2; i++) {
        sf_link_forget(&client->link[i]);
        sf_forget(f, client, i == 1);
    }
    client->session[0] = (uint8_t)(client - f->client + 1);
    client->generation++;
    memcpy(client->session + 4, &client->generation, sizeof(client->generation));
    sf_turn(f);
}
