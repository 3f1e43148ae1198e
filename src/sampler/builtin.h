/*
 * builtin.h - the samplers that come with libtq.
 */
#ifndef TQI_SAMPLER_BUILTIN_H
#define TQI_SAMPLER_BUILTIN_H

#include <tq/sampler.h>

/* The first ready samples in ascending order. */
extern const tq_sampler tqi_sampler_sequential;

/* The same, kept and given to every caller with its dp_rank and batch_index. */
extern const tq_sampler tqi_sampler_rank_aware;

/* Complete groups of n_samples_per_prompt samples (config; 1 if not given). With dp_rank (and batch_index) in the
 * config, the pick is kept and given to every caller of that rank and step. */
extern const tq_sampler tqi_sampler_grpo_group_n;

/* A step of all dp_size ranks: complete groups, balanced by the tag total_lengths. */
extern const tq_sampler tqi_sampler_seqlen_balanced;

#endif
