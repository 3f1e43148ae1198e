/*
 * views.c - reads in place (zero_copy) and rows that are left in the store, held while their samples are overwritten
 * and cleared by everybody, and compared again when they are released, late.
 */
#include "load/steps.h"

#define VIEWS_HELD 4

typedef struct views {
    load_call call;
    sim_chance *chance;
    load_meta meta; /* of the last put */
    load_held held[VIEWS_HELD];
} views;

static void views_put(views *now)
{
    static const char *const fields[] = {"page", "text", "tiny"};
    load_put_args put = {.fields = fields + sim_below(now->chance, 2), .n_fields = 2, .size = LOAD_LARGE};

    put.partition = load_partition(now->call.client, (uint32_t)sim_below(now->chance, 2));
    put.n = (uint32_t)sim_between(now->chance, 4, 6);
    now->call.timeout = load_draw_wait(now->chance);
    if (now->meta.meta != NULL && sim_one_in(now->chance, 4)) {
        put.meta = &now->meta;
    }
    switch (load_finish(&now->call, load_put(&now->call, &put))) {
    case TQ_OK:
        load_meta_take(&now->call, &now->meta);
        break;
    case TQ_EFULL:
        load_make_room(&now->call, put.partition);
        break;
    default:
        load_meta_drop(&now->meta);
        break;
    }
}

static void views_read(views *now)
{
    load_held *held = &now->held[sim_below(now->chance, VIEWS_HELD)];
    load_get_args get = {.zero_copy = true, .leave_values = sim_one_in(now->chance, 2)};

    if (held->data != NULL) {
        load_release(held);
    }
    if (load_finish(&now->call, load_get(&now->call, &now->meta, &get)) == TQ_OK) {
        load_hold(&now->call, held);
        held->until = sim_time() + sim_below(now->chance, sim_one_in(now->chance, 4) ? 20 * SIM_S : SIM_S);
    }
}

/* Releases what is due. */
static void views_release(views *now, bool all)
{
    for (uint32_t i = 0; i < VIEWS_HELD; i++) {
        if (now->held[i].data != NULL && (all || now->held[i].until <= sim_time())) {
            load_release(&now->held[i]);
        }
    }
}

static void views_run(load_client *self)
{
    views now = {.chance = &self->chance};

    load_call_init(&now.call, self, 0, &self->chance);
    while (load_next(&now.call)) {
        const uint64_t step = sim_below(now.chance, 12);

        views_release(&now, false);
        if (now.meta.meta == NULL || step < 3) {
            views_put(&now);
        } else if (step < 8) {
            views_read(&now);
        } else if (step < 10) {
            load_finish(&now.call, load_clear_meta(&now.call, &now.meta));
            load_meta_drop(&now.meta);
        } else if (step == 10 && sim_one_in(now.chance, 8)) {
            /* What is held becomes a copy. */
            load_call_fini(&now.call);
            load_reopen(self);
            load_call_init(&now.call, self, 0, &self->chance);
        } else {
            load_pause(now.chance, SIM_S);
        }
    }
    views_release(&now, true);
    load_meta_drop(&now.meta);
    load_call_fini(&now.call);
}

const load_kind load_views = {.name = "views", .run = views_run, .shared = true};
