/*
 * status.c - tq status: partitions with what was produced and consumed, storage, clients.
 */
#include "cli/cli.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static json_t *status_fields(const tq_status_partition *partition)
{
    json_t *fields = json_object();
    char text[128];
    for (size_t i = 0; i < partition->n_fields; i++) {
        const tq_status_field *field = &partition->fields[i];
        json_t *shape = field->ragged ? json_null() : json_array();
        for (uint32_t d = 0; !field->ragged && d < field->ndim; d++) {
            json_array_append_new(shape, json_integer((json_int_t)field->shape[d]));
        }
        json_object_set_new(
            fields, field->name,
            json_pack("{s:s, s:b, s:o, s:i, s:i}", "dtype",
                      field->kind == TQ_VALUE ? "value" : cli_dtype(field->dtype, text), "ragged",
                      field->ragged, "shape", shape, "produced", (int)field->produced, "lost",
                      (int)field->lost));
    }
    return fields;
}

static json_t *status_partition(const tq_status_partition *partition)
{
    json_t *tasks = json_object();
    json_t *lost = json_array();
    for (size_t i = 0; i < partition->n_tasks; i++) {
        json_object_set_new(tasks, partition->tasks[i].name,
                            json_integer(partition->tasks[i].consumed));
    }
    for (size_t i = 0; i < partition->n_lost; i++) {
        json_array_append_new(lost, json_integer(partition->lost[i]));
    }
    return json_pack("{s:s, s:i, s:I, s:o, s:o, s:o}", "name", partition->name, "samples",
                     (int)partition->samples, "bytes", (json_int_t)partition->bytes, "produced",
                     status_fields(partition), "consumed", tasks, "lost", lost);
}

static json_t *status_json(const tq_system_status *status)
{
    json_t *partitions = json_array();
    json_t *storage = json_array();
    json_t *sessions = json_array();
    char epoch[17]; /* as text: JSON numbers lose what is above 2^53 */
    snprintf(epoch, sizeof(epoch), "%016" PRIx64, status->epoch);
    for (size_t i = 0; i < status->n_partitions; i++) {
        json_array_append_new(partitions, status_partition(&status->partitions[i]));
    }
    for (size_t i = 0; i < status->n_owners; i++) {
        const tq_status_owner *owner = &status->owners[i];
        json_array_append_new(
            storage, json_pack("{s:s, s:s, s:b, s:I, s:I, s:I, s:I, s:I, s:I}", "name", owner->name,
                               "manager", owner->manager, "present", owner->present, "blocks",
                               (json_int_t)owner->blocks, "bytes", (json_int_t)owner->bytes,
                               "used_bytes", (json_int_t)owner->used_bytes, "capacity_bytes",
                               (json_int_t)owner->capacity_bytes, "pins", (json_int_t)owner->pins,
                               "pinned_bytes", (json_int_t)owner->pinned_bytes));
    }
    for (size_t i = 0; i < status->n_sessions; i++) {
        const tq_status_session *session = &status->sessions[i];
        json_array_append_new(sessions,
                              json_pack("{s:s, s:s, s:s, s:I, s:b, s:f}", "name", session->name,
                                        "host", session->host, "endpoint", session->endpoint, "pid",
                                        (json_int_t)session->pid, "connected", session->connected,
                                        "age", session->age));
    }
    return json_pack("{s:s, s:f, s:s, s:i, s:I, s:o, s:o, s:o}", "version", status->version,
                     "uptime", status->uptime, "epoch", epoch, "waiting", (int)status->waiting,
                     "requests", (json_int_t)status->requests, "partitions", partitions, "storage",
                     storage, "clients", sessions);
}

/* One line per field of a partition: what was produced. */
static void status_print_partitions(const tq_system_status *status)
{
    static const char *const columns[] = {"PARTITION", ">SAMPLES",  ">SIZE", "FIELD",
                                          "TYPE",      ">PRODUCED", ">LOST"};
    cli_table *table = cli_table_new(columns, 7);
    char text[32];
    char type[32];
    char shape[128];

    for (size_t p = 0; table && p < status->n_partitions; p++) {
        const tq_status_partition *partition = &status->partitions[p];
        for (size_t i = 0; i < partition->n_fields || i == 0; i++) {
            cli_table_row(table);
            cli_table_cell(table, "%s", i ? "" : partition->name);
            if (i == 0) {
                cli_table_cell(table, "%" PRIu32, partition->samples);
            } else {
                cli_table_cell(table, "%s", "");
            }
            cli_table_cell(table, "%s", i ? "" : cli_bytes(partition->bytes, text));
            if (i >= partition->n_fields) {
                continue;
            }
            const tq_status_field *field = &partition->fields[i];
            cli_table_cell(table, "%s", field->name);
            if (field->kind == TQ_VALUE) {
                cli_table_cell(table, "%s", "value");
            } else {
                cli_table_cell(table, "%s %s", cli_dtype(field->dtype, type),
                               cli_shape(field->ragged, field->ndim, field->shape, shape));
            }
            cli_table_cell(table, "%" PRIu32, field->produced);
            cli_table_cell(table, "%" PRIu32, field->lost);
        }
    }
    if (table) {
        cli_table_print(table);
    }
}

/* One line per task and partition: what was consumed.  Nothing when there are none. */
static void status_print_tasks(const tq_system_status *status)
{
    static const char *const columns[] = {"TASK", "PARTITION", ">CONSUMED", ">SAMPLES"};
    cli_table *table = NULL;

    for (size_t p = 0; p < status->n_partitions; p++) {
        const tq_status_partition *partition = &status->partitions[p];
        for (size_t i = 0; i < partition->n_tasks; i++) {
            if (!table && !(table = cli_table_new(columns, 4))) {
                return;
            }
            cli_table_row(table);
            cli_table_cell(table, "%s", partition->tasks[i].name);
            cli_table_cell(table, "%s", partition->name);
            cli_table_cell(table, "%" PRIu32, partition->tasks[i].consumed);
            cli_table_cell(table, "%" PRIu32, partition->samples);
        }
    }
    if (table) {
        cli_table_print(table);
        putchar('\n');
    }
}

/* A store without a process of its own is known by its clients: without one nothing is known of it. */
static const char *status_owner(const tq_status_owner *owner)
{
    bool has_process = owner->capacity_bytes > 0 || strcmp(owner->manager, "SimpleStorage") == 0;

    return owner->present ? "up" : has_process ? "gone" : "no client";
}

static void status_print_owners(const tq_system_status *status)
{
    static const char *const columns[] = {"STORAGE", "MANAGER", "STATE",
                                          ">BLOCKS", ">USED",   ">CAPACITY"};
    cli_table *table = cli_table_new(columns, 6);
    char used[32];
    char capacity[32];

    for (size_t i = 0; table && i < status->n_owners; i++) {
        const tq_status_owner *owner = &status->owners[i];
        cli_table_row(table);
        cli_table_cell(table, "%s", owner->name);
        cli_table_cell(table, "%s", owner->manager);
        cli_table_cell(table, "%s", status_owner(owner));
        cli_table_cell(table, "%" PRIu64, owner->blocks);
        /* A store without a process of its own tells neither. */
        bool told = owner->capacity_bytes > 0;
        cli_table_cell(table, "%s", told ? cli_bytes(owner->used_bytes, used) : "-");
        cli_table_cell(table, "%s", told ? cli_bytes(owner->capacity_bytes, capacity) : "-");
    }
    if (table) {
        cli_table_print(table);
    }
}

static void status_print_sessions(const tq_system_status *status)
{
    static const char *const columns[] = {"CLIENT", "HOST", ">PID", "FROM", "STATE", ">AGE"};
    cli_table *table = cli_table_new(columns, 6);

    for (size_t i = 0; table && i < status->n_sessions; i++) {
        const tq_status_session *session = &status->sessions[i];
        cli_table_row(table);
        cli_table_cell(table, "%s", session->name);
        cli_table_cell(table, "%s", session->host);
        cli_table_cell(table, "%" PRIu64, session->pid);
        cli_table_cell(table, "%s", session->endpoint);
        cli_table_cell(table, "%s", session->connected ? "connected" : "away");
        cli_table_cell(table, "%.0f s", session->age);
    }
    if (table) {
        cli_table_print(table);
    }
}

int cli_status(cli_options *options)
{
    cli_session session = {0};
    int status = options->n_args ? cli_usage("status takes no arguments")
                                 : cli_connect(options, false, &session);
    if (status) {
        return status;
    }
    status = cli_wait(&session, tq_status(session.op));
    if (!status) {
        const tq_system_status *system = tq_op_status(session.op);
        if (options->json) {
            status = cli_print_json(status_json(system));
        } else {
            printf("up %.0f s, %" PRIu64 " requests, %" PRIu32 " claims waiting\n\n",
                   system->uptime, system->requests, system->waiting);
            if (system->n_partitions) {
                status_print_partitions(system);
            } else {
                puts("no partitions");
            }
            putchar('\n');
            status_print_tasks(system);
            status_print_owners(system);
            putchar('\n');
            status_print_sessions(system);
        }
    }
    cli_disconnect(&session);
    return status;
}
