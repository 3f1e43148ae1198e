/*
 * meta_unpack_fuzz.c - bytes that claim to be packed metadata. Accepted input must survive being used: selected from,
 * concatenated, packed and unpacked again to the same samples.
 */
#include <stdint.h>
#include <stdlib.h>

#include <tq/tq.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_use(tq_meta *meta)
{
    tq_meta *pair[2] = {meta, meta};
    tq_meta *joined = NULL;
    tq_meta *again = NULL;
    uint8_t *bytes = NULL;
    size_t packed = 0;

    if (tq_meta_pack(meta, &bytes, &packed, NULL) != TQ_OK || tq_meta_unpack(bytes, packed, &again, NULL) != TQ_OK ||
        tq_meta_sample_count(again) != tq_meta_sample_count(meta) ||
        tq_meta_field_count(again) != tq_meta_field_count(meta)) {
        abort(); /* what was accepted must be accepted again */
    }
    if (tq_meta_concat(pair, 2, &joined, NULL) == TQ_OK) {
        if (tq_meta_sample_count(joined) != 2 * tq_meta_sample_count(meta)) {
            abort();
        }
        tq_meta_unref(joined);
    }
    if (tq_meta_sample_count(meta) > 0) {
        const uint32_t rows[2] = {(uint32_t)tq_meta_sample_count(meta) - 1, 0};
        if (tq_meta_select(meta, rows, 2, NULL, 0, &joined, NULL) == TQ_OK) {
            tq_meta_unref(joined);
        }
    }
    free(bytes);
    tq_meta_unref(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    tq_meta *meta = NULL;

    if (tq_meta_unpack(data, size, &meta, NULL) == TQ_OK) {
        fuzz_use(meta);
        tq_meta_unref(meta);
    }
    return 0;
}
