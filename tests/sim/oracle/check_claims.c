/*
 * check_claims.c - a claim that ended at its deadline, after the last fault, had a reason: there was no second in which
 * its view held enough and nobody took it.
 *
 * Only for claims that take the first samples that are ready; what the samplers of groups and ranks need is not known
 * here. A claim of this kind whose view holds enough can always be served.
 */
#include "oracle/check_parts.h"

#include <inttypes.h>
#include <string.h>

#define CLAIMS_HEAL  (10 * SIM_S) /* after the last fault: clients are connected again, and lost storage is known */
#define CLAIMS_SERVE (1 * SIM_S)

static bool claims_sequential(const history_op *op)
{
    return op->sampler == NULL || strcmp(op->sampler, "SequentialSampler") == 0;
}

/* Samples that are ready for the claim at c. */
static uint32_t claims_ready(const history_op *op, uint64_t c)
{
    const trail_partition *partition = trail_partition_of(op->partition);
    uint32_t n = 0;

    for (size_t i = 0; partition != NULL && i < partition->n; i++) {
        const trail_sample *sample = partition->samples[i];
        bool ready = trail_alive(sample, c) && !sample->restored && !trail_used(sample, op->task, c);

        for (uint32_t f = 0; ready && f < op->n_fields; f++) {
            const trail_write *write = trail_write_at(trail_cell_of(sample, op->fields[f]), c);

            ready = write != NULL && !trail_lost(sample, write, c);
        }
        n += ready;
    }
    return n;
}

void check_op_served(const history_op *op)
{
    const uint64_t calm = history_calm_time();
    uint64_t from;
    uint64_t since = SIM_NEVER; /* when the view began to hold enough */

    if (op->call != HISTORY_CLAIM || op->code != TQ_ETIMEDOUT || op->status == HISTORY_RUNNING || calm == SIM_NEVER ||
        !claims_sequential(op) || op->force || op->poll || op->cancelled) {
        return;
    }
    trail_set_epoch(op->epoch);
    from = (op->invoked > calm + CLAIMS_HEAL ? op->invoked : calm + CLAIMS_HEAL) + CLAIMS_SERVE;
    for (uint64_t c = op->commits_invoked; c <= op->commits_ended; c++) {
        const uint64_t time = c > 0 ? trail_commit_at(c)->time : 0;
        const uint64_t next = c < op->commits_ended ? trail_commit_at(c + 1)->time : op->ended;

        if (next < from) {
            continue;
        }
        if (claims_ready(op, c) < op->n) {
            since = SIM_NEVER;
            continue;
        }
        since = since != SIM_NEVER ? since : time > from ? time : from;
        sim_check(next < since + CLAIMS_SERVE, "liveness",
                  "%s of %u samples timed out, but from %.3f s to %.3f s %u samples were ready for it (commit %" PRIu64
                  ")",
                  check_name(op), op->n, (double)since / 1e9, (double)next / 1e9, claims_ready(op, c), c);
    }
}
