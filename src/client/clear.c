/*
 * clear.c - taking things out of the table: samples, partitions, consumption.
 */
#include "client/client.h"
#include "client/cmeta.h"
#include "client/names.h"

#include <string.h>

#include "base/error.h"

static int clear_decode(tq_op *op, const tqi_task *task, const ProtobufCMessage *message,
                        tq_error *err)
{
    (void)task;
    (void)err;
    op->count = ((const Tq__ClearReply *)message)->samples;
    return TQ_OK;
}

static tqi_plain *clear_make(tq_op *op, const char *partition, Tq__Clear **message, int *code,
                             tq_error *err)
{
    tqi_plain *plain = tqi_plain_make(op, TQI_CLEAR, &tq__clear__descriptor, clear_decode, code);
    if (plain) {
        *message = (Tq__Clear *)plain->message;
        *code =
            tqi_copy_name(&plain->task.region, "partition", partition, &(*message)->partition, err);
    }
    return plain;
}

static int clear_indexes(tqi_plain *plain, Tq__Clear *message, const uint32_t *indexes, size_t n,
                         tq_error *err)
{
    int code = tqi_check_samples(n, err);
    if (code == TQ_OK) {
        message->index = tqi_region_copy(&plain->task.region, indexes, n, sizeof *indexes);
        message->n_index = n;
        code = message->index ? TQ_OK : tqi_error_nomem(err, "indexes");
    }
    return code;
}

int tq_clear_meta(tq_op *op, const tq_meta *meta)
{
    Tq__Clear *message;
    tq_error err = {0};
    int code;
    tqi_plain *plain = clear_make(op, meta->partition, &message, &code, &err);
    if (!plain) {
        return code;
    }
    code = code ? code : clear_indexes(plain, message, meta->indexes, meta->n, &err);
    if (code == TQ_OK) {
        message->incarnation = tqi_region_copy(&plain->task.region, meta->incarnations, meta->n,
                                               sizeof *meta->incarnations);
        message->n_incarnation = meta->n;
        message->epoch = meta->epoch;
        code = message->incarnation ? TQ_OK : tqi_error_nomem(&err, "incarnations");
    }
    return tqi_task_submit(op, &plain->task, code, &err);
}

int tq_clear_indexes(tq_op *op, const char *partition, const uint32_t *indexes, size_t n)
{
    Tq__Clear *message;
    tq_error err = {0};
    int code;
    tqi_plain *plain = clear_make(op, partition, &message, &code, &err);
    if (!plain) {
        return code;
    }
    code = code ? code : clear_indexes(plain, message, indexes, n, &err);
    return tqi_task_submit(op, &plain->task, code, &err);
}

int tq_clear_keys(tq_op *op, const char *partition, const char *const *keys, size_t n)
{
    Tq__Clear *message;
    tq_error err = {0};
    int code;
    tqi_plain *plain = clear_make(op, partition, &message, &code, &err);
    if (!plain) {
        return code;
    }
    code = code ? code
                : tqi_copy_keys(&plain->task.region, keys, n, &message->key, &message->n_key, &err);
    return tqi_task_submit(op, &plain->task, code, &err);
}

int tq_clear_partition(tq_op *op, const char *partition)
{
    Tq__Clear *message;
    tq_error err = {0};
    int code;
    tqi_plain *plain = clear_make(op, partition, &message, &code, &err);
    if (!plain) {
        return code;
    }
    message->all = true;
    return tqi_task_submit(op, &plain->task, code, &err);
}

int tq_reset_consumption(tq_op *op, const char *partition, const char *task)
{
    tq_error err = {0};
    int code;
    tqi_plain *plain =
        tqi_plain_make(op, TQI_RESET_CONSUMPTION, &tq__reset_consumption__descriptor, NULL, &code);
    if (!plain) {
        return code;
    }
    Tq__ResetConsumption *message = (Tq__ResetConsumption *)plain->message;
    code = tqi_copy_name(&plain->task.region, "partition", partition, &message->partition, &err);
    if (code == TQ_OK && task) {
        code = tqi_copy_name(&plain->task.region, "task", task, &message->task, &err);
    }
    return tqi_task_submit(op, &plain->task, code, &err);
}
