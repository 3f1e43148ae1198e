/*
 * prepare.c - a request to a sampler before the first try: its config is parsed once, if the sampler is a built-in one.
 */
#include "sampler/builtin.h"
#include "sampler/config.h"
#include "sampler/sampler.h"

#include "base/error.h"
#include "base/pointer.h"

#include <stdlib.h>
#include <string.h>

static bool prepare_builtin(const tq_sampler *sampler)
{
    return sampler == &tqi_sampler_sequential || sampler == &tqi_sampler_rank_aware ||
           sampler == &tqi_sampler_grpo_group_n || sampler == &tqi_sampler_seqlen_balanced;
}

int tqi_sampler_prepare(const tq_sampler *sampler, tq_pick_request *request, tq_error *err)
{
    size_t size = strlen(request->config);
    tqi_sampler_config config;
    void *prepared;
    int rc;

    if (size > TQI_SAMPLER_CONFIG_MAX) {
        return tqi_error_set(err, TQ_EINVAL,
                             "sampling_config of %zu bytes: it may have at most %u; large data "
                             "belongs into samples or tags",
                             size, TQI_SAMPLER_CONFIG_MAX);
    }
    request->user = sampler->user;
    if (prepare_builtin(sampler)) {
        rc = tqi_sampler_config_read(request, sampler->name, &config, err);
        if (rc != TQ_OK) {
            return rc;
        }
        prepared = malloc(tqi_sampler_config_size(&config));
        if (prepared == NULL) {
            return tqi_error_nomem(err, "sampling_config");
        }
        memcpy(prepared, &config, tqi_sampler_config_size(&config));
        request->prepared = prepared;
    }
    return sampler->check != NULL ? sampler->check(request, err) : TQ_OK;
}

void tqi_sampler_release(tq_pick_request *request)
{
    free(tqi_unconst(request->prepared));
    request->prepared = NULL;
}

uint32_t tqi_sampler_group(const tq_sampler *sampler, const tq_pick_request *request)
{
    tqi_sampler_config config = {.group = 1};
    tq_error err = {0};

    /* Compared by name, which is unique: the table may be a copy. */
    if (strcmp(sampler->name, tqi_sampler_grpo_group_n.name) != 0 &&
        strcmp(sampler->name, tqi_sampler_seqlen_balanced.name) != 0) {
        return 1;
    }
    return tqi_sampler_config_read(request, sampler->name, &config, &err) == TQ_OK ? config.group : 1;
}

tqi_sampler_family tqi_sampler_family_of(const tq_sampler *sampler, const tq_pick_request *request)
{
    if (prepare_builtin(sampler)) {
        return (tqi_sampler_family){
            .sampler = sampler,
            .group = tqi_sampler_group(sampler, request),
            .grows = true,
            .config = "",
        };
    }
    return (tqi_sampler_family){.sampler = sampler, .batch_size = request->batch_size, .config = request->config};
}
