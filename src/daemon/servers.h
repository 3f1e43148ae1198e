/*
 * servers.h - the servers of the chosen storage backend, where its configuration says auto_init: started before the
 * controller, ended with the daemon, and nobody else's.
 */
#ifndef TQD_SERVERS_H
#define TQD_SERVERS_H

#include "daemon/endpoints.h"

#include <uv.h>

typedef struct tqd_servers tqd_servers;

typedef struct tqd_servers_options {
    tqd_config *config; /* where the servers are is written into it */
    const tqd_net *net;
    const tqd_listen *listen; /* of the controller: where it is reached, they are */
    const char *runtime_dir;  /* NULL: none */
} tqd_servers_options;

/* Starts them.  `ready` is called once from the loop: all serve (err is NULL), or one never will.  *out is NULL when there
 * is nothing to start; then `ready` is not called. */
int tqd_servers_start(uv_loop_t *loop, const tqd_servers_options *options,
                      void (*ready)(const tq_error *err, void *arg), void *arg, tqd_servers **out,
                      tq_error *err);
/* Ends them, the last one first; the loop has work until they have ended.  NULL is allowed. */
void tqd_servers_stop(tqd_servers *servers);

#endif
