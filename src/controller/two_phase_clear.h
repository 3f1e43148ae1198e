/*
 * two_phase_clear.h - clears in two phases: the samples go at once, their indexes once the data has been removed.
 */
#ifndef TQI_CONTROLLER_TWO_PHASE_CLEAR_H
#define TQI_CONTROLLER_TWO_PHASE_CLEAR_H

#include "controller/controller.h"
#include "controller/session.h"
#include "wire/methods.h"

typedef struct tqi_ctl_clearing tqi_ctl_clearing;

/* The session ended: what it leaves behind is for others. */
void tqi_ctl_clearings_leave(tqi_controller *ctl, const tqi_ctl_session *session);
void tqi_ctl_clearings_free(tqi_controller *ctl);
/* Describes the data that a publish with a remover will replace, to be removed afterwards, and puts it into the reply;
 * *out NULL: none. If it does not fit into the reply, the reply has the first piece; the others go to the next session
 * that asks. */
int tqi_ctl_clearing_replaced(tqi_controller *ctl, const Tq__Publish *msg, tqi_ctl_clearing **out,
                              Tq__Clearing *message, tq_error *err);
/* The publish was refused. NULL is allowed. */
void tqi_ctl_clearing_drop(tqi_ctl_clearing *clearing);
/* The publish was done: the session has begun a clear with this number. */
uint64_t tqi_ctl_clearing_begun(tqi_controller *ctl, tqi_net_request *request, tqi_ctl_clearing *clearing);
/* Whether what a clear names makes sense. */
int tqi_ctl_check_clear(const Tq__Clear *msg, tq_error *err);

#endif
