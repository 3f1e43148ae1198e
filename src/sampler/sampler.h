/*
 * sampler.h - registry of samplers and the adapter between a view of the table and the public sampler seam.
 */
#ifndef TQI_SAMPLER_H
#define TQI_SAMPLER_H

#include "meta/meta.h"

#include <tq/sampler.h>

/* The sampler of that name ("" or NULL: SequentialSampler).  TQ_ESAMPLER lists the known ones.  The short names sequential
 * and grpo_group_n are accepted too. */
int tqi_sampler_find(const char *name, const tq_sampler **out, tq_error *err);

/* Samples of a group, for a built-in sampler that hands out whole ones; 1 for all others. */
uint32_t tqi_sampler_group(const tq_sampler *sampler, const tq_pick_request *request);

/* The partition was cleared: tells every sampler of this process that keeps answers of its own. */
void tqi_sampler_forget(const char *partition);

/* One claim on a view: cached answer, else pick, else TQ_EAGAIN.  On success the samples are taken (tqi_view_take) and
 * described in result. */
int tqi_sampler_claim(const tq_sampler *sampler, tqi_view *view, const tq_pick_request *request,
                      uint64_t session, bool with_tags, tqi_result *result, tq_error *err);

#endif
