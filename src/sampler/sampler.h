/*
 * sampler.h - registry of samplers, and the adapter between a view of the table and the public sampler interface.
 */
#ifndef TQI_SAMPLER_SAMPLER_H
#define TQI_SAMPLER_SAMPLER_H

#include "table/table.h"

#include <tq/sampler.h>

/* The sampler of that name ("" or NULL: SequentialSampler). TQ_ESAMPLER lists the known ones. The short names
 * sequential and grpo_group_n are accepted too. */
int tqi_sampler_find(const char *name, const tq_sampler **out, tq_error *err);

/* Samples per group, for a built-in sampler that hands out whole groups; 1 for all others. */
uint32_t tqi_sampler_group(const tq_sampler *sampler, const tq_pick_request *request);

/* The partition was cleared: notifies every sampler in this process that keeps its own answers. */
void tqi_sampler_forget(const char *partition);

/* Largest sampling_config in bytes: it is kept for as long as its claim waits. */
#define TQI_SAMPLER_CONFIG_MAX 65536u

/* Prepares a request for many tries: sets its user and, for a built-in sampler, the parsed config, so that no try
 * parses it again; then lets the sampler check it. Call release in any case. */
int tqi_sampler_prepare(const tq_sampler *sampler, tq_pick_request *request, tq_error *err);
void tqi_sampler_release(tq_pick_request *request);

/* Requests such that, on one view, if one fails then all that need at least as many samples fail, too. */
typedef struct tqi_sampler_family {
    const tq_sampler *sampler;
    uint32_t group;      /* built-in samplers: samples of a group */
    uint32_t batch_size; /* other samplers, like config: the requests are the same in all */
    bool grows;          /* a failed pick cannot succeed just because samples leave the view */
    const char *config;
} tqi_sampler_family;

tqi_sampler_family tqi_sampler_family_of(const tq_sampler *sampler, const tq_pick_request *request);

/* Called for each slot in which a pick was kept. */
typedef struct tqi_sampler_told {
    void (*cached)(const char *slot, void *arg);
    void *arg;
} tqi_sampler_told;

/* One claim on a view: cached answer, else pick, else TQ_EAGAIN. On success the samples are taken
 * (tqi_table_view_take) and described in result, and then `told` (may be NULL) is called with the slots that were
 * filled. */
int tqi_sampler_claim(const tq_sampler *sampler, tqi_table_view *view, const tq_pick_request *request, uint64_t session,
                      bool with_tags, tqi_table_result *result, const tqi_sampler_told *told, tq_error *err);

/* The slot whose pick the request is given; "" for none. */
int tqi_sampler_slot(const tq_sampler *sampler, const tq_pick_request *request, char slot[TQ_NAME_MAX + 1],
                     tq_error *err);

#endif
