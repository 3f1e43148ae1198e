/*
 * kvstore.c - batches of all sizes in a key-value store: several puts at once, which find no room, are cancelled, are
 * answered late or never, or are still on their way when their client is killed; overwrites and clears, so that the
 * collectors always have something to remove; clients that close and come back.
 */
#include "load/steps.h"

#define KVSTORE_CALLS 4
#define KVSTORE_METAS 4

static const char *const kvstore_fields[] = {"prompt", "response", "frames", "text", "blob", "page", "tiny"};
#define KVSTORE_FIELDS (sizeof(kvstore_fields) / sizeof(kvstore_fields[0]))

typedef struct kvstore {
    load_client *self;
    sim_chance *chance;
    load_call calls[KVSTORE_CALLS];
    load_meta metas[KVSTORE_METAS];
} kvstore;

static int kvstore_start_put(kvstore *now, load_call *call, const load_meta *meta)
{
    const char *fields[3];
    const char *keys[8];
    load_put_args put = {.fields = fields, .size = (load_size)sim_below(now->chance, 3)};

    put.partition = load_partition(now->self, (uint32_t)sim_below(now->chance, 2));
    put.n = (uint32_t)sim_between(now->chance, 1, 8);
    put.n_fields =
        load_draw_names(now->chance, kvstore_fields, KVSTORE_FIELDS, (uint32_t)sim_between(now->chance, 1, 3), fields);
    put.fail_when_full = sim_one_in(now->chance, 4);
    if (meta != NULL) {
        put.meta = meta;
    } else if (sim_one_in(now->chance, 2)) {
        load_draw_keys(now->chance, 32, put.n, keys);
        put.keys = keys;
    }
    call->timeout = sim_one_in(now->chance, 2) ? load_draw_wait(now->chance) : 0;
    return load_put(call, &put);
}

static load_meta *kvstore_meta(kvstore *now)
{
    return &now->metas[sim_below(now->chance, KVSTORE_METAS)];
}

/* Several puts at once; sometimes the client is killed while they are on their way, or frees one of them. */
static void kvstore_puts(kvstore *now)
{
    uint32_t n = (uint32_t)sim_between(now->chance, 1, KVSTORE_CALLS);
    int started[KVSTORE_CALLS] = {0};

    for (uint32_t i = 0; i < n; i++) {
        const load_meta *meta = sim_one_in(now->chance, 3) ? kvstore_meta(now) : NULL;
        started[i] = kvstore_start_put(now, &now->calls[i], meta != NULL && meta->meta != NULL ? meta : NULL);
    }
    if (sim_happens(SIM_KILL_EVENT)) {
        load_pause(now->chance, 5 * SIM_MS);
        sim_process_kill(sim_self);
    }
    if (started[0] == TQ_OK && sim_happens(SIM_LOAD_CANCEL)) {
        load_pause(now->chance, 5 * SIM_MS);
        load_free_running(&now->calls[0]);
        started[0] = TQ_ECANCELED;
    }
    for (uint32_t i = 0; i < n; i++) {
        if (load_finish(&now->calls[i], started[i]) == TQ_OK) {
            load_meta_take(&now->calls[i], kvstore_meta(now));
        }
    }
}

static void kvstore_read(kvstore *now, const load_meta *meta)
{
    const uint32_t n = load_meta_count(meta);
    const uint32_t first = (uint32_t)sim_below(now->chance, n);
    load_meta part = {.meta = NULL};

    if (load_meta_part(meta, first, (uint32_t)sim_between(now->chance, 1, n - first), &part) &&
        tq_meta_field_count(part.meta) > 0) {
        load_read(&now->calls[0], &part, NULL, 0);
    }
    load_meta_drop(&part);
}

static void kvstore_clear(kvstore *now, load_meta *meta)
{
    const uint32_t n = load_meta_count(meta);
    load_meta part = {.meta = NULL};

    if (sim_one_in(now->chance, 2)) {
        load_finish(&now->calls[0], load_clear_meta(&now->calls[0], meta));
        load_meta_drop(meta);
    } else if (load_meta_part(meta, (uint32_t)sim_below(now->chance, n), 1, &part)) {
        load_finish(&now->calls[0], load_clear_meta(&now->calls[0], &part));
    }
    load_meta_drop(&part);
}

/* The client is closed with puts in flight, and comes back. */
static void kvstore_reopen(kvstore *now)
{
    int started = kvstore_start_put(now, &now->calls[0], NULL);
    int rc = TQ_OK;

    load_pause(now->chance, 2 * SIM_MS);
    if (started == TQ_OK && !load_poll(&now->calls[0], &rc)) {
        load_free_running(&now->calls[0]);
    }
    for (uint32_t i = 0; i < KVSTORE_CALLS; i++) {
        load_call_fini(&now->calls[i]);
    }
    load_reopen(now->self);
    for (uint32_t i = 0; i < KVSTORE_CALLS; i++) {
        load_call_init(&now->calls[i], now->self, i, now->chance);
    }
}

static void kvstore_step(kvstore *now)
{
    load_meta *meta = kvstore_meta(now);
    const uint64_t step = sim_below(now->chance, 16);

    if (meta->meta == NULL || step < 6) {
        kvstore_puts(now);
    } else if (step < 10) {
        kvstore_read(now, meta);
    } else if (step < 14) {
        kvstore_clear(now, meta);
    } else if (step == 14 && sim_one_in(now->chance, 6)) {
        kvstore_reopen(now);
    } else {
        load_look_around(&now->calls[0], load_partition(now->self, (uint32_t)sim_below(now->chance, 2)), "kvstore");
    }
}

static void kvstore_run(load_client *self)
{
    kvstore now = {.self = self, .chance = &self->chance};

    for (uint32_t i = 0; i < KVSTORE_CALLS; i++) {
        load_call_init(&now.calls[i], self, i, &self->chance);
    }
    while (load_next(&now.calls[0])) {
        kvstore_step(&now);
    }
    for (uint32_t i = 0; i < KVSTORE_CALLS; i++) {
        load_call_fini(&now.calls[i]);
    }
    for (uint32_t i = 0; i < KVSTORE_METAS; i++) {
        load_meta_drop(&now.metas[i]);
    }
}

const load_kind load_kvstore = {.name = "kvstore", .run = kvstore_run, .needs = "kv"};
