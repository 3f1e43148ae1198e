/*
 * get.h - a read: what get.c (steps) and get_plan.c (ranges and destination) share.
 */
#ifndef TQI_CLIENT_GET_H
#define TQI_CLIENT_GET_H

#include "client/client.h"
#include "client/cmeta.h"
#include "client/data.h"

typedef struct tqi_get {
    tqi_task task;
    tq_get_job job;
    tq_meta *meta;       /* as it is known now */
    const char **fields; /* asked for */
    size_t n_fields;
    unsigned resolves; /* times the controller was asked */
    bool in_manager;   /* it may write to data's buffers */
    bool in_owners;    /* the list of owners was asked for */
    tq_data *data;
    tq_get_range *ranges; /* of the job */
    size_t n_ranges;
    size_t max_ranges;
    tq_block *blocks; /* of the job */
    tq_block *gone;   /* blocks that the manager did not find; owner names live in gone_names */
    size_t n_gone;
    tqi_region gone_names;
} tqi_get;

/* Whether any cell has no placement to read from; with `err`, names them as lost or not ready. */
bool tqi_get_missing(const tqi_get *get, tq_error *err);
/* Makes data, ranges and blocks for the meta as it is. */
int tqi_get_plan(tqi_get *get, tq_error *err);
/* Whether a cell to read lies in a block that was gone; with `err`, names them as lost. */
bool tqi_get_still_gone(const tqi_get *get, tq_error *err);

#endif
