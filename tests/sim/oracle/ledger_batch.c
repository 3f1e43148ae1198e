/*
 * ledger_batch.c - batches: reading one row by row, and checking one that the table made against the ledger.
 */
#include "oracle/ledger.h"

#include "base/marks.h"
#include "base/type.h"

void ledger_walk_next(ledger_walk *walk, ledger_cell *cell)
{
    const tqi_table_batch_field *field = walk->field;
    size_t row = walk->row++;
    uint32_t ndim = field->ragged ? field->ndims[field->n_ndims == 1 ? 0 : row] : field->ndim;
    const uint64_t *dims = field->ragged ? field->dims + walk->at_dim : field->shape;

    if (walk->left == 0) {
        walk->left = field->runs[walk->run].rows;
        walk->offset = field->runs[walk->run].offset;
        walk->run++;
    }
    walk->left--;
    walk->at_dim += field->ragged ? ndim : 0;
    *cell = (ledger_cell){0};
    uint32_t block = field->runs[walk->run - 1].block;
    if (block == TQI_BLOCK_NONE || block == TQI_BLOCK_LOST) {
        cell->state = block == TQI_BLOCK_LOST ? LEDGER_LOST : LEDGER_NONE;
        return;
    }
    cell->type = field->types != NULL ? field->types[row] : tqi_type_pack(field->kind, field->dtype);
    cell->shape = ledger_shape_of(ndim, dims);
    if (block == TQI_BLOCK_OPAQUE) {
        cell->state = LEDGER_OPAQUE;
        cell->offset = field->opaque[row].size;
        cell->opaque = ledger_hash(field->opaque[row].data, field->opaque[row].size);
        return;
    }
    cell->state = LEDGER_STORED;
    cell->block = block - 1;
    cell->offset = walk->offset;
    walk->offset += ledger_cell_bytes(cell);
}

/* --- what the table says -------------------------------------------------------- */

static void check_block(const ledger *l, const tqi_table_batch_block *said, const ledger_block *block, const char *what)
{
    const ledger_owner *owner = &l->owners[block->owner];

    sim_check(said->id == block->id && said->size == block->size && owner->incarnation == said->owner_incarnation &&
                  owner->name == ledger_name(said->owner) && block->locator_size == said->locator_size &&
                  block->locator == ledger_hash(said->locator, said->locator_size),
              "table", "%s: a cell is said to be in block %llu of %llu bytes of owner '%s', not in %llu of %llu of '%s'",
              what, (unsigned long long)said->id, (unsigned long long)said->size, said->owner,
              (unsigned long long)block->id, (unsigned long long)block->size, owner->name);
}

static void check_cell(const ledger *l, const tqi_table_batch *batch, const ledger_cell *said, const ledger_cell *cell,
                       uint32_t index, const char *field, const char *what)
{
    bool same = said->state == cell->state;

    if (same && ledger_produced(cell)) {
        same = said->shape == cell->shape && said->offset == cell->offset && said->opaque == cell->opaque &&
               (said->type == cell->type || !ledger_cell_filled(cell));
    }
    sim_check(same, "table",
              "%s: field '%s' of sample %u: said state %d type %x offset %llu, is state %d type %x offset %llu%s", what,
              field, index, (int)said->state, said->type, (unsigned long long)said->offset, (int)cell->state,
              cell->type, (unsigned long long)cell->offset, said->shape != cell->shape ? ", with another shape" : "");
    if (cell->state == LEDGER_STORED) {
        check_block(l, &batch->blocks[said->block], &l->blocks[cell->block], what);
    }
}

static void check_field(const ledger *l, const ledger_partition *partition, const tqi_table_batch *batch, size_t f,
                        const char *what)
{
    ledger_walk walk = {.batch = batch, .field = &batch->fields[f]};
    int64_t field = ledger_field_find(partition, batch->fields[f].name);

    for (size_t i = 0; i < batch->n; i++) {
        const ledger_sample *sample = ledger_member(l, partition, batch->indexes[i], 0);
        ledger_cell said;
        ledger_walk_next(&walk, &said);
        check_cell(l, batch, &said, ledger_cell_of(sample, field < 0 ? UINT32_MAX : (uint32_t)field), batch->indexes[i],
                   batch->fields[f].name, what);
    }
    sim_check(walk.left == 0 && walk.run == walk.field->n_runs, "table", "%s: field '%s' has runs beyond its samples",
              what, batch->fields[f].name);
}

static void check_tags(const ledger *l, const ledger_partition *partition, const tqi_table_batch *batch,
                       const char *what)
{
    uint64_t said = 0, there = 0;

    for (size_t i = 0; i < batch->n; i++) {
        there += ledger_member(l, partition, batch->indexes[i], 0)->n_tags;
    }
    for (size_t t = 0; t < batch->n_tags; t++) {
        const tqi_table_batch_tag *tag = &batch->tags[t];
        const char *name = ledger_name(tag->name);
        size_t at = 0;
        for (size_t i = 0; i < batch->n; i++) {
            const ledger_sample *sample = ledger_member(l, partition, batch->indexes[i], 0);
            uint32_t k = 0;
            if (tag->sizes[i] == 0) {
                continue;
            }
            while (k < sample->n_tags && sample->tags[k].name != name) {
                k++;
            }
            sim_check(k < sample->n_tags && sample->tags[k].size == tag->sizes[i] &&
                          sample->tags[k].hash == ledger_hash(tag->values + at, tag->sizes[i]),
                      "table", "%s: tag '%s' of sample %u is another one", what, tag->name, batch->indexes[i]);
            at += tag->sizes[i];
            said++;
        }
    }
    sim_check(said == there, "table", "%s: partition '%s': %llu tags of %zu samples are said, %llu are there", what,
              partition->name, (unsigned long long)said, batch->n, (unsigned long long)there);
}

void ledger_check_batch(const ledger *l, const ledger_partition *partition, const tqi_table_batch *batch,
                        const ledger_said *said)
{
    for (size_t i = 0; i < batch->n; i++) {
        const ledger_sample *sample = ledger_member(l, partition, batch->indexes[i], batch->incarnations[i]);
        sim_check(sample != NULL, "table", "%s: sample %u.%u is not in partition '%s'", said->what, batch->indexes[i],
                  batch->incarnations[i], batch->partition);
        sim_check(batch->ordinals[i] + said->first_ordinal == sample->ordinal, "table",
                  "%s: sample %u has ordinal %llu, not %llu", said->what, batch->indexes[i],
                  (unsigned long long)sample->ordinal, (unsigned long long)batch->ordinals[i]);
        const char *key = batch->keys != NULL ? ledger_name(batch->keys[i]) : NULL;
        const char *group = batch->groups != NULL ? ledger_name(batch->groups[i]) : NULL;
        sim_check(!said->keys || (key == sample->key && group == sample->group), "table",
                  "%s: sample %u has key '%s' and group '%s', not '%s' and '%s'", said->what, batch->indexes[i],
                  sample->key, sample->group, key, group);
    }
    if (said->tags) {
        check_tags(l, partition, batch, said->what);
    }
    for (size_t f = 0; said->cells && f < batch->n_fields; f++) {
        check_field(l, partition, batch, f, said->what);
    }
}
