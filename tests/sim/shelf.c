/*
 * shelf.c - see shelf.h. A batch is a block per column. The faults are those of the KV store: SIM_KV_SLOW, SIM_KV_FULL,
 * SIM_KV_LATE (a removal fails, and has to be repeated) and SIM_KV_EVICT.
 */
#include "shelf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sim.h"

#include <tq/manager.h>

#define SHELF_COLUMNS 128u          /* a load puts this many blocks at once */
#define SHELF_PAUSE   (20 * SIM_MS) /* of a put that waits for room */
#define SHELF_BUCKETS 1024u

typedef struct shelf_block {
    struct shelf_block *next;
    uint64_t epoch, id, size;
    uint8_t data[];
} shelf_block;

typedef struct shelf_value {
    struct shelf_value *next;
    shelf_name name;
} shelf_value;

static struct {
    sim_chance chance;
    shelf_block *blocks[SHELF_BUCKETS];
    shelf_value *values[SHELF_BUCKETS];
} shelf;

/* --- blocks ------------------------------------------------------------------------ */

static shelf_block **shelf_find(uint64_t epoch, uint64_t id)
{
    shelf_block **at = &shelf.blocks[(id ^ epoch) % SHELF_BUCKETS];

    while (*at != NULL && ((*at)->id != id || (*at)->epoch != epoch)) {
        at = &(*at)->next;
    }
    return at;
}

static void shelf_drop(shelf_block **at)
{
    shelf_block *block = *at;

    if (block != NULL) {
        *at = block->next;
        sim_free(block);
    }
}

static void shelf_add(const tq_block *as, const tq_put_column *column)
{
    shelf_block **at = shelf_find(as->owner_incarnation, as->id);
    shelf_block *block = sim_alloc(sizeof(*block) + column->size);
    uint64_t done = 0;

    sim_check(*at == NULL, "a block is written once", "block %llu", (unsigned long long)as->id);
    block->epoch = as->owner_incarnation;
    block->id = as->id;
    block->size = column->size;
    for (size_t s = 0; s < column->n_slices; s++) {
        memcpy(block->data + done, column->slices[s].data, column->slices[s].size);
        done += column->slices[s].size;
    }
    sim_check(done == column->size, "slices make up the column", "column %s: %llu of %llu bytes", column->name,
              (unsigned long long)done, (unsigned long long)column->size);
    *at = block;
}

static void shelf_evict(void)
{
    size_t first = (size_t)sim_below(&sim_fault_chance, SHELF_BUCKETS);

    for (size_t i = 0; i < SHELF_BUCKETS; i++) {
        shelf_block **at = &shelf.blocks[(first + i) % SHELF_BUCKETS];
        if (*at != NULL) {
            sim_mark("shelf lost a block");
            shelf_drop(at);
            return;
        }
    }
}

/* --- the manager --------------------------------------------------------------------- */

typedef struct shelf_state {
    tq_manager_host *host;
} shelf_state;

typedef struct shelf_job {
    shelf_state *state;
    tq_put_job *put;
    tq_get_job *get;
    tq_block blocks[SHELF_COLUMNS]; /* of the put */
    bool cancelled;
    uint32_t *gone; /* of the get */
    uint32_t n_gone;
    uint64_t *ids; /* of the remove */
    size_t n_ids;
    uint64_t incarnation;
    void (*removed)(const tq_error *err, void *arg);
    void *arg;
    tq_error err;
} shelf_job;

static uint64_t shelf_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SIM_S + (uint64_t)now.tv_nsec;
}

static void shelf_fail(tq_error *err, int rc, const char *message)
{
    err->code = rc;
    snprintf(err->message, sizeof(err->message), "SimShelf: %s", message);
}

/* How long a step takes; none lasts much longer than the deadline. */
static void shelf_takes(uint64_t deadline)
{
    uint64_t ns = sim_happens(SIM_KV_SLOW) ? sim_between(&sim_fault_chance, 10 * SIM_MS, 3 * SIM_S)
                                           : sim_between(&shelf.chance, 5 * SIM_US, 500 * SIM_US);
    uint64_t now = shelf_now(), left = deadline > now ? deadline - now : 0;

    sim_pass(ns < left / 2 ? ns : left / 2); /* the clock of the process may be fast */
}

static void shelf_put_work(void *arg)
{
    shelf_job *job = arg;
    const tq_put_job *put = job->put;

    while (sim_happens(SIM_KV_FULL)) {
        if (!put->wait_when_full || shelf_now() + SHELF_PAUSE >= put->deadline_ns) {
            shelf_fail(&job->err, TQ_EFULL, "there is no room");
            return;
        }
        sim_pass(SHELF_PAUSE);
    }
    for (uint32_t c = 0; c < put->n_columns && job->err.code == TQ_OK; c++) {
        shelf_takes(put->deadline_ns);
        if (job->cancelled) {
            shelf_fail(&job->err, TQ_ECANCELED, "the put was cancelled");
        } else if (shelf_now() >= put->deadline_ns) {
            shelf_fail(&job->err, TQ_ETIMEDOUT, "there was no time to write");
        } else if (put->columns[c].size > 0) {
            shelf_add(&job->blocks[c], &put->columns[c]);
        }
    }
    if (sim_happens(SIM_KV_EVICT)) {
        shelf_evict();
    }
}

static void shelf_put_done(void *arg)
{
    shelf_job *job = arg;
    tq_manager_host *host = job->state->host;
    uint32_t n = job->put->n_columns;
    tq_extent extents[SHELF_COLUMNS];
    uint64_t ids[SHELF_COLUMNS];

    for (uint32_t c = 0; c < n; c++) {
        extents[c] = (tq_extent){.column = c, .rows = job->put->columns[c].rows, .block = c};
        ids[c] = job->blocks[c].id;
    }
    if (job->err.code != TQ_OK) {
        host->abandon(host, ids, n, true);
        host->put_finish(host, job->put, &job->err, NULL, 0, NULL, 0);
    } else {
        host->put_finish(host, job->put, NULL, job->blocks, n, extents, n);
    }
    free(job);
}

static void shelf_granted(const tq_error *err, uint64_t first, uint64_t incarnation, void *arg)
{
    shelf_job *job = arg;
    tq_manager_host *host = job->state->host;

    if (err != NULL) {
        host->put_finish(host, job->put, err, NULL, 0, NULL, 0);
        free(job);
        return;
    }
    for (uint32_t c = 0; c < job->put->n_columns; c++) {
        job->blocks[c] = (tq_block){
            .id = first + c,
            .size = job->put->columns[c].size,
            .owner = "sim-shelf",
            .owner_incarnation = incarnation,
        };
    }
    if (job->cancelled) {
        shelf_fail(&job->err, TQ_ECANCELED, "the put was cancelled");
        shelf_put_done(job);
    } else if (host->work(host, shelf_put_work, shelf_put_done, job) != TQ_OK) {
        shelf_fail(&job->err, TQ_ENOMEM, "a put");
        shelf_put_done(job);
    }
}

static void shelf_put_job(void *state, tq_put_job *put)
{
    shelf_state *self = state;
    shelf_job *job = calloc(1, sizeof(*job));
    tq_error err = {0};

    put->user = job;
    if (job == NULL || put->n_columns > SHELF_COLUMNS) {
        free(job);
        put->user = NULL;
        shelf_fail(&err, TQ_ENOMEM, "a put");
        self->host->put_finish(self->host, put, &err, NULL, 0, NULL, 0);
        return;
    }
    job->state = self;
    job->put = put;
    self->host->grant(self->host, "sim-shelf", put->n_columns, put->deadline_ns, shelf_granted, job);
}

static void shelf_cancel(void *state, tq_put_job *put)
{
    shelf_job *job = put->user;

    (void)state;
    if (job != NULL) {
        job->cancelled = true;
    }
}

static void shelf_get_work(void *arg)
{
    shelf_job *job = arg;
    const tq_get_job *get = job->get;

    for (uint32_t r = 0; r < get->n_ranges; r++) {
        const tq_get_range *range = &get->ranges[r];
        const tq_block *as = &get->blocks[range->block];
        const shelf_block *block;
        if (r == 0 || range->block != get->ranges[r - 1].block) {
            shelf_takes(get->deadline_ns);
        }
        block = *shelf_find(as->owner_incarnation, as->id);
        if (block == NULL) {
            if (job->n_gone == 0 || job->gone[job->n_gone - 1] != range->block) {
                job->gone[job->n_gone++] = range->block;
            }
            continue;
        }
        sim_check(range->offset <= block->size && range->size <= block->size - range->offset, "reads lie in the block",
                  "block %llu of %llu bytes: %llu from %llu", (unsigned long long)as->id,
                  (unsigned long long)block->size, (unsigned long long)range->size, (unsigned long long)range->offset);
        memcpy(range->dest, block->data + range->offset, range->size);
    }
    if (shelf_now() >= get->deadline_ns) {
        shelf_fail(&job->err, TQ_ETIMEDOUT, "there was no time to read");
    }
}

static void shelf_get_done(void *arg)
{
    shelf_job *job = arg;
    tq_manager_host *host = job->state->host;

    host->get_finish(host, job->get, job->err.code != TQ_OK ? &job->err : NULL, job->gone, job->n_gone);
    free(job->gone);
    free(job);
}

static void shelf_get(void *state, tq_get_job *get)
{
    shelf_state *self = state;
    shelf_job *job = calloc(1, sizeof(*job));
    uint32_t *gone = calloc(get->n_blocks + 1, sizeof(*gone));
    tq_error err = {0};

    if (job != NULL && gone != NULL) {
        job->state = self;
        job->get = get;
        job->gone = gone;
        if (self->host->work(self->host, shelf_get_work, shelf_get_done, job) == TQ_OK) {
            return;
        }
    }
    free(job);
    free(gone);
    shelf_fail(&err, TQ_ENOMEM, "a get");
    self->host->get_finish(self->host, get, &err, NULL, 0);
}

static void shelf_remove_work(void *arg)
{
    shelf_job *job = arg;
    size_t n = sim_happens(SIM_KV_LATE) ? (size_t)sim_below(&sim_fault_chance, job->n_ids + 1) : job->n_ids;

    shelf_takes(UINT64_MAX);
    for (size_t i = 0; i < n; i++) {
        shelf_drop(shelf_find(job->incarnation, job->ids[i]));
    }
    if (n < job->n_ids) {
        shelf_fail(&job->err, TQ_EIO, "some blocks cannot be removed now");
    }
}

static void shelf_remove_done(void *arg)
{
    shelf_job *job = arg;

    job->removed(job->err.code != TQ_OK ? &job->err : NULL, job->arg);
    free(job->ids);
    free(job);
}

static void shelf_remove_blocks(void *state, uint64_t incarnation, const uint64_t *ids, size_t n,
                                void (*done)(const tq_error *err, void *arg), void *arg)
{
    shelf_state *self = state;
    shelf_job *job = calloc(1, sizeof(*job));
    uint64_t *copy = calloc(n + 1, sizeof(*copy));
    tq_error err = {0};

    if (job != NULL && copy != NULL) {
        memcpy(copy, ids, n * sizeof(*ids));
        *job =
            (shelf_job){.state = self, .incarnation = incarnation, .ids = copy, .n_ids = n, .removed = done, .arg = arg};
        if (self->host->work(self->host, shelf_remove_work, shelf_remove_done, job) == TQ_OK) {
            return;
        }
    }
    free(job);
    free(copy);
    shelf_fail(&err, TQ_ENOMEM, "a removal");
    done(&err, arg);
}

static const char *shelf_owner(void *state, uint64_t *incarnation)
{
    shelf_state *self = state;

    *incarnation = self->host->epoch;
    return "sim-shelf";
}

static void shelf_open(void *state, tq_manager_host *host, const char *config,
                       void (*opened)(const tq_error *err, void *arg), void *arg)
{
    shelf_state *self = state;

    (void)config;
    self->host = host;
    opened(NULL, arg);
}

static void shelf_close(void *state, void (*closed)(void *arg), void *arg)
{
    (void)state;
    closed(arg);
}

static const tq_storage_manager shelf_manager = {
    .abi = TQ_MANAGER_ABI,
    .type = SHELF_MANAGER,
    .state_size = sizeof(shelf_state),
    .open = shelf_open,
    .close = shelf_close,
    .put = shelf_put_job,
    .cancel = shelf_cancel,
    .get = shelf_get,
    .owner = shelf_owner,
    .remove = shelf_remove_blocks,
};

int shelf_register(void)
{
    tq_error err = {0};
    int rc = tq_manager_register(&shelf_manager, &err);

    sim_check(rc == TQ_OK || rc == TQ_ENOMEM, "a manager can be registered", "%s", err.message);
    return rc;
}

size_t shelf_blocks(uint64_t epoch)
{
    size_t n = 0;

    for (size_t i = 0; i < SHELF_BUCKETS; i++) {
        for (const shelf_block *block = shelf.blocks[i]; block != NULL; block = block->next) {
            n += block->epoch == epoch;
        }
    }
    return n;
}

/* --- values by name ------------------------------------------------------------------- */

static shelf_value **shelf_find_value(shelf_name name)
{
    shelf_value **at = &shelf.values[(name.op * 31u + name.row) % SHELF_BUCKETS];

    while (*at != NULL && ((*at)->name.op != name.op || (*at)->name.row != name.row || (*at)->name.field != name.field)) {
        at = &(*at)->next;
    }
    return at;
}

void shelf_put(shelf_name name)
{
    shelf_value **at = shelf_find_value(name);

    if (*at == NULL) {
        *at = sim_alloc(sizeof(**at));
        (*at)->name = name;
    }
}

bool shelf_has(shelf_name name)
{
    return *shelf_find_value(name) != NULL;
}

void shelf_remove(shelf_name name)
{
    shelf_value **at = shelf_find_value(name);
    shelf_value *value = *at;

    if (value != NULL) {
        *at = value->next;
        sim_free(value);
    }
}

void shelf_each(void (*each)(shelf_name name, void *arg), void *arg)
{
    for (size_t i = 0; i < SHELF_BUCKETS; i++) {
        for (const shelf_value *value = shelf.values[i]; value != NULL; value = value->next) {
            each(value->name, arg);
        }
    }
}

/* --- per seed ---------------------------------------------------------------------------- */

void shelf_start(uint64_t seed)
{
    sim_chance_init(&shelf.chance, seed, "shelf");
}

void shelf_end(void)
{
    for (size_t i = 0; i < SHELF_BUCKETS; i++) {
        while (shelf.blocks[i] != NULL) {
            shelf_drop(&shelf.blocks[i]);
        }
        while (shelf.values[i] != NULL) {
            shelf_remove(shelf.values[i]->name);
        }
    }
}
