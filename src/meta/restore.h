/*
 * restore.h - a restore being prepared, shared by restore.c (samples and the whole), restore_cells.c (fields, cells and
 * blocks) and restore_commit.c.  Only files of src/meta include it.  The partitions are built beside those that they
 * replace, under the same name, without anything that the rest of the table would see: their samples have no records yet,
 * and their cells name blocks by their index in the part.  Building them may fail; they are then dropped.  Committing only
 * links, and cannot fail.
 */
#ifndef TQI_META_RESTORE_H
#define TQI_META_RESTORE_H

#include "meta/internal.h"
#include "meta/snapshot.h"

/* A block that cells of the part lie in; sorted by id. */
typedef struct tqi_restore_block {
    const tqi_batch_block *in;
    tqi_range *range; /* of an unpublished id, marked */
    uint32_t handle;  /* of a live block that is relinked; 0: it is lost, or unpublished */
    uint32_t cells;
    uint64_t bytes; /* of them */
    uint32_t row_first, row_last;
} tqi_restore_block;

typedef struct tqi_restore_view {
    tqi_view *from;
    tqi_view *to;
} tqi_restore_view;

typedef struct tqi_restore_part {
    const tqi_snap_partition *in;
    tqi_partition *old;  /* what it replaces; NULL: nothing */
    tqi_partition *made; /* row i is sample i */
    size_t n;            /* samples */
    uint32_t *saved;     /* their indexes in the snapshot, ascending */
    uint32_t *indexes;   /* and here */
    uint64_t *ordinals;
    tqi_extras **extras;
    roaring_bitmap_t *members;
    tqi_restore_block *blocks;
    size_t n_blocks;
    tqi_restore_view *views;
    size_t n_views;
} tqi_restore_part;

typedef struct tqi_restoring {
    tqi_meta *meta;
    const tqi_restore *ask;
    tqi_restore_part *parts;
    uint64_t end; /* of the places that are needed */
    tqi_restored out;
} tqi_restoring;

/* Position of a saved index in the part; -1: no such sample. */
ptrdiff_t tqi_m_restore_find(const tqi_restore_part *part, uint32_t saved);
/* Finds the blocks of a part, and their state here. */
int tqi_m_restore_blocks(const tqi_restoring *run, tqi_restore_part *part, tq_error *err);
/* Fields and cells of a part. */
int tqi_m_restore_fields(tqi_restoring *run, tqi_restore_part *part, tq_error *err);
/* Drops what these two have made. */
void tqi_m_restore_undo_fields(tqi_restore_part *part);
void tqi_m_restore_commit(tqi_restoring *run);

#endif
