/*
 * check_codes.c - legal programs get legal errors, only those that the faults of the seed can cause; and no op outlives
 * its deadline.
 */
#include "oracle/check_parts.h"

#include "world.h"

#include <inttypes.h>
#include <string.h>

#define CODES_INVARIANT "legal programs get legal errors"
#define CODES_DEADLINE  (2 * SIM_S)  /* 1 s, and another one for copies, which pause in this world */
#define CODES_LATE      (3 * SIM_S)  /* of timers of a busy host, at most */
#define CODES_CONNECT   5            /* seconds in which a connection is made */
#define CODES_FITS      (64u << 10)  /* bytes of cells that fit into any unit that is empty */
#define CODES_SETTLED   (25 * SIM_S) /* after faults are over, servers are back and everybody is connected */

static bool codes_may_be_cut(void)
{
    /* SIM_DISK_TORN: machines lose power. */
    return check_may_be_cut() || history_may(SIM_KILL_POINT) || history_may(SIM_KILL_EVENT) ||
           history_may(SIM_DISK_TORN);
}

/* Faults that end storage, or make it look ended. */
static bool codes_may_lose(void)
{
    return codes_may_be_cut() || history_may(SIM_KV_EVICT) || history_may(SIM_NO_PIDFD) ||
           history_may(SIM_PIDFD_LATE) || history_may(SIM_DISK_FLIP) || history_has_loads();
}

static bool codes_closed(const history_op *op)
{
    const history_event *events;
    size_t n;

    events = history_events(&n);
    for (size_t i = 0; i < n; i++) {
        if (events[i].client == op->client && events[i].life == op->life && strcmp(events[i].what, "close") == 0 &&
            events[i].time <= op->ended) {
            return true;
        }
    }
    return false;
}

/* Whether one of the samples that the op names was cleared by then (or never was there). */
static bool codes_cleared(const history_op *op, uint64_t c)
{
    for (uint32_t i = 0; i < op->n; i++) {
        const trail_sample *sample;

        if (op->by == HISTORY_BY_KEYS) {
            const trail_partition *partition = trail_partition_of(op->partition);

            for (size_t k = 0; partition != NULL && k < partition->n; k++) {
                sample = partition->samples[k];
                if (sample->key != NULL && strcmp(sample->key, op->rows[i].key) == 0 && sample->cleared <= c) {
                    return true;
                }
            }
            continue;
        }
        sample = trail_sample_of(op->partition, op->rows[i].index, op->rows[i].incarnation, op->commits_invoked);
        if (sample == NULL || sample->cleared <= c) {
            return true;
        }
    }
    return op->by == HISTORY_BY_ALL;
}

/* Whether one of the cells that the read names had not been written when it began, or was lost by its end. */
static bool codes_not_ready(const history_op *op, bool lost)
{
    for (uint32_t i = 0; i < op->n && op->by == HISTORY_BY_ROWS; i++) {
        const trail_sample *sample =
            trail_sample_of(op->partition, op->rows[i].index, op->rows[i].incarnation, op->commits_invoked);

        for (uint32_t f = 0; sample != NULL && f < op->n_fields; f++) {
            const trail_write *write = trail_write_at(trail_cell_of(sample, op->fields[f]), op->commits_invoked);

            if (sample->restored ||
                (lost ? write != NULL && trail_lost(sample, write, op->commits_ended) : write == NULL)) {
                return true;
            }
        }
    }
    return op->by != HISTORY_BY_ROWS || history_has_loads();
}

/* Whether one of the samples has ever lost cells. The read may say so before the controller knows. */
static bool codes_ever_lost(const history_op *op)
{
    for (uint32_t i = 0; i < op->n; i++) {
        const trail_sample *sample =
            trail_sample_of(op->partition, op->rows[i].index, op->rows[i].incarnation, op->commits_invoked);

        if (sample == NULL || sample->restored || sample->n_losses > 0 || sample->cleared != TRAIL_NEVER) {
            return true;
        }
    }
    return false;
}

/* A put that may wait for room, and would ever find it, waits until its deadline. The unit answers a little earlier,
 * and its clock may be 20 % fast, and the client's 20 % slow. Storage with keys of its own does not wait. */
static bool codes_full_late(const history_op *op)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < (size_t)op->n * op->n_fields; i++) {
        bytes += op->lengths[i];
    }
    return op->fail_when_full || world_drawn.storage == WORLD_KEYED || bytes > CODES_FITS || op->seconds < 0 ||
           (double)(op->local_ended - op->local_invoked) / 1e9 > op->seconds * (history_may(SIM_CLOCK_SKEW) ? 0.5 : 0.8);
}

/* Whether all fields that the op names were in the partition all the time. */
static bool codes_fields_there(const history_op *op)
{
    const trail_partition *partition = trail_partition_of(op->partition);

    for (uint32_t f = 0; f < op->n_fields; f++) {
        bool there = false;

        for (size_t i = 0; partition != NULL && i < partition->n && !there; i++) {
            const trail_sample *sample = partition->samples[i];

            there = sample->cleared > op->commits_ended &&
                    trail_write_at(trail_cell_of(sample, op->fields[f]), op->commits_invoked) != NULL;
        }
        if (!there) {
            return false;
        }
    }
    return true;
}

/* Whether the partition was there for the whole time of the op. */
static bool codes_partition_there(const history_op *op)
{
    const trail_partition *partition = trail_partition_of(op->partition);

    for (size_t i = 0; partition != NULL && i < partition->n; i++) {
        if (partition->samples[i]->made <= op->commits_invoked && partition->samples[i]->cleared > op->commits_ended) {
            return true;
        }
    }
    return false;
}

/* Whether all keys that the op names were there for the whole time. */
static bool codes_keys_there(const history_op *op)
{
    for (uint32_t i = 0; i < op->n && op->by == HISTORY_BY_KEYS; i++) {
        const trail_sample *sample = trail_key_at(op->partition, op->rows[i].key, op->commits_invoked);

        if (sample == NULL || sample->cleared <= op->commits_ended) {
            return false;
        }
    }
    return true;
}

/* Errors that say something about the table: they must be so. */
static bool codes_table_legal(const history_op *op)
{
    const bool reads = op->call == HISTORY_GET || op->call == HISTORY_GET_BY_KEY;
    const bool named = op->call == HISTORY_PUT || op->call == HISTORY_NOTIFY || op->call == HISTORY_RESOLVE;

    switch (op->code) {
    case TQ_EAGAIN:
        return op->call == HISTORY_CLAIM && op->poll;
    case TQ_ECLEARED:
        return (reads || named) && (codes_cleared(op, op->commits_ended) || history_has_loads());
    case TQ_ENOTREADY:
        return reads && (codes_not_ready(op, false) || codes_cleared(op, op->commits_ended));
    case TQ_ELOST:
        return (op->call == HISTORY_SAVE || (reads && (op->by != HISTORY_BY_ROWS || codes_ever_lost(op)))) &&
               codes_may_lose();
    case TQ_EKEY:
        return (op->call == HISTORY_RESOLVE || (named && op->must_exist)) && !op->lenient && !codes_keys_there(op);
    case TQ_EPARTITION:
        return (op->call == HISTORY_RESOLVE || op->call == HISTORY_SAVE || reads ||
                (op->call == HISTORY_CLAIM && op->force)) &&
               !codes_partition_there(op);
    case TQ_EFIELD:
        return ((op->call == HISTORY_RESOLVE && !op->lenient) || reads || op->call == HISTORY_PRODUCED) &&
               !codes_fields_there(op);
    case TQ_EFULL:
        return op->call == HISTORY_LOAD || (op->call == HISTORY_PUT && codes_full_late(op));
    default:
        return false;
    }
}

/* The answer may be of the controller that was there at the beginning or at the end of the op. */
static bool codes_table_was_legal(const history_op *op)
{
    trail_set_epoch(op->epoch_invoked);
    if (op->epoch_invoked != op->epoch && codes_table_legal(op)) {
        return true;
    }
    trail_set_epoch(op->epoch);
    return codes_table_legal(op);
}

static bool codes_legal(const history_op *op)
{
    const bool steps = op->call == HISTORY_SAVE || op->call == HISTORY_LOAD; /* each with the client's deadline */

    switch (op->code) {
    case TQ_ECANCELED:
        return op->cancelled;
    case TQ_ECLOSED:
        return codes_closed(op);
    case TQ_ETIMEDOUT:
        return op->seconds >= 0 || steps;
    case TQ_ENOMEM:
        return history_may(SIM_OOM);
    case TQ_EUNREACHABLE:
        if (op->seconds >= 0 && op->seconds < CODES_CONNECT) {
            return true; /* the first connection was not there yet */
        }
        /* fall through */
    case TQ_ESTALE:
        return codes_may_be_cut() || history_may(SIM_KV_LATE) || history_may(SIM_KV_SLOW);
    case TQ_EIO:
        return history_may(SIM_ACCEPT_FULL) || history_may(SIM_OOM) || history_may(SIM_DISK_ERROR) ||
               history_may(SIM_DISK_FULL) || history_may(SIM_DISK_TORN) || history_may(SIM_DISK_FLIP) ||
               history_may(SIM_KV_FULL) || history_may(SIM_KV_LATE) ||
               op->call == HISTORY_LOAD; /* nothing is there: oracle/saved_paths.c knows */
    case TQ_ECHECKPOINT:
        return op->call == HISTORY_LOAD;
    case TQ_EEXIST:
        return op->call == HISTORY_SAVE;
    default:
        return codes_table_was_legal(op);
    }
}

/* Long after the last fault, nothing fails but for what the table holds. */
static bool codes_settled_legal(const history_op *op)
{
    const bool waits = op->call == HISTORY_CLAIM || op->call == HISTORY_PUT || op->seconds < 5;

    switch (op->code) {
    case TQ_ECANCELED:
    case TQ_ECLOSED:
        return true;
    case TQ_ETIMEDOUT:
        return waits;
    default:
        return codes_table_was_legal(op) || op->call == HISTORY_LOAD || op->call == HISTORY_SAVE;
    }
}

void check_op_code(const history_op *op)
{
    const uint64_t calm = history_calm_time();

    if (op->status == HISTORY_OK || op->status == HISTORY_RUNNING) {
        return;
    }
    sim_check(codes_legal(op), CODES_INVARIANT, "%s ended with %s: %s", check_name(op), tq_error_name(op->code),
              op->message != NULL ? op->message : "");
    sim_check(calm == SIM_NEVER || op->invoked < calm + CODES_SETTLED || codes_settled_legal(op), CODES_INVARIANT,
              "%s, invoked %.1f s after the last fault, ended with %s: %s", check_name(op),
              (double)(op->invoked - calm) / 1e9, tq_error_name(op->code), op->message != NULL ? op->message : "");
}

void check_op_deadline(const history_op *op)
{
    const uint64_t stopped = op->stopped_ended - op->stopped_invoked;
    const uint64_t waited = op->local_waited > op->local_invoked ? op->local_waited - op->local_invoked : 0;
    uint64_t most;

    if (op->status == HISTORY_RUNNING || op->seconds < 0) {
        return;
    }
    /* The clock of a process may be 20 % fast. */
    most = (uint64_t)(op->seconds * 1e9);
    most = (most > waited ? most : waited) + CODES_DEADLINE + stopped + stopped / 4 +
           (history_may(SIM_TIMER_LATE) ? CODES_LATE : 0);
    sim_check(op->local_ended - op->local_invoked <= most, "liveness",
              "%s had %.3f s and took %.3f s of its process's time (which was stopped for %.3f s), and ended with %s",
              check_name(op), op->seconds, (double)(op->local_ended - op->local_invoked) / 1e9, (double)stopped / 1e9,
              op->code != TQ_OK ? tq_error_name(op->code) : "TQ_OK");
}
