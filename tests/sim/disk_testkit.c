/*
 * disk_testkit.c - see disk_testkit.h.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "disk_testkit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "chance.h"
#include "disk_tree.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#define KIT_LEAKS(what) __lsan_##what()
#else
#define KIT_LEAKS(what) (void)0
#endif

#define KIT_FILES 64

int __real_close(int fd);
int __wrap_close(int fd);

static sim_process kit_process;
static sim_file *kit_file[KIT_FILES];
static uint64_t kit_now;
static uint32_t kit_faults[SIM_FAULTS];
static bool kit_may[SIM_FAULTS];
static int kit_live; /* allocations */
static uint32_t kit_kill;
static jmp_buf kit_killed;
sim_process *sim_self;

/* --- the kernel ------------------------------------------------------------------- */

void *sim_alloc(size_t size)
{
    void *memory = calloc(1, size);

    assert_non_null(memory);
    kit_live++;
    return memory;
}

void *sim_realloc(void *old, size_t size)
{
    void *memory = realloc(old, size);

    assert_non_null(memory);
    kit_live += old == NULL;
    return memory;
}

void sim_free(void *memory)
{
    kit_live -= memory != NULL;
    free(memory);
}

char *sim_strdup(const char *text)
{
    char *copy = sim_alloc(strlen(text) + 1);

    memcpy(copy, text, strlen(text) + 1);
    return copy;
}

void sim_trace(const char *what, uint64_t a, uint64_t b)
{
    (void)what;
    (void)a;
    (void)b;
}

uint64_t sim_time(void)
{
    return kit_now;
}

void sim_pass(uint64_t ns)
{
    kit_now += ns;
}

void sim_point(void)
{
    if (kit_kill > 0 && --kit_kill == 0) {
        longjmp(kit_killed, 1);
    }
}

bool __wrap_sim_happens(sim_fault fault);
bool __wrap_sim_may(sim_fault fault);

bool __wrap_sim_happens(sim_fault fault)
{
    return kit_faults[fault] > 0 && --kit_faults[fault] == 0;
}

bool __wrap_sim_may(sim_fault fault)
{
    return kit_may[fault];
}

/* --- descriptors --------------------------------------------------------------------- */

void sim_file_init(sim_file *file, const sim_file_ops *ops)
{
    file->ops = ops;
    file->refs = 1;
}

int sim_fd_open(sim_file *file)
{
    int at = 0;

    while (kit_file[at] != NULL) {
        at++;
        assert_in_range(at, 0, KIT_FILES - 1);
    }
    kit_file[at] = file;
    return SIM_FD_FIRST + at;
}

sim_file *sim_fd_file(int fd)
{
    int at = fd - SIM_FD_FIRST;

    if (at < 0 || at >= KIT_FILES || kit_file[at] == NULL) {
        errno = EBADF;
        return NULL;
    }
    return kit_file[at];
}

sim_file *sim_fd_file_of(int fd, const sim_file_ops *ops, int wrong)
{
    sim_file *file = sim_fd_file(fd);

    if (file != NULL && file->ops != ops) {
        errno = wrong;
        return NULL;
    }
    return file;
}

int __wrap_close(int fd)
{
    sim_file *file;

    if (!sim_fd_is(fd)) {
        return __real_close(fd);
    }
    file = sim_fd_file(fd);
    if (file == NULL) {
        return -1;
    }
    kit_file[fd - SIM_FD_FIRST] = NULL;
    if (--file->refs == 0) {
        file->ops->destroy(file);
    }
    return 0;
}

/* --- the kit ---------------------------------------------------------------------------- */

void disk_testkit_start(uint64_t seed, bool journal)
{
    disk_host *host;

    sim_seed = seed;
    sim_self = &kit_process;
    kit_now = 0;
    memset(kit_faults, 0, sizeof(kit_faults));
    memset(kit_may, 0, sizeof(kit_may));
    sim_disk_start();
    host = disk_here();
    host->journal = journal;
    host->no_exchange = false;
}

void disk_testkit_close_all(void)
{
    for (int i = 0; i < KIT_FILES; i++) {
        if (kit_file[i] != NULL) {
            __wrap_close(SIM_FD_FIRST + i);
        }
    }
}

void disk_testkit_end(void)
{
    for (int i = 0; i < KIT_FILES; i++) {
        assert_null(kit_file[i]);
    }
    sim_disk_end();
    assert_int_equal(kit_live, 0);
}

void disk_testkit_pass(uint64_t ns)
{
    kit_now += ns;
}

void disk_testkit_fault(sim_fault fault, uint32_t nth)
{
    kit_faults[fault] = nth;
}

/* What a killed process has allocated is not a leak. */
bool disk_testkit_killed(uint32_t nth, void (*run)(void *arg), void *arg)
{
    volatile bool killed = true;

    KIT_LEAKS(disable);
    if (setjmp(kit_killed) == 0) {
        kit_kill = nth;
        run(arg);
        killed = false;
    }
    KIT_LEAKS(enable);
    kit_kill = 0;
    disk_testkit_close_all();
    return killed;
}

bool disk_testkit_happened(sim_fault fault)
{
    return kit_faults[fault] == 0;
}

void disk_testkit_may(sim_fault fault, bool may)
{
    kit_may[fault] = may;
}
