/*
 * metrics.h - values of metrics at one instant, and their text in the format of Prometheus. No I/O, no threads.
 *
 * A set is filled by the thread that owns the state (cheaply: numbers and copied names) and may then be rendered by any
 * other.
 */
#ifndef TQI_METRICS_METRICS_H
#define TQI_METRICS_METRICS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "metrics/families.h"

#include <tq/errors.h>

typedef enum tqi_metric {
#define TQI_METRIC_ID(NAME, name, type, label, label2, help) TQI_M_##NAME,
    TQI_METRIC_FAMILIES(TQI_METRIC_ID)
#undef TQI_METRIC_ID
    TQI_METRICS
} tqi_metric;

/* --- histograms ----------------------------------------------------------- */

#define TQI_HISTOGRAM_BUCKETS 18

/* Durations, counted by the bucket they fall into. */
typedef struct tqi_histogram {
    uint64_t counts[TQI_HISTOGRAM_BUCKETS + 1]; /* the last: longer than all bounds */
    uint64_t count;
    uint64_t sum_ns;
} tqi_histogram;

/* Upper bounds of the buckets in nanoseconds, ascending. */
extern const uint64_t tqi_histogram_bounds[TQI_HISTOGRAM_BUCKETS];

void tqi_histogram_add(tqi_histogram *histogram, uint64_t ns);
/* The q-quantile (0 to 1) of the durations, interpolated within its bucket; 0 if there are none. */
uint64_t tqi_histogram_quantile(const tqi_histogram *histogram, double q);

/* --- sets ----------------------------------------------------------------- */

typedef struct tqi_metric_set tqi_metric_set;

/* NULL: out of memory. */
tqi_metric_set *tqi_metric_set_alloc(void);
void tqi_metric_set_free(tqi_metric_set *set);
/* Adds a value; labels as the family defines them, else NULL; they are copied. If out of memory, the set is marked as
 * broken, and rendering it fails. */
void tqi_metric_add(tqi_metric_set *set, tqi_metric metric, const char *label, const char *label2, double value);
void tqi_metric_add_histogram(tqi_metric_set *set, tqi_metric metric, const char *label, const tqi_histogram *histogram);
/* Appends the whole set as text: every family with its help and type, even those without a value. TQ_OK or TQ_ENOMEM. */
int tqi_metric_render(const tqi_metric_set *set, tqi_buf *out);

#endif
