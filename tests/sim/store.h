/*
 * store.h - a key-value store beside the simulated processes: what Redis or Mooncake is to the KV manager.
 *
 * Its values lie in the simulator's memory, so they outlive the clients. A request takes time: it is on its way to the
 * store, is executed there, and its answer is on its way back; a client that is killed meanwhile leaves a request that
 * the store still executes, whole or in part. The store keeps the promise that the KV manager relies on: whatever it
 * executes, it executes within the write deadline.
 *
 * Faults: SIM_KV_SLOW (a request or its answer takes long), SIM_KV_FULL (a put finds no room), SIM_KV_LATE (a put or a
 * removal gets no answer, or an error, and is executed later), SIM_KV_EVICT (a value is dropped).
 */
#ifndef TQ_SIM_STORE_H
#define TQ_SIM_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The clients of the store: types of storage manager. */
#define STORE_WHOLE     "SimStore" /* reads parts of values; values of any size */
#define STORE_SMALL     "SimSmall" /* reads whole values of at most STORE_SMALL_MAX bytes: blocks have heads */
#define STORE_SWEPT     "SimSwept" /* as STORE_WHOLE, with keepalives and lists, so that later systems sweep */
#define STORE_SMALL_MAX 1000u

typedef struct store_options {
    uint64_t capacity;       /* bytes; 0: no limit */
    uint64_t write_deadline; /* nanoseconds: the controller's write_deadline; 0: 60 s */
} store_options;

/* Per seed. */
void store_start(uint64_t seed, const store_options *options);
void store_end(void);
/* Registers the three types in the running process, before tq_client_open. Ends the run if that fails for another
 * reason than memory; returns TQ_OK or TQ_ENOMEM. */
int store_register(void);

/* Values of blocks, and their bytes: not keepalives and marks of epochs, nor parts that can no longer be found because
 * the store evicted the head of their block. `epoch` 0: of all epochs. */
size_t store_values(uint64_t epoch);
uint64_t store_bytes(uint64_t epoch);
/* Requests that are still to be executed: for at most the write deadline. */
size_t store_pending(void);
/* One of the keys counted by store_values, for messages; "": none. */
const char *store_any_key(uint64_t epoch);

#endif
