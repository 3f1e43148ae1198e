/*
 * parent.h - the process that a daemon ends with.
 *
 * A pidfd reports its exit. If the system refuses pidfds, the process is polled; its number alone is not enough,
 * because another process may have it by then, so its start time is kept as well.
 */
#ifndef TQI_DAEMON_PARENT_H
#define TQI_DAEMON_PARENT_H

#include <stdbool.h>
#include <sys/types.h>
#include <tq/errors.h>

/* How often it is polled without a pidfd. */
#define TQD_PARENT_CHECK_MS 250

typedef struct tqd_parent {
    pid_t pid;
    int fd;                   /* its pidfd; -1 without one */
    unsigned long long start; /* when it started, in the kernel's ticks; 0: unknown */
} tqd_parent;

/* Finds the process; an error if it does not exist. */
int tqd_parent_init(tqd_parent *parent, pid_t pid, tq_error *err);
void tqd_parent_fini(tqd_parent *parent);
/* Whether it has ended; for a parent without a pidfd. */
bool tqd_parent_ended(const tqd_parent *parent);

#endif
