/*
 * backend_servers.h - the servers of the chosen storage backend, if its configuration says auto_init: started before
 * the controller, stopped with the daemon, and used by nobody else.
 */
#ifndef TQI_DAEMON_BACKEND_SERVERS_H
#define TQI_DAEMON_BACKEND_SERVERS_H

#include "daemon/endpoints.h"

#include <uv.h>

typedef struct tqd_backend_servers tqd_backend_servers;

typedef struct tqd_backend_servers_options {
    tqd_config *config; /* the servers' addresses are recorded in it */
    const tqd_net *net;
    const tqd_listen *listen; /* of the controller: the servers listen at its addresses */
    const char *runtime_dir;  /* NULL: none */
} tqd_backend_servers_options;

/* Starts them. `ready` is called once from the loop: all are serving (err is NULL), or one never will. *out is NULL if
 * there is nothing to start; then `ready` is not called. */
int tqd_backend_servers_start(uv_loop_t *loop, const tqd_backend_servers_options *options,
                              void (*ready)(const tq_error *err, void *arg), void *arg, tqd_backend_servers **out,
                              tq_error *err);
/* Stops them, the last one first; the loop stays busy until they have exited. NULL is allowed. */
void tqd_backend_servers_stop(tqd_backend_servers *servers);

#endif
