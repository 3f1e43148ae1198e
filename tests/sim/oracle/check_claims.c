/*
 * check_claims.c - what claims are given, and that they do not wait without a reason.
 *
 * Sequential claims take the first samples that are ready; those of groups take whole groups, by name or else by
 * ordinal; all calls of one rank and step get the same samples. And a claim that ended at its deadline, after the last
 * fault, had a reason: there was no second in which its view held enough and nobody took it. That is checked where it
 * is known here what is enough: for sequential claims, and for groups that were given by name.
 */
#include "oracle/check_parts.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define CLAIMS_HEAL  (10 * SIM_S) /* after the last fault: clients are connected again, and lost storage is known */
#define CLAIMS_SERVE (1 * SIM_S)

static bool claims_sequential(const history_op *op)
{
    return op->sampler == NULL || strcmp(op->sampler, "SequentialSampler") == 0;
}

/* Whether the sample is surely ready for the claim at c. */
static bool claims_is_ready(const history_op *op, const trail_sample *sample, uint64_t c)
{
    if (!trail_alive(sample, c) || sample->restored || trail_used(sample, op->task, c)) {
        return false;
    }
    for (uint32_t f = 0; f < op->n_fields; f++) {
        const trail_write *write = trail_write_at(trail_cell_of(sample, op->fields[f]), c);

        if (write == NULL || trail_lost(sample, write, c)) {
            return false;
        }
    }
    return true;
}

static uint32_t claims_group_size(const history_op *op)
{
    const char *text = op->config != NULL ? strstr(op->config, "\"n_samples_per_prompt\":") : NULL;

    return text != NULL ? (uint32_t)strtoul(text + strlen("\"n_samples_per_prompt\":"), NULL, 10) : 1;
}

static bool claims_of_groups(const history_op *op)
{
    return op->sampler != NULL && strcmp(op->sampler, "GRPOGroupNSampler") == 0 &&
           (op->config == NULL || strstr(op->config, "dp_rank") == NULL);
}

/* Samples of the group, given by name, that are ready at c; those before `first` do not count, and if there is one of
 * them, the group was counted already: 0. */
static uint32_t claims_of_group(const history_op *op, const trail_partition *partition, size_t first, uint64_t c)
{
    const char *group = partition->samples[first]->group;
    uint32_t n = 0;

    for (size_t i = 0; i < partition->n; i++) {
        if (partition->samples[i]->group == group && claims_is_ready(op, partition->samples[i], c)) {
            if (i < first) {
                return 0;
            }
            n++;
        }
    }
    return n;
}

/* Samples with which the claim can be served at c, as far as that is known. */
static uint32_t claims_ready(const history_op *op, uint64_t c)
{
    const trail_partition *partition = trail_partition_of(op->partition);
    const uint32_t size = claims_group_size(op);
    uint32_t n = 0;

    for (size_t i = 0; partition != NULL && i < partition->n; i++) {
        const trail_sample *sample = partition->samples[i];

        if (!claims_is_ready(op, sample, c)) {
            continue;
        }
        if (!claims_of_groups(op)) {
            n++;
        } else if (sample->group != NULL && claims_of_group(op, partition, i, c) >= size) {
            n += size;
        }
    }
    return n;
}

/* --- what is given ----------------------------------------------------------------------- */

static bool claims_has(const witness_commit *take, const trail_sample *sample)
{
    for (uint32_t i = 0; i < take->n; i++) {
        if (take->samples[i].index == sample->index && take->samples[i].incarnation == sample->incarnation) {
            return true;
        }
    }
    return false;
}

static void claims_check_first(const history_op *op, const witness_commit *take)
{
    const trail_partition *partition = trail_partition_of(op->partition);
    const uint32_t last = take->samples[take->n - 1].index;

    for (uint32_t i = 1; i < take->n; i++) {
        sim_check(take->samples[i].index > take->samples[i - 1].index, "claims take the first",
                  "%s was given sample %u after %u", check_name(op), take->samples[i].index, take->samples[i - 1].index);
    }
    for (size_t i = 0; i < partition->n; i++) {
        const trail_sample *sample = partition->samples[i];

        sim_check(sample->index >= last || !claims_is_ready(op, sample, take->number - 1) || claims_has(take, sample),
                  "claims take the first",
                  "%s was given sample %u, but not %u, which was ready, too (commit %" PRIu64 ")", check_name(op), last,
                  sample->index, take->number);
    }
}

static void claims_check_groups(const history_op *op, const witness_commit *take)
{
    const uint32_t size = claims_group_size(op);
    const trail_sample *first = NULL;
    uint64_t place = 0; /* of a group without a name */

    for (uint32_t i = 0; i < take->n; i++) {
        const trail_sample *sample =
            trail_sample_of(op->partition, take->samples[i].index, take->samples[i].incarnation, take->number);

        first = i % size == 0 ? sample : first;
        place = i % size == 0 ? take->ordinals[i] / size : place;
        sim_check(!sample->group_known || sample->group != NULL || take->ordinals[i] / size == place,
                  "claims take whole groups",
                  "%s was given samples %u and %u as one group of %u, but the latter is number %" PRIu64
                  " of its partition",
                  check_name(op), first->index, sample->index, size, take->ordinals[i]);
        sim_check(!sample->group_known || !first->group_known || sample->group == first->group,
                  "claims take whole groups",
                  "%s was given samples %u and %u as one group of %u, but theirs are '%s' and '%s'", check_name(op),
                  first->index, sample->index, size, first->group != NULL ? first->group : "",
                  sample->group != NULL ? sample->group : "");
    }
}

/* Whether something between the two claims may have freed the samples of the slot. */
static bool claims_slot_freed(const witness_commit *before, const witness_commit *take)
{
    for (uint64_t number = before->number + 1; number < take->number; number++) {
        const witness_commit *commit = trail_commit_at(number);

        if (strcmp(commit->partition, take->partition) == 0 &&
            (commit->kind == WITNESS_RESET || commit->kind == WITNESS_RELEASE || commit->kind == WITNESS_CLEAR ||
             commit->kind == WITNESS_CLEAR_BEGIN || commit->kind == WITNESS_DROP || commit->kind == WITNESS_RESTORE)) {
            return true;
        }
    }
    return false;
}

static void claims_check_slot(const history_op *op, const witness_commit *take)
{
    for (uint64_t number = op->number; number > 1; number--) {
        const history_op *other = history_op_of(number - 1);
        const witness_commit *before;

        if (other->call != HISTORY_CLAIM || other->status != HISTORY_OK || other->partition != op->partition ||
            other->task != op->task || other->config != op->config || other->sampler != op->sampler ||
            other->n != op->n || other->epoch != op->epoch) {
            continue;
        }
        before = trail_commit_of(other);
        if (before == NULL || before->number > take->number || claims_slot_freed(before, take)) {
            return;
        }
        for (uint32_t i = 0; i < take->n; i++) {
            sim_check(before->samples[i].index == take->samples[i].index &&
                          before->samples[i].incarnation == take->samples[i].incarnation,
                      "a rank gets the same samples",
                      "%s was given sample %u.%u, and %s of the same rank and step %u.%u", check_name(op),
                      take->samples[i].index, take->samples[i].incarnation, check_name(other), before->samples[i].index,
                      before->samples[i].incarnation);
        }
        return;
    }
}

void check_op_pick(const history_op *op, const witness_commit *take)
{
    if (take->n == 0) {
        return;
    }
    if (claims_sequential(op)) {
        claims_check_first(op, take);
    } else if (claims_of_groups(op)) {
        claims_check_groups(op, take);
    } else if (op->config != NULL) {
        if (strstr(op->config, "n_samples_per_prompt") != NULL) {
            claims_check_groups(op, take);
        }
        claims_check_slot(op, take);
    }
}

/* --- what is waited for ---------------------------------------------------------------------- */

void check_op_served(const history_op *op)
{
    const uint64_t calm = history_calm_time();
    uint64_t from;
    uint64_t since = SIM_NEVER; /* when the view began to hold enough */

    if (op->call != HISTORY_CLAIM || op->code != TQ_ETIMEDOUT || op->status == HISTORY_RUNNING || calm == SIM_NEVER ||
        (!claims_sequential(op) && !claims_of_groups(op)) || op->force || op->poll || op->cancelled) {
        return;
    }
    trail_set_epoch(op->epoch);
    from = (op->invoked > calm + CLAIMS_HEAL ? op->invoked : calm + CLAIMS_HEAL) + CLAIMS_SERVE;
    for (uint64_t c = op->commits_invoked; c <= op->commits_ended; c++) {
        const uint64_t time = c > 0 ? trail_commit_at(c)->time : 0;
        const uint64_t next = c < op->commits_ended ? trail_commit_at(c + 1)->time : op->ended;

        if (next < from) {
            continue;
        }
        if (claims_ready(op, c) < op->n) {
            since = SIM_NEVER;
            continue;
        }
        since = since != SIM_NEVER ? since : time > from ? time : from;
        sim_check(next < since + CLAIMS_SERVE, "liveness",
                  "%s of %u samples timed out, but from %.3f s to %.3f s %u samples were ready for it (commit %" PRIu64
                  ")",
                  check_name(op), op->n, (double)since / 1e9, (double)next / 1e9, claims_ready(op, c), c);
    }
}
