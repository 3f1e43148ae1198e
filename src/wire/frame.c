/*
 * frame.c - the frame header as bytes.
 */
#include "wire/frame.h"

#include <endian.h>
#include <stdbool.h>
#include <string.h>

#include "base/error.h"

static uint8_t *put16(uint8_t *at, uint16_t value)
{
    value = htole16(value);
    memcpy(at, &value, sizeof(value));
    return at + sizeof(value);
}

static uint8_t *put32(uint8_t *at, uint32_t value)
{
    value = htole32(value);
    memcpy(at, &value, sizeof(value));
    return at + sizeof(value);
}

static uint8_t *put64(uint8_t *at, uint64_t value)
{
    value = htole64(value);
    memcpy(at, &value, sizeof(value));
    return at + sizeof(value);
}

static uint16_t get16(const uint8_t *at)
{
    uint16_t value;

    memcpy(&value, at, sizeof(value));
    return le16toh(value);
}

static uint32_t get32(const uint8_t *at)
{
    uint32_t value;

    memcpy(&value, at, sizeof(value));
    return le32toh(value);
}

static uint64_t get64(const uint8_t *at)
{
    uint64_t value;

    memcpy(&value, at, sizeof(value));
    return le64toh(value);
}

void tqi_frame_encode(const tqi_frame *frame, uint8_t out[TQI_FRAME_HEADER])
{
    uint8_t *at = put32(out, TQI_FRAME_MAGIC);

    at = put16(at, frame->version);
    at = put16(at, frame->kind);
    at = put64(at, frame->request);
    at = put64(at, frame->ack);
    at = put32(at, frame->body);
    at = put32(at, frame->flags);
    put64(at, frame->payload);
}

int tqi_frame_version_error(tq_error *err, const char *them, uint16_t theirs, const char *us)
{
    bool we = theirs > TQI_PROTOCOL_VERSION;

    return tqi_error_set(err, TQ_EVERSION,
                         "protocol versions differ: %s speaks version %u, %s version %u; %s is older "
                         "and has to be updated",
                         them, (unsigned)theirs, us, (unsigned)TQI_PROTOCOL_VERSION, we ? us : them);
}

int tqi_frame_decode(const uint8_t in[TQI_FRAME_HEADER], tqi_frame *frame, tq_error *err)
{
    uint32_t magic = get32(in);

    frame->version = get16(in + 4);
    frame->kind = get16(in + 6);
    frame->request = get64(in + 8);
    frame->ack = get64(in + 16);
    frame->body = get32(in + 24);
    frame->flags = get32(in + 28);
    frame->payload = get64(in + 32);
    if (magic != TQI_FRAME_MAGIC) {
        return tqi_error_set(err, TQ_EPROTO, "malformed frame: it begins with 0x%08x, not with 0x%08x", (unsigned)magic,
                             (unsigned)TQI_FRAME_MAGIC);
    }
    if (frame->version != TQI_PROTOCOL_VERSION) {
        return tqi_frame_version_error(err, "the peer", frame->version, "this side");
    }
    if (frame->body > TQI_FRAME_BODY_MAX) {
        return tqi_error_set(err, TQ_EPROTO, "malformed frame: a body of %u bytes, at most %u are allowed",
                             (unsigned)frame->body, (unsigned)TQI_FRAME_BODY_MAX);
    }
    return TQ_OK;
}
