/*
 * native.c - the workloads of the simulation against a real system, with real threads and real time: a check that they
 * are right outside of the simulation. There are no faults but cancelled ops and short deadlines, and the inner oracle
 * is not there; every byte that is read is still checked.
 *
 *   sim-native --address ADDRESS --token-file FILE [--seed N] [--clients N] [--budget N] [--load KIND]
 *              [--history FILE]
 */
#include "load/call.h"
#include "load/keyed.h"
#include "load/stores.h"
#include "oracle/witness.h"

#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NATIVE_CLIENTS 16

static struct {
    tq_client_options client;
    uint64_t seed;
    uint64_t begun;
    const char *history;
    pthread_mutex_t lock;
    sim_chance faults;
    bool calm;
} native = {
    .client = {.size = sizeof(tq_client_options), .timeout = 20, .notice = -1},
    .seed = 1,
    .lock = PTHREAD_MUTEX_INITIALIZER,
};

sim_process *sim_self;

/* --- the simulator's functions, in real time -------------------------------------- */

void *sim_alloc(size_t size)
{
    void *memory = calloc(1, size + 1);

    if (memory == NULL) {
        abort();
    }
    return memory;
}

void *sim_realloc(void *old, size_t size)
{
    void *memory = realloc(old, size + 1);

    if (memory == NULL) {
        abort();
    }
    return memory;
}

void sim_free(void *memory)
{
    free(memory);
}

/* splitmix64; the simulator has a better one. */
uint64_t sim_next(sim_chance *chance)
{
    uint64_t z = chance->s[0] += UINT64_C(0x9e3779b97f4a7c15);

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

void sim_chance_init(sim_chance *chance, uint64_t seed, const char *name)
{
    memset(chance, 0, sizeof(*chance));
    chance->s[0] = seed;
    for (; *name != '\0'; name++) {
        chance->s[0] = sim_next(chance) ^ (uint8_t)*name;
    }
}

uint64_t sim_below(sim_chance *chance, uint64_t n)
{
    return n == 0 ? 0 : sim_next(chance) % n;
}

uint64_t sim_between(sim_chance *chance, uint64_t low, uint64_t high)
{
    return low + sim_below(chance, high - low + 1);
}

bool sim_one_in(sim_chance *chance, uint64_t n)
{
    return n != 0 && sim_below(chance, n) == 0;
}

bool sim_may(sim_fault fault)
{
    return fault == SIM_LOAD_CANCEL || fault == SIM_LOAD_DEADLINE;
}

bool sim_happens(sim_fault fault)
{
    bool happens;

    pthread_mutex_lock(&native.lock);
    happens = !native.calm && sim_may(fault) && sim_one_in(&native.faults, 10);
    pthread_mutex_unlock(&native.lock);
    return happens;
}

bool sim_is_calm(void)
{
    return native.calm;
}

void sim_mark(const char *name)
{
    (void)name;
}

void sim_trace(const char *what, uint64_t a, uint64_t b)
{
    (void)what;
    (void)a;
    (void)b;
}

uint64_t sim_time(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SIM_S + (uint64_t)now.tv_nsec - native.begun;
}

void sim_pass(uint64_t ns)
{
    /* Time is worth more here than in the simulation. */
    ns = ns > 20 * SIM_MS ? 20 * SIM_MS : ns;
    (void)nanosleep(&(struct timespec){.tv_nsec = (long)ns}, NULL);
}

static void native_put(void *arg, const char *text, size_t size)
{
    (void)fwrite(text, 1, size, arg);
}

static void native_history(const char *found)
{
    FILE *file = native.history != NULL ? fopen(native.history, "w") : NULL;

    if (file != NULL) {
        history_write(native_put, file, found);
        (void)fclose(file);
    }
}

_Noreturn void sim_found(const char *invariant, const char *format, ...)
{
    va_list args;

    fprintf(stderr, "FOUND seed %llu: %s: ", (unsigned long long)native.seed, invariant);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    native_history(invariant);
    _Exit(1);
}

void world_client_options(tq_client_options *out)
{
    *out = native.client;
}

uint64_t witness_count(void)
{
    return 0;
}

/* --- the workloads that need nothing but storage units ------------------------------- */

const load_kind *const load_kinds[] = {&load_grpo, &load_stream, &load_churn, &load_views, &load_cancel, &load_kv};
const size_t load_kinds_count = sizeof(load_kinds) / sizeof(load_kinds[0]);

bool load_keyed_owns(const char *partition)
{
    (void)partition;
    return false;
}

void load_keyed_drain(load_call *call, const char *partition)
{
    (void)call;
    (void)partition;
}

void load_keyed_check(load_call *call)
{
    (void)call;
}

void load_drain_stores(const load_client *self)
{
    (void)self;
}

/* --- the program --------------------------------------------------------------------- */

static void *native_client(void *arg)
{
    load_client_main(arg);
    return NULL;
}

static const load_kind *native_kind(sim_chance *chance, const char *name)
{
    for (size_t i = 0; i < load_kinds_count; i++) {
        if (name != NULL && strcmp(load_kinds[i]->name, name) == 0) {
            return load_kinds[i];
        }
    }
    if (name != NULL) {
        fprintf(stderr, "sim-native: no workload is named %s\n", name);
        exit(2);
    }
    return load_kinds[sim_below(chance, load_kinds_count)];
}

static void native_run(uint32_t clients, uint32_t budget, const char *load)
{
    static load_client all[NATIVE_CLIENTS + 1];
    pthread_t threads[NATIVE_CLIENTS];
    sim_chance chance;

    sim_chance_init(&chance, native.seed, "native");
    sim_chance_init(&native.faults, native.seed, "faults");
    for (uint32_t i = 0; i <= clients; i++) {
        all[i] = (load_client){.number = i + 1, .life = 1, .budget = budget, .drains = i == clients};
        all[i].kind = i < clients ? native_kind(&chance, load) : NULL;
        sim_chance_init(&all[i].chance, sim_next(&chance), "client");
    }
    for (uint32_t i = 0; i < clients; i++) {
        if (pthread_create(&threads[i], NULL, native_client, &all[i]) != 0) {
            abort();
        }
    }
    for (uint32_t i = 0; i < clients; i++) {
        (void)pthread_join(threads[i], NULL);
    }
    native.calm = true;
    history_calm();
    load_drain(&all[clients]);
}

static void native_report(void)
{
    uint64_t counts[HISTORY_CALLS][4] = {{0}};

    for (uint64_t number = 1; number <= history_ops(); number++) {
        const history_op *op = history_op_of(number);

        counts[op->call][op->status]++;
        if (op->status != HISTORY_OK && (op->code == TQ_EINVAL || op->code == TQ_EPROTO || op->code == TQ_EINTERNAL)) {
            sim_found("legal programs get legal errors", "op %llu (%s): %s: %s", (unsigned long long)op->number,
                      history_call_names[op->call], tq_error_name(op->code), op->message);
        }
    }
    for (int call = 0; call < HISTORY_CALLS; call++) {
        if (counts[call][0] + counts[call][1] + counts[call][2] + counts[call][3] > 0) {
            printf("%-16s ok %llu, fail %llu, unknown %llu, running %llu\n", history_call_names[call],
                   (unsigned long long)counts[call][HISTORY_OK], (unsigned long long)counts[call][HISTORY_FAIL],
                   (unsigned long long)counts[call][HISTORY_UNKNOWN], (unsigned long long)counts[call][HISTORY_RUNNING]);
        }
    }
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"address", required_argument, NULL, 'a'}, {"token-file", required_argument, NULL, 't'},
        {"seed", required_argument, NULL, 's'},    {"clients", required_argument, NULL, 'c'},
        {"budget", required_argument, NULL, 'b'},  {"load", required_argument, NULL, 'l'},
        {"history", required_argument, NULL, 'h'}, {NULL, 0, NULL, 0},
    };
    uint32_t clients = 4;
    uint32_t budget = 200;
    const char *load = NULL;
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'a':
            native.client.address = optarg;
            break;
        case 't':
            native.client.token_file = optarg;
            break;
        case 's':
            native.seed = strtoull(optarg, NULL, 10);
            break;
        case 'c':
            clients = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 'b':
            budget = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 'l':
            load = optarg;
            break;
        case 'h':
            native.history = optarg;
            break;
        default:
            return 2;
        }
    }
    native.begun = sim_time();
    history_start(native.seed);
    native_run(clients < NATIVE_CLIENTS ? clients : NATIVE_CLIENTS, budget, load);
    native_report();
    native_history(NULL);
    history_end();
    return 0;
}
