/*
 * trail_commits.c - the commits, one after the other, and what must hold between them.
 */
#include "oracle/saved.h"
#include "oracle/trail_state.h"

#include <inttypes.h>
#include <string.h>

#define TRAIL_ORDER "order of commits"

/* --- samples ------------------------------------------------------------------------- */

static trail_sample *commit_make_sample(const witness_commit *commit, trail_partition *partition,
                                        const witness_sample *of, const char *key)
{
    trail_sample *sample = history_memory(sizeof(*sample));
    trail_sample **bucket = &trail.indexes[trail_bucket(of->index, partition->epoch)];
    uint32_t size = (uint32_t)partition->size;

    *sample = (trail_sample){
        .index = of->index,
        .incarnation = of->incarnation,
        .key = history_text(key),
        .made = commit->number,
        .cleared = TRAIL_NEVER,
        .partition = partition,
        .next_index = *bucket,
    };
    *bucket = sample;
    if (key != NULL) {
        bucket = &trail.keys[trail_key_bucket(key)];
        sample->next_key = *bucket;
        *bucket = sample;
    }
    partition->samples = trail_grow(partition->samples, (uint32_t)partition->n, &size, sizeof(*partition->samples));
    partition->size = size;
    partition->samples[partition->n++] = sample;
    return sample;
}

/* The sample of a commit that must be there. */
static trail_sample *commit_sample(const witness_commit *commit, const trail_partition *partition,
                                   const witness_sample *of)
{
    trail_sample *sample = trail_find(partition, of->index, of->incarnation, 0);

    sim_check(sample != NULL && sample->cleared >= commit->number, TRAIL_ORDER,
              "commit %" PRIu64 " (%s) is about sample %u.%u of partition '%s', which is not there", commit->number,
              witness_kind_names[commit->kind], of->index, of->incarnation, commit->partition);
    return sample;
}

/* --- puts ------------------------------------------------------------------------------ */

static bool commit_same_texts(const char *const *a, const char *const *b, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        bool found = false;

        for (uint32_t k = 0; k < n && !found; k++) {
            found = strcmp(a[i], b[k]) == 0;
        }
        if (!found) {
            return false;
        }
    }
    return true;
}

static bool commit_may_be_of(const witness_commit *commit, const history_op *op)
{
    return (op->call == HISTORY_PUT || op->call == HISTORY_NOTIFY) && !op->tagged && op->pid == commit->pid &&
           op->partition != NULL && strcmp(op->partition, commit->partition) == 0 &&
           op->commits_invoked < commit->number && trail.firsts[op->number] == 0 && op->n == commit->n &&
           op->n_fields == commit->n_fields && commit_same_texts(op->fields, commit->fields, op->n_fields) &&
           op->status != HISTORY_FAIL && (op->status != HISTORY_OK || commit->number <= op->commits_ended);
}

/* The put of a commit without the tag "op": of that process, in flight then, of the same fields and size. */
static const history_op *commit_untagged(const witness_commit *commit)
{
    const history_op *best = NULL;

    for (uint64_t number = 1; number <= history_ops(); number++) {
        const history_op *op = history_op_of(number);

        if (commit_may_be_of(commit, op)) {
            const bool same = op->status == HISTORY_OK && op->n > 0 &&
                              op->results[0].index == commit->samples[0].index &&
                              op->results[0].incarnation == commit->samples[0].incarnation;

            best = best == NULL || same ? op : best;
        }
    }
    return best;
}

static const history_op *commit_put_of(const witness_commit *commit)
{
    const history_op *op = commit->op != 0 ? history_op_of(commit->op) : NULL;

    if (commit->kind != WITNESS_PUBLISH) {
        return NULL;
    }
    if (commit->op == 0) {
        op = commit_untagged(commit);
    }
    sim_check(commit->op == 0 || op != NULL, TRAIL_ORDER, "commit %" PRIu64 " is of op %" PRIu64 ", which there is not",
              commit->number, commit->op);
    if (op != NULL) {
        sim_check(trail.firsts[op->number] == 0, "0 or 1 commits",
                  "op %" PRIu64 " (%s) was committed twice: commits %" PRIu64 " and %" PRIu64, op->number,
                  history_call_names[op->call], trail.firsts[op->number], commit->number);
        trail_match(op, commit);
    }
    return op;
}

/* The sample of a put: one that is there, or a new one whose index and key are free. */
static trail_sample *commit_put_sample(const witness_commit *commit, trail_partition *partition, uint32_t i)
{
    const witness_sample *of = &commit->samples[i];
    const char *key = commit->keys != NULL ? commit->keys[i] : NULL;
    trail_sample *sample = trail_find(partition, of->index, of->incarnation, 0);
    trail_sample *other;

    if (sample != NULL) {
        sim_check(trail_alive(sample, commit->number), TRAIL_ORDER,
                  "commit %" PRIu64 " writes to sample %u.%u of partition '%s', which commit %" PRIu64 " cleared",
                  commit->number, of->index, of->incarnation, commit->partition, sample->cleared);
        sim_check(key == NULL || sample->key == NULL || strcmp(sample->key, key) == 0, TRAIL_ORDER,
                  "commit %" PRIu64 " writes key '%s' to sample %u.%u of partition '%s', whose key is '%s'",
                  commit->number, key, of->index, of->incarnation, commit->partition, sample->key);
        return sample;
    }
    other = trail_find(partition, of->index, 0, commit->number);
    if (other == NULL && key != NULL) {
        other = trail_find_key(partition, key, commit->number);
    }
    sim_check(other == NULL, TRAIL_ORDER,
              "commit %" PRIu64 " makes sample %u.%u (key '%s') of partition '%s', where %u.%u (key '%s') is",
              commit->number, of->index, of->incarnation, key != NULL ? key : "", commit->partition, other->index,
              other->incarnation, other->key != NULL ? other->key : "");
    return commit_make_sample(commit, partition, of, key);
}

static void commit_write(trail_sample *sample, const char *field, uint64_t commit, const history_op *op,
                         uint32_t position)
{
    trail_cell *cell = (trail_cell *)(uintptr_t)trail_cell_of(sample, field);

    if (cell == NULL) {
        sample->cells = trail_grow(sample->cells, sample->n_cells, &sample->cells_size, sizeof(*sample->cells));
        cell = &sample->cells[sample->n_cells++];
        *cell = (trail_cell){.field = history_text(field)};
    }
    cell->writes = trail_grow(cell->writes, cell->n, &cell->size, sizeof(*cell->writes));
    cell->writes[cell->n++] = (trail_write){.commit = commit, .op = op, .position = position};
}

static void commit_publish(const witness_commit *commit, trail_partition *partition)
{
    const history_op *op = commit_put_of(commit);

    for (uint32_t i = 0; i < commit->n; i++) {
        trail_sample *sample = commit_put_sample(commit, partition, i);

        if (op != NULL && sample->made == commit->number) {
            sample->group = op->groups != NULL ? op->groups[i] : NULL;
            sample->group_known = true;
        }
        if (op != NULL && op->tagged) {
            commit_write(sample, TRAIL_TAG, commit->number, op, i);
        }
        for (uint32_t f = 0; f < commit->n_fields; f++) {
            commit_write(sample, commit->fields[f], commit->number, op, i);
        }
    }
}

/* --- the others --------------------------------------------------------------------------- */

static void commit_clear(const witness_commit *commit, trail_partition *partition)
{
    for (uint32_t i = 0; i < commit->n; i++) {
        trail_sample *sample = commit_sample(commit, partition, &commit->samples[i]);

        sim_check(trail_alive(sample, commit->number), TRAIL_ORDER,
                  "commit %" PRIu64 " clears sample %u.%u of partition '%s' again", commit->number, sample->index,
                  sample->incarnation, commit->partition);
        sample->cleared = commit->number;
    }
    for (size_t i = 0; i < partition->n && commit->whole; i++) {
        sim_check(!trail_alive(partition->samples[i], commit->number), "a clear clears",
                  "commit %" PRIu64 " clears the whole partition '%s', but sample %u.%u is still there", commit->number,
                  commit->partition, partition->samples[i]->index, partition->samples[i]->incarnation);
    }
}

static void commit_take(const witness_commit *commit, trail_partition *partition)
{
    const char *task = history_text(commit->task);

    for (uint32_t i = 0; i < commit->n_consumed; i++) {
        trail_sample *sample = commit_sample(commit, partition, &commit->consumed[i]);

        sim_check(!trail_used(sample, task, commit->number), "no sample twice",
                  "claim %" PRIu64 " (commit %" PRIu64 ") consumes sample %u.%u of partition '%s' for task '%s', which "
                  "has consumed it already",
                  commit->claim, commit->number, sample->index, sample->incarnation, commit->partition, task);
        sample->uses = trail_grow(sample->uses, sample->n_uses, &sample->uses_size, sizeof(*sample->uses));
        sample->uses[sample->n_uses++] =
            (trail_use){.task = task, .claim = commit->claim, .taken = commit->number, .freed = TRAIL_NEVER};
    }
    for (uint32_t i = 0; i < commit->n; i++) {
        trail_sample *sample = commit_sample(commit, partition, &commit->samples[i]);

        sim_check(trail_alive(sample, commit->number), TRAIL_ORDER,
                  "claim %" PRIu64 " (commit %" PRIu64 ") hands out sample %u.%u of partition '%s', which was cleared",
                  commit->claim, commit->number, sample->index, sample->incarnation, commit->partition);
    }
}

/* Frees the sample for the task (NULL: all), if the claim (0: any) took it. */
static void commit_free(trail_sample *sample, const char *task, uint64_t claim, uint64_t number)
{
    for (uint32_t i = 0; i < sample->n_uses; i++) {
        trail_use *use = &sample->uses[i];

        if (use->freed == TRAIL_NEVER && (task == NULL || strcmp(use->task, task) == 0) &&
            (claim == 0 || use->claim == claim)) {
            use->freed = number;
        }
    }
}

static void commit_release(const witness_commit *commit, trail_partition *partition)
{
    for (uint32_t i = 0; i < commit->n; i++) {
        commit_free(commit_sample(commit, partition, &commit->samples[i]), NULL, commit->claim, commit->number);
    }
}

static void commit_reset(const witness_commit *commit, trail_partition *partition)
{
    const char *task = commit->task[0] != '\0' ? commit->task : NULL;

    for (size_t i = 0; i < partition->n; i++) {
        if (trail_alive(partition->samples[i], commit->number)) {
            commit_free(partition->samples[i], task, 0, commit->number);
        }
    }
}

static void commit_lost(const witness_commit *commit, trail_partition *partition)
{
    for (uint32_t i = 0; i < commit->n; i++) {
        trail_sample *sample = commit_sample(commit, partition, &commit->samples[i]);

        sample->losses = trail_grow(sample->losses, sample->n_losses, &sample->losses_size, sizeof(*sample->losses));
        sample->losses[sample->n_losses++] = commit->number;
    }
}

static void commit_drop(const witness_commit *commit, trail_partition *partition)
{
    for (size_t i = 0; i < partition->n; i++) {
        if (trail_alive(partition->samples[i], commit->number)) {
            partition->samples[i]->cleared = commit->number;
        }
    }
}

/* Gives a restored sample the key, cells and consumers that it had when it was saved. */
static void commit_copy(trail_sample *to, const trail_sample *from, const saved_source *source, uint64_t number)
{
    bool lost = source->relinked;

    to->group = from->group;
    to->group_known = from->group_known;
    for (uint32_t c = 0; c < from->n_cells; c++) {
        const trail_write *write = trail_write_at(&from->cells[c], source->commit);

        if (write != NULL) {
            lost = lost || trail_lost(from, write, source->commit);
            commit_write(to, from->cells[c].field, number, write->op, write->position);
        }
    }
    if (lost) {
        to->losses = trail_grow(to->losses, to->n_losses, &to->losses_size, sizeof(*to->losses));
        to->losses[to->n_losses++] = number;
    }
    for (uint32_t i = 0; i < from->n_uses; i++) {
        if (from->uses[i].taken <= source->commit && from->uses[i].freed > source->commit) {
            to->uses = trail_grow(to->uses, to->n_uses, &to->uses_size, sizeof(*to->uses));
            to->uses[to->n_uses++] = (trail_use){
                .task = from->uses[i].task,
                .claim = UINT64_MAX, /* of none: it stays consumed */
                .taken = number,
                .freed = TRAIL_NEVER,
            };
        }
    }
}

static void commit_restore(const witness_commit *commit, trail_partition *partition)
{
    for (uint32_t i = 0; i < commit->n; i++) {
        saved_source source;
        const trail_sample *from = NULL;
        trail_sample *sample;

        if (saved_source_of(commit->number, commit->samples[i], &source)) {
            from = trail_find(trail_partition_get(source.epoch, commit->partition), source.sample.index,
                              source.sample.incarnation, 0);
        }
        sample = commit_make_sample(commit, partition, &commit->samples[i], from != NULL ? from->key : NULL);
        sample->restored = from == NULL;
        if (from != NULL) {
            commit_copy(sample, from, &source, commit->number);
        }
    }
}

static void commit_read(const witness_commit *commit)
{
    trail_partition *partition = trail_partition_get(commit->epoch, commit->partition);

    switch (commit->kind) {
    case WITNESS_PUBLISH:
    case WITNESS_RESERVE:
        commit_publish(commit, partition);
        break;
    case WITNESS_CLEAR:
    case WITNESS_CLEAR_BEGIN:
        commit_clear(commit, partition);
        break;
    case WITNESS_RESET:
        commit_reset(commit, partition);
        break;
    case WITNESS_TAKE:
        commit_take(commit, partition);
        break;
    case WITNESS_RELEASE:
        commit_release(commit, partition);
        break;
    case WITNESS_LOST:
        commit_lost(commit, partition);
        break;
    case WITNESS_DROP:
        commit_drop(commit, partition);
        break;
    case WITNESS_RESTORE:
        commit_restore(commit, partition);
        break;
    default:
        break;
    }
}

static void *commit_widen(void *old, uint64_t from, uint64_t to, size_t each)
{
    uint8_t *now = sim_realloc(old, (size_t)to * each);

    memset(now + from * each, 0, (size_t)(to - from) * each);
    return now;
}

void trail_update(void)
{
    witness_commits(&trail.commits, &trail.n);
    if (trail.ops_size < trail.n + 1) {
        trail.ops = commit_widen(trail.ops, trail.ops_size, trail.n + 1, sizeof(*trail.ops));
        trail.ops_size = trail.n + 1;
    }
    if (trail.firsts_size < history_ops() + 1) {
        trail.firsts = commit_widen(trail.firsts, trail.firsts_size, history_ops() + 1, sizeof(*trail.firsts));
        trail.firsts_size = history_ops() + 1;
    }
    while (trail.done < trail.n) {
        sim_check(trail.commits[trail.done].number == trail.done + 1, TRAIL_ORDER,
                  "commit %" PRIu64 " is number %" PRIu64, trail.done + 1, trail.commits[trail.done].number);
        commit_read(&trail.commits[trail.done++]);
    }
}

void trail_end(void)
{
    sim_free(trail.ops);
    sim_free(trail.firsts);
    memset(&trail, 0, sizeof(trail));
}
