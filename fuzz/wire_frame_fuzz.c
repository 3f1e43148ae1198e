/*
 * wire_frame_fuzz.c - frame headers: what is decoded encodes to the same bytes.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "wire/frame.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    tqi_frame frame;
    tq_error err;
    uint8_t again[TQI_FRAME_HEADER];

    if (size < TQI_FRAME_HEADER) {
        return 0;
    }
    int rc = tqi_frame_decode(data, &frame, &err);
    if (rc != TQ_OK) {
        if (rc != TQ_EPROTO && rc != TQ_EVERSION) {
            abort();
        }
        return 0;
    }
    tqi_frame_encode(&frame, again);
    if (memcmp(again, data, sizeof(again)) != 0 || frame.body > TQI_FRAME_BODY_MAX) {
        abort();
    }
    return 0;
}
