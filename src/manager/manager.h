/*
 * manager.h - what managers inside libtq get from the client beyond the public seam: the loop and its connections.
 */
#ifndef TQI_MANAGER_H
#define TQI_MANAGER_H

#include "net/net.h"

#include <tq/manager.h>

/* tq_manager_host.internal */
typedef struct tqi_manager_internal {
    uv_loop_t *loop;
    tqi_connector *connector;
} tqi_manager_internal;

#ifdef TQI_WITH_SIMPLE
extern const tq_storage_manager tqi_simple_manager; /* "SimpleStorage" */
#endif

#endif
