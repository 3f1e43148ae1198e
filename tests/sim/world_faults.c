/*
 * world_faults.c - faults that come from outside: processes are killed or stopped, machines lose power, clocks are set.
 */
#include "world_state.h"

#include "chance.h"
#include "marks.h"
#include "oracle/history.h"
#include "scheduler.h"

/* Calls that a client still makes when faults are over. */
#define WORLD_LAST_OPS 5

bool sched_may_kill(const sim_process *process)
{
    if (process->user == NULL || sim_is_calm()) {
        return false;
    }
    /* The controller's state is not kept anywhere: in most seeds it stays, so that there is something to promise. */
    return world_drawn.controller_dies || process != world.servers[0].process;
}

static void fault_continue(void *arg)
{
    sim_process *process = sim_process_of((uint64_t)(uintptr_t)arg);

    if (process != NULL && process->stopped) {
        sim_process_continue(process);
    }
}

static sim_process *fault_victim(void)
{
    uint32_t alive = 0;

    for (sim_process *process = sched_each(NULL); process != NULL; process = sched_each(process)) {
        alive++;
    }
    uint32_t at = alive > 0 ? (uint32_t)sim_below(&sim_fault_chance, alive) : 0;
    sim_process *victim = sched_each(NULL);
    for (; victim != NULL && at > 0; at--) {
        victim = sched_each(victim);
    }
    return victim;
}

/* A machine loses power: its processes are gone, and of its files what was not synced. */
static void fault_power(uint32_t host)
{
    for (sim_process *process = sched_each(NULL); process != NULL; process = sched_each(process)) {
        if (process->host == host && !sched_may_kill(process)) {
            return;
        }
    }
    if (!sim_happens(SIM_DISK_TORN)) {
        return;
    }
    sim_mark("a machine lost power");
    for (sim_process *process = sched_each(NULL); process != NULL; process = sched_each(process)) {
        if (process->host == host) {
            sim_process_kill(process);
        }
    }
    sim_disk_power_loss(host);
}

/* A unit is ended in order, as by SIGTERM, and then started again. */
static bool fault_end(const sim_process *victim)
{
    for (uint32_t i = 1; i <= world_drawn.units; i++) {
        const world_server *server = &world.servers[i];
        if (server->process == victim && server->serves && server->stop != NULL && !victim->stopped &&
            sim_one_in(&sim_fault_chance, 2) && sim_happens(SIM_KILL_EVENT)) {
            sim_mark("a unit ended in order");
            uv_async_send(server->stop);
            return true;
        }
    }
    return false;
}

/* Now and then: somebody is killed or stopped, a machine loses power, or a clock is set. */
static void fault_tick(void *arg)
{
    (void)arg;
    if (sim_is_calm()) {
        return;
    }
    sim_process *victim = fault_victim();
    if (victim != NULL && fault_end(victim)) {
        victim = NULL;
    }
    if (victim != NULL && sched_may_kill(victim) && sim_happens(SIM_KILL_EVENT)) {
        sim_process_kill(victim);
        victim = NULL;
    }
    if (victim != NULL && sim_may(SIM_DISK_TORN)) {
        fault_power(victim->host);
        victim = victim->alive ? victim : NULL;
    }
    if (victim != NULL && !victim->stopped && sim_happens(SIM_STOP)) {
        uint64_t ns = sim_one_in(&sim_fault_chance, 4) ? sim_below(&sim_fault_chance, 20 * SIM_S)
                                                       : sim_below(&sim_fault_chance, 300 * SIM_MS);
        sim_process_stop(victim);
        if (sim_one_in(&sim_fault_chance, 3)) {
            sim_mark("a process that is stopped loses its connections");
            sim_net_lose(victim->pid);
        }
        sim_at(sim_time() + ns, fault_continue, (void *)(uintptr_t)victim->pid);
    }
    if (victim != NULL && sim_happens(SIM_CLOCK_STEP)) {
        victim->wall_offset += (int64_t)sim_below(&sim_fault_chance, 7200000000) - 3600000000;
    }
    sim_at(sim_time() + sim_between(&sim_fault_chance, 10 * SIM_MS, 2 * SIM_S), fault_tick, NULL);
}

void world_faults_start(void)
{
    sim_at(sim_between(&sim_fault_chance, 1, SIM_S), fault_tick, NULL);
}

void world_calm(void)
{
    sim_faults_drawn.calm = true;
    sim_net_calm();
    /* A claim may wait for as long as its timeout: few are still to come. */
    for (uint32_t i = 0; i < world_drawn.clients; i++) {
        load_client *load = &world.clients[i].load;
        load->budget = load->budget < WORLD_LAST_OPS ? load->budget : WORLD_LAST_OPS;
    }
    for (sim_process *process = sched_each(NULL); process != NULL; process = sched_each(process)) {
        if (process->stopped) {
            sim_process_continue(process);
        }
    }
    history_calm();
}
