/*
 * thread.c - see thread.h.
 *
 * A thread is a fiber. Locks and condition variables are records in the memory that the program gave for them, and all
 * zero is an unlocked one, as the initialisers of <pthread.h> make it. Waiters are listed per process by the address
 * that they wait for, in the simulator's memory. Outside of a process there is one thread: locks do nothing.
 */
#include "thread.h"

#include <errno.h>
#include <linux/futex.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "scheduler.h"

typedef struct sim_thread {
    uint64_t number; /* pthread_t; never 0 */
    sim_fiber *fiber;
    void *(*main)(void *arg);
    void *arg;
    void *result;
    bool ended, detached;
    sim_fiber *joiner;
    struct sim_thread *next;
} sim_thread;

/* A fiber that waits for something at an address: a lock, a condition, a futex. */
typedef struct thread_waiter {
    const void *address;
    sim_fiber *fiber;
    bool called; /* by a signal, an unlock, a futex wake */
    struct thread_waiter *prev, *next;
} thread_waiter;

struct sim_threads {
    uint64_t last;
    sim_thread *threads;
    thread_waiter *first, *end; /* in the order in which they began to wait */
};

/* --- waiting --------------------------------------------------------------------------- */

static void waiter_unlink(struct sim_threads *threads, thread_waiter *waiter)
{
    if (waiter->prev != NULL) {
        waiter->prev->next = waiter->next;
    } else {
        threads->first = waiter->next;
    }
    if (waiter->next != NULL) {
        waiter->next->prev = waiter->prev;
    } else {
        threads->end = waiter->prev;
    }
}

/* Sleeps until called, or until that time; returns whether it was called. */
static bool thread_wait(const void *address, uint64_t until)
{
    struct sim_threads *threads = sim_self->threads;
    /* In the simulator's memory: the fiber may never run again. */
    thread_waiter *waiter = sim_alloc(sizeof(*waiter));

    *waiter = (thread_waiter){.address = address, .fiber = sim_running, .prev = threads->end};
    if (threads->end != NULL) {
        threads->end->next = waiter;
    } else {
        threads->first = waiter;
    }
    threads->end = waiter;
    while (!waiter->called && sim_time() < until) {
        sim_sleep(until);
    }
    bool called = waiter->called;
    waiter_unlink(threads, waiter);
    sim_free(waiter);
    return called;
}

/* Calls up to n that wait at the address; returns how many. */
static int thread_call(const void *address, int n)
{
    int called = 0;

    for (thread_waiter *waiter = sim_self->threads->first; waiter != NULL && called < n; waiter = waiter->next) {
        if (waiter->address == address && !waiter->called) {
            waiter->called = true;
            called++;
            sim_wake(waiter->fiber);
        }
    }
    return called;
}

/* --- locks ------------------------------------------------------------------------------- */

typedef struct thread_lock {
    uint32_t held; /* by a writer; of a mutex: 1 */
    uint32_t readers;
    uint32_t waiting;
} thread_lock;

_Static_assert(sizeof(thread_lock) <= sizeof(pthread_mutex_t), "a lock fits");
_Static_assert(sizeof(thread_lock) <= sizeof(pthread_rwlock_t), "a lock fits");

static bool thread_alone(void)
{
    return sim_self == NULL || sim_running == NULL;
}

static int lock_write(thread_lock *lock)
{
    if (thread_alone()) {
        return 0;
    }
    sim_point();
    while (lock->held || lock->readers) {
        lock->waiting++;
        thread_wait(lock, SIM_NEVER);
        lock->waiting--;
    }
    lock->held = 1;
    return 0;
}

static int lock_read(thread_lock *lock)
{
    if (thread_alone()) {
        return 0;
    }
    sim_point();
    while (lock->held) {
        lock->waiting++;
        thread_wait(lock, SIM_NEVER);
        lock->waiting--;
    }
    lock->readers++;
    return 0;
}

static int lock_leave(thread_lock *lock)
{
    if (thread_alone()) {
        return 0;
    }
    if (lock->held) {
        lock->held = 0;
    } else if (lock->readers) {
        lock->readers--;
    } else {
        sim_found("locks", "%s unlocks what is not locked", sim_self->name);
    }
    if (lock->waiting) {
        thread_call(lock, 1 << 30);
    }
    sim_point();
    return 0;
}

int __wrap_pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attr);
int __wrap_pthread_mutex_init(pthread_mutex_t *mutex, const pthread_mutexattr_t *attr)
{
    (void)attr;
    memset(mutex, 0, sizeof(pthread_mutex_t));
    return 0;
}

static int lock_destroy(thread_lock *lock, size_t size)
{
    if (lock->held || lock->readers || lock->waiting) {
        sim_found("locks", "%s destroys a lock that is in use", sim_self != NULL ? sim_self->name : "the simulator");
    }
    memset((void *)lock, 0xdd, size);
    return 0;
}

int __wrap_pthread_mutex_destroy(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_destroy(pthread_mutex_t *mutex)
{
    return lock_destroy((thread_lock *)mutex, sizeof(pthread_mutex_t));
}

int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex)
{
    return lock_write((thread_lock *)mutex);
}

int __wrap_pthread_mutex_unlock(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *mutex)
{
    return lock_leave((thread_lock *)mutex);
}

int __wrap_pthread_rwlock_init(pthread_rwlock_t *lock, const pthread_rwlockattr_t *attr);
int __wrap_pthread_rwlock_init(pthread_rwlock_t *lock, const pthread_rwlockattr_t *attr)
{
    (void)attr;
    memset(lock, 0, sizeof(*lock));
    return 0;
}

int __wrap_pthread_rwlock_destroy(pthread_rwlock_t *lock);
int __wrap_pthread_rwlock_destroy(pthread_rwlock_t *lock)
{
    return lock_destroy((thread_lock *)lock, sizeof(*lock));
}

int __wrap_pthread_rwlock_rdlock(pthread_rwlock_t *lock);
int __wrap_pthread_rwlock_rdlock(pthread_rwlock_t *lock)
{
    return lock_read((thread_lock *)lock);
}

int __wrap_pthread_rwlock_wrlock(pthread_rwlock_t *lock);
int __wrap_pthread_rwlock_wrlock(pthread_rwlock_t *lock)
{
    return lock_write((thread_lock *)lock);
}

int __wrap_pthread_rwlock_unlock(pthread_rwlock_t *lock);
int __wrap_pthread_rwlock_unlock(pthread_rwlock_t *lock)
{
    return lock_leave((thread_lock *)lock);
}

/* --- conditions ------------------------------------------------------------------------------ */

typedef struct thread_cond {
    uint32_t clock; /* CLOCK_REALTIME is 0 */
    uint32_t waiting;
} thread_cond;

int __wrap_pthread_cond_init(pthread_cond_t *cond, const pthread_condattr_t *attr);
int __wrap_pthread_cond_init(pthread_cond_t *cond, const pthread_condattr_t *attr)
{
    clockid_t clock = CLOCK_REALTIME;

    if (attr != NULL) {
        pthread_condattr_getclock(attr, &clock);
    }
    memset(cond, 0, sizeof(pthread_cond_t));
    ((thread_cond *)cond)->clock = (uint32_t)clock;
    return 0;
}

int __wrap_pthread_cond_destroy(pthread_cond_t *cond);
int __wrap_pthread_cond_destroy(pthread_cond_t *cond)
{
    sim_check(((thread_cond *)cond)->waiting == 0, "locks", "a condition is destroyed while a thread waits for it");
    memset(cond, 0xdd, sizeof(pthread_cond_t));
    return 0;
}

static bool cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex, uint64_t until)
{
    thread_cond *own = (thread_cond *)cond;

    own->waiting++;
    /* Nothing runs between these two. */
    thread_lock *lock = (thread_lock *)mutex;
    lock->held = 0;
    if (lock->waiting) {
        thread_call(lock, 1 << 30);
    }
    bool called = thread_wait(cond, until);
    own->waiting--;
    lock_write(lock);
    return called;
}

int __wrap_pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex);
int __wrap_pthread_cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex)
{
    cond_wait(cond, mutex, SIM_NEVER);
    return 0;
}

int __wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex, const struct timespec *at);
int __wrap_pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex, const struct timespec *at)
{
    uint64_t ns = (uint64_t)at->tv_sec * SIM_S + (uint64_t)at->tv_nsec;

    if (((thread_cond *)cond)->clock == CLOCK_REALTIME) {
        /* The clock may be set meanwhile: look again every 10 ms. */
        while ((uint64_t)sim_wall(sim_self) * 1000 < ns) {
            uint64_t left = ns - (uint64_t)sim_wall(sim_self) * 1000;
            if (cond_wait(cond, mutex, sim_time() + (left < 10 * SIM_MS ? left : 10 * SIM_MS))) {
                return 0;
            }
        }
        return ETIMEDOUT;
    }
    return cond_wait(cond, mutex, sim_clock_reaches(sim_self, ns)) ? 0 : ETIMEDOUT;
}

int __wrap_pthread_cond_signal(pthread_cond_t *cond);
int __wrap_pthread_cond_signal(pthread_cond_t *cond)
{
    if (!thread_alone()) {
        thread_call(cond, 1);
    }
    return 0;
}

int __wrap_pthread_cond_broadcast(pthread_cond_t *cond);
int __wrap_pthread_cond_broadcast(pthread_cond_t *cond)
{
    if (!thread_alone()) {
        thread_call(cond, 1 << 30);
    }
    return 0;
}

/* --- threads ------------------------------------------------------------------------------------ */

static sim_thread *thread_find(uint64_t number)
{
    sim_thread *thread = sim_self->threads->threads;

    while (thread != NULL && thread->number != number) {
        thread = thread->next;
    }
    return thread;
}

static sim_thread *thread_add(struct sim_threads *threads)
{
    sim_thread *thread = sim_alloc(sizeof(*thread));

    thread->number = ++threads->last;
    thread->next = threads->threads;
    threads->threads = thread;
    return thread;
}

static void thread_remove(sim_thread *thread)
{
    sim_thread **at = &sim_self->threads->threads;

    while (*at != thread) {
        at = &(*at)->next;
    }
    *at = thread->next;
    sim_free(thread);
}

static void thread_main(void *arg)
{
    sim_thread *thread = arg;

    thread->result = thread->main(thread->arg);
    thread->ended = true;
    thread->fiber = NULL;
    if (thread->joiner != NULL) {
        sim_wake(thread->joiner);
    }
    if (thread->detached) {
        thread_remove(thread);
    }
}

int __wrap_pthread_create(pthread_t *out, const pthread_attr_t *attr, void *(*main)(void *), void *arg);
int __wrap_pthread_create(pthread_t *out, const pthread_attr_t *attr, void *(*main)(void *), void *arg)
{
    (void)attr;
    sim_point();
    sim_thread *thread = thread_add(sim_self->threads);
    thread->main = main;
    thread->arg = arg;
    *out = (pthread_t)thread->number;
    thread->fiber = sim_fiber_start(sim_self, "thread", thread_main, thread);
    return 0;
}

int __wrap_pthread_join(pthread_t number, void **result);
int __wrap_pthread_join(pthread_t number, void **result)
{
    sim_thread *thread = thread_find(number);

    sim_check(thread != NULL && !thread->detached, "locks", "%s joins a thread that is not there", sim_self->name);
    sim_point();
    while (!thread->ended) {
        thread->joiner = sim_running;
        sim_sleep(SIM_NEVER);
    }
    if (result != NULL) {
        *result = thread->result;
    }
    thread_remove(thread);
    return 0;
}

int __wrap_pthread_detach(pthread_t number);
int __wrap_pthread_detach(pthread_t number)
{
    sim_thread *thread = thread_find(number);

    sim_check(thread != NULL, "locks", "%s detaches a thread that is not there", sim_self->name);
    thread->detached = true;
    if (thread->ended) {
        thread_remove(thread);
    }
    return 0;
}

pthread_t __wrap_pthread_self(void);
pthread_t __wrap_pthread_self(void)
{
    if (thread_alone()) {
        return (pthread_t)-1;
    }
    for (sim_thread *thread = sim_self->threads->threads; thread != NULL; thread = thread->next) {
        if (thread->fiber == sim_running) {
            return (pthread_t)thread->number;
        }
    }
    /* A fiber that pthread_create did not make: the first one, or one of libuv's pool. */
    sim_thread *thread = thread_add(sim_self->threads);
    thread->fiber = sim_running;
    thread->detached = true;
    return (pthread_t)thread->number;
}

int __wrap_pthread_once(pthread_once_t *once, void (*init)(void));
int __wrap_pthread_once(pthread_once_t *once, void (*init)(void))
{
    if (*once == PTHREAD_ONCE_INIT) {
        *once = 2;
        init();
    }
    return 0;
}

int __wrap_pthread_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void));
int __wrap_pthread_atfork(void (*prepare)(void), void (*parent)(void), void (*child)(void))
{
    (void)prepare;
    (void)parent;
    (void)child; /* no simulated process forks */
    return 0;
}

int __wrap_pthread_sigmask(int how, const sigset_t *set, sigset_t *old);
int __wrap_pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
    (void)how;
    (void)set;
    if (old != NULL) {
        sigemptyset(old);
    }
    return 0;
}

/* --- system calls by number ------------------------------------------------------------------------ */

static long thread_futex(uint32_t *address, int op, uint32_t value, const struct timespec *timeout)
{
    sim_point();
    switch (op & FUTEX_CMD_MASK) {
    case FUTEX_WAKE:
        return thread_call(address, (int)value);
    case FUTEX_WAIT_BITSET:
        break;
    default:
        sim_found("simulator", "futex operation %d is not simulated", op);
    }
    if (__atomic_load_n(address, __ATOMIC_SEQ_CST) != value) {
        errno = EAGAIN;
        return -1;
    }
    uint64_t until = timeout == NULL
                         ? SIM_NEVER
                         : sim_clock_reaches(sim_self, (uint64_t)timeout->tv_sec * SIM_S + (uint64_t)timeout->tv_nsec);
    if (!thread_wait(address, until)) {
        errno = ETIMEDOUT;
        return -1;
    }
    return 0;
}

long __wrap_syscall(long number, ...);
long __wrap_syscall(long number, ...)
{
    va_list list;
    long args[6];

    va_start(list, number);
    for (size_t i = 0; i < 6; i++) {
        args[i] = va_arg(list, long);
    }
    va_end(list);
    switch (number) {
    case SYS_futex:
        return thread_futex((uint32_t *)args[0], (int)args[1], (uint32_t)args[2], (const struct timespec *)args[3]);
    case SYS_pidfd_open:
        return sim_pidfd_open((uint64_t)args[0]);
    default:
        sim_found("simulator", "system call %ld is not simulated", number);
    }
}

/* --- of a process ---------------------------------------------------------------------------------------- */

void sim_threads_start(sim_process *process)
{
    process->threads = sim_alloc(sizeof(*process->threads));
}

void sim_threads_end(sim_process *process)
{
    struct sim_threads *threads = process->threads;

    while (threads->threads != NULL) {
        sim_thread *next = threads->threads->next;
        sim_free(threads->threads);
        threads->threads = next;
    }
    while (threads->first != NULL) {
        thread_waiter *next = threads->first->next;
        sim_free(threads->first);
        threads->first = next;
    }
    sim_free(threads);
    process->threads = NULL;
}

void sim_threads_forget(sim_process *process, const sim_fiber *fiber)
{
    for (sim_thread **at = &process->threads->threads; *at != NULL; at = &(*at)->next) {
        sim_thread *thread = *at;
        if (thread->fiber == fiber) {
            *at = thread->next;
            sim_free(thread);
            return;
        }
    }
}

uint32_t sim_threads_count(const sim_process *process)
{
    uint32_t n = 0;

    for (const sim_thread *thread = process->threads->threads; thread != NULL; thread = thread->next) {
        n += thread->main != NULL && !thread->ended;
    }
    return n;
}
