/*
 * sift.h - blocks that no table knows, of writers that are gone.
 */
#ifndef TQI_UNIT_SIFT_H
#define TQI_UNIT_SIFT_H

#include "unit/unit.h"

#define TQI_UNIT_SIFT_MAX 1024u

/*
 * A writer that has ended may leave blocks that no table knows: those reserved under an id that had already ended. No
 * notice will come for them, so the controller is asked about the blocks of writers that are gone, once for each block.
 */
typedef struct tqi_unit_sift {
    uv_timer_t timer;
    bool wanted;   /* a writer with blocks has ended since the last round began */
    bool going;    /* a round is in progress */
    uint32_t next; /* next slot to examine */
    tqi_net_call *asking;
    uint64_t asked_as; /* incarnation of the question */
    uint64_t ids[TQI_UNIT_SIFT_MAX];
    size_t n;
    uint64_t freed; /* blocks, ever */
} tqi_unit_sift;

/* A writer with blocks has ended, or the unit has been registered again. */
void tqi_unit_sift_want(tqi_unit *unit);
void tqi_unit_sift_go(tqi_unit *unit);

#endif
