/*
 * data.c - tq_data: reference-counted columns of rows in the library's memory.
 */
#include "client/data/data.h"
#include "base/pointer.h"

#include <stdlib.h>
#include <string.h>

tq_data *tqi_client_data_alloc(size_t rows, size_t n_columns)
{
    tq_data *data = calloc(1, sizeof(*data));

    if (data == NULL) {
        return NULL;
    }
    atomic_init(&data->refs, 1);
    data->rows = rows;
    data->n_columns = n_columns;
    data->columns = tqi_region_zero(&data->region, n_columns, sizeof(*data->columns));
    data->buffers = tqi_region_zero(&data->region, n_columns, sizeof(*data->buffers));
    if (data->columns == NULL || data->buffers == NULL) {
        tqi_region_fini(&data->region);
        free(data);
        return NULL;
    }
    return data;
}

tq_data *tq_data_ref(const tq_data *data)
{
    tq_data *held = tqi_unconst(data); /* counted, not changed */

    if (held != NULL) {
        atomic_fetch_add_explicit(&held->refs, 1, memory_order_relaxed);
    }
    return held;
}

void tq_data_unref(tq_data *data)
{
    if (data == NULL || atomic_fetch_sub_explicit(&data->refs, 1, memory_order_acq_rel) != 1) {
        return;
    }
    for (size_t c = 0; c < data->n_columns; c++) {
        if (data->buffers[c].data != NULL) {
            tqi_client_pool_put(data->buffers[c]);
        }
    }
    if (data->borrows != NULL) {
        tqi_client_borrows_release(data->borrows);
    }
    tqi_region_fini(&data->region);
    free(data);
}

size_t tq_data_row_count(const tq_data *data)
{
    return data != NULL ? data->rows : 0;
}

size_t tq_data_column_count(const tq_data *data)
{
    return data != NULL ? data->n_columns : 0;
}

const tq_data_column *tq_data_column_at(const tq_data *data, size_t c)
{
    return data != NULL && c < data->n_columns ? &data->columns[c] : NULL;
}

const tq_data_column *tq_data_find_column(const tq_data *data, const char *name)
{
    for (size_t c = 0; data != NULL && name != NULL && c < data->n_columns; c++) {
        if (strcmp(data->columns[c].name, name) == 0) {
            return &data->columns[c];
        }
    }
    return NULL;
}
