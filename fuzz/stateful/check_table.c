/*
 * check_table.c - checks the table's books against each other: everything that is counted is recounted.
 */
#include <stdarg.h>

#include "table/block.h"
#include "table/field.h"
#include "table/sample.h"

typedef struct sf sf;
void sf_fault(const sf *f, const char *format, ...) __attribute__((format(printf, 2, 3), noreturn));
void sf_check_table(const sf *f, const tqi_table *table);

/* What cells say of their blocks. */
typedef struct check_block {
    uint64_t bytes;
    uint32_t cells;
} check_block;

typedef struct check {
    const sf *f;
    const tqi_table *table;
    check_block *blocks; /* by handle */
    uint64_t samples, cells;
} check;

static uint32_t check_handles(const tqi_table *table)
{
    return (uint32_t)table->n_block_pages * TQI_T_BLOCK_PAGE;
}

static void check_that(const check *c, bool fine, const char *what, const char *name)
{
    if (!fine) {
        sf_fault(c->f, "the table's books disagree: %s of '%s'", what, name);
    }
}

/* --- fields --------------------------------------------------------------- */

static void check_cell(const check *c, const tqi_table_field *field, uint32_t row, uint32_t *stored, uint64_t *bytes)
{
    const tqi_table_cell *cell = &field->cells[row];
    uint64_t size = tqi_t_cell_bytes(field, cell);

    ++*stored;
    *bytes += size;
    if (cell->block == TQI_BLOCK_OPAQUE) {
        return;
    }
    check_that(c, cell->block <= check_handles(c->table), "a block's handle", field->name);
    const tqi_table_block *block = tqi_t_block(c->table, cell->block);
    check_that(c, block->owner != NULL, "a cell's block", field->name);
    check_that(c, block->partition == field->partition, "the partition of a block", field->name);
    check_that(c, row >= block->row_first && row <= block->row_last, "a block's rows", field->name);
    check_that(c, cell->offset <= block->size && size <= block->size - cell->offset, "a cell's place", field->name);
    c->blocks[cell->block].cells++;
    c->blocks[cell->block].bytes += size;
}

/* Counts the cells of the members; other rows have none. */
static void check_field(check *c, const tqi_table_partition *partition, const tqi_table_field *field, uint64_t *bytes,
                        uint64_t *live)
{
    uint32_t produced = 0, lost = 0, seen = 0;
    roaring_uint32_iterator_t at;

    for (uint32_t row = 0; row < field->capacity; row++) {
        seen += field->cells[row].block != TQI_BLOCK_NONE;
    }
    roaring_init_iterator(partition->members, &at);
    for (; at.has_value; roaring_advance_uint32_iterator(&at)) {
        const tqi_table_sample *sample = tqi_t_sample(c->table, at.current_value);
        uint32_t block = tqi_t_cell(field, sample->row).block;
        if (tqi_t_produced(block)) {
            check_cell(c, field, sample->row, &produced, bytes);
        }
        lost += block == TQI_BLOCK_LOST;
        check_that(c, block != TQI_BLOCK_LOST || roaring_bitmap_contains(partition->lost, at.current_value),
                   "lost samples", partition->name);
    }
    check_that(c, produced == field->produced, "produced rows", field->name);
    check_that(c, lost == field->lost, "lost rows", field->name);
    check_that(c, seen == produced + lost, "rows of no sample", field->name);
    *live += produced;
}

/* --- views ---------------------------------------------------------------- */

static void check_set(const check *c, const tqi_table_partition *partition, const tqi_table_set *set)
{
    roaring_uint32_iterator_t at;
    uint64_t ready = 0;

    roaring_init_iterator(partition->members, &at);
    for (; at.has_value; roaring_advance_uint32_iterator(&at)) {
        const tqi_table_sample *sample = tqi_t_sample(c->table, at.current_value);
        uint32_t missing = 0;
        for (uint32_t i = 0; i < set->n_fields; i++) {
            missing += !tqi_t_produced(tqi_t_cell(set->fields[i], sample->row).block);
        }
        check_that(c, set->missing[sample->row] == missing, "missing fields", partition->name);
        check_that(c, roaring_bitmap_contains(set->ready, at.current_value) == (missing == 0), "ready samples",
                   partition->name);
        ready += missing == 0;
    }
    check_that(c, roaring_bitmap_get_cardinality(set->ready) == ready, "ready samples", partition->name);
}

static void check_view(const check *c, const tqi_table_partition *partition, const tqi_table_view *view)
{
    roaring_bitmap_t *avail = roaring_bitmap_andnot(view->key.set->ready, view->key.task->consumed);

    check_that(c, roaring_bitmap_equals(avail, view->avail), "samples that are to be had", partition->name);
    check_that(c, roaring_bitmap_get_cardinality(avail) == view->count, "their number", partition->name);
    roaring_bitmap_free(avail);
}

static void check_views(const check *c, const tqi_table_partition *partition)
{
    for (const tqi_table_set *set = partition->sets; set != NULL; set = set->hh.next) {
        check_set(c, partition, set);
    }
    for (const tqi_table_task *task = partition->tasks; task != NULL; task = task->hh.next) {
        check_that(c, roaring_bitmap_get_cardinality(task->consumed) == task->n_consumed, "consumed samples",
                   task->name);
        check_that(c, roaring_bitmap_is_subset(task->consumed, partition->members), "members among the consumed",
                   task->name);
    }
    for (const tqi_table_view *view = partition->views; view != NULL; view = view->hh.next) {
        check_view(c, partition, view);
    }
}

/* --- partitions ----------------------------------------------------------- */

static void check_samples(check *c, const tqi_table_partition *partition)
{
    roaring_uint32_iterator_t at;
    uint64_t members = 0, keys = 0, grouped = 0, in_groups = 0;

    roaring_init_iterator(partition->members, &at);
    for (; at.has_value; roaring_advance_uint32_iterator(&at)) {
        const tqi_table_sample *sample = tqi_t_sample(c->table, at.current_value);
        check_that(c, sample != NULL && sample->partition == partition, "a member", partition->name);
        check_that(c, sample->row < partition->rows, "a member's row", partition->name);
        check_that(c, sample->ordinal - c->table->first_ordinal < partition->next_ordinal - c->table->first_ordinal,
                   "a member's ordinal", partition->name);
        if (sample->extras != NULL) {
            check_that(c, sample->extras->index == at.current_value, "a member's extras", partition->name);
            keys += sample->extras->key_size > 0;
            grouped += sample->extras->group != NULL;
        }
        members++;
    }
    for (const tqi_table_group *group = partition->groups; group != NULL; group = group->hh.next) {
        in_groups += group->samples;
    }
    check_that(c, members == partition->samples, "samples", partition->name);
    check_that(c, keys == HASH_COUNT(partition->keys), "keys", partition->name);
    check_that(c, grouped == in_groups, "samples of groups", partition->name);
    c->samples += members;
}

static void check_partition(check *c, const tqi_table_partition *partition)
{
    uint64_t bytes = 0, live = 0;

    check_samples(c, partition);
    for (const tqi_table_field *field = partition->known; field != NULL; field = field->next) {
        check_field(c, partition, field, &bytes, &live);
    }
    check_that(c, bytes == partition->bytes, "bytes", partition->name);
    check_that(c, live == partition->live_cells, "cells", partition->name);
    check_views(c, partition);
    c->cells += live;
}

/* --- blocks --------------------------------------------------------------- */

static void check_blocks(const check *c)
{
    uint32_t n = 0;

    for (uint32_t handle = 1; handle <= check_handles(c->table); handle++) {
        const tqi_table_block *block = tqi_t_block(c->table, handle);
        if (block->owner == NULL) {
            continue;
        }
        n++;
        check_that(c, c->blocks[handle].cells == block->live, "cells of a block", block->owner->name);
        check_that(c, c->blocks[handle].bytes == block->live_bytes, "live bytes of a block", block->owner->name);
        check_that(c, tqi_t_block_find(c->table, block->id) == handle, "a block's id", block->owner->name);
    }
    check_that(c, n == c->table->n_blocks, "blocks", "all owners");
    for (const tqi_table_owner *owner = c->table->owners; owner != NULL; owner = owner->hh.next) {
        uint64_t blocks = 0, bytes = 0;
        for (uint32_t handle = 1; handle <= check_handles(c->table); handle++) {
            const tqi_table_block *block = tqi_t_block(c->table, handle);
            blocks += block->owner == owner;
            bytes += block->owner == owner ? block->size : 0;
        }
        check_that(c, blocks == owner->blocks, "blocks", owner->name);
        check_that(c, bytes == owner->bytes, "bytes", owner->name);
    }
}

/* Ids of one queue: none of them is live, and every node follows those before it. */
static uint64_t check_queue(const check *c, const tqi_table_owner *owner, const tqi_table_dead_node *node, bool late)
{
    uint64_t n = 0, before = 0;

    for (; node != NULL; node = node->next) {
        uint64_t order = late ? node->due : node->notice;
        check_that(c, late ? order >= before : order > before, "the order of what is dead", owner->name);
        check_that(c, late || order <= owner->last_notice, "a notice", owner->name);
        for (uint32_t i = 0; i < node->count; i++) {
            check_that(c, tqi_t_block_find(c->table, node->first + i) == 0, "a dead block", owner->name);
        }
        before = order;
        n++;
    }
    return n;
}

/* Each block and each id that is not published has room in the queue of its owner. */
static void check_dead(const check *c, uint64_t left)
{
    const tqi_table *table = c->table;
    uint64_t dead = 0, late = 0;

    for (const tqi_table_owner *owner = table->owners; owner != NULL; owner = owner->hh.next) {
        dead += check_queue(c, owner, owner->dead_head, false);
        late += check_queue(c, owner, owner->late_head, true);
    }
    check_that(c, dead == table->n_dead, "what is dead", "all owners");
    check_that(c, late == table->n_late, "what is late", "all owners");
    check_that(c, table->dead_reserved == table->n_blocks + left, "room for what dies", "all owners");
    check_that(c, table->n_dead_free >= table->dead_reserved, "free room for what dies", "all owners");
    check_that(c, table->n_dead_pages * TQI_T_DEAD_PAGE == table->n_dead_free + dead + late, "all room for what dies",
               "all owners");
}

/* Each index is a sample's, is free, or is held by a clear. */
static void check_places(const check *c)
{
    uint64_t held = TQ_NO_INDEX - c->table->first_index < c->table->places; /* no sample has that one */

    for (const tqi_table_clearing *clearing = c->table->clearings; clearing != NULL; clearing = clearing->next) {
        held += clearing->n;
    }
    check_that(c, c->table->places == c->table->n_samples + c->table->n_free + held, "indexes", "all partitions");
}

static void check_ranges(const check *c)
{
    uint64_t ranges = 0, left = 0;

    for (const tqi_table_owner *owner = c->table->owners; owner != NULL; owner = owner->hh.next) {
        for (const tqi_table_range *range = owner->ranges; range != NULL; range = range->next) {
            uint32_t used = 0;
            for (int i = 0; i < 4; i++) {
                used += (uint32_t)__builtin_popcountll(range->used[i]);
            }
            check_that(c, used + range->left == range->count, "ids of a grant", owner->name);
            left += range->left;
            ranges++;
        }
    }
    check_that(c, ranges == c->table->n_ranges, "grants", "all owners");
    check_dead(c, left);
}

void sf_check_table(const sf *f, const tqi_table *table)
{
    check c = {.f = f, .table = table};

    c.blocks = calloc((size_t)check_handles(table) + 1, sizeof(*c.blocks));
    if (c.blocks == NULL) {
        sf_fault(f, "no memory for a check");
    }
    for (const tqi_table_partition *p = table->existing; p != NULL; p = p->next) {
        check_partition(&c, p);
    }
    check_that(&c, c.samples == table->n_samples, "samples", "all partitions");
    check_blocks(&c);
    check_ranges(&c);
    check_places(&c);
    free(c.blocks);
}
