/*
 * cancel.c - many ops in flight at once that are cancelled at any point, given no time, used again, freed while they
 * run, or still running when the client is closed.
 */
#include "load/steps.h"

#define CANCEL_CALLS 5

typedef struct cancel_slot {
    load_call call;
    bool busy;
    load_meta meta; /* of the last claim or put of this slot */
} cancel_slot;

static const char *const cancel_fields[] = {"prompt", "reward", "blob", "any"};

/* Starts a call; true: it is in flight. */
static bool cancel_start(cancel_slot *slot, sim_chance *chance)
{
    load_call *call = &slot->call;
    const char *fields[3];
    const char *keys[4];
    const char *partition = load_partition(call->client, (uint32_t)sim_below(chance, 2));
    load_put_args put = {.partition = partition, .fields = fields, .size = LOAD_USUAL};
    load_claim_args claim = {.partition = partition, .task = "cancel", .fields = cancel_fields};
    load_get_args get = {.zero_copy = sim_one_in(chance, 2)};

    call->timeout = sim_one_in(chance, 3) ? (double)sim_below(chance, 50000) / 1e6 + 1e-6 : load_draw_wait(chance);
    switch (sim_below(chance, 10)) {
    case 0:
    case 1:
    case 2:
        put.n = (uint32_t)sim_between(chance, 1, 4);
        put.n_fields = load_draw_names(chance, cancel_fields, 4, (uint32_t)sim_between(chance, 1, 3), fields);
        if (sim_one_in(chance, 3)) {
            load_draw_keys(chance, 32, put.n, keys);
            put.keys = keys;
        } else if (slot->meta.meta != NULL && sim_one_in(chance, 2)) {
            put.meta = &slot->meta;
        }
        return load_put(call, &put) == TQ_OK;
    case 3:
    case 4:
    case 5:
        claim.n_fields = (uint32_t)sim_between(chance, 1, 2);
        claim.batch = (uint32_t)sim_between(chance, 1, 4);
        return load_claim(call, &claim) == TQ_OK;
    case 6:
    case 7:
        return slot->meta.meta != NULL && tq_meta_field_count(slot->meta.meta) > 0 &&
               load_get(call, &slot->meta, &get) == TQ_OK;
    case 8:
        return slot->meta.meta != NULL && load_clear_meta(call, &slot->meta) == TQ_OK;
    default:
        load_draw_keys(chance, 32, 2, keys);
        return load_get_by_key(call, partition, keys, 2, &get) == TQ_OK;
    }
}

static void cancel_ended(cancel_slot *slot, int rc)
{
    const history_call kind = slot->call.record->call;

    slot->busy = false;
    if (rc == TQ_OK && (kind == HISTORY_PUT || kind == HISTORY_CLAIM)) {
        load_meta_take(&slot->call, &slot->meta);
    } else if (kind == HISTORY_CLEAR) {
        load_meta_drop(&slot->meta);
    }
}

static void cancel_step(cancel_slot *slot, sim_chance *chance)
{
    int rc;

    if (!slot->busy) {
        slot->busy = cancel_start(slot, chance);
        return;
    }
    switch (sim_below(chance, 8)) {
    case 0:
    case 1:
        load_cancel_call(&slot->call);
        break;
    case 2:
        load_free_running(&slot->call);
        slot->busy = false;
        break;
    case 3:
    case 4:
        cancel_ended(slot, load_finish(&slot->call, TQ_OK));
        break;
    default:
        if (load_poll(&slot->call, &rc)) {
            cancel_ended(slot, rc);
        }
        break;
    }
}

/* Closes the client with everything that is in flight, and opens it again. */
static void cancel_close(cancel_slot *slots, load_client *self)
{
    load_close(self);
    for (uint32_t i = 0; i < CANCEL_CALLS; i++) {
        if (slots[i].busy) {
            cancel_ended(&slots[i], load_finish(&slots[i].call, TQ_OK));
        }
        load_call_fini(&slots[i].call);
    }
    load_open(self);
    for (uint32_t i = 0; i < CANCEL_CALLS; i++) {
        load_call_init(&slots[i].call, self, i, &self->chance);
    }
}

static void cancel_run(load_client *self)
{
    cancel_slot slots[CANCEL_CALLS] = {{.busy = false}};

    for (uint32_t i = 0; i < CANCEL_CALLS; i++) {
        load_call_init(&slots[i].call, self, i, &self->chance);
    }
    while (load_next(&slots[0].call)) {
        cancel_step(&slots[sim_below(&self->chance, CANCEL_CALLS)], &self->chance);
        if (sim_one_in(&self->chance, 4)) {
            load_pause(&self->chance, 20 * SIM_MS);
        }
        if (sim_one_in(&self->chance, 40)) {
            cancel_close(slots, self);
        }
    }
    for (uint32_t i = 0; i < CANCEL_CALLS; i++) {
        if (slots[i].busy) {
            cancel_ended(&slots[i], load_finish(&slots[i].call, TQ_OK));
        }
        load_call_fini(&slots[i].call);
        load_meta_drop(&slots[i].meta);
    }
}

const load_kind load_cancel = {.name = "cancel", .run = cancel_run, .shared = true};
