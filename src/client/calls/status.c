/*
 * status.c - the state of the system and what happened in it, for people.
 */
#include "client/client.h"
#include "client/op.h"

#include <string.h>

#include "base/error.h"
#include "base/type.h"

/* Copies of strings and arrays into the op's results. `failed` is checked once, when all are made. */
typedef struct status_out {
    tqi_region *region;
    bool failed;
} status_out;

static const char *status_text(status_out *out, const char *text)
{
    char *copy = tqi_region_string(out->region, text);

    out->failed = out->failed || copy == NULL;
    return copy;
}

static const void *status_copy(status_out *out, const void *data, size_t n, size_t item)
{
    void *copy = tqi_region_copy(out->region, data, n, item);

    out->failed = out->failed || copy == NULL;
    return copy;
}

/* n cleared items, or NULL. */
static void *status_array(status_out *out, size_t n, size_t item)
{
    void *array = tqi_region_zero(out->region, n, item);

    out->failed = out->failed || array == NULL;
    return array;
}

/* The addresses of an array's items: an array that the caller can walk whatever the size of an item becomes. */
static const void *status_list(status_out *out, const void *array, size_t n, size_t item)
{
    const void **list = tqi_region_array(out->region, n, sizeof(*list));

    out->failed = out->failed || list == NULL;
    for (size_t i = 0; list != NULL && array != NULL && i < n; i++) {
        list[i] = (const char *)array + i * item;
    }
    return list;
}

static const tq_status_field *const *status_fields(status_out *out, const Tq__PartitionInfo *from)
{
    tq_status_field *to = status_array(out, from->n_field, sizeof(*to));

    for (size_t i = 0; to != NULL && i < from->n_field; i++) {
        const Tq__FieldInfo *info = from->field[i];
        to[i].name = status_text(out, info->name);
        to[i].kind = info->kind == TQ_VALUE ? TQ_VALUE : TQ_TENSOR;
        to[i].dtype = tqi_type_dtype(info->dtype);
        to[i].ragged = info->ragged;
        to[i].ndim = (uint32_t)info->n_shape;
        to[i].shape = status_copy(out, info->shape, info->n_shape, sizeof(*info->shape));
        to[i].produced = info->produced;
        to[i].lost = info->lost;
        to[i].ragged_dim = (uint8_t)info->ragged_dim;
        to[i].mixed = info->mixed;
    }
    return status_list(out, to, from->n_field, sizeof(*to));
}

static const tq_status_partition *const *status_partitions(status_out *out, const Tq__SystemStatusReply *reply)
{
    tq_status_partition *to = status_array(out, reply->n_partition, sizeof(*to));

    for (size_t i = 0; to != NULL && i < reply->n_partition; i++) {
        const Tq__PartitionInfo *info = reply->partition[i];
        tq_status_task *tasks = status_array(out, info->n_task, sizeof(*tasks));
        to[i].name = status_text(out, info->name);
        to[i].samples = info->samples;
        to[i].bytes = info->bytes;
        to[i].fields = status_fields(out, info);
        to[i].n_fields = info->n_field;
        to[i].tasks = status_list(out, tasks, info->n_task, sizeof(*tasks));
        to[i].n_tasks = info->n_task;
        for (size_t t = 0; tasks != NULL && t < info->n_task; t++) {
            tasks[t].name = status_text(out, info->task[t]->name);
            tasks[t].consumed = info->task[t]->consumed;
        }
        to[i].lost = status_copy(out, info->lost, info->n_lost, sizeof(*info->lost));
        to[i].n_lost = info->n_lost;
    }
    return status_list(out, to, reply->n_partition, sizeof(*to));
}

/* A counter that an owner reported; 0 if it did not. */
static uint64_t status_counter(const Tq__OwnerInfo *info, const char *name)
{
    for (size_t i = 0; i < info->n_counter && i < info->n_value; i++) {
        if (strcmp(info->counter[i], name) == 0) {
            return info->value[i];
        }
    }
    return 0;
}

static const tq_status_pin *const *status_pins(status_out *out, const Tq__OwnerInfo *info)
{
    tq_status_pin *to = status_array(out, info->n_pin, sizeof(*to));

    for (size_t i = 0; to != NULL && i < info->n_pin; i++) {
        to[i].client = status_text(out, info->pin[i]->client);
        to[i].host = status_text(out, info->pin[i]->host);
        to[i].pid = info->pin[i]->pid;
        to[i].pins = info->pin[i]->pins;
        to[i].bytes = info->pin[i]->bytes;
    }
    return status_list(out, to, info->n_pin, sizeof(*to));
}

static const tq_status_owner *const *status_owners(status_out *out, const Tq__SystemStatusReply *reply)
{
    tq_status_owner *to = status_array(out, reply->n_owner, sizeof(*to));

    for (size_t i = 0; to != NULL && i < reply->n_owner; i++) {
        const Tq__OwnerInfo *info = reply->owner[i];
        to[i].name = status_text(out, info->name);
        to[i].manager = status_text(out, info->manager);
        to[i].present = info->present;
        to[i].blocks = info->blocks;
        to[i].bytes = info->bytes;
        to[i].used_bytes = status_counter(info, "used_bytes");
        to[i].capacity_bytes = status_counter(info, "capacity_bytes");
        to[i].pins = status_counter(info, "pins");
        to[i].pinned_bytes = status_counter(info, "pinned_bytes");
        to[i].waiting_puts = status_counter(info, "waiting_puts");
        to[i].holders = status_pins(out, info);
        to[i].n_holders = info->n_pin;
    }
    return status_list(out, to, reply->n_owner, sizeof(*to));
}

static const tq_status_wait *const *status_waits(status_out *out, const Tq__SystemStatusReply *reply)
{
    static char none[1];
    tq_status_wait *to = status_array(out, reply->n_wait, sizeof(*to));

    for (size_t i = 0; to != NULL && i < reply->n_wait; i++) {
        const Tq__WaitInfo *info = reply->wait[i];
        to[i].kind = status_text(out, info->kind);
        to[i].client = status_text(out, info->client);
        to[i].host = status_text(out, info->host);
        to[i].pid = info->pid;
        to[i].task = status_text(out, info->task);
        to[i].partition = status_text(out, info->partition);
        to[i].fields = (const char *const *)tqi_region_strings(out->region, (const char *const *)(uintptr_t)info->field,
                                                               info->n_field, none);
        out->failed = out->failed || to[i].fields == NULL;
        to[i].n_fields = info->n_field;
        to[i].owner = status_text(out, info->owner);
        to[i].wanted = info->wanted;
        to[i].ready = info->ready;
        to[i].age = (double)info->age_ms / 1000.0;
        to[i].missing = status_text(out, info->missing);
        to[i].suspect = info->suspect;
    }
    return status_list(out, to, reply->n_wait, sizeof(*to));
}

static const tq_status_session *const *status_sessions(status_out *out, const Tq__SystemStatusReply *reply)
{
    tq_status_session *to = status_array(out, reply->n_session, sizeof(*to));

    for (size_t i = 0; to != NULL && i < reply->n_session; i++) {
        const Tq__SessionInfo *info = reply->session[i];
        to[i].name = status_text(out, info->name);
        to[i].host = status_text(out, info->host);
        to[i].endpoint = status_text(out, info->endpoint);
        to[i].pid = info->pid;
        to[i].connected = info->connected;
        to[i].age = (double)info->age_ms / 1000.0;
    }
    return status_list(out, to, reply->n_session, sizeof(*to));
}

static int status_decode(tq_op *op, const tqi_client_task *task, const ProtobufCMessage *message, tq_error *err)
{
    const Tq__SystemStatusReply *reply = (const Tq__SystemStatusReply *)message;
    status_out out = {.region = &op->results};
    tq_system_status *to = status_array(&out, 1, sizeof(*to));

    (void)task;

    if (to != NULL) {
        to->epoch = reply->epoch;
        to->uptime = (double)reply->uptime_ms / 1000.0;
        to->version = status_text(&out, reply->version);
        to->waiting = reply->waiting;
        to->requests = reply->requests;
        to->partitions = status_partitions(&out, reply);
        to->n_partitions = reply->n_partition;
        to->owners = status_owners(&out, reply);
        to->n_owners = reply->n_owner;
        to->sessions = status_sessions(&out, reply);
        to->n_sessions = reply->n_session;
        to->waits = status_waits(&out, reply);
        to->n_waits = reply->n_wait;
    }
    if (out.failed) {
        return tqi_error_nomem(err, "the system's status");
    }
    op->status = to;
    return TQ_OK;
}

int tq_query_status(tq_op *op)
{
    tq_error err = {0};
    int rc;
    tqi_client_request_task *request =
        tqi_client_request_make(op, TQI_SYSTEM_STATUS, &tq__system_status__descriptor, status_decode, &rc);

    return request != NULL ? tqi_client_task_submit(op, &request->task, TQ_OK, &err) : rc;
}

static int status_events(tq_op *op, const tqi_client_task *task, const ProtobufCMessage *message, tq_error *err)
{
    const Tq__EventsReply *reply = (const Tq__EventsReply *)message;
    const Tq__Events *asked = (const Tq__Events *)((const tqi_client_request_task *)task)->message;
    status_out out = {.region = &op->results};
    tq_event *to;

    if (reply == NULL) { /* nothing happened until the deadline */
        op->next_event = asked->since;
        return TQ_OK;
    }
    to = status_array(&out, reply->n_event, sizeof(*to));
    for (size_t i = 0; to != NULL && i < reply->n_event; i++) {
        const Tq__Event *from = reply->event[i];
        to[i].seq = from->seq;
        to[i].time = (double)from->time_us / 1e6;
        to[i].kind = status_text(&out, from->kind);
        to[i].session = status_text(&out, from->session);
        to[i].partition = status_text(&out, from->partition);
        to[i].task = status_text(&out, from->task);
        to[i].samples = from->samples;
        to[i].bytes = from->bytes;
        to[i].indexes = status_copy(&out, from->index, from->n_index, sizeof(*from->index));
        to[i].n_indexes = from->n_index;
    }
    const tq_event *const *events = status_list(&out, to, reply->n_event, sizeof(*to));
    if (out.failed) {
        return tqi_error_nomem(err, "events");
    }
    op->events = events;
    op->n_events = reply->n_event;
    op->next_event = reply->next;
    if (reply->n_event > 0) { /* without one, the caller keeps its number */
        atomic_store(&op->client->events_epoch, reply->epoch);
    }
    return TQ_OK;
}

int tq_query_events(tq_op *op, uint64_t since, uint32_t limit, bool wait)
{
    tq_error err = {0};
    int rc;
    tqi_client_request_task *request =
        tqi_client_request_make(op, TQI_EVENTS, &tq__events__descriptor, status_events, &rc);

    if (request == NULL) {
        return rc;
    }
    Tq__Events *message = (Tq__Events *)request->message;
    message->since = since;
    message->limit = limit;
    message->wait = wait;
    message->epoch = since ? atomic_load(&op->client->events_epoch) : 0;
    request->timeout_ms = wait ? &message->timeout_ms : NULL;
    request->quiet_timeout = wait;
    return tqi_client_task_submit(op, &request->task, TQ_OK, &err);
}
