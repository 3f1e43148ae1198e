/*
 * ledger_compare.c - compares the whole table with its ledger, from the table's own records: no call of the table could
 * be trusted to change nothing, and none of them may allocate in the process that is observed.
 */
#include "oracle/ledger.h"

#include <utlist.h>

#include "base/marks.h"
#include "base/type.h"
#include "table/block.h"
#include "table/claim.h"
#include "table/field.h"
#include "table/sample.h"

#define COMPARE(condition, ...) sim_check((condition), "table", "compared: " __VA_ARGS__)

/* --- cells ------------------------------------------------------------------------ */

static void compare_stored(const ledger *l, const tqi_table_block *block, const ledger_cell *cell, const char *field)
{
    COMPARE(block->id == l->blocks[cell->block].id, "field '%s' has a cell in block %llu, not in %llu", field,
            (unsigned long long)block->id, (unsigned long long)l->blocks[cell->block].id);
}

static void compare_cell(const ledger *l, const tqi_table_field *field, uint32_t row, const ledger_cell *cell)
{
    tqi_table_cell there = tqi_t_cell(field, row);
    uint64_t room;
    uint32_t ndim;

    if (!tqi_t_produced(there.block)) {
        COMPARE(cell->state == (there.block == TQI_BLOCK_LOST ? LEDGER_LOST : LEDGER_NONE),
                "field '%s' of partition '%s', row %u: block %x, but the ledger has state %d", field->name,
                field->partition->name, row, there.block, (int)cell->state);
        return;
    }
    const uint64_t *dims = tqi_t_shape_dims(field->partition->table, there.shape, &room, &ndim);
    COMPARE(cell->state == (there.block == TQI_BLOCK_OPAQUE ? LEDGER_OPAQUE : LEDGER_STORED) &&
                ndim == cell->shape->ndim && memcmp(dims, cell->shape->dims, ndim * sizeof(*dims)) == 0 &&
                (!ledger_cell_filled(cell) || tqi_t_cell_type(field, &there) == cell->type),
            "field '%s' of partition '%s', row %u: another state, shape or type", field->name, field->partition->name,
            row);
    if (there.block == TQI_BLOCK_OPAQUE) {
        const tqi_table_opaque *opaque = (const tqi_table_opaque *)(uintptr_t)there.offset;
        COMPARE(opaque->size == cell->offset && ledger_hash(opaque->data, opaque->size) == cell->opaque,
                "field '%s' of partition '%s': another note", field->name, field->partition->name);
        return;
    }
    compare_stored(l, tqi_t_block(field->partition->table, there.block), cell, field->name);
    COMPARE(there.offset == cell->offset, "field '%s': offset %llu, not %llu", field->name,
            (unsigned long long)there.offset, (unsigned long long)cell->offset);
}

static void compare_fields(const ledger *l, const tqi_table_partition *there, const ledger_partition *partition)
{
    const tqi_table_field *field;
    uint32_t known = 0, n = 0;

    for (uint32_t f = 0; f < partition->n_fields; f++) {
        known += partition->fields[f].produced + partition->fields[f].lost > 0;
    }
    DL_FOREACH (there->known, field) {
        int64_t f = ledger_field_find(partition, field->name);
        COMPARE(f >= 0, "partition '%s' has a field '%s', which no sample has", there->name, field->name);
        COMPARE(field->produced == partition->fields[f].produced && field->lost == partition->fields[f].lost,
                "field '%s' of partition '%s': %u cells and %u lost ones, not %u and %u", field->name, there->name,
                field->produced, field->lost, partition->fields[f].produced, partition->fields[f].lost);
        for (uint32_t i = 0; i < partition->samples; i++) {
            const ledger_sample *sample = &l->samples[l->scratch[i]];
            uint32_t row = tqi_t_sample(l->table, ledger_index(l, l->scratch[i]))->row;
            compare_cell(l, field, row, ledger_cell_of(sample, (uint32_t)f));
        }
        n++;
    }
    COMPARE(n == known, "partition '%s' has %u fields, not %u", there->name, n, known);
}

/* --- samples ------------------------------------------------------------------------- */

static void compare_tags(const tqi_table_extras *extras, const ledger_sample *sample, uint32_t index)
{
    uint32_t n = 0;

    for (const tqi_table_tag *tag = extras != NULL ? extras->tags : NULL; tag != NULL; tag = tag->next, n++) {
        const char *name = ledger_name(tag->name->name);
        uint32_t k = 0;
        while (k < sample->n_tags && sample->tags[k].name != name) {
            k++;
        }
        COMPARE(k < sample->n_tags && sample->tags[k].size == tag->size &&
                    sample->tags[k].hash == ledger_hash(tag->value, tag->size),
                "sample %u: tag '%s' is another one", index, tag->name->name);
    }
    COMPARE(n == sample->n_tags, "sample %u has %u tags, not %u", index, n, sample->n_tags);
}

static void compare_sample(const ledger *l, const tqi_table_partition *there, uint32_t place)
{
    const ledger_sample *sample = &l->samples[place];
    uint32_t index = ledger_index(l, place);
    const tqi_table_sample *record = tqi_t_sample(l->table, index);

    COMPARE(record != NULL && record->partition == there && roaring_bitmap_contains(there->members, index),
            "sample %u is not in partition '%s'", index, there->name);
    COMPARE(record->incarnation == sample->incarnation && record->ordinal == sample->ordinal,
            "sample %u: incarnation %u and ordinal %llu, not %u and %llu", index, record->incarnation,
            (unsigned long long)record->ordinal, sample->incarnation, (unsigned long long)sample->ordinal);
    const tqi_table_extras *extras = record->extras;
    const char *key = extras != NULL ? ledger_name(extras->key) : NULL;
    const char *group = extras != NULL && extras->group != NULL ? ledger_name(extras->group->name) : NULL;
    COMPARE(key == sample->key && group == sample->group, "sample %u: key '%s' and group '%s', not '%s' and '%s'",
            index, key, group, sample->key, sample->group);
    COMPARE(key == NULL || tqi_t_key_find(there, key) == extras, "sample %u is not found by its key '%s'", index, key);
    compare_tags(extras, sample, index);
}

/* --- tasks ----------------------------------------------------------------------------- */

static void compare_task(const ledger *l, const tqi_table_task *there, const ledger_partition *partition)
{
    const ledger_task *task = ledger_task_find(partition, there->name);
    uint32_t consumed = task != NULL ? task->n_consumed : 0;

    COMPARE(there->n_consumed == consumed && roaring_bitmap_get_cardinality(there->consumed) == consumed,
            "task '%s' of partition '%s' has consumed %u, not %u", there->name, partition->name, there->n_consumed,
            consumed);
    for (uint32_t i = 0; i < partition->samples; i++) {
        uint32_t index = ledger_index(l, l->scratch[i]);
        COMPARE(roaring_bitmap_contains(there->consumed, index) == ledger_consumed(task, l->scratch[i]),
                "sample %u of partition '%s' is %sconsumed by task '%s'", index, partition->name,
                ledger_consumed(task, l->scratch[i]) ? "not " : "", there->name);
    }
}

static void compare_view(const ledger *l, const tqi_table_view *there, const ledger_partition *partition)
{
    const ledger_task *task = ledger_task_find(partition, there->key.task->name);
    uint32_t n = 0;

    for (uint32_t i = 0; i < partition->samples; i++) {
        bool avail = !ledger_consumed(task, l->scratch[i]);
        for (uint32_t f = 0; avail && f < there->key.set->n_fields; f++) {
            int64_t field = ledger_field_find(partition, there->key.set->fields[f]->name);
            avail = field >= 0 && ledger_produced(ledger_cell_of(&l->samples[l->scratch[i]], (uint32_t)field));
        }
        COMPARE(roaring_bitmap_contains(there->avail, ledger_index(l, l->scratch[i])) == avail,
                "sample %u of partition '%s' is %sready for task '%s'", ledger_index(l, l->scratch[i]), partition->name,
                avail ? "not " : "", there->key.task->name);
        n += avail;
    }
    COMPARE(there->count == n && roaring_bitmap_get_cardinality(there->avail) == n,
            "a view of task '%s' of partition '%s' has %u samples, not %u", there->key.task->name, partition->name,
            there->count, n);
}

static void compare_partition(ledger *l, const tqi_table_partition *there)
{
    const ledger_partition *partition = ledger_partition_find(l, there->name);

    COMPARE(partition != NULL, "partition '%s' exists", there->name);
    COMPARE(there->samples == partition->samples && there->bytes == partition->bytes &&
                there->live_cells == partition->live_cells && there->next_ordinal == partition->next_ordinal &&
                roaring_bitmap_get_cardinality(there->members) == partition->samples,
            "partition '%s': %u samples, %llu bytes, %llu cells, not %u, %llu, %llu", there->name, there->samples,
            (unsigned long long)there->bytes, (unsigned long long)there->live_cells, partition->samples,
            (unsigned long long)partition->bytes, (unsigned long long)partition->live_cells);
    ledger_list(l, partition);
    for (uint32_t i = 0; i < partition->samples; i++) {
        compare_sample(l, there, l->scratch[i]);
    }
    compare_fields(l, there, partition);
    for (const tqi_table_task *task = there->tasks; task != NULL; task = task->hh.next) {
        compare_task(l, task, partition);
    }
    for (const tqi_table_view *view = there->views; view != NULL; view = view->hh.next) {
        compare_view(l, view, partition);
    }
}

/* --- storage ------------------------------------------------------------------------------ */

static void compare_live(const ledger *l, const ledger_block *block)
{
    uint32_t handle = tqi_t_block_find(l->table, block->id);

    COMPARE(handle != 0, "block %llu is not there", (unsigned long long)block->id);
    const tqi_table_block *there = tqi_t_block(l->table, handle);
    COMPARE(there->size == block->size && there->live == block->live && there->live_bytes == block->live_bytes &&
                there->owner == l->owners[block->owner].record &&
                ledger_name(there->partition->name) == block->partition->name,
            "block %llu: %u cells of %llu bytes, not %u of %llu", (unsigned long long)block->id, there->live,
            (unsigned long long)there->live_bytes, block->live, (unsigned long long)block->live_bytes);
}

/* The ids of an owner's dead or late blocks. */
static uint32_t compare_nodes(const ledger *l, const tqi_table_dead_node *node, const tqi_table_owner *owner,
                              ledger_block_state state)
{
    uint32_t n = 0;

    for (; node != NULL; node = node->next) {
        for (uint64_t id = node->first; id - node->first < node->count; id++, n++) {
            uint32_t found = ledger_block_find(l, id);
            const ledger_block *block = found != 0 ? &l->blocks[found - 1] : NULL;
            COMPARE(block != NULL && block->state == state && l->owners[block->owner].record == owner &&
                        (state == LEDGER_LATE || block->writer_done == node->writer_done),
                    "block %llu is among the %s ones of owner '%s', but has state %d", (unsigned long long)id,
                    state == LEDGER_LATE ? "late" : "dead", owner->name, block != NULL ? (int)block->state : -1);
        }
    }
    return n;
}

static void compare_owners(const ledger *l)
{
    uint32_t n = 0;

    for (const tqi_table_owner *there = l->table->owners; there != NULL; there = there->hh.next, n++) {
        const ledger_owner *owner = ledger_owner_find(l, there);
        COMPARE(owner != NULL && owner->incarnation == there->incarnation, "owner '%s' is not known", there->name);
        COMPARE(owner->blocks == there->blocks && owner->bytes == there->bytes, "owner '%s': %llu blocks, not %llu",
                there->name, (unsigned long long)there->blocks, (unsigned long long)owner->blocks);
        COMPARE(compare_nodes(l, there->dead_head, there, LEDGER_DEAD) == owner->dead &&
                    compare_nodes(l, there->late_head, there, LEDGER_LATE) == owner->late,
                "owner '%s': dead blocks are missing", there->name);
    }
    for (uint32_t i = 0; i < l->n_owners; i++) {
        n -= l->owners[i].name != NULL;
    }
    COMPARE(n == 0, "owners are missing");
}

static void compare_blocks(const ledger *l)
{
    uint32_t live = 0, granted = 0;
    uint64_t left = 0;

    for (uint32_t i = 0; i < l->n_blocks; i++) {
        live += l->blocks[i].state == LEDGER_LIVE;
        granted += l->blocks[i].state == LEDGER_GRANTED;
        if (l->blocks[i].state == LEDGER_LIVE) {
            compare_live(l, &l->blocks[i]);
        }
    }
    for (const tqi_table_session *session = l->table->sessions; session != NULL; session = session->hh.next) {
        for (size_t i = 0; i < session->n_ranges; i++) {
            left += session->ranges[i]->left;
        }
    }
    COMPARE(l->table->n_blocks == live, "%u blocks, not %u", l->table->n_blocks, live);
    COMPARE(left == granted, "%llu unpublished blocks, not %u", (unsigned long long)left, granted);
}

static void compare_claims(const ledger *l)
{
    uint32_t n = 0;

    for (const tqi_table_claim *there = l->table->claims; there != NULL; there = there->hh.next, n++) {
        uint32_t found = ledger_map_get(&l->claim_map, there->id);
        const ledger_claim *claim = found != 0 ? &l->claims[found - 1] : NULL;
        COMPARE(claim != NULL && claim->session == there->session->id && claim->n == there->n,
                "claim %llu is another one", (unsigned long long)there->id);
    }
    COMPARE(n == l->claim_map.used, "%u claims, not %u", n, l->claim_map.used);
}

void ledger_compare(ledger *l)
{
    const tqi_table_partition *partition;
    uint32_t exist = 0, held = 0, place = l->table->free_head;
    uint64_t samples = 0;

    for (uint32_t i = 0; i < l->n_partitions; i++) {
        exist += l->partitions[i]->exists;
        samples += l->partitions[i]->samples;
    }
    DL_FOREACH (l->table->existing, partition) {
        compare_partition(l, partition);
        exist--;
    }
    COMPARE(exist == 0, "partitions are missing");
    COMPARE(samples == l->table->n_samples && l->places == l->table->places && l->n_free == l->table->n_free,
            "%llu samples, %u places, %u free ones, not %llu, %u, %u", (unsigned long long)l->table->n_samples,
            l->table->places, l->table->n_free, (unsigned long long)samples, l->places, l->n_free);
    for (uint32_t i = 0; i < l->n_free; i++, place = tqi_t_place(l->table, place)->row) {
        uint32_t want = l->free_queue[(l->free_first + i) % l->free_capacity];
        COMPARE(place == want && tqi_t_place(l->table, place)->incarnation == l->samples[want].incarnation,
                "free place %u is %u, not %u", i, place, want);
    }
    for (uint32_t i = 0; i < l->n_clearings; i++) {
        held += l->clearings[i].n;
    }
    const tqi_table_clearing *clearing;
    DL_FOREACH (l->table->clearings, clearing) {
        held -= clearing->n;
    }
    COMPARE(held == 0, "indexes that clears hold are missing");
    compare_blocks(l);
    compare_owners(l);
    compare_claims(l);
}
