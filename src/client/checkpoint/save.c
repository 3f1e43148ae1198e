/*
 * save.c - saving a checkpoint: a snapshot at the controller, its blocks through the storage manager, both into files.
 *
 *   files made -> SNAPSHOT -> [SNAPSHOT_READ, part written]* -> [blocks read, written]* -> SNAPSHOT_CLOSE -> files
 *   placed
 *
 * The blocks of the snapshot stay in place until it is closed, whatever is cleared or overwritten meanwhile. There are
 * two buffers: one is written while the other is read into.
 */
#include "client/checkpoint/checkpoint.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "base/sized.h"
#include "base/text.h"
#include "client/args.h"

#define SAVE_BUFFER (UINT64_C(8) << 20)
#define SAVE_RANGES 1024u

/* Bytes in transit from the store to the file. */
typedef struct save_buffer {
    uint8_t *bytes;
    size_t size;
    bool full; /* read, not written yet */
} save_buffer;

typedef struct save_task {
    tqi_client_task task;
    tqi_client_get_job read;
    tq_block blocks[SAVE_RANGES];
    tq_get_range ranges[SAVE_RANGES];
    tqi_client_ckpt_blocks found;
    const tqi_client_ckpt_block *at; /* the next block to read */
    uint64_t at_byte;                /* of it */
    save_buffer buffers[2];
    unsigned reading; /* which buffer */
    bool in_get;
    bool in_work;
    char *path;
    char *partition;
    char *metadata; /* the file */
    const char *user_metadata;
    bool state_only;
    uint64_t snapshot; /* 0: none open */
    tqi_client_ckpt_kept kept;
    uint32_t n_lost; /* blocks that are gone */
    const char *lost_owner;
    uint32_t part;
    uint64_t partitions;
    Tq__SnapshotReadReply *reply; /* its part is being written */
    tqi_client_ckpt_about about;
    tqi_client_ckpt_out out;
    tq_error work_error;
    tq_error error; /* why it fails */
} save_task;

static void save_pump(save_task *save);
static void save_fail(save_task *save, const tq_error *err);

static void save_fini(tqi_client_task *task)
{
    save_task *save = (save_task *)task;

    tqi_client_ckpt_blocks_fini(&save->found);
    free(save->buffers[0].bytes);
    free(save->buffers[1].bytes);
    if (save->reply != NULL) {
        tq__snapshot_read_reply__free_unpacked(save->reply, NULL);
    }
}

/* --- the end -------------------------------------------------------------- */

static void save_finish(save_task *save)
{
    const tq_error *err = save->error.code ? &save->error : NULL;
    tq_checkpoint result = {
        .samples = save->about.samples,
        .partitions = save->partitions,
        .blocks = save->found.n,
        .bytes = save->state_only ? 0 : save->found.bytes,
        .storage_saved = !save->state_only,
    };

    if (err == NULL && tqi_client_ckpt_result(save->task.op, &result, save->user_metadata, &save->error) != TQ_OK) {
        err = &save->error;
    }
    tqi_client_task_finish(&save->task, err);
}

static void save_closed(tqi_client_task *task, tqi_net_answer *answer)
{
    (void)answer; /* if it failed, the snapshot goes with the session */
    save_finish((save_task *)task);
}

/* The files are in place or gone: only the snapshot is left. */
static void save_close(save_task *save)
{
    Tq__SnapshotClose message;

    tq__snapshot_close__init(&message);
    message.id = save->snapshot;
    tqi_client_ckpt_keep_end(&save->kept);
    save->snapshot = 0;
    if (message.id == 0 ||
        tqi_client_ckpt_call(&save->task, TQI_SNAPSHOT_CLOSE, &message.base, save_closed, NULL) != TQ_OK) {
        save_finish(save);
    }
}

/* Like tqi_client_ckpt_work; completion of the read waits for it. */
static void save_work(save_task *save, void (*work)(void *arg), void (*done)(void *arg))
{
    save->in_work = true;
    tqi_client_ckpt_work(&save->task, &save->work_error, work, done);
}

static void save_work_drop(void *arg)
{
    tqi_client_ckpt_out_fini(&((save_task *)arg)->out);
}

static void save_dropped(void *arg)
{
    save_task *save = arg;

    save->in_work = false;
    save_close(save);
}

/* Fails the save once none of its steps is in progress. */
static void save_fail(save_task *save, const tq_error *err)
{
    if (!save->error.code) {
        save->error = *err;
    }
    if (!save->in_get && !save->in_work) {
        save_work(save, save_work_drop, save_dropped);
    }
}

/* Whether it may take its next step; otherwise the save fails. */
static bool save_goes_on(save_task *save)
{
    tq_error err = {0};

    if (save->error.code) {
        save_fail(save, &save->error);
        return false;
    }
    if (tqi_client_ckpt_go_on(&save->task, &err) != TQ_OK) {
        save_fail(save, &err);
        return false;
    }
    return true;
}

static bool save_worked(save_task *save)
{
    save->in_work = false;
    if (save->work_error.code) {
        save_fail(save, &save->work_error);
        return false;
    }
    return save_goes_on(save);
}

static void save_work_commit(void *arg)
{
    save_task *save = arg;

    tqi_client_ckpt_out_commit(&save->out, &save->about, save->metadata, &save->work_error);
    tqi_client_ckpt_out_fini(&save->out);
}

static void save_committed(void *arg)
{
    save_task *save = arg;

    save->in_work = false;
    save->error = save->work_error;
    save_close(save);
}

/* --- blocks --------------------------------------------------------------- */

static void save_work_write(void *arg)
{
    save_task *save = arg;
    save_buffer *buffer = &save->buffers[!save->reading];

    if (tqi_client_ckpt_write(&save->out.data, buffer->bytes, buffer->size, &save->work_error) == TQ_OK &&
        save->task.op != NULL) {
        atomic_fetch_add(&save->task.op->moved, buffer->size);
    }
}

static void save_written(void *arg)
{
    save_task *save = arg;

    save->buffers[!save->reading].full = false;
    if (save_worked(save)) {
        save_pump(save);
    }
}

/* Either the snapshot still exists, so its blocks are gone for another reason, or it does not, and the controller says
 * why. */
static void save_why_lost(tqi_client_task *task, tqi_net_answer *answer)
{
    save_task *save = (save_task *)task;
    tq_error err = {0};

    save->in_get = false;
    if (tqi_client_ckpt_go_on(task, &err) == TQ_OK) {
        tqi_error_set(&err, TQ_ELOST, "checkpoint: %u block%s of storage '%s' %s not there any more%s%s", save->n_lost,
                      tqi_text_s(save->n_lost), save->lost_owner, save->n_lost == 1 ? "is" : "are",
                      answer->status ? ": " : "", answer->status ? answer->error->message : "");
    }
    save_fail(save, &err);
}

/* Asks the controller for the reason; until it answers, nothing else ends the task. */
static void save_lost(save_task *save, uint32_t n, const char *owner)
{
    Tq__SnapshotRead message;
    tq_error err = {0};

    save->n_lost = n;
    save->lost_owner = owner;
    save->in_get = true;
    tq__snapshot_read__init(&message);
    message.id = save->snapshot;
    message.keep = true;
    if (tqi_client_ckpt_call(&save->task, TQI_SNAPSHOT_READ, &message.base, save_why_lost, &err) != TQ_OK) {
        save->in_get = false;
        save_fail(save, &err);
    }
}

static void save_got(tqi_client_task *task, const tq_error *err, const uint32_t *gone, uint32_t n_gone)
{
    save_task *save = (save_task *)task;

    save->in_get = false;
    if (err != NULL && err->code) {
        save_fail(save, err);
    } else if (n_gone > 0) {
        if (save_goes_on(save)) {
            save_lost(save, n_gone, save->blocks[gone[0]].owner);
        }
    } else {
        save->buffers[save->reading].full = true;
        if (save_goes_on(save)) {
            save_pump(save);
        }
    }
}

/* Fills the job with as many bytes as fit into the buffer; false if none are left. */
static bool save_plan(save_task *save, save_buffer *buffer)
{
    uint32_t n_blocks = 0;
    uint32_t n = 0;

    buffer->size = 0;
    while (save->at != NULL && n < SAVE_RANGES && buffer->size < SAVE_BUFFER) {
        uint64_t left = save->at->from.size - save->at_byte;
        uint64_t room = SAVE_BUFFER - buffer->size;
        uint64_t size = left < room ? left : room;
        if (size > 0) {
            save->blocks[n_blocks] = save->at->from;
            save->ranges[n++] = (tq_get_range){
                .block = n_blocks++,
                .offset = save->at_byte,
                .size = size,
                .dest = buffer->bytes + buffer->size,
            };
        }
        buffer->size += size;
        save->at_byte += size;
        if (save->at_byte == save->at->from.size) {
            save->at = save->at->next;
            save->at_byte = 0;
        }
    }
    save->read.job = (tq_get_job){
        .blocks = save->blocks,
        .n_blocks = n_blocks,
        .ranges = save->ranges,
        .n_ranges = n,
        .deadline_ns = tqi_client_ckpt_step_deadline(&save->task),
    };
    return n > 0;
}

static void save_read(save_task *save)
{
    tqi_client_runtime *rt = save->task.rt;

    save->read.task = &save->task;
    save->read.got = save_got;
    save->in_get = true;
    rt->manager->get(rt->manager_state, &save->read.job);
}

/* Keeps one buffer being written and the other being read into. A step may already have finished, and freed the task,
 * when the call that starts it returns: so starting one is the last thing done here. */
static void save_pump(save_task *save)
{
    bool write = !save->in_work && !save->in_get && save->buffers[save->reading].full;

    if (write) {
        save->reading = !save->reading;
        save->in_work = true; /* set now, so that completion of the read waits for it */
    }
    if (!save->in_get && !save->buffers[save->reading].full) {
        if (save_plan(save, &save->buffers[save->reading])) {
            save_read(save);
        } else if (!save->in_work) {
            save_work(save, save_work_commit, save_committed);
        }
    }
    if (write) {
        save_work(save, save_work_write, save_written);
    }
}

static void save_begin_blocks(save_task *save)
{
    tq_error err = {0};

    save->at = save->state_only ? NULL : save->found.first;
    if (save->at != NULL && save->found.bytes > 0 &&
        tqi_client_runtime_check_manager(save->task.rt, "save", &err) != TQ_OK) {
        save_fail(save, &err);
        return;
    }
    for (int i = 0; i < 2 && save->at != NULL; i++) {
        save->buffers[i].bytes = malloc(SAVE_BUFFER);
        if (save->buffers[i].bytes == NULL) {
            tqi_error_nomem(&err, "a checkpoint");
            save_fail(save, &err);
            return;
        }
    }
    atomic_store(&save->task.op->to_move, save->state_only ? 0 : save->found.bytes);
    save_pump(save);
}

/* --- state ---------------------------------------------------------------- */

static void save_next_part(save_task *save);

static void save_work_part(void *arg)
{
    save_task *save = arg;

    tqi_client_ckpt_write_part(&save->out.state, save->reply->part.data, save->reply->part.len, &save->work_error);
}

static void save_part_written(void *arg)
{
    save_task *save = arg;

    tq__snapshot_read_reply__free_unpacked(save->reply, NULL);
    save->reply = NULL;
    if (save_worked(save)) {
        save->part++;
        save_next_part(save);
    }
}

/* Notes the blocks of a part. */
static int save_look(save_task *save, const ProtobufCBinaryData *bytes, tq_error *err)
{
    Tq__SnapshotPart *part =
        (Tq__SnapshotPart *)tqi_message_decode(&tq__snapshot_part__descriptor, bytes->data, bytes->len, err);
    int rc;

    if (part == NULL) {
        return err->code;
    }
    save->partitions += part->partition != NULL;
    rc = tqi_client_ckpt_collect(&save->found, part, save->partitions, err);
    tq__snapshot_part__free_unpacked(part, NULL);
    return rc;
}

static void save_part_read(tqi_client_task *task, tqi_net_answer *answer)
{
    save_task *save = (save_task *)task;
    const Tq__SnapshotReadReply *reply = (const Tq__SnapshotReadReply *)answer->reply;
    tq_error err = {0};

    if (answer->status != TQ_OK) {
        save_fail(save, answer->error);
        return;
    }
    if (save_look(save, &reply->part, &err) != TQ_OK) {
        save_fail(save, &err);
        return;
    }
    save->reply = malloc(sizeof(*save->reply));
    if (save->reply != NULL) {
        tq__snapshot_read_reply__init(save->reply);
        save->reply->part.data = malloc(reply->part.len ? reply->part.len : 1);
    }
    if (save->reply == NULL || save->reply->part.data == NULL) {
        tqi_error_nomem(&err, "a checkpoint");
        save_fail(save, &err);
        return;
    }
    save->reply->part.len = reply->part.len;
    memcpy(save->reply->part.data, reply->part.data, reply->part.len);
    save_work(save, save_work_part, save_part_written);
}

static void save_next_part(save_task *save)
{
    Tq__SnapshotRead message;
    tq_error err = {0};

    if (save->part == save->about.parts) {
        save_begin_blocks(save);
        return;
    }
    tq__snapshot_read__init(&message);
    message.id = save->snapshot;
    message.part = save->part;
    if (tqi_client_ckpt_call(&save->task, TQI_SNAPSHOT_READ, &message.base, save_part_read, &err)) {
        save_fail(save, &err);
    }
}

static void save_taken(tqi_client_task *task, tqi_net_answer *answer)
{
    save_task *save = (save_task *)task;
    const Tq__SnapshotReply *reply = (const Tq__SnapshotReply *)answer->reply;

    if (answer->status != TQ_OK) {
        save_fail(save, answer->error);
        return;
    }
    save->snapshot = reply->id;
    tqi_client_ckpt_keep_begin(&save->kept, save->task.rt, save->snapshot);
    save->about.parts = reply->parts;
    save->about.samples = reply->samples;
    save->about.epoch = reply->epoch;
    if (save_goes_on(save)) {
        save_next_part(save);
    }
}

static void save_work_open(void *arg)
{
    save_task *save = arg;

    tqi_client_ckpt_out_open(&save->out, save->path, !save->state_only, &save->work_error);
}

static void save_orphan_closed(tqi_net_call *call, tqi_net_answer *answer, void *arg)
{
    (void)call;
    (void)answer; /* if it failed, the session is gone, and with it the snapshot */
    (void)arg;
}

/* The snapshot was taken after the call had ended: nobody will read it. */
static bool save_orphan(tqi_net_channel *channel, const ProtobufCMessage *reply, void *arg)
{
    Tq__SnapshotClose message;
    tqi_net_call_args args = {
        .kind = TQI_SNAPSHOT_CLOSE,
        .message = &message.base,
        .deadline = TQI_NEVER,
        .done = save_orphan_closed,
    };
    tqi_net_call *call;

    (void)arg;
    tq__snapshot_close__init(&message);
    message.id = ((const Tq__SnapshotReply *)reply)->id;
    return tqi_net_call_start(channel, &args, &call, NULL) == TQ_OK;
}

static void save_orphan_free(void *arg)
{
    (void)arg;
}

static void save_opened(void *arg)
{
    save_task *save = arg;
    Tq__Snapshot message;
    tq_error err = {0};

    if (!save_worked(save)) {
        return;
    }
    tq__snapshot__init(&message);
    message.partition = save->partition != NULL ? save->partition : message.partition;
    message.data_stays = save->state_only;
    save->about.partial = save->partition != NULL;
    save->about.data = !save->state_only;
    tqi_net_call_args args = {
        .kind = TQI_SNAPSHOT,
        .message = &message.base,
        .deadline = tqi_client_ckpt_step_deadline(&save->task),
        .orphan = save_orphan,
        .orphan_free = save_orphan_free,
    };
    if (tqi_client_task_call_args(&save->task, &args, save_taken, &err) != TQ_OK) {
        save_fail(save, &err);
    }
}

static void save_begin(tqi_client_task *task)
{
    save_work((save_task *)task, save_work_open, save_opened);
}

static void save_cancel(tqi_client_task *task)
{
    if (task->call != NULL) {
        tqi_net_call_cancel(task->call);
    }
}

static const tqi_client_task_type save_type = {
    .size = sizeof(save_task),
    .begin = save_begin,
    .cancel = save_cancel,
    .fini = save_fini,
};

/* The user's metadata must be a JSON object; it is written unchanged. */
static int save_prepare_metadata(save_task *save, const char *metadata, tq_error *err)
{
    tqi_region *region = &save->task.region;
    const char *text = metadata != NULL ? metadata : "{}";
    json_error_t bad;
    json_t *parsed = json_loads(text, JSON_REJECT_DUPLICATES, &bad);
    bool object = json_is_object(parsed);
    size_t size = strlen(text) + 64;

    json_decref(parsed);
    if (!object) {
        return tqi_error_set(err, TQ_EINVAL, "metadata of a checkpoint: expected a JSON object%s%s",
                             parsed != NULL ? "" : ": ", parsed != NULL ? "" : bad.text);
    }
    save->user_metadata = tqi_region_string(region, text);
    save->metadata = tqi_region_array(region, size, 1);
    if (save->user_metadata == NULL || save->metadata == NULL) {
        return tqi_error_nomem(err, "a checkpoint");
    }
    (void)snprintf(save->metadata, size, "{\"storage_saved\": %s, \"user_metadata\": %s}\n",
                   save->state_only ? "false" : "true", text);
    return TQ_OK;
}

TQI_SIZED_ENDS_WITH(tq_save_args, metadata);

int tq_save(tq_op *op, const tq_save_args *given)
{
    tq_save_args args;
    tq_error err = {0};
    int rc;
    save_task *save = (save_task *)tqi_client_ckpt_make(op, &save_type, &rc);

    if (save == NULL) {
        return rc;
    }
    save->out.dir = -1;
    rc = TQI_SIZED_ARGS("tq_save", tq_save_args, given, &args, &err);
    if (rc != TQ_OK) {
        return tqi_client_task_submit(op, &save->task, rc, &err);
    }
    save->state_only = args.state_only;
    if (args.path == NULL || !args.path[0]) {
        rc = tqi_error_set(&err, TQ_EINVAL, "checkpoint: no directory given");
    } else {
        save->path = tqi_region_string(&save->task.region, args.path);
        rc = save->path != NULL ? TQ_OK : tqi_error_nomem(&err, "a checkpoint");
    }
    if (rc == TQ_OK && args.partition != NULL) {
        rc = tqi_client_copy_name(&save->task.region, "partition", args.partition, &save->partition, &err);
    }
    rc = rc ? rc : save_prepare_metadata(save, args.metadata, &err);
    return tqi_client_task_submit(op, &save->task, rc, &err);
}
