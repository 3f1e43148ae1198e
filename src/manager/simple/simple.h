/*
 * simple.h - the parts of the simple storage manager.
 *
 *   simple.c   the table: open, close, config, fork
 *   units.c    the list of units
 *   query.c    requests to the client that may end after close
 *   link.c     the manager's side of one unit: its channel, its mapped memory, its granted block ids
 *   put.c      writing a batch to a unit: room in it
 *   put_choose.c  which unit
 *   put_wait.c  waiting for room
 *   put_write.c  its bytes
 *   get.c      reading ranges from units
 *   wait.c     rows of waiters, pauses between two tries, how long a try may take
 *   borrow.c     reading blocks in place
 *   copy.c     copies of many pieces, on the loop or on the thread pool
 *
 * A batch goes whole into one unit. A locator is the slot (u32) and the offset in the arena (u64), little-endian; the
 * unit is the block's owner.
 *
 * Everything belongs to the client's loop thread; only the copies of copy.c run elsewhere. Requests that may outlive
 * the manager (for a grant, for the list of owners) hold a record that close detaches.
 */
#ifndef TQI_MANAGER_SIMPLE_SIMPLE_H
#define TQI_MANAGER_SIMPLE_SIMPLE_H

#include <utlist.h>

#include "base/error.h"
#include "base/hash.h"
#include "base/heap.h"
#include "base/log.h"
#include "manager/manager.h"
#include "store/store.h"

#define TQI_SIMPLE_LOCATOR TQI_STORE_LOCATOR
/* Columns share blocks up to this size, and copies up to TQI_SIMPLE_INLINE are made on the loop. */
#define TQI_SIMPLE_SHARED (64u << 10)
#define TQI_SIMPLE_INLINE (256u << 10)
/* Columns begin at a cache line. */
#define TQI_SIMPLE_ALIGN 64u
/* Pieces of one request; the peer's sinks take 4096. */
#define TQI_SIMPLE_PIECES 1024u

typedef struct tqi_simple tqi_simple;
typedef struct tqi_simple_link tqi_simple_link;

/* --- copies --------------------------------------------------------------- */

/* A piece to copy. For reads, `id` and `slot` name the block; a piece whose block does not exist is marked. */
typedef struct tqi_simple_piece {
    uint8_t *dest;
    const uint8_t *from; /* writes */
    uint64_t offset;     /* reads: in the arena */
    uint64_t size;
    uint64_t id;
    uint32_t slot;
    uint32_t block; /* place in the job */
    _Atomic bool gone;
} tqi_simple_piece;

/* A unit's memory in this process, reference-counted: by its link, and by copies in progress. */
typedef struct tqi_simple_mapping {
    tqi_store_map map;
    uint64_t incarnation;
    unsigned refs;
    tqi_simple *simple;
    struct tqi_simple_mapping *prev, *next; /* all, for fork */
} tqi_simple_mapping;

/* Copies the pieces, from -> dest in the map (write) or out of the map into dest, and calls done on the loop, possibly
 * before it returns. Map and pieces must stay. */
void tqi_simple_copy(tq_manager_host *host, const tqi_store_map *map, bool write, tqi_simple_piece *pieces, size_t n,
                     void (*done)(void *arg), void *arg);

/* --- waiting for a link --------------------------------------------------- */

/* Waits for something of a link, or for the end of a pause; embed it in your own struct, zeroed. fn: err NULL =
 * available. */
typedef struct tqi_simple_pending {
    void (*fn)(struct tqi_simple_pending *wait, const tq_error *err);
    tqi_simple *simple;
    struct tqi_simple_pending **row; /* NULL: a pause, or it does not wait */
    const char *what;                /* it waits for in the row */
    tqi_heap_node timed;             /* in simple->waits, with the time at which it ends */
    struct tqi_simple_pending *prev, *next;
} tqi_simple_pending;

/* Waits in a row for what was asked for already, perhaps by another call with a later deadline: not beyond this one.
 * Then fn gets TQ_ETIMEDOUT, which says `what` (a literal) did not come. */
void tqi_simple_wait_in(tqi_simple *simple, tqi_simple_pending **row, const char *what, uint64_t deadline,
                        tqi_simple_pending *wait);
/* Ends all that wait in a row. */
void tqi_simple_wait_end(tqi_simple_pending **row, const tq_error *err);
/* Ends a wait, whatever it is for, without a call of fn; false if it does not wait. */
bool tqi_simple_wait_leave(tqi_simple_pending *wait);

typedef enum tqi_simple_map_state {
    TQI_SIMPLE_MAP_NONE = 0,
    TQI_SIMPLE_MAP_ASKED,
    TQI_SIMPLE_MAP_READY,
    TQI_SIMPLE_MAP_REFUSED /* until the next fresh session there */
} tqi_simple_map_state;

/* A grant, with the proof that its unit requires. */
typedef struct tqi_simple_grant {
    uint64_t first;
    uint32_t count;
    uint8_t proof[TQI_NET_GRANT];
} tqi_simple_grant;

/* Ids of one grant that are left. */
typedef struct tqi_simple_id_range {
    uint64_t first;
    uint32_t count;
    tqi_simple_grant grant;
} tqi_simple_id_range;

/* The grants from which ids were taken, in the order of the ids; one may occur more than once. Zero-initialise. */
typedef struct tqi_simple_grants {
    tqi_simple_grant *grants;
    size_t n, capacity;
} tqi_simple_grants;

/* Where granted ids come from; they are void if any of it has changed. */
typedef struct tqi_simple_ids_from {
    uint64_t incarnation; /* of the unit */
    uint64_t epoch;       /* of the controller */
    uint64_t session;     /* ours there */
} tqi_simple_ids_from;

#define TQI_SIMPLE_STOCK_MAX     15u
#define TQI_SIMPLE_ANSWER_MAX_NS UINT64_C(1000000000)

/* Room for a small block, reserved but not yet written: see stock.c. */
typedef struct tqi_simple_stocked {
    uint64_t id, offset;
    uint32_t slot;
} tqi_simple_stocked;

/* Units in no order. */
typedef struct tqi_simple_links {
    tqi_simple_link **items;
    size_t n, capacity;
} tqi_simple_links;

/* One unit, as this client knows it. Lives until the manager is closed. */
struct tqi_simple_link {
    tqi_simple *simple;
    char *name;
    void *info; /* as listed */
    size_t info_size;
    uint64_t incarnation;    /* as listed; 0: not listed any more */
    uint64_t capacity, used; /* as listed */
    uint64_t grown;          /* bytes in use, as this client has seen since; see tqi_simple_link_used */
    uint64_t grown_in;       /* after which answer it has */
    bool present;
    bool local;       /* on this machine, with a reachable unix socket */
    bool said;        /* how it is used, since its info was set */
    const char *away; /* why it is not local */
    uint64_t server;  /* number of its server, 0: unknown */
    bool silent;      /* did not answer lately */
    char *endpoint;   /* the endpoints of its list that can be reached from here */
    tqi_net_channel *channel;

    tqi_simple_map_state map_state;
    uint64_t map_asked_at;
    tqi_simple_mapping *mapping;
    tqi_simple_pending *map_waits;

    tqi_simple_id_range *ids; /* granted and not used */
    size_t n_ids, ids_capacity;
    uint64_t ids_total;
    tqi_simple_ids_from ids_from;
    uint32_t last_grant; /* ids of it; 0 before the first */
    bool granting;
    tqi_simple_pending *grant_waits;

    tqi_simple_stocked stock[TQI_SIMPLE_STOCK_MAX];
    uint32_t stock_first, n_stock; /* those that are left */
    uint32_t stock_next;           /* how many were asked for last */
    uint64_t stock_size;           /* of each */
    uint64_t stock_at;             /* when it was last used, or asked for */
    tqi_simple_ids_from stock_from;
    bool stocking; /* more is asked for */

    tqi_simple_links *set; /* that it belongs to; NULL: it cannot be written now */
    size_t place;          /* there */
    uint64_t taken;        /* in which answer it was listed last */
    uint64_t chosen;       /* by which search for all units */
    unsigned rank;         /* in that: how early it is tried */
    uint64_t lot;          /* its place in that among equal ones */
    UT_hash_handle hh;
};

/* --- where.c -------------------------------------------------------------- */

/* Parses a unit's registered info: which of its endpoints can be reached from here, and whether it is local. */
int tqi_simple_link_set_info(tqi_simple_link *link, const void *info, size_t size);
/* Logs once how the unit is used: through shared memory, or over the socket and why (`failure` if it is local and
 * failed, else NULL). */
void tqi_simple_link_say(tqi_simple_link *link, const char *failure);
/* Whether its memory is shared with this process, as far as is known. */
bool tqi_simple_link_near(const tqi_simple_link *link);

/* --- link.c --------------------------------------------------------------- */

int tqi_simple_link_make(tqi_simple *simple, const tq_owner_info *info, tqi_simple_link **out);
int tqi_simple_link_update(tqi_simple_link *link, const tq_owner_info *info);
void tqi_simple_link_free(tqi_simple_link *link);
/* The channel to its unit. */
int tqi_simple_link_channel(tqi_simple_link *link, tqi_net_channel **out, tq_error *err);
/* Bytes in use there: as listed, or as this client has seen since the last answer with changes to the list. Each answer
 * resets this, because not everything that others free is reported: observed bytes that were never dropped would only
 * grow. */
uint64_t tqi_simple_link_used(const tqi_simple_link *link);
void tqi_simple_link_grow(tqi_simple_link *link, uint64_t used);
/* Finds out whether the unit's memory can be mapped, and maps it. TQ_OK: known now; TQ_EAGAIN: the wait ends when it
 * is. */
int tqi_simple_link_map(tqi_simple_link *link, uint64_t deadline, tqi_simple_pending *wait, tq_error *err);
/* Forgets the mapping; copies in progress keep it. */
void tqi_simple_link_unmap(tqi_simple_link *link);
void tqi_simple_mapping_unref(tqi_simple_mapping *mapping);
/* Tells the unit that we have finished with blocks that the controller no longer counts as ours (with `others`: with
 * all except these), so that it can reuse their memory before this process exits. */
void tqi_simple_link_finish(tqi_simple_link *link, const uint64_t *ids, size_t n, bool others);
/* Whether the controller may still count ids from there as ours. */
bool tqi_simple_ids_known(const tqi_simple *simple, const tqi_simple_ids_from *from);
/* Takes n granted ids. TQ_OK, TQ_ENOMEM, or TQ_EAGAIN: try again when the wait ends. */
int tqi_simple_link_take(tqi_simple_link *link, uint64_t *ids, size_t n, tqi_simple_grants *grants,
                         tqi_simple_ids_from *from, uint64_t deadline, tqi_simple_pending *wait);
/* Puts unused ids back. Those whose origin differs from the link's present one are given back to the controller if it
 * may still know them, else forgotten. */
void tqi_simple_link_put_back(tqi_simple_link *link, const uint64_t *ids, size_t n, const tqi_simple_grants *grants,
                              const tqi_simple_ids_from *from);
/* Forgets all granted ids, and gives them back to the controller if that may still know them. */
void tqi_simple_link_drop_ids(tqi_simple_link *link);

/* --- the manager ---------------------------------------------------------- */

/* A request to the client that may end after close. */
typedef struct tqi_simple_query {
    tqi_simple *simple; /* NULL: closed meanwhile */
    tqi_simple_link *link;
    void (*listed)(void *arg, const tq_error *err);
    void *arg;
    uint32_t count;
    uint64_t asked_at;
    struct tqi_simple_query *prev, *next;
} tqi_simple_query;

tqi_simple_query *tqi_simple_query_make(tqi_simple *simple);
/* Ends it; false when the manager is closed. */
bool tqi_simple_query_end(tqi_simple_query *query);
/* Cancels a wait for the list with that arg; false if there is none. */
bool tqi_simple_query_leave(tqi_simple *simple, const void *arg);

struct tqi_simple {
    tq_manager_host *host;
    tqi_net_connector *connector;
    tqi_net_channel *controller;
    char machine[TQI_STORE_MACHINE];
    char *node;                 /* NULL: none is named */
    tqi_simple_link *links;     /* by name */
    tqi_simple_links near, far; /* the ones among these that can be written now */
    tqi_manager_owners_at list; /* as the units are known */
    /* tqi_simple_puts_listed, for units.c, which is below the puts */
    void (*listed)(tqi_simple *simple, const tqi_manager_owner_changes *changes);
    uint64_t taken; /* answers with changes of it */
    tqi_simple_mapping *mappings;
    tqi_simple_query *queries;
    struct tqi_simple_put_op *puts;       /* under way */
    uint64_t session;                     /* incremented with every new session at the controller */
    struct tqi_simple_borrowed *borrowed; /* pinned at units */
    uint64_t last_pin;                    /* number of the last one */
    bool listing;                         /* a refresh in the background */
    uint64_t listed_at;                   /* when the list was last updated; 0: never */
    uint32_t turn;                        /* of near units */
    uint64_t answer_ns;                   /* how long answers have recently taken; at most TQI_SIMPLE_ANSWER_MAX_NS */
    uint64_t lot;                         /* the last number that was drawn; 0: none */
    uint64_t chosen;                      /* searches for all units */
    uv_timer_t stock_timer;
    uv_timer_t wait_timer;     /* the nearest end of a wait */
    tqi_heap waits;            /* pauses, and waits with a deadline */
    bool stopped;              /* nothing is tried any more */
    void (*closed)(void *arg); /* called when closing is done */
    void *closed_arg;
};

/* --- units.c -------------------------------------------------------------- */

/* Updates the list of units, then calls listed (which may be NULL). */
void tqi_simple_list(tqi_simple *simple, bool wait, uint64_t deadline, void (*listed)(void *arg, const tq_error *err),
                     void *arg);
/* The same in the background, unless it was done recently. */
void tqi_simple_refresh(tqi_simple *simple);
/* NULL: it was never listed. */
tqi_simple_link *tqi_simple_find(tqi_simple *simple, const char *name);
/* Forgets all units; at close. */
void tqi_simple_units_fini(tqi_simple *simple);

/* --- wait.c --------------------------------------------------------------- */

/* Records the time of an answer that a live server gives at once: it shows how long answers take under the machine's
 * present load. */
void tqi_simple_took(tqi_simple *simple, uint64_t asked_at);
/* `least`, or the time of 16 answers, but at most 5 s: things that save requests last longer if requests take long. */
uint64_t tqi_simple_pace(const tqi_simple *simple, uint64_t least);
/* Deadline of the k-th try of something that moves `bytes`: a try must not use up the time in which another unit, or an
 * update of the list, could help. */
uint64_t tqi_simple_try(unsigned k, uint64_t bytes, uint64_t deadline);
/* Ends the wait after the k-th pause, 10 ms to 0.5 s, or at the deadline; fails if the client is closed. */
void tqi_simple_pause(tqi_simple *simple, unsigned k, uint64_t deadline, tqi_simple_pending *wait);
/* Ends all pauses, now and from now on; what waits in a row ends with what it waits for. */
void tqi_simple_stop(void *state);

/* --- stock.c -------------------------------------------------------------- */

/* Gives back room reserved ahead at a unit. */
void tqi_simple_stock_drop(tqi_simple_link *link);

/* --- put.c ---------------------------------------------------------------- */

void tqi_simple_put(void *state, tq_put_job *job);
void tqi_simple_cancel(void *state, tq_put_job *job);

/* --- get.c ---------------------------------------------------------------- */

void tqi_simple_get(void *state, tq_get_job *job);
/* The slot (return value) and the arena offset in a block's locator. */
uint32_t tqi_simple_locate(const tq_block *block, uint64_t *begin);

/* --- borrow.c ------------------------------------------------------------- */

void tqi_simple_borrow(void *state, tqi_manager_borrow_job *job);
void tqi_simple_give_back(void *state, void *handle);
/* Forgets all that was borrowed; at close. */
void tqi_simple_borrow_fini(tqi_simple *simple);

#endif
