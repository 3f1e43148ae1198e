/*
 * internal.h - shared by the files of the controller: its state, waits, handlers, events and owners.
 *
 * Everything runs on the loop thread. Order of work for every request: a handler changes the table, writes events, and
 * answers last; then tqi_ctl_wake gathers the waits that the change satisfied and answers them afterwards, so that no
 * answer is sent while lists are being walked.
 */
#ifndef TQI_CONTROLLER_INTERNAL_H
#define TQI_CONTROLLER_INTERNAL_H

#include <utlist.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/heap.h"
#include "base/limits.h"
#include "base/log.h"
#include "controller/controller.h"
#include "controller/convert.h"
#include "controller/meter.h"
#include "sampler/sampler.h"
#include "table/table.h"

/* Most samples that one request may make. */
#define TQI_CTL_SAMPLES_MAX (1u << 24)
/* Bytes of the events in one answer, and of the info with which an owner registers: sized so that a list of the most
 * owners allowed fits into a frame. */
#define TQI_CTL_EVENTS_PAGE    (16u << 20)
#define TQI_CTL_OWNER_INFO_MAX 4096u
/* Most sample indexes in one event or in one partition's status. */
#define TQI_CTL_LOST_MAX 1000u

/* How many of the allowed snapshots or restores one session may have: a quarter, but at least one. */
static inline uint64_t tqi_ctl_share(uint64_t limit)
{
    return limit < 8 ? 1 : limit / 4;
}

/* --- deadlines ------------------------------------------------------------ */

/* A point in time (monotonic ns) at which something is due; in a heap, served by one timer. */
typedef struct tqi_ctl_timed tqi_ctl_timed;
struct tqi_ctl_timed {
    void (*due)(tqi_ctl_timed *timed);
    tqi_controller *ctl;
    tqi_heap_node node;
};

void tqi_ctl_timed_add(tqi_controller *ctl, tqi_ctl_timed *timed, uint64_t deadline);
void tqi_ctl_timed_remove(tqi_ctl_timed *timed);
/* Now plus milliseconds, saturating. */
uint64_t tqi_ctl_after_ms(uint64_t ms);

/* --- waits ---------------------------------------------------------------- */

typedef struct tqi_ctl_wait tqi_ctl_wait;

/* What a kind of wait does. Each wait ends once: leave, then answer or fail, then free. */
typedef struct tqi_ctl_wait_type {
    /* Takes it out of the lists of its kind. */
    void (*leave)(tqi_ctl_wait *wait);
    /* It was marked ready: sends the reply. */
    void (*answer)(tqi_ctl_wait *wait);
    /* Its deadline passed: answers with that. */
    void (*describe)(const tqi_ctl_wait *wait, tq_error *err);
    /* Frees it and what it owns. NULL: free(). */
    void (*dispose)(tqi_ctl_wait *wait);
} tqi_ctl_wait_type;

/* A waiting request; the first member of each kind's own struct, which is malloc'ed. */
struct tqi_ctl_wait {
    const tqi_ctl_wait_type *type;
    tqi_controller *ctl;
    tqi_net_request *request;
    tqi_ctl_meter_op *op; /* where its failure is counted; NULL: nowhere */
    tqi_ctl_timed timed;
    bool ready;                /* in ctl->ready */
    tq_error *failure;         /* ready with an error; owned */
    tqi_ctl_wait *prev, *next; /* of ctl->ready */
};

/* Parks a request; timeout_ms 0: for ever. From here on its client can cancel it. */
void tqi_ctl_wait_park(tqi_controller *ctl, tqi_ctl_wait *wait, const tqi_ctl_wait_type *type, tqi_net_request *request,
                       uint64_t timeout_ms);
/* Marks it to be answered by the running or next tqi_ctl_wake. */
void tqi_ctl_wait_ready(tqi_ctl_wait *wait);
/* Ends it now with an error. */
void tqi_ctl_wait_fail(tqi_ctl_wait *wait, const tq_error *err);
/* After any change: gathers satisfied waits, then answers them. Calls from inside it are folded into the outer one. */
void tqi_ctl_wake(tqi_controller *ctl);

/* --- sessions, owners ----------------------------------------------------- */

/* A waiting claim as an element of its session's list; embedded in the claim's wait. */
typedef struct tqi_ctl_parked {
    uint64_t number; /* ascending */
    uint64_t since;  /* monotonic ns */
    struct tqi_ctl_parked *prev, *next;
} tqi_ctl_parked;

typedef struct tqi_ctl_session {
    uint64_t number; /* for the table */
    tqi_net_session *net;
    tqi_ctl_parked *parked; /* in order of arrival */
    uint64_t last_wait;     /* it has had notices of those up to this number */
    struct tqi_ctl_server *serves;
} tqi_ctl_session;

/* snapshot.c: the session ended: closes what it had open. */
void tqi_ctl_snapshots_leave(tqi_controller *ctl, const tqi_ctl_session *session);
void tqi_ctl_snapshots_free(tqi_controller *ctl);
/* restore.c: the session ended: drops its restores. */
void tqi_ctl_restores_leave(tqi_controller *ctl, const tqi_ctl_session *session);
void tqi_ctl_restores_free(tqi_controller *ctl);

/* two_phase_clear.c: the session ended: what it leaves behind is for others. */
typedef struct tqi_ctl_clearing tqi_ctl_clearing;
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
/* write.c: whether what a clear names makes sense. */
int tqi_ctl_check_clear(const Tq__Clear *msg, tq_error *err);

/* A session that serves an owner: in a list of both. */
typedef struct tqi_ctl_server {
    tqi_ctl_session *session;
    struct tqi_ctl_owner *owner;
    struct tqi_ctl_server *prev, *next;     /* of the owner */
    struct tqi_ctl_server *before, *behind; /* of the session */
} tqi_ctl_server;

typedef struct tqi_ctl_metrics_set tqi_ctl_metrics_set;

typedef struct tqi_ctl_owner {
    char *name;
    tqi_table_owner *table_owner;
    char *manager;
    uint8_t *info;
    size_t info_size;
    bool shared;
    bool mortal; /* its data is lost with its session, or with its process */
    bool keyed;  /* it gave a key */
    uint8_t key[TQI_NET_GRANT_KEY];
    uint64_t *doubted; /* blocks that a reader reported as gone, for the next notice */
    size_t n_doubted, doubted_capacity;
    tqi_ctl_server *servers; /* present if there is one; more than one only if shared */
    /* the session that gets the dead notices: one of servers, or NULL */
    tqi_ctl_session *collector;
    tqi_ctl_metrics_set *collects; /* waiting, in order of arrival */
    tqi_ctl_timed gone;            /* runs while nobody serves it */
    tqi_ctl_timed late;            /* runs while some of its blocks are late */
    char **counters;               /* names as reported last */
    uint64_t *values;
    size_t n_counters;
    Tq__ReportOwner *told;   /* waits and pins as last reported; NULL: none */
    uint64_t told_at;        /* monotonic ns */
    uint64_t passed_on;      /* one bit per reported wait: its client has had the notice */
    uint64_t capacity, used; /* as reported last; 0: not yet */
    uint64_t told_used;      /* when that was a change of the list */
    /* version of the list at its last change; 0: not in the list of changes */
    uint64_t changed;
    /* version at which it was registered anew, or with a different info */
    uint64_t info_changed;
    struct tqi_ctl_owner *older, *newer; /* of the row of changes */
    UT_hash_handle hh;
} tqi_ctl_owner;

/* The list of owners as clients follow it: see owner_list.c. */
typedef struct tqi_ctl_gone tqi_ctl_gone;
typedef struct tqi_ctl_list {
    uint64_t version;
    uint64_t forgot;    /* losses up to this version may be unknown */
    uint64_t gathered;  /* version for which waits were checked */
    tqi_ctl_owner *row; /* by their last change, the oldest first */
    tqi_ctl_gone *gone; /* lost ones, the oldest first */
    size_t n_gone;
} tqi_ctl_list;

/* The owner is new, arrives or has gone; with `info`, it has registered as a different one, or with a different info. */
void tqi_ctl_list_changed(tqi_controller *ctl, tqi_ctl_owner *owner, bool info);
/* It is lost. */
void tqi_ctl_list_lost(tqi_controller *ctl, tqi_ctl_owner *owner);
/* It has reported its bytes. */
void tqi_ctl_list_filled(tqi_controller *ctl, tqi_ctl_owner *owner, uint64_t capacity, uint64_t used);
/* Drops the names of lost owners; the owners have been freed before. */
void tqi_ctl_list_fini(tqi_controller *ctl);

/* NULL if there is none. */
tqi_ctl_owner *tqi_ctl_owner_find(tqi_controller *ctl, const char *name);
bool tqi_ctl_owner_serves(const tqi_ctl_owner *owner, const tqi_ctl_session *session);
/* The session ended: its owners lose a server. gone: it was closed, or its process is dead. */
void tqi_ctl_owners_leave(tqi_controller *ctl, tqi_ctl_session *session, bool gone);
void tqi_ctl_owners_free(tqi_controller *ctl);
/* Marks the waits for an owner ready. */
void tqi_ctl_owners_gather(tqi_controller *ctl);
/* OwnerInfo of all owners of a manager type ("": of all types). */
int tqi_ctl_owners_describe(tqi_controller *ctl, tqi_ctl_conv *conv, const char *manager, Tq__OwnerInfo ***out,
                            size_t *n, tq_error *err);
/* Where data was lost. */
typedef struct tqi_ctl_loser {
    tqi_controller *ctl;
    const char *name; /* of the session, or of an owner that went away */
} tqi_ctl_loser;
/* tqi_table_lost_fn with a tqi_ctl_loser: writes the event. */
void tqi_ctl_lost(const char *partition, const uint32_t *indexes, size_t n, void *loser);

/* late.c: the owner's blocks up to that notice were freed. */
void tqi_ctl_late_done(tqi_controller *ctl, tqi_ctl_owner *owner, uint64_t notice);
/* Late blocks of an owner are due: `due` of its `late`. */
void tqi_ctl_late_due(tqi_ctl_timed *timed);
/* The system ends: all late blocks are due. */
void tqi_ctl_late_end(tqi_controller *ctl);
/* There are new dead blocks, or the collector changed: marks the collector's wait ready. */
void tqi_ctl_metrics_gather(tqi_ctl_owner *owner);
/* The session (NULL: any) no longer serves the owner: fails its waiting collects. */
void tqi_ctl_metrics_drop(tqi_ctl_owner *owner, const tqi_ctl_session *session);

/* --- claims --------------------------------------------------------------- */

/* The view's ready set has grown: serves its waiters, oldest first. */
void tqi_ctl_claims_gather(tqi_table_view *view);
/* The partition was restored: the waiters of a view move to the new one. */
void tqi_ctl_claims_move(tqi_table_view *from, tqi_table_view *to, void *unused);

/* Describes a waiting claim, except its client. */
int tqi_ctl_claim_info(const tqi_ctl_parked *parked, tqi_ctl_conv *conv, Tq__WaitInfo *out, tq_error *err);
/* shortage.c: writes into `out` why the claim waits, in words. Returns whether it probably waits in vain. */
bool tqi_ctl_shortage(const tqi_table_view *view, const tq_sampler *sampler, const tq_pick_request *pick, char *out,
                      size_t size);
#define TQI_CTL_SHORTAGE 300u /* its size in bytes, so that an error has room for the rest */
/* "63 s" */
const char *tqi_ctl_uptime(const tqi_controller *ctl, char out[32]);

/* waiting.c: what is waiting, at most 1000 entries. */
int tqi_ctl_waiting(tqi_controller *ctl, tqi_ctl_conv *conv, Tq__WaitInfo ***out, size_t *n, tq_error *err);
/* Answers a session that asks what it is waiting for, with what it was not told before. */
int tqi_ctl_waiting_mine(tqi_controller *ctl, tqi_net_request *request, const Tq__SystemStatus *msg, tq_error *err);

/* --- events --------------------------------------------------------------- */

typedef struct tqi_ctl_event tqi_ctl_event;
typedef struct tqi_ctl_event_wait tqi_ctl_event_wait;
typedef struct tqi_ctl_events {
    tqi_ctl_event **slots; /* event number s is at s % capacity; NULL: no longer kept */
    uint32_t capacity;
    uint64_t bytes; /* of these */
    uint64_t first; /* all before it are gone; 1 at the start */
    uint64_t last;  /* number of the newest, 0 = none yet */
    tqi_ctl_event_wait *waits;
} tqi_ctl_events;

/* What happened; strings may be NULL. */
struct tqi_ctl_happened {
    const char *kind;
    const char *session;
    const char *partition;
    const char *task;
    uint32_t samples;
    uint64_t bytes;
    const uint32_t *indexes;
    size_t n_indexes;
};

int tqi_ctl_events_init(tqi_ctl_events *events, uint32_t capacity, tq_error *err);
void tqi_ctl_events_fini(tqi_ctl_events *events);
/* Adds an event; if there is no memory for it, it is missing from the ring and that is logged. */
void tqi_ctl_event_add(tqi_controller *ctl, const tqi_ctl_happened *what);
/* Marks the waits for events ready. */
void tqi_ctl_events_gather(tqi_controller *ctl);

/* --- the controller ------------------------------------------------------- */

/* A put that waits for storage to join. */
typedef struct tqi_ctl_owner_wait {
    tqi_ctl_wait base; /* first: waits are known by it */
    const Tq__ListOwners *msg;
    uint64_t number; /* of those in the status */
    uint64_t since;
    bool passed_on; /* its client has had the notice */
    struct tqi_ctl_owner_wait *prev, *next;
} tqi_ctl_owner_wait;

/* Which storage is missing, and since when, in words. */
void tqi_ctl_owners_missing(const tqi_ctl_owner_wait *wait, char *out, size_t size);

/* The last storage of a manager that existed and no longer does. */
typedef struct tqi_ctl_left {
    char *manager;
    char *name;
    int64_t us; /* Unix time */
    struct tqi_ctl_left *prev, *next;
} tqi_ctl_left;
/* The last storage of that manager ("": of any) to leave; NULL: none is remembered. */
tqi_ctl_left *tqi_ctl_left_find(const tqi_controller *ctl, const char *manager);

typedef struct tqi_ctl_snapshot tqi_ctl_snapshot;
typedef struct tqi_ctl_restore tqi_ctl_restore;

struct tqi_controller {
    uv_loop_t *loop;
    uv_timer_t timer; /* of `timed` */
    tqi_net_server *server;
    tqi_table *table;
    tqi_ctl_meter *meter; /* NULL: metrics are off */
    char *sampler;
    char *manager; /* these three: for clients, never interpreted */
    char *manager_config;
    char *config;
    bool polling;
    bool closing;
    bool data_stays; /* a checkpoint refers to data that was not copied */
    unsigned held;   /* not 0: a handler or a wake is running, and wakes when it is done */
    uint64_t owner_timeout_ms;
    uint64_t write_deadline_ms;
    uint64_t started; /* monotonic ns */
    uint64_t last_session;
    uint32_t waiting; /* claims */
    uint64_t last_wait;
    uint64_t keeps; /* picks so far by samplers that keep their own answers */
    tqi_heap timed; /* tqi_ctl_timed */
    tqi_ctl_wait *ready;
    tqi_ctl_owner *owners; /* by name */
    tqi_ctl_list list;     /* of these */
    tqi_ctl_owner_wait *owner_waits;
    struct { /* see drain.c */
        bool begun, over;
        void (*drained)(uint64_t left, void *arg);
        void *arg;
        uint64_t blocks; /* there were when it began */
        tqi_ctl_timed end;
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

/* Whether the system is ending, so that this kind of request is not served. */
int tqi_ctl_drain_refuse(const tqi_controller *ctl, uint16_t kind, tq_error *err);
/* Something was removed, or a session has left. */
void tqi_ctl_drain_look(tqi_controller *ctl);

/* Handlers: TQ_OK if the request was answered or parked, else the error with which it fails. */
#define TQI_CTL_HANDLER(number, NAME, method, Message, reply, Reply, mode) \
    int tqi_ctl_on_##method(tqi_controller *ctl, tqi_net_request *request, const Tq__##Message *msg, tq_error *err);
TQI_CONTROLLER_METHODS(TQI_CTL_HANDLER)
#undef TQI_CTL_HANDLER

/* The request's session; NULL if it has ended. */
tqi_ctl_session *tqi_ctl_session_of(const tqi_net_request *request);
/* Its number for the table; 0 if it has ended. */
uint64_t tqi_ctl_session_number(const tqi_net_request *request);
/* Name of the request's session, "" if it has ended. */
const char *tqi_ctl_session_name(const tqi_net_request *request);
/* Sends a reply without payload. */
/* Like tqi_net_request_reply, without a payload. */
bool tqi_ctl_reply(tqi_net_request *request, const ProtobufCMessage *reply);
/* TQ_EINVAL if the reply to `what` of n samples would exceed a frame: must be called before changing anything that the
 * reply reports. */
int tqi_ctl_check_reply(const ProtobufCMessage *reply, const char *what, size_t n, tq_error *err);
/* The same, and allocates the memory it is sent from: after that, a reply no larger than this is certain to be sent. */
int tqi_ctl_prepare_reply(tqi_net_request *request, const ProtobufCMessage *reply, const char *what, size_t n,
                          tq_error *err);
/* Answers with an Empty. */
void tqi_ctl_reply_empty(tqi_net_request *request);
/* TQ_ESTALE if `epoch` is set and not this controller's. */
int tqi_ctl_check_epoch(tqi_controller *ctl, uint64_t epoch, const char *what, tq_error *err);

#endif
