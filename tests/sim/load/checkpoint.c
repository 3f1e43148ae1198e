/*
 * checkpoint.c - partitions are saved and loaded beside all other traffic, in them and in others.
 *
 * One thread of a client saves and loads, the others put, claim, read and clear. What a load must find, and what is
 * then in the table, is checked by oracle/saved.c. A second kind saves and loads whole tables; its seeds have no other
 * clients.
 */
#include "load/steps.h"
#include "oracle/saved.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define CHECKPOINT_THREADS 3

static const char *const checkpoint_fields[] = {"prompt", "reward", "tiny", "blob"};
static const char *const checkpoint_tasks[] = {"train", "score"};

/* --- saving and loading ---------------------------------------------------------- */

/* Its steps have deadlines, but their number depends on the amount of data, and a call of the file system on the disk. */
static void checkpoint_timeout(load_call *call, history_op *op)
{
    op->seconds = -1;
    (void)call;
}

static int checkpoint_save(load_call *call, const char *partition, const char *path, bool state_only)
{
    history_op *op = load_begin(call, HISTORY_SAVE, partition);
    tq_save_args args = tq_save_args_init();
    char metadata[64];
    int rc;

    if (op == NULL) {
        return TQ_ENOMEM;
    }
    checkpoint_timeout(call, op);
    op->path = history_text(path);
    op->flag = state_only;
    snprintf(metadata, sizeof(metadata), "{\"save\": %" PRIu64 "}", op->number);
    args.path = op->path;
    args.partition = partition;
    args.state_only = state_only;
    args.metadata = metadata;
    saved_save_begins(op);
    rc = load_finish(call, load_started(call, tq_save(call->op, &args)));
    saved_save_ended(op);
    if (rc == TQ_OK) {
        uint64_t partitions, samples;
        const tq_checkpoint *saved = tq_op_checkpoint(call->op);
        sim_check(saved_count(op->number, &partitions, &samples) && saved->partitions == partitions &&
                      saved->samples == samples && strcmp(saved->metadata, metadata) == 0 &&
                      saved->storage_saved == !state_only,
                  "a checkpoint is what was saved",
                  "op %" PRIu64 " says that it saved %" PRIu64 " samples of %" PRIu64 " partitions, with %s",
                  op->number, saved->samples, saved->partitions, saved->metadata);
        sim_mark("checkpoint saved");
    }
    return rc;
}

static int checkpoint_load(load_call *call, const char *path)
{
    history_op *op = load_begin(call, HISTORY_LOAD, NULL);
    int rc;

    if (op == NULL) {
        return TQ_ENOMEM;
    }
    checkpoint_timeout(call, op);
    op->path = history_text(path);
    saved_load_begins(op);
    rc = load_finish(call, load_started(call, tq_load(call->op, op->path)));
    saved_load_ended(op);
    if (rc == TQ_OK) {
        uint64_t partitions, samples;
        const tq_checkpoint *loaded = tq_op_checkpoint(call->op);
        sim_check(saved_count(saved_opened(op->number), &partitions, &samples) && loaded->partitions == partitions &&
                      loaded->samples == samples,
                  "a checkpoint is what was saved",
                  "op %" PRIu64 " says that it loaded %" PRIu64 " samples of %" PRIu64 " partitions, not %" PRIu64
                  " of %" PRIu64,
                  op->number, loaded->samples, loaded->partitions, samples, partitions);
    }
    return rc;
}

/* Everything that is there can be read. */
static void checkpoint_read(load_call *call, const char *partition)
{
    load_resolve_args resolve = {.partition = partition, .tags = sim_one_in(call->chance, 2)};
    load_meta meta = {.meta = NULL};

    if (load_finish(call, load_resolve(call, &resolve)) == TQ_OK) {
        load_meta_take(call, &meta);
        for (size_t f = 0; load_meta_count(&meta) > 0 && f < tq_meta_field_count(meta.meta); f++) {
            const char *field = tq_meta_field_at(meta.meta, f)->name;
            load_read(call, &meta, &field, 1);
        }
    }
    load_meta_drop(&meta);
}

static const char *checkpoint_path(load_call *call, const char *partition, bool state_only)
{
    char path[128];

    snprintf(path, sizeof(path), SIM_ROOT "/saved/%s%s%s", state_only ? "table/" : "",
             sim_one_in(call->chance, 4) ? "run/last/" : "", partition != NULL ? partition : "all");
    return history_text(path);
}

static void checkpoint_step(load_call *call, const char *partition)
{
    bool state_only = sim_one_in(call->chance, 6);
    const char *path = checkpoint_path(call, partition, state_only);

    if (sim_one_in(call->chance, 8)) {
        call->timeout = (double)sim_between(call->chance, 10, 20000) / 1e3;
    }
    if (sim_one_in(call->chance, 2)) {
        checkpoint_save(call, partition, path, state_only);
        return;
    }
    switch (checkpoint_load(call, path)) {
    case TQ_OK:
        call->timeout = 0;
        checkpoint_read(call, partition != NULL ? partition : load_partition(call->client, 0));
        break;
    case TQ_EFULL:
        call->timeout = 0;
        load_make_room(call, partition != NULL ? partition : load_partition(call->client, 0));
        break;
    default:
        break;
    }
}

/* --- other traffic ----------------------------------------------------------------- */

static void checkpoint_put(load_call *call, const char *partition)
{
    const char *fields[4];
    const char *keys[3];
    const char *groups[3];
    load_put_args put = {.partition = partition, .fields = fields, .size = LOAD_SMALL};

    put.n = (uint32_t)sim_between(call->chance, 1, 3);
    put.lengths = sim_one_in(call->chance, 4);
    put.n_fields =
        load_draw_names(call->chance, checkpoint_fields, 4, (uint32_t)sim_between(call->chance, 1, 4), fields);
    if (sim_one_in(call->chance, 2)) {
        load_draw_keys(call->chance, 12, put.n, keys);
        put.keys = keys;
    } else if (sim_one_in(call->chance, 2)) {
        load_draw_keys(call->chance, 4, 1, groups);
        groups[1] = groups[0];
        groups[2] = groups[0];
        put.groups = groups;
    }
    put.fail_when_full = sim_one_in(call->chance, 16);
    if (load_finish(call, load_put(call, &put)) == TQ_EFULL) {
        load_make_room(call, partition);
    }
}

static void checkpoint_take(load_call *call, const char *partition)
{
    load_claim_args claim = {.partition = partition, .fields = checkpoint_fields, .n_fields = 1};
    load_meta meta = {.meta = NULL};

    claim.task = checkpoint_tasks[sim_below(call->chance, 2)];
    claim.batch = (uint32_t)sim_between(call->chance, 1, 4);
    claim.poll = sim_one_in(call->chance, 4);
    call->timeout = load_draw_wait(call->chance);
    if (load_finish(call, load_claim(call, &claim)) == TQ_OK) {
        call->timeout = 0;
        load_meta_take(call, &meta);
        if (load_meta_count(&meta) > 0) {
            load_read(call, &meta, checkpoint_fields, 1);
            if (sim_one_in(call->chance, 3)) {
                load_finish(call, load_clear_meta(call, &meta));
            }
        }
    }
    load_meta_drop(&meta);
}

static void checkpoint_use(load_call *call, const char *partition)
{
    switch (sim_below(call->chance, 12)) {
    case 0:
        load_look_around(call, partition, checkpoint_tasks[0]);
        break;
    case 1:
        load_finish(call, load_reset(call, partition, checkpoint_tasks[sim_below(call->chance, 2)]));
        break;
    case 2:
        if (sim_one_in(call->chance, 4)) {
            load_finish(call, load_clear_partition(call, partition));
            break;
        }
        load_make_room(call, partition);
        break;
    case 3:
    case 4:
    case 5:
    case 6:
        checkpoint_take(call, partition);
        break;
    default:
        checkpoint_put(call, partition);
        break;
    }
}

/* --- the kinds ------------------------------------------------------------------------ */

static void checkpoint_thread(load_thread *thread, bool whole)
{
    load_call call;

    load_call_init(&call, thread->client, thread->number, &thread->chance);
    while (load_next(&call)) {
        const char *partition = load_partition(thread->client, (uint32_t)sim_below(call.chance, 3) == 0);

        if (thread->number > 0 || sim_one_in(call.chance, 3)) {
            checkpoint_use(&call, partition);
        } else if (whole) {
            checkpoint_step(&call, sim_one_in(call.chance, 3) ? partition : NULL);
        } else if (sim_one_in(call.chance, 12)) {
            checkpoint_save(&call, NULL, checkpoint_path(&call, NULL, false), false); /* never loaded */
        } else {
            checkpoint_step(&call, partition);
        }
    }
    load_call_fini(&call);
}

static void checkpoint_thread_partial(load_thread *thread)
{
    checkpoint_thread(thread, false);
}

static void checkpoint_thread_whole(load_thread *thread)
{
    checkpoint_thread(thread, true);
}

static void checkpoint_run(load_client *self)
{
    saved_client_starts(self->number);
    load_threads(self, (uint32_t)sim_between(&self->chance, 1, CHECKPOINT_THREADS), checkpoint_thread_partial);
}

static void checkpoint_run_whole(load_client *self)
{
    saved_client_starts(self->number);
    load_threads(self, (uint32_t)sim_between(&self->chance, 1, CHECKPOINT_THREADS), checkpoint_thread_whole);
}

const load_kind load_checkpoint = {.name = "checkpoint", .run = checkpoint_run, .needs = "disk"};
const load_kind load_checkpoint_whole = {
    .name = "checkpoint-whole",
    .run = checkpoint_run_whole,
    .needs = "disk",
    .alone = true,
};
