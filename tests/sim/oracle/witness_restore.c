/*
 * witness_restore.c - restores: the ledger drops what is replaced and takes over the snapshot.
 */
#include "oracle/ledger.h"

#include <stdlib.h>

/* Indexes up to this are kept even if the table has never had as many. */
#define RESTORE_PLACES (UINT64_C(1) << 24)

void (*witness_on_restore)(ledger *l, const tqi_table_restore_state *ask, bool renumbered);

typedef struct restore_run {
    ledger *l;
    const tqi_table_restore_state *ask;
    uint64_t total, lost;
    uint64_t end;      /* of the places that are needed */
    uint32_t next;     /* place of the next sample that gets another index */
    bool keep;         /* all samples keep their indexes */
    ledger_map blocks; /* id of a block that cells are linked to: its place plus 1 */
} restore_run;

/* --- numbers -------------------------------------------------------------------------- */

static bool restore_replaces(const restore_run *run, const ledger_partition *partition)
{
    for (size_t p = 0; run->ask->partial && p < run->ask->n; p++) {
        if (ledger_name(run->ask->partitions[p].name) == partition->name) {
            return true;
        }
    }
    return !run->ask->partial;
}

static bool restore_may_take(const restore_run *run, uint32_t place)
{
    const ledger_sample *sample = place < run->l->places ? &run->l->samples[place] : NULL;

    return sample == NULL || (sample->partition == NULL ? !sample->held : restore_replaces(run, sample->partition));
}

static void restore_number(restore_run *run)
{
    uint64_t most;

    for (size_t p = 0; p < run->ask->n; p++) {
        for (size_t r = 0; r < run->ask->partitions[p].n_rows; r++) {
            run->total += run->ask->partitions[p].rows[r].batch.n;
        }
    }
    most = run->total * 4 > RESTORE_PLACES ? run->total * 4 : RESTORE_PLACES;
    most = most > run->l->places ? most : run->l->places;
    run->keep = true;
    run->next = run->l->places;
    for (size_t p = 0; p < run->ask->n; p++) {
        for (size_t r = 0; r < run->ask->partitions[p].n_rows; r++) {
            const tqi_table_batch *batch = &run->ask->partitions[p].rows[r].batch;
            for (size_t i = 0; i < batch->n; i++) {
                uint32_t place = batch->indexes[i] - run->l->options.first_index;
                run->keep = run->keep && place < most && restore_may_take(run, place);
                run->end = place >= run->end ? (uint64_t)place + 1 : run->end;
            }
        }
    }
}

/* --- what goes -------------------------------------------------------------------------- */

static void restore_drop(restore_run *run, ledger_partition *partition)
{
    ledger_clear_partition(run->l, partition);
    witness_commit *commit = witness_add(run->l, WITNESS_DROP, &run->l->handled);
    commit->partition = partition->name;
    commit->whole = true;
    witness_gone(run->l, commit);
}

static ledger_partition *restore_oldest(const ledger *l)
{
    ledger_partition *oldest = NULL;

    for (uint32_t i = 0; i < l->n_partitions; i++) {
        if (l->partitions[i]->exists && (oldest == NULL || l->partitions[i]->born < oldest->born)) {
            oldest = l->partitions[i];
        }
    }
    return oldest;
}

/* Blocks that cells are linked to again must not die with the cells that are replaced. */
static void restore_hold(restore_run *run, const tqi_table_snap_partition *in)
{
    ledger *l = run->l;
    const ledger_partition *old = ledger_partition_find(l, in->name);

    for (size_t r = 0; r < in->n_rows; r++) {
        for (size_t b = 0; b < in->rows[r].batch.n_blocks; b++) {
            const tqi_table_batch_block *from = &in->rows[r].batch.blocks[b];
            uint32_t found = ledger_block_find(l, from->id);
            ledger_block *block = found != 0 ? &l->blocks[found - 1] : NULL;
            if (ledger_map_get(&run->blocks, from->id) != 0) {
                continue;
            }
            if (!run->ask->relink) {
                sim_check(ledger_block_granted(l, run->ask->session, from) >= 0, "table",
                          "a restore published block %llu, but session %llu may not do that",
                          (unsigned long long)from->id, (unsigned long long)run->ask->session);
                ledger_map_set(&run->blocks, from->id, found);
            } else if (block != NULL && block->state == LEDGER_LIVE && block->partition == old &&
                       block->size == from->size && l->owners[block->owner].name == ledger_name(from->owner) &&
                       l->owners[block->owner].incarnation == from->owner_incarnation) {
                block->live++;
                ledger_map_set(&run->blocks, from->id, found);
            }
        }
    }
}

/* --- what comes --------------------------------------------------------------------------- */

static uint32_t restore_place(restore_run *run, uint32_t saved)
{
    if (run->keep) {
        return saved - run->l->options.first_index;
    }
    run->next += ledger_index(run->l, run->next) == TQ_NO_INDEX;
    return run->next++;
}

/* All new samples get their places before the free ones are queued anew. */
static void restore_places(restore_run *run)
{
    ledger *l = run->l;
    uint32_t used = l->places, n = l->n_free, before = l->samples_capacity;
    uint32_t next = run->next;

    for (uint64_t i = 0; !run->keep && i < run->total; i++) {
        next += ledger_index(l, next) == TQ_NO_INDEX;
        next++;
    }
    run->end = run->keep ? run->end : next;
    l->places = run->end > used ? (uint32_t)run->end : used;
    LEDGER_GROW(l->samples, l->samples_capacity, l->places);
    for (uint32_t i = before; i < l->samples_capacity; i++) {
        l->samples[i].incarnation = l->options.first_incarnation;
    }
    next = run->next;
    for (size_t p = 0; p < run->ask->n; p++) {
        const tqi_table_snap_partition *in = &run->ask->partitions[p];
        ledger_partition *partition = ledger_partition_get(l, in->name);
        ledger_born(l, partition);
        partition->next_ordinal = l->options.first_ordinal + in->next_ordinal;
        for (size_t r = 0; r < in->n_rows; r++) {
            for (size_t i = 0; i < in->rows[r].batch.n; i++) {
                l->samples[restore_place(run, in->rows[r].batch.indexes[i])].partition = partition;
                partition->samples++;
            }
        }
    }
    run->next = next;
    for (; n > 0; n--) {
        uint32_t place = l->free_queue[l->free_first];
        l->free_first = (l->free_first + 1) % l->free_capacity;
        l->n_free--;
        if (l->samples[place].partition == NULL) {
            ledger_place_free(l, place);
        }
    }
    for (uint32_t place = used; place < l->places; place++) {
        if (l->samples[place].partition == NULL && ledger_index(l, place) != TQ_NO_INDEX) {
            ledger_place_free(l, place);
        }
    }
}

static void restore_field(restore_run *run, ledger_partition *partition, const tqi_table_batch *batch, size_t f)
{
    ledger *l = run->l;
    ledger_walk walk = {.batch = batch, .field = &batch->fields[f]};
    uint32_t field = ledger_field_get(partition, batch->fields[f].name);

    for (size_t i = 0; i < batch->n; i++) {
        ledger_cell cell;
        ledger_walk_next(&walk, &cell);
        if (cell.state == LEDGER_STORED) {
            uint32_t found = ledger_map_get(&run->blocks, batch->blocks[cell.block].id);
            cell.block = found - 1;
            cell.state = found != 0 ? LEDGER_STORED : LEDGER_LOST;
        } else if (cell.state == LEDGER_OPAQUE && !run->keep) {
            cell.state = LEDGER_LOST;
        }
        if (cell.state == LEDGER_LOST) {
            cell = (ledger_cell){.state = LEDGER_LOST};
            run->lost++;
        }
        ledger_cell_set(l, &l->samples[l->scratch[i]], field, &cell);
    }
}

static void restore_rows(restore_run *run, ledger_partition *partition, const tqi_table_snap_partition *in,
                         const tqi_table_snap_rows *rows)
{
    ledger *l = run->l;
    const tqi_table_batch *batch = &rows->batch;

    LEDGER_GROW(l->scratch, l->scratch_capacity, batch->n);
    for (size_t i = 0; i < batch->n; i++) {
        ledger_sample *sample = &l->samples[l->scratch[i] = restore_place(run, batch->indexes[i])];
        const char *key = batch->keys != NULL ? ledger_name(batch->keys[i]) : NULL;
        sample->ordinal = l->options.first_ordinal + batch->ordinals[i];
        sample->group = batch->groups != NULL ? ledger_name(batch->groups[i]) : NULL;
        if (key != NULL) {
            ledger_key_add(l, sample, key);
        }
        for (size_t t = 0; t < in->n_tasks; t++) {
            if (rows->n_consumed > 0 && rows->consumed[t * batch->n + i] != 0) {
                ledger_consume(ledger_task_get(partition, in->tasks[t].name), l->scratch[i], true);
            }
        }
    }
    for (size_t t = 0; t < batch->n_tags; t++) {
        size_t at = 0;
        for (size_t i = 0; i < batch->n; i++) {
            if (batch->tags[t].sizes[i] > 0) {
                ledger_tag_set(&l->samples[l->scratch[i]], batch->tags[t].name, batch->tags[t].values + at,
                               batch->tags[t].sizes[i]);
                at += batch->tags[t].sizes[i];
            }
        }
    }
    for (size_t f = 0; f < batch->n_fields; f++) {
        restore_field(run, partition, batch, f);
    }
}

/* Where a sample of the snapshot is now. */
static witness_sample restore_named(const restore_run *run, const tqi_table_snap_partition *in, uint32_t first,
                                    uint32_t saved)
{
    const ledger *l = run->l;
    uint32_t place = first;

    if (run->keep) {
        return ledger_named(l, &l->samples[saved - l->options.first_index]);
    }
    for (size_t r = 0; r < in->n_rows; r++) {
        for (size_t i = 0; i < in->rows[r].batch.n; i++, place++) {
            place += ledger_index(l, place) == TQ_NO_INDEX;
            if (in->rows[r].batch.indexes[i] == saved) {
                return ledger_named(l, &l->samples[place]);
            }
        }
    }
    sim_found("table", "a restored pick has sample %u, which is not in the snapshot", saved);
}

static void restore_tasks(restore_run *run, ledger_partition *partition, const tqi_table_snap_partition *in,
                          uint32_t first)
{
    for (size_t t = 0; t < in->n_tasks; t++) {
        ledger_task *task = ledger_task_get(partition, in->tasks[t].name);
        for (size_t k = 0; k < in->tasks[t].n_cached_picks; k++) {
            const tqi_table_snap_cached_pick *pick = &in->tasks[t].cached_picks[k];
            witness_sample *samples = sim_alloc(pick->n * sizeof(*samples) + 1);
            for (size_t i = 0; i < pick->n; i++) {
                samples[i] = restore_named(run, in, first, pick->indexes[i]);
            }
            ledger_pick_set(task, pick->name, samples, (uint32_t)pick->n);
            sim_free(samples);
        }
    }
}

static void restore_blocks(restore_run *run, const tqi_table_snap_partition *in, ledger_partition *partition, bool begin)
{
    ledger *l = run->l;

    for (size_t r = 0; r < in->n_rows; r++) {
        for (size_t b = 0; b < in->rows[r].batch.n_blocks; b++) {
            const tqi_table_batch_block *from = &in->rows[r].batch.blocks[b];
            uint32_t found = ledger_map_get(&run->blocks, from->id);
            if (found == 0) {
                continue;
            }
            if (!begin) {
                ledger_block_unref(l, found - 1);
                ledger_map_drop(&run->blocks, from->id);
            } else if (l->blocks[found - 1].state == LEDGER_GRANTED) {
                ledger_block_live(l, found - 1, from, partition);
            }
        }
    }
}

static void restore_partition(restore_run *run, const tqi_table_snap_partition *in)
{
    ledger *l = run->l;
    ledger_partition *partition = ledger_partition_get(l, in->name);
    uint32_t first = run->next;

    restore_blocks(run, in, partition, true);
    for (size_t t = 0; t < in->n_tasks; t++) {
        ledger_task_get(partition, in->tasks[t].name);
    }
    for (size_t r = 0; r < in->n_rows; r++) {
        restore_rows(run, partition, in, &in->rows[r]);
    }
    restore_tasks(run, partition, in, first);
    restore_blocks(run, in, partition, false);
    uint32_t n = ledger_list(l, partition);
    witness_sample *samples = ledger_keep(n * sizeof(*samples));
    for (uint32_t i = 0; i < n; i++) {
        samples[i] = ledger_named(l, &l->samples[l->scratch[i]]);
    }
    witness_commit *commit = witness_add(l, WITNESS_RESTORE, &l->handled);
    commit->partition = partition->name;
    commit->whole = true;
    commit->samples = samples;
    commit->n = n;
}

static void restore_apply(restore_run *run, const tqi_table_restored *out)
{
    ledger *l = run->l;
    ledger_partition *partition;

    restore_number(run);
    for (size_t p = 0; p < run->ask->n; p++) {
        restore_hold(run, &run->ask->partitions[p]);
    }
    for (size_t p = 0; p < run->ask->n; p++) {
        partition = ledger_partition_find(l, run->ask->partitions[p].name);
        if (partition != NULL) {
            restore_drop(run, partition);
        }
    }
    while (!run->ask->partial && (partition = restore_oldest(l)) != NULL) {
        restore_drop(run, partition);
    }
    restore_places(run);
    for (size_t p = 0; p < run->ask->n; p++) {
        restore_partition(run, &run->ask->partitions[p]);
    }
    sim_check(out->samples == run->total && out->lost == run->lost && out->renumbered == !run->keep, "table",
              "a restore of %llu samples with %llu lost cells says %llu and %llu", (unsigned long long)run->total,
              (unsigned long long)run->lost, (unsigned long long)out->samples, (unsigned long long)out->lost);
    if (witness_on_restore != NULL) {
        witness_on_restore(l, run->ask, !run->keep);
    }
}

WITNESS_WRAP(int, tqi_table_restore, tqi_table *table, const tqi_table_restore_state *restore, tqi_table_restored *out,
             tq_error *err)
{
    ledger *l = witness_enter(table);
    int rc = __real_tqi_table_restore(table, restore, out, err);

    if (l != NULL) {
        restore_run run = {.l = l, .ask = restore};
        if (rc == TQ_OK) {
            restore_apply(&run, out);
        }
        ledger_map_fini(&run.blocks);
        witness_leave(l);
        witness_checked(l, true);
    }
    return rc;
}
