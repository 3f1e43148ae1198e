/*
 * config.h - reading the sampling_config of a claim: a JSON object.
 */
#ifndef TQI_SAMPLER_CONFIG_H
#define TQI_SAMPLER_CONFIG_H

#include <tq/sampler.h>

/* What the built-in samplers read. Each of them accepts the keys of all, because callers pass the same map to any
 * sampler. */
typedef struct tqi_sampler_config {
    uint32_t group;     /* n_samples_per_prompt; 1 when absent */
    uint32_t dp_size;   /* 1 when absent */
    bool has_rank;      /* dp_rank is given */
    bool has_step;      /* batch_index is given */
    int64_t rank;       /* dp_rank when it is a whole number, else -1 */
    char rank_text[64]; /* as it was given, cut off */
    /* Cache slot of (dp_rank, batch_index): all callers of one step of one rank get the same samples. "" without
     * dp_rank. */
    char slot[TQ_NAME_MAX + 1];
} tqi_sampler_config;

/* Bytes of a config without what its slot does not use. */
size_t tqi_sampler_config_size(const tqi_sampler_config *config);

/* Taken from request->prepared if set, else parsed from its text. TQ_EINVAL names what is wrong: an unknown key (and
 * the known ones), or a value of the wrong kind. */
int tqi_sampler_config_read(const tq_pick_request *request, const char *sampler, tqi_sampler_config *out, tq_error *err);

/* Checks that dp_rank is a whole number from 0. */
int tqi_sampler_config_rank(const tqi_sampler_config *config, const char *sampler, tq_error *err);

/* The slot of another rank of the same step, for a config whose rank is a whole number. */
int tqi_sampler_config_slot(const tqi_sampler_config *config, uint32_t rank, char slot[TQ_NAME_MAX + 1], tq_error *err);

#endif
