/*
 * status.c - a picture of the whole system for people: partitions, owners, sessions; and its configuration.
 */
#include "base/clock.h"
#include "base/pointer.h"
#include "base/type.h"
#include "controller/claims.h"
#include "controller/controller_state.h"
#include "controller/convert.h"
#include "controller/handlers.h"
#include "controller/owners.h"
#include "controller/reply.h"

static int status_fields(tqi_region *conv, const tqi_table_partition *partition, Tq__PartitionInfo *out, tq_error *err)
{
    tqi_table_field_info field;
    size_t n = 0;

    while (tqi_table_partition_field(partition, n, &field)) {
        n++;
    }
    Tq__FieldInfo *items = tqi_ctl_conv_alloc(conv, n, sizeof(*items), err);
    out->field = tqi_ctl_conv_pointers(conv, n, err);
    if (items == NULL || out->field == NULL) {
        return TQ_ENOMEM;
    }
    for (size_t i = 0; i < n && tqi_table_partition_field(partition, i, &field); i++) {
        tq__field_info__init(&items[i]);
        items[i].name = tqi_ctl_conv_text(field.name);
        items[i].kind = field.kind;
        items[i].dtype = tqi_type_pack(0, field.dtype);
        items[i].ragged = field.ragged;
        items[i].ragged_dim = field.ragged_dim;
        items[i].mixed = field.mixed;
        items[i].shape = tqi_unconst(field.shape);
        items[i].n_shape = field.ragged ? 0 : field.ndim;
        items[i].produced = field.produced;
        items[i].lost = field.lost;
        out->field[out->n_field++] = &items[i];
    }
    return TQ_OK;
}

static int status_tasks(tqi_region *conv, const tqi_table_partition *partition, Tq__PartitionInfo *out, tq_error *err)
{
    const char *name = NULL;
    uint32_t consumed = 0;
    size_t n = 0;

    while (tqi_table_partition_task(partition, n, &name, &consumed)) {
        n++;
    }
    Tq__TaskInfo *items = tqi_ctl_conv_alloc(conv, n, sizeof(*items), err);
    out->task = tqi_ctl_conv_pointers(conv, n, err);
    if (items == NULL || out->task == NULL) {
        return TQ_ENOMEM;
    }
    for (size_t i = 0; i < n && tqi_table_partition_task(partition, i, &name, &consumed); i++) {
        tq__task_info__init(&items[i]);
        items[i].name = tqi_ctl_conv_text(name);
        items[i].consumed = consumed;
        out->task[out->n_task++] = &items[i];
    }
    return TQ_OK;
}

static int status_partition(tqi_region *conv, const tqi_table_partition *partition, Tq__PartitionInfo *out,
                            tq_error *err)
{
    tq__partition_info__init(out);
    out->name = tqi_ctl_conv_text(tqi_table_partition_name(partition));
    out->samples = tqi_table_partition_samples(partition);
    out->bytes = tqi_table_partition_bytes(partition);
    uint32_t lost = tqi_table_partition_lost(partition, NULL, 0);
    if (lost) {
        lost = lost < TQI_CTL_LOST_MAX ? lost : TQI_CTL_LOST_MAX;
        out->lost = tqi_ctl_conv_alloc(conv, lost, sizeof(*out->lost), err);
        if (out->lost == NULL) {
            return TQ_ENOMEM;
        }
        tqi_table_partition_lost(partition, out->lost, lost);
        out->n_lost = lost;
    }
    int rc = status_fields(conv, partition, out, err);
    return rc ? rc : status_tasks(conv, partition, out, err);
}

static int status_partitions(tqi_controller *ctl, tqi_region *conv, Tq__SystemStatusReply *reply, tq_error *err)
{
    tqi_table_partition *partition = NULL;
    size_t n = 0;
    int rc = TQ_OK;

    while ((partition = tqi_table_next_partition(ctl->table, partition)) != NULL) {
        n++;
    }
    Tq__PartitionInfo *items = tqi_ctl_conv_alloc(conv, n, sizeof(*items), err);
    reply->partition = tqi_ctl_conv_pointers(conv, n, err);
    if (items == NULL || reply->partition == NULL) {
        return TQ_ENOMEM;
    }
    while (rc == TQ_OK && (partition = tqi_table_next_partition(ctl->table, partition)) != NULL) {
        Tq__PartitionInfo *item = &items[reply->n_partition];
        rc = status_partition(conv, partition, item, err);
        reply->partition[reply->n_partition++] = item;
    }
    return rc;
}

/* --- sessions ------------------------------------------------------------- */

static void status_count_session(tqi_net_session *session, void *arg)
{
    size_t *n = arg;

    (void)session;
    (*n)++;
}

static void status_add_session(tqi_net_session *session, void *arg)
{
    Tq__SystemStatusReply *reply = arg;
    Tq__SessionInfo *info = reply->session[reply->n_session++];

    tq__session_info__init(info);
    info->name = tqi_ctl_conv_text(tqi_net_session_name(session));
    info->pid = tqi_net_session_pid(session);
    info->host = tqi_ctl_conv_text(tqi_net_session_host(session));
    info->endpoint = tqi_ctl_conv_text(tqi_net_session_endpoint(session));
    info->connected = tqi_net_session_connected(session);
    info->age_ms = tqi_net_session_age_ms(session);
}

static int status_sessions(tqi_controller *ctl, tqi_region *conv, Tq__SystemStatusReply *reply, tq_error *err)
{
    size_t n = 0;

    tqi_net_server_each_session(ctl->server, status_count_session, &n);
    Tq__SessionInfo *items = tqi_ctl_conv_alloc(conv, n, sizeof(*items), err);
    reply->session = tqi_ctl_conv_pointers(conv, n, err);
    if (items == NULL || reply->session == NULL) {
        return TQ_ENOMEM;
    }
    for (size_t i = 0; i < n; i++) {
        reply->session[i] = &items[i];
    }
    tqi_net_server_each_session(ctl->server, status_add_session, reply);
    return TQ_OK;
}

int tqi_ctl_on_system_status(tqi_controller *ctl, tqi_net_request *request, const Tq__SystemStatus *msg, tq_error *err)
{
    Tq__SystemStatusReply reply;
    tqi_region conv = {.next = TQI_CTL_CONV_FIRST};

    if (msg->mine) {
        return tqi_ctl_waiting_mine(ctl, request, msg, err);
    }
    tq__system_status_reply__init(&reply);
    reply.epoch = tqi_table_epoch(ctl->table);
    reply.uptime_ms = (tqi_now() - ctl->started) / 1000000u;
    reply.version = tqi_ctl_conv_text(TQI_VERSION);
    reply.waiting = ctl->waiting;
    reply.requests = tqi_net_server_requests(ctl->server);
    int rc = status_partitions(ctl, &conv, &reply, err);
    rc = rc ? rc : tqi_ctl_owners_describe(ctl, &conv, "", &reply.owner, &reply.n_owner, err);
    rc = rc ? rc : status_sessions(ctl, &conv, &reply, err);
    rc = rc ? rc : tqi_ctl_waiting(ctl, &conv, &reply.wait, &reply.n_wait, err);
    if (rc == TQ_OK) {
        tqi_ctl_reply(request, &reply.base);
    }
    tqi_region_fini(&conv);
    return rc;
}

int tqi_ctl_on_system_config(tqi_controller *ctl, tqi_net_request *request, const Tq__SystemConfig *msg, tq_error *err)
{
    Tq__SystemConfigReply reply;

    (void)msg;
    (void)err;
    tq__system_config_reply__init(&reply);
    reply.manager = ctl->manager;
    reply.manager_config = ctl->manager_config;
    reply.config = ctl->config;
    tqi_ctl_reply(request, &reply.base);
    return TQ_OK;
}
