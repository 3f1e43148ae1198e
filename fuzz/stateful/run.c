/*
 * run.c - one run: a world, steps until the input is used up, and the final checks.
 */
#include "stateful.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"

#define RUN_STEPS_MAX 20000u
#define RUN_CHECK     64u

static void run_silent(tq_log_level level, const char *component, const char *text, void *arg)
{
    (void)level;
    (void)component;
    (void)text;
    (void)arg;
}

static void run_begin(sf *f, const uint8_t *data, size_t size)
{
    memset(f, 0, sizeof(*f));
    f->data = data;
    f->size = size;
    f->name = "client";
    for (int i = 0; i < SF_CLIENTS; i++) {
        f->client[i].session[0] = (uint8_t)(i + 1);
        for (int l = 0; l < 2; l++) {
            f->client[i].link[l].fd = -1;
            f->client[i].link[l].next = 1;
            f->client[i].link[l].unit = l == 1;
        }
    }
    for (unsigned i = 0; i < SF_NUMBERS; i++) {
        f->number[i] = i;
    }
    tq_log_set_sink(run_silent, NULL);
    sf_runs++;
    sf_host_begin(UINT64_C(0x9e3779b97f4a7c15));
    sf_open(f);
}

static void run_end(sf *f)
{
    sf_check_empty(f);
    sf_close(f);
    for (int i = 0; i < SF_CLIENTS; i++) {
        if (f->client[i].pid) {
            sf_process_rest(f->client[i].pid);
        }
        sf_forget(f, &f->client[i], false);
    }
    for (int i = 0; i < SF_SAVED; i++) {
        sf_saved_drop(&f->saved[i]);
    }
    for (unsigned i = 0; i < f->n_remover; i++) {
        free(f->remover[i]);
    }
    free(f->arena);
    sf_host_end();
}

void sf_run(const uint8_t *data, size_t size)
{
    /* How many of 256 requests are spoiled. */
    static const unsigned rates[] = {0, 8, 24, 48, 96, 160, 16, 32};
    static sf f;

    run_begin(&f, data, size);
    f.rate = rates[sf_pick(&f, 8)];
    while (!f.over && f.steps < RUN_STEPS_MAX) {
        sf_step(&f);
        if (f.steps % RUN_CHECK == 0) {
            sf_check(&f);
        }
    }
    f.over = true;
    sf_check(&f);
    run_end(&f);
}
