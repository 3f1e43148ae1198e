/*
 * steps.c - see steps.h.
 */
#include "load/steps.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool load_next(load_call *call)
{
    if (!load_spend(call->client)) {
        return false;
    }
    if (sim_one_in(call->chance, 16)) {
        load_pause(call->chance, sim_one_in(call->chance, 8) ? 2 * SIM_S : 50 * SIM_MS);
    }
    call->timeout = 0;
    return true;
}

uint32_t load_draw_names(sim_chance *chance, const char *const *names, uint32_t of, uint32_t n, const char **out)
{
    uint32_t drawn = 0;

    for (uint32_t i = 0; i < of && drawn < n; i++) {
        if (sim_below(chance, of - i) < n - drawn) {
            out[drawn++] = names[i];
        }
    }
    return drawn;
}

void load_draw_keys(sim_chance *chance, uint32_t space, uint32_t n, const char **out)
{
    uint32_t drawn = 0;
    char name[32];

    for (uint32_t i = 0; i < space && drawn < n; i++) {
        if (sim_below(chance, space - i) < n - drawn) {
            snprintf(name, sizeof(name), "key-%u", i);
            out[drawn++] = history_text(name);
        }
    }
}

double load_draw_wait(sim_chance *chance)
{
    return (double)(sim_one_in(chance, 4) ? sim_between(chance, 10, 100) : sim_between(chance, 100, 3000)) / 1e3;
}

/* A meta made by hand of a part of what a resolve returned, with or without incarnations. */
static void steps_by_hand(load_call *call, const char *partition, const load_meta *meta)
{
    const uint32_t n = load_meta_count(meta);
    const uint32_t first = (uint32_t)sim_below(call->chance, n);
    const uint32_t count = (uint32_t)sim_between(call->chance, 1, n - first < 4 ? n - first : 4);
    const bool any = sim_one_in(call->chance, 2);
    const char *field = tq_meta_field_at(meta->meta, 0)->name;
    load_meta made = {.from = 0};
    load_get_args get = {.fields = NULL};
    tq_error err = {0};
    int rc = tq_meta_make(partition, tq_meta_indexes(meta->meta) + first,
                          any ? NULL : tq_meta_incarnations(meta->meta) + first, count, &field, 1, &made.meta, &err);

    sim_check(rc == TQ_OK || rc == TQ_ENOMEM, "legal programs get legal errors", "tq_meta_make: %s", err.message);
    if (rc == TQ_OK) {
        load_finish(call, load_get(call, &made, &get));
    }
    load_meta_drop(&made);
}

void load_look_around(load_call *call, const char *partition, const char *task)
{
    static const char *const fields[] = {"prompt", "reward", "tiny"};
    load_resolve_args resolve = {.partition = partition, .tags = sim_one_in(call->chance, 2)};
    load_meta meta = {.meta = NULL};

    switch (sim_below(call->chance, 6)) {
    case 0:
        load_finish(call, load_list_keys(call, partition));
        break;
    case 1:
        load_finish(call, load_list_partitions(call));
        break;
    case 2:
        load_finish(call, load_consumed(call, partition, task));
        break;
    case 3:
        load_finish(call, load_produced(call, partition, fields, (uint32_t)sim_between(call->chance, 1, 3)));
        break;
    default:
        if (load_finish(call, load_resolve(call, &resolve)) == TQ_OK) {
            load_meta_take(call, &meta);
            if (load_meta_count(&meta) > 0 && tq_meta_field_count(meta.meta) > 0) {
                steps_by_hand(call, partition, &meta);
            }
        }
        break;
    }
    load_meta_drop(&meta);
}

int load_read(load_call *call, const load_meta *meta, const char *const *fields, uint32_t n_fields)
{
    load_get_args get = {.fields = fields, .n_fields = n_fields};

    get.zero_copy = sim_one_in(call->chance, 4);
    get.leave_values = sim_one_in(call->chance, 4);
    get.padded = sim_one_in(call->chance, 4);
    get.dest = sim_one_in(call->chance, 4);
    return load_finish(call, load_get(call, meta, &get));
}

void load_make_room(load_call *call, const char *partition)
{
    load_resolve_args resolve = {.partition = partition};
    load_meta all = {.meta = NULL};
    load_meta part = {.meta = NULL};

    if (load_finish(call, load_resolve(call, &resolve)) == TQ_OK) {
        load_meta_take(call, &all);
        if (load_meta_count(&all) > 0 && load_meta_part(&all, 0, (load_meta_count(&all) + 1) / 2, &part)) {
            load_finish(call, load_clear_meta(call, &part));
        }
    }
    load_meta_drop(&all);
    load_meta_drop(&part);
}
