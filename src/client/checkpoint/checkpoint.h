/*
 * checkpoint.h - what saving (save.c) and loading (load.c) share: steps, and the blocks of a checkpoint.
 *
 * A step is a request, a job of the manager or work in the thread pool; a task has one at a time. Cancelling takes
 * effect between steps. A step has the client's timeout; the operation as a whole has a deadline only if its user set
 * one, because its duration depends on the amount of data.
 */
#ifndef TQI_CLIENT_CHECKPOINT_CHECKPOINT_H
#define TQI_CLIENT_CHECKPOINT_CHECKPOINT_H

#include "client/checkpoint/files.h"
#include "client/runtime.h"

/* A block is in a checkpoint once. */
typedef struct tqi_client_ckpt_block tqi_client_ckpt_block;
/* Zero-initialise. */
typedef struct tqi_client_ckpt_blocks {
    tqi_region region;
    tqi_client_ckpt_block *by_id; /* hash */
    tqi_client_ckpt_block *first, *last;
    uint64_t n;
    uint64_t bytes;
} tqi_client_ckpt_blocks;

struct tqi_client_ckpt_block {
    tqi_client_ckpt_block *next;
    tq_block from;      /* as saved; only saving uses owner and locator */
    tq_block to;        /* where it is now; loading */
    uint64_t shift;     /* of its bytes in `to` */
    uint64_t partition; /* number of its partition */
};

/* Adds the blocks of a part that are not known yet. TQ_ECHECKPOINT if one contradicts an earlier one. */
int tqi_client_ckpt_collect(tqi_client_ckpt_blocks *blocks, const Tq__SnapshotPart *part, uint64_t partition,
                            tq_error *err);
tqi_client_ckpt_block *tqi_client_ckpt_find(const tqi_client_ckpt_blocks *blocks, uint64_t id);
void tqi_client_ckpt_blocks_fini(tqi_client_ckpt_blocks *blocks);

/* A snapshot that is kept open. Zero-initialise. */
typedef struct tqi_client_ckpt_kept {
    tqi_client_runtime *rt; /* NULL: not kept */
    uint64_t snapshot;
    struct tqi_client_ckpt_kept *prev, *next; /* runtime->kept */
} tqi_client_ckpt_kept;

/* --- keep.c --------------------------------------------------------------- */

/* Tells the controller regularly that the snapshot is in use. */
void tqi_client_ckpt_keep_begin(tqi_client_ckpt_kept *kept, tqi_client_runtime *rt, uint64_t snapshot);
/* Ends that, if it was begun. */
void tqi_client_ckpt_keep_end(tqi_client_ckpt_kept *kept);

/* --- checkpoint.c --------------------------------------------------------- */

/* Deadline of a step that begins now. */
uint64_t tqi_client_ckpt_step_deadline(const tqi_client_task *task);
/* A request with the deadline of a step. */
int tqi_client_ckpt_call(tqi_client_task *task, uint16_t kind, const ProtobufCMessage *message,
                         void (*answered)(tqi_client_task *task, tqi_net_answer *answer), tq_error *err);
/* Checks the task's deadline and whether it was cancelled: TQ_OK, or why it must stop. */
int tqi_client_ckpt_go_on(const tqi_client_task *task, tq_error *err);
/* Runs something in the thread pool, then `done` on the loop; both get the task, and *work_error holds what went
 * wrong. The caller must not touch the task after this. */
void tqi_client_ckpt_work(tqi_client_task *task, tq_error *work_error, void (*work)(void *arg), void (*done)(void *arg));
/* Makes the task of a checkpoint's operation; NULL with *code set. */
tqi_client_task *tqi_client_ckpt_make(tq_op *op, const tqi_client_task_type *type, int *rc);
/* Its result. */
int tqi_client_ckpt_result(tq_op *op, const tq_checkpoint *result, const char *metadata, tq_error *err);

#endif
