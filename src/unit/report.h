/*
 * report.h - counters of a unit, reported to the controller.
 */
#ifndef TQI_UNIT_REPORT_H
#define TQI_UNIT_REPORT_H

#include "unit/unit.h"

/* Operations as users know them: a put is a reserve, a clear is a notice of dead blocks. */
typedef enum tqi_unit_op {
    TQI_UNIT_PUT,
    TQI_UNIT_GET,
    TQI_UNIT_CLEAR,
    TQI_UNIT_OPS
} tqi_unit_op;

/* An operation that began at `since` is done. */
void tqi_unit_count(tqi_unit *unit, tqi_unit_op op, uint64_t since);
/* Counters have changed: report them soon. */
void tqi_unit_reportable(tqi_unit *unit);
/* The interval between reports that the controller asked for; 0: it did not. */
void tqi_unit_report_every(tqi_unit *unit, uint64_t ms);
void tqi_unit_counters_reset(tqi_unit *unit);

#endif
