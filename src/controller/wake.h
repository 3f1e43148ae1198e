/*
 * wake.h - what every change of the table ends with; and what the waiting requests (net/waiters.h) have of the
 * controller.
 */
#ifndef TQI_CONTROLLER_WAKE_H
#define TQI_CONTROLLER_WAKE_H

#include "net/waiters.h"

#include "controller/controller.h"

/* After any change: gathers satisfied waiters, then answers them. Calls from inside it are folded into the outer
 * one. What lies below wake.c calls it as ctl->wake. */
void tqi_ctl_wake(tqi_controller *ctl);

#endif
