/*
 * put.h - a put: prepared on the caller's thread (args.c) and carried out on the loop (put.c).
 */
#ifndef TQI_CLIENT_PUT_PUT_H
#define TQI_CLIENT_PUT_PUT_H

#include "client/runtime.h"

typedef struct tqi_client_put {
    tqi_client_task task;
    tqi_client_put_job write;
    tq_put_column *columns; /* of the write */
    uint64_t *ids;          /* blocks that were written */
    size_t n_ids;
    size_t n;    /* samples */
    bool keyed;  /* named by keys: one may be there twice */
    bool stores; /* has columns with bytes */
    unsigned tries;
    uint64_t session; /* of the client, when the manager was called last */
    Tq__Publish publish;
    Tq__Batch batch;
} tqi_client_put;

/* Checks the arguments and fills message and job; nothing is sent. notify: cells without bytes,
 * with the notes in opaque (NULL: empty ones). */
int tqi_client_put_prepare(tqi_client_put *put, const tq_put_args *args, bool notify, const tq_slice *const *opaque,
                           tq_error *err);
/* Writes the placements of the stored columns, from the manager's answer, into the message. */
int tqi_client_put_place(tqi_client_put *put, const tq_block *blocks, uint32_t n_blocks, const tq_extent *extents,
                         uint32_t n_extents, tq_error *err);

#endif
