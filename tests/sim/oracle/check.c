/*
 * check.c - see check.h: runs all checks over the history.
 */
#include "oracle/check.h"

#include "oracle/check_parts.h"
#include "oracle/guard.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

const char *check_name(const history_op *op)
{
    static char names[8][96];
    static unsigned at;
    char *name = names[at++ % 8];

    (void)snprintf(name, sizeof(names[0]), "op %" PRIu64 " (%s of client-%u.%u, %s)", op->number,
                   history_call_names[op->call], op->client, op->life, op->partition != NULL ? op->partition : "");
    return name;
}

uint64_t check_until(const history_op *op)
{
    return op->status != HISTORY_RUNNING ? op->commits_ended : trail_count();
}

const char *check_pending(uint32_t client)
{
    static char text[1024];
    size_t used = 0;

    text[0] = '\0';
    for (uint64_t number = 1; number <= history_ops(); number++) {
        const history_op *op = history_op_of(number);

        if (op->client == client && op->status == HISTORY_RUNNING && used + 160 < sizeof(text)) {
            used += (size_t)snprintf(text + used, sizeof(text) - used, "%s%s, invoked at %.3f s with %.3f s",
                                     used > 0 ? "; " : "", check_name(op), (double)op->invoked / 1e9, op->seconds);
        }
    }
    return used > 0 ? text : "no op is running";
}

bool check_is_client(uint64_t pid)
{
    for (uint64_t number = history_ops(); number > 0; number--) {
        if (history_op_of(number)->pid == pid) {
            return true;
        }
    }
    return false;
}

bool check_closed(uint32_t client, uint32_t life)
{
    const history_event *events;
    size_t n;

    events = history_events(&n);
    for (size_t i = 0; i < n; i++) {
        if (events[i].client == client && events[i].life == life && strcmp(events[i].what, "close") == 0) {
            return true;
        }
    }
    return false;
}

bool check_may_be_cut(void)
{
    static const sim_fault faults[] = {
        SIM_CHUNK_DELAY,  SIM_CUT,         SIM_STALL, SIM_PARTITION, SIM_CONNECT_HANG, SIM_CONNECT_REFUSE,
        SIM_CONNECT_LATE, SIM_ACCEPT_FULL, SIM_STOP,  SIM_OOM,       SIM_TIMER_LATE,   SIM_CLOCK_SKEW,
    };

    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        if (history_may(faults[i])) {
            return true;
        }
    }
    return false;
}

/* LOST is only for storage that has ended, or seems to have. */
static void check_losses(void)
{
    const bool may = !guard_trusts || check_may_be_cut() || history_may(SIM_KILL_POINT) || history_may(SIM_KILL_EVENT) ||
                     history_may(SIM_DISK_TORN) /* power */ || history_may(SIM_KV_EVICT) || history_may(SIM_KV_LATE);

    for (uint64_t number = 1; number <= trail_count() && !may; number++) {
        const witness_commit *commit = trail_commit_at(number);

        sim_check(commit->kind != WITNESS_LOST, "none lost",
                  "commit %" PRIu64
                  ": cells of %u samples of partition '%s' are lost, but nothing can have ended their "
                  "storage",
                  commit->number, commit->n, commit->partition);
    }
}

static void check_ops(bool drained)
{
    trail_update();
    check_matches();
    for (uint64_t number = 1; number <= history_ops(); number++) {
        const history_op *op = history_op_of(number);

        if (op->checked) {
            continue;
        }
        check_op_commits(op);
        check_op_code(op);
        check_op_deadline(op);
        check_op_query(op);
        check_op_values(op);
        check_op_served(op);
        ((history_op *)(uintptr_t)op)->checked = op->status != HISTORY_RUNNING;
    }
    check_all_commits(drained);
    check_losses();
}

void check_history(void)
{
    trail_end();
    check_ops(false);
}

/* --- the drain ------------------------------------------------------------------------ */

static uint32_t check_drain_client(void)
{
    const history_event *events;
    size_t n;

    events = history_events(&n);
    for (size_t i = 0; i < n; i++) {
        if (events[i].drains) {
            return events[i].client;
        }
    }
    return 0;
}

static bool check_is_look(const history_op *op)
{
    return op->call == HISTORY_RESOLVE && op->by == HISTORY_BY_ALL && op->status == HISTORY_OK && !op->all_fields;
}

/* Whether one of the drain's ops of that kind, between two others, returned the sample of the look. */
static bool check_drain_has(history_call call, const history_op *look, const history_op *last, uint32_t row)
{
    for (uint64_t number = look->number + 1; number < last->number; number++) {
        const history_op *op = history_op_of(number);

        if (op->client != look->client || op->call != call || op->status != HISTORY_OK) {
            continue;
        }
        for (uint32_t i = 0; i < op->n_results; i++) {
            if (op->results[i].index == look->results[row].index &&
                op->results[i].incarnation == look->results[row].incarnation) {
                return true;
            }
        }
    }
    return false;
}

/* Every sample that had the field before the drain claimed it was claimed and read, or has lost it meanwhile. */
static void check_drain_field(const history_op *look, const history_op *last)
{
    sim_check(look->n_results == last->n_results, "none lost",
              "partition '%s' had %u samples when the drain of field '%s' began, and %u at its end", look->partition,
              look->n_results, look->fields[0], last->n_results);
    for (uint32_t i = 0; i < look->n_results; i++) {
        if (look->ready[i] != 1 || last->ready[i] == 2) {
            continue;
        }
        sim_check(check_drain_has(HISTORY_CLAIM, look, last, i), "none lost",
                  "sample %u.%u of partition '%s' has field '%s', but the drain was not given it",
                  look->results[i].index, look->results[i].incarnation, look->partition, look->fields[0]);
        sim_check(check_drain_has(HISTORY_GET, look, last, i), "none lost",
                  "sample %u.%u of partition '%s' has field '%s', but the drain could not read it",
                  look->results[i].index, look->results[i].incarnation, look->partition, look->fields[0]);
    }
}

static void check_drain_op(const history_op *op)
{
    const bool legal = op->status == HISTORY_OK || (op->call == HISTORY_CLAIM && op->code == TQ_EAGAIN) ||
                       (op->call == HISTORY_GET && op->code == TQ_ELOST) ||
                       (op->call == HISTORY_RESOLVE && op->code == TQ_EPARTITION);

    sim_check(legal, "none lost", "the drain's %s ended with %s: %s", check_name(op), tq_error_name(op->code),
              op->message != NULL ? op->message : "");
}

/* At the end nothing is there any more. */
static void check_drain_empty(const history_op *last)
{
    const trail_partition *partition;

    sim_check(last->call == HISTORY_LIST_PARTITIONS, "none lost", "the drain did not get to its end, but to %s",
              check_name(last));
    sim_check(last->n_names == 0, "a clear clears", "after the last clear there is still partition '%s'",
              last->n_names > 0 ? last->names[0] : "");
    trail_set_epoch(last->epoch);
    for (uint64_t number = 1; number <= trail_count(); number++) {
        partition = trail_partition_of(trail_commit_at(number)->partition);
        for (size_t i = 0; partition != NULL && i < partition->n; i++) {
            sim_check(partition->samples[i]->cleared != TRAIL_NEVER, "none lost",
                      "sample %u.%u of partition '%s' was never cleared, but the drain did not see it",
                      partition->samples[i]->index, partition->samples[i]->incarnation, partition->name);
        }
    }
}

void check_drained(void)
{
    const uint32_t client = check_drain_client();
    const history_op *last = NULL;
    const history_op *look = NULL; /* at the beginning of a field */

    check_ops(true);
    for (uint64_t number = 1; number <= history_ops(); number++) {
        const history_op *op = history_op_of(number);

        if (op->client == client) {
            check_drain_op(op);
            last = op;
        }
    }
    for (uint64_t number = 1; last != NULL && number <= history_ops(); number++) {
        const history_op *op = history_op_of(number);

        if (op->client != client || !check_is_look(op)) {
            continue;
        }
        if (look != NULL) {
            check_drain_field(look, op);
        }
        look = look == NULL ? op : NULL;
    }
    if (last != NULL) {
        check_drain_empty(last);
    }
    trail_end();
}
