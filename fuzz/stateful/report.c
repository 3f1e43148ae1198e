/*
 * report.c - the requests of this process counted by kind, and the report of a fault.
 */
#include "stateful.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

sf_count sf_counts[SF_KINDS];
uint64_t sf_cut, sf_ended, sf_killed, sf_cancelled, sf_violations, sf_runs;

void sf_fault(const sf *f, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fprintf(stderr, "stateful: fault in step %llu: ", (unsigned long long)f->steps);
    vfprintf(stderr, format, args);
    fprintf(stderr, "\n");
    va_end(args);
    abort();
}

bool sf_tracing;

void sf_trace(const char *format, ...)
{
    va_list args;

    if (!sf_tracing) {
        return;
    }
    va_start(args, format);
    vprintf(format, args);
    va_end(args);
}

void sf_lack(const char *what)
{
    fprintf(stderr, "stateful: the fuzzer itself lacks %s\n", what);
    abort();
}

uint64_t sf_requests(void)
{
    uint64_t sum = 0;

    for (unsigned kind = 0; kind < SF_KINDS; kind++) {
        sum += sf_counts[kind].sent;
    }
    return sum;
}

unsigned sf_report(uint64_t least)
{
    sf_count all = {0};
    unsigned few = 0;

    printf("%-18s %10s %10s %10s %10s | %9s %9s\n", "request", "sent", "well", "refused", "no answer", "spoiled",
           "well");
    for (uint16_t kind = 0; kind < SF_KINDS; kind++) {
        const tqi_method *method = tqi_method_find(kind);
        const sf_count *n = &sf_counts[kind];
        if (method == NULL) {
            continue;
        }
        bool lacks = n->well < least;
        few += lacks;
        printf("%-18s %10llu %10llu %10llu %10llu | %9llu %9llu%s\n", method->name, (unsigned long long)n->sent,
               (unsigned long long)n->well, (unsigned long long)n->refused,
               (unsigned long long)(n->sent - n->well - n->well_mutated - n->refused), (unsigned long long)n->mutated,
               (unsigned long long)n->well_mutated, lacks ? "  too few" : "");
        all.sent += n->sent;
        all.mutated += n->mutated;
        all.well += n->well;
        all.well_mutated += n->well_mutated;
        all.refused += n->refused;
    }
    printf("%-18s %10llu %10llu %10llu %10llu | %9llu %9llu\n", "all", (unsigned long long)all.sent,
           (unsigned long long)all.well, (unsigned long long)all.refused,
           (unsigned long long)(all.sent - all.well - all.well_mutated - all.refused), (unsigned long long)all.mutated,
           (unsigned long long)all.well_mutated);
    printf("%llu runs; connections cut: %llu, frames that break the protocol: %llu, sessions left: "
           "%llu, processes killed: %llu, cancels: %llu\n",
           (unsigned long long)sf_runs, (unsigned long long)sf_cut, (unsigned long long)sf_violations,
           (unsigned long long)sf_ended, (unsigned long long)sf_killed, (unsigned long long)sf_cancelled);
    fflush(stdout);
    return few;
}
