/*
 * result.h - descriptions of samples and cells, as batches.
 */
#ifndef TQI_TABLE_RESULT_H
#define TQI_TABLE_RESULT_H

#include "table/records.h"

/* A sample in a batch that is being described. */
typedef struct tqi_table_row {
    uint32_t index;
    uint32_t incarnation;
    uint32_t row;
    uint64_t ordinal;
    tqi_table_extras *extras;
} tqi_table_row;

static inline tqi_table_row tqi_t_row_of(uint32_t index, const tqi_table_sample *sample)
{
    return (tqi_table_row){index, sample->incarnation, sample->row, sample->ordinal, sample->extras};
}

/* Partition, indexes, incarnations, ordinals; with `extras` also keys, groups and tags. */
int tqi_t_describe_samples(tqi_table_partition *partition, const tqi_table_row *rows, size_t n, bool keys, bool tags,
                           tqi_table_result *result, tq_error *err);
/* Fields with shapes, runs and blocks. */
int tqi_t_describe_fields(tqi_table_partition *partition, const tqi_table_row *rows, size_t n,
                          tqi_table_field *const *fields, size_t n_fields, tqi_table_result *result, tq_error *err);
/* Tags of the rows as columns. */
int tqi_t_tags_describe(tqi_table *table, const tqi_table_row *rows, size_t n, tqi_table_result *result, tq_error *err);

#endif
