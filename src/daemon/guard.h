/*
 * guard.h - the last resort of a daemon that runs other people's code: when its owner is gone and the loop is stuck in that
 * code, a separate thread removes what the daemon created and kills the process.
 */
#ifndef TQD_GUARD_H
#define TQD_GUARD_H

#include "daemon/owner.h"
#include "daemon/rundir.h"

typedef struct tqd_guard tqd_guard;

/* Watches the owner (which must outlive the guard); `rundir` is what is removed. */
int tqd_guard_start(const tqd_owner *owner, tqd_rundir *rundir, tqd_guard **out, tq_error *err);
/* The loop has ended.  NULL is allowed. */
void tqd_guard_stop(tqd_guard *guard);

#endif
