/*
 * world.c - the controller, the unit and the loop of a run, and the end of it.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/limits.h"
#include "controller/controller.h"
#include "controller/controller_state.h"
#include "controller/owners.h"
#include "net/serving.h"
#include "stateful.h"
#include "unit/unit.h"
#include "unit/unit_state.h"
#include "unit/writers.h"

/* Turns in which something happens, at most: more is a loop that spins. */
#define WORLD_TURNS 20000u
/* Turns in which a server greets. */
#define WORLD_GREETING 100
/* A list of partitions that a sweep clears is not longer. */
#define WORLD_SWEEP_MS 600u

static void world_set(void *arg)
{
    *(bool *)arg = true;
}

/* Takes what servers have sent to the clients; whether there was anything, which may have made room for more. */
static bool turn_take(sf *f)
{
    struct pollfd polled[2 * SF_CLIENTS];

    for (int i = 0; i < 2 * SF_CLIENTS; i++) {
        polled[i] = (struct pollfd){.fd = f->client[i / 2].link[i % 2].fd, .events = POLLIN};
    }
    if (poll(polled, 2 * SF_CLIENTS, 0) <= 0) {
        return false;
    }
    for (int i = 0; i < 2 * SF_CLIENTS; i++) {
        if (polled[i].revents) {
            sf_link_take(f, &f->client[i / 2], &f->client[i / 2].link[i % 2]);
        }
    }
    return true;
}

void sf_turn(sf *f)
{
    unsigned idle = 0;

    for (unsigned turns = 0; idle < 2; turns++) {
        uv_run(&f->loop, UV_RUN_NOWAIT);
        bool any = sf_host_polled();
        any = sf_host_work() || any;
        any = turn_take(f) || any;
        idle = any ? 0 : idle + 1;
        if (turns > WORLD_TURNS) {
            sf_fault(f, "the loop does not come to rest");
        }
    }
}

void sf_pause(sf *f)
{
    sf_turn(f);
}

void sf_pass(sf *f, uint64_t ms)
{
    sf_host_pass(ms);
    sf_turn(f);
}

static void world_until(sf *f, const bool *flag, const char *what)
{
    for (int i = 0; !*flag; i++) {
        uv_run(&f->loop, UV_RUN_NOWAIT);
        sf_host_work();
        sf_host_pass(1);
        if (i > 10000) {
            sf_fault(f, "%s", what);
        }
    }
}

/* The other end of a pair is the server's. */
int sf_connect(sf *f, sf_client *client, bool unit, int *theirs)
{
    int pair[2];

    sf_must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0, "a pair of sockets");
    sf_must(ioctl(pair[1], FIONBIO, &(int){1}) == 0, "a socket that does not block");
    if (!client->pid) {
        client->pid = sf_process_start();
    }
    sf_process_of(pair[1], client->pid);
    *theirs = pair[1];
    tqi_net_server_adopt_for_tests(unit ? f->unit->server : f->controller->server, pair[1], true, "fuzz");
    return pair[0];
}

bool sf_wait(sf *f, const sf_link *link, int turn)
{
    (void)link;
    if (turn == WORLD_GREETING) {
        sf_fault(f, "the server does not greet");
    }
    uv_run(&f->loop, UV_RUN_NOWAIT);
    sf_host_polled();
    return true;
}

uint64_t sf_pins(const sf *f, const sf_client *client)
{
    if (client == NULL) {
        return f->unit->pins;
    }
    const tqi_net_session *session = tqi_net_session_find(f->unit->server, client->session);
    const tqi_unit_writer *writer = session != NULL ? tqi_net_session_user(session) : NULL;
    return writer != NULL ? HASH_COUNT(writer->pins) : 0;
}

char *sf_keep(const char *text)
{
    return strdup(text);
}

int sf_spare_descriptor(sf *f)
{
    (void)f;
    return STDIN_FILENO;
}

/* How much there may be: as usual, or little. */
static void world_limits(bool tight)
{
    static tqi_limits_table usual;

    if (!usual.sessions) {
        usual = tqi_limits;
    }
    tqi_limits = usual;
    if (!tight) {
        return;
    }
    tqi_limits.sessions = 5;
    tqi_limits.queued_replies = tqi_limits.all_queued_replies = 65536;
    tqi_limits.kept_replies = 64;
    tqi_limits.kept_reply_bytes = 65536;
    tqi_limits.waiting = 3;
    tqi_limits.waiting_bytes = 4096;
    tqi_limits.all_waiting_bytes = 8192;
    tqi_limits.request_bytes = 16384;
    tqi_limits.incoming_bytes = 65536;
    tqi_limits.partitions = tqi_limits.fields = tqi_limits.tasks = 3;
    tqi_limits.grants = 4;
    tqi_limits.owners = 3;
    tqi_limits.late_ranges = 4;
    tqi_limits.event_bytes = 4096;
    tqi_limits.snapshots = tqi_limits.restores = 4;
    tqi_limits.restore_bytes = 65536;
    tqi_limits.pins = tqi_limits.pinned_blocks = 4;
}

void sf_open(sf *f)
{
    const char *listen = f->controller_at;
    char at[96];
    const char *unit_at = at;
    bool ready = false;
    tq_error err = {0};
    uint32_t kind = sf_pick(f, 16);

    f->strict = kind == 4;
    f->tight = sf_pick(f, 4) == 3;
    f->clean = !f->tight;
    world_limits(f->tight);
    sf_must(uv_loop_init(&f->loop) == 0, "a loop");
    snprintf(f->dir, sizeof(f->dir), "/tmp/tq-stateful-XXXXXX");
    sf_must(mkdtemp(f->dir) != NULL, "a directory");
    snprintf(f->controller_at, sizeof(f->controller_at), "unix:%s/controller", f->dir);
    snprintf(at, sizeof(at), "unix:%s/unit", f->dir);
    f->token.size = 32;
    memset(f->token.bytes, 't', f->token.size);
    tqi_controller_options options = {
        .listen = &listen,
        .n_listen = 1,
        .token = &f->token,
        .grace_ms = SF_GRACE_MS,
        .owner_timeout_ms = SF_OWNER_MS,
        .write_deadline_ms = SF_LATE_MS,
        .events = 64,
        .first_counters = kind % 4 == 3 ? 100 : 0,
        .strict_schema = f->strict,
        .metrics = true,
    };
    sf_must(tqi_controller_alloc(&f->loop, &options, &f->controller, &err) == TQ_OK, err.message);
    tqi_unit_options unit = {
        .name = SF_UNIT,
        .controller = f->controller_at,
        .listen = &unit_at,
        .n_listen = 1,
        .token = &f->token,
        .store = {.capacity = SF_CAPACITY},
        .grace_ms = SF_GRACE_MS,
        .keep_ms = 1000,
    };
    sf_must(tqi_unit_alloc(&f->loop, &unit, &f->unit, &err) == TQ_OK, err.message);
    tqi_unit_on_ready(f->unit, world_set, &ready);
    world_until(f, &ready, "the unit does not join");
    tqi_unit_on_ready(f->unit, NULL, NULL);
    f->owner[0].incarnation = f->unit->incarnation;
}

void sf_close(sf *f)
{
    bool unit = false, controller = false;

    for (int i = 0; i < SF_CLIENTS; i++) {
        sf_link_forget(&f->client[i].link[0]);
        sf_link_forget(&f->client[i].link[1]);
    }
    tqi_unit_close(f->unit, world_set, &unit);
    world_until(f, &unit, "the unit does not close");
    tqi_controller_close(f->controller, world_set, &controller);
    world_until(f, &controller, "the controller does not close");
    bool closed = uv_loop_close(&f->loop) == 0;
    for (int i = 0; !closed && i < 100; i++) {
        uv_run(&f->loop, UV_RUN_NOWAIT);
        closed = uv_loop_close(&f->loop) == 0;
    }
    if (!closed) {
        sf_fault(f, "a handle of the loop is left");
    }
    if (rmdir(f->dir) != 0) {
        sf_fault(f, "a socket is left in %s", f->dir);
    }
}

void sf_check(sf *f)
{
    tqi_metric_set *metrics = NULL;
    tq_error err = {0};

    if (tqi_controller_metrics(f->controller, 2, &metrics, &err) != TQ_OK) {
        sf_fault(f, "no metrics: %s", err.message);
    }
    tqi_metric_set_free(metrics);
    sf_check_table(f, f->controller->table);
    if (!tqi_store_check_for_tests(f->unit->store)) {
        sf_fault(f, "the books of the store disagree");
    }
}

/* The unit's moves and the notices it gets change the rest. */
void sf_state(const sf *f, sf_state_of *out)
{
    tqi_table_counts n;

    tqi_table_count(f->controller->table, &n);
    *out = (sf_state_of){n.partitions, n.samples, n.live_cells, n.keys, n.held};
}

/* --- the end -------------------------------------------------------------- */

/* Clears everything, and ends clears that were abandoned. */
static void empty_sweep(sf *f, sf_client *client)
{
    tqi_table_partition *partition;
    Tq__BeginClear *begin;

    while ((partition = tqi_table_next_partition(f->controller->table, NULL)) != NULL) {
        f->used = 0;
        Tq__Clear *clear = sf_message(f, &tq__clear__descriptor);
        clear->partition = sf_copy(f, tqi_table_partition_name(partition));
        clear->all = true;
        sf_send(f, client, TQI_CLEAR, clear, SF_MUST);
    }
    for (unsigned i = 0; i < f->n_remover; i++) {
        do {
            f->used = 0;
            begin = sf_message(f, &tq__begin_clear__descriptor);
            begin->remover = f->remover[i];
            client->n_clearing = 0;
            sf_send(f, client, TQI_BEGIN_CLEAR, begin, SF_MUST);
            for (unsigned c = 0; c < client->n_clearing && c < SF_MANY; c++) {
                Tq__EndClear *end = sf_message(f, &tq__end_clear__descriptor);
                end->id = client->clearing[c];
                end->removed = true;
                sf_send(f, client, TQI_END_CLEAR, end, SF_MUST);
            }
        } while (client->n_clearing > 0);
    }
}

/* Of shared owners all that is dead was removed, and once more what may have arrived after that. */
static void empty_shared(sf *f)
{
    for (tqi_ctl_owner *owner = f->controller->owners; owner != NULL; owner = owner->hh.next) {
        tqi_table_dead dead;
        uint64_t notice = 0;
        if (!owner->shared) {
            continue;
        }
        tqi_table_owner_late_die(owner->table_owner, TQI_NEVER);
        while (tqi_table_owner_dead(owner->table_owner, &dead, 1, &notice) > 0) {
            tqi_table_owner_done(owner->table_owner, notice, 0);
        }
    }
}

static void empty_unit(const sf *f)
{
    const tqi_unit *unit = f->unit;

    if (tqi_store_blocks(unit->store) != 0 || tqi_store_used(unit->store) != 0) {
        sf_fault(f, "%llu blocks of %llu bytes are left in the unit", (unsigned long long)tqi_store_blocks(unit->store),
                 (unsigned long long)tqi_store_used(unit->store));
    }
    if (unit->pins != 0 || unit->pinned_bytes != 0) {
        sf_fault(f, "%llu pins of %llu bytes are left in the unit", (unsigned long long)unit->pins,
                 (unsigned long long)unit->pinned_bytes);
    }
    if (HASH_COUNT(unit->writers) != 0) {
        sf_fault(f, "%u writers are left in the unit", HASH_COUNT(unit->writers));
    }
    if (tqi_unit_waited_for(unit)) {
        sf_fault(f, "a reserve is left in the unit");
    }
}

static void empty_table(const sf *f)
{
    const tqi_controller *ctl = f->controller;
    tqi_table_counts n;

    tqi_table_count(ctl->table, &n);
    n.ranges -= f->unit->compact.n_ids > 0; /* the unit grants ids for its moves */
    if (n.partitions || n.samples || n.live_cells || n.blocks || n.ranges || n.keys || n.claims || n.dead || n.late ||
        n.held || n.views || n.shapes) {
        sf_fault(f,
                 "left in the table: %llu partitions, %llu samples, %llu cells, %llu blocks, %llu "
                 "ranges, %llu keys, %llu views, %llu claims, %llu shapes, %llu dead, %llu late, "
                 "%llu held",
                 (unsigned long long)n.partitions, (unsigned long long)n.samples, (unsigned long long)n.live_cells,
                 (unsigned long long)n.blocks, (unsigned long long)n.ranges, (unsigned long long)n.keys,
                 (unsigned long long)n.views, (unsigned long long)n.claims, (unsigned long long)n.shapes,
                 (unsigned long long)n.dead, (unsigned long long)n.late, (unsigned long long)n.held);
    }
    if (ctl->snapshots != NULL || ctl->restores != NULL || ctl->clearings != NULL || ctl->waiting ||
        ctl->owner_waits != NULL || ctl->events.waits != NULL || ctl->waiters.ready != NULL) {
        sf_fault(f, "left in the controller: a snapshot, restore, clear, or a request that waits");
    }
}

void sf_check_empty(sf *f)
{
    sf_client *client = &f->client[0];
    unsigned sweeps = 0; /* a client remembers this many clears at once */

    f->rate = 0;
    f->tight = false;
    world_limits(false);
    for (int i = 0; i < SF_CLIENTS; i++) {
        sf_client_leave(f, &f->client[i], i % 2 == 0);
    }
    sf_pass(f, SF_GRACE_MS + 1);
    for (int i = 0; i < SF_CLIENTS; i++) {
        if (f->client[i].pid) {
            sf_process_kill(f->client[i].pid);
            f->client[i].pid = 0;
        }
    }
    f->used = 0;
    do {
        empty_sweep(f, client);
        sf_client_leave(f, client, true);
    } while (f->controller->clearings != NULL && ++sweeps < 64);
    sf_pass(f, SF_OWNER_MS + 1);
    empty_shared(f);
    /* The unit gets the ids of the dead blocks, and asks about the rest. */
    for (int i = 0; i < 8 && tqi_store_blocks(f->unit->store) > 0; i++) {
        sf_pass(f, WORLD_SWEEP_MS);
    }
    empty_unit(f);
    empty_table(f);
    sf_check(f);
}
