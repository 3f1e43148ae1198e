/*
 * metrics.c - the controller's state at one instant as a set of metrics.
 *
 * It runs on the loop, so it is kept short: one walk over the partitions and their tasks, and separate series only for
 * the newest partitions, because a training run makes one per step and looks only at the last ones.
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/limits.h"
#include "controller/controller.h"
#include "controller/controller_state.h"
#include "controller/meter.h"
#include "controller/owners.h"

typedef struct gather_state {
    tqi_controller *ctl;
    tqi_metric_set *set;
    const tqi_table_partition *partition;
    uint32_t samples; /* of the partition */
    double produced;  /* share of it */
    uint64_t all_samples, all_bytes, lost_samples, lost_cells;
} gather_state;

static void gather_add(gather_state *state, tqi_metric metric, const char *label, double value)
{
    tqi_metric_add(state->set, metric, label, NULL, value);
}

/* --- partitions ----------------------------------------------------------- */

static void gather_sum_task(const tqi_table_task_info *info, void *arg)
{
    gather_state *state = arg;
    tqi_ctl_meter_name *task = tqi_ctl_meter_task(state->ctl->meter, info->name);

    task->ready += info->ready;
    task->unconsumed += state->samples - info->consumed;
}

/* Totals of all partitions. */
static void gather_sum(gather_state *state, const tqi_table_partition *partition)
{
    uint32_t lost = tqi_table_partition_lost(partition, NULL, 0);
    tqi_table_field_info field;

    state->samples = tqi_table_partition_samples(partition);
    state->all_samples += state->samples;
    state->all_bytes += tqi_table_partition_bytes(partition);
    state->lost_samples += lost;
    for (size_t i = 0; lost && tqi_table_partition_field(partition, i, &field); i++) {
        state->lost_cells += field.lost;
    }
    tqi_table_partition_each_task(partition, gather_sum_task, state);
}

static void gather_task(const tqi_table_task_info *info, void *arg)
{
    gather_state *state = arg;
    const char *name = tqi_table_partition_name(state->partition);

    tqi_metric_add(state->set, TQI_M_PRODUCTION, name, info->name, state->produced);
    tqi_metric_add(state->set, TQI_M_CONSUMPTION, name, info->name,
                   state->samples ? (double)info->consumed / state->samples : 0);
}

/* The series of one partition. */
static void gather_partition(gather_state *state, const tqi_table_partition *partition)
{
    const char *name = tqi_table_partition_name(partition);
    uint32_t produced = 0;
    tqi_table_field_info field;

    for (size_t i = 0; tqi_table_partition_field(partition, i, &field); i++) {
        produced = field.produced > produced ? field.produced : produced;
    }
    state->partition = partition;
    state->samples = tqi_table_partition_samples(partition);
    state->produced = state->samples ? (double)produced / state->samples : 0;
    gather_add(state, TQI_M_PARTITION_SAMPLES, name, state->samples);
    gather_add(state, TQI_M_PARTITION_BYTES, name, (double)tqi_table_partition_bytes(partition));
    tqi_metric_add(state->set, TQI_M_PRODUCTION, name, "all", state->produced);
    tqi_table_partition_each_task(partition, gather_task, state);
}

static int gather_partitions(gather_state *state, uint32_t max)
{
    tqi_table_partition *partition = NULL;
    size_t n = 0;
    tqi_table_partition **newest = calloc(max ? max : 1, sizeof(tqi_table_partition *)); /* a ring */

    if (newest == NULL) {
        return TQ_ENOMEM;
    }
    while ((partition = tqi_table_next_partition(state->ctl->table, partition)) != NULL) {
        gather_sum(state, partition);
        if (max) {
            newest[n % max] = partition;
        }
        n++;
    }
    size_t shown = n < max ? n : max;
    for (size_t i = n - shown; i < n; i++) {
        gather_partition(state, newest[i % max]);
    }
    free(newest);
    gather_add(state, TQI_M_PARTITIONS, NULL, (double)n);
    gather_add(state, TQI_M_PARTITIONS_HIDDEN, NULL, (double)(n - shown));
    gather_add(state, TQI_M_SAMPLES, NULL, (double)state->all_samples);
    gather_add(state, TQI_M_BYTES, NULL, (double)state->all_bytes);
    gather_add(state, TQI_M_LOST_SAMPLES, NULL, (double)state->lost_samples);
    gather_add(state, TQI_M_LOST_CELLS, NULL, (double)state->lost_cells);
    return TQ_OK;
}

/* --- counters ------------------------------------------------------------- */

static void gather_ops(gather_state *state)
{
    for (size_t i = 0; i < TQI_CTL_METER_OPS; i++) {
        const tqi_ctl_meter_op *op = &state->ctl->meter->ops[i];
        if (op->name == NULL || op->duration.count == 0) {
            continue;
        }
        tqi_metric_add_histogram(state->set, TQI_M_REQUEST_DURATION, op->name, &op->duration);
        gather_add(state, TQI_M_REQUESTS, op->name, (double)op->duration.count);
        gather_add(state, TQI_M_REQUEST_ERRORS, op->name, (double)op->errors);
        if (op->event != NULL) {
            gather_add(state, TQI_M_REQUEST_SAMPLES, op->name, (double)op->samples);
        }
    }
}

static void gather_tasks(gather_state *state)
{
    for (tqi_ctl_meter_name *task = state->ctl->meter->tasks; task != NULL; task = task->hh.next) {
        if (strcmp(task->name, TQI_METRIC_OTHER) == 0 && !task->claims && !task->unconsumed && !task->waiting) {
            continue;
        }
        gather_add(state, TQI_M_TASK_WAITING, task->name, task->waiting);
        gather_add(state, TQI_M_TASK_READY, task->name, (double)task->ready);
        gather_add(state, TQI_M_TASK_UNCONSUMED, task->name, (double)task->unconsumed);
        gather_add(state, TQI_M_TASK_CLAIMS, task->name, (double)task->claims);
        gather_add(state, TQI_M_TASK_SAMPLES, task->name, (double)task->items);
        gather_add(state, TQI_M_TASK_BYTES, task->name, (double)task->bytes);
        tqi_metric_add_histogram(state->set, TQI_M_TASK_WAIT, task->name, &task->wait);
    }
}

static void gather_counters(gather_state *state)
{
    const tqi_ctl_meter *meter = state->ctl->meter;

    gather_ops(state);
    gather_tasks(state);
    for (tqi_ctl_meter_name *field = meter->fields; field != NULL; field = field->hh.next) {
        if (field->items || strcmp(field->name, TQI_METRIC_OTHER) != 0) {
            gather_add(state, TQI_M_FIELD_CELLS, field->name, (double)field->items);
            gather_add(state, TQI_M_FIELD_BYTES, field->name, (double)field->bytes);
        }
    }
    for (size_t i = 0; i < TQI_CTL_METER_EVENTS_MAX && meter->events[i].kind != NULL; i++) {
        gather_add(state, TQI_M_EVENTS, meter->events[i].kind, (double)meter->events[i].count);
    }
}

/* --- owners --------------------------------------------------------------- */

/* Counters that owners of any kind report under these names become dedicated metrics; all others keep their names. The
 * names are part of the contract of ReportOwner (protocol/tq.proto) and do not depend on the kind of storage. */
static const struct {
    const char *counter;
    tqi_metric metric;
    const char *op; /* second label, or NULL */
    double scale;
} gather_reports[] = {
    {"capacity_bytes", TQI_M_OWNER_CAPACITY, NULL, 1},
    {"used_bytes", TQI_M_OWNER_USED, NULL, 1},
    {"waiting_puts", TQI_M_OWNER_WAITING, NULL, 1},
    {"rss_bytes", TQI_M_STORAGE_RSS, NULL, 1},
    {"arrived", TQI_M_STORAGE_ARRIVED, NULL, 1},
    {"put_arrived", TQI_M_STORAGE_ARRIVALS, "PUT_DATA", 1},
    {"put_requests", TQI_M_STORAGE_OPS, "PUT_DATA", 1},
    {"put_avg_ns", TQI_M_STORAGE_AVG, "PUT_DATA", 1e-9},
    {"put_p50_ns", TQI_M_STORAGE_P50, "PUT_DATA", 1e-9},
    {"put_p99_ns", TQI_M_STORAGE_P99, "PUT_DATA", 1e-9},
    {"get_arrived", TQI_M_STORAGE_ARRIVALS, "GET_DATA", 1},
    {"get_requests", TQI_M_STORAGE_OPS, "GET_DATA", 1},
    {"get_avg_ns", TQI_M_STORAGE_AVG, "GET_DATA", 1e-9},
    {"get_p50_ns", TQI_M_STORAGE_P50, "GET_DATA", 1e-9},
    {"get_p99_ns", TQI_M_STORAGE_P99, "GET_DATA", 1e-9},
    {"clear_arrived", TQI_M_STORAGE_ARRIVALS, "CLEAR_DATA", 1},
    {"clear_requests", TQI_M_STORAGE_OPS, "CLEAR_DATA", 1},
    {"clear_avg_ns", TQI_M_STORAGE_AVG, "CLEAR_DATA", 1e-9},
    {"clear_p50_ns", TQI_M_STORAGE_P50, "CLEAR_DATA", 1e-9},
    {"clear_p99_ns", TQI_M_STORAGE_P99, "CLEAR_DATA", 1e-9},
};

static void gather_report(gather_state *state, const tqi_ctl_owner *owner, const char *counter, double value)
{
    for (size_t i = 0; i < sizeof(gather_reports) / sizeof(*gather_reports); i++) {
        if (strcmp(counter, gather_reports[i].counter) == 0) {
            tqi_metric_add(state->set, gather_reports[i].metric, owner->name, gather_reports[i].op,
                           value * gather_reports[i].scale);
            return;
        }
    }
    tqi_metric_add(state->set, TQI_M_OWNER_COUNTER, owner->name, counter, value);
}

/* False when the owner did not report it. */
static bool gather_reported(const tqi_ctl_owner *owner, const char *name, double *out)
{
    for (size_t i = 0; i < owner->n_counters; i++) {
        if (strcmp(owner->counters[i], name) == 0) {
            *out = (double)owner->values[i];
            return true;
        }
    }
    return false;
}

/* What upstream reports about each of its storage units, for owners that are processes with memory, as those
 * are. */
static void gather_unit(gather_state *state, const tqi_ctl_owner *owner)
{
    double rss = 0;
    double capacity = 0;
    double used = 0;

    if (!gather_reported(owner, "rss_bytes", &rss) || !gather_reported(owner, "capacity_bytes", &capacity) ||
        !gather_reported(owner, "used_bytes", &used)) {
        return;
    }
    gather_add(state, TQI_M_STORAGE_KEYS, owner->name, (double)tqi_table_owner_blocks(owner->table_owner));
    gather_add(state, TQI_M_STORAGE_UTILIZATION, owner->name, capacity > 0 ? used / capacity : 0);
    gather_add(state, TQI_M_SSD_ENABLED, owner->name, 0);
    gather_add(state, TQI_M_SSD_VALUES, owner->name, 0);
    gather_add(state, TQI_M_SSD_BYTES, owner->name, 0);
    gather_add(state, TQI_M_SSD_FALLBACK, owner->name, 0);
}

static void gather_owners(gather_state *state)
{
    for (tqi_ctl_owner *owner = state->ctl->owners; owner != NULL; owner = owner->hh.next) {
        gather_add(state, TQI_M_OWNER_UP, owner->name, owner->servers != NULL);
        gather_add(state, TQI_M_OWNER_LIVE, owner->name, (double)tqi_table_owner_bytes(owner->table_owner));
        gather_add(state, TQI_M_OWNER_BLOCKS, owner->name, (double)tqi_table_owner_blocks(owner->table_owner));
        for (size_t i = 0; i < owner->n_counters; i++) {
            gather_report(state, owner, owner->counters[i], (double)owner->values[i]);
        }
        gather_unit(state, owner);
    }
}

/* --- the whole ------------------------------------------------------------ */

static void gather_session(tqi_net_session *session, void *arg)
{
    size_t *connected = arg;

    connected[tqi_net_session_connected(session) ? 1 : 0]++;
}

static void gather_system(gather_state *state)
{
    tqi_controller *ctl = state->ctl;
    tqi_table_counts counts;
    size_t sessions[2] = {0, 0};
    char epoch[24];

    snprintf(epoch, sizeof(epoch), "%016llx", (unsigned long long)tqi_table_epoch(ctl->table));
    tqi_metric_add(state->set, TQI_M_BUILD, TQI_VERSION, epoch, 1);
    gather_add(state, TQI_M_UPTIME, NULL, (double)(tqi_now() - ctl->started) / 1e9);
    tqi_table_count(ctl->table, &counts);
    gather_add(state, TQI_M_INDEX_ALLOCATED, NULL, (double)counts.samples);
    gather_add(state, TQI_M_INDEX_REUSABLE, NULL, tqi_table_free_indexes(ctl->table));
    gather_add(state, TQI_M_BLOCKS, NULL, (double)counts.blocks);
    gather_add(state, TQI_M_DEAD_BLOCKS, NULL, (double)counts.dead);
    gather_add(state, TQI_M_OPEN_CLAIMS, NULL, (double)counts.claims);
    gather_add(state, TQI_M_WAITING_CLAIMS, NULL, ctl->waiting);
    tqi_net_server_each_session(ctl->server, gather_session, sessions);
    gather_add(state, TQI_M_SESSIONS, "connected", (double)sessions[1]);
    gather_add(state, TQI_M_SESSIONS, "away", (double)sessions[0]);
    for (int limit = 0; limit < TQI_LIMIT_NUMBER; limit++) {
        gather_add(state, TQI_M_LIMITS, tqi_limit_name((tqi_limit)limit), (double)tqi_limit_times((tqi_limit)limit));
    }
}

int tqi_controller_metrics(tqi_controller *ctl, uint32_t max_partitions, tqi_metric_set **out, tq_error *err)
{
    if (ctl->meter == NULL) {
        return tqi_error_set(err, TQ_EUNSUPPORTED, "the controller was started without metrics");
    }
    gather_state state = {.ctl = ctl, .set = tqi_metric_set_alloc()};
    if (state.set == NULL) {
        return tqi_error_nomem(err, "metrics");
    }
    for (tqi_ctl_meter_name *task = ctl->meter->tasks; task != NULL; task = task->hh.next) {
        task->ready = task->unconsumed = 0;
    }
    gather_system(&state);
    if (gather_partitions(&state, max_partitions) != TQ_OK) {
        tqi_metric_set_free(state.set);
        return tqi_error_nomem(err, "metrics");
    }
    gather_counters(&state);
    gather_owners(&state);
    *out = state.set;
    return TQ_OK;
}
