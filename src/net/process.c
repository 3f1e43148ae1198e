/*
 * process.c - the processes behind the sessions of a server, each watched once however many sessions it has.
 *
 * A pidfd is taken once per process and shared by all servers in our process, under a lock, because their loops run on
 * different threads. A watch belongs to one server and its loop, in which a descriptor can be polled only once.
 *
 * Two pidfds of the same number that are both alive are the same process: the number is reused only once the process
 * that has it is gone.
 */
#include "net/serving.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <utlist.h>

#include "base/log.h"

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif

/* --- shared by all servers ------------------------------------------------ */

struct tqi_net_pidfd {
    uint64_t pid;
    int fd;
    unsigned refs;
    bool listed;
    UT_hash_handle hh;
};

static pthread_mutex_t pidfd_lock = PTHREAD_MUTEX_INITIALIZER;
static tqi_net_pidfd *pidfds; /* by number */

static bool pidfd_alive(int fd)
{
    struct pollfd ended = {.fd = fd, .events = POLLIN};

    return poll(&ended, 1, 0) == 0;
}

/* A pidfd of the process that connected, or -1. */
static int pidfd_of(int socket, uint64_t pid)
{
    int fd = -1;
    socklen_t size = sizeof(fd);

    if (getsockopt(socket, SOL_SOCKET, SO_PEERPIDFD, &fd, &size) == 0) {
        return fd;
    }
    if (errno == ESRCH || errno == EMFILE || errno == ENFILE) {
        return -1;
    }
#ifdef SYS_pidfd_open
    /* An older kernel: by number, which belongs to another process only if this one is already gone. */
    return (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
#else
    (void)pid;
    return -1;
#endif
}

/* Takes over `fd`. NULL: out of memory. */
static tqi_net_pidfd *pidfd_share(uint64_t pid, int fd)
{
    tqi_net_pidfd *shared, *made = calloc(1, sizeof(*made));
    bool alive = pidfd_alive(fd);

    pthread_mutex_lock(&pidfd_lock);
    HASH_FIND(hh, pidfds, &pid, sizeof pid, shared);
    if (shared != NULL && alive && pidfd_alive(shared->fd)) {
        shared->refs++;
    } else {
        if (shared != NULL && made != NULL) {
            /* Its number now belongs to another process; its holders keep it. */
            HASH_DEL(pidfds, shared);
            shared->listed = false;
        }
        shared = made;
        if (made != NULL) {
            *made = (tqi_net_pidfd){.pid = pid, .fd = fd, .refs = 1};
            /* If there is no memory for the table, it is not shared with other servers. */
            made->listed = TQI_HASH_ADD(pidfds, pid, made);
        }
    }
    pthread_mutex_unlock(&pidfd_lock);
    if (shared != made || made == NULL) {
        free(made);
        close(fd);
    }
    return shared;
}

/* A separate one, not shared; NULL: out of memory or descriptors. */
static tqi_net_pidfd *pidfd_copy(const tqi_net_pidfd *shared)
{
    tqi_net_pidfd *copy = calloc(1, sizeof(*copy));
    int fd = copy != NULL ? fcntl(shared->fd, F_DUPFD_CLOEXEC, 0) : -1;

    if (fd < 0) {
        free(copy);
        return NULL;
    }
    *copy = (tqi_net_pidfd){.pid = shared->pid, .fd = fd, .refs = 1};
    return copy;
}

static void pidfd_rele(tqi_net_pidfd *shared)
{
    pthread_mutex_lock(&pidfd_lock);
    bool last = --shared->refs == 0;
    if (last && shared->listed) {
        HASH_DEL(pidfds, shared);
    }
    pthread_mutex_unlock(&pidfd_lock);
    if (last) {
        close(shared->fd);
        free(shared);
    }
}

/* --- one server's --------------------------------------------------------- */

static void process_unlist(tqi_net_process *process)
{
    if (process->listed) {
        HASH_DEL(process->server->processes, process);
        process->listed = false;
    }
}

static void process_on_event(uv_poll_t *poll, int status, int events)
{
    tqi_net_process *process = poll->data;
    tqi_net_exit *exit;

    (void)events;
    if (status < 0) {
        /* This says nothing about the process itself. */
        uv_poll_stop(poll);
        process_unlist(process); /* later sessions try again */
        tqi_net_exit *next;
        DL_FOREACH_SAFE (process->exits, exit, next) {
            exit->fn(exit, uv_strerror(status));
        }
        return;
    }
    process->refs++;
    while ((exit = process->exits)) {
        DL_DELETE(process->exits, exit);
        exit->listed = false;
        exit->fn(exit, NULL);
    }
    uv_poll_stop(poll);
    tqi_net_process_unref(process);
}

static void process_on_closed(uv_handle_t *handle)
{
    tqi_net_process *process = handle->data;
    tqi_net_server *server = process->server;

    free(process);
    tqi_net_server_handle_closed(server);
}

/* Takes over a reference to `pidfd`, even on failure. */
static tqi_net_process *process_make(tqi_net_server *server, uint64_t pid, tqi_net_pidfd *pidfd)
{
    tqi_net_process *process = calloc(1, sizeof(*process));
    int rc = process != NULL ? uv_poll_init(server->loop, &process->poll, pidfd->fd) : UV_ENOMEM;

    if (rc == UV_EEXIST) {
        /* Another server of this loop polls it. */
        tqi_net_pidfd *copy = pidfd_copy(pidfd);
        pidfd_rele(pidfd);
        pidfd = copy;
        rc = pidfd != NULL ? uv_poll_init(server->loop, &process->poll, pidfd->fd) : UV_ENOMEM;
    }
    if (rc != 0) {
        if (pidfd != NULL) {
            pidfd_rele(pidfd);
        }
        free(process);
        return NULL;
    }
    process->poll.data = process;
    process->server = server;
    process->pidfd = pidfd;
    process->pid = pid;
    process->refs = 1;
    server->handles++;
    process->listed = TQI_HASH_ADD(server->processes, pid, process);
    uv_poll_start(&process->poll, UV_READABLE, process_on_event);
    return process;
}

tqi_net_process *tqi_net_process_get(tqi_net_server *server, int socket, uint64_t pid, int *errnum)
{
    tqi_net_process *process;
    int fd = pidfd_of(socket, pid);

    if (fd < 0) {
        *errnum = errno;
        return NULL;
    }
    HASH_FIND(hh, server->processes, &pid, sizeof pid, process);
    if (process != NULL && pidfd_alive(fd) && pidfd_alive(process->pidfd->fd)) {
        close(fd);
        process->refs++;
        return process;
    }
    if (process != NULL) {
        process_unlist(process); /* an earlier process with that number, whose end is about to be noticed */
    }
    *errnum = ENOMEM;
    tqi_net_pidfd *pidfd = pidfd_share(pid, fd);
    return pidfd != NULL ? process_make(server, pid, pidfd) : NULL;
}

tqi_net_process *tqi_net_process_ref(tqi_net_process *process)
{
    process->refs++;
    return process;
}

void tqi_net_process_unref(tqi_net_process *process)
{
    if (--process->refs > 0) {
        return;
    }
    process_unlist(process);
    uv_close((uv_handle_t *)&process->poll, process_on_closed);
    pidfd_rele(process->pidfd);
}

void tqi_net_process_on_exit(tqi_net_process *process, tqi_net_exit *exit)
{
    DL_APPEND(process->exits, exit);
    exit->listed = true;
}

void tqi_net_process_off_exit(tqi_net_process *process, tqi_net_exit *exit)
{
    if (exit->listed) {
        DL_DELETE(process->exits, exit);
        exit->listed = false;
    }
}

int tqi_net_process_fd(const tqi_net_process *process)
{
    return process->pidfd->fd;
}
