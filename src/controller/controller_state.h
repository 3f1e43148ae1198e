/*
 * controller_state.h - the state of the controller.
 *
 * Everything runs on the loop thread. Order of work for every request: a handler changes the table, writes events, and
 * answers last; then tqi_ctl_wake gathers the waits that the change satisfied and answers them afterwards, so that no
 * answer is sent while lists are being walked.
 */
#ifndef TQI_CONTROLLER_CONTROLLER_STATE_H
#define TQI_CONTROLLER_CONTROLLER_STATE_H

#include "base/buf.h"
#include "base/pointer.h"
#include "controller/controller.h"
#include "controller/events.h"
#include "controller/meter.h"
#include "controller/owners.h"
#include "controller/two_phase_clear.h"
#include "controller/wake.h"
#include "table/table.h"

/* Most samples that one request may make. */
#define TQI_CTL_SAMPLES_MAX (1u << 24)
/* Bytes of the events in one answer, and of the info with which an owner registers: sized so that a list of the most
 * owners allowed fits into a frame. */
#define TQI_CTL_EVENTS_PAGE    (16u << 20)
#define TQI_CTL_OWNER_INFO_MAX 4096u
/* Most sample indexes in one event or in one partition's status. */
#define TQI_CTL_LOST_MAX 1000u

typedef struct tqi_ctl_snapshot tqi_ctl_snapshot;
typedef struct tqi_ctl_restore tqi_ctl_restore;

struct tqi_controller {
    uv_loop_t *loop;
    tqi_net_server *server;
    tqi_table *table;
    tqi_ctl_meter *meter; /* NULL: metrics are off */
    char *sampler;
    char *manager; /* these three: for clients, never interpreted */
    char *manager_config;
    char *config;
    bool polling;
    bool closing;
    bool data_stays;                   /* a checkpoint refers to data that was not copied */
    void (*wake)(tqi_controller *ctl); /* tqi_ctl_wake, for what lies below it */
    unsigned held;                     /* not 0: a handler or a wake is running, and wakes when it is done */
    uint64_t owner_timeout_ms;
    uint64_t write_deadline_ms;
    uint64_t started; /* monotonic ns */
    uint64_t last_session;
    uint32_t waiting; /* claims */
    uint64_t last_wait;
    uint64_t keeps;          /* picks so far by samplers that keep their own answers */
    tqi_net_waiters waiters; /* requests that wait, and other deadlines */
    tqi_ctl_owner *owners;   /* by name */
    tqi_ctl_list list;       /* of these */
    tqi_ctl_owner_wait *owner_waits;
    struct { /* see drain.c */
        bool begun, over;
        void (*drained)(uint64_t left, void *arg);
        void *arg;
        uint64_t blocks; /* there were when it began */
        tqi_net_timed end;
    } drain;
    tqi_ctl_left *left; /* of each manager one, the newest first */
    tqi_ctl_events events;
    tqi_ctl_snapshot *snapshots; /* open ones */
    tqi_ctl_restore *restores;   /* in the making */
    tqi_ctl_clearing *clearings; /* that have begun */
    uint64_t last_clearing;
    /* most bytes in one description of what a publish replaces, unless it is of a single sample */
    size_t replaced_max;
    uint64_t last_snapshot; /* number of a snapshot or restore */
    tqi_buf endpoint;
    void (*closed)(void *arg);
    void *closed_arg;
};

static inline tqi_controller *tqi_ctl_of(tqi_net_waiters *waiters)
{
    return TQI_CONTAINER(waiters, tqi_controller, waiters);
}

/* "63 s" */
const char *tqi_ctl_uptime(const tqi_controller *ctl, char out[32]);

/* --- drain.c -------------------------------------------------------------- */

/* Whether the system is ending, so that this kind of request is not served. */
int tqi_ctl_drain_refuse(const tqi_controller *ctl, uint16_t kind, tq_error *err);
/* Something was removed, or a session has left. */
void tqi_ctl_drain_look(tqi_controller *ctl);

#endif
