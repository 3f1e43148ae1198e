/*
 * trail.h - the commits of the seed in their order, joined with what the clients saw: which op is behind each commit,
 * and what every sample held at any time.
 *
 * Times are numbers of commits: the state at c is that after commit c.
 */
#ifndef TQ_SIM_TRAIL_H
#define TQ_SIM_TRAIL_H

#include "oracle/history.h"
#include "oracle/witness.h"

#define TRAIL_NEVER UINT64_MAX

typedef struct trail_write {
    uint64_t commit;
    const history_op *op; /* NULL: not of an op of the history */
    uint32_t position;    /* of the sample in the op */
} trail_write;

typedef struct trail_cell {
    const char *field; /* history_text */
    trail_write *writes;
    uint32_t n, size;
} trail_cell;

/* A task has consumed a sample. */
typedef struct trail_use {
    const char *task;
    uint64_t claim;
    uint64_t taken, freed; /* commits; freed: TRAIL_NEVER */
} trail_use;

/* Among the cells of a sample: its tag "op". */
#define TRAIL_TAG "#op"

typedef struct trail_partition trail_partition;

typedef struct trail_sample {
    uint32_t index, incarnation;
    const char *key;        /* history_text; NULL: none */
    uint64_t made, cleared; /* commits; cleared: TRAIL_NEVER */
    const char *group;      /* history_text; NULL: none, if it is known */
    bool group_known;
    bool restored; /* by a load of which nothing is known, so nothing is of its cells */
    trail_cell *cells;
    uint32_t n_cells, cells_size;
    trail_use *uses;
    uint32_t n_uses, uses_size;
    uint64_t *losses; /* commits */
    uint32_t n_losses, losses_size;
    trail_partition *partition;
    struct trail_sample *next_index, *next_key; /* in the tables of trail.c: older ones */
} trail_sample;

struct trail_partition {
    const char *name; /* history_text */
    uint64_t epoch;
    trail_sample **samples; /* in order of joining */
    size_t n, size;
    trail_partition *next;
};

/* Reads all commits; again after more of them. Ends the seed when a commit contradicts what was before it, or is of
 * nobody. */
void trail_update(void);
/* Per seed: forgets everything (the memory is the history's). */
void trail_end(void);

/* The commit of that number, from 1. */
const witness_commit *trail_commit_at(uint64_t number);
uint64_t trail_count(void);
/* The first commit of an op, or NULL; of a claim, clear, reset or put without a tag once trail_match has found it. */
const witness_commit *trail_commit_of(const history_op *op);
/* The op of a commit, or NULL. */
const history_op *trail_op_of(const witness_commit *commit);
/* Notes that they belong together. */
void trail_match(const history_op *op, const witness_commit *commit);

/* The epoch of the controller that the questions below are about. */
void trail_set_epoch(uint64_t epoch);
uint64_t trail_epoch(void);
/* The partition of that name; NULL: nothing was ever in it. */
const trail_partition *trail_partition_of(const char *name);
/* The sample; incarnation 0: that which is there at c. NULL: there is none. */
const trail_sample *trail_sample_of(const char *partition, uint32_t index, uint32_t incarnation, uint64_t c);
/* The sample that has this key at c; NULL: none. */
const trail_sample *trail_key_at(const char *partition, const char *key, uint64_t c);

static inline bool trail_alive(const trail_sample *sample, uint64_t c)
{
    return sample->made <= c && sample->cleared > c;
}

const trail_cell *trail_cell_of(const trail_sample *sample, const char *field);
/* The last write of a cell up to c; NULL: none. */
const trail_write *trail_write_at(const trail_cell *cell, uint64_t c);
/* Whether the sample has lost cells between that write and c. */
bool trail_lost(const trail_sample *sample, const trail_write *write, uint64_t c);
/* Whether the task has consumed the sample at c. */
bool trail_used(const trail_sample *sample, const char *task, uint64_t c);

#endif
