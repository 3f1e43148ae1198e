/*
 * snapshot_pack.c - taking a snapshot: the state of partitions, packed into parts.
 */
#include "controller/snapshot_parts.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/error.h"
#include "base/pointer.h"
#include "base/type.h"
#include "wire/frame.h"

/* Most samples in one part, and the size that it should stay below. */
#define SNAPSHOT_PIECE      1024u
#define SNAPSHOT_PART_BYTES (16u << 20)

static int parts_fields(tqi_region *conv, const tqi_table_snap_partition *in, Tq__SnapshotPartition *out, tq_error *err)
{
    Tq__FieldInfo *items = tqi_ctl_conv_alloc(conv, in->n_fields, sizeof(*items), err);

    out->field = tqi_ctl_conv_pointers(conv, in->n_fields, err);
    if (items == NULL || out->field == NULL) {
        return TQ_ENOMEM;
    }
    for (size_t i = 0; i < in->n_fields; i++) {
        const tqi_table_field_info *field = &in->fields[i];
        tq__field_info__init(&items[i]);
        items[i].name = tqi_ctl_conv_text(field->name);
        items[i].kind = field->kind;
        items[i].dtype = tqi_type_pack(0, field->dtype);
        items[i].ragged = field->ragged;
        items[i].ragged_dim = field->ragged_dim;
        items[i].mixed = field->mixed;
        items[i].shape = tqi_unconst(field->shape);
        items[i].n_shape = field->ragged ? 0 : field->ndim;
        out->field[out->n_field++] = &items[i];
    }
    return TQ_OK;
}

static int parts_cached_picks(tqi_region *conv, const tqi_table_snap_task *in, Tq__SnapshotTask *out, tq_error *err)
{
    Tq__SnapshotSlot *items = tqi_ctl_conv_alloc(conv, in->n_cached_picks, sizeof(*items), err);

    out->slot = tqi_ctl_conv_pointers(conv, in->n_cached_picks, err);
    if (items == NULL || out->slot == NULL) {
        return TQ_ENOMEM;
    }
    for (size_t i = 0; i < in->n_cached_picks; i++) {
        tq__snapshot_slot__init(&items[i]);
        items[i].name = tqi_ctl_conv_text(in->cached_picks[i].name);
        items[i].index = tqi_unconst(in->cached_picks[i].indexes);
        items[i].n_index = in->cached_picks[i].n;
        out->slot[out->n_slot++] = &items[i];
    }
    return TQ_OK;
}

static int parts_tasks(tqi_region *conv, const tqi_table_snap_partition *in, Tq__SnapshotPartition *out, tq_error *err)
{
    Tq__SnapshotTask *items = tqi_ctl_conv_alloc(conv, in->n_tasks, sizeof(*items), err);

    out->task = tqi_ctl_conv_pointers(conv, in->n_tasks, err);
    int rc = items != NULL && out->task != NULL ? TQ_OK : TQ_ENOMEM;
    for (size_t i = 0; i < in->n_tasks && rc == TQ_OK; i++) {
        tq__snapshot_task__init(&items[i]);
        items[i].name = tqi_ctl_conv_text(in->tasks[i].name);
        rc = parts_cached_picks(conv, &in->tasks[i], &items[i], err);
        out->task[out->n_task++] = &items[i];
    }
    return rc;
}

/* Room for one part of that size. */
static uint8_t *parts_room(tqi_ctl_parts *parts, size_t size, tq_error *err)
{
    uint8_t *bytes = NULL;

    if (size > TQI_FRAME_BODY_MAX - 64) {
        tqi_error_set(err, TQ_EUNSUPPORTED, "a part of a snapshot has %zu bytes, at most %u are possible", size,
                      TQI_FRAME_BODY_MAX - 64);
        return NULL;
    }
    if (tqi_grow(&parts->parts, &parts->capacity, parts->n + 1, sizeof(*parts->parts)) != TQ_OK ||
        (bytes = malloc(size ? size : 1)) == NULL) {
        tqi_error_nomem(err, "a snapshot");
        return NULL;
    }
    parts->parts[parts->n++] = (ProtobufCBinaryData){.data = bytes, .len = size};
    return bytes;
}

int tqi_ctl_parts_add(tqi_ctl_parts *parts, const uint8_t *bytes, size_t size, tq_error *err)
{
    uint8_t *copy = parts_room(parts, size, err);

    if (copy != NULL && size) {
        memcpy(copy, bytes, size);
    }
    return copy != NULL ? TQ_OK : err->code;
}

/* Packs a part and appends it. */
static int parts_add(tqi_ctl_parts *parts, const Tq__SnapshotPart *part, size_t size, tq_error *err)
{
    uint8_t *bytes = parts_room(parts, size, err);

    if (bytes != NULL) {
        tq__snapshot_part__pack(part, bytes);
    }
    return bytes != NULL ? TQ_OK : err->code;
}

static int parts_head(tqi_ctl_parts *parts, tqi_table_partition *partition, tq_error *err)
{
    tqi_table_snap_partition head;
    tqi_table_result result = {0};
    tqi_region conv = {.next = TQI_CTL_CONV_FIRST};
    Tq__SnapshotPartition message;
    Tq__SnapshotPart part = TQ__SNAPSHOT_PART__INIT;

    tq__snapshot_partition__init(&message);
    int rc = tqi_table_snapshot_head(partition, &head, &result, err);
    rc = rc ? rc : parts_fields(&conv, &head, &message, err);
    rc = rc ? rc : parts_tasks(&conv, &head, &message, err);
    if (rc == TQ_OK) {
        message.name = tqi_ctl_conv_text(head.name);
        message.next_ordinal = head.next_ordinal;
        part.partition = &message;
        rc = parts_add(parts, &part, tq__snapshot_part__get_packed_size(&part), err);
    }
    tqi_region_fini(&conv);
    tqi_table_result_fini(&result);
    return rc;
}

/* The next samples of a partition; *piece is how many to take, and is reduced if their part is too large. */
static int parts_piece(tqi_table *table, tqi_ctl_parts *parts, tqi_table_partition *partition, uint64_t *next,
                       size_t *piece, bool *more, tq_error *err)
{
    uint64_t after = *next;
    tqi_table_snap_rows rows;
    tqi_table_result result = {0};
    tqi_region conv = {.next = TQI_CTL_CONV_FIRST};
    Tq__Batch batch;
    Tq__SnapshotPart part = TQ__SNAPSHOT_PART__INIT;
    int rc = tqi_table_snapshot_rows(partition, &after, *piece, &rows, &result, err);

    *more = rc == TQ_OK && rows.batch.n > 0;
    if (*more) {
        rc = tqi_ctl_conv_batch_out(&conv, &rows.batch, tqi_table_epoch(table), &batch, err);
        part.batch = &batch;
        part.consumed = tqi_ctl_conv_bytes(rows.consumed, rows.n_consumed);
    }
    if (rc == TQ_OK && *more) {
        size_t size = tq__snapshot_part__get_packed_size(&part);
        if (size > SNAPSHOT_PART_BYTES && rows.batch.n > 1) {
            *piece = rows.batch.n / 2;
        } else {
            rc = parts_add(parts, &part, size, err);
            parts->samples += rows.batch.n;
            *next = after;
        }
    }
    tqi_region_fini(&conv);
    tqi_table_result_fini(&result);
    return rc;
}

static int parts_partition(tqi_table *table, tqi_ctl_parts *parts, tqi_table_partition *partition, tq_error *err)
{
    uint64_t next = 0;
    size_t piece = SNAPSHOT_PIECE;
    bool more = true;
    int rc = parts_head(parts, partition, err);

    while (rc == TQ_OK && more) {
        rc = parts_piece(table, parts, partition, &next, &piece, &more, err);
    }
    return rc;
}

int tqi_ctl_parts_take(tqi_table *table, const char *only, tqi_ctl_parts *parts, tq_error *err)
{
    tqi_table_partition *partition = NULL;
    int rc = TQ_OK;

    if (only[0]) {
        partition = tqi_table_find_partition(table, only);
        return partition != NULL ? parts_partition(table, parts, partition, err)
                                 : tqi_table_unknown_partition(table, only, err);
    }
    while (rc == TQ_OK && (partition = tqi_table_next_partition(table, partition)) != NULL) {
        rc = parts_partition(table, parts, partition, err);
    }
    return rc;
}

void tqi_ctl_parts_fini(tqi_ctl_parts *parts)
{
    for (size_t i = 0; i < parts->n; i++) {
        free(parts->parts[i].data);
    }
    free(parts->parts);
    *parts = (tqi_ctl_parts){0};
}
