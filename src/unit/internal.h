/*
 * internal.h - the storage unit's parts: its stores, the writers it knows, waiting reserves, and its registration at
 * the controller.
 *
 *   unit.c      life cycle of a unit; its store and its renewal; warming, trimming
 *   report.c    counters, reported to the controller
 *   join.c      the channel to the controller: register, collect dead blocks
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
#ifndef TQI_UNIT_INTERNAL_H
#define TQI_UNIT_INTERNAL_H

#include <utlist.h>

#include "base/error.h"
#include "base/hash.h"
#include "base/heap.h"
#include "base/limits.h"
#include "base/log.h"
#include "metrics/metrics.h"
#include "unit/unit.h"

#include <tq/types.h>

/* --- tombs ---------------------------------------------------------------- */

#define TQI_UNIT_TOMBS_MAX 4096

/*
 * Ids that are dead but had no block here when their end was announced: a reserve for one may still be in flight, and
 * its room would never be freed. Kept as ranges; if there are too many, the lower half is replaced by a floor: ids are
 * handed out in ascending order, so a reserve at or below the floor is an old one, and its writer is told to grant new
 * ids. Bounded, and errs only on the safe side.
 */
typedef struct tqi_unit_tombs {
    struct {
        uint64_t first, last;
    } range[TQI_UNIT_TOMBS_MAX]; /* ascending, apart from each other */
    size_t n;
    bool has_floor;
    uint64_t floor;
} tqi_unit_tombs;

void tqi_unit_tombs_clear(tqi_unit_tombs *tombs);
void tqi_unit_tombs_add(tqi_unit_tombs *tombs, uint64_t first, uint64_t count);
bool tqi_unit_tombs_has(const tqi_unit_tombs *tombs, uint64_t id);

/* --- stores --------------------------------------------------------------- */

/* A store, reference-counted: held by the unit, by transfers in progress, and by warming. The store of an earlier epoch
 * lives until these are done. */
typedef struct tqi_unit_store {
    tqi_unit *unit;
    tqi_store *store;
    unsigned refs;
} tqi_unit_store;

void tqi_unit_store_unref(tqi_unit_store *held);

/* --- pins ----------------------------------------------------------------- */

/* Blocks of a store that a session reads in place: held until it ends the pin, or its process has exited. */
typedef struct tqi_unit_pinned {
    uint64_t number;
    tqi_unit_store *held;
    uint64_t bytes;
    UT_hash_handle hh;
    size_t n;
    uint64_t ids[];
} tqi_unit_pinned;

/* --- writers -------------------------------------------------------------- */

/* A grant that a writer has proven. */
typedef struct tqi_unit_granted {
    uint64_t first;
    uint32_t count; /* 0: none */
    uint8_t proof[TQI_NET_GRANT];
} tqi_unit_granted;
#define TQI_UNIT_GRANTED_MAX 4u

/*
 * A session that reserves blocks. It lives as long as its session, and longer if the session ended while its process
 * may still write through a mapping: then until the process has exited (seen through a pidfd), or until none of its
 * blocks and pins are left. Blocks name their writer by number.
 */
typedef struct tqi_unit_writer {
    uint64_t number;
    tqi_unit *unit;
    tqi_net_session *session; /* NULL: ended */
    /* the session's id, which the client's next session also has */
    uint8_t client[TQI_NET_SESSION_ID];
    /* Blocks that it reserved and that still exist. Published ones count too: the unit does not learn of a publish,
     * and an unpublished block must find its writer when its dead notice comes, however late. So a process is watched
     * until it has exited, the last of its blocks is freed, or it said that it has finished with them. */
    uint64_t reserved;
    bool mapped;           /* has (or had) the arena writable in its memory */
    tqi_unit_pinned *pins; /* by number */
    uint64_t pinned_bytes;
    size_t pinned;            /* blocks, each as often as it is pinned */
    uint64_t pid;             /* with mapped: of the process */
    tqi_net_process *process; /* with mapped */
    tqi_net_exit exit;        /* when the session has ended */
    uint64_t *deferred;       /* dead blocks it may be writing to */
    size_t n_deferred;
    size_t deferred_capacity;
    /* the grants proven last, so that a proof is computed once per grant */
    tqi_unit_granted granted[TQI_UNIT_GRANTED_MAX];
    unsigned n_granted;                  /* ever */
    bool left;                           /* its session has ended, but its process may be alive */
    struct tqi_unit_writer *prev, *next; /* of unit->left */
    UT_hash_handle hh;
} tqi_unit_writer;

int tqi_unit_writer_open(tqi_unit *unit, tqi_net_session *session);
/* Its session has ended; finished: nothing writes for it any more, because its process has exited or its Bye said so. */
void tqi_unit_writer_end(tqi_unit_writer *writer, bool finished);
/* It has finished with these of its own blocks (with `others`: with all but these): dead ones are freed now, the
 * others when they die. The same goes for its client's earlier, lost sessions. Sorts `ids`. */
void tqi_unit_writer_finish(tqi_unit_writer *writer, uint64_t *ids, size_t n, bool others);
/* The writer record of a lost session of the same client: the first one (`after` NULL), or the next; NULL: no more. */
tqi_unit_writer *tqi_unit_writer_former(const tqi_unit_writer *writer, const tqi_unit_writer *after);
/* A block or pin of a writer is gone; forgets the writer if its session has ended and nothing of it is left. */
void tqi_unit_writer_settle(tqi_unit_writer *writer);
/* Permits it to map the arena; TQ_EUNSUPPORTED without a pidfd. */
int tqi_unit_writer_map(tqi_unit_writer *writer, tq_error *err);
/* Whether the controller granted the grant to the writer's session, under this incarnation. */
bool tqi_unit_writer_granted(tqi_unit_writer *writer, const Tq__Grant *grant);
/* Makes it the writer of a block that it has just reserved. */
void tqi_unit_writer_add(tqi_unit_writer *writer, uint64_t id);
/* The writer of a block, or NULL if it no longer exists. */
tqi_unit_writer *tqi_unit_writer_of(tqi_unit *unit, uint64_t id);
/* Whether a block's writer has ended and the block has not been sifted since. */
bool tqi_unit_writer_left_behind(tqi_unit *unit, uint64_t id);
/* It was. */
void tqi_unit_writer_sifted(tqi_unit *unit, uint64_t id);
/* Frees a block at the store; idempotent. */
void tqi_unit_writer_free_block(tqi_unit *unit, uint64_t id);
/* Block `id` is dead, but its writer may still write: frees it once it cannot any more. TQ_OK or TQ_ENOMEM. */
int tqi_unit_writer_defer(tqi_unit_writer *writer, uint64_t id);
/* The store was replaced: forgets all blocks. */
void tqi_unit_writers_forget(tqi_unit *unit);
/* Ends writers whose sessions have ended, when the unit closes. */
void tqi_unit_writers_close(tqi_unit *unit);

/* Answers requests of readers that read blocks in place. */
void tqi_unit_pin(tqi_unit *unit, tqi_net_request *request, const Tq__UnitPin *message);
void tqi_unit_unpin(tqi_unit *unit, tqi_net_request *request, const Tq__UnitUnpin *message);
/* Ends all pins of a writer; returns whether there were any. */
bool tqi_unit_writer_unpin(tqi_unit_writer *writer);

/* --- waiting reserves ----------------------------------------------------- */

typedef struct tqi_unit_wait {
    tqi_unit *unit;
    tqi_net_request *request;
    const Tq__UnitReserve *message; /* lives as long as the request */
    tqi_store_place *places;
    tqi_heap_node timed; /* by deadline; in none without one */
    uint64_t since;
    uint64_t number; /* ascending */
    struct tqi_unit_wait *prev, *next;
} tqi_unit_wait;

/* First come, first served, in two queues: reserves that add columns may use the store's last tenth and must not queue
 * behind those that may not. */
typedef struct tqi_unit_waits {
    tqi_unit_wait *row[2]; /* [adds_samples] */
    tqi_heap timed;        /* those with a deadline */
    uv_timer_t timer;      /* nearest deadline */
    uint64_t last;         /* number */
} tqi_unit_waits;

/* Reserves at once, parks the request, or fails it. */
void tqi_unit_reserve(tqi_unit *unit, tqi_net_request *request, const Tq__UnitReserve *message);
/* Room was made. */
void tqi_unit_wake(tqi_unit *unit);
/* Whether anybody waits. */
bool tqi_unit_waited_for(const tqi_unit *unit);
/* Fails all that wait. */
void tqi_unit_waits_fail(tqi_unit *unit, int code, const char *why);
void tqi_unit_waits_timer(uv_timer_t *timer);

/* Bytes that a parked reserve wants. */
uint64_t tqi_unit_wanted(const Tq__UnitReserve *message);

/* room.c: bytes still available to blocks of a kind. */
uint64_t tqi_unit_room(const tqi_unit *unit, bool adds_samples);
/* Writers that pin blocks, at most max, those with the most bytes first; returns how many. */
size_t tqi_unit_holders(const tqi_unit *unit, const tqi_unit_writer **out, size_t max);
/* Writes into `out` why there is no room for `wanted` bytes, in words. behind: other puts have precedence. */
void tqi_unit_describe_room(const tqi_unit *unit, uint64_t wanted, bool adds_samples, bool behind, char *out,
                            size_t size);
#define TQI_UNIT_ROOM_TEXT 440u /* its size in bytes, so that an error has room for the rest */

/* --- compaction ----------------------------------------------------------- */

typedef struct tqi_unit_compacting tqi_unit_compacting;

/* Sparse blocks, in the order in which they were named. */
typedef struct tqi_unit_compact {
    uint64_t *queue;
    size_t n, capacity;
    size_t full;          /* this many in a row found no room or were pinned */
    uint64_t full_used;   /* bytes in use when that was */
    uint64_t full_unpins; /* tqi_unit.unpins then */
    bool full_urged;      /* puts waited then */
    uint64_t first_id;    /* granted ids */
    uint32_t n_ids;
    uint64_t grant;           /* incremented when a session has ended, and its ids with it */
    uv_timer_t timer;         /* the pause before the next batch */
    uint64_t not_before;      /* when it ends */
    uint64_t urged_before;    /* when it ends while puts wait */
    tqi_unit_compacting *now; /* the batch in progress */
    uint64_t moved, moved_bytes;
} tqi_unit_compact;

/* The controller has named them. */
void tqi_unit_compact_add(tqi_unit *unit, const uint64_t *ids, size_t n);
/* Goes on with what is in the queue. */
void tqi_unit_compact_go(tqi_unit *unit);
/* Room was made, or a pin has ended. */
void tqi_unit_compact_room(tqi_unit *unit);
/* A put waits for room. */
void tqi_unit_compact_urge(tqi_unit *unit);
/* How long names are gathered, and the shortest pause after a batch. */
#define TQI_UNIT_COMPACT_PAUSE_MS 20u
/* compact.c: begins a batch. */
void tqi_unit_compact_timer(uv_timer_t *timer);
/* Starts the timer of the next batch, or makes it earlier, if a batch is due. */
void tqi_unit_compact_arm(tqi_unit *unit);
/* Puts blocks at the back or the front of the queue. */
void tqi_unit_compact_append(tqi_unit *unit, const uint64_t *ids, size_t n);
void tqi_unit_compact_prepend(tqi_unit *unit, const uint64_t *ids, size_t n);
/* It cannot be moved now: to the back, until something has changed. */
void tqi_unit_compact_refuse(tqi_unit *unit, uint64_t id);
/* The session that granted the ids has ended. */
void tqi_unit_compact_forget_ids(tqi_unit *unit);
/* The store was replaced. */
void tqi_unit_compact_forget(tqi_unit *unit);
void tqi_unit_compact_fini(tqi_unit *unit);

/* --- sifting -------------------------------------------------------------- */

#define TQI_UNIT_SIFT_MAX 1024u

/*
 * A writer that has ended may leave blocks that no table knows: those reserved under an id that had already ended. No
 * notice will come for them, so the controller is asked about the blocks of writers that are gone, once for each block.
 */
typedef struct tqi_unit_sift {
    uv_timer_t timer;
    bool wanted;   /* a writer with blocks has ended since the last round began */
    bool going;    /* a round is in progress */
    uint32_t next; /* next slot to examine */
    tqi_net_call *asking;
    uint64_t asked_as; /* incarnation of the question */
    uint64_t ids[TQI_UNIT_SIFT_MAX];
    size_t n;
    uint64_t freed; /* blocks, ever */
} tqi_unit_sift;

/* A writer with blocks has ended, or the unit has been registered again. */
void tqi_unit_sift_want(tqi_unit *unit);
void tqi_unit_sift_go(tqi_unit *unit);

/* --- counters ------------------------------------------------------------- */

/* Operations as users know them: a put is a reserve, a clear is a notice of dead blocks. */
typedef enum tqi_unit_op {
    TQI_UNIT_PUT,
    TQI_UNIT_GET,
    TQI_UNIT_CLEAR,
    TQI_UNIT_OPS
} tqi_unit_op;

/* An operation that began at `since` is done. */
void tqi_unit_count(tqi_unit *unit, tqi_unit_op op, uint64_t since);
/* Counters have changed: report them soon. */
void tqi_unit_reportable(tqi_unit *unit);
void tqi_unit_report(uv_timer_t *timer);
/* The interval between reports that the controller asked for; 0: it did not. */
void tqi_unit_report_every(tqi_unit *unit, uint64_t ms);

/* --- the unit ------------------------------------------------------------- */

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
    unsigned open; /* things still to close: server, connector, handles, warming */
    void (*closed)(void *arg);
    void *closed_arg;
};

extern const tqi_net_service tqi_unit_service;

/* Something was reserved or freed. */
void tqi_unit_changed(tqi_unit *unit);
/* Makes a new store and incarnation and drops the old one. On an error nothing has changed. */
int tqi_unit_renew(tqi_unit *unit, tq_error *err);
void tqi_unit_counters_reset(tqi_unit *unit);
/* One of the things that closing waits for is done. */
void tqi_unit_close_step(tqi_unit *unit);
void tqi_unit_handle_closed(uv_handle_t *handle);

/* join.c: handles one dead block: it is freed, kept until its writer is gone, or remembered. TQ_OK or TQ_ENOMEM. */
int tqi_unit_dead(tqi_unit *unit, uint64_t id, bool writer_done);
int tqi_unit_join(tqi_unit *unit, const tqi_unit_options *options, tq_error *err);
void tqi_unit_retry(uv_timer_t *timer);

#endif
