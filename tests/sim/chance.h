/*
 * chance.h - the faults of a seed: which may happen, how often, and which ones did.
 */
#ifndef TQ_SIM_CHANCE_H
#define TQ_SIM_CHANCE_H

#include "sim.h"

#define SIM_DECISIONS 65536

/* A fault that happened, by the number of the decision among those of its kind. */
typedef struct sim_decision {
    sim_fault fault;
    uint32_t number;
} sim_decision;

typedef struct sim_faults {
    uint64_t seed;
    bool calm;                   /* the liveness phase: nothing happens any more */
    uint32_t one_in[SIM_FAULTS]; /* 0: off */
    uint32_t asked[SIM_FAULTS];  /* decisions so far */
    uint32_t happened[SIM_FAULTS];
    uint64_t total;
    /* The faults of this run, for --shrink. */
    size_t n_list;
    sim_decision list[SIM_DECISIONS];
    /* --only: of the decisions that the seed has, only these happen. */
    bool selects;
    size_t n_selected;
    sim_decision selected[SIM_DECISIONS];
    /* --without: kinds that are off. */
    size_t n_off;
    sim_fault off[SIM_FAULTS];
} sim_faults;

extern sim_faults sim_faults_drawn;
/* Draws the mix of a seed. Selections stay. */
void sim_faults_draw(uint64_t seed);

#endif
