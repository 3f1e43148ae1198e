/*
 * pidfd.c - descriptors of processes and of events.
 *
 * A pidfd becomes readable once its process has ended, after its other descriptors were closed, so after the last bytes
 * that it sent through a unix socket have arrived.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "net.h"

int __real_eventfd(unsigned int count, int flags);
int __wrap_eventfd(unsigned int count, int flags);
int __real_eventfd_read(int fd, eventfd_t *value);
int __wrap_eventfd_read(int fd, eventfd_t *value);
int __real_eventfd_write(int fd, eventfd_t value);
int __wrap_eventfd_write(int fd, eventfd_t value);

/* --- processes ---------------------------------------------------------------- */

typedef struct pidfd_file {
    sim_file file;
    uint64_t pid;
    bool ended;
    struct pidfd_file *prev, *next;
} pidfd_file;

/* A process that has ended, of which nobody may know yet. */
typedef struct pidfd_ending {
    uint64_t pid, event;
    struct pidfd_ending *next;
} pidfd_ending;

static pidfd_file *pidfd_files;
static pidfd_ending *pidfd_endings;

static bool pidfd_is_ending(uint64_t pid)
{
    const pidfd_ending *at = pidfd_endings;

    while (at != NULL && at->pid != pid) {
        at = at->next;
    }
    return at != NULL;
}

static short pidfd_ready(sim_file *file)
{
    return ((pidfd_file *)file)->ended ? POLLIN : 0;
}

static void pidfd_destroy(sim_file *file)
{
    pidfd_file *pidfd = (pidfd_file *)file;

    if (pidfd->prev != NULL) {
        pidfd->prev->next = pidfd->next;
    } else {
        pidfd_files = pidfd->next;
    }
    if (pidfd->next != NULL) {
        pidfd->next->prev = pidfd->prev;
    }
    sim_free(pidfd);
}

static const sim_file_ops pidfd_ops = {.name = "pidfd", .ready = pidfd_ready, .destroy = pidfd_destroy};

static int pidfd_open(uint64_t pid)
{
    pidfd_file *pidfd = sim_alloc(sizeof(*pidfd));

    sim_file_init(&pidfd->file, &pidfd_ops);
    pidfd->file.flags = O_RDWR;
    pidfd->pid = pid;
    pidfd->ended = sim_process_of(pid) == NULL && !pidfd_is_ending(pid);
    pidfd->next = pidfd_files;
    if (pidfd_files != NULL) {
        pidfd_files->prev = pidfd;
    }
    pidfd_files = pidfd;
    return sim_fd_open(&pidfd->file);
}

int sim_pidfd_open(uint64_t pid)
{
    if (sim_happens(SIM_NO_PIDFD)) {
        static const int errors[] = {EPERM, ENOSYS, EMFILE, ENOMEM}; /* a sandbox, an old kernel, and none left */
        sim_mark("a process cannot be watched");
        errno = errors[sim_below(&sim_fault_chance, 4)];
        return -1;
    }
    if (sim_process_of(pid) == NULL && !pidfd_is_ending(pid)) {
        errno = ESRCH;
        return -1;
    }
    return pidfd_open(pid);
}

int net_peer_pidfd(uint64_t pid)
{
    if (sim_happens(SIM_NO_PIDFD)) {
        static const int errors[] = {EMFILE, ENFILE, EPERM};
        sim_mark("a process cannot be watched");
        errno = errors[sim_below(&sim_fault_chance, 3)];
        return -1;
    }
    if (sim_process_of(pid) == NULL && !pidfd_is_ending(pid) && sim_one_in(&net_chance, 2)) {
        /* Of a process that its parent has waited for, kernels from 6.16 on still give one. */
        sim_mark("the process at the other end is gone already");
        errno = sim_one_in(&net_chance, 2) ? ESRCH : EINVAL;
        return -1;
    }
    return pidfd_open(pid);
}

static void pidfd_on_end(void *arg)
{
    pidfd_ending *ending = arg, **at = &pidfd_endings;

    while (*at != ending) {
        at = &(*at)->next;
    }
    *at = ending->next;
    sim_trace("net: a process is seen to have ended", ending->pid, 0);
    for (pidfd_file *pidfd = pidfd_files; pidfd != NULL; pidfd = pidfd->next) {
        if (pidfd->pid == ending->pid) {
            pidfd->ended = true;
            sim_file_changed(&pidfd->file);
        }
    }
    sim_free(ending);
}

void sim_pidfd_ended(sim_process *process)
{
    pidfd_ending *ending = sim_alloc(sizeof(*ending));
    uint64_t after = 2 * net.latency_unix + sim_between(&net_chance, 2 * SIM_US, 500 * SIM_US);

    if (sim_happens(SIM_PIDFD_LATE)) {
        sim_mark("the end of a process is seen late");
        after += net_drawn_time(&sim_fault_chance, SIM_MS, 20 * SIM_S);
    }
    ending->pid = process->pid;
    ending->next = pidfd_endings;
    pidfd_endings = ending;
    ending->event = sim_at(sim_time() + after, pidfd_on_end, ending);
}

void net_pidfds_end(void)
{
    pidfd_ending *next;

    for (; pidfd_endings != NULL; pidfd_endings = next) {
        next = pidfd_endings->next;
        sim_at_drop(pidfd_endings->event);
        sim_free(pidfd_endings);
    }
}

/* --- eventfd ------------------------------------------------------------------- */

typedef struct event_file {
    sim_file file;
    uint64_t count;
} event_file;

static short event_ready(sim_file *file)
{
    const event_file *event = (const event_file *)file;

    return (event->count > 0 ? POLLIN : 0) | (event->count < UINT64_MAX - 1 ? POLLOUT : 0);
}

static void event_destroy(sim_file *file)
{
    sim_free(file);
}

static ssize_t event_read(sim_file *file, void *bytes, size_t size)
{
    event_file *event = (event_file *)file;

    if (size < sizeof(event->count)) {
        errno = EINVAL;
        return -1;
    }
    if (event->count == 0) {
        errno = EAGAIN;
        return -1;
    }
    *(uint64_t *)bytes = event->count;
    event->count = 0;
    sim_file_changed(file);
    return sizeof(event->count);
}

static ssize_t event_write(sim_file *file, const void *bytes, size_t size)
{
    event_file *event = (event_file *)file;
    uint64_t more = size >= sizeof(more) ? *(const uint64_t *)bytes : UINT64_MAX;

    if (more == UINT64_MAX) {
        errno = EINVAL;
        return -1;
    }
    if (more > UINT64_MAX - 1 - event->count) {
        errno = EAGAIN;
        return -1;
    }
    event->count += more;
    sim_file_changed(file);
    return sizeof(event->count);
}

static const sim_file_ops event_ops = {
    .name = "eventfd",
    .ready = event_ready,
    .destroy = event_destroy,
    .read = event_read,
    .write = event_write,
};

int __wrap_eventfd(unsigned int count, int flags)
{
    if (sim_self == NULL) {
        return __real_eventfd(count, flags);
    }
    sim_point();
    sim_check((flags & EFD_NONBLOCK) != 0 && (flags & EFD_SEMAPHORE) == 0, "the simulation: eventfds do not block",
              "%#x", (unsigned)flags);
    event_file *event = sim_alloc(sizeof(*event));
    sim_file_init(&event->file, &event_ops);
    event->file.flags = O_RDWR | O_NONBLOCK;
    event->count = count;
    return sim_fd_open(&event->file);
}

int __wrap_eventfd_read(int fd, eventfd_t *value)
{
    if (!sim_fd_is(fd)) {
        return __real_eventfd_read(fd, value);
    }
    sim_point();
    sim_file *file = sim_fd_file_of(fd, &event_ops, EINVAL);
    return file != NULL && event_read(file, value, sizeof(*value)) > 0 ? 0 : -1;
}

int __wrap_eventfd_write(int fd, eventfd_t value)
{
    if (!sim_fd_is(fd)) {
        return __real_eventfd_write(fd, value);
    }
    sim_point();
    sim_file *file = sim_fd_file_of(fd, &event_ops, EINVAL);
    return file != NULL && event_write(file, &value, sizeof(value)) > 0 ? 0 : -1;
}
