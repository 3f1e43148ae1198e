/*
 * layout.c - how the rows of a column are laid out in memory: end to end, or at equal distances with the gaps
 * filled, in the library's memory or the caller's.
 *
 * Padding costs no copy: every row is one range of the read anyway, and its destination is its padded place. This
 * requires that a row's bytes stay together in the padded tensor, so rows that differ in dims other than the first are
 * left end to end.
 */
#include "client/get/get.h"

#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/name_table.h"
#include "base/pointer.h"
#include "client/args.h"

static int layout_set(tqi_client_get *get, ptrdiff_t f, const tq_get_field *from, tq_error *err)
{
    if (f < 0) {
        return tqi_error_set(err, TQ_EFIELD, "field '%s' has a layout, but is not read",
                             from->name != NULL ? from->name : "");
    }
    if (from->dest_size > 0 && from->dest == NULL) {
        return tqi_error_set(err, TQ_EINVAL, "field '%s': dest is NULL", from->name);
    }
    if (from->pad_dtype.bits > 8 * sizeof(from->pad)) {
        return tqi_error_set(err, TQ_EDTYPE, "field '%s': a pad value of %u bits", from->name, from->pad_dtype.bits);
    }
    get->layouts[f] = *from;
    get->layouts[f].name = get->fields[f];
    if (from->pad_dtype.bits == 0) {
        memset(get->layouts[f].pad, 0, sizeof(from->pad));
    }
    return TQ_OK;
}

int tqi_client_get_layouts(tqi_client_get *get, const tq_get_options *options, tq_error *err)
{
    tqi_name_array names = {get->fields, sizeof(*get->fields), get->n_fields};
    uint32_t *table;

    int rc = tqi_client_check_array("tq_get_options.fields", options->fields, options->n_fields, err);

    if (rc != TQ_OK) {
        return rc;
    }
    get->layouts = tqi_region_zero(&get->task.region, get->n_fields, sizeof(*get->layouts));
    if (get->layouts == NULL) {
        return tqi_error_nomem(err, "a read");
    }
    table = tqi_name_table(names);
    for (size_t i = 0; i < options->n_fields && rc == TQ_OK; i++) {
        const tq_get_field *from = &options->fields[i];
        rc = layout_set(get, from->name != NULL ? tqi_name_find(names, table, from->name) : -1, from, err);
    }
    free(table);
    return rc;
}

/* --- padding -------------------------------------------------------------- */

/* Whether rows have a first dim and agree in all others; *longest is the largest first dim. */
static bool layout_can_pad(const tq_data_column *column, size_t rows, uint64_t *longest)
{
    const uint64_t *first = column->dims;
    uint32_t ndim = rows > 0 ? column->ndims[0] : 0;

    *longest = 0;
    if (column->kind != TQ_TENSOR || column->types != NULL || ndim == 0) {
        return false;
    }
    for (size_t i = 0; i < rows; i++) {
        const uint64_t *dims = first + i * ndim;
        if (column->ndims[i] != ndim || memcmp(dims + 1, first + 1, (ndim - 1) * sizeof(*dims))) {
            return false;
        }
        *longest = dims[0] > *longest ? dims[0] : *longest;
    }
    return true;
}

int tqi_client_get_pad(tqi_client_get *get, size_t c, tq_error *err)
{
    const tq_get_field *layout = get->layouts != NULL ? &get->layouts[c] : NULL;
    tq_data_column *column = &get->data->columns[c];
    size_t rows = get->meta->n;
    uint64_t *offsets = tqi_unconst(column->offsets); /* of this read's region */
    uint64_t size = column->dtype.bits / 8, length, total, rest;

    if (layout == NULL || !layout->padded || !layout_can_pad(column, rows, &length)) {
        return TQ_OK;
    }
    if (layout->pad_dtype.bits != 0 &&
        (layout->pad_dtype.code != column->dtype.code || layout->pad_dtype.bits != column->dtype.bits)) {
        return tqi_error_set(err, TQ_EDTYPE, "field '%s': the pad value is of another dtype than its rows",
                             column->name);
    }
    length = layout->length > length ? layout->length : length;
    rest = layout->multiple > 1 ? length % layout->multiple : 0;
    if ((rest > 0 && __builtin_add_overflow(length, layout->multiple - rest, &length)) ||
        __builtin_mul_overflow(size, length, &size)) {
        goto too_large;
    }
    for (uint32_t d = 1; d < column->ndims[0]; d++) {
        if (__builtin_mul_overflow(size, column->dims[d], &size)) {
            goto too_large;
        }
    }
    if (__builtin_mul_overflow(size, (uint64_t)rows, &total) || total > INT64_MAX) {
        goto too_large;
    }
    get->gaps += total - offsets[rows];
    for (size_t i = 0; i <= rows; i++) {
        offsets[i] = i * size;
    }
    column->padded = true;
    column->length = length;
    return TQ_OK;

too_large:
    return tqi_error_set(err, TQ_EINVAL, "field '%s': more bytes than can be read at once", column->name);
}

/* Repeats one element over `size` bytes, a multiple of its size. */
static void layout_repeat(uint8_t *at, uint64_t size, const uint8_t *element, size_t element_size)
{
    uint64_t done = element_size;
    bool same = true;

    for (size_t i = 1; i < element_size; i++) {
        same = same && element[i] == element[0];
    }
    if (same) {
        memset(at, element[0], size);
        return;
    }
    memcpy(at, element, element_size);
    while (done < size) {
        uint64_t more = done < size - done ? done : size - done;
        memcpy(at + done, at, more);
        done += more;
    }
}

void tqi_client_get_fill(tqi_client_get *get)
{
    for (size_t c = 0; c < get->n_fields; c++) {
        const tq_data_column *column = &get->data->columns[c];
        size_t element = column->dtype.bits / 8;
        const uint64_t *dims = column->dims;

        if (!column->padded) {
            continue;
        }
        for (size_t i = 0; i < get->meta->n; i++, dims += column->ndims[0]) {
            uint64_t used = element;
            for (uint32_t d = 0; d < column->ndims[0]; d++) {
                used *= dims[d];
            }
            if (column->offsets[i] + used < column->offsets[i + 1]) {
                layout_repeat((uint8_t *)column->data + column->offsets[i] + used,
                              column->offsets[i + 1] - column->offsets[i] - used, get->layouts[c].pad, element);
            }
        }
    }
}

/* --- memory --------------------------------------------------------------- */

int tqi_client_get_memory(tqi_client_get *get, size_t c, uint64_t size, tq_error *err)
{
    const tq_get_field *layout = get->layouts != NULL ? &get->layouts[c] : NULL;
    tq_data *data = get->data;
    tq_data_column *column = &data->columns[c];

    if (layout == NULL || layout->dest == NULL) {
        data->buffers[c] = tqi_client_pool_get(size);
        column->data = data->buffers[c].data;
        return column->data != NULL ? TQ_OK : tqi_error_nomem(err, "the rows that are read");
    }
    if (size > layout->dest_size) {
        return tqi_error_set(err, TQ_EROWS, "field '%s': %llu bytes do not fit into the caller's %zu", column->name,
                             (unsigned long long)size, layout->dest_size);
    }
    column->data = layout->dest;
    return TQ_OK;
}
