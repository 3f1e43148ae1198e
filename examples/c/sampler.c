/*
 * sampler.c ROLE [OPTION...] - a daemon with samplers of its own; options as in tqd --help. For example
 *
 *     sampler all-in-one --runtime-dir DIR --set controller.sampler=Freshest
 */
#include <string.h>
#include <tq/daemon.h>
#include <tq/sampler.h>

#include "example.h"

static uint32_t need_batch(const tq_pick_request *request)
{
    return request->batch_size;
}

/* The samples with the largest tag "version", newest first among equals. */
static int pick_freshest(const tq_sampler_view *view, const tq_pick_request *request, tq_pick *pick, tq_error *err)
{
    uint32_t n = tq_view_count(view);
    double best = 0, version;
    uint32_t picked = 0;

    (void)err;
    for (uint32_t i = 0; i < n; i++) {
        if (tq_view_tag_number(view, i, "version", &version) && version > best) {
            best = version;
        }
    }
    for (uint32_t i = n; i-- > 0 && picked < request->batch_size;) {
        if (tq_view_tag_number(view, i, "version", &version) && version == best) {
            int rc = tq_pick_add(pick, i, true);

            if (rc != TQ_OK) {
                return rc;
            }
            picked++;
        }
    }
    return picked == request->batch_size ? TQ_OK : TQ_EAGAIN;
}

/* Whole groups only: a group is skipped as long as samples of it are missing. */
static int pick_whole_groups(const tq_sampler_view *view, const tq_pick_request *request, tq_pick *pick, tq_error *err)
{
    uint32_t n = tq_view_count(view), picked = 0;

    (void)err;
    for (uint32_t i = 0; i < n && picked < request->batch_size;) {
        const char *group = tq_view_group(view, i);
        uint32_t size = group != NULL ? tq_view_group_size(view, i) : 1, ready = 1;

        while (group != NULL && i + ready < n && tq_view_group(view, i + ready) == group) {
            ready++;
        }
        for (uint32_t k = 0; k < ready && ready == size; k++, picked++) {
            if (tq_pick_add(pick, i + k, true) != TQ_OK) {
                return TQ_ENOMEM;
            }
        }
        i += ready;
    }
    return picked >= request->batch_size ? TQ_OK : TQ_EAGAIN;
}

/* Shares a batch between two callers: this one gets the first half, the next one finds the other half in the cache. */
static int pick_halves(const tq_sampler_view *view, const tq_pick_request *request, tq_pick *pick, tq_error *err)
{
    uint32_t positions[256];
    uint32_t half = request->batch_size;
    int rc = TQ_OK;

    (void)err;
    if (tq_view_count(view) < 2 * half || half > 256) {
        return TQ_EAGAIN;
    }
    for (uint32_t i = 0; i < half && rc == TQ_OK; i++) {
        positions[i] = half + i;
        rc = tq_pick_add(pick, i, true);
    }
    return rc == TQ_OK ? tq_pick_cache(pick, "second", positions, half) : rc;
}

static int slot_of_half(const tq_pick_request *request, char slot[TQ_NAME_MAX + 1], tq_error *err)
{
    (void)err;
    snprintf(slot, TQ_NAME_MAX + 1, "%s", strstr(request->config, "second") != NULL ? "second" : "");
    return TQ_OK;
}

/* Passes over samples whose tag "failed" is set, and marks them as consumed, so that it never sees them again. */
static int pick_unfailed(const tq_sampler_view *view, const tq_pick_request *request, tq_pick *pick, tq_error *err)
{
    uint32_t n = tq_view_count(view), picked = 0;
    int rc = TQ_OK;

    (void)err;
    for (uint32_t i = 0; i < n && picked < request->batch_size && rc == TQ_OK; i++) {
        const char *name = "";
        tq_slice value;
        uint32_t tag = 0;

        while (tq_view_tag(view, i, tag, &name, &value) && strcmp(name, "failed") != 0) {
            tag++;
        }
        if (strcmp(name, "failed") == 0) {
            rc = tq_pick_consume(pick, i);
        } else {
            rc = tq_pick_add(pick, i, true);
            picked++;
        }
    }
    return rc == TQ_OK && picked < request->batch_size ? TQ_EAGAIN : rc;
}

/* Only samples that joined the partition after the first thousand. */
static int pick_late(const tq_sampler_view *view, const tq_pick_request *request, tq_pick *pick, tq_error *err)
{
    uint32_t picked = 0;

    (void)err;
    for (uint32_t i = 0; i < tq_view_count(view) && picked < request->batch_size; i++) {
        if (tq_view_ordinal(view, i) >= 1000) {
            if (tq_pick_add(pick, i, true) != TQ_OK) {
                return TQ_ENOMEM;
            }
            picked++;
        }
    }
    return picked == request->batch_size ? TQ_OK : TQ_EAGAIN;
}

/* Gives every claim with the same step the same samples: the controller keeps the answer under the step's name. */
static int pick_per_step(const tq_sampler_view *view, const tq_pick_request *request, tq_pick *pick, tq_error *err)
{
    int rc = tq_view_count(view) < request->batch_size ? TQ_EAGAIN : TQ_OK;

    (void)err;
    for (uint32_t i = 0; i < request->batch_size && rc == TQ_OK; i++) {
        rc = tq_pick_add(pick, i, true);
    }
    return rc == TQ_OK ? tq_pick_slot(pick, "step") : rc;
}

static int slot_of_step(const tq_pick_request *request, char slot[TQ_NAME_MAX + 1], tq_error *err)
{
    (void)request;
    (void)err;
    snprintf(slot, TQ_NAME_MAX + 1, "step");
    return TQ_OK;
}

/* What Replay keeps itself: the samples it handed out first. */
static uint32_t replayed[64];
static uint32_t n_replayed;

static bool replay_kept(const tq_pick_request *request)
{
    return n_replayed >= request->batch_size;
}

/* Hands out the same samples again and again, for as long as they exist. */
static int pick_replay(const tq_sampler_view *view, const tq_pick_request *request, tq_pick *pick, tq_error *err)
{
    const uint32_t *indexes = tq_view_indexes(view);
    int rc = TQ_OK;

    (void)err;
    if (replay_kept(request)) {
        for (uint32_t i = 0; i < request->batch_size && rc == TQ_OK; i++) {
            rc = tq_view_had(view, replayed[i]) ? tq_pick_again(pick, replayed[i]) : TQ_EAGAIN;
        }
        return rc;
    }
    if (tq_view_count(view) < request->batch_size || request->batch_size > 64) {
        return TQ_EAGAIN;
    }
    for (n_replayed = 0; n_replayed < request->batch_size && rc == TQ_OK; n_replayed++) {
        replayed[n_replayed] = indexes[n_replayed];
        rc = tq_pick_add(pick, n_replayed, true);
    }
    return rc;
}

static const tq_sampler samplers[] = {
    {.abi = TQ_SAMPLER_ABI, .name = "Freshest", .need = need_batch, .pick = pick_freshest},
    {.abi = TQ_SAMPLER_ABI, .name = "WholeGroups", .need = need_batch, .pick = pick_whole_groups},
    {.abi = TQ_SAMPLER_ABI, .name = "Halves", .need = need_batch, .pick = pick_halves, .slot = slot_of_half},
    {.abi = TQ_SAMPLER_ABI, .name = "Unfailed", .need = need_batch, .pick = pick_unfailed},
    {.abi = TQ_SAMPLER_ABI, .name = "Late", .need = need_batch, .pick = pick_late},
    {.abi = TQ_SAMPLER_ABI, .name = "PerStep", .need = need_batch, .pick = pick_per_step, .slot = slot_of_step},
    {.abi = TQ_SAMPLER_ABI, .name = "Replay", .need = need_batch, .pick = pick_replay, .kept = replay_kept},
};

/* Called with the name that the configuration asks for. */
static int find_sampler(const char *name, void *user, tq_error *err)
{
    (void)user;
    for (size_t i = 0; i < sizeof(samplers) / sizeof(samplers[0]); i++) {
        if (strcmp(samplers[i].name, name) == 0) {
            return tq_sampler_register(&samplers[i], err);
        }
    }
    err->code = TQ_ESAMPLER;
    snprintf(err->message, sizeof(err->message), "there is no sampler '%s'", name);
    return TQ_ESAMPLER;
}

int main(int argc, char **argv)
{
    tq_daemon_hooks hooks = tq_daemon_hooks_init();

    hooks.sampler = find_sampler;
    return tq_daemon_run(argc, argv, &hooks);
}
