/*
 * clear.c - removing things from the table: samples, partitions, consumption.
 */
#include "client/args.h"
#include "client/meta/meta.h"
#include "client/op.h"

#include <string.h>

#include "base/error.h"
#include "base/sized.h"

static int clear_decode(tq_op *op, const tqi_client_task *task, const ProtobufCMessage *message, tq_error *err)
{
    (void)task;
    (void)err;
    op->count = ((const Tq__ClearReply *)message)->samples;
    return TQ_OK;
}

static tqi_client_request_task *clear_make(tq_op *op, const char *partition, Tq__Clear **message, int *rc, tq_error *err)
{
    tqi_client_request_task *request = tqi_client_request_make(op, TQI_CLEAR, &tq__clear__descriptor, clear_decode, rc);

    if (request != NULL) {
        *message = (Tq__Clear *)request->message;
        *rc = tqi_client_copy_name(&request->task.region, "partition", partition, &(*message)->partition, err);
    }
    return request;
}

static int clear_indexes(tqi_client_request_task *request, Tq__Clear *message, const uint32_t *indexes, size_t n,
                         tq_error *err)
{
    int rc = tqi_client_check_samples(n, err);

    rc = rc ? rc : tqi_client_check_array("indexes", indexes, n, err);
    if (rc == TQ_OK) {
        message->index = tqi_region_copy(&request->task.region, indexes, n, sizeof(*indexes));
        message->n_index = n;
        rc = message->index != NULL ? TQ_OK : tqi_error_nomem(err, "indexes");
    }
    return rc;
}

int tq_clear_meta(tq_op *op, const tq_meta *meta)
{
    Tq__Clear *message;
    tq_error err = {0};
    int rc;
    tqi_client_request_task *request = clear_make(op, meta != NULL ? meta->partition : "", &message, &rc, &err);

    if (request == NULL) {
        return rc;
    }
    rc = meta != NULL ? rc : tqi_error_null(&err, "tq_clear_meta: meta");
    rc = rc ? rc : clear_indexes(request, message, meta->indexes, meta->n, &err);
    if (rc == TQ_OK) {
        message->incarnation =
            tqi_region_copy(&request->task.region, meta->incarnations, meta->n, sizeof(*meta->incarnations));
        message->n_incarnation = meta->n;
        message->epoch = meta->epoch;
        rc = message->incarnation != NULL ? TQ_OK : tqi_error_nomem(&err, "incarnations");
    }
    return tqi_client_task_submit(op, &request->task, rc, &err);
}

int tq_clear_indexes(tq_op *op, const char *partition, const uint32_t *indexes, size_t n)
{
    Tq__Clear *message;
    tq_error err = {0};
    int rc;
    tqi_client_request_task *request = clear_make(op, partition, &message, &rc, &err);

    if (request == NULL) {
        return rc;
    }
    rc = rc ? rc : clear_indexes(request, message, indexes, n, &err);
    return tqi_client_task_submit(op, &request->task, rc, &err);
}

int tq_clear_keys(tq_op *op, const char *partition, const char *const *keys, size_t n)
{
    Tq__Clear *message;
    tq_error err = {0};
    int rc;
    tqi_client_request_task *request = clear_make(op, partition, &message, &rc, &err);

    if (request == NULL) {
        return rc;
    }
    rc = rc ? rc : tqi_client_copy_keys(&request->task.region, keys, n, &message->key, &message->n_key, &err);
    return tqi_client_task_submit(op, &request->task, rc, &err);
}

int tq_clear_partition(tq_op *op, const char *partition)
{
    Tq__Clear *message;
    tq_error err = {0};
    int rc;
    tqi_client_request_task *request = clear_make(op, partition, &message, &rc, &err);

    if (request == NULL) {
        return rc;
    }
    message->all = true;
    return tqi_client_task_submit(op, &request->task, rc, &err);
}

/* --- in two halves -------------------------------------------------------- */

static int clear_begun(tq_op *op, const tqi_client_task *task, const ProtobufCMessage *message, tq_error *err)
{
    const Tq__BeginClearReply *reply = (const Tq__BeginClearReply *)message;

    (void)task;
    op->count = reply->samples;
    return tqi_client_clearings_decode(reply->clearing, reply->n_clearing, &op->results, &op->clearings,
                                       &op->n_clearings, err);
}

/* Writes what is to be cleared into a message of its own. */
static int clear_fill(tqi_region *region, const tq_begin_clear_args *args, Tq__Clear **out, tq_error *err)
{
    const tq_meta *meta = args->meta;
    const char *partition = meta != NULL ? meta->partition : args->partition;
    Tq__Clear *to = tqi_region_array(region, 1, sizeof(*to));

    if (to == NULL) {
        return tqi_error_nomem(err, "a clear");
    }
    tq__clear__init(to);
    *out = to;
    int rc = tqi_client_copy_name(region, "partition", partition, &to->partition, err);
    if (rc == TQ_OK && meta != NULL) {
        to->index = tqi_region_copy(region, meta->indexes, meta->n, sizeof(*meta->indexes));
        to->incarnation = tqi_region_copy(region, meta->incarnations, meta->n, sizeof(*meta->incarnations));
        to->n_index = to->n_incarnation = meta->n;
        to->epoch = meta->epoch;
        rc = to->index != NULL && to->incarnation != NULL ? TQ_OK : tqi_error_nomem(err, "indexes");
    } else if (rc == TQ_OK && args->keys != NULL) {
        rc = tqi_client_copy_keys(region, args->keys, args->n, &to->key, &to->n_key, err);
    }
    to->all = meta == NULL && args->keys == NULL;
    return rc;
}

TQI_SIZED_ENDS_WITH(tq_begin_clear_args, n);

int tq_begin_clear(tq_op *op, const tq_begin_clear_args *given)
{
    tq_begin_clear_args args;
    tq_error err = {0};
    int rc;
    tqi_client_request_task *request =
        tqi_client_request_make(op, TQI_BEGIN_CLEAR, &tq__begin_clear__descriptor, clear_begun, &rc);

    if (request == NULL) {
        return rc;
    }
    Tq__BeginClear *message = (Tq__BeginClear *)request->message;
    tqi_region *region = &request->task.region;
    rc = TQI_SIZED_ARGS("tq_begin_clear", tq_begin_clear_args, given, &args, &err);
    rc = rc ? rc : tqi_client_copy_name(region, "remover", args.remover, &message->remover, &err);
    if (rc == TQ_OK && (args.meta != NULL || args.partition != NULL)) {
        rc = clear_fill(region, &args, &message->clear, &err);
    }
    return tqi_client_task_submit(op, &request->task, rc, &err);
}

int tq_end_clear(tq_op *op, uint64_t id, bool removed)
{
    tq_error err = {0};
    int rc;
    tqi_client_request_task *request = tqi_client_request_make(op, TQI_END_CLEAR, &tq__end_clear__descriptor, NULL, &rc);

    if (request == NULL) {
        return rc;
    }
    Tq__EndClear *message = (Tq__EndClear *)request->message;
    message->id = id;
    message->removed = removed;
    return tqi_client_task_submit(op, &request->task, TQ_OK, &err);
}

int tq_reset_consumption(tq_op *op, const char *partition, const char *task)
{
    tq_error err = {0};
    int rc;
    tqi_client_request_task *request =
        tqi_client_request_make(op, TQI_RESET_CONSUMPTION, &tq__reset_consumption__descriptor, NULL, &rc);

    if (request == NULL) {
        return rc;
    }
    Tq__ResetConsumption *message = (Tq__ResetConsumption *)request->message;
    rc = tqi_client_copy_name(&request->task.region, "partition", partition, &message->partition, &err);
    if (rc == TQ_OK && task != NULL) {
        rc = tqi_client_copy_name(&request->task.region, "task", task, &message->task, &err);
    }
    return tqi_client_task_submit(op, &request->task, rc, &err);
}
