/*
 * restore.h - a restore being prepared, shared by restore.c (samples and the whole), restore_cells.c (fields, cells
 * and blocks) and restore_commit.c. Only files of src/table include it. The partitions are built beside those that they
 * replace, under the same name, without anything that the rest of the table would see: their samples have no records
 * yet, and their cells name blocks by their index in the part. Building them may fail; they are then dropped.
 * Committing only links, and cannot fail.
 */
#ifndef TQI_TABLE_RESTORE_H
#define TQI_TABLE_RESTORE_H

#include "table/records.h"
#include "table/snapshot.h"

/* A block that cells of the part lie in; sorted by id. */
typedef struct tqi_table_restore_block {
    const tqi_table_batch_block *in;
    tqi_table_range *range; /* of an unpublished id, marked */
    uint32_t handle;        /* of a live block that is relinked; 0: it is lost, or unpublished */
    uint32_t cells;
    uint64_t bytes; /* of them */
    uint32_t row_first, row_last;
} tqi_table_restore_block;

typedef struct tqi_table_restore_view {
    tqi_table_view *from;
    tqi_table_view *to;
} tqi_table_restore_view;

typedef struct tqi_table_restore_part {
    const tqi_table_snap_partition *in;
    tqi_table_partition *old;  /* what it replaces; NULL: nothing */
    tqi_table_partition *made; /* row i is sample i */
    size_t n;                  /* samples */
    uint32_t *saved;           /* their indexes in the snapshot, ascending */
    uint32_t *indexes;         /* and here */
    uint64_t *ordinals;
    tqi_table_extras **extras;
    roaring_bitmap_t *members;
    tqi_table_restore_block *blocks;
    size_t n_blocks;
    tqi_table_restore_view *views;
    size_t n_views;
} tqi_table_restore_part;

typedef struct tqi_table_restoring {
    tqi_table *table;
    const tqi_table_restore_state *ask;
    tqi_table_restore_part *parts;
    uint64_t end; /* of the places that are needed */
    tqi_table_restored out;
} tqi_table_restoring;

/* Finds the blocks of a part, and their state here. */
int tqi_t_restore_blocks(const tqi_table_restoring *run, tqi_table_restore_part *part, tq_error *err);
/* Fields and cells of a part. */
int tqi_t_restore_fields(tqi_table_restoring *run, tqi_table_restore_part *part, tq_error *err);
/* Drops what these two have made. */
void tqi_t_restore_undo_fields(tqi_table_restore_part *part);
void tqi_t_restore_commit(tqi_table_restoring *run);

#endif
