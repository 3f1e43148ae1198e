/*
 * status.c - tq status: waiting calls, partitions with what was produced and consumed, storage, clients.
 */
#include "cli/cli.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* The names in this JSON are those of status() in Python. */
static json_t *status_field(const tq_status_field *field)
{
    char text[128];
    json_t *shape = field->ragged ? json_null() : json_array();

    for (uint32_t d = 0; !field->ragged && d < field->ndim; d++) {
        json_array_append_new(shape, json_integer((json_int_t)field->shape[d]));
    }
    return json_pack("{s:o, s:b, s:s, s:b, s:o, s:i, s:i, s:b}", "name", cli_json_text(field->name), "is_tensor",
                     field->kind == TQ_TENSOR && !field->mixed, "dtype",
                     field->mixed              ? "mixed"
                     : field->kind == TQ_VALUE ? "value"
                                               : cli_dtype(field->dtype, text),
                     "ragged", field->ragged, "shape", shape, "produced", (int)field->produced, "lost",
                     (int)field->lost, "mixed", field->mixed);
}

static json_t *status_partition(const tq_status_partition *partition)
{
    json_t *fields = json_array();
    json_t *tasks = json_array();
    json_t *produced = json_object(); /* these two: the same by name */
    json_t *consumed = json_object();
    json_t *lost = json_array();

    for (size_t i = 0; i < partition->n_fields; i++) {
        json_t *field = status_field(partition->fields[i]);
        cli_json_set(produced, partition->fields[i]->name, json_incref(field));
        json_array_append_new(fields, field);
    }
    for (size_t i = 0; i < partition->n_tasks; i++) {
        const tq_status_task *task = partition->tasks[i];
        cli_json_set(consumed, task->name, json_integer(task->consumed));
        json_array_append_new(
            tasks, json_pack("{s:o, s:i}", "name", cli_json_text(task->name), "consumed", (int)task->consumed));
    }
    for (size_t i = 0; i < partition->n_lost; i++) {
        json_array_append_new(lost, json_integer(partition->lost[i]));
    }
    return json_pack("{s:o, s:i, s:I, s:o, s:o, s:o, s:o, s:o}", "name", cli_json_text(partition->name), "samples",
                     (int)partition->samples, "bytes", (json_int_t)partition->bytes, "fields", fields, "tasks", tasks,
                     "produced", produced, "consumed", consumed, "lost", lost);
}

static json_t *status_owner_json(const tq_status_owner *owner)
{
    json_t *holders = json_array();

    for (size_t i = 0; i < owner->n_holders; i++) {
        const tq_status_pin *pin = owner->holders[i];
        json_array_append_new(holders, json_pack("{s:o, s:o, s:I, s:I, s:I}", "client", cli_json_text(pin->client),
                                                 "host", cli_json_text(pin->host), "pid", (json_int_t)pin->pid, "pins",
                                                 (json_int_t)pin->pins, "bytes", (json_int_t)pin->bytes));
    }
    return json_pack("{s:o, s:o, s:b, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "name", cli_json_text(owner->name),
                     "manager", cli_json_text(owner->manager), "present", owner->present, "blocks",
                     (json_int_t)owner->blocks, "bytes", (json_int_t)owner->bytes, "used_bytes",
                     (json_int_t)owner->used_bytes, "capacity_bytes", (json_int_t)owner->capacity_bytes, "pins",
                     (json_int_t)owner->pins, "pinned_bytes", (json_int_t)owner->pinned_bytes, "waiting_puts",
                     (json_int_t)owner->waiting_puts, "holders", holders);
}

static json_t *status_wait_json(const tq_status_wait *wait)
{
    json_t *fields = json_array();

    for (size_t i = 0; i < wait->n_fields; i++) {
        json_array_append_new(fields, cli_json_text(wait->fields[i]));
    }
    return json_pack("{s:o, s:o, s:o, s:I, s:o, s:o, s:o, s:o, s:I, s:I, s:f, s:o, s:b}", "kind",
                     cli_json_text(wait->kind), "client", cli_json_text(wait->client), "host",
                     cli_json_text(wait->host), "pid", (json_int_t)wait->pid, "task", cli_json_text(wait->task),
                     "partition", cli_json_text(wait->partition), "fields", fields, "unit", cli_json_text(wait->owner),
                     "wanted", (json_int_t)wait->wanted, "ready", (json_int_t)wait->ready, "age", wait->age, "missing",
                     cli_json_text(wait->missing), "suspect", wait->suspect);
}

static json_t *status_json(const tq_system_status *status)
{
    json_t *partitions = json_array();
    json_t *storage = json_array();
    json_t *sessions = json_array();
    json_t *waits = json_array();
    char epoch[17]; /* as text: JSON numbers lose precision above 2^53 */

    snprintf(epoch, sizeof(epoch), "%016" PRIx64, status->epoch);
    for (size_t i = 0; i < status->n_partitions; i++) {
        json_array_append_new(partitions, status_partition(status->partitions[i]));
    }
    for (size_t i = 0; i < status->n_owners; i++) {
        json_array_append_new(storage, status_owner_json(status->owners[i]));
    }
    for (size_t i = 0; i < status->n_sessions; i++) {
        const tq_status_session *session = status->sessions[i];
        json_array_append_new(
            sessions, json_pack("{s:o, s:o, s:o, s:I, s:b, s:f}", "name", cli_json_text(session->name), "host",
                                cli_json_text(session->host), "endpoint", cli_json_text(session->endpoint), "pid",
                                (json_int_t)session->pid, "connected", session->connected, "age", session->age));
    }
    for (size_t i = 0; i < status->n_waits; i++) {
        json_array_append_new(waits, status_wait_json(status->waits[i]));
    }
    return json_pack("{s:o, s:f, s:s, s:i, s:I, s:o, s:o, s:o, s:o}", "version", cli_json_text(status->version),
                     "uptime", status->uptime, "epoch", epoch, "waiting", (int)status->waiting, "requests",
                     (json_int_t)status->requests, "partitions", partitions, "storage", storage, "clients", sessions,
                     "waits", waits);
}

/* One line per waiting call, with the reason. Nothing if there are none. */
static void status_print_waits(const tq_system_status *status)
{
    static const char *const columns[] = {"WAITING", "CLIENT", "TASK",   "WHERE",  "FIELDS",
                                          ">WANTED", ">READY", ">SINCE", "MISSING"};
    cli_table *table = status->n_waits ? cli_table_new(columns, 9) : NULL;
    char fields[96];
    char wanted[32];
    char ready[32];

    for (size_t i = 0; table != NULL && i < status->n_waits; i++) {
        const tq_status_wait *wait = status->waits[i];
        bool put = strcmp(wait->kind, "put") == 0;
        size_t used = 0;
        fields[0] = 0;
        for (size_t f = 0; f < wait->n_fields && used < sizeof(fields); f++) {
            int n = snprintf(fields + used, sizeof(fields) - used, "%s%s", f ? ", " : "", wait->fields[f]);
            used += n > 0 ? (size_t)n : 0;
        }
        cli_table_row(table);
        cli_table_cell(table, "%s", wait->kind);
        cli_table_cell(table, "%s", wait->client);
        cli_table_cell(table, "%s", wait->task);
        cli_table_cell(table, "%s", put ? (wait->owner[0] ? wait->owner : "(none)") : wait->partition);
        cli_table_cell(table, "%s", fields);
        if (put) {
            cli_table_cell(table, "%s", cli_bytes(wait->wanted, wanted));
            cli_table_cell(table, "%s", cli_bytes(wait->ready, ready));
        } else {
            cli_table_cell(table, "%" PRIu64, wait->wanted);
            cli_table_cell(table, "%" PRIu64, wait->ready);
        }
        cli_table_cell(table, "%.0f s", wait->age);
        cli_table_cell(table, "%s", wait->missing);
    }
    if (table != NULL) {
        cli_table_print(table);
        putchar('\n');
    }
}

/* One line per client that reads blocks in place. Nothing if there are none. */
static void status_print_pins(const tq_system_status *status)
{
    static const char *const columns[] = {"PINNED BY", "HOST", ">PID", "STORAGE", ">PINS", ">SIZE"};
    cli_table *table = NULL;
    char size[32];

    for (size_t i = 0; i < status->n_owners; i++) {
        const tq_status_owner *owner = status->owners[i];
        for (size_t h = 0; h < owner->n_holders; h++) {
            const tq_status_pin *pin = owner->holders[h];
            if (table == NULL && (table = cli_table_new(columns, 6)) == NULL) {
                return;
            }
            cli_table_row(table);
            cli_table_cell(table, "%s", pin->client[0] ? pin->client : "(session over)");
            cli_table_cell(table, "%s", pin->host);
            cli_table_cell(table, "%" PRIu64, pin->pid);
            cli_table_cell(table, "%s", owner->name);
            cli_table_cell(table, "%" PRIu64, pin->pins);
            cli_table_cell(table, "%s", cli_bytes(pin->bytes, size));
        }
    }
    if (table != NULL) {
        putchar('\n');
        cli_table_print(table);
    }
}

/* One line per field of a partition: what was produced. */
static void status_print_partitions(const tq_system_status *status)
{
    static const char *const columns[] = {"PARTITION", ">SAMPLES", ">SIZE", "FIELD", "TYPE", ">PRODUCED", ">LOST"};
    cli_table *table = cli_table_new(columns, 7);
    char text[32];
    char type[32];
    char shape[128];

    for (size_t p = 0; table != NULL && p < status->n_partitions; p++) {
        const tq_status_partition *partition = status->partitions[p];
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
            const tq_status_field *field = partition->fields[i];
            cli_table_cell(table, "%s", field->name);
            if (field->mixed || field->kind == TQ_VALUE) {
                cli_table_cell(table, "%s", field->mixed ? "mixed" : "value");
            } else {
                cli_table_cell(table, "%s %s", cli_dtype(field->dtype, type),
                               cli_shape(field->ragged, field->ndim, field->shape, shape));
            }
            cli_table_cell(table, "%" PRIu32, field->produced);
            cli_table_cell(table, "%" PRIu32, field->lost);
        }
    }
    if (table != NULL) {
        cli_table_print(table);
    }
}

/* One line per task and partition: what was consumed. Nothing if there are none. */
static void status_print_tasks(const tq_system_status *status)
{
    static const char *const columns[] = {"TASK", "PARTITION", ">CONSUMED", ">SAMPLES"};
    cli_table *table = NULL;

    for (size_t p = 0; p < status->n_partitions; p++) {
        const tq_status_partition *partition = status->partitions[p];
        for (size_t i = 0; i < partition->n_tasks; i++) {
            if (table == NULL && (table = cli_table_new(columns, 4)) == NULL) {
                return;
            }
            cli_table_row(table);
            cli_table_cell(table, "%s", partition->tasks[i]->name);
            cli_table_cell(table, "%s", partition->name);
            cli_table_cell(table, "%" PRIu32, partition->tasks[i]->consumed);
            cli_table_cell(table, "%" PRIu32, partition->samples);
        }
    }
    if (table != NULL) {
        cli_table_print(table);
        putchar('\n');
    }
}

/* A store without a server process of ours is known only through its clients: without one, nothing is known about it. */
static const char *status_owner(const tq_status_owner *owner)
{
    bool has_process = owner->capacity_bytes > 0 || strcmp(owner->manager, "SimpleStorage") == 0;

    return owner->present ? "up" : has_process ? "gone" : "no client";
}

static void status_print_owners(const tq_system_status *status)
{
    static const char *const columns[] = {"STORAGE", "MANAGER", "STATE", ">BLOCKS", ">USED", ">PINNED", ">CAPACITY"};
    cli_table *table = cli_table_new(columns, 7);
    char used[32];
    char pinned[32];
    char capacity[32];

    for (size_t i = 0; table != NULL && i < status->n_owners; i++) {
        const tq_status_owner *owner = status->owners[i];
        cli_table_row(table);
        cli_table_cell(table, "%s", owner->name);
        cli_table_cell(table, "%s", owner->manager);
        cli_table_cell(table, "%s", status_owner(owner));
        cli_table_cell(table, "%" PRIu64, owner->blocks);
        /* A store without a server process of ours reports neither. */
        bool told = owner->capacity_bytes > 0;
        cli_table_cell(table, "%s", told ? cli_bytes(owner->used_bytes, used) : "-");
        cli_table_cell(table, "%s", told ? cli_bytes(owner->pinned_bytes, pinned) : "-");
        cli_table_cell(table, "%s", told ? cli_bytes(owner->capacity_bytes, capacity) : "-");
    }
    if (table != NULL) {
        cli_table_print(table);
    }
}

static void status_print_sessions(const tq_system_status *status)
{
    static const char *const columns[] = {"CLIENT", "HOST", ">PID", "FROM", "STATE", ">AGE"};
    cli_table *table = cli_table_new(columns, 6);

    for (size_t i = 0; table != NULL && i < status->n_sessions; i++) {
        const tq_status_session *session = status->sessions[i];
        cli_table_row(table);
        cli_table_cell(table, "%s", session->name);
        cli_table_cell(table, "%s", session->host);
        cli_table_cell(table, "%" PRIu64, session->pid);
        cli_table_cell(table, "%s", session->endpoint);
        cli_table_cell(table, "%s", session->connected ? "connected" : "away");
        cli_table_cell(table, "%.0f s", session->age);
    }
    if (table != NULL) {
        cli_table_print(table);
    }
}

static uint64_t status_puts(const tq_system_status *status)
{
    uint64_t puts = 0;

    for (size_t i = 0; i < status->n_owners; i++) {
        puts += status->owners[i]->waiting_puts;
    }
    return puts;
}

int cli_status(cli_options *options)
{
    cli_session session = {0};
    int status = options->n_args ? cli_usage("status takes no arguments") : cli_connect(options, false, &session);

    if (status) {
        return status;
    }
    status = cli_wait(&session, tq_query_status(session.op));
    if (!status) {
        const tq_system_status *system = tq_op_status(session.op);
        if (options->json) {
            status = cli_print_json(status_json(system));
        } else {
            printf("up %.0f s, %" PRIu64 " request%s, %" PRIu32 " claim%s waiting, %" PRIu64
                   " put%s waiting for room\n\n",
                   system->uptime, system->requests, system->requests == 1 ? "" : "s", system->waiting,
                   system->waiting == 1 ? "" : "s", status_puts(system), status_puts(system) == 1 ? "" : "s");
            status_print_waits(system);
            if (system->n_partitions) {
                status_print_partitions(system);
            } else {
                puts("no partitions");
            }
            putchar('\n');
            status_print_tasks(system);
            status_print_owners(system);
            status_print_pins(system);
            putchar('\n');
            status_print_sessions(system);
        }
    }
    cli_disconnect(&session);
    return status;
}
