/*
 * check_commits.c - each op that changes something against its commit: there is exactly one if it ended well, between
 * its invocation and its return, and with what it returned; none if it failed; none or one if nobody knows.
 *
 * A put carries its number in a tag, and a claim returns its id, so that their commits are known. Commits of reserves,
 * clears and resets are found by client process, time and samples; see check_matches.
 */
#include "oracle/check_parts.h"

#include <inttypes.h>
#include <string.h>

#define COMMITS_INVARIANT "commit between call and return"

/* --- which commit is of which op ------------------------------------------------------ */

static bool commits_kind_is(const witness_commit *commit, const history_op *op)
{
    switch (op->call) {
    case HISTORY_RESERVE:
        return commit->kind == WITNESS_RESERVE;
    case HISTORY_CLEAR:
        return commit->kind == WITNESS_CLEAR;
    case HISTORY_BEGIN_CLEAR:
        return commit->kind == WITNESS_CLEAR_BEGIN || commit->kind == WITNESS_CLEAR;
    case HISTORY_RESET:
        return commit->kind == WITNESS_RESET && strcmp(commit->task, op->task != NULL ? op->task : "") == 0;
    default:
        return false;
    }
}

/* Whether the clear asked for that sample. */
static bool commits_asks_for(const history_op *op, const witness_commit *commit, uint32_t i)
{
    const trail_sample *sample;

    if (op->by == HISTORY_BY_ROWS && op->from != 0 && history_op_of(op->from)->epoch != commit->epoch) {
        return false; /* the meta is of an earlier run: its samples are not these */
    }
    trail_set_epoch(commit->epoch);
    sample = trail_sample_of(commit->partition, commit->samples[i].index, commit->samples[i].incarnation, 0);
    if (op->by == HISTORY_BY_ALL) {
        return true;
    }
    for (uint32_t k = 0; k < op->n; k++) {
        if (op->by == HISTORY_BY_KEYS) {
            if (sample != NULL && sample->key != NULL && strcmp(op->rows[k].key, sample->key) == 0) {
                return true;
            }
        } else if (op->rows[k].index == commit->samples[i].index &&
                   (op->rows[k].incarnation == 0 || op->rows[k].incarnation == commit->samples[i].incarnation)) {
            return true;
        }
    }
    return false;
}

/* Whether the clear asks for the sample. */
static bool commits_clear_wants(const history_op *op, const trail_sample *sample)
{
    const witness_sample of = {.index = sample->index, .incarnation = sample->incarnation};
    const witness_commit commit = {.partition = op->partition, .epoch = sample->partition->epoch, .samples = &of, .n = 1};

    return commits_asks_for(op, &commit, 0);
}

/* Whether the commit clears all that the op asks for and that was there. */
static bool commits_clears_all(const witness_commit *commit, const history_op *op)
{
    const trail_partition *partition;

    trail_set_epoch(commit->epoch);
    partition = trail_partition_of(commit->partition);
    for (size_t i = 0; i < partition->n; i++) {
        const trail_sample *sample = partition->samples[i];

        if (sample->made < commit->number && sample->cleared > commit->number && commits_clear_wants(op, sample)) {
            return false;
        }
    }
    return true;
}

static bool commits_samples_are(const witness_commit *commit, const history_op *op)
{
    if (op->n_results != commit->n) {
        return false;
    }
    for (uint32_t i = 0; i < commit->n; i++) {
        if (op->results[i].index != commit->samples[i].index ||
            op->results[i].incarnation != commit->samples[i].incarnation) {
            return false;
        }
    }
    return true;
}

/* Whether the commit may be of that op, which has none yet. */
static bool commits_may_be(const witness_commit *commit, const history_op *op)
{
    if (!commits_kind_is(commit, op) || op->pid != commit->pid || op->partition == NULL ||
        strcmp(op->partition, commit->partition) != 0 || commit->number <= op->commits_invoked ||
        trail_commit_of(op) != NULL || op->status == HISTORY_FAIL) {
        return false;
    }
    if (op->status == HISTORY_OK && commit->number > op->commits_ended) {
        return false;
    }
    if (op->call == HISTORY_RESERVE) {
        return op->status == HISTORY_OK ? commits_samples_are(commit, op) : commit->n == op->n;
    }
    if (op->call == HISTORY_RESET) {
        return true;
    }
    if (commit->whole != (op->by == HISTORY_BY_ALL) || (op->status == HISTORY_OK && op->count != commit->n)) {
        return false;
    }
    for (uint32_t i = 0; i < commit->n; i++) {
        if (!commits_asks_for(op, commit, i)) {
            return false;
        }
    }
    return commits_clears_all(commit, op);
}

/* Ops that ended well are preferred, and of them the one that ended first, which fits into no later commit; otherwise
 * the oldest. */
static const history_op *commits_best(const witness_commit *commit)
{
    const history_op *best = NULL;

    for (uint64_t number = 1; number <= history_ops(); number++) {
        const history_op *op = history_op_of(number);

        if (!commits_may_be(commit, op)) {
            continue;
        }
        if (best == NULL ||
            (op->status == HISTORY_OK && (best->status != HISTORY_OK || op->commits_ended < best->commits_ended))) {
            best = op;
        }
    }
    return best;
}

void check_matches(void)
{
    for (uint64_t number = 1; number <= trail_count(); number++) {
        const witness_commit *commit = trail_commit_at(number);
        const history_op *op;

        if (trail_op_of(commit) != NULL || commit->client[0] == '\0') {
            continue;
        }
        if (commit->kind == WITNESS_RESERVE || commit->kind == WITNESS_CLEAR || commit->kind == WITNESS_CLEAR_BEGIN ||
            commit->kind == WITNESS_RESET) {
            op = commits_best(commit);
            if (op != NULL) {
                trail_match(op, commit);
            }
        }
    }
}

/* --- put, reserve ------------------------------------------------------------------------- */

static const char *commits_status(const history_op *op)
{
    return op->status == HISTORY_OK        ? "ended well"
           : op->status == HISTORY_RUNNING ? "is running"
                                           : tq_error_name(op->code);
}

static void commits_order(const history_op *op, const witness_commit *commit)
{
    sim_check(commit->number > op->commits_invoked && (op->status != HISTORY_OK || commit->number <= op->commits_ended),
              COMMITS_INVARIANT, "%s was invoked after commit %" PRIu64 " and %s at %" PRIu64 ", but is commit %" PRIu64,
              check_name(op), op->commits_invoked, commits_status(op), check_until(op), commit->number);
}

static bool commits_has_field(const witness_commit *commit, const char *field)
{
    for (uint32_t f = 0; f < commit->n_fields; f++) {
        if (strcmp(commit->fields[f], field) == 0) {
            return true;
        }
    }
    return false;
}

/* Whole, as it was asked for: all samples, all fields. */
static void commits_put_whole(const history_op *op, const witness_commit *commit)
{
    sim_check(strcmp(commit->partition, op->partition) == 0, COMMITS_INVARIANT, "%s was committed in partition '%s'",
              check_name(op), commit->partition);
    sim_check(commit->n == op->n && commit->n_fields == op->n_fields, "all or nothing",
              "%s of %u samples and %u fields was committed with %u samples and %u fields (commit %" PRIu64 ")",
              check_name(op), op->n, op->n_fields, commit->n, commit->n_fields, commit->number);
    for (uint32_t f = 0; f < op->n_fields; f++) {
        sim_check(commits_has_field(commit, op->fields[f]), "all or nothing", "%s was committed without field '%s'",
                  check_name(op), op->fields[f]);
    }
    for (uint32_t i = 0; i < op->n; i++) {
        if (op->by == HISTORY_BY_ROWS) {
            sim_check(commit->samples[i].index == op->rows[i].index &&
                          (op->rows[i].incarnation == 0 || op->rows[i].incarnation == commit->samples[i].incarnation),
                      COMMITS_INVARIANT, "%s: row %u was %u.%u, and was committed as %u.%u", check_name(op), i,
                      op->rows[i].index, op->rows[i].incarnation, commit->samples[i].index,
                      commit->samples[i].incarnation);
        } else if (op->by == HISTORY_BY_KEYS) {
            const trail_sample *sample = trail_key_at(op->partition, op->rows[i].key, commit->number);

            sim_check(sample != NULL && sample->index == commit->samples[i].index &&
                          sample->incarnation == commit->samples[i].incarnation,
                      COMMITS_INVARIANT, "%s: key '%s' was committed as %u.%u, which does not have it", check_name(op),
                      op->rows[i].key, commit->samples[i].index, commit->samples[i].incarnation);
        }
    }
    sim_check(op->by != HISTORY_BY_NEW || commit->made == op->n, COMMITS_INVARIANT,
              "%s of %u new samples made %u (commit %" PRIu64 ")", check_name(op), op->n, commit->made, commit->number);
}

static void commits_check_put(const history_op *op)
{
    const witness_commit *commit = trail_commit_of(op);

    if (commit == NULL) {
        sim_check(op->status != HISTORY_OK || op->n == 0, COMMITS_INVARIANT, "%s ended well and was never committed",
                  check_name(op));
        return;
    }
    trail_set_epoch(commit->epoch);
    sim_check(op->status != HISTORY_FAIL, "0 or 1 commits", "%s failed with %s (%s), but was committed (%" PRIu64 ")",
              check_name(op), tq_error_name(op->code), op->message != NULL ? op->message : "", commit->number);
    commits_order(op, commit);
    commits_put_whole(op, commit);
    check_op_others(op, commit);
    if (op->status == HISTORY_OK) {
        sim_check(commits_samples_are(commit, op), COMMITS_INVARIANT,
                  "%s returned other samples than it wrote (commit %" PRIu64
                  "): first %u.%u of %u, committed %u.%u of %u",
                  check_name(op), commit->number, op->n_results > 0 ? op->results[0].index : 0,
                  op->n_results > 0 ? op->results[0].incarnation : 0, op->n_results,
                  commit->n > 0 ? commit->samples[0].index : 0, commit->n > 0 ? commit->samples[0].incarnation : 0,
                  commit->n);
    }
}

/* --- clear, reset ----------------------------------------------------------------------------- */

/* A clear that ended well has cleared everything it asked for that was there all the time. */
static void commits_check_clear(const history_op *op)
{
    const witness_commit *commit = trail_commit_of(op);
    const trail_partition *partition;

    if (commit != NULL) {
        commits_order(op, commit);
    }
    if (op->status != HISTORY_OK || (commit == NULL && op->epoch != op->epoch_invoked)) {
        return;
    }
    trail_set_epoch(commit != NULL ? commit->epoch : op->epoch);
    partition = trail_partition_of(op->partition);
    sim_check(commit != NULL || op->count == 0, COMMITS_INVARIANT,
              "%s says that it cleared %" PRIu64 " samples, but there is no such commit", check_name(op), op->count);
    for (size_t i = 0; partition != NULL && i < partition->n; i++) {
        const trail_sample *sample = partition->samples[i];
        const bool all_the_time = sample->made <= op->commits_invoked && sample->cleared > op->commits_ended;
        const bool at_commit = commit != NULL && sample->made < commit->number && sample->cleared > commit->number;

        sim_check(!(all_the_time || at_commit) || !commits_clear_wants(op, sample), "a clear clears",
                  "%s left sample %u.%u of partition '%s'", check_name(op), sample->index, sample->incarnation,
                  op->partition);
    }
}

static void commits_check_reset(const history_op *op)
{
    const witness_commit *commit = trail_commit_of(op);
    const trail_partition *partition;

    if (commit != NULL) {
        commits_order(op, commit);
    }
    if (op->status != HISTORY_OK || commit != NULL || op->epoch != op->epoch_invoked) {
        return;
    }
    trail_set_epoch(op->epoch);
    partition = trail_partition_of(op->partition);
    for (size_t i = 0; partition != NULL && i < partition->n; i++) {
        const trail_sample *sample = partition->samples[i];

        for (uint32_t k = 0; k < sample->n_uses; k++) {
            const trail_use *use = &sample->uses[k];

            sim_check(use->taken > op->commits_invoked || use->freed <= op->commits_ended ||
                          sample->cleared <= op->commits_ended || (op->task != NULL && strcmp(op->task, use->task) != 0),
                      "a reset frees", "%s left sample %u.%u consumed by task '%s'", check_name(op), sample->index,
                      sample->incarnation, use->task);
        }
    }
}

/* --- claims -------------------------------------------------------------------------------------- */

/* The claim's commit. Claim 0 is one that repeats what was picked before and consumes nothing. */
static const witness_commit *commits_take_of(const history_op *op)
{
    for (uint64_t number = op->commits_invoked + 1; number <= op->commits_ended; number++) {
        const witness_commit *commit = trail_commit_at(number);

        if (commit->kind == WITNESS_TAKE && commit->claim == op->count && commit->epoch == op->epoch &&
            (op->count != 0 || (trail_op_of(commit) == NULL && commit->pid == op->pid &&
                                strcmp(commit->task, op->task) == 0 && commits_samples_are(commit, op)))) {
            return commit;
        }
    }
    return NULL;
}

/* A claim of a rank: it may get what was picked for it with another rank's claim, and was lost since. */
static bool commits_of_rank(const history_op *op)
{
    return op->config != NULL && strstr(op->config, "dp_rank") != NULL;
}

/* All fields that the claim asked for were there. */
static void commits_check_ready(const history_op *op, const witness_commit *take)
{
    for (uint32_t i = 0; i < op->n_results; i++) {
        const trail_sample *sample = trail_sample_of(op->partition, op->results[i].index, op->results[i].incarnation, 0);

        for (uint32_t f = 0; sample != NULL && f < op->n_fields && !sample->restored; f++) {
            const trail_write *write = trail_write_at(trail_cell_of(sample, op->fields[f]), take->number);

            sim_check(write != NULL, "claims are ready", "%s was given sample %u.%u, which had no field '%s'",
                      check_name(op), sample->index, sample->incarnation, op->fields[f]);
        }
    }
    for (uint32_t f = 0; f < op->n_result_fields; f++) {
        for (uint32_t i = 0; i < op->n_results; i++) {
            const uint8_t ready = op->ready[(size_t)f * op->n_results + i];

            sim_check(ready == 1 || (ready == 2 && commits_of_rank(op)), "claims are ready",
                      "%s was given sample %u.%u with field '%s' not ready", check_name(op), op->results[i].index,
                      op->results[i].incarnation, op->result_fields[f]);
        }
    }
}

static void commits_check_claim(const history_op *op)
{
    const witness_commit *take;
    const char *why = "";

    if (op->status != HISTORY_OK || op->force) {
        return;
    }
    take = commits_take_of(op);
    sim_check(take != NULL, COMMITS_INVARIANT,
              "%s ended well as claim %" PRIu64 ", which was not committed between call and return", check_name(op),
              op->count);
    sim_check(trail_op_of(take) == NULL, "no sample twice", "claim %" PRIu64 " was returned to %s and to %s", op->count,
              check_name(trail_op_of(take)), check_name(op));
    trail_match(op, take);
    trail_set_epoch(take->epoch);
    sim_check(take->pid == op->pid, "no sample twice", "claim %" PRIu64 " of process %" PRIu64 " was returned to %s",
              take->claim, take->pid, check_name(op));
    sim_check(strcmp(take->partition, op->partition) == 0 && strcmp(take->task, op->task) == 0, COMMITS_INVARIANT,
              "%s: claim %" PRIu64 " is of partition '%s' and task '%s'", check_name(op), take->claim, take->partition,
              take->task);
    sim_check(op->n_results == op->n, COMMITS_INVARIANT, "%s asked for %u samples and was given %u", check_name(op),
              op->n, op->n_results);
    sim_check(commits_samples_are(take, op), COMMITS_INVARIANT,
              "%s was given other samples than were committed (%" PRIu64 ")", check_name(op), take->number);
    commits_check_ready(op, take);
    sim_check(check_tags_at(op, take->number, &why), "claims are ready", "%s: %s", check_name(op), why);
    check_op_pick(op, take);
}

void check_op_commits(const history_op *op)
{
    switch (op->call) {
    case HISTORY_PUT:
    case HISTORY_NOTIFY:
    case HISTORY_RESERVE:
        commits_check_put(op);
        break;
    case HISTORY_CLEAR:
    case HISTORY_BEGIN_CLEAR:
        commits_check_clear(op);
        break;
    case HISTORY_RESET:
        commits_check_reset(op);
        break;
    case HISTORY_CLAIM:
        commits_check_claim(op);
        break;
    default:
        break;
    }
}

/* --- all commits ------------------------------------------------------------------------------------ */

static const witness_commit *commits_release_of(const witness_commit *take)
{
    for (uint64_t number = take->number + 1; number <= trail_count(); number++) {
        const witness_commit *commit = trail_commit_at(number);

        if (commit->kind == WITNESS_RELEASE && commit->claim == take->claim && commit->epoch == take->epoch) {
            return commit;
        }
    }
    return NULL;
}

/* Whether a claim of that process has no end, or was freed in flight, so that its answer may have arrived. */
static bool commits_died_with(const witness_commit *take)
{
    for (uint64_t number = 1; number <= history_ops(); number++) {
        const history_op *op = history_op_of(number);

        if (op->call == HISTORY_CLAIM && (op->status == HISTORY_RUNNING || op->freed) && op->pid == take->pid &&
            strcmp(op->partition, take->partition) == 0 && strcmp(op->task, take->task) == 0 &&
            take->number > op->commits_invoked && take->n == op->n) {
            return true;
        }
    }
    return false;
}

/* Whether the claim was given back because its session ended: then its answer may have arrived, and only the
 * acknowledgement was lost. */
static bool commits_at_end(const witness_commit *release)
{
    for (uint64_t number = release->number; number <= trail_count(); number++) {
        const witness_commit *commit = trail_commit_at(number);

        if (commit->time != release->time) {
            return false;
        }
        if (commit->kind == WITNESS_SESSION_END && commit->session == release->session &&
            commit->epoch == release->epoch) {
            return true;
        }
    }
    return false;
}

static bool commits_settled(const witness_commit *take, const witness_commit *release)
{
    for (uint64_t number = take->number + 1; number < release->number; number++) {
        const witness_commit *commit = trail_commit_at(number);

        if (commit->kind == WITNESS_SETTLE && commit->claim == take->claim && commit->epoch == take->epoch) {
            return true;
        }
    }
    return false;
}

/* A claim that was returned is given back only if its acknowledgement can have been lost. */
static void commits_check_returned(const history_op *op, const witness_commit *take, const witness_commit *release)
{
    sim_check(commits_at_end(release), "no sample twice",
              "%s ended well, but its claim %" PRIu64 " was given back (commit %" PRIu64 ")", check_name(op),
              take->claim, release->number);
    sim_check(!commits_settled(take, release), "no sample twice",
              "%s ended well and was acknowledged, but its claim %" PRIu64 " was given back (commit %" PRIu64 ")",
              check_name(op), take->claim, release->number);
    sim_check(!check_closed(op->client, op->life) || check_may_be_cut(), "no sample twice",
              "%s ended well, and no acknowledgement can have been lost, but its claim %" PRIu64
              " was given back (commit %" PRIu64 ")",
              check_name(op), take->claim, release->number);
}

static void commits_check_take(const witness_commit *take, bool settled)
{
    const bool gone = take->epoch != trail_commit_at(trail_count())->epoch; /* with its controller */
    const history_op *op = trail_op_of(take);
    const witness_commit *release = take->claim != 0 ? commits_release_of(take) : NULL;

    if (take->claim == 0) {
        sim_check(take->n_consumed == 0, "no sample twice",
                  "commit %" PRIu64 " consumes samples for a claim without a number", take->number);
    } else if (op != NULL && release != NULL) {
        commits_check_returned(op, take, release);
    } else if (op == NULL && settled && !gone && check_is_client(take->pid)) {
        sim_check(release != NULL || commits_died_with(take), "none lost",
                  "claim %" PRIu64 " of %s (process %" PRIu64 ") for task '%s' was committed (%" PRIu64
                  "), but no call returned it and it was never given back",
                  take->claim, take->client, take->pid, take->task, take->number);
    }
}

void check_all_commits(bool settled)
{
    for (uint64_t number = 1; number <= trail_count(); number++) {
        const witness_commit *commit = trail_commit_at(number);

        switch (commit->kind) {
        case WITNESS_PUBLISH:
        case WITNESS_RESERVE:
        case WITNESS_CLEAR:
        case WITNESS_CLEAR_BEGIN:
        case WITNESS_RESET:
            sim_check(trail_op_of(commit) != NULL || !check_is_client(commit->pid), "0 or 1 commits",
                      "commit %" PRIu64 " (%s of partition '%s', %u samples) of %s is of no call that it made",
                      commit->number, witness_kind_names[commit->kind], commit->partition, commit->n, commit->client);
            break;
        case WITNESS_TAKE:
            commits_check_take(commit, settled);
            break;
        default:
            break;
        }
    }
}
