/*
 * keys.c - the keys of a block's values, and what its locator says: the size of the values, or 0 if it is one.
 */
#include "manager/kv/kv.h"

#include <stdio.h>

void tqi_kv_le64(uint8_t out[8], uint64_t value)
{
    for (int i = 0; i < 8; i++) {
        out[i] = (uint8_t)(value >> (8 * i));
    }
}

uint64_t tqi_kv_from_le64(const uint8_t in[8])
{
    uint64_t value = 0;

    for (int i = 7; i >= 0; i--) {
        value = value << 8 | in[i];
    }
    return value;
}

void tqi_kv_key_of(tqi_kv_key_text *out, uint64_t epoch, uint64_t id, uint64_t part)
{
    int n = snprintf(out->text, sizeof(out->text), "tq/%016llx/%llx", (unsigned long long)epoch, (unsigned long long)id);

    if (part == TQI_KV_HEAD) {
        snprintf(out->text + n, sizeof(out->text) - (size_t)n, ".n");
    } else if (part != TQI_KV_WHOLE) {
        snprintf(out->text + n, sizeof(out->text) - (size_t)n, ".%llu", (unsigned long long)part);
    }
}

int tqi_kv_part_size(const tq_block *block, uint64_t *out, tq_error *err)
{
    if (block->locator_size != TQI_KV_LOCATOR) {
        return tqi_error_set(err, TQ_EPROTO,
                             "block %llu has a locator of %u bytes, expected %u: it was stored by "
                             "another storage manager",
                             (unsigned long long)block->id, block->locator_size, TQI_KV_LOCATOR);
    }
    *out = tqi_kv_from_le64(block->locator);
    return TQ_OK;
}
