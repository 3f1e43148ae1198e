/*
 * internal.h - functions shared by the files of the table, over the records of records.h. Only files of src/table
 * include it.
 *
 * Functions named tqi_t_* are shared between these files; everything else visible is in table.h.
 *
 * How one change stays all or nothing: a change first plans (checks everything, allocates everything, marks what it
 * would use), then either undoes the plan or commits it. Committing uses only functions documented here as "cannot
 * fail". CRoaring is the one exception: its bitmaps cannot reserve memory, and abort the process if there is none.
 */
#ifndef TQI_TABLE_INTERNAL_H
#define TQI_TABLE_INTERNAL_H

#include "base/limits.h"
#include "table/records.h"

/* --- sample.c ------------------------------------------------------------- */

static inline tqi_table_sample *tqi_t_place(const tqi_table *table, uint32_t place)
{
    return &table->pages[place >> TQI_T_PAGE_BITS][place & (TQI_T_PAGE - 1)];
}

/* The sample of an index, even a free one; NULL if the index was never used. */
static inline tqi_table_sample *tqi_t_sample(const tqi_table *table, uint32_t index)
{
    uint32_t place = index - table->first_index;
    return place < table->places ? tqi_t_place(table, place) : NULL;
}

/* The sample of an index if it is in the partition (and of that incarnation; 0: any), else NULL. */
tqi_table_sample *tqi_t_member(const tqi_table_partition *partition, uint32_t index, uint32_t incarnation);
/* TQ_ECLEARED: names the samples that are not members, and says when a checkpoint replaced them. */
int tqi_t_cleared(const tqi_table_partition *partition, const uint32_t *indexes, const uint32_t *incarnations, size_t n,
                  tq_error *err);
/* TQ_EKEY, TQ_EFIELD: list what exists; the name may be NULL. */
int tqi_t_unknown_key(const tqi_table_partition *partition, const char *key, tq_error *err);
int tqi_t_unknown_field(const tqi_table_partition *partition, const char *name, tq_error *err);
/* Determines which indexes the next n samples will get, first freed first, and allocates room for them. */
int tqi_t_samples_plan(tqi_table *table, uint32_t n, uint32_t *indexes, tq_error *err);
/* Pages for places below `end`. */
int tqi_t_samples_reserve(tqi_table *table, uint64_t end, tq_error *err);
/* Takes the next of the planned ones. Cannot fail after a plan. */
tqi_table_sample *tqi_t_sample_take(tqi_table *table, uint32_t *index);
/* Whether the next new sample may get the index. */
static inline bool tqi_t_index_free(const tqi_table_sample *sample)
{
    return sample->partition == NULL && sample->ordinal == 0;
}
/* Appends an index to the queue of free ones. Cannot fail. */
void tqi_t_place_free(tqi_table *table, uint32_t place);
/* Clears one sample: cells, extras, consumption, readiness, row; frees its index (or gives it to the clear that is
 * being begun). Cannot fail. */
void tqi_t_sample_clear(tqi_table_partition *partition, uint32_t index);
void tqi_t_samples_fini(tqi_table *table);
/* two_phase_clear.c */
void tqi_t_clearings_fini(tqi_table *table);

/* Extras with a key ("" or NULL: none), not linked anywhere. */
tqi_table_extras *tqi_t_extras_alloc(const char *key);
/* Links extras into the keys of the partition; TQ_OK or TQ_ENOMEM. */
int tqi_t_key_add(tqi_table_partition *partition, tqi_table_extras *extras);
tqi_table_extras *tqi_t_key_find(const tqi_table_partition *partition, const char *key);
/* Unlinks key and group, frees tags and the extras. */
void tqi_t_extras_free(tqi_table_partition *partition, tqi_table_extras *extras);
/* Puts extras into a group; TQ_OK or TQ_ENOMEM. */
int tqi_t_group_join(tqi_table_partition *partition, tqi_table_extras *extras, const char *name);

/* --- partition.c ---------------------------------------------------------- */

tqi_table_partition *tqi_t_partition_lookup(const tqi_table *table, const char *name); /* existing or not */
/* Makes another one of that name, as not existing; it can be found by name only once the other one has gone. */
int tqi_t_partition_make(tqi_table *table, const char *name, tqi_table_partition **out, tq_error *err);
/* Finds or makes it, as not existing; the caller gives it a plan or a view, or calls gc. */
int tqi_t_partition_get(tqi_table *table, const char *name, tqi_table_partition **out, tq_error *err);
/* It was written to: from now on it exists. Cannot fail. */
void tqi_t_partition_born(tqi_table_partition *partition);
/* Frees it if it does not exist and nothing refers to it. */
void tqi_t_partition_gc(tqi_table_partition *partition);
/* Reserves room for n more rows in the row list and in all field sets. */
int tqi_t_rows_reserve(tqi_table_partition *partition, size_t n, tq_error *err);
/* The row that the i-th next sample will get. */
uint32_t tqi_t_row_peek(const tqi_table_partition *partition, uint32_t i);
uint32_t tqi_t_row_take(tqi_table_partition *partition);
void tqi_t_row_free(tqi_table_partition *partition, uint32_t row);
/* Drops everything in it, whatever refers to it, and itself. */
void tqi_t_partition_destroy(tqi_table_partition *partition);

/* --- field.c -------------------------------------------------------------- */

tqi_table_field *tqi_t_field_find(const tqi_table_partition *partition, const char *name); /* known or not */
int tqi_t_field_get(tqi_table_partition *partition, const char *name, tqi_table_field **out, tq_error *err);
/* Frees it if it has neither schema nor field set nor plan. */
void tqi_t_field_gc(tqi_table_field *field);
int tqi_t_field_reserve(tqi_table_field *field, size_t rows, tq_error *err);
/* Gives the field a schema; takes over the reference to the shape (none: ragged). Cannot fail. */
void tqi_t_field_learn(tqi_table_field *field, uint8_t kind, tq_dtype dtype, uint32_t shape);
/* Notes which dim of its rows is ragged, and the shape that they are compared with. */
void tqi_t_field_set_ragged_dim(tqi_table_field *field, uint8_t dim, uint32_t like);
/* Sets the type of its rows from now on, except those with their own types. No row of the old type with bytes may be
 * left. */
void tqi_t_field_set_type(tqi_table_field *field, uint32_t type);
static inline uint32_t tqi_t_field_type(const tqi_table_field *field)
{
    return tqi_type_pack(field->kind, field->dtype);
}
static inline uint32_t tqi_t_cell_type(const tqi_table_field *field, const tqi_table_cell *cell);
/* Whether the row has a say in its field's type: a tensor without elements does not. */
bool tqi_t_cell_filled(const tqi_table_field *field, const tqi_table_cell *cell);
/* Counts a produced cell by its type. */
void tqi_t_cell_count(tqi_table_field *field, const tqi_table_cell *cell);
/* Removes what the row has before its field's type changes; a cell that counts as produced takes its place until
 * another one is linked. */
void tqi_t_cell_blank(tqi_table_field *field, uint32_t row);
/* From now on its rows have their own shapes. */
void tqi_t_field_make_ragged(tqi_table_field *field);
/* Sets the cell of a row to a block or opaque bytes. Takes over the counted shape (and the bytes); counts the block;
 * releases what was there; updates readiness. Cannot fail. */
void tqi_t_cell_link(tqi_table_field *field, uint32_t index, uint32_t row, tqi_table_cell cell);
/* Sets the cell of a row to `mark` (TQI_TABLE_CELL_NONE or TQI_TABLE_CELL_LOST). The field may lose its schema with
 * its last cell, but it is not freed: call gc. Cannot fail. */
void tqi_t_cell_unlink(tqi_table_field *field, uint32_t index, uint32_t row, uint32_t mark);
uint64_t tqi_t_cell_bytes(const tqi_table_field *field, const tqi_table_cell *cell);
/* The schema and the cells go; the field stays. */
void tqi_t_field_forget(tqi_table_field *field);
static inline tqi_table_cell tqi_t_cell(const tqi_table_field *field, uint32_t row)
{
    return row < field->capacity ? field->cells[row] : (tqi_table_cell){0, 0, 0};
}

/* --- shape.c -------------------------------------------------------------- */

/* Handle of a shape, with one reference. TQ_EINVAL if the number of elements overflows. */
int tqi_t_shape_get(tqi_table *table, uint32_t ndim, const uint64_t *dims, uint32_t *handle, tq_error *err);
/* The same for a row whose type differs from its field's; type 0: it does not. */
int tqi_t_shape_get_typed(tqi_table *table, uint32_t type, uint32_t ndim, const uint64_t *dims, uint32_t *handle,
                          tq_error *err);
/* The type that a row's shape must record if its field's type is `own`: 0 if it has that type, or is a tensor without
 * elements, which takes the dtype of its field. */
uint32_t tqi_t_relative_type(uint32_t own, uint32_t type, uint32_t ndim, const uint64_t *dims);
/* A row's own type, else 0. */
uint32_t tqi_t_shape_type(const tqi_table *table, uint32_t handle);
void tqi_t_shape_ref(tqi_table *table, uint32_t handle, uint64_t n);
void tqi_t_shape_unref(tqi_table *table, uint32_t handle, uint64_t n);
uint64_t tqi_t_shape_elements(const tqi_table *table, uint32_t handle);
/* Dims of a handle; `room` holds the one dim of those without a record. */
const uint64_t *tqi_t_shape_dims(const tqi_table *table, uint32_t handle, uint64_t *room, uint32_t *ndim);
/* Compares a row's shape with *like (which it becomes if there is none) and notes in *dim where they differ. Rows of
 * one dim or none, and those of another number of dims, say nothing. */
void tqi_t_shape_vary(const tqi_table *table, uint32_t handle, uint32_t *like, uint8_t *dim);
void tqi_t_shapes_fini(tqi_table *table);
static inline uint32_t tqi_t_cell_type(const tqi_table_field *field, const tqi_table_cell *cell)
{
    uint32_t type = field->foreign > 0 ? tqi_t_shape_type(field->partition->table, cell->shape) : 0;

    return type != 0 ? type : tqi_t_field_type(field);
}

/* --- block.c -------------------------------------------------------------- */

static inline tqi_table_block *tqi_t_block(const tqi_table *table, uint32_t handle)
{
    return &table->block_pages[(handle - 1) / TQI_T_BLOCK_PAGE][(handle - 1) % TQI_T_BLOCK_PAGE];
}
/* Room for n more blocks. */
int tqi_t_blocks_reserve(tqi_table *table, size_t n, tq_error *err);
/* Makes a block with one hold (live 1), so that it does not die while it is being linked. Cannot fail after reserve. */
uint32_t tqi_t_block_add(tqi_table *table, const tqi_table_batch_block *from, tqi_table_owner *owner,
                         tqi_table_partition *partition);
/* Counts one cell more, in that row. */
static inline void tqi_t_block_link(tqi_table_block *block, uint32_t row, uint64_t bytes)
{
    block->live++;
    block->live_bytes += bytes;
    block->row_first = row < block->row_first ? row : block->row_first;
    block->row_last = row > block->row_last ? row : block->row_last;
}
/* Counts one cell less; the block dies with the last one. Cannot fail. */
void tqi_t_block_unlink(tqi_table *table, uint32_t handle, uint64_t bytes);
/* Ends a hold; the block dies with the last one. Cannot fail. */
void tqi_t_block_unref(tqi_table *table, uint32_t handle);
/* Whether the cell lies in a block. */
static inline bool tqi_t_stored(const tqi_table_cell *cell)
{
    return tqi_t_produced(cell->block) && cell->block != TQI_TABLE_CELL_OPAQUE;
}
uint32_t tqi_t_block_find(const tqi_table *table, uint64_t id); /* 0: none */
/* Calls fn for each cell that is not TQI_TABLE_CELL_NONE. */
typedef void (*tqi_t_cell_fn)(tqi_table_field *field, uint32_t index, uint32_t row, tqi_table_cell *cell, void *arg);
void tqi_t_partition_cells(tqi_table_partition *partition, tqi_t_cell_fn fn, void *arg);
/* Marks the cells of stamped blocks as lost, and calls `lost`. */
void tqi_t_lose_stamped(tqi_table_partition *partition, uint64_t stamp, tqi_table_lost_fn lost, void *arg);
void tqi_t_blocks_fini(tqi_table *table);

/* --- compact.c --------------------------------------------------------------- */

/* Fewer dead bytes than this are not worth a move. */
#define TQI_T_SPARSE_MIN 1024u
/* A block with more cells never counts as sparse: moving them would take long and gain little. */
#define TQI_T_SPARSE_CELLS 65536u
/* The most live bytes that a sparse block may have. */
static inline uint64_t tqi_t_sparse_from(const tqi_table_block *block)
{
    uint64_t most = (block->size - block->size / 4) >> block->told;
    uint64_t worth = block->size > TQI_T_SPARSE_MIN ? block->size - TQI_T_SPARSE_MIN : 0;

    return most < worth ? most : worth;
}
/* Names the block to its owner, if it is sparse and has not been named yet. */
void tqi_t_sparse_check(tqi_table *table, tqi_table_block *block, uint32_t handle);
/* Takes a listed block from the list. */
void tqi_t_sparse_drop(tqi_table *table, tqi_table_block *block);

/* --- grant.c -------------------------------------------------------------- */

tqi_table_session *tqi_t_session_find(const tqi_table *table, uint64_t id);
int tqi_t_session_get(tqi_table *table, uint64_t id, tqi_table_session **out, tq_error *err);
/* The range of an unpublished id of the session; NULL if it is not one. */
tqi_table_range *tqi_t_range_find(const tqi_table_session *session, uint64_t id);
void tqi_t_range_mark(tqi_table_range *range, uint64_t id, bool used);
/* A marked id is published or dead: counts it, and frees the range with its last one. Cannot fail. */
void tqi_t_range_use(tqi_table *table, tqi_table_range *range);
/* Takes the range from its session and owner and frees it. */
void tqi_t_range_free(tqi_table *table, tqi_table_range *range);

/* --- dead.c --------------------------------------------------------------- */

/* One dead id (with its reservation) for the owner's queue. Cannot fail. */
void tqi_t_dead_push(tqi_table_owner *owner, uint64_t id, bool writer_done);
int tqi_t_dead_reserve(tqi_table *table, uint32_t n, tq_error *err);
/* There is something to report to the owner. */
void tqi_t_owner_wake(tqi_table_owner *owner);
/* The owner's queue goes. */
void tqi_t_dead_drop(tqi_table_owner *owner);
void tqi_t_dead_fini(tqi_table *table);

/* --- tag.c ---------------------------------------------------------------- */

/* New tag, not on a sample yet; NULL without memory. */
tqi_table_tag *tqi_t_tag_alloc(tqi_table_partition *partition, const char *name, const uint8_t *value, uint32_t size);
void tqi_t_tag_free(tqi_table_partition *partition, tqi_table_tag *tag);
/* Puts it on the sample; returns the one it replaced, or NULL. *before: how many others precede it. */
tqi_table_tag *tqi_t_tag_set(tqi_table_extras *extras, tqi_table_tag *tag, size_t *before);
/* Takes it back and puts `old` (may be NULL) in its place. */
void tqi_t_tag_unset(tqi_table_extras *extras, const tqi_table_tag *tag, tqi_table_tag *old);

/* --- view.c --------------------------------------------------------------- */

/* A sample joins with this row. Cannot fail; room was reserved. */
void tqi_t_ready_join(tqi_table_partition *partition, uint32_t row);
/* A sample leaves: out of all field sets, views and tasks. */
void tqi_t_ready_leave(tqi_table_partition *partition, uint32_t index, uint32_t row);
/* A cell is produced / not any more. */
void tqi_t_ready_gain(tqi_table_field *field, uint32_t index, uint32_t row);
void tqi_t_ready_lose(tqi_table_field *field, uint32_t index, uint32_t row);
void tqi_t_task_consume(tqi_table_task *task, uint32_t index);
void tqi_t_task_free_sample(tqi_table_task *task, uint32_t index);
tqi_table_task *tqi_t_task_find(const tqi_table_partition *partition, const char *name);
int tqi_t_task_get(tqi_table_partition *partition, const char *name, tqi_table_task **out);
int tqi_t_set_reserve(tqi_table_set *set, size_t rows, tq_error *err);
/* The same view on another partition that has no members yet; not held. */
int tqi_t_view_twin(const tqi_table_view *view, tqi_table_partition *partition, tqi_table_view **out, tq_error *err);
/* All members were added at once: recounts what is ready. Cannot fail. */
void tqi_t_views_fill(tqi_table_partition *partition);
/* After the partition was cleared: frees views that nobody holds, and tasks and sets without views. */
void tqi_t_views_reset(tqi_table_partition *partition);
/* Frees all views, held or not. */
void tqi_t_views_destroy(tqi_table_partition *partition);

/* --- claim.c -------------------------------------------------------------- */

/* Forgets what the task consumed and picked; its claims then give nothing back. */
void tqi_t_task_reset(tqi_table_task *task);
void tqi_t_claim_free(tqi_table *table, tqi_table_claim *claim);
/* A cached pick of n samples for the task, all of them yet to be filled in; it replaces one of that name. */
int tqi_t_cached_pick_make(tqi_table_task *task, const char *name, uint32_t n, tqi_table_cached_pick **out,
                           tq_error *err);

/* --- result.c ------------------------------------------------------------- */

/* A sample in a batch that is being described. */
typedef struct tqi_table_row {
    uint32_t index;
    uint32_t incarnation;
    uint32_t row;
    uint64_t ordinal;
    tqi_table_extras *extras;
} tqi_table_row;

static inline tqi_table_row tqi_t_row_of(uint32_t index, const tqi_table_sample *sample)
{
    return (tqi_table_row){index, sample->incarnation, sample->row, sample->ordinal, sample->extras};
}

/* Partition, indexes, incarnations, ordinals; with `extras` also keys, groups and tags. */
int tqi_t_describe_samples(tqi_table_partition *partition, const tqi_table_row *rows, size_t n, bool keys, bool tags,
                           tqi_table_result *result, tq_error *err);
/* Fields with shapes, runs and blocks. */
int tqi_t_describe_fields(tqi_table_partition *partition, const tqi_table_row *rows, size_t n,
                          tqi_table_field *const *fields, size_t n_fields, tqi_table_result *result, tq_error *err);
/* Tags of the rows as columns. */
int tqi_t_tags_describe(tqi_table *table, const tqi_table_row *rows, size_t n, tqi_table_result *result, tq_error *err);

#endif
