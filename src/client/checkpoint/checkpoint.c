/*
 * checkpoint.c - see checkpoint.h.
 */
#include "client/checkpoint/checkpoint.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/hash.h"

/* --- blocks --------------------------------------------------------------- */

/* A block with its place in the hash. */
typedef struct ckpt_entry {
    tqi_client_ckpt_block block; /* first: blocks are known by it */
    UT_hash_handle hh;
} ckpt_entry;

tqi_client_ckpt_block *tqi_client_ckpt_find(const tqi_client_ckpt_blocks *blocks, uint64_t id)
{
    ckpt_entry *head = (ckpt_entry *)blocks->by_id;
    ckpt_entry *entry = NULL;

    HASH_FIND(hh, head, &id, sizeof id, entry);
    return entry != NULL ? &entry->block : NULL;
}

static int ckpt_add(tqi_client_ckpt_blocks *blocks, const Tq__Block *in, const Tq__Owner *owner, uint64_t partition,
                    tq_error *err)
{
    ckpt_entry *head = (ckpt_entry *)blocks->by_id;
    ckpt_entry *entry = tqi_region_zero(&blocks->region, 1, sizeof(*entry));
    const char *name = blocks->last != NULL && strcmp(blocks->last->from.owner, owner->name) == 0
                           ? blocks->last->from.owner
                           : tqi_region_string(&blocks->region, owner->name);

    if (entry == NULL || name == NULL) {
        return tqi_error_nomem(err, "the blocks of a checkpoint");
    }
    entry->block.from.id = in->id;
    entry->block.from.size = in->size;
    entry->block.from.owner = name;
    entry->block.from.owner_incarnation = owner->incarnation;
    entry->block.from.locator_size = (uint8_t)in->locator.len;
    if (in->locator.len) {
        memcpy(entry->block.from.locator, in->locator.data, in->locator.len);
    }
    entry->block.partition = partition;
    if (!TQI_HASH_ADD(head, block.from.id, entry)) {
        return tqi_error_nomem(err, "the blocks of a checkpoint");
    }
    blocks->by_id = &head->block;
    if (blocks->last != NULL) {
        blocks->last->next = &entry->block;
    } else {
        blocks->first = &entry->block;
    }
    blocks->last = &entry->block;
    blocks->n++;
    return __builtin_add_overflow(blocks->bytes, in->size, &blocks->bytes)
               ? tqi_error_set(err, TQ_ECHECKPOINT, "checkpoint: its blocks are too large")
               : TQ_OK;
}

int tqi_client_ckpt_collect(tqi_client_ckpt_blocks *blocks, const Tq__SnapshotPart *part, uint64_t partition,
                            tq_error *err)
{
    const Tq__Batch *batch = part->batch;
    int rc = TQ_OK;

    for (size_t i = 0; batch != NULL && i < batch->n_block && rc == TQ_OK; i++) {
        const Tq__Block *in = batch->block[i];
        const tqi_client_ckpt_block *known = tqi_client_ckpt_find(blocks, in->id);
        if (in->owner >= batch->n_owner || in->locator.len > TQ_LOCATOR_MAX ||
            (known != NULL && (known->from.size != in->size || known->partition != partition))) {
            rc = tqi_error_set(err, TQ_ECHECKPOINT, "checkpoint: block %llu is malformed", (unsigned long long)in->id);
        } else if (known == NULL) {
            rc = ckpt_add(blocks, in, batch->owner[in->owner], partition, err);
        }
    }
    return rc;
}

void tqi_client_ckpt_blocks_fini(tqi_client_ckpt_blocks *blocks)
{
    ckpt_entry *head = (ckpt_entry *)blocks->by_id;

    HASH_CLEAR(hh, head);
    tqi_region_fini(&blocks->region);
    memset(blocks, 0, sizeof(*blocks));
}

/* --- steps ---------------------------------------------------------------- */

uint64_t tqi_client_ckpt_step_deadline(const tqi_client_task *task)
{
    uint64_t step = tqi_deadline(task->rt->client->options.timeout);

    return step < task->deadline ? step : task->deadline;
}

int tqi_client_ckpt_call(tqi_client_task *task, uint16_t kind, const ProtobufCMessage *message,
                         void (*answered)(tqi_client_task *task, tqi_net_answer *answer), tq_error *err)
{
    tqi_net_call_args args = {.kind = kind, .message = message, .deadline = tqi_client_ckpt_step_deadline(task)};

    return tqi_client_task_call_args(task, &args, answered, err);
}

int tqi_client_ckpt_go_on(const tqi_client_task *task, tq_error *err)
{
    if (task->canceled) {
        return tqi_error_set(err, TQ_ECANCELED, "cancelled");
    }
    if (task->rt->stopping) {
        return tqi_error_set(err, TQ_ECLOSED, "the client is closed: open another one");
    }
    if (task->deadline != TQI_NEVER && tqi_now() >= task->deadline) {
        return tqi_error_set(err, TQ_ETIMEDOUT, "the deadline of the checkpoint passed");
    }
    return TQ_OK;
}

void tqi_client_ckpt_work(tqi_client_task *task, tq_error *work_error, void (*work)(void *arg), void (*done)(void *arg))
{
    tq_manager_host *host = &task->rt->host;

    memset(work_error, 0, sizeof(*work_error));
    if (host->work(host, work, done, task) != TQ_OK) {
        work(task); /* no memory for the detour */
        done(task);
    }
}

tqi_client_task *tqi_client_ckpt_make(tq_op *op, const tqi_client_task_type *type, int *rc)
{
    tqi_client_task *task = tqi_client_task_make(op, type, rc);

    if (task != NULL) {
        atomic_store(&op->moved, 0);
        atomic_store(&op->to_move, 0);
        task->deadline = op->timeout != 0 ? tqi_deadline(op->timeout) : TQI_NEVER;
    }
    return task;
}

int tqi_client_ckpt_result(tq_op *op, const tq_checkpoint *result, const char *metadata, tq_error *err)
{
    tq_checkpoint *copy = tqi_region_copy(&op->results, result, 1, sizeof(*result));
    const char *text = tqi_region_string(&op->results, metadata);

    if (copy == NULL || text == NULL) {
        return tqi_error_nomem(err, "the result of a checkpoint");
    }
    copy->metadata = text;
    op->checkpoint = copy;
    return TQ_OK;
}

const tq_checkpoint *tq_op_checkpoint(const tq_op *op)
{
    return op != NULL ? op->checkpoint : NULL;
}

uint64_t tq_op_moved(const tq_op *op, uint64_t *total)
{
    if (total != NULL) {
        *total = op != NULL ? atomic_load(&op->to_move) : 0;
    }
    return op != NULL ? atomic_load(&op->moved) : 0;
}
