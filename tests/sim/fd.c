/*
 * fd.c - descriptors of simulated processes, and the files behind them.
 *
 * A descriptor is an entry in the table of its process; a file (what Linux calls an open file description) is shared
 * by all entries that were made from it. As in Linux, the lowest free number is taken, and the last close of a file
 * ends it.
 */
#include "sim.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <utlist.h>

#include "net.h"

#define FD_POLLED 16 /* at once, by one call */

typedef struct fd_entry {
    sim_file *file; /* NULL: free */
    bool cloexec;
} fd_entry;

/* A call of poll that sleeps. Its watches are not on its stack, which is gone when its process has been killed. */
typedef struct fd_poll {
    struct fd_poll *prev, *next;
    sim_watch watches[FD_POLLED];
} fd_poll;

struct sim_fds {
    fd_entry *entries;
    fd_poll *polls;
    uint32_t size;   /* of entries */
    uint32_t lowest; /* no entry below it is free */
    uint32_t count;
    uint32_t limit; /* RLIMIT_NOFILE, less SIM_FD_FIRST */
};

int __real_close(int fd);
int __wrap_close(int fd);
int __real_fcntl(int fd, int command, ...);
int __wrap_fcntl(int fd, int command, ...);
int __real_fcntl64(int fd, int command, ...);
int __wrap_fcntl64(int fd, int command, ...);
int __real_poll(struct pollfd *fds, nfds_t n, int timeout_ms);
int __wrap_poll(struct pollfd *fds, nfds_t n, int timeout_ms);
int __real_getrlimit(int resource, struct rlimit *out);
int __wrap_getrlimit(int resource, struct rlimit *out);
int __real_getrlimit64(int resource, struct rlimit64 *out);
int __wrap_getrlimit64(int resource, struct rlimit64 *out);

/* --- files ------------------------------------------------------------------ */

void sim_file_init(sim_file *file, const sim_file_ops *ops)
{
    file->ops = ops;
    file->refs = 1;
    file->flags = 0;
    file->watches = NULL;
}

void sim_file_ref(sim_file *file)
{
    file->refs++;
}

void sim_file_unref(sim_file *file)
{
    if (--file->refs > 0) {
        return;
    }
    /* The kernel takes a closed file out of every epoll set. */
    while (file->watches != NULL) {
        sim_watch_remove(file->watches);
    }
    file->ops->destroy(file);
}

void sim_file_changed(sim_file *file)
{
    sim_watch *next;

    for (sim_watch *watch = file->watches; watch != NULL; watch = next) {
        next = watch->next;
        sim_wake(watch->fiber);
    }
}

void sim_watch_add(sim_watch *watch, sim_file *file, sim_fiber *fiber)
{
    watch->file = file;
    watch->fiber = fiber;
    watch->prev = NULL;
    watch->next = file->watches;
    if (watch->next != NULL) {
        watch->next->prev = watch;
    }
    file->watches = watch;
}

void sim_watch_remove(sim_watch *watch)
{
    if (watch->file == NULL) {
        return;
    }
    if (watch->prev != NULL) {
        watch->prev->next = watch->next;
    } else {
        watch->file->watches = watch->next;
    }
    if (watch->next != NULL) {
        watch->next->prev = watch->prev;
    }
    watch->file = NULL;
    watch->prev = watch->next = NULL;
}

/* --- tables ----------------------------------------------------------------- */

static void fd_poll_end(struct sim_fds *fds, fd_poll *poll)
{
    for (size_t i = 0; i < FD_POLLED; i++) {
        sim_watch_remove(&poll->watches[i]);
    }
    DL_DELETE(fds->polls, poll);
    sim_free(poll);
}

void sim_fds_start(sim_process *process)
{
    process->fds = sim_alloc(sizeof(*process->fds));
    process->fds->limit = net_descriptors();
}

void sim_fds_end(sim_process *process, bool killed)
{
    struct sim_fds *fds = process->fds;

    (void)killed; /* the kernel closes what is open, whichever way a process ends */
    while (fds->polls != NULL) {
        fd_poll_end(fds, fds->polls);
    }
    for (uint32_t i = 0; i < fds->size; i++) {
        if (fds->entries[i].file != NULL) {
            sim_file_unref(fds->entries[i].file);
        }
    }
    sim_free(fds->entries);
    sim_free(fds);
    process->fds = NULL;
}

uint32_t sim_fds_count(const sim_process *process)
{
    return process->fds != NULL ? process->fds->count : 0;
}

static void fd_grow(struct sim_fds *fds)
{
    uint32_t size = fds->size > 0 ? 2 * fds->size : 64;

    fds->entries = sim_realloc(fds->entries, size * sizeof(*fds->entries));
    memset(fds->entries + fds->size, 0, (size - fds->size) * sizeof(*fds->entries));
    fds->size = size;
}

/* Takes over the reference, also when it fails. `least`: the lowest number that may be taken. */
static int fd_open_from(sim_file *file, uint32_t least, bool cloexec)
{
    struct sim_fds *fds = sim_self->fds;
    uint32_t at = least > fds->lowest ? least : fds->lowest;

    while (at < fds->size && fds->entries[at].file != NULL) {
        at++;
    }
    if (at >= fds->limit) {
        sim_mark("a process has no descriptor left");
        sim_file_unref(file);
        errno = EMFILE;
        return -1;
    }
    while (at >= fds->size) {
        fd_grow(fds);
    }
    fds->entries[at] = (fd_entry){.file = file, .cloexec = cloexec};
    fds->count++;
    if (least <= fds->lowest) {
        fds->lowest = at + 1;
    }
    return SIM_FD_FIRST + (int)at;
}

int sim_fd_open(sim_file *file)
{
    return fd_open_from(file, 0, true);
}

static fd_entry *fd_entry_of(int fd)
{
    struct sim_fds *fds = sim_self != NULL ? sim_self->fds : NULL;
    uint32_t at = (uint32_t)(fd - SIM_FD_FIRST);

    if (fds == NULL || fd < SIM_FD_FIRST || at >= fds->size || fds->entries[at].file == NULL) {
        errno = EBADF;
        return NULL;
    }
    return &fds->entries[at];
}

sim_file *sim_fd_file(int fd)
{
    const fd_entry *entry = fd_entry_of(fd);

    return entry != NULL ? entry->file : NULL;
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
    if (!sim_fd_is(fd)) {
        return __real_close(fd);
    }
    sim_point();
    fd_entry *entry = fd_entry_of(fd);
    if (entry == NULL) {
        /* No program may close what it does not have: with threads, it would close somebody else's. */
        sim_found("descriptors: a process closes only what it has open", "%s: close(%d)",
                  sim_self != NULL ? sim_self->name : "the simulator", fd - SIM_FD_FIRST);
    }
    struct sim_fds *fds = sim_self->fds;
    uint32_t at = (uint32_t)(fd - SIM_FD_FIRST);
    sim_file *file = entry->file;
    *entry = (fd_entry){0};
    fds->count--;
    if (at < fds->lowest) {
        fds->lowest = at;
    }
    sim_file_unref(file);
    return 0;
}

/* --- fcntl ------------------------------------------------------------------ */

static int fd_dup(sim_file *file, long least, bool cloexec)
{
    if (least > INT_MAX || least < 0) {
        errno = EINVAL;
        return -1;
    }
    sim_file_ref(file);
    return fd_open_from(file, least > SIM_FD_FIRST ? (uint32_t)(least - SIM_FD_FIRST) : 0, cloexec);
}

static int fd_control(int fd, int command, long argument)
{
    sim_point();
    fd_entry *entry = fd_entry_of(fd);
    const int kept = O_NONBLOCK | O_APPEND | O_ASYNC | O_DIRECT | O_NOATIME;

    if (entry == NULL) {
        return -1;
    }
    switch (command) {
    case F_DUPFD:
    case F_DUPFD_CLOEXEC:
        return fd_dup(entry->file, argument, command == F_DUPFD_CLOEXEC);
    case F_GETFD:
        return entry->cloexec ? FD_CLOEXEC : 0;
    case F_SETFD:
        entry->cloexec = (argument & FD_CLOEXEC) != 0;
        return 0;
    case F_GETFL:
        return entry->file->flags;
    case F_SETFL:
        entry->file->flags = (entry->file->flags & ~kept) | ((int)argument & kept);
        return 0;
    default:
        if (entry->file->ops->control == NULL) {
            errno = EINVAL;
            return -1;
        }
        return entry->file->ops->control(entry->file, command, argument);
    }
}

int __wrap_fcntl(int fd, int command, ...)
{
    va_list args;

    va_start(args, command);
    long argument = va_arg(args, long);
    va_end(args);
    return sim_fd_is(fd) ? fd_control(fd, command, argument) : __real_fcntl(fd, command, argument);
}

int __wrap_fcntl64(int fd, int command, ...)
{
    va_list args;

    va_start(args, command);
    long argument = va_arg(args, long);
    va_end(args);
    return sim_fd_is(fd) ? fd_control(fd, command, argument) : __real_fcntl64(fd, command, argument);
}

/* --- poll ------------------------------------------------------------------- */

static short fd_ready(int fd, short events)
{
    sim_file *file = sim_fd_file(fd);

    if (file == NULL) {
        return POLLNVAL;
    }
    short ready = file->ops->ready != NULL ? file->ops->ready(file) : POLLIN | POLLOUT;
    return ready & (short)(events | POLLERR | POLLHUP);
}

static int fd_poll_once(struct pollfd *fds, nfds_t n)
{
    int found = 0;

    for (nfds_t i = 0; i < n; i++) {
        fds[i].revents = fds[i].fd >= 0 ? fd_ready(fds[i].fd, fds[i].events) : 0;
        found += fds[i].revents != 0;
    }
    return found;
}

/* Sleeps until one of the files may be ready; false: it is `until`. */
static bool fd_poll_sleep(const struct pollfd *fds, nfds_t n, uint64_t until)
{
    fd_poll *poll = sim_alloc(sizeof(*poll));

    DL_APPEND(sim_self->fds->polls, poll);
    sim_check(n <= FD_POLLED, "the simulation: poll of few descriptors", "%zu", (size_t)n);
    for (nfds_t i = 0; i < n; i++) {
        sim_file *file = fds[i].fd >= 0 ? sim_fd_file(fds[i].fd) : NULL;
        if (file != NULL) {
            sim_watch_add(&poll->watches[i], file, sim_running);
        }
    }
    bool woken = sim_sleep(until);
    fd_poll_end(sim_self->fds, poll);
    return woken;
}

int __wrap_poll(struct pollfd *fds, nfds_t n, int timeout_ms)
{
    nfds_t real = 0;

    for (nfds_t i = 0; i < n; i++) {
        real += fds[i].fd >= 0 && !sim_fd_is(fds[i].fd);
    }
    if (sim_self == NULL || (real > 0 && real == n)) {
        return __real_poll(fds, n, timeout_ms);
    }
    sim_check(real == 0, "the simulation: poll of virtual descriptors only", "%zu are real", (size_t)real);
    sim_point();
    uint64_t until = timeout_ms < 0 ? SIM_NEVER : sim_time() + (uint64_t)timeout_ms * SIM_MS;
    int found = fd_poll_once(fds, n);
    while (found == 0 && timeout_ms != 0 && sim_time() < until) {
        fd_poll_sleep(fds, n, until);
        found = fd_poll_once(fds, n);
    }
    return found;
}

/* --- limits ----------------------------------------------------------------- */

int __wrap_getrlimit(int resource, struct rlimit *out)
{
    if (sim_self == NULL || resource != RLIMIT_NOFILE) {
        return __real_getrlimit(resource, out);
    }
    out->rlim_cur = SIM_FD_FIRST + sim_self->fds->limit;
    out->rlim_max = out->rlim_cur;
    return 0;
}

int __wrap_getrlimit64(int resource, struct rlimit64 *out)
{
    if (sim_self == NULL || resource != RLIMIT_NOFILE) {
        return __real_getrlimit64(resource, out);
    }
    out->rlim_cur = SIM_FD_FIRST + sim_self->fds->limit;
    out->rlim_max = out->rlim_cur;
    return 0;
}
