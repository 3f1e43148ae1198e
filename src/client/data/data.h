/*
 * data.h - destination memory of reads: tq_data, and the pool of warm buffers behind it.
 */
#ifndef TQI_CLIENT_DATA_DATA_H
#define TQI_CLIENT_DATA_DATA_H

#include <stdatomic.h>

#include "base/region.h"
#include "client/data/borrows.h"

#include <tq/tq.h>

typedef struct tqi_client_buffer {
    void *data; /* 64-byte aligned */
    size_t capacity;
} tqi_client_buffer;

struct tq_data {
    _Atomic uint32_t refs;
    tqi_region region;
    size_t rows;
    size_t n_columns;
    tq_data_column *columns;
    tqi_client_buffer *buffers;  /* one per column; data NULL: none */
    tqi_client_borrows *borrows; /* columns read in place, or left there; NULL: none */
};

tq_data *tqi_client_data_alloc(size_t rows, size_t n_columns);

/* A buffer of at least `size` bytes; data NULL when out of memory. */
tqi_client_buffer tqi_client_pool_get(size_t size);
/* Gives it back. */
void tqi_client_pool_put(tqi_client_buffer buffer);
/* Taken around a fork. */
void tqi_client_pool_lock(void);
void tqi_client_pool_unlock(void);
void tqi_client_pool_forked(void);

#endif
