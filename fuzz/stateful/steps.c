/*
 * steps.c - one step of a run: a request of some client, or something that happens to a client.
 */
#include "stateful.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <utlist.h>

#define TEXT_MAX    64u
#define STEPS_ARENA (4u << 20)

/* --- choices, memory ------------------------------------------------------ */

uint32_t sf_pick(sf *f, uint32_t n)
{
    uint32_t value = 0;

    for (uint32_t left = n - 1; left > 0; left >>= 8) {
        if (f->at >= f->size) {
            f->over = true;
            return 0;
        }
        value = value << 8 | f->data[f->at++];
    }
    return n ? value % n : 0;
}

bool sf_once_in(sf *f, uint32_t n)
{
    return sf_pick(f, n) == n - 1;
}

void *sf_alloc(sf *f, size_t size)
{
    size = (size + 15) & ~(size_t)15;
    if (f->arena == NULL) {
        f->arena = malloc(STEPS_ARENA);
    }
    sf_must(f->arena != NULL && size <= STEPS_ARENA - f->used, "memory for a step");
    void *out = f->arena + f->used;
    f->used += size;
    memset(out, 0, size);
    return out;
}

char *sf_text(sf *f, const char *format, ...)
{
    char *out = sf_alloc(f, TEXT_MAX);
    va_list args;

    va_start(args, format);
    vsnprintf(out, TEXT_MAX, format, args);
    va_end(args);
    return out;
}

char *sf_copy(sf *f, const char *text)
{
    size_t size = strlen(text) + 1;

    return memcpy(sf_alloc(f, size), text, size);
}

void *sf_message(sf *f, const ProtobufCMessageDescriptor *type)
{
    ProtobufCMessage *message = sf_alloc(f, type->sizeof_message);

    type->message_init(message);
    return message;
}

char *sf_partition_name(sf *f)
{
    return sf_text(f, "p%u", sf_pick(f, 4));
}

char *sf_field_name(sf *f, uint32_t field)
{
    return sf_text(f, "f%u", field);
}

/* --- sending -------------------------------------------------------------- */

static void send_note(sf_link *link, const sf_frame *frame, unsigned how, bool mutated, bool tight)
{
    sf_pending *pending = calloc(1, sizeof(*pending));

    sf_must(pending != NULL, "memory");
    pending->number = frame->head.request;
    pending->kind = frame->head.kind;
    pending->mutated = mutated;
    pending->again = frame->again;
    pending->waits = how & SF_WAITS;
    pending->bare = frame->payload_size > 0;
    pending->must = !mutated && (how & SF_MUST) && !tight;
    /* A false header may claim less. */
    pending->size = frame->head.body < frame->size ? frame->head.body : frame->size;
    pending->body = malloc(frame->size + 1);
    sf_must(pending->body != NULL, "memory");
    memcpy(pending->body, frame->body, frame->size);
    DL_APPEND(link->pending, pending);
}

/* With a descriptor, which nobody wants. */
static bool send_descriptor(sf *f, const sf_link *link, const uint8_t *data, size_t size)
{
    union {
        char space[CMSG_SPACE(sizeof(int))];
        struct cmsghdr align;
    } control = {0};
    int fd = sf_spare_descriptor(f);
    struct iovec iov = {(void *)(uintptr_t)data, size};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control)};
    struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

    cmsg->cmsg_level = SOL_SOCKET;
    cmsg->cmsg_type = SCM_RIGHTS;
    cmsg->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(cmsg), &fd, sizeof(fd));
    return sendmsg(link->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) == (ssize_t)size;
}

/* Sometimes in two halves, with a pause in between. */
static void send_bytes(sf *f, sf_link *link, const sf_frame *frame)
{
    uint8_t header[TQI_FRAME_HEADER];
    const uint8_t *piece[3] = {header, frame->body, frame->payload};
    size_t size[3] = {sizeof(header), frame->size, frame->payload_size}, left = frame->length;
    int pause = (int)sf_pick(f, 32) - 29; /* before a half of that piece */

    tqi_frame_encode(&frame->head, header);
    for (int i = 0; i < 3 && left > 0; i++) {
        size_t n = size[i] < left ? size[i] : left;
        if (i == 0 && frame->descriptor && link->fd >= 0 && n == sizeof(header)) {
            if (!send_descriptor(f, link, header, n)) {
                sf_link_close(link);
            }
        } else {
            size_t first = pause == i ? n / 2 : n;
            if (sf_link_write(f, link, piece[i], first) && first < n) {
                sf_pause(f);
                sf_link_write(f, link, piece[i] + first, n - first);
            }
        }
        left -= n;
    }
}

/* A whole request that is right is answered, unless it may wait. */
static void send_answered(sf *f, sf_link *link)
{
    const sf_pending *pending;

    DL_FOREACH (link->pending, pending) {
        if (link->fd >= 0 && !link->odd && !pending->mutated && !pending->waits && !pending->lost) {
            sf_fault(f, "%s is not answered", tqi_method_find(pending->kind)->name);
        }
    }
}

/* A refused request changes nothing. */
static void send_unchanged(sf *f, uint16_t kind, const sf_state_of *before)
{
    sf_state_of after;

    sf_state(f, &after);
    if (memcmp(before, &after, sizeof(after)) != 0) {
        sf_fault(f, "%s is refused, yet it has changed the table", tqi_method_find(kind)->name);
    }
}

/* The frame of a request, spoiled somewhere if it is to be. */
static void send_make(sf *f, sf_link *link, uint16_t kind, void *message, bool mutated, sf_frame *frame)
{
    unsigned where = mutated ? sf_pick(f, 8) : 0;

    if (mutated && where < 5) {
        sf_mutate_message(f, message);
    }
    frame->head = (tqi_frame){.version = TQI_PROTOCOL_VERSION, .kind = kind};
    frame->length = SIZE_MAX;
    frame->size = protobuf_c_message_get_packed_size(message);
    frame->room = frame->size + 256;
    frame->body = sf_alloc(f, frame->room);
    protobuf_c_message_pack(message, frame->body);
    if (mutated && where >= 4 && where < 7) {
        sf_mutate_body(f, frame);
    }
    frame->head.request = link->next;
    frame->head.ack = sf_link_ack(link);
    frame->head.body = (uint32_t)frame->size;
    frame->head.payload = frame->payload_size;
    if (mutated && where >= 6) {
        sf_mutate_frame(f, link, frame);
    }
}

/* Sends it, in some cases again, and mostly waits for what comes of it. */
static void send_deliver(sf *f, sf_client *client, sf_link *link, const sf_frame *frame, uint16_t kind)
{
    uint64_t refused = sf_counts[kind].refused;
    uint32_t rest = sf_pick(f, 32);
    sf_state_of before;
    bool twice = rest == 28 && f->rate > 0;

    if (twice) {
        f->clean = false;
        send_bytes(f, link, frame);
    }
    sf_state(f, &before);
    send_bytes(f, link, frame);
    if (frame->cut) {
        sf_cut++;
        sf_link_close(link);
    } else if (f->behind == NULL && rest > 28 && (kind < TQI_SNAPSHOT || kind > TQI_RESTORE_DROP)) {
        f->behind = client; /* another client's comes before this one is handled; but those come in rows */
        return;
    }
    sf_turn(f);
    if (f->behind == NULL && !twice && frame->head.kind == kind && sf_counts[kind].refused == refused + 1) {
        send_unchanged(f, kind, &before);
    }
    f->behind = NULL;
}

void sf_send_payload(sf *f, sf_client *client, uint16_t kind, void *message, const uint8_t *payload, size_t size,
                     unsigned how)
{
    sf_link *link = &client->link[kind >= TQI_UNIT_MAP];
    sf_frame frame = {.payload = payload, .payload_size = size};
    bool mutated = sf_pick(f, 256) < f->rate;

    if (f->behind == client) {
        sf_turn(f);
        f->behind = NULL;
    }
    if (!sf_link_open(f, client, link)) {
        return;
    }
    send_make(f, link, kind, message, mutated, &frame);
    if (sf_too_large(f, &frame)) {
        return;
    }
    f->clean = f->clean && !mutated;
    how |= (how & SF_CLEAN) && f->clean ? SF_MUST : 0;
    link->next += frame.head.request == link->next;
    sf_counts[kind].sent++;
    sf_counts[kind].mutated += mutated;
    if (tqi_method_find(frame.head.kind) != NULL && frame.head.request) {
        send_note(link, &frame, how, mutated, f->tight);
    }
    sf_trace("%llu: client %d asks %llu, %s as kind %u%s%s\n", (unsigned long long)f->steps, (int)(client - f->client),
             (unsigned long long)frame.head.request, tqi_method_find(kind)->name, frame.head.kind,
             mutated ? ", spoiled" : "", frame.cut ? ", and is cut off" : "");
    send_deliver(f, client, link, &frame, kind);
    sf_violations += mutated && !frame.cut && link->fd < 0;
    if (f->behind == NULL) {
        send_answered(f, link);
    }
}

void sf_send(sf *f, sf_client *client, uint16_t kind, void *message, unsigned how)
{
    sf_send_payload(f, client, kind, message, NULL, 0, how);
}

/* --- what is not a request ------------------------------------------------ */

/* Ends a request that waits, or one that does not. */
static void step_cancel(sf *f, sf_client *client)
{
    Tq__Cancel cancel = TQ__CANCEL__INIT;
    sf_link *link = &client->link[sf_pick(f, 4) == 3];
    const sf_pending *pending = link->pending;

    if (link->fd < 0) {
        return;
    }
    for (uint32_t i = sf_pick(f, 4); i > 0 && pending != NULL && pending->next != NULL; i--) {
        pending = pending->next;
    }
    cancel.request = pending != NULL ? pending->number : link->next;
    sf_cancelled++;
    sf_link_control(f, client, link, TQI_CANCEL, &cancel.base);
    sf_turn(f);
}

static void step_ack(sf *f, sf_client *client)
{
    Tq__Ack ack = TQ__ACK__INIT;
    sf_link *link = &client->link[sf_pick(f, 2)];
    const sf_pending *pending;
    uint64_t waiting[32];

    if (link->fd < 0) {
        return;
    }
    ack.below = link->next;
    ack.waiting = waiting;
    DL_FOREACH (link->pending, pending) {
        if (ack.n_waiting < 32 && pending->number < link->next &&
            (!ack.n_waiting || pending->number > waiting[ack.n_waiting - 1])) {
            waiting[ack.n_waiting++] = pending->number;
        }
    }
    bool all = ack.n_waiting < 32;
    sf_link_control(f, client, link, TQI_ACK, all && sf_pick(f, 2) ? &ack.base : NULL);
    sf_turn(f);
}

/* The connection breaks; the session continues on the next one. */
static void step_cut(sf *f, sf_client *client)
{
    sf_link *link = &client->link[sf_pick(f, 2)];

    f->clean = false;
    sf_cut += link->fd >= 0;
    sf_link_close(link);
    sf_turn(f);
}

static void step_leave(sf *f, sf_client *client)
{
    f->clean = false;
    sf_ended++;
    sf_client_leave(f, client, sf_pick(f, 3) > 0);
}

static void step_kill(sf *f, sf_client *client)
{
    if (!client->pid) {
        return;
    }
    f->clean = false;
    sf_killed++;
    sf_process_kill(client->pid);
    client->pid = 0;
    sf_turn(f);
    sf_client_leave(f, client, false);
}

static void step_pass(sf *f)
{
    static const uint32_t ms[] = {1, 5, 25, 25, 100, 250, 250, 1000};
    uint32_t which = sf_pick(f, 64);

    if (which < 8) {
        sf_pass(f, ms[which]);
    } else if (which == 62 && !f->clean) {
        sf_pass(f, SF_GRACE_MS + 1);
    } else if (which == 63 && !f->clean) {
        sf_pass(f, 31000);
    } else {
        sf_pass(f, 1);
    }
}

static void step_other(sf *f, sf_client *client, uint32_t which)
{
    if (which < 6) {
        step_pass(f);
    } else if (which < 9) {
        step_cancel(f, client);
    } else if (which < 12) {
        step_ack(f, client);
    } else if (which == 12 && f->rate > 0) {
        step_cut(f, client);
    } else if (which == 13 && f->rate > 0 && sf_once_in(f, 8)) {
        step_leave(f, client);
    } else if (which == 14 && f->rate > 0 && sf_once_in(f, 64)) {
        step_kill(f, client);
    }
}

/* --- which ---------------------------------------------------------------- */

/* Those that need others before them come oftener. */
static const struct {
    sf_step_fn fn;
    uint8_t often;
} steps[] = {
#define STEPS_ROW(number, NAME, name, Message, reply, Reply, mode) {sf_step_##name, SF_OFTEN_##NAME},
#define SF_OFTEN_PUBLISH                                           24
#define SF_OFTEN_RESERVE                                           4
#define SF_OFTEN_CLAIM                                             10
#define SF_OFTEN_RELEASE                                           4
#define SF_OFTEN_RESOLVE                                           6
#define SF_OFTEN_CLEAR                                             4
#define SF_OFTEN_RESET_CONSUMPTION                                 4
#define SF_OFTEN_CONSUMPTION                                       4
#define SF_OFTEN_PRODUCTION                                        4
#define SF_OFTEN_LIST_PARTITIONS                                   4
#define SF_OFTEN_LIST_KEYS                                         4
#define SF_OFTEN_RETRIEVE_KEYS                                     6
#define SF_OFTEN_GRANT_BLOCKS                                      6
#define SF_OFTEN_ABANDON_BLOCKS                                    5
#define SF_OFTEN_REGISTER_OWNER                                    6
#define SF_OFTEN_REPORT_OWNER                                      5
#define SF_OFTEN_COLLECT_DEAD                                      12
#define SF_OFTEN_LIST_OWNERS                                       4
#define SF_OFTEN_REPORT_LOST                                       4
#define SF_OFTEN_COMPACT_MOVE                                      16
#define SF_OFTEN_SYSTEM_STATUS                                     4
#define SF_OFTEN_EVENTS                                            5
#define SF_OFTEN_SYSTEM_CONFIG                                     4
#define SF_OFTEN_SNAPSHOT                                          3
#define SF_OFTEN_SNAPSHOT_READ                                     3
#define SF_OFTEN_SNAPSHOT_CLOSE                                    4
#define SF_OFTEN_RESTORE_PART                                      3
#define SF_OFTEN_RESTORE_COMMIT                                    6
#define SF_OFTEN_RESTORE_DROP                                      4
#define SF_OFTEN_BEGIN_CLEAR                                       5
#define SF_OFTEN_END_CLEAR                                         8
#define SF_OFTEN_COMPACT_LIVE                                      8
#define SF_OFTEN_UNKNOWN_BLOCKS                                    5
#define SF_OFTEN_UNIT_MAP                                          4
#define SF_OFTEN_UNIT_RESERVE                                      10
#define SF_OFTEN_UNIT_WRITE                                        10
#define SF_OFTEN_UNIT_READ                                         8
#define SF_OFTEN_UNIT_STAT                                         4
#define SF_OFTEN_UNIT_PIN                                          8
#define SF_OFTEN_UNIT_UNPIN                                        5
#define SF_OFTEN_UNIT_FINISH                                       4
    TQI_METHODS_CONTROLLER(STEPS_ROW) TQI_METHODS_UNIT(STEPS_ROW)
#undef STEPS_ROW
};

static void step_request(sf *f, sf_client *client)
{
    uint32_t sum = 0, at;

    for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
        sum += steps[i].often;
    }
    at = sf_pick(f, sum);
    for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
        if (at < steps[i].often) {
            steps[i].fn(f, client);
            return;
        }
        at -= steps[i].often;
    }
}

void sf_step(sf *f)
{
    sf_client *client = &f->client[sf_pick(f, SF_CLIENTS)];

    f->used = 0;
    f->steps++;
    if (f->behind == client) {
        sf_turn(f); /* its choices are made of what it was answered */
        f->behind = NULL;
    }
    uint32_t other = sf_pick(f, 64);
    if ((client->link[0].odd || client->link[1].odd) && other % 8 == 0) {
        step_leave(f, client); /* its requests may be taken for old ones */
    } else if (other < 15) {
        step_other(f, client, other);
    } else {
        step_request(f, client);
    }
}
