/*
 * ledger.h - a naive model of the controller's table with its values: what must be in it after each commit.
 *
 * One per table, in the simulator's memory. Samples lie in an array by place (index - first index), blocks in an array
 * found by id; everything else is found by a walk. Names (of partitions, fields, keys, tasks ...) are kept once each
 * for the whole seed, so that equal names are equal pointers; so are shapes.
 */
#ifndef TQ_SIM_ORACLE_LEDGER_H
#define TQ_SIM_ORACLE_LEDGER_H

#include <string.h>

#include "oracle/witness.h"
#include "table/snapshot.h"
#include "table/table.h"

/* --- maps, names, shapes: ledger.c ------------------------------------------ */

/* From a number to a number that is not 0. */
typedef struct ledger_map {
    uint64_t *keys;
    uint32_t *values;
    uint32_t size; /* a power of two, or 0 */
    uint32_t used;
} ledger_map;

uint32_t ledger_map_get(const ledger_map *map, uint64_t key); /* 0: none */
void ledger_map_set(ledger_map *map, uint64_t key, uint32_t value);
void ledger_map_drop(ledger_map *map, uint64_t key);
void ledger_map_fini(ledger_map *map);

/* The one copy of that text; NULL for NULL and "". */
const char *ledger_name(const char *text);
/* A small number that stands for the name. */
uint32_t ledger_name_id(const char *name);

typedef struct ledger_shape {
    uint32_t ndim;
    uint64_t elements;
    uint64_t dims[];
} ledger_shape;
const ledger_shape *ledger_shape_of(uint32_t ndim, const uint64_t *dims);

/* Memory that stays until the end of the seed. */
void *ledger_keep(size_t size);
/* All of the above goes. */
void ledger_forget(void);
/* At least n places. */
#define LEDGER_GROW(array, capacity, n)                                                                \
    do {                                                                                               \
        if ((n) > (capacity)) {                                                                        \
            uint32_t ledger_before = (capacity);                                                       \
            (capacity) = (uint32_t)(n) + (capacity) / 2 + 4;                                           \
            (array) = sim_realloc((array), (size_t)(capacity) * sizeof(*(array)));                     \
            memset((array) + ledger_before, 0, (size_t)((capacity)-ledger_before) * sizeof(*(array))); \
        }                                                                                              \
    } while (0)

/* --- records ----------------------------------------------------------------- */

typedef struct ledger_partition ledger_partition;

typedef enum ledger_cell_state {
    LEDGER_NONE,
    LEDGER_LOST,
    LEDGER_STORED,
    LEDGER_OPAQUE
} ledger_cell_state;

typedef struct ledger_cell {
    ledger_cell_state state;
    uint32_t block;  /* place in the blocks; stored ones */
    uint64_t offset; /* stored: in the block; opaque: size of its bytes */
    uint64_t opaque; /* hash of its bytes */
    uint32_t type;   /* of base/type.h */
    const ledger_shape *shape;
} ledger_cell;

typedef struct ledger_tag {
    const char *name;
    uint32_t size;
    uint64_t hash; /* of its value */
} ledger_tag;

typedef struct ledger_sample {
    ledger_partition *partition; /* NULL: free, held, or never used */
    uint32_t incarnation;
    bool held;
    bool marked; /* scratch */
    uint64_t ordinal;
    const char *key, *group;
    uint32_t n_cells, cells_capacity; /* by field of the partition */
    uint32_t n_tags, tags_capacity;
    ledger_cell *cells;
    ledger_tag *tags;
} ledger_sample;

typedef struct ledger_field {
    const char *name;
    uint32_t produced, lost;
} ledger_field;

typedef struct ledger_pick {
    const char *slot;
    uint32_t n;
    witness_sample *samples;
} ledger_pick;

typedef struct ledger_task {
    const char *name;
    uint32_t n_consumed;
    uint32_t words;
    uint64_t *consumed; /* bit per place */
    ledger_pick *picks;
    uint32_t n_picks, picks_capacity;
} ledger_task;

struct ledger_partition {
    const char *name;
    bool exists;
    uint64_t born; /* operation since which it exists, and by which existing ones are ordered */
    uint32_t samples;
    uint64_t next_ordinal;
    uint64_t bytes, live_cells;
    ledger_field *fields;
    uint32_t n_fields, fields_capacity;
    ledger_task *tasks;
    uint32_t n_tasks, tasks_capacity;
};

typedef struct ledger_owner {
    const char *name; /* NULL: it is gone */
    uint64_t incarnation;
    const tqi_table_owner *record;
    uint64_t before; /* the last block that was granted before it came */
    bool outlives;
    bool dropping;
    uint64_t blocks, bytes; /* live ones */
    uint32_t dead, late;
} ledger_owner;

typedef enum ledger_block_state {
    LEDGER_FREE,
    LEDGER_GRANTED,
    LEDGER_LIVE,
    LEDGER_DEAD,
    LEDGER_LATE
} ledger_block_state;

typedef struct ledger_block {
    ledger_block_state state;
    bool writer_done;
    bool told; /* its owner knows that it is dead */
    uint64_t id, size, session;
    uint64_t due;  /* late until then */
    uint64_t died; /* number of the operation */
    uint32_t owner;
    uint32_t live;
    uint64_t live_bytes;
    uint32_t locator_size;
    uint64_t locator; /* hash */
    uint32_t move;    /* scratch: its move plus 1 */
    ledger_partition *partition;
} ledger_block;

typedef struct ledger_claim {
    uint64_t id; /* 0: none */
    uint64_t session, request;
    ledger_partition *partition;
    const char *task;
    bool gone; /* its task was reset or cleared since: it gives nothing back */
    uint32_t n;
    witness_sample *samples;
} ledger_claim;

typedef struct ledger_session {
    uint64_t number;
    const char *name;
    uint64_t pid;
} ledger_session;

typedef struct ledger_clearing {
    const tqi_table_clearing *record;
    uint32_t n;
    uint32_t *places;
} ledger_clearing;

typedef struct ledger_freeze {
    const tqi_table_freeze *record;
    uint64_t since; /* operations */
} ledger_freeze;

/* The request that a commit comes from. */
typedef struct ledger_request {
    uint64_t session; /* 0: none */
    uint64_t number;
    uint16_t kind;
} ledger_request;

typedef struct ledger {
    const tqi_table *table;
    sim_process *process;
    uint64_t pid;
    tqi_table_options options;
    bool inside;            /* a call of the table runs, and the calls that it makes are parts of it */
    uint64_t operation;     /* number of these calls */
    ledger_request handled; /* the request whose handler runs */
    ledger_request asked;   /* the one whose session was asked for last */
    ledger_sample *samples;
    uint32_t places, samples_capacity;
    uint32_t *free_queue; /* a ring */
    uint32_t free_first, n_free, free_capacity;
    ledger_partition **partitions;
    uint32_t n_partitions, partitions_capacity;
    ledger_map partition_map, keys;
    ledger_owner *owners;
    uint32_t n_owners, owners_capacity;
    ledger_block *blocks;
    uint32_t n_blocks, blocks_capacity;
    uint32_t *free_blocks;
    uint32_t n_free_blocks, free_blocks_capacity;
    ledger_map block_map;
    ledger_claim *claims;
    uint32_t n_claims, claims_capacity;
    ledger_map claim_map;
    ledger_session *sessions;
    uint32_t n_sessions, sessions_capacity;
    ledger_clearing *clearings;
    uint32_t n_clearings, clearings_capacity;
    ledger_clearing *clearing; /* that is being begun: takes the freed places */
    ledger_freeze *freezes;
    uint32_t n_freezes, freezes_capacity;
    witness_sample *gone; /* samples that the current commit cleared, in that order */
    uint32_t n_gone, gone_capacity;
    uint32_t *scratch;
    uint32_t scratch_capacity;
    uint32_t *block_places; /* of a batch's blocks; UINT32_MAX: its cells are lost */
    uint32_t block_places_capacity;
    uint64_t next_claim, next_born;
    uint64_t last_granted; /* block */
    struct ledger *next;
} ledger;

/* --- ledger.c ---------------------------------------------------------------- */

ledger *ledger_open(const tqi_table *table, const tqi_table_options *options);
void ledger_close(ledger *l);
static inline uint32_t ledger_index(const ledger *l, uint32_t place)
{
    return l->options.first_index + place;
}
/* The sample of an index in the partition (and of that incarnation; 0: any); NULL: none. */
ledger_sample *ledger_member(const ledger *l, const ledger_partition *partition, uint32_t index, uint32_t incarnation);
static inline uint32_t ledger_place(const ledger *l, const ledger_sample *sample)
{
    return (uint32_t)(sample - l->samples);
}
static inline witness_sample ledger_named(const ledger *l, const ledger_sample *sample)
{
    return (witness_sample){ledger_index(l, ledger_place(l, sample)), sample->incarnation};
}
/* Places of the partition's samples by ascending index, in l->scratch; returns how many. */
uint32_t ledger_list(ledger *l, const ledger_partition *partition);
ledger_partition *ledger_partition_find(const ledger *l, const char *name); /* existing ones */
ledger_partition *ledger_partition_get(ledger *l, const char *name);
ledger_sample *ledger_key_find(const ledger *l, const ledger_partition *partition, const char *key);
void ledger_key_add(ledger *l, ledger_sample *sample, const char *key);
/* It was written to. */
void ledger_born(ledger *l, ledger_partition *partition);
/* The next new sample. */
ledger_sample *ledger_join(ledger *l, ledger_partition *partition);
void ledger_place_free(ledger *l, uint32_t place);
void ledger_clear_sample(ledger *l, ledger_sample *sample); /* adds it to l->gone */
void ledger_clear_partition(ledger *l, ledger_partition *partition);
void ledger_tag_set(ledger_sample *sample, const char *name, const void *value, uint32_t size);

/* The field's place in the partition; made if there is none. */
uint32_t ledger_field_get(ledger_partition *partition, const char *name);
int64_t ledger_field_find(const ledger_partition *partition, const char *name); /* -1: none with cells */
static inline const ledger_cell *ledger_cell_of(const ledger_sample *sample, uint32_t field)
{
    static const ledger_cell none;

    return field < sample->n_cells ? &sample->cells[field] : &none;
}
uint64_t ledger_cell_bytes(const ledger_cell *cell);
/* Whether the cell has a say in its field's type: tensors without elements have none. */
bool ledger_cell_filled(const ledger_cell *cell);
/* Replaces a cell; blocks without cells die. */
void ledger_cell_set(ledger *l, ledger_sample *sample, uint32_t field, const ledger_cell *cell);
static inline bool ledger_produced(const ledger_cell *cell)
{
    return cell->state >= LEDGER_STORED;
}

ledger_task *ledger_task_find(const ledger_partition *partition, const char *name);
ledger_task *ledger_task_get(ledger_partition *partition, const char *name);
bool ledger_consumed(const ledger_task *task, uint32_t place);
void ledger_consume(ledger_task *task, uint32_t place, bool on);
void ledger_task_reset(ledger *l, ledger_partition *partition, ledger_task *task);
bool ledger_is_picked(const ledger_task *task, witness_sample sample);
void ledger_pick_set(ledger_task *task, const char *slot, const witness_sample *samples, uint32_t n);

/* --- ledger_blocks.c ----------------------------------------------------------- */

ledger_owner *ledger_owner_find(const ledger *l, const tqi_table_owner *record);
ledger_owner *ledger_owner_named(const ledger *l, const char *name);
ledger_owner *ledger_owner_add(ledger *l, const tqi_table_owner *record, const char *name, uint64_t incarnation);
uint32_t ledger_block_find(const ledger *l, uint64_t id); /* place plus 1; 0: none */
uint32_t ledger_block_new(ledger *l, uint64_t id);
void ledger_block_free(ledger *l, uint32_t place);
void ledger_block_die(ledger *l, uint32_t place, bool writer_done);
/* Makes a granted block live, held by one reference. */
void ledger_block_live(ledger *l, uint32_t place, const tqi_table_batch_block *from, ledger_partition *partition);
void ledger_block_unref(ledger *l, uint32_t place);
/* A granted block of that session and owner; -1: it is not. */
int64_t ledger_block_granted(const ledger *l, uint64_t session, const tqi_table_batch_block *block);

/* --- ledger_batch.c -------------------------------------------------------------- */

/* What the rows of a batch's field are, one by one. */
typedef struct ledger_walk {
    const tqi_table_batch *batch;
    const tqi_table_batch_field *field;
    size_t row, run, at_dim;
    uint32_t left;   /* rows of the run */
    uint64_t offset; /* of the next row in its block */
} ledger_walk;
/* The next row as a cell; its `block` is what the run says. */
void ledger_walk_next(ledger_walk *walk, ledger_cell *cell);
uint64_t ledger_hash(const void *bytes, size_t size);
/* Checks what the table says of samples (indexes, incarnations, ordinals from `first`; keys, groups and tags when
 * asked for; fields with cells when `cells`) against the ledger. */
typedef struct ledger_said {
    const char *what;
    uint64_t first_ordinal;
    bool keys, tags, cells;
} ledger_said;
void ledger_check_batch(const ledger *l, const ledger_partition *partition, const tqi_table_batch *batch,
                        const ledger_said *said);

/* --- ledger_compare.c -------------------------------------------------------------- */

/* The whole table. */
void ledger_compare(ledger *l);

/* --- witness.c ------------------------------------------------------------------- */

/* The ledger of the table; NULL: it has none, or this call is part of another one of the table. */
ledger *witness_enter(const tqi_table *table);
/* The same for a call that changes nothing. */
ledger *witness_look(const tqi_table *table);
/* The call is over; the next one may come. */
void witness_leave(ledger *l);
/* The state of a block of that owner, as the controller has it; LEDGER_FREE: unknown. */
ledger_block_state witness_block(const char *owner, uint64_t incarnation, uint64_t id);
/* A commit of the request that is handled (`asked`: of the one whose session was asked for last), or of none. */
witness_commit *witness_add(ledger *l, witness_kind kind, const ledger_request *request);
/* Its samples are those that were cleared. */
void witness_gone(ledger *l, witness_commit *commit);
/* After every commit, and refusal: now and then everything is compared. */
void witness_checked(ledger *l, bool refused);

/* Called after each restore that was committed; NULL: by nobody. */
extern void (*witness_on_restore)(ledger *l, const tqi_table_restore_state *ask, bool renumbered);

/* The samples, kept. */
const witness_sample *witness_samples(const witness_sample *samples, uint32_t n);

#define WITNESS_WRAP(type, name, ...) \
    type __real_##name(__VA_ARGS__);  \
    type __wrap_##name(__VA_ARGS__);  \
    type __wrap_##name(__VA_ARGS__)

#endif
