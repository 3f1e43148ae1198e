/*
 * host.c - the process as the code under test sees it: a clock that only the run moves, randomness that is the input's,
 * a pool that works when the run says so, and processes that clients seem to run in.
 *
 * These functions take the place of the C library's in this program, and of those in libuv.
 */
#include "stateful.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

#define HOST_FDS       65536
#define HOST_PROCESSES 64
#define HOST_WORK      256

static bool host_on;
static uint64_t host_now;
static uint64_t host_state;
static bool host_events;
static int host_pid[HOST_FDS]; /* by socket */
static int host_process[HOST_PROCESSES];
static struct {
    uv_work_t *work;
    uv_work_cb fn;
    uv_after_work_cb after;
} host_work[HOST_WORK];
static unsigned host_works;

void sf_host_begin(uint64_t seed)
{
    host_on = true;
    host_now = UINT64_C(1000000000000);
    host_state = seed | 1;
}

void sf_host_end(void)
{
    host_on = false;
}

void sf_host_pass(uint64_t ms)
{
    host_now += ms * 1000000;
}

/* --- clock, randomness ---------------------------------------------------- */

int clock_gettime(clockid_t id, struct timespec *out)
{
    if (host_on && (id == CLOCK_MONOTONIC || id == CLOCK_MONOTONIC_COARSE)) {
        out->tv_sec = (time_t)(host_now / 1000000000u);
        out->tv_nsec = (long)(host_now % 1000000000u);
        return 0;
    }
    return (int)syscall(SYS_clock_gettime, id, out);
}

ssize_t getrandom(void *out, size_t size, unsigned flags)
{
    uint8_t *at = out;

    if (!host_on) {
        return syscall(SYS_getrandom, out, size, flags);
    }
    for (size_t i = 0; i < size; i++) {
        host_state ^= host_state << 13;
        host_state ^= host_state >> 7;
        host_state ^= host_state << 17;
        at[i] = (uint8_t)(host_state >> 32);
    }
    return (ssize_t)size;
}

/* --- polling, pool -------------------------------------------------------- */

int epoll_pwait(int fd, struct epoll_event *events, int max, int timeout, const sigset_t *mask)
{
    int n = (int)syscall(SYS_epoll_pwait, fd, events, max, timeout, mask, 8);

    host_events = host_events || n > 0;
    return n;
}

int epoll_wait(int fd, struct epoll_event *events, int max, int timeout)
{
    return epoll_pwait(fd, events, max, timeout, NULL);
}

bool sf_host_polled(void)
{
    bool any = host_events;

    host_events = false;
    return any;
}

int uv_queue_work(uv_loop_t *loop, uv_work_t *work, uv_work_cb fn, uv_after_work_cb after)
{
    work->loop = loop;
    sf_must(host_works < HOST_WORK, "room for work");
    host_work[host_works].work = work;
    host_work[host_works].fn = fn;
    host_work[host_works++].after = after;
    return 0;
}

bool sf_host_work(void)
{
    unsigned n = host_works;

    for (unsigned i = 0; i < n; i++) {
        host_work[i].fn(host_work[i].work);
        host_work[i].after(host_work[i].work, 0);
    }
    host_works -= n;
    memmove(host_work, host_work + n, host_works * sizeof(*host_work));
    return n > 0;
}

/* --- processes ------------------------------------------------------------ */

/* One that waits for the end of a pipe, which comes when this one ends. (A fork would copy the page tables of a
 * sanitized
 * process.)  It no longer has this process's sockets when it reports in; before that, closed sockets would seem open. */
static int process_spawn(void)
{
    static int ends[2] = {-1, -1};
    char *const argv[] = {(char *)(uintptr_t) "sh", (char *)(uintptr_t) "-c", (char *)(uintptr_t) "echo; exec cat >&2",
                          NULL};
    posix_spawn_file_actions_t actions;
    pid_t pid = 0;
    int spoken[2];
    char byte;

    sf_must(ends[0] >= 0 || pipe2(ends, O_CLOEXEC) == 0, "a pipe");
    sf_must(pipe2(spoken, O_CLOEXEC) == 0, "a pipe");
    sf_must(posix_spawn_file_actions_init(&actions) == 0 && posix_spawn_file_actions_adddup2(&actions, ends[0], 0) == 0 &&
                posix_spawn_file_actions_adddup2(&actions, spoken[1], 1) == 0 &&
                posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0) == 0,
            "memory");
    sf_must(posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ) == 0, "a shell");
    posix_spawn_file_actions_destroy(&actions);
    sf_must(read(spoken[0], &byte, 1) == 1, "a shell that speaks");
    close(spoken[0]);
    close(spoken[1]);
    return pid;
}

int sf_process_start(void)
{
    for (unsigned i = 0; i < HOST_PROCESSES; i++) {
        int rested = host_process[i];
        if (rested) {
            host_process[i] = 0;
            return rested;
        }
    }
    return process_spawn();
}

void sf_process_rest(int pid)
{
    for (unsigned i = 0; i < HOST_PROCESSES; i++) {
        if (!host_process[i]) {
            host_process[i] = pid;
            return;
        }
    }
    sf_process_kill(pid);
}

void sf_process_kill(int pid)
{
    kill(pid, SIGKILL);
    sf_must(waitpid(pid, NULL, 0) == pid, "the end of a process");
}

void sf_process_of(int fd, int pid)
{
    sf_must(fd >= 0 && fd < HOST_FDS, "a small descriptor");
    host_pid[fd] = pid;
}

int getsockopt(int fd, int level, int name, void *value, socklen_t *size)
{
    int pid = fd >= 0 && fd < HOST_FDS ? host_pid[fd] : 0;

    if (pid && level == SOL_SOCKET && name == SO_PEERPIDFD) {
        int found = (int)syscall(SYS_pidfd_open, pid, 0);
        memcpy(value, &found, sizeof(found));
        return found < 0 ? -1 : 0;
    }
    int rc = (int)syscall(SYS_getsockopt, fd, level, name, value, size);
    if (rc == 0 && pid && level == SOL_SOCKET && name == SO_PEERCRED) {
        ((struct ucred *)value)->pid = pid;
    }
    return rc;
}
