/*
 * records.h - the records that make up the table. Only files of src/table include it, and the headers with the
 * functions on them: sample.h, field.h, block.h, claim.h and result.h.
 *
 * Functions named tqi_t_* are shared between these files; everything else visible is in table.h.
 *
 * How one change stays all or nothing: a change first plans (checks everything, allocates everything, marks what it
 * would use), then either undoes the plan or commits it. Committing uses only functions documented here as "cannot
 * fail". CRoaring is the one exception: its bitmaps cannot reserve memory, and abort the process if there is none.
 */
#ifndef TQI_TABLE_RECORDS_H
#define TQI_TABLE_RECORDS_H

#include "base/buf.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/type.h"
#include "table/table.h"

#include <roaring/roaring.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

typedef struct tqi_table_sample tqi_table_sample;
typedef struct tqi_table_extras tqi_table_extras;
typedef struct tqi_table_group tqi_table_group;
typedef struct tqi_table_tag tqi_table_tag;
typedef struct tqi_table_tag_name tqi_table_tag_name;
typedef struct tqi_table_field tqi_table_field;
typedef struct tqi_table_set tqi_table_set;
typedef struct tqi_table_task tqi_table_task;
typedef struct tqi_table_cached_pick tqi_table_cached_pick;
typedef struct tqi_table_claim tqi_table_claim;
typedef struct tqi_table_session tqi_table_session;
typedef struct tqi_table_range tqi_table_range;
typedef struct tqi_table_block tqi_table_block;
typedef struct tqi_table_shape tqi_table_shape;
typedef struct tqi_table_dead_node tqi_table_dead_node;

/* --- samples -------------------------------------------------------------- */

/* One sample, found by its global index. While it is free, `row` is the index of the next free one. */
struct tqi_table_sample {
    tqi_table_partition *partition; /* NULL: free, or held by a clear that has not ended */
    tqi_table_extras *extras;       /* NULL: no key, group, tags */
    uint64_t ordinal;               /* without a partition: 1 while its index is held, else 0 */
    uint32_t incarnation;           /* of the next user while it is free */
    uint32_t row;                   /* in the partition */
};

#define TQI_T_PAGE_BITS 12
#define TQI_T_PAGE      (1u << TQI_T_PAGE_BITS)

/* A tag's name, one per partition and name. */
struct tqi_table_tag_name {
    UT_hash_handle hh;
    uint32_t refs;
    size_t column; /* scratch of tqi_t_tags_describe */
    uint64_t stamp;
    char name[];
};

/* One tag of one sample. */
struct tqi_table_tag {
    tqi_table_tag *next;
    tqi_table_tag_name *name;
    uint32_t size;
    uint8_t value[];
};

/* The samples of one prompt: one record per partition and name. */
struct tqi_table_group {
    UT_hash_handle hh;
    uint64_t number; /* in order of creation; hash tables that have groups as keys do not depend on addresses */
    uint32_t samples;
    uint32_t cleared; /* samples that it has lost */
    char name[];
};

/* Attributes that few samples have. */
struct tqi_table_extras {
    UT_hash_handle hh; /* in the partition's keys, when it has one */
    tqi_table_group *group;
    tqi_table_tag *tags;
    uint32_t index;
    uint32_t fresh; /* index among the new samples of the plan that made it */
    size_t key_size;
    char key[]; /* "": none */
};

/* A clear that has begun: indexes that are not reused before it ends. */
struct tqi_table_clearing {
    tqi_table_clearing *prev, *next;
    uint32_t n;
    uint32_t indexes[];
};

/* --- partitions ----------------------------------------------------------- */

/* Where a cell lies: 16 bytes, an array per field, indexed by row. */
typedef struct tqi_table_cell {
    uint32_t block;  /* handle, or a mark (base/marks.h) */
    uint32_t shape;  /* handle; counted */
    uint64_t offset; /* opaque cells: a tqi_table_opaque pointer */
} tqi_table_cell;

typedef struct tqi_table_opaque {
    size_t size;
    uint8_t data[];
} tqi_table_opaque;

static inline bool tqi_t_produced(uint32_t block)
{
    return block != TQI_BLOCK_NONE && block != TQI_BLOCK_LOST;
}

/* A column. It exists while it has a schema (`known`: at least one cell was produced or lost) or a field set names
 * it. */
struct tqi_table_field {
    UT_hash_handle hh;
    tqi_table_field *prev, *next; /* known ones, in order of creation */
    tqi_table_partition *partition;
    bool known;
    uint8_t kind;
    tq_dtype dtype;
    bool ragged;
    uint32_t shape; /* uniform: counted handle; ragged: none */
    uint64_t dim;   /* the one dim of a shape without a record */
    /* counted handle of the shape with which rows are compared; none: no row has two dims */
    uint32_t like;
    uint8_t ragged_dim; /* 1: the rows' first dim differs, ...; 0: none is known to */
    uint32_t foreign;   /* produced cells of another kind or dtype, which their shapes record */
    uint32_t filled;    /* the other cells, except tensors without elements */
    uint32_t produced;
    uint32_t lost;
    uint32_t capacity; /* rows of cells */
    tqi_table_cell *cells;
    tqi_table_set **sets; /* field sets that contain it */
    size_t n_sets;
    size_t sets_capacity;
    uint32_t plans; /* planned publishes that refer to it */
    uint64_t stamp;
    char name[];
};

struct tqi_table_partition {
    tqi_table *table;
    UT_hash_handle hh;
    uint64_t number;                  /* in order of creation of the partitions */
    tqi_table_partition *prev, *next; /* existing ones, in order of creation */
    bool exists;                      /* else only views or a plan refer to it */
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
    tqi_table_field *fields; /* hash */
    tqi_table_field *known;  /* list */
    tqi_table_set *sets;
    tqi_table_task *tasks;
    tqi_table_view *views;
    tqi_table_extras *keys;
    tqi_table_group *groups;
    tqi_table_tag_name *tag_names;
    char name[];
};

/* --- views ---------------------------------------------------------------- */

/* Readiness of one set of fields, shared by the views of all tasks. */
struct tqi_table_set {
    UT_hash_handle hh;
    uint64_t number; /* in order of creation */
    tqi_table_partition *partition;
    tqi_table_view *views;
    roaring_bitmap_t *ready; /* indexes */
    uint16_t *missing;       /* per row: fields not produced */
    size_t capacity;
    uint32_t n_fields;
    tqi_table_field **fields; /* by name */
    size_t key_size;
    char key[]; /* the names, each with its closing 0 */
};

/* A consumer of a partition. */
struct tqi_table_task {
    UT_hash_handle hh;
    uint64_t number; /* in order of creation */
    tqi_table_partition *partition;
    tqi_table_view *views;
    tqi_table_claim *claims;
    tqi_table_cached_pick *cached_picks;
    roaring_bitmap_t *consumed;
    uint32_t n_consumed;
    /* incremented when consumption is reset: older claims then give nothing back */
    uint64_t generation;
    bool kept; /* from a snapshot: lives without views, as long as its partition exists */
    char name[];
};

typedef struct tqi_table_view_key {
    tqi_table_set *set;
    tqi_table_task *task;
} tqi_table_view_key;

struct tqi_table_view {
    UT_hash_handle hh; /* in the partition, by numbers */
    tqi_table_view_key key;
    uint64_t numbers[2]; /* of the key */
    tqi_table_view *set_prev, *set_next;
    tqi_table_view *task_prev, *task_next;
    tqi_table_view *touched_prev, *touched_next;
    roaring_bitmap_t *avail; /* ready and not consumed */
    uint32_t count;
    uint32_t refs;
    bool touched;
    void *user;
    uint32_t *list; /* the first `listed` ones of avail, when list_valid */
    size_t list_capacity;
    uint32_t listed;
    bool list_valid;
};

/* Cached pick. */
struct tqi_table_cached_pick {
    UT_hash_handle hh;
    uint32_t n;
    uint32_t *indexes; /* both follow the name */
    uint32_t *incarnations;
    char name[];
};

struct tqi_table_claim {
    UT_hash_handle hh;
    tqi_table_claim *session_prev, *session_next;
    tqi_table_claim *task_prev, *task_next;
    uint64_t id;
    tqi_table_session *session;
    tqi_table_task *task; /* NULL: the task is gone */
    uint64_t generation;
    uint32_t n;
    uint32_t *incarnations; /* after the indexes */
    uint32_t indexes[];
};

/* --- storage -------------------------------------------------------------- */

/* A shape of more than one dim (or one of 2^31 or more), one per value. */
struct tqi_table_shape {
    UT_hash_handle hh;
    uint64_t refs;
    uint64_t elements;
    uint32_t handle;
    uint32_t ndim;
    uint64_t type;   /* of the row; 0: that of its field */
    uint64_t dims[]; /* right after it: together they are the key of shapes with a type */
};
#define TQI_TABLE_SHAPE_NONE   0u
#define TQI_TABLE_SHAPE_SCALAR 1u
#define TQI_TABLE_SHAPE_FIRST  2u
#define TQI_TABLE_SHAPE_INLINE 0x80000000u /* one dim, in the low 31 bits */

/* A published block with at least one live cell. While it is free, `live` is the next free handle. */
struct tqi_table_block {
    uint64_t id;
    uint64_t size;
    tqi_table_owner *owner;         /* NULL: free */
    tqi_table_partition *partition; /* all its cells are in one */
    uint64_t stamp;
    uint64_t live_bytes;
    uint64_t sparse_from; /* with this many live bytes or fewer it may be sparse */
    uint32_t place;       /* in the batch with that stamp */
    uint32_t live;
    uint32_t row_first, row_last; /* its cells are in these rows */
    uint32_t sparse_prev, sparse_next;
    bool listed;  /* among its owner's sparse blocks */
    bool named;   /* named as sparse, but its owner has not confirmed that */
    uint8_t told; /* how often its owner knew */
    uint8_t locator_size;
    uint8_t locator[TQ_LOCATOR_MAX];
};
#define TQI_T_BLOCK_PAGE 256u

/* A range of dead ids, in an owner's queue or among its late ones. */
struct tqi_table_dead_node {
    tqi_table_dead_node *next;
    uint64_t first;
    uint64_t notice;
    uint64_t number; /* of the table, in the order in which nodes were made */
    union {
        uint64_t operation; /* in which its blocks died */
        uint64_t due;       /* of a late one: when it returns to the queue */
    };
    uint32_t count;
    bool writer_done;
};
#define TQI_T_DEAD_PAGE 256u

/* Blocks that die while it is open are not reported to their owners. */
struct tqi_table_freeze {
    tqi_table_freeze *prev, *next;
    uint64_t since; /* number of the newest node when it was opened */
};

/* Ids granted to a session; freed when none of them is unpublished. */
struct tqi_table_range {
    tqi_table_range *prev, *next; /* of the owner */
    tqi_table_session *session;
    tqi_table_owner *owner;
    uint64_t first;
    uint32_t count;
    uint32_t left;                    /* unpublished */
    uint64_t used[TQ_GRANT_MAX / 64]; /* bit per id: published or dead */
};

struct tqi_table_session {
    UT_hash_handle hh;
    uint64_t id;
    tqi_table_range **ranges; /* in order of granting, and so of their ids */
    size_t n_ranges;
    size_t ranges_capacity;
    tqi_table_claim *claims;
};

struct tqi_table_owner {
    UT_hash_handle hh;
    tqi_table *table;
    uint64_t incarnation;
    uint64_t first_block; /* its ids were granted from here on */
    uint64_t blocks;
    uint64_t bytes;
    void *user;
    bool dropping; /* being lost: its blocks need no dead notice */
    bool outlives; /* a writer's requests may be executed after it has ended */
    tqi_table_range *ranges;
    tqi_table_dead_node *dead_head, *dead_tail;
    tqi_table_dead_node *late_head, *late_tail; /* freed, but may be written once more */
    uint64_t last_notice;                       /* number of the newest node */
    uint64_t delivered;                         /* up to this notice they were handed out */
    uint32_t sparse_first, sparse_last;         /* handles of sparse blocks; named ones first */
    uint64_t named;                             /* how often some were named */
    bool woken;
    tqi_table_owner *woken_prev, *woken_next;
    char name[];
};

struct tqi_table {
    uint64_t epoch;
    uint64_t stamp; /* incremented by every operation, for marks in records */

    /* samples */
    tqi_table_sample **pages;
    size_t n_pages;
    size_t pages_capacity;
    uint32_t first_index; /* of place 0 */
    uint32_t first_incarnation;
    uint64_t first_ordinal;
    uint32_t places; /* used so far */
    uint32_t free_head, free_tail, n_free;
    uint64_t n_samples;
    tqi_table_clearing *clearings; /* in order of beginning */
    tqi_table_clearing *clearing;  /* the one being begun: takes the freed indexes */

    /* partitions */
    tqi_table_partition *partitions; /* hash, also of those that do not exist */
    tqi_table_partition *existing;   /* list */
    int64_t loaded_us;               /* when a checkpoint last replaced all of them; 0: none did */
    tqi_table_view *touched;

    /* claims */
    tqi_table_claim *claims;
    uint64_t next_claim;
    tqi_table_session *sessions;

    bool strict_schema;

    /* shapes */
    tqi_table_shape *shapes; /* hash */
    tqi_table_shape *typed;  /* hash of those with a type */
    tqi_table_shape **shape_table;
    uint32_t shape_places;
    size_t shape_capacity;
    uint32_t *shape_free;
    size_t shape_free_capacity;
    uint32_t n_shape_free;

    /* blocks */
    tqi_table_block **block_pages;
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
    tqi_table_owner *owners;
    tqi_table_owner *woken;
    tqi_table_dead_node **dead_pages;
    size_t n_dead_pages;
    size_t dead_pages_capacity;
    tqi_table_dead_node *dead_free;
    uint64_t n_dead_free;
    uint64_t dead_reserved; /* one per live block and per unpublished id; never more than n_dead_free */
    uint64_t n_dead;
    uint64_t n_late;
    uint64_t last_dead; /* number of the newest node */
    /* number of the operation in which blocks may die: a call that changes the table */
    uint64_t operation;
    uint64_t last_partition;   /* number */
    uint64_t last_number;      /* of the newest set, task or group */
    tqi_table_freeze *freezes; /* in order of opening */
};

#endif
