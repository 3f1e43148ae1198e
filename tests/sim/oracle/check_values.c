/*
 * check_values.c - what was read is what one state of the table held: that for which the meta was made, or one between
 * the invocation of the read and its return, when it had to look the samples up (again). All values of a read are of
 * the same state, so neither an old value nor a mixture of two puts can appear, nor one that was never committed.
 */
#include "oracle/check_parts.h"

#include "load/cell.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define VALUES_INVARIANT "reads show one state"

static char values_why[320];

/* Whether a cell that is too short to tell its writer has what that write put. */
static bool values_short_is(const history_value *value, const trail_write *write, const char *field)
{
    const history_op *put = write->op;
    uint32_t f = 0;
    uint32_t head;

    while (f < put->n_fields && strcmp(put->fields[f], field) != 0) {
        f++;
    }
    if (f == put->n_fields || put->lengths[(size_t)f * put->n + write->position] != value->length) {
        return false;
    }
    head = (uint32_t)put->number & (uint32_t)((UINT64_C(1) << (8 * value->length)) - 1);
    return value->head == head;
}

/* Whether the value is that of the cell at c. */
static bool values_cell_is(const history_op *op, uint32_t i, uint32_t f, uint64_t c)
{
    const history_value *value = &op->values[(size_t)f * op->n_results + i];
    const history_row *row = &op->results[i];
    const trail_sample *sample = trail_sample_of(op->partition, row->index, row->incarnation, c);
    const trail_write *write;

    if (value->gone) {
        return true;
    }
    if (sample == NULL || sample->made > c || sample->cleared <= c) {
        (void)snprintf(values_why, sizeof(values_why), "sample %u.%u was not there", row->index, row->incarnation);
        return false;
    }
    write = trail_write_at(trail_cell_of(sample, op->result_fields[f]), c);
    if (write == NULL && sample->restored) {
        return true;
    }
    if (write == NULL || write->op == NULL) {
        (void)snprintf(values_why, sizeof(values_why), "field '%s' of sample %u.%u was of op %" PRIu64 ", and was %s",
                       op->result_fields[f], row->index, row->incarnation, value->writer,
                       write == NULL ? "not there" : "put by somebody else");
        return false;
    }
    if (value->writer == 0 ? values_short_is(value, write, op->result_fields[f])
                           : value->writer == write->op->number &&
                                 (value->position == write->position || value->length < CELL_PLACED)) {
        return true;
    }
    (void)snprintf(values_why, sizeof(values_why),
                   "field '%s' of sample %u.%u was read as put by op %" PRIu64 " (row %u), and was put by op %" PRIu64
                   " (row %u, commit %" PRIu64 ")",
                   op->result_fields[f], row->index, row->incarnation, value->writer, value->position,
                   write->op->number, write->position, write->commit);
    return false;
}

static bool values_are(const history_op *op, uint64_t c)
{
    for (uint32_t f = 0; f < op->n_result_fields; f++) {
        for (uint32_t i = 0; i < op->n_results; i++) {
            if (!values_cell_is(op, i, f, c)) {
                return false;
            }
        }
    }
    return true;
}

static bool values_are_between(const history_op *op, uint64_t first, uint64_t last)
{
    if (values_are(op, first)) {
        return true;
    }
    for (uint64_t c = first + 1; c <= last; c++) {
        const witness_commit *commit = trail_commit_at(c);

        if ((commit->partition[0] == '\0' || strcmp(commit->partition, op->partition) == 0) && values_are(op, c)) {
            return true;
        }
    }
    return false;
}

/* Of a get with given fields, all of them were read, in their order. */
static void values_check_fields(const history_op *op)
{
    if (op->call != HISTORY_GET || op->all_fields) {
        return;
    }
    sim_check(op->n_result_fields == op->n_fields, VALUES_INVARIANT, "%s read %u fields, %u were asked for",
              check_name(op), op->n_result_fields, op->n_fields);
    for (uint32_t f = 0; f < op->n_fields; f++) {
        sim_check(strcmp(op->fields[f], op->result_fields[f]) == 0, VALUES_INVARIANT, "%s read field '%s', not '%s'",
                  check_name(op), op->result_fields[f], op->fields[f]);
    }
}

void check_op_values(const history_op *op)
{
    const history_op *from = op->from != 0 ? history_op_of(op->from) : NULL;
    const witness_commit *commit = from != NULL ? trail_commit_of(from) : NULL;

    if (op->status != HISTORY_OK || op->values == NULL) {
        return;
    }
    values_check_fields(op);
    trail_set_epoch(from != NULL ? from->epoch : op->epoch);
    if (commit != NULL && values_are(op, commit->number)) {
        return;
    }
    if (from != NULL && commit == NULL && values_are_between(op, from->commits_invoked, from->commits_ended)) {
        return;
    }
    trail_set_epoch(op->epoch_invoked);
    if (op->epoch_invoked != op->epoch && values_are_between(op, op->commits_invoked, op->commits_ended)) {
        return;
    }
    trail_set_epoch(op->epoch);
    if (values_are_between(op, op->commits_invoked, op->commits_ended)) {
        return;
    }
    sim_found(VALUES_INVARIANT,
              "%s is not the state at any point from commit %" PRIu64 " to %" PRIu64
              ", nor that of its meta%s%s; at the "
              "last: %s",
              check_name(op), op->commits_invoked, op->commits_ended, from != NULL ? ", from " : "",
              from != NULL ? check_name(from) : "", values_why);
}
