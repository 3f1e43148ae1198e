/*
 * families.h - every metric of the system in one table: C name, name as served, type, labels, help.
 *
 * The first part has the names, types and labels of upstream (transferqueue 0.1.11), so that dashboards and
 * alerts made for it work; some of its families never have a series here (no unit counts keys, none probes its accept
 * queue) but are announced anyway, as it does. The second part is this system's own. Labels take only few values:
 * partitions are limited by configuration, tasks and fields to TQI_METRIC_NAMES_MAX each; more are counted under
 * "(other)".
 */
#ifndef TQI_METRICS_FAMILIES_H
#define TQI_METRICS_FAMILIES_H

#define TQI_METRIC_NAMES_MAX 256u
#define TQI_METRIC_OTHER     "(other)"

/* X(NAME, name, GAUGE | COUNTER | HISTOGRAM, label or NULL, second label or NULL, help) */
#define TQI_METRIC_FAMILIES(X)                                                                                         \
    X(REQUEST_DURATION, "tq_controller_request_duration_seconds", HISTOGRAM, "op_type", NULL,                          \
      "Time the controller worked on a request, without the time that it waited")                                      \
    X(REQUESTS, "tq_controller_request_total", COUNTER, "op_type", NULL, "Requests that the controller handled")       \
    X(REQUEST_ERRORS, "tq_controller_request_errors_total", COUNTER, "op_type", NULL,                                  \
      "Requests that the controller refused")                                                                          \
    X(REQUEST_SAMPLES, "tq_controller_request_samples_total", COUNTER, "op_type", NULL,                                \
      "Samples in the requests that the controller handled")                                                           \
    X(UPTIME, "tq_controller_uptime_seconds", GAUGE, NULL, NULL, "Time since the controller began")                    \
    X(MEMORY_RSS, "tq_controller_memory_rss_bytes", GAUGE, NULL, NULL,                                                 \
      "Resident memory of the process of the controller")                                                              \
    X(PARTITIONS, "tq_partitions_total", GAUGE, NULL, NULL, "Partitions")                                              \
    X(PARTITION_SAMPLES, "tq_partition_samples_total", GAUGE, "partition_id", NULL, "Samples in a partition")          \
    X(PRODUCTION, "tq_partition_production_progress", GAUGE, "partition_id", "task_name",                              \
      "Share of the partition's samples that the most complete field has, 0 to 1")                                     \
    X(CONSUMPTION, "tq_partition_consumption_progress", GAUGE, "partition_id", "task_name",                            \
      "Share of the partition's samples that the task has consumed, 0 to 1")                                           \
    X(INDEX_ALLOCATED, "tq_global_index_allocated_total", GAUGE, NULL, NULL, "Indexes in use")                         \
    X(INDEX_REUSABLE, "tq_global_index_reusable_total", GAUGE, NULL, NULL,                                             \
      "Indexes that were freed and will be used again")                                                                \
    X(STORAGE_CAPACITY, "tq_storage_capacity_total", GAUGE, "storage_unit_id", NULL,                                   \
      "Most keys of a storage unit: none is limited by keys, see tq_owner_capacity_bytes")                             \
    X(STORAGE_KEYS, "tq_storage_active_keys_total", GAUGE, "storage_unit_id", NULL, "Blocks in a storage unit")        \
    X(STORAGE_UTILIZATION, "tq_storage_utilization_ratio", GAUGE, "storage_unit_id", NULL,                             \
      "Used share of a storage unit's bytes, 0 to 1")                                                                  \
    X(STORAGE_RSS, "tq_storage_memory_rss_bytes", GAUGE, "storage_unit_id", NULL,                                      \
      "Resident memory of the process of a storage unit")                                                              \
    X(SSD_ENABLED, "tq_storage_ssd_offload_enabled", GAUGE, "storage_unit_id", NULL,                                   \
      "Whether a storage unit moves values to a disk: none does")                                                      \
    X(SSD_VALUES, "tq_storage_ssd_active_values", GAUGE, "storage_unit_id", NULL, "Values on a disk")                  \
    X(SSD_BYTES, "tq_storage_ssd_active_bytes", GAUGE, "storage_unit_id", NULL, "Bytes on a disk")                     \
    X(SSD_FALLBACK, "tq_storage_ssd_fallback_values_total", GAUGE, "storage_unit_id", NULL,                            \
      "Values kept in memory for want of a disk")                                                                      \
    X(STORAGE_ARRIVED, "tq_storage_requests_arrived", GAUGE, "storage_unit_id", NULL,                                  \
      "Requests that came to a storage unit")                                                                          \
    X(STORAGE_ARRIVALS, "tq_storage_arrivals_by_op", GAUGE, "storage_unit_id", "op_type",                              \
      "Requests that came to a storage unit, by operation")                                                            \
    X(ACCEPT_BACKLOG, "tq_storage_accept_queue_backlog", GAUGE, "storage_unit_id", NULL,                               \
      "Depth of the accept queue: not probed")                                                                         \
    X(ACCEPT_PEAK, "tq_storage_accept_queue_peak", GAUGE, "storage_unit_id", NULL, "Deepest accept queue: not probed") \
    X(ACCEPT_PEAK_RATIO, "tq_storage_accept_queue_peak_utilization_ratio", GAUGE, "storage_unit_id", NULL,             \
      "Deepest accept queue as a share of its depth: not probed")                                                      \
    X(SOCKET_DROPS, "tq_storage_socket_drops", GAUGE, "storage_unit_id", NULL, "Dropped connections: not probed")      \
    X(LISTEN_OVERFLOWS, "tq_storage_listen_overflows", GAUGE, "storage_unit_id", NULL,                                 \
      "Overflows of accept queues: not probed")                                                                        \
    X(LISTEN_DROPS, "tq_storage_listen_other_drops", GAUGE, "storage_unit_id", NULL,                                   \
      "Other drops of connections: not probed")                                                                        \
    X(STORAGE_OPS, "tq_storage_request_ops", GAUGE, "storage_unit_id", "op_type",                                      \
      "Requests that a storage unit has answered; same-node reads need none")                                          \
    X(STORAGE_AVG, "tq_storage_request_latency_avg", GAUGE, "storage_unit_id", "op_type",                              \
      "Mean time a storage unit worked on a request, in seconds")                                                      \
    X(STORAGE_P50, "tq_storage_request_latency_p50", GAUGE, "storage_unit_id", "op_type",                              \
      "Median time a storage unit worked on a request, in seconds")                                                    \
    X(STORAGE_P99, "tq_storage_request_latency_p99", GAUGE, "storage_unit_id", "op_type",                              \
      "99th percentile of the time a storage unit worked on a request, in seconds")                                    \
    /* This system's own. */                                                                                           \
    X(BUILD, "tq_build_info", GAUGE, "version", "epoch", "1, with version and epoch as labels")                        \
    X(OWNER_UP, "tq_owner_up", GAUGE, "owner", NULL, "Whether the owner of blocks is connected")                       \
    X(OWNER_CAPACITY, "tq_owner_capacity_bytes", GAUGE, "owner", NULL, "Bytes that an owner of blocks can hold")       \
    X(OWNER_USED, "tq_owner_used_bytes", GAUGE, "owner", NULL,                                                         \
      "Bytes that an owner of blocks has in use, as it reported last")                                                 \
    X(OWNER_LIVE, "tq_owner_live_bytes", GAUGE, "owner", NULL, "Bytes of an owner's blocks that samples refer to")     \
    X(OWNER_BLOCKS, "tq_owner_blocks", GAUGE, "owner", NULL, "Blocks of an owner that samples refer to")               \
    X(OWNER_WAITING, "tq_owner_waiting_puts", GAUGE, "owner", NULL, "Puts that wait for room in a storage unit")       \
    X(OWNER_COUNTER, "tq_owner_counter", GAUGE, "owner", "counter", "What else an owner of blocks reported")           \
    X(SAMPLES, "tq_samples", GAUGE, NULL, NULL, "Samples in all partitions")                                           \
    X(BYTES, "tq_bytes", GAUGE, NULL, NULL, "Bytes of the cells of all partitions")                                    \
    X(PARTITION_BYTES, "tq_partition_bytes", GAUGE, "partition_id", NULL, "Bytes of the cells of a partition")         \
    X(PARTITIONS_HIDDEN, "tq_partitions_without_series", GAUGE, NULL, NULL,                                            \
      "Older partitions that have no series of their own (metrics.max_partitions)")                                    \
    X(LOST_SAMPLES, "tq_lost_samples", GAUGE, NULL, NULL, "Samples that lost data with a storage")                     \
    X(LOST_CELLS, "tq_lost_cells", GAUGE, NULL, NULL, "Values that were lost with a storage")                          \
    X(WAITING_CLAIMS, "tq_waiting_claims", GAUGE, NULL, NULL, "Claims that wait for samples")                          \
    X(TASK_WAITING, "tq_task_waiting_claims", GAUGE, "task", NULL, "Claims of a task that wait for samples")           \
    X(TASK_READY, "tq_task_ready_samples", GAUGE, "task", NULL,                                                        \
      "Backlog: samples that are ready for a task and that it has not had")                                            \
    X(TASK_UNCONSUMED, "tq_task_unconsumed_samples", GAUGE, "task", NULL,                                              \
      "Samples that a task has not had, ready or not, in partitions where it works")                                   \
    X(TASK_CLAIMS, "tq_task_claims_total", COUNTER, "task", NULL, "Answered claims of a task")                         \
    X(TASK_SAMPLES, "tq_task_samples_total", COUNTER, "task", NULL, "Samples given to a task")                         \
    X(TASK_BYTES, "tq_task_bytes_total", COUNTER, "task", NULL, "Bytes of the cells given to a task")                  \
    X(TASK_WAIT, "tq_task_claim_wait_seconds", HISTOGRAM, "task", NULL,                                                \
      "Time from the arrival of a claim to its answer")                                                                \
    X(FIELD_CELLS, "tq_field_cells_total", COUNTER, "field", NULL, "Cells published of a field")                       \
    X(FIELD_BYTES, "tq_field_bytes_total", COUNTER, "field", NULL, "Bytes published of a field")                       \
    X(EVENTS, "tq_events_total", COUNTER, "kind", NULL, "What happened, by kind of event")                             \
    X(SESSIONS, "tq_sessions", GAUGE, "state", NULL, "Sessions of clients and storage units: connected, or away")      \
    X(LIMITS, "tq_limits_reached_total", COUNTER, "limit", NULL,                                                       \
      "How often a limit (section limits) was reached in the process of the controller")                               \
    X(BLOCKS, "tq_blocks", GAUGE, NULL, NULL, "Published blocks with live cells")                                      \
    X(DEAD_BLOCKS, "tq_dead_blocks", GAUGE, NULL, NULL,                                                                \
      "Entries of the queues of blocks that their owners have still to free")                                          \
    X(OPEN_CLAIMS, "tq_open_claims", GAUGE, NULL, NULL, "Claims whose answers were not acknowledged yet")

#endif
