/*
 * methods.c - the table of requests, and decoding of bodies.
 */
#include "wire/methods.h"

#include "base/error.h"

#define KEEP  1
#define AGAIN 0
#define METHOD_ROW(number, NAME, name, Message, reply, Reply, mode) \
    [number] = {number, #NAME, &tq__##name##__descriptor, &tq__##reply##__descriptor, mode},

/* By kind; places without a request have no name. */
static const tqi_method methods[] = {TQI_CONTROLLER_METHODS(METHOD_ROW)
                                         TQI_UNIT_METHODS(METHOD_ROW)};

const tqi_method *tqi_method_find(uint16_t kind)
{
    if (kind >= sizeof methods / sizeof *methods || !methods[kind].name) {
        return NULL;
    }
    return &methods[kind];
}

ProtobufCMessage *tqi_message_decode(const ProtobufCMessageDescriptor *type, const uint8_t *body,
                                     size_t size, tq_error *err)
{
    static const uint8_t none[1];
    ProtobufCMessage *message = protobuf_c_message_unpack(type, NULL, size, body ? body : none);
    if (!message) {
        tqi_error_set(err, TQ_EPROTO, "malformed message: %zu bytes are not a %s", size,
                      type->short_name);
    }
    return message;
}
