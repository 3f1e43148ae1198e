/*
 * client.c - a client process: it opens its client, runs its workload and closes it.
 */
#include "load/call.h"

#include <stdlib.h>
#include <string.h>

#define CLIENT_THREADS 8

/* Codes with which opening may fail as long as there are faults. */
static bool client_may_fail(int rc)
{
    return rc == TQ_EUNREACHABLE || rc == TQ_ETIMEDOUT || rc == TQ_ENOMEM || rc == TQ_EIO;
}

/* Opens the client, again and again while faults prevent it. */
void load_open(load_client *self)
{
    tq_client_options options;
    tq_error err;
    int rc;

    for (uint32_t attempts = 1;; attempts++) {
        world_client_options(&options);
        options.timeout = options.timeout != 0 && sim_one_in(&self->chance, 4) ? 2 : options.timeout;
        memset(&err, 0, sizeof(err));
        rc = tq_client_open(&options, &self->client, &err);
        if (rc == TQ_OK) {
            self->timeout = options.timeout != 0 ? options.timeout : 60;
            break;
        }
        sim_check(client_may_fail(rc), "legal programs get legal errors", "tq_client_open: %s: %s", tq_error_name(rc),
                  err.message);
        sim_check(attempts < 100, "liveness", "a client cannot be opened: %s: %s", tq_error_name(rc), err.message);
        load_pause(&self->chance, 500 * SIM_MS);
    }
    history_client("open", self->number, self->life, self->kind != NULL ? self->kind->name : "drain",
                   tq_client_epoch(self->client), self->drains);
}

void load_close(load_client *self)
{
    tq_client *client = self->client;

    self->client = NULL;
    tq_client_close(client);
    history_client("close", self->number, self->life, self->kind != NULL ? self->kind->name : "drain", 0, self->drains);
}

void load_reopen(load_client *self)
{
    load_close(self);
    load_open(self);
}

void load_client_run(load_client *self, void (*run)(load_client *self))
{
    load_open(self);
    run(self);
    load_close(self);
    self->done = true;
}

void load_client_main(void *arg)
{
    load_client *self = arg;

    load_client_run(self, self->kind->run);
}

bool load_spend(load_client *self)
{
    if (self->budget == 0) {
        return false;
    }
    self->budget--;
    return true;
}

const char *load_partition(const load_client *self, uint32_t number)
{
    static const char *const open[2] = {"open-0", "open-1"};
    static const char *const names[2] = {"-0", "-1"};
    char name[64] = "";

    number %= 2;
    if (self->kind == NULL || self->kind->shared) {
        return open[number];
    }
    strncat(name, self->kind->name, sizeof(name) - 4);
    strcat(name, names[number]);
    return history_text(name);
}

/* --- threads ---------------------------------------------------------------------- */

typedef struct client_thread {
    load_thread thread;
    void (*main)(load_thread *thread);
} client_thread;

static void *client_thread_main(void *arg)
{
    client_thread *thread = arg;

    thread->main(&thread->thread);
    return NULL;
}

void load_threads(load_client *self, uint32_t n, void (*main)(load_thread *thread))
{
    client_thread threads[CLIENT_THREADS];
    pthread_t ids[CLIENT_THREADS];
    uint32_t started = 0;

    n = n < CLIENT_THREADS ? n : CLIENT_THREADS;
    for (uint32_t i = 0; i < n; i++) {
        threads[i].main = main;
        threads[i].thread = (load_thread){.client = self, .number = i};
        sim_chance_init(&threads[i].thread.chance, sim_next(&self->chance), "thread");
        if (pthread_create(&ids[started], NULL, client_thread_main, &threads[i]) == 0) {
            started++;
        }
    }
    if (started == 0) {
        main(&threads[0].thread);
    }
    for (uint32_t i = 0; i < started; i++) {
        pthread_join(ids[i], NULL);
    }
}

void *load_memory(size_t size)
{
    void *memory = malloc(size);

    while (memory == NULL) {
        sim_pass(SIM_MS);
        memory = malloc(size);
    }
    return memory;
}

void load_pause(sim_chance *chance, uint64_t most)
{
    sim_pass(sim_below(chance, most + 1));
}
