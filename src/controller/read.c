/*
 * read.c - requests that read the table: resolve, consumption and production, lists of partitions and keys.
 */
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "controller/controller_state.h"
#include "controller/convert.h"
#include "controller/handlers.h"
#include "controller/reply.h"

int tqi_ctl_on_resolve(tqi_controller *ctl, tqi_net_request *request, const Tq__Resolve *msg, tq_error *err)
{
    tqi_table_result result = {0};
    tqi_region conv = {.next = TQI_CTL_CONV_FIRST};
    Tq__Batch batch;
    Tq__ResolveReply reply = TQ__RESOLVE_REPLY__INIT;
    int rc = tqi_check_name("partition", msg->partition, TQ_NAME_MAX, err);

    rc = rc ? rc : tqi_ctl_check_epoch(ctl, msg->epoch, "metadata to resolve", err);
    rc = rc ? rc : tqi_ctl_conv_check_count("incarnation", msg->n_incarnation, msg->n_index, err);
    if (rc) {
        return rc;
    }
    if (msg->n_key && msg->n_index) {
        return tqi_error_set(err, TQ_EINVAL, "resolve in partition '%s' names keys and indexes", msg->partition);
    }
    tqi_table_resolve_args resolve = {
        .partition = msg->partition,
        .keys = msg->n_key ? (const char *const *)msg->key : NULL,
        .indexes = msg->n_index ? msg->index : NULL,
        .incarnations = msg->n_incarnation ? msg->incarnation : NULL,
        .n = msg->n_key ? msg->n_key : msg->n_index,
        .fields = msg->n_field ? (const char *const *)msg->field : NULL,
        .n_fields = msg->n_field,
        .lenient = msg->lenient,
        .tags = msg->tags,
    };
    rc = tqi_table_resolve(ctl->table, &resolve, &result, err);
    rc = rc ? rc : tqi_ctl_conv_batch_out(&conv, &result.batch, tqi_table_epoch(ctl->table), &batch, err);
    if (rc == TQ_OK) {
        reply.batch = &batch;
        tqi_ctl_reply(request, &reply.base);
    }
    tqi_region_fini(&conv);
    tqi_table_result_fini(&result);
    return rc;
}

/* --- status of samples ---------------------------------------------------- */

int tqi_ctl_on_consumption_query(tqi_controller *ctl, tqi_net_request *request, const Tq__ConsumptionQuery *msg,
                                 tq_error *err)
{
    Tq__ConsumptionReply reply = TQ__CONSUMPTION_REPLY__INIT;
    bool known = false;
    uint32_t *index = NULL;
    uint8_t *consumed = NULL;
    size_t n = 0;
    int rc = tqi_check_name("partition", msg->partition, TQ_NAME_MAX, err);

    rc = rc ? rc : tqi_check_name("task", msg->task, TQ_NAME_MAX, err);
    rc = rc ? rc : tqi_table_consumption(ctl->table, msg->partition, msg->task, &known, &index, &consumed, &n, err);
    if (rc) {
        return rc;
    }
    reply.known = known;
    reply.index = index;
    reply.n_index = n;
    reply.consumed = tqi_ctl_conv_bytes(consumed, n);
    tqi_ctl_reply(request, &reply.base);
    free(index);
    free(consumed);
    return TQ_OK;
}

int tqi_ctl_on_production_query(tqi_controller *ctl, tqi_net_request *request, const Tq__ProductionQuery *msg,
                                tq_error *err)
{
    Tq__ProductionReply reply = TQ__PRODUCTION_REPLY__INIT;
    bool known = false;
    uint32_t *index = NULL;
    uint8_t *produced = NULL;
    size_t n = 0;
    int rc = tqi_check_name("partition", msg->partition, TQ_NAME_MAX, err);

    for (size_t i = 0; i < msg->n_field && rc == TQ_OK; i++) {
        rc = tqi_check_name("field", msg->field[i], TQ_NAME_MAX, err);
    }
    rc = rc ? rc
            : tqi_table_production(ctl->table, msg->partition, (const char *const *)msg->field, msg->n_field, &known,
                                   &index, &produced, &n, err);
    if (rc) {
        return rc;
    }
    reply.known = known;
    reply.index = index;
    reply.n_index = n;
    reply.produced = tqi_ctl_conv_bytes(produced, n * msg->n_field);
    tqi_ctl_reply(request, &reply.base);
    free(index);
    free(produced);
    return TQ_OK;
}

/* --- lists ---------------------------------------------------------------- */

static size_t read_count_partitions(tqi_controller *ctl)
{
    size_t n = 0;
    tqi_table_partition *partition = NULL;

    while ((partition = tqi_table_next_partition(ctl->table, partition)) != NULL) {
        n++;
    }
    return n;
}

int tqi_ctl_on_list_partitions(tqi_controller *ctl, tqi_net_request *request, const Tq__ListPartitions *msg,
                               tq_error *err)
{
    Tq__ListPartitionsReply reply = TQ__LIST_PARTITIONS_REPLY__INIT;
    tqi_region conv = {.next = TQI_CTL_CONV_FIRST};
    tqi_table_partition *partition = NULL;

    (void)msg;
    reply.name = tqi_ctl_conv_pointers(&conv, read_count_partitions(ctl), err);
    if (reply.name == NULL) {
        return TQ_ENOMEM;
    }
    while ((partition = tqi_table_next_partition(ctl->table, partition)) != NULL) {
        reply.name[reply.n_name++] = tqi_ctl_conv_text(tqi_table_partition_name(partition));
    }
    tqi_ctl_reply(request, &reply.base);
    tqi_region_fini(&conv);
    return TQ_OK;
}

/* Adds the keys of one partition to the reply. */
static int list_keys_add(tqi_controller *ctl, tqi_region *conv, tqi_table_partition *partition,
                         tqi_table_keys_page *page, tqi_table_result *result, Tq__ListKeysReply *reply, tq_error *err)
{
    Tq__Batch *batch = tqi_ctl_conv_alloc(conv, 1, sizeof(*batch), err);

    if (batch == NULL) {
        return TQ_ENOMEM;
    }
    int rc = tqi_table_partition_keys_page(ctl->table, partition, page, result, err);
    rc = rc ? rc : tqi_ctl_conv_batch_out(conv, &result->batch, tqi_table_epoch(ctl->table), batch, err);
    if (rc == TQ_OK) {
        batch->partition = tqi_ctl_conv_text(tqi_table_partition_name(partition));
        reply->batch[reply->n_batch++] = batch;
    }
    return rc;
}

int tqi_ctl_on_list_keys(tqi_controller *ctl, tqi_net_request *request, const Tq__ListKeys *msg, tq_error *err)
{
    Tq__ListKeysReply reply = TQ__LIST_KEYS_REPLY__INIT;
    tqi_region conv = {.next = TQI_CTL_CONV_FIRST};
    bool all = msg->partition[0] == 0;
    tqi_table_partition *partition = NULL;
    tqi_table_keys_page page = {.after = ""};

    if (!all) {
        page = (tqi_table_keys_page){.after = msg->after, .mark = msg->mark, .limit = msg->limit};
    }
    size_t n = all ? read_count_partitions(ctl) : 1;
    tqi_table_result *results = tqi_ctl_conv_alloc(&conv, n, sizeof(*results), err);
    reply.batch = tqi_ctl_conv_pointers(&conv, n, err);
    int rc = results != NULL && reply.batch != NULL ? TQ_OK : TQ_ENOMEM;
    if (!all && rc == TQ_OK) {
        partition = tqi_table_find_partition(ctl->table, msg->partition);
        if (partition != NULL) {
            rc = list_keys_add(ctl, &conv, partition, &page, &results[0], &reply, err);
            reply.mark = page.next;
        }
    }
    while (all && rc == TQ_OK && (partition = tqi_table_next_partition(ctl->table, partition)) != NULL) {
        rc = list_keys_add(ctl, &conv, partition, &page, &results[reply.n_batch], &reply, err);
    }
    if (rc == TQ_OK) {
        tqi_ctl_reply(request, &reply.base);
    }
    for (size_t i = 0; results != NULL && i < n; i++) {
        tqi_table_result_fini(&results[i]);
    }
    tqi_region_fini(&conv);
    return rc;
}

int tqi_ctl_on_retrieve_keys(tqi_controller *ctl, tqi_net_request *request, const Tq__RetrieveKeys *msg, tq_error *err)
{
    Tq__RetrieveKeysReply reply = TQ__RETRIEVE_KEYS_REPLY__INIT;
    tqi_region conv = {.next = TQI_CTL_CONV_FIRST};
    tqi_table_partition *partition = NULL;
    int rc = tqi_check_name("partition", msg->partition, TQ_NAME_MAX, err);

    if (rc) {
        return rc;
    }
    partition = tqi_table_find_partition(ctl->table, msg->partition);
    if (partition == NULL) {
        return tqi_table_unknown_partition(ctl->table, msg->partition, err);
    }
    reply.key = tqi_ctl_conv_pointers(&conv, msg->n_index, err);
    if (reply.key == NULL) {
        return TQ_ENOMEM;
    }
    reply.n_key = msg->n_index;
    for (size_t i = 0; i < msg->n_index; i++) {
        reply.key[i] = tqi_ctl_conv_text(tqi_table_partition_key(partition, msg->index[i]));
    }
    tqi_ctl_reply(request, &reply.base);
    tqi_region_fini(&conv);
    return TQ_OK;
}
