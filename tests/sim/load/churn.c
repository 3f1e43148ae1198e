/*
 * churn.c - batches that are cleared one sample at a time and overwritten in part, so that blocks become sparse and
 * units compact them, while the rest is read through metas of all ages.
 */
#include "load/steps.h"

#define CHURN_METAS 6  /* that are kept */
#define CHURN_ROWS  24 /* most of a put */

static const char *const churn_fields[] = {"prompt", "response", "mask", "hidden", "frames",
                                           "text",   "blob",     "any",  "tiny"};

typedef struct churn {
    load_call call;
    sim_chance *chance;
    load_meta metas[CHURN_METAS];
} churn;

static void churn_put(churn *now, load_meta *kept)
{
    const char *fields[4];
    const char *keys[CHURN_ROWS];
    load_put_args put = {.fields = fields, .size = (load_size)sim_below(now->chance, 3)};

    put.partition = load_partition(now->call.client, (uint32_t)sim_below(now->chance, 2));
    put.n = (uint32_t)sim_between(now->chance, 1, put.size == LOAD_LARGE ? 3 : CHURN_ROWS);
    put.n_fields = load_draw_names(now->chance, churn_fields, 9, (uint32_t)sim_between(now->chance, 1, 4), fields);
    put.fail_when_full = sim_one_in(now->chance, 4);
    if (sim_one_in(now->chance, 3)) {
        load_draw_keys(now->chance, 48, put.n, keys);
        put.keys = keys;
    }
    now->call.timeout = sim_one_in(now->chance, 2) ? load_draw_wait(now->chance) : 0;
    switch (load_finish(&now->call, load_put(&now->call, &put))) {
    case TQ_OK:
        load_meta_take(&now->call, kept);
        break;
    case TQ_EFULL:
        load_make_room(&now->call, put.partition);
        break;
    default:
        break;
    }
}

/* Clears one or a few samples from the middle of a batch. */
static void churn_clear(churn *now, const load_meta *meta)
{
    const uint32_t n = load_meta_count(meta);
    const uint32_t first = (uint32_t)sim_below(now->chance, n);
    const uint32_t most = n - first < 3 ? n - first : 3;
    load_meta part = {.meta = NULL};

    if (load_meta_part(meta, first, (uint32_t)sim_between(now->chance, 1, most), &part)) {
        if (sim_one_in(now->chance, 8)) {
            load_finish(&now->call, load_clear_indexes(&now->call, tq_meta_partition(part.meta),
                                                       tq_meta_indexes(part.meta), load_meta_count(&part)));
        } else {
            load_finish(&now->call, load_clear_meta(&now->call, &part));
        }
    }
    load_meta_drop(&part);
}

/* Writes one or more samples of a batch again: fields that they have, or others. */
static void churn_overwrite(churn *now, const load_meta *meta)
{
    const uint32_t n = load_meta_count(meta);
    const uint32_t first = (uint32_t)sim_below(now->chance, n);
    const char *fields[3];
    load_meta part = {.meta = NULL};
    load_put_args put = {.fields = fields, .meta = &part, .size = (load_size)sim_below(now->chance, 2)};

    put.n_fields = load_draw_names(now->chance, churn_fields, 9, (uint32_t)sim_between(now->chance, 1, 3), fields);
    if (load_meta_part(meta, first, (uint32_t)sim_between(now->chance, 1, n - first), &part) &&
        load_finish(&now->call, load_put(&now->call, &put)) == TQ_EFULL) {
        load_make_room(&now->call, tq_meta_partition(meta->meta));
    }
    load_meta_drop(&part);
}

/* Reads a part of a batch, of which samples may have been cleared: the rest is found again. */
static void churn_read(churn *now, load_meta *meta)
{
    const uint32_t n = load_meta_count(meta);
    const uint32_t first = (uint32_t)sim_below(now->chance, n);
    load_meta part = {.meta = NULL};

    if (load_meta_part(meta, first, (uint32_t)sim_between(now->chance, 1, n - first), &part) &&
        tq_meta_field_count(part.meta) > 0) {
        load_read(&now->call, &part, NULL, 0);
    }
    load_meta_drop(&part);
}

static void churn_resolve(churn *now, load_meta *kept)
{
    load_resolve_args resolve = {.lenient = sim_one_in(now->chance, 2), .tags = sim_one_in(now->chance, 2)};

    resolve.partition = load_partition(now->call.client, (uint32_t)sim_below(now->chance, 2));
    if (load_finish(&now->call, load_resolve(&now->call, &resolve)) == TQ_OK) {
        load_meta_take(&now->call, kept);
    }
}

static void churn_thread(load_thread *thread)
{
    churn now = {.chance = &thread->chance};

    load_call_init(&now.call, thread->client, thread->number, &thread->chance);
    while (load_next(&now.call)) {
        load_meta *kept = &now.metas[sim_below(now.chance, CHURN_METAS)];
        const uint64_t step = sim_below(now.chance, 16);

        if (kept->meta == NULL || load_meta_count(kept) == 0 || step < 2) {
            if (sim_one_in(now.chance, 4)) {
                churn_resolve(&now, kept);
            } else {
                churn_put(&now, kept);
            }
        } else if (step < 10) {
            churn_clear(&now, kept);
        } else if (step < 12) {
            churn_overwrite(&now, kept);
        } else if (step < 15) {
            churn_read(&now, kept);
        } else {
            load_look_around(&now.call, tq_meta_partition(kept->meta), "stream");
        }
    }
    for (uint32_t i = 0; i < CHURN_METAS; i++) {
        load_meta_drop(&now.metas[i]);
    }
    load_call_fini(&now.call);
}

static void churn_run(load_client *self)
{
    load_threads(self, (uint32_t)sim_between(&self->chance, 1, 2), churn_thread);
}

const load_kind load_churn = {.name = "churn", .run = churn_run, .shared = true};
