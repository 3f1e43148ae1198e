/*
 * manager.h - what managers inside libtq get from the client beyond the public seam: the loop and its connections.
 */
#ifndef TQI_MANAGER_H
#define TQI_MANAGER_H

#include "net/net.h"

#include <tq/manager.h>

/* tq_manager_host.internal.  At close the client closes the connector first (that ends every call and so every job), then
 * the manager: its close must not touch channels. */
typedef struct tqi_manager_internal {
    uv_loop_t *loop;
    tqi_connector *connector;
    tqi_channel *
        controller; /* to see when the session there is a new one (leases are void then); may be NULL */
    const char *node; /* that this process is on; NULL: the machine */
} tqi_manager_internal;

/* The manager of a type.  A "library" in its config (a JSON object) names the plug-in to load it from. */
int tqi_manager_make(const char *type, const char *config, const tq_storage_manager **out,
                     tq_error *err);

/* Whether the store that the config names can be used from here, where that is known without a client: a key-value store
 * that comes with the library is opened and closed.  TQ_OK for all others.  May block for as long as opening may. */
int tqi_manager_try(const char *type, const char *config, tq_error *err);

#ifdef TQI_WITH_SIMPLE
extern const tq_storage_manager tqi_simple_manager; /* "SimpleStorage" */
#endif

#endif
