/*
 * wait.c - how a thread waits for the end of an op: it looks for it for a moment first, or sleeps at once.
 *
 * A small call takes about as long as a core that has nothing to do takes to fall asleep and wake up, above all in a virtual
 * machine.  Who looks for the end keeps its core awake.  It yields the core each time; but where others compute, the kernel
 * may give them a whole time slice then, many times as long as a call.  Which of both is faster is measured all the time: a
 * client keeps about the median of its waits of either kind, and now and then tries the other kind.  It does so the more
 * seldom the more often that was no gain, and one look that cost a time slice ends looking at once, so that a busy machine
 * hardly sees it.
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
/* If it took so long, somebody else had the core. */
#define WAIT_CROWD_NS 400000u
/* Bounds of the medians.  All that takes longer than looking can help is the same. */
#define WAIT_MIN_NS 1000u
#define WAIT_MAX_NS 400000u
/* At first looking is believed to be faster. */
#define WAIT_LOOKED_NS 50000u
#define WAIT_SLEPT_NS  100000u
/* Waits from one of the other kind to the next, about. */
#define WAIT_TRY_MIN 16u
#define WAIT_TRY_MAX 4096u

/* What another thread of the client does at the same time may get lost in here; that does not matter. */

static uint32_t waits_get(const _Atomic uint32_t *number)
{
    return atomic_load_explicit(number, memory_order_relaxed);
}

static void waits_set(_Atomic uint32_t *number, uint32_t value)
{
    atomic_store_explicit(number, value, memory_order_relaxed);
}

void tqi_waits_init(tqi_waits *waits)
{
    atomic_init(&waits->looked_ns, WAIT_LOOKED_NS);
    atomic_init(&waits->slept_ns, WAIT_SLEPT_NS);
    atomic_init(&waits->interval, WAIT_TRY_MIN);
    atomic_init(&waits->left, WAIT_TRY_MIN);
}

/* Whether looking is faster by more than an eighth, for it costs processor time. */
static bool waits_prefer(const tqi_waits *waits)
{
    uint32_t looked = waits_get(&waits->looked_ns);

    return looked + looked / 8 < waits_get(&waits->slept_ns);
}

bool tqi_waits_look(tqi_waits *waits)
{
    uint32_t left = waits_get(&waits->left);
    bool try = left <= 1;

    if (!try) {
        waits_set(&waits->left, left - 1);
    }
    return waits_prefer(waits) != try;
}

/* The next try is after half to one and a half times the interval, for the caller may have a period of its own. */
static void waits_next(tqi_waits *waits, uint32_t interval, uint64_t chance)
{
    interval = interval < WAIT_TRY_MIN ? WAIT_TRY_MIN : interval;
    interval = interval > WAIT_TRY_MAX ? WAIT_TRY_MAX : interval;
    waits_set(&waits->interval, interval);
    waits_set(&waits->left, interval / 2 + (uint32_t)(chance % interval));
}

void tqi_waits_learn(tqi_waits *waits, bool looked, bool crowded, uint64_t ns)
{
    _Atomic uint32_t *median = looked ? &waits->looked_ns : &waits->slept_ns;
    uint32_t other = waits_get(looked ? &waits->slept_ns : &waits->looked_ns);
    uint32_t interval = waits_get(&waits->interval);
    uint32_t now = waits_get(median);
    bool preferred = waits_prefer(waits);

    now = ns > now ? now + now / 8 : now - now / 8;
    now = now > WAIT_MAX_NS || crowded ? WAIT_MAX_NS : now < WAIT_MIN_NS ? WAIT_MIN_NS : now;
    waits_set(median, now);
    if (waits_prefer(waits) != preferred) {
        waits_next(waits, WAIT_TRY_MIN, ns);
    } else if (looked != preferred) { /* a try */
        waits_next(waits, ns < other ? interval / 2 : interval * 4, ns);
    }
}

static bool wait_over(const tq_op *op)
{
    uint32_t state = atomic_load_explicit(&op->state, memory_order_acquire);

    return state == TQI_OP_DONE || tqi_op_in_own_callback(op, state);
}

/* Looks for the end from `begun` on; who else wants the core gets it.  Whether somebody had it for long. */
static bool wait_look(const tq_op *op, uint64_t begun)
{
    uint64_t now = begun;

    while (!wait_over(op) && now - begun < WAIT_LOOK_NS) {
        sched_yield();
        now = tqi_now();
    }
    return now - begun >= WAIT_CROWD_NS;
}

/* Sleeps until it has ended, the deadline has passed, or a signal handler has run; whether it has ended. */
static bool wait_sleep(tq_op *op, uint64_t deadline)
{
    struct timespec until = {.tv_sec = (time_t)(deadline / 1000000000u),
                             .tv_nsec = (long)(deadline % 1000000000u)};

    while (!wait_over(op) && !tqi_op_foreign(op)) {
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
            break;
        }
    }
    return wait_over(op);
}

bool tq_op_wait_for(tq_op *op, double seconds)
{
    if (!op) {
        return true;
    }
    tqi_waits *waits = &op->client->waits;
    if (wait_over(op)) {
        return true;
    }
    if (tqi_op_foreign(op) || seconds == 0) {
        return false;
    }
    uint64_t begun = tqi_now();
    uint64_t deadline = tqi_deadline(seconds);
    bool look = deadline - begun > WAIT_CROWD_NS && tqi_waits_look(waits);
    bool crowded = look && wait_look(op, begun);
    bool ended = wait_sleep(op, deadline);
    uint64_t ns = tqi_now() - begun;
    /* One that went on tells something if it was long. */
    if (ended || ns >= WAIT_MAX_NS) {
        tqi_waits_learn(waits, look, crowded, ns);
    }
    return ended;
}

int tq_op_wait(tq_op *op)
{
    if (!op) {
        return TQ_EINVAL;
    }
    while (!tq_op_wait_for(op, -1)) {
        if (tqi_op_foreign(op)) {
            return TQ_ECLOSED;
        }
    }
    return op->error.code;
}

void tqi_op_settle(tq_op *op)
{
    while (!wait_sleep(op, TQI_NEVER) && !tqi_op_foreign(op)) {
    }
}
