/*
 * grpo.c - what a trainer by GRPO does: groups of samples of one prompt, stages that add columns, claims of whole
 * groups and of ranks, and a clear at the end of a step.
 *
 * Each client plays all parts, one at a time, so that any order of any of them happens.
 */
#include "load/steps.h"

#include <stdio.h>
#include <stdlib.h>

#define GRPO_GROUPS 3  /* most of a put */
#define GRPO_ROWS   16 /* most of a put */

typedef struct grpo {
    load_call call;
    sim_chance *chance;
    const char *partition;
    uint32_t size; /* of a group */
} grpo;

static void grpo_produce(grpo *now)
{
    static const char *const fields[] = {"prompt", "hidden", "text"};
    const uint32_t groups = (uint32_t)sim_between(now->chance, 1, GRPO_GROUPS);
    const char *names[GRPO_ROWS] = {NULL};
    load_put_args put = {.partition = now->partition, .fields = fields, .lengths = true, .size = LOAD_USUAL};
    const bool named = sim_one_in(now->chance, 2);
    char name[48];

    put.n = groups * now->size;
    put.n_fields = (uint32_t)sim_between(now->chance, 1, 3);
    for (uint32_t i = 0; i < groups && named; i++) {
        snprintf(name, sizeof(name), "group-%016llx", (unsigned long long)sim_next(now->chance));
        for (uint32_t k = 0; k < now->size; k++) {
            names[i * now->size + k] = history_text(name);
        }
    }
    put.groups = named ? names : NULL;
    if (sim_one_in(now->chance, 16)) {
        load_finish(&now->call, load_reserve(&now->call, now->partition, put.n, NULL, put.groups));
    } else if (load_finish(&now->call, load_put(&now->call, &put)) == TQ_EFULL) {
        load_make_room(&now->call, now->partition);
    }
}

/* Claims, reads, and adds the next columns. */
static void grpo_stage(grpo *now, const char *task, const char *const *needs, uint32_t n_needs, const char *const *adds,
                       uint32_t n_adds)
{
    char config[64];
    load_claim_args claim = {.partition = now->partition, .task = task, .fields = needs, .n_fields = n_needs};
    load_put_args put = {.fields = adds, .n_fields = n_adds, .size = LOAD_USUAL};
    load_meta meta = {.meta = NULL};

    claim.batch = now->size * (uint32_t)sim_between(now->chance, 1, 2);
    claim.poll = sim_one_in(now->chance, 8);
    claim.tags = sim_one_in(now->chance, 2);
    if (sim_one_in(now->chance, 2)) {
        snprintf(config, sizeof(config), "{\"n_samples_per_prompt\":%u}", now->size);
        claim.sampler = "GRPOGroupNSampler";
        claim.config = config;
    }
    now->call.timeout = load_draw_wait(now->chance);
    if (load_finish(&now->call, load_claim(&now->call, &claim)) == TQ_OK) {
        now->call.timeout = 0;
        load_meta_take(&now->call, &meta);
        if (sim_one_in(now->chance, 8)) {
            load_meta_pass(&meta);
        }
        load_read(&now->call, &meta, needs, n_needs);
        put.meta = &meta;
        if (load_finish(&now->call, load_put(&now->call, &put)) == TQ_EFULL) {
            load_make_room(&now->call, now->partition);
        }
    }
    load_meta_drop(&meta);
}

/* Claims whole groups with all columns, reads and clears them. */
static void grpo_train(grpo *now)
{
    static const char *const needs[] = {"prompt", "response", "reward"};
    char config[64];
    load_claim_args claim = {.partition = now->partition, .task = "train", .fields = needs, .n_fields = 3};
    load_meta meta = {.meta = NULL};

    snprintf(config, sizeof(config), "{\"n_samples_per_prompt\":%u}", now->size);
    claim.batch = now->size * (uint32_t)sim_between(now->chance, 1, 3);
    claim.sampler = "GRPOGroupNSampler";
    claim.config = config;
    now->call.timeout = load_draw_wait(now->chance);
    if (load_finish(&now->call, load_claim(&now->call, &claim)) == TQ_OK) {
        now->call.timeout = 0;
        load_meta_take(&now->call, &meta);
        load_read(&now->call, &meta, NULL, 0);
        if (!sim_one_in(now->chance, 4)) {
            load_finish(&now->call, load_clear_meta(&now->call, &meta));
        }
    }
    load_meta_drop(&meta);
}

/* A rank of a step: all callers of one rank and step get the same samples. */
static void grpo_rank(grpo *now)
{
    static const char *const needs[] = {"prompt"};
    const bool balanced = sim_one_in(now->chance, 2);
    const uint32_t step = (uint32_t)sim_below(now->chance, 8);
    char config[128];
    load_claim_args claim = {.partition = now->partition, .fields = needs, .n_fields = 1};
    load_meta meta = {.meta = NULL};

    if (balanced) {
        snprintf(config, sizeof(config), "{\"dp_size\":2,\"dp_rank\":%u,\"batch_index\":%u,\"n_samples_per_prompt\":%u}",
                 (unsigned)sim_below(now->chance, 2), step, now->size);
        claim.sampler = "SeqlenBalancedSampler";
        claim.task = "balanced";
        claim.batch = now->size * (1 + step % 2); /* the same for all ranks */
    } else {
        snprintf(config, sizeof(config), "{\"dp_rank\":%u,\"batch_index\":%u}", (unsigned)sim_below(now->chance, 3),
                 step);
        claim.sampler = "RankAwareSampler";
        claim.task = "ranks";
        claim.batch = 2;
    }
    claim.config = config;
    now->call.timeout = load_draw_wait(now->chance);
    if (load_finish(&now->call, load_claim(&now->call, &claim)) == TQ_OK) {
        now->call.timeout = 0;
        load_meta_take(&now->call, &meta);
        load_read(&now->call, &meta, NULL, 0);
    }
    load_meta_drop(&meta);
}

static void grpo_step(grpo *now)
{
    static const char *const prompt[] = {"prompt", "response"};
    static const char *const response[] = {"response", "mask"};
    static const char *const reward[] = {"reward", "score"};
    static const char *const tasks[] = {"train", "ranks", "balanced", "stage"};

    switch (sim_below(now->chance, 16)) {
    case 0:
    case 1:
    case 2:
    case 3:
    case 4:
        grpo_produce(now);
        break;
    case 5:
    case 6:
    case 7:
        grpo_stage(now, "stage", prompt, 1, response, (uint32_t)sim_between(now->chance, 1, 2));
        break;
    case 8:
    case 9:
    case 10:
        grpo_stage(now, "reward", prompt, 2, reward, (uint32_t)sim_between(now->chance, 1, 2));
        break;
    case 11:
    case 12:
        grpo_train(now);
        break;
    case 13:
    case 14:
        grpo_rank(now);
        break;
    default:
        if (sim_one_in(now->chance, 8)) {
            load_finish(&now->call, load_reset(&now->call, now->partition,
                                               sim_one_in(now->chance, 4) ? NULL : tasks[sim_below(now->chance, 4)]));
        } else if (sim_one_in(now->chance, 16)) {
            load_finish(&now->call, load_clear_partition(&now->call, now->partition));
        } else {
            load_look_around(&now->call, now->partition, tasks[sim_below(now->chance, 4)]);
        }
        break;
    }
}

static void grpo_thread(load_thread *thread)
{
    grpo now = {.chance = &thread->chance};

    load_call_init(&now.call, thread->client, thread->number, &thread->chance);
    while (load_next(&now.call)) {
        const uint32_t number = (uint32_t)sim_below(now.chance, 4) == 0;

        now.partition = load_partition(thread->client, number);
        now.size = number == 0 ? 2 : 4;
        grpo_step(&now);
    }
    load_call_fini(&now.call);
}

static void grpo_run(load_client *self)
{
    load_threads(self, (uint32_t)sim_between(&self->chance, 1, 3), grpo_thread);
}

const load_kind load_grpo = {.name = "grpo", .run = grpo_run, .shared = true};
