/*
 * table.c - the table as a whole: creation, destruction and counts.
 */
#include "table/internal.h"

int tqi_table_alloc(const tqi_table_options *options, tqi_table **out, tq_error *err)
{
    tqi_table *meta;

    if (options == NULL || options->epoch == 0) {
        return tqi_error_set(err, TQ_EINVAL, "the epoch of a table may not be 0");
    }
    meta = calloc(1, sizeof(*meta));
    if (meta == NULL) {
        return tqi_error_nomem(err, "table");
    }
    meta->epoch = options->epoch;
    meta->first_index = options->first_index;
    meta->strict_schema = options->strict_schema;
    meta->first_incarnation = options->first_incarnation != 0 ? options->first_incarnation : 1;
    meta->first_ordinal = options->first_ordinal;
    meta->next_block = options->first_block != 0 ? options->first_block : 1;
    meta->next_claim = options->first_claim != 0 ? options->first_claim : 1;
    *out = meta;
    return TQ_OK;
}

void tqi_table_free(tqi_table *meta)
{
    tqi_table_claim *claim, *next_claim;
    tqi_table_partition *partition, *next_partition;
    tqi_table_owner *owner;
    tqi_table_session *session, *next_session;

    if (meta == NULL) {
        return;
    }
    HASH_ITER (hh, meta->claims, claim, next_claim) {
        tqi_t_claim_free(meta, claim);
    }
    HASH_ITER (hh, meta->partitions, partition, next_partition) {
        tqi_t_partition_destroy(partition);
    }
    while ((owner = meta->owners) != NULL) {
        tqi_table_owner_lost(meta, owner, NULL, NULL);
    }
    HASH_ITER (hh, meta->sessions, session, next_session) {
        HASH_DEL(meta->sessions, session);
        free(session->ranges);
        free(session);
    }
    tqi_t_clearings_fini(meta);
    tqi_t_samples_fini(meta);
    tqi_t_shapes_fini(meta);
    tqi_t_blocks_fini(meta);
    tqi_t_dead_fini(meta);
    free(meta);
}

uint64_t tqi_table_epoch(const tqi_table *meta)
{
    return meta->epoch;
}

tqi_table_view *tqi_table_next_touched(tqi_table *meta)
{
    tqi_table_view *view = meta->touched;

    if (view != NULL) {
        DL_DELETE2(meta->touched, view, touched_prev, touched_next);
        view->touched = false;
    }
    return view;
}

void tqi_table_count(const tqi_table *meta, tqi_table_counts *out)
{
    const tqi_table_partition *partition;
    const tqi_table_clearing *clearing;

    *out = (tqi_table_counts){
        .samples = meta->n_samples,
        .blocks = meta->n_blocks,
        .ranges = meta->n_ranges,
        .claims = HASH_COUNT(meta->claims),
        .shapes = HASH_COUNT(meta->shapes) + HASH_COUNT(meta->typed),
        .dead = meta->n_dead,
        .late = meta->n_late,
    };
    DL_FOREACH (meta->clearings, clearing) {
        out->held += clearing->n;
    }
    for (partition = meta->partitions; partition != NULL; partition = partition->hh.next) {
        out->partitions += partition->exists;
        out->keys += HASH_COUNT(partition->keys);
        out->views += HASH_COUNT(partition->views);
        out->live_cells += partition->live_cells;
    }
}

uint32_t tqi_table_free_indexes(const tqi_table *meta)
{
    return meta->n_free;
}
