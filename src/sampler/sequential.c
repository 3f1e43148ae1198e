/*
 * sequential.c - the first ready samples, in ascending order; and the same, kept per rank and step.
 */
#include "sampler/builtin.h"
#include "sampler/config.h"

#include "base/error.h"

#include <string.h>

#define SEQUENTIAL_NAME "SequentialSampler"
#define RANK_AWARE_NAME "RankAwareSampler"

static int sequential_check(const tq_pick_request *request, tq_error *err)
{
    tqi_sampler_config config;

    return tqi_sampler_config_read(request, SEQUENTIAL_NAME, &config, err);
}

static uint32_t sequential_need(const tq_pick_request *request)
{
    return request->batch_size;
}

static int sequential_pick(const tq_sampler_view *view, const tq_pick_request *request, tq_pick *pick, tq_error *err)
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
    .name = SEQUENTIAL_NAME,
    .check = sequential_check,
    .need = sequential_need,
    .pick = sequential_pick,
    .look = sequential_need,
};

static int rank_aware_config(const tq_pick_request *request, tqi_sampler_config *config, tq_error *err)
{
    int rc = tqi_sampler_config_read(request, RANK_AWARE_NAME, config, err);

    if (rc == TQ_OK) {
        rc = tqi_sampler_config_rank(config, RANK_AWARE_NAME, err);
    }
    if (rc == TQ_OK && !config->has_step) {
        rc = tqi_error_set(err, TQ_EINVAL, "%s needs batch_index in the sampling_config", RANK_AWARE_NAME);
    }
    return rc;
}

static int rank_aware_check(const tq_pick_request *request, tq_error *err)
{
    tqi_sampler_config config;

    return rank_aware_config(request, &config, err);
}

static int rank_aware_slot(const tq_pick_request *request, char slot[TQ_NAME_MAX + 1], tq_error *err)
{
    tqi_sampler_config config;
    int rc = rank_aware_config(request, &config, err);

    memcpy(slot, config.slot, sizeof(config.slot));
    return rc;
}

static int rank_aware_pick(const tq_sampler_view *view, const tq_pick_request *request, tq_pick *pick, tq_error *err)
{
    char slot[TQ_NAME_MAX + 1];
    int rc = rank_aware_slot(request, slot, err);

    if (rc == TQ_OK) {
        rc = sequential_pick(view, request, pick, err);
    }
    return rc == TQ_OK ? tq_pick_slot(pick, slot) : rc;
}

const tq_sampler tqi_sampler_rank_aware = {
    .abi = TQ_SAMPLER_ABI,
    .name = RANK_AWARE_NAME,
    .check = rank_aware_check,
    .slot = rank_aware_slot,
    .need = sequential_need,
    .pick = rank_aware_pick,
    .look = sequential_need,
};
