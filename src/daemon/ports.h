/*
 * ports.h - whether net.port_range has a port for everything that a daemon listens with.
 */
#ifndef TQI_DAEMON_PORTS_H
#define TQI_DAEMON_PORTS_H

#include "daemon/endpoints.h"

/* What a daemon runs. */
typedef struct tqd_ports_parts {
    bool controller;
    size_t n_units;
    const char *runtime_dir; /* or NULL */
} tqd_ports_parts;

/* TQ_ECONFIG, with what needs how many, if the range is certainly too short. Ports used by others, and those of a
 * store's servers, are not known yet: a listener that finds none reports that itself. */
int tqd_ports_check(const tqd_net *net, const tqd_ports_parts *parts, tq_error *err);

#endif
