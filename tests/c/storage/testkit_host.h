/*
 * testkit_host.h - what a client offers its storage manager, on the kit's loop and with its real controller.
 */
#ifndef TQ_TESTS_STORAGE_TESTKIT_HOST_H
#define TQ_TESTS_STORAGE_TESTKIT_HOST_H

#include "manager/manager.h"
#include "testkit.h"

/* How a put or get ended. */
typedef struct host_end {
    bool done;
    tq_error err;
    tq_block *blocks;
    uint32_t n_blocks;
    tq_extent *extents;
    uint32_t n_extents;
    uint32_t *gone;
    uint32_t n_gone;
} host_end;

/* A client with a manager in it. */
typedef struct host {
    tq_manager_host base;
    tqi_manager_internal internal;
    kit_client client;
    const tq_storage_manager *manager;
    void *state;
    unsigned grants; /* asked for */
    size_t listed;   /* owners in answers to questions for the list */
    unsigned works;  /* run on the pool */
    unsigned open;   /* requests in flight */
    uint64_t abandoned;
} host;

void host_open(kit *k, host *h, const char *type, const char *config);
void host_close(host *h);
/* Stores the columns; the result holds copies. */
void host_put_start(host *h, tq_put_job *job, host_end *end);
void host_get_start(host *h, tq_get_job *job, host_end *end);
void host_wait(host *h, const host_end *end);
void host_end_free(host_end *end);

#endif
