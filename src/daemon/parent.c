/*
 * parent.c - see parent.h.
 */
#include "daemon/parent.h"

#include "base/error.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* State and start time of a process from /proc; false if it is not there. */
static bool parent_stat(pid_t pid, char *state, unsigned long long *start)
{
    char path[64], text[1024];

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);
    if (fd >= 0) {
        close(fd);
    }
    if (size <= 0) {
        return false;
    }
    text[size] = 0;
    /* The name, in parentheses, may contain anything; after it, the state is the third field and the start time the
     * 22nd. */
    const char *at = strrchr(text, ')');
    for (int field = 2; at != NULL && field < 22; field++) {
        at = strchr(at + 1, ' ');
        if (at != NULL && field == 2) {
            *state = at[1];
        }
    }
    *start = at != NULL ? strtoull(at + 1, NULL, 10) : 0;
    return *start != 0;
}

bool tqd_parent_ended(const tqd_parent *parent)
{
    unsigned long long start = 0;
    char state = 0;

    if (kill(parent->pid, 0) != 0 && errno != EPERM) {
        return true;
    }
    if (!parent_stat(parent->pid, &state, &start)) {
        return parent->start != 0; /* it existed before, so it is gone; without /proc, its number has to do */
    }
    return state == 'Z' || state == 'X' || (parent->start != 0 && start != parent->start);
}

int tqd_parent_init(tqd_parent *parent, pid_t pid, tq_error *err)
{
    char state = 0;

    *parent = (tqd_parent){.pid = pid, .fd = (int)syscall(SYS_pidfd_open, pid, 0)};
    if (parent->fd >= 0) {
        return TQ_OK;
    }
    int refused = errno;
    bool there = kill(pid, 0) == 0 || errno == EPERM;
    if (!there || (refused != ENOSYS && refused != EPERM && refused != EACCES)) {
        return tqi_error_set(err, TQ_EIO, "cannot watch parent process %d: %s", (int)pid,
                             strerror(there ? refused : ESRCH));
    }
    if (!parent_stat(pid, &state, &parent->start)) {
        parent->start = 0;
    }
    tqi_log(TQI_INFO, "tqd", "no pidfd (%s): parent process %d is looked at every %d ms", strerror(refused), (int)pid,
            TQD_PARENT_CHECK_MS);
    return TQ_OK;
}

void tqd_parent_fini(tqd_parent *parent)
{
    if (parent->fd >= 0) {
        close(parent->fd);
    }
    parent->fd = -1;
}
