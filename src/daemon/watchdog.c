/*
 * watchdog.c - see watchdog.h. The thread sleeps in poll until the parent or the daemon ends; it touches the runtime
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

#define WATCHDOG_GRACE_MS 10000

struct tqd_watchdog {
    pthread_t thread;
    const tqd_parent *parent;
    int ended_fd; /* readable: the loop has ended */
    tqd_rundir *rundir;
};

/* Whether the loop ended within the time (-1: no limit), or, if the parent is watched, before the parent did. */
static bool watchdog_wait(const tqd_watchdog *watchdog, bool parent, int timeout_ms)
{
    struct pollfd fds[] = {{.fd = watchdog->ended_fd, .events = POLLIN},
                           {.fd = parent ? watchdog->parent->fd : -1, .events = POLLIN}};
    bool look = parent && watchdog->parent->fd < 0;
    int n;

    if (look) {
        do {
            n = poll(fds, 1, TQD_PARENT_CHECK_MS);
        } while ((n == 0 && !tqd_parent_ended(watchdog->parent)) || (n < 0 && errno == EINTR));
        return fds[0].revents != 0;
    }

    do {
        n = poll(fds, 2, timeout_ms);
    } while (n < 0 && errno == EINTR);
    return fds[0].revents != 0;
}

static void *watchdog_run(void *arg)
{
    const tqd_watchdog *watchdog = arg;

    if (!watchdog_wait(watchdog, true, -1) && !watchdog_wait(watchdog, false, WATCHDOG_GRACE_MS)) {
        tqi_log(TQI_ERROR, "tqd", "the parent has ended and a sampler does not return: ending");
        tqd_rundir_fini(watchdog->rundir);
        _exit(1);
    }
    return NULL;
}

int tqd_watchdog_start(const tqd_parent *parent, tqd_rundir *rundir, tqd_watchdog **out, tq_error *err)
{
    tqd_watchdog *watchdog = calloc(1, sizeof(*watchdog));
    int failed;

    if (watchdog == NULL) {
        return tqi_error_nomem(err, "watching the parent");
    }
    watchdog->parent = parent;
    watchdog->rundir = rundir;
    watchdog->ended_fd = eventfd(0, EFD_CLOEXEC);
    failed = watchdog->ended_fd < 0 ? errno : pthread_create(&watchdog->thread, NULL, watchdog_run, watchdog);
    if (failed) {
        if (watchdog->ended_fd >= 0) {
            close(watchdog->ended_fd);
        }
        free(watchdog);
        return tqi_error_errno(err, failed, "watching the parent");
    }
    *out = watchdog;
    return TQ_OK;
}

void tqd_watchdog_stop(tqd_watchdog *watchdog)
{
    uint64_t one = 1;

    if (watchdog == NULL) {
        return;
    }
    /* A counter below its limit: the write cannot fail. */
    if (write(watchdog->ended_fd, &one, sizeof(one)) == (ssize_t)sizeof(one)) {
        pthread_join(watchdog->thread, NULL);
    }
    close(watchdog->ended_fd);
    free(watchdog);
}
