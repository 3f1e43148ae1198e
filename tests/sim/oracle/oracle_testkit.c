/*
 * oracle_testkit.c - the little of the simulation's kernel that the oracle needs, for tests that link it with tests of
 * the table and of the controller: there, it must agree with all that they do.
 */
#include "oracle/witness.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

sim_process *sim_self;

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

void sim_chance_init(sim_chance *chance, uint64_t seed, const char *name)
{
    (void)name;
    chance->s[0] = seed | 1;
}

uint64_t sim_below(sim_chance *chance, uint64_t n)
{
    chance->s[0] = chance->s[0] * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return n != 0 ? (chance->s[0] >> 33) % n : 0;
}

bool sim_one_in(sim_chance *chance, uint64_t n)
{
    return n != 0 && sim_below(chance, n) == 0;
}

bool sim_may(sim_fault fault)
{
    (void)fault;
    return false;
}

uint64_t sim_time(void)
{
    return 0;
}

sim_process *sim_process_of(uint64_t pid)
{
    (void)pid;
    return NULL;
}

void sim_trace(const char *what, uint64_t a, uint64_t b)
{
    (void)what;
    (void)a;
    (void)b;
}

void sim_found(const char *invariant, const char *format, ...)
{
    va_list args;

    fprintf(stderr, "found: %s: ", invariant);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    abort();
}

__attribute__((constructor)) static void testkit_start(void)
{
    witness_start(1);
}

__attribute__((destructor)) static void testkit_end(void)
{
    witness_end();
}
