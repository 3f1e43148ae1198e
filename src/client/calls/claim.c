/*
 * claim.c - calls that answer with metadata: claim, resolve, reserve.
 */
#include "client/args.h"
#include "client/meta/meta.h"
#include "client/op.h"

#include <string.h>

#include "base/error.h"
#include "base/sized.h"

static int claim_batch(tq_op *op, const Tq__Batch *batch, uint64_t claim, tq_error *err)
{
    if (batch == NULL) {
        return tqi_error_set(err, TQ_EPROTO, "the controller's answer has no batch");
    }
    return tqi_client_meta_decode(batch, NULL, claim, false, &op->meta, err);
}

/* --- claim ---------------------------------------------------------------- */

static int claim_decode(tq_op *op, const tqi_client_task *task, const ProtobufCMessage *message, tq_error *err)
{
    const Tq__ClaimReply *reply = (const Tq__ClaimReply *)message;

    (void)task;
    return claim_batch(op, reply->batch, reply->claim, err);
}

static int claim_check(const tq_claim_args *args, tq_error *err)
{
    int rc;

    if (args->mode != TQ_CLAIM_FETCH && args->mode != TQ_CLAIM_FORCE_FETCH) {
        return tqi_error_set(err, TQ_EINVAL, "unknown claim mode %d", (int)args->mode);
    }
    if (args->mode == TQ_CLAIM_FORCE_FETCH) {
        return TQ_OK; /* takes everything: size, task and sampler do not apply */
    }
    if (args->batch_size < 1) {
        return tqi_error_set(err, TQ_ESIZE, "batch size must be at least 1, given %lld", (long long)args->batch_size);
    }
    rc = args->task != NULL ? tqi_check_name("task", args->task, TQ_NAME_MAX, err) : tqi_error_null(err, "task");
    if (rc == TQ_OK && (args->fields == NULL || args->n_fields == 0)) {
        rc = tqi_error_set(err, TQ_EINVAL, "claim of task '%s': no fields given", args->task);
    }
    if (rc == TQ_OK && args->sampler != NULL && strlen(args->sampler) > TQ_NAME_MAX) {
        rc = tqi_check_name("sampler", args->sampler, TQ_NAME_MAX, err);
    }
    return rc;
}

static int claim_fill(tqi_region *region, const tq_claim_args *args, Tq__Claim *to, tq_error *err)
{
    int rc = claim_check(args, err);

    if (rc != TQ_OK) {
        return rc;
    }
    rc = rc ? rc : tqi_client_copy_name(region, "partition", args->partition, &to->partition, err);
    rc = rc ? rc : tqi_client_copy_fields(region, args->fields, args->n_fields, &to->field, &to->n_field, err);
    if (rc != TQ_OK) {
        return rc;
    }
    to->batch_size = args->batch_size;
    to->mode = args->mode == TQ_CLAIM_FORCE_FETCH ? TQ__CLAIM_MODE__FORCE_FETCH : TQ__CLAIM_MODE__FETCH;
    to->poll = args->poll;
    to->tags = args->tags;
    to->task = tqi_region_string(region, args->task != NULL ? args->task : "");
    to->sampler = tqi_region_string(region, args->sampler != NULL ? args->sampler : "");
    to->config = tqi_region_string(region, args->sampler_config != NULL ? args->sampler_config : "");
    if (to->task == NULL || to->sampler == NULL || to->config == NULL) {
        return tqi_error_nomem(err, "a claim");
    }
    return TQ_OK;
}

TQI_SIZED_ENDS_WITH(tq_claim_args, sampler_config);

int tq_claim(tq_op *op, const tq_claim_args *given)
{
    tq_claim_args args;
    tq_error err = {0};
    int rc;
    tqi_client_request_task *request = tqi_client_request_make(op, TQI_CLAIM, &tq__claim__descriptor, claim_decode, &rc);

    if (request == NULL) {
        return rc;
    }
    Tq__Claim *message = (Tq__Claim *)request->message;
    request->claim = true;
    request->timeout_ms = &message->timeout_ms;
    rc = TQI_SIZED_ARGS("tq_claim", tq_claim_args, given, &args, &err);
    rc = rc ? rc : claim_fill(&request->task.region, &args, message, &err);
    return tqi_client_task_submit(op, &request->task, rc, &err);
}

/* --- resolve -------------------------------------------------------------- */

static int claim_resolved(tq_op *op, const tqi_client_task *task, const ProtobufCMessage *message, tq_error *err)
{
    const Tq__ResolveReply *reply = (const Tq__ResolveReply *)message;

    (void)task;
    return claim_batch(op, reply->batch, 0, err);
}

static int claim_fill_resolve(tqi_region *region, const tq_resolve_args *args, Tq__Resolve *to, tq_error *err)
{
    int rc = tqi_client_copy_name(region, "partition", args->partition, &to->partition, err);

    rc = rc ? rc : tqi_client_check_samples(args->n, err);
    if (rc == TQ_OK && args->keys == NULL && args->indexes == NULL && args->n > 0) {
        rc = tqi_error_set(err, TQ_EINVAL, "keys and indexes are NULL, expected %zu of either", args->n);
    }
    rc = rc ? rc : tqi_client_copy_fields(region, args->fields, args->n_fields, &to->field, &to->n_field, err);
    if (rc == TQ_OK && args->keys != NULL && args->indexes != NULL) {
        rc = tqi_error_set(err, TQ_EINVAL, "partition '%s': both keys and indexes are given", args->partition);
    }
    if (rc == TQ_OK && (args->keys != NULL || args->indexes != NULL) && args->n == 0) {
        rc = tqi_error_set(err, TQ_EINVAL, "partition '%s': no %s given", args->partition,
                           args->keys != NULL ? "keys" : "indexes");
    }
    if (rc == TQ_OK && args->keys != NULL) {
        rc = tqi_client_copy_keys(region, args->keys, args->n, &to->key, &to->n_key, err);
    }
    if (rc == TQ_OK && args->indexes != NULL) {
        to->index = tqi_region_copy(region, args->indexes, args->n, sizeof(*args->indexes));
        to->n_index = args->n;
        rc = to->index != NULL ? TQ_OK : tqi_error_nomem(err, "indexes");
    }
    to->lenient = args->lenient;
    to->tags = args->tags;
    return rc;
}

TQI_SIZED_ENDS_WITH(tq_resolve_args, n_fields);

int tq_resolve(tq_op *op, const tq_resolve_args *given)
{
    tq_resolve_args args;
    tq_error err = {0};
    int rc;
    tqi_client_request_task *request =
        tqi_client_request_make(op, TQI_RESOLVE, &tq__resolve__descriptor, claim_resolved, &rc);

    if (request == NULL) {
        return rc;
    }
    rc = TQI_SIZED_ARGS("tq_resolve", tq_resolve_args, given, &args, &err);
    rc = rc ? rc : claim_fill_resolve(&request->task.region, &args, (Tq__Resolve *)request->message, &err);
    return tqi_client_task_submit(op, &request->task, rc, &err);
}

/* --- reserve -------------------------------------------------------------- */

static int claim_reserved(tq_op *op, const tqi_client_task *task, const ProtobufCMessage *message, tq_error *err)
{
    const Tq__ReserveReply *reply = (const Tq__ReserveReply *)message;
    size_t n = ((const tqi_client_request_task *)task)->n;
    int rc = claim_batch(op, reply->batch, 0, err);

    if (rc == TQ_OK && tq_meta_sample_count(op->meta) != n) {
        rc = tqi_error_set(err, TQ_EPROTO, "the controller reserved %zu samples, asked were %zu",
                           tq_meta_sample_count(op->meta), n);
    }
    return rc;
}

int tq_reserve(tq_op *op, const char *partition, size_t n, const char *const *keys, const char *const *groups)
{
    tq_error err = {0};
    int rc;
    tqi_client_request_task *request =
        tqi_client_request_make(op, TQI_RESERVE, &tq__reserve__descriptor, claim_reserved, &rc);

    if (request == NULL) {
        return rc;
    }
    Tq__Reserve *message = (Tq__Reserve *)request->message;
    tqi_region *region = &request->task.region;
    request->n = n;
    rc = tqi_client_copy_name(region, "partition", partition, &message->partition, &err);
    rc = rc ? rc : tqi_client_check_samples(n, &err);
    if (rc == TQ_OK && n == 0) {
        rc = tqi_error_set(&err, TQ_EINVAL, "partition '%s': no samples to reserve", partition);
    }
    if (rc == TQ_OK && keys != NULL) {
        rc = tqi_client_copy_keys(region, keys, n, &message->key, &message->n_key, &err);
    }
    rc = rc ? rc : tqi_client_copy_groups(region, groups, n, &message->group, &message->n_group, &err);
    message->samples = keys != NULL ? 0 : (uint32_t)n;
    return tqi_client_task_submit(op, &request->task, rc, &err);
}
