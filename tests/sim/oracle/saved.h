/*
 * saved.h - checkpoints: what is restored is what was saved.
 *
 * When the controller takes a snapshot, a picture of the ledger is kept: of each sample its index, ordinal, key,
 * group, tags, cells and the tasks that have consumed it; of each partition its tasks, their cached picks and the next
 * ordinal. When it restores one, the ledger must be as in the picture of the save that made the checkpoint. Which one
 * that is says the checkpoint itself: its user metadata is {"save": N}, where N is the number of the op.
 *
 * A client has one save and one load at a time.
 */
#ifndef TQ_SIM_ORACLE_SAVED_H
#define TQ_SIM_ORACLE_SAVED_H

#include "oracle/history.h"
#include "oracle/ledger.h"

/* Per seed. */
void saved_start(void);
void saved_paths_start(void);

/* --- what clients do: saved_paths.c ------------------------------------------ */

/* The running process begins to save that op, or has ended it. */
void saved_save_begins(const history_op *op);
void saved_save_ended(const history_op *op);
/* To load: checks whether it may end in that way, and with that checkpoint. */
void saved_load_begins(const history_op *op);
void saved_load_ended(const history_op *op);
/* A client process starts: what the former one of that number did has ended. */
void saved_client_starts(uint32_t client);

/* --- what the controller does: saved.c ---------------------------------------- */

/* The save that the process has begun last; 0: none. */
uint64_t saved_save_of(uint64_t pid);
/* The loads of the process that have opened a checkpoint and may still be committed, the last one first; 0: no more. */
uint64_t saved_load_of(uint64_t pid, uint32_t nth);
/* Of which save the checkpoint is that the load has opened; 0: none yet. */
uint64_t saved_opened(uint64_t load);
/* Samples in the snapshot of the save; false: none was taken. */
bool saved_count(uint64_t save, uint64_t *partitions, uint64_t *samples);
/* Where a restored sample comes from. */
typedef struct saved_source {
    uint64_t epoch;
    uint64_t commit; /* after which it was as it is now */
    witness_sample sample;
    bool relinked; /* its cells may have been lost */
} saved_source;
/* False: nothing is known of that restore. */
bool saved_source_of(uint64_t commit, witness_sample restored, saved_source *out);

#endif
