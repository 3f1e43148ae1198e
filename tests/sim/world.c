/*
 * world.c - see world.h.
 */
#include "world_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "chance.h"
#include "loop.h"
#include "marks.h"
#include "oracle/check.h"
#include "oracle/guard.h"
#include "oracle/history.h"
#include "oracle/saved.h"
#include "oracle/waits.h"
#include "oracle/witness.h"
#include "scheduler.h"
#include "shelf.h"
#include "store.h"
#include "thread.h"

#define WORLD_TOKEN "the token of the simulated system"
#define WORLD_PORT  7000

/* In the liveness phase: how long everything may take that was begun before, and the drain after it. */
#define WORLD_END_NS   (180 * SIM_S)
#define WORLD_DRAIN_NS (600 * SIM_S)

world_state world;
world_draws world_drawn;
uint64_t world_requests;
world_summary world_finished;
bool world_logs;
void (*world_ending)(void);

/* --- what a seed draws --------------------------------------------------------------- */

static void world_draw(uint64_t seed)
{
    world_draws *drawn = &world_drawn;
    sim_chance *chance = &world.chance;

    sim_chance_init(chance, seed, "world");
    *drawn = (world_draws){.storage = WORLD_SIMPLE, .manager = "SimpleStorage"};
    drawn->hosts = (uint32_t)sim_between(chance, 1, 3);
    drawn->units = (uint32_t)sim_between(chance, 1, WORLD_UNITS);
    drawn->clients = (uint32_t)sim_between(chance, 1, WORLD_CLIENTS);
    drawn->grace_ms = sim_between(chance, 200, 3000);
    drawn->owner_timeout_ms = sim_between(chance, 200, 5000);
    drawn->write_deadline_ms = sim_between(chance, 100, 3000);
    drawn->first_counters = sim_one_in(chance, 8) ? sim_between(chance, 1, 200) : 0;
    drawn->capacity = UINT64_C(1) << sim_between(chance, 17, 21);
    drawn->timers_last = sim_one_in(chance, 2);
    drawn->tcp_only = sim_one_in(chance, 4);
    bool controller_dies = sim_one_in(chance, 6);
    drawn->safety_ns = sim_between(chance, 2, 40) * SIM_S;
    if (sim_one_in(chance, 4)) {
        static const char *const stores[] = {STORE_WHOLE, STORE_SMALL, STORE_SWEPT};
        drawn->storage = WORLD_KV;
        drawn->manager = stores[sim_below(chance, 3)];
        drawn->units = 0;
    } else if (sim_one_in(chance, 8)) {
        drawn->storage = WORLD_KEYED;
        drawn->manager = SHELF_MANAGER;
        drawn->units = 0;
    }
    /* Values in stores of their own outlive the controller that knew them: those of an earlier epoch stay. */
    drawn->controller_dies = controller_dies && drawn->storage == WORLD_SIMPLE;
}

/* Whether the system has what a workload needs. */
static bool world_has(const char *needs)
{
    return needs == NULL || (strcmp(needs, "kv") == 0 && world_drawn.storage == WORLD_KV) ||
           (strcmp(needs, "keyed") == 0 && world_drawn.storage == WORLD_KEYED) ||
           (strcmp(needs, "disk") == 0 && world_drawn.storage != WORLD_KEYED) ||
           (strcmp(needs, "units") == 0 && world_drawn.storage == WORLD_SIMPLE);
}

static const load_kind *world_draw_kind(uint32_t client)
{
    const load_kind *first = client > 0 ? world.clients[0].load.kind : NULL;
    const load_kind *kind;

    if (world.options.load != NULL) {
        for (size_t i = 0; i < load_kinds_count; i++) {
            if (strcmp(load_kinds[i]->name, world.options.load) == 0) {
                return load_kinds[i];
            }
        }
        fprintf(stderr, "sim: no workload is named %s\n", world.options.load);
        exit(2);
    }
    if (first != NULL && first->alone) {
        return first;
    }
    do {
        kind = load_kinds[sim_below(&world.chance, load_kinds_count)];
    } while (!world_has(kind->needs) || (first != NULL && kind->alone));
    return kind;
}

static void world_log(tq_log_level level, const char *part, const char *message, void *arg)
{
    const load_kind *kind = world.clients[0].load.kind;

    (void)level;
    (void)arg;
    /* A connection that breaks off in a frame has ended, and the next one begins with a whole frame: parts that speak
     * through the library never see half of one, or bytes of another. */
    sim_check(strstr(message, "malformed") == NULL || (kind != NULL && kind->alone), "legal errors", "%s: %s", part,
              message);
    if (world_logs) {
        fprintf(stderr, "%14.6f %-12s log: %s: %s\n", (double)sim_time() / 1e9, sim_self->name, part, message);
    }
}

/* --- servers -------------------------------------------------------------------------------- */

static void server_closed(void *arg)
{
    (void)arg;
}

static void server_on_stop(uv_async_t *stop)
{
    world_server *server = stop->data;

    server->stop = NULL;
    server->serves = false;
    uv_close((uv_handle_t *)stop, NULL);
    if (server->controller != NULL) {
        tqi_controller_set_goodbye(server->controller, TQI_NET_ENDS_SYSTEM, "the simulation ends");
        tqi_controller_close(server->controller, server_closed, NULL);
    }
    if (server->unit != NULL) {
        tqi_unit_set_goodbye(server->unit, server->ends ? TQI_NET_ENDS_SYSTEM : TQI_NET_ENDS_SERVER,
                             "the simulation ends it");
        tqi_unit_close(server->unit, server_closed, NULL);
    }
}

static void server_token(tqi_net_token *token)
{
    *token = (tqi_net_token){.size = strlen(WORLD_TOKEN)};
    memcpy(token->bytes, WORLD_TOKEN, token->size);
}

static int server_controller(world_server *server, const char *const *listen, size_t n, tq_error *err)
{
    tqi_net_token token;
    tqi_controller_options options = {
        .listen = listen,
        .n_listen = n,
        .token = &token,
        .grace_ms = world_drawn.grace_ms,
        .owner_timeout_ms = world_drawn.owner_timeout_ms,
        .write_deadline_ms = world_drawn.write_deadline_ms,
        .manager = world_drawn.manager,
        .manager_config = "{}",
        .config = "{}",
        .system = "simulated",
        .first_counters = world_drawn.first_counters,
    };

    server_token(&token);
    return tqi_controller_alloc(server->loop, &options, &server->controller, err);
}

static void server_on_ready(void *arg)
{
    world_server *server = arg;

    server->serves = true;
}

static int server_unit(world_server *server, const char *const *listen, size_t n, tq_error *err)
{
    tqi_net_token token;
    char host[32];
    tqi_unit_options options = {
        .name = server->name,
        .controller = world.address[server->host],
        .listen = listen,
        .n_listen = n,
        .advertise_host = host,
        .token = &token,
        .store = {.capacity = world_drawn.capacity},
        .grace_ms = world_drawn.grace_ms,
        .keep_ms = 2000,
    };

    server_token(&token);
    snprintf(host, sizeof(host), "10.0.0.%u", server->host + 1);
    int rc = tqi_unit_alloc(server->loop, &options, &server->unit, err);
    if (!rc) {
        tqi_unit_on_ready(server->unit, server_on_ready, server);
    }
    return rc;
}

/* A program that ends has closed all that it opened. */
static void world_check_descriptors(void)
{
    sim_check(sim_fds_count(sim_self) == 0, "no leak", "%s ends with %u open descriptors", sim_self->name,
              sim_fds_count(sim_self));
}

/* The program of a server. */
static void server_main(void *arg)
{
    world_server *server = arg;
    /* As tqd has them: those of this machine come over the unix socket, and share memory. */
    const char *listen[2] = {world_drawn.tcp_only ? server->listen_tcp : server->listen_unix, server->listen_tcp};
    size_t n = world_drawn.tcp_only ? 1 : 2;
    tq_error err = {0};
    uv_loop_t loop;
    uv_async_t stop;

    sim_heap_may_fail(sim_self, true);
    tq_log_set_sink(world_log, NULL);
    uv_loop_init(&loop);
    uv_async_init(&loop, &stop, server_on_stop);
    stop.data = server;
    server->loop = &loop;
    int rc = server->number == 0 ? server_controller(server, listen, n, &err) : server_unit(server, listen, n, &err);
    sim_check(rc == TQ_OK || rc == TQ_ENOMEM || sim_may(SIM_OOM) || sim_may(SIM_ACCEPT_FULL), "legal errors",
              "%s does not start: %s", server->name, err.message);
    if (rc) {
        sim_trace("a server does not start", (uint64_t)rc, 0);
        uv_close((uv_handle_t *)&stop, NULL);
    } else {
        server->stop = &stop;
        server->serves = server->number == 0;
    }
    uv_run(&loop, UV_RUN_DEFAULT);
    server->stop = NULL;
    sim_check(uv_loop_close(&loop) == 0, "no leak", "%s leaves handles on its loop", server->name);
    sim_heap_check_leaks();
    world_check_descriptors();
}

static void server_start(void *arg);

static void server_ended(sim_process *process)
{
    world_server *server = process->user;

    server->process = NULL;
    server->controller = NULL;
    server->unit = NULL;
    server->loop = NULL;
    server->stop = NULL;
    server->serves = false;
    if (!server->ends) {
        uint64_t delay =
            sim_one_in(&world.chance, 4) ? sim_below(&world.chance, 8 * SIM_S) : sim_below(&world.chance, 100 * SIM_MS);
        sim_at(sim_time() + delay, server_start, server);
    }
}

static void server_start(void *arg)
{
    world_server *server = arg;

    if (!server->ends && server->process == NULL) {
        server->process = sim_process_start(server->name, server->host, server_main, server);
        server->process->user = server;
        server->process->ended = server_ended;
    }
}

sim_process *world_controller(void)
{
    return world.servers[0].process;
}

sim_process *world_unit(uint32_t number)
{
    return number < world_drawn.units ? world.servers[1 + number].process : NULL;
}

/* --- clients -------------------------------------------------------------------------------------- */

static world_client *client_of(const sim_process *process)
{
    return process->user;
}

void world_client_options(tq_client_options *out)
{
    world_client *client = client_of(sim_self);

    *out = tq_client_options_init();
    out->address = world.address[client->host];
    out->token = WORLD_TOKEN;
    out->name = client->name;
    out->node = NULL;
    out->timeout = 20;
    out->notice = -1;
    if (world_drawn.first_counters != 0) {
        out->first_request = 0 - world_drawn.first_counters;
    }
}

const char *world_address(uint32_t server)
{
    const world_server *to = &world.servers[server];

    if (server > world_drawn.units) {
        return NULL;
    }
    return !world_drawn.tcp_only && to->host == sim_self->host ? to->listen_unix : to->listen_tcp;
}

static void client_start(void *arg);

static void client_ended(sim_process *process)
{
    world_client *client = client_of(process);

    client->process = NULL;
    client->load.client = NULL;
    if (!client->load.done) {
        history_client("died", client->load.number, client->load.life,
                       client->load.kind != NULL ? client->load.kind->name : "drain", 0, client->load.drains);
        client->load.life++;
        sim_at(sim_time() + sim_below(&world.chance, 2 * SIM_S), client_start, client);
    }
}

/* The program of a client. */
static void client_main(void *arg)
{
    world_client *client = arg;

    sim_heap_may_fail(sim_self, true);
    tq_log_set_sink(world_log, NULL);
    if ((world_drawn.storage == WORLD_KV && store_register() != TQ_OK) ||
        (world_drawn.storage == WORLD_KEYED && shelf_register() != TQ_OK)) {
        return; /* out of memory: it is started again */
    }
    if (client->load.drains) {
        load_drain(&client->load);
    } else {
        load_client_main(&client->load);
    }
    /* Work of a store that cannot be stopped goes on behind a client that was closed, and has its memory. */
    if (sched_alone(sim_self)) {
        sim_heap_check_leaks();
        world_check_descriptors();
    }
}

static void client_start(void *arg)
{
    world_client *client = arg;

    if (client->process == NULL) {
        client->process = sim_process_start(client->name, client->host, client_main, client);
        client->process->user = client;
        client->process->ended = client_ended;
    }
}

static void client_make(uint32_t i, bool drains)
{
    world_client *client = &world.clients[i];
    char name[32];

    *client = (world_client){.host = (uint32_t)sim_below(&world.chance, world_drawn.hosts)};
    client->load.number = i + 1;
    client->load.life = 1;
    client->load.drains = drains;
    client->load.kind = drains ? NULL : world_draw_kind(i);
    client->load.budget = world.options.budget ? world.options.budget : (uint32_t)sim_between(&world.chance, 20, 300);
    if (world.options.operations && client->load.budget > world.options.operations) {
        client->load.budget = world.options.operations;
    }
    snprintf(client->name, sizeof(client->name), "client-%u", i + 1);
    snprintf(name, sizeof(name), "load %u", i + 1);
    sim_chance_init(&client->load.chance, sim_seed, name);
    sim_at(sim_below(&world.chance, 200 * SIM_MS), client_start, client);
}

/* --- phases ----------------------------------------------------------------------------------------------- */

static bool clients_done(uint32_t from, uint32_t n)
{
    for (uint32_t i = from; i < from + n; i++) {
        if (!world.clients[i].load.done || world.clients[i].process != NULL) {
            return false;
        }
    }
    return true;
}

/* Runs until those clients are done, or until that time; returns whether they are. */
static bool phase_clients(uint32_t from, uint32_t n, uint64_t until)
{
    while (!clients_done(from, n) && sched_step(until)) {
    }
    return clients_done(from, n);
}

static void phase_stuck(uint32_t from, uint32_t n)
{
    for (uint32_t i = from; i < from + n; i++) {
        const world_client *client = &world.clients[i];
        if (!client->load.done || client->process != NULL) {
            sim_found("liveness", "%s (%s) has not ended %llu s after the last fault: %s", client->name,
                      client->load.drains ? "drain" : client->load.kind->name,
                      (unsigned long long)((client->load.drains ? WORLD_DRAIN_NS : WORLD_END_NS) / SIM_S),
                      check_pending(client->load.number));
        }
    }
}

static void phase_rest(void)
{
    uint64_t ms = world_drawn.grace_ms;

    ms = ms > world_drawn.owner_timeout_ms ? ms : world_drawn.owner_timeout_ms;
    ms = ms > world_drawn.write_deadline_ms ? ms : world_drawn.write_deadline_ms;
    /* A clock may be 20 % slow, sessions are looked at once a second, and what is found then takes a round of its own. */
    uint64_t until = sim_time() + (ms * 2 + 70000) * SIM_MS;
    while (sched_step(until)) {
    }
    rest_check();
}

static bool servers_ended(void)
{
    for (uint32_t i = 0; i <= world_drawn.units; i++) {
        if (world.servers[i].process != NULL) {
            return false;
        }
    }
    return true;
}

static void phase_end(void)
{
    uint64_t until = sim_time() + 60 * SIM_S;

    for (uint32_t i = world_drawn.units + 1; i-- > 0;) {
        world.servers[i].ends = true;
        if (world.servers[i].stop != NULL) {
            uv_async_send(world.servers[i].stop);
        }
    }
    while (!servers_ended() && sched_step(until)) {
    }
    for (uint32_t i = 0; i <= world_drawn.units; i++) {
        sim_check(world.servers[i].process == NULL, "liveness", "%s has not ended 60 s after it was asked to",
                  world.servers[i].name);
    }
}

static void world_make_servers(void)
{
    uint32_t host;

    for (uint32_t i = 0; i <= world_drawn.units; i++) {
        world_server *server = &world.servers[i];
        *server = (world_server){.number = i};
        server->host = host = i == 0 ? 0 : (i - 1) % world_drawn.hosts;
        char name[32] = "controller";
        if (i > 0) {
            snprintf(name, sizeof(name), "unit-%u", i - 1);
        }
        snprintf(server->name, sizeof(server->name), "%s", name);
        snprintf(server->listen_unix, sizeof(server->listen_unix), "unix:" SIM_ROOT "/%s.sock", name);
        snprintf(server->listen_tcp, sizeof(server->listen_tcp), "tcp:10.0.0.%u:%u", host + 1, WORLD_PORT + i);
        sim_at(i == 0 ? 0 : sim_below(&world.chance, 100 * SIM_MS), server_start, server);
    }
    for (host = 0; host < world_drawn.hosts; host++) {
        snprintf(world.address[host], sizeof(world.address[host]), "%s%s%s",
                 host == 0 && !world_drawn.tcp_only ? world.servers[0].listen_unix : "",
                 host == 0 && !world_drawn.tcp_only ? "," : "", world.servers[0].listen_tcp);
    }
}

static void world_start(uint64_t seed)
{
    sim_seed = seed;
    sched_start(seed);
    sim_faults_draw(seed);
    sim_memory_start();
    world_draw(seed);
    sim_loops_start(world_drawn.timers_last);
    sim_net_start();
    sim_disk_start();
    witness_start(seed);
    waits_start();
    history_start(seed);
    history_grace(world_drawn.grace_ms);
    saved_start();
    if (world_drawn.storage == WORLD_KV) {
        store_start(seed, &(store_options){.write_deadline = world_drawn.write_deadline_ms * SIM_MS});
    }
    shelf_start(seed);
    world_make_servers();
    for (uint32_t i = 0; i < world_drawn.clients; i++) {
        client_make(i, false);
    }
    guard_trusts = !world.clients[0].load.kind->raw;
    world_faults_start();
}

static void world_end(void)
{
    marks_of_seed();
    if (world_ending != NULL) {
        world_ending();
    }
    world_finished = (world_summary){
        .hash = sim_scheduler.hash,
        .events = sim_scheduler.events,
        .time = sim_time(),
        .ops = history_ops(),
    };
    for (sim_process *process = sched_each(NULL); process != NULL; process = sched_each(NULL)) {
        process->ended = NULL;
        sim_process_kill(process);
    }
    if (world_drawn.storage == WORLD_KV) {
        store_end();
    }
    shelf_end();
    history_end();
    witness_end();
    sim_disk_end();
    sim_net_end();
    sched_start(0);
}

void world_run(uint64_t seed, const world_options *options)
{
    memset(&world, 0, sizeof(world));
    world.options = *options;
    world_start(seed);
    phase_clients(0, world_drawn.clients, world_drawn.safety_ns);
    world_calm();
    if (!phase_clients(0, world_drawn.clients, sim_time() + WORLD_END_NS)) {
        phase_stuck(0, world_drawn.clients);
    }
    check_history();
    client_make(world_drawn.clients, true);
    if (!phase_clients(world_drawn.clients, 1, sim_time() + WORLD_DRAIN_NS)) {
        phase_stuck(world_drawn.clients, 1);
    }
    check_drained();
    phase_rest();
    phase_end();
    world_end();
}

/* --- counting ------------------------------------------------------------------------------------------------- */

int __real_tqi_net_call_start(tqi_net_channel *channel, const tqi_net_call_args *args, tqi_net_call **out,
                              tq_error *err);
int __wrap_tqi_net_call_start(tqi_net_channel *channel, const tqi_net_call_args *args, tqi_net_call **out,
                              tq_error *err);
int __wrap_tqi_net_call_start(tqi_net_channel *channel, const tqi_net_call_args *args, tqi_net_call **out, tq_error *err)
{
    world_requests += sim_self != NULL && strncmp(sim_self->name, "client", 6) == 0;
    return __real_tqi_net_call_start(channel, args, out, err);
}
