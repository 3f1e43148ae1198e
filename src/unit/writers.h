/*
 * writers.h - sessions that reserve blocks or pin them, and when a dead block may be freed.
 */
#ifndef TQI_UNIT_WRITERS_H
#define TQI_UNIT_WRITERS_H

#include "base/hash.h"
#include "unit/memory.h"
#include "unit/unit.h"
#include "wire/methods.h"

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
/* Whether the controller made this grant to the writer's session, under this incarnation. */
bool tqi_unit_writer_granted(tqi_unit_writer *writer, const Tq__Grant *grant);
/* Makes it the writer of a block that it has just reserved. */
void tqi_unit_writer_add(tqi_unit_writer *writer, uint64_t id);
/* The writer of a block, or NULL if it no longer exists. */
tqi_unit_writer *tqi_unit_writer_of(tqi_unit *unit, uint64_t id);
/* Whether a block's writer has ended and the block has not been sifted since. */
bool tqi_unit_writer_left_behind(tqi_unit *unit, uint64_t id);
/* It was. */
void tqi_unit_writer_sifted(tqi_unit *unit, uint64_t id);
/* The store was replaced: forgets all blocks. */
void tqi_unit_writers_forget(tqi_unit *unit);
/* Ends writers whose sessions have ended, when the unit closes. */
void tqi_unit_writers_close(tqi_unit *unit);

/* Answers requests of readers that read blocks in place. */
void tqi_unit_pin(tqi_unit *unit, tqi_net_request *request, const Tq__UnitPin *message);
void tqi_unit_unpin(tqi_unit *unit, tqi_net_request *request, const Tq__UnitUnpin *message);
/* Ends all pins of a writer; returns whether there were any. */
bool tqi_unit_writer_unpin(tqi_unit_writer *writer);

/* --- dead blocks ---------------------------------------------------------- */

/* Handles one dead block: it is freed, kept until its writer is gone, or remembered. TQ_OK or TQ_ENOMEM. */
int tqi_unit_dead(tqi_unit *unit, uint64_t id, bool writer_done);

#endif
