/*
 * witness.h - the inner oracle: every change of the controller's table, in the order in which it was committed.
 *
 * The controller runs one handler at a time, so the order of its commits is itself the proof that operations are
 * linearisable. The functions of src/table that change the table are wrapped when the program is linked
 * (wrap_witness.txt). Each change is made to a naive model as well, and its outcome must be the model's; now and then
 * the whole table is compared. What was committed is listed for the checks on the history of the clients.
 *
 * Also here: the checks of memory (a block's bytes change only before it is published) and of the state at rest.
 */
#ifndef TQ_SIM_WITNESS_H
#define TQ_SIM_WITNESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "sim.h"

/* Per seed; witness_end frees the commits. */
void witness_start(uint64_t seed);
void witness_end(void);

typedef enum witness_kind {
    WITNESS_PUBLISH,     /* put; also of tags alone */
    WITNESS_RESERVE,     /* a publish without fields and tags */
    WITNESS_CLEAR,       /* by indexes or keys, or of the whole partition (`whole`) */
    WITNESS_CLEAR_BEGIN, /* the same, in two phases: the indexes are held */
    WITNESS_CLEAR_END,   /* the held indexes may be used again */
    WITNESS_RESET,       /* task "": of all tasks; samples: those that were consumed */
    WITNESS_TAKE,        /* a claim */
    WITNESS_SETTLE,      /* its reply was acknowledged */
    WITNESS_RELEASE,     /* it goes back; samples: those that are free again */
    WITNESS_SESSION_END, /* one RELEASE for each of its claims comes before it */
    WITNESS_LOST,        /* samples that have lost cells, one commit per partition */
    WITNESS_MOVE,        /* cells lie elsewhere; no samples */
    WITNESS_DROP,        /* a restore takes this partition away; samples: those it had */
    WITNESS_RESTORE,     /* a restored partition; samples: those it has now */
    WITNESS_KINDS
} witness_kind;
extern const char *const witness_kind_names[WITNESS_KINDS];

typedef struct witness_sample {
    uint32_t index;
    uint32_t incarnation;
} witness_sample;

/* Only changes that succeeded; a refused one leaves the table as it was. All memory stays until witness_end. */
typedef struct witness_commit {
    uint64_t number;     /* 1, 2, ...: the order of commits in this seed */
    uint64_t time;       /* sim_time() */
    uint64_t controller; /* pid of the controller's process */
    uint64_t epoch;
    witness_kind kind;
    bool whole;  /* the whole partition */
    bool at_end; /* a claim that goes back because its session has ended */
    /* Whose request it is; "" and 0 when it comes from no request (the end of a session, a timeout, an
     * acknowledgement). A waiting claim is committed within the request that made it possible, but this is the claim's
     * own. */
    const char *client;    /* name of the session */
    uint64_t pid;          /* of its process */
    uint64_t session;      /* number that the controller gave it, from 1 in each controller */
    uint64_t request;      /* number within the session */
    uint16_t request_kind; /* of wire/methods.h */
    const char *partition; /* "" where there is none */
    const char *task;      /* "" where there is none */
    uint64_t claim;
    /* What was written, cleared, taken, given back or lost, in the order in which the reply names it. */
    const witness_sample *samples;
    uint32_t n;
    /* TAKE: what the task has consumed, which a sampler may choose apart from what it hands out. */
    const witness_sample *consumed;
    uint32_t n_consumed;
    /* TAKE: the ordinal of each of the samples in its partition, from 0. */
    const uint64_t *ordinals;
    uint32_t again; /* TAKE: how many of the samples the task had consumed before */
    uint32_t made;  /* PUBLISH, RESERVE: how many of the samples are new */
    /* PUBLISH: fields of which cells were written; TAKE: fields of the view, by name. */
    const char *const *fields;
    uint32_t n_fields;
    /* PUBLISH: keys of the samples, NULL for none; the array is NULL when no sample has a key */
    const char *const *keys;
    uint64_t op; /* PUBLISH: the value of the tag "op" of the first sample, if it has one that is an integer; else 0 */
} witness_commit;

/* All commits of this seed so far; the array may move with the next one, what it points to does not. */
void witness_commits(const witness_commit **commits, size_t *n);
/* Commits so far, for places that only remember where they were. */
uint64_t witness_count(void);
/* What is lost although it was put: whether the sample (of that partition and controller) has lost the field by now. */
bool witness_is_lost(uint64_t controller, const char *partition, witness_sample sample, const char *field);

/* --- at rest --------------------------------------------------------------- */

/* Everything has ended that was begun, all data is cleared, all clients but none of the servers have disconnected, and
 * max(grace, owner timeout, write deadline) has passed since. Any number of times; the first time in a process its
 * descriptors and allocations are remembered, and later times must find the same. */
void rest_check(void);

#endif
