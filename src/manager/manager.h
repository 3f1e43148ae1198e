/*
 * manager.h - what managers inside libtq get from the client beyond the public seam: the loop and its connections.
 */
#ifndef TQI_MANAGER_H
#define TQI_MANAGER_H

#include "net/net.h"

#include <stdatomic.h>

#include <tq/manager.h>

/* A range of a block that a reader wants to see where it lies, instead of having it copied. */
typedef struct tqi_view_range {
    const tq_block *block;
    uint64_t offset; /* in the block */
    uint64_t size;   /* at least 1 */
    /* Asked for: not a view of its own, but the store's memory as this process has it mapped, which may be used anew at any
     * time.  What was read there is the block's if `*word` was its id before and after (a seqlock, base/fence.h). */
    bool shared;
    uint8_t *data; /* out: the bytes; NULL: not to be seen from here, or gone */
    void
        *map; /* out, with data, unless shared: what the reader unmaps when it has done with them */
    size_t map_size;
    const _Atomic uint64_t *word; /* out, with data, if shared */
} tqi_view_range;

/* Ranges to see.  Valid until done. */
typedef struct tqi_view_job {
    tqi_view_range *ranges;
    size_t n;
    uint64_t deadline_ns;
    void **pins; /* out: n_pins, each to be given to unview once, after the unmapping; room for n */
    size_t n_pins;
    /* Called once, from the loop, possibly before view returns.  Nothing fails: what cannot be seen is copied. */
    void (*done)(struct tqi_view_job *job);
    void *arg;
} tqi_view_job;

/* A state of the controller's list of owners; zero: none. */
typedef struct tqi_owners_at {
    uint64_t epoch; /* of the controller */
    uint64_t version;
} tqi_owners_at;

/* What has changed in that list. */
typedef struct tqi_owner_changes {
    bool all;                    /* these are all there are; nothing is named as gone then */
    const tq_owner_info *owners; /* info NULL: it is as it was */
    size_t n;
    const char *const
        *gone; /* not in the list any more; to be taken out before `owners` is put in */
    size_t n_gone;
    tqi_owners_at at; /* for the next question */
} tqi_owner_changes;

/* The parts of a reply, which they point into. */
int tqi_owner_changes_read(const Tq__ListOwnersReply *reply, tqi_owner_changes *out, tq_error *err);
void tqi_owner_changes_fini(tqi_owner_changes *changes);

/* tq_manager_host.internal.  At close the client closes the connector first (that ends every call and so every job), then
 * the manager: its close must not touch channels. */
typedef struct tqi_manager_internal {
    uv_loop_t *loop;
    tqi_connector *connector;
    tqi_channel *
        controller; /* to see when the session there is a new one (leases are void then); may be NULL */
    const char *node; /* that this process is on; NULL: the machine */
    /* While the callback of host->lease runs: the proof for the owner that gave a key, else size 0. */
    const uint8_t *grant;
    size_t grant_size;
    /* While remove is called: how many ids, at the end, will be named once more, for something may still be written under them. */
    size_t n_late;
    uint64_t notice_ms; /* what waits for longer is named in the log; 0: it is not */
    /* As host->owners, but what has changed since a state of the list.  The changes are valid in the callback only. */
    void (*owner_changes)(
        tq_manager_host *host, const tqi_owners_at *since, bool wait, uint64_t deadline_ns,
        void (*done)(const tq_error *err, const tqi_owner_changes *changes, void *arg), void *arg);

    /* Set by a manager, when it opens, that can show blocks: private mappings, which show the blocks' bytes, whatever
     * becomes of the blocks, until they are given back, or the connector says goodbye; or its own mapping, until the
     * pin is given back, or it is closed. */
    void (*view)(void *state, tqi_view_job *job);
    void (*unview)(void *state, void *pin);

    /* Set by a manager, when it opens, whose jobs may wait without a call.  Called before the connector is closed: ends
     * these waits, and lets no new one begin. */
    void (*stop)(void *state);
} tqi_manager_internal;

/* Which libraries a config may name. */
typedef struct tqi_manager_trust {
    bool own_config; /* any: it is this process's own, not what the system hands out */
    const char
        *libraries; /* these, paths joined by colons; NULL: none.  And those of TQ_LIBRARIES */
} tqi_manager_trust;

/* The manager of a type.  A "library" in its config (a JSON object) names the plug-in to load it from, when this process has no
 * such type yet; TQ_ECONFIG when that is not to be trusted. */
int tqi_manager_make(const char *type, const char *config, const tqi_manager_trust *trust,
                     const tq_storage_manager **out, tq_error *err);

/* Whether the store that the config names can be used from here, where that is known without a client: a key-value store
 * that comes with the library is opened and closed.  TQ_OK for all others.  May block for as long as opening may. */
int tqi_manager_try(const char *type, const char *config, tq_error *err);

/* Whether tqi_manager_end can do something for that type. */
bool tqi_manager_ends(const char *type);
/* Removes what the system of an epoch has left in the store that the config names; values in *removed.  TQ_EUNSUPPORTED
 * where the library cannot list the store's keys.  Blocks for `seconds`, and as long as opening takes. */
int tqi_manager_end(const char *type, const char *config, uint64_t epoch, double seconds,
                    uint64_t *removed, tq_error *err);

#ifdef TQI_WITH_SIMPLE
extern const tq_storage_manager tqi_simple_manager; /* "SimpleStorage" */
#endif

#endif
