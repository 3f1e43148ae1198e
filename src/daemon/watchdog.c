/*
 * watchdog.c - see watchdog.h. The thread sleeps in poll until the owner or the daemon ends; it touches the runtime
 * directory only if the loop, its other user, has made no progress for the whole grace time.
 */
#include "daemon/watchdog.h"

#include "base/error.h"
#include "base/log.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define GUARD_GRACE_MS 10000

struct tqd_watchdog {
    pthread_t thread;
    const tqd_parent *owner;
    int ended_fd; /* readable: the loop has ended */
    tqd_rundir *rundir;
};

/* Whether the loop ended within the time (-1: no limit), or, if the owner is watched, before the owner did. */
static bool guard_wait(const tqd_watchdog *guard, bool owner, int timeout_ms)
{
    struct pollfd fds[] = {{.fd = guard->ended_fd, .events = POLLIN},
                           {.fd = owner ? guard->owner->fd : -1, .events = POLLIN}};
    bool look = owner && guard->owner->fd < 0;
    int n;

    if (look) {
        do {
            n = poll(fds, 1, TQD_PARENT_CHECK_MS);
        } while ((n == 0 && !tqd_parent_ended(guard->owner)) || (n < 0 && errno == EINTR));
        return fds[0].revents != 0;
    }

    do {
        n = poll(fds, 2, timeout_ms);
    } while (n < 0 && errno == EINTR);
    return fds[0].revents != 0;
}

static void *guard_run(void *arg)
{
    const tqd_watchdog *guard = arg;

    if (!guard_wait(guard, true, -1) && !guard_wait(guard, false, GUARD_GRACE_MS)) {
        tqi_log(TQI_ERROR, "tqd", "the owner has ended and a sampler does not return: ending");
        tqd_rundir_fini(guard->rundir);
        _exit(1);
    }
    return NULL;
}

int tqd_watchdog_start(const tqd_parent *owner, tqd_rundir *rundir, tqd_watchdog **out, tq_error *err)
{
    tqd_watchdog *guard = calloc(1, sizeof(*guard));
    int failed;

    if (!guard) {
        return tqi_error_nomem(err, "watching the owner");
    }
    guard->owner = owner;
    guard->rundir = rundir;
    guard->ended_fd = eventfd(0, EFD_CLOEXEC);
    failed = guard->ended_fd < 0 ? errno : pthread_create(&guard->thread, NULL, guard_run, guard);
    if (failed) {
        if (guard->ended_fd >= 0) {
            close(guard->ended_fd);
        }
        free(guard);
        return tqi_error_errno(err, failed, "watching the owner");
    }
    *out = guard;
    return TQ_OK;
}

void tqd_watchdog_stop(tqd_watchdog *guard)
{
    uint64_t one = 1;

    if (!guard) {
        return;
    }
    /* A counter below its limit: the write cannot fail. */
    if (write(guard->ended_fd, &one, sizeof(one)) == (ssize_t)sizeof(one)) {
        pthread_join(guard->thread, NULL);
    }
    close(guard->ended_fd);
    free(guard);
}
