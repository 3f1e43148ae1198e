/*
 * frame.h - the fixed header in front of every message. No I/O.
 *
 * A frame is a header, a protobuf body and a raw payload. All numbers are little-endian.
 *
 *   magic u32 | version u16 | kind u16 | request u64 | ack u64 | body u32 | flags u32 | payload u64      = 40 bytes
 *
 * Peers of different versions read only each other's `magic` and `version`: these keep their place, and the header its
 * size, in every version. docs/design.md, "Versions", says what raises the version.
 *
 * `request` numbers the requests of a session, from 1; a reply carries the number of its request. `ack` (in frames of
 * a client) says that every reply below it was received: the server drops those it kept. An Ack's body may acknowledge
 * more.
 */
#ifndef TQI_WIRE_FRAME_H
#define TQI_WIRE_FRAME_H

#include <stddef.h>
#include <stdint.h>
#include <tq/errors.h>

#define TQI_FRAME_MAGIC      0x31515154u /* "TQQ1" */
#define TQI_PROTOCOL_VERSION 2
#define TQI_FRAME_HEADER     40
#define TQI_FRAME_REPLY      1u /* flags: this frame answers `request` */
/* flags, bits 8 to 11: number of descriptors that travel with the first byte of the frame (unix sockets only). */
#define TQI_FRAME_FDS_SHIFT 8
#define TQI_FRAME_FDS_MASK  0xfu
/* Largest body a peer accepts; payloads are bounded by the receiver that requested them. */
#define TQI_FRAME_BODY_MAX (256u << 20)

typedef struct tqi_frame {
    uint16_t version;
    uint16_t kind; /* enum tqi_kind */
    uint64_t request;
    uint64_t ack;
    uint32_t body;
    uint32_t flags;
    uint64_t payload;
} tqi_frame;

void tqi_frame_encode(const tqi_frame *frame, uint8_t out[TQI_FRAME_HEADER]);
/* Fills *err if the two sides have different versions: names both, and which is older. Returns TQ_EVERSION. */
int tqi_frame_version_error(tq_error *err, const char *them, uint16_t theirs, const char *us);
/* TQ_OK; TQ_EPROTO for another magic or a body above the limit; TQ_EVERSION for another version (frame is filled). */
int tqi_frame_decode(const uint8_t in[TQI_FRAME_HEADER], tqi_frame *frame, tq_error *err);

#endif
