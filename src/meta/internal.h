/*
 * internal.h - the structs of the table and the functions that its files share.  Only files of src/meta include it.
 *
 * Functions named tqi_m_* are shared between these files; everything else visible is in meta.h.
 *
 * How one change stays all or nothing: a change first plans (checks everything, allocates everything, marks what it
 * would use), then either undoes the plan or commits it.  Committing uses only functions documented here as "cannot
 * fail".  CRoaring is the one exception: its bitmaps have no way to reserve, and end the process when memory is gone.
 */
#ifndef TQI_META_INTERNAL_H
#define TQI_META_INTERNAL_H

#include "base/buf.h"
#include "base/error.h"
#include "base/type.h"
#include "meta/meta.h"

#include <roaring/roaring.h>
#include <stdlib.h>
#include <string.h>

/* A failed insertion leaves the table as it was and sets `hash_failed`, which every caller of HASH_ADD* declares. */
#define HASH_NONFATAL_OOM           1
#define uthash_nonfatal_oom(object) ((void)(hash_failed = true))
#include <uthash.h>
#include <utlist.h>

typedef struct tqi_sample tqi_sample;
typedef struct tqi_extras tqi_extras;
typedef struct tqi_group tqi_group;
typedef struct tqi_tag tqi_tag;
typedef struct tqi_tag_name tqi_tag_name;
typedef struct tqi_field tqi_field;
typedef struct tqi_set tqi_set;
typedef struct tqi_task tqi_task;
typedef struct tqi_slot tqi_slot;
typedef struct tqi_claim tqi_claim;
typedef struct tqi_session tqi_session;
typedef struct tqi_range tqi_range;
typedef struct tqi_block tqi_block;
typedef struct tqi_shape tqi_shape;
typedef struct tqi_dead_node tqi_dead_node;

/* ---------------------------------------------------------------------------------------- samples */

/* One sample, found by its global index.  While it is free, `row` is the place of the next free one. */
struct tqi_sample {
    tqi_partition *partition; /* NULL: free, or held by a clear that has not ended */
    tqi_extras *extras;       /* NULL: no key, group, tags */
    uint64_t ordinal;         /* without a partition: 1 while its index is held, else 0 */
    uint32_t incarnation;     /* of the next user while it is free */
    uint32_t row;             /* in the partition */
};

#define TQI_M_PAGE_BITS 12
#define TQI_M_PAGE      (1u << TQI_M_PAGE_BITS)

/* A tag's name, one per partition and name. */
struct tqi_tag_name {
    UT_hash_handle hh;
    uint32_t refs;
    size_t column; /* scratch of tqi_m_tags_describe */
    uint64_t stamp;
    char name[];
};

/* One tag of one sample. */
struct tqi_tag {
    tqi_tag *next;
    tqi_tag_name *name;
    uint32_t size;
    uint8_t value[];
};

/* The samples of one prompt: one per partition and name. */
struct tqi_group {
    UT_hash_handle hh;
    uint32_t samples;
    uint32_t cleared; /* samples that it has lost */
    char name[];
};

/* What few samples have. */
struct tqi_extras {
    UT_hash_handle hh; /* in the partition's keys, when it has one */
    tqi_group *group;
    tqi_tag *tags;
    uint32_t index;
    uint32_t fresh; /* place among the new samples of the plan that made it */
    size_t key_size;
    char key[]; /* "": none */
};

/* A clear that has begun: indexes that nobody gets before it ends. */
struct tqi_clearing {
    tqi_clearing *prev, *next;
    uint32_t n;
    uint32_t indexes[];
};

/* ---------------------------------------------------------------------------------------- partitions */

/* Where a cell lies: 16 bytes, an array per field, indexed by row. */
typedef struct tqi_cell {
    uint32_t block;  /* handle, or one of the marks */
    uint32_t shape;  /* handle; counted */
    uint64_t offset; /* opaque cells: a tqi_opaque pointer */
} tqi_cell;
#define TQI_CELL_NONE   0u
#define TQI_CELL_LOST   UINT32_MAX
#define TQI_CELL_OPAQUE (UINT32_MAX - 1)

typedef struct tqi_opaque {
    size_t size;
    uint8_t data[];
} tqi_opaque;

static inline bool tqi_m_produced(uint32_t block)
{
    return block != TQI_CELL_NONE && block != TQI_CELL_LOST;
}

/* A column.  It exists while it has a schema (`known`: at least one cell was produced or lost) or a field set names
 * it. */
struct tqi_field {
    UT_hash_handle hh;
    tqi_field *prev, *next; /* known ones, in order of creation */
    tqi_partition *partition;
    bool known;
    uint8_t kind;
    tq_dtype dtype;
    bool ragged;
    uint32_t shape; /* uniform: counted handle; ragged: none */
    uint64_t dim;   /* the one dim of a shape without a record */
    uint32_t like;  /* counted handle: rows are compared with this one; none: no row has two dims */
    uint8_t ragged_dim; /* 1: the rows' first dim differs, ...; 0: none is known to */
    uint32_t
        foreign; /* produced cells that are not of this kind and dtype: their shapes say what they are */
    uint32_t filled; /* of the others, those that are no tensors without elements */
    uint32_t produced;
    uint32_t lost;
    uint32_t capacity; /* rows of cells */
    tqi_cell *cells;
    tqi_set **sets; /* field sets that contain it */
    size_t n_sets;
    size_t sets_capacity;
    uint32_t plans; /* publishes in the making that refer to it */
    uint64_t stamp;
    char name[];
};

struct tqi_partition {
    tqi_meta *meta;
    UT_hash_handle hh;
    tqi_partition *prev, *next; /* existing ones, in order of creation */
    bool exists;                /* else only views or a plan refer to it */
    uint32_t plans;
    uint32_t samples;
    roaring_bitmap_t *members; /* indexes */
    roaring_bitmap_t *lost;    /* indexes of samples with lost cells */
    uint64_t next_ordinal;
    int64_t loaded_us; /* when a checkpoint made it; 0: none did */
    uint64_t bytes;
    uint64_t live_cells;
    uint32_t rows; /* used so far; rows given back are in free_rows */
    uint32_t n_free_rows;
    size_t row_capacity;
    uint32_t *free_rows;
    tqi_field *fields; /* hash */
    tqi_field *known;  /* list */
    tqi_set *sets;
    tqi_task *tasks;
    tqi_view *views;
    tqi_extras *keys;
    tqi_group *groups;
    tqi_tag_name *tag_names;
    char name[];
};

/* ---------------------------------------------------------------------------------------- views */

/* Readiness of one set of fields, shared by the views of all tasks. */
struct tqi_set {
    UT_hash_handle hh;
    tqi_partition *partition;
    tqi_view *views;
    roaring_bitmap_t *ready; /* indexes */
    uint16_t *missing;       /* per row: fields not produced */
    size_t capacity;
    uint32_t n_fields;
    tqi_field **fields; /* by name */
    size_t key_size;
    char key[]; /* the names, each with its closing 0 */
};

/* A consumer of a partition. */
struct tqi_task {
    UT_hash_handle hh;
    tqi_partition *partition;
    tqi_view *views;
    tqi_claim *claims;
    tqi_slot *slots;
    roaring_bitmap_t *consumed;
    uint32_t n_consumed;
    uint64_t generation; /* raised when consumption is reset: older claims give nothing back */
    bool kept;           /* from a snapshot: lives without views, as long as its partition exists */
    char name[];
};

typedef struct tqi_view_key {
    tqi_set *set;
    tqi_task *task;
} tqi_view_key;

struct tqi_view {
    UT_hash_handle hh; /* in the partition */
    tqi_view_key key;
    tqi_view *set_prev, *set_next;
    tqi_view *task_prev, *task_next;
    tqi_view *touched_prev, *touched_next;
    roaring_bitmap_t *avail; /* ready and not consumed */
    uint32_t count;
    uint32_t holds;
    bool touched;
    void *user;
    uint32_t *list; /* the first `listed` ones of avail, when list_valid */
    size_t list_capacity;
    uint32_t listed;
    bool list_valid;
};

/* Cached pick. */
struct tqi_slot {
    UT_hash_handle hh;
    uint32_t n;
    uint32_t *indexes; /* both lie behind the name */
    uint32_t *incarnations;
    char name[];
};

struct tqi_claim {
    UT_hash_handle hh;
    tqi_claim *session_prev, *session_next;
    tqi_claim *task_prev, *task_next;
    uint64_t id;
    tqi_session *session;
    tqi_task *task; /* NULL: the task is gone */
    uint64_t generation;
    uint32_t n;
    uint32_t *incarnations; /* behind the indexes */
    uint32_t indexes[];
};

/* ---------------------------------------------------------------------------------------- storage */

/* A shape of more than one dim (or one of 2^31 or more), one per value. */
struct tqi_shape {
    UT_hash_handle hh;
    uint64_t refs;
    uint64_t elements;
    uint32_t handle;
    uint32_t ndim;
    uint64_t type;   /* of the row; 0: that of its field */
    uint64_t dims[]; /* right behind it: both are the key of those with a type */
};
#define TQI_SHAPE_NONE   0u
#define TQI_SHAPE_SCALAR 1u
#define TQI_SHAPE_FIRST  2u
#define TQI_SHAPE_INLINE 0x80000000u /* one dim, in the low 31 bits */

/* A published block with at least one live cell.  While it is free, `live` is the next free handle. */
struct tqi_block {
    uint64_t id;
    uint64_t size;
    tqi_owner *owner;         /* NULL: free */
    tqi_partition *partition; /* all its cells are in one */
    uint64_t stamp;
    uint64_t live_bytes;
    uint64_t thin_from; /* with so many or less live it may be thin */
    uint32_t place;     /* in the batch with that stamp */
    uint32_t live;
    uint32_t row_first, row_last; /* its cells are in these rows */
    uint32_t thin_prev, thin_next;
    bool listed;  /* among its owner's thin blocks */
    bool named;   /* as one, but its owner has not said that it knows */
    uint8_t told; /* how often its owner knew */
    uint8_t locator_size;
    uint8_t locator[TQ_LOCATOR_MAX];
};
#define TQI_M_BLOCK_PAGE 256u

/* A range of dead ids in an owner's queue. */
struct tqi_dead_node {
    tqi_dead_node *next;
    uint64_t first;
    uint64_t notice;
    uint64_t number; /* of the table, in the order in which nodes were made */
    uint32_t count;
    bool writer_done;
};
#define TQI_M_DEAD_PAGE 256u

/* Blocks that die while it is open are not told to their owners. */
struct tqi_hold {
    tqi_hold *prev, *next;
    uint64_t since; /* number of the newest node when it was opened */
};

/* Ids leased to a session; it goes when none of them is unpublished. */
struct tqi_range {
    tqi_range *prev, *next; /* of the owner */
    tqi_session *session;
    tqi_owner *owner;
    uint64_t first;
    uint32_t count;
    uint32_t left;    /* unpublished */
    uint64_t used[4]; /* bit per id: published or dead */
};
#define TQI_M_LEASE_MAX 256u

struct tqi_session {
    UT_hash_handle hh;
    uint64_t id;
    tqi_range **ranges; /* in order of leasing, hence of their ids */
    size_t n_ranges;
    size_t ranges_capacity;
    tqi_claim *claims;
};

struct tqi_owner {
    UT_hash_handle hh;
    tqi_meta *meta;
    uint64_t incarnation;
    uint64_t blocks;
    uint64_t bytes;
    void *user;
    bool dropping; /* being lost: its blocks need no dead notice */
    bool outlives; /* what a writer sent may arrive after its end */
    tqi_range *ranges;
    tqi_dead_node *dead_head, *dead_tail;
    uint64_t last_notice; /* number of the newest node */
    uint64_t delivered;   /* up to this notice they were handed out: not merged any more */
    uint32_t thin_first, thin_last; /* handles of blocks of which much is dead; named ones first */
    uint64_t named;                 /* how often some were named */
    bool woken;
    tqi_owner *woken_prev, *woken_next;
    char name[];
};

struct tqi_meta {
    uint64_t epoch;
    uint64_t stamp; /* raised per operation, for marks in records */

    /* samples */
    tqi_sample **pages;
    size_t n_pages;
    size_t pages_capacity;
    uint32_t first_index; /* of place 0 */
    uint32_t first_incarnation;
    uint64_t first_ordinal;
    uint32_t places; /* used so far */
    uint32_t free_head, free_tail, n_free;
    uint64_t n_samples;
    tqi_clearing *clearings; /* in order of beginning */
    tqi_clearing *clearing;  /* the one that is being begun: takes the indexes that are freed */

    /* partitions */
    tqi_partition *partitions; /* hash, also of those that do not exist */
    tqi_partition *existing;   /* list */
    int64_t loaded_us;         /* when a checkpoint last replaced all of them; 0: none did */
    tqi_view *touched;

    /* claims */
    tqi_claim *claims;
    uint64_t next_claim;
    tqi_session *sessions;

    bool strict_schema;

    /* shapes */
    tqi_shape *shapes; /* hash */
    tqi_shape *typed;  /* likewise, those with a type */
    tqi_shape **shape_table;
    uint32_t shape_places;
    size_t shape_capacity;
    uint32_t *shape_free;
    size_t shape_free_capacity;
    uint32_t n_shape_free;

    /* blocks */
    tqi_block **block_pages;
    size_t n_block_pages;
    size_t block_pages_capacity;
    uint32_t block_free;
    uint32_t n_block_free;
    uint32_t n_blocks;
    uint32_t *block_map; /* open addressing: id -> handle */
    uint32_t block_map_size;
    uint64_t next_block;
    uint64_t n_ranges;

    /* owners */
    tqi_owner *owners;
    tqi_owner *woken;
    tqi_dead_node **dead_pages;
    size_t n_dead_pages;
    size_t dead_pages_capacity;
    tqi_dead_node *dead_free;
    uint64_t n_dead_free;
    uint64_t
        dead_reserved; /* one per live block and per unpublished id; never more than n_dead_free */
    uint64_t n_dead;
    uint64_t last_dead; /* number of the newest node */
    tqi_hold *holds;    /* in order of opening */
};

/* ---------------------------------------------------------------------------------------- sample.c */

static inline tqi_sample *tqi_m_place(const tqi_meta *meta, uint32_t place)
{
    return &meta->pages[place >> TQI_M_PAGE_BITS][place & (TQI_M_PAGE - 1)];
}

/* The sample of an index, also a free one; NULL when the index was never used. */
static inline tqi_sample *tqi_m_sample(const tqi_meta *meta, uint32_t index)
{
    uint32_t place = index - meta->first_index;
    return place < meta->places ? tqi_m_place(meta, place) : NULL;
}

/* The sample of an index if it is in the partition (and of that incarnation; 0: any), else NULL. */
tqi_sample *tqi_m_member(const tqi_partition *partition, uint32_t index, uint32_t incarnation);
/* TQ_ECLEARED: names those of the samples that are no members, and says when a checkpoint replaced them. */
int tqi_m_cleared(const tqi_partition *partition, const uint32_t *indexes,
                  const uint32_t *incarnations, size_t n, tq_error *err);
/* TQ_EKEY, TQ_EFIELD: say what there is; the name may be NULL. */
int tqi_m_unknown_key(const tqi_partition *partition, const char *key, tq_error *err);
int tqi_m_unknown_field(const tqi_partition *partition, const char *name, tq_error *err);
/* Says which indexes the next n samples will get, first freed first, and allocates room for them. */
int tqi_m_samples_plan(tqi_meta *meta, uint32_t n, uint32_t *indexes, tq_error *err);
/* Pages for places below `end`. */
int tqi_m_samples_reserve(tqi_meta *meta, uint64_t end, tq_error *err);
/* Takes the next of the planned ones.  Cannot fail after a plan. */
tqi_sample *tqi_m_sample_take(tqi_meta *meta, uint32_t *index);
/* Whether the next new sample may get the index. */
static inline bool tqi_m_index_free(const tqi_sample *sample)
{
    return sample->partition == NULL && sample->ordinal == 0;
}
/* Puts a place at the end of the queue of free ones.  Cannot fail. */
void tqi_m_place_free(tqi_meta *meta, uint32_t place);
/* Clears one sample: cells, extras, consumption, readiness, row; frees its index (or the clear that is being begun gets
 * it).  Cannot fail. */
void tqi_m_sample_clear(tqi_partition *partition, uint32_t index);
void tqi_m_samples_fini(tqi_meta *meta);
/* clearing.c */
void tqi_m_clearings_fini(tqi_meta *meta);

/* Extras with a key ("" or NULL: none), not linked anywhere. */
tqi_extras *tqi_m_extras_alloc(const char *key);
/* Links extras into the keys of the partition; TQ_OK or TQ_ENOMEM. */
int tqi_m_key_add(tqi_partition *partition, tqi_extras *extras);
tqi_extras *tqi_m_key_find(const tqi_partition *partition, const char *key);
/* Unlinks key and group, frees tags and the extras. */
void tqi_m_extras_free(tqi_partition *partition, tqi_extras *extras);
/* Puts extras into a group; TQ_OK or TQ_ENOMEM. */
int tqi_m_group_join(tqi_partition *partition, tqi_extras *extras, const char *name);

/* ---------------------------------------------------------------------------------------- partition.c */

tqi_partition *tqi_m_partition_lookup(const tqi_meta *meta, const char *name); /* existing or not */
/* Makes one more of that name, as not existing; finding by name is only done when the other one has gone. */
int tqi_m_partition_make(tqi_meta *meta, const char *name, tqi_partition **out, tq_error *err);
/* Also makes it, as not existing; the caller gives it a plan or a view, or calls gc. */
int tqi_m_partition_get(tqi_meta *meta, const char *name, tqi_partition **out, tq_error *err);
/* It is written to: from now on it exists.  Cannot fail. */
void tqi_m_partition_born(tqi_partition *partition);
/* Frees it if it does not exist and nothing refers to it. */
void tqi_m_partition_gc(tqi_partition *partition);
/* Room for n more rows in the row list and in all field sets. */
int tqi_m_rows_reserve(tqi_partition *partition, size_t n, tq_error *err);
/* The row that the i-th sample from now on gets. */
uint32_t tqi_m_row_peek(const tqi_partition *partition, uint32_t i);
uint32_t tqi_m_row_take(tqi_partition *partition);
void tqi_m_row_free(tqi_partition *partition, uint32_t row);
/* Drops everything in it, whatever refers to it, and itself. */
void tqi_m_partition_destroy(tqi_partition *partition);

/* ---------------------------------------------------------------------------------------- field.c */

tqi_field *tqi_m_field_find(const tqi_partition *partition, const char *name); /* known or not */
int tqi_m_field_get(tqi_partition *partition, const char *name, tqi_field **out, tq_error *err);
/* Frees it when it has neither schema, field set nor plan. */
void tqi_m_field_gc(tqi_field *field);
int tqi_m_field_reserve(tqi_field *field, size_t rows, tq_error *err);
/* The field gets a schema; takes over the counted shape (none: ragged).  Cannot fail. */
void tqi_m_field_learn(tqi_field *field, uint8_t kind, tq_dtype dtype, uint32_t shape);
/* Notes which dim of its rows is ragged, and the shape that they are compared with. */
void tqi_m_field_set_ragged_dim(tqi_field *field, uint8_t dim, uint32_t like);
/* What its rows are from now on, but for those with types of their own.  No row of the old type is left that has bytes. */
void tqi_m_field_set_type(tqi_field *field, uint32_t type);
static inline uint32_t tqi_m_field_type(const tqi_field *field)
{
    return tqi_type_pack(field->kind, field->dtype);
}
static inline uint32_t tqi_m_cell_type(const tqi_field *field, const tqi_cell *cell);
/* Whether the row says something of its field's type: a tensor without elements does not. */
bool tqi_m_cell_filled(const tqi_field *field, const tqi_cell *cell);
/* Counts a produced cell by its type. */
void tqi_m_cell_count(tqi_field *field, const tqi_cell *cell);
/* Takes away what the row has, before the type of its field changes; a cell that counts as produced stays in its place
 * until another one is linked. */
void tqi_m_cell_blank(tqi_field *field, uint32_t row);
/* From now on its rows have shapes of their own. */
void tqi_m_field_make_ragged(tqi_field *field);
/* Sets the cell of a row to a block or opaque bytes.  Takes over the counted shape (and the bytes); counts the block;
 * releases what was there; updates readiness.  Cannot fail. */
void tqi_m_cell_link(tqi_field *field, uint32_t index, uint32_t row, tqi_cell cell);
/* Sets the cell of a row to `mark` (TQI_CELL_NONE or TQI_CELL_LOST).  The field may lose its schema with its last cell,
 * but it is not freed: call gc.  Cannot fail. */
void tqi_m_cell_unlink(tqi_field *field, uint32_t index, uint32_t row, uint32_t mark);
uint64_t tqi_m_cell_bytes(const tqi_field *field, const tqi_cell *cell);
/* The schema and the cells go; the field stays. */
void tqi_m_field_forget(tqi_field *field);
static inline tqi_cell tqi_m_cell(const tqi_field *field, uint32_t row)
{
    return row < field->capacity ? field->cells[row] : (tqi_cell){0, 0, 0};
}

/* ---------------------------------------------------------------------------------------- shape.c */

/* Handle of a shape, counted once.  TQ_EINVAL when the number of elements overflows. */
int tqi_m_shape_get(tqi_meta *meta, uint32_t ndim, const uint64_t *dims, uint32_t *handle,
                    tq_error *err);
/* The same for a row that is not of its field's type; type 0: it is. */
int tqi_m_shape_get_typed(tqi_meta *meta, uint32_t type, uint32_t ndim, const uint64_t *dims,
                          uint32_t *handle, tq_error *err);
/* The type that a row's shape has to say when its field is of the type `own`: 0 if it is of that one, or a tensor without
 * elements, which takes the dtype of its field. */
uint32_t tqi_m_relative_type(uint32_t own, uint32_t type, uint32_t ndim, const uint64_t *dims);
/* Type of a row with a type of its own, else 0. */
uint32_t tqi_m_shape_type(const tqi_meta *meta, uint32_t handle);
void tqi_m_shape_hold(tqi_meta *meta, uint32_t handle, uint64_t n);
void tqi_m_shape_rele(tqi_meta *meta, uint32_t handle, uint64_t n);
uint64_t tqi_m_shape_elements(const tqi_meta *meta, uint32_t handle);
/* Dims of a handle; `room` holds the one dim of those without a record. */
const uint64_t *tqi_m_shape_dims(const tqi_meta *meta, uint32_t handle, uint64_t *room,
                                 uint32_t *ndim);
/* Compares a row's shape with *like (which it becomes if there is none) and notes in *dim where they differ.  Rows of one
 * dim or none, and those of another number of dims, say nothing. */
void tqi_m_shape_vary(const tqi_meta *meta, uint32_t handle, uint32_t *like, uint8_t *dim);
void tqi_m_shapes_fini(tqi_meta *meta);
static inline uint32_t tqi_m_cell_type(const tqi_field *field, const tqi_cell *cell)
{
    uint32_t type = field->foreign > 0 ? tqi_m_shape_type(field->partition->meta, cell->shape) : 0;

    return type != 0 ? type : tqi_m_field_type(field);
}

/* ---------------------------------------------------------------------------------------- block.c */

static inline tqi_block *tqi_m_block(const tqi_meta *meta, uint32_t handle)
{
    return &meta->block_pages[(handle - 1) / TQI_M_BLOCK_PAGE][(handle - 1) % TQI_M_BLOCK_PAGE];
}
/* Room for n more blocks. */
int tqi_m_blocks_reserve(tqi_meta *meta, size_t n, tq_error *err);
/* Makes a block with one hold (live 1), so that it does not die while it is being linked.  Cannot fail after reserve. */
uint32_t tqi_m_block_add(tqi_meta *meta, const tqi_batch_block *from, tqi_owner *owner,
                         tqi_partition *partition);
/* Counts one cell more, in that row. */
static inline void tqi_m_block_link(tqi_block *block, uint32_t row, uint64_t bytes)
{
    block->live++;
    block->live_bytes += bytes;
    block->row_first = row < block->row_first ? row : block->row_first;
    block->row_last = row > block->row_last ? row : block->row_last;
}
/* Counts one cell less; the block is dead with the last one.  Cannot fail. */
void tqi_m_block_unlink(tqi_meta *meta, uint32_t handle, uint64_t bytes);
/* Ends a hold; the block is dead with the last one.  Cannot fail. */
void tqi_m_block_rele(tqi_meta *meta, uint32_t handle);
/* Whether the cell lies in a block. */
static inline bool tqi_m_stored(const tqi_cell *cell)
{
    return tqi_m_produced(cell->block) && cell->block != TQI_CELL_OPAQUE;
}
uint32_t tqi_m_block_find(const tqi_meta *meta, uint64_t id); /* 0: none */
/* Calls fn for each cell that is not TQI_CELL_NONE. */
typedef void (*tqi_m_cell_fn)(tqi_field *field, uint32_t index, uint32_t row, tqi_cell *cell,
                              void *arg);
void tqi_m_partition_cells(tqi_partition *partition, tqi_m_cell_fn fn, void *arg);
/* Makes the cells of blocks with the stamp lost, and calls `lost`. */
void tqi_m_lose_stamped(tqi_partition *partition, uint64_t stamp, tqi_lost_fn lost, void *arg);
void tqi_m_blocks_fini(tqi_meta *meta);

/* ---------------------------------------------------------------------------------------- move.c */

/* Less dead than this is not worth a move. */
#define TQI_M_THIN_MIN 1024u
/* A block with more cells is not thin: their moves would take long, and are worth little. */
#define TQI_M_THIN_CELLS 65536u
/* The most live bytes of a block of which much is dead. */
static inline uint64_t tqi_m_thin_from(const tqi_block *block)
{
    uint64_t most = (block->size - block->size / 4) >> block->told;
    uint64_t worth = block->size > TQI_M_THIN_MIN ? block->size - TQI_M_THIN_MIN : 0;

    return most < worth ? most : worth;
}
/* Names the block to its owner, if much of it is dead and it is not named yet. */
void tqi_m_thin_check(tqi_meta *meta, tqi_block *block, uint32_t handle);
/* Takes a listed block from the list. */
void tqi_m_thin_drop(tqi_meta *meta, tqi_block *block);

/* ---------------------------------------------------------------------------------------- lease.c */

tqi_session *tqi_m_session_find(const tqi_meta *meta, uint64_t id);
int tqi_m_session_get(tqi_meta *meta, uint64_t id, tqi_session **out, tq_error *err);
/* The range of an unpublished id of the session, NULL if it is none. */
tqi_range *tqi_m_range_find(const tqi_session *session, uint64_t id);
void tqi_m_range_mark(tqi_range *range, uint64_t id, bool used);
/* A marked id is published or dead: counts it, and frees the range with its last one.  Cannot fail. */
void tqi_m_range_use(tqi_meta *meta, tqi_range *range);
/* Takes the range from its session and owner and frees it. */
void tqi_m_range_free(tqi_meta *meta, tqi_range *range);

/* ---------------------------------------------------------------------------------------- dead.c */

/* One dead id (with its reservation) for the owner's queue.  Cannot fail. */
void tqi_m_dead_push(tqi_owner *owner, uint64_t id, bool writer_done);
int tqi_m_dead_reserve(tqi_meta *meta, uint32_t n, tq_error *err);
/* The owner has something to be told. */
void tqi_m_owner_wake(tqi_owner *owner);
/* The owner's queue goes. */
void tqi_m_dead_drop(tqi_owner *owner);
void tqi_m_dead_fini(tqi_meta *meta);

/* ---------------------------------------------------------------------------------------- tag.c */

/* New tag, not on a sample yet; NULL without memory. */
tqi_tag *tqi_m_tag_alloc(tqi_partition *partition, const char *name, const uint8_t *value,
                         uint32_t size);
void tqi_m_tag_free(tqi_partition *partition, tqi_tag *tag);
/* Puts it on the sample; returns the one it replaced, or NULL.  *before: how many others lie in front of it. */
tqi_tag *tqi_m_tag_set(tqi_extras *extras, tqi_tag *tag, size_t *before);
/* Takes it back and puts `old` (may be NULL) in its place. */
void tqi_m_tag_unset(tqi_extras *extras, const tqi_tag *tag, tqi_tag *old);

/* ---------------------------------------------------------------------------------------- view.c */

/* A sample joins with this row.  Cannot fail; room was reserved. */
void tqi_m_ready_join(tqi_partition *partition, uint32_t row);
/* A sample leaves: out of all field sets, views and tasks. */
void tqi_m_ready_leave(tqi_partition *partition, uint32_t index, uint32_t row);
/* A cell is produced / not any more. */
void tqi_m_ready_gain(tqi_field *field, uint32_t index, uint32_t row);
void tqi_m_ready_lose(tqi_field *field, uint32_t index, uint32_t row);
void tqi_m_task_consume(tqi_task *task, uint32_t index);
void tqi_m_task_free_sample(tqi_task *task, uint32_t index);
tqi_task *tqi_m_task_find(const tqi_partition *partition, const char *name);
int tqi_m_task_get(tqi_partition *partition, const char *name, tqi_task **out);
int tqi_m_set_reserve(tqi_set *set, size_t rows, tq_error *err);
/* The same view on another partition that has no members yet; not held. */
int tqi_m_view_twin(const tqi_view *view, tqi_partition *partition, tqi_view **out, tq_error *err);
/* All members came at once: counts what is ready anew.  Cannot fail. */
void tqi_m_views_fill(tqi_partition *partition);
/* After the partition was cleared: frees views that nobody holds, and tasks and sets without views. */
void tqi_m_views_reset(tqi_partition *partition);
/* Frees all views, held or not. */
void tqi_m_views_destroy(tqi_partition *partition);

/* ---------------------------------------------------------------------------------------- claim.c */

/* Forgets what the task consumed and picked; its claims give nothing back. */
void tqi_m_task_reset(tqi_task *task);
void tqi_m_claim_free(tqi_meta *meta, tqi_claim *claim);
/* A cached pick of n samples for the task, all of them yet to be filled in; it replaces one of that name. */
int tqi_m_slot_make(tqi_task *task, const char *name, uint32_t n, tqi_slot **out, tq_error *err);

/* ---------------------------------------------------------------------------------------- result.c */

/* A sample in a batch that is being described. */
typedef struct tqi_row {
    uint32_t index;
    uint32_t incarnation;
    uint32_t row;
    uint64_t ordinal;
    tqi_extras *extras;
} tqi_row;

static inline tqi_row tqi_m_row_of(uint32_t index, const tqi_sample *sample)
{
    return (tqi_row){index, sample->incarnation, sample->row, sample->ordinal, sample->extras};
}

/* Zero-terminated copy, array, ... that lives as long as the result.  NULL without memory. */
void *tqi_m_result_alloc(tqi_result *result, size_t count, size_t size);
char *tqi_m_result_strdup(tqi_result *result, const char *text);
/* Partition, indexes, incarnations, ordinals; with `extras` also keys, groups and tags. */
int tqi_m_describe_samples(tqi_partition *partition, const tqi_row *rows, size_t n, bool keys,
                           bool tags, tqi_result *result, tq_error *err);
/* Fields with shapes, runs and blocks. */
int tqi_m_describe_fields(tqi_partition *partition, const tqi_row *rows, size_t n,
                          tqi_field *const *fields, size_t n_fields, tqi_result *result,
                          tq_error *err);
/* Tags of the rows as columns. */
int tqi_m_tags_describe(tqi_meta *meta, const tqi_row *rows, size_t n, tqi_result *result,
                        tq_error *err);

#endif
