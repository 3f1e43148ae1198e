/*
 * grpo_group_n.c - whole groups of n samples of one prompt (see groups.h), in the order of their first ready sample.
 */
#include "sampler/builtin.h"
#include "sampler/config.h"
#include "sampler/groups.h"

#include "base/error.h"

#include <stdlib.h>
#include <string.h>

#define GRPO_NAME "GRPOGroupNSampler"

static int grpo_config(const tq_pick_request *request, tqi_sampler_config *config, tq_error *err)
{
    int rc = tqi_sampler_config_read(request, GRPO_NAME, config, err);

    if (rc == TQ_OK && request->batch_size % config->group != 0) {
        rc = tqi_error_set(err, TQ_EINVAL, "batch_size (%u) must be a multiple of n_samples_per_prompt (%u)",
                           request->batch_size, config->group);
    }
    return rc;
}

static int grpo_check(const tq_pick_request *request, tq_error *err)
{
    tqi_sampler_config config;

    return grpo_config(request, &config, err);
}

static int grpo_slot(const tq_pick_request *request, char slot[TQ_NAME_MAX + 1], tq_error *err)
{
    tqi_sampler_config config;
    int rc = grpo_config(request, &config, err);

    memcpy(slot, config.slot, sizeof(config.slot));
    return rc;
}

static uint32_t grpo_need(const tq_pick_request *request)
{
    return request->batch_size;
}

static int grpo_pick(const tq_sampler_view *view, const tq_pick_request *request, tq_pick *pick, tq_error *err)
{
    tqi_sampler_config config;
    uint32_t *positions = NULL;
    int rc = grpo_config(request, &config, err);

    if (rc == TQ_OK) {
        rc = tqi_sampler_groups_choose(view, config.group, request->batch_size / config.group, &positions, err);
    }
    for (uint32_t i = 0; rc == TQ_OK && i < request->batch_size; i++) {
        rc = tq_pick_add(pick, positions[i], true);
    }
    if (rc == TQ_OK && config.slot[0] != '\0') {
        rc = tq_pick_slot(pick, config.slot);
    }
    free(positions);
    return rc;
}

const tq_sampler tqi_sampler_grpo_group_n = {
    .abi = TQ_SAMPLER_ABI,
    .name = GRPO_NAME,
    .check = grpo_check,
    .slot = grpo_slot,
    .need = grpo_need,
    .pick = grpo_pick,
};
