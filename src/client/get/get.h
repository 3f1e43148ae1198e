/*
 * get.h - a read: types shared by get.c (steps), plan.c (destination), ranges.c and layout.c (row layout).
 */
#ifndef TQI_CLIENT_GET_GET_H
#define TQI_CLIENT_GET_GET_H

#include "client/data/data.h"
#include "client/meta/meta.h"
#include "client/runtime.h"

typedef struct tqi_client_get {
    tqi_client_task task;
    tqi_client_get_job read;
    Tq__Resolve *keys;   /* samples named by keys: how to find them; else NULL */
    tq_meta *found;      /* what that gave */
    tq_meta *meta;       /* as it is known now */
    const char **fields; /* asked for */
    size_t n_fields;
    tq_get_field *layouts; /* of each field; NULL: none was requested */
    void (*release)(void *arg);
    void *release_arg;
    bool resolved;   /* the controller was asked */
    bool in_manager; /* it (or the fill before it) may write to data's buffers */
    bool in_owners;  /* the list of owners was asked for */
    bool zero_copy;
    bool leave_values;
    tqi_manager_borrow_job borrow; /* columns to read in place, or to leave there, in order */
    size_t *borrow_column;         /* of each of its ranges */
    size_t max_borrow_ranges, max_borrow_columns;
    void (*borrowed)(struct tqi_client_get *get);
    tq_data *data;
    uint64_t gaps;        /* bytes to fill between padded rows */
    tq_get_range *ranges; /* of the job */
    size_t n_ranges;
    size_t max_ranges;
    tq_block *blocks; /* of the job */
    tq_block *gone;   /* blocks that the manager did not find; owner names live in gone_names */
    size_t n_gone;
    tqi_region gone_names;
} tqi_client_get;

/* Whether any cell has no placement to read from; with `err`, names them as lost or not ready. */
bool tqi_client_get_missing(const tqi_client_get *get, tq_error *err);
/* Makes data, ranges and blocks for the meta in its present state. */
int tqi_client_get_plan(tqi_client_get *get, tq_error *err);
/* Whether any cell to read lies in a gone block; with `err`, names them as lost. */
bool tqi_client_get_still_gone(const tqi_client_get *get, tq_error *err);

/* ranges.c: plans the ranges of the c-th column, which has memory; called once for each, then
 * tqi_client_get_plan_end. */
int tqi_client_get_plan_ranges(tqi_client_get *get, size_t c, tq_error *err);
int tqi_client_get_plan_end(tqi_client_get *get, tq_error *err);
/* The cells of the c-th column. */
const tqi_client_cells *tqi_client_get_cells(const tqi_client_get *get, size_t c);
/* Notes a range of the c-th column to borrow; false: out of memory. */
bool tqi_client_get_note(tqi_client_get *get, size_t c, const tqi_manager_borrow_range *range);

/* borrow.c: whether the c-th column, which has been laid out, can be read in place; if so, it is noted. */
bool tqi_client_get_may_borrow(tqi_client_get *get, size_t c);
/* leave.c: whether the column can be left in the store; if so, it is noted. */
bool tqi_client_get_may_leave(tqi_client_get *get, size_t c);
/* The manager has located the ranges, from the i-th on, of a column to leave: leaves the column, or drops the located
 * data if it cannot be left. Returns the index of the first range after them. */
size_t tqi_client_get_left(tqi_client_get *get, size_t i);
/* Asks the manager to map the noted columns; `borrowed` is called when it has, and what it could not map is then
 * planned as a copy. False if there is nothing to ask for. */
bool tqi_client_get_borrow(tqi_client_get *get, void (*borrowed)(tqi_client_get *get));
/* The same columns are to be copied. */
int tqi_client_get_copy_instead(tqi_client_get *get, tq_error *err);

/* layout.c: copies the requested layout. */
int tqi_client_get_layouts(tqi_client_get *get, const tq_get_options *options, tq_error *err);
/* Places the rows of column `c`, whose shapes are set, at equal distances if that was requested and the shapes allow
 * it. */
int tqi_client_get_pad(tqi_client_get *get, size_t c, tq_error *err);
/* Memory of the c-th column, for `size` bytes. */
int tqi_client_get_memory(tqi_client_get *get, size_t c, uint64_t size, tq_error *err);
/* Fills the gaps of all columns; any thread. */
void tqi_client_get_fill(tqi_client_get *get);

#endif
