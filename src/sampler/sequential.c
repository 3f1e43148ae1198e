/*
 * sequential.c - the first ready samples, in ascending order.
 */
#include "sampler/builtin.h"

static uint32_t sequential_need(const tq_pick_request *request)
{
    return request->batch_size;
}

static int sequential_pick(const tq_sampler_view *view, const tq_pick_request *request,
                           tq_pick *pick, tq_error *err)
{
    (void)err;
    if (tq_view_count(view) < request->batch_size) {
        return TQ_EAGAIN;
    }
    for (uint32_t i = 0; i < request->batch_size; i++) {
        int rc = tq_pick_add(pick, i, true);
        if (rc != TQ_OK) {
            return rc;
        }
    }
    return TQ_OK;
}

const tq_sampler tqi_sampler_sequential = {
    .abi = TQ_SAMPLER_ABI,
    .name = "sequential",
    .need = sequential_need,
    .pick = sequential_pick,
    .look = sequential_need,
};
