/*
 * data.h - destination memory of reads: tq_data, and the pool of warm buffers behind it.
 */
#ifndef TQI_CLIENT_DATA_H
#define TQI_CLIENT_DATA_H

#include <stdatomic.h>

#include "client/region.h"
#include "client/views.h"

#include <tq/tq.h>

typedef struct tqi_buffer {
    void *data; /* 64-byte aligned */
    size_t capacity;
} tqi_buffer;

struct tq_data {
    _Atomic uint32_t refs;
    tqi_region region;
    size_t rows;
    size_t n_columns;
    tq_data_column *columns;
    tqi_buffer *buffers; /* one per column; data NULL: none */
    tqi_views *views;    /* columns read in place, or left there; NULL: none */
};

tq_data *tqi_data_alloc(size_t rows, size_t n_columns);

/* A buffer of at least `size` bytes; data NULL when out of memory. */
tqi_buffer tqi_pool_get(size_t size);
/* Gives it back. */
void tqi_pool_put(tqi_buffer buffer);

#endif
