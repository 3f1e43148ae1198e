/*
 * groups.c - see groups.h. One pass over the view, one hash table; its cost is in proportion to the samples it has to
 * examine.
 */
#include "sampler/groups.h"

#include "base/error.h"

#include <stdlib.h>

#define GROUPS_NONE UINT32_MAX

typedef struct group_entry {
    const char *name; /* NULL: by ordinal */
    uint64_t place;   /* ordinal / n */
    uint32_t count;
    uint32_t first, last; /* positions, linked by group_scan.next */
} group_entry;

/* The groups among the samples of a view. */
typedef struct group_scan {
    group_entry *groups; /* in order of their first sample */
    uint32_t n_groups;
    uint32_t *next;  /* per position: next of the group */
    uint32_t *table; /* open addressing: group plus 1 */
    uint32_t mask;
} group_scan;

static group_entry *groups_find(group_scan *scan, const char *name, uint64_t place)
{
    uint64_t key = name != NULL ? (uint64_t)(uintptr_t)name : place;
    uint32_t at = (uint32_t)((key * UINT64_C(0x9e3779b97f4a7c15)) >> 32) & scan->mask;
    group_entry *group;

    while (scan->table[at] != 0) {
        group = &scan->groups[scan->table[at] - 1];
        if (group->name == name && group->place == place) {
            return group;
        }
        at = (at + 1) & scan->mask;
    }
    group = &scan->groups[scan->n_groups++];
    *group = (group_entry){.name = name, .place = place, .first = GROUPS_NONE, .last = GROUPS_NONE};
    scan->table[at] = scan->n_groups;
    return group;
}

static int groups_alloc(group_scan *scan, uint32_t count)
{
    uint64_t size = 16;

    while (size < (uint64_t)count * 2) {
        size *= 2;
    }
    *scan = (group_scan){
        .groups = malloc(((size_t)count + 1) * sizeof(group_entry)),
        .next = malloc(((size_t)count + 1) * sizeof(uint32_t)),
        .table = calloc(size, sizeof(uint32_t)),
        .mask = (uint32_t)(size - 1),
    };
    return scan->groups != NULL && scan->next != NULL && scan->table != NULL ? TQ_OK : TQ_ENOMEM;
}

static void groups_free(group_scan *scan)
{
    free(scan->groups);
    free(scan->next);
    free(scan->table);
}

/* Stops as soon as the first `wanted` groups are complete: later samples cannot change them. */
static void groups_collect(group_scan *scan, const tq_sampler_view *view, uint32_t n, uint32_t wanted)
{
    uint32_t count = tq_view_count(view);
    uint32_t complete = 0; /* groups from the first one on */

    for (uint32_t i = 0; i < count && complete < wanted; i++) {
        const char *name = tq_view_group(view, i);
        group_entry *group = groups_find(scan, name, name != NULL ? 0 : tq_view_ordinal(view, i) / n);

        scan->next[i] = GROUPS_NONE;
        if (group->last == GROUPS_NONE) {
            group->first = i;
        } else {
            scan->next[group->last] = i;
        }
        group->last = i;
        group->count++;
        while (complete < scan->n_groups && scan->groups[complete].count >= n) {
            complete++;
        }
    }
}

/* Whether there are that many complete groups. */
static bool groups_enough(const group_scan *scan, uint32_t n, uint32_t wanted)
{
    for (uint32_t g = 0; g < scan->n_groups && wanted > 0; g++) {
        wanted -= scan->groups[g].count >= n;
    }
    return wanted == 0;
}

int tqi_sampler_groups_choose(const tq_sampler_view *view, uint32_t n, uint32_t wanted, uint32_t **out, tq_error *err)
{
    group_scan scan;
    uint32_t *positions = NULL;
    size_t used = 0;
    int rc = groups_alloc(&scan, tq_view_count(view));

    if (rc == TQ_OK) {
        groups_collect(&scan, view, n, wanted);
        if (!groups_enough(&scan, n, wanted)) {
            rc = TQ_EAGAIN;
            goto done;
        }
        positions = malloc(((size_t)wanted * n + 1) * sizeof(*positions));
        rc = positions != NULL ? TQ_OK : TQ_ENOMEM;
    }
    if (rc != TQ_OK) {
        rc = tqi_error_nomem(err, "groups of samples");
        goto done;
    }
    for (uint32_t g = 0; wanted > 0; g++) {
        uint32_t at = scan.groups[g].first;
        if (scan.groups[g].count < n) {
            continue;
        }
        for (uint32_t i = 0; i < n; i++, at = scan.next[at]) {
            positions[used++] = at;
        }
        wanted--;
    }

done:
    groups_free(&scan);
    *out = positions;
    return rc;
}
