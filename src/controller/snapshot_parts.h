/*
 * snapshot_parts.h - a snapshot as packed parts (SnapshotPart): the form kept between requests and stored in the state
 * file of a checkpoint.
 */
#ifndef TQI_CONTROLLER_SNAPSHOT_PARTS_H
#define TQI_CONTROLLER_SNAPSHOT_PARTS_H

#include "controller/convert.h"
#include "table/snapshot.h"

/* Zero-initialise. */
typedef struct tqi_ctl_parts {
    ProtobufCBinaryData *parts;
    size_t n;
    size_t capacity;
    uint64_t samples; /* taken */
} tqi_ctl_parts;

/* Appends a copy. */
int tqi_ctl_parts_add(tqi_ctl_parts *parts, const uint8_t *bytes, size_t size, tq_error *err);
/* Takes the partition named by `only` ("": all). */
int tqi_ctl_parts_take(tqi_table *table, const char *only, tqi_ctl_parts *parts, tq_error *err);
void tqi_ctl_parts_fini(tqi_ctl_parts *parts);

/* Parts in the form the table takes. Zero-initialise. */
typedef struct tqi_ctl_reading {
    bool strange; /* set beforehand: blocks are of another epoch, so none of them exists here */
    tqi_table_snap_partition *partitions;
    size_t n_partitions;
    tqi_region conv;
    Tq__SnapshotPart **messages;
    size_t n_messages;
    tqi_table_snap_rows *rows;
    size_t n_rows;
} tqi_ctl_reading;

/* Decodes and checks the parts, which must outlive it. */
int tqi_ctl_parts_read(const tqi_ctl_parts *parts, tqi_ctl_reading *reading, tq_error *err);
void tqi_ctl_reading_fini(tqi_ctl_reading *reading);

#endif
