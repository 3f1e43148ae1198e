/*
 * unit_state.h - the state of a storage unit. Its parts:
 *
 *   unit.c      life cycle of a unit
 *   memory.c    its stores; warming, trimming
 *   report.c    counters, reported to the controller
 *   join.c      the channel to the controller: register, collect dead blocks; a new store for a new controller
 *   serve.c     requests of readers and writers
 *   wait.c      reserves that wait for room
 *   room.c      why there is none, in words
 *   compact.c   compaction: moves the live bytes of sparse blocks; compact_queue.c has these blocks
 *   pins.c      blocks that readers read in place
 *   writers.c   writers that may still be writing into a block whose end was announced
 *   tombs.c     ids that ended before their reserve arrived
 *   sift.c      blocks that no table knows, of writers that are gone
 *
 * Everything runs on the unit's loop thread, except tqi_store_warm, which is meant for a helper thread.
 */
#ifndef TQI_UNIT_UNIT_STATE_H
#define TQI_UNIT_UNIT_STATE_H

#include "metrics/metrics.h"
#include "net/net.h"
#include "store/store.h"
#include "unit/compact.h"
#include "unit/memory.h"
#include "unit/report.h"
#include "unit/sift.h"
#include "unit/tombs.h"
#include "unit/unit.h"
#include "unit/wait.h"
#include "unit/writers.h"

struct tqi_unit {
    uv_loop_t *loop;
    char *name;
    char *endpoint; /* list, for people and peers */
    /* As registered: endpoint list, 0, machine, 0, "SERVER DEVICE INODE" in hex, 0, node (may be empty). */
    char *info;
    size_t info_size;
    tqi_store_options store_options;
    tqi_unit_store *held; /* the store of now */
    tqi_store *store;     /* held->store */
    uint64_t incarnation;
    /* for grants of ids; drawn once, revealed only to the controller */
    uint8_t key[TQI_NET_GRANT_KEY];
    tqi_unit_tombs tombs;

    tqi_net_server *server;
    uint64_t next_writer;
    tqi_unit_writer *writers; /* by number */
    /* the writers among them whose session was lost while their process lives */
    tqi_unit_writer *left;
    tqi_unit_waits waits;
    tqi_unit_compact compact;
    tqi_unit_sift sift;
    uint64_t pins, pinned_bytes; /* of all writers */
    uint64_t unpins;             /* blocks that are no longer pinned but still exist */

    /* controller */
    tqi_net_connector *connector;
    tqi_net_channel *controller;
    tqi_net_call *registering;
    uint64_t registering_as;      /* incarnation in that call */
    bool registering_with_blocks; /* there were some when it was made */
    /* incarnation that the controller knows; 0 before it knows one */
    uint64_t registered_as;
    bool registered;
    /* the controller does not know what is stored, but there was no memory yet to start anew */
    bool outdated;
    uint64_t epoch; /* 0 before the first connection */
    tqi_net_call *collecting;
    uint64_t notice;  /* freed up to here */
    uint64_t named;   /* sparse blocks that were confirmed */
    uv_timer_t retry; /* retry of registering or collecting after an error */
    uint64_t retry_ms;
    tqi_net_token token;
    char *token_file; /* NULL: the token stays */
    int last_error;   /* of registering: logged once */
    uint64_t said_at; /* when it was logged */

    /* counters */
    uv_timer_t report;
    uint64_t report_ms;   /* between two */
    uint64_t reported_at; /* the last one */
    tqi_net_call *reporting;
    bool dirty;
    tqi_histogram ops[TQI_UNIT_OPS];

    /* memory */
    uv_work_t warm;
    tqi_unit_store *warming; /* while the work is in the pool */
    uint64_t warm_left;
    uv_timer_t trim;
    uint64_t keep_ms;
    uint64_t peak, peak_before; /* peak bytes in use, in this interval and in the previous one */
    uint64_t peak_since;        /* when this span began */

    void (*ready)(void *arg);
    void *ready_arg;
    void (*refused)(const tq_error *err, void *arg);
    void *refused_arg;

    /* closing */
    bool closing;
    unsigned open;               /* things still to close: server, connector, handles, warming */
    void (*end)(tqi_unit *unit); /* called when none is left */
    void (*closed)(void *arg);
    void *closed_arg;
};

/* Whether anybody waits for room. */
static inline bool tqi_unit_waited_for(const tqi_unit *unit)
{
    return unit->waits.row[0] != NULL || unit->waits.row[1] != NULL;
}

/* One of the things that closing waits for is done. */
static inline void tqi_unit_close_step(tqi_unit *unit)
{
    if (--unit->open == 0 && unit->closing) {
        unit->end(unit);
    }
}

/* --- join.c, serve.c ------------------------------------------------------ */

int tqi_unit_join(tqi_unit *unit, const tqi_unit_options *options, tq_error *err);
extern const tqi_net_service tqi_unit_service;

#endif
