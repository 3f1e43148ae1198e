/*
 * options.h - the options of the program.
 */
#ifndef TQ_SIM_OPTIONS_H
#define TQ_SIM_OPTIONS_H

#include <stdio.h>

#include "world.h"

#define OPTIONS_JOBS 64

typedef struct sim_options {
    uint64_t first, last;
    bool has_last;
    double seconds;
    unsigned jobs;
    bool stop, trace, twice, shrink, quiet, verbose;
    uint64_t every; /* one seed in that many runs twice */
    const char *history;
    const char *corpus;
    world_options world;
} sim_options;

/* Fills *out, and what is selected in sim_faults_drawn; ends the program when an option is wrong, and says so with
 * `where` (NULL: they are the program's own). */
void options_parse(int argc, char **argv, const char *where, sim_options *out);
/* Prints the options that select what happens in a seed. */
void options_print(FILE *to, const sim_options *options);

#endif
