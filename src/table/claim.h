/*
 * claim.h - which samples are ready for whom, and which have been taken.
 */
#ifndef TQI_TABLE_CLAIM_H
#define TQI_TABLE_CLAIM_H

#include "table/records.h"

/* --- ready.c -------------------------------------------------------------- */

/* A sample joins with this row. Cannot fail; room was reserved. */
void tqi_t_ready_join(tqi_table_partition *partition, uint32_t row);
/* A sample leaves: out of all field sets, views and tasks. */
void tqi_t_ready_leave(tqi_table_partition *partition, uint32_t index, uint32_t row);
/* A cell is produced / not any more. */
void tqi_t_ready_gain(tqi_table_field *field, uint32_t index, uint32_t row);
void tqi_t_ready_lose(tqi_table_field *field, uint32_t index, uint32_t row);
void tqi_t_task_consume(tqi_table_task *task, uint32_t index);
void tqi_t_task_free_sample(tqi_table_task *task, uint32_t index);
/* Counts what the existing samples lack. Cannot fail. */
void tqi_t_set_fill(tqi_table_set *set);
/* All members were added at once: recounts what is ready. Cannot fail. */
void tqi_t_views_fill(tqi_table_partition *partition);
tqi_table_task *tqi_t_task_find(const tqi_table_partition *partition, const char *name);
int tqi_t_task_get(tqi_table_partition *partition, const char *name, tqi_table_task **out);
/* Forgets what the task consumed and picked; its claims then give nothing back. */
void tqi_t_task_reset(tqi_table_task *task);
/* Frees the task if nothing refers to it any more. */
void tqi_t_task_gc(tqi_table_task *task);
void tqi_t_cached_pick_free(tqi_table_task *task, tqi_table_cached_pick *pick);

/* --- view.c --------------------------------------------------------------- */

int tqi_t_set_reserve(tqi_table_set *set, size_t rows, tq_error *err);
/* The same view on another partition that has no members yet; not held. */
int tqi_t_view_twin(const tqi_table_view *view, tqi_table_partition *partition, tqi_table_view **out, tq_error *err);
/* After the partition was cleared: frees views without references, and tasks and sets without views. */
void tqi_t_views_reset(tqi_table_partition *partition);
/* Frees all views, held or not. */
void tqi_t_views_destroy(tqi_table_partition *partition);

/* --- claim.c -------------------------------------------------------------- */

void tqi_t_claim_free(tqi_table *table, tqi_table_claim *claim);
/* A cached pick of n samples for the task, all of them yet to be filled in; it replaces one of that name. */
int tqi_t_cached_pick_make(tqi_table_task *task, const char *name, uint32_t n, tqi_table_cached_pick **out,
                           tq_error *err);

#endif
