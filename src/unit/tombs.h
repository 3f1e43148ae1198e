/*
 * tombs.h - ids that ended before their reserve arrived.
 */
#ifndef TQI_UNIT_TOMBS_H
#define TQI_UNIT_TOMBS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TQI_UNIT_TOMBS_MAX 4096

/*
 * Ids that are dead but had no block here when their end was announced: a reserve for one may still be in flight, and
 * its room would never be freed. Kept as ranges; if there are too many, the lower half is replaced by a floor: ids are
 * handed out in ascending order, so a reserve at or below the floor is an old one, and its writer is asked to get new
 * ids. Bounded, and errs only on the safe side.
 */
typedef struct tqi_unit_tombs {
    struct {
        uint64_t first, last;
    } range[TQI_UNIT_TOMBS_MAX]; /* ascending, apart from each other */
    size_t n;
    bool has_floor;
    uint64_t floor;
} tqi_unit_tombs;

void tqi_unit_tombs_clear(tqi_unit_tombs *tombs);
void tqi_unit_tombs_add(tqi_unit_tombs *tombs, uint64_t first, uint64_t count);
bool tqi_unit_tombs_has(const tqi_unit_tombs *tombs, uint64_t id);

#endif
