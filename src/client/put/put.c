/*
 * put.c - put and notify: write first, then publish.
 *
 * caller: checked and copied (args.c) -> loop: manager->put -> put_written -> PUBLISH -> metadata.
 *
 * The manager reads the caller's bytes until it has finished, so a cancelled put completes no earlier (the manager is
 * asked to stop); what was written is then abandoned. The controller itself queues the blocks of a publish that it
 * refuses for removal. When the call ends without its answer, the blocks are abandoned here: if the publish was
 * executed after all, abandoning its blocks changes nothing, because the controller handles the two requests in that
 * order. Data written under ids whose session has ended is removed by this client if the store has no server process
 * of ours: nobody else knows of it.
 */
#include "client/put/put.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/sized.h"
#include "client/meta/meta.h"

/* When a session ends, its grants end too. How often the bytes are rewritten because of that. */
#define PUT_TRIES 8u
#define PUT_STAYS "what a put wrote whose session has ended may stay in its storage: "

/* Ids for a store to remove, kept until it has. */
typedef struct put_void {
    tqi_client_runtime *rt;
    uint64_t ids[];
} put_void;

static void put_removed(const tq_error *err, void *arg)
{
    put_void *removed = arg;

    removed->rt->host_calls--;
    free(removed);
    if (err != NULL && err->code != TQ_OK) {
        tqi_log(TQI_WARN, "client", PUT_STAYS "%s", err->message);
    }
}

/* Removes data written under ids that ended with their session. It was removed when the session ended, and again after
 * the write deadline, but the write may have taken even longer. */
static void put_remove(tqi_client_put *put)
{
    tqi_client_runtime *rt = put->task.rt;
    put_void *removed = malloc(sizeof(*removed) + put->n_ids * sizeof(*put->ids));

    if (removed == NULL) {
        tqi_log(TQI_WARN, "client", PUT_STAYS "out of memory");
        return;
    }
    rt->host_calls++;
    removed->rt = rt;
    memcpy(removed->ids, put->ids, put->n_ids * sizeof(*put->ids));
    rt->manager->remove(rt->manager_state, put->batch.owner[0]->incarnation, removed->ids, put->n_ids, put_removed,
                        removed);
}

/* Abandons what was written. asked: the publish may have been executed, and then this does nothing. */
static void put_give_up(tqi_client_put *put, bool asked)
{
    tqi_client_runtime *rt = put->task.rt;

    if (put->n_ids == 0 || rt->stopping) {
        return;
    }
    tqi_client_abandon(rt, put->ids, put->n_ids, true);
    if (!asked && put->session != rt->sessions && rt->manager->remove != NULL && put->batch.n_owner == 1) {
        put_remove(put);
    }
}

static int put_order(const void *left, const void *right)
{
    uint32_t a = *(const uint32_t *)left;
    uint32_t b = *(const uint32_t *)right;

    return a < b ? -1 : a > b;
}

/* Whether a sample is named twice: only one of its rows was then kept. */
static bool put_has_twins(tqi_client_put *put, const Tq__Batch *reply)
{
    uint32_t *sorted;
    bool twins = false;

    if (!put->keyed) {
        return false;
    }
    sorted = tqi_region_copy(&put->task.region, reply->index, reply->n_index, sizeof(*sorted));
    if (sorted == NULL) {
        return true; /* placements are then looked up: correct, only slower */
    }
    qsort(sorted, reply->n_index, sizeof(*sorted), put_order);
    for (size_t i = 1; i < reply->n_index; i++) {
        twins = twins || sorted[i] == sorted[i - 1];
    }
    return twins;
}

/* The reply names the samples; their cells lie where we published them. */
static int put_result(tqi_client_put *put, const Tq__Batch *reply, tq_error *err)
{
    if (reply == NULL || reply->n_index != put->n) {
        return tqi_error_set(err, TQ_EPROTO, "the controller published %zu samples, given were %zu",
                             reply != NULL ? reply->n_index : 0, put->n);
    }
    return tqi_client_meta_decode(reply, put_has_twins(put, reply) ? NULL : &put->batch, 0, false, &put->task.op->meta,
                                  err);
}

static int put_others(tq_op *op, const Tq__PublishReply *reply, tq_error *err)
{
    static char none[1];
    char **copies = tqi_region_strings(&op->results, (const char *const *)(uintptr_t)reply->other_field,
                                       reply->n_other_field, none);

    if (copies == NULL) {
        return tqi_error_nomem(err, "names of fields");
    }
    op->names = (const char *const *)copies;
    op->n_names = reply->n_other_field;
    return TQ_OK;
}

static void put_written(tqi_client_task *task, const tq_error *err, const tq_block *blocks, uint32_t n_blocks,
                        const tq_extent *extents, uint32_t n_extents);

static void put_write(tqi_client_put *put)
{
    tqi_client_runtime *rt = put->task.rt;

    put->tries++;
    put->session = rt->sessions;
    put->write.task = &put->task;
    put->write.written = put_written;
    rt->manager->put(rt->manager_state, &put->write.job);
}

/* Whether a publish was refused because its blocks are void: their session, or that incarnation of their owner, has
 * ended since they were granted. Nothing was done then, so the put starts over. */
static bool put_is_void(const tqi_client_put *put, const tqi_net_answer *answer)
{
    const tqi_client_runtime *rt = put->task.rt;
    bool metadata_holds = put->batch.epoch == 0 || put->batch.epoch == rt->host.epoch;

    return answer->told && put->n_ids > 0 && metadata_holds &&
           (put->session != rt->sessions || answer->status == TQ_ESTALE) && put->tries < PUT_TRIES &&
           !put->task.canceled && !rt->stopping && tqi_now() < put->write.job.deadline_ns;
}

static void put_published(tqi_client_task *task, tqi_net_answer *answer)
{
    tqi_client_put *put = (tqi_client_put *)task;
    tq_error err = {0};

    if (answer->status != TQ_OK && put_is_void(put, answer)) {
        put_give_up(put, false);
        put->n_ids = 0;
        put->batch.n_block = 0;
        put->batch.n_owner = 0;
        put_write(put);
        return;
    }
    if (answer->status != TQ_OK) {
        /* Codes that end a call without an answer; all others come from the controller. */
        bool unanswered = answer->status == TQ_ETIMEDOUT || answer->status == TQ_EUNREACHABLE ||
                          answer->status == TQ_EENDED || answer->status == TQ_ECANCELED;
        if (unanswered || (answer->told && put->session != task->rt->sessions)) {
            put_give_up(put, !answer->told);
        }
        if (task->canceled && answer->told && put->session != task->rt->sessions) {
            /* It would have started over; the refusal says nothing about the put. */
            tqi_error_set(&err, TQ_ECANCELED, "cancelled");
            tqi_client_task_finish(task, &err);
            return;
        }
        tqi_client_task_finish(task, answer->error);
        return;
    }
    const Tq__PublishReply *reply = (const Tq__PublishReply *)answer->reply;
    tq_op *op = task->op;
    if (put_result(put, reply->batch, &err) != TQ_OK ||
        (put->publish.other_fields && put_others(op, reply, &err) != TQ_OK) ||
        tqi_client_clearings_decode(&reply->replaced, reply->replaced != NULL ? 1 : 0, &op->results, &op->clearings,
                                    &op->n_clearings, &err) != TQ_OK) {
        tqi_client_task_finish(task, &err);
        return;
    }
    tqi_client_task_finish(task, NULL);
}

static void put_publish(tqi_client_put *put)
{
    tq_error err = {0};

    if (tqi_client_task_call(&put->task, TQI_PUBLISH, &put->publish.base, put_published, &err) != TQ_OK) {
        put_give_up(put, false);
        tqi_client_task_finish(&put->task, &err);
    }
}

/* The manager has stored the columns, or has given up. */
static void put_written(tqi_client_task *task, const tq_error *err, const tq_block *blocks, uint32_t n_blocks,
                        const tq_extent *extents, uint32_t n_extents)
{
    tqi_client_put *put = (tqi_client_put *)task;
    tq_error bad = {0};

    if (err != NULL && err->code != TQ_OK) {
        if (put->task.canceled) {
            tqi_error_set(&bad, TQ_ECANCELED, "cancelled");
            err = &bad;
        }
        tqi_client_task_finish(&put->task, err);
        return;
    }
    if (tqi_client_put_place(put, blocks, n_blocks, extents, n_extents, &bad) == TQ_OK && put->task.canceled) {
        tqi_error_set(&bad, TQ_ECANCELED, "cancelled");
    }
    if (bad.code != TQ_OK) {
        put_give_up(put, false);
        tqi_client_task_finish(&put->task, &bad);
        return;
    }
    put_publish(put);
}

static void put_begin(tqi_client_task *task)
{
    tqi_client_put *put = (tqi_client_put *)task;
    tqi_client_runtime *rt = task->rt;
    tq_error err = {0};

    if (!put->stores) {
        put_publish(put);
    } else if (tqi_client_runtime_check_manager(rt, "put", &err) != TQ_OK) {
        tqi_client_task_finish(task, &err);
    } else {
        tqi_client_notice_watch(task);
        put_write(put);
    }
}

/* Either the publish is in flight, or the manager is at work. */
static void put_cancel(tqi_client_task *task)
{
    tqi_client_put *put = (tqi_client_put *)task;
    tqi_client_runtime *rt = task->rt;

    if (task->call != NULL) {
        tqi_net_call_cancel(task->call);
    } else if (rt->manager->cancel != NULL) {
        rt->manager->cancel(rt->manager_state, &put->write.job);
    }
}

static const tqi_client_task_type put_type = {
    .size = sizeof(tqi_client_put),
    .begin = put_begin,
    .cancel = put_cancel,
    .takes_slices = true,
};

TQI_SIZED_ENDS_WITH(tq_put_args, remover);

static int put_start(tq_op *op, const tq_put_args *given, bool notify, const tq_slice *const *opaque)
{
    tq_put_args args;
    tq_error err = {0};
    int rc;
    tqi_client_put *put = (tqi_client_put *)tqi_client_task_make(op, &put_type, &rc);

    if (put == NULL) {
        return rc;
    }
    rc = notify ? TQI_SIZED_ARGS("tq_notify", tq_put_args, given, &args, &err)
                : TQI_SIZED_ARGS("tq_put", tq_put_args, given, &args, &err);
    rc = rc ? rc : tqi_client_put_prepare(put, &args, notify, opaque, &err);
    return tqi_client_task_submit(op, &put->task, rc, &err);
}

int tq_put(tq_op *op, const tq_put_args *args)
{
    return put_start(op, args, false, NULL);
}

int tq_notify(tq_op *op, const tq_put_args *args, const tq_slice *const *opaque)
{
    return put_start(op, args, true, opaque);
}
