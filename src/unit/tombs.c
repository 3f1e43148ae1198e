/*
 * tombs.c - ids that ended before their reserve arrived.
 */
#include "unit/tombs.h"

#include <string.h>

void tqi_unit_tombs_clear(tqi_unit_tombs *tombs)
{
    tombs->n = 0;
    tombs->has_floor = false;
    tombs->floor = 0;
}

/* First range whose last id is not below `id`. */
static size_t tombs_find(const tqi_unit_tombs *tombs, uint64_t id)
{
    size_t low = 0, high = tombs->n;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (tombs->range[middle].last < id) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* Replaces the lower half by the floor. */
static void tombs_shrink(tqi_unit_tombs *tombs)
{
    size_t half = tombs->n / 2;
    uint64_t floor = tombs->range[half - 1].last;

    /* Ids may wrap around: "higher" is by distance. */
    if (!tombs->has_floor || (int64_t)(floor - tombs->floor) > 0) {
        tombs->floor = floor;
    }
    tombs->has_floor = true;
    tombs->n -= half;
    memmove(tombs->range, tombs->range + half, tombs->n * sizeof(tombs->range[0]));
}

static void tombs_insert(tqi_unit_tombs *tombs, uint64_t first, uint64_t last)
{
    if (tombs->n == TQI_UNIT_TOMBS_MAX) {
        tombs_shrink(tombs);
    }
    size_t from = tombs_find(tombs, first == 0 ? 0 : first - 1);
    size_t to = from;
    /* Merges all ranges that overlap or touch. */
    while (to < tombs->n && (last == UINT64_MAX || tombs->range[to].first <= last + 1)) {
        first = tombs->range[to].first < first ? tombs->range[to].first : first;
        last = tombs->range[to].last > last ? tombs->range[to].last : last;
        to++;
    }
    memmove(tombs->range + from + 1, tombs->range + to, (tombs->n - to) * sizeof(tombs->range[0]));
    tombs->n = tombs->n - (to - from) + 1;
    tombs->range[from].first = first;
    tombs->range[from].last = last;
}

void tqi_unit_tombs_add(tqi_unit_tombs *tombs, uint64_t first, uint64_t count)
{
    if (count == 0) {
        return;
    }
    uint64_t last = first + (count - 1);
    if (last < first) { /* past the end of the numbers */
        tombs_insert(tombs, first, UINT64_MAX);
        tombs_insert(tombs, 0, last);
    } else {
        tombs_insert(tombs, first, last);
    }
}

bool tqi_unit_tombs_has(const tqi_unit_tombs *tombs, uint64_t id)
{
    if (tombs->has_floor && (int64_t)(id - tombs->floor) <= 0) {
        return true;
    }
    size_t at = tombs_find(tombs, id);
    return at < tombs->n && tombs->range[at].first <= id;
}
