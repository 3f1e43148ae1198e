/*
 * groups.h - the groups among the ready samples of a view, in the order of their first ready sample.
 *
 * Samples with a group id given at put belong to that group; the others to the n consecutive ordinals that hold
 * theirs, so that reuse of indexes, partial clears and interleaved producers do not mix prompts. A group is complete
 * when n of its samples are ready; a group with more gives its first n.
 */
#ifndef TQI_SAMPLER_GROUPS_H
#define TQI_SAMPLER_GROUPS_H

#include <tq/sampler.h>

/* Positions (in the view) of the first `wanted` complete groups of n samples, group by group: wanted * n numbers, to be
 * freed by the caller. TQ_EAGAIN if there are fewer groups. */
int tqi_sampler_groups_choose(const tq_sampler_view *view, uint32_t n, uint32_t wanted, uint32_t **out, tq_error *err);

#endif
