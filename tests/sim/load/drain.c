/*
 * drain.c - the last client of a seed: it claims and reads all that is there, for tasks that nobody has used, then
 * clears it, in all ways that there are. What it found is compared with what was put by check_drained (oracle/check.c).
 */
#include "load/keyed.h"
#include "load/steps.h"
#include "load/stores.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Storage that is gone is known to be lost after this: the longest owner timeout, on a slow clock, and a restart. */
#define DRAIN_SETTLE (30 * SIM_S)

/* A batch with lost cells: the samples are looked up, which names the lost cells, and the others are read one by one. */
static void drain_read_rest(load_call *call, const load_meta *batch, const char *field)
{
    load_resolve_args resolve = {
        .partition = tq_meta_partition(batch->meta),
        .indexes = tq_meta_indexes(batch->meta),
        .n = load_meta_count(batch),
        .fields = &field,
        .n_fields = 1,
    };
    load_meta now = {.meta = NULL};
    load_meta one = {.meta = NULL};
    load_get_args get = {.fields = NULL};

    if (load_finish(call, load_resolve(call, &resolve)) == TQ_OK) {
        load_meta_take(call, &now);
        for (uint32_t i = 0; i < load_meta_count(&now); i++) {
            if (tq_meta_field_at(now.meta, 0)->ready[i] == 1 && load_meta_part(&now, i, 1, &one)) {
                load_finish(call, load_get(call, &one, &get));
            }
        }
        /* What was lost is known by now. */
        load_finish(call, load_resolve(call, &resolve));
    }
    load_meta_drop(&now);
    load_meta_drop(&one);
}

/* Which samples have the field, and which have lost it. */
static uint32_t drain_look(load_call *call, const char *partition, const char *field)
{
    load_resolve_args resolve = {.partition = partition, .fields = &field, .n_fields = 1};
    uint32_t ready = 0;

    if (load_finish(call, load_resolve(call, &resolve)) == TQ_OK) {
        for (uint32_t i = 0; i < call->record->n_results; i++) {
            ready += call->record->ready[i] == 1;
        }
    }
    return ready;
}

/* Claims all samples that have the field, and reads them. A read may find that its data is lost, and then those of the
 * samples that were put with it are, too: what is left is claimed one by one. */
static void drain_field(load_call *call, const char *partition, const char *field)
{
    char task[64];
    load_claim_args claim = {.partition = partition, .task = task, .fields = &field, .n_fields = 1, .poll = true};
    load_get_args get = {.fields = &field, .n_fields = 1};
    load_meta meta = {.meta = NULL};
    uint32_t ready = drain_look(call, partition, field);
    int rc = TQ_OK;

    snprintf(task, sizeof(task), "drain-%s", field);
    claim.batch = 0;
    while (rc == TQ_OK || (rc == TQ_EAGAIN && claim.batch > 1)) {
        claim.batch = 1;
        if (ready > 1 && rc == TQ_OK) {
            claim.batch = (uint32_t)sim_between(call->chance, 1, ready < 100 ? ready : 100);
        } else {
            ready = 0;
        }
        rc = load_finish(call, load_claim(call, &claim));
        if (rc == TQ_OK) {
            load_meta_take(call, &meta);
            ready -= load_meta_count(&meta) < ready ? load_meta_count(&meta) : ready;
            get.zero_copy = sim_one_in(call->chance, 4);
            if (load_finish(call, load_get(call, &meta, &get)) == TQ_ELOST) {
                drain_read_rest(call, &meta, field);
            }
        }
    }
    (void)drain_look(call, partition, field);
    load_meta_drop(&meta);
}

static void drain_clear(load_call *call, const char *partition, const load_meta *all)
{
    const uint32_t n = load_meta_count(all);
    const char **keys = load_memory((n + 1) * sizeof(*keys));
    load_meta half = {.meta = NULL};
    uint32_t n_keys = 0;

    if (n > 1 && load_meta_part(all, 0, n / 2, &half)) {
        load_finish(call, load_clear_meta(call, &half));
    }
    for (uint32_t i = n / 2; i < n && n_keys < 8; i++) {
        if (tq_meta_key(all->meta, i) != NULL) {
            keys[n_keys++] = tq_meta_key(all->meta, i);
        }
    }
    if (n_keys > 0) {
        load_finish(call, load_clear_keys(call, partition, keys, n_keys));
    }
    load_finish(call, load_clear_partition(call, partition));
    load_meta_drop(&half);
    free(keys);
}

static void drain_partition(load_call *call, const char *partition)
{
    load_resolve_args resolve = {.partition = partition, .tags = true};
    load_meta all = {.meta = NULL};

    if (load_finish(call, load_resolve(call, &resolve)) != TQ_OK) {
        return;
    }
    load_meta_take(call, &all);
    for (size_t f = 0; f < tq_meta_field_count(all.meta); f++) {
        drain_field(call, partition, tq_meta_field_at(all.meta, f)->name);
    }
    if (load_keyed_owns(partition)) {
        load_keyed_drain(call, partition);
    } else {
        drain_clear(call, partition, &all);
    }
    load_meta_drop(&all);
}

static void drain_run(load_client *self)
{
    load_call call;
    const char **names = NULL;
    size_t n = 0;

    sim_pass(DRAIN_SETTLE);
    load_call_init(&call, self, 0, &self->chance);
    call.plain = true;
    call.never_cancel = true;
    if (load_finish(&call, load_list_partitions(&call)) == TQ_OK) {
        n = call.record->n_names;
        names = call.record->names;
    }
    for (size_t i = 0; i < n; i++) {
        drain_partition(&call, names[i]);
    }
    load_keyed_check(&call);
    load_finish(&call, load_list_partitions(&call));
    load_call_fini(&call);
    load_drain_stores(self);
}

void load_drain(void *arg)
{
    load_client_run(arg, drain_run);
}
