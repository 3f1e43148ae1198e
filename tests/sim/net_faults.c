/*
 * net_faults.c - what goes wrong between two ends: bytes that are late, ways that are blocked, cut connections, and
 * partitions of the network.
 */
#include "net.h"

#define FAULTS_PARTITIONS 3 /* at a time */

net_drawn net;
sim_chance net_chance;

typedef struct faults_partition {
    bool on;
    net_parted who;
    uint64_t event;
} faults_partition;

static faults_partition faults_partitions[FAULTS_PARTITIONS];
static uint32_t faults_partitioned;
static uint64_t faults_tick_event, faults_tick_ns;

uint64_t net_drawn_time(sim_chance *chance, uint64_t low, uint64_t high)
{
    uint64_t top = low;
    uint32_t doublings = 0;

    for (uint64_t at = low; at < high; at *= 2) {
        doublings++;
    }
    top <<= sim_below(chance, doublings > 0 ? doublings : 1);
    top = sim_between(chance, top, 2 * top);
    return top < high ? top : high;
}

/* --- partitions --------------------------------------------------------------- */

static bool faults_parts(const net_parted *who, uint64_t from, uint64_t to)
{
    return (who->there && from == who->a && to == who->b) || (who->back && from == who->b && to == who->a);
}

bool net_partitioned(uint32_t from_host, uint64_t from_pid, uint32_t to_host, uint64_t to_pid)
{
    if (faults_partitioned == 0) {
        return false;
    }
    for (int i = 0; i < FAULTS_PARTITIONS; i++) {
        const net_parted *who = &faults_partitions[i].who;
        if (faults_partitions[i].on &&
            (who->of_processes ? faults_parts(who, from_pid, to_pid) : faults_parts(who, from_host, to_host))) {
            return true;
        }
    }
    return false;
}

/* After a partition began or ended: looks at every connection again. */
static void faults_apply(bool at_once)
{
    for (net_link *link = net_links; link != NULL; link = link->next) {
        for (int i = 0; i < 2 && !link->unix_socket; i++) {
            net_way *way = &link->way[i];
            bool severed = net_partitioned(link->host[i], link->pid[i], link->host[!i], link->pid[!i]);
            bool was = way->severed;
            way->severed = severed;
            if (severed && !was) {
                net_link_blocked(link);
            } else if (was && !severed) {
                net_way_open(way, at_once);
            }
        }
    }
}

static void faults_heal(faults_partition *partition, bool at_once)
{
    if (partition->event != 0) {
        sim_at_drop(partition->event);
        partition->event = 0;
    }
    if (partition->on) {
        sim_trace("net: partition ends", partition->who.a, partition->who.b);
        partition->on = false;
        faults_partitioned--;
        faults_apply(at_once);
    }
}

static void faults_on_heal(void *arg)
{
    faults_partition *partition = arg;

    partition->event = 0;
    faults_heal(partition, false);
}

/* A TCP connection that exists, so that it matters; NULL: there is none. */
static const net_link *faults_choose(void)
{
    uint64_t n = 0;
    const net_link *link;

    for (link = net_links; link != NULL; link = link->next) {
        n += !link->unix_socket;
    }
    n = sim_below(&sim_fault_chance, n);
    for (link = net_links; link != NULL && (link->unix_socket || n > 0); link = link->next) {
        n -= !link->unix_socket;
    }
    return link;
}

bool net_partition(const net_parted *who, uint64_t ns)
{
    faults_partition *partition = faults_partitions;

    while (partition < faults_partitions + FAULTS_PARTITIONS && partition->on) {
        partition++;
    }
    if (partition == faults_partitions + FAULTS_PARTITIONS) {
        return false;
    }
    *partition = (faults_partition){.on = true, .who = *who};
    faults_partitioned++;
    partition->event = sim_at(sim_time() + ns, faults_on_heal, partition);
    sim_trace("net: partition", who->a, who->b);
    faults_apply(false);
    return true;
}

static void faults_part(void)
{
    const net_link *link = faults_choose();

    if (link == NULL) {
        return;
    }
    uint64_t sides = sim_below(&sim_fault_chance, 3);
    net_parted who = {.there = sides != 1, .back = sides != 0};
    who.of_processes = link->host[0] == link->host[1] || sim_one_in(&sim_fault_chance, 2);
    who.a = who.of_processes ? link->pid[0] : link->host[0];
    who.b = who.of_processes ? link->pid[1] : link->host[1];
    if (net_partition(&who, net_drawn_time(&sim_fault_chance, 10 * SIM_MS, 80 * SIM_S))) {
        sim_mark(sides == 2 ? "a partition" : "a partition in one direction");
    }
}

static void faults_on_tick(void *arg)
{
    (void)arg;
    faults_tick_event = 0;
    if (sim_is_calm()) {
        net_faults_calm();
        return;
    }
    if (sim_happens(SIM_PARTITION)) {
        faults_part();
    }
    faults_tick_event = sim_at(sim_time() + faults_tick_ns, faults_on_tick, NULL);
}

/* --- stalls --------------------------------------------------------------------- */

static void faults_on_stall_end(void *arg)
{
    net_way *way = arg;

    way->stall_event = 0;
    way->stalled = false;
    net_way_open(way, true);
}

static void faults_stall(net_way *way)
{
    bool tcp = !way->link->unix_socket;
    uint64_t ns = net_drawn_time(&sim_fault_chance, SIM_MS, tcp ? 60 * SIM_S : 5 * SIM_S);

    if (way->stall_event != 0 || net_way_blocked(way)) {
        return;
    }
    sim_mark("a connection stands still");
    sim_trace("net: stall", way->link->number * 2 + way->from, ns);
    way->stalled = true;
    way->stall_event = sim_at(sim_time() + ns, faults_on_stall_end, way);
    net_link_blocked(way->link);
}

/* --- cuts ----------------------------------------------------------------------- */

/* What was on its way arrives, or does not, or up to some byte. */
static void faults_cut_way(net_way *way)
{
    uint64_t kind = sim_below(&sim_fault_chance, 3);
    uint64_t flight = way->in_flight;
    uint64_t keep = kind == 0 ? flight : kind == 1 ? 0 : sim_below(&sim_fault_chance, flight + 1);

    if (flight > 0) {
        sim_mark(keep == flight ? "cut, and what was in flight arrives"
                 : keep == 0    ? "cut, and what was in flight is lost"
                                : "cut, and a part of what was in flight arrives");
    }
    net_way_truncate(way, keep);
}

/* As a proxy does it (FIN), or a firewall (reset), or one that forgets a connection and tells only one end. */
static void faults_cut(net_link *link)
{
    uint64_t how = sim_below(&sim_fault_chance, 5);
    uint64_t kept = sim_below(&sim_fault_chance, 2);

    if (link->cut || link->side[0] == NULL || link->side[1] == NULL) {
        return;
    }
    sim_trace("net: cut", link->number, how);
    link->cut = true; /* before anything of it arrives, which may be at once */
    for (uint32_t i = 0; i < 2; i++) {
        net_way *way = &link->way[i];
        net_socket *end = link->side[!i];
        uint64_t delay = net_latency(link->host[0], link->host[1], link->unix_socket);
        faults_cut_way(way);
        if (link->unix_socket) {
            net_way_control(way, NET_GONE, delay, how % 2);
        } else if (how < 2) {
            net_way_control(way, NET_FIN, delay, false);
        } else if (how < 4 || i == kept) {
            net_way_control(way, NET_RESET, delay, false);
        } else {
            sim_mark("a connection is half-open");
            uint64_t later = net_discovery(end);
            way->shut = true;
            if (later != SIM_NEVER) {
                net_way_control(way, NET_RESET, later, true);
            }
        }
    }
    sim_mark(how < 2 ? "a connection is cut by FIN" : "a connection is cut by reset");
}

static void faults_on_cut(void *arg)
{
    net_link *link = arg;

    link->cut_event = 0;
    if (!sim_is_calm()) {
        faults_cut(link);
    }
}

void sim_net_lose(uint64_t pid)
{
    for (net_link *link = net_links; link != NULL; link = link->next) {
        if ((link->pid[0] == pid || link->pid[1] == pid) && (!link->unix_socket || net.unix_cuts)) {
            faults_cut(link);
        }
    }
}

uint64_t net_faults_of_send(net_way *way)
{
    uint64_t late = 0;

    if (sim_happens(SIM_STALL)) {
        faults_stall(way);
    }
    if (sim_happens(SIM_CHUNK_DELAY)) {
        late = net_drawn_time(&sim_fault_chance, 100 * SIM_US, 2 * SIM_S);
    }
    return late;
}

void net_faults_after_send(net_way *way)
{
    net_link *link = way->link;

    if ((link->unix_socket && !net.unix_cuts) || link->cut_event != 0 || !sim_happens(SIM_CUT)) {
        return;
    }
    if (sim_one_in(&sim_fault_chance, 2)) {
        faults_cut(link);
    } else {
        /* At some other moment, for example when the answer is on its way. */
        uint64_t after = net_drawn_time(&sim_fault_chance, SIM_US, 100 * SIM_MS);
        link->cut_event = sim_at(sim_time() + after, faults_on_cut, link);
    }
}

/* --- start and end ---------------------------------------------------------------- */

uint32_t net_descriptors(void)
{
    bool few = sim_one_in(&net_chance, 4);

    /* The server gives up idle connections from seven eighths of the limit on, which counts from 0. */
    return (uint32_t)(few ? sim_between(&net_chance, 155, 260) : sim_between(&net_chance, 1000, 4096));
}

void net_faults_start(void)
{
    sim_chance_init(&net_chance, sim_seed, "net");
    net.latency = net_drawn_time(&net_chance, 5 * SIM_US, 4 * SIM_MS);
    net.latency_near = sim_between(&net_chance, 3 * SIM_US, 60 * SIM_US);
    net.latency_unix = sim_one_in(&net_chance, 3) ? 0 : sim_between(&net_chance, SIM_US, 40 * SIM_US);
    net.picoseconds = sim_between(&net_chance, 100, 20000);
    net.tcp_send = 16 << 10 << sim_below(&net_chance, 9);
    net.tcp_receive = 16 << 10 << sim_below(&net_chance, 9);
    net.unix_most = sim_one_in(&net_chance, 2) ? 212992 : 4 << 20;
    net.unix_cuts = sim_one_in(&net_chance, 2);
    net.peer_pidfd = !sim_may(SIM_NO_PIDFD) || sim_one_in(&net_chance, 2);
    faults_tick_ns = net_drawn_time(&net_chance, 20 * SIM_MS, SIM_S);
    faults_tick_event = 0;
    if (sim_may(SIM_PARTITION)) {
        faults_tick_event = sim_at(sim_time() + faults_tick_ns, faults_on_tick, NULL);
    }
}

void net_faults_calm(void)
{
    for (int i = 0; i < FAULTS_PARTITIONS; i++) {
        faults_heal(&faults_partitions[i], true);
    }
    for (net_link *link = net_links; link != NULL; link = link->next) {
        for (int i = 0; i < 2; i++) {
            net_way *way = &link->way[i];
            if (way->stall_event != 0) {
                sim_at_drop(way->stall_event);
                faults_on_stall_end(way);
            }
        }
    }
    net_connect_calm();
}

void net_faults_end(void)
{
    if (faults_tick_event != 0) {
        sim_at_drop(faults_tick_event);
        faults_tick_event = 0;
    }
    for (int i = 0; i < FAULTS_PARTITIONS; i++) {
        faults_heal(&faults_partitions[i], true);
        faults_partitions[i] = (faults_partition){0};
    }
}
