/*
 * fit.c - see fit.h.
 */
#include "base/fit.h"

#include <stdlib.h>
#include <string.h>

#include <tq/errors.h>

#define FIT_NONE     UINT32_MAX
#define FIT_CAPACITY 4u /* at first: most rows are short */

static uint32_t fit_min(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

void tqi_fit_fini(tqi_fit *fit)
{
    free(fit->nodes);
    free(fit->least);
    *fit = (tqi_fit){0};
}

static void fit_set(tqi_fit *fit, uint32_t place, uint32_t need)
{
    uint32_t at = fit->capacity + place;

    fit->least[at] = need;
    while (at > 1) {
        at /= 2;
        uint32_t least = fit_min(fit->least[2 * at], fit->least[2 * at + 1]);
        if (fit->least[at] == least) {
            break;
        }
        fit->least[at] = least;
    }
}

/* Moves the remaining ones to the front of the array, and recomputes everything. */
static void fit_pack(tqi_fit *fit)
{
    uint32_t used = 0;

    for (uint32_t i = 0; i < fit->used; i++) {
        if (fit->nodes[i] != NULL) {
            fit->nodes[used] = fit->nodes[i];
            fit->nodes[used]->place = used + 1;
            used++;
        }
    }
    fit->used = used;
    for (uint32_t i = 0; i < fit->capacity; i++) {
        fit->least[fit->capacity + i] = i < used ? fit->nodes[i]->need : FIT_NONE;
    }
    for (uint32_t i = fit->capacity - 1; i > 0; i--) {
        fit->least[i] = fit_min(fit->least[2 * i], fit->least[2 * i + 1]);
    }
}

/* The array is full: packs it if half of the slots are free, else doubles it; either cost is amortised over as many
 * adds. */
static int fit_reserve(tqi_fit *fit)
{
    uint32_t capacity = fit->capacity == 0 ? FIT_CAPACITY : fit->capacity;
    tqi_fit_node **nodes;
    uint32_t *least;

    if (fit->used < fit->capacity) {
        return TQ_OK;
    }
    if (fit->count > fit->capacity / 2) {
        capacity = fit->capacity > UINT32_MAX / 4 ? 0 : fit->capacity * 2;
    }
    if (capacity == 0) {
        return TQ_ENOMEM;
    }
    if (capacity != fit->capacity) {
        nodes = realloc(fit->nodes, capacity * sizeof(*nodes));
        if (nodes == NULL) {
            return TQ_ENOMEM;
        }
        fit->nodes = nodes;
        least = realloc(fit->least, 2 * (size_t)capacity * sizeof(*least));
        if (least == NULL) {
            return TQ_ENOMEM;
        }
        fit->least = least;
        fit->capacity = capacity;
    }
    fit_pack(fit);
    return TQ_OK;
}

int tqi_fit_add(tqi_fit *fit, tqi_fit_node *node, uint32_t need)
{
    int rc = fit_reserve(fit);

    if (rc == TQ_OK) {
        node->need = need;
        node->place = fit->used + 1;
        fit->nodes[fit->used] = node;
        fit_set(fit, fit->used, need);
        fit->used++;
        fit->count++;
    }
    return rc;
}

void tqi_fit_remove(tqi_fit *fit, tqi_fit_node *node)
{
    if (node->place == 0) {
        return;
    }
    fit->nodes[node->place - 1] = NULL;
    fit_set(fit, node->place - 1, FIT_NONE);
    node->place = 0;
    if (--fit->count == 0) {
        fit->used = 0;
    }
}

tqi_fit_node *tqi_fit_first(const tqi_fit *fit, uint32_t room)
{
    uint32_t at = 1;

    room = fit_min(room, FIT_NONE - 1);
    if (fit->capacity == 0 || fit->least[1] > room) {
        return NULL;
    }
    while (at < fit->capacity) {
        at = 2 * at + (fit->least[2 * at] > room);
    }
    return fit->nodes[at - fit->capacity];
}
