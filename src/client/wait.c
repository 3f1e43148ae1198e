/*
 * wait.c - how a thread waits for the end of an op: it looks for it for a moment first, or sleeps at once.
 *
 * A small call takes about as long as a core that has nothing to do takes to fall asleep and wake up, above all in a virtual
 * machine.  Who looks for the end keeps its core awake; but where others want that core it is in their way, and the loop
 * thread may be one of them.  Which of both is faster is measured all the time: a client keeps about the median of its
 * waits of either kind, and one wait in sixteen is of the kind that was slower.
 *
 * Each median is one number that goes up by an eighth with a longer wait and down with a shorter one (Ma, Muthukrishnan
 * and Sandler, "Frugal Streaming for Estimating Quantiles", 2013).
 */
#include "client/client.h"

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

/* How long who looks goes on: a little more than small calls take. */
#define WAIT_LOOK_NS 200000u
/* Bounds of the medians.  All that takes longer than looking can help is the same. */
#define WAIT_MIN_NS 1000u
#define WAIT_MAX_NS 400000u
/* At first looking is believed to be faster. */
#define WAIT_LOOKED_NS 50000u
#define WAIT_SLEPT_NS  100000u

void tqi_waits_init(tqi_waits *waits)
{
    atomic_init(&waits->looked_ns, WAIT_LOOKED_NS);
    atomic_init(&waits->slept_ns, WAIT_SLEPT_NS);
    atomic_init(&waits->turn, 0);
}

bool tqi_waits_look(tqi_waits *waits)
{
    uint32_t looked = atomic_load_explicit(&waits->looked_ns, memory_order_relaxed);
    uint32_t slept = atomic_load_explicit(&waits->slept_ns, memory_order_relaxed);
    uint32_t turn = atomic_fetch_add_explicit(&waits->turn, 1, memory_order_relaxed);
    /* One in sixteen, without a period that the caller's own could meet (Fibonacci hashing). */
    bool other = turn * UINT32_C(2654435769) >> 28 == 0;

    return (looked + looked / 8 < slept) != other;
}

void tqi_waits_learn(tqi_waits *waits, bool looked, uint64_t ns)
{
    _Atomic uint32_t *median = looked ? &waits->looked_ns : &waits->slept_ns;
    uint32_t now = atomic_load_explicit(median, memory_order_relaxed);

    now = ns > now ? now + now / 8 : now - now / 8;
    now = now < WAIT_MIN_NS ? WAIT_MIN_NS : now > WAIT_MAX_NS ? WAIT_MAX_NS : now;
    /* An update that another thread loses does not matter. */
    atomic_store_explicit(median, now, memory_order_relaxed);
}

static bool wait_over(const tq_op *op)
{
    uint32_t state = atomic_load_explicit(&op->state, memory_order_acquire);

    return state == TQI_OP_DONE || tqi_op_in_own_callback(op, state);
}

/* Looks for the end; who else wants the core gets it. */
static bool wait_look(const tq_op *op, uint64_t until)
{
    while (!wait_over(op)) {
        if (tqi_now() >= until) {
            return false;
        }
        sched_yield();
    }
    return true;
}

/* Sleeps until it has ended, the deadline has passed, or a signal handler has run. */
static bool wait_sleep(tq_op *op, uint64_t deadline)
{
    struct timespec until = {.tv_sec = (time_t)(deadline / 1000000000u),
                             .tv_nsec = (long)(deadline % 1000000000u)};

    while (!wait_over(op)) {
        uint32_t state = atomic_load_explicit(&op->state, memory_order_acquire);
        if (state == TQI_OP_DONE ||
            (!(state & TQI_OP_WAITED) && !atomic_compare_exchange_strong_explicit(
                                             &op->state, &state, state | TQI_OP_WAITED,
                                             memory_order_acq_rel, memory_order_acquire))) {
            continue;
        }
        if (syscall(SYS_futex, &op->state, FUTEX_WAIT_BITSET_PRIVATE, state | TQI_OP_WAITED,
                    deadline == TQI_NEVER ? NULL : &until, NULL, FUTEX_BITSET_MATCH_ANY) != 0 &&
            errno != EAGAIN) {
            return wait_over(op);
        }
    }
    return true;
}

bool tq_op_wait_for(tq_op *op, double seconds)
{
    tqi_waits *waits = &op->client->waits;
    uint64_t begun, deadline;

    if (wait_over(op)) {
        return true;
    }
    if (tqi_op_foreign(op) || seconds == 0) {
        return false;
    }
    begun = tqi_now();
    deadline = tqi_deadline(seconds);
    bool look = tqi_waits_look(waits);
    uint64_t until = begun + WAIT_LOOK_NS < deadline ? begun + WAIT_LOOK_NS : deadline;
    if (!(look && wait_look(op, until)) && !wait_sleep(op, deadline)) {
        return false;
    }
    tqi_waits_learn(waits, look, tqi_now() - begun);
    return true;
}

int tq_op_wait(tq_op *op)
{
    while (!tq_op_wait_for(op, -1)) {
        if (tqi_op_foreign(op)) {
            return TQ_ECLOSED;
        }
    }
    return op->error.code;
}
