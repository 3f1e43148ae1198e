/*
 * balance.c - sequences of different lengths, shared out among ranks so that each gets about as many tokens.
 */
#include <tq/sampler.h>

#include "example.h"

static void share_out(const double *lengths, uint32_t n, uint32_t ranks, uint32_t *rank)
{
    tq_error err;

    must(tq_balance(lengths, n, ranks, true, rank, &err), &err);
}

int main(void)
{
    const double lengths[6] = {900, 100, 500, 500, 120, 880};
    double tokens[3] = {0};
    uint32_t rank[6];

    share_out(lengths, 6, 3, rank);
    for (int i = 0; i < 6; i++) {
        tokens[rank[i]] += lengths[i];
    }
    printf("%.0f %.0f %.0f tokens\n", tokens[0], tokens[1], tokens[2]);
    return 0;
}
