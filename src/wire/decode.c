/*
 * decode.c - bodies as messages, within a budget.
 *
 * protobuf-c takes what a message asks for: an empty string or sub-message is 2 bytes on the wire and a hundred and more in
 * memory.  So decoding has an allocator that gives as much as the largest honest message of that size needs, and no more.
 * What it gives comes from malloc, so a message is freed like any other.
 */
#include <stdbool.h>
#include <stdlib.h>

#include "base/error.h"
#include "wire/frame.h"
#include "wire/methods.h"

/* Bytes that malloc adds to each piece, its grain and its least piece. */
#define DECODE_HEAD  8u
#define DECODE_GRAIN 16u
#define DECODE_LEAST 32u

typedef struct decode_budget {
    uint64_t left;
    bool over;
    bool nomem;
} decode_budget;

static void *decode_alloc(void *data, size_t size)
{
    decode_budget *budget = data;
    uint64_t piece =
        ((uint64_t)size + DECODE_HEAD + DECODE_GRAIN - 1) / DECODE_GRAIN * DECODE_GRAIN;

    piece = piece < DECODE_LEAST ? DECODE_LEAST : piece;
    if (piece > budget->left) {
        budget->over = true;
        return NULL;
    }
    void *memory = malloc(size);
    if (memory == NULL) {
        budget->nomem = true;
        return NULL;
    }
    budget->left -= piece;
    return memory;
}

static void decode_free(void *data, void *memory)
{
    (void)
        data; /* what was freed on the way is not given again: a table that grew counts twice at most */
    free(memory);
}

static ProtobufCMessage *decode_within(const ProtobufCMessageDescriptor *type, const uint8_t *body,
                                       size_t size, uint64_t factor, tq_error *err)
{
    static const uint8_t none[1];
    const uint64_t most = TQI_DECODE_BASE + size * factor;
    decode_budget budget = {.left = most};
    ProtobufCAllocator allocator = {
        .alloc = decode_alloc, .free = decode_free, .allocator_data = &budget};
    ProtobufCMessage *message =
        protobuf_c_message_unpack(type, &allocator, size, body ? body : none);

    if (message != NULL) {
        return message;
    }
    if (budget.over) {
        tqi_error_set(
            err, TQ_EINVAL,
            "a %s of %zu bytes would take more than %llu bytes of memory: it has too many "
            "parts of next to nothing; use smaller batches",
            type->short_name, size, (unsigned long long)most);
    } else if (budget.nomem) {
        tqi_error_nomem(err, "a message");
    } else {
        tqi_error_set(err, TQ_EPROTO, "malformed message: %zu bytes are not a %s", size,
                      type->short_name);
    }
    return NULL;
}

ProtobufCMessage *tqi_message_decode(const ProtobufCMessageDescriptor *type, const uint8_t *body,
                                     size_t size, tq_error *err)
{
    return decode_within(type, body, size, TQI_DECODE_FACTOR, err);
}

ProtobufCMessage *tqi_reply_decode(const ProtobufCMessageDescriptor *type, const uint8_t *body,
                                   size_t size, tq_error *err)
{
    return decode_within(type, body, size, TQI_DECODE_FACTOR_REPLY, err);
}
