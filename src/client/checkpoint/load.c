/*
 * load.c - loading a checkpoint: its blocks are written as new ones, then one request replaces the table.
 *
 *   files checked -> [bytes read, blocks written]* -> sums right -> [RESTORE_PART]* -> RESTORE_COMMIT
 *
 * Nothing is visible before the commit, which is all or nothing. A load that fails abandons what it has written.
 */
#include "client/checkpoint/checkpoint.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/pointer.h"

#define LOAD_BUFFER  (UINT64_C(8) << 20)
#define LOAD_COLUMNS 128u
#define LOAD_ABANDON 4096u

typedef struct load_task {
    tqi_client_task task;
    tqi_client_put_job write;
    tq_put_column columns[LOAD_COLUMNS];
    tq_slice slices[LOAD_COLUMNS];
    tqi_client_ckpt_block *group[LOAD_COLUMNS]; /* the block of each column */
    uint8_t *buffer;                            /* of the job */
    uint64_t buffer_size;
    uint64_t wanted; /* bytes of the job */
    tqi_client_ckpt_blocks found;
    tqi_client_ckpt_block *at; /* the next block to write */
    uint64_t *ids;             /* new blocks */
    size_t n_ids;
    size_t ids_capacity;
    uint64_t restore;  /* 0: none begun */
    uint64_t sessions; /* the client's count of sessions, when the first block was about to be written */
    uint64_t partitions;
    bool committing;
    bool in_put;
    char *path;
    char *metadata; /* of the user */
    tqi_client_ckpt_in in;
    tq_error work_error;
} load_task;

static void load_fini(tqi_client_task *task)
{
    load_task *load = (load_task *)task;

    tqi_client_ckpt_blocks_fini(&load->found);
    tqi_client_ckpt_in_fini(&load->in);
    free(load->buffer);
    free(load->ids);
    free(load->metadata);
}

/* --- the end -------------------------------------------------------------- */

static void load_dropped(tqi_net_call *call, tqi_net_answer *answer, void *arg)
{
    (void)call;
    (void)answer; /* if it failed, the restore goes with the session */
    (void)arg;
}

/* Gives back what was written. If a commit without an answer was carried out, it came first, and this changes nothing. */
static void load_fail(load_task *load, const tq_error *err)
{
    tqi_client_runtime *rt = load->task.rt;
    Tq__RestoreDrop message;
    tqi_net_call_args args = {
        .kind = TQI_RESTORE_DROP,
        .message = &message.base,
        .deadline = TQI_NEVER,
        .done = load_dropped,
    };
    tqi_net_call *call;

    for (size_t i = 0; i < load->n_ids && !rt->stopping; i += LOAD_ABANDON) {
        size_t left = load->n_ids - i;
        tqi_client_abandon(rt, load->ids + i, left < LOAD_ABANDON ? left : LOAD_ABANDON, true);
    }
    tq__restore_drop__init(&message);
    message.id = load->restore;
    if (message.id != 0 && !rt->stopping) {
        tqi_net_call_start(rt->controller, &args, &call, NULL);
    }
    tqi_client_task_finish(&load->task, err);
}

/* Blocks that are not published yet end with the session that they were granted to. */
static bool load_goes_on(load_task *load)
{
    tq_error err = {0};
    int rc = tqi_client_ckpt_go_on(&load->task, &err);

    if (rc == TQ_OK && load->n_ids > 0 && load->sessions != load->task.rt->sessions) {
        rc = tqi_error_set(&err, TQ_ESTALE, "checkpoint %s: the session has ended: load it again", load->path);
    }
    if (rc) {
        load_fail(load, &err);
        return false;
    }
    return true;
}

static bool load_worked(load_task *load)
{
    if (load->work_error.code) {
        load_fail(load, &load->work_error);
        return false;
    }
    return load_goes_on(load);
}

/* --- the table ------------------------------------------------------------ */

static void load_committed(tqi_client_task *task, tqi_net_answer *answer)
{
    load_task *load = (load_task *)task;
    const Tq__RestoreCommitReply *reply = (const Tq__RestoreCommitReply *)answer->reply;
    tq_error err = {0};

    load->restore = 0; /* over, in any case */
    if (answer->status != TQ_OK) {
        load_fail(load, answer->error);
        return;
    }
    tq_checkpoint result = {
        .samples = reply->samples,
        .partitions = load->partitions,
        .blocks = load->found.n,
        .bytes = load->in.about.data ? load->found.bytes : 0,
        .lost = reply->lost,
        .storage_saved = load->in.about.data,
    };
    tqi_client_task_finish(task, tqi_client_ckpt_result(task->op, &result, load->metadata, &err) ? &err : NULL);
}

static void load_commit(load_task *load)
{
    Tq__RestoreCommit message;
    tq_error err = {0};

    tq__restore_commit__init(&message);
    message.id = load->restore;
    message.partial = load->in.about.partial;
    message.relink = !load->in.about.data;
    message.epoch = load->in.about.epoch;
    load->committing = true;
    if (tqi_client_ckpt_call(&load->task, TQI_RESTORE_COMMIT, &message.base, load_committed, &err) != TQ_OK) {
        load_fail(load, &err);
    }
}

/* Rewrites a part to refer to the newly written blocks instead of the saved ones. */
typedef struct load_swap {
    tqi_region region;
    Tq__SnapshotPart part;
    Tq__Batch batch;
} load_swap;

static int load_swap_blocks(const load_task *load, load_swap *swap, uint64_t *shifts, tq_error *err)
{
    Tq__Batch *batch = &swap->batch;
    size_t n = batch->n_block;
    Tq__Owner *owners = tqi_region_array(&swap->region, n, sizeof(*owners));
    Tq__Block *blocks = tqi_region_array(&swap->region, n, sizeof(*blocks));
    Tq__Owner **owner = tqi_region_array(&swap->region, n, sizeof(void *));
    Tq__Block **block = tqi_region_array(&swap->region, n, sizeof(void *));
    size_t n_owners = 0;

    if (owners == NULL || blocks == NULL || owner == NULL || block == NULL) {
        return tqi_error_nomem(err, "a checkpoint");
    }
    for (size_t i = 0; i < n; i++) {
        const tqi_client_ckpt_block *found = tqi_client_ckpt_find(&load->found, batch->block[i]->id);
        const tq_block *to = &found->to;
        /* Neighbours mostly have one owner. */
        if (n_owners == 0 || strcmp(owners[n_owners - 1].name, to->owner) != 0 ||
            owners[n_owners - 1].incarnation != to->owner_incarnation) {
            tq__owner__init(&owners[n_owners]);
            owners[n_owners].name = tqi_unconst(to->owner);
            owners[n_owners].incarnation = to->owner_incarnation;
            owner[n_owners] = &owners[n_owners];
            n_owners++;
        }
        tq__block__init(&blocks[i]);
        blocks[i].id = to->id;
        blocks[i].owner = (uint32_t)n_owners - 1;
        blocks[i].size = to->size;
        blocks[i].locator.data = tqi_unconst(to->locator);
        blocks[i].locator.len = to->locator_size;
        block[i] = &blocks[i];
        shifts[i] = found->shift;
    }
    batch->owner = owner;
    batch->n_owner = n_owners;
    batch->block = block;
    return TQ_OK;
}

/* Fills `swap` from a part and shifts the part's offsets. */
static int load_swap_part(const load_task *load, const Tq__SnapshotPart *part, load_swap *swap, tq_error *err)
{
    uint64_t *shifts;
    int rc;

    swap->part = *part;
    if (part->batch == NULL || part->batch->n_block == 0 || !load->in.about.data) {
        return TQ_OK;
    }
    swap->batch = *part->batch;
    swap->part.batch = &swap->batch;
    shifts = tqi_region_array(&swap->region, swap->batch.n_block, sizeof(*shifts));
    if (shifts == NULL) {
        return tqi_error_nomem(err, "a checkpoint");
    }
    rc = load_swap_blocks(load, swap, shifts, err);
    for (size_t f = 0; f < swap->batch.n_field && rc == TQ_OK; f++) {
        Tq__Field *field = swap->batch.field[f];
        for (size_t r = 0; r < field->n_run_block && r < field->n_run_offset; r++) {
            uint32_t place = field->run_block[r];
            if (place >= 1 && place <= swap->batch.n_block &&
                __builtin_add_overflow(field->run_offset[r], shifts[place - 1], &field->run_offset[r])) {
                return tqi_error_set(err, TQ_ECHECKPOINT, "checkpoint: field '%s' lies outside of its block",
                                     field->name);
            }
        }
    }
    return rc;
}

static Tq__SnapshotPart *load_decode(const uint8_t *bytes, size_t size, tq_error *err)
{
    tq_error bad = {0};
    Tq__SnapshotPart *part = (Tq__SnapshotPart *)tqi_message_decode(&tq__snapshot_part__descriptor, bytes, size, &bad);

    if (part == NULL && bad.code == TQ_ENOMEM) {
        *err = bad;
    } else if (part == NULL) {
        tqi_error_set(err, TQ_ECHECKPOINT, "checkpoint: a part of its state is malformed: %.200s", bad.message);
    }
    return part;
}

static void load_next_part(load_task *load);

static void load_part_kept(tqi_client_task *task, tqi_net_answer *answer)
{
    load_task *load = (load_task *)task;

    if (answer->status != TQ_OK) {
        load_fail(load, answer->error);
        return;
    }
    load->restore = ((const Tq__RestorePartReply *)answer->reply)->id;
    if (load_goes_on(load)) {
        load_next_part(load);
    }
}

static int load_send(load_task *load, const Tq__SnapshotPart *part, tq_error *err)
{
    Tq__RestorePart message;
    size_t size = part != NULL ? tq__snapshot_part__get_packed_size(part) : 0;
    uint8_t *bytes = malloc(size ? size : 1);
    int rc;

    if (bytes == NULL) {
        return tqi_error_nomem(err, "a checkpoint");
    }
    tq__restore_part__init(&message);
    message.id = load->restore;
    message.total = load->in.state_size;
    message.part.data = bytes;
    message.part.len = part != NULL ? tq__snapshot_part__pack(part, bytes) : 0;
    rc = tqi_client_ckpt_call(&load->task, TQI_RESTORE_PART, &message.base, load_part_kept, err);
    free(bytes);
    return rc;
}

static void load_next_part(load_task *load)
{
    const uint8_t *bytes = NULL;
    size_t size = 0;
    tq_error err = {0};
    load_swap swap = {0};
    Tq__SnapshotPart *part = NULL;
    int rc = TQ_OK;

    if (tqi_client_ckpt_next_part(&load->in, &bytes, &size)) {
        part = load_decode(bytes, size, &err);
        rc = part != NULL ? load_swap_part(load, part, &swap, &err) : err.code;
        rc = rc ? rc : load_send(load, &swap.part, &err);
        if (part != NULL) {
            tq__snapshot_part__free_unpacked(part, NULL);
        }
        tqi_region_fini(&swap.region);
    } else if (load->restore == 0) {
        rc = load_send(load, NULL, &err); /* of an empty table */
    } else {
        load_commit(load);
        return;
    }
    if (rc) {
        load_fail(load, &err);
    }
}

/* --- blocks --------------------------------------------------------------- */

static void load_next_group(load_task *load);

/* Where the blocks of the job lie now. */
static int load_placed(load_task *load, const tq_block *blocks, uint32_t n_blocks, const tq_extent *extents,
                       uint32_t n_extents, tq_error *err)
{
    if (tqi_grow(&load->ids, &load->ids_capacity, load->n_ids + n_blocks, sizeof(*load->ids)) != TQ_OK) {
        return tqi_error_nomem(err, "a checkpoint");
    }
    for (uint32_t i = 0; i < n_blocks; i++) {
        load->ids[load->n_ids++] = blocks[i].id;
    }
    for (uint32_t e = 0; e < n_extents; e++) {
        tqi_client_ckpt_block *block;
        if (extents[e].column >= load->write.job.n_columns || extents[e].block >= n_blocks) {
            return tqi_error_set(err, TQ_EINTERNAL, "storage manager %s: an extent is malformed",
                                 load->task.rt->manager->type);
        }
        block = load->group[extents[e].column];
        block->to = blocks[extents[e].block];
        block->to.owner = tqi_region_string(&load->found.region, block->to.owner);
        block->shift = extents[e].offset;
        if (block->to.owner == NULL) {
            return tqi_error_nomem(err, "a checkpoint");
        }
    }
    for (uint32_t c = 0; c < load->write.job.n_columns; c++) {
        if (load->group[c]->to.owner == NULL) {
            return tqi_error_set(err, TQ_EINTERNAL, "storage manager %s: a column was not stored",
                                 load->task.rt->manager->type);
        }
    }
    return TQ_OK;
}

static void load_written(tqi_client_task *task, const tq_error *err, const tq_block *blocks, uint32_t n_blocks,
                         const tq_extent *extents, uint32_t n_extents)
{
    load_task *load = (load_task *)task;
    tq_error bad = {0};

    load->in_put = false;
    if (err != NULL && err->code) {
        if (load->task.canceled) {
            tqi_error_set(&bad, TQ_ECANCELED, "cancelled");
            err = &bad;
        }
        load_fail(load, err);
        return;
    }
    if (load_placed(load, blocks, n_blocks, extents, n_extents, &bad) != TQ_OK) {
        load_fail(load, &bad);
        return;
    }
    atomic_fetch_add(&load->task.op->moved, load->wanted);
    if (load_goes_on(load)) {
        load_next_group(load);
    }
}

static void load_read(void *arg)
{
    load_task *load = arg;

    if (load->buffer == NULL || load->wanted > load->buffer_size) {
        free(load->buffer);
        /* Blocks of empty cells have no bytes. */
        load->buffer_size = load->wanted > 0 ? load->wanted : 1;
        load->buffer = malloc(load->buffer_size);
    }
    if (load->buffer == NULL) {
        load->buffer_size = 0;
        tqi_error_nomem(&load->work_error, "a checkpoint");
        return;
    }
    tqi_client_ckpt_read(&load->in.data, load->buffer, load->wanted, &load->work_error);
}

static void load_was_read(void *arg)
{
    load_task *load = arg;
    tqi_client_runtime *rt = load->task.rt;

    if (!load_worked(load)) {
        return;
    }
    load->write.job.deadline_ns = tqi_client_ckpt_step_deadline(&load->task);
    for (uint64_t c = 0, at = 0; c < load->write.job.n_columns; c++) {
        load->slices[c].data = load->buffer + at;
        at += load->slices[c].size;
    }
    load->write.task = &load->task;
    load->write.written = load_written;
    load->in_put = true;
    rt->manager->put(rt->manager_state, &load->write.job);
}

/* The next blocks of one partition, together no larger than a buffer (but at least one): each a column of one row. */
static void load_plan(load_task *load)
{
    uint32_t n = 0;

    load->wanted = 0;
    while (load->at != NULL && n < LOAD_COLUMNS &&
           (n == 0 ||
            (load->at->partition == load->group[0]->partition && load->at->from.size <= LOAD_BUFFER - load->wanted))) {
        uint64_t size = load->at->from.size;
        load->group[n] = load->at;
        load->slices[n] = (tq_slice){.size = size};
        load->columns[n] = (tq_put_column){
            .name = "checkpoint",
            .rows = 1,
            .size = size,
            .row_size = size,
            .slices = &load->slices[n],
            .n_slices = 1,
        };
        n++;
        load->wanted += size;
        load->at = load->at->next;
        if (load->wanted >= LOAD_BUFFER) {
            break;
        }
    }
    load->write.job = (tq_put_job){.columns = load->columns, .n_columns = n, .wait_when_full = true};
}

static void load_next_group(load_task *load)
{
    tq_error err = {0};

    if (!load->in.about.data) {
        load_next_part(load);
        return;
    }
    if (load->at != NULL) {
        load_plan(load);
        tqi_client_ckpt_work(&load->task, &load->work_error, load_read, load_was_read);
        return;
    }
    if (tqi_client_ckpt_check(&load->in.data, load->path, &err) != TQ_OK) {
        load_fail(load, &err);
        return;
    }
    load_next_part(load);
}

/* --- beginning ------------------------------------------------------------ */

/* Reads the whole state: collects the blocks and checks it against the manifest. */
static int load_look(load_task *load, tq_error *err)
{
    const uint8_t *bytes = NULL;
    size_t size = 0;
    uint64_t parts = 0;
    int rc = TQ_OK;

    for (; rc == TQ_OK && tqi_client_ckpt_next_part(&load->in, &bytes, &size); parts++) {
        Tq__SnapshotPart *part = load_decode(bytes, size, err);
        if (part == NULL) {
            return err->code;
        }
        load->partitions += part->partition != NULL;
        rc = tqi_client_ckpt_collect(&load->found, part, load->partitions, err);
        tq__snapshot_part__free_unpacked(part, NULL);
    }
    if (rc == TQ_OK && (parts != load->in.about.parts || load->in.state_at != load->in.state_size)) {
        return tqi_error_set(err, TQ_ECHECKPOINT, "checkpoint %s: its state has other parts than the manifest says",
                             load->path);
    }
    if (rc == TQ_OK && load->in.about.data && load->found.bytes != load->in.data.want) {
        return tqi_error_set(err, TQ_ECHECKPOINT, "checkpoint %s: its blocks have %llu bytes, its data file has %llu",
                             load->path, (unsigned long long)load->found.bytes, (unsigned long long)load->in.data.want);
    }
    tqi_client_ckpt_first_part(&load->in);
    return rc;
}

static int load_read_metadata(load_task *load, tq_error *err)
{
    json_error_t bad;
    json_t *about = json_loads(load->in.metadata, 0, &bad);
    const json_t *user = json_object_get(about, "user_metadata");
    int rc = TQ_OK;

    if (!json_is_object(user)) {
        rc = tqi_error_set(err, TQ_ECHECKPOINT, "checkpoint %s: metadata.json is malformed", load->path);
    } else if ((load->metadata = json_dumps(user, JSON_COMPACT)) == NULL) {
        rc = tqi_error_nomem(err, "a checkpoint");
    }
    json_decref(about);
    return rc;
}

static void load_open(void *arg)
{
    load_task *load = arg;
    tq_error *err = &load->work_error;
    int rc = tqi_client_ckpt_in_open(&load->in, load->path, err);

    rc = rc ? rc : load_read_metadata(load, err);
    rc = rc ? rc : load_look(load, err);
    if (rc && !err->code) {
        tqi_error_set(err, rc, "checkpoint %s cannot be read", load->path);
    }
}

static void load_allowed(tqi_client_task *task, tqi_net_answer *answer)
{
    load_task *load = (load_task *)task;

    if (answer->status != TQ_OK) {
        load_fail(load, answer->error);
    } else if (load_goes_on(load)) {
        load->sessions = load->task.rt->sessions;
        load_next_group(load);
    }
}

static void load_opened(void *arg)
{
    load_task *load = arg;
    Tq__RestorePart message;
    tq_error err = {0};

    if (!load_worked(load)) {
        return;
    }
    if (load->in.about.data && load->found.n > 0 &&
        tqi_client_runtime_check_manager(load->task.rt, "load", &err) != TQ_OK) {
        load_fail(load, &err);
        return;
    }
    load->at = load->found.first;
    atomic_store(&load->task.op->to_move, load->in.about.data ? load->found.bytes : 0);
    /* Done before hours of data transfer: a table that is too large is refused at once. */
    tq__restore_part__init(&message);
    message.total = load->in.state_size;
    message.ask = true;
    if (tqi_client_ckpt_call(&load->task, TQI_RESTORE_PART, &message.base, load_allowed, &err) != TQ_OK) {
        load_fail(load, &err);
    }
}

static void load_begin(tqi_client_task *task)
{
    tqi_client_ckpt_work(task, &((load_task *)task)->work_error, load_open, load_opened);
}

/* A commit is short, and its outcome must be known. */
static void load_cancel(tqi_client_task *task)
{
    load_task *load = (load_task *)task;
    tqi_client_runtime *rt = task->rt;

    if (task->call != NULL && !load->committing) {
        tqi_net_call_cancel(task->call);
    } else if (load->in_put && rt->manager->cancel != NULL) {
        rt->manager->cancel(rt->manager_state, &load->write.job);
    }
}

static const tqi_client_task_type load_type = {
    .size = sizeof(load_task),
    .begin = load_begin,
    .cancel = load_cancel,
    .fini = load_fini,
};

int tq_load(tq_op *op, const char *path)
{
    tq_error err = {0};
    int rc;
    load_task *load = (load_task *)tqi_client_ckpt_make(op, &load_type, &rc);

    if (load == NULL) {
        return rc;
    }
    if (path == NULL || !path[0]) {
        rc = tqi_error_set(&err, TQ_EINVAL, "checkpoint: no directory given");
    } else {
        load->path = tqi_region_string(&load->task.region, path);
        rc = load->path != NULL ? TQ_OK : tqi_error_nomem(&err, "a checkpoint");
    }
    return tqi_client_task_submit(op, &load->task, rc, &err);
}
