/*
 * backend_kinds.h - the table of servers that the daemon can start for a storage backend, and how each is started.
 */
#ifndef TQI_DAEMON_BACKEND_KINDS_H
#define TQI_DAEMON_BACKEND_KINDS_H

#include "daemon/child.h"
#include "daemon/endpoints.h"

/* Where the servers of a system are: first what is known from the start, then what a kind adds. */
typedef struct tqd_place {
    tqd_config *config;
    const tqd_net *net;
    const char *runtime_dir;     /* NULL: none */
    char host[TQI_NET_HOST_MAX]; /* the controller's tcp address; else the loopback's */
    bool local;                  /* the controller listens only on unix sockets */
    int next_port;               /* of net.port_range, to be tried next */

    /* the port was picked here: if it turns out to be taken, another one may be free */
    bool picked;
    int port;
    char address[2 * TQI_NET_HOST_MAX]; /* as given to clients */
} tqd_place;

/* One program to start. */
typedef struct tqd_plan {
    const char *what;
    const char *name;    /* of the program */
    const char *install; /* where it comes from, for a message */
    const char *argv[TQD_BACKEND_ARGS];
    size_t n_args;
    char input[8192]; /* "": none */
    const char *ready_line;
    struct sockaddr_storage ready_at; /* ss_family 0: by the line */
    char text[8192];                  /* of the arguments */
    size_t text_size;
} tqd_plan;

typedef struct tqd_backend_kind {
    const char *backend;
    size_t n_programs;
    /* Whether the configuration asks for it; an error if it asks for something impossible. */
    int (*wanted)(const tqd_config *config, bool *out, tq_error *err);
    /* Plans program i of n; those before it are serving. */
    int (*plan)(tqd_place *place, size_t i, tqd_plan *plan, tq_error *err);
    /* All are serving: records for clients where they are. */
    int (*note)(const tqd_place *place, tq_error *err);
} tqd_backend_kind;

extern const tqd_backend_kind tqd_backend_kinds[];
extern const size_t tqd_n_backend_kinds;

#endif
