/*
 * jobs.h - the interface between the manager host and the reads and writes it serves.
 */
#ifndef TQI_CLIENT_JOBS_H
#define TQI_CLIENT_JOBS_H

#include "client/client.h"

/* put/put.c, get/get.c: the slots of tq_manager_host. */
void tqi_client_put_finish(tq_manager_host *host, tq_put_job *job, const tq_error *err, const tq_block *blocks,
                           uint32_t n_blocks, const tq_extent *extents, uint32_t n_extents);
void tqi_client_get_finish(tq_manager_host *host, tq_get_job *job, const tq_error *err, const uint32_t *gone,
                           uint32_t n_gone);

/* manager_host.c: those of the given owners of the runtime's manager that exist now. */
void tqi_client_owners(tqi_client_runtime *rt, const char *const *names, size_t n, uint64_t deadline,
                       void (*done)(const tq_error *err, const tq_owner_info *owners, size_t n, void *arg), void *arg);
/* Reports to the controller that published blocks are gone from their store. */
void tqi_client_report_lost(tqi_client_runtime *rt, const uint64_t *ids, size_t n);

#endif
