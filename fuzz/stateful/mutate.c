/*
 * mutate.c - messages, bodies and frames that are spoiled.
 */
#include <string.h>

#include "base/error.h"
#include "controller/controller_state.h"
#include "stateful.h"

/* Samples that one request may make here; more only cost time. */
#define MUTATE_SAMPLES 200u
/* Indexes that a restore may name and be taken at its word make the table as long. */
#define MUTATE_PLACES (1u << 17)

static uint64_t mutate_number(sf *f, uint64_t was)
{
    static const uint64_t far[] = {UINT32_MAX,        UINT32_MAX - 1,    UINT64_C(1) << 31,  UINT64_MAX,
                                   UINT64_MAX - 1,    UINT64_C(1) << 63, INT64_MAX,          UINT64_C(1) << 32,
                                   UINT64_C(1) << 62, UINT64_MAX / 8,    UINT64_MAX / 2 + 2, UINT64_C(1) << 48};

    switch (sf_pick(f, 8)) {
    case 0:
        return 0;
    case 1:
        return was + 1;
    case 2:
        return was - 1;
    case 3:
        return far[sf_pick(f, sizeof(far) / sizeof(*far))];
    case 4:
        return UINT64_C(1) << sf_pick(f, 12);
    case 5:
        return sf_pick(f, 256);
    default:
        return f->number[sf_pick(f, SF_NUMBERS)];
    }
}

static char *mutate_text(sf *f)
{
    static const char *const odd[] = {"",          "p0",       "f0", "t0",          "k1", SF_UNIT,
                                      "own-1",     "shared-3", "r0", "\n",          "{}", "{\"dp_rank\": -1}",
                                      "p\xff\xfe", "[",        "g0", "\xed\xa0\x80"};
    uint32_t which = sf_pick(f, sizeof(odd) / sizeof(*odd) + 1);

    if (which < sizeof(odd) / sizeof(*odd)) {
        return sf_text(f, "%s", odd[which]);
    }
    size_t size = 1u << sf_pick(f, 16);
    char *out = sf_alloc(f, size + 1);
    memset(out, 'x', size);
    return out;
}

static void mutate_bytes(sf *f, ProtobufCBinaryData *bytes)
{
    uint8_t *copy = sf_alloc(f, bytes->len + 64);

    if (bytes->len) {
        memcpy(copy, bytes->data, bytes->len);
    }
    bytes->data = copy;
    switch (sf_pick(f, 4)) {
    case 0:
        bytes->len = bytes->len ? sf_pick(f, (uint32_t)bytes->len) : 0;
        break;
    case 1:
        bytes->len += 1 + sf_pick(f, 48);
        break;
    case 2:
        if (bytes->len) {
            copy[sf_pick(f, (uint32_t)bytes->len)] ^= (uint8_t)(1u << sf_pick(f, 8));
        }
        break;
    default:
        bytes->len = 0;
        break;
    }
}

static size_t mutate_size(const ProtobufCFieldDescriptor *field)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
        return 8;
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    default:
        return 4;
    }
}

static void mutate_value(sf *f, const ProtobufCFieldDescriptor *field, void *at)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
        *(uint64_t *)at = mutate_number(f, *(uint64_t *)at);
        break;
    case PROTOBUF_C_TYPE_BOOL:
        *(protobuf_c_boolean *)at = !*(protobuf_c_boolean *)at;
        break;
    case PROTOBUF_C_TYPE_STRING:
        *(char **)at = mutate_text(f);
        break;
    case PROTOBUF_C_TYPE_BYTES:
        mutate_bytes(f, at);
        break;
    case PROTOBUF_C_TYPE_MESSAGE:
        if (*(ProtobufCMessage **)at) {
            sf_mutate_message(f, *(ProtobufCMessage **)at);
        } else {
            *(void **)at = sf_message(f, field->descriptor);
        }
        break;
    default:
        *(uint32_t *)at = (uint32_t)mutate_number(f, *(uint32_t *)at);
        break;
    }
}

/* A copy with room for one more. */
static uint8_t *mutate_copy(sf *f, const void *items, size_t n, size_t size)
{
    uint8_t *copy = sf_alloc(f, (n + 1) * size);

    if (n) {
        memcpy(copy, items, n * size);
    }
    return copy;
}

static void mutate_list(sf *f, const ProtobufCFieldDescriptor *field, size_t *n, void **items)
{
    size_t size = mutate_size(field);
    uint8_t *copy = mutate_copy(f, *items, *n, size);
    uint32_t at = *n ? sf_pick(f, (uint32_t)*n) : 0;

    *items = copy;
    switch (*n ? sf_pick(f, 6) : 5) {
    case 0:
        *n = at;
        break;
    case 1:
        memmove(copy + at * size, copy + (at + 1) * size, (*n - at - 1) * size);
        --*n;
        break;
    case 2:
        memcpy(copy + *n * size, copy + at * size, size);
        ++*n;
        break;
    case 5:
        if (field->type == PROTOBUF_C_TYPE_STRING) {
            *(char **)(copy + *n * size) = mutate_text(f);
        } else if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
            *(void **)(copy + *n * size) = sf_message(f, field->descriptor);
        }
        ++*n;
        break;
    default:
        mutate_value(f, field, copy + at * size);
        break;
    }
}

void sf_mutate_message(sf *f, ProtobufCMessage *message)
{
    const ProtobufCMessageDescriptor *type = message->descriptor;

    if (type->n_fields == 0) {
        return;
    }
    const ProtobufCFieldDescriptor *field = &type->fields[sf_pick(f, type->n_fields)];
    uint8_t *base = (uint8_t *)message;
    if (field->label == PROTOBUF_C_LABEL_REPEATED) {
        mutate_list(f, field, (size_t *)(void *)(base + field->quantifier_offset),
                    (void **)(void *)(base + field->offset));
    } else if (field->type == PROTOBUF_C_TYPE_MESSAGE && sf_once_in(f, 8)) {
        *(void **)(void *)(base + field->offset) = NULL;
    } else {
        mutate_value(f, field, base + field->offset);
    }
    if (sf_once_in(f, 4)) {
        sf_mutate_message(f, message);
    }
}

void sf_mutate_body(sf *f, sf_frame *frame)
{
    uint32_t at = frame->size ? sf_pick(f, (uint32_t)frame->size) : 0;

    switch (sf_pick(f, 5)) {
    case 0:
        frame->size = at;
        break;
    case 1:
        if (frame->size < frame->room) {
            frame->body[frame->size++] = (uint8_t)sf_pick(f, 256);
        }
        break;
    case 2:
        if (frame->size) {
            frame->body[at] = (uint8_t)sf_pick(f, 256);
        }
        break;
    case 3:
        if (frame->size && frame->size + 16 <= frame->room) {
            size_t n = frame->size - at < 16 ? frame->size - at : 16;
            memmove(frame->body + at + n, frame->body + at, frame->size - at);
            frame->size += n;
        }
        break;
    default:
        if (frame->size) {
            frame->body[at] ^= (uint8_t)(1u << sf_pick(f, 8));
        }
        break;
    }
}

/* What stands behind it is taken for a part of it, so it is the last one of its connection. */
static void frame_lie(sf *f, sf_frame *frame)
{
    frame->cut = true;
    if (sf_pick(f, 2)) {
        frame->head.body = (uint32_t)mutate_number(f, frame->head.body);
    } else {
        frame->head.payload = mutate_number(f, frame->head.payload);
    }
}

void sf_mutate_frame(sf *f, sf_link *link, sf_frame *frame)
{
    switch (sf_pick(f, 10)) {
    case 0:
        frame->head.kind = (uint16_t)sf_pick(f, SF_KINDS);
        link->odd = link->odd || frame->head.kind < TQI_PUBLISH;
        break;
    case 1:
        frame->again = true;
        frame->head.request = link->next - 1 - sf_pick(f, 8);
        break;
    case 2:
        frame->again = true;
        frame->head.request += (UINT64_C(1) << 40) + sf_pick(f, 64);
        break;
    case 3:
        frame->again = true;
        frame->head.request = sf_pick(f, 2) ? 0 : UINT64_MAX;
        break;
    case 4:
        frame->head.ack = frame->head.ack > 4 ? frame->head.ack - sf_pick(f, 4) : 0;
        break;
    case 5:
        frame->head.ack = mutate_number(f, frame->head.ack);
        link->odd = true;
        break;
    case 6:
        frame->head.flags = 1u << sf_pick(f, 16);
        frame->descriptor = sf_pick(f, 2);
        break;
    case 7:
        frame->descriptor = true;
        break;
    case 8:
        frame->cut = true;
        frame->length = sf_pick(f, (uint32_t)(TQI_FRAME_HEADER + frame->size + frame->payload_size));
        break;
    default:
        frame_lie(f, frame);
        break;
    }
}

/* --- what costs too much -------------------------------------------------- */

static bool large_samples(uint32_t samples)
{
    return samples > MUTATE_SAMPLES && samples <= TQI_CTL_SAMPLES_MAX;
}

static bool large_part(const ProtobufCBinaryData *bytes)
{
    Tq__SnapshotPart *part = tq__snapshot_part__unpack(NULL, bytes->len, bytes->data);
    bool large = false;

    for (size_t i = 0; part != NULL && part->batch != NULL && i < part->batch->n_index; i++) {
        large = large || (part->batch->index[i] > MUTATE_PLACES && part->batch->index[i] <= 1u << 25);
    }
    if (part != NULL) {
        tq__snapshot_part__free_unpacked(part, NULL);
    }
    return large;
}

static void note_remover(sf *f, const char *name)
{
    tq_error err;

    if (tqi_check_name("remover", name, TQ_NAME_MAX, &err) == TQ_OK) {
        sf_learn_remover(f, name);
    }
}

bool sf_too_large(sf *f, const sf_frame *frame)
{
    const tqi_method *method = tqi_method_find(frame->head.kind);
    bool large = false;

    if (method == NULL || (frame->head.kind != TQI_PUBLISH && frame->head.kind != TQI_RESERVE &&
                           frame->head.kind != TQI_RESTORE_PART && frame->head.kind != TQI_BEGIN_CLEAR)) {
        return false;
    }
    ProtobufCMessage *message = protobuf_c_message_unpack(method->request, NULL, frame->size, frame->body);
    if (message == NULL) {
        return false;
    }
    if (frame->head.kind == TQI_PUBLISH) {
        large = large_samples(((const Tq__Publish *)message)->samples);
        note_remover(f, ((const Tq__Publish *)message)->remover);
    } else if (frame->head.kind == TQI_BEGIN_CLEAR) {
        note_remover(f, ((const Tq__BeginClear *)message)->remover);
    } else if (frame->head.kind == TQI_RESERVE) {
        large = large_samples(((const Tq__Reserve *)message)->samples);
    } else {
        large = large_part(&((const Tq__RestorePart *)message)->part);
    }
    protobuf_c_message_free_unpacked(message, NULL);
    return large;
}
