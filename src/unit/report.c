/*
 * report.c - what a unit reports to the controller, for status and metrics: bytes, requests by operation, puts that
 * wait for room, and clients that pin blocks. Only requests are counted. Reads on the same machine copy from the
 * unit's memory and do not appear here.
 */
#include "unit/report.h"

#include <stdlib.h>

#include <utlist.h>

#include "base/clock.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/pointer.h"
#include "base/process.h"
#include "unit/room.h"
#include "unit/unit_state.h"
#include "unit/wait.h"
#include "unit/writers.h"

/* The least time between two reports. In a system of many units the controller asks for more; while puts wait here it
 * is at most the second, because their clients ask the controller what they are waiting for. */
#define REPORT_LEAST_MS  200u
#define REPORT_WAITED_MS 2000u

#define REPORT_MAX       32
#define REPORT_NAME      32
/* Most puts that wait, and most clients with pins, in one report. */
#define REPORT_WAITS 32u
#define REPORT_PINS  16u

static const char *const report_ops[TQI_UNIT_OPS] = {"put", "get", "clear"};

void tqi_unit_count(tqi_unit *unit, tqi_unit_op op, uint64_t since)
{
    tqi_histogram_add(&unit->ops[op], tqi_now() - since);
    tqi_unit_reportable(unit);
}

/* The counters as two columns. */
typedef struct report_columns {
    char names[REPORT_MAX][REPORT_NAME];
    char *name[REPORT_MAX];
    uint64_t value[REPORT_MAX];
    size_t n;
} report_columns;

static void report_add(report_columns *columns, const char *prefix, const char *name, uint64_t value)
{
    char *text = columns->names[columns->n];

    snprintf(text, REPORT_NAME, "%s%s", prefix, name);
    columns->name[columns->n] = text;
    columns->value[columns->n++] = value;
}

static void report_fill(const tqi_unit *unit, report_columns *columns)
{
    uint64_t waiting = 0, limited = 0; /* of all of its process */
    const tqi_unit_wait *wait;

    for (int i = 0; i < 2; i++) {
        DL_FOREACH (unit->waits.row[i], wait) {
            waiting++;
        }
    }
    report_add(columns, "", "capacity_bytes", tqi_store_capacity(unit->store));
    report_add(columns, "", "used_bytes", tqi_store_used(unit->store));
    report_add(columns, "", "blocks", tqi_store_blocks(unit->store));
    report_add(columns, "", "rss_bytes", tqi_process_rss());
    report_add(columns, "", "arrived", tqi_net_server_requests(unit->server));
    report_add(columns, "", "waiting_puts", waiting);
    report_add(columns, "", "moved", unit->compact.moved);
    report_add(columns, "", "moved_bytes", unit->compact.moved_bytes);
    for (int limit = 0; limit < TQI_LIMIT_NUMBER; limit++) {
        limited += tqi_limit_times((tqi_limit)limit);
    }
    report_add(columns, "", "limits_reached", limited);
    report_add(columns, "", "sifted", unit->sift.freed);
    report_add(columns, "", "pins", unit->pins);
    report_add(columns, "", "pinned_bytes", unit->pinned_bytes);
    for (int op = 0; op < TQI_UNIT_OPS; op++) {
        const tqi_histogram *times = &unit->ops[op];
        char prefix[16];
        snprintf(prefix, sizeof(prefix), "%s_", report_ops[op]);
        report_add(columns, prefix, "arrived", times->count);
        report_add(columns, prefix, "requests", times->count);
        report_add(columns, prefix, "avg_ns", times->count ? times->sum_ns / times->count : 0);
        report_add(columns, prefix, "p50_ns", tqi_histogram_quantile(times, 0.5));
        report_add(columns, prefix, "p99_ns", tqi_histogram_quantile(times, 0.99));
    }
}

/* Waits and pins of a report. */
typedef struct report_told {
    Tq__WaitInfo waits[REPORT_WAITS];
    Tq__WaitInfo *wait[REPORT_WAITS];
    char missing[REPORT_WAITS][TQI_UNIT_ROOM_TEXT];
    size_t n_waits;
    Tq__PinInfo pins[REPORT_PINS];
    Tq__PinInfo *pin[REPORT_PINS];
    size_t n_pins;
} report_told;

static void report_wait(const tqi_unit *unit, const tqi_unit_wait *wait, bool behind, report_told *told)
{
    const tqi_net_session *session = tqi_net_request_session(wait->base.request);
    Tq__WaitInfo *info = &told->waits[told->n_waits];
    char *missing = told->missing[told->n_waits];

    tq__wait_info__init(info);
    info->kind = tqi_unconst("put");
    if (session != NULL) {
        info->client = tqi_unconst(tqi_net_session_name(session));
        info->pid = tqi_net_session_pid(session);
        info->host = tqi_unconst(tqi_net_session_host(session));
        info->session.data = tqi_unconst(tqi_net_session_id(session));
        info->session.len = TQI_NET_SESSION_ID;
    }
    info->wanted = tqi_unit_wanted(wait->message);
    info->ready = tqi_unit_room(unit, wait->message->adds_samples);
    info->age_ms = (tqi_now() - wait->since) / 1000000u;
    info->number = wait->number;
    tqi_unit_describe_room(unit, info->wanted, wait->message->adds_samples, behind, missing, TQI_UNIT_ROOM_TEXT);
    info->missing = missing;
    told->wait[told->n_waits++] = info;
}

static void report_pins(const tqi_unit *unit, report_told *told)
{
    const tqi_unit_writer *holders[REPORT_PINS];

    told->n_pins = tqi_unit_holders(unit, holders, REPORT_PINS);
    for (size_t i = 0; i < told->n_pins; i++) {
        const tqi_net_session *session = holders[i]->session;
        Tq__PinInfo *info = &told->pins[i];
        tq__pin_info__init(info);
        if (session != NULL) {
            info->client = tqi_unconst(tqi_net_session_name(session));
            info->host = tqi_unconst(tqi_net_session_host(session));
        }
        info->pid = holders[i]->pid;
        info->pins = HASH_COUNT(holders[i]->pins);
        info->bytes = holders[i]->pinned_bytes;
        told->pin[i] = info;
    }
}

/* NULL: there is nothing to report, or no memory to do so; then only the status lacks it. */
static report_told *report_tell(const tqi_unit *unit)
{
    const tqi_unit_wait *wait;
    report_told *told = NULL;

    if (tqi_unit_waited_for(unit) || unit->pins > 0) {
        told = calloc(1, sizeof(*told));
    }
    for (int i = 0; told != NULL && i < 2; i++) {
        DL_FOREACH (unit->waits.row[i], wait) {
            if (told->n_waits < REPORT_WAITS) {
                report_wait(unit, wait, told->n_waits > 0, told);
            }
        }
    }
    if (told != NULL) {
        report_pins(unit, told);
    }
    return told;
}

void tqi_unit_report_every(tqi_unit *unit, uint64_t ms)
{
    unit->report_ms = ms > REPORT_LEAST_MS ? ms : REPORT_LEAST_MS;
}

/* Milliseconds until the next report may be made. */
static uint64_t report_pause(const tqi_unit *unit)
{
    uint64_t every = unit->report_ms, past = (tqi_now() - unit->reported_at) / 1000000u;

    if (every > REPORT_WAITED_MS && tqi_unit_waited_for(unit)) {
        every = REPORT_WAITED_MS;
    }
    return every > past + REPORT_LEAST_MS ? every - past : REPORT_LEAST_MS;
}

static void report_send(uv_timer_t *timer);

static void report_done(tqi_net_call *call, tqi_net_answer *answer, void *arg)
{
    tqi_unit *unit = arg;

    (void)call;
    unit->reporting = NULL;
    unit->dirty |= answer->status != TQ_OK;
    if (answer->status == TQ_OK) {
        tqi_unit_report_every(unit, ((const Tq__ReportOwnerReply *)answer->reply)->report_ms);
    }
    if (unit->dirty && unit->registered && !unit->closing) {
        uv_timer_start(&unit->report, report_send, report_pause(unit), 0);
    }
}

static void report_send(uv_timer_t *timer)
{
    tqi_unit *unit = timer->data;
    Tq__ReportOwner message;
    report_columns columns = {.n = 0};
    tq_error err = {0};

    unit->dirty = false;
    if (!unit->registered || unit->reporting != NULL) {
        unit->dirty = true;
        return;
    }
    unit->reported_at = tqi_now();
    report_fill(unit, &columns);
    tq__report_owner__init(&message);
    message.name = unit->name;
    message.counter = columns.name;
    message.value = columns.value;
    message.n_counter = message.n_value = columns.n;
    report_told *told = report_tell(unit);
    if (told != NULL) {
        message.wait = told->wait;
        message.n_wait = told->n_waits;
        message.pin = told->pin;
        message.n_pin = told->n_pins;
    }
    tqi_net_call_args args = {
        .kind = TQI_REPORT_OWNER,
        .message = &message.base,
        .deadline = TQI_NEVER,
        .done = report_done,
        .arg = unit,
    };
    if (tqi_net_call_start(unit->controller, &args, &unit->reporting, &err) != TQ_OK) {
        tqi_log(TQI_WARN, "unit", "%s: no report: %s", unit->name, err.message);
        unit->reporting = NULL;
        unit->dirty = true;
    }
    free(told);
}

void tqi_unit_counters_reset(tqi_unit *unit)
{
    report_send(&unit->report);
}

void tqi_unit_reportable(tqi_unit *unit)
{
    bool waits = unit->dirty && unit->report_ms > REPORT_WAITED_MS && tqi_unit_waited_for(unit) &&
                 uv_timer_get_due_in(&unit->report) > REPORT_WAITED_MS;

    if ((unit->dirty && !waits) || unit->closing) {
        return;
    }
    unit->dirty = true;
    if (unit->reporting == NULL) {
        uv_timer_start(&unit->report, report_send, report_pause(unit), 0);
    }
}
