/*
 * stateful.c - the sequences of the stateful fuzzer against the simulated system: its clients, which speak frames by
 * hand and spoil some of them, in a process of their own, over connections that break.
 *
 * The choices, the requests, what is learned from replies and the checks of them are those of fuzz/stateful. This
 * file takes the place of its world.c and host.c: connections are made to the servers of the world, and a turn waits
 * until what was asked is answered. What the fuzzer knows only because nothing but itself happens there is not
 * checked: that a request must succeed, or that a refused one has left the table as it was (the witness sees to that).
 *
 * At the end, when faults are over, everything that the clients have left in the table is cleared by requests. The
 * names under which clears were begun outlive the process for that.
 */
#include "stateful/stateful.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <arpa/inet.h>

#include "load.h"
#include "world.h"

#define STATEFUL_INPUT   2048u
#define STATEFUL_ARENA   (4u << 20)
#define STATEFUL_LISTED  64u
#define STATEFUL_INVALID "stateful"

/* How long an answer is waited for, until the connection is given up; and how often in a row without a fault. */
#define STATEFUL_PATIENCE (8 * SIM_S)
#define STATEFUL_PATIENT  8
/* How long a server may not be reached without a fault. */
#define STATEFUL_CALM (90 * SIM_S)
/* How long TCP repeats what is not acknowledged, by slow clocks. */
#define STATEFUL_TCP_MS 40000
/* A spoiled request may have no answer. */
#define STATEFUL_SPOILED (4 * SIM_MS)
#define STATEFUL_CONNECT 3000 /* ms */
#define STATEFUL_SWEEPS  64
#define STATEFUL_BEGIN   SIM_S

typedef struct stateful {
    sf f; /* the first member */
    load_client *self;
    char name[32];
    int spare;            /* a descriptor */
    unsigned spoiled;     /* spoiled requests without an answer, when a turn looked last */
    unsigned idle;        /* pauses in a row in which nothing came */
    unsigned given_up;    /* waits for an answer in a row that were, without faults */
    unsigned begun;       /* clears that the last BEGIN_CLEAR has given back */
    uint64_t reached;     /* when a connection was made, or faults ended */
    uint64_t seed, since; /* of this life */
    unsigned n_listed;    /* partitions, by the last LIST_PARTITIONS */
    char listed[STATEFUL_LISTED][TQ_NAME_MAX + 1];
    uint8_t input[STATEFUL_INPUT];
} stateful;

/* Memory that outlives the processes, by number of the client. */
static stateful stateful_of[WORLD_CLIENTS + 1];
static uint8_t stateful_arena[WORLD_CLIENTS + 1][STATEFUL_ARENA];

/* --- what report.c is to the fuzzer -------------------------------------------- */

sf_count sf_counts[SF_KINDS];
uint64_t sf_cut, sf_ended, sf_killed, sf_cancelled, sf_violations, sf_runs;
bool sf_tracing;

void sf_fault(const sf *f, const char *format, ...)
{
    char text[1024];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    sim_found(STATEFUL_INVALID, "step %llu: %s", (unsigned long long)f->steps, text);
}

void sf_lack(const char *what)
{
    sim_found(STATEFUL_INVALID, "the workload itself lacks %s", what);
}

/* With --trace. */
void sf_trace(const char *format, ...)
{
    va_list args;

    if (!world_logs) {
        return;
    }
    va_start(args, format);
    fprintf(stderr, "%14.6f %-12s stateful: ", (double)sim_time() / 1e9, sim_self->name);
    vfprintf(stderr, format, args);
    va_end(args);
}

/* The requests that were sent since the last call. */
static void stateful_count(void)
{
    static uint64_t counted;
    uint64_t sent = 0;

    for (unsigned kind = 0; kind < SF_KINDS; kind++) {
        sent += sf_counts[kind].sent;
    }
    world_requests += sent - counted;
    counted = sent;
}

/* --- what host.c is to it -------------------------------------------------------- */

/* All of its clients are of this process. */
void sf_process_kill(int pid)
{
    (void)pid;
    if (!sim_is_calm()) {
        sim_process_kill(sim_self);
    }
}

void sf_process_of(int fd, int pid)
{
    (void)fd;
    (void)pid;
}

/* --- what world.c is to it: connections ------------------------------------------- */

/* "unix:PATH" or "tcp:ADDRESS:PORT"; -1 if it is not connected in time. */
static int connect_to(const char *address)
{
    struct sockaddr_un path = {.sun_family = AF_UNIX};
    struct sockaddr_in place = {.sin_family = AF_INET};
    bool local = strncmp(address, "unix:", 5) == 0;
    const char *port = strrchr(address, ':');
    const struct sockaddr *to = local ? (const struct sockaddr *)&path : (const struct sockaddr *)&place;
    char host[32] = "";
    int error = 0;
    socklen_t size = sizeof(error);

    if (local) {
        snprintf(path.sun_path, sizeof(path.sun_path), "%s", address + 5);
    } else {
        snprintf(host, sizeof(host), "%.*s", (int)(port - address - 4), address + 4);
        inet_pton(AF_INET, host, &place.sin_addr);
        place.sin_port = htons((uint16_t)strtoul(port + 1, NULL, 10));
    }
    int fd = socket(local ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -1;
    }
    int rc = connect(fd, to, local ? sizeof(path) : sizeof(place));
    if (rc != 0 && errno == EINPROGRESS) {
        struct pollfd polled = {.fd = fd, .events = POLLOUT};
        rc = poll(&polled, 1, STATEFUL_CONNECT) == 1 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 &&
                     error == 0
                 ? 0
                 : -1;
    }
    if (rc != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

int sf_connect(sf *f, sf_client *client, bool unit, int *theirs)
{
    stateful *s = (stateful *)f;
    const char *address = world_address(unit ? 1 : 0);
    int fd = address != NULL ? connect_to(address) : -1;

    *theirs = -1;
    client->pid = 1;
    if (fd >= 0 || !sim_is_calm() || address == NULL) {
        s->reached = sim_time();
    }
    sim_check(sim_time() - s->reached < STATEFUL_CALM, "liveness", "%s cannot be reached %llu s after the last fault",
              unit ? "the unit" : "the controller", (unsigned long long)(STATEFUL_CALM / SIM_S));
    if (fd < 0) {
        sim_pass(sim_between(&s->self->chance, 1, 100) * SIM_MS);
    }
    return fd;
}

bool sf_wait(sf *f, const sf_link *link, int turn)
{
    struct pollfd polled = {.fd = link->fd, .events = POLLIN};

    (void)f;
    return turn < 40 && poll(&polled, 1, 250) >= 0;
}

uint64_t sf_pins(const sf *f, const sf_client *client)
{
    (void)f;
    (void)client;
    return 0;
}

char *sf_keep(const char *text)
{
    return sim_strdup(text);
}

int sf_spare_descriptor(sf *f)
{
    stateful *s = (stateful *)f;

    if (s->spare < 0) {
        s->spare = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    }
    return s->spare;
}

void sf_state(const sf *f, sf_state_of *out)
{
    (void)f;
    *out = (sf_state_of){0};
}

/* --- what world.c is to it: turns --------------------------------------------------- */

/* Takes what comes within that time; whether there was anything. */
static bool turn_take(sf *f, int ms)
{
    struct pollfd polled[2 * SF_CLIENTS];
    int of[2 * SF_CLIENTS];
    nfds_t n = 0;

    for (int i = 0; i < 2 * SF_CLIENTS; i++) {
        int fd = f->client[i / 2].link[i % 2].fd;
        if (fd >= 0) {
            of[n] = i;
            polled[n++] = (struct pollfd){.fd = fd, .events = POLLIN};
        }
    }
    if (n == 0) {
        sim_pass((uint64_t)ms * SIM_MS);
        return false;
    }
    if (poll(polled, n, ms) <= 0) {
        return false;
    }
    for (nfds_t i = 0; i < n; i++) {
        if (polled[i].revents != 0) {
            sf_link_take(f, &f->client[of[i] / 2], &f->client[of[i] / 2].link[of[i] % 2]);
        }
    }
    return true;
}

static bool turn_awaited(const sf_link *link, const sf_pending *pending)
{
    return link->fd >= 0 && !link->odd && !pending->mutated && !pending->waits && !pending->lost;
}

/* What an answer is awaited of; NULL: nothing. Counts the spoiled ones. */
static const sf_pending *turn_awaits(const sf *f, unsigned *spoiled)
{
    const sf_pending *found = NULL;

    *spoiled = 0;
    for (int i = 0; i < 2 * SF_CLIENTS; i++) {
        const sf_link *link = &f->client[i / 2].link[i % 2];
        for (const sf_pending *pending = link->pending; pending != NULL; pending = pending->next) {
            *spoiled += pending->mutated;
            found = turn_awaited(link, pending) ? pending : found;
        }
    }
    return found;
}

/* Nothing more is expected of connections that do not answer. */
static void turn_give_up(sf *f)
{
    for (int i = 0; i < 2 * SF_CLIENTS; i++) {
        sf_link *link = &f->client[i / 2].link[i % 2];
        const sf_pending *pending = link->pending;
        while (pending != NULL && !turn_awaited(link, pending)) {
            pending = pending->next;
        }
        if (pending != NULL) {
            sf_link_close(link);
        }
    }
}

void sf_turn(sf *f)
{
    stateful *s = (stateful *)f;
    uint64_t since = sim_time();
    unsigned spoiled = 0;
    const sf_pending *awaited;

    turn_awaits(f, &spoiled);
    uint64_t until = spoiled > s->spoiled ? since + STATEFUL_SPOILED : 0;

    turn_take(f, 1);
    while ((awaited = turn_awaits(f, &s->spoiled)) != NULL || sim_time() < until) {
        turn_take(f, 20);
        if (awaited == NULL || sim_time() - since < STATEFUL_PATIENCE) {
            continue;
        }
        /* Of a connection that broke before, and of which nobody has told this end, nothing comes. */
        if (sim_is_calm() && ++s->given_up > STATEFUL_PATIENT) {
            sf_fault(f, "%s is not answered, though there are no faults", tqi_method_find(awaited->kind)->name);
        }
        turn_give_up(f);
        since = sim_time();
    }
}

void sf_pause(sf *f)
{
    stateful *s = (stateful *)f;

    s->idle = turn_take(f, 1 << s->idle) ? 0 : s->idle + (s->idle < 6);
}

void sf_pass(sf *f, uint64_t ms)
{
    uint64_t until = sim_time() + ms * SIM_MS;

    while (sim_time() < until) {
        turn_take(f, (int)((until - sim_time() + SIM_MS - 1) / SIM_MS));
    }
}

/* --- a run ---------------------------------------------------------------------------- */

static void run_fill(stateful *s)
{
    for (size_t i = 0; i < sizeof(s->input); i += sizeof(uint64_t)) {
        uint64_t number = sim_next(&s->self->chance);
        memcpy(s->input + i, &number, sizeof(number));
    }
    s->f.data = s->input;
    s->f.size = sizeof(s->input);
    s->f.at = 0;
    s->f.over = false;
}

static void run_heard(sf *f, uint16_t kind, const ProtobufCMessage *reply)
{
    stateful *s = (stateful *)f;
    const Tq__ListPartitionsReply *partitions = (const Tq__ListPartitionsReply *)reply;

    s->given_up = 0;
    if (kind == TQI_BEGIN_CLEAR) {
        s->begun += (unsigned)((const Tq__BeginClearReply *)reply)->n_clearing;
    }
    if (kind == TQI_LIST_PARTITIONS) {
        s->n_listed = 0;
        for (size_t i = 0; i < partitions->n_name && i < STATEFUL_LISTED; i++) {
            snprintf(s->listed[s->n_listed++], sizeof(*s->listed), "%s", partitions->name[i]);
        }
    }
}

static bool run_faulty(void)
{
    const char *unit = world_address(1);
    /* Others of its kind are there, something may be left of faults, or the unit does not share its memory. */
    bool faulty = world_drawn.clients > 1 || sim_is_calm() || unit == NULL || strncmp(unit, "unix:", 5) != 0;

    for (int fault = 0; fault < SIM_FAULTS; fault++) {
        faulty = faulty || sim_may((sim_fault)fault);
    }
    return faulty;
}

/* Of the life before, only the names of removers are left. */
static void run_reset(stateful *s, load_client *self)
{
    char *remover[SF_REMOVERS];
    unsigned n = s->f.n_remover;

    memcpy(remover, s->f.remover, sizeof(remover));
    /* A seed may run twice, and its first life may have ended before this. */
    while (n > 0 && (s->seed != sim_seed || s->since >= sim_time())) {
        sim_free(remover[--n]);
    }
    memset(s, 0, sizeof(*s));
    memcpy(s->f.remover, remover, n * sizeof(*remover));
    s->f.n_remover = n;
    s->self = self;
    s->seed = sim_seed;
    s->since = s->reached = sim_time();
    s->spare = -1;
}

static stateful *run_begin(load_client *self)
{
    static const unsigned rates[] = {0, 8, 24, 48, 96, 160, 16, 32};
    stateful *s = &stateful_of[self->number - 1];
    sf *f = &s->f;
    tq_client_options options;

    run_reset(s, self);
    world_client_options(&options);
    f->token.size = strlen(options.token);
    memcpy(f->token.bytes, options.token, f->token.size);
    snprintf(s->name, sizeof(s->name), "stateful-%u", self->number);
    f->name = s->name;
    f->arena = stateful_arena[self->number - 1];
    f->faulty = run_faulty();
    f->clean = !f->faulty;
    f->heard = run_heard;
    for (int i = 0; i < SF_CLIENTS; i++) {
        uint8_t *session = f->client[i].session;
        session[0] = (uint8_t)(i + 1);
        session[1] = (uint8_t)self->number;
        memcpy(session + 8, &self->life, sizeof(self->life));
        for (int l = 0; l < 2; l++) {
            f->client[i].link[l].fd = -1;
            f->client[i].link[l].next = 1;
            f->client[i].link[l].unit = l == 1;
        }
    }
    for (unsigned i = 0; i < SF_NUMBERS; i++) {
        f->number[i] = i;
    }
    run_fill(s);
    f->rate = rates[sf_pick(f, 8)];
    return s;
}

/* --- the end ---------------------------------------------------------------------------- */

static void end_clear_partitions(stateful *s, sf_client *client)
{
    sf *f = &s->f;

    f->used = 0;
    sf_send(f, client, TQI_LIST_PARTITIONS, sf_message(f, &tq__list_partitions__descriptor), 0);
    for (unsigned i = 0; i < s->n_listed; i++) {
        f->used = 0;
        Tq__Clear *clear = sf_message(f, &tq__clear__descriptor);
        clear->partition = sf_copy(f, s->listed[i]);
        clear->all = true;
        sf_send(f, client, TQI_CLEAR, clear, 0);
    }
}

/* Ends the clears that were begun under a name and given up. */
static void end_clears_of(stateful *s, sf_client *client, char *remover)
{
    sf *f = &s->f;

    f->used = 0;
    Tq__BeginClear *begin = sf_message(f, &tq__begin_clear__descriptor);
    begin->remover = remover;
    client->n_clearing = 0;
    sf_send(f, client, TQI_BEGIN_CLEAR, begin, 0);
    for (unsigned i = 0; i < client->n_clearing && i < SF_MANY; i++) {
        Tq__EndClear *end = sf_message(f, &tq__end_clear__descriptor);
        end->id = client->clearing[i];
        end->removed = true;
        sf_send(f, client, TQI_END_CLEAR, end, 0);
    }
}

/* What an owner that all may serve still has to remove goes with its incarnation. */
static void end_shared_owner(stateful *s, sf_client *client)
{
    sf *f = &s->f;

    f->used = 0;
    Tq__RegisterOwner *owner = sf_message(f, &tq__register_owner__descriptor);
    owner->name = sf_copy(f, sf_owner_name(SF_OWNERS - 1));
    owner->incarnation = UINT64_C(1) << 62 | (uint64_t)s->self->number << 32 | s->self->life;
    owner->manager = sf_copy(f, "fuzz");
    owner->shared = true;
    sf_send(f, client, TQI_REGISTER_OWNER, owner, 0);
}

static void end_leave(sf *f)
{
    for (int i = 0; i < SF_CLIENTS; i++) {
        sf_client_leave(f, &f->client[i], true);
    }
}

/* Faults are over, and others of this kind may be at it as well. */
static void end_sweep(stateful *s)
{
    sf *f = &s->f;
    sf_client *client = &f->client[0];

    for (int i = 0; i < STATEFUL_SWEEPS; i++) {
        s->begun = 0;
        s->n_listed = STATEFUL_LISTED; /* as long as no answer has come */
        memset(s->listed, 0, sizeof(s->listed));
        end_clear_partitions(s, client);
        for (unsigned r = 0; r < f->n_remover; r++) {
            end_clears_of(s, client, f->remover[r]);
        }
        if (s->n_listed == 0 && s->begun == 0) {
            break;
        }
        end_leave(f); /* what a session has begun is given up with it */
    }
    end_shared_owner(s, client);
    end_leave(f);
}

static void run_end(stateful *s)
{
    sf *f = &s->f;

    while (!sim_is_calm()) {
        sf_pass(f, 100);
    }
    s->reached = sim_time();
    f->rate = 0;
    f->behind = NULL;
    f->at = f->size; /* from now on nothing is chosen */
    end_leave(f);
    /* A server that was not told that a connection is broken finds out when TCP gives up; then the session has its
     * grace. */
    sf_pass(f, STATEFUL_TCP_MS + 2 * world_drawn.grace_ms + 2000);
    end_sweep(s);
    for (int i = 0; i < SF_CLIENTS; i++) {
        sf_link_forget(&f->client[i].link[0]);
        sf_link_forget(&f->client[i].link[1]);
        sf_forget(f, &f->client[i], false);
    }
    for (int i = 0; i < SF_SAVED; i++) {
        sf_saved_drop(&f->saved[i]);
    }
    if (s->spare >= 0) {
        close(s->spare);
    }
    stateful_count();
}

static void stateful_run(load_client *self)
{
    sim_pass(STATEFUL_BEGIN); /* until the unit has joined */
    stateful *s = run_begin(self);

    sim_heap_may_fail(sim_self, false);
    while (load_spend(self)) {
        if (s->f.over) {
            run_fill(s);
        }
        sf_step(&s->f);
        stateful_count();
    }
    run_end(s);
}

const load_kind load_stateful = {.name = "stateful", .run = stateful_run, .needs = "units", .alone = true, .raw = true};
