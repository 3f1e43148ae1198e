/*
 * chance.c - everything that is drawn: random numbers, and whether a fault happens.
 *
 * Random numbers: xoshiro256** by Blackman and Vigna ("Scrambled Linear Pseudorandom Number Generators", 2021), seeded
 * by splitmix64. Whether a fault happens does not come from a stream: it is a hash of the seed, the kind and the
 * number of
 * the decision, so that leaving one decision out (--only, --shrink) does not change the others.
 */
#include "chance.h"

#include <string.h>

#include <xxhash.h>

uint64_t sim_seed;
sim_chance sim_fault_chance;
sim_faults sim_faults_drawn;

static uint64_t chance_splitmix(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

void sim_chance_init(sim_chance *chance, uint64_t seed, const char *name)
{
    uint64_t state = seed ^ XXH3_64bits(name, strlen(name));

    for (size_t i = 0; i < 4; i++) {
        chance->s[i] = chance_splitmix(&state);
    }
}

static uint64_t chance_rotate(uint64_t x, int k)
{
    return (x << k) | (x >> (64 - k));
}

uint64_t sim_next(sim_chance *chance)
{
    uint64_t *s = chance->s;
    uint64_t result = chance_rotate(s[1] * 5, 7) * 9;
    uint64_t t = s[1] << 17;

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = chance_rotate(s[3], 45);
    return result;
}

uint64_t sim_below(sim_chance *chance, uint64_t n)
{
    /* The bias is below n / 2^64. */
    return (uint64_t)(((unsigned __int128)sim_next(chance) * n) >> 64);
}

uint64_t sim_between(sim_chance *chance, uint64_t low, uint64_t high)
{
    return low + sim_below(chance, high - low + 1);
}

bool sim_one_in(sim_chance *chance, uint64_t n)
{
    return n > 0 && sim_below(chance, n) == 0;
}

/* --- faults ----------------------------------------------------------------- */

/* Names, and the least and the greatest number of decisions per fault that a seed may draw. */
static const struct {
    const char *name;
    uint32_t often, rare;
} chance_kinds[SIM_FAULTS] = {
    [SIM_CHUNK_DELAY] = {"chunk-delay", 4, 400},
    [SIM_CUT] = {"cut", 60, 6000},
    [SIM_SHORT_SEND] = {"short-send", 3, 300},
    [SIM_STALL] = {"stall", 100, 10000},
    [SIM_PARTITION] = {"partition", 2, 20},
    [SIM_CONNECT_HANG] = {"connect-hang", 3, 30},
    [SIM_CONNECT_REFUSE] = {"connect-refuse", 3, 30},
    [SIM_CONNECT_LATE] = {"connect-late", 2, 20},
    [SIM_ACCEPT_FULL] = {"accept-full", 3, 30},
    [SIM_KILL_POINT] = {"kill-point", 1, 6},
    [SIM_KILL_EVENT] = {"kill-event", 1, 6},
    [SIM_STOP] = {"stop", 1, 6},
    [SIM_OOM] = {"oom", 1, 10},
    [SIM_NO_PIDFD] = {"no-pidfd", 2, 10},
    [SIM_PIDFD_LATE] = {"pidfd-late", 1, 4},
    [SIM_CLOCK_STEP] = {"clock-step", 1, 4},
    [SIM_CLOCK_SKEW] = {"clock-skew", 1, 4},
    [SIM_TIMER_LATE] = {"timer-late", 50, 2000},
    [SIM_PREEMPT] = {"preempt", 1, 4},
    [SIM_KV_SLOW] = {"kv-slow", 4, 100},
    [SIM_KV_FULL] = {"kv-full", 10, 300},
    [SIM_KV_LATE] = {"kv-late", 10, 300},
    [SIM_KV_EVICT] = {"kv-evict", 50, 1000},
    [SIM_DISK_FULL] = {"disk-full", 20, 300},
    [SIM_DISK_SLOW] = {"disk-slow", 4, 100},
    [SIM_DISK_ERROR] = {"disk-error", 20, 300},
    [SIM_DISK_TORN] = {"disk-torn", 1, 3},
    [SIM_DISK_FLIP] = {"disk-flip", 20, 300},
    [SIM_LOAD_CANCEL] = {"load-cancel", 4, 100},
    [SIM_LOAD_DEADLINE] = {"load-deadline", 4, 100},
};

/* One kind in this many is on, for a seed. */
#define CHANCE_KIND 3

const char *sim_fault_name(sim_fault fault)
{
    return chance_kinds[fault].name;
}

void sim_faults_draw(uint64_t seed)
{
    sim_faults *faults = &sim_faults_drawn;
    sim_chance chance;

    sim_chance_init(&chance, seed, "faults");
    sim_chance_init(&sim_fault_chance, seed, "fault details");
    memset(faults->asked, 0, sizeof(faults->asked));
    memset(faults->happened, 0, sizeof(faults->happened));
    faults->seed = seed;
    faults->total = 0;
    faults->calm = false;
    /* One seed in 16 has none at all. */
    bool none = sim_one_in(&chance, 16);
    for (int i = 0; i < SIM_FAULTS; i++) {
        bool on = sim_one_in(&chance, CHANCE_KIND) && !none;
        /* Rates are spread evenly over orders of magnitude. */
        uint64_t low = chance_kinds[i].often, high = chance_kinds[i].rare;
        uint64_t doublings = 0;
        while ((low << doublings) < high) {
            doublings++;
        }
        uint64_t one_in = low << sim_between(&chance, 0, doublings);
        faults->one_in[i] = on ? (uint32_t)(one_in < high ? one_in : high) : 0;
    }
    for (size_t i = 0; i < faults->n_off; i++) {
        faults->one_in[faults->off[i]] = 0;
    }
}

static bool chance_selected(const sim_faults *faults, sim_fault fault, uint32_t number)
{
    if (!faults->selects) {
        return true;
    }
    for (size_t i = 0; i < faults->n_selected; i++) {
        if (faults->selected[i].fault == fault && faults->selected[i].number == number) {
            return true;
        }
    }
    return false;
}

bool sim_happens(sim_fault fault)
{
    sim_faults *faults = &sim_faults_drawn;
    uint32_t one_in = faults->one_in[fault];

    if (one_in == 0 || faults->calm) {
        return false;
    }
    uint32_t number = faults->asked[fault]++;
    uint64_t state = faults->seed * 64 + (uint64_t)fault + ((uint64_t)number << 32);
    uint64_t hash = chance_splitmix(&state);
    if (hash % one_in != 0 || !chance_selected(faults, fault, number)) {
        return false;
    }
    faults->happened[fault]++;
    faults->total++;
    if (faults->n_list < SIM_DECISIONS) {
        faults->list[faults->n_list++] = (sim_decision){fault, number};
    }
    sim_trace(chance_kinds[fault].name, number, 0);
    return true;
}

bool sim_may(sim_fault fault)
{
    return sim_faults_drawn.one_in[fault] > 0 && !sim_faults_drawn.calm;
}

bool sim_is_calm(void)
{
    return sim_faults_drawn.calm;
}
