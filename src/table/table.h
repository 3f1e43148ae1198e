/*
 * table.h - everything the controller knows, as a pure state machine: partitions, samples, keys, groups, tags, fields,
 * cells, readiness, consumption, blocks and their owners. No I/O, no clock, no threads, no wire format.
 *
 * The terms are those of docs/design.md. Names and strings passed in are copied. Every changing call is all or
 * nothing: on an error the state is unchanged. Cost: a publish, claim or clear takes time in proportion to its own
 * size, never to the size of the partition. A cell is 16 bytes (block handle, shape handle, offset); a sample's extras
 * (key, group, tags) exist only when set.
 *
 * Handles (tqi_table_partition *, tqi_table_view *, tqi_table_owner *) are valid until the call documented to end
 * them.
 */
#ifndef TQI_TABLE_TABLE_H
#define TQI_TABLE_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <tq/types.h>

#include "base/marks.h"
#include "base/region.h"

typedef struct tqi_table tqi_table;
typedef struct tqi_table_partition tqi_table_partition;
typedef struct tqi_table_view tqi_table_view;
typedef struct tqi_table_owner tqi_table_owner;
typedef struct tqi_table_freeze tqi_table_freeze;
typedef struct tqi_table_clearing tqi_table_clearing;

/* Initial counters of a new table; 0 selects the usual start. Tests start them near their wrap. */
typedef struct tqi_table_options {
    uint64_t epoch; /* not 0 */
    uint32_t first_index;
    uint32_t first_incarnation; /* usual: 1; 0 is skipped at the wrap, because it matches any */
    uint64_t first_block;       /* usual: 1 */
    uint64_t first_ordinal;
    uint64_t first_claim; /* usual: 1 */
    bool strict_schema;   /* all rows of a field have the kind and dtype of the first: TQ_EDTYPE */
} tqi_table_options;

int tqi_table_alloc(const tqi_table_options *options, tqi_table **out, tq_error *err);
void tqi_table_free(tqi_table *table);
uint64_t tqi_table_epoch(const tqi_table *table);

/* --- batches in and out --------------------------------------------------- */

/* Placement of `rows` rows that lie end to end in one block from byte `offset`. `block` is an index into the batch's
 * blocks plus 1, or a mark (base/marks.h). */
typedef struct tqi_table_run {
    uint32_t block;
    uint32_t rows;
    uint64_t offset;
} tqi_table_run;

/* One field of a batch; arrays belong to the caller (in) or to the batch (out). */
typedef struct tqi_table_batch_field {
    const char *name;
    uint8_t kind; /* enum tq_kind */
    tq_dtype dtype;
    bool ragged;           /* false: all rows have `shape` */
    uint32_t ndim;         /* of shape */
    const uint64_t *shape; /* uniform */
    const uint32_t *ndims; /* ragged: per row; n_ndims 1 = the same for all rows */
    size_t n_ndims;
    const uint64_t *dims; /* ragged: all rows' dims end to end */
    size_t n_dims;
    const tqi_table_run *runs; /* cover all samples of the batch in order */
    size_t n_runs;
    const tq_slice *opaque; /* per sample, for TQI_BLOCK_OPAQUE; else NULL */
    uint8_t ragged_dim;     /* in: what the column declares; out: what the schema knows */
    /* Per row (see base/type.h), if they differ: the field is then ragged, and kind and dtype are those of the first
     * row; else NULL. */
    const uint32_t *types;
} tqi_table_batch_field;

/* One tag of a batch: msgpack-encoded values end to end; size 0 = not set for that sample. */
typedef struct tqi_table_batch_tag {
    const char *name;
    const uint8_t *values;
    size_t values_size;
    const uint32_t *sizes; /* one per sample */
} tqi_table_batch_tag;

typedef struct tqi_table_batch_block {
    uint64_t id;
    uint64_t size;
    const char *owner; /* name */
    uint64_t owner_incarnation;
    const uint8_t *locator;
    size_t locator_size;
} tqi_table_batch_block;

/* Samples of one partition. As input and as output. */
typedef struct tqi_table_batch {
    const char *partition;
    size_t n; /* samples */
    const uint32_t *indexes;
    const uint32_t *incarnations; /* NULL as input: any; an element 0: any */
    const char *const *keys;      /* NULL, or n; NULL or "" = none */
    const char *const *groups;    /* NULL, or n; NULL or "" = none */
    const uint64_t *ordinals;     /* output only */
    const tqi_table_batch_tag *tags;
    size_t n_tags;
    const tqi_table_batch_field *fields;
    size_t n_fields;
    const tqi_table_batch_block *blocks;
    size_t n_blocks;
} tqi_table_batch;

/* A batch made by the table; freed by its user with tqi_table_result_fini. All arrays live in one region, strings
 * (names, keys) are copies. Zero-initialise before use. */
typedef struct tqi_table_result {
    tqi_table_batch batch;
    uint64_t claim;            /* id of the claim, 0 without one */
    uint64_t bytes;            /* of the cells, as far as known: sum over cells of itemsize * elements */
    const char **other_fields; /* of a publish: the other fields that all of its samples have */
    size_t n_other_fields;
    tqi_region region; /* private */
} tqi_table_result;
void tqi_table_result_fini(tqi_table_result *result);

/* --- changes -------------------------------------------------------------- */

/* How a publish names its samples. */
typedef enum tqi_table_naming {
    TQI_TABLE_BY_INDEX, /* batch.indexes, with incarnations; a cleared one refuses the whole publish: TQ_ECLEARED */
    TQI_TABLE_BY_KEY,   /* batch.keys, all set; the same key twice: the later row wins per field, tags merge */
    TQI_TABLE_NEW       /* batch.n new samples; keys may be given for some and must then be new: TQ_EEXIST */
} tqi_table_naming;

typedef struct tqi_table_publish_args {
    const tqi_table_batch *batch;
    tqi_table_naming naming;
    bool create;       /* TQI_TABLE_BY_KEY: make missing keys, else TQ_EKEY */
    bool other_fields; /* the result names them */
    uint64_t session;  /* to which the block ids must belong (number given by the controller) */
    /* Called with the finished result when nothing else can fail and nothing has changed yet: if it returns an error,
     * the publish is refused. May be NULL. */
    int (*accept)(const tqi_table_result *result, void *arg, tq_error *err);
    void *accept_arg;
} tqi_table_publish_args;

/* Publishes: links cells, merges tags, sets groups (only of new samples; another group on an old one: TQ_EINVAL),
 * learns schemas, counts blocks. Blocks whose ids are not unpublished ids of the session: TQ_EINVAL, and nothing
 * changes; a refused publish's own blocks are queued as dead by the caller with tqi_table_abandon. Runs must cover all
 * rows and stay inside the block (offset + bytes <= size). Rows keep the kind and dtype with which they are put; with
 * strict_schema those must be the field's (TQ_EDTYPE names field, expected, given). Tensors without elements take the
 * dtype of their field. A field with uniform shape becomes ragged when a different shape, kind or dtype arrives.
 * Blocks without a linked cell die at once. `result`: indexes, incarnations, keys, groups, tags, ordinals of the
 * samples, and for fields only name, kind, dtype, schema shape (no runs, no dims). */
int tqi_table_publish(tqi_table *table, const tqi_table_publish_args *publish, tqi_table_result *result, tq_error *err);

/* Reserves samples: n new ones (keys NULL), or those of the keys that do not exist yet. `groups` may be NULL. The
 * result names all of them (including the keys that existed). */
int tqi_table_reserve_for_tests(tqi_table *table, const char *partition, size_t n, const char *const *keys,
                                const char *const *groups, tqi_table_result *result, tq_error *err);

/* Clears samples: their cells, keys, tags, consumption; the index gets a new incarnation and goes to the free list.
 * Unknown keys, indexes of other partitions and other incarnations are skipped. Returns how many in *cleared. */
int tqi_table_clear_indexes(tqi_table *table, const char *partition, const uint32_t *indexes,
                            const uint32_t *incarnations, size_t n, uint32_t *cleared, tq_error *err);
int tqi_table_clear_keys(tqi_table *table, const char *partition, const char *const *keys, size_t n, uint32_t *cleared,
                         tq_error *err);
/* Every sample, task, cached pick and the partition itself. Held views stay, of a partition that does not exist yet. */
int tqi_table_clear_partition(tqi_table *table, const char *partition, uint32_t *cleared, tq_error *err);

/* What to clear in two phases: samples by index, as in tqi_table_clear_indexes, or the whole partition. */
typedef struct tqi_table_clear {
    const char *partition;
    const uint32_t *indexes;
    const uint32_t *incarnations; /* NULL: any */
    size_t n;
    bool all;
} tqi_table_clear;
/* Clears, but holds the indexes: no new sample gets them before the clear ends. The handle is valid until then. */
int tqi_table_clearing_begin(tqi_table *table, const tqi_table_clear *clear, tqi_table_clearing **out, tq_error *err);
/* The indexes go to the free list, in the order in which the samples were cleared. */
void tqi_table_clearing_end(tqi_table *table, tqi_table_clearing *clearing);
uint32_t tqi_table_clearing_samples(const tqi_table_clearing *clearing); /* that it cleared */

/* Frees the consumption of a task (NULL or "": of all) on a partition. Unknown ones are not an error. */
int tqi_table_reset_consumption(tqi_table *table, const char *partition, const char *task, tq_error *err);

/* --- claims --------------------------------------------------------------- */

/* The view of a task on (partition, field set): made by use, also for partitions and fields that do not exist yet. It
 * keeps the ready and unconsumed samples up to date. Reference-counted: get takes a reference, unref gives it up (a
 * view without one of a partition that was never written goes away with it; others stay until their partition is
 * cleared). TQ_EINVAL for no field, TQ_ENAME for bad names. */
int tqi_table_view_get(tqi_table *table, const char *partition, const char *const *fields, size_t n_fields,
                       const char *task, tqi_table_view **out, tq_error *err);
void tqi_table_view_unref(tqi_table_view *view);
uint32_t tqi_table_view_ready(const tqi_table_view *view); /* ready and not consumed by the task */
void tqi_table_view_set_user(tqi_table_view *view, void *user);
void *tqi_table_view_user(const tqi_table_view *view);

/* Returns the held views whose ready set has grown since the last call, each once; NULL if none are left. The
 * controller drains it after every change and tries the waiters of each. */
tqi_table_view *tqi_table_next_touched(tqi_table *table);

/* What the sampler layer reads from a view: see sampler.h (src/sampler) for the adapter. indexes: the first `max`,
 * ascending, valid until the next change; owned by the view and rebuilt lazily. The cost depends on `max`, not on how
 * many are ready. If out of memory, *indexes is NULL. */
uint32_t tqi_table_view_list_first(tqi_table_view *view, uint32_t max, const uint32_t **indexes, tq_error *err);
/* All of them. */
uint32_t tqi_table_view_list_for_tests(tqi_table_view *view, const uint32_t **indexes, tq_error *err);
const char *tqi_table_view_sample_group(const tqi_table_view *view, uint32_t index); /* NULL: none */
uint32_t tqi_table_view_sample_group_size(const tqi_table_view *view, uint32_t index);
/* From 0, whatever the partition's first ordinal is. */
uint64_t tqi_table_view_sample_ordinal(const tqi_table_view *view, uint32_t index);
/* Encoded tag value; size 0 if it has none. */
tq_slice tqi_table_view_sample_tag(const tqi_table_view *view, uint32_t index, const char *name);
/* The sample's tag number `tag`, from 0; false if it has no more. */
bool tqi_table_view_sample_tag_at(const tqi_table_view *view, uint32_t index, uint32_t tag, const char **name,
                                  tq_slice *value);
/* Whether the sample is ready for the view's fields and consumed by its task. */
bool tqi_table_view_had(const tqi_table_view *view, uint32_t index);

/* Why a view has no more samples to give, for people: see tqi_table_view_ready for what it has. */
typedef struct tqi_table_shortage {
    bool exists;       /* the partition */
    uint32_t samples;  /* of the partition */
    uint32_t consumed; /* of these by the task */
} tqi_table_shortage;
void tqi_table_view_shortage(const tqi_table_view *view, tqi_table_shortage *out);
/* The i-th of the view's fields, by name: how many samples of the partition have it, and how many had it; false after
 * the last one. */
bool tqi_table_view_field(const tqi_table_view *view, size_t i, const char **name, uint32_t *produced, uint32_t *lost);

/* A group that lacks samples. */
typedef struct tqi_table_short_group {
    const char *name; /* NULL: the samples of n consecutive ordinals from `ordinal` on */
    uint64_t ordinal; /* from 0 */
    uint32_t ready;   /* of its samples */
    uint32_t left;    /* number of its samples that exist and are not consumed, ready or not */
    bool broken;      /* samples of it were cleared or consumed: too few are left */
} tqi_table_short_group;
/* The groups of n that have ready samples, but fewer than n. */
typedef struct tqi_table_short_groups {
    uint32_t groups;
    uint32_t samples;              /* ready ones in them */
    uint32_t broken;               /* groups */
    tqi_table_short_group example; /* a broken one if there is one; unset if there are no groups */
} tqi_table_short_groups;
/* Examines every sample of the partition, but at most a million: for people, not for every claim. */
int tqi_table_view_short_groups(const tqi_table_view *view, uint32_t n, tqi_table_short_groups *out, tq_error *err);

/* Cached picks of a sampler for (partition, task), each under the name of its slot. get returns NULL if there is none,
 * or one of its samples was cleared since. set replaces it; n 0 drops it, which cannot fail. Resetting the task's
 * consumption, and clearing the partition, drop all of them. */
const uint32_t *tqi_table_view_cache_get(const tqi_table_view *view, const char *slot, uint32_t *n);
int tqi_table_view_cache_set(tqi_table_view *view, const char *slot, const uint32_t *indexes, uint32_t n, tq_error *err);

/* Takes samples for the task: marks `consumed` ones, makes a claim record of them for `session`, and describes `chosen`
 * (in that order) with the view's fields, ascending by name, each once. with_tags: also keys, groups and tags.
 * TQ_ECLEARED when a sample is not in the partition. Nothing is left in `result` on an error. */
int tqi_table_view_take(tqi_table_view *view, const uint32_t *chosen, uint32_t n_chosen, const uint32_t *consumed,
                        uint32_t n_consumed, uint64_t session, bool with_tags, tqi_table_result *result, tq_error *err);
/* The claim's answer was acknowledged: drops the record; the samples stay consumed. Unknown ids are ignored. */
void tqi_table_claim_settle(tqi_table *table, uint64_t claim);
/* Gives the session's claim back: its samples are free again unless cleared or reset since, or kept in a cached pick
 * of the task (which hands them out again). Unknown ids, and those of claims of other sessions, are ignored. */
void tqi_table_claim_release(tqi_table *table, uint64_t session, uint64_t claim);

/* --- reading -------------------------------------------------------------- */

typedef struct tqi_table_resolve_args {
    const char *partition;
    const char *const *keys; /* n of them, or NULL */
    const uint32_t *indexes; /* n of them, or NULL */
    const uint32_t *incarnations;
    size_t n;                  /* keys and indexes NULL: all samples, ascending */
    const char *const *fields; /* n_fields 0: all fields of the partition, in order of creation */
    size_t n_fields;
    bool lenient; /* leave out unknown keys and fields; else TQ_EKEY, TQ_EFIELD; cleared samples: TQ_ECLEARED */
    bool tags;
    bool skip_cleared; /* leave out indexes whose samples do not exist */
} tqi_table_resolve_args;
/* Unknown partition: TQ_EPARTITION (lenient: n = 0). */
int tqi_table_resolve(tqi_table *table, const tqi_table_resolve_args *resolve, tqi_table_result *result, tq_error *err);

/* index: ascending; consumed / produced: a byte each (produced: samples x fields). Arrays are malloc'ed, the caller
 * frees both. Unknown partition: *known false, no error. Unknown field: all zeros; unknown task: all zeros. */
int tqi_table_consumption(tqi_table *table, const char *partition, const char *task, bool *known, uint32_t **index,
                          uint8_t **consumed, size_t *n, tq_error *err);
int tqi_table_production(tqi_table *table, const char *partition, const char *const *fields, size_t n_fields,
                         bool *known, uint32_t **index, uint8_t **produced, size_t *n, tq_error *err);

/* Partitions in order of creation: pass NULL first; NULL ends. Only existing ones (written or reserved in). */
tqi_table_partition *tqi_table_next_partition(tqi_table *table, const tqi_table_partition *after);
tqi_table_partition *tqi_table_find_partition(tqi_table *table, const char *name);
/* TQ_EPARTITION: lists the existing ones, and says when a checkpoint replaced all of them. */
int tqi_table_unknown_partition(tqi_table *table, const char *name, tq_error *err);
const char *tqi_table_partition_name(const tqi_table_partition *partition);
uint32_t tqi_table_partition_samples(const tqi_table_partition *partition);
uint64_t tqi_table_partition_bytes(const tqi_table_partition *partition); /* of live cells */
/* Lists samples with lost cells, ascending, at most max; returns how many there are in all. */
uint32_t tqi_table_partition_lost(const tqi_table_partition *partition, uint32_t *out, uint32_t max);
/* Samples that have keys, in order of joining, with tags and groups: no fields. */
int tqi_table_partition_keys_for_tests(tqi_table *table, tqi_table_partition *partition, tqi_table_result *result,
                                       tq_error *err);

/* A page of them. It begins after the key `after`, or where that key was before it was cleared. */
typedef struct tqi_table_keys_page {
    const char *after; /* last key of the previous page; "": the first page */
    uint64_t mark;     /* of the page before */
    size_t limit;      /* 0: all */
    uint64_t next;     /* out: mark of this page; 0: nothing is left */
} tqi_table_keys_page;
int tqi_table_partition_keys_page(tqi_table *table, tqi_table_partition *partition, tqi_table_keys_page *page,
                                  tqi_table_result *result, tq_error *err);
/* Key of an index in the partition, or NULL. */
const char *tqi_table_partition_key(const tqi_table_partition *partition, uint32_t index);

typedef struct tqi_table_field_info {
    const char *name;
    uint8_t kind;
    tq_dtype dtype;
    bool ragged;
    uint32_t ndim;
    const uint64_t *shape;
    uint32_t produced;
    uint32_t lost;
    uint8_t ragged_dim;
    bool mixed; /* rows differ in kind or dtype */
} tqi_table_field_info;
/* The i-th field with a schema; false after the last one. */
bool tqi_table_partition_field(const tqi_table_partition *partition, size_t i, tqi_table_field_info *out);
/* The i-th task; false after the last one. */
bool tqi_table_partition_task(const tqi_table_partition *partition, size_t i, const char **name, uint32_t *consumed);

typedef struct tqi_table_task_info {
    const char *name;
    uint32_t consumed;
    uint32_t ready; /* ready and not consumed, for the field set with the most of these */
} tqi_table_task_info;
/* Calls fn for every task, in order of creation. */
void tqi_table_partition_each_task(const tqi_table_partition *partition,
                                   void (*fn)(const tqi_table_task_info *info, void *arg), void *arg);

/* --- blocks and owners ---------------------------------------------------- */

/* An owner (re)appears. With a different incarnation than before, everything it held is lost first (as in owner_lost)
 * and its unpublished ranges are void. */
int tqi_table_owner_register(tqi_table *table, const char *name, uint64_t incarnation, tqi_table_owner **out,
                             tq_error *err);
tqi_table_owner *tqi_table_owner_find(tqi_table *table, const char *name);
uint64_t tqi_table_owner_incarnation(const tqi_table_owner *owner);
uint64_t tqi_table_owner_blocks(const tqi_table_owner *owner); /* live */
uint64_t tqi_table_owner_bytes(const tqi_table_owner *owner);
void tqi_table_owner_set_user(tqi_table_owner *owner, void *user);
void *tqi_table_owner_user(const tqi_table_owner *owner);
/* An external store: a writer's requests may be executed after the writer has ended. */
void tqi_table_owner_set_outlives(tqi_table_owner *owner);
/* Unlinks every block of the owner: cells become lost. Calls `lost` per partition with the samples that lost cells
 * (may be NULL), then drops owner, ranges and dead queue. Handles to the owner end here. */
typedef void (*tqi_table_lost_fn)(const char *partition, const uint32_t *indexes, size_t n, void *arg);
void tqi_table_owner_lost(tqi_table *table, tqi_table_owner *owner, tqi_table_lost_fn lost, void *arg);
/* The owner of a published block; NULL: there is no such block. */
tqi_table_owner *tqi_table_block_owner(const tqi_table *table, uint64_t id);
/* Keeps only the ids that are not the owner's: not published, not granted, and not dead and unconfirmed. Sorts them;
 * returns how many are left. n is at most TQI_TABLE_UNKNOWN_MAX. */
#define TQI_TABLE_UNKNOWN_MAX 4096u
size_t tqi_table_owner_unknown(tqi_table_owner *owner, uint64_t *ids, size_t n);
/* Readers found published blocks gone. Unknown ids are ignored. */
int tqi_table_blocks_lost(tqi_table *table, const uint64_t *ids, size_t n, tqi_table_lost_fn lost, void *arg,
                          tq_error *err);

/* Grants ids [*first, *first + count) under an owner to a session; 1 <= count <= 256. */
int tqi_table_grant(tqi_table *table, uint64_t session, tqi_table_owner *owner, uint32_t count, uint64_t *first,
                    tq_error *err);
/* Kills unpublished ids of the session; `writer_done`: nothing writes to them any more. If an id is published or not
 * the session's: TQ_EINVAL, and nothing changes. */
int tqi_table_abandon(tqi_table *table, uint64_t session, const uint64_t *ids, size_t n, bool writer_done,
                      tq_error *err);
/* Cleans up after a session that ended: ids that were never published die (writer_done = dead, except for owners whose
 * writes outlive their writers), and unsettled claims go back. */
void tqi_table_session_end(tqi_table *table, uint64_t session, bool dead);

/* Dead blocks of an owner, oldest first, as ranges; they stay queued until confirmed. */
typedef struct tqi_table_dead {
    uint64_t first;
    uint32_t count;
    bool writer_done;
} tqi_table_dead;
/* Fills at most max; *notice is the number to confirm with (0 if there is nothing). Calling again before that returns
 * the same ones (redelivery), possibly followed by more. */
size_t tqi_table_owner_dead(tqi_table_owner *owner, tqi_table_dead *out, size_t max, uint64_t *notice);
/* All ranges up to that notice were freed. Those whose writer was not done are late until `due`, which never decreases
 * between calls; 0: they are freed for good, too. */
void tqi_table_owner_done(tqi_table_owner *owner, uint64_t notice, uint64_t due);
/* When the first late one is due; UINT64_MAX: there are none. */
uint64_t tqi_table_owner_late(const tqi_table_owner *owner);
/* Late ones due by then become dead once more, with writer_done. */
void tqi_table_owner_late_die(tqi_table_owner *owner, uint64_t now);
/* Whether there are unconfirmed dead ones, or late ones. */
bool tqi_table_owner_has_dead(const tqi_table_owner *owner);
/* While a freeze is open, dead blocks are not reported to their owners, so everything that was live when it was opened
 * can be read until it is closed. NULL may be closed. */
int tqi_table_freeze_open(tqi_table *table, tqi_table_freeze **out, tq_error *err);
void tqi_table_freeze_close(tqi_table *table, tqi_table_freeze *freeze);
/* Owners whose dead queue became non-empty, or that have another sparse block, since the last call; NULL if there are
 * none left. */
tqi_table_owner *tqi_table_next_dead(tqi_table *table);

/* Names blocks of which at least a quarter, and a kilobyte, is dead; at most max ids. Confirm with *number (0 if there
 * are none); calling again before that names the same ones, and maybe more. After that, a block is named again once it
 * has lost half of what it had. Names none while a freeze is open. */
size_t tqi_table_owner_sparse(tqi_table_owner *owner, uint64_t *ids, size_t max, uint64_t *number);
void tqi_table_owner_sparse_done(tqi_table_owner *owner, uint64_t number);
bool tqi_table_owner_has_sparse(const tqi_table_owner *owner);

/* Adjacent live bytes of a block, and where they go in a block that holds only live bytes. */
typedef struct tqi_table_stretch {
    uint64_t begin;
    uint64_t bytes;
    uint64_t place;
} tqi_table_stretch;
typedef struct tqi_table_live {
    size_t n; /* number of blocks answered: the first ids, at least one */
    uint64_t *sizes;
    uint32_t *counts; /* stretches of each; 0: none of it is live, or it is unknown */
    tqi_table_stretch *stretches;
    size_t n_stretches;
    size_t capacity;
} tqi_table_live;
/* Lists the live bytes of blocks. TQ_EAGAIN while a freeze is open, because the old blocks would be kept. Call fini,
 * even after an error. */
int tqi_table_compact_live(tqi_table *table, const uint64_t *ids, size_t n, tqi_table_live *out, tq_error *err);
void tqi_table_live_fini(tqi_table_live *live);

/* Moves a block's live bytes to a new block, an unpublished id of the session. */
typedef struct tqi_table_move {
    uint64_t from;
    tqi_table_batch_block to;
    /* ascending, not touching each other: the parts of it that `to` has */
    const tqi_table_stretch *stretches;
    size_t n;
} tqi_table_move;
/* Relinks the cells of the old blocks that lie in a stretch. Cells outside all stretches stay where they are; a new
 * block without cells dies at once. All or none of the moves. */
int tqi_table_compact_move(tqi_table *table, uint64_t session, const tqi_table_move *moves, size_t n, tq_error *err);

/* Sizes of the tables, for metrics and tests of leaks. */
typedef struct tqi_table_counts {
    uint64_t partitions, samples, live_cells, blocks, ranges, keys, views, claims, shapes, dead, late;
    uint64_t held; /* indexes of clears that have not ended */
} tqi_table_counts;
void tqi_table_count(const tqi_table *table, tqi_table_counts *out);
/* Indexes that were freed and not reused yet. */
uint32_t tqi_table_free_indexes(const tqi_table *table);

#endif
