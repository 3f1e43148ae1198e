/*
 * put_choose.c - which units a put tries, and in which order.
 *
 * First the units of this machine, then the better of two others drawn at random, then the other one; only if none of
 * them has accepted the put, the rest: all that are known to have room, then some that are not, because room may have
 * been made meanwhile. In a full store of thousands of units, no put asks every unit: one that has reported being full
 * counts as full until the list says otherwise. Drawing two spreads the puts of many clients nearly as evenly as
 * examining all of them would, and better if the information is stale: not everybody picks the one with the most room.
 * If units are crowded, a client stays with those it is connected to while they have room: with one connection per
 * client, for many thousand clients, instead of one per unit, connections need not be closed for each other again and
 * again.
 */
#include <stdlib.h>

#include "base/clock.h"
#include "manager/simple/put.h"

/* Most units of this machine that are tried before any other. */
#define CHOOSE_NEAR 16u
/* Most units drawn for each of the two, until one is found that is known to have room. */
#define CHOOSE_DRAWS 8u

/* How many of each rank of units that are not known to have room are tried with the rest. */
#define CHOOSE_FULL 16u

/* How early a unit of the rest is tried. */
typedef enum choose_rank {
    CHOOSE_ROOMY,     /* it answers, and is known to have room */
    CHOOSE_ANSWERS,   /* room may have been made meanwhile */
    CHOOSE_SILENT,    /* it may answer again */
    CHOOSE_TOO_SMALL, /* it says so itself, if there is no other */
    CHOOSE_RANKS
} choose_rank;

uint64_t tqi_simple_put_free_bytes(const tqi_simple_link *link)
{
    uint64_t used = tqi_simple_link_used(link);

    return used < link->capacity ? link->capacity - used : 0;
}

/* How much of a unit the batch may fill, by its capacity and the usual share for new samples; the unit itself decides
 * exactly. */
static uint64_t choose_limit(const tqi_simple_put_op *op, const tqi_simple_link *link)
{
    return op->job->adds_samples ? link->capacity / 10 * 9 : link->capacity;
}

bool tqi_simple_put_possible(const tqi_simple_put_op *op, const tqi_simple_link *link)
{
    return link->capacity == 0 || op->total <= choose_limit(op, link);
}

bool tqi_simple_put_fits(const tqi_simple_put_op *op, const tqi_simple_link *link, uint64_t taken)
{
    uint64_t limit = choose_limit(op, link), used = tqi_simple_link_used(link) + taken;

    return link->capacity == 0 || (used <= limit && op->total <= limit - used);
}

static bool choose_fits(const tqi_simple_put_op *op, const tqi_simple_link *link)
{
    return tqi_simple_put_fits(op, link, 0);
}

void tqi_simple_put_note_full(const tqi_simple_put_op *op, tqi_simple_link *link)
{
    uint64_t limit = choose_limit(op, link);

    if (link->capacity > 0 && choose_fits(op, link)) {
        tqi_simple_link_grow(link, limit - op->total + 1);
    }
}

/* Connected, and with a good part of its room free. */
static bool choose_at_hand(const tqi_simple_link *link)
{
    return link->channel != NULL && tqi_net_channel_connected(link->channel) &&
           tqi_simple_put_free_bytes(link) >= link->capacity / 4;
}

/* Whether a is to be tried before b. */
static bool choose_before(const tqi_simple_link *a, const tqi_simple_link *b)
{
    if (a->silent != b->silent) {
        return b->silent;
    }
    if (tqi_simple_link_near(a) != tqi_simple_link_near(b)) {
        return tqi_simple_link_near(a);
    }
    if (tqi_net_connector_crowded(a->simple->connector) && choose_at_hand(a) != choose_at_hand(b)) {
        return choose_at_hand(a);
    }
    return tqi_simple_put_free_bytes(a) > tqi_simple_put_free_bytes(b);
}

static choose_rank choose_rank_of(const tqi_simple_put_op *op, const tqi_simple_link *link)
{
    if (!tqi_simple_put_possible(op, link)) {
        return CHOOSE_TOO_SMALL;
    }
    if (link->silent) {
        return CHOOSE_SILENT;
    }
    return choose_fits(op, link) ? CHOOSE_ROOMY : CHOOSE_ANSWERS;
}

/* The same of the rest, by rank. */
static int choose_compare(const void *one, const void *other)
{
    const tqi_simple_link *a = *(tqi_simple_link *const *)one, *b = *(tqi_simple_link *const *)other;

    if (a->rank != b->rank) {
        return a->rank < b->rank ? -1 : 1;
    }
    if (choose_before(a, b) || choose_before(b, a)) {
        return choose_before(a, b) ? -1 : 1;
    }
    return a->lot < b->lot ? -1 : a->lot > b->lot;
}

/* The next number of a sequence that need not be secret (xorshift, G. Marsaglia). */
static uint64_t choose_number(tqi_simple *simple)
{
    while (simple->lot == 0) {
        tqi_random(&simple->lot, sizeof(simple->lot));
    }
    simple->lot ^= simple->lot << 13;
    simple->lot ^= simple->lot >> 7;
    simple->lot ^= simple->lot << 17;
    return simple->lot;
}

/* Adds those of this machine, starting elsewhere each time, so that equal ones take turns; their order is kept. */
static void choose_near(tqi_simple_put_op *op)
{
    const tqi_simple_links *near = &op->simple->near;
    size_t n = near->n < CHOOSE_NEAR ? near->n : CHOOSE_NEAR;
    size_t start = op->simple->turn++;

    for (size_t k = 0; k < n; k++) {
        tqi_simple_link *link = near->items[(start + k) % near->n];
        if (link->silent) {
            continue; /* it comes with the rest */
        }
        size_t i = op->n_units++;
        while (i > 0 && choose_before(link, op->units[i - 1])) {
            op->units[i] = op->units[i - 1];
            i--;
        }
        op->units[i] = link;
    }
}

/* A unit elsewhere, other than `but`, that answers and is known to have room; NULL: none was drawn. */
static tqi_simple_link *choose_draw(tqi_simple_put_op *op, const tqi_simple_link *but)
{
    const tqi_simple_links *far = &op->simple->far;

    for (unsigned i = 0; far->n > 0 && i < CHOOSE_DRAWS; i++) {
        tqi_simple_link *link = far->items[choose_number(op->simple) % far->n];
        if (link != but && !link->silent && choose_fits(op, link)) {
            return link;
        }
    }
    return NULL;
}

bool tqi_simple_put_elsewhere(tqi_simple_put_op *op)
{
    const tqi_simple_links *near = &op->simple->near;

    for (size_t i = 0; i < near->n && i < CHOOSE_NEAR; i++) {
        const tqi_simple_link *link = near->items[i];
        if (link != op->unit && !link->silent && choose_fits(op, link)) {
            return true;
        }
    }
    return choose_draw(op, op->unit) != NULL;
}

static void choose_far(tqi_simple_put_op *op)
{
    tqi_simple_link *one = choose_draw(op, NULL);
    tqi_simple_link *other = one != NULL ? choose_draw(op, one) : NULL;

    if (other != NULL && choose_before(other, one)) {
        op->units[op->n_units++] = other;
        other = one;
        one = NULL;
    }
    if (one != NULL) {
        op->units[op->n_units++] = one;
    }
    if (other != NULL) {
        op->units[op->n_units++] = other;
    }
}

int tqi_simple_put_choose(tqi_simple_put_op *op, tq_error *err)
{
    free(op->units);
    op->units = calloc(CHOOSE_NEAR + 2, sizeof(*op->units));
    op->n_units = 0;
    op->at = 0;
    op->all = false;
    if (op->units == NULL) {
        return tqi_error_nomem(err, "a put");
    }
    choose_near(op);
    choose_far(op);
    return TQ_OK;
}

static void choose_add(tqi_simple_put_op *op, const tqi_simple_links *set)
{
    for (size_t i = 0; i < set->n; i++) {
        tqi_simple_link *link = set->items[i];
        if (link->chosen != op->simple->chosen) {
            link->lot = choose_number(op->simple);
            link->rank = choose_rank_of(op, link);
            op->units[op->n_units++] = link;
        }
    }
}

/* Drops units unlikely to accept it from the sorted rest. Each rank has its own limit, so that none crowds out another:
 * full units must not hide a silent one with room, nor small units a large one. */
static void choose_drop(tqi_simple_put_op *op, size_t first)
{
    size_t n = first, kept[CHOOSE_RANKS] = {0};

    for (size_t i = first; i < op->n_units; i++) {
        unsigned rank = op->units[i]->rank;
        if (rank == CHOOSE_ROOMY || kept[rank]++ < CHOOSE_FULL) {
            op->units[n++] = op->units[i];
        }
    }
    op->n_units = n;
}

int tqi_simple_put_choose_rest(tqi_simple_put_op *op, tq_error *err)
{
    tqi_simple *simple = op->simple;
    size_t first = op->n_units;
    tqi_simple_link **units = realloc(op->units, (first + simple->near.n + simple->far.n + 1) * sizeof(*units));

    if (units == NULL) {
        return tqi_error_nomem(err, "a put");
    }
    op->units = units;
    op->all = true;
    simple->chosen++;
    for (size_t i = 0; i < first; i++) {
        units[i]->chosen = simple->chosen;
    }
    choose_add(op, &simple->near);
    choose_add(op, &simple->far);
    if (op->n_units > first) {
        qsort(units + first, op->n_units - first, sizeof(*units), choose_compare);
    }
    choose_drop(op, first);
    return TQ_OK;
}
