/*
 * check_tags.c - tags and groups as a claim or a resolve returns them, and the other fields that a put names.
 */
#include "oracle/check_parts.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

bool check_tags_at(const history_op *op, uint64_t c, const char **why)
{
    static char text[256];

    for (uint32_t i = 0; op->tag_ops != NULL && i < op->n_results; i++) {
        const history_row *row = &op->results[i];
        const trail_sample *sample = trail_sample_of(op->partition, row->index, row->incarnation, c);
        const trail_write *write = sample != NULL ? trail_write_at(trail_cell_of(sample, TRAIL_TAG), c) : NULL;
        const uint64_t wanted = write != NULL && write->op != NULL ? write->op->number : 0;

        *why = text;
        if (sample == NULL || sample->restored) {
            continue;
        }
        if (op->tag_ops[i] != wanted) {
            (void)snprintf(text, sizeof(text),
                           "the tag of sample %u.%u is that of op %" PRIu64 ", and was that of %" PRIu64, row->index,
                           row->incarnation, op->tag_ops[i], wanted);
            return false;
        }
        if (sample->group_known && sample->group != op->groups_read[i]) {
            (void)snprintf(text, sizeof(text), "the group of sample %u.%u is '%s', and was '%s'", row->index,
                           row->incarnation, op->groups_read[i] != NULL ? op->groups_read[i] : "",
                           sample->group != NULL ? sample->group : "");
            return false;
        }
        if (sample->key != row->key && (sample->key == NULL || row->key == NULL || strcmp(sample->key, row->key) != 0)) {
            (void)snprintf(text, sizeof(text), "the key of sample %u.%u is '%s', and was '%s'", row->index,
                           row->incarnation, row->key != NULL ? row->key : "", sample->key != NULL ? sample->key : "");
            return false;
        }
    }
    return true;
}

static bool tags_names(const char *const *names, uint32_t n, const char *name)
{
    for (uint32_t i = 0; i < n; i++) {
        if (strcmp(names[i], name) == 0) {
            return true;
        }
    }
    return false;
}

/* Whether all samples of the commit have the field; *lost: one of them may have lost it. */
static bool tags_all_have(const witness_commit *commit, const char *field, bool *lost)
{
    for (uint32_t i = 0; i < commit->n; i++) {
        const trail_sample *sample = trail_sample_of(commit->partition, commit->samples[i].index,
                                                     commit->samples[i].incarnation, commit->number);
        const trail_write *write = trail_write_at(trail_cell_of(sample, field), commit->number);

        if (write == NULL && !sample->restored) {
            return false;
        }
        *lost = *lost || sample->restored || trail_lost(sample, write, commit->number);
    }
    return true;
}

void check_op_others(const history_op *op, const witness_commit *commit)
{
    const trail_sample *first;

    if (op->status != HISTORY_OK || !op->asks_others || commit->n == 0) {
        return;
    }
    for (uint32_t i = 0; i < op->n_names; i++) {
        bool lost = false;

        sim_check(!tags_names(op->fields, op->n_fields, op->names[i]) && tags_all_have(commit, op->names[i], &lost),
                  "reads show one state", "%s says that its samples have field '%s', too", check_name(op), op->names[i]);
    }
    first = trail_sample_of(commit->partition, commit->samples[0].index, commit->samples[0].incarnation, commit->number);
    for (uint32_t f = 0; f < first->n_cells; f++) {
        const char *field = first->cells[f].field;
        bool lost = false;

        sim_check(strcmp(field, TRAIL_TAG) == 0 || tags_names(op->fields, op->n_fields, field) ||
                      tags_names(op->names, op->n_names, field) || !tags_all_have(commit, field, &lost) || lost,
                  "reads show one state", "%s does not say that its samples have field '%s', too", check_name(op),
                  field);
    }
}
