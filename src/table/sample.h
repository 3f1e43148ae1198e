/*
 * sample.h - samples with their keys, groups and tags, and the partitions that they are in.
 */
#ifndef TQI_TABLE_SAMPLE_H
#define TQI_TABLE_SAMPLE_H

#include "table/records.h"

/* --- sample.c ------------------------------------------------------------- */

static inline tqi_table_sample *tqi_t_place(const tqi_table *table, uint32_t place)
{
    return &table->pages[place >> TQI_T_PAGE_BITS][place & (TQI_T_PAGE - 1)];
}

/* The sample of an index, even a free one; NULL if the index was never used. */
static inline tqi_table_sample *tqi_t_sample(const tqi_table *table, uint32_t index)
{
    uint32_t place = index - table->first_index;

    return place < table->places ? tqi_t_place(table, place) : NULL;
}

/* The sample of an index if it is in the partition (and of that incarnation; 0: any), else NULL. */
tqi_table_sample *tqi_t_member(const tqi_table_partition *partition, uint32_t index, uint32_t incarnation);
/* Determines which indexes the next n samples will get, first freed first, and allocates room for them. */
int tqi_t_samples_plan(tqi_table *table, uint32_t n, uint32_t *indexes, tq_error *err);
/* Pages for places below `end`. */
int tqi_t_samples_reserve(tqi_table *table, uint64_t end, tq_error *err);
/* Takes the next of the planned ones. Cannot fail after a plan. */
tqi_table_sample *tqi_t_sample_take(tqi_table *table, uint32_t *index);
/* Whether the next new sample may get the index. */
static inline bool tqi_t_index_free(const tqi_table_sample *sample)
{
    return sample->partition == NULL && sample->ordinal == 0;
}
/* Appends an index to the queue of free ones. Cannot fail. */
void tqi_t_place_free(tqi_table *table, uint32_t place);
/* Clears one sample: cells, extras, consumption, readiness, row; frees its index (or gives it to the clear that is
 * being begun). Cannot fail. */
void tqi_t_sample_clear(tqi_table_partition *partition, uint32_t index);
void tqi_t_samples_fini(tqi_table *table);

/* Extras with a key ("" or NULL: none), not linked anywhere. */
tqi_table_extras *tqi_t_extras_alloc(const char *key);
/* Links extras into the keys of the partition; TQ_OK or TQ_ENOMEM. */
int tqi_t_key_add(tqi_table_partition *partition, tqi_table_extras *extras);
tqi_table_extras *tqi_t_key_find(const tqi_table_partition *partition, const char *key);
/* Unlinks key and group, frees tags and the extras. */
void tqi_t_extras_free(tqi_table_partition *partition, tqi_table_extras *extras);
/* Puts extras into a group; TQ_OK or TQ_ENOMEM. */
int tqi_t_group_join(tqi_table_partition *partition, tqi_table_extras *extras, const char *name);

/* --- two_phase_clear.c ---------------------------------------------------- */

void tqi_t_clearings_fini(tqi_table *table);

/* --- tag.c ---------------------------------------------------------------- */

/* New tag, not on a sample yet; NULL without memory. */
tqi_table_tag *tqi_t_tag_alloc(tqi_table_partition *partition, const char *name, const uint8_t *value, uint32_t size);
void tqi_t_tag_free(tqi_table_partition *partition, tqi_table_tag *tag);
/* Puts it on the sample; returns the one it replaced, or NULL. *before: how many others precede it. */
tqi_table_tag *tqi_t_tag_set(tqi_table_extras *extras, tqi_table_tag *tag, size_t *before);
/* Takes it back and puts `old` (may be NULL) in its place. */
void tqi_t_tag_unset(tqi_table_extras *extras, const tqi_table_tag *tag, tqi_table_tag *old);

/* --- partition.c ---------------------------------------------------------- */

tqi_table_partition *tqi_t_partition_lookup(const tqi_table *table, const char *name); /* existing or not */
/* Makes another one of that name, as not existing; it can be found by name only once the other one has gone. */
int tqi_t_partition_make(tqi_table *table, const char *name, tqi_table_partition **out, tq_error *err);
/* Finds or makes it, as not existing; the caller gives it a plan or a view, or calls gc. */
int tqi_t_partition_get(tqi_table *table, const char *name, tqi_table_partition **out, tq_error *err);
/* It was written to: from now on it exists. Cannot fail. */
void tqi_t_partition_born(tqi_table_partition *partition);
/* Frees it if it does not exist and nothing refers to it. */
void tqi_t_partition_gc(tqi_table_partition *partition);
/* Reserves room for n more rows in the row list and in all field sets. */
int tqi_t_rows_reserve(tqi_table_partition *partition, size_t n, tq_error *err);
/* The row that the i-th next sample will get. */
uint32_t tqi_t_row_peek(const tqi_table_partition *partition, uint32_t i);
uint32_t tqi_t_row_take(tqi_table_partition *partition);
void tqi_t_row_free(tqi_table_partition *partition, uint32_t row);
/* Drops everything in it, whatever refers to it, and itself. */
void tqi_t_partition_destroy(tqi_table_partition *partition);

#endif
