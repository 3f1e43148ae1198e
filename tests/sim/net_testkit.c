/*
 * net_testkit.c - see net_testkit.h.
 */
#include "net_testkit.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "disk.h"
#include "net.h"

#define KIT_EVENTS 4096
#define KIT_MARKS  64
#define KIT_PATHS  64

typedef struct kit_event {
    uint64_t id, time;
    void (*fn)(void *arg);
    void *arg;
} kit_event;

static struct {
    uint64_t now, ids, hash;
    kit_event events[KIT_EVENTS];
    size_t n_events;
    unsigned happens[SIM_FAULTS];
    uint32_t one_in;
    const char *marks[KIT_MARKS];
    size_t n_marks;
    struct {
        char path[108];
        void *listener;
    } paths[KIT_PATHS];
    size_t n_paths;
    sim_process processes[KIT_PROCESSES];
    uint64_t pids;
} kit;

sim_process *sim_self;
sim_fiber *sim_running;
uint64_t sim_seed;
sim_chance sim_fault_chance;

/* --- memory and chance ------------------------------------------------------------ */

void *sim_alloc(size_t size)
{
    void *memory = calloc(1, size);

    assert_non_null(memory);
    return memory;
}

void *sim_realloc(void *old, size_t size)
{
    void *memory = realloc(old, size);

    assert_non_null(memory);
    return memory;
}

void sim_free(void *memory)
{
    free(memory);
}

void sim_chance_init(sim_chance *chance, uint64_t seed, const char *name)
{
    (void)name;
    chance->s[0] = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
}

uint64_t sim_next(sim_chance *chance)
{
    uint64_t z = chance->s[0] += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

uint64_t sim_below(sim_chance *chance, uint64_t n)
{
    return n > 0 ? sim_next(chance) % n : 0;
}

uint64_t sim_between(sim_chance *chance, uint64_t low, uint64_t high)
{
    return low + sim_below(chance, high - low + 1);
}

bool sim_one_in(sim_chance *chance, uint64_t n)
{
    return n > 0 && sim_below(chance, n) == 0;
}

bool sim_happens(sim_fault fault)
{
    if (kit.happens[fault] > 0) {
        kit.happens[fault]--;
        return true;
    }
    return sim_one_in(&sim_fault_chance, kit.one_in);
}

bool sim_may(sim_fault fault)
{
    return kit.one_in > 0 || (fault != SIM_NO_PIDFD && fault != SIM_PARTITION);
}

bool sim_is_calm(void)
{
    return false;
}

void sim_mark(const char *name)
{
    if (!kit_marked(name) && kit.n_marks < KIT_MARKS) {
        kit.marks[kit.n_marks++] = name;
    }
}

void sim_trace(const char *what, uint64_t a, uint64_t b)
{
    (void)what;
    kit.hash = (kit.hash ^ a ^ (b << 20)) * UINT64_C(0xff51afd7ed558ccd) + kit.now;
}

void sim_found(const char *invariant, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fprintf(stderr, "%s: ", invariant);
    vfprintf(stderr, format, args);
    va_end(args);
    fprintf(stderr, "\n");
    abort();
}

/* --- events ------------------------------------------------------------------------- */

uint64_t sim_time(void)
{
    return kit.now;
}

uint64_t sim_at(uint64_t time, void (*fn)(void *arg), void *arg)
{
    assert_true(kit.n_events < KIT_EVENTS);
    kit.events[kit.n_events++] =
        (kit_event){.id = ++kit.ids, .time = time > kit.now ? time : kit.now, .fn = fn, .arg = arg};
    return kit.ids;
}

void sim_at_drop(uint64_t event)
{
    for (size_t i = 0; i < kit.n_events; i++) {
        if (kit.events[i].id == event) {
            kit.events[i] = kit.events[--kit.n_events];
            return;
        }
    }
}

/* Runs the first event up to that time. */
static bool kit_step(uint64_t until)
{
    size_t first = 0;

    for (size_t i = 1; i < kit.n_events; i++) {
        const kit_event *a = &kit.events[i], *b = &kit.events[first];
        first = a->time < b->time || (a->time == b->time && a->id < b->id) ? i : first;
    }
    if (kit.n_events == 0 || kit.events[first].time > until) {
        return false;
    }
    kit_event event = kit.events[first];
    kit.events[first] = kit.events[--kit.n_events];
    kit.now = event.time;
    sim_process *self = sim_self;
    sim_self = NULL;
    event.fn(event.arg);
    sim_self = self;
    return true;
}

void kit_run(uint64_t ns)
{
    uint64_t until = kit.now + ns;

    while (kit_step(until)) {
    }
    kit.now = until;
}

void kit_settle(void)
{
    uint64_t until = kit.now + SIM_S;

    while (kit_step(until)) {
        until = kit.now + SIM_S;
    }
}

void sim_point(void)
{
}

bool sim_sleep(uint64_t until)
{
    if (!kit_step(until)) {
        kit.now = until;
    }
    return true;
}

void sim_wake(sim_fiber *fiber)
{
    (void)fiber;
}

/* --- processes ------------------------------------------------------------------------ */

sim_process *sim_process_of(uint64_t pid)
{
    for (int i = 0; i < KIT_PROCESSES; i++) {
        if (kit.processes[i].pid == pid && kit.processes[i].alive) {
            return &kit.processes[i];
        }
    }
    return NULL;
}

static void kit_process(int number)
{
    sim_process *process = &kit.processes[number];

    *process = (sim_process){.id = (uint32_t)number, .pid = 1000 + kit.pids++, .alive = true, .host = number / 2};
    snprintf(process->name, sizeof(process->name), "process-%d", number);
    sim_fds_start(process);
}

void kit_as(int process)
{
    sim_self = process >= 0 ? &kit.processes[process] : NULL;
}

void kit_kill(int number)
{
    sim_process *process = &kit.processes[number];

    kit_as(-1);
    process->alive = false;
    sim_fds_end(process, true);
    sim_pidfd_ended(process);
}

void kit_fault(sim_fault fault, unsigned n)
{
    kit.happens[fault] = n;
}

void kit_faults(uint32_t one_in)
{
    kit.one_in = one_in;
}

void kit_partition(bool there, bool back, uint64_t ns)
{
    net_partition(&(net_parted){.a = 0, .b = 1, .there = there, .back = back}, ns);
}

bool kit_marked(const char *name)
{
    for (size_t i = 0; i < kit.n_marks; i++) {
        if (strcmp(kit.marks[i], name) == 0) {
            return true;
        }
    }
    return false;
}

uint64_t kit_hash(void)
{
    return kit.hash;
}

/* --- paths of sockets -------------------------------------------------------------------- */

int sim_disk_socket_bind(const char *path, void *listener)
{
    if (sim_disk_socket_find(path) != NULL) {
        errno = EADDRINUSE;
        return -1;
    }
    assert_true(kit.n_paths < KIT_PATHS);
    snprintf(kit.paths[kit.n_paths].path, sizeof(kit.paths->path), "%s", path);
    kit.paths[kit.n_paths++].listener = listener;
    return 0;
}

void *sim_disk_socket_find(const char *path)
{
    for (size_t i = 0; i < kit.n_paths; i++) {
        if (strcmp(kit.paths[i].path, path) == 0) {
            return kit.paths[i].listener;
        }
    }
    errno = ENOENT;
    return NULL;
}

/* --- start and end -------------------------------------------------------------------------- */

void kit_start(uint64_t seed)
{
    memset(&kit, 0, sizeof(kit));
    sim_self = NULL;
    sim_seed = seed;
    sim_chance_init(&sim_fault_chance, seed, "faults");
    sim_net_start();
    for (int i = 0; i < KIT_PROCESSES; i++) {
        kit_process(i);
    }
}

void kit_end(void)
{
    for (int i = 0; i < KIT_PROCESSES; i++) {
        if (kit.processes[i].alive) {
            kit_kill(i);
        }
    }
    sim_net_end();
    assert_int_equal(kit.n_events, 0);
}
