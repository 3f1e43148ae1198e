/*
 * Shared memory of simulated processes, and the product's static data of each.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#include "base/limits.h"
#include "memory_testkit.h"
#include "sim.h"
#include "store/stream.h"
#include "tq/tq.h"

#define PAGE 4096u

static int make(size_t size)
{
    int fd = memfd_create("test", MFD_ALLOW_SEALING);
    sim_file *file = sim_fd_file(fd);

    assert_int_equal(file->ops->truncate(file, (off_t)size), 0);
    assert_int_equal(file->ops->control(file, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK), 0);
    assert_int_equal(file->ops->truncate(file, (off_t)size * 2), -1);
    return fd;
}

static uint64_t blocks(int fd)
{
    sim_file *file = sim_fd_file(fd);
    struct stat st;

    assert_int_equal(file->ops->stat(file, &st), 0);
    return (uint64_t)st.st_blocks;
}

/* Two processes share it. */
static uint8_t *share(void)
{
    sim_memory_start();
    sim_process *one = memory_test_start(0);
    int fd = make(16 * PAGE);
    uint8_t *at = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    for (unsigned i = 0; i < 16 * PAGE; i++) {
        assert_int_equal(at[i], 0);
    }
    memset(at, 1, 16 * PAGE);
    sim_process *two = memory_test_start(1);
    assert_ptr_equal(mmap(NULL, 8 * PAGE, PROT_READ, MAP_SHARED, fd, PAGE), at + PAGE);
    assert_ptr_equal(mmap(NULL, 17 * PAGE, PROT_READ, MAP_SHARED, fd, 0), MAP_FAILED);
    assert_int_equal(madvise(at + PAGE, 2 * PAGE, MADV_POPULATE_WRITE), 0);
    assert_int_equal(blocks(fd), 2 * PAGE / 512);
    assert_int_equal(fallocate(fd, FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, PAGE, PAGE), 0);
    assert_int_equal(blocks(fd), PAGE / 512);
    assert_int_equal(at[PAGE - 1], 1);
    assert_int_equal(at[PAGE], 0);
    assert_int_equal(at[2 * PAGE], 1);
    assert_int_equal(munmap(at + PAGE, 8 * PAGE), 0);
    memory_test_end(two);
    memory_test_end(one);
    return at;
}

/* The next time, it is at the same address and zero. */
static void shared_memory_is_at_the_same_address_and_zero_in_each_run(void **state)
{
    uint8_t *at = share();

    (void)state;
    assert_ptr_equal(share(), at);
    assert_ptr_equal(share(), at);
    sim_memory_start();
}

static void unmapping_twice_is_found(void **state)
{
    sim_process *one = memory_test_start(0);
    void *at = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    (void)state;
    assert_int_equal(munmap(at, PAGE), 0);
    if (setjmp(memory_test_back) == 0) {
        munmap(at, PAGE);
        fail();
    }
    assert_string_equal(memory_test_found, "one unmaps 4096 bytes that it has not mapped so");
    memory_test_end(one);
}

/* Seen through a private mapping: what others write, until it becomes a copy. */
static void a_private_mapping_sees_writes_until_it_is_a_copy(void **state)
{
    sim_process *one = memory_test_start(0);
    int fd = make(2 << 20);
    uint8_t *at = mmap(NULL, 2 << 20, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    (void)state;
    assert_int_equal((uintptr_t)at % (2 << 20), 0);
    memset(at + PAGE, 7, PAGE);
    uint8_t *copy = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, PAGE);
    assert_ptr_not_equal(copy, at + PAGE);
    assert_int_equal(copy[5], 7);
    at[PAGE + 5] = 8;
    assert_int_equal(copy[5], 8);
    assert_int_equal(madvise(copy, PAGE, MADV_POPULATE_WRITE), 0);
    at[PAGE + 5] = 9;
    assert_int_equal(copy[5], 8);
    assert_int_equal(munmap(copy, PAGE), 0);
    memory_test_end(one);
    sim_memory_start();
}

static void seals_and_read_only_files_refuse_writable_mappings(void **state)
{
    sim_process *one = memory_test_start(0);
    int fd = make(PAGE);
    sim_file *file = sim_fd_file(fd);

    (void)state;
    uint8_t *at = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    sim_file *reader = file->ops->reopen(file, O_RDONLY);
    assert_non_null(reader);
    int read_only = sim_fd_open(reader);
    assert_ptr_equal(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, read_only, 0), MAP_FAILED);
    assert_ptr_equal(mmap(NULL, PAGE, PROT_READ, MAP_SHARED, read_only, 0), at);
    assert_int_equal(file->ops->control(file, F_ADD_SEALS, 0x0010 | F_SEAL_SEAL), 0);
    assert_ptr_equal(mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
    assert_int_equal(file->ops->control(file, F_ADD_SEALS, F_SEAL_WRITE), -1);
    memory_test_end(one);
    sim_memory_start();
}

static uint8_t *copied;
static unsigned pauses, partial;

static void pause_copy(void)
{
    bool begun = copied[0] == 3, ended = copied[PAGE - 1] == 3;

    pauses++;
    partial += begun && !ended;
}

static void a_copy_is_divided_where_other_fibers_can_see_it(void **state)
{
    sim_process *one = memory_test_start(0);
    uint8_t *from = malloc(PAGE);

    (void)state;
    memory_test_preempts = pause_copy;
    sim_running = (sim_fiber *)from;
    sim_memory_start();
    copied = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(from, 3, PAGE);
    for (unsigned i = 0; i < 1000; i++) {
        memset(copied, 0, PAGE);
        tqi_store_stream_copy(copied, from, PAGE);
        assert_memory_equal(copied, from, PAGE);
    }
    assert_in_range(pauses, 50, 2000);
    assert_int_equal(pauses, partial);
    memory_test_preempts = NULL;
    sim_running = NULL;
    free(from);
    memory_test_end(one);
    sim_memory_start();
}

/* Each process has the product's variables for itself, and begins with what they were. */
static void each_process_has_its_own_static_data(void **state)
{
    uint64_t before = tqi_limits.request_bytes;
    sim_process *one = memory_test_start(0);

    (void)state;
    assert_int_equal(tqi_limits.request_bytes, before);
    tqi_limits.request_bytes = 12345;
    sim_process *two = memory_test_start(1);
    assert_int_equal(tqi_limits.request_bytes, before);
    tqi_limits.request_bytes = 54321;
    memory_test_enter(one);
    assert_int_equal(tqi_limits.request_bytes, 12345);
    memory_test_enter(two);
    assert_int_equal(tqi_limits.request_bytes, 54321);
    memory_test_end(one);
    memory_test_enter(two);
    assert_int_equal(tqi_limits.request_bytes, 54321);
    memory_test_end(two);
    assert_int_equal(tqi_limits.request_bytes, before);
}

static void log_nothing(tq_log_level level, const char *part, const char *message, void *arg)
{
    (void)level;
    (void)part;
    (void)message;
    (void)arg;
}

/* Kept: what the log's argument leads to. */
static void memory_that_nothing_leads_to_is_a_leak(void **state)
{
    sim_process *one = memory_test_start(0);
    void **first = malloc(100);

    (void)state;
    *first = malloc(10);
    tq_log_set_sink(log_nothing, first);
    sim_heap_check_leaks();
    *first = NULL;
    if (setjmp(memory_test_back) == 0) {
        sim_heap_check_leaks();
        fail();
    }
    assert_non_null(strstr(memory_test_found, "one has lost 10 bytes in 1 allocations, the first one by "));
    memory_test_end(one);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shared_memory_is_at_the_same_address_and_zero_in_each_run),
        cmocka_unit_test(unmapping_twice_is_found),
        cmocka_unit_test(a_private_mapping_sees_writes_until_it_is_a_copy),
        cmocka_unit_test(seals_and_read_only_files_refuse_writable_mappings),
        cmocka_unit_test(a_copy_is_divided_where_other_fibers_can_see_it),
        cmocka_unit_test(each_process_has_its_own_static_data),
        cmocka_unit_test(memory_that_nothing_leads_to_is_a_leak),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
