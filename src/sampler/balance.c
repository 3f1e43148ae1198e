/*
 * balance.c - the largest differencing method for k parts: N. Karmarkar and R. M. Karp, "The differencing method of
 * set partitioning", Technical Report UCB/CSD 82/113, 1982.
 *
 * A solution is k sets with their sums, heaviest first. The two solutions with the largest spread are merged, the
 * heaviest set of one with the lightest of the other, until one is left. For parts of equal size, each initial
 * solution holds k consecutive things in order of weight, one per set; otherwise one thing and k - 1 empty sets. Ties
 * are broken by the number of things in a set and then by its first thing, so the same weights always give the same
 * parts.
 *
 * Sets are linked lists through `next`, so that a merge costs k log k: all of it n log n.
 */
#include "base/error.h"

#include <math.h>
#include <stdlib.h>
#include <tq/sampler.h>

#define BALANCE_NONE UINT32_MAX

typedef struct balance_set {
    double sum;
    uint32_t count;
    uint32_t first, last; /* things, linked by balance.next */
} balance_set;

typedef struct balance_item {
    double weight;
    uint32_t thing;
} balance_item;

typedef struct balance {
    uint32_t k;
    uint32_t n_heap;
    balance_set **heap; /* solutions of k sets; the one to merge first on top */
    balance_set *sets;
    balance_item *items; /* sorted */
    uint32_t *next;
} balance;

/* Lighter first. */
static int balance_compare_items(const void *a, const void *b)
{
    const balance_item *one = a;
    const balance_item *other = b;

    if (one->weight != other->weight) {
        return one->weight < other->weight ? -1 : 1;
    }
    return one->thing < other->thing ? -1 : one->thing > other->thing;
}

/* Heavier first. */
static int balance_compare_sets(const void *a, const void *b)
{
    const balance_set *one = a;
    const balance_set *other = b;

    if (one->sum != other->sum) {
        return one->sum > other->sum ? -1 : 1;
    }
    if (one->count != other->count) {
        return one->count > other->count ? -1 : 1;
    }
    return one->first > other->first ? -1 : one->first < other->first;
}

/* Whether solution a is merged before b. */
static bool balance_before(const balance *work, const balance_set *a, const balance_set *b)
{
    double spread_a = a[0].sum - a[work->k - 1].sum;
    double spread_b = b[0].sum - b[work->k - 1].sum;

    return spread_a != spread_b ? spread_a > spread_b : balance_compare_sets(a, b) < 0;
}

static void balance_push(balance *work, balance_set *solution)
{
    uint32_t at = work->n_heap++;

    while (at > 0 && balance_before(work, solution, work->heap[(at - 1) / 2])) {
        work->heap[at] = work->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    work->heap[at] = solution;
}

static balance_set *balance_pop(balance *work)
{
    balance_set *top = work->heap[0];
    balance_set *moved = work->heap[--work->n_heap];
    uint32_t at = 0;

    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= work->n_heap) {
            break;
        }
        if (child + 1 < work->n_heap && balance_before(work, work->heap[child + 1], work->heap[child])) {
            child++;
        }
        if (!balance_before(work, work->heap[child], moved)) {
            break;
        }
        work->heap[at] = work->heap[child];
        at = child;
    }
    work->heap[at] = moved;
    return top;
}

static void balance_append(balance *work, balance_set *to, const balance_set *from)
{
    if (from->count == 0) {
        return;
    }
    if (to->count == 0) {
        *to = *from;
        return;
    }
    work->next[to->last] = from->first;
    to->last = from->last;
    to->count += from->count;
    to->sum += from->sum;
}

/* The first solutions: `each` things in every one. */
static void balance_start(balance *work, uint32_t n, uint32_t each)
{
    balance_set *solution = work->sets;

    for (uint32_t i = 0; i < n; i += each, solution += work->k) {
        for (uint32_t j = 0; j < work->k; j++) {
            /* The things are sorted, so the sets are too, starting from the last one. */
            const balance_item *item = j < each ? &work->items[i + each - 1 - j] : NULL;
            solution[j] = item != NULL ? (balance_set){item->weight, 1, item->thing, item->thing}
                                       : (balance_set){0, 0, BALANCE_NONE, BALANCE_NONE};
        }
        /* Weights below 0 come after the empty sets. */
        qsort(solution, work->k, sizeof(*solution), balance_compare_sets);
        balance_push(work, solution);
    }
}

static int balance_check(const double *weights, uint32_t n, uint32_t k, bool equal, tq_error *err)
{
    if (k == 0 || n < k) {
        return tqi_error_set(err, TQ_EINVAL, "%u things cannot be split into %u parts", n, k);
    }
    if (equal && n % k != 0) {
        return tqi_error_set(err, TQ_EINVAL, "%u things cannot be split into %u parts of equal size", n, k);
    }
    for (uint32_t i = 0; i < n; i++) {
        if (!isfinite(weights[i])) {
            return tqi_error_set(err, TQ_EINVAL, "the weight of thing %u is not a finite number", i);
        }
    }
    return TQ_OK;
}

int tq_balance(const double *weights, uint32_t n, uint32_t k, bool equal, uint32_t *part, tq_error *err)
{
    uint32_t each = equal ? k : 1;
    balance work = {.k = k};

    if (weights == NULL || part == NULL) {
        return tqi_error_null(err, weights == NULL ? "tq_balance: weights" : "tq_balance: part");
    }
    int rc = balance_check(weights, n, k, equal, err);

    if (rc != TQ_OK) {
        return rc;
    }
    work.heap = calloc(n / each, sizeof(*work.heap));
    work.sets = calloc((size_t)(n / each) * k, sizeof(*work.sets));
    work.items = calloc(n, sizeof(*work.items));
    work.next = calloc(n, sizeof(*work.next));
    if (work.heap == NULL || work.sets == NULL || work.items == NULL || work.next == NULL) {
        rc = tqi_error_nomem(err, "parts of equal weight");
        goto done;
    }
    for (uint32_t i = 0; i < n; i++) {
        work.items[i] = (balance_item){weights[i], i};
    }
    qsort(work.items, n, sizeof(*work.items), balance_compare_items);
    balance_start(&work, n, each);
    while (work.n_heap > 1) {
        balance_set *one = balance_pop(&work);
        balance_set *other = balance_pop(&work);
        for (uint32_t i = 0; i < k; i++) {
            balance_append(&work, &one[i], &other[k - 1 - i]);
        }
        qsort(one, k, sizeof(*one), balance_compare_sets);
        balance_push(&work, one);
    }
    for (uint32_t p = 0; p < k; p++) {
        uint32_t thing = work.heap[0][p].first;
        for (uint32_t i = 0; i < work.heap[0][p].count; i++, thing = work.next[thing]) {
            part[thing] = p;
        }
    }

done:
    free(work.heap);
    free(work.sets);
    free(work.items);
    free(work.next);
    return rc;
}
