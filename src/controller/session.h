/*
 * session.h - what the controller knows of a session.
 */
#ifndef TQI_CONTROLLER_SESSION_H
#define TQI_CONTROLLER_SESSION_H

#include <stdint.h>

#include "net/net.h"

/* A waiting claim as an element of its session's list; embedded in the claim's wait. */
typedef struct tqi_ctl_waiting_claim {
    uint64_t number; /* ascending */
    uint64_t since;  /* monotonic ns */
    struct tqi_ctl_waiting_claim *prev, *next;
} tqi_ctl_waiting_claim;

typedef struct tqi_ctl_session {
    uint64_t number; /* for the table */
    tqi_net_session *net;
    tqi_ctl_waiting_claim *waiters; /* in order of arrival */
    uint64_t last_wait;             /* it has had notices of those up to this number */
    struct tqi_ctl_server *serves;
} tqi_ctl_session;

#endif
