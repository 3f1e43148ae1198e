/*
 * memory_testkit.c - see memory_testkit.h.
 */
#include "memory_testkit.h"

#include <stdarg.h>
#include <stdio.h>

/* --- the scheduler and the faults ------------------------------------------ */

sim_process *sim_self;
sim_chance sim_fault_chance;
sim_fiber *sim_running;
uint64_t sim_seed = 1;
bool memory_test_may_fail, memory_test_fails;
char memory_test_found[256];
void (*memory_test_preempts)(void);
jmp_buf memory_test_back;

bool sim_may(sim_fault fault)
{
    return (fault == SIM_OOM && memory_test_may_fail) || (fault == SIM_PREEMPT && memory_test_preempts != NULL);
}

bool sim_happens(sim_fault fault)
{
    return (fault == SIM_OOM && memory_test_fails) || fault == SIM_PREEMPT;
}

void sim_chance_init(sim_chance *chance, uint64_t seed, const char *name)
{
    (void)name;
    chance->s[0] = seed | 1;
}

uint64_t sim_next(sim_chance *chance)
{
    chance->s[0] ^= chance->s[0] << 13;
    chance->s[0] ^= chance->s[0] >> 7;
    chance->s[0] ^= chance->s[0] << 17;
    return chance->s[0];
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

void sim_found(const char *invariant, const char *format, ...)
{
    va_list args;

    (void)invariant;
    va_start(args, format);
    vsnprintf(memory_test_found, sizeof(memory_test_found), format, args);
    va_end(args);
    longjmp(memory_test_back, 1);
}

void sim_mark(const char *name)
{
    (void)name;
}

void sim_point(void)
{
}

uint64_t sim_time(void)
{
    return 0;
}

void sim_pass(uint64_t ns)
{
    (void)ns;
    memory_test_preempts();
}

/* --- descriptors ----------------------------------------------------------- */

#define FILES 16

static struct {
    sim_file *file;
    sim_process *process;
} files[FILES];

void sim_file_init(sim_file *file, const sim_file_ops *ops)
{
    file->ops = ops;
    file->refs = 1;
}

void sim_file_unref(sim_file *file)
{
    if (--file->refs == 0) {
        file->ops->destroy(file);
    }
}

int sim_fd_open(sim_file *file)
{
    for (int i = 0; i < FILES; i++) {
        if (files[i].file == NULL) {
            files[i].file = file;
            files[i].process = sim_self;
            return SIM_FD_FIRST + i;
        }
    }
    return -1;
}

sim_file *sim_fd_file(int fd)
{
    return files[fd - SIM_FD_FIRST].file;
}

sim_file *sim_fd_file_of(int fd, const sim_file_ops *ops, int wrong)
{
    (void)wrong;
    return files[fd - SIM_FD_FIRST].file != NULL && files[fd - SIM_FD_FIRST].file->ops == ops ? sim_fd_file(fd) : NULL;
}

/* --- processes ------------------------------------------------------------- */

static sim_process processes[] = {{.id = 0, .name = "one"}, {.id = 1, .name = "two"}};

void memory_test_enter(sim_process *process)
{
    sim_self = process;
    sim_heap_enter(process);
    sim_image_enter(process);
}

sim_process *memory_test_start(unsigned i)
{
    sim_heap_start(&processes[i]);
    sim_maps_start(&processes[i]);
    sim_image_start(&processes[i]);
    memory_test_enter(&processes[i]);
    return &processes[i];
}

void memory_test_end(sim_process *process)
{
    memory_test_enter(NULL);
    for (unsigned i = 0; i < FILES; i++) {
        if (files[i].file != NULL && files[i].process == process) {
            sim_file_unref(files[i].file);
            files[i].file = NULL;
        }
    }
    sim_maps_end(process);
    sim_image_end(process);
    sim_heap_end(process);
}
