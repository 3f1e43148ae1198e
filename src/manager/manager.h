/*
 * manager.h - what managers inside libtq get from the client beyond the public interface: the loop and its connections.
 */
#ifndef TQI_MANAGER_MANAGER_H
#define TQI_MANAGER_MANAGER_H

#include "net/net.h"

#include <stdatomic.h>

#include <tq/manager.h>

/* A range of a block that a reader wants to borrow, that is, to read in place instead of having it copied. */
typedef struct tqi_manager_borrow_range {
    const tq_block *block;
    uint64_t offset; /* in the block */
    uint64_t size;   /* at least 1 */
    /* Set by the caller: wants not a mapping of its own, but the store's memory as this process has it mapped, which
     * may be reused at any time. Bytes read there are the block's if `*word` was its id before and after (a seqlock,
     * base/fence.h). */
    bool shared;
    uint8_t *data; /* out: the bytes; NULL: not accessible from here, or gone */
    void *map;     /* out, with data, unless shared: what the reader must unmap when done */
    size_t map_size;
    const _Atomic uint64_t *word; /* out, with data, if shared */
} tqi_manager_borrow_range;

/* Ranges to borrow. Valid until done. */
typedef struct tqi_manager_borrow_job {
    tqi_manager_borrow_range *ranges;
    size_t n;
    uint64_t deadline_ns;
    /* out: of what was borrowed, each to be passed to give_back once, after unmapping; room for n */
    void **handles;
    size_t n_handles;
    /* Called once, from the loop, possibly before borrow returns. It cannot fail: ranges that cannot be read in place
     * are copied. */
    void (*done)(struct tqi_manager_borrow_job *job);
    void *arg;
} tqi_manager_borrow_job;

/* A state of the controller's list of owners; zero: none. */
typedef struct tqi_manager_owners_at {
    uint64_t epoch; /* of the controller */
    uint64_t version;
} tqi_manager_owners_at;

/* What has changed in that list. */
typedef struct tqi_manager_owner_changes {
    bool all;                    /* these are all owners; none is then named as gone */
    const tq_owner_info *owners; /* info NULL: it is as it was */
    size_t n;
    const char *const *gone; /* no longer in the list; remove these before adding `owners` */
    size_t n_gone;
    tqi_manager_owners_at at; /* for the next question */
} tqi_manager_owner_changes;

/* Owned parts of the reply that the lists point into. */
int tqi_manager_owner_changes_read(const Tq__ListOwnersReply *reply, tqi_manager_owner_changes *out, tq_error *err);
void tqi_manager_owner_changes_fini(tqi_manager_owner_changes *changes);

/* tq_manager_host.internal. At close the client closes the connector first (that ends every call and so every job),
 * then the manager: its close must not touch channels. */
typedef struct tqi_manager_internal {
    uv_loop_t *loop;
    tqi_net_connector *connector;
    tqi_net_channel *controller; /* to detect a new session there (grants are then void); may be NULL */
    const char *node;            /* that this process is on; NULL: the machine */
    /* During the callback of host->grant: the proof, if the owner gave a key; else size 0. */
    const uint8_t *grant;
    size_t grant_size;
    /* During remove: how many of the last ids will be named once more, because a write to them may still arrive. */
    size_t n_late;
    uint64_t notice_ms; /* longer waits are named in the log; 0: never */
    /* Like host->owners, but only the changes since a state of the list. They are valid only during the callback. */
    void (*owner_changes)(tq_manager_host *host, const tqi_manager_owners_at *since, bool wait, uint64_t deadline_ns,
                          void (*done)(const tq_error *err, const tqi_manager_owner_changes *changes, void *arg),
                          void *arg);

    /* Set at opening by a manager that can expose blocks: as private mappings, which keep the blocks' bytes whatever
     * happens to the blocks, until they are given back or the connector closes the session; or as its own mapping,
     * until it is given back or the manager is closed. */
    void (*borrow)(void *state, tqi_manager_borrow_job *job);
    void (*give_back)(void *state, void *handle);

    /* Set at opening by a manager whose jobs may wait without a call. Called before the connector is closed: ends these
     * waits, and prevents new ones. */
    void (*stop)(void *state);
} tqi_manager_internal;

/* Which libraries a config may name. */
typedef struct tqi_manager_trust {
    bool own_config;       /* any: the config is this process's own, not handed out by the system */
    const char *libraries; /* these, separated by colons (NULL: none), and those of TQ_LIBRARIES */
} tqi_manager_trust;

/* The manager of a type. A "library" in its config (a JSON object) names the plug-in to load it from if this process
 * does not have the type yet; TQ_ECONFIG if that is not trusted. */
int tqi_manager_make(const char *type, const char *config, const tqi_manager_trust *trust,
                     const tq_storage_manager **out, tq_error *err);

/* Checks whether the store named by the config can be used from here, as far as that can be known without a client: a
 * built-in key-value store is opened and closed. TQ_OK for all others. May block for as long as opening may. */
int tqi_manager_try(const char *type, const char *config, tq_error *err);

/* Whether tqi_manager_end supports that type. */
bool tqi_manager_ends(const char *type);
/* Removes what the system of an epoch left in the store named by the config; *removed counts the values.
 * TQ_EUNSUPPORTED if the library cannot list the store's keys. Blocks for `seconds`, and as long as opening takes. */
int tqi_manager_end(const char *type, const char *config, uint64_t epoch, double seconds, uint64_t *removed,
                    tq_error *err);

#ifdef TQI_WITH_SIMPLE
extern const tq_storage_manager tqi_simple_manager; /* "SimpleStorage" */
#endif

#endif
