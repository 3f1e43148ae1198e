/*
 * machine.c - what a process reads of the machine that it runs on, other than its network: the same on every machine
 * and in every run.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "base/process.h"
#include "sim.h"
#include "store/store.h"

#define MACHINE_MEMORY (UINT64_C(1) << 30)
/* Of a process that has allocated nothing. */
#define MACHINE_RSS (UINT64_C(4) << 20)

uint64_t __wrap_tqi_process_rss(void);
tqi_memory __wrap_tqi_memory_limit(void);
void __wrap_tqi_store_machine(char out[TQI_STORE_MACHINE]);
char *__wrap_getenv(const char *name);
char *__real_getenv(const char *name);

/* A unit reports it to the controller. */
uint64_t __wrap_tqi_process_rss(void)
{
    uint64_t count = 0;

    return MACHINE_RSS + (sim_self != NULL ? sim_heap_live(sim_self, &count) : 0);
}

/* A client keeps no more than an eighth of it for reads to come. */
tqi_memory __wrap_tqi_memory_limit(void)
{
    return (tqi_memory){.bytes = MACHINE_MEMORY};
}

/* As long as the kernel's boot id. */
void __wrap_tqi_store_machine(char out[TQI_STORE_MACHINE])
{
    char name[TQI_STORE_MACHINE];

    memset(out, 0, TQI_STORE_MACHINE);
    snprintf(name, sizeof(name), "00000000-0000-4000-8000-%012u", sim_self != NULL ? sim_self->host : 0);
    memcpy(out, name, strlen(name));
}

/* Only the level of the log is taken from the environment: it changes nothing else. */
char *__wrap_getenv(const char *name)
{
    return sim_self == NULL || strcmp(name, "TQ_LOG") == 0 ? __real_getenv(name) : NULL;
}
