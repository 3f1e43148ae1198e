/*
 * stream.c - samples that are put one at a time, while many claims wait for them.
 */
#include "load/steps.h"

#define STREAM_THREADS 4

static const char *const stream_fields[] = {"prompt", "reward", "tiny", "blob"};

static void stream_put(load_call *call, const char *partition)
{
    const char *fields[4];
    const char *key;
    load_put_args put = {.partition = partition, .n = 1, .fields = fields, .size = LOAD_SMALL};

    put.n_fields = load_draw_names(call->chance, stream_fields, 4, (uint32_t)sim_between(call->chance, 2, 4), fields);
    if (sim_one_in(call->chance, 4)) {
        load_draw_keys(call->chance, 64, 1, &key);
        put.keys = &key;
    }
    if (sim_one_in(call->chance, 32)) {
        put.fail_when_full = true;
    }
    if (load_finish(call, load_put(call, &put)) == TQ_EFULL) {
        load_make_room(call, partition);
    }
}

static void stream_take(load_call *call, const char *partition, const char *task)
{
    const char *fields[2];
    load_claim_args claim = {.partition = partition, .task = task, .fields = fields};
    load_meta meta = {.meta = NULL};

    claim.n_fields = load_draw_names(call->chance, stream_fields, 3, (uint32_t)sim_between(call->chance, 1, 2), fields);
    claim.batch = (uint32_t)sim_between(call->chance, 1, 3);
    claim.poll = sim_one_in(call->chance, 8);
    claim.tags = sim_one_in(call->chance, 4);
    claim.force = sim_one_in(call->chance, 16);
    call->timeout = load_draw_wait(call->chance);
    if (load_finish(call, load_claim(call, &claim)) == TQ_OK) {
        call->timeout = 0;
        load_meta_take(call, &meta);
        if (load_meta_count(&meta) > 0 && (!claim.force || tq_meta_find_field(meta.meta, fields[0]) != NULL)) {
            load_read(call, &meta, claim.force ? fields : NULL, claim.force ? 1 : 0);
        }
        if (sim_one_in(call->chance, 2) && !claim.force) {
            load_finish(call, load_clear_meta(call, &meta));
        }
    }
    load_meta_drop(&meta);
}

static void stream_thread(load_thread *thread)
{
    static const char *const tasks[] = {"stream", "audit"};
    load_call call;

    load_call_init(&call, thread->client, thread->number, &thread->chance);
    while (load_next(&call)) {
        const char *partition = load_partition(thread->client, (uint32_t)sim_below(call.chance, 4) == 0);
        const char *task = tasks[sim_below(call.chance, 2)];

        switch (sim_below(call.chance, 12)) {
        case 0:
            load_look_around(&call, partition, task);
            break;
        case 1:
        case 2:
        case 3:
        case 4:
            stream_take(&call, partition, task);
            break;
        default:
            stream_put(&call, partition);
            break;
        }
    }
    load_call_fini(&call);
}

static void stream_run(load_client *self)
{
    load_threads(self, (uint32_t)sim_between(&self->chance, 1, STREAM_THREADS), stream_thread);
}

const load_kind load_stream = {.name = "stream", .run = stream_run, .shared = true};
