/*
 * publish_plan.h - a planned publish or reservation: everything is checked and allocated, nothing is visible to others
 * yet.
 *
 * Steps in order: begin, samples, tags, blocks, fields, then the result is described, then commit. tqi_t_plan_fini
 * ends a plan in any state: it undoes whatever was not committed.
 */
#ifndef TQI_TABLE_PUBLISH_PLAN_H
#define TQI_TABLE_PUBLISH_PLAN_H

#include "base/type.h"
#include "table/result.h"

typedef struct tqi_table_plan_tag {
    tqi_table_extras *extras;
    tqi_table_tag *tag;
    tqi_table_tag *old; /* what it replaced */
} tqi_table_plan_tag;

typedef struct tqi_table_plan_field {
    const tqi_table_batch_field *in;
    tqi_table_field *field;
    uint32_t *shapes;          /* per row; NULL: `shape` */
    uint32_t shape;            /* uniform */
    uint64_t counted;          /* uniform: cells it is counted for; ragged: rows of `shapes` that are counted */
    tqi_table_opaque **opaque; /* per row, NULL: none */
    uint64_t produced;         /* cells */
    uint32_t schema;           /* shape of the field after the commit, none = ragged; counted once if it is new */
    bool learns;               /* it has no schema yet */
    bool turns_ragged;
    bool switches; /* to the type below */
    /* of the field after the commit: the type of rows whose shapes do not record another */
    uint32_t type;
    uint8_t ragged_dim; /* of the field after the commit */
    uint32_t like;      /* shape of the field after the commit; not counted for it */
} tqi_table_plan_field;

typedef struct tqi_table_plan {
    tqi_table *table;
    const tqi_table_batch *batch;
    tqi_table_partition *partition;
    tqi_table_naming naming;
    size_t n;
    tqi_table_row *rows; /* per row of the batch */
    uint32_t *fresh;     /* indexes the new samples will get */
    size_t *fresh_row;   /* row of the batch that made each of them */
    uint32_t n_fresh;
    uint32_t max_row; /* one more than the largest row in use after the commit */
    tqi_table_plan_tag *tags;
    size_t n_tags;
    size_t tags_capacity;
    tqi_table_range **ranges; /* per block */
    uint32_t *handles;
    size_t n_ranges;
    tqi_table_plan_field *fields;
    size_t n_fields;
    bool committed;
} tqi_table_plan;

/* Walks the runs of a field row by row. */
typedef struct tqi_table_plan_walk {
    const tqi_table_batch_field *in;
    size_t run;
    uint32_t left; /* rows of the run */
} tqi_table_plan_walk;

static inline const tqi_table_run *tqi_t_plan_next(tqi_table_plan_walk *walk)
{
    if (walk->left == 0) {
        walk->left = walk->in->runs[walk->run++].rows;
    }
    walk->left--;
    return &walk->in->runs[walk->run - 1];
}

static inline uint32_t tqi_t_plan_given_type(const tqi_table_batch_field *in, size_t row)
{
    return in->types != NULL ? in->types[row] : tqi_type_pack(in->kind, in->dtype);
}

/* --- publish_plan.c ------------------------------------------------------- */

int tqi_t_plan_begin(tqi_table_plan *plan, tqi_table *table, const tqi_table_batch *batch, tqi_table_naming naming,
                     tq_error *err);
/* Finds the samples of the rows; makes new ones. */
int tqi_t_plan_samples(tqi_table_plan *plan, bool create, tq_error *err);
/* Merges tags: visible at once, taken back by fini. */
int tqi_t_plan_tags(tqi_table_plan *plan, tq_error *err);
int tqi_t_plan_blocks(tqi_table_plan *plan, uint64_t session, tq_error *err);
/* Why a block cannot be published or restored: that incarnation of its owner no longer exists (TQ_ESTALE), or the block
 * is not the session's. */
int tqi_t_block_refuse(tqi_table *table, const tqi_table_batch_block *block, tq_error *err);
void tqi_t_plan_fini(tqi_table_plan *plan);

/* --- publish_type.c ------------------------------------------------------- */

/* TQ_EINVAL for a kind or dtype that does not exist. */
int tqi_t_plan_check_type(const tqi_table_batch_field *in, uint32_t type, tq_error *err);
/* Finds the type that the field has after the commit. TQ_EDTYPE if the schema is strict and rows have another. */
int tqi_t_plan_type(const tqi_table_plan *plan, tqi_table_plan_field *out, tq_error *err);

/* --- publish_fields.c ----------------------------------------------------- */

int tqi_t_plan_fields(tqi_table_plan *plan, tq_error *err);
/* Describes the fields: name, kind, dtype and shape of the schema. */
int tqi_t_plan_describe(const tqi_table_plan *plan, tqi_table_result *result, tq_error *err);
/* Links all cells. Cannot fail. */
void tqi_t_plan_link(tqi_table_plan *plan);
/* Frees what plan_fields made; shapes and opaque bytes only when the plan was not committed. */
void tqi_t_plan_fields_fini(tqi_table_plan *plan);

#endif
