/*
 * metrics.c - histograms, sets of values, and their text (see metrics.h).
 */
#include "metrics/metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum metric_type {
    METRIC_GAUGE,
    METRIC_COUNTER,
    METRIC_HISTOGRAM
} metric_type;

typedef struct metric_family {
    const char *name;
    metric_type type;
    const char *label;
    const char *label2;
    const char *help;
} metric_family;

static const metric_family metric_families[] = {
#define METRIC_ROW(NAME, name, type, label, label2, help) {name, METRIC_##type, label, label2, help},
    TQI_METRIC_FAMILIES(METRIC_ROW)
#undef METRIC_ROW
};

#define METRIC_NO_LABEL SIZE_MAX
/* Below this a double holds every whole number. */
#define METRIC_EXACT 9007199254740992.0

typedef struct metric_value {
    tqi_metric metric;
    size_t label; /* offset in the names */
    size_t label2;
    double value;
    size_t histogram; /* of a histogram: its place */
} metric_value;

struct tqi_metric_set {
    metric_value *values;
    size_t n;
    size_t capacity;
    tqi_histogram *histograms;
    size_t n_histograms;
    size_t histograms_capacity;
    tqi_buf names;
    bool broken;
};

/* --- histograms ----------------------------------------------------------- */

#define US 1000u
#define MS 1000000u
#define S  UINT64_C(1000000000)
const uint64_t tqi_histogram_bounds[TQI_HISTOGRAM_BUCKETS] = {
    10 * US,  50 * US,  100 * US, 500 * US, 1 * MS, 5 * MS, 10 * MS, 25 * MS, 50 * MS,
    100 * MS, 250 * MS, 500 * MS, 1 * S,    5 * S,  10 * S, 30 * S,  60 * S,  300 * S,
};

void tqi_histogram_add(tqi_histogram *histogram, uint64_t ns)
{
    size_t i = 0;

    while (i < TQI_HISTOGRAM_BUCKETS && ns > tqi_histogram_bounds[i]) {
        i++;
    }
    histogram->counts[i]++;
    histogram->count++;
    histogram->sum_ns += ns;
}

uint64_t tqi_histogram_quantile(const tqi_histogram *histogram, double q)
{
    double rank = q * (double)histogram->count;
    uint64_t below = 0;
    uint64_t low = 0;

    for (size_t i = 0; i < TQI_HISTOGRAM_BUCKETS && histogram->count > 0; i++) {
        uint64_t here = histogram->counts[i];
        if (here > 0 && (double)(below + here) >= rank) {
            double share = (rank - (double)below) / (double)here;
            return low + (uint64_t)(share * (double)(tqi_histogram_bounds[i] - low));
        }
        below += here;
        low = tqi_histogram_bounds[i];
    }
    return histogram->count > 0 ? low : 0; /* in the open bucket: its lower bound */
}

/* --- filling -------------------------------------------------------------- */

tqi_metric_set *tqi_metric_set_alloc(void)
{
    return calloc(1, sizeof(tqi_metric_set));
}

void tqi_metric_set_free(tqi_metric_set *set)
{
    if (set != NULL) {
        free(set->values);
        free(set->histograms);
        tqi_buf_fini(&set->names);
        free(set);
    }
}

static size_t metric_name(tqi_metric_set *set, const char *label)
{
    size_t at = set->names.size;

    if (label == NULL) {
        return METRIC_NO_LABEL;
    }
    set->broken |= tqi_buf_append(&set->names, label, strlen(label) + 1) != TQ_OK;
    return at;
}

static metric_value *metric_append(tqi_metric_set *set, tqi_metric metric, const char *label, const char *label2)
{
    if (tqi_grow(&set->values, &set->capacity, set->n + 1, sizeof(*set->values)) != TQ_OK) {
        set->broken = true;
        return NULL;
    }
    metric_value *value = &set->values[set->n++];
    *value = (metric_value){.metric = metric, .label = metric_name(set, label), .label2 = metric_name(set, label2)};
    return value;
}

void tqi_metric_add(tqi_metric_set *set, tqi_metric metric, const char *label, const char *label2, double value)
{
    metric_value *added = metric_append(set, metric, label, label2);

    if (added != NULL) {
        added->value = value;
    }
}

void tqi_metric_add_histogram(tqi_metric_set *set, tqi_metric metric, const char *label, const tqi_histogram *histogram)
{
    if (tqi_grow(&set->histograms, &set->histograms_capacity, set->n_histograms + 1, sizeof(*set->histograms)) != TQ_OK) {
        set->broken = true;
        return;
    }
    metric_value *added = metric_append(set, metric, label, NULL);
    if (added != NULL) {
        added->histogram = set->n_histograms;
        set->histograms[set->n_histograms++] = *histogram;
    }
}

/* --- text ----------------------------------------------------------------- */

/* Length of the UTF-8 sequence at `text`; 0 if invalid. */
static size_t metric_utf8(const unsigned char *text)
{
    size_t size = *text < 0x80                    ? 1
                  : *text >= 0xC2 && *text < 0xE0 ? 2
                  : *text >= 0xE0 && *text < 0xF0 ? 3
                  : *text >= 0xF0 && *text < 0xF5 ? 4
                                                  : 0;

    for (size_t i = 1; i < size; i++) {
        if ((text[i] & 0xC0) != 0x80) {
            return 0;
        }
    }
    if (size > 2) {
        /* Too long a form, half of a surrogate pair, or beyond the last character. */
        bool wrong = (*text == 0xE0 && text[1] < 0xA0) || (*text == 0xED && text[1] >= 0xA0) ||
                     (*text == 0xF0 && text[1] < 0x90) || (*text == 0xF4 && text[1] >= 0x90);
        return wrong ? 0 : size;
    }
    return size;
}

/* A label's value, quoted. A single name that is not UTF-8 would make a scraper refuse the whole text. */
static int metric_quote(tqi_buf *out, const char *text)
{
    const unsigned char *at = (const unsigned char *)text;
    int rc = tqi_buf_append(out, "\"", 1);

    while (*at && rc == TQ_OK) {
        size_t size = metric_utf8(at);
        if (*at == '\\' || *at == '"') {
            char pair[2] = {'\\', (char)*at};
            rc = tqi_buf_append(out, pair, 2);
        } else if (*at == '\n') {
            rc = tqi_buf_append(out, "\\n", 2);
        } else {
            rc = size ? tqi_buf_append(out, at, size) : tqi_buf_append(out, "?", 1);
        }
        at += size ? size : 1;
    }
    return rc ? rc : tqi_buf_append(out, "\"", 1);
}

/* "{label="value",le="0.5"}"; le NULL: none. */
static int metric_labels(const tqi_metric_set *set, const metric_value *value, const char *le, tqi_buf *out)
{
    const metric_family *family = &metric_families[value->metric];
    const char *names[] = {family->label, family->label2};
    const size_t values[] = {value->label, value->label2};
    const char *open = "{";
    int rc = TQ_OK;

    for (int i = 0; i < 2 && rc == TQ_OK; i++) {
        if (names[i] != NULL && values[i] != METRIC_NO_LABEL) {
            rc = tqi_buf_printf(out, "%s%s=", open, names[i]);
            rc = rc ? rc : metric_quote(out, (const char *)set->names.data + values[i]);
            open = ",";
        }
    }
    if (le != NULL && rc == TQ_OK) {
        rc = tqi_buf_printf(out, "%sle=\"%s\"", open, le);
        open = ",";
    }
    return rc || *open == '{' ? rc : tqi_buf_append(out, "}", 1);
}

static int metric_number(tqi_buf *out, double value)
{
    bool whole = value > -METRIC_EXACT && value < METRIC_EXACT && (double)(int64_t)value == value;

    return tqi_buf_printf(out, whole ? " %.0f\n" : " %.9g\n", value);
}

static int metric_line(const tqi_metric_set *set, const metric_value *value, const char *suffix, const char *le,
                       double number, tqi_buf *out)
{
    int rc = tqi_buf_printf(out, "%s%s", metric_families[value->metric].name, suffix);

    rc = rc ? rc : metric_labels(set, value, le, out);
    return rc ? rc : metric_number(out, number);
}

static int metric_histogram(const tqi_metric_set *set, const metric_value *value, tqi_buf *out)
{
    const tqi_histogram *histogram = &set->histograms[value->histogram];
    uint64_t below = 0;
    int rc = TQ_OK;

    for (size_t i = 0; i < TQI_HISTOGRAM_BUCKETS && rc == TQ_OK; i++) {
        char le[32];
        below += histogram->counts[i];
        snprintf(le, sizeof(le), "%g", (double)tqi_histogram_bounds[i] / (double)S);
        rc = metric_line(set, value, "_bucket", le, (double)below, out);
    }
    rc = rc ? rc : metric_line(set, value, "_bucket", "+Inf", (double)histogram->count, out);
    rc = rc ? rc : metric_line(set, value, "_sum", NULL, (double)histogram->sum_ns / (double)S, out);
    return rc ? rc : metric_line(set, value, "_count", NULL, (double)histogram->count, out);
}

int tqi_metric_render(const tqi_metric_set *set, tqi_buf *out)
{
    static const char *const types[] = {"gauge", "counter", "histogram"};
    int rc = set->broken ? TQ_ENOMEM : TQ_OK;

    for (int f = 0; f < TQI_METRICS && rc == TQ_OK; f++) {
        const metric_family *family = &metric_families[f];
        rc = tqi_buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", family->name, family->help, family->name,
                            types[family->type]);
        for (size_t i = 0; i < set->n && rc == TQ_OK; i++) {
            const metric_value *value = &set->values[i];
            if ((int)value->metric != f) {
                continue;
            }
            rc = family->type == METRIC_HISTOGRAM ? metric_histogram(set, value, out)
                                                  : metric_line(set, value, "", NULL, value->value, out);
        }
    }
    return rc;
}
