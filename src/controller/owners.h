/*
 * owners.h - owners of blocks, the sessions that serve them, and what waits for them.
 */
#ifndef TQI_CONTROLLER_OWNERS_H
#define TQI_CONTROLLER_OWNERS_H

#include "base/hash.h"
#include "controller/controller.h"
#include "controller/convert.h"
#include "controller/session.h"
#include "controller/wake.h"
#include "table/table.h"
#include "wire/methods.h"

/* A session that serves an owner: in a list of both. */
typedef struct tqi_ctl_server {
    tqi_ctl_session *session;
    struct tqi_ctl_owner *owner;
    struct tqi_ctl_server *prev, *next;     /* of the owner */
    struct tqi_ctl_server *before, *behind; /* of the session */
} tqi_ctl_server;

typedef struct tqi_ctl_collect tqi_ctl_collect;

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
    tqi_ctl_collect *collects; /* waiting, in order of arrival */
    tqi_net_timed gone;        /* runs while nobody serves it */
    tqi_net_timed late;        /* runs while some of its blocks are late */
    char **counters;           /* names as reported last */
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

/* --- owners.c ------------------------------------------------------------- */

/* NULL if there is none. */
tqi_ctl_owner *tqi_ctl_owner_find(tqi_controller *ctl, const char *name);
bool tqi_ctl_owner_serves(const tqi_ctl_owner *owner, const tqi_ctl_session *session);
/* The session ended: its owners lose a server. gone: it was closed, or its process is dead. */
void tqi_ctl_owners_leave(tqi_controller *ctl, tqi_ctl_session *session, bool gone);
void tqi_ctl_owners_free(tqi_controller *ctl);

/* The last storage of a manager that existed and no longer does. */
typedef struct tqi_ctl_left {
    char *manager;
    char *name;
    int64_t us; /* Unix time */
    struct tqi_ctl_left *prev, *next;
} tqi_ctl_left;
/* The last storage of that manager ("": of any) to leave; NULL: none is remembered. */
tqi_ctl_left *tqi_ctl_left_find(const tqi_controller *ctl, const char *manager);

/* --- blocks.c ------------------------------------------------------------- */

/* There are new dead blocks, or the collector changed: marks the collector's wait ready. */
void tqi_ctl_collects_gather(tqi_ctl_owner *owner);
/* The session (NULL: any) no longer serves the owner: fails its waiting collects. */
void tqi_ctl_collects_drop(tqi_ctl_owner *owner, const tqi_ctl_session *session);
/* Where data was lost. */
typedef struct tqi_ctl_loser {
    tqi_controller *ctl;
    const char *name; /* of the session, or of an owner that went away */
} tqi_ctl_loser;
/* tqi_table_lost_fn with a tqi_ctl_loser: writes the event. */
void tqi_ctl_lost(const char *partition, const uint32_t *indexes, size_t n, void *loser);

/* --- late.c --------------------------------------------------------------- */

/* The owner's blocks up to that notice were freed. */
void tqi_ctl_late_done(tqi_controller *ctl, tqi_ctl_owner *owner, uint64_t notice);
/* Late blocks of an owner are due: `due` of its `late`. */
void tqi_ctl_late_due(tqi_net_timed *timed);
/* The system ends: all late blocks are due. */
void tqi_ctl_late_end(tqi_controller *ctl);

/* --- owner_list.c --------------------------------------------------------- */

/* An owner that was lost. */
typedef struct tqi_ctl_gone {
    char *name;
    uint64_t version; /* of the list, from then on */
    struct tqi_ctl_gone *prev, *next;
} tqi_ctl_gone;

/* The list of owners as clients follow it: each change has a version. */
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

/* --- list_owners.c -------------------------------------------------------- */

/* Marks the waits for an owner ready. */
void tqi_ctl_owners_gather(tqi_controller *ctl);
/* OwnerInfo of all owners of a manager type ("": of all types). */
int tqi_ctl_owners_describe(tqi_controller *ctl, tqi_region *conv, const char *manager, Tq__OwnerInfo ***out, size_t *n,
                            tq_error *err);

/* A put that waits for storage to join. */
typedef struct tqi_ctl_owner_wait {
    tqi_net_waiter base; /* first: waits are known by it */
    const Tq__ListOwners *msg;
    uint64_t number; /* of those in the status */
    uint64_t since;
    bool passed_on; /* its client has had the notice */
    struct tqi_ctl_owner_wait *prev, *next;
} tqi_ctl_owner_wait;

/* Which storage is missing, and since when, in words. */
void tqi_ctl_owners_missing(const tqi_ctl_owner_wait *wait, char *out, size_t size);

#endif
