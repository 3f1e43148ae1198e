/*
 * two_phase_clear.c - two-phase clears, for storage whose data is found by index: the samples are gone when a clear
 * begins, but their indexes are not reused before it ends, when the data is gone too.
 */
#include <utlist.h>

#include "base/error.h"
#include "table/sample.h"

int tqi_table_clearing_begin(tqi_table *table, const tqi_table_clear *clear, tqi_table_clearing **out, tq_error *err)
{
    const tqi_table_partition *partition = tqi_table_find_partition(table, clear->partition);
    size_t n = clear->all ? (partition != NULL ? partition->samples : 0) : clear->n;
    tqi_table_clearing *clearing = calloc(1, sizeof(*clearing) + n * sizeof(clearing->indexes[0]));
    uint32_t cleared;
    int rc;

    if (clearing == NULL) {
        return tqi_error_nomem(err, "clear");
    }
    table->clearing = clearing;
    if (clear->all) {
        rc = tqi_table_clear_partition(table, clear->partition, &cleared, err);
    } else {
        rc = tqi_table_clear_indexes(table, clear->partition, clear->indexes, clear->incarnations, n, &cleared, err);
    }
    table->clearing = NULL;
    if (rc != TQ_OK) {
        free(clearing);
        return rc;
    }
    DL_APPEND(table->clearings, clearing);
    *out = clearing;
    return TQ_OK;
}

void tqi_table_clearing_end(tqi_table *table, tqi_table_clearing *clearing)
{
    for (uint32_t i = 0; i < clearing->n; i++) {
        uint32_t place = clearing->indexes[i] - table->first_index;
        tqi_t_place(table, place)->ordinal = 0;
        tqi_t_place_free(table, place);
    }
    DL_DELETE(table->clearings, clearing);
    free(clearing);
}

uint32_t tqi_table_clearing_samples(const tqi_table_clearing *clearing)
{
    return clearing->n;
}

void tqi_t_clearings_fini(tqi_table *table)
{
    tqi_table_clearing *clearing;

    while ((clearing = table->clearings) != NULL) {
        DL_DELETE(table->clearings, clearing);
        free(clearing);
    }
}
