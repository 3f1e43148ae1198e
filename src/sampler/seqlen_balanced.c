/*
 * seqlen_balanced.c - one step of all data-parallel ranks at once: whole groups, distributed so that the ranks get
 * nearly the same sum of the tag `total_lengths`. The first caller of a step picks for all ranks: batch_size samples
 * for each of dp_size ranks. The others' picks are kept in their slots. Every rank gets the same number of groups; a
 * sample without the tag weighs 1.
 */
#include "sampler/builtin.h"
#include "sampler/config.h"
#include "sampler/groups.h"

#include "base/error.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define SEQLEN_NAME "SeqlenBalancedSampler"
#define SEQLEN_TAG  "total_lengths"

static int seqlen_config(const tq_pick_request *request, tqi_sampler_config *config, tq_error *err)
{
    int rc = tqi_sampler_config_read(request, SEQLEN_NAME, config, err);

    if (rc == TQ_OK && (config->has_rank || config->dp_size > 1)) {
        rc = tqi_sampler_config_rank(config, SEQLEN_NAME, err);
    }
    if (rc != TQ_OK) {
        return rc;
    }
    if (config->has_rank && config->rank >= (int64_t)config->dp_size) {
        return tqi_error_set(err, TQ_EINVAL, "sampling_config: dp_rank %lld must be below dp_size %u",
                             (long long)config->rank, config->dp_size);
    }
    if (request->batch_size % config->group != 0) {
        return tqi_error_set(err, TQ_EINVAL,
                             "batch_size (%u) must be a multiple of n_samples_per_prompt (%u): "
                             "every rank gets whole groups",
                             request->batch_size, config->group);
    }
    if ((uint64_t)request->batch_size * config->dp_size > UINT32_MAX) {
        return tqi_error_set(err, TQ_EINVAL, "batch_size (%u) times dp_size (%u) is more than 2^32 samples",
                             request->batch_size, config->dp_size);
    }
    return TQ_OK;
}

static int seqlen_check(const tq_pick_request *request, tq_error *err)
{
    tqi_sampler_config config;

    return seqlen_config(request, &config, err);
}

static int seqlen_slot(const tq_pick_request *request, char slot[TQ_NAME_MAX + 1], tq_error *err)
{
    tqi_sampler_config config;
    int rc = seqlen_config(request, &config, err);

    memcpy(slot, config.slot, sizeof(config.slot));
    return rc;
}

static uint32_t seqlen_need(const tq_pick_request *request)
{
    tqi_sampler_config config;

    /* The claim was checked before. */
    return seqlen_config(request, &config, NULL) == TQ_OK ? request->batch_size * config.dp_size : request->batch_size;
}

/* Weight of each group; positions[] holds n_groups times n. */
static int seqlen_weigh(const tq_sampler_view *view, const uint32_t *positions, uint32_t n_groups, uint32_t n,
                        double *weights, tq_error *err)
{
    for (uint32_t g = 0; g < n_groups; g++) {
        weights[g] = 0;
        for (uint32_t i = 0; i < n; i++) {
            uint32_t at = positions[(size_t)g * n + i];
            double length = 1;
            const char *name = NULL;
            tq_slice value;
            if (!tq_view_tag_number(view, at, SEQLEN_TAG, &length)) {
                length = 1;
                for (uint32_t tag = 0; tq_view_tag(view, at, tag, &name, &value); tag++) {
                    if (strcmp(name, SEQLEN_TAG) == 0) {
                        length = NAN;
                    }
                }
            }
            if (!isfinite(length)) {
                return tqi_error_set(err, TQ_EINVAL, "tag " SEQLEN_TAG " of sample %u is not a finite number",
                                     tq_view_indexes(view)[at]);
            }
            weights[g] += length;
        }
    }
    return TQ_OK;
}

/* Hands out the groups: those of the caller's rank to the pick, those of the others to their slots. */
static int seqlen_deal(const tq_pick_request *request, const tqi_sampler_config *config, const uint32_t *positions,
                       const uint32_t *part, uint32_t *share, tq_pick *pick, tq_error *err)
{
    uint32_t n_groups = request->batch_size / config->group * config->dp_size;
    uint32_t own = config->has_rank ? (uint32_t)config->rank : 0;
    char slot[TQ_NAME_MAX + 1];
    int rc = TQ_OK;

    for (uint32_t rank = 0; rc == TQ_OK && rank < config->dp_size; rank++) {
        uint32_t used = 0;
        for (uint32_t g = 0; g < n_groups; g++) {
            if (part[g] == rank) {
                memcpy(share + used, positions + (size_t)g * config->group, config->group * sizeof(*share));
                used += config->group;
            }
        }
        if (rank != own) {
            rc = tqi_sampler_config_slot(config, rank, slot, err);
            rc = rc == TQ_OK ? tq_pick_cache(pick, slot, share, used) : rc;
            continue;
        }
        for (uint32_t i = 0; rc == TQ_OK && i < used; i++) {
            rc = tq_pick_add(pick, share[i], true);
        }
    }
    return rc == TQ_OK && config->slot[0] != '\0' ? tq_pick_slot(pick, config->slot) : rc;
}

static int seqlen_pick(const tq_sampler_view *view, const tq_pick_request *request, tq_pick *pick, tq_error *err)
{
    tqi_sampler_config config;
    uint32_t *positions = NULL;
    uint32_t n_groups;
    double *weights = NULL;
    uint32_t *part = NULL;
    uint32_t *share = NULL;
    int rc = seqlen_config(request, &config, err);

    if (rc != TQ_OK) {
        return rc;
    }
    n_groups = request->batch_size / config.group * config.dp_size;
    rc = tqi_sampler_groups_choose(view, config.group, n_groups, &positions, err);
    if (rc != TQ_OK) {
        return rc;
    }
    weights = malloc(n_groups * sizeof(*weights));
    part = malloc(n_groups * sizeof(*part));
    share = malloc(request->batch_size * sizeof(*share));
    if (weights == NULL || part == NULL || share == NULL) {
        rc = tqi_error_nomem(err, "samples of all ranks");
        goto done;
    }
    rc = seqlen_weigh(view, positions, n_groups, config.group, weights, err);
    if (rc == TQ_OK) {
        rc = tq_balance(weights, n_groups, config.dp_size, true, part, err);
    }
    if (rc == TQ_OK) {
        rc = seqlen_deal(request, &config, positions, part, share, pick, err);
    }

done:
    free(positions);
    free(weights);
    free(part);
    free(share);
    return rc;
}

const tq_sampler tqi_sampler_seqlen_balanced = {
    .abi = TQ_SAMPLER_ABI,
    .name = SEQLEN_NAME,
    .check = seqlen_check,
    .slot = seqlen_slot,
    .need = seqlen_need,
    .pick = seqlen_pick,
};
