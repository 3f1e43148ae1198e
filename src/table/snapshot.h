/*
 * snapshot.h - the state of partitions as a value: taken from a table, and restored into one.
 *
 * A snapshot is made of parts, so that none of them is large: the head of a partition (schemas, tasks, cached picks),
 * then its samples in pieces, by ascending index. Numbers are those of the original table; ordinals count from 0.
 * Consumption is what the tasks have been given, acknowledged or not.
 */
#ifndef TQI_TABLE_SNAPSHOT_H
#define TQI_TABLE_SNAPSHOT_H

#include "table/table.h"

/* A cached pick of a sampler. */
typedef struct tqi_table_snap_cached_pick {
    const char *name;
    const uint32_t *indexes;
    size_t n;
} tqi_table_snap_cached_pick;

typedef struct tqi_table_snap_task {
    const char *name;
    const tqi_table_snap_cached_pick *cached_picks;
    size_t n_cached_picks;
} tqi_table_snap_task;

/* Samples with everything they have. */
typedef struct tqi_table_snap_rows {
    tqi_table_batch batch;
    const uint8_t *consumed; /* a byte per task and sample, all samples of a task end to end */
    size_t n_consumed;       /* bytes of it: tasks times samples, or 0: nothing is consumed */
} tqi_table_snap_rows;

typedef struct tqi_table_snap_partition {
    const char *name;
    uint64_t next_ordinal;
    const tqi_table_field_info *fields; /* in order of creation; produced and lost are ignored */
    size_t n_fields;
    const tqi_table_snap_task *tasks; /* in order of creation */
    size_t n_tasks;
    const tqi_table_snap_rows *rows;
    size_t n_rows;
} tqi_table_snap_partition;

/* Everything of a partition except its samples (rows is empty); the memory belongs to `result`, which holds nothing
 * else. */
int tqi_table_snapshot_head(tqi_table_partition *partition, tqi_table_snap_partition *out, tqi_table_result *result,
                            tq_error *err);
/* At most `max` samples with an index of at least *next; batch.n 0: there are none left. *next is where to continue.
 * The memory belongs to `result`. */
int tqi_table_snapshot_rows(tqi_table_partition *partition, uint64_t *next, size_t max, tqi_table_snap_rows *out,
                            tqi_table_result *result, tq_error *err);

/* What to restore, and how. */
typedef struct tqi_table_restore_state {
    const tqi_table_snap_partition *partitions; /* in order of creation */
    size_t n;
    bool partial; /* partitions that are not among them stay */
    /* Cells in a block that lives in the same partition (same id, owner, size) are linked to it again, all others are
     * lost. Else every block is an unpublished one of `session`. */
    bool relink;
    uint64_t session;
    int64_t now_us; /* what errors about metadata from before it will say */
    /* A referenced view of a replaced partition moves to the new one with all its references; `to` replaces `from`,
     * which ends with the call. May be NULL when no view is held. */
    void (*moved)(tqi_table_view *from, tqi_table_view *to, void *arg);
    void *arg;
} tqi_table_restore_state;

typedef struct tqi_table_restored {
    uint64_t samples;
    uint64_t lost;   /* cells that are lost */
    bool renumbered; /* an index was taken: all samples got others, in the same order */
} tqi_table_restored;

/* Replaces all partitions, or the named ones, with those of a snapshot: all or nothing. Samples keep their indexes
 * (but see renumbered) and get the next incarnation, so that metadata from before no longer matches. The snapshot is
 * validated: TQ_EINVAL names what is wrong. Blocks of the session that no cell needs die. */
int tqi_table_restore(tqi_table *table, const tqi_table_restore_state *restore, tqi_table_restored *out, tq_error *err);

#endif
