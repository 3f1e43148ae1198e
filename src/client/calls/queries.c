/*
 * queries.c - queries about samples: consumption, production, partitions, keys.
 */
#include "client/args.h"
#include "client/meta/meta.h"
#include "client/op.h"

#include <string.h>

#include "base/error.h"
#include "base/sized.h"

/* --- progress ------------------------------------------------------------- */

static int lists_progress(tq_op *op, bool known, const uint32_t *indexes, size_t n, const ProtobufCBinaryData *flags,
                          size_t columns, tq_error *err)
{
    tqi_region *region = &op->results;
    tq_progress *out;

    if (flags->len != n * columns) {
        return tqi_error_set(err, TQ_EPROTO, "the controller answered %zu flags for %zu samples and %zu columns",
                             flags->len, n, columns);
    }
    out = tqi_region_zero(region, 1, sizeof(*out));
    if (out == NULL) {
        return tqi_error_nomem(err, "progress");
    }
    out->known = known;
    out->n = n;
    out->columns = columns;
    out->indexes = tqi_region_copy(region, indexes, n, sizeof(*indexes));
    out->flags = tqi_region_copy(region, flags->data, flags->len, 1);
    if (out->indexes == NULL || out->flags == NULL) {
        return tqi_error_nomem(err, "progress");
    }
    op->progress = out;
    return TQ_OK;
}

static int lists_consumption(tq_op *op, const tqi_client_task *task, const ProtobufCMessage *message, tq_error *err)
{
    const Tq__ConsumptionReply *reply = (const Tq__ConsumptionReply *)message;

    (void)task;
    return lists_progress(op, reply->known, reply->index, reply->n_index, &reply->consumed, 1, err);
}

int tq_query_consumption(tq_op *op, const char *partition, const char *task)
{
    tq_error err = {0};
    int rc;
    tqi_client_request_task *request =
        tqi_client_request_make(op, TQI_CONSUMPTION, &tq__consumption_query__descriptor, lists_consumption, &rc);

    if (request == NULL) {
        return rc;
    }
    Tq__ConsumptionQuery *message = (Tq__ConsumptionQuery *)request->message;
    rc = tqi_client_copy_name(&request->task.region, "partition", partition, &message->partition, &err);
    rc = rc ? rc : tqi_client_copy_name(&request->task.region, "task", task, &message->task, &err);
    return tqi_client_task_submit(op, &request->task, rc, &err);
}

static int lists_production(tq_op *op, const tqi_client_task *task, const ProtobufCMessage *message, tq_error *err)
{
    const Tq__ProductionReply *reply = (const Tq__ProductionReply *)message;
    size_t columns = ((const tqi_client_request_task *)task)->n;

    return lists_progress(op, reply->known, reply->index, reply->n_index, &reply->produced, columns, err);
}

int tq_query_production(tq_op *op, const char *partition, const char *const *fields, size_t n_fields)
{
    tq_error err = {0};
    int rc;
    tqi_client_request_task *request =
        tqi_client_request_make(op, TQI_PRODUCTION, &tq__production_query__descriptor, lists_production, &rc);

    if (request == NULL) {
        return rc;
    }
    Tq__ProductionQuery *message = (Tq__ProductionQuery *)request->message;
    tqi_region *region = &request->task.region;
    request->n = n_fields;
    rc = tqi_client_copy_name(region, "partition", partition, &message->partition, &err);
    rc = rc ? rc : tqi_client_copy_fields(region, fields, n_fields, &message->field, &message->n_field, &err);
    if (rc == TQ_OK && message->n_field == 0) {
        rc = tqi_error_set(&err, TQ_EINVAL, "partition '%s': no fields given", partition);
    }
    return tqi_client_task_submit(op, &request->task, rc, &err);
}

/* --- names ---------------------------------------------------------------- */

static int lists_names(tq_op *op, char **names, size_t n, tq_error *err)
{
    static char none[1];
    char **copies = tqi_region_strings(&op->results, (const char *const *)names, n, none);

    if (copies == NULL) {
        return tqi_error_nomem(err, "names");
    }
    op->names = (const char *const *)copies;
    op->n_names = n;
    return TQ_OK;
}

static int lists_partitions(tq_op *op, const tqi_client_task *task, const ProtobufCMessage *message, tq_error *err)
{
    const Tq__ListPartitionsReply *reply = (const Tq__ListPartitionsReply *)message;

    (void)task;
    return lists_names(op, reply->name, reply->n_name, err);
}

int tq_list_partitions(tq_op *op)
{
    tq_error err = {0};
    int rc;
    tqi_client_request_task *request =
        tqi_client_request_make(op, TQI_LIST_PARTITIONS, &tq__list_partitions__descriptor, lists_partitions, &rc);

    return request != NULL ? tqi_client_task_submit(op, &request->task, TQ_OK, &err) : rc;
}

static int lists_keys(tq_op *op, const tqi_client_task *task, const ProtobufCMessage *message, tq_error *err)
{
    const Tq__ListKeysReply *reply = (const Tq__ListKeysReply *)message;
    const char *partition = ((const tqi_client_request_task *)task)->partition;

    op->count = reply->mark;
    for (size_t i = 0; i < reply->n_batch; i++) {
        if (strcmp(reply->batch[i]->partition, partition) == 0) {
            return tqi_client_meta_decode(reply->batch[i], NULL, 0, false, &op->meta, err);
        }
    }
    return tq_meta_make(partition, NULL, NULL, 0, NULL, 0, &op->meta, err);
}

int tq_list_keys(tq_op *op, const char *partition)
{
    const tq_keys_page all = {.size = sizeof(all), .limit = 0};

    return tq_list_keys_page(op, partition, &all);
}

TQI_SIZED_ENDS_WITH(tq_keys_page, mark);

int tq_list_keys_page(tq_op *op, const char *partition, const tq_keys_page *given)
{
    tq_keys_page page;
    char **after = NULL;
    size_t n_after = 0;
    tq_error err = {0};
    int rc;
    tqi_client_request_task *request =
        tqi_client_request_make(op, TQI_LIST_KEYS, &tq__list_keys__descriptor, lists_keys, &rc);

    if (request == NULL) {
        return rc;
    }
    Tq__ListKeys *message = (Tq__ListKeys *)request->message;
    rc = tqi_client_copy_name(&request->task.region, "partition", partition, &message->partition, &err);
    request->partition = message->partition;
    if (rc == TQ_OK) {
        rc = given != NULL ? tqi_sized_copy("tq_keys_page", given, &page, sizeof(page), &err)
                           : tqi_error_null(&err, "tq_list_keys_page: page");
    }
    if (rc == TQ_OK) {
        message->limit = page.limit;
        message->mark = page.mark;
    }
    if (rc == TQ_OK && page.mark != 0) {
        rc = tqi_client_copy_keys(&request->task.region, &page.after, 1, &after, &n_after, &err);
        message->after = rc == TQ_OK ? after[0] : message->after;
    }
    return tqi_client_task_submit(op, &request->task, rc, &err);
}

static int lists_retrieved(tq_op *op, const tqi_client_task *task, const ProtobufCMessage *message, tq_error *err)
{
    const Tq__RetrieveKeysReply *reply = (const Tq__RetrieveKeysReply *)message;
    size_t n = ((const tqi_client_request_task *)task)->n;

    if (reply->n_key != n) {
        return tqi_error_set(err, TQ_EPROTO, "the controller answered %zu keys for %zu samples", reply->n_key, n);
    }
    return lists_names(op, reply->key, reply->n_key, err);
}

int tq_keys_of(tq_op *op, const char *partition, const uint32_t *indexes, size_t n)
{
    tq_error err = {0};
    int rc;
    tqi_client_request_task *request =
        tqi_client_request_make(op, TQI_RETRIEVE_KEYS, &tq__retrieve_keys__descriptor, lists_retrieved, &rc);

    if (request == NULL) {
        return rc;
    }
    Tq__RetrieveKeys *message = (Tq__RetrieveKeys *)request->message;
    request->n = n;
    rc = tqi_client_copy_name(&request->task.region, "partition", partition, &message->partition, &err);
    rc = rc ? rc : tqi_client_check_samples(n, &err);
    rc = rc ? rc : tqi_client_check_array("indexes", indexes, n, &err);
    if (rc == TQ_OK) {
        message->index = tqi_region_copy(&request->task.region, indexes, n, sizeof(*indexes));
        message->n_index = n;
        rc = message->index != NULL ? TQ_OK : tqi_error_nomem(&err, "indexes");
    }
    return tqi_client_task_submit(op, &request->task, rc, &err);
}
