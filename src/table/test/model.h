/*
 * model.h - a naive model of the table in plain arrays, for model_test.c: everything is found by linear search.
 */
#ifndef TQI_TABLE_TEST_MODEL_H
#define TQI_TABLE_TEST_MODEL_H

#include "table/table.h"

#define M_PARTITIONS 3
#define M_PLACES     96
#define M_FIELDS     5
#define M_TASKS      2
#define M_TAGS       2
#define M_KEYS       10
#define M_GROUPS     3
#define M_OWNERS     2
#define M_SESSIONS   2
#define M_BLOCKS     1024
#define M_CLAIMS     24
#define M_ROWS       8
#define M_CLEARS     3

typedef enum model_cell_state {
    CELL_NONE,
    CELL_LOST,
    CELL_STORED,
    CELL_OPAQUE
} model_cell_state;

typedef struct model_shape {
    uint32_t ndim;
    uint64_t dims[2];
} model_shape;

typedef struct model_cell {
    model_cell_state state;
    uint64_t block;
    uint32_t slot; /* of the block in model.blocks */
    uint64_t offset;
    uint32_t opaque;
    model_shape shape;
    bool wide;  /* int64, else float32 */
    bool typed; /* its shape records it, because its field had the other type */
} model_cell;

typedef struct model_sample {
    int partition; /* -1: free */
    uint32_t incarnation;
    uint64_t ordinal;
    int key;               /* -1: none */
    int group;             /* -1: none */
    uint32_t tags[M_TAGS]; /* 0: none */
    bool consumed[M_TASKS];
    model_cell cells[M_FIELDS];
} model_sample;

typedef struct model_field {
    bool known;
    bool wide; /* what its rows are that are not typed */
    bool ragged;
    model_shape shape;
    bool varies[2];   /* which dims of rows of two are ragged */
    model_shape like; /* ndim 0: no row has two dims yet */
    uint64_t order;
} model_field;

typedef struct model_partition {
    bool exists;
    uint64_t next_ordinal;
    uint64_t generation[M_TASKS];
    model_field fields[M_FIELDS];
} model_partition;

typedef enum model_block_state {
    BLOCK_FREE,
    BLOCK_GRANTED,
    BLOCK_LIVE,
    BLOCK_DEAD,
    BLOCK_LATE
} model_block_state;

typedef struct model_block {
    model_block_state state;
    uint64_t id;
    uint64_t size;
    int owner;
    int session;
    bool writer_done;
    uint64_t due; /* late until then */
} model_block;

typedef struct model_claim {
    uint64_t id; /* 0: unused */
    int session;
    int partition;
    int task;
    uint64_t generation;
    uint32_t n;
    uint32_t places[M_ROWS * 2];
    uint32_t incarnations[M_ROWS * 2];
} model_claim;

typedef struct model {
    tqi_table_options options;
    model_sample samples[M_PLACES];
    uint32_t n_places; /* ever used */
    uint32_t free_queue[M_PLACES];
    uint32_t n_free;
    uint32_t held[M_CLEARS][M_PLACES]; /* of clears that have begun */
    uint32_t n_held[M_CLEARS];
    int holding; /* clears hold for this one; -1: none */
    model_partition partitions[M_PARTITIONS];
    uint64_t field_order;
    model_block blocks[M_BLOCKS];
    model_claim claims[M_CLAIMS];
    uint64_t owner_incarnation[M_OWNERS];
} model;

void model_init(model *m, const tqi_table_options *options);
/* Index of a place and back; the one index that is never used is skipped. */
uint32_t model_index(const model *m, uint32_t place);
uint32_t model_place(const model *m, uint32_t index);
/* The place that the next new sample gets; makes it a member. */
uint32_t model_join(model *m, int partition, int key, int group);
uint32_t model_room(const model *m); /* samples that can still join */
void model_clear(model *m, uint32_t place);
void model_clear_partition(model *m, int partition);
void model_reset(model *m, int partition, int task);
/* The indexes that a clear holds are free. */
void model_release_held(model *m, int clear);
/* A partition (-1: all) was put back as it was. */
void model_restore(model *m, int partition);
int model_find_key(const model *m, int partition, int key); /* place, -1: none */

/* Learns the schema from cells that are to be set, and says which of them are typed. */
void model_learn(model *m, int partition, int field, model_cell *cells, const int *places, size_t n);
/* Whether the row has a say in its field's type. */
bool model_filled(const model_cell *cell);
/* The ragged dim of a field. */
uint8_t model_ragged_dim(const model_field *field);
void model_link(model *m, uint32_t place, int field, const model_cell *cell);
/* Blocks without cells die, fields without cells are forgotten. */
void model_settle(model *m);

uint64_t model_bytes(const model_cell *cell);
model_block *model_block_find(model *m, uint64_t id);
model_block *model_block_new(model *m);
void model_lose_block(model *m, uint64_t id);
void model_lose_owner(model *m, int owner);
void model_release(model *m, model_claim *claim);
bool model_ready(const model *m, uint32_t place, unsigned fields);
bool model_shape_equal(const model_shape *a, const model_shape *b);

#endif
