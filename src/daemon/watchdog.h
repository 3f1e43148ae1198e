/*
 * watchdog.h - the last resort of a daemon that runs other people's code: when its parent is gone and the loop is stuck
 * in that code, a separate thread removes what the daemon created and kills the process.
 */
#ifndef TQI_DAEMON_WATCHDOG_H
#define TQI_DAEMON_WATCHDOG_H

#include "daemon/parent.h"
#include "daemon/rundir.h"

typedef struct tqd_watchdog tqd_watchdog;

/* Watches the parent (which must outlive the watchdog); `rundir` is what is removed. */
int tqd_watchdog_start(const tqd_parent *parent, tqd_rundir *rundir, tqd_watchdog **out, tq_error *err);
/* The loop has ended. NULL is allowed. */
void tqd_watchdog_stop(tqd_watchdog *watchdog);

#endif
