/*
 * load.h - what a workload is: a program of a client process that calls the public C API only, and what the oracle may
 * expect of it.
 *
 * A client process runs load_client_main. Its load_client lies in the simulator's memory and outlives the process: when
 * the process is killed, the world starts it again with the next life, the same kind, and the rest of the budget.
 * Everything else of a workload (buffers, tq_ops, metas) lies on the heap of the process, by malloc, and goes with it;
 * load_memory is malloc that waits while memory is short.
 *
 * Every call goes through call.h, which records it in the history (oracle/history.h), waits for it, and hands what was
 * read to the oracle. A workload therefore contains no checks of its own; it only has to be a legal program: the oracle
 * takes TQ_EINVAL and its like for a fault of the product.
 */
#ifndef TQ_SIM_LOAD_H
#define TQ_SIM_LOAD_H

#include "../sim.h"

#include <tq/tq.h>

typedef struct load_client load_client;

/* A workload. */
typedef struct load_kind {
    const char *name;
    /* The client is open. Returns when the budget is used up or the client was closed (load_close); ops that are still
     * in flight then are cancelled and freed by whoever made them. */
    void (*run)(load_client *self);
    /* Its partitions are "NAME-0", "NAME-1"; if shared, "open-0", "open-1", which all shared kinds use: rows that one
     * has put are claimed, overwritten and cleared by others. */
    bool shared;
    /* What the system must have, or the seed does not draw it: NULL, or a name that the world knows ("kv", "disk"). */
    const char *needs;
    /* Its seeds have no clients of another kind. */
    bool alone;
    /* It speaks the protocol itself, and not always the truth: the oracle believes only what servers do. */
    bool raw;
} load_kind;

struct load_client {
    uint32_t number; /* among the clients of the seed, from 1 */
    uint32_t life;   /* 1, then one more after each restart */
    const load_kind *kind;
    sim_chance chance; /* of this client; goes on in the next life */
    uint32_t budget;   /* ops that may still be started, in all lives together */
    tq_client *client; /* of this life; NULL: not open */
    double timeout;    /* that it was opened with */
    bool drains;       /* it runs load_drain, in the liveness phase */
    bool done;         /* main has returned in order; the world does not start it again */
};

/* All workloads, in a fixed order. */
extern const load_kind *const load_kinds[];
extern const size_t load_kinds_count;

extern const load_kind load_grpo;
extern const load_kind load_stream;
extern const load_kind load_churn;
extern const load_kind load_views;
extern const load_kind load_cancel;
extern const load_kind load_keyed;
extern const load_kind load_kv;
extern const load_kind load_kvstore;
extern const load_kind load_checkpoint;
extern const load_kind load_checkpoint_whole;
extern const load_kind load_stateful;

/* Main function of a client process; arg is its load_client. Opens the client (again and again, while faults prevent
 * it), runs the kind, closes, sets `done` and returns. */
void load_client_main(void *arg);
/* Main function of the process that drains and clears everything, when all other clients are done and faults are over;
 * arg is its load_client (kind NULL). The oracle then checks that nothing is lost. */
void load_drain(void *arg);

/* --- for workloads: client.c ------------------------------------------------ */

/* Whether another op may be started; takes it from the budget. */
bool load_spend(load_client *self);
/* Name of the partition of that number: see load_kind.shared. Valid until the seed ends. */
const char *load_partition(const load_client *self, uint32_t number);
/* Runs main(thread) in n threads of the process, each with a chance of its own, and waits for them. */
typedef struct load_thread {
    load_client *client;
    uint32_t number; /* from 0 */
    sim_chance chance;
} load_thread;
void load_threads(load_client *self, uint32_t n, void (*main)(load_thread *thread));
/* Closes the client in the middle of a workload and opens it again; ops in flight end with TQ_ECLOSED. No other thread
 * may be in a call. */
void load_reopen(load_client *self);
void load_open(load_client *self);
void load_close(load_client *self);
/* Opens the client, runs that, closes and sets `done`. */
void load_client_run(load_client *self, void (*run)(load_client *self));
/* malloc, which is tried again while the process is out of memory; free it with free. */
void *load_memory(size_t size);
/* Lets a drawn time pass, between 0 and `most`. */
void load_pause(sim_chance *chance, uint64_t most);

#endif
