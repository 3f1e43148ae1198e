/*
 * saved.c - see saved.h.
 */
#include "oracle/saved.h"

#include <inttypes.h>
#include <xxhash.h>

#include "controller/snapshot_parts.h"

#define SAVED_INVARIANT "a checkpoint is what was saved"

/* A sum over what something consists of, in any order. */
typedef uint64_t saved_sum;

typedef struct saved_sample {
    witness_sample sample;
    saved_sum head;  /* everything but the cells */
    saved_sum cells; /* of a load without the data, some may be lost since */
} saved_sample;

typedef struct saved_partition {
    const char *name;
    uint32_t n;
    saved_sample *samples; /* by ascending index */
    saved_sum head;
} saved_partition;

typedef struct saved_picture {
    struct saved_picture *next;
    uint64_t op; /* of the save */
    uint64_t epoch;
    uint64_t commit; /* the last one that is in it */
    uint32_t n;
    saved_partition *partitions;
} saved_picture;

/* A partition that was restored by that commit. */
typedef struct saved_origin {
    struct saved_origin *next;
    uint64_t commit;
    const saved_picture *picture;
    const saved_partition *was, *now; /* in the same order */
    bool relinked;
} saved_origin;

static saved_picture *saved_pictures; /* newest first; all of this is memory of the seed */
static saved_origin *saved_origins;

static saved_picture *saved_picture_of(uint64_t op)
{
    saved_picture *picture = saved_pictures;

    while (picture != NULL && picture->op != op) {
        picture = picture->next;
    }
    return picture;
}

bool saved_count(uint64_t save, uint64_t *partitions, uint64_t *samples)
{
    const saved_picture *picture = saved_picture_of(save);

    *partitions = picture != NULL ? picture->n : 0;
    *samples = 0;
    for (uint64_t p = 0; p < *partitions; p++) {
        *samples += picture->partitions[p].n;
    }
    return picture != NULL;
}

/* The process of that session; 0: unknown. One that could not be opened, for lack of memory, has left its number to the
 * next one. */
static uint64_t saved_pid(const ledger *l, uint64_t session)
{
    for (uint32_t s = l->n_sessions; s > 0; s--) {
        if (l->sessions[s - 1].number == session) {
            return l->sessions[s - 1].pid;
        }
    }
    return 0;
}

/* --- pictures ----------------------------------------------------------------------------- */

/* The hash of one thing, from its numbers and texts. */
static saved_sum saved_hash;

static void saved_text(const char *text)
{
    saved_hash = XXH3_64bits_withSeed(text != NULL ? text : "", text != NULL ? strlen(text) + 1 : 1, saved_hash);
}

static void saved_number(uint64_t number)
{
    saved_hash = XXH3_64bits_withSeed(&number, sizeof(number), saved_hash);
}

static void saved_begin(const char *what, const char *name)
{
    saved_hash = 0;
    saved_text(what);
    saved_text(name);
}

static saved_sum saved_done(void)
{
    return saved_hash;
}

static saved_sum saved_head(const ledger *l, const ledger_partition *partition, const ledger_sample *sample)
{
    saved_sum sum;

    saved_begin("sample", sample->key);
    saved_text(sample->group);
    saved_number(sample->ordinal - l->options.first_ordinal);
    sum = saved_done();
    for (uint32_t t = 0; t < sample->n_tags; t++) {
        saved_begin("tag", sample->tags[t].name);
        saved_number(sample->tags[t].size);
        saved_number(sample->tags[t].hash);
        sum += saved_done();
    }
    for (uint32_t t = 0; t < partition->n_tasks; t++) {
        if (ledger_consumed(&partition->tasks[t], ledger_place(l, sample))) {
            saved_begin("consumed", partition->tasks[t].name);
            sum += saved_done();
        }
    }
    return sum;
}

static saved_sum saved_cells(const ledger_partition *partition, const ledger_sample *sample)
{
    saved_sum sum = 0;

    for (uint32_t f = 0; f < partition->n_fields; f++) {
        const ledger_cell *cell = ledger_cell_of(sample, f);
        if (cell->state == LEDGER_NONE) {
            continue;
        }
        saved_begin("cell", partition->fields[f].name);
        saved_number(cell->state);
        if (cell->state != LEDGER_LOST) {
            saved_number(cell->type);
            saved_number(cell->shape != NULL ? cell->shape->ndim : 0);
            for (uint32_t d = 0; cell->shape != NULL && d < cell->shape->ndim; d++) {
                saved_number(cell->shape->dims[d]);
            }
        }
        sum += saved_done();
    }
    return sum;
}

/* Place of the sample in the picture; UINT32_MAX: it is not there. */
static uint32_t saved_place(const saved_partition *picture, witness_sample sample)
{
    for (uint32_t i = 0; i < picture->n; i++) {
        if (picture->samples[i].sample.index == sample.index &&
            picture->samples[i].sample.incarnation == sample.incarnation) {
            return i;
        }
    }
    return UINT32_MAX;
}

/* The next ordinal, and the cached picks of which all samples are there still: the others are never handed out. A task
 * that has consumed nothing is as one that is not known. */
static saved_sum saved_tasks(const ledger *l, const ledger_partition *partition, const saved_partition *picture)
{
    saved_sum sum = 0;

    saved_begin("next", NULL);
    saved_number(partition->next_ordinal - l->options.first_ordinal);
    sum = saved_done();
    for (uint32_t t = 0; t < partition->n_tasks; t++) {
        const ledger_task *task = &partition->tasks[t];
        for (uint32_t k = 0; k < task->n_picks; k++) {
            bool whole = true;
            saved_begin("pick", task->name);
            saved_text(task->picks[k].slot);
            for (uint32_t i = 0; i < task->picks[k].n; i++) {
                uint32_t place = saved_place(picture, task->picks[k].samples[i]);
                whole = whole && place != UINT32_MAX;
                saved_number(place);
            }
            sum += whole ? saved_done() : 0;
        }
    }
    return sum;
}

/* Where the places, which ascend by index, begin again because indexes wrap: n if they do not. */
static uint32_t saved_wrap(const ledger *l, uint32_t n)
{
    for (uint32_t i = 1; i < n; i++) {
        if (l->scratch[i] < l->scratch[i - 1]) {
            return i;
        }
    }
    return n;
}

/* By ascending index, as the samples of a snapshot are; or by place, as samples with new indexes are made. */
static void saved_take(ledger *l, const ledger_partition *partition, bool by_place, saved_partition *out)
{
    uint32_t first;

    out->name = partition->name;
    out->n = ledger_list(l, partition);
    first = by_place ? saved_wrap(l, out->n) : 0;
    out->samples = ledger_keep((out->n + 1) * sizeof(*out->samples));
    for (uint32_t i = 0; i < out->n; i++) {
        const ledger_sample *sample = &l->samples[l->scratch[(first + i) % out->n]];
        out->samples[i] = (saved_sample){
            .sample = ledger_named(l, sample),
            .head = saved_head(l, partition, sample),
            .cells = saved_cells(partition, sample),
        };
    }
    out->head = saved_tasks(l, partition, out);
}

WITNESS_WRAP(int, tqi_ctl_parts_take, tqi_table *table, const char *only, tqi_ctl_parts *parts, tq_error *err)
{
    int rc = __real_tqi_ctl_parts_take(table, only, parts, err);
    ledger *l = rc == TQ_OK ? witness_look(table) : NULL;
    uint64_t op = l != NULL ? saved_save_of(saved_pid(l, l->handled.session)) : 0;
    saved_picture *picture;

    if (op == 0) {
        return rc;
    }
    picture = ledger_keep(sizeof(*picture));
    picture->op = op;
    picture->epoch = l->options.epoch;
    picture->commit = witness_count();
    picture->partitions = ledger_keep((l->n_partitions + 1) * sizeof(*picture->partitions));
    for (uint32_t p = 0; p < l->n_partitions; p++) {
        if (l->partitions[p]->exists && (only == NULL || only[0] == 0 || strcmp(only, l->partitions[p]->name) == 0)) {
            saved_take(l, l->partitions[p], false, &picture->partitions[picture->n++]);
        }
    }
    picture->next = saved_pictures;
    saved_pictures = picture;
    return rc;
}

/* --- restoring --------------------------------------------------------------------------------- */

static const saved_partition *saved_find(const saved_picture *picture, const char *name)
{
    for (uint32_t p = 0; p < picture->n; p++) {
        if (picture->partitions[p].name == name) {
            return &picture->partitions[p];
        }
    }
    return NULL;
}

/* How the partition differs from what was saved; NULL: it does not. */
static const char *saved_differs(const saved_partition *was, const saved_partition *now, bool same_indexes,
                                 bool same_cells)
{
    if (was->n != now->n) {
        return "a partition has another number of samples";
    }
    if (was->head != now->head) {
        return "a partition has other cached picks, or another next ordinal";
    }
    for (uint32_t i = 0; i < was->n; i++) {
        const saved_sample *one = &was->samples[i];
        const saved_sample *other = &now->samples[i];
        if (same_indexes && one->sample.index != other->sample.index) {
            return "a sample has another index";
        }
        if (one->head != other->head) {
            return "a sample has another ordinal, key, group, tags or consumers";
        }
        if (same_cells && one->cells != other->cells) {
            return "a sample has other cells";
        }
    }
    return NULL;
}

static uint64_t saved_commit_of(const char *partition)
{
    const witness_commit *commits;
    size_t n;

    witness_commits(&commits, &n);
    while (n > 0 && (commits[n - 1].kind != WITNESS_RESTORE || commits[n - 1].partition != partition)) {
        n--;
    }
    return n > 0 ? commits[n - 1].number : 0;
}

/* The same of all that was restored; `now` has its partitions. */
static const char *saved_all_differ(const saved_picture *picture, const saved_partition *now,
                                    const tqi_table_restore_state *ask, bool renumbered)
{
    if (picture == NULL) {
        return "of that save there is no snapshot";
    }
    if (picture->n != ask->n) {
        return "there are more partitions, or fewer";
    }
    for (size_t p = 0; p < ask->n; p++) {
        const saved_partition *was = saved_find(picture, now[p].name);
        const char *why =
            was != NULL ? saved_differs(was, &now[p], !renumbered, !ask->relink) : "a partition has another name";
        if (why != NULL) {
            return why;
        }
    }
    return NULL;
}

/* The ledger has taken over a restore: of the last load of that client, or of an earlier one that nobody waits for. */
static void saved_restored(ledger *l, const tqi_table_restore_state *ask, bool renumbered)
{
    uint64_t pid = saved_pid(l, ask->session);
    saved_partition *now = ledger_keep((ask->n + 1) * sizeof(*now));
    const saved_picture *picture = NULL;
    const char *why = NULL;
    const char *first = NULL;
    uint32_t nth = 0;

    for (size_t p = 0; p < ask->n; p++) {
        saved_take(l, ledger_partition_find(l, ask->partitions[p].name), renumbered, &now[p]);
    }
    do {
        const uint64_t op = saved_load_of(pid, nth++);
        if (op == 0) {
            sim_check(first == NULL, SAVED_INVARIANT, "op %" PRIu64 " loaded what op %" PRIu64 " had saved, but %s",
                      saved_load_of(pid, 0), saved_opened(saved_load_of(pid, 0)), first);
            return;
        }
        picture = saved_picture_of(saved_opened(op));
        why = saved_all_differ(picture, now, ask, renumbered);
        first = first != NULL ? first : why;
    } while (why != NULL);
    for (size_t p = 0; p < ask->n; p++) {
        saved_origin *origin = ledger_keep(sizeof(*origin));
        *origin = (saved_origin){
            .next = saved_origins,
            .commit = saved_commit_of(now[p].name),
            .picture = picture,
            .was = saved_find(picture, now[p].name),
            .now = &now[p],
            .relinked = ask->relink,
        };
        saved_origins = origin;
    }
    sim_mark("checkpoint loaded");
}

void saved_start(void)
{
    saved_pictures = NULL;
    saved_origins = NULL;
    witness_on_restore = saved_restored;
    saved_paths_start();
}

bool saved_source_of(uint64_t commit, witness_sample restored, saved_source *out)
{
    const saved_origin *origin = saved_origins;
    uint32_t place;

    while (origin != NULL && origin->commit != commit) {
        origin = origin->next;
    }
    place = origin != NULL ? saved_place(origin->now, restored) : UINT32_MAX;
    if (place == UINT32_MAX) {
        return false;
    }
    *out = (saved_source){
        .epoch = origin->picture->epoch,
        .commit = origin->picture->commit,
        .sample = origin->was->samples[place].sample,
        .relinked = origin->relinked,
    };
    return true;
}
