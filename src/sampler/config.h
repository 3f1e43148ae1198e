/*
 * config.h - reading the sampling_config of a claim: a JSON object.
 */
#ifndef TQI_SAMPLER_CONFIG_H
#define TQI_SAMPLER_CONFIG_H

#include <tq/sampler.h>

/* The whole number of that name, at least 1; `absent` when it is not there.  TQ_EINVAL for anything else. */
int tqi_sampler_config_count(const tq_pick_request *request, const char *name, uint32_t absent,
                             uint32_t *out, tq_error *err);

/* Cache slot of (dp_rank, batch_index): all askers of one step of one rank get the same samples.  "" without dp_rank. */
int tqi_sampler_config_slot(const tq_pick_request *request, char slot[TQ_NAME_MAX + 1],
                            tq_error *err);

#endif
