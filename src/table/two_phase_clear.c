/*
 * two_phase_clear.c - two-phase clears, for storage whose data is found by index: the samples are gone when a clear
 * begins, but their indexes are not reused before it ends, when the data is gone too.
 */
#include "table/internal.h"

int tqi_table_clearing_begin(tqi_table *meta, const tqi_table_clear *clear, tqi_table_clearing **out, tq_error *err)
{
    const tqi_table_partition *partition = tqi_table_find_partition(meta, clear->partition);
    size_t n = clear->all ? (partition != NULL ? partition->samples : 0) : clear->n;
    tqi_table_clearing *clearing = calloc(1, sizeof(*clearing) + n * sizeof(clearing->indexes[0]));
    uint32_t cleared;
    int rc;

    if (clearing == NULL) {
        return tqi_error_nomem(err, "clear");
    }
    meta->clearing = clearing;
    if (clear->all) {
        rc = tqi_table_clear_partition(meta, clear->partition, &cleared, err);
    } else {
        rc = tqi_table_clear_indexes(meta, clear->partition, clear->indexes, clear->incarnations, n, &cleared, err);
    }
    meta->clearing = NULL;
    if (rc != TQ_OK) {
        free(clearing);
        return rc;
    }
    DL_APPEND(meta->clearings, clearing);
    *out = clearing;
    return TQ_OK;
}

void tqi_table_clearing_end(tqi_table *meta, tqi_table_clearing *clearing)
{
    for (uint32_t i = 0; i < clearing->n; i++) {
        uint32_t place = clearing->indexes[i] - meta->first_index;
        tqi_t_place(meta, place)->ordinal = 0;
        tqi_t_place_free(meta, place);
    }
    DL_DELETE(meta->clearings, clearing);
    free(clearing);
}

uint32_t tqi_table_clearing_samples(const tqi_table_clearing *clearing)
{
    return clearing->n;
}

void tqi_t_clearings_fini(tqi_table *meta)
{
    tqi_table_clearing *clearing;

    while ((clearing = meta->clearings) != NULL) {
        DL_DELETE(meta->clearings, clearing);
        free(clearing);
    }
}
