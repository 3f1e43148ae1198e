/*
 * loop_state.h - what the files of libuv's simulation share: loop.c (loops, timers, phases), loop_poll.c (descriptors
 * and async handles) and loop_pool.c (the thread pool, names).
 */
#ifndef TQ_SIM_LOOP_STATE_H
#define TQ_SIM_LOOP_STATE_H

#include <uv.h>

#include "loop.h"

/* In uv_handle_t.flags, whose bits are ours: no code of libuv sees these handles. */
#define LOOP_ACTIVE  1u
#define LOOP_REF     2u
#define LOOP_CLOSING 4u
#define LOOP_CLOSED  8u

typedef struct loop_work loop_work;
typedef struct loop_poll loop_poll;

/* What the simulator keeps of a loop, in its own memory. */
typedef struct sim_loop {
    sim_process *process;
    uv_loop_t *loop;
    sim_fiber *runner;   /* in uv_run; NULL: nobody */
    uv_timer_t **timers; /* active ones, the earliest first: a heap would not pay for about 20 */
    uint32_t n_timers, timers_room;
    loop_poll *polls;
    uint32_t n_async; /* sent and not yet called */
    uv_handle_t *closing;
    loop_work *works; /* not yet called back */
    struct sim_loop *prev, *next;
} sim_loop;

/* uv_handle_t.handle_queue: the list of a loop's handles. */
typedef void *loop_queue[2];

static inline uv_handle_t *loop_queue_handle(loop_queue *queue)
{
    return (uv_handle_t *)((char *)queue - offsetof(uv_handle_t, handle_queue));
}

/* All loops of all processes. */
extern sim_loop *sim_loops;

static inline sim_loop *loop_of(const uv_loop_t *loop)
{
    return loop->internal_fields;
}

void loop_handle_init(uv_loop_t *loop, uv_handle_t *handle, uv_handle_type type);
void loop_handle_start(uv_handle_t *handle);
void loop_handle_stop(uv_handle_t *handle);
/* Wakes the fiber that runs the loop. */
void loop_wake(const sim_loop *own);

/* loop_poll.c */
/* Looks which descriptors are ready; whether any is. */
bool loop_polls_look(sim_loop *own);
/* Calls those that were ready when the loop looked; a callback may close any of them. */
void loop_polls_run(sim_loop *own);
void loop_polls_runner(sim_loop *own);
void loop_polls_free(sim_loop *own);
void loop_poll_close(uv_poll_t *handle);
void loop_asyncs_run(uv_loop_t *loop);
void loop_async_close(uv_async_t *async);

/* loop_pool.c */
bool loop_works_done(const sim_loop *own);
/* Calls back what is done. */
void loop_works_run(sim_loop *own);
void loop_works_free(sim_loop *own);

#endif
