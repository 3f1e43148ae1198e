/*
 * wire_message_fuzz.c - bodies of every message: the first byte names the message, the rest is its body. What is
 * decoded packs, and if that decodes again (protobuf-c keeps, but then refuses, unknown fields numbered 0) it packs to
 * the same bytes.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "wire/methods.h"

#define PAIR(number, NAME, name, Message, reply, Reply, mode) &tq__##name##__descriptor, &tq__##reply##__descriptor,

static const ProtobufCMessageDescriptor *const types[] = {
    &tq__challenge__descriptor, &tq__hello__descriptor,  &tq__welcome__descriptor,
    &tq__error__descriptor,     &tq__cancel__descriptor, TQI_METHODS_CONTROLLER(PAIR) TQI_METHODS_UNIT(PAIR)};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t *pack(const ProtobufCMessage *message, size_t *size)
{
    *size = protobuf_c_message_get_packed_size(message);
    uint8_t *bytes = malloc(*size + 1);
    if (bytes == NULL || protobuf_c_message_pack(message, bytes) != *size) {
        abort();
    }
    return bytes;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) {
        return 0;
    }
    const ProtobufCMessageDescriptor *type = types[data[0] % (sizeof(types) / sizeof(*types))];
    tq_error err = {0};
    ProtobufCMessage *message = tqi_message_decode(type, data + 1, size - 1, &err);
    if (message == NULL) {
        if (err.code != TQ_EPROTO) {
            abort();
        }
        return 0;
    }
    size_t first_size, second_size;
    uint8_t *first = pack(message, &first_size);
    protobuf_c_message_free_unpacked(message, NULL);
    message = tqi_message_decode(type, first, first_size, &err);
    if (message == NULL) {
        free(first);
        return 0;
    }
    uint8_t *second = pack(message, &second_size);
    protobuf_c_message_free_unpacked(message, NULL);
    if (first_size != second_size || memcmp(first, second, first_size) != 0) {
        abort();
    }
    free(first);
    free(second);
    return 0;
}
