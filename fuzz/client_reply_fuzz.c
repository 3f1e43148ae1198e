/*
 * client_reply_fuzz.c - the body of a controller's answer with a batch, as the client reads it.
 * Marks that only packed metadata may have must not get through.
 */
#include <stdint.h>
#include <stdlib.h>

#include "client/meta/meta.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    Tq__ClaimReply *reply = (Tq__ClaimReply *)tqi_message_decode(&tq__claim_reply__descriptor, data, size, NULL);
    tq_meta *meta = NULL;

    if (reply != NULL && reply->batch != NULL &&
        tqi_client_meta_decode(reply->batch, NULL, reply->claim, false, &meta, NULL) == TQ_OK) {
        for (size_t f = 0; f < meta->n_fields; f++) {
            const tqi_client_cells *cells = &meta->fields[f];
            for (size_t i = 0; i < meta->n; i++) {
                uint32_t block = cells->block[i];
                if (tqi_block_named(block) &&
                    (block > meta->blocks->n ||
                     cells->offset[i] + tqi_client_cells_size(cells, i) > meta->blocks->blocks[block - 1].size)) {
                    abort(); /* a cell outside of its block */
                }
            }
        }
        tq_meta_unref(meta);
    }
    if (reply != NULL) {
        protobuf_c_message_free_unpacked(&reply->base, NULL);
    }
    return 0;
}
