/*
 * check_queries.c - a call that changes nothing shows the table as it was at one point between its invocation and its
 * return. The points are those after each commit in between.
 */
#include "oracle/check_parts.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define QUERIES_INVARIANT "reads show one state"

/* Why the op does not show the state at a point: of the last point that was tried. */
static char queries_why[256];

__attribute__((format(printf, 1, 2))) static bool queries_no(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    (void)vsnprintf(queries_why, sizeof(queries_why), format, args);
    va_end(args);
    return false;
}

static uint32_t queries_count(const trail_partition *partition, uint64_t c, bool with_key)
{
    uint32_t n = 0;

    for (size_t i = 0; partition != NULL && i < partition->n; i++) {
        n += trail_alive(partition->samples[i], c) && (!with_key || partition->samples[i]->key != NULL);
    }
    return n;
}

/* Whether each sample of the result was there, with that key, and was named once. */
static bool queries_rows_there(const history_op *op, uint64_t c)
{
    for (uint32_t i = 0; i < op->n_results; i++) {
        const history_row *row = &op->results[i];
        const trail_sample *sample = trail_sample_of(op->partition, row->index, row->incarnation, c);

        if (sample == NULL || !trail_alive(sample, c)) {
            return queries_no("sample %u.%u was not there", row->index, row->incarnation);
        }
        if (row->key != NULL && (sample->key == NULL || strcmp(sample->key, row->key) != 0)) {
            return queries_no("the key of sample %u.%u was '%s', not '%s'", row->index, row->incarnation,
                              sample->key != NULL ? sample->key : "", row->key);
        }
        for (uint32_t k = 0; k < i && op->by == HISTORY_BY_ALL; k++) {
            if (op->results[k].index == row->index) {
                return queries_no("sample %u is there twice", row->index);
            }
        }
    }
    return true;
}

/* Whether the digits of readiness are those of the state. */
static bool queries_ready_is(const history_op *op, uint64_t c)
{
    for (uint32_t f = 0; f < op->n_result_fields; f++) {
        for (uint32_t i = 0; i < op->n_results; i++) {
            const trail_sample *sample =
                trail_sample_of(op->partition, op->results[i].index, op->results[i].incarnation, c);
            const uint8_t ready = op->ready[(size_t)f * op->n_results + i];
            const trail_write *write;

            if (sample == NULL || sample->restored) {
                continue;
            }
            write = trail_write_at(trail_cell_of(sample, op->result_fields[f]), c);
            if (write == NULL ? ready != 0 : ready != 1 && (ready != 2 || !trail_lost(sample, write, c))) {
                return queries_no(
                    "field '%s' of sample %u.%u is said to be %u (0 not there, 1 there, 2 lost), and was %d",
                    op->result_fields[f], op->results[i].index, op->results[i].incarnation, ready, write != NULL);
            }
        }
    }
    return true;
}

/* Samples come in the order in which they were asked for. */
static bool queries_order_is(const history_op *op)
{
    uint32_t at = 0;

    for (uint32_t i = 0; i < op->n_results && op->by != HISTORY_BY_ALL && op->call != HISTORY_CLAIM; i++) {
        while (at < op->n && (op->by == HISTORY_BY_KEYS
                                  ? op->results[i].key == NULL || strcmp(op->results[i].key, op->rows[at].key) != 0
                                  : op->results[i].index != op->rows[at].index)) {
            at++;
        }
        if (at == op->n && (op->by != HISTORY_BY_KEYS || op->results[i].key != NULL)) {
            return queries_no("sample %u.%u is not where it was asked for", op->results[i].index,
                              op->results[i].incarnation);
        }
        at = at == op->n ? 0 : at + 1;
    }
    return true;
}

static bool queries_resolve_is(const history_op *op, uint64_t c)
{
    const trail_partition *partition = trail_partition_of(op->partition);
    uint32_t wanted = op->n;
    const char *why;

    if (op->by == HISTORY_BY_ALL) {
        wanted = queries_count(partition, c, false);
    } else if (op->lenient || op->call == HISTORY_GET_BY_KEY) {
        wanted = 0;
        for (uint32_t i = 0; i < op->n; i++) {
            wanted += op->by == HISTORY_BY_KEYS
                          ? trail_key_at(op->partition, op->rows[i].key, c) != NULL
                          : trail_sample_of(op->partition, op->rows[i].index, op->rows[i].incarnation, c) != NULL;
        }
    }
    if (op->n_results != wanted) {
        return queries_no("%u samples, not %u, were there", wanted, op->n_results);
    }
    if (!queries_rows_there(op, c) || (op->ready != NULL && !queries_ready_is(op, c))) {
        return false;
    }
    return queries_order_is(op) && (check_tags_at(op, c, &why) || queries_no("%s", why));
}

/* The samples are listed in the order in which they were added. */
static bool queries_in_order(const history_op *op, uint64_t c)
{
    const trail_partition *partition = trail_partition_of(op->partition);
    uint32_t at = 0;

    for (size_t i = 0; partition != NULL && i < partition->n && at < op->n_results; i++) {
        const trail_sample *sample = partition->samples[i];

        if (trail_commit_at(sample->made)->kind == WITNESS_RESTORE) {
            return true; /* in the order of the checkpoint, which is not known here */
        }
        at += trail_alive(sample, c) && sample->index == op->results[at].index;
    }
    return at == op->n_results || queries_no("sample %u is out of order", op->results[at].index);
}

static bool queries_keys_are(const history_op *op, uint64_t c)
{
    const uint32_t wanted = queries_count(trail_partition_of(op->partition), c, true);

    if (op->n_results != wanted) {
        return queries_no("%u keys, not %u, were there", wanted, op->n_results);
    }
    for (uint32_t i = 0; i < op->n_results; i++) {
        if (op->results[i].key == NULL) {
            return queries_no("sample %u is listed without a key", op->results[i].index);
        }
    }
    return queries_rows_there(op, c) && queries_in_order(op, c);
}

static bool queries_flag_is(const history_op *op, const trail_sample *sample, uint32_t i, uint32_t f, uint64_t c)
{
    const uint8_t flag = op->ready[(size_t)i * op->n_result_fields + f];
    const trail_write *write;

    if (op->call == HISTORY_CONSUMED) {
        return flag == trail_used(sample, op->task, c) ||
               queries_no("sample %u is said to be %sconsumed", sample->index, flag ? "" : "not ");
    }
    write = trail_write_at(trail_cell_of(sample, op->fields[f]), c);
    return (write != NULL ? flag == 1 || trail_lost(sample, write, c) : flag == 0) || sample->restored ||
           queries_no("field '%s' of sample %u is said to be %sproduced", op->fields[f], sample->index,
                      flag ? "" : "not ");
}

static bool queries_progress_is(const history_op *op, uint64_t c)
{
    const uint32_t wanted = queries_count(trail_partition_of(op->partition), c, false);

    if (op->n_results != wanted) {
        return queries_no("%u samples, not %u, were there", wanted, op->n_results);
    }
    for (uint32_t i = 0; i < op->n_results; i++) {
        const trail_sample *sample = trail_sample_of(op->partition, op->results[i].index, 0, c);

        if (sample == NULL || (i > 0 && op->results[i].index <= op->results[i - 1].index)) {
            return queries_no("sample %u was not there, or is out of order", op->results[i].index);
        }
        for (uint32_t f = 0; f < op->n_result_fields; f++) {
            if (!queries_flag_is(op, sample, i, f, c)) {
                return false;
            }
        }
    }
    return true;
}

/* Whether something was put, reserved or restored in the partition, if only nothing. */
static bool queries_was_made(const char *name, uint64_t c)
{
    for (uint64_t number = 1; number <= c; number++) {
        const witness_commit *commit = trail_commit_at(number);

        if ((commit->kind == WITNESS_PUBLISH || commit->kind == WITNESS_RESERVE || commit->kind == WITNESS_RESTORE) &&
            commit->epoch == trail_epoch() && strcmp(commit->partition, name) == 0) {
            return true;
        }
    }
    return false;
}

/* A partition with samples is listed; one of which nobody ever heard is not. */
static bool queries_partitions_are(const history_op *op, uint64_t c)
{
    for (uint32_t i = 0; i < op->n_names; i++) {
        if (!queries_was_made(op->names[i], c)) {
            return queries_no("partition '%s' was not there", op->names[i]);
        }
    }
    for (uint64_t number = 1; number <= c; number++) {
        const witness_commit *commit = trail_commit_at(number);
        bool listed = false;

        if (commit->kind != WITNESS_PUBLISH && commit->kind != WITNESS_RESERVE && commit->kind != WITNESS_RESTORE) {
            continue;
        }
        for (uint32_t i = 0; i < op->n_names && !listed; i++) {
            listed = strcmp(op->names[i], commit->partition) == 0;
        }
        if (!listed && queries_count(trail_partition_of(commit->partition), c, false) > 0) {
            return queries_no("partition '%s' was there", commit->partition);
        }
    }
    return true;
}

static bool queries_is(const history_op *op, uint64_t c)
{
    switch (op->call) {
    case HISTORY_CLAIM:
    case HISTORY_RESOLVE:
    case HISTORY_GET_BY_KEY:
        return queries_resolve_is(op, c);
    case HISTORY_LIST_KEYS:
        return queries_keys_are(op, c);
    case HISTORY_CONSUMED:
    case HISTORY_PRODUCED:
        return queries_progress_is(op, c);
    case HISTORY_LIST_PARTITIONS:
        return queries_partitions_are(op, c);
    default:
        return true;
    }
}

static bool queries_matters(const history_op *op, const witness_commit *commit)
{
    return op->partition == NULL || commit->partition[0] == '\0' || strcmp(commit->partition, op->partition) == 0;
}

/* Whether the table of that controller was so at some point. */
static bool queries_was(const history_op *op, uint64_t epoch)
{
    trail_set_epoch(epoch);
    if (queries_is(op, op->commits_invoked)) {
        return true;
    }
    for (uint64_t c = op->commits_invoked + 1; c <= op->commits_ended; c++) {
        if (queries_matters(op, trail_commit_at(c)) && queries_is(op, c)) {
            return true;
        }
    }
    return false;
}

void check_op_query(const history_op *op)
{
    if (op->status != HISTORY_OK || (op->call == HISTORY_CLAIM && !op->force)) {
        return;
    }
    if (queries_was(op, op->epoch) || (op->epoch_invoked != op->epoch && queries_was(op, op->epoch_invoked))) {
        return;
    }
    sim_found(QUERIES_INVARIANT,
              "%s is not the state at any point from commit %" PRIu64 " to %" PRIu64 "; at the last: %s",
              check_name(op), op->commits_invoked, op->commits_ended, queries_why);
}
