/*
 * scheduler.c - fibers and processes.
 *
 * A fiber runs until it sleeps, and what it does until then takes no time. Fibers switch with _setjmp and _longjmp
 * (swapcontext saves the signal mask: a system call), except under AddressSanitizer, which must know of each switch.
 */
#include "scheduler.h"

#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <ucontext.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#include "loop.h"
#include "thread.h"

#define SCHED_STACK (256u << 10)

sim_process *sim_self;
sim_fiber *sim_running;
sim_sched sim_scheduler;

/* --- fibers --------------------------------------------------------------------- */

typedef enum fiber_state {
    FIBER_SLEEPS = 0,
    FIBER_DUE, /* an event will resume it */
    FIBER_RUNS,
    FIBER_ENDED
} fiber_state;

struct sim_fiber {
    sim_process *process; /* NULL once it has ended */
    char name[24];
    uint32_t refs;
    fiber_state state;
    bool woken;
    bool begun;
    bool held;      /* due while its process is stopped */
    uint64_t timer; /* event that ends its sleep; 0: none */
    uint64_t due;   /* event that resumes it */
    void (*main)(void *arg);
    void *arg;
    void *stack;
    jmp_buf at;
    ucontext_t context;     /* with which it begins; under AddressSanitizer also where it is */
    void *fake;             /* AddressSanitizer's */
    sim_fiber *prev, *next; /* of its process */
};

static struct {
    jmp_buf at;
    ucontext_t context;
    void *fake;
    const void *stack;
    size_t stack_size;
} outside; /* where the scheduler itself runs */

static void fiber_free(sim_fiber *fiber)
{
    sim_free(fiber);
}

sim_fiber *sim_fiber_ref(sim_fiber *fiber)
{
    fiber->refs++;
    return fiber;
}

void sim_fiber_unref(sim_fiber *fiber)
{
    if (fiber != NULL && --fiber->refs == 0) {
        fiber_free(fiber);
    }
}

sim_process *sim_fiber_process(const sim_fiber *fiber)
{
    return fiber->process;
}

/* Back to the scheduler; does not return if the fiber has ended. */
static void fiber_leave(sim_fiber *fiber, bool ends)
{
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(ends ? NULL : &fiber->fake, outside.stack, outside.stack_size);
    swapcontext(&fiber->context, &outside.context);
    __sanitizer_finish_switch_fiber(fiber->fake, NULL, NULL);
#else
    (void)ends;
    if (_setjmp(fiber->at) == 0) {
        _longjmp(outside.at, 1);
    }
#endif
}

static void fiber_main(void)
{
    sim_fiber *fiber = sim_running;

#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(NULL, &outside.stack, &outside.stack_size);
#endif
    fiber->main(fiber->arg);
    fiber->state = FIBER_ENDED;
    fiber_leave(fiber, true);
}

static void fiber_enter(sim_fiber *fiber)
{
    bool begun = fiber->begun;

    fiber->begun = true;
#if defined(__SANITIZE_ADDRESS__)
    (void)begun;
    __sanitizer_start_switch_fiber(&outside.fake, fiber->stack, SCHED_STACK);
    swapcontext(&outside.context, &fiber->context);
    __sanitizer_finish_switch_fiber(outside.fake, NULL, NULL);
#else
    if (_setjmp(outside.at) == 0) {
        if (begun) {
            _longjmp(fiber->at, 1);
        }
        setcontext(&fiber->context);
    }
#endif
}

bool sched_alone(sim_process *process)
{
    const sched_process *own = sched_of(process);

    return own->fibers == own->first && own->fibers->next == NULL;
}

static void fiber_unlink(sim_fiber *fiber)
{
    sim_process *process = fiber->process;
    sched_process *own = sched_of(process);

    if (fiber->prev != NULL) {
        fiber->prev->next = fiber->next;
    } else {
        own->fibers = fiber->next;
    }
    if (fiber->next != NULL) {
        fiber->next->prev = fiber->prev;
    }
    fiber->prev = fiber->next = NULL;
    fiber->process = NULL;
}

/* It never runs again. */
static void fiber_end(sim_fiber *fiber)
{
    sim_at_drop(fiber->timer);
    sim_at_drop(fiber->due);
    fiber->timer = fiber->due = 0;
    sim_threads_forget(fiber->process, fiber);
    fiber->state = FIBER_ENDED;
    sim_stack_free(fiber->stack);
    fiber->stack = NULL;
    fiber_unlink(fiber);
    sim_fiber_unref(fiber);
}

static void sched_enter(sim_process *process)
{
    if (sim_self != process) {
        sim_self = process;
        sim_heap_enter(process);
        sim_image_enter(process);
    }
}

static void fiber_resume(void *arg)
{
    sim_fiber *fiber = arg;
    sim_process *process = fiber->process;

    fiber->due = 0;
    if (process->stopped) {
        fiber->held = true;
        return;
    }
    fiber->state = FIBER_RUNS;
    sim_scheduler.hash = sched_mix(sim_scheduler.hash, ((uint64_t)process->id << 56) ^ sim_scheduler.now);
    sim_running = fiber;
    sched_enter(process);
    fiber_enter(fiber);
    sim_running = NULL;
    sim_self = NULL;
    sim_heap_enter(NULL);
    if (fiber->state == FIBER_ENDED) {
        bool was_main = fiber == sched_of(process)->first;
        fiber_end(fiber);
        if (was_main && process->alive) {
            sched_process_end(process, false);
        }
    }
    sched_reap();
}

static void fiber_due(sim_fiber *fiber, uint64_t time)
{
    fiber->state = FIBER_DUE;
    fiber->due = sim_at(time, fiber_resume, fiber);
}

/* How long it takes until a thread that was woken runs: mostly microseconds. */
static uint64_t fiber_latency(void)
{
    uint64_t r = sim_next(&sim_scheduler.chance);

    return (r & 63) == 0 ? (r >> 8) % (SIM_MS / 2) : 500 + (r >> 8) % (8 * SIM_US);
}

void sim_wake(sim_fiber *fiber)
{
    if (fiber->state == FIBER_SLEEPS && !fiber->woken) {
        fiber->woken = true;
        sim_at_drop(fiber->timer);
        fiber->timer = 0;
        fiber_due(fiber, sim_scheduler.now + fiber_latency());
    } else {
        fiber->woken = true;
    }
}

static void fiber_on_timer(void *arg)
{
    sim_fiber *fiber = arg;

    fiber->timer = 0;
    fiber->state = FIBER_DUE;
    fiber_resume(fiber);
}

bool sim_sleep(uint64_t until)
{
    sim_fiber *fiber = sim_running;

    if (!fiber->woken && until > sim_scheduler.now) {
        fiber->state = FIBER_SLEEPS;
        fiber->timer = until != SIM_NEVER ? sim_at(until, fiber_on_timer, fiber) : 0;
        fiber_leave(fiber, false);
    }
    bool woken = fiber->woken;
    fiber->woken = false;
    return woken;
}

void sim_pass(uint64_t ns)
{
    sim_fiber *fiber = sim_running;

    if (fiber == NULL) {
        return;
    }
    fiber_due(fiber, sim_scheduler.now + ns);
    fiber_leave(fiber, false);
}

sim_fiber *sim_fiber_start(sim_process *process, const char *name, void (*main)(void *arg), void *arg)
{
    sim_fiber *fiber = sim_alloc(sizeof(*fiber));
    sched_process *own = sched_of(process);

    fiber->process = process;
    snprintf(fiber->name, sizeof(fiber->name), "%s", name);
    fiber->refs = 1;
    fiber->main = main;
    fiber->arg = arg;
    fiber->stack = sim_stack_alloc(SCHED_STACK);
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = fiber->stack;
    fiber->context.uc_stack.ss_size = SCHED_STACK;
    fiber->context.uc_link = NULL;
    makecontext(&fiber->context, fiber_main, 0);
    fiber->next = own->fibers;
    if (own->fibers != NULL) {
        own->fibers->prev = fiber;
    }
    own->fibers = fiber;
    if (own->first == NULL) {
        own->first = fiber;
    }
    fiber_due(fiber, sim_scheduler.now + fiber_latency());
    return fiber;
}

/* --- processes ---------------------------------------------------------------------- */

static sched_process processes[SIM_PROCESSES];

sched_process *sched_of(sim_process *process)
{
    return &processes[process->id];
}

sim_process *sched_each(sim_process *before)
{
    for (uint32_t i = before != NULL ? before->id + 1 : 0; i < SIM_PROCESSES; i++) {
        if (processes[i].process.alive) {
            return &processes[i].process;
        }
    }
    return NULL;
}

static void process_draw_clock(sim_process *process)
{
    sim_chance *chance = &sim_scheduler.chance;

    /* Machines have been up for different times, at least long enough for differences of deadlines. */
    process->clock_offset = sim_between(chance, 1000 * SIM_S, 2000000 * SIM_S);
    process->clock_rate = 0;
    process->wall_offset = 0;
    if (sim_happens(SIM_CLOCK_SKEW)) {
        process->clock_rate = (int64_t)sim_below(&sim_fault_chance, 400000) - 200000;
        process->wall_offset = (int64_t)sim_below(&sim_fault_chance, 7200000000) - 3600000000;
    }
}

sim_process *sim_process_start(const char *name, uint32_t host, void (*main)(void *arg), void *arg)
{
    uint32_t id = 0;

    while (id < SIM_PROCESSES && (processes[id].process.alive || processes[id].ending)) {
        id++;
    }
    if (id == SIM_PROCESSES) {
        sim_found("simulator", "more than %d processes", SIM_PROCESSES);
    }
    processes[id] = (sched_process){.process = {.id = id, .alive = true, .host = host}};
    sim_process *process = &processes[id].process;
    process->pid = 1000 + sim_scheduler.pids++;
    snprintf(process->name, sizeof(process->name), "%s", name);
    process_draw_clock(process);
    sim_trace("process starts", process->pid, host);
    sim_heap_start(process);
    sim_fds_start(process);
    sim_maps_start(process);
    sim_image_start(process);
    sim_threads_start(process);
    sim_fiber_start(process, "main", main, arg);
    return process;
}

void sched_process_end(sim_process *process, bool killed)
{
    sched_process *own = sched_of(process);

    process->alive = false;
    own->ending = true;
    sim_trace(killed ? "process killed" : "process exits", process->pid, 0);
    while (own->fibers != NULL) {
        fiber_end(own->fibers);
    }
    sim_loops_end(process);
    sim_threads_end(process);
    sim_fds_end(process, killed);
    sim_pidfd_ended(process);
    sim_maps_end(process);
    sim_image_end(process);
    sim_heap_end(process);
    own->ending = false;
    if (process->ended != NULL) {
        process->ended(process);
    }
}

/* The process that killed itself, now that none of its fibers runs. */
void sched_reap(void)
{
    if (sim_scheduler.doomed != NULL) {
        sim_process *process = sim_scheduler.doomed;
        sim_scheduler.doomed = NULL;
        sched_process_end(process, true);
    }
}

void sim_process_kill(sim_process *process)
{
    if (!process->alive) {
        return;
    }
    if (process == sim_self && sim_running != NULL) {
        sim_scheduler.doomed = process;
        sim_running->state = FIBER_SLEEPS;
        fiber_leave(sim_running, true);
        sim_found("simulator", "a fiber of a killed process ran");
    }
    sched_process_end(process, true);
}

sim_process *sim_process_of(uint64_t pid)
{
    for (sim_process *process = sched_each(NULL); process != NULL; process = sched_each(process)) {
        if (process->pid == pid) {
            return process;
        }
    }
    return NULL;
}

void sim_process_stop(sim_process *process)
{
    process->stopped = true;
    sched_of(process)->stopped_at = sim_scheduler.now;
    sim_trace("process stopped", process->pid, 0);
}

void sim_process_continue(sim_process *process)
{
    process->stopped = false;
    process->stopped_for += sim_scheduler.now - sched_of(process)->stopped_at;
    sim_trace("process goes on", process->pid, 0);
    for (sim_fiber *fiber = sched_of(process)->fibers; fiber != NULL; fiber = fiber->next) {
        if (fiber->held) {
            fiber->held = false;
            fiber_due(fiber, sim_scheduler.now + fiber_latency());
        }
    }
}

void sim_point(void)
{
    sim_process *process = sim_self;

    if (process == NULL || sim_running == NULL) {
        return;
    }
    if (process->exiting) {
        return;
    }
    if (--sim_scheduler.points_to_kill == 0) {
        sim_scheduler.points_to_kill = sim_between(&sim_scheduler.chance, 500, 20000);
        if (sim_may(SIM_KILL_POINT) && sched_may_kill(process) && sim_happens(SIM_KILL_POINT)) {
            sim_process_kill(process);
        }
    }
    if (--sim_scheduler.points_to_preempt == 0) {
        sim_scheduler.points_to_preempt = sim_between(&sim_scheduler.chance, 1, 200);
        if (sim_happens(SIM_PREEMPT)) {
            sim_pass(sim_below(&sim_fault_chance, 50 * SIM_US));
        }
    }
}

/* --- running ----------------------------------------------------------------------------- */

uint64_t sched_mix(uint64_t hash, uint64_t value)
{
    hash ^= value;
    hash *= UINT64_C(0xff51afd7ed558ccd);
    return hash ^ (hash >> 33);
}

void sched_start(uint64_t seed)
{
    sched_events_clear();
    sim_scheduler = (sim_sched){.hash = seed};
    sim_chance_init(&sim_scheduler.chance, seed, "schedule");
    sim_scheduler.points_to_kill = sim_between(&sim_scheduler.chance, 1, 20000);
    sim_scheduler.points_to_preempt = sim_between(&sim_scheduler.chance, 1, 200);
}
