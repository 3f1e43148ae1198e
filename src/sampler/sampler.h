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

/* Most bytes of a sampling_config: it is kept as long as its claim waits. */
#define TQI_SAMPLER_CONFIG_MAX 65536u

/* Makes a request ready for many tries: its user, and for a built-in sampler what its config says, so that no try parses
 * it; then lets the sampler check it.  Call release in any case. */
int tqi_sampler_prepare(const tq_sampler *sampler, tq_pick_request *request, tq_error *err);
void tqi_sampler_release(tq_pick_request *request);

/* Requests of which, on one view, those that need more samples fail when one fails that needs as many or fewer. */
typedef struct tqi_sampler_family {
    const tq_sampler *sampler;
    uint32_t group;      /* built-in samplers: samples of a group */
    uint32_t batch_size; /* other samplers, like config: the requests are the same in all */
    bool grows; /* samples that leave the view do not let a pick succeed that failed before */
    const char *config;
} tqi_sampler_family;

tqi_sampler_family tqi_sampler_family_of(const tq_sampler *sampler, const tq_pick_request *request);

/* Who is told of each slot that a pick was kept in. */
typedef struct tqi_sampler_told {
    void (*cached)(const char *slot, void *arg);
    void *arg;
} tqi_sampler_told;

/* One claim on a view: cached answer, else pick, else TQ_EAGAIN.  On success the samples are taken (tqi_view_take) and
 * described in result, and then `told` (NULL: nobody) hears of the slots that were filled. */
int tqi_sampler_claim(const tq_sampler *sampler, tqi_view *view, const tq_pick_request *request,
                      uint64_t session, bool with_tags, tqi_result *result,
                      const tqi_sampler_told *told, tq_error *err);

/* The slot whose pick the request is given; "" for none. */
int tqi_sampler_slot(const tq_sampler *sampler, const tq_pick_request *request,
                     char slot[TQ_NAME_MAX + 1], tq_error *err);

#endif
