/*
 * marks.c - see marks.h: the table, and how it is counted and reported.
 */
#include "marks.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "oracle/history.h"
#include "oracle/witness.h"
#include "wire/methods.h"

/* An event, and the number of seeds after which a run that has not seen it fails. 0: it may never be seen. */
typedef struct marks_line {
    const char *name;
    uint32_t seeds;
} marks_line;

#define MARKS_SOON 300
#define MARKS_RARE 2000

static const marks_line marks_table[] = {
    /* sessions and connections */
    {"session resumed", MARKS_SOON},
    {"client back before its connection was seen to end", MARKS_SOON},
    {"session lost after its grace", MARKS_SOON},
    {"session ended with its process", MARKS_SOON},
    {"kept reply answered again", MARKS_SOON},
    {"waiting requests named in an acknowledgement", MARKS_SOON},
    {"request sent again after a reconnect", MARKS_SOON},
    {"requests ended with their session", MARKS_SOON},
    {"another server answers at the address", MARKS_SOON},
    {"connection lost in the middle of a reply", MARKS_SOON},
    {"call ended in the middle of its payload", MARKS_RARE},
    {"request withdrawn before it was sent", MARKS_SOON},
    {"connection refused", MARKS_SOON},
    {"server is back", MARKS_SOON},
    {"server given up", MARKS_SOON},
    {"server said goodbye", MARKS_SOON},
    {"connection given back to a crowded server", 0},
    /* claims */
    {"claim served from the waiting list", MARKS_SOON},
    {"unacknowledged claim given back", MARKS_SOON},
    {"orphaned claim released", MARKS_SOON},
    {"cached pick handed out", MARKS_SOON},
    {"claim found too few samples", MARKS_SOON},
    {"waiting claim timed out", MARKS_SOON},
    /* calls */
    {"cancel", MARKS_SOON},
    {"cancel too late", MARKS_SOON},
    {"claim cancelled", MARKS_SOON},
    {"deadline of 0 to 50 ms", MARKS_SOON},
    {"deadline passed", MARKS_SOON},
    {"put was executed although its client does not know", MARKS_SOON},
    {"client killed in the middle of a put", MARKS_SOON},
    {"read found cleared samples", MARKS_SOON},
    {"read found lost data", MARKS_SOON},
    {"put found no room", MARKS_SOON},
    {"put written again under new ids", MARKS_SOON},
    {"put gave up what it had written", MARKS_SOON},
    {"left rows gone", MARKS_RARE},
    /* the simple manager */
    {"put waited for room", MARKS_SOON},
    {"put went elsewhere", MARKS_SOON},
    {"put took blocks reserved ahead", MARKS_SOON},
    {"blocks reserved ahead given back", 0},
    {"mapping of a unit given up", MARKS_SOON},
    {"unit told that a writer has finished", MARKS_SOON},
    {"read of blocks that had moved", MARKS_SOON},
    {"read reported lost blocks", MARKS_RARE},
    {"borrow became a copy", MARKS_SOON},
    /* units */
    {"writer deferred", MARKS_RARE},
    {"writer left behind", MARKS_SOON},
    {"writer finished after its session was lost", MARKS_RARE},
    {"pins left behind", MARKS_RARE},
    {"pin ended by the next session", MARKS_RARE},
    {"tomb", MARKS_SOON},
    {"reserve met a tomb", MARKS_RARE},
    {"tombs dropped", MARKS_SOON},
    {"unit renewed", MARKS_SOON},
    {"unit renewed in the middle of a move", MARKS_RARE},
    {"move lost with its session", MARKS_RARE},
    {"move refused", MARKS_SOON},
    {"move tried again later", MARKS_SOON},
    {"cells moved", MARKS_SOON},
    {"put hurried a move", MARKS_RARE},
    {"proof of a grant refused", 0},
    {"blocks known to no table", MARKS_RARE},
    /* the controller */
    {"owner lost after its timeout", MARKS_SOON},
    {"samples lost", MARKS_SOON},
    {"collector ended while it waited", MARKS_SOON},
    {"checkpoint interrupted", MARKS_RARE},
    {"load interrupted", MARKS_RARE},
    {"claims moved to a loaded partition", MARKS_RARE},
    /* managers of keys, and the KV manager */
    {"two-phase clear taken over", MARKS_SOON},
    {"value was removed while it was read", MARKS_RARE},
    {"two-phase clear not removed", MARKS_SOON},
    {"late blocks removed again", MARKS_SOON},
    {"collector registered again", MARKS_SOON},
    {"store had no room", MARKS_SOON},
    {"put waited for room in a store", MARKS_SOON},
    {"store did not answer", MARKS_SOON},
    {"store executed a request of a killed client", MARKS_SOON},
    {"value came late", MARKS_SOON},
    {"late value swept", MARKS_SOON},
    {"store evicted a value", MARKS_SOON},
    {"shelf lost a block", MARKS_SOON},
    /* processes */
    {"a machine lost power", MARKS_SOON},
    {"a unit ended in order", MARKS_SOON},
    {"a process that is stopped loses its connections", MARKS_SOON},
    /* the network */
    {"a TCP backlog is full", 0},
    {"a unix socket's backlog is full", 0},
    {"a process has no descriptor left", 0},
    {"a connect gets no answer", MARKS_SOON},
    {"a connect is late", MARKS_SOON},
    {"a connect is refused", MARKS_SOON},
    {"a connect timed out", 0},
    {"nobody listens", MARKS_SOON},
    {"an accept fails", MARKS_SOON},
    {"a listener closes on one that waits", MARKS_RARE},
    {"a send took a part", MARKS_SOON},
    {"a window was closed", MARKS_SOON},
    {"a connection stands still", MARKS_SOON},
    {"a connection is cut by FIN", MARKS_SOON},
    {"a connection is cut by reset", MARKS_SOON},
    {"cut, and what was in flight arrives", MARKS_SOON},
    {"cut, and what was in flight is lost", MARKS_SOON},
    {"cut, and a part of what was in flight arrives", MARKS_SOON},
    {"a connection is half-open", MARKS_SOON},
    {"a reset arrives", MARKS_SOON},
    {"a connection was closed with bytes unread", MARKS_RARE},
    {"a connection timed out with bytes unacknowledged", MARKS_SOON},
    {"a connection timed out by keepalive", MARKS_RARE},
    {"a partition", MARKS_SOON},
    {"a partition in one direction", MARKS_SOON},
    {"a process cannot be watched", MARKS_SOON},
    {"the end of a process is seen late", MARKS_SOON},
    {"the process at the other end is gone already", MARKS_RARE},
    /* memory */
    {"an allocation failed", MARKS_SOON},
    {"a copy was interrupted", MARKS_SOON},
    {"a read was interrupted", MARKS_SOON},
    {"a block was freed in the middle of a copy", MARKS_RARE},
};
#define MARKS_LINES (sizeof(marks_table) / sizeof(marks_table[0]))

uint64_t *marks_counts;

/* --- counting ---------------------------------------------------------------------- */

/* Names are literals, so their addresses tell most of them apart at once. */
#define MARKS_CACHE 1024u

static struct {
    const char *name;
    uint32_t line;
} marks_cache[MARKS_CACHE];

static uint32_t marks_find(const char *name)
{
    uint32_t line = 0;

    while (line < MARKS_LINES && strcmp(marks_table[line].name, name) != 0) {
        line++;
    }
    return line;
}

void sim_mark(const char *name)
{
    uint32_t at = (uint32_t)((uintptr_t)name >> 2) % MARKS_CACHE;

    if (marks_counts == NULL) {
        return;
    }
    if (marks_cache[at].name != name) {
        marks_cache[at].name = name;
        marks_cache[at].line = marks_find(name);
    }
    marks_counts[marks_cache[at].line]++;
}

/* --- at the end of a seed ------------------------------------------------------------- */

static bool marks_writes(history_call call)
{
    return call == HISTORY_PUT || call == HISTORY_NOTIFY;
}

static void marks_of_error(const history_op *op)
{
    if (op->code == TQ_ETIMEDOUT) {
        sim_mark(op->call == HISTORY_CLAIM ? "waiting claim timed out" : "deadline passed");
    } else if (op->code == TQ_ECANCELED && op->call == HISTORY_CLAIM) {
        sim_mark("claim cancelled");
    } else if (op->code == TQ_EAGAIN) {
        sim_mark("claim found too few samples");
    } else if (op->code == TQ_EFULL) {
        sim_mark("put found no room");
    } else if (op->code == TQ_ECLEARED && op->call == HISTORY_GET) {
        sim_mark("read found cleared samples");
    } else if (op->code == TQ_ELOST) {
        sim_mark("read found lost data");
    }
}

/* Whether a read shows a put whose client does not know that it was executed. */
static bool marks_shows_unknown(const history_op *op)
{
    for (size_t i = 0; op->values != NULL && i < (size_t)op->n_results * op->n_result_fields; i++) {
        const history_op *put = op->values[i].writer != 0 ? history_op_of(op->values[i].writer) : NULL;
        if (put != NULL && put->status != HISTORY_OK) {
            return true;
        }
    }
    return false;
}

static void marks_of_ops(void)
{
    for (uint64_t number = 1; number <= history_ops(); number++) {
        const history_op *op = history_op_of(number);
        if (op->status == HISTORY_RUNNING && marks_writes(op->call)) {
            sim_mark("client killed in the middle of a put");
        } else if (op->status == HISTORY_OK && op->cancelled) {
            sim_mark("cancel too late");
        } else if (op->status != HISTORY_OK) {
            marks_of_error(op);
        }
        if (marks_shows_unknown(op)) {
            sim_mark("put was executed although its client does not know");
        }
    }
}

static void marks_of_commits(void)
{
    const witness_commit *commits;
    size_t n;

    witness_commits(&commits, &n);
    for (size_t i = 0; i < n; i++) {
        const witness_commit *commit = &commits[i];
        if (commit->kind == WITNESS_RELEASE && commit->request_kind == 0) {
            sim_mark("unacknowledged claim given back");
        } else if (commit->kind == WITNESS_RELEASE && commit->request_kind == TQI_RELEASE) {
            sim_mark("orphaned claim released");
        } else if (commit->kind == WITNESS_LOST) {
            sim_mark("samples lost");
        } else if (commit->kind == WITNESS_MOVE) {
            sim_mark("cells moved");
        }
    }
}

void marks_of_seed(void)
{
    marks_of_ops();
    marks_of_commits();
}

/* --- the report ------------------------------------------------------------------------ */

uint64_t marks_report(const uint64_t *counts, uint64_t seeds, bool all)
{
    uint64_t missing = 0, others = 0;

    for (size_t i = 0; i < MARKS_LINES; i++) {
        bool due = marks_table[i].seeds > 0 && seeds >= marks_table[i].seeds;
        missing += due && counts[i] == 0;
        if (all || (due && counts[i] == 0)) {
            printf("mark: %10" PRIu64 " %s%s\n", counts[i], marks_table[i].name, due && counts[i] == 0 ? ": never" : "");
        }
    }
    for (size_t i = MARKS_LINES; i < MARKS_MAX; i++) {
        others += counts[i];
    }
    if (all && others > 0) {
        printf("mark: %10" PRIu64 " (not in the table)\n", others);
    }
    return missing;
}

_Static_assert(MARKS_LINES < MARKS_MAX, "there is room for all marks");
