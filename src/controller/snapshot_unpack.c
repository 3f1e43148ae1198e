/*
 * snapshot_unpack.c - reading the parts of a snapshot.
 */
#include "controller/snapshot_parts.h"

#include "base/error.h"
#include "base/pointer.h"
#include "base/type.h"

static int parts_read_fields(tqi_ctl_reading *reading, const Tq__SnapshotPartition *in, tqi_table_snap_partition *out,
                             tq_error *err)
{
    tqi_table_field_info *fields = tqi_ctl_conv_alloc(&reading->conv, in->n_field, sizeof(*fields), err);

    if (fields == NULL) {
        return TQ_ENOMEM;
    }
    for (size_t i = 0; i < in->n_field; i++) {
        const Tq__FieldInfo *from = in->field[i];
        if (from->kind > UINT8_MAX || from->dtype > UINT16_MAX || from->n_shape > TQ_NDIM_MAX ||
            !tqi_ctl_conv_ragged_dim_ok(from->ragged_dim)) {
            return tqi_error_set(err, TQ_EINVAL, "partition '%s': the schema of field '%s' is malformed", in->name,
                                 from->name);
        }
        fields[i] = (tqi_table_field_info){
            .name = from->name,
            .kind = (uint8_t)from->kind,
            .dtype = tqi_type_dtype(from->dtype),
            .ragged = from->ragged,
            .ragged_dim = (uint8_t)from->ragged_dim,
            .ndim = (uint32_t)from->n_shape,
            .shape = from->shape,
        };
    }
    out->fields = fields;
    out->n_fields = in->n_field;
    return TQ_OK;
}

static int parts_read_tasks(tqi_ctl_reading *reading, const Tq__SnapshotPartition *in, tqi_table_snap_partition *out,
                            tq_error *err)
{
    tqi_table_snap_task *tasks = tqi_ctl_conv_alloc(&reading->conv, in->n_task, sizeof(*tasks), err);

    if (tasks == NULL) {
        return TQ_ENOMEM;
    }
    for (size_t i = 0; i < in->n_task; i++) {
        const Tq__SnapshotTask *from = in->task[i];
        tqi_table_snap_cached_pick *picks = tqi_ctl_conv_alloc(&reading->conv, from->n_slot, sizeof(*picks), err);
        if (picks == NULL) {
            return TQ_ENOMEM;
        }
        for (size_t s = 0; s < from->n_slot; s++) {
            picks[s] = (tqi_table_snap_cached_pick){
                .name = from->slot[s]->name,
                .indexes = from->slot[s]->index,
                .n = from->slot[s]->n_index,
            };
        }
        tasks[i] = (tqi_table_snap_task){.name = from->name, .cached_picks = picks, .n_cached_picks = from->n_slot};
    }
    out->tasks = tasks;
    out->n_tasks = in->n_task;
    return TQ_OK;
}

static int parts_read_rows(tqi_ctl_reading *reading, const Tq__SnapshotPart *part, tq_error *err)
{
    const Tq__Batch *batch = part->batch;
    tqi_table_snap_partition *partition = reading->n_partitions ? &reading->partitions[reading->n_partitions - 1] : NULL;
    tqi_table_snap_rows *rows = &reading->rows[reading->n_rows];

    if (partition == NULL) {
        return tqi_error_set(err, TQ_EINVAL, "the snapshot does not begin with a partition");
    }
    int rc = tqi_ctl_conv_batch_in(&reading->conv, batch, batch->n_index, &rows->batch, err);
    if (rc) {
        return rc;
    }
    if (batch->n_ordinal != batch->n_index ||
        (part->consumed.len && part->consumed.len != batch->n_index * partition->n_tasks)) {
        return tqi_error_set(err, TQ_EINVAL,
                             "partition '%s': %zu samples with %zu ordinals and %zu bytes of "
                             "consumption",
                             partition->name, batch->n_index, batch->n_ordinal, part->consumed.len);
    }
    for (size_t i = 0; i < rows->batch.n_blocks && reading->strange; i++) {
        ((tqi_table_batch_block *)tqi_unconst(rows->batch.blocks))[i].owner = "";
    }
    rows->batch.ordinals = batch->ordinal;
    rows->consumed = part->consumed.data;
    rows->n_consumed = part->consumed.len;
    partition->rows = partition->n_rows ? partition->rows : rows;
    partition->n_rows++;
    reading->n_rows++;
    return TQ_OK;
}

static int parts_read_part(tqi_ctl_reading *reading, const ProtobufCBinaryData *bytes, tq_error *err)
{
    int rc = TQ_OK;
    Tq__SnapshotPart *part =
        (Tq__SnapshotPart *)tqi_request_decode(&tq__snapshot_part__descriptor, bytes->data, bytes->len, NULL, err);

    if (part == NULL) {
        return err->code;
    }
    reading->messages[reading->n_messages++] = part;
    if (part->partition != NULL) {
        tqi_table_snap_partition *partition = &reading->partitions[reading->n_partitions++];
        partition->name = part->partition->name;
        partition->next_ordinal = part->partition->next_ordinal;
        rc = parts_read_fields(reading, part->partition, partition, err);
        rc = rc ? rc : parts_read_tasks(reading, part->partition, partition, err);
    }
    return rc == TQ_OK && part->batch != NULL ? parts_read_rows(reading, part, err) : rc;
}

int tqi_ctl_parts_read(const tqi_ctl_parts *parts, tqi_ctl_reading *reading, tq_error *err)
{
    size_t n = parts->n;
    int rc = TQ_OK;

    reading->messages = tqi_ctl_conv_pointers(&reading->conv, n, err);
    reading->partitions = tqi_ctl_conv_alloc(&reading->conv, n, sizeof(*reading->partitions), err);
    reading->rows = tqi_ctl_conv_alloc(&reading->conv, n, sizeof(*reading->rows), err);
    if (reading->messages == NULL || reading->partitions == NULL || reading->rows == NULL) {
        return TQ_ENOMEM;
    }
    for (size_t i = 0; i < n && rc == TQ_OK; i++) {
        rc = parts_read_part(reading, &parts->parts[i], err);
    }
    return rc;
}

void tqi_ctl_reading_fini(tqi_ctl_reading *reading)
{
    for (size_t i = 0; i < reading->n_messages; i++) {
        tq__snapshot_part__free_unpacked(reading->messages[i], NULL);
    }
    tqi_region_fini(&reading->conv);
}
