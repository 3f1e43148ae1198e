/*
 * wait.c - how a thread waits for an op: it spins briefly first, or sleeps at once. A small call takes about as long
 * as an idle core takes to go to sleep and wake up, above all in a virtual machine. A spinning thread keeps its core
 * awake. It yields the core on every iteration; but if other threads are computing, the kernel may then give them a
 * whole time slice, many times as long as a call. Which of the two is faster is measured continuously: a client tracks
 * the approximate median of its waits of either kind, and occasionally tries the other kind. The more often that was
 * no gain, the less often it tries, and a single spin that cost a time slice disables spinning at once, so that a busy
 * machine is hardly affected. Each median is one number that goes up by an eighth with a longer wait and down with a
 * shorter one (Ma, Muthukrishnan and Sandler, "Frugal Streaming for Estimating Quantiles", 2013).
 */
#include "client/runtime.h"

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"

/* Longest spin: slightly more than a small call takes. */
#define WAIT_SPIN_NS 200000u
/* If an iteration took this long, another thread had the core. */
#define WAIT_CROWD_NS 400000u
/* Bounds of the medians. Waits too long for spinning to help are all treated alike. */
#define WAIT_MIN_NS 1000u
#define WAIT_MAX_NS 400000u
/* Spinning is initially assumed to be faster. */
#define WAIT_SPUN_NS  50000u
#define WAIT_SLEPT_NS 100000u
/* Approximate number of waits between two tries of the other kind. */
#define WAIT_TRY_MIN 16u
#define WAIT_TRY_MAX 4096u

/* A concurrent update by another thread of the client may be lost here; that does not matter. */

static uint32_t waits_get(const _Atomic uint32_t *number)
{
    return atomic_load_explicit(number, memory_order_relaxed);
}

static void waits_set(_Atomic uint32_t *number, uint32_t value)
{
    atomic_store_explicit(number, value, memory_order_relaxed);
}

void tqi_client_waits_init(tqi_client_waits *waits)
{
    atomic_init(&waits->spun_ns, WAIT_SPUN_NS);
    atomic_init(&waits->slept_ns, WAIT_SLEPT_NS);
    atomic_init(&waits->interval, WAIT_TRY_MIN);
    atomic_init(&waits->left, WAIT_TRY_MIN);
}

/* Whether spinning is faster by more than an eighth; less would not justify its processor time. */
static bool waits_prefer(const tqi_client_waits *waits)
{
    uint32_t spun = waits_get(&waits->spun_ns);

    return spun + spun / 8 < waits_get(&waits->slept_ns);
}

bool tqi_client_waits_spin(tqi_client_waits *waits)
{
    uint32_t left = waits_get(&waits->left);
    bool try = left <= 1;

    if (!try) {
        waits_set(&waits->left, left - 1);
    }
    return waits_prefer(waits) != try;
}

/* The next try comes after 0.5 to 1.5 times the interval, because the caller may have a period of its own. */
static void waits_next(tqi_client_waits *waits, uint32_t interval, uint64_t chance)
{
    interval = interval < WAIT_TRY_MIN ? WAIT_TRY_MIN : interval;
    interval = interval > WAIT_TRY_MAX ? WAIT_TRY_MAX : interval;
    waits_set(&waits->interval, interval);
    waits_set(&waits->left, interval / 2 + (uint32_t)(chance % interval));
}

void tqi_client_waits_learn(tqi_client_waits *waits, bool spun, bool crowded, uint64_t ns)
{
    _Atomic uint32_t *median = spun ? &waits->spun_ns : &waits->slept_ns;
    uint32_t other = waits_get(spun ? &waits->slept_ns : &waits->spun_ns);
    uint32_t interval = waits_get(&waits->interval);
    uint32_t now = waits_get(median);
    bool preferred = waits_prefer(waits);

    now = ns > now ? now + now / 8 : now - now / 8;
    now = now > WAIT_MAX_NS || crowded ? WAIT_MAX_NS : now < WAIT_MIN_NS ? WAIT_MIN_NS : now;
    waits_set(median, now);
    if (waits_prefer(waits) != preferred) {
        waits_next(waits, WAIT_TRY_MIN, ns);
    } else if (spun != preferred) { /* a try */
        waits_next(waits, ns < other ? interval / 2 : interval * 4, ns);
    }
}

static bool wait_over(const tq_op *op)
{
    uint32_t state = atomic_load_explicit(&op->state, memory_order_acquire);

    return state == TQI_CLIENT_OP_DONE || tqi_client_op_in_own_callback(op, state);
}

/* Spins from `begun` on, yielding the core to any thread that wants it. Returns whether another thread had it for
 * long. */
static bool wait_spin(const tq_op *op, uint64_t begun)
{
    uint64_t now = begun;

    while (!wait_over(op) && now - begun < WAIT_SPIN_NS) {
        sched_yield();
        now = tqi_now();
    }
    return now - begun >= WAIT_CROWD_NS;
}

/* Sleeps until the op has completed, the deadline has passed, or a signal handler has run; returns whether it has
 * completed. */
static bool wait_sleep(tq_op *op, uint64_t deadline)
{
    struct timespec until = {.tv_sec = (time_t)(deadline / 1000000000u), .tv_nsec = (long)(deadline % 1000000000u)};

    while (!wait_over(op) && !tqi_client_op_foreign(op)) {
        uint32_t state = atomic_load_explicit(&op->state, memory_order_acquire);
        if (state == TQI_CLIENT_OP_DONE ||
            (!(state & TQI_CLIENT_OP_WAITED) &&
             !atomic_compare_exchange_strong_explicit(&op->state, &state, state | TQI_CLIENT_OP_WAITED,
                                                      memory_order_acq_rel, memory_order_acquire))) {
            continue;
        }
        if (syscall(SYS_futex, &op->state, FUTEX_WAIT_BITSET_PRIVATE, state | TQI_CLIENT_OP_WAITED,
                    deadline == TQI_NEVER ? NULL : &until, NULL, FUTEX_BITSET_MATCH_ANY) != 0 &&
            errno != EAGAIN) {
            break;
        }
    }
    return wait_over(op);
}

bool tq_op_wait_for(tq_op *op, double seconds)
{
    if (op == NULL) {
        return true;
    }
    tqi_client_waits *waits = &op->client->waits;
    if (wait_over(op)) {
        return true;
    }
    if (tqi_client_op_foreign(op) || seconds == 0) {
        return false;
    }
    uint64_t begun = tqi_now();
    uint64_t deadline = tqi_deadline(seconds);
    bool spin = deadline - begun > WAIT_CROWD_NS && tqi_client_waits_spin(waits);
    bool crowded = spin && wait_spin(op, begun);
    bool ended = wait_sleep(op, deadline);
    uint64_t ns = tqi_now() - begun;
    /* A wait that did not complete is informative only if it was long. */
    if (ended || ns >= WAIT_MAX_NS) {
        tqi_client_waits_learn(waits, spin, crowded, ns);
    }
    return ended;
}

int tq_op_wait(tq_op *op)
{
    if (op == NULL) {
        return TQ_EINVAL;
    }
    while (!tq_op_wait_for(op, -1)) {
        if (tqi_client_op_foreign(op)) {
            return TQ_ECLOSED;
        }
    }
    return op->error.code;
}

void tqi_client_op_settle(tq_op *op)
{
    while (!wait_sleep(op, TQI_NEVER) && !tqi_client_op_foreign(op)) {
    }
}

void tqi_client_op_release(tq_op *op)
{
    uint32_t old = atomic_exchange_explicit(&op->state, TQI_CLIENT_OP_DONE, memory_order_acq_rel);

    if (old & TQI_CLIENT_OP_WAITED) {
        syscall(SYS_futex, &op->state, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
    }
}
