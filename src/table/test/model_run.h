/*
 * model_run.h - one random run of the table beside its model, shared by the files of model_test.
 */
#ifndef TQI_TABLE_TEST_MODEL_RUN_H
#define TQI_TABLE_TEST_MODEL_RUN_H

#include "table/test/model.h"
#include "table/test/testkit.h"

#define MODEL_VIEWS 6

extern const char *const model_partitions[M_PARTITIONS];
extern const char *const model_fields[M_FIELDS];
extern const char *const model_tasks[M_TASKS];
extern const char *const model_tags[M_TAGS];
extern const char *const model_keys[M_KEYS];
extern const char *const model_groups[M_GROUPS];
extern const char *const model_owners[M_OWNERS];

typedef struct held_view {
    tqi_table_view *view; /* NULL: unused */
    int partition;
    int task;
    unsigned fields;
    bool was[M_PLACES]; /* ready before the operation */
    bool touched;
} held_view;

typedef struct run {
    model m;
    tqi_table *table;
    tqi_table_owner *owners[M_OWNERS];
    held_view views[MODEL_VIEWS];
    tqi_table_clearing *clearings[M_CLEARS]; /* NULL: has not begun */
    uint64_t state;                          /* of the random numbers */
    uint64_t now;                            /* for late blocks */
    tq_error err;
} run;

/* A random number below `below`. */
uint32_t rnd(run *r, uint32_t below);
/* A random live sample of the partition, or -1. */
int rnd_sample(run *r, int partition);
/* Whether the model has the sample ready for the view. */
bool model_avail(const run *r, const held_view *held, uint32_t place);

void op_publish(run *r);
/* Any other operation, by a number below 60. */
void op_other(run *r, uint32_t which);
/* After each operation. */
void check_views(run *r);
void check_counts(const run *r);
/* Everything that can be read. */
void check_all(run *r);

#endif
