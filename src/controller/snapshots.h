/*
 * snapshots.h - snapshots that are being read, and restores that are being prepared, by their sessions.
 */
#ifndef TQI_CONTROLLER_SNAPSHOTS_H
#define TQI_CONTROLLER_SNAPSHOTS_H

#include "controller/controller.h"
#include "controller/session.h"

/* How many of the allowed snapshots or restores one session may have: a quarter, but at least one. */
static inline uint64_t tqi_ctl_share(uint64_t limit)
{
    return limit < 8 ? 1 : limit / 4;
}

/* snapshot.c: the session ended: closes what it had open. */
void tqi_ctl_snapshots_leave(tqi_controller *ctl, const tqi_ctl_session *session);
void tqi_ctl_snapshots_free(tqi_controller *ctl);
/* restore.c: the session ended: drops its restores. */
void tqi_ctl_restores_leave(tqi_controller *ctl, const tqi_ctl_session *session);
void tqi_ctl_restores_free(tqi_controller *ctl);

#endif
