/*
 * shrink.c - see shrink.h.
 *
 * Delta debugging (Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", 2002), in its plain
 * form: pieces of the list are left out, the halves first, then smaller and smaller pieces, as long as the seed still
 * fails. What is left out changes what happens afterwards, so the result is a local minimum.
 */
#include "shrink.h"

#include <stdio.h>
#include <string.h>

/* A seed that needs fewer than these is small enough. */
#define SHRINK_TRIALS 2000

typedef struct shrink_state {
    sim_decision list[SIM_DECISIONS];
    size_t n;
    uint32_t operations;
    shrink_trial trial;
    void *arg;
    unsigned trials;
} shrink_state;

static bool shrink_try(shrink_state *state, const sim_decision *list, size_t n, uint32_t operations)
{
    sim_faults *faults = &sim_faults_drawn;

    state->trials++;
    faults->selects = true;
    faults->n_selected = n;
    memcpy(faults->selected, list, n * sizeof(*list));
    return state->trial(operations, state->arg);
}

/* Leaves out list[from, from + size). */
static bool shrink_without(shrink_state *state, size_t from, size_t size)
{
    static sim_decision rest[SIM_DECISIONS];
    size_t n = 0;

    for (size_t i = 0; i < state->n; i++) {
        if (i < from || i >= from + size) {
            rest[n++] = state->list[i];
        }
    }
    if (!shrink_try(state, rest, n, state->operations)) {
        return false;
    }
    state->n = n;
    memcpy(state->list, rest, n * sizeof(*rest));
    return true;
}

static void shrink_faults(shrink_state *state)
{
    for (size_t size = state->n; size > 0 && state->trials < SHRINK_TRIALS;) {
        bool less = false;
        for (size_t from = 0; from < state->n && state->trials < SHRINK_TRIALS;) {
            size_t piece = state->n - from < size ? state->n - from : size;
            if (shrink_without(state, from, piece)) {
                less = true;
            } else {
                from += piece;
            }
        }
        fprintf(stderr, "shrink: %zu faults are left after %u runs\n", state->n, state->trials);
        size = size == 1 && less ? 1 : size / 2;
    }
}

static void shrink_operations(shrink_state *state)
{
    for (uint32_t step = 256; step > 0; step /= 2) {
        uint32_t fewer = state->operations > step ? state->operations - step : 0;
        while (fewer > 0 && shrink_try(state, state->list, state->n, fewer)) {
            state->operations = fewer;
            fewer = fewer > step ? fewer - step : 0;
        }
    }
    fprintf(stderr, "shrink: %u operations per client after %u runs\n", state->operations, state->trials);
}

uint32_t shrink_run(const sim_decision *list, size_t n, shrink_trial trial, void *arg)
{
    static shrink_state state;

    state = (shrink_state){.n = n, .operations = 512, .trial = trial, .arg = arg};
    memcpy(state.list, list, n * sizeof(*list));
    if (!shrink_try(&state, state.list, state.n, 0)) {
        fprintf(stderr, "shrink: with the faults that happened named one by one, the seed does not fail\n");
        sim_faults_drawn.selects = false;
        return 0;
    }
    if (!shrink_try(&state, state.list, state.n, state.operations)) {
        state.operations = 0;
    }
    shrink_faults(&state);
    if (state.operations > 0) {
        shrink_operations(&state);
        shrink_faults(&state);
    }
    sim_faults_drawn.n_selected = state.n;
    memcpy(sim_faults_drawn.selected, state.list, state.n * sizeof(*state.list));
    return state.operations;
}
