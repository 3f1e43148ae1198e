/*
 * client.h - a client: its options, its queue and the pointer to its runtime.
 *
 * Threads. A tq_client has at most one runtime (runtime.h): a thread that runs a libuv loop, and everything that talks
 * to the system runs there. Calls are prepared on the caller's thread as a task (op.h: checked, copied), then queued.
 * One lock per client guards its queue, its cancel list and the pointer to its runtime; it is never held during a
 * callback, and no other lock is taken while it is held.
 */
#ifndef TQI_CLIENT_CLIENT_H
#define TQI_CLIENT_CLIENT_H

#include <pthread.h>
#include <stdatomic.h>

#include "base/region.h"
#include "net/net.h"

#include <tq/tq.h>

struct tqi_client_runtime;
struct tqi_client_borrows;

/* Options of tq_client_open, copied; a forked child reopens with them. */
typedef struct tqi_client_saved_options {
    tqi_region region;
    const char *address;
    const char *name;           /* NULL: program and pid */
    const char *manager;        /* NULL: the system's */
    const char *manager_config; /* NULL: the system's */
    const char *libraries;      /* that the system's config may name; NULL: none */
    const char *node;           /* NULL: the machine */
    double timeout;             /* not 0 */
    bool own_timeout;           /* else the system's client.timeout, once known */
    double notice;              /* 0: the system's */
    uint64_t first_request;
    tqi_net_token token;
} tqi_client_saved_options;

/* wait.c: approximate medians of how long recent waits for ops took. */
typedef struct tqi_client_waits {
    _Atomic uint32_t spun_ns;  /* of those that spun first */
    _Atomic uint32_t slept_ns; /* of those that slept at once */
    _Atomic uint32_t interval; /* number of waits between two that try the other kind */
    _Atomic uint32_t left;     /* until the next of these */
} tqi_client_waits;

void tqi_client_waits_init(tqi_client_waits *waits);
/* Whether the next wait should spin first. */
bool tqi_client_waits_spin(tqi_client_waits *waits);
/* Records how long a wait took; crowded: another thread had the core while this one was spinning. */
void tqi_client_waits_learn(tqi_client_waits *waits, bool spun, bool crowded, uint64_t ns);

struct tq_client {
    /* list of all clients of the process, for fork; under the lock of fork.c */
    tq_client *prev, *next;
    _Atomic uint32_t refs; /* the user's, and one per op */
    tqi_client_saved_options options;
    _Atomic uint64_t epoch;
    _Atomic uint64_t events_epoch; /* of the events that it had last; 0: none */
    char *config;                  /* set once, when the first runtime has opened */

    pthread_mutex_t lock;
    pthread_cond_t changed;             /* runtime's state, pause and quiet */
    struct tqi_client_runtime *runtime; /* NULL after fork until the first call */
    _Atomic uint32_t generation;        /* raised in every forked child */
    /* code 0, or why its system has ended; kept so that a forked child knows it at once */
    tq_error ended;
    bool closing;
    bool woken; /* the async was sent and the queue has not been drained since */
    bool pause; /* a fork is waiting for the loop thread to pause */
    tq_op *submit_first, *submit_last;
    tq_op *cancel_first;
    struct tqi_client_borrows *borrows;       /* data/borrows.h: in use */
    struct tqi_client_borrows *borrows_ended; /* that the loop thread is to give back */

    tqi_client_waits waits;
};

/* handle.c */
void tqi_client_unref(tq_client *client);
/* Wakes the loop thread; with the lock held. */
void tqi_client_wake(tq_client *client);
/* Whether the caller is the client's loop thread. */
bool tqi_client_on_loop(tq_client *client);

/* fork.c */
int tqi_client_fork_register(tq_client *client, tq_error *err);
void tqi_client_fork_unregister(tq_client *client);
/* Called before libuv's thread pool is used: a forked child must not wait on exit for threads that it does not have. */
void tqi_client_fork_uses_threads(void);

#endif
