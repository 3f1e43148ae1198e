/*
 * decode.c - decodes bodies into messages, within a budget. protobuf-c allocates whatever a message asks for: an empty
 * string or sub-message takes 2 bytes on the wire and more than a hundred in memory. So decoding uses an allocator
 * that grants only as much as the largest honest message of that size needs. Its memory comes from malloc, so a
 * message is freed like any other.
 */
#include <malloc.h>
#include <stdbool.h>
#include <stdlib.h>

#include "base/error.h"
#include "base/limits.h"
#include "wire/frame.h"
#include "wire/methods.h"

/* Bytes that malloc adds to each piece, its grain and its least piece. */
#define DECODE_HEAD  8u
#define DECODE_GRAIN 16u
#define DECODE_LEAST 32u

typedef struct decode_budget {
    uint64_t left;
    uint64_t held; /* of what was given, what the message has */
    bool over;
    bool nomem;
} decode_budget;

/* Bytes that malloc takes for a piece, by its size or by malloc_usable_size, which a sanitizer's malloc makes the
 * same. */
static uint64_t decode_piece(size_t size)
{
    uint64_t piece = ((uint64_t)size + DECODE_HEAD + DECODE_GRAIN - 1) / DECODE_GRAIN * DECODE_GRAIN;

    return piece < DECODE_LEAST ? DECODE_LEAST : piece;
}

static void *decode_alloc(void *data, size_t size)
{
    decode_budget *budget = data;
    uint64_t piece = decode_piece(size);

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
    budget->held += decode_piece(malloc_usable_size(memory));
    return memory;
}

static void decode_free(void *data, void *memory)
{
    decode_budget *budget = data;

    /* Memory freed on the way is not granted again: a table that grew counts at most twice. */
    budget->held -= decode_piece(malloc_usable_size(memory));
    free(memory);
}

/* Memory that a message of that size may take for its parts. */
static uint64_t decode_most(size_t size, uint64_t factor)
{
    return TQI_DECODE_BASE + size * factor;
}

/* Within `most` bytes; *memory, unless NULL, is what it takes. */
static ProtobufCMessage *decode_within(const ProtobufCMessageDescriptor *type, const uint8_t *body, size_t size,
                                       uint64_t most, size_t *memory, tq_error *err)
{
    static const uint8_t none[1];
    decode_budget budget = {.left = most};
    ProtobufCAllocator allocator = {.alloc = decode_alloc, .free = decode_free, .allocator_data = &budget};
    ProtobufCMessage *message = protobuf_c_message_unpack(type, &allocator, size, body != NULL ? body : none);

    if (message != NULL) {
        if (memory != NULL) {
            *memory = (size_t)budget.held;
        }
        return message;
    }
    if (budget.over && most < decode_most(size, TQI_DECODE_FACTOR)) {
        tqi_limit_reached(TQI_LIMIT_request_bytes);
        tqi_error_set(err, TQ_EINVAL,
                      "a %s of %zu bytes would take more than %llu bytes of memory "
                      "(limits.request_bytes): use smaller batches, or start the system with more",
                      type->short_name, size, (unsigned long long)most);
    } else if (budget.over) {
        tqi_error_set(err, TQ_EINVAL,
                      "a %s of %zu bytes would take more than %llu bytes of memory: it has too many "
                      "parts of next to nothing; use smaller batches",
                      type->short_name, size, (unsigned long long)most);
    } else if (budget.nomem) {
        tqi_error_nomem(err, "a message");
    } else {
        tqi_error_set(err, TQ_EPROTO, "malformed message: %zu bytes are not a %s", size, type->short_name);
    }
    return NULL;
}

ProtobufCMessage *tqi_message_decode(const ProtobufCMessageDescriptor *type, const uint8_t *body, size_t size,
                                     tq_error *err)
{
    return decode_within(type, body, size, decode_most(size, TQI_DECODE_FACTOR), NULL, err);
}

ProtobufCMessage *tqi_request_decode(const ProtobufCMessageDescriptor *type, const uint8_t *body, size_t size,
                                     size_t *memory, tq_error *err)
{
    const uint64_t most = decode_most(size, TQI_DECODE_FACTOR);

    return decode_within(type, body, size, most < tqi_limits.request_bytes ? most : tqi_limits.request_bytes, memory,
                         err);
}

ProtobufCMessage *tqi_reply_decode(const ProtobufCMessageDescriptor *type, const uint8_t *body, size_t size,
                                   tq_error *err)
{
    return decode_within(type, body, size, decode_most(size, TQI_DECODE_FACTOR_REPLY), NULL, err);
}
