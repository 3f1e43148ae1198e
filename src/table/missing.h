/*
 * missing.h - error messages about samples, keys and fields that do not exist (any more).
 */
#ifndef TQI_TABLE_MISSING_H
#define TQI_TABLE_MISSING_H

#include "table/records.h"

/* TQ_ECLEARED: names the samples that are not members, and says when a checkpoint replaced them. */
int tqi_t_cleared(const tqi_table_partition *partition, const uint32_t *indexes, const uint32_t *incarnations, size_t n,
                  tq_error *err);
/* TQ_EKEY, TQ_EFIELD: list what exists; the name may be NULL. */
int tqi_t_unknown_key(const tqi_table_partition *partition, const char *key, tq_error *err);
int tqi_t_unknown_field(const tqi_table_partition *partition, const char *name, tq_error *err);

#endif
