/*
 * meter.c - counting requests, claims and cells as they happen (see meter.h).
 *
 * Counting never fails a request: a task or field for which there is no memory, or that exceeds the limit, is counted
 * under "(other)", which is made with the meter.
 */
#include "controller/meter.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/type.h"
#include "controller/events.h"

/* Kinds are named as users of upstream know them, if it has such a request; others have the names of our own
 * table. */
static const struct {
    uint16_t kind;
    const char *name;
    const char *event;
} meter_names[] = {
    {TQI_PUBLISH, "NOTIFY_DATA_UPDATE", "put"},
    {TQI_CLAIM, "GET_META", "claim"},
    {TQI_CLEAR, "CLEAR_META", "clear"},
    {TQI_UNIT_MAP, "CLEAR_PARTITION", NULL}, /* stands for the slot after the last kind */
    {TQI_RESERVE, "RESERVE", "reserve"},
    {TQI_RESOLVE, "KV_RETRIEVE_META", NULL},
    {TQI_CONSUMPTION, "GET_CONSUMPTION", NULL},
    {TQI_PRODUCTION, "GET_PRODUCTION", NULL},
    {TQI_LIST_PARTITIONS, "GET_LIST_PARTITIONS", NULL},
    {TQI_LIST_KEYS, "KV_LIST", NULL},
    {TQI_RETRIEVE_KEYS, "KV_RETRIEVE_KEYS", NULL},
};

/* --- names ---------------------------------------------------------------- */

static tqi_ctl_meter_name *meter_name_add(tqi_ctl_meter_name **table, const char *text)
{
    tqi_ctl_meter_name *name = calloc(1, sizeof(*name) + strlen(text) + 1);

    if (name != NULL) {
        memcpy(name->name, text, strlen(text) + 1);
        if (!TQI_HASH_ADD_KEYPTR(*table, name->name, strlen(text), name)) {
            free(name);
            return NULL;
        }
    }
    return name;
}

static tqi_ctl_meter_name *meter_name(tqi_ctl_meter_name **table, const char *text)
{
    tqi_ctl_meter_name *name = NULL;

    HASH_FIND_STR(*table, text, name);
    if (name == NULL && HASH_COUNT(*table) <= TQI_METRIC_NAMES_MAX) {
        name = meter_name_add(table, text);
    }
    if (name == NULL) {
        HASH_FIND_STR(*table, TQI_METRIC_OTHER, name);
    }
    return name;
}

static void meter_names_free(tqi_ctl_meter_name **table)
{
    tqi_ctl_meter_name *name = NULL;
    tqi_ctl_meter_name *next = NULL;

    HASH_ITER (hh, *table, name, next) {
        HASH_DEL(*table, name);
        free(name);
    }
}

/* --- life ----------------------------------------------------------------- */

tqi_ctl_meter *tqi_ctl_meter_alloc(void)
{
    tqi_ctl_meter *meter = calloc(1, sizeof(*meter));

    if (meter == NULL || meter_name_add(&meter->tasks, TQI_METRIC_OTHER) == NULL ||
        meter_name_add(&meter->fields, TQI_METRIC_OTHER) == NULL) {
        tqi_ctl_meter_free(meter);
        return NULL;
    }
    for (uint16_t slot = 0; slot + 1u < TQI_CTL_METER_OPS; slot++) {
        const tqi_method *method = tqi_method_find((uint16_t)(TQI_PUBLISH + slot));
        meter->ops[slot].name = method != NULL ? method->name : NULL;
    }
    for (size_t i = 0; i < sizeof(meter_names) / sizeof(*meter_names); i++) {
        tqi_ctl_meter_op *op = &meter->ops[meter_names[i].kind - TQI_PUBLISH];
        op->name = meter_names[i].name;
        op->event = meter_names[i].event;
    }
    return meter;
}

void tqi_ctl_meter_free(tqi_ctl_meter *meter)
{
    if (meter != NULL) {
        meter_names_free(&meter->tasks);
        meter_names_free(&meter->fields);
        free(meter);
    }
}

/* --- requests ------------------------------------------------------------- */

uint64_t tqi_ctl_meter_now(const tqi_ctl_meter *meter)
{
    return meter != NULL ? tqi_now() : 0;
}

tqi_ctl_meter_op *tqi_ctl_meter_op_of(tqi_ctl_meter *meter, uint16_t kind, const ProtobufCMessage *message)
{
    size_t slot = (size_t)kind - TQI_PUBLISH;

    if (meter == NULL) {
        return NULL;
    }
    if (kind == TQI_CLEAR && ((const Tq__Clear *)message)->all) {
        slot = TQI_CTL_METER_OPS - 1;
    }
    return &meter->ops[slot];
}

void tqi_ctl_meter_handled(tqi_ctl_meter_op *op, uint64_t since)
{
    if (op != NULL) {
        tqi_histogram_add(&op->duration, tqi_now() - since);
    }
}

void tqi_ctl_meter_failed(tqi_ctl_meter_op *op, int rc)
{
    if (op != NULL && rc != TQ_EAGAIN && rc != TQ_ECANCELED) {
        op->errors++;
    }
}

/* --- claims, events ------------------------------------------------------- */

tqi_ctl_meter_name *tqi_ctl_meter_task(tqi_ctl_meter *meter, const char *task)
{
    return meter != NULL ? meter_name(&meter->tasks, task) : NULL;
}

void tqi_ctl_meter_claimed(tqi_ctl_meter *meter, const char *task, uint64_t since)
{
    tqi_ctl_meter_name *name = tqi_ctl_meter_task(meter, task);

    if (name != NULL) {
        tqi_histogram_add(&name->wait, tqi_now() - since);
    }
}

void tqi_ctl_meter_event(tqi_ctl_meter *meter, const tqi_ctl_happened *what)
{
    if (meter == NULL) {
        return;
    }
    for (size_t i = 0; i < TQI_CTL_METER_EVENTS_MAX; i++) {
        if (meter->events[i].kind == NULL || strcmp(meter->events[i].kind, what->kind) == 0) {
            meter->events[i].kind = what->kind;
            meter->events[i].count++;
            break;
        }
    }
    for (size_t i = 0; i < TQI_CTL_METER_OPS; i++) {
        if (meter->ops[i].event != NULL && strcmp(meter->ops[i].event, what->kind) == 0) {
            meter->ops[i].samples += what->samples;
            break;
        }
    }
    if (strcmp(what->kind, "claim") == 0) {
        tqi_ctl_meter_name *task = tqi_ctl_meter_task(meter, what->task);
        task->claims++;
        task->items += what->samples;
        task->bytes += what->bytes;
    }
}

/* --- cells ---------------------------------------------------------------- */

static uint64_t meter_elements(const uint64_t *dims, uint32_t ndim)
{
    uint64_t elements = 1;

    for (uint32_t i = 0; i < ndim; i++) {
        elements *= dims[i];
    }
    return elements;
}

/* Adds the produced cells of a field. The table has accepted it, so its counts agree. */
static void meter_field(tqi_ctl_meter_name *name, const tqi_table_batch_field *field)
{
    uint64_t bytes = 0;
    uint64_t cells = 0;
    size_t row = 0;
    uint64_t size = (field->dtype.bits + 7u) / 8u;
    const uint64_t *dims = field->dims;
    uint64_t each = field->ragged ? 0 : meter_elements(field->shape, field->ndim);

    for (size_t r = 0; r < field->n_runs; r++) {
        const tqi_table_run *run = &field->runs[r];
        bool there = run->block != TQI_BLOCK_NONE && run->block != TQI_BLOCK_LOST;
        cells += there ? run->rows : 0;
        if (!field->ragged) {
            bytes += there ? each * run->rows * size : 0;
            continue;
        }
        for (uint32_t i = 0; i < run->rows; i++, row++) {
            uint32_t ndim = field->ndims[field->n_ndims == 1 ? 0 : row];
            size = field->types != NULL ? tqi_type_size(field->types[row]) : size;
            bytes += there ? meter_elements(dims, ndim) * size : 0;
            dims += ndim;
        }
    }
    name->items += cells;
    name->bytes += bytes;
}

void tqi_ctl_meter_published(tqi_ctl_meter *meter, const tqi_table_batch *batch)
{
    for (size_t i = 0; meter != NULL && i < batch->n_fields; i++) {
        meter_field(meter_name(&meter->fields, batch->fields[i].name), &batch->fields[i]);
    }
}
