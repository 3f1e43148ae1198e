/*
 * restore_commit.c - committing a restore: drops what is replaced and puts the new partitions in its place. Nothing
 * here can fail (but see records.h about bitmaps).
 */
#include "table/block.h"
#include "table/claim.h"
#include "table/restore.h"
#include "table/sample.h"

/* Live blocks must not die with the cells that are replaced. */
static void commit_ref_blocks(tqi_table *table, const tqi_table_restore_part *part)
{
    for (size_t i = 0; i < part->n_blocks; i++) {
        if (part->blocks[i].handle != 0) {
            tqi_t_block(table, part->blocks[i].handle)->live++;
        }
    }
}

/* The old partition ends; its held views move to the new one. */
static void commit_replace(const tqi_table_restoring *run, const tqi_table_restore_part *part)
{
    for (size_t i = 0; i < part->n_views; i++) {
        tqi_table_view *from = part->views[i].from;
        tqi_table_view *to = part->views[i].to;
        to->refs = from->refs;
        run->ask->moved(from, to, run->ask->arg);
        from->refs = 0;
    }
    if (part->old != NULL) {
        tqi_t_partition_destroy(part->old);
    }
}

/* --- samples -------------------------------------------------------------- */

/* Removes the new samples' indexes from the queue of free ones, whose order stays; indexes between those ever used and
 * the new ones are added to it. */
static void commit_places(const tqi_table_restoring *run)
{
    tqi_table *table = run->table;
    uint32_t used = table->places;
    uint32_t place = table->free_head;
    uint32_t n = table->n_free;

    table->places = run->end > used ? (uint32_t)run->end : used;
    for (size_t p = 0; p < run->ask->n; p++) {
        const tqi_table_restore_part *part = &run->parts[p];
        for (size_t i = 0; i < part->n; i++) {
            tqi_t_place(table, part->indexes[i] - table->first_index)->partition = part->made;
        }
    }
    table->n_free = 0;
    while (n-- > 0) {
        uint32_t next = tqi_t_place(table, place)->row;
        if (tqi_t_place(table, place)->partition == NULL) {
            tqi_t_place_free(table, place);
        }
        place = next;
    }
    for (place = used; place < table->places; place++) {
        if (tqi_t_place(table, place)->partition == NULL && table->first_index + place != TQ_NO_INDEX) {
            tqi_t_place_free(table, place);
        }
    }
}

static void commit_samples(const tqi_table_restoring *run, tqi_table_restore_part *part)
{
    tqi_table *table = run->table;
    tqi_table_partition *made = part->made;
    tqi_table_task *task;
    tqi_table_cached_pick *pick;

    for (size_t i = 0; i < part->n; i++) {
        tqi_table_sample *sample = tqi_t_place(table, part->indexes[i] - table->first_index);
        sample->extras = part->extras[i];
        sample->ordinal = part->ordinals[i];
        sample->row = (uint32_t)i;
    }
    table->n_samples += part->n;
    roaring_bitmap_free(made->members);
    made->members = part->members;
    part->members = NULL;
    for (task = made->tasks; task != NULL; task = task->hh.next) {
        for (pick = task->cached_picks; pick != NULL; pick = pick->hh.next) {
            for (uint32_t i = 0; i < pick->n; i++) {
                pick->incarnations[i] = tqi_t_sample(table, pick->indexes[i])->incarnation;
            }
        }
    }
}

/* --- blocks and cells ----------------------------------------------------- */

static void commit_blocks(tqi_table *table, tqi_table_restore_part *part)
{
    for (size_t i = 0; i < part->n_blocks; i++) {
        tqi_table_restore_block *block = &part->blocks[i];
        if (block->range != NULL) {
            block->handle = tqi_t_block_add(table, block->in, block->range->owner, part->made);
            tqi_t_range_use(table, block->range);
        } else if (block->handle != 0) {
            tqi_t_block(table, block->handle)->partition = part->made;
        }
        if (block->handle != 0) {
            tqi_table_block *live = tqi_t_block(table, block->handle);
            live->live += block->cells;
            live->live_bytes += block->bytes;
            live->row_first = block->row_first;
            live->row_last = block->row_last;
            tqi_t_sparse_check(table, live, block->handle);
            tqi_t_block_unref(table, block->handle);
        }
    }
}

static void commit_cells(const tqi_table_restore_part *part)
{
    tqi_table_field *field;

    for (field = part->made->known; field != NULL; field = field->next) {
        for (size_t row = 0; row < part->n; row++) {
            tqi_table_cell *cell = &field->cells[row];
            if (tqi_t_produced(cell->block) && cell->block != TQI_BLOCK_OPAQUE) {
                cell->block = part->blocks[cell->block - 1].handle;
            }
        }
    }
}

void tqi_t_restore_commit(tqi_table_restoring *run)
{
    tqi_table *table = run->table;
    uint32_t cleared;

    for (size_t p = 0; p < run->ask->n; p++) {
        commit_ref_blocks(table, &run->parts[p]);
    }
    for (size_t p = 0; p < run->ask->n; p++) {
        commit_replace(run, &run->parts[p]);
    }
    while (!run->ask->partial && table->existing != NULL) {
        (void)tqi_table_clear_partition(table, table->existing->name, &cleared, NULL);
    }
    for (size_t p = 0; p < run->ask->n; p++) {
        tqi_t_partition_born(run->parts[p].made);
        run->parts[p].made->loaded_us = run->ask->now_us;
        run->parts[p].made->next_ordinal = table->first_ordinal + run->parts[p].in->next_ordinal;
    }
    if (!run->ask->partial) {
        table->loaded_us = run->ask->now_us;
    }
    commit_places(run);
    for (size_t p = 0; p < run->ask->n; p++) {
        commit_samples(run, &run->parts[p]);
        commit_blocks(table, &run->parts[p]);
        commit_cells(&run->parts[p]);
        tqi_t_views_fill(run->parts[p].made);
    }
}
