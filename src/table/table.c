/*
 * table.c - the table as a whole: creation, destruction, counts, and the end of a session.
 */
#include "table/table.h"

#include <utlist.h>

#include "base/error.h"
#include "table/block.h"
#include "table/claim.h"
#include "table/field.h"
#include "table/sample.h"

int tqi_table_alloc(const tqi_table_options *options, tqi_table **out, tq_error *err)
{
    tqi_table *table;

    if (options == NULL || options->epoch == 0) {
        return tqi_error_set(err, TQ_EINVAL, "the epoch of a table may not be 0");
    }
    table = calloc(1, sizeof(*table));
    if (table == NULL) {
        return tqi_error_nomem(err, "table");
    }
    table->epoch = options->epoch;
    table->first_index = options->first_index;
    table->strict_schema = options->strict_schema;
    table->first_incarnation = options->first_incarnation != 0 ? options->first_incarnation : 1;
    table->first_ordinal = options->first_ordinal;
    table->next_block = options->first_block != 0 ? options->first_block : 1;
    table->next_claim = options->first_claim != 0 ? options->first_claim : 1;
    *out = table;
    return TQ_OK;
}

void tqi_table_free(tqi_table *table)
{
    tqi_table_claim *claim, *next_claim;
    tqi_table_partition *partition, *next_partition;
    tqi_table_owner *owner;
    tqi_table_session *session, *next_session;

    if (table == NULL) {
        return;
    }
    HASH_ITER (hh, table->claims, claim, next_claim) {
        tqi_t_claim_free(table, claim);
    }
    HASH_ITER (hh, table->partitions, partition, next_partition) {
        tqi_t_partition_destroy(partition);
    }
    while ((owner = table->owners) != NULL) {
        tqi_table_owner_lost(table, owner, NULL, NULL);
    }
    HASH_ITER (hh, table->sessions, session, next_session) {
        HASH_DEL(table->sessions, session);
        free(session->ranges);
        free(session);
    }
    tqi_t_clearings_fini(table);
    tqi_t_samples_fini(table);
    tqi_t_shapes_fini(table);
    tqi_t_blocks_fini(table);
    tqi_t_dead_fini(table);
    free(table);
}

uint64_t tqi_table_epoch(const tqi_table *table)
{
    return table->epoch;
}

tqi_table_view *tqi_table_next_touched(tqi_table *table)
{
    tqi_table_view *view = table->touched;

    if (view != NULL) {
        DL_DELETE2(table->touched, view, touched_prev, touched_next);
        view->touched = false;
    }
    return view;
}

void tqi_table_count(const tqi_table *table, tqi_table_counts *out)
{
    const tqi_table_partition *partition;
    const tqi_table_clearing *clearing;

    *out = (tqi_table_counts){
        .samples = table->n_samples,
        .blocks = table->n_blocks,
        .ranges = table->n_ranges,
        .claims = HASH_COUNT(table->claims),
        .shapes = HASH_COUNT(table->shapes) + HASH_COUNT(table->typed),
        .dead = table->n_dead,
        .late = table->n_late,
    };
    DL_FOREACH (table->clearings, clearing) {
        out->held += clearing->n;
    }
    for (partition = table->partitions; partition != NULL; partition = partition->hh.next) {
        out->partitions += partition->exists;
        out->keys += HASH_COUNT(partition->keys);
        out->views += HASH_COUNT(partition->views);
        out->live_cells += partition->live_cells;
    }
}

uint32_t tqi_table_free_indexes(const tqi_table *table)
{
    return table->n_free;
}

void tqi_table_session_end(tqi_table *table, uint64_t session_id, bool dead)
{
    tqi_table_session *session = tqi_t_session_find(table, session_id);

    if (session == NULL) {
        return;
    }
    table->operation++;
    while (session->claims != NULL) {
        tqi_table_claim_release(table, session_id, session->claims->id);
    }
    tqi_t_session_free(table, session, dead);
}
