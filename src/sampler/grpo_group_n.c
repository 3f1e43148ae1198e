/*
 * grpo_group_n.c - whole groups of n samples of one prompt.
 *
 * Samples with a group id given at put belong to that group; the others to the n consecutive ordinals that hold theirs, so
 * that reuse of indexes, partial clears and interleaved producers do not mix prompts.  A group is complete when n of its
 * samples are ready; a group with more gives its first n.  Groups are taken in the order of their first ready sample.
 */
#include "sampler/builtin.h"
#include "sampler/config.h"

#include "base/error.h"

#include <stdlib.h>

#define GRPO_NONE UINT32_MAX

typedef struct grpo_group {
    const char *name; /* NULL: by ordinal */
    uint64_t place;   /* ordinal / n */
    uint32_t count;
    uint32_t first, last; /* positions, linked by grpo_scan.next */
} grpo_group;

/* The groups among the samples of a view. */
typedef struct grpo_scan {
    grpo_group *groups; /* in order of their first sample */
    uint32_t n_groups;
    uint32_t *next;  /* per position: next of the group */
    uint32_t *table; /* open addressing: group plus 1 */
    uint32_t mask;
} grpo_scan;

static int grpo_config(const tq_pick_request *request, uint32_t *n, tq_error *err)
{
    int rc = tqi_sampler_config_count(request, "n_samples_per_prompt", 1, n, err);

    if (rc == TQ_OK && request->batch_size % *n != 0) {
        rc = tqi_error_set(err, TQ_EINVAL,
                           "batch size %u is not a multiple of n_samples_per_prompt %u",
                           request->batch_size, *n);
    }
    return rc;
}

static int grpo_check(const tq_pick_request *request, tq_error *err)
{
    uint32_t n;

    return grpo_config(request, &n, err);
}

static uint32_t grpo_need(const tq_pick_request *request)
{
    return request->batch_size;
}

static grpo_group *grpo_find(grpo_scan *scan, const char *name, uint64_t place)
{
    uint64_t key = name != NULL ? (uint64_t)(uintptr_t)name : place;
    uint32_t at = (uint32_t)((key * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & scan->mask;
    grpo_group *group;

    while (scan->table[at] != 0) {
        group = &scan->groups[scan->table[at] - 1];
        if (group->name == name && group->place == place) {
            return group;
        }
        at = (at + 1) & scan->mask;
    }
    group = &scan->groups[scan->n_groups++];
    *group = (grpo_group){.name = name, .place = place, .first = GRPO_NONE, .last = GRPO_NONE};
    scan->table[at] = scan->n_groups;
    return group;
}

static int grpo_alloc(grpo_scan *scan, uint32_t count)
{
    uint64_t size = 16;

    while (size < (uint64_t)count * 2) {
        size *= 2;
    }
    *scan = (grpo_scan){
        .groups = malloc(((size_t)count + 1) * sizeof(grpo_group)),
        .next = malloc(((size_t)count + 1) * sizeof(uint32_t)),
        .table = calloc(size, sizeof(uint32_t)),
        .mask = (uint32_t)(size - 1),
    };
    return scan->groups != NULL && scan->next != NULL && scan->table != NULL ? TQ_OK : TQ_ENOMEM;
}

static void grpo_free(grpo_scan *scan)
{
    free(scan->groups);
    free(scan->next);
    free(scan->table);
}

static void grpo_collect(grpo_scan *scan, const tq_sampler_view *view, uint32_t n)
{
    uint32_t count = tq_view_count(view);

    for (uint32_t i = 0; i < count; i++) {
        const char *name = tq_view_group(view, i);
        grpo_group *group = grpo_find(scan, name, name != NULL ? 0 : tq_view_ordinal(view, i) / n);

        scan->next[i] = GRPO_NONE;
        if (group->last == GRPO_NONE) {
            group->first = i;
        } else {
            scan->next[group->last] = i;
        }
        group->last = i;
        group->count++;
    }
}

/* Adds n samples of each of the first `wanted` complete groups. */
static int grpo_choose(const grpo_scan *scan, uint32_t wanted, uint32_t n, tq_pick *pick)
{
    for (uint32_t g = 0; g < scan->n_groups && wanted > 0; g++) {
        uint32_t at = scan->groups[g].first;
        if (scan->groups[g].count < n) {
            continue;
        }
        for (uint32_t i = 0; i < n; i++, at = scan->next[at]) {
            int rc = tq_pick_add(pick, at, true);
            if (rc != TQ_OK) {
                return rc;
            }
        }
        wanted--;
    }
    return wanted == 0 ? TQ_OK : TQ_EAGAIN;
}

static int grpo_pick(const tq_sampler_view *view, const tq_pick_request *request, tq_pick *pick,
                     tq_error *err)
{
    char slot[TQ_NAME_MAX + 1] = "";
    grpo_scan scan = {0};
    uint32_t n;
    int rc = grpo_config(request, &n, err);

    if (rc == TQ_OK) {
        rc = tqi_sampler_config_slot(request, slot, err);
    }
    if (rc != TQ_OK) {
        return rc;
    }
    if (grpo_alloc(&scan, tq_view_count(view)) != TQ_OK) {
        rc = tqi_error_nomem(err, "groups of samples");
        goto done;
    }
    grpo_collect(&scan, view, n);
    rc = grpo_choose(&scan, request->batch_size / n, n, pick);
    if (rc == TQ_OK && slot[0] != '\0') {
        rc = tq_pick_slot(pick, slot);
    }

done:
    grpo_free(&scan);
    return rc;
}

const tq_sampler tqi_sampler_grpo_group_n = {
    .abi = TQ_SAMPLER_ABI,
    .name = "grpo_group_n",
    .check = grpo_check,
    .slot = tqi_sampler_config_slot,
    .need = grpo_need,
    .pick = grpo_pick,
};
