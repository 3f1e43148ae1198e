/*
 * witness_balance.c - parts of equal weight, checked by what their method guarantees: merging two solutions, the
 * heaviest set of one with the lightest of the other, never makes a spread that is larger than both. So the parts
 * differ by no more than the things of one initial solution did, which are neighbours in the order of weights.
 */
#include "oracle/ledger.h"

#include <stdlib.h>

#include <tq/sampler.h>

static int balance_order(const void *left, const void *right)
{
    const double a = *(const double *)left, b = *(const double *)right;

    return a < b ? -1 : a > b;
}

/* The largest difference within an initial solution: `each` neighbours. */
static double balance_bound(double *sorted, uint32_t n, uint32_t each)
{
    double bound = 0;

    qsort(sorted, n, sizeof(*sorted), balance_order);
    for (uint32_t i = 0; i < n; i += each) {
        const double spread = sorted[i + each - 1] - sorted[i];
        bound = spread > bound ? spread : bound;
    }
    return bound;
}

static void balance_check(const double *weights, uint32_t n, uint32_t k, const uint32_t *part)
{
    double *sums = sim_alloc(k * sizeof(*sums)), *sorted = sim_alloc(n * sizeof(*sorted));
    uint32_t *counts = sim_alloc(k * sizeof(*counts));
    double least, most, all = 0;

    memset(sums, 0, k * sizeof(*sums));
    memset(counts, 0, k * sizeof(*counts));
    for (uint32_t i = 0; i < n; i++) {
        sim_check(part[i] < k, "balance", "thing %u is in part %u of %u", i, part[i], k);
        sums[part[i]] += weights[i];
        counts[part[i]]++;
        sorted[i] = weights[i];
        all += weights[i] < 0 ? -weights[i] : weights[i];
    }
    least = most = sums[0];
    for (uint32_t p = 0; p < k; p++) {
        sim_check(counts[p] == n / k, "balance", "part %u of %u has %u of %u things", p, k, counts[p], n);
        least = sums[p] < least ? sums[p] : least;
        most = sums[p] > most ? sums[p] : most;
    }
    sim_check(most - least <= balance_bound(sorted, n, k) + all * 1e-9, "balance",
              "parts of %u things weigh from %g to %g, which is %g too much", n, least, most,
              most - least - balance_bound(sorted, n, k));
    sim_free(sums);
    sim_free(sorted);
    sim_free(counts);
}

WITNESS_WRAP(int, tq_balance, const double *weights, uint32_t n, uint32_t k, bool equal, uint32_t *part, tq_error *err)
{
    int rc = __real_tq_balance(weights, n, k, equal, part, err);

    if (rc == TQ_OK && equal) {
        balance_check(weights, n, k, part);
    }
    return rc;
}
